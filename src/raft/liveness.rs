//! What the driver knows about pairs of nodes, for all groups at once.
//!
//! Owns the shape of that knowledge. Does not send heartbeats, keep epochs or spend budgets: the driver does. Its part of
//! an epoch of support given is in the table for as long as its promise binds, an epoch that ended never comes back, and
//! `until` is counted from the moment at which the heartbeat that was answered left, on this node's monotonic clock.

use crate::types::NodeId;

/// Support between this node and one other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerLive {
    /// The other node.
    pub node: NodeId,
    /// Whether there is a point in sending to it. A leader keeps no timer for those to whom there is none.
    pub reachable: bool,
    /// Epoch of the support that this node gives to the other; 0 for none.
    pub given: u64,
    /// Epoch of the support that the other gives to this node; 0 for none.
    pub got: u64,
    /// Until when `got` lasts, on this node's monotonic clock, nanoseconds. The drift bound is taken off by the core.
    pub got_until: u64,
}

/// The table and the time. One for all groups of a worker, read anew for each step: a `now` from before a pause is the bug that a
/// lease cannot survive.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Liveness {
    /// This node's monotonic clock, nanoseconds.
    pub now: u64,
    /// No vote before this moment: a restarted node that has forgotten what it promised waits out the longest grant.
    pub no_vote_before: u64,
    /// Where a peer is not in the table, whether it counts as reachable. True in models that have no table.
    pub strangers_reachable: bool,
    /// There is one row a machine, with incarnation 0, and it speaks for every incarnation of that id. Only where no epoch of support between two machines ever
    /// comes again, whatever replicas they have, or a promise to one that is gone would look as if it still held.
    pub machines: bool,
    peers: Vec<PeerLive>,
}

impl Liveness {
    /// An empty table at a moment.
    #[must_use]
    pub fn at(now: u64, no_vote_before: u64) -> Self {
        Self { now, no_vote_before, ..Self::default() }
    }

    /// No support among anybody, everybody reachable: plain heartbeats and election timeouts.
    #[must_use]
    pub fn without_table(now: u64) -> Self {
        Self { now, strangers_reachable: true, ..Self::default() }
    }

    /// Sets what is known of one node.
    pub fn set(&mut self, peer: PeerLive) {
        match self.peers.binary_search_by_key(&peer.node, |p| p.node) {
            Ok(at) => self.peers[at] = peer,
            Err(at) => self.peers.insert(at, peer),
        }
    }

    /// What is known of one node.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&PeerLive> {
        let found = if self.machines {
            self.peers.binary_search_by_key(&node.id, |p| p.node.id)
        } else {
            self.peers.binary_search_by_key(&node, |p| p.node)
        };
        found.ok().map(|at| &self.peers[at])
    }

    /// Epoch of the support that this node gives to `node`; 0 for none.
    #[must_use]
    pub fn given(&self, node: NodeId) -> u64 {
        self.get(node).map_or(0, |p| p.given)
    }

    /// Until when `node` supports this node in `epoch`; 0 if it does not, or not in that epoch.
    #[must_use]
    pub fn got_until(&self, node: NodeId, epoch: u64) -> u64 {
        match self.get(node) {
            Some(p) if epoch != 0 && p.got == epoch => p.got_until,
            _ => 0,
        }
    }

    /// Whether there is a point in sending to `node`.
    #[must_use]
    pub fn reachable(&self, node: NodeId) -> bool {
        self.get(node).map_or(self.strangers_reachable, |p| p.reachable)
    }
}
