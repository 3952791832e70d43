//! Direct gets that come together.

use super::*;

/// Sends requests for the last messages of these subjects of `S` as one batch; where the answers come.
fn get_all(server: &Server, stream: &str, subjects: &[&str]) -> Vec<String> {
    let mut post = server.posts.take();
    subjects
        .iter()
        .map(|s| {
            let to = server.inbox();
            let subject = format!("$JS.API.DIRECT.GET.{stream}.{s}");
            assert_eq!(post.send(subject.as_bytes(), None, to.as_bytes(), 0, &[b""]), 1, "{s}");
            to
        })
        .collect()
}

async fn answers(server: &Server, to: &[String]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for to in to {
        let got = server.wait(to, 1).await;
        assert_eq!(got.len(), 1, "B-10: one answer to each");
        let line =
            |start: &str| got[0].head.lines().find(|l| l.starts_with(start)).unwrap_or_default().to_owned();
        all.push((line("NATS/1.0") + &line("Nats-Subject: "), got[0].body.clone()));
    }
    all
}

#[test]
fn b10_gets_that_come_together_are_answered_as_if_alone() {
    let disk = new_disk();
    env::run(async {
        let server = Server::start(&disk).await;
        let config = r#"{"name":"S","subjects":["a.>"],"allow_direct":true,"max_msgs_per_subject":1}"#;
        server.make_stream(config).await;
        server.make_stream(r#"{"name":"T","subjects":["b.>"],"allow_direct":true}"#).await;
        server.make_stream(r#"{"name":"U","subjects":["c.>"]}"#).await;
        for round in 0..3 {
            for i in 0..100 {
                server.store(&format!("a.{i}"), &format!("{round} {i}")).await;
            }
            // In memory, and on the disk.
            if round > 0 {
                server.node.replicas.flush().await.expect("a flush");
            }
            let subjects: Vec<String> = (0..150).map(|i| format!("a.{}", i * 7 % 110)).collect();
            let asked: Vec<&str> =
                subjects.iter().map(String::as_str).chain(["a.*", "a.>", "a.100"]).collect();
            let got = answers(&server, &get_all(&server, "S", &asked)).await;
            for (s, (head, body)) in subjects.iter().zip(&got) {
                let i: u32 = s[2..].parse().expect("a number");
                match i < 100 {
                    true => assert_eq!(
                        (&head[..], &body[..]),
                        (&format!("NATS/1.0Nats-Subject: {s}")[..], &format!("{round} {i}")[..])
                    ),
                    false => assert_eq!(head, "NATS/1.0 404 Message Not Found", "{s}"),
                }
            }
            let of = |i: usize| got[got.len() - 3 + i].clone();
            assert_eq!(
                of(0),
                ("NATS/1.0Nats-Subject: a.99".into(), format!("{round} 99")),
                "a wildcard means the last of all"
            );
            assert_eq!(of(1), of(0));
            assert_eq!(of(2).0, "NATS/1.0 404 Message Not Found");
        }
        // From one stream to another and back within a batch; what a stream does not offer is offered by nobody.
        server.store("b.1", "of T").await;
        let to: Vec<String> = {
            let mut post = server.posts.take();
            ["S.a.1", "S.a.2", "T.b.1", "S.a.3", "T.b.1"]
                .iter()
                .map(|what| {
                    let to = server.inbox();
                    assert_eq!(
                        post.send(
                            format!("$JS.API.DIRECT.GET.{what}").as_bytes(),
                            None,
                            to.as_bytes(),
                            0,
                            &[b""]
                        ),
                        1
                    );
                    to
                })
                .collect()
        };
        let bodies: Vec<String> = answers(&server, &to).await.into_iter().map(|a| a.1).collect();
        assert_eq!(bodies, ["2 1", "2 2", "of T", "2 3", "of T"]);
        assert_eq!(server.publish("$JS.API.DIRECT.GET.U.c.1", &server.inbox(), ""), 0);
        // One that is gone before the batch is over says so.
        let to = {
            let mut post = server.posts.take();
            let to = server.inbox();
            assert_eq!(post.send(b"$JS.API.DIRECT.GET.T.b.1", None, to.as_bytes(), 0, &[b""]), 1);
            let r = server
                .api("STREAM.UPDATE.T", r#"{"name":"T","subjects":["b.>"],"allow_direct":false}"#)
                .await;
            assert!(r["error"].is_null(), "{r}");
            to
        };
        assert!(server.wait(&to, 1).await[0].head.starts_with("NATS/1.0 503"));
        server.close().await;
    })
    .expect("a runtime starts");
}

/// The answers to one direct get: first line with what it says of numbers, and body.
async fn series(server: &Server, body: &str, n: usize) -> Vec<String> {
    let to = server.inbox();
    assert_eq!(server.publish("$JS.API.DIRECT.GET.S", &to, body), 1);
    let got = server.wait(&to, n).await;
    assert_eq!(got.len(), n, "{body}: {got:?}");
    got.iter().map(|g| g.head.replace("NATS/1.0 ", "").replace("\r\n", " ") + &g.body).collect()
}

#[test]
fn who_wants_no_headers_gets_none_and_ends_are_told_as_nats_server_tells_them() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["a.>"],"allow_direct":true}"#).await;
        for i in 1..=5 {
            server.store(&format!("a.{}", i % 3), &format!("body {i}")).await;
        }
        let end = |status: &str, pending: u64, last: u64| {
            format!("{status} Nats-Num-Pending: {pending} Nats-Last-Sequence: {last}  ")
        };
        for (body, answers) in [
            (r#"{"seq":2,"no_hdr":true}"#, vec!["body 2".to_owned()]),
            (r#"{"last_by_subj":"a.1","no_hdr":true}"#, vec!["body 4".to_owned()]),
            (r#"{"seq":9,"no_hdr":true}"#, vec!["404 Message Not Found  ".to_owned()]),
            (
                r#"{"batch":2,"seq":1,"no_hdr":true}"#,
                vec!["body 1".to_owned(), "body 2".to_owned(), end("204 EOB", 5, 2)],
            ),
            (r#"{"batch":-1,"seq":2}"#, vec![end("204 EOB", 4, 0)]),
            (r#"{"batch":-1,"next_by_subj":"a.1"}"#, vec![end("204 EOB", 2, 0)]),
            (r#"{"batch":-1,"last_by_subj":"a.1"}"#, vec![end("204 EOB", 5, 0)]),
            (r#"{"batch":2,"seq":9}"#, vec!["404 Message Not Found  ".to_owned()]),
            (
                r#"{"batch":3,"seq":1,"no_hdr":true,"max_bytes":-1}"#,
                vec!["body 1".to_owned(), end("204 EOB", 5, 1)],
            ),
            (
                r#"{"multi_last":["a.>"],"seq":6}"#,
                vec![end("204 EOB", 0, 0).trim_end().to_owned() + " Nats-UpTo-Sequence: 5  "],
            ),
            (
                r#"{"multi_last":["a.>"],"seq":5,"up_to_seq":3}"#,
                vec![end("204 EOB", 0, 0).trim_end().to_owned() + " Nats-UpTo-Sequence: 3  "],
            ),
            (r#"{"multi_last":["b"],"seq":6}"#, vec!["404 No Results  ".to_owned()]),
        ] {
            assert_eq!(series(&server, body, answers.len()).await, answers, "{body}");
        }
        // Of one message alone, also where its subject stands in that of the request.
        let got = server.ask("$JS.API.DIRECT.GET.S.a.2", r#"{"no_hdr":true}"#).await;
        assert_eq!((&*got.head, &*got.body), ("", "body 5"));
        // Too many are too many, wherever the answer is to begin.
        for i in 0..1025 {
            server.store(&format!("a.x.{i}"), "x").await;
        }
        let answers = ["413 Too Many Results  ".to_owned()];
        assert_eq!(series(&server, r#"{"multi_last":["a.x.*"],"seq":1000,"batch":1}"#, 1).await, answers);
        server.close().await;
    })
    .expect("a runtime starts");
}
