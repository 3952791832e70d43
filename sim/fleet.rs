//! Several servers, each on a machine of its own, and what a storm does to them and to the links between them.
//!
//! Owns the servers' processes and everything that has to be undone later. Knows no client and judges nothing but the ends of processes.

use env::{
    Rng,
    signal::Signal,
    sim::{Death, Link, Machine, Trigger, World},
    simdisk::{self, Fault, SimDisk},
    watch,
};
use serde::{Deserialize, Serialize};

use crate::{plan::Way, storm::Host};

/// What is done to servers and to the links between them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A link between two servers is cut.
    CutLink {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
        /// Up is from `a` to `b`.
        way: Way,
        /// Milliseconds.
        ms: u64,
    },
    /// Some servers cannot reach the others.
    Part {
        /// Those on one side.
        side: Vec<usize>,
        /// Up: what the side sends is lost; down: what it is sent.
        way: Way,
        /// Milliseconds.
        ms: u64,
    },
    /// All connections between two servers are reset.
    ResetLink {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
    },
    /// A link between two servers is slow for a while.
    SlowLink {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
        /// Added latency in microseconds.
        latency_us: u64,
        /// Probability of loss in percent.
        loss: u64,
        /// Bytes a second; 0 without limit.
        bandwidth: u64,
        /// Milliseconds.
        ms: u64,
    },
    /// A connection is reset, or the link cut for a second, after so many more bytes.
    AtByteLink {
        /// From here.
        a: usize,
        /// To there.
        b: usize,
        /// Bytes.
        bytes: u64,
        /// A cut rather than a reset.
        cut: bool,
    },
    /// A server dies and starts again.
    KillServer {
        /// Which.
        server: usize,
        /// Without a word, and what was not synced is lost.
        power: bool,
        /// Milliseconds until it starts again.
        ms: u64,
    },
    /// A server is told to end, and starts again.
    RestartServer {
        /// Which.
        server: usize,
    },
    /// A server stops for a while.
    PauseServer {
        /// Which.
        server: usize,
        /// Milliseconds.
        ms: u64,
    },
    /// A server's wall clock jumps.
    ClockServer {
        /// Which.
        server: usize,
        /// Milliseconds, forward or back.
        ms: i64,
    },
    /// A server's disk is nearly full for a while.
    FullDisk {
        /// Which.
        server: usize,
        /// Bytes that are left.
        spare: u64,
        /// Milliseconds.
        ms: u64,
    },
    /// A server's disk takes a hundred times as long for a part of what it does, for a while.
    SlowDisk {
        /// Which.
        server: usize,
        /// Percent of its operations.
        percent: u64,
        /// Milliseconds.
        ms: u64,
    },
    /// What is stored on a server's disk goes bad.
    Damage {
        /// Which.
        server: usize,
        /// What exactly.
        hits: Vec<Hit>,
        /// It happens while the server is dead, for so many milliseconds; otherwise under its feet.
        down_ms: Option<u64>,
    },
}

/// One piece of damage. Numbers stand for whatever is there when it happens.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Hit {
    /// Which file, modulo how many there are.
    pub file: u64,
    /// Where in it, modulo its length.
    pub at: u64,
    /// What.
    pub what: Ruin,
}

/// How stored bytes go bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruin {
    /// One bit is flipped.
    Flip,
    /// The file is cut there. Of a server that runs only bits flip.
    Cut,
    /// The file is gone. The same. Only in plans that are written by hand: see COVERAGE.md.
    Gone,
}

/// What of a server's files may be damaged. Not the name of the node: without it the server says so and does not start, and an operator has to act. Of the two
/// manifests one stays whole, as on a disk on which bits go bad one at a time.
fn may_rot(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.starts_with("/data/") && !["node", "formation", "lives", "manifest-b", "lock"].contains(&name)
}

impl Event {
    /// Its name in the counts.
    pub fn name(&self) -> &'static str {
        match self {
            Event::CutLink { .. } => "fault cut between servers",
            Event::Part { .. } => "fault partition",
            Event::ResetLink { .. } => "fault reset between servers",
            Event::SlowLink { .. } => "fault slow between servers",
            Event::AtByteLink { .. } => "fault at byte between servers",
            Event::KillServer { power: false, .. } => "fault kill",
            Event::KillServer { power: true, .. } => "fault power",
            Event::RestartServer { .. } => "fault restart",
            Event::PauseServer { .. } => "fault pause",
            Event::ClockServer { .. } => "fault clock",
            Event::FullDisk { .. } => "fault full disk",
            Event::SlowDisk { .. } => "fault slow disk",
            Event::Damage { .. } => "fault damage",
        }
    }
}

