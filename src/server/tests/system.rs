//! What a whole server says under `$SYS`: events, requests, latencies, traces. Key lists are those of nats-server 2.15.1.

// Helpers outside of the test functions fail like them.
#![allow(clippy::unwrap_used)]

use std::{collections::VecDeque, io::Read, sync::Arc, time::Duration};

use env::net::TcpStream;
use serde_json::{Value, json};
use server::{
    Server,
    options::{
        AccountOptions, Export, ExportKind, Flags, Import, LatencyOptions, Mapping, MappingDestination,
        Options, ResponseType, TraceDestination, UserIdentity, UserOptions,
    },
};

/// How long anything may take that must come.
const PATIENCE: Duration = Duration::from_secs(10);

fn user(name: &str) -> UserOptions {
    UserOptions {
        identity: UserIdentity::Password { user: name.into(), password: Some("pw".into()) },
        permissions: None,
        connection_types: Default::default(),
        proxy_required: false,
    }
}

fn export(kind: ExportKind, subject: &str, sampling: Option<Option<u8>>) -> Export {
    Export {
        kind,
        subject: subject.into(),
        accounts: None,
        account_token_position: 0,
        response: ResponseType::Singleton,
        response_threshold: Some(Duration::from_millis(200)),
        latency: sampling.map(|sampling| LatencyOptions { sampling, subject: format!("lat.{subject}") }),
        allow_trace: subject.starts_with('t'),
    }
}

fn import(kind: ExportKind, subject: &str, to: Option<&str>, share: bool) -> Import {
    Import {
        kind,
        account: "A".into(),
        subject: subject.into(),
        to: to.map(Into::into),
        prefix: None,
        share,
        allow_trace: subject.starts_with('t'),
    }
}

/// Accounts `$SYS` (user sys), A (a, limited) and B (b), who imports from A.
fn options() -> Options {
    use ExportKind::{Service, Stream};
    let account = |name: &str, users: &[&str]| AccountOptions {
        name: name.into(),
        users: users.iter().map(|u| user(u)).collect(),
        ..AccountOptions::default()
    };
    let mut a = account("A", &["a", "limited"]);
    a.users[1].permissions = Some(server::options::Permissions {
        publish: Some(server::options::SubjectPermission {
            allow: Some(vec!["may.>".into()]),
            deny: Vec::new(),
        }),
        ..Default::default()
    });
    a.exports = vec![
        export(Service, "svc", Some(Some(100))),
        export(Service, "heads", Some(None)),
        export(Service, "tsvc", None),
        export(Stream, "st.>", None),
        export(Stream, "tst.>", None),
    ];
    a.trace = Some(TraceDestination { subject: "acc.trace".into(), sampling: 100 });
    let mut b = account("B", &["b"]);
    b.imports = vec![
        import(Service, "svc", Some("my.svc"), false),
        import(Service, "heads", None, true),
        import(Service, "tsvc", None, false),
        import(Stream, "st.>", Some("in.st.>"), false),
        import(Stream, "tst.>", None, false),
    ];
    let destination = MappingDestination { subject: "target".into(), weight: 100, cluster: None };
    b.mappings = vec![Mapping { source: "mapped".into(), destinations: vec![destination] }];
    Options {
        host: "127.0.0.1".into(),
        port: -1,
        server_name: Some("storm petrel".into()),
        server_tags: ["sea:north".to_string(), "x".to_string()].into(),
        accounts: vec![account("$SYS", &["sys"]), a, b],
        ..Options::default()
    }
}

/// Runs `f` with a server that listens.
fn with_server<F: Future<Output = ()>>(f: impl FnOnce(Arc<Server>) -> F) {
    env::run(async {
        let server = Server::new(options(), Flags::default()).unwrap();
        server.listen().await.unwrap();
        f(server.clone()).await;
        server.stop();
    })
    .unwrap();
}

#[derive(Debug)]
struct Msg {
    subject: String,
    reply: String,
    header: String,
    body: Vec<u8>,
}

