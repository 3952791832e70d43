//! Many streams and consumers made at once: they share syncs, see each other, and what was answered outlives the power.

use super::*;

/// Sends requests without waiting; where the answers come.
fn send(s: &Server, all: &[(String, String)]) -> Vec<String> {
    let one = |(what, body): &(String, String)| {
        let to = s.inbox();
        assert!(s.publish(&format!("$JS.API.{what}"), &to, body) > 0);
        to
    };
    all.iter().map(one).collect()
}

/// Their answers: 0, or the code of the error.
async fn codes(s: &Server, inboxes: &[String]) -> Vec<u64> {
    let mut codes = Vec::new();
    for to in inboxes {
        let got = s.wait(to, 1).await.remove(0);
        let v: Value = serde_json::from_str(&got.body).expect("JSON");
        codes.push(v["error"]["err_code"].as_u64().unwrap_or(0));
    }
    codes
}

fn stream(name: &str, subject: &str) -> (String, String) {
    (format!("STREAM.CREATE.{name}"), format!(r#"{{"name":"{name}","subjects":["{subject}"]}}"#))
}
fn consumer(stream: &str, name: &str, more: &str) -> (String, String) {
    let config = format!(r#"{{"durable_name":"{name}","ack_policy":"explicit"{more}}}"#);
    let body = format!(r#"{{"stream_name":"{stream}","config":{config}}}"#);
    (format!("CONSUMER.CREATE.{stream}.{name}"), body)
}

#[test]
fn many_share_a_sync() {
    env::run(async {
        let s = Server::start(&new_disk()).await;
        let syncs = || s.node.replicas.store().syncs();
        let before = syncs();
        let all: Vec<_> = (0..64).map(|i| stream(&format!("S{i}"), &format!("a.{i}"))).collect();
        assert_eq!(codes(&s, &send(&s, &all)).await, [0; 64]);
        let streams = syncs() - before;
        assert!(streams < 48, "{streams} syncs for 64 streams");
        let before = syncs();
        let all: Vec<_> = (0..64).map(|i| consumer("S7", &format!("C{i}"), "")).collect();
        assert_eq!(codes(&s, &send(&s, &all)).await, [0; 64]);
        let consumers = syncs() - before;
        assert!(consumers < 48, "{consumers} syncs for 64 consumers");
        s.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn one_by_one_each_takes_one_round_of_the_journal() {
    env::run(async {
        let s = Server::start(&new_disk()).await;
        let store = s.node.replicas.store().clone();
        let counts = || (store.rounds(), store.syncs());
        for i in 0..4 {
            let before = counts();
            assert_eq!(codes(&s, &send(&s, &[stream(&format!("S{i}"), &format!("a.{i}"))])).await, [0]);
            // The assignment, the group, its first reign and the configuration: they come from three tasks.
            assert_eq!(counts(), (before.0 + 1, before.1 + 1), "for a stream");
            let before = counts();
            assert_eq!(codes(&s, &send(&s, &[consumer(&format!("S{i}"), "C", "")])).await, [0]);
            assert_eq!(counts(), (before.0 + 1, before.1 + 1), "for a consumer");
        }
        drop(store);
        s.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn who_is_being_made_counts() {
    env::run(async {
        let s = Server::start(&new_disk()).await;
        s.node.set_account(
            &s.account,
            Some(AccountLimits { max_streams: 3, max_store: 100, ..AccountLimits::default() }),
        );
        // The same twice is made once; another of that name is refused, and so is what overlaps.
        let twice = [stream("A", "a.*"), stream("A", "a.*"), stream("A", "b.*"), stream("B", "a.x")];
        assert_eq!(codes(&s, &send(&s, &twice)).await, [0, 0, 10058, 10065]);
        let sized = |n: &str| {
            let body = format!(r#"{{"name":"{n}","subjects":["{n}"],"max_bytes":60}}"#);
            (format!("STREAM.CREATE.{n}"), body)
        };
        let mut all = codes(&s, &send(&s, &[sized("C"), sized("D")])).await;
        all.sort_unstable();
        assert_eq!(all, [0, 10047], "no more is set aside than there is");
        let three = [stream("E", "e"), stream("F", "f")];
        assert_eq!(codes(&s, &send(&s, &three)).await, [0, 10027]);
        // Made and deleted at once: one after the other, in this order.
        let both = [("STREAM.DELETE.E".to_owned(), String::new()), stream("E", "e2")];
        assert_eq!(codes(&s, &send(&s, &both)).await, [0, 0]);
        let both = [stream("G", "g"), ("STREAM.DELETE.E".to_owned(), String::new())];
        assert_eq!(codes(&s, &send(&s, &both)).await, [10027, 0]);

        s.make_stream(r#"{"name":"W","subjects":["w.>"],"retention":"workqueue","max_consumers":2}"#).await;
        let all = [
            consumer("W", "X", r#","filter_subject":"w.a""#),
            consumer("W", "X", r#","filter_subject":"w.a""#),
            consumer("W", "Y", r#","filter_subject":"w.a""#),
            consumer("W", "Z", r#","filter_subject":"w.b""#),
            consumer("W", "V", r#","filter_subject":"w.c""#),
        ];
        assert_eq!(codes(&s, &send(&s, &all)).await, [0, 0, 10100, 0, 10026]);
        s.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn what_was_answered_outlives_the_power() {
    for answered in [0, 1, 2, 5, 9, 16, 23, 24] {
        let disk = new_disk();
        let mut all: Vec<_> = (0..12).map(|i| stream(&format!("S{i}"), &format!("a.{i}"))).collect();
        let known: Arc<Mutex<Vec<bool>>> = Arc::new(Mutex::new(vec![false; 24]));
        life(&disk, |s| {
            let known = known.clone();
            async move {
                let first = codes(&s, &send(&s, &all[..4])).await;
                assert_eq!(first, [0; 4]);
                all.extend((0..12).map(|i| consumer(&format!("S{}", i % 4), &format!("C{i}"), "")));
                let inboxes = send(&s, &all[4..]);
                let ready = || {
                    let mut known = known.lock();
                    for (i, to) in inboxes.iter().enumerate() {
                        known[i + 4] = !s.got(to).is_empty();
                    }
                    known[..4].fill(true);
                    (known.iter().filter(|k| **k).count() >= answered).then_some(())
                };
                s.until("answers", ready).await;
            }
        });
        life(&disk, |s| {
            let known = known.clone();
            async move {
                assert_eq!(s.node.unhealthy(), None);
                let known = known.lock().clone();
                for (i, known) in known.iter().enumerate().filter(|(_, k)| **k) {
                    let r = match i {
                        0..12 => s.api(&format!("STREAM.INFO.S{i}"), "").await,
                        _ => s.consumer_info(&format!("S{}", i % 4), &format!("C{}", i - 12)).await,
                    };
                    assert!(*known && r["error"].is_null(), "{i} of {answered}: {r}");
                }
                // What is there is whole, and what is not can be made.
                for i in 0..12 {
                    let (what, body) = stream(&format!("S{i}"), &format!("a.{i}"));
                    let r = s.api(&what, &body).await;
                    assert!(r["error"].is_null(), "{r}");
                    s.store(&format!("a.{i}"), "x").await;
                }
            }
        });
    }
}
