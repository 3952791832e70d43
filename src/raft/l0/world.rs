//! The world of one seed: time, network, disks, and the order of things.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Write as _;

use raft::{
    Apply, Core, Entry, EntryKind, Event, Fault, GroupId, Install, Liveness, Load, Loaded, LogIndex, Members,
    Message, NodeId, Note, Ready, Restored, RoleName, SnapshotMeta, Tail, Token,
};

use super::disk::{Checkpoint, Disk};
use super::invariants::{
    Checkers, Oracle, Violation, ack_durable, bounded, committed_kept, damage_contained, leader_completeness,
    monotonic, own_term_commit, promise_kept, snapshot_joins, state_machine,
};
use super::node::{Given, Got, Node, Pulse};
use super::plan::{MS, Plan};
use super::rng::Rng;

/// The one group.
pub const GROUP: GroupId = GroupId(7);
/// How much of a trace is kept.
const TRACE_LINES: usize = 400;
/// Simulated time in which everything must be well again after the storm.
const HEAL_NS: u64 = 60_000 * MS;

/// Something that will happen.
#[derive(Debug)]
pub enum What {
    /// A message arrives.
    Deliver(Message),
    /// A heartbeat between nodes arrives.
    Pulse(usize, NodeId, Pulse),
    /// A node sends its heartbeats and looks at who is late.
    Beat(usize, u64),
    /// The oldest write of a node is durable.
    Synced(usize, u64),
    /// The core hears of it.
    Written(usize, u64, Token),
    /// An apply is done.
    Applied(usize, u64, Apply),
    /// A load is done.
    Loaded(usize, u64, Load),
    /// A fetch of state is done.
    Install(usize, u64, Install),
    /// A deadline.
    Tick(usize, u64),
    /// The driver tells a group of support withdrawn.
    Withdraw(usize, u64, NodeId),
    /// A process starts.
    Start(usize),
    /// A client proposes.
    Propose,
    /// A client reads.
    Read,
    /// Trouble of a kind.
    Trouble(super::nemesis::Kind),
    /// All cuts from and to this machine are mended.
    Mend,
}

struct Due {
    at: u64,
    seq: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// What a run amounted to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Steps of cores.
    pub steps: u64,
    /// Elections won.
    pub elections: u64,
    /// Simulated nanoseconds.
    pub sim_ns: u64,
    /// Entries committed.
    pub committed: u64,
    /// Reads answered by a lease, and by a round.
    pub reads: (u64, u64),
    /// Troubles that happened.
    pub faults: u64,
    /// Memberships committed.
    pub changes: u64,
    /// Snapshots installed.
    pub installs: u64,
    /// Holes patched.
    pub patches: u64,
}

impl Stats {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.elections += other.elections;
        self.sim_ns += other.sim_ns;
        self.committed += other.committed;
        self.reads.0 += other.reads.0;
        self.reads.1 += other.reads.1;
        self.faults += other.faults;
        self.changes += other.changes;
        self.installs += other.installs;
        self.patches += other.patches;
    }
}

/// One run.
pub struct World<'a> {
    /// What was drawn.
    pub plan: Plan,
    /// Machines.
    pub nodes: Vec<Node>,
    /// Time, nanoseconds.
    pub now: u64,
    /// So far.
    pub stats: Stats,
    /// Last transitions.
    pub trace: VecDeque<String>,
    /// Messages from one machine to another are lost.
    pub cut: Vec<Vec<bool>>,
    /// Draws of the nemesis.
    pub fate: Rng,
    pub(super) oracle: Oracle,
    checkers: Checkers,
    net: Rng,
    client: Rng,
    queue: BinaryHeap<Due>,
    seq: u64,
    ready: Ready,
    traced: bool,
    /// The storm is over.
    pub calm: bool,
    next_id: u64,
    plant: &'a dyn Fn(&mut Core),
}