impl Msg {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// A client that speaks bytes.
struct Peer {
    socket: TcpStream,
    buf: VecDeque<u8>,
    id: u64,
    server_id: String,
    /// Lines that are no messages.
    lines: Vec<String>,
    msgs: VecDeque<Msg>,
    sid: u32,
}

impl Peer {
    async fn connect(server: &Server, user: &str, password: &str) -> Peer {
        let address = server.bound.lock().client.unwrap();
        let socket = TcpStream::connect(address).await.unwrap();
        let (buf, lines, msgs) = Default::default();
        let mut p = Peer { socket, buf, id: 0, server_id: String::new(), lines, msgs, sid: 0 };
        let info = p.line().await;
        let info: Value = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
        p.id = info["client_id"].as_u64().unwrap();
        p.server_id = info["server_id"].as_str().unwrap().to_string();
        let connect = json!({
            "verbose": false, "headers": true, "no_responders": true, "protocol": 1, "echo": true,
            "user": user, "pass": password, "name": format!("n-{user}"), "lang": "rs", "version": "1.2",
        });
        p.send(format!("CONNECT {connect}\r\n").as_bytes()).await;
        p
    }
    /// A client that is let in.
    async fn new(server: &Server, user: &str) -> Peer {
        let mut p = Peer::connect(server, user, "pw").await;
        p.settle().await;
        p
    }
    async fn send(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            env::timeout(PATIENCE, self.socket.writable()).await.unwrap().unwrap();
            bytes = &bytes[self.socket.try_write(bytes).unwrap_or(0)..];
        }
    }
    /// More bytes. False at the end.
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
    async fn line(&mut self) -> String {
        loop {
            if let Some(i) =
                self.buf.iter().zip(self.buf.iter().skip(1)).position(|(a, b)| (*a, *b) == (13, 10))
            {
                let line: Vec<u8> = self.buf.drain(..i + 2).take(i).collect();
                return String::from_utf8(line).unwrap();
            }
            if !self.fill().await {
                return "EOF".to_string();
            }
        }
    }
    /// Reads one line, and the rest of the message if it is one.
    async fn step(&mut self) -> String {
        let line = self.line().await;
        let words: Vec<&str> = line.split(' ').collect();
        let (head, rest) = match words[0] {
            "MSG" => (1, &words[1..]),
            "HMSG" => (2, &words[1..]),
            "PING" => {
                self.send(b"PONG\r\n").await;
                return line;
            }
            _ => {
                self.lines.push(line.clone());
                return line;
            }
        };
        let number = |back: usize| rest[rest.len() - back].parse::<usize>().unwrap();
        let (size, header) = (number(1), if head == 2 { number(2) } else { 0 });
        let reply = if rest.len() == 3 + head { rest[2].to_string() } else { String::new() };
        let subject = rest[0].to_string();
        while self.buf.len() < size + 2 {
            assert!(self.fill().await);
        }
        let mut all: Vec<u8> = self.buf.drain(..size + 2).take(size).collect();
        let body = all.split_off(header);
        self.msgs.push_back(Msg { subject, reply, header: String::from_utf8(all).unwrap(), body });
        line
    }
    /// Waits until all that was sent is done, and all that it caused at once has come.
    async fn settle(&mut self) {
        self.send(b"PING\r\n").await;
        while self.step().await != "PONG" {}
    }
    async fn sub(&mut self, subject: &str) {
        self.sid += 1;
        self.send(format!("SUB {subject} {}\r\n", self.sid).as_bytes()).await;
        self.settle().await;
    }
    async fn publish(&mut self, subject: &str, reply: &str, header: &[(&str, &str)], body: &str) {
        let mut block = "NATS/1.0\r\n".to_string();
        for (k, v) in header {
            block += &format!("{k}: {v}\r\n");
        }
        block += "\r\n";
        let text = match header {
            [] => format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len()),
            _ => format!(
                "HPUB {subject} {reply} {} {}\r\n{block}{body}\r\n",
                block.len(),
                block.len() + body.len()
            ),
        };
        self.send(text.as_bytes()).await;
        self.settle().await;
    }
    /// The next message.
    async fn next(&mut self) -> Msg {
        while self.msgs.is_empty() {
            assert_ne!(self.step().await, "EOF");
        }
        self.msgs.pop_front().unwrap()
    }
    /// The next message to that subject; others before it are dropped.
    async fn next_on(&mut self, subject: &str) -> Msg {
        loop {
            let m = self.next().await;
            if m.subject == subject {
                return m;
            }
        }
    }
    /// Sends a request and waits for its answer.
    async fn ask_with(&mut self, subject: &str, header: &[(&str, &str)], body: &str) -> Msg {
        let inbox = format!("_INBOX.{}", self.sid + 1);
        self.sub(&inbox).await;
        self.publish(subject, &inbox, header, body).await;
        let m = self.next_on(&inbox).await;
        self.send(format!("UNSUB {}\r\n", self.sid).as_bytes()).await;
        m
    }
    async fn ask(&mut self, subject: &str, body: &str) -> Value {
        self.ask_with(subject, &[], body).await.json()
    }
    /// Asserts that a request stays unanswered while a later one is answered.
    async fn silent(&mut self, subject: &str, body: &str) {
        self.sub("_INBOX.none").await;
        self.publish(subject, "_INBOX.none", &[], body).await;
        self.ask("$SYS.REQ.SERVER.PING.IDZ", "").await;
        assert!(self.msgs.iter().all(|m| m.subject != "_INBOX.none"), "{subject} {body}: {:?}", self.msgs);
    }
}

fn keys(v: &Value) -> Vec<&str> {
    v.as_object().unwrap_or_else(|| panic!("no object: {v}")).keys().map(String::as_str).collect()
}

const SERVER: [&str; 10] =
    ["name", "host", "id", "ver", "tags", "feature_flags", "jetstream", "flags", "seq", "time"];
const STATSZ: [&str; 15] = [
    "start",
    "mem",
    "cores",
    "cpu",
    "connections",
    "total_connections",
    "active_accounts",
    "subscriptions",
    "sent",
    "sent_to_clients",
    "received",
    "received_from_clients",
    "slow_consumers",
    "active_servers",
    "gomaxprocs",
];

