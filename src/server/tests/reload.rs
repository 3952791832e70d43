//! What a reload does to clients that are connected: texts and outcomes as observed on nats-server 2.15.1. Where this
//! server is kinder on purpose, the test says so.
#![allow(clippy::unwrap_used, clippy::disallowed_macros)]

mod loopback;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use broker::Closed;
use env::disk::Disk;
use loopback::{CONNECT, Wire, end_of, eventually, with_user};
use server::{
    Server,
    options::{Command, flags},
};

const GONE: &str = "-ERR 'Authorization Violation'\r\n";

/// A server whose configuration can be written anew.
struct Reloading {
    server: Arc<Server>,
    path: PathBuf,
}

impl Reloading {
    async fn start(dir: &Path, config: &str) -> Reloading {
        let path = dir.join("test.conf");
        write(&path, config).await;
        let text = Disk::os().read(&path).await.unwrap();
        let source = conf::Memory {
            files: [(path.to_string_lossy().into_owned(), text)].into(),
            ..conf::Memory::default()
        };
        let args: Vec<String> =
            ["nats-server", "-c", &path.to_string_lossy()].into_iter().map(String::from).collect();
        let Command::Run(start) = flags::command(&args, &source) else { panic!("{config}") };
        let server = Server::new(start.options, start.flags).unwrap();
        server.listen().await.unwrap();
        Reloading { server, path }
    }
    async fn reload(&self, config: &str) {
        write(&self.path, config).await;
        self.server.reload().await.unwrap();
    }
    async fn user(&self, name: &str) -> Wire {
        Wire::connect(&self.server, &with_user(name, "x")).await
    }
}

async fn write(path: &Path, config: &str) {
    let text = format!("listen: \"127.0.0.1:-1\"\n{config}\n");
    Disk::os().write_atomic(path, text.into_bytes()).await.unwrap();
}

/// Runs a test in a directory of its own.
fn test<F: Future<Output = ()>>(name: &str, config: &str, f: impl FnOnce(Reloading) -> F) {
    env::run(async {
        let dir = std::env::temp_dir().join(format!("fulmar-reload-{name}-{}", env::process::id()));
        Disk::os().create_dir_all(&dir).await.unwrap();
        let r = Reloading::start(&dir, config).await;
        let server = r.server.clone();
        f(r).await;
        server.stop();
        Disk::os().remove_dir_all(&dir).await.unwrap();
    })
    .unwrap();
}

fn users(list: &str) -> String {
    format!("authorization {{ users = [ {list} ] }}")
}

#[test]
fn users_that_are_gone_or_elsewhere_are_closed_without_a_word() {
    let accounts = |a: &str, b: &str| format!("accounts {{ A {{ users = [{a}] }}, B {{ users = [{b}] }} }}");
    let x = |n: &str| format!("{{user: {n}, password: x}}");
    let before = accounts(&[x("gone"), x("moved"), x("stays")].join(", "), &x("other"));
    test("gone", &before, async |r| {
        let (mut gone, mut moved) = (r.user("gone").await, r.user("moved").await);
        let (mut stays, mut other) = (r.user("stays").await, r.user("other").await);
        r.reload(&accounts(&x("stays"), &[x("moved"), x("other")].join(", "))).await;
        assert_eq!((gone.rest().await, moved.rest().await), (String::new(), String::new()));
        assert_eq!(end_of(&r.server, gone.id).await, Closed::ClientClosed);
        assert_eq!((stays.ask("").await, other.ask("").await), (String::new(), String::new()));
        // A user who has moved logs in where it belongs now.
        let moved = r.user("moved").await;
        assert_eq!(&*r.server.broker.link(moved.id).unwrap().account().unwrap().name, "B");
    });
}

