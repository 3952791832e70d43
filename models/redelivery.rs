//! Consumer redelivery: what is delivered, how often, and what was confirmed, while leaders come and go.
//!
//! Owns the world around [`stream::consumer::Consumer`], the very type that serves: two replicas with their messages, one log of deltas that
//! consensus has made (whose own orders `quorum_write` explores), clients that hold deliveries. Whatever is delivered is decided by
//! the consumer; here is only what an engine owes it.
//!
//! What makes the worlds small enough: a delivery reaches its client at once; time moves in whole waits; a leader is
//! lost with what it has proposed and nobody has committed, and its successor leads at once, with all of the log applied.
//!
//! Invariants, checked in each state:
//! - RD-1: at least once: from here on, calm brings every message to an acknowledgement, or to its last delivery.
//! - RD-2: none is delivered more often than `max_deliver`, through any change of leaders.
//! - RD-3: what was confirmed does not come again.
//! - RD-4: one owner: no message leaves again before its wait is over, unless its owner refused it.
//! - RD-5: what the log says of floors never goes back, and is the same on each replica.
//! - RD-6: a work queue holds nothing in the end that was acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    hash::{Hash, Hasher},
};

use bytes::Bytes;
use stateright::{Model, Property};
use stream::{
    Memory, Messages, MessagesMut, Now, Stored,
    consumer::{AckPolicy, AckTokens, Consumer, ConsumerConfig, Identity, Listeners, Output},
};

/// The wait for an acknowledgement.
const WAIT: u64 = 1_000;
/// Turns of calm after which everything has to be done.
const CALM: usize = 64;

/// A world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Its name.
    pub name: &'static str,
    /// Messages of the stream.
    pub messages: u64,
    /// Deliveries that a message may have; 0 for any number.
    pub max_deliver: u64,
    /// Acknowledged messages leave the stream.
    pub work_queue: bool,
    /// How often each thing may happen.
    pub budget: Budget,
    /// Different states, if the world is known to its end.
    pub states: Option<usize>,
}

/// How often each thing may happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Budget {
    /// Requests for one message.
    pub pulls: u8,
    /// Acknowledgements, confirmed ones.
    pub acks: u8,
    /// Refusals.
    pub naks: u8,
    /// Waits that pass.
    pub waits: u8,
    /// Leaders that are lost.
    pub changes: u8,
}

/// The worlds that are run to their ends with the tests.
pub const BOUNDED: &[Config] = &[
    Config {
        name: "twice",
        messages: 1,
        max_deliver: 2,
        work_queue: false,
        budget: Budget { pulls: 3, acks: 1, naks: 1, waits: 2, changes: 2 },
        states: Some(61_909),
    },
    Config {
        name: "queue",
        messages: 2,
        max_deliver: 0,
        work_queue: true,
        budget: Budget { pulls: 3, acks: 2, naks: 0, waits: 1, changes: 1 },
        states: Some(33_089),
    },
];

/// What an engine may do wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Deliveries leave before they are logged.
    DeliversUnlogged,
    /// A new leader begins without the end of the log.
    LeadsUnapplied,
    /// Acknowledgements are confirmed before they are logged.
    ConfirmsUnlogged,
}

/// What happens next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// A client asks for one message.
    Pull,
    /// The leader proposes what it has noted.
    Propose,
    /// The oldest proposal is committed, and applied by the leader.
    Commit,
    /// The follower applies one entry more.
    Follow,
    /// A client acknowledges the delivery that it holds at this place, and wants to know.
    Ack(usize),
    /// A client refuses it.
    Nak(usize),
    /// A wait passes.
    Wait,
    /// The leader is lost.
    Change,
}

#[derive(Clone, Debug)]
struct Node {
    consumer: Consumer,
    msgs: Memory,
    applied: usize,
    /// The log's floors.
    floors: (u64, u64),
}

/// What is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Which invariant.
    pub id: &'static str,
    /// What happened.
    pub what: String,
}

/// A state of the world.
#[derive(Clone, Debug)]
pub struct State {
    nodes: [Node; 2],
    leader: usize,
    epoch: u64,
    now: u64,
    log: Vec<Bytes>,
    proposed: VecDeque<Bytes>,
    /// What clients hold: sequence, number and count of the delivery.
    held: Vec<(u64, u64, u64)>,
    /// How often each was delivered, and before when it must not leave again.
    given: BTreeMap<u64, (u64, u64)>,
    confirmed: BTreeSet<u64>,
    exceeded: BTreeSet<u64>,
    left: Budget,
    /// The first thing that went wrong.
    pub broken: Option<Broken>,
}

