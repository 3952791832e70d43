//! What the broker knows of a connection: its outbox, its subscriptions, its flags and counters.

use std::{
    fmt,
    io::{self, IoSlice},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
};

use env::{Instant, ShortMutex};
use hashbrown::{HashTable, hash_table::Entry};
use identity::{Permissions, ReplyGrants};
use keyed::hash;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::{
    Account, Counter, Message, Out, Sub, SubscribeError, Traffic,
    outbox::{self, Flushed},
    router::Deliveries,
    sub::Extra,
};

/// Where a link's bytes go. Its calls never block.
pub trait Transport: Send + Sync {
    /// Writes what fits, or `WouldBlock`.
    fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Whether bytes that were accepted are still to be written (a layer between holds them).
    fn has_pending(&self) -> bool {
        false
    }
}

/// A receiver inside the server. Called in the publisher's task: it must be short and must not block.
pub trait Inbound: Send + Sync {
    /// Takes one message of `from`. Further messages may be sent through `d`. False if, after all, nobody got it.
    fn deliver(&self, d: &mut Deliveries, sub: &Sub, from: &Arc<Link>, m: &Message<'_>) -> bool;
    /// Whether it takes several messages at once: then those that follow each other may come by [`Inbound::deliver_run`].
    fn takes_runs(&self) -> bool {
        false
    }
    /// Takes messages that follow each other, from the front, and says how many it has taken. The others come one by one, so that it may stop
    /// wherever that is simpler.
    fn deliver_run(&self, d: &mut Deliveries, ms: &[Message<'_>]) -> usize {
        let _ = (d, ms);
        0
    }
    /// Whether it serves the connections of this server alone, so that other servers of the cluster are not told of it.
    fn is_local(&self) -> bool {
        false
    }
    /// Whether it acts on what it is told, as a service of the server: then only what somebody has published is told to it, and nothing that the server
    /// itself says (B-11).
    fn serves(&self) -> bool;
    /// Whether somebody is behind it who waits for messages to `subject`, as a client that has subscribed does; see [`Account::listens`].
    fn listens(&self, subject: &[u8]) -> bool;
}

/// What is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A client of any transport.
    Client,
    /// Another server of the cluster.
    Route,
    /// A server of another cluster.
    Gateway,
    /// A leaf node.
    Leaf,
    /// The server itself: $SYS, JetStream, imports.
    Internal,
}

/// Switches of a link, set by CONNECT.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LinkFlags(u32);

impl LinkFlags {
    /// Own messages come back.
    pub const ECHO: LinkFlags = LinkFlags(1);
    /// The peer takes headers.
    pub const HEADERS: LinkFlags = LinkFlags(2);
    /// A request without receivers is answered with 503.
    pub const NO_RESPONDERS: LinkFlags = LinkFlags(4);
    /// A delivered reply subject may be published to (allow_responses).
    pub const GRANTS_REPLIES: LinkFlags = LinkFlags(8);
    /// What it sends is the server's own word (an answer, a delivery, an event) and never a request (B-11): others say where it goes.
    pub const NO_REQUESTS: LinkFlags = LinkFlags(16);
    /// What it is sent is reported (`Crossing::sent`).
    pub const TRACED: LinkFlags = LinkFlags(32);

