//! Notes of consumers in the meta group: of streams in memory, and of those that one server alone has in files.

use replica::NodeId;
use serde_json::{Value, json};

use super::{Server, World, all_current, run, stream, until};

fn in_memory(name: &str, replicas: usize) -> String {
    let subjects = [format!("{name}.>")];
    json!({ "name": name, "subjects": subjects, "num_replicas": replicas, "storage": "memory" }).to_string()
}

impl World {
    async fn consumer(&self, i: usize, config: Value) -> Value {
        let name = config["durable_name"].as_str().or(config["name"].as_str()).expect("a name").to_owned();
        let body = json!({ "stream_name": "M", "config": config }).to_string();
        self.at(i).good(&format!("CONSUMER.CREATE.M.{name}"), &body).await
    }
    /// A stream in memory and the place of its server.
    async fn memory_stream(&self) -> usize {
        let v = self.at(0).good("STREAM.CREATE.M", &in_memory("M", 1)).await;
        self.find(v["cluster"]["leader"].as_str().expect("a leader"))
    }
    /// The process of a server ends, and another begins.
    async fn restart(&mut self, i: usize) {
        let dir = self.kill(i).await;
        self.start(i, &dir).await;
    }
    /// Its consumers, when it answers.
    async fn consumers(&self, i: usize) -> Vec<Value> {
        let v = self.eventually(i, "CONSUMER.LIST.M", |v| v["error"].is_null()).await;
        v["consumers"].as_array().cloned().unwrap_or_default()
    }
}

/// A stream in files that one server has.
fn filed(at: usize) -> String {
    json!({ "name": "M", "subjects": ["M.>"], "placement": { "tags": [format!("host:s{at}")] } }).to_string()
}

/// What is noted of a stream, if anything is: the names, and whether there is more than those.
fn noted(s: &Server) -> Option<Vec<(String, bool)>> {
    let id = s.node.meta.find("A", "M")?.a.id;
    let all = s.node.meta.read(|m| m.notes(id).cloned())?;
    Some(all.all.iter().map(|(name, n)| (name.to_string(), !n.json.is_empty())).collect())
}

fn names(all: &[Value]) -> Vec<&str> {
    all.iter().filter_map(|c| c["name"].as_str()).collect()
}

/// K-14. Their positions are forgotten, as what they stood in is; nothing else.
#[test]
fn k14_consumers_of_a_stream_in_memory_are_there_after_its_server_began_anew() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        let leader = w.memory_stream().await;
        let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let durable = |name: &str| json!({ "durable_name": name, "ack_policy": "explicit" });
        let mut with_more = durable("a");
        (with_more["description"], with_more["metadata"]) = (json!("d"), json!({ "x": "y" }));
        w.consumer(one, with_more).await;
        w.consumer(other, durable("changed")).await;
        w.consumer(one, json!({ "durable_name": "changed", "ack_policy": "explicit", "max_ack_pending": 9 }))
            .await;
        w.consumer(one, durable("gone")).await;
        w.consumer(one, durable("remade")).await;
        w.consumer(leader, durable("paused")).await;
        let until_then = r#"{"pause_until":"2100-01-01T00:00:00Z"}"#;
        w.at(other).good("CONSUMER.PAUSE.M.paused", until_then).await;
        // It lives in its leader's memory and in no log.
        let memory = json!({ "name": "unlogged", "ack_policy": "none", "mem_storage": true, "num_replicas": 1,
            "inactive_threshold": 600_000_000_000i64 });
        w.consumer(one, memory).await;
        for name in ["gone", "remade"] {
            w.at(one).good(&format!("CONSUMER.DELETE.M.{name}"), "").await;
        }
        w.consumer(other, json!({ "durable_name": "remade", "ack_policy": "all" })).await;
        assert_eq!(w.publish("M.x", "1").await, 1);
        let strip = |mut all: Vec<Value>| {
            for c in &mut all {
                for moves in
                    ["ts", "delivered", "ack_floor", "num_pending", "num_ack_pending", "pause_remaining"]
                {
                    c.as_object_mut().expect("an object").remove(moves);
                }
            }
            all
        };
        for life in 1..3 {
            let before = strip(w.consumers(one).await);
            assert_eq!(names(&before), ["a", "changed", "paused", "remade", "unlogged"], "K-14: life {life}");
            w.restart(leader).await;
            assert_eq!(strip(w.consumers(other).await), before, "K-14: life {life}");
            let c = w.at(one).good("CONSUMER.INFO.M.a", "").await;
            assert_eq!(
                (&c["delivered"]["consumer_seq"], &c["num_ack_pending"]),
                (&json!(0), &json!(0)),
                "{c}"
            );
            // It is behind what the stream never gives again, and gets what comes.
            let seq = w.publish("M.x", "new").await;
            assert!(seq > life, "J-2");
            let reply = w.at(one).inbox();
            w.at(one).send("$JS.API.CONSUMER.MSG.NEXT.M.a", &reply, "1");
            let got = w.at(one).wait(&reply, 1).await.remove(0);
            assert!(got.body == "new" && got.reply.contains(&format!(".{seq}.1.")), "{got:?}");
        }
        // One that is deleted in a later life stays so, too.
        w.at(one).good("CONSUMER.DELETE.M.a", "").await;
        w.restart(leader).await;
        assert_eq!(names(&w.consumers(one).await), ["changed", "paused", "remade", "unlogged"]);
        // They go with their stream.
        w.at(one).good("STREAM.DELETE.M", "").await;
        w.memory_stream().await;
        assert!(w.consumers(one).await.is_empty());
        w.end().await;
    });
}

