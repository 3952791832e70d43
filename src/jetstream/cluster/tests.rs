//! Engines in one process, each with a broker of its own, over a network that loses and parts.
//!
//! There are no routes between the brokers: what is sent to a client's inbox is carried to that client's broker, and a publish goes to the
//! server that listens.
//!
//! Time is real here, so a run does not repeat exactly; what has to repeat is found by the storms.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use broker::{Account, Broker, Deliveries, Inbound, Link, LinkOptions, Message, Sub};
use bytes::Bytes;
use env::Rng;
use parking_lot::Mutex;
use replica::NodeId;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::{
    Kind, Setup, Wires,
    calls::{Call, Forward, Way},
};
use crate::{AccountLimits, ClientInfo, Host, JetStream, Options, post::Posts};

mod noted;

/// How long anything may take before the test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

type Frame = (Kind, Bytes);

/// All links.
#[derive(Default)]
struct Net {
    engines: Mutex<BTreeMap<NodeId, Arc<JetStream>>>,
    queues: Mutex<BTreeMap<(NodeId, NodeId), mpsc::UnboundedSender<Frame>>>,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    loss: Mutex<f64>,
    rng: OnceLock<Mutex<Rng>>,
    /// How often a node was asked for a configuration that it was to have.
    settles: AtomicU64,
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl Net {
    fn linked(&self, a: NodeId, b: NodeId) -> bool {
        !self.cut.lock().contains(&pair(a, b))
    }
    /// A link opens or closes.
    fn set(&self, a: NodeId, b: NodeId, up: bool) {
        let was = self.linked(a, b);
        match up {
            true => self.cut.lock().remove(&pair(a, b)),
            false => self.cut.lock().insert(pair(a, b)),
        };
        if was == up {
            return;
        }
        // What was on its way is lost with the link.
        self.queues.lock().retain(|k, _| pair(k.0, k.1) != pair(a, b));
        let (x, y) = {
            let e = self.engines.lock();
            (e.get(&a).cloned(), e.get(&b).cloned())
        };
        for (engine, other) in [(x, b), (y, a)] {
            let Some(engine) = engine else { continue };
            match up {
                true => engine.peer_up(other, "?"),
                false => engine.peer_down(other),
            }
        }
    }
}

/// One node's way into the network.
struct Wire {
    net: Arc<Net>,
    me: OnceLock<NodeId>,
}

impl Wires for Wire {
    fn send(&self, to: NodeId, kind: Kind, body: Bytes) -> bool {
        let Some(me) = self.me.get().copied() else { return false };
        if !self.net.linked(me, to) || !self.net.engines.lock().contains_key(&to) {
            return false;
        }
        if kind == Kind::Call && matches!(Call::decode(&body), Some((_, Call::Settle { .. }))) {
            self.net.settles.fetch_add(1, Ordering::Relaxed);
        }
        let lost = *self.net.loss.lock();
        let rng = self.net.rng.get_or_init(|| Mutex::new(Rng::derived(7, "net")));
        if lost > 0.0 && rng.lock().bool(lost) {
            return true;
        }
        let mut queues = self.net.queues.lock();
        let queue = queues.entry((me, to)).or_insert_with(|| {
            let (tx, mut rx) = mpsc::unbounded_channel::<Frame>();
            let net = self.net.clone();
            env::spawn(async move {
                while let Some((kind, body)) = rx.recv().await {
                    let engine = net.engines.lock().get(&to).cloned();
                    if let Some(e) = engine.filter(|_| net.linked(me, to)) {
                        e.received(me, kind, body);
                    }
                }
            });
            tx
        });
        queue.send((kind, body)).is_ok()
    }
    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

struct Seen(String);

impl Host for Seen {
    fn name(&self) -> String {
        self.0.clone()
    }
    fn id(&self) -> String {
        self.0.clone()
    }
    fn cluster(&self) -> String {
        "C".into()
    }
    fn client(&self, _: &Link, _: &str, _: &[u8]) -> ClientInfo {
        ClientInfo::default()
    }
    fn system_account(&self) -> String {
        "$SYS".into()
    }
    fn log(&self, level: &'static str, text: &str) {
        if level == "ERR" {
            tracing::error!("{}: {text}", self.0);
        }
    }
}

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    #[allow(clippy::disallowed_methods, reason = "a test's own directory")]
    fn new() -> Dir {
        static N: AtomicU64 = AtomicU64::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("fulmar-cluster-{}-{n}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        Dir(dir)
    }
    /// What is in it now, in another one.
    #[allow(clippy::disallowed_methods, reason = "a test's own directory")]
    fn copy(&self) -> Arc<Dir> {
        let to = Dir::new();
        let mut left = vec![PathBuf::new()];
        while let Some(at) = left.pop() {
            std::fs::create_dir_all(to.0.join(&at)).expect("it is our own");
            for found in std::fs::read_dir(self.0.join(&at)).expect("it is there") {
                let found = found.expect("it can be read");
                let path = at.join(found.file_name());
                if found.path().is_dir() {
                    left.push(path);
                } else {
                    std::fs::copy(found.path(), to.0.join(&path)).expect("it can be copied");
                }
            }
        }
        Arc::new(to)
    }
    /// Takes away whatever stands behind the headers of its journal's files.
    #[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test's own directory")]
    fn cut_journal(&self) {
        let shards = std::fs::read_dir(&self.0).expect("it is there").flatten();
        let journals = shards.map(|s| s.path().join("journal")).chain([self.0.join("journal")]);
        let files: Vec<_> = journals.filter_map(|j| std::fs::read_dir(j).ok()).flatten().flatten().collect();
        assert!(!files.is_empty(), "there is a journal");
        for f in files {
            std::fs::File::options()
                .write(true)
                .open(f.path())
                .and_then(|f| f.set_len(600))
                .expect("it is our own");
        }
    }
}
impl Drop for Dir {
    #[allow(clippy::disallowed_methods, reason = "a test's own directory")]
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A message that came.
#[derive(Clone, Debug)]
struct Got {
    subject: String,
    reply: String,
    head: String,
    body: String,
}

#[derive(Default)]
struct Inbox {
    got: Mutex<Vec<Got>>,
    came: Notify,
}

/// A client's ear, or the bridge from one broker to a client at another.
enum Ear {
    Client(Arc<Inbox>),
    Bridge(Weak<Posts>),
}

impl Inbound for Ear {
    fn serves(&self) -> bool {
        false
    }
    fn listens(&self, _: &[u8]) -> bool {
        true
    }
    fn deliver(&self, _: &mut Deliveries, _: &Sub, _: &Arc<Link>, m: &Message<'_>) -> bool {
        match self {
            Ear::Client(inbox) => {
                let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                let got = Got {
                    subject: text(m.subject),
                    reply: text(m.reply),
                    head: text(m.header()),
                    body: text(m.payload()),
                };
                inbox.got.lock().push(got);
                inbox.came.notify_waiters();
            }
            Ear::Bridge(to) => {
                if let Some(posts) = to.upgrade() {
                    posts.take().send(
                        m.subject,
                        m.shown,
                        m.reply,
                        m.header().len(),
                        &[m.header(), m.payload()],
                    );
                }
            }
        }
        true
    }
}

fn link(broker: &Broker, ear: Ear) -> Arc<Link> {
    Link::new(LinkOptions {
        id: broker.next_id(),
        kind: broker::Kind::Internal,
        worker: 0,
        pending_bytes_max: 0,
        transport: None,
        inbound: Some(Box::new(ear)),
    })
}

/// A server with one client.
struct Server {
    name: String,
    dir: Arc<Dir>,
    node: Arc<JetStream>,
    broker: Arc<Broker>,
    account: Arc<Account>,
    posts: Arc<Posts>,
    inbox: Arc<Inbox>,
    asked: Mutex<u64>,
    bridges: Mutex<Vec<Arc<Link>>>,
}

impl Server {
    async fn start(net: Option<&Arc<Net>>, name: &str, dir: &Arc<Dir>) -> Server {
        let broker = Arc::new(Broker::default());
        let options = Options::for_tests(dir.0.clone());
        let wire = net.map(|net| Arc::new(Wire { net: net.clone(), me: OnceLock::new() }));
        let setup = wire.clone().map(|wires| Setup {
            wires,
            name: "C".into(),
            others: 2,
            tags: vec![format!("host:{name}")],
            unique_tag: String::new(),
        });
        let host = Arc::new(Seen(name.to_owned()));
        let node = JetStream::open(broker.clone(), options, host, setup).await.expect("it opens");
        let account = broker.account_or_new("A");
        node.set_account(&account, Some(AccountLimits::default()));
        let system = broker.account_or_new("$SYS");
        node.serve_system(&system);
        let inbox = Arc::new(Inbox::default());
        let own = link(&broker, Ear::Client(inbox.clone()));
        let subject = format!("_INBOX.{name}.>");
        own.subscribe(&account, b"1", subject.as_bytes(), b"", false).expect("it is open");
        let posts = Arc::new(Posts::new(broker.clone(), own, account.clone()));
        if let (Some(net), Some(wire)) = (net, wire) {
            let me = node.node_id();
            wire.me.set(me).expect("once");
            let others: Vec<NodeId> = {
                let mut e = net.engines.lock();
                e.insert(me, node.clone());
                e.keys().copied().filter(|n| *n != me).collect()
            };
            for n in others {
                net.cut.lock().insert(pair(me, n));
                net.set(me, n, true);
            }
        }
        Server {
            name: name.to_owned(),
            dir: dir.clone(),
            node,
            broker,
            account,
            posts,
            inbox,
            asked: Mutex::new(0),
            bridges: Mutex::default(),
        }
    }
    /// Carries what comes here for the other's client to it.
    fn bridge(&self, other: &Server) {
        let l = link(&self.broker, Ear::Bridge(Arc::downgrade(&other.posts)));
        let subject = format!("_INBOX.{}.>", other.name);
        l.subscribe(&self.account, b"1", subject.as_bytes(), b"", false).expect("it is open");
        self.bridges.lock().push(l);
    }
    fn send(&self, subject: &str, reply: &str, body: &str) -> usize {
        self.posts.take().send(subject.as_bytes(), None, reply.as_bytes(), 0, &[body.as_bytes()])
    }
    fn inbox(&self) -> String {
        let mut asked = self.asked.lock();
        *asked += 1;
        format!("_INBOX.{}.{asked}", self.name)
    }
    fn got(&self, subject: &str) -> Vec<Got> {
        self.inbox.got.lock().iter().filter(|g| g.subject == subject).cloned().collect()
    }
    async fn wait(&self, subject: &str, n: usize) -> Vec<Got> {
        until(&format!("{n} messages to {subject}"), || {
            let got = self.got(subject);
            (got.len() >= n).then_some(got)
        })
        .await
    }
    /// A request of the API that anybody may answer.
    async fn api(&self, what: &str, body: &str) -> Value {
        let reply = self.inbox();
        assert!(self.send(&format!("$JS.API.{what}"), &reply, body) > 0, "nobody takes {what}");
        let got = self.wait(&reply, 1).await.remove(0);
        serde_json::from_str(&got.body).expect("JSON")
    }
    async fn good(&self, what: &str, body: &str) -> Value {
        let v = self.api(what, body).await;
        assert!(v["error"].is_null(), "{what}: {v}");
        v
    }
}

/// Returns what `f` finds, as soon as it does.
async fn until<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let end = env::now() + PATIENCE;
    loop {
        if let Some(t) = f() {
            return t;
        }
        assert!(env::now() < end, "in vain: {what}");
        env::sleep(Duration::from_millis(5)).await;
    }
}

/// Servers that all see each other.
struct World {
    net: Arc<Net>,
    servers: Vec<Option<Server>>,
}

impl World {
    async fn new(n: usize) -> World {
        let mut w = World { net: Arc::default(), servers: Vec::new() };
        for i in 0..n {
            w.servers.push(None);
            w.start(i, &Arc::new(Dir::new())).await;
        }
        w
    }
    /// A server that was alone and had this directory, and two that have nothing.
    async fn around(dir: &Arc<Dir>) -> World {
        let mut w = World { net: Arc::default(), servers: vec![None, None, None] };
        w.start(0, dir).await;
        w.start(1, &Arc::new(Dir::new())).await;
        w.start(2, &Arc::new(Dir::new())).await;
        w.formed().await;
        w
    }
    async fn start(&mut self, i: usize, dir: &Arc<Dir>) {
        let s = Server::start(Some(&self.net), &format!("s{i}"), dir).await;
        for other in self.servers.iter().flatten() {
            other.bridge(&s);
            s.bridge(other);
        }
        self.servers[i] = Some(s);
    }
    fn at(&self, i: usize) -> &Server {
        self.servers[i].as_ref().expect("it runs")
    }
    fn all(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().flatten()
    }
    fn find(&self, name: &str) -> usize {
        self.servers.iter().position(|s| s.as_ref().is_some_and(|s| s.name == name)).expect("it runs")
    }
    /// Returns when there is a meta leader that all know, and all are listed.
    async fn formed(&self) {
        let n = self.all().count();
        until("a meta group of all", || {
            let leaders: BTreeSet<_> = self.all().map(|s| s.node.meta_leader()).collect();
            let one = leaders.len() == 1 && !leaders.contains(&None);
            let voters = |s: &Server| s.node.meta.handle().map_or(0, |h| h.members().0.len());
            (one && self.all().all(|s| voters(s) == n)).then_some(())
        })
        .await;
    }
    /// Ends a server without a word to the others.
    async fn kill(&mut self, i: usize) -> Arc<Dir> {
        let s = self.servers[i].take().expect("it runs");
        let me = s.node.node_id();
        let others: Vec<NodeId> = self.all().map(|o| o.node.node_id()).collect();
        for o in others {
            self.net.set(me, o, false);
        }
        self.net.engines.lock().remove(&me);
        s.node.close().await;
        s.dir.clone()
    }
    /// Publishes where the stream listens; the sequence.
    async fn publish(&self, subject: &str, body: &str) -> u64 {
        let (end, mut id) = (env::now() + PATIENCE, None);
        loop {
            assert!(env::now() < end, "nobody stores {subject}");
            let Some(s) = self.all().find(|s| s.account.has_interest(subject.as_bytes())) else {
                env::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let reply = s.inbox();
            // Whoever gets no answer does not know whether it is stored.
            let id = id.get_or_insert_with(|| reply.clone());
            let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
            let (len, parts) = (headers.len(), [headers.as_bytes(), body.as_bytes()]);
            s.posts.take().send(subject.as_bytes(), None, reply.as_bytes(), len, &parts);
            let answer = env::timeout(Duration::from_secs(5), s.wait(&reply, 1)).await;
            let Ok(answer) = answer else { continue };
            let v: Value = serde_json::from_str(&answer[0].body).expect("JSON");
            if let Some(seq) = v["seq"].as_u64().filter(|n| *n > 0) {
                return seq;
            }
        }
    }
    /// Asks until the answer is as wanted.
    async fn eventually(&self, i: usize, what: &str, f: impl Fn(&Value) -> bool) -> Value {
        let end = env::now() + PATIENCE;
        loop {
            let v = self.api(i, what).await;
            if f(&v) {
                return v;
            }
            assert!(env::now() < end, "{what}: in vain: {v}");
            env::sleep(Duration::from_millis(20)).await;
        }
    }
    async fn api(&self, i: usize, what: &str) -> Value {
        self.at(i).api(what, "").await
    }
    /// A stream of one replica and two messages gets three, one, and three again; then its leader changes.
    async fn grow_and_shrink(&self) {
        for replicas in [3, 1, 3] {
            self.at(1).good("STREAM.UPDATE.S", &stream("S", replicas)).await;
            let v = self
                .eventually(2, "STREAM.INFO.S", |v| {
                    all_current(v, replicas - 1) && v["state"]["messages"] == 2
                })
                .await;
            assert_eq!(v["config"]["num_replicas"], json!(replicas));
            until("as many replicas as wanted have data (K-6)", || {
                let open = self.all().filter(|s| s.node.replicas.stored().len() == 2).count();
                (open == replicas).then_some(())
            })
            .await;
        }
        let v = self.api(0, "STREAM.INFO.S").await;
        let before = v["cluster"]["leader"].clone();
        self.at(0).good("STREAM.LEADER.STEPDOWN.S", "").await;
        self.eventually(0, "STREAM.INFO.S", |v| v["error"].is_null() && v["cluster"]["leader"] != before)
            .await;
        assert_eq!(self.publish("S.x", "moved").await, 3);
    }
    async fn end(mut self) {
        for i in 0..self.servers.len() {
            if self.servers[i].is_some() {
                self.kill(i).await;
            }
        }
    }
}

fn run<F: Future<Output = ()>>(test: F) {
    let done = env::run(async { env::timeout(PATIENCE * 4, test).await }).expect("a runtime can be made");
    assert!(done.is_ok(), "the test does not come to its end");
}

fn stream(name: &str, replicas: usize) -> String {
    json!({ "name": name, "subjects": [format!("{name}.>")], "num_replicas": replicas }).to_string()
}

fn all_current(v: &Value, others: usize) -> bool {
    let r = v["cluster"]["replicas"].as_array().cloned().unwrap_or_default();
    r.len() == others
        && r.iter().all(|p| p["current"] == true && p["lag"].is_null() && p["pending"].is_null())
}

#[test]
fn c6_a_leader_dies_and_the_stream_goes_on() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        let v = w.at(0).good("STREAM.CREATE.S", &stream("S", 3)).await;
        assert_eq!(v["cluster"]["name"], "C");
        let leader = w.find(v["cluster"]["leader"].as_str().expect("a leader"));
        for i in 1..=20 {
            assert_eq!(w.publish("S.x", &i.to_string()).await, i);
        }
        // Whoever is asked says the same (K-4: once).
        for s in w.all() {
            let v = s.good("STREAM.INFO.S", "").await;
            assert_eq!(
                (&v["state"]["messages"], &v["cluster"]["leader"]),
                (&json!(20), &json!(w.at(leader).name))
            );
            assert_eq!(v["cluster"]["replicas"].as_array().map(Vec::len), Some(2), "{v}");
            let names = s.good("STREAM.NAMES", "").await;
            assert_eq!(names["streams"], json!(["S"]));
            assert_eq!(s.got(&format!("_INBOX.{}.1", s.name)).len(), 1, "K-4");
        }
        let dir = w.kill(leader).await;
        for i in 21..=40 {
            assert_eq!(w.publish("S.x", &i.to_string()).await, i, "nothing is lost, nothing is given twice");
        }
        let other = (leader + 1) % 3;
        let v = w.eventually(other, "STREAM.INFO.S", |v| v["error"].is_null()).await;
        assert_ne!(v["cluster"]["leader"], json!(format!("s{leader}")));
        let offline: Vec<_> = v["cluster"]["replicas"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|p| p["offline"] == true)
            .collect();
        assert_eq!(offline.len(), 1, "{v}");
        w.start(leader, &dir).await;
        w.eventually(other, "STREAM.INFO.S", |v| all_current(v, 2) && v["state"]["messages"] == 40).await;
        // The one that came back has it all, and answers through the others.
        let v = w.at(leader).good("STREAM.MSG.GET.S", r#"{"seq":40}"#).await;
        assert_eq!(v["message"]["data"], "NDA=");
        w.end().await;
    });
}

/// As with nats-server: what an account may store is one limit for all servers, and each replica counts.
#[test]
fn an_account_has_one_limit_for_all_servers() {
    run(async {
        let w = World::new(3).await;
        w.formed().await;
        let limits = AccountLimits { max_store: 40_000, ..AccountLimits::default() };
        w.all().for_each(|s| s.node.set_account(&s.account, Some(limits)));
        // One stream on each of two servers, and one on all.
        for (name, i) in [("A", 0), ("B", 1)] {
            let tags = json!({ "tags": [format!("host:s{i}")] });
            let config = json!({ "name": name, "subjects": [format!("{name}.>")], "placement": tags });
            w.at(0).good(&format!("STREAM.CREATE.{name}"), &config.to_string()).await;
        }
        w.at(0).good("STREAM.CREATE.R", &stream("R", 3)).await;
        let body = "x".repeat(1000);
        for _ in 0..12 {
            w.publish("A.x", &body).await;
        }
        // What is refused is not stored, and the others' bytes are known after a while.
        let publish = async |subject: &str| {
            let s = w.all().find(|s| s.account.has_interest(subject.as_bytes())).expect("somebody leads it");
            let reply = s.inbox();
            s.send(subject, &reply, &body);
            let v: Value = serde_json::from_str(&s.wait(&reply, 1).await[0].body).expect("JSON");
            v["error"]["err_code"].as_u64()
        };
        let fill = async |subject: &str| {
            let (mut n, end) = (0, env::now() + PATIENCE);
            while publish(subject).await.is_none() {
                n += 1;
                assert!(env::now() < end, "{subject}: {n} are stored");
                env::sleep(Duration::from_millis(100)).await;
            }
            n
        };
        let stored = async || {
            let v = w.at(2).good("INFO", "").await;
            v["storage"].as_u64().expect("a number")
        };
        fill("B.x").await;
        // Half a second of publishes, one in a tenth of a second, at the most.
        let full = stored().await;
        assert!((39_000..52_000).contains(&full), "{full}");
        assert_eq!(publish("B.x").await, Some(10002));
        // What goes elsewhere makes room here, for each copy.
        w.at(0).good("STREAM.PURGE.A", "").await;
        let before = stored().await;
        let end = env::now() + PATIENCE;
        while publish("R.x").await.is_some() {
            assert!(env::now() < end, "there is no room");
            env::sleep(Duration::from_millis(50)).await;
        }
        let n = fill("R.x").await + 1;
        let full = stored().await;
        assert!(full >= before + 3 * 1000 * n && full < 40_000 + 3 * 1100 * 8, "{before} {full} {n}");
        w.end().await;
    });
}

/// While one of three is restarted, applications go on making their streams: it makes its replicas when it is back.
#[test]
fn c6_streams_are_made_and_grow_while_a_server_is_away() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        let v = w.at(0).good("STREAM.CREATE.S", &stream("S", 1)).await;
        let has_it = w.find(v["cluster"]["leader"].as_str().expect("a leader"));
        let (away, here) = ((has_it + 1) % 3, (has_it + 2) % 3);
        let dir = w.kill(away).await;
        w.eventually(here, "STREAM.NAMES", |v| v["error"].is_null()).await;
        let v = w.at(here).good("STREAM.CREATE.T", &stream("T", 3)).await;
        let peers = v["cluster"]["replicas"].as_array().expect("replicas");
        let offline = |name: &str| peers.iter().any(|p| p["name"] == name && p["offline"] == true);
        assert!(peers.len() == 2 && offline(&format!("s{away}")), "{v}");
        let none = w.at(here).api("STREAM.CREATE.U", &stream("U", 4)).await;
        assert_eq!(none["error"]["err_code"], 10005, "{none}");
        assert_eq!(w.publish("T.x", "1").await, 1);
        let v = w.at(here).good("STREAM.UPDATE.S", &stream("S", 3)).await;
        assert_eq!(v["config"]["num_replicas"], 3);
        assert_eq!(w.publish("S.x", "1").await, 1);
        w.start(away, &dir).await;
        for name in ["S", "T"] {
            w.eventually(here, &format!("STREAM.INFO.{name}"), |v| {
                all_current(v, 2) && v["state"]["messages"] == 1
            })
            .await;
        }
        w.end().await;
    });
}

