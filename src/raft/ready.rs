//! What goes in and what comes out of a step.
//!
//! Owns the events, the work and the completions. Does not carry work out.
//!
//! The driver's part: writes of one group become durable in the order given, and a completion implies those before it
//! messages may leave at once, a write's replies after it; one apply is out at a time. An apply whose entries turn out to be
//! damaged waits until they are patched. If a state is installed while an apply is out, what it covers is not applied, and
//! [`Event::Applied`] is due only for an apply that goes beyond it.

use bytes::Bytes;

use crate::members::{Change, ChangeError};
use crate::message::Message;
use crate::types::{Chain, Entry, EntryKind, GroupId, HardState, LogIndex, NodeId, SnapshotMeta, Term};

/// Something to put into the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Proposal {
    /// [`EntryKind::Normal`] or [`EntryKind::Control`].
    pub kind: EntryKind,
    /// crc32c of the payload.
    pub digest: u32,
    /// The bytes.
    pub payload: Bytes,
}

/// Names a write, and what the log must end with once it is done. A driver gives it back as its store sees it, so that a
/// truncation that failed in silence is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token {
    /// Counts up within the life of a core.
    pub seq: u64,
    /// Term of the node when it was issued.
    pub term: Term,
    /// Last index of the log then.
    pub index: LogIndex,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A message came.
    Message(Message),
    /// [`crate::Core::deadline`] is over.
    Tick,
    /// A batch to replicate; refusals are [`Note::Refused`]. See also [`crate::Core::propose`].
    Propose(Vec<Proposal>),
    /// Another membership; refusals are [`Note::ChangeRefused`].
    Change(Change),
    /// Hand leadership to this voter.
    Transfer(NodeId),
    /// A read wants an index; the name comes back in [`Read`].
    Read(u64),
    /// A write is durable.
    Written(Token),
    /// A write failed: the group stops.
    WriteFailed(Token),
    /// All up to this index is applied.
    Applied(LogIndex),
    /// Answer to a [`Load`].
    Loaded(Loaded),
    /// The state up to this index is durable: the log below is state now. `chain` as stored with the entry there.
    Compacted {
        /// New base; at most what is applied and durable.
        index: LogIndex,
        /// Its chain.
        chain: Chain,
    },
    /// The state that an [`Install`] asked for (or a newer one) is durable on this node.
    Installed(Box<SnapshotMeta>),
    /// It could not be had. The log stays.
    InstallFailed {
        /// Index of the snapshot.
        index: LogIndex,
    },
    /// This node's support for a node ended. Delivered to each group that the node leads, in the driver's order and at its
    /// pace; it must be delivered, since a group that relies on support has no deadline. Late is harmless.
    Withdrawn(NodeId),
    /// A node's heartbeat excepts this group: it is ill there, or the node does not lead it in this term any more.
    Excepted(NodeId, Term),
    /// The support of a node for this one ended.
    SupportLost(NodeId),
    /// A node can be reached again, or gives support in a new epoch.
    Reachable(NodeId),
    /// The link to a node broke: what was under way is lost.
    Unreachable(NodeId),
    /// The group is ill on this node though the node is well (stuck apply, slow disk), or well again.
    Ill(bool),
    /// Payloads in this range of the log cannot be read.
    Damaged {
        /// First.
        first: LogIndex,
        /// Last.
        last: LogIndex,
    },
    /// A replica that was distrusted ([`crate::HardState::doubt`]) has applied everything that anybody was told of before it began to ask:
    /// the answer to a read that began in this life.
    Trusted,
    /// Campaign without waiting, unless a promise binds; for operators and tests.
    Campaign,
}

/// What must become durable together.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Write {
    /// Its group.
    pub group: GroupId,
    /// Comes back in [`Event::Written`].
    pub token: Token,
    /// Term, vote and commit, if changed.
    pub hard: Option<HardState>,
    /// The log now stands on this; entries at and below it go. Those above go too if `truncate` says so.
    pub reset: Option<Box<SnapshotMeta>>,
    /// Entries from here on go before `entries` come.
    pub truncate: Option<LogIndex>,
    /// Entries for holes, in place: nothing else moves. The store compares them with the identity that it kept; one that is another
    /// is a failed write, since the replies claim it.
    pub patch: Vec<Entry>,
    /// New entries at the end.
    pub entries: Vec<Entry>,
    /// Messages that may leave once all this is durable.
    pub replies: Vec<Message>,
}

/// Committed entries for the state machine, in order and without gaps.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Apply {
    /// Its group.
    pub group: GroupId,
    /// First index.
    pub first: LogIndex,
    /// Last index; comes back in [`Event::Applied`].
    pub last: LogIndex,
    /// The entries, or empty: then they are to be read from disk.
    pub entries: Vec<Entry>,
}

