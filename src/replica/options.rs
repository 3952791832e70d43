//! Options of the driver and its error.
//!
//! Owns the numbers, each with what breaks when it is too small or too large.

use std::{fmt, sync::Arc};

/// Settings of [`crate::Replicas`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Limits and times of the groups.
    pub raft: Arc<raft::Options>,
    /// Batches of one group that may wait for their commit before the next is taken from the machine. With one the disk idles
    /// while a batch is applied and the next is made; with many, batches are small.
    pub inflight_batches: usize,
    /// Bytes of one group that may wait for their commit before the next batch is taken. Less than `raft.uncommitted_bytes_max`.
    pub inflight_bytes: u64,
    /// Bytes of entries given to a machine at once. Too small: overhead; too large: one group holds its worker.
    pub apply_bytes: u64,
    /// Bytes appended by all groups after which checkpoints are taken and the store is flushed. Less than the store's `flush_bytes`,
    /// or the store flushes first, without checkpoints. A crash costs applying this much again.
    pub checkpoint_bytes: u64,
    /// Bytes appended to a group with several members since its last checkpoint before the next is taken. A member that was away for longer than this much
    /// log cannot catch up by the log alone.
    pub retain_bytes: u64,
    /// Time between heartbeats to each node with which a group is shared, nanoseconds. A third of `grant_ns` or less, so that two may be lost.
    pub beat_ns: u64,
    /// How long a heartbeat's support lasts, nanoseconds; the same on all nodes. Too small: elections when a process hiccups. Too large: that
    /// long without a leader after its node died. More than `raft.drift_ns`, or there are no leases.
    pub grant_ns: u64,
    /// Bytes of states that a node has read out for others and that they have not acknowledged, over all groups. Too small: catching up waits for
    /// round trips. Too large: memory, and a link full of it.
    pub transfer_bytes: u64,
    /// Bytes of one state that its receiver lets be under way; the same trade. At least 128 KiB.
    pub transfer_window: u64,
    /// States that a node receives at once; more wait for their turn.
    pub transfers_at_once: usize,
    /// How long a journal round may take before this node stops to ask for support and to lead, nanoseconds. Too small: a busy disk costs elections. Too
    /// large: what is led here stands for that long when a disk hangs.
    pub stuck_ns: u64,
    /// Groups that campaign at a time, where a node's end or a timer is the reason. Too small: with many groups some are long without a leader. Too large:
    /// their votes crowd out everything else, and what is asked is answered when it was asked anew.
    pub elections_at_once: usize,
    /// Pause before a write that the store refused for lack of room is tried again, nanoseconds.
    pub retry_ns: u64,
}

/// How long support lasts, nanoseconds: that long, and an election, a group is without a leader when a node dies. A process that sleeps for longer
/// loses what it leads.
const GRANT: u64 = 700_000_000;
/// The shortest election timeout, nanoseconds.
const ELECTION: u64 = 300_000_000;

impl Default for Options {
    fn default() -> Options {
        let raft = raft::Options {
            election_ns: ELECTION,
            resend_ns: ELECTION / 3,
            // Clocks of two machines run apart by less than a twentieth.
            drift_ns: GRANT / 20,
            transfer_ns: ELECTION * 2,
            ..raft::Options::default()
        };
        Options {
            raft: Arc::new(raft),
            inflight_batches: 2,
            inflight_bytes: 8 << 20,
            apply_bytes: 1 << 20,
            checkpoint_bytes: 16 << 20,
            retain_bytes: 64 << 20,
            beat_ns: GRANT / 4,
            grant_ns: GRANT,
            transfer_bytes: 8 << 20,
            transfer_window: 1 << 20,
            transfers_at_once: 4,
            stuck_ns: 5_000_000_000,
            elections_at_once: 256,
            retry_ns: 5_000_000,
        }
    }
}

/// Whether others have a group, where this node takes itself for its only member and has lost a part of its log: the entry that took in others may have been
/// in that part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Others {
    /// That is to be found out first: [`Error::WhoElse`].
    Unknown,
    /// Nobody else ever had a say in it.
    None,
    /// Others have a say in it: this node follows them.
    Some,
}

/// Why a group was not made, opened or removed.
#[derive(Debug)]
pub enum Error {
    /// A part of its log is lost here, and it is to be found out first whether others have the group ([`Others`]). At this term and index nobody else had it.
    WhoElse(raft::Term, raft::LogIndex),
    /// The store's answer.
    Store(store::Error),
    /// There is a group with this id in the driver already.
    Open(raft::GroupId),
    /// What is on disk is no replica that may take part; nothing was changed.
    Unfit(String),
    /// The driver is closed.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Store(e) => e.fmt(f),
            Error::WhoElse(..) => {
                f.write_str("a part of its log is lost here, and it is not known who else has it")
            }
            Error::Open(g) => write!(f, "group {} is open already", g.0),
            Error::Unfit(s) => f.write_str(s),
            Error::Closed => f.write_str("closed"),
        }
    }
}
impl std::error::Error for Error {}

impl From<store::Error> for Error {
    fn from(e: store::Error) -> Error {
        Error::Store(e)
    }
}
