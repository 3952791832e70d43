//! The publisher's side of the way of a message.

use std::sync::Arc;

use bytes::Bytes;
use identity::Permissions;
use subject::Choice;
use wire::{frame::MsgHead, route::RouteHead};

use crate::{
    Account, Broker, Closed, Inbound, Kind, Link, LinkFlags, Sub,
    gather::Gathered,
    outbox::SHARE_BYTES_MIN,
    plan::{Named, Plan, Plans, Receivers},
    routes::{Group, Remote},
    run::Run,
    stats::Dealt,
    sub::{CLOSED, Extra, FILTERED},
    trace::{self, Step, Trace, Wish, why},
};

/// An outbox of that many bytes is written in the middle of a batch.
const FLUSH_BYTES: usize = 512 << 10;
/// All outboxes of a batch together: what is written later than that is no longer in the cache.
const FLUSH_ALL_BYTES: usize = 4 << 20;
/// However many outboxes share that, none is written for less.
const FLUSH_BYTES_MIN: usize = 16 << 10;
/// Links for which more is to be done than to put a message into their outboxes.
const MORE_TO_DO: LinkFlags = LinkFlags::GRANTS_REPLIES.with(LinkFlags::TRACED);
/// How deep a delivery may cause another.
const NESTED_MAX: u8 = 16;

/// A message on its way.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Where to.
    pub subject: &'a [u8],
    /// Where answers go; may be empty.
    pub reply: &'a [u8],
    /// Bytes of header block at the front of the body.
    pub header_len: usize,
    /// Header block and payload, and CRLF after them.
    pub body_crlf: &'a [u8],
    /// The same bytes as `body_crlf`, if somebody owns them already.
    pub shared: Option<&'a Bytes>,
    /// The subject that receivers are shown, where it is not the one by which they are found: JetStream delivers a stored
    /// message to an inbox under the subject with which it was published.
    pub shown: Option<&'a [u8]>,
}

/// A message whose body stands in shared memory by itself.
#[derive(Clone, Copy)]
pub struct Loose<'a> {
    /// Where to.
    pub subject: &'a [u8],
    /// The subject that receivers are shown.
    pub shown: &'a [u8],
    /// Where answers go; may be empty.
    pub reply: &'a [u8],
    /// Bytes of header block at the front of the body.
    pub header_len: usize,
    /// Header block and payload, with no CRLF after them.
    pub body: &'a Bytes,
}

/// What a receiver is given behind its line.
#[derive(Clone, Copy)]
enum Body<'a> {
    /// Copied into its outbox; CRLF is in it.
    Copied(&'a [u8]),
    /// Shared from so many bytes on; CRLF is in it.
    Shared(&'a Bytes, usize),
    /// Shared, and CRLF is put behind it.
    Loose(&'a Bytes),
}

impl<'a> Message<'a> {
    /// Header block and payload.
    pub fn body(&self) -> &'a [u8] {
        &self.body_crlf[..self.body_crlf.len() - 2]
    }
    /// The header block.
    pub fn header(&self) -> &'a [u8] {
        &self.body_crlf[..self.header_len]
    }
    /// The payload.
    pub fn payload(&self) -> &'a [u8] {
        &self.body()[self.header_len..]
    }
}

/// What became of a publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It went to that many receivers.
    Delivered(usize),
    /// The publisher's permissions do not allow the subject.
    Denied,
    /// They do not allow what a mapping has made of it.
    DeniedAs(Vec<u8>),
}

/// A publisher: the link's side that only its owner uses.
pub struct Router {
    link: Arc<Link>,
    account: Arc<Account>,
    permissions: Option<Arc<Permissions>>,
    plans: Plans,
    out: Deliveries,
}

/// Adds a queue group to those that a route is to name.
fn add_name(queues: &mut Vec<u8>, name: &[u8]) {
    queues.extend_from_slice(name);
    queues.push(b' ');
}

/// What became of a message for a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    Yes,
    No,
    /// A door has closed.
    Late,
}

/// What mappings make of a subject.
pub(crate) enum Renamed {
    /// It keeps its name.
    No,
    /// Nobody gets the message.
    Dropped,
    /// It is called so.
    To(Vec<u8>),
}

/// The receivers' side of a batch of messages.
pub struct Deliveries {
    broker: Arc<Broker>,
    head: MsgHead,
    plain_head: MsgHead,
    route_head: RouteHead,
    /// Queue names for each route of the message at hand.
    route_queues: Vec<Vec<u8>>,
    /// Its doors ([`crate::MOST_FIRST`]) at the other ends, by the places of their routes.
    route_doors: Vec<(usize, Arc<Sub>)>,
    touched: Vec<Arc<Link>>,
    /// From how many bytes on an outbox is written in the middle of a batch, now that so many are `touched`.
    flush_bytes: usize,
    expired: Vec<Arc<Sub>>,
    /// Requests that are answered at the end of the batch.
    pub(crate) gathered: Gathered,
    /// They are being answered: nothing is gathered meanwhile.
    pub(crate) answers_gathered: bool,
    random: u64,
    depth: u8,
    /// The receiver inside the server that got the last message, if it takes several at once; and whether it got the one before as well.
    inside: Option<Arc<Sub>>,
    inside_again: bool,
    /// The trace of the message at hand, if it has one.
    pub(crate) trace: Option<Box<Trace>>,
    inner: Inner,
    /// When the batch began.
    at: Option<(env::Wall, env::Instant)>,
    /// What is sent now is the server's own answer: echo does not apply.
    answering: bool,
    /// What is sent now is an answer on its way back into another account (B-11).
    answers_back: bool,
    /// What is sent now has come by a service import, which has said who asks: no client has.
    pub(crate) by_import: bool,
    congested: bool,
    in_msgs: u64,
    in_bytes: u64,
    sent: Dealt,
    /// Of these, what an account was told of already.
    told: Dealt,
}

/// Where messages go that receivers inside the server publish in their turn.
#[derive(Default)]
struct Inner {
    /// Its name, which tells accounts apart for as long as it is held.
    account: Option<Arc<str>>,
    plans: Plans,
}

