//! What time makes due: expiry by age or time to live, delete markers, schedules.
//!
//! Owns what the leader does when a deadline has come; the effect is an entry of the log. While what was made due is on its way, nothing
//! is made due again.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::decide::Verdict;
use super::{Stream, draw};
use crate::command::Command;
use crate::headers::{self, Asked, Ttl};
use crate::messages::{Messages, Now, Stored};
use crate::publish::{From, Publish};
use crate::schedule;
use crate::time::{SECOND, duration, rfc3339};

/// So many messages expire, or are produced, at a time.
const BATCH: usize = 1000;
/// So many messages go with one expiry.
const EXPIRE_MAX: u64 = 100_000;

/// When there is something to do, if ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Deadlines {
    /// For [`Stream::due`], nanoseconds since 1970.
    pub wall: Option<i64>,
    /// For [`Stream::tick`], on the monotonic clock.
    pub mono: Option<u64>,
}

/// What is due.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Due {
    /// Messages that have joined the tail and go into the open batch.
    pub entries: Vec<Stored>,
    /// A control entry to propose, behind them. It has been noted as [`Stream::proposed`].
    pub command: Option<Command>,
}

struct Produced {
    subject: Bytes,
    headers: Vec<u8>,
    payload: Bytes,
}

impl Stream {
    fn due_under_way(&self) -> bool {
        self.expire_sent || self.due_upto > self.applied
    }

    /// When there is something to do. While something is on its way there is no wall deadline: ask again when it has been applied.
    pub fn deadlines<M: Messages>(&self, msgs: &M) -> Result<Deadlines, M::Miss> {
        let mono = self.batches.deadline();
        if self.due_under_way() {
            return Ok(Deadlines { wall: None, mono });
        }
        let by_age = self.first_by_age(msgs)?.map(|(_, time)| time.saturating_add(self.config.max_age));
        let by_ttl = self.expiring.first().map(|(at, _)| *at);
        // Under load ids leave as messages come; this is for when none come any more.
        let ids = self.dedup.newest().map(|t| t.saturating_add(self.config.duplicate_window));
        let wall = [by_age, by_ttl, self.schedules.first(), ids].into_iter().flatten().min();
        Ok(Deadlines { wall, mono })
    }

    /// The first message that age can remove, and its time.
    fn first_by_age<M: Messages>(&self, msgs: &M) -> Result<Option<(u64, i64)>, M::Miss> {
        if self.config.max_age <= 0 || self.config.sealed {
            return Ok(None);
        }
        let mut from = self.ageless;
        while let Some(seq) = msgs.next(&[], from)? {
            let Some(meta) = msgs.meta(seq)? else { break };
            if meta.expires != Some(i64::MAX) {
                return Ok(Some((seq, meta.time)));
            }
            from = seq + 1;
        }
        Ok(None)
    }

