use super::{
    check,
    plan::{Options, Plan, Stream},
    record::{Attempt, Delivery, Final, Get, Kept, Life, Look, Outcome, Record, Said, Wish},
};

fn attempt(value: usize, stream: Stream, outcome: Outcome) -> Attempt {
    Attempt {
        actor: 0,
        conn: 1,
        value,
        stream,
        subject: stream.subject(0),
        id: false,
        expected_subject: None,
        expected: None,
        sent_at: value as u64 * 10,
        done_at: Some(value as u64 * 10 + 5),
        outcome,
    }
}

fn stored(seq: u64) -> Outcome {
    Outcome::Acked { seq, duplicate: false }
}

fn end(stream: Stream, values: &[usize]) -> Final {
    let kept: std::collections::BTreeMap<_, _> = (1..)
        .zip(values)
        .map(|(seq, v)| (seq, Kept { subject: stream.subject(0), value: Some(*v) }))
        .collect();
    let last = values.len() as u64;
    Final { first: 1, last, msgs: last, before: kept.clone(), kept }
}

/// Two messages in LOG, delivered; nothing else.
fn right() -> Record {
    let mut r = Record::default();
    for v in 1..=2 {
        r.attempts.push(attempt(v, Stream::Log, stored(v as u64)));
        let d = Delivery {
            stream: Stream::Log,
            seq: v as u64,
            count: 1,
            at: 100,
            asked_at: 90,
            boot: 1,
            value: Some(v),
        };
        r.deliveries.push(d);
    }
    // A stream in memory gives its first number in each of its lives.
    for conn in 1..=2 {
        r.lives.push(Life { created: format!("then {conn}"), conn, boot: Some(conn) });
        r.attempts.push(Attempt { conn, ..attempt(9 + conn as usize, Stream::Memory, stored(1)) });
    }
    r.finals.insert(Stream::Log, end(Stream::Log, &[1, 2]));
    for s in [Stream::Short, Stream::Bucket, Stream::Queue] {
        r.finals.insert(s, end(s, &[]));
    }
    r
}

fn found(r: &Record) -> Vec<String> {
    found_of(r, 1)
}

fn found_of(r: &Record, servers: usize) -> Vec<String> {
    let o = Options { max_deliver: -1, ack_wait_ms: 1000, history: 1, servers, ..Options::draw(1) };
    check::all(r, &o).into_iter().map(|v| v.id).collect()
}

#[test]
fn a_right_record_passes() {
    assert!(found(&right()).is_empty(), "{:?}", found(&right()));
}

/// Of several servers the stream in memory outlives the processes, and goes on behind its numbers.
#[test]
fn a_cluster_keeps_its_stream_in_memory() {
    let found = |r: &Record| found_of(r, 3);
    let mut r = right();
    assert_eq!(found(&r), ["JS-16"], "it was made anew");
    r.lives[1].created = r.lives[0].created.clone();
    assert_eq!(found(&r), ["JS-16"], "it gave the same number again");
    r.attempts.retain(|a| a.value != 11);
    r.attempts.push(Attempt { conn: 2, ..attempt(11, Stream::Memory, stored(5)) });
    assert!(found(&r).is_empty(), "{:?}", found(&r));
}

#[test]
fn a_consumer_is_as_it_was_acknowledged() {
    let look = |acked, asked, (ends, ended), found| {
        let mut r = right();
        r.looks.push(Look { name: "w".into(), at: 5, wish: Wish { acked, asked, ends, ended }, found });
        found_of(&r, 1).iter().any(|f| f == "JS-18")
    };
    let (stays, may_go, gone) = ((false, false), (true, false), (true, true));
    assert!(!look(1, 1, stays, Some(1)) && !look(1, 3, stays, Some(2)) && !look(1, 1, gone, None));
    assert!(!look(2, 2, may_go, Some(2)) && !look(2, 2, may_go, None) && !look(0, 1, stays, None));
    assert!(look(1, 1, stays, None), "it is gone");
    assert!(look(1, 1, gone, Some(1)), "it is back");
    assert!(look(2, 2, stays, Some(1)), "it is as it was before");
    assert!(look(1, 1, stays, Some(2)), "it is as nobody has asked");
}

/// What the origins acknowledged is in both copies once, in order, and nothing else is.
#[test]
fn copies_have_what_their_origins_acknowledged() {
    let right = || {
        let mut r = right();
        for (value, stream, seq) in [(21, Stream::Interest, 1), (22, Stream::Work, 1), (23, Stream::Work, 2)]
        {
            r.attempts.push(attempt(value, stream, stored(seq)));
            r.copied.entry(Stream::Copy).or_default().insert(value as u64 - 20, Some(value));
            if stream == Stream::Work {
                r.copied.entry(Stream::Mirror).or_default().insert(seq, Some(value));
            }
            let d = Delivery {
                stream: Stream::Sink,
                seq: value as u64,
                value: Some(value),
                ..r.deliveries[0].clone()
            };
            r.deliveries.push(d);
        }
        r
    };
    assert_eq!(found(&right()), [""; 0]);
    type Wrong = fn(&mut Record);
    fn copied(r: &mut Record, s: Stream) -> &mut std::collections::BTreeMap<u64, Option<usize>> {
        r.copied.entry(s).or_default()
    }
    let cases: [(&str, Wrong); 9] = [
        ("one is not mirrored", |r| {
            copied(r, Stream::Mirror).remove(&2);
        }),
        ("one has another number in the mirror", |r| {
            copied(r, Stream::Mirror).remove(&2);
            copied(r, Stream::Mirror).insert(3, Some(23));
        }),
        ("one is not copied", |r| {
            copied(r, Stream::Copy).remove(&2);
        }),
        ("one did not come out of the small copy", |r| {
            r.deliveries.pop();
        }),
        ("one is there twice", |r| {
            copied(r, Stream::Copy).insert(9, Some(22));
        }),
        ("two are in the wrong order", |r| {
            copied(r, Stream::Copy).insert(2, Some(23));
            copied(r, Stream::Copy).insert(3, Some(22));
        }),
        ("one came twice, under two sequences", |r| {
            let d = Delivery { seq: 99, ..r.deliveries[2].clone() };
            r.deliveries.push(d);
        }),
        ("one is there that nobody sent", |r| {
            copied(r, Stream::Copy).insert(9, Some(77));
        }),
        ("one came that nobody sent", |r| {
            let d = Delivery { seq: 99, value: Some(77), ..r.deliveries[2].clone() };
            r.deliveries.push(d);
        }),
    ];
    for (what, make) in cases {
        let mut r = right();
        make(&mut r);
        assert_eq!(found(&r), ["JS-19"], "{what}");
    }
}