#[test]
fn k14_a_stream_that_all_have_forgotten_gets_its_consumers_again() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        w.memory_stream().await;
        w.consumer(0, json!({ "durable_name": "a", "ack_policy": "explicit" })).await;
        w.at(1).good("STREAM.UPDATE.M", &in_memory("M", 3)).await;
        w.eventually(2, "STREAM.INFO.M", |v| all_current(v, 2)).await;
        w.consumer(1, json!({ "durable_name": "b", "ack_policy": "explicit" })).await;
        // Another leader than the one that noted the first notes on.
        w.at(0).good("STREAM.LEADER.STEPDOWN.M", "").await;
        w.consumer(2, json!({ "durable_name": "c", "ack_policy": "explicit" })).await;
        w.at(0).good("CONSUMER.DELETE.M.a", "").await;
        let mut dirs = Vec::new();
        for i in 0..3 {
            dirs.push(w.kill(i).await);
        }
        for (i, dir) in dirs.iter().enumerate() {
            w.start(i, dir).await;
        }
        w.formed().await;
        assert_eq!(names(&w.consumers(1).await), ["b", "c"]);
        // Its log is on disks by now: there they stay, and are noted no more.
        w.at(0).good("CONSUMER.DELETE.M.b", "").await;
        let noted = |s: &Server| s.node.meta.read(|m| (1..20).any(|id| m.notes(id).is_some()));
        until("nothing is noted any more", || (!w.all().any(noted)).then_some(())).await;
        let dirs = [w.kill(0).await, w.kill(1).await, w.kill(2).await];
        for (i, dir) in dirs.iter().enumerate() {
            w.start(i, dir).await;
        }
        w.formed().await;
        assert_eq!(names(&w.consumers(1).await), ["c"]);
        w.end().await;
    });
}

