//! Delivering: the loop that brings messages and demand together, and what time brings about.

use bytes::Bytes;

use super::ledger::State;
use super::output::{Advisory, Deliver, Output};
use super::request::Listeners;
use super::{Consumer, HeldOutput};
use crate::{Carried, Messages, Now};

/// The header `Nats-Pin-Id` with a pin, in bytes.
const PIN_HEADER: usize = "Nats-Pin-Id: \r\n".len() + super::pulls::PIN_LEN;

/// A message that may be delivered.
struct Candidate {
    message: Carried,
    /// How often it has been delivered.
    deliveries: u32,
    /// Whether it comes from the queue of redeliveries. Then it has an entry already.
    again: bool,
}

/// Why nothing more is delivered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// There is no message.
    Empty,
    /// There are messages, but as many acks are awaited as may be.
    Full,
}

impl Consumer {
    /// Whether [`Consumer::pump`] would have something to do now, as far as is known without a question to the stream.
    #[inline]
    pub fn ready(&self) -> bool {
        if !self.leading {
            return false;
        }
        if self.held.front().is_some_and(|(number, _)| *number <= self.logging.applied) {
            return true;
        }
        if !self.has_demand() {
            // Who does not wait is to hear that nothing comes while the consumer is paused.
            return self.paused && self.waiting.has_no_wait();
        }
        // A request that does not wait is to hear that there is nothing, too.
        let wanted = self.unseen != Some(0) || self.waiting.has_no_wait();
        !self.again.is_empty() || wanted && self.ledger.len() < self.rules.max_ack_pending
    }

    /// Whether somebody would take a message.
    #[inline]
    fn has_demand(&self) -> bool {
        if self.paused {
            return false;
        }
        if self.rules.pull {
            !self.waiting.is_empty()
        } else {
            self.active && self.flow.as_ref().is_none_or(|f| !f.is_full())
        }
    }

    /// When [`Consumer::pump`] is to be called even if nothing happens, on the monotonic clock (C-4).
    pub fn deadline(&self, now: Now) -> Option<u64> {
        if !self.leading {
            return None;
        }
        let mut due = u64::MAX;
        let mut at = |t: Option<u64>| due = due.min(t.unwrap_or(u64::MAX));
        at(self.timers.due());
        if self.paused {
            at(Some(
                now.mono
                    .saturating_add(self.rules.pause_until.saturating_sub(now.wall).max(0).unsigned_abs()),
            ));
        }
        if self.rules.pull {
            at(self.waiting.due());
            at(self.pin.as_ref().map(|p| p.due));
        } else {
            at(self.heartbeat_due());
        }
        if self.not_before > now.mono && self.has_demand() {
            at(Some(self.not_before));
        }
        at(self.inactive_due());
        (due != u64::MAX).then_some(due)
    }

    /// When the consumer will have been unused for too long.
    fn inactive_due(&self) -> Option<u64> {
        if self.rules.inactive == 0 || self.reported_inactive || !self.rules.pull && self.active {
            return None;
        }
        let busy =
            if self.rules.pull { self.timers.latest().filter(|t| *t != u64::MAX).unwrap_or(0) } else { 0 };
        Some(self.last_used.max(busy).saturating_add(self.rules.inactive))
    }

    /// Does what time has brought about, then delivers up to `budget` messages as long as there are messages and somebody to take them.
    /// Whether the budget was the limit, so that there is more to do; if not, only an event or the deadline makes another call worth while.
    ///
    /// # Errors
    /// What has to be fetched first. What is in `out` by then is to be carried out; then the call is repeated.
    pub fn pump<M: Messages>(
        &mut self,
        msgs: &M,
        listeners: &impl Listeners,
        now: Now,
        budget: usize,
        out: &mut Vec<Output>,
    ) -> Result<bool, M::Miss> {
        if !self.leading {
            return Ok(false);
        }
        self.release(msgs, now, out)?;
        self.tick(now, out);
        let mut stop = None;
        let mut more = false;
        let mut unserved = false;
        for left in (0..budget).rev() {
            if !self.has_demand() {
                break;
            }
            if self.unseen.is_none() {
                self.count(msgs)?;
            }
            let candidate = match self.candidate(msgs, out)? {
                Ok(candidate) => candidate,
                Err(why) => {
                    stop = Some(why);
                    break;
                }
            };
            if !self.may_go(&candidate, now) {
                break;
            }
            if !self.rules.pull {
                self.push(candidate, now, out);
            } else if !self.deliver_to_request(candidate, listeners, now, out) {
                unserved = true;
                break;
            }
            more = left == 0 && self.ready();
        }
        // Where there are messages and none of the requests may have them now, there is nothing for those that do not wait.
        if self.waiting.has_no_wait() && (stop == Some(Stop::Empty) || self.paused || unserved) {
            self.end_of_stream(out);
        }
        Ok(more)
    }

