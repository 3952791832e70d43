//! `Stream`: one stream's rules.
//!
//! Owns what is applied beside the messages (configuration, message ids, expiries, schedules, positions of sources), what is decided and
//! not applied (the tail), and open batches. Does not own messages: it asks [`Messages`]. Holds no clock: [`Now`] comes in.
//!
//! How a shell uses it, under one lock:
//! - a publish: [`Stream::decide`]. What it stores goes into the open batch at once, in the order of decisions; a miss or
//!   [`Decision::Wait`] means ask again later, before any publish that came after.
//! - a control entry: [`Stream::proposed`] when the entry takes its place behind the open batch.
//! - a committed entry, on every replica: the messages are put into the store, [`Stream::applied`] for each, then [`Stream::enforce`] until
//!   it is done; or [`Stream::apply_command`] until it is done. One entry at a time: what an entry removes depends on it alone.
//! - time: [`Stream::deadlines`] says when [`Stream::due`] and [`Stream::tick`] have something to do.
//! - leadership lost, or a proposal refused: [`Stream::reset_tail`].
//!
//! | invariant | here |
//! |---|---|
//! | J-2 | `applied` takes only a sequence above the last; `decide` gives each once, also after `reset_tail`, which takes back only what is not applied |
//! | J-3 | `enforce` returns `Ok` only when every limit holds |
//! | J-4 | `applied`, `enforce` and `apply_command` read no clock: they depend on the entries before and on nothing else |

mod apply;
mod batch;
mod decide;
mod due;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use subject::Transform;

pub use apply::{Interest, NoConsumers, Outcome, republish_headers};
pub use due::{Deadlines, Due};

use self::apply::{Progress, Todo};
use self::batch::Batches;
use crate::arena::Arena;
use crate::config::{Discard, Retention, StreamConfig};
use crate::counter::Counter;
use crate::dedup::Dedup;
use crate::messages::{Messages, Now, Totals};
use crate::publish::{Abandoned, Decision, Limits};
use crate::tail::Tail;
use crate::{Command, Stored};

/// Positions of sources that are kept, whether they are configured or not.
const SOURCES_MAX: usize = 1024;

/// How far a source has been copied.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct SourceAt {
    /// The last sequence of the origin that is here.
    pub seq: u64,
    /// The origin's identity, empty if it has told none.
    pub identity: String,
}

/// Which schedules there are and when they fire.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Schedules {
    /// By subject: the message, and when.
    by_subject: BTreeMap<Bytes, (u64, i64)>,
    by_time: BTreeSet<(i64, Bytes)>,
}

impl Schedules {
    fn set(&mut self, subject: &[u8], seq: u64, at: i64) {
        self.remove(subject);
        let subject = Bytes::copy_from_slice(subject);
        self.by_time.insert((at, subject.clone()));
        self.by_subject.insert(subject, (seq, at));
    }

    fn remove(&mut self, subject: &[u8]) {
        if let Some((subject, (_, at))) = self.by_subject.remove_entry(subject) {
            self.by_time.remove(&(at, subject));
        }
    }

    /// The schedule of a subject fires again, if it is there.
    fn again(&mut self, subject: &[u8], at: i64) {
        if let Some((seq, _)) = self.by_subject.get(subject).copied() {
            self.set(subject, seq, at);
        }
    }

    /// It has fired; it is still there, but fires no more by itself.
    fn fired(&mut self, subject: &Bytes) {
        if let Some((_, at)) = self.by_subject.get(subject) {
            self.by_time.remove(&(*at, subject.clone()));
        }
    }

    /// What has fired may be lost: all fire again.
    fn rearm(&mut self) {
        self.by_time = self.by_subject.iter().map(|(s, (_, at))| (*at, s.clone())).collect();
    }

    fn first(&self) -> Option<i64> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

/// Buffers for what a decision rewrites.
#[derive(Clone, Debug, Default)]
struct Scratch {
    subject: Vec<u8>,
    headers: Vec<u8>,
    payload: Vec<u8>,
}

/// One stream's rules.
#[derive(Clone, Debug)]
pub struct Stream {
    config: StreamConfig,
    created: i64,
    limits: Limits,
    transform: Option<Transform>,
    republish: Option<Transform>,
    /// A message without headers meets no rule but its size, and one with an id alone but that.
    plain: bool,

    // What is applied: the same on all replicas.
    /// No sequence up to here is ever given.
    floor: u64,
    applied: u64,
    applied_time: i64,
    /// The id of the last message; empty if it had none.
    last_id: Vec<u8>,
    dedup: Dedup,
    expiring: BTreeSet<(i64, u64)>,
    schedules: Schedules,
    sources: BTreeMap<String, SourceAt>,
    todo: VecDeque<Todo>,
    /// The subjects that it names.
    todo_subjects: Arena,
    progress: Progress,
    /// An entry is applied and not yet enforced: what is stored is not what the rules will leave.
    unfinished: bool,
    /// All live messages before this one never expire by age.
    ageless: u64,
    /// What the checkpoint left out, if anything: see [`Stream::rebuild`].
    missing: Option<u64>,

