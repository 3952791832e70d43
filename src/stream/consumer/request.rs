//! Pull requests: what they say, and the queue of those that wait.
//!
//! Owns the requests' text, limits and order of service. Does not own who gets which message: see [`super::Consumer::pump`].

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};

/// `null` leaves a field at its default: clients write it for what they do not set.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// A pull request as it is read.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PullRequest {
    /// How long it may wait, in nanoseconds; 0 without limit.
    #[serde(deserialize_with = "nullable")]
    pub expires: i64,
    /// How many messages are wanted.
    #[serde(deserialize_with = "nullable")]
    pub batch: i64,
    /// How many bytes at most; 0 without limit.
    #[serde(deserialize_with = "nullable")]
    pub max_bytes: i64,
    /// Whether it ends when nothing is there.
    #[serde(deserialize_with = "nullable")]
    pub no_wait: bool,
    /// The pause after which the client wants a sign of life, in nanoseconds; 0 for none.
    #[serde(rename = "idle_heartbeat", deserialize_with = "nullable")]
    pub heartbeat: i64,
    /// The priority group.
    #[serde(deserialize_with = "nullable")]
    pub group: String,
    /// Serve only when so many messages are pending (overflow).
    #[serde(deserialize_with = "nullable")]
    pub min_pending: i64,
    /// Serve only when so many acks are pending (overflow).
    #[serde(deserialize_with = "nullable")]
    pub min_ack_pending: i64,
    /// The pin that the client holds (pinned client).
    #[serde(deserialize_with = "nullable")]
    pub id: String,
    /// 0 is served first, 9 last (prioritized).
    #[serde(deserialize_with = "nullable")]
    pub priority: i64,
}

/// A request as it was read, and whether it was JSON; or why it is none.
pub type Asked = Result<(PullRequest, bool), Refused>;

/// The status that answers what is no request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Its code.
    pub code: u16,
    /// What stands behind the code.
    pub text: Cow<'static, str>,
}

impl Refused {
    /// The payload is none.
    pub fn bad(why: String) -> Refused {
        Refused { code: 400, text: format!("Bad Request - {why}").into() }
    }
    /// The request needs a level that this server does not have.
    pub fn level() -> Refused {
        Refused { code: 412, text: "Required Api Level".into() }
    }
}

impl PullRequest {
    /// Reads a request's payload: nothing, a number, or JSON. Any other text is a request for one message, as it always was.
    ///
    /// # Errors
    /// What the client is told behind `Bad Request - `.
    pub fn parse(payload: &[u8]) -> Result<(PullRequest, bool), String> {
        let payload = payload.trim_ascii();
        let one = |batch| Ok((PullRequest { batch, ..PullRequest::default() }, false));
        if payload.first() == Some(&b'{') {
            let request: PullRequest = serde_json::from_slice(payload).map_err(|e| e.to_string())?;
            return request.checked().map(|request| (request, true));
        }
        one(std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok()).unwrap_or(1))
    }

    /// The same request, if its fields agree.
    ///
    /// # Errors
    /// As [`PullRequest::parse`].
    pub fn checked(self) -> Result<PullRequest, String> {
        if self.heartbeat > 0 && self.heartbeat.saturating_mul(2) > self.expires {
            return Err("heartbeat value too large".into());
        }
        Ok(self)
    }
}

/// A request that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Where messages and statuses go.
    pub to: Bytes,
    /// How many messages are wanted yet.
    pub left: i64,
    /// How many bytes are wanted yet; 0 without limit.
    pub bytes: i64,
    /// How many messages it has had.
    pub served: u64,
    /// When it ends, on the monotonic clock; `u64::MAX` for never.
    pub expires: u64,
    /// Whether it ends when nothing is there.
    pub no_wait: bool,
    /// The pause before a heartbeat, in nanoseconds; 0 for none.
    pub heartbeat: u64,
    /// When the next heartbeat is due, on the monotonic clock; `u64::MAX` for never.
    pub next_heartbeat: u64,
    /// Serve only when so many messages are pending.
    pub min_pending: i64,
    /// Serve only when so many acks are pending.
    pub min_ack_pending: i64,
    /// The group.
    pub group: String,
    /// The pin.
    pub pin: Bytes,
    /// The priority; requests without one come last.
    pub priority: i64,
    /// The generation of listeners in which somebody was seen to listen; 0 if nobody has looked yet.
    pub seen: u64,
}

impl Waiting {
    /// When it needs attention next.
    pub fn due(&self) -> u64 {
        self.expires.min(self.next_heartbeat)
    }
}

/// Who listens to what, as the shell knows it.
pub trait Listeners {
    /// Moves with every change of who listens; never 0.
    fn generation(&self) -> u64;
    /// Whether somebody would get a message to `to`.
    fn listens(&self, to: &[u8]) -> bool;
}

