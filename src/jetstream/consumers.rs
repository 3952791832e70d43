//! The consumers of a stream: who is to be looked at, when, and what of them is to be logged.
//!
//! Owns the register of a stream's consumers. Does not own what a consumer decides (`stream::consumer`).
//!
//! A consumer that is not ready and has no deadline is not looked at. What a consumer notes for the log gathers; it is proposed at once
//! where somebody waits for it, else within [`LAZY`].
//!
//! - J-28: a consumer delivers only where somebody listens who has subscribed: never for the sake of a stream or a service, whatever deliver subject or
//!   reply subject was chosen. Who may ask for messages may not therefore publish to everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use replica::Proposal;
use store::Need;
use stream::{
    ApiError, Now,
    command::{Command, Control},
    config::{Retention, StreamConfig},
    consumer::{
        AckPolicy, AckSubject, AckTokens, Consumer, ConsumerConfig, Identity, Info, Listeners, Output,
        PriorityPolicy,
        check::{self, Parent},
    },
    errors,
};

use crate::{
    account::Assets,
    advisory,
    api::request,
    deliver::Task,
    filters::{FEW, Index},
    log::Outcome,
    shell::{Core, Stream, now},
    view::StoreView,
};

/// How long what a consumer notes may wait to be logged where nobody waits for it, nanoseconds. After a crash that much of what was
/// delivered and acknowledged may be delivered again.
const LAZY: u64 = 250_000_000;
/// Notes of one consumer beyond which they are logged at once, bytes.
const NOTES_MAX: usize = 64 << 10;
/// Deliveries of one consumer before the next gets its turn.
const BUDGET: usize = 256;
/// Outputs gathered in one round, before they are sent: each write to a socket wakes its reader, which costs as much as dozens of deliveries.
pub(crate) const ROUND: usize = 1024;

/// How long the word of the others that nobody else led counts for deliveries, nanoseconds: until they are decided on, unless this process stood still
/// in between.
const CONFIRMED_NS: u64 = 200_000_000;

/// How a look at the consumers ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pumped {
    /// They have decided.
    Sure,
    /// They were not asked: another node may lead.
    Unsure,
}

/// A consumer's place.
pub(crate) struct Slot {
    pub rules: Consumer,
    pub subject: Arc<AckSubject>,
    pub created: i64,
    /// Its state goes into the stream's log.
    pub logged: bool,
    deadline: Option<u64>,
    /// Its deliver subject, watched under this number.
    watch: Option<(Vec<u8>, u64)>,
}

