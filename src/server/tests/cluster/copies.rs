//! Mirrors and sources whose origin another server leads, or the same one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::{Value, json};
use server::Server;

use super::{
    jetstream::{Dir, formed, member},
    support::*,
};

/// Three servers of one cluster, and a client of the first.
async fn three(dir: &Dir) -> (Vec<Arc<Server>>, Peer) {
    let s0 = member(0, dir, &[]).await;
    let s1 = member(1, dir, &[&s0]).await;
    let s2 = member(2, dir, &[&s0, &s1]).await;
    let all = vec![s0, s1, s2];
    formed(&all).await;
    let p = Peer::new(&all[0], "").await;
    (all, p)
}

async fn api(p: &mut Peer, what: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    serde_json::from_str(&p.ask(&format!("$JS.API.{what}"), &body).await.body).expect("JSON")
}

async fn make(p: &mut Peer, config: Value) -> Value {
    let name = config["name"].as_str().expect("a name").to_owned();
    let made = api(p, &format!("STREAM.CREATE.{name}"), &config).await;
    assert!(made["error"].is_null(), "{made}");
    made
}

/// Returns what a stream shows when that is as it has to become.
async fn shows(p: &mut Peer, stream: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let end = env::now() + PATIENCE;
    loop {
        let v = api(p, &format!("STREAM.INFO.{stream}"), &Value::Null).await;
        if fits(&v) {
            return v;
        }
        assert!(env::now() < end, "{stream}: {what} never comes true: {v}");
        env::sleep(Duration::from_millis(20)).await;
    }
}

/// Publishes and waits for the acknowledgement.
async fn store(p: &mut Peer, subject: &str, body: &str) {
    let ack: Value = serde_json::from_str(&p.ask(subject, body).await.body).expect("JSON");
    assert!(ack["seq"].is_u64(), "{ack}");
}

/// Copies of one work queue, on its leader's server and on others, beside a worker that is to get all: each has everything, and only then does the queue let go of it.
#[test]
fn j25_copies_anywhere_get_a_work_queue_beside_a_worker() {
    run(async {
        let dir = Dir::new("copies");
        let (all, mut p) = three(&dir).await;
        let made = make(&mut p, json!({ "name": "W", "subjects": ["w.>"], "retention": "workqueue" })).await;
        let mut leaders = BTreeSet::from([made["cluster"]["leader"].to_string()]);
        let worker =
            json!({ "stream_name": "W", "config": { "durable_name": "c", "ack_policy": "explicit" } });
        let made = api(&mut p, "CONSUMER.CREATE.W.c", &worker).await;
        assert!(made["error"].is_null(), "{made}");
        let copies = ["C0", "C1", "C2"];
        for name in copies {
            let made = make(&mut p, json!({ "name": name, "sources": [{ "name": "W" }] })).await;
            leaders.insert(made["cluster"]["leader"].to_string());
        }
        assert_eq!(leaders.len(), 3, "streams are spread over the servers");
        // Each has said that it wants what comes: from here on nothing leaves without them.
        let end = env::now() + PATIENCE;
        while api(&mut p, "CONSUMER.NAMES.W", &Value::Null).await["total"] != 4 {
            assert!(env::now() < end, "not all copies have a consumer");
            env::sleep(Duration::from_millis(20)).await;
        }
        for i in 0..30 {
            store(&mut p, "w.x", &i.to_string()).await;
        }
        for name in copies {
            shows(&mut p, name, "it has all", |v| v["state"]["messages"] == 30).await;
        }
        let left = shows(&mut p, "W", "it answers", |v| v["error"].is_null()).await;
        assert_eq!(left["state"]["messages"], 30, "the worker has had none: {left}");
        for _ in 0..30 {
            let got = p.ask("$JS.API.CONSUMER.MSG.NEXT.W.c", r#"{"batch":1,"expires":5000000000}"#).await;
            p.publish(&got.reply, "", "+ACK").await;
        }
        shows(&mut p, "W", "it is empty", |v| v["state"]["messages"] == 0).await;
        for s in all {
            s.stop();
        }
    });
}

/// A copy that is full says so where it is looked for, and goes on when there is room.
#[test]
fn j25_a_copy_that_is_full_says_why_and_goes_on_when_there_is_room() {
    run(async {
        let dir = Dir::new("full");
        let (all, mut p) = three(&dir).await;
        make(&mut p, json!({ "name": "I", "subjects": ["i.>"], "retention": "interest" })).await;
        let full = json!({ "name": "F", "max_msgs": 2, "discard": "new", "sources": [{ "name": "I" }] });
        make(&mut p, full).await;
        let end = env::now() + PATIENCE;
        while api(&mut p, "CONSUMER.NAMES.I", &Value::Null).await["total"] != 1 {
            assert!(env::now() < end, "the copy has no consumer");
            env::sleep(Duration::from_millis(20)).await;
        }
        for i in 0..5 {
            store(&mut p, "i.x", &i.to_string()).await;
        }
        let why = |v: &Value| v["sources"][0]["error"]["err_code"] == 10077;
        shows(&mut p, "F", "it says that it is full", why).await;
        shows(&mut p, "I", "it keeps what the copy has not", |v| v["state"]["messages"] == 3).await;
        for last in [4, 5] {
            api(&mut p, "STREAM.PURGE.F", &Value::Null).await;
            shows(&mut p, "F", "it goes on", |v| v["state"]["last_seq"] == last).await;
        }
        shows(&mut p, "F", "it is well", |v| v["sources"][0]["error"].is_null()).await;
        shows(&mut p, "I", "it is empty", |v| v["state"]["messages"] == 0).await;
        for s in all {
            s.stop();
        }
    });
}