#[test]
fn changed_credentials_are_an_authorization_violation() {
    test("password", &users("{user: a, password: x}, {user: b, password: x}"), async |r| {
        let (mut a, mut b) = (r.user("a").await, r.user("b").await);
        r.reload(&users("{user: a, password: y}, {user: b, password: x}")).await;
        assert_eq!(a.rest().await, GONE);
        assert_eq!(end_of(&r.server, a.id).await, Closed::AuthenticationFailure);
        assert_eq!(b.ask("").await, "");
        r.reload(&users(
            "{user: b, password: x, allowed_connection_types: [WEBSOCKET]}, {user: c, password: x}",
        ))
        .await;
        assert_eq!(b.rest().await, GONE);
    });
    test("token", "authorization { token: t }", async |r| {
        let mut t =
            Wire::connect(&r.server, r#"CONNECT {"verbose":false,"protocol":1,"auth_token":"t"}"#).await;
        r.reload("max_payload: 1000\nauthorization { token: t }").await;
        assert_eq!(t.ask("").await, "");
        r.reload("authorization { token: u }").await;
        assert_eq!(t.rest().await, GONE);
    });
    // nats-server closes the single user at every reload, and without a word: here it stays unless it has changed.
    test("single", "authorization { user: a, password: x }", async |r| {
        let mut a = r.user("a").await;
        r.reload("max_payload: 1000\nauthorization { user: a, password: x }").await;
        assert_eq!(a.ask("").await, "");
        r.reload("authorization { user: a, password: y }").await;
        assert_eq!(a.rest().await, GONE);
    });
}

#[test]
fn an_open_server_that_asks_for_logins_turns_away_who_has_none() {
    test("open", "max_payload: 1000", async |r| {
        let (mut logged_in, mut greeted) =
            (Wire::connect(&r.server, CONNECT).await, Wire::greeted(&r.server).await);
        r.reload(&users("{user: a, password: x}")).await;
        assert_eq!((logged_in.rest().await, greeted.rest().await), (GONE.into(), GONE.into()));
        let mut a = r.user("a").await;
        // And back: a user who is nobody any more is closed; whoever comes is welcome.
        r.reload("max_payload: 1000").await;
        assert_eq!(a.rest().await, "");
        Wire::connect(&r.server, CONNECT).await;
    });
}

#[test]
fn l11_permissions_hold_at_once_and_subscriptions_that_they_forbid_are_gone() {
    let with = |c: &str, d: &str| {
        users(&format!("{{user: c, password: x, permissions: {{{c}}}}}, {{user: d, password: x{d}}}"))
    };
    let before = with(r#"publish: "p.>", subscribe: ["s.>", "t.>"]"#, "");
    test("permissions", &before, async |r| {
        let (mut c, mut d) = (r.user("c").await, r.user("d").await);
        let subscribed = c.ask("SUB s.1 1\r\nSUB t.1 2\r\nSUB s.q q 3\r\nSUB t.q qq 4\r\n").await;
        assert_eq!(subscribed, "");
        assert_eq!(d.ask("SUB foo 1\r\nSUB > 2\r\nSUB foo queue 3\r\n").await, "");
        // Both subjects are in the cache of what c may publish.
        let refused = "-ERR 'Permissions Violation for Publish to \"q.1\"'\r\n";
        assert_eq!(c.ask("PUB p.1 0\r\n\r\nPUB q.1 0\r\n\r\n").await, refused);
        assert_eq!(d.ask("").await, "MSG p.1 2 0\r\n\r\n");
        r.reload(&with(
            r#"publish: "q.>", subscribe: "s.>""#,
            r#", permissions: {subscribe: {deny: "foo"}}"#,
        ))
        .await;
        // Not awaiting the errors first: what comes after the reload is judged by it.
        let answer = c.ask("PUB p.1 0\r\n\r\nPUB q.1 0\r\n\r\n").await;
        assert_eq!(
            answer,
            "-ERR 'Permissions Violation for Subscription to \"t.1\" (sid \"2\")'\r\n\
             -ERR 'Permissions Violation for Subscription to \"t.q\" using queue \"qq\" (sid \"4\")'\r\n\
             -ERR 'Permissions Violation for Publish to \"p.1\"'\r\n"
        );
        assert_eq!(
            d.ask("PUB foo 0\r\n\r\nPUB bar 0\r\n\r\n").await,
            "-ERR 'Permissions Violation for Subscription to \"foo\" (sid \"1\")'\r\n\
             -ERR 'Permissions Violation for Subscription to \"foo\" using queue \"queue\" (sid \"3\")'\r\n\
             MSG q.1 2 0\r\n\r\nMSG bar 2 0\r\n\r\n"
        );
        let d_link = r.server.broker.link(d.id).unwrap();
        assert_eq!((d_link.subscriptions(), r.server.broker.link(c.id).unwrap().subscriptions()), (1, 2));
        // What was denied in part is whole again.
        r.reload(&with(r#"publish: "q.>", subscribe: "s.>""#, "")).await;
        assert_eq!(d.ask("PUB foo 0\r\n\r\n").await, "MSG foo 2 0\r\n\r\n");
    });
}

#[test]
fn default_permissions_reach_those_without_their_own() {
    let config = |subject: &str| {
        format!(
            "authorization {{ default_permissions: {{subscribe: {subject}}}, users = [{{user: a, password: x}}] }}"
        )
    };
    test("defaults", &config("foo"), async |r| {
        let mut a = r.user("a").await;
        a.ask("SUB foo 1\r\n").await;
        r.reload(&config("bar")).await;
        assert_eq!(
            a.ask("SUB bar 2\r\n").await,
            "-ERR 'Permissions Violation for Subscription to \"foo\" (sid \"1\")'\r\n"
        );
    });
}

#[test]
fn granted_replies_survive_a_reload_that_leaves_the_permissions_alone() {
    let config = |max: u32| {
        format!(
            "max_payload: {max}\n{}",
            users(
                "{user: service, password: x, permissions: {subscribe: q, allow_responses: true}}, {user: c, password: x}"
            )
        )
    };
    test("replies", &config(1000), async |r| {
        let (mut service, mut c) = (r.user("service").await, r.user("c").await);
        service.ask("SUB q 1\r\n").await;
        c.ask("SUB answer 1\r\nPUB q answer 0\r\n\r\n").await;
        assert_eq!(service.ask("").await, "MSG q 1 answer 0\r\n\r\n");
        r.reload(&config(2000)).await;
        assert_eq!(service.ask("PUB answer 2\r\nok\r\n").await, "");
        assert_eq!(c.ask("").await, "MSG answer 1 2\r\nok\r\n");
    });
}

#[test]
fn limits_apply_to_those_who_are_here() {
    test("limits", "max_payload: 1000", async |r| {
        let mut large = Wire::connect(&r.server, CONNECT).await;
        let mut long = Wire::connect(&r.server, CONNECT).await;
        let mut early = Wire::greeted(&r.server).await;
        r.reload("max_payload: 10\nmax_control_line: 50").await;
        assert!(large.send("PUB foo 11\r\nhello world\r\n").await);
        assert_eq!(large.rest().await, "-ERR 'Maximum Payload Violation'\r\n");
        assert_eq!(end_of(&r.server, large.id).await, Closed::MaximumMessagePayloadExceeded);
        assert!(long.send(format!("SUB {} 1\r\n", "x".repeat(60))).await);
        assert_eq!(long.rest().await, "-ERR 'maximum control line exceeded'\r\n");
        // Whoever has not sent CONNECT yet meets the new limits as well.
        assert!(early.send("PUB foo 11\r\nhello world\r\n").await);
        assert_eq!(early.rest().await, "-ERR 'Maximum Payload Violation'\r\n");
    });
}

#[test]
fn those_over_a_lowered_limit_of_connections_are_closed() {
    let config = |max: &str, account: &str| {
        format!("{max}\naccounts {{ A {{ users = [{{user: a, password: x}}], limits {{{account}}} }} }}")
    };
    test("connections", &config("", ""), async |r| {
        let mut all = [r.user("a").await, r.user("a").await, r.user("a").await, r.user("a").await];
        r.reload(&config("max_connections: 3", "")).await;
        assert_eq!(all[3].rest().await, "-ERR 'maximum connections exceeded'\r\n");
        assert_eq!(end_of(&r.server, all[3].id).await, Closed::MaximumConnectionsExceeded);
        r.reload(&config("max_connections: 3", "max_conn: 1")).await;
        for w in &mut all[1..3] {
            assert_eq!(w.rest().await, "-ERR 'maximum account active connections exceeded'\r\n");
            assert_eq!(end_of(&r.server, w.id).await, Closed::MaximumAccountConnectionsExceeded);
        }
        assert_eq!(all[0].ask("SUB foo 1\r\nSUB bar 2\r\n").await, "");
        r.reload(&config("", "max_subs: 2, max_payload: 5")).await;
        assert_eq!(all[0].ask("SUB baz 3\r\n").await, "-ERR 'maximum subscriptions exceeded'\r\n");
        r.reload(&config("", "max_subs: 1")).await;
        assert_eq!(all[0].rest().await, "-ERR 'maximum subscriptions exceeded'\r\n");
        assert_eq!(end_of(&r.server, all[0].id).await, Closed::MaximumSubscriptionsExceeded);
    });
}

#[test]
fn mappings_imports_and_exports_apply() {
    let config = |mapping: &str, import: &str, export: &str| {
        format!(
            "accounts {{ A {{ users = [{{user: a, password: x}}], imports = [{import}] }}
                         B {{ users = [{{user: b, password: x}}], exports = [{export}], mappings {{{mapping}}} }} }}"
        )
    };
    let import = |s: &str| format!("{{stream: {{account: B, subject: {s}}}}}");
    let export = "{stream: \"e.*\"}";
    test("imports", &config("", "", ""), async |r| {
        let (mut a, mut b) = (r.user("a").await, r.user("b").await);
        a.ask("SUB > 1\r\n").await;
        b.ask("SUB renamed 1\r\n").await;
        assert_eq!(b.ask("PUB e.1 0\r\n\r\nPUB old 0\r\n\r\n").await, "");
        assert_eq!(a.ask("").await, "");
        r.reload(&config("old: renamed", &import("e.1"), export)).await;
        assert_eq!(
            b.ask("PUB e.1 0\r\n\r\nPUB e.2 0\r\n\r\nPUB old 0\r\n\r\n").await,
            "MSG renamed 1 0\r\n\r\n"
        );
        assert_eq!(a.ask("").await, "MSG e.1 1 0\r\n\r\n");
        r.reload(&config("", &import("e.2"), export)).await;
        assert_eq!(b.ask("PUB e.1 0\r\n\r\nPUB e.2 0\r\n\r\nPUB old 0\r\n\r\n").await, "");
        assert_eq!(a.ask("").await, "MSG e.2 1 0\r\n\r\n");
        r.reload(&config("", "", "")).await;
        b.ask("PUB e.2 0\r\n\r\n").await;
        assert_eq!(a.ask("").await, "");
    });
}

#[test]
fn a_reload_that_is_refused_changes_nothing() {
    let good = users("{user: a, password: x, permissions: {subscribe: \"s.>\"}}");
    test("refused", &good, async |r| {
        let mut a = r.user("a").await;
        let settings = r.server.links.settings();
        for bad in [
            "authorization { users = [ {user: a, password: y ".to_string(),
            format!("max_payload: 5\nlame_duck_duration: 40s\n{good}"),
            "accounts { A { imports = [{stream: {account: NOBODY, subject: x}}] } }".to_string(),
            "tls { cert_file: \"nowhere.pem\", key_file: \"nowhere.key\" }".to_string(),
        ] {
            write(&r.path, &bad).await;
            let e = r.server.reload().await.unwrap_err();
            assert!(!e.is_empty());
            assert!(Arc::ptr_eq(&settings, &r.server.links.settings()), "{bad}: {e}");
            assert_eq!(a.ask("SUB s.1 1\r\n").await, "", "{bad}");
        }
    });
}

#[test]
fn a_reload_amid_logins_leaves_nobody_in_who_may_not_be() {
    // A bcrypt hash takes a while to check, so that reloads fall between CONNECT and its answer.
    let hash = "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i";
    let open = users(&format!("{{user: a, password: \"{hash}\"}}, {{user: b, password: x}}"));
    let shut = users("{user: b, password: x}");
    test("amid", &open, async |r| {
        for _ in 0..20 {
            r.reload(&open).await;
            let mut all = Vec::new();
            for _ in 0..5 {
                let w = Wire::greeted(&r.server).await;
                assert!(w.send(format!("{}\r\nPING\r\n", with_user("a", "abc"))).await);
                all.push(w);
            }
            r.reload(&shut).await;
            for w in &mut all {
                w.drain().await;
            }
            eventually("nobody is left", || r.server.links.clients.is_empty()).await;
        }
    });
}

mod certificates {
    use super::*;
    use std::io::{Read, Write};

    use rustls::{
        ClientConfig, ClientConnection, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName},
    };

    struct Pair {
        der: Vec<u8>,
        cert: String,
        key: String,
    }

    fn pair() -> Pair {
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        Pair { der: made.cert.der().to_vec(), cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// Shakes hands and returns the certificate that the server showed.
    async fn shown(s: &Server, trusted: &[&Pair]) -> (Vec<u8>, Wire) {
        let mut roots = RootCertStore::empty();
        for p in trusted {
            roots.add(CertificateDer::from(p.der.clone())).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut w = Wire::greeted(s).await;
        while tls.is_handshaking() {
            let mut out = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut out).unwrap();
            }
            assert!(w.send(&out).await);
            if tls.is_handshaking() {
                assert!(w.more().await);
                let got = w.take();
                let mut got = &got[..];
                while !got.is_empty() {
                    tls.read_tls(&mut got).unwrap();
                    tls.process_new_packets().unwrap();
                }
            }
        }
        // And it is a NATS server.
        tls.writer().write_all(format!("{CONNECT}\r\nPING\r\n").as_bytes()).unwrap();
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out).unwrap();
        }
        assert!(w.send(&out).await);
        let mut text = String::new();
        while !text.starts_with("PONG\r\n") {
            assert!(w.more().await);
            let got = w.take();
            let mut got = &got[..];
            while !got.is_empty() {
                tls.read_tls(&mut got).unwrap();
                tls.process_new_packets().unwrap();
                let mut some = [0; 4096];
                let n = tls.reader().read(&mut some).unwrap_or(0);
                text += std::str::from_utf8(&some[..n]).unwrap();
            }
        }
        (tls.peer_certificates().unwrap()[0].to_vec(), w)
    }

    #[test]
    fn certificates_are_renewed_for_new_connections() {
        let dir = std::env::temp_dir().join(format!("fulmar-reload-certs-{}", env::process::id()));
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        let tls = format!("tls {{ cert_file: {cert:?}, key_file: {key:?} }}");
        env::run(async {
            let disk = Disk::os();
            disk.create_dir_all(&dir).await.unwrap();
            let store = async |p: &Pair| {
                disk.write_atomic(&cert, p.cert.clone().into_bytes()).await.unwrap();
                disk.write_atomic(&key, p.key.clone().into_bytes()).await.unwrap();
            };
            let (first, second) = (pair(), pair());
            let r = Reloading::start(&dir, "max_payload: 1000").await;
            let mut plain = Wire::connect(&r.server, CONNECT).await;
            store(&first).await;
            r.reload(&tls).await;
            // Whoever is here goes on without TLS, as with nats-server.
            assert_eq!(plain.ask("").await, "");
            assert_eq!(shown(&r.server, &[&first, &second]).await.0, first.der);
            store(&second).await;
            // The files alone change nothing.
            let (cert, open) = shown(&r.server, &[&first, &second]).await;
            assert_eq!(cert, first.der);
            let old = Arc::downgrade(&r.server.links.settings());
            r.reload(&tls).await;
            // The one that is open keeps its session, and nothing of the old settings.
            assert_eq!((old.strong_count(), r.server.broker.link(open.id).is_some()), (0, true));
            assert_eq!(shown(&r.server, &[&first, &second]).await.0, second.der);
            // Files that do not fit together leave the old pair in force.
            disk.write_atomic(&key, first.key.clone().into_bytes()).await.unwrap();
            assert!(r.server.reload().await.is_err());
            assert_eq!(shown(&r.server, &[&first, &second]).await.0, second.der);
            r.server.stop();
            disk.remove_dir_all(&dir).await.unwrap();
        })
        .unwrap();
    }
}

