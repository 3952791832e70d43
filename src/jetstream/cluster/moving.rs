//! What comes for a stream while its leadership is on its way from one node to another.
//!
//! Owns the waiting of publishes, pulls and acknowledgements for the next leader, and the order in which a planned step-down goes. Does not own who leads
//! (`replica`), nor what a leader does with what it gets.
//!
//! Who led listens on for a moment, and gives what still comes to whoever leads now. The doors of all nodes are one queue group, so that a message
//! goes through one of them also while two are open.
//!
//! - K-7: a publish that waits while leadership moves is decided by one leader, or refused; never both, and never by two.

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
    account::Assets,
    api::ack::AckPrefix,
    leading::Standing,
    meta::Assigned,
    publish::Waiting,
    shell::{Core, Stream},
};

/// The queue group of the doors of a stream on all nodes. Each stream has its own: what one account exports and another imports goes to the streams of both.
pub(crate) fn doors_of(group: u64) -> Vec<u8> {
    format!("_fulmar.doors_.{group}").into_bytes()
}

/// How long who led listens on when it knows who leads now: the others hear of the new door long before.
const LINGER: Duration = Duration::from_secs(1);
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

/// What a stream has in hand while leadership moves.
#[derive(Default)]
pub(crate) struct Moving {
    /// It leads and is about to hand over: nothing is decided any more.
    pub handing: bool,
    /// It does not lead, and listens on.
    pub listens: bool,
    /// Until when what comes waits here, on the monotonic clock.
    until: Option<u64>,
    /// A task sees to the end of it.
    runs: bool,
    /// Bytes of what waits.
    pub bytes: usize,
}

impl Moving {
    /// It leads, or will never: nothing is on its way any more.
    pub fn over(&mut self) {
        (self.handing, self.listens, self.until) = (false, false, None);
    }
    /// What comes may wait from now on; with `listens` also for what comes through the door.
    pub fn hold(&mut self, listens: bool) {
        self.listens |= listens;
        self.until = Some((env::now() + GRACE).0);
    }
}

impl Core {
    /// Something is on its way into the log, or waits to be.
    fn is_busy(&self) -> bool {
        self.log.has_work() || self.log.has_tail() || self.log.is_under_way() || self.consumers.has_notes()
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
    /// Gives what waits here to whoever leads, if that is known.
    pub(crate) fn let_go(self: &Arc<Stream>) {
        let Some(node) = self.node.upgrade() else { return };
        let Some(c) = &node.cluster else { return };
        let (to, waiting) = {
            let mut core = self.core.lock();
            let Standing::Follows(Some(n)) = core.standing else { return };
            if !c.is_up(n) {
                return;
            }
            if let Some(until) = &mut core.moving.until {
                *until = (*until).min((env::now() + LINGER).0);
            }
            (n, core.take_waiting())
        };
        let mut refused = VecDeque::new();
        for w in waiting {
            if !self.give(&node, to, &w) {
                refused.push_back(w);
            }
        }
        if !refused.is_empty() {
            self.refuse_waiting(refused, &errors::CLUSTER_NOT_AVAIL.error());
        }
    }

    /// Gives a publish to another node (K-7: it is not here any more if this says so).
    fn give(&self, node: &JetStream, to: NodeId, w: &Waiting) -> bool {
        let f = w.forward(&self.name, &self.account);
        let Some(c) = &node.cluster else { return false };
        let reads = c.peer(to).and_then(|p| p.hello).is_some_and(|h| h.format >= RENEWS);
        reads && f.hops <= HOPS_MAX && c.wires.send(to, Kind::Forward, f.encode())
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
        if core.term.is_none() && core.stopped.is_none() && !closed && left > 0 {
            let left = Duration::from_nanos(left);
            return Next::Wait(if core.slow.is_empty() { left } else { left.min(LOOK) });
        }
        core.moving.runs = false;
        let leads = core.term.is_some();
        core.moving.until = None;
        core.moving.listens = false;
        Next::Over(if leads { VecDeque::new() } else { core.take_waiting() })
    }

    /// A publish that another node gave on. False if it cannot be taken.
    fn publish_given(self: &Arc<Stream>, f: &Forward<'_>) -> bool {
        let p = Publish { no_room_for_batches: self.share.no_room_for_batches(), ..given(f) };
        let held = {
            let mut core = self.core.lock();
            if core.term.is_none() && core.stopped.is_none() && core.moving.until.is_none() {
                core.moving.hold(false);
            }
            core.hold(&p, f.hops)
        };
        if held {
            self.let_go();
            self.linger();
            return true;
        }
        let (told, at_once) = self.publish(&p, crate::shell::now());
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
        }
        if !handing {
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
    /// Hands leadership over to a node. Returns when this one does not lead any more, or goes on leading.
    pub(crate) async fn hand_over(self: &Arc<Stream>, handle: &replica::Handle, to: NodeId) {
        self.prepare_handing().await;
        handle.transfer(to);
        let wait = async {
            loop {
                let drained = self.drained.notified();
                tokio::pin!(drained);
                drained.as_mut().enable();
                if !self.leads() {
                    return;
                }
                drained.await;
            }
        };
        env::timeout(HANDOVER, wait).await.ok();
        self.hand(false);
    }
    /// Whether it leads and will lead on: what comes is served here.
    pub(crate) fn takes(&self) -> bool {
        let core = self.core.lock();
        core.term.is_some() && !core.moving.handing
    }
    /// Whether something waits here for another leader.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.core.lock().slow.is_empty()
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
    /// Keeps what a client sent to a stream's leader until there is one. False if there is no such stream, or too much waits.
    pub(crate) fn later(self: &Arc<Assets>, node: &Arc<JetStream>, name: &str, f: &Forward<'_>) -> bool {
        let waits = match f.way {
            Way::Pull | Way::Ack | Way::Flow => true,
            Way::Direct | Way::Publish => false,
        };
        let Some(a) = node.meta.find(&self.account.name, name).filter(|_| waits && node.is_clustered())
        else {
            return false;
        };
        if !node.is_between(&a) || f.hops >= HOPS_MAX {
            return false;
        }
        let Some(place) = node.place() else { return false };
        let (me, node, mut bytes) = (self.clone(), node.clone(), f.encode());
        env::spawn(async move {
            let begun = env::now();
            let mut pause = PAUSES.0;
            while begun.elapsed() < GRACE && !node.is_closed() {
                env::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                if node.is_between(&a) {
                    continue;
                }
                let Some(f) = Forward::decode(&bytes) else { return };
                let shorter = (f.way == Way::Pull).then(|| shorten(f.body, begun.elapsed())).flatten();
                if let Some(body) = shorter {
                    bytes = Forward { body: &body, ..f }.encode();
                }
                break;
            }
            if let Some(f) = Forward::decode(&bytes)
                && !me.take(None, &f)
                && f.way == Way::Pull
                && !f.reply.is_empty()
                && !node.is_closed()
            {
                me.posts.take().status(f.reply, b"NATS/1.0 503\r\n\r\n");
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
