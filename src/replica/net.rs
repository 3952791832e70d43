//! Groups with members on several nodes: messages in and out, heartbeats of node pairs, and the timers of groups.
//!
//! Owns two tasks of a node that shares groups with others: one sends heartbeats and ends what was not renewed, the other wakes groups whose
//! deadline is over. A node on its own has neither. Does not own links: [`Peers`] does.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use raft::{Event, GroupId, Load, Loaded, LogIndex, Members, Message, NodeId, SnapshotMeta, Term};
use store::{Kind, NewEntry, Sync};
use tokio::sync::{Notify, oneshot};

use crate::{
    Replicas,
    campaigns::{Campaigns, QUEUED},
    frame::{EXCEPTED_MAX, Frame},
    group::{Group, Handle, Inner, from_store},
    lives::node,
    machine::Refusal,
    pairs::{Effect, Pairs},
    replicas::Shared,
};

/// Events that may wait in one group; messages beyond it are dropped, which consensus survives.
const EVENTS_MAX: usize = 1024;
/// Heartbeats that say of a group that it was removed here.
const LAST_WORDS: u32 = 16;
/// How long a read waits for its index and its apply: a request that was forwarded to a leader can be lost.
const READ_WAIT: Duration = Duration::from_secs(5);

/// Groups that are told something at a time.
const TOLD_AT_ONCE: usize = 64;

/// Pause before a replica that is not trusted asks again how far it has to catch up.
const TRUST_PAUSE: Duration = Duration::from_millis(200);

/// What carries frames between nodes. Frames may be lost, and those to one node should arrive in order; a link that broke is told with
/// [`Replicas::link_broken`].
pub trait Peers: Send + std::marker::Sync + 'static {
    /// Sends a frame, or drops it if the node cannot be reached or too much waits already. Never waits. It is called under a group's
    /// lock: it must not call the driver.
    fn send(&self, to: NodeId, frame: Bytes);
}

/// What a node needs beside its groups to talk to others.
pub(crate) struct Net {
    peers: OnceLock<Arc<dyn Peers>>,
    pairs: Mutex<Pairs>,
    /// Groups that stopped here and whose followers elsewhere must not count on this node, with the term, and for how many heartbeats more that is
    /// said.
    excepted: Mutex<BTreeMap<GroupId, (Term, u32)>>,
    beat: Notify,
    timers: Mutex<BTreeSet<(u64, GroupId)>>,
    timer: Notify,
    pub campaigns: Campaigns,
    /// What groups have to be told, in order, and who has not been yet.
    news: Mutex<VecDeque<(Event, VecDeque<Arc<Group>>)>>,
    news_came: Notify,
}

impl Net {
    pub(crate) fn new(grant_ns: u64) -> Net {
        Net {
            peers: OnceLock::new(),
            pairs: Mutex::new(Pairs::new(env::rng("replica life").next_u64(), grant_ns)),
            excepted: Mutex::default(),
            beat: Notify::new(),
            timers: Mutex::default(),
            timer: Notify::new(),
            campaigns: Campaigns::default(),
            news: Mutex::default(),
            news_came: Notify::new(),
        }
    }

    /// Sends messages of a group.
    pub(crate) fn send(&self, messages: impl Iterator<Item = Message>) {
        if let Some(peers) = self.peers.get() {
            for m in messages {
                let to = node(m.to);
                peers.send(to, Frame::Raft(m).encode());
            }
        }
    }

    /// Sends a frame that is no message of a core.
    pub(crate) fn frame(&self, to: NodeId, frame: &Frame) {
        if let Some(peers) = self.peers.get() {
            peers.send(node(to), frame.encode());
        }
    }

    /// Asks a node which replica of a group it has.
    pub(crate) fn ask(&self, group: GroupId, whom: NodeId) {
        self.frame(whom, &Frame::Ask { group });
    }

    pub(crate) fn except(&self, group: GroupId, term: Term) {
        self.excepted.lock().insert(group, (term, u32::MAX));
    }

    /// The group ended here for good: said for long enough that everybody hears it.
    pub(crate) fn except_for_a_while(&self, group: GroupId, term: Term) {
        self.excepted.lock().insert(group, (term, LAST_WORDS));
    }

    pub(crate) fn forget(&self, group: GroupId) {
        self.excepted.lock().remove(&group);
    }

