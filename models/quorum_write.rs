//! The quorum write: clients write through a leader, and what was acknowledged stays.
//!
//! Owns the state, the actions and what each does. A step of a core, the applies and the reads from disk that it asks for, and the
//! look at what came of it are one action, since nobody else can see what lies between. Writes to disk are actions of their own
//! ([`Action::Persist`]) where a crash may come between.
//!
//! What makes the worlds small enough, and what is lost by it:
//! - A crash and the restart are one action: while a replica is down its messages wait, and that they may anyway.
//! - Messages that can have no effect are dropped, judged by what is *durable* at the receiver, since a crash undoes the rest.
//! - A term that begins while a request of an older one is under way: the answer would only tell the sender that its term is over.
//!   It learns that from the next leader, too. [`Config::answers_to_the_past`] keeps those messages.
//! - Beats only tell a commit sooner than the next append does. [`Config::beats`] keeps them.
//! - A pre-vote only prevents elections. Without [`Config::pre_votes`] it is taken for granted.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use bytes::Bytes;
use raft::{
    Body, EntryKind, Event, Loaded, LogIndex, Message, Mutant, NodeId, Note, Options, Proposal, Ready,
    RoleName, Term,
};
use stateright::{Model, Property};

use crate::net::{Envelope, Net};
use crate::node::{GROUP, Identity, Node, liveness, name, position};
use crate::properties;

/// Far more steps than one action can take.
const STEPS_MAX: u32 = 1000;

/// How often each thing may happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Budget {
    /// Election timeouts.
    pub timeouts: u8,
    /// A leader's repetitions of what was not answered.
    pub resends: u8,
    /// Writes by clients.
    pub writes: u8,
    /// Crashes, each with its restart.
    pub crashes: u8,
    /// Messages that come twice.
    pub duplicates: u8,
}

/// When writes become durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persist {
    /// At any time after they were issued.
    Explicit,
    /// So while a crash may still come, and at once when none can come any more.
    WhileCrashesRemain,
    /// At once.
    AtOnce,
}

/// Where a world begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Nobody leads, the logs are empty.
    Fresh,
    /// The first replica leads and its first entry is everywhere. What that took is not in the budget.
    Elected,
}

/// A bounded world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// By which it is run.
    pub name: &'static str,
    /// Why it is there.
    pub why: &'static str,
    /// Number of replicas.
    pub nodes: usize,
    /// Where it begins.
    pub start: Start,
    /// What may happen.
    pub budget: Budget,
    /// Whose election timeouts may end, by position. Positions are alike, so that fewer candidates mean fewer copies of the same.
    pub candidates: &'static [usize],
    /// Who may crash.
    pub crashers: &'static [usize],
    /// When writes are durable.
    pub persist: Persist,
    /// Whether pre-votes are sent rather than taken for granted.
    pub pre_votes: bool,
    /// Whether beats and their answers are sent.
    pub beats: bool,
    /// Whether messages of older terms are delivered, to be answered with the newer one.
    pub answers_to_the_past: bool,
    /// Whether a note that a peer lost its disk is a failure. It need not be true where answers overtake each other: see
    /// docs/design/0013-models.md.
    pub accusations: bool,
    /// Unique states of the whole world, if it was ever run to its end.
    pub states: Option<usize>,
}

/// A bug planted in the core, or in the model's own driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// One of the core's.
    Core(Mutant),
    /// The driver acknowledges to the client when the leader's own write is durable.
    AckBeforeQuorum,
}

/// Something that went wrong in a step; the property with the id tells of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Broken {
    /// Of the invariant.
    pub id: &'static str,
    /// What happened.
    pub what: String,
}

/// Something that may not be lost any more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Promised {
    /// Where.
    pub index: LogIndex,
    /// Which entry.
    pub identity: Identity,
    /// Term of the replica that committed or acknowledged it first.
    pub by: Term,
}

/// A state of the world.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The replicas, by position.
    pub nodes: Vec<Arc<Node>>,
    /// The messages under way.
    pub net: Net,
    /// What may still happen.
    pub left: Budget,
    /// Who led which term, in order of terms.
    pub leaders: Vec<(Term, NodeId)>,
    /// What was ever committed, in order of the log.
    pub committed: Vec<Promised>,
    /// What was acknowledged to clients, in order of the log.
    pub acked: Vec<Promised>,
    /// What went wrong; nothing happens after it.
    pub broken: Option<Arc<Broken>>,
}

