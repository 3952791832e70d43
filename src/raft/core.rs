//! The frame of a step: term, vote, role, writes in flight and deadlines.
//!
//! Owns the state of a replica, the dispatch of events, the rule that replies ride on writes and the
//! handing out of applies. Does not hold the rules of a role: those are in the modules named after them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::Options;
use crate::leader::Leader;
use crate::liveness::Liveness;
use crate::log::{Log, Slice, Tail};
use crate::members::Members;
use crate::message::{Body, Message};
#[cfg(any(test, feature = "mutants"))]
use crate::mutant::Mutant;
use crate::ready::{Apply, Event, Fault, Note, Ready, Token, Write};
use crate::types::{Entry, GroupId, HardState, LogIndex, NodeId, SnapshotMeta, Term};

/// Whether a known bug is planted; always false in a product build.
macro_rules! bug {
    ($core:expr, $name:ident) => {{
        #[cfg(any(test, feature = "mutants"))]
        let planted = $core.mutant == Some(crate::mutant::Mutant::$name);
        #[cfg(not(any(test, feature = "mutants")))]
        let planted = $core.no_bug();
        planted
    }};
}
pub(crate) use bug;

/// A deadline that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// The votes of a campaign.
pub(crate) type Votes = Vec<(NodeId, bool)>;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Role {
    Follower,
    PreCandidate(Votes),
    Candidate(Votes),
    Leader(Box<Leader>),
}

/// A promise not to vote against a node in this group while the epoch of support lasts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Promise {
    pub node: NodeId,
    pub epoch: u64,
    /// Of the leadership for which it was made.
    pub term: Term,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct InFlight {
    token: Token,
    /// What of the log it proves; lowered by truncations and holes since.
    upto: LogIndex,
    hard: (Term, Option<NodeId>),
}

/// What a driver found on disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Restored {
    /// Term, vote, commit.
    pub hard: HardState,
    /// The log on its checkpoint.
    pub tail: Tail,
    /// What the state machine already contains, at least the checkpoint.
    pub applied: LogIndex,
    /// Ranges of the log whose payloads cannot be read; their identity is in `tail`.
    pub damage: Vec<(LogIndex, LogIndex)>,
}

impl Restored {
    /// A replica that starts from a base and nothing else.
    #[must_use]
    pub fn fresh(base: SnapshotMeta) -> Self {
        let applied = base.index;
        Self { hard: HardState::default(), tail: Tail::new(base), applied, damage: Vec::new() }
    }
}

/// What a replica is at the moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RoleName {
    /// Follows, perhaps nobody.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// A replica at a glance, for info replies, metrics and checkers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Status {
    /// What it is.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// Its vote in that term.
    pub vote: Option<NodeId>,
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// Index of the checkpoint.
    pub base: LogIndex,
    /// Durable and intact up to here.
    pub durable: LogIndex,
    /// End of the log.
    pub last: LogIndex,
    /// Term of the last entry.
    pub last_term: Term,
    /// Committed.
    pub commit: LogIndex,
    /// Applied.
    pub applied: LogIndex,
    /// Leads and takes proposals.
    pub settled: bool,
    /// A hole is in the log, or it is not known how much of it is missing.
    pub damaged: bool,
    /// The group is stopped on this node.
    pub halted: Option<Fault>,
}

/// One replica of one group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Core {
    pub(crate) group: GroupId,
    pub(crate) me: NodeId,
    pub(crate) options: Arc<Options>,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    /// What of (term, vote) was put into a write, and what of it is durable.
    written_hard: (Term, Option<NodeId>),
    pub(crate) durable_hard: (Term, Option<NodeId>),
    pub(crate) role: Role,
    pub(crate) leader: Option<NodeId>,
    pub(crate) promise: Option<Promise>,
    /// Newest term in which this replica led.
    pub(crate) led: Term,
    pub(crate) log: Log,
    writes: VecDeque<InFlight>,
    next_seq: u64,
    /// Holes in the log, in order and apart.
    pub(crate) damage: Vec<(LogIndex, LogIndex)>,
    pub(crate) ill: bool,
    /// See [`HardState::doubt`].
    pub(crate) doubt: bool,
    pub(crate) halted: Option<Fault>,
    /// The snapshot that the driver was asked to fetch.
    pub(crate) incoming: Option<(LogIndex, NodeId)>,
    /// When to campaign (or to ask again), if nothing comes before.
    pub(crate) election_at: u64,
    /// When the leader was last heard of.
    pub(crate) contact_at: u64,
    pub(crate) tries: u32,
    rng: u64,
    #[cfg(any(test, feature = "mutants"))]
    pub(crate) mutant: Option<Mutant>,
    #[cfg(any(test, feature = "mutants"))]
    pub(crate) old_now: u64,
}

