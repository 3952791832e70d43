//! What applying an entry does.
//!
//! Owns the effects: what a message or a control entry removes, and what is remembered of it. Everything here depends only on the log
//! (J-4). What is to be removed stands in a list until it is: a miss leaves the rest there, and the call is repeated.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{SourceAt, Stream};
use crate::command::{Command, Control};
use crate::config::{Discard, Retention, StreamConfig};
use crate::headers::{self, Asked, Rollup};
use crate::messages::{Messages, MessagesMut};
use crate::publish::Entry;
use crate::{schedule, source};

/// What the consumers of the stream still need. Asked only for streams whose retention is interest or work queue, and must depend on
/// nothing but the entries that are applied.
pub trait Interest {
    /// Whether any consumer would be given a message of this subject.
    fn wanted(&self, subject: &[u8]) -> bool;
    /// Whether any consumer that would be given this message has not acknowledged it.
    fn needed(&self, seq: u64, subject: &[u8]) -> bool;
}

/// No consumers at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NoConsumers;

impl Interest for NoConsumers {
    fn wanted(&self, _: &[u8]) -> bool {
        false
    }
    fn needed(&self, _: u64, _: &[u8]) -> bool {
        false
    }
}

/// What came of a control entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// How many messages it removed.
    pub removed: u64,
}

/// Something that is to be removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Todo {
    /// A subject's messages before a sequence.
    Subject { subject: Bytes, below: u64 },
    /// All messages before a sequence.
    Below(u64),
    /// What the subject of the message with this number has too many of; it stands there among the subjects.
    PerSubject { seq: u64, at: u64, len: u32 },
    /// What any subject has too many of.
    EverySubject,
    /// A message, if nobody wants it.
    Unwanted { seq: u64, subject: Bytes },
    /// Messages that nobody needs any more, from a sequence to another.
    Unneeded { from: u64, to: u64 },
}

/// How far a control entry is that met a miss.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Progress {
    begun: bool,
    /// Live messages when it began.
    before: u64,
    /// Where to go on.
    cursor: u64,
    /// How many more it may remove.
    left: u64,
}

impl Stream {
    /// A message of the log is now in the store. To be called for each message of an entry, in order, and followed by
    /// [`Stream::enforce`] before the next entry.
    ///
    /// # Panics
    /// If its sequence is not above all that are applied (J-2).
    pub fn applied(&mut self, m: &Entry<'_>) {
        assert!(m.seq > self.applied, "J-2: sequence {} applied after {}", m.seq, self.applied);
        self.applied = m.seq;
        self.applied_time = m.time;
        self.unfinished = true;
        self.tail.applied(m.seq);
        if m.seq > self.given {
            self.given = m.seq;
            self.given_time = m.time;
        }
        if !self.counters.is_empty() && self.counters.get(m.subject).is_some_and(|(seq, _)| *seq <= m.seq) {
            self.counters.remove(m.subject);
        }
        let sole_id = headers::sole_id(m.headers);
        let says_more = !m.headers.is_empty() && sole_id.is_none();
        let asked = says_more.then(|| Asked::parse(m.headers));
        let id = sole_id.or(asked.as_ref().map(|a| a.msg_id)).unwrap_or_default();
        if !(id.is_empty() && self.last_id.is_empty()) {
            self.last_id.clear();
            self.last_id.extend_from_slice(id);
        }
        if self.given == m.seq {
            self.given_id.clone_from(&self.last_id);
        }
        if self.config.duplicate_window > 0 && !self.config.is_mirror() {
            self.dedup.expire(m.time.saturating_sub(self.config.duplicate_window));
            // The leader noted it when it decided.
            if !id.is_empty() && self.dedup.last_seq() < m.seq {
                self.dedup.push(id, m.seq, m.time);
            }
        }
        if let Some(expires) = m.expires
            && expires != i64::MAX
        {
            self.expiring.insert((expires, m.seq));
        }
        if let Some(asked) = &asked {
            self.applied_headers(m, asked);
        } else if self.config.allow_msg_schedules {
            self.schedules.remove(m.subject);
        }
        if self.config.max_msgs_per_subject > 0 {
            let (at, len) = (self.todo_subjects.push(m.subject), m.subject.len() as u32);
            self.todo.push_back(Todo::PerSubject { seq: m.seq, at, len });
        }
        if self.config.retention == Retention::Interest {
            self.todo.push_back(Todo::Unwanted { seq: m.seq, subject: Bytes::copy_from_slice(m.subject) });
        }
    }

