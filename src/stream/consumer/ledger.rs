//! What must be remembered of a consumer: where it is, which acks it awaits, how often each message was delivered.
//!
//! Owns the state that is logged and that replicas share. Does not own time, requests or who is served: a leader keeps those
//! beside it. A message that is deleted from the stream leaves the ledger by [`Ledger::remove`].
//!
//! Invariants:
//! - C-L1: entries are in the order of their sequences, and of their first deliveries too.
//! - C-L2: every live entry lies above the ack floor and below `next_seq`.
//! - J-5: the floors never go back but by a reset.

use std::collections::{BTreeMap, VecDeque};

/// What becomes of an entry next. Only the leader tells them apart; elsewhere all are `Waiting`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// Its ack is awaited until it is due.
    #[default]
    Waiting,
    /// It is in the queue of redeliveries.
    Queued,
    /// Its delivery leaves once it is logged.
    Held,
    /// It has left; its place is not yet reused.
    Gone,
}

/// A message that was delivered and is not acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The message.
    pub seq: u64,
    /// Its first delivery.
    pub dseq: u64,
    /// When it is to be delivered again, on the leader's monotonic clock.
    pub due: u64,
    /// How often it was delivered.
    pub deliveries: u32,
    /// What becomes of it.
    pub state: State,
}

/// A redelivery that a client has put off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delay {
    /// Until when, in nanoseconds since 1970.
    pub until: i64,
    /// By how much, in nanoseconds: a clock that has jumped back does not make it longer.
    pub by: u64,
}

impl Delay {
    /// What is left of it when a new leader begins.
    pub fn left(&self, wall: i64) -> u64 {
        self.until.saturating_sub(wall).max(0).unsigned_abs().min(self.by)
    }
}

/// The messages of a `last_per_subject` consumer's start, one a subject.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SkipList {
    /// Their sequences, ascending.
    pub seqs: Vec<u64>,
    /// How many have been looked at.
    pub at: usize,
    /// Where it goes on behind them.
    pub resume: u64,
}

impl SkipList {
    /// The next one.
    pub fn peek(&self) -> Option<u64> {
        self.seqs.get(self.at).copied()
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Where the search for the next message begins.
    pub next_seq: u64,
    /// The number of the next delivery, from 1 on.
    pub dseq: u64,
    /// The last message that was delivered for the first time, or what lies before the start.
    pub delivered: u64,
    /// All deliveries up to this one are acknowledged.
    pub ack_dseq: u64,
    /// All messages up to this one are acknowledged (or were not for this consumer).
    pub ack_seq: u64,
    /// C-L1. Gone entries stay until the front or the back is trimmed or they are the majority.
    entries: VecDeque<Entry>,
    live: usize,
    /// How many live entries were delivered more than once.
    redelivered: usize,
    /// Messages delivered as often as they may be, and how often; they stay in the stream. At most as many as it holds.
    pub exceeded: BTreeMap<u64, u32>,
    /// Until when the redelivery of an entry is put off, in nanoseconds since 1970, for those that a client put off.
    pub delays: BTreeMap<u64, Delay>,
    /// The start of a `last_per_subject` consumer that has not ended.
    pub skip: Option<SkipList>,
}

impl PartialEq for Ledger {
    fn eq(&self, o: &Ledger) -> bool {
        let fixed = |l: &Ledger| (l.dseq, l.delivered, l.ack_dseq, l.ack_seq, l.live, l.redelivered);
        fixed(self) == fixed(o)
            && self.exceeded == o.exceeded
            && self.delays == o.delays
            && self
                .iter()
                .map(|e| (e.seq, e.dseq, e.deliveries))
                .eq(o.iter().map(|e| (e.seq, e.dseq, e.deliveries)))
    }
}

impl Ledger {
    /// A ledger that begins at `next`.
    pub fn starting_at(next: u64) -> Ledger {
        let before = next.saturating_sub(1);
        Ledger { next_seq: next.max(1), dseq: 1, delivered: before, ack_seq: before, ..Ledger::default() }
    }

    /// How many acks are awaited.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no ack is awaited.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// How many messages were delivered more than once and are not acknowledged.
    pub fn num_redelivered(&self) -> usize {
        self.redelivered + self.exceeded.len()
    }

    /// The live entries.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.state != State::Gone)
    }

