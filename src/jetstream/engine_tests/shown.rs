//! What is shown of a stream that has nothing, and who is told of what has gone.

use super::*;

impl Server {
    /// First and last sequence of a stream, and how many messages it has.
    async fn shown(&self, stream: &str) -> (u64, u64, u64) {
        let state = self.api(&format!("STREAM.INFO.{stream}"), "").await["state"].take();
        let n = |field: &str| state[field].as_u64().expect("a number");
        (n("first_seq"), n("last_seq"), n("messages"))
    }
    async fn stands(&self, stream: &str, consumer: &str) -> [u64; 4] {
        let i = self.consumer_info(stream, consumer).await;
        let n = |of: &str, field: &str| i[of][field].as_u64().expect("a number");
        let (d, f) = ("delivered", "ack_floor");
        [n(d, "consumer_seq"), n(d, "stream_seq"), n(f, "consumer_seq"), n(f, "stream_seq")]
    }
}

#[test]
fn sequences_that_are_never_given_are_shown_as_gone() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        for storage in ["file", "memory"] {
            let body = format!(r#"{{"name":"F","subjects":["f"],"first_seq":5,"storage":"{storage}"}}"#);
            let created = server.api("STREAM.CREATE.F", &body).await;
            assert_eq!(
                (&created["state"]["first_seq"], &created["state"]["last_seq"]),
                (&5.into(), &4.into())
            );
            assert_eq!(server.shown("F").await, (5, 4, 0));
            let all = server.api("STREAM.LIST", "").await;
            assert_eq!(all["streams"][0]["state"]["last_seq"], 4, "{all}");
            for policy in ["new", "all", "last"] {
                let config = format!(
                    r#"{{"durable_name":"{policy}","ack_policy":"explicit","deliver_policy":"{policy}"}}"#
                );
                server.make_consumer("F", policy, &config).await;
                assert_eq!(server.stands("F", policy).await, [0, 4, 0, 4], "{policy}");
            }
            // Where it begins was said when it was made.
            let r = server.api("STREAM.UPDATE.F", &body.replace(":5", ":9")).await;
            assert!(r["error"].is_null(), "{r}");
            assert_eq!(server.shown("F").await, (5, 4, 0));
            assert_eq!(server.store("f", "x").await, 5);
            assert_eq!(server.shown("F").await, (5, 5, 1));
            let to = server.pull("F", "new", "");
            assert_eq!(server.wait(&to, 1).await.len(), 1);
            assert_eq!(server.stands("F", "new").await, [1, 5, 0, 4]);
            assert_eq!(server.stands("F", "all").await, [0, 4, 0, 4]);
            let r = server.api("STREAM.PURGE.F", r#"{"seq":50}"#).await;
            assert_eq!(r["purged"], 1, "{r}");
            assert_eq!(server.shown("F").await, (50, 49, 0));
            let [_, delivered, _, acked] = server.stands("F", "new").await;
            assert_eq!((delivered, acked), (49, 49));
            assert_eq!(server.store("f", "x").await, 50);
            server.api("STREAM.DELETE.F", "").await;
        }
        server.make_stream(r#"{"name":"G","subjects":["g"]}"#).await;
        assert_eq!(server.shown("G").await, (0, 0, 0));
        server.api("STREAM.PURGE.G", r#"{"seq":5}"#).await;
        assert_eq!(server.shown("G").await, (5, 4, 0));
        server.close().await;
    })
    .expect("a runtime starts");
}

const EVENTS: &str = "$JS.EVENT.ADVISORY.>";

#[test]
fn a_batch_that_is_given_up_is_told_of_at_once() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["s.>"],"allow_atomic":true}"#).await;
        let told = "$JS.EVENT.ADVISORY.STREAM.BATCH_ABANDONED.S";
        server.subscribe(told);
        let send = async |id: &str, seq: u64, more: &str| {
            let head = format!("NATS/1.0\r\nNats-Batch-Id: {id}\r\nNats-Batch-Sequence: {seq}\r\n{more}\r\n");
            let to = server.inbox();
            assert_eq!(server.publish_bytes("s.1", &to, &head, b"x"), 1);
            server.wait(&to, 1).await.remove(0).body
        };
        let reason = |n: usize| {
            let got = server.got(told);
            let event: Value = serde_json::from_str(&got.get(n)?.body).expect("JSON");
            Some((event["batch"].as_str()?.to_owned(), event["reason"].as_str()?.to_owned()))
        };
        assert_eq!(send("g", 1, "").await, "");
        assert!(send("g", 3, "").await.contains("10176"));
        assert_eq!(reason(0), Some(("g".into(), "incomplete".into())));
        assert_eq!(send("u", 1, "").await, "");
        send("u", 2, "Nats-Required-Api-Level: 99\r\n").await;
        assert_eq!(reason(1), Some(("u".into(), "unsupported".into())));
        server.close().await;
    })
    .expect("a runtime starts");
}

/// A message that is deleted, or that a limit removes, while its acknowledgement is awaited; not one that is purged.
#[test]
fn nobody_is_told_of_what_a_purge_has_removed() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["s.>"],"max_msgs":8}"#).await;
        server.make_consumer("S", "c", r#"{"durable_name":"c","ack_policy":"explicit"}"#).await;
        for i in 0..8 {
            server.store(&format!("s.{}", i % 2), "x").await;
        }
        let to = server.pull("S", "c", r#"{"batch":8}"#);
        server.wait(&to, 8).await;
        server.subscribe(EVENTS);
        let gone = || {
            let all = server.got(EVENTS);
            let all = all.iter().map(|g| serde_json::from_str::<Value>(&g.body).expect("JSON"));
            let gone = all.filter(|e| e["type"] == "io.nats.jetstream.advisory.v1.terminated");
            gone.map(|e| e["stream_seq"].as_u64().expect("a number")).collect::<Vec<_>>()
        };
        let pending = async || server.consumer_info("S", "c").await["num_ack_pending"].as_u64();
        server.api("STREAM.MSG.DELETE.S", r#"{"seq":3}"#).await;
        server.store("s.0", "x").await;
        server.store("s.0", "x").await;
        server.until("they are told of", || (gone().len() == 2).then_some(())).await;
        assert_eq!((gone(), pending().await), (vec![3, 1], Some(6)));
        for purge in [r#"{"filter":"s.1","keep":2}"#, r#"{"filter":"s.1"}"#, r#"{"keep":2}"#, ""] {
            let r = server.api("STREAM.PURGE.S", purge).await;
            assert!(r["purged"].as_u64() > Some(0), "{purge}: {r}");
        }
        assert_eq!((gone(), pending().await), (vec![3, 1], Some(0)));
        server.close().await;
    })
    .expect("a runtime starts");
}
