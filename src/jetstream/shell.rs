//! A stream of this server: the rules, their log and their consumers under one lock, and the machine that its group drives.
//!
//! Owns the lock and the order in which things happen to a stream. Rules decide (`stream`), the group makes durable (`replica`),
//! messages lie in the store. `publish` is the way in, `deliver` the way out, `consumers` the life of consumers.
//!
//! What the disk has to answer first never happens under the lock: the question is put aside, its need is fetched, and it is asked again.
//!
//! - J-1: an answer leaves only after its entry is applied.
//! - J-23: answers and deliveries are sent while no lock is held: a receiver may be another stream of this server.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use broker::Link;
use bytes::Bytes;
use env::{Instant, watch};
use parking_lot::Mutex;
use replica::{BoxFuture, Committed, Handle, Machine, Proposal, Refusal, Role, Term};
use store::Need;
use stream::{
    ApiError, Now,
    command::{Command, Control},
    config::{Compression, PersistMode, StreamConfig},
    consumer::ConsumerConfig,
    errors,
};

use crate::{
    JetStream,
    account::{Assets, internal},
    advisory,
    api::{
        ack::AckPrefix,
        identity,
        response::{ClusterInfo, SourceInfo},
    },
    apply::{Progress, Republished},
    cluster::moving::{Moving, Opens, doors_of},
    consumers::Consumers,
    handlers::info,
    leading::Standing,
    log::{Applied, Log, Outcome, Waiter},
    making::Making,
    meta::Assignment,
    noting::Noting,
    publish::{self, Door, Waiting},
    quota::Share,
    sources::Following,
    view::StoreView,
    wheel::{Timed, moment_of},
};

/// Pause before what is due and could not be done is looked at again.
const RETRY: Duration = Duration::from_millis(1);

/// A stream.
pub struct Stream {
    /// Its group.
    pub id: u64,
    /// Its name.
    pub name: Arc<str>,
    /// Its account's name.
    pub account: Arc<str>,
    /// When it was created, in nanoseconds since 1970.
    pub created: i64,
    identity: OnceLock<String>,
    /// Its messages are in memory only.
    pub memory: bool,
    /// So is its log.
    pub(crate) forgets: bool,
    pub(crate) me: Weak<Stream>,
    pub(crate) node: Weak<JetStream>,
    pub(crate) assets: Weak<Assets>,
    /// What its log begins with, if nothing else is wanted by then.
    pub(crate) first_config: Bytes,
    /// What it may store, and does.
    pub(crate) share: Share,
    /// What acknowledgements begin with.
    pub(crate) acks: AckPrefix,
    pub(crate) group: OnceLock<store::Group>,
    pub(crate) core: Mutex<Core>,
    /// Who takes messages on its subjects.
    pub(crate) door: Arc<Link>,
    /// The same for what is still on its way here when other servers are told of the door no more.
    back_door: OnceLock<Arc<Link>>,
    /// Whether it leads with a configuration, or why it cannot.
    pub(crate) ready: watch::Sender<Option<Result<(), String>>>,
    listening: Mutex<Listening>,
    /// Something that was decided is applied.
    pub(crate) drained: tokio::sync::Notify,
    /// Whose turn it is to decide on a consumer, and what is decided and not applied.
    pub(crate) making: Making<ConsumerConfig>,
}