/// While a server is listed that does not read notes there are none, and nobody waits for them. When it is gone they are made.
async fn older_servers_are_told_nothing(format: u32, config: String) {
    let mut w = World::new(3).await;
    w.formed().await;
    let old = crate::meta::Node {
        id: NodeId::new(77, 0),
        name: "old".into(),
        tags: Vec::new(),
        memory_max: 0,
        storage_max: 0,
        format: format - 1,
    };
    let old_id = old.id;
    let change = async |w: &World, c: crate::meta::Command| {
        w.at(0).node.change_meta(&c).await.expect("it is taken");
    };
    change(&w, crate::meta::Command::Node(old)).await;
    let knows = |s: &Server| s.node.all_read(format);
    until("all have heard of it", || (!w.all().any(knows)).then_some(())).await;
    let v = w.at(0).good("STREAM.CREATE.M", &config).await;
    let leader = w.find(v["cluster"]["leader"].as_str().expect("a leader"));
    let is_filed = v["config"]["storage"] == "file";
    let one = (leader + 1) % 3;
    w.consumer(one, json!({ "durable_name": "a", "ack_policy": "explicit", "mem_storage": true })).await;
    let id = w.at(one).node.meta.find("A", "M").expect("it is there").a.id;
    let noted = |s: &Server| s.node.meta.read(|m| m.notes(id).is_some_and(|n| n.all.contains_key("a")));
    assert!(!w.all().any(noted));
    // Whoever leads refuses it, whatever the one who asks believes.
    let note = crate::meta::Command::note(is_filed, id, 0, Default::default());
    let follower = (0..3).find(|i| !w.at(*i).node.meta.leads()).expect("one leads");
    assert!(w.at(follower).node.change_meta(&note).await.is_err());
    change(&w, crate::meta::Command::Remove(old_id)).await;
    until("it is noted", || w.all().all(noted).then_some(())).await;
    w.restart(leader).await;
    assert_eq!(names(&w.consumers(one).await), ["a"]);
    w.end().await;
}

#[test]
fn k14_older_servers_are_told_nothing_of_notes() {
    run(older_servers_are_told_nothing(super::super::shell::NOTES, in_memory("M", 1)));
}
#[test]
fn k14_older_servers_are_told_nothing_of_notes_of_streams_in_files() {
    run(older_servers_are_told_nothing(super::super::shell::FILES, filed(1)));
}

/// Its client makes one that is not durable anew if it is gone. A moment later it is noted as the others are.
#[test]
fn k14_nobody_waits_for_the_note_of_a_consumer_that_is_not_durable() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        w.at(0).good("STREAM.CREATE.M", &filed(2)).await;
        w.consumer(0, json!({ "durable_name": "before", "ack_policy": "explicit", "mem_storage": true }))
            .await;
        let ids: Vec<NodeId> = (0..3).map(|i| w.at(i).node.node_id()).collect();
        [0, 1].iter().for_each(|i| w.net.set(ids[2], ids[*i], false));
        let made = |more: Value| json!({ "stream_name": "M", "config": more }).to_string();
        let passing = json!({ "name": "p", "mem_storage": true, "num_replicas": 1, "ack_policy": "none",
            "inactive_threshold": 600_000_000_000i64 });
        let v = w.at(2).good("CONSUMER.CREATE.M.p", &made(passing)).await;
        assert_eq!(v["name"], "p");
        let durable = json!({ "durable_name": "d", "ack_policy": "explicit", "mem_storage": true });
        let v = w.at(2).api("CONSUMER.CREATE.M.d", &made(durable)).await;
        assert_eq!(v["error"]["err_code"], 10008, "{v}");
        [0, 1].iter().for_each(|i| w.net.set(ids[2], ids[*i], true));
        let noted_names = |s: &Server| noted(s).map(|n| n.into_iter().map(|(n, _)| n).collect::<Vec<_>>());
        until("it is noted", || {
            w.all().all(|s| noted_names(s).is_some_and(|n| n == ["before", "d", "p"])).then_some(())
        })
        .await;
        w.restart(2).await;
        w.eventually(1, "CONSUMER.NAMES.M", |v| v["consumers"] == json!(["before", "d", "p"])).await;
        w.end().await;
    });
}

