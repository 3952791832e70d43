//! Backups made and restored on one server: what comes back, what is refused, and that nothing is left of a restore that failed.

use serde_json::json;

use super::*;

/// A backup: the answer, and the archive.
async fn backup(server: &Server, stream: &str, how: Value) -> (Value, Vec<u8>) {
    let to = server.inbox();
    let mut how = how;
    how["deliver_subject"] = json!(to);
    let answer = server.api(&format!("STREAM.SNAPSHOT.{stream}"), &how.to_string()).await;
    assert!(answer["error"].is_null(), "{answer}");
    let mut archive = Vec::new();
    for at in 0.. {
        let chunk = server.wait(&to, at + 1).await.remove(at);
        if chunk.bytes.is_empty() {
            assert_eq!(chunk.head, "", "as nats-server ends it");
            break;
        }
        archive.extend(chunk.bytes);
        if !chunk.reply.is_empty() {
            assert_eq!(server.publish(&chunk.reply, "", ""), 1);
        }
    }
    (answer, archive)
}

/// Sends an archive in pieces, and the end of it if `end` says so; the last answer.
async fn restore(server: &Server, config: &Value, archive: &[u8], end: bool) -> Value {
    let name = config["name"].as_str().expect("a name");
    let asked = json!({ "config": config, "state": {} }).to_string();
    let answer = server.api(&format!("STREAM.RESTORE.{name}"), &asked).await;
    let Some(to) = answer["deliver_subject"].as_str().filter(|s| !s.is_empty()) else { return answer };
    for piece in archive.chunks(700) {
        let reply = server.inbox();
        assert_eq!(server.publish_bytes(to, &reply, "", piece), 1);
        assert_eq!(server.wait(&reply, 1).await[0].body, "");
    }
    if !end {
        return answer;
    }
    serde_json::from_str(&server.ask(to, "").await.body).expect("JSON")
}