impl Slot {
    /// It awaits acks of which it is not known that its filters let their messages pass.
    fn is_odd(&self) -> bool {
        !self.rules.filters().is_empty() && !self.rules.ledger().is_empty()
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Consumers {
    /// Apart: a node of the tree has room for eleven, and most streams have one.
    slots: BTreeMap<Arc<str>, Box<Slot>>,
    /// Who wants what, if there are many.
    index: Option<Box<Index>>,
    /// Those to be pumped.
    ready: BTreeSet<Arc<str>>,
    deadlines: BTreeSet<(u64, Arc<str>)>,
    /// Those with something to log.
    dirty: BTreeSet<Arc<str>>,
    /// When that is due.
    log_by: Option<u64>,
    /// Somebody waits for it.
    urgent: bool,
    /// Notes that were refused, in order: they come before all others.
    returned: Vec<Proposal>,
    seed: u64,
    /// What the last of them to be pumped wanted, in outputs: as many as the next one is likely to.
    wanted: usize,
}

impl Consumers {
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
    pub(crate) fn get(&self, name: &str) -> Option<&Slot> {
        self.slots.get(name).map(|s| &**s)
    }
    pub(crate) fn names(&self) -> Vec<String> {
        self.slots.iter().filter(|(_, s)| !s.rules.config().direct).map(|(n, _)| n.to_string()).collect()
    }
    pub(crate) fn configs(&self) -> impl Iterator<Item = (&str, &ConsumerConfig)> + Clone {
        self.slots.iter().map(|(n, s)| (&**n, s.rules.config()))
    }
    /// All that is to be logged.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (&Arc<str>, &Slot)> {
        self.slots.iter().map(|(n, s)| (n, &**s))
    }
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }
    /// Whether something is to be logged, now or later.
    pub(crate) fn has_notes(&self) -> bool {
        !(self.dirty.is_empty() && self.returned.is_empty())
    }
    /// When somebody is due next, on the monotonic clock.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let first = self.deadlines.first().map(|d| d.0);
        [first, self.log_by].into_iter().flatten().min()
    }
    /// Whether notes are to be logged now.
    pub(crate) fn wants_log(&self, now: u64) -> bool {
        !(self.dirty.is_empty() && self.returned.is_empty())
            && (self.urgent || self.log_by.is_some_and(|at| at <= now))
    }

    /// Takes the consumer's state of now into account.
    fn touch(&mut self, name: &Arc<str>, now: Now, waited_for: bool) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        // One that is put off stays where it is: when its time comes the consumer is asked anew. Each acknowledgement puts off.
        if let Some(new) = slot.rules.deadline(now)
            && slot.deadline.is_none_or(|old| new < old)
        {
            if let Some(old) = slot.deadline.replace(new) {
                self.deadlines.remove(&(old, name.clone()));
            }
            self.deadlines.insert((new, name.clone()));
        }
        if slot.rules.ready() {
            self.ready.insert(name.clone());
        } else {
            self.ready.remove(name);
        }
        if slot.logged && slot.rules.has_delta() {
            self.urgent |= waited_for || slot.rules.awaits_log() || slot.rules.delta_len() > NOTES_MAX;
            if self.dirty.insert(name.clone()) {
                let by = now.mono.saturating_add(LAZY);
                self.log_by = Some(self.log_by.map_or(by, |at| at.min(by)));
            }
        }
    }

    /// A message has joined the stream.
    #[inline]
    pub(crate) fn appended(&mut self, seq: u64, subject: &[u8]) {
        let Consumers { slots, ready, index, .. } = self;
        if let Some(index) = index {
            index.each(subject, |name| {
                if slots.get_mut(name).is_some_and(|s| s.rules.appended_matching(seq))
                    && !ready.contains(name)
                {
                    ready.insert(name.clone());
                }
            });
            return;
        }
        for (name, slot) in slots {
            if slot.rules.appended(seq, subject) && !ready.contains(name) {
                ready.insert(name.clone());
            }
        }
    }
    /// A message has left the stream; `purged`: by a purge.
    pub(crate) fn removed(&mut self, seq: u64, subject: &[u8], purged: bool, out: &mut Vec<Task>) {
        let mut outs = Vec::new();
        let mut tell = |name: &Arc<str>, slot: &mut Slot| {
            if purged {
                return slot.rules.removed_by_purge(seq, subject);
            }
            slot.rules.removed(seq, subject, &mut outs);
            push_tasks(name, slot, &mut outs, out);
        };
        let Consumers { slots, index, .. } = self;
        if let Some(index) = index {
            index.each_awaiting(subject, |name| {
                if let Some(slot) = slots.get_mut(name) {
                    tell(name, slot);
                }
            });
            return;
        }
        for (name, slot) in slots {
            tell(name, slot);
        }
    }
    /// All messages before `first` have left the stream.
    pub(crate) fn purged(&mut self, first: u64) {
        for slot in self.slots.values_mut() {
            slot.rules.purged(first);
        }
    }
    /// Whether no consumer of this stream wants a message any more.
    pub(crate) fn nobody_needs(&self, seq: u64, subject: &[u8]) -> bool {
        if let Some(index) = &self.index {
            let mut wanted = false;
            index.each(subject, |name| {
                wanted = wanted || self.slots.get(name).is_some_and(|s| s.rules.needs(seq, subject));
            });
            return !wanted;
        }
        !self.slots.values().any(|s| s.rules.needs(seq, subject))
    }
    /// Whether any consumer may want messages of this subject.
    pub(crate) fn any_matches(&self, subject: &[u8]) -> bool {
        if let Some(index) = &self.index {
            return index.any(subject);
        }
        self.slots.values().any(|s| s.rules.matches(subject))
    }
    /// Notes a consumer's filters, as they are now.
    fn note_filters(&mut self, name: &Arc<str>, changed: bool) {
        if self.index.is_none() && self.slots.len() > FEW {
            let mut index = Index::new();
            for (name, slot) in &self.slots {
                index.set(name, slot.rules.filters(), slot.is_odd());
            }
            self.index = Some(Box::new(index));
            return;
        }
        if let (Some(index), Some(slot)) = (&mut self.index, self.slots.get(name)) {
            index.set(name, slot.rules.filters(), changed || slot.is_odd());
        }
    }
    fn forget_filters(&mut self, name: &str) {
        if self.slots.is_empty() {
            self.index = None;
        } else if let Some(index) = &mut self.index {
            index.remove(name);
        }
    }

    /// This node leads now.
    pub(crate) fn lead(&mut self, epoch: u64, now: Now) {
        let names: Vec<Arc<str>> = self.slots.keys().cloned().collect();
        for name in names {
            if let Some(slot) = self.slots.get_mut(&name) {
                slot.rules.lead(epoch, now);
            }
            self.touch(&name, now, false);
        }
    }
    /// This node leads no longer. Whoever waits is told, what was not logged is forgotten, and with it the consumers that lived here only.
    /// What is watched is to be given back.
    pub(crate) fn unlead(&mut self, out: &mut Vec<Task>) -> Vec<(Vec<u8>, u64)> {
        let mut outs = Vec::new();
        let mut watched = Vec::new();
        self.slots.retain(|name, slot| {
            if slot.logged {
                slot.rules.unlead(&mut outs);
            } else {
                slot.rules.deleted(&mut outs);
            }
            push_tasks(name, slot, &mut outs, out);
            watched.extend(slot.watch.take());
            slot.deadline = None;
            slot.logged
        });
        // The filters of those that are gone find nobody; the index is made anew when there are many again.
        self.index = None;
        if let Some(any) = self.slots.keys().next().cloned() {
            self.note_filters(&any, false);
        }
        self.ready.clear();
        self.deadlines.clear();
        self.dirty.clear();
        self.returned.clear();
        (self.log_by, self.urgent) = (None, false);
        watched
    }
    /// What was noted is to be logged now.
    pub(crate) fn hurry(&mut self) {
        self.urgent = true;
    }
    /// Notes come back that could not be logged.
    pub(crate) fn noted_again(&mut self, notes: Vec<Proposal>, now: Now) {
        if notes.is_empty() {
            return;
        }
        // They are older than what came back before and was not proposed since.
        self.returned.splice(0..0, notes);
        self.urgent = false;
        self.log_by = Some(now.mono.saturating_add(LAZY));
    }
    fn insert(&mut self, name: &Arc<str>, slot: Slot, now: Now) {
        self.slots.insert(name.clone(), Box::new(slot));
        self.note_filters(name, false);
        self.touch(name, now, false);
    }
    fn remove(&mut self, name: &str) -> Option<Slot> {
        let (name, slot) = self.slots.remove_entry(name)?;
        self.forget_filters(&name);
        self.ready.remove(&name);
        self.dirty.remove(&name);
        if let Some(d) = slot.deadline {
            self.deadlines.remove(&(d, name));
        }
        Some(*slot)
    }
    /// Gives back all that is watched: nothing is delivered any more.
    pub(crate) fn retire(&mut self, out: &mut Vec<Task>) -> Vec<(Vec<u8>, u64)> {
        let all = std::mem::take(&mut self.slots);
        *self = Consumers::default();
        let mut outs = Vec::new();
        let mut watched = Vec::new();
        for (name, mut slot) in all {
            slot.rules.deleted(&mut outs);
            push_tasks(&name, &slot, &mut outs, out);
            watched.extend(slot.watch);
        }
        watched
    }
    /// The stream has another configuration.
    pub(crate) fn reconfigured(&mut self, of: &StreamConfig) {
        for slot in self.slots.values_mut() {
            slot.rules.set_retains(of.retention != Retention::Limits);
            let strict = is_strict(slot.rules.config(), of);
            slot.rules.set_strict(strict);
        }
    }
    /// The server ends: whoever waits is told, and what is noted is logged.
    pub(crate) fn shut_down(&mut self, out: &mut Vec<Task>) {
        let mut outs = Vec::new();
        for (name, slot) in &mut self.slots {
            slot.rules.shutdown(&mut outs);
            push_tasks(name, slot, &mut outs, out);
        }
        self.urgent = true;
    }
}

