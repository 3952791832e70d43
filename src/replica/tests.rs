//! Whole groups with one voter on simulated and real disks: what was acknowledged is there after any end, once and in order.
//!
//! Owns the machine that the tests apply to: a list of the ids that it was given, which it also keeps as messages in the store.

use std::{collections::VecDeque, path::Path, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use env::{
    Rng,
    simdisk::{Options as DiskOptions, Planned, SimDisk},
};
use parking_lot::Mutex;
use proptest::prelude::*;
use store::{Disk, Kind, Message, Store, StreamSeq, Sync, io::SimHandle};
use tokio::sync::Notify;

use crate::{
    BoxFuture, Committed, GroupId, Handle, Machine, Members, New, NodeId, Options, Proposal, Refusal,
    Replicas, Role, control, messages,
};

pub(crate) const ME: NodeId = NodeId::new(1, 0);

/// Ids are published, gathered into batches, and acknowledged when applied.
#[derive(Default)]
pub(crate) struct List {
    handle: Mutex<Option<Handle>>,
    state: Mutex<State>,
    /// Something was applied, refused, or the role changed.
    pub moved: Notify,
}

#[derive(Default)]
struct State {
    role: Option<Role>,
    /// Published and not proposed.
    waiting: Vec<u64>,
    /// Handed out and not applied, with the sequence of the first message: what this leader expects to come back.
    handed: VecDeque<(u64, Vec<u64>)>,
    next_seq: u64,
    applied: Vec<u64>,
    acked: Vec<u64>,
    refused: Vec<(Vec<u64>, Refusal)>,
    batches: u64,
    padding: usize,
}

impl State {
    fn close(&mut self, batch: &mut store::Batch, open: &mut Vec<u64>, first: u64, out: &mut Vec<Proposal>) {
        if !open.is_empty() {
            out.push(messages(batch.finish(&[])));
            self.handed.push_back((first, std::mem::take(open)));
        }
    }
}

impl List {
    pub(crate) fn handle(&self) -> Handle {
        self.handle.lock().clone().expect("attached before anything is done")
    }
    /// Bytes that bodies have beyond their id; with some, every 17th id is a command.
    pub(crate) fn pad(&self, bytes: usize) {
        self.state.lock().padding = bytes;
    }
    pub(crate) fn publish(&self, id: u64) {
        self.state.lock().waiting.push(id);
        self.handle().wake();
    }
    pub(crate) fn applied(&self) -> Vec<u64> {
        self.state.lock().applied.clone()
    }
    pub(crate) fn acked(&self) -> Vec<u64> {
        self.state.lock().acked.clone()
    }
    pub(crate) fn stopped(&self) -> Option<Arc<str>> {
        match &self.state.lock().role {
            Some(Role::Stopped(why)) => Some(why.clone()),
            _ => None,
        }
    }
    pub(crate) fn leads(&self) -> bool {
        matches!(self.state.lock().role, Some(Role::Leader { .. }))
    }
    /// Waits until the condition holds.
    pub(crate) async fn until(&self, f: impl Fn(&Self) -> bool) {
        loop {
            let moved = self.moved.notified();
            if f(self) {
                return;
            }
            moved.await;
        }
    }
}

/// Waits until the condition holds; false if the disk's power failed meanwhile, since then it may never.
async fn unless_dead(disk: &SimHandle, l: &List, f: impl Fn(&List) -> bool) -> bool {
    loop {
        if env::timeout(Duration::from_millis(1), l.until(|l| f(l) || l.stopped().is_some())).await.is_ok() {
            return f(l);
        }
        if disk.with(|d| d.crashed()) {
            return false;
        }
    }
}

fn ids_of(e: &Committed) -> Vec<u64> {
    match e.head.kind {
        Kind::Control => vec![(&e.payload[..]).get_u64_le()],
        _ => e
            .records()
            .map(|r| {
                let r = r.expect("a sealed payload is whole");
                Message::decode(e.head.group, r).expect("a sealed record is right").body.get_u64_le()
            })
            .collect(),
    }
}

impl Machine for List {
    fn attach(&self, handle: &Handle) {
        assert!(self.handle.lock().replace(handle.clone()).is_none(), "attached once");
    }
    fn restore(&self, mut blob: &[u8]) -> Result<(), String> {
        let mut s = self.state.lock();
        assert!(!matches!(s.role, Some(Role::Leader { .. })), "a leader has all there is");
        s.applied.clear();
        while blob.len() >= 8 {
            s.applied.push(blob.get_u64_le());
        }
        Ok(())
    }
    fn apply<'a>(&'a self, batch: Vec<Committed>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            for e in batch {
                // Control entries are left to the driver to join when they come last.
                if e.head.kind == Kind::Messages || self.handle().store().applied().0.next() == e.head.index {
                    self.handle().store().apply(&e.head).await.map_err(|e| e.to_string())?;
                }
                let ids = ids_of(&e);
                let mut s = self.state.lock();
                if s.role == Some(Role::Leader { term: raft::Term(e.head.term.0) }) {
                    let mine = s.handed.pop_front().map(|h| h.1);
                    assert_eq!(mine.as_ref(), Some(&ids), "own proposals come back in order");
                    s.acked.extend(&ids);
                }
                s.applied.extend(&ids);
                s.batches += 1;
            }
            self.moved.notify_waiters();
            Ok(())
        })
    }
    fn role(&self, role: &Role) {
        let mut s = self.state.lock();
        s.role = Some(role.clone());
        s.handed.clear();
        if matches!(role, Role::Leader { .. }) {
            s.next_seq = self.handle().store().state().last.0 + 1;
        } else {
            s.waiting.clear();
        }
        drop(s);
        self.moved.notify_waiters();
        if matches!(role, Role::Leader { .. }) {
            self.handle().wake();
        }
    }
    fn checkpoint(&self) -> Bytes {
        let s = self.state.lock();
        let mut b = BytesMut::new();
        s.applied.iter().for_each(|id| b.put_u64_le(*id));
        b.freeze()
    }
    fn take_proposals(&self, out: &mut Vec<Proposal>) {
        let mut s = self.state.lock();
        let s = &mut *s;
        let ids = std::mem::take(&mut s.waiting);
        let mut batch = store::Batch::new();
        let mut open: Vec<u64> = Vec::new();
        let mut first = s.next_seq;
        for id in ids {
            if id % 17 == 3 && s.padding > 0 {
                s.close(&mut batch, &mut open, first, out);
                out.push(control(Bytes::copy_from_slice(&id.to_le_bytes())));
                s.handed.push_back((s.next_seq, vec![id]));
                continue;
            }
            let mut body = id.to_le_bytes().to_vec();
            body.resize(8 + s.padding, b'x');
            let m = Message {
                seq: StreamSeq(s.next_seq),
                time: 0,
                expires: None,
                redacted: false,
                subject: b"ids",
                headers: &[],
                body: &body,
            };
            if open.is_empty() {
                first = s.next_seq;
            }
            s.next_seq += 1;
            batch.push(self.handle().store().id(), &m);
            open.push(id);
        }
        s.close(&mut batch, &mut open, first, out);
    }
    fn refused(&self, batch: Vec<Proposal>, why: &Refusal) {
        let mut s = self.state.lock();
        for _ in &batch {
            let (first, ids) = s.handed.pop_back().expect("what is refused was handed out");
            s.next_seq = first;
            s.refused.push((ids, why.clone()));
        }
        self.moved.notify_waiters();
    }
}