impl Router {
    /// A publisher on `account` for `link`; `seed` feeds the choice of queue members.
    pub fn new(broker: Arc<Broker>, link: Arc<Link>, account: Arc<Account>, seed: u64) -> Router {
        let permissions = link.permissions();
        Router { link, account, permissions, plans: Plans::default(), out: Deliveries::new(broker, seed) }
    }
    /// The account that is published to.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }
    /// Changes account and permissions (second CONNECT, reload).
    pub fn rebind(&mut self, account: Arc<Account>) {
        self.flush();
        self.account = account;
        self.permissions = self.link.permissions();
        self.plans.clear();
    }

    /// Sends a message on its way. It is written with the next [`Router::flush`].
    #[inline]
    pub fn publish(&mut self, m: &Message<'_>) -> Outcome {
        if m.header_len > 0 && trace::may_ask(&self.account, m.header()) {
            return self.publish_traced(m);
        }
        self.publish_mapped_or_plain(m)
    }
    #[inline]
    fn publish_mapped_or_plain(&mut self, m: &Message<'_>) -> Outcome {
        if self.account.has_mappings() {
            return self.publish_mapped(m);
        }
        self.publish_plain(m)
    }

    /// Publishes a message that may ask for a trace.
    #[cold]
    fn publish_traced(&mut self, m: &Message<'_>) -> Outcome {
        let rule = || self.account.rules().trace.clone();
        let (dest, only) = match trace::wish(m.header()) {
            Wish::None => return self.publish_mapped_or_plain(m),
            Wish::Refused { only: true } => return Outcome::Delivered(0),
            Wish::Refused { only: false } => {
                let (header_len, body) = trace::changed(m, trace::TRACE_DEST, trace::DISABLED);
                let m = Message { header_len, body_crlf: &body, shared: None, ..*m };
                return self.publish_mapped_or_plain(&m);
            }
            Wish::Trace { dest, only } => {
                let may = self.permissions.as_ref().is_none_or(|p| p.can_publish(&dest));
                if !may && !self.link.use_reply(&dest) {
                    return Outcome::DeniedAs(dest);
                }
                (dest, only)
            }
            Wish::Sampled => match rule() {
                Some(rule) if self.out.below(100) < usize::from(rule.sampling) => (rule.subject, false),
                _ => return self.publish_mapped_or_plain(m),
            },
        };
        self.out.trace = Some(Trace::of(dest, only, &self.account, &self.link, m));
        let outcome = self.publish_mapped_or_plain(m);
        if let Some(mut trace) = self.out.trace.take() {
            trace.denied = match &outcome {
                Outcome::Delivered(_) => None,
                Outcome::Denied => Some(m.subject.to_vec()),
                Outcome::DeniedAs(subject) => Some(subject.clone()),
            };
            self.out.tell_trace(&trace);
        }
        outcome
    }

    #[cold]
    fn publish_mapped(&mut self, m: &Message<'_>) -> Outcome {
        match self.out.rename(&self.account, m.subject) {
            Renamed::No => self.publish_plain(m),
            Renamed::Dropped => {
                if !m.reply.is_empty() && self.link.flags().has(LinkFlags::NO_RESPONDERS) {
                    self.no_responders(m);
                }
                Outcome::Delivered(0)
            }
            Renamed::To(subject) => match self.publish_plain(&Message { subject: &subject, ..*m }) {
                Outcome::Denied => Outcome::DeniedAs(subject),
                done => done,
            },
        }
    }

    #[inline]
    fn publish_plain(&mut self, m: &Message<'_>) -> Outcome {
        let size = m.body_crlf.len() - 2;
        self.out.in_msgs += 1;
        self.out.in_bytes += size as u64;
        let plan = plan_of(&mut self.plans, &self.account, self.permissions.as_deref(), m.subject);
        if !plan.allowed && !self.link.use_reply(m.subject) {
            return Outcome::Denied;
        }
        let n = self.out.deliver(&plan.matched, &self.link, m);
        let none = n == 0 || env::planted!("no-responders-despite-one") && n == 1;
        if none && !m.reply.is_empty() && self.link.flags().has(LinkFlags::NO_RESPONDERS) {
            self.no_responders(m);
        }
        Outcome::Delivered(n)
    }

    /// Whether the last two messages went to one receiver inside the server that takes several at once: those that come next may join a run.
    #[inline]
    pub fn runs(&self) -> bool {
        self.out.inside_again
    }
    /// Whether a message goes where the last one went, to nobody else, and needs no more than that: then it may be part of a run for
    /// [`Router::publish_run`]. If it is not, there is no run until two more messages have gone one way.
    #[inline]
    pub fn joins(&mut self, m: &Message<'_>) -> bool {
        let account = &self.account;
        let as_it_is = (m.header_len == 0 || !trace::may_ask(account, m.header())) && !account.has_mappings();
        let joins = as_it_is && {
            let plan = plan_of(&mut self.plans, account, self.permissions.as_deref(), m.subject);
            let to = plan.matched.sole().filter(|_| plan.allowed);
            to.zip(self.out.inside.as_ref()).is_some_and(|(to, last)| Arc::ptr_eq(to, last))
        };
        if !joins {
            (self.out.inside, self.out.inside_again) = (None, false);
        }
        joins
    }
    /// Sends the messages of a run on their way, in their order (B-1); it is empty then. Messages that their receiver does not take together go alone.
    pub fn publish_run(&mut self, run: &mut Run<'_>) {
        let mut rest = run.messages();
        while !rest.is_empty() {
            let (taken, left) = rest.split_at(self.out.deliver_run(rest));
            self.out.in_msgs += taken.len() as u64;
            self.out.in_bytes += taken.iter().map(|m| m.body().len() as u64).sum::<u64>();
            rest = left;
            if let Some((first, left)) = rest.split_first() {
                self.publish_plain(first);
                rest = left;
            }
        }
        run.clear();
    }

