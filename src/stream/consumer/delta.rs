//! The codec of what a leader logs of a consumer, and of snapshots.
//!
//! Owns the bytes. A delta is a version, the leader's epoch, a number, and operations on a [`Ledger`] in their order; runs of
//! deliveries and of acks are one operation each. What a delta says is checked against limits, never trusted.
//!
//! Invariant C-D1: operations applied in the order of the log give the same ledger everywhere (J-4).

use super::ledger::{Delay, Ledger, SkipList, State};
use crate::codec::{Reader, put_number};

const VERSION: u8 = 1;
/// The most deliveries or acks that one operation may stand for.
const RUN_MAX: u64 = 1 << 24;
/// The most entries that a snapshot may have.
const ENTRIES_MAX: u64 = 1 << 26;
/// Version, epoch and the shortest number.
const HEADER: usize = 1 + 8 + 1;

/// A delta or a snapshot that is not what this version writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damaged;

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("consumer state is damaged or of an unknown version")
    }
}

impl std::error::Error for Damaged {}

const DELIVER: u8 = 1;
const REDELIVER: u8 = 2;
const ACK: u8 = 3;
const ACK_UPTO: u8 = 4;
const DROP: u8 = 5;
const EXCEED: u8 = 6;
const DELAY: u8 = 7;
const UNDO: u8 = 8;
const RESET: u8 = 9;

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    count: u64,
}

/// Gathers what a leader does until it is taken to the log.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    ops: Vec<u8>,
    /// The sequence that the last operation was about; the next is written relative to it.
    near: u64,
    delivered: Option<Run>,
    acked: Option<Run>,
}

impl Recorder {
    /// Whether nothing has been noted.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.delivered.is_none() && self.acked.is_none()
    }

    /// How many bytes there are, about.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    fn op(&mut self, tag: u8, seq: u64) {
        self.ops.push(tag);
        put_number(&mut self.ops, zigzag(seq.wrapping_sub(self.near) as i64));
        self.near = seq;
    }

    /// A run of first deliveries and one of acks may be open at once: all in it is delivered before it is acked, so writing the
    /// deliveries first changes nothing.
    fn close(&mut self) {
        for (tag, run) in [(DELIVER, self.delivered.take()), (ACK, self.acked.take())] {
            if let Some(run) = run {
                self.op(tag, run.first);
                put_number(&mut self.ops, run.count);
            }
        }
    }

    /// A message was delivered for the first time.
    #[inline]
    pub fn deliver(&mut self, seq: u64) {
        match &mut self.delivered {
            Some(run) if run.first + run.count == seq && run.count < RUN_MAX => run.count += 1,
            _ => {
                self.close();
                self.delivered = Some(Run { first: seq, count: 1 });
            }
        }
    }

    /// A message was acknowledged.
    #[inline]
    pub fn ack(&mut self, seq: u64) {
        match &mut self.acked {
            Some(run) if run.first + run.count == seq && run.count < RUN_MAX => run.count += 1,
            Some(_) => {
                self.close();
                self.acked = Some(Run { first: seq, count: 1 });
            }
            None => self.acked = Some(Run { first: seq, count: 1 }),
        }
    }

    /// A message was delivered again.
    pub fn redeliver(&mut self, seq: u64, deliveries: u32) {
        self.close();
        self.op(REDELIVER, seq);
        put_number(&mut self.ops, deliveries.into());
    }

    /// A delivery did not happen after all.
    pub fn undo(&mut self, seq: u64, deliveries: u32) {
        self.close();
        self.op(UNDO, seq);
        put_number(&mut self.ops, deliveries.into());
    }

    /// All up to a message and a delivery was acknowledged.
    pub fn ack_upto(&mut self, seq: u64, dseq: u64) {
        self.close();
        self.op(ACK_UPTO, seq);
        put_number(&mut self.ops, dseq);
    }

    /// A message that was awaited has left the stream.
    pub fn drop(&mut self, seq: u64) {
        self.close();
        self.op(DROP, seq);
    }

    /// A message was delivered as often as it may be.
    pub fn exceed(&mut self, seq: u64) {
        self.close();
        self.op(EXCEED, seq);
    }

    /// A redelivery was put off.
    pub fn delay(&mut self, seq: u64, delay: Delay) {
        self.close();
        self.op(DELAY, seq);
        put_number(&mut self.ops, zigzag(delay.until));
        put_number(&mut self.ops, delay.by);
    }

    /// The consumer began anew.
    pub fn reset(&mut self, seq: u64) {
        self.close();
        self.op(RESET, seq);
    }

    /// Takes what was noted, as a delta.
    pub fn take(&mut self, epoch: u64, number: u64) -> Option<Vec<u8>> {
        self.close();
        if self.ops.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(self.ops.len() + HEADER + 9);
        out.push(VERSION);
        out.extend_from_slice(&epoch.to_le_bytes());
        put_number(&mut out, number);
        out.append(&mut self.ops);
        self.near = 0;
        Some(out)
    }

    /// Forgets what was noted.
    pub fn clear(&mut self) {
        *self = Recorder::default();
    }
}

