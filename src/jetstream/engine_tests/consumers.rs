//! Consumers on one server: what is logged before it is sent, what survives an end of the process, what does not.

use replica::Machine;

use super::*;

/// Stream sequence and number of the delivery.
fn parts(reply: &str) -> (u64, u64) {
    let t: Vec<&str> = reply.split('.').collect();
    (t[5].parse().expect("a sequence"), t[4].parse().expect("a count"))
}

#[test]
fn c2_a_delivery_that_counts_is_logged_before_it_leaves() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let s = server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        let config = r#"{"durable_name":"D","ack_policy":"explicit","max_deliver":2}"#;
        server.make_consumer("S", "D", config).await;
        server.store("a.x", "1").await;
        let to = server.pull("S", "D", r#"{"batch":3,"no_wait":true}"#);
        let mut out = Vec::new();
        s.take_proposals(&mut out);
        assert_eq!(out.len(), 1);
        tokio::task::yield_now().await;
        assert!(server.got(&to).is_empty(), "C-2: it is not in the log");
        s.core.lock().handle.clone().expect("it is open").propose(out.remove(0)).expect("it leads");
        // What ends the request does not overtake what it brought.
        let got = server.wait(&to, 2).await;
        assert_eq!(got[0].body, "1");
        assert!(got[1].head.starts_with("NATS/1.0 404"), "{got:?}");
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn many_deliveries_go_into_one_entry() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let s = server.make_stream(r#"{"name":"W","subjects":["a.>"],"retention":"workqueue"}"#).await;
        server.make_consumer("W", "D", r#"{"durable_name":"D","ack_policy":"explicit"}"#).await;
        for _ in 0..600 {
            server.publish("a.x", "", "1");
        }
        s.tail_applied().await;
        server.until("all are stored", || (s.group().state().last.0 == 600).then_some(())).await;
        let before = s.group().last().0.0;
        let got = server.wait(&server.pull("W", "D", r#"{"batch":600}"#), 600).await;
        assert_eq!(got.len(), 600);
        let entries = s.group().last().0.0 - before;
        assert!((1..=12).contains(&entries), "{entries} entries for 600 deliveries");
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn j6_never_beyond_max_deliver_through_power_failures() {
    let disk = new_disk();
    life(&disk, |server| async move {
        server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        let config = r#"{"durable_name":"D","ack_policy":"explicit","max_deliver":3}"#;
        server.make_consumer("S", "D", config).await;
        for i in 0..4 {
            server.store("a.x", &i.to_string()).await;
        }
        // The second is done with for good.
        let got = server.wait(&server.pull("S", "D", r#"{"batch":2}"#), 2).await;
        server.ask(&got[1].reply, "+ACK").await;
    });
    let mut counts = std::collections::BTreeMap::from([(1u64, 1u64), (2, 1)]);
    for _ in 0..4 {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = seen.clone();
        life(&disk, |server| async move {
            server.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.D");
            let info = server.consumer_info("S", "D").await;
            let pending = info["num_ack_pending"].as_u64().expect("a number");
            // A refused one comes again at once, as long as it may.
            let mut left = pending + info["num_pending"].as_u64().expect("a number");
            while left > 0 {
                let to = server.pull("S", "D", r#"{"batch":1,"expires":100000000}"#);
                let got = server.wait(&to, 1).await.remove(0);
                if got.reply.is_empty() {
                    // Not due before its wait is over.
                    break;
                }
                note.lock().push(parts(&got.reply));
                left -= 1;
            }
        });
        for (seq, count) in seen.lock().iter() {
            let n = counts.entry(*seq).or_default();
            *n += 1;
            assert!(*count >= *n && *count <= 3, "J-6: {seq} came as delivery {count}, the {n}th that left");
            assert_ne!(*seq, 2, "its acknowledgement was confirmed");
        }
    }
    assert!(counts.contains_key(&4), "all came at least once: {counts:?}");
}

#[test]
fn a_consumer_in_memory_is_gone_after_a_restart_and_nothing_else_is() {
    let disk = new_disk();
    life(&disk, |server| async move {
        server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        let memory = r#"{"durable_name":"M","ack_policy":"explicit","mem_storage":true}"#;
        server.make_consumer("S", "M", memory).await;
        server.make_consumer("S", "D", r#"{"durable_name":"D","ack_policy":"explicit"}"#).await;
        server.store("a.x", "1").await;
        for c in ["M", "D"] {
            let got = server.wait(&server.pull("S", c, r#"{"batch":1}"#), 1).await;
            server.ask(&got[0].reply, "+ACK").await;
        }
        server.store("a.x", "2").await;
    });
    for _ in 0..2 {
        life(&disk, |server| async move {
            let names = server.api("CONSUMER.NAMES.S", "").await;
            assert_eq!(names["consumers"], serde_json::json!(["D"]), "{names}");
            let got = server.wait(&server.pull("S", "D", r#"{"batch":1,"no_wait":true}"#), 1).await;
            let status = server.consumer_info("S", "D").await;
            assert!(got[0].body == "2" || status["num_ack_pending"] == 1, "{got:?} {status}");
            let memory = r#"{"durable_name":"M","ack_policy":"explicit","mem_storage":true}"#;
            server.make_consumer("S", "M", memory).await;
            let got = server.wait(&server.pull("S", "M", r#"{"batch":1}"#), 1).await;
            assert_eq!(got[0].body, "1", "it begins anew");
        });
    }
}

/// More consumers than are asked one by one: filters find them, also those that changed, and what nobody needs goes.
#[test]
fn many_consumers_are_found_by_their_filters() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let s = server.make_stream(r#"{"name":"I","subjects":["a.>"],"retention":"interest"}"#).await;
        let config =
            |filter: &str| format!("{{\"ack_policy\":\"explicit\",\"filter_subject\":\"{filter}\"}}");
        for i in 0..20 {
            let filter = if i < 18 { format!("a.{i}") } else { "a.*".into() };
            let durable = config(&filter).replacen('{', &format!("{{\"durable_name\":\"C{i}\","), 1);
            server.make_consumer("I", &format!("C{i}"), &durable).await;
        }
        let waiting: Vec<String> = (0..20)
            .map(|i| server.pull("I", &format!("C{i}"), r#"{"batch":10,"expires":30000000000}"#))
            .collect();
        server.store("a.3", "three").await;
        server.store("a.nobody.else", "gone").await;
        for i in [3, 18, 19] {
            assert_eq!(server.wait(&waiting[i], 1).await[0].body, "three");
        }
        assert!(server.got(&waiting[4]).is_empty());
        assert_eq!(s.group().state().msgs, 1, "nobody is interested in the second");
        // Another filter: what was delivered under the old one is awaited still, and leaves with its message.
        let other = config("a.other").replacen('{', "{\"durable_name\":\"C3\",", 1);
        server.make_consumer("I", "C3", &other).await;
        assert_eq!(server.consumer_info("I", "C3").await["num_ack_pending"], 1);
        let r = server.api("STREAM.MSG.DELETE.I", r#"{"seq":1}"#).await;
        assert_eq!(r["success"], true, "{r}");
        for c in ["C3", "C18"] {
            assert_eq!(server.consumer_info("I", c).await["num_ack_pending"], 0, "{c}");
        }
        let seq = server.store("a.other", "again").await;
        for i in [3, 18, 19] {
            let got = server.wait(&waiting[i], 2).await;
            assert_eq!(got[1].body, "again");
            assert_eq!(s.group().state().msgs, 1, "C{i} has not acknowledged it");
            server.ask(&got[1].reply, "+ACK").await;
        }
        server.until(&format!("{seq} leaves"), || (s.group().state().msgs == 0).then_some(())).await;
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn acknowledgements_that_nobody_awaits_are_taken_by_nobody() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["S"]}"#).await;
        server.make_consumer("S", "N", r#"{"durable_name":"N","ack_policy":"none"}"#).await;
        server.make_consumer("S", "D", r#"{"durable_name":"D","ack_policy":"explicit"}"#).await;
        for _ in 0..4 {
            server.store("S", "x").await;
        }
        for c in ["N", "D"] {
            server.wait(&server.pull("S", c, r#"{"batch":4}"#), 4).await;
        }
        let ack = |subject: &str| {
            server.publish(&format!("$JS.ACK.{subject}.1.700000000.0"), &server.inbox(), "+ACK")
        };
        assert_eq!(ack("S.N.1.1"), 0, "it awaits none");
        assert_eq!(ack("S.X.1.1"), 0, "it is not there");
        // In the newer layout: whose they are is looked at. `A` hashes to that.
        for foreign in ["_.zzzzzzzz", "_._", "hub.NUmM6cRx"] {
            assert_eq!(ack(&format!("{foreign}.S.D.1.1")), 0, "{foreign}");
        }
        assert_eq!(server.consumer_info("S", "D").await["num_ack_pending"], 4);
        assert_eq!(ack("_.NUmM6cRx.S.D.1.1"), 1);
        assert_eq!(ack("S.D.1.2"), 1);
        assert_eq!(server.consumer_info("S", "D").await["num_ack_pending"], 2);
        // Nor without a wish for an answer, together with others.
        let mut post = server.posts.take();
        for subject in ["_.zzzzzzzz.S.D.1.3.3.700000000.0", "S.D.1.4.4.700000000.0"] {
            post.send(format!("$JS.ACK.{subject}").as_bytes(), None, b"", 0, &[b"+ACK"]);
        }
        drop(post);
        assert_eq!(server.consumer_info("S", "D").await["num_ack_pending"], 1);
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn a_pull_for_a_higher_level_takes_nothing() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["S"]}"#).await;
        server.make_consumer("S", "D", r#"{"durable_name":"D","ack_policy":"explicit"}"#).await;
        server.store("S", "x").await;
        for (level, answer) in
            [("99", "NATS/1.0 412 Required Api Level"), ("x", "NATS/1.0 412 Required Api Level"), ("1", "")]
        {
            let (to, head) =
                (server.inbox(), format!("NATS/1.0\r\nNats-Required-Api-Level: {level}\r\n\r\n"));
            assert_eq!(server.publish_bytes("$JS.API.CONSUMER.MSG.NEXT.S.D", &to, &head, b"1"), 1);
            let got = server.wait(&to, 1).await.remove(0);
            assert_eq!(got.head.trim_end(), answer, "{level}");
        }
        server.close().await;
    })
    .expect("a runtime starts");
}
