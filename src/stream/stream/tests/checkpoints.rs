use super::harness::{Shell, apply_one, block};
use crate::publish::{Answer, Limits};
use crate::stream::Stream;
use crate::time::SECOND;

fn busy() -> Shell {
    let mut s = Shell::new(
        r#"{"name":"A","subjects":["a.*","s.*"],"sources":[{"name":"B"}],"duplicate_window":120000000000,"allow_msg_ttl":true,"first_seq":10}"#,
    );
    for n in 0..20 {
        s.ask(&format!("a.{}", n % 3), &[("Nats-Msg-Id", &n.to_string()), ("Nats-TTL", "60")], "x");
    }
    let from = block(&[("Nats-Stream-Source", "B 77 > > b.1 id")]);
    s.decide(&crate::publish::Publish {
        subject: b"a.1",
        headers: &from,
        from: crate::publish::From::Source,
        ..crate::publish::Publish::default()
    });
    s.ask("a.9", &[("Nats-Msg-Id", "last")], "");
    s
}

#[test]
fn a_checkpoint_brings_all_back() {
    let s = busy();
    let whole = s.stream.snapshot();
    let small = s.stream.snapshot_within(100);
    assert!(small.len() < whole.len());
    for (snapshot, rebuilt) in [(whole.clone(), false), (small, true)] {
        let mut stream = Stream::restore(&snapshot, Limits::default()).unwrap();
        assert_eq!(stream.needs_rebuild(), rebuilt);
        let mut msgs = s.msgs.clone();
        msgs.misses = 128;
        while stream.rebuild(&msgs).is_err() {}
        assert!(!stream.needs_rebuild());
        assert_eq!(stream.snapshot(), whole);
        assert_eq!(stream.given_seq(), 31);
        let mut t = Shell::new(r#"{"name":"A"}"#);
        t.now = s.now;
        t.stream = stream;
        t.msgs = msgs;
        let again = t.ask("a.1", &[("Nats-Msg-Id", "7")], "");
        assert!(matches!(again, Answer::Ack(a) if a.duplicate && a.seq == 17), "an id is remembered");
        assert!(matches!(t.ask("a.1", &[("Nats-Expected-Last-Msg-Id", "last")], ""), Answer::Ack(_)));
        let index = t.stream.config().sources[0].index_name();
        let at = t.stream.source_at(&index).unwrap();
        assert_eq!((at.seq, &at.identity[..]), (77, "id"));
        t.pass(60 * SECOND);
        t.time();
        assert_eq!(t.seqs(), [30, 31, 32]);
    }
}

#[test]
fn a_backup_is_adopted() {
    let s = busy();
    let mut stream = Stream::new(s.stream.config().clone(), s.stream.created(), Limits::default());
    stream.adopt(&s.msgs).unwrap();
    stream.rebuild(&s.msgs).unwrap();
    assert_eq!(stream.given_seq(), 31);
    assert_eq!(stream.num_ids(), s.stream.num_ids());
}

#[test]
fn damaged_checkpoints_are_refused() {
    let snapshot = busy().stream.snapshot();
    for cut in 0..snapshot.len() {
        assert!(Stream::restore(&snapshot[..cut], Limits::default()).is_none());
    }
    for at in 0..snapshot.len() {
        let mut bad = snapshot.to_vec();
        bad[at] ^= 0x55;
        // Whatever comes of it, it does not panic.
        let _ = Stream::restore(&bad, Limits::default());
    }
}

#[test]
fn j4_schedules_and_expiry_replay_the_same() {
    let json = r#"{"name":"A","subjects":["s.*","t.*"],"allow_msg_schedules":true,"allow_msg_ttl":true,"subject_delete_marker_ttl":2000000000,"max_msgs_per_subject":3}"#;
    let mut s = Shell::new(json);
    s.msgs.misses = 60;
    s.ask("s.1", &[("Nats-Schedule", "*/2 * * * * *"), ("Nats-Schedule-Target", "t.1")], "tick");
    s.ask(
        "s.2",
        &[("Nats-Schedule", "@every 3s"), ("Nats-Schedule-Target", "t.2"), ("Nats-Schedule-TTL", "2s")],
        "tock",
    );
    for _ in 0..20 {
        s.pass(SECOND);
        s.time();
    }
    assert!(s.stream.applied_seq() > 15, "schedules fired");
    let mut replica = Stream::new(super::harness::config(json), s.stream.created(), Limits::default());
    let mut msgs = super::harness::Flaky { misses: 100, ..Default::default() };
    for entry in &s.log {
        apply_one(&mut replica, &mut msgs, &super::harness::Keep, entry);
    }
    assert_eq!(msgs.inner, s.msgs.inner);
    assert_eq!(replica.schedules.by_subject, s.stream.schedules.by_subject);
    assert_eq!(replica.given_seq(), s.stream.given_seq());
}
