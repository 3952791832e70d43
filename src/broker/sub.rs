//! A subscription. A million of them are held at a time, so its texts share one allocation.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use subject::Transform;

use crate::{Account, Inbound, Kind, Link};

/// One subscription of a link.
pub struct Sub {
    /// Who gets the messages.
    pub link: Arc<Link>,
    /// sid, subject and queue name, one after the other.
    text: Box<[u8]>,
    sid_len: u16,
    subject_len: u16,
    /// Deliveries after which it ends, above two bits of flags.
    max_and_flags: AtomicU32,
    delivered: AtomicU64,
}

// A million of them are held at a time: with the counts of its Arc one fits 56 bytes, a step of most allocators.
const _: () = assert!(size_of::<Sub>() <= 40);

/// Maximums from here on are none: that many messages take longer than a server's life.
const MAX_LIMIT: u64 = (1 << 30) - 1;

/// What only the shadows of stream imports have.
pub struct Extra {
    /// The account in whose interest the subscription stands.
    pub account: Arc<Account>,
    /// The link's own subscription, whose deliveries these are.
    pub parent: Arc<Sub>,
    /// From the exporter's subjects to the local ones.
    pub inward: Transform,
    /// Traces of messages may pass.
    pub allow_trace: bool,
}

/// Ended: nothing more is delivered.
pub(crate) const CLOSED: u32 = 1;
/// The link's permissions deny some subjects that the subscription matches: ask for each message.
pub(crate) const FILTERED: u32 = 2;

/// Why a SUB was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SubscribeError {
    /// Not a subject that can be subscribed.
    InvalidSubject,
    /// The connection's limit of subscriptions is reached.
    TooMany,
    /// The link is closed.
    Closed,
}

impl Sub {
    /// A subscription that stands nowhere yet. Each text is at most 65,535 bytes long (control lines are shorter).
    pub fn new(link: Arc<Link>, sid: &[u8], subject: &[u8], queue: &[u8], filtered: bool) -> Sub {
        let len = |s: &[u8]| u16::try_from(s.len()).expect("a control line is shorter than 64 KiB");
        Sub {
            link,
            sid_len: len(sid),
            subject_len: len(subject),
            text: [sid, subject, queue].concat().into_boxed_slice(),
            max_and_flags: AtomicU32::new(if filtered { FILTERED } else { 0 }),
            delivered: AtomicU64::new(0),
        }
    }
    /// The id that the client chose.
    #[inline]
    pub fn sid(&self) -> &[u8] {
        &self.text[..usize::from(self.sid_len)]
    }
    /// Id, subject and queue name, one after the other.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }
    /// Whether id, subject and queue are the same.
    pub(crate) fn is_same_as(&self, o: &Sub) -> bool {
        self.text == o.text && self.sid_len == o.sid_len && self.subject_len == o.subject_len
    }
    /// The subject, possibly with wildcards.
    pub fn subject(&self) -> &[u8] {
        let at = usize::from(self.sid_len);
        &self.text[at..at + usize::from(self.subject_len)]
    }
    /// The queue name; empty for a plain subscription.
    pub fn queue(&self) -> &[u8] {
        &self.text[usize::from(self.sid_len) + usize::from(self.subject_len)..]
    }
    /// The queue name, if there is one.
    pub fn queue_name(&self) -> Option<&[u8]> {
        Some(self.queue()).filter(|q| !q.is_empty())
    }
    /// What it has as the shadow of a stream import.
    #[inline]
    pub(crate) fn extra(&self) -> Option<&Extra> {
        self.link.shadow.as_deref()
    }
    /// Whether a client or another server's client has it; `None` for a receiver inside the server, which may be somebody's ([`Sub::inside`]).
    pub(crate) fn is_outside(&self) -> Option<bool> {
        match self.link.kind {
            // The groups of other servers' desks and doors have names of their own.
            Kind::Route => {
                let queue = self.queue();
                Some(!queue.starts_with(crate::LOCAL_FIRST) && !queue.starts_with(crate::MOST_FIRST))
            }
            Kind::Internal => self.extra().and_then(|e| e.parent.is_outside()),
            _ => Some(true),
        }
    }
    /// The receiver inside the server that gets its messages, if there is one.
    pub(crate) fn inside(&self) -> Option<&dyn Inbound> {
        match self.extra() {
            Some(extra) => extra.parent.inside(),
            None => self.link.inbound.as_deref(),
        }
    }
    /// Messages delivered so far.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }
    /// Deliveries after which it ends; 0 for none.
    #[inline]
    pub fn max(&self) -> u64 {
        u64::from(self.max_and_flags.load(Relaxed) >> 2)
    }
    pub(crate) fn set_max(&self, max: u64) {
        let max = if max > MAX_LIMIT { 0 } else { max as u32 };
        // Only the link's owner sets it; a flag that is set at the same time stays.
        self.max_and_flags.fetch_and(CLOSED | FILTERED, Relaxed);
        self.max_and_flags.fetch_or(max << 2, Relaxed);
    }
    /// Members of another server's queue group that it stands for; 1 if it is none.
    pub fn weight(&self) -> u32 {
        // A route's subscription has no maximum, and its place is free.
        (self.max_and_flags.load(Relaxed) >> 2).max(1)
    }
    pub(crate) fn set_weight(&self, n: u32) {
        self.set_max(u64::from(n));
    }
    #[inline]
    pub(crate) fn flags(&self) -> u32 {
        self.max_and_flags.load(Relaxed) & (CLOSED | FILTERED)
    }
    /// Says whether each message must be asked about: the link's permissions have changed.
    pub fn set_filtered(&self, on: bool) {
        if on {
            self.max_and_flags.fetch_or(FILTERED, Relaxed);
        } else {
            self.max_and_flags.fetch_and(!FILTERED, Relaxed);
        }
    }
    pub(crate) fn is_closed(&self) -> bool {
        self.flags() & CLOSED != 0
    }
    pub(crate) fn close(&self) {
        self.max_and_flags.fetch_or(CLOSED, Relaxed);
    }
    /// Counts a delivery; call it with the link's outbox locked. `Some(true)` if this was the last one allowed, `None` if
    /// there is none left (B-4).
    #[inline]
    pub(crate) fn count(&self) -> Option<bool> {
        let (n, max) = (self.delivered.load(Relaxed), self.max());
        if max != 0 && n >= max {
            return None;
        }
        self.delivered.store(n + 1, Relaxed);
        Some(max != 0 && n + 1 >= max)
    }
}

impl Sub {
    /// Counts deliveries to a receiver inside the server, which has no maximum.
    #[inline]
    pub(crate) fn count_inside(&self, n: usize) {
        self.delivered.fetch_add(n as u64, Relaxed);
    }
}

impl fmt::Debug for Sub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sub")
            .field("link", &self.link.id)
            .field("sid", &String::from_utf8_lossy(self.sid()))
            .field("subject", &String::from_utf8_lossy(self.subject()))
            .field("queue", &String::from_utf8_lossy(self.queue()))
            .finish_non_exhaustive()
    }
}
