//! Reads that are not stale, without an entry in the log.
//!
//! Owns the batching of reads into rounds and the lease. Does not serve a read: it says up to where one
//! has to be applied.
//!
//! A round is one beat to each peer; a quorum of answers of this term, to this round or a later one, proves that no other leader
//! had been elected when the round began. Reads that come meanwhile wait for the next round.

use crate::core::{Core, Cx, Role, bug};
use crate::message::Body;
use crate::quorum::quorum_value;
use crate::ready::{Note, Read, Refusal};
use crate::types::{LogIndex, NodeId};

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Reads {
    /// Number of the latest round.
    pub round: u64,
    /// Who waits: first the `flying` of the round under way, then those for the next.
    askers: Vec<Asker>,
    flying: u32,
    /// The commit index with which the round under way began.
    index: LogIndex,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Asker {
    id: u64,
    /// The follower that asks; `None` for this node.
    from: Option<NodeId>,
}

impl Reads {
    pub fn heap_bytes(&self) -> usize {
        self.askers.capacity() * size_of::<Asker>()
    }
}

impl Core {
    pub(crate) fn on_read(&mut self, id: u64, from: Option<NodeId>, cx: &mut Cx<'_>) {
        let Role::Leader(leader) = &mut self.role else {
            match (from, self.leader) {
                // Only the leader knows; ask it, once. Who asks us has asked wrongly.
                (None, Some(leader)) => self.send(leader, Body::ReadIndex { id }, cx),
                _ => self.answer_read(Asker { id, from }, None, false, cx),
            }
            return;
        };
        let asker = Asker { id, from };
        if leader.reads.askers.len() >= self.options.reads_max {
            cx.out.notes.push((self.group, Note::Refused(Refusal::Reads)));
            return self.answer_read(asker, None, false, cx);
        }
        // Before the first commit of the term it is not known what older terms have committed.
        let known = self.log.commit >= leader.first;
        if known && (self.lease_holds(cx) || bug!(self, ReadWithoutQuorum)) {
            return self.answer_read(asker, Some(self.log.commit), true, cx);
        }
        let Role::Leader(leader) = &mut self.role else { return };
        leader.reads.askers.push(asker);
        self.start_reads(cx);
    }

    /// the lease ends before the first of a quorum's promises does, by any clock.
    fn lease_holds(&self, cx: &Cx<'_>) -> bool {
        let mut now = cx.live.now;
        #[cfg(any(test, feature = "mutants"))]
        if bug!(self, LeaseWithOldClock) {
            now = self.old_now;
        }
        now = now.saturating_add(self.options.drift_ns);
        self.lease_until(cx.live) > now
    }

    /// Begins a round if none is under way.
    pub(crate) fn start_reads(&mut self, cx: &mut Cx<'_>) {
        let commit = self.log.commit;
        let Role::Leader(leader) = &mut self.role else { return };
        let reads = &mut leader.reads;
        if reads.flying > 0 || reads.askers.is_empty() || commit < leader.first {
            return;
        }
        reads.flying = u32::try_from(reads.askers.len()).unwrap_or(u32::MAX);
        reads.round += 1;
        reads.index = commit;
        let Role::Leader(leader) = &self.role else { return };
        for peer in &leader.peers {
            self.send_beat(peer.node, cx);
        }
        self.confirm_reads(cx);
    }

    /// Answers the round under way if a quorum has confirmed it, and begins the next.
    pub(crate) fn confirm_reads(&mut self, cx: &mut Cx<'_>) {
        let Role::Leader(leader) = &self.role else { return };
        if leader.reads.flying == 0 {
            return;
        }
        let confirmed = quorum_value(&self.counting(), |n| {
            if n == self.me {
                return u64::MAX;
            }
            leader.peer(n).map_or(0, |at| leader.peers[at].round)
        });
        if confirmed < leader.reads.round {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let index = leader.reads.index;
        let flying = std::mem::take(&mut leader.reads.flying) as usize;
        let rest = leader.reads.askers.split_off(flying);
        let done = std::mem::replace(&mut leader.reads.askers, rest);
        for asker in done {
            self.answer_read(asker, Some(index), false, cx);
        }
        self.start_reads(cx);
    }

    fn answer_read(&self, asker: Asker, index: Option<LogIndex>, lease: bool, cx: &mut Cx<'_>) {
        match asker.from {
            None => cx.out.reads.push(Read { group: self.group, id: asker.id, index, lease }),
            Some(to) => self.send(to, Body::ReadIndexReply { id: asker.id, index }, cx),
        }
    }

    pub(crate) fn on_read_reply(&mut self, id: u64, index: Option<LogIndex>, cx: &mut Cx<'_>) {
        if self.doubt
            && index.is_some_and(|i| i > self.log.last())
            && let Some(leader) = self.leader
        {
            // The leader thinks that this replica has all of it, and in a group in which nothing happens nobody would tell it otherwise.
            self.ask_for_the_forgotten(leader, 0, cx);
        }
        cx.out.reads.push(Read { group: self.group, id, index, lease: false });
    }

    /// The reign is over: reads under way are not answered by this node.
    pub(crate) fn fail_reads(&mut self, cx: &mut Cx<'_>) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.reads.flying = 0;
        for asker in std::mem::take(&mut leader.reads.askers) {
            self.answer_read(asker, None, false, cx);
        }
    }
}
