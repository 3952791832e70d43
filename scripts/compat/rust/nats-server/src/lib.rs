//! Starts the `nats-server` that is first in PATH, for the tests that async-nats publishes with its package.
//!
//! Owns: one server process (or a cluster of three) per call, its files, and its end.
//! Does not: know which product answers to that name, or hold any test.
//!
//! What it asks of the server, and nothing more: the flags `--store_dir -p -l -P -c -n --cluster --cluster_name
//! --routes --signal ldm=PID`, the log lines `Listening for client connections on HOST:PORT` and `Server is ready`,
//! a pid file that holds digits only, and an INFO line with `port`, `tls_required` and `connect_urls`.
//!
//! Only the names of the functions and of `Server`'s methods are given by the tests; the rest is ours.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a server may take to say that it is ready, and a cluster to form.
const START_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
const CLUSTER_NODES: usize = 3;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// One running server. Dropping it kills the process and removes its files.
#[derive(Debug)]
pub struct Server {
    child: Child,
    dir: PathBuf,
    /// Everything on the command line but the port.
    args: Vec<String>,
    port: u16,
}

/// Three servers, joined by routes.
#[derive(Debug)]
pub struct Cluster {
    pub servers: Vec<Server>,
}

/// A server without a configuration file, on a port that it chooses.
pub fn run_basic_server() -> Server {
    run_server_with_port("", None)
}

/// A server with a configuration file (relative to the package), on a port that it chooses.
pub fn run_server(config: &str) -> Server {
    run_server_with_port(config, None)
}

/// A server on a given port; an empty `config` means none.
pub fn run_server_with_port(config: &str, port: Option<&str>) -> Server {
    Server::start(config_args(config), port)
}

/// Three servers with the same configuration file, whose routes are up and, where the file turns JetStream on, whose
/// JetStream API answers.
pub fn run_cluster(config: &str) -> Cluster {
    // All three sockets stay bound until all ports are known, so that no port comes twice.
    let held: Vec<TcpListener> = (0..CLUSTER_NODES)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"))
        .collect();
    let ports: Vec<u16> =
        held.iter().map(|l| l.local_addr().expect("a bound socket has an address").port()).collect();
    drop(held);
    let routes: Vec<String> = ports.iter().map(|p| format!("nats://127.0.0.1:{p}")).collect();
    let servers: Vec<Server> = routes
        .iter()
        .enumerate()
        .map(|(i, own)| {
            let mut args = config_args(config);
            for (flag, value) in [
                ("--routes", routes.join(",")),
                ("--cluster", own.clone()),
                ("--cluster_name", "cluster".to_string()),
                ("-n", format!("node{}", i + 1)),
            ] {
                args.push(flag.to_string());
                args.push(value);
            }
            Server::start(args, None)
        })
        .collect();
    for server in &servers {
        wait_for("a cluster to form", &server.dir, || {
            let known = server.info().ok()?["connect_urls"].as_array()?.len();
            (known >= CLUSTER_NODES).then_some(())
        });
    }
    if config.contains("jetstream") {
        let any = &servers[0];
        wait_for("the cluster's JetStream", &any.dir, || any.jetstream_answers().then_some(()));
    }
    Cluster { servers }
}

/// Puts the server into lame duck mode, as an operator would: `nats-server --signal ldm=PID`.
pub fn set_lame_duck_mode(server: &Server) {
    let text = fs::read_to_string(server.dir.join("pid")).expect("the server wrote its pid file");
    let pid: u32 = text.parse().expect("a pid file holds digits only");
    let status = Command::new("nats-server")
        .arg("--signal")
        .arg(format!("ldm={pid}"))
        .status()
        .expect("nats-server is in PATH");
    assert!(status.success(), "nats-server --signal ldm={pid}: {status}");
}

impl Server {
    fn start(args: Vec<String>, port: Option<&str>) -> Server {
        let dir = std::env::temp_dir().join(format!(
            "nats-server-{}-{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&dir).expect("the temporary directory is writable");
        let child = spawn(&dir, &args, port.unwrap_or("-1"));
        let mut server = Server { child, dir, args, port: 0 };
        server.wait_until_ready();
        server
    }

    /// Kills the server without warning and starts it again on the same port and store.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.dir, &self.args, &self.port.to_string());
        self.wait_until_ready();
    }

    /// The port for clients.
    pub fn client_port(&self) -> u16 {
        self.port
    }

    /// A URL for clients: `tls://` where the server's INFO asks for TLS. The host is `localhost`, which is the name in
    /// the test certificates. Does not work where TLS comes before INFO.
    pub fn client_url(&self) -> String {
        let info = self.info().expect("a ready server greets with INFO");
        let scheme = if info["tls_required"] == true { "tls" } else { "nats" };
        format!("{scheme}://localhost:{}", self.port)
    }

    fn info(&self) -> std::io::Result<Value> {
        let stream = TcpStream::connect(("localhost", self.port))?;
        stream.set_read_timeout(Some(START_LIMIT))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let json = line.strip_prefix("INFO ").unwrap_or(&line);
        Ok(serde_json::from_str(json)?)
    }

    fn jetstream_answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(("localhost", self.port))?;
            stream.set_read_timeout(Some(Duration::from_millis(500)))?;
            stream.write_all(
                b"CONNECT {\"verbose\":false}\r\nSUB answer 1\r\nPUB $JS.API.INFO answer 0\r\n\r\n",
            )?;
            for line in BufReader::new(stream).lines() {
                let line = line?;
                if line.starts_with('{') {
                    return Ok(!line.contains("\"error\""));
                }
            }
            Ok(false)
        };
        ask().unwrap_or(false)
    }

    fn wait_until_ready(&mut self) {
        let log = self.dir.join("log");
        let child = &mut self.child;
        self.port = wait_for("the server to be ready", &self.dir, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = child.try_wait().expect("the child is ours") {
                panic!("nats-server ended with {status}:\n{text}");
            }
            if !text.contains("Server is ready") {
                return None;
            }
            let line = text.lines().find(|l| l.contains("client connections on "))?;
            line.rsplit(':').next()?.trim().parse().ok()
        });
    }

    fn kill(&mut self) {
        // Both fail only when the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Cluster {
    /// A URL of the first server.
    pub fn client_url(&self) -> String {
        self.servers[0].client_url()
    }
}

fn config_args(config: &str) -> Vec<String> {
    if config.is_empty() {
        return Vec::new();
    }
    vec!["-c".to_string(), config.to_string()]
}

fn spawn(dir: &std::path::Path, args: &[String], port: &str) -> Child {
    // A restart must not find the lines of the run before.
    let _ = fs::remove_file(dir.join("log"));
    Command::new("nats-server")
        .arg("--store_dir")
        .arg(dir.join("store"))
        .args(["-p", port])
        .arg("-l")
        .arg(dir.join("log"))
        .arg("-P")
        .arg(dir.join("pid"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("nats-server is in PATH")
}

fn wait_for<T>(what: &str, dir: &std::path::Path, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + START_LIMIT;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        if Instant::now() > end {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            panic!("waited {START_LIMIT:?} for {what}; the server's log:\n{log}");
        }
        thread::sleep(POLL);
    }
}
