//! The trace of one message: where it went, and why it did not go further (ADR-41 of the NATS project).
//!
//! A message asks for it by a header. What happens is noted while the message is delivered; the server makes JSON of it
//! ([`crate::Crossing::traced`]). Nothing here runs for messages without the header.
//! A message that is only to be traced reaches nobody (B-7).

use std::sync::Arc;

use env::Wall;

use crate::{Account, Kind, Link, Message, Sub};

/// Names the subject that the trace goes to.
pub const TRACE_DEST: &str = "Nats-Trace-Dest";
/// The message is not to be delivered.
pub const TRACE_ONLY: &str = "Nats-Trace-Only";
/// Which of its ways from server to server a message has taken: a number for each server that sent it on, with dots between.
const TRACE_HOP: &str = "Nats-Trace-Hop";
/// What servers set among themselves; a client that sends it gets no trace.
const TRACE_ORIGIN: &str = "Nats-Trace-Origin-Account";
/// The destination that says: not from here on.
pub(crate) const DISABLED: &[u8] = b"trace disabled";

/// Why a subscription did not get a message, in the words of nats-server.
pub(crate) mod why {
    pub const NO_ECHO: &str = "Not delivered because of no echo";
    pub const DENIED: &str = "Not delivered because subscription denies this subject";
    pub const SUB_CLOSED: &str = "Not delivered because subscription is closed";
    pub const CLIENT_CLOSED: &str = "Not delivered because client is closed";
    pub const EXPIRED: &str = "Not delivered because auto-unsubscribe exceeded";
}

/// One step of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A mapping renamed it.
    Mapped {
        /// Its new subject.
        to: Vec<u8>,
    },
    /// It left the account by a stream import of another one.
    StreamExport {
        /// The importer.
        account: Arc<str>,
        /// Its subject there.
        to: Vec<u8>,
    },
    /// It left the account by a service import.
    ServiceImport {
        /// The exporter.
        account: Arc<str>,
        /// Its subject before.
        from: Vec<u8>,
        /// Its subject there.
        to: Vec<u8>,
    },
    /// It went to a connection, or would have.
    Egress {
        /// What the connection is.
        kind: Kind,
        /// The connection.
        cid: u64,
        /// Its account, if that is not the publisher's.
        account: Option<Arc<str>>,
        /// The subscription's subject.
        subject: Vec<u8>,
        /// The subscription's queue; may be empty.
        queue: Vec<u8>,
        /// Why it did not get it.
        error: Option<&'static str>,
    },
    /// It went on to another server, which makes a trace of its own.
    Hop {
        /// What the connection is.
        kind: Kind,
        /// The connection.
        cid: u64,
        /// Which way it takes from here on.
        hop: String,
    },
}

/// What is known of a message that is traced.
#[derive(Debug)]
pub struct Trace {
    /// Where the trace goes, in `account`.
    pub dest: Vec<u8>,
    /// The publisher's account.
    pub account: Arc<Account>,
    /// The message is not delivered (B-7).
    pub only: bool,
    /// The publisher.
    pub from: Arc<Link>,
    /// When it came.
    pub at: Wall,
    /// Its subject as published.
    pub subject: Vec<u8>,
    /// Its header block as published.
    pub header: Vec<u8>,
    /// Bytes of header block and payload.
    pub size: usize,
    /// The subject that the publisher may not publish to, if that ended it.
    pub denied: Option<Vec<u8>>,
    /// What came of it, in order.
    pub steps: Vec<(Wall, Step)>,
    /// Servers that it was sent on to.
    pub hops: u32,
}

impl Trace {
    /// Of a message that has come by `from`.
    pub(crate) fn of(
        dest: Vec<u8>,
        only: bool,
        account: &Arc<Account>,
        from: &Arc<Link>,
        m: &Message<'_>,
    ) -> Box<Trace> {
        Box::new(Trace {
            dest,
            account: account.clone(),
            only,
            from: from.clone(),
            at: env::wall(),
            subject: m.subject.to_vec(),
            header: m.header().to_vec(),
            size: m.body_crlf.len() - 2,
            denied: None,
            steps: Vec::new(),
            hops: 0,
        })
    }
    /// The message as it goes on by `link`: its header block with this way in it, and what follows.
    pub(crate) fn hop(&mut self, link: &Link, m: &Message<'_>) -> (usize, Vec<u8>) {
        self.hops += 1;
        let hop = match wire::headers::get(&self.header, TRACE_HOP).filter(|_| self.from.kind != Kind::Client)
        {
            Some(before) => format!("{}.{}", String::from_utf8_lossy(before), self.hops),
            None => self.hops.to_string(),
        };
        let changed = changed(m, TRACE_HOP, hop.as_bytes());
        self.note(Step::Hop { kind: link.kind, cid: link.id, hop });
        changed
    }
    pub(crate) fn note(&mut self, step: Step) {
        self.steps.push((env::wall(), step));
    }
    /// Notes what became of the delivery to `sub`.
    pub(crate) fn egress(
        &mut self,
        link: &Link,
        sub: &Sub,
        account: Option<&Arc<Account>>,
        error: Option<&'static str>,
    ) {
        let account = account.filter(|a| !Arc::ptr_eq(a, &self.account)).map(|a| a.name.clone());
        let (kind, cid) = (link.kind, link.id);
        let (subject, queue) = (sub.subject().to_vec(), sub.queue().to_vec());
        self.note(Step::Egress { kind, cid, account, subject, queue, error });
    }
}

