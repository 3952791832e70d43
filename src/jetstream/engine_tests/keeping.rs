//! How a stream's configuration wants it kept reaches the store: what an acknowledgement waits for, and compression of what lies in segments.
//! What the store finds damaged reaches whoever listens.

use super::*;

async fn made(s: &Server, name: &str, more: &str) {
    let to = s.inbox();
    let body = format!(r#"{{"name":"{name}","subjects":["{name}.>"]{more}}}"#);
    assert!(s.publish(&format!("$JS.API.STREAM.CREATE.{name}"), &to, &body) > 0);
    let got = s.wait(&to, 1).await.remove(0);
    assert!(got.body.contains("\"created\""), "{}", got.body);
}

/// Publishes one after another, each when the one before is acknowledged; the journal's syncs that this took.
async fn published(s: &Server, name: &str, n: usize, body: &str) -> u64 {
    let before = s.node.replicas.store().syncs();
    for _ in 0..n {
        let to = s.inbox();
        assert!(s.publish(&format!("{name}.x"), &to, body) > 0);
        let got = s.wait(&to, 1).await.remove(0);
        assert!(got.body.contains("\"seq\""), "{}", got.body);
    }
    s.node.replicas.store().syncs() - before
}

#[test]
fn the_persist_mode_async_waits_for_no_sync_also_after_a_restart() {
    let disk = new_disk();
    env::run(async {
        let s = Server::start(&disk).await;
        made(&s, "sure", "").await;
        made(&s, "quick", r#","persist_mode":"async""#).await;
        assert!(published(&s, "sure", 20, "x").await >= 20);
        let quick = published(&s, "quick", 20, "x").await;
        assert!(quick < 5, "{quick} syncs");
        s.close().await;
    })
    .expect("a runtime starts");
    env::run(async {
        let s = Server::start(&disk).await;
        let quick = published(&s, "quick", 20, "x").await;
        assert!(quick < 5, "{quick} syncs");
        assert!(published(&s, "sure", 5, "x").await >= 5);
        s.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn a_stream_that_wants_compression_takes_less_room() {
    let body = "the same words again and again; ".repeat(30);
    let segments = |config: &str| {
        let disk = new_disk();
        env::run(async {
            let s = Server::start(&disk).await;
            made(&s, "S", "").await;
            if !config.is_empty() {
                let to = s.inbox();
                let update = format!(r#"{{"name":"S","subjects":["S.>"]{config}}}"#);
                assert!(s.publish("$JS.API.STREAM.UPDATE.S", &to, &update) > 0);
                let got = s.wait(&to, 1).await.remove(0);
                assert!(!got.body.contains("\"error\""), "{}", got.body);
            }
            published(&s, "S", 60, &body).await;
            s.close().await;
        })
        .expect("a runtime starts");
        disk.with(|d| {
            let files: Vec<String> = d.files().into_iter().filter(|f| f.contains("/segments/")).collect();
            files.iter().map(|f| d.stat(f).expect("it is there").len).sum::<u64>()
        })
    };
    let (plain, small) = (segments(""), segments(r#","compression":"s2""#));
    assert!(plain > 60 * body.len() as u64 && small < plain / 4, "{plain} bytes, compressed {small}");
}

#[test]
fn damage_that_the_scrub_finds_is_told_in_the_streams_account() {
    const EVENT: &str = "$JS.EVENT.ADVISORY.STREAM.DAMAGED.S";
    let disk = new_disk();
    env::run(async {
        let s = Server::start(&disk).await;
        made(&s, "S", "").await;
        published(&s, "S", 60, &"x".repeat(500)).await;
        s.close().await;
    })
    .expect("a runtime starts");
    env::run(async {
        let s = Server::start(&disk).await;
        s.subscribe(EVENT);
        disk.with(|d| {
            let segments: Vec<String> = d.files().into_iter().filter(|f| f.contains("/segments/")).collect();
            let file = segments.into_iter().max_by_key(|f| d.stat(f).map_or(0, |s| s.len));
            let file = file.expect("there is a segment");
            d.rot(&file, 20_000, 3).expect("it is that long");
        });
        s.node.replicas.store().scrub_now();
        let told = s.wait(EVENT, 1).await.remove(0);
        let v: Value = serde_json::from_str(&told.body).expect("JSON");
        assert_eq!(v["type"], "io.fulmar.jetstream.advisory.v1.stream_damaged", "{v}");
        assert_eq!(
            (&v["account"], &v["stream"], &v["server"]),
            (&"A".into(), &"S".into(), &"S".into()),
            "{v}"
        );
        let (first, last) = (v["first_seq"].as_u64().expect("known"), v["last_seq"].as_u64().expect("known"));
        assert!(1 <= first && first <= last && last <= 60 && last - first < 40, "{v}");
        s.close().await;
    })
    .expect("a runtime starts");
}

/// The message before it on its subject is named, also where that goes with the new one.
#[test]
fn a_republished_message_names_the_one_that_it_replaces() {
    env::run(async {
        let s = Server::start(&new_disk()).await;
        s.subscribe("rep.>");
        let mut seen = 0;
        for (name, more, rollup, lasts) in [
            ("one", r#","max_msgs_per_subject":1"#, "", [0, 0, 1, 3]),
            ("sub", r#","allow_rollup_hdrs":true"#, "sub", [0, 0, 1, 3]),
            ("all", r#","allow_rollup_hdrs":true"#, "all", [0, 0, 1, 3]),
            ("most", r#","max_msgs":1"#, "", [0, 0, 0, 3]),
            ("plain", "", "", [0, 0, 1, 3]),
        ] {
            let more = format!(r#","republish":{{"src":">","dest":"rep.>"}}{more}"#);
            made(&s, name, &more).await;
            let mut got = Vec::new();
            for (i, subject) in ["a", "b", "a", "a"].iter().enumerate() {
                let head = match rollup {
                    "" => String::new(),
                    _ if i < 2 => String::new(),
                    to => format!("NATS/1.0\r\nNats-Rollup: {to}\r\n\r\n"),
                };
                let to = s.inbox();
                assert!(s.publish_bytes(&format!("{name}.{subject}"), &to, &head, b"x") > 0);
                s.wait(&to, 1).await;
                // What lay in the journal lies in segments now.
                if i == 2 {
                    s.node.replicas.flush().await.expect("a flush");
                }
                seen += 1;
                let all = s.wait("rep.>", seen).await;
                let line = |h: &str| {
                    h.lines().find_map(|l| l.strip_prefix("Nats-Last-Sequence: ").map(str::to_owned))
                };
                got.push(line(&all[seen - 1].head).expect("it says so"));
            }
            assert_eq!(got, lasts.map(|n: u64| n.to_string()), "{name}");
        }
        s.close().await;
    })
    .expect("a runtime starts");
}

/// As with nats-server: a stream in memory ends with its process. Its name and its subjects are free, and whoever makes it anew publishes as to a new one.
#[test]
fn a_stream_in_memory_ends_with_the_process_that_held_it() {
    let disk = new_disk();
    for clean in [true, false, true, false] {
        env::run(async {
            let s = Server::start(&disk).await;
            assert_eq!(s.api("STREAM.NAMES", "").await["total"], 0, "ended cleanly before: {}", !clean);
            made(&s, "M", r#","storage":"memory""#).await;
            s.make_consumer("M", "D", r#"{"durable_name":"D","ack_policy":"explicit"}"#).await;
            for seq in 1..=3 {
                assert_eq!(s.store("M.x", "1").await, seq);
            }
            if clean {
                s.close().await;
            }
        })
        .expect("a runtime starts");
        disk.with(|d| d.power_failure());
    }
}
