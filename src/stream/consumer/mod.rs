//! Consumers: who is delivered what, when, how often, and what an ack means.
//!
//! Start reading at [`Consumer::pump`]. Owns: configuration and its rules ([`config`], [`check`]), the state machine, what of it is
//! logged ([`delta`], [`ledger`]). Does not own: sending, storage, clocks, randomness, timers, the JSON API. The design:
//! docs/design/0018-consumer-rules.md.
//!
//! How a shell drives it: it creates a consumer with [`Consumer::new`], finds its start with [`Consumer::start`] (or
//! [`Consumer::restore`]s it), and on the leader calls [`Consumer::lead`]. Then it hands in what happens ([`Consumer::pull`],
//! [`Consumer::ack`], [`Consumer::appended`], [`Consumer::removed`], [`Consumer::set_interest`], [`Consumer::flow`]) and calls
//! [`Consumer::pump`] whenever [`Consumer::ready`] says so or [`Consumer::deadline`] has passed. What it has to do comes as
//! [`Output`]s. With [`Consumer::set_logged`] it takes [`Consumer::take_delta`] to the log after each round and hands every delta that
//! the log applies, on every replica, to [`Consumer::apply_delta`].
//!
//! Invariants:
//! - J-5: the floors never go back but by a reset.
//! - J-6: no delivery earlier than the wait after the one before, none beyond `max_deliver`.
//! - C-1: every message that matches is delivered until it is acknowledged, exceeded or gone (at least once).
//! - C-2: in strict mode no delivery leaves before the delta that counts it is applied.
//! - C-3: the confirmation of an ack leaves only after the delta with the ack is applied.
//! - C-4: a consumer with nothing pending, nobody waiting and no heartbeat, pause, pin or inactivity to watch has no deadline.
//! - C-5: a request for which nobody listens any more takes no message.

pub mod ack;
mod acks;
pub mod backup;
pub mod check;
pub mod config;
pub mod delta;
pub mod ledger;
mod output;
mod pulls;
mod pump;
mod push;
pub mod request;
mod timers;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use subject::matches;

pub use ack::{AckKind, AckSubject, AckTokens};
pub use config::{AckPolicy, Action, ConsumerConfig, DeliverPolicy, PriorityPolicy, ReplayPolicy};
pub use delta::Damaged;
pub use output::{Advisory, Deliver, GroupInfo, Info, Output, Status, StatusHeaders};
pub use request::Listeners;

use crate::codec::{Reader, put_number};
use crate::errors::{self, ApiError};
use crate::{Messages, Now};
use ledger::{Ledger, SkipList, State};
use push::{FlowControl, Rate};
use request::WaitQueue;
use timers::Timers;

/// What the configuration comes to, in the form in which it is used for each message.
#[derive(Clone, Debug)]
struct Rules {
    pull: bool,
    ack: AckPolicy,
    /// The waits for an ack, by how often a message was delivered; the last stands for all further ones. Empty if nothing is redelivered
    /// by time.
    waits: Vec<u64>,
    /// 0 for no limit.
    max_deliver: u32,
    /// `usize::MAX` for no limit.
    max_ack_pending: usize,
    filters: Vec<Bytes>,
    deliver_subject: Bytes,
    headers_only: bool,
    heartbeat: u64,
    sample: u32,
    /// 0 if it may be unused for ever.
    inactive: u64,
    max_waiting: usize,
    priority: PriorityPolicy,
    pin_ttl: u64,
    original: bool,
    /// When a pause ends, in nanoseconds since 1970; `i64::MIN` if there is none.
    pause_until: i64,
}

/// A wait of the configuration as nanoseconds.
fn nanos(n: i64) -> u64 {
    n.max(0).unsigned_abs()
}