fn push_tasks(name: &Arc<str>, slot: &Slot, outs: &mut Vec<Output>, out: &mut Vec<Task>) {
    if !outs.is_empty() {
        let outputs = std::mem::take(outs);
        out.push(Task { consumer: name.clone(), subject: slot.subject.clone(), outputs });
    }
}

/// Whether a consumer's state goes into the log: not if it may be lost by its configuration. Of a stream of several servers it goes there all the
/// same, so that an ordered consumer goes on under another leader; only what copies a stream begins anew.
pub(crate) fn is_logged(c: &ConsumerConfig, stream: &StreamConfig) -> bool {
    let forgets = c.mem_storage && stream.num_replicas <= 1 && c.num_replicas <= 1 || c.direct;
    !forgets || stream.retention != Retention::Limits
}

/// Whether deliveries are committed before they are sent (C-2): where a delivery that nobody remembers would be one too many.
fn is_strict(c: &ConsumerConfig, stream: &StreamConfig) -> bool {
    c.max_deliver > 0 || stream.retention == Retention::WorkQueue
}

/// What consumers' rules have to know of the stream.
pub(crate) fn parent(c: &StreamConfig, account_max: i64, default_max: i64) -> Parent<'_> {
    let own = if c.max_consumers > 0 { c.max_consumers } else { default_max };
    let max_consumers = match (own > 0, account_max > 0) {
        (true, true) => own.min(account_max),
        (true, false) => own,
        (false, _) => account_max.max(0),
    };
    Parent {
        work_queue: c.retention == Retention::WorkQueue,
        interest: c.retention == Retention::Interest,
        num_replicas: c.num_replicas,
        subjects: &c.subjects,
        max_ack_pending: c.consumer_limits.max_ack_pending,
        inactive_threshold: c.consumer_limits.inactive_threshold,
        max_consumers,
    }
}

