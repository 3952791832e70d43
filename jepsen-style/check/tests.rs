//! Every anomaly is planted and must be found; what is right must pass, by comparison with a search that tries all orders.

use super::*;
use crate::history::{Event, HARNESS, History, Op, Record};

/// A history under construction; times are given, or one apart.
#[derive(Default)]
struct Made {
    h: History,
    ids: u64,
}

impl Made {
    fn op(&mut self, call: u64, ret: Option<u64>, e: Event, begin: Op, end: Op) -> &mut Made {
        self.ids += 1;
        let id = self.ids;
        self.h.records.push(Record { t: call, p: id, id, e: Event::Invoke, op: begin });
        if let Some(t) = ret {
            self.h.records.push(Record { t, p: id, id, e, op: end });
        }
        self
    }
    fn append(&mut self, call: u64, ret: Option<u64>, e: Event, v: u64, seq: u64) -> &mut Made {
        let seq = (e == Event::Ok).then_some(seq);
        self.op(call, ret, e, Op::Append { v, seq: None }, Op::Append { v, seq })
    }
    fn note(&mut self, t: u64, op: Op) -> &mut Made {
        self.h.records.push(Record { t, p: HARNESS, id: 0, e: Event::Note, op });
        self
    }
    fn entries(&mut self, all: &[(u64, u64)]) -> &mut Made {
        for (seq, v) in all {
            self.note(1_000, Op::Entry { seq: *seq, v: Some(*v) });
        }
        self.note(1_001, Op::Complete { last: all.last().map_or(0, |e| e.0) })
    }
    fn sorted(&self) -> History {
        let mut h = self.h.clone();
        h.records.sort_by_key(|r| r.t);
        h
    }
    fn log(&self) -> Log {
        log(&self.sorted())
    }
}

/// Three appends one after the other, and one of which nobody knows.
fn three() -> Made {
    let mut m = Made::default();
    m.append(1, Some(2), Event::Ok, 101, 1)
        .append(3, Some(4), Event::Ok, 102, 2)
        .append(5, Some(6), Event::Ok, 103, 3)
        .append(5, None, Event::Info, 104, 0)
        .append(5, Some(7), Event::Fail, 105, 0);
    m
}

#[test]
fn a_right_log_passes() {
    let l = three().entries(&[(1, 101), (2, 102), (3, 103)]).log();
    assert!(l.holds(), "{l:?}");
    assert_eq!((l.acknowledged, l.unknown, l.refused, l.read), (3, 1, 1, 3));
    // What nobody knows may be there, and anywhere after it was sent.
    assert!(three().entries(&[(1, 101), (2, 102), (3, 103), (4, 104)]).log().holds());
    assert!(three().entries(&[(1, 101), (2, 102), (3, 103), (9, 104)]).log().holds());
}

#[test]
fn p1_loss_is_found() {
    let l = three().entries(&[(1, 101), (3, 103)]).log();
    assert_eq!((l.lost, l.phantom.len()), (vec![102], 0));
    // A reading that did not come to the end says nothing about what is missing, and is no pass.
    let mut m = three();
    m.note(9, Op::Entry { seq: 1, v: Some(101) });
    let l = m.log();
    assert!(l.lost.is_empty() && !l.holds());
}

#[test]
fn p1_duplicates_and_moves_are_found() {
    let l = three().entries(&[(1, 101), (2, 102), (3, 103), (4, 102)]).log();
    assert_eq!(l.duplicated, [102]);
    let l = three().entries(&[(1, 101), (2, 102), (4, 103)]).log();
    assert_eq!((l.moved.clone(), l.lost.len(), l.holds()), (vec![103], 0, false));
}

#[test]
fn p2_phantoms_are_found() {
    // Never written, refused, and a body that nobody wrote.
    let l = three().entries(&[(1, 101), (2, 102), (3, 103), (4, 999)]).log();
    assert_eq!(l.phantom, [4]);
    let l = three().entries(&[(1, 101), (2, 102), (3, 103), (4, 105)]).log();
    assert_eq!(l.phantom, [4]);
    let mut m = three();
    m.note(999, Op::Entry { seq: 2, v: None });
    let l = m.entries(&[(1, 101), (3, 103)]).log();
    assert_eq!((l.phantom, l.lost), (vec![2], vec![102]));
}

#[test]
fn p3_a_wrong_order_is_found() {
    let mut m = Made::default();
    m.append(1, Some(2), Event::Ok, 101, 2).append(3, Some(4), Event::Ok, 102, 1);
    let l = m.entries(&[(1, 102), (2, 101)]).log();
    assert_eq!(l.reordered, [102]);
    // Those that overlap may stand either way.
    let mut m = Made::default();
    m.append(1, Some(3), Event::Ok, 101, 2).append(2, Some(4), Event::Ok, 102, 1);
    assert!(m.entries(&[(1, 102), (2, 101)]).log().holds());
}

