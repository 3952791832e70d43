//! The log as the core sees it: identity of everything, payloads of what is recent.
//!
//! Owns the base, the terms of all entries above it as runs, the memberships in it, a window of recent entries, and
//! the marks durable, commit, applied. Does not write: `core.rs` turns changes into writes.
//!
//! Invariants: R-2 entries are consecutive and their chains link; R-7 `durable` never passes a hole or what a truncation
//! left; R-12 the base is committed and applied, and carries the membership of its own index; R-18 commit and
//! applied only grow; base <= applied <= commit <= last and durable <= last.

use std::collections::VecDeque;

use crate::members::Members;
use crate::types::{Chain, Entry, EntryKind, LogIndex, NodeId, SnapshotMeta, Term};

/// What a driver found above its checkpoint, fed to [`crate::Core::new`] entry by entry.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Tail {
    base: SnapshotMeta,
    runs: Vec<(LogIndex, Term)>,
    members: Vec<(LogIndex, Members)>,
    last: LogIndex,
    last_chain: Chain,
    cut: bool,
}

/// Why what was found is not a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TailError {
    /// An entry is missing: R-12 forbids to go on as if it had not been.
    Gap {
        /// The one that should have come.
        expected: LogIndex,
        /// The one that came.
        found: LogIndex,
    },
    /// The term goes back.
    TermBack(LogIndex),
    /// the chain does not link.
    Chain(LogIndex),
    /// A membership entry cannot be read.
    Members(LogIndex),
}

impl Tail {
    /// The log on top of a checkpoint.
    #[must_use]
    pub fn new(base: SnapshotMeta) -> Self {
        let (last, last_chain) = (base.index, base.chain);
        Self { base, runs: Vec::new(), members: Vec::new(), last, last_chain, cut: false }
    }

    /// The next entry as the journal has it, with the chain stored in it; `payload` is read for memberships only, so a damaged
    /// payload of another kind does no harm here. Entries at or below the checkpoint are passed over; if the one at the
    /// checkpoint is another than the checkpoint's, the log is from before an install and all of it goes. False: it
    /// is not part of the log.
    ///
    /// # Errors
    /// What is wrong. The entry was not taken.
    pub fn push(&mut self, entry: &Entry) -> Result<bool, TailError> {
        if entry.index < self.base.index || self.cut {
            return Ok(false);
        }
        if entry.index == self.base.index {
            self.cut = entry.term != self.base.term;
            return Ok(false);
        }
        if entry.index != self.last.next() {
            return Err(TailError::Gap { expected: self.last.next(), found: entry.index });
        }
        if entry.term < self.last_term() {
            return Err(TailError::TermBack(entry.index));
        }
        if !entry.follows(self.last_chain) {
            return Err(TailError::Chain(entry.index));
        }
        if entry.kind == EntryKind::Config {
            let members = Members::decode(&entry.payload).ok_or(TailError::Members(entry.index))?;
            self.members.push((entry.index, members));
        }
        if entry.term > self.last_term() || self.runs.is_empty() {
            self.runs.push((entry.index, entry.term));
        }
        self.last = entry.index;
        self.last_chain = entry.chain;
        Ok(true)
    }

    /// The next entry by its identity alone: it cannot be read (see [`crate::Restored::damage`]), or it is only what is left of one that
    /// nobody else ever had. It is no membership. False: it is not part of the log.
    ///
    /// # Errors
    /// What is wrong. The entry was not taken.
    pub fn push_known(&mut self, index: LogIndex, term: Term, chain: Chain) -> Result<bool, TailError> {
        if index <= self.base.index || self.cut {
            return Ok(false);
        }
        if index != self.last.next() {
            return Err(TailError::Gap { expected: self.last.next(), found: index });
        }
        if term < self.last_term() {
            return Err(TailError::TermBack(index));
        }
        if term > self.last_term() || self.runs.is_empty() {
            self.runs.push((index, term));
        }
        self.last = index;
        self.last_chain = chain;
        Ok(true)
    }

    /// Term of the last entry taken.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.runs.last().map_or(self.base.term, |r| r.1)
    }

    /// Last index taken.
    #[must_use]
    pub fn last(&self) -> LogIndex {
        self.last
    }
}

