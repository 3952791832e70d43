//! One machine: a core, its disk, its state machine, its clock, and its side of the support between nodes.

use std::collections::BTreeMap;

use raft::{Chain, Core, LogIndex, Members, NodeId, PeerLive, Term};

use super::disk::Disk;

/// Support that this node gives.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// Boot of the other's process.
    pub boot: u64,
    /// Epoch; never used again once it ended.
    pub epoch: u64,
    /// On this node's clock.
    pub until: u64,
    /// Not ended.
    pub active: bool,
}

/// Support that this node has.
#[derive(Clone, Copy, Debug)]
pub struct Got {
    /// Epoch.
    pub epoch: u64,
    /// On this node's clock, counted from when the heartbeat left.
    pub until: u64,
    /// Whether its end was told to the core.
    pub told: bool,
}

/// A heartbeat between nodes or its answer.
#[derive(Clone, Copy, Debug)]
pub enum Pulse {
    /// From a node that wants support.
    Ask {
        /// Of the sender's process.
        boot: u64,
        /// On the sender's clock.
        sent_at: u64,
    },
    /// Support given.
    Grant {
        /// Of the receiver's process.
        boot: u64,
        /// Epoch.
        epoch: u64,
        /// As asked.
        sent_at: u64,
    },
}

/// One machine.
pub struct Node {
    /// Its name and incarnation.
    pub id: NodeId,
    /// None while it is down.
    pub core: Option<Core>,
    /// Its disk.
    pub disk: Disk,
    /// Counts starts; completions of an earlier life are dropped.
    pub boot: u64,
    /// Ids of its log in memory, written or not: term and chain by index.
    pub shadow: BTreeMap<u64, (Term, Chain)>,
    /// The state machine: applied up to, digest, membership.
    pub applied: LogIndex,
    /// Chain at `applied`.
    pub applied_chain: Chain,
    /// Term at `applied`.
    pub applied_term: Term,
    /// Digest.
    pub hash: u64,
    /// Membership as applied.
    pub members: Members,
    /// An apply is out, up to here.
    pub applying: Option<LogIndex>,
    /// When the last write is due, so that writes stay in order.
    pub write_due: u64,
    /// When a tick is scheduled.
    pub tick_at: u64,
    /// Until when the process is stopped.
    pub paused_until: u64,
    /// Parts per thousand by which the clock runs fast (positive) or slow, plus an offset.
    pub rate: i64,
    /// Offset of the clock.
    pub offset: u64,
    /// No vote before, on its clock.
    pub no_vote_before: u64,
    /// By node.
    pub given: BTreeMap<NodeId, Given>,
    /// By node.
    pub got: BTreeMap<NodeId, Got>,
    /// Epochs given so far in this life.
    pub epochs: u64,
    /// Damage that is on disk but not found yet.
    pub is_ill: bool,
}

impl Node {
    /// The node's clock at a moment of the world's.
    #[must_use]
    pub fn clock(&self, world: u64) -> u64 {
        (world as i64 + world as i64 / 1000 * self.rate) as u64 + self.offset
    }

    /// Moment of the world's at which the clock shows `time` (rounded up).
    #[must_use]
    pub fn when(&self, time: u64, world: u64) -> u64 {
        let ahead = time.saturating_sub(self.clock(world));
        world + ahead + ahead / 10 + 1000
    }

    /// The epoch given to a node at this moment.
    pub fn table_row(&self, peer: NodeId, now: u64) -> PeerLive {
        let given = self.given.get(&peer).filter(|g| g.active && g.until > now).map_or(0, |g| g.epoch);
        let (got, got_until) = self.got.get(&peer).map_or((0, 0), |g| (g.epoch, g.until));
        PeerLive { node: peer, reachable: got_until > now, given, got, got_until }
    }

    /// The shadow of an entry: what this node thinks is there.
    #[must_use]
    pub fn shadow_at(&self, index: LogIndex) -> Option<(Term, Chain)> {
        self.shadow.get(&index.0).copied()
    }
}
