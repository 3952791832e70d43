//! The way in: a message on one of the stream's subjects.
//!
//! It is decided in the publisher's task under the stream's lock, joins the open batch, and its answer waits there. Nothing else
//! happens in that task: the group's activity takes the batch when it is free, so that batches grow while one is being synced.
//!
//! A decision that needs the disk is put aside, and so is everything behind it, until it is made: J-22, messages are decided in the
//! order in which they came.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use broker::{Deliveries, Inbound, Link, Message, Sub};
use bytes::Bytes;
use parking_lot::MutexGuard;
use store::{GroupId, Need, StreamSeq};
use stream::{
    Now, errors,
    publish::{Answer, Decision, Entry, Publish},
};

use crate::{
    Options, answer,
    cluster::calls::{Forward, Way},
    log::{Answers, Log},
    shell::{Core, Stream, now},
    view::StoreView,
};

/// Messages decided by the task for those that wait before others get their turn.
const TURN: usize = 256;

/// A publish that waits for the disk, or behind one that does.
#[derive(Clone, Debug)]
pub struct Waiting {
    subject: Bytes,
    reply: Bytes,
    headers: Bytes,
    payload: Bytes,
    from: stream::publish::From,
    /// How many nodes it came through.
    hops: u8,
}

impl Waiting {
    /// Keeps a publish for later.
    pub(crate) fn of(p: &Publish<'_>, hops: u8) -> Waiting {
        Waiting {
            subject: Bytes::copy_from_slice(p.subject),
            reply: Bytes::copy_from_slice(p.reply),
            headers: Bytes::copy_from_slice(p.headers),
            payload: Bytes::copy_from_slice(p.payload),
            from: p.from,
            hops,
        }
    }
    /// What it costs while it waits, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Waiting>() + self.subject.len() + self.reply.len() + self.headers.len() + self.payload.len()
    }
    /// As it goes on to another node.
    pub(crate) fn forward<'a>(&'a self, stream: &'a str, account: &'a str) -> Forward<'a> {
        Forward {
            way: Way::Publish,
            hops: self.hops.saturating_add(1),
            account: account.as_bytes(),
            stream: stream.as_bytes(),
            subject: &self.subject,
            reply: &self.reply,
            headers: &self.headers,
            body: &self.payload,
        }
    }
}

/// Who takes messages on a stream's subjects.
pub struct Door {
    /// The stream.
    pub stream: Weak<Stream>,
    /// Whether other servers are told of it.
    pub is_told: bool,
}

/// What became of a publish.
enum Done {
    /// It is decided; answers to send now, and whether the group has work.
    Decided,
    /// The disk has to answer first.
    Need(Need),
    /// What is on its way has to be applied first.
    Wait,
}

impl Inbound for Door {
    fn is_local(&self) -> bool {
        !self.is_told
    }
    fn serves(&self) -> bool {
        false
    }
    fn listens(&self, _: &[u8]) -> bool {
        false
    }
    fn deliver(&self, d: &mut Deliveries, sub: &Sub, _: &Arc<Link>, m: &Message<'_>) -> bool {
        // Who acknowledges or asks and then publishes is heard in that order.
        d.answer_gathered();
        let Some(stream) = self.stream.upgrade() else { return false };
        if d.is_trace_only() {
            return false;
        }
        // Two subjects of one stream never match the same message: they must not overlap.
        let _ = sub;
        let now = read_at(d);
        let (told, at_once) = stream.publish(&stream.asked_by(m), now, Came::Here);
        stream.answer(d, at_once);
        told
    }
    fn takes_runs(&self) -> bool {
        true
    }
    fn deliver_run(&self, d: &mut Deliveries, ms: &[Message<'_>]) -> usize {
        d.answer_gathered();
        let Some(stream) = self.stream.upgrade() else { return 0 };
        let now = read_at(d);
        let (taken, at_once) = stream.publish_run(ms, now);
        stream.answer(d, at_once);
        taken
    }
}

/// One look at the clocks for all that was read together.
fn read_at(d: &mut Deliveries) -> Now {
    let (wall, mono) = d.now();
    Now { wall: wall.0, mono: mono.0 }
}

/// How a publish came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Came {
    /// By the door.
    Here,
    /// From the node that led before, behind which all others wait.
    Given,
}