#[test]
fn a_million_appends_are_judged_in_seconds() {
    let n = 1_000_000;
    let mut m = Made::default();
    for v in 0..n {
        // Eight at a time.
        m.append(v * 2, Some(v * 2 + 15), Event::Ok, v, v + 1);
        m.note(1_000 + n * 4 + v, Op::Entry { seq: v + 1, v: Some(v) });
    }
    m.note(u64::MAX, Op::Complete { last: n });
    let h = m.sorted();
    let begun = std::time::Instant::now();
    let l = log(&h);
    assert!(l.holds() && l.acknowledged == n);
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}

/// An operation on the one key: call, end (none: unknown), what.
type Step = (u64, Option<u64>, Event, Op);

fn get(rev: u64, v: u64) -> Op {
    Op::Get { key: 1, rev, v: (rev > 0).then_some(v) }
}
fn put(v: u64, rev: u64) -> Op {
    Op::Put { key: 1, v, rev: (rev > 0).then_some(rev) }
}
fn cas(expect: u64, v: u64, rev: u64) -> Op {
    Op::Cas { key: 1, expect, v, rev: (rev > 0).then_some(rev), other: rev == 0 }
}

fn registers(steps: &[Step]) -> Register {
    let mut m = Made::default();
    for (call, ret, e, op) in steps {
        m.op(*call, *ret, *e, op.clone(), op.clone());
    }
    register(&m.sorted())
}

#[test]
fn a_right_register_passes() {
    let r = registers(&[
        (1, Some(2), Event::Ok, get(0, 0)),
        (3, Some(4), Event::Ok, cas(0, 11, 1)),
        (5, Some(9), Event::Ok, put(12, 2)),
        (6, Some(7), Event::Ok, get(2, 12)),
        (8, Some(10), Event::Fail, cas(1, 13, 0)),
        (11, None, Event::Info, put(14, 0)),
        (12, Some(13), Event::Ok, get(3, 14)),
        (14, None, Event::Info, put(15, 0)),
        // Nobody got it: that says nothing of the revision.
        (14, Some(15), Event::Fail, Op::Cas { key: 1, expect: 3, v: 17, rev: None, other: false }),
        // Only the write that nobody saw explains this.
        (16, Some(17), Event::Fail, cas(3, 16, 0)),
    ]);
    assert!(r.holds(), "{r:?}");
    assert_eq!((r.acknowledged, r.keys), (2, 1));
}

#[test]
fn p4_register_anomalies_are_found() {
    let first = (1, Some(2), Event::Ok, put(11, 1));
    let second = (3, Some(4), Event::Ok, put(12, 2));
    let bad: [(&str, Vec<Step>); 9] = [
        ("a stale read", vec![first.clone(), second.clone(), (5, Some(6), Event::Ok, get(1, 11))]),
        ("a lost write", vec![first.clone(), (5, Some(6), Event::Ok, get(0, 0))]),
        ("a read of nothing that was written", vec![first.clone(), (5, Some(6), Event::Ok, get(2, 99))]),
        (
            "a body that nobody wrote",
            vec![first.clone(), (5, Some(6), Event::Ok, Op::Get { key: 1, rev: 1, v: None })],
        ),
        ("one revision for two", vec![first.clone(), (3, Some(4), Event::Ok, put(12, 1))]),
        (
            "revisions that go back",
            vec![(1, Some(2), Event::Ok, put(11, 7)), (3, Some(4), Event::Ok, put(12, 2))],
        ),
        (
            "two winners upon one revision",
            vec![
                first.clone(),
                (3, Some(5), Event::Ok, cas(1, 12, 2)),
                (4, Some(6), Event::Ok, cas(1, 13, 3)),
            ],
        ),
        ("a refusal without a reason", vec![first.clone(), (3, Some(4), Event::Fail, cas(1, 12, 0))]),
        (
            "a refused write that was read",
            vec![first, (3, Some(4), Event::Fail, cas(9, 12, 0)), (5, Some(6), Event::Ok, get(2, 12))],
        ),
    ];
    for (name, steps) in bad {
        let r = registers(&steps);
        assert_eq!(r.broken.len(), 1, "{name}: {r:?}");
        assert!(r.broken[0].1.contains("operation"), "{name}: {r:?}");
    }
}

