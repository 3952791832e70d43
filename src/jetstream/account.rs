//! An account's part: its streams, its limits, and the desk that takes `$JS.API`, acknowledgements and flow control.
//!
//! A pull, an acknowledgement and a direct get are served in the publisher's task. Every other request is answered in a task of its
//! own, of which there is a bounded number.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::*},
    },
    time::Duration,
};

use broker::{Account, Counter, Deliveries, Inbound, Kind, Link, LinkFlags, LinkOptions, Message, Sub};
use bytes::Bytes;
use env::Instant;
use parking_lot::{Mutex, RwLock};
use replica::NodeId;
use stream::{
    Now,
    consumer::{AckKind, AckTokens},
};

use crate::{
    AccountLimits, ClientInfo, JetStream,
    cluster::{
        calls::{Forward, Way},
        status::hash_of,
    },
    handlers,
    making::Making,
    meta::{Assigned, stands_in},
    node::Place,
    post::Posts,
    quota::Quota,
    shell::Stream,
};

/// Where requests begin.
pub const API: &[u8] = b"$JS.API.";
/// What the subjects of acknowledgements begin with.
pub const ACK: &[u8] = b"$JS.ACK.";

/// How long a message that another server gave on waits for interest in its answer, and how often it looks.
const INTEREST_MAX: Duration = Duration::from_millis(500);
const INTEREST_LOOK: Duration = Duration::from_millis(1);

/// Where pulls begin behind that, and direct gets.
const PULL: &[u8] = b"CONSUMER.MSG.NEXT.";
const DIRECT: &[u8] = b"DIRECT.GET.";

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
    /// Whose turn it is to change a stream, and which are being made.
    pub(crate) making: Making,
    /// What its streams store, and may.
    pub(crate) quota: Arc<Quota>,
    pub(crate) posts: Posts,
    pub(crate) desk: Arc<Link>,
    /// What stands before the stream in the newer layout of acknowledgements: domain and the account's hash.
    ack_place: [String; 2],
    /// Messages for streams from other nodes, which wait for interest in their answers.
    early: Mutex<EarlyOnes>,
    open: AtomicBool,
    /// Requests since the start.
    pub(crate) api_total: Counter,
    /// Those that were answered with an error.
    pub(crate) api_errors: Counter,
}

/// A message that another node gave on before it was known who waits for its answer.
struct Early {
    from: NodeId,
    bytes: Bytes,
    until: Instant,
    _place: Place,
}

/// Those that keep their order.
#[derive(Default)]
struct EarlyOnes {
    waiting: VecDeque<Early>,
    /// A task takes them one by one; what comes meanwhile waits as well.
    runs: bool,
}

/// A request that is answered in a task of its own.
#[derive(Default)]
pub struct Asked {
    /// The whole subject, as it came.
    pub full: Vec<u8>,
    /// Where the answer goes; may be empty.
    pub reply: Vec<u8>,
    /// The header block; may be empty.
    pub headers: Vec<u8>,
    /// The payload.
    pub body: Vec<u8>,
    /// Who asks; `None` if another node does in a client's name.
    pub from: Option<Arc<Link>>,
}

impl Asked {
    /// What advisories in `account` say of who asks.
    pub(crate) fn client(&self, node: &JetStream, account: &Account) -> ClientInfo {
        let client = |link: &Arc<Link>| node.host.client(link, &account.name, &self.headers);
        self.from.as_ref().map(client).unwrap_or_default()
    }
}

/// The desks of all servers are one queue group: of those that a request could go to one takes it, the server's own before all others.
pub const DESKS: &[u8] = broker::LOCAL_FIRST;

