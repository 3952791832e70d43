//! Pull requests: taking them in, choosing whose turn it is, ending them.

use std::borrow::Cow;

use bytes::Bytes;

use super::config::PriorityPolicy;
use super::output::{Advisory, Output, Status, StatusHeaders};
use super::request::{Asked, Listeners, PullRequest, Refused, Waiting};
use super::{Consumer, HeldOutput, Pin};
use crate::Now;

/// The length of a pin, in bytes.
pub(super) const PIN_LEN: usize = 22;

/// A request that is served.
pub(super) struct Choice {
    pub to: Bytes,
    pub pin: Option<Bytes>,
    /// What remains of a request that is served completely but for its bytes: messages and bytes.
    pub leftover: Option<(i64, i64)>,
}

impl Consumer {
    /// A pull request has come. Afterwards [`Consumer::pump`] is to be called.
    pub fn pull(&mut self, to: &Bytes, payload: &[u8], now: Now, out: &mut Vec<Output>) {
        self.pull_of(to, PullRequest::parse(payload).map_err(Refused::bad), true, now, out);
    }
    /// The same for what was read of it before. `sure`: what is known here is known to be the newest; else a request that does not want to wait is
    /// answered by the pump, which is called only then.
    pub fn pull_of(&mut self, to: &Bytes, asked: Asked, sure: bool, now: Now, out: &mut Vec<Output>) {
        if !self.leading {
            return;
        }
        self.last_used = now.mono;
        self.reported_inactive = false;
        if let Err((code, text)) = self.try_pull(to, asked, sure, now, out)
            && !text.is_empty()
        {
            out.push(Output::Status(Status::plain(to.clone(), code, text)));
        }
    }

