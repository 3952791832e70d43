//! Support between pairs of nodes, for all groups at once: the numbers behind [`raft::Liveness`].
//!
//! Owns epochs and their ends. A plain state machine: time arrives as data, effects go out. Does not send and has no task.
//!
//! How it works: a node asks for support with a heartbeat; whoever gets it gives support for a fixed time, counted from when it came, and says
//! so. The asker counts the same time from when its heartbeat left, so its count ends first. Support that was not renewed in time has ended,
//! and with it its epoch: the next one has another number.
//!
//! - D-7: an epoch of support that ended is never given again, also not after a restart of either node: epochs of a life begin at a random
//!   number, and another life of the asker ends what was given to the one before.
//! - D-8: what the asker counts on lies inside what the giver holds to.

use std::collections::BTreeMap;

use raft::{GroupId, Liveness, NodeId, PeerLive, Term};

use crate::frame::Frame;

/// What the groups have to hear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// This node's support for that one ended.
    Withdrawn(NodeId),
    /// That node's support for this one ended.
    SupportLost(NodeId),
    /// It can be reached again, or supports in a new epoch.
    Reachable(NodeId),
    /// Nothing has come from it for long.
    Unreachable(NodeId),
    /// A group is ill there, or it does not lead it in this term any more.
    Excepted(NodeId, GroupId, Term),
}

/// Earlier lives of a node that are remembered. A heartbeat that is older still would have to outlive that many restarts on its way.
const LIVES: usize = 8;

#[derive(Clone, Copy, Default, Debug)]
struct Pair {
    /// The life of the other node that was last heard of, and those before it: heartbeats of theirs that come late count for nothing.
    boot: u64,
    over: [u64; LIVES],
    given: u64,
    given_until: u64,
    got: u64,
    got_until: u64,
    /// When anything last came; 0 for never.
    heard_at: u64,
    reachable: bool,
    /// How long the answer to the last heartbeat took, nanoseconds; 0 for never.
    round_trip: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Pairs {
    boot: u64,
    epoch: u64,
    /// How long support lasts, nanoseconds.
    grant_ns: u64,
    pairs: BTreeMap<NodeId, Pair>,
}

impl Pairs {
    /// `random` must be another one in each life of the process.
    pub(crate) fn new(random: u64, grant_ns: u64) -> Pairs {
        // Far enough from the end that adding one never meets it, and never zero.
        Pairs { boot: random.max(1), epoch: (random >> 2) + 1, grant_ns, pairs: BTreeMap::new() }
    }

    /// A node with which this one shares a group.
    pub(crate) fn know(&mut self, node: NodeId) {
        self.pairs.entry(node).or_default();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.pairs.keys().copied().collect()
    }

    /// When anything last came from a node, and whether it counts as reachable; `None` if nothing ever came.
    pub(crate) fn heard_at(&self, node: NodeId) -> Option<(u64, bool)> {
        self.pairs.get(&node).filter(|p| p.heard_at > 0).map(|p| (p.heard_at, p.reachable))
    }

    /// All ways in numbers.
    pub(crate) fn metrics(&self, now: u64) -> Vec<crate::PairMetrics> {
        let one = |(node, p): (&NodeId, &Pair)| crate::PairMetrics {
            node: *node,
            reachable: p.reachable,
            heard_ns_ago: (p.heard_at > 0).then(|| now.saturating_sub(p.heard_at)),
            round_trip_ns: (p.round_trip > 0).then_some(p.round_trip),
            supported_ns: if p.got == 0 { 0 } else { p.got_until.saturating_sub(now) },
            supports: p.given != 0 && now < p.given_until,
        };
        self.pairs.iter().map(one).collect()
    }

    /// The heartbeat to be sent to everybody now.
    pub(crate) fn beat(&self, now: u64, excepted: Vec<(GroupId, Term)>) -> Frame {
        Frame::Beat { boot: self.boot, sent_at: now, excepted }
    }

    /// Anything came from a node.
    pub(crate) fn heard(&mut self, now: u64, from: NodeId, out: &mut Vec<Effect>) {
        let p = self.pairs.entry(from).or_default();
        p.heard_at = now;
        if !p.reachable {
            p.reachable = true;
            out.push(Effect::Reachable(from));
        }
    }

