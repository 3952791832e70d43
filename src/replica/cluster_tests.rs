//! Three nodes in one process, over a network that loses, delays and parts, on simulated disks that crash: nothing acknowledged is lost,
//! and in the end all machines are equal.
//!
//! Time is real here, so a run does not repeat exactly; what has to repeat is found by raft's own simulator and the whole-cluster one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use env::{
    Rng,
    simdisk::{Options as DiskOptions, Planned, SimDisk},
};
use parking_lot::Mutex;
use store::{Disk, Store, Sync, io::SimHandle};
use tokio::sync::mpsc;

use crate::{
    Error, GroupId, Members, New, NodeId, Options, Others, Peers, Replicas, Role,
    tests::{List, small_store},
};

pub(crate) const GROUP: GroupId = GroupId(1);

fn n(id: u64) -> NodeId {
    NodeId::new(id, 0)
}

/// All links. A frame waits in its link's queue and is delivered, or not, to whatever life the other node then has.
struct Mesh {
    state: Mutex<MeshState>,
}

struct MeshState {
    alive: BTreeMap<NodeId, Replicas>,
    links: BTreeMap<(NodeId, NodeId), mpsc::UnboundedSender<Bytes>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    loss: f64,
    delay_us: u64,
    rng: Rng,
}

/// One node's way into the mesh.
struct Port(Arc<Mesh>, NodeId);

impl Peers for Port {
    fn send(&self, to: NodeId, frame: Bytes) {
        let key = (self.1, to);
        let mut s = self.0.state.lock();
        let link = s.links.entry(key).or_insert_with(|| {
            let (tx, rx) = mpsc::unbounded_channel();
            env::spawn(pump(self.0.clone(), key, rx));
            tx
        });
        link.send(frame).ok();
    }
}

async fn pump(mesh: Arc<Mesh>, key: (NodeId, NodeId), mut rx: mpsc::UnboundedReceiver<Bytes>) {
    while let Some(frame) = rx.recv().await {
        let delay = {
            let mut s = mesh.state.lock();
            let max = s.delay_us;
            s.rng.below(max + 1)
        };
        if delay > 0 {
            env::sleep(Duration::from_micros(delay)).await;
        }
        let to = {
            let mut s = mesh.state.lock();
            let loss = s.loss;
            if s.cut.contains(&key) || s.rng.bool(loss) { None } else { s.alive.get(&key.1).cloned() }
        };
        if let Some(to) = to {
            to.receive(key.0, frame);
        }
    }
}

struct Node {
    disk: SimHandle,
    /// How often it had to ask who else has the group.
    asked: u64,
    replicas: Option<Replicas>,
    list: Arc<List>,
}

pub(crate) struct Cluster {
    mesh: Arc<Mesh>,
    nodes: BTreeMap<NodeId, Node>,
    members: Members,
    pub rng: Rng,
    acked: Vec<u64>,
    next: u64,
    options: Options,
    /// States taken over in lives that are over.
    taken: u64,
    memory: bool,
    /// What who has lost a part of its log is told of the others.
    pub others: Others,
    /// Whose replica was made anew, since nothing said what it was.
    pub orphans: BTreeSet<NodeId>,
}

fn options() -> Options {
    let raft = raft::Options {
        election_ns: 150_000_000,
        resend_ns: 40_000_000,
        transfer_ns: 200_000_000,
        drift_ns: 10_000_000,
        ..raft::Options::default()
    };
    Options {
        raft: Arc::new(raft),
        checkpoint_bytes: 64 << 10,
        beat_ns: 60_000_000,
        grant_ns: 250_000_000,
        ..Options::default()
    }
}

impl Cluster {
    pub(crate) async fn new(seed: u64, voters: u64, more: u64) -> Cluster {
        Cluster::with(seed, voters, more, options()).await
    }

    async fn with(seed: u64, voters: u64, more: u64, options: Options) -> Cluster {
        Cluster::of(seed, (voters, more), options, false).await
    }

    async fn of(seed: u64, (voters, more): (u64, u64), options: Options, memory: bool) -> Cluster {
        let state = MeshState {
            alive: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss: 0.0,
            delay_us: 300,
            rng: Rng::derived(seed, "mesh"),
        };
        let mut c = Cluster {
            mesh: Arc::new(Mesh { state: Mutex::new(state) }),
            nodes: BTreeMap::new(),
            members: Members::of((1..=voters).map(n)),
            rng: Rng::derived(seed, "cluster"),
            acked: Vec::new(),
            next: 0,
            options,
            taken: 0,
            memory,
            others: Others::None,
            orphans: BTreeSet::new(),
        };
        for id in 1..=voters + more {
            let mut options = DiskOptions { sector: 512, ..DiskOptions::default() };
            options.rates.clear();
            let disk = SimHandle::new(SimDisk::new(options, Rng::derived(seed, &format!("disk {id}"))), true);
            c.nodes.insert(n(id), Node { disk, asked: 0, replicas: None, list: Arc::default() });
            c.start(n(id)).await;
        }
        c
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }
    pub(crate) fn disk(&self, id: NodeId) -> SimHandle {
        self.nodes[&id].disk.clone()
    }
    pub(crate) fn asked(&self, id: NodeId) -> u64 {
        self.nodes[&id].asked
    }
    pub(crate) fn replicas(&self, id: NodeId) -> Replicas {
        self.nodes[&id].replicas.clone().expect("it is up")
    }
    pub(crate) fn list(&self, id: NodeId) -> Arc<List> {
        self.nodes[&id].list.clone()
    }

