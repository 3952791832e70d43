//! An account's part: its streams, its limits, and the desk that takes `$JS.API`, acknowledgements and flow control.
//!
//! A pull, an acknowledgement and a direct get are served in the publisher's task. Every other request is answered in a task of its
//! own, of which there is a bounded number.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::*},
    },
};

use broker::{Account, Counter, Deliveries, Inbound, Kind, Link, LinkOptions, Message, Sub};
use parking_lot::RwLock;
use stream::consumer::AckTokens;

use crate::{AccountLimits, JetStream, handlers, post::Posts, shell::Stream};

/// Where requests begin.
pub const API: &[u8] = b"$JS.API.";

/// The desk's subscriptions, by sid.
const SID_API: &[u8] = b"1";
const SID_ACK: &[u8] = b"2";
const SID_FLOW: &[u8] = b"3";
const SID_DOMAIN: &[u8] = b"4";

/// An account with JetStream, or one that says that it has none.
pub struct Assets {
    pub(crate) node: Weak<JetStream>,
    pub(crate) account: Arc<Account>,
    /// `None` while JetStream is off for it.
    limits: RwLock<Option<AccountLimits>>,
    streams: RwLock<BTreeMap<Arc<str>, Arc<Stream>>>,
    /// Held while a stream is made, changed or deleted.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) posts: Posts,
    pub(crate) desk: Arc<Link>,
    open: AtomicBool,
    /// Requests since the start.
    pub(crate) api_total: Counter,
    /// Those that were answered with an error.
    pub(crate) api_errors: Counter,
}

/// A request that is answered in a task of its own.
pub struct Asked {
    /// The whole subject, as it came.
    pub full: Vec<u8>,
    /// Where the answer goes; may be empty.
    pub reply: Vec<u8>,
    /// The header block; may be empty.
    pub headers: Vec<u8>,
    /// The payload.
    pub body: Vec<u8>,
    /// Who asks.
    pub from: Arc<Link>,
}

/// A link of the engine's own.
pub fn internal(node: &JetStream, inbound: Option<Box<dyn Inbound>>) -> Arc<Link> {
    Link::new(LinkOptions {
        id: node.broker.next_id(),
        kind: Kind::Internal,
        worker: 0,
        pending_bytes_max: 0,
        transport: None,
        inbound,
    })
}

impl Assets {
    /// An account's part, closed: nothing is subscribed yet.
    pub(crate) fn new(node: &Arc<JetStream>, account: &Arc<Account>) -> Arc<Assets> {
        Arc::new_cyclic(|me: &Weak<Assets>| {
            let desk = internal(node, Some(Box::new(Desk(me.clone()))));
            Assets {
                node: Arc::downgrade(node),
                account: account.clone(),
                limits: RwLock::new(None),
                streams: RwLock::default(),
                changing: tokio::sync::Mutex::default(),
                posts: Posts::new(node.broker.clone(), desk.clone(), account.clone()),
                desk,
                open: AtomicBool::new(false),
                api_total: Counter::default(),
                api_errors: Counter::default(),
            }
        })
    }

