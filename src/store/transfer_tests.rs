//! A state from one simulated disk to another: what arrives is what there was, and a crash at any operation leaves the old or the new.

use std::collections::BTreeSet;

use env::{Rng, simdisk::Planned};
use proptest::prelude::*;

use super::*;
use crate::manifest::Totals;
use crate::{
    Batch, Group, NewEntry, Options, Read, Store, Sync,
    io::Disk,
    simio::{self, SimHandle},
};

const ID: GroupId = GroupId(3);

fn now<F: Future>(f: F) -> F::Output {
    simio::finish(f, 1_000_000, || {})
}

fn options() -> Options {
    Options {
        sector: 512,
        journal_file_min: 64 << 10,
        journal_file_max: 256 << 10,
        journal_budget: 1 << 20,
        own_file_bytes: 16 << 10,
        small_piece: 4 << 10,
        merge_at: 3,
        block: 512,
        reserve: 4 << 10,
        threads: false,
        ..Options::default()
    }
}

fn open(disk: &SimHandle) -> Result<Store> {
    now(Store::open(Disk::Sim(disk.clone()), "/s", options()))
}

/// All that can be asked of a stream, and where its log stands.
#[derive(Clone, PartialEq, Debug)]
struct Seen {
    totals: (u64, u64, u64, u64),
    messages: Vec<(u64, Vec<u8>)>,
    applied: u64,
    blob: Bytes,
}

fn seen(g: &Group) -> Result<Seen> {
    let s = g.state();
    let mut messages = Vec::new();
    let mut at = StreamSeq(0);
    while let Some(seq) = now(g.next_seq(b">", at))? {
        match now(g.get(seq))? {
            Read::Valid(m) => messages.push((seq.0, m.record().to_vec())),
            other => panic!("message {}: {other:?}", seq.0),
        }
        at = seq.next();
    }
    let (applied, c) = g.applied();
    Ok(Seen { totals: (s.first.0, s.last.0, s.msgs, s.bytes), messages, applied: applied.0, blob: c.blob })
}

struct Life {
    store: Store,
    g: Group,
    /// Another history than the usual one has other chains and a higher term.
    fork: u64,
}

impl Life {
    fn new(disk: &SimHandle) -> Life {
        Life::of(disk, false)
    }

    fn of(disk: &SimHandle, memory: bool) -> Life {
        let store = open(disk).expect("it opens");
        let g = match store.group(ID) {
            Ok(g) => g,
            Err(_) => store.create(ID, memory, b"options").expect("it is made").0,
        };
        now(store.step()).expect("a round");
        Life { store, g, fork: 0 }
    }

    fn append(&mut self, rng: &mut Rng, apply: bool) {
        let (last, _, prev) = self.g.last();
        let mut batch = Batch::new();
        let mut seq = self.g.log_seq();
        let kind = if rng.bool(0.15) { Kind::Control } else { Kind::Messages };
        for _ in 0..rng.between(1, 9) {
            // Some numbers are never given.
            seq = StreamSeq(seq.0 + 1 + u64::from(rng.bool(0.1)) * 3);
            let subject = format!("s.{}", rng.below(7));
            let body = vec![seq.0 as u8; rng.below(400) as usize];
            let m = Message {
                seq,
                time: seq.0 as i64,
                expires: None,
                redacted: false,
                subject: subject.as_bytes(),
                headers: b"",
                body: &body,
            };
            batch.push(ID, &m);
        }
        let rest: &[u8] = if rng.bool(0.3) { b"rules" } else { b"" };
        let payload =
            if kind == Kind::Messages { batch.finish(rest) } else { Bytes::from_static(b"control") };
        let chain = Chain(prev.0.wrapping_mul(31) + last.0 + 1 + self.fork);
        let term = Term(1 + self.fork.min(1));
        let e = NewEntry { kind, index: last.next(), term, prev, chain, payload, digest: None };
        self.g.append(vec![e], Sync::Always).expect("there is room");
        now(self.store.step()).expect("a round");
        if apply {
            self.apply();
        }
    }

    fn apply(&self) {
        let at = self.g.applied().0.next();
        for e in now(self.g.entries(at, u64::MAX)).expect("they are there") {
            now(self.g.apply(&e.head)).expect("it is next");
        }
    }