    pub(crate) async fn start(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("it is one of ours");
        let store_options = store::Options { journal_budget: 4 << 20, ..small_store() };
        let store = Store::open(Disk::Sim(node.disk.clone()), "/s", store_options).await.expect("it opens");
        let replicas = Replicas::new(store, id, self.options.clone());
        replicas.spawn();
        replicas.join(Arc::new(Port(self.mesh.clone(), id)));
        self.mesh.state.lock().alive.insert(id, replicas.clone());
        node.list = Arc::new(List::default());
        node.list.pad(self.next as usize % 300);
        let list = node.list.clone();
        let orphan = replicas.is_orphan(GROUP).await;
        if orphan {
            replicas.remove(GROUP).await.expect("it goes");
            self.orphans.insert(id);
        }
        if replicas.stored().contains(&GROUP) {
            // Whoever has to ask is given the answer.
            let asked = replicas.restore_among(GROUP, Sync::Always, list.clone(), Others::Unknown).await;
            if matches!(asked, Err(Error::WhoElse(..))) {
                node.asked += 1;
                replicas.restore_among(GROUP, Sync::Always, list, self.others).await.expect("it opens");
            } else {
                asked.expect("it opens");
            }
        } else {
            let first = self.members.contains(id) && !orphan;
            let members = if first { self.members.clone() } else { Members::default() };
            let new =
                New { id: GROUP, memory: self.memory, options: Bytes::new(), members, sync: Sync::Always };
            replicas.create(new, list).await.expect("it is made");
        }
        node.replicas = Some(replicas);
    }

    /// The power of a node fails at one of its next disk operations.
    pub(crate) async fn crash(&mut self, id: NodeId) {
        let at = self.rng.below(12);
        let node = self.nodes.get_mut(&id).expect("it is one of ours");
        let Some(replicas) = node.replicas.take() else { return };
        node.disk.with(|d| {
            let at = d.ops() + at;
            d.plan(at, Planned::CrashBefore);
        });
        // Enough work that it comes to that.
        while !node.disk.with(|d| d.crashed()) {
            replicas.flush().await.ok();
        }
        self.acked.extend(node.list.acked());
        self.taken += replicas.0.transfers.taken.load(std::sync::atomic::Ordering::Relaxed);
        self.mesh.state.lock().alive.remove(&id);
        replicas.abandon();
        // The old life must not write to the new one's files: a shard that failed to write does nothing more.
        replicas.store().create(store::GroupId(1 << 40), false, &[]).ok();
        assert!(replicas.store().step().await.is_err(), "the disk is dead");
        node.disk.with(|d| d.power_failure());
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        let cut = &self.mesh.state.lock().cut;
        let up = self.nodes.iter().filter(|(_, node)| node.replicas.is_some() && node.list.leads());
        let of_new = |node: &Node| match node.list.handle().role() {
            Some(Role::Leader { term }) => term,
            _ => raft::Term(0),
        };
        // A leader that is cut off does not know yet that it is none.
        let best = up.max_by_key(|(id, node)| (!cut.iter().any(|c| c.0 == **id), of_new(node)));
        best.map(|(id, _)| *id)
    }

    /// Brings the group to these nodes, whoever leads.
    pub(crate) async fn reach(&mut self, nodes: &[NodeId]) {
        for _ in 0..500 {
            if let Some(l) = self.leader()
                && let Ok(Ok(())) =
                    env::timeout(Duration::from_secs(5), self.nodes[&l].list.handle().reach(nodes)).await
            {
                return;
            }
            env::sleep(Duration::from_millis(10)).await;
        }
        self.show();
        panic!("{nodes:?} is not reached");
    }

    fn show(&self) {
        for (id, x) in &self.nodes {
            let h = x.list.handle();
            println!("{id} {:?}", h.status());
            println!("   {:?} {} applied", h.role(), x.list.applied().len());
        }
    }

    /// States taken over so far.
    fn taken(&self) -> u64 {
        let up = self.nodes.values().filter_map(|n| n.replicas.as_ref());
        self.taken + up.map(|r| r.0.transfers.taken.load(std::sync::atomic::Ordering::Relaxed)).sum::<u64>()
    }