    fn applied_headers(&mut self, m: &Entry<'_>, asked: &Asked<'_>) {
        if self.config.allow_rollup_hdrs && !self.config.deny_purge {
            match asked.rollup() {
                Rollup::Subject => {
                    let subject = Bytes::copy_from_slice(m.subject);
                    self.todo.push_back(Todo::Subject { subject, below: m.seq });
                }
                Rollup::All => self.todo.push_back(Todo::Below(m.seq)),
                Rollup::None | Rollup::Unknown => {}
            }
            if asked.schedule_next == b"purge" && !asked.scheduler.is_empty() {
                // A target of its own would remove what it has just made.
                let subject = Bytes::copy_from_slice(asked.scheduler);
                self.todo.push_back(Todo::Subject { subject, below: m.seq });
            }
        }
        if self.config.allow_msg_schedules {
            match schedule::next(asked, m.time, m.time) {
                Ok(Some(fires)) => self.schedules.set(m.subject, m.seq, fires.at),
                _ if asked.scheduler.is_empty() => self.schedules.remove(m.subject),
                _ => {}
            }
            if asked.schedule_next == b"purge" {
                self.schedules.remove(asked.scheduler);
            } else if !asked.schedule_next.is_empty()
                && let Some(at) = std::str::from_utf8(asked.schedule_next).ok().and_then(crate::Time::parse)
            {
                self.schedules.again(asked.scheduler, at.ns);
            }
        }
        if !self.config.sources.is_empty()
            && let Some(from) = source::Origin::parse(asked.stream_source)
        {
            let identity = from.identity.unwrap_or_default().to_owned();
            self.sources.insert(from.index_name(), SourceAt { seq: from.seq, identity });
        }
    }

    /// Removes what the limits and the last entry's messages ask for. On a miss the caller fetches and calls again; the next entry comes
    /// only after `Ok` (J-3), and until then every decision is `Wait`.
    pub fn enforce<M: MessagesMut, I: Interest>(
        &mut self,
        msgs: &mut M,
        interest: &I,
    ) -> Result<(), M::Miss> {
        while let Some(todo) = self.todo.front_mut() {
            match todo {
                // A client may publish to a subject that reads as a pattern, and so rolls up what it matches.
                Todo::Subject { subject, below } if subject::has_wildcard(subject) => {
                    let filter = std::slice::from_ref(subject);
                    while let Some(seq) = msgs.next(filter, 0)?.filter(|seq| *seq < *below) {
                        msgs.remove(seq)?;
                    }
                }
                Todo::Subject { subject, below } => {
                    while let Some(t) = msgs.subject(subject)?.filter(|t| t.first < *below) {
                        msgs.remove(t.first)?;
                    }
                }
                Todo::Below(seq) => msgs.remove_below(*seq)?,
                Todo::PerSubject { seq, at, len } => {
                    let max = self.config.max_msgs_per_subject;
                    shrink(msgs, Some(*seq), self.todo_subjects.get(*at, *len as usize), max)?;
                    self.todo_subjects.free_to(*at + u64::from(*len));
                }
                Todo::EverySubject => every_subject(msgs, self.config.max_msgs_per_subject)?,
                Todo::Unwanted { seq, subject } => {
                    if !interest.wanted(subject) {
                        msgs.remove(*seq)?;
                    }
                }
                Todo::Unneeded { from, to } => {
                    while let Some(seq) = msgs.next(&[], *from)?.filter(|seq| *seq <= *to) {
                        if let Some(meta) = msgs.meta(seq)?
                            && !interest.needed(seq, &meta.subject)
                        {
                            msgs.remove(seq)?;
                        }
                        *from = seq + 1;
                    }
                }
            }
            self.todo.pop_front();
        }
        if self.config.discard == Discard::Old {
            let over = |limit: i64, n: u64| u64::try_from(limit).is_ok_and(|limit| limit > 0 && n > limit);
            loop {
                let t = msgs.totals();
                if t.msgs == 0 || !over(self.config.max_msgs, t.msgs) && !over(self.config.max_bytes, t.bytes)
                {
                    break;
                }
                msgs.remove(t.first)?;
            }
        }
        // A command that is still at work says itself when it is done.
        self.unfinished = self.progress.begun;
        Ok(())
    }

    /// A consumer has acknowledged these messages, by an entry of the log: what nobody needs any more goes with the next `enforce`.
    pub fn acked(&mut self, from: u64, to: u64) {
        if self.config.retention != Retention::Limits && from <= to {
            self.todo.push_back(Todo::Unneeded { from, to });
        }
    }

