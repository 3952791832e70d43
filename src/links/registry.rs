//! Who is connected and who was, for monitoring.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use broker::{Closed, Link, Traffic};
use env::Wall;
use identity::Identity;
use parking_lot::Mutex;

use crate::tls::PeerCert;

/// What is known of a client beyond its link.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// From CONNECT.
    pub name: String,
    /// From CONNECT.
    pub lang: String,
    /// From CONNECT.
    pub version: String,
    /// From CONNECT: 1 takes async INFO.
    pub protocol: i64,
    /// Name, nkey or token mark of the user.
    pub user: String,
    /// Account bound to.
    pub account: String,
    /// `websocket`, `nats` …: the transport as connz names it.
    pub kind: &'static str,
    /// TLS version and cipher suite, if any.
    pub tls: Option<(String, String)>,
    /// What the peer's certificates say, its own first.
    pub tls_peer_certs: Vec<PeerCert>,
    /// Whether TLS came before INFO.
    pub tls_first: bool,
    /// Public key of the proxy it came through.
    pub proxy: String,
    /// Nonce that it was sent.
    pub nonce: String,
    /// Who it is, once it has logged in.
    pub identity: Option<Identity>,
    /// The client's address in the words of an HTTP proxy before us. For logs: anybody can write it.
    pub forwarded_for: Option<IpAddr>,
}

/// A client that is connected.
pub struct Client {
    /// The broker's side of it.
    pub link: Arc<Link>,
    /// Its address.
    pub peer: SocketAddr,
    /// Since when.
    pub start: Wall,
    /// What is known of it.
    pub facts: Mutex<Facts>,
    last_activity: AtomicU64,
    rtt_ns: AtomicU64,
    stalls: AtomicU64,
}

impl Client {
    pub(crate) fn new(link: Arc<Link>, peer: SocketAddr, facts: Facts) -> Arc<Client> {
        let start = env::wall();
        Arc::new(Client {
            link,
            peer,
            start,
            facts: Mutex::new(facts),
            last_activity: AtomicU64::new(start.0 as u64),
            rtt_ns: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
        })
    }
    /// When it last sent something.
    pub fn last_activity(&self) -> Wall {
        Wall(self.last_activity.load(Relaxed) as i64)
    }
    pub(crate) fn active(&self, at: Wall) {
        self.last_activity.store(at.0 as u64, Relaxed);
    }
    /// Last measured round trip; zero before the first.
    pub fn rtt(&self) -> Duration {
        Duration::from_nanos(self.rtt_ns.load(Relaxed))
    }
    pub(crate) fn set_rtt(&self, d: Duration) {
        self.rtt_ns.store(d.as_nanos() as u64, Relaxed);
    }
    /// Times it was held back for a slow receiver.
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Relaxed)
    }
    pub(crate) fn stalled(&self) {
        self.stalls.fetch_add(1, Relaxed);
    }
}

/// A subscription of a client that is gone: subject, queue, sid, delivered, max.
pub type ClosedSubscription = (Vec<u8>, Vec<u8>, Vec<u8>, u64, u64);

/// A client that is gone.
#[derive(Clone, Debug)]
pub struct ClosedClient {
    /// Its link's id.
    pub id: u64,
    /// Its address.
    pub peer: SocketAddr,
    /// From when.
    pub start: Wall,
    /// Until when.
    pub stop: Wall,
    /// When it last sent something.
    pub last_activity: Wall,
    /// Why it ended.
    pub reason: Closed,
    /// Last measured round trip.
    pub rtt: Duration,
    /// What came from it.
    pub received: Traffic,
    /// What went to it.
    pub sent: Traffic,
    /// Subscriptions at its end: subject, queue, sid, delivered, max.
    pub subscriptions: Vec<ClosedSubscription>,
    /// What was known of it.
    pub facts: Facts,
}

/// All clients of a server.
#[derive(Default)]
pub struct Registry {
    open: Mutex<BTreeMap<u64, Arc<Client>>>,
    closed: Mutex<VecDeque<Arc<ClosedClient>>>,
}

impl Registry {
    pub(crate) fn add(&self, c: &Arc<Client>) {
        self.open.lock().insert(c.link.id, c.clone());
    }
    pub(crate) fn remove(&self, c: ClosedClient, closed_max: usize) {
        self.open.lock().remove(&c.id);
        let mut closed = self.closed.lock();
        closed.push_back(Arc::new(c));
        while closed.len() > closed_max {
            closed.pop_front();
        }
    }
    /// Clients that are connected, by id.
    pub fn open(&self) -> Vec<Arc<Client>> {
        self.open.lock().values().cloned().collect()
    }
    /// The client of that id.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.open.lock().get(&id).cloned()
    }
    /// How many are connected.
    pub fn len(&self) -> usize {
        self.open.lock().len()
    }
    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.open.lock().is_empty()
    }
    /// The last round trip of a client that is here or was until lately; zero if there is none.
    pub fn rtt(&self, id: u64) -> Duration {
        if let Some(c) = self.get(id) {
            return c.rtt();
        }
        self.closed.lock().iter().rev().find(|c| c.id == id).map(|c| c.rtt).unwrap_or_default()
    }
    /// The clients that left last, oldest first.
    pub fn closed(&self) -> Vec<Arc<ClosedClient>> {
        self.closed.lock().iter().cloned().collect()
    }
}