impl Core {
    /// Makes a consumer whose start is found. The same on every replica, but for what is random in it.
    pub(crate) fn add_consumer(
        &mut self,
        s: &Stream,
        view: &StoreView<'_>,
        name: &str,
        created: i64,
        config: ConsumerConfig,
        logged: bool,
    ) -> Result<(), Need> {
        let Some(rules) = &self.rules else { return Ok(()) };
        let one_per_subject = rules.config().max_msgs_per_subject == 1;
        let mut c = Consumer::new(self.identity(s, name), config);
        c.set_logged(logged);
        c.start(view, one_per_subject)?;
        self.place_consumer(name, c, created, logged, now());
        Ok(())
    }
    /// Puts a consumer into the register, and lets it lead if this node does.
    pub(crate) fn place_consumer(
        &mut self,
        name: &str,
        mut c: Consumer,
        created: i64,
        logged: bool,
        now: Now,
    ) {
        let strict = self.rules.as_ref().is_some_and(|r| is_strict(c.config(), r.config()));
        c.set_strict(strict);
        if let Some(term) = self.term {
            c.lead(term.0, now);
        }
        let subject = Arc::new(c.ack_subject().clone());
        if !c.config().direct {
            self.notes.touch(name, logged, !c.config().is_durable());
        }
        let slot = Slot { rules: c, subject, created, logged, deadline: None, watch: None };
        self.consumers.insert(&Arc::from(name), slot, now);
    }
    /// What a consumer has to know of its stream.
    pub(crate) fn identity<'a>(&mut self, s: &'a Stream, name: &'a str) -> Identity<'a> {
        self.consumers.seed = self.consumers.seed.wrapping_add(env::rng("consumer").next_u64());
        let retains = self.rules.as_ref().is_some_and(|r| r.config().retention != Retention::Limits);
        Identity { stream: &s.name, name, seed: self.consumers.seed, retains, max_payload: s.payload_max() }
    }
    /// As a checkpoint or a backup has it.
    pub(crate) fn restore_consumer(
        &mut self,
        identity: Identity<'_>,
        config: ConsumerConfig,
        created: i64,
        state: &[u8],
        logged: bool,
    ) -> Result<(), String> {
        let name = identity.name.to_string();
        let mut c = Consumer::new(identity, config);
        c.set_logged(logged);
        c.restore(state).map_err(|_| format!("the state of consumer '{name}' is damaged"))?;
        let at = if self.term.is_some() { now() } else { Now::default() };
        self.place_consumer(&name, c, created, logged, at);
        Ok(())
    }
    pub(crate) fn update_consumer(
        &mut self,
        name: &str,
        config: ConsumerConfig,
        now: Now,
        out: &mut Vec<Task>,
    ) {
        let name: Arc<str> = name.into();
        let Some(slot) = self.consumers.slots.get_mut(&name) else { return };
        if let Some(r) = &self.rules {
            slot.rules.set_strict(is_strict(&config, r.config()));
        }
        let mut outs = Vec::new();
        slot.rules.update(config, now, &mut outs);
        push_tasks(&name, slot, &mut outs, out);
        if !self.notes.is_named_only(slot.logged) {
            self.notes.touch(&name, slot.logged, false);
        }
        self.consumers.note_filters(&name, true);
        self.consumers.touch(&name, now, false);
        self.consumers.ready.insert(name);
    }
    pub(crate) fn delete_consumer(&mut self, name: &str, out: &mut Vec<Task>) -> Option<(Vec<u8>, u64)> {
        let mut slot = self.consumers.remove(name)?;
        if !slot.rules.config().direct {
            self.notes.touch(name, slot.logged, false);
        }
        let mut outs = Vec::new();
        slot.rules.deleted(&mut outs);
        push_tasks(&Arc::from(name), &slot, &mut outs, out);
        slot.watch
    }
    /// What a delta says is done with.
    pub(crate) fn apply_delta(&mut self, name: &[u8], delta: &[u8]) -> Result<Vec<(u64, u64)>, String> {
        let mut done = Vec::new();
        let Ok(text) = str::from_utf8(name) else { return Err("a consumer's name is not UTF-8".into()) };
        // The consumer may be gone since: its last notes are void then.
        let Some((name, _)) = self.consumers.slots.get_key_value(text) else { return Ok(done) };
        let name = name.clone();
        let Some(slot) = self.consumers.slots.get_mut(&name) else { return Ok(done) };
        let mut outs = Vec::new();
        slot.rules
            .apply_delta(delta, &mut outs)
            .map_err(|_| format!("a delta of consumer '{name}' is damaged"))?;
        for o in outs {
            if let Output::Acked { first, last } = o {
                done.push((first, last));
            }
        }
        if self.term.is_some() {
            self.consumers.ready.insert(name);
        }
        Ok(done)
    }

    /// Whether this node leads, and no other can by now (K-10).
    pub(crate) fn is_sure(&self, now: u64) -> bool {
        self.handle.as_ref().is_none_or(|h| h.holds_lease(now))
    }