/// Without a majority of the meta group nobody is told that a consumer of a stream in memory was made: what is not noted does not outlive the process.
#[test]
fn k14_what_cannot_be_noted_is_not_acknowledged() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        let leader = w.memory_stream().await;
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        w.consumer(leader, json!({ "durable_name": "before", "ack_policy": "explicit" })).await;
        let ids: Vec<NodeId> = (0..3).map(|i| w.at(i).node.node_id()).collect();
        others.iter().for_each(|i| w.net.set(ids[leader], ids[*i], false));
        let made = json!({ "stream_name": "M", "config": { "durable_name": "a", "ack_policy": "explicit" } })
            .to_string();
        for _ in 0..2 {
            // Nor is who asks again, and finds it there.
            let v = w.at(leader).api("CONSUMER.CREATE.M.a", &made).await;
            assert_eq!(v["error"]["err_code"], 10008, "{v}");
        }
        let passing = json!({ "stream_name": "M", "config": { "name": "p", "inactive_threshold": 600_000_000_000i64 } });
        let v = w.at(leader).api("CONSUMER.CREATE.M.p", &passing.to_string()).await;
        assert_eq!(
            v["error"]["err_code"], 10008,
            "nor of one that is not durable, while it is known that nothing is noted: {v}"
        );
        let v = w.at(leader).api("CONSUMER.DELETE.M.before", "").await;
        assert_eq!(v["error"]["err_code"], 10008, "{v}");
        others.iter().for_each(|i| w.net.set(ids[leader], ids[*i], true));
        let v = w.eventually(leader, "CONSUMER.DELETE.M.before", |v| v["error"]["err_code"] != 10008).await;
        assert_eq!(v["error"]["err_code"], 10014, "it was deleted: {v}");
        w.at(others[0]).good("CONSUMER.CREATE.M.a", &made).await;
        w.restart(leader).await;
        assert_eq!(names(&w.consumers(others[1]).await), ["a", "p"]);
        w.end().await;
    });
}

/// K-14. What its log has is as it was; what was in its process's memory is made anew, as by nats-server in a cluster.
#[test]
fn k14_consumers_in_memory_of_a_stream_in_files_are_there_after_its_server_began_anew() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        w.at(0).good("STREAM.CREATE.M", &filed(2)).await;
        w.consumer(0, json!({ "durable_name": "logged", "ack_policy": "explicit" })).await;
        let mem = json!({ "durable_name": "mem", "ack_policy": "explicit", "mem_storage": true });
        w.consumer(0, mem.clone()).await;
        w.consumer(1, json!({ "durable_name": "gone", "ack_policy": "explicit", "mem_storage": true })).await;
        w.consumer(1, json!({ "durable_name": "deleted", "ack_policy": "explicit" })).await;
        for i in 1..=2 {
            assert_eq!(w.publish("M.x", &i.to_string()).await, i);
        }
        // Only new messages, also of the second time that it is made.
        let new = json!({ "name": "new", "ack_policy": "none", "mem_storage": true, "num_replicas": 1,
            "deliver_policy": "new", "inactive_threshold": 600_000_000_000i64 });
        w.consumer(2, new).await;
        w.at(0).good("CONSUMER.DELETE.M.gone", "").await;
        w.at(0).good("CONSUMER.DELETE.M.deleted", "").await;
        for name in ["logged", "mem"] {
            let reply = w.at(2).inbox();
            w.at(2).send(&format!("$JS.API.CONSUMER.MSG.NEXT.M.{name}"), &reply, "1");
            let got = w.at(2).wait(&reply, 1).await.remove(0);
            w.at(2).send(&got.reply, "", "+ACK");
            let what = format!("CONSUMER.INFO.M.{name}");
            w.eventually(2, &what, |v| v["ack_floor"]["stream_seq"] == 1).await;
        }
        let made = w.at(1).good("CONSUMER.INFO.M.mem", "").await;
        for life in 1..3 {
            w.restart(2).await;
            w.eventually(1, "CONSUMER.NAMES.M", |v| v["total"] == 3).await;
            assert_eq!(names(&w.consumers(1).await), ["logged", "mem", "new"], "K-14: life {life}");
            let at = async |name: &str| w.at(1).good(&format!("CONSUMER.INFO.M.{name}"), "").await;
            assert_eq!(at("logged").await["ack_floor"]["stream_seq"], 1);
            let mem = at("mem").await;
            assert_eq!((&mem["created"], &mem["config"]), (&made["created"], &made["config"]));
            assert_eq!(
                (&mem["ack_floor"]["stream_seq"], &mem["num_pending"]),
                (&json!(0), &json!(2)),
                "{mem}"
            );
            assert_eq!(at("new").await["num_pending"], 0);
        }
        let all = [("logged", false), ("mem", true), ("new", true)];
        let all = all.map(|(name, more)| (name.to_owned(), more));
        until("just those are noted", || w.all().all(|s| noted(s).is_some_and(|n| n == all)).then_some(()))
            .await;
        // In a later life it is deleted for good, too.
        w.at(1).good("CONSUMER.DELETE.M.mem", "").await;
        w.restart(2).await;
        w.eventually(1, "CONSUMER.NAMES.M", |v| v["consumers"] == json!(["logged", "new"])).await;
        // Made as another kind of consumer it stays one.
        w.consumer(1, json!({ "durable_name": "mem", "ack_policy": "all" })).await;
        w.at(1).good("CONSUMER.DELETE.M.mem", "").await;
        w.restart(2).await;
        w.eventually(1, "CONSUMER.NAMES.M", |v| v["consumers"] == json!(["logged", "new"])).await;
        w.end().await;
    });
}

