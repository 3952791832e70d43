//! Who is a member of the cluster, and which connections there are. All decisions about them are made here, under one lock,
//! without waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
    },
    time::Duration,
};

use broker::{Broker, Closed, Link};
use env::{Instant, Wall, Worker, rng::Rng, watch};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use wire::route::info::RouteInfo;

use super::{RouteHooks, RouteSettings, RouteUrl, dial};
use crate::{Cpu, peer::Hub};

/// A connection that has had its place for less is young: the other end may be about to decide about it too.
const YOUNG: Duration = Duration::from_secs(2);
/// Members that are connected to because of gossip, at most.
const LEARNED_MAX: usize = 1024;

/// How soon those who wait for a PONG see that there will be none.
const CLOSED_LOOK: Duration = Duration::from_millis(50);

/// A connection's place between two servers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Slot {
    /// Its number in the pool.
    Pool(u32),
    /// It belongs to one account.
    Account(Arc<str>),
}

/// A connection that has its place.
pub struct Route {
    /// The broker's side of it.
    pub link: Arc<Link>,
    /// The other end's address.
    pub peer: SocketAddr,
    /// The other server's id.
    pub remote_id: String,
    /// Its name.
    pub remote_name: String,
    /// This server has opened it.
    pub solicited: bool,
    /// It leads to a server of the configuration.
    pub configured: bool,
    /// Its place.
    pub slot: Slot,
    /// Where it leads, if this server has opened it.
    pub(crate) url: Option<RouteUrl>,
    /// Since when.
    pub start: Wall,
    /// TLS version and cipher suite, if any.
    pub tls: Option<(String, String)>,
    pub(super) socket: Arc<crate::Socket>,
    /// Monotonic moment of the start.
    pub(super) since: Instant,
    pub(super) rtt_ns: AtomicU64,
    pub(super) last_activity: AtomicU64,
    pub(super) pings: Arc<Pings>,
}

/// The PINGs of a connection, which the other end answers one by one, behind whatever it was sent before them.
pub(super) struct Pings {
    sent: Mutex<u64>,
    answered: watch::Sender<u64>,
}

impl Default for Pings {
    fn default() -> Pings {
        Pings { sent: Mutex::new(0), answered: watch::Sender::new(0) }
    }
}

impl Pings {
    /// Sends one; its number.
    pub(super) fn send(&self, link: &Link) -> u64 {
        let mut sent = self.sent.lock();
        link.push(|out| out.extend_from_slice(b"PING\r\n"));
        link.wake.notify_one();
        *sent += 1;
        *sent
    }
    /// A PONG has come.
    pub(super) fn answered(&self) {
        self.answered.send_modify(|n| *n += 1);
    }
    /// Returns when PING `n` is answered, or the link closed.
    async fn wait(&self, n: u64, link: &Link) {
        let mut answered = self.answered.subscribe();
        while *answered.borrow_and_update() < n && link.closed().is_none() {
            env::timeout(CLOSED_LOOK, answered.changed()).await.ok();
        }
    }
}

impl Route {
    /// Last measured round trip; zero before the first.
    pub fn rtt(&self) -> Duration {
        Duration::from_nanos(self.rtt_ns.load(Relaxed))
    }
    /// How it is compressed, in the words of INFO.
    pub fn compression(&self) -> &'static str {
        self.socket.level().map_or("off", |level| level.name())
    }
    /// When it last brought something.
    pub fn last_activity(&self) -> Wall {
        Wall(self.last_activity.load(Relaxed) as i64)
    }
}

/// Another server of the cluster.
#[derive(Clone)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it said of itself last.
    pub info: RouteInfo,
    /// Its connections.
    pub routes: BTreeMap<Slot, Arc<Route>>,
}

/// Why a connection gets no place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// It leads to this very server.
    Own,
    /// There is one already that stays.
    Duplicate,
    /// Another server has its server's name.
    NameTaken,
    /// The server is about to end.
    Stopping,
}

