//! One group: its core, the writes under way, and the handle that others hold.
//!
//! Owns the core's lock and what is done under it: steps, and carrying out the writes that they issue (D-3). Does not await anything: that is
//! `activity`. No lock is held while a machine is called.
//!
//! - D-14: who is said to hold a lease has applied all that was acknowledged, and nobody else leads before it ends.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use raft::{Core, EntryKind, Event, HardState, LogIndex, Note, Ready, Token, Write};
use store::{NewEntry, Sync, Ticket};
use tokio::sync::{Notify, oneshot};

use crate::{
    campaigns::QUEUED,
    codec,
    lives::node,
    machine::{Machine, Proposal, Refusal, Role},
    net,
    replicas::Shared,
    transfer::Fetched,
};

/// So many times `retain_bytes` are kept for a member that is there and slow.
const RETAIN_FACTOR: u64 = 4;
/// No activity.
pub(crate) const IDLE: u8 = 0;
/// An activity runs and will not look at the machine again unless it is told to.
pub(crate) const RUNNING: u8 = 1;
/// An activity runs and will look at the machine again before it ends.
pub(crate) const WOKEN: u8 = 2;

/// See the module.
pub(crate) struct Group {
    pub id: raft::GroupId,
    pub shared: Arc<Shared>,
    pub store: store::Group,
    pub machine: Arc<dyn Machine>,
    pub inner: Mutex<Inner>,
    /// [`IDLE`], [`RUNNING`] or [`WOKEN`].
    pub run: AtomicU8,
    /// Wakes an activity that waits.
    pub notify: Notify,
    /// The membership moved, or a node said what its replica is.
    pub changed: Notify,
    /// Its entries do not reach the disk.
    pub memory: bool,
    /// [`Sync::Relaxed`].
    pub relaxed: AtomicBool,
    /// This node is its only member, and nothing was proposed in this life: its writes, a term and the entry that begins it, need not be durable
    /// before they count, since nobody has heard of anything that rests on them, and the first proposal's sync covers them. A power failure
    /// before that takes back a reign in which nothing happened.
    pub young: AtomicBool,
    /// Something was applied since the last checkpoint.
    pub dirty: AtomicBool,
    /// Bytes appended since the last checkpoint.
    pub since_checkpoint: AtomicU64,
    /// Until when nobody else can lead, as far as this node has looked (D-14); nanoseconds on the monotonic clock.
    pub lease: AtomicU64,
}

/// A write that the store took, in order.
pub(crate) struct InFlight {
    token: Token,
    /// What makes hard states and truncations durable, and what the policy asks of the entries.
    tickets: [Option<Ticket>; 2],
    /// Messages that may leave once it is durable.
    replies: Vec<raft::Message>,
}

impl InFlight {
    /// The first ticket that is not redeemed.
    fn open(&self) -> Option<&Ticket> {
        self.tickets.iter().flatten().find(|t| t.poll_settled().is_none())
    }
    /// `None` while a ticket is open.
    fn done(&self) -> Option<store::Result<()>> {
        for t in self.tickets.iter().flatten() {
            match t.poll_settled()? {
                Ok(()) => {}
                Err(e) => return Some(Err(e)),
            }
        }
        Some(Ok(()))
    }
}

/// What is under the group's lock.
pub(crate) struct Inner {
    pub core: Core,
    pub inflight: VecDeque<InFlight>,
    /// Writes that the store had no room for, in order; nothing is proposed meanwhile.
    pub stalled: VecDeque<Write>,
    /// An apply that was handed out and has not begun.
    pub apply: Option<raft::Apply>,
    /// Proposals that are not committed yet: last index and bytes.
    pub open: VecDeque<(LogIndex, u64)>,
    pub open_bytes: u64,
    /// Proposals that were taken from the machine and for which there was no room yet.
    pub held: VecDeque<Proposal>,
    /// What happened elsewhere and waits for the activity.
    pub events: VecDeque<Event>,
    /// When the shared timer wakes the group; `u64::MAX` for never, [`QUEUED`] while it waits for its turn to campaign.
    pub timer: u64,
    /// Reads that wait for an index, and those that wait until theirs is applied.
    pub next_read: u64,
    pub reads: Vec<(u64, oneshot::Sender<Option<LogIndex>>)>,
    pub barriers: Vec<(LogIndex, oneshot::Sender<Option<LogIndex>>)>,
    /// Work for peers that the activity begins.
    pub loads: Vec<raft::Load>,
    pub installs: Vec<raft::Install>,
    /// The state of another node is being fetched, or is here and waits for its turn.
    pub fetching: bool,
    /// Its log was in memory and is gone, and nobody has taken it in yet.
    pub forgot: bool,
    /// Just made, to be led by this node, and nobody leads yet.
    pub eager: bool,
    /// What the machine was told last.
    pub told: Option<Role>,
    /// The membership that the machine was told of last.
    pub told_members: Option<LogIndex>,
    /// What most groups never need.
    pub rare: Option<Box<Rare>>,
    pub stop: Option<Arc<str>>,
    /// A leader contradicts what is applied here, of a log that is in doubt.
    pub contradicted: bool,
    /// Who waits for a checkpoint to be taken, or for the group to have nothing under way.
    pub wants_checkpoint: Vec<oneshot::Sender<()>>,
    pub wants_quiet: Vec<oneshot::Sender<()>>,
}