/// Whose delta it is, and which: epoch and number.
///
/// # Errors
/// If it is none.
pub fn origin(delta: &[u8]) -> Result<(u64, u64), Damaged> {
    let mut r = Reader(delta);
    if r.u8().ok_or(Damaged)? != VERSION {
        return Err(Damaged);
    }
    Ok((r.u64().ok_or(Damaged)?, r.number().ok_or(Damaged)?))
}

/// Applies a delta to a ledger. `awaits` says whether the consumer awaits acks. Calls `done` with each run of messages (first and
/// last) that the consumer is done with.
///
/// # Errors
/// If it is none; what came before the damage is applied.
pub fn apply(
    delta: &[u8],
    ledger: &mut Ledger,
    awaits: bool,
    mut done: impl FnMut(u64, u64),
) -> Result<(), Damaged> {
    let mut r = Reader(delta);
    if r.u8().ok_or(Damaged)? != VERSION {
        return Err(Damaged);
    }
    r.u64().ok_or(Damaged)?;
    r.number().ok_or(Damaged)?;
    let mut near = 0u64;
    while !r.0.is_empty() {
        let tag = r.u8().ok_or(Damaged)?;
        let seq = near.wrapping_add(unzigzag(r.number().ok_or(Damaged)?) as u64);
        if seq == 0 || seq == u64::MAX {
            return Err(Damaged);
        }
        near = seq;
        match tag {
            DELIVER | ACK => {
                let count = r.number().ok_or(Damaged)?;
                let last = seq.checked_add(count.wrapping_sub(1)).ok_or(Damaged)?;
                if count == 0 || count > RUN_MAX || last == u64::MAX {
                    return Err(Damaged);
                }
                if tag == DELIVER {
                    if !awaits {
                        done(seq, last);
                    }
                    for s in seq..=last {
                        ledger.deliver(s, awaits, State::Waiting, u64::MAX);
                    }
                } else {
                    for s in seq..=last {
                        ledger.remove(s);
                    }
                    done(seq, last);
                }
            }
            REDELIVER | UNDO => {
                let deliveries = u32::try_from(r.number().ok_or(Damaged)?).map_err(|_| Damaged)?;
                ledger.redeliver(seq, deliveries, tag == REDELIVER);
                ledger.delays.remove(&seq);
            }
            ACK_UPTO => {
                let dseq = r.number().ok_or(Damaged)?;
                ledger.remove_upto(seq, dseq, |e| done(e.seq, e.seq));
            }
            DROP => {
                ledger.remove(seq);
            }
            EXCEED => {
                ledger.exceed(seq);
            }
            DELAY => {
                let delay =
                    Delay { until: unzigzag(r.number().ok_or(Damaged)?), by: r.number().ok_or(Damaged)? };
                if ledger.get(seq).is_some() {
                    ledger.delays.insert(seq, delay);
                }
            }
            RESET => ledger.reset(seq),
            _ => return Err(Damaged),
        }
    }
    Ok(())
}