#[test]
fn p4_the_last_reading_shows_lost_writes() {
    let mut m = Made::default();
    for (n, t) in [(1, 1), (2, 3), (3, 5)] {
        m.op(t, Some(t + 1), Event::Ok, put(10 + n, n), put(10 + n, n));
    }
    m.note(10, Op::Phase { name: "read".into() });
    m.op(11, Some(12), Event::Ok, get(1, 11), get(1, 11));
    let r = register(&m.sorted());
    assert_eq!((r.lost, r.broken.len()), (2, 1));
}

struct Rng(u64);
impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Whether some order of all operations, with any of the unknown ones left out, is one that a register can have had.
/// Tries them all; a register's revisions only have to rise.
fn exists(steps: &[Step]) -> bool {
    fn go(steps: &[Step], used: u32, last: u64, state: Option<(u64, u64)>) -> bool {
        let open = |i: &usize| used & (1 << i) == 0;
        let known = |i: &usize| steps[*i].1.is_some();
        if !(0..steps.len()).filter(open).any(|i| known(&i)) {
            return true;
        }
        let bound = (0..steps.len()).filter(open).filter_map(|i| steps[i].1).min().unwrap_or(u64::MAX);
        (0..steps.len()).filter(open).any(|i| {
            let (call, _, e, op) = &steps[i];
            if *call > bound {
                return false;
            }
            let used = used | (1 << i);
            // The revision that stands; a write whose revision nobody learned may have any that fits.
            let stands = state.map_or(0, |s| s.0);
            match (e, op) {
                (Event::Ok, Op::Get { rev, v, .. }) => match (state, v) {
                    (None, None) => *rev == 0 && go(steps, used, last, state),
                    (Some((0, w)), Some(v)) => {
                        *rev > last && w == *v && go(steps, used, *rev, Some((*rev, w)))
                    }
                    (Some((r, w)), Some(v)) => r == *rev && w == *v && go(steps, used, last, state),
                    _ => false,
                },
                (Event::Fail, Op::Cas { expect, .. }) => {
                    let differs = state.is_some_and(|s| s.0 == 0) || stands != *expect;
                    differs && go(steps, used, last, state)
                }
                (_, Op::Put { v, rev, .. }) => match rev {
                    Some(rev) => *rev > last && go(steps, used, *rev, Some((*rev, *v))),
                    None => go(steps, used, last, Some((0, *v))),
                },
                (_, Op::Cas { expect, v, rev, .. }) => {
                    let same = state.is_none_or(|s| s.0 != 0) && stands == *expect;
                    same && match rev {
                        Some(rev) => *rev > last && go(steps, used, *rev, Some((*rev, *v))),
                        None => go(steps, used, last, Some((0, *v))),
                    }
                }
                _ => false,
            }
        })
    }
    go(steps, 0, 0, None)
}

/// Operations of a register that is right, each at a moment within its interval, and perhaps one result changed.
fn draw(rng: &mut Rng, spoil: bool) -> Vec<Step> {
    let n = 3 + rng.below(5);
    let mut moments: Vec<(u64, u64)> = (0..n).map(|i| (10 + rng.below(60), i)).collect();
    moments.sort_unstable();
    let (mut rev, mut value, mut seq) = (0, 0, 0);
    // A client can expect only a revision that somebody learned.
    let mut learned = true;
    let mut steps: Vec<Step> = Vec::new();
    for (at, i) in moments {
        let call = at - rng.below(10);
        let ret = Some(at + rng.below(10));
        let v = 100 + i;
        let unknown = rng.below(4) == 0;
        let mut step = match rng.below(4) {
            0 | 1 => {
                learned = true;
                (call, ret, Event::Ok, get(rev, value))
            }
            2 => {
                seq += 1 + rng.below(2);
                (rev, value) = (seq, v);
                (call, ret, Event::Ok, put(v, rev))
            }
            _ if rng.below(2) == 0 && learned => {
                let expect = rev;
                seq += 1;
                (rev, value) = (seq, v);
                (call, ret, Event::Ok, cas(expect, v, rev))
            }
            _ => (call, ret, Event::Fail, cas(rev + 1 + rng.below(2), v, 0)),
        };
        if step.2 == Event::Ok {
            learned = true;
        }
        if unknown && !matches!(step.3, Op::Get { .. }) && step.2 == Event::Ok {
            learned = false;
            step.1 = None;
            step.2 = Event::Info;
            match &mut step.3 {
                Op::Put { rev, .. } | Op::Cas { rev, .. } => *rev = None,
                _ => {}
            }
        }
        steps.push(step);
    }
    if spoil {
        let i = rng.below(steps.len() as u64) as usize;
        match &mut steps[i].3 {
            Op::Get { rev, v, .. } => {
                let other = rng.below(3);
                (*rev, *v) = (other, (other > 0).then_some(100 + rng.below(n)));
            }
            Op::Put { rev: Some(rev), .. } => *rev = 1 + rng.below(4),
            Op::Cas { expect, .. } => *expect = rng.below(4),
            _ => {}
        }
    }
    steps
}

