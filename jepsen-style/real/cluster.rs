//! Nodes as processes: starts, kills, pauses and unplugs them.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{io::AsyncReadExt, net::TcpStream, time::Instant};

use super::{
    Wrong,
    image::Disk,
    links::Links,
    subject::{NodeConfig, Subject},
};

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where clients connect.
    pub port: u16,
    /// Its disk.
    pub disk: Disk,
    cluster_port: u16,
    child: Option<Child>,
    paused: bool,
    unplugged: bool,
    /// It runs the older version.
    pub old: bool,
}

/// What is to be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Nodes.
    pub nodes: usize,
    /// Size of each node's image in MiB; none for plain folders.
    pub image_mib: Option<u64>,
    /// All begin with the older version.
    pub old: bool,
    /// Nothing stands between the nodes: for what is measured.
    pub direct: bool,
}

/// Some nodes of one subject. Dropping it ends them.
#[derive(Debug)]
pub struct Cluster {
    subject: Subject,
    dir: PathBuf,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// What stands between them; none for one alone.
    pub links: Option<Links>,
}

/// A port that is free now, below those that the kernel gives to outgoing connections: one of them could take it before
/// the node does.
fn port() -> Result<u16, Wrong> {
    use std::sync::atomic::{AtomicU32, Ordering};
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORTS {
        // Runs at the same time begin at different places.
        let n = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id().wrapping_mul(97) % PORTS;
        let port = (FIRST + n % PORTS) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port is free".into())
}

/// A size in KiB from a file of the kernel's, by the name of its line.
pub fn kib(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Cluster {
    /// Prepares nodes in an empty folder; none runs yet.
    ///
    /// # Errors
    /// Folder, images or ports cannot be had.
    pub async fn prepare(subject: Subject, dir: &Path, shape: Shape) -> Result<Cluster, Wrong> {
        fs::remove_dir_all(dir).ok();
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let mut nodes = Vec::new();
        for i in 0..shape.nodes {
            let name = format!("n{}", i + 1);
            let at = dir.join(&name);
            let disk = match shape.image_mib {
                Some(mib) => Disk::image(&at, mib)?,
                None => Disk::folder(&at)?,
            };
            let (port, cluster_port) = (port()?, port()?);
            let (child, paused, unplugged) = (None, false, false);
            nodes.push(Node { name, port, disk, cluster_port, child, paused, unplugged, old: shape.old });
        }
        let targets: Vec<u16> = nodes.iter().map(|n| n.cluster_port).collect();
        let proxied = nodes.len() > 1 && !shape.direct;
        let links = if proxied { Some(Links::start(&targets).await?) } else { None };
        Ok(Cluster { subject, dir: dir.to_owned(), nodes, links })
    }

    /// Where clients connect.
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|n| n.port).collect()
    }

    /// Starts a node and does not wait for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, i: usize) -> Result<(), Wrong> {
        if self.is_running(i) {
            return Ok(());
        }
        self.nodes[i].disk.mount()?;
        let others = || self.nodes.iter().enumerate().filter(|(n, _)| *n != i).map(|(_, n)| n.cluster_port);
        let direct = || (self.nodes.len() > 1).then(|| others().collect());
        let routes = self.links.as_ref().map(|l| l.routes(i)).or_else(direct);
        let n = &self.nodes[i];
        let text = self.subject.config(&NodeConfig {
            name: &n.name,
            port: n.port,
            store: &n.disk.data(),
            max_file: 8 << 30,
            cluster: routes.map(|r| (n.cluster_port, r)),
        });
        let config = self.dir.join(format!("{}.conf", n.name));
        let e = |e: std::io::Error| e.to_string();
        fs::write(&config, text).map_err(e)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join(format!("{}.log", n.name)))
            .map_err(e)?;
        let child = self
            .subject
            .command(&config, self.nodes[i].old)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(e)?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("{}: {e}", self.subject.bin.display()))?;
        self.nodes[i].child = Some(child);
        if std::mem::take(&mut self.nodes[i].unplugged)
            && let Some(links) = &self.links
        {
            links.forget(i);
            links.heal();
        }
        Ok(())
    }

    /// Whether the process is there (also if it stands still).
    pub fn is_running(&mut self, i: usize) -> bool {
        let n = &mut self.nodes[i];
        let gone = n.child.as_mut().is_none_or(|c| !matches!(c.try_wait(), Ok(None)));
        if gone {
            n.child = None;
        }
        !gone
    }

    fn signal(&self, i: usize, s: Signal) {
        if let Some(c) = &self.nodes[i].child {
            // A process that has just ended needs none.
            kill_process(Pid::from_child(c), s).ok();
        }
    }

    /// Kills a node without a word to it. The kernel still closes its connections.
    pub fn kill(&mut self, i: usize) {
        self.signal(i, Signal::KILL);
        if let Some(mut c) = self.nodes[i].child.take() {
            c.wait().ok();
        }
        self.nodes[i].paused = false;
    }

    /// Asks a node to end and waits for it; kills it after ten seconds.
    pub async fn stop(&mut self, i: usize) {
        self.signal(i, Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.is_running(i) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill(i);
    }

    /// Asks all nodes to end at once and waits for them; kills what is still there when it takes longer.
    pub async fn stop_all(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        (0..self.nodes.len()).for_each(|i| self.signal(i, Signal::TERM));
        while (0..self.nodes.len()).any(|i| self.is_running(i)) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (0..self.nodes.len()).for_each(|i| self.kill(i));
    }

    /// A node stands still.
    pub fn pause(&mut self, i: usize) {
        self.signal(i, Signal::STOP);
        self.nodes[i].paused = true;
    }

    /// It goes on.
    pub fn resume(&mut self, i: usize) {
        self.signal(i, Signal::CONT);
        self.nodes[i].paused = false;
    }

    /// These nodes lose power at once: what they did not sync is gone, and nobody is told.
    ///
    /// # Errors
    /// The disks are folders, or a process does not stand still.
    pub fn unplug(&mut self, which: &[usize]) -> Result<(), Wrong> {
        which.iter().for_each(|i| self.signal(*i, Signal::STOP));
        which.iter().try_for_each(|i| self.stands_still(*i))?;
        if let Some(links) = self.links.as_ref().filter(|_| which.len() < self.nodes.len()) {
            which.iter().for_each(|i| links.isolate(*i));
        }
        which.iter().try_for_each(|i| self.nodes[*i].disk.shut_down())?;
        for i in which {
            self.kill(*i);
            self.nodes[*i].disk.unmount()?;
            self.nodes[*i].unplugged = true;
        }
        Ok(())
    }

    /// Waits until every thread of the process is stopped; the kernel lets a system call finish first.
    fn stands_still(&self, i: usize) -> Result<(), Wrong> {
        let Some(c) = &self.nodes[i].child else { return Ok(()) };
        let tasks = PathBuf::from(format!("/proc/{}/task", c.id()));
        let still = |dir: &Path| {
            let all = fs::read_dir(dir).into_iter().flatten().flatten();
            all.map(|t| fs::read_to_string(t.path().join("stat")).unwrap_or_default())
                .all(|s| s.rsplit(") ").next().is_some_and(|s| s.starts_with(['T', 't', 'Z', 'X'])))
        };
        let begun = std::time::Instant::now();
        while !still(&tasks) {
            if begun.elapsed() > Duration::from_secs(5) {
                return Err(format!("{} does not stop", self.nodes[i].name));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Resident memory of a node in KiB; 0 if it does not run.
    pub fn rss_kib(&self, i: usize) -> u64 {
        let Some(c) = &self.nodes[i].child else { return 0 };
        kib(&format!("/proc/{}/status", c.id()), "VmRSS:").unwrap_or(0)
    }

    /// Processor time of a node in milliseconds; 0 if it does not run.
    pub fn cpu_ms(&self, i: usize) -> u64 {
        let Some(c) = &self.nodes[i].child else { return 0 };
        let text = fs::read_to_string(format!("/proc/{}/stat", c.id())).unwrap_or_default();
        let after = text.rsplit(") ").next().unwrap_or_default();
        // utime and stime, in hundredths of a second, are the 12th and 13th behind the name.
        after.split(' ').skip(11).take(2).filter_map(|s| s.parse::<u64>().ok()).sum::<u64>() * 10
    }

    /// Starts what does not run, resumes what stands still, and lets everything pass.
    ///
    /// # Errors
    /// A node cannot be started.
    pub fn mend(&mut self) -> Result<(), Wrong> {
        for i in 0..self.nodes.len() {
            if self.nodes[i].paused {
                self.resume(i);
            }
            self.start(i)?;
        }
        if let Some(l) = &self.links {
            l.heal();
        }
        Ok(())
    }

    /// Waits until every node greets.
    ///
    /// # Errors
    /// One has ended, or does not greet in time.
    pub async fn greets(&mut self, deadline: Instant) -> Result<(), Wrong> {
        self.rise(deadline, 0).await.map(drop)
    }
    /// Waits until every node greets or has ended, as one may that refuses to start with what it finds on its disk; those that have, `may_end` at most.
    ///
    /// # Errors
    /// More have ended, or one does not greet in time.
    pub async fn rise(&mut self, deadline: Instant, may_end: usize) -> Result<Vec<String>, Wrong> {
        let mut ended = Vec::new();
        for i in 0..self.nodes.len() {
            while !greets(self.nodes[i].port).await {
                let name = self.nodes[i].name.clone();
                if !self.is_running(i) {
                    if ended.len() == may_end {
                        return Err(format!("{name} has ended: {}", self.last_words(i)));
                    }
                    ended.push(name);
                    break;
                }
                if Instant::now() > deadline {
                    return Err(format!("{name} does not listen"));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(ended)
    }

    /// The end of a node's log, for a person.
    pub fn last_words(&self, i: usize) -> String {
        let log =
            fs::read_to_string(self.dir.join(format!("{}.log", self.nodes[i].name))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

async fn greets(port: u16) -> bool {
    let hello = async {
        let mut s = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let mut buf = [0; 5];
        s.read_exact(&mut buf).await.ok()?;
        (&buf == b"INFO ").then_some(())
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), hello).await, Ok(Some(())))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|i| self.kill(i));
    }
}
