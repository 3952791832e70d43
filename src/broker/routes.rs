//! Routes: what other servers of the cluster are told of our interest, what they tell us of theirs, and messages from
//! and to them.
//!
//! An account counts its local subscriptions by subject and queue. The first and the last of a subject, and each change of
//! a queue group, go to the routes that carry the account. Interest of another server stands in the account's trie as a
//! subscription of that route's link, whose sid is the account's name as that route's lines give it.
//!
//! Owns: [`Advert`], [`Carries`], [`RouteInbox`]. Does not own: connections, handshakes, who is a member.
//!
//! Invariants:
//! * B-8: what comes from a route goes to no route, and only into queue groups that its sender names.
//! * B-9: a route is told of a subject's interest exactly while this server has local interest in it.

use std::sync::Arc;

use hashbrown::{HashTable, hash_table::Entry};
use identity::{Permissions, Verdict};
use keyed::hash;
use subject::QueueId;
use wire::route::{push_interest, split_shown};

use crate::{
    Account, Broker, Kind, Link, Message, Sub, SubscribeError,
    plan::Plans,
    router::Deliveries,
    trace::{self, Trace, Wish},
};

/// Most members that a queue group of another server counts for.
const WEIGHT_MAX: u32 = 1 << 20;

/// Which accounts a route carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Carries {
    /// All.
    All,
    /// Those whose names fall on `index` of `size`, but for those that have routes of their own.
    Share {
        /// The number of this connection.
        index: u32,
        /// Connections between the two servers, as this server counts.
        size: u32,
        /// Accounts with routes of their own.
        but: Arc<[Arc<str>]>,
    },
    /// One alone; lines do not name it.
    One(Arc<str>),
}

impl Carries {
    /// Whether `account` goes this way.
    pub fn has(&self, account: &str) -> bool {
        match self {
            Carries::All => true,
            Carries::Share { index, size, but } => {
                !but.iter().any(|a| **a == *account)
                    && wire::route::info::pool_index(account.as_bytes(), *size) == *index
            }
            Carries::One(a) => **a == *account,
        }
    }
    /// The account's name in lines of this route.
    fn token<'a>(&self, account: &'a str) -> &'a [u8] {
        if matches!(self, Carries::One(_)) { b"" } else { account.as_bytes() }
    }
}

/// A route that is told of interest.
#[derive(Clone)]
pub struct RouteOut {
    /// Its link.
    pub link: Arc<Link>,
    /// The accounts of which it is told.
    pub carries: Carries,
    /// Publish: what this server takes from routes. Subscribe: what it gives to them.
    pub permissions: Option<Arc<Permissions>>,
}

/// Local subscriptions of one subject, or of one queue group of it.
struct Local {
    /// The subject, or the subject and the queue's name with a blank between.
    text: Box<[u8]>,
    /// Where the subject ends.
    subject_len: u32,
    count: u32,
}

impl Local {
    /// The members of a queue group.
    fn weight(&self) -> Option<u32> {
        (self.subject_len as usize != self.text.len()).then_some(self.count)
    }
}

/// What an account tells the routes.
#[derive(Default)]
pub(crate) struct Advert {
    locals: HashTable<Local>,
    outs: Vec<RouteOut>,
}