    fn try_pull(
        &mut self,
        to: &Bytes,
        asked: Asked,
        sure: bool,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Result<(), (u16, Cow<'static, str>)> {
        if !self.rules.pull {
            return Err((409, "Consumer is push based".into()));
        }
        let (r, json) = asked.map_err(|Refused { code, text }| (code, text))?;
        let c = &self.config;
        let over = |text: String| Err((409, text.into()));
        if c.max_batch > 0 && r.batch > c.max_batch {
            return over(format!("Exceeded MaxRequestBatch of {}", c.max_batch));
        }
        if c.max_expires > 0 && r.expires > c.max_expires {
            return over(format!("Exceeded MaxRequestExpires of {}", crate::time::duration(c.max_expires)));
        }
        if c.max_bytes > 0 && r.max_bytes > c.max_bytes {
            return over(format!("Exceeded MaxRequestMaxBytes of {}", c.max_bytes));
        }
        if json {
            self.check_priority(&r, now)?;
        }
        if self.waiting.len() >= self.rules.max_waiting {
            self.requests_due(now, out);
        }
        if r.no_wait && sure {
            self.check_no_wait(&r)?;
        }
        if self.waiting.len() >= self.rules.max_waiting {
            // A client with heartbeats notices that they stay away; an answer would only make it ask in a loop.
            return Err((409, if r.heartbeat > 0 { "".into() } else { "Exceeded MaxWaiting".into() }));
        }
        let in_future = |n: i64| if n > 0 { now.mono.saturating_add(n.unsigned_abs()) } else { u64::MAX };
        // A request that expired before it came is answered like one that expires now.
        let expires = if r.expires < 0 { now.mono } else { in_future(r.expires) };
        let w = Waiting {
            to: to.clone(),
            left: r.batch,
            bytes: r.max_bytes,
            served: 0,
            expires,
            no_wait: r.no_wait,
            heartbeat: r.heartbeat.max(0).unsigned_abs(),
            next_heartbeat: in_future(r.heartbeat),
            min_pending: r.min_pending,
            min_ack_pending: r.min_ack_pending,
            group: r.group,
            pin: r.id.into(),
            priority: if json { r.priority } else { i64::MAX },
            seen: 0,
        };
        if self.rules.priority == PriorityPolicy::Prioritized {
            self.waiting.push_by_priority(w);
        } else {
            self.waiting.push(w);
        }
        Ok(())
    }

    fn check_priority(&mut self, r: &PullRequest, now: Now) -> Result<(), (u16, Cow<'static, str>)> {
        let bad = |text: &'static str| Err((400, Cow::Borrowed(text)));
        let policy = self.rules.priority;
        if (r.min_pending != 0 || r.min_ack_pending != 0) && policy != PriorityPolicy::Overflow {
            return bad("Bad Request - Not a Overflow Priority consumer");
        }
        if !r.id.is_empty() && policy != PriorityPolicy::PinnedClient {
            return bad("Bad Request - Not a Pinned Client Priority consumer");
        }
        if !(0..=9).contains(&r.priority) {
            return bad("Bad Request - Priority must be between 0 and 9");
        }
        if policy == PriorityPolicy::None {
            return Ok(());
        }
        if r.group.is_empty() {
            return bad("Bad Request - Priority Group missing");
        }
        if !self.config.priority_groups.contains(&r.group) {
            return bad("Bad Request - Invalid Priority Group");
        }
        if let Some(pin) = &mut self.pin {
            if r.id.as_bytes() == pin.id {
                pin.due = now.mono.saturating_add(self.rules.pin_ttl);
            } else if !r.id.is_empty() {
                return Err((423, "Nats-Pin-Id mismatch".into()));
            }
        }
        Ok(())
    }

    fn check_no_wait(&self, r: &PullRequest) -> Result<(), (u16, Cow<'static, str>)> {
        // If nothing is counted yet the request waits for the pump, which knows.
        let Some(unseen) = self.unseen else { return Ok(()) };
        let pending = unseen.saturating_add(self.again.len() as u64);
        if pending == 0 && r.expires == 0 {
            return Err((404, "No Messages".into()));
        }
        if pending > 0 && pending < self.waiting.wanted().max(0).unsigned_abs() {
            return Err((408, "Requests Pending".into()));
        }
        Ok(())
    }

    /// The request whose turn it is, if one can take a message of this size now. What cannot be served any more is ended on the way; what
    /// nobody listens for any more is forgotten (C-5).
    pub(super) fn next_request(
        &mut self,
        size: usize,
        listeners: &impl Listeners,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Option<Choice> {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let policy = self.rules.priority;
        let acks = self.ledger.len() as i64;
        let unseen = i64::try_from(self.unseen.unwrap_or(0)).unwrap_or(i64::MAX);
        let mut cycled = 0;
        loop {
            let total = self.waiting.len();
            let w = self.waiting.front()?;
            if w.expires <= now.mono {
                self.end_front(408, "Request Timeout", out);
                continue;
            }
            let generation = listeners.generation();
            if w.seen != generation {
                if !listeners.listens(&w.to) {
                    self.waiting.remove_front();
                    continue;
                }
                w.seen = generation;
            }
            let mut pinned_now = false;
            if policy == PriorityPolicy::PinnedClient {
                let ours = match &self.pin {
                    Some(pin) if w.pin == pin.id => true,
                    Some(_) if w.pin.is_empty() => false,
                    None if w.pin.is_empty() => {
                        pinned_now = !w.group.is_empty();
                        true
                    }
                    _ => {
                        self.end_front(423, "Nats-Wrong-Pin-Id", out);
                        continue;
                    }
                };
                if !ours {
                    self.waiting.cycle();
                    cycled += 1;
                    if cycled >= total {
                        return None;
                    }
                    continue;
                }
            }
            if policy == PriorityPolicy::Overflow && (w.min_pending > 0 || w.min_ack_pending > 0) {
                let enough = w.min_pending > 0 && w.min_pending <= unseen
                    || w.min_ack_pending > 0 && w.min_ack_pending <= acks;
                if !enough {
                    self.waiting.cycle();
                    cycled += 1;
                    if cycled >= total {
                        return None;
                    }
                    continue;
                }
            }
            if w.bytes > 0 {
                if size > w.bytes {
                    self.end_front(409, "Message Size Exceeds MaxBytes", out);
                    continue;
                }
                w.bytes -= size;
                if w.bytes == 0 {
                    w.left = 1;
                }
            }
            w.left -= 1;
            w.served += 1;
            if w.heartbeat > 0 {
                w.next_heartbeat = now.mono.saturating_add(w.heartbeat);
            }
            let (left, bytes) = (w.left, w.bytes);
            if pinned_now {
                self.pin_front(now, out);
            }
            let pin = if policy == PriorityPolicy::PinnedClient {
                self.pin.as_ref().map(|p| p.id.clone())
            } else {
                None
            };
            let to = if left <= 0 {
                self.waiting.remove_front()?.to
            } else {
                let to = self.waiting.front()?.to.clone();
                match policy {
                    PriorityPolicy::Prioritized => self.waiting.cycle_by_priority(),
                    _ => self.waiting.cycle(),
                }
                to
            };
            return Some(Choice { to, pin, leftover: (left <= 0 && bytes > 0).then_some((left, bytes)) });
        }
    }

    /// The request whose turn it is gets all from now on.
    fn pin_front(&mut self, now: Now, out: &mut Vec<Output>) {
        let id = Bytes::from(self.draw_text(PIN_LEN));
        let Some(w) = self.waiting.front() else { return };
        w.pin = id.clone();
        let group = w.group.clone();
        let due = now.mono.saturating_add(self.rules.pin_ttl);
        out.push(Output::Advisory(Advisory::Pinned { group: group.clone(), id: id.clone() }));
        self.pin = Some(Pin { id, group, since: now.wall, due });
    }

    /// Nobody is pinned any more.
    pub(super) fn drop_pin(&mut self, reason: &'static str, out: &mut Vec<Output>) {
        if let Some(pin) = self.pin.take() {
            out.push(Output::Advisory(Advisory::Unpinned { group: pin.group, reason }));
        }
    }

    /// Unpins the client of a group on request, and says so also if none was pinned. Whether there is such a group.
    pub fn unpin(&mut self, group: &str, out: &mut Vec<Output>) -> bool {
        if !self.config.priority_groups.iter().any(|g| g == group) {
            return false;
        }
        self.pin = None;
        out.push(Output::Advisory(Advisory::Unpinned { group: group.to_owned(), reason: "admin" }));
        true
    }

    /// How many requests wait.
    pub fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets the requests whose reply subject nobody listens to any more.
    pub fn retain_requests(&mut self, listeners: &impl Listeners) {
        let generation = listeners.generation();
        self.waiting.retain(|w| {
            let stays = w.seen == generation || listeners.listens(&w.to);
            w.seen = generation;
            stays
        });
    }

    fn end_front(&mut self, code: u16, text: &'static str, out: &mut Vec<Output>) {
        if let Some(w) = self.waiting.remove_front() {
            self.status_remaining(w.to, code, text, w.left, w.bytes, out);
        }
    }

    /// Sends a status with what remains of a request. It must not overtake deliveries that wait for their delta.
    pub(super) fn status_remaining(
        &mut self,
        to: Bytes,
        code: u16,
        text: &'static str,
        messages: i64,
        bytes: i64,
        out: &mut Vec<Output>,
    ) {
        let headers = StatusHeaders::Remaining { messages, bytes };
        self.send_status(Status { to, reply: None, code, text: text.into(), headers }, out);
    }

    pub(super) fn send_status(&mut self, status: Status, out: &mut Vec<Output>) {
        match self.held.back() {
            // Behind a confirmation there may be a delivery.
            Some((number, _)) if self.strict() => {
                let held = HeldOutput::Other(Output::Status(status));
                self.held.push_back((*number, held));
            }
            _ => out.push(Output::Status(status)),
        }
    }

    /// Ends the requests whose time is over and sends the heartbeats that are due.
    pub(super) fn requests_due(&mut self, now: Now, out: &mut Vec<Output>) {
        let (mut ended, mut served) = (Vec::new(), Vec::new());
        let last = self.last_headers(None);
        self.waiting.retain(|w| {
            if w.expires <= now.mono {
                ended.push((w.to.clone(), w.left, w.bytes));
                return false;
            }
            if w.next_heartbeat <= now.mono {
                if w.no_wait && w.served > 0 {
                    // Only the acks that are awaited have kept it until now.
                    served.push(w.to.clone());
                    return false;
                }
                let headers = last.clone();
                let text = "Idle Heartbeat".into();
                out.push(Output::Status(Status { to: w.to.clone(), reply: None, code: 100, text, headers }));
                w.next_heartbeat = now.mono.saturating_add(w.heartbeat);
            }
            true
        });
        for (to, messages, bytes) in ended {
            self.status_remaining(to, 408, "Request Timeout", messages, bytes, out);
        }
        for to in served {
            self.send_status(Status::plain(to, 404, "No Messages"), out);
        }
    }

    /// The end of the stream is reached: requests that do not want to wait end, unless they have had nothing and some time is left.
    pub(super) fn end_of_stream(&mut self, out: &mut Vec<Output>) {
        let mut ended = Vec::new();
        self.waiting.retain(|w| {
            let ends = w.no_wait && (w.expires == u64::MAX || w.served > 0);
            if ends {
                ended.push(w.to.clone());
            }
            !ends
        });
        for to in ended {
            self.send_status(Status::plain(to, 404, "No Messages"), out);
        }
    }

    /// Ends all requests.
    pub(super) fn end_requests(&mut self, text: &'static str, remaining: bool, out: &mut Vec<Output>) {
        for w in self.waiting.drain() {
            let headers = match remaining {
                true => StatusHeaders::Remaining { messages: w.left, bytes: w.bytes },
                false => StatusHeaders::None,
            };
            out.push(Output::Status(Status { to: w.to, reply: None, code: 409, text: text.into(), headers }));
        }
    }

    /// Where the consumer is, for a heartbeat.
    pub(super) fn last_headers(&self, stalled: Option<Bytes>) -> StatusHeaders {
        StatusHeaders::Last { consumer: self.ledger.dseq - 1, stream: self.ledger.next_seq - 1, stalled }
    }
}