/// Something that may happen next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// An election timeout ends.
    Timeout(usize),
    /// A leader repeats what was not answered.
    Resend(usize),
    /// A client writes.
    Write(usize),
    /// The oldest write of a replica becomes durable.
    Persist(usize),
    /// A message arrives.
    Deliver(Envelope),
    /// A message arrives and will arrive again.
    Duplicate(Envelope),
    /// A replica loses what is not durable and starts again.
    Crash(usize),
}

/// The model of one world.
#[derive(Clone, Debug)]
pub struct QuorumWrite {
    /// The world.
    pub config: Config,
    /// What is planted.
    pub bug: Option<Bug>,
    options: Arc<Options>,
}

impl QuorumWrite {
    /// A world, perhaps with a bug.
    #[must_use]
    pub fn new(config: Config, bug: Option<Bug>) -> Self {
        // One entry a message, so that each may be alone at its receiver.
        let options = Options { message_bytes_max: 1, ..Options::default() };
        Self { config, bug, options: Arc::new(options) }
    }

    fn mutant(&self) -> Option<Mutant> {
        match self.bug {
            Some(Bug::Core(mutant)) => Some(mutant),
            _ => None,
        }
    }

    fn initial(&self) -> State {
        let nodes = (0..self.config.nodes)
            .map(|at| Arc::new(Node::fresh(at, self.config.nodes, &self.options, self.mutant())))
            .collect();
        let mut state = State {
            nodes,
            net: Net::default(),
            left: self.config.budget,
            leaders: Vec::new(),
            committed: Vec::new(),
            acked: Vec::new(),
            broken: None,
        };
        if self.config.start == Start::Elected {
            self.carry_out(&mut state, &Action::Timeout(0));
            // Until all is quiet.
            loop {
                let pending = state.nodes.iter().position(|n| !n.pending.is_empty()).map(Action::Persist);
                let next = pending.or_else(|| state.net.iter().next().cloned().map(Action::Deliver));
                let Some(action) = next else { break };
                self.carry_out(&mut state, &action);
            }
            assert!(state.nodes[0].leads(), "an undisturbed election succeeds");
            state.left = self.config.budget;
        }
        state
    }

    /// Does what an action says; what goes wrong ends up in `broken`.
    fn carry_out(&self, state: &mut State, action: &Action) {
        let mut next = state.clone();
        let done = caught(|| Doing { model: self, state: &mut next }.act(action));
        match done {
            Ok(()) => *state = next,
            Err(panic) => {
                let what = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_default();
                // The core's own ids are in the text; the first one that is ours tells where it belongs.
                let id = if what.starts_with("Q-7") { "Q-7" } else { "Q-6" };
                state.broken = Some(Arc::new(Broken { id, what }));
            }
        }
    }

    /// Whether a message can still make a difference to its receiver (or, by the answer, to its sender) in this world.
    fn matters(&self, message: &Message, nodes: &[Arc<Node>]) -> bool {
        let node = &nodes[position(message.to)];
        let status = node.core.status();
        // A crash may take the receiver back to what is durable, but not further.
        let past = message.term < node.hard.term;
        let now_or_past = message.term <= status.term;
        match &message.body {
            Body::PreVote { .. } | Body::PreVoteReply { .. } => {
                self.config.pre_votes && message.term > node.hard.term
            }
            Body::Vote { .. } | Body::Append(_) | Body::TimeoutNow => {
                !past || self.config.answers_to_the_past
            }
            Body::Beat { .. } => self.config.beats && (!past || self.config.answers_to_the_past),
            // Who asked is a candidate of that term since the request left, or never will be one again.
            Body::VoteReply { .. } => !past && (!now_or_past || status.role == RoleName::Candidate),
            Body::BeatOk { .. } => self.config.beats && !past && (!now_or_past || node.leads()),
            Body::AppendReject { .. } => !past && (!now_or_past || node.leads()),
            Body::AppendOk { durable, accepted, .. } => {
                let news = node.core.peers().iter().find(|p| p.node == message.from).is_none_or(|p| {
                    *durable > p.matched || *accepted >= p.next || p.feed != raft::progress::Feed::Replicate
                });
                !past && (!now_or_past || node.leads() && news)
            }
            Body::Resign | Body::Behind => message.term > node.hard.term,
            Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::Snapshot(_)
            | Body::SnapshotFailed { .. }
            | Body::RepairAsk { .. }
            | Body::RepairGive(_) => true,
        }
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs something whose panics are findings, so that they are nothing for the terminal.
fn caught(what: impl FnOnce()) -> std::thread::Result<()> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let done = catch_unwind(AssertUnwindSafe(what));
    QUIET.set(false);
    done
}

/// An action under way.
struct Doing<'a> {
    model: &'a QuorumWrite,
    state: &'a mut State,
}