impl Advert {
    /// A local subscription comes (or goes).
    pub fn change(&mut self, account: &str, sub: &Sub, on: bool) {
        let (subject, queue) = (sub.subject(), sub.queue());
        let joined;
        let text = if queue.is_empty() {
            subject
        } else {
            joined = [subject, b" ", queue].concat();
            &joined
        };
        let entry = self.locals.entry(hash(text), |l| *l.text == *text, |l| hash(&l.text));
        let count = match entry {
            Entry::Occupied(mut e) => {
                let l = e.get_mut();
                l.count = if on { l.count + 1 } else { l.count - 1 };
                let n = l.count;
                if n == 0 {
                    e.remove();
                }
                n
            }
            Entry::Vacant(v) if on => {
                let subject_len = subject.len() as u32;
                v.insert(Local { text: text.into(), subject_len, count: 1 });
                1
            }
            Entry::Vacant(_) => return,
        };
        // B-9
        if queue.is_empty() && count != u32::from(on) {
            return;
        }
        let weight = (!queue.is_empty()).then_some(count);
        for out in &self.outs {
            out.tell(count > 0, account, subject, text, weight);
        }
    }
    /// Whether `link` is told.
    pub fn tells(&self, link: &Link) -> bool {
        self.outs.iter().any(|o| o.link.id == link.id)
    }
    /// Begins to tell a route, with everything so far.
    fn add(&mut self, account: &str, out: &RouteOut) {
        if self.tells(&out.link) {
            return;
        }
        for l in &self.locals {
            let subject = &l.text[..l.subject_len as usize];
            out.tell(true, account, subject, &l.text, l.weight());
        }
        self.outs.push(out.clone());
    }
    /// Takes back all that a route was told, and tells it no more.
    fn withdraw(&mut self, account: &str, link: &Link) {
        let Some(i) = self.outs.iter().position(|o| o.link.id == link.id) else { return };
        let out = self.outs.remove(i);
        for l in &self.locals {
            let subject = &l.text[..l.subject_len as usize];
            out.tell(false, account, subject, &l.text, None);
        }
    }
    /// Other permissions hold for a route: what passes only now is told, and what passed only before is taken back.
    fn permit(&mut self, account: &str, link: &Link, permissions: &Option<Arc<Permissions>>) {
        let Some(out) = self.outs.iter_mut().find(|o| o.link.id == link.id) else { return };
        let before = RouteOut { permissions: permissions.clone(), ..out.clone() };
        let before = std::mem::replace(out, before);
        for l in &self.locals {
            let subject = &l.text[..l.subject_len as usize];
            match (before.takes(subject), out.takes(subject)) {
                (false, true) => out.tell(true, account, subject, &l.text, l.weight()),
                (true, false) => before.tell(false, account, subject, &l.text, None),
                _ => {}
            }
        }
    }
    /// Tells a route once more of some of what there is: it has not taken note of that so far.
    fn repeat(&self, account: &str, link: &Link, some: &dyn Fn(&[u8], &[u8]) -> bool) {
        let Some(out) = self.outs.iter().find(|o| o.link.id == link.id) else { return };
        for l in &self.locals {
            let subject = &l.text[..l.subject_len as usize];
            let queue = l.text.get(subject.len() + 1..).unwrap_or_default();
            if some(subject, queue) {
                out.tell(true, account, subject, &l.text, l.weight());
            }
        }
    }
    /// Tells a route no more.
    fn forget(&mut self, link: &Link) {
        self.outs.retain(|o| o.link.id != link.id);
    }
}

impl RouteOut {
    /// Whether messages of a subject are taken from there.
    fn takes(&self, subject: &[u8]) -> bool {
        self.permissions.as_ref().is_none_or(|p| p.can_publish(subject))
    }
    fn tell(&self, on: bool, account: &str, subject: &[u8], text: &[u8], weight: Option<u32>) {
        if !self.takes(subject) {
            return;
        }
        let token = self.carries.token(account);
        self.link.push(|out| push_interest(out, on, token, text, weight));
        // Its owner writes: many subscriptions of one batch go out together.
        self.link.wake.notify_one();
    }
}

impl Account {
    /// Changes the trie, and tells routes if the subscription is one that they are told of.
    pub(crate) fn with_advert<R>(
        &self,
        sub: &Sub,
        on: bool,
        f: impl FnOnce(&Account) -> Option<R>,
    ) -> Option<R> {
        match &self.advert {
            Some(advert) if sub.is_told() => {
                // The trie changes under the lock, so that the first and the last are told in the order of their coming.
                let mut advert = advert.lock();
                let done = f(self);
                if done.is_some() {
                    advert.change(&self.name, sub, on);
                }
                done
            }
            _ => f(self),
        }
    }
    /// Subjects and queue groups that routes are told of.
    pub fn told(&self) -> usize {
        self.advert.as_ref().map_or(0, |a| a.lock().locals.len())
    }
}