/// A link of the engine's own: what it sends goes where others say, and is no request (B-11).
pub fn internal(node: &JetStream, inbound: Option<Box<dyn Inbound>>) -> Arc<Link> {
    let link = Link::new(LinkOptions {
        id: node.broker.next_id(),
        kind: Kind::Internal,
        worker: 0,
        pending_bytes_max: 0,
        transport: None,
        inbound,
    });
    link.set_flags(LinkFlags::ECHO.with(LinkFlags::NO_REQUESTS));
    link
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
                making: Making::default(),
                quota: Arc::default(),
                posts: Posts::new(node.broker.clone(), desk.clone(), account.clone()),
                desk,
                ack_place: [
                    node.options.domain.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| "_".to_owned()),
                    hash_of(&account.name),
                ],
                early: Mutex::default(),
                open: AtomicBool::new(false),
                api_total: Counter::default(),
                api_errors: Counter::default(),
            }
        })
    }

    /// Turns JetStream on with these limits, or off. Requests are taken in both cases: what is off says so.
    pub(crate) fn set_limits(self: &Arc<Assets>, node: &JetStream, limits: Option<AccountLimits>) {
        let on = limits.is_some();
        self.quota.limit(limits.as_ref());
        let before = std::mem::replace(&mut *self.limits.write(), limits).is_some();
        if !self.open.swap(true, AcqRel) && !node.is_expelled() {
            let queue = if node.is_clustered() { DESKS } else { b"" };
            let subscribe = |sid: &[u8], subject: &[u8]| {
                self.desk
                    .subscribe(&self.account, sid, subject, queue, false)
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
    /// A stream by its group.
    pub(crate) fn stream_by_id(&self, id: u64) -> Option<Arc<Stream>> {
        self.streams.read().values().find(|s| s.id == id).cloned()
    }
    /// All streams, by name.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.streams.read().values().cloned().collect()
    }
    pub(crate) fn add(&self, s: &Arc<Stream>) {
        self.streams.write().insert(s.name.clone(), s.clone());
    }
    /// Takes a stream out, unless another one has its name by now.
    pub(crate) fn remove(&self, stream: &Stream) {
        let mut all = self.streams.write();
        if all.get(&stream.name).is_some_and(|s| s.id == stream.id) {
            all.remove(&stream.name);
        }
    }

    /// A message for `$JS.API.`; `rest` is the subject behind it. False if nobody is there to take it.
    fn request(
        self: &Arc<Assets>,
        d: &mut Deliveries,
        sub: &Sub,
        rest: &[u8],
        from: &Arc<Link>,
        m: &Message<'_>,
    ) -> bool {
        let full = m.subject;
        let enabled = self.limits.read().is_some();
        if !enabled && imports_api(&self.account) {
            return false;
        }
        let way = if rest.starts_with(PULL) {
            Some(Way::Pull)
        } else if rest.starts_with(DIRECT) {
            Some(Way::Direct)
        } else {
            None
        };
        if let Some(way) = way {
            let taken = enabled
                && (way == Way::Direct && self.gather_direct(d, sub, m) || self.data(d, way, full, m));
            return taken || self.refuses_last(from, m);
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
            from: Some(from.clone()),
        };
        let me = self.clone();
        env::spawn(async move {
            // By itself: a task is moved about several times at its beginning and its end, with room for the largest of all requests.
            Box::pin(handlers::serve(&node, &me, asked)).await;
            drop(place);
        });
        true
    }

    /// Says that nobody is there, where nobody else can: who publishes was told by a route that somebody is.
    fn refuses_last(self: &Arc<Assets>, from: &Link, m: &Message<'_>) -> bool {
        let node = self.node.upgrade().filter(|n| from.kind == Kind::Route && n.is_clustered());
        let Some(place) = node.filter(|_| !m.reply.is_empty()).and_then(|n| n.place()) else { return false };
        if self.posts.has_interest(m.reply) {
            self.nobody(m.subject, m.reply);
            return true;
        }
        let (me, subject, reply) = (self.clone(), m.subject.to_vec(), m.reply.to_vec());
        env::spawn(async move {
            me.await_interest(&reply).await;
            me.nobody(&subject, &reply);
            drop(place);
        });
        true
    }
    /// Answers a request that nobody takes, as a server does where nobody has subscribed.
    pub(crate) fn nobody(&self, subject: &[u8], reply: &[u8]) {
        let head = [b"NATS/1.0 503\r\nNats-Subject: ", subject, b"\r\n\r\n"].concat();
        self.posts.take().status(reply, &head);
    }

    /// Whether a direct get of a subject's last message waits for the others of its batch.
    fn gather_direct(&self, d: &mut Deliveries, sub: &Sub, m: &Message<'_>) -> bool {
        if m.body_crlf.len() > 2 || m.reply.is_empty() {
            return false;
        }
        let before = API.len() + DIRECT.len();
        let Some(end) = m.subject.get(before..).and_then(|rest| rest.iter().position(|b| *b == b'.')) else {
            return false;
        };
        let stream = named(&m.subject[before..before + end]).and_then(|name| self.stream(name));
        let Some((stream, node)) = stream.zip(self.node.upgrade()) else { return false };
        let serves = !node.is_clustered() || stream.takes() || stream.is_current();
        serves && stream.allows_direct() && d.gather(sub, before + end + 1, m, || stream.clone())
    }
    /// Whether an acknowledgement that nobody wants to have confirmed waits for the others of its batch.
    fn gather_ack(&self, d: &mut Deliveries, sub: &Sub, m: &Message<'_>) -> bool {
        if !m.reply.is_empty() || !matches!(AckKind::parse(m.body()), AckKind::Ack) {
            return false;
        }
        let Some(t) = AckTokens::parse(m.subject).filter(|t| t.place.is_none()) else { return false };
        let prefix = ACK.len() + t.stream.len() + t.consumer.len() + 2;
        let stream = named(t.stream).and_then(|name| self.stream(name));
        let Some((stream, node)) = stream.zip(self.node.upgrade()) else { return false };
        let here = !node.is_clustered() || stream.takes();
        here && d.gather(sub, prefix, m, || stream.clone())
    }
    /// A message of a client for a stream's leader. False if nobody is there to take it.
    fn data(self: &Arc<Assets>, d: &mut Deliveries, way: Way, subject: &[u8], m: &Message<'_>) -> bool {
        let f = Forward {
            way,
            hops: 0,
            account: b"",
            stream: b"",
            subject,
            reply: m.reply,
            headers: m.header(),
            body: m.payload(),
        };
        self.take(Some(d), &f)
    }
    /// A message that another node gave on. It may be here before the interest in its answer is, which comes over a route: then it waits for that.
    /// Messages for streams wait in the order in which they came.
    pub(crate) fn forwarded(self: &Arc<Assets>, node: &Arc<JetStream>, from: NodeId, f: &Forward<'_>) {
        let early = !f.reply.is_empty() && !self.is_awaited(f.way, f.reply);
        let in_order = f.way.is_in_order();
        let mut queue = in_order.then(|| self.early.lock());
        let runs = queue.as_ref().is_some_and(|q| q.runs);
        let Some(place) = (early || runs).then(|| node.place()).flatten() else {
            drop(queue);
            return self.take_forwarded(node, from, f);
        };
        let until = env::now() + INTEREST_MAX;
        let early = Early { from, bytes: f.encode(), until, _place: place };
        let (me, node) = (self.clone(), node.clone());
        let Some(queue) = &mut queue else {
            env::spawn(async move { me.take_early(&node, early).await });
            return;
        };
        queue.waiting.push_back(early);
        if !std::mem::replace(&mut queue.runs, true) {
            env::spawn(async move {
                while let Some(early) = me.next_early() {
                    me.take_early(&node, early).await;
                }
            });
        }
    }
    fn next_early(&self) -> Option<Early> {
        let mut queue = self.early.lock();
        let next = queue.waiting.pop_front();
        queue.runs = next.is_some();
        next
    }
    async fn take_early(self: &Arc<Assets>, node: &JetStream, early: Early) {
        let Some(f) = Forward::decode(&early.bytes) else { return };
        if !f.reply.is_empty() {
            while !self.is_awaited(f.way, f.reply) && env::now() < early.until {
                env::sleep(INTEREST_LOOK).await;
            }
        }
        self.take_forwarded(node, early.from, &f);
    }
    /// Whether somebody would get the answer to a message: to a pull, somebody for whom a consumer delivers (J-28).
    fn is_awaited(&self, way: Way, reply: &[u8]) -> bool {
        match way {
            Way::Pull => self.account.listens(reply),
            _ => self.posts.has_interest(reply),
        }
    }
    /// Returns when somebody would get a message to `subject`, or not soon.
    pub(crate) async fn await_interest(&self, subject: &[u8]) {
        let until = env::now() + INTEREST_MAX;
        while !self.posts.has_interest(subject) && env::now() < until {
            env::sleep(INTEREST_LOOK).await;
        }
    }
    fn take_forwarded(self: &Arc<Assets>, node: &JetStream, from: NodeId, f: &Forward<'_>) {
        if f.way == Way::Publish {
            return self.publish_given(node, f);
        }
        if f.way.is_in_order() {
            let stream = named(f.stream).and_then(|name| self.stream(name));
            return stream.into_iter().for_each(|s| s.succeeds(from, f.way));
        }
        let taken = self.limits.read().is_some() && self.take(None, f);
        if !taken && matches!(f.way, Way::Pull | Way::Direct) && !f.reply.is_empty() && !node.is_closed() {
            // The client's own server has said that somebody is there.
            self.nobody(f.subject, f.reply);
        }
    }
    /// Serves it here if this node leads the stream, else gives it on, or keeps it until there is a leader.
    pub(crate) fn take(self: &Arc<Assets>, d: Option<&mut Deliveries>, f: &Forward<'_>) -> bool {
        self.take_now(d, f) || self.later(f)
    }
    /// The same, if it can be now. With `d` the publisher waits for what can be answered at once.
    pub(crate) fn take_now(self: &Arc<Assets>, mut d: Option<&mut Deliveries>, f: &Forward<'_>) -> bool {
        // An acknowledgement is read once.
        let acked = if f.way == Way::Ack { AckTokens::parse(f.subject) } else { None };
        // What names another domain or account is for somebody else, though it came here.
        let place = acked.and_then(|t| t.place);
        if place.is_some_and(|p| self.ack_place.iter().zip(p).any(|(own, said)| own.as_bytes() != said)) {
            return false;
        }
        let found = match &acked {
            Some(t) => named(t.stream).map(|stream| (stream, None)),
            None => stream_in(f),
        };
        let Some((name, rest)) = found else { return false };
        let Some(node) = self.node.upgrade() else { return false };
        if f.way == Way::Direct {
            return self.read_directly(&node, d.as_deref_mut(), name, rest, f)
                || self.pass_on(&node, name, f)
                || self.mirrors_of(&node, name).iter().any(|mirror| {
                    self.read_directly(&node, d.as_deref_mut(), mirror, rest, f)
                        || self.pass_on(&node, mirror, f)
                });
        }
        if let Some(stream) = self.stream(name)
            && (!node.is_clustered() || stream.takes())
        {
            return match f.way {
                Way::Pull => rest
                    .and_then(named)
                    .is_some_and(|consumer| stream.pull(consumer, f.reply, f.headers, f.body)),
                Way::Ack => acked.is_some_and(|t| {
                    // One look at the clocks for all that was read together.
                    let at = d.map(|d| d.now()).map(|(wall, mono)| Now { wall: wall.0, mono: mono.0 });
                    named(t.consumer).is_some_and(|consumer| stream.ack(consumer, &t, f.reply, f.body, at))
                }),
                Way::Flow => {
                    rest.and_then(named).is_some_and(|consumer| stream.flow(consumer, f.subject, f.headers))
                }
                Way::Direct | Way::Publish | Way::Heir | Way::Ready | Way::Opened | Way::Handed => false,
            };
        }
        self.pass_on(&node, name, f)
    }

    /// Answers a direct get from a stream's replica that is here. False if there is none, or it does not answer such requests.
    fn read_directly(
        self: &Arc<Assets>,
        node: &JetStream,
        d: Option<&mut Deliveries>,
        name: &str,
        rest: Option<&[u8]>,
        f: &Forward<'_>,
    ) -> bool {
        let here = |s: &Arc<Stream>| !node.is_clustered() || s.takes() || s.is_current();
        let stream = self.stream(name).filter(here);
        stream.is_some_and(|s| s.direct_get(d, rest, f.reply, f.headers, f.body))
    }
    /// The streams that answer direct gets in the place of their origin: those that mirror all of it and have `mirror_direct`.
    fn mirrors_of(&self, node: &JetStream, origin: &str) -> Vec<Arc<str>> {
        node.meta.read(|s| {
            let stand_in = |a: &&Arc<Assigned>| a.config.as_ref().is_some_and(stands_in);
            s.mirrors_of(&self.account.name, origin).filter(stand_in).map(|a| a.a.name.clone()).collect()
        })
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

/// The stream that a message is for, and what follows: the consumer, or a direct get's subject.
fn stream_in<'a>(f: &Forward<'a>) -> Option<(&'a str, Option<&'a [u8]>)> {
    // In the newer forms domain and account's hash stand before the stream.
    let (rest, tokens_of_the_newer) = match f.way {
        Way::Pull => (f.subject.get(API.len() + PULL.len()..)?, usize::MAX),
        Way::Direct => (f.subject.get(API.len() + DIRECT.len()..)?, usize::MAX),
        Way::Ack => (f.subject.get(ACK.len()..)?, 9),
        Way::Flow => (f.subject.get(b"$JS.FC.".len()..)?, 5),
        _ => return Some((named(f.stream)?, None)),
    };
    let (stream, rest) = if tokens_of_the_newer == usize::MAX {
        let mut t = rest.splitn(2, |b| *b == b'.');
        (t.next()?, t.next())
    } else {
        let newer = subject::tokens(rest).count() >= tokens_of_the_newer;
        let mut t = subject::tokens(rest).skip(if newer { 2 } else { 0 });
        (t.next()?, t.next())
    };
    Some((named(stream)?, rest))
}

/// Whether an import takes all requests to another account's desk. That one answers alone; nobody says beside it that there is no JetStream here.
pub(crate) fn imports_api(account: &Account) -> bool {
    let all = [API, b">"].concat();
    account.rules().imports.iter().any(|i| i.service && i.local() == all)
}

/// The stream that a message is for.
pub(crate) fn named_in<'a>(f: &Forward<'a>) -> Option<&'a str> {
    match f.way {
        Way::Ack => named(AckTokens::parse(f.subject)?.stream),
        _ => stream_in(f).map(|(stream, _)| stream),
    }
}

/// A token that can be a name.
pub fn named(token: &[u8]) -> Option<&str> {
    str::from_utf8(token).ok()
}

/// Who takes an account's messages.
struct Desk(Weak<Assets>);

impl Inbound for Desk {
    fn serves(&self) -> bool {
        true
    }
    fn listens(&self, _: &[u8]) -> bool {
        false
    }
    fn deliver(&self, d: &mut Deliveries, sub: &Sub, from: &Arc<Link>, m: &Message<'_>) -> bool {
        if d.gather_more(sub, m) {
            return true;
        }
        // What comes behind others does not overtake them.
        d.answer_gathered();
        let Some(assets) = self.0.upgrade() else { return false };
        if d.is_trace_only() {
            return false;
        }
        match sub.sid() {
            SID_API => assets.request(d, sub, &m.subject[API.len()..], from, m),
            SID_ACK if assets.gather_ack(d, sub, m) => true,
            SID_ACK => assets.data(d, Way::Ack, m.subject, m),
            SID_FLOW => assets.data(d, Way::Flow, m.subject, m),
            SID_DOMAIN => assets.of_domain(d, sub, from, m),
            _ => false,
        }
    }
}