impl Rules {
    fn new(c: &ConsumerConfig) -> Rules {
        let awaits = matches!(c.ack_policy, AckPolicy::Explicit | AckPolicy::All);
        let waits: Vec<u64> = match (awaits, c.backoff.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => vec![nanos(c.ack_wait)],
            (true, false) => c.backoff.iter().map(|n| nanos(*n)).collect(),
        };
        let limit = |n: i64| if n <= 0 { usize::MAX } else { usize::try_from(n).unwrap_or(usize::MAX) };
        let inactive = if c.is_durable() || c.inactive_threshold > 0 {
            c.inactive_threshold
        } else {
            check::INACTIVE_DEFAULT
        };
        Rules {
            pull: c.is_pull(),
            ack: c.ack_policy,
            waits,
            max_deliver: u32::try_from(c.max_deliver.max(0)).unwrap_or(0),
            max_ack_pending: if c.ack_policy == AckPolicy::None {
                usize::MAX
            } else {
                limit(c.max_ack_pending)
            },
            filters: c.filter_bytes(),
            deliver_subject: Bytes::copy_from_slice(c.deliver_subject.as_bytes()),
            headers_only: c.headers_only,
            heartbeat: nanos(c.idle_heartbeat),
            sample: c.sample_percent(),
            inactive: nanos(inactive),
            max_waiting: limit(c.max_waiting),
            priority: c.priority_policy,
            pin_ttl: nanos(c.priority_timeout),
            original: c.replay_policy == ReplayPolicy::Original,
            pause_until: c.pause_until.filter(|t| !t.is_zero()).map_or(i64::MIN, |t| t.ns),
        }
    }

    /// Whether acks are awaited.
    #[inline]
    fn awaits(&self) -> bool {
        self.ack != AckPolicy::None
    }

    /// The wait after so many deliveries, with its step; `None` if time redelivers nothing.
    #[inline]
    fn wait(&self, deliveries: u32) -> Option<(usize, u64)> {
        let step = (deliveries.max(1) as usize - 1).min(self.waits.len().checked_sub(1)?);
        Some((step, self.waits[step]))
    }
}

/// Where a consumer stands within what has to be logged before it counts.
#[derive(Clone, Debug, Default)]
struct Logging {
    /// Whether the consumer's state goes into its stream's log.
    on: bool,
    /// Whether deliveries wait for their delta (C-2).
    strict: bool,
    /// The leader's epoch, which tells its deltas from another's.
    epoch: u64,
    /// The number of the last delta that was taken, and of the last that was applied.
    taken: u64,
    applied: u64,
    recorder: delta::Recorder,
    /// What the log has said so far, while the leader's own ledger runs ahead of it.
    shadow: Option<Box<Ledger>>,
}

/// Something that leaves once its delta is applied.
#[derive(Clone, Debug)]
enum HeldOutput {
    /// C-2. The message is looked up when it leaves.
    Deliver {
        seq: u64,
        dseq: u64,
        deliveries: u32,
        pending: u64,
        to: Bytes,
        pin: Option<Bytes>,
    },
    Other(Output),
}

/// A client that alone is served.
#[derive(Clone, Debug)]
struct Pin {
    id: Bytes,
    group: String,
    since: i64,
    due: u64,
}

/// How a consumer is known and where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Its stream.
    pub stream: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Whatever differs from consumer to consumer: what is random in it (pins, flow control ids, sampling) follows from this.
    pub seed: u64,
    /// Whether the stream keeps messages by interest or as a work queue, so that it is to be told what is done with.
    pub retains: bool,
    /// The largest message there may be, in bytes: the burst of a rate limit.
    pub max_payload: u64,
}

/// A consumer. See the module.
#[derive(Clone, Debug)]
pub struct Consumer {
    stream: Bytes,
    name: Bytes,
    config: ConsumerConfig,
    rules: Rules,
    subject: AckSubject,
    retains: bool,
    max_payload: u64,

    ledger: Ledger,
    /// Whether the start has been found.
    started: bool,
    leading: bool,
    logging: Logging,
    held: VecDeque<(u64, HeldOutput)>,

    timers: Timers,
    /// Messages to be delivered again, in this order; one counts only while its entry is `Queued`.
    again: VecDeque<u64>,
    /// Messages yet to be delivered for the first time; `None` until it is counted (anew).
    unseen: Option<u64>,
    /// Messages up to this one are in `unseen`, if they are in it at all.
    counted: u64,

    waiting: WaitQueue,
    pin: Option<Pin>,
    /// Whether somebody listens to the deliver subject.
    active: bool,
    flow: Option<FlowControl>,
    rate: Option<Rate>,
    /// When a push consumer last sent something, on the monotonic clock.
    last_sent: u64,
    /// When the consumer was last used, on the monotonic clock.
    last_used: u64,
    reported_inactive: bool,
    paused: bool,
    /// Nothing is delivered before this moment of the monotonic clock: rate limit, original pace.
    not_before: u64,
    /// The last delivery of a replay at the original pace: when, and when its message had come.
    replayed: Option<(u64, i64)>,
    /// The messages up to this one are replayed at the original pace.
    replay_upto: u64,
    delivered_last: Option<i64>,
    acked_last: Option<i64>,
    random: u64,
    /// Kept to spare allocations.
    scratch: Vec<u64>,
}