/// With more servers they are in the log, from the next leader on; with one they are noted again.
#[test]
fn k14_consumers_in_memory_of_a_stream_in_files_go_into_its_log_when_others_have_it() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        w.at(0).good("STREAM.CREATE.M", &stream("M", 1)).await;
        w.consumer(0, json!({ "durable_name": "a", "ack_policy": "explicit", "mem_storage": true })).await;
        // Who answers waits a quarter of a second for the others to see it, which is short on a busy machine.
        let a = [("a".to_owned(), true)];
        until("it is noted", || noted(w.at(0)).filter(|n| *n == a)).await;
        w.at(1).good("STREAM.UPDATE.M", &stream("M", 3)).await;
        let v = w.eventually(2, "STREAM.INFO.M", |v| all_current(v, 2)).await;
        let leader = w.find(v["cluster"]["leader"].as_str().expect("a leader"));
        w.restart(leader).await;
        w.eventually(leader, "CONSUMER.NAMES.M", |v| v["consumers"] == json!(["a"])).await;
        until("nothing is noted any more", || w.all().all(|s| noted(s) == Some(Vec::new())).then_some(()))
            .await;
        // Its leader is no other than before, and has them in its log.
        w.eventually(0, "STREAM.INFO.M", |v| all_current(v, 2)).await;
        w.at(1).good("STREAM.UPDATE.M", &stream("M", 1)).await;
        w.consumer(0, json!({ "durable_name": "b", "ack_policy": "explicit", "mem_storage": true })).await;
        let all = Some(vec![("a".into(), false), ("b".into(), true)]);
        until("it is noted", || w.all().all(|s| noted(s) == all).then_some(())).await;
        w.end().await;
    });
}

/// They go where it goes.
#[test]
fn k14_consumers_in_memory_of_a_stream_in_files_move_with_it() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        w.at(0).good("STREAM.CREATE.M", &filed(2)).await;
        w.consumer(0, json!({ "durable_name": "a", "ack_policy": "explicit", "mem_storage": true })).await;
        w.consumer(0, json!({ "durable_name": "b", "ack_policy": "explicit" })).await;
        w.at(2).good("STREAM.UPDATE.M", &filed(1)).await;
        let moved = |v: &Value| v["cluster"]["leader"] == "s1" && v["cluster"]["replicas"].is_null();
        w.eventually(0, "STREAM.INFO.M", moved).await;
        w.kill(2).await;
        w.eventually(0, "CONSUMER.NAMES.M", |v| v["consumers"] == json!(["a", "b"])).await;
        w.restart(1).await;
        w.eventually(0, "CONSUMER.NAMES.M", |v| v["consumers"] == json!(["a", "b"])).await;
        let all = Some(vec![("a".into(), true), ("b".into(), false)]);
        until("as before", || w.all().all(|s| noted(s) == all).then_some(())).await;
        w.end().await;
    });
}

