//! How nodes that belong to no meta group yet make one: a plain state machine, level triggered.
//!
//! Owns who proposes, who promises what to whom, and when a group is made or joined. Does no I/O: what has to be durable goes out as
//! [`Action::Save`], and takes effect with [`Formation::saved`]. There are no messages but what each node says of itself ([`Standing`]), as often as
//! it likes: what is lost is said again.
//!
//! How it works: the lowest id among the fresh nodes that see each other proposes the set of all that it sees. Each of them promises itself to that one
//! proposal, durably, and says so. When all have, the proposer makes the group, which is the decision; the others make it, with the members that they promised
//! themselves to, when they see that the proposer has. A promise is given back only on the proposer's word that it has dropped its proposal, which
//! it has noted durably before. Who is free and sees a group joins it when it has a leader; until then it waits, since a group that is without one
//! for good (its others went on without this member, K-8) would never let it go.
//!
//! A node that was a member of a group and has forgotten it, with a part of its journal, founds none: neither does it propose, nor is it free for others. It
//! joins the group that it sees, as another life.
//!
//! - K-1: at most one meta group forms among servers that configure each other: a group's first members are more than half of them, and
//!   a node is a first member of one group only.
//! - K-2: a group's first members are the same on each of them: they are the promised ones.

use std::collections::BTreeMap;

use replica::NodeId;
use serde::{Deserialize, Serialize};

/// How long the set of free nodes has to stay as it is before a proposal that lacks some of the configured servers, nanoseconds.
const SETTLE: u64 = 1_000_000_000;
/// How long a proposer waits for a promise before it drops its proposal and begins anew, nanoseconds.
const GIVE_UP: u64 = 3_000_000_000;

/// A set of first members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Which of its proposer's proposals it is.
    pub ballot: u64,
    /// Names the group that it becomes.
    pub genesis: u64,
    /// Who proposes.
    #[serde(with = "id")]
    pub proposer: NodeId,
    /// All of them, the proposer included, in order.
    #[serde(with = "ids")]
    pub members: Vec<NodeId>,
}

/// What must be durable.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Saved {
    /// How many proposals this node has made.
    pub ballot: u64,
    /// What it is promised to; its own proposal too.
    pub promise: Option<Proposal>,
    /// It is a member of a group: a start that finds none has forgotten it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub member: bool,
    /// Others are members of its group, or were to become some, whatever its own log still says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// It may have been a member of a group that it has forgotten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forgot: bool,
    /// Rounds of its journal are gone, and it is not known yet up to which group it may have had what it has not any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// Groups up to this one it may have had although it does not have them: the last one that there was when rounds had been lost.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_upto: u64,
    /// The last round of each journal that was durable by then, if one was written since the loss. What is gone up to there is of no later group, so that
    /// `lost_upto` says enough of it, however often it is found; what is gone behind it, or a journal that ends before it, is another loss.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<(u32, u64)>,
}