    /// A consumer is gone, or wants other subjects: what only it needed goes with the next `enforce`.
    pub fn interest_changed(&mut self) {
        if self.config.retention == Retention::Interest {
            self.todo.push_back(Todo::Unneeded { from: 0, to: self.applied });
        }
    }

    /// Applies a control entry, then enforces. On a miss the caller fetches and calls again with the same entry. Commands about consumers
    /// change nothing here but, with their effects already applied to `interest`, what is kept.
    pub fn apply_command<M: MessagesMut, I: Interest>(
        &mut self,
        control: &Control,
        msgs: &mut M,
        interest: &I,
    ) -> Result<Outcome, M::Miss> {
        let last = self.totals(msgs).last;
        self.unfinished = true;
        if !self.progress.begun {
            self.progress = Progress { begun: true, before: msgs.totals().msgs, cursor: 0, left: u64::MAX };
            self.begin(control, msgs)?;
        }
        match &control.command {
            Command::Purge { filter, below, keep } => self.purge(filter, *below, *keep, last, msgs)?,
            Command::Delete { seq, .. } => {
                msgs.remove(*seq)?;
            }
            Command::Remove { seqs } => {
                for seq in seqs {
                    msgs.remove(*seq)?;
                }
            }
            Command::Expire { at } => self.expire(*at, msgs)?,
            _ => {}
        }
        self.enforce(msgs, interest)?;
        let removed = self.progress.before.saturating_sub(msgs.totals().msgs);
        self.progress = Progress::default();
        self.unfinished = false;
        self.finish(control, last);
        Ok(Outcome { removed })
    }

    /// What is done once, before anything is removed. Nothing is changed on a miss.
    fn begin<M: Messages>(&mut self, control: &Control, msgs: &M) -> Result<(), M::Miss> {
        match &control.command {
            Command::Config { json, created } => {
                // An entry that cannot be read was written by a newer server; the rules' version keeps that from happening.
                if let Ok(config) = serde_json::from_slice::<StreamConfig>(json) {
                    self.reconfigure(config, *created);
                }
            }
            Command::Purge { filter, keep, .. } if *keep > 0 => {
                let all = if subject::has_wildcard(filter) || filter.is_empty() {
                    let filters = if filter.is_empty() { Vec::new() } else { vec![filter.clone()] };
                    match msgs.pending(&filters, 0) {
                        Ok(n) => n,
                        Err(miss) => {
                            self.progress.begun = false;
                            return Err(miss);
                        }
                    }
                } else {
                    match msgs.subject(filter) {
                        Ok(t) => t.map_or(0, |t| t.msgs),
                        Err(miss) => {
                            self.progress.begun = false;
                            return Err(miss);
                        }
                    }
                };
                self.progress.left = all.saturating_sub(*keep);
            }
            _ => {}
        }
        Ok(())
    }

