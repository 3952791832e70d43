//! Changes of membership.
//!
//! Owns the when: one at a time, after a commit of the leader's own term, joint in between, and the end of a leader that is
//! not a member any more. What may follow what is in `members.rs`.

use crate::core::{Core, Cx, Role, bug};
use crate::liveness::Liveness;
use crate::members::{Change, Members};
use crate::message::Body;
use crate::ready::{ChangeRefusal, Ready, Refusal};
use crate::types::{EntryKind, LogIndex, NodeId};

impl Core {
    /// Begins a change of membership. Returns the index of its entry; with a change of voters a second entry follows by itself.
    ///
    /// # Errors
    /// The reason; nothing was changed.
    pub fn change(
        &mut self,
        change: &Change,
        live: &Liveness,
        out: &mut Ready,
    ) -> Result<LogIndex, ChangeRefusal> {
        if self.halted.is_some() {
            return Err(ChangeRefusal::Refused(Refusal::Halted));
        }
        self.within(live, out, |core, cx| core.take_change(change, cx))
    }

    pub(crate) fn take_change(
        &mut self,
        change: &Change,
        cx: &mut Cx<'_>,
    ) -> Result<LogIndex, ChangeRefusal> {
        let Role::Leader(leader) = &self.role else {
            return Err(ChangeRefusal::Refused(Refusal::NotLeader(self.leader)));
        };
        if leader.transfer.is_some() {
            return Err(ChangeRefusal::Refused(Refusal::Transferring));
        }
        // A leader that has committed nothing yet may be about to undo or be undone by a change that it cannot see.
        if self.log.commit < leader.first && !bug!(self, ChangeWithoutOwnCommit) {
            return Err(ChangeRefusal::Settling);
        }
        let (at, now) = self.log.members();
        let pending = now.is_joint() || at > self.log.commit;
        if pending && !bug!(self, ChangesOverlap) && !bug!(self, ChangeWithoutOwnCommit) {
            return Err(ChangeRefusal::InProgress);
        }
        let from = now.leave_joint();
        let mut next = from.step_to(change).map_err(ChangeRefusal::Bad)?;
        if bug!(self, ChangesOverlap) || bug!(self, ChangeWithoutOwnCommit) {
            // The bug of single-server changes: majorities before and after need not meet.
            next = next.leave_joint();
        }
        if let Some(slow) = next.voters.iter().find(|n| !from.is_voter(**n) && !self.caught_up(**n)) {
            return Err(ChangeRefusal::NotCaughtUp(*slow));
        }
        let index = self.append_members(next, cx);
        Ok(index)
    }

    fn caught_up(&self, node: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        leader
            .peer(node)
            .is_some_and(|at| leader.peers[at].matched.0 + self.options.promote_lag_max >= self.log.last().0)
    }

    pub(crate) fn append_members(&mut self, members: Members, cx: &mut Cx<'_>) -> LogIndex {
        let payload = members.encode();
        let digest = checksum::crc32c(&payload);
        self.append_own(EntryKind::Config, digest, payload, Some(members), cx);
        self.broadcast(cx);
        self.log.last()
    }

    /// After a commit: leaves a joint membership, lets go of those who left, and of the leadership if it left itself.
    pub(crate) fn advance_members(&mut self, cx: &mut Cx<'_>) {
        let Role::Leader(leader) = &self.role else { return };
        let (at, members) = self.log.members();
        if at > self.log.commit || self.log.commit < leader.first {
            return;
        }
        if members.is_joint() {
            let last = members.leave_joint();
            self.append_members(last, cx);
            return;
        }
        let gone: Vec<NodeId> =
            leader.peers.iter().map(|p| p.node).filter(|n| !members.contains(*n)).collect();
        let stays = members.is_voter(self.me);
        for node in gone {
            // Their last word: what is committed, and with it that they are out.
            self.send_beat(node, cx);
        }
        if stays {
            self.sync_peers();
            return;
        }
        let members = members.clone();
        let best = leader
            .peers
            .iter()
            .filter(|p| members.is_voter(p.node))
            .max_by_key(|p| p.matched)
            .map(|p| p.node);
        if let Some(best) = best {
            self.send(best, Body::TimeoutNow, cx);
        }
        self.resign(cx);
    }

    /// Whether a change of membership is on its way.
    #[must_use]
    pub fn changing(&self) -> bool {
        let (at, members) = self.log.members();
        members.is_joint() || at > self.log.commit
    }

    /// Up to where a peer is known to have the log, on the leader.
    #[must_use]
    pub fn matched(&self, node: NodeId) -> Option<LogIndex> {
        let Role::Leader(leader) = &self.role else { return None };
        if node == self.me {
            return Some(self.log.durable);
        }
        leader.peer(node).map(|at| leader.peers[at].matched)
    }
}
