//! What comes for a stream while its leadership is on its way from one node to another.
//!
//! Owns the waiting of publishes, pulls and acknowledgements for the next leader, and the order in which a planned step-down goes. Does not own who leads
//! (`replica`), nor what a leader does with what it gets.
//!
//! Who is deposed refuses what waits, and closes its door: another leads already, and what came in between must not come behind what came after it. Who
//! hands over in peace (A, to its heir B) loses nothing and keeps the order of each publisher:
//!
//! 1. A tells B, which answers. The doors of all nodes are one queue group of which the server with the most members gets everything
//!    ([`broker::MOST_FIRST`]): A subscribes a second time, and waits until every server knows that.
//! 2. A decides nothing any more and keeps what comes; what is decided is applied; it asks the group for the transfer.
//! 3. B leads and opens its door. All still publish to A, which gives everything to B in order. What comes to B directly waits.
//! 4. When every server knows B's door, B says so. A takes its own away from the other servers and keeps a back door for what they have sent before they
//!    heard of it. From there on they publish to B.
//! 5. When all have heard of it, A closes the back door and says that B has got everything. B takes in what waited.
//!
//! Each step has its time; when that is over the next one is taken, and only the order may suffer.
//!
//! - K-7: a publish that waits while leadership moves is decided by one leader, or refused; never both, and never by two.
//! - K-11: while one node hands over to another in peace, what one connection published is decided in its order.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use replica::NodeId;
use stream::{
    ApiError, errors,
    publish::{From, Publish},
};

use super::{
    Kind,
    ask::{At, GRACE, HOPS_MAX},
    calls::{Forward, Way},
    shell::RENEWS,
};
use crate::{
    JetStream,
    account::{Assets, named_in},
    api::ack::AckPrefix,
    leading::Standing,
    meta::Assigned,
    publish::{Came, Waiting},
    shell::{Core, Stream},
};

/// The queue group of the doors of a stream on all nodes. Each stream has its own: what one account exports and another imports goes to the streams of both.
pub(crate) fn doors_of(group: u64) -> Vec<u8> {
    [broker::MOST_FIRST, b".", group.to_string().as_bytes()].concat()
}

/// How long an heir may take to say that it knows.
const READY_MAX: Duration = Duration::from_millis(250);
/// How long other servers may take to hear of a door that opens or closes.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// How long an heir waits for what who led before gives it.
const BEHIND_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether the new leader can be reached, while something waits for it.
const LOOK: Duration = Duration::from_millis(10);
/// Publishes that may wait on a node that does not lead, and their bytes.
const HELD_MAX: usize = 65_536;
const HELD_BYTES_MAX: usize = 32 << 20;
/// How long a planned step-down may take: until all is applied, and until another leads.
const DRAIN_MAX: Duration = Duration::from_millis(500);
const HANDOVER: Duration = Duration::from_secs(2);
/// Pauses between attempts to find a leader: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// Who takes over in peace from whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Succession {
    #[default]
    Nobody,
    /// From this node that one.
    To { heir: NodeId, heard: Heard },
    /// This node from that one, which still gives what comes to it.
    From(NodeId),
}

/// What an heir has said so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heard {
    Nothing,
    /// It knows that it is.
    Ready,
    /// It leads, and its door is known everywhere. This node may not know yet that it leads no more.
    Opened,
}

/// What a stream opens to publishers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opens {
    Nothing,
    Door,
    /// The door, before that of the next leader.
    DoorBeforeAnother,
    BackDoor,
}

/// What a stream has in hand while leadership moves.
#[derive(Default)]
pub(crate) struct Moving {
    /// It leads and is about to hand over: nothing is decided any more.
    pub handing: bool,
    /// It does not lead, and listens on; at the back door alone when the others know another.
    listens: bool,
    at_back: bool,
    /// Until when what comes waits here, on the monotonic clock.
    until: Option<u64>,
    /// A task sees to the end of it.
    runs: bool,
    /// Bytes of what waits, here and behind it.
    pub bytes: usize,
    succession: Succession,
    /// What came to a new leader by its own door before it has got all from who led before.
    pub later: VecDeque<Waiting>,
}