/// What a group needs while its members change or catch up, and most groups never.
#[derive(Default)]
pub(crate) struct Rare {
    /// Which replica of this group other nodes say that they have, by their ids.
    pub said: BTreeMap<u64, u32>,
    /// A state that was fetched and waits for its turn.
    pub fetched: Option<Fetched>,
    /// Nodes whose replicas forgot, and are to be taken in again; and whether somebody sees to that.
    pub healing: BTreeSet<u64>,
    pub heals: bool,
    /// Something of what is to be applied could not be read, and others were asked for it. That it is a hole does not say so: it is reading that asks
    /// for what nobody has missed yet (rot 14000145).
    pub waits_for_others: bool,
    /// Who waits for the state as of now.
    pub wants_state: Vec<oneshot::Sender<Option<store::Outgoing>>>,
}

impl Inner {
    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(crate) fn new(core: Core) -> Inner {
        Inner {
            core,
            inflight: VecDeque::new(),
            stalled: VecDeque::new(),
            apply: None,
            open: VecDeque::new(),
            open_bytes: 0,
            held: VecDeque::new(),
            events: VecDeque::new(),
            timer: u64::MAX,
            next_read: 0,
            reads: Vec::new(),
            barriers: Vec::new(),
            loads: Vec::new(),
            installs: Vec::new(),
            fetching: false,
            rare: None,
            eager: false,
            forgot: false,
            contradicted: false,
            told: None,
            told_members: None,
            stop: None,
            wants_checkpoint: Vec::new(),
            wants_quiet: Vec::new(),
        }
    }
}

/// What a look at the group's pipeline said.
pub(crate) enum Pipeline {
    /// Another batch may be proposed.
    Free,
    /// Enough is under way, or it does not lead: look again when something happens.
    Full,
    /// The store has no room: look again after a pause.
    Stalled,
}

impl Group {
    /// Sees to it that an activity looks at the machine (and all else) from now on.
    pub(crate) fn wake(self: &Arc<Self>) {
        match self.run.swap(WOKEN, Ordering::AcqRel) {
            IDLE => drop(env::spawn(self.clone().activity())),
            RUNNING => self.notify.notify_one(),
            _ => {}
        }
    }

    /// As [`Group::wake`], also for an activity that waits with a full pipeline.
    pub(crate) fn poke(self: &Arc<Self>) {
        match self.run.swap(WOKEN, Ordering::AcqRel) {
            IDLE => drop(env::spawn(self.clone().activity())),
            _ => self.notify.notify_one(),
        }
    }

    /// Leaves an event for the activity.
    pub(crate) fn post(self: &Arc<Self>, event: Event) {
        self.inner.lock().events.push_back(event);
        self.poke();
    }

    /// Steps the core and carries out what it asks for.
    pub(crate) fn step(&self, inner: &mut Inner, event: Event, ready: &mut Ready) {
        self.with_live(inner, |core, live| core.step(event, live, ready));
        self.carry(inner, ready);
    }

    /// Runs `f` with the table of node pairs. A sole member owes nobody a promise, so it need not wait before it votes.
    pub(crate) fn with_live<T>(
        &self,
        inner: &mut Inner,
        f: impl FnOnce(&mut Core, &raft::Liveness) -> T,
    ) -> T {
        let sole = net::sole(inner);
        self.shared.with_live(sole, |live| f(&mut inner.core, live))
    }

