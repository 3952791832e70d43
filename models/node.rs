//! A replica and its disk.
//!
//! Owns a core, what is durable, and the writes that are not yet. Does what a driver does with a write; sends nothing: what
//! leaves is given to the caller.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use raft::{
    Chain, Core, Entry, Event, GroupId, HardState, Liveness, LogIndex, Members, Message, Mutant, NodeId,
    Options, Ready, Restored, RoleName, SnapshotMeta, Tail, Term, Token, Write,
};

use crate::net::print;

/// The one group of the models.
pub const GROUP: GroupId = GroupId(1);

/// A time later than any election time after time zero, where [`Core::forget_time`] leaves every last contact: nobody is bound by a silence
/// that was too short, so that any election may come at any moment.
const LATE_NS: u64 = 1 << 40;

/// The time and the table of every step: no support between nodes, everybody can be reached.
#[must_use]
pub fn liveness() -> Liveness {
    Liveness::without_table(LATE_NS)
}

/// Name of the replica at a position.
#[must_use]
pub fn name(at: usize) -> NodeId {
    NodeId::new(at as u64 + 1, 0)
}

/// Position of a replica by its name.
#[must_use]
pub fn position(node: NodeId) -> usize {
    (node.id - 1) as usize
}

/// What the group starts from: index 1, with these voters.
#[must_use]
pub fn base(nodes: usize) -> SnapshotMeta {
    SnapshotMeta::bootstrap(GROUP, Members::of((0..nodes).map(name)))
}

/// Position in a log of the entry with an index; the first after the base is 0.
fn slot(index: LogIndex) -> usize {
    index.0 as usize - 2
}

/// What tells an entry from any other.
pub type Identity = (Term, Chain);

/// One replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// The core that serves.
    pub core: Core,
    /// Durable term, vote and commit.
    pub hard: HardState,
    /// Durable entries, after the base.
    pub log: Vec<Entry>,
    /// Writes that are not durable, oldest first.
    pub pending: VecDeque<Write>,
    /// What the log will be once they are.
    pub ahead: Vec<Identity>,
    print: u64,
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.print);
    }
}

impl Node {
    /// A replica with an empty log.
    #[must_use]
    pub fn fresh(at: usize, nodes: usize, options: &Arc<Options>, mutant: Option<Mutant>) -> Self {
        let core = start(at, options, mutant, Restored::fresh(base(nodes)));
        let mut node = Self {
            core,
            hard: HardState::default(),
            log: Vec::new(),
            pending: VecDeque::new(),
            ahead: Vec::new(),
            print: 0,
        };
        node.settle();
        node
    }

    /// Loses what is not durable and starts again.
    pub fn crash(&mut self, options: &Arc<Options>, mutant: Option<Mutant>) {
        self.pending.clear();
        let base = self.core.base().clone();
        let applied = base.index;
        let mut tail = Tail::new(base);
        for entry in &self.log {
            let taken = tail.push(entry).expect("Q-7: the durable log is a log");
            assert!(taken, "Q-7: every durable entry is part of the log");
        }
        let restored = Restored { hard: self.hard, tail, applied, damage: Vec::new() };
        self.core = start(position(self.core.me()), options, mutant, restored);
    }

    /// Makes the oldest write durable. The event for the core and the messages that may leave now.
    pub fn persist(&mut self) -> Option<(Event, Vec<Message>)> {
        let write = self.pending.pop_front()?;
        assert!(write.reset.is_none() && write.patch.is_empty(), "nothing is compacted or damaged here");
        if let Some(hard) = write.hard {
            self.hard = hard;
        }
        if let Some(from) = write.truncate {
            self.log.truncate(slot(from));
        }
        for entry in write.entries {
            let at = slot(entry.index);
            assert!(at <= self.log.len(), "Q-7: an entry leaves a gap on disk");
            // What lies on a disk is not replaced without being truncated.
            if at == self.log.len() {
                self.log.push(entry);
            }
        }
        let token = Token { index: LogIndex(self.log.len() as u64 + 1), ..write.token };
        Some((Event::Written(token), write.replies))
    }

    /// Entries on disk for a load.
    #[must_use]
    pub fn read(&self, first: LogIndex, last: LogIndex) -> (Option<Chain>, Vec<Entry>) {
        let from = slot(first);
        let base = self.core.base().chain;
        let before = if from == 0 { Some(base) } else { self.log.get(from - 1).map(|e| e.chain) };
        let to = self.log.len().min(slot(last) + 1);
        // One at a time, as the options of the models have it.
        (before, self.log.get(from..to).unwrap_or_default().iter().take(1).cloned().collect())
    }

    /// The identity of a durable entry.
    #[must_use]
    pub fn kept(&self, index: LogIndex) -> Option<Identity> {
        self.log.get(slot(index)).map(|e| (e.term, e.chain))
    }

    /// The identity of an entry, durable or not.
    #[must_use]
    pub fn held(&self, index: LogIndex) -> Option<Identity> {
        self.ahead.get(slot(index)).copied()
    }

    /// The entry at an index, durable or not.
    #[must_use]
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let pending = self.pending.iter().rev().flat_map(|w| w.entries.iter().rev());
        pending.chain(self.log.iter().rev()).find(|e| e.index == index)
    }

    /// Ends an action: brings the derived parts up to date and forgets what makes equal replicas look unequal.
    pub fn settle(&mut self) {
        if let Some(peer) = self.core.peers().first().map(|p| p.node) {
            // As if an election time had passed: whom a leader heard of lately binds it, and would only hide orders of events.
            self.core.step(Event::SupportLost(peer), &liveness(), &mut Ready::default());
        }
        self.core.forget_time();
        self.ahead.clear();
        self.ahead.extend(self.log.iter().map(|e| (e.term, e.chain)));
        for write in &self.pending {
            if let Some(from) = write.truncate {
                self.ahead.truncate(slot(from));
            }
            for entry in &write.entries {
                if slot(entry.index) == self.ahead.len() {
                    self.ahead.push((entry.term, entry.chain));
                }
            }
        }
        self.print = print(&(&self.core, &self.hard, &self.log, &self.pending));
    }

    /// Whether it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.core.status().role == RoleName::Leader
    }
}

fn start(at: usize, options: &Arc<Options>, mutant: Option<Mutant>, restored: Restored) -> Core {
    let mut core = Core::new(GROUP, name(at), options.clone(), at as u64 + 1, restored, &liveness());
    core.plant(mutant);
    core
}
