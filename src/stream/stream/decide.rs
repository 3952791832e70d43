//! What becomes of a publish.
//!
//! Owns the rules of publish headers and limits, in nats-server's order. A rule that depends on stored messages sees them with the tail
//! applied; where that cannot be told without applying it, the decision is `Wait`. A miss or a `Wait` changes nothing.

use std::mem;

use bytes::Bytes;
use num_bigint::BigInt;
use subject::{collides, has_wildcard};

use super::{Scratch, Stream, draw};
use crate::config::{Discard, Retention};
use crate::counter::{Counter, integer};
use crate::errors::{self, ApiError};
use crate::headers::{self, Asked, Rollup, Ttl};
use crate::memory::size;
use crate::messages::{Messages, Now, Stored};
use crate::publish::{Ack, Answer, Decision, Entry, Extra, From, Publish};
use crate::schedule;
use crate::tail::New;
use crate::time::SECOND;

/// Headers may be so long, bytes.
const HEADERS_MAX: usize = 65_535;

/// What one message is told.
pub(super) enum Verdict {
    Accept(Accepted),
    Refuse {
        error: ApiError,
        /// It depends on what is decided and not applied.
        on_tail: bool,
    },
    /// It is there already.
    Duplicate {
        seq: u64,
    },
    Wait,
}

/// A message that has joined the tail. What the rules rewrote is in the scratch space.
pub(super) struct Accepted {
    pub seq: u64,
    pub time: i64,
    pub expires: Option<i64>,
    pub new_subject: bool,
    pub new_headers: bool,
    pub new_payload: bool,
    /// A counter's total.
    pub value: Option<String>,
}

impl Verdict {
    fn refuse(error: impl Into<ApiError>) -> Verdict {
        Verdict::Refuse { error: error.into(), on_tail: false }
    }

    fn refuse_on_tail(error: impl Into<ApiError>) -> Verdict {
        Verdict::Refuse { error: error.into(), on_tail: true }
    }
}

/// Goes on with a value, or returns the verdict or the miss.
macro_rules! known {
    ($e:expr) => {
        match $e? {
            Ok(v) => v,
            Err(verdict) => return Ok(verdict),
        }
    };
}

/// Goes on, or returns the verdict.
macro_rules! settled {
    ($e:expr) => {
        match $e {
            Ok(v) => v,
            Err(verdict) => return Ok(verdict),
        }
    };
}

/// A verdict comes out as an error, so that rules can be chained.
type Rule<T> = Result<T, Verdict>;

fn ensure(condition: bool, error: errors::Known) -> Rule<()> {
    if condition { Ok(()) } else { Err(Verdict::refuse(error)) }
}

/// The message id of a block that says nothing else; empty for one that says nothing.
#[inline]
fn plain_id(block: &[u8]) -> Option<&[u8]> {
    if block.is_empty() { Some(b"") } else { headers::sole_id(block) }
}