    /// Takes what happened since the last look: completions, events, the deadline.
    pub(crate) fn look(&self, ready: &mut Ready) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        self.retry_stalled(inner, ready);
        self.completions(inner, ready);
        while let Some(e) = inner.events.pop_front() {
            self.take(inner, e, ready);
        }
        // What waits for its turn to campaign is not begun by chance.
        if inner.core.deadline() <= env::now().0 && inner.timer != QUEUED {
            self.step(inner, Event::Tick, ready);
        }
        inner.serve_barriers();
    }

    /// Steps the core with an event. News of a node are news of each replica that it has or had.
    fn take(&self, inner: &mut Inner, event: Event, ready: &mut Ready) {
        let (Event::Withdrawn(n)
        | Event::SupportLost(n)
        | Event::Reachable(n)
        | Event::Unreachable(n)
        | Event::Excepted(n, _)
        | Event::Transfer(n)) = &event
        else {
            return self.step(inner, event, ready);
        };
        let known = inner.core.known_as(n.id);
        if known.is_empty() {
            return self.step(inner, event, ready);
        }
        for n in known {
            let event = match &event {
                Event::Withdrawn(_) => Event::Withdrawn(n),
                Event::SupportLost(_) => Event::SupportLost(n),
                Event::Reachable(_) => Event::Reachable(n),
                Event::Unreachable(_) => Event::Unreachable(n),
                Event::Excepted(_, t) => Event::Excepted(n, *t),
                _ => Event::Transfer(n),
            };
            self.step(inner, event, ready);
        }
    }

    /// Tells the core of all writes that became durable. The last one implies those before it.
    fn completions(&self, inner: &mut Inner, ready: &mut Ready) {
        loop {
            let mut done = None;
            while let Some(f) = inner.inflight.front() {
                match f.done() {
                    None => break,
                    Some(Ok(())) => {
                        let f = inner.inflight.pop_front().expect("just seen");
                        self.shared.net.send(f.replies.into_iter());
                        done = Some(f.token);
                    }
                    Some(Err(e)) => return self.fail(inner, e.to_string(), ready),
                }
            }
            let Some(token) = done else { break };
            self.step(inner, Event::Written(token), ready);
            // A write without a ticket may have been added by that very step.
        }
        let commit = inner.core.status().commit;
        while inner.open.front().is_some_and(|o| o.0 <= commit) {
            let (_, bytes) = inner.open.pop_front().expect("just seen");
            inner.open_bytes -= bytes;
        }
    }

    /// Stops the group on this node.
    pub(crate) fn fail(&self, inner: &mut Inner, why: String, ready: &mut Ready) {
        if inner.stop.is_none() {
            tracing::error!(group = self.id.0, "stopped: {why}");
            inner.stop = Some(why.into());
        }
        self.lease.store(0, Ordering::Release);
        inner.inflight.clear();
        inner.stalled.clear();
        inner.apply = None;
        let token = Token { seq: 0, term: raft::Term(0), index: LogIndex::ZERO };
        self.with_live(inner, |core, live| core.step(Event::WriteFailed(token), live, ready));
        self.stopped(inner);
        ready.clear();
    }

    /// Looks anew until when nobody else can lead; 0 if that is not known, `u64::MAX` if nobody else is there.
    fn renew_lease(&self) -> u64 {
        let mut inner = self.inner.lock();
        // Who has not settled does not have all that was acknowledged, whatever its lease.
        let knows = inner.stop.is_none() && inner.core.status().settled;
        let until = match knows {
            true => self.with_live(&mut inner, |core, live| core.lease_until(live)),
            false => 0,
        };
        let until =
            if until == u64::MAX { until } else { until.saturating_sub(self.shared.options.raft.drift_ns) };
        self.lease.store(until, Ordering::Release);
        until
    }

    /// Others must not count on this node for the group any more.
    fn stopped(&self, inner: &Inner) {
        if !net::sole(inner) {
            self.shared.net.except(self.id, inner.core.status().term);
        }
    }

    /// Carries out what a step asked for.
    pub(crate) fn carry(&self, inner: &mut Inner, ready: &mut Ready) {
        if ready.is_empty() {
            return;
        }
        if self.lease.load(Ordering::Relaxed) != 0
            && (!inner.core.may_lease() || ready.notes.iter().any(|n| matches!(n.1, Note::Members(_))))
        {
            // D-14: what was counted on was another membership's, or another term's.
            self.lease.store(0, Ordering::Release);
        }
        for note in ready.notes.drain(..) {
            self.note(inner, note.1);
        }
        self.shared.net.send(ready.messages.drain(..));
        inner.loads.append(&mut ready.loads);
        inner.installs.append(&mut ready.installs);
        for read in ready.reads.drain(..) {
            inner.on_read(read);
        }
        let mut failed = None;
        for mut write in ready.writes.drain(..) {
            if failed.is_some() || !inner.stalled.is_empty() {
                inner.stalled.push_back(write);
            } else if let Err(e) = self.write(inner, &mut write) {
                if !retryable(&e) {
                    failed = Some(e.to_string());
                }
                inner.stalled.push_back(write);
            }
        }
        if let Some(apply) = ready.applies.pop() {
            inner.apply = Some(apply);
        }
        ready.clear();
        if let Some(why) = failed {
            self.fail(inner, why, ready);
        }
    }

    fn note(&self, inner: &mut Inner, note: Note) {
        match note {
            Note::Patched(index) => tracing::info!(group = self.id.0, "entry {} is mended", index.0),
            Note::Halted(fault) => {
                inner.contradicted |= fault.is_contradiction() && inner.core.is_distrusted();
                tracing::error!(group = self.id.0, "halted: {fault:?}");
                inner.stop.get_or_insert_with(|| format!("halted: {fault:?}").into());
                self.stopped(inner);
            }
            Note::Members(_) => {
                self.shared.know(inner.core.members().1);
                self.changed.notify_waiters();
            }
            Note::Leads(_) | Note::Follows(..) | Note::Campaigns(_) => {
                if matches!(note, Note::Leads(_) | Note::Follows(_, Some(_))) {
                    inner.eager = false;
                }
                tracing::debug!(group = self.id.0, "{note:?}");
            }
            Note::Refused(_) | Note::ChangeRefused(_) => {}
            _ => tracing::warn!(group = self.id.0, "{note:?}"),
        }
    }

    /// Tries again what the store had no room for.
    fn retry_stalled(&self, inner: &mut Inner, ready: &mut Ready) {
        while let Some(mut write) = inner.stalled.pop_front() {
            if let Err(e) = self.write(inner, &mut write) {
                if retryable(&e) {
                    inner.stalled.push_front(write);
                } else {
                    self.fail(inner, e.to_string(), ready);
                }
                return;
            }
        }
    }

    /// Gives one write to the store (D-3). Its parts may be done twice if one of them found no room: each is idempotent until the last.
    fn write(&self, inner: &mut Inner, write: &mut Write) -> store::Result<()> {
        let mut tickets = [None, None];
        let members = write.reset.is_some() || write.entries.iter().any(|e| e.kind == EntryKind::Config);
        // Whoever else is to be a member counts on what is here.
        let young = self.young.load(Ordering::Relaxed) && !members && net::sole(inner);
        if self.memory && (write.hard.is_some() || members) {
            // Its log does not outlive a restart, and it must be known then whether others are counting on it.
            let s = inner.core.status();
            let hard = write.hard.unwrap_or(HardState {
                term: s.term,
                vote: s.vote,
                commit: s.commit,
                doubt: false,
            });
            let state = codec::memory_state(&hard, inner.core.members().1);
            tickets[0] = Some(self.store.set_hard_state(state)?);
        } else if let Some(hard) = &write.hard {
            let sync = if young { Sync::Relaxed } else { Sync::Always };
            tickets[0] = Some(self.store.set_hard_state_with(codec::hard_state(hard), sync)?);
        }
        if !write.patch.is_empty() {
            // The store knows what stood before each.
            let patch = write.patch.iter().map(|e| to_store(e, store::Chain(0))).collect();
            tickets[0] = Some(self.store.patch(patch)?);
        }
        if let Some(from) = write.truncate {
            // A later round implies the earlier ones.
            let truncated = self.store.truncate(store::LogIndex(from.0));
            // What is applied is not taken back; only guessed terms lead there.
            inner.contradicted |=
                matches!(truncated, Err(store::Error::Invalid(_))) && inner.core.is_distrusted();
            tickets[0] = Some(truncated?);
        }
        if !write.entries.is_empty() {
            let mut prev = self.store.last().2;
            let mut bytes = 0;
            let entries = write.entries.iter().map(|e| {
                bytes += e.cost();
                let entry = to_store(e, prev);
                prev = entry.chain;
                entry
            });
            // The first proposal's sync covers what a young group writes.
            // Whoever leads a group of one writes what it has proposed; what came from elsewhere is checked again (D-6).
            let own = net::sole(inner) && inner.core.status().leader == Some(inner.core.me());
            let append = |entries: Vec<NewEntry>, sync| match own {
                true => self.store.append_own(entries, sync),
                false => self.store.append(entries, sync),
            };
            let relaxed =
                young || self.relaxed.load(Ordering::Relaxed) || env::planted!("js-ack-before-sync");
            // The end of the process takes nothing back that was acknowledged: what is relaxed waits for the write, though not for the sync. A group in memory
            // waits for the reservation of its numbers only, which is nearly always there.
            let sync = if relaxed && !self.memory { Sync::Relaxed } else { Sync::Always };
            tickets[1] = Some(append(entries.collect(), sync)?);
            self.shared.grew(bytes);
            self.since_checkpoint.fetch_add(bytes, Ordering::Relaxed);
        }
        if young {
            tickets[0] = None;
            if !self.memory {
                tickets[1] = None;
            }
        }
        // The store's own end, so that a truncation or an append that was not carried out is noticed.
        let token = Token { index: LogIndex(self.store.last().0.0), ..write.token };
        inner.inflight.push_back(InFlight { token, tickets, replies: std::mem::take(&mut write.replies) });
        Ok(())
    }

    /// Whether another batch may be taken from the machine.
    pub(crate) fn pipeline(&self, inner: &Inner) -> Pipeline {
        if !inner.stalled.is_empty() {
            return Pipeline::Stalled;
        }
        let o = &self.shared.options;
        if inner.open.len() >= o.inflight_batches
            || inner.open_bytes >= o.inflight_bytes
            || !matches!(inner.told, Some(Role::Leader { .. }))
        {
            return Pipeline::Full;
        }
        Pipeline::Free
    }

    /// Puts one proposal into the log.
    ///
    /// # Errors
    /// Why it was not, and the proposal back.
    pub(crate) fn put(
        &self,
        inner: &mut Inner,
        proposal: Proposal,
        ready: &mut Ready,
    ) -> Result<LogIndex, (Proposal, Refusal)> {
        if let Some(why) = &inner.stop {
            return Err((proposal, Refusal::Stopped(why.clone())));
        }
        if !inner.stalled.is_empty() {
            return Err((proposal, Refusal::Busy));
        }
        self.young.store(false, Ordering::Relaxed);
        let bytes = proposal.payload.len() as u64;
        if let Err(e) = self.store.room(bytes) {
            let why = match e {
                store::Error::Busy => Refusal::Busy,
                store::Error::NoSpace(s) => Refusal::NoSpace(s.into()),
                store::Error::Invalid(_) => Refusal::TooLarge,
                e => {
                    let text = e.to_string();
                    self.fail(inner, text.clone(), ready);
                    Refusal::Stopped(text.into())
                }
            };
            return Err((proposal, why));
        }
        let again = proposal.clone();
        match self.with_live(inner, |core, live| core.propose(vec![proposal], live, ready)) {
            Ok(index) => {
                inner.open.push_back((index, bytes));
                inner.open_bytes += bytes;
                self.carry(inner, ready);
                Ok(index)
            }
            Err(why) => {
                self.carry(inner, ready);
                let why = match why {
                    raft::Refusal::NotLeader(n) => Refusal::NotLeader(n.map(node)),
                    raft::Refusal::Settling | raft::Refusal::Transferring => Refusal::Settling,
                    raft::Refusal::Uncommitted | raft::Refusal::Unapplied | raft::Refusal::Reads => {
                        Refusal::Busy
                    }
                    raft::Refusal::BadProposal => Refusal::TooLarge,
                    raft::Refusal::Halted => {
                        Refusal::Stopped(inner.stop.clone().unwrap_or_else(|| "halted".into()))
                    }
                };
                Err((again, why))
            }
        }
    }

    /// What the group is now, for its machine.
    pub(crate) fn role(inner: &Inner) -> Role {
        if let Some(why) = &inner.stop {
            return Role::Stopped(why.clone());
        }
        let s = inner.core.status();
        if s.settled {
            Role::Leader { term: s.term }
        } else {
            let leader = s.leader.filter(|n| *n != inner.core.me()).map(node);
            Role::Follower { term: s.term, leader }
        }
    }

    /// Whether a write is done that the core has not heard of.
    pub(crate) fn has_completion(inner: &Inner) -> bool {
        inner.inflight.front().is_some_and(|f| f.open().is_none())
    }

    /// The first ticket that is open.
    pub(crate) fn next_ticket(inner: &Inner) -> Option<Ticket> {
        inner.inflight.front().and_then(|f| f.open().cloned())
    }

    /// Asks for votes now, and again with each member that turns up, until somebody leads.
    pub(crate) fn campaign_until_led(self: &Arc<Self>) {
        self.inner.lock().eager = true;
        self.post(Event::Campaign);
    }

    /// The state of this replica, for one that the log cannot help.
    pub(crate) async fn state_for_others(self: &Arc<Self>) -> Option<store::Outgoing> {
        if !self.memory {
            return self.store.outgoing();
        }
        // What was deleted since a checkpoint is not known any more: it has to be one of now.
        let (tx, rx) = oneshot::channel();
        self.inner.lock().rare().wants_state.push(tx);
        self.poke();
        rx.await.ok().flatten()
    }

    /// The state of a group in memory as of now. Called by the activity between two applies only (D-4).
    pub(crate) fn state_of_now(&self, ready: &mut Ready) -> Option<store::Outgoing> {
        let members = {
            let inner = self.inner.lock();
            let applied = inner.core.status().applied;
            if applied <= LogIndex(1) || inner.stop.is_some() {
                return None;
            }
            inner.core.members_at(applied).clone()
        };
        self.since_checkpoint.store(0, Ordering::Relaxed);
        self.store.checkpoint(codec::with_members(&members, &self.machine.checkpoint()));
        let out = self.store.outgoing()?;
        let (index, chain) = (LogIndex(out.checkpoint().index.0), raft::Chain(out.checkpoint().chain.0));
        // What is at or below it is state from now on.
        self.step(&mut self.inner.lock(), Event::Compacted { index, chain }, ready);
        Some(out)
    }

    /// Whether somebody who is there is fed from the log and would need the state instead if the log went now. For a while only, or one that is slow
    /// would make the log grow without end.
    fn is_needed(&self, inner: &Inner) -> bool {
        if self.since_checkpoint.load(Ordering::Relaxed) >= RETAIN_FACTOR * self.shared.options.retain_bytes {
            return false;
        }
        let last = inner.core.status().last;
        self.shared.with_live(false, |live| {
            inner.core.peers().iter().any(|p| {
                live.reachable(p.node)
                    && (p.feed != raft::progress::Feed::Replicate
                        || p.matched.0 + self.shared.options.raft.promote_lag_max < last.0)
            })
        })
    }

    /// Takes a checkpoint. Called by the activity between two applies only (D-4).
    pub(crate) fn take_checkpoint(&self) {
        self.dirty.store(false, Ordering::Relaxed);
        let members = {
            let inner = self.inner.lock();
            let applied = inner.core.status().applied;
            if applied == LogIndex::ZERO
                || (!net::sole(&inner)
                    && (self.since_checkpoint.load(Ordering::Relaxed) < self.shared.options.retain_bytes
                        || self.is_needed(&inner)))
            {
                // Others may need the log.
                return;
            }
            inner.core.members_at(applied).clone()
        };
        self.since_checkpoint.store(0, Ordering::Relaxed);
        let blob = self.machine.checkpoint();
        self.store.checkpoint(codec::with_members(&members, &blob));
    }
}