    fn some(&mut self, rng: &mut Rng, steps: u64) {
        for _ in 0..steps {
            match rng.below(12) {
                0..=5 => self.append(rng, true),
                6 | 7 => {
                    let last = self.g.state().last.0;
                    let seqs: Vec<_> =
                        (0..rng.below(12)).map(|_| StreamSeq(1 + rng.below(last + 1))).collect();
                    now(self.g.delete(&seqs)).expect("it reads");
                }
                8 => {
                    let s = self.g.state();
                    let below = StreamSeq(s.first.0 + rng.below(s.last.0 - s.first.0.min(s.last.0) + 1));
                    let filter = format!("s.{}", rng.below(7));
                    now(self.g.purge(filter.as_bytes(), below, 0)).expect("it reads");
                }
                9 => self.checkpoint(b"some"),
                10 => now(self.store.flush()).expect("it flushes"),
                _ => {
                    self.checkpoint(b"some");
                    now(self.store.flush()).expect("it flushes");
                }
            }
        }
    }

    fn checkpoint(&self, blob: &'static [u8]) {
        if self.g.applied().0.0 > 0 {
            self.g.checkpoint(Bytes::from_static(blob));
        }
    }
}

/// All that comes out.
fn read_out(out: &mut Outgoing) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(b) = now(out.next()).expect("it can be read") {
        all.extend_from_slice(&b);
    }
    all
}

async fn receive(g: &Group, bytes: &[u8], rng: &mut Rng) -> Result<()> {
    let mut inc = g.incoming();
    let mut left = bytes;
    while !left.is_empty() {
        let n = (1 + rng.below(9000) as usize).min(left.len());
        inc.push(&left[..n]).await?;
        left = &left[n..];
    }
    g.take_over(inc.finish().await?).await
}

/// Segment files that nothing needs are gone once a manifest was written without anything else under way.
fn no_leaks(disk: &SimHandle, store: &Store) -> std::result::Result<(), TestCaseError> {
    now(store.flush()).expect("it flushes");
    now(store.flush()).expect("it flushes");
    let report = now(crate::inspect(Disk::Sim(disk.clone()), "/s", &options())).expect("it can be read");
    for (name, _, needed) in &report.shards[0].segments {
        prop_assert!(*needed, "{name} is left behind");
    }
    Ok(())
}

fn whole(seed: u64) -> std::result::Result<(), TestCaseError> {
    let mut rng = Rng::derived(seed, "whole");
    let (from, to) = (SimHandle::faultless(seed), SimHandle::faultless(seed + 1));
    let mut a = Life::new(&from);
    let steps = rng.between(1, 60);
    a.some(&mut rng, steps);
    a.append(&mut rng, true);
    // The receiver may have a beginning of the same log, or of another one.
    let mut b = Life::new(&to);
    if rng.bool(0.6) {
        if rng.bool(0.5) {
            b.fork = 1000;
        }
        let steps = rng.below(12);
        b.some(&mut rng, steps);
    }
    while b.g.applied().0 >= a.g.applied().0 {
        a.append(&mut rng, true);
    }
    if b.fork > 0 {
        // A tail that is longer than the state and belongs to another history.
        for _ in 0..rng.below(80) {
            b.append(&mut rng, false);
        }
    }
    a.checkpoint(b"the blob");
    now(a.store.flush()).expect("it flushes");
    let expected = seen(&a.g).expect("it can be read");
    let mut out = a.g.outgoing().expect("there is a checkpoint");
    let more = rng.below(30);
    a.some(&mut rng, more);
    let bytes = read_out(&mut out);
    prop_assert_eq!(out.checkpoint().index.0, expected.applied);
    drop(out);
    now(receive(&b.g, &bytes, &mut rng)).expect("it arrives");
    prop_assert_eq!(&seen(&b.g).expect("it can be read"), &expected);
    prop_assert_eq!(
        b.g.last().0.0,
        expected.applied,
        "what followed belonged to another history, or was nothing"
    );
    now(b.g.verify()).expect("it can be read");
    now(b.store.step()).expect("a round");
    // The log goes on, over a restart too.
    b.fork = 0;
    b.append(&mut rng, true);
    no_leaks(&to, &b.store)?;
    no_leaks(&from, &a.store)?;
    let expected = seen(&b.g).expect("it can be read");
    drop(b);
    to.with(|d| d.power_failure());
    let b = Life::new(&to);
    b.apply();
    let after = seen(&b.g).expect("it can be read");
    prop_assert_eq!((after.totals, after.messages), (expected.totals, expected.messages));
    Ok(())
}

