//! Whole links over loopback: nodes that find each other by their routes, and a stranger that speaks bytes.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use broker::Broker;
use bytes::Bytes;
use env::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use identity::{AuthConfig, Authenticator, ListenerConfig, Secret, SingleUser};
use parking_lot::Mutex;
use wire::{
    peer::{Hello, Parsed, Piece, header, hex, parse},
    route::info::RouteInfo,
};

use super::*;
use crate::{
    TlsSettings,
    route::{self, Certificates, Mesh, MeshOptions, RouteHooks, RouteSettings, RouteTls, RouteUrl},
    tls::{TlsConfig, client_config, server_config, tests::Authority},
};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);
impl RouteHooks for Log {
    fn log(&self, level: &'static str, text: &str) {
        self.0.lock().push(format!("{level} {text}"));
    }
    fn changed(&self) {}
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Up(Node, String),
    Down(Node),
    Frame(Node, u8, Bytes),
}

#[derive(Default)]
struct Notes(Mutex<Vec<Seen>>);
impl PeerHooks for Notes {
    fn up(&self, node: Node, name: &str, version: u32) {
        assert_eq!(version, wire::peer::VERSION);
        self.0.lock().push(Seen::Up(node, name.to_owned()));
    }
    fn down(&self, node: Node) {
        self.0.lock().push(Seen::Down(node));
    }
    fn frame(&self, node: Node, kind: u8, body: Bytes) {
        self.0.lock().push(Seen::Frame(node, kind, body));
    }
}

struct Server {
    node: Node,
    mesh: Arc<Mesh>,
    hub: Arc<Hub>,
    notes: Arc<Notes>,
    log: Log,
    at: SocketAddr,
    listening: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.hub.stop();
        self.mesh.stop();
        self.listening.abort();
    }
}

struct How {
    node: u64,
    cluster: &'static str,
    password: Option<&'static str>,
    tls: Option<RouteTls>,
    /// Names of which a certificate must have one.
    hosts: Option<Vec<String>>,
    limits: PeerLimits,
    known: Vec<SocketAddr>,
}

impl Default for How {
    fn default() -> How {
        How {
            node: 1,
            cluster: "C",
            password: None,
            tls: None,
            hosts: None,
            limits: PeerLimits { yield_for: Duration::from_millis(20), ..PeerLimits::default() },
            known: Vec::new(),
        }
    }
}

async fn start(how: How) -> Server {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let at = listener.local_addr().unwrap();
    let credentials = how.password.map(|p| ("u".to_owned(), Secret::new(p)));
    let single = how.password.map(|p| SingleUser { name: "u".into(), password: Secret::new(p) });
    let listener_config = ListenerConfig { single, ..ListenerConfig::default() };
    let config = AuthConfig { listener: listener_config, ..AuthConfig::default() };
    let (id, name) = (format!("N{}", how.node), format!("s{}", how.node));
    let info = RouteInfo {
        server_id: id.clone(),
        server_name: name.clone(),
        proto: 3,
        host: "127.0.0.1".into(),
        port: i64::from(at.port()),
        headers: true,
        fulmar: "1".into(),
        fulmar_node: hex(how.node),
        fulmar_peer: 1,
        ..RouteInfo::default()
    };
    let url = |a: &SocketAddr| RouteUrl {
        host: a.ip().to_string(),
        port: a.port(),
        credentials: credentials.clone(),
    };
    let settings = RouteSettings {
        certificates: how.hosts.map(|hosts| Arc::new(Certificates { by_user: None, user: None, hosts })),
        compression: crate::route::Compression::Off,
        info,
        urls: how.known.iter().map(url).collect(),
        authenticator: Arc::new(Authenticator::new(config, [0; 32]).unwrap()),
        credentials: credentials.clone(),
        auth_timeout: Duration::from_secs(2),
        tls: how.tls,
        pool_size: 1,
        pinned: Arc::new([]),
        permissions: None,
        ping_interval: Duration::from_secs(60),
        pings_out_max: 2,
        write_deadline: Duration::from_secs(10),
        close_on_write_deadline: false,
        control_line_bytes_max: 4096,
        pending_bytes_max: 64 << 20,
        connect_retries: 0,
        connect_backoff: false,
        connect_error_reports: 1,
        reconnect_error_reports: 1,
        advertise: false,
    };
    let (log, notes) = (Log::default(), Arc::new(Notes::default()));
    let mesh = Mesh::new(MeshOptions {
        broker: Arc::new(Broker::default()),
        id,
        server_name: name,
        cluster: Some(how.cluster.to_owned()),
        hooks: Box::new(log.clone()),
        workers: env::Workers::start(1).unwrap().all().to_vec(),
        settings,
    });
    mesh.broker.enable_routes();
    let hooks = notes.clone();
    let node = Node(how.node);
    let hub = Hub::start(HubOptions { mesh: mesh.clone(), node, hooks, limits: how.limits });
    let listening = env::spawn(route::listen(mesh.clone(), listener, std::future::pending()));
    mesh.start();
    Server { node, mesh, hub, notes, log, at, listening }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = env::now() + PATIENCE;
    while !condition() {
        assert!(env::now() < deadline, "it never comes true: {what}");
        env::sleep(Duration::from_millis(1)).await;
    }
}

