//! What the engine sends where others say does nothing that they may not do themselves.

use std::collections::BTreeMap;

use broker::rules::{Export, Import, Responses, Rules};

use super::*;

const EVENTS: &str = "$JS.EVENT.ADVISORY.>";

impl Server {
    /// What stands in the log of events since the last look.
    fn events(&self) -> Vec<Value> {
        let mut all = self.inbox.got.lock();
        let (events, others) = all.drain(..).partition(|g| g.subject == EVENTS);
        *all = others;
        events.iter().map(|g: &Got| serde_json::from_str(&g.body).expect("JSON")).collect()
    }
    fn totals(&self) -> (u64, u64) {
        let assets = self.node.assets(&self.account);
        (assets.api_total.get(), assets.api_errors.get())
    }
    /// Returns when what was sent has been carried out, as far as it is at all.
    async fn settles(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        env::sleep(Duration::from_millis(20)).await;
    }
}

/// Whoever asks says where the answer goes: that makes it no request of the API, no acknowledgement and no flow control.
#[test]
fn b11_answers_and_deliveries_are_no_requests() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let s = server.make_stream(r#"{"name":"S","subjects":["s.>"],"allow_direct":true}"#).await;
        let x = server.make_stream(r#"{"name":"X","subjects":["x.>"]}"#).await;
        server.make_consumer("S", "c", r#"{"durable_name":"c","ack_policy":"explicit"}"#).await;
        server.store("x.1", "keep me").await;
        server.store("s.1", "").await;
        let held = server.pull("S", "c", r#"{"batch":1}"#);
        let ack = server.wait(&held, 1).await[0].reply.clone();
        server.publish("s.2", "", "+TERM");
        server.until("two are stored", || (s.group().state().msgs == 2).then_some(())).await;
        let before = server.totals();
        server.subscribe(EVENTS);
        let (delete, purge) = ("$JS.API.STREAM.DELETE.X", "$JS.API.STREAM.PURGE.X");
        // A pull, a direct get by each way, an acknowledgement's confirmation, a publish's, and the API itself.
        for (to, reply, body) in [
            ("$JS.API.CONSUMER.MSG.NEXT.S.c", delete, ""),
            ("$JS.API.CONSUMER.MSG.NEXT.S.c", delete, r#"{"batch":1,"no_wait":true}"#),
            ("$JS.API.DIRECT.GET.S.s.1", delete, ""),
            ("$JS.API.DIRECT.GET.S", delete, r#"{"seq":1}"#),
            ("$JS.API.DIRECT.GET.S", purge, r#"{"seq":1}"#),
            ("$JS.API.DIRECT.GET.S", &ack, r#"{"seq":2}"#),
            ("$JS.API.DIRECT.GET.S.s.2", &ack, ""),
            ("$JS.API.DIRECT.GET.S.s.9", "$JS.FC.S.c.1", ""),
            (&ack, delete, "+WPI"),
            ("s.3", purge, "x"),
        ] {
            assert!(server.publish(to, reply, body) > 0, "{to}");
            server.settles().await;
        }
        assert_eq!(server.totals(), before, "none of it was a request");
        assert_eq!(server.publish("$JS.API.INFO", "$JS.API.INFO", ""), 1);
        server.settles().await;
        assert_eq!(server.totals(), (before.0 + 1, before.1), "its answer is none");
        assert_eq!(x.group().state().msgs, 1);
        assert_eq!(server.consumer_info("S", "c").await["num_ack_pending"], 1, "nothing was acknowledged");
        assert_eq!(server.events().iter().filter(|e| e["type"] != AUDIT).count(), 0);
        // Nor where somebody listens there as well: he gets it, and that is all.
        server.subscribe(delete);
        assert!(server.publish("$JS.API.CONSUMER.MSG.NEXT.S.c", delete, r#"{"batch":1}"#) > 0);
        assert_eq!(server.wait(delete, 1).await[0].body, "+TERM");
        // And not what is published again.
        let again =
            r#"{"name":"R","subjects":["r.>"],"republish":{"src":"r.>","dest":"$JS.API.STREAM.PURGE.>"}}"#;
        server.make_stream(again).await;
        server.store("r.X", "").await;
        server.settles().await;
        assert_eq!(x.group().state().msgs, 1);
        // Whoever asks as anybody does is heard.
        assert_eq!(server.api("STREAM.DELETE.X", "").await["success"], true);
        server.close().await;
    })
    .expect("a runtime starts");
}

const AUDIT: &str = "io.nats.jetstream.advisory.v1.api_audit";

/// A deliver subject, or a reply subject, that only a stream or a service takes is one that nobody listens to.
#[test]
fn j28_consumers_deliver_to_those_who_have_subscribed() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["s.>"]}"#).await;
        let w = server.make_stream(r#"{"name":"W","subjects":["w.>"]}"#).await;
        let z = server.make_stream(r#"{"name":"Z","subjects":["z"]}"#).await;
        for i in 0..3 {
            server.store("s.1", &i.to_string()).await;
        }
        let push =
            |to: &str| format!(r#"{{"durable_name":"p","deliver_subject":"{to}","ack_policy":"none"}}"#);
        server.make_consumer("S", "p", &push("w.1")).await;
        let other = push("$JS.API.STREAM.DELETE.Z").replace("\"p\"", "\"d\"");
        server.make_consumer("S", "d", &other).await;
        // Nor does one that only hears it among others.
        server.make_consumer("S", "v", &push("v.1").replace("\"p\"", "\"v\"")).await;
        server.subscribe("v.*");
        server.make_consumer("S", "c", r#"{"durable_name":"c","ack_policy":"explicit"}"#).await;
        server.publish("$JS.API.CONSUMER.MSG.NEXT.S.c", "w.2", r#"{"batch":3}"#);
        server.settles().await;
        for c in ["p", "d", "c", "v"] {
            let info = server.consumer_info("S", c).await;
            let bound = info["push_bound"].as_bool().unwrap_or(false);
            assert_eq!(
                (&info["num_pending"], &info["num_waiting"], bound),
                (&3.into(), &0.into(), false),
                "{c}"
            );
        }
        assert_eq!((w.group().state().msgs, z.group().state().msgs), (0, 0));
        assert!(server.api("STREAM.INFO.Z", "").await["error"].is_null());
        // Somebody comes: now it is delivered, also to whoever else takes it.
        server.subscribe("w.1");
        assert_eq!(server.wait("w.1", 3).await.len(), 3);
        assert_eq!(server.consumer_info("S", "p").await["push_bound"], true);
        server.subscribe("v.1");
        assert!(server.wait("v.1", 3).await.len() >= 3);
        server.until("the stream has them too", || (w.group().state().msgs == 3).then_some(())).await;
        server.close().await;
    })
    .expect("a runtime starts");
}

fn export(service: bool, subject: &str) -> Export {
    Export {
        service,
        subject: subject.into(),
        accounts: None,
        account_token: 0,
        responses: Responses::One,
        threshold: Duration::from_secs(5),
        latency: None,
        allow_trace: false,
    }
}

fn import(service: bool, subject: &str, to: Option<&str>) -> Import {
    let (account, to) = ("A".into(), to.map(Into::into));
    Import { service, account, subject: subject.into(), to, share: false, allow_trace: false }
}

/// A client of another account on the same server.
fn neighbour(server: &Server, name: &str) -> Server {
    let (node, broker) = (server.node.clone(), server.broker.clone());
    let account = broker.account_or_new(name);
    node.set_account(&account, Some(AccountLimits::default()));
    let inbox = Arc::new(Inbox::default());
    let link = Link::new(LinkOptions {
        id: broker.next_id(),
        kind: Kind::Internal,
        worker: 0,
        pending_bytes_max: 0,
        transport: None,
        inbound: Some(Box::new(Ear(inbox.clone()))),
    });
    let posts = Posts::new(broker.clone(), link.clone(), account.clone());
    let s = Server { node, account, broker, link, posts, inbox, asked: Mutex::new(0) };
    s.subscribe("_INBOX.>");
    s
}

/// What B imports of A, how it names A's stream, and whether that lets it copy.
#[test]
fn j29_another_accounts_stream_is_copied_by_imports_of_its_api_and_deliveries() {
    env::run(async {
        let api = || import(true, "$JS.API.>", Some("fromA.>"));
        let only = |s: &str| {
            import(true, &format!("$JS.API.CONSUMER.CREATE.{s}"), Some(&format!("fromA.CONSUMER.CREATE.{s}")))
        };
        let deliver = || import(false, "deliver.>", None);
        let (right, deliver_right) = ("fromA", "deliver.B");
        for (n, (imports, api, deliver, copies)) in [
            (vec![api(), deliver()], right, deliver_right, true),
            (vec![only("SECRET"), deliver()], right, deliver_right, true),
            (
                vec![import(true, "$JS.API.>", Some("$JS.A.API.>")), deliver()],
                "$JS.A.API",
                deliver_right,
                true,
            ),
            // A service that has nothing to do with the API.
            (vec![import(true, "svc.>", None)], "svc", "any", false),
            (vec![import(true, "svc.>", None), deliver()], "svc", deliver_right, false),
            (vec![import(true, "svc.>", Some("$JS.A.API.>")), deliver()], "$JS.A.API", deliver_right, false),
            // Not the prefix under which the API is.
            (vec![api(), deliver()], "fromA.$JS.API", deliver_right, false),
            // The API for another stream, or another part of it.
            (vec![only("PUBLIC"), deliver()], right, deliver_right, false),
            (
                vec![import(true, "$JS.API.STREAM.INFO.>", Some("fromA.STREAM.INFO.>")), deliver()],
                right,
                deliver_right,
                false,
            ),
            // Nothing brings the deliveries here, or under another subject.
            (vec![api()], right, deliver_right, false),
            (vec![api(), deliver()], right, "nodeliver", false),
            (vec![api(), import(false, "deliver.>", Some("mine.>"))], right, deliver_right, false),
            (vec![api(), import(false, "deliver.>", Some("mine.>"))], right, "mine.B", false),
            (vec![api(), deliver()], right, "", false),
        ]
        .into_iter()
        .enumerate()
        {
            let broker = Arc::new(Broker::default());
            let exports = vec![
                export(true, "$JS.API.>"),
                export(true, "svc.>"),
                export(true, "$JS.FC.>"),
                export(false, "deliver.>"),
            ];
            let mut imports = imports;
            imports.push(import(true, "$JS.FC.>", None));
            let (a, b) = (Rules { exports, ..Rules::default() }, Rules { imports, ..Rules::default() });
            broker.configure(&BTreeMap::from([("A".into(), a), ("B".into(), b)])).expect("the rules fit");
            let a = Server::start_in(&new_disk(), broker, "A").await;
            let b = neighbour(&a, "B");
            a.make_stream(r#"{"name":"SECRET","subjects":["a.>"]}"#).await;
            a.store("a.x", "top secret").await;
            let origin = format!(r#"{{"name":"SECRET","external":{{"api":"{api}","deliver":"{deliver}"}}}}"#);
            let m = b.make_stream(&format!(r#"{{"name":"M","mirror":{origin}}}"#)).await;
            let c = b.make_stream(&format!(r#"{{"name":"C","sources":[{origin}]}}"#)).await;
            let copied = || m.group().state().msgs + c.group().state().msgs;
            if copies {
                b.until(&format!("case {n} is copied"), || (copied() == 2).then_some(())).await;
            } else {
                env::sleep(Duration::from_millis(400)).await;
                assert_eq!(copied(), 0, "case {n}");
                let info = b.api("STREAM.INFO.C", "").await;
                assert_eq!(info["sources"][0]["active"], -1, "case {n}: {info}");
            }
            a.close().await;
        }
    })
    .expect("a runtime starts");
}

/// A name that is no name would otherwise stand in the subject of a request.
#[test]
fn a_mirror_of_an_impossible_name_asks_nobody() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.subscribe("svc.>");
        let external = r#""external":{"api":"svc","deliver":"d"}"#;
        let m = format!(r#"{{"name":"M","mirror":{{"name":"a b\r\nPUB x 0",{external}}}}}"#);
        let r = server.api("STREAM.CREATE.M", &m).await;
        env::sleep(Duration::from_millis(400)).await;
        assert!(server.got("svc.>").is_empty(), "{r}");
        server.close().await;
    })
    .expect("a runtime starts");
}
