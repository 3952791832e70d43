//! What accounts and the server may store: publishes are refused where nats-server refuses them.

use serde_json::json;

use super::*;

/// The error of the last answer to publishes of 1,000 bytes, and how many were stored before.
async fn fill(server: &Server, subject: &str) -> (u64, u64) {
    let body = "x".repeat(1000);
    for n in 0..100 {
        let answer: Value = serde_json::from_str(&server.ask(subject, &body).await.body).expect("JSON");
        if let Some(code) = answer["error"]["err_code"].as_u64() {
            assert_eq!((&answer["seq"], answer["error"]["code"].is_u64()), (&Value::from(0), true));
            return (n, code);
        }
    }
    panic!("all 100 are stored");
}

#[test]
fn publishes_stop_at_the_limits_and_go_on_below_them() {
    let disk = new_disk();
    let limits = AccountLimits { max_store: 40_000, max_memory: 20_000, ..AccountLimits::default() };
    env::run(async {
        let server = Server::start(&disk).await;
        server.node.set_account(&server.account, Some(limits));
        let f = server.make_stream(r#"{"name":"F","subjects":["F.>"]}"#).await;
        server.make_stream(r#"{"name":"M","subjects":["M.>"],"storage":"memory"}"#).await;
        // As many as nats-server 2.15.1 takes.
        assert_eq!(fill(&server, "F.x").await, (38, 10002));
        assert_eq!(fill(&server, "M.x").await, (19, 10002));
        server.api("STREAM.PURGE.F", r#"{"keep":10}"#).await;
        assert_eq!(fill(&server, "F.x").await, (28, 10002));
        // More room, and then the server's own limit: full when it is reached.
        server.node.set_account(&server.account, Some(AccountLimits::default()));
        let t = server.node.tunable();
        server.node.tune(crate::Tunable { storage_max: f.group().state().bytes + 1500, ..t });
        assert_eq!(fill(&server, "F.x").await, (2, 10023));
        server.api("STREAM.DELETE.F", "").await;
        server.make_stream(r#"{"name":"G","subjects":["G.>"]}"#).await;
        assert_eq!(server.store("G.x", "x").await, 1);
        assert_eq!(fill(&server, "G.x").await.1, 10023);
        server.close().await;
    })
    .expect("a runtime starts");
    env::run(async {
        // What was there before counts.
        let server = Server::start(&disk).await;
        server.node.set_account(&server.account, Some(limits));
        let there = server.stream("G").group().state().msgs;
        assert_eq!(fill(&server, "G.x").await, (0, 10002), "{there}");
        server.close().await;
    })
    .expect("a runtime starts");
}

/// A limit that was lowered holds for what is changed, whether or not that sets more aside. What nats-server 2.15.1 says to the same.
#[test]
fn an_update_is_judged_by_what_is_set_aside_in_all() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let config = |name: &str, bytes: i64| json!({ "name": name, "subjects": [name], "max_bytes": bytes });
        for (name, bytes) in [("F", -1), ("G", 3000)] {
            server.make_stream(&config(name, bytes).to_string()).await;
        }
        let memory = json!({ "name": "Z", "subjects": ["Z"], "max_bytes": 10, "storage": "memory" });
        server.make_stream(&memory.to_string()).await;
        let update = async |v: Value| {
            let name = v["name"].as_str().expect("a name");
            let r = server.api(&format!("STREAM.UPDATE.{name}"), &v.to_string()).await;
            r["error"]["err_code"].as_u64()
        };
        for (limit, told) in [
            (3000, [None, None, None, Some(10047), None, None]),
            (2999, [Some(10047), Some(10047), None, Some(10047), Some(10047), None]),
            (3001, [None, None, None, None, Some(10047), None]),
        ] {
            let limits = AccountLimits { max_store: limit, ..AccountLimits::default() };
            server.node.set_account(&server.account, Some(limits));
            let found = [
                update(config("F", -1)).await,
                update(config("G", 3000)).await,
                update(config("G", 2999)).await,
                update(config("F", 2)).await,
                update(config("G", 3000)).await,
                update(memory.clone()).await,
            ];
            // F has nothing set aside again.
            update(config("F", -1)).await;
            let limits = AccountLimits::default();
            server.node.set_account(&server.account, Some(limits));
            update(config("G", 3000)).await;
            assert_eq!(found, told, "{limit}");
        }
        // A server alone says what it cannot do before what it has no room for.
        let limits = AccountLimits { max_store: 10, ..AccountLimits::default() };
        server.node.set_account(&server.account, Some(limits));
        let two = json!({ "name": "R", "max_bytes": 100, "num_replicas": 2 }).to_string();
        assert_eq!(server.api("STREAM.CREATE.R", &two).await["error"]["err_code"], 10074);
        // What is wrong with a configuration by itself is told before what there is no room for, and before there is nothing to update.
        let wrong = r#"{"name":"R","max_bytes":1152921504606846976,"duplicate_window":1}"#;
        for what in ["CREATE", "UPDATE"] {
            assert_eq!(server.api(&format!("STREAM.{what}.R"), wrong).await["error"]["err_code"], 10052);
        }
        for none in [r#"{"name":"R","sealed":true}"#, r#"{"name":"R","mirror_direct":true}"#] {
            assert_eq!(server.api("STREAM.UPDATE.R", none).await["error"]["err_code"], 10059);
        }
        let same = json!({ "name": "R", "subjects": ["F"] }).to_string();
        assert_eq!(server.api("STREAM.CREATE.R", &same).await["error"]["err_code"], 10047);
        server.close().await;
    })
    .expect("a runtime starts");
}

/// What nats-server 2.15.1 does: a full interest stream gives a number to what nobody wants, and stores nothing.
#[test]
fn a_full_interest_stream_takes_what_nobody_wants() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        for (name, limit, full) in
            [("I", "max_bytes", "maximum bytes exceeded"), ("K", "max_msgs", "maximum messages exceeded")]
        {
            let most = if limit == "max_bytes" { 300 } else { 2 };
            let config = json!({
                "name": name, "subjects": [format!("{name}.>")], "retention": "interest", "discard": "new", limit: most
            });
            let s = server.make_stream(&config.to_string()).await;
            let filter = format!("{name}.x");
            let c = json!({ "stream_name": name, "config":
                { "durable_name": "c", "ack_policy": "explicit", "filter_subject": filter } });
            let r = server.api(&format!("CONSUMER.CREATE.{name}.c"), &c.to_string()).await;
            assert!(r["error"].is_null(), "{r}");
            let publish = async |subject: &str| -> Value {
                let body = "x".repeat(100);
                serde_json::from_str(&server.ask(subject, &body).await.body).expect("JSON")
            };
            for seq in 1..=2 {
                assert_eq!(publish(&filter).await["seq"], seq);
            }
            let refused = publish(&filter).await;
            assert_eq!(refused["error"]["description"], full, "{refused}");
            for seq in 3..=4 {
                assert_eq!(publish(&format!("{name}.y")).await["seq"], seq);
            }
            assert_eq!(publish(&filter).await["error"]["err_code"], 10077);
            let state = s.group().state();
            assert_eq!((state.msgs, state.last.0), (2, 4));
        }
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn batches_are_limited_over_all_streams() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        for name in ["A", "B"] {
            let config = format!(r#"{{"name":"{name}","subjects":["{name}.>"],"allow_atomic":true}}"#);
            server.make_stream(&config).await;
        }
        let t = server.node.tunable();
        let limits = crate::AssetLimits { batch_inflight: 2, ..t.limits.clone() };
        server.node.tune(crate::Tunable { limits, ..t });
        let part = async |subject: &str, id: &str, seq: u32, end: &str| {
            let head = format!("NATS/1.0\r\nNats-Batch-Id: {id}\r\nNats-Batch-Sequence: {seq}\r\n{end}\r\n");
            let reply = server.inbox();
            server.publish_bytes(subject, &reply, &head, b"x");
            server.wait(&reply, 1).await.remove(0).body
        };
        assert_eq!(part("A.x", "one", 1, "").await, "");
        assert_eq!(part("B.x", "two", 1, "").await, "");
        let refused: Value = serde_json::from_str(&part("A.x", "three", 1, "").await).expect("JSON");
        assert_eq!(refused["error"]["err_code"], 10210, "{refused}");
        let done: Value =
            serde_json::from_str(&part("B.x", "two", 2, "Nats-Batch-Commit: 1\r\n").await).expect("JSON");
        assert_eq!((&done["seq"], &done["count"]), (&Value::from(2), &Value::from(2)), "{done}");
        assert_eq!(part("A.x", "three", 1, "").await, "");
        server.close().await;
    })
    .expect("a runtime starts");
}