    /// Lets consumers decide, until enough is gathered in `out`. `confirmed`: see [`Stream::pump`]'s rounds.
    pub(crate) fn pump(
        &mut self,
        s: &Stream,
        confirmed: Option<u64>,
        out: &mut Vec<Task>,
    ) -> Result<Pumped, Need> {
        if self.term.is_none() {
            self.consumers.ready.clear();
            return Ok(Pumped::Sure);
        }
        let now = now();
        if confirmed.is_none_or(|at| now.mono.saturating_sub(at) >= CONFIRMED_NS) && !self.is_sure(now.mono) {
            return Ok(Pumped::Unsure);
        }
        let view = s.view();
        let Some(assets) = s.assets.upgrade() else { return Ok(Pumped::Sure) };
        let listeners = Heard(&assets);
        let mut outs = Vec::new();
        let strict_or_kept = self.rules.as_ref().is_some_and(|r| r.config().retention != Retention::Limits);
        let mut last: Option<Arc<str>> = None;
        let mut gathered = 0;
        while gathered < ROUND {
            // Each in turn, beginning behind the one before.
            let next = match &last {
                Some(l) => self
                    .consumers
                    .ready
                    .range::<Arc<str>, _>((std::ops::Bound::Excluded(l), std::ops::Bound::Unbounded))
                    .next()
                    .or_else(|| self.consumers.ready.first())
                    .cloned(),
                None => self.consumers.ready.first().cloned(),
            };
            let Some(name) = next else { break };
            let Some(slot) = self.consumers.slots.get_mut(&name) else {
                self.consumers.ready.remove(&name);
                continue;
            };
            outs.reserve(self.consumers.wanted);
            let r = slot.rules.pump(&view, &listeners, now, BUDGET, &mut outs);
            let new = outs.len();
            self.consumers.wanted = new;
            gathered += new;
            push_tasks(&name, slot, &mut outs, out);
            let more = r?;
            self.consumers.touch(&name, now, strict_or_kept);
            if more {
                self.consumers.ready.insert(name.clone());
            } else if new == 0 {
                // Nothing came of it: what it waits for wakes it again.
                self.consumers.ready.remove(&name);
            }
            last = Some(name);
        }
        Ok(Pumped::Sure)
    }

    /// Puts what consumers have noted into the log, if it is time.
    pub(crate) fn gather(&mut self, now: Now) {
        if !self.consumers.wants_log(now.mono) || self.term.is_none() || self.voided {
            return;
        }
        for p in std::mem::take(&mut self.consumers.returned) {
            self.log.again(p);
        }
        let names = std::mem::take(&mut self.consumers.dirty);
        (self.consumers.log_by, self.consumers.urgent) = (None, false);
        let mut deltas = Vec::with_capacity(names.len());
        for name in names {
            let Some(slot) = self.consumers.slots.get_mut(&name) else { continue };
            if let Some(delta) = slot.rules.take_delta() {
                deltas.push((Bytes::copy_from_slice(name.as_bytes()), delta));
            }
        }
        if !deltas.is_empty() {
            self.enqueue(Command::ConsumerDeltas { deltas }, Outcome::Notes, now);
        }
    }
    /// Whether the group has something to propose.
    pub(crate) fn wants_group(&self) -> bool {
        self.log.has_work() || self.consumers.wants_log(env::now().0)
    }
    /// Puts a command behind all that is decided.
    pub(crate) fn enqueue(&mut self, command: Command, outcome: Outcome, now: Now) {
        if let Some(r) = &mut self.rules {
            r.proposed(&command);
        }
        self.log.command(&Control { time: now.wall, command }, outcome);
    }
}

impl Stream {
    /// Runs `f` on a consumer, carries out what comes of it, and delivers. `None` if there is no such consumer.
    pub(crate) fn with_consumer<T>(
        self: &Arc<Stream>,
        name: &str,
        waited_for: bool,
        f: impl FnOnce(&mut Slot, Now, &mut Vec<Output>) -> T,
    ) -> Option<T> {
        self.with_consumer_of(name, waited_for, None, |_, _| true, |slot, now, _, outs| f(slot, now, outs))
    }
    /// The same, after a look at the stream; `at` is the time, if it is known.
    fn with_consumer_of<T>(
        self: &Arc<Stream>,
        name: &str,
        waited_for: bool,
        at: Option<Now>,
        look: impl FnOnce(&Core, Now) -> bool,
        f: impl FnOnce(&mut Slot, Now, bool, &mut Vec<Output>) -> T,
    ) -> Option<T> {
        let mut tasks = Vec::new();
        let (result, handle, works, ranked, sooner) = {
            let mut core = self.core.lock();
            if core.stopped.is_some() || core.term.is_none() {
                return None;
            }
            let (name, _) = core.consumers.slots.get_key_value(name)?;
            let name = name.clone();
            let now = at.unwrap_or_else(now);
            let looked = look(&core, now);
            let slot = core.consumers.slots.get_mut(&name)?;
            let mut outs = Vec::new();
            let result = f(slot, now, looked, &mut outs);
            let ranked = slot.rules.config().priority_policy == PriorityPolicy::Prioritized;
            push_tasks(&name, slot, &mut outs, &mut tasks);
            let kept = core.rules.as_ref().is_some_and(|r| r.config().retention != Retention::Limits);
            core.consumers.touch(&name, now, waited_for || kept);
            let handle = core.consumers.wants_log(now.mono).then(|| core.handle.clone()).flatten();
            let sooner = core.consumers.deadline().is_some_and(|d| core.armed.is_none_or(|at| d < at));
            (result, handle, core.consumers.has_work(), ranked, sooner)
        };
        if let Some(h) = handle {
            h.wake();
        }
        self.carry(&mut tasks);
        if works && ranked {
            // Requests that came together are to be looked at together: the one that came first would be served before all others.
            let me = self.clone();
            env::spawn(async move { me.pump() });
        } else if works {
            self.pump();
        } else if sooner {
            self.wound_up();
        }
        Some(result)
    }