    /// Both.
    pub const fn with(self, o: LinkFlags) -> LinkFlags {
        LinkFlags(self.0 | o.0)
    }
    /// `o` if `on`.
    pub fn with_if(self, on: bool, o: LinkFlags) -> LinkFlags {
        if on { self.with(o) } else { self }
    }
    /// Whether all of `o` are set.
    pub fn has(self, o: LinkFlags) -> bool {
        self.0 & o.0 == o.0
    }
    /// Whether one of `o` is set.
    pub fn any(self, o: LinkFlags) -> bool {
        self.0 & o.0 != 0
    }
}

/// Why a link ended, in the words of nats-server's monitoring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Closed {
    ClientClosed,
    AuthenticationTimeout,
    AuthenticationFailure,
    TlsHandshakeFailure,
    SlowConsumerPendingBytes,
    SlowConsumerWriteDeadline,
    WriteError,
    ReadError,
    ParseError,
    StaleConnection,
    ProtocolViolation,
    BadClientProtocolVersion,
    IncorrectPort,
    MaximumAccountConnectionsExceeded,
    MaximumConnectionsExceeded,
    MaximumMessagePayloadExceeded,
    MaximumControlLineExceeded,
    MaximumSubscriptionsExceeded,
    DuplicateRoute,
    RouteRemoved,
    ServerShutdown,
    AuthenticationExpired,
    WrongGateway,
    MissingAccount,
    CredentialsRevoked,
    InternalClient,
    MessageHeaderViolation,
    NoRespondersRequiresHeaders,
    ClusterNameConflict,
    DuplicateRemoteLeafNodeConnection,
    DuplicateClientId,
    DuplicateServerName,
    MinimumVersionRequired,
    ClusterNamesIdentical,
    Kicked,
    ProxyNotTrusted,
    ProxyRequired,
}

impl Closed {
    /// The text in connz and in disconnect events.
    pub fn text(self) -> &'static str {
        use Closed::*;
        match self {
            ClientClosed => "Client Closed",
            AuthenticationTimeout => "Authentication Timeout",
            AuthenticationFailure => "Authentication Failure",
            TlsHandshakeFailure => "TLS Handshake Failure",
            SlowConsumerPendingBytes => "Slow Consumer (Pending Bytes)",
            SlowConsumerWriteDeadline => "Slow Consumer (Write Deadline)",
            WriteError => "Write Error",
            ReadError => "Read Error",
            ParseError => "Parse Error",
            StaleConnection => "Stale Connection",
            ProtocolViolation => "Protocol Violation",
            BadClientProtocolVersion => "Bad Client Protocol Version",
            IncorrectPort => "Incorrect Port",
            MaximumAccountConnectionsExceeded => "Maximum Account Connections Exceeded",
            MaximumConnectionsExceeded => "Maximum Connections Exceeded",
            MaximumMessagePayloadExceeded => "Maximum Message Payload Exceeded",
            MaximumControlLineExceeded => "Maximum Control Line Exceeded",
            MaximumSubscriptionsExceeded => "Maximum Subscriptions Exceeded",
            DuplicateRoute => "Duplicate Route",
            RouteRemoved => "Route Removed",
            ServerShutdown => "Server Shutdown",
            AuthenticationExpired => "Authentication Expired",
            WrongGateway => "Wrong Gateway",
            MissingAccount => "Missing Account",
            CredentialsRevoked => "Credentials Revoked",
            InternalClient => "Internal Client",
            MessageHeaderViolation => "Message Header Violation",
            NoRespondersRequiresHeaders => "No Responders Requires Headers",
            ClusterNameConflict => "Cluster Name Conflict",
            DuplicateRemoteLeafNodeConnection => "Duplicate Remote LeafNode Connection",
            DuplicateClientId => "Duplicate Client ID",
            DuplicateServerName => "Duplicate Server Name",
            MinimumVersionRequired => "Minimum Version Required",
            ClusterNamesIdentical => "Cluster Names Identical",
            Kicked => "Kicked",
            ProxyNotTrusted => "Proxy Not Trusted",
            ProxyRequired => "Proxy Required",
        }
    }
}

/// How a link begins.
pub struct LinkOptions {
    /// Unique in this server's life.
    pub id: u64,
    /// What is at the other end.
    pub kind: Kind,
    /// The worker that owns it.
    pub worker: usize,
    /// Largest outbox in bytes (B-5).
    pub pending_bytes_max: usize,
    /// Where its bytes go; none for internal links.
    pub transport: Option<Arc<dyn Transport>>,
    /// Who takes the messages of an internal link.
    pub inbound: Option<Box<dyn Inbound>>,
}