impl Moving {
    /// It leads: nothing is on its way any more but what who led before gives.
    pub fn over(&mut self) {
        (self.handing, self.listens, self.at_back, self.until) = (false, false, false, None);
        if let Succession::To { .. } = self.succession {
            self.succession = Succession::Nobody;
        }
    }
    /// What comes may wait from now on.
    fn hold(&mut self) {
        self.until = Some((env::now() + GRACE).0);
    }
    /// Whether what comes by the door stands behind what who led before gives.
    #[inline]
    pub fn is_behind(&self) -> bool {
        matches!(self.succession, Succession::From(_))
    }
    /// A publish waits behind those that are given.
    pub fn follows(&mut self, w: Waiting) {
        self.bytes += w.bytes();
        self.later.push_back(w);
    }
    /// What is to be open.
    pub fn opens(&self, leads: bool) -> Opens {
        match (leads, self.listens) {
            (false, false) => Opens::Nothing,
            (false, true) if self.at_back => Opens::BackDoor,
            _ if self.heir().is_some() => Opens::DoorBeforeAnother,
            _ => Opens::Door,
        }
    }
    fn heir(&self) -> Option<NodeId> {
        match self.succession {
            Succession::To { heir, .. } => Some(heir),
            _ => None,
        }
    }
}

impl Core {
    /// Something is on its way into the log, or waits to be.
    fn is_busy(&self) -> bool {
        self.log.has_work() || self.log.has_tail() || self.log.is_under_way() || self.consumers.has_notes()
    }
    /// It does not lead. What waits may wait for who leads next; if it `led` what comes by the door may too.
    pub(crate) fn cease_moving(&mut self, led: bool) {
        self.moving.handing = false;
        if led {
            self.slow.append(&mut self.moving.later);
            if self.moving.is_behind() {
                self.moving.succession = Succession::Nobody;
            }
            (self.moving.listens, self.moving.at_back) = (true, false);
        }
        if led || !self.slow.is_empty() {
            self.moving.hold();
        }
    }
    /// Keeps a publish that came to a node that does not lead, for the one that does. False if nobody is expected to.
    pub(crate) fn hold(&mut self, p: &Publish<'_>, hops: u8) -> bool {
        let expected = self.term.is_none() && self.stopped.is_none() && self.moving.until.is_some();
        let fits = self.slow.len() < HELD_MAX && self.moving.bytes < HELD_BYTES_MAX;
        if !expected || !fits || p.from != From::Client {
            return false;
        }
        self.put_aside(Waiting::of(p, hops));
        true
    }
}

/// What the task that waits for the end does next.
enum Next {
    Wait(Duration),
    Over(VecDeque<Waiting>),
}

impl Stream {
    /// Gives what waits here to the heir once it leads, or refuses it if another one does.
    pub(crate) fn let_go(self: &Arc<Stream>) {
        let Some(node) = self.node.upgrade() else { return };
        let Some(c) = &node.cluster else { return };
        let mut refused = VecDeque::new();
        {
            let mut core = self.core.lock();
            let Standing::Follows(Some(n)) = core.standing else { return };
            if core.moving.is_behind() || !c.is_up(n) {
                // It will lead itself, or the other one may be heard of yet.
                return;
            }
            let is_heir = core.moving.heir() == Some(n);
            // Given under the lock: two that do so at a time would mix them up.
            for w in core.take_waiting() {
                if !is_heir || !self.give(&node, n, &w) {
                    refused.push_back(w);
                }
            }
        }
        self.refuse_waiting(refused, &errors::CLUSTER_NOT_AVAIL.error());
    }

