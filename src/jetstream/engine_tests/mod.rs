//! The engine of one server, on a simulated disk, with a client that is a link of the broker's: no sockets.
//!
//! Owns the harness. What is tested stands in the modules below.

mod backups;
mod consumers;
mod direct;
mod health;
mod keeping;
mod leading;
mod limits;
mod making;
mod requests;
mod rights;
mod runs;
mod shown;
mod sources;

use std::{sync::Arc, time::Duration};

use broker::{Account, Broker, Deliveries, Inbound, Kind, Link, LinkOptions, Message, Sub};
use env::{
    Rng,
    simdisk::{Options as DiskOptions, SimDisk},
};
use parking_lot::Mutex;
use replica::NodeId;
use serde_json::Value;
use store::{Disk, Store, io::SimHandle};
use tokio::sync::Notify;

use crate::{AccountLimits, ClientInfo, Host, JetStream, Options, post::Posts, shell::Stream};

/// How long anything may take before the test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that has a name and nothing else.
struct Bare;

impl Host for Bare {
    fn name(&self) -> String {
        "S".into()
    }
    fn id(&self) -> String {
        "ID".into()
    }
    fn cluster(&self) -> String {
        String::new()
    }
    fn client(&self, _: &Link, _: &str, _: &[u8]) -> ClientInfo {
        ClientInfo::default()
    }
    fn system_account(&self) -> String {
        String::new()
    }
    fn log(&self, _: &'static str, _: &str) {}
}

/// A message that came.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub subject: String,
    pub reply: String,
    pub head: String,
    pub body: String,
    pub bytes: Vec<u8>,
}

#[derive(Default)]
struct Inbox {
    got: Mutex<Vec<Got>>,
    came: Notify,
}

struct Ear(Arc<Inbox>);

impl Inbound for Ear {
    fn serves(&self) -> bool {
        false
    }
    fn listens(&self, _: &[u8]) -> bool {
        true
    }
    fn deliver(&self, _: &mut Deliveries, sub: &Sub, _: &Arc<Link>, m: &Message<'_>) -> bool {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        // Under the subject to which it was sent, not the one that it shows.
        let subject = if sub.subject() == b"_INBOX.>" { text(m.subject) } else { text(sub.subject()) };
        self.0.got.lock().push(Got {
            subject,
            reply: text(m.reply),
            head: text(m.header()),
            body: text(m.payload()),
            bytes: m.payload().to_vec(),
        });
        self.0.came.notify_waiters();
        true
    }
}

/// A server with one account and one client.
pub(super) struct Server {
    pub node: Arc<JetStream>,
    pub account: Arc<Account>,
    broker: Arc<Broker>,
    link: Arc<Link>,
    posts: Posts,
    inbox: Arc<Inbox>,
    asked: Mutex<u64>,
}

pub(super) fn new_disk() -> SimHandle {
    let options = DiskOptions { sector: 512, ..DiskOptions::default() };
    SimHandle::new(SimDisk::new(options, Rng::derived(1, "disk")), false)
}

