//! Mirrors and sources: in one process, and through another engine's API.

use std::collections::BTreeMap;

use broker::rules::{Export, Import, Responses, Rules};
use replica::Machine;
use serde_json::json;

use super::*;

/// Returns when a stream's last sequence is `n`.
async fn grown(server: &Server, s: &Arc<Stream>, n: u64) {
    server.until(&format!("{} has {n}", s.name), || (s.group().state().last.0 >= n).then_some(())).await;
    s.tail_applied().await;
}

/// Subjects and payloads of all messages.
async fn all_of(s: &Arc<Stream>) -> Vec<(u64, String, String)> {
    let state = s.group().state();
    let mut all = Vec::new();
    for seq in state.first.0..=state.last.0 {
        let got = s.group().ask(|v| v.get(store::StreamSeq(seq))).await.expect("the disk answers");
        if let store::Read::Valid(m) = got {
            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            all.push((seq, text(m.message().subject), text(m.message().body)));
        }
    }
    all
}

#[test]
fn copies_in_one_process_follow_and_begin_anew_after_a_reign() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let o = server.make_stream(r#"{"name":"O","subjects":["a.>"]}"#).await;
        for i in 0..300 {
            server.publish(&format!("a.{}", i % 3), "", &i.to_string());
        }
        let m = server.make_stream(r#"{"name":"M","mirror":{"name":"O"}}"#).await;
        let c = server.make_stream(r#"{"name":"C","sources":[{"name":"O","filter_subject":"a.1"}]}"#).await;
        grown(&server, &m, 300).await;
        grown(&server, &c, 100).await;
        assert_eq!(all_of(&m).await, all_of(&o).await);
        // The copy's leader goes and comes: it goes on where it stands.
        let crate::leading::Standing::Leads(term) = c.standing() else { panic!("it leads") };
        c.role(&replica::Role::Follower { term, leader: None });
        for i in 300..330 {
            server.publish(&format!("a.{}", i % 3), "", &i.to_string());
        }
        grown(&server, &m, 330).await;
        assert_eq!(c.group().state().last.0, 100, "a follower copies nothing");
        c.role(&replica::Role::Leader { term });
        grown(&server, &c, 110).await;
        let bodies: Vec<u64> = all_of(&c).await.iter().map(|m| m.2.parse().expect("a number")).collect();
        assert_eq!(bodies, (0..330).filter(|i| i % 3 == 1).collect::<Vec<u64>>());
        server.close().await;
    })
    .expect("a runtime starts");
}

/// What a copy could not store stays in the work queue, and what was stored leaves it.
#[test]
fn j25_a_work_queue_lets_go_only_of_what_is_applied_in_the_copy() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let w = server.make_stream(r#"{"name":"W","subjects":["a.>"],"retention":"workqueue"}"#).await;
        let c = server.make_stream(r#"{"name":"C","sources":[{"name":"W"}]}"#).await;
        assert_eq!(server.store("a.x", "1").await, 1);
        grown(&server, &c, 1).await;
        server.until("the queue is empty", || (w.group().state().msgs == 0).then_some(())).await;
        // The next copy is refused: as the driver says it when the disk is full.
        server.publish("a.x", "", "2");
        let out = Mutex::new(Vec::new());
        let stopped = c.core.lock().handle.take();
        server
            .until("a copy is to be stored", || {
                c.take_proposals(&mut out.lock());
                (!out.lock().is_empty()).then_some(())
            })
            .await;
        assert_eq!(w.group().state().msgs, 1, "J-25");
        c.core.lock().handle = stopped;
        c.refused(out.into_inner(), &replica::Refusal::NoSpace("full".into()));
        // It is copied again, and only then leaves.
        grown(&server, &c, 2).await;
        server.until("the queue is empty", || (w.group().state().msgs == 0).then_some(())).await;
        assert_eq!(all_of(&c).await.iter().map(|m| &*m.2).collect::<Vec<_>>(), ["1", "2"]);
        server.close().await;
    })
    .expect("a runtime starts");
}