    /// Gives a publish to another node (K-7: it is not here any more if this says so).
    fn give(&self, node: &JetStream, to: NodeId, w: &Waiting) -> bool {
        let f = w.forward(&self.name, &self.account);
        let Some(c) = &node.cluster else { return false };
        let reads = c.peer(to).and_then(|p| p.hello).is_some_and(|h| h.format >= RENEWS);
        reads && f.hops <= HOPS_MAX && c.wires.send(to, Kind::Forward, f.encode())
    }
    /// Says something of the succession to another node, behind what it was given.
    fn say(&self, to: NodeId, way: Way) {
        let Some(node) = self.node.upgrade() else { return };
        let Some(c) = &node.cluster else { return };
        let (account, stream) = (self.account.as_bytes(), self.name.as_bytes());
        let empty: &[u8] = b"";
        let f = Forward {
            way,
            hops: 1,
            account,
            stream,
            subject: empty,
            reply: empty,
            headers: empty,
            body: empty,
        };
        c.wires.send(to, Kind::Forward, f.encode());
    }

    /// Sees to it that what waits does not wait for ever, and that the door is closed in the end.
    pub(crate) fn linger(self: &Arc<Stream>) {
        {
            let mut core = self.core.lock();
            if core.moving.until.is_none() {
                return;
            }
            if std::mem::replace(&mut core.moving.runs, true) {
                drop(core);
                // There may be more to wait for than it knows.
                return self.drained.notify_waiters();
            }
        }
        let me = self.clone();
        env::spawn(async move {
            let waiting = loop {
                let drained = me.drained.notified();
                let heir = me.core.lock().moving.heir();
                heir.into_iter().for_each(|h| me.step_back(h));
                me.let_go();
                match me.next_of_moving() {
                    Next::Wait(pause) => drop(env::timeout(pause, drained).await),
                    Next::Over(waiting) => break waiting,
                }
            };
            me.refuse_waiting(waiting, &errors::CLUSTER_NOT_AVAIL.error());
            // As a leader by now it keeps its subjects.
            me.listen();
        });
    }

    fn next_of_moving(&self) -> Next {
        let closed = self.node.upgrade().is_none_or(|n| n.is_closed());
        let mut core = self.core.lock();
        let now = env::now();
        let left = core.moving.until.map_or(0, |until| until.saturating_sub(now.0));
        let (leads, heir) = (core.term.is_some(), core.moving.heir());
        // Who is deposed has nothing to wait for.
        let deposed = match core.standing {
            Standing::Follows(Some(n)) => core.slow.is_empty() && heir != Some(n) && !core.moving.is_behind(),
            _ => false,
        };
        if !leads && core.stopped.is_none() && !closed && left > 0 && !deposed {
            let left = Duration::from_nanos(left);
            return Next::Wait(if core.slow.is_empty() { left } else { left.min(LOOK) });
        }
        core.moving.runs = false;
        core.moving.until = None;
        (core.moving.listens, core.moving.at_back) = (false, false);
        let over = Next::Over(if leads { VecDeque::new() } else { core.take_waiting() });
        if let Some(heir) = heir.filter(|_| !leads) {
            core.moving.succession = Succession::Nobody;
            self.say(heir, Way::Handed);
        }
        over
    }

    /// A publish that another node gave on. False if it cannot be taken.
    fn publish_given(self: &Arc<Stream>, f: &Forward<'_>) -> bool {
        let p = Publish { no_room_for_batches: self.share.no_room_for_batches(), ..given(f) };
        let held = {
            let mut core = self.core.lock();
            if core.term.is_none() && core.stopped.is_none() && core.moving.until.is_none() {
                core.moving.hold();
            }
            core.hold(&p, f.hops)
        };
        if held {
            self.let_go();
            self.linger();
            return true;
        }
        let (told, at_once) = self.publish(&p, crate::shell::now(), Came::Given);
        if let Some(a) = at_once {
            self.send(&a);
        }
        told
    }

