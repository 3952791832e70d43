//! Clusters that have lost servers for good, streams that have lost their memory, servers that are to be emptied.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{self, stream};
use serde_json::{Value, json};
use server::{
    Server,
    monitor::{HealthzOptions, healthz_now},
};

use super::{jetstream::*, support::*};

const ACCOUNTS: &str = "accounts { A { jetstream: enabled, users: [{user: a, password: pw}] }, SYS { users: [{user: sys, password: pw}] } }
system_account: SYS
no_auth_user: a
";

/// A server whose operators have an account of their own.
async fn server(name: &str, dir: &Dir, others: &[&Arc<Server>]) -> Arc<Server> {
    let ports: Vec<_> = others.iter().map(|s| cluster_port(s)).collect();
    let js = format!("jetstream {{ store_dir: {:?} }}\n{ACCOUNTS}", dir.0.join(name));
    start(name, &format!("{js}{}", cluster("name: C", &ports))).await
}

async fn servers(n: usize, dir: &Dir) -> Vec<Arc<Server>> {
    let mut all: Vec<Arc<Server>> = Vec::new();
    for i in 0..n {
        all.push(server(&format!("s{i}"), dir, &all.iter().collect::<Vec<_>>()).await);
    }
    formed(&all).await;
    let last = all.clone();
    // Those that come after the formation are taken in one by one.
    eventually("all are members", move || {
        let v = last[0].jetstream.read().as_ref().and_then(|js| js.meta_cluster());
        v.is_some_and(|v| v["cluster_size"] == last.len())
    })
    .await;
    all
}

/// Asks as an operator until the answer fits; it.
async fn operate(s: &Server, what: &str, body: Value, fits: impl Fn(&Value) -> bool) -> Value {
    let deadline = env::now() + PATIENCE;
    loop {
        let mut sys = Peer::new(s, "sys").await;
        let said = sys.ask(&format!("$JS.API.{what}"), &body.to_string()).await.body;
        let said: Value = serde_json::from_str(&said).expect("an answer is JSON");
        if fits(&said) {
            return said;
        }
        assert!(env::now() < deadline, "{what}: {said}");
        env::sleep(Duration::from_millis(50)).await;
    }
}

async fn publish(js: &jetstream::Context, id: &str) -> u64 {
    let deadline = env::now() + PATIENCE;
    let mut said = std::collections::BTreeMap::<String, u32>::new();
    loop {
        assert!(env::now() < deadline, "message {id} is never acknowledged: {said:?}");
        let m = jetstream::message::PublishMessage::build().payload("x".into()).message_id(id);
        let why = match js.send_publish("S.x", m).await {
            Ok(ack) => match env::timeout(Duration::from_secs(2), ack.into_future()).await {
                Ok(Ok(ack)) => return ack.sequence,
                Ok(Err(e)) => e.to_string(),
                Err(_) => "no answer".to_owned(),
            },
            Err(e) => format!("not sent: {e}"),
        };
        *said.entry(why).or_default() += 1;
        env::sleep(Duration::from_millis(20)).await;
    }
}

fn config(replicas: usize, storage: stream::StorageType) -> stream::Config {
    stream::Config {
        name: "S".into(),
        subjects: vec!["S.>".into()],
        num_replicas: replicas,
        storage,
        ..Default::default()
    }
}

/// Waits until the stream is on servers that fit, all of them current; their names.
async fn on(js: &jetstream::Context, what: &str, fits: impl Fn(&[String]) -> bool) -> Vec<String> {
    let deadline = env::now() + PATIENCE;
    loop {
        let info = js.get_stream("S").await.ok().map(|s| s.cached_info().clone());
        if let Some(cluster) = info.and_then(|i| i.cluster) {
            let mut names: Vec<String> = cluster.replicas.iter().map(|r| r.name.clone()).collect();
            let current = cluster.replicas.iter().all(|r| r.current && !r.offline);
            names.extend(cluster.leader);
            names.sort();
            if current && fits(&names) {
                return names;
            }
            assert!(env::now() < deadline, "{what}: {names:?}");
        }
        assert!(env::now() < deadline, "{what}");
        env::sleep(Duration::from_millis(50)).await;
    }
}

async fn ended(s: &Arc<Server>) {
    s.stop();
    let s = s.clone();
    eventually("its engine has ended", move || s.jetstream.read().is_none()).await;
}