    /// Wakes both tasks, so that they see that the driver is closed.
    pub(crate) fn wake(&self) {
        self.beat.notify_one();
        self.timer.notify_one();
        self.campaigns.wake.notify_one();
        self.news_came.notify_one();
    }
}

impl Shared {
    /// Notes with whom a group is shared.
    pub(crate) fn know(&self, members: &raft::Members) {
        let mut pairs = self.net.pairs.lock();
        let was_empty = pairs.is_empty();
        members.all().into_iter().filter(|n| n.id != self.me.id).for_each(|n| pairs.know(node(n)));
        if was_empty && !pairs.is_empty() {
            self.net.beat.notify_one();
        }
    }

    /// Runs a step of the pairs, writes down what the cores read, and tells the groups what changed.
    fn pairs<T>(self: &Arc<Self>, f: impl FnOnce(&mut Pairs, u64, &mut Vec<Effect>) -> T) -> T {
        let mut effects = Vec::new();
        let answer = {
            let mut pairs = self.net.pairs.lock();
            let was_empty = pairs.is_empty();
            let answer = f(&mut pairs, env::now().0, &mut effects);
            self.fill_live(&pairs);
            if was_empty && !pairs.is_empty() {
                // Somebody was heard of before there was any group here: heartbeats begin all the same, and with them the end of what is over.
                self.net.beat.notify_one();
            }
            answer
        };
        for effect in effects {
            self.tell(effect);
        }
        answer
    }

    /// What a disk that does not answer means for the groups here, if that changed.
    fn look_at_disk(self: &Arc<Self>, was_stuck: bool) -> bool {
        let took = self.store.stuck_for();
        let stuck = took >= Duration::from_nanos(self.options.stuck_ns);
        if stuck != was_stuck {
            if stuck {
                tracing::error!(
                    "the journal does not answer for {took:?}: this node leads nothing until it does"
                );
            } else {
                tracing::warn!("the journal answers again");
            }
            self.spread(Event::Ill(stuck));
        }
        stuck
    }

    fn tell(self: &Arc<Self>, effect: Effect) {
        let event = match effect {
            Effect::Withdrawn(n) => return self.withdrawn(n),
            Effect::SupportLost(n) => Event::SupportLost(n),
            Effect::Reachable(n) => Event::Reachable(n),
            Effect::Unreachable(n) => Event::Unreachable(n),
            Effect::Excepted(n, group, term) => {
                if let Some(g) = self.group(group) {
                    g.post(Event::Excepted(n, term));
                }
                return;
            }
        };
        self.spread(event);
    }

    /// Tells groups what happened to a node, or to this one. Of a node only leaders want to know. Many are told a few at a time: activities that are all begun at once
    /// would keep heartbeats waiting until support is lost again, of which all have to be told.
    fn spread(self: &Arc<Self>, event: Event) {
        let all = self.groups();
        let mut queue = self.net.news.lock();
        if queue.is_empty() && all.len() <= TOLD_AT_ONCE {
            drop(queue);
            return all.iter().for_each(|g| g.told(&event));
        }
        queue.push_back((event, all.into()));
        drop(queue);
        self.net.news_came.notify_one();
    }

    async fn news(self: Arc<Self>) {
        while !self.is_closed() {
            let some = {
                let mut queue = self.net.news.lock();
                let some = queue.front_mut().map(|(event, groups)| {
                    let count = groups.len().min(TOLD_AT_ONCE);
                    (event.clone(), groups.drain(..count).collect::<Vec<_>>())
                });
                // The last of it stays until it is told, so that nothing that comes later overtakes it.
                if some.as_ref().is_some_and(|(_, groups)| groups.is_empty()) {
                    queue.pop_front();
                }
                some
            };
            match some {
                None => self.net.news_came.notified().await,
                Some((event, groups)) => {
                    groups.iter().for_each(|g| g.told(&event));
                    // What was begun goes first.
                    env::give_way().await;
                }
            }
        }
    }

