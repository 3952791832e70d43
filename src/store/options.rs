//! The store's settings, each with what goes wrong when it is too small or too large.

use std::time::Duration;

use crate::{crypt::Keys, segment::Counting};

/// Settings of a store. The defaults are for production.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many shards a new store gets; an existing one keeps its own. More shards sync in parallel, and each has its own
    /// journal thread and files.
    pub shards: u32,
    /// Bytes that a journal round is padded to. Smaller than the device's sector, and a torn write can reach back into an
    /// acknowledged round; larger, and small rounds waste space. Power of two, at least 512.
    pub sector: u64,
    /// Bytes of the first journal file; later ones double up to `journal_file_max`. Small files keep idle servers small.
    pub journal_file_min: u64,
    /// Bytes up to which journal files grow of themselves; a larger one is made when something needs it. Too large, and a busy
    /// journal goes round through more memory of the page cache than it has to.
    pub journal_file_usual: u64,
    /// Bytes of a journal file at most. No round, and so no entry, can be larger than one file.
    pub journal_file_max: u64,
    /// Bytes of all journal files in use; beyond it appends answer [`crate::Error::Busy`] until a flush has freed some. At
    /// least four times `journal_file_max`, or tails that are not applied yet leave no room to move them.
    pub journal_budget: u64,
    /// Journal bytes after which a flush begins: this much is replayed after a crash. Too small, and streams break into
    /// many small pieces.
    pub flush_bytes: u64,
    /// Room in the journal that only control records may use, so that a full store can still delete.
    pub reserve: u64,
    /// Tail bytes of a group from which on its piece gets a file of its own.
    pub own_file_bytes: u64,
    /// Pieces smaller than this are merged with their neighbours below the checkpoint.
    pub small_piece: u64,
    /// How many small neighbours make a merge worth its writes.
    pub merge_at: usize,
    /// A piece is rewritten when less than this many percent of its messages are live.
    pub rewrite_below_percent: u64,
    /// Raw bytes of a block: what a read of one message loads and checks.
    pub block: usize,
    /// Bytes of memory for footers.
    pub footer_cache: usize,
    /// Bytes of memory for blocks; large ones, which go through it in order as a rule, have a quarter as much besides.
    pub block_cache: usize,
    /// Messages of a group from which on its subject dictionary is kept at a clean end. Smaller ones are built from footers in no time.
    pub subjects_saved_min: u64,
    /// What a message counts for in a stream's bytes, and in those of a state under way.
    pub counting: Counting,
    /// The same in a memory group, as long as it stays there.
    pub memory_counting: Counting,
    /// Keys of encryption at rest; none by default. The first one seals.
    pub keys: Keys,
    /// Bytes of pieces that a flush seals anew, if they are sealed with an earlier key or not at all; at least one piece. Too few, and an
    /// earlier key stays in use for long; too many, and flushes take longer.
    pub reseal_bytes: u64,
    /// How long the background work rests between two flushes that seal pieces anew.
    pub reseal_pause: Duration,
    /// Bytes of messages, one with another, from which on the journal refers to an entry that stands in a segment, instead of holding it too. Too small, and
    /// what is soon deleted costs index footers; too large, and large messages are written twice. `usize::MAX` turns it off. What is sealed or compressed is not
    /// referred to.
    pub refer_min: usize,
    /// Bytes from which on an entry is referred to also if its messages are smaller than that, down to [`refer_message_min`](Self::refer_message_min): what is
    /// published in bulk is written once. Too small, and rounds of little are two writes instead of one; `u64::MAX` turns it off.
    pub refer_entry_min: u64,
    /// Bytes of such messages, one with another. Too small, and laying them out with the round costs more than the second write.
    pub refer_message_min: u64,
    /// The same as [`refer_min`](Self::refer_min) for all of a round that somebody waits to be synced: a reference costs one sync more.
    pub refer_synced_min: u64,
    /// Bytes after which a piece that the journal refers to ends and another one begins.
    pub early_max: u64,
    /// Whether new pieces are compressed, also those of groups that did not ask for it ([`crate::Group::set_compress`]).
    pub compress: bool,
    /// How long what was appended with [`crate::Sync::Relaxed`] may stay unsynced; `None` leaves it to the next append that is
    /// synced and to [`crate::Store::sync`]. Too short, and relaxed streams cost syncs again; too long, and a power failure
    /// takes more back. Kept by the background work of [`crate::Store::spawn`].
    pub sync_interval: Option<Duration>,
    /// How long opening waits for another process to give the directory free. Too short, and a restart may meet the end of
    /// the process before it.
    pub lock_wait: Duration,
    /// Bytes a second that the background scrub reads of each shard; 0 turns it off. Too slow, and damage is found when it is
    /// needed; too fast, and it takes the disk from others.
    pub scrub_rate: u64,
    /// How long the scrub rests between two passes.
    pub scrub_pause: Duration,
    /// Whether each journal has a thread of its own.
    pub threads: bool,
    /// Faults of ours, for the proof that the simulation finds them.
    #[cfg(any(test, feature = "l1"))]
    pub mutant: Option<Mutant>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            shards: 1,
            sector: 4096,
            journal_file_min: 4 << 20,
            journal_file_usual: 16 << 20,
            journal_file_max: 64 << 20,
            journal_budget: 256 << 20,
            flush_bytes: 32 << 20,
            reserve: 64 << 10,
            own_file_bytes: 1 << 20,
            small_piece: 256 << 10,
            merge_at: 8,
            rewrite_below_percent: 45,
            block: crate::segment::BLOCK_TARGET,
            footer_cache: 64 << 20,
            block_cache: 64 << 20,
            subjects_saved_min: 10_000,
            counting: Counting::default(),
            memory_counting: Counting::MEMORY,
            keys: Keys::default(),
            reseal_bytes: 8 << 20,
            reseal_pause: Duration::from_secs(2),
            refer_min: 16 << 10,
            refer_entry_min: 64 << 10,
            refer_message_min: 512,
            refer_synced_min: 1 << 20,
            early_max: 16 << 20,
            compress: false,
            sync_interval: Some(Duration::from_secs(120)),
            lock_wait: Duration::from_secs(10),
            scrub_rate: 2 << 20,
            scrub_pause: Duration::from_secs(24 * 3600),
            threads: true,
            #[cfg(any(test, feature = "l1"))]
            mutant: None,
        }
    }
}