/// Who is asked for a new stream waits until it leads it. It once said that it did not know yet, and was asked again a pause later: ten times as long as the
/// making took.
#[test]
fn a_new_stream_is_asked_for_once() {
    run(async {
        let w = World::new(3).await;
        w.formed().await;
        let mut asked = Vec::new();
        for i in 0..9 {
            let before = w.net.settles.load(Ordering::Relaxed);
            let name = format!("R{i}");
            w.at(i % 3).good(&format!("STREAM.CREATE.{name}"), &stream(&name, 3)).await;
            asked.push(w.net.settles.load(Ordering::Relaxed) - before);
        }
        // None where the leader of the meta group leads the stream too; more where a machine is so slow that the waiting ends.
        assert!(asked.contains(&1), "{asked:?}");
    });
}

#[test]
fn an_operator_ends_all_streams_of_an_account() {
    let none = |v: &Value| v["streams"].is_null() && v["total"] == 0;
    let purge = async |s: &Server, account: &str| {
        let done = s.node.operate(&format!("ACCOUNT.PURGE.{account}"), b"").await.expect("an answer");
        let done: Value = serde_json::from_slice(&done).expect("JSON");
        let kind = "io.nats.jetstream.api.v1.account_purge_response";
        assert_eq!(done, json!({ "type": kind, "initiated": true }));
    };
    run(async {
        let w = World::new(3).await;
        w.formed().await;
        for (name, replicas) in [("R0", 1), ("R1", 1), ("R3", 3)] {
            w.at(0).good(&format!("STREAM.CREATE.{name}"), &stream(name, replicas)).await;
        }
        purge(w.at(1), "B").await;
        assert_eq!(w.api(1, "STREAM.NAMES").await["total"], 3);
        purge(w.at(2), "A").await;
        w.eventually(1, "STREAM.NAMES", none).await;
        w.at(0).good("STREAM.CREATE.R3", &stream("R3", 3)).await;
        w.end().await;

        let dir = Arc::new(Dir::new());
        let alone = Server::start(None, "s0", &dir).await;
        alone.good("STREAM.CREATE.S", &stream("S", 1)).await;
        purge(&alone, "A").await;
        assert!(none(&alone.good("STREAM.NAMES", "").await));
        assert!(alone.node.operate("SERVER.EVACUATE", b"").await.is_none());
        alone.node.close().await;
    });
}