/// What a header block asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// Nothing.
    None,
    /// A trace to that subject.
    Trace { dest: Vec<u8>, only: bool },
    /// A trace that is not to be made; further servers are told so. Nobody gets the message if it is trace-only.
    Refused { only: bool },
    /// The sampled flag of a W3C `traceparent`: a trace if the account wants one.
    Sampled,
}

/// Whether a block may ask for a trace: the one check that every message with headers pays for.
#[inline]
pub(crate) fn may_ask(account: &Account, block: &[u8]) -> bool {
    wire::headers::holds(block, TRACE_DEST) || (account.has_trace() && holds_traceparent(block))
}

fn holds_traceparent(block: &[u8]) -> bool {
    wire::headers::lines(block).any(|(k, _)| k.eq_ignore_ascii_case(b"traceparent"))
}

/// What a block asks for.
pub(crate) fn wish(block: &[u8]) -> Wish {
    let get = |key| wire::headers::get(block, key);
    let only = get(TRACE_ONLY)
        .is_some_and(|v| v == b"1" || v.eq_ignore_ascii_case(b"true") || v.eq_ignore_ascii_case(b"on"));
    match get(TRACE_DEST) {
        Some(b"") => Wish::None,
        Some(d) if d == DISABLED => Wish::None,
        Some(_) if get(TRACE_ORIGIN).is_some() => Wish::Refused { only },
        Some(d) => Wish::Trace { dest: d.to_vec(), only },
        None if sampled(block) => Wish::Sampled,
        None => Wish::None,
    }
}

/// Whether `traceparent: version-trace-parent-flags` has its lowest flag set.
fn sampled(block: &[u8]) -> bool {
    wire::headers::lines(block).filter(|(k, _)| k.eq_ignore_ascii_case(b"traceparent")).any(|(_, v)| {
        let flags = v.split(|&b| b == b'-').nth(3).and_then(|f| str::from_utf8(f).ok());
        flags
            .filter(|f| f.len() == 2)
            .and_then(|f| u8::from_str_radix(f, 16).ok())
            .is_some_and(|f| f & 1 == 1)
    })
}

/// Whether another server sent it on as a part of a trace.
pub(crate) fn has_hop(block: &[u8]) -> bool {
    wire::headers::get(block, TRACE_HOP).is_some()
}

/// A block whose destination is `dest` from here on.
pub(crate) fn redirected(block: &[u8], dest: &[u8]) -> Vec<u8> {
    replaced(block, TRACE_DEST, dest)
}

/// A message whose header says `value` from here on: the length of its block, and the block and what follows.
pub(crate) fn changed(m: &Message<'_>, key: &str, value: &[u8]) -> (usize, Vec<u8>) {
    let mut body = replaced(m.header(), key, value);
    let header_len = body.len();
    body.extend_from_slice(&m.body_crlf[m.header_len..]);
    (header_len, body)
}

fn replaced(block: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
    let (mut without, mut out) = (Vec::new(), Vec::new());
    wire::headers::push_without(&mut without, block, key);
    wire::headers::push_with(&mut out, &without, key, value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(h: &str) -> Vec<u8> {
        format!("NATS/1.0\r\n{h}\r\n\r\n").into_bytes()
    }

    #[test]
    fn what_a_header_asks_for() {
        let trace = |only| Wish::Trace { dest: b"t.d".to_vec(), only };
        for (h, says) in [
            ("Nats-Trace-Dest: t.d", trace(false)),
            ("Nats-Trace-Dest: t.d\r\nNats-Trace-Only: ON", trace(true)),
            ("Nats-Trace-Dest: t.d\r\nNats-Trace-Only: True", trace(true)),
            ("Nats-Trace-Dest: t.d\r\nNats-Trace-Only: maybe", trace(false)),
            ("Nats-Trace-Only: 1", Wish::None),
            ("nats-trace-dest: t.d", Wish::None),
            ("Nats-Trace-Dest: ", Wish::None),
            ("Nats-Trace-Dest: trace disabled\r\nNats-Trace-Only: 1", Wish::None),
            ("Nats-Trace-Dest: t.d\r\nNats-Trace-Origin-Account: X", Wish::Refused { only: false }),
            ("TraceParent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Wish::Sampled),
            ("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", Wish::None),
            ("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz", Wish::None),
            ("traceparent: 1", Wish::None),
        ] {
            assert_eq!(wish(&block(h)), says, "{h}");
        }
    }

    #[test]
    fn a_destination_is_replaced_at_the_end() {
        let b = redirected(&block("Nats-Trace-Dest: t.d\r\nX: 1"), DISABLED);
        assert_eq!(b, block("X: 1\r\nNats-Trace-Dest: trace disabled"));
    }
}