fn retryable(e: &store::Error) -> bool {
    matches!(e, store::Error::Busy | store::Error::NoSpace(_))
}

pub(crate) fn to_store(e: &raft::Entry, prev: store::Chain) -> NewEntry {
    let kind = match e.kind {
        EntryKind::Empty => store::Kind::Empty,
        EntryKind::Normal => store::Kind::Messages,
        EntryKind::Config => store::Kind::Config,
        EntryKind::Control => store::Kind::Control,
    };
    NewEntry {
        kind,
        index: store::LogIndex(e.index.0),
        term: store::Term(e.term.0),
        prev,
        chain: store::Chain(e.chain.0),
        payload: e.payload.clone(),
        digest: Some(e.digest),
    }
}

pub(crate) fn from_store(e: &store::Entry) -> raft::Entry {
    let kind = match e.head.kind {
        store::Kind::Empty => EntryKind::Empty,
        store::Kind::Messages => EntryKind::Normal,
        store::Kind::Config => EntryKind::Config,
        store::Kind::Control => EntryKind::Control,
    };
    raft::Entry {
        index: LogIndex(e.head.index.0),
        term: raft::Term(e.head.term.0),
        chain: raft::Chain(e.head.chain.0),
        kind,
        digest: e.head.digest,
        payload: e.payload.clone(),
    }
}