#[test]
fn any_server_takes_any_request() {
    run(async {
        let w = World::new(3).await;
        w.formed().await;
        for i in 0..3 {
            let name = format!("R{i}");
            let v = w.at(i).good(&format!("STREAM.CREATE.{name}"), &stream(&name, 1)).await;
            assert_eq!(v["config"]["num_replicas"], 1);
        }
        // Placed apart.
        let mut leaders = BTreeSet::new();
        for i in 0..3 {
            let v = w.at((i + 1) % 3).good(&format!("STREAM.INFO.R{i}"), "").await;
            leaders.insert(v["cluster"]["leader"].as_str().unwrap_or_default().to_owned());
        }
        assert_eq!(leaders.len(), 3, "{leaders:?}");
        let v = w.at(2).good("STREAM.LIST", "").await;
        assert_eq!((&v["total"], v["streams"].as_array().map(Vec::len)), (&json!(3), Some(3)), "{v}");
        w.publish("R0.a", "one").await;
        w.publish("R0.b", "two").await;
        let v = w.at(1).good("INFO", "").await;
        assert_eq!(v["streams"], 3, "{v}");
        for i in 0..3 {
            let s = w.at(i);
            let c = json!({ "stream_name": "R0", "config": { "durable_name": format!("c{i}"), "ack_policy": "explicit" } });
            s.good(&format!("CONSUMER.CREATE.R0.c{i}"), &c.to_string()).await;
            let to = s.inbox();
            assert!(
                s.send(
                    &format!("$JS.API.CONSUMER.MSG.NEXT.R0.c{i}"),
                    &to,
                    r#"{"batch":2,"expires":5000000000}"#
                ) > 0
            );
            let got = s.wait(&to, 2).await;
            assert_eq!(got.iter().map(|g| g.body.as_str()).collect::<Vec<_>>(), ["one", "two"]);
            for g in &got {
                s.send(&g.reply, "", "+ACK");
            }
            w.eventually((i + 1) % 3, &format!("CONSUMER.INFO.R0.c{i}"), |v| {
                v["ack_floor"]["stream_seq"] == 2
            })
            .await;
        }
        let v = w.at(0).good("CONSUMER.NAMES.R0", "").await;
        assert_eq!(v["consumers"], json!(["c0", "c1", "c2"]));
        let mut config: Value = serde_json::from_str(&stream("R0", 1)).expect("JSON");
        config["max_msgs"] = json!(1);
        let v = w.at(2).good("STREAM.UPDATE.R0", &config.to_string()).await;
        assert_eq!((&v["config"]["max_msgs"], &v["state"]["messages"]), (&json!(1), &json!(1)));
        let v = w.at(1).api("STREAM.CREATE.R5", &stream("R5", 5)).await;
        assert_eq!((&v["error"]["err_code"], &v["error"]["code"]), (&json!(10005), &json!(400)), "{v}");
        for s in w.all() {
            let v = s.api("STREAM.INFO.nope", "").await;
            assert_eq!(v["error"]["err_code"], 10059, "{v}");
        }
        w.at(2).good("STREAM.DELETE.R0", "").await;
        for s in w.all() {
            let v = s.api("STREAM.INFO.R0", "").await;
            assert_eq!(v["error"]["err_code"], 10059, "{v}");
        }
        until("the data of the stream that was deleted goes (K-5)", || {
            let groups: usize = w.all().map(|s| s.node.replicas.stored().len()).sum();
            // The meta group thrice, and two streams.
            (groups == 5).then_some(())
        })
        .await;
        w.end().await;
    });
}

