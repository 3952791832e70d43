//! A shard's journal files: which one is written, which one waits, which ones may be used again.
//!
//! Owns the placement of rounds and the admission of frames against reserved space. Does not own the bytes of a round
//! (`round`) or what is in it.
//!
//! - S-22: a frame is admitted only if the round that it joins fits in space that is already reserved, so a full disk
//!   refuses new frames and never meets an admitted one.
//! - S-23: a file is used again only after the manifest that makes its rounds needless is durable in both slots.

use std::collections::VecDeque;

use crate::{
    codec::align,
    crypt::FileKey,
    io::File,
    round::{Frame, round_overhead},
    types::{Epoch, Round},
};

/// A journal file.
#[derive(Clone, Debug)]
pub(crate) struct JournalFile {
    pub number: u64,
    pub file: File,
    pub len: u64,
    /// The id of the key that seals the rounds in it; 0 if none does.
    pub key: u32,
    /// The last round that an opening found in it, also one that was given up as torn; 0 for none. As long as the file is there, whoever opens
    /// the store meets that round, and asks for its key unless the manifest says that all rounds up to it are needless.
    pub top: Round,
}

/// The file that rounds go to.
#[derive(Debug)]
pub(crate) struct Active {
    pub at: JournalFile,
    pub epoch: Epoch,
    pub used: u64,
    pub last: Round,
    pub salt: [u8; 16],
    pub key: Option<FileKey>,
    /// Its header says that there may be references in it.
    pub refers: bool,
    /// Rounds were written that no sync covers yet.
    pub unsynced: bool,
    /// When it was begun, on the monotonic clock.
    pub began: u64,
}

/// Bytes a second below which there is time to write a new file full of zeros.
const CALM: u64 = 64 << 20;

/// A file whose rounds are all written.
#[derive(Debug)]
pub(crate) struct Full {
    pub at: JournalFile,
    pub last: Round,
    /// Rounds in it that no sync covers yet.
    pub unsynced: bool,
}

/// The state of a shard's journal, under the shard's lock.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub active: Option<Active>,
    pub spare: Option<JournalFile>,
    pub free: Vec<JournalFile>,
    /// No round in them is needed, and they are not used again: what another key sealed, or none, is not to lie about, and what was cut is too short. They stay
    /// here until their removal is durable.
    pub foreign: Vec<JournalFile>,
    /// The id of the key that seals what is written now; 0 for none.
    pub key: u32,
    /// Shorter files are not made.
    pub file_min: u64,
    pub full: Vec<Full>,
    pub next_number: u64,
    /// The last epoch given.
    pub epoch: Epoch,
    /// The next round's number.
    pub next: Round,
    /// Frames that wait for the next round.
    pub queue: Vec<Frame>,
    pub queued: u64,
    /// There was something that a file with references would have referred to: the next one is such a file.
    pub refers: bool,
    /// The journal was found cut where its log ended, and no file was begun since: the first one says so.
    pub behind_cut: bool,
    /// What rounds refer to that are still needed, and how much that is. It is in memory as what the journal holds is.
    pub referred: VecDeque<(Round, u64)>,
    pub referred_bytes: u64,
    /// Length that the next spare file needs at least, because something larger was refused.
    pub wanted: u64,
    /// The clean end: no more files are prepared.
    pub left: bool,
    /// The last attempt to reserve space failed with this.
    pub no_space: Option<String>,
    /// Bytes written since the last flush began.
    pub unflushed: u64,
    pub sector: u64,
}

/// Whether a frame is let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    Yes,
    /// No file has the room: one must be prepared first.
    NoRoom,
}

impl Journal {
    /// Bytes of files that hold rounds that are still needed, or may get some.
    pub(crate) fn in_use(&self) -> u64 {
        self.full.iter().map(|f| f.at.len).sum::<u64>()
            + self.active.as_ref().map_or(0, |a| a.at.len)
            + self.spare.as_ref().map_or(0, |s| s.len)
    }