/// Damages what is stored, as far as there is something.
fn ruin(d: &mut SimDisk, hit: Hit, dead: bool) {
    let files: Vec<String> = d.files().into_iter().filter(|p| may_rot(p)).collect();
    let Some(path) = files.get((hit.file % files.len().max(1) as u64) as usize) else { return };
    tracing::debug!("damage: {path}, {} bytes: {hit:?}", d.stat(path).map_or(0, |s| s.len));
    let done = match hit.what {
        Ruin::Gone if dead => d.damage_file(path, None),
        Ruin::Cut if dead => {
            d.stat(path).map(|s| s.len).and_then(|len| d.damage_file(path, Some(hit.at % len.max(1))))
        }
        // Where nothing was ever written there is nothing to flip.
        _ => d.stat(path).map(|s| s.len).and_then(|len| d.rot(path, hit.at % len.max(1), (hit.at % 8) as u8)),
    };
    done.ok();
}

/// Two different servers of `n`, which must be two at least.
pub fn two(rng: &mut Rng, n: usize) -> (usize, usize) {
    let a = rng.below(n as u64) as usize;
    let b = (a + 1 + rng.below(n as u64 - 1) as usize) % n;
    (a, b)
}

/// A direction.
pub fn way(rng: &mut Rng) -> Way {
    [Way::Both, Way::Both, Way::Up, Way::Down][rng.below(4) as usize]
}

enum Undo {
    Join(usize, usize),
    Fast(usize, usize),
    Resume(usize),
    Start(usize),
    Room(usize),
    Quick(usize),
}

/// The servers.
pub struct Fleet {
    w: World,
    hosts: Vec<Host>,
    undo: Vec<(u64, Undo)>,
    paused: Vec<bool>,
    ending: Vec<bool>,
    /// Servers that nobody starts again.
    retired: Vec<bool>,
    /// Servers that have listened since their disks were empty.
    born: Vec<bool>,
    /// Servers that have not listened since their disks were damaged.
    hurt: Vec<bool>,
    /// Starts of all servers together.
    boots: watch::Sender<u64>,
}

impl Fleet {
    /// Servers `s0`, `s1` and so on, not started; one alone is `server`.
    pub fn new(w: &World, n: usize, cores: usize) -> Fleet {
        let host = |i: usize| {
            let machine = w.machine(&if n == 1 { "server".to_owned() } else { format!("s{i}") });
            machine.set_cores(cores);
            Host::new(machine)
        };
        Fleet {
            w: w.clone(),
            hosts: (0..n).map(host).collect(),
            undo: Vec::new(),
            paused: vec![false; n],
            ending: vec![false; n],
            retired: vec![false; n],
            born: vec![false; n],
            hurt: vec![false; n],
            boots: watch::channel(0).0,
        }
    }

    /// All of them.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }
    /// A server's machine.
    pub fn machine(&self, i: usize) -> Machine {
        self.hosts[i].machine.clone()
    }
    /// Starts of all servers together.
    pub fn boots(&self) -> watch::Receiver<u64> {
        self.boots.subscribe()
    }
    /// Starts a server.
    pub fn start(&self, i: usize) {
        self.boots.send_modify(|n| *n += 1);
        self.hosts[i].start();
    }
    /// A server begins to run later, when it is recalled.
    pub fn keep_back(&mut self, i: usize) {
        self.retired[i] = true;
    }
    /// A server that was retired is to run again.
    pub fn recall(&mut self, i: usize) {
        if std::mem::take(&mut self.retired[i]) {
            let now = self.ms();
            self.undo.push((now + 5, Undo::Start(i)));
        }
    }
    /// All that a dead server has stored is gone.
    pub fn erase(&mut self, i: usize) {
        self.born[i] = false;
        self.hosts[i].machine.disk(|d| {
            for path in d.files().iter().filter(|p| p.starts_with("/data/")) {
                d.damage_file(path, None).ok();
            }
        });
    }
    /// A server dies, and stays dead until it is recalled.
    pub fn bury(&mut self, i: usize, power: bool) {
        self.retired[i] = true;
        self.undo(Undo::Resume(i));
        self.undo.retain(|u| !matches!(u.1, Undo::Start(s) if s == i));
        self.ending[i] = false;
        if self.hosts[i].machine.is_running() {
            self.hosts[i].machine.kill(if power { Death::Power } else { Death::Process });
        }
    }
    fn ms(&self) -> u64 {
        self.w.elapsed().as_millis() as u64
    }
    /// Whether a server listens.
    pub fn serves(&self, i: usize) -> bool {
        !self.paused[i] && self.hosts[i].machine.is_running() && self.hosts[i].serves()
    }
    /// Whether all do that are to.
    pub fn all_serve(&self) -> bool {
        (0..self.hosts.len()).all(|i| self.retired[i] || self.serves(i))
    }
    /// Whether nothing is left to be undone.
    pub fn is_quiet(&self) -> bool {
        self.undo.is_empty() && !self.ending.contains(&true)
    }
    /// A server is told to end.
    pub fn end(&mut self, i: usize) {
        self.ending[i] = true;
        self.hosts[i].machine.signal(Signal::Terminate);
    }
    /// A server is not started again once it has ended.
    pub fn retire(&mut self, i: usize) {
        self.retired[i] = true;
    }

