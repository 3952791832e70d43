//! Which link there is with whom, and who opens one.
//!
//! All decisions are made under one lock and without waiting; tasks and connections only ask. The lock is never held during a hook.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    time::Duration,
};

use bytes::Bytes;
use env::{Rng, watch};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use wire::peer::{Hello, VERSION, VERSION_MIN, hex, unhex};

use super::{
    Lane, Node, PeerHooks, PeerLimits, PeerStats,
    greet::{self, Failed},
    judge::Case,
    link::{Begin, Link},
};
use crate::route::{Member, Mesh, RouteUrl};

/// Nodes that are remembered.
const NODES_MAX: usize = 4096;
/// Bytes that the system keeps of what a link has written: what is there cannot be passed by what is urgent.
pub(super) const SEND_BUFFER_BYTES: usize = 512 << 10;

/// What a hub begins with.
pub struct HubOptions {
    /// Who the other members are, and how they are spoken to.
    pub mesh: Arc<Mesh>,
    /// This node.
    pub node: Node,
    /// Who is told.
    pub hooks: Arc<dyn PeerHooks>,
    /// Limits and times.
    pub limits: PeerLimits,
}

/// This node's links.
pub struct Hub {
    pub(super) mesh: Arc<Mesh>,
    pub(super) me: Node,
    life: u64,
    pub(super) hooks: Arc<dyn PeerHooks>,
    pub(super) limits: PeerLimits,
    pairs: RwLock<BTreeMap<Node, Pair>>,
    /// Links, or members, have changed.
    pub(super) changed: Notify,
    rng: Mutex<Rng>,
    stopping: AtomicBool,
}

/// This node and one other.
#[derive(Default)]
struct Pair {
    live: Option<Arc<Link>>,
    /// The end of the last link, which may be the live one.
    last: Option<watch::Receiver<bool>>,
    /// Links so far.
    links: u64,
    /// A hello of ours is out.
    asked: bool,
    /// A task sees to it that there is a link.
    tended: bool,
}

/// A hello that came.
pub(super) struct Offer<'a> {
    pub life: u64,
    pub links: u64,
    pub name: &'a str,
}

/// Our hello is out; dropped when its answer came or will not come.
pub(super) struct Asked {
    hub: Arc<Hub>,
    node: Node,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(p) = self.hub.pairs.write().get_mut(&self.node) {
            p.asked = false;
        }
    }
}

/// A link that was made, and the end of the one before.
type Taken = (Arc<Link>, Option<watch::Receiver<bool>>);