    // What is decided: the leader's.
    tail: Tail,
    /// The store takes nothing up to here, whatever is applied.
    passed: u64,
    given: u64,
    given_time: i64,
    given_id: Vec<u8>,
    /// Counters that the tail has changed, with the sequence that did last.
    counters: BTreeMap<Bytes, (u64, Counter)>,
    /// Control entries on their way that change messages; whether publishes have to wait for it.
    commands: VecDeque<bool>,
    holding: u32,
    batches: Batches,
    abandoned: Vec<(String, Abandoned)>,
    /// Until this sequence is applied, `due` has nothing new to say.
    due_upto: u64,
    expire_sent: bool,
    scratch: Scratch,
    /// For transforms that draw a number.
    lot: u64,
}

impl Stream {
    /// A stream of this configuration, which has been checked. It is empty: `restore` is for one that has messages.
    pub fn new(config: StreamConfig, created: i64, limits: Limits) -> Stream {
        let lot = keyed::hash(config.name.as_bytes()) ^ created as u64;
        let mut stream = Stream {
            config: StreamConfig::default(),
            created,
            limits,
            transform: None,
            republish: None,
            plain: false,
            floor: 0,
            applied: 0,
            applied_time: 0,
            last_id: Vec::new(),
            dedup: Dedup::default(),
            expiring: BTreeSet::new(),
            schedules: Schedules::default(),
            sources: BTreeMap::new(),
            todo: VecDeque::new(),
            todo_subjects: Arena::default(),
            progress: Progress::default(),
            unfinished: false,
            ageless: 0,
            missing: None,
            tail: Tail::default(),
            passed: 0,
            given: 0,
            given_time: 0,
            given_id: Vec::new(),
            counters: BTreeMap::new(),
            commands: VecDeque::new(),
            holding: 0,
            batches: Batches::default(),
            abandoned: Vec::new(),
            due_upto: 0,
            expire_sent: false,
            scratch: Scratch::default(),
            lot,
        };
        stream.set_config(config);
        if stream.config.first_seq > 1 {
            stream.advance(stream.config.first_seq - 1);
        }
        stream
    }

    fn set_config(&mut self, config: StreamConfig) {
        let make = |src: &str, dest: &str| {
            // Checked when the configuration was; an empty destination means no change.
            (!dest.is_empty()).then(|| Transform::new(src.as_bytes(), dest.as_bytes()).ok()).flatten()
        };
        self.transform = config.subject_transform.as_ref().and_then(|t| make(&t.src, &t.dest));
        self.republish = config.republish.as_ref().and_then(|r| make(&r.src, &r.dest));
        self.plain = !config.sealed
            && !config.is_mirror()
            && !config.allow_msg_counter
            && !refuses_when_full(&config)
            && self.transform.is_none();
        if !config.allow_atomic {
            self.batches.atomic.clear();
        }
        if !config.allow_batched {
            self.batches.fast.clear();
        }
        // A source that is taken out and comes back goes on where it stood, whatever has become of its copies.
        if self.sources.len() > SOURCES_MAX {
            let names: BTreeSet<String> = config.sources.iter().map(|s| s.index_name()).collect();
            self.sources.retain(|name, _| names.contains(name));
        }
        self.config = config;
    }

    /// The configuration.
    pub fn config(&self) -> &StreamConfig {
        &self.config
    }

    /// When the stream was created, nanoseconds since 1970.
    pub fn created(&self) -> i64 {
        self.created
    }

    /// What the server sets.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Changes what the server sets; open batches stay.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The stream's totals: those of the messages, but that sequences which are never given count as gone.
    pub fn totals<M: Messages>(&self, msgs: &M) -> Totals {
        let mut t = msgs.totals();
        t.last = t.last.max(self.floor);
        if t.msgs == 0 {
            t.first = t.last + 1;
        }
        t
    }

    /// No sequence up to here is ever given: those before the first that was asked for, and those that a purge went beyond.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The last sequence that is applied.
    pub fn applied_seq(&self) -> u64 {
        self.applied
    }

    /// The last sequence that is applied, or that the log passes over.
    pub fn reached_seq(&self) -> u64 {
        self.applied.max(self.floor)
    }

    /// The last sequence that is given, applied or not.
    pub fn given_seq(&self) -> u64 {
        self.given
    }

    /// Messages that are decided and not yet applied.
    pub fn tail_len(&self) -> usize {
        self.tail.len()
    }

    /// How far a source has been copied, by [`crate::config::Source::index_name`].
    pub fn source_at(&self, index_name: &str) -> Option<&SourceAt> {
        self.sources.get(index_name)
    }

    /// Message ids that are remembered.
    pub fn num_ids(&self) -> usize {
        self.dedup.len()
    }

    /// Open batches, atomic and fast: the server limits them over all streams.
    pub fn open_batches(&self) -> usize {
        self.batches.atomic.len() + self.batches.fast.len()
    }