#[test]
fn c6_streams_grow_and_shrink() {
    run(async {
        let w = World::new(3).await;
        w.formed().await;
        w.at(0).good("STREAM.CREATE.S", &stream("S", 1)).await;
        assert_eq!(w.publish("S.x", "one").await, 1);
        assert_eq!(w.publish("S.x", "two").await, 2);
        w.grow_and_shrink().await;
        w.end().await;
    });
}

#[test]
fn a_server_alone_takes_others_in_and_its_streams_grow_and_shrink() {
    run(async {
        let dir = Arc::new(Dir::new());
        let alone = Server::start(None, "s0", &dir).await;
        alone.good("STREAM.CREATE.S", &stream("S", 1)).await;
        let v = alone.api("STREAM.CREATE.T", &stream("T", 3)).await;
        assert_eq!(v["error"]["err_code"], 10074, "{v}");
        let reply = alone.inbox();
        assert_eq!(alone.send("S.x", &reply, "before"), 1);
        alone.wait(&reply, 1).await;
        alone.node.close().await;
        drop(alone);

        let w = World::around(&dir).await;
        assert_eq!(w.publish("S.x", "after").await, 2);
        w.grow_and_shrink().await;
        w.end().await;
    });
}

/// As nats-server says it: to the account, and to the system account with the account's name.
#[test]
fn leaders_and_their_loss_are_told_to_the_account_and_the_system() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        w.at(0).good("STREAM.CREATE.S", &stream("S", 3)).await;
        let c = r#"{"stream_name":"S","config":{"durable_name":"c","ack_policy":"explicit"}}"#;
        w.at(0).good("CONSUMER.CREATE.S.c", c).await;
        let v = w.api(0, "STREAM.INFO.S").await;
        let leader = w.find(v["cluster"]["leader"].as_str().expect("a leader"));
        let last = (leader + 1) % 3;
        let hear = |s: &Server| {
            let system = s.broker.account_or_new("$SYS");
            [&s.account, &system].map(|account| {
                let inbox = Arc::new(Inbox::default());
                let l = link(&s.broker, Ear::Client(inbox.clone()));
                l.subscribe(account, b"1", b"$JS.EVENT.ADVISORY.>", b"", false).expect("it is open");
                (inbox, l)
            })
        };
        let ears: Vec<_> = w.all().map(hear).collect();
        // What anybody heard in that account: the account that is named, for each subject.
        let heard = |i: usize| -> BTreeSet<(String, String)> {
            let all = ears.iter().flat_map(|e| e[i].0.got.lock().clone());
            let read = |g: Got| {
                let v: Value = serde_json::from_str(&g.body).expect("JSON");
                (g.subject.replace("$JS.EVENT.ADVISORY.", ""), v["account"].as_str().unwrap_or("").to_owned())
            };
            all.map(read).collect()
        };
        let both = async |what: &str| {
            for subject in [format!("STREAM.{what}.S"), format!("CONSUMER.{what}.S.c")] {
                until(&subject, || {
                    let in_both = heard(0).contains(&(subject.clone(), String::new()))
                        && heard(1).contains(&(subject.clone(), "A".to_owned()));
                    in_both.then_some(())
                })
                .await;
            }
        };
        w.at(0).good("STREAM.LEADER.STEPDOWN.S", "").await;
        both("LEADER_ELECTED").await;
        let meta = w.at(0).node.meta_leader().expect("one leads");
        w.at(w.find(&meta)).node.hand_over_meta(None);
        until("the system hears of the meta leader", || {
            heard(1).contains(&("DOMAIN.LEADER_ELECTED".to_owned(), String::new())).then_some(())
        })
        .await;
        for i in (0..3).filter(|i| *i != last) {
            w.kill(i).await;
        }
        both("QUORUM_LOST").await;
        assert!(heard(0).iter().all(|(_, account)| account.is_empty()), "{:?}", heard(0));
        w.end().await;
    });
}