/// The receiver's power fails at operation `at` of an installation. False if it was over before.
fn crash_at(seed: u64, at: u64, after: bool) -> std::result::Result<bool, TestCaseError> {
    let mut rng = Rng::derived(seed, "crash");
    let (from, to) = (SimHandle::faultless(seed), SimHandle::faultless(seed + 1));
    let mut a = Life::new(&from);
    a.some(&mut rng, 30);
    let mut b = Life::new(&to);
    b.fork = if seed.is_multiple_of(2) { 0 } else { 1000 };
    b.some(&mut rng, 6);
    while b.g.applied().0 >= a.g.applied().0 {
        a.append(&mut rng, true);
    }
    if b.fork > 0 {
        for _ in 0..40 {
            b.append(&mut rng, false);
        }
    }
    a.checkpoint(b"the blob");
    now(a.store.flush()).expect("it flushes");
    let new = seen(&a.g).expect("it can be read");
    let old = seen(&b.g).expect("it can be read");
    let bytes = read_out(&mut a.g.outgoing().expect("there is a checkpoint"));
    to.with(|d| {
        let at = d.ops() + at;
        d.plan(at, if after { Planned::CrashAfter } else { Planned::CrashBefore });
    });
    let arrived = now(receive(&b.g, &bytes, &mut rng));
    if !to.with(|d| d.crashed()) {
        prop_assert!(arrived.is_ok(), "{:?}", arrived);
        // The operation that was planned may yet come, so nothing is read.
        prop_assert_eq!((b.g.applied().0.0, b.g.state().msgs), (new.applied, new.totals.2));
        return Ok(false);
    }
    drop(b);
    to.with(|d| d.power_failure());
    let mut b = Life::new(&to);
    if arrived.is_ok() || b.g.applied().1.index.0 == new.applied {
        prop_assert_eq!(&seen(&b.g).expect("it can be read"), &new, "at {}", at);
        prop_assert_eq!(b.g.last().0.0, new.applied, "no tail of another history at {}", at);
    } else {
        // what was applied is there still; a tail that cannot be committed may be gone.
        while b.g.applied().0.0 < old.applied {
            let at = b.g.applied().0.next();
            for e in now(b.g.entries(at, 1)).expect("it is there") {
                now(b.g.apply(&e.head)).expect("it is next");
            }
        }
        prop_assert_eq!(b.g.applied().0.0, old.applied, "at {}", at);
    }
    now(b.g.verify()).expect("it can be read");
    b.apply();
    // In a term that no history here is beyond.
    b.fork = 1000;
    // What a file was received into that nothing names is written over when its number is given again.
    for _ in 0..4 {
        if b.g.last().0 == b.g.applied().0 {
            b.append(&mut rng, true);
            now(b.store.flush()).expect("it flushes");
        }
    }
    no_leaks(&to, &b.store)?;
    Ok(true)
}