/// As by nats-server, whose lists of what is away wait longer.
#[test]
fn consumers_of_a_stream_that_is_away_are_listed() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        w.at(0).good("STREAM.CREATE.M", &filed(2)).await;
        let memory =
            json!({ "name": "N", "storage": "memory", "placement": { "tags": ["host:s2"] } }).to_string();
        w.at(0).good("STREAM.CREATE.N", &memory).await;
        w.at(0).good("STREAM.CREATE.E", &memory.replace("\"N\"", "\"E\"")).await;
        for name in ["a", "b", "c"] {
            w.consumer(1, json!({ "durable_name": name, "ack_policy": "explicit" })).await;
        }
        let n = json!({ "stream_name": "N", "config": { "durable_name": "n", "ack_policy": "explicit" } });
        w.at(1).good("CONSUMER.CREATE.N.n", &n.to_string()).await;
        // In the background, of a log on a disk.
        let all = ["a", "b", "c"].map(|name| (name.to_owned(), false));
        until("they are noted", || noted(w.at(0)).filter(|n| *n == all)).await;
        let dir = w.kill(2).await;
        w.eventually(1, "STREAM.NAMES", |v| v["error"].is_null()).await;
        for (of, offset, wanted) in [
            ("M", 0, json!(["a", "b", "c"])),
            ("M", 1, json!(["b", "c"])),
            ("N", 0, json!(["n"])),
            ("E", 0, json!([])),
        ] {
            let body = json!({ "offset": offset }).to_string();
            let total = wanted.as_array().map_or(0, Vec::len) + offset;
            let v = w.at(1).api(&format!("CONSUMER.NAMES.{of}"), &body).await;
            assert_eq!(
                (&v["consumers"], &v["total"], &v["offset"]),
                (&wanted, &json!(total), &json!(offset)),
                "{v}"
            );
            let v = w.at(0).api(&format!("CONSUMER.LIST.{of}"), &body).await;
            let missing = if total > 0 { wanted } else { Value::Null };
            assert_eq!(
                (&v["consumers"], &v["total"], &v["missing"]),
                (&json!([]), &json!(total), &missing),
                "{v}"
            );
        }
        // Of a log on a disk it is not said that there is none: it may have come to that disk last.
        for (what, code) in [("M.a", 10119), ("M.x", 10119), ("N.n", 10119), ("N.x", 10014)] {
            let v = w.at(0).api(&format!("CONSUMER.INFO.{what}"), "").await;
            assert_eq!(v["error"]["err_code"], code, "{what}: {v}");
        }
        // Who asks for what is there already is told as soon as it is known.
        let begun = env::now();
        assert_eq!(w.at(1).api("STREAM.CREATE.M", &filed(2)).await["error"]["err_code"], 10118);
        assert!(begun.elapsed() < std::time::Duration::from_secs(3));
        w.start(2, &dir).await;
        w.eventually(0, "CONSUMER.NAMES.M", |v| v["consumers"] == json!(["a", "b", "c"])).await;
        w.at(1).good("STREAM.CREATE.M", &filed(2)).await;
        w.end().await;
    });
}

/// Where only the meta group cannot be reached, consumers in the log of a stream are made and deleted as before; those in memory only are not.
#[test]
fn k14_only_what_has_to_be_noted_waits_for_it() {
    run(async {
        let w = World::new(3).await;
        w.formed().await;
        w.at(0).good("STREAM.CREATE.M", &filed(2)).await;
        w.consumer(2, json!({ "durable_name": "before", "ack_policy": "explicit" })).await;
        let ids: Vec<NodeId> = (0..3).map(|i| w.at(i).node.node_id()).collect();
        (0..2).for_each(|i| w.net.set(ids[2], ids[i], false));
        w.consumer(2, json!({ "durable_name": "a", "ack_policy": "explicit" })).await;
        w.at(2).good("CONSUMER.DELETE.M.before", "").await;
        let v = w.at(2).api("CONSUMER.DELETE.M.before", "").await;
        assert_eq!(v["error"]["err_code"], 10014, "{v}");
        let made = json!({ "stream_name": "M",
            "config": { "durable_name": "b", "ack_policy": "explicit", "mem_storage": true } });
        let v = w.at(2).api("CONSUMER.CREATE.M.b", &made.to_string()).await;
        assert_eq!(v["error"]["err_code"], 10008, "{v}");
        (0..2).for_each(|i| w.net.set(ids[2], ids[i], true));
        w.at(2).good("CONSUMER.CREATE.M.b", &made.to_string()).await;
        let all = Some(vec![("a".into(), false), ("b".into(), true)]);
        until("they are noted", || w.all().all(|s| noted(s) == all).then_some(())).await;
        w.end().await;
    });
}
