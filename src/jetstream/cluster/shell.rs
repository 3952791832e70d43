//! What this node knows of the others, and what comes from them.
//!
//! Owns the table of nodes, what each said of itself, and the way of everything that a link brings. The work that follows from it is the keeper's.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::*},
    },
};

use bytes::Bytes;
use env::watch;
use parking_lot::{Mutex, RwLock};
use replica::{NodeId, Peers};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{
    Kind, Setup, Wires,
    calls::{Call, Calls, Forward},
    formation::{Formation, Saved, Standing},
};
use crate::{JetStream, meta};

/// The version of what nodes say of themselves, and the newest format of everything that this node reads.
pub const FORMAT: u32 = 7;
/// From that format on a node knows of streams that begin anew, and of publishes that are given on.
pub const RENEWS: u32 = 2;
/// From that format on a node knows of replicas that their group has left behind.
pub const SPENDS: u32 = 3;
/// From that format on a node gives messages that are damaged elsewhere.
pub const HEALS: u32 = 4;
/// From that format on a node knows of notes of consumers in the meta group.
pub const NOTES: u32 = 5;
/// From that format on a node knows of such notes for streams in files.
pub const FILES: u32 = 6;

/// From that format on a node makes another life of the meta group's replica when it hears that the group has left the one that it has behind.
pub const PARTS: u32 = 7;

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The newest format that it reads.
    pub format: u32,
    /// The server's name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// Where it is in the formation.
    pub standing: Standing,
    /// The server's tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Bytes for memory streams.
    #[serde(default)]
    pub memory_max: u64,
    /// Bytes for file streams.
    #[serde(default)]
    pub storage_max: u64,
    /// The node that hears this was removed from the cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expels: bool,
    /// It is about to go, and is to get nothing new.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaves: bool,
    /// The life of the meta group's replica that the node which hears this has, or had: the group has left it behind, by a change that is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<u32>,
}

impl Hello {
    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("a hello is plain text and numbers").into()
    }
}

/// Another node.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The server's name.
    pub name: String,
    /// There is a link.
    pub up: bool,
    /// When that last changed.
    pub since: u64,
    /// What it said last.
    pub hello: Option<Hello>,
}

/// See the module.
pub struct Cluster {
    pub wires: Arc<dyn Wires>,
    pub name: String,
    pub tags: Vec<String>,
    pub unique_tag: String,
    pub calls: Calls,
    pub formation: Mutex<Formation>,
    peers: RwLock<BTreeMap<NodeId, Peer>>,
    /// Names the meta group; 0 while this node is in none.
    genesis: AtomicU64,
    /// Who led a group when last heard, for groups that are not here.
    pub hints: Mutex<BTreeMap<u64, NodeId>>,
    /// Nodes that are to get nothing new until they come again.
    pub evacuated: Mutex<std::collections::BTreeSet<NodeId>>,
    /// This node was removed from the cluster, as another one says.
    pub expelled: std::sync::atomic::AtomicBool,
    /// Lives of the meta group's replica here that are below this one were left behind.
    pub spent_below: AtomicU64,
    /// There is work for the keeper.
    pub stir: Notify,
    /// Counts what may make a waiting request go on: nodes come and go, leaders too.
    pub changed: watch::Sender<u64>,
    /// Groups that the keeper is to look at.
    pub due: Mutex<std::collections::BTreeSet<u64>>,
}

impl Cluster {
    /// `genesis` names the meta group that this node is in already.
    pub fn new(setup: Setup, me: NodeId, saved: Saved, genesis: Option<u64>) -> Arc<Cluster> {
        let formation = Formation::new(me, setup.others, saved, genesis, env::now().0);
        let genesis = genesis.unwrap_or(0);
        Arc::new(Cluster {
            wires: setup.wires,
            name: setup.name,
            tags: setup.tags,
            unique_tag: setup.unique_tag,
            calls: Calls::default(),
            formation: Mutex::new(formation),
            peers: RwLock::default(),
            genesis: AtomicU64::new(genesis),
            hints: Mutex::default(),
            evacuated: Mutex::default(),
            expelled: std::sync::atomic::AtomicBool::new(false),
            spent_below: AtomicU64::new(0),
            stir: Notify::new(),
            changed: watch::channel(0).0,
            due: Mutex::default(),
        })
    }