impl Hub {
    /// Its mesh.
    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }
    /// Makes the hub of a mesh, which takes links from now on, and begins to open them.
    pub fn start(o: HubOptions) -> Arc<Hub> {
        let mut rng = env::rng("peer links");
        let hub = Arc::new(Hub {
            mesh: o.mesh,
            me: o.node,
            life: rng.next_u64(),
            hooks: o.hooks,
            limits: o.limits,
            pairs: RwLock::default(),
            changed: Notify::new(),
            rng: Mutex::new(rng),
            stopping: AtomicBool::new(false),
        });
        hub.mesh.set_peers(Some(hub.clone()));
        env::spawn(hub.clone().follow());
        hub
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> Node {
        self.me
    }

    /// Puts a frame into a lane of the link with a node. False if there is none, or no room: the frame is dropped. Never waits, and never
    /// calls the hooks.
    pub fn send(&self, to: Node, lane: Lane, kind: u8, body: Bytes) -> bool {
        if body.len() > self.limits.frame_bytes_max {
            return false;
        }
        let pairs = self.pairs.read();
        pairs.get(&to).and_then(|p| p.live.as_ref()).is_some_and(|l| l.send(lane, kind, body))
    }

    /// Whether there is a link with a node.
    #[must_use]
    pub fn is_up(&self, node: Node) -> bool {
        self.pairs.read().get(&node).is_some_and(|p| p.live.is_some())
    }

    /// All links, by node.
    #[must_use]
    pub fn links(&self) -> Vec<PeerStats> {
        self.pairs.read().values().filter_map(|p| p.live.as_ref()).map(|l| l.stats()).collect()
    }

    /// Closes the link with a node, if there is one; another will be opened.
    pub fn cut(&self, node: Node, reason: &str) {
        if let Some(l) = self.pairs.read().get(&node).and_then(|p| p.live.as_ref()) {
            l.close(reason);
        }
    }

    /// Ends the links that others have opened, but for servers of the configuration: they have to ask again whether they may.
    pub(crate) fn part_from_who_came(&self) {
        for p in self.pairs.read().values() {
            let came = |l: &&Arc<Link>| !l.live.by_us && !self.mesh.is_configured_node(&hex(l.node.0));
            if let Some(l) = p.live.as_ref().filter(came) {
                l.close(super::greet::RELOADED);
            }
        }
    }
    /// Ends all links and opens no more.
    pub fn stop(&self) {
        self.stopping.store(true, Release);
        self.mesh.set_peers(None);
        for p in self.pairs.read().values() {
            if let Some(l) = &p.live {
                l.close("the server ends");
            }
        }
        self.changed.notify_waiters();
    }

    pub(super) fn log(&self, level: &'static str, text: &str) {
        self.mesh.hooks.log(level, text);
    }

    /// What this node says of itself.
    pub(super) fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            version_min: VERSION_MIN,
            node: hex(self.me.0),
            name: self.mesh.server_name.clone(),
            server_id: self.mesh.id.clone(),
            cluster: self.mesh.name(),
            life: hex(self.life),
            ..Hello::default()
        }
    }

    pub(super) fn links_with(&self, node: Node) -> u64 {
        self.pairs.read().get(&node).map_or(0, |p| p.links)
    }

    /// Notes that a hello of ours goes out. `None` if there is a link, or another hello.
    pub(super) fn ask(self: &Arc<Hub>, node: Node) -> Option<Asked> {
        let mut pairs = self.pairs.write();
        let p = pairs.entry(node).or_default();
        if p.live.is_some() || p.asked || self.stopping.load(Acquire) {
            return None;
        }
        p.asked = true;
        Some(Asked { hub: self.clone(), node })
    }

    /// A hello came: takes it, or says that there is a better link (N-1).
    ///
    /// # Errors
    /// A reason to refuse it that the operator should know.
    pub(super) fn take(
        &self,
        node: Node,
        offer: &Offer<'_>,
        begin: impl FnOnce(u64) -> Begin,
    ) -> Result<Option<Taken>, String> {
        let mut pairs = self.pairs.write();
        if self.stopping.load(Acquire) {
            return Err("the server ends".to_owned());
        }
        if pairs.len() >= NODES_MAX && !pairs.contains_key(&node) {
            return Err("too many nodes".to_owned());
        }
        let p = pairs.entry(node).or_default();
        if let Some(live) = p.live.as_ref().filter(|l| l.name != offer.name) {
            return Err(format!(
                "node id {node} belongs to server {:?}, to which there is a link",
                live.name
            ));
        }
        let case = Case {
            they_are_less: node < self.me,
            we_have_asked: p.asked,
            live: p.live.as_ref().map(|l| l.live),
            life: offer.life,
            links: offer.links,
        };
        Ok(case.is_taken().then(|| p.replace(begin, &self.limits)))
    }

    /// A hello of ours was answered: the link, unless another came meanwhile (N-1).
    pub(super) fn taken(&self, node: Node, begin: impl FnOnce(u64) -> Begin) -> Option<Taken> {
        let mut pairs = self.pairs.write();
        let p = pairs.entry(node).or_default();
        if p.live.is_some() || self.stopping.load(Acquire) {
            return None;
        }
        Some(p.replace(begin, &self.limits))
    }

    /// A link has ended.
    pub(super) fn forget(&self, link: &Arc<Link>) {
        if let Some(p) = self.pairs.write().get_mut(&link.node)
            && p.live.as_ref().is_some_and(|l| Arc::ptr_eq(l, link))
        {
            p.live = None;
        }
    }

    /// Sees to it that each member that is a Fulmar node has a task that tends the link with it.
    async fn follow(self: Arc<Hub>) {
        let mut complained = false;
        loop {
            let changed = self.mesh.changed.notified();
            let stop = self.changed.notified();
            let (mut changed, mut stop) = (std::pin::pin!(changed), std::pin::pin!(stop));
            changed.as_mut().enable();
            stop.as_mut().enable();
            if self.stopping.load(Acquire) {
                return;
            }
            for m in self.mesh.members() {
                let Some(node) = node_of(&m) else { continue };
                if node == self.me {
                    if !std::mem::replace(&mut complained, true) {
                        let text = format!("Server {} has this server's node id {node}", m.name);
                        self.log("ERR", &text);
                    }
                    continue;
                }
                if self.tend(node) {
                    let hub = self.clone();
                    self.mesh.next_worker().spawn(hub.keep(node));
                }
            }
            env::select! {
                _ = changed => {}
                _ = stop => {}
            }
        }
    }

    /// True if nobody tended the link with a node so far.
    fn tend(&self, node: Node) -> bool {
        if self.pairs.read().get(&node).is_some_and(|p| p.tended) {
            return false;
        }
        let mut pairs = self.pairs.write();
        if pairs.len() >= NODES_MAX && !pairs.contains_key(&node) {
            return false;
        }
        !std::mem::replace(&mut pairs.entry(node).or_default().tended, true)
    }

    fn member(&self, node: Node) -> Option<Member> {
        self.mesh.members().into_iter().find(|m| node_of(m) == Some(node))
    }

    /// Opens a link whenever there is none, as long as the node is a member.
    async fn keep(self: Arc<Hub>, node: Node) {
        let mut failures = 0u32;
        loop {
            let links = self.changed.notified();
            let members = self.mesh.changed.notified();
            let (mut links, mut members) = (std::pin::pin!(links), std::pin::pin!(members));
            links.as_mut().enable();
            members.as_mut().enable();
            if self.stopping.load(Acquire) {
                return;
            }
            let Some(member) = self.member(node) else {
                if let Some(p) = self.pairs.write().get_mut(&node) {
                    p.tended = false;
                }
                // It may have come back just after we saw that it was gone.
                if self.member(node).is_none() || !self.tend(node) {
                    return;
                }
                failures = 0;
                continue;
            };
            if self.is_up(node) {
                failures = 0;
                env::select! {
                    _ = links => {}
                    _ = members => {}
                }
                continue;
            }
            // The lesser id opens the link; the greater only if that does not work.
            let wait = match failures {
                0 if self.me < node => Duration::ZERO,
                0 => self.limits.yield_for,
                n => (self.limits.retry_min * (1 << n.min(10))).min(self.limits.retry_max),
            };
            if !wait.is_zero() {
                let jitter = self.rng.lock().below(u64::try_from(wait.as_nanos() / 2).unwrap_or(0) + 1);
                self.pause(wait + Duration::from_nanos(jitter)).await;
                if self.is_up(node) || self.stopping.load(Acquire) {
                    continue;
                }
            }
            let urls = self.addresses(&member);
            let Some(url) = urls.get(failures as usize % urls.len().max(1)) else {
                failures += 1;
                continue;
            };
            match greet::open(&self, node, url).await {
                Ok(task) => {
                    failures = 0;
                    task.run().await;
                }
                Err(e) => {
                    failures = failures.saturating_add(1);
                    self.report(&member, url, failures, &e);
                }
            }
        }
    }

    async fn pause(&self, d: Duration) {
        let until = env::now() + d;
        while env::now() < until && !self.stopping.load(Acquire) {
            env::select! {
                _ = env::sleep_until(until) => {}
                _ = self.changed.notified() => {}
            }
        }
    }

    /// Where a member is reached: where our route to it leads, and where it says that it listens.
    fn addresses(&self, m: &Member) -> Vec<RouteUrl> {
        let credentials = self.mesh.settings().credentials.clone();
        let dialed = m.routes.values().filter_map(|r| r.url.clone());
        let said = m.routes.values().find_map(|r| RouteUrl::of_member(&m.info, r.peer));
        let said = said.map(|u| RouteUrl { credentials, ..u });
        let mut all: Vec<RouteUrl> = Vec::new();
        for u in dialed.chain(said) {
            if !all.iter().any(|o| o.is_same_place(&u)) {
                all.push(u);
            }
        }
        all
    }

    fn report(&self, m: &Member, url: &RouteUrl, failures: u32, e: &Failed) {
        let every = self.mesh.settings().reconnect_error_reports.max(1);
        let told = failures == 1 || failures.is_multiple_of(every);
        let (level, what, why) = match e {
            Failed::Duplicate => ("DBG", "not needed", "there is one"),
            Failed::Unreachable(why) => ("WRN", "failed", why.as_str()),
            Failed::Refused(why) => ("ERR", "refused", why.as_str()),
        };
        let level = if told { level } else { "DBG" };
        let text = format!("Peer link to {} at {} {what} (attempt {failures}): {why}", m.name, url.address());
        self.log(level, &text);
    }
}

impl Pair {
    fn replace(&mut self, begin: impl FnOnce(u64) -> Begin, limits: &PeerLimits) -> Taken {
        self.links += 1;
        let link = Arc::new(Link::new(begin(self.links), limits.lane_bytes_max));
        let before = self.last.replace(link.ended.subscribe());
        if let Some(old) = self.live.replace(link.clone()) {
            old.close("there is a newer one");
        }
        (link, before)
    }
}

/// The node id that a member told of.
fn node_of(m: &Member) -> Option<Node> {
    unhex(&m.info.fulmar_node).filter(|_| m.info.fulmar_peer >= VERSION_MIN).map(Node)
}