    /// The next message to deliver: one that is to be delivered again, else the next that was not delivered yet.
    #[inline]
    fn candidate<M: Messages>(
        &mut self,
        msgs: &M,
        out: &mut Vec<Output>,
    ) -> Result<Result<Candidate, Stop>, M::Miss> {
        while let Some(&seq) = self.again.front() {
            let Some(e) = self.ledger.get(seq).filter(|e| e.state == State::Queued) else {
                self.again.pop_front();
                continue;
            };
            let deliveries = e.deliveries;
            if self.rules.max_deliver > 0 && deliveries >= self.rules.max_deliver {
                self.again.pop_front();
                self.exceed(seq, out);
                continue;
            }
            match msgs.carried(seq)? {
                Some(message) => return Ok(Ok(Candidate { message, deliveries, again: true })),
                None => {
                    // It left the stream and nobody said so yet.
                    self.again.pop_front();
                    out.extend(self.vanished(seq).map(Output::Advisory));
                }
            }
        }
        if self.ledger.len() >= self.rules.max_ack_pending {
            return Ok(Err(Stop::Full));
        }
        while let Some(seq) = self.ledger.skip.as_ref().and_then(|s| s.peek()) {
            match msgs.carried(seq)? {
                Some(message) => return Ok(Ok(Candidate { message, deliveries: 0, again: false })),
                None => self.ledger.advance_skip(seq),
            }
        }
        let from = self.ledger.next_seq;
        let last = msgs.totals().last;
        if from > last {
            // Exact by definition, whatever was counted before.
            self.unseen = Some(0);
            self.counted = self.counted.max(last);
            return Ok(Err(Stop::Empty));
        }
        if self.rules.filters.is_empty()
            && let Some(message) = msgs.carried(from)?
        {
            return Ok(Ok(Candidate { message, deliveries: 0, again: false }));
        }
        let next = msgs.next(&self.rules.filters, from)?;
        let message = match next {
            Some(seq) => msgs.carried(seq)?,
            None => None,
        };
        match (next, message) {
            (_, Some(message)) => Ok(Ok(Candidate { message, deliveries: 0, again: false })),
            (Some(seq), None) => {
                self.ledger.next_seq = seq + 1;
                Ok(Err(Stop::Empty))
            }
            (None, None) => {
                // Nothing behind here matches: the search need not begin here again.
                self.ledger.next_seq = last + 1;
                self.unseen = Some(0);
                self.counted = self.counted.max(last);
                Ok(Err(Stop::Empty))
            }
        }
    }

    /// Whether a message may be delivered now, by the rate limit and the pace of a replay. If not, `not_before` says when.
    #[inline]
    fn may_go(&mut self, c: &Candidate, now: Now) -> bool {
        let mut from = 0;
        if self.rules.original && !c.again && c.message.seq <= self.replay_upto {
            from = self.replayed.map_or(0, |(at, time)| {
                let pause = c.message.time.saturating_sub(time).max(0).unsigned_abs();
                at.saturating_add(pause)
            });
        }
        if let Some(rate) = &self.rate {
            from = from.max(rate.free_at());
        }
        self.not_before = from;
        from <= now.mono
    }

    /// What a delivery counts for: subject, reply subject, headers and body as the client gets them.
    fn size(&self, c: &Candidate, pin: bool) -> usize {
        let m = &c.message;
        let unseen = self.unseen.unwrap_or(0).saturating_sub(u64::from(!c.again));
        let reply = self.subject.len(u64::from(c.deliveries) + 1, m.seq, self.ledger.dseq, m.time, unseen);
        let body = if self.rules.headers_only {
            let line = "Nats-Msg-Size: \r\n".len()
                + m.payload().len().checked_ilog10().map_or(1, |d| d as usize + 1);
            line + if m.headers().is_empty() { "NATS/1.0\r\n\r\n".len() } else { 0 }
        } else {
            m.payload().len()
        };
        m.subject().len() + reply + m.headers().len() + body + if pin { PIN_HEADER } else { 0 }
    }

