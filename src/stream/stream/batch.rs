//! Atomic and fast batches.
//!
//! Owns what is staged of atomic batches, and where fast ones stand. Both live in the leader's memory: nothing of an atomic batch is
//! promised before its commit, and a fast batch's acknowledgements are for messages that are in the log. A batch that nothing is heard
//! of is given up.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

use super::Stream;
use super::decide::Verdict;
use crate::errors::{self, ApiError};
use crate::headers::{self, Asked};
use crate::messages::{Messages, Now, Stored};
use crate::publish::{Abandoned, Answer, Decision, From, Publish};

/// A batch's id may be so long, bytes.
const ID_MAX: usize = 64;
/// A fast batch is told to wait for an acknowledgement after at most so many messages.
const FLOW_MAX: u16 = 500;

/// The batches that are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Batches {
    pub atomic: BTreeMap<String, Atomic>,
    pub fast: BTreeMap<String, FastState>,
}

/// What is staged of an atomic batch.
#[derive(Clone, Debug)]
pub(super) struct Atomic {
    /// The last message of the batch that has come.
    last: u64,
    messages: Vec<Staged>,
    bytes: usize,
    /// Monotonic.
    deadline: u64,
}

#[derive(Clone, Debug)]
struct Staged {
    subject: Bytes,
    headers: Bytes,
    payload: Bytes,
}

/// Where a fast batch stands.
#[derive(Clone, Debug)]
pub(super) struct FastState {
    /// The last message of the batch that has come.
    last: u64,
    /// Up to where flow was acknowledged, in the batch.
    acked: u64,
    /// The stream's sequence of its last message.
    stored: u64,
    /// An acknowledgement comes after so many messages.
    every: u16,
    /// The client wants one at least so often.
    every_max: u16,
    gap_ok: bool,
    /// Monotonic.
    deadline: u64,
}

impl Batches {
    /// When the first batch is given up, monotonic.
    pub fn deadline(&self) -> Option<u64> {
        let atomic = self.atomic.values().map(|b| b.deadline);
        atomic.chain(self.fast.values().map(|b| b.deadline)).min()
    }
}

/// What a message's reply subject says about its fast batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fast<'a> {
    /// It cannot be understood.
    Bad,
    Message(FastMessage<'a>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FastMessage<'a> {
    id: &'a [u8],
    seq: u64,
    flow: u16,
    gap_ok: bool,
    op: Op,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Start,
    Append,
    Commit,
    CommitEnd,
    Ping,
}

#[derive(Deserialize)]
struct RequestInfo<'a> {
    #[serde(borrow, default)]
    reply: std::borrow::Cow<'a, str>,
}

impl<'a> Fast<'a> {
    /// `<prefix>.<id>.<flow>.<ok or fail>.<seq>.<op>.$FI`. Across accounts the reply subject is the server's own, and the client's stands in
    /// the request info. `None` if it is no fast batch.
    pub fn parse(reply: &'a [u8], request_info: Option<&'a [u8]>) -> Option<Fast<'a>> {
        let reply = if reply.len() > 4 && reply.ends_with(b".$FI") {
            reply
        } else {
            let info: RequestInfo<'a> = serde_json::from_slice(request_info?).ok()?;
            match info.reply {
                std::borrow::Cow::Borrowed(r) if r.len() > 4 && r.ends_with(".$FI") => r.as_bytes(),
                _ => return None,
            }
        };
        Some(Fast::parse_reply(&reply[..reply.len() - 4]).map_or(Fast::Bad, Fast::Message))
    }

    fn parse_reply(reply: &'a [u8]) -> Option<FastMessage<'a>> {
        let mut from_behind = reply.rsplitn(6, |b| *b == b'.');
        let op = match from_behind.next()? {
            b"0" => Op::Start,
            b"1" => Op::Append,
            b"2" => Op::Commit,
            b"3" => Op::CommitEnd,
            b"4" => Op::Ping,
            _ => return None,
        };
        let seq = headers::number(from_behind.next()?).filter(|n| *n != 0 && *n != u64::MAX)?;
        let fits = match op {
            Op::Start => seq == 1,
            Op::Append | Op::CommitEnd => seq > 1,
            Op::Commit | Op::Ping => true,
        };
        if !fits {
            return None;
        }
        let gap_ok = match from_behind.next()? {
            b"ok" => true,
            b"fail" => false,
            _ => return None,
        };
        let flow = match headers::number(from_behind.next()?) {
            None | Some(0) => 10,
            Some(n) => u16::try_from(n).unwrap_or(u16::MAX),
        };
        let id = from_behind.next()?;
        // There is something before the id.
        from_behind.next()?;
        Some(FastMessage { id, seq, flow, gap_ok, op })
    }
}

