//! The append-only log with unique values, in time linear in the history.
//!
//! * P-1: what was acknowledged is in the log, once, at its sequence.
//! * P-2: the log holds nothing that was not written, or was refused.
//! * P-3: what was acknowledged before another was sent stands before it.

use std::collections::BTreeMap;

use crate::history::{Done, Event, History, Op};

/// What a log's history shows. Lists hold values, in the order in which they were found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Log {
    /// Appends that were acknowledged.
    pub acknowledged: u64,
    /// Appends whose outcome nobody knows.
    pub unknown: u64,
    /// Appends that were refused.
    pub refused: u64,
    /// Messages in the final reading.
    pub read: u64,
    /// The final reading came to the stream's end. Without that nothing can be said to be lost.
    pub complete: bool,
    /// Acknowledged and not there.
    pub lost: Vec<u64>,
    /// There more than once: one entry for each time too many.
    pub duplicated: Vec<u64>,
    /// There at another sequence than the acknowledged one.
    pub moved: Vec<u64>,
    /// Standing behind one that was sent after their acknowledgement.
    pub reordered: Vec<u64>,
    /// Sequences whose value was never written, was refused, or has a body that nobody wrote.
    pub phantom: Vec<u64>,
}

impl Log {
    /// Nothing is wrong, and everything was read.
    pub fn holds(&self) -> bool {
        self.complete
            && self.lost.is_empty()
            && self.duplicated.is_empty()
            && self.moved.is_empty()
            && self.reordered.is_empty()
            && self.phantom.is_empty()
    }
}

/// Judges [`Op::Append`] by the [`Op::Entry`] notes of the final reading.
pub fn log(h: &History) -> Log {
    let mut found = Log::default();
    let mut by_value: BTreeMap<u64, Done> = BTreeMap::new();
    for done in h.ops() {
        let Op::Append { v, .. } = done.op else { continue };
        match done.outcome {
            Event::Ok => found.acknowledged += 1,
            Event::Fail => found.refused += 1,
            _ => found.unknown += 1,
        }
        by_value.insert(v, done);
    }
    let mut entries: BTreeMap<u64, Option<u64>> = BTreeMap::new();
    for r in h.notes() {
        match r.op {
            Op::Entry { seq, v } => {
                // A reading that was begun again may show a sequence twice; only another value would be wrong.
                if let Some(Some(before)) = entries.insert(seq, v).filter(|before| *before != v) {
                    found.phantom.push(seq);
                    found.moved.push(before);
                }
            }
            Op::Complete { .. } => found.complete = true,
            _ => {}
        }
    }
    found.read = entries.len() as u64;
    let mut places: BTreeMap<u64, u64> = BTreeMap::new();
    for (seq, v) in &entries {
        let known = v.and_then(|v| by_value.get(&v)).filter(|d| d.outcome != Event::Fail);
        let (Some(v), Some(done)) = (*v, known) else {
            found.phantom.push(*seq);
            continue;
        };
        if places.insert(v, *seq).is_some() {
            found.duplicated.push(v);
        }
        if matches!(done.op, Op::Append { seq: Some(said), .. } if said != *seq) {
            found.moved.push(v);
        }
    }
    if found.complete {
        let acked = by_value.iter().filter(|(_, d)| d.outcome == Event::Ok).map(|(v, _)| *v);
        found.lost = acked.filter(|v| !places.contains_key(v)).collect();
    }
    // From the end: what stands before must not have been sent after something behind it was acknowledged.
    let mut earliest_ret = u64::MAX;
    for (seq, v) in entries.iter().rev() {
        let Some(done) = v.and_then(|v| by_value.get(&v)) else { continue };
        let last = v.and_then(|v| places.get(&v)) == Some(seq);
        if done.call > earliest_ret && last {
            found.reordered.extend(*v);
        }
        if done.outcome == Event::Ok && last {
            earliest_ret = earliest_ret.min(done.ret.unwrap_or(u64::MAX));
        }
    }
    found
}
