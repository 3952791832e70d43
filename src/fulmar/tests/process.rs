//! The program as a process: its flags, lines, files, signals and exit codes, as whatever starts a nats-server finds
//! them. Each test has a directory and a server of its own, on random ports.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use env::signal::{Signal, send};

/// Longest wait for anything. A test that comes here has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Relaxed);
        let path = std::env::temp_dir().join(format!("fulmar-process-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }
    /// The program under another name.
    fn program(&self, name: &str) -> String {
        if !self.0.join(name).exists() {
            symlink(env!("CARGO_BIN_EXE_fulmar"), self.0.join(name)).unwrap();
        }
        self.path(name)
    }
    /// Runs the program as `nats-server` to its end.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        self.run_as("nats-server", args)
    }
    /// Runs it under its own name.
    fn tool(&self, args: &[&str]) -> (i32, String, String) {
        self.run_as("fulmar", args)
    }
    fn run_as(&self, name: &str, args: &[&str]) -> (i32, String, String) {
        let out = Command::new(self.program(name)).args(args).current_dir(&self.0).output();
        let Output { status, stdout, stderr } = out.unwrap();
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        (status.code().expect("it ends by itself"), text(stdout), text(stderr))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A server.
struct Running {
    child: Child,
    stderr: Arc<(Mutex<(String, bool)>, Condvar)>,
}

impl Running {
    fn start_as(dir: &Dir, name: &str, args: &[&str]) -> Running {
        Running::start_with(dir, name, args, &[])
    }
    fn start_with(dir: &Dir, name: &str, args: &[&str], variables: &[(&str, &str)]) -> Running {
        let mut child = Command::new(dir.program(name))
            .args(args)
            .envs(variables.iter().copied())
            .current_dir(&dir.0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = Arc::new((Mutex::new((String::new(), false)), Condvar::new()));
        let (lines, into) = (BufReader::new(child.stderr.take().unwrap()).lines(), stderr.clone());
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.0.lock().unwrap().0 += &(line + "\n");
                into.1.notify_all();
            }
            into.0.lock().unwrap().1 = true;
            into.1.notify_all();
        });
        Running { child, stderr }
    }
    /// A server on a random port of loopback, ready.
    fn start(dir: &Dir, more: &[&str]) -> Running {
        let r = Running::start_as(dir, "nats-server", &[&["-a", "127.0.0.1", "-p", "-1"], more].concat());
        r.said("Server is ready");
        r
    }
    fn pid(&self) -> u32 {
        self.child.id()
    }
    fn signal(&self, what: Signal) {
        send(self.pid(), what).unwrap();
    }
    /// What it has said so far, once that contains `what`.
    fn said(&self, what: &str) -> String {
        let (lock, changed) = &*self.stderr;
        let waiting = |(text, ended): &mut (String, bool)| !text.contains(what) && !*ended;
        let text = changed.wait_timeout_while(lock.lock().unwrap(), PATIENCE, waiting).unwrap().0.0.clone();
        assert!(text.contains(what), "no {what:?} in\n{text}");
        text
    }
    /// All that it said until its end.
    fn all_said(&self) -> String {
        let (lock, changed) = &*self.stderr;
        let guard = lock.lock().unwrap();
        changed.wait_timeout_while(guard, PATIENCE, |(_, ended)| !*ended).unwrap().0.0.clone()
    }
    fn address(&self) -> String {
        let said = self.said("Listening for client connections on ");
        said.split("client connections on ").nth(1).unwrap().lines().next().unwrap().to_string()
    }
    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait("the end of the process", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
    fn exit_code(&mut self) -> Option<i32> {
        self.end().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Looks until it is so.
fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// A client that has read INFO and says nothing.
fn client(address: &str) -> (TcpStream, String) {
    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut info = Vec::new();
    while !info.ends_with(b"\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).unwrap();
        info.push(byte[0]);
    }
    (tcp, String::from_utf8(info).unwrap())
}

/// A client that has logged in.
fn logged_in(address: &str) -> TcpStream {
    let (mut tcp, _) = client(address);
    tcp.write_all(b"CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n").unwrap();
    let mut pong = [0; 6];
    tcp.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"PONG\r\n");
    tcp
}

fn rest(mut tcp: TcpStream) -> String {
    let mut all = Vec::new();
    tcp.read_to_end(&mut all).ok();
    String::from_utf8_lossy(&all).into_owned()
}

/// A log line: its level and text.
fn parsed(line: &str, pid: u32) -> (String, String) {
    let line = line.strip_prefix(&format!("[{pid}] ")).unwrap_or_else(|| panic!("{line:?}"));
    let (time, line) = line.split_at("2026/11/21 05:41:00.771958".len());
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000/00/00 00:00:00.000000", "{time}");
    let line = line.strip_prefix(" [").unwrap();
    let (level, text) = line.split_once("] ").unwrap();
    (level.to_string(), text.to_string())
}

#[test]
fn questions_are_answered_and_the_process_ends() {
    let d = Dir::new();
    d.write("good.conf", "port: -1\n");
    d.write("bad.conf", "port: -1\nfoo {\n");
    d.write("unknown.conf", "zzz: 1\n");
    d.write("type.conf", "max_payload: many\n");
    let version = "nats-server: v2.15.1";
    for word in ["-v", "--v", "-version", "--version"] {
        let (code, out, err) = d.run(&[word]);
        assert_eq!((code, &*err), (0, ""), "{word}");
        assert!(out.starts_with(version), "{out}");
    }
    for word in ["-h", "--help", "-help"] {
        let (code, out, _) = d.run(&[word]);
        assert_eq!(code, 0, "{word}");
        assert!(out.contains("Usage: nats-server [options]") && out.contains("--jetstream"), "{out}");
    }
    // Which flags, the exit code, and what is on standard error.
    for (args, code, text) in [
        (&["-t", "-c", "good.conf"][..], 0, "nats-server: configuration file good.conf is valid (sha256:"),
        (&["--t", "--config=good.conf"], 0, "nats-server: configuration file good.conf is valid (sha256:"),
        (&["-t"], 1, "nats-server: must specify [-c, --config] option to check configuration file syntax"),
        (&["-c", "bad.conf"], 1, "Parse error"),
        (&["-t", "-c", "bad.conf"], 1, "Parse error"),
        (&["-c", "unknown.conf"], 1, "unknown.conf:1:"),
        (&["-c", "unknown.conf"], 1, "unknown field \"zzz\""),
        (&["-c", "type.conf"], 1, "type.conf:1:"),
        (&["-c", "nowhere.conf"], 1, "nats-server: open nowhere.conf: no such file or directory"),
        (&["foo"], 1, "nats-server: unrecognized command: \"foo\""),
        (&["-nope"], 0, "flag provided but not defined: -nope"),
        (&["-p", "abc"], 0, "invalid value \"abc\" for flag -p: parse error"),
        (&["-c"], 0, "flag needs an argument: -c"),
        (&["--signal", "nonsense=1"], 1, "nats-server: unknown signal \"nonsense\""),
        (&["--signal=quit=1x"], 1, "nats-server: invalid pid: 1x"),
        (&["--signal", "ldm=99999999"], 1, "signal \"ldm\" 99999999: no such process"),
    ] {
        let (got, out, err) = d.run(args);
        assert_eq!(got, code, "{args:?}: {out}{err}");
        assert!(err.contains(text), "{args:?}: {err}");
    }
    let (_, out, _) = d.run(&["-nope"]);
    assert!(out.contains("Usage: nats-server [options]"));
}

#[test]
fn what_cannot_be_bound_or_written_is_fatal() {
    let d = Dir::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let fatal = |args: &[&str], text: &str| {
        let (code, _, err) = d.run(args);
        assert_eq!(code, 1, "{err}");
        let last = err.lines().last().unwrap();
        assert!(last.contains(&format!("[FTL] {text}")), "{args:?}: {err}");
    };
    let in_use = format!("listen tcp 127.0.0.1:{port}: bind: address already in use");
    fatal(
        &["-a", "127.0.0.1", "-p", &port],
        &format!("Error listening on port: 127.0.0.1:{port}, \"{in_use}\""),
    );
    fatal(
        &["-a", "127.0.0.1", "-p", "-1", "-m", &port],
        &format!("Can't start monitoring: can't listen to the monitor port: {in_use}"),
    );
    fatal(&["-a", "no.such.host.invalid", "-p", "-1"], "Error listening on port: no.such.host.invalid:0, \"");
    fatal(
        &["-a", "127.0.0.1", "-p", "-1", "-P", "nowhere/x.pid"],
        "Could not write pidfile: open nowhere/x.pid: no such file or directory",
    );
    let (code, _, err) = d.run(&["-a", "127.0.0.1", "-p", "-1", "-l", "nowhere/x.log"]);
    assert_eq!(code, 1);
    assert!(err.contains("no such file or directory"), "{err}");
}

#[test]
fn all_forms_of_flags_are_taken_and_win_over_the_file() {
    let d = Dir::new();
    d.write("c.conf", "server_name: of_the_file\nport: 1\nmax_payload: 1234\nhttp_port: -1\n");
    for args in [
        &["--addr", "127.0.0.1", "--port", "-1", "--config", "c.conf", "--server_name", "n1", "--debug"][..],
        &["-a=127.0.0.1", "-p=-1", "-config=c.conf", "-server_name=n1", "-DV"],
        &["-addr", "127.0.0.1", "-port", "-1", "-c", "c.conf", "-n", "n1", "-D", "-V"],
        &["--addr=127.0.0.1", "--port=-1", "-c=c.conf", "--name=n1", "-m", "-1", "--debug=true"],
    ] {
        let s = Running::start_as(&d, "nats-server", args);
        s.said("Server is ready");
        let (_, info) = client(&s.address());
        assert!(info.contains("\"server_name\":\"n1\"") && info.contains("\"max_payload\":1234"), "{info}");
        assert!(info.contains("\"version\":\"2.15.1\""), "{info}");
    }
    for (args, connect, fails) in [
        (&["--user", "u", "--pass", "p"][..], r#""user":"u","pass":"p""#, r#""user":"u","pass":"q""#),
        (&["-user=u", "-pass=p"], r#""user":"u","pass":"p""#, r#""user":"v","pass":"p""#),
        (&["--auth", "t"], r#""auth_token":"t""#, r#""auth_token":"u""#),
        (&["-auth=t"], r#""auth_token":"t""#, r#""user":"t""#),
    ] {
        let s = Running::start(&d, args);
        let answer = |fields: &str| {
            let (mut tcp, info) = client(&s.address());
            assert!(info.contains("\"auth_required\":true"), "{info}");
            tcp.write_all(format!("CONNECT {{\"verbose\":true,{fields}}}\r\n").as_bytes()).unwrap();
            let mut first = [0; 3];
            tcp.read_exact(&mut first).unwrap();
            String::from_utf8(first.to_vec()).unwrap()
        };
        assert_eq!((&*answer(connect), &*answer(fails)), ("+OK", "-ER"), "{args:?}");
    }
}

#[test]
fn the_log_tells_the_start_in_order() {
    let d = Dir::new();
    let config = d.write(
        "c.conf",
        "listen: \"127.0.0.1:-1\"\nhttp: \"127.0.0.1:-1\"\nwebsocket { listen: \"127.0.0.1:-1\", no_tls: true }\n",
    );
    let mut s = Running::start_as(&d, "nats-server", &["-c", &config]);
    s.said("Server is ready");
    s.signal(Signal::Terminate);
    assert_eq!(s.exit_code(), Some(0));
    let lines: Vec<_> = s.all_said().lines().map(|l| parsed(l, s.pid())).collect();
    let mut at = 0;
    for start in [
        "Starting nats-server",
        "  Version:  2.15.1",
        "  Name:     N",
        "  ID:       N",
        &format!("Using configuration file: {config} (sha256:"),
        "Starting http monitor on 127.0.0.1:",
        "Listening for websocket clients on ws://127.0.0.1:",
        "Listening for client connections on 127.0.0.1:",
        "Server is ready",
        "Trapped \"terminated\" signal",
        "Initiating Shutdown...",
        "Server Exiting..",
    ] {
        let found = lines[at..].iter().position(|(level, text)| level == "INF" && text.starts_with(start));
        at += found.unwrap_or_else(|| panic!("no {start:?} after line {at} of {lines:#?}")) + 1;
    }
    assert_eq!(at, lines.len(), "nothing comes after the last line");
}

#[test]
fn ports_and_pid_files_say_where_and_who() {
    let d = Dir::new();
    let config = "http: \"127.0.0.1:-1\"\nwebsocket { listen: \"127.0.0.1:-1\", no_tls: true }\n";
    let config = d.write("c.conf", config);
    let args = ["-a", "127.0.0.1", "-p", "-1", "-c", &config, "--ports_file_dir", ".", "-P", "here.pid"];
    for name in ["nats-server", "stands-in"] {
        let mut s = Running::start_as(&d, name, &args);
        let ports = d.0.join(format!("{name}_{}.ports", s.pid()));
        wait("the ports file", || ports.exists());
        let json = fs::read_to_string(&ports).unwrap();
        let said = s.said("Server is ready");
        let port_after = |line: &str| {
            let line = said.lines().find_map(|l| l.split_once(line)).unwrap().1;
            line.rsplit(':').next().unwrap().to_string()
        };
        assert_eq!(
            json,
            format!(
                "{{\"nats\":[\"nats://127.0.0.1:{}\"],\"monitoring\":[\"http://127.0.0.1:{}\"],\
                 \"websocket\":[\"ws://127.0.0.1:{}\"]}}",
                port_after("client connections on "),
                port_after("http monitor on "),
                port_after("websocket clients on "),
            )
        );
        assert_eq!(fs::read_to_string(d.0.join("here.pid")).unwrap(), s.pid().to_string());
        s.signal(Signal::Interrupt);
        assert_eq!(s.exit_code(), Some(0));
        assert!(!ports.exists() && d.0.join("here.pid").exists());
    }
}

#[test]
fn a_moved_log_is_opened_anew() {
    let d = Dir::new();
    let mut s = Running::start_as(&d, "nats-server", &["-a", "127.0.0.1", "-p", "-1", "-l", "server.log"]);
    let read = |name: &str| fs::read_to_string(d.0.join(name)).unwrap_or_default();
    wait("the log", || read("server.log").contains("Server is ready"));
    let first = read("server.log");
    fs::rename(d.0.join("server.log"), d.0.join("moved.log")).unwrap();
    s.signal(Signal::User1);
    wait("the new log", || read("server.log").contains("File log re-opened"));
    assert!(read("moved.log").starts_with(&first));
    s.signal(Signal::Terminate);
    assert_eq!(s.exit_code(), Some(0));
    assert!(read("server.log").contains("Server Exiting..") && !read("moved.log").contains("Exiting"));
    assert_eq!(s.all_said(), "", "nothing goes to standard error");
}

#[test]
fn a_hangup_reloads() {
    let d = Dir::new();
    let config = d.write("c.conf", "max_payload: 1000\n");
    let s = Running::start(&d, &["-c", &config]);
    let info = || client(&s.address()).1;
    assert!(info().contains("\"max_payload\":1000"));
    d.write("c.conf", "max_payload: 2000\n");
    s.signal(Signal::Hangup);
    let said = s.said("Reloaded server configuration (sha256:");
    assert!(said.contains("[INF] Reloaded: max_payload = 2000"), "{said}");
    assert!(info().contains("\"max_payload\":2000"));
    for (bad, why) in [
        ("max_payload: 3000\nport: 5\nserver_name: another\n", "config reload not supported for ServerName"),
        ("max_payload: 3000\nzzz: 1\n", "unknown field \"zzz\""),
        ("max_payload: 3000\nfoo {\n", "Parse error"),
    ] {
        d.write("c.conf", bad);
        s.signal(Signal::Hangup);
        let said = s.said(why);
        assert!(said.contains("[ERR] Failed to reload server configuration: "), "{said}");
        assert!(info().contains("\"max_payload\":2000"), "{bad}");
    }
    let without = Running::start(&d, &[]);
    without.signal(Signal::Hangup);
    without
        .said("[ERR] Failed to reload server configuration: can only reload config when a file is provided");
}

#[test]
fn a_lame_duck_sends_its_clients_away_and_ends() {
    let d = Dir::new();
    let config = d.write("c.conf", "lame_duck_duration: 30s\nlame_duck_grace_period: 100ms\n");
    let mut s = Running::start(&d, &["-c", &config]);
    let (there, address) = (logged_in(&s.address()), s.address());
    s.signal(Signal::User2);
    s.said("Entering lame duck mode, stop accepting new clients");
    // SIGTERM does not cut it short.
    s.signal(Signal::Terminate);
    let words = rest(there);
    assert!(words.contains("\"ldm\":true"), "{words}");
    assert_eq!(s.exit_code(), Some(0));
    assert!(TcpStream::connect(address).is_err());
    // With nobody there, there is nothing to wait for, however long the grace.
    let config = d.write("c.conf", "lame_duck_duration: 3600s\nlame_duck_grace_period: 1800s\n");
    let mut s = Running::start(&d, &["-c", &config]);
    s.signal(Signal::User2);
    assert_eq!(s.exit_code(), Some(0));
}

#[test]
fn signals_are_sent_by_pid_by_file_and_by_name() {
    let d = Dir::new();
    let mut by_pid = Running::start(&d, &[]);
    let (code, ..) = d.run(&["--signal", &format!("ldm={}", by_pid.pid())]);
    assert_eq!((code, by_pid.exit_code()), (0, Some(0)));
    assert!(by_pid.all_said().contains("Entering lame duck mode"));
    let mut by_file = Running::start(&d, &["-P", "x.pid"]);
    let (code, ..) = d.run(&["-sl=quit=x.pid"]);
    assert_eq!((code, by_file.exit_code()), (0, Some(0)));
    assert!(by_file.all_said().contains("Trapped \"interrupt\" signal"));
    // Found by a name that nobody else on this machine has.
    let name = format!("fulmar-{}", std::process::id());
    let mut by_name = Running::start_as(&d, &name, &["-a", "127.0.0.1", "-p", "-1"]);
    by_name.said("Server is ready");
    let named = |word: &str| Command::new(d.program(&name)).args(["--signal", word]).output().unwrap();
    assert!(named("term").status.success());
    assert_eq!(by_name.exit_code(), Some(0));
    let out = named("term");
    assert_eq!(out.status.code(), Some(1));
    let err = String::from_utf8(out.stderr).unwrap();
    assert_eq!(err.trim(), format!("{name}: no {name} processes running"));
    // And stop is a kill.
    let mut killed = Running::start(&d, &[]);
    assert_eq!(d.run(&["--signal", &format!("stop={}", killed.pid())]).0, 0);
    assert_eq!(killed.exit_code(), None);
}

/// Every file below, with its content.
fn tree(dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for e in fs::read_dir(dir).unwrap() {
        let path = e.unwrap().path();
        if path.is_dir() {
            into.insert(path.clone(), Vec::new());
            tree(&path, into);
        } else {
            into.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}

#[test]
fn a_store_directory_that_is_a_file_is_fatal() {
    let d = Dir::new();
    d.write("file", "x");
    fs::create_dir(d.0.join("half")).unwrap();
    d.write("half/jetstream", "x");
    for args in
        [&["-js", "-sd=file"][..], &["--jetstream", "--store_dir", "half"], &["-js", "-sd", "file/below"]]
    {
        let (code, _, err) = d.run(&[&["-a", "127.0.0.1", "-p", "-1"], args].concat());
        assert_eq!(code, 1, "{args:?}: {err}");
        assert!(err.contains("[FTL] Can't start JetStream: storage directory is not a directory"), "{err}");
    }
}

#[test]
fn a_neighbours_data_is_named_and_left_alone() {
    // What nats-server 2.15.1 leaves on disk: of one stream on a single server, and of a cluster's meta group.
    for (dir, files) in [
        ("$G/streams/S", &["meta.inf", "meta.sum", "msgs/1.blk", "msgs/index.db"][..]),
        ("$SYS/_js_/_meta_", &["meta.inf", "meta.sum", "peers.idx", "tav.idx", "msgs/1.blk"]),
    ] {
        let d = Dir::new();
        for f in files {
            let path = d.0.join("data/jetstream").join(dir).join(f);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, f).unwrap();
        }
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        tree(&d.0.join("data"), &mut before);
        let (code, _, err) = d.run(&["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", "data"]);
        assert_eq!(code, 1, "{err}");
        let last = err.lines().last().unwrap();
        assert!(last.contains("[FTL] ") && last.contains("data of a nats-server"), "{err}");
        assert!(last.contains(&format!("data/jetstream/{dir}/meta.inf")), "{err}");
        tree(&d.0.join("data"), &mut after);
        assert_eq!(before, after);
    }
    // A directory in which a nats-server has only been started holds nobody's data.
    let d = Dir::new();
    fs::create_dir_all(d.0.join("data/jetstream")).unwrap();
    Running::start(&d, &["-js", "-sd", "data"]);
}

/// Sends requests of JetStream's API and publishes, each with its answer.
fn asked(address: &str, requests: &[(&str, &str)]) -> Vec<String> {
    let (mut tcp, _) = client(address);
    tcp.write_all(b"CONNECT {\"verbose\":false,\"protocol\":1,\"headers\":true}\r\n").unwrap();
    let mut answers = Vec::new();
    tcp.write_all(b"SUB answers 1\r\n").unwrap();
    let mut lines = BufReader::new(tcp.try_clone().unwrap()).lines().map_while(Result::ok);
    for (subject, body) in requests {
        // Requests go without headers, publishes with some.
        let head = format!("NATS/1.0\r\nA-HEADER: x\r\nNats-Msg-Id: once-only {body}\r\n\r\n");
        let (verb, head) = if subject.starts_with('$') { ("PUB", "") } else { ("HPUB", head.as_str()) };
        let all = head.len() + body.len();
        let sizes = if head.is_empty() { all.to_string() } else { format!("{} {all}", head.len()) };
        tcp.write_all(format!("{verb} {subject} answers {sizes}\r\n{head}{body}\r\n").as_bytes()).unwrap();
        let mut said = Vec::new();
        let answer = lines.by_ref().inspect(|l| said.push(l.clone())).find(|l| l.starts_with("MSG answers"));
        let answer = answer.and_then(|_| lines.next());
        answers.push(answer.unwrap_or_else(|| panic!("no answer to {subject}: {said:?}")));
    }
    answers
}

/// Encryption at rest as operators use it: the key comes from a variable, is missing, is wrong, is changed, and the old one is dropped.
#[test]
fn a_store_is_sealed_with_the_key_of_the_configuration() {
    let d = Dir::new();
    let config = |name: &str, keys: &str| {
        d.write(name, &format!("listen: \"127.0.0.1:-1\"\njetstream {{ store_dir: data {keys} }}"))
    };
    let first = config("first.conf", ", key: $STORE_KEY, cipher: aes");
    let none = config("none.conf", "");
    let both = config("both.conf", ", key: \"the second key\", prev_key: $STORE_KEY");
    let second = config("second.conf", ", key: \"the second key\"");
    let life = |conf: &str, secret: &str, requests: &[(&str, &str)]| {
        let variables = [("STORE_KEY", secret)];
        let mut s = Running::start_with(&d, "nats-server", &["-c", conf], &variables);
        s.said("Server is ready");
        let answers = asked(&s.address(), requests);
        s.signal(Signal::Terminate);
        assert_eq!(s.exit_code(), Some(0));
        answers
    };
    let plain = |d: &Dir| {
        let mut all = BTreeMap::new();
        tree(&d.0.join("data"), &mut all);
        let secrets = [&b"a body to hide"[..], b"hidden.subject", b"A-HEADER", b"once-only"];
        let stands = |b: &Vec<u8>| secrets.iter().find(|s| b.windows(s.len()).any(|w| w == **s)).copied();
        let found =
            all.iter().find_map(|(p, b)| Some((p.clone(), String::from_utf8_lossy(stands(b)?).into_owned())));
        assert!(all.len() > 4, "{:?}", all.keys());
        found
    };
    let create = r#"{"name":"S","subjects":["hidden.*"],"storage":"file"}"#;
    let said = life(
        &first,
        "from-a-variable",
        &[
            ("$JS.API.STREAM.CREATE.S", create),
            ("hidden.subject", "a body to hide 1"),
            ("hidden.subject", "a body to hide 2"),
        ],
    );
    assert!(said[0].contains("\"created\"") && said[2].contains("\"seq\":2"), "{said:?}");
    assert_eq!(plain(&d), None);

    // Without the key, and with another one: refused by name, and nothing is touched.
    let mut before = BTreeMap::new();
    tree(&d.0.join("data"), &mut before);
    for (conf, secret) in [(&none, ""), (&first, "another"), (&second, "")] {
        let mut s = Running::start_with(&d, "nats-server", &["-c", conf], &[("STORE_KEY", secret)]);
        assert_eq!(s.exit_code(), Some(1));
        let said = s.all_said();
        assert!(said.contains("Can't start JetStream") && said.contains("sealed with the key "), "{said}");
        assert!(said.contains("jetstream.key") && said.contains("jetstream.prev_key"), "{said}");
        assert!(!said.contains("from-a-variable") && !said.contains("second key"), "{said}");
        let mut after = BTreeMap::new();
        tree(&d.0.join("data"), &mut after);
        assert!(before == after, "a refused start changes nothing");
    }

    let get = |seq: u64| format!("{{\"seq\":{seq}}}");
    let body = |said: &String, n: u64| {
        // "a body to hide N" in base64.
        let known = ["YSBib2R5IHRvIGhpZGUgMQ==", "YSBib2R5IHRvIGhpZGUgMg==", "YSBib2R5IHRvIGhpZGUgMw=="];
        assert!(said.contains(known[n as usize - 1]), "{said}");
    };
    let (one, two, three) = (get(1), get(2), get(3));
    let read = ("$JS.API.STREAM.MSG.GET.S", one.as_str());
    body(&life(&first, "from-a-variable", &[read])[0], 1);
    let more = ("hidden.subject", "a body to hide 3");
    let said = life(&both, "from-a-variable", &[read, more]);
    body(&said[0], 1);
    // Its last flush wrote a manifest with the second key: the first one need not be there any more.
    let said =
        life(&second, "", &[read, ("$JS.API.STREAM.MSG.GET.S", &two), ("$JS.API.STREAM.MSG.GET.S", &three)]);
    said.iter().zip(1..).for_each(|(s, n)| body(s, n));
    assert_eq!(plain(&d), None);

    // The tools look at it with the server's configuration, and not without.
    let data = d.path("data");
    let (code, out, err) = d.tool(&["store", "verify", &data, "-c", &second]);
    assert!(code == 0 && out.contains(": whole"), "{out}{err}");
    let (code, out, err) = d.tool(&["store", "inspect", "-c", &second, &data]);
    assert!(code == 0 && out.contains("sealed with the key "), "{out}{err}");
    for words in [&["store", "verify", &data][..], &["store", "inspect", &data]] {
        let (code, _, err) = d.tool(words);
        assert!(code == 2 && err.contains("which is not configured"), "{err}");
    }
}
