//! `Memory`: messages in maps, for models, simulations and tests.
//!
//! Answers every question at once and exactly; makes no attempt to be small or fast.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use bytes::Bytes;
use subject::matches;

use crate::config::Storage;
use crate::messages::{Messages, MessagesMut, Meta, Stored, SubjectTotals, Totals};

/// Messages in memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    live: BTreeMap<u64, Stored>,
    by_subject: BTreeMap<Bytes, BTreeSet<u64>>,
    last: u64,
    last_time: i64,
    bytes: u64,
    counts: Storage,
}

/// What a message counts for in `max_bytes`, as nats-server's stores count. The store has to count the same.
pub fn size(storage: Storage, subject: usize, headers: usize, payload: usize) -> u64 {
    let fixed = match storage {
        Storage::Memory => 16,
        Storage::File if headers == 0 => 30,
        Storage::File => 34,
    };
    (subject + headers + payload + fixed) as u64
}

impl Memory {
    /// No messages; the first to come has sequence 1.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// No messages; what comes is counted as this kind of storage does.
    pub fn counting_as(counts: Storage) -> Memory {
        Memory { counts, ..Memory::default() }
    }

    fn size(&self, m: &Stored) -> u64 {
        size(self.counts, m.subject.len(), m.headers.len(), m.payload.len())
    }

    /// Adds a message.
    ///
    /// # Panics
    /// If its sequence is not above all before it: sequences are given once (J-2).
    pub fn push(&mut self, m: Stored) {
        assert!(m.seq > self.last, "J-2: sequence {} after {}", m.seq, self.last);
        self.last = m.seq;
        self.last_time = m.time;
        self.bytes += self.size(&m);
        self.by_subject.entry(m.subject.clone()).or_default().insert(m.seq);
        self.live.insert(m.seq, m);
    }

    /// All live messages in order.
    pub fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.live.values()
    }

    fn totals_of(seqs: &BTreeSet<u64>) -> Option<SubjectTotals> {
        Some(SubjectTotals { msgs: seqs.len() as u64, first: *seqs.first()?, last: *seqs.last()? })
    }
}

fn any(filters: &[Bytes], subject: &[u8]) -> bool {
    filters.is_empty() || filters.iter().any(|f| matches(subject, f))
}

impl Messages for Memory {
    type Miss = Infallible;

    fn totals(&self) -> Totals {
        Totals {
            first: self.live.first_key_value().map_or(self.last + 1, |(seq, _)| *seq),
            last: self.last,
            msgs: self.live.len() as u64,
            bytes: self.bytes,
            last_time: self.last_time,
        }
    }

    fn num_subjects(&self) -> Result<u64, Infallible> {
        Ok(self.by_subject.len() as u64)
    }

    fn subject(&self, subject: &[u8]) -> Result<Option<SubjectTotals>, Infallible> {
        Ok(self.by_subject.get(subject).and_then(Memory::totals_of))
    }

    fn subjects(
        &self,
        filter: &[u8],
        f: &mut dyn FnMut(&[u8], SubjectTotals) -> bool,
    ) -> Result<(), Infallible> {
        for (subject, seqs) in self.by_subject.iter().filter(|(s, _)| matches(s, filter)) {
            if let Some(t) = Memory::totals_of(seqs)
                && !f(subject, t)
            {
                break;
            }
        }
        Ok(())
    }

    fn last_of(&self, subject: &[u8], upto: u64) -> Result<Option<u64>, Infallible> {
        Ok(self.by_subject.get(subject).and_then(|s| s.range(..=upto).next_back().copied()))
    }

    fn next(&self, filters: &[Bytes], from: u64) -> Result<Option<u64>, Infallible> {
        Ok(self.live.range(from..).find(|(_, m)| any(filters, &m.subject)).map(|(seq, _)| *seq))
    }

    fn pending(&self, filters: &[Bytes], from: u64) -> Result<u64, Infallible> {
        Ok(self.live.range(from..).filter(|(_, m)| any(filters, &m.subject)).count() as u64)
    }

    fn at_time(&self, time: i64) -> Result<u64, Infallible> {
        Ok(self.live.values().find(|m| m.time >= time).map_or(self.last + 1, |m| m.seq))
    }

    fn meta(&self, seq: u64) -> Result<Option<Meta>, Infallible> {
        Ok(self.live.get(&seq).map(|m| Meta {
            subject: m.subject.clone(),
            size: self.size(m),
            time: m.time,
            expires: m.expires,
        }))
    }

    fn get(&self, seq: u64) -> Result<Option<Stored>, Infallible> {
        Ok(self.live.get(&seq).cloned())
    }
}

impl MessagesMut for Memory {
    fn remove(&mut self, seq: u64) -> Result<bool, Infallible> {
        let Some(m) = self.live.remove(&seq) else { return Ok(false) };
        self.bytes -= self.size(&m);
        if let Some(seqs) = self.by_subject.get_mut(&m.subject) {
            seqs.remove(&seq);
            if seqs.is_empty() {
                self.by_subject.remove(&m.subject);
            }
        }
        Ok(true)
    }
}