    /// Batches given up since the last call, for advisories.
    pub fn take_abandoned(&mut self) -> Vec<(String, Abandoned)> {
        std::mem::take(&mut self.abandoned)
    }

    /// A control entry takes its place in the log, behind all that is decided.
    pub fn proposed(&mut self, command: &Command) {
        let keeps_messages = match command {
            Command::ConsumerDelta { .. }
            | Command::ConsumerDeltas { .. }
            | Command::ConsumerCreate { .. }
            | Command::ConsumerRestore { .. }
            | Command::ConsumerUpdate { .. }
            | Command::ConsumerDelete { .. } => self.config.retention == Retention::Limits,
            _ => false,
        };
        if keeps_messages {
            return;
        }
        // What is decided behind one of these may not be decided before it is applied: it changes the rules or the next sequence.
        let hold = match command {
            Command::Config { .. } | Command::Advance { .. } => true,
            Command::Purge { below, .. } => *below > self.given + 1,
            _ => false,
        };
        self.holding += u32::from(hold);
        self.commands.push_back(hold);
    }

    fn command_applied(&mut self) {
        if let Some(hold) = self.commands.pop_front() {
            self.holding -= u32::from(hold);
        }
    }

    /// All that is decided and not applied is void: leadership is lost, or a proposal was refused. Open batches are void too.
    pub fn reset_tail(&mut self) {
        self.tail.truncate(0);
        self.dedup.truncate(self.applied);
        self.counters.clear();
        self.commands.clear();
        self.holding = 0;
        self.given = self.reached_seq().max(self.passed);
        self.given_time = self.applied_time;
        self.given_id.clone_from(&self.last_id);
        self.batches = Batches::default();
        self.schedules.rearm();
        self.due_upto = 0;
        self.expire_sent = false;
    }

    /// What the log said of messages up to this one is lost, with them: their sequences are not given again.
    pub fn lost_upto(&mut self, last: u64) {
        if last > self.applied {
            self.advance(last);
        }
    }

    /// The store of this node takes nothing up to `last`: the log may have forgotten that these sequences were given. Not part of the state: to be so on all
    /// replicas it has to be proposed ([`Command::Advance`]).
    pub fn pass_over(&mut self, last: u64) {
        self.passed = self.passed.max(last);
        self.given = self.given.max(self.passed);
    }

    /// No sequence up to `last` will be given.
    fn advance(&mut self, last: u64) {
        self.floor = self.floor.max(last);
        self.given = self.given.max(self.floor);
    }

    /// Notes that a message has been decided.
    fn give(&mut self, seq: u64, time: i64, id: &[u8]) {
        debug_assert!(seq > self.given, "J-2: sequence {seq} after {}", self.given);
        self.given = seq;
        self.given_time = time;
        if !(self.given_id.is_empty() && id.is_empty()) {
            self.given_id.clear();
            self.given_id.extend_from_slice(id);
        }
    }

    /// The time for the next message: never before the last one's.
    fn stamp(&self, now: Now) -> i64 {
        now.wall.max(self.given_time)
    }

    /// Where a stored message is published again: writes the subject into `out`; false if nowhere.
    pub fn republish_to(&mut self, subject: &[u8], out: &mut Vec<u8>) -> bool {
        let lot = &mut self.lot;
        match &self.republish {
            Some(t) => {
                t.apply(subject, |n| draw(lot, n), out) && subject::is_strict(out) && subject::is_literal(out)
            }
            None => false,
        }
    }

    /// A message of the stream that this one mirrors: it keeps its number and time. Numbers that were left out stay so. `Answer` without
    /// answers if it, or one after it, is here already; `Wait` as from [`Stream::decide`].
    pub fn mirrored<'a>(&'a mut self, m: &'a Stored) -> Decision<'a> {
        if self.holding > 0 || self.unfinished {
            return Decision::Wait;
        }
        if m.seq <= self.given {
            return Decision::Answer { answers: [None, None], after: 0 };
        }
        self.tail.push(crate::tail::New {
            seq: m.seq,
            subject: &m.subject,
            size: crate::memory::size(self.config.storage, m.subject.len(), m.headers.len(), m.payload.len()),
            sweeps: false,
            schedule: false,
        });
        self.give(m.seq, m.time, b"");
        Decision::Store { entry: crate::publish::Entry::of(m), now: None, applied: None }
    }
}

/// Whether there may be no room for a message: then what is stored is looked at for each.
fn refuses_when_full(c: &StreamConfig) -> bool {
    let per_subject = c.discard_new_per_subject && c.max_msgs_per_subject > 0;
    c.discard == Discard::New && (c.max_msgs > 0 || c.max_bytes > 0 || per_subject)
}

/// A number below `n`, by a generator that is enough for spreading messages.
fn draw(lot: &mut u64, n: u32) -> u32 {
    *lot ^= *lot << 13;
    *lot ^= *lot >> 7;
    *lot ^= *lot << 17;
    // The upper half, scaled: no division.
    (((*lot >> 32) * u64::from(n)) >> 32) as u32
}