impl State {
    /// All that can make a difference, as text: the consumer's own words for itself.
    fn text(&self) -> String {
        let mut out = String::new();
        write!(out, "{self:?}").expect("writing to a string does not fail");
        out
    }
    fn wrong(&mut self, id: &'static str, what: String) {
        self.broken.get_or_insert(Broken { id, what });
    }
    fn now(&self) -> Now {
        Now { wall: self.now as i64, mono: self.now }
    }
}

impl PartialEq for State {
    fn eq(&self, o: &State) -> bool {
        self.text() == o.text()
    }
}
impl Eq for State {}
impl Hash for State {
    fn hash<H: Hasher>(&self, h: &mut H) {
        self.text().hash(h);
    }
}

/// Whoever asked is there.
struct All;
impl Listeners for All {
    fn generation(&self) -> u64 {
        1
    }
    fn listens(&self, _: &[u8]) -> bool {
        true
    }
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Redelivery {
    /// The world.
    pub config: Config,
    /// What is planted in it.
    pub bug: Option<Bug>,
}

impl Redelivery {
    fn consumer(&self) -> Consumer {
        let config = ConsumerConfig {
            durable_name: "c".into(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: WAIT as i64,
            max_deliver: if self.config.max_deliver > 0 { self.config.max_deliver as i64 } else { -1 },
            max_ack_pending: 8,
            max_waiting: 8,
            ..ConsumerConfig::default()
        };
        let retains = self.config.work_queue;
        let mut c =
            Consumer::new(Identity { stream: "S", name: "c", seed: 1, retains, max_payload: 0 }, config);
        c.set_logged(true);
        c.set_strict(self.bug != Some(Bug::DeliversUnlogged));
        c
    }

    /// Lets the leader decide, and notes what comes of it.
    fn pump(&self, s: &mut State) {
        let mut out = Vec::new();
        let now = s.now();
        let node = &mut s.nodes[s.leader];
        let Ok(_) = node.consumer.pump(&node.msgs, &All, now, 8, &mut out);
        self.carry(s, out);
    }

    fn carry(&self, s: &mut State, out: Vec<Output>) {
        for o in out {
            match o {
                Output::Deliver(d) => self.delivered(s, d.message.seq, d.dseq, d.deliveries),
                Output::AckReply { to } => {
                    let seq = std::str::from_utf8(&to).ok().and_then(|t| t.parse().ok());
                    s.confirmed.insert(seq.expect("replies are sequences in this world"));
                }
                Output::Advisory(stream::consumer::Advisory::MaxDeliveries { stream_seq, .. }) => {
                    s.exceeded.insert(stream_seq);
                }
                _ => {}
            }
        }
    }

    fn delivered(&self, s: &mut State, seq: u64, dseq: u64, deliveries: u64) {
        let (times, not_before) = s.given.get(&seq).copied().unwrap_or_default();
        let times = times + 1;
        let max = self.config.max_deliver;
        if max > 0 && (times > max || deliveries > max) {
            s.wrong("RD-2", format!("{seq} leaves for the {times}th time, as delivery {deliveries}"));
        }
        if s.confirmed.contains(&seq) {
            s.wrong("RD-3", format!("{seq} was confirmed and comes again"));
        }
        if s.now < not_before {
            s.wrong("RD-4", format!("{seq} has an owner until {not_before} and leaves at {}", s.now));
        }
        s.given.insert(seq, (times, s.now + WAIT));
        s.held.push((seq, dseq, deliveries));
    }

    fn apply(&self, s: &mut State, at: usize) {
        let node = &mut s.nodes[at];
        let Some(delta) = s.log.get(node.applied).cloned() else { return };
        node.applied += 1;
        let mut out = Vec::new();
        if node.consumer.apply_delta(&delta, &mut out).is_err() {
            return s.wrong("RD-5", "a delta cannot be read".into());
        }
        let mut removed = Vec::new();
        for o in &out {
            if let Output::Acked { first, last } = o {
                removed.extend(*first..=*last);
            }
        }
        for seq in removed {
            if let Ok(Some(meta)) = node.msgs.meta(seq) {
                let Ok(_) = node.msgs.remove(seq);
                node.consumer.removed(seq, &meta.subject, &mut Vec::new());
            }
        }
        let logged = node.consumer.logged();
        let floors = (logged.ack_dseq, logged.ack_seq);
        let before = std::mem::replace(&mut node.floors, floors);
        if floors.0 < before.0 || floors.1 < before.1 {
            s.wrong("RD-5", format!("floors go from {before:?} to {floors:?}"));
        }
        let [a, b] = &s.nodes;
        if a.applied == b.applied && a.consumer.logged() != b.consumer.logged() {
            s.wrong("RD-5", "replicas that applied the same differ".into());
        }
    }

    fn propose(&self, s: &mut State) {
        if let Some(delta) = s.nodes[s.leader].consumer.take_delta() {
            s.proposed.push_back(delta);
        }
    }

    fn commit(&self, s: &mut State) {
        if let Some(delta) = s.proposed.pop_front() {
            s.log.push(delta);
            self.apply(s, s.leader);
        }
    }

    fn answer(&self, s: &mut State, at: usize, payload: &[u8]) {
        let (seq, dseq, deliveries) = s.held.remove(at);
        let reply = Bytes::from(seq.to_string());
        let confirm = payload.is_empty();
        let now = s.now();
        let tokens = AckTokens {
            place: None,
            stream: b"S",
            consumer: b"c",
            deliveries,
            sseq: seq,
            dseq,
            time: 0,
            pending: 0,
        };
        let mut out = Vec::new();
        let c = &mut s.nodes[s.leader].consumer;
        let owned = c.ledger().get(seq).is_some_and(|e| e.deliveries as u64 == deliveries);
        c.ack(&tokens, payload, confirm.then_some(&reply), now, &mut out);
        if self.bug == Some(Bug::ConfirmsUnlogged) && confirm {
            s.confirmed.insert(seq);
        }
        if !confirm
            && owned
            && let Some(g) = s.given.get_mut(&seq)
        {
            g.1 = s.now;
        }
        self.carry(s, out);
    }

    fn change(&self, s: &mut State) {
        s.proposed.clear();
        s.nodes[s.leader].consumer.unlead(&mut Vec::new());
        s.leader = 1 - s.leader;
        if self.bug != Some(Bug::LeadsUnapplied) {
            while s.nodes[s.leader].applied < s.log.len() {
                self.apply(s, s.leader);
            }
        }
        s.epoch += 1;
        let (epoch, now) = (s.epoch, s.now());
        s.nodes[s.leader].consumer.lead(epoch, now);
    }

    /// No more faults, and clients that do their work: what is not done then is never done.
    fn calm(&self, s: &State) -> Option<Broken> {
        let mut s = s.clone();
        for _ in 0..CALM {
            let now = s.now();
            let leader = s.leader;
            s.nodes[leader].consumer.pull(&Bytes::from_static(b"r"), b"4", now, &mut Vec::new());
            for _ in 0..3 {
                self.pump(&mut s);
                self.propose(&mut s);
                while !s.proposed.is_empty() {
                    self.commit(&mut s);
                }
            }
            while !s.held.is_empty() {
                self.answer(&mut s, 0, b"");
            }
            self.propose(&mut s);
            while !s.proposed.is_empty() {
                self.commit(&mut s);
            }
            s.now += WAIT;
        }
        if s.broken.is_some() {
            return s.broken;
        }
        for seq in 1..=self.config.messages {
            if !s.given.contains_key(&seq) && !s.exceeded.contains(&seq) {
                return Some(Broken { id: "RD-1", what: format!("{seq} is never delivered") });
            }
        }
        let node = &s.nodes[s.leader];
        if !node.consumer.ledger().is_empty() {
            return Some(Broken { id: "RD-1", what: "an acknowledgement is awaited for ever".into() });
        }
        if self.config.work_queue && node.msgs.totals().msgs > 0 {
            return Some(Broken { id: "RD-6", what: "the work queue is not empty in the end".into() });
        }
        None
    }
}

impl Model for Redelivery {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut msgs = Memory::new();
        for seq in 1..=self.config.messages {
            let subject = Bytes::from_static(b"a");
            msgs.push(Stored {
                seq,
                time: 0,
                expires: None,
                subject,
                headers: Bytes::new(),
                payload: Bytes::new(),
            });
        }
        let node = || {
            let mut consumer = self.consumer();
            let Ok(()) = consumer.start(&msgs, false);
            Node { consumer, msgs: msgs.clone(), applied: 0, floors: (0, 0) }
        };
        let mut nodes = [node(), node()];
        nodes[0].consumer.lead(1, Now { wall: 0, mono: 0 });
        vec![State {
            nodes,
            leader: 0,
            epoch: 1,
            now: 0,
            log: Vec::new(),
            proposed: VecDeque::new(),
            held: Vec::new(),
            given: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            exceeded: BTreeSet::new(),
            left: self.config.budget,
            broken: None,
        }]
    }

