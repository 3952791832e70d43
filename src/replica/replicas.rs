//! All groups of a node over its store.
//!
//! Owns the registry, the making, opening and removing of groups, and the background work: checkpoints of what was touched, then a flush.
//! Does not know what a group is for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use raft::{GroupId, Liveness, LogIndex, Members, NodeId};
use store::{Store, Sync};
use tokio::sync::Notify;

use crate::{
    codec,
    group::{Group, Handle, IDLE, own_options},
    lives::{COUNTER, KeepFloor, Numbers},
    machine::Machine,
    net::Net,
    open,
    options::{Error, Options, Others},
    pairs::Pairs,
    transfer::Transfers,
};

/// How long a flush waits for a group that is slow to take its checkpoint. It goes on without: that group's log is kept longer.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(5);
/// How long a node that closes waits for what others have yet to agree to, over all groups together.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// What all groups of a node share.
pub(crate) struct Shared {
    pub store: Store,
    pub me: NodeId,
    pub options: Options,
    pub net: Net,
    groups: Mutex<BTreeMap<GroupId, Arc<Group>>>,
    /// The longest promise of the life before ends here, on the monotonic clock.
    no_vote_before: AtomicU64,
    live: Mutex<Liveness>,
    /// Bytes appended since the last flush.
    grown: AtomicU64,
    /// Groups in which something was applied since their last checkpoint.
    touched: Mutex<Vec<Arc<Group>>>,
    flush: Notify,
    /// Flushes run one at a time, or a later one would think the checkpoints of an earlier one its own.
    flushing: tokio::sync::Mutex<()>,
    /// Numbers of replicas are given one at a time.
    pub counting: tokio::sync::Mutex<Numbers>,
    pub transfers: Transfers,
    pub closed: AtomicBool,
}

impl Shared {
    /// Runs `f` with the table of node pairs and the present moment.
    pub(crate) fn with_live<T>(&self, sole: bool, f: impl FnOnce(&Liveness) -> T) -> T {
        let mut live = self.live.lock();
        live.now = env::now().0;
        live.no_vote_before = if sole { 0 } else { self.no_vote_before.load(Ordering::Relaxed) };
        f(&live)
    }

    pub(crate) fn no_vote_before(&self, at: u64) {
        self.no_vote_before.store(at, Ordering::Relaxed);
    }

    pub(crate) fn fill_live(&self, pairs: &Pairs) {
        pairs.fill(&mut self.live.lock());
    }

    pub(crate) fn group(&self, id: GroupId) -> Option<Arc<Group>> {
        self.groups.lock().get(&id).cloned()
    }

    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.lock().values().cloned().collect()
    }

    /// Tries until the journal has room: many groups may be made at once, and each takes a little.
    async fn with_room<T>(&self, mut f: impl FnMut() -> store::Result<T>) -> store::Result<T> {
        loop {
            match f() {
                Err(store::Error::Busy) if !self.closed.load(Ordering::Acquire) => {
                    env::sleep(Duration::from_nanos(self.options.retry_ns)).await;
                }
                done => return done,
            }
        }
    }

    /// Notes that the journal grew.
    pub(crate) fn grew(&self, bytes: u64) {
        let before = self.grown.fetch_add(bytes, Ordering::Relaxed);
        if before < self.options.checkpoint_bytes && before + bytes >= self.options.checkpoint_bytes {
            self.flush.notify_one();
        }
    }

    /// Asks for checkpoints and a flush soon.
    pub(crate) fn flush_soon(&self) {
        self.flush.notify_one();
    }

    pub(crate) fn touched(&self, group: &Arc<Group>) {
        self.touched.lock().push(group.clone());
    }

    /// Takes a checkpoint of every group that was touched, flushes the store, and tells the groups how far their logs are state now.
    async fn flush(&self) -> store::Result<()> {
        let _one = self.flushing.lock().await;
        self.grown.store(0, Ordering::Relaxed);
        let groups = std::mem::take(&mut *self.touched.lock());
        for g in &groups {
            if env::timeout(CHECKPOINT_WAIT, Handle(g.clone()).checkpoint()).await.is_err() {
                tracing::warn!(group = g.id.0, "no checkpoint: the group is busy applying");
            }
        }
        let done = self.store.flush().await;
        for g in groups {
            if done.is_err() {
                // Its checkpoint is still the one to be written by the next flush.
                self.touched.lock().push(g);
                continue;
            }
            let durable = g.store.applied().1;
            let index = LogIndex(durable.index.0);
            if index > LogIndex::ZERO {
                g.post(raft::Event::Compacted { index, chain: raft::Chain(durable.chain.0) });
            }
        }
        done
    }
}