    /// Publishes until the leader's log no longer reaches back to where it is now, and one more round.
    async fn outgrow(&mut self) {
        let leader = self.leader_now().await;
        let from = self.nodes[&leader].list.handle().status().last;
        for _ in 0..500 {
            self.publish(20);
            env::sleep(Duration::from_millis(5)).await;
            let Some(l) = self.leader() else { continue };
            let r = self.nodes[&l].replicas.clone().expect("it leads");
            r.flush().await.expect("it flushes");
            if self.nodes[&l].list.handle().status().base > from {
                return;
            }
        }
        self.show();
        panic!("the log stays");
    }

    /// As [`Cluster::outgrow`], where the log is short enough that it does not take long.
    async fn outgrow_if_short(&mut self) {
        if self.options.retain_bytes < 1 << 20 {
            self.outgrow().await;
        }
    }

    async fn leader_now(&mut self) -> NodeId {
        for _ in 0..1000 {
            if let Some(l) = self.leader() {
                return l;
            }
            env::sleep(Duration::from_millis(10)).await;
        }
        self.show();
        panic!("nobody leads");
    }

    pub(crate) fn publish(&mut self, count: u64) {
        let Some(leader) = self.leader() else { return };
        for _ in 0..count {
            self.next += 1;
            self.nodes[&leader].list.publish(self.next);
        }
    }

    /// Lets everything through and waits until all are equal; then checks what was acknowledged.
    pub(crate) async fn settle(&mut self) {
        {
            let mut s = self.mesh.state.lock();
            s.cut.clear();
            s.loss = 0.0;
        }
        let down: Vec<NodeId> = self.nodes.iter().filter(|x| x.1.replicas.is_none()).map(|x| *x.0).collect();
        for id in down {
            self.start(id).await;
        }
        for _ in 0..1000 {
            self.publish(1);
            env::sleep(Duration::from_millis(20)).await;
            let Some(leader) = self.leader() else { continue };
            if self.nodes[&leader].list.acked().last() != Some(&self.next) {
                continue;
            }
            let all: Vec<_> = self.nodes.values().map(|x| x.list.applied()).collect();
            if all.iter().all(|a| *a == all[0]) {
                self.check(&all[0]);
                return;
            }
        }
        self.show();
        panic!("no agreement");
    }

    fn check(&mut self, applied: &[u64]) {
        for node in self.nodes.values() {
            self.acked.extend(node.list.acked());
            assert!(node.list.stopped().is_none(), "{:?}", node.list.stopped());
        }
        assert!(applied.windows(2).all(|w| w[0] < w[1]), "D-2: once and in order: {applied:?}");
        for id in &self.acked {
            assert!(applied.binary_search(id).is_ok(), "{id} was acknowledged and is gone");
        }
    }

    pub(crate) async fn close(&mut self) {
        for node in self.nodes.values_mut() {
            if let Some(r) = node.replicas.take() {
                r.close().await.expect("a healthy store flushes");
            }
        }
    }
}