impl Saved {
    /// Whether what a start found of a journal, its last round and the last one that is gone, tells of a loss that is not known yet.
    pub fn is_news(&self, journal: u32, end: u64, gone: Option<u64>) -> bool {
        let told = self.told.iter().find(|t| t.0 == journal).map(|t| t.1);
        gone > told || told > Some(end)
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    /// How many proposals it has made.
    pub ballot: u64,
    /// What it proposes, or is promised to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promise: Option<Proposal>,
    /// The group that it is a member of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<u64>,
    /// That group has a leader, as far as this node knows. Nodes of earlier versions do not say so.
    #[serde(default = "yes")]
    pub led: bool,
}

fn yes() -> bool {
    true
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Make this durable, then call [`Formation::saved`]. There is one at a time.
    Save(Saved),
    /// Make the group with these members, then call [`Formation::made`].
    Make(Proposal),
    /// Ask this node to be taken into its group.
    Join {
        /// Whom to ask.
        via: NodeId,
        /// The group.
        genesis: u64,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Formation {
    me: NodeId,
    /// The least number of first members.
    need: usize,
    /// As many servers are configured.
    expected: usize,
    saved: Saved,
    saving: Option<Saved>,
    member: Option<u64>,
    making: bool,
    seen: BTreeMap<NodeId, Standing>,
    /// When the set of free nodes last changed, and what it was.
    changed: u64,
    free: Vec<NodeId>,
    /// When this node's proposal was made.
    proposed: u64,
}

impl Formation {
    /// A node with `others` configured besides itself, at a moment. `member` is the group that it is in already.
    pub fn new(me: NodeId, others: usize, saved: Saved, member: Option<u64>, now: u64) -> Formation {
        // More than half of all, for then two sets meet; a group of one is no cluster.
        let expected = others + 1;
        let need = (expected / 2 + 1).max(2);
        Formation {
            me,
            need,
            expected,
            saved,
            saving: None,
            member,
            making: false,
            seen: BTreeMap::new(),
            changed: now,
            free: Vec::new(),
            proposed: now,
        }
    }

    /// The group that this node is in.
    #[cfg(test)]
    pub fn member(&self) -> Option<u64> {
        self.member
    }
    /// What this node says of itself: nothing that is not durable. `led`: its group has a leader.
    pub fn standing(&self, led: bool) -> Standing {
        let Saved { ballot, mut promise, forgot, .. } = self.saved.clone();
        if forgot && self.member.is_none() {
            // Nobody's: so it is not free.
            promise = Some(Proposal { ballot: 0, genesis: 0, proposer: self.me, members: Vec::new() });
        }
        Standing { ballot, promise, member: self.member, led }
    }

    /// A node said what it is.
    pub fn saw(&mut self, node: NodeId, standing: Standing) {
        if node != self.me {
            self.seen.insert(node, standing);
        }
    }
    /// A node cannot be reached any more.
    pub fn lost(&mut self, node: NodeId) {
        self.seen.remove(&node);
    }
    /// What was to be saved is durable.
    pub fn saved(&mut self) {
        if let Some(s) = self.saving.take() {
            self.saved = s;
        }
    }
    /// The group is made, or joined, and durable.
    pub fn made(&mut self, genesis: u64) {
        self.making = false;
        self.member = Some(genesis);
    }
    /// It could not be made or joined; it is tried again.
    pub fn failed(&mut self) {
        self.making = false;
    }

    fn save(&mut self, s: Saved) -> Option<Action> {
        self.saving = Some(s.clone());
        Some(Action::Save(s))
    }
    fn promise(&mut self, p: Option<Proposal>) -> Option<Action> {
        self.save(Saved { promise: p, ..self.saved.clone() })
    }
    fn is_group_in_sight(&self) -> bool {
        self.seen.values().any(|s| s.member.is_some())
    }
    fn led_group(&self) -> Option<(NodeId, u64)> {
        self.seen.iter().filter(|(_, s)| s.led).find_map(|(n, s)| s.member.map(|g| (*n, g)))
    }

    /// What is to be done now. To be called after each event, and now and then; `random` names a group that is proposed.
    pub fn next(&mut self, now: u64, random: u64) -> Option<Action> {
        if self.member.is_some() || self.saving.is_some() || self.making {
            return None;
        }
        let mut free: Vec<NodeId> = self
            .seen
            .iter()
            .filter(|(_, s)| s.member.is_none() && s.promise.is_none())
            .map(|(n, _)| *n)
            .collect();
        if free != self.free {
            self.free.clone_from(&free);
            self.changed = now;
        }
        match self.saved.promise.clone().filter(|_| !self.saved.forgot) {
            Some(p) if p.proposer == self.me => self.as_proposer(&p, now),
            Some(p) => self.as_promised(&p),
            None => {
                if let Some((via, genesis)) = self.led_group() {
                    self.making = true;
                    return Some(Action::Join { via, genesis });
                }
                if self.is_group_in_sight() || self.saved.forgot {
                    return None;
                }
                if let Some(p) = self.worthy() {
                    return self.promise(Some(p));
                }
                // While somebody with a lower id is free it is for that one to propose.
                if free.first().is_some_and(|lowest| *lowest < self.me) {
                    return None;
                }
                free.push(self.me);
                free.sort_unstable();
                let is_settled = now.saturating_sub(self.changed) >= SETTLE;
                if free.len() < self.need || (free.len() < self.expected && !is_settled) {
                    return None;
                }
                self.proposed = now;
                let ballot = self.saved.ballot + 1;
                let p = Proposal { ballot, genesis: random.max(1), proposer: self.me, members: free };
                self.save(Saved { ballot, promise: Some(p), ..self.saved.clone() })
            }
        }
    }

    /// A proposal that this node can promise itself to: the lowest proposer's.
    fn worthy(&self) -> Option<Proposal> {
        self.seen.iter().find_map(|(n, s)| {
            let p = s.promise.as_ref().filter(|p| p.proposer == *n && s.member.is_none())?;
            (p.members.contains(&self.me) && p.members.len() >= self.need).then(|| p.clone())
        })
    }

    fn as_proposer(&mut self, p: &Proposal, now: u64) -> Option<Action> {
        let promised = |n: &NodeId| {
            *n == self.me
                || self.seen.get(n).is_some_and(|s| {
                    s.promise.as_ref() == Some(p) && s.member.is_none() || s.member == Some(p.genesis)
                })
        };
        if p.members.iter().all(promised) {
            self.making = true;
            return Some(Action::Make(p.clone()));
        }
        // It is not decided, so it can be dropped: for a group that is there, for a lower proposer, or because somebody does not answer.
        let yields = self.is_group_in_sight()
            || self.worthy().is_some_and(|other| other.proposer < self.me)
            || now.saturating_sub(self.proposed) >= GIVE_UP;
        if yields { self.promise(None) } else { None }
    }

    fn as_promised(&mut self, p: &Proposal) -> Option<Action> {
        if self.seen.values().any(|s| s.member == Some(p.genesis)) {
            self.making = true;
            return Some(Action::Make(p.clone()));
        }
        let proposer = self.seen.get(&p.proposer)?;
        // What it said before it made this proposal does not count.
        let dropped = proposer.ballot >= p.ballot
            && proposer.member != Some(p.genesis)
            && proposer.promise.as_ref() != Some(p);
        if dropped { self.promise(None) } else { None }
    }
}

/// An id as a text: JSON's numbers end at 53 bits in many readers.
mod id {
    use replica::NodeId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(n: &NodeId, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::super::text_of(*n))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<NodeId, D::Error> {
        let text = String::deserialize(d)?;
        super::super::node_of(&text).ok_or_else(|| D::Error::custom("no node id"))
    }
}
mod ids {
    use replica::NodeId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(all: &[NodeId], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(all.iter().map(|n| super::super::text_of(*n)))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<NodeId>, D::Error> {
        let all = Vec::<String>::deserialize(d)?;
        let read = |t: &String| super::super::node_of(t).ok_or_else(|| D::Error::custom("no node id"));
        all.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: u64 = 200_000_000;

    fn n(id: u64) -> NodeId {
        NodeId::new(id, 0)
    }

    struct Node {
        f: Formation,
        disk: Saved,
        made: Option<Proposal>,
        joined: Option<u64>,
        up: bool,
    }

    /// Nodes that see each other or not, whose words get lost, and that die at any moment.
    struct World {
        nodes: Vec<Node>,
        configured: usize,
        now: u64,
        drawn: u64,
        cut: Vec<(usize, usize)>,
    }

    impl World {
        fn new(count: usize) -> World {
            let make = |i: usize| Node {
                f: Formation::new(n(i as u64 + 1), count - 1, Saved::default(), None, 0),
                disk: Saved::default(),
                made: None,
                joined: None,
                up: true,
            };
            World {
                nodes: (0..count).map(make).collect(),
                configured: count,
                now: 0,
                drawn: 0,
                cut: Vec::new(),
            }
        }
        fn say(&mut self, from: usize, to: usize) {
            if from == to || self.cut.contains(&(from.min(to), from.max(to))) {
                return;
            }
            let standing = self.nodes[from].f.standing(true);
            if self.nodes[from].up && self.nodes[to].up {
                self.nodes[to].f.saw(n(from as u64 + 1), standing);
            }
        }
        fn work(&mut self, i: usize, dies: bool) {
            self.drawn += 1;
            let (now, random) = (self.now, self.drawn);
            let node = &mut self.nodes[i];
            if !node.up {
                return;
            }
            match node.f.next(now, random) {
                Some(Action::Save(s)) => {
                    node.disk = s;
                    if dies {
                        node.up = false;
                    } else {
                        node.f.saved();
                    }
                }
                Some(Action::Make(p)) => {
                    node.made = Some(p.clone());
                    if dies {
                        node.up = false;
                    } else {
                        node.f.made(p.genesis);
                    }
                }
                Some(Action::Join { genesis, .. }) => {
                    node.joined = Some(genesis);
                    node.f.made(genesis);
                }
                None => {}
            }
        }
        fn restart(&mut self, i: usize) {
            let (others, now) = (self.configured - 1, self.now);
            for j in 0..self.nodes.len() {
                self.nodes[j].f.lost(n(i as u64 + 1));
            }
            let node = &mut self.nodes[i];
            let member = node.made.as_ref().map(|p| p.genesis).or(node.joined);
            node.f = Formation::new(n(i as u64 + 1), others, node.disk.clone(), member, now);
            node.up = true;
        }
        fn check(&self) {
            let made: Vec<&Proposal> = self.nodes.iter().filter_map(|n| n.made.as_ref()).collect();
            for p in &made {
                assert_eq!(p, &made[0], "K-1, K-2: one group, with the same members on each");
            }
            for (i, node) in self.nodes.iter().enumerate() {
                if let Some(p) = &node.made {
                    assert!(p.members.contains(&n(i as u64 + 1)));
                    assert!(node.joined.is_none());
                }
                if let Some(g) = node.joined {
                    assert_eq!(made.first().map(|p| p.genesis), Some(g), "who joins, joins that one");
                }
            }
        }
        /// For long.
        fn talk(&mut self) {
            for _ in 0..200 {
                self.now += STEP;
                for from in 0..self.nodes.len() {
                    for to in 0..self.nodes.len() {
                        self.say(from, to);
                    }
                }
                (0..self.nodes.len()).for_each(|i| self.work(i, false));
            }
        }
        fn heal(&mut self) {
            self.cut.clear();
            for i in 0..self.nodes.len() {
                if !self.nodes[i].up {
                    self.restart(i);
                }
            }
            self.talk();
            self.check();
            assert!(self.nodes.iter().all(|n| n.f.member().is_some()), "all are in the group in the end");
        }
    }

    #[test]
    fn three_that_start_together_form_one_group_of_three() {
        let mut w = World::new(3);
        w.heal();
        assert_eq!(w.nodes[0].made.as_ref().map(|p| p.members.len()), Some(3));
        assert!(w.nodes.iter().all(|n| n.made.is_some()), "all of them are first members");
    }

    #[test]
    fn two_of_three_are_enough_and_the_third_joins() {
        let mut w = World::new(3);
        w.cut = vec![(0, 1), (0, 2)];
        for _ in 0..20 {
            w.now += STEP;
            w.say(1, 2);
            w.say(2, 1);
            (0..3).for_each(|i| w.work(i, false));
        }
        assert_eq!(w.nodes[1].made.as_ref().map(|p| p.members.clone()), Some(vec![n(2), n(3)]));
        assert!(w.nodes[0].made.is_none(), "K-1: one alone is not more than half");
        w.heal();
        assert!(w.nodes[0].joined.is_some());
    }

    /// K-8: a member of a group that others have left behind is back while servers with empty directories come.
    #[test]
    fn nobody_joins_a_group_without_a_leader() {
        let mut fresh = Formation::new(n(3), 2, Saved::default(), None, 0);
        let member = |genesis, led| Standing { member: Some(genesis), led, ..Standing::default() };
        fresh.saw(n(1), member(7, false));
        fresh.saw(n(2), Standing::default());
        fresh.saw(n(4), Standing::default());
        assert_eq!(fresh.next(100 * STEP, 1), None, "nor is another one made beside it");
        fresh.saw(n(5), member(8, true));
        assert_eq!(fresh.next(101 * STEP, 1), Some(Action::Join { via: n(5), genesis: 8 }));
    }

    /// K-5: a loss that is found again is noted once, since a full disk takes no note; another one is noted anew.
    #[test]
    fn k5_a_loss_that_is_known_is_no_news() {
        let mut saved = Saved::default();
        assert!(!saved.is_news(0, 9, None) && saved.is_news(0, 9, Some(0)));
        saved.told = vec![(0, 7)];
        assert!(!saved.is_news(0, 9, Some(7)) && !saved.is_news(0, 7, Some(5)) && !saved.is_news(0, 9, None));
        assert!(saved.is_news(0, 9, Some(8)), "behind it");
        assert!(saved.is_news(0, 6, None), "a journal that ended later");
        assert!(saved.is_news(1, 9, Some(7)), "another journal");
        let text = serde_json::to_string(&saved).expect("JSON");
        assert_eq!(serde_json::from_str::<Saved>(&text).expect("JSON"), saved);
    }

    /// K-5: what it acknowledged in the group that it has forgotten it cannot stand for, so it is no first member of any.
    #[test]
    fn who_has_forgotten_its_group_founds_none_and_joins() {
        // Its promise of then is on its disk.
        let p = Proposal { ballot: 1, genesis: 7, proposer: n(1), members: vec![n(1), n(2), n(3)] };
        let saved = Saved { promise: Some(p.clone()), forgot: true, ..Saved::default() };
        let mut w = World::new(3);
        w.nodes[2].f = Formation::new(n(3), 2, saved, None, 0);
        w.cut = vec![(0, 1)];
        w.talk();
        assert!(
            w.nodes.iter().all(|n| n.made.is_none()),
            "K-1: one who can be a first member is not more than half"
        );
        let said = w.nodes[2].f.standing(false);
        assert!(said.promise.is_some_and(|p| p.members.is_empty()), "it is not free");
        let f = &mut w.nodes[2].f;
        f.saw(n(1), Standing { member: Some(7), led: false, ..Standing::default() });
        assert_eq!(f.next(100 * STEP, 1), None, "also not the one that it once promised itself to");
        f.saw(n(1), Standing { member: Some(7), led: true, ..Standing::default() });
        assert_eq!(f.next(101 * STEP, 1), Some(Action::Join { via: n(1), genesis: 7 }));
    }

    #[test]
    fn a_promise_outlives_its_giver_and_ends_on_the_proposers_word_only() {
        let mut w = World::new(3);
        for (from, to) in [(1, 0), (2, 0), (0, 1), (0, 2)] {
            w.say(from, to);
        }
        w.work(0, false);
        assert_eq!(w.nodes[0].f.standing(true).promise.map(|p| p.members.len()), Some(3));
        w.say(0, 1);
        w.work(1, false);
        let promise = w.nodes[1].f.standing(true).promise;
        assert!(promise.is_some());
        w.restart(1);
        w.now += 100 * STEP;
        w.say(2, 1);
        w.work(1, false);
        assert_eq!(w.nodes[1].f.standing(true).promise, promise);
        w.work(0, false);
        assert_eq!(w.nodes[0].f.standing(true).promise, None, "nobody else has answered for long");
        w.say(0, 1);
        w.work(1, false);
        assert_eq!(w.nodes[1].f.standing(true).promise, None);
        w.heal();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn c1_c2_one_group_forms_whatever_happens(
            count in 2usize..6,
            steps in proptest::collection::vec((0u8..12, 0usize..6, 0usize..6, 0u64..12), 0..250),
        ) {
            let mut w = World::new(count);
            for (what, a, b, pause) in steps {
                let (a, b) = (a % count, b % count);
                w.now += pause * STEP / 2;
                match what {
                    0..5 => w.say(a, b),
                    5..9 => w.work(a, false),
                    9 => w.work(a, true),
                    10 => if w.nodes[a].up { w.nodes[a].up = false } else { w.restart(a) },
                    _ => {
                        let pair = (a.min(b), a.max(b));
                        let before = w.cut.len();
                        w.cut.retain(|c| *c != pair);
                        if w.cut.len() == before && a != b {
                            w.cut.push(pair);
                            w.nodes[a].f.lost(n(b as u64 + 1));
                            w.nodes[b].f.lost(n(a as u64 + 1));
                        }
                    }
                }
                w.check();
            }
            w.heal();
        }
    }
}