impl Consumer {
    /// A consumer whose start is not found yet. The configuration has passed [`check`].
    pub fn new(identity: Identity<'_>, config: ConsumerConfig) -> Consumer {
        let rules = Rules::new(&config);
        let steps = rules.waits.len();
        let mut consumer = Consumer {
            stream: Bytes::copy_from_slice(identity.stream.as_bytes()),
            name: Bytes::copy_from_slice(identity.name.as_bytes()),
            subject: AckSubject::new(identity.stream.as_bytes(), identity.name.as_bytes()),
            retains: identity.retains,
            max_payload: identity.max_payload,
            ledger: Ledger::starting_at(1),
            started: false,
            leading: false,
            logging: Logging::default(),
            held: VecDeque::new(),
            timers: Timers::new(steps),
            again: VecDeque::new(),
            unseen: None,
            counted: 0,
            waiting: WaitQueue::default(),
            pin: None,
            active: false,
            flow: config.flow_control.then(FlowControl::new),
            rate: Rate::new(config.rate_limit_bps, identity.max_payload),
            last_sent: 0,
            last_used: 0,
            reported_inactive: false,
            paused: false,
            not_before: 0,
            replayed: None,
            replay_upto: 0,
            delivered_last: None,
            acked_last: None,
            random: identity.seed,
            scratch: Vec::new(),
            config,
            rules,
        };
        consumer.draw();
        consumer
    }

    /// Finds where it begins. Where the stream keeps one message a subject only, `last_per_subject` is as good as `all`:
    /// `one_per_subject` says so. To be called where the log creates the consumer, so that every replica finds the same.
    ///
    /// # Errors
    /// What has to be fetched first.
    pub fn start<M: Messages>(&mut self, msgs: &M, one_per_subject: bool) -> Result<(), M::Miss> {
        if self.started {
            return Ok(());
        }
        let totals = msgs.totals();
        let c = &self.config;
        let mut skip = None;
        let wish = match c.deliver_policy {
            DeliverPolicy::All => totals.first,
            DeliverPolicy::New => totals.last + 1,
            DeliverPolicy::ByStartSequence => c.opt_start_seq,
            DeliverPolicy::ByStartTime => msgs.at_time(c.opt_start_time.map_or(i64::MIN, |t| t.ns))?,
            DeliverPolicy::LastPerSubject if one_per_subject => totals.first,
            DeliverPolicy::Last if self.rules.filters.is_empty() => totals.last,
            DeliverPolicy::Last | DeliverPolicy::LastPerSubject => {
                let mut seqs = Vec::new();
                for filter in &self.rules.filters {
                    msgs.subjects(filter, &mut |_, s| {
                        seqs.push(s.last);
                        true
                    })?;
                }
                if c.deliver_policy == DeliverPolicy::Last {
                    // Where none matches, none is behind it: what is shown as delivered and acknowledged is nothing.
                    seqs.into_iter().max().unwrap_or(totals.first)
                } else {
                    seqs.sort_unstable();
                    seqs.dedup();
                    let resume = totals.last + 1;
                    let first = seqs.first().copied().unwrap_or(resume);
                    skip = (!seqs.is_empty()).then_some(SkipList { seqs, at: 0, resume });
                    first
                }
            }
        };
        // A start sequence may lie in the future; everything else is kept within the stream.
        let most = if c.opt_start_seq > 0 { u64::MAX - 1 } else { totals.last + 1 };
        let next = wish.min(most).max(totals.first).max(1);
        self.ledger = Ledger::starting_at(next);
        self.ledger.skip = skip;
        if let Some(shadow) = &mut self.logging.shadow {
            **shadow = self.ledger.clone();
        }
        self.replay_upto = totals.last;
        self.unseen = None;
        self.started = true;
        Ok(())
    }

    /// Its configuration.
    pub fn config(&self) -> &ConsumerConfig {
        &self.config
    }

    /// Its name.
    pub fn name(&self) -> &Bytes {
        &self.name
    }