    fn reconfigure(&mut self, config: StreamConfig, created: i64) {
        let per_subject = |c: &StreamConfig| u64::try_from(c.max_msgs_per_subject).ok().filter(|n| *n > 0);
        let lower = match (per_subject(&self.config), per_subject(&config)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(old), Some(new)) => new < old,
        };
        if lower {
            self.todo.push_back(Todo::EverySubject);
        }
        // A backup holds what somebody needed, perhaps without those who did.
        let to_interest = !self.config.is_restoring()
            && self.config.retention != Retention::Interest
            && config.retention == Retention::Interest;
        if config.duplicate_window == 0 {
            self.dedup.expire(i64::MAX);
        }
        if !config.allow_msg_schedules {
            self.schedules = super::Schedules::default();
        }
        // Where it begins was said when it was made: another first sequence is shown and changes nothing.
        self.created = created;
        self.set_config(config);
        if to_interest {
            self.todo.push_back(Todo::Unneeded { from: 0, to: self.applied });
        }
    }

    fn purge<M: MessagesMut>(
        &mut self,
        filter: &Bytes,
        below: u64,
        keep: u64,
        last: u64,
        msgs: &mut M,
    ) -> Result<(), M::Miss> {
        let all = filter.is_empty() || filter == ">";
        if below == 1 {
            return Ok(());
        }
        if all && (below > 1 || keep == 0) {
            return msgs.remove_below(if below == 0 { last + 1 } else { below });
        }
        let filters = if all { Vec::new() } else { vec![filter.clone()] };
        while self.progress.left > 0 {
            let next = msgs.next(&filters, self.progress.cursor)?;
            let Some(seq) = next.filter(|seq| below == 0 || *seq < below) else { break };
            msgs.remove(seq)?;
            self.progress.cursor = seq + 1;
            self.progress.left -= 1;
        }
        Ok(())
    }

    /// Removes what has expired at a time.
    fn expire<M: MessagesMut>(&mut self, at: i64, msgs: &mut M) -> Result<(), M::Miss> {
        if self.config.max_age > 0 {
            let oldest = at.saturating_sub(self.config.max_age);
            while let Some(seq) = msgs.next(&[], self.ageless)? {
                let Some(meta) = msgs.meta(seq)? else { break };
                if meta.time > oldest {
                    break;
                }
                if meta.expires != Some(i64::MAX) {
                    msgs.remove(seq)?;
                }
                self.ageless = seq + 1;
            }
        }
        while let Some((expires, seq)) = self.expiring.first().copied().filter(|(expires, _)| *expires <= at)
        {
            msgs.remove(seq)?;
            self.expiring.remove(&(expires, seq));
        }
        Ok(())
    }

    /// What is done once, when nothing is left to remove.
    fn finish(&mut self, control: &Control, last: u64) {
        match &control.command {
            Command::Purge { filter, below, .. } => {
                let all = filter.is_empty() || filter == ">";
                if all && *below > last + 1 {
                    self.advance(below - 1);
                }
            }
            Command::Advance { last } => self.advance(*last),
            Command::Expire { .. } => self.expire_sent = false,
            _ => {}
        }
        let counted = match &control.command {
            Command::ConsumerDelta { .. }
            | Command::ConsumerDeltas { .. }
            | Command::ConsumerCreate { .. }
            | Command::ConsumerRestore { .. }
            | Command::ConsumerUpdate { .. }
            | Command::ConsumerDelete { .. } => self.config.retention != Retention::Limits,
            _ => true,
        };
        if counted {
            self.command_applied();
        }
    }
}

/// Removes a subject's oldest messages until it has no more than `max`; `of` is one of its messages, if that is known.
fn shrink<M: MessagesMut>(msgs: &mut M, of: Option<u64>, subject: &[u8], max: i64) -> Result<(), M::Miss> {
    let Some(max) = u64::try_from(max).ok().filter(|n| *n > 0) else { return Ok(()) };
    let totals = |msgs: &M| match of {
        Some(seq) => msgs.subject_of(seq, subject),
        None => msgs.subject(subject),
    };
    while let Some(t) = totals(msgs)?.filter(|t| t.msgs > max) {
        msgs.remove(t.first)?;
        // As a rule one goes as one comes: it need not be asked for again.
        if t.msgs == max + 1 {
            break;
        }
    }
    Ok(())
}

/// Shrinks all subjects, some at a time: what is gathered stays small.
fn every_subject<M: MessagesMut>(msgs: &mut M, max: i64) -> Result<(), M::Miss> {
    let Some(limit) = u64::try_from(max).ok().filter(|n| *n > 0) else { return Ok(()) };
    loop {
        let mut large: VecDeque<Bytes> = VecDeque::new();
        msgs.subjects(b">", &mut |subject, t| {
            if t.msgs > limit {
                large.push_back(Bytes::copy_from_slice(subject));
            }
            large.len() < 1024
        })?;
        if large.is_empty() {
            return Ok(());
        }
        for subject in large {
            shrink(msgs, None, &subject, max)?;
        }
    }
}

/// Writes the headers of a republished message: what it had, and where it stands. `last` is the sequence of the message of its subject
/// before it, 0 if there is none. `left_out` says that the payload is not sent.
pub fn republish_headers(stream: &str, m: &Entry<'_>, last: u64, left_out: bool, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(m.headers);
    let time = crate::time::rfc3339(m.time);
    let subject = String::from_utf8_lossy(m.subject);
    headers::add(out, b"Nats-Stream", stream.as_bytes());
    headers::add(out, b"Nats-Subject", subject.as_bytes());
    headers::add(out, b"Nats-Sequence", m.seq.to_string().as_bytes());
    headers::add(out, b"Nats-Time-Stamp", time.as_bytes());
    headers::add(out, b"Nats-Last-Sequence", last.to_string().as_bytes());
    if left_out {
        headers::add(out, b"Nats-Msg-Size", m.payload.len().to_string().as_bytes());
    }
}