impl Stream {
    /// Decides about a publish. On a miss the caller fetches and asks again; until then no later publish may be decided.
    pub fn decide<'a, M: Messages>(
        &'a mut self,
        p: &Publish<'a>,
        msgs: &M,
        now: Now,
    ) -> Result<Decision<'a>, M::Miss> {
        if self.holding > 0 || self.unfinished {
            return Ok(Decision::Wait);
        }
        if self.plain
            && let Some(id) = plain_id(p.headers)
            && self.fits(p)
        {
            if !p.reply.ends_with(b".$FI") {
                return self.take_plain(p, id, now);
            }
            if let Some(flow) = self.goes_on(p, now) {
                let mut decision = self.take_plain(p, id, now);
                if let Ok(Decision::Store { applied, .. }) = &mut decision {
                    *applied = flow;
                }
                return decision;
            }
        }
        self.decide_by_rules(p, msgs, now)
    }

    /// Looks at what the decisions about messages with these headers will look at, for all of them together. Changes nothing.
    pub fn foresee<'a>(&self, headers: impl Iterator<Item = &'a [u8]>) {
        if self.config.duplicate_window > 0 && self.dedup.len() > 0 {
            headers.filter_map(headers::sole_id).for_each(|id| self.dedup.touch(id));
        }
    }

    fn fits(&self, p: &Publish<'_>) -> bool {
        let (max, body) = (self.config.max_msg_size, p.headers.len() + p.payload.len());
        p.subject.len() + body <= self.limits.record_max
            && p.headers.len() <= HEADERS_MAX
            && (max < 0 || body <= max as usize)
    }

    /// Takes a message that meets no rule: one without headers, or with an id only. What it answers is made where the caller wants it: to copy it would
    /// wait until all that was written before is in the cache, also what went into the table of ids at random.
    #[inline]
    fn take_plain<'a, E>(&mut self, p: &Publish<'a>, id: &[u8], now: Now) -> Result<Decision<'a>, E> {
        let (seq, time) = (self.given + 1, self.stamp(now));
        if !id.is_empty() && self.config.duplicate_window > 0 {
            let looked = self.dedup.look(id);
            if let Some(seq) = looked.after(time - self.config.duplicate_window) {
                return Ok(self.duplicate(p, seq));
            }
            self.dedup.push_looked(looked, id, seq, time);
        }
        self.tail.push(New {
            seq,
            subject: p.subject,
            size: size(self.config.storage, p.subject.len(), p.headers.len(), p.payload.len()),
            sweeps: false,
            schedule: false,
        });
        self.give(seq, time, id);
        let applied = self.answers(p).then(|| Answer::ack(seq));
        let Publish { subject, headers, payload, .. } = *p;
        Ok(Decision::Store {
            entry: Entry { seq, time, expires: None, subject, headers, payload },
            now: None,
            applied,
        })
    }

    /// The answer to a message that is there already.
    fn duplicate<'a>(&self, p: &Publish<'_>, seq: u64) -> Decision<'a> {
        let answer = Answer::Ack(Ack { seq, duplicate: true, extra: None });
        Decision::Answer { answers: [self.answers(p).then_some(answer), None], after: self.wait_for(seq) }
    }

    /// Whether a publish that no consumer wants is taken where others find no room: the caller is to say so ([`Publish::unwanted`]).
    pub fn drops_unwanted(&self) -> bool {
        let c = &self.config;
        let interest = c.retention == Retention::Interest && c.subject_transform.is_none();
        interest && c.discard == Discard::New && (c.max_msgs > 0 || c.max_bytes > 0)
    }

    /// Whether anybody wants to hear of it.
    pub(super) fn answers(&self, p: &Publish<'_>) -> bool {
        !p.reply.is_empty() && !self.config.no_ack
    }

    /// The same one rule after another: what is decided quicker is decided like this.
    pub(super) fn decide_by_rules<'a, M: Messages>(
        &'a mut self,
        p: &Publish<'a>,
        msgs: &M,
        now: Now,
    ) -> Result<Decision<'a>, M::Miss> {
        let asked = Asked::parse(p.headers);
        if p.from == From::Client {
            if let Some(fast) = super::batch::Fast::parse(p.reply, asked.request_info) {
                return self.decide_fast(p, &asked, fast, msgs, now);
            }
            if !asked.batch_id.is_empty() {
                return self.decide_atomic(p, &asked, msgs, now);
            }
        }
        let answers = self.answers(p);
        let decision = match self.check(p, &asked, None, msgs, now)? {
            Verdict::Accept(accepted) => {
                let seq = accepted.seq;
                let extra = accepted.value.clone().map(|v| Box::new(Extra { value: Some(v), batch: None }));
                let applied = answers.then_some(Answer::Ack(Ack { seq, duplicate: false, extra }));
                Decision::Store { entry: self.entry(p, &accepted), now: None, applied }
            }
            Verdict::Refuse { error, on_tail } => {
                let after = if on_tail { self.tail_end() } else { 0 };
                // Who copies has to know what was not taken: it must not count as copied.
                let says = answers || p.from == From::Source;
                Decision::Answer { answers: [says.then_some(Answer::Error(error)), None], after }
            }
            Verdict::Duplicate { seq } => self.duplicate(p, seq),
            Verdict::Wait => Decision::Wait,
        };
        Ok(decision)
    }

    /// The sequence after which all that is decided now is applied; 0 if it is already.
    pub(super) fn tail_end(&self) -> u64 {
        if self.tail.is_empty() { 0 } else { self.given }
    }

    /// The sequence itself, if it is not applied yet.
    pub(super) fn wait_for(&self, seq: u64) -> u64 {
        if seq > self.applied { seq } else { 0 }
    }

    pub(super) fn entry<'a>(&'a self, p: &Publish<'a>, a: &Accepted) -> Entry<'a> {
        Entry {
            seq: a.seq,
            time: a.time,
            expires: a.expires,
            subject: if a.new_subject { &self.scratch.subject } else { p.subject },
            headers: if a.new_headers { &self.scratch.headers } else { p.headers },
            payload: if a.new_payload { &self.scratch.payload } else { p.payload },
        }
    }

    /// Takes one message into the tail, or says why not. `batch` is the first sequence of the atomic batch that it is part of.
    pub(super) fn check<M: Messages>(
        &mut self,
        p: &Publish<'_>,
        asked: &Asked<'_>,
        batch: Option<u64>,
        msgs: &M,
        now: Now,
    ) -> Result<Verdict, M::Miss> {
        // Out of `self` while the rules write there.
        let mut scratch = mem::take(&mut self.scratch);
        let verdict = self.check_into(p, asked, batch, msgs, now, &mut scratch);
        self.scratch = scratch;
        verdict
    }

    fn check_into<M: Messages>(
        &mut self,
        p: &Publish<'_>,
        asked: &Asked<'_>,
        batch: Option<u64>,
        msgs: &M,
        now: Now,
        scratch: &mut Scratch,
    ) -> Result<Verdict, M::Miss> {
        let client = p.from == From::Client;
        if p.subject.len() + p.headers.len() + p.payload.len() > self.limits.record_max {
            return Ok(Verdict::refuse(errors::STREAM_STORE_FAILED.with("message too large")));
        }
        settled!(ensure(!self.config.sealed, errors::STREAM_SEALED));
        // Before anything that its headers ask for, also before it is known as a duplicate.
        let max = self.config.max_msg_size;
        let fits =
            |size: usize| ensure(max < 0 || size <= max as usize, errors::STREAM_MESSAGE_EXCEEDS_MAXIMUM);
        settled!(fits(p.headers.len() + p.payload.len()));
        // What the stream itself publishes has its subject already.
        let lot = &mut self.lot;
        let new_subject = p.from != From::Stream
            && self
                .transform
                .as_ref()
                .is_some_and(|t| t.apply(p.subject, |n| draw(lot, n), &mut scratch.subject));
        let subject: &[u8] = if new_subject { &scratch.subject } else { p.subject };
        let mut block = Block { new: false, given: p.headers, own: &mut scratch.headers };
        if asked.request_info.is_some() {
            headers::remove(block.edit(), |n| n == headers::REQUEST_INFO);
        }

        let increment = settled!(self.increment(asked, client, p.payload));
        if !asked.expected_stream.is_empty() && asked.expected_stream != self.config.name.as_bytes() {
            return Ok(Verdict::refuse(errors::STREAM_NOT_MATCH));
        }
        let ttl = Ttl::parse(asked.ttl);
        if client && ttl.is_some_and(|t| t != Ttl::None) && !self.config.allow_msg_ttl {
            return Ok(Verdict::refuse(errors::MESSAGE_TTL_DISABLED));
        }
        known!(self.expected_subject_seq(asked, subject, batch, msgs));
        settled!(self.expected_seq(asked, batch));
        let is_schedule = client && settled!(self.schedule(asked, subject, self.stamp(now)));
        let mut rollup = asked.rollup();
        if is_schedule && rollup == Rollup::None {
            rollup = Rollup::Subject;
            headers::add(block.edit(), headers::ROLLUP, b"sub");
        }
        let stops_schedule = asked.schedule_next == b"purge" && !asked.scheduler.is_empty();
        if client {
            known!(self.scheduler(asked, subject, batch, msgs));
            settled!(ensure(asked.stream_source.is_empty(), errors::MESSAGE_SOURCE_HDR_NOT_ALLOWED));
        }
        let remembers =
            !asked.msg_id.is_empty() && self.config.duplicate_window > 0 && !self.config.is_mirror();
        let looked = remembers.then(|| self.dedup.look(asked.msg_id));
        if let Some(looked) = &looked {
            let since = self.stamp(now) - self.config.duplicate_window;
            match (looked.after(since), batch) {
                (None, _) => {}
                (Some(seq), None) => return Ok(Verdict::Duplicate { seq }),
                (Some(_), Some(_)) => {
                    return Ok(Verdict::refuse_on_tail(errors::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE));
                }
            }
        }
        if !asked.expected_last_msg_id.is_empty() && asked.expected_last_msg_id != self.given_id {
            let last = String::from_utf8_lossy(&self.given_id);
            return Ok(Verdict::refuse_on_tail(errors::STREAM_WRONG_LAST_MSG_ID.with(last)));
        }
        settled!(self.rollup(rollup, asked, client, subject, batch));
        let allows_purge = self.config.allow_rollup_hdrs && !self.config.deny_purge;

        if increment.is_none() && self.config.allow_msg_counter {
            return Ok(Verdict::refuse(errors::MESSAGE_INCR_MISSING));
        }
        let mut counter = None;
        if let Some(increment) = &increment
            && self.config.allow_msg_counter
        {
            let mut c = known!(self.counter(subject, batch, msgs));
            if asked.stream_source.is_empty() {
                c.add(increment);
            } else {
                // What a source counts is taken as the change since we last heard of it, so that the sum is right after any loss.
                let change = match c.source(asked.stream_source, subject, p.payload) {
                    Ok(change) => change,
                    Err(e) => return Ok(Verdict::refuse(e)),
                };
                headers::set_value(block.edit(), headers::INCR, change.to_string().as_bytes());
            }
            c.body(&mut scratch.payload);
            if let Some(sources) = c.sources_header() {
                headers::set_value(block.edit(), headers::COUNTER_SOURCES, sources.as_bytes());
            }
            if block.bytes().len() + scratch.payload.len() > self.limits.max_payload {
                return Ok(Verdict::refuse(errors::STREAM_MESSAGE_EXCEEDS_MAXIMUM));
            }
            counter = Some(c);
        }
        let payload: &[u8] = if counter.is_some() { &scratch.payload } else { p.payload };
        settled!(fits(block.bytes().len() + payload.len()));
        settled!(ensure(block.bytes().len() <= HEADERS_MAX, errors::STREAM_HEADER_EXCEEDS_MAXIMUM));
        let Some(mut ttl) = ttl else { return Ok(Verdict::refuse(errors::MESSAGE_TTL_INVALID)) };
        // A message must not go before the marker that its subject may have, or the marker would be missed.
        let least = self.config.subject_delete_marker_ttl / SECOND;
        if let Ttl::Seconds(s) = ttl
            && s < least
            && self.config.max_msgs_per_subject != 1
        {
            ttl = Ttl::Seconds(least);
            headers::remove(block.edit(), |n| n == headers::TTL);
            headers::add(block.edit(), headers::TTL, least.to_string().as_bytes());
        }
        let bytes = size(self.config.storage, subject.len(), block.bytes().len(), payload.len());
        // Whoever may come to want it before it is applied stands among the commands.
        let passes = p.unwanted && batch.is_none() && self.commands.is_empty();
        if self.config.discard == Discard::New && !passes {
            known!(self.room(subject, bytes, rollup, batch, msgs));
        }

        // All is decided: from here on nothing fails.
        let (seq, time) = (self.given + 1, self.stamp(now));
        let sweeps = allows_purge && (rollup == Rollup::All || stops_schedule);
        let new_headers = block.new;
        self.tail.push(New { seq, subject, size: bytes, sweeps, schedule: is_schedule });
        if let Some(looked) = looked {
            self.dedup.push_looked(looked, asked.msg_id, seq, time);
        }
        let value = counter.map(|c| {
            let value = c.total.to_string();
            self.counters.insert(Bytes::copy_from_slice(subject), (seq, c));
            value
        });
        self.give(seq, time, asked.msg_id);
        let expires = if self.config.allow_msg_ttl { ttl.expires(time) } else { None };
        Ok(Verdict::Accept(Accepted {
            seq,
            time,
            expires,
            new_subject,
            new_headers,
            new_payload: value.is_some(),
            value,
        }))
    }

    /// What a counter is to be changed by.
    fn increment(&self, asked: &Asked<'_>, client: bool, payload: &[u8]) -> Rule<Option<BigInt>> {
        if asked.incr.is_empty() {
            return Ok(None);
        }
        let by = integer(asked.incr).ok_or_else(|| Verdict::refuse(errors::MESSAGE_INCR_INVALID))?;
        if client {
            ensure(self.config.allow_msg_counter, errors::MESSAGE_INCR_DISABLED)?;
            ensure(payload.is_empty(), errors::MESSAGE_INCR_PAYLOAD)?;
            let others = [
                asked.rollup,
                asked.expected_stream,
                asked.expected_last_msg_id,
                asked.expected_subject,
                asked.expected_last_seq,
                asked.expected_subject_seq,
            ];
            ensure(others.iter().all(|v| v.is_empty()), errors::MESSAGE_INCR_INVALID)?;
        }
        Ok(Some(by))
    }

    /// Whether anything is on its way that is not of the same batch.
    fn unsettled(&self, batch: Option<u64>) -> bool {
        let first = batch.unwrap_or(u64::MAX);
        !self.commands.is_empty() || self.tail.first().is_some_and(|seq| seq < first)
    }

    /// Whether applying the tail may remove messages in a way that only applying it can tell. What a batch removes itself does not count:
    /// its expectations are about what was there before it.
    fn tail_removes<M: Messages>(&self, batch: Option<u64>, msgs: &M) -> bool {
        if !self.unsettled(batch) {
            return false;
        }
        if !self.commands.is_empty() || self.tail.sweeps() {
            return true;
        }
        if self.config.retention == Retention::Interest {
            return true;
        }
        let t = msgs.totals();
        let over = |limit: i64, n: u64| limit > 0 && n > limit as u64;
        self.config.discard == Discard::Old
            && (over(self.config.max_msgs, t.msgs + self.tail.len() as u64)
                || over(self.config.max_bytes, t.bytes + self.tail.bytes()))
    }

    fn expected_subject_seq<M: Messages>(
        &self,
        asked: &Asked<'_>,
        subject: &[u8],
        batch: Option<u64>,
        msgs: &M,
    ) -> Result<Rule<()>, M::Miss> {
        if asked.expected_subject_seq.is_empty() {
            let alone = !asked.expected_subject.is_empty();
            return Ok(ensure(!alone, errors::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_INVALID));
        }
        // What is no number matches nothing.
        let want = headers::number(asked.expected_subject_seq).unwrap_or(u64::MAX);
        let subject = if asked.expected_subject.is_empty() { subject } else { asked.expected_subject };
        let wild = has_wildcard(subject);
        let in_tail = if wild { self.tail.last_matching(subject) } else { self.tail.last(subject) };
        if let (Some(first), Some(seq)) = (batch, in_tail)
            && seq >= first
        {
            // A batch may not rest on what it writes itself.
            return Ok(Err(Verdict::refuse_on_tail(errors::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)));
        }
        if self.tail_removes(batch, msgs) {
            return Ok(Err(Verdict::Wait));
        }
        let last = match in_tail {
            Some(seq) => seq,
            None if wild => {
                let mut last = 0;
                msgs.subjects(subject, &mut |_, t| {
                    last = last.max(t.last);
                    true
                })?;
                last
            }
            None => msgs.subject(subject)?.map_or(0, |t| t.last),
        };
        if last == want {
            return Ok(Ok(()));
        }
        Ok(Err(Verdict::refuse_on_tail(errors::STREAM_WRONG_LAST_SEQUENCE.with(last))))
    }

    fn expected_seq(&self, asked: &Asked<'_>, batch: Option<u64>) -> Rule<()> {
        if asked.expected_last_seq.is_empty() {
            return Ok(());
        }
        let want = headers::number(asked.expected_last_seq).unwrap_or(u64::MAX);
        if want != self.given {
            return Err(Verdict::refuse_on_tail(errors::STREAM_WRONG_LAST_SEQUENCE.with(self.given)));
        }
        // Of a batch only the first message may ask.
        if batch.is_some_and(|first| self.given >= first) {
            return Err(Verdict::refuse_on_tail(errors::STREAM_WRONG_LAST_SEQUENCE_CONSTANT));
        }
        Ok(())
    }

    /// Whether the message is a schedule, and a valid one.
    fn schedule(&self, asked: &Asked<'_>, subject: &[u8], now: i64) -> Rule<bool> {
        let allowed = self.config.allow_msg_schedules;
        match schedule::next(asked, now, now) {
            Err(e) if allowed => return Err(Verdict::refuse(e)),
            Err(_) => return Err(Verdict::refuse(errors::MESSAGE_SCHEDULES_DISABLED)),
            Ok(None) => return Ok(false),
            Ok(Some(_)) => ensure(allowed, errors::MESSAGE_SCHEDULES_DISABLED)?,
        }
        ensure(Ttl::parse(asked.schedule_ttl).is_some(), errors::MESSAGE_SCHEDULES_TTL_INVALID)?;
        let rollup = asked.schedule_rollup;
        ensure(rollup.is_empty() || rollup == b"sub", errors::MESSAGE_SCHEDULES_ROLLUP_INVALID)?;
        ensure(asked.schedule_ttl.is_empty() || self.config.allow_msg_ttl, errors::MESSAGE_TTL_DISABLED)?;
        let (target, source) = (asked.schedule_target, asked.schedule_source);
        let literal = |s: &[u8]| subject::is_literal(s) && subject::is_strict(s);
        let within = |s: &[u8]| self.config.subjects.iter().any(|mine| collides(mine.as_bytes(), s));
        ensure(literal(target) && target != subject, errors::MESSAGE_SCHEDULES_TARGET_INVALID)?;
        let usable = source.is_empty() || (source != target && source != subject && literal(source));
        ensure(usable, errors::MESSAGE_SCHEDULES_SOURCE_INVALID)?;
        ensure(within(target), errors::MESSAGE_SCHEDULES_TARGET_INVALID)?;
        ensure(source.is_empty() || within(source), errors::MESSAGE_SCHEDULES_SOURCE_INVALID)?;
        let rollup = matches!(asked.rollup(), Rollup::None | Rollup::Subject);
        ensure(rollup, errors::MESSAGE_SCHEDULES_ROLLUP_INVALID)?;
        Ok(true)
    }

    /// A client may say only one thing in a scheduler's name: that a schedule is to stop.
    fn scheduler<M: Messages>(
        &self,
        asked: &Asked<'_>,
        subject: &[u8],
        batch: Option<u64>,
        msgs: &M,
    ) -> Result<Rule<()>, M::Miss> {
        let invalid = || Ok(Err(Verdict::refuse(errors::MESSAGE_SCHEDULES_SCHEDULER_INVALID)));
        let name = asked.scheduler;
        if asked.schedule_next.is_empty() {
            return if name.is_empty() { Ok(Ok(())) } else { invalid() };
        }
        let literal = subject::is_literal(name) && subject::is_strict(name);
        if asked.schedule_next != b"purge" || name == subject || !literal {
            return invalid();
        }
        if !self.config.allow_msg_schedules {
            return Ok(Err(Verdict::refuse(errors::MESSAGE_SCHEDULES_DISABLED)));
        }
        if self.tail_removes(batch, msgs) {
            return Ok(Err(Verdict::Wait));
        }
        // A subject without messages is let through: there is nothing to stop.
        let is_schedule = match self.tail.is_schedule(name) {
            Some(is) => is,
            None => match msgs.subject(name)? {
                None => true,
                Some(t) => msgs.get(t.last)?.is_none_or(|m| {
                    headers::get(&m.headers, headers::SCHEDULE).is_some_and(|v| !v.is_empty())
                }),
            },
        };
        if is_schedule {
            return Ok(Ok(()));
        }
        Ok(Err(Verdict::refuse_on_tail(errors::MESSAGE_SCHEDULES_SCHEDULER_INVALID)))
    }

    fn rollup(
        &self,
        rollup: Rollup,
        asked: &Asked<'_>,
        client: bool,
        subject: &[u8],
        batch: Option<u64>,
    ) -> Rule<()> {
        let failed = |text: &str| Err(Verdict::refuse(errors::STREAM_ROLLUP_FAILED.with(text)));
        if rollup == Rollup::None {
            return Ok(());
        }
        if client && (!self.config.allow_rollup_hdrs || self.config.deny_purge) {
            return failed("rollup not permitted");
        }
        match (rollup, batch) {
            (Rollup::Unknown, _) => {
                let value = String::from_utf8_lossy(asked.rollup).to_lowercase();
                failed(&format!("rollup value invalid: {value:?}"))
            }
            // A batch may not remove what it writes itself.
            (Rollup::Subject, Some(first)) if self.tail.last(subject).is_some_and(|seq| seq >= first) => {
                failed("batch rollup sub invalid")
            }
            (Rollup::All, Some(first)) if self.given >= first => failed("batch rollup all invalid"),
            _ => Ok(()),
        }
    }

    /// What a counter stands at, with the tail.
    fn counter<M: Messages>(
        &self,
        subject: &[u8],
        batch: Option<u64>,
        msgs: &M,
    ) -> Result<Rule<Counter>, M::Miss> {
        if let Some((_, c)) = self.counters.get(subject) {
            return Ok(Ok(c.clone()));
        }
        if self.tail_removes(batch, msgs) {
            return Ok(Err(Verdict::Wait));
        }
        let Some(last) = msgs.subject(subject)?.map(|t| t.last) else { return Ok(Ok(Counter::default())) };
        let Some(m) = msgs.get(last)? else { return Ok(Ok(Counter::default())) };
        Ok(Counter::read(&m.headers, &m.payload).map_err(Verdict::refuse))
    }

    /// A message of the stream that this one mirrors, as [`Stream::mirrored`] takes it, unless a limit refuses it: then the answer is the error, and it has to come
    /// again before any behind it. Its own time to live counts where this stream allows one.
    pub fn copied<'a, M: Messages>(
        &'a mut self,
        m: &'a mut Stored,
        msgs: &M,
    ) -> Result<Decision<'a>, M::Miss> {
        if self.holding > 0 || self.unfinished {
            return Ok(Decision::Wait);
        }
        if m.seq > self.given {
            let refused =
                |error| Ok(Decision::Answer { answers: [Some(Answer::Error(error)), None], after: 0 });
            let asked = Asked::parse(&m.headers);
            let ttl = Ttl::parse(asked.ttl).filter(|_| self.config.allow_msg_ttl);
            m.expires = ttl.and_then(|ttl| ttl.expires(m.time));
            let (subject, headers, payload) = (&*m.subject, &*m.headers, &*m.payload);
            if !self.fits(&Publish { subject, headers, payload, from: From::Source, ..Publish::default() }) {
                return refused(errors::STREAM_MESSAGE_EXCEEDS_MAXIMUM.error());
            }
            let bytes = size(self.config.storage, subject.len(), headers.len(), payload.len());
            if self.config.discard == Discard::New {
                match self.room(subject, bytes, asked.rollup(), None, msgs)? {
                    Err(Verdict::Refuse { error, .. }) => return refused(error),
                    Err(_) => return Ok(Decision::Wait),
                    Ok(()) => {}
                }
            }
        }
        Ok(self.mirrored(m))
    }

    /// Whether a stream that refuses the new has room.
    fn room<M: Messages>(
        &self,
        subject: &[u8],
        bytes: u64,
        rollup: Rollup,
        batch: Option<u64>,
        msgs: &M,
    ) -> Result<Rule<()>, M::Miss> {
        let c = &self.config;
        let limit = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
        let (max_msgs, max_bytes, per) =
            (limit(c.max_msgs), limit(c.max_bytes), limit(c.max_msgs_per_subject));
        let per_counts = per.filter(|_| c.discard_new_per_subject && rollup == Rollup::None);
        if max_msgs.is_none() && max_bytes.is_none() && per_counts.is_none() {
            return Ok(Ok(()));
        }
        let t = msgs.totals();
        let tail = self.tail.len() as u64;
        // Nothing that the tail or a command does makes less room than this.
        let roomy = max_msgs.is_none_or(|max| t.msgs + tail < max)
            && max_bytes.is_none_or(|max| t.bytes + self.tail.bytes() + bytes <= max);
        if roomy && per_counts.is_none() {
            return Ok(Ok(()));
        }
        let stored = msgs.subject(subject)?;
        let have = stored.map_or(0, |s| s.msgs);
        if roomy && per_counts.is_some_and(|max| have + self.tail.count(subject) < max) {
            return Ok(Ok(()));
        }
        if self.unsettled(batch) {
            return Ok(Err(Verdict::Wait));
        }
        let failed = |text: &str| Ok(Err(Verdict::refuse(errors::STREAM_STORE_FAILED.with(text))));
        if tail > 0 {
            // Later messages of a batch: what it replaces itself makes no room for it.
            return if max_msgs.is_some_and(|max| t.msgs + tail >= max) {
                failed("maximum messages exceeded")
            } else if max_bytes.is_some_and(|max| t.bytes + self.tail.bytes() + bytes > max) {
                failed("maximum bytes exceeded")
            } else {
                failed("maximum messages per subject exceeded")
            };
        }
        // A subject that is full gives a message of its own for the new one.
        let replaces = per.is_some_and(|max| have >= max);
        if per_counts.is_some() && replaces {
            return failed("maximum messages per subject exceeded");
        }
        if max_msgs.is_some_and(|max| t.msgs >= max) && !replaces {
            return failed("maximum messages exceeded");
        }
        if max_bytes.is_some_and(|max| t.bytes + bytes > max) {
            let first = match stored {
                Some(s) if replaces => msgs.meta(s.first)?.map_or(0, |m| m.size),
                _ => 0,
            };
            if !replaces || first < bytes {
                return failed("maximum bytes exceeded");
            }
        }
        Ok(Ok(()))
    }
}

/// A header block that is copied when it is first changed.
struct Block<'a> {
    new: bool,
    given: &'a [u8],
    own: &'a mut Vec<u8>,
}

impl Block<'_> {
    fn edit(&mut self) -> &mut Vec<u8> {
        if !self.new {
            self.new = true;
            self.own.clear();
            self.own.extend_from_slice(self.given);
        }
        self.own
    }

    fn bytes(&self) -> &[u8] {
        if self.new { self.own } else { self.given }
    }
}
