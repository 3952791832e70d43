//! Models of what must hold under every order of events, explored state by state around the very types that serve.
//!
//! Start reading at [`quorum_write`]; [`redelivery`] is a world of its own, around a stream's consumer. `node` is a replica with its disk, `net` the messages under way, `properties` what must hold,
//! `configs` the bounded worlds with the number of states that each is known to have, `run` the way through them.
//!
//! What it does not do: it has no rule of consensus of its own. Whatever a replica decides is decided by [`raft::Core`]; here is only
//! what a driver owes it, in every order that a driver may choose. It does not look at time, reads, leases, changes of membership
//! or snapshots: the level-0 simulator of `src/raft` does.
//!
//! Invariants, checked in each state:
//! - a term has one leader.
//! - entries of equal index and term are equal, and so is all that stands before them.
//! - what two replicas hold for committed is the same as far as both go.
//! - what was committed, or acknowledged to a client, is on the disks of a majority.
//! - a leader has what was committed or acknowledged in terms before its own.
//! - no assertion of the core fires, no replica stops, none gets a message or a completion that it cannot make sense of,
//!   and none takes a peer for one that lost its disk.
//! - a replica's log is what its disk will hold once all writes are done, and it claims as durable only what is on it now.

pub mod configs;
pub mod net;
pub mod node;
pub mod properties;
pub mod quorum_write;
pub mod redelivery;
pub mod run;

#[cfg(test)]
mod tests;