/// Writes a ledger whole.
pub fn snapshot(l: &Ledger) -> Vec<u8> {
    let mut out = vec![VERSION];
    for n in [l.next_seq, l.dseq, l.delivered, l.ack_dseq, l.ack_seq, l.len() as u64] {
        put_number(&mut out, n);
    }
    let (mut seq, mut dseq) = (0, 0);
    for e in l.iter() {
        put_number(&mut out, e.seq - seq);
        put_number(&mut out, e.dseq - dseq);
        put_number(&mut out, e.deliveries.into());
        (seq, dseq) = (e.seq, e.dseq);
    }
    put_number(&mut out, l.exceeded.len() as u64);
    seq = 0;
    for (s, n) in &l.exceeded {
        put_number(&mut out, s - seq);
        put_number(&mut out, (*n).into());
        seq = *s;
    }
    put_number(&mut out, l.delays.len() as u64);
    seq = 0;
    for (s, delay) in &l.delays {
        put_number(&mut out, s - seq);
        put_number(&mut out, zigzag(delay.until));
        put_number(&mut out, delay.by);
        seq = *s;
    }
    let rest = l.skip.as_ref().map_or(&[][..], |s| &s.seqs[s.at.min(s.seqs.len())..]);
    put_number(&mut out, rest.len() as u64);
    seq = 0;
    for s in rest {
        put_number(&mut out, s - seq);
        seq = *s;
    }
    put_number(&mut out, l.skip.as_ref().map_or(0, |s| s.resume));
    out
}

/// Reads what [`snapshot`] wrote.
///
/// # Errors
/// If it is not that.
pub fn restore(bytes: &[u8]) -> Result<Ledger, Damaged> {
    let mut r = Reader(bytes);
    if r.u8().ok_or(Damaged)? != VERSION {
        return Err(Damaged);
    }
    let mut l = Ledger::starting_at(1);
    for field in [&mut l.next_seq, &mut l.dseq, &mut l.delivered, &mut l.ack_dseq, &mut l.ack_seq] {
        *field = r.number().ok_or(Damaged)?;
    }
    if l.next_seq == 0 || l.dseq == 0 || l.ack_dseq >= l.dseq || l.next_seq == u64::MAX || l.dseq == u64::MAX
    {
        return Err(Damaged);
    }
    // Every item takes a byte at least, which bounds what a wrong count can cost.
    let count = |r: &mut Reader<'_>| -> Result<u64, Damaged> {
        let n = r.number().ok_or(Damaged)?;
        (n <= ENTRIES_MAX && n <= r.0.len() as u64).then_some(n).ok_or(Damaged)
    };
    let step = |r: &mut Reader<'_>, from: u64| from.checked_add(r.number().ok_or(Damaged)?).ok_or(Damaged);
    let small = |r: &mut Reader<'_>| u32::try_from(r.number().ok_or(Damaged)?).map_err(|_| Damaged);
    let (mut seq, mut dseq) = (0, 0);
    for _ in 0..count(&mut r)? {
        seq = step(&mut r, seq)?;
        dseq = step(&mut r, dseq)?;
        let deliveries = small(&mut r)?;
        if !l.restore_entry(seq, dseq, deliveries) || seq <= l.ack_seq {
            return Err(Damaged);
        }
    }
    seq = 0;
    for _ in 0..count(&mut r)? {
        seq = step(&mut r, seq)?;
        let deliveries = small(&mut r)?;
        l.exceeded.insert(seq, deliveries);
    }
    seq = 0;
    for _ in 0..count(&mut r)? {
        seq = step(&mut r, seq)?;
        let delay = Delay { until: unzigzag(r.number().ok_or(Damaged)?), by: r.number().ok_or(Damaged)? };
        l.delays.insert(seq, delay);
    }
    seq = 0;
    let skipped = count(&mut r)?;
    let mut seqs = Vec::with_capacity(usize::try_from(skipped).map_err(|_| Damaged)?);
    for _ in 0..skipped {
        let next = step(&mut r, seq)?;
        if next <= seq {
            return Err(Damaged);
        }
        seq = next;
        seqs.push(seq);
    }
    let resume = r.number().ok_or(Damaged)?;
    if !seqs.is_empty() {
        l.skip = Some(SkipList { seqs, at: 0, resume });
    }
    if r.0.is_empty() { Ok(l) } else { Err(Damaged) }
}