    /// Its filters; none for all messages.
    pub fn filters(&self) -> &[Bytes] {
        &self.rules.filters
    }

    /// What writes the reply subjects of its deliveries.
    pub fn ack_subject(&self) -> &AckSubject {
        &self.subject
    }

    /// Whether its filters let a subject pass.
    #[inline]
    pub fn matches(&self, subject: &[u8]) -> bool {
        self.rules.filters.is_empty() || self.rules.filters.iter().any(|f| matches(subject, f))
    }

    /// Whether its state goes into the stream's log. To be set before it leads.
    pub fn set_logged(&mut self, on: bool) {
        self.logging.on = on;
    }

    /// Whether the stream wants to know what the consumer is done with: not if it keeps by limits only. Its configuration may change.
    pub fn set_retains(&mut self, retains: bool) {
        self.retains = retains;
    }

    /// Whether deliveries wait until their delta is applied (C-2). Only with [`Consumer::set_logged`]; consumers that await no acks have
    /// nothing to wait for.
    pub fn set_strict(&mut self, strict: bool) {
        self.logging.strict = strict;
    }

    fn strict(&self) -> bool {
        self.logging.strict && self.logging.on && self.rules.awaits() && !self.config.flow_control
    }

    /// Another configuration, which has passed [`check::check_update`].
    pub fn update(&mut self, mut config: ConsumerConfig, now: Now, out: &mut Vec<Output>) {
        if let Some(until) = &mut config.pause_until {
            // An update is shown in UTC, a creation as it was written.
            until.offset = 0;
        }
        let rules = Rules::new(&config);
        if rules.filters != self.rules.filters {
            self.unseen = None;
        }
        if config.rate_limit_bps != self.config.rate_limit_bps {
            self.rate = Rate::new(config.rate_limit_bps, self.max_payload);
            self.not_before = 0;
        }
        let pause_changed = rules.pause_until != self.rules.pause_until;
        if config.deliver_subject != self.config.deliver_subject {
            self.active = false;
        }
        let waits_changed = rules.waits.len() != self.rules.waits.len();
        self.config = config;
        self.rules = rules;
        if waits_changed {
            self.timers = Timers::new(self.rules.waits.len());
            for e in self.ledger.iter() {
                if e.state == State::Waiting && e.due != u64::MAX {
                    self.timers.arm_at(e.due, e.seq);
                }
            }
        }
        if self.leading {
            self.reported_inactive = false;
            self.last_used = now.mono;
            self.paused = self.rules.pause_until > now.wall;
            if pause_changed {
                let until = self.rules.pause_until.max(0);
                out.push(Output::Advisory(Advisory::Pause { paused: self.paused, until }));
            }
        }
    }

    /// This node leads now: time begins to count. All that is pending is due after its whole wait, or when the client's own delay ends.
    /// Deltas are told from others' by `epoch`.
    pub fn lead(&mut self, epoch: u64, now: Now) {
        self.leading = true;
        self.logging.epoch = epoch;
        self.logging.taken = 0;
        self.logging.applied = 0;
        self.logging.recorder.clear();
        self.logging.shadow = self.logging.on.then(|| Box::new(self.ledger.clone()));
        self.held.clear();
        self.again.clear();
        self.timers.clear();
        self.unseen = None;
        self.last_used = now.mono;
        self.last_sent = now.mono;
        self.reported_inactive = false;
        self.paused = self.rules.pause_until > now.wall;
        self.flow = self.config.flow_control.then(FlowControl::new);
        let mut due = std::mem::take(&mut self.scratch);
        due.clear();
        due.extend(self.ledger.iter().map(|e| e.seq));
        for seq in due.drain(..) {
            let delay = self.ledger.delays.get(&seq).map(|d| d.left(now.wall));
            self.arm(seq, now.mono, delay);
        }
        self.scratch = due;
    }

    /// This node leads no longer. Whoever waits is told; what was not logged is forgotten.
    pub fn unlead(&mut self, out: &mut Vec<Output>) {
        if !self.leading {
            return;
        }
        let mut told: Vec<Bytes> = self.waiting.drain().map(|w| w.to).collect();
        if self.rules.pull {
            // A request whose last message waits for the log does not wait any more, and gets nothing.
            for (_, held) in &self.held {
                if let HeldOutput::Deliver { to, .. } = held
                    && !told.contains(to)
                {
                    told.push(to.clone());
                }
            }
        }
        for to in told {
            out.push(Output::Status(Status::plain(to, 409, "Leadership Change")));
        }
        self.leading = false;
        self.active = false;
        self.not_before = 0;
        self.replayed = None;
        self.held.clear();
        self.again.clear();
        self.timers.clear();
        self.pin = None;
        self.unseen = None;
        self.logging.recorder.clear();
        if let Some(shadow) = self.logging.shadow.take() {
            self.ledger = *shadow;
        }
    }