    /// Answers a request that nobody got with 503, to the requestor's own subscription; a member of a queue group is none.
    #[cold]
    fn no_responders(&mut self, m: &Message<'_>) {
        let mut body = b"NATS/1.0 503\r\nNats-Subject: ".to_vec();
        body.extend_from_slice(m.subject);
        body.extend_from_slice(b"\r\n\r\n");
        let header_len = body.len();
        body.extend_from_slice(b"\r\n");
        let mut matched = Receivers::default();
        self.account.match_into(m.reply, &mut matched);
        let answer =
            Message { subject: m.reply, reply: b"", header_len, body_crlf: &body, shared: None, shown: None };
        if let Some(sub) = matched.find_plain(|s| Arc::ptr_eq(&s.link, &self.link)) {
            self.out.begin(&answer);
            self.out.answering = true;
            let before = self.out.sent;
            self.out.deliver_one(sub, &self.link, &answer);
            self.out.answering = false;
            // It counts as no message, like with nats-server.
            let answered = self.out.sent.since(before);
            self.link.uncount(answered.msgs, answered.bytes);
            self.out.sent = before;
            self.out.end();
        }
    }

    /// Writes out what the messages since the last flush have put into outboxes.
    pub fn flush(&mut self) {
        if self.out.in_msgs > 0 {
            let (n, b) = (self.out.in_msgs, self.out.in_bytes);
            self.link.in_msgs.add(n);
            self.link.in_bytes.add(b);
            self.account.stats.in_msgs.add(n);
            self.account.stats.in_bytes.add(b);
            self.out.tell(&self.account);
        }
        self.out.flush();
    }
    /// Whether a receiver of the last batch is nearly full: the publisher should pause a little. Resets the mark.
    pub fn take_congestion(&mut self) -> bool {
        std::mem::take(&mut self.out.congested)
    }
    /// Outboxes that wait for the next flush.
    pub fn touched(&self) -> usize {
        self.out.touched.len()
    }
}

/// Where a publisher's messages to a subject go.
#[inline]
fn plan_of<'p>(
    plans: &'p mut Plans,
    account: &Account,
    permissions: Option<&Permissions>,
    subject: &[u8],
) -> &'p Plan {
    let named = |n: Named<'_>| account.has_named(n);
    plans.get_wide(subject, account.generation(), named, |p| {
        p.allowed = permissions.is_none_or(|p| p.can_publish(subject));
        p.literal = true;
        let wide = account.match_wide(subject, &mut p.matched);
        // What may be published is asked for each subject.
        wide.filter(|_| permissions.is_none())
    })
}

/// A publisher inside the server, on one account: what JetStream delivers and answers. It remembers receivers as a
/// [`Router`] does; nothing is mapped, traced or refused.
pub struct Sender {
    link: Arc<Link>,
    account: Arc<Account>,
    plans: Plans,
    out: Deliveries,
}

/// Who gets what a sender sends to `subject`.
#[inline]
fn receivers<'p>(plans: &'p mut Plans, account: &Account, subject: &[u8]) -> &'p Receivers {
    let named = |n: Named<'_>| account.has_named(n);
    let plan = plans.get_wide(subject, account.generation(), named, |p| {
        p.allowed = true;
        p.literal = true;
        account.match_wide(subject, &mut p.matched)
    });
    &plan.matched
}