#[test]
fn jetstream_goes_on_and_off_and_its_limits_follow() {
    // In the directory of the test, and with it removed.
    let dir = std::env::temp_dir().join(format!("fulmar-reload-jetstream-{}/store", env::process::id()));
    let with = |limits: &str| format!("jetstream {{ store_dir: {:?}, {limits} }}", dir.display());
    test("jetstream", "", async |r| {
        let address = r.server.bound.lock().client.unwrap();
        let js = async_nats::jetstream::new(async_nats::connect(address.to_string()).await.unwrap());
        let publish =
            async || js.publish("s", vec![b'x'; 2000].into()).await.unwrap().await.map(|a| a.sequence);
        r.reload(&with("max_file: 5000")).await;
        let config = async_nats::jetstream::stream::Config {
            name: "S".into(),
            subjects: vec!["s".into()],
            ..Default::default()
        };
        js.create_stream(config).await.unwrap();
        for seq in 1..=3 {
            assert_eq!(publish().await.unwrap(), seq);
        }
        publish().await.expect_err("the server is full");
        write(&r.path, &with("max_file: 4000")).await;
        let refused = r.server.reload().await.unwrap_err();
        assert!(refused.contains("decreasing jetstream max memory and store"), "{refused}");
        r.reload(&with("max_file: 1MB, limits { max_ack_pending: 7 }")).await;
        assert_eq!(publish().await.unwrap(), 4);
        let asked = async_nats::jetstream::consumer::pull::Config {
            durable_name: Some("d".into()),
            ..Default::default()
        };
        let c = js.create_consumer_on_stream(asked, "S").await.unwrap();
        assert_eq!(c.cached_info().config.max_ack_pending, 7);
        r.reload("").await;
        js.get_stream("S").await.expect_err("nobody answers");
        r.reload(&with("max_file: 1MB")).await;
        assert_eq!(js.get_stream("S").await.unwrap().cached_info().state.messages, 4);
        assert_eq!(publish().await.unwrap(), 5);
        r.reload("").await;
    });
}