impl Stream {
    /// A client's message as the rules see it.
    #[inline]
    fn asked_by<'a>(&self, m: &Message<'a>) -> Publish<'a> {
        Publish {
            subject: m.subject,
            reply: m.reply,
            headers: if env::planted!("js-headers-ignored") { b"" } else { m.header() },
            payload: m.payload(),
            from: stream::publish::From::Client,
            no_room_for_batches: self.share.no_room_for_batches(),
            unwanted: false,
        }
    }
    /// Sends what is to be answered at once.
    fn answer(&self, d: &mut Deliveries, at_once: Option<Answers>) {
        let Some(a) = at_once else { return };
        let Some(assets) = self.assets.upgrade() else { return };
        for (to, body_crlf) in a.iter() {
            let (reply, header_len, shared, shown) = (&b""[..], 0, None, None);
            let m = Message { subject: to, reply, header_len, body_crlf, shared, shown };
            d.publish(&assets.account, &self.door, &m);
        }
    }

    /// Takes messages from the front of those that were read together, under one lock; how many, and the answers to be sent now. It ends before the
    /// first that is not simply decided (that one comes again, alone), and behind the first that is answered at once, so that nothing which is decided
    /// later is answered before it.
    fn publish_run(self: &Arc<Stream>, ms: &[Message<'_>], now: Now) -> (usize, Option<Answers>) {
        let Some(node) = self.node.upgrade() else { return (0, None) };
        self.look_around();
        let mut at_once = Answers::default();
        let mut core = self.core.lock();
        let waits = core.moving.is_behind() || core.moving.handing || !core.slow.is_empty();
        if waits || core.check_open().is_err() {
            return (0, None);
        }
        if let Some(rules) = &core.rules {
            rules.foresee(ms.iter().map(Message::header));
        }
        let mut taken = 0;
        for m in ms {
            let p = self.asked_by(m);
            if core.is_full(&node.options)
                || self.share.refuses(&p, core.log.waiting().1, core.copies()).is_some()
            {
                break;
            }
            let Done::Decided = core.decide(self, &p, now, &mut at_once) else { break };
            taken += 1;
            if !at_once.is_empty() {
                break;
            }
        }
        if taken == 0 {
            return (0, None);
        }
        (taken, self.decided(core, at_once, now))
    }

    /// Something was decided: its group is woken, and what can be answered now is given back.
    fn decided(
        self: &Arc<Stream>,
        mut core: MutexGuard<'_, Core>,
        at_once: Answers,
        now: Now,
    ) -> Option<Answers> {
        let handle = core.log.has_work().then(|| core.handle.clone()).flatten();
        let sure = at_once.is_empty() || core.is_sure(now.mono);
        let abandoned = core.take_abandoned();
        drop(core);
        if let Some(h) = handle {
            h.wake();
        }
        self.tell_abandoned(&abandoned);
        if !sure {
            env::spawn(self.clone().answer_when_sure(at_once));
            return None;
        }
        (!at_once.is_empty()).then_some(at_once)
    }

    /// Takes a message. False if the stream is not there any more; the answers are to be sent now.
    pub(crate) fn publish(
        self: &Arc<Stream>,
        p: &Publish<'_>,
        now: Now,
        came: Came,
    ) -> (bool, Option<Answers>) {
        self.look_around();
        let mut at_once = Answers::default();
        let mut core = self.core.lock();
        if core.check_open().is_err() {
            let held = core.hold(p, 0);
            drop(core);
            if held {
                self.let_go();
            }
            return (held, None);
        }
        let full = self.node.upgrade().is_none_or(|node| core.is_full(&node.options));
        if full {
            if !p.reply.is_empty() {
                let e = errors::STREAM_TOO_MANY_REQUESTS.error();
                at_once.push(p.reply, |out| self.acks.push_error(out, &e));
            }
            return (true, Some(at_once));
        }
        if let Some(e) = self.share.refuses(p, core.log.waiting().1, core.copies()) {
            if !p.reply.is_empty() {
                at_once.push(p.reply, |out| self.acks.push_error(out, &e.error()));
            }
            return (true, Some(at_once));
        }
        if came == Came::Here && core.moving.is_behind() {
            core.moving.follows(Waiting::of(p, 0));
            return (true, None);
        }
        let at_once_decided = core.slow.is_empty() && !core.moving.handing;
        let done = if at_once_decided { core.decide(self, p, now, &mut at_once) } else { Done::Wait };
        let need = match done {
            Done::Decided => return (true, self.decided(core, at_once, now)),
            Done::Need(n) => Some(n),
            Done::Wait => None,
        };
        core.put_aside(Waiting::of(p, 0));
        let starts = !core.moving.handing && !std::mem::replace(&mut core.slow_runs, true);
        drop(core);
        if starts {
            env::spawn(self.clone().decide_slowly(need));
        }
        (true, None)
    }

    /// Decides what waits, in order, until nothing does or what is on its way has to be applied first.
    pub(crate) async fn decide_slowly(self: Arc<Stream>, mut need: Option<Need>) {
        loop {
            if let Some(n) = need.take()
                && let Err(e) = self.group().fetch(n).await
            {
                // The first one cannot be decided; the others may.
                self.refuse_first(&errors::STREAM_STORE_FAILED.with(e));
            }
            let mut at_once = Answers::default();
            let (mut over, mut handle) = (false, None);
            let abandoned;
            {
                let mut core = self.core.lock();
                if core.term.is_none() || core.moving.handing {
                    // They wait for whoever leads next.
                    core.slow_runs = false;
                    return;
                }
                for _ in 0..TURN {
                    let Some(w) = core.slow.front().cloned() else {
                        over = true;
                        break;
                    };
                    let p = Publish {
                        subject: &w.subject,
                        reply: &w.reply,
                        headers: &w.headers,
                        payload: &w.payload,
                        from: w.from,
                        no_room_for_batches: self.share.no_room_for_batches(),
                        unwanted: false,
                    };
                    match core.decide(&self, &p, now(), &mut at_once) {
                        Done::Decided => drop(core.take_first()),
                        Done::Need(n) => {
                            need = Some(n);
                            break;
                        }
                        // Applying goes on from here; with nothing on its way there is nothing to wait for.
                        Done::Wait => {
                            over = core.log.has_tail() || core.voided || core.rules.is_none();
                            break;
                        }
                    }
                }
                if core.log.has_work() {
                    handle = core.handle.clone();
                }
                if over {
                    core.slow_runs = false;
                }
                abandoned = core.take_abandoned();
            }
            if let Some(h) = handle {
                h.wake();
            }
            self.tell_abandoned(&abandoned);
            if !at_once.is_empty() {
                let sure = self.core.lock().is_sure(env::now().0);
                match sure {
                    true => self.send(&at_once),
                    false => drop(env::spawn(self.clone().answer_when_sure(at_once))),
                }
            }
            if over {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Sends answers that follow from what is stored once it is certain that nobody else led when they were found (K-10): a refusal for a revision that
    /// another leader has overtaken would be a lie. Where nobody can say, neither is that answer.
    async fn answer_when_sure(self: Arc<Stream>, answers: Answers) {
        if self.confirm().await.is_ok() {
            return self.send(&answers);
        }
        let (mut refusals, error) = (Answers::default(), errors::CLUSTER_NOT_AVAIL.error());
        answers.replies().for_each(|to| refusals.push(to, |out| self.acks.push_error(out, &error)));
        self.send(&refusals);
    }

    /// Goes on with what waits, if anything does.
    pub(crate) fn wake_slow(self: &Arc<Stream>) {
        let starts = {
            let mut core = self.core.lock();
            let decides = core.serves() && !core.moving.handing;
            let starts = decides && !core.slow.is_empty() && !core.slow_runs && !core.voided;
            core.slow_runs |= starts;
            starts
        };
        if starts {
            env::spawn(self.clone().decide_slowly(None));
        }
    }

    /// Refuses what waits no longer.
    pub(crate) fn refuse_waiting(&self, all: VecDeque<Waiting>, e: &stream::ApiError) {
        let mut a = Answers::default();
        for w in all.iter().filter(|w| !w.reply.is_empty()) {
            a.push(&w.reply, |out| self.acks.push_error(out, e));
        }
        self.send(&a);
    }

    fn refuse_first(&self, e: &stream::ApiError) {
        let first = self.core.lock().take_first();
        let mut a = Answers::default();
        if let Some(w) = first.filter(|w| !w.reply.is_empty()) {
            a.push(&w.reply, |out| self.acks.push_error(out, e));
        }
        self.send(&a);
    }

    /// Sends answers; not under the lock.
    pub(crate) fn send(&self, a: &Answers) {
        if a.is_empty() {
            return;
        }
        let Some(assets) = self.assets.upgrade() else { return };
        let mut post = assets.posts.take();
        for (to, body_crlf) in a.iter() {
            post.whole(to, body_crlf);
        }
    }
}

impl Core {
    /// Batches that were given up by what has been decided.
    fn take_abandoned(&mut self) -> Vec<(String, stream::Abandoned)> {
        self.rules.as_mut().map(|r| r.take_abandoned()).unwrap_or_default()
    }
    /// A publish waits, behind all others that do.
    pub(crate) fn put_aside(&mut self, w: Waiting) {
        self.moving.bytes += w.bytes();
        self.slow.push_back(w);
    }
    /// The first one does not wait any more.
    fn take_first(&mut self) -> Option<Waiting> {
        let first = self.slow.pop_front()?;
        self.moving.bytes -= first.bytes();
        Some(first)
    }
    /// None waits here any more.
    pub(crate) fn take_waiting(&mut self) -> VecDeque<Waiting> {
        self.moving.bytes = 0;
        let mut all = std::mem::take(&mut self.slow);
        all.append(&mut self.moving.later);
        all
    }

    /// Replicas that the stream is to have: each counts for its account.
    fn copies(&self) -> u64 {
        self.rules.as_ref().and_then(|r| u64::try_from(r.config().num_replicas).ok()).unwrap_or(1).max(1)
    }
    /// Whether no more publishes are taken for now.
    fn is_full(&self, o: &Options) -> bool {
        let (msgs, bytes) = self.log.waiting();
        let bytes = bytes + self.moving.bytes;
        msgs + self.slow.len() + self.moving.later.len() >= o.waiting_msgs_max || bytes >= o.waiting_bytes_max
    }

    /// Decides one publish and carries the decision out.
    fn decide(&mut self, s: &Stream, p: &Publish<'_>, now: Now, at_once: &mut Answers) -> Done {
        let Core { rules: Some(rules), log, consumers, voided: false, .. } = self else { return Done::Wait };
        let view = StoreView::new(s.group());
        let noted;
        let p = match rules.drops_unwanted() && !consumers.any_matches(p.subject) {
            true => {
                noted = Publish { unwanted: true, ..*p };
                &noted
            }
            false => p,
        };
        let write = |out: &mut Vec<u8>, a: &Answer| answer::write(out, &s.acks, a);
        match rules.decide(p, &view, now) {
            Err(need) => return Done::Need(need),
            Ok(Decision::Store { ref entry, mut now, mut applied }) => {
                join(log, GroupId(s.id), entry);
                if env::planted!("js-ack-before-apply") {
                    now = applied.take().or(now);
                }
                if let Some(a) = applied
                    && !p.reply.is_empty()
                {
                    log.answer(p.reply, |out| write(out, &a));
                }
                if let Some(a) = now
                    && !p.reply.is_empty()
                {
                    at_once.push(p.reply, |out| write(out, &a));
                }
            }
            Ok(Decision::StoreAll { entries, applied }) => {
                log.whole(
                    entries.iter().map(|e| e.payload.len() + e.headers.len() + e.subject.len() + 64).sum(),
                );
                for e in &entries {
                    join(log, GroupId(s.id), &Entry::of(e));
                }
                log.end_whole();
                if let Some(a) = applied
                    && !p.reply.is_empty()
                {
                    log.answer(p.reply, |out| write(out, &a));
                }
            }
            Ok(Decision::Answer { answers, after }) => {
                let waits = after > 0 && log.has_tail();
                for a in answers.iter().flatten().filter(|_| !p.reply.is_empty()) {
                    if waits {
                        log.answer(p.reply, |out| write(out, a));
                    } else {
                        at_once.push(p.reply, |out| write(out, a));
                    }
                }
            }
            Ok(Decision::Wait) => return Done::Wait,
        }
        s.share.note_batches(rules.open_batches());
        Done::Decided
    }
}

/// Adds a decided message to the open batch.
#[inline]
pub(crate) fn join(log: &mut Log, group: GroupId, e: &Entry<'_>) {
    log.message(
        group,
        &store::Message {
            seq: StreamSeq(e.seq),
            time: e.time,
            expires: e.expires,
            redacted: false,
            subject: e.subject,
            headers: e.headers,
            body: e.payload,
        },
    );
}