#[test]
fn k8_a_cluster_that_lost_most_of_its_servers_is_rescued() {
    run(async {
        let dir = Dir::new("rescue");
        let all = servers(3, &dir).await;
        let js = context(&all[0]).await;
        js.create_stream(config(3, stream::StorageType::File)).await.expect("it is made");
        for i in 1..=20 {
            assert_eq!(publish(&js, &i.to_string()).await, i);
        }
        let r = operate(&all[0], "META.RESCUE", json!({"quorum_needed": 1}), |_| true).await;
        assert_eq!(r["error"]["err_code"], 10224, "a cluster that is well is left alone: {r}");
        ended(&all[1]).await;
        ended(&all[2]).await;
        // Who does not know who is there is told, and nothing happens.
        let wrong = json!({"survivors": ["s0", "s1"]});
        let told = |v: &Value| v["error"]["description"].as_str().is_some_and(|e| e.contains("but: s0"));
        let r = operate(&all[0], "META.RESCUE", wrong, told).await;
        assert_eq!(r["error"]["err_code"], 10224);
        let good = |v: &Value| v["error"].is_null();
        let r = operate(&all[0], "META.RESCUE", json!({"survivors": ["s0"]}), good).await;
        assert_eq!(
            (&r["prev_quorum"], &r["new_quorum"], &r["survivors"]),
            (&json!(2), &json!(1), &json!(["s0"]))
        );
        assert_eq!(publish(&js, "21").await, 21, "K-8: nothing is lost, and it goes on");
        // One of the others comes back as if nothing had been: it is let alone.
        let back = server("s1", &dir, &[&all[0]]).await;
        let linked = back.clone();
        eventually("there are routes", move || counts(&linked).1 > 0).await;
        assert_eq!(publish(&js, "22").await, 22);
        let engine = back.jetstream.read().clone().expect("it runs");
        assert_eq!(engine.meta_leader(), None, "K-8: those that are left do not speak to it");
        assert!(engine.unhealthy_meta().is_some());
        // It is still to be sent clients, which find the others' streams through it.
        let asked = |js_server_only| HealthzOptions { js_server_only, ..HealthzOptions::default() };
        assert_eq!(healthz_now(&back, &asked(false)).await.status_code, 503);
        assert_eq!(healthz_now(&back, &asked(true)).await.status_code, 200);
        let left = all[0].jetstream.read().clone().expect("it runs");
        assert_eq!((left.unhealthy(), left.probe().await), (None, Ok(())), "it can serve what it has");
        ended(&back).await;
        // With empty directories others come in its place, and the stream has three replicas again.
        let s3 = server("s3", &dir, &[&all[0]]).await;
        let s4 = server("s4", &dir, &[&all[0], &s3]).await;
        on(&js, "the new ones have it", |names| names == ["s0", "s3", "s4"]).await;
        assert_eq!(publish(&js, "23").await, 23);
        // What was said stays said.
        ended(&all[0]).await;
        let s0 = server("s0", &dir, &[&s3, &s4]).await;
        let js = context(&s3).await;
        on(&js, "all three are there", |names| names == ["s0", "s3", "s4"]).await;
        let mut s = js.get_stream("S").await.expect("it is there");
        assert_eq!(s.info().await.expect("it answers").state.messages, 23);
        for s in [s0, s3, s4] {
            s.stop();
        }
    });
}

#[test]
fn k9_a_stream_in_memory_that_all_have_forgotten_begins_anew() {
    run(async {
        let dir = Dir::new("forgotten");
        let mut all = servers(3, &dir).await;
        let js = context(&all[0]).await;
        js.create_stream(config(1, stream::StorageType::Memory)).await.expect("it is made");
        assert_eq!(publish(&js, "1").await, 1);
        let durable = async_nats::jetstream::consumer::pull::Config {
            durable_name: Some("c".into()),
            ..Default::default()
        };
        let s = js.get_stream("S").await.expect("it is there");
        s.create_consumer(durable).await.expect("it is made");
        js.update_stream(config(3, stream::StorageType::Memory)).await.expect("it grows");
        on(&js, "it has three replicas", |names| names.len() == 3).await;
        assert_eq!(publish(&js, "2").await, 2);
        for s in &all {
            s.stop();
        }
        for s in &all {
            ended(s).await;
        }
        for i in 0..3 {
            let others: Vec<Arc<Server>> = all[..i].to_vec();
            all[i] = server(&format!("s{i}"), &dir, &others.iter().collect::<Vec<_>>()).await;
        }
        formed(&all).await;
        let js = context(&all[0]).await;
        assert_eq!(publish(&js, "3").await, 1, "K-9: it is there, and empty");
        let s = js.get_stream("S").await.expect("it is there");
        let mut c = s.get_consumer::<async_nats::jetstream::consumer::pull::Config>("c").await.expect("K-14");
        assert_eq!(c.info().await.expect("it answers").num_pending, 1, "K-14: what came since is for it");
        on(&js, "it has three replicas", |names| names.len() == 3).await;
        for s in &all {
            s.stop();
        }
    });
}