    #[inline]
    fn deliver_to_request(
        &mut self,
        c: Candidate,
        listeners: &impl Listeners,
        now: Now,
        out: &mut Vec<Output>,
    ) -> bool {
        let needs_size = self.waiting.front().is_some_and(|w| w.bytes > 0) || self.waiting.len() > 1;
        let size = if needs_size { self.size(&c, false) } else { 0 };
        let Some(choice) = self.next_request(size, listeners, now, out) else { return false };
        self.last_used = now.mono;
        let spent = choice.leftover.map(|left| (choice.to.clone(), left));
        self.deliver(c, choice.to, choice.pin, now, out);
        if let Some((to, (messages, bytes))) = spent {
            self.status_remaining(to, 409, "Batch Completed", messages, bytes, out);
        }
        true
    }

    #[inline]
    fn push(&mut self, c: Candidate, now: Now, out: &mut Vec<Output>) {
        let counts = self.flow.is_some() || self.rate.is_some();
        let size = if counts { self.size(&c, false) as u64 } else { 0 };
        if let Some(rate) = &mut self.rate {
            rate.spend(size, now.mono);
        }
        self.last_sent = now.mono;
        let to = self.rules.deliver_subject.clone();
        self.deliver(c, to, None, now, out);
        self.flow_delivered(size, out);
    }

    /// Counts a delivery and lets it go.
    #[inline]
    fn deliver(&mut self, c: Candidate, to: Bytes, pin: Option<Bytes>, now: Now, out: &mut Vec<Output>) {
        let Candidate { message, deliveries, again } = c;
        let seq = message.seq;
        let strict = self.strict();
        let state = if strict { State::Held } else { State::Waiting };
        let times = deliveries + 1;
        debug_assert!(
            self.rules.max_deliver == 0 || times <= self.rules.max_deliver,
            "J-6: beyond max_deliver"
        );
        let dseq = if !again {
            if let Some(n) = &mut self.unseen {
                *n = n.saturating_sub(1);
            }
            if self.rules.original {
                self.replayed = Some((now.mono, message.time));
            }
            if self.logging.on {
                self.logging.recorder.deliver(seq);
            }
            let dseq = self.ledger.deliver(seq, self.rules.awaits(), state, u64::MAX);
            if !self.rules.awaits() && self.retains && !self.logging.on {
                self.acked_range(seq, seq, out);
            }
            dseq
        } else {
            self.again.pop_front();
            if self.logging.on {
                self.logging.recorder.redeliver(seq, times);
            }
            self.ledger.delays.remove(&seq);
            let dseq = self.ledger.redeliver(seq, times, true);
            if let Some(e) = self.ledger.get_mut(seq) {
                e.state = state;
                e.due = u64::MAX;
            }
            dseq
        };
        self.delivered_last = Some(now.wall);
        let pending = self.unseen.unwrap_or(0);
        if strict {
            let held = HeldOutput::Deliver { seq, dseq, deliveries: times, pending, to, pin };
            self.held.push_back((self.logging.taken + 1, held));
            return;
        }
        if !self.rules.waits.is_empty() {
            self.arm(seq, now.mono, None);
        }
        let headers_only = self.rules.headers_only;
        out.push(Output::Deliver(Deliver {
            message,
            to,
            dseq,
            deliveries: times.into(),
            pending,
            headers_only,
            pin,
        }));
    }

    /// Lets go what has waited for its delta (C-2, C-3).
    fn release<M: Messages>(&mut self, msgs: &M, now: Now, out: &mut Vec<Output>) -> Result<(), M::Miss> {
        while self.held.front().is_some_and(|(number, _)| *number <= self.logging.applied) {
            if let Some((_, HeldOutput::Deliver { seq, .. })) = self.held.front() {
                let seq = *seq;
                // An ack of an earlier delivery may have come while this one waited.
                let held = self.ledger.get(seq).is_some_and(|e| e.state == State::Held);
                let message = if held { msgs.carried(seq)? } else { None };
                let Some((_, HeldOutput::Deliver { dseq, deliveries, pending, to, pin, .. })) =
                    self.held.pop_front()
                else {
                    continue;
                };
                let Some(message) = message else {
                    if held {
                        out.extend(self.vanished(seq).map(Output::Advisory));
                    }
                    continue;
                };
                self.arm(seq, now.mono, None);
                let headers_only = self.rules.headers_only;
                let deliveries = deliveries.into();
                out.push(Output::Deliver(Deliver {
                    message,
                    to,
                    dseq,
                    deliveries,
                    pending,
                    headers_only,
                    pin,
                }));
            } else if let Some((_, HeldOutput::Other(output))) = self.held.pop_front() {
                out.push(output);
            }
        }
        Ok(())
    }