    /// Room in the file being written.
    pub(crate) fn active_left(&self) -> u64 {
        self.active.as_ref().map_or(0, |a| a.at.len.saturating_sub(a.used))
    }
    /// Room in the file that waits.
    fn spare_left(&self) -> u64 {
        self.spare.as_ref().map_or(0, |s| s.len.saturating_sub(self.sector))
    }

    /// What the queue and `more` need as one round.
    pub(crate) fn need(&self, more: u64) -> u64 {
        align(self.queued + more + round_overhead(self.sector), self.sector)
    }

    /// Notes what a round refers to.
    pub(crate) fn refer(&mut self, round: Round, bytes: u64) {
        if bytes > 0 {
            self.referred.push_back((round, bytes));
            self.referred_bytes += bytes;
        }
    }

    /// Whether what is in memory for the journal's sake is more than the budget. A journal that refers to nothing is held by its files' lengths alone.
    pub(crate) fn is_over(&self, more: u64, budget: u64) -> bool {
        self.referred_bytes > 0 && self.in_use() + self.referred_bytes + self.queued + more > budget
    }

    /// S-22: `more` joins the queue only if all of it then fits in one file that is there.
    pub(crate) fn admit(&mut self, more: u64, reserve: u64) -> Admission {
        let need = self.need(more);
        let room = self.active_left().max(self.spare_left());
        if need + reserve <= room {
            return Admission::Yes;
        }
        // Only an empty queue tells how large a file this frame needs by itself.
        let alone = align(more + round_overhead(self.sector), self.sector) + reserve + self.sector;
        self.wanted = self.wanted.max(alone);
        Admission::NoRoom
    }

    pub(crate) fn push(&mut self, f: Frame) -> Round {
        self.queued += f.cost();
        self.queue.push(f);
        self.next
    }

    /// The round of the last frame that was let in.
    pub(crate) fn last_given(&self) -> Round {
        if self.queue.is_empty() { Round(self.next.0 - 1) } else { self.next }
    }

    /// Whether a spare file should be prepared now.
    pub(crate) fn wants_spare(&self) -> bool {
        let enough = |len: u64| len >= self.wanted;
        match (&self.spare, &self.active) {
            _ if self.left => false,
            // S-22: what was let in because of the spare file still needs it.
            (Some(_), _) if !self.queue.is_empty() && self.need(0) > self.active_left() => false,
            (Some(s), _) => !enough(s.len) && self.active_left() < self.wanted,
            (None, Some(a)) => a.used > a.at.len / 2 || self.active_left() < self.wanted,
            (None, None) => true,
        }
    }

    /// Whether little enough is written that the next file may be written with zeros first.
    pub(crate) fn is_calm(&self, now: u64) -> bool {
        let slow = |a: &Active| {
            let ns = u128::from(now.saturating_sub(a.began));
            u128::from(a.used) * 1_000_000_000 < u128::from(CALM) * ns
        };
        self.active.as_ref().is_some_and(slow)
    }

    /// Files whose rounds are all before `from` are free (S-23: the caller has made the manifest durable).
    pub(crate) fn release(&mut self, from: Round) {
        while let Some((_, bytes)) = self.referred.pop_front_if(|r| r.0 < from) {
            self.referred_bytes -= bytes;
        }
        let (gone, kept) =
            std::mem::take(&mut self.full).into_iter().partition::<Vec<_>, _>(|f| f.last < from);
        self.full = kept;
        gone.into_iter().for_each(|f| self.give_back(f.at));
    }

    /// S-32: the ids of keys that journal files need which may still be there after a crash, for a manifest whose replay begins at `from`.
    pub(crate) fn keys_needed(&self, from: Round) -> impl Iterator<Item = u32> + '_ {
        let full = self.full.iter().map(|f| (f.last.max(f.at.top), f.at.key));
        let foreign = self.foreign.iter().map(|f| (f.top, f.key));
        full.chain(foreign).filter(move |(top, _)| *top >= from).map(|(_, key)| key).filter(|key| *key != 0)
    }

    /// No round in this file is needed.
    pub(crate) fn give_back(&mut self, at: JournalFile) {
        let fits = at.key == self.key && at.len >= self.file_min;
        if fits { self.free.push(at) } else { self.foreign.push(at) }
    }
}