impl Broker {
    /// Accounts will tell routes of their interest. Before the first account is made.
    pub fn enable_routes(&self) {
        assert!(self.accounts().is_empty(), "B-9: accounts count their subscriptions from the beginning");
        self.clustered.store(true, std::sync::atomic::Ordering::Release);
    }
    /// Begins to tell a route of the interest of the accounts that it carries.
    pub fn attach_route(&self, out: RouteOut) {
        let mut routes = self.routes.write();
        // An account that is made from here on is told of the route by `account_made`.
        routes.push(out.clone());
        for account in self.accounts() {
            if let Some(advert) = account.advert.as_ref().filter(|_| out.carries.has(&account.name)) {
                advert.lock().add(&account.name, &out);
            }
        }
    }
    /// An account has got a route of its own to a server that `link` goes to as well: `link` is told of it no more.
    pub fn withdraw_from_route(&self, link: &Link, account: &str) {
        if let Some(a) = self.account(account)
            && let Some(advert) = &a.advert
        {
            advert.lock().withdraw(account, link);
        }
    }
    /// Other permissions hold for a route. Its messages are its inbox's ([`RouteInbox::permit`]).
    pub fn permit_route(&self, link: &Arc<Link>, permissions: &Option<Arc<Permissions>>) {
        let mut routes = self.routes.write();
        for r in routes.iter_mut().filter(|r| r.link.id == link.id) {
            r.permissions.clone_from(permissions);
        }
        for account in self.accounts() {
            if let Some(advert) = &account.advert {
                advert.lock().permit(&account.name, link, permissions);
            }
        }
        drop(routes);
        for s in link.list_subscriptions() {
            if !gives(permissions, s.subject(), s.queue())
                && let Some(account) = self.account_of_sub(link, &s)
            {
                link.unsubscribe_route(&account, s.sid(), s.subject(), s.queue());
            }
        }
    }
    /// Tells a route once more of what it takes note of now and did not before: `some` of subject and queue group.
    pub fn repeat_to_route(&self, link: &Link, some: &dyn Fn(&[u8], &[u8]) -> bool) {
        for account in self.accounts() {
            if let Some(advert) = &account.advert {
                advert.lock().repeat(&account.name, link, some);
            }
        }
    }
    /// The account of a subscription that stands for interest at a route's other end.
    fn account_of_sub(&self, link: &Link, sub: &Sub) -> Option<Arc<Account>> {
        match sub.sid() {
            b"" => link.account(),
            name => str::from_utf8(name).ok().and_then(|n| self.account(n)),
        }
    }
    /// Takes a route and its interest away.
    pub fn detach_route(&self, link: &Arc<Link>) {
        self.routes.write().retain(|r| r.link.id != link.id);
        for account in self.accounts() {
            if let Some(advert) = &account.advert {
                advert.lock().forget(link);
            }
        }
        let mut subs = link.take_all_subs();
        subs.sort_by(|a, b| a.sid().cmp(b.sid()));
        for some in subs.chunk_by(|a, b| a.sid() == b.sid()) {
            let account = some.first().and_then(|s| self.account_of_sub(link, s));
            for s in some {
                s.close();
            }
            if let Some(a) = account {
                a.remove_all(some);
            }
        }
    }
    /// There is a new account: routes that carry it are told of its interest.
    pub(crate) fn tell_routes_of(&self, account: &Account) {
        let Some(advert) = &account.advert else { return };
        for out in self.routes.read().iter().filter(|r| r.carries.has(&account.name)) {
            advert.lock().add(&account.name, out);
        }
    }
}

impl Link {
    /// Notes interest of the server at the other end of a route in `account`, which its lines call `token`. If it is there
    /// already its weight is set.
    pub fn subscribe_route(
        self: &Arc<Link>,
        account: &Arc<Account>,
        token: &[u8],
        subject: &[u8],
        queue: &[u8],
        weight: u32,
    ) -> Result<(), SubscribeError> {
        if !subject::is_valid(subject) {
            return Err(SubscribeError::InvalidSubject);
        }
        let weight = weight.clamp(1, WEIGHT_MAX);
        let sub = Arc::new(Sub::new(self.clone(), token, subject, queue, false));
        sub.set_weight(weight);
        match self.insert_route_sub(&sub)? {
            Some(old) => {
                if old.weight() != weight {
                    old.set_weight(weight);
                    account.touch();
                }
            }
            None => account.insert(&sub),
        }
        Ok(())
    }
    /// Makes this the link of a route that belongs to one account.
    pub fn carry_for(&self, account: &Arc<Account>) {
        self.set_account(Some(account.clone()));
    }
    /// Forgets interest of the server at the other end.
    pub fn unsubscribe_route(&self, account: &Account, token: &[u8], subject: &[u8], queue: &[u8]) {
        if let Some(sub) = self.remove_route_sub(token, subject, queue) {
            sub.close();
            account.remove(&sub);
        }
    }
}

/// One account's messages from a route.
struct Lane {
    token: Vec<u8>,
    account: Arc<Account>,
    plans: Plans,
    msgs: u64,
    bytes: u64,
}

/// Messages that come by a route: the link's side that only its owner uses.
pub struct RouteInbox {
    link: Arc<Link>,
    broker: Arc<Broker>,
    permissions: Option<Arc<Permissions>>,
    /// Small: the accounts that messages have come for.
    lanes: Vec<Lane>,
    last: usize,
    out: Deliveries,
}

/// Accounts whose plans a route keeps at a time.
const LANES_MAX: usize = 256;