/// As many as nats-server 2.15.1 takes, and as many bytes as it says: 16 beside subject, headers and body, and 30 in files.
#[test]
fn messages_in_memory_count_less_than_those_in_files() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        for (storage, fixed, stored) in [("memory", 16, 4), ("file", 30, 3)] {
            let config = format!(
                r#"{{"name":"S","subjects":["S.*"],"storage":"{storage}","max_bytes":300,"discard":"new"}}"#
            );
            let s = server.make_stream(&config).await;
            let body = "x".repeat(50);
            let mut n = 0;
            while !server.ask(&format!("S.{n}"), &body).await.body.contains("\"error\"") {
                n += 1;
            }
            assert_eq!((n, s.group().state().bytes), (stored, stored * (50 + 3 + fixed)), "{storage}");
            let info = server.api("STREAM.INFO.S", "").await;
            assert_eq!(info["state"]["bytes"], stored * (50 + 3 + fixed), "{info}");
            server.api("STREAM.MSG.DELETE.S", r#"{"seq":2}"#).await;
            assert_eq!(s.group().state().bytes, (stored - 1) * (50 + 3 + fixed));
            server.api("STREAM.DELETE.S", "").await;
        }
        // What goes for a new one goes by the same count.
        let old = r#"{"name":"S","subjects":["S.*"],"storage":"memory","max_bytes":300}"#;
        let s = server.make_stream(old).await;
        for i in 0..9 {
            server.store(&format!("S.{i}"), &"x".repeat(50)).await;
        }
        assert_eq!((s.group().state().msgs, s.group().state().bytes), (4, 4 * 69));
        server.close().await;
    })
    .expect("a runtime starts");
}