/// The requests that wait, in the order of their turns.
///
/// C-W1: `due` is never later than the earliest of the requests' deadlines; it may be earlier after a request has left.
#[derive(Clone, Debug, Default)]
pub struct WaitQueue {
    queue: VecDeque<Waiting>,
    /// See C-W1.
    due: Option<u64>,
    /// How many are `no_wait`.
    no_waits: usize,
}

impl WaitQueue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether one of them ends when nothing is there.
    pub fn has_no_wait(&self) -> bool {
        self.no_waits > 0
    }

    /// When one of them needs attention; `None` for never.
    pub fn due(&self) -> Option<u64> {
        self.due.filter(|due| *due != u64::MAX && !self.queue.is_empty())
    }

    /// How many messages they want together.
    pub fn wanted(&self) -> i64 {
        self.queue.iter().fold(0i64, |n, w| n.saturating_add(w.left))
    }

    /// The one whose turn it is.
    pub fn front(&mut self) -> Option<&mut Waiting> {
        self.queue.front_mut()
    }

    /// Adds one at the end.
    pub fn push(&mut self, w: Waiting) {
        self.note(&w);
        self.queue.push_back(w);
    }

    /// Adds one behind those of its priority.
    pub fn push_by_priority(&mut self, w: Waiting) {
        self.note(&w);
        self.insert_by_priority(w);
    }

    fn note(&mut self, w: &Waiting) {
        self.no_waits += usize::from(w.no_wait);
        self.lower(w.due());
    }

    fn insert_by_priority(&mut self, w: Waiting) {
        let at = self.queue.partition_point(|other| other.priority <= w.priority);
        self.queue.insert(at, w);
    }

    /// Notes that one needs attention at `due` or later.
    pub fn lower(&mut self, due: u64) {
        self.due = Some(self.due.map_or(due, |d| d.min(due)));
    }

    /// Takes away the one whose turn it is.
    pub fn remove_front(&mut self) -> Option<Waiting> {
        let w = self.queue.pop_front()?;
        self.no_waits -= usize::from(w.no_wait);
        Some(w)
    }

    /// Sends the one whose turn it is to the end.
    pub fn cycle(&mut self) {
        if self.queue.len() > 1 {
            self.queue.rotate_left(1);
        }
    }

    /// Sends the one whose turn it is behind those of its priority.
    pub fn cycle_by_priority(&mut self) {
        if self.queue.len() > 1
            && let Some(w) = self.queue.pop_front()
        {
            self.insert_by_priority(w);
        }
    }

    /// Goes through all; `f` may change one and says whether it stays. What needs attention when is found anew.
    pub fn retain(&mut self, mut f: impl FnMut(&mut Waiting) -> bool) {
        let (mut due, mut no_waits) = (u64::MAX, 0);
        self.queue.retain_mut(|w| {
            let stays = f(w);
            if stays {
                due = due.min(w.due());
                no_waits += usize::from(w.no_wait);
            }
            stays
        });
        self.due = Some(due);
        self.no_waits = no_waits;
    }

    /// Takes all away.
    pub fn drain(&mut self) -> impl Iterator<Item = Waiting> + '_ {
        self.no_waits = 0;
        self.due = None;
        self.queue.drain(..)
    }

    /// Gives back one message to the request that answers to `to`; whether it still waits.
    pub fn credit(&mut self, to: &[u8]) -> bool {
        let found = self.queue.iter_mut().find(|w| w.to == to);
        if let Some(w) = found {
            w.left += 1;
            w.served = w.served.saturating_sub(1);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read() {
        let batch = |n| (PullRequest { batch: n, ..PullRequest::default() }, false);
        assert_eq!(PullRequest::parse(b"").unwrap(), batch(1));
        assert_eq!(PullRequest::parse(b" 12 ").unwrap(), batch(12));
        assert_eq!(PullRequest::parse(b"hello").unwrap(), batch(1));
        let (full, json) = PullRequest::parse(
            br#"{"expires":5,"batch":3,"max_bytes":9,"no_wait":true,"group":"g","min_pending":1,"min_ack_pending":2,"id":"x","priority":4}"#,
        )
        .unwrap();
        assert!(json && full.no_wait);
        assert_eq!((full.expires, full.batch, full.max_bytes, full.priority), (5, 3, 9, 4));
        assert_eq!(
            (full.group.as_str(), full.id.as_str(), full.min_pending, full.min_ack_pending),
            ("g", "x", 1, 2)
        );
        assert_eq!(
            PullRequest::parse(br#"{"expires":10,"idle_heartbeat":6}"#).unwrap_err(),
            "heartbeat value too large"
        );
        assert!(PullRequest::parse(b"{").is_err());
        assert!(PullRequest::parse(br#"{"batch":"x"}"#).is_err());
    }
}