/// What a step gathers before it becomes one write.
pub(crate) struct Cx<'a> {
    pub live: &'a Liveness,
    pub out: &'a mut Ready,
    first_message: usize,
    pub append_from: Option<LogIndex>,
    pub truncate: Option<LogIndex>,
    pub reset: Option<Box<SnapshotMeta>>,
    pub patch: Vec<Entry>,
    pub replies: Vec<Message>,
}

impl<'a> Cx<'a> {
    fn new(live: &'a Liveness, out: &'a mut Ready) -> Self {
        let first_message = out.messages.len();
        Self {
            live,
            out,
            first_message,
            append_from: None,
            truncate: None,
            reset: None,
            patch: Vec::new(),
            replies: Vec::new(),
        }
    }
}

impl Core {
    /// A replica as its disk has it. `seed` must differ between replicas; `live.now` is the present.
    #[must_use]
    pub fn new(
        group: GroupId,
        me: NodeId,
        options: Arc<Options>,
        seed: u64,
        restored: Restored,
        live: &Liveness,
    ) -> Self {
        let Restored { hard, tail, applied, damage } = restored;
        let log = Log::new(tail, hard.commit, applied);
        // A term can be known from the log alone; whoever we voted for then is not known, and that term is over.
        let (term, vote) =
            if log.last_term() > hard.term { (log.last_term(), None) } else { (hard.term, hard.vote) };
        let mut core = Self {
            group,
            me,
            options,
            term,
            vote,
            written_hard: (term, vote),
            durable_hard: (term, vote),
            role: Role::Follower,
            leader: None,
            promise: None,
            led: Term(0),
            log,
            writes: VecDeque::new(),
            next_seq: 0,
            damage: Vec::new(),
            ill: false,
            doubt: hard.doubt,
            halted: None,
            incoming: None,
            election_at: NEVER,
            contact_at: 0,
            tries: 0,
            rng: seed ^ group.0.rotate_left(32),
            #[cfg(any(test, feature = "mutants"))]
            mutant: None,
            #[cfg(any(test, feature = "mutants"))]
            old_now: live.now,
        };
        // Completions of an earlier core of this group must not look like those of this one.
        core.next_seq = core.random() & 0xffff_ffff;
        for (first, last) in damage {
            core.add_hole(first, last);
        }
        core.election_at =
            if core.log.members().1.voters == [me] { live.now } else { core.election_time(live.now) };
        core
    }

    /// Plants a known bug.
    #[cfg(any(test, feature = "mutants"))]
    pub fn plant(&mut self, mutant: Option<Mutant>) {
        self.mutant = mutant;
    }

    #[cfg(not(any(test, feature = "mutants")))]
    #[inline(always)]
    pub(crate) const fn no_bug(&self) -> bool {
        false
    }

    /// Takes one event; what is to be done is added to `out`. Allocates nothing where nothing is to be done.
    pub fn step(&mut self, event: Event, live: &Liveness, out: &mut Ready) {
        if self.halted.is_some() {
            if let Event::Propose(_) = event {
                out.notes.push((self.group, Note::Refused(crate::ready::Refusal::Halted)));
            }
            return;
        }
        let mut cx = Cx::new(live, out);
        self.dispatch(event, &mut cx);
        self.finish(cx);
    }