/// What has come into a log since it had `from` bytes, without times, addresses and ids.
async fn said(log: &Path, from: usize) -> (usize, Vec<String>) {
    let all = Disk::os().read(log).await.unwrap();
    let text = String::from_utf8_lossy(&all[from..]).into_owned();
    let lines = text.lines().filter_map(|l| {
        let (_, rest) = l.split_once("[TRC] ").or_else(|| l.split_once("[DBG] "))?;
        let (who, what) = rest.split_once(" - ")?;
        assert!(who.starts_with("127.0.0.1:"), "{l}");
        let (mark, what) = what.split_once(" - ")?;
        assert!(mark.starts_with("cid:"), "{l}");
        // The server's own PING comes when it wants to.
        let is_ping = what.ends_with("Client Ping Timer") || what.ends_with("->> [PING]");
        (!is_ping).then(|| what.to_string())
    });
    (all.len(), lines.collect())
}

#[test]
fn protocol_lines_are_logged_as_nats_server_logs_them_and_a_reload_turns_them_on_and_off() {
    let log = std::env::temp_dir().join(format!("fulmar-trace-{}.log", env::process::id()));
    let config = |more: &str| {
        format!(
            "log_file: {log:?}\naccounts {{ A {{ users = [{{user: a, password: x}}] }}, $SYS {{ users = [{{user: s, password: x}}] }} }}\n{more}"
        )
    };
    test("trace", &config(""), async |r| {
        let connect = r#"CONNECT {"verbose":true,"headers":true,"user":"a","pass":"x","name":"n"}"#;
        let mut a = Wire::greeted(&r.server).await;
        assert_eq!(a.ask(&format!("{connect}\r\nPUB x 1\r\nx\r\n")).await, "+OK\r\n+OK\r\n");
        let (at, lines) = said(&log, 0).await;
        assert_eq!(lines, Vec::<String>::new());
        r.reload(&config("debug: true, trace: true")).await;
        let long = "PUB none 1\r\nx\r\nSUB y 2\r\nUNSUB 2 1\r\nPUB y 2\r\nab\r\n";
        let all = format!(
            "SUB x 1\r\nPUB x r 1\r\n\"\r\nHPUB x 12 14\r\nNATS/1.0\r\n\r\nab\r\nSUB b..c 3\r\nUNSUB 1\r\n{long}"
        );
        a.ask(&all).await;
        let (at, lines) = said(&log, at).await;
        let who = "\"n\" - \"A/user:a\" - ";
        let plain = |lines: &[String]| lines.iter().map(|l| l.replacen(who, "", 1)).collect::<Vec<_>>();
        assert!(lines.iter().all(|l| l.starts_with(who)), "{lines:?}");
        assert_eq!(
            plain(&lines),
            [
                "<<- [SUB x 1]",
                "->> [OK]",
                "<<- [PUB x r 1]",
                r#"<<- MSG_PAYLOAD: ["\""]"#,
                "->> [OK]",
                "->> [MSG x 1 r 1]",
                r#"->> MSG_PAYLOAD: ["\""]"#,
                "<<- [HPUB x 12 14]",
                r#"<<- MSG_PAYLOAD: ["NATS/1.0\r\n\r\nab"]"#,
                "->> [OK]",
                "->> [HMSG x 1 12 14]",
                r#"->> MSG_PAYLOAD: ["NATS/1.0\r\n\r\nab"]"#,
                "<<- [SUB b..c 3]",
                "->> [-ERR Invalid Subject]",
                "<<- [UNSUB 1]",
                "->> [OK]",
                "<-> [DELSUB 1]",
                "<<- [PUB none 1]",
                r#"<<- MSG_PAYLOAD: ["x"]"#,
                "->> [OK]",
                "<<- [SUB y 2]",
                "->> [OK]",
                "<<- [UNSUB 2 1]",
                "->> [OK]",
                "<<- [PUB y 2]",
                r#"<<- MSG_PAYLOAD: ["ab"]"#,
                "->> [OK]",
                "->> [MSG y 2 2]",
                r#"->> MSG_PAYLOAD: ["ab"]"#,
                "<-> [DELSUB 2]",
                "<<- [PING]",
                "->> [PONG]",
            ]
        );
        // Secrets are left out; the system account is left out without trace_verbose.
        let mut b = Wire::greeted(&r.server).await;
        b.ask(&format!("{connect}\r\nSUB z 1\r\n")).await;
        let id = b.id;
        drop(b);
        end_of(&r.server, id).await;
        let mut s = Wire::greeted(&r.server).await;
        s.ask("CONNECT {\"verbose\":false,\"user\":\"s\",\"pass\":\"x\"}\r\nPUB sys 1\r\nx\r\n").await;
        let (at, lines) = said(&log, at).await;
        let login = connect.replace("\"pass\":\"x\"", "\"pass\":\"[REDACTED]\"");
        let own = plain(&lines[..9]);
        assert_eq!(
            own,
            [
                "Client connection created".to_string(),
                format!("<<- [{login}]"),
                "->> [OK]".into(),
                "<<- [SUB z 1]".into(),
                "->> [OK]".into(),
                "<<- [PING]".into(),
                "->> [PONG]".into(),
                "Client connection closed: Client Closed".into(),
                "<-> [DELSUB 1]".into(),
            ]
        );
        assert!(lines[9..].iter().all(|l| !l.contains("sys") && !l.contains("\"x\"")), "{lines:?}");
        // Less of each, and of everybody.
        r.reload(&config("trace_verbose: true, max_traced_msg_len: 2")).await;
        s.ask("PUB sys 3\r\nabc\r\n").await;
        let (at, lines) = said(&log, at).await;
        assert!(lines.iter().any(|l| l.ends_with("<<- [PUB sys 3]")), "{lines:?}");
        assert!(lines.iter().any(|l| l.ends_with("<<- MSG_PAYLOAD: [\"ab...\"]")), "{lines:?}");
        r.reload(&config("trace_headers: true")).await;
        a.ask("HPUB x 12 14\r\nNATS/1.0\r\n\r\nab\r\nPUB x 1\r\nq\r\n").await;
        let (at, lines) = said(&log, at).await;
        let shown = plain(&lines);
        assert_eq!(
            shown[..4],
            ["<<- [HPUB x 12 14]", "<<- MSG_PAYLOAD: [\"NATS/1.0\"]", "->> [OK]", "<<- [PUB x 1]"]
        );
        r.reload(&config("")).await;
        a.ask("PUB x 1\r\nq\r\n").await;
        assert_eq!(said(&log, at).await.1, Vec::<String>::new());
        Disk::os().remove_file(&log).await.ok();
    });
}