#[test]
fn p4_the_fast_search_agrees_with_one_that_tries_all_orders() {
    let mut rng = Rng(7);
    let (mut good, mut bad) = (0, 0);
    for n in 0..6_000 {
        let steps = draw(&mut rng, n % 2 == 1);
        let (fast, slow) = (registers(&steps).holds(), exists(&steps));
        assert_eq!(fast, slow, "case {n}: {:?}\n{steps:#?}", registers(&steps));
        assert!(slow || n % 2 == 1, "case {n} is right by construction");
        if slow { good += 1 } else { bad += 1 }
    }
    assert!(good > 3_000 && bad > 500, "{good} {bad}");
}

#[test]
fn long_registers_are_judged_quickly() {
    let mut m = Made::default();
    let n = 20_000;
    for i in 1..=n {
        let t = i * 10;
        m.op(t, Some(t + 35), Event::Ok, put(i, i), put(i, i));
        m.op(t + 36, Some(t + 60), Event::Ok, get(i + 3, i + 3), get(i + 3, i + 3));
        if i % 50 == 0 {
            m.op(t, None, Event::Info, put(i + n, 0), put(i + n, 0));
        }
    }
    m.h.records.retain(|r| !matches!(r.op, Op::Get { rev, .. } if rev > n));
    let h = m.sorted();
    let begun = std::time::Instant::now();
    let r = register(&h);
    assert!(r.holds(), "{:?}", r.broken);
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}

const SECOND: u64 = 1_000_000_000;
const RULES: Rules = Rules { ack_wait: 2 * SECOND, max_deliver: Some(3), drained: true };

/// Messages 101 and 102 are published, delivered at seconds 1 and 2, and 101 is confirmed at 1.5.
fn two() -> Made {
    let mut m = Made::default();
    m.append(1, Some(2), Event::Ok, 101, 1).append(3, Some(4), Event::Ok, 102, 2);
    come(&mut m, SECOND, 101, 1);
    come(&mut m, 2 * SECOND, 102, 1);
    let ack = Op::Ack { v: 101, seq: 1 };
    m.op(SECOND + 1, Some(SECOND * 3 / 2), Event::Ok, ack.clone(), ack);
    m
}
fn come(m: &mut Made, t: u64, v: u64, times: u64) {
    m.note(t, Op::Deliver { v: Some(v), seq: v - 100, times, asked: t - SECOND / 10 });
}

#[test]
fn right_deliveries_pass() {
    let mut m = two();
    come(&mut m, 4 * SECOND, 102, 2);
    let d = delivery(&m.sorted(), &RULES);
    assert!(d.holds(), "{d:?}");
    assert_eq!((d.acknowledged, d.deliveries, d.confirmed, d.again), (2, 3, 1, 1));
}

#[test]
fn p5_a_message_that_reaches_nobody_is_found() {
    let mut m = two();
    m.append(5, Some(6), Event::Ok, 103, 3);
    assert_eq!(delivery(&m.sorted(), &RULES).lost, [103]);
    assert!(delivery(&m.sorted(), &Rules { drained: false, ..RULES }).holds());
}

#[test]
fn p6_two_holders_at_a_time_are_found() {
    let mut m = two();
    come(&mut m, 3 * SECOND, 102, 2);
    assert_eq!(delivery(&m.sorted(), &RULES).shared, [102]);
}

#[test]
fn p7_a_confirmed_message_that_comes_again_is_found() {
    let mut m = two();
    come(&mut m, 9 * SECOND, 101, 2);
    assert_eq!(delivery(&m.sorted(), &RULES).revived, [101]);
}

#[test]
fn p8_too_many_deliveries_are_found() {
    let mut m = two();
    for n in 2..=4 {
        come(&mut m, 3 * n * SECOND, 102, n);
    }
    assert_eq!(delivery(&m.sorted(), &RULES).overdone, [102]);
    // By the server's own count, too.
    let mut m = two();
    come(&mut m, 9 * SECOND, 102, 4);
    assert_eq!(delivery(&m.sorted(), &RULES).overdone, [102]);
}

#[test]
fn p5_a_delivery_of_what_nobody_wrote_is_found() {
    let mut m = two();
    m.note(SECOND, Op::Deliver { v: None, seq: 7, times: 1, asked: 0 });
    come(&mut m, 3 * SECOND, 177, 1);
    assert_eq!(delivery(&m.sorted(), &RULES).phantom, [7, 77]);
}