/// What one server alone has is known while it is away, comes back with it, and is not given up for a server of its name with an empty disk.
#[test]
fn what_one_server_has_is_listed_while_it_is_away_and_waited_for() {
    run(async {
        let dir = Dir::new("one");
        let all = servers(3, &dir).await;
        let js = context(&all[0]).await;
        js.create_stream(config(1, stream::StorageType::File)).await.expect("it is made");
        assert_eq!(publish(&js, "1").await, 1);
        let s = js.get_stream("S").await.expect("it is there");
        for (name, memory_storage) in [("logged", false), ("memory", true)] {
            let durable = jetstream::consumer::pull::Config {
                durable_name: Some(name.into()),
                memory_storage,
                ..Default::default()
            };
            s.create_consumer(durable).await.expect("it is made");
        }
        let only = on(&js, "it is led", |names| names.len() == 1).await.remove(0);
        let i = all.iter().position(|s| *s.name == *only).expect("it is one of them");
        let (left, other) = (&all[(i + 1) % 3], &all[(i + 2) % 3]);
        ended(&all[i]).await;
        let ask = async |what: &str, fits: &dyn Fn(&Value) -> bool| {
            let deadline = env::now() + PATIENCE;
            loop {
                let mut a = Peer::new(left, "a").await;
                let said = a.ask(&format!("$JS.API.{what}"), "").await.body;
                let said: Value = serde_json::from_str(&said).expect("an answer is JSON");
                if fits(&said) {
                    return said;
                }
                assert!(env::now() < deadline, "{what}: {said}");
                env::sleep(Duration::from_millis(50)).await;
            }
        };
        let both = json!(["logged", "memory"]);
        let listed = ask("CONSUMER.LIST.S", &|v| v["missing"] == both).await;
        assert_eq!((&listed["total"], &listed["consumers"]), (&json!(2), &json!([])), "{listed}");
        ask("CONSUMER.NAMES.S", &|v| v["consumers"] == both).await;
        ask("STREAM.INFO.S", &|v| v["error"]["err_code"] == 10118).await;
        // With another disk.
        let empty = Dir::new("one-empty");
        let new = server(&only, &empty, &[left, other]).await;
        ask("STREAM.INFO.S", &|v| v["error"]["err_code"] == 10194).await;
        let details = HealthzOptions { details: true, ..HealthzOptions::default() };
        for s in [left, &new] {
            let h = healthz_now(s, &details).await;
            let said: Vec<&str> = h.errors.iter().map(|e| &*e.error).collect();
            assert!(h.status_code == 200 && said.len() == 1 && said[0].contains("'A > S'"), "{said:?}");
        }
        ended(&new).await;
        let back = server(&only, &dir, &[left, other]).await;
        let listed = ask("CONSUMER.LIST.S", &|v| v["total"] == 2 && v["missing"].is_null()).await;
        let names = listed["consumers"].as_array().into_iter().flatten().map(|c| c["name"].clone());
        assert_eq!(json!(names.collect::<Vec<_>>()), both, "K-14");
        assert_eq!(publish(&js, "2").await, 2);
        for s in [left, other, &back] {
            s.stop();
        }
    });
}

/// It has no say any more, and is in nobody's way: what its clients ask for goes to the others.
#[test]
fn clients_of_a_server_that_was_removed_are_answered_by_the_others() {
    run(async {
        let dir = Dir::new("removed");
        let all = servers(4, &dir).await;
        let js = context(&all[0]).await;
        js.create_stream(config(3, stream::StorageType::File)).await.expect("it is made");
        let members = on(&js, "it has three replicas", |names| names.len() == 3).await;
        assert_eq!(publish(&js, "1").await, 1);
        let out = all.iter().position(|s| !members.contains(&s.name.to_string())).expect("one has nothing");
        ended(&all[out]).await;
        let others: Vec<&Arc<Server>> = (0..4).filter(|i| *i != out).map(|i| &all[i]).collect();
        let name = all[out].name.to_string();
        let r = operate(others[0], "SERVER.REMOVE", json!({ "peer": name }), |v| v["error"].is_null()).await;
        assert_eq!(r["success"], true, "{r}");
        let back = server(&name, &dir, &others).await;
        let engine = back.jetstream.read().clone().expect("it runs");
        eventually("it knows", move || engine.unhealthy_meta().is_some_and(|why| why.contains("removed")))
            .await;
        let js = context(&back).await;
        let again = on(&js, "it is found", |names| names.len() == 3).await;
        assert_eq!(again, members);
        assert_eq!(publish(&js, "2").await, 2);
        let names =
            operate(&back, "META.LEADER.STEPDOWN", json!({"placement": {"preferred": "nobody"}}), |_| true);
        assert_eq!(names.await["error"]["err_code"], 10005);
        for s in others {
            s.stop();
        }
        back.stop();
    });
}

