//! The words of the store: newtypes for all numbers that could be mixed up, and its error.
//!
//! Does not own any format. The numbers mean what they mean in `raft`; they are repeated here because the store keeps
//! logs of any consensus, also of none.

use std::{fmt, io};

/// Names one replicated log, and the stream that it is, on all nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct GroupId(pub u64);

/// A leader's reign.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Term(pub u64);

/// A position in a group's log. The first entry has index 1; 0 is before the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LogIndex(pub u64);

/// A message's number in its stream. The first has 1; 0 is before the stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct StreamSeq(pub u64);

/// A digest of an entry and all before it, made by the consensus above; the store only compares it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Chain(pub u64);

/// One write-and-sync of a shard's journal, counted from 1 over the shard's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Round(pub u64);

/// One use of a journal file; a recycled file gets a new one, so that what an older use left there never looks valid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u64);

/// Names a segment file within its shard; never used for two contents that were both published.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FileId(pub u64);

impl LogIndex {
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
impl StreamSeq {
    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
impl Round {
    /// The round after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Why the store did not do what it was asked. A broken invariant panics instead.
#[derive(Debug)]
pub enum Error {
    /// There is no room on the disk. Nothing was changed; reads go on; the same call works once there is room.
    NoSpace(String),
    /// The journal is full until the segments have caught up. Nothing was changed; try again after the next flush.
    Busy,
    /// A sync failed, or a write inside reserved space. The shard takes no more writes until the process restarts.
    Poisoned(String),
    /// The data is there and wrong, or should be there and is not.
    Damaged(Damage),
    /// No such group, or it was deleted.
    NoGroup(GroupId),
    /// The caller broke the interface's contract; the text says how. Nothing was changed.
    Invalid(String),
    /// On disk is a format that this version does not know, or something that is not ours.
    Format(String),
    /// The disk failed in some other way. A read may be tried again.
    Io(io::Error),
}

/// What was found wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Whose data it is, if that is known.
    pub group: Option<GroupId>,
    /// Entries of the log that cannot be read, if that is known; both ends included.
    pub entries: Option<(LogIndex, LogIndex)>,
    /// Messages that cannot be read, if that is known; both ends included.
    pub messages: Option<(StreamSeq, StreamSeq)>,
    /// The file and what is wrong with it.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(g) = self.group {
            write!(f, "group {}: ", g.0)?;
        }
        if let Some((a, b)) = self.entries {
            write!(f, "entries {}..={}: ", a.0, b.0)?;
        }
        if let Some((a, b)) = self.messages {
            write!(f, "messages {}..={}: ", a.0, b.0)?;
        }
        f.write_str(&self.what)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoSpace(s) => write!(f, "no space: {s}"),
            Error::Busy => f.write_str("the journal is full until the segments have caught up"),
            Error::Poisoned(s) => write!(f, "the store stopped writing: {s}"),
            Error::Damaged(d) => write!(f, "damaged: {d}"),
            Error::NoGroup(g) => write!(f, "no group {}", g.0),
            Error::Invalid(s) => write!(f, "not allowed: {s}"),
            Error::Format(s) => f.write_str(s),
            Error::Io(e) => write!(f, "disk: {e}"),
        }
    }
}
impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::StorageFull { Error::NoSpace(e.to_string()) } else { Error::Io(e) }
    }
}

/// What the store's calls return.
pub type Result<T> = std::result::Result<T, Error>;

/// Something that a completed sync covers. Only the store can make one, and only from the journal's progress (S-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    pub(crate) fn covered(v: T) -> Self {
        Self(v)
    }
    /// What is durable.
    pub fn get(&self) -> &T {
        &self.0
    }
    /// What is durable.
    pub fn into_inner(self) -> T {
        self.0
    }
}