#[test]
fn connections_are_announced() {
    with_server(|server| async move {
        let mut sys = Peer::new(&server, "sys").await;
        sys.sub("$SYS.ACCOUNT.>").await;
        sys.sub("$SYS.SERVER.ACCOUNT.A.CONNS").await;
        let mut a = Peer::new(&server, "a").await;
        let (old, new) = (sys.next().await, sys.next().await);
        assert_eq!(old.subject, "$SYS.SERVER.ACCOUNT.A.CONNS");
        assert_eq!(new.subject, "$SYS.ACCOUNT.A.SERVER.CONNS");
        let conns = new.json();
        let want = [
            "type",
            "id",
            "timestamp",
            "server",
            "acc",
            "name",
            "conns",
            "leafnodes",
            "total_conns",
            "num_subscriptions",
            "sent",
            "received",
            "slow_consumers",
        ];
        assert_eq!(keys(&conns), want);
        assert_eq!(keys(&conns["server"]), SERVER);
        assert_eq!(keys(&conns["sent"]), ["msgs", "bytes", "gateways", "routes", "leafs"]);
        assert_eq!((&conns["acc"], &conns["conns"]), (&json!("A"), &json!(1)));
        assert_eq!(old.json()["id"], conns["id"]);
        let connect = sys.next().await;
        assert_eq!(connect.subject, "$SYS.ACCOUNT.A.CONNECT");
        let connect = connect.json();
        assert_eq!(keys(&connect), ["type", "id", "timestamp", "server", "client"]);
        assert_eq!(connect["type"], "io.nats.server.advisory.v1.client_connect");
        let client =
            ["start", "host", "id", "acc", "user", "name", "lang", "ver", "name_tag", "kind", "client_type"];
        assert_eq!(keys(&connect["client"]), client);
        assert_eq!(connect["client"]["id"], a.id);
        a.publish("foo", "", &[], "12345").await;
        a.socket.shutdown_write().unwrap();
        let bye = sys.next_on("$SYS.ACCOUNT.A.DISCONNECT").await.json();
        assert_eq!(keys(&bye), ["type", "id", "timestamp", "server", "client", "sent", "received", "reason"]);
        let client = [
            "start",
            "host",
            "id",
            "acc",
            "user",
            "name",
            "lang",
            "ver",
            "rtt",
            "stop",
            "name_tag",
            "kind",
            "client_type",
        ];
        assert_eq!(keys(&bye["client"]), client);
        // Told from the client's side.
        assert_eq!(bye["sent"], json!({"msgs": 1, "bytes": 5}));
        assert_eq!(bye["received"], json!({"msgs": 0, "bytes": 0}));
        assert_eq!(bye["reason"], "Client Closed");
    });
}

#[test]
fn refused_clients_are_announced() {
    with_server(|server| async move {
        let mut sys = Peer::new(&server, "sys").await;
        sys.sub("$SYS.SERVER.*.CLIENT.AUTH.ERR").await;
        sys.sub("$SYS.ACCOUNT.$G.DISCONNECT").await;
        let mut bad = Peer::connect(&server, "a", "wrong").await;
        assert_eq!(bad.line().await, "-ERR 'Authorization Violation'");
        for subject in
            [format!("$SYS.SERVER.{}.CLIENT.AUTH.ERR", server.id()), "$SYS.ACCOUNT.$G.DISCONNECT".into()]
        {
            let m = sys.next().await;
            assert_eq!(m.subject, subject);
            let v = m.json();
            assert_eq!(v["type"], "io.nats.server.advisory.v1.client_disconnect");
            assert_eq!(v["reason"], "Authentication Failure");
            assert_eq!((&v["client"]["user"], &v["client"]["acc"]), (&json!("a"), &json!("$G")));
            assert_eq!(v["client"]["name"], "n-a");
        }
    });
}

#[test]
fn y1_nothing_is_made_that_nobody_hears() {
    with_server(|server| async move {
        for _ in 0..10 {
            Peer::new(&server, "a").await;
        }
        let mut sys = Peer::new(&server, "sys").await;
        // Each message about the server has a number: this is the first.
        let v = sys.ask("$SYS.REQ.SERVER.PING.STATSZ", "").await;
        assert_eq!(v["server"]["seq"], 1);
    });
}