/// A connection, as the broker and everybody else sees it.
pub struct Link {
    /// Unique in this server's life; `cid` in monitoring.
    pub id: u64,
    /// What is at the other end.
    pub kind: Kind,
    /// The worker that owns it.
    pub worker: usize,
    flags: AtomicU32,
    closed: OnceLock<Closed>,
    stall: AtomicBool,
    /// Closed for answers that it did not read; counted as a slow consumer when it is removed.
    pub(crate) overfull: AtomicBool,
    pending_bytes_max: AtomicUsize,
    pub(crate) out: ShortMutex<Out>,
    subs: Mutex<HashTable<Arc<Sub>>>,
    /// Shadows of its subscriptions in the accounts that its account imports streams from.
    shadows: Mutex<Vec<Arc<Sub>>>,
    subs_max: AtomicUsize,
    permissions: RwLock<Option<Arc<Permissions>>>,
    replies: Mutex<Option<Box<ReplyGrants>>>,
    account: RwLock<Option<Arc<Account>>>,
    pub(crate) inbound: Option<Box<dyn Inbound>>,
    /// What it carries from another account, if it is the internal link of a stream import's shadow.
    pub(crate) shadow: Option<Box<Extra>>,
    /// Messages that came in.
    pub in_msgs: Counter,
    /// Their bytes.
    pub in_bytes: Counter,
    /// Wakes the owner: it is closed, or blocked and to be watched, or settings have changed.
    pub wake: Notify,
}

impl Link {
    /// A link without account and subscriptions.
    pub fn new(o: LinkOptions) -> Arc<Link> {
        Arc::new(Link::build(o, None))
    }
    /// The internal link of one shadow of a stream import.
    fn for_shadow(extra: Extra) -> Arc<Link> {
        let o = LinkOptions {
            id: extra.parent.link.id,
            kind: Kind::Internal,
            worker: 0,
            pending_bytes_max: 0,
            transport: None,
            inbound: None,
        };
        Arc::new(Link::build(o, Some(Box::new(extra))))
    }
    fn build(o: LinkOptions, shadow: Option<Box<Extra>>) -> Link {
        Link {
            id: o.id,
            kind: o.kind,
            worker: o.worker,
            flags: AtomicU32::new(LinkFlags::ECHO.0),
            closed: OnceLock::new(),
            stall: AtomicBool::new(false),
            overfull: AtomicBool::new(false),
            pending_bytes_max: AtomicUsize::new(o.pending_bytes_max),
            out: ShortMutex::new(Out::new(o.transport)),
            subs: Mutex::new(HashTable::new()),
            shadows: Mutex::new(Vec::new()),
            subs_max: AtomicUsize::new(usize::MAX),
            permissions: RwLock::new(None),
            replies: Mutex::new(None),
            account: RwLock::new(None),
            inbound: o.inbound,
            shadow,
            in_msgs: Counter::default(),
            in_bytes: Counter::default(),
            wake: Notify::new(),
        }
    }

