//! What replicas say to each other. Plain data: framing and links are the driver's.
//!
//! Owns the shapes. Does not decide when one may leave: that is `core.rs`.

use crate::types::{Chain, Entry, GroupId, LogIndex, NodeId, SnapshotMeta, Term};

/// One message of one group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    /// Its group.
    pub group: GroupId,
    /// Who sends it.
    pub from: NodeId,
    /// For whom; another incarnation of the id drops it.
    pub to: NodeId,
    /// The sender's term. In a pre-vote and its grant: the term that would be campaigned for.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Body {
    /// Would you vote for me? Raises no term.
    PreVote {
        /// End of the candidate's log.
        last: LogIndex,
        /// Term of that entry.
        last_term: Term,
    },
    /// Answer to a pre-vote.
    PreVoteReply {
        /// Whether the answer is yes.
        granted: bool,
    },
    /// Vote for me.
    Vote {
        /// End of the candidate's durable log.
        last: LogIndex,
        /// Term of that entry.
        last_term: Term,
        /// The leader itself asked for this election: promises to it do not count.
        transfer: bool,
    },
    /// Answer to a vote request.
    VoteReply {
        /// Whether the vote was given.
        granted: bool,
    },
    /// Entries after `prev`.
    Append(Append),
    /// The follower's log agrees.
    AppendOk {
        /// Up to where it agrees with the leader's.
        accepted: LogIndex,
        /// Up to where it is durable and intact, too.
        durable: LogIndex,
        /// What the follower knows to be committed.
        commit: LogIndex,
        /// The first entry of a hole that the leader should send again.
        repair_from: Option<LogIndex>,
        /// Latest read round seen.
        round: u64,
        /// Epoch of the follower's promise to the leader's node; 0 for none.
        epoch: u64,
    },
    /// The follower's log does not have `prev`.
    AppendReject {
        /// The index that was asked for.
        prev: LogIndex,
        /// The greatest index at which the logs may agree.
        hint: LogIndex,
        /// Term of the follower's entry there.
        hint_term: Term,
        /// As in [`Body::AppendOk`].
        round: u64,
        /// As in [`Body::AppendOk`].
        epoch: u64,
    },
    /// The leader is there; says nothing about the log but `commit`.
    Beat {
        /// What is committed and known to be in the follower's log.
        commit: LogIndex,
        /// Number of the read round that wants to be confirmed.
        round: u64,
    },
    /// Answer to a beat.
    BeatOk {
        /// What the follower knows to be committed.
        commit: LogIndex,
        /// Round of the beat.
        round: u64,
        /// As in [`Body::AppendOk`].
        epoch: u64,
    },
    /// The log that you need is gone: fetch the state from this node.
    Snapshot(Box<SnapshotMeta>),
    /// The fetch ended without success. Success is an [`Body::AppendOk`].
    SnapshotFailed {
        /// Index of the snapshot.
        index: LogIndex,
    },
    /// Campaign at once; the leader hands over.
    TimeoutNow,
    /// I do not lead any more in this term.
    Resign,
    /// Your term is over: the sender's is newer. The whole answer to a message of an old term.
    Behind,
    /// A follower asks up to where a read has to wait.
    ReadIndex {
        /// The asker's name for it.
        id: u64,
    },
    /// Answer to [`Body::ReadIndex`]; `None`: not by this node.
    ReadIndexReply {
        /// The asker's name for it.
        id: u64,
        /// Apply up to here, then read.
        index: Option<LogIndex>,
    },
    /// A replica with a hole and without a leader asks a peer.
    RepairAsk {
        /// First entry of the hole.
        first: LogIndex,
        /// Term that the asker's log has there.
        term: Term,
        /// Last entry of the hole.
        last: LogIndex,
    },
    /// Entries for a hole.
    RepairGive(Vec<Entry>),
}

/// Entries after `prev`; see [`Body::Append`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Append {
    /// The entry before the first.
    pub prev: LogIndex,
    /// Its term.
    pub prev_term: Term,
    /// Its chain, if the sender has it at hand.
    pub prev_chain: Option<Chain>,
    /// The entries; may be empty.
    pub entries: Vec<Entry>,
    /// What the leader knows to be committed.
    pub commit: LogIndex,
    /// Number of the read round that wants to be confirmed.
    pub round: u64,
}