impl Doing<'_> {
    fn act(&mut self, action: &Action) {
        let at = match action {
            Action::Timeout(at) => {
                self.state.left.timeouts = self.state.left.timeouts.saturating_sub(1);
                self.time_out(*at);
                *at
            }
            Action::Resend(at) => {
                self.state.left.resends -= 1;
                self.step(*at, Event::Tick);
                *at
            }
            Action::Write(at) => {
                self.state.left.writes -= 1;
                let number = self.state.left.writes;
                let payload = Bytes::copy_from_slice(&[number]);
                let write = Proposal { kind: EntryKind::Normal, digest: u32::from(number), payload };
                self.step(*at, Event::Propose(vec![write]));
                *at
            }
            Action::Persist(at) => {
                self.persist(*at);
                *at
            }
            Action::Deliver(envelope) | Action::Duplicate(envelope) => {
                if let Action::Deliver(_) = action {
                    self.state.net.remove(envelope);
                } else {
                    self.state.left.duplicates -= 1;
                }
                let message = envelope.message();
                let at = position(message.to);
                self.step(at, Event::Message(message.clone()));
                at
            }
            Action::Crash(at) => {
                self.state.left.crashes -= 1;
                let model = self.model;
                self.node(*at).crash(&model.options, model.mutant());
                *at
            }
        };
        let at_once = match self.model.config.persist {
            Persist::Explicit => false,
            Persist::WhileCrashesRemain => self.state.left.crashes == 0,
            Persist::AtOnce => true,
        };
        if at_once {
            // With the last crash this is also true of the others.
            for node in 0..self.state.nodes.len() {
                let mut writes = 0;
                while self.persist(node) {
                    writes += 1;
                    assert!(writes < STEPS_MAX, "one write makes the next without end");
                }
                if writes > 0 && node != at {
                    self.end(node);
                }
            }
        }
        self.end(at);
        let State { net, nodes, .. } = &mut *self.state;
        net.retain(|m| self.model.matters(m, nodes));
    }

    fn node(&mut self, at: usize) -> &mut Node {
        Arc::make_mut(&mut self.state.nodes[at])
    }

    fn end(&mut self, at: usize) {
        self.look(at);
        self.node(at).settle();
        let node = &self.state.nodes[at];
        let status = node.core.status();
        let end = node.ahead.last().map_or(node.core.base().chain, |e| e.1);
        if node.ahead.len() as u64 + 1 != status.last.0 || end != node.core.last_chain() {
            self.broke("Q-7", format!("{} ends elsewhere than its disk will: {status:?}", name(at)));
        }
        let node = &self.state.nodes[at];
        if status.durable.0 > node.log.len() as u64 + 1 {
            self.broke("Q-7", format!("{} claims more than it has: {status:?}", name(at)));
        }
    }

    fn broke(&mut self, id: &'static str, what: String) {
        self.state.broken.get_or_insert_with(|| Arc::new(Broken { id, what }));
    }

    fn time_out(&mut self, at: usize) {
        self.step(at, Event::Tick);
        if self.model.config.pre_votes {
            return;
        }
        let me = name(at);
        for peer in (0..self.state.nodes.len()).map(name).filter(|n| *n != me) {
            let status = self.state.nodes[at].core.status();
            if status.role != RoleName::PreCandidate {
                break;
            }
            let body = Body::PreVoteReply { granted: true };
            let yes = Message { group: GROUP, from: peer, to: me, term: status.term.next(), body };
            self.step(at, Event::Message(yes));
        }
    }

    /// False if there was nothing to write.
    fn persist(&mut self, at: usize) -> bool {
        let Some((event, replies)) = self.node(at).persist() else { return false };
        for reply in replies {
            self.state.net.insert(reply);
        }
        self.step(at, event);
        true
    }

    /// One event, and those that follow from it within the node.
    fn step(&mut self, at: usize, event: Event) {
        let live = liveness();
        let mut events = vec![event];
        let mut steps = 0;
        while let Some(event) = events.pop() {
            steps += 1;
            assert!(steps < STEPS_MAX, "one event makes work without end");
            let mut ready = Ready::default();
            let node = self.node(at);
            node.core.step(event, &live, &mut ready);
            assert!(ready.installs.is_empty(), "nothing is compacted, so nobody needs a snapshot");
            node.pending.extend(ready.writes);
            // The state machine is a memory, and a read from disk sees what is durable.
            events.extend(ready.applies.iter().map(|apply| Event::Applied(apply.last)));
            for load in ready.loads {
                let (prev_chain, entries) = node.read(load.first, load.last);
                let loaded =
                    Loaded { to: load.to, repair: load.repair, first: load.first, prev_chain, entries };
                events.push(Event::Loaded(loaded));
            }
            for message in ready.messages {
                self.state.net.insert(message);
            }
            for (_, note) in ready.notes {
                self.heed(at, note);
            }
        }
    }

    fn heed(&mut self, at: usize, note: Note) {
        match note {
            Note::Leads(term) => match self.state.leaders.binary_search_by_key(&term, |l| l.0) {
                Ok(found) if self.state.leaders[found].1 == name(at) => {}
                Ok(found) => {
                    let other = self.state.leaders[found].1;
                    self.broke("Q-1", format!("{} and {other} lead term {}", name(at), term.0));
                }
                Err(place) => self.state.leaders.insert(place, (term, name(at))),
            },
            Note::PeerRegressed(_) if !self.model.config.accusations => {}
            Note::Halted(_) | Note::PeerRegressed(_) | Note::Malformed(_) | Note::StaleWrite(_) => {
                self.broke("Q-6", format!("{}: {note:?}", name(at)));
            }
            _ => {}
        }
    }

    /// Looks at what a node holds for committed, and acknowledges what its clients wait for.
    fn look(&mut self, at: usize) {
        self.node(at).settle();
        let node = self.state.nodes[at].clone();
        let status = node.core.status();
        for index in (2..=status.commit.0).map(LogIndex) {
            let Some(identity) = node.held(index) else {
                return self.broke("Q-7", format!("{} commits {index:?}, which it does not have", name(at)));
            };
            match self.state.committed.get(index.0 as usize - 2) {
                Some(known) if known.identity == identity => {}
                Some(known) => {
                    let text = format!("{} holds {identity:?} for committed, but it was {known:?}", name(at));
                    return self.broke("Q-3", text);
                }
                None => self.state.committed.push(Promised { index, identity, by: status.term }),
            }
        }
        if !node.leads() {
            return;
        }
        let early = self.model.bug == Some(Bug::AckBeforeQuorum);
        let upto = if early { status.durable.max(status.commit) } else { status.commit };
        for index in (2..=upto.0).map(LogIndex) {
            let (Some((term, chain)), Some(entry)) = (node.held(index), node.entry(index)) else { continue };
            // Only the leader that took a write has the client that waits for it.
            let own = term == status.term && entry.kind == EntryKind::Normal;
            if own && !self.state.acked.iter().any(|a| a.index == index && a.identity == (term, chain)) {
                self.state.acked.push(Promised { index, identity: (term, chain), by: status.term });
                self.state.acked.sort_unstable_by_key(|a| (a.index, a.identity));
            }
        }
    }
}

impl Model for QuorumWrite {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.initial()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        for (at, node) in state.nodes.iter().enumerate() {
            let status = node.core.status();
            let due = node.core.deadline() == 0;
            if state.left.timeouts > 0 && due && !node.leads() && self.config.candidates.contains(&at) {
                actions.push(Action::Timeout(at));
            }
            if state.left.resends > 0 && due && node.leads() {
                actions.push(Action::Resend(at));
            }
            if state.left.writes > 0 && status.settled {
                actions.push(Action::Write(at));
            }
            if !node.pending.is_empty() {
                actions.push(Action::Persist(at));
            }
            if state.left.crashes > 0 && self.config.crashers.contains(&at) {
                actions.push(Action::Crash(at));
            }
        }
        for envelope in state.net.iter() {
            actions.push(Action::Deliver(envelope.clone()));
            if state.left.duplicates > 0 {
                actions.push(Action::Duplicate(envelope.clone()));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.carry_out(&mut next, &action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.config)
    }
}