    /// Does what is due, as the leader. Its entries are in the tail; if anything came out, more may be due when it has been applied. On a
    /// miss nothing was changed.
    pub fn due<M: Messages>(&mut self, now: Now, msgs: &M) -> Result<Due, M::Miss> {
        let mut due = Due::default();
        self.dedup.expire(now.wall.saturating_sub(self.config.duplicate_window).min(self.given_time));
        if self.due_under_way()
            || self.holding > 0
            || self.unfinished
            || self.config.is_mirror() && self.config.max_age == 0 && !self.config.allow_msg_ttl
        {
            return Ok(due);
        }
        let mut removed = Vec::new();
        let mut produced = Vec::new();
        self.forget_gone(now.wall, msgs)?;
        if self.config.subject_delete_marker_ttl > 0 {
            self.markers(now.wall, msgs, &mut removed, &mut produced)?;
        } else if let Some(at) = self.expires_upto(now.wall, msgs)? {
            due.command = Some(Command::Expire { at });
        }
        let fired = self.fire(now.wall, msgs, &mut produced)?;
        let mark = self.mark();
        for p in &produced {
            let asked = Asked::parse(&p.headers);
            let publish = Publish {
                subject: &p.subject,
                headers: &p.headers,
                payload: &p.payload,
                from: From::Stream,
                ..Publish::default()
            };
            // What the limits refuse is not tried again before something changes: a schedule that cannot fire would try for ever.
            let verdict = match self.check(&publish, &asked, None, msgs, now) {
                Ok(verdict) => verdict,
                Err(miss) => {
                    self.roll_back(mark);
                    return Err(miss);
                }
            };
            match verdict {
                Verdict::Accept(a) => {
                    let e = self.entry(&publish, &a);
                    due.entries.push(Stored {
                        seq: e.seq,
                        time: e.time,
                        expires: e.expires,
                        subject: p.subject.clone(),
                        headers: Bytes::copy_from_slice(e.headers),
                        payload: p.payload.clone(),
                    });
                }
                Verdict::Wait => {
                    // All of it again when the tail has been applied.
                    self.roll_back(mark);
                    self.due_upto = self.given;
                    return Ok(Due::default());
                }
                Verdict::Refuse { .. } | Verdict::Duplicate { .. } => {}
            }
        }
        for subject in fired {
            // A repeating one gets its next time when what it produced is applied.
            self.schedules.fired(&subject);
        }
        if !removed.is_empty() {
            removed.sort_unstable();
            due.command = Some(Command::Remove { seqs: removed });
        }
        if let Some(command) = &due.command {
            self.proposed(command);
            self.expire_sent = matches!(command, Command::Expire { .. });
        }
        if !due.entries.is_empty() {
            self.due_upto = self.given;
        }
        Ok(due)
    }

    /// Drops from what expires, and has to by now, what is not there any more: other things than time have removed it. Whether it is in
    /// the list makes no difference to any entry.
    fn forget_gone<M: Messages>(&mut self, now: i64, msgs: &M) -> Result<(), M::Miss> {
        let mut gone = Vec::new();
        for (at, seq) in self.expiring.iter().take_while(|(at, _)| *at <= now) {
            if msgs.meta(*seq)?.is_some() {
                break;
            }
            gone.push((*at, *seq));
        }
        for entry in gone {
            self.expiring.remove(&entry);
        }
        Ok(())
    }

    /// The time up to which messages are to expire now: so that not too many go at once.
    fn expires_upto<M: Messages>(&self, now: i64, msgs: &M) -> Result<Option<i64>, M::Miss> {
        let age = self.config.max_age;
        let by_ttl = self.expiring.first().is_some_and(|(at, _)| *at <= now);
        let by_age = self.first_by_age(msgs)?.filter(|(_, time)| time.saturating_add(age) <= now);
        let Some((seq, _)) = by_age else { return Ok(by_ttl.then_some(now)) };
        let far = match msgs.next(&[], seq + EXPIRE_MAX)? {
            Some(far) => msgs.meta(far)?.map_or(i64::MAX, |m| m.time),
            None => i64::MAX,
        };
        Ok(Some(now.min(far.saturating_add(age))))
    }

