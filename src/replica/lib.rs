//! Drives many raft groups over one store: propose, make durable, commit, apply, checkpoint. Decides nothing.
//!
//! Start reading at [`Replicas`] (all groups of a node), then [`Machine`] (what a group serves) and `activity` (the way of a
//! proposal: taken from the machine, appended, synced, committed, applied). The design is in docs/design/0016-replica.md, what a driver owes to
//! the consensus core in 0010-consensus.md.
//!
//! ```text
//!   Machine::take_proposals -> raft::Core -> store::Group::append -> ticket -> raft::Core -> Machine::apply
//! ```
//!
//! A group without work has no task and, with one voter, no timer: whoever brings work wakes it, and its *activity* runs until
//! nothing is left to do.
//!
//! - D-1: a machine is told that it leads only when it has applied everything from before its term.
//! - D-2: a machine is given every committed entry once in its life, in order, one batch at a time.
//! - D-3: writes reach the store in the order in which the core gave them, and the core hears of one only when its ticket, or the group's relaxed
//!   policy, says so.
//! - D-4: a checkpoint is taken between two applies, and is the state after the last entry applied.
//! - D-5: a proposal that a leader's machine handed out is applied, given back as refused, or open when the machine is told that it
//!   does not lead any more; nothing else.

mod activity;
mod campaigns;
#[cfg(test)]
mod cluster_tests;
mod codec;
#[cfg(test)]
mod damage_tests;
mod frame;
mod group;
mod lives;
mod machine;
mod membership;
mod metrics;
mod net;
mod open;
mod options;
mod pairs;
mod replicas;
mod status;
#[cfg(test)]
mod tests;
mod transfer;

pub use frame::{FRAME_MAX, Urgency, urgency};
pub use group::Handle;
pub use lives::KeepFloor;
pub use machine::{
    BoxFuture, Committed, Machine, Proposal, Refusal, Role, control, messages, messages_digested,
};
pub use membership::{ChangeError, Membership, Reach};
pub use metrics::{Metrics, PairMetrics};
pub use net::Peers;
pub use options::{Error, Options, Others};
pub use replicas::{New, Replicas};
pub use status::{PeerStatus, Status};

pub use raft::{EntryKind, GroupId, LogIndex, Members, NodeId, RoleName, Term};
