//! All groups of a node in numbers, for monitoring.
//!
//! Owns the shapes. Everything here is a copy of a moment, and costs a walk over all groups.

use std::sync::atomic::Ordering;

use raft::{GroupId, NodeId, RoleName};

use crate::{Handle, Replicas, Status};

/// What is known of the way to another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PairMetrics {
    /// The other node.
    pub node: NodeId,
    /// There is a point in sending to it.
    pub reachable: bool,
    /// Nanoseconds since anything came from it; `None`: nothing ever did.
    pub heard_ns_ago: Option<u64>,
    /// Nanoseconds from the last heartbeat that it answered to the answer; `None`: it never answered one.
    pub round_trip_ns: Option<u64>,
    /// It supports this node: for so many nanoseconds more.
    pub supported_ns: u64,
    /// This node supports it.
    pub supports: bool,
}

/// A node's replicas in numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    /// Open groups.
    pub groups: u64,
    /// Those that this node leads.
    pub leads: u64,
    /// Those that have several members and no leader that is known here.
    pub leaderless: u64,
    /// Those that are stopped here.
    pub stopped: u64,
    /// Entries that are committed and not applied, over all groups.
    pub apply_lag: u64,
    /// States being read out for others, being received, and taken over since the start.
    pub transfers: (u64, u64, u64),
    /// Bytes of states that were read out and are not acknowledged.
    pub transfer_bytes: u64,
    /// The ways to other nodes, by their ids.
    pub pairs: Vec<PairMetrics>,
}

impl Replicas {
    /// All groups in numbers.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let mut m = Metrics::default();
        for g in self.0.groups() {
            let inner = g.inner.lock();
            let s = inner.core.status();
            m.groups += 1;
            m.leads += u64::from(s.role == RoleName::Leader);
            m.leaderless += u64::from(s.leader.is_none() && !crate::net::sole(&inner));
            m.stopped += u64::from(inner.stop.is_some());
            m.apply_lag += s.commit.0 - s.applied.0;
        }
        let t = &self.0.transfers;
        let (out, arriving, bytes) = t.under_way();
        m.transfers = (out as u64, arriving as u64, t.taken.load(Ordering::Relaxed));
        m.transfer_bytes = bytes;
        m.pairs = self.0.pair_metrics();
        m
    }

    /// Every open group at a glance, by id.
    #[must_use]
    pub fn statuses(&self) -> Vec<(GroupId, Status)> {
        self.all().iter().map(|h: &Handle| (h.id(), h.status())).collect()
    }
}
