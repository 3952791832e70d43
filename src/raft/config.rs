//! Options of a group, each with what breaks when it is too small or too large.
//!
//! Owns the numbers and their relations. Does not decide anything.

/// Limits and times of a group. Shared by all groups of a kind behind an `Arc`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Options {
    /// Least time without a leader before a pre-vote, nanoseconds; the real time is drawn from once to twice this. Also
    /// the time in which a leader without a quorum gives up. Too small: elections during a slow sync or a
    /// scheduling hiccup. Too large: a group without node-pair support is down for as long.
    pub election_ns: u64,
    /// How long a leader waits before it repeats what was not answered, nanoseconds; and the pace of heartbeats to peers whose
    /// node does not support ours. Too small: needless traffic on a slow link. Too large: a lost message costs that long. Less than
    /// a third of `election_ns`.
    pub resend_ns: u64,
    /// Greatest sum of entry costs in one append, bytes (one entry may be larger). Too small: a message for every entry. Too
    /// large: consensus waits behind bulk on the link.
    pub message_bytes_max: u64,
    /// Appends in flight to one follower. Too small: throughput is one window a round trip. Too large: a slow follower
    /// holds that many messages.
    pub inflight_count_max: usize,
    /// Bytes in flight to one follower, same trade.
    pub inflight_bytes_max: u64,
    /// Bytes proposed and not committed before proposals are refused. Too small: no pipelining. Too large: memory without a
    /// quorum, and a long tail for the next leader to settle.
    pub uncommitted_bytes_max: u64,
    /// Bytes in the log and not applied before proposals are refused. Too small: a hiccup in apply refuses clients. Too
    /// large: acknowledgements wait behind a long backlog.
    pub unapplied_bytes_max: u64,
    /// Bytes handed out in one apply. Too small: overhead per batch. Too large: one group holds its worker.
    pub apply_bytes_max: u64,
    /// Entries handed out in one apply when they must be read from disk.
    pub apply_entries_max: u64,
    /// Bytes of applied entries that a leader keeps for followers that lag. Too small: loads from disk. Too large: memory.
    pub cache_bytes_max: u64,
    /// Reads that may wait in one group. Beyond it they are refused.
    pub reads_max: usize,
    /// Nanoseconds by which clocks of two nodes may drift apart during the longest grant of support; taken off every lease. Too
    /// small: a stale read under drift. As large as the grant: no lease at all, ReadIndex serves.
    pub drift_ns: u64,
    /// How many entries a learner may lag when it is made a voter. Too small: refused under load. Too large:
    /// the new quorum waits for it.
    pub promote_lag_max: u64,
    /// How long proposals are refused for a transfer before it is given up, nanoseconds.
    pub transfer_ns: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            election_ns: 1_000_000_000,
            resend_ns: 200_000_000,
            message_bytes_max: 512 << 10,
            inflight_count_max: 256,
            inflight_bytes_max: 8 << 20,
            uncommitted_bytes_max: 32 << 20,
            unapplied_bytes_max: 64 << 20,
            apply_bytes_max: 1 << 20,
            apply_entries_max: 1024,
            cache_bytes_max: 4 << 20,
            reads_max: 16 << 10,
            drift_ns: 100_000_000,
            promote_lag_max: 1024,
            transfer_ns: 1_000_000_000,
        }
    }
}

/// An option that cannot work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadOption(
    /// What is wrong, in words.
    pub &'static str,
);

impl Options {
    /// Checks the relations among the numbers.
    ///
    /// # Errors
    /// Names the first relation that does not hold.
    pub fn check(&self) -> Result<(), BadOption> {
        let rules = [
            (self.election_ns > 0, "election_ns must be positive"),
            (self.resend_ns > 0, "resend_ns must be positive"),
            (self.resend_ns <= self.election_ns / 3, "resend_ns must be at most a third of election_ns"),
            (self.message_bytes_max > 0, "message_bytes_max must be positive"),
            (self.inflight_count_max > 0, "inflight_count_max must be positive"),
            (self.inflight_bytes_max > 0, "inflight_bytes_max must be positive"),
            (self.uncommitted_bytes_max > 0, "uncommitted_bytes_max must be positive"),
            (self.unapplied_bytes_max > 0, "unapplied_bytes_max must be positive"),
            (self.apply_bytes_max > 0, "apply_bytes_max must be positive"),
            (self.apply_entries_max > 0, "apply_entries_max must be positive"),
            (self.reads_max > 0, "reads_max must be positive"),
            (self.transfer_ns > 0, "transfer_ns must be positive"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(BadOption(what)),
            None => Ok(()),
        }
    }
}