/// What is under the lock.
pub(crate) struct Core {
    pub rules: Option<stream::Stream>,
    pub log: Log,
    pub consumers: Consumers,
    /// Publishes that wait for the disk, in order. While there are any, all others wait behind them.
    pub slow: VecDeque<Waiting>,
    /// A task works on `slow`.
    pub slow_runs: bool,
    /// Leadership is on its way.
    pub moving: Moving,
    /// What is noted of its consumers elsewhere, if its log is in memory.
    pub notes: Noting,
    /// Messages are being delivered: whoever has more says `again` and goes.
    pub pumping: bool,
    pub again: bool,
    /// It leads, in this term.
    pub term: Option<Term>,
    pub standing: Standing,
    /// Since when, in nanoseconds since 1970.
    pub since: i64,
    pub stopped: Option<Arc<str>>,
    /// Something was refused, and what was handed out before it is not applied yet: nothing is decided until then.
    pub voided: bool,
    /// A task waits to try again what was refused.
    pub retrying: bool,
    /// How often something that was decided became void.
    pub voids: u64,
    /// The configuration that it is to have, if somebody said so.
    pub wanted: Option<Bytes>,
    /// It is proposed in this term.
    pub wanted_sent: bool,
    /// The log's last configuration is that one, byte for byte.
    pub wanted_met: bool,
    /// What `wanted` says, where somebody had read it before the log had one.
    pub wanted_read: Option<Box<StreamConfig>>,
    pub handle: Option<Handle>,
    /// What the clock is set to for this stream, on the monotonic clock. It may be too early and is never too late.
    pub armed: Option<u64>,
    /// Mirrors and sources.
    pub following: Following,
}

/// What it is subscribed to now: subjects, which of its subscriptions to them, and their sids.
#[derive(Default)]
struct Listening {
    subjects: BTreeMap<(String, Entrance), u32>,
    last_sid: u32,
}

/// The subscriptions to a subject.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Entrance {
    /// The door.
    Door,
    /// The door once more: it comes before that of the next leader ([`broker::MOST_FIRST`]).
    Second,
    /// The back door.
    Back,
}

/// A stream at a glance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    pub consumers: usize,
    pub msgs: u64,
    pub bytes: u64,
    pub reserved: u64,
}

/// Now, in both clocks.
#[inline]
pub(crate) fn now() -> Now {
    Now { wall: env::wall().0, mono: env::now().0 }
}

impl Stream {
    /// What tells it from others of its name: see [`identity`].
    pub(crate) fn identity(&self) -> &str {
        self.identity.get_or_init(|| identity::of(self.created))
    }

    pub(crate) fn new(
        node: &Arc<JetStream>,
        assets: &Arc<Assets>,
        a: Assignment,
    ) -> Result<Arc<Stream>, String> {
        let forgets = a.is_in_memory();
        let acks = AckPrefix::new(&a.name, node.options.domain.as_deref().unwrap_or_default());
        let stream = Arc::new_cyclic(|me: &Weak<Stream>| Stream {
            id: a.id,
            name: a.name,
            account: a.account,
            created: a.created,
            identity: OnceLock::new(),
            memory: a.memory,
            forgets,
            me: me.clone(),
            node: Arc::downgrade(node),
            assets: Arc::downgrade(assets),
            first_config: a.config,
            share: Share::new(assets.quota.clone(), node.quota.clone(), a.memory),
            acks,
            group: OnceLock::new(),
            core: Mutex::new(Core {
                rules: None,
                log: Log::default(),
                consumers: Consumers::default(),
                slow: VecDeque::new(),
                slow_runs: false,
                moving: Moving::default(),
                notes: Noting::default(),
                pumping: false,
                again: false,
                term: None,
                standing: Standing::Opening,
                since: a.created,
                stopped: None,
                voided: false,
                retrying: false,
                voids: 0,
                wanted: None,
                wanted_sent: false,
                wanted_met: false,
                wanted_read: None,
                handle: None,
                armed: None,
                following: Following::default(),
            }),
            door: internal(node, Some(Box::new(Door { stream: me.clone(), is_told: true }))),
            back_door: OnceLock::new(),
            ready: watch::channel(None).0,
            listening: Mutex::default(),
            drained: tokio::sync::Notify::new(),
            making: Making::default(),
        });
        Ok(stream)
    }