impl Server {
    fn logged(&self, text: &str) -> bool {
        self.log.0.lock().iter().any(|l| l.contains(text))
    }
    async fn up(&self, other: &Server) {
        let what = format!("{} has a link with {}", self.node, other.node);
        eventually(&what, || self.hub.is_up(other.node)).await;
    }
    fn frames(&self, kind: u8) -> Vec<Bytes> {
        let all = self.notes.0.lock();
        let of = |s: &Seen| match s {
            Seen::Frame(_, k, b) if *k == kind => Some(b.clone()),
            _ => None,
        };
        all.iter().filter_map(of).collect()
    }
    /// N-2 as its user sees it: up, frames, down, by turns.
    fn check_turns(&self) {
        let mut up = BTreeMap::new();
        for s in self.notes.0.lock().iter() {
            match s {
                Seen::Up(n, _) => assert_ne!(up.insert(*n, true), Some(true), "N-2: up twice"),
                Seen::Down(n) => assert_eq!(up.insert(*n, false), Some(true), "N-2: down without up"),
                Seen::Frame(n, ..) => assert_eq!(up.get(n), Some(&true), "N-2: a frame without a link"),
            }
        }
    }
}

async fn three(how: impl Fn(u64) -> How) -> Vec<Server> {
    let mut all: Vec<Server> = Vec::new();
    for n in 1..=3 {
        let known = all.first().map(|s| s.at).into_iter().collect();
        all.push(start(How { node: n, known, ..how(n) }).await);
    }
    for a in &all {
        for b in all.iter().filter(|b| b.node != a.node) {
            a.up(b).await;
        }
    }
    all
}

fn run(test: impl Future<Output = ()>) {
    let done = env::run(async { env::timeout(Duration::from_secs(120), test).await }).unwrap();
    assert!(done.is_ok(), "the test does not come to its end");
}

