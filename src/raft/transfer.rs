//! Handing leadership to another voter.
//!
//! Owns the leader's side until `TimeoutNow` has left, and the receiver's. R-15: from that message on the leader has no lease in this
//! term, since the votes of the election that it asked for pass over promises.

use crate::core::{Core, Cx, Role};
use crate::message::Body;
use crate::ready::{Note, Refusal};
use crate::types::NodeId;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Transfer {
    pub to: NodeId,
    /// When it is given up and proposals are taken again.
    pub until: u64,
    pub sent: bool,
}

impl Core {
    pub(crate) fn on_transfer(&mut self, to: NodeId, cx: &mut Cx<'_>) {
        let until = cx.live.now + self.options.transfer_ns;
        let Role::Leader(leader) = &mut self.role else {
            cx.out.notes.push((self.group, Note::Refused(Refusal::NotLeader(self.leader))));
            return;
        };
        let voter = self.log.members().1.voters.binary_search(&to).is_ok();
        if to == self.me || !voter || leader.transfer.is_some() || leader.peer(to).is_none() {
            cx.out.notes.push((self.group, Note::Refused(Refusal::Transferring)));
            return;
        }
        leader.transfer = Some(Box::new(Transfer { to, until, sent: false }));
        self.try_transfer(cx);
    }

    /// Sends the word once the receiver has the whole log.
    pub(crate) fn try_transfer(&mut self, cx: &mut Cx<'_>) {
        let last = self.log.last();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = leader.transfer.as_ref().filter(|t| !t.sent) else { return };
        let to = transfer.to;
        if leader.peer(to).is_none_or(|at| leader.peers[at].matched != last) {
            return;
        }
        leader.lease_off = true;
        if let Some(transfer) = &mut leader.transfer {
            transfer.sent = true;
        }
        self.send(to, Body::TimeoutNow, cx);
    }

    pub(crate) fn on_timeout_now(&mut self, from: NodeId, cx: &mut Cx<'_>) {
        let follows = matches!(self.role, Role::Follower) && self.leader.is_none_or(|l| l == from);
        if follows && self.eligible() {
            self.promise = None;
            self.campaign(true, cx);
        }
    }
}