    fn actions(&self, s: &State, out: &mut Vec<Action>) {
        if s.broken.is_some() {
            return;
        }
        if s.left.pulls > 0 {
            out.push(Action::Pull);
        }
        if s.nodes[s.leader].consumer.has_delta() {
            out.push(Action::Propose);
        }
        if !s.proposed.is_empty() {
            out.push(Action::Commit);
        }
        if s.nodes[1 - s.leader].applied < s.log.len() {
            out.push(Action::Follow);
        }
        for at in 0..s.held.len() {
            if s.left.acks > 0 {
                out.push(Action::Ack(at));
            }
            if s.left.naks > 0 {
                out.push(Action::Nak(at));
            }
        }
        if s.left.waits > 0 {
            out.push(Action::Wait);
        }
        if s.left.changes > 0 {
            out.push(Action::Change);
        }
    }

    fn next_state(&self, s: &State, action: Action) -> Option<State> {
        let mut s = s.clone();
        match action {
            Action::Pull => {
                s.left.pulls -= 1;
                let now = s.now();
                s.nodes[s.leader].consumer.pull(&Bytes::from_static(b"r"), b"1", now, &mut Vec::new());
            }
            Action::Propose => self.propose(&mut s),
            Action::Commit => self.commit(&mut s),
            Action::Follow => {
                let follower = 1 - s.leader;
                self.apply(&mut s, follower);
            }
            Action::Ack(at) => {
                s.left.acks -= 1;
                self.answer(&mut s, at, b"");
            }
            Action::Nak(at) => {
                s.left.naks -= 1;
                self.answer(&mut s, at, b"-NAK");
            }
            Action::Wait => {
                s.left.waits -= 1;
                s.now += WAIT;
            }
            Action::Change => {
                s.left.changes -= 1;
                self.change(&mut s);
            }
        }
        self.pump(&mut s);
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Redelivery>> {
        let mut all = vec![
            Property::<Redelivery>::always("holds", |_, s| s.broken.is_none()),
            Property::<Redelivery>::always("RD-1", |m, s| s.broken.is_some() || m.calm(s).is_none()),
            Property::<Redelivery>::sometimes("something is confirmed", |_, s| !s.confirmed.is_empty()),
            Property::<Redelivery>::sometimes("a message comes twice", |_, s| {
                s.given.values().any(|(times, _)| *times > 1)
            }),
            Property::<Redelivery>::sometimes("a new leader delivers", |_, s| {
                s.epoch > 1 && !s.held.is_empty()
            }),
        ];
        if self.config.max_deliver > 0 {
            all.push(Property::<Redelivery>::sometimes("a message is given up", |_, s| {
                !s.exceeded.is_empty()
            }));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use stateright::{Checker, HasDiscoveries};

    use super::*;

    fn explore(config: Config, bug: Option<Bug>) -> (usize, Vec<String>, Vec<&'static str>) {
        let model = Redelivery { config, bug };
        // Which of the properties that a bug breaks is met first must not hang on a race of threads.
        let threads = if bug.is_some() { 1 } else { 2 };
        let checker =
            model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
        let found = checker.discoveries();
        let (mut failures, mut missing) = (Vec::new(), Vec::new());
        for p in model.properties() {
            match (p.expectation, found.get(p.name)) {
                (stateright::Expectation::Always, Some(path)) => {
                    let last = path.last_state();
                    let broken = last.broken.clone().or_else(|| model.calm(last));
                    failures.push(format!("{broken:?} after {:?}", path.clone().into_actions()));
                }
                (stateright::Expectation::Sometimes, None) => missing.push(p.name),
                _ => {}
            }
        }
        (checker.unique_state_count(), failures, missing)
    }

    #[test]
    fn bounded_worlds_keep_rd1_to_rd6() {
        for config in BOUNDED {
            let (states, failures, missing) = explore(*config, None);
            println!("{}: {states} states", config.name);
            assert_eq!(failures, Vec::<String>::new(), "{}", config.name);
            assert_eq!(missing, Vec::<&str>::new(), "{}: too calm a world proves nothing", config.name);
            assert_eq!(Some(states), config.states, "{}: the number of states changed", config.name);
        }
    }

    #[test]
    fn planted_bugs_are_found() {
        // A delivery that no log tells of is counted wrongly (RD-2) and has no owner after a change of leaders (RD-4).
        for (bug, world, ids) in [
            (Bug::DeliversUnlogged, 0, ["RD-2", "RD-4"].as_slice()),
            (Bug::LeadsUnapplied, 1, &["RD-"]),
            (Bug::ConfirmsUnlogged, 1, &["RD-3"]),
        ] {
            let (_, failures, _) = explore(BOUNDED[world], Some(bug));
            let breaks = |f: &String| ids.iter().any(|id| f.contains(id));
            assert!(failures.iter().any(breaks), "{bug:?} is not found: {failures:?}");
        }
    }
}