struct State {
    name: String,
    dynamic: bool,
    members: BTreeMap<String, Member>,
    /// Connections that some task tries to open or holds open.
    dialed: BTreeSet<(String, Slot)>,
    /// Members that some task connects to because of gossip.
    learned: BTreeSet<String>,
    /// Which server was found where one of the configuration is.
    found: Vec<(RouteUrl, String)>,
}

/// This server's view of its cluster.
pub struct Mesh {
    /// The broker.
    pub broker: Arc<Broker>,
    /// This server's id.
    pub id: String,
    /// This server's name.
    pub server_name: String,
    pub(crate) hooks: Box<dyn RouteHooks>,
    workers: Vec<Worker>,
    next_worker: AtomicUsize,
    settings: RwLock<Arc<RouteSettings>>,
    state: Mutex<State>,
    /// Connections that are open, those without a place among them.
    open: Mutex<BTreeMap<u64, Arc<Link>>>,
    /// Members, connections or settings have changed.
    pub(crate) changed: Notify,
    pub(super) stopping: AtomicBool,
    pub(crate) cpu: Cpu,
    /// Links to other Fulmar nodes, while there are to be any.
    peers: RwLock<Option<Arc<Hub>>>,
    rng: Mutex<Rng>,
    lame_duck: AtomicBool,
}

/// What a mesh begins with.
pub struct MeshOptions {
    /// The broker.
    pub broker: Arc<Broker>,
    /// This server's id.
    pub id: String,
    /// This server's name.
    pub server_name: String,
    /// The cluster's name; without one it is made up, and gives way to another's.
    pub cluster: Option<String>,
    /// Who is told.
    pub hooks: Box<dyn RouteHooks>,
    /// Where connections live.
    pub workers: Vec<Worker>,
    /// Settings.
    pub settings: RouteSettings,
}

impl Mesh {
    /// A mesh of one.
    pub fn new(o: MeshOptions) -> Arc<Mesh> {
        let mut rng = env::rng::rng("routes");
        let dynamic = o.cluster.is_none();
        let name = o.cluster.unwrap_or_else(|| {
            const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
            (0..22).map(|_| char::from(DIGITS[rng.below(62) as usize])).collect()
        });
        o.broker.set_cluster(&name);
        Arc::new(Mesh {
            broker: o.broker,
            id: o.id,
            server_name: o.server_name,
            hooks: o.hooks,
            workers: o.workers,
            next_worker: AtomicUsize::new(0),
            settings: RwLock::new(Arc::new(o.settings)),
            state: Mutex::new(State {
                name,
                dynamic,
                members: BTreeMap::new(),
                dialed: BTreeSet::new(),
                learned: BTreeSet::new(),
                found: Vec::new(),
            }),
            open: Mutex::default(),
            changed: Notify::new(),
            stopping: AtomicBool::new(false),
            cpu: Cpu::default(),
            peers: RwLock::default(),
            rng: Mutex::new(rng),
            lame_duck: AtomicBool::new(false),
        })
    }
    /// The settings of now.
    pub fn settings(&self) -> Arc<RouteSettings> {
        self.settings.read().clone()
    }
    /// Puts new settings in force, tells the other members what has changed for them, and connects to servers that are
    /// new in the configuration. Connections to those that have gone from it stay, as with nats-server, until they end.
    pub fn set_settings(self: &Arc<Mesh>, s: RouteSettings) {
        let old = std::mem::replace(&mut *self.settings.write(), Arc::new(s));
        let new = self.settings();
        for link in self.open.lock().values() {
            link.wake.notify_one();
        }
        if let Some(hub) = self.peers().filter(|_| !new.admit_all_of(&old)) {
            hub.part_from_who_came();
        }
        self.changed.notify_waiters();
        for url in &new.urls {
            if !old.urls.iter().any(|u| u.is_same_place(url)) {
                dial::start(self, url);
            }
        }
        // Where something else may pass each connection says so itself, behind what it has changed for that.
        if old.info != new.info && old.passes() == new.passes() {
            self.announce();
        }
    }
    /// Connects to the servers of the configuration.
    pub fn start(self: &Arc<Mesh>) {
        for url in &self.settings().urls {
            dial::start(self, url);
        }
    }
    /// The cluster's name.
    pub fn name(&self) -> String {
        self.state.lock().name.clone()
    }
    /// The INFO of this server for one connection.
    pub(super) fn info(&self) -> RouteInfo {
        let mut info = self.settings().info.clone();
        let s = self.state.lock();
        info.cluster.clone_from(&s.name);
        info.cluster_dynamic = s.dynamic;
        info.ldm = self.lame_duck.load(Acquire);
        info
    }
    pub(crate) fn next_worker(&self) -> &Worker {
        &self.workers[self.next_worker.fetch_add(1, Relaxed) % self.workers.len()]
    }
    pub(super) fn random(&self, below: u64) -> u64 {
        self.rng.lock().below(below)
    }
    pub(super) fn nonce(&self) -> String {
        let mut raw = [0; identity::NONCE_RAW_LEN];
        self.rng.lock().fill(&mut raw);
        identity::Nonce::from_random(raw).as_str().to_string()
    }