    /// This node is in the group now.
    pub fn joined(&self, genesis: u64) {
        self.genesis.store(genesis, Release);
        self.formation.lock().made(genesis);
        self.touch();
    }
    /// The group that this node is in.
    pub fn genesis(&self) -> Option<u64> {
        Some(self.genesis.load(Acquire)).filter(|g| *g != 0)
    }
    /// Whether a node is in the same group, as far as it has said.
    pub fn is_kin(&self, node: NodeId) -> bool {
        let mine = self.genesis.load(Acquire);
        let of = |p: &Peer| p.hello.as_ref().and_then(|h| h.standing.member);
        mine != 0 && self.peers.read().get(&node).and_then(of) == Some(mine)
    }
    /// Whether there is a link to a node.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.peers.read().get(&node).is_some_and(|p| p.up)
    }
    /// The nodes that can be reached.
    pub fn up(&self) -> Vec<NodeId> {
        self.peers.read().iter().filter(|(_, p)| p.up).map(|(n, _)| *n).collect()
    }
    /// What is known of the others.
    pub fn peers(&self) -> BTreeMap<NodeId, Peer> {
        self.peers.read().clone()
    }
    /// What is known of one.
    pub fn peer(&self, node: NodeId) -> Option<Peer> {
        self.peers.read().get(&node).cloned()
    }
    /// Something changed that the keeper and those who wait should look at.
    pub fn touch(&self) {
        self.tell();
        self.stir.notify_one();
    }
    /// Something changed that is of use only to those who wait.
    pub fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }
    /// The keeper is to look at a group.
    pub fn look_at(&self, group: u64) {
        self.due.lock().insert(group);
        self.touch();
    }
}

/// Consensus over the links: only between members of one meta group, since groups of another have the same numbers.
pub struct Port(pub Arc<Cluster>);

impl Peers for Port {
    fn send(&self, to: NodeId, frame: Bytes) {
        if self.0.is_kin(to) {
            self.0.wires.send(to, Kind::Raft, frame);
        }
    }
}

impl JetStream {
    /// This node among the others. It never changes as long as the directory is there.
    pub fn node_id(&self) -> NodeId {
        self.me
    }
    /// Whether it is one of several.
    pub fn is_clustered(&self) -> bool {
        self.cluster.is_some()
    }

    /// There is a link to a node now. After [`JetStream::peer_down`] of a link before.
    pub fn peer_up(&self, node: NodeId, name: &str) {
        let Some(c) = &self.cluster else { return };
        {
            let mut peers = c.peers.write();
            let p = peers.entry(node).or_default();
            (p.name, p.up, p.since) = (name.to_owned(), true, env::now().0);
        }
        c.evacuated.lock().remove(&node);
        c.wires.send(node, Kind::Hello, self.hello(c));
        c.touch();
    }

    /// The link to a node is no more.
    pub fn peer_down(&self, node: NodeId) {
        let Some(c) = &self.cluster else { return };
        {
            let mut peers = c.peers.write();
            let Some(p) = peers.get_mut(&node) else { return };
            (p.up, p.since) = (false, env::now().0);
        }
        c.calls.lost(node);
        c.formation.lock().lost(node);
        self.replicas.link_broken(node);
        c.touch();
    }

    /// A body came from a node, over the link that was told with [`JetStream::peer_up`]. Bodies that cannot be read are dropped.
    pub fn received(self: &Arc<JetStream>, from: NodeId, kind: Kind, body: Bytes) {
        let Some(c) = &self.cluster else { return };
        match kind {
            Kind::Raft => {
                if c.is_kin(from) {
                    self.replicas.receive(from, body);
                }
            }
            Kind::Hello => self.heard(c, from, &body),
            Kind::Answer => c.calls.answered(from, &body),
            Kind::Call => {
                // Who is overloaded says nothing: the caller's patience ends.
                let (Some((id, call)), Some(place)) = (Call::decode(&body), self.place()) else { return };
                let (me, wires) = (self.clone(), c.wires.clone());
                env::spawn(async move {
                    let reply = me.serve_call(from, call).await;
                    wires.send(from, Kind::Answer, reply.encode(id));
                    drop(place);
                });
            }
            Kind::Forward => {
                let Some(f) = Forward::decode(&body) else { return };
                let Ok(account) = str::from_utf8(f.account) else { return };
                let account = self.broker.account_or_new(account);
                self.assets(&account).forwarded(self, from, &f);
            }
        }
    }