    /// The switches.
    #[inline]
    pub fn flags(&self) -> LinkFlags {
        LinkFlags(self.flags.load(Relaxed))
    }
    /// Sets all switches but the mark of a traced link.
    pub fn set_flags(&self, f: LinkFlags) {
        let traced = self.flags.load(Relaxed) & LinkFlags::TRACED.0;
        self.flags.store(f.0 & !LinkFlags::TRACED.0 | traced, Relaxed);
    }
    /// Whether what it is sent is reported.
    pub fn set_traced(&self, on: bool) {
        match on {
            true => self.flags.fetch_or(LinkFlags::TRACED.0, Relaxed),
            false => self.flags.fetch_and(!LinkFlags::TRACED.0, Relaxed),
        };
    }
    /// The account that it is bound to.
    pub fn account(&self) -> Option<Arc<Account>> {
        self.account.read().clone()
    }
    pub(crate) fn set_account(&self, a: Option<Arc<Account>>) {
        *self.account.write() = a;
    }
    /// The user's permissions.
    pub fn permissions(&self) -> Option<Arc<Permissions>> {
        self.permissions.read().clone()
    }
    /// Sets the user's permissions, and the dynamic grants that they ask for.
    pub fn set_permissions(&self, p: Option<Arc<Permissions>>) {
        let grants = p.as_ref().and_then(|p| p.responses()).map(|r| Box::new(ReplyGrants::new(r)));
        let flags = self.flags.load(Relaxed) & !LinkFlags::GRANTS_REPLIES.0;
        self.set_flags(LinkFlags(flags).with_if(grants.is_some(), LinkFlags::GRANTS_REPLIES));
        *self.replies.lock() = grants;
        *self.permissions.write() = p;
    }
    /// Notes a delivered reply subject as one that may be answered (allow_responses).
    pub(crate) fn grant_reply(&self, reply: &[u8]) {
        if self.permissions().is_some_and(|p| p.can_publish(reply)) {
            return;
        }
        if let Some(g) = &mut *self.replies.lock() {
            g.grant(reply, env::wall().0);
        }
    }
    /// Uses up one granted answer to `subject`.
    pub(crate) fn use_reply(&self, subject: &[u8]) -> bool {
        self.replies.lock().as_mut().is_some_and(|g| g.take(subject, env::wall().0))
    }
    /// Largest number of subscriptions.
    pub fn set_subscriptions_max(&self, n: usize) {
        self.subs_max.store(n, Relaxed);
    }
    /// Largest number of subscriptions.
    pub fn subscriptions_max(&self) -> usize {
        self.subs_max.load(Relaxed)
    }
    /// Largest outbox in bytes.
    pub fn set_pending_bytes_max(&self, n: usize) {
        self.pending_bytes_max.store(n, Relaxed);
    }
    #[inline]
    pub(crate) fn pending_bytes_max(&self) -> usize {
        self.pending_bytes_max.load(Relaxed)
    }

    /// Why it is closed, once it is.
    pub fn closed(&self) -> Option<Closed> {
        self.closed.get().copied()
    }
    /// Marks it closed and wakes its owner, who ends it. The first reason stays.
    pub fn close(&self, reason: Closed) {
        if self.closed.set(reason).is_ok() {
            self.wake.notify_one();
        }
    }