    /// All other members, by id.
    pub fn members(&self) -> Vec<Member> {
        self.state.lock().members.values().cloned().collect()
    }
    /// All connections that have their place, by their number.
    pub fn routes(&self) -> Vec<Arc<Route>> {
        let mut all: Vec<_> =
            self.state.lock().members.values().flat_map(|m| m.routes.values().cloned()).collect();
        all.sort_by_key(|r| r.link.id);
        all
    }
    /// Returns when the servers at the other ends have taken in what they were told of our interest so far, and what they had sent before has come.
    /// Connections that close meanwhile do not count. As slow as the slowest: give it a limit.
    pub async fn settled(&self) {
        let asked: Vec<_> = self.routes().into_iter().map(|r| (r.pings.send(&r.link), r)).collect();
        for (n, r) in asked {
            r.pings.wait(n, &r.link).await;
        }
    }
    /// Notes which server is where one of the configuration is.
    pub(super) fn found(&self, url: &RouteUrl, id: &str) {
        let found = &mut self.state.lock().found;
        found.retain(|(u, _)| !u.is_same_place(url));
        found.push((url.clone(), id.to_owned()));
    }
    /// Whether the configuration has the server of that id.
    pub fn is_configured(&self, id: &str) -> bool {
        let urls = &self.settings().urls;
        self.state.lock().found.iter().any(|(u, i)| i == id && urls.iter().any(|c| c.is_same_place(u)))
    }
    /// The same for the member whose node id that is.
    pub(crate) fn is_configured_node(&self, node: &str) -> bool {
        let of = |m: &&Member| m.info.fulmar_node == node;
        let id = self.state.lock().members.values().find(of).map(|m| m.id.clone());
        id.is_some_and(|id| self.is_configured(&id))
    }
    /// Connections that have their place, and members.
    pub fn counts(&self) -> (usize, usize) {
        let s = self.state.lock();
        (s.members.values().map(|m| m.routes.len()).sum(), s.members.len())
    }
    /// The addresses for clients of all other members that take any: of the client port and of the WebSocket port.
    pub fn connect_urls(&self) -> (Vec<String>, Vec<String>) {
        let s = self.state.lock();
        let takes = || s.members.values().filter(|m| !m.info.ldm);
        (
            takes().flat_map(|m| m.info.connect_urls.iter().cloned()).collect(),
            takes().flat_map(|m| m.info.ws_connect_urls.iter().cloned()).collect(),
        )
    }
    /// The connection at a place, if there is one.
    pub(super) fn route(&self, id: &str, slot: &Slot) -> Option<Arc<Route>> {
        self.state.lock().members.get(id).and_then(|m| m.routes.get(slot)).cloned()
    }

