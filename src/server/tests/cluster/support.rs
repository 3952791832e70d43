//! Servers of a cluster in this process, a nats-server beside them where there is one, and a client that speaks bytes.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use env::net::TcpStream;
use serde_json::{Value, json};
use server::{
    Server,
    options::{self, Flags},
};

/// How long anything may take that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long a whole test may take: what waits in a loop must end too.
const TEST_MAX: Duration = Duration::from_secs(150);

/// Runs a test.
pub fn run<F: Future<Output = ()>>(test: F) {
    let done = env::run(async { env::timeout(TEST_MAX, test).await }).expect("a runtime can be made");
    assert!(done.is_ok(), "the test does not come to its end");
}

/// Starts a server with this configuration, on random ports.
pub async fn start(name: &str, config: &str) -> Arc<Server> {
    let text = format!("listen: \"127.0.0.1:-1\"\nserver_name: {name}\n{config}");
    let flags = Flags::default();
    let loaded = options::load_text("test.conf", &text, &flags, &conf::Memory::default());
    let options = loaded.expect("the test's configuration is right").options;
    assert_eq!(options::unsupported(&options), Vec::<String>::new());
    let server = Server::new(options, flags).expect("the test's configuration fits together");
    let run = server.clone();
    env::spawn(async move { run.run().await });
    let ready = server.clone();
    eventually("the server listens", move || ready.bound.lock().cluster.is_some()).await;
    server
}

/// The `cluster` block of a member that knows `others`.
pub fn cluster(extra: &str, others: &[SocketAddr]) -> String {
    let routes: Vec<String> = others.iter().map(|a| format!("\"nats-route://{a}\"")).collect();
    format!("cluster {{ listen: \"127.0.0.1:-1\", routes: [{}], {extra} }}\n", routes.join(", "))
}

pub fn cluster_port(s: &Server) -> SocketAddr {
    s.bound.lock().cluster.expect("the server listens")
}
pub fn client_port(s: &Server) -> SocketAddr {
    s.bound.lock().client.expect("the server listens")
}

/// `n` servers, each of which knows the first; they are a full mesh with whole pools.
pub async fn mesh(n: usize, config: &str, extra: &str, routes_each: usize) -> Vec<Arc<Server>> {
    let mut all: Vec<Arc<Server>> = Vec::new();
    for i in 0..n {
        let known: Vec<_> = all.first().map(|s| cluster_port(s)).into_iter().collect();
        let text = format!("{config}\n{}", cluster(extra, &known));
        all.push(start(&format!("s{i}"), &text).await);
    }
    for s in &all {
        meshed(s, n - 1, routes_each).await;
    }
    all
}

/// Waits until a server has so many routes to each of so many members.
pub async fn meshed(s: &Arc<Server>, members: usize, routes_each: usize) {
    let (want, s) = ((members * routes_each, members), s.clone());
    let what = format!("{} has {} routes to {members} members", s.name, want.0);
    eventually(&what, move || counts(&s) == want).await;
}
pub fn counts(s: &Server) -> (usize, usize) {
    s.cluster.mesh.as_ref().expect("it is clustered").counts()
}

/// Waits for a condition.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = env::now() + PATIENCE;
    while !condition() {
        assert!(env::now() < deadline, "it never comes true: {what}");
        env::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until somebody listens to `subject` in an account of a server.
pub async fn interest(s: &Arc<Server>, account: &str, subject: &str, there: bool) {
    let what = format!("{} knows of interest in {subject}: {there}", s.name);
    let (s, account, subject) = (s.clone(), account.to_string(), subject.to_string());
    eventually(&what, move || {
        s.broker.account(&account).is_some_and(|a| a.has_interest(subject.as_bytes())) == there
    })
    .await;
}

/// Waits until a server knows that somebody at another one listens to `subject`.
pub async fn remote_interest(s: &Arc<Server>, account: &str, subject: &str) {
    let what = format!("{} knows of interest elsewhere in {subject}", s.name);
    let (s, account, subject) = (s.clone(), account.to_string(), subject.to_string());
    eventually(&what, move || {
        let Some(a) = s.broker.account(&account) else { return false };
        let exact =
            |m: &Arc<broker::Sub>| m.link.kind == broker::Kind::Route && m.subject() == subject.as_bytes();
        a.matching(subject.as_bytes()).iter().any(exact)
    })
    .await;
}

/// The weight of a queue group that a server knows of others.
pub async fn weight(s: &Arc<Server>, account: &str, subject: &str, weight: u32) {
    let (s2, account, subject) = (s.clone(), account.to_string(), subject.to_string());
    let what = format!("{} knows of {weight} members on {subject}", s.name);
    eventually(&what, move || {
        let Some(a) = s2.broker.account(&account) else { return false };
        let remote = a.matching(subject.as_bytes());
        remote.iter().filter(|s| s.link.kind == broker::Kind::Route).map(|s| s.weight()).sum::<u32>()
            == weight
    })
    .await;
}

/// A message as a client got it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Msg {
    pub subject: String,
    pub reply: String,
    pub header: String,
    pub body: String,
}