    /// Appends control bytes (INFO, PING, -ERR …) to the outbox. The caller flushes.
    pub fn push(&self, f: impl FnOnce(&mut Vec<u8>)) {
        let mut v = Vec::new();
        f(&mut v);
        let mut out = self.out.lock();
        if out.closed {
            return;
        }
        out.room(v.len()).extend_from_slice(&v);
        let full = out.pending() > self.pending_bytes_max();
        drop(out);
        if full && !env::planted!("answers-unbounded") {
            self.overfull();
        }
    }
    /// Who causes answers and does not read them (PONGs, +OK, -ERR) is a slow consumer too (B-5).
    #[cold]
    #[inline(never)]
    fn overfull(&self) {
        // Perhaps the bytes are only waiting for the end of this batch.
        self.flush();
        if self.pending_bytes() > self.pending_bytes_max() {
            env::reachable!("an outbox overflows with answers");
            self.overfull.store(self.closed().is_none(), Relaxed);
            self.close(Closed::SlowConsumerPendingBytes);
            self.dismantle();
        }
    }
    /// Writes what the outbox holds, as far as the socket takes it.
    pub fn flush(&self) {
        self.flush_and(false);
    }
    /// The same in the middle of a batch: who has undertaken to flush at its end (B-6) still will.
    pub(crate) fn flush_some(&self) {
        self.flush_and(true);
    }
    fn flush_and(&self, again: bool) {
        match outbox::flush(&self.out, again, env::now) {
            Flushed::Done => {}
            // The owner waits until the socket takes more.
            Flushed::Blocked if env::planted!("lost-wakeup-after-block") => {}
            Flushed::Blocked => {
                env::reachable!("a socket takes no more");
                self.wake.notify_one()
            }
            Flushed::Failed => self.close(Closed::WriteError),
        }
    }
    /// Since when the socket has taken nothing, if bytes wait.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.out.lock().blocked_since
    }
    /// Unwritten bytes.
    pub fn pending_bytes(&self) -> usize {
        self.out.lock().pending()
    }
    /// The pieces in which they wait.
    pub fn pending_pieces(&self) -> usize {
        self.out.lock().pieces()
    }
    /// Deliveries to this link.
    pub fn out_traffic(&self) -> Traffic {
        let out = self.out.lock();
        Traffic { msgs: out.msgs, bytes: out.bytes }
    }
    /// Takes deliveries that were no messages of anybody's out of the count.
    pub(crate) fn uncount(&self, msgs: u64, bytes: u64) {
        let mut out = self.out.lock();
        out.msgs -= msgs;
        out.bytes -= bytes;
    }
    /// Whether publishers should wait a little for this receiver (its outbox is three quarters full).
    pub fn is_congested(&self) -> bool {
        self.stall.load(Relaxed)
    }
    pub(crate) fn set_congested(&self, on: bool) {
        self.stall.store(on, Relaxed);
    }
    /// Lets go of the outbox and of the transport. Nothing is delivered any more.
    pub fn dismantle(&self) {
        self.out.lock().close();
    }

    /// Subscribes in `account`. A sid that is in use stays as it is (`Ok(None)`).
    pub fn subscribe(
        self: &Arc<Link>,
        account: &Arc<Account>,
        sid: &[u8],
        subject: &[u8],
        queue: &[u8],
        filtered: bool,
    ) -> Result<Option<Arc<Sub>>, SubscribeError> {
        let sub = {
            let mut subs = self.subs.lock();
            if self.closed().is_some() {
                return Err(SubscribeError::Closed);
            }
            // Also one that is there already is one too many, as with nats-server.
            if subs.len() >= self.subs_max.load(Relaxed) {
                return Err(SubscribeError::TooMany);
            }
            match subs.entry(hash(sid), |s| s.sid() == sid, |s| hash(s.sid())) {
                Entry::Occupied(_) => return Ok(None),
                Entry::Vacant(v) => {
                    let sub = Arc::new(Sub::new(self.clone(), sid, subject, queue, filtered));
                    v.insert(sub.clone());
                    sub
                }
            }
        };
        account.insert(&sub);
        self.add_shadows(account, &sub);
        Ok(Some(sub))
    }
    /// Subscribes in the accounts from which `account` imports what `sub` may match.
    fn add_shadows(self: &Arc<Link>, account: &Account, sub: &Arc<Sub>) {
        for import in account.stream_imports().iter() {
            let Some((pattern, inward)) = import.shadow(sub.subject()) else { continue };
            let extra = Extra {
                account: import.exporter.clone(),
                parent: sub.clone(),
                inward,
                allow_trace: import.allow_trace,
            };
            let shadow = Sub::new(Link::for_shadow(extra), sub.sid(), &pattern, sub.queue(), false);
            let shadow = Arc::new(shadow);
            self.shadows.lock().push(shadow.clone());
            import.exporter.insert(&shadow);
        }
    }
    /// Removes the shadows of `of`, or all.
    fn remove_shadows(&self, of: Option<&Arc<Sub>>) {
        let gone: Vec<_> = {
            let mut all = self.shadows.lock();
            if all.is_empty() {
                return;
            }
            all.extract_if(.., |s| of.is_none_or(|o| s.extra().is_some_and(|e| Arc::ptr_eq(&e.parent, o))))
                .collect()
        };
        for s in gone {
            s.close();
            if let Some(e) = s.extra() {
                e.account.remove(&s);
            }
        }
    }
    /// The account's imports have changed.
    pub(crate) fn renew_shadows(self: &Arc<Link>, account: &Account) {
        self.remove_shadows(None);
        for s in self.list_subscriptions() {
            self.add_shadows(account, &s);
        }
    }
    /// Ends a subscription now, or after `max` deliveries counted from SUB. Returns it if it has ended.
    pub fn unsubscribe(&self, account: &Account, sid: &[u8], max: u64) -> Option<Arc<Sub>> {
        let mut subs = self.subs.lock();
        let Ok(entry) = subs.find_entry(hash(sid), |s| s.sid() == sid) else { return None };
        if max != 0 {
            let sub = entry.get();
            // Deliveries count under the outbox's lock.
            let out = self.out.lock();
            if sub.delivered() < max {
                let max = max + u64::from(env::planted!("max-off-by-one"));
                sub.set_max(max);
                return None;
            }
            drop(out);
        }
        let (sub, _) = entry.remove();
        drop(subs);
        sub.close();
        if !env::planted!("unsub-keeps-interest") {
            account.remove(&sub);
        }
        self.remove_shadows(Some(&sub));
        Some(sub)
    }
    /// Removes a subscription that has had its maximum.
    pub(crate) fn expire(&self, sub: &Arc<Sub>) {
        if let Ok(entry) = self.subs.lock().find_entry(hash(sub.sid()), |s| Arc::ptr_eq(s, sub)) {
            entry.remove();
        }
        sub.close();
        if let Some(account) = self.account() {
            account.remove(sub);
        }
        self.remove_shadows(Some(sub));
    }
    /// Takes all subscriptions away, out of `account`'s interest too.
    pub fn unsubscribe_all(&self, account: Option<&Account>) -> Vec<Arc<Sub>> {
        let mut all: Vec<_> = std::mem::take(&mut *self.subs.lock()).into_iter().collect();
        all.sort_by(|a, b| (a.sid().len(), a.sid()).cmp(&(b.sid().len(), b.sid())));
        for s in &all {
            s.close();
        }
        self.remove_shadows(None);
        if let Some(a) = account {
            a.remove_all(&all);
        }
        all
    }
    /// Enters a subscription of a route, which is found by account, subject and queue. Returns the one that is there.
    pub(crate) fn insert_route_sub(&self, sub: &Arc<Sub>) -> Result<Option<Arc<Sub>>, SubscribeError> {
        let mut subs = self.subs.lock();
        if self.closed().is_some() {
            return Err(SubscribeError::Closed);
        }
        match subs.entry(hash(sub.text()), |s| s.is_same_as(sub), |s| hash(s.text())) {
            Entry::Occupied(e) => Ok(Some(e.get().clone())),
            Entry::Vacant(v) => {
                v.insert(sub.clone());
                Ok(None)
            }
        }
    }
    /// Takes a subscription of a route out.
    pub(crate) fn remove_route_sub(&self, token: &[u8], subject: &[u8], queue: &[u8]) -> Option<Arc<Sub>> {
        let text = [token, subject, queue].concat();
        let is_it = |s: &Arc<Sub>| s.sid() == token && s.subject() == subject && s.queue() == queue;
        match self.subs.lock().find_entry(hash(&text), is_it) {
            Ok(e) => Some(e.remove().0),
            Err(_) => None,
        }
    }
    /// Takes all subscriptions out of this link, and leaves them in their accounts.
    pub(crate) fn take_all_subs(&self) -> Vec<Arc<Sub>> {
        std::mem::take(&mut *self.subs.lock()).into_iter().collect()
    }
    /// Number of subscriptions.
    pub fn subscriptions(&self) -> usize {
        self.subs.lock().len()
    }
    /// Whether the sid is in use.
    pub fn has_sid(&self, sid: &[u8]) -> bool {
        self.subs.lock().find(hash(sid), |s| s.sid() == sid).is_some()
    }
    /// All subscriptions, in the order of their sids.
    pub fn list_subscriptions(&self) -> Vec<Arc<Sub>> {
        let mut all: Vec<_> = self.subs.lock().iter().cloned().collect();
        all.sort_by(|a, b| (a.sid().len(), a.sid()).cmp(&(b.sid().len(), b.sid())));
        all
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}