/// An origin that keeps by interest keeps messages for its copies, and for a copy that is gone no more.
#[test]
fn j25_an_interest_stream_keeps_for_its_copies_while_there_are_any() {
    env::run(async {
        let disk = new_disk();
        let server = Server::start(&disk).await;
        let o = server.make_stream(r#"{"name":"O","subjects":["o.>"],"retention":"interest"}"#).await;
        let all = server.make_stream(r#"{"name":"ALL","mirror":{"name":"O"}}"#).await;
        let part = r#"{"name":"PART","subjects":["part"],"sources":[{"name":"O","filter_subject":"o.1"}]}"#;
        let part = server.make_stream(part).await;
        let consumers = async |n: usize| {
            let all = || (o.core.lock().consumers.len() == n).then_some(());
            server.until(&format!("O has {n} consumers"), all).await;
        };
        consumers(2).await;
        for i in 0..6 {
            server.store(&format!("o.{}", i % 2), &i.to_string()).await;
        }
        grown(&server, &all, 6).await;
        grown(&server, &part, 3).await;
        server.until("nobody waits", || (o.group().state().msgs == 0).then_some(())).await;
        // Nobody copies what nobody follows: the origin would keep it for ever.
        server.api("STREAM.UPDATE.PART", r#"{"name":"PART","subjects":["part"]}"#).await;
        consumers(1).await;
        server.api("STREAM.DELETE.ALL", "").await;
        consumers(0).await;
        server.store("o.1", "7").await;
        server.until("nobody waits", || (o.group().state().msgs == 0).then_some(())).await;
        // The source comes back: it goes on where it stood.
        let with = r#"{"name":"PART","subjects":["part"],"sources":[{"name":"O","filter_subject":"o.1"}]}"#;
        server.api("STREAM.UPDATE.PART", with).await;
        consumers(1).await;
        server.store("o.1", "8").await;
        grown(&server, &part, 4).await;
        let bodies: Vec<String> = all_of(&part).await.into_iter().map(|m| m.2).collect();
        assert_eq!(bodies, ["1", "3", "5", "8"]);
        server.close().await;
    })
    .expect("a runtime starts");
}

/// A source that is taken out of the configuration and comes back goes on where it stood, also when its copies are gone.
#[test]
fn a_source_that_comes_back_goes_on_where_it_stood() {
    env::run(async {
        let disk = new_disk();
        let server = Server::start(&disk).await;
        server.make_stream(r#"{"name":"O","subjects":["o.>"]}"#).await;
        for i in 0..3 {
            server.store("o.x", &i.to_string()).await;
        }
        let (without, with) =
            (r#"{"name":"C","subjects":["c"]}"#, r#"{"name":"C","subjects":["c"],"sources":[{"name":"O"}]}"#);
        let c = server.make_stream(with).await;
        grown(&server, &c, 3).await;
        server.api("STREAM.UPDATE.C", without).await;
        server.api("STREAM.PURGE.C", "").await;
        server.store("o.x", "3").await;
        server.close().await;
        let server = Server::start(&disk).await;
        let c = server.stream("C");
        server.api("STREAM.UPDATE.C", with).await;
        grown(&server, &c, 4).await;
        assert_eq!(all_of(&c).await, [(4, "o.x".to_owned(), "3".to_owned())]);
        server.close().await;
    })
    .expect("a runtime starts");
}

/// What a stream refuses, being full, is not passed over: it stays where it is until there is room, and then comes in order.
#[test]
fn j25_a_copy_that_is_refused_comes_again_when_there_is_room() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let w = server.make_stream(r#"{"name":"W","subjects":["w.>"],"retention":"workqueue"}"#).await;
        let o = server.make_stream(r#"{"name":"O","subjects":["o.>"]}"#).await;
        for i in 0..7 {
            server.store("w.x", &i.to_string()).await;
            server.store("o.x", &i.to_string()).await;
        }
        let full = r#""max_msgs":3,"discard":"new""#;
        let mut copies = Vec::new();
        for (name, from) in [
            ("CW", r#""sources":[{"name":"W"}]"#),
            ("CO", r#""sources":[{"name":"O"}]"#),
            ("M", r#""mirror":{"name":"O"}"#),
        ] {
            let c = server.make_stream(&format!(r#"{{"name":"{name}",{from},{full}}}"#)).await;
            grown(&server, &c, 3).await;
            copies.push(c);
        }
        server.until("what is copied left the queue", || (w.group().state().msgs == 4).then_some(())).await;
        // Nothing goes on past what was refused.
        server.store("o.x", "7").await;
        assert_eq!(copies.iter().map(|c| c.group().state().last.0).collect::<Vec<_>>(), [3, 3, 3]);
        assert_eq!(w.group().state().msgs, 4, "J-25");
        let errors = async || {
            let mut all = Vec::new();
            for (name, of) in [("CW", "/sources/0"), ("CO", "/sources/0"), ("M", "/mirror")] {
                let info = server.api(&format!("STREAM.INFO.{name}"), "").await;
                all.push(info.pointer(&format!("{of}/error/err_code")).and_then(Value::as_u64));
            }
            all
        };
        assert_eq!(errors().await, [Some(10077); 3], "it is said why");
        let mut came: Vec<Vec<String>> = vec![Vec::new(); 3];
        for last in [6, 7] {
            for (c, came) in copies.iter().zip(&mut came) {
                came.extend(all_of(c).await.into_iter().map(|m| m.2));
                server.api(&format!("STREAM.PURGE.{}", c.name), "").await;
            }
            for c in &copies {
                grown(&server, c, last).await;
            }
        }
        for (c, came) in copies.iter().zip(&mut came) {
            came.extend(all_of(c).await.into_iter().map(|m| m.2));
            assert_eq!(came[..7], ["0", "1", "2", "3", "4", "5", "6"], "{}", c.name);
        }
        server.until("the queue is empty", || (w.group().state().msgs == 0).then_some(())).await;
        assert_eq!(o.group().state().msgs, 8);
        for name in ["CO", "M"] {
            server.api(&format!("STREAM.PURGE.{name}"), "").await;
        }
        while errors().await != [None; 3] {
            env::sleep(Duration::from_millis(20)).await;
        }
        server.close().await;
    })
    .expect("a runtime starts");
}

/// Of two copies of one work queue none takes a message from the other, which is full: each has all in the end, and then the queue is empty.
#[test]
fn j25_two_copies_of_one_work_queue_take_nothing_from_each_other() {
    let disk = new_disk();
    let at = disk.clone();
    let names = |server: &Server| server.stream("W").core.lock().consumers.names();
    env::run(async move {
        let server = Server::start(&at).await;
        let w = server.make_stream(r#"{"name":"W","subjects":["w.>"],"retention":"workqueue"}"#).await;
        let fast = server.make_stream(r#"{"name":"FAST","sources":[{"name":"W"}]}"#).await;
        let full = r#"{"name":"FULL","max_msgs":2,"discard":"new","sources":[{"name":"W"}]}"#;
        let full = server.make_stream(full).await;
        server.until("both have a consumer", || (names(&server).len() == 2).then_some(())).await;
        for i in 0..6 {
            server.store("w.x", &i.to_string()).await;
        }
        grown(&server, &fast, 6).await;
        grown(&server, &full, 2).await;
        server.until("what both have has left", || (w.group().state().msgs == 4).then_some(())).await;
        server.close().await;
    })
    .expect("a runtime starts");
    env::run(async move {
        // Nor after a restart.
        let server = Server::start(&disk).await;
        let (w, fast, full) = (server.stream("W"), server.stream("FAST"), server.stream("FULL"));
        assert_eq!(names(&server).len(), 2);
        let mut came = Vec::new();
        for last in [4, 6] {
            came.extend(all_of(&full).await.into_iter().map(|m| m.2));
            server.api("STREAM.PURGE.FULL", "").await;
            grown(&server, &full, last).await;
        }
        came.extend(all_of(&full).await.into_iter().map(|m| m.2));
        assert_eq!(came, ["0", "1", "2", "3", "4", "5"]);
        server.until("the queue is empty", || (w.group().state().msgs == 0).then_some(())).await;
        assert_eq!(all_of(&fast).await.len(), 6, "nothing came twice");
        server.close().await;
    })
    .expect("a runtime starts");
}

/// A copy takes nothing away from a consumer of the work queue: what both are to get leaves the queue when both have it.
#[test]
fn j25_a_copy_leaves_to_consumers_what_is_theirs() {
    let disk = new_disk();
    let at = disk.clone();
    env::run(async move {
        let server = Server::start(&at).await;
        let w = server.make_stream(r#"{"name":"W","subjects":["w.>"],"retention":"workqueue"}"#).await;
        let c = r#"{"stream_name":"W","config":{"durable_name":"c","ack_policy":"explicit","filter_subject":"w.1"}}"#;
        server.api("CONSUMER.CREATE.W.c.w.1", c).await;
        let copy = server.make_stream(r#"{"name":"C","sources":[{"name":"W"}]}"#).await;
        for i in 0..9 {
            server.store(&format!("w.{}", i % 3), &i.to_string()).await;
        }
        grown(&server, &copy, 9).await;
        server.until("what nobody else wants has left", || (w.group().state().msgs == 3).then_some(())).await;
        server.close().await;
    })
    .expect("a runtime starts");
    env::run(async move {
        // Nor after a restart, which does not know how far the copying had come.
        let server = Server::start(&disk).await;
        let (w, copy) = (server.stream("W"), server.stream("C"));
        server.store("w.2", "9").await;
        grown(&server, &copy, 10).await;
        server.until("what nobody else wants has left", || (w.group().state().msgs == 3).then_some(())).await;
        for (n, body) in ["1", "4", "7"].into_iter().enumerate() {
            let got =
                server.ask("$JS.API.CONSUMER.MSG.NEXT.W.c", r#"{"batch":1,"expires":5000000000}"#).await;
            assert_eq!(got.body, body);
            server.publish(&got.reply, "", "+ACK");
            let left = 2 - n as u64;
            server.until("it has left", || (w.group().state().msgs == left).then_some(())).await;
        }
        assert_eq!(all_of(&copy).await.len(), 10);
        server.close().await;
    })
    .expect("a runtime starts");
}

/// The power fails anywhere between a copy and its removal from the work queue: what was acknowledged is copied once, and the queue is empty.
#[test]
fn j25_power_failures_neither_lose_nor_double_what_is_copied() {
    let disk = new_disk();
    let acked = Arc::new(Mutex::new(Vec::new()));
    for life in 0..12u64 {
        let (disk, acked) = (disk.clone(), acked.clone());
        let at = disk.clone();
        env::run(async move {
            let server = Server::start(&at).await;
            if life == 0 {
                server.make_stream(r#"{"name":"W","subjects":["a.>"],"retention":"workqueue"}"#).await;
                server.make_stream(r#"{"name":"C","sources":[{"name":"W"}]}"#).await;
            }
            for i in 0..15 {
                let body = format!("{life}.{i}");
                server.store("a.x", &body).await;
                acked.lock().push(body);
            }
            // How far the copying gets differs from life to life.
            for _ in 0..life * 7 {
                tokio::task::yield_now().await;
            }
        })
        .expect("a runtime starts");
        disk.with(|d| d.power_failure());
    }
    env::run(async move {
        let server = Server::start(&disk).await;
        let (w, c) = (server.stream("W"), server.stream("C"));
        server.until("the queue is empty", || (w.group().state().msgs == 0).then_some(())).await;
        let bodies: Vec<String> = all_of(&c).await.into_iter().map(|m| m.2).collect();
        assert_eq!(bodies, *acked.lock(), "each once, in order");
        server.close().await;
    })
    .expect("a runtime starts");
}

/// Two engines, an account each; B reaches A's API under a prefix of its own.
async fn neighbours() -> (Server, Server) {
    neighbours_with("$JS.API.>").await
}

/// The same, of what is exported of A's API.
async fn neighbours_with(api: &str) -> (Server, Server) {
    let broker = Arc::new(Broker::default());
    let export = |service: bool, subject: &str| Export {
        service,
        subject: subject.into(),
        accounts: None,
        account_token: 0,
        responses: Responses::One,
        threshold: Duration::from_secs(5),
        latency: None,
        allow_trace: false,
    };
    let import = |service: bool, subject: &str, to: Option<&str>| Import {
        service,
        account: "A".into(),
        subject: subject.into(),
        to: to.map(Into::into),
        share: false,
        allow_trace: false,
    };
    let a = Rules {
        exports: vec![export(true, api), export(true, "$JS.FC.>"), export(false, "from.A.>")],
        ..Rules::default()
    };
    let b = Rules {
        imports: vec![
            import(true, api, Some(&api.replace("$JS.API", "JS.A.API"))),
            import(true, "$JS.FC.>", None),
            import(false, "from.A.>", None),
        ],
        ..Rules::default()
    };
    broker.configure(&BTreeMap::from([("A".into(), a), ("B".into(), b)])).expect("the rules fit");
    let first = Server::start_in(&new_disk(), broker.clone(), "A").await;
    let second = Server::start_in(&new_disk(), broker, "B").await;
    (first, second)
}

const EXTERNAL: &str = r#""external":{"api":"JS.A.API","deliver":"from.A"}"#;

#[test]
fn what_is_elsewhere_is_copied_through_its_api() {
    env::run(async {
        let (a, b) = neighbours().await;
        let o = a.make_stream(r#"{"name":"O","subjects":["a.>"]}"#).await;
        for i in 0..700 {
            a.publish(&format!("a.{}", i % 2), "", &i.to_string());
        }
        grown(&a, &o, 700).await;
        let m = b.make_stream(&format!(r#"{{"name":"M","mirror":{{"name":"O",{EXTERNAL}}}}}"#)).await;
        let source = format!(r#"{{"name":"O","filter_subject":"a.1",{EXTERNAL}}}"#);
        let c = b.make_stream(&format!(r#"{{"name":"C","sources":[{source}]}}"#)).await;
        grown(&b, &m, 700).await;
        grown(&b, &c, 350).await;
        assert_eq!(all_of(&m).await, all_of(&o).await);
        a.store("a.1", "last").await;
        grown(&b, &m, 701).await;
        grown(&b, &c, 351).await;
        let info = b.api("STREAM.INFO.C", "").await;
        let first = &info["sources"][0];
        assert!(
            first["error"].is_null() && first["lag"] == 0 && first["active"].as_i64() >= Some(0),
            "{info}"
        );
        // A consumer of a copy is none of the origin's users'.
        assert_eq!(a.api("CONSUMER.NAMES.O", "").await["total"], 0);
        a.close().await;
        b.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn j25_a_work_queue_elsewhere_is_emptied_by_what_is_applied_here() {
    env::run(async {
        let (a, b) = neighbours().await;
        let w = a.make_stream(r#"{"name":"W","subjects":["a.>"],"retention":"workqueue"}"#).await;
        for i in 0..50 {
            a.publish("a.x", "", &i.to_string());
        }
        let c = b.make_stream(&format!(r#"{{"name":"C","sources":[{{"name":"W",{EXTERNAL}}}]}}"#)).await;
        grown(&b, &c, 50).await;
        // Acknowledged with the next flow control: at the latest when nothing more comes.
        a.until("the queue is empty", || (w.group().state().msgs == 0).then_some(())).await;
        let bodies: Vec<u64> = all_of(&c).await.iter().map(|m| m.2.parse().expect("a number")).collect();
        assert_eq!(bodies, (0..50).collect::<Vec<u64>>());
        a.close().await;
        b.close().await;
    })
    .expect("a runtime starts");
}

/// A copy of a work queue has a consumer that says what it is for, so that the queue lets it in beside one without a filter; what both get leaves when both have it.
#[test]
fn j25_a_copy_gets_a_work_queue_beside_a_consumer_of_all() {
    // Also where only consumers may be asked for, as it does for a nats-server.
    for api in ["$JS.API.>", "$JS.API.CONSUMER.>"] {
        env::run(async {
            let (a, b) = neighbours_with(api).await;
            let w = a.make_stream(r#"{"name":"W","subjects":["a.>"],"retention":"workqueue"}"#).await;
            a.make_consumer("W", "c", r#"{"durable_name":"c","ack_policy":"explicit"}"#).await;
            for i in 0..5 {
                a.store("a.x", &i.to_string()).await;
            }
            let c = b.make_stream(&format!(r#"{{"name":"C","sources":[{{"name":"W",{EXTERNAL}}}]}}"#)).await;
            grown(&b, &c, 5).await;
            let shown = a.api("CONSUMER.LIST.W", "").await;
            let of = |c: &Value| {
                (c["config"]["sourcing"].clone(), c["config"]["metadata"]["_nats.src.acc"].clone())
            };
            let all: Vec<_> = shown["consumers"].as_array().expect("a list").iter().map(of).collect();
            assert_eq!(all, [(json!(true), json!("B")), (Value::Null, Value::Null)], "{shown}");
            assert_eq!(w.group().state().msgs, 5, "the worker has had none");
            for _ in 0..5 {
                let got = a.ask("$JS.API.CONSUMER.MSG.NEXT.W.c", r#"{"batch":1,"expires":5000000000}"#).await;
                a.publish(&got.reply, "", "+ACK");
            }
            a.until("the queue is empty", || (w.group().state().msgs == 0).then_some(())).await;
            // One more than the copy may wait for, and nothing is there twice.
            a.store("a.x", "5").await;
            grown(&b, &c, 6).await;
            let bodies: Vec<String> = all_of(&c).await.into_iter().map(|m| m.2).collect();
            assert_eq!(bodies, ["0", "1", "2", "3", "4", "5"]);
            a.close().await;
            b.close().await;
        })
        .expect("a runtime starts");
    }
}

/// The consumer of a copy of before does not say what it is for, and cannot be made to: another takes its place before it goes, so that the origin keeps what it has.
#[test]
fn j25_a_consumer_of_a_copy_of_before_is_replaced_without_a_gap() {
    for retention in ["interest", "workqueue"] {
        env::run(async {
            let (a, b) = neighbours().await;
            let o = a
                .make_stream(&format!(r#"{{"name":"O","subjects":["a.>"],"retention":"{retention}"}}"#))
                .await;
            let source = stream::config::Source {
                name: "O".into(),
                external: Some(stream::config::External { api: "JS.A.API".into(), deliver: "from.A".into() }),
                ..Default::default()
            };
            let before = stream::source::kept_name_before("C", &source, false);
            let old = format!(
                r#"{{"durable_name":"{before}","ack_policy":"flow_control","deliver_subject":"from.A.gone"}}"#
            );
            a.make_consumer("O", &before, &old).await;
            for i in 0..4 {
                a.store("a.x", &i.to_string()).await;
            }
            let c = b.make_stream(&format!(r#"{{"name":"C","sources":[{{"name":"O",{EXTERNAL}}}]}}"#)).await;
            grown(&b, &c, 4).await;
            a.until("the origin is empty", || (o.group().state().msgs == 0).then_some(())).await;
            let names = a.api("CONSUMER.NAMES.O", "").await;
            assert_eq!(names["total"], 1, "{names}");
            assert_ne!(names["consumers"][0], *before);
            let bodies: Vec<String> = all_of(&c).await.into_iter().map(|m| m.2).collect();
            assert_eq!(bodies, ["0", "1", "2", "3"]);
            a.close().await;
            b.close().await;
        })
        .expect("a runtime starts");
    }
}

/// A mirror that has passed over a number of a work queue elsewhere without having it leaves that message there.
#[test]
fn j25_a_mirror_leaves_to_a_queue_elsewhere_what_it_passes_over() {
    env::run(async {
        let (a, b) = neighbours().await;
        let w = a.make_stream(r#"{"name":"W","subjects":["a.>"],"retention":"workqueue"}"#).await;
        let m = b.make_stream(&format!(r#"{{"name":"M","mirror":{{"name":"W",{EXTERNAL}}}}}"#)).await;
        let purged = b.api("STREAM.PURGE.M", r#"{"seq":5}"#).await;
        assert_eq!(purged["success"], true, "{purged}");
        for i in 1..=6 {
            assert_eq!(a.store("a.x", &format!("number {i}")).await, i);
        }
        b.until("the last is copied", || (m.group().state().last.0 == 6).then_some(())).await;
        a.until("what is copied has left", || (w.group().state().msgs == 4).then_some(())).await;
        assert_eq!(all_of(&m).await.into_iter().map(|m| m.2).collect::<Vec<_>>(), ["number 5", "number 6"]);
        a.close().await;
        b.close().await;
    })
    .expect("a runtime starts");
}

/// Deletes an origin and makes it again under its name, with three messages.
async fn made_anew(server: &Server, config: &str) -> Arc<Stream> {
    let deleted = server.api("STREAM.DELETE.O", "").await;
    assert_eq!(deleted["success"], true, "{deleted}");
    let o = server.make_stream(config).await;
    for i in 0..3 {
        server.store("a.x", &format!("new {i}")).await;
    }
    o
}

/// Where a copy stands in an origin says nothing of another one of its name: that is copied from its beginning, and a work queue lets go of nothing for what the
/// one before it has given. A mirror keeps numbers, and goes on where the new one has higher ones.
#[test]
fn j25_an_origin_that_is_made_anew_is_copied_from_its_beginning() {
    for retention in ["limits", "workqueue"] {
        env::run(async {
            let server = Server::start(&new_disk()).await;
            let config = format!(r#"{{"name":"O","subjects":["a.>"],"retention":"{retention}"}}"#);
            server.make_stream(&config).await;
            let sources = r#"{"name":"C","sources":[{"name":"O"}]}"#;
            let c = server.make_stream(sources).await;
            for i in 0..8 {
                server.store("a.x", &format!("old {i}")).await;
            }
            grown(&server, &c, 8).await;
            made_anew(&server, &config).await;
            grown(&server, &c, 11).await;
            server.store("a.x", "new 3").await;
            grown(&server, &c, 12).await;
            let bodies: Vec<String> = all_of(&c).await.into_iter().map(|m| m.2).collect();
            let old = (0..8).map(|i| format!("old {i}"));
            assert_eq!(bodies, old.chain((0..4).map(|i| format!("new {i}"))).collect::<Vec<_>>());
            assert_eq!(server.api("STREAM.INFO.C", "").await["sources"][0]["lag"], 0);
            server.close().await;
        })
        .expect("a runtime starts");
    }
}

#[test]
fn j25_a_mirror_takes_nothing_from_a_queue_that_is_made_anew_but_what_it_copies() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let config = r#"{"name":"O","subjects":["a.>"],"retention":"workqueue"}"#;
        let o = server.make_stream(config).await;
        let m = server.make_stream(r#"{"name":"M","mirror":{"name":"O"}}"#).await;
        for i in 0..5 {
            server.store("a.x", &i.to_string()).await;
        }
        grown(&server, &m, 5).await;
        server.until("the queue is empty", || (o.group().state().msgs == 0).then_some(())).await;
        let o = made_anew(&server, config).await;
        for seq in 4..=6 {
            assert_eq!(server.store("a.x", &format!("number {seq}")).await, seq);
        }
        grown(&server, &m, 6).await;
        let kept = |n| (o.group().state().msgs == n).then_some(());
        server.until("the sixth has left the queue", || kept(5)).await;
        // The mirror's leader goes and comes, and looks for what it has copied and not removed.
        let crate::leading::Standing::Leads(term) = m.standing() else { panic!("it leads") };
        m.role(&replica::Role::Follower { term, leader: None });
        m.role(&replica::Role::Leader { term });
        server.store("a.x", "number 7").await;
        grown(&server, &m, 7).await;
        server.until("the seventh has left the queue", || kept(5)).await;
        assert_eq!(all_of(&m).await.last().map(|m| m.2.clone()), Some("number 7".into()));
        server.close().await;
    })
    .expect("a runtime starts");
}

/// What a mirror passes over it does not have, and so a work queue keeps it.
#[test]
fn j25_a_mirror_takes_nothing_from_a_queue_that_it_passes_over() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let config = r#"{"name":"O","subjects":["a.>"],"retention":"workqueue"}"#;
        let o = server.make_stream(config).await;
        let m = server.make_stream(r#"{"name":"M","mirror":{"name":"O"}}"#).await;
        let purged = server.api("STREAM.PURGE.M", r#"{"seq":5}"#).await;
        assert_eq!(purged["success"], true, "{purged}");
        for i in 1..=6 {
            assert_eq!(server.store("a.x", &format!("number {i}")).await, i);
        }
        server.until("the last is copied", || (m.group().state().last.0 == 6).then_some(())).await;
        let left = |n| (o.group().state().msgs == n).then_some(());
        server.until("what is copied has left the queue", || left(4)).await;
        assert_eq!(all_of(&m).await.into_iter().map(|m| m.2).collect::<Vec<_>>(), ["number 5", "number 6"]);
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn j25_an_origin_elsewhere_that_is_made_anew_is_copied_from_its_beginning() {
    let all = "$JS.API.>";
    // Where only consumers may be asked for, the origin says that it is another one.
    for (retention, api) in [
        ("limits", all),
        ("workqueue", all),
        ("limits", "$JS.API.CONSUMER.>"),
        ("workqueue", "$JS.API.CONSUMER.>"),
    ] {
        env::run(async {
            let (a, b) = neighbours_with(api).await;
            let config = format!(r#"{{"name":"O","subjects":["a.>"],"retention":"{retention}"}}"#);
            a.make_stream(&config).await;
            let sources = format!(r#"{{"name":"C","sources":[{{"name":"O",{EXTERNAL}}}]}}"#);
            let c = b.make_stream(&sources).await;
            for i in 0..8 {
                a.store("a.x", &i.to_string()).await;
            }
            grown(&b, &c, 8).await;
            made_anew(&a, &config).await;
            grown(&b, &c, 11).await;
            let bodies: Vec<String> = all_of(&c).await.into_iter().skip(8).map(|m| m.2).collect();
            assert_eq!(bodies, ["new 0", "new 1", "new 2"]);
            a.close().await;
            b.close().await;
        })
        .expect("a runtime starts");
    }
}
