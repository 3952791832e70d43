use bytes::Bytes;

use super::harness::Shell;
use crate::command::Command;
use crate::errors;
use crate::headers;
use crate::publish::{Abandoned, Ack, Answer, Extra, From, Publish};
use crate::stream::Interest;
use crate::time::SECOND;

fn wrong(seq: u64) -> (u16, String) {
    (10071, format!("wrong last sequence: {seq}"))
}

fn error(known: errors::Known) -> (u16, String) {
    (known.err_code, known.text.to_owned())
}

fn store_failed(text: &str) -> (u16, String) {
    (10077, text.to_owned())
}

fn duplicate(seq: u64) -> Answer {
    Answer::Ack(Ack { seq, duplicate: true, extra: None })
}

#[test]
fn j2_plain_messages_get_rising_sequences() {
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.>"]}"#);
    assert_eq!((s.store("a.1"), s.store("a.2")), (1, 2));
    s.publish("a.3", &[], "");
    s.publish("a.4", &[], "");
    assert_eq!(s.stream.tail_len(), 2);
    assert!(s.answers.is_empty(), "J-1: no answer before its message is applied");
    s.apply();
    assert_eq!(s.seqs(), [1, 2, 3, 4]);
    assert_eq!(s.answers, [Answer::ack(3), Answer::ack(4)]);
}

