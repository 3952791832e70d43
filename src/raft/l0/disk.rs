//! A node's disk: what is synced, and writes that are not yet. A crash keeps any prefix of the latter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::{Chain, Entry, HardState, LogIndex, SnapshotMeta, Write};

use super::invariants::Violation;

/// The state machine's durable checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What the log stands on.
    pub meta: SnapshotMeta,
    /// Digest of all that was applied.
    pub hash: u64,
}

/// One disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Synced term, vote and commit.
    pub hard: HardState,
    /// Synced checkpoint.
    pub checkpoint: Checkpoint,
    /// Synced entries.
    pub entries: BTreeMap<u64, Entry>,
    /// Entries whose payload cannot be read.
    pub damaged: BTreeSet<u64>,
    /// Issued and not synced, in order.
    pub pending: VecDeque<Write>,
}

impl Disk {
    /// A disk with a base and nothing else.
    #[must_use]
    pub fn new(meta: SnapshotMeta) -> Self {
        Self {
            hard: HardState::default(),
            checkpoint: Checkpoint { meta, hash: 0 },
            entries: BTreeMap::new(),
            damaged: BTreeSet::new(),
            pending: VecDeque::new(),
        }
    }

    /// Makes the oldest pending write durable and returns it.
    pub fn sync_one(&mut self) -> Result<Option<Write>, Violation> {
        let Some(mut write) = self.pending.pop_front() else { return Ok(None) };
        if let Some(hard) = write.hard {
            self.hard = hard;
        }
        if let Some(from) = write.truncate {
            self.entries.split_off(&from.0);
            self.damaged.split_off(&from.0);
        }
        if let Some(meta) = &write.reset {
            if meta.index > self.checkpoint.meta.index {
                return Err(Violation::new(
                    "R-13",
                    format!("log reset to {meta:?} before the state was durable"),
                ));
            }
            self.entries = self.entries.split_off(&(meta.index.0 + 1));
            self.damaged = self.damaged.split_off(&(meta.index.0 + 1));
        }
        for entry in write.patch.drain(..) {
            match self.entries.get(&entry.index.0) {
                Some(have) if have.chain == entry.chain => {
                    self.damaged.remove(&entry.index.0);
                    self.entries.insert(entry.index.0, entry);
                }
                have => return Err(Violation::new("R-14", format!("patch {entry:?} on {have:?}"))),
            }
        }
        for entry in std::mem::take(&mut write.entries) {
            // What lies on the disk is not silently replaced: that is a truncation's work. A store that finds
            // the place taken keeps what it has.
            let index = entry.index.0;
            let end = self.last().0;
            if index > end + 1 {
                return Err(Violation::new("R-12", format!("entry {index} after {end}: a gap on disk")));
            }
            self.entries.entry(index).or_insert(entry);
        }
        Ok(Some(write))
    }

    /// End of the synced log.
    #[must_use]
    pub fn last(&self) -> LogIndex {
        let base = self.checkpoint.meta.index;
        self.entries.keys().next_back().map_or(base, |last| LogIndex(*last).max(base))
    }

    /// End of the part of the synced log without a hole.
    #[must_use]
    pub fn sound_last(&self) -> LogIndex {
        let base = self.checkpoint.meta.index.0;
        match self.damaged.range(base + 1..).next() {
            Some(hole) => LogIndex(hole - 1),
            None => self.last(),
        }
    }

    /// Chain of a synced entry or of the checkpoint.
    #[must_use]
    pub fn chain(&self, index: LogIndex) -> Option<Chain> {
        if index == self.checkpoint.meta.index {
            return Some(self.checkpoint.meta.chain);
        }
        self.entries.get(&index.0).map(|e| e.chain)
    }

    /// Loses what was not synced, but for the first `keep` writes.
    pub fn crash(&mut self, keep: usize) -> Result<(), Violation> {
        for _ in 0..keep.min(self.pending.len()) {
            self.sync_one()?;
        }
        self.pending.clear();
        Ok(())
    }
}