/// A group as the layers above hold it. Cheap to clone.
#[derive(Clone)]
pub struct Handle(pub(crate) Arc<Group>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({})", self.0.id.0)
    }
}

impl Handle {
    /// The group's id.
    #[must_use]
    pub fn id(&self) -> raft::GroupId {
        self.0.id
    }

    /// The group's log and stream in the store. Only the machine, in its `apply`, may change the stream.
    #[must_use]
    pub fn store(&self) -> &store::Group {
        &self.0.store
    }

    /// Says that [`Machine::take_proposals`] has something to give. Costs one atomic operation while the group works; else an
    /// activity is spawned on the current worker, so it has to be called on one. From any lock that `take_proposals` does not need.
    #[inline]
    pub fn wake(&self) {
        // Most calls find somebody else's wake: then the line is only read.
        if self.0.run.load(Ordering::Acquire) != WOKEN {
            self.0.wake();
        }
    }

    /// Puts one proposal into the log at once, past [`Machine::take_proposals`] and its bounds; the index that it will have. That it is
    /// committed shows when it is applied. Cheap; never waits. Must not be called under a lock that the machine needs. A machine that
    /// counts on the order of its own proposals uses either this or `take_proposals`.
    ///
    /// # Errors
    /// Why it is not in the log.
    pub fn propose(&self, proposal: Proposal) -> Result<LogIndex, Refusal> {
        let index = {
            let mut inner = self.0.inner.lock();
            self.0.put(&mut inner, proposal, &mut Ready::default()).map_err(|(_, why)| why)
        };
        self.0.poke();
        index
    }

