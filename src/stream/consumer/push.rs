//! Push consumers: interest, heartbeats, flow control, the rate limit.

use bytes::Bytes;

use super::config::AckPolicy;
use super::output::{Output, Status, StatusHeaders};
use super::{Consumer, HeldOutput};
use crate::Now;

/// The largest window of flow control, in bytes.
const WINDOW_MAX: u64 = 32 * 1024 * 1024;
/// The first window: a share of the largest.
const SLOW_START: u64 = 16;

/// How much a push consumer may send before its client answers.
#[derive(Clone, Debug)]
pub struct FlowControl {
    /// The window, in bytes; it doubles with each answer up to the largest.
    window: u64,
    /// What was sent and is not covered by an answer.
    sent: u64,
    /// The request that waits for its answer, and how much the answer covers.
    asked: Option<(Bytes, u64)>,
}

impl FlowControl {
    pub(super) fn new() -> FlowControl {
        FlowControl { window: WINDOW_MAX / SLOW_START, sent: 0, asked: None }
    }

    /// Whether nothing may be sent before an answer.
    pub(super) fn is_full(&self) -> bool {
        self.sent > self.window
    }
}

/// A rate limit: a message may go when all before it have been paid for, but for the burst.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    bytes_per_second: u64,
    /// The burst, in the nanoseconds that it takes at the rate.
    burst: u64,
    /// When all that was sent is paid for, on the monotonic clock.
    paid: u64,
}

impl Rate {
    pub(super) fn new(bits_per_second: u64, burst_bytes: u64) -> Option<Rate> {
        let bytes_per_second = bits_per_second / 8;
        if bytes_per_second == 0 {
            return None;
        }
        let mut rate = Rate { bytes_per_second, burst: 0, paid: 0 };
        rate.burst = rate.cost(burst_bytes);
        Some(rate)
    }

    fn cost(&self, bytes: u64) -> u64 {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// From when on a message may go.
    pub(super) fn free_at(&self) -> u64 {
        self.paid.saturating_sub(self.burst)
    }

    pub(super) fn spend(&mut self, bytes: u64, now: u64) {
        self.paid = self.paid.max(now).saturating_add(self.cost(bytes));
    }
}

impl Consumer {
    /// Whether somebody listens to the deliver subject (with the deliver group, if there is one) has changed, or is told first.
    pub fn set_interest(&mut self, active: bool, now: Now) {
        if self.rules.pull || self.active == active {
            return;
        }
        self.active = active;
        self.last_used = now.mono;
        self.last_sent = now.mono;
        self.reported_inactive = false;
        if !active && let Some(flow) = &mut self.flow {
            // Whoever comes next has nothing outstanding.
            *flow = FlowControl::new();
        }
    }

    /// Whether somebody listens to the deliver subject, as far as is known.
    pub fn is_active(&self) -> bool {
        self.active
    }

    pub(super) fn heartbeat_due(&self) -> Option<u64> {
        (self.active && self.rules.heartbeat > 0).then(|| self.last_sent.saturating_add(self.rules.heartbeat))
    }

    pub(super) fn push_heartbeat(&mut self, now: Now, out: &mut Vec<Output>) {
        self.last_sent = now.mono;
        let stalled = self.flow.as_ref().and_then(|f| f.asked.as_ref()).map(|(id, _)| id.clone());
        let idle = stalled.is_none();
        let headers = self.last_headers(stalled);
        let to = self.rules.deliver_subject.clone();
        self.send_status(Status { to, reply: None, code: 100, text: "Idle Heartbeat".into(), headers }, out);
        if idle && self.rules.ack == AckPolicy::FlowControl && !self.ledger.is_empty() {
            self.ask(out);
        }
    }

    /// Counts what was delivered and asks the client to keep up where it is time.
    pub(super) fn flow_delivered(&mut self, size: u64, out: &mut Vec<Output>) {
        let full =
            self.rules.ack == AckPolicy::FlowControl && self.ledger.len() >= self.rules.max_ack_pending;
        let Some(flow) = &mut self.flow else { return };
        flow.sent += size;
        match &mut flow.asked {
            None if flow.sent > flow.window / 2 || full => self.ask(out),
            // So much has been sent since that the answer has to cover more, or the window would stay shut.
            Some((_, covers)) if flow.sent.saturating_sub(*covers) >= flow.window => *covers += size,
            _ => {}
        }
    }

    fn ask(&mut self, out: &mut Vec<Output>) {
        let id = self.draw_text(4);
        let mut subject = Vec::with_capacity(self.stream.len() + self.name.len() + 16);
        for part in [&b"$JS.FC."[..], &self.stream, b".", &self.name, b".", id.as_bytes()] {
            subject.extend_from_slice(part);
        }
        let subject = Bytes::from(subject);
        let Some(flow) = &mut self.flow else { return };
        flow.asked = Some((subject.clone(), flow.sent));
        let to = self.rules.deliver_subject.clone();
        let text = "FlowControl Request".into();
        self.send_status(
            Status { to, reply: Some(subject), code: 100, text, headers: StatusHeaders::None },
            out,
        );
    }

    /// A client has answered a flow control request. `last_stream` and `last_consumer` are what the answer's headers
    /// `Nats-Last-Stream` and `Nats-Last-Consumer` say (0 if they are missing); they acknowledge where flow control is the ack.
    pub fn flow(
        &mut self,
        subject: &[u8],
        last_stream: u64,
        last_consumer: u64,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let Some(flow) = &mut self.flow else { return };
        // The second layout names the domain and the account before the stream; the id at the end is the same.
        let id = |s: &[u8]| s.rsplit(|b| *b == b'.').next().map(<[u8]>::to_vec);
        let Some((_, covers)) = flow.asked.take_if(|(asked, _)| id(asked) == id(subject)) else { return };
        flow.window = (flow.window * 2).min(WINDOW_MAX);
        flow.sent = flow.sent.saturating_sub(covers);
        if self.rules.ack == AckPolicy::FlowControl && last_stream > 0 {
            self.ack_upto(last_stream, last_consumer, now, out);
        }
    }

    /// Whether deliveries wait for their delta. For tests.
    pub fn num_held(&self) -> usize {
        self.held.iter().filter(|(_, h)| matches!(h, HeldOutput::Deliver { .. })).count()
    }
}
