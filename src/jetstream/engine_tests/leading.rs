//! Leading comes and goes.

use replica::{Machine, Role};
use serde_json::Value;

use super::*;
use crate::leading::Standing;

fn term(s: &Stream) -> replica::Term {
    match s.standing() {
        Standing::Leads(t) => t,
        other => panic!("{other:?}"),
    }
}

#[test]
fn c3_who_does_not_lead_decides_nothing_and_goes_on_later() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let s = server.make_stream(r#"{"name":"S","subjects":["a.>"],"allow_direct":true}"#).await;
        server
            .make_consumer("S", "D", r#"{"durable_name":"D","ack_policy":"explicit","filter_subject":"a.x"}"#)
            .await;
        server
            .make_consumer("S", "M", r#"{"durable_name":"M","ack_policy":"explicit","mem_storage":true}"#)
            .await;
        server.subscribe("to.push");
        server
            .make_consumer(
                "S",
                "P",
                r#"{"durable_name":"P","deliver_subject":"to.push","ack_policy":"none"}"#,
            )
            .await;
        assert_eq!(server.store("a.x", "1").await, 1);
        assert_eq!(server.store("a.x", "2").await, 2);
        let got = server.wait(&server.pull("S", "D", r#"{"batch":2}"#), 2).await;
        server.ask(&got[0].reply, "+ACK").await;
        let waiting = server.pull("S", "D", r#"{"batch":1,"expires":60000000000}"#);
        server.wait("to.push", 2).await;
        let t = term(&s);

        s.role(&Role::Follower { term: t, leader: Some(replica::NodeId::new(7, 7)) });
        assert_eq!(s.standing(), Standing::Follows(Some(replica::NodeId::new(7, 7))));
        assert!(!s.leads() && !server.account.has_interest(b"a.x"), "nobody takes messages");
        let told = server.wait(&waiting, 1).await;
        assert!(told[0].head.starts_with("NATS/1.0 409 Leadership Change"), "{told:?}");
        assert_eq!(server.publish("a.x", "", "3"), 0);
        // Gets go on, pulls and acknowledgements do not.
        assert_eq!(server.ask("$JS.API.DIRECT.GET.S", r#"{"seq":2}"#).await.body, "2");
        let r = server.api("STREAM.PURGE.S", "").await;
        assert_eq!(r["error"]["err_code"], 10009, "{r}");
        let reply = server.inbox();
        assert_eq!(server.publish(&got[1].reply, &reply, "+ACK"), 0);
        assert_eq!(s.seen().consumers, 2, "what lived in the leader's memory is gone");

        s.role(&Role::Leader { term: t });
        assert_eq!(server.store("a.x", "3").await, 3);
        // The second is awaited still, the first is not.
        let info = server.consumer_info("S", "D").await;
        assert_eq!(
            (&info["ack_floor"]["stream_seq"], &info["num_ack_pending"]),
            (&1.into(), &1.into()),
            "{info}"
        );
        let got = server.wait(&server.pull("S", "D", r#"{"batch":1}"#), 1).await;
        assert_eq!(got[0].body, "3");
        let pushed = server.wait("to.push", 3).await;
        assert_eq!(pushed[2].body, "3", "whoever listened is found again");
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn j24_what_is_open_is_not_answered_and_what_was_not_handed_out_is_refused() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let s = server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        assert_eq!(server.store("a.x", "1").await, 1);
        let t = term(&s);
        let (open, fresh) = (server.inbox(), server.inbox());
        server.publish("a.x", &open, "open");
        let mut out = Vec::new();
        // As the driver takes it: from here on it may be in the log.
        s.take_proposals(&mut out);
        assert_eq!(out.len(), 1);
        server.publish("a.x", &fresh, "fresh");
        s.role(&Role::Follower { term: t, leader: None });
        let told = server.wait(&fresh, 1).await;
        let e: Value = serde_json::from_str(&told[0].body).expect("JSON");
        assert_eq!(e["error"]["err_code"], 10008, "{e}");
        s.role(&Role::Leader { term: t });
        assert_eq!(server.store("a.x", "2").await, 2);
        assert!(server.got(&open).is_empty(), "{:?}", server.got(&open));
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn a_leader_makes_the_configuration_what_is_wanted() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let s = server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        let mut c = s.config();
        c.subjects = vec!["b.>".into()];
        s.want(serde_json::to_vec(&c).expect("plain data").into());
        s.configured().await.expect("it leads");
        assert_eq!(s.config().subjects, ["b.>"]);
        assert_eq!(server.store("b.x", "1").await, 1);
        // What is wanted while another leads comes with the next reign.
        let t = term(&s);
        s.role(&Role::Follower { term: t, leader: None });
        c.subjects = vec!["c.>".into()];
        s.want(serde_json::to_vec(&c).expect("plain data").into());
        assert_eq!(s.configured().await.map_err(|e| e.err_code), Err(10009));
        s.role(&Role::Leader { term: t });
        s.configured().await.expect("it leads");
        server.until("new subjects", || server.account.has_interest(b"c.x").then_some(())).await;
        assert_eq!(server.store("c.x", "2").await, 2);
        assert!(!server.account.has_interest(b"b.x"));
        server.close().await;
    })
    .expect("a runtime starts");
}

/// A batch is refused while one before it is under way: nothing is decided until that one is applied.
#[test]
fn j22_a_refusal_waits_for_what_was_handed_out_before() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let s = server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        let send = |body: &str| {
            let to = server.inbox();
            server.publish("a.x", &to, body);
            to
        };
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let a = send("a");
        s.take_proposals(&mut first);
        let b = send("b");
        s.take_proposals(&mut second);
        assert_eq!((first.len(), second.len()), (1, 1));
        s.refused(second, &replica::Refusal::NoSpace("full".into()));
        let c = send("c");
        assert!(server.got(&b)[0].body.contains("10023"), "{:?}", server.got(&b));
        assert!(server.got(&a).is_empty() && server.got(&c).is_empty());
        let handle = s.core.lock().handle.clone().expect("it is open");
        handle.propose(first.remove(0)).expect("it leads");
        assert_eq!(server.wait(&a, 1).await[0].body, r#"{"stream":"S","seq":1}"#);
        assert_eq!(server.wait(&c, 1).await[0].body, r#"{"stream":"S","seq":2}"#);
        server.close().await;
    })
    .expect("a runtime starts");
}

/// A disk that is full in the middle of a stream of publishes: what was handed out before the refusal is applied under its own numbers, and
/// nothing is answered for another's.
#[test]
fn j2_a_refusal_gives_no_number_twice() {
    env::run(async {
        let disk = new_disk();
        let server = Server::start(&disk).await;
        let s = server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        let body = |i: usize| format!("{i}:{}", "x".repeat(3000));
        let mut answers = Vec::new();
        let mut full = 0;
        for round in 0..6 {
            let (used, _) = disk.with(|d| d.space());
            disk.with(|d| d.options().capacity = if round % 2 == 1 { used } else { 1 << 30 });
            for i in 0..400 {
                let (to, body) = (server.inbox(), body(round * 400 + i));
                server.publish("a.x", &to, &body);
                answers.push((to, body));
                if i % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            disk.with(|d| d.options().capacity = 1 << 30);
            for (to, _) in &answers {
                server.wait(to, 1).await;
            }
        }
        for (to, body) in &answers {
            let a: Value = serde_json::from_str(&server.got(to)[0].body).expect("JSON");
            if !a["error"].is_null() {
                full += 1;
                continue;
            }
            let seq = a["seq"].as_u64().expect("a number");
            let got = s.group().ask(|v| v.get(store::StreamSeq(seq))).await.expect("the disk answers");
            let store::Read::Valid(m) = got else { panic!("J-1: {seq} was acknowledged and is not there") };
            assert_eq!(m.message().body, body.as_bytes(), "J-2: {seq} is another's");
        }
        assert!(full > 0, "the disk was full at times");
        server.close().await;
    })
    .expect("a runtime starts");
}

/// A log in memory begins anew after a restart, and its store goes on behind the numbers that it may have given: so does what decides, here and on whoever leads after it.
#[test]
fn j2_a_log_that_begins_anew_gives_no_number_twice() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let config = r#"{"name":"S","subjects":["a.>"],"storage":"memory"}"#;
        let s = server.make_stream(config).await;
        for i in 1..=3 {
            assert_eq!(server.store("a.x", "1").await, i);
        }
        let t = term(&s);
        for (refused, last) in [(false, 3), (true, 4)] {
            s.role(&Role::Follower { term: t, leader: None });
            // What the log said is forgotten.
            let anew =
                |r: &stream::Stream| stream::Stream::new(r.config().clone(), r.created(), s.rule_limits());
            {
                let mut core = s.core.lock();
                core.rules = core.rules.as_ref().map(anew);
            }
            s.role(&Role::Leader { term: t });
            if refused {
                s.take_refusal(Vec::new(), &replica::Refusal::Busy);
            }
            assert_eq!(server.store("a.x", "2").await, last + 1, "J-2");
            let floor = s.core.lock().rules.as_ref().map(stream::Stream::floor);
            assert_eq!(floor, Some(if refused { 0 } else { last }), "what the log says to the others");
        }
        server.close().await;
    })
    .expect("a runtime starts");
}