    /// Lets an output go when all that is noted by now is applied; at once if nothing has to be logged for it.
    pub(super) fn after_delta(&mut self, output: Output, out: &mut Vec<Output>) {
        let number = self.logging.taken + u64::from(!self.logging.recorder.is_empty());
        if !self.logging.on || number <= self.logging.applied {
            out.push(output);
        } else {
            self.held.push_back((number, HeldOutput::Other(output)));
        }
    }

    /// A delivery did not reach anybody: the message is to be delivered again at once, and this time did not count. `waits` says whether
    /// the request (or the listener of the deliver subject) is still there.
    pub fn undelivered(&mut self, seq: u64, to: &[u8], waits: bool) {
        if !self.rules.pull {
            self.active = waits;
        } else if waits {
            self.waiting.credit(to);
        } else {
            self.waiting.retain(|w| w.to != to);
        }
        let Some(e) = self.ledger.get_mut(seq).filter(|e| e.state == State::Waiting) else { return };
        e.state = State::Queued;
        let deliveries = e.deliveries.saturating_sub(1);
        self.ledger.redeliver(seq, deliveries, false);
        if self.logging.on {
            self.logging.recorder.undo(seq, deliveries);
        }
        self.again.push_back(seq);
        self.timers.tidy(&self.ledger);
    }

    /// A message was delivered as often as it may be: it stays in the stream and is not delivered again.
    pub(super) fn exceed(&mut self, seq: u64, out: &mut Vec<Output>) {
        let Some(e) = self.ledger.exceed(seq) else { return };
        if self.logging.on {
            self.logging.recorder.exceed(seq);
        }
        out.push(Output::Advisory(Advisory::MaxDeliveries {
            stream_seq: seq,
            deliveries: e.deliveries.into(),
        }));
    }

    /// What time brings about: overdue acks, expired requests, heartbeats, the ends of pauses, pins and patience.
    pub(super) fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.paused && self.rules.pause_until <= now.wall {
            self.paused = false;
            out.push(Output::Advisory(Advisory::Pause {
                paused: false,
                until: self.rules.pause_until.max(0),
            }));
        }
        if self.timers.due().is_some_and(|due| due <= now.mono) {
            self.overdue(now, out);
        }
        if self.rules.pull {
            if self.waiting.due().is_some_and(|due| due <= now.mono) {
                self.requests_due(now, out);
            }
            if self.pin.as_ref().is_some_and(|p| p.due <= now.mono) {
                self.drop_pin("timeout", out);
            }
        } else if self.heartbeat_due().is_some_and(|due| due <= now.mono) {
            self.push_heartbeat(now, out);
        }
        if self.inactive_due().is_some_and(|due| due <= now.mono) {
            if self.waiting.is_empty() {
                self.reported_inactive = true;
                out.push(Output::Inactive);
            } else {
                self.last_used = now.mono;
            }
        }
    }

    fn overdue(&mut self, now: Now, out: &mut Vec<Output>) {
        let mut seqs = std::mem::take(&mut self.scratch);
        seqs.clear();
        self.timers.expired(&self.ledger, now.mono, &mut seqs);
        // Until now somebody may have been at work on them.
        self.last_used = now.mono;
        for seq in seqs.drain(..) {
            let Some(e) = self.ledger.get_mut(seq) else { continue };
            debug_assert!(e.due <= now.mono, "J-6: early");
            if self.rules.max_deliver > 0 && e.deliveries >= self.rules.max_deliver {
                self.exceed(seq, out);
            } else {
                e.state = State::Queued;
                self.again.push_back(seq);
            }
        }
        self.scratch = seqs;
        self.timers.tidy(&self.ledger);
        self.sweep_again();
    }

    /// Keeps the queue of redeliveries from growing by what no longer counts.
    pub(super) fn sweep_again(&mut self) {
        if self.again.len() > 1024 && self.again.len() > 4 * self.ledger.len() {
            let ledger = &self.ledger;
            self.again.retain(|seq| ledger.get(*seq).is_some_and(|e| e.state == State::Queued));
        }
    }
}