/// A client that speaks bytes.
pub struct Peer {
    socket: TcpStream,
    buf: VecDeque<u8>,
    pub info: Value,
    pub infos: VecDeque<Value>,
    pub msgs: VecDeque<Msg>,
    sid: u32,
}

impl Peer {
    /// One that has said nothing.
    pub fn on(socket: TcpStream) -> Peer {
        Peer {
            socket,
            buf: VecDeque::new(),
            info: Value::Null,
            infos: VecDeque::new(),
            msgs: VecDeque::new(),
            sid: 0,
        }
    }
    pub async fn at(address: SocketAddr, user: &str) -> Peer {
        let mut p = Peer::on(TcpStream::connect(address).await.expect("the server listens"));
        assert_eq!(p.step().await, "INFO");
        p.info = p.infos.pop_front().unwrap();
        let connect = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true, "protocol": 1,
            "echo": true, "user": user, "pass": "pw", "name": user, "lang": "rs", "version": "1",
        });
        p.send(format!("CONNECT {connect}\r\n").as_bytes()).await;
        p.settle().await;
        p
    }
    pub async fn new(s: &Server, user: &str) -> Peer {
        Peer::at(client_port(s), user).await
    }
    pub async fn send(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            env::timeout(PATIENCE, self.socket.writable()).await.unwrap().unwrap();
            bytes = &bytes[self.socket.try_write(bytes).unwrap_or(0)..];
        }
    }
    async fn fill(&mut self) -> bool {
        env::timeout(PATIENCE, self.socket.readable()).await.expect("something comes").unwrap();
        let mut buf = [0; 65536];
        match self.socket.try_read(&mut buf) {
            Ok(0) => return false,
            Ok(n) => self.buf.extend(&buf[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        true
    }
    /// Reads one line, and the rest of the message if it is one. Returns its verb.
    pub async fn step(&mut self) -> String {
        let line = loop {
            let crlf = self.buf.iter().zip(self.buf.iter().skip(1)).position(|(a, b)| (*a, *b) == (13, 10));
            if let Some(i) = crlf {
                let line: Vec<u8> = self.buf.drain(..i + 2).take(i).collect();
                break String::from_utf8(line).unwrap();
            }
            if !self.fill().await {
                return "EOF".to_string();
            }
        };
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match verb {
            "INFO" => self.infos.push_back(serde_json::from_str(rest).unwrap()),
            "PING" => self.send(b"PONG\r\n").await,
            "MSG" | "HMSG" => {
                let words: Vec<&str> = rest.split(' ').collect();
                let fixed = if verb == "MSG" { 3 } else { 4 };
                let number = |back: usize| words[words.len() - back].parse::<usize>().unwrap();
                let (size, header) = (number(1), if fixed == 4 { number(2) } else { 0 });
                let reply = if words.len() > fixed { words[2].to_string() } else { String::new() };
                while self.buf.len() < size + 2 {
                    assert!(self.fill().await);
                }
                let all: Vec<u8> = self.buf.drain(..size + 2).take(size).collect();
                let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                self.msgs.push_back(Msg {
                    subject: words[0].to_string(),
                    reply,
                    header: text(&all[..header]),
                    body: text(&all[header..]),
                });
            }
            "-ERR" => panic!("{line}"),
            _ => {}
        }
        verb.to_string()
    }
    /// All that comes until the other end closes, as it is.
    pub async fn rest(&mut self) -> String {
        while self.fill().await {}
        let all: Vec<u8> = self.buf.drain(..).collect();
        String::from_utf8(all).unwrap()
    }
    /// Waits until all that was sent is done, and all that it caused at once has come.
    pub async fn settle(&mut self) {
        self.send(b"PING\r\n").await;
        loop {
            match &*self.step().await {
                "PONG" => return,
                "EOF" => panic!("the server has closed the connection"),
                _ => {}
            }
        }
    }
    pub async fn sub(&mut self, subject: &str, queue: &str) -> u32 {
        self.sid += 1;
        self.send(format!("SUB {subject} {queue} {}\r\n", self.sid).as_bytes()).await;
        self.settle().await;
        self.sid
    }
    pub async fn unsub(&mut self, sid: u32) {
        self.send(format!("UNSUB {sid}\r\n").as_bytes()).await;
        self.settle().await;
    }
    pub async fn publish(&mut self, subject: &str, reply: &str, body: &str) {
        self.send(format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len()).as_bytes()).await;
        self.settle().await;
    }
    pub async fn publish_with_header(&mut self, subject: &str, key: &str, value: &str, body: &str) {
        let block = format!("NATS/1.0\r\n{key}: {value}\r\n\r\n");
        let (h, n) = (block.len(), block.len() + body.len());
        self.send(format!("HPUB {subject} {h} {n}\r\n{block}{body}\r\n").as_bytes()).await;
        self.settle().await;
    }
    /// The next message.
    pub async fn next(&mut self) -> Msg {
        while self.msgs.is_empty() {
            assert_ne!(self.step().await, "EOF");
        }
        self.msgs.pop_front().unwrap()
    }
    /// The next body.
    pub async fn body(&mut self) -> String {
        self.next().await.body
    }
    /// Reads until an INFO fits.
    pub async fn info_with(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            while let Some(i) = self.infos.pop_front() {
                if fits(&i) {
                    return i;
                }
            }
            assert_ne!(self.step().await, "EOF", "{what}");
        }
    }
    /// Sends a request and returns the first answer.
    pub async fn ask(&mut self, subject: &str, body: &str) -> Msg {
        let inbox = format!("_INBOX.{}.{}", self.info["client_id"], self.sid + 1);
        let sid = self.sub(&inbox, "").await;
        self.publish(subject, &inbox, body).await;
        let m = self.next().await;
        self.unsub(sid).await;
        m
    }
}