#[test]
fn without_a_majority_nobody_answers_for_the_stream() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        w.at(0).good("STREAM.CREATE.S", &stream("S", 3)).await;
        w.publish("S.x", "1").await;
        let (a, b) = (w.kill(1).await, w.kill(2).await);
        let v = w.eventually(0, "STREAM.INFO.S", |v| !v["error"].is_null()).await;
        assert_eq!((&v["error"]["err_code"], &v["error"]["code"]), (&json!(10008), &json!(503)), "K-10: {v}");
        assert!(w.at(0).node.unhealthy().is_some());
        w.start(1, &a).await;
        w.eventually(0, "STREAM.INFO.S", |v| v["error"].is_null() && v["state"]["messages"] == 1).await;
        w.start(2, &b).await;
        w.eventually(0, "STREAM.INFO.S", |v| all_current(v, 2)).await;
        until("all are well", || w.all().all(|s| s.node.unhealthy().is_none()).then_some(())).await;
        w.end().await;
    });
}

/// A probe that starts servers anew would only make it worse.
#[test]
fn a_stream_without_a_majority_makes_nobody_ill_whose_fault_it_is_not() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        let v = w.at(0).good("STREAM.CREATE.S", &stream("S", 2)).await;
        w.at(0).good("STREAM.CREATE.O", &json!({ "name": "O", "subjects": ["O"] }).to_string()).await;
        let (gone, left) = (
            v["cluster"]["leader"].as_str().expect("somebody leads"),
            v["cluster"]["replicas"][0]["name"].as_str().expect("another has it"),
        );
        let left = w.find(left);
        w.kill(w.find(gone)).await;
        let node = w.at(left).node.clone();
        let said = until("it is told of", || node.losses().pop()).await;
        assert_eq!(said, "JetStream stream 'A > S' has no leader: most of its servers are away");
        until("the servers are well", || w.all().all(|s| s.node.unhealthy().is_none()).then_some(())).await;
        let why = "JetStream stream 'A > S' is not current: no leader";
        assert_eq!(node.unhealthy_of("A", "S", ""), Ok(Some(why.into())), "who asks for it hears it");
        assert_eq!(node.unhealthy_of("A", "", ""), Ok(None));
        // What one server alone has is no group.
        let groups = node.raftz("A", "").expect("it is in a cluster");
        let names: Vec<&String> = groups["A"].as_object().into_iter().flatten().map(|(n, _)| n).collect();
        assert!(names.len() == 1 && names[0].starts_with("S-R2F-"), "{groups}");
        assert!(node.raftz("B", "").is_some_and(|v| v == json!({})));
        w.end().await;
    });
}

