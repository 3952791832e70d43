//! Known bugs, to be switched on in tests: a harness that finds nothing proves nothing.
//!
//! Owns the list. Is compiled only for tests and under the feature `mutants`.

/// A bug that can be planted. Each names the invariant that it breaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mutant {
    /// an entry of an older term is committed by counting.
    CommitPriorTerm,
    /// a follower acknowledges before its write.
    AckBeforeDurable,
    /// an answer to an append without entries claims what was received, not what is durable.
    EmptyAppendClaimsReceived,
    /// a leader counts itself before its write.
    LeaderCountsUnsynced,
    /// a single voter commits before its write.
    SingleVoterUnsynced,
    /// a completion proves its index, whatever has happened since.
    StaleCompletion,
    /// the answer to a vote request does not wait for the write.
    VoteBeforeDurable,
    /// the vote is not written at all.
    VoteNotPersisted,
    /// a new term is written only together with a vote.
    TermNotPersisted,
    /// a membership counts from commit on, not from append.
    MembersAtCommit,
    /// a change may begin before the one before is committed.
    ChangesOverlap,
    /// a change may begin without a commit of the own term.
    ChangeWithoutOwnCommit,
    /// peers that were removed still count.
    RemovedStillCount,
    /// only the new half of a joint membership counts.
    JointCountsOneHalf,
    /// incarnations are not compared.
    IncarnationIgnored,
    /// the base takes the newest membership, not that of its index.
    SnapshotNewestMembers,
    /// after an install the log begins one too early.
    SnapshotOffByOne,
    /// the log goes when the snapshot is offered, not when it is installed.
    LogDroppedForOffer,
    /// if the first entry of an append is there, the rest is skipped, and acknowledged.
    AppendSkipsRest,
    /// a truncation does not reach the disk.
    TruncateNotWritten,
    /// a leader does not step back on a conflict.
    ConflictNeverBacksUp,
    /// a replica with a hole campaigns and claims all of its log.
    DamagedLeads,
    /// a replica with a hole acknowledges it.
    HoleAcknowledged,
    /// a lease is measured with the time of the last message.
    LeaseWithOldClock,
    /// votes are given in spite of a promise.
    PromiseIgnored,
    /// a voter votes twice in a term.
    VotesTwice,
    /// a voter does not compare logs.
    VotesForShortLog,
    /// a read is answered without asking a quorum.
    ReadWithoutQuorum,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::CommitPriorTerm,
        Self::AckBeforeDurable,
        Self::EmptyAppendClaimsReceived,
        Self::LeaderCountsUnsynced,
        Self::SingleVoterUnsynced,
        Self::StaleCompletion,
        Self::VoteBeforeDurable,
        Self::VoteNotPersisted,
        Self::TermNotPersisted,
        Self::MembersAtCommit,
        Self::ChangesOverlap,
        Self::ChangeWithoutOwnCommit,
        Self::RemovedStillCount,
        Self::JointCountsOneHalf,
        Self::IncarnationIgnored,
        Self::SnapshotNewestMembers,
        Self::SnapshotOffByOne,
        Self::LogDroppedForOffer,
        Self::AppendSkipsRest,
        Self::TruncateNotWritten,
        Self::ConflictNeverBacksUp,
        Self::DamagedLeads,
        Self::HoleAcknowledged,
        Self::LeaseWithOldClock,
        Self::PromiseIgnored,
        Self::VotesTwice,
        Self::VotesForShortLog,
        Self::ReadWithoutQuorum,
    ];
}
