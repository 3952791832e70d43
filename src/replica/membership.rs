//! Changes of membership, from where a group is to the nodes that it should be on.
//!
//! Owns the plan of the next step, which is pure, and the waiting between steps. The rules of a single change are raft's. Nodes are named without
//! incarnations here; which replica of a node is meant is what that node itself says ([`crate::frame::Frame::Here`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use raft::{Change, ChangeRefusal, Event, GroupId, LogIndex, Members, NodeId, Ready, Refusal, RoleName};

use crate::{
    frame::Frame,
    group::{Group, Handle, Inner},
    lives::node,
    replicas::Shared,
    status::nodes,
};

/// A membership that is committed and not in the middle of a change, as a machine is told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The entry that brought it.
    pub index: LogIndex,
    /// Who decides.
    pub voters: Vec<NodeId>,
    /// Who receives and does not count.
    pub learners: Vec<NodeId>,
}

/// Why a membership was not reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChangeError {
    /// Another node leads, this one if known. What was begun here goes on there: ask it.
    NotLeader(Option<NodeId>),
    /// Nobody would vote, or a node is named twice, or too many are.
    Bad(raft::members::ChangeError),
    /// The group is stopped on this node, with the reason.
    Stopped(Arc<str>),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::NotLeader(Some(n)) => write!(f, "not the leader, try {n}"),
            ChangeError::NotLeader(None) => f.write_str("no leader"),
            ChangeError::Bad(e) => write!(f, "not a membership: {e:?}"),
            ChangeError::Stopped(s) => write!(f, "stopped: {s}"),
        }
    }
}
impl std::error::Error for ChangeError {}

/// How far a group is from the nodes that it should be on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reach {
    /// It is there, and that is committed.
    Done,
    /// These nodes have not said yet that they have the group: it has to be made there, without voters ([`crate::New::members`]).
    Asking(Vec<NodeId>),
    /// A change is under way.
    Changing,
    /// This node, which is to vote, does not have enough of the log yet.
    CatchingUp(NodeId),
    /// The leader is new, or hands over.
    Settling,
}

static NOTHING_SAID: BTreeMap<u64, u32> = BTreeMap::new();

/// What to do next.
#[derive(PartialEq, Eq, Debug)]
enum Step {
    Done,
    Ask(Vec<NodeId>),
    Change(Change),
}