#[test]
fn s101_a_crash_at_any_operation_leaves_the_old_or_the_new() {
    for seed in 0..4 {
        for after in [false, true] {
            let mut at = 0;
            while crash_at(seed, at, after).unwrap_or_else(|e| panic!("seed {seed} at {at}: {e}")) {
                at += 1;
            }
            assert!(at > 5, "an installation takes some operations, this one {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
    /// S-100, S-102.
    #[test]
    fn s100_what_arrives_is_what_there_was_at_the_checkpoint(seed in any::<u32>()) {
        whole(u64::from(seed))?;
    }

    /// S-102: any change on the way is noticed, or changes nothing.
    #[test]
    fn s102_what_changed_on_the_way_is_refused(seed in 0u64..40, at in any::<proptest::sample::Index>(), bit in 0u8..8) {
        let mut rng = Rng::derived(seed, "flip");
        let mut a = Life::new(&SimHandle::faultless(seed));
        a.some(&mut rng, 12);
        a.append(&mut rng, true);
        a.checkpoint(b"the blob");
        now(a.store.flush()).expect("it flushes");
        let mut bytes = read_out(&mut a.g.outgoing().expect("there is a checkpoint"));
        let b = Life::new(&SimHandle::faultless(seed + 1));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(now(receive(&b.g, &bytes, &mut rng)).is_err(), "byte {at}");
        bytes[at] ^= 1 << bit;
        let cut = rng.below(bytes.len() as u64) as usize;
        prop_assert!(now(receive(&b.g, &bytes[..cut], &mut rng)).is_err(), "cut at {cut}");
        prop_assert!(now(receive(&b.g, &[&bytes[..], b"x"].concat(), &mut rng)).is_err(), "one more");
        prop_assert_eq!(b.g.applied().0, LogIndex(0));
        now(receive(&b.g, &bytes, &mut rng)).expect("it arrives");
        prop_assert!(now(receive(&b.g, &bytes, &mut rng)).is_err(), "it is there already");
    }
}

/// What is in memory counts less than what is in files, and no two servers need to agree on it: a state under way is counted as one of files.
#[test]
fn s102_a_state_of_memory_is_counted_by_each_end_itself() {
    let mut rng = Rng::derived(7, "memory");
    let mut a = Life::of(&SimHandle::faultless(1), true);
    for _ in 0..12 {
        a.append(&mut rng, true);
    }
    let some: Vec<_> = (1..12).step_by(3).map(StreamSeq).collect();
    now(a.g.delete(&some)).expect("in memory");
    a.checkpoint(b"the blob");
    let expected = seen(&a.g).expect("in memory");
    let sum = |fixed: u64, g: &Group| {
        let view = g.view();
        let mut bytes = 0;
        for (seq, _) in &expected.messages {
            let Ok(Read::Valid(s)) = view.get(StreamSeq(*seq)) else { panic!("message {seq}") };
            let m = s.message();
            let n = (m.subject.len() + m.body.len()) as u64 + fixed;
            assert!(fixed != 16 || view.size(&m) == n, "message {seq}");
            bytes += n;
        }
        bytes
    };
    assert_eq!(expected.totals.3, sum(16, &a.g));
    let mut out = a.g.outgoing().expect("there is a checkpoint");
    assert_eq!(out.checkpoint().totals.bytes, sum(30, &a.g), "as on the way");
    let bytes = read_out(&mut out);
    let b = Life::of(&SimHandle::faultless(2), true);
    now(receive(&b.g, &bytes, &mut rng)).expect("it arrives");
    assert_eq!(seen(&b.g).expect("in memory"), expected);
    now(b.g.verify()).expect("in memory");
    // Whoever counts memory as files, as all did once, takes it too.
    let c = Life::new(&SimHandle::faultless(3));
    now(receive(&c.g, &bytes, &mut rng)).expect("it arrives");
    assert_eq!(seen(&c.g).expect("it can be read").totals.3, sum(30, &a.g));
    now(c.g.verify()).expect("it can be read");
    // The last one takes all that was counted with it.
    let all: Vec<_> = expected.messages.iter().map(|m| StreamSeq(m.0)).collect();
    now(b.g.delete(&all[1..])).expect("in memory");
    let Ok(Read::Valid(first)) = b.g.view().get(all[0]) else { panic!("the first is there") };
    let m = first.message();
    assert_eq!(b.g.state().bytes, (m.subject.len() + m.body.len()) as u64 + 16);
}

#[test]
fn golden_head() {
    let c = Checkpoint {
        index: LogIndex(5),
        term: Term(2),
        chain: Chain(9),
        totals: Totals { first: StreamSeq(3), last: StreamSeq(4), msgs: 2, bytes: 70, last_time: -1 },
        blob: Bytes::from_static(b"blob"),
    };
    let b = encode_head(ID, &c);
    assert_eq!(
        b[..],
        [
            &[70, 85, 84, 128, 1, 0, 0, 0, 21, 0, 0, 0][..],
            &checksum::crc32c(&b[FRAME..]).to_le_bytes(),
            &[3, 5, 2, 9, 0, 0, 0, 0, 0, 0, 0, 3, 4, 2, 70, 1, 4],
            b"blob",
        ]
        .concat()
    );
    assert_eq!(decode_head(ID, &b[FRAME..]), Some(c));
    assert!(decode_head(GroupId(4), &b[FRAME..]).is_none(), "another group's");
    assert!((FRAME..b.len()).all(|n| decode_head(ID, &b[FRAME..n]).is_none()));
    let names: BTreeSet<u32> = [HEAD_MAGIC, END_MAGIC, ENTRY_MAGIC].into();
    assert_eq!(names.len(), 3);
}