    /// Decides nothing from now on, or again: what comes waits for whoever leads next.
    fn hand(self: &Arc<Stream>, handing: bool) {
        {
            let mut core = self.core.lock();
            if handing && core.term.is_none() {
                return;
            }
            core.moving.handing = handing;
            if !handing && core.term.is_some() {
                // It leads on.
                core.moving.succession = Succession::Nobody;
            }
        }
        if !handing {
            self.listen();
            self.wake_slow();
        }
    }
    /// Prepares for another leader: what comes waits, what is decided is applied, what consumers have noted is logged.
    pub(crate) async fn prepare_handing(self: &Arc<Stream>) {
        self.hand(true);
        if self.core.lock().is_busy() {
            env::timeout(DRAIN_MAX, self.log_notes()).await.ok();
        }
    }
    /// Tells a node that it is to take over, and all servers that this one's door comes before that node's; waits until they know.
    async fn name_heir(self: &Arc<Stream>, heir: NodeId) {
        let named = Succession::To { heir, heard: Heard::Nothing };
        {
            let mut core = self.core.lock();
            if core.term.is_none() {
                return;
            }
            core.moving.succession = named;
        }
        self.say(heir, Way::Heir);
        self.listen();
        let ready = self.until(|| (self.core.lock().moving.succession != named).then_some(()));
        env::timeout(READY_MAX, async { tokio::join!(ready, self.doors_known()) }).await.ok();
    }
    /// Returns when all servers know the doors as they are, or take too long.
    async fn doors_known(&self) {
        let node = self.node.upgrade();
        if let Some(c) = node.as_ref().and_then(|n| n.cluster.as_ref()) {
            env::timeout(SETTLE_MAX, c.wires.settled()).await.ok();
        }
    }
    /// Another node says something of the succession.
    pub(crate) fn succeeds(self: &Arc<Stream>, from: NodeId, way: Way) {
        match way {
            Way::Heir => self.take_over(from),
            Way::Ready => self.hear(from, Heard::Ready),
            Way::Opened => {
                self.hear(from, Heard::Opened);
                self.step_back(from);
            }
            Way::Handed => self.catch_up(from),
            Way::Pull | Way::Ack | Way::Flow | Way::Direct | Way::Publish => {}
        }
    }
    fn hear(&self, from: NodeId, heard: Heard) {
        {
            let mut core = self.core.lock();
            if core.moving.heir() == Some(from) {
                core.moving.succession = Succession::To { heir: from, heard };
            }
        }
        self.drained.notify_waiters();
    }
    /// As the heir: sees to it that what is given comes before all else.
    fn take_over(self: &Arc<Stream>, from: NodeId) {
        let Some(node) = self.node.upgrade() else { return };
        {
            let mut core = self.core.lock();
            if core.stopped.is_some() || core.moving.succession != Succession::Nobody {
                return;
            }
            core.moving.succession = Succession::From(from);
        }
        self.say(from, Way::Ready);
        let me = self.clone();
        env::spawn(async move {
            let up = || node.cluster.as_ref().is_some_and(|c| c.is_up(from)) && !node.is_closed();
            let taken = async {
                me.until(|| (me.leads() || !me.is_behind(from)).then_some(())).await;
                // Who has just begun to lead may not have opened it yet.
                me.listen();
                me.doors_known().await;
                me.say(from, Way::Opened);
                while me.is_behind(from) && up() {
                    env::timeout(LOOK, me.until(|| (!me.is_behind(from)).then_some(()))).await.ok();
                }
            };
            env::timeout(BEHIND_MAX, taken).await.ok();
            me.catch_up(from);
        });
    }
    fn is_behind(&self, giver: NodeId) -> bool {
        self.core.lock().moving.succession == Succession::From(giver)
    }
    /// As the heir: all has come from who led before.
    fn catch_up(self: &Arc<Stream>, from: NodeId) {
        {
            let mut core = self.core.lock();
            if core.moving.succession != Succession::From(from) {
                return;
            }
            core.moving.succession = Succession::Nobody;
            let mut later = std::mem::take(&mut core.moving.later);
            core.slow.append(&mut later);
        }
        self.drained.notify_waiters();
        self.wake_slow();
    }
    /// As who led before, once it knows that, and that the heir's door is known everywhere.
    fn step_back(self: &Arc<Stream>, from: NodeId) {
        {
            let mut core = self.core.lock();
            if core.moving.heir() != Some(from) {
                drop(core);
                return self.say(from, Way::Handed);
            }
            let opened = core.moving.succession == Succession::To { heir: from, heard: Heard::Opened };
            if !opened || core.term.is_some() || !core.moving.listens || core.moving.at_back {
                return;
            }
            core.moving.at_back = true;
            core.moving.until = Some((env::now() + SETTLE_MAX * 2).0);
        }
        self.listen();
        let me = self.clone();
        env::spawn(async move {
            me.doors_known().await;
            {
                // First nobody comes in any more, then what came is given: the task that lingers does the rest.
                let mut core = me.core.lock();
                if core.moving.heir() != Some(from) || core.term.is_some() {
                    return;
                }
                core.moving.listens = false;
            }
            me.listen();
            me.let_go();
            me.core.lock().moving.until = Some(0);
            me.linger();
        });
    }
    /// Hands leadership over to a node. Returns when this one does not lead any more, or goes on leading.
    pub(crate) async fn hand_over(self: &Arc<Stream>, handle: &replica::Handle, to: NodeId) {
        // What who led before this one gives comes first.
        env::timeout(HANDOVER, self.until(|| (!self.core.lock().moving.is_behind()).then_some(())))
            .await
            .ok();
        self.name_heir(to).await;
        self.prepare_handing().await;
        handle.transfer(to);
        env::timeout(HANDOVER, self.until(|| (!self.leads()).then_some(()))).await.ok();
        self.hand(false);
    }
    /// Whether it leads and will lead on: what comes is served here.
    pub(crate) fn takes(&self) -> bool {
        let core = self.core.lock();
        core.serves() && !core.moving.handing
    }
    /// Whether something waits here for another leader, or may still come.
    pub(crate) fn has_waiting(&self) -> bool {
        let core = self.core.lock();
        !core.slow.is_empty() || core.moving.heir().is_some()
    }
}