/// The next step from `now` to `target`, where `said` is what nodes say that their replicas are.
fn plan(now: &Members, target: &[NodeId], said: &BTreeMap<u64, u32>) -> Step {
    let all = now.all();
    let mut wanted = Vec::with_capacity(target.len());
    let mut unknown = Vec::new();
    for t in target {
        let here = all.iter().filter(|m| m.id == t.id).map(|m| m.incarnation).max();
        let spent = now.spent.iter().find(|s| s.id == t.id).map(|s| s.incarnation);
        let says = said.get(&t.id).copied().filter(|n| spent.is_none_or(|s| *n > s));
        match here.max(says) {
            Some(n) => wanted.push(NodeId::new(t.id, n)),
            None => unknown.push(node(*t)),
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    // A replica that forgot what it was no longer counts for what it acknowledged.
    let forgot = |m: &NodeId| wanted.iter().any(|w| w.id == m.id && w.incarnation > m.incarnation);
    let new: Vec<NodeId> = wanted.iter().filter(|w| !all.contains(w)).copied().collect();
    if !new.is_empty() {
        let voters: Vec<NodeId> = now.voters.iter().filter(|m| !forgot(m)).copied().collect();
        let kept = now.learners.iter().filter(|m| !forgot(m) && wanted.contains(m)).copied();
        return Step::Change(Change { voters, learners: kept.chain(new).collect() });
    }
    if !unknown.is_empty() {
        return Step::Ask(unknown);
    }
    if now.voters == wanted && now.learners.is_empty() {
        return Step::Done;
    }
    Step::Change(Change { voters: wanted, learners: Vec::new() })
}

/// All that there are, and those that are to be taken in again. Also who has just come and does not vote yet: who is left out is left behind for good.
fn healed(now: &Members, healing: &BTreeSet<u64>) -> Vec<NodeId> {
    let here = now.all().into_iter().map(|n| n.id);
    let mut ids: Vec<u64> = here.chain(healing.iter().copied()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().map(|id| NodeId::new(id, 0)).collect()
}

fn left_behind(now: &Members, node: NodeId, said: u32) -> Option<NodeId> {
    now.spent.iter().find(|s| s.id == node.id && s.incarnation >= said).copied()
}

impl Group {
    /// One step towards a membership.
    fn reach(self: &Arc<Self>, target: &[NodeId]) -> Result<Reach, ChangeError> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if let Some(why) = &inner.stop {
            return Err(ChangeError::Stopped(why.clone()));
        }
        let s = inner.core.status();
        let step =
            plan(inner.core.members().1, target, inner.rare.as_ref().map_or(&NOTHING_SAID, |r| &r.said));
        if step == Step::Done && !inner.core.changing() {
            return Ok(Reach::Done);
        }
        if s.role != raft::RoleName::Leader {
            return Err(ChangeError::NotLeader(s.leader.map(node).filter(|n| n.id != self.shared.me.id)));
        }
        if inner.core.changing() {
            return Ok(Reach::Changing);
        }
        let change = match step {
            Step::Done => return Ok(Reach::Changing),
            Step::Ask(whom) => {
                whom.iter().for_each(|n| self.shared.net.ask(self.id, *n));
                return Ok(Reach::Asking(whom));
            }
            Step::Change(c) => c,
        };
        // Entries alone do not say how far it is: without the state that they stand on it has nothing. Who votes already is not asked: it may be gone
        // for good, and then this change is what takes it out.
        let votes = &inner.core.members().1.voters;
        let lacks = |n: &&NodeId| {
            let matched = inner.core.peers().iter().find(|p| p.node == **n).map_or(s.last, |p| p.matched);
            matched < s.base.max(LogIndex(1))
        };
        if let Some(n) = change.voters.iter().filter(|n| !votes.contains(n)).find(lacks) {
            return Ok(Reach::CatchingUp(node(*n)));
        }
        let mut ready = Ready::default();
        let answer = self.with_live(inner, |core, live| core.change(&change, live, &mut ready));
        self.carry(inner, &mut ready);
        match answer {
            Ok(_) | Err(ChangeRefusal::InProgress) => Ok(Reach::Changing),
            Err(ChangeRefusal::Settling | ChangeRefusal::Refused(Refusal::Transferring)) => {
                Ok(Reach::Settling)
            }
            Err(ChangeRefusal::NotCaughtUp(n)) => Ok(Reach::CatchingUp(node(n))),
            Err(ChangeRefusal::Bad(raft::members::ChangeError::Same)) => Ok(Reach::Done),
            Err(ChangeRefusal::Bad(e)) => Err(ChangeError::Bad(e)),
            Err(ChangeRefusal::Refused(_)) => {
                Err(ChangeError::NotLeader(s.leader.map(node).filter(|n| n.id != self.shared.me.id)))
            }
        }
    }
}

impl Group {
    fn force(&self, nodes: &[NodeId], above: raft::Term) -> Result<(), ChangeError> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if let Some(why) = &inner.stop {
            return Err(ChangeError::Stopped(why.clone()));
        }
        let m = inner.core.members().1;
        let kept = m.voters.iter().chain(&m.outgoing).filter(|v| nodes.iter().any(|n| n.id == v.id));
        let mut voters: Vec<NodeId> = kept.copied().collect();
        voters.sort_unstable();
        // Of one that is there in two lives the later one counts.
        voters.reverse();
        voters.dedup_by_key(|v| v.id);
        let mut ready = Ready::default();
        let answer = self.with_live(inner, |core, live| core.force(&voters, above, live, &mut ready));
        self.carry(inner, &mut ready);
        match answer {
            Ok(_) => {
                tracing::warn!(group = self.id.0, "its members are {voters:?} now, on an operator's word");
                Ok(())
            }
            Err(ChangeRefusal::Bad(e)) => Err(ChangeError::Bad(e)),
            Err(_) => Err(ChangeError::NotLeader(inner.core.status().leader.map(node))),
        }
    }

    /// Takes in replicas that forgot, in the place of what they were: learners first, and voters when they have caught up. Ends when that is done or this
    /// node does not lead any more; who leads then hears from them again.
    async fn heal(self: Arc<Self>) {
        let pause = Duration::from_nanos(self.shared.options.raft.resend_ns / 2);
        loop {
            let changed = self.changed.notified();
            let target: Vec<NodeId> = {
                let mut inner = self.inner.lock();
                let inner = &mut *inner;
                let m = inner.core.members().1;
                let all = m.all();
                let rare = inner.rare.get_or_insert_default();
                rare.healing.retain(|id| all.iter().any(|n| n.id == *id));
                if rare.healing.is_empty() {
                    rare.heals = false;
                    return;
                }
                healed(m, &rare.healing)
            };
            let step = self.reach(&target);
            self.poke();
            if matches!(step, Ok(Reach::Done) | Err(_)) {
                let mut inner = self.inner.lock();
                inner.rare().healing.clear();
                inner.rare().heals = false;
                return;
            }
            env::timeout(pause, changed).await.ok();
        }
    }
}

impl Inner {
    /// The membership, if it is committed and final and was not told before.
    pub(crate) fn untold_members(&mut self) -> Option<Membership> {
        let (index, m) = self.core.members();
        if self.told_members == Some(index) || self.core.changing() || m.voters.is_empty() {
            return None;
        }
        self.told_members = Some(index);
        self.forgot = false;
        Some(Membership { index, voters: nodes(&m.voters), learners: nodes(&m.learners) })
    }
}

impl Shared {
    /// A node says what its replica of a group is.
    pub(crate) fn on_here(&self, group: GroupId, replica: NodeId) {
        let Some(g) = self.group(group) else { return };
        let (again, heal) = {
            let mut inner = g.inner.lock();
            let inner = &mut *inner;
            let said = inner.rare().said.entry(replica.id).or_default();
            *said = (*said).max(replica.incarnation);
            let leads = inner.core.status().role == RoleName::Leader;
            let members = inner.core.members().1.all();
            let forgot = members.iter().any(|m| m.id == replica.id && m.incarnation < replica.incarnation);
            let rare = inner.rare();
            let heal = leads && forgot && rare.healing.insert(replica.id) && !rare.heals;
            rare.heals |= heal;
            // One more who can be asked. What has gone as far as votes is left to run.
            let again = inner.eager
                && matches!(inner.core.status().role, RoleName::Follower | RoleName::PreCandidate)
                && inner.core.members().1.is_voter(replica);
            (again, heal)
        };
        if heal {
            env::spawn(g.clone().heal());
        }
        if again {
            g.post(Event::Campaign);
        }
        g.changed.notify_waiters();
    }

    /// A node asks what the replica of a group here is.
    pub(crate) fn on_ask(&self, group: GroupId, from: NodeId) {
        let Some(g) = self.group(group) else { return };
        let replica = {
            let inner = g.inner.lock();
            if inner.stop.is_some() {
                return;
            }
            inner.core.me()
        };
        self.net.frame(from, &Frame::Here { group, replica });
    }
}

impl Handle {
    /// Tells a node which replica of the group this one is. If that node's replica leads and knows it under an earlier life, it takes this one in.
    pub fn announce(&self, to: NodeId) {
        self.0.shared.on_ask(self.0.id, to);
    }
    /// Takes the next step towards having exactly these nodes as voters, and says how far the group is. Cheap; never waits; may be repeated as
    /// often as one likes, also with another target. Only a leader can take steps.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing was changed by this call.
    pub fn step_towards(&self, nodes: &[NodeId]) -> Result<Reach, ChangeError> {
        let answer = self.0.reach(nodes);
        self.0.poke();
        answer
    }

    /// The replica of a node that this node's log has as one that left, if the node said last that it still is that one. Whoever is to come to the
    /// group must come as another.
    #[must_use]
    pub fn left_behind(&self, node: NodeId) -> Option<NodeId> {
        let inner = self.0.inner.lock();
        let said = *inner.rare.as_ref()?.said.get(&node.id)?;
        left_behind(inner.core.members().1, node, said)
    }
    /// Which life of this node's replica it is.
    #[must_use]
    pub fn life(&self) -> u32 {
        self.0.inner.lock().core.me().incarnation
    }

    /// Makes those of its members that are on these nodes all the members, and leads them, without a majority's consent: see `raft::rescue` for who may
    /// call it. `above` is the highest term that any of them has seen. It is done when it is committed, which shows in the status.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing was changed.
    pub fn force(&self, nodes: &[NodeId], above: raft::Term) -> Result<(), ChangeError> {
        let answer = self.0.force(nodes, above);
        self.0.poke();
        answer
    }

    /// Brings the group to exactly these nodes as voters: those that come become learners first, catch up, and vote; those that go leave in the same
    /// change. Returns when that is committed, or with an error when this node cannot go on, as it does not lead any more. It waits as long as a node that
    /// comes has not made the group, or a majority is not there: bound it with a timeout. Dropping the future leaves the group in a membership that works.
    ///
    /// # Errors
    /// See [`ChangeError`]. What was committed so far stays; the leader that follows goes on from there.
    pub async fn reach(&self, nodes: &[NodeId]) -> Result<(), ChangeError> {
        let pause = Duration::from_nanos(self.0.shared.options.raft.resend_ns / 2);
        loop {
            let changed = self.0.changed.notified();
            match self.step_towards(nodes) {
                Ok(Reach::Done) => return Ok(()),
                Ok(_) => {}
                Err(e) => return Err(e),
            }
            // What a peer has, and whether it answers, is not told.
            env::timeout(pause, changed).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(id: u64) -> NodeId {
        NodeId::new(id, 0)
    }
    fn r(id: u64, incarnation: u32) -> NodeId {
        NodeId::new(id, incarnation)
    }

    /// Takes steps until there is nothing left to do, as raft would carry them out; the memberships on the way.
    fn walk(mut now: Members, target: &[NodeId], said: &BTreeMap<u64, u32>) -> (Members, usize) {
        for steps in 0..10 {
            match plan(&now, target, said) {
                Step::Done => return (now, steps),
                Step::Ask(whom) => panic!("asks for {whom:?}"),
                Step::Change(c) => now = now.step_to(&c).expect("the step is allowed").leave_joint(),
            }
        }
        panic!("it does not end: {now:?}");
    }

    #[test]
    fn who_is_taken_in_again_leaves_no_newcomer_behind() {
        let now = Members { learners: vec![r(4, 2)], ..Members::of([n(1), n(2), n(3)]) };
        let said = BTreeMap::from([(3, 5), (4, 2)]);
        let target = healed(&now, &BTreeSet::from([3]));
        let (then, _) = walk(now, &target, &said);
        assert_eq!(then.voters, [n(1), n(2), r(3, 5), r(4, 2)]);
        assert!(then.spent.iter().all(|s| s.id != 4), "{:?}", then.spent);
    }

    #[test]
    fn from_abc_to_bcd_and_back() {
        let abc = Members::of([n(1), n(2), n(3)]);
        assert_eq!(plan(&abc, &[n(2), n(3), n(4)], &BTreeMap::new()), Step::Ask(vec![n(4)]));
        let said = BTreeMap::from([(4, 7), (1, 9)]);
        let (bcd, steps) = walk(abc, &[n(2), n(3), n(4)], &said);
        assert_eq!((bcd.voters.clone(), steps), (vec![n(2), n(3), r(4, 7)], 2));
        // What was said before it left is not what is there now.
        assert_eq!(plan(&bcd, &[n(1), n(2), n(3)], &BTreeMap::from([(1, 0)])), Step::Ask(vec![n(1)]));
        assert_eq!((left_behind(&bcd, n(1), 0), left_behind(&bcd, n(1), 9)), (Some(n(1)), None));
        assert_eq!(left_behind(&bcd, n(2), 0), None, "it is a member");
        let (abc, _) = walk(bcd, &[n(1), n(2), n(3)], &said);
        assert_eq!(abc.voters, [r(1, 9), n(2), n(3)]);
    }

    #[test]
    fn d9_a_replica_that_forgot_is_a_learner_before_it_counts_again() {
        let abc = Members::of([n(1), n(2), n(3)]);
        let said = BTreeMap::from([(2, 5)]);
        let Step::Change(c) = plan(&abc, &[n(1), n(2), n(3)], &said) else { panic!("it changes") };
        assert_eq!(c, Change { voters: vec![n(1), n(3)], learners: vec![r(2, 5)] });
        assert_eq!(walk(abc, &[n(1), n(2), n(3)], &said).0.voters, [n(1), r(2, 5), n(3)]);
    }

    #[test]
    fn one_to_three_to_one() {
        let said = BTreeMap::from([(2, 1), (3, 1)]);
        let (three, _) = walk(Members::of([n(1)]), &[n(1), n(2), n(3)], &said);
        assert_eq!(three.voters, [n(1), r(2, 1), r(3, 1)]);
        let (one, _) = walk(three, &[n(3)], &said);
        assert_eq!(one.voters, [r(3, 1)]);
    }
}
