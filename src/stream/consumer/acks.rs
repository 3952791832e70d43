//! Acks of every kind.

use bytes::Bytes;

use super::Consumer;
use super::ack::{AckKind, AckTokens};
use super::config::AckPolicy;
use super::ledger::{Delay, State};
use super::output::{Advisory, Output};
use crate::Now;

impl Consumer {
    /// An ack has come: `tokens` of its subject, its payload, its reply subject if it wants a confirmation. Afterwards, if
    /// [`Consumer::ready`], [`Consumer::pump`] is to be called.
    pub fn ack(
        &mut self,
        tokens: &AckTokens<'_>,
        payload: &[u8],
        reply: Option<&Bytes>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if !self.leading {
            return;
        }
        let kind = AckKind::parse(payload);
        let confirm = match kind {
            AckKind::Ack => self.done(tokens, true, now, out),
            AckKind::Term(reason) => {
                let awaited = self.ledger.get(tokens.sseq).is_some();
                let done = self.done(tokens, false, now, out);
                if done && awaited {
                    out.push(Output::Advisory(Advisory::Terminated {
                        consumer_seq: tokens.dseq,
                        stream_seq: tokens.sseq,
                        deliveries: tokens.deliveries,
                        reason: String::from_utf8_lossy(reason).into_owned(),
                    }));
                }
                done
            }
            AckKind::Next(request) => {
                self.done(tokens, true, now, out);
                if let Some(reply) = reply {
                    self.pull(reply, request, now, out);
                }
                false
            }
            AckKind::Nak(delay) => {
                self.nak(tokens, delay, now, out);
                true
            }
            AckKind::Progress => {
                self.progress(tokens.sseq, now);
                true
            }
            AckKind::Unknown => true,
        };
        // There is no message 0: it is done with as often as somebody says so, and nothing else is done to it.
        let confirm = confirm && (tokens.sseq > 0 || matches!(kind, AckKind::Ack | AckKind::Term(_)));
        if let Some(to) = reply.filter(|_| confirm) {
            self.after_delta(Output::AckReply { to: to.clone() }, out);
        }
    }

    /// A message is done with. Whether the ack may be confirmed.
    fn done(&mut self, t: &AckTokens<'_>, sample: bool, now: Now, out: &mut Vec<Output>) -> bool {
        // An ack of what was never delivered must not move anything.
        if t.sseq >= self.ledger.next_seq && self.ledger.get(t.sseq).is_none() {
            return false;
        }
        match self.rules.ack {
            AckPolicy::None => return false,
            AckPolicy::Explicit => {
                let was_exceeded =
                    !self.ledger.exceeded.is_empty() && self.ledger.exceeded.contains_key(&t.sseq);
                match self.ledger.remove(t.sseq) {
                    Some(e) => {
                        if sample && self.rules.sample > 0 && self.draw() % 100 < u64::from(self.rules.sample)
                        {
                            let wait = self.rules.wait(e.deliveries).map_or(0, |(_, wait)| wait);
                            let sent = if e.due == u64::MAX { now.mono } else { e.due.saturating_sub(wait) };
                            out.push(Output::Advisory(Advisory::Acked {
                                consumer_seq: t.dseq,
                                stream_seq: t.sseq,
                                ack_time: now.mono.saturating_sub(sent),
                                deliveries: t.deliveries,
                            }));
                        }
                    }
                    // An ack that comes after the last delivery was given up still ends the message.
                    None if was_exceeded => {}
                    None => return true,
                }
                self.note_ack(t.sseq, out);
                self.timers.tidy(&self.ledger);
            }
            AckPolicy::All | AckPolicy::FlowControl => {
                self.ack_upto(t.sseq, t.dseq, now, out);
                return true;
            }
        }
        self.acked_last = Some(now.wall);
        true
    }

    #[inline]
    fn note_ack(&mut self, seq: u64, out: &mut Vec<Output>) {
        if self.logging.on {
            self.logging.recorder.ack(seq);
        } else if self.retains {
            self.acked_range(seq, seq, out);
        }
    }

    /// Tells the stream that messages are done with, together with what was told before if it follows.
    pub(super) fn acked_range(&self, first: u64, last: u64, out: &mut Vec<Output>) {
        match out.last_mut() {
            Some(Output::Acked { last: before, .. }) if before.checked_add(1) == Some(first) => {
                *before = last
            }
            _ => out.push(Output::Acked { first, last }),
        }
    }

    /// All up to a message, delivered by `dseq`, is done with.
    pub(super) fn ack_upto(&mut self, seq: u64, dseq: u64, now: Now, out: &mut Vec<Output>) {
        let seq = seq.min(self.ledger.delivered);
        if seq <= self.ledger.ack_seq || dseq <= self.ledger.ack_dseq {
            return;
        }
        let mut gone = std::mem::take(&mut self.scratch);
        gone.clear();
        self.ledger.remove_upto(seq, dseq, |e| gone.push(e.seq));
        if self.logging.on {
            self.logging.recorder.ack_upto(seq, dseq);
        } else if self.retains {
            for seq in &gone {
                self.acked_range(*seq, *seq, out);
            }
        }
        self.scratch = gone;
        self.acked_last = Some(now.wall);
        self.timers.tidy(&self.ledger);
    }

    /// A client refuses a message: it is to be delivered again at once, or after `delay` nanoseconds.
    fn nak(&mut self, t: &AckTokens<'_>, delay: Option<i64>, now: Now, out: &mut Vec<Output>) {
        if t.dseq <= self.ledger.ack_dseq || t.dseq >= self.ledger.dseq {
            return;
        }
        let Some(e) = self.ledger.get_mut(t.sseq).filter(|e| e.state != State::Held) else { return };
        out.push(Output::Advisory(Advisory::Nak {
            consumer_seq: t.dseq,
            stream_seq: t.sseq,
            deliveries: t.deliveries,
        }));
        match delay {
            Some(delay) => {
                let delay = delay.max(0);
                let by = delay.unsigned_abs();
                let delay = Delay { until: now.wall.saturating_add(delay), by };
                self.ledger.delays.insert(t.sseq, delay);
                if self.logging.on {
                    self.logging.recorder.delay(t.sseq, delay);
                }
                self.arm(t.sseq, now.mono, Some(by));
            }
            None if e.state == State::Queued => {}
            None => {
                e.state = State::Queued;
                self.again.push_back(t.sseq);
                self.sweep_again();
            }
        }
        self.timers.tidy(&self.ledger);
    }

    /// A client is still at work on a message: the wait begins anew.
    fn progress(&mut self, seq: u64, now: Now) {
        // What is already in the queue of redeliveries stays there.
        if self.ledger.get(seq).is_some_and(|e| e.state == State::Waiting) {
            self.ledger.delays.remove(&seq);
            self.arm(seq, now.mono, None);
            self.timers.tidy(&self.ledger);
        }
    }
}