/// A group to be made.
#[derive(Clone, Debug)]
pub struct New {
    /// Its id: not 0, and not that of a group that is there. It may be that of one which this node had and removed, if it comes back as a newcomer.
    pub id: GroupId,
    /// Bodies stay in memory. With one voter a restart begins with an empty log; with several a restarted replica is a new one, which the others take in.
    pub memory: bool,
    /// Bytes of the layer above that stay with the group; see [`Replicas::options`].
    pub options: Bytes,
    /// The first members; the same on each of them. None at all: a newcomer, which waits until a leader takes it in ([`Handle::reach`]).
    pub members: Members,
    /// What an acknowledgement waits for. Not kept: given again at each restore.
    pub sync: Sync,
}

/// All groups of a node. Cheap to clone.
#[derive(Clone)]
pub struct Replicas(pub(crate) Arc<Shared>);

impl std::fmt::Debug for Replicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replicas({})", self.0.me)
    }
}

impl Replicas {
    /// The driver of a store that is open. `me` must be the same at each start on this store, and no other store's; its incarnation is 0.
    #[must_use]
    pub fn new(store: Store, me: NodeId, options: Options) -> Replicas {
        assert_eq!(me.incarnation, 0, "D-9: a node has one id; incarnations are of its replicas");
        let net = Net::new(options.grant_ns);
        // D-7 makes the one row a machine safe: an epoch is given once, whatever replicas are there.
        let mut live = Liveness::at(env::now().0, 0);
        live.machines = true;
        let transfers = Transfers::new(options.transfers_at_once);
        let numbers = Numbers { unsure: store.lost_rounds(), ..Numbers::default() };
        Replicas(Arc::new(Shared {
            store,
            me,
            options,
            net,
            groups: Mutex::default(),
            no_vote_before: AtomicU64::new(0),
            live: Mutex::new(live),
            grown: AtomicU64::new(0),
            touched: Mutex::default(),
            flush: Notify::new(),
            flushing: tokio::sync::Mutex::default(),
            counting: tokio::sync::Mutex::new(numbers),
            transfers,
            closed: AtomicBool::new(false),
        }))
    }

    /// Spawns the background work on the current worker: the store's own, then checkpoints and flushes when the journal has grown.
    pub fn spawn(&self) {
        self.0.store.spawn();
        let shared = self.0.clone();
        env::spawn(async move {
            loop {
                shared.flush.notified().await;
                if shared.closed.load(Ordering::Acquire) {
                    return;
                }
                if let Err(e) = shared.flush().await {
                    tracing::warn!("flush: {e}");
                }
            }
        });
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.0.me
    }

    /// Returns when something that is written now is durable: whether the disk takes what is to be acknowledged.
    ///
    /// # Errors
    /// What the store says. A disk that does not answer keeps this from returning: bound it with a timeout.
    pub async fn probe(&self) -> Result<(), Error> {
        self.0.probe().await
    }

    /// Where the floor of the numbers of replicas is kept apart from the store (D-9), and what it is; 0 if it was never kept. `lost`: this node has lost
    /// rounds of its journal, in this life or an earlier one, and [`Replicas::settle_numbers`] has not returned since; it counts for more than what the store
    /// says, which finds a loss again. A counter that is lost itself shows without it.
    pub async fn keep_numbers(&self, floor: u32, lost: bool, keep: KeepFloor) {
        let mut numbers = self.0.counting.lock().await;
        numbers.unsure = lost;
        (numbers.floor, numbers.keep) = (floor, Some(keep));
    }

    /// Passes over all numbers that lost rounds may have held, and returns when that is durable: no later life needs to do it for the same rounds.
    ///
    /// # Errors
    /// The store's, or what keeping the floor met: it is to be tried again.
    pub async fn settle_numbers(&self) -> Result<(), Error> {
        self.0.settle_numbers().await
    }

    /// Ids of all groups that the store has, in order; open or not.
    #[must_use]
    pub fn stored(&self) -> Vec<GroupId> {
        self.0.store.groups().into_iter().filter(|g| *g != COUNTER).map(|g| GroupId(g.0)).collect()
    }

    /// Whether the store has a group; open or not.
    #[must_use]
    pub fn has(&self, id: GroupId) -> bool {
        id.0 != COUNTER.0 && self.0.store.group(store::GroupId(id.0)).is_ok()
    }

    /// What a stored group was made with: [`New::options`] and [`New::memory`].
    ///
    /// # Errors
    /// There is no such group, or its options cannot be read.
    pub fn options(&self, id: GroupId) -> Result<(Bytes, bool), Error> {
        let group = self.0.store.group(store::GroupId(id.0))?;
        let unfit = || Error::Unfit(format!("group {}: its options cannot be read", id.0));
        Ok((own_options(&group).ok_or_else(unfit)?.1, group.is_memory()))
    }