    async fn beats(self: Arc<Self>) {
        let mut stuck = false;
        let mut next = 0;
        while !self.is_closed() {
            if self.net.pairs.lock().is_empty() {
                self.net.beat.notified().await;
                continue;
            }
            let now = env::now().0;
            if now < next {
                // Support ends when it ends, and not with the next heartbeat: so long a group of a node that has ended is without a leader.
                let end = self.net.pairs.lock().next_end().map_or(next, |end| end.min(next));
                env::sleep_until(env::Instant(end)).await;
                if end < next {
                    self.pairs(|pairs, now, out| pairs.tick(now, out));
                }
                continue;
            }
            next = now.saturating_add(self.options.beat_ns);
            let excepted: Vec<_> = {
                let mut all = self.net.excepted.lock();
                let said = all.iter_mut().take(EXCEPTED_MAX).map(|(g, (t, left))| {
                    *left = if *left == u32::MAX { *left } else { left.saturating_sub(1) };
                    (*g, *t)
                });
                let said = said.collect();
                all.retain(|_, (_, left)| *left > 0);
                said
            };
            let (frame, nodes) = self.pairs(|pairs, now, out| {
                pairs.tick(now, out);
                (pairs.beat(now, excepted).encode(), pairs.nodes())
            });
            stuck = self.look_at_disk(stuck);
            // Support is asked for by nodes that can do something with it.
            if let Some(peers) = self.net.peers.get().filter(|_| !stuck) {
                nodes.into_iter().for_each(|n| peers.send(n, frame.clone()));
            }
        }
    }

    async fn timers(self: Arc<Self>) {
        while !self.is_closed() {
            let first = self.net.timers.lock().first().copied();
            let Some((at, id)) = first else {
                self.net.timer.notified().await;
                continue;
            };
            if at > env::now().0 {
                env::select! {
                    _ = env::sleep_until(env::Instant(at)) => {}
                    _ = self.net.timer.notified() => {}
                }
                continue;
            }
            self.net.timers.lock().remove(&(at, id));
            if let Some(g) = self.group(id) {
                let mut inner = g.inner.lock();
                let waits = inner.timer == at && inner.core.status().role != raft::RoleName::Leader;
                if waits {
                    // A campaign, if it comes to one, waits for its turn; until then nothing else begins it.
                    inner.timer = QUEUED;
                } else if inner.timer == at {
                    inner.timer = u64::MAX;
                }
                drop(inner);
                if waits {
                    self.net.campaigns.timed(id);
                } else {
                    g.poke();
                }
            }
        }
    }
}

impl Group {
    /// Takes news of a node, or of this one's disk, if it has anything to do with them.
    fn told(self: &Arc<Self>, event: &Event) {
        {
            let mut inner = self.inner.lock();
            let leads = || inner.core.status().role == raft::RoleName::Leader;
            // What has not happened yet may make a leader of it, who has to hear of what comes behind that.
            let concerned = matches!(event, Event::Ill(_)) || !inner.events.is_empty() || leads();
            if !concerned || sole(&inner) {
                return;
            }
            inner.events.push_back(event.clone());
        }
        self.poke();
    }

    /// Whether this node is the only member: then there is nobody to talk to, and no time to keep.
    pub(crate) fn is_sole(&self) -> bool {
        sole(&self.inner.lock())
    }

    /// Sees to it that the group is woken when its core wants to be. A timer that is set earlier is left: it looks again then.
    pub(crate) fn arm(&self, inner: &mut Inner) {
        let at = inner.core.deadline();
        if inner.timer == QUEUED && inner.core.status().role == raft::RoleName::Leader {
            // It leads without having had its turn: leaders do not wait.
            inner.timer = u64::MAX;
        }
        if at >= inner.timer || sole(inner) || inner.stop.is_some() {
            return;
        }
        let mut timers = self.shared.net.timers.lock();
        timers.remove(&(inner.timer, self.id));
        timers.insert((at, self.id));
        inner.timer = at;
        if timers.first() == Some(&(at, self.id)) {
            self.shared.net.timer.notify_one();
        }
    }

    /// Reads entries for a peer, beside the activity.
    pub(crate) fn load(self: &Arc<Self>, load: Load) {
        let group = self.clone();
        env::spawn(async move {
            let from = store::LogIndex(load.first.0);
            let found = match group.store.entries(from, load.bytes_max).await {
                Ok(found) => found,
                Err(store::Error::Damaged(_)) => {
                    group.found_damage(from).await;
                    Vec::new()
                }
                Err(_) => Vec::new(),
            };
            let log = |e: &&store::Entry| !e.head.compacted && e.head.index.0 <= load.last.0;
            // Of what was mended the chain before it may not be known.
            let prev = found.first().filter(log).map(|e| e.head.prev).filter(|c| c.0 != 0);
            let prev_chain = prev.map(|c| raft::Chain(c.0));
            let entries = found.iter().take_while(log).map(from_store).collect();
            let (to, repair, first) = (load.to, load.repair, load.first);
            group.post(Event::Loaded(Loaded { to, repair, first, prev_chain, entries }));
        });
    }

