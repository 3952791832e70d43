//! Whose turn it is to campaign: many groups may be without a leader at once, and their votes must not crowd each other out.
//!
//! Owns the order and the pace of campaigns that a node's end or a timer begins: so many are under way at a time, and the next begins when one of them
//! has come to something. Campaigns that begin with a word to do so (a transfer, a new group) do not wait here. Decides nothing: a core that is
//! let go asks for votes if it still wants to.
//!
//! Of the members that are left when a node ends, each group has one that goes first, and the others follow a moment later, so that they do not stand in
//! each other's way and each does its part of the groups.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use raft::{Event, GroupId, NodeId, RoleName};
use tokio::sync::Notify;

use crate::{
    group::{Group, Inner},
    replicas::Shared,
};

/// How often it is looked whether campaigns have come to something, while some are under way or wait.
const LOOK: Duration = Duration::from_millis(4);
/// How much later those go for whom another member goes first. Too small: two ask for votes at once, and nobody gets them. Too large: that long
/// without a leader when the first one cannot lead.
const LATER_NS: u64 = 60_000_000;

/// Why a group is to campaign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    /// Its time is over.
    Timer,
    /// The support for this node ended.
    Withdrawn(NodeId),
}

/// The marks in [`Inner::timer`] of a group that waits here.
pub(crate) const QUEUED: u64 = 0;

/// See the module.
#[derive(Default)]
pub(crate) struct Campaigns {
    queue: Mutex<Queue>,
    pub wake: Notify,
}

#[derive(Default)]
struct Queue {
    first: VecDeque<(GroupId, Cause)>,
    /// Not before that moment.
    later: VecDeque<(u64, GroupId, Cause)>,
}

impl Queue {
    fn pop(&mut self, now: u64) -> Option<(GroupId, Cause)> {
        if let Some(next) = self.first.pop_front() {
            return Some(next);
        }
        let due = self.later.front().is_some_and(|l| l.0 <= now);
        due.then(|| self.later.pop_front()).flatten().map(|(_, id, cause)| (id, cause))
    }
    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.later.is_empty()
    }
}

impl Campaigns {
    /// The time of a group is over.
    pub(crate) fn timed(&self, id: GroupId) {
        self.queue.lock().first.push_back((id, Cause::Timer));
        self.wake.notify_one();
    }
}

/// Whether this replica goes first among those that are left without `gone`: another one for each group.
fn goes_first(inner: &Inner, id: GroupId, gone: NodeId) -> bool {
    let me = inner.core.me();
    let left: Vec<NodeId> =
        inner.core.members().1.voters.iter().copied().filter(|n| n.id != gone.id).collect();
    let first = usize::try_from(id.0 % left.len().max(1) as u64).unwrap_or(0);
    left.get(first) == Some(&me)
}

/// Whether a campaign that was let go is still under way: nobody leads, or this node does and has not settled.
fn is_open(group: &Group) -> bool {
    let inner = group.inner.lock();
    let s = inner.core.status();
    inner.stop.is_none()
        && match s.role {
            RoleName::Leader => !s.settled,
            RoleName::Follower => s.leader.is_none(),
            RoleName::PreCandidate | RoleName::Candidate => true,
        }
}

impl Shared {
    /// A node is not supported any more: whoever followed it, or nobody, campaigns.
    pub(crate) fn withdrawn(self: &Arc<Self>, node: NodeId) {
        let (mut first, mut later) = (Vec::new(), Vec::new());
        for g in self.groups() {
            let inner = g.inner.lock();
            let leader = inner.core.status().leader;
            // Its core does not know the node as such: it may be meant by an older name. All that have no leader, or this one, hear of it.
            if crate::net::sole(&inner) || leader.is_some_and(|l| l.id != node.id) {
                continue;
            }
            let to = if goes_first(&inner, g.id, node) { &mut first } else { &mut later };
            drop(inner);
            to.push(g.id);
        }
        if first.is_empty() && later.is_empty() {
            return;
        }
        let from = env::now().0 + LATER_NS;
        let mut queue = self.net.campaigns.queue.lock();
        queue.first.extend(first.into_iter().map(|id| (id, Cause::Withdrawn(node))));
        queue.later.extend(later.into_iter().map(|id| (from, id, Cause::Withdrawn(node))));
        drop(queue);
        self.net.campaigns.wake.notify_one();
    }

    /// Lets groups campaign, so many at a time.
    pub(crate) async fn campaigns(self: Arc<Self>) {
        let mut open: VecDeque<(Arc<Group>, u64)> = VecDeque::new();
        while !self.is_closed() {
            let now = env::now().0;
            let long = self.options.raft.election_ns;
            open.retain(|(g, begun)| now < begun.saturating_add(long) && is_open(g));
            while open.len() < self.options.elections_at_once {
                let Some((id, cause)) = self.net.campaigns.queue.lock().pop(now) else { break };
                let Some(g) = self.group(id) else { continue };
                if g.let_go(cause) {
                    open.push_back((g, now));
                }
            }
            if open.is_empty() && self.net.campaigns.queue.lock().is_empty() {
                self.net.campaigns.wake.notified().await;
            } else {
                env::sleep(LOOK).await;
            }
        }
    }
}

impl Group {
    /// Its turn has come. False if there is nothing to campaign for any more.
    fn let_go(self: &Arc<Self>, cause: Cause) -> bool {
        {
            let mut inner = self.inner.lock();
            if inner.timer == QUEUED {
                inner.timer = u64::MAX;
            }
            match cause {
                Cause::Timer if inner.core.deadline() > env::now().0 => {
                    // Somebody leads by now, or it is not its time any more.
                    self.arm(&mut inner);
                    return false;
                }
                Cause::Timer => {}
                Cause::Withdrawn(node) => {
                    if inner.core.status().leader.is_some_and(|l| l.id != node.id) {
                        return false;
                    }
                    inner.events.push_back(Event::Withdrawn(node));
                }
            }
        }
        self.poke();
        true
    }
}