impl<'a> World<'a> {
    /// The world of a seed at its beginning.
    pub fn new(seed: u64, plan: Plan, traced: bool, plant: &'a dyn Fn(&mut Core)) -> Self {
        let mut clocks = Rng::new(seed, 2);
        let voters: Vec<NodeId> = (1..=plan.voters).map(|i| NodeId::new(i, 0)).collect();
        let first = SnapshotMeta::bootstrap(GROUP, Members::of(voters));
        let nodes: Vec<Node> = (1..=plan.machines)
            .map(|i| {
                let meta = if i <= plan.voters { first.clone() } else { SnapshotMeta::nothing(GROUP) };
                Node {
                    id: NodeId::new(i, 0),
                    core: None,
                    applied: meta.index,
                    applied_chain: meta.chain,
                    applied_term: meta.term,
                    hash: 0,
                    members: meta.members.clone(),
                    disk: Disk::new(meta),
                    boot: 0,
                    shadow: BTreeMap::new(),
                    applying: None,
                    write_due: 0,
                    tick_at: 0,
                    paused_until: 0,
                    rate: clocks.between(0, 40) as i64 - 20,
                    offset: clocks.below(1 << 40),
                    no_vote_before: 0,
                    given: BTreeMap::new(),
                    got: BTreeMap::new(),
                    epochs: 0,
                    is_ill: false,
                }
            })
            .collect();
        let mut oracle = Oracle::default();
        oracle.committed.push((first.term, first.chain));
        oracle.members.insert(1, first.members);
        let size = nodes.len();
        let mut world = Self {
            plan,
            nodes,
            now: 0,
            stats: Stats::default(),
            trace: VecDeque::new(),
            cut: vec![vec![false; size]; size],
            fate: Rng::new(seed, 3),
            oracle,
            checkers: Checkers::default(),
            net: Rng::new(seed, 4),
            client: Rng::new(seed, 5),
            queue: BinaryHeap::new(),
            seq: 0,
            ready: Ready::default(),
            traced,
            calm: false,
            next_id: 0,
            plant,
        };
        for at in 0..size {
            world.after(0, What::Start(at));
        }
        world.after(world.plan.propose_ns, What::Propose);
        world.after(world.plan.read_ns, What::Read);
        world.schedule_troubles();
        world
    }

    /// Puts something into the future.
    pub fn after(&mut self, delay: u64, what: What) {
        self.seq += 1;
        self.queue.push(Due { at: self.now + delay, seq: self.seq, what });
    }