#[test]
fn time_never_goes_back() {
    let mut s = Shell::new(r#"{"name":"A"}"#);
    s.store("A");
    s.pass(-10 * SECOND);
    s.store("A");
    assert_eq!(s.message(1).time, s.message(2).time);
}

#[test]
fn sizes() {
    let mut s = Shell::new(r#"{"name":"A","max_msg_size":10}"#);
    assert_eq!(s.refused("A", &[], "0123456789a"), error(errors::STREAM_MESSAGE_EXCEEDS_MAXIMUM));
    assert_eq!(s.ask("A", &[], "0123456789"), Answer::ack(1));
    assert_eq!(s.refused("A", &[("a", "b")], ""), error(errors::STREAM_MESSAGE_EXCEEDS_MAXIMUM));
    let mut s = Shell::new(r#"{"name":"A"}"#);
    assert_eq!(
        s.refused("A", &[("a", &"b".repeat(65_536))], ""),
        error(errors::STREAM_HEADER_EXCEEDS_MAXIMUM)
    );
    assert_eq!(s.refused("A", &[], &"x".repeat(33 << 20)), store_failed("message too large"));
}

#[test]
fn message_ids() {
    let mut s = Shell::new(r#"{"name":"A","duplicate_window":1000000000}"#);
    let id: &[(&str, &str)] = &[("Nats-Msg-Id", "1")];
    assert_eq!(s.ask("A", id, "x"), Answer::ack(1));
    assert_eq!(s.ask("A", id, "x"), duplicate(1));
    // In flight too, and the answer waits for the message.
    s.publish("A", &[("Nats-Msg-Id", "2")], "");
    s.answers.clear();
    s.publish("A", &[("Nats-Msg-Id", "2")], "");
    assert!(s.answers.is_empty());
    s.apply();
    assert_eq!(s.answers, [Answer::ack(2), duplicate(2)]);
    s.pass(SECOND);
    assert_eq!(s.ask("A", id, "x"), Answer::ack(3));
    // Once the window has passed nothing is remembered, also if nothing comes any more.
    s.pass(2 * SECOND);
    s.time();
    assert_eq!(s.stream.num_ids(), 0);
    let mut s = Shell::new(r#"{"name":"A","sources":[{"name":"B"}],"subjects":["A"]}"#);
    assert_eq!((s.ask("A", id, "x"), s.ask("A", id, "x")), (Answer::ack(1), Answer::ack(2)));
}

#[test]
fn expectations() {
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"]}"#);
    assert_eq!(s.refused("a.1", &[("Nats-Expected-Stream", "B")], ""), error(errors::STREAM_NOT_MATCH));
    let seq = |n: &'static str| [("Nats-Expected-Last-Sequence", n)];
    let per = |n: &'static str| [("Nats-Expected-Last-Subject-Sequence", n)];
    assert_eq!(s.refused("a.1", &seq("1"), ""), wrong(0));
    assert_eq!(s.ask("a.1", &seq("0"), ""), Answer::ack(1));
    assert_eq!(s.refused("a.1", &seq("x"), ""), wrong(1));
    assert_eq!(s.refused("a.1", &per("0"), ""), wrong(1));
    assert_eq!(s.ask("a.2", &per("0"), ""), Answer::ack(2));
    assert_eq!(s.ask("a.1", &per("1"), ""), Answer::ack(3));
    let of = |n: &'static str, of: &'static str| {
        [("Nats-Expected-Last-Subject-Sequence", n), ("Nats-Expected-Last-Subject-Sequence-Subject", of)]
    };
    assert_eq!(s.refused("a.2", &of("2", "a.1"), ""), wrong(3));
    assert_eq!(s.refused("a.2", &of("2", "a.*"), ""), wrong(3));
    assert_eq!(s.ask("a.2", &of("3", "a.*"), ""), Answer::ack(4));
    assert_eq!(
        s.refused("a.2", &[("Nats-Expected-Last-Subject-Sequence-Subject", "a.1")], ""),
        error(errors::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_INVALID)
    );
    assert_eq!(
        s.refused("a.2", &[("Nats-Expected-Last-Msg-Id", "7")], ""),
        (10070, "wrong last msg ID: ".to_owned())
    );
    s.ask("a.2", &[("Nats-Msg-Id", "7")], "");
    assert_eq!(s.ask("a.2", &[("Nats-Expected-Last-Msg-Id", "7")], ""), Answer::ack(6));
    assert_eq!(s.refused("a.2", &[("Nats-Expected-Last-Msg-Id", "7")], "").0, 10070);
}

#[test]
fn expectations_see_the_tail_and_answer_after_it() {
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"]}"#);
    let per = |n: &'static str| [("Nats-Expected-Last-Subject-Sequence", n)];
    s.publish("a.1", &per("0"), "");
    s.publish("a.1", &per("0"), "");
    s.publish("a.1", &per("1"), "");
    s.publish("a.2", &[("Nats-Expected-Last-Sequence", "2")], "");
    assert!(s.answers.is_empty());
    s.apply();
    let e = |seq| Answer::Error(errors::STREAM_WRONG_LAST_SEQUENCE.with(seq));
    assert_eq!(s.answers, [Answer::ack(1), e(1), Answer::ack(2), Answer::ack(3)]);
    // With nothing in flight a refusal leaves at once.
    s.answers.clear();
    s.publish("a.1", &per("0"), "");
    assert_eq!(s.answers, [e(2)]);
}

#[test]
fn a_refused_tail_leaves_no_trace() {
    let mut s = Shell::new(r#"{"name":"A","allow_msg_counter":true}"#);
    let msg = |id: &'static str| [("Nats-Msg-Id", id), ("Nats-Incr", "1")];
    s.ask("A", &msg("a"), "");
    s.publish("A", &msg("b"), "");
    s.publish("A", &msg("c"), "");
    s.lose_tail();
    let value = |seq, value: &str| {
        let extra = Extra { value: Some(value.to_owned()), batch: None };
        Answer::Ack(Ack { seq, duplicate: false, extra: Some(Box::new(extra)) })
    };
    assert_eq!(s.ask("A", &[("Nats-Incr", "1"), ("Nats-Msg-Id", "b")], ""), value(2, "2"));
    assert_eq!(s.ask("A", &msg("a"), ""), duplicate(1));
}

#[test]
fn rollups() {
    let sub = [("Nats-Rollup", "sub")];
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"]}"#);
    assert_eq!(s.refused("a.1", &sub, ""), (10111, "rollup not permitted".to_owned()));
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"],"allow_rollup_hdrs":true}"#);
    for subject in ["a.1", "a.2", "a.1", "a.3"] {
        s.store(subject);
    }
    assert_eq!(
        s.refused("a.1", &[("Nats-Rollup", "Some")], ""),
        (10111, "rollup value invalid: \"some\"".to_owned())
    );
    s.ask("a.1", &sub, "");
    assert_eq!(s.seqs(), [2, 4, 5]);
    s.ask("a.2", &[("Nats-Rollup", "ALL")], "");
    assert_eq!(s.seqs(), [6]);
    // What is before a rollup in the same entry goes too.
    s.publish("a.7", &[], "");
    s.publish("a.8", &[], "");
    s.publish("a.8", &sub, "");
    s.publish("a.8", &[], "");
    s.apply();
    assert_eq!(s.seqs(), [6, 7, 9, 10]);
    // An expectation behind a rollup of all waits for it.
    s.publish("a.1", &[("Nats-Rollup", "all")], "");
    s.answers.clear();
    s.publish("a.7", &[("Nats-Expected-Last-Subject-Sequence", "0")], "");
    s.apply();
    assert_eq!(s.answers, [Answer::ack(11), Answer::ack(12)]);
}

#[test]
fn j3_limits_discard_the_old() {
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"],"max_msgs":3}"#);
    for _ in 0..5 {
        s.publish("a.1", &[], "");
    }
    s.apply();
    assert_eq!(s.seqs(), [3, 4, 5]);
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"],"max_bytes":100}"#);
    for _ in 0..4 {
        // 34 bytes each.
        s.store("a.1");
    }
    assert_eq!(s.seqs(), [3, 4]);
    s.ask("a.1", &[], &"x".repeat(200));
    assert_eq!(s.seqs(), [0u64; 0]);
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"],"max_msgs_per_subject":2}"#);
    for subject in ["a.1", "a.2", "a.1", "a.1", "a.2"] {
        s.publish(subject, &[], "");
    }
    s.apply();
    assert_eq!(s.seqs(), [2, 3, 4, 5]);
}

#[test]
fn j3_limits_discard_the_new() {
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"],"discard":"new","max_msgs":2}"#);
    s.publish("a.1", &[], "");
    s.publish("a.1", &[], "");
    s.publish("a.1", &[], "");
    s.apply();
    let full = Answer::Error(errors::STREAM_STORE_FAILED.with("maximum messages exceeded"));
    assert_eq!(s.answers, [Answer::ack(1), Answer::ack(2), full]);
    s.run(Command::Delete { seq: 1, erase: false });
    assert_eq!(s.store("a.1"), 3);
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"],"discard":"new","max_bytes":70}"#);
    s.store("a.1");
    s.store("a.1");
    assert_eq!(s.refused("a.1", &[], "x"), store_failed("maximum bytes exceeded"));
    // A full subject gives its oldest message for the new one.
    let mut s = Shell::new(
        r#"{"name":"A","subjects":["a.*"],"discard":"new","max_msgs":2,"max_bytes":68,"max_msgs_per_subject":1}"#,
    );
    s.store("a.1");
    s.store("a.2");
    assert_eq!(s.refused("a.3", &[], ""), store_failed("maximum messages exceeded"));
    assert_eq!(s.store("a.1"), 3);
    assert_eq!(s.refused("a.1", &[], "longer"), store_failed("maximum bytes exceeded"));
    let mut s = Shell::new(
        r#"{"name":"A","subjects":["a.*"],"discard":"new","discard_new_per_subject":true,"max_msgs_per_subject":1,"allow_rollup_hdrs":true}"#,
    );
    s.publish("a.1", &[], "");
    s.publish("a.1", &[], "");
    s.publish("a.2", &[], "");
    s.apply();
    let full = Answer::Error(errors::STREAM_STORE_FAILED.with("maximum messages per subject exceeded"));
    assert_eq!(s.answers, [Answer::ack(1), full, Answer::ack(2)]);
    assert_eq!(s.ask("a.1", &[("Nats-Rollup", "sub")], ""), Answer::ack(3));
    assert_eq!(s.seqs(), [2, 3]);
}

#[test]
fn sealed_streams_take_nothing() {
    let mut s = Shell::new(r#"{"name":"A"}"#);
    s.store("A");
    let mut config = s.stream.config().clone();
    config.sealed = true;
    let json = serde_json::to_vec(&config).unwrap().into();
    s.propose(Command::Config { json, created: s.stream.created() });
    s.answers.clear();
    // Decided only when the configuration has been applied.
    s.publish("A", &[], "");
    assert_eq!(s.answers, [Answer::Error(errors::STREAM_SEALED.error())]);
}

#[test]
fn subjects_are_transformed() {
    let mut s = Shell::new(
        r#"{"name":"A","subjects":["in.*"],"subject_transform":{"src":"in.*","dest":"out.$1"},"max_msgs_per_subject":1}"#,
    );
    s.store("in.a");
    s.store("in.a");
    assert_eq!(s.seqs(), [2]);
    assert_eq!(s.message(2).subject, "out.a");
    assert_eq!(s.ask("in.a", &[("Nats-Expected-Last-Subject-Sequence", "2")], ""), Answer::ack(3));
}

#[test]
fn times_to_live() {
    let mut s = Shell::new(r#"{"name":"A"}"#);
    assert_eq!(s.refused("A", &[("Nats-TTL", "5")], ""), error(errors::MESSAGE_TTL_DISABLED));
    assert_eq!(s.refused("A", &[("Nats-TTL", "soon")], ""), error(errors::MESSAGE_TTL_INVALID));
    let mut s = Shell::new(r#"{"name":"A","allow_msg_ttl":true,"max_age":10000000000}"#);
    s.ask("A", &[("Nats-TTL", "5")], "");
    s.ask("A", &[("Nats-TTL", "never")], "");
    s.store("A");
    s.ask("A", &[("Nats-TTL", "1s")], "");
    assert_eq!(s.message(2).expires, Some(i64::MAX));
    let d = s.stream.deadlines(&s.msgs).unwrap();
    assert_eq!(d.wall, Some(s.now.wall + SECOND));
    s.pass(SECOND);
    s.time();
    assert_eq!(s.seqs(), [1, 2, 3]);
    s.pass(4 * SECOND);
    s.time();
    assert_eq!(s.seqs(), [2, 3]);
    s.pass(5 * SECOND);
    s.time();
    assert_eq!(s.seqs(), [2]);
    let d = s.stream.deadlines(&s.msgs).unwrap();
    assert_eq!(d.wall, None);
    s.store("A");
    s.pass(10 * SECOND);
    s.time();
    assert_eq!(s.seqs(), [2]);
}

#[test]
fn delete_markers() {
    let mut s = Shell::new(
        r#"{"name":"A","subjects":["a.*"],"max_age":1000000000,"subject_delete_marker_ttl":60000000000}"#,
    );
    s.store("a.1");
    s.store("a.1");
    s.store("a.2");
    s.ask("a.3", &[("KV-Operation", "PURGE")], "");
    // A time to live below the marker's would hide the marker.
    s.ask("a.4", &[("Nats-TTL", "2s")], "");
    assert_eq!(headers::get(&s.message(5).headers, b"Nats-TTL"), Some(&b"60"[..]));
    s.run(Command::Delete { seq: 5, erase: false });
    s.pass(SECOND);
    s.time();
    assert_eq!(s.seqs(), [6, 7]);
    let m = s.message(6);
    assert_eq!(m.subject, "a.1");
    assert_eq!(
        &m.headers[..],
        b"NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: 1m0s\r\nNats-Rollup: sub\r\n\r\n"
    );
    assert_eq!(m.expires, Some(m.time + 60 * SECOND));
    // Markers leave none themselves.
    s.pass(60 * SECOND);
    s.time();
    assert!(s.seqs().is_empty());
}

/// The only message of a subject leaves a marker; one above others that live longer just goes, and they are the subject's again.
#[test]
fn an_older_message_that_lives_longer_outlives_the_last_one() {
    let mut s = Shell::new(
        r#"{"name":"A","subjects":["a.*"],"allow_msg_ttl":true,"subject_delete_marker_ttl":1000000000}"#,
    );
    s.store("a.1");
    s.ask("a.1", &[("Nats-TTL", "1s")], "");
    s.ask("a.2", &[("Nats-TTL", "3s")], "");
    s.ask("a.2", &[("Nats-TTL", "1s")], "");
    s.ask("a.3", &[("Nats-TTL", "1s")], "");
    s.ask("a.3", &[("Nats-TTL", "1s")], "");
    s.pass(SECOND);
    s.time();
    assert_eq!(s.seqs(), [1, 3, 7]);
    assert_eq!(s.message(7).subject, "a.3");
    s.pass(2 * SECOND);
    s.time();
    assert_eq!(s.seqs(), [1, 8], "the marker of a.3 is gone, and a.2 has ended");
    assert_eq!(s.message(8).subject, "a.2");
}

/// What a mirror's own limits say of a message of its origin.
fn copied(s: &mut Shell, m: &crate::Stored) -> Result<(), String> {
    let mut m = m.clone();
    match s.stream.copied(&mut m, &s.msgs) {
        Ok(crate::Decision::Store { entry, .. }) => assert_eq!(entry.seq, m.seq),
        Ok(crate::Decision::Answer { answers: [Some(crate::Answer::Error(e)), _], .. }) => {
            return Err(e.description.into_owned());
        }
        _ => panic!("{m:?} is decided"),
    }
    s.open.push(m);
    s.apply();
    Ok(())
}

#[test]
fn mirrors_keep_their_own_limits() {
    let mut origin = Shell::new(r#"{"name":"B","allow_msg_ttl":true}"#);
    origin.ask("B", &[("Nats-TTL", "1s")], "");
    origin.ask("B", &[("Nats-TTL", "never")], "and the second one");
    let all = [origin.message(1), origin.message(2)];
    let mut s = Shell::new(r#"{"name":"A","mirror":{"name":"B"},"max_msgs":1,"discard":"new"}"#);
    assert_eq!(copied(&mut s, &all[0]), Ok(()));
    assert_eq!(copied(&mut s, &all[1]), Err("maximum messages exceeded".to_owned()));
    s.run(Command::Delete { seq: 1, erase: false });
    assert_eq!(copied(&mut s, &all[1]), Ok(()), "there is room now");
    assert_eq!(s.seqs(), [2]);
    let mut s = Shell::new(r#"{"name":"A","mirror":{"name":"B"},"max_msg_size":30}"#);
    assert_eq!(copied(&mut s, &all[0]), Ok(()));
    assert_eq!(copied(&mut s, &all[1]), Err("message size exceeds maximum allowed".to_owned()));
    // A time to live counts where the mirror allows one.
    for (allows, left) in [("true", vec![2]), ("false", vec![1, 2])] {
        let mut s =
            Shell::new(&format!(r#"{{"name":"A","mirror":{{"name":"B"}},"allow_msg_ttl":{allows}}}"#));
        for m in &all {
            assert_eq!(copied(&mut s, m), Ok(()));
        }
        s.pass(SECOND);
        s.time();
        assert_eq!(s.seqs(), left, "allow_msg_ttl: {allows}");
    }
}

#[test]
fn counters() {
    let incr = |n: &'static str| [("Nats-Incr", n)];
    let mut s = Shell::new(r#"{"name":"A"}"#);
    assert_eq!(s.refused("A", &incr("1"), ""), error(errors::MESSAGE_INCR_DISABLED));
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"],"allow_msg_counter":true}"#);
    assert_eq!(s.refused("a.1", &[], ""), error(errors::MESSAGE_INCR_MISSING));
    assert_eq!(s.refused("a.1", &incr("x"), ""), error(errors::MESSAGE_INCR_INVALID));
    assert_eq!(s.refused("a.1", &incr("1"), "y"), error(errors::MESSAGE_INCR_PAYLOAD));
    let both = [("Nats-Incr", "1"), ("Nats-Expected-Last-Sequence", "0")];
    assert_eq!(s.refused("a.1", &both, ""), error(errors::MESSAGE_INCR_INVALID));
    for n in ["5", "+10", "-20"] {
        s.publish("a.1", &incr(n), "");
    }
    s.publish("a.2", &incr("1"), "");
    s.apply();
    let values: Vec<_> = s
        .answers
        .iter()
        .map(|a| match a {
            Answer::Ack(Ack { extra: Some(e), .. }) => e.value.clone().unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(values, ["5", "15", "-5", "1"]);
    assert_eq!(s.message(3).payload, r#"{"val":"-5"}"#);
    let from = [("Nats-Incr", "3"), ("Nats-Stream-Source", "EU 9 > > a.1")];
    let block = super::harness::block(&from);
    s.decide(&Publish {
        subject: b"a.1",
        headers: &block,
        payload: br#"{"val":"30"}"#,
        from: From::Source,
        ..Publish::default()
    });
    s.apply();
    let m = s.message(5);
    assert_eq!(m.payload, r#"{"val":"25"}"#);
    assert_eq!(headers::get(&m.headers, headers::INCR), Some(&b"30"[..]));
    assert_eq!(headers::get(&m.headers, headers::COUNTER_SOURCES), Some(&br#"{"EU":{"a.1":"30"}}"#[..]));
}

#[test]
fn schedules() {
    let mut s = Shell::new(r#"{"name":"A","subjects":["s.*","t.*"]}"#);
    let every = [("Nats-Schedule", "@every 5s"), ("Nats-Schedule-Target", "t.1")];
    assert_eq!(s.refused("s.1", &every, ""), error(errors::MESSAGE_SCHEDULES_DISABLED));
    let mut s = Shell::new(
        r#"{"name":"A","subjects":["s.*","t.*"],"allow_msg_schedules":true,"allow_msg_ttl":true}"#,
    );
    let with = |name: &'static str, value: &'static str| {
        vec![("Nats-Schedule", "@every 5s"), ("Nats-Schedule-Target", "t.1"), (name, value)]
    };
    for (headers, e) in [
        (vec![("Nats-Schedule", "never")], errors::MESSAGE_SCHEDULES_PATTERN_INVALID),
        (vec![("Nats-Schedule", "@every 5s")], errors::MESSAGE_SCHEDULES_TARGET_INVALID),
        (
            vec![("Nats-Schedule", "@every 5s"), ("Nats-Schedule-Target", "s.1")],
            errors::MESSAGE_SCHEDULES_TARGET_INVALID,
        ),
        (
            vec![("Nats-Schedule", "@every 5s"), ("Nats-Schedule-Target", "x")],
            errors::MESSAGE_SCHEDULES_TARGET_INVALID,
        ),
        (with("Nats-Schedule-TTL", "x"), errors::MESSAGE_SCHEDULES_TTL_INVALID),
        (with("Nats-Schedule-Source", "t.1"), errors::MESSAGE_SCHEDULES_SOURCE_INVALID),
        (with("Nats-Schedule-Rollup", "all"), errors::MESSAGE_SCHEDULES_ROLLUP_INVALID),
        (with("Nats-Schedule-Time-Zone", "UTC"), errors::MESSAGE_SCHEDULES_PATTERN_INVALID),
        (with("Nats-Schedule-Time-Zone", "x"), errors::MESSAGE_SCHEDULES_TIME_ZONE_INVALID),
        (with("Nats-Rollup", "all"), errors::MESSAGE_SCHEDULES_ROLLUP_INVALID),
        (vec![("Nats-Scheduler", "s.1")], errors::MESSAGE_SCHEDULES_SCHEDULER_INVALID),
        (
            vec![("Nats-Scheduler", "s.9"), ("Nats-Schedule-Next", "later")],
            errors::MESSAGE_SCHEDULES_SCHEDULER_INVALID,
        ),
    ] {
        assert_eq!(s.refused("s.1", &headers, ""), error(e), "{headers:?}");
    }
    s.ask("t.9", &[("Nats-Msg-Id", "i"), ("X", "y")], "content");
    let mut headers = with("Nats-Schedule-Source", "t.9");
    headers.push(("Nats-Schedule-TTL", "60"));
    s.ask("s.1", &headers, "own");
    s.ask("s.2", &[("Nats-Schedule", "@at 2000-01-01T00:00:00Z"), ("Nats-Schedule-Target", "t.2")], "once");
    s.time();
    // The one in the past has fired and is gone.
    assert_eq!(s.seqs(), [1, 2, 4]);
    let m = s.message(4);
    assert_eq!((&m.subject[..], &m.payload[..]), (&b"t.2"[..], &b"once"[..]));
    assert_eq!(&m.headers[..], b"NATS/1.0\r\nNats-Scheduler: s.2\r\nNats-Schedule-Next: purge\r\n\r\n");
    s.pass(5 * SECOND);
    s.time();
    let m = s.message(5);
    assert_eq!((&m.subject[..], &m.payload[..]), (&b"t.1"[..], &b"content"[..]));
    assert_eq!(
        String::from_utf8_lossy(&m.headers),
        "NATS/1.0\r\nX: y\r\nNats-Scheduler: s.1\r\nNats-Schedule-Next: 2023-11-14T22:13:30Z\r\nNats-TTL: 60\r\n\r\n"
    );
    s.time();
    assert_eq!(s.stream.applied_seq(), 5);
    // After a long while it fires once.
    s.pass(100 * SECOND);
    s.time();
    assert_eq!(s.stream.applied_seq(), 6);
    // A client stops it.
    s.ask("t.3", &[("Nats-Scheduler", "s.1"), ("Nats-Schedule-Next", "purge")], "");
    assert!(!s.seqs().contains(&2));
    s.pass(100 * SECOND);
    s.time();
    assert_eq!(s.stream.applied_seq(), 7);
}

#[test]
fn atomic_batches() {
    fn b<'a>(seq: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut h = vec![("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", seq)];
        h.extend_from_slice(more);
        h
    }
    let commit = ("Nats-Batch-Commit", "1");
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"]}"#);
    assert_eq!(s.refused("a.1", &b("1", &[]), ""), error(errors::ATOMIC_PUBLISH_DISABLED));
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"],"allow_atomic":true,"allow_rollup_hdrs":true}"#);
    for (headers, code) in [
        (b("2", &[]), 10176),
        (b("1002", &[]), 10199),
        (vec![("Nats-Batch-Id", "b")], 10175),
        (b("1", &[("Nats-Batch-Commit", "2")]), 10200),
        (b("1", &[("Nats-Batch-Commit", "eob")]), 10176),
        (b("1", &[("Nats-Required-Api-Level", "99")]), 10185),
        (b("1", &[commit, ("Nats-Expected-Last-Msg-Id", "x")]), 10177),
        (b("1", &[commit, ("Nats-Expected-Last-Sequence", "7")]), 10071),
    ] {
        assert_eq!(s.refused("a.1", &headers, "").0, code, "{headers:?}");
    }
    s.stream.take_abandoned();
    // Nothing is stored before the commit, and other publishes may come between.
    assert_eq!(s.ask("a.1", &b("1", &[("Nats-Required-Api-Level", "2")]), "one"), Answer::Empty);
    assert_eq!(s.store("a.9"), 1);
    assert_eq!(s.ask("a.2", &b("2", &[]), "two"), Answer::Empty);
    assert_eq!(s.seqs(), [1]);
    assert_eq!(s.ask("a.3", &b("3", &[commit]), "three"), Answer::batch(4, false, "b", 3));
    assert_eq!(s.seqs(), [1, 2, 3, 4]);
    assert_eq!(&s.message(2).headers[..], b"NATS/1.0\r\nNats-Batch-Id: b\r\nNats-Batch-Sequence: 1\r\n\r\n");
    // With a mark of the end, the message before it is the last.
    s.ask("a.1", &b("1", &[]), "");
    assert_eq!(s.ask("a.1", &b("2", &[("Nats-Batch-Commit", "eob")]), ""), Answer::batch(5, false, "b", 1));
    assert_eq!(headers::get(&s.message(5).headers, headers::BATCH_COMMIT), Some(&b"1"[..]));
    // All or nothing.
    for (first, second, code) in [
        (vec![], vec![("Nats-Expected-Last-Subject-Sequence", "5")], 10164),
        (vec![("Nats-Msg-Id", "d")], vec![("Nats-Msg-Id", "d")], 10201),
        (vec![], vec![("Nats-Rollup", "sub")], 10111),
        (vec![], vec![("Nats-Rollup", "all")], 10111),
        (vec![("Nats-Expected-Last-Sequence", "5")], vec![("Nats-Expected-Last-Sequence", "6")], 10164),
    ] {
        assert_eq!(s.ask("a.1", &b("1", &first), ""), Answer::Empty);
        let mut second = b("2", &second);
        second.push(commit);
        assert_eq!(s.refused("a.1", &second, "").0, code, "{second:?}");
        assert_eq!(s.stream.num_ids(), 0);
    }
    assert_eq!(s.store("a.1"), 6);
    // A gap ends it, and so does silence.
    s.ask("a.1", &b("1", &[]), "");
    assert_eq!(s.refused("a.1", &b("3", &[]), "").0, 10176);
    s.ask("a.1", &b("1", &[]), "");
    let d = s.stream.deadlines(&s.msgs).unwrap();
    assert_eq!(d.mono, Some(s.now.mono + 10 * SECOND as u64));
    s.pass(10 * SECOND);
    s.stream.tick(s.now);
    assert_eq!(s.refused("a.1", &b("2", &[]), "").0, 10176);
    assert_eq!(
        s.stream.take_abandoned(),
        [("b".to_owned(), Abandoned::Incomplete), ("b".to_owned(), Abandoned::Timeout)]
    );
}

#[test]
fn a_batch_finds_no_room_or_all_of_it() {
    let mut s =
        Shell::new(r#"{"name":"A","subjects":["a.*"],"allow_atomic":true,"discard":"new","max_msgs":3}"#);
    s.store("a.1");
    let b = |seq: &'static str, commit: &[(&'static str, &'static str)]| {
        let mut h = vec![("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", seq)];
        h.extend_from_slice(commit);
        h
    };
    let commit = [("Nats-Batch-Commit", "1")];
    s.ask("a.1", &b("1", &[]), "");
    s.ask("a.1", &b("2", &[]), "");
    assert_eq!(s.refused("a.1", &b("3", &commit), ""), store_failed("maximum messages exceeded"));
    s.ask("a.1", &b("1", &[]), "");
    assert_eq!(s.ask("a.1", &b("2", &commit), ""), Answer::batch(3, false, "b", 2));
}

#[test]
fn fast_batches() {
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"]}"#);
    let say = |s: &mut Shell, reply: &str, headers: &[(&str, &str)]| {
        s.answers.clear();
        s.publish_to("a.1", &format!("_INBOX.x.{reply}.$FI"), headers, "x");
        s.apply();
        std::mem::take(&mut s.answers)
    };
    let error = |code: u16| vec![Answer::Error(errors::known(code).unwrap().error())];
    let flow = |seq, msgs| Answer::Flow { seq, msgs };
    assert_eq!(say(&mut s, "b.2.ok.1.0", &[]), error(10205));
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"],"allow_batched":true}"#);
    assert_eq!(say(&mut s, "b.2.what.1.0", &[]), error(10206));
    assert_eq!(say(&mut s, "b.2.ok.2.1", &[]), error(10208));
    for gaps in ["ok", "fail"] {
        assert_eq!(say(&mut s, &format!("b.2.{gaps}.1.4"), &[]), error(10208), "nobody is asked for");
    }
    assert_eq!(s.stream.open_batches(), 0);
    assert_eq!(say(&mut s, "b.2.fail.1.0", &[]), [flow(0, 2)]);
    assert_eq!(say(&mut s, "b.2.fail.2.1", &[]), [flow(2, 2)]);
    assert_eq!(say(&mut s, "b.2.fail.3.1", &[]), []);
    assert_eq!(say(&mut s, "b.2.fail.3.4", &[]), [flow(2, 2)]);
    assert_eq!(say(&mut s, "b.2.fail.4.2", &[]), [Answer::batch(4, false, "b", 4)]);
    // A gap ends a batch that does not allow it.
    say(&mut s, "c.2.fail.1.0", &[]);
    let gap = Answer::Gap { last_seq: 2, seq: 3 };
    assert_eq!(say(&mut s, "c.2.fail.3.1", &[]), [gap.clone(), Answer::batch(5, false, "c", 1)]);
    // One that does goes on, to the mark of the end.
    say(&mut s, "d.5.ok.1.0", &[]);
    assert_eq!(say(&mut s, "d.5.ok.3.1", &[]), [gap]);
    let bad = [("Nats-Expected-Stream", "B")];
    let failed = Answer::Failed { seq: 4, error: errors::STREAM_NOT_MATCH.error() };
    assert_eq!(say(&mut s, "d.5.ok.4.1", &bad), [failed]);
    assert_eq!(say(&mut s, "d.5.ok.5.3", &[]), [Answer::batch(7, false, "d", 4)]);
    // The first message fails as a plain publish does.
    assert_eq!(say(&mut s, "e.5.fail.1.0", &bad)[1..], error(10060));
    assert_eq!(say(&mut s, "e.5.fail.2.1", &[]), error(10208));
    // Duplicates are passed over.
    let id = [("Nats-Msg-Id", "m")];
    say(&mut s, "f.1.ok.1.0", &id);
    assert_eq!(say(&mut s, "f.1.ok.2.1", &id), [flow(2, 1)]);
    assert_eq!(say(&mut s, "f.1.ok.3.2", &[]), [Answer::batch(9, false, "f", 3)]);
    // What has come already ends a batch, whether it allows gaps or not.
    for (n, gaps) in [(10, "ok"), (12, "fail")] {
        say(&mut s, &format!("g.5.{gaps}.1.0"), &[]);
        say(&mut s, &format!("g.5.{gaps}.2.1"), &[]);
        let again = [Answer::Gap { last_seq: 3, seq: 1 }, Answer::batch(n + 1, false, "g", 2)];
        assert_eq!(say(&mut s, &format!("g.5.{gaps}.1.0"), &[]), again);
    }
    // One that ends with a duplicate says where it stands first.
    let answers = say(&mut s, "h.1.fail.1.2", &id);
    assert_eq!(answers, [flow(1, 1), Answer::batch(8, true, "h", 1)]);
    assert_eq!(s.stream.open_batches(), 0);
    // A stream that acknowledges nothing keeps silent about the beginning and what is no batch, and about nothing else.
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"],"allow_batched":true,"no_ack":true}"#);
    assert_eq!(say(&mut s, "a.2.what.1.0", &[]), []);
    assert_eq!(say(&mut s, "a.2.ok.2.1", &[]), []);
    assert_eq!(say(&mut s, "a.2.ok.1.2", &[]), [Answer::batch(1, false, "a", 1)]);
    assert_eq!(say(&mut s, "b.2.fail.1.0", &[]), []);
    assert_eq!(say(&mut s, "b.2.fail.2.1", &[]), [flow(2, 2)]);
    assert_eq!(
        say(&mut s, "b.2.fail.4.1", &[]),
        [Answer::Gap { last_seq: 3, seq: 4 }, Answer::batch(3, false, "b", 2)]
    );
    assert_eq!(say(&mut s, "c.2.fail.1.0", &bad), error(10060));
}

#[test]
fn purges() {
    let fill = || {
        let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"]}"#);
        for n in 0..6 {
            s.store(if n % 2 == 0 { "a.1" } else { "a.2" });
        }
        s
    };
    for (filter, below, keep, left) in [
        ("", 0, 0, &[][..]),
        (">", 0, 0, &[]),
        ("", 1, 0, &[1, 2, 3, 4, 5, 6]),
        ("", 4, 0, &[4, 5, 6]),
        ("", 0, 2, &[5, 6]),
        ("", 0, 9, &[1, 2, 3, 4, 5, 6]),
        ("a.1", 0, 0, &[2, 4, 6]),
        ("a.1", 5, 0, &[2, 4, 5, 6]),
        ("a.1", 0, 1, &[2, 4, 5, 6]),
        ("a.*", 0, 1, &[6]),
        ("b", 0, 0, &[1, 2, 3, 4, 5, 6]),
        ("", 100, 0, &[]),
    ] {
        let mut s = fill();
        let filter = Bytes::copy_from_slice(filter.as_bytes());
        let outcome = s.run(Command::Purge { filter: filter.clone(), below, keep });
        assert_eq!(s.seqs(), left, "{filter:?} {below} {keep}");
        assert_eq!(outcome.removed, 6 - left.len() as u64);
        let last = if below == 100 { 99 } else { 6 };
        assert_eq!(s.stream.totals(&s.msgs).last, last);
        assert_eq!(s.store("a.1"), last + 1);
    }
}

#[test]
fn first_sequences_and_advancing() {
    let mut s = Shell::new(r#"{"name":"A","first_seq":1000}"#);
    let t = s.stream.totals(&s.msgs);
    assert_eq!((t.first, t.last, t.msgs, s.stream.floor()), (1000, 999, 0, 999));
    // Another one later is shown and changes nothing.
    let later = crate::StreamConfig { first_seq: 2000, ..s.stream.config().clone() };
    let json = serde_json::to_vec(&later).unwrap().into();
    s.run(Command::Config { json, created: 0 });
    assert_eq!((s.stream.config().first_seq, s.stream.floor()), (2000, 999));
    assert_eq!(s.store("A"), 1000);
    s.propose(Command::Advance { last: 5000 });
    s.publish("A", &[], "");
    s.apply();
    assert_eq!(s.seqs(), [1000, 5001]);
    // J-2: what a store does not take is not decided, also after a refusal.
    s.stream.pass_over(6000);
    assert_eq!(s.stream.floor(), 5000, "that is for the log to say");
    s.stream.reset_tail();
    assert_eq!(s.store("A"), 6001);
}

#[test]
fn configurations_change_what_is_kept() {
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"]}"#);
    for subject in ["a.1", "a.1", "a.1", "a.2", "a.2", "a.3"] {
        s.store(subject);
    }
    let change = |s: &mut Shell, f: &dyn Fn(&mut crate::StreamConfig)| {
        let mut config = s.stream.config().clone();
        f(&mut config);
        let json = serde_json::to_vec(&config).unwrap().into();
        s.run(Command::Config { json, created: 7 });
    };
    change(&mut s, &|c| c.max_msgs_per_subject = 2);
    assert_eq!(s.seqs(), [2, 3, 4, 5, 6]);
    change(&mut s, &|c| c.max_msgs = 3);
    assert_eq!(s.seqs(), [4, 5, 6]);
    assert_eq!(s.stream.created(), 7);
}

#[test]
fn interest_keeps_what_somebody_wants() {
    /// Wants `a.1`; has acknowledged up to a sequence.
    struct One(u64);
    impl Interest for One {
        fn wanted(&self, subject: &[u8]) -> bool {
            subject == b"a.1"
        }
        fn needed(&self, seq: u64, subject: &[u8]) -> bool {
            self.wanted(subject) && seq > self.0
        }
    }
    let mut s = Shell::with(r#"{"name":"A","subjects":["a.*"],"retention":"interest"}"#, One(0));
    for subject in ["a.1", "a.2", "a.1", "a.1"] {
        s.publish(subject, &[], "");
    }
    s.apply();
    assert_eq!(s.seqs(), [1, 3, 4]);
    s.interest = One(3);
    s.stream.acked(1, 3);
    s.run(Command::ConsumerDelta { name: Bytes::from_static(b"c"), delta: Bytes::new() });
    assert_eq!(s.seqs(), [4]);
    s.interest = One(u64::MAX);
    s.stream.interest_changed();
    s.run(Command::ConsumerDelete { name: Bytes::from_static(b"c") });
    assert!(s.seqs().is_empty());
}

#[test]
fn what_is_too_large_is_nothing_else() {
    let mut s = Shell::new(r#"{"name":"A","max_msg_size":50}"#);
    let id = [("Nats-Msg-Id", "1")];
    s.ask("A", &id, "x");
    let large = "x".repeat(60);
    for headers in
        [id, [("Nats-Expected-Last-Sequence", "9")], [("Nats-Rollup", "what")], [("Nats-Incr", "x")]]
    {
        assert_eq!(s.refused("A", &headers, &large), error(errors::STREAM_MESSAGE_EXCEEDS_MAXIMUM));
    }
}

#[test]
fn no_ack_streams_say_nothing() {
    let mut s = Shell::new(r#"{"name":"A","no_ack":true,"max_msg_size":1}"#);
    s.publish("A", &[], "x");
    s.publish("A", &[], "too long");
    s.publish("A", &[("Nats-Msg-Id", "1")], "");
    s.apply();
    assert!(s.answers.is_empty());
    assert_eq!(s.seqs(), [1]);
}

#[test]
fn sources_are_known_by_what_they_sent() {
    let mut s =
        Shell::new(r#"{"name":"A","subjects":["a.*"],"sources":[{"name":"EU","filter_subject":"a.*"}]}"#);
    let index = s.stream.config().sources[0].index_name();
    let source = [("Nats-Stream-Source", "EU 9 a.* > a.1")];
    assert_eq!(s.refused("a.1", &source, ""), error(errors::MESSAGE_SOURCE_HDR_NOT_ALLOWED));
    let mut out = Vec::new();
    crate::source::gathered(b"", &index, 12, b"a.1", "", &mut out);
    s.decide(&Publish { subject: b"a.1", headers: &out, from: From::Source, ..Publish::default() });
    assert_eq!(s.stream.source_at(&index), None);
    s.apply();
    assert_eq!(s.stream.source_at(&index).unwrap().seq, 12);
}

#[test]
fn request_info_is_not_stored() {
    let mut s = Shell::new(r#"{"name":"A"}"#);
    s.ask("A", &[("Nats-Request-Info", "{}"), ("X", "y")], "");
    s.ask("A", &[("Nats-Request-Info", "{}")], "");
    assert_eq!(&s.message(1).headers[..], b"NATS/1.0\r\nX: y\r\n\r\n");
    assert!(s.message(2).headers.is_empty());
}

#[test]
fn republished_headers() {
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"],"republish":{"src":"a.*","dest":"copy.$1"}}"#);
    s.ask("a.1", &[("X", "y")], "body");
    let mut to = Vec::new();
    assert!(s.stream.republish_to(b"a.1", &mut to));
    assert_eq!(to, b"copy.1");
    let m = s.message(1);
    let mut out = Vec::new();
    crate::stream::republish_headers("A", &crate::publish::Entry::of(&m), 0, true, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "NATS/1.0\r\nX: y\r\nNats-Stream: A\r\nNats-Subject: a.1\r\nNats-Sequence: 1\r\nNats-Time-Stamp: 2023-11-14T22:13:20Z\r\nNats-Last-Sequence: 0\r\nNats-Msg-Size: 4\r\n\r\n"
    );
}

#[test]
fn mirrors_keep_numbers_and_times() {
    let mut origin = Shell::new(r#"{"name":"B"}"#);
    origin.store("B");
    origin.store("B");
    origin.store("B");
    let mut s = Shell::new(r#"{"name":"A","mirror":{"name":"B"}}"#);
    for seq in [1, 3, 3, 2] {
        let m = origin.message(seq);
        if let crate::publish::Decision::Store { entry, .. } = s.stream.mirrored(&m) {
            assert_eq!(entry.seq, seq);
            s.open.push(m);
        }
    }
    s.apply();
    assert_eq!(s.seqs(), [1, 3]);
}

#[test]
fn nothing_is_decided_while_an_entry_is_half_applied() {
    let mut s = Shell::new(r#"{"name":"A","subjects":["a.*"],"max_msgs":1}"#);
    s.store("a.1");
    s.publish("a.2", &[], "");
    let m = s.open.remove(0);
    s.msgs.inner.push(m.clone());
    s.stream.applied(&crate::publish::Entry::of(&m));
    // The removal of the first message meets a miss.
    s.msgs.misses = 255;
    while s.stream.enforce(&mut s.msgs, &super::harness::Keep).is_ok() {}
    s.msgs.misses = 0;
    let headers = super::harness::block(&[("Nats-Expected-Last-Subject-Sequence", "0")]);
    let p = Publish { subject: b"a.1", reply: b"r", headers: &headers, ..Publish::default() };
    let wait = s.stream.decide(&p, &s.msgs, s.now);
    assert_eq!(wait, Ok(crate::publish::Decision::Wait));
    s.stream.enforce(&mut s.msgs, &super::harness::Keep).unwrap();
    s.decide(&p);
    s.apply();
    assert_eq!(s.seqs(), [3]);
}