/// Where the rules stood before a batch was decided.
pub(super) struct Mark {
    tail: usize,
    given: u64,
    time: i64,
    id: Vec<u8>,
    counters: BTreeMap<Bytes, (u64, crate::counter::Counter)>,
}

impl Stream {
    pub(super) fn mark(&self) -> Mark {
        Mark {
            tail: self.tail.len(),
            given: self.given,
            time: self.given_time,
            id: self.given_id.clone(),
            counters: self.counters.clone(),
        }
    }

    pub(super) fn roll_back(&mut self, mark: Mark) {
        self.tail.truncate(mark.tail);
        self.dedup.truncate(mark.given);
        self.given = mark.given;
        self.given_time = mark.time;
        self.given_id = mark.id;
        self.counters = mark.counters;
    }

    fn say<'a>(&self, p: &Publish<'_>, answer: Answer, after: u64) -> Decision<'a> {
        Decision::Answer { answers: [self.answers(p).then_some(answer), None], after }
    }

    fn refuse<'a>(&self, p: &Publish<'_>, error: impl Into<ApiError>) -> Decision<'a> {
        self.say(p, Answer::Error(error.into()), 0)
    }

    fn give_up(&mut self, id: &str, reason: Abandoned) {
        self.batches.atomic.remove(id);
        self.abandoned.push((id.to_owned(), reason));
    }

    /// What both kinds are asked first.
    fn may_batch(&self, p: &Publish<'_>) -> Result<(), errors::Known> {
        if self.config.sealed {
            return Err(errors::STREAM_SEALED);
        }
        let max = self.config.max_msg_size;
        if max >= 0 && p.headers.len() + p.payload.len() > max as usize {
            return Err(errors::STREAM_MESSAGE_EXCEEDS_MAXIMUM);
        }
        Ok(())
    }

    fn unsupported_level(&self, asked: &Asked<'_>) -> bool {
        let level = asked.required_api_level;
        !level.is_empty() && headers::number(level).is_none_or(|n| n > self.limits.api_level)
    }

    pub(super) fn decide_atomic<'a, M: Messages>(
        &'a mut self,
        p: &Publish<'a>,
        asked: &Asked<'a>,
        msgs: &M,
        now: Now,
    ) -> Result<Decision<'a>, M::Miss> {
        if let Err(e) = self.may_batch(p) {
            return Ok(self.refuse(p, e));
        }
        if !self.config.allow_atomic {
            return Ok(self.refuse(p, errors::ATOMIC_PUBLISH_DISABLED));
        }
        let Some(id) = std::str::from_utf8(asked.batch_id).ok().filter(|id| id.len() <= ID_MAX) else {
            return Ok(self.refuse(p, errors::ATOMIC_PUBLISH_INVALID_BATCH_ID));
        };
        let Some(seq) = headers::number(asked.batch_seq) else {
            return Ok(self.refuse(p, errors::ATOMIC_PUBLISH_MISSING_SEQ));
        };
        let end = asked.batch_commit == Some(b"eob");
        let commit = asked.batch_commit.is_some();
        let invalid_commit = commit && !end && asked.batch_commit != Some(b"1");
        // The mark of the end is no message.
        let count = seq - u64::from(end && seq > 0);
        let too_large = count > self.limits.batch_msgs;
        let large_error = || errors::ATOMIC_PUBLISH_TOO_LARGE_BATCH.with(self.limits.batch_msgs);
        let known = self.batches.atomic.get(id);
        if known.is_none() {
            if seq != 1 {
                let e =
                    if too_large { large_error() } else { errors::ATOMIC_PUBLISH_INCOMPLETE_BATCH.error() };
                return Ok(self.refuse(p, e));
            }
            if self.batches.atomic.len() >= self.limits.atomic_batches || p.no_room_for_batches {
                return Ok(self.refuse(p, errors::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT));
            }
        }
        if invalid_commit {
            self.batches.atomic.remove(id);
            return Ok(self.refuse(p, errors::ATOMIC_PUBLISH_INVALID_BATCH_COMMIT));
        }
        if self.unsupported_level(asked) {
            self.give_up(id, Abandoned::Unsupported);
            return Ok(self.refuse(p, errors::REQUIRED_API_LEVEL));
        }
        let (last, deadline) = known.map_or((0, u64::MAX), |b| (b.last, b.deadline));
        if seq != last + 1 || deadline <= now.mono || seq == 1 && end {
            self.give_up(id, Abandoned::Incomplete);
            return Ok(self.refuse(p, errors::ATOMIC_PUBLISH_INCOMPLETE_BATCH));
        }
        if too_large {
            let e = large_error();
            self.give_up(id, Abandoned::Large);
            return Ok(self.refuse(p, e));
        }
        let mut staged = p.headers.to_vec();
        if !asked.required_api_level.is_empty() {
            headers::remove(&mut staged, |n| n == headers::REQUIRED_API_LEVEL);
        }
        let size = p.subject.len() + staged.len() + p.payload.len();
        let staged = Staged {
            subject: Bytes::copy_from_slice(p.subject),
            headers: staged.into(),
            payload: Bytes::copy_from_slice(p.payload),
        };
        if commit {
            let mut messages = self.batches.atomic.get(id).map(|b| b.messages.clone()).unwrap_or_default();
            if !end {
                messages.push(staged);
            }
            return self.commit(p, id, messages, end, msgs, now);
        }
        let held: usize = self.batches.atomic.values().map(|b| b.bytes).sum();
        if held + size > self.limits.batch_bytes {
            self.give_up(id, Abandoned::Large);
            return Ok(self.refuse(p, errors::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT));
        }
        let deadline = now.mono.saturating_add(self.limits.batch_timeout);
        let b = self.batches.atomic.entry(id.to_owned()).or_insert_with(|| Atomic {
            last: 0,
            messages: Vec::new(),
            bytes: 0,
            deadline,
        });
        b.last = seq;
        b.bytes += size;
        b.messages.push(staged);
        b.deadline = deadline;
        Ok(self.say(p, Answer::Empty, 0))
    }

    /// Decides all messages of a batch; all join the tail, or none.
    fn commit<'a, M: Messages>(
        &mut self,
        p: &Publish<'a>,
        id: &str,
        messages: Vec<Staged>,
        end: bool,
        msgs: &M,
        now: Now,
    ) -> Result<Decision<'a>, M::Miss> {
        let mark = self.mark();
        let first = self.given + 1;
        let after = self.tail_end();
        let mut entries = Vec::with_capacity(messages.len());
        let count = messages.len();
        for (i, m) in messages.into_iter().enumerate() {
            let asked = Asked::parse(&m.headers);
            let message = Publish {
                subject: &m.subject,
                headers: &m.headers,
                payload: &m.payload,
                ..Publish::default()
            };
            let verdict = if asked.expected_last_msg_id.is_empty() {
                self.check(&message, &asked, Some(first), msgs, now)
            } else {
                let name = String::from_utf8_lossy(headers::EXPECTED_LAST_MSG_ID);
                let error = errors::ATOMIC_PUBLISH_UNSUPPORTED_HEADER_BATCH.with(name);
                Ok(Verdict::Refuse { error, on_tail: false })
            };
            let verdict = match verdict {
                Ok(v) => v,
                Err(miss) => {
                    self.roll_back(mark);
                    return Err(miss);
                }
            };
            match verdict {
                Verdict::Accept(a) => {
                    let entry = self.entry(&message, &a);
                    let mut block = entry.headers.to_vec();
                    if end && i + 1 == count {
                        headers::add(&mut block, headers::BATCH_COMMIT, b"1");
                    }
                    entries.push(Stored {
                        seq: a.seq,
                        time: a.time,
                        expires: a.expires,
                        subject: if a.new_subject {
                            Bytes::copy_from_slice(entry.subject)
                        } else {
                            m.subject.clone()
                        },
                        payload: if a.new_payload {
                            Bytes::copy_from_slice(entry.payload)
                        } else {
                            m.payload.clone()
                        },
                        headers: block.into(),
                    });
                }
                Verdict::Refuse { error, on_tail } => {
                    self.roll_back(mark);
                    self.batches.atomic.remove(id);
                    return Ok(self.say(p, Answer::Error(error), if on_tail { after } else { 0 }));
                }
                Verdict::Duplicate { .. } => {
                    unreachable!("a duplicate within a batch is refused as such")
                }
                Verdict::Wait => {
                    self.roll_back(mark);
                    return Ok(Decision::Wait);
                }
            }
        }
        self.batches.atomic.remove(id);
        let applied = self.answers(p).then(|| Answer::batch(self.given, false, id, count as u64));
        Ok(Decision::StoreAll { entries, applied })
    }

    /// Notes the next message of an open fast batch, which meets no rule of its own: the acknowledgement that is due at it, if one is. `None`, with nothing
    /// changed, for any other message of a batch: those are decided one rule after another.
    pub(super) fn goes_on(&mut self, p: &Publish<'_>, now: Now) -> Option<Option<Answer>> {
        if p.from != From::Client || !p.headers.is_empty() || !self.config.allow_batched {
            return None;
        }
        let Some(Fast::Message(f)) = Fast::parse(p.reply, None) else { return None };
        let id = std::str::from_utf8(f.id).ok()?;
        let open = self.batches.fast.len();
        let b = self.batches.fast.get_mut(id)?;
        if f.op != Op::Append || f.seq != b.last + 1 || b.deadline <= now.mono {
            return None;
        }
        (b.last, b.stored) = (f.seq, self.given + 1);
        b.deadline = now.mono.saturating_add(self.limits.batch_timeout);
        Some(b.flow(open))
    }

    pub(super) fn decide_fast<'a, M: Messages>(
        &'a mut self,
        p: &Publish<'a>,
        asked: &Asked<'a>,
        fast: Fast<'a>,
        msgs: &M,
        now: Now,
    ) -> Result<Decision<'a>, M::Miss> {
        if let Err(e) = self.may_batch(p) {
            return Ok(self.refuse(p, e));
        }
        if !self.config.allow_batched {
            return Ok(self.refuse(p, errors::BATCH_PUBLISH_DISABLED));
        }
        let Fast::Message(f) = fast else {
            return Ok(self.refuse(p, errors::BATCH_PUBLISH_INVALID_PATTERN));
        };
        let Some(id) = std::str::from_utf8(f.id).ok().filter(|id| id.len() <= ID_MAX) else {
            return Ok(self.refuse(p, errors::BATCH_PUBLISH_INVALID_BATCH_ID));
        };
        let mut b = match self.batches.fast.get(id) {
            Some(b) => b.clone(),
            None => {
                if f.seq != 1 || f.op == Op::Ping {
                    return Ok(self.refuse(p, errors::BATCH_PUBLISH_UNKNOWN_BATCH_ID));
                }
                if self.batches.fast.len() >= self.limits.fast_batches || p.no_room_for_batches {
                    return Ok(self.refuse(p, errors::BATCH_PUBLISH_TOO_MANY_INFLIGHT));
                }
                // Alone, it gets what it wants; else it begins slowly.
                let every = if self.batches.fast.is_empty() { FLOW_MAX.min(f.flow) } else { 1 };
                FastState {
                    last: 0,
                    acked: 0,
                    stored: 0,
                    every,
                    every_max: f.flow,
                    gap_ok: f.gap_ok,
                    deadline: u64::MAX,
                }
            }
        };
        if self.unsupported_level(asked) {
            self.batches.fast.remove(id);
            return Ok(self.refuse(p, errors::REQUIRED_API_LEVEL));
        }
        let expired = b.deadline <= now.mono;
        b.deadline = now.mono.saturating_add(self.limits.batch_timeout);
        let after = self.wait_for(b.stored);
        let open = self.batches.fast.len() + usize::from(!self.batches.fast.contains_key(id));

        if f.op == Op::Ping {
            let mut gap = None;
            let mut flow = None;
            if f.seq > b.last || expired {
                gap = Some(Answer::Gap { last_seq: b.last + 1, seq: f.seq + 1 });
                if !b.gap_ok || expired {
                    let ack = Answer::batch(b.stored, false, id, b.last);
                    self.batches.fast.remove(id);
                    return Ok(Decision::Answer { answers: [gap, Some(ack)], after });
                }
                b.last = f.seq;
                flow = b.flow(open);
            }
            let flow = flow.unwrap_or(Answer::Flow { seq: b.acked, msgs: b.every });
            self.batches.fast.insert(id.to_owned(), b);
            let pair = if gap.is_some() { [gap, Some(flow)] } else { [Some(flow), None] };
            return Ok(Decision::Answer { answers: pair, after });
        }

        let mut first_answer = None;
        if f.seq != b.last + 1 || expired {
            // One that came before is none that is expected either.
            if f.seq != b.last + 1 {
                first_answer = Some(Answer::Gap { last_seq: b.last + 1, seq: f.seq });
            }
            if !b.gap_ok || expired || f.seq <= b.last {
                let ack = Answer::batch(b.stored, false, id, b.last);
                self.batches.fast.remove(id);
                return Ok(Decision::Answer { answers: [first_answer, Some(ack)], after });
            }
        }
        let before = b.last;
        if f.op == Op::CommitEnd {
            // What came before the mark of the end counts, and what is missing before it does not.
            let last = if first_answer.is_some() { f.seq - 1 } else { before };
            self.batches.fast.remove(id);
            let ack = Answer::batch(b.stored, false, id, last);
            return Ok(Decision::Answer { answers: [first_answer, Some(ack)], after });
        }
        b.last = f.seq;
        let commits = f.op == Op::Commit;
        // A stream that acknowledges nothing tells where a batch stands nevertheless; only its beginning it does not.
        if f.seq == 1 && !commits && self.answers(p) {
            first_answer = Some(Answer::Flow { seq: 0, msgs: b.every });
        }
        let mut stripped = Vec::new();
        let mut message = *p;
        if !asked.required_api_level.is_empty() {
            stripped.extend_from_slice(p.headers);
            headers::remove(&mut stripped, |n| n == headers::REQUIRED_API_LEVEL);
            message.headers = &stripped;
        }
        let (error, duplicate) = match self.check(&message, asked, None, msgs, now)? {
            Verdict::Accept(mut a) => {
                b.stored = a.seq;
                let answer = if commits {
                    self.batches.fast.remove(id);
                    Some(Answer::batch(a.seq, false, id, b.last))
                } else {
                    let flow = b.flow(open);
                    self.batches.fast.insert(id.to_owned(), b);
                    flow
                };
                if !asked.required_api_level.is_empty() && !a.new_headers {
                    self.scratch.headers = stripped;
                    a.new_headers = true;
                }
                let [now, applied] = [first_answer, answer];
                return Ok(Decision::Store { entry: self.entry(p, &a), now, applied });
            }
            Verdict::Wait => return Ok(Decision::Wait),
            Verdict::Duplicate { seq } => (None, Some(seq)),
            Verdict::Refuse { error, .. } => (Some(error), None),
        };
        let after = self.tail_end();
        if error.is_none() && !commits {
            // A duplicate is passed over; it moves the flow on.
            let flow = b.flow(open);
            self.batches.fast.insert(id.to_owned(), b);
            let pair = if first_answer.is_some() { [first_answer, flow] } else { [flow, None] };
            return Ok(Decision::Answer { answers: pair, after });
        }
        if error.is_none() && first_answer.is_none() {
            // It does so also where it ends the batch.
            first_answer = b.flow(open);
        }
        if !b.gap_ok && b.last == 1 {
            // At its first message a batch fails as a plain publish does.
            let answer = match (error, duplicate) {
                (Some(e), _) => Answer::Error(e),
                (None, seq) => Answer::batch(seq.unwrap_or_default(), true, id, f.seq),
            };
            self.batches.fast.remove(id);
            let pair =
                if first_answer.is_some() { [first_answer, Some(answer)] } else { [Some(answer), None] };
            return Ok(Decision::Answer { answers: pair, after });
        }
        let count = if error.is_some() { f.seq - 1 } else { f.seq };
        let failed = error.map(|error| Answer::Failed { seq: f.seq, error });
        if b.gap_ok && !commits {
            self.batches.fast.insert(id.to_owned(), b);
            let pair = if first_answer.is_some() { [first_answer, failed] } else { [failed, None] };
            return Ok(Decision::Answer { answers: pair, after });
        }
        let ack = Answer::batch(b.stored, false, id, count);
        self.batches.fast.remove(id);
        let before = failed.or(first_answer);
        let pair = if before.is_some() { [before, Some(ack)] } else { [Some(ack), None] };
        Ok(Decision::Answer { answers: pair, after })
    }

    /// Gives up the batches that nothing was heard of.
    pub fn tick(&mut self, now: Now) {
        let late: Vec<String> = self
            .batches
            .atomic
            .iter()
            .filter(|(_, b)| b.deadline <= now.mono)
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            self.give_up(&id, Abandoned::Timeout);
        }
        self.batches.fast.retain(|_, b| b.deadline > now.mono);
    }
}