    /// Adds a line to the trace; the text is made only if it is wanted.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if self.traced {
            if self.trace.len() == TRACE_LINES {
                self.trace.pop_front();
            }
            let mut line = format!("{:>10.3} ", self.now as f64 / 1e6);
            let _ = write!(line, "{}", text());
            self.trace.push_back(line);
        }
    }

    /// Storm, healing, proof of progress, proof of rest.
    pub fn run(&mut self) -> Result<(), Violation> {
        let storm = self.plan.storm_ns;
        self.until(storm)?;
        self.heal()?;
        let end = self.now + HEAL_NS;
        let mut probe = None;
        loop {
            if self.now >= end {
                return Err(Violation::new("R-19", format!("not well after healing: {}", self.describe())));
            }
            self.until(self.now + 50 * MS)?;
            // A leader that was replaced takes its probe with it.
            let lost = |index: LogIndex| {
                let core = self.leader().and_then(|at| self.nodes[at].core.as_ref());
                core.is_some_and(|c| c.status().last < index)
            };
            if probe.is_none_or(lost) {
                probe = self.probe()?;
            }
            if probe.is_some_and(|index| self.converged(index)) {
                break;
            }
        }
        if self.plan.table {
            self.until(self.now + 2_000 * MS)?;
            self.at_rest()?;
        }
        self.stats.sim_ns = self.now;
        self.stats.committed = self.oracle.last().0;
        self.stats.reads = self.checkers.reads_fresh.served;
        self.stats.changes = self.oracle.members.len() as u64 - 1;
        Ok(())
    }

    fn until(&mut self, end: u64) -> Result<(), Violation> {
        while self.queue.peek().is_some_and(|due| due.at <= end) {
            let Some(due) = self.queue.pop() else { break };
            self.now = self.now.max(due.at);
            self.happen(due.what)?;
        }
        self.now = self.now.max(end);
        Ok(())
    }

    fn heal(&mut self) -> Result<(), Violation> {
        self.calm = true;
        self.cut.iter_mut().flatten().for_each(|c| *c = false);
        self.note(|| "---- calm ----".to_owned());
        for at in 0..self.nodes.len() {
            self.nodes[at].paused_until = 0;
            if self.nodes[at].core.is_none() {
                self.start(at)?;
            }
            if std::mem::take(&mut self.nodes[at].is_ill) {
                self.step(at, Event::Ill(false))?;
            }
        }
        Ok(())
    }

    /// A machine that leads and takes proposals.
    pub fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|n| n.core.as_ref().is_some_and(|c| c.status().settled))
    }

    fn probe(&mut self) -> Result<Option<LogIndex>, Violation> {
        let Some(at) = self.leader() else { return Ok(None) };
        let before = self.nodes[at].core.as_ref().map_or(LogIndex::ZERO, |c| c.status().last);
        let batch = vec![self.proposal(8)];
        self.step(at, Event::Propose(batch))?;
        let after = self.nodes[at].core.as_ref().map_or(LogIndex::ZERO, |c| c.status().last);
        Ok((after > before).then_some(after))
    }

    /// Everybody in the membership has everything.
    fn converged(&self, probe: LogIndex) -> bool {
        let Some(core) = self.leader().and_then(|at| self.nodes[at].core.as_ref()) else { return false };
        let want = core.status();
        if want.commit < probe || want.commit != want.last || core.changing() {
            return false;
        }
        core.members().1.all().iter().all(|member| {
            // A wiped disk is gone; its place is kept by nobody.
            let Some(node) = self.nodes.iter().find(|n| n.id == *member) else { return true };
            node.core.as_ref().is_some_and(|c| {
                let s = c.status();
                s.commit == want.commit && s.applied == want.commit && s.durable == want.last && !s.damaged
            })
        })
    }

    /// An idle group of healthy members has no deadline.
    fn at_rest(&self) -> Result<(), Violation> {
        let Some(core) = self.leader().and_then(|at| self.nodes[at].core.as_ref()) else {
            return Err(Violation::new("R-19", "the leader is gone in calm weather".to_owned()));
        };
        let members = core.members().1.all();
        let whole = members.iter().all(|m| self.nodes.iter().any(|n| n.id == *m));
        for node in self.nodes.iter().filter(|n| members.contains(&n.id)) {
            let Some(core) = &node.core else { continue };
            if whole && core.deadline() != u64::MAX {
                return Err(Violation::new(
                    "R-19",
                    format!("{} idles with a deadline: {:?}", node.id, core.status()),
                ));
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let mut out = String::new();
        for node in &self.nodes {
            match &node.core {
                None => {
                    let _ = write!(out, "[{} down]", node.id);
                }
                Some(core) => {
                    let s = core.status();
                    let _ = write!(
                        out,
                        "[{} {:?} t{} led by {:?} base {} dur {} last {} commit {} applied {} damaged {} halted {:?} {:?}]",
                        node.id,
                        s.role,
                        s.term.0,
                        s.leader,
                        s.base.0,
                        s.durable.0,
                        s.last.0,
                        s.commit.0,
                        s.applied.0,
                        s.damaged,
                        s.halted,
                        core.members()
                    );
                }
            }
        }
        out
    }

    fn happen(&mut self, what: What) -> Result<(), Violation> {
        let owner = match &what {
            What::Deliver(m) => Some(m.to.id as usize - 1),
            What::Pulse(at, ..)
            | What::Beat(at, _)
            | What::Synced(at, _)
            | What::Written(at, ..)
            | What::Applied(at, ..)
            | What::Loaded(at, ..)
            | What::Install(at, ..)
            | What::Tick(at, _)
            | What::Withdraw(at, ..) => Some(*at),
            _ => None,
        };
        if let Some(at) = owner {
            let until = self.nodes[at].paused_until;
            if until > self.now {
                // A stopped process finds it all waiting, in some order near the old one.
                let delay = until - self.now + self.net.below(1000);
                self.after(delay, what);
                return Ok(());
            }
        }
        match what {
            What::Deliver(message) => {
                let at = message.to.id as usize - 1;
                if self.nodes[at].core.is_some() {
                    self.step(at, Event::Message(message))?;
                }
            }
            What::Pulse(at, from, pulse) => self.on_pulse(at, from, pulse)?,
            What::Beat(at, boot) if self.nodes[at].boot == boot => self.on_beat(at, boot)?,
            What::Synced(at, boot) if self.nodes[at].boot == boot => self.on_synced(at)?,
            What::Written(at, boot, token) if self.nodes[at].boot == boot => {
                self.step(at, Event::Written(token))?
            }
            What::Applied(at, boot, apply) if self.nodes[at].boot == boot => self.on_applied(at, &apply)?,
            What::Loaded(at, boot, load) if self.nodes[at].boot == boot => self.on_load(at, load)?,
            What::Install(at, boot, install) if self.nodes[at].boot == boot => {
                self.on_install(at, install)?
            }
            What::Tick(at, boot) if self.nodes[at].boot == boot && self.nodes[at].tick_at <= self.now => {
                self.nodes[at].tick_at = u64::MAX;
                self.step(at, Event::Tick)?;
            }
            What::Withdraw(at, boot, node) if self.nodes[at].boot == boot => {
                self.step(at, Event::Withdrawn(node))?
            }
            What::Start(at) if self.nodes[at].core.is_none() => self.start(at)?,
            What::Propose => self.on_propose()?,
            What::Read => self.on_read()?,
            What::Trouble(kind) => self.trouble(kind)?,
            What::Mend => {
                if !self.calm {
                    self.note(|| "mend".to_owned());
                }
                self.cut.iter_mut().flatten().for_each(|c| *c = false);
            }
            _ => {}
        }
        Ok(())
    }

    /// A node's table as its clock shows it now.
    fn live(plan: &Plan, nodes: &[Node], node: &Node, now: u64) -> Liveness {
        let clock = node.clock(now);
        if !plan.table {
            return Liveness::without_table(clock);
        }
        let mut live = Liveness::at(clock, node.no_vote_before);
        for other in nodes {
            if other.id != node.id {
                live.set(node.table_row(other.id, clock));
            }
        }
        live
    }

    /// Lets a core take an event, carries its work away and checks everything.
    pub fn step(&mut self, at: usize, event: Event) -> Result<(), Violation> {
        let live = Self::live(&self.plan, &self.nodes, &self.nodes[at], self.now);
        let mut ready = std::mem::take(&mut self.ready);
        let text = if self.traced { format!("{event:?}") } else { String::new() };
        let Some(core) = self.nodes[at].core.as_mut() else {
            self.ready = ready;
            return Ok(());
        };
        let before = core.status();
        core.step(event, &live, &mut ready);
        let after = core.status();
        self.stats.steps += 1;
        if self.traced {
            let id = self.nodes[at].id;
            self.note(|| {
                format!(
                    "{id} {:?} t{} d{} l{} c{} a{} <- {text}\n{:12}=> {ready:?}",
                    after.role,
                    after.term.0,
                    after.durable.0,
                    after.last.0,
                    after.commit.0,
                    after.applied.0,
                    ""
                )
            });
        }
        monotonic::check(self.nodes[at].id, &before, &after)?;
        for write in &ready.writes {
            self.shadow(at, write)?;
        }
        if after.commit > before.commit {
            committed_kept::check(&self.nodes, at, before.commit, &mut self.oracle)?;
            if let Some(core) = &self.nodes[at].core {
                own_term_commit::check(core, before.commit)?;
            }
        }
        for (_, note) in &ready.notes {
            self.on_note(at, *note)?;
        }
        if let Some(core) = &self.nodes[at].core {
            if after.base != before.base {
                snapshot_joins::check(core.base(), &self.nodes[at].disk.checkpoint.meta, &self.oracle)?;
            }
            damage_contained::check(core, &self.nodes[at].disk)?;
            if after.role == RoleName::Leader {
                bounded::check(core, &self.plan.options)?;
            }
        }
        self.carry(at, &mut ready)?;
        ready.clear();
        self.ready = ready;
        self.schedule_tick(at);
        Ok(())
    }

    fn on_note(&mut self, at: usize, note: Note) -> Result<(), Violation> {
        match note {
            Note::Leads(term) => {
                self.stats.elections += 1;
                self.checkers.one_leader.check(self.nodes[at].id, term)?;
                leader_completeness::check(&self.nodes[at], &self.oracle)?;
                let (plan, nodes, now) = (&self.plan, &self.nodes, self.now);
                promise_kept::check(nodes, at, plan.options.drift_ns, |n| Self::live(plan, nodes, n, now))?;
            }
            Note::Halted(fault) => {
                // Nothing here makes a correct core stop.
                let id = match fault {
                    Fault::TwoLeaders(_) => "R-1",
                    Fault::Diverged(_) => "R-2",
                    Fault::CommittedConflict(_) => "R-5",
                    _ => "R-7",
                };
                return Err(Violation::new(id, format!("{} halts: {fault:?}", self.nodes[at].id)));
            }
            Note::Malformed(from) => {
                return Err(Violation::new("R-2", format!("{} got nonsense from {from}", self.nodes[at].id)));
            }
            Note::Patched(_) => self.stats.patches += 1,
            _ => {}
        }
        Ok(())
    }

    /// Follows the log in memory by what the core wants written.
    fn shadow(&mut self, at: usize, write: &raft::Write) -> Result<(), Violation> {
        let node = &mut self.nodes[at];
        if let Some(from) = write.truncate {
            node.shadow.split_off(&from.0);
        }
        if let Some(base) = &write.reset {
            node.shadow = node.shadow.split_off(&base.index.0);
            node.shadow.insert(base.index.0, (base.term, base.chain));
        }
        for entry in &write.entries {
            let before = node.shadow.get(&entry.index.prev().0).map(|e| e.1);
            self.checkers.log_matching.check(entry, before)?;
            node.shadow.insert(entry.index.0, (entry.term, entry.chain));
        }
        Ok(())
    }

    fn carry(&mut self, at: usize, ready: &mut Ready) -> Result<(), Violation> {
        let boot = self.nodes[at].boot;
        for message in ready.messages.drain(..) {
            self.release(at, message)?;
        }
        for write in ready.writes.drain(..) {
            self.nodes[at].disk.pending.push_back(write);
            // One sync takes all that gathered, so that a slow disk has no endless queue.
            let due = self.nodes[at].write_due.max(self.now + self.net.below(self.plan.write_ns));
            self.nodes[at].write_due = due;
            self.after(due - self.now, What::Synced(at, boot));
        }
        for apply in ready.applies.drain(..) {
            if self.nodes[at].applying.replace(apply.last).is_some() {
                return Err(Violation::new("R-16", "two applies are out at a time".to_owned()));
            }
            let delay = self.net.below(2 * MS);
            self.after(delay, What::Applied(at, boot, apply));
        }
        for load in ready.loads.drain(..) {
            let delay = self.net.below(3 * MS);
            self.after(delay, What::Loaded(at, boot, load));
        }
        for install in ready.installs.drain(..) {
            let delay = self.net.between(MS, 40 * MS);
            self.after(delay, What::Install(at, boot, install));
        }
        for read in ready.reads.drain(..) {
            self.checkers.reads_fresh.check(&read)?;
        }
        Ok(())
    }

    /// A message leaves a node.
    fn release(&mut self, at: usize, message: Message) -> Result<(), Violation> {
        self.checkers.vote_once.check(&self.nodes[at], &message)?;
        ack_durable::check(&self.nodes, &self.nodes[at], &message)?;
        let to = message.to.id as usize - 1;
        if self.cut[at][to] {
            return Ok(());
        }
        let (loss, twice) = if self.calm { (0, 0) } else { (self.plan.loss, self.plan.duplicate) };
        if loss > 0 && self.net.chance(loss) {
            return Ok(());
        }
        if twice > 0 && self.net.chance(twice) {
            let delay = self.delay();
            self.after(delay, What::Deliver(message.clone()));
        }
        let delay = self.delay();
        self.after(delay, What::Deliver(message));
        Ok(())
    }

    fn delay(&mut self) -> u64 {
        let most = if self.calm { 2 * MS } else { self.plan.delay_ns };
        // Mostly quick, at times slow: that reorders.
        let most = if self.net.chance(800) { most / 8 + 1 } else { most };
        10_000 + self.net.below(most)
    }

    fn schedule_tick(&mut self, at: usize) {
        let node = &self.nodes[at];
        let Some(core) = &node.core else { return };
        let deadline = core.deadline();
        if deadline == u64::MAX {
            return;
        }
        let when = node.when(deadline, self.now);
        if when < node.tick_at || node.tick_at <= self.now {
            let boot = node.boot;
            self.nodes[at].tick_at = when;
            self.after(when - self.now, What::Tick(at, boot));
        }
    }

    fn on_synced(&mut self, at: usize) -> Result<(), Violation> {
        let Some(write) = self.nodes[at].disk.sync_one()? else { return Ok(()) };
        let disk = &self.nodes[at].disk;
        let mut token = write.token;
        // The store says where its log ends, as it sees it.
        if let Some(last) = disk.entries.keys().next_back()
            && *last > disk.checkpoint.meta.index.0
        {
            token.index = LogIndex(*last);
        }
        for reply in write.replies {
            self.release(at, reply)?;
        }
        let skip = !self.nodes[at].disk.pending.is_empty() && self.net.chance(200);
        if !skip {
            let delay = if self.net.chance(300) { self.net.below(3 * MS) } else { 0 };
            let boot = self.nodes[at].boot;
            self.after(delay, What::Written(at, boot, token));
        }
        Ok(())
    }

    fn on_applied(&mut self, at: usize, apply: &Apply) -> Result<(), Violation> {
        if self.nodes[at].applying != Some(apply.last) {
            // A state that was installed meanwhile covers it.
            return Ok(());
        }
        let disk = &self.nodes[at].disk;
        if apply.entries.is_empty() && disk.damaged.range(apply.first.0..=apply.last.0).next().is_some() {
            // What cannot be read now will be there once it is patched.
            let boot = self.nodes[at].boot;
            self.after(5 * MS, What::Applied(at, boot, apply.clone()));
            return Ok(());
        }
        self.nodes[at].applying = None;
        for index in apply.first.0.max(self.nodes[at].applied.0 + 1)..=apply.last.0 {
            let node = &self.nodes[at];
            let entry: Option<&Entry> = if apply.entries.is_empty() {
                node.disk.entries.get(&index).filter(|_| !node.disk.damaged.contains(&index))
            } else {
                apply.entries.get((index - apply.first.0) as usize)
            };
            let Some(entry) = entry.cloned() else {
                return Err(Violation::new("R-4", format!("{} cannot read {index} to apply it", node.id)));
            };
            state_machine::check(&entry, node.applied, &self.oracle)?;
            let node = &mut self.nodes[at];
            node.applied = entry.index;
            node.applied_chain = entry.chain;
            node.applied_term = entry.term;
            node.hash = node.hash.wrapping_mul(31).wrapping_add(entry.chain.0);
            if entry.kind == EntryKind::Config {
                node.members = Members::decode(&entry.payload)
                    .ok_or_else(|| Violation::new("R-9", "a membership that cannot be read".to_owned()))?;
            }
        }
        let leads = self.nodes[at].core.as_ref().is_some_and(|c| c.status().role == RoleName::Leader);
        if leads {
            self.oracle.acked = self.oracle.acked.max(apply.last);
        }
        self.step(at, Event::Applied(apply.last))?;
        let node = &self.nodes[at];
        if node.applied.0 - node.disk.checkpoint.meta.index.0 >= self.plan.checkpoint_every {
            let meta = self.checkpoint(at);
            self.step(at, Event::Compacted { index: meta.index, chain: meta.chain })?;
        }
        Ok(())
    }

    /// Makes the state as applied durable.
    fn checkpoint(&mut self, at: usize) -> SnapshotMeta {
        let node = &mut self.nodes[at];
        let meta = SnapshotMeta {
            index: node.applied,
            term: node.applied_term,
            chain: node.applied_chain,
            members: node.members.clone(),
        };
        node.disk.checkpoint = Checkpoint { meta: meta.clone(), hash: node.hash };
        meta
    }

    fn on_load(&mut self, at: usize, load: Load) -> Result<(), Violation> {
        let disk = &self.nodes[at].disk;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in load.first.0..=load.last.0 {
            let Some(entry) = disk.entries.get(&index).filter(|_| !disk.damaged.contains(&index)) else {
                break;
            };
            bytes += entry.cost();
            if bytes > load.bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        let prev_chain = disk.chain(load.first.prev());
        let loaded = Loaded { to: load.to, repair: load.repair, first: load.first, prev_chain, entries };
        self.step(at, Event::Loaded(loaded))
    }

    fn on_install(&mut self, at: usize, install: Install) -> Result<(), Violation> {
        let source = install.from.id as usize - 1;
        let there = &self.nodes[source];
        let failed = !self.calm && self.net.chance(200);
        let have = there.disk.checkpoint.clone();
        if failed
            || self.cut[source][at]
            || there.core.is_none()
            || there.id != install.from
            || have.meta.index < install.meta.index
        {
            return self.step(at, Event::InstallFailed { index: install.meta.index });
        }
        self.stats.installs += 1;
        let meta = if have.meta.index <= self.nodes[at].applied {
            // The state is here already; it only has to become durable.
            self.checkpoint(at)
        } else {
            let node = &mut self.nodes[at];
            node.applied = have.meta.index;
            node.applied_chain = have.meta.chain;
            node.applied_term = have.meta.term;
            node.members = have.meta.members.clone();
            node.hash = have.hash;
            node.disk.checkpoint = have.clone();
            // An apply that the state covers is over; one that goes beyond it goes on from there.
            node.applying = node.applying.filter(|last| *last > have.meta.index);
            have.meta
        };
        self.step(at, Event::Installed(Box::new(meta)))
    }

    /// A process starts from its disk.
    pub fn start(&mut self, at: usize) -> Result<(), Violation> {
        let now = self.now;
        let seed = self.net.next();
        let grant = self.plan.grant_ns;
        let node = &mut self.nodes[at];
        let meta = node.disk.checkpoint.meta.clone();
        let mut tail = Tail::new(meta.clone());
        let mut keep = Vec::new();
        for entry in node.disk.entries.values() {
            match tail.push(entry) {
                Ok(true) => keep.push(entry.index.0),
                Ok(false) => {}
                Err(error) => {
                    return Err(Violation::new("R-12", format!("{} finds {error:?} on its disk", node.id)));
                }
            }
        }
        node.disk.entries.retain(|index, _| keep.binary_search(index).is_ok());
        node.disk.damaged.retain(|index| keep.binary_search(index).is_ok());
        node.shadow = node.disk.entries.values().map(|e| (e.index.0, (e.term, e.chain))).collect();
        node.shadow.insert(meta.index.0, (meta.term, meta.chain));
        node.no_vote_before = if node.boot == 0 { 0 } else { node.clock(now) + grant };
        node.boot += 1;
        node.applied = meta.index;
        node.applied_chain = meta.chain;
        node.applied_term = meta.term;
        node.members = meta.members;
        node.hash = node.disk.checkpoint.hash;
        node.applying = None;
        node.write_due = now;
        node.tick_at = 0;
        node.given.clear();
        node.got.clear();
        node.epochs = 0;
        node.is_ill = false;
        let damage = node.disk.damaged.iter().map(|i| (LogIndex(*i), LogIndex(*i))).collect();
        let restored = Restored { hard: node.disk.hard, tail, applied: meta.index, damage };
        let (id, boot, hard) = (node.id, node.boot, node.disk.hard);
        let live = Self::live(&self.plan, &self.nodes, &self.nodes[at], now);
        let mut core = Core::new(GROUP, id, self.plan.options.clone(), seed, restored, &live);
        (self.plant)(&mut core);
        if core.status().term < hard.term {
            return Err(Violation::new("R-18", format!("{id} starts in a term before its disk's")));
        }
        self.nodes[at].core = Some(core);
        self.note(|| format!("{id} starts"));
        if self.plan.table {
            self.after(0, What::Beat(at, boot));
        }
        self.schedule_tick(at);
        Ok(())
    }

    /// A process dies; its disk keeps some of what was not synced.
    pub fn crash(&mut self, at: usize) -> Result<(), Violation> {
        let node = &mut self.nodes[at];
        if node.core.take().is_none() {
            return Ok(());
        }
        node.boot += 1;
        node.paused_until = 0;
        let keep = self.net.below(node.disk.pending.len() as u64 + 1) as usize;
        node.disk.crash(keep)?;
        let id = node.id;
        self.note(|| format!("{id} crashes, {keep} unsynced writes survive"));
        Ok(())
    }

    fn on_beat(&mut self, at: usize, boot: u64) -> Result<(), Violation> {
        let interval = self.plan.grant_ns / 4;
        self.after(interval, What::Beat(at, boot));
        let clock = self.nodes[at].clock(self.now);
        let ended: Vec<NodeId> = self.nodes[at]
            .given
            .iter()
            .filter(|(_, g)| g.active && g.until <= clock)
            .map(|(n, _)| *n)
            .collect();
        for node in ended {
            self.withdraw(at, node);
        }
        let lost: Vec<NodeId> =
            self.nodes[at].got.iter().filter(|(_, g)| !g.told && g.until <= clock).map(|(n, _)| *n).collect();
        for node in lost {
            if let Some(got) = self.nodes[at].got.get_mut(&node) {
                got.told = true;
            }
            self.step(at, Event::SupportLost(node))?;
        }
        let me = self.nodes[at].id;
        for to in 0..self.nodes.len() {
            if to != at {
                self.pulse(at, to, me, Pulse::Ask { boot, sent_at: clock });
            }
        }
        Ok(())
    }

    fn withdraw(&mut self, at: usize, node: NodeId) {
        if let Some(given) = self.nodes[at].given.get_mut(&node) {
            given.active = false;
        }
        // In random order and not all at once.
        let delay = self.net.below(30 * MS);
        let boot = self.nodes[at].boot;
        self.after(delay, What::Withdraw(at, boot, node));
    }

    fn pulse(&mut self, at: usize, to: usize, me: NodeId, pulse: Pulse) {
        let loss = if self.calm { 0 } else { self.plan.loss };
        if self.cut[at][to] || loss > 0 && self.net.chance(loss) {
            return;
        }
        let delay = self.delay();
        self.after(delay, What::Pulse(to, me, pulse));
    }

    fn on_pulse(&mut self, at: usize, from: NodeId, pulse: Pulse) -> Result<(), Violation> {
        if self.nodes[at].core.is_none() {
            return Ok(());
        }
        let clock = self.nodes[at].clock(self.now);
        match pulse {
            Pulse::Ask { boot, sent_at } => {
                let stale = self.nodes[at].given.get(&from).is_some_and(|g| g.boot > boot);
                if stale {
                    return Ok(());
                }
                let ends = self.nodes[at]
                    .given
                    .get(&from)
                    .is_some_and(|g| g.active && (g.until <= clock || g.boot < boot));
                if ends {
                    self.withdraw(at, from);
                }
                let until = clock + self.plan.grant_ns;
                let node = &mut self.nodes[at];
                let next = (node.boot << 32) + node.epochs + 1;
                let mut fresh = false;
                let given = node.given.entry(from).or_insert_with(|| {
                    fresh = true;
                    Given { boot, epoch: next, until, active: true }
                });
                if !given.active {
                    *given = Given { boot, epoch: next, until, active: true };
                    fresh = true;
                }
                given.until = given.until.max(until);
                let epoch = given.epoch;
                if fresh {
                    node.epochs += 1;
                }
                let (me, to) = (node.id, from.id as usize - 1);
                self.pulse(at, to, me, Pulse::Grant { boot, epoch, sent_at });
                Ok(())
            }
            Pulse::Grant { boot, epoch, sent_at } => {
                if self.nodes[at].boot != boot {
                    return Ok(());
                }
                let until = sent_at + self.plan.grant_ns;
                let got = self.nodes[at].got.entry(from).or_insert(Got { epoch: 0, until: 0, told: true });
                if epoch < got.epoch || until <= clock {
                    return Ok(());
                }
                let news = epoch > got.epoch || got.told;
                let until = if epoch > got.epoch { until } else { until.max(got.until) };
                *got = Got { epoch, until, told: false };
                if news { self.step(at, Event::Reachable(from)) } else { Ok(()) }
            }
        }
    }

    fn proposal(&mut self, most: u64) -> raft::Proposal {
        self.next_id += 1;
        let mut payload = self.next_id.to_le_bytes().to_vec();
        payload.resize(8 + self.client.below(most) as usize, 0);
        raft::Proposal { kind: EntryKind::Normal, digest: self.next_id as u32, payload: payload.into() }
    }

    fn somebody(&mut self) -> usize {
        match self.leader() {
            Some(at) if self.client.chance(700) => at,
            _ => self.client.below(self.nodes.len() as u64) as usize,
        }
    }

    fn on_propose(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let delay = self.client.between(1, 2 * self.plan.propose_ns);
        self.after(delay, What::Propose);
        let at = self.somebody();
        if self.nodes[at].paused_until > self.now {
            return Ok(());
        }
        let batch = (0..self.client.between(1, 3)).map(|_| self.proposal(100)).collect();
        self.step(at, Event::Propose(batch))
    }

    fn on_read(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let delay = self.client.between(1, 2 * self.plan.read_ns);
        self.after(delay, What::Read);
        // Stale leaders are the interesting ones, so every node is asked.
        let at = self.client.below(self.nodes.len() as u64) as usize;
        if self.nodes[at].core.is_none() || self.nodes[at].paused_until > self.now {
            return Ok(());
        }
        self.next_id += 1;
        let id = self.next_id;
        self.checkers.reads_fresh.begin(id, &self.oracle);
        self.step(at, Event::Read(id))
    }
}