    /// A heartbeat came; the answer.
    pub(crate) fn on_beat(
        &mut self,
        now: u64,
        from: NodeId,
        boot: u64,
        sent_at: u64,
        out: &mut Vec<Effect>,
    ) -> Frame {
        self.heard(now, from, out);
        let p = self.pairs.entry(from).or_default();
        if p.over.contains(&boot) {
            return Frame::Support { epoch: 0, boot, sent_at };
        }
        if p.boot != boot && p.boot != 0 {
            p.over.rotate_right(1);
            p.over[0] = p.boot;
        }
        if p.given != 0 && (p.boot != boot || now >= p.given_until) {
            p.given = 0;
            out.push(Effect::Withdrawn(from));
        }
        p.boot = boot;
        if p.given == 0 {
            self.epoch += 1;
            p.given = self.epoch;
        }
        p.given_until = now.saturating_add(self.grant_ns);
        Frame::Support { epoch: p.given, boot, sent_at }
    }

    /// An answer to a heartbeat came.
    pub(crate) fn on_support(
        &mut self,
        now: u64,
        from: NodeId,
        (epoch, boot, sent_at): (u64, u64, u64),
        out: &mut Vec<Effect>,
    ) {
        self.heard(now, from, out);
        if boot != self.boot || sent_at > now || epoch == 0 {
            return;
        }
        let until = sent_at.saturating_add(self.grant_ns);
        let p = self.pairs.entry(from).or_default();
        p.round_trip = (now - sent_at).max(1);
        if until <= now || (epoch == p.got && until <= p.got_until) {
            return;
        }
        let new = epoch != p.got;
        if new && p.got != 0 {
            if until <= p.got_until {
                // A late answer of an epoch before.
                return;
            }
            out.push(Effect::SupportLost(from));
        }
        (p.got, p.got_until) = (epoch, until);
        if new {
            out.push(Effect::Reachable(from));
        }
    }

    /// A link broke.
    pub(crate) fn broken(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        if let Some(p) = self.pairs.get_mut(&node)
            && std::mem::take(&mut p.reachable)
        {
            out.push(Effect::Unreachable(node));
        }
    }

    /// When the first support ends that this node gives, if it is not renewed.
    pub(crate) fn next_end(&self) -> Option<u64> {
        self.pairs.values().filter(|p| p.given != 0).map(|p| p.given_until).min()
    }

    /// Ends what is over.
    pub(crate) fn tick(&mut self, now: u64, out: &mut Vec<Effect>) {
        for (node, p) in &mut self.pairs {
            if p.given != 0 && now >= p.given_until {
                p.given = 0;
                out.push(Effect::Withdrawn(*node));
            }
            if p.got != 0 && now >= p.got_until {
                p.got = 0;
                out.push(Effect::SupportLost(*node));
            }
            if p.reachable && now >= p.heard_at.saturating_add(self.grant_ns) {
                p.reachable = false;
                out.push(Effect::Unreachable(*node));
            }
        }
    }