    fn each_cut(&self, side: &[usize], way: Way, f: impl Fn(&Machine, &Machine)) {
        for (i, a) in self.hosts.iter().enumerate().filter(|(i, _)| side.contains(i)) {
            for (j, b) in self.hosts.iter().enumerate().filter(|(j, _)| !side.contains(j) && *j != i) {
                debug_assert_ne!(i, j);
                if way != Way::Down {
                    f(&a.machine, &b.machine);
                }
                if way != Way::Up {
                    f(&b.machine, &a.machine);
                }
            }
        }
    }

    /// An event happens. Those that name servers which a smaller plan does not have any more do nothing.
    pub fn happen(&mut self, e: &Event) {
        let (now, n) = (self.ms(), self.hosts.len());
        let there = |i: usize| i < n;
        match *e {
            Event::CutLink { a, b, way, ms } if there(a) && there(b) && a != b => {
                let (x, y) = (self.machine(a), self.machine(b));
                if way != Way::Down {
                    self.w.cut(&x, &y);
                }
                if way != Way::Up {
                    self.w.cut(&y, &x);
                }
                self.undo.push((now + ms, Undo::Join(a, b)));
            }
            Event::Part { ref side, way, ms } => {
                let w = self.w.clone();
                self.each_cut(side, way, |x, y| w.cut(x, y));
                for a in side.iter().copied().filter(|a| there(*a)) {
                    for b in (0..n).filter(|b| !side.contains(b)) {
                        self.undo.push((now + ms, Undo::Join(a, b)));
                    }
                }
            }
            Event::ResetLink { a, b } if there(a) && there(b) && a != b => {
                self.w.reset(&self.machine(a), &self.machine(b));
            }
            Event::SlowLink { a, b, latency_us, loss, bandwidth, ms } if there(a) && there(b) && a != b => {
                let link = Link {
                    latency_min_ns: latency_us * 500,
                    latency_max_ns: latency_us * 1000,
                    loss: loss as f64 / 100.0,
                    bandwidth,
                };
                let (x, y) = (self.machine(a), self.machine(b));
                self.w.set_link(&x, &y, Some(link));
                self.w.set_link(&y, &x, Some(link));
                self.undo.push((now + ms, Undo::Fast(a, b)));
            }
            Event::AtByteLink { a, b, bytes, cut } if there(a) && there(b) && a != b => {
                let trigger = if cut { Trigger::Cut } else { Trigger::Reset };
                self.w.after_bytes(&self.machine(a), &self.machine(b), bytes, trigger);
                if cut {
                    self.undo.push((now + 1_000, Undo::Join(a, b)));
                }
            }
            Event::KillServer { server, power, ms } if there(server) => {
                let m = self.machine(server);
                if m.is_running() && !self.ending[server] {
                    self.undo(Undo::Resume(server));
                    m.kill(if power { Death::Power } else { Death::Process });
                    self.undo.push((now + ms, Undo::Start(server)));
                }
            }
            Event::RestartServer { server } if there(server) => {
                if self.serves(server) && !self.ending[server] {
                    self.end(server);
                }
            }
            Event::PauseServer { server, ms } if there(server) => {
                let m = self.machine(server);
                if m.is_running() && !self.paused[server] {
                    m.pause();
                    self.paused[server] = true;
                    self.undo.push((now + ms, Undo::Resume(server)));
                }
            }
            Event::ClockServer { server, ms } if there(server) => {
                self.machine(server).jump_wall(ms * 1_000_000);
            }
            // Who has no room to begin in says so and ends, which is right and shows nothing.
            Event::FullDisk { server, spare, ms } if there(server) && self.born[server] => {
                self.machine(server).disk(|d| d.options().capacity = d.space().0 + spare);
                self.undo.push((now + ms, Undo::Room(server)));
            }
            Event::SlowDisk { server, percent, ms } if there(server) => {
                let rate = percent as f64 / 100.0;
                self.machine(server).disk(|d| d.options().rates.insert(Fault::Slow, rate));
                self.undo.push((now + ms, Undo::Quick(server)));
            }
            Event::Damage { server, ref hits, down_ms } if there(server) && !self.ending[server] => {
                let m = self.machine(server);
                if let Some(ms) = down_ms.filter(|_| m.is_running()) {
                    self.undo(Undo::Resume(server));
                    m.kill(Death::Process);
                    self.undo.push((now + ms, Undo::Start(server)));
                }
                let dead = !m.is_running();
                m.disk(|d| hits.iter().for_each(|h| ruin(d, *h, dead)));
                self.hurt[server] = true;
            }
            _ => {}
        }
    }