impl FastState {
    /// The acknowledgement that is due at the last message, if one is. With more batches each is acknowledged more often, that is, waits more.
    fn flow(&mut self, open: usize) -> Option<Answer> {
        let every = u64::from(self.every);
        if self.last < self.acked + every {
            return None;
        }
        self.acked += (self.last - self.acked) / every * every;
        let share = FLOW_MAX / u16::try_from(open.max(1)).unwrap_or(u16::MAX);
        let most = share.max(1).min(self.every_max);
        if self.every < most {
            self.every = self.every.saturating_mul(2).min(most);
        } else if self.every > most {
            self.every = (self.every / 2).max(most);
        }
        Some(Answer::Flow { seq: self.acked, msgs: self.every })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_subjects_are_read_from_behind() {
        let f = |reply: &'static str| Fast::parse(reply.as_bytes(), None);
        assert_eq!(f("_INBOX.x"), None);
        let Some(Fast::Message(m)) = f("_INBOX.a.b.id.50.ok.7.1.$FI") else { panic!("a message") };
        assert_eq!((m.id, m.seq, m.flow, m.gap_ok, m.op), (&b"id"[..], 7, 50, true, Op::Append));
        for bad in [
            "a.id.50.ok.2.0.$FI",
            "a.id.50.ok.1.1.$FI",
            "a.id.50.maybe.1.0.$FI",
            "a.id.50.ok.0.0.$FI",
            "a.id.50.ok.1.5.$FI",
            "id.50.ok.1.0.$FI",
            "x.$FI",
        ] {
            assert_eq!(f(bad), Some(Fast::Bad), "{bad}");
        }
        let info = br#"{"acc":"A","reply":"_INBOX.x.id.0.fail.1.0.$FI"}"#;
        let Some(Fast::Message(m)) = Fast::parse(b"_R_.abc", Some(info)) else { panic!("a message") };
        assert_eq!((m.id, m.flow, m.gap_ok), (&b"id"[..], 10, false));
    }

    #[test]
    fn flow_speeds_up_alone_and_slows_down_in_company() {
        let mut b =
            FastState { last: 0, acked: 0, stored: 0, every: 1, every_max: 100, gap_ok: false, deadline: 0 };
        let mut acks = Vec::new();
        for n in 1..=40 {
            b.last = n;
            if let Some(Answer::Flow { seq, msgs }) = b.flow(1) {
                acks.push((seq, msgs));
            }
        }
        assert_eq!(acks, [(1, 2), (3, 4), (7, 8), (15, 16), (31, 32)]);
        b.last = 63;
        assert_eq!(b.flow(50), Some(Answer::Flow { seq: 63, msgs: 16 }));
    }
}