    /// Whether nobody here knows what a stored group is: what it was made with is lost with a part of the journal or, where that names no first members and there
    /// is no checkpoint, the entry on which its log stands.
    pub async fn is_orphan(&self, id: GroupId) -> bool {
        match self.0.store.group(store::GroupId(id.0)) {
            Ok(group) => open::is_orphan(&group).await,
            Err(_) => false,
        }
    }

    /// The handle of an open group.
    #[must_use]
    pub fn get(&self, id: GroupId) -> Option<Handle> {
        self.0.groups.lock().get(&id).cloned().map(Handle)
    }

    /// Handles of all open groups, by id.
    #[must_use]
    pub fn all(&self) -> Vec<Handle> {
        self.0.groups.lock().values().cloned().map(Handle).collect()
    }

    /// Makes a group and opens it. With several members it returns once it is durable that there is one. With one it returns at
    /// once: what is durable is what the machine proposes and sees applied, and then so is the group. A group whose making was cut off by a crash is in the store: [`Replicas::restore`] finishes it.
    ///
    /// # Errors
    /// The store's answer. Nothing was made, unless the store stopped meanwhile.
    pub async fn create(&self, new: New, machine: Arc<dyn Machine>) -> Result<Handle, Error> {
        let first = new.members.voters.first().copied();
        self.create_led_by(new, first, machine).await
    }