    /// The group's stream in the store.
    pub(crate) fn group(&self) -> &store::Group {
        self.group.get().expect("attach comes before every other call of a machine's life")
    }
    /// The stored messages as the rules ask for them. Takes the group's lock with the first question.
    #[inline]
    pub(crate) fn view(&self) -> StoreView<'_> {
        StoreView::new(self.group())
    }

    /// Puts a command into the log and waits until it is applied.
    pub(crate) async fn command(&self, command: Command) -> Result<Applied, ApiError> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.propose(command, Some(tx))?;
        rx.await.unwrap_or_else(|_| Err(errors::CLUSTER_NOT_AVAIL.error()))
    }
    /// Puts a command into the log.
    pub(crate) fn propose(&self, command: Command, waiter: Option<Waiter>) -> Result<(), ApiError> {
        let mut core = self.core.lock();
        core.check_open()?;
        if core.moving.handing {
            // In a moment another node leads, and is asked.
            return Err(errors::CLUSTER_NOT_LEADER.error());
        }
        if core.voided {
            return Err(errors::INSUFFICIENT_RESOURCES.error());
        }
        core.enqueue(command, Outcome::Command(waiter), now());
        let handle = core.handle.clone();
        drop(core);
        if let Some(h) = handle {
            h.wake();
        }
        Ok(())
    }

    /// Returns when what is decided now is applied.
    pub(crate) async fn tail_applied(&self) {
        let upto = {
            let core = self.core.lock();
            match &core.rules {
                Some(r) if core.log.has_tail() => r.given_seq(),
                _ => return,
            }
        };
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            {
                let core = self.core.lock();
                let there = core.rules.as_ref().is_none_or(|r| r.applied_seq() >= upto);
                if there || core.term.is_none() || core.stopped.is_some() || !core.log.has_tail() {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Why it serves no more, if so.
    pub(crate) fn fault(&self) -> Option<String> {
        self.core.lock().stopped.as_ref().map(|s| s.to_string())
    }
    /// The configuration.
    pub(crate) fn config(&self) -> StreamConfig {
        self.core.lock().rules.as_ref().map(|r| r.config().clone()).unwrap_or_default()
    }
    /// The stream at a glance.
    pub(crate) fn seen(&self) -> Seen {
        let Some(group) = self.group.get() else { return Seen::default() };
        let state = group.state();
        let core = self.core.lock();
        let reserved = core.rules.as_ref().map_or(0, |r| u64::try_from(r.config().max_bytes).unwrap_or(0));
        Seen { consumers: core.consumers.len(), msgs: state.msgs, bytes: state.bytes, reserved }
    }

    /// Subscribes to the stream's subjects, as the configuration has them now, if this node leads.
    pub(crate) fn listen(self: &Arc<Stream>) {
        let (Some(assets), Some(node)) = (self.assets.upgrade(), self.node.upgrade()) else { return };
        if assets.limits().is_none() {
            return;
        }
        // Held while the broker is told, so that nobody who comes later is overtaken.
        let mut listening = self.listening.lock();
        let wanted: BTreeSet<(String, Entrance)> = {
            let core = self.core.lock();
            let entrances: &[Entrance] = match core.moving.opens(core.serves()) {
                _ if core.stopped.is_some() => &[],
                Opens::Nothing => &[],
                Opens::Door => &[Entrance::Door],
                Opens::DoorBeforeAnother => &[Entrance::Door, Entrance::Second],
                Opens::BackDoor => &[Entrance::Back],
            };
            let subjects = match &core.rules {
                Some(r) if r.config().mirror.is_none() => r.config().subjects.as_slice(),
                _ => &[],
            };
            subjects.iter().flat_map(|s| entrances.iter().map(|e| (s.clone(), *e))).collect()
        };
        // A message goes to one door also while two are open.
        let queue = if node.is_clustered() { doors_of(self.id) } else { Vec::new() };
        let listening = &mut *listening;
        // First what is new: nobody is told in between that there is no door.
        for new in wanted.iter().filter(|w| !listening.subjects.contains_key(w)).cloned().collect::<Vec<_>>()
        {
            listening.last_sid += 1;
            let sid = listening.last_sid.to_string();
            // A link of our own is open and without limits.
            let link = self.link_of(&node, new.1);
            link.subscribe(&assets.account, sid.as_bytes(), new.0.as_bytes(), &queue, false).ok();
            listening.subjects.insert(new, listening.last_sid);
        }
        listening.subjects.retain(|s, sid| {
            let stays = wanted.contains(s);
            if !stays {
                self.link_of(&node, s.1).unsubscribe(&assets.account, sid.to_string().as_bytes(), 0);
            }
            stays
        });
    }
    fn link_of(self: &Arc<Stream>, node: &Arc<JetStream>, e: Entrance) -> &Arc<Link> {
        if e != Entrance::Back {
            return &self.door;
        }
        let door = || Door { stream: Arc::downgrade(self), is_told: false };
        self.back_door.get_or_init(|| internal(node, Some(Box::new(door()))))
    }
    /// Takes all subscriptions away.
    pub(crate) fn unlisten(&self) {
        let mut listening = self.listening.lock();
        listening.subjects.clear();
        if let Some(assets) = self.assets.upgrade() {
            self.door.unsubscribe_all(Some(&assets.account));
            if let Some(door) = self.back_door.get() {
                door.unsubscribe_all(Some(&assets.account));
            }
        }
    }

    /// Ends it on this server: nothing comes in or goes out any more. Its group is removed by the caller.
    pub(crate) fn retire(self: &Arc<Stream>) {
        self.unlisten();
        self.share.note(0);
        let mut tasks = Vec::new();
        let watched = {
            let mut core = self.core.lock();
            core.stopped = Some("deleted".into());
            core.notes.end();
            core.consumers.retire(&mut tasks)
        };
        self.drained.notify_waiters();
        self.unfollow();
        self.carry(&mut tasks);
        if let (Some(assets), Some(node)) = (self.assets.upgrade(), self.node.upgrade()) {
            for (subject, id) in watched {
                assets.account.unwatch(&subject, id);
            }
            node.wheel.set(self.id, self, None);
        }
    }

    /// The server ends: nothing comes in any more, whoever waits is told, and what consumers have noted is on its way to the log.
    pub(crate) fn shut_down(self: &Arc<Stream>) {
        self.unlisten();
        let mut tasks = Vec::new();
        let handle = {
            let mut core = self.core.lock();
            core.consumers.shut_down(&mut tasks);
            core.wants_group().then(|| core.handle.clone()).flatten()
        };
        if let Some(h) = handle {
            h.wake();
        }
        self.carry(&mut tasks);
    }

    /// Sets the clock for what comes first.
    pub(crate) fn wound_up(self: &Arc<Stream>) {
        let Some(node) = self.node.upgrade() else { return };
        let mut core = self.core.lock();
        let asked =
            if core.term.is_none() || core.stopped.is_some() { Ok(None) } else { self.deadline(&core) };
        match asked {
            // Under the lock, so that the clock shows what `armed` says.
            Ok(deadline) => {
                core.armed = deadline.map(|d| d.0);
                node.wheel.set(self.id, self, deadline);
            }
            Err(need) => {
                drop(core);
                let me = self.clone();
                env::spawn(async move {
                    if me.group().fetch(need).await.is_ok() {
                        me.wound_up();
                    }
                });
            }
        }
    }
    /// When something is due next.
    fn deadline(&self, core: &Core) -> Result<Option<Instant>, Need> {
        let n = now();
        let d = match &core.rules {
            Some(r) if !core.voided && !r.config().is_restoring() => r.deadlines(&self.view())?,
            _ => stream::Deadlines::default(),
        };
        let wall = d.wall.map(|wall| moment_of(wall, n.wall, Instant(n.mono)));
        let mono = [d.mono, core.consumers.deadline()].into_iter().flatten().min().map(Instant);
        // What is due and could not be done right now is looked at again, but not without a pause.
        Ok([wall, mono].into_iter().flatten().min().map(|d| d.max(Instant(n.mono) + RETRY)))
    }

    /// Does what is due: messages grow old, schedules fire, batches are given up.
    fn expire(self: &Arc<Stream>) {
        let (need, handle, abandoned) = {
            let mut core = self.core.lock();
            if core.term.is_none() || core.stopped.is_some() || core.voided {
                return;
            }
            let n = now();
            let core = &mut *core;
            let Some(rules) = core.rules.as_mut().filter(|r| !r.config().is_restoring()) else { return };
            rules.tick(n);
            self.share.note_batches(rules.open_batches());
            let abandoned = rules.take_abandoned();
            match rules.due(n, &self.view()) {
                Ok(due) => {
                    for e in &due.entries {
                        publish::join(&mut core.log, store::GroupId(self.id), &stream::Entry::of(e));
                    }
                    if let Some(command) = due.command {
                        // The rules have noted it already.
                        core.log.command(&Control { time: n.wall, command }, Outcome::Command(None));
                    }
                    let handle = core.log.has_work().then(|| core.handle.clone()).flatten();
                    (None, handle, abandoned)
                }
                Err(need) => (Some(need), None, abandoned),
            }
        };
        if let Some(h) = handle {
            h.wake();
        }
        self.tell_abandoned(&abandoned);
        if let Some(need) = need {
            let me = self.clone();
            env::spawn(async move {
                if me.group().fetch(need).await.is_ok() {
                    me.expire();
                    me.wound_up();
                }
            });
        }
    }

    /// Tells of batches that were given up; not under the lock.
    pub(crate) fn tell_abandoned(&self, all: &[(String, stream::Abandoned)]) {
        if !all.is_empty()
            && let (Some(node), Some(assets)) = (self.node.upgrade(), self.assets.upgrade())
        {
            advisory::abandoned(&node, &assets, &self.name, all);
        }
    }

    /// What the server sets for the stream's rules.
    pub(crate) fn rule_limits(&self) -> stream::Limits {
        let mut l = stream::Limits::default();
        if let Some(node) = self.node.upgrade() {
            let limits = node.tunable().limits;
            l.max_payload = node.options.payload_max;
            l.batch_msgs = limits.batch_messages as u64;
            l.atomic_batches = limits.batch_inflight_per_stream;
            l.batch_timeout = u64::try_from(limits.batch_timeout.as_nanos()).unwrap_or(u64::MAX);
        }
        l
    }
    /// The largest payload of a client, in bytes.
    pub(crate) fn payload_max(&self) -> u64 {
        self.node.upgrade().map_or(1 << 20, |n| n.options.payload_max as u64)
    }

    /// Publishes stored messages again, where the configuration says so.
    pub(crate) fn republish(&self, all: &[Republished]) {
        let Some(assets) = self.assets.upgrade() else { return };
        let mut to_send = Vec::new();
        {
            let mut core = self.core.lock();
            let Some(rules) = &mut core.rules else { return };
            let bare = rules.config().republish.as_ref().is_some_and(|r| r.headers_only);
            for Republished { stored: m, last } in all {
                let mut to = Vec::new();
                if !rules.republish_to(&m.subject, &mut to) {
                    continue;
                }
                let mut head = Vec::new();
                stream::stream::republish_headers(&self.name, &stream::Entry::of(m), *last, bare, &mut head);
                to_send.push((to, head, if bare { Bytes::new() } else { m.payload.clone() }));
            }
        }
        let mut post = assets.posts.take();
        for (to, head, body) in to_send {
            post.send(&to, None, b"", head.len(), &[&head, &body]);
        }
    }
    /// How a mirror gets on.
    pub(crate) fn mirror_info(&self) -> Option<SourceInfo> {
        self.following_infos(true).pop()
    }
    /// How sources get on.
    pub(crate) fn source_infos(&self) -> Vec<SourceInfo> {
        self.following_infos(false)
    }
    /// As `/jsz` lists it; `None` if it cannot be read.
    pub(crate) async fn detail(self: &Arc<Stream>, d: &crate::Detail<'_>) -> Option<serde_json::Value> {
        let node = self.node.upgrade()?;
        let (info, _) = info::stream(self, &info::Wanted::default(), None).await.ok()?;
        let cluster = match node.is_clustered() {
            true => info.cluster,
            false => Some(ClusterInfo { leader: node.host.name(), ..ClusterInfo::default() }),
        };
        let mut v = serde_json::json!({ "name": *self.name, "created": info.created });
        v["cluster"] = serde_json::to_value(cluster).ok()?;
        if d.config {
            v["config"] = serde_json::to_value(&info.config).ok()?;
        }
        v["state"] = serde_json::to_value(&info.state).ok()?;
        if d.consumers {
            let names = self.core.lock().consumers.names();
            let mut all = Vec::with_capacity(names.len());
            for name in names {
                let Ok(Some(c)) = info::consumer(self, &name, false).await else { continue };
                let mut c = serde_json::to_value(c).ok()?;
                if !d.config
                    && let Some(fields) = c.as_object_mut()
                {
                    fields.shift_remove("config");
                }
                all.push(c);
            }
            if !all.is_empty() {
                v["consumer_detail"] = all.into();
            }
        }
        if info.mirror.is_some() {
            v["mirror"] = serde_json::to_value(&info.mirror).ok()?;
        }
        if !info.sources.is_empty() {
            v["sources"] = serde_json::to_value(&info.sources).ok()?;
        }
        if d.groups && node.is_clustered() {
            v["stream_raft_group"] = serde_json::json!(node.group_label(self));
            // A stream's consumers are its group's; they go by the name that their infos have.
            let group = node.cluster_of_consumer(self).map(|c| c.raft_group).filter(|g| !g.is_empty());
            let names = self.core.lock().consumers.names();
            if let Some(group) = group.filter(|_| d.consumers && !names.is_empty()) {
                let of = |name: &_| serde_json::json!({ "name": name, "raft_group": group });
                v["consumer_raft_groups"] = names.iter().map(of).collect();
            }
        }
        Some(v)
    }

    /// Sends answers and lets requests go on; not under the lock (J-23).
    pub(crate) fn settle(&self, outcomes: Vec<Outcome>) {
        let Some(assets) = self.assets.upgrade() else { return };
        let mut post = None;
        let mut spare = Vec::new();
        for o in outcomes {
            match o {
                Outcome::Answers(a) => {
                    if !a.is_empty() {
                        let post = post.get_or_insert_with(|| assets.posts.take());
                        for (to, body_crlf) in a.iter() {
                            post.whole(to, body_crlf);
                        }
                    }
                    spare.push(a);
                }
                Outcome::Command(w) => {
                    if let Some(w) = w {
                        w.send(Ok(Applied::default())).ok();
                    }
                }
                Outcome::Notes => {}
            }
        }
        drop(post);
        if let Some(a) = spare.pop() {
            self.core.lock().log.recycle(a);
        }
    }

    /// Tells all who wait that it will not be, and why.
    pub(crate) fn fail(&self, outcomes: Vec<Outcome>, error: &ApiError) {
        if outcomes.is_empty() {
            return;
        }
        let Some(assets) = self.assets.upgrade() else { return };
        let mut text = Vec::new();
        self.acks.push_error(&mut text, error);
        let mut post = assets.posts.take();
        for o in outcomes {
            match o {
                Outcome::Answers(a) => a.replies().for_each(|to| {
                    post.plain(to, &text);
                }),
                Outcome::Command(Some(w)) => {
                    w.send(Err(error.clone())).ok();
                }
                Outcome::Command(None) | Outcome::Notes => {}
            }
        }
    }

    /// It is to be found under its name from now on.
    pub(crate) fn register(self: &Arc<Stream>) {
        self.suit();
        if let Some(assets) = self.assets.upgrade() {
            assets.add(self);
        }
        // Somebody may have been told that it is here, and wait for it.
        if let Some(node) = self.node.upgrade()
            && let Some(c) = &node.cluster
        {
            c.tell();
        }
    }
}

impl Stream {
    /// Tells those below how the configuration wants the stream to be kept: its segments compressed, its acknowledgements not to wait for the
    /// sync.
    pub(crate) fn suit(&self) {
        let (compress, relaxed, handle) = {
            let core = self.core.lock();
            let Some(c) = core.rules.as_ref().map(|r| r.config()) else { return };
            (c.compression == Compression::S2, c.persist_mode == PersistMode::Async, core.handle.clone())
        };
        if let Some(g) = self.group.get() {
            g.set_compress(compress);
        }
        // A stream's mode never changes, and it has one replica.
        if let Some(h) = handle.filter(|_| relaxed) {
            h.set_sync(store::Sync::Relaxed);
        }
    }
}

impl Core {
    /// Whether this node leads, and has what its log may have forgotten (K-14).
    pub(crate) fn serves(&self) -> bool {
        self.term.is_some() && !self.notes.is_closed()
    }
    /// Whether commands are taken.
    pub(crate) fn check_open(&self) -> Result<(), ApiError> {
        if self.stopped.is_some() {
            return Err(errors::STREAM_OFFLINE.error());
        }
        if !self.serves() {
            return Err(errors::CLUSTER_NOT_LEADER.error());
        }
        Ok(())
    }
    /// The same for those that are about consumers.
    pub(crate) fn check_consumers(&self) -> Result<(), ApiError> {
        self.check_open()?;
        if self.notes.is_taking() {
            return Err(errors::CLUSTER_NOT_LEADER.error());
        }
        Ok(())
    }
}

impl Timed for Stream {
    fn due(self: Arc<Self>, _: Instant) {
        if self.node.upgrade().is_none_or(|n| n.is_closed()) {
            return;
        }
        self.core.lock().armed = None;
        self.expire();
        self.tick();
        self.wound_up();
    }
}

impl Machine for Stream {
    fn attach(&self, handle: &Handle) {
        self.group.set(handle.store().clone()).ok();
        self.share.note(handle.store().state().bytes);
        let configured = {
            let mut core = self.core.lock();
            core.handle = Some(handle.clone());
            core.rules.is_some()
        };
        if configured && let Some(me) = self.me.upgrade() {
            me.register();
        }
    }

    fn restore(&self, blob: &[u8]) -> Result<(), String> {
        let configured = {
            let mut core = self.core.lock();
            core.restore(self, blob)?;
            core.rules.is_some()
        };
        // A state that came from another node may be the first that this one has.
        if configured
            && self.group.get().is_some()
            && let Some(me) = self.me.upgrade()
        {
            me.register();
        }
        Ok(())
    }

    fn apply<'a>(&'a self, batch: Vec<Committed>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let mut at = Progress::default();
            loop {
                let need = match self.apply_some(&batch, &mut at) {
                    Ok(()) => break,
                    Err(crate::apply::Stop::Need(need)) => need,
                    Err(crate::apply::Stop::Broken(why)) => return Err(why),
                };
                self.group().fetch(need).await.map_err(|e| e.to_string())?;
            }
            if let Some(me) = self.me.upgrade() {
                me.applied(at);
            }
            Ok(())
        })
    }

    fn role(&self, role: &Role) {
        if let Some(me) = self.me.upgrade() {
            me.take_role(role);
            if let Some(node) = self.node.upgrade() {
                node.stood(&me, role);
            }
        }
    }

    fn checkpoint(&self) -> Bytes {
        self.core.lock().checkpoint()
    }

    fn take_proposals(&self, out: &mut Vec<Proposal>) {
        let mut core = self.core.lock();
        core.gather(now());
        core.log.take(out);
    }

    fn refused(&self, batch: Vec<Proposal>, why: &Refusal) {
        if let Some(me) = self.me.upgrade() {
            me.take_refusal(batch, why);
        }
    }
}