impl RouteInbox {
    /// For `link`; `pinned` is the account of a route that belongs to one. `seed` feeds the choice of queue members.
    pub fn new(
        broker: Arc<Broker>,
        link: Arc<Link>,
        permissions: Option<Arc<Permissions>>,
        seed: u64,
    ) -> RouteInbox {
        let out = Deliveries::new(broker.clone(), seed);
        RouteInbox { link, broker, permissions, lanes: Vec::new(), last: 0, out }
    }

    fn lane(&mut self, token: &[u8]) -> Option<usize> {
        if self.lanes.get(self.last).is_some_and(|l| l.token == token) {
            return Some(self.last);
        }
        self.find_lane(token)
    }
    #[cold]
    fn find_lane(&mut self, token: &[u8]) -> Option<usize> {
        self.tell_sent();
        if let Some(i) = self.lanes.iter().position(|l| l.token == token) {
            self.last = i;
            return Some(i);
        }
        let account = match token {
            b"" => self.link.account()?,
            name => self.broker.account(str::from_utf8(name).ok()?)?,
        };
        if self.lanes.len() >= LANES_MAX {
            self.flush();
            self.lanes.clear();
        }
        self.lanes.push(Lane { token: token.to_vec(), account, plans: Plans::default(), msgs: 0, bytes: 0 });
        self.last = self.lanes.len() - 1;
        Some(self.last)
    }

    /// Delivers a message to local subscriptions (B-8). `token` is the account's name in the line, `queues` the names of the
    /// groups that are to get it, with blanks between. It is written with the next [`RouteInbox::flush`].
    #[inline]
    pub fn publish(&mut self, token: &[u8], m: &Message<'_>, queues: &[u8]) {
        let Some(i) = self.lane(token) else { return };
        let (reply, shown) = split_shown(m.reply);
        let m = Message { reply, shown, ..*m };
        let size = m.body_crlf.len() as u64 - 2;
        let lane = &mut self.lanes[i];
        lane.msgs += 1;
        lane.bytes += size;
        if m.header_len > 0 && trace::may_ask(&lane.account, m.header()) && !self.begin_trace(i, &m) {
            return;
        }
        let lane = &mut self.lanes[i];
        let (account, permissions) = (&lane.account, &self.permissions);
        let plan = lane.plans.get(m.subject, account.generation(), |p| {
            p.allowed = permissions.as_ref().is_none_or(|p| p.can_publish(m.subject));
            account.match_into(m.subject, &mut p.matched);
        });
        if plan.allowed {
            self.out.deliver_routed(&plan.matched, &self.link, &m, queues);
        }
        if let Some(trace) = self.out.trace.take() {
            self.out.tell_trace(&trace);
        }
    }

    /// Begins the trace of a message, if it is to have one. False if nobody gets it (B-7).
    #[cold]
    fn begin_trace(&mut self, lane: usize, m: &Message<'_>) -> bool {
        let account = &self.lanes[lane].account;
        let (dest, only) = match trace::wish(m.header()) {
            Wish::Trace { dest, only } => (dest, only),
            Wish::Refused { only } => return !only,
            // The server that it came to first has drawn.
            Wish::Sampled if trace::has_hop(m.header()) => match &account.rules().trace {
                Some(rule) => (rule.subject.clone(), false),
                None => return true,
            },
            Wish::Sampled | Wish::None => return true,
        };
        self.out.trace = Some(Trace::of(dest, only, account, &self.link, m));
        true
    }

    /// Tells the account of the last lane what its messages became here.
    fn tell_sent(&mut self) {
        if let Some(l) = self.lanes.get(self.last) {
            self.out.tell(&l.account);
        }
    }

    /// Writes out what the messages since the last flush have put into outboxes.
    pub fn flush(&mut self) {
        self.tell_sent();
        let (mut msgs, mut bytes) = (0, 0);
        for l in &mut self.lanes {
            if l.msgs > 0 {
                let stats = &l.account.stats;
                stats.in_msgs.add(l.msgs);
                stats.in_bytes.add(l.bytes);
                stats.route_in_msgs.add(l.msgs);
                stats.route_in_bytes.add(l.bytes);
                (msgs, bytes) = (msgs + l.msgs, bytes + l.bytes);
                (l.msgs, l.bytes) = (0, 0);
            }
        }
        self.link.in_msgs.add(msgs);
        self.link.in_bytes.add(bytes);
        let stats = &self.broker.stats;
        stats.in_msgs.add(msgs);
        stats.in_bytes.add(bytes);
        stats.route_in_msgs.add(msgs);
        stats.route_in_bytes.add(bytes);
        self.out.flush();
    }
    /// Whether a receiver of the last batch is nearly full. Resets the mark.
    pub fn take_congestion(&mut self) -> bool {
        self.out.take_congestion()
    }
    /// Whether interest of the other server may be noted: it is something that this server gives.
    pub fn gives(&self, subject: &[u8], queue: &[u8]) -> bool {
        gives(&self.permissions, subject, queue)
    }
    /// Other permissions hold.
    pub fn permit(&mut self, permissions: Option<Arc<Permissions>>) {
        self.flush();
        // What was found out under the old ones is found out again.
        self.lanes.clear();
        self.permissions = permissions;
    }
    /// The account that a line names.
    pub fn account(&self, token: &[u8]) -> Option<Arc<Account>> {
        match token {
            b"" => self.link.account(),
            name => Some(self.broker.account_or_new(str::from_utf8(name).ok()?)),
        }
    }
}

