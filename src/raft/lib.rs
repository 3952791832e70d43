//! The consensus core of Fulmar: Raft as a plain state machine.
//!
//! Start reading at [`Core::step`]. Events go in, work comes out in a [`Ready`] that the caller owns:
//!
//! ```text
//!   Event + &Liveness -> Core::step -> Ready { messages, writes, applies, loads, installs, reads, notes }
//! ```
//!
//! `types` and `message` are the words, `members` and `quorum` who counts, `log` and `progress` what is known of logs,
//! `core` the frame of a step, and `candidate`, `follower`, `leader`, `change`, `read`, `transfer`, `damage`, `rescue` the rules.
//!
//! What it does not do: no async, no clock, no disk, no socket, no ambient randomness, no thread, and it knows no other crate of the
//! product. Invariants R-1 to R-20 are listed in docs/design/0010-consensus.md; an assertion names the one it guards.

#[cfg(test)]
extern crate self as raft;

mod candidate;
mod change;
pub mod config;
mod core;
mod damage;
mod follower;
mod leader;
pub mod liveness;
mod log;
pub mod members;
pub mod message;
#[cfg(any(test, feature = "mutants"))]
pub mod mutant;
pub mod progress;
pub mod quorum;
mod read;
pub mod ready;
mod rescue;
mod transfer;
pub mod types;

#[cfg(test)]
#[allow(dead_code, reason = "the tool bin/l0.rs uses more of it")]
mod l0;
#[cfg(test)]
mod tests;

pub use crate::core::{Core, Restored, RoleName, Status};
pub use config::Options;
pub use liveness::{Liveness, PeerLive};
pub use log::{Tail, TailError};
pub use members::{Change, ChangeError, Members};
pub use message::{Append, Body, Message};
#[cfg(any(test, feature = "mutants"))]
pub use mutant::Mutant;
pub use ready::{
    Apply, ChangeRefusal, Event, Fault, Install, Load, Loaded, Note, Proposal, Read, Ready, Refusal, Token,
    Write,
};
pub use types::{Chain, Entry, EntryKind, GroupId, HardState, LogIndex, NodeId, SnapshotMeta, Term};