#[test]
fn three_nodes_agree_and_an_idle_group_is_silent() {
    env::run(async {
        let mut c = Cluster::new(1, 3, 0).await;
        c.publish(1);
        c.settle().await;
        c.publish(50);
        c.settle().await;
        assert!(c.acked.len() >= 50);
        // Every copy of the group comes to rest: no task, and no timer of its own.
        for node in c.nodes.values() {
            let g = &node.list.handle().0;
            let mut at_rest = false;
            for _ in 0..500 {
                let idle = g.run.load(std::sync::atomic::Ordering::Acquire) == crate::group::IDLE;
                let deadline = g.inner.lock().core.deadline();
                at_rest = idle && deadline == u64::MAX;
                if at_rest {
                    break;
                }
                env::sleep(Duration::from_millis(10)).await;
            }
            assert!(at_rest, "{:?}", node.list.handle().status());
        }
        // A read on a follower sees what was acknowledged.
        let leader = c.leader().expect("there is one");
        let follower = c.nodes.iter().find(|x| *x.0 != leader).expect("there are three").1;
        let index = follower.list.handle().read_barrier().await.expect("the leader answers");
        assert!(follower.list.handle().status().applied >= index);
        c.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn leadership_goes_where_it_is_asked_to() {
    env::run(async {
        let mut c = Cluster::new(2, 3, 0).await;
        c.settle().await;
        let old = c.leader().expect("there is one");
        let to = *c.nodes.keys().find(|id| **id != old).expect("there are three");
        c.nodes[&old].list.handle().transfer(to);
        env::timeout(Duration::from_secs(10), c.nodes[&to].list.until(List::leads)).await.expect("it leads");
        c.settle().await;
        c.close().await;
    })
    .expect("a runtime starts");
}

/// D-14 while leadership goes round and nobody's support ends: a lease that was looked up for a minute ends with the word to take over.
#[test]
fn d14_never_do_two_hold_a_lease() {
    let options = || Options { grant_ns: 60_000_000_000, ..options() };
    env::run(async {
        let mut c = Cluster::with(31, 3, 0, options()).await;
        c.settle().await;
        for to in [1, 2, 3, 1, 3, 2, 1].map(n) {
            let old = c.leader_now().await;
            let held = async {
                while !c.nodes[&old].list.handle().holds_lease(env::now().0) {
                    env::sleep(Duration::from_millis(2)).await;
                }
            };
            env::timeout(Duration::from_secs(10), held).await.expect("its grants come");
            c.nodes[&old].list.handle().confirm(Duration::ZERO).await.expect("a lease needs nobody's answer");
            if old == to {
                continue;
            }
            c.nodes[&old].list.handle().transfer(to);
            let watched = async {
                while !c.nodes[&to].list.leads() {
                    let holders: Vec<NodeId> = c
                        .nodes
                        .iter()
                        .filter(|(_, x)| x.list.handle().holds_lease(env::now().0))
                        .map(|(id, _)| *id)
                        .collect();
                    assert!(holders.len() <= 1, "D-14: {holders:?} all hold a lease");
                    tokio::task::yield_now().await;
                }
            };
            env::timeout(Duration::from_secs(10), watched).await.expect("it leads");
            assert!(!c.nodes[&old].list.handle().holds_lease(env::now().0), "D-14: another one leads");
        }
        c.settle().await;
        c.close().await;
    })
    .expect("a runtime starts");
}

/// D-14: who leads and hears from nobody cannot say that it still does, before it gives up by itself too.
#[test]
fn d14_a_leader_that_is_cut_off_confirms_nothing() {
    let options = || {
        let raft = raft::Options { election_ns: 3_600_000_000_000, ..(*options().raft).clone() };
        Options { raft: Arc::new(raft), ..options() }
    };
    env::run(async {
        let mut c = Cluster::with(32, 3, 0, options()).await;
        c.settle().await;
        let leader = c.leader_now().await;
        let others: Vec<NodeId> = c.ids().into_iter().filter(|id| *id != leader).collect();
        for id in &others {
            c.mesh.state.lock().cut.extend([(leader, *id), (*id, leader)]);
        }
        let handle = c.nodes[&leader].list.handle();
        let over = async {
            while handle.holds_lease(env::now().0) {
                env::sleep(Duration::from_millis(5)).await;
            }
        };
        env::timeout(Duration::from_secs(10), over).await.expect("grants end");
        assert!(c.nodes[&leader].list.leads(), "it has not noticed yet");
        assert!(handle.confirm(Duration::from_millis(100)).await.is_err(), "D-14: it cannot know");
        c.mesh.state.lock().cut.clear();
        // By then the others may have a leader, who is to be asked instead.
        let again = async {
            while handle.confirm(Duration::from_secs(1)).await.is_err() {
                env::sleep(Duration::from_millis(5)).await;
            }
        };
        env::timeout(Duration::from_secs(30), again).await.expect("somebody answers again");
        c.settle().await;
        c.close().await;
    })
    .expect("a runtime starts");
}

/// With election timeouts of an hour: whatever waited for one would never happen here.
#[test]
fn a_new_group_is_led_at_once_and_a_transfer_waits_for_nothing() {
    let patient = || {
        let raft = raft::Options { election_ns: 3_600_000_000_000, ..(*options().raft).clone() };
        // Support outlives any hiccup of a busy machine.
        Options { raft: Arc::new(raft), grant_ns: 60_000_000_000, ..options() }
    };
    env::run(async {
        for seed in 0..6 {
            // The one that is to lead is made first, or last, or in between; each turns up when the one before is there.
            let mut c = Cluster::with(20 + seed, 3, 0, patient()).await;
            let first = n(1 + seed % 3);
            let id = GroupId(7);
            let begin = env::now();
            let mut lists = BTreeMap::new();
            for node in [n(1), n(2), n(3)] {
                let list = Arc::new(List::default());
                let new = New {
                    id,
                    memory: false,
                    options: Bytes::new(),
                    members: c.members.clone(),
                    sync: Sync::Always,
                };
                let r = c.nodes[&node].replicas.clone().expect("it is up");
                r.create_led_by(new, Some(first), list.clone()).await.expect("it is made");
                lists.insert(node, list);
            }
            env::timeout(Duration::from_secs(20), lists[&first].until(List::leads)).await.expect("it leads");
            println!("led {:?} after the first of three was made", begin.elapsed());
            let begin = env::now();
            let to = n(1 + (seed + 1) % 3);
            lists[&first].handle().transfer(to);
            env::timeout(Duration::from_secs(20), lists[&to].until(List::leads)).await.expect("it leads");
            println!("handed over in {:?}", begin.elapsed());
            lists[&to].publish(1);
            env::timeout(Duration::from_secs(20), lists[&to].until(|l| l.acked() == [1]))
                .await
                .expect("it works");
            let m = c.nodes[&to].replicas.as_ref().expect("it is up").metrics();
            assert_eq!((m.groups, m.stopped, m.pairs.len()), (2, 0, 2));
            assert!(m.pairs.iter().all(|p| p.reachable), "{m:?}");
            c.close().await;
        }
    })
    .expect("a runtime starts");
}

/// Found by `scripts/repro --cluster 46`: a server without its majority never ended.
#[test]
fn a_node_without_its_majority_closes_all_the_same() {
    env::run(async {
        let mut c = Cluster::new(4, 3, 0).await;
        c.publish(1);
        c.settle().await;
        let leader = c.leader().expect("there is one");
        let ids: Vec<NodeId> = c.nodes.keys().copied().collect();
        c.mesh.state.lock().cut = ids.iter().flat_map(|a| ids.iter().map(move |b| (*a, *b))).collect();
        c.nodes[&leader].list.publish(1_000);
        let replicas = c.nodes[&leader].replicas.clone().expect("it is up");
        let closed = env::timeout(Duration::from_secs(20), replicas.close()).await;
        closed.expect("it ends without the others").expect("a healthy store flushes");
        assert!(!c.nodes[&leader].list.acked().contains(&1_000), "nobody agreed to it");
    })
    .expect("a runtime starts");
}

#[test]
fn a_member_joins_and_another_leaves() {
    env::run(async {
        let mut c = Cluster::new(3, 3, 1).await;
        // Those who have nothing to say are not waited for.
        let newcomer = n(4);
        let rest: Vec<_> = (1..=3).map(n).collect();
        for _ in 0..500 {
            c.publish(1);
            env::sleep(Duration::from_millis(10)).await;
            if c.leader().is_some_and(|l| !c.nodes[&l].list.acked().is_empty()) {
                break;
            }
        }
        let all: Vec<_> = rest.iter().copied().chain([newcomer]).collect();
        c.reach(&all).await;
        c.publish(30);
        c.settle().await;
        assert!(c.nodes[&newcomer].list.applied().len() > 30);
        // Away with the one that leads, and with the newest one back.
        let leader = c.leader().expect("there is one");
        let rest: Vec<_> = all.iter().copied().filter(|n| *n != leader).collect();
        c.reach(&rest).await;
        c.nodes[&leader].replicas.as_ref().expect("it is up").remove(GROUP).await.expect("it goes");
        let gone = c.nodes.remove(&leader).expect("it was there");
        c.mesh.state.lock().alive.remove(&leader);
        c.publish(5);
        c.settle().await;
        // It comes back with nothing, and is somebody else.
        c.nodes.insert(leader, gone);
        let node = c.nodes.get_mut(&leader).expect("just put there");
        node.list = Arc::default();
        let replicas = node.replicas.clone().expect("it is up");
        c.mesh.state.lock().alive.insert(leader, replicas.clone());
        let new = New {
            id: GROUP,
            memory: false,
            options: Bytes::new(),
            members: Members::default(),
            sync: Sync::Always,
        };
        replicas.create(new, c.nodes[&leader].list.clone()).await.expect("it is made");
        c.reach(&all).await;
        c.publish(5);
        c.settle().await;
        assert!(c.nodes[&leader].list.applied().len() > 30);
        c.close().await;
    })
    .expect("a runtime starts");
}

/// Chaos for a while, then peace.
fn chaos(seed: u64, rounds: u64) -> usize {
    storm(seed, rounds, options()).0
}

fn storm(seed: u64, rounds: u64, options: Options) -> (usize, u64) {
    env::run(async {
        let mut c = Cluster::with(seed, 3, 0, options).await;
        for _ in 0..rounds {
            let ids: Vec<NodeId> = c.nodes.keys().copied().collect();
            let id = *c.rng.pick(&ids).expect("there are three");
            match c.rng.below(8) {
                0 => {
                    let mut s = c.mesh.state.lock();
                    s.cut = ids.iter().flat_map(|o| [(id, *o), (*o, id)]).collect();
                }
                1 => {
                    // One way only.
                    let mut s = c.mesh.state.lock();
                    s.cut = ids.iter().map(|o| (id, *o)).collect();
                }
                2 => c.mesh.state.lock().cut.clear(),
                3 => {
                    let loss = [0.0, 0.02, 0.2][c.rng.below(3) as usize];
                    let mut s = c.mesh.state.lock();
                    (s.loss, s.delay_us) = (loss, 3000);
                }
                4 => c.crash(id).await,
                5 if c.nodes[&id].replicas.is_none() => c.start(id).await,
                6 => {
                    if let Some(l) = c.leader() {
                        c.nodes[&l].list.handle().transfer(id);
                    }
                }
                _ => {}
            }
            for _ in 0..c.rng.below(12) {
                let count = c.rng.between(1, 8);
                c.publish(count);
                let pause = c.rng.below(40);
                env::sleep(Duration::from_millis(pause)).await;
            }
        }
        c.settle().await;
        let (acked, taken) = (c.acked.len(), c.taken());
        c.close().await;
        (acked, taken)
    })
    .expect("a runtime starts")
}

#[test]
fn nothing_acknowledged_is_lost_in_storms() {
    let mut acked = 0;
    for seed in 0..15 {
        if seed >= 3 && acked > 100 {
            break;
        }
        acked += chaos(seed, 25);
    }
    assert!(acked > 100, "{acked} acknowledged");
}

/// A log that does not reach far back, and states in small parts.
fn short_log() -> Options {
    Options { checkpoint_bytes: 8 << 10, retain_bytes: 12 << 10, transfer_window: 16 << 10, ..options() }
}

#[test]
fn a_member_that_was_away_for_longer_than_the_log_reaches_gets_the_state() {
    env::run(async {
        let mut c = Cluster::with(11, 3, 0, short_log()).await;
        c.publish(5);
        c.settle().await;
        let leader = c.leader_now().await;
        let away = *c.nodes.keys().find(|id| **id != leader).expect("there are three");
        c.crash(away).await;
        c.outgrow().await;
        let base = c.nodes[&leader].list.handle().status().base;
        // Parts are lost, too.
        c.mesh.state.lock().loss = 0.1;
        c.start(away).await;
        let list = c.nodes[&away].list.clone();
        env::timeout(Duration::from_secs(20), list.until(|l| l.applied().len() > 5))
            .await
            .expect("it catches up");
        assert!(c.taken() > 0, "by the state");
        assert!(list.handle().status().base >= base);
        c.settle().await;
        list.handle().store().verify().await.expect("it can be read");
        // It counts again: with another one away it makes the majority.
        let other = *c.nodes.keys().find(|id| **id != leader && **id != away).expect("there are three");
        c.crash(other).await;
        c.publish(20);
        c.settle().await;
        c.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn a_newcomer_after_checkpoints_gets_the_state() {
    env::run(async {
        let mut c = Cluster::with(12, 3, 1, short_log()).await;
        c.leader_now().await;
        c.outgrow().await;
        c.outgrow().await;
        c.reach(&[n(2), n(3), n(4)]).await;
        assert!(c.taken() > 0, "it has the state before it votes");
        assert_eq!(c.nodes[&n(4)].list.handle().status().voters, [n(2), n(3), n(4)]);
        let gone = c.nodes.remove(&n(1)).expect("it was there");
        gone.replicas.as_ref().expect("it is up").remove(GROUP).await.expect("it goes");
        c.publish(10);
        c.settle().await;
        c.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn a_member_that_is_gone_for_good_is_replaced_by_a_leader_that_never_heard_from_it() {
    env::run(async {
        let mut c = Cluster::new(31, 3, 1).await;
        c.leader_now().await;
        c.publish(20);
        let led = c.leader_now().await;
        let dead = (1..=3).map(n).find(|id| *id != led).expect("there are three");
        c.crash(dead).await;
        c.nodes.remove(&dead);
        // Whoever leads from here on does not know how far the dead one was.
        c.crash(led).await;
        c.start(led).await;
        let all: Vec<NodeId> = (1..=4).map(n).filter(|id| *id != dead).collect();
        env::timeout(Duration::from_secs(30), c.reach(&all)).await.expect("the dead one is not waited for");
        c.publish(5);
        c.settle().await;
        c.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn d12_a_member_that_forgot_is_fed_although_nothing_happens() {
    env::run(async {
        let mut c = Cluster::new(21, 3, 0).await;
        c.settle().await;
        c.publish(50);
        c.settle().await;
        let led = c.leader_now().await;
        let id = c.ids().into_iter().find(|id| *id != led).expect("there are three");
        let node = c.nodes.get_mut(&id).expect("it is one of ours");
        let replicas = node.replicas.take().expect("it is up");
        // At its next operation: what it was told lies in the journal alone, which is then cut.
        node.disk.with(|d| {
            let at = d.ops();
            d.plan(at, Planned::CrashBefore);
        });
        replicas.flush().await.ok();
        assert!(node.disk.with(|d| d.crashed()));
        c.mesh.state.lock().alive.remove(&id);
        replicas.abandon();
        node.disk.with(|d| d.power_failure());
        let journals: Vec<String> =
            node.disk.with(|d| d.files().into_iter().filter(|f| f.contains("/journal/")).collect());
        for path in &journals {
            // The group's making is in front of that.
            node.disk.with(|d| d.damage_file(path, Some(1200))).expect("it is there");
        }
        c.start(id).await;
        assert!(c.list(id).handle().status().last < c.list(led).handle().status().last);
        let all = c.list(led).applied();
        for _ in 0..1000 {
            if c.list(id).applied() == all {
                break;
            }
            env::sleep(Duration::from_millis(20)).await;
        }
        c.show();
        assert_eq!(c.list(id).applied(), all);
        c.close().await;
    })
    .expect("a runtime starts");
}

/// A member is behind the log, and while it gets the state something happens.
fn interrupted(seed: u64, what: u64) -> u64 {
    env::run(async {
        let mut c = Cluster::with(seed, 3, 0, short_log()).await;
        c.publish(5);
        c.settle().await;
        let leader = c.leader_now().await;
        let away = *c.nodes.keys().find(|id| **id != leader).expect("there are three");
        c.crash(away).await;
        c.outgrow().await;
        c.outgrow().await;
        (c.mesh.state.lock().delay_us, c.mesh.state.lock().loss) = (2000, 0.05);
        c.start(away).await;
        let list = c.nodes[&away].list.clone();
        for _ in 0..2000 {
            if list.handle().status().installing || list.applied().len() > 5 {
                break;
            }
            env::sleep(Duration::from_millis(1)).await;
        }
        let pause = c.rng.below(30);
        env::sleep(Duration::from_millis(pause)).await;
        match what {
            0 => c.crash(away).await,
            1 => c.crash(leader).await,
            2 => {
                let other =
                    *c.nodes.keys().find(|id| **id != leader && **id != away).expect("there are three");
                c.nodes[&leader].list.handle().transfer(other);
            }
            _ => {
                // The state that is under way is not the newest any more, and what it is read from is rewritten.
                c.publish(100);
                env::sleep(Duration::from_millis(10)).await;
                for node in c.nodes.values() {
                    if let Some(r) = &node.replicas {
                        r.flush().await.expect("it flushes");
                    }
                }
            }
        }
        c.publish(5);
        c.settle().await;
        for node in c.nodes.values() {
            node.list.handle().store().verify().await.expect("it can be read");
        }
        let taken = c.taken();
        c.close().await;
        taken
    })
    .expect("a runtime starts")
}

#[test]
fn an_installation_that_is_cut_off_at_either_end_begins_again() {
    let taken: u64 = (0..8).map(|seed| interrupted(seed, seed % 4)).sum();
    assert!(taken >= 6, "{taken} states were taken over");
}

#[test]
fn nothing_acknowledged_is_lost_in_storms_with_a_short_log() {
    let (mut acked, mut taken) = (0, 0);
    // A busy machine needs more storms for as much to happen.
    for seed in 100..115 {
        if seed >= 103 && acked > 100 && taken > 0 {
            break;
        }
        let (a, t) = storm(seed, 30, short_log());
        (acked, taken) = (acked + a, taken + t);
    }
    assert!(acked > 100 && taken > 0, "{acked} acknowledged, {taken} states taken over");
}

/// Bodies in memory, on three nodes: each restarts in its turn, when the one before it counts again.
fn rolling(seed: u64, options: Options) -> u64 {
    env::run(async {
        let mut c = Cluster::of(seed, (3, 0), options, true).await;
        c.publish(5);
        c.settle().await;
        for turn in 0..20u64 {
            // A busy machine needs more turns for as much to happen.
            if turn >= 4 && c.acked.len() > 100 {
                break;
            }
            let id = n(1 + (seed + turn) % 3);
            let before = c.leader_now().await;
            c.crash(id).await;
            for _ in 0..20 {
                c.publish(5);
                env::sleep(Duration::from_millis(3)).await;
            }
            if turn % 2 == 0 && before != id {
                c.outgrow_if_short().await;
            }
            c.start(id).await;
            assert!(c.nodes[&id].list.handle().status().forgot);
            c.settle().await;
            // It was taken in, and counts.
            let mut healed = false;
            for _ in 0..500 {
                let leader = c.leader_now().await;
                let s = c.nodes[&leader].list.handle().status();
                healed = s.voters.len() == 3 && s.learners.is_empty() && !s.changing;
                if healed {
                    break;
                }
                env::sleep(Duration::from_millis(10)).await;
            }
            assert!(healed, "turn {turn}");
            assert!(!c.nodes[&id].list.handle().status().forgot);
        }
        c.publish(5);
        c.settle().await;
        assert!(c.acked.len() > 100, "{}", c.acked.len());
        let taken = c.taken();
        c.close().await;
        taken
    })
    .expect("a runtime starts")
}

#[test]
fn d9_memory_groups_outlive_the_restart_of_each_member() {
    rolling(31, options());
    let taken: u64 = (32..35).map(|seed| rolling(seed, short_log())).sum();
    assert!(taken > 0, "states in memory were taken over");
}

/// A node that hears of another one before it has any group must not forget to send heartbeats of its own.
#[test]
fn d7_heartbeats_begin_whoever_speaks_first() {
    env::run(async {
        let mut c = Cluster::new(51, 0, 0).await;
        c.members = Members::of([n(1), n(2)]);
        for id in 1..=2 {
            let mut options = DiskOptions { sector: 512, ..DiskOptions::default() };
            options.rates.clear();
            let disk = SimHandle::new(SimDisk::new(options, Rng::derived(51, &format!("disk {id}"))), true);
            c.nodes.insert(n(id), Node { disk, asked: 0, replicas: None, list: Arc::default() });
        }
        c.start(n(1)).await;
        let store_options = store::Options { journal_budget: 4 << 20, ..small_store() };
        let disk = c.nodes[&n(2)].disk.clone();
        let store = Store::open(Disk::Sim(disk), "/s", store_options).await.expect("it opens");
        let two = Replicas::new(store, n(2), options());
        two.spawn();
        two.join(Arc::new(Port(c.mesh.clone(), n(2))));
        c.mesh.state.lock().alive.insert(n(2), two.clone());
        let heard = |r: &Replicas, of: NodeId| {
            r.metrics().pairs.iter().any(|p| p.node == of && p.round_trip_ns.is_some())
        };
        for _ in 0..1000 {
            if heard(&two, n(1)) {
                break;
            }
            env::sleep(Duration::from_millis(5)).await;
        }
        assert!(heard(&two, n(1)), "its heartbeats are answered");
        two.close().await.expect("it closes");
        c.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn a_disk_that_does_not_answer_leads_nothing() {
    env::run(async {
        let mut c = Cluster::with(41, 3, 0, Options { stuck_ns: 100_000_000, ..options() }).await;
        c.publish(5);
        c.settle().await;
        let leader = c.leader_now().await;
        let term = c.nodes[&leader].list.handle().status().term;
        c.nodes[&leader].disk.freeze(true);
        // Something has to be written for anybody to notice.
        c.publish(1);
        let rest: Vec<NodeId> = c.nodes.keys().copied().filter(|id| *id != leader).collect();
        let mut moved = false;
        for _ in 0..1000 {
            moved = rest.iter().any(|id| c.nodes[id].list.leads());
            if moved {
                break;
            }
            env::sleep(Duration::from_millis(10)).await;
        }
        assert!(moved, "another one leads");
        assert!(!c.nodes[&leader].list.leads());
        for id in &rest {
            assert!(c.nodes[id].list.handle().status().term > term);
        }
        c.nodes[&leader].disk.freeze(false);
        c.publish(5);
        c.settle().await;
        c.close().await;
    })
    .expect("a runtime starts");
}

/// A node ends that led many groups: all are led again, so many at a time, and nearly all by the first that asks for votes.
#[test]
fn what_a_node_led_is_led_again_group_by_group() {
    const GROUPS: u64 = 60;
    env::run(async {
        // Times that a busy machine keeps: nobody campaigns because it is late.
        let raft = raft::Options { election_ns: 2_000_000_000, ..(*options().raft).clone() };
        let patient =
            Options { raft: Arc::new(raft), grant_ns: 3_000_000_000, beat_ns: 200_000_000, ..options() };
        let mut c = Cluster::with(40, 3, 0, Options { elections_at_once: 4, ..patient }).await;
        let mut lists: BTreeMap<NodeId, Vec<Arc<List>>> = BTreeMap::new();
        for g in 0..GROUPS {
            for id in [n(1), n(2), n(3)] {
                let list = Arc::new(List::default());
                let (members, sync) = (c.members.clone(), Sync::Always);
                let new = New { id: GroupId(100 + g), memory: false, options: Bytes::new(), members, sync };
                let r = c.nodes[&id].replicas.clone().expect("it is up");
                r.create_led_by(new, Some(n(1)), list.clone()).await.expect("it is made");
                lists.entry(id).or_default().push(list);
            }
        }
        for list in &lists[&n(1)] {
            env::timeout(Duration::from_secs(30), list.until(List::leads)).await.expect("it leads");
        }
        let terms: Vec<u64> = lists[&n(2)].iter().map(|l| l.handle().status().term.0).collect();
        c.crash(n(1)).await;
        let (mut most, mut by) = (0, BTreeMap::new());
        for _ in 0..12_000 {
            let campaigns = |l: &Arc<List>| {
                let role = l.handle().status().role;
                matches!(role, raft::RoleName::PreCandidate | raft::RoleName::Candidate)
            };
            most = most.max(lists[&n(2)].iter().filter(|l| campaigns(l)).count());
            by = [n(2), n(3)].map(|id| (id, lists[&id].iter().filter(|l| l.leads()).count())).into();
            if by.values().sum::<usize>() == GROUPS as usize {
                break;
            }
            env::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(by.values().sum::<usize>(), GROUPS as usize, "all are led again: {by:?}");
        // Half each, but for what a busy machine makes late.
        assert!(by.values().all(|led| *led > GROUPS as usize / 10), "each does its part: {by:?}");
        // Without a limit it would be half of them. One that has come to something may still look like a campaign.
        assert!(most <= GROUPS as usize / 4, "{most} at a time");
        let again =
            lists[&n(2)].iter().zip(terms).filter(|(l, t)| l.handle().status().term.0 > t + 1).count();
        assert!(again < GROUPS as usize / 2, "{again} groups were asked for votes more than once");
        c.close().await;
    })
    .expect("a runtime starts");
}