/// Entries found for a follower.
pub(crate) enum Slice {
    /// Here they are; `cost` is their sum.
    Here { entries: Vec<Entry>, cost: u64 },
    /// They are on disk up to `last`; what follows is in the window and perhaps not on disk yet.
    OnDisk { last: LogIndex },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Log {
    base: SnapshotMeta,
    /// First index and term of each run of entries above the base.
    runs: Vec<(LogIndex, Term)>,
    /// Memberships above the base.
    members: Vec<(LogIndex, Members)>,
    /// The recent entries; if there are any, the last of them is `last`.
    window: VecDeque<Entry>,
    window_bytes: u64,
    last: LogIndex,
    last_chain: Chain,
    /// Durable, intact and without a gap up to here.
    pub durable: LogIndex,
    pub commit: LogIndex,
    pub applied: LogIndex,
    /// Handed out for apply up to here.
    pub applying: LogIndex,
    /// Cost of the entries in the window above commit, and above applied.
    pub uncommitted_bytes: u64,
    pub unapplied_bytes: u64,
}

impl Log {
    pub fn new(tail: Tail, commit: LogIndex, applied: LogIndex) -> Self {
        let Tail { base, runs, members, last, last_chain, cut: _ } = tail;
        let applied = applied.clamp(base.index, last);
        let commit = commit.clamp(applied, last);
        Self {
            base,
            runs,
            members,
            window: VecDeque::new(),
            window_bytes: 0,
            last,
            last_chain,
            durable: last,
            commit,
            applied,
            applying: applied,
            uncommitted_bytes: 0,
            unapplied_bytes: 0,
        }
    }

    pub fn base(&self) -> &SnapshotMeta {
        &self.base
    }

    pub fn last(&self) -> LogIndex {
        self.last
    }

    pub fn last_chain(&self) -> Chain {
        self.last_chain
    }

    pub fn last_term(&self) -> Term {
        self.runs.last().map_or(self.base.term, |r| r.1)
    }

    /// Term of the entry at `index`; `None` below the base and past the end.
    pub fn term(&self, index: LogIndex) -> Option<Term> {
        if index < self.base.index || index > self.last {
            return None;
        }
        let run = self.runs.partition_point(|r| r.0 <= index);
        Some(if run == 0 { self.base.term } else { self.runs[run - 1].1 })
    }

    /// Chain of the entry at `index`, if it is at hand.
    pub fn chain(&self, index: LogIndex) -> Option<Chain> {
        if index == self.last {
            return Some(self.last_chain);
        }
        if index == self.base.index {
            return Some(self.base.chain);
        }
        self.get(index).map(|e| e.chain)
    }

    fn window_first(&self) -> LogIndex {
        LogIndex(self.last.0 + 1 - self.window.len() as u64)
    }

    pub fn get(&self, index: LogIndex) -> Option<&Entry> {
        if index < self.window_first() || index > self.last {
            return None;
        }
        self.window.get((index.0 - self.window_first().0) as usize)
    }

    /// The newest membership of the log, committed or not, and where it is.
    pub fn members(&self) -> (LogIndex, &Members) {
        self.members.last().map_or((self.base.index, &self.base.members), |(i, m)| (*i, m))
    }

    /// The membership in force at `index`.
    pub fn members_at(&self, index: LogIndex) -> &Members {
        self.members.iter().rev().find(|(i, _)| *i <= index).map_or(&self.base.members, |(_, m)| m)
    }

    /// Whether a node votes by the committed membership or by any after it.
    pub fn may_vote(&self, node: NodeId) -> bool {
        self.members_at(self.commit).is_voter(node)
            || self.members.iter().any(|(at, m)| *at > self.commit && m.is_voter(node))
    }

