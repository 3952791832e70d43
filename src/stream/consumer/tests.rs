//! Tables, feature by feature, against messages in memory.

use super::request::PullRequest;
use super::*;
use crate::{Memory, Stored};

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;
/// Wall time of the tests' beginning.
const WALL: i64 = 1_700_000_000_000_000_000;

/// A leader with its stream and clock.
struct Bench {
    msgs: Memory,
    c: Consumer,
    now: Now,
    out: Vec<Output>,
    /// Applies deltas as soon as they are taken.
    auto_log: bool,
    listeners: Gone,
}

/// All listen but these; the generation is how often that changed.
#[derive(Default)]
struct Gone(Vec<&'static [u8]>);

impl Listeners for Gone {
    fn generation(&self) -> u64 {
        self.0.len() as u64 + 1
    }
    fn listens(&self, to: &[u8]) -> bool {
        !self.0.contains(&to)
    }
}

fn config(json: &str) -> ConsumerConfig {
    let mut c: ConsumerConfig = serde_json::from_str(json).unwrap();
    let parent = check::Parent { num_replicas: 1, ..Default::default() };
    check::set_defaults(&mut c, &parent, &Default::default(), false).unwrap();
    check::check(&c, &parent, &Default::default(), false).unwrap();
    c
}

fn identity(retains: bool) -> Identity<'static> {
    Identity { stream: "S", name: "c", seed: 7, retains, max_payload: 1024 }
}

impl Bench {
    fn with(json: &str, retains: bool, before: &[&str]) -> Bench {
        let mut b = Bench {
            msgs: Memory::new(),
            c: Consumer::new(identity(retains), config(json)),
            now: Now { wall: WALL, mono: 1_000 * S },
            out: Vec::new(),
            auto_log: false,
            listeners: Gone::default(),
        };
        b.add(before);
        let Ok(()) = b.c.start(&b.msgs, false);
        b.c.lead(1, b.now);
        b
    }

    fn new(json: &str, before: &[&str]) -> Bench {
        Bench::with(json, false, before)
    }

    fn add(&mut self, subjects: &[&str]) {
        for s in subjects {
            let seq = crate::Messages::totals(&self.msgs).last + 1;
            let subject = Bytes::copy_from_slice(s.as_bytes());
            self.msgs.push(Stored {
                seq,
                time: self.now.wall,
                expires: None,
                subject: subject.clone(),
                headers: Bytes::new(),
                payload: Bytes::from_static(b"hello"),
            });
            self.c.appended(seq, &subject);
        }
    }

    fn remove(&mut self, seq: u64) {
        use crate::{Messages, MessagesMut};
        let Ok(meta) = self.msgs.meta(seq);
        let Ok(was) = self.msgs.remove(seq);
        assert!(was);
        self.c.removed(seq, &meta.unwrap().subject, &mut self.out);
    }

    fn pass(&mut self, nanos: u64) {
        self.now.mono += nanos;
        self.now.wall += nanos as i64;
    }

    /// Passes to the deadline, which there must be.
    fn wait(&mut self) -> u64 {
        let due = self.c.deadline(self.now).expect("a deadline");
        let passed = due.saturating_sub(self.now.mono);
        self.pass(passed);
        passed
    }

    fn pull(&mut self, to: &'static str, body: &str) {
        self.c.pull(&Bytes::from_static(to.as_bytes()), body.as_bytes(), self.now, &mut self.out);
    }

    /// Pumps and says shortly what came out.
    fn pump(&mut self) -> Vec<String> {
        loop {
            let Ok(more) = self.c.pump(&self.msgs, &self.listeners, self.now, 100, &mut self.out);
            if self.auto_log
                && let Some(delta) = self.c.take_delta()
            {
                self.c.apply_delta(&delta, &mut self.out).unwrap();
                continue;
            }
            if !more {
                break;
            }
        }
        assert!(self.c.ledger().is_sound());
        std::mem::take(&mut self.out).iter().map(short).collect()
    }

    fn ack(&mut self, sseq: u64, dseq: u64, payload: &str) {
        self.ack_reply(sseq, dseq, payload, None);
    }

    fn ack_reply(&mut self, sseq: u64, dseq: u64, payload: &str, reply: Option<&'static str>) {
        let tokens = AckTokens {
            place: None,
            stream: b"S",
            consumer: b"c",
            deliveries: 1,
            sseq,
            dseq,
            time: WALL,
            pending: 0,
        };
        let reply = reply.map(|r| Bytes::from_static(r.as_bytes()));
        self.c.ack(&tokens, payload.as_bytes(), reply.as_ref(), self.now, &mut self.out);
    }

    fn info(&mut self) -> Info {
        let Ok(info) = self.c.info(&self.msgs, self.now);
        let Ok(exact) = {
            use crate::Messages;
            self.msgs.pending(self.c.filters(), self.c.ledger().next_seq)
        };
        if self.c.ledger().skip.is_none() {
            assert_eq!(info.num_pending, exact, "pending is exact");
        }
        info
    }

    /// Delivered, ack floor, acks awaited, redelivered, pending.
    fn numbers(&mut self) -> (u64, u64, u64, u64, u64) {
        let i = self.info();
        (i.delivered_stream, i.ack_floor_stream, i.num_ack_pending, i.num_redelivered, i.num_pending)
    }
}

fn text(b: &Bytes) -> String {
    String::from_utf8(b.to_vec()).unwrap()
}

/// `to<seq/dseq×deliveries+pending` for a delivery, the code and the text for a status, and so on.
fn short(o: &Output) -> String {
    match o {
        Output::Deliver(d) => {
            let pin = if d.pin.is_some() { " pinned" } else { "" };
            format!("{}<{}/{}x{}+{}{pin}", text(&d.to), d.message.seq, d.dseq, d.deliveries, d.pending)
        }
        Output::Status(s) => {
            let headers = match &s.headers {
                StatusHeaders::None => String::new(),
                StatusHeaders::Remaining { messages, bytes } => format!(" {messages}/{bytes}"),
                StatusHeaders::Last { consumer, stream, stalled } => {
                    format!(" {consumer}:{stream}{}", if stalled.is_some() { " stalled" } else { "" })
                }
            };
            format!("{}<{} {}{headers}", text(&s.to), s.code, s.text)
        }
        Output::AckReply { to } => format!("{}<", text(to)),
        Output::Acked { first, last } => format!("acked {first}-{last}"),
        Output::Inactive => "inactive".into(),
        Output::Advisory(a) => match a {
            Advisory::MaxDeliveries { stream_seq, deliveries } => format!("max {stream_seq} x{deliveries}"),
            Advisory::Nak { stream_seq, .. } => format!("nak {stream_seq}"),
            Advisory::Terminated { stream_seq, reason, .. } => format!("term {stream_seq} {reason}"),
            Advisory::Acked { stream_seq, ack_time, .. } => format!("sample {stream_seq} {ack_time}"),
            Advisory::Pause { paused, .. } => format!("paused {paused}"),
            Advisory::Pinned { group, .. } => format!("pinned {group}"),
            Advisory::Unpinned { group, reason } => format!("unpinned {group} {reason}"),
        },
    }
}

const EXPLICIT: &str = r#"{"durable_name":"c","ack_policy":"explicit"}"#;