#[test]
fn each_wrong_is_found() {
    type Wrong = fn(&mut Record);
    let cases: [(&str, Wrong); 13] = [
        ("JS-1", |r| r.attempts.push(attempt(3, Stream::Log, stored(3)))),
        ("JS-2", |r| {
            r.finals.insert(Stream::Log, end(Stream::Log, &[1, 2, 2]));
            r.deliveries.push(Delivery { seq: 3, ..r.deliveries[1].clone() });
        }),
        ("JS-3", |r| {
            r.finals.insert(Stream::Log, end(Stream::Log, &[1, 2, 9]));
            r.deliveries.push(Delivery { seq: 3, ..r.deliveries[1].clone() });
        }),
        ("JS-4", |r| {
            r.attempts.push(attempt(2, Stream::Log, Outcome::Acked { seq: 1, duplicate: true }));
        }),
        ("JS-5", |r| {
            r.attempts[0].outcome = stored(2);
            r.attempts[1].outcome = stored(1);
        }),
        ("JS-6", |r| {
            let mut a = attempt(5, Stream::Bucket, stored(3));
            a.expected_subject = Some(1);
            r.attempts.push(a);
            r.attempts.push(attempt(6, Stream::Bucket, stored(2)));
        }),
        ("JS-7", |r| {
            r.attempts.push(attempt(5, Stream::Bucket, stored(1)));
            r.finals.insert(Stream::Bucket, end(Stream::Bucket, &[5]));
            let subject = Stream::Bucket.subject(0);
            r.gets.push(Get { subject, sent_at: 1000, done_at: 1010, found: None, direct: false });
        }),
        ("JS-8", |r| {
            r.said.push(Said {
                stream: Stream::Log,
                seq: 1,
                refusal: false,
                ends: true,
                sent_at: 110,
                confirmed_at: Some(120),
            });
            let d = Delivery { count: 2, at: 140, asked_at: 130, ..r.deliveries[0].clone() };
            r.deliveries.push(d);
        }),
        ("JS-9", |r| r.deliveries.truncate(1)),
        ("JS-10", |r| {
            r.attempts.push(attempt(4, Stream::Queue, stored(1)));
            r.finals.insert(Stream::Queue, end(Stream::Queue, &[4]));
            let d = Delivery { stream: Stream::Queue, value: Some(4), ..r.deliveries[0].clone() };
            r.deliveries.push(d);
        }),
        ("JS-12", |r| {
            r.attempts.push(attempt(5, Stream::Bucket, stored(1)));
            r.attempts.push(attempt(6, Stream::Bucket, stored(2)));
            r.finals.insert(Stream::Bucket, end(Stream::Bucket, &[5, 6]));
        }),
        ("JS-16", |r| r.lives[1].created = r.lives[0].created.clone()),
        ("JS-16", |r| r.attempts.push(Attempt { conn: 2, ..attempt(12, Stream::Memory, stored(1)) })),
    ];
    for (id, make) in cases {
        let mut r = right();
        make(&mut r);
        assert!(found(&r).iter().any(|f| f == id), "{id}: {:?}", found(&r));
    }
}

#[test]
fn an_id_that_comes_again_after_the_window_is_stored_again() {
    let twice = |jumps: &[(u64, u64)]| {
        let mut r = right();
        let later =
            Attempt { sent_at: 70_000_000_000, done_at: Some(71_000_000_000), ..r.attempts[1].clone() };
        r.attempts[1].outcome = Outcome::Unknown;
        r.attempts.push(Attempt { outcome: stored(3), ..later });
        r.attempts.iter_mut().for_each(|a| a.id = true);
        r.finals.insert(Stream::Log, end(Stream::Log, &[1, 2, 2]));
        r.deliveries.push(Delivery { seq: 3, ..r.deliveries[1].clone() });
        r.jumps = jumps.to_vec();
        found(&r)
    };
    // Seventy seconds are less than the window of two minutes, by a clock that is set on by one more are not.
    assert_eq!(twice(&[]), ["JS-2"]);
    assert_eq!(twice(&[(30_000_000_000, 60_000_000_000)]), [""; 0]);
    assert_eq!(twice(&[(80_000_000_000, 60_000_000_000)]), ["JS-2"], "set on when all was over");
}

#[test]
fn a_plan_is_data() {
    for seed in 0..50 {
        let p = Plan::draw(seed);
        let text = serde_json::to_string(&p).expect("plain data is JSON");
        assert_eq!(serde_json::from_str::<Plan>(&text).expect("it was written so"), p);
    }
}
