//! The words of consensus: terms, indexes, nodes, entries and what is kept of them on disk.
//!
//! Owns the newtypes and the chain over entries. Does not know any role or rule.
//! Invariant R-2 lives on [`Chain`]: it names an entry together with everything before it.

use std::fmt;

use bytes::Bytes;

use crate::members::Members;

/// A leader's reign. Term 0 is before the first election.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Term(pub u64);

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A position in a group's log. The first entry has index 1; 0 is before the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
    /// The index before this one; 0 stays 0.
    #[must_use]
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// Names one raft group on all of its nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct GroupId(pub u64);

/// A node's id and how often its disk started empty. A wiped disk is another node: the pair is never used again.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize,
)]
pub struct NodeId {
    /// Stable name of the machine.
    pub id: u64,
    /// Raised by one each time the machine comes back without its disk.
    pub incarnation: u32,
}

impl NodeId {
    /// A node's id with its incarnation.
    #[must_use]
    pub const fn new(id: u64, incarnation: u32) -> Self {
        Self { id, incarnation }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.incarnation == 0 {
            write!(f, "n{}", self.id)
        } else {
            write!(f, "n{}.{}", self.id, self.incarnation)
        }
    }
}

/// A digest of an entry and of everything before it. Not a defence against malice: it finds accidents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Chain(pub u64);

impl Chain {
    /// The chain after one more entry.
    #[must_use]
    pub fn link(self, index: LogIndex, term: Term, kind: EntryKind, digest: u32) -> Self {
        let mut h = self.0 ^ 0x9e37_79b9_7f4a_7c15;
        for word in [index.0, term.0, ((kind as u64) << 32) | u64::from(digest)] {
            h = (h ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
            h ^= h >> 32;
        }
        Self(h)
    }
}

/// What an entry is for. Numbers are on disk and on the wire: append only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// A new leader's first entry; it carries nothing.
    Empty = 0,
    /// The payload belongs to the state machine.
    Normal = 1,
    /// The payload is an encoded [`Members`].
    Config = 2,
    /// The payload belongs to the layer above but is no message: `rules_version` and the like. Opaque here.
    Control = 3,
}

impl EntryKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Empty,
            1 => Self::Normal,
            2 => Self::Config,
            3 => Self::Control,
            _ => return None,
        })
    }
}

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Where it stands.
    pub index: LogIndex,
    /// Term of the leader that made it.
    pub term: Term,
    /// Chain up to and with this entry.
    pub chain: Chain,
    /// What it is for.
    pub kind: EntryKind,
    /// crc32c of the payload, computed once by the proposer. The core never reads a payload to check it.
    pub digest: u32,
    /// Opaque but for [`EntryKind::Config`].
    pub payload: Bytes,
}

/// Bytes that an entry counts for beyond its payload.
pub(crate) const ENTRY_OVERHEAD: u64 = 64;

impl Entry {
    /// The entry that follows a log which ends with `before`.
    #[must_use]
    pub fn after(
        before: Chain,
        index: LogIndex,
        term: Term,
        kind: EntryKind,
        digest: u32,
        payload: Bytes,
    ) -> Self {
        Self { index, term, chain: before.link(index, term, kind, digest), kind, digest, payload }
    }

    /// What it counts for in windows and limits, in bytes.
    #[must_use]
    pub fn cost(&self) -> u64 {
        self.payload.len() as u64 + ENTRY_OVERHEAD
    }

    /// Whether it continues a log that ends with `before`.
    #[must_use]
    pub fn follows(&self, before: Chain) -> bool {
        before.link(self.index, self.term, self.kind, self.digest) == self.chain
    }
}

/// What has to survive a crash besides the log. `commit` is a hint: it may lag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HardState {
    /// Newest term seen.
    pub term: Term,
    /// Whom this node voted for in `term`.
    pub vote: Option<NodeId>,
    /// An index that was committed when this was written.
    pub commit: LogIndex,
    /// The disk has lost an end of the log, or this state, and nobody knows how much was in it: what this replica acknowledged or voted for
    /// may be gone. Until [`crate::Event::Trusted`], in this life or a later one, it follows, but neither votes nor campaigns: whoever
    /// leads meanwhile was chosen by others, of whom one has each entry that it may have forgotten. A driver that finds such a loss makes this
    /// durable before it changes anything else.
    pub doubt: bool,
}

/// What a log stands on: the state up to `index`, and the membership in force there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotMeta {
    /// Last index that the state contains.
    pub index: LogIndex,
    /// Term of the entry at `index`.
    pub term: Term,
    /// Chain up to and with `index`.
    pub chain: Chain,
    /// Membership as of `index`.
    pub members: Members,
}

impl SnapshotMeta {
    /// What the first members of a group start from. Index 1, so that it is newer than a newcomer's nothing.
    #[must_use]
    pub fn bootstrap(group: GroupId, members: Members) -> Self {
        Self {
            index: LogIndex(1),
            term: Term(1),
            chain: Chain(group.0).link(LogIndex(1), Term(1), EntryKind::Config, 0),
            members,
        }
    }

    /// What a newcomer starts from: nothing, in no membership. It waits for a snapshot.
    #[must_use]
    pub fn nothing(group: GroupId) -> Self {
        Self { index: LogIndex::ZERO, term: Term(0), chain: Chain(group.0), members: Members::default() }
    }
}