impl Server {
    pub(super) async fn start(disk: &SimHandle) -> Server {
        Server::start_in(disk, Arc::new(Broker::default()), "A").await
    }
    /// An engine beside others on one broker: as if servers were joined by an account each.
    pub(super) async fn start_in(disk: &SimHandle, broker: Arc<Broker>, account: &str) -> Server {
        let options = store::Options {
            sector: 512,
            journal_file_min: 64 << 10,
            journal_file_max: 1 << 20,
            journal_budget: 4 << 20,
            reserve: 4 << 10,
            threads: false,
            ..store::Options::default()
        };
        let store = Store::open(Disk::Sim(disk.clone()), "/js", options).await.expect("the store opens");
        let options = Options::for_tests("/js".into());
        let node =
            JetStream::open_on(store, NodeId::new(1, 0), broker.clone(), options, Arc::new(Bare), None)
                .await
                .expect("it opens");
        let account = broker.account_or_new(account);
        node.set_account(&account, Some(AccountLimits::default()));
        let inbox = Arc::new(Inbox::default());
        let link = Link::new(LinkOptions {
            id: broker.next_id(),
            kind: Kind::Internal,
            worker: 0,
            pending_bytes_max: 0,
            transport: None,
            inbound: Some(Box::new(Ear(inbox.clone()))),
        });
        let posts = Posts::new(broker.clone(), link.clone(), account.clone());
        let s = Server { node, account, broker, link, posts, inbox, asked: Mutex::new(0) };
        s.subscribe("_INBOX.>");
        s
    }
    pub(super) fn subscribe(&self, subject: &str) {
        let sid = subject.as_bytes();
        self.link
            .subscribe(&self.account, sid, subject.as_bytes(), b"", false)
            .expect("a link of ours is open");
    }
    /// Sends; how many got it.
    pub(super) fn publish(&self, subject: &str, reply: &str, body: &str) -> usize {
        self.publish_bytes(subject, reply, "", body.as_bytes())
    }
    /// The same with a header block.
    pub(super) fn publish_bytes(&self, subject: &str, reply: &str, head: &str, body: &[u8]) -> usize {
        self.posts.take().send(
            subject.as_bytes(),
            None,
            reply.as_bytes(),
            head.len(),
            &[head.as_bytes(), body],
        )
    }
    /// A subject for one answer.
    pub(super) fn inbox(&self) -> String {
        let mut asked = self.asked.lock();
        *asked += 1;
        format!("_INBOX.{asked}")
    }
    /// All that came to a subject so far.
    pub(super) fn got(&self, subject: &str) -> Vec<Got> {
        self.inbox.got.lock().iter().filter(|g| g.subject == subject).cloned().collect()
    }
    /// Returns when `n` messages have come to a subject.
    pub(super) async fn wait(&self, subject: &str, n: usize) -> Vec<Got> {
        self.until(&format!("{n} messages to {subject}"), || {
            let got = self.got(subject);
            (got.len() >= n).then_some(got)
        })
        .await
    }
    /// Returns what `f` finds, as soon as it does.
    pub(super) async fn until<T>(&self, what: &str, f: impl Fn() -> Option<T>) -> T {
        let wait = async {
            loop {
                let came = self.inbox.came.notified();
                if let Some(t) = f() {
                    return t;
                }
                env::timeout(Duration::from_millis(2), came).await.ok();
            }
        };
        env::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("in vain: {what}"))
    }
    /// A request and its answer, which nobody else gets.
    pub(super) async fn ask(&self, subject: &str, body: &str) -> Got {
        let reply = self.inbox();
        assert!(self.publish(subject, &reply, body) > 0, "nobody takes {subject}");
        self.wait(&reply, 1).await.remove(0)
    }
    /// A request of the API.
    pub(super) async fn api(&self, what: &str, body: &str) -> Value {
        serde_json::from_str(&self.ask(&format!("$JS.API.{what}"), body).await.body).expect("JSON")
    }
    pub(super) async fn make_stream(&self, config: &str) -> Arc<Stream> {
        let c: Value = serde_json::from_str(config).expect("JSON");
        let name = c["name"].as_str().expect("a name");
        let r = self.api(&format!("STREAM.CREATE.{name}"), config).await;
        assert!(r["error"].is_null(), "{r}");
        self.stream(name)
    }
    pub(super) fn stream(&self, name: &str) -> Arc<Stream> {
        self.node.assets(&self.account).stream(name).expect("the stream is there")
    }
    pub(super) async fn make_consumer(&self, stream: &str, name: &str, config: &str) {
        let body = format!("{{\"stream_name\":\"{stream}\",\"config\":{config}}}");
        let r = self.api(&format!("CONSUMER.CREATE.{stream}.{name}"), &body).await;
        assert!(r["error"].is_null(), "{r}");
    }
    pub(super) async fn consumer_info(&self, stream: &str, name: &str) -> Value {
        self.api(&format!("CONSUMER.INFO.{stream}.{name}"), "").await
    }
    /// A pull request; where its messages come.
    pub(super) fn pull(&self, stream: &str, consumer: &str, body: &str) -> String {
        let to = self.inbox();
        assert!(self.publish(&format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"), &to, body) > 0);
        to
    }
    /// A publish and its sequence.
    pub(super) async fn store(&self, subject: &str, body: &str) -> u64 {
        let a: Value = serde_json::from_str(&self.ask(subject, body).await.body).expect("JSON");
        a["seq"].as_u64().filter(|n| *n > 0).unwrap_or_else(|| panic!("{a}"))
    }
    /// Ends cleanly.
    pub(super) async fn close(self) {
        self.node.close().await;
    }
}

/// One life of a disk: `f` is given a running server, which then dies with the power.
fn life<F: Future<Output = ()>>(disk: &SimHandle, f: impl FnOnce(Arc<Server>) -> F) {
    env::run(async {
        let server = Arc::new(Server::start(disk).await);
        f(server).await;
    })
    .expect("a runtime starts");
    disk.with(|d| d.power_failure());
}
