//! The links to other Fulmar nodes, between the engine that speaks over them and `links::peer`, which keeps them.
//!
//! Owns the choice of lanes. Knows no frame beyond its kind and its urgency.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use jetstream::cluster::{Kind, Lane as Want, Wires};
use links::peer::{Hub, HubOptions, Lane, Node, PeerHooks, PeerLimits, PeerStats};
use parking_lot::RwLock;
use replica::{NodeId, Urgency, urgency};

use crate::Server;

/// What takes what the links bring: the engine. Calls are short, hold no lock, and come in the order in which `links::peer` says.
pub trait Receiver: Send + Sync + 'static {
    /// There is a link with a node.
    fn peer_up(&self, node: NodeId, name: &str);
    /// It is no more.
    fn peer_down(&self, node: NodeId);
    /// A body came over it.
    fn received(&self, from: NodeId, kind: Kind, body: Bytes);
}

/// The engine's way to the links: it may send before there are any, and is told that nothing was sent.
#[derive(Default)]
pub struct Port {
    hub: RwLock<Option<Arc<Hub>>>,
}

struct Hooks(Arc<dyn Receiver>);

fn node_id(n: Node) -> NodeId {
    NodeId::new(n.0, 0)
}

impl PeerHooks for Hooks {
    fn up(&self, node: Node, name: &str, _version: u32) {
        self.0.peer_up(node_id(node), name);
    }
    fn down(&self, node: Node) {
        self.0.peer_down(node_id(node));
    }
    fn frame(&self, node: Node, kind: u8, body: Bytes) {
        // A kind of a later version is one that this version's ends do without.
        if let Some(kind) = Kind::of(kind) {
            self.0.received(node_id(node), kind, body);
        }
    }
}

impl Wires for Port {
    fn send(&self, to: NodeId, kind: Kind, body: Bytes) -> bool {
        let lane = match (kind.lane(), kind) {
            (_, Kind::Raft) => match urgency(&body) {
                Urgency::Beat => Lane::Beat,
                Urgency::Message => Lane::Consensus,
                Urgency::Bulk => Lane::Bulk,
            },
            (Want::Consensus, _) => Lane::Consensus,
            (Want::Calls, _) => Lane::Call,
            (Want::Bulk, _) => Lane::Bulk,
        };
        let hub = self.hub.read();
        hub.as_ref().is_some_and(|h| to.incarnation == 0 && h.send(Node(to.id), lane, kind as u8, body))
    }
    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mesh = self.hub.read().as_ref().map(|h| h.mesh().clone());
        Box::pin(async move {
            if let Some(m) = mesh {
                m.settled().await;
            }
        })
    }
}

impl Port {
    /// This node, once it takes links.
    pub fn node(&self) -> Option<Node> {
        self.hub.read().as_ref().map(|h| h.node())
    }
    /// All links, by node.
    pub fn links(&self) -> Vec<PeerStats> {
        self.hub.read().as_ref().map(|h| h.links()).unwrap_or_default()
    }
    /// Ends all links.
    pub fn stop(&self) {
        let hub = self.hub.write().take();
        if let Some(h) = hub {
            h.stop();
        }
    }
}

/// Begins to take and to open links as `node`, and tells the other members. Once; outside of clusters it does nothing.
pub fn start(server: &Arc<Server>, node: NodeId, receiver: Arc<dyn Receiver>) {
    let Some(mesh) = server.cluster.mesh.clone() else { return };
    let limits = PeerLimits::default();
    let hooks = Arc::new(Hooks(receiver));
    let hub = Hub::start(HubOptions { mesh, node: Node(node.id), hooks, limits });
    *server.cluster.peers.hub.write() = Some(hub);
    server.log.info(format_args!("Peer links: this is node {}", Node(node.id)));
    // Before it listens there is nobody to tell, and what it listens on tells the rest.
    if server.bound.lock().cluster.is_some()
        && let Err(e) = super::apply(server, &server.options())
    {
        server.log.error(format_args!("Peer links: {e}"));
    }
}