    /// Writes down what the cores read. D-7: an epoch stays in the table until [`Effect::Withdrawn`] says that it ended.
    pub(crate) fn fill(&self, live: &mut Liveness) {
        for (node, p) in &self.pairs {
            live.set(PeerLive {
                node: *node,
                reachable: p.reachable,
                given: p.given,
                got: p.got,
                got_until: p.got_until,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: NodeId = NodeId::new(1, 0);
    const B: NodeId = NodeId::new(2, 0);
    const GRANT: u64 = 100;

    fn live(p: &Pairs) -> Liveness {
        let mut l = Liveness::default();
        p.fill(&mut l);
        l
    }

    /// Sends a heartbeat from `a` at `t`, which is `there` at the other end and back at `back`.
    fn exchange(a: &mut Pairs, b: &mut Pairs, t: u64, there: u64, back: u64) -> (Vec<Effect>, Vec<Effect>) {
        let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
        let Frame::Beat { boot, sent_at, .. } = a.beat(t, Vec::new()) else { panic!("a beat is a beat") };
        let Frame::Support { epoch, boot, sent_at } = b.on_beat(there, A, boot, sent_at, &mut at_b) else {
            panic!("the answer is support")
        };
        a.on_support(back, B, (epoch, boot, sent_at), &mut at_a);
        (at_a, at_b)
    }

    #[test]
    fn support_is_given_renewed_and_ends() {
        let (mut a, mut b) = (Pairs::new(40, GRANT), Pairs::new(80, GRANT));
        let (at_a, at_b) = exchange(&mut a, &mut b, 10, 15, 20);
        assert_eq!((at_a.len(), at_b), (2, vec![Effect::Reachable(A)]), "reached, and supported");
        let epoch = live(&b).given(A);
        assert_eq!(live(&a).got_until(B, epoch), 110, "counted from when it left");
        assert_eq!((a.next_end(), b.next_end()), (None, Some(115)));
        exchange(&mut a, &mut b, 60, 70, 80);
        assert_eq!((live(&b).given(A), live(&a).got_until(B, epoch)), (epoch, 160));
        let (mut out, mut out_b) = (Vec::new(), Vec::new());
        a.tick(159, &mut out);
        assert!(out.is_empty());
        a.tick(160, &mut out);
        assert_eq!(out, [Effect::SupportLost(B)]);
        b.tick(169, &mut out_b);
        assert!(out_b.is_empty(), "D-8: the giver holds to it longer");
        b.tick(170, &mut out_b);
        assert_eq!(out_b, [Effect::Withdrawn(A), Effect::Unreachable(A)]);
        let (_, at_b) = exchange(&mut a, &mut b, 200, 210, 220);
        assert_eq!(at_b, [Effect::Reachable(A)]);
        assert_ne!(live(&b).given(A), epoch, "D-7: the epoch is another one");
    }

    #[test]
    fn d7_another_life_of_the_asker_ends_what_was_given_to_the_one_before() {
        let (mut a, mut b) = (Pairs::new(40, GRANT), Pairs::new(80, GRANT));
        exchange(&mut a, &mut b, 10, 15, 20);
        let epoch = live(&b).given(A);
        let mut again = Pairs::new(44, GRANT);
        let (_, at_b) = exchange(&mut again, &mut b, 30, 35, 40);
        assert_eq!(at_b, [Effect::Withdrawn(A)]);
        assert_ne!(live(&b).given(A), epoch);
        // An answer to the life before is not this one's.
        let mut out = Vec::new();
        again.on_support(41, B, (epoch, 40, 10), &mut out);
        assert_eq!((out.len(), live(&again).got_until(B, epoch)), (0, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        /// D-7, D-8 under loss, delay and restarts: whenever A counts on an epoch, B still holds to it.
        #[test]
        fn d8_what_is_counted_on_is_held_to(
            steps in proptest::collection::vec((0u64..60, 0u64..80, 0u64..80, 0u8..10), 1..60),
        ) {
            let (mut a, mut b) = (Pairs::new(1 << 20, GRANT), Pairs::new(1 << 40, GRANT));
            let (mut now, mut lives) = (1000, 0u64);
            // Answers under way to A, and heartbeats to B, with the moments at which they arrive.
            let mut beats: Vec<(u64, u64, u64)> = Vec::new();
            let mut answers: Vec<(u64, (u64, u64, u64))> = Vec::new();
            let mut ended: Vec<u64> = Vec::new();
            for (pause, there, back, what) in steps {
                now += pause;
                if what == 0 {
                    lives += 1;
                    a = Pairs::new((1 << 20) + (lives << 4), GRANT);
                    // A new life has a new link, and nothing of the old one comes behind it.
                    beats.clear();
                }
                let before = live(&b).given(A);
                let mut out = Vec::new();
                if what != 1 && let Frame::Beat { boot, sent_at, .. } = a.beat(now, Vec::new()) {
                    beats.push((now + there, boot, sent_at));
                }
                for (_, boot, sent_at) in beats.extract_if(.., |b| b.0 <= now).collect::<Vec<_>>() {
                    if let Frame::Support { epoch, boot, sent_at } = b.on_beat(now, A, boot, sent_at, &mut out) {
                        answers.push((now + back, (epoch, boot, sent_at)));
                    }
                }
                b.tick(now, &mut out);
                if before != 0 && live(&b).given(A) != before {
                    prop_assert!(out.contains(&Effect::Withdrawn(A)));
                    ended.push(before);
                }
                for (_, s) in answers.extract_if(.., |s| s.0 <= now).collect::<Vec<_>>() {
                    a.on_support(now, B, s, &mut Vec::new());
                }
                a.tick(now, &mut Vec::new());
                let given = live(&b).given(A);
                prop_assert!(!ended.contains(&given), "D-7");
                if let Some(p) = live(&a).get(B).filter(|p| p.got != 0 && p.got_until > now) {
                    prop_assert_eq!(p.got, given, "D-8");
                }
            }
        }
    }
}