/// Entries to be read from disk, for a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Load {
    /// Its group.
    pub group: GroupId,
    /// For whom.
    pub to: NodeId,
    /// Whether they fill a hole of a peer's rather than go to a follower.
    pub repair: bool,
    /// First index. The chain of the entry before is wanted too.
    pub first: LogIndex,
    /// Last index that may be read.
    pub last: LogIndex,
    /// Stop after this many bytes, but read at least one.
    pub bytes_max: u64,
}

/// What a [`Load`] found.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Loaded {
    /// As in the load.
    pub to: NodeId,
    /// As in the load.
    pub repair: bool,
    /// As in the load.
    pub first: LogIndex,
    /// Chain of the entry before `first`, if it is there.
    pub prev_chain: Option<Chain>,
    /// Consecutive entries from `first`; empty if they could not be read.
    pub entries: Vec<Entry>,
}

/// The state of a node to be fetched and made durable, then [`Event::Installed`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Install {
    /// Its group.
    pub group: GroupId,
    /// From which node.
    pub from: NodeId,
    /// What it is at least.
    pub meta: SnapshotMeta,
}

/// An answer to a read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Read {
    /// Its group.
    pub group: GroupId,
    /// As in [`Event::Read`].
    pub id: u64,
    /// Serve the read when applied up to here; `None`: this node cannot say, ask elsewhere.
    pub index: Option<LogIndex>,
    /// Whether a lease gave the answer.
    pub lease: bool,
}

/// Why a proposal was not taken. Nothing of the batch was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// Try the leader, if known.
    NotLeader(Option<NodeId>),
    /// A new leader has not applied its log yet. Try again.
    Settling,
    /// Leadership is being handed over. Try again.
    Transferring,
    /// Too many bytes wait for a quorum.
    Uncommitted,
    /// Too many bytes wait to be applied.
    Unapplied,
    /// Too many reads wait for a round.
    Reads,
    /// A kind that only the core makes, or an empty batch.
    BadProposal,
    /// The group is stopped on this node.
    Halted,
}

/// Why a change of membership was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChangeRefusal {
    /// As for a proposal.
    Refused(Refusal),
    /// The change before is not finished.
    InProgress,
    /// The leader has not committed an entry of its own term.
    Settling,
    /// A learner that is to vote lags too far.
    NotCaughtUp(NodeId),
    /// The membership itself is not allowed.
    Bad(ChangeError),
}

/// Why a group stopped on this node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// two different entries with the same index and term.
    Diverged(LogIndex),
    /// a leader wants to replace a committed entry.
    CommittedConflict(LogIndex),
    /// two leaders in one term.
    TwoLeaders(NodeId),
    /// A membership entry cannot be read.
    BadMembers(LogIndex),
    /// A write failed.
    WriteFailed,
    /// The store ends elsewhere than the log after a write.
    StoreDisagrees(LogIndex),
}

impl Fault {
    /// A leader's log is another one where both should be the same.
    #[must_use]
    pub fn is_contradiction(self) -> bool {
        matches!(self, Fault::Diverged(_) | Fault::CommittedConflict(_))
    }
}

/// Something worth a metric, a log line or a health report.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Note {
    /// A role was taken up in this term.
    Leads(Term),
    /// A campaign began.
    Campaigns(Term),
    /// The node follows, perhaps nobody.
    Follows(Term, Option<NodeId>),
    /// A leader gave up for lack of a quorum.
    QuorumLost(Term),
    /// See [`Event::Propose`].
    Refused(Refusal),
    /// See [`Event::Change`].
    ChangeRefused(ChangeRefusal),
    /// A membership came into force on this node (it is at this index).
    Members(LogIndex),
    /// A completion that names no write in flight.
    StaleWrite(Token),
    /// A peer has lost what it said was durable. It has to come back as a new incarnation.
    PeerRegressed(NodeId),
    /// The log has a hole here.
    Hole(LogIndex, LogIndex),
    /// A hole was filled; durable with the write of this step.
    Patched(LogIndex),
    /// A message that cannot come from a correct peer.
    Malformed(NodeId),
    /// The group stopped.
    Halted(Fault),
}

/// All that a step wants done. Reused: [`Ready::clear`] keeps the capacity.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ready {
    /// May leave now.
    pub messages: Vec<Message>,
    /// In order.
    pub writes: Vec<Write>,
    /// At most one a group.
    pub applies: Vec<Apply>,
    /// In any order.
    pub loads: Vec<Load>,
    /// At most one a group.
    pub installs: Vec<Install>,
    /// In any order.
    pub reads: Vec<Read>,
    /// For the record.
    pub notes: Vec<(GroupId, Note)>,
}

impl Ready {
    /// Forgets the work, keeps the memory.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.writes.clear();
        self.applies.clear();
        self.loads.clear();
        self.installs.clear();
        self.reads.clear();
        self.notes.clear();
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.writes.is_empty()
            && self.applies.is_empty()
            && self.loads.is_empty()
            && self.installs.is_empty()
            && self.reads.is_empty()
            && self.notes.is_empty()
    }
}