    /// Turns JetStream on with these limits, or off. Requests are taken in both cases: what is off says so.
    pub(crate) fn set_limits(self: &Arc<Assets>, node: &JetStream, limits: Option<AccountLimits>) {
        let on = limits.is_some();
        let before = std::mem::replace(&mut *self.limits.write(), limits).is_some();
        if !self.open.swap(true, AcqRel) {
            let subscribe = |sid: &[u8], subject: &[u8]| {
                self.desk
                    .subscribe(&self.account, sid, subject, b"", false)
                    .expect("a new link is open and without limits");
            };
            subscribe(SID_API, b"$JS.API.>");
            subscribe(SID_ACK, b"$JS.ACK.>");
            subscribe(SID_FLOW, b"$JS.FC.>");
            if let Some(domain) = &node.options.domain {
                subscribe(SID_DOMAIN, format!("$JS.{domain}.API.>").as_bytes());
            }
        }
        if on != before {
            for s in self.streams() {
                if on { s.listen() } else { s.unlisten() }
            }
        }
    }
    /// Its limits; `None` if JetStream is off for it.
    pub fn limits(&self) -> Option<AccountLimits> {
        *self.limits.read()
    }
    /// A stream by its name.
    pub fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        self.streams.read().get(name).cloned()
    }
    /// All streams, by name.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.streams.read().values().cloned().collect()
    }
    pub(crate) fn add(&self, s: &Arc<Stream>) {
        self.streams.write().insert(s.name.clone(), s.clone());
    }
    pub(crate) fn remove(&self, name: &str) {
        self.streams.write().remove(name);
    }

    /// A message for `$JS.API.`; `rest` is the subject behind it. False if nobody is there to take it.
    fn request(
        self: &Arc<Assets>,
        d: &mut Deliveries,
        full: &[u8],
        rest: &[u8],
        from: &Arc<Link>,
        m: &Message<'_>,
    ) -> bool {
        let enabled = self.limits.read().is_some();
        if enabled {
            if let Some(of) = rest.strip_prefix(b"CONSUMER.MSG.NEXT.") {
                let mut t = of.splitn(2, |b| *b == b'.');
                let (Some(s), Some(c)) = (t.next(), t.next()) else { return true };
                let Some(stream) = named(s).and_then(|s| self.stream(s)) else { return false };
                let Some(consumer) = named(c) else { return false };
                return stream.pull(consumer, m.reply, m.header(), m.payload());
            }
            if let Some(of) = rest.strip_prefix(b"DIRECT.GET.") {
                let mut t = of.splitn(2, |b| *b == b'.');
                let Some(stream) = t.next().and_then(named).and_then(|s| self.stream(s)) else {
                    return false;
                };
                return stream.direct_get(d, t.next(), m.reply, m.header(), m.payload());
            }
        }
        let Some(node) = self.node.upgrade() else { return false };
        let Some(place) = node.place() else {
            node.overloaded(self);
            return true;
        };
        let asked = Asked {
            full: full.to_vec(),
            reply: m.reply.to_vec(),
            headers: m.header().to_vec(),
            body: m.payload().to_vec(),
            from: from.clone(),
        };
        let me = self.clone();
        env::spawn(async move {
            handlers::serve(&node, &me, asked).await;
            drop(place);
        });
        true
    }

    /// An acknowledgement. False if its consumer is not here.
    fn ack(&self, m: &Message<'_>) -> bool {
        let Some(t) = AckTokens::parse(m.subject) else { return false };
        let (Some(s), Some(c)) = (named(t.stream), named(t.consumer)) else { return false };
        self.stream(s).is_some_and(|stream| stream.ack(c, &t, m.reply, m.payload()))
    }

    /// An answer to a flow control request.
    fn flow(&self, m: &Message<'_>) -> bool {
        let rest = &m.subject[b"$JS.FC.".len()..];
        let count = subject::tokens(rest).count();
        let mut t = subject::tokens(rest);
        if count >= 5 {
            t.next();
            t.next();
        }
        let (Some(s), Some(c)) = (t.next().and_then(named), t.next().and_then(named)) else { return false };
        self.stream(s).is_some_and(|stream| stream.flow(c, m.subject, m.header()))
    }

    /// A message to this account's requests under the domain's own prefix: it goes on under the plain one.
    fn of_domain(&self, d: &mut Deliveries, sub: &Sub, from: &Arc<Link>, m: &Message<'_>) -> bool {
        let prefix = sub.subject().len() - 1;
        let Some(rest) = m.subject.get(prefix..) else { return false };
        let to = if rest.starts_with(b"$KV.") || rest.starts_with(b"$OBJ.") {
            rest.to_vec()
        } else {
            [API, rest].concat()
        };
        d.publish(&self.account, from, &Message { subject: &to, ..*m }) > 0
    }
}

/// A token that can be a name.
pub fn named(token: &[u8]) -> Option<&str> {
    str::from_utf8(token).ok()
}

/// Who takes an account's messages.
struct Desk(Weak<Assets>);

impl Inbound for Desk {
    fn deliver(&self, d: &mut Deliveries, sub: &Sub, from: &Arc<Link>, m: &Message<'_>) -> bool {
        let Some(assets) = self.0.upgrade() else { return false };
        if d.is_trace_only() {
            return false;
        }
        match sub.sid() {
            SID_API => assets.request(d, m.subject, &m.subject[API.len()..], from, m),
            SID_ACK => assets.ack(m),
            SID_FLOW => assets.flow(m),
            SID_DOMAIN => assets.of_domain(d, sub, from, m),
            _ => false,
        }
    }
}