    /// What the machine was told last; `None` before the first time.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.0.inner.lock().told.clone()
    }

    /// Whether this replica leads, and nobody else can before `now` (nanoseconds on the monotonic clock) is over: then what is applied here
    /// is all that was acknowledged anywhere (D-14). Costs a load; a lock when its grants have been renewed since it was asked last.
    #[inline]
    #[must_use]
    pub fn holds_lease(&self, now: u64) -> bool {
        if env::planted!("cl-stale-leader-answers") {
            return true;
        }
        now < self.0.lease.load(Ordering::Acquire) || now < self.0.renew_lease()
    }

    /// Returns when what is applied here is all that was acknowledged anywhere before the call: at once for a leader with a lease, else after a
    /// round of messages.
    ///
    /// # Errors
    /// That cannot be said in time: another node may lead.
    pub async fn confirm(&self, patience: Duration) -> Result<(), Refusal> {
        if self.holds_lease(env::now().0) {
            return Ok(());
        }
        match env::timeout(patience, self.read_barrier()).await {
            Ok(done) => done.map(drop),
            Err(_) => Err(Refusal::NotLeader(None)),
        }
    }

    /// Changes what an acknowledgement waits for, from the next proposal on.
    pub fn set_sync(&self, sync: Sync) {
        self.0.relaxed.store(sync == Sync::Relaxed, Ordering::Relaxed);
    }

    /// Takes a checkpoint now; it becomes durable with the store's next flush. Returns when it is taken, or when the group is stopped.
    pub async fn checkpoint(&self) {
        let (tx, rx) = oneshot::channel();
        self.0.inner.lock().wants_checkpoint.push(tx);
        self.0.poke();
        rx.await.ok();
    }

    /// Returns when nothing is under way: all that was proposed so far is applied, or the group is stopped.
    pub async fn quiet(&self) {
        let (tx, rx) = oneshot::channel();
        self.0.inner.lock().wants_quiet.push(tx);
        self.0.poke();
        rx.await.ok();
    }
}

/// The bytes of a group's own options, without what the driver keeps in front of them.
pub(crate) fn own_options(group: &store::Group) -> Option<(raft::Members, Bytes)> {
    codec::read_members(&group.options())
}