/// Bytes that nothing can be saved on.
fn noise(i: u64) -> Vec<u8> {
    (0..i * 4).map(|j| ((i * 7919 + j * 104_729).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect()
}

async fn filled(server: &Server) {
    server
        .make_stream(r#"{"name":"S","subjects":["s.>"],"retention":"interest","allow_msg_ttl":true}"#)
        .await;
    server.make_consumer("S", "D", r#"{"durable_name":"D","ack_policy":"explicit","max_deliver":5}"#).await;
    server
        .make_consumer("S", "M", r#"{"durable_name":"M","ack_policy":"explicit","mem_storage":true}"#)
        .await;
    for i in 1..=60u64 {
        let head = match i % 3 {
            0 => format!("NATS/1.0\r\nNats-Msg-Id: m{i}\r\n\r\n"),
            1 => "NATS/1.0\r\nNats-TTL: 1h\r\n\r\n".to_owned(),
            _ => String::new(),
        };
        let reply = server.inbox();
        server.publish_bytes(&format!("s.{}", i % 4), &reply, &head, &noise(i));
        server.wait(&reply, 1).await;
    }
    for consumer in ["D", "M"] {
        let got = server.wait(&server.pull("S", consumer, r#"{"batch":8}"#), 8).await;
        for i in [0, 1, 4] {
            server.ask(&got[i].reply, "+ACK").await;
        }
    }
    for seq in [20, 21, 60] {
        server.api("STREAM.MSG.DELETE.S", &json!({ "seq": seq }).to_string()).await;
    }
}

fn numbers(info: &Value) -> Vec<&Value> {
    ["num_pending", "num_ack_pending", "num_redelivered"]
        .iter()
        .map(|k| &info[*k])
        .chain(
            ["delivered", "ack_floor"]
                .iter()
                .flat_map(|k| [&info[*k]["consumer_seq"], &info[*k]["stream_seq"]]),
        )
        .collect()
}

#[test]
fn what_is_restored_is_what_was_backed_up() {
    let disk = new_disk();
    env::run(async {
        let server = Server::start(&disk).await;
        filled(&server).await;
        let (answer, archive) =
            backup(&server, "S", json!({ "chunk_size": 1024, "window_size": 2048 })).await;
        assert!(archive.len() > 3 * 1024, "several chunks, beyond the window: {}", archive.len());
        let was = server.api("STREAM.INFO.S", r#"{"deleted_details":true}"#).await;
        let consumers = [server.consumer_info("S", "D").await, server.consumer_info("S", "M").await];
        let refused = restore(&server, &answer["config"], &archive, true).await;
        assert_eq!(refused["error"]["err_code"], 10130);
        let mut other = answer["config"].clone();
        (other["name"], other["subjects"]) = (json!("T"), json!(["t.>"]));
        let done = restore(&server, &other, &archive, true).await;
        assert_eq!(done["type"], "io.nats.jetstream.api.v1.stream_create_response", "{done}");
        assert_eq!(done["config"]["retention"], "interest");
        let is = server.api("STREAM.INFO.T", r#"{"deleted_details":true}"#).await;
        assert_eq!((&is["state"], &is["config"]["subjects"]), (&was["state"], &json!(["t.>"])));
        for (name, was) in ["D", "M"].iter().zip(&consumers) {
            let is = server.consumer_info("T", name).await;
            assert_eq!(numbers(&is), numbers(was), "{name}");
            assert_eq!(is["config"], was["config"]);
        }
        let (s, t) = (server.stream("S"), server.stream("T"));
        for seq in 1..=60 {
            let of = |s: &Stream| match stream::Messages::get(&s.view(), seq) {
                Ok(found) => found,
                Err(_) => panic!("{seq} is not in memory"),
            };
            assert_eq!(of(&s), of(&t), "{seq}");
        }
        // Numbers go on, ids are remembered, and what the consumers are done with leaves as it would have there.
        let reply = server.inbox();
        server.publish_bytes("t.1", &reply, "NATS/1.0\r\nNats-Msg-Id: m57\r\n\r\n", b"x");
        assert_eq!(server.wait(&reply, 1).await[0].body, r#"{"stream":"T","seq":57,"duplicate": true}"#);
        assert_eq!(server.store("t.1", "x").await, 61);
        server.api("CONSUMER.DELETE.T.M", "").await;
        let got = server.wait(&server.pull("T", "D", r#"{"batch":1}"#), 1).await;
        server.ask(&got[0].reply, "+ACK").await;
        server
            .until("it leaves", || {
                let seq = got[0].reply.split('.').nth(5)?.parse().ok()?;
                stream::Messages::get(&t.view(), seq).ok()?.is_none().then_some(())
            })
            .await;
        server.close().await;
    })
    .expect("a runtime starts");
    disk.with(|d| d.power_failure());
    env::run(async {
        let server = Server::start(&disk).await;
        let is = server.api("STREAM.INFO.T", "").await;
        assert_eq!((&is["state"]["last_seq"], &is["state"]["consumer_count"]), (&json!(61), &json!(1)));
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn limits_hold_after_a_restore_and_nothing_needed_is_lost() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        filled(&server).await;
        let (answer, archive) = backup(&server, "S", json!({ "no_consumers": true })).await;
        let mut c = answer["config"].clone();
        // Nobody is there yet who needs them.
        (c["name"], c["subjects"]) = (json!("I"), json!(["i.>"]));
        let done = restore(&server, &c, &archive, true).await;
        assert_eq!(
            (&done["state"]["messages"], &done["state"]["consumer_count"]),
            (&json!(54), &json!(0)),
            "{done}"
        );
        (c["name"], c["subjects"], c["retention"]) = (json!("L"), json!(["l.>"]), json!("limits"));
        c["max_msgs_per_subject"] = json!(2);
        let done = restore(&server, &c, &archive, true).await;
        assert_eq!(
            (&done["state"]["messages"], &done["state"]["num_subjects"]),
            (&json!(8), &json!(4)),
            "{done}"
        );
        (c["name"], c["subjects"], c["max_msgs"]) = (json!("N"), json!(["n.>"]), json!(3));
        let done = restore(&server, &c, &archive, true).await;
        assert_eq!(
            (&done["state"]["messages"], &done["state"]["last_seq"]),
            (&json!(3), &json!(60)),
            "{done}"
        );
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn j26_a_restore_that_fails_leaves_nothing() {
    let disk = new_disk();
    env::run(async {
        let server = Server::start(&disk).await;
        filled(&server).await;
        let (answer, archive) = backup(&server, "S", json!({})).await;
        let mut c = answer["config"].clone();
        (c["name"], c["subjects"]) = (json!("T"), json!(["t.>"]));
        let mut damaged = archive.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x10;
        let mut overlaps = c.clone();
        overlaps["subjects"] = json!(["s.1"]);
        let mut queue = c.clone();
        queue["retention"] = json!("workqueue");
        for (config, bytes, why) in [
            (&c, &damaged[..], "s2: "),
            (&c, &archive[..middle], "unexpected EOF"),
            (&c, &b""[..], "EOF"),
            (&c, &b"something else entirely"[..], "s2: corrupt input"),
            (&overlaps, &archive[..], "error adding stream: subjects overlap with an existing stream (10065)"),
            (&queue, &archive[..], "failed to add consumer \"M\": multiple non-filtered consumers not allowed on workqueue stream (10099)"),
        ] {
            let done = restore(&server, config, bytes, true).await;
            assert_eq!(done["error"]["err_code"], 10062, "{done}");
            let text = done["error"]["description"].as_str().expect("a text");
            assert!(text.starts_with(&format!("restore failed: {why}")), "{done}");
            assert_eq!(server.api("STREAM.NAMES", "").await["streams"], json!(["S"]), "J-26: {why}");
        }
        // Neither does one that the server does not live through, though it has got as far as this.
        restore(&server, &c, &archive, false).await;
        assert_eq!(server.api("STREAM.NAMES", "").await["streams"], json!(["S", "T"]));
        assert_eq!(server.publish("t.1", "", "x"), 0, "nobody takes messages for it yet");
    })
    .expect("a runtime starts");
    disk.with(|d| d.power_failure());
    env::run(async {
        let server = Server::start(&disk).await;
        assert_eq!(server.api("STREAM.NAMES", "").await["streams"], json!(["S"]));
        // No client can make a stream that looks like one.
        let sly = r#"{"name":"T","subjects":["t.>"],"metadata":{"_fulmar.restoring":"true"}}"#;
        assert!(!server.make_stream(sly).await.config().is_restoring());
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn a_backup_that_nobody_acknowledges_ends() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        filled(&server).await;
        let how = r#"{"deliver_subject":"_INBOX.here","chunk_size":1024,"window_size":1024}"#;
        server.api("STREAM.SNAPSHOT.S", how).await;
        let got = server.wait("_INBOX.here", 2).await;
        assert_eq!((got[0].bytes.len(), &*got[1].head), (1024, "NATS/1.0 408 No Flow Response\r\n\r\n"));
        for (body, code) in [("", 10003), (r#"{"deliver_subject":""}"#, 10015)] {
            assert_eq!(server.api("STREAM.SNAPSHOT.S", body).await["error"]["err_code"], code);
        }
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn a_stream_that_begins_to_keep_by_interest_hears_of_acks() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let s = server.make_stream(r#"{"name":"S","subjects":["s.>"]}"#).await;
        server.make_consumer("S", "D", r#"{"durable_name":"D","ack_policy":"explicit"}"#).await;
        for _ in 0..3 {
            server.store("s.1", "x").await;
        }
        let update = r#"{"name":"S","subjects":["s.>"],"retention":"interest"}"#;
        assert!(server.api("STREAM.UPDATE.S", update).await["error"].is_null());
        let got = server.wait(&server.pull("S", "D", r#"{"batch":2}"#), 2).await;
        for m in &got {
            server.ask(&m.reply, "+ACK").await;
        }
        server.until("what was acknowledged leaves", || (s.group().state().msgs == 1).then_some(())).await;
        server.close().await;
    })
    .expect("a runtime starts");
}