fn new(id: u64) -> New {
    New {
        id: GroupId(id),
        memory: false,
        options: Bytes::from_static(b"opts"),
        members: Members::of([ME]),
        sync: Sync::Always,
    }
}

/// Opens, or makes, group `id`.
pub(crate) async fn start(replicas: &Replicas, id: u64) -> Result<Arc<List>, crate::Error> {
    let list = Arc::new(List::default());
    if replicas.stored().contains(&GroupId(id)) {
        replicas.restore(GroupId(id), Sync::Always, list.clone()).await?;
    } else {
        replicas.create(new(id), list.clone()).await?;
    }
    Ok(list)
}

/// A disk that does what it is told.
fn faultless(mut options: DiskOptions) -> SimHandle {
    options.sector = 512;
    options.rates.clear();
    SimHandle::new(SimDisk::new(options, Rng::derived(1, "disk")), false)
}

/// The groups of a new store on a disk, at work.
async fn on(disk: &SimHandle, options: Options) -> Replicas {
    let store = Store::open(Disk::Sim(disk.clone()), "/s", small_store()).await.expect("it opens");
    let replicas = Replicas::new(store, ME, options);
    replicas.spawn();
    replicas
}

pub(crate) fn small_store() -> store::Options {
    store::Options {
        sector: 512,
        journal_file_min: 16 << 10,
        journal_file_max: 64 << 10,
        journal_budget: 512 << 10,
        flush_bytes: 24 << 10,
        reserve: 4 << 10,
        own_file_bytes: 8 << 10,
        small_piece: 4 << 10,
        merge_at: 3,
        threads: false,
        ..store::Options::default()
    }
}