    /// The name of the server to which a connection leads.
    pub fn name_at(&self, link: u64) -> Option<String> {
        let s = self.state.lock();
        let has = |m: &&Member| m.routes.values().any(|r| r.link.id == link);
        s.members.values().find(has).map(|m| m.name.clone())
    }

    /// Notes that a task opens connections for a place. False if there is one already.
    pub(super) fn begin_dialing(&self, id: &str, slot: &Slot) -> bool {
        self.state.lock().dialed.insert((id.to_owned(), slot.clone()))
    }
    pub(super) fn end_dialing(&self, id: &str, slot: &Slot) {
        self.state.lock().dialed.remove(&(id.to_owned(), slot.clone()));
    }

    pub(super) fn opened(&self, link: &Arc<Link>) {
        self.open.lock().insert(link.id, link.clone());
        if self.stopping.load(Acquire) {
            link.close(Closed::ServerShutdown);
        }
    }
    pub(super) fn closed(&self, link: &Link) {
        self.open.lock().remove(&link.id);
    }
    /// Connections that are open, those without a place among them.
    pub fn open(&self) -> usize {
        self.open.lock().len()
    }

    /// Compares the cluster's name with another's. `accepting`: the other has connected to us, and says its name first.
    /// Returns whether the two fit together now.
    pub(super) fn agree_on_name(&self, theirs: &str, dynamic: bool, accepting: bool) -> Agreement {
        let mut s = self.state.lock();
        if s.name == theirs {
            return Agreement::Same;
        }
        if s.dynamic && !theirs.is_empty() && (!dynamic || *s.name < *theirs) {
            s.name = theirs.to_owned();
            // A name that somebody has configured does not give way to the next that was made up.
            s.dynamic = dynamic;
            let known = theirs.to_owned();
            drop(s);
            self.broker.set_cluster(&known);
            self.hooks.log("INF", &format!("Cluster name updated to {known}"));
            self.hooks.changed();
            return Agreement::Adopted;
        }
        // The other end gives way; it will come to know our name by our INFO, and connects anew. Where we have connected to
        // it, it hears of our name by CONNECT.
        let gives_way = dynamic && !accepting;
        if gives_way { Agreement::Same } else { Agreement::Conflict(s.name.clone()) }
    }

    /// The cluster has got another name: the other connections were made under the old one, and are made anew.
    pub(super) fn part_from_all_but(&self, link: &Link) {
        for other in self.open.lock().values().filter(|l| l.id != link.id) {
            other.close(Closed::ClusterNameConflict);
        }
    }

    /// Gives a connection its place, or says why not. The bool says whether its server is new.
    ///
    /// `first` is what the other end is to be told before all else: it takes the first server that it hears of on this connection for the one at this end, and
    /// from the moment that the connection is known others tell it of further ones.
    pub(super) fn register(
        &self,
        route: &Arc<Route>,
        info: &RouteInfo,
        first: Option<RouteInfo>,
    ) -> Result<bool, Refused> {
        if self.stopping.load(Acquire) {
            return Err(Refused::Stopping);
        }
        if route.remote_id == self.id {
            return Err(Refused::Own);
        }
        let mut s = self.state.lock();
        let same_name = |m: &Member| m.name == route.remote_name && m.id != route.remote_id;
        if route.remote_name == self.server_name || s.members.values().any(same_name) {
            return Err(Refused::NameTaken);
        }
        let is_new = !s.members.contains_key(&route.remote_id);
        let member = s.members.entry(route.remote_id.clone()).or_insert_with(|| Member {
            id: route.remote_id.clone(),
            name: route.remote_name.clone(),
            info: info.clone(),
            routes: BTreeMap::new(),
        });
        if let Some(old) = member.routes.get(&route.slot) {
            let young = old.link.closed().is_none() && route.since.since(old.since) < YOUNG;
            let facts = Rivals {
                old_open: old.link.closed().is_none(),
                old_young: young,
                old_solicited: old.solicited,
                new_solicited: route.solicited,
                ours: !info.fulmar.is_empty(),
                we_are_less: self.id < route.remote_id,
            };
            if !facts.new_wins() {
                return Err(Refused::Duplicate);
            }
            old.link.close(Closed::DuplicateRoute);
        }
        if let Some(first) = first {
            route.link.push(|out| first.push(out));
        }
        member.routes.insert(route.slot.clone(), route.clone());
        member.info = info.clone();
        drop(s);
        self.changed.notify_waiters();
        Ok(is_new)
    }