    /// Runs one rule as a step of its own; for the calls that answer at once.
    pub(crate) fn within<T>(
        &mut self,
        live: &Liveness,
        out: &mut Ready,
        rule: impl FnOnce(&mut Self, &mut Cx<'_>) -> T,
    ) -> T {
        let mut cx = Cx::new(live, out);
        let answer = rule(self, &mut cx);
        self.finish(cx);
        answer
    }

    fn dispatch(&mut self, event: Event, cx: &mut Cx<'_>) {
        match event {
            Event::Message(message) => self.on_message(message, cx),
            Event::Tick => self.on_tick(cx),
            Event::Propose(batch) => {
                if let Err(refusal) = self.take_proposals(batch, cx) {
                    cx.out.notes.push((self.group, Note::Refused(refusal)));
                }
            }
            Event::Change(change) => {
                if let Err(refusal) = self.take_change(&change, cx) {
                    cx.out.notes.push((self.group, Note::ChangeRefused(refusal)));
                }
            }
            Event::Transfer(to) => self.on_transfer(to, cx),
            Event::Read(id) => self.on_read(id, None, cx),
            Event::Written(token) => self.on_written(token, cx),
            Event::WriteFailed(_) => self.halt(Fault::WriteFailed, cx),
            Event::Applied(index) => self.on_applied(index),
            Event::Loaded(loaded) => self.on_loaded(loaded, cx),
            Event::Compacted { index, chain } => self.on_compacted(index, chain, cx),
            Event::Installed(meta) => self.on_installed(*meta, cx),
            Event::InstallFailed { index } => self.on_install_failed(index, cx),
            Event::Withdrawn(node) => self.on_withdrawn(node, cx),
            Event::Excepted(node, term) => self.on_excepted(node, term, cx),
            Event::SupportLost(node) => self.on_support_lost(node, cx),
            Event::Reachable(node) => self.on_reachable(node, cx),
            Event::Unreachable(node) => self.on_unreachable(node, cx),
            Event::Ill(ill) => self.on_ill(ill, cx),
            Event::Damaged { first, last } => self.on_damaged(first, last, cx),
            Event::Trusted => self.on_trusted(cx),
            Event::Campaign => {
                if !matches!(self.role, Role::Leader(_)) && self.eligible() {
                    self.pre_campaign(cx);
                }
            }
        }
    }

    /// Makes the step's write, lets messages wait for it where they must, and hands out what can be applied.
    fn finish(&mut self, mut cx: Cx<'_>) {
        if self.halted.is_some() {
            // A broken invariant must not spread: nothing of this step leaves but the note of it.
            cx.out.messages.truncate(cx.first_message);
            return;
        }
        let hard = (self.term, self.vote);
        if self.durable_hard != hard && cx.out.messages.len() > cx.first_message {
            self.hold_back(&mut cx);
        }
        let write_hard = self.written_hard != hard && !(bug!(self, TermNotPersisted) && self.vote.is_none());
        let work = write_hard
            || cx.reset.is_some()
            || cx.truncate.is_some()
            || cx.append_from.is_some()
            || !cx.patch.is_empty()
            || !cx.replies.is_empty();
        if work {
            self.emit_write(cx.append_from, write_hard, &mut cx);
        }
        self.hand_out_applies(&mut cx);
        self.arm(cx.live);
        self.log.check();
    }

    /// while term or vote are not durable, only pre-votes leave at once.
    fn hold_back(&mut self, cx: &mut Cx<'_>) {
        let all_vote = bug!(self, VoteBeforeDurable);
        let mut keep = cx.first_message;
        for at in cx.first_message..cx.out.messages.len() {
            let free = match cx.out.messages[at].body {
                Body::PreVote { .. } => true,
                Body::VoteReply { .. } | Body::Vote { .. } => all_vote,
                _ => false,
            };
            if free {
                cx.out.messages.swap(keep, at);
                keep += 1;
            }
        }
        cx.replies.extend(cx.out.messages.drain(keep..));
    }

    fn emit_write(&mut self, append_from: Option<LogIndex>, write_hard: bool, cx: &mut Cx<'_>) {
        self.next_seq += 1;
        let token = Token { seq: self.next_seq, term: self.term, index: self.log.last() };
        let mut hard = (self.term, self.vote);
        self.written_hard = hard;
        self.writes.push_back(InFlight { token, upto: self.sound_last(), hard });
        if bug!(self, VoteNotPersisted) {
            hard.1 = None;
        }
        let mut replies = std::mem::take(&mut cx.replies);
        if bug!(self, AckBeforeDurable) {
            cx.out.messages.extend(replies.extract_if(.., |m| matches!(m.body, Body::AppendOk { .. })));
        }
        let mut truncate = cx.truncate.take();
        if bug!(self, TruncateNotWritten) {
            truncate = None;
        }
        cx.out.writes.push(Write {
            group: self.group,
            token,
            hard: write_hard.then_some(HardState {
                term: hard.0,
                vote: hard.1,
                commit: self.log.commit,
                doubt: self.doubt,
            }),
            reset: cx.reset.take(),
            truncate,
            patch: std::mem::take(&mut cx.patch),
            entries: append_from.map_or_else(Vec::new, |first| self.log.fresh(first)),
            replies,
        });
    }

    /// The end of the part of the log that has no hole.
    pub(crate) fn sound_last(&self) -> LogIndex {
        match self.damage.first() {
            Some((first, _)) if !bug!(self, HoleAcknowledged) => self.log.last().min(first.prev()),
            _ => self.log.last(),
        }
    }

    fn on_written(&mut self, token: Token, cx: &mut Cx<'_>) {
        if bug!(self, StaleCompletion) {
            self.writes.retain(|w| w.token.seq > token.seq);
            self.durable_hard = self.written_hard;
            self.log.durable = self.log.durable.max(token.index.min(self.log.last()));
            return self.after_written(cx);
        }
        let Some(at) = self.writes.iter().position(|w| w.token.seq == token.seq) else {
            cx.out.notes.push((self.group, Note::StaleWrite(token)));
            return;
        };
        if self.writes[at].token != token {
            // The store ends elsewhere than this log did: a truncation or an append was not carried out.
            return self.halt(Fault::StoreDisagrees(token.index), cx);
        }
        // Writes are durable in order, so the last one says it all; but an earlier one may still prove more of
        // the log than a later one whose part was truncated since.
        let mut proven = self.log.durable;
        for write in self.writes.drain(..=at) {
            proven = proven.max(write.upto);
            self.durable_hard = write.hard;
        }
        assert!(
            proven <= self.sound_last(),
            "R-17: a completion proves no more than what is left of its write"
        );
        self.log.durable = proven;
        self.after_written(cx);
    }

    fn after_written(&mut self, cx: &mut Cx<'_>) {
        match self.role {
            Role::Leader(_) => {
                self.maybe_commit(cx);
                self.evict();
            }
            Role::Candidate(_) if self.durable_hard == (self.term, Some(self.me)) => {
                self.count_vote(self.me, true, cx)
            }
            _ => self.evict(),
        }
    }

    /// Lowers what is durable, now and by writes in flight, to the entry before `from`: it is gone or broken.
    pub(crate) fn unprove(&mut self, from: LogIndex) {
        let before = from.prev();
        self.log.durable = self.log.durable.min(before);
        for write in &mut self.writes {
            write.upto = write.upto.min(before);
        }
    }

    fn on_applied(&mut self, index: LogIndex) {
        if index <= self.log.applied {
            return;
        }
        assert!(index <= self.log.applying, "R-4: applied is what was handed out");
        self.log.applied_to(index);
        self.evict();
    }

    fn hand_out_applies(&mut self, cx: &mut Cx<'_>) {
        // One batch at a time bounds what a slow state machine holds.
        if self.log.applying > self.log.applied {
            return;
        }
        // A follower applies only what it has safely; a leader answers clients as soon as a quorum has it.
        let gate = match self.role {
            Role::Leader(_) => self.log.commit,
            _ => self.log.commit.min(self.log.durable),
        };
        let first = self.log.applying.next();
        if gate < first {
            return;
        }
        let (last, entries) = match self.log.slice(first, gate, self.options.apply_bytes_max) {
            Slice::Here { entries, .. } => (entries.last().map_or(gate, |e| e.index), entries),
            Slice::OnDisk { last } => {
                (last.min(LogIndex(first.0 + self.options.apply_entries_max - 1)), Vec::new())
            }
        };
        self.log.applying = last;
        cx.out.applies.push(Apply { group: self.group, first, last, entries });
    }

    /// A leader keeps recent entries for those who lag, a follower keeps none.
    pub(crate) fn evict(&mut self) {
        match &self.role {
            Role::Leader(leader) => {
                let keep = leader.peers.iter().map(|p| p.matched.next()).min().unwrap_or(LogIndex(u64::MAX));
                self.log.evict(keep, self.options.cache_bytes_max);
            }
            _ => self.log.evict(LogIndex(u64::MAX), 0),
        }
    }

    fn on_compacted(&mut self, index: LogIndex, chain: crate::types::Chain, cx: &mut Cx<'_>) {
        if index <= self.log.base().index || index > self.log.applied {
            return;
        }
        if self.log.chain(index).is_some_and(|have| have != chain) {
            return self.halt(Fault::Diverged(index), cx);
        }
        let term = self.log.term(index).expect("R-12: an applied index is in the log");
        // the membership of that index, not one that is newer and may yet be undone.
        let members = if bug!(self, SnapshotNewestMembers) {
            self.log.members().1.clone()
        } else {
            self.log.members_at(index).clone()
        };
        let meta = SnapshotMeta { index, term, chain, members };
        self.log.rebase(meta.clone());
        // The state vouches for everything below it, with holes or without.
        self.log.durable = self.log.durable.max(index);
        self.trim_holes(index, LogIndex(u64::MAX));
        cx.reset = Some(Box::new(meta));
        self.evict();
    }

    /// Stops the group on this node.
    pub(crate) fn halt(&mut self, fault: Fault, cx: &mut Cx<'_>) {
        self.fail_reads(cx);
        self.role = Role::Follower;
        self.leader = None;
        self.election_at = NEVER;
        self.halted = Some(fault);
        cx.out.notes.push((self.group, Note::Halted(fault)));
    }

    /// Sends now; `finish` holds it back while the term is not durable.
    pub(crate) fn send(&self, to: NodeId, body: Body, cx: &mut Cx<'_>) {
        self.send_in(self.term, to, body, cx);
    }

    pub(crate) fn send_in(&self, term: Term, to: NodeId, body: Body, cx: &mut Cx<'_>) {
        cx.out.messages.push(Message { group: self.group, from: self.me, to, term, body });
    }

    /// Sends once this step's write is durable.
    pub(crate) fn send_after(&self, to: NodeId, body: Body, cx: &mut Cx<'_>) {
        cx.replies.push(Message { group: self.group, from: self.me, to, term: self.term, body });
    }

    fn on_message(&mut self, mut message: Message, cx: &mut Cx<'_>) {
        #[cfg(any(test, feature = "mutants"))]
        {
            self.old_now = cx.live.now;
        }
        if message.group != self.group || message.from == self.me {
            return;
        }
        if bug!(self, IncarnationIgnored) {
            if message.to.id != self.me.id {
                return;
            }
            let known = self.log.members().1.all();
            if let Some(same) = known.iter().find(|m| m.id == message.from.id) {
                message.from = *same;
            }
        } else if message.to != self.me {
            // it was meant for a disk that is gone.
            return;
        }
        let Message { from, term, body, .. } = message;
        match body {
            // These carry no authority: no term is taken from them.
            Body::PreVote { last, last_term } => self.on_pre_vote(from, term, last, last_term, cx),
            Body::PreVoteReply { granted } => self.on_pre_vote_reply(from, term, granted, cx),
            Body::ReadIndex { id } => self.on_read(id, Some(from), cx),
            Body::ReadIndexReply { id, index } => self.on_read_reply(id, index, cx),
            Body::RepairAsk { first, term, last } => self.on_repair_ask(from, first, term, last, cx),
            Body::RepairGive(entries) => self.on_repair_give(entries, cx),
            Body::Vote { last, last_term, transfer } => {
                self.on_vote(from, term, last, last_term, transfer, cx)
            }
            Body::Resign => self.on_resign(from, term, cx),
            body if term < self.term => {
                // Tell whoever thinks to lead; an answer of an old term is of no use to anybody.
                if matches!(body, Body::Append(_) | Body::Beat { .. } | Body::Snapshot(_) | Body::TimeoutNow)
                {
                    self.send(from, Body::Behind, cx);
                }
            }
            body => {
                if term > self.term {
                    self.follow(term, None, cx);
                }
                self.on_current(from, body, cx);
            }
        }
    }

    /// A message of the present term.
    fn on_current(&mut self, from: NodeId, body: Body, cx: &mut Cx<'_>) {
        match body {
            Body::Append(append) => self.on_append(from, append, cx),
            Body::Beat { commit, round } => self.on_beat(from, commit, round, cx),
            Body::Snapshot(meta) => self.on_snapshot(from, *meta, cx),
            Body::VoteReply { granted } => self.count_vote(from, granted, cx),
            Body::AppendOk { accepted, durable, commit, repair_from, round, epoch } => {
                self.heard(from, commit, round, epoch);
                self.on_append_ok(from, accepted, durable, repair_from, cx);
                self.confirm_reads(cx);
            }
            Body::AppendReject { prev, hint, hint_term, round, epoch } => {
                self.heard(from, LogIndex::ZERO, round, epoch);
                self.on_append_reject(from, prev, (hint, hint_term), round, cx);
                self.confirm_reads(cx);
            }
            Body::BeatOk { commit, round, epoch } => {
                self.heard(from, commit, round, epoch);
                self.confirm_reads(cx);
            }
            Body::SnapshotFailed { index } => self.on_snapshot_failed(from, index),
            Body::TimeoutNow => self.on_timeout_now(from, cx),
            Body::Behind
            | Body::Resign
            | Body::PreVote { .. }
            | Body::PreVoteReply { .. }
            | Body::Vote { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::RepairAsk { .. }
            | Body::RepairGive(_) => {}
        }
    }

    /// Becomes a follower, perhaps in a newer term, perhaps of nobody.
    pub(crate) fn follow(&mut self, term: Term, leader: Option<NodeId>, cx: &mut Cx<'_>) {
        assert!(term >= self.term, "R-18: terms do not go back");
        let changed = term > self.term || leader != self.leader || !matches!(self.role, Role::Follower);
        if term > self.term {
            self.term = term;
            self.vote = None;
        }
        self.fail_reads(cx);
        self.role = Role::Follower;
        self.leader = leader;
        if leader.is_none() {
            self.election_at = self.election_at.min(self.election_time(cx.live.now));
        }
        if changed {
            cx.out.notes.push((self.group, Note::Follows(term, leader)));
        }
    }

    fn on_tick(&mut self, cx: &mut Cx<'_>) {
        if cx.live.now < self.deadline() {
            return;
        }
        if let Role::Leader(_) = self.role {
            return self.tick_leader(cx);
        }
        let was_following = self.leader.is_some();
        self.election_at = NEVER;
        if self.promise_holds(cx.live) {
            if let Some(promise) = self.promise.filter(|p| p.term < self.term) {
                // It leads a term that is over here, and may have nothing to say for long: nobody would lead this replica until then.
                self.send(promise.node, Body::Behind, cx);
                self.election_at = self.election_time(cx.live.now);
            }
            return;
        }
        if self.eligible() {
            self.leader = None;
            self.pre_campaign(cx);
            return;
        }
        // Not one to lead: whoever is still bound to it, from whatever term, or could mend it, must hear so again and again.
        self.leader = None;
        self.tries = self.tries.saturating_add(1);
        let told = self.broadcast_resign(cx);
        if !self.damage.is_empty() {
            self.ask_repair(cx);
        }
        if was_following || told || !self.damage.is_empty() {
            self.election_at = self.election_time(cx.live.now);
        }
    }

    /// When [`Event::Tick`] is due, on this node's monotonic clock; `u64::MAX` for never. An idle group says never.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        match &self.role {
            Role::Leader(leader) => leader.deadline(),
            _ => self.election_at,
        }
    }