    /// The log cannot be read from somewhere on: the core hears of the holes, and lets others fill them.
    pub(crate) async fn found_damage(self: &Arc<Self>, from: store::LogIndex) {
        if self.is_sole() || self.store.survey(from).await.is_err() {
            return;
        }
        for h in self.store.holes() {
            tracing::error!(
                group = self.id.0,
                "entries {}..={} cannot be read any more",
                h.first.0,
                h.last.0
            );
            self.post(Event::Damaged { first: LogIndex(h.first.0), last: LogIndex(h.last.0) });
        }
    }

    /// Sees to it that a replica that may have forgotten something is trusted again once it has caught up: when a read that began in this
    /// life has its index, and that is applied (D-12).
    pub(crate) fn regain_trust(self: &Arc<Self>) {
        let handle = Handle(self.clone());
        env::spawn(async move {
            while !handle.0.shared.is_closed() && handle.0.inner.lock().stop.is_none() {
                if handle.read_barrier().await.is_ok() {
                    handle.0.store.trust();
                    handle.0.post(Event::Trusted);
                    tracing::info!(group = handle.0.id.0, "it has caught up and takes part again");
                    return;
                }
                env::sleep(TRUST_PAUSE).await;
            }
        });
    }

    /// Begins with the beginning of a group, which is its membership and nothing else.
    pub(crate) fn install_first(self: &Arc<Self>, meta: SnapshotMeta) {
        let group = self.clone();
        env::spawn(async move {
            let index = meta.index;
            let event = match group.write_first(&meta).await {
                Ok(true) => Event::Installed(Box::new(meta)),
                Ok(false) => Event::InstallFailed { index },
                Err(e) => {
                    tracing::warn!(group = group.id.0, "the first entry: {e}");
                    Event::InstallFailed { index }
                }
            };
            group.post(event);
        });
    }

    async fn write_first(&self, meta: &SnapshotMeta) -> store::Result<bool> {
        if meta.index != LogIndex(1) || self.store.last().0 != store::LogIndex(0) {
            return Ok(false);
        }
        let entry = NewEntry {
            kind: Kind::Config,
            index: store::LogIndex(1),
            term: store::Term(meta.term.0),
            prev: self.store.last().2,
            chain: store::Chain(meta.chain.0),
            payload: meta.members.encode(),
            digest: None,
        };
        self.store.append(vec![entry], Sync::Always)?.durable().await?;
        for e in self.store.entries(store::LogIndex(1), 1).await? {
            self.store.apply(&e.head).await?;
        }
        Ok(true)
    }
}

/// Whether this replica decides alone. One in doubt does not, whatever it knows of the members (D-15).
pub(crate) fn sole(inner: &Inner) -> bool {
    is_sole(inner.core.members().1, inner.core.me()) && !inner.core.is_distrusted()
}

/// Whether nobody else has anything of the group. One that has only come to it, and knows no member yet, does not decide alone.
pub(crate) fn is_sole(members: &Members, me: NodeId) -> bool {
    members.voters == [me] && members.outgoing.is_empty() && members.learners.is_empty()
}

impl Replicas {
    /// Connects this node to others. Before any group that is shared with them is opened; once.
    pub fn join(&self, peers: Arc<dyn Peers>) {
        assert!(self.0.net.peers.set(peers).is_ok(), "a node joins its peers once");
        // D-7: what the life before promised is not known any more, so its longest promise is waited out. A store without groups has had no such life.
        if !self.0.store.groups().is_empty() {
            self.0.no_vote_before(env::now().0.saturating_add(self.0.options.grant_ns));
        }
        env::spawn(self.0.clone().beats());
        env::spawn(self.0.clone().timers());
        env::spawn(self.0.clone().campaigns());
        env::spawn(self.0.clone().news());
    }