    /// The same with a word on who shall lead first; all members have to be told the same. That one campaigns as soon as it has the group, and again whenever
    /// another member says that it has it too, so that the group is led after one round of messages and syncs among a majority. [`Replicas::create`] takes
    /// the first voter.
    ///
    /// # Errors
    /// As [`Replicas::create`].
    pub async fn create_led_by(
        &self,
        new: New,
        first: Option<NodeId>,
        machine: Arc<dyn Machine>,
    ) -> Result<Handle, Error> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if new.id.0 == COUNTER.0 {
            return Err(Error::Unfit("group 0 is the driver's own".into()));
        }
        let mut members = new.members;
        if members.voters.is_empty() {
            // D-9: whatever this node was in the group before, it is somebody else now.
            let me = NodeId::new(self.0.me.id, self.0.next_incarnation().await?);
            members = Members { learners: vec![me], ..Members::default() };
        }
        let options = codec::with_members(&members, &new.options);
        let id = store::GroupId(new.id.0);
        // Alone it owes nobody anything before its first proposal, whose sync covers all that is written before it.
        let sole = members.all() == [self.0.me];
        let sync = if sole && !new.memory { Sync::Relaxed } else { Sync::Always };
        let (group, made) =
            self.0.with_room(|| self.0.store.create_with(id, new.memory, &options, sync)).await?;
        let begun = self.0.with_room(|| open::begin(&group, &members, sync)).await?;
        if !sole {
            // Others count on what this node has said of itself.
            if let Some(begun) = begun {
                begun.durable().await?;
            }
            made.durable().await?;
            let handle = self.open(group, new.sync, machine, (false, true), Others::None).await?;
            if first.is_some_and(|f| f.id == self.0.me.id) {
                handle.0.campaign_until_led();
            } else if let Some(f) = first {
                // It may have asked for votes before there was anybody to give one.
                self.0.on_ask(new.id, f);
            }
            return Ok(handle);
        }
        self.open(group, new.sync, machine, (true, true), Others::None).await
    }

    /// Opens a group that the store has: the checkpoint goes to the machine, and what the log has above it is applied again once it is
    /// known to be committed, which with one voter is at once: opening the store has made durable what it found.
    ///
    /// # Errors
    /// There is no such group, or what is on disk is damaged; then nothing was changed.
    pub async fn restore(&self, id: GroupId, sync: Sync, machine: Arc<dyn Machine>) -> Result<Handle, Error> {
        self.restore_among(id, sync, machine, Others::None).await
    }

    /// The same with a word on whether others have the group, which counts if this node has lost a part of its log and takes itself for the only member (D-15).
    ///
    /// # Errors
    /// As [`Replicas::restore`], and [`Error::WhoElse`]; the machine may have been given a checkpoint by then.
    pub async fn restore_among(
        &self,
        id: GroupId,
        sync: Sync,
        machine: Arc<dyn Machine>,
        others: Others,
    ) -> Result<Handle, Error> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let group = self.0.store.group(store::GroupId(id.0))?;
        self.open(group, sync, machine, (false, false), others).await
    }

    async fn open(
        &self,
        store: store::Group,
        sync: Sync,
        machine: Arc<dyn Machine>,
        (young, fresh): (bool, bool),
        others: Others,
    ) -> Result<Handle, Error> {
        let id = GroupId(store.id().0);
        if self.0.groups.lock().contains_key(&id) {
            return Err(Error::Open(id));
        }
        let inner = open::open(&self.0, &store, &machine, fresh, others).await?;
        let young = young || (!fresh && !store.is_memory() && crate::net::sole(&inner));
        let group = Arc::new(Group {
            id,
            shared: self.0.clone(),
            memory: store.is_memory(),
            store,
            machine,
            inner: Mutex::new(inner),
            run: AtomicU8::new(IDLE),
            notify: Notify::new(),
            changed: Notify::new(),
            relaxed: AtomicBool::new(sync == Sync::Relaxed),
            young: AtomicBool::new(young),
            dirty: AtomicBool::new(false),
            since_checkpoint: AtomicU64::new(0),
            lease: AtomicU64::new(0),
        });
        match self.0.groups.lock().entry(id) {
            std::collections::btree_map::Entry::Vacant(e) => drop(e.insert(group.clone())),
            std::collections::btree_map::Entry::Occupied(_) => return Err(Error::Open(id)),
        }
        self.0.net.forget(id);
        self.0.know(group.inner.lock().core.members().1);
        let handle = Handle(group);
        handle.0.machine.attach(&handle);
        handle.0.poke();
        if handle.0.inner.lock().core.is_distrusted() {
            handle.0.regain_trust();
        }
        Ok(handle)
    }

    /// Ends a group on this node for good, on the word of a committed deletion. Its machine hears [`crate::Role::Stopped`]. Returns when
    /// that is durable. Not to be awaited inside the group's own `apply`.
    ///
    /// # Errors
    /// The store's answer; the group is stopped all the same, and the call may be repeated.
    pub async fn remove(&self, id: GroupId) -> Result<(), Error> {
        let open = self.0.groups.lock().remove(&id);
        self.0.net.forget(id);
        if let Some(g) = open {
            let handle = Handle(g);
            handle.stop("removed");
            handle.quiet().await;
            let inner = handle.0.inner.lock();
            if !crate::net::sole(&inner) {
                self.0.net.except_for_a_while(id, inner.core.status().term);
            }
        }
        loop {
            match self.0.store.delete(store::GroupId(id.0)) {
                Ok(ticket) => {
                    ticket.durable().await?;
                    return Ok(());
                }
                // Deletions may use the journal's reserve, but that too can be full for a moment.
                Err(store::Error::Busy) => {
                    env::sleep(Duration::from_nanos(self.0.options.retry_ns)).await;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Forgets everything, as a killed process does.
    #[cfg(test)]
    pub(crate) fn abandon(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.net.wake();
        self.0.flush.notify_one();
        for g in std::mem::take(&mut *self.0.groups.lock()).into_values() {
            g.inner.lock().stop.get_or_insert_with(|| "killed".into());
        }
        self.0.touched.lock().clear();
    }

    /// Takes checkpoints of all groups that were touched and flushes the store.
    ///
    /// # Errors
    /// The store's answer. Nothing is lost: the log has it all.
    pub async fn flush(&self) -> Result<(), Error> {
        Ok(self.0.flush().await?)
    }

    /// The clean shutdown: waits until all groups have nothing under way, takes checkpoints, flushes, and stops every group. Publishers should have
    /// been stopped before.
    ///
    /// # Errors
    /// The store's answer to the flush; nothing that was acknowledged is lost by it.
    pub async fn close(&self) -> Result<(), Error> {
        self.0.closed.store(true, Ordering::Release);
        self.0.flush.notify_one();
        self.0.net.wake();
        // What others have to agree to may never come to its end: the rest of a cluster can be away.
        let until = env::now() + QUIET_MAX;
        for g in self.all() {
            if g.0.is_sole() {
                g.quiet().await;
            } else {
                env::timeout(until.since(env::now()), g.quiet()).await.ok();
            }
        }
        let done = self.0.flush().await;
        let groups = std::mem::take(&mut *self.0.groups.lock());
        for g in groups.into_values() {
            let handle = Handle(g);
            handle.stop("the server is shutting down");
            handle.quiet().await;
        }
        self.0.touched.lock().clear();
        Ok(done?)
    }
}

impl Handle {
    /// Stops the group on this node without touching its store.
    pub(crate) fn stop(&self, why: &str) {
        self.0.inner.lock().stop.get_or_insert_with(|| why.into());
        self.0.poke();
    }
}