#[test]
fn a_pull_is_served_from_what_is_there_and_what_comes() {
    let mut b = Bench::new(EXPLICIT, &["a", "b"]);
    b.pull("r", r#"{"batch":3,"expires":5000000000}"#);
    assert_eq!(b.pump(), ["r<1/1x1+1", "r<2/2x1+0"]);
    assert_eq!(b.numbers(), (2, 0, 2, 0, 0));
    assert!(!b.c.ready(), "nothing is left to deliver");
    b.add(&["c", "d"]);
    assert!(b.c.ready());
    assert_eq!(b.pump(), ["r<3/3x1+1"], "the batch is full");
    assert_eq!(b.info().num_waiting, 0);
    assert_eq!(b.numbers(), (3, 0, 3, 0, 1));
}

#[test]
fn requests_take_turns() {
    let mut b = Bench::new(EXPLICIT, &["a", "b", "c", "d", "e"]);
    b.pull("x", "3");
    b.pull("y", "2");
    assert_eq!(b.pump(), ["x<1/1x1+4", "y<2/2x1+3", "x<3/3x1+2", "y<4/4x1+1", "x<5/5x1+0"]);
}

#[test]
fn a_request_that_does_not_wait_ends() {
    let mut b = Bench::new(EXPLICIT, &[]);
    b.pull("r", r#"{"batch":3,"no_wait":true}"#);
    assert_eq!(b.pump(), ["r<404 No Messages"]);
    b.add(&["a", "b"]);
    b.pull("r", r#"{"batch":3,"no_wait":true}"#);
    assert_eq!(b.pump(), ["r<1/1x1+1", "r<2/2x1+0", "r<404 No Messages"]);
    // With time left it waits for the first message.
    b.pull("r", r#"{"batch":3,"no_wait":true,"expires":1000000000}"#);
    assert_eq!(b.pump(), [""; 0]);
    b.add(&["c"]);
    assert_eq!(b.pump(), ["r<3/3x1+0", "r<404 No Messages"]);
    b.pull("r", r#"{"batch":3,"no_wait":true,"expires":1000000000}"#);
    b.pass(S);
    assert_eq!(b.pump(), ["r<408 Request Timeout 3/0"]);
}

#[test]
fn a_request_that_does_not_wait_ends_where_it_may_have_nothing_of_what_is_there() {
    // While the consumer is paused; with time left it waits for that.
    let mut b = Bench::new(
        r#"{"durable_name":"c","ack_policy":"explicit","pause_until":"2099-01-01T00:00:00Z"}"#,
        &["a", "b"],
    );
    b.pull("r", r#"{"batch":1,"no_wait":true}"#);
    assert!(b.c.ready());
    assert_eq!(b.pump(), ["r<404 No Messages"]);
    assert!(!b.c.ready());
    b.pull("r", r#"{"batch":2,"no_wait":true,"expires":1000000000}"#);
    assert_eq!(b.pump(), [""; 0]);
    b.pass(S);
    assert_eq!(b.pump(), ["r<408 Request Timeout 2/0"]);
    // Below the pressure that it waits for, beside one that does wait.
    let json = r#"{"durable_name":"c","ack_policy":"explicit","priority_policy":"overflow","priority_groups":["g"]}"#;
    let mut b = Bench::new(json, &["a", "b", "c"]);
    b.pull("w", r#"{"batch":1,"group":"g","min_ack_pending":5}"#);
    b.pull("r", r#"{"batch":1,"no_wait":true,"group":"g","min_pending":100}"#);
    assert_eq!(b.pump(), ["r<404 No Messages"]);
    assert_eq!(b.info().num_waiting, 1);
    b.pull("r", r#"{"batch":3,"no_wait":true,"group":"g","min_pending":2}"#);
    assert_eq!(b.pump(), ["r<1/1x1+2", "r<2/2x1+1", "r<404 No Messages"]);
    // Where another client is pinned.
    let json = r#"{"durable_name":"c","ack_policy":"explicit","priority_policy":"pinned_client","priority_groups":["g"],"priority_timeout":3000000000}"#;
    let mut b = Bench::new(json, &["a", "b"]);
    b.pull("x", r#"{"batch":1,"group":"g"}"#);
    assert_eq!(b.pump(), ["pinned g", "x<1/1x1+1 pinned"]);
    b.pull("r", r#"{"batch":1,"no_wait":true,"group":"g"}"#);
    assert_eq!(b.pump(), ["r<404 No Messages"]);
    // Only for the acks that are awaited it waits.
    let mut b =
        Bench::new(r#"{"durable_name":"c","ack_policy":"explicit","max_ack_pending":1}"#, &["a", "b"]);
    b.pull("x", "1");
    b.pump();
    b.pull("r", r#"{"batch":1,"no_wait":true}"#);
    assert_eq!(b.pump(), [""; 0]);
}

#[test]
fn what_is_no_message_is_confirmed_and_changes_nothing() {
    let mut b = Bench::new(EXPLICIT, &["a"]);
    b.pull("r", "1");
    b.pump();
    let numbers = b.numbers();
    b.ack_reply(0, 1, "+ACK", Some("x"));
    assert_eq!(b.pump(), ["x<"]);
    for payload in ["-NAK", "+WPI", "what"] {
        b.ack_reply(0, 1, payload, Some("x"));
        assert_eq!(b.pump(), [""; 0], "{payload}");
    }
    assert_eq!(b.numbers(), numbers);
}

#[test]
fn a_request_expires_and_shows_life_before() {
    let mut b = Bench::new(EXPLICIT, &["a"]);
    b.pull("r", r#"{"batch":2,"max_bytes":1000,"expires":1000000000,"idle_heartbeat":400000000}"#);
    let size = "a".len() + b.c.ack_subject().len(1, 1, 1, WALL, 0) + "hello".len();
    assert_eq!(b.pump(), ["r<1/1x1+0"]);
    assert_eq!(b.wait(), 400 * MS);
    assert_eq!(b.pump(), ["r<100 Idle Heartbeat 1:1"]);
    assert_eq!(b.wait(), 400 * MS);
    assert_eq!(b.pump(), ["r<100 Idle Heartbeat 1:1"]);
    assert_eq!(b.wait(), 200 * MS);
    assert_eq!(b.pump(), [format!("r<408 Request Timeout 1/{}", 1000 - size)]);
}

#[test]
fn bytes_are_counted_as_the_client_gets_them() {
    let mut b = Bench::new(EXPLICIT, &["a", "a", "a"]);
    let size = "a".len() + b.c.ack_subject().len(1, 1, 1, WALL, 2) + "hello".len();
    b.pull("r", &format!(r#"{{"batch":10,"max_bytes":{}}}"#, 2 * size + 3));
    assert_eq!(b.pump(), ["r<1/1x1+2", "r<2/2x1+1", "r<409 Message Size Exceeds MaxBytes 8/3"]);
    b.pull("r", &format!(r#"{{"batch":10,"max_bytes":{size}}}"#));
    assert_eq!(b.pump(), ["r<3/3x1+0"], "exactly enough ends it");
    assert_eq!(b.info().num_waiting, 0);
    b.add(&["a"]);
    b.pull("r", r#"{"batch":1,"max_bytes":1000}"#);
    assert_eq!(b.pump(), ["r<4/4x1+0", &format!("r<409 Batch Completed 0/{}", 1000 - size)]);
}

#[test]
fn requests_beyond_the_limits_are_refused() {
    let limits = r#"{"durable_name":"c","ack_policy":"explicit","max_batch":5,"max_expires":60000000000,"max_bytes":100,"max_waiting":1}"#;
    for (body, answer) in [
        (r#"{"batch":6}"#, "409 Exceeded MaxRequestBatch of 5"),
        (r#"{"batch":1,"expires":61000000000}"#, "409 Exceeded MaxRequestExpires of 1m0s"),
        (r#"{"batch":1,"max_bytes":101}"#, "409 Exceeded MaxRequestMaxBytes of 100"),
        (r#"{"batch":1,"expires":10,"idle_heartbeat":6}"#, "400 Bad Request - heartbeat value too large"),
        (r#"{"batch":1,"min_pending":1}"#, "400 Bad Request - Not a Overflow Priority consumer"),
        (r#"{"batch":1,"id":"x"}"#, "400 Bad Request - Not a Pinned Client Priority consumer"),
        (r#"{"batch":1,"priority":10}"#, "400 Bad Request - Priority must be between 0 and 9"),
    ] {
        let mut b = Bench::new(limits, &[]);
        b.pull("r", body);
        assert_eq!(b.pump(), [format!("r<{answer}")], "{body}");
    }
    let mut b = Bench::new(limits, &[]);
    b.pull("r", r#"{"batch":1,"expires":1000000000}"#);
    b.pull("s", r#"{"batch":1}"#);
    b.pull("t", r#"{"batch":1,"expires":1000000000,"idle_heartbeat":1000000}"#);
    assert_eq!(b.pump(), ["s<409 Exceeded MaxWaiting"], "who has heartbeats is not told");
    b.pass(2 * S);
    b.pull("u", "1");
    assert_eq!(b.pump(), ["r<408 Request Timeout 1/0"], "what has expired makes room");
    assert_eq!(b.info().num_waiting, 1);
    let mut push = Bench::new(r#"{"deliver_subject":"d"}"#, &[]);
    push.pull("r", "1");
    assert_eq!(push.pump(), ["r<409 Consumer is push based"]);
}

#[test]
fn explicit_acks_move_the_floor_when_the_first_is_gone() {
    let mut b = Bench::new(EXPLICIT, &["a", "a", "a", "a"]);
    b.pull("r", "3");
    b.pump();
    b.ack(2, 2, "+ACK");
    assert_eq!(b.numbers(), (3, 0, 2, 0, 1));
    b.ack(1, 1, "");
    assert_eq!(b.numbers(), (3, 2, 1, 0, 1));
    b.ack(1, 1, "");
    b.ack(3, 3, "+OK");
    assert_eq!(b.numbers(), (3, 3, 0, 0, 1));
    b.ack(4, 4, "");
    assert_eq!(b.numbers(), (3, 3, 0, 0, 1), "what was never delivered cannot be acked");
}

#[test]
fn an_ack_of_all_covers_what_was_before() {
    let json = r#"{"durable_name":"c","ack_policy":"all"}"#;
    let mut b = Bench::with(json, true, &["a", "a", "a", "a"]);
    b.pull("r", "4");
    b.pump();
    b.ack_reply(3, 3, "", Some("ok"));
    assert_eq!(b.pump(), ["acked 1-3", "ok<"]);
    assert_eq!(b.numbers(), (4, 3, 1, 0, 0));
    b.ack(2, 2, "");
    assert_eq!(b.numbers(), (4, 3, 1, 0, 0), "J-5");
    b.ack(u64::MAX, u64::MAX, "");
    assert_eq!(b.numbers(), (4, 3, 1, 0, 0), "an ack from nowhere moves nothing");
}

#[test]
fn without_acks_delivered_is_done() {
    let mut b = Bench::with(r#"{"durable_name":"c"}"#, true, &["a", "a"]);
    b.pull("r", "2");
    assert_eq!(b.pump(), ["acked 1-1", "r<1/1x1+1", "acked 2-2", "r<2/2x1+0"]);
    assert_eq!(b.numbers(), (2, 2, 0, 0, 0));
    assert!(b.c.deadline(b.now).is_none(), "C-4");
}

#[test]
fn what_is_not_acked_comes_again_after_its_wait() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","ack_wait":1000000000}"#;
    let mut b = Bench::new(json, &["a", "a"]);
    b.pull("r", "10");
    b.pump();
    b.pass(S - 1);
    assert_eq!(b.pump(), [""; 0], "J-6");
    b.ack(2, 2, "");
    assert_eq!(b.wait(), 1);
    assert_eq!(b.pump(), ["r<1/3x2+0"]);
    assert_eq!(b.numbers(), (2, 0, 1, 1, 0));
    assert_eq!(b.wait(), S);
    assert_eq!(b.pump(), ["r<1/4x3+0"]);
    b.ack(1, 4, "");
    assert_eq!(b.numbers(), (2, 2, 0, 0, 0));
    assert_eq!(b.info().ack_floor_consumer, 4);
    assert!(b.c.deadline(b.now).is_none(), "C-4");
}

#[test]
fn the_backoff_has_a_wait_for_each_delivery() {
    let json =
        r#"{"durable_name":"c","ack_policy":"explicit","backoff":[1000000000,3000000000],"max_deliver":4}"#;
    let mut b = Bench::new(json, &["a"]);
    b.pull("r", "10");
    b.pump();
    for (wait, delivery) in [(S, "r<1/2x2+0"), (3 * S, "r<1/3x3+0"), (3 * S, "r<1/4x4+0")] {
        assert_eq!(b.wait(), wait);
        assert_eq!(b.pump(), [delivery]);
    }
    assert_eq!(b.wait(), 3 * S);
    assert_eq!(b.pump(), ["max 1 x4"]);
    assert_eq!(b.numbers(), (1, 1, 0, 1, 0), "it is given up and its count remains");
    assert!(b.c.deadline(b.now).is_none());
    assert!(b.c.needs(1, b"a"), "it stays in a stream that keeps by interest");
    b.ack(1, 4, "");
    assert_eq!(b.numbers(), (1, 1, 0, 0, 0), "a late ack still ends it");
    assert!(!b.c.needs(1, b"a"));
}

#[test]
fn naks_come_again_at_once_or_after_their_delay() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","max_deliver":3}"#;
    let mut b = Bench::new(json, &["a", "a"]);
    b.pull("r", "10");
    b.pump();
    b.ack(1, 1, "-NAK");
    b.ack(1, 1, "-NAK");
    assert_eq!(b.pump(), ["nak 1", "nak 1", "r<1/3x2+0"]);
    b.ack(2, 2, "-NAK {\"delay\":5000000000}");
    assert_eq!(b.pump(), ["nak 2"]);
    assert_eq!(b.wait(), 5 * S);
    assert_eq!(b.pump(), ["r<2/4x2+0"]);
    b.ack(2, 4, "-NAK 10ms");
    assert_eq!(b.wait(), 10 * MS);
    assert_eq!(b.pump(), ["nak 2", "r<2/5x3+0"]);
    b.ack(2, 5, "-NAK");
    assert_eq!(b.pump(), ["nak 2", "max 2 x3"]);
    b.ack(7, 7, "-NAK");
    assert_eq!(b.pump(), [""; 0], "what is not pending cannot be refused");
}

#[test]
fn work_in_progress_begins_the_wait_anew() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","ack_wait":1000000000}"#;
    let mut b = Bench::new(json, &["a", "a"]);
    b.pull("r", "10");
    b.pump();
    b.pass(S / 2);
    b.ack_reply(1, 1, "+WPI", Some("ok"));
    assert_eq!(b.pump(), ["ok<"]);
    assert_eq!(b.wait(), S / 2);
    assert_eq!(b.pump(), ["r<2/3x2+0"]);
    assert_eq!(b.wait(), S / 2);
    assert_eq!(b.pump(), ["r<1/4x2+0"]);
}

#[test]
fn terminated_messages_do_not_come_again() {
    let mut b = Bench::with(EXPLICIT, true, &["a"]);
    b.pull("r", "10");
    b.pump();
    b.ack(1, 1, "+TERM no such thing");
    assert_eq!(b.pump(), ["acked 1-1", "term 1 no such thing"]);
    assert_eq!(b.numbers(), (1, 1, 0, 0, 0));
}

#[test]
fn an_ack_may_ask_for_the_next() {
    let mut b = Bench::new(EXPLICIT, &["a", "a", "a"]);
    b.pull("r", "1");
    b.pump();
    b.ack_reply(1, 1, "+NXT", Some("n"));
    assert_eq!(b.pump(), ["n<2/2x1+1"]);
    b.ack_reply(2, 2, "+NXT {\"batch\":2,\"no_wait\":true}", Some("n"));
    assert_eq!(b.pump(), ["n<3/3x1+0", "n<404 No Messages"]);
    assert_eq!(b.numbers(), (3, 2, 1, 0, 0));
}

#[test]
fn no_more_acks_are_awaited_than_may_be() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","max_ack_pending":2}"#;
    let mut b = Bench::new(json, &["a", "a", "a"]);
    b.pull("r", r#"{"batch":10,"no_wait":true}"#);
    assert_eq!(b.pump(), ["r<1/1x1+2", "r<2/2x1+1"]);
    assert!(!b.c.ready());
    b.ack(2, 2, "");
    assert!(b.c.ready());
    assert_eq!(b.pump(), ["r<3/3x1+0"]);
    b.ack(1, 1, "-NAK");
    assert_eq!(b.pump(), ["nak 1", "r<1/4x2+0"], "redeliveries are not held up");
}

#[test]
fn each_policy_begins_where_it_says() {
    let subjects = ["a", "b", "a", "c", "b"];
    for (policy, first, pending) in [
        (r#""deliver_policy":"all""#, 1, 5),
        (r#""deliver_policy":"all","filter_subject":"b""#, 2, 2),
        (r#""deliver_policy":"last""#, 5, 1),
        (r#""deliver_policy":"last","filter_subject":"a""#, 3, 1),
        (r#""deliver_policy":"new""#, 6, 1),
        (r#""deliver_policy":"by_start_sequence","opt_start_seq":4"#, 4, 2),
        (r#""deliver_policy":"by_start_time","opt_start_time":"2023-11-14T22:13:21Z""#, 6, 1),
        (r#""deliver_policy":"by_start_time","opt_start_time":"2023-11-14T22:13:20Z""#, 1, 5),
        (r#""deliver_policy":"last_per_subject","filter_subject":">""#, 3, 3),
        (r#""deliver_policy":"last_per_subject","filter_subjects":["a","c"]"#, 3, 2),
    ] {
        let json = format!(r#"{{"durable_name":"c","ack_policy":"explicit",{policy}}}"#);
        let mut b = Bench::new(&json, &subjects);
        if first == 6 {
            b.add(&["x"]);
        }
        assert_eq!(b.info().num_pending, pending, "{policy}");
        b.pull("r", "1");
        assert_eq!(b.pump(), [format!("r<{first}/1x1+{}", pending - 1)], "{policy}");
    }
    let json = r#"{"durable_name":"c","ack_policy":"explicit","deliver_policy":"last","filter_subject":"z"}"#;
    let mut b = Bench::new(json, &subjects);
    assert_eq!(b.numbers(), (0, 0, 0, 0, 0), "nothing matches, and nothing is behind it");
    b.add(&["z"]);
    b.pull("r", "1");
    assert_eq!(b.pump(), ["r<6/1x1+0"]);
}

#[test]
fn the_last_of_each_subject_then_what_comes() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","deliver_policy":"last_per_subject","filter_subjects":["a","b"]}"#;
    let mut b = Bench::new(json, &["a", "b", "a", "c", "b", "c"]);
    b.add(&["a", "c"]);
    assert_eq!(b.info().num_pending, 3);
    b.remove(5);
    assert_eq!(b.info().num_pending, 2, "one of them has gone");
    b.pull("r", "10");
    assert_eq!(b.pump(), ["r<3/1x1+1", "r<7/2x1+0"]);
    b.add(&["b"]);
    assert_eq!(b.pump(), ["r<9/3x1+0"]);
}

#[test]
fn several_filters_and_their_change() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","filter_subjects":["a.*","b"]}"#;
    let mut b = Bench::new(json, &["a.x", "c", "b", "a.y.z", "a.y"]);
    assert_eq!(b.info().num_pending, 3);
    b.pull("r", "2");
    assert_eq!(b.pump(), ["r<1/1x1+2", "r<3/2x1+1"]);
    b.add(&["c", "c"]);
    assert_eq!(b.info().num_pending, 1);
    let changed = r#"{"durable_name":"c","ack_policy":"explicit","filter_subject":"c"}"#;
    let now = b.now;
    b.c.update(config(changed), now, &mut b.out);
    assert_eq!(b.info().num_pending, 2);
    b.pull("r", "1");
    assert_eq!(b.pump(), ["r<6/3x1+1"]);
}

#[test]
fn what_leaves_the_stream_leaves_the_consumer() {
    let mut b = Bench::new(EXPLICIT, &["a", "a", "a", "a", "a"]);
    b.pull("r", "3");
    b.pump();
    b.remove(1);
    b.remove(4);
    assert_eq!(b.pump(), ["term 1 Unacknowledged message was deleted"]);
    assert_eq!(b.numbers(), (3, 1, 2, 0, 1));
    for seq in [2, 3, 5] {
        let Ok(true) = crate::MessagesMut::remove(&mut b.msgs, seq) else { panic!("{seq} was there") };
    }
    b.c.purged(6);
    assert!(b.out.is_empty(), "of a purge nobody is told: {:?}", b.out);
    assert_eq!(b.numbers(), (5, 5, 0, 0, 0));
    b.add(&["a"]);
    b.pull("r", "1");
    assert_eq!(b.pump(), ["r<6/4x1+0"]);
}

#[test]
fn a_message_that_has_gone_unnoticed_is_skipped() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","ack_wait":1000000000}"#;
    let mut b = Bench::new(json, &["a", "a"]);
    b.pull("r", "10");
    b.pump();
    let Ok(true) = crate::MessagesMut::remove(&mut b.msgs, 1) else { panic!("it was there") };
    b.pass(S);
    assert_eq!(b.pump(), ["term 1 Unacknowledged message was deleted", "r<2/3x2+0"]);
}

#[test]
fn pushes_need_somebody_who_listens() {
    let mut b = Bench::new(r#"{"deliver_subject":"d","idle_heartbeat":1000000000}"#, &["a", "a"]);
    assert!(!b.c.ready());
    assert_eq!(b.pump(), [""; 0]);
    let now = b.now;
    b.c.set_interest(true, now);
    assert_eq!(b.pump(), ["d<1/1x1+1", "d<2/2x1+0"]);
    assert!(b.info().push_bound);
    assert_eq!(b.wait(), S);
    assert_eq!(b.pump(), ["d<100 Idle Heartbeat 2:2"]);
    let now = b.now;
    b.c.set_interest(false, now);
    b.add(&["a"]);
    assert_eq!(b.pump(), [""; 0]);
    assert_eq!(b.wait(), 5 * S, "an ephemeral without listener goes");
    assert_eq!(b.pump(), ["inactive"]);
    assert!(b.c.deadline(b.now).is_none());
}

#[test]
fn flow_control_asks_at_half_of_the_window() {
    let json = r#"{"deliver_subject":"d","idle_heartbeat":1000000000,"flow_control":true}"#;
    let mut b = Bench::new(json, &[]);
    let now = b.now;
    b.c.set_interest(true, now);
    let payload = Bytes::from(vec![0; 64 * 1024]);
    for seq in 1..=60 {
        let subject = Bytes::from_static(b"a");
        b.msgs.push(Stored {
            seq,
            time: WALL,
            expires: None,
            subject,
            headers: Bytes::new(),
            payload: payload.clone(),
        });
        b.c.appended_matching(seq);
    }
    let Ok(_) = b.c.pump(&b.msgs, &b.listeners, b.now, 1000, &mut b.out);
    let out = std::mem::take(&mut b.out);
    let asked: Vec<(usize, &Status)> = out
        .iter()
        .enumerate()
        .filter_map(|(i, o)| if let Output::Status(s) = o { Some((i, s)) } else { None })
        .collect();
    assert_eq!(asked.len(), 1);
    let (at, status) = asked[0];
    assert_eq!(at, 16, "a MiB of a window of two has gone");
    let id = status.reply.clone().unwrap();
    assert!(id.starts_with(b"$JS.FC.S.c."));
    let mut block = Vec::new();
    status.write(&mut block);
    assert_eq!(block, b"NATS/1.0 100 FlowControl Request\r\n\r\n");
    assert_eq!(out.len(), 33, "the window is full: 32 messages and the request");
    assert!(!b.c.ready());
    b.wait();
    assert_eq!(b.pump(), ["d<100 Idle Heartbeat 32:32 stalled"]);
    let now = b.now;
    b.c.flow(b"$JS.FC.S.c.nope", 0, 0, now, &mut b.out);
    assert!(!b.c.ready());
    b.c.flow(&id, 0, 0, now, &mut b.out);
    assert!(b.c.ready(), "the window has doubled");
    assert_eq!(b.pump().iter().filter(|o| o.contains('/')).count(), 28);
}

#[test]
fn answers_to_flow_control_may_be_the_acks() {
    let json =
        r#"{"durable_name":"c","deliver_subject":"d","ack_policy":"flow_control","max_ack_pending":2}"#;
    let mut b = Bench::new(json, &["a", "a", "a"]);
    let now = b.now;
    b.c.set_interest(true, now);
    assert_eq!(b.pump(), ["d<1/1x1+2", "d<2/2x1+1", "d<100 FlowControl Request"]);
    assert_eq!(b.numbers(), (2, 0, 2, 0, 1));
    b.c.flow(b"$JS.FC.S.c.wrong", 2, 2, now, &mut b.out);
    assert_eq!(b.numbers().2, 2);
    b.wait();
    let Ok(_) = b.c.pump(&b.msgs, &b.listeners, b.now, 10, &mut b.out);
    let Some(Output::Status(Status { headers: StatusHeaders::Last { stalled: Some(id), .. }, .. })) =
        b.out.pop()
    else {
        panic!("a heartbeat that names the request")
    };
    let now = b.now;
    b.c.flow(&id, 2, 2, now, &mut b.out);
    assert_eq!(b.numbers(), (2, 2, 0, 0, 1));
    assert_eq!(b.pump(), ["d<3/3x1+0"]);
}

#[test]
fn a_rate_limit_spreads_what_goes_beyond_the_burst() {
    // 8192 bits are 1 KiB a second, and so is the burst.
    let mut b = Bench::new(r#"{"deliver_subject":"d","rate_limit_bps":8192}"#, &["a"; 60]);
    let now = b.now;
    b.c.set_interest(true, now);
    let mut sent = b.pump().len();
    assert!((15..25).contains(&sent), "{sent} within the burst");
    let begin = b.now.mono;
    while sent < 60 {
        assert!(b.wait() > 0);
        let more = b.pump().len();
        assert!(more >= 1, "a deadline that leads nowhere");
        sent += more;
    }
    let took = b.now.mono - begin;
    assert!((S..3 * S).contains(&took), "{took}");
}

#[test]
fn a_replay_keeps_its_pace() {
    let mut b = Bench::new(EXPLICIT, &["a"]);
    b.pass(3 * S);
    b.add(&["a"]);
    b.pass(S);
    b.add(&["a"]);
    let json = r#"{"durable_name":"c","ack_policy":"explicit","replay_policy":"original"}"#;
    b.c = Consumer::new(identity(false), config(json));
    let Ok(()) = b.c.start(&b.msgs, false);
    b.c.lead(1, b.now);
    b.pull("r", "10");
    assert_eq!(b.pump(), ["r<1/1x1+2"]);
    assert_eq!(b.wait(), 3 * S);
    assert_eq!(b.pump(), ["r<2/2x1+1"]);
    assert_eq!(b.wait(), S);
    assert_eq!(b.pump(), ["r<3/3x1+0"]);
    b.pass(S);
    b.add(&["a"]);
    assert_eq!(b.pump(), ["r<4/4x1+0"], "what is new comes at once");
}

#[test]
fn a_pause_holds_deliveries_and_ends_by_itself() {
    let mut b = Bench::new(EXPLICIT, &["a"]);
    let mut paused = config(EXPLICIT);
    paused.pause_until = Some(crate::Time::utc(b.now.wall + 5 * S as i64));
    let now = b.now;
    b.c.update(paused, now, &mut b.out);
    b.pull("r", "1");
    assert_eq!(b.pump(), ["paused true"]);
    assert_eq!(b.info().pause_remaining, Some(5 * S as i64));
    assert_eq!(b.wait(), 5 * S);
    assert_eq!(b.pump(), ["paused false", "r<1/1x1+0"]);
    assert_eq!(b.info().pause_remaining, None);
}

#[test]
fn unused_consumers_end_but_not_while_they_are_waited_for() {
    let json =
        r#"{"name":"c","ack_policy":"explicit","ack_wait":8000000000,"inactive_threshold":2000000000}"#;
    let mut b = Bench::new(json, &["a"]);
    b.pull("r", r#"{"batch":5,"expires":7000000000}"#);
    b.pump();
    b.pass(7 * S);
    assert_eq!(b.pump(), ["r<408 Request Timeout 4/0"]);
    assert_eq!(b.wait(), S, "the ack is overdue first");
    assert_eq!(b.pump(), [""; 0]);
    let mut seen = Vec::new();
    for _ in 0..10 {
        if b.c.deadline(b.now).is_none() {
            break;
        }
        b.wait();
        seen.extend(b.pump());
    }
    assert_eq!(seen, ["inactive"]);
    assert!(Bench::new(EXPLICIT, &["a"]).c.deadline(b.now).is_none(), "a durable stays");
}

#[test]
fn overflow_serves_only_under_pressure() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","priority_policy":"overflow","priority_groups":["g"]}"#;
    let mut b = Bench::new(json, &["a"]);
    b.pull("r", r#"{"batch":5}"#);
    b.pull("r", r#"{"batch":5,"group":"h"}"#);
    assert_eq!(
        b.pump(),
        ["r<400 Bad Request - Priority Group missing", "r<400 Bad Request - Invalid Priority Group"]
    );
    b.pull("o", r#"{"batch":5,"group":"g","min_pending":3}"#);
    assert_eq!(b.pump(), [""; 0]);
    b.add(&["a"]);
    assert_eq!(b.pump(), [""; 0]);
    b.add(&["a"]);
    assert_eq!(b.pump(), ["o<1/1x1+2"], "three were pending, now two are");
    b.pull("p", r#"{"batch":5,"group":"g","min_ack_pending":1}"#);
    assert_eq!(b.pump(), ["p<2/2x1+1", "p<3/3x1+0"]);
}

#[test]
fn a_pinned_client_gets_all_until_it_falls_silent() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","priority_policy":"pinned_client","priority_groups":["g"],"priority_timeout":3000000000}"#;
    let mut b = Bench::new(json, &["a", "a", "a"]);
    b.pull("x", r#"{"batch":2,"group":"g"}"#);
    b.pull("y", r#"{"batch":2,"group":"g"}"#);
    assert_eq!(b.pump(), ["pinned g", "x<1/1x1+2 pinned", "x<2/2x1+1 pinned"]);
    let id = b.info().priority_group.unwrap().pinned_client_id;
    assert_eq!(id.len(), pulls::PIN_LEN);
    b.pull("x", r#"{"batch":2,"group":"g","id":"wrong"}"#);
    assert_eq!(b.pump(), ["x<423 Nats-Pin-Id mismatch"]);
    b.pass(2 * S);
    b.pull("x", &format!(r#"{{"batch":1,"group":"g","id":"{id}"}}"#));
    assert_eq!(b.pump(), ["x<3/3x1+0 pinned"]);
    assert_eq!(b.wait(), 3 * S, "the pin was renewed");
    assert_eq!(b.pump(), ["unpinned g timeout"]);
    b.add(&["a"]);
    assert_eq!(b.pump(), ["pinned g", "y<4/4x1+0 pinned"]);
    for pinned in ["pinned", "nobody"] {
        assert!(b.c.unpin("g", &mut b.out) && !b.c.unpin("h", &mut b.out));
        assert_eq!(b.pump(), ["unpinned g admin"], "{pinned}");
        assert_eq!(b.info().priority_group.unwrap().pinned_client_id, "");
    }
}

#[test]
fn low_numbers_are_served_first() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","priority_policy":"prioritized","priority_groups":["g"]}"#;
    let mut b = Bench::new(json, &["a"; 6]);
    b.pull("late", r#"{"batch":2,"group":"g","priority":5}"#);
    b.pull("x", r#"{"batch":2,"group":"g","priority":1}"#);
    b.pull("y", r#"{"batch":2,"group":"g","priority":1}"#);
    let order: Vec<String> = b.pump().iter().map(|o| o[..o.find('<').unwrap()].to_owned()).collect();
    assert_eq!(order, ["x", "y", "x", "y", "late", "late"]);
}

#[test]
fn a_reset_begins_anew() {
    let mut b = Bench::new(EXPLICIT, &["a"; 5]);
    b.pull("r", "4");
    b.pump();
    b.ack(1, 1, "");
    b.ack(3, 3, "");
    let Ok(to) = b.c.reset(0, &b.msgs);
    assert_eq!(to, Ok(2));
    assert_eq!(b.numbers(), (1, 1, 0, 0, 4));
    b.pull("r", "1");
    assert_eq!(b.pump(), ["r<2/1x1+3"]);
    let Ok(to) = b.c.reset(5, &b.msgs);
    assert_eq!(to, Ok(5));
    b.pull("r", "9");
    assert_eq!(b.pump(), ["r<5/1x1+0"]);
    for (json, seq, why) in [
        (
            r#"{"durable_name":"c","deliver_policy":"by_start_sequence","opt_start_seq":3}"#,
            2,
            "below start seq",
        ),
        (
            r#"{"durable_name":"c","deliver_policy":"by_start_time","opt_start_time":"2033-11-14T22:13:21Z"}"#,
            2,
            "below start time",
        ),
        (r#"{"durable_name":"c","deliver_policy":"new"}"#, 2, "not allowed"),
    ] {
        let mut b = Bench::new(json, &["a"; 5]);
        let Ok(to) = b.c.reset(seq, &b.msgs);
        assert_eq!(to.unwrap_err().description, format!("invalid reset: {why}"));
    }
}

#[test]
fn what_reached_nobody_does_not_count() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","max_deliver":1}"#;
    let mut b = Bench::new(json, &["a"]);
    b.pull("r", "1");
    assert_eq!(b.pump(), ["r<1/1x1+0"]);
    b.c.undelivered(1, b"r", false);
    assert!(!b.c.ready());
    b.pull("s", "1");
    assert!(b.c.ready());
    assert_eq!(b.pump(), ["s<1/2x1+0"]);
    assert_eq!(b.numbers(), (1, 0, 1, 0, 0));
}

#[test]
fn acks_are_sampled() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","sample_freq":"100%"}"#;
    let mut b = Bench::new(json, &["a"]);
    b.pull("r", "1");
    b.pump();
    b.pass(S);
    b.ack(1, 1, "");
    assert_eq!(b.pump(), [format!("sample 1 {S}")]);
}

#[test]
fn confirmations_and_strict_deliveries_wait_for_the_log() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","max_deliver":2,"ack_wait":1000000000}"#;
    let mut b = Bench::with(json, true, &["a", "a"]);
    b.c.set_logged(true);
    b.c.set_strict(true);
    b.c.lead(9, b.now);
    b.pull("r", r#"{"batch":5,"no_wait":true}"#);
    assert_eq!(b.pump(), [""; 0], "C-2");
    assert_eq!(b.c.num_held(), 2);
    assert_eq!(b.c.deadline(b.now), None, "the wait has not begun");
    let delta = b.c.take_delta().unwrap();
    b.pass(5 * S);
    b.c.apply_delta(&delta, &mut b.out).unwrap();
    assert!(b.c.ready());
    assert_eq!(b.pump(), ["r<1/1x1+1", "r<2/2x1+0", "r<404 No Messages"]);
    assert_eq!(b.c.deadline(b.now), Some(b.now.mono + S), "it begins when the message leaves");
    b.ack_reply(1, 1, "", Some("ok"));
    assert_eq!(b.pump(), [""; 0], "C-3");
    let delta = b.c.take_delta().unwrap();
    b.c.apply_delta(&delta, &mut b.out).unwrap();
    assert_eq!(b.pump(), ["acked 1-1", "ok<"]);
    b.ack_reply(1, 1, "", Some("again"));
    assert_eq!(b.pump(), ["again<"], "nothing to wait for");
}

/// Seed 630861490717: the wall clock went back an hour, the server ended and began, and a delay of a moment lasted an hour.
#[test]
fn j6_a_clock_that_goes_back_makes_no_delay_longer() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","ack_wait":1000000000}"#;
    let mut b = Bench::with(json, true, &["a"]);
    b.c.set_logged(true);
    b.c.lead(9, b.now);
    b.pull("r", "1");
    b.pump();
    b.ack(1, 1, "-NAK 7s");
    let delta = b.c.take_delta().unwrap();
    b.c.apply_delta(&delta, &mut b.out).unwrap();
    let mut next = Consumer::new(identity(true), config(json));
    next.restore(&b.c.snapshot()).unwrap();
    b.c = next;
    b.now.wall -= 3600 * S as i64;
    b.c.lead(10, b.now);
    b.pull("r", "1");
    b.pump();
    b.pass(7 * S - 1);
    assert_eq!(b.pump(), [""; 0], "J-6: not early");
    b.pass(1);
    assert_eq!(b.pump(), ["r<1/2x2+0"]);
}

#[test]
fn replicas_follow_by_deltas_and_a_new_leader_goes_on() {
    let json = r#"{"durable_name":"c","ack_policy":"explicit","max_deliver":3,"ack_wait":1000000000}"#;
    let mut b = Bench::with(json, true, &["a"; 6]);
    b.c.set_logged(true);
    b.c.lead(9, b.now);
    let mut follower = Consumer::new(identity(true), config(json));
    let Ok(()) = follower.start(&b.msgs, false);
    let mut sink = Vec::new();
    b.pull("r", "5");
    b.pump();
    b.ack(1, 1, "");
    b.ack(2, 2, "");
    b.ack(4, 4, "-NAK 7s");
    b.pass(S);
    b.pull("r", "2");
    b.pump();
    let delta = b.c.take_delta().unwrap();
    assert!(delta.len() < 40, "{} bytes", delta.len());
    // What happens now is not logged and is lost with the leader.
    b.ack(3, 3, "");
    follower.apply_delta(&delta, &mut sink).unwrap();
    assert_eq!(sink.iter().map(short).collect::<Vec<_>>(), ["acked 1-2"]);
    b.c.apply_delta(&delta, &mut b.out).unwrap();
    assert_eq!(b.c.logged(), follower.logged(), "J-4");
    assert_ne!(b.c.ledger(), follower.ledger());
    let restored = {
        let mut c = Consumer::new(identity(true), config(json));
        c.restore(&b.c.snapshot()).unwrap();
        c
    };
    assert_eq!(restored.ledger(), follower.ledger());
    b.c.unlead(&mut b.out);
    assert_eq!(b.c.ledger(), follower.ledger());
    b.c = restored;
    b.out.clear();
    b.c.lead(10, b.now);
    b.pull("r", "9");
    assert_eq!(b.pump(), ["r<6/8x1+0"]);
    assert_eq!(b.wait(), S, "what is pending waits its whole time");
    assert_eq!(b.pump(), ["r<3/9x3+0", "r<5/10x3+0", "r<6/11x2+0"]);
    b.wait();
    b.pump();
    let mut all = Vec::new();
    while b.c.deadline(b.now).is_some() {
        b.wait();
        all.extend(b.pump());
    }
    assert!(all.contains(&"r<4/13x2+0".to_owned()), "{all:?}");
}

#[test]
fn damaged_state_is_refused() {
    let mut b = Bench::with(EXPLICIT, true, &["a"; 6]);
    b.c.set_logged(true);
    b.c.lead(1, b.now);
    b.pull("r", "5");
    b.pump();
    b.ack(2, 2, "");
    b.ack(4, 4, "-NAK 7s");
    let delta = b.c.take_delta().unwrap();
    b.c.apply_delta(&delta, &mut b.out).unwrap();
    let snapshot = b.c.snapshot();
    for cut in 0..snapshot.len() {
        assert!(Consumer::new(identity(true), config(EXPLICIT)).restore(&snapshot[..cut]).is_err(), "{cut}");
    }
    for at in 0..snapshot.len() {
        for bit in 0..8 {
            let mut wrong = snapshot.to_vec();
            wrong[at] ^= 1 << bit;
            // Some changes give another state; none may give one that is not sound, or panic.
            let mut c = Consumer::new(identity(true), config(EXPLICIT));
            if c.restore(&wrong).is_ok() {
                assert!(c.ledger().is_sound(), "byte {at} bit {bit}");
            }
        }
    }
    let mut c = Consumer::new(identity(true), config(EXPLICIT));
    assert!(c.apply_delta(&[2], &mut Vec::new()).is_err());
    assert!(c.apply_delta(&delta[..delta.len() - 1], &mut Vec::new()).is_err());
}

#[test]
fn configurations_are_written_as_they_are_read() {
    let full = r#"{"durable_name":"d","name":"d","description":"x","deliver_policy":"by_start_time","opt_start_time":"2024-01-02T03:04:05.6+02:00","ack_policy":"explicit","ack_wait":1000000000,"max_deliver":5,"backoff":[1000000000,2000000000],"filter_subjects":["a","b"],"replay_policy":"original","sample_freq":"30%","max_waiting":12,"max_ack_pending":7,"headers_only":true,"max_batch":3,"max_expires":1000000,"max_bytes":9,"inactive_threshold":5,"num_replicas":1,"mem_storage":true,"metadata":{"a":"b"},"pause_until":"2024-01-02T03:04:05Z","priority_groups":["g"],"priority_policy":"pinned_client","priority_timeout":120000000000}"#;
    let c: ConsumerConfig = serde_json::from_str(full).unwrap();
    assert_eq!(serde_json::to_string(&c).unwrap(), full);
    let least: ConsumerConfig =
        serde_json::from_str(r#"{"filter_subject":null,"pause_until":null,"metadata":null}"#).unwrap();
    assert_eq!(least, ConsumerConfig::default());
    assert_eq!(
        serde_json::to_string(&least).unwrap(),
        r#"{"deliver_policy":"all","ack_policy":"none","replay_policy":"instant","num_replicas":0}"#
    );
    let zero: ConsumerConfig = serde_json::from_str(r#"{"pause_until":"0001-01-01T00:00:00Z"}"#).unwrap();
    assert!(zero.pause_until.is_some_and(|t| t.is_zero()));
}

#[test]
fn a_request_of_nothing_is_served_once() {
    let mut b = Bench::new(EXPLICIT, &["a", "a"]);
    assert_eq!(PullRequest::parse(b"{}").unwrap().0.batch, 0);
    b.pull("r", "{}");
    assert_eq!(b.pump(), ["r<1/1x1+1"]);
    assert_eq!(b.info().num_waiting, 0);
}

#[test]
fn whoever_waits_is_told_of_the_end() {
    type End = fn(&mut Consumer, &mut Vec<Output>);
    let ends: [(End, &str); 3] = [
        (Consumer::deleted, "r<409 Consumer Deleted"),
        (Consumer::unlead, "r<409 Leadership Change"),
        (Consumer::shutdown, "r<409 Server Shutdown 3/7"),
    ];
    for (end, told) in ends {
        let mut b = Bench::new(EXPLICIT, &[]);
        b.pull("r", r#"{"batch":3,"max_bytes":7}"#);
        end(&mut b.c, &mut b.out);
        assert_eq!(b.pump(), [told]);
    }
}

#[test]
fn a_request_whose_delivery_waits_for_the_log_is_told_of_the_end_too() {
    let mut b = Bench::new(EXPLICIT, &["a", "a"]);
    b.c.set_logged(true);
    b.c.set_strict(true);
    b.pull("r", r#"{"batch":2}"#);
    b.pull("s", r#"{"batch":1}"#);
    assert!(b.pump().is_empty(), "nothing is sent before it is in the log");
    b.c.unlead(&mut b.out);
    let mut told = b.pump();
    told.sort();
    assert_eq!(told, ["r<409 Leadership Change", "s<409 Leadership Change"]);
}

/// Configurations with the number and the text of the refusal, as nats-server 2.15.1 answers.
#[test]
fn configurations_are_refused_as_clients_expect() {
    let own = [
        (
            r#"{"sample_freq":"x"}"#,
            10095,
            r#"failed to parse consumer sampling configuration: strconv.Atoi: parsing "x": invalid syntax"#,
        ),
        (r#"{"sample_freq":"-5"}"#, 10095, "failed to parse consumer sampling configuration: <nil>"),
        (
            r#"{"deliver_policy":"last_per_subject"}"#,
            10094,
            "consumer delivery policy is deliver last per subject, but optional filter subject is not set",
        ),
        (
            r#"{"opt_start_seq":2}"#,
            10094,
            "consumer delivery policy is deliver all, but optional start sequence is also set",
        ),
        (
            r#"{"deliver_policy":"by_start_time","opt_start_seq":2}"#,
            10094,
            "consumer delivery policy is deliver by start time, but optional start time is not set",
        ),
        (r#"{"filter_subject":"a..b"}"#, 10052, "invalid subject"),
        (
            r#"{"filter_subject":"a","filter_subjects":["b"]}"#,
            10136,
            "consumer cannot have both FilterSubject and FilterSubjects specified",
        ),
        (r#"{"filter_subjects":["a.*","a.b"]}"#, 10138, "consumer subject filters cannot overlap"),
        (r#"{"filter_subjects":[""]}"#, 10139, "consumer filter in FilterSubjects cannot be empty"),
        (r#"{"durable_name":"*"}"#, 10052, r"consumer name can not contain '.', '*', '>', '\', '/'"),
        (r#"{"name":"e/f"}"#, 10127, "Consumer name can not contain path separators"),
        (
            r#"{"name":"a","durable_name":"b"}"#,
            10132,
            "Consumer Durable and Name have to be equal if both are provided",
        ),
        (r#"{"deliver_subject":"s.x"}"#, 10081, "consumer deliver subject forms a cycle"),
        (r#"{"deliver_subject":"s.*"}"#, 10079, "consumer deliver subject has wildcards"),
        (
            r#"{"deliver_subject":"d","flow_control":true}"#,
            10108,
            "consumer with flow control also needs heartbeats",
        ),
        (
            r#"{"deliver_subject":"d","idle_heartbeat":5}"#,
            10083,
            "consumer idle heartbeat needs to be >= 100ms",
        ),
        (
            r#"{"deliver_subject":"d","max_waiting":5}"#,
            10080,
            "consumer in push mode can not set max waiting",
        ),
        (r#"{"idle_heartbeat":5}"#, 10088, "consumer idle heartbeat requires a push based consumer"),
        (r#"{"rate_limit_bps":5}"#, 10086, "consumer in pull mode can not have rate limit set"),
        (r#"{"ack_policy":"flow_control"}"#, 10218, "flow control ack policy requires a push based consumer"),
        (
            r#"{"max_deliver":1,"backoff":[1,2]}"#,
            10116,
            "max deliver is required to be > length of backoff values",
        ),
        (r#"{"num_replicas":3}"#, 10126, "consumer config replica count exceeds parent stream"),
        (
            r#"{"ack_policy":"explicit","max_ack_pending":100}"#,
            10121,
            "consumer max ack pending exceeds system limit of 50",
        ),
        (
            r#"{"inactive_threshold":70000000000}"#,
            10153,
            "consumer inactive threshold exceeds system limit of 1m0s",
        ),
        (r#"{"priority_groups":["g"]}"#, 10196, "consumer can not have priority groups when policy is none"),
        (
            r#"{"priority_policy":"overflow"}"#,
            10159,
            "Setting PriorityPolicy requires at least one PriorityGroup to be set",
        ),
        (
            r#"{"priority_policy":"overflow","priority_groups":["this-name-is-way-too-long"]}"#,
            10162,
            "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters",
        ),
    ];
    let subjects = ["s.>".to_owned()];
    let parent = check::Parent { num_replicas: 1, subjects: &subjects, ..Default::default() };
    let bounded = check::Parent { max_ack_pending: 50, inactive_threshold: 60_000_000_000, ..parent };
    for (json, number, text) in own {
        let mut c: ConsumerConfig = serde_json::from_str(json).unwrap();
        let parent = if matches!(number, 10121 | 10153) { bounded } else { parent };
        check::set_defaults(&mut c, &parent, &Default::default(), false).unwrap();
        let e = check::check(&c, &parent, &Default::default(), false).expect_err(json);
        assert_eq!((e.err_code, &*e.description), (number, text), "{json}");
    }
    let boundless = check::Parent { max_ack_pending: -1, ..parent };
    let mut c: ConsumerConfig = serde_json::from_str(r#"{"ack_policy":"explicit"}"#).unwrap();
    check::set_defaults(&mut c, &boundless, &Default::default(), true).unwrap();
    assert_eq!(c.max_ack_pending, -1, "no limit is one to take over, too");
    let mut negative: ConsumerConfig = serde_json::from_str(r#"{"max_waiting":-1}"#).unwrap();
    let e = check::set_defaults(&mut negative, &parent, &Default::default(), true).unwrap_err();
    assert_eq!((e.err_code, &*e.description), (10157, "pedantic mode: max_waiting must not be negative"));
}

#[test]
fn consumers_of_a_stream_have_to_agree() {
    let c = |json: &str| -> ConsumerConfig { serde_json::from_str(json).unwrap() };
    let queue = check::Parent { work_queue: true, num_replicas: 1, max_consumers: 3, ..Default::default() };
    let a = c(r#"{"durable_name":"a","ack_policy":"explicit","filter_subject":"a.*"}"#);
    let whole = c(r#"{"durable_name":"w","ack_policy":"explicit"}"#);
    let create = |new: &str, others: &[ConsumerConfig]| {
        check::decide(&c(new), Action::CreateOrUpdate, &queue, None, others.iter(), false)
            .map_err(|e| e.err_code)
    };
    let alone = [a.clone()];
    for (new, others, answer) in [
        (r#"{"ack_policy":"explicit"}"#, &[][..], Ok(check::Verdict::Create)),
        (r#"{"ack_policy":"all"}"#, &[], Err(10098)),
        (r#"{"ack_policy":"explicit","deliver_policy":"new"}"#, &[], Err(10101)),
        (r#"{"ack_policy":"explicit"}"#, &alone, Err(10099)),
        (r#"{"ack_policy":"explicit","filter_subject":"a.b"}"#, &alone, Err(10100)),
        (r#"{"ack_policy":"explicit","filter_subject":"*.b"}"#, &alone, Err(10100)),
        (r#"{"ack_policy":"explicit","filter_subject":"b.*"}"#, &alone, Ok(check::Verdict::Create)),
        (r#"{"ack_policy":"explicit","filter_subject":"b.*"}"#, std::slice::from_ref(&whole), Err(10100)),
        (r#"{"ack_policy":"explicit","filter_subject":"b"}"#, &[a.clone(), a.clone(), a.clone()], Err(10026)),
    ] {
        assert_eq!(create(new, others), answer, "{new} beside {others:?}");
    }
    let decide = |new: &str, action, bound| {
        let old = c(
            r#"{"durable_name":"p","ack_policy":"explicit","deliver_subject":"d","metadata":{"_nats.level":"1"}}"#,
        );
        let parent = check::Parent { num_replicas: 1, ..Default::default() };
        check::decide(&c(new), action, &parent, Some(&old), [].iter(), bound)
            .map_err(|e| (e.err_code, e.description.into_owned()))
    };
    let same = r#"{"durable_name":"p","ack_policy":"explicit","deliver_subject":"d"}"#;
    let other = r#"{"durable_name":"p","ack_policy":"explicit","deliver_subject":"e"}"#;
    assert_eq!(decide(same, Action::Create, true), Ok(check::Verdict::Same));
    assert_eq!(decide(other, Action::Create, false).unwrap_err().0, 10148);
    assert_eq!(decide(other, Action::Update, false), Ok(check::Verdict::Update));
    assert_eq!(decide(other, Action::Update, true).unwrap_err().0, 10013);
    assert_eq!(
        decide(
            r#"{"durable_name":"p","ack_policy":"all","deliver_subject":"d"}"#,
            Action::CreateOrUpdate,
            false
        ),
        Err((10012, "ack policy can not be updated".into()))
    );
    assert_eq!(
        decide(r#"{"durable_name":"p","ack_policy":"explicit"}"#, Action::CreateOrUpdate, false),
        Err((10012, "can not update push consumer to pull based".into()))
    );
    let parent = check::Parent::default();
    let missing = check::decide(&a, Action::Update, &parent, None, [].iter(), false);
    assert_eq!(missing.unwrap_err().err_code, 10149);
}

#[test]
fn a_consumer_stays_what_it_was_made_as() {
    let c = |json: &str| -> ConsumerConfig { serde_json::from_str(json).unwrap() };
    let (durable, fleeting) = (r#"{"durable_name":"c"}"#, r#"{"name":"c"}"#);
    let long = |json: &str| json.replace('}', r#","inactive_threshold":60000000000}"#);
    for (new, old, wanted) in [
        (durable, None, (true, 0)),
        (fleeting, None, (false, 5)),
        (&*long(fleeting), None, (false, 60)),
        (fleeting, Some(durable), (true, 0)),
        (fleeting, Some(&*long(durable)), (true, 0)),
        (&*long(fleeting), Some(durable), (true, 60)),
        (durable, Some(&*long(durable)), (true, 0)),
        (durable, Some(&*long(fleeting)), (true, 5)),
        (fleeting, Some(&*long(fleeting)), (false, 5)),
        (&*long(durable), Some(fleeting), (true, 60)),
    ] {
        let mut stamped = c(new);
        check::stamp_ephemeral(&mut stamped, old.map(c).as_ref());
        let got = (stamped.is_durable(), stamped.inactive_threshold / 1_000_000_000);
        assert_eq!(got, wanted, "{new} after {old:?}");
    }
}

#[test]
fn c5_a_request_nobody_listens_for_takes_nothing() {
    for policy in ["none", "explicit"] {
        let mut b = Bench::new(&format!(r#"{{"durable_name":"c","ack_policy":"{policy}"}}"#), &[]);
        b.pull("gone", r#"{"batch":5}"#);
        b.pull("here", r#"{"batch":5}"#);
        b.add(&["a"]);
        assert_eq!(b.pump(), ["gone<1/1x1+0"], "both listen");
        b.listeners.0.push(b"gone");
        b.add(&["a", "a", "a"]);
        let pending: Vec<String> = b.pump();
        assert_eq!(pending, ["here<2/2x1+2", "here<3/3x1+1", "here<4/4x1+0"], "C-5");
        assert_eq!(b.c.num_waiting(), 1);
    }
}

#[test]
fn info_counts_who_listens() {
    let mut b = Bench::new(r#"{"durable_name":"c","ack_policy":"explicit"}"#, &[]);
    b.pull("gone", "5");
    b.pull("here", "5");
    b.listeners.0.push(b"gone");
    b.c.retain_requests(&b.listeners);
    assert_eq!(b.c.num_waiting(), 1, "C-5");
}

#[test]
fn new_limits_of_a_stream_name_the_consumers_beyond_them() {
    let all: Vec<(&str, ConsumerConfig)> = [
        ("none", r#"{"durable_name":"none","ack_policy":"none"}"#),
        ("unlimited", r#"{"durable_name":"unlimited","ack_policy":"explicit","max_ack_pending":-1}"#),
        ("small", r#"{"durable_name":"small","ack_policy":"explicit","max_ack_pending":5}"#),
        (
            "idle",
            r#"{"durable_name":"idle","ack_policy":"explicit","max_ack_pending":5,"inactive_threshold":5000000000}"#,
        ),
    ]
    .map(|(name, json)| (name, config(json)))
    .into();
    let check = |max_ack_pending, inactive_threshold| {
        let limits = crate::config::ConsumerLimits { inactive_threshold, max_ack_pending };
        check::check_stream_limits(&limits, all.iter().map(|(n, c)| (*n, c)))
            .map_err(|e| (e.err_code, e.description.to_string()))
    };
    assert_eq!((check(0, 0), check(5, 5_000_000_000)), (Ok(()), Ok(())));
    let bad = |names: &str| Err((10069, format!("change to limits violates consumers: {names}")));
    assert_eq!(check(3, 0), bad("small, idle"));
    assert_eq!(check(0, 1), bad("idle"));
}

#[test]
fn a_request_that_does_not_wait_ends_with_its_heartbeat_where_acks_are_awaited() {
    let durable = r#"{"durable_name":"c","ack_policy":"explicit","max_ack_pending":2}"#;
    let mut b = Bench::new(durable, &["a", "a", "a"]);
    b.pull("r", r#"{"batch":9,"expires":400000000,"no_wait":true,"idle_heartbeat":100000000}"#);
    assert_eq!(b.pump(), ["r<1/1x1+2", "r<2/2x1+1"]);
    assert_eq!(b.wait(), 100 * MS);
    assert_eq!(b.pump(), ["r<404 No Messages"]);
    // Without heartbeats it stays until its time is over.
    let mut b = Bench::new(durable, &["a", "a", "a"]);
    b.pull("r", r#"{"batch":9,"expires":400000000,"no_wait":true}"#);
    b.pump();
    assert_eq!(b.wait(), 400 * MS);
    assert_eq!(b.pump(), ["r<408 Request Timeout 7/0"]);
}