    /// The consumer is deleted. Whoever waits is told.
    pub fn deleted(&mut self, out: &mut Vec<Output>) {
        self.end_requests("Consumer Deleted", false, out);
        self.leading = false;
    }

    /// The server shuts down. Whoever waits is told.
    pub fn shutdown(&mut self, out: &mut Vec<Output>) {
        self.end_requests("Server Shutdown", true, out);
    }

    /// Sets when an entry is due again, and its state to waiting: after its wait, or after `delay` nanoseconds.
    fn arm(&mut self, seq: u64, mono: u64, delay: Option<u64>) {
        let Some(e) = self.ledger.get_mut(seq) else { return };
        e.state = State::Waiting;
        match (delay, self.rules.wait(e.deliveries)) {
            (Some(delay), _) => {
                e.due = mono.saturating_add(delay);
                self.timers.arm_at(e.due, seq);
            }
            (None, Some((step, wait))) => {
                e.due = mono.saturating_add(wait);
                self.timers.arm(step, e.due, seq);
            }
            (None, None) => e.due = u64::MAX,
        }
    }

    /// A number that nobody expects; the sequence follows from the seed.
    fn draw(&mut self) -> u64 {
        // SplitMix64: all that is asked is that pins and ids differ.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// So many letters and digits that nobody expects.
    fn draw_text(&mut self, len: usize) -> String {
        const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        (0..len).map(|_| char::from(LETTERS[(self.draw() % 62) as usize])).collect()
    }

    // ----- the stream -----

    /// A message has joined the stream. Whether there is somebody to deliver it to: then [`Consumer::pump`] is to be called.
    #[inline]
    pub fn appended(&mut self, seq: u64, subject: &[u8]) -> bool {
        self.matches(subject) && self.appended_matching(seq)
    }

    /// A message that matches the filters has joined the stream. Whether there is somebody to deliver it to.
    #[inline]
    pub fn appended_matching(&mut self, seq: u64) -> bool {
        if seq > self.counted {
            self.counted = seq;
            if seq >= self.ledger.next_seq
                && let Some(n) = &mut self.unseen
            {
                *n += 1;
            }
        }
        self.ready()
    }

    /// A message has left the stream by whatever cause but an ack of this consumer, on every replica where the log applies that.
    pub fn removed(&mut self, seq: u64, subject: &[u8], out: &mut Vec<Output>) {
        let advisory = self.left(seq, subject);
        out.extend(advisory.map(Output::Advisory));
    }

    /// The same for a message that has left by a purge, of which nobody is told.
    pub fn removed_by_purge(&mut self, seq: u64, subject: &[u8]) {
        self.left(seq, subject);
    }

    fn left(&mut self, seq: u64, subject: &[u8]) -> Option<Advisory> {
        if let Some(shadow) = &mut self.logging.shadow {
            shadow.remove(seq);
        }
        let advisory = self.vanished(seq);
        let listed = |l: &Ledger| {
            let skip = l.skip.as_ref()?;
            Some(if seq < skip.resume { skip.seqs[skip.at..].binary_search(&seq).is_ok() } else { true })
        };
        let ahead = listed(&self.ledger).unwrap_or(seq >= self.ledger.next_seq);
        if ahead
            && seq <= self.counted
            && self.matches(subject)
            && let Some(n) = &mut self.unseen
        {
            *n = n.saturating_sub(1);
        }
        advisory
    }

    /// An awaited message is not in the stream any more. On the leader, which may notice that by itself, the log is told: a delivery
    /// that is not applied yet would bring the entry back on the replicas.
    fn vanished(&mut self, seq: u64) -> Option<Advisory> {
        let e = self.ledger.remove(seq)?;
        if !self.leading {
            return None;
        }
        if self.logging.on {
            self.logging.recorder.drop(seq);
        }
        self.timers.tidy(&self.ledger);
        let reason = "Unacknowledged message was deleted".to_owned();
        let (consumer_seq, stream_seq, deliveries) = (e.dseq, e.seq, e.deliveries.into());
        Some(Advisory::Terminated { consumer_seq, stream_seq, deliveries, reason })
    }

    /// All messages before `first` have left the stream by a purge, of which nobody is told; on every replica where the log applies that.
    pub fn purged(&mut self, first: u64) {
        if let Some(shadow) = &mut self.logging.shadow {
            shadow.purge(first, |_| {});
        }
        let (leading, on) = (self.leading, self.logging.on);
        let recorder = &mut self.logging.recorder;
        self.ledger.purge(first, |e| {
            if leading && on {
                recorder.drop(e.seq);
            }
        });
        self.timers.tidy(&self.ledger);
        self.unseen = None;
    }

    /// What is pending is to be counted anew: after a purge by filter, or when many messages have left at once.
    pub fn recount(&mut self) {
        self.unseen = None;
    }

    /// Whether the consumer still wants a message, as far as the log says: for streams that keep by interest.
    pub fn needs(&self, seq: u64, subject: &[u8]) -> bool {
        let ledger = self.logging.shadow.as_deref().unwrap_or(&self.ledger);
        self.matches(subject) && ledger.needs(seq, self.rules.ack == AckPolicy::Explicit)
    }

    /// All messages up to this one are acknowledged, as far as the log says.
    pub fn ack_floor(&self) -> u64 {
        self.logging.shadow.as_deref().unwrap_or(&self.ledger).ack_seq
    }

    /// Begins anew at `seq`, or behind the ack floor if it is 0. Returns where. The answer is to wait for the next delta.
    ///
    /// # Errors
    /// Outer: what has to be fetched first. Inner: 10204.
    pub fn reset<M: Messages>(&mut self, seq: u64, msgs: &M) -> Result<Result<u64, ApiError>, M::Miss> {
        let refused = |why: &str| Ok(Err(errors::CONSUMER_INVALID_RESET.with(why)));
        let to = match self.config.deliver_policy {
            _ if seq == 0 => self.ledger.ack_seq + 1,
            DeliverPolicy::All => seq,
            DeliverPolicy::ByStartSequence if seq < self.config.opt_start_seq => {
                return refused("below start seq");
            }
            DeliverPolicy::ByStartSequence => seq,
            DeliverPolicy::ByStartTime => {
                if seq < msgs.at_time(self.config.opt_start_time.map_or(i64::MIN, |t| t.ns))? {
                    return refused("below start time");
                }
                seq
            }
            _ => return refused("not allowed"),
        };
        let to = to.clamp(1, u64::MAX - 1);
        if self.logging.on {
            self.logging.recorder.reset(to);
        }
        self.ledger.reset(to);
        self.again.clear();
        self.timers.clear();
        self.held.retain(|(_, held)| !matches!(held, HeldOutput::Deliver { .. }));
        self.unseen = None;
        self.delivered_last = None;
        self.acked_last = None;
        Ok(Ok(to))
    }

    // ----- the log -----

    /// Whether something waits to be logged.
    pub fn has_delta(&self) -> bool {
        !self.logging.recorder.is_empty()
    }

    /// About how many bytes wait to be logged.
    pub fn delta_len(&self) -> usize {
        self.logging.recorder.len()
    }

    /// Whether somebody waits for what is to be logged: a delivery that may not leave before, or the confirmation of an ack.
    #[inline]
    pub fn awaits_log(&self) -> bool {
        self.held.back().is_some_and(|(number, _)| *number > self.logging.taken)
    }

    /// Takes what the leader did since the last time, for the log.
    pub fn take_delta(&mut self) -> Option<Bytes> {
        let delta = self.logging.recorder.take(self.logging.epoch, self.logging.taken + 1)?;
        self.logging.taken += 1;
        Some(delta.into())
    }

    /// The number of the last delta that was taken.
    pub fn taken(&self) -> u64 {
        self.logging.taken
    }

    /// The number of the last delta of this leader that was applied.
    pub fn applied(&self) -> u64 {
        self.logging.applied
    }

    /// Applies a delta that the log brings, on every replica. On the leader that made it, what waited for it is free to leave at the
    /// next [`Consumer::pump`]. What the consumer is done with comes out as [`Output::Acked`].
    ///
    /// # Errors
    /// If it is none. The replicas' states would part: the shell stops the group.
    pub fn apply_delta(&mut self, delta: &[u8], out: &mut Vec<Output>) -> Result<(), Damaged> {
        let (epoch, number) = delta::origin(delta)?;
        let awaits = self.rules.awaits();
        let retains = self.retains;
        let ledger = self.logging.shadow.as_deref_mut().unwrap_or(&mut self.ledger);
        let (dseq, seq) = (ledger.ack_dseq, ledger.ack_seq);
        let mut reset = false;
        delta::apply(delta, ledger, awaits, |first, last| {
            if retains {
                match out.last_mut() {
                    Some(Output::Acked { last: before, .. }) if before.checked_add(1) == Some(first) => {
                        *before = last
                    }
                    _ => out.push(Output::Acked { first, last }),
                }
            }
        })?;
        reset |= ledger.dseq == 1 || ledger.dseq <= dseq;
        debug_assert!(reset || ledger.ack_dseq >= dseq && ledger.ack_seq >= seq, "J-5: floors go back");
        if self.leading && epoch == self.logging.epoch {
            self.logging.applied = self.logging.applied.max(number);
        }
        Ok(())
    }

    /// The state that the log has led to, for a checkpoint.
    pub fn snapshot(&self) -> Bytes {
        let logged = self.logging.shadow.as_deref().unwrap_or(&self.ledger);
        let mut bytes = vec![u8::from(self.started)];
        put_number(&mut bytes, self.replay_upto);
        bytes.extend(delta::snapshot(logged));
        bytes.into()
    }

    /// Takes up the state of a checkpoint.
    ///
    /// # Errors
    /// If it is none.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), Damaged> {
        let (started, rest) = snapshot.split_first().ok_or(Damaged)?;
        let mut rest = Reader(rest);
        self.replay_upto = rest.number().ok_or(Damaged)?;
        self.ledger = delta::restore(rest.0)?;
        self.started = *started != 0;
        self.unseen = None;
        Ok(())
    }