/// The real server, if there is one: where the variable `NATS_SERVER_BIN` points, or in the path.
pub fn nats_server() -> Option<PathBuf> {
    let found = std::env::var_os("NATS_SERVER_BIN").map(PathBuf::from).into_iter().chain(
        std::env::var_os("PATH")
            .into_iter()
            .flat_map(|p| std::env::split_paths(&p).collect::<Vec<_>>())
            .map(|d| d.join("nats-server")),
    );
    // A stand-in of this project under that name would only test itself.
    let is_real = |p: &PathBuf| {
        let Ok(out) = Command::new(p).arg("--help").output() else { return false };
        !String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).to_lowercase().contains("fulmar")
    };
    let path = found.into_iter().find(|p| p.is_file() && is_real(p));
    if path.is_none() {
        println!("skipped: there is no nats-server to mesh with (set NATS_SERVER_BIN)");
    }
    path
}

/// A nats-server as a process of its own; it ends with this value.
pub struct Real {
    child: Child,
    pub client: SocketAddr,
    pub cluster: SocketAddr,
    dir: PathBuf,
}

impl Real {
    /// Starts it; `config` is what stands before its cluster block.
    pub async fn start(bin: &PathBuf, name: &str, config: &str, extra: &str, routes: &[SocketAddr]) -> Real {
        let unique = format!("fulmar-routes-{}-{name}-{:x}", std::process::id(), env::wall().0);
        let dir = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&dir).unwrap();
        let text = format!(
            "listen: \"127.0.0.1:-1\"\nserver_name: {name}\nports_file_dir: {dir:?}\n{config}\n{}",
            cluster(extra, routes)
        );
        std::fs::write(dir.join("conf"), text).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(bin)
            .arg("-c")
            .arg(dir.join("conf"))
            .arg("-D")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let id = child.id();
        let ports = || {
            let entries = std::fs::read_dir(&dir).unwrap();
            let file = entries
                .filter_map(Result::ok)
                .find(|e| e.file_name().to_string_lossy().ends_with(&format!("_{id}.ports")))?;
            let v: Value = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
            let at = |key: &str| v[key][0].as_str()?.split_once("://")?.1.parse().ok();
            Some((at("nats")?, at("cluster")?))
        };
        eventually("nats-server listens", || ports().is_some()).await;
        let (client, cluster) = ports().unwrap();
        Real { child, client, cluster, dir }
    }
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            println!("--- nats-server said:\n{}", self.log());
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// Waits until a message to `subject` of one client reaches the other.
pub async fn flows(from: &mut Peer, to: &mut Peer, subject: &str) {
    let deadline = env::now() + PATIENCE;
    loop {
        from.publish(subject, "", "probe").await;
        to.settle().await;
        if to.msgs.iter().any(|m| m.body == "probe") {
            break;
        }
        assert!(env::now() < deadline, "{subject} never comes through");
    }
    // What was sent before is on its way on the same connection.
    from.publish(subject, "", "last").await;
    while to.body().await != "last" {}
}

