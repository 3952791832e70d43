//! Messages that were read together.

use broker::{LinkFlags, Router, Run};

use super::*;

/// A message of a client's: subject, headers, payload.
type Sent = (String, String, String);

/// A client's messages of one read, each with where its answer goes; together as far as they may be, or each alone.
fn publish_all(server: &Server, together: bool, all: &[Sent]) -> Vec<String> {
    let (broker, id) = (server.broker.clone(), server.broker.next_id());
    let (kind, worker, pending_bytes_max, transport, inbound) = (Kind::Client, 0, 1 << 20, None, None);
    let link = Link::new(LinkOptions { id, kind, worker, pending_bytes_max, transport, inbound });
    link.set_flags(LinkFlags::HEADERS.with(LinkFlags::NO_RESPONDERS));
    let mut router = Router::new(broker, link, server.account.clone(), 1);
    let replies: Vec<String> = all.iter().map(|_| server.inbox()).collect();
    let bodies: Vec<String> = all.iter().map(|(_, head, body)| format!("{head}{body}\r\n")).collect();
    let mut run = Run::default();
    let mut in_runs = 0;
    for ((subject, head, _), (reply, body)) in all.iter().zip(replies.iter().zip(&bodies)) {
        let m = Message {
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            header_len: head.len(),
            body_crlf: body.as_bytes(),
            shared: None,
            shown: None,
        };
        if together && router.runs() && router.joins(&m) {
            run.push(m);
            in_runs += 1;
            if run.is_full() {
                router.publish_run(&mut run);
            }
        } else {
            router.publish_run(&mut run);
            router.publish(&m);
        }
    }
    router.publish_run(&mut run);
    router.flush();
    assert_eq!(together, in_runs > all.len() / 2, "{in_runs} of {} came in runs", all.len());
    replies
}

fn head(lines: &[(&str, String)]) -> String {
    let all: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    if all.is_empty() { all } else { format!("NATS/1.0\r\n{all}\r\n") }
}

/// All kinds of messages: plain ones, ids that come again, expectations that hold and that do not, too large ones, counters, what is for another stream.
fn mixture(round: usize) -> Vec<Sent> {
    let of = |i: usize| match i % 23 {
        3 | 4 | 9 => ("a.ids", head(&[("Nats-Msg-Id", format!("{round}-{}", i / 3))]), "id".to_owned()),
        7 => ("a.x", head(&[("Nats-Expected-Last-Sequence", "1".into())]), "not the last".to_owned()),
        8 => ("a.new", head(&[("Nats-Expected-Last-Subject-Sequence", "0".into())]), "the first".to_owned()),
        11 => ("b.other", String::new(), i.to_string()),
        13 => ("a.big", String::new(), "x".repeat(300)),
        15..=18 => ("c.counter", head(&[("Nats-Incr", format!("+{i}"))]), String::new()),
        19 => ("c.counter", String::new(), "no increment".to_owned()),
        _ => ("a.plain", String::new(), i.to_string()),
    };
    let sent = |(subject, head, body): (&str, String, String)| (subject.to_owned(), head, body);
    (0..230).map(|i| sent(of(i))).collect()
}

/// What a server says to the mixture, and keeps of it.
async fn said(together: bool) -> Vec<String> {
    let server = Server::start(&new_disk()).await;
    server.make_stream(r#"{"name":"S","subjects":["a.>"],"max_msg_size":200}"#).await;
    server.make_stream(r#"{"name":"T","subjects":["b.>"]}"#).await;
    server.make_stream(r#"{"name":"C","subjects":["c.>"],"allow_msg_counter":true}"#).await;
    let mut said = Vec::new();
    for round in 0..3 {
        for reply in publish_all(&server, together, &mixture(round)) {
            let got = server.wait(&reply, 1).await;
            assert_eq!(got.len(), 1, "one answer to each");
            said.push(got[0].body.clone());
        }
        // What was counted last has to be read from the disk.
        server.node.replicas.flush().await.expect("a flush");
    }
    for stream in ["S", "T", "C"] {
        let state = &server.api(&format!("STREAM.INFO.{stream}"), "").await["state"];
        let last = state["last_seq"].as_u64().expect("a number");
        for seq in 1..=last {
            let m = &server.api(&format!("STREAM.MSG.GET.{stream}"), &format!("{{\"seq\":{seq}}}")).await;
            let of = |key: &str| m["message"][key].to_string();
            said.push(format!("{stream} {seq} {} {} {}", of("subject"), of("hdrs"), of("data")));
        }
    }
    server.close().await;
    said
}

#[test]
fn j22_what_is_read_together_is_decided_as_if_alone() {
    env::run(async {
        let (alone, together) = (said(false).await, said(true).await);
        assert!(alone.iter().any(|s| s.contains("\"duplicate\": true")));
        assert!(alone.iter().any(|s| s.contains("wrong last sequence")));
        assert_eq!(together, alone);
    })
    .expect("a runtime starts");
}

#[test]
fn what_is_full_in_the_middle_of_a_run_says_so() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        let most = server.node.options.waiting_msgs_max;
        let all: Vec<Sent> = (0..most + 10).map(|i| ("a.x".into(), String::new(), i.to_string())).collect();
        let mut seqs = Vec::new();
        for reply in publish_all(&server, true, &all) {
            let body: Value = serde_json::from_str(&server.wait(&reply, 1).await[0].body).expect("JSON");
            seqs.push(body["seq"].as_u64().filter(|_| body["error"].is_null()));
        }
        let (taken, refused) = seqs.split_at(most);
        assert!(taken.iter().zip(1..).all(|(seq, n)| *seq == Some(n)), "{taken:?}");
        assert_eq!(refused, [None; 10], "nothing more is taken until something is applied");
        server.close().await;
    })
    .expect("a runtime starts");
}