    /// The state that is logged, for the comparison of replicas and for tests.
    pub fn logged(&self) -> &Ledger {
        self.logging.shadow.as_deref().unwrap_or(&self.ledger)
    }

    /// The state as the leader has it.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    // ----- numbers -----

    /// Counts what is pending if that is not known.
    fn count<M: Messages>(&mut self, msgs: &M) -> Result<u64, M::Miss> {
        if let Some(n) = self.unseen {
            return Ok(n);
        }
        let totals = msgs.totals();
        let mut n = 0;
        let mut from = self.ledger.next_seq;
        if let Some(skip) = &self.ledger.skip {
            for seq in &skip.seqs[skip.at..] {
                n += u64::from(msgs.meta(*seq)?.is_some());
            }
            from = skip.resume;
        }
        if from <= totals.last {
            n += msgs.pending(&self.rules.filters, from)?;
        }
        self.unseen = Some(n);
        self.counted = totals.last;
        Ok(n)
    }

    /// The numbers of its info.
    ///
    /// # Errors
    /// What has to be fetched first.
    pub fn info<M: Messages>(&mut self, msgs: &M, now: Now) -> Result<Info, M::Miss> {
        let num_pending = self.count(msgs)?;
        let l = &self.ledger;
        let left = self.rules.pause_until.saturating_sub(now.wall);
        Ok(Info {
            delivered_consumer: l.dseq - 1,
            delivered_stream: l.delivered,
            delivered_last: self.delivered_last,
            ack_floor_consumer: l.ack_dseq,
            ack_floor_stream: l.ack_seq,
            ack_floor_last: self.acked_last,
            num_ack_pending: l.len() as u64,
            num_redelivered: if self.rules.max_deliver == 1 { 0 } else { l.num_redelivered() as u64 },
            num_waiting: self.waiting.len() as u64,
            num_pending,
            push_bound: !self.rules.pull && self.active,
            pause_remaining: (left > 0 && self.rules.pause_until != i64::MIN).then_some(left),
            priority_group: self.config.priority_groups.first().map(|group| GroupInfo {
                group: group.clone(),
                pinned_client_id: self
                    .pin
                    .as_ref()
                    .map_or(String::new(), |p| String::from_utf8_lossy(&p.id).into_owned()),
                pinned_ts: self.pin.as_ref().map(|p| p.since),
            }),
        })
    }
}