#[test]
fn c4_requests_are_answered_once_although_the_network_loses() {
    run(async {
        let w = World::new(3).await;
        w.formed().await;
        *w.net.loss.lock() = 0.05;
        let mut done = 0;
        for i in 0..12 {
            let s = w.at(i % 3);
            let name = format!("S{i}");
            let v =
                s.api(&format!("STREAM.CREATE.{name}"), &stream(&name, if i % 2 == 0 { 3 } else { 1 })).await;
            done += usize::from(v["error"].is_null());
        }
        *w.net.loss.lock() = 0.0;
        assert!(done > 0);
        // Whatever was answered: all see the same in the end.
        for s in w.all() {
            let replies: BTreeSet<String> = s.inbox.got.lock().iter().map(|g| g.subject.clone()).collect();
            assert_eq!(replies.len(), s.inbox.got.lock().len(), "K-4");
        }
        let mut seen = BTreeSet::new();
        for s in w.all() {
            seen.insert(s.good("STREAM.NAMES", "").await["streams"].to_string());
        }
        assert_eq!(seen.len(), 1);
        w.end().await;
    });
}

/// K-13: a server that stood still or was cut off takes up a request again when it hears from the others: by then its operator may have asked somebody else, and a new
/// server may bear the name.
#[test]
fn k13_a_server_that_took_the_name_of_one_that_is_gone_is_not_removed_for_it() {
    run(async {
        let mut w = World::new(5).await;
        w.formed().await;
        drop(w.kill(4).await);
        let others: Vec<NodeId> = (1..4).map(|i| w.at(i).node.node_id()).collect();
        let cut = w.at(0).node.node_id();
        others.iter().for_each(|n| w.net.set(cut, *n, false));
        // Whoever led has to have seen that it is alone.
        until("others lead", || w.at(1).node.meta_leader().filter(|l| l != "s0")).await;
        until("it knows that it is cut off", || w.at(0).node.meta_leader().is_none().then_some(())).await;
        let waiting = {
            let node = w.at(0).node.clone();
            env::spawn(async move { node.operate("SERVER.REMOVE", br#"{"peer":"s4"}"#).await })
        };
        let done = w.at(1).node.operate("SERVER.REMOVE", br#"{"peer":"s4"}"#).await.expect("an answer");
        assert!(String::from_utf8_lossy(&done).contains(r#""success":true"#), "{done:?}");
        w.start(4, &Arc::new(Dir::new())).await;
        let new = w.at(4).node.node_id();
        w.net.set(cut, new, false);
        let members = |i: usize| w.at(i).node.meta.handle().map_or(Vec::new(), |h| h.members().0);
        until("the new one is in", || members(1).contains(&new).then_some(())).await;
        others.iter().chain([&new]).for_each(|n| w.net.set(cut, *n, true));
        let said = waiting.await.expect("it ends").expect("an answer");
        let said: Value = serde_json::from_slice(&said).expect("JSON");
        assert!(!said["error"].is_null(), "{said}");
        assert!(members(1).contains(&new), "{said}");
        w.formed().await;
        w.end().await;
    });
}

/// Disks are replaced one after another, as with nats-server: no operator has to say so, and nothing is lost.
#[test]
fn a_server_with_an_empty_disk_takes_the_place_of_what_it_was() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        w.at(0).good("STREAM.CREATE.S", &stream("S", 3)).await;
        for i in 1..=3 {
            assert_eq!(w.publish("S.x", &i.to_string()).await, i);
        }
        for i in [2, 1, 0] {
            let old = w.at(i).node.node_id();
            w.kill(i).await;
            w.start(i, &Arc::new(Dir::new())).await;
            let (new, other) = (w.at(i).node.node_id(), (i + 1) % 3);
            until("it is in, and what it was is out", || {
                let voters = w.at(other).node.meta.handle().map_or(Vec::new(), |h| h.members().0);
                (voters.len() == 3 && voters.contains(&new) && !voters.contains(&old)).then_some(())
            })
            .await;
            w.eventually(other, "STREAM.INFO.S", |v| all_current(v, 2) && v["state"]["messages"] == 3).await;
        }
        // Names of answers are ids of messages here, and servers that are new begin to count again.
        w.all().for_each(|s| *s.asked.lock() += 1000);
        assert_eq!(w.publish("S.x", "4").await, 4, "none of the first disks is there any more");
        w.end().await;
    });
}

/// What only that disk had is not given up: it may come back. The operator decides, and means the one that is gone.
#[test]
fn what_only_a_lost_disk_had_is_kept_for_it() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        let only = json!({ "name": "O", "subjects": ["O.>"], "placement": { "tags": ["host:s2"] } });
        w.at(0).good("STREAM.CREATE.O", &only.to_string()).await;
        assert_eq!(w.publish("O.x", "1").await, 1);
        w.at(0).good("STREAM.CREATE.S", &stream("S", 3)).await;
        let old = w.at(2).node.node_id();
        let dir = w.kill(2).await;
        w.start(2, &Arc::new(Dir::new())).await;
        w.eventually(0, "STREAM.INFO.S", |v| all_current(v, 2)).await;
        let new = w.at(2).node.node_id();
        let voters = |w: &World| w.at(0).node.meta.handle().map_or(Vec::new(), |h| h.members().0);
        until("the new one is in", || voters(&w).contains(&new).then_some(())).await;
        until("what it was does not vote", || {
            (voters(&w).len() == 3 && !voters(&w).contains(&old)).then_some(())
        })
        .await;
        // It is said what it waits for, wherever somebody looks.
        let v = w.at(0).api("STREAM.INFO.O", "").await;
        let why = "server 's2' has another store now, and it was only in the one before";
        assert_eq!(v["error"]["err_code"], 10194, "{v}");
        assert_eq!(v["error"]["description"], format!("stream is offline: {why}"));
        assert_eq!(w.at(1).api("CONSUMER.INFO.O.c", "").await["error"]["err_code"], 10195);
        assert_eq!(w.at(2).api("STREAM.CREATE.O", &only.to_string()).await["error"]["err_code"], 10194);
        assert_eq!(w.api(1, "STREAM.LIST").await["offline"], json!({ "O": why }));
        for s in w.all() {
            let said = s.node.losses();
            assert!(said.len() == 1 && said[0].contains("'s2'") && said[0].contains("'A > O'"), "{said:?}");
            assert_eq!(s.node.unhealthy(), None, "no start of a server would mend it");
        }
        // A second server may be away as well: two of the three that vote are there.
        let second = w.kill(1).await;
        let v = w.eventually(0, "STREAM.NAMES", |v| v["error"].is_null()).await;
        assert_eq!(v["streams"], json!(["O", "S"]), "{v}");
        let more = json!({ "name": "N", "subjects": ["N.>"], "placement": { "tags": ["host:s0"] } });
        w.at(0).good("STREAM.CREATE.N", &more.to_string()).await;
        w.start(1, &second).await;
        w.kill(2).await;
        w.start(2, &dir).await;
        let v = w.eventually(0, "STREAM.INFO.O", |v| v["error"].is_null()).await;
        assert_eq!(v["state"]["messages"], 1, "{v}");
        assert!(w.all().all(|s| s.node.losses().is_empty()));
        // Now it is the other one whose disk is gone, and it has nothing that only it had.
        until("what it was meanwhile is out", || (!voters(&w).contains(&new)).then_some(())).await;
        until("it votes again, as another life", || {
            let life = w.at(2).node.meta.handle().map_or(0, |h| h.life());
            (voters(&w).len() == 3 && voters(&w).contains(&old) && life > 0).then_some(())
        })
        .await;
        // And what it made of the group is the group's: it has what came while it was away.
        w.eventually(2, "STREAM.NAMES", |v| v["streams"] == json!(["N", "O", "S"])).await;
        assert_eq!(w.publish("O.x", "2").await, 2);
        w.eventually(0, "STREAM.INFO.S", |v| all_current(v, 2)).await;
        w.end().await;
    });
}