    fn heard(&self, c: &Cluster, from: NodeId, body: &[u8]) {
        let Ok(mut hello) = serde_json::from_slice::<Hello>(body) else { return };
        if hello.cluster != c.name {
            return;
        }
        let same = hello.standing.member.is_some() && hello.standing.member == c.genesis();
        if std::mem::take(&mut hello.expels) && same && !c.expelled.swap(true, AcqRel) {
            let text = "JetStream: this server was removed from the cluster; it can come back with an empty store directory only";
            self.host.log("ERR", text);
            self.close_desks();
        }
        if let Some(life) = hello.spent.take().filter(|_| same) {
            c.spent_below.fetch_max(u64::from(life) + 1, AcqRel);
            c.touch();
        }
        // It may have been away when it was removed.
        if same && self.meta.read(|s| s.is_removed(from)) {
            let expelling = Hello { expels: true, ..self.own_hello(c) };
            c.wires.send(from, Kind::Hello, expelling.encode());
        }
        let other = {
            let mut peers = c.peers.write();
            let p = peers.entry(from).or_default();
            if p.hello.as_ref() == Some(&hello) {
                return;
            }
            let before = p.hello.replace(hello.clone()).and_then(|h| h.standing.member);
            hello.standing.member.zip(c.genesis()).filter(|(a, b)| a != b && before != Some(*a))
        };
        if other.is_some() {
            let text = format!(
                "JetStream: server {:?} belongs to another JetStream cluster of the same name; it is left alone",
                hello.name
            );
            self.host.log("ERR", &text);
        }
        c.formation.lock().saw(from, hello.standing);
        c.touch();
    }

    /// What this node says of itself now.
    pub(crate) fn hello(&self, c: &Cluster) -> Bytes {
        self.own_hello(c).encode()
    }
    /// Tells a node that the meta group has left its replica behind.
    pub(crate) fn say_spent(&self, c: &Cluster, replica: NodeId) {
        let hello = Hello { spent: Some(replica.incarnation), ..self.own_hello(c) };
        c.wires.send(NodeId::new(replica.id, 0), Kind::Hello, hello.encode());
    }
    fn own_hello(&self, c: &Cluster) -> Hello {
        Hello {
            format: FORMAT,
            name: self.host.name(),
            cluster: c.name.clone(),
            standing: c.formation.lock().standing(self.meta.leader(self.me).is_some()),
            tags: c.tags.clone(),
            memory_max: self.tunable().memory_max,
            storage_max: self.tunable().storage_max,
            expels: false,
            leaves: self.leaves(self.me),
            spent: None,
        }
    }

    /// This node as the meta group lists it.
    pub(crate) fn record(&self, c: &Cluster) -> meta::Node {
        meta::Node {
            id: self.me,
            name: self.host.name().into(),
            tags: c.tags.clone(),
            memory_max: self.tunable().memory_max,
            storage_max: self.tunable().storage_max,
            format: FORMAT,
        }
    }
    /// Whether a node is this one, or can be reached.
    pub(crate) fn is_here(&self, node: NodeId) -> bool {
        node == self.me || self.cluster.as_ref().is_some_and(|c| c.is_up(node))
    }
    /// A server's name, as far as it is known.
    pub(crate) fn name_of(&self, node: NodeId) -> String {
        if node == self.me {
            return self.host.name();
        }
        let listed = self.meta.read(|s| s.nodes().get(&node).map(|n| n.name.to_string()));
        let said = || self.cluster.as_ref().and_then(|c| c.peer(node)).map(|p| p.name);
        listed.or_else(said).unwrap_or_else(|| super::text_of(node))
    }
}