pub(crate) async fn yield_some(n: u64) {
    for _ in 0..n {
        env::give_way().await;
    }
}

/// What the lives of one disk are checked against.
#[derive(Default, Clone)]
struct Known {
    acked: Vec<u64>,
    published: u64,
    /// `published` when the life began.
    before: u64,
}

/// One life: open, check, publish, and either close or be cut off by the disk. True if the disk did not crash.
async fn life(disk: SimHandle, seed: u64, known: &mut [Known], clean: bool) -> Result<(), String> {
    let mut rng = Rng::derived(seed, "life");
    let Ok(store) = Store::open(Disk::Sim(disk.clone()), "/s", small_store()).await else {
        assert!(disk.with(|d| d.crashed()), "the store opens unless the power fails");
        return Ok(());
    };
    let options = Options {
        checkpoint_bytes: 6 << 10,
        inflight_batches: 1 + (seed % 3) as usize,
        ..Options::default()
    };
    let replicas = Replicas::new(store, ME, options);
    replicas.spawn();
    let mut lists = Vec::new();
    for g in 0..known.len() {
        match start(&replicas, g as u64 + 1).await {
            Ok(l) => lists.push(l),
            Err(e) => {
                assert!(disk.with(|d| d.crashed()), "a group opens unless the power fails: {e}");
                return Ok(());
            }
        }
    }
    for (l, known) in lists.iter().zip(known.iter_mut()) {
        if !unless_dead(&disk, l, List::leads).await {
            assert!(disk.with(|d| d.crashed()), "{:?}", l.stopped());
            return Ok(());
        }
        let applied = l.applied();
        if !applied.windows(2).all(|w| w[0] < w[1]) {
            return Err(format!("not once and in order: {applied:?}"));
        }
        if let Some(lost) = known.acked.iter().find(|id| applied.binary_search(id).is_err()) {
            return Err(format!("{lost} was acknowledged and is gone; {applied:?}"));
        }
        if let Err(e) = l.handle().store().verify().await {
            assert!(disk.with(|d| d.crashed()), "{e}");
            return Ok(());
        }
        known.acked = applied;
        known.before = known.published;
    }
    for _ in 0..rng.between(0, 60) {
        let at = rng.below(lists.len() as u64) as usize;
        let (l, known) = (&lists[at], &mut known[at]);
        l.state.lock().padding = rng.below(600) as usize;
        for _ in 0..rng.between(1, 20) {
            known.published += 1;
            l.publish(known.published);
        }
        yield_some(rng.below(8)).await;
        if rng.bool(0.05) {
            unless_dead(&disk, l, |l| l.acked().last() == Some(&known.published)).await;
        }
        if rng.bool(0.03) && replicas.flush().await.is_err() {
            break;
        }
    }
    if clean {
        let mut close = std::pin::pin!(replicas.close());
        while env::timeout(Duration::from_millis(1), &mut close).await.is_err() && !disk.with(|d| d.crashed())
        {
        }
    }
    for (l, known) in lists.iter().zip(known.iter_mut()) {
        known.acked.extend(l.acked());
        if clean && !disk.with(|d| d.crashed()) {
            let s = l.state.lock();
            assert!(s.waiting.is_empty() && s.handed.is_empty(), "a clean end leaves nothing open");
            assert!(
                known.published == known.before || known.acked.last() == Some(&known.published),
                "all was applied"
            );
        }
    }
    Ok(())
}