    /// The live entries, to be changed; not their sequences.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().filter(|e| e.state != State::Gone)
    }

    #[inline]
    fn find(&self, seq: u64) -> Option<usize> {
        let first = self.entries.front()?.seq;
        let guess = usize::try_from(seq.checked_sub(first)?).unwrap_or(usize::MAX);
        // With consecutive sequences the guess is right; gaps only move an entry towards the front.
        let at = match self.entries.get(guess) {
            Some(e) if e.seq == seq => guess,
            _ => self.entries.binary_search_by(|e| e.seq.cmp(&seq)).ok()?,
        };
        (self.entries[at].state != State::Gone).then_some(at)
    }

    /// The entry of a message.
    #[inline]
    pub fn get(&self, seq: u64) -> Option<&Entry> {
        self.find(seq).map(|at| &self.entries[at])
    }

    /// The entry of a message, to be changed; not its sequence.
    #[inline]
    pub fn get_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        self.find(seq).map(|at| &mut self.entries[at])
    }

    /// Notes the first delivery of a message, whose ack is awaited if `acked` says so. Returns the delivery's number.
    #[inline]
    pub fn deliver(&mut self, seq: u64, acked: bool, state: State, due: u64) -> u64 {
        let dseq = self.dseq;
        self.dseq += 1;
        self.next_seq = self.next_seq.max(seq.saturating_add(1));
        self.delivered = self.delivered.max(seq);
        if self.skip.is_some() {
            self.advance_skip(seq);
        }
        if acked {
            let e = Entry { seq, dseq, due, deliveries: 1, state };
            if self.entries.back().is_none_or(|last| last.seq < seq) {
                self.entries.push_back(e);
                self.live += 1;
            } else {
                self.insert(e);
            }
        } else {
            self.ack_dseq = dseq;
            self.ack_seq = self.ack_seq.max(seq);
        }
        dseq
    }

    /// The messages of the start up to `seq` have been looked at.
    #[cold]
    pub fn advance_skip(&mut self, seq: u64) {
        let Some(skip) = &mut self.skip else { return };
        while skip.peek().is_some_and(|next| next <= seq) {
            skip.at += 1;
        }
        if skip.peek().is_none() {
            self.next_seq = self.next_seq.max(skip.resume);
            self.skip = None;
        }
    }

    /// Inserts an entry whose place is not the end. A leader never delivers so; a delta that says so is followed all the same.
    #[cold]
    fn insert(&mut self, e: Entry) {
        match self.entries.binary_search_by(|x| x.seq.cmp(&e.seq)) {
            Ok(at) => {
                let was = std::mem::replace(&mut self.entries[at], e);
                self.live += usize::from(was.state == State::Gone);
                self.redelivered -= usize::from(was.state != State::Gone && was.deliveries > 1);
            }
            Err(at) => {
                self.entries.insert(at, e);
                self.live += 1;
            }
        }
    }

    /// Sets how often a message was delivered, and counts a delivery if `delivered` says that there was one. Returns its number.
    pub fn redeliver(&mut self, seq: u64, deliveries: u32, delivered: bool) -> u64 {
        let dseq = self.dseq;
        self.dseq += u64::from(delivered);
        if let Some(at) = self.find(seq) {
            let e = &mut self.entries[at];
            self.redelivered -= usize::from(e.deliveries > 1);
            self.redelivered += usize::from(deliveries > 1);
            e.deliveries = deliveries;
        }
        dseq
    }

    /// A message is acknowledged, or gone: takes its entry away and lets the floors rise. The entry, if there was one.
    #[inline]
    pub fn remove(&mut self, seq: u64) -> Option<Entry> {
        if !self.exceeded.is_empty() {
            self.exceeded.remove(&seq);
        }
        let at = self.find(seq)?;
        let e = self.entries[at];
        self.forget(at);
        self.settle(at == 0);
        Some(e)
    }

    fn forget(&mut self, at: usize) {
        let e = &mut self.entries[at];
        e.state = State::Gone;
        self.redelivered -= usize::from(e.deliveries > 1);
        self.live -= 1;
        if !self.delays.is_empty() {
            self.delays.remove(&e.seq);
        }
    }

    /// Trims what is gone and, if the first entry has left, raises the floors to what lies before the new first.
    #[inline]
    fn settle(&mut self, first_left: bool) {
        while self.entries.front().is_some_and(|e| e.state == State::Gone) {
            self.entries.pop_front();
        }
        while self.entries.back().is_some_and(|e| e.state == State::Gone) {
            self.entries.pop_back();
        }
        if self.entries.len() > 64 && self.live * 2 < self.entries.len() {
            self.entries.retain(|e| e.state != State::Gone);
        }
        let (dseq, seq) = match self.entries.front() {
            None => (self.dseq - 1, self.delivered),
            Some(first) if first_left => (first.dseq - 1, first.seq - 1),
            Some(_) => return,
        };
        self.ack_dseq = self.ack_dseq.max(dseq);
        self.ack_seq = self.ack_seq.max(seq);
    }

    /// All up to `seq`, delivered by `dseq`, is acknowledged. Calls `gone` for each entry that leaves.
    pub fn remove_upto(&mut self, seq: u64, dseq: u64, mut gone: impl FnMut(&Entry)) {
        while let Some(e) = self.entries.front().copied().filter(|e| e.seq <= seq) {
            if e.state != State::Gone {
                gone(&e);
                self.forget(0);
            }
            self.entries.pop_front();
        }
        if !self.exceeded.is_empty() {
            self.exceeded = self.exceeded.split_off(&seq.saturating_add(1));
        }
        // A client may claim more than it was given.
        let (seq, dseq) = (seq.min(self.delivered), dseq.min(self.dseq - 1));
        self.ack_seq = self.ack_seq.max(seq);
        self.ack_dseq = self.ack_dseq.max(dseq);
        self.settle(true);
    }

    /// A message was delivered as often as it may be: its ack is no longer awaited.
    pub fn exceed(&mut self, seq: u64) -> Option<Entry> {
        let at = self.find(seq)?;
        let e = self.entries[at];
        self.forget(at);
        self.exceeded.insert(seq, e.deliveries);
        self.settle(at == 0);
        Some(e)
    }

    /// All before `first` is gone from the stream. Calls `gone` for each entry that leaves.
    pub fn purge(&mut self, first: u64, mut gone: impl FnMut(&Entry)) {
        let before = first.saturating_sub(1);
        let mut last = None;
        while let Some(e) = self.entries.front().copied().filter(|e| e.seq < first) {
            if e.state != State::Gone {
                gone(&e);
                self.forget(0);
            }
            last = Some(e.dseq);
            self.entries.pop_front();
        }
        if !self.exceeded.is_empty() {
            self.exceeded = self.exceeded.split_off(&first);
        }
        if self.next_seq < first {
            self.next_seq = first;
            self.delivered = self.delivered.max(before);
        }
        if let Some(dseq) = last {
            self.ack_dseq = self.ack_dseq.max(dseq);
        }
        self.ack_seq = self.ack_seq.max(before);
        self.settle(last.is_some());
    }

    /// Begins anew at `seq`: the one thing that takes floors back (J-5).
    pub fn reset(&mut self, seq: u64) {
        let skip = self.skip.take().map(|mut s| {
            s.at = s.seqs.partition_point(|x| *x < seq);
            s
        });
        *self = Ledger { skip: skip.filter(|s| s.at < s.seqs.len()), ..Ledger::starting_at(seq.max(1)) };
    }

    /// Whether the consumer still wants a message that matches its filters, for streams that keep by interest.
    pub fn needs(&self, seq: u64, each_on_its_own: bool) -> bool {
        let wanted = if each_on_its_own {
            seq > self.ack_seq && (seq > self.delivered || seq >= self.next_seq || self.find(seq).is_some())
        } else {
            seq > self.ack_seq
        };
        wanted || self.exceeded.contains_key(&seq)
    }

    /// Takes an entry back that a snapshot holds; entries come in order (C-L1). Whether it fits.
    pub(super) fn restore_entry(&mut self, seq: u64, dseq: u64, deliveries: u32) -> bool {
        let fits = self.entries.back().is_none_or(|last| last.seq < seq && last.dseq < dseq)
            && seq < self.next_seq
            && dseq < self.dseq
            && dseq > 0
            && seq > 0;
        if fits {
            self.entries.push_back(Entry { seq, dseq, due: u64::MAX, deliveries, state: State::Waiting });
            self.live += 1;
            self.redelivered += usize::from(deliveries > 1);
        }
        fits
    }

    /// Whether all that is always true of a ledger is true of this one. For tests and the simulation.
    pub fn is_sound(&self) -> bool {
        let ordered = self
            .entries
            .iter()
            .zip(self.entries.iter().skip(1))
            .all(|(a, b)| a.seq < b.seq && a.dseq < b.dseq);
        let inside = self.iter().all(|e| e.seq > self.ack_seq && e.seq < self.next_seq && e.dseq < self.dseq);
        let counted = self.iter().count() == self.live
            && self.iter().filter(|e| e.deliveries > 1).count() == self.redelivered;
        ordered && inside && counted
    }
}