impl JetStream {
    /// Whether a stream is between two leaders.
    fn is_between(&self, a: &Assigned) -> bool {
        match self.at_group(a) {
            At::Nobody => true,
            At::Here => self.stream_of(a).is_some_and(|s| !s.takes()),
            At::Node(_) => false,
        }
    }
}

impl Assets {
    /// Keeps what a client sent to a stream's leader until there is one, for a while. False if there is no such stream, or too much waits.
    pub(crate) fn later(self: &Arc<Assets>, f: &Forward<'_>) -> bool {
        let waits = match f.way {
            Way::Pull | Way::Ack | Way::Flow => true,
            Way::Direct | Way::Publish | Way::Heir | Way::Ready | Way::Opened | Way::Handed => false,
        };
        let Some(node) = self.node.upgrade().filter(|n| waits && n.is_clustered()) else { return false };
        let Some(a) = named_in(f).and_then(|name| node.meta.find(&self.account.name, name)) else {
            return false;
        };
        if !node.is_between(&a) || f.hops >= HOPS_MAX {
            return false;
        }
        let Some(place) = node.place() else { return false };
        let (me, node, bytes) = (self.clone(), node.clone(), f.encode());
        env::spawn(async move {
            let begun = env::now();
            let mut pause = PAUSES.0;
            let Some(f) = Forward::decode(&bytes) else { return };
            while begun.elapsed() < GRACE && !node.is_closed() {
                env::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                if node.is_between(&a) {
                    continue;
                }
                let shorter = (f.way == Way::Pull).then(|| shorten(f.body, begun.elapsed())).flatten();
                let body = shorter.as_deref().unwrap_or(f.body);
                if me.take_now(None, &Forward { body, ..f.clone() }) {
                    return drop(place);
                }
                // It may be gone, or its leader too by now.
                if !node.is_between(&a) {
                    break;
                }
            }
            if f.way == Way::Pull && !f.reply.is_empty() && !node.is_closed() {
                me.nobody(f.subject, f.reply);
            }
            drop(place);
        });
        true
    }