    /// A frame came from a node, over a link that is known to be that node's. Bad frames are dropped (D-6). Once a frame of a newer link
    /// was given, none of an older one may be: what a life before asked for must not look like this one's (D-7).
    pub fn receive(&self, from: NodeId, frame: Bytes) {
        let Some(frame) = Frame::decode(frame) else {
            tracing::warn!("a frame from {from} cannot be read");
            return;
        };
        let shared = &self.0;
        match frame {
            Frame::Raft(m) => {
                // Which replica of this node is meant is the core's to compare.
                if m.from.id != from.id || m.to.id != shared.me.id {
                    return;
                }
                shared.pairs(|pairs, now, out| pairs.heard(now, from, out));
                let Some(g) = shared.group(m.group) else { return };
                if m.to.incarnation < g.inner.lock().core.me().incarnation {
                    // It was meant for one who is not here any more: let the sender know who is (D-9).
                    return shared.on_ask(m.group, from);
                }
                {
                    let mut inner = g.inner.lock();
                    if inner.events.len() >= EVENTS_MAX || inner.stop.is_some() {
                        return;
                    }
                    inner.events.push_back(Event::Message(m));
                }
                g.poke();
            }
            Frame::Beat { boot, sent_at, excepted } => {
                let answer = shared.pairs(|pairs, now, out| {
                    let answer = pairs.on_beat(now, from, boot, sent_at, out);
                    out.extend(excepted.into_iter().map(|(g, t)| Effect::Excepted(from, g, t)));
                    answer
                });
                if let Some(peers) = shared.net.peers.get() {
                    peers.send(from, answer.encode());
                }
            }
            Frame::Support { epoch, boot, sent_at } => {
                shared.pairs(|pairs, now, out| pairs.on_support(now, from, (epoch, boot, sent_at), out));
            }
            Frame::Ask { group } => shared.on_ask(group, from),
            Frame::Here { group, replica } if replica.id == from.id => shared.on_here(group, replica),
            Frame::Here { .. } => {}
            Frame::Fetch(f) => shared.on_fetch(from, f),
            Frame::Part(p) => shared.on_part(from, p),
            Frame::NoState { group, id } => shared.on_no_state(from, group, id),
        }
    }

    /// The link to a node broke: what was under way is lost.
    pub fn link_broken(&self, node: NodeId) {
        self.0.pairs(|pairs, _, out| pairs.broken(node, out));
    }
}

impl Handle {
    /// Hands leadership to another voter. Whether it worked shows in the roles.
    pub fn transfer(&self, to: NodeId) {
        self.0.post(Event::Transfer(to));
    }

    /// Returns when this node has applied everything that was acknowledged anywhere before the call: a read of its state is then not stale.
    ///
    /// # Errors
    /// This node cannot say, for lack of a leader or of an answer from it.
    pub async fn read_barrier(&self) -> Result<LogIndex, Refusal> {
        let (tx, rx) = oneshot::channel();
        {
            let mut inner = self.0.inner.lock();
            if let Some(why) = &inner.stop {
                return Err(Refusal::Stopped(why.clone()));
            }
            inner.next_read += 1;
            let id = inner.next_read;
            inner.reads.push((id, tx));
            inner.events.push_back(Event::Read(id));
        }
        self.0.poke();
        match env::timeout(READ_WAIT, rx).await {
            Ok(Ok(Some(index))) => Ok(index),
            _ => Err(Refusal::NotLeader(self.0.inner.lock().core.status().leader.map(node))),
        }
    }
}

impl Inner {
    /// An index for a read came: it is served once that is applied.
    pub(crate) fn on_read(&mut self, read: raft::Read) {
        let Some(at) = self.reads.iter().position(|r| r.0 == read.id) else { return };
        let (_, tx) = self.reads.swap_remove(at);
        match read.index {
            Some(index) => self.barriers.push((index, tx)),
            None => drop(tx.send(None)),
        }
        self.serve_barriers();
    }

    /// Answers the reads up to whose index everything is applied, and forgets those whose asker has gone.
    pub(crate) fn serve_barriers(&mut self) {
        if self.reads.is_empty() && self.barriers.is_empty() {
            return;
        }
        let applied = self.core.status().applied;
        self.reads.retain(|r| !r.1.is_closed());
        self.barriers.retain(|b| !b.1.is_closed());
        for (index, tx) in self.barriers.extract_if(.., |b| b.0 <= applied) {
            tx.send(Some(index)).ok();
        }
    }
}

impl Shared {
    pub(crate) fn pair_metrics(&self) -> Vec<crate::PairMetrics> {
        self.net.pairs.lock().metrics(env::now().0)
    }

    /// Fills in when the nodes were last heard of.
    pub(crate) fn heard(&self, peers: &mut [crate::PeerStatus]) {
        let pairs = self.net.pairs.lock();
        let now = env::now().0;
        for p in peers {
            if let Some((at, reachable)) = pairs.heard_at(p.node) {
                p.heard_ns_ago = Some(now.saturating_sub(at));
                p.active = reachable;
            }
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