/// K-7: a publish that another node gave on is stored by whoever leads, or refused; it never goes without an answer.
#[test]
fn a_publish_that_was_given_to_a_node_without_the_stream_is_answered() {
    run(async {
        let w = World::new(3).await;
        w.formed().await;
        let v = w.at(0).good("STREAM.CREATE.S", &stream("S", 1)).await;
        let leader = w.find(v["cluster"]["leader"].as_str().expect("a leader"));
        let other = (leader + 1) % 3;
        // The one that is asked has to have heard of the stream.
        w.at(other).good("STREAM.INFO.S", "").await;
        let give = |stream: &'static str, subject: &'static str, reply: &str| {
            let f = Forward {
                way: Way::Publish,
                hops: 1,
                account: b"A",
                stream: stream.as_bytes(),
                subject: subject.as_bytes(),
                reply: reply.as_bytes(),
                headers: b"",
                body: b"x",
            };
            let from = w.at((leader + 2) % 3).node.node_id();
            w.at(other).node.received(from, Kind::Forward, f.encode());
        };
        let (gone, moved) = (w.at(other).inbox(), w.at(other).inbox());
        give("GONE", "GONE.x", &gone);
        let v: Value = serde_json::from_str(&w.at(other).wait(&gone, 1).await[0].body).expect("JSON");
        assert_eq!((&v["error"]["code"], &v["stream"]), (&json!(503), &json!("GONE")), "{v}");
        give("S", "S.x", &moved);
        let v: Value = serde_json::from_str(&w.at(other).wait(&moved, 1).await[0].body).expect("JSON");
        assert_eq!(v["seq"], json!(1), "{v}");
        w.end().await;
    });
}

/// A consumer is where its stream is: it does not leave a server by itself.
/// What nats-server 2.15.1 says of a stream whose only server is away, and of streams that could be read instead of one.
#[test]
fn what_is_away_is_listed_and_refused_as_offline() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        let config = |i: usize, more: &Value| {
            let mut v = json!({ "name": "S", "placement": { "tags": [format!("host:s{i}")] } });
            v.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            v.to_string()
        };
        let away = 1;
        w.at(0).good("STREAM.CREATE.S", &config(away, &json!({ "subjects": ["S.>"] }))).await;
        w.at(0).good("STREAM.CREATE.T", &config(0, &json!({ "name": "T" }))).await;
        for (name, of) in [("M", "T"), ("N", "M")] {
            let mirror = json!({ "name": name, "mirror": { "name": of } });
            w.at(0).good(&format!("STREAM.CREATE.{name}"), &config(0, &mirror)).await;
        }
        let alternates = async |of: &str| {
            let v = w.at(2).good(&format!("STREAM.INFO.{of}"), "").await;
            let all = v["alternates"].as_array().cloned().unwrap_or_default();
            assert!(all.iter().all(|a| a["cluster"] == "C"), "{v}");
            all.iter().map(|a| a["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(alternates("T").await, ["T", "M"]);
        assert_eq!(alternates("M").await, ["M", "N"]);
        assert_eq!(alternates("N").await, [""; 0]);
        w.kill(away).await;
        w.eventually(2, "STREAM.NAMES", |v| v["error"].is_null()).await;
        let v = w.api(2, "STREAM.LIST").await;
        let names: Vec<_> =
            v["streams"].as_array().into_iter().flatten().map(|s| s["config"]["name"].clone()).collect();
        assert_eq!((json!(names), &v["missing"]), (json!(["M", "N", "S", "T"]), &json!(["S"])), "{v}");
        let peers = &v["streams"][2]["cluster"]["replicas"];
        assert_eq!((&peers[0]["name"], &peers[0]["offline"]), (&json!("s1"), &json!(true)), "{v}");
        let begun = env::now();
        for (what, code) in [("STREAM.INFO.S", 10118), ("CONSUMER.INFO.S.c", 10119)] {
            assert_eq!(w.api(2, what).await["error"]["err_code"], code, "{what}");
        }
        let more = json!({ "subjects": ["S.>"], "max_msgs": 5 });
        let v = w.at(2).api("STREAM.UPDATE.S", &config(away, &more)).await;
        assert_eq!(v["error"]["err_code"], 10118, "{v}");
        assert!(begun.elapsed() < Duration::from_secs(6), "each within two seconds, which some clients wait");
        let v = w.api(0, "STREAM.LIST").await;
        assert_eq!(v["streams"][2]["config"]["max_msgs"], -1, "what is refused does not come later: {v}");
        w.end().await;
    });
}

