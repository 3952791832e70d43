//! A group at a glance, for info replies, health and metrics.
//!
//! Owns the shapes and how they are filled. Everything here is a copy of a moment.

use std::sync::Arc;

use raft::{LogIndex, NodeId, RoleName, Term};

use crate::{
    group::{Handle, Inner},
    lives::node,
};

/// A replica at a glance. Nodes are named as links name them, without the incarnations that the log tells replicas apart by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// What it is.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// The leader, if known; this node itself if it leads.
    pub leader: Option<NodeId>,
    /// Index of the checkpoint: what is at or below it is state and no longer log.
    pub base: LogIndex,
    /// End of the log.
    pub last: LogIndex,
    /// Term of the last entry.
    pub last_term: Term,
    /// Durable and intact up to here.
    pub durable: LogIndex,
    /// Committed.
    pub commit: LogIndex,
    /// Applied.
    pub applied: LogIndex,
    /// Leads and takes proposals.
    pub settled: bool,
    /// A hole is in the log.
    pub damaged: bool,
    /// The state of another node is being fetched.
    pub installing: bool,
    /// Its log was in memory and is gone, and the others have not taken it in yet. If this is so on every member the group has nothing left.
    pub forgot: bool,
    /// It does nothing any more on this node, and why.
    pub stopped: Option<Arc<str>>,
    /// It has stopped because a leader contradicts what it took for committed, and what it has is in doubt (D-12): nothing of it counts, and it can
    /// only come back as another life.
    pub contradicted: bool,
    /// Who decides, by the newest membership in the log. Empty for a newcomer that has heard nothing yet.
    pub voters: Vec<NodeId>,
    /// In the middle of a change: who decided before, and has to agree too.
    pub outgoing: Vec<NodeId>,
    /// Who receives and does not count.
    pub learners: Vec<NodeId>,
    /// The membership is not committed yet, or in the middle of a change.
    pub changing: bool,
    /// The other members, in order of their ids.
    pub peers: Vec<PeerStatus>,
}

/// Another member as this replica sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// Its node.
    pub node: NodeId,
    /// Whether it counts.
    pub voter: bool,
    /// Up to where its log is known to be durable and equal to this one's. Known to a leader only.
    pub matched: Option<LogIndex>,
    /// Entries that it is behind the end of this log; 0 where `matched` is not known.
    pub lag: u64,
    /// Nanoseconds since anything was heard from its node; `None`: nothing was since this one started.
    pub heard_ns_ago: Option<u64>,
    /// Its node can be reached.
    pub active: bool,
    /// It is behind the log and needs the state first. Known to a leader only.
    pub snapshot: bool,
}

impl PeerStatus {
    /// Whether it has all that is committed, as far as a leader knows.
    #[must_use]
    pub fn current(&self, commit: LogIndex) -> bool {
        self.active && self.matched.is_some_and(|m| m >= commit)
    }
}

/// The nodes of replicas, without repetition.
pub(crate) fn nodes(replicas: &[NodeId]) -> Vec<NodeId> {
    let mut all: Vec<NodeId> = replicas.iter().map(|r| node(*r)).collect();
    all.dedup();
    all
}

impl Inner {
    fn status(&self) -> Status {
        let s = self.core.status();
        let m = self.core.members().1;
        Status {
            role: s.role,
            term: s.term,
            leader: s.leader.map(node),
            base: s.base,
            last: s.last,
            last_term: s.last_term,
            durable: s.durable,
            commit: s.commit,
            applied: s.applied,
            settled: s.settled && self.stop.is_none(),
            damaged: s.damaged,
            installing: self.core.installing().is_some(),
            forgot: self.forgot,
            stopped: self.stop.clone(),
            contradicted: self.contradicted,
            voters: nodes(&m.voters),
            outgoing: nodes(&m.outgoing),
            learners: nodes(&m.learners),
            changing: self.core.changing(),
            peers: Vec::new(),
        }
    }
}

impl Handle {
    /// The replica at a glance.
    #[must_use]
    pub fn status(&self) -> Status {
        let inner = self.0.inner.lock();
        let mut status = inner.status();
        let leads = status.role == RoleName::Leader;
        let members = inner.core.members().1;
        for replica in members.all().into_iter().filter(|n| *n != inner.core.me()) {
            let known = inner.core.peers().iter().find(|p| p.node == replica);
            let matched = known.map(|p| p.matched);
            status.peers.push(PeerStatus {
                node: node(replica),
                voter: members.is_voter(replica),
                matched,
                lag: matched.map_or(0, |m| status.last.0.saturating_sub(m.0)),
                heard_ns_ago: None,
                active: false,
                snapshot: leads && known.is_some_and(|p| matches!(p.feed, raft::progress::Feed::Snapshot(_))),
            });
        }
        drop(inner);
        self.0.shared.heard(&mut status.peers);
        status
    }

    /// The newest membership of the log, by nodes: those that count, and those that only receive.
    #[must_use]
    pub fn members(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        let inner = self.0.inner.lock();
        let m = inner.core.members().1;
        (nodes(&m.voters), nodes(&m.learners))
    }
}
