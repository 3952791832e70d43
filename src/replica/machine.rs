//! What a group serves: the interface between the driver and the layer above.
//!
//! Owns the trait and its words. Does not own any rule of a stream.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use raft::{EntryKind, NodeId, Term};

use crate::{Handle, membership::Membership};

/// A future on the heap: one for each batch that is applied.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A committed entry as the store has it: `head.kind` is [`store::Kind::Messages`] or [`store::Kind::Control`], `head.index` and
/// `head.term` are its place in the log, `head.first` and `head.count` its messages.
pub type Committed = store::Entry;

/// Something to put into the log. See [`messages`] and [`control`].
pub type Proposal = raft::Proposal;

/// A batch of messages: the payload is what `store::Batch::finish` returned, its records carry their sequences.
#[must_use]
pub fn messages(payload: Bytes) -> Proposal {
    Proposal { kind: EntryKind::Normal, digest: checksum::crc32c(&payload), payload }
}

/// The same with the digest that `store::Batch::finish_digested` returned.
#[must_use]
pub fn messages_digested((payload, digest): (Bytes, u32)) -> Proposal {
    Proposal { kind: EntryKind::Normal, digest, payload }
}

/// A command of the layer above; opaque here and in the store.
#[must_use]
pub fn control(payload: Bytes) -> Proposal {
    Proposal { kind: EntryKind::Control, digest: checksum::crc32c(&payload), payload }
}

/// What a group is on this node, as far as its machine needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// Leads in this term and has applied everything before it (D-1): proposals are taken. From here on an entry whose `head.term` is
    /// `term` is one of this machine's own proposals, and they come in the order in which they were handed out.
    Leader {
        /// The reign.
        term: Term,
    },
    /// Does not lead. What was proposed and is neither applied nor refused may still be committed by another leader.
    Follower {
        /// The newest term known.
        term: Term,
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The group does nothing any more on this node, with the reason. Reads go on. The last call of a machine's life.
    Stopped(Arc<str>),
}

/// Why proposals were not taken. Nothing of them is in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Another node leads, this one if known.
    NotLeader(Option<NodeId>),
    /// A new leader has not applied its log yet, or hands over. Try again.
    Settling,
    /// Too much waits to be made durable or applied, or the journal is full until a flush has freed some. Try again.
    Busy,
    /// The disk is full; what the disk said.
    NoSpace(Arc<str>),
    /// More than a journal file holds.
    TooLarge,
    /// The group is stopped on this node, with the reason.
    Stopped(Arc<str>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotLeader(Some(n)) => write!(f, "not the leader, try {n}"),
            Refusal::NotLeader(None) => f.write_str("no leader"),
            Refusal::Settling => f.write_str("the leader is not ready yet"),
            Refusal::Busy => f.write_str("too much is under way"),
            Refusal::NoSpace(s) => write!(f, "no space: {s}"),
            Refusal::TooLarge => f.write_str("larger than a journal file"),
            Refusal::Stopped(s) => write!(f, "stopped: {s}"),
        }
    }
}
impl std::error::Error for Refusal {}

/// The state machine of one group.
///
/// The calls of one life come in this order: [`restore`](Machine::restore) if there is a checkpoint, [`attach`](Machine::attach), then
/// `apply`, `role`, `take_proposals`, `refused` and `checkpoint`, never two of these at a time. All but `apply` must not block; none
/// is called while a lock of the driver's is held, so that a machine may use its [`Handle`] in all of them.
///
/// **The store and retries.** An entry joins the store's stream with `store::Group::apply(&entry.head)`, which changes nothing when it answers
/// that it needs the disk first. The machine calls it for each entry right before it applies that entry's rules, so that rules see
/// the store exactly as it is after that entry and before the next, on every replica alike. A machine that asks nothing of the store may
/// leave it out: after `apply` the driver joins what the machine has not. A machine that waits for the disk in the middle of an
/// entry simply goes on afterwards: the driver never calls `apply` again for what it has given (D-2). After a crash everything above the durable
/// checkpoint is applied again to a new machine and a store that stand at that checkpoint.
pub trait Machine: Send + Sync + 'static {
    /// The group's handle, once. It keeps the group alive: let go of it when the role is [`Role::Stopped`].
    fn attach(&self, handle: &Handle) {
        let _ = handle;
    }

    /// Begins from a checkpoint that this machine, its predecessor, or the machine of another node made. Not called for a new group. When another node's
    /// state was taken over it is called in the middle of a life too, between two applies and never while it leads: then it *replaces* all that the
    /// machine holds, and the store's stream, whose handle stays the same, is already the one that belongs to the checkpoint.
    ///
    /// # Errors
    /// Why the blob is none. The group is then not opened.
    fn restore(&self, blob: &[u8]) -> Result<(), String>;

    /// Applies committed entries, in order. An acknowledgement may leave as soon as its entry is applied: it is durable as the group's policy
    /// says.
    ///
    /// # Errors
    /// Why the machine cannot go on. The group stops on this node with that text; nothing is ever applied again.
    fn apply<'a>(&'a self, batch: Vec<Committed>) -> BoxFuture<'a, Result<(), String>>;

    /// What the group is now. Told on each change.
    fn role(&self, role: &Role);

    /// This membership is committed, and not in the middle of a change. Told when the group is opened and knows one, and after each change, on every
    /// member; also on one that left, if it still hears of it.
    fn members(&self, members: &Membership) {
        let _ = members;
    }

    /// The state after the last entry applied, for [`restore`](Machine::restore) (D-4).
    fn checkpoint(&self) -> Bytes;

    /// Adds what shall be proposed now, usually one batch with everything that has gathered. Called while the group leads, after
    /// [`Handle::wake`] and whenever an earlier batch is durable.
    fn take_proposals(&self, out: &mut Vec<Proposal>) {
        let _ = out;
    }

    /// These proposals from [`take_proposals`](Machine::take_proposals) are not in the log and never will be. What they built on each other is void:
    /// everything handed out later is given back too, or has not been taken yet.
    fn refused(&self, batch: Vec<Proposal>, why: &Refusal) {
        let _ = (batch, why);
    }
}