/// It waits for a leader as long as an election takes. Once it waited as long as the server was away, and held a place among the requests.
#[test]
fn a_pull_for_a_stream_that_is_away_is_told_so() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        let v = w.at(0).good("STREAM.CREATE.S", &stream("S", 1)).await;
        let c = r#"{"stream_name":"S","config":{"durable_name":"c","ack_policy":"explicit"}}"#;
        w.at(0).good("CONSUMER.CREATE.S.c", c).await;
        let leader = w.find(v["cluster"]["leader"].as_str().expect("a leader"));
        w.kill(leader).await;
        let s = w.at((leader + 1) % 3);
        let (pull, begun) = (s.inbox(), env::now());
        assert_eq!(s.send("$JS.API.CONSUMER.MSG.NEXT.S.c", &pull, r#"{"batch":1,"expires":60000000000}"#), 1);
        let got = s.wait(&pull, 1).await;
        let subject = "Nats-Subject: $JS.API.CONSUMER.MSG.NEXT.S.c";
        assert_eq!(got[0].head, format!("NATS/1.0 503\r\n{subject}\r\n\r\n"));
        assert!(begun.elapsed() > Duration::from_secs(3), "it might have come back");
        w.end().await;
    });
}

#[test]
fn a_mirror_answers_direct_gets_while_its_origin_is_away() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        let on = |i: usize, mut v: Value| {
            v["placement"] = json!({ "tags": [format!("host:s{i}")] });
            v.to_string()
        };
        let s = json!({ "name": "S", "subjects": ["S.>"], "allow_direct": true });
        w.at(0).good("STREAM.CREATE.S", &on(0, s)).await;
        assert_eq!(w.publish("S.x", "1").await, 1);
        // One that has only a part of it is never asked.
        let part = json!({ "name": "PART", "mirror": { "name": "S", "filter_subject": "S.y" }, "mirror_direct": true });
        w.at(0).good("STREAM.CREATE.PART", &on(2, part)).await;
        let m = json!({ "name": "M", "mirror": { "name": "S" }, "mirror_direct": true, "num_replicas": 3 });
        w.at(0).good("STREAM.CREATE.M", &m.to_string()).await;
        // Copies cross only routes, and there are none here.
        w.at(0).api("STREAM.LEADER.STEPDOWN.M", r#"{"placement":{"preferred":"s0"}}"#).await;
        w.eventually(1, "STREAM.INFO.M", |v| v["state"]["messages"] == 1 && all_current(v, 2)).await;
        w.kill(0).await;
        for i in [1, 2] {
            let s = w.at(i);
            for (of, body) in [("S", r#"{"seq":1}"#), ("S.S.x", "")] {
                let end = env::now() + PATIENCE;
                loop {
                    let to = s.inbox();
                    if s.send(&format!("$JS.API.DIRECT.GET.{of}"), &to, body) > 0 {
                        let got = s.wait(&to, 1).await.remove(0);
                        if got.body == "1" {
                            assert!(got.head.contains("Nats-Stream: M\r\n"), "{got:?}");
                            break;
                        }
                    }
                    assert!(env::now() < end, "nobody answers for {of}");
                    env::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        w.end().await;
    });
}

#[test]
fn a_consumer_does_not_leave_a_server_without_its_stream() {
    run(async {
        let w = World::new(3).await;
        w.formed().await;
        w.at(0).good("STREAM.CREATE.S", &stream("S", 3)).await;
        let config =
            json!({ "stream_name": "S", "config": { "durable_name": "D", "ack_policy": "explicit" } });
        w.at(0).good("CONSUMER.DURABLE.CREATE.S.D", &config.to_string()).await;
        for (consumer, peer, code) in [("D", "s1", 10075), ("D", "nobody", 10040), ("X", "s1", 10014)] {
            for what in ["REMOVE", "EVACUATE"] {
                let body = json!({ "peer": peer }).to_string();
                let v = w.at(2).api(&format!("CONSUMER.PEER.{what}.S.{consumer}"), &body).await;
                assert_eq!(v["error"]["err_code"], json!(code), "{consumer} {peer}: {v}");
            }
        }
        w.end().await;
    });
}

/// A stream of one replica gets three, and its first server loses the end of its journal, which says so: it asks the others before it opens it, and follows them.
#[test]
fn k12_who_forgot_that_there_are_others_asks_them() {
    run(async {
        let mut w = World::new(3).await;
        w.formed().await;
        let made = w.at(0).good("STREAM.CREATE.S", &stream("S", 1)).await;
        assert_eq!(w.publish("S.x", "one").await, 1);
        let first = w.find(made["cluster"]["leader"].as_str().expect("it is led"));
        w.at(first).node.replicas.flush().await.expect("it flushes");
        w.at(1).good("STREAM.UPDATE.S", &stream("S", 3)).await;
        w.eventually(2, "STREAM.INFO.S", |v| all_current(v, 2) && v["state"]["messages"] == 1).await;
        assert_eq!(w.publish("S.x", "two").await, 2);
        // As after a power failure: nothing was closed.
        let damaged = w.at(first).dir.copy();
        damaged.cut_journal();
        w.kill(first).await;
        assert_eq!(w.publish("S.x", "three").await, 3);
        w.start(first, &damaged).await;
        w.eventually(first, "STREAM.INFO.S", |v| all_current(v, 2) && v["state"]["messages"] == 3).await;
        // What is not answered in time is published again.
        let last = w.publish("S.x", "four").await;
        assert!(last >= 4, "{last} was given before");
        w.eventually(first, "STREAM.INFO.S", |v| all_current(v, 2) && v["state"]["messages"] == last).await;
        let mine = w.at(first).node.replicas.all().into_iter().find(|h| h.id().0 != crate::meta::META_GROUP);
        let mine = mine.expect("it has the stream");
        until("it has caught up and is trusted again", || (!mine.status().damaged).then_some(())).await;
        assert_eq!(mine.members().0.len(), 3);
        w.end().await;
    });
}

/// The same for the meta group of a server that was alone, which no assignment names.
#[test]
fn k12_who_took_others_into_its_meta_group_and_forgot_is_not_alone() {
    run(async {
        let dir = Arc::new(Dir::new());
        let alone = Server::start(None, "s0", &dir).await;
        alone.good("STREAM.CREATE.S", &stream("S", 1)).await;
        alone.node.close().await;
        drop(alone);
        let mut w = World::around(&dir).await;
        // In the middle of a change nobody could lead without the one that is in doubt.
        until("all changes of members are through", || {
            let through = |s: &Server| s.node.meta.handle().is_some_and(|h| h.status().outgoing.is_empty());
            w.all().all(through).then_some(())
        })
        .await;
        let damaged = w.at(0).dir.copy();
        damaged.cut_journal();
        w.kill(0).await;
        w.start(0, &damaged).await;
        w.formed().await;
        w.at(0).good("STREAM.CREATE.T", &stream("T", 3)).await;
        w.end().await;
    });
}