    /// Deliveries that reached nobody: whoever asked for them is gone.
    pub(crate) fn undelivered(self: &Arc<Stream>, all: &[(Arc<str>, u64, Bytes)]) {
        let mut core = self.core.lock();
        let now = now();
        for (name, seq, to) in all {
            if let Some(slot) = core.consumers.slots.get_mut(name) {
                slot.rules.undelivered(*seq, to, false);
            }
            core.consumers.touch(name, now, false);
        }
        drop(core);
        // Whoever delivers now looks again; if nobody does, this is the one.
        self.pump();
    }

    /// A pull request. False if there is no such consumer.
    pub(crate) fn pull(
        self: &Arc<Stream>,
        consumer: &str,
        reply: &[u8],
        headers: &[u8],
        body: &[u8],
    ) -> bool {
        // J-28. Who does not listen for the answer is not asked for: the message would be delivered to nobody.
        let listens = self.assets.upgrade().is_some_and(|a| a.account.listens(reply));
        if !listens {
            return self.core.lock().consumers.get(consumer).is_some();
        }
        let to = Bytes::copy_from_slice(reply);
        let asked = request::pull(headers, body);
        let sure = |core: &Core, now: Now| core.is_sure(now.mono);
        let pull = |slot: &mut Slot, now: Now, sure: bool, out: &mut Vec<Output>| {
            slot.rules.pull_of(&to, asked, sure, now, out);
        };
        self.with_consumer_of(consumer, false, None, sure, pull).is_some()
    }
    /// An acknowledgement. False if there is no such consumer, or none that awaits any.
    pub(crate) fn ack(
        self: &Arc<Stream>,
        consumer: &str,
        tokens: &AckTokens<'_>,
        reply: &[u8],
        body: &[u8],
        at: Option<Now>,
    ) -> bool {
        let to = (!reply.is_empty()).then(|| Bytes::copy_from_slice(reply));
        let ack = |slot: &mut Slot, now: Now, _: bool, out: &mut Vec<Output>| {
            let awaits = slot.rules.config().ack_policy != AckPolicy::None;
            if awaits {
                slot.rules.ack(tokens, body, to.as_ref(), now, out);
            }
            awaits
        };
        self.with_consumer_of(consumer, to.is_some(), at, |_, _| true, ack).unwrap_or(false)
    }
    /// Acknowledgements without answers that came together, by the numbers of their subjects. `None` if there is no such consumer; `odd` are the places of
    /// those that are none.
    pub(crate) fn acks<'a>(
        self: &Arc<Stream>,
        consumer: &str,
        numbers: impl Iterator<Item = &'a [u8]>,
        body: &[u8],
        at: Now,
        odd: &mut Vec<usize>,
    ) -> Option<()> {
        let (stream, name) = (self.name.as_bytes(), consumer.as_bytes());
        let acks = |slot: &mut Slot, now: Now, _: bool, out: &mut Vec<Output>| {
            for (i, numbers) in numbers.enumerate() {
                match AckTokens::of_numbers(stream, name, numbers) {
                    Some(t) => slot.rules.ack(&t, body, None, now, out),
                    None => odd.push(i),
                }
            }
        };
        self.with_consumer_of(consumer, false, Some(at), |_, _| true, acks)
    }
    /// An answer to a flow control request. False if there is no such consumer.
    pub(crate) fn flow(self: &Arc<Stream>, consumer: &str, subject: &[u8], headers: &[u8]) -> bool {
        let number =
            |name: &[u8]| stream::headers::get(headers, name).and_then(stream::headers::number).unwrap_or(0);
        let (last_stream, last_consumer) = (number(b"Nats-Last-Stream"), number(b"Nats-Last-Consumer"));
        self.with_consumer(consumer, false, |slot, now, out| {
            slot.rules.flow(subject, last_stream, last_consumer, now, out);
        })
        .is_some()
    }
    /// What time has brought about.
    pub(crate) fn tick(self: &Arc<Stream>) {
        let handle = {
            let mut core = self.core.lock();
            let now = now();
            while let Some((at, name)) = core.consumers.deadlines.first().cloned()
                && at <= now.mono
            {
                core.consumers.deadlines.pop_first();
                if let Some(slot) = core.consumers.slots.get_mut(&name) {
                    slot.deadline = None;
                    if env::planted!("js-deadline-lost") {
                        continue;
                    }
                    core.consumers.ready.insert(name);
                }
            }
            if core.consumers.log_by.is_some_and(|at| at <= now.mono) {
                core.consumers.log_by = None;
                core.consumers.urgent = true;
            }
            core.consumers.wants_log(now.mono).then(|| core.handle.clone()).flatten()
        };
        if let Some(h) = handle {
            h.wake();
        }
        self.pump();
    }

    /// Somebody may have begun or ceased to listen to a consumer's deliver subject.
    pub(crate) fn interest_changed(self: &Arc<Stream>, consumer: &str) {
        let Some(assets) = self.assets.upgrade() else { return };
        let subject = {
            let core = self.core.lock();
            core.consumers.get(consumer).map(|s| {
                let c = s.rules.config();
                (c.deliver_subject.clone(), c.deliver_group.clone())
            })
        };
        let Some((subject, group)) = subject.filter(|s| !s.0.is_empty()) else { return };
        // J-28
        let active = assets.account.awaits(subject.as_bytes(), group.as_bytes());
        self.with_consumer(consumer, false, |slot, now, _| slot.rules.set_interest(active, now));
    }
    /// Watches the deliver subjects of consumers that have one, as they are now.
    pub(crate) fn watch(self: &Arc<Stream>) {
        let Some(assets) = self.assets.upgrade() else { return };
        let (mut begin, mut end) = (Vec::new(), Vec::new());
        {
            let mut core = self.core.lock();
            if core.term.is_none() {
                return;
            }
            for (name, slot) in &mut core.consumers.slots {
                let wanted = slot.rules.config().deliver_subject.as_bytes();
                if slot.watch.as_ref().map_or(&b""[..], |w| &w.0) == wanted {
                    continue;
                }
                end.extend(slot.watch.take());
                if !wanted.is_empty() {
                    begin.push((name.clone(), wanted.to_vec()));
                }
            }
        }
        for (subject, id) in end {
            assets.account.unwatch(&subject, id);
        }
        for (name, subject) in begin {
            let watcher = Arc::new(Listener { stream: Arc::downgrade(self), consumer: name.clone() });
            let id = assets.account.watch(&subject, watcher);
            let gone = {
                let mut core = self.core.lock();
                let leads = core.term.is_some();
                match core.consumers.slots.get_mut(&name).filter(|_| leads) {
                    Some(slot) => slot.watch.replace((subject, id)),
                    None => Some((subject, id)),
                }
            };
            if let Some((subject, id)) = gone {
                assets.account.unwatch(&subject, id);
            }
            self.interest_changed(&name);
        }
    }

    /// What a consumer's info shows, its configuration, and when it was created; `None` if there is none.
    ///
    /// # Errors
    /// What the disk said.
    pub(crate) async fn consumer_info(
        &self,
        name: &str,
    ) -> Result<Option<(Info, ConsumerConfig, i64)>, String> {
        loop {
            let need = {
                let mut core = self.core.lock();
                let floor = core.rules.as_ref().map_or(0, |r| r.floor());
                let Some(slot) = core.consumers.slots.get_mut(name) else { return Ok(None) };
                if let Some(assets) = self.assets.upgrade() {
                    slot.rules.retain_requests(&Heard(&assets));
                }
                match slot.rules.info(&self.view(), now()) {
                    Ok(mut info) => {
                        // What is never given is behind it, whatever it has been given.
                        info.delivered_stream = info.delivered_stream.max(floor);
                        info.ack_floor_stream = info.ack_floor_stream.max(floor);
                        return Ok(Some((info, slot.rules.config().clone(), slot.created)));
                    }
                    Err(need) => need,
                }
            };
            self.group().fetch(need).await.map_err(|e| e.to_string())?;
        }
    }

    /// Begins a consumer anew; where, or why not. `None` if there is no such consumer.
    pub(crate) async fn reset_consumer(
        self: &Arc<Stream>,
        name: &str,
        seq: u64,
    ) -> Option<Result<u64, ApiError>> {
        loop {
            let asked = self.with_consumer(name, true, |slot, _, _| slot.rules.reset(seq, &self.view()))?;
            match asked {
                Ok(r) => return Some(r),
                Err(need) => {
                    if let Err(e) = self.group().fetch(need).await {
                        return Some(Err(errors::CONSUMER_STORE_FAILED.with(e)));
                    }
                }
            }
        }
    }

    /// Creates or changes a consumer; see `handlers::consumers`.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) async fn log_consumer(
        self: &Arc<Stream>,
        name: &str,
        c: ConsumerConfig,
        new: bool,
    ) -> Result<(), ApiError> {
        let (logged, created) = {
            let core = self.core.lock();
            core.check_consumers()?;
            let Some(rules) = &core.rules else { return Err(errors::STREAM_OFFLINE.error()) };
            // What was made in the log stays there, and the other way round.
            let there = core.consumers.get(name).map(|s| s.logged);
            (there.unwrap_or_else(|| is_logged(&c, rules.config())), now().wall)
        };
        if logged {
            let json = Bytes::from(serde_json::to_vec(&c).map_err(|e| errors::CONSUMER_CREATE.with(e))?);
            let name = Bytes::copy_from_slice(name.as_bytes());
            let command = match new {
                true => Command::ConsumerCreate { name, created, json },
                false => Command::ConsumerUpdate { name, json },
            };
            self.command(command).await?;
        } else if new {
            self.add_unlogged(name, created, &c).await?;
        } else {
            let mut tasks = Vec::new();
            self.core.lock().update_consumer(name, c, now(), &mut tasks);
            self.carry(&mut tasks);
        }
        self.watch();
        self.pump();
        self.wound_up();
        self.keep_notes();
        self.noted(name).await
    }
    /// Makes a consumer that lives in this node's memory only.
    pub(crate) async fn add_unlogged(
        &self,
        name: &str,
        created: i64,
        c: &ConsumerConfig,
    ) -> Result<(), ApiError> {
        loop {
            let need = {
                let mut core = self.core.lock();
                match core.add_consumer(self, &self.view(), name, created, c.clone(), false) {
                    Ok(()) => return Ok(()),
                    Err(need) => need,
                }
            };
            self.group().fetch(need).await.map_err(|e| errors::CONSUMER_STORE_FAILED.with(e))?;
        }
    }

    /// Deletes a consumer; whether there was one.
    pub(crate) async fn remove_consumer(self: &Arc<Stream>, name: &str) -> Result<bool, ApiError> {
        self.taken_soon().await;
        let found = {
            let core = self.core.lock();
            core.check_consumers()?;
            core.consumers.get(name).map(|slot| slot.logged)
        };
        let Some(logged) = found else {
            // Also who hears that there is none relies on it.
            return self.noted(name).await.map(|()| false);
        };
        if logged {
            self.command(Command::ConsumerDelete { name: Bytes::copy_from_slice(name.as_bytes()) }).await?;
        } else {
            let mut tasks = Vec::new();
            let watched = self.core.lock().delete_consumer(name, &mut tasks);
            if let (Some((subject, id)), Some(assets)) = (watched, self.assets.upgrade()) {
                assets.account.unwatch(&subject, id);
            }
            self.carry(&mut tasks);
        }
        self.wound_up();
        self.keep_notes();
        if let (Some(node), Some(assets)) = (self.node.upgrade(), self.assets.upgrade()) {
            advisory::consumer_action(&node, &assets, &self.name, name, advisory::Action::Delete);
        }
        self.noted(name).await.map(|()| true)
    }
}