/// Many lives of one disk, each cut off at an operation of its own.
fn lives(seed: u64, cuts: &[(u64, bool)], groups: usize) -> Result<u64, String> {
    let mut options = DiskOptions { sector: 512, ..DiskOptions::default() };
    options.rates.clear();
    let mut known = vec![Known::default(); groups];
    let disk = SimHandle::new(SimDisk::new(options, Rng::derived(seed, "disk")), seed.is_multiple_of(2));
    for (i, (cut, after)) in cuts.iter().enumerate() {
        let clean = i % 3 == 2;
        if !clean {
            let at = disk.with(|d| d.ops()) + cut;
            disk.with(|d| d.plan(at, if *after { Planned::CrashAfter } else { Planned::CrashBefore }));
        }
        let r = env::run(life(disk.clone(), seed.wrapping_add(i as u64), &mut known, clean));
        r.expect("a runtime starts").map_err(|e| format!("life {i}: {e}"))?;
        if disk.with(|d| d.crashed()) || seed.is_multiple_of(3) {
            disk.with(|d| d.power_failure());
        } else {
            disk.with(|d| d.process_death());
        }
    }
    // The last look is undisturbed.
    env::run(life(disk, seed, &mut known, true)).expect("a runtime starts")?;
    Ok(known.iter().map(|k| k.acked.len() as u64).sum())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    /// D-2, D-3: kill at any operation, as often as you like: what was acknowledged is there, once and in order.
    #[test]
    fn d2_acknowledged_is_there_once_and_in_order(
        seed in any::<u64>(),
        cuts in proptest::collection::vec((0u64..160, any::<bool>()), 1..7),
        groups in 1usize..4,
    ) {
        prop_assert_eq!(lives(seed, &cuts, groups).map(|_| ()), Ok(()));
    }
}

#[test]
fn lives_get_somewhere() {
    let cuts = [(200, true), (300, false), (400, true), (1000, true)];
    let acked: u64 = (0..8).map(|seed| lives(seed, &cuts, 2).expect("nothing is lost")).sum();
    assert!(acked > 1000, "{acked} acknowledged");
}

/// What a killed process leaves in memory: nothing, so that the next one finds the directory unlocked.
fn kill(replicas: &Replicas, lists: &[&Arc<List>]) {
    replicas.abandon();
    lists.iter().for_each(|l| drop(l.handle.lock().take()));
}