    fn undo(&mut self, what: Undo) {
        match what {
            Undo::Join(a, b) => self.w.join(&self.machine(a), &self.machine(b)),
            Undo::Fast(a, b) => {
                let (x, y) = (self.machine(a), self.machine(b));
                self.w.set_link(&x, &y, None);
                self.w.set_link(&y, &x, None);
            }
            Undo::Resume(i) => {
                if std::mem::take(&mut self.paused[i]) {
                    self.hosts[i].machine.resume();
                }
            }
            Undo::Room(i) => {
                self.machine(i).disk(|d| d.options().capacity = simdisk::Options::default().capacity)
            }
            Undo::Quick(i) => {
                self.machine(i).disk(|d| d.options().rates.remove(&Fault::Slow));
            }
            Undo::Start(i) => {
                if !self.hosts[i].machine.is_running() && !self.retired[i] {
                    self.start(i);
                }
            }
        }
    }

    /// Undoes what is due, and follows processes that have ended by new ones. What ended without being told so is complained about.
    pub fn keep(&mut self) -> Vec<String> {
        let now = self.ms();
        // Also those that have got room just now: who ended did so before.
        let full = |i| self.undo.iter().any(|u| matches!(u.1, Undo::Room(s) if s == i));
        let full: Vec<bool> = (0..self.hosts.len()).map(full).collect();
        for (at, what) in std::mem::take(&mut self.undo) {
            if at <= now {
                self.undo(what);
            } else {
                self.undo.push((at, what));
            }
        }
        let mut wrong = Vec::new();
        for i in 0..self.hosts.len() {
            let serves = self.serves(i);
            self.born[i] |= serves;
            self.hurt[i] &= !serves;
            let starts = self.undo.iter().any(|u| matches!(u.1, Undo::Start(s) if s == i));
            if self.hosts[i].machine.is_running() || starts || self.retired[i] {
                continue;
            }
            let code = *self.hosts[i].exit.lock();
            // What it finds damaged it has to note before it goes on: without room it says so and ends, and is started again.
            let may_end = self.hurt[i] && code == Some(1) && full[i];
            let well = std::mem::take(&mut self.ending[i]) && code == Some(0);
            if !well && !may_end {
                wrong.push(format!("server s{i} ended by itself, or badly, with {code:?}"));
            }
            self.undo.push((now + 5, Undo::Start(i)));
        }
        wrong
    }

    /// Everything between the servers is mended, and all that are to run do, soon.
    pub fn heal(&mut self) {
        for (_, what) in std::mem::take(&mut self.undo) {
            self.undo(what);
        }
        for (i, a) in self.hosts.iter().enumerate() {
            for b in self.hosts.iter().skip(i + 1) {
                let (a, b) = (&a.machine, &b.machine);
                self.w.set_link(a, b, None);
                self.w.set_link(b, a, None);
                self.w.after_bytes(a, b, u64::MAX, Trigger::Cut);
                self.w.after_bytes(b, a, u64::MAX, Trigger::Cut);
                self.w.join(a, b);
            }
        }
    }
}