    /// A connection has ended.
    pub(super) fn unregister(&self, route: &Route) {
        let gone = {
            let mut s = self.state.lock();
            let Some(m) = s.members.get_mut(&route.remote_id) else { return };
            if m.routes.get(&route.slot).is_some_and(|r| r.link.id == route.link.id) {
                m.routes.remove(&route.slot);
            }
            let gone = m.routes.is_empty();
            if gone {
                s.members.remove(&route.remote_id);
            }
            gone
        };
        self.changed.notify_waiters();
        if gone {
            self.hooks.changed();
        }
    }

    /// Tells the other members of a new one, so that they connect to it. A nats-server opens the connection of an account only
    /// if it is told so on its own connection of that account.
    pub(super) fn gossip(&self, about: &RouteInfo, peer: SocketAddr, slot: &Slot) {
        let mut info = about.clone();
        info.nonce.clear();
        info.route_pool_idx = 0;
        info.route_account = match slot {
            Slot::Account(a) => a.to_string(),
            Slot::Pool(_) => String::new(),
        };
        info.gossip_mode = 1;
        if info.ip.is_empty() {
            let Some(url) = RouteUrl::of_member(about, peer) else { return };
            info.ip = format!("nats-route://{}/", url.address());
        }
        let s = self.state.lock();
        // It is one of us: what it said before it took the cluster's name would keep the others from connecting to it.
        info.cluster.clone_from(&s.name);
        for m in s.members.values().filter(|m| m.id != about.server_id) {
            if let Some(r) = m.routes.get(slot) {
                r.link.push(|out| info.push(out));
                r.link.wake.notify_one();
            }
        }
    }

    /// A member tells of another.
    pub(super) fn learn(self: &Arc<Mesh>, info: &RouteInfo) {
        let id = &info.server_id;
        if *id == self.id || id.is_empty() {
            return;
        }
        let Some(url) = RouteUrl::from_gossip(&info.ip) else { return };
        if !info.route_account.is_empty() {
            let pinned = &self.settings().pinned;
            let account = pinned.iter().find(|a| ***a == *info.route_account).cloned();
            let slot = account.clone().map(Slot::Account);
            let there = slot.is_some_and(|s| self.route(id, &s).is_some());
            if let Some(account) = account.filter(|_| !there && self.is_foreign(id) != Some(false)) {
                dial::start_told(self, url, id.clone(), account);
            }
            return;
        }
        {
            let mut s = self.state.lock();
            let known = s.members.contains_key(id) || s.learned.contains(id);
            if known || s.learned.len() >= LEARNED_MAX || info.cluster != s.name {
                return;
            }
            s.learned.insert(id.clone());
        }
        dial::start_learned(self, url, id.clone());
    }
    /// Whether a member is none of ours; `None` if it is not known.
    pub(super) fn is_foreign(&self, id: &str) -> Option<bool> {
        self.state.lock().members.get(id).map(|m| m.info.fulmar.is_empty())
    }
    pub(super) fn unlearn(&self, id: &str) {
        self.state.lock().learned.remove(id);
    }