    /// Adds one entry at the end.
    pub fn push(&mut self, entry: Entry, members: Option<Members>) {
        assert_eq!(entry.index, self.last.next(), "R-2: entries are consecutive");
        assert!(entry.term >= self.last_term(), "R-2: terms do not go back");
        if entry.term > self.last_term() || self.runs.is_empty() {
            self.runs.push((entry.index, entry.term));
        }
        assert_eq!(
            members.is_some(),
            entry.kind == EntryKind::Config,
            "R-9: a membership comes with its entry"
        );
        if let Some(members) = members {
            self.members.push((entry.index, members));
        }
        let cost = entry.cost();
        self.window_bytes += cost;
        self.uncommitted_bytes += cost;
        self.unapplied_bytes += cost;
        self.last = entry.index;
        self.last_chain = entry.chain;
        self.window.push_back(entry);
    }

    /// Removes the entries from `from` on. `before` is the chain of the entry before. True if a membership went too.
    pub fn truncate(&mut self, from: LogIndex, before: Chain) -> bool {
        assert!(from > self.commit, "R-5: what is committed is never truncated");
        assert!(from > self.base.index, "R-12: the base is not part of the log");
        let memberships = self.members.len();
        while self.last >= from {
            if let Some(entry) = self.window.pop_back() {
                let cost = entry.cost();
                self.window_bytes -= cost;
                self.uncommitted_bytes -= cost;
                self.unapplied_bytes -= cost;
                self.last = self.last.prev();
            } else {
                self.last = from.prev();
            }
        }
        self.last_chain = before;
        self.runs.retain(|r| r.0 < from);
        self.members.retain(|m| m.0 < from);
        self.durable = self.durable.min(self.last);
        memberships != self.members.len()
    }

    /// Replaces the log by a base, but keeps what follows it if the entry at the base is the base's. True if it was kept.
    pub fn reset(&mut self, meta: SnapshotMeta) -> bool {
        assert!(
            meta.index >= self.commit || self.term(meta.index) == Some(meta.term),
            "R-5: a snapshot is of committed state"
        );
        let kept = self.term(meta.index) == Some(meta.term);
        if kept {
            self.commit_to(meta.index);
            self.applied_to(meta.index);
            self.applying = self.applying.max(meta.index);
            self.rebase(meta);
            self.durable = self.durable.max(self.base.index);
        } else {
            self.window = VecDeque::new();
            self.window_bytes = 0;
            self.uncommitted_bytes = 0;
            self.unapplied_bytes = 0;
            self.runs.clear();
            self.members.clear();
            self.last = meta.index;
            self.last_chain = meta.chain;
            self.durable = meta.index;
            self.commit = meta.index;
            self.applied = meta.index;
            self.applying = meta.index;
            self.base = meta;
        }
        kept
    }

    /// Moves the base up.
    pub fn rebase(&mut self, meta: SnapshotMeta) {
        assert!(meta.index <= self.applied, "R-12: only what is applied becomes state");
        assert_eq!(self.term(meta.index), Some(meta.term), "R-12: the base is an entry of the log");
        let at = meta.index;
        let run = self.runs.partition_point(|r| r.0 <= at);
        // The run that goes on above the base has to begin there.
        if run > 0 && at < self.last {
            let next_run = self.runs.get(run).map(|r| r.0);
            if next_run != Some(at.next()) {
                self.runs[run - 1].0 = at.next();
                self.runs.drain(..run - 1);
            } else {
                self.runs.drain(..run);
            }
        } else {
            self.runs.drain(..run);
        }
        self.members.retain(|m| m.0 > at);
        while self.window.front().is_some_and(|e| e.index <= at) {
            self.pop_front();
        }
        self.base = meta;
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.window.pop_front() {
            assert!(entry.index <= self.applied, "R-16: only applied entries leave the window");
            self.window_bytes -= entry.cost();
        }
    }

    /// Raises commit. True if it rose.
    pub fn commit_to(&mut self, index: LogIndex) -> bool {
        assert!(index <= self.last, "R-5: only entries of the log are committed");
        if index <= self.commit {
            return false;
        }
        self.uncommitted_bytes -= self.cost_between(self.commit, index);
        self.commit = index;
        true
    }

    /// Raises applied.
    pub fn applied_to(&mut self, index: LogIndex) {
        assert!(index <= self.commit, "R-4: only what is committed is applied");
        if index > self.applied {
            self.unapplied_bytes -= self.cost_between(self.applied, index);
            self.applied = index;
        }
    }