impl Sender {
    /// A publisher on `account` in the name of `link`; `seed` feeds the choice of queue members.
    pub fn new(broker: Arc<Broker>, link: Arc<Link>, account: Arc<Account>, seed: u64) -> Sender {
        Sender { link, account, plans: Plans::default(), out: Deliveries::new(broker, seed) }
    }
    /// The account that is published to.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }
    /// Sends a message on its way and says how many got it. It is written with the next [`Sender::flush`].
    #[inline]
    pub fn send(&mut self, m: &Message<'_>) -> usize {
        let matched = receivers(&mut self.plans, &self.account, m.subject);
        self.out.deliver(matched, &self.link, m)
    }
    /// The same for a large body in shared memory, which is written from where it is if there is one receiver only; `None` where it cannot be: then it has to be sent
    /// in one piece with its line's end.
    pub fn send_loose(&mut self, m: &Loose<'_>) -> Option<usize> {
        let matched = receivers(&mut self.plans, &self.account, m.subject);
        self.out.deliver_loose(matched, m)
    }
    /// Writes out what was sent since the last flush.
    pub fn flush(&mut self) {
        self.out.tell(&self.account);
        self.out.flush();
    }
    /// Whether a receiver since the last call is nearly full. Resets the mark.
    pub fn take_congestion(&mut self) -> bool {
        std::mem::take(&mut self.out.congested)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Deliveries {
    /// A sender without a publisher.
    pub fn new(broker: Arc<Broker>, seed: u64) -> Deliveries {
        Deliveries {
            broker,
            head: MsgHead::default(),
            plain_head: MsgHead::default(),
            route_head: RouteHead::default(),
            route_queues: Vec::new(),
            route_doors: Vec::new(),
            touched: Vec::new(),
            flush_bytes: FLUSH_BYTES,
            expired: Vec::new(),
            gathered: Gathered::default(),
            answers_gathered: false,
            random: seed | 1,
            depth: 0,
            inside: None,
            inside_again: false,
            trace: None,
            inner: Inner::default(),
            at: None,
            answering: false,
            answers_back: false,
            by_import: false,
            congested: false,
            in_msgs: 0,
            in_bytes: 0,
            sent: Dealt::default(),
            told: Dealt::default(),
        }
    }

    /// A pseudo-random number (xorshift64*).
    #[inline]
    fn random(&mut self) -> u64 {
        let mut x = self.random;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    #[inline]
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.random()) * n as u128) >> 64) as usize
    }

    fn begin(&mut self, m: &Message<'_>) {
        let size = m.body_crlf.len() - 2;
        let subject = m.shown.unwrap_or(m.subject);
        if m.header_len > 0 {
            self.head.set(subject, m.reply, Some(m.header_len), size);
            self.plain_head.set(subject, m.reply, None, size - m.header_len);
        } else {
            self.head.set(subject, m.reply, None, size);
        }
    }

    /// Gives a message to all that match. Returns how many got it.
    #[inline]
    pub(crate) fn deliver(&mut self, matched: &Receivers, from: &Arc<Link>, m: &Message<'_>) -> usize {
        if matched.is_empty() {
            return 0;
        }
        if !matched.plain().is_empty() || !matched.groups().is_empty() {
            self.begin(m);
        }
        if self.trace.is_some() {
            return self.deliver_traced(matched, from, m);
        }
        // B-8
        let goes_on = !matched.remote().is_empty() && from.kind != Kind::Route;
        let mut n = 0;
        // A large payload with several receivers is owned once.
        let owned;
        let mut m = *m;
        if m.shared.is_none() && m.body_crlf.len() >= SHARE_BYTES_MIN && matched.len() > 1 {
            owned = Bytes::copy_from_slice(m.body_crlf);
            m.shared = Some(&owned);
        }
        for sub in matched.plain() {
            n += usize::from(self.deliver_one(sub, from, &m));
        }
        if goes_on {
            n += self.deliver_with_routes(matched, from, &m);
        } else {
            for group in matched.groups() {
                n += usize::from(self.deliver_group(&group.members, from, &m));
            }
        }
        if !self.expired.is_empty() {
            self.end();
        }
        n
    }

    /// As [`Deliveries::deliver`] for what comes from a route: plain subscriptions and one member of each named group.
    pub(crate) fn deliver_routed(
        &mut self,
        matched: &Receivers,
        from: &Arc<Link>,
        m: &Message<'_>,
        queues: &[u8],
    ) {
        if matched.plain().is_empty() && matched.groups().is_empty() {
            return;
        }
        self.begin(m);
        let owned;
        let mut m = *m;
        if m.shared.is_none() && m.body_crlf.len() >= SHARE_BYTES_MIN && matched.len() > 1 {
            owned = Bytes::copy_from_slice(m.body_crlf);
            m.shared = Some(&owned);
        }
        let traced = self.trace.is_some();
        for sub in matched.plain() {
            if traced {
                self.trace_one(sub, from, &m)
            } else {
                self.deliver_one(sub, from, &m)
            };
        }
        if !queues.is_empty() {
            for name in queues.split(|b| matches!(b, b' ' | b'\t')).filter(|q| !q.is_empty()) {
                let is_it = |g: &&Group| g.members.first().is_some_and(|s| s.queue() == name);
                match matched.groups().iter().find(is_it) {
                    Some(group) if traced => {
                        let lot = self.below(group.members.len());
                        self.trace_group(&group.members, lot, from, &m)
                    }
                    Some(group) => self.deliver_group(&group.members, from, &m),
                    None => false,
                };
            }
        }
        if !self.expired.is_empty() {
            self.end();
        }
    }

    /// Gives a message to one member of each group, wherever in the cluster it is, and to each route once. A member is drawn
    /// among all with the same chance.
    fn deliver_with_routes(&mut self, matched: &Receivers, from: &Arc<Link>, m: &Message<'_>) -> usize {
        let mut n = 0;
        let mut queues = std::mem::take(&mut self.route_queues);
        let remote = matched.remote();
        if queues.len() < remote.len() {
            queues.resize_with(remote.len(), Vec::new);
        }
        let no_request = self.is_no_request(from);
        for group in matched.groups() {
            if no_request && group.serves() {
                continue;
            }
            n += usize::from(self.choose_member(group, remote, &mut queues, from, m));
        }
        let (header_len, size) = (m.header_len, m.body_crlf.len() - 2);
        self.route_head.set(m.subject, m.shown, m.reply, (header_len > 0).then_some(header_len), size);
        let mut doors = std::mem::take(&mut self.route_doors);
        for (i, r) in remote.iter().enumerate() {
            if !r.plain && queues[i].is_empty() {
                continue;
            }
            let mut sent = self.deliver_route(&r.sub, &queues[i], &doors, i, m);
            if sent == Sent::Late {
                n += self.deliver_elsewhere(matched, i, &mut queues, &mut doors, from, m);
                sent = match r.plain || !queues[i].is_empty() {
                    true => self.deliver_route(&r.sub, &queues[i], &[], i, m),
                    false => Sent::No,
                };
            }
            n += usize::from(sent == Sent::Yes);
            queues[i].clear();
        }
        doors.clear();
        (self.route_queues, self.route_doors) = (queues, doors);
        n
    }

    /// A door at the other end of route `at` has closed since the message was to go there, and the other end may have been told already that nothing
    /// more comes: its group's next door gets the message.
    #[cold]
    fn deliver_elsewhere(
        &mut self,
        matched: &Receivers,
        at: usize,
        queues: &mut [Vec<u8>],
        doors: &mut Vec<(usize, Arc<Sub>)>,
        from: &Arc<Link>,
        m: &Message<'_>,
    ) -> usize {
        let remote = matched.remote();
        let mut n = 0;
        for (_, closed) in doors.extract_if(.., |(i, door)| *i == at && door.is_closed()) {
            let name = closed.queue();
            let all = std::mem::take(&mut queues[at]);
            all.split(|b| *b == b' ')
                .filter(|q| !q.is_empty() && *q != name)
                .for_each(|q| add_name(&mut queues[at], q));
            let Some(group) = matched.groups().iter().find(|g| g.name() == name) else { continue };
            let lot = group.draw(|_| 0);
            if lot < group.members.len() {
                n += usize::from(self.deliver_group(&group.members, from, m));
                continue;
            }
            let next = group.remote_at(lot - group.members.len()).filter(|i| *i != at);
            // A route that has had the message for others gets it no second time.
            let Some(i) = next.filter(|i| *i > at || (!remote[*i].plain && queues[*i].is_empty())) else {
                continue;
            };
            add_name(&mut queues[i], name);
            if i < at {
                n += usize::from(self.deliver_route(&remote[i].sub, &queues[i], &[], i, m) == Sent::Yes);
                queues[i].clear();
            }
        }
        n
    }

    /// Gives a message to a member here, or notes the group's name for a route.
    fn choose_member(
        &mut self,
        group: &Group,
        remote: &[Remote],
        queues: &mut [Vec<u8>],
        from: &Arc<Link>,
        m: &Message<'_>,
    ) -> bool {
        let here = group.members.len();
        if group.remote_weight == 0 {
            return self.deliver_group(&group.members, from, m);
        }
        let lot = group.draw(|n| self.below(n));
        if lot < here && self.deliver_group(&group.members, from, m) {
            return true;
        }
        let is_open = |i: &usize| remote[*i].sub.link.closed().is_none();
        let drawn = group.remote_at(lot.saturating_sub(here)).filter(is_open);
        match drawn.or_else(|| group.remote.iter().map(|(i, _)| *i).find(is_open)) {
            Some(i) => {
                if let Some(door) = group.door(i) {
                    self.route_doors.push((i, door.clone()));
                }
                add_name(&mut queues[i], group.name());
                // Whether it went out is counted with the route.
                false
            }
            None => lot >= here && self.deliver_group(&group.members, from, m),
        }
    }

    /// Puts a message into the outbox of a route, `at` by its place, unless one of the `doors` that it is to go to there has closed.
    fn deliver_route(
        &mut self,
        sub: &Arc<Sub>,
        queues: &[u8],
        doors: &[(usize, Arc<Sub>)],
        at: usize,
        m: &Message<'_>,
    ) -> Sent {
        let link = &*sub.link;
        if sub.flags() & FILTERED != 0 {
            return Sent::No;
        }
        if m.header_len > 0 && !link.flags().has(LinkFlags::HEADERS) {
            return self.deliver_route_plain(sub, queues, doors, at, m);
        }
        let head = &self.route_head;
        let (account, n) = (sub.sid(), m.body_crlf.len());
        let mut out = link.out.lock();
        if out.closed {
            return Sent::No;
        }
        // Whoever reads the route closes a door before it answers the next PING, for which it takes this lock.
        if doors.iter().any(|(i, door)| *i == at && door.is_closed()) {
            return Sent::Late;
        }
        match m.shared {
            Some(b) if n >= SHARE_BYTES_MIN => {
                head.push(account, queues, out.room(head.len(account, queues)));
                out.share(b.clone());
            }
            _ => {
                let room = out.room(head.len(account, queues) + n);
                head.push(account, queues, room);
                room.extend_from_slice(m.body_crlf);
            }
        }
        let size = (n - 2) as u64;
        out.msgs += 1;
        out.bytes += size;
        let (pending, first) = (out.pending(), out.schedule());
        let full = pending >= self.flush_bytes && out.blocked_since.is_none();
        drop(out);
        self.sent.add(size);
        self.sent.route_msgs += 1;
        self.sent.route_bytes += size;
        if first {
            self.touch(&sub.link);
        }
        if full {
            link.flush_some();
        }
        let max = link.pending_bytes_max();
        if pending > max / 4 * 3 {
            self.crowded(link, pending, max);
        }
        Sent::Yes
    }

    /// The same for a server that takes no headers.
    #[cold]
    fn deliver_route_plain(
        &mut self,
        sub: &Arc<Sub>,
        queues: &[u8],
        doors: &[(usize, Arc<Sub>)],
        at: usize,
        m: &Message<'_>,
    ) -> Sent {
        let bare = Message { header_len: 0, body_crlf: &m.body_crlf[m.header_len..], shared: None, ..*m };
        let head = std::mem::take(&mut self.route_head);
        self.route_head.set(m.subject, m.shown, m.reply, None, bare.body_crlf.len() - 2);
        let done = self.deliver_route(sub, queues, doors, at, &bare);
        self.route_head = head;
        done
    }

    /// As [`Deliveries::deliver`], and notes where the message goes; a message that is trace-only goes nowhere (B-7).
    #[cold]
    fn deliver_traced(&mut self, matched: &Receivers, from: &Arc<Link>, m: &Message<'_>) -> usize {
        let mut n = 0;
        for sub in matched.plain() {
            n += usize::from(self.trace_one(sub, from, m));
        }
        let goes_on = !matched.remote().is_empty() && from.kind != Kind::Route;
        let mut queues = vec![Vec::new(); matched.remote().len()];
        let no_request = self.is_no_request(from);
        for group in matched.groups() {
            if no_request && group.serves() {
                continue;
            }
            let members = &group.members;
            let elsewhere = goes_on && group.remote_weight > 0;
            let lot = if elsewhere { group.draw(|n| self.below(n)) } else { self.below(members.len()) };
            if lot < members.len() {
                n += usize::from(self.trace_group(members, lot, from, m));
            } else if let Some(i) = group.remote_at(lot - members.len()).filter(|_| elsewhere) {
                add_name(&mut queues[i], group.name());
            }
        }
        if goes_on {
            n += self.trace_routes(matched, &queues, m);
        }
        if !self.expired.is_empty() {
            self.end();
        }
        n
    }

    /// Notes the routes that a message takes. It goes on to them with what its headers ask for: one that is only to be traced reaches nobody there
    /// either (B-7).
    fn trace_routes(&mut self, matched: &Receivers, queues: &[Vec<u8>], m: &Message<'_>) -> usize {
        let mut n = 0;
        for (r, queues) in matched.remote().iter().zip(queues) {
            if !r.plain && queues.is_empty() {
                continue;
            }
            let Some(t) = &mut self.trace else { break };
            let (header_len, body_crlf) = t.hop(&r.sub.link, m);
            let size = body_crlf.len() - 2;
            self.route_head.set(m.subject, m.shown, m.reply, Some(header_len), size);
            let m = Message { header_len, body_crlf: &body_crlf, shared: None, ..*m };
            n += usize::from(self.deliver_route(&r.sub, queues, &[], 0, &m) == Sent::Yes);
        }
        n
    }
    /// The trace of a message is made: whoever asked for it is told.
    pub(crate) fn tell_trace(&mut self, trace: &Trace) {
        let broker = self.broker.clone();
        broker.crossing(|c| c.traced(self, trace));
    }

    /// As [`Deliveries::deliver_group`] from the member that was drawn on, and notes who gets it.
    fn trace_group(&mut self, members: &[Arc<Sub>], lot: usize, from: &Arc<Link>, m: &Message<'_>) -> bool {
        let (before, after) = members.split_at(lot);
        after.iter().chain(before).any(|s| self.trace_one(s, from, m))
    }

    fn trace_one(&mut self, sub: &Arc<Sub>, from: &Arc<Link>, m: &Message<'_>) -> bool {
        let only = self.trace.as_ref().is_some_and(|t| t.only);
        if let Some(extra) = sub.extra() {
            return self.trace_shadow(sub, extra, from, m, only);
        }
        if sub.link.kind == Kind::Internal {
            return sub.flags() & CLOSED == 0 && self.deliver_inside(sub, from, m);
        }
        let error = refusal(sub, from, m.subject);
        if let Some(t) = &mut self.trace {
            let account = sub.link.account();
            t.egress(&sub.link, sub, account.as_ref(), error);
        }
        error.is_none() && (only || self.deliver_one(sub, from, m))
    }

    /// A trace goes on in the importer's account only if the importer allows it.
    fn trace_shadow(
        &mut self,
        sub: &Sub,
        extra: &Extra,
        from: &Arc<Link>,
        m: &Message<'_>,
        only: bool,
    ) -> bool {
        let mut to = Vec::new();
        if !extra.inward.apply(m.subject, |n| self.below(n as usize) as u32, &mut to) {
            return false;
        }
        let error = refusal(&extra.parent, from, &to);
        let account = extra.parent.link.account();
        if let (Some(t), Some(account)) = (&mut self.trace, &account) {
            t.note(Step::StreamExport { account: account.name.clone(), to });
            if extra.allow_trace {
                t.egress(&extra.parent.link, sub, Some(account), error);
            }
        }
        error.is_none() && (only || self.deliver_shadow(extra, from, m))
    }

    /// Notes a step of the message at hand if it is traced.
    pub(crate) fn note(&mut self, step: impl FnOnce() -> Step) {
        if let Some(t) = &mut self.trace {
            t.note(step());
        }
    }

    /// What the mappings of an account make of a subject that is published in it.
    pub(crate) fn rename(&mut self, account: &Account, subject: &[u8]) -> Renamed {
        let mappings = account.mappings();
        let Some(mapping) = mappings.find(subject) else { return Renamed::No };
        let (cluster, lot) = (self.broker.cluster(), self.below(100) as u8);
        match mapping.choose(&cluster, lot) {
            Choice::Keep => Renamed::No,
            Choice::Drop => Renamed::Dropped,
            Choice::To(transform) => {
                let mut to = Vec::new();
                if !transform.apply(subject, |n| self.below(n as usize) as u32, &mut to) {
                    return Renamed::No;
                }
                self.note(|| Step::Mapped { to: to.clone() });
                Renamed::To(to)
            }
        }
    }

    /// For receivers inside the server that serve another account's requests: notes the way there if the message at hand
    /// is traced. False if it is not to be handled (B-7).
    pub fn may_serve(&mut self, account: &Arc<str>, from: &[u8], to: &[u8]) -> bool {
        self.note(|| Step::ServiceImport { account: account.clone(), from: from.to_vec(), to: to.to_vec() });
        !self.is_trace_only()
    }
    /// Whether the message at hand is only to be traced: receivers inside the server must leave it alone (B-7).
    pub fn is_trace_only(&self) -> bool {
        self.trace.as_ref().is_some_and(|t| t.only)
    }

    /// Gives a message to one member (B-2): a random one, or the next that takes it.
    fn deliver_group(&mut self, group: &[Arc<Sub>], from: &Arc<Link>, m: &Message<'_>) -> bool {
        let start = if group.len() > 1 { self.below(group.len()) } else { 0 };
        let (after, before) = (&group[start..], &group[..start]);
        if env::planted!("queue-two-members") && group.len() > 2 {
            self.deliver_one(before.iter().chain(after).last().expect("three or more"), from, m);
        }
        after.iter().chain(before).any(|s| self.deliver_one(s, from, m))
    }

    /// Gives a message to one subscription, if it takes it.
    #[inline]
    pub(crate) fn deliver_one(&mut self, sub: &Arc<Sub>, from: &Arc<Link>, m: &Message<'_>) -> bool {
        let (link, flags) = (&*sub.link, sub.flags());
        if flags != 0 {
            if flags & CLOSED != 0 {
                return false;
            }
            if flags & FILTERED != 0
                && link.permissions().is_some_and(|p| p.deny_on_delivery(m.subject, sub.queue()))
            {
                return false;
            }
        }
        if link.kind == Kind::Internal {
            return self.deliver_inside(sub, from, m);
        }
        let link_flags = link.flags();
        let echo = link_flags.has(LinkFlags::ECHO) || env::planted!("echo-ignored");
        if !echo && Arc::ptr_eq(&sub.link, from) && !self.answering {
            return false;
        }
        // A receiver without headers gets the payload alone.
        let bare = m.header_len > 0 && !link_flags.has(LinkFlags::HEADERS);
        let skip = if bare { m.header_len } else { 0 };
        let body = match m.shared {
            Some(b) if m.body_crlf.len() - skip >= SHARE_BYTES_MIN => Body::Shared(b, skip),
            _ => Body::Copied(&m.body_crlf[skip..]),
        };
        self.put_out(sub, bare, body, m.reply)
    }

    /// Gives a large body that stands in shared memory without a line's end behind it to the only receiver, without a copy; `None` where that cannot be, and nothing was
    /// done.
    fn deliver_loose(&mut self, matched: &Receivers, m: &Loose<'_>) -> Option<usize> {
        let sub = matched.sole()?;
        let (link, bare) = (&*sub.link, m.header_len > 0);
        let takes = link.kind == Kind::Client && (!bare || link.flags().has(LinkFlags::HEADERS));
        if !takes || sub.flags() != 0 || self.trace.is_some() {
            return None;
        }
        self.head.set(m.shown, m.reply, bare.then_some(m.header_len), m.body.len());
        let n = usize::from(self.put_out(sub, false, Body::Loose(m.body), m.reply));
        if !self.expired.is_empty() {
            self.end();
        }
        Some(n)
    }

    /// Puts a message into the outbox of a receiver that may have it; `bare` without its headers.
    #[inline(always)]
    fn put_out(&mut self, sub: &Arc<Sub>, bare: bool, body: Body<'_>, reply: &[u8]) -> bool {
        let (link, link_flags) = (&*sub.link, sub.link.flags());
        let head = if bare { &mut self.plain_head } else { &mut self.head };
        let mut out = link.out.lock();
        if out.closed {
            return false;
        }
        let last = match sub.count() {
            Some(last) => last,
            None => return false,
        };
        let sid = sub.sid();
        let size = match body {
            Body::Shared(b, skip) => {
                head.push(sid, out.room(head.len(sid)));
                out.share(if skip == 0 { b.clone() } else { b.slice(skip..) });
                b.len() - skip - 2
            }
            Body::Loose(b) => {
                head.push(sid, out.room(head.len(sid)));
                out.share(b.clone());
                out.room(2).extend_from_slice(b"\r\n");
                b.len()
            }
            Body::Copied(body_crlf) => {
                let room = out.room(head.len(sid) + body_crlf.len());
                head.push(sid, room);
                room.extend_from_slice(body_crlf);
                body_crlf.len() - 2
            }
        } as u64;
        out.msgs += 1;
        out.bytes += size;
        let (pending, first) = (out.pending(), out.schedule());
        let full = pending >= self.flush_bytes && out.blocked_since.is_none();
        drop(out);
        self.sent.add(size);
        if first {
            self.touch(&sub.link);
        }
        if full {
            // Written now it is still in the cache, and the outbox stays small.
            link.flush_some();
        }
        let max = link.pending_bytes_max();
        if pending > max / 4 * 3 {
            self.crowded(link, pending, max);
        }
        if last {
            self.expired.push(sub.clone());
        }
        if link_flags.any(MORE_TO_DO) {
            self.after(sub, bare, body, reply);
        }
        true
    }

    /// What is still to be done for some receivers when they have got a message.
    #[cold]
    #[inline(never)]
    fn after(&mut self, sub: &Sub, bare: bool, body: Body<'_>, reply: &[u8]) {
        let (link, flags) = (&*sub.link, sub.link.flags());
        if flags.has(LinkFlags::TRACED) {
            let head = if bare { &mut self.plain_head } else { &mut self.head };
            let mut line = Vec::new();
            head.push(sub.sid(), &mut line);
            let body = match body {
                Body::Copied(b) => &b[..b.len() - 2],
                Body::Shared(b, skip) => &b[skip..b.len() - 2],
                Body::Loose(b) => b,
            };
            let header_len = if bare { 0 } else { head.header_len() };
            self.broker.crossing(|c| c.sent(link, &line, body, header_len));
        }
        if flags.has(LinkFlags::GRANTS_REPLIES) && !reply.is_empty() {
            link.grant_reply(reply);
        }
    }

    #[cold]
    #[inline(never)]
    fn crowded(&mut self, link: &Link, pending: usize, max: usize) {
        // Perhaps the bytes are only waiting for the end of this batch.
        link.flush();
        if link.pending_bytes() > max && !env::planted!("slow-consumer-stays") {
            env::reachable!("a slow consumer is closed");
            // B-5
            if link.closed().is_none() {
                self.broker.stats.slow_consumers.add(1);
                if let Some(a) = link.account() {
                    a.stats.slow_consumers.add(1);
                }
            }
            link.close(Closed::SlowConsumerPendingBytes);
            link.dismantle();
        } else if pending > max / 4 * 3 && link.blocked_since().is_some() {
            env::reachable!("a publisher is held back");
            self.congested = true;
            link.set_congested(true);
        }
    }

    /// Runs `f`, which sends other messages, while a message is being delivered: the heads belong to the one at hand.
    fn nested(&mut self, f: impl FnOnce(&mut Deliveries) -> bool) -> bool {
        // Imports cannot form cycles by themselves, but mappings on their way can: this bounds what that costs.
        if self.depth >= NESTED_MAX {
            return false;
        }
        self.apart(f)
    }
    /// The same however deep it is.
    pub(crate) fn apart<T>(&mut self, f: impl FnOnce(&mut Deliveries) -> T) -> T {
        self.depth += 1;
        let (head, plain) = (std::mem::take(&mut self.head), std::mem::take(&mut self.plain_head));
        let done = f(self);
        (self.head, self.plain_head) = (head, plain);
        self.depth -= 1;
        done
    }

    #[cold]
    fn deliver_inside(&mut self, sub: &Arc<Sub>, from: &Arc<Link>, m: &Message<'_>) -> bool {
        if let Some(extra) = sub.extra() {
            return self.deliver_shadow(extra, from, m);
        }
        let Some(to) = &sub.link.inbound else { return false };
        if to.serves() && self.is_no_request(from) {
            // B-11
            return false;
        }
        sub.count();
        if self.depth == 0 && to.takes_runs() {
            self.inside_again = self.inside.as_ref().is_some_and(|last| Arc::ptr_eq(last, sub));
            if !self.inside_again {
                self.inside = Some(sub.clone());
            }
        }
        self.nested(|d| to.deliver(d, sub, from, m))
    }

    /// Hands messages to the receiver inside the server that got the last one; how many it took.
    fn deliver_run(&mut self, ms: &[Message<'_>]) -> usize {
        let Some(sub) = self.inside.take() else { return 0 };
        let mut n = 0;
        if sub.flags() == 0
            && let Some(to) = &sub.link.inbound
        {
            n = self.apart(|d| to.deliver_run(d, ms));
            sub.count_inside(n);
        }
        self.inside = Some(sub);
        n
    }

    /// Gives a message of another account to the importer's subscription, under its local subject.
    #[cold]
    fn deliver_shadow(&mut self, extra: &Extra, from: &Arc<Link>, m: &Message<'_>) -> bool {
        self.nested(|d| {
            let mut subject = Vec::new();
            if !extra.inward.apply(m.subject, |n| d.below(n as usize) as u32, &mut subject) {
                return false;
            }
            let kept = if env::planted!("import-keeps-subject") { m.subject } else { &subject };
            let m = Message { subject: kept, ..*m };
            d.begin(&m);
            d.as_import(false, |d| d.deliver_one(&extra.parent, from, &m))
        })
    }

    /// A reply subject that nobody has used.
    pub(crate) fn new_reply(&mut self) -> Vec<u8> {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut reply = self.broker.reply_prefix().to_vec();
        for _ in 0..20 {
            reply.push(DIGITS[self.below(62)]);
        }
        reply
    }

    /// Sends a message into an account's interest.
    pub fn publish(&mut self, account: &Account, from: &Arc<Link>, m: &Message<'_>) -> usize {
        // Receivers may publish in turn: they begin anew.
        let mut inner = std::mem::take(&mut self.inner);
        if inner.account.as_ref().is_none_or(|a| !Arc::ptr_eq(a, &account.name)) {
            inner = Inner { account: Some(account.name.clone()), ..Inner::default() };
        }
        let named = |n: Named<'_>| account.has_named(n);
        let plan = inner.plans.get_wide(m.subject, account.generation(), named, |p| {
            account.match_wide(m.subject, &mut p.matched)
        });
        let before = self.untold();
        let n = self.deliver(&plan.matched, from, m);
        self.inner = inner;
        self.tell_since(account, before);
        n
    }

    /// Sends an answer into the account of whoever asked. B-11: it is no request there, although its subject was chosen by one and its text by the other.
    pub(crate) fn publish_answer(&mut self, account: &Account, from: &Arc<Link>, m: &Message<'_>) -> usize {
        let before = std::mem::replace(&mut self.answers_back, true);
        let n = self.as_import(false, |d| d.publish(account, from, m));
        self.answers_back = before;
        n
    }
    /// The same for a request on its way by an import.
    pub(crate) fn publish_import(&mut self, account: &Account, from: &Arc<Link>, m: &Message<'_>) -> usize {
        self.as_import(true, |d| d.publish(account, from, m))
    }
    /// Runs `f`, which sends what has come by a service import, or has not.
    fn as_import<T>(&mut self, by_import: bool, f: impl FnOnce(&mut Deliveries) -> T) -> T {
        let before = std::mem::replace(&mut self.by_import, by_import);
        let done = f(self);
        self.by_import = before;
        done
    }
    /// Whether what `from` sends now is told to no service.
    #[inline]
    fn is_no_request(&self, from: &Link) -> bool {
        self.answers_back || from.flags().has(LinkFlags::NO_REQUESTS)
    }

    /// What went out and no account was told of yet.
    #[inline]
    fn untold(&self) -> Dealt {
        self.sent.since(self.told)
    }
    /// Tells an account what went out since `before`, and that nobody was told of yet: what is answered on the way is another's, or its own once.
    fn tell_since(&mut self, account: &Account, before: Dealt) {
        let sent = self.untold().since(before);
        sent.count(&account.stats);
        self.told += sent;
    }
    /// Tells an account of the rest.
    pub(crate) fn tell(&mut self, account: &Account) {
        self.tell_since(account, Dealt::default());
    }

    /// Removes subscriptions that have had their maximum.
    #[cold]
    fn end(&mut self) {
        for sub in std::mem::take(&mut self.expired) {
            if sub.link.flags().has(LinkFlags::TRACED) {
                self.broker.crossing(|c| c.expired(&sub));
            }
            sub.link.expire(&sub);
        }
    }

    /// The time: that of the first who asked since the last flush, so that what was read together costs one look at the clocks.
    #[inline]
    pub fn now(&mut self) -> (env::Wall, env::Instant) {
        *self.at.get_or_insert_with(|| (env::wall(), env::now()))
    }

    /// Whether a receiver since the last call is nearly full. Resets the mark.
    pub(crate) fn take_congestion(&mut self) -> bool {
        std::mem::take(&mut self.congested)
    }
    /// Undertakes to flush a link (B-6).
    fn touch(&mut self, link: &Arc<Link>) {
        self.touched.push(link.clone());
        self.flush_bytes = (FLUSH_ALL_BYTES / self.touched.len()).clamp(FLUSH_BYTES_MIN, FLUSH_BYTES);
    }
    /// Writes out what was put into outboxes (B-6).
    pub fn flush(&mut self) {
        self.answer_gathered();
        self.at = None;
        self.flush_bytes = FLUSH_BYTES;
        let stats = &self.broker.stats;
        stats.in_msgs.add(std::mem::take(&mut self.in_msgs));
        stats.in_bytes.add(std::mem::take(&mut self.in_bytes));
        std::mem::take(&mut self.sent).count(stats);
        self.told = Dealt::default();
        for link in self.touched.drain(..) {
            link.flush();
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Why `sub` does not get a message to `subject`, if so.
fn refusal(sub: &Sub, from: &Arc<Link>, subject: &[u8]) -> Option<&'static str> {
    let (link, flags) = (&sub.link, sub.flags());
    if flags & CLOSED != 0 {
        return Some(why::SUB_CLOSED);
    }
    if flags & FILTERED != 0 && link.permissions().is_some_and(|p| p.deny_on_delivery(subject, sub.queue())) {
        return Some(why::DENIED);
    }
    if !link.flags().has(LinkFlags::ECHO) && Arc::ptr_eq(link, from) {
        return Some(why::NO_ECHO);
    }
    if link.closed().is_some() {
        return Some(why::CLIENT_CLOSED);
    }
    (sub.max() != 0 && sub.delivered() >= sub.max()).then_some(why::EXPIRED)
}

/// A closure as a receiver.
impl<F: Fn(&mut Deliveries, &Sub, &Arc<Link>, &Message<'_>) -> bool + Send + Sync> Inbound for F {
    fn deliver(&self, d: &mut Deliveries, sub: &Sub, from: &Arc<Link>, m: &Message<'_>) -> bool {
        self(d, sub, from, m)
    }
    fn serves(&self) -> bool {
        false
    }
    fn listens(&self, _: &[u8]) -> bool {
        true
    }
}