#[test]
fn a_server_is_emptied_and_a_stream_moved() {
    run(async {
        let dir = Dir::new("moves");
        let all = servers(4, &dir).await;
        let js = context(&all[0]).await;
        js.create_stream(config(3, stream::StorageType::File)).await.expect("it is made");
        for i in 1..=20 {
            assert_eq!(publish(&js, &i.to_string()).await, i);
        }
        let first = on(&js, "it has three replicas", |names| names.len() == 3).await;
        let good = |v: &Value| v["error"].is_null();
        let nobody = js.client().request("$JS.API.STREAM.PEER.REMOVE.S", r#"{"peer":""}"#.into()).await;
        let nobody: Value = serde_json::from_slice(&nobody.expect("an answer").payload).expect("JSON");
        assert_eq!(nobody["error"]["err_code"], 10003, "{nobody}");
        let r = operate(&all[1], "SERVER.EVACUATE", json!({"peer": first[0]}), good).await;
        assert_eq!(r["success"], true, "{r}");
        let second = on(&js, "it has left", |names| names.len() == 3 && !names.contains(&first[0])).await;
        // Evacuated it gets nothing new, so there is nowhere to go. Until the one that has left is forgotten the move before is under way.
        let away = json!({"server": second[0]});
        let refused = |code: u64| move |v: &Value| v["error"]["err_code"] == code;
        operate(&all[2], "ACCOUNT.STREAM.MOVE.A.S", away.clone(), refused(10005)).await;
        operate(&all[2], "ACCOUNT.STREAM.CANCEL_MOVE.A.S", json!({}), refused(10129)).await;
        operate(&all[2], "ACCOUNT.STREAM.MOVE.A.T", away.clone(), refused(10059)).await;
        operate(&all[2], "ACCOUNT.STREAM.MOVE.NOPE.T", away, refused(10035)).await;
        operate(&all[2], "ACCOUNT.STREAM.MOVE.A.S", json!({"server": "nobody"}), refused(10044)).await;
        let r = operate(&all[2], "ACCOUNT.STREAM.CANCEL_MOVE.A.T", json!({}), refused(10059)).await;
        assert_eq!(r["type"], "io.nats.jetstream.api.v1.stream_cancel_move_response");
        // A server that comes again is one like all others.
        let i = all.iter().position(|s| *s.name == *first[0]).expect("it is one of them");
        ended(&all[i]).await;
        let others: Vec<&Arc<Server>> = (0..4).filter(|k| *k != i).map(|k| &all[k]).collect();
        let back = server(&first[0], &dir, &others).await;
        let js = context(others[0]).await;
        // The leader of the meta group alone answers who wants it alone; the group and the stream are shared.
        let leader_only = server::monitor::JszOptions { leader_only: true, ..Default::default() };
        let leads = |s: &Server| server::monitor::jsz_is_meant(s, &leader_only);
        let everybody = || others.iter().copied().chain([&back]);
        eventually("one leads", || everybody().filter(|s| leads(s)).count() == 1).await;
        let shared = |s: &Server| server::monitor::jsz(s, &leader_only, None).stats.ha_assets;
        eventually("three have the stream", || everybody().map(|s| shared(s)).sum::<usize>() == 4 + 3).await;
        let away = json!({"server": second[0]});
        let r = operate(others[0], "ACCOUNT.STREAM.MOVE.A.S", away, good).await;
        assert_eq!(r["config"]["name"], "S", "{r}");
        assert_eq!(r["config"]["metadata"]["_nats.level"], "5", "{r}");
        let third = on(&js, "it has moved", |names| names.len() == 3 && !names.contains(&second[0])).await;
        assert!(third.contains(&first[0]), "{third:?}");
        assert_eq!(publish(&js, "21").await, 21);
        for s in others {
            s.stop();
        }
        back.stop();
    });
}