    /// A member says something new of itself.
    pub(super) fn update(&self, info: RouteInfo) {
        let changed = {
            let mut s = self.state.lock();
            let Some(m) = s.members.get_mut(&info.server_id) else { return };
            if m.info.fulmar_node != info.fulmar_node || m.info.fulmar_peer != info.fulmar_peer {
                self.changed.notify_waiters();
            }
            let differs = m.info.connect_urls != info.connect_urls
                || m.info.ws_connect_urls != info.ws_connect_urls
                || m.info.ldm != info.ldm;
            m.info = info;
            differs
        };
        if changed {
            self.hooks.changed();
        }
    }

    /// Links to other Fulmar nodes, if this server takes any.
    pub(crate) fn peers(&self) -> Option<Arc<Hub>> {
        self.peers.read().clone()
    }
    pub(crate) fn set_peers(&self, peers: Option<Arc<Hub>>) {
        *self.peers.write() = peers;
    }

    /// Sends this server's INFO to all members again.
    fn announce(&self) {
        let info = self.info();
        let s = self.state.lock();
        for m in s.members.values() {
            if let Some(r) = m.routes.get(&Slot::Pool(0)) {
                r.link.push(|out| info.push(out));
                r.link.wake.notify_one();
            }
        }
    }
    /// Tells the members that this server takes no more clients.
    pub fn lame_duck(&self) {
        self.lame_duck.store(true, Release);
        self.announce();
    }
    /// Ends all connections and opens no more.
    pub fn stop(&self) {
        self.stopping.store(true, Release);
        self.changed.notify_waiters();
        for link in self.open.lock().values() {
            link.close(Closed::ServerShutdown);
        }
    }
}

/// How two names of clusters go together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Agreement {
    /// They are the same, or the other end is about to take ours.
    Same,
    /// We have taken the other's.
    Adopted,
    /// They stay different; this is ours.
    Conflict(String),
}

/// Two connections for one place.
struct Rivals {
    old_open: bool,
    /// The old one is so new that the other end may not have decided about it.
    old_young: bool,
    old_solicited: bool,
    new_solicited: bool,
    /// The other server is a Fulmar, which decides by these very rules.
    ours: bool,
    /// Our id is less than the other's.
    we_are_less: bool,
}

impl Rivals {
    /// Who accepts a connection and gets an INFO that asks for a place knows that the other end had none at that place
    /// when it sent it. So an old connection is dead at the other end, unless both servers have connected to each other at
    /// the same time: then the one that the lesser id has opened stays.
    fn new_wins(&self) -> bool {
        if !self.old_open {
            return true;
        }
        if !self.old_young {
            return !self.new_solicited;
        }
        let crossing = self.old_solicited != self.new_solicited;
        crossing && self.ours && self.new_solicited == self.we_are_less
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_both_ends_keep_the_same_of_two_that_cross() {
        // X is opened by the lesser id, Y by the greater; each end sees them in either order.
        let keeps_x = |we_are_less: bool, x_first: bool| {
            let (x_is_mine, y_is_mine) = (we_are_less, !we_are_less);
            let (old, new) = if x_first { (x_is_mine, y_is_mine) } else { (y_is_mine, x_is_mine) };
            let new_wins = Rivals {
                old_open: true,
                old_young: true,
                old_solicited: old,
                new_solicited: new,
                ours: true,
                we_are_less,
            }
            .new_wins();
            new_wins != x_first
        };
        for we_are_less in [false, true] {
            for x_first in [false, true] {
                assert!(keeps_x(we_are_less, x_first), "R-1 {we_are_less} {x_first}");
            }
        }
    }

    #[test]
    fn r1_a_dead_connection_gives_way_to_who_comes_back() {
        let old = |new_solicited| Rivals {
            old_open: true,
            old_young: false,
            old_solicited: true,
            new_solicited,
            ours: false,
            we_are_less: true,
        };
        assert!(old(false).new_wins() && !old(true).new_wins());
        assert!(Rivals { old_open: false, ..old(true) }.new_wins());
    }
}