/// Whether this server gives a subject to routes.
fn gives(permissions: &Option<Arc<Permissions>>, subject: &[u8], queue: &[u8]) -> bool {
    permissions.as_ref().is_none_or(|p| p.can_subscribe(subject, queue) != Verdict::Deny)
}

impl Drop for RouteInbox {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A route among the receivers of a message.
pub(crate) struct Remote {
    /// Any of its subscriptions: the link and the account's token.
    pub sub: Arc<Sub>,
    /// It has a plain subscription.
    pub plain: bool,
}

/// The members of one queue group.
pub(crate) struct Group {
    pub id: QueueId,
    /// Those of this server.
    pub members: Vec<Arc<Sub>>,
    /// Routes with members, by their place among [`Remote`]s, and how many members they have.
    pub remote: Vec<(usize, u32)>,
    /// Members of all routes.
    pub remote_weight: usize,
    /// One of the routes' members, for the name.
    far: Option<Arc<Sub>>,
    /// The routes' members, in the order of `remote`, of a group that is not shared out ([`crate::MOST_FIRST`]); else empty.
    doors: Vec<Arc<Sub>>,
}

impl Group {
    pub fn new(id: QueueId) -> Group {
        Group { id, members: Vec::new(), remote: Vec::new(), remote_weight: 0, far: None, doors: Vec::new() }
    }
    pub fn clear(&mut self) {
        self.members.clear();
        self.remote.clear();
        self.remote_weight = 0;
        self.far = None;
        self.doors.clear();
    }
    /// Adds members of another server.
    pub fn push_remote(&mut self, place: usize, sub: &Arc<Sub>) {
        let weight = sub.weight();
        self.remote.push((place, weight));
        self.remote_weight += weight as usize;
        if sub.queue().starts_with(crate::MOST_FIRST) {
            self.doors.push(sub.clone());
        }
        self.far.get_or_insert_with(|| sub.clone());
    }
    /// Whether its members are the desks of all servers: they take requests, and one that does not take a message would have it go to the next (B-11).
    pub fn serves(&self) -> bool {
        self.name() == crate::LOCAL_FIRST
    }
    /// Its name.
    pub fn name(&self) -> &[u8] {
        self.members.first().or(self.far.as_ref()).map_or(b"", |s| s.queue())
    }
    /// Who gets a message, of the members here and those elsewhere: a draw below their number in which each has its place, those here first. `pick` draws
    /// below a number.
    pub fn draw(&self, pick: impl FnOnce(usize) -> usize) -> usize {
        let here = self.members.len();
        if here > 0 && self.name() == crate::LOCAL_FIRST {
            return pick(here);
        }
        if self.doors.is_empty() {
            return pick(here + self.remote_weight);
        }
        let (mut best, mut place) = ((here, 0), here);
        for ((_, weight), door) in self.remote.iter().zip(&self.doors) {
            if *weight as usize > best.0 && !door.is_closed() {
                best = (*weight as usize, place);
            }
            place += *weight as usize;
        }
        best.1
    }
    /// Of a group that is not shared out: the member at the other end of a route, by the route's place.
    pub fn door(&self, place: usize) -> Option<&Arc<Sub>> {
        self.remote.iter().zip(&self.doors).find(|((i, _), _)| *i == place).map(|(_, door)| door)
    }
    /// The route that a draw below `remote_weight` falls on.
    pub fn remote_at(&self, mut lot: usize) -> Option<usize> {
        for (i, (remote, weight)) in self.remote.iter().enumerate() {
            if lot < *weight as usize || i + 1 == self.remote.len() {
                return Some(*remote);
            }
            lot -= *weight as usize;
        }
        None
    }
}

impl Sub {
    /// Whether routes are told of it.
    fn is_told(&self) -> bool {
        match self.link.kind {
            Kind::Route => false,
            Kind::Internal => self.link.inbound.as_ref().is_none_or(|i| !i.is_local()),
            _ => true,
        }
    }
}