/// A known bug, planted one at a time.
#[cfg(any(test, feature = "l1"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// Waiters hear of a round before its sync.
    ReplyBeforeSync,
    /// New segment files are not made durable in their directory.
    NoDirectorySync,
    /// Recovery ends the log at the first bad round, whoever vouches for it.
    TruncateOnDamage,
    /// The epoch of rounds is not compared, so what a recycled file held before looks valid.
    StaleRecycledRound,
    /// A rewrite keeps the old footer.
    IndexNotRebuilt,
    /// The journal is freed before the manifest's second copy, and nothing tells the first from it.
    FreeBeforeManifest,
    /// Segment files are published without a sync.
    NoSegmentSync,
    /// A round is padded to nothing, so that the next one rewrites its last sector.
    NoPadding,
    /// The manifest does not bring the earlier keys that are still needed.
    KeysForgotten,
    /// A journal file vouches for the rounds before it although they were not synced.
    UnsyncedVouched,
    /// A round is called synced although the segments that it refers to are not.
    ReferenceUnsynced,
    /// A segment file is removed although a round names it that an opening may still read.
    ReferenceRemoved,
}

#[cfg(any(test, feature = "l1"))]
impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 12] = [
        Mutant::ReplyBeforeSync,
        Mutant::NoDirectorySync,
        Mutant::TruncateOnDamage,
        Mutant::StaleRecycledRound,
        Mutant::IndexNotRebuilt,
        Mutant::FreeBeforeManifest,
        Mutant::NoSegmentSync,
        Mutant::NoPadding,
        Mutant::KeysForgotten,
        Mutant::UnsyncedVouched,
        Mutant::ReferenceUnsynced,
        Mutant::ReferenceRemoved,
    ];
}

impl Options {
    /// What a message counts for in a group.
    pub(crate) fn counting_of(&self, memory: bool) -> Counting {
        if memory { self.memory_counting } else { self.counting }
    }

    #[cfg(any(test, feature = "l1"))]
    pub(crate) fn is(&self, m: Mutant) -> bool {
        self.mutant == Some(m)
    }
}

/// True in a build that plants bugs, when this one is planted; otherwise a constant.
#[cfg(any(test, feature = "l1"))]
macro_rules! mutant {
    ($opts:expr, $m:ident) => {
        $opts.is($crate::options::Mutant::$m)
    };
}
#[cfg(not(any(test, feature = "l1")))]
macro_rules! mutant {
    ($opts:expr, $m:ident) => {{
        let _ = &$opts;
        false
    }};
}
pub(crate) use mutant;