    /// A leader sets its timer only while something is outstanding.
    fn arm(&mut self, live: &Liveness) {
        if let Role::Leader(leader) = &mut self.role
            && leader.resend_at == NEVER
            && leader.outstanding(&self.log, live)
        {
            leader.resend_at = live.now + self.options.resend_ns;
        }
    }

    /// A moment between one and two election times from now, later after many tries in vain.
    pub(crate) fn election_time(&mut self, now: u64) -> u64 {
        let span = self.options.election_ns << self.tries.saturating_sub(3).min(3);
        now + span + self.random() % span
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The membership that counts: the newest in the log, committed or not.
    pub(crate) fn counting(&self) -> std::borrow::Cow<'_, Members> {
        if bug!(self, MembersAtCommit) {
            return std::borrow::Cow::Borrowed(self.log.members_at(self.log.commit));
        }
        if bug!(self, JointCountsOneHalf) {
            return std::borrow::Cow::Owned(self.log.members().1.leave_joint());
        }
        std::borrow::Cow::Borrowed(self.log.members().1)
    }

    /// The replica at a glance.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            role: match self.role {
                Role::Follower => RoleName::Follower,
                Role::PreCandidate(_) => RoleName::PreCandidate,
                Role::Candidate(_) => RoleName::Candidate,
                Role::Leader(_) => RoleName::Leader,
            },
            term: self.term,
            vote: self.vote,
            leader: self.leader,
            base: self.log.base().index,
            durable: self.log.durable,
            last: self.log.last(),
            last_term: self.log.last_term(),
            commit: self.log.commit,
            applied: self.log.applied,
            settled: self.settled(),
            damaged: !self.damage.is_empty() || self.doubt,
            halted: self.halted,
        }
    }

    /// Its group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Its node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The newest membership of the log and its index; committed if the index is at most `status().commit`.
    #[must_use]
    pub fn members(&self) -> (LogIndex, &Members) {
        self.log.members()
    }

    /// The membership as of an index between the base and the end.
    #[must_use]
    pub fn members_at(&self, index: LogIndex) -> &Members {
        self.log.members_at(index)
    }

    /// The snapshot that this replica was told to fetch, and from whom.
    #[must_use]
    pub fn installing(&self) -> Option<(LogIndex, NodeId)> {
        self.incoming
    }

    /// Every replica of a node that this one has to do with, by the node's id: news of a node are for all of them.
    #[must_use]
    pub fn known_as(&self, id: u64) -> Vec<NodeId> {
        let mut all: Vec<NodeId> = self.log.members().1.all();
        all.extend(self.log.members_at(self.log.commit).all());
        all.extend(self.peers().iter().map(|p| p.node));
        all.extend(self.leader);
        all.extend(self.promise.map(|p| p.node));
        all.retain(|n| n.id == id && *n != self.me);
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What the log stands on.
    #[must_use]
    pub fn base(&self) -> &SnapshotMeta {
        self.log.base()
    }

    /// Term of an entry between the base and the end.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.log.term(index)
    }

    /// Chain at the end of the log.
    #[must_use]
    pub fn last_chain(&self) -> crate::types::Chain {
        self.log.last_chain()
    }

    /// The node to which this replica has promised its support, while the promise holds.
    #[must_use]
    pub fn promised_to(&self, live: &Liveness) -> Option<NodeId> {
        self.promise.filter(|_| self.promise_holds(live)).map(|p| p.node)
    }

    /// What a leader knows of its followers, in order of their ids; empty elsewhere.
    #[must_use]
    pub fn peers(&self) -> &[crate::progress::Progress] {
        match &self.role {
            Role::Leader(leader) => &leader.peers,
            _ => &[],
        }
    }

    /// Forgets what makes equal replicas look unequal to a model checker: times (every deadline that is set becomes due at once),
    /// tries, randomness, and the numbers of writes that are done. For models, where `now` is always 0.
    #[cfg(any(test, feature = "model"))]
    pub fn forget_time(&mut self) {
        let due = |at: &mut u64| {
            if *at != NEVER {
                *at = 0;
            }
        };
        self.rng = 0;
        self.tries = 0;
        self.contact_at = 0;
        due(&mut self.election_at);
        if self.writes.is_empty() {
            self.next_seq = 0;
        }
        if let Role::Leader(leader) = &mut self.role {
            due(&mut leader.resend_at);
            leader.peers.iter_mut().for_each(crate::progress::Progress::forget_pace);
            // A model has no silence: its leaders step down by events.
            leader.quorum_at = NEVER;
        }
    }

    /// Gives back memory that an idle replica does not need.
    pub fn shrink(&mut self) {
        self.evict();
        self.log.shrink();
        self.writes.shrink_to_fit();
        self.damage.shrink_to_fit();
        if let Role::Leader(leader) = &mut self.role {
            leader.peers.iter_mut().for_each(crate::progress::Progress::shrink);
            leader.peers.shrink_to_fit();
        }
    }

    /// Bytes of memory that this replica takes, without payloads and without the shared options.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let role = match &self.role {
            Role::Follower => 0,
            Role::PreCandidate(votes) | Role::Candidate(votes) => {
                votes.capacity() * size_of::<(NodeId, bool)>()
            }
            Role::Leader(leader) => leader.memory_bytes(),
        };
        size_of::<Self>() + role + self.log.heap_bytes() + self.writes.capacity() * size_of::<InFlight>()
    }
}