/// A message from `a` to `b`, clients of two servers, is traced on both; one that is only to be traced reaches nobody.
pub async fn traces_cross(a: &mut Peer, b: &mut Peer) {
    let (traces, here) = (a.sub("trace.to", "").await, a.sub("traced.*", "").await);
    let there = [b.sub("traced.>", "").await, b.sub("traced.1", "group").await];
    flows(b, a, "trace.to").await;
    flows(a, b, "traced.other").await;
    a.settle().await;
    a.msgs.clear();
    let name = |p: &Peer| p.info["server_name"].as_str().unwrap().to_owned();
    let (at_a, at_b) = (name(a), name(b));
    for only in ["", "\r\nNats-Trace-Only: true"] {
        a.publish_with_header("traced.1", "Nats-Trace-Dest", &format!("trace.to{only}"), "body").await;
        let mut said: Vec<Value> = Vec::new();
        let mut direct = 0;
        while said.len() < 2 {
            let m = a.next().await;
            match &*m.subject {
                "trace.to" => said.push(serde_json::from_str(&m.body).unwrap()),
                _ => direct += 1,
            }
        }
        said.sort_by_key(|v| v["hops"].is_null());
        let [first, second] = &said[..] else { unreachable!("there are two") };
        let kinds = |v: &Value| -> Vec<Value> {
            let all = v["events"].as_array().unwrap().iter();
            let short = |e: &Value| json!([e["type"], e["kind"], e["name"], e["hop"], e["sub"], e["queue"]]);
            let mut all: Vec<Value> = all.map(short).collect();
            all.sort_by_key(Value::to_string);
            all
        };
        assert_eq!((&first["server"]["name"], &first["hops"]), (&json!(at_a), &json!(1)));
        let named = |p: &Value, name: &str| p["events"].as_array().unwrap().iter().any(|e| e["name"] == name);
        assert!(named(first, &at_b) && named(second, &at_a), "{first} {second}");
        assert!(kinds(first).contains(&json!(["eg", 1, at_b, "1", null, null])), "{first}");
        assert_eq!(second["server"]["name"], json!(at_b));
        assert_eq!(second["request"]["header"]["Nats-Trace-Hop"], json!(["1"]), "{second}");
        let at_second = kinds(second);
        assert!(at_second.contains(&json!(["in", 1, at_a, null, null, null])), "{second}");
        assert_eq!(at_second.iter().filter(|e| e[0] == "eg").count(), 2, "{second}");
        b.settle().await;
        let got: Vec<Msg> = b.msgs.drain(..).collect();
        let n = if only.is_empty() { (1, 2) } else { (0, 0) };
        assert_eq!((direct, got.len()), n, "B-7");
        assert!(got.iter().all(|m| m.header.ends_with("Nats-Trace-Hop: 1\r\n\r\n")), "{:?}", got);
    }
    a.unsub(traces).await;
    a.unsub(here).await;
    for sid in there {
        b.unsub(sid).await;
    }
}