    /// Serves what waited for a stream's leader, or gives it on. Whoever waits for an answer gets one (K-7): here, or from the node that it was given to.
    pub(crate) fn publish_given(self: &Arc<Assets>, node: &JetStream, f: &Forward<'_>) {
        let Ok(name) = str::from_utf8(f.stream) else { return };
        let error: ApiError = errors::CLUSTER_NOT_AVAIL.error();
        let Some(s) = self.stream(name) else {
            // It may have moved on, or be gone.
            if !self.pass_on(node, name, f) && !f.reply.is_empty() {
                let mut text = Vec::new();
                let domain = node.options.domain.as_deref().unwrap_or_default();
                AckPrefix::new(name, domain).push_error(&mut text, &error);
                self.posts.take().plain(f.reply, &text);
            }
            return;
        };
        if !s.publish_given(f) && !f.reply.is_empty() {
            s.refuse_waiting(VecDeque::from([Waiting::of(&given(f), f.hops)]), &error);
        }
    }
}

/// A publish that another node gave on.
fn given<'a>(f: &Forward<'a>) -> Publish<'a> {
    Publish {
        subject: f.subject,
        reply: f.reply,
        headers: f.headers,
        payload: f.body,
        from: From::Client,
        no_room_for_batches: false,
        unwanted: false,
    }
}

/// A pull of which some of the time that it may wait is over. `None` if its text says nothing of a time.
fn shorten(body: &[u8], waited: Duration) -> Option<Vec<u8>> {
    let mut v: serde_json::Value = serde_json::from_slice(body).ok()?;
    let expires = v.get("expires")?.as_i64().filter(|e| *e > 0)?;
    let waited = i64::try_from(waited.as_nanos()).ok()?;
    // One whose time is over is answered like one that expires in the moment it comes.
    let left = match expires.saturating_sub(waited) {
        left if left > 0 => left,
        _ => -1,
    };
    v["expires"] = left.into();
    if left <= 0 || v.get("idle_heartbeat").and_then(serde_json::Value::as_i64).is_some_and(|h| h > left / 2)
    {
        // It would be refused for asking for heartbeats that come too late.
        v.as_object_mut()?.remove("idle_heartbeat");
    }
    serde_json::to_vec(&v).ok()
}

#[cfg(test)]
mod tests {
    use stream::consumer::request::PullRequest;

    use super::*;

    #[test]
    fn a_pull_that_waited_has_less_time_left() {
        let left = |body: &[u8], waited: u64| {
            let body = shorten(body, Duration::from_nanos(waited))?;
            PullRequest::parse(&body).ok().map(|(r, _)| (r.batch, r.expires, r.heartbeat))
        };
        assert_eq!(left(br#"{"batch":5,"expires":1000,"idle_heartbeat":100}"#, 300), Some((5, 700, 100)));
        assert_eq!(left(br#"{"batch":5,"expires":1000,"idle_heartbeat":500}"#, 300), Some((5, 700, 0)));
        assert_eq!(left(br#"{"batch":5,"expires":1000}"#, 1000), Some((5, -1, 0)));
        assert_eq!(left(b"7", 1000), None);
        assert_eq!(left(br#"{"batch":5}"#, 1000), None);
    }
}