/// Who listens, as the account's interest has it.
struct Heard<'a>(&'a Assets);

impl Listeners for Heard<'_> {
    #[inline]
    fn generation(&self) -> u64 {
        self.0.account.generation()
    }
    fn listens(&self, to: &[u8]) -> bool {
        self.0.account.listens(to)
    }
}

/// Looks after the interest in a deliver subject.
struct Listener {
    stream: std::sync::Weak<Stream>,
    consumer: Arc<str>,
}

impl broker::Watch for Listener {
    fn changed(&self, _: &[u8]) {
        if let Some(s) = self.stream.upgrade() {
            s.interest_changed(&self.consumer);
        }
    }
}

/// Checks a request to create or change a consumer, fills in what it leaves open, and says what it comes to. `c` is then as it is to be stored, but for
/// the name of one that has none.
///
/// # Errors
/// The rule that is broken.
pub(crate) fn admit(
    core: &Core,
    coming: &[ConsumerConfig],
    c: &mut ConsumerConfig,
    action: stream::consumer::Action,
    parent: &Parent<'_>,
    limits: &check::Limits,
    pedantic: bool,
) -> Result<check::Verdict, ApiError> {
    let name = c.given_name().to_string();
    let existing = core.consumers.get(&name).filter(|_| !name.is_empty());
    let old = existing.map(|s| s.rules.config());
    check::set_defaults(c, parent, limits, pedantic)?;
    check::check(c, parent, limits, false)?;
    let bound = existing.is_some_and(|s| s.rules.is_active());
    // What is on its way counts as it will be.
    let stays = |n: &str| n != name && coming.iter().all(|c| c.name != n);
    let there = core.consumers.configs().filter(|(n, _)| stays(n)).map(|(_, c)| c);
    let others = there.chain(coming.iter().filter(|c| c.name != name));
    let verdict = check::decide(c, action, parent, old, others, bound)?;
    check::stamp_ephemeral(c, old);
    Ok(verdict)
}