#[test]
fn what_goes_wrong_is_logged_as_nats_server_logs_it() {
    let log = std::env::temp_dir().join(format!("fulmar-wrong-{}.log", env::process::id()));
    let config = format!(
        "log_file: {log:?}\nmax_subs: 1\nmax_payload: 65536\nmax_pending: 131072\naccounts {{ A {{ limits {{max_connections: 3}}, users = [\
         {{user: a, password: x}}, {{user: few, password: x, permissions: {{publish: [y], subscribe: [z]}}}}] }} }}"
    );
    test("wrong", &config, async |r| {
        let mut few = r.user("few").await;
        few.ask("PUB x 1\r\nx\r\nPUB y $JS.ACK.x 1\r\nx\r\nSUB x 1\r\nSUB x q 2\r\n").await;
        let mut slow = r.user("a").await;
        slow.ask("SUB big 1\r\nSUB other 2\r\nSUB other 3\r\n").await;
        let a = r.user("a").await;
        let mut over = Wire::greeted(&r.server).await;
        over.send(format!("{}\r\n", with_user("a", "x"))).await;
        over.rest().await;
        let mut bad = Wire::greeted(&r.server).await;
        bad.send(
            r#"CONNECT {"user":"a","pass":"y","name":"n","lang":"l","version":"1"}"#.to_string() + "\r\n",
        )
        .await;
        bad.rest().await;
        let mut early = Vec::new();
        for first in ["PING\r\n", "GET / HTTP/1.1\r\n"] {
            let mut w = Wire::greeted(&r.server).await;
            w.send(first).await;
            w.rest().await;
            early.push(w.id);
        }
        // Whoever reads nothing is noticed, when as much is on its way as sockets hold.
        let message = format!("PUB big 20000\r\n{}\r\n", "x".repeat(20_000));
        while r.server.links.clients.closed().iter().all(|c| c.id != slow.id) {
            assert!(a.send(&message).await);
        }
        few.send("PUB y 70000\r\n").await;
        few.rest().await;
        end_of(&r.server, few.id).await;
        let all = Disk::os().read(&log).await.unwrap();
        let all = String::from_utf8_lossy(&all).into_owned();
        let of = |id: u64| -> Vec<&str> {
            let mark = format!(" - cid:{id} - ");
            let marked = all.lines().filter(|l| l.contains(&mark) && !l.contains("[DBG]"));
            marked.filter_map(|l| Some(l.split_once(&mark)?.1)).collect()
        };
        let who = r#""A/user:few" - "#;
        assert_eq!(
            of(few.id),
            [
                format!("{who}Publish Violation - Subject \"x\""),
                format!("{who}Publish Violation - Reply \"$JS.ACK.x\""),
                format!("{who}Subscription Violation - Subject \"x\", SID 1"),
                format!("{who}Subscription Violation - Subject \"x\", Queue: \"q\", SID 2"),
                format!("{who}maximum payload exceeded: 70000 vs 65536"),
            ]
        );
        let who = r#""A/user:a" - "#;
        assert_eq!(
            of(slow.id),
            [
                // Once, however often it happens.
                format!("{who}maximum subscriptions exceeded"),
                format!("{who}Slow Consumer Detected: MaxPending of 131072 Exceeded"),
            ]
        );
        assert_eq!(of(a.id), [r#""A/user:a" - Producer was stalled for a total of 5ms"#]);
        // Who is not let in is not called what he says.
        assert_eq!(of(over.id), ["maximum account active connections exceeded"]);
        assert_eq!(of(bad.id), ["authentication error - User \"a\""]);
        assert!(early.iter().all(|id| of(*id) == ["authentication error"]));
        Disk::os().remove_file(&log).await.ok();
    });
}

#[test]
fn a_reload_asks_for_nothing_that_a_start_would_refuse() {
    test("unsupported", "", async |r| {
        write(&r.path, "syslog: true").await;
        let refused = r.server.reload().await.unwrap_err();
        assert!(refused.contains("not yet supported"), "{refused}");
        r.reload("max_payload: 1000").await;
    });
}

#[test]
fn who_came_without_credentials_stays_as_long_as_its_user_is_the_same() {
    let config = |pass: &str| {
        format!(
            "{}\nno_auth_user: a",
            users(&format!("{{user: a, password: {pass}}}, {{user: b, password: x}}"))
        )
    };
    test("stand-in", &config("x"), async |r| {
        let (mut none, mut b) = (Wire::connect(&r.server, CONNECT).await, r.user("b").await);
        r.reload(&format!("{}\nmax_payload: 1000", config("x"))).await;
        assert_eq!(none.ask("").await, "");
        r.reload(&config("y")).await;
        assert_eq!(none.rest().await, GONE);
        assert_eq!(end_of(&r.server, none.id).await, Closed::AuthenticationFailure);
        // The user may go, and what stood in with it.
        let mut none = Wire::connect(&r.server, CONNECT).await;
        r.reload(&users("{user: b, password: x}")).await;
        assert_eq!(none.rest().await, "");
        assert_eq!(b.ask("").await, "");
    });
}

#[test]
fn a_file_of_ports_comes_and_goes() {
    let dir = std::env::temp_dir().join(format!("fulmar-ports-{}", env::process::id()));
    test("ports", "max_payload: 1000", async |r| {
        Disk::os().create_dir_all(&dir).await.unwrap();
        let files = async || Disk::os().read_dir(&dir).await.map_or(0, |l| l.len());
        r.reload(&format!("ports_file_dir: {dir:?}")).await;
        assert_eq!(files().await, 1);
        r.reload("max_payload: 1000").await;
        assert_eq!(files().await, 0);
        Disk::os().remove_dir_all(&dir).await.ok();
    });
}