#[test]
fn servers_answer_for_themselves() {
    with_server(|server| async move {
        let mut sys = Peer::new(&server, "sys").await;
        let id = sys.server_id.clone();
        for who in ["PING", &id] {
            let v = sys.ask(&format!("$SYS.REQ.SERVER.{who}.IDZ"), "").await;
            assert_eq!(v, json!({"name": "storm petrel", "host": "127.0.0.1", "id": id}));
            let v = sys.ask(&format!("$SYS.REQ.SERVER.{who}.STATSZ"), "").await;
            assert_eq!(keys(&v), ["server", "statsz"]);
            assert_eq!(keys(&v["statsz"]), STATSZ);
            for x in [
                "VARZ",
                "SUBSZ",
                "CONNZ",
                "ROUTEZ",
                "GATEWAYZ",
                "LEAFZ",
                "ACCOUNTZ",
                "JSZ",
                "HEALTHZ",
                "PROFILEZ",
                "EXPVARZ",
                "IPQUEUESZ",
                "RAFTZ",
            ] {
                let v = sys.ask(&format!("$SYS.REQ.SERVER.{who}.{x}"), "").await;
                assert_eq!(keys(&v), ["server", "data"], "{x}");
                assert_eq!(keys(&v["server"]), SERVER);
            }
        }
        assert_eq!(keys(&sys.ask("$SYS.REQ.SERVER.PING", "").await), ["server", "statsz"]);
        // Nobody is there for what no server knows.
        for subject in
            ["$SYS.REQ.SERVER.PING.NOPE", "$SYS.REQ.SERVER.NOBODY.IDZ", "$SYS.REQ.SERVER.PING.KICK"]
        {
            assert!(sys.ask_with(subject, &[], "").await.header.starts_with("NATS/1.0 503\r\n"), "{subject}");
        }
    });
}