#[test]
fn n1_three_nodes_have_one_link_a_pair_and_frames_come_whole_and_in_order() {
    run(async {
        let all = three(|_| How::default()).await;
        for s in &all {
            let links = s.hub.links();
            assert_eq!(links.len(), 2, "N-1");
            for l in links {
                let other = &all[l.node.0 as usize - 1];
                let back = other.hub.links().into_iter().find(|b| b.node == s.node).unwrap();
                assert_eq!((l.version, l.solicited), (1, !back.solicited), "N-1: it is the same one");
                assert_eq!(l.name, other.mesh.server_name);
            }
        }
        let large = Bytes::from((0..3_000_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>());
        for i in 0..500u32 {
            let body = Bytes::copy_from_slice(&i.to_le_bytes());
            assert!(all[0].hub.send(Node(2), Lane::Consensus, 1, body.clone()));
            assert!(all[0].hub.send(Node(2), Lane::Call, 2, body));
        }
        assert!(all[0].hub.send(Node(2), Lane::Bulk, 3, large.clone()));
        assert!(all[1].hub.send(Node(1), Lane::Bulk, 3, large.clone()));
        assert!(all[0].hub.send(Node(2), Lane::Beat, 4, Bytes::new()));
        assert!(!all[0].hub.send(Node(9), Lane::Call, 1, Bytes::new()), "nobody is there");
        let (a, b) = (&all[0], &all[1]);
        eventually("all frames are there", || {
            b.frames(1).len() == 500 && b.frames(2).len() == 500 && b.frames(3).len() + a.frames(3).len() == 2
        })
        .await;
        let order: Vec<Bytes> = (0..500u32).map(|i| Bytes::copy_from_slice(&i.to_le_bytes())).collect();
        assert!(b.frames(1) == order && b.frames(2) == order && b.frames(3) == [large]);
        assert_eq!(b.frames(4), [Bytes::new()]);
        let l = a.hub.links().into_iter().find(|l| l.node == b.node).unwrap();
        assert_eq!((l.out_frames, l.pending, l.refused), (1002, [0; 4], 0));
        assert!(l.out_bytes > 3_000_000 && l.in_bytes > 3_000_000);
        eventually("the round trip is known", || a.hub.links().iter().all(|l| !l.rtt.is_zero())).await;
    });
}

#[test]
fn who_waits_for_the_routes_finds_its_interest_everywhere() {
    run(async {
        let all = three(|_| How::default()).await;
        let met = || all.iter().all(|s| s.mesh.routes().len() >= 2);
        eventually("the routes are there", met).await;
        let link = broker::Link::new(broker::LinkOptions {
            id: all[0].mesh.broker.next_id(),
            kind: broker::Kind::Client,
            worker: 0,
            pending_bytes_max: 1 << 20,
            transport: None,
            inbound: None,
        });
        let account = all[0].mesh.broker.account_or_new("A");
        for i in 0..200 {
            let (subject, sid) = (format!("s.{i}"), i.to_string());
            link.subscribe(&account, sid.as_bytes(), subject.as_bytes(), b"", false).unwrap();
            all[0].mesh.settled().await;
            for other in &all[1..] {
                let there = other.mesh.broker.account_or_new("A").has_interest(subject.as_bytes());
                assert!(there, "{} does not know {subject}", other.node);
            }
        }
        // Nobody is waited for in vain.
        for s in &all[1..] {
            s.mesh.stop();
        }
        all[0].mesh.settled().await;
    });
}

#[test]
fn n2_a_link_that_breaks_is_replaced_and_nothing_of_it_comes_late() {
    run(async {
        let all = three(|_| How::default()).await;
        let (a, b) = (&all[0], &all[1]);
        let mut sent = 0u32;
        for round in 2..12u64 {
            for _ in 0..50 {
                let body = Bytes::from([&sent.to_le_bytes()[..], &[7; 5000]].concat());
                a.hub.send(b.node, Lane::Consensus, 1, body);
                sent += 1;
            }
            let who = if round % 2 == 0 { (a, b) } else { (b, a) };
            who.0.hub.cut(who.1.node, "the test says so");
            let newer = |s: &Server, o: &Server| {
                s.hub.links().iter().any(|l| l.node == o.node && l.generation >= round)
            };
            eventually("there is a newer link", || newer(a, b) && newer(b, a)).await;
        }
        a.hub.send(b.node, Lane::Consensus, 2, Bytes::new());
        eventually("it carries", || b.frames(2).len() == 1).await;
        let order: Vec<u32> =
            b.frames(1).iter().map(|f| u32::from_le_bytes(f[..4].try_into().unwrap())).collect();
        assert!(order.is_sorted_by(|a, b| a < b), "N-2: {order:?}");
        all.iter().for_each(Server::check_turns);
        assert!(b.logged("the test says so") && a.logged("the test says so"), "both logs say why");
        // The end of a node is told, and its links end.
        all[2].hub.stop();
        eventually("the others hear of it", || !a.hub.is_up(Node(3)) && !b.hub.is_up(Node(3))).await;
        eventually("with its reason", || a.logged("the server ends")).await;
        all.iter().for_each(Server::check_turns);
    });
}

#[test]
fn links_speak_tls_and_show_their_credentials() {
    run(async {
        let ca = Authority::new("ca");
        let config = TlsConfig {
            certs: vec![ca.server(&["127.0.0.1"]).pair()],
            ca_file: "ca.pem".into(),
            ca: ca.pem.clone().into(),
            ..TlsConfig::default()
        };
        let server = Arc::new(TlsSettings::new(server_config(&config).unwrap().config));
        let client = client_config(&config, false).unwrap().config;
        let tls = RouteTls { server, client };
        let all = three(|_| How { tls: Some(tls.clone()), password: Some("secret"), ..How::default() }).await;
        let large = Bytes::from(vec![5; 2_000_000]);
        assert!(all[2].hub.send(Node(2), Lane::Bulk, 3, large.clone()));
        assert!(all[2].hub.send(Node(2), Lane::Consensus, 1, Bytes::from_static(b"x")));
        eventually("it comes", || all[1].frames(3) == [large.clone()] && all[1].frames(1).len() == 1).await;
    });
}

/// Somebody who speaks bytes.
struct Stranger {
    socket: TcpStream,
    buf: Vec<u8>,
}

impl Stranger {
    async fn at(at: SocketAddr) -> Stranger {
        Stranger { socket: TcpStream::connect(at).await.unwrap(), buf: Vec::new() }
    }
    async fn send(&self, mut b: &[u8]) {
        while !b.is_empty() {
            env::timeout(PATIENCE, self.socket.writable()).await.unwrap().unwrap();
            b = &b[self.socket.try_write(b).unwrap_or(0)..];
        }
    }
    /// Reads more; false at the end.
    async fn more(&mut self) -> bool {
        env::timeout(PATIENCE, self.socket.readable()).await.expect("something comes").ok();
        let mut buf = [0; 65536];
        match self.socket.try_read(&mut buf) {
            Ok(0) => return false,
            Ok(n) => self.buf.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        true
    }
    async fn line(&mut self) -> String {
        loop {
            if let Some(i) = self.buf.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buf.drain(..=i).collect();
                return String::from_utf8(line).unwrap().trim_end().to_owned();
            }
            if !self.more().await {
                return "EOF".to_owned();
            }
        }
    }
    /// Its hello, in two pieces, and the answer.
    async fn greet(&mut self, hello: &Hello) -> String {
        assert!(self.line().await.starts_with("INFO "));
        let mut out = Vec::new();
        hello.push(&mut out);
        self.send(&out[..3]).await;
        self.send(&out[3..]).await;
        self.line().await
    }
    /// The next piece: lane, kind, whether more follows, body.
    async fn piece(&mut self) -> (u8, u8, bool, Vec<u8>) {
        loop {
            if let Parsed::Piece(p, used) = parse(&self.buf).unwrap() {
                let got = (p.lane, p.kind, p.more, p.body.to_vec());
                self.buf.drain(..used);
                return got;
            }
            assert!(self.more().await, "the link stays");
        }
    }
}

fn hello(node: u64) -> Hello {
    Hello {
        version: 1,
        version_min: 1,
        node: hex(node),
        name: format!("s{node}"),
        cluster: "C".into(),
        life: hex(7),
        ..Hello::default()
    }
}

#[test]
fn n5_who_does_not_belong_here_is_refused_with_a_reason() {
    run(async {
        let s = start(How { node: 5, password: Some("right"), ..How::default() }).await;
        let good = Hello { user: "u".into(), pass: "right".into(), ..hello(9) };
        let cases = [
            (Hello { pass: "wrong".into(), ..good.clone() }, "Authorization Violation"),
            (Hello { user: String::new(), pass: String::new(), ..good.clone() }, "Authorization Violation"),
            (Hello { cluster: "D".into(), ..good.clone() }, "cluster name"),
            (Hello { version: 8, version_min: 7, ..good.clone() }, "versions 7 to 8"),
            (Hello { node: hex(5), ..good.clone() }, "is this server's own"),
            (Hello { node: "5".into(), ..good.clone() }, "its node id is none"),
            (Hello { to: hex(6), ..good.clone() }, "is not here"),
            (Hello { name: String::new(), ..good.clone() }, "has no name"),
        ];
        for (bad, why) in cases {
            let mut x = Stranger::at(s.at).await;
            let answer = x.greet(&bad).await;
            assert!(answer.starts_with("-ERR ") && answer.contains(why), "N-5: {answer} for {why}");
            assert_eq!(x.line().await, "EOF");
            assert!(s.logged(why), "{why}");
        }
        for garbage in ["PEER {\r\n", "PEER \r\n", "PEER 7\r\n"] {
            let mut x = Stranger::at(s.at).await;
            assert!(x.line().await.starts_with("INFO "));
            x.send(garbage.as_bytes()).await;
            assert!(x.line().await.starts_with("-ERR 'its hello"), "{garbage}");
        }
        assert!(s.notes.0.lock().is_empty(), "nobody heard of any of them");
        let mut x = Stranger::at(s.at).await;
        let answer = x.greet(&good).await;
        let answer = Hello::parse(answer.strip_prefix("PEER ").expect(&answer).as_bytes()).unwrap();
        assert_eq!((answer.node, answer.links, answer.user.as_str()), (hex(5), 1, ""));
        eventually("it is up", || s.notes.0.lock().contains(&Seen::Up(Node(9), "s9".into()))).await;
        // The same node under another name: a copy of somebody's directory.
        let mut y = Stranger::at(s.at).await;
        let answer = y.greet(&Hello { name: "copy".into(), ..good.clone() }).await;
        assert!(answer.contains("belongs to server"), "{answer}");
        // The same server again: its old link is dead.
        let mut z = Stranger::at(s.at).await;
        assert!(z.greet(&good).await.starts_with("PEER "));
        while x.more().await {}
        eventually("the newer one is up", || s.hub.links().iter().any(|l| l.generation == 2)).await;
        s.check_turns();
    });
}

#[test]
fn n5_where_certificates_speak_for_members_no_link_comes_without_one() {
    run(async {
        let s = start(How { node: 5, hosts: Some(vec!["a.example".into()]), ..How::default() }).await;
        let mut x = Stranger::at(s.at).await;
        let answer = x.greet(&hello(9)).await;
        assert_eq!(answer, "-ERR 'Authorization Violation'", "N-5");
        assert!(s.logged("Authorization Violation") && s.notes.0.lock().is_empty());
    });
}

#[test]
fn n5_whoever_came_in_under_another_password_has_to_ask_again() {
    run(async {
        let s = start(How { node: 5, ..How::default() }).await;
        let mut x = Stranger::at(s.at).await;
        assert!(x.greet(&hello(9)).await.starts_with("PEER "));
        eventually("it is up", || s.hub.is_up(Node(9))).await;
        // The same again, and nothing is asked for: it stays.
        s.mesh.set_settings((*s.mesh.settings()).clone());
        let single = SingleUser { name: "u".into(), password: Secret::new("p") };
        let listener = ListenerConfig { single: Some(single), ..ListenerConfig::default() };
        let config = AuthConfig { listener, ..AuthConfig::default() };
        let authenticator = Arc::new(Authenticator::new(config, [0; 32]).unwrap());
        let credentials = Some(("u".to_owned(), Secret::new("p")));
        assert!(s.hub.is_up(Node(9)));
        s.mesh.set_settings(RouteSettings { authenticator, credentials, ..(*s.mesh.settings()).clone() });
        while x.more().await {}
        eventually("it is gone", || !s.hub.is_up(Node(9))).await;
        s.check_turns();
    });
}

#[test]
fn n5_a_refusal_is_told_at_the_end_that_asked_too() {
    run(async {
        let s = start(How { node: 5, ..How::default() }).await;
        let other = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let at = other.local_addr().unwrap();
        let url = RouteUrl { host: at.ip().to_string(), port: at.port(), credentials: None };
        let answers: [(&[u8], &str); 5] = [
            (b"INFO {}\r\n-ERR 'Authorization Violation'\r\n", "Refused(\"Authorization Violation\")"),
            (b"-ERR 'Duplicate Peer Link'\r\n", "Duplicate"),
            (b"HTTP/1.1 400 Bad Request\r\n", "does not answer as a Fulmar does"),
            (b"INFO {}\r\nPEER {\"version\":1,\"version_min\":1,\"node\":\"0000000000000009\",\"name\":\"x\",\"cluster\":\"D\",\"life\":\"0000000000000001\"}\r\n", "does not match"),
            (b"", "closed"),
        ];
        for (answer, why) in answers {
            let asked = greet::open(&s.hub, Node(9), &url);
            let answered = async {
                let (socket, _) = other.accept().await.unwrap();
                let socket = socket.attach().unwrap();
                socket.readable().await.unwrap();
                socket.try_read(&mut [0; 1024]).unwrap();
                socket.try_write(answer).unwrap();
                if answer.is_empty() {
                    socket.shutdown().unwrap();
                }
                socket
            };
            let (end, _socket) = tokio::join!(asked, answered);
            let text = format!("{:?}", end.err().expect("it is no link"));
            assert!(text.contains(why), "{text}: {why}");
        }
        assert!(s.hub.ask(Node(9)).is_some(), "nothing is left of the attempts");
    });
}

#[test]
fn n3_n4_a_peer_that_does_not_read_fills_its_lanes_and_delays_no_consensus() {
    run(async {
        let limits = PeerLimits {
            lane_bytes_max: [1 << 20, 1 << 20, 1 << 20, 48 << 20],
            silence_max: Duration::from_secs(60),
            ..PeerLimits::default()
        };
        let s = start(How { node: 5, limits, ..How::default() }).await;
        let mut x = Stranger::at(s.at).await;
        assert!(x.greet(&hello(9)).await.starts_with("PEER "));
        let bulk = Bytes::from(vec![1; 1 << 20]);
        let mut taken = 0;
        while s.hub.send(Node(9), Lane::Bulk, 3, bulk.clone()) {
            taken += 1;
            assert!(taken < 200, "N-3: it is bounded");
        }
        eventually("the socket takes no more", || {
            let before = s.hub.links()[0].out_bytes;
            before > 0 && s.hub.links()[0].pending[3] > (32 << 20)
        })
        .await;
        assert!(s.hub.links()[0].refused >= 1);
        assert!(
            s.hub.send(Node(9), Lane::Consensus, 1, Bytes::from_static(b"vote")),
            "N-3: other lanes have room"
        );
        let mut before = 0;
        loop {
            match x.piece().await {
                (2, 1, false, body) => {
                    assert_eq!(body, b"vote");
                    break;
                }
                (4, _, _, body) => before += body.len(),
                _ => {}
            }
        }
        assert!(before < taken << 19, "N-4: {before} of {} bytes came first", taken << 20);
    });
}

#[test]
fn a_peer_that_takes_nothing_or_says_nothing_is_closed() {
    run(async {
        let limits = PeerLimits {
            write_deadline: Duration::from_millis(100),
            ping_after: Duration::from_millis(50),
            silence_max: Duration::from_secs(30),
            ..PeerLimits::default()
        };
        let s = start(How { node: 5, limits: limits.clone(), ..How::default() }).await;
        let mut x = Stranger::at(s.at).await;
        assert!(x.greet(&hello(9)).await.starts_with("PEER "));
        while s.hub.send(Node(9), Lane::Bulk, 3, Bytes::from(vec![1; 1 << 20])) {}
        eventually("it is closed", || s.notes.0.lock().contains(&Seen::Down(Node(9)))).await;
        assert!(s.logged("nothing was taken for"));

        let limits = PeerLimits { silence_max: Duration::from_millis(300), ..limits };
        let s = start(How { node: 6, limits, ..How::default() }).await;
        let mut x = Stranger::at(s.at).await;
        assert!(x.greet(&hello(9)).await.starts_with("PEER "));
        // Asked for a sign of life it gives one, for a while.
        for _ in 0..3 {
            let (lane, kind, _, token) = x.piece().await;
            assert_eq!((lane, kind), (0, 0), "a ping");
            let pong = Piece { lane: 0, kind: 1, more: false, body: &token };
            x.send(&[&header(&pong)[..], &token].concat()).await;
        }
        eventually("the round trip is known", || s.hub.links().iter().all(|l| !l.rtt.is_zero())).await;
        eventually("it is closed", || s.notes.0.lock().contains(&Seen::Down(Node(9)))).await;
        assert!(s.logged("nothing has come for"));
    });
}

#[test]
fn bad_bytes_end_the_link_and_nothing_else() {
    run(async {
        let s = start(How { node: 5, ..How::default() }).await;
        let good = Piece { lane: 2, kind: 1, more: false, body: b"abc" };
        let long = Piece { more: true, ..good };
        let whole = [&header(&good)[..], good.body].concat();
        let mut flipped = whole.clone();
        flipped[13] ^= 1;
        let other = [&header(&long)[..], b"abc", &header(&Piece { kind: 2, ..good }), b"abc"].concat();
        for (n, bad) in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), flipped, other].into_iter().enumerate() {
            let mut x = Stranger::at(s.at).await;
            assert!(x.greet(&hello(9)).await.starts_with("PEER "));
            x.send(&whole).await;
            x.send(&bad).await;
            while x.more().await {}
            eventually("the good one came", || s.frames(1).len() == n + 1).await;
            eventually("the link is gone", || !s.hub.is_up(Node(9))).await;
        }
        assert!(s.logged("a wrong checksum") && s.logged("a header that is none"));
        assert!(s.logged("pieces of different frames"));
        s.check_turns();
    });
}