/// A directory of its own, gone at the end.
pub(crate) struct Dir(std::path::PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Dir {
        let at = std::env::temp_dir().join(format!("fulmar-replica-{name}-{}", env::process::id()));
        Dir(at)
    }
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}
impl Drop for Dir {
    #[allow(clippy::disallowed_methods)]
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

async fn on_disk(dir: &Dir) -> Replicas {
    let store =
        Store::open(env::disk::Disk::os(), dir.path(), store::Options::default()).await.expect("it opens");
    let replicas = Replicas::new(store, ME, Options::default());
    replicas.spawn();
    replicas
}

#[test]
fn a_real_disk_keeps_it_over_a_clean_end_and_over_a_kill() {
    let dir = Dir::new("restart");
    let mut expected = 0;
    for life in 0..4u64 {
        env::run(async {
            let replicas = on_disk(&dir).await;
            let l = start(&replicas, 7).await.expect("it opens");
            l.until(List::leads).await;
            assert_eq!(l.applied(), (1..=expected).collect::<Vec<_>>(), "life {life}");
            assert_eq!(replicas.options(GroupId(7)).expect("it is there").0, "opts");
            (1..=50).for_each(|i| l.publish(expected + i));
            expected += 50;
            l.until(|l| l.acked().last() == Some(&expected)).await;
            if life % 2 == 0 {
                replicas.close().await.expect("it flushes");
                assert!(l.stopped().is_some());
                let group = replicas.store().group(store::GroupId(7)).expect("it is there");
                assert!(group.applied().1.index.0 > 1, "a clean end leaves a checkpoint");
            }
            // Else the runtime goes and takes everything with it.
            kill(&replicas, &[&l]);
        })
        .expect("a runtime starts");
    }
}

#[test]
fn an_idle_group_has_no_task_and_a_wake_gives_it_one() {
    let dir = Dir::new("idle");
    env::run(async {
        let replicas = on_disk(&dir).await;
        let l = start(&replicas, 1).await.expect("it opens");
        l.until(List::leads).await;
        l.handle().quiet().await;
        let idle =
            |l: &List| l.handle().0.run.load(std::sync::atomic::Ordering::Acquire) == crate::group::IDLE;
        while !idle(&l) {
            yield_some(1).await;
        }
        let bytes = std::mem::size_of::<crate::group::Group>();
        assert!(bytes <= 1280, "an idle group takes {bytes} bytes");
        l.publish(5);
        assert!(!idle(&l));
        l.until(|l| l.acked() == [5]).await;
    })
    .expect("a runtime starts");
}

#[test]
fn memory_and_relaxed_groups_do_not_wait_for_the_disk() {
    let dir = Dir::new("relaxed");
    env::run(async {
        let replicas = on_disk(&dir).await;
        let (memory, relaxed) = (Arc::new(List::default()), Arc::new(List::default()));
        replicas.create(New { memory: true, ..new(1) }, memory.clone()).await.expect("it is made");
        replicas.create(New { sync: Sync::Relaxed, ..new(2) }, relaxed.clone()).await.expect("it is made");
        for l in [&memory, &relaxed] {
            l.until(List::leads).await;
            l.handle().quiet().await;
        }
        // What their making has left to be synced is out of the way once a later write is durable.
        relaxed.handle().set_sync(Sync::Always);
        relaxed.publish(0);
        relaxed.until(|l| l.acked().last() == Some(&0)).await;
        relaxed.handle().set_sync(Sync::Relaxed);
        let syncs = replicas.store().syncs();
        for id in 1..=100 {
            memory.publish(id);
            relaxed.publish(id);
            memory.until(|l| l.acked().last() == Some(&id)).await;
            relaxed.until(|l| l.acked().last() == Some(&id)).await;
        }
        assert_eq!(replicas.store().syncs(), syncs, "nothing was synced for them");
        relaxed.handle().set_sync(Sync::Always);
        relaxed.publish(101);
        relaxed.until(|l| l.acked().last() == Some(&101)).await;
        assert!(replicas.store().syncs() > syncs);
        kill(&replicas, &[&memory, &relaxed]);
    })
    .expect("a runtime starts");
    // A restart: the memory group begins with nothing, the other one has it all.
    env::run(async {
        let replicas = on_disk(&dir).await;
        let (memory, relaxed) = (Arc::new(List::default()), Arc::new(List::default()));
        replicas.restore(GroupId(1), Sync::Always, memory.clone()).await.expect("it opens");
        replicas.restore(GroupId(2), Sync::Relaxed, relaxed.clone()).await.expect("it opens");
        memory.until(List::leads).await;
        relaxed.until(List::leads).await;
        assert_eq!((memory.applied().len(), relaxed.applied().len()), (0, 102));
        assert!(replicas.options(GroupId(1)).expect("it is there").1);
    })
    .expect("a runtime starts");
}

#[test]
fn a_removed_group_is_gone_for_good() {
    let dir = Dir::new("remove");
    env::run(async {
        let replicas = on_disk(&dir).await;
        let l = start(&replicas, 3).await.expect("it opens");
        l.until(List::leads).await;
        l.publish(1);
        replicas.remove(GroupId(3)).await.expect("it goes");
        assert_eq!(l.stopped().as_deref(), Some("removed"));
        assert!(matches!(
            l.handle().propose(control(Bytes::from_static(b"12345678"))),
            Err(Refusal::Stopped(_))
        ));
        assert!(replicas.get(GroupId(3)).is_none() && replicas.stored().is_empty());
        kill(&replicas, &[&l]);
    })
    .expect("a runtime starts");
    env::run(async {
        let replicas = on_disk(&dir).await;
        assert!(replicas.stored().is_empty());
        assert!(replicas.restore(GroupId(3), Sync::Always, Arc::new(List::default())).await.is_err());
        // The id may be used again, and nothing of what it was comes back.
        let l = Arc::new(List::default());
        replicas.create(new(3), l.clone()).await.expect("it is made");
        l.until(List::leads).await;
        l.publish(7);
        l.until(|l| l.acked() == [7]).await;
        assert!(replicas.create(new(3), Arc::new(List::default())).await.is_err(), "it is there");
        kill(&replicas, &[&l]);
    })
    .expect("a runtime starts");
    env::run(async {
        let replicas = on_disk(&dir).await;
        let l = start(&replicas, 3).await.expect("it opens");
        l.until(List::leads).await;
        assert_eq!(l.applied(), [7]);
    })
    .expect("a runtime starts");
}

#[test]
fn d5_a_full_disk_refuses_and_recovers() {
    let disk = faultless(DiskOptions { capacity: 128 << 10, ..DiskOptions::default() });
    env::run(async {
        let replicas = on(&disk, Options { checkpoint_bytes: 1 << 30, ..Options::default() }).await;
        let l = start(&replicas, 1).await.expect("there is room for one");
        l.until(List::leads).await;
        l.state.lock().padding = 5000;
        let mut id = 0;
        while l.state.lock().refused.is_empty() {
            id += 1;
            l.publish(id);
            l.until(|l| l.acked().last() == Some(&id) || !l.state.lock().refused.is_empty()).await;
        }
        let (ids, why) = l.state.lock().refused[0].clone();
        assert!(matches!(why, Refusal::NoSpace(_)), "{why:?}");
        assert_eq!(ids, [id]);
        assert!(l.stopped().is_none());
        disk.with(|d| d.options().capacity = 1 << 30);
        // Room is found when somebody asks for it.
        while l.acked().last() != Some(&id) {
            id += 1;
            l.publish(id);
            let refused = l.state.lock().refused.len();
            l.until(|l| l.acked().last() == Some(&id) || l.state.lock().refused.len() > refused).await;
        }
        let huge = control(Bytes::from(vec![1; 80 << 10]));
        assert_eq!(l.handle().propose(huge), Err(Refusal::TooLarge));
    })
    .expect("a runtime starts");
}

#[test]
fn a_poisoned_store_stops_the_group() {
    let disk = faultless(DiskOptions::default());
    env::run(async {
        let replicas = on(&disk, Options::default()).await;
        let l = start(&replicas, 1).await.expect("it opens");
        l.until(List::leads).await;
        disk.with(|d| d.options().rates.insert(env::simdisk::Fault::SyncError, 1.0));
        l.publish(1);
        l.until(|l| l.stopped().is_some()).await;
        assert!(l.acked().is_empty());
        replicas.close().await.ok();
    })
    .expect("a runtime starts");
}

/// They left before it, so that the end of the process took back what was acknowledged.
#[test]
fn a_relaxed_acknowledgement_waits_for_the_write_and_for_no_sync() {
    let disk = faultless(DiskOptions::default());
    env::run(async {
        let replicas = on(&disk, Options::default()).await;
        let l = Arc::new(List::default());
        replicas.create(New { sync: Sync::Relaxed, ..new(1) }, l.clone()).await.expect("it is made");
        l.until(List::leads).await;
        l.handle().quiet().await;
        disk.freeze(true);
        l.publish(1);
        yield_some(1000).await;
        assert!(l.acked().is_empty() && l.applied().is_empty(), "the disk has not taken it");
        let syncs = replicas.store().syncs();
        disk.freeze(false);
        l.until(|l| l.acked() == [1]).await;
        assert_eq!(replicas.store().syncs(), syncs);
    })
    .expect("a runtime starts");
}

/// Small proposals with a window of 1000, one group, on the disk of the machine. Printed, not judged.
#[test]
fn throughput_of_a_window_of_1000() {
    let dir = Dir::new("throughput");
    env::run(async {
        let replicas = on_disk(&dir).await;
        for inflight in [1, 2, 4] {
            let replicas = Replicas::new(
                replicas.store().clone(),
                ME,
                Options { inflight_batches: inflight, ..Options::default() },
            );
            let l = Arc::new(List::default());
            replicas.create(new(100 + inflight as u64), l.clone()).await.expect("it is made");
            l.until(List::leads).await;
            let (total, window) = (50_000u64, 1000u64);
            let (syncs, begin) = (replicas.store().syncs(), env::now());
            let mut sent = 0;
            while sent < total {
                let acked = l.state.lock().acked.len() as u64;
                while sent < total && sent - acked < window {
                    sent += 1;
                    l.publish(sent);
                }
                l.until(|l| l.state.lock().acked.len() as u64 > acked).await;
            }
            l.until(|l| l.state.lock().acked.len() as u64 == total).await;
            let took = begin.elapsed();
            let (syncs, batches) = (replicas.store().syncs() - syncs, l.state.lock().batches);
            println!(
                "inflight {inflight}: {:.0} proposals/s, {syncs} syncs, {batches} batches, {:.1} us a batch",
                total as f64 / took.as_secs_f64(),
                took.as_secs_f64() * 1e6 / batches as f64,
            );
        }
    })
    .expect("a runtime starts");
}