    /// What expires in a stream that leaves markers: the only message of a subject gives way to a marker, others just go.
    fn markers<M: Messages>(
        &self,
        now: i64,
        msgs: &M,
        removed: &mut Vec<u64>,
        produced: &mut Vec<Produced>,
    ) -> Result<(), M::Miss> {
        let mut seqs: Vec<u64> = Vec::new();
        if let Some((first, _)) = self.first_by_age(msgs)? {
            let mut from = first;
            while let Some(seq) = msgs.next(&[], from)?
                && seqs.len() < BATCH
            {
                let Some(meta) = msgs.meta(seq)? else { break };
                if meta.time.saturating_add(self.config.max_age) > now {
                    break;
                }
                if meta.expires != Some(i64::MAX) {
                    seqs.push(seq);
                }
                from = seq + 1;
            }
        }
        let by_ttl = self.expiring.iter().take_while(|(at, _)| *at <= now).take(BATCH);
        seqs.extend(by_ttl.map(|(_, seq)| *seq));
        seqs.sort_unstable();
        seqs.dedup();
        // A subject that keeps an older message, which lives longer, has not ended.
        let mut going: BTreeMap<Bytes, u64> = BTreeMap::new();
        for seq in seqs {
            let Some(meta) = msgs.meta(seq)? else { continue };
            let going = going.entry(meta.subject.clone()).or_default();
            *going += 1;
            let ends = msgs.subject(&meta.subject)?.is_none_or(|t| t.msgs <= *going)
                && self.tail.last(&meta.subject).is_none();
            let marks = ends && !msgs.get(seq)?.is_some_and(|m| Asked::parse(&m.headers).is_marker());
            if !marks {
                removed.push(seq);
                continue;
            }
            let mut block = Vec::new();
            let ttl = self.config.subject_delete_marker_ttl / SECOND * SECOND;
            headers::add(&mut block, headers::MARKER_REASON, b"MaxAge");
            headers::add(&mut block, headers::TTL, duration(ttl).as_bytes());
            headers::add(&mut block, headers::ROLLUP, b"sub");
            produced.push(Produced { subject: meta.subject, headers: block, payload: Bytes::new() });
        }
        Ok(())
    }

    /// What schedules produce; the subjects of those that fired.
    fn fire<M: Messages>(
        &mut self,
        now: i64,
        msgs: &M,
        produced: &mut Vec<Produced>,
    ) -> Result<Vec<Bytes>, M::Miss> {
        let due: Vec<(i64, Bytes)> =
            self.schedules.by_time.iter().take_while(|(at, _)| *at <= now).take(BATCH).cloned().collect();
        let mut ready = Vec::new();
        let (mut fired, mut gone) = (Vec::new(), Vec::new());
        for (at, subject) in due {
            let seq = self.schedules.by_subject.get(&subject).map_or(0, |(seq, _)| *seq);
            let Some(m) = msgs.get(seq)? else {
                // Removed by other means; whether it is in the list makes no difference to any entry.
                gone.push(subject);
                continue;
            };
            fired.push(subject.clone());
            let asked = Asked::parse(&m.headers);
            let Ok(Some(next)) = schedule::next(&asked, at, now) else { continue };
            if Ttl::parse(asked.schedule_ttl).is_none() || asked.schedule_target.is_empty() {
                continue;
            }
            // The content is the schedule's own, or that of its source's last message if there is one.
            let mut content = m.clone();
            if !asked.schedule_source.is_empty()
                && let Some(t) = msgs.subject(asked.schedule_source)?
                && let Some(last) = msgs.get(t.last)?
            {
                content = last;
            }
            let mut block = content.headers.to_vec();
            headers::remove(&mut block, |n| {
                n.starts_with(b"Nats-Schedule")
                    || n.starts_with(b"Nats-Expected-")
                    || n == headers::MSG_ID
                    || n == headers::TTL
                    || n == headers::ROLLUP
            });
            headers::add(&mut block, headers::SCHEDULER, &subject);
            let again = if next.again { rfc3339(next.at) } else { "purge".to_owned() };
            headers::add(&mut block, headers::SCHEDULE_NEXT, again.as_bytes());
            if !asked.schedule_ttl.is_empty() {
                headers::add(&mut block, headers::TTL, asked.schedule_ttl);
            }
            if !asked.schedule_rollup.is_empty() {
                headers::add(&mut block, headers::ROLLUP, asked.schedule_rollup);
            }
            ready.push((seq, Bytes::copy_from_slice(asked.schedule_target), block, content.payload));
        }
        for subject in gone {
            self.schedules.remove(&subject);
        }
        // In the order in which the schedules were stored.
        ready.sort_by_key(|(seq, ..)| *seq);
        for (_, target, headers, payload) in ready {
            let mut out = Vec::new();
            let lot = &mut self.lot;
            let renamed =
                self.transform.as_ref().is_some_and(|t| t.apply(&target, |n| draw(lot, n), &mut out));
            let subject = if renamed { out.into() } else { target };
            produced.push(Produced { subject, headers, payload });
        }
        Ok(fired)
    }
}