#[test]
fn requests_choose_servers() {
    with_server(|server| async move {
        let mut sys = Peer::new(&server, "sys").await;
        for yes in [
            r#"{"server_name":"petrel"}"#,
            r#"{"server_name":"storm petrel","exact_match":true}"#,
            r#"{"host":"127"}"#,
            r#"{"tags":["SEA:NORTH","x"]}"#,
            r#"{"tags":[],"domain":"","cluster":""}"#,
            "null",
        ] {
            assert_eq!(sys.ask("$SYS.REQ.SERVER.PING.HEALTHZ", yes).await["data"]["status"], "ok", "{yes}");
        }
        for no in [
            r#"{"server_name":"petrel","exact_match":true}"#,
            r#"{"host":"9"}"#,
            r#"{"cluster":"c"}"#,
            r#"{"domain":"d"}"#,
            r#"{"tags":["x","y"]}"#,
        ] {
            for subject in
                ["$SYS.REQ.SERVER.PING.HEALTHZ", "$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.CONNZ"]
            {
                sys.silent(subject, no).await;
            }
        }
        for (body, why) in [
            ("{bad", "invalid character 'b' looking for beginning of object key string"),
            (
                r#"{"limit":"a"}"#,
                "json: cannot unmarshal string into Go struct field ConnzEventOptions.limit of type int",
            ),
            ("[]", "json: cannot unmarshal array into Go value of type server.ConnzEventOptions"),
        ] {
            let v = sys.ask("$SYS.REQ.SERVER.PING.CONNZ", body).await;
            assert_eq!(keys(&v), ["server", "error"]);
            assert_eq!(v["error"], json!({"code": 400, "description": why}));
        }
        let v = sys.ask("$SYS.REQ.SERVER.PING.CONNZ", r#"{"sort":"nope"}"#).await;
        assert_eq!(keys(&v), ["server", "data", "error"]);
        assert_eq!(v["error"], json!({"code": 500, "description": "invalid sorting option: nope"}));
        assert!(v["data"].is_null());
    });
}

#[test]
fn answers_are_compressed_where_that_is_asked_for() {
    with_server(|server| async move {
        let mut sys = Peer::new(&server, "sys").await;
        let subject = "$SYS.REQ.SERVER.PING.VARZ";
        let mut answers = Vec::new();
        for (asks, says) in [("gzip", "gzip"), ("snappy", "snappy"), ("s2", "snappy"), ("br", "identity")] {
            let m = sys.ask_with(subject, &[("Accept-Encoding", asks)], "").await;
            assert_eq!(m.header, format!("NATS/1.0\r\nContent-Encoding: {says}\r\n\r\n"));
            let mut text = Vec::new();
            match says {
                "gzip" => flate2::read::GzDecoder::new(&m.body[..]).read_to_end(&mut text).map(drop).unwrap(),
                "snappy" => {
                    snap::read::FrameDecoder::new(&m.body[..]).read_to_end(&mut text).map(drop).unwrap()
                }
                _ => text = m.body,
            }
            answers.push(serde_json::from_slice::<Value>(&text).unwrap()["data"]["server_id"].clone());
        }
        assert!(answers.iter().all(|a| a == server.id()));
        assert_eq!(sys.ask_with(subject, &[], "").await.header, "");
        // Small answers never are.
        assert_eq!(
            sys.ask_with("$SYS.REQ.SERVER.PING.IDZ", &[("Accept-Encoding", "gzip")], "").await.header,
            ""
        );
    });
}

#[test]
fn clients_are_kicked_and_sent_away() {
    with_server(|server| async move {
        let mut sys = Peer::new(&server, "sys").await;
        let of = |what: &str| format!("$SYS.REQ.SERVER.{}.{what}", server.id());
        let mut a = Peer::new(&server, "a").await;
        let v = sys.ask(&of("LDM"), &json!({ "cid": a.id }).to_string()).await;
        assert_eq!(keys(&v), ["server"]);
        a.settle().await;
        let infos = a.lines.iter().filter_map(|l| l.strip_prefix("INFO "));
        assert!(infos.into_iter().any(|i| serde_json::from_str::<Value>(i).unwrap()["ldm"] == true));
        let v = sys.ask(&of("KICK"), &json!({ "cid": a.id }).to_string()).await;
        assert_eq!(keys(&v), ["server"]);
        while a.step().await != "EOF" {}
        for (what, why) in [("KICK", "no such client or leafnode id"), ("LDM", "no such client id")] {
            let v = sys.ask(&of(what), r#"{"cid":999999}"#).await;
            assert_eq!(keys(&v), ["server", "error"]);
            assert_eq!(v["error"], json!({"code": 500, "description": why}));
            for bad in ["", "{bad", r#"{"cid":"x"}"#, r#"{"cid":-1}"#] {
                sys.silent(&of(what), bad).await;
            }
        }
        // There is no file to read again.
        assert_eq!(sys.ask(&of("RELOAD"), "").await["error"]["code"], 500);
    });
}

#[test]
fn accounts_are_described() {
    with_server(|server| async move {
        let mut sys = Peer::new(&server, "sys").await;
        let mut a = Peer::new(&server, "a").await;
        a.sub("foo").await;
        a.sub("bar.* q").await;
        for x in ["SUBSZ", "CONNZ", "LEAFZ", "INFO", "STATZ"] {
            let v = sys.ask(&format!("$SYS.REQ.ACCOUNT.A.{x}"), "").await;
            assert_eq!(keys(&v), ["server", "data"], "{x}");
        }
        assert_eq!(sys.ask("$SYS.REQ.ACCOUNT.A.CONNZ", "").await["data"]["connections"][0]["cid"], a.id);
        assert_eq!(sys.ask("$SYS.REQ.ACCOUNT.A.CONNS", "").await["conns"], 1);
        let v = sys.ask("$SYS.REQ.ACCOUNT.PING.STATZ", r#"{"accounts":["A","zz"]}"#).await;
        assert_eq!(v["data"]["account_statz"].as_array().map(Vec::len), Some(1));
        assert_eq!(v["data"]["account_statz"][0]["acc"], "A");
        sys.silent("$SYS.REQ.ACCOUNT.PING.STATZ", r#"{"accounts":["zz"]}"#).await;
        let v = sys.ask("$SYS.REQ.ACCOUNT.Z.INFO", "").await;
        assert_eq!(v["error"], json!({"code": 500, "description": "Account Z does not exist"}));
        let v = sys.ask("$SYS.REQ.ACCOUNT.A.JSZ", "").await;
        assert_eq!(v["error"], json!({"code": 500, "description": "jetstream not enabled"}));
        sys.silent("$SYS.REQ.ACCOUNT.Z.STATZ", "").await;
        sys.silent("$SYS.REQ.ACCOUNT.Z.CONNS", "").await;
        sys.silent("$SYS.REQ.ACCOUNT.NSUBS", "").await;
        sys.silent("$SYS.REQ.ACCOUNT.NSUBS", r#"{"acc":"A"}"#).await;
        for (subject, n) in [("foo", 1), ("bar.x", 1), ("none", 0)] {
            let body = json!({ "acc": "A", "subject": subject }).to_string();
            assert_eq!(sys.ask("$SYS.REQ.ACCOUNT.NSUBS", &body).await, n);
        }
        sys.sub("sys.foo").await;
        for (body, n) in [("sys.foo", 1), ("sys.*", 1), ("sys.foo q", 0), ("foo", 0), ("", 0)] {
            assert_eq!(sys.ask("$SYS.DEBUG.SUBSCRIBERS", body).await, n, "{body}");
        }
    });
}

#[test]
fn y2_accounts_see_only_themselves() {
    with_server(|server| async move {
        let mut sys = Peer::new(&server, "sys").await;
        let (_a, mut b) = (Peer::new(&server, "a").await, Peer::new(&server, "b").await);
        for body in ["", r#"{"accounts":["A"],"include_unused":true}"#] {
            let v = b.ask("$SYS.REQ.ACCOUNT.PING.STATZ", body).await;
            let list = v["data"]["account_statz"].as_array().unwrap();
            assert!(list.len() == 1 && list[0]["acc"] == "B", "{list:?}");
        }
        for subject in ["$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.SERVER.PING.CONNZ"] {
            for body in ["".to_string(), r#"{"acc":"A"}"#.into(), r#"{"ACC":"A","auth":true}"#.into()] {
                let v = b.ask(subject, &body).await;
                let list = v["data"]["connections"].as_array().unwrap();
                assert!(list.len() == 1 && list[0]["cid"] == b.id, "{list:?}");
            }
            let v = sys.ask("$SYS.REQ.SERVER.PING.CONNZ", "").await;
            assert_eq!(v["data"]["num_connections"], 3);
        }
        for subject in ["$SYS.REQ.SERVER.PING.STATSZ", "$SYS.REQ.ACCOUNT.A.CONNZ", "$SYS.REQ.SERVER.PING"] {
            assert!(b.ask_with(subject, &[], "").await.header.starts_with("NATS/1.0 503\r\n"), "{subject}");
        }
        let v = b.ask("$SYS.REQ.USER.INFO", "").await;
        assert_eq!(keys(&v), ["server", "data"]);
        assert_eq!(v["data"], json!({"user": "b", "account": "B", "account_name": "B"}));
        assert_eq!(sys.ask("$SYS.REQ.USER.INFO", "").await["data"]["account"], "$SYS");
        // An account that comes later has them too.
        let late = server.broker.account_or_new("late");
        assert!(late.has_interest(b"$SYS.REQ.USER.INFO"));
    });
}

#[test]
fn y3_floods_of_requests_are_answered_or_counted() {
    const N: usize = 20_000;
    with_server(|server| async move {
        let mut sys = Peer::new(&server, "sys").await;
        sys.sub("in").await;
        let flood = b"PUB $SYS.REQ.SERVER.PING.IDZ in 0\r\n\r\n".repeat(N);
        sys.send(&flood).await;
        sys.settle().await;
        // Those that were taken last are answered after the others of this connection.
        while sys.msgs.len() + (server.events.requests_dropped() as usize) < N {
            assert_ne!(sys.step().await, "EOF");
        }
        assert_eq!(sys.msgs.len() + server.events.requests_dropped() as usize, N);
        assert!(sys.msgs.iter().all(|m| m.subject == "in"));
    });
}

#[test]
fn statistics_come_by_themselves() {
    with_server(|server| async move {
        let mut sys = Peer::new(&server, "sys").await;
        sys.sub("$SYS.SERVER.*.STATSZ").await;
        let v = sys.next().await.json();
        assert_eq!(keys(&v), ["server", "statsz"]);
        // A ping without a reply asks for more.
        sys.publish("$SYS.REQ.SERVER.PING", "", &[], "").await;
        assert_eq!(keys(&sys.next().await.json()["statsz"]), STATSZ);
        // What seldom is, is left out.
        server.broker.stats.slow_consumers.add(1);
        server.broker.stats.stale.add(1);
        let v = sys.ask("$SYS.REQ.SERVER.PING.STATSZ", "").await;
        let seldom = ["slow_consumer_stats", "stale_connections", "stale_connection_stats"];
        let at = STATSZ.iter().position(|k| *k == "slow_consumers").unwrap() + 1;
        let all = [&STATSZ[..at], &seldom, &STATSZ[at..]].concat();
        assert_eq!(keys(&v["statsz"]), all);
        let one = json!({"clients": 1, "routes": 0, "gateways": 0, "leafs": 0});
        assert_eq!(
            (&v["statsz"]["slow_consumer_stats"], &v["statsz"]["stale_connection_stats"]),
            (&one, &one)
        );
    });
}

#[test]
fn the_end_is_announced() {
    env::run(async {
        let quick = Duration::from_millis(1);
        let o = Options { lame_duck_duration: quick, lame_duck_grace_period: quick, ..options() };
        let server = Server::new(o, Flags::default()).unwrap();
        let runs = {
            let server = server.clone();
            env::spawn(async move { server.run().await })
        };
        while server.bound.lock().client.is_none() {
            env::sleep(Duration::from_millis(1)).await;
        }
        let mut sys = Peer::new(&server, "sys").await;
        sys.sub("$SYS.SERVER.*.LAMEDUCK").await;
        sys.sub("$SYS.SERVER.*.SHUTDOWN").await;
        server.lame_duck().await;
        assert_eq!(keys(&sys.next_on(&format!("$SYS.SERVER.{}.LAMEDUCK", server.id())).await.json()), SERVER);
        assert_eq!(runs.await.unwrap(), 0);
    })
    .unwrap();
    env::run(async {
        let server = Server::new(options(), Flags::default()).unwrap();
        let runs = {
            let server = server.clone();
            env::spawn(async move { server.run().await })
        };
        while server.bound.lock().client.is_none() {
            env::sleep(Duration::from_millis(1)).await;
        }
        let mut sys = Peer::new(&server, "sys").await;
        sys.sub("$SYS.SERVER.*.SHUTDOWN").await;
        server.stop();
        assert_eq!(keys(&sys.next().await.json()), SERVER);
        assert_eq!(runs.await.unwrap(), 0);
    })
    .unwrap();
}

const METRIC: [&str; 10] =
    ["type", "id", "timestamp", "status", "requestor", "responder", "start", "service", "system", "total"];
const SHARED: [&str; 12] =
    ["start", "host", "id", "acc", "user", "name", "lang", "ver", "rtt", "server", "kind", "client_type"];

#[test]
fn latencies_are_measured() {
    with_server(|server| async move {
        let (mut a, mut b) = (Peer::new(&server, "a").await, Peer::new(&server, "b").await);
        let mut watch = Peer::new(&server, "a").await;
        watch.sub("lat.>").await;
        a.sub("svc").await;
        a.sub("heads").await;
        b.sub("inbox").await;
        // Sampled always, not shared.
        b.publish("my.svc", "inbox", &[], "hi").await;
        let m = a.next().await;
        let info = m.header.strip_prefix("NATS/1.0\r\nNats-Request-Info: ").unwrap().trim_end();
        let info: Value = serde_json::from_str(info).unwrap();
        assert_eq!((keys(&info), &info["acc"]), (vec!["acc", "rtt"], &json!("B")));
        a.publish(&m.reply, "", &[], "ok").await;
        assert_eq!(b.next().await.body, b"ok");
        let v = watch.next_on("lat.svc").await.json();
        assert_eq!(keys(&v), METRIC);
        assert_eq!(
            (&v["type"], &v["status"]),
            (&json!("io.nats.server.metric.v1.service_latency"), &json!(200))
        );
        assert_eq!(keys(&v["requestor"]), ["acc", "rtt"]);
        assert_eq!(keys(&v["responder"]), SHARED);
        let n = |of: &Value| of.as_u64().unwrap();
        let parts =
            n(&v["service"]) + n(&v["system"]) + n(&v["requestor"]["rtt"]) + n(&v["responder"]["rtt"]);
        assert!(n(&v["service"]) == 0 || n(&v["total"]) == parts, "{v}");
        // By header, shared.
        b.publish("heads", "inbox", &[], "").await;
        let m = a.next().await;
        a.publish(&m.reply, "", &[], "unmeasured").await;
        b.publish("heads", "inbox", &[("X-B3-TraceId", "abc"), ("X-B3-Sampled", "1"), ("X", "y")], "").await;
        let m = a.next().await;
        let info = m.header.split("Nats-Request-Info: ").nth(1).unwrap().trim_end();
        assert_eq!(keys(&serde_json::from_str(info).unwrap()), SHARED);
        a.publish(&m.reply, "", &[], "ok").await;
        let v = watch.next_on("lat.heads").await.json();
        assert_eq!(v["header"], json!({"X-B3-Sampled": ["1"], "X-B3-Traceid": ["abc"]}));
        assert_eq!(keys(&v["requestor"]), SHARED);
        // Without a place for the answer, without an answer in time, and without anybody to answer.
        let bare = [
            "type",
            "id",
            "timestamp",
            "status",
            "description",
            "requestor",
            "start",
            "service",
            "system",
            "total",
        ];
        for (reply, serves, status, why) in [
            ("", true, 400, "Bad Request"),
            ("inbox", true, 504, "Service Timeout"),
            ("inbox", false, 503, "Service Unavailable"),
        ] {
            if !serves {
                a.send(b"UNSUB 1\r\n").await;
                a.settle().await;
            }
            b.publish("my.svc", reply, &[], "").await;
            let v = watch.next_on("lat.svc").await.json();
            assert_eq!(keys(&v), bare);
            assert_eq!((&v["status"], &v["description"]), (&json!(status), &json!(why)));
            assert_eq!((&v["total"], &v["service"]), (&json!(0), &json!(0)));
        }
    });
}

/// The steps of a trace, without times and ids.
fn steps(v: &Value) -> Vec<Value> {
    let mut list = v["events"].as_array().unwrap().clone();
    for e in &mut list {
        let e = e.as_object_mut().unwrap();
        for key in ["ts", "cid"] {
            e.remove(key);
        }
    }
    list
}

#[test]
fn b7_messages_are_traced_and_trace_only_reaches_nobody() {
    with_server(|server| async move {
        let (mut a, mut b) = (Peer::new(&server, "a").await, Peer::new(&server, "b").await);
        for s in ["foo", "foo q", "svc", "tsvc", "to", "acc.trace"] {
            a.sub(s).await;
        }
        for s in ["in.st.>", "tst.>", "target", "to"] {
            b.sub(s).await;
        }
        let dest = ("Nats-Trace-Dest", "to");
        let came = |who: &str, acc: &str, subj: &str| json!({"type": "in", "kind": 0, "name": who, "acc": acc, "subj": subj});
        let went = |who: &str, sub: &str| json!({"type": "eg", "kind": 0, "name": who, "sub": sub});
        let went_in = |who: &str, acc: &str, sub: &str| json!({"type": "eg", "kind": 0, "name": who, "acc": acc, "sub": sub});
        let mut queue = went("n-a", "foo");
        queue["queue"] = json!("q");
        let si = |from: &str, to: &str| json!({"type": "si", "acc": "A", "from": from, "to": to});
        let se = |to: &str| json!({"type": "se", "acc": "B", "to": to});
        let info =
            json!({"type": "si", "acc": "$SYS", "from": "$SYS.REQ.USER.INFO", "to": "$SYS.REQ.USER.B.INFO"});
        for (from_a, subject, delivered, want) in [
            (true, "foo", 2, vec![came("n-a", "A", "foo"), went("n-a", "foo"), queue]),
            (true, "nobody", 0, vec![came("n-a", "A", "nobody")]),
            // What crosses into another account is told; what happens there only if that is allowed.
            (true, "st.1", 1, vec![came("n-a", "A", "st.1"), se("in.st.1")]),
            (true, "tst.1", 1, vec![came("n-a", "A", "tst.1"), se("tst.1"), went_in("n-b", "B", "tst.>")]),
            (false, "my.svc", 1, vec![came("n-b", "B", "my.svc"), si("my.svc", "svc")]),
            (
                false,
                "tsvc",
                1,
                vec![came("n-b", "B", "tsvc"), si("tsvc", "tsvc"), went_in("n-a", "A", "tsvc")],
            ),
            (
                false,
                "mapped",
                1,
                vec![
                    came("n-b", "B", "mapped"),
                    json!({"type": "sm", "to": "target"}),
                    went("n-b", "target"),
                ],
            ),
            (false, "$SYS.REQ.USER.INFO", 0, vec![came("n-b", "B", "$SYS.REQ.USER.INFO"), info]),
        ] {
            // B-7: the same trace, but nobody gets the message.
            for only in [false, true] {
                let headers = if only { &[dest, ("Nats-Trace-Only", "true")][..] } else { &[dest][..] };
                let from = if from_a { &mut a } else { &mut b };
                from.publish(subject, "", headers, "hello").await;
                a.settle().await;
                b.settle().await;
                let (traces, messages): (Vec<_>, Vec<_>) =
                    a.msgs.drain(..).chain(b.msgs.drain(..)).partition(|m| m.subject == "to");
                assert_eq!(traces.len(), 1, "{subject}");
                let v = traces[0].json();
                assert_eq!(keys(&v), ["server", "request", "events"]);
                assert_eq!(steps(&v), want, "{subject}");
                assert_eq!(v["request"]["header"]["Nats-Trace-Dest"], json!(["to"]));
                let size = 10 + "Nats-Trace-Dest: to\r\n".len() + 2 + 5;
                if !only {
                    assert_eq!(v["request"]["msgsize"], size);
                }
                assert_eq!(messages.len(), if only { 0 } else { delivered }, "{subject}");
                for m in messages.iter().filter(|m| m.subject == "svc") {
                    assert!(
                        m.header.ends_with("\r\nNats-Trace-Dest: trace disabled\r\n\r\n"),
                        "{}",
                        m.header
                    );
                }
            }
        }
        // A sampled traceparent is enough where the account says so.
        for (account_traces, flag) in [(true, "01"), (false, "00")] {
            let parent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flag}");
            a.publish("foo", "", &[("traceparent", &parent)], "").await;
            assert_eq!(
                a.msgs.drain(..).filter(|m| m.subject == "acc.trace").count(),
                usize::from(account_traces)
            );
        }
        // Not every header is a wish.
        for headers in [
            &[("Nats-Trace-Dest", "trace disabled")][..],
            &[("nats-trace-dest", "to")][..],
            &[("Nats-Trace-Only", "1")][..],
            &[("Nats-Trace-Dest", "")][..],
        ] {
            a.publish("foo", "", headers, "").await;
            let got: Vec<_> = a.msgs.drain(..).map(|m| m.subject).collect();
            assert_eq!(got, ["foo", "foo"], "{headers:?}");
        }
        a.publish("foo", "", &[dest, ("Nats-Trace-Origin-Account", "X")], "").await;
        let got: Vec<_> = a.msgs.drain(..).collect();
        assert_eq!(got.len(), 2);
        assert!(got[0].header.ends_with("\r\nNats-Trace-Dest: trace disabled\r\n\r\n"));
        // Traces are compressed for those who take that.
        a.publish("foo", "", &[dest, ("Accept-Encoding", "gzip")], "").await;
        let m = a.msgs.drain(..).find(|m| m.subject == "to").unwrap();
        assert!(m.header.contains("Content-Encoding: gzip") && m.body.starts_with(&[0x1f, 0x8b]));
    });
}

#[test]
fn traces_need_permission() {
    with_server(|server| async move {
        let mut a = Peer::new(&server, "a").await;
        a.sub("may.>").await;
        let mut limited = Peer::new(&server, "limited").await;
        // A destination that he may not publish to: nothing happens.
        limited.publish("may.x", "", &[("Nats-Trace-Dest", "to")], "").await;
        assert_eq!(limited.lines.pop().as_deref(), Some("PONG"));
        assert_eq!(
            limited.lines.pop().as_deref(),
            Some("-ERR 'Permissions Violation for Publish to \"to\"'")
        );
        // A subject that he may not publish to: the trace says so.
        limited.publish("not.x", "", &[("Nats-Trace-Dest", "may.trace")], "").await;
        let m = a.next().await;
        assert_eq!(m.subject, "may.trace");
        let error = "Permissions Violation for Publish to \"not.x\"";
        let want = json!({"type": "in", "kind": 0, "name": "n-limited", "acc": "A", "subj": "not.x", "error": error});
        assert_eq!(steps(&m.json()), [want]);
    });
}