    /// Cost of the entries in the window above `after`, up to `upto`.
    fn cost_between(&self, after: LogIndex, upto: LogIndex) -> u64 {
        let first = self.window_first();
        let from = after.next().max(first).0 - first.0;
        let to = upto.next().max(first).0 - first.0;
        self.window.range(from as usize..to as usize).map(Entry::cost).sum()
    }

    /// Entries from `first` to `last`, up to `bytes_max` but at least one.
    pub fn slice(&self, first: LogIndex, last: LogIndex, bytes_max: u64) -> Slice {
        assert!(
            first > self.base.index && first <= last && last <= self.last,
            "R-12: a slice lies in the log"
        );
        if first < self.window_first() {
            return Slice::OnDisk { last: last.min(self.window_first().prev()) };
        }
        let from = (first.0 - self.window_first().0) as usize;
        let to = (last.0 - self.window_first().0) as usize;
        let (mut cost, mut count) = (0, 0);
        for entry in self.window.range(from..=to) {
            if count > 0 && cost + entry.cost() > bytes_max {
                break;
            }
            cost += entry.cost();
            count += 1;
        }
        Slice::Here { entries: self.window.range(from..from + count).cloned().collect(), cost }
    }

    /// All entries from `first` on; they are in the window since they are not durable yet.
    pub fn fresh(&self, first: LogIndex) -> Vec<Entry> {
        let from = (first.0 - self.window_first().0) as usize;
        self.window.range(from..).cloned().collect()
    }

    /// The greatest index up to `index` whose term is at most `term`: logs can agree there and nowhere above.
    pub fn agree_hint(&self, index: LogIndex, term: Term) -> (LogIndex, Term) {
        let mut at = index.min(self.last);
        loop {
            let Some(have) = self.term(at) else {
                // Below the base only the base itself can be answered for.
                return (
                    self.base.index.min(index),
                    if self.base.index <= index { self.base.term } else { Term(0) },
                );
            };
            if have <= term || at == self.base.index {
                return (at, have);
            }
            // Step over the whole run.
            let run = self.runs.partition_point(|r| r.0 <= at);
            at = if run == 0 { self.base.index } else { self.runs[run - 1].0.prev() };
        }
    }

    /// Lets go of entries that are durable and applied, beyond what `keep_from` and a budget ask to keep.
    pub fn evict(&mut self, keep_from: LogIndex, bytes_max: u64) {
        let free = self.durable.min(self.applied);
        while let Some(front) = self.window.front() {
            if front.index > free || (front.index >= keep_from && self.window_bytes <= bytes_max) {
                break;
            }
            self.pop_front();
        }
    }

    /// Whether a log that ends so is at least as new as this one.
    pub fn not_newer_than(&self, last: LogIndex, last_term: Term) -> bool {
        (last_term, last) >= (self.last_term(), self.last)
    }

    /// Gives back memory that an idle log does not need.
    pub fn shrink(&mut self) {
        self.window.shrink_to_fit();
        self.runs.shrink_to_fit();
        self.members.shrink_to_fit();
    }

    /// Bytes of memory beyond the struct itself, without payloads.
    pub fn heap_bytes(&self) -> usize {
        let of = |m: &Members| {
            (m.voters.capacity() + m.outgoing.capacity() + m.learners.capacity() + m.spent.capacity())
                * size_of::<crate::types::NodeId>()
        };
        self.window.capacity() * size_of::<Entry>()
            + self.runs.capacity() * size_of::<(LogIndex, Term)>()
            + self.members.capacity() * size_of::<(LogIndex, Members)>()
            + of(&self.base.members)
            + self.members.iter().map(|(_, m)| of(m)).sum::<usize>()
    }

    /// The relations that hold between steps.
    pub fn check(&self) {
        assert!(self.base.index <= self.applied, "R-12: the base is applied");
        assert!(self.applied <= self.applying, "R-4: applied is part of what was handed out");
        assert!(self.applying <= self.commit, "R-4: only what is committed is handed out");
        assert!(self.commit <= self.last, "R-5: commit lies in the log");
        assert!(self.durable <= self.last, "R-7: durable lies in the log");
    }
}
