//! What the server publishes about itself under `$SYS`, and what it answers there: advisories of connections and accounts,
//! statistics, requests, latencies of services, traces of messages.
//!
//! Owns: the contents of these messages and when they are sent. Does not own: the statistics of monitoring endpoints
//! (`monitor`), who may log in, how a message finds its receivers.
//!
//! Start reading at [`start`], then `requests`. docs/design/0008-system-account.md says why it is so.
//!
//! Invariants:
//! * Y-1: an event costs nothing but a look at the interest while nobody listens to it.
//! * Y-2: an account sees of others only what its own requests are clamped to: itself.
//! * Y-3: requests that are being answered are bounded in number; beyond that they are dropped and counted.

mod encode;
mod endpoints;
mod fields;
mod ids;
mod latency;
mod parts;
mod relay;
mod requests;
mod ticks;
mod trace;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
};

use broker::{Account, Broker, Counter, Deliveries, Kind, Link, LinkOptions, Message, Traffic};
use links::{Client, ClosedClient};
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use self::{ids::Ids, parts::Who};
use crate::{Server, settings::GLOBAL_ACCOUNT};

pub use latency::{latency, request_info};
pub(crate) use parts::feature_flags;
pub use trace::traced;

/// What the server remembers for its events.
pub struct Events {
    /// Who publishes them.
    link: Arc<Link>,
    system: RwLock<Option<Arc<Account>>>,
    seq: AtomicU64,
    ids: Mutex<Ids>,
    /// Requests that are being answered.
    in_flight: AtomicUsize,
    /// Requests that were dropped because too many were being answered (Y-3).
    dropped: Counter,
    /// What other servers are asked in accounts' names.
    relay: relay::Relay,
    /// Statistics are to be published before their time.
    statsz_wanted: AtomicBool,
    /// Moment and processor seconds of the last look, and the percentage that it gave.
    cpu: Mutex<(env::Instant, f64, f64)>,
}

impl Events {
    /// Of a server that has not begun yet.
    pub fn new(broker: &Broker) -> Events {
        Events {
            link: internal(broker, None),
            system: RwLock::default(),
            seq: AtomicU64::new(0),
            ids: Mutex::new(Ids::new(&mut env::rng("event ids"))),
            in_flight: AtomicUsize::new(0),
            dropped: Counter::default(),
            relay: relay::Relay::default(),
            statsz_wanted: AtomicBool::new(false),
            cpu: Mutex::new((env::now(), env::process::cpu_seconds(), 0.0)),
        }
    }
    /// The system account, if there is one.
    fn system(&self) -> Option<Arc<Account>> {
        self.system.read().clone()
    }
    /// A new id.
    fn id(&self) -> String {
        self.ids.lock().next()
    }
    /// Requests that were dropped because too many were being answered.
    pub fn requests_dropped(&self) -> u64 {
        self.dropped.get()
    }
}

/// A link of the server itself.
fn internal(broker: &Broker, inbound: Option<Box<dyn broker::Inbound>>) -> Arc<Link> {
    let o = LinkOptions {
        id: broker.next_id(),
        kind: Kind::Internal,
        worker: 0,
        pending_bytes_max: 0,
        transport: None,
        inbound,
    };
    let link = Link::new(o);
    // Who asks says where the answer goes (B-11).
    link.set_flags(broker::LinkFlags::ECHO.with(broker::LinkFlags::NO_REQUESTS));
    link
}

/// What advisories of JetStream in `to` say of a client whose request, with this header block, has come there. Of somebody in another
/// account they say what the import has said: no more than is shared.
pub fn client_of(server: &Server, link: &Link, to: &str, headers: &[u8]) -> jetstream::ClientInfo {
    if link.account().is_some_and(|a| *a.name != *to) {
        let told = wire::headers::get(headers, broker::REQUEST_INFO);
        let mut client: jetstream::ClientInfo =
            told.and_then(|info| serde_json::from_slice(info).ok()).unwrap_or_default();
        client.svc = to.to_string();
        client.server.clone_from(&server.name);
        client.cluster = server.cluster.name();
        return client;
    }
    let account = || link.account().map(|a| a.name.to_string()).unwrap_or_default();
    match server.links.clients.get(link.id) {
        Some(client) => {
            let facts = client.facts.lock();
            let who = Who::of(&client, &facts);
            jetstream::ClientInfo {
                start: Some(jetstream::Time::from_nanos(who.start.0)),
                host: who.ip.to_canonical().to_string(),
                id: who.id,
                acc: who.account.to_string(),
                user: facts.user.clone(),
                name: facts.name.clone(),
                lang: facts.lang.clone(),
                ver: facts.version.clone(),
                rtt: who.rtt.and_then(|d| u64::try_from(d.as_nanos()).ok()).unwrap_or(0),
                server: server.name.clone(),
                cluster: server.cluster.name(),
                kind: "Client".into(),
                client_type: facts.kind.into(),
                ..Default::default()
            }
        }
        None => jetstream::ClientInfo { acc: account(), server: server.name.clone(), ..Default::default() },
    }
}

/// Begins to answer requests and to publish statistics. Once, before clients come.
pub fn start(server: &Arc<Server>) {
    if let Some(name) = server.links.settings().system_account.clone() {
        let system = server.broker.account_or_new(&name);
        *server.events.system.write() = Some(system.clone());
        requests::serve_system(server, &system);
        relay::start(server, &system);
        for account in server.broker.accounts() {
            account_made(server, &account);
        }
    }
    env::spawn(ticks::run(Arc::downgrade(server)));
}

/// There is a new account.
pub fn account_made(server: &Arc<Server>, account: &Arc<Account>) {
    match server.events.system() {
        Some(system) if !Arc::ptr_eq(&system, account) => requests::serve_account(server, account, &system),
        _ => {}
    }
}

/// The system account, if somebody listens to `subject` there (Y-1).
fn listening(server: &Server, subject: &str) -> Option<Arc<Account>> {
    server.events.system().filter(|s| s.has_interest(subject.as_bytes()))
}

/// Sends one message into `account`. `head` is a header block or empty.
fn publish(server: &Server, account: &Account, subject: &[u8], head: &[u8], body: &[u8]) -> usize {
    let mut d = Deliveries::new(server.broker.clone(), server.events.seq.load(Relaxed));
    publish_with(server, &mut d, account, subject, head, body)
}

/// As [`publish`], with the deliveries of a message that is on its way.
fn publish_with(
    server: &Server,
    d: &mut Deliveries,
    account: &Account,
    subject: &[u8],
    head: &[u8],
    body: &[u8],
) -> usize {
    send(d, account, &server.events.link, (subject, b""), head, body)
}

/// Sends a message of `link` to a subject, with a reply subject if that is not empty.
fn send(
    d: &mut Deliveries,
    account: &Account,
    link: &Arc<Link>,
    (subject, reply): (&[u8], &[u8]),
    head: &[u8],
    body: &[u8],
) -> usize {
    let mut bytes = Vec::with_capacity(head.len() + body.len() + 2);
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(b"\r\n");
    let m = Message { subject, reply, header_len: head.len(), body_crlf: &bytes, shared: None, shown: None };
    d.publish(account, link, &m)
}

/// Publishes an event in the system account if anybody wants it.
fn emit(server: &Server, subject: &str, event: impl FnOnce() -> Value) {
    if let Some(system) = listening(server, subject) {
        publish(server, &system, subject.as_bytes(), b"", &encode::json(&event()));
    }
}

/// The front of a typed event.
fn typed(server: &Server, name: &str) -> Value {
    json!({
        "type": format!("io.nats.server.advisory.v1.{name}"),
        "id": server.events.id(),
        "timestamp": env::wall().rfc3339(),
        "server": parts::server(server),
    })
}

/// Puts the fields of `b` behind those of `a`.
fn joined(mut a: Value, b: Value) -> Value {
    if let (Value::Object(a), Value::Object(b)) = (&mut a, b) {
        a.extend(b);
    }
    a
}

/// A client has logged in.
pub fn connected(server: &Arc<Server>, client: &Client) {
    let name = client.facts.lock().account.clone();
    account_changed(server, &name);
    emit(server, &format!("$SYS.ACCOUNT.{name}.CONNECT"), || {
        let facts = client.facts.lock();
        let who = Who { tagged: true, ..Who::of(client, &facts) };
        joined(typed(server, "client_connect"), json!({ "client": Who { rtt: None, ..who }.json() }))
    });
    if server.events.system().is_some_and(|s| *s.name == *name) {
        server.events.statsz_wanted.store(true, Relaxed);
    }
}

/// A client is gone.
pub fn disconnected(server: &Arc<Server>, client: &ClosedClient) {
    let name = &client.facts.account;
    account_changed(server, name);
    emit(server, &format!("$SYS.ACCOUNT.{name}.DISCONNECT"), || {
        let who = Who { tagged: true, ..Who::of_closed(client) };
        disconnect(server, who, client.received, client.sent, client.reason.text())
    });
}

/// The event about the end of a connection. What was sent and received is told from the client's side, as nats-server tells it.
fn disconnect(server: &Server, who: Who<'_>, sent: Traffic, received: Traffic, reason: &str) -> Value {
    let traffic = |t: Traffic| json!({ "msgs": t.msgs, "bytes": t.bytes });
    let rest = json!({
        "client": who.json(),
        "sent": traffic(sent),
        "received": traffic(received),
        "reason": reason,
    });
    joined(typed(server, "client_disconnect"), rest)
}

/// A client was refused.
pub fn auth_error(server: &Arc<Server>, client: &Client, reason: &str) {
    // Who is not let in belongs to no account; nats-server counts him to the global one.
    let subjects = [
        format!("$SYS.SERVER.{}.CLIENT.AUTH.ERR", server.id()),
        format!("$SYS.ACCOUNT.{GLOBAL_ACCOUNT}.DISCONNECT"),
    ];
    for subject in subjects {
        emit(server, &subject, || {
            let facts = client.facts.lock();
            let who = Who {
                tagged: true,
                account: GLOBAL_ACCOUNT,
                stop: Some(env::wall()),
                ..Who::of(client, &facts)
            };
            let sent = Traffic { msgs: client.link.in_msgs.get(), bytes: client.link.in_bytes.get() };
            disconnect(server, who, sent, Traffic::default(), reason)
        });
    }
}

/// The number of an account's connections has changed, or it is time to say it again.
fn account_changed(server: &Server, name: &str) {
    let subjects = [format!("$SYS.SERVER.ACCOUNT.{name}.CONNS"), format!("$SYS.ACCOUNT.{name}.SERVER.CONNS")];
    let mut event = None;
    for subject in subjects {
        let Some(system) = listening(server, &subject) else { continue };
        let Some(account) = server.broker.account(name) else { return };
        // One event under its old and its new name: only the number of the message differs.
        let event = event.get_or_insert_with(|| account_connections(server, &account));
        event["server"] = parts::server(server);
        publish(server, &system, subject.as_bytes(), b"", &encode::json(event));
    }
}

/// The event about an account's connections.
fn account_connections(server: &Server, account: &Account) -> Value {
    joined(typed(server, "account_connections"), parts::account(account))
}

/// Publishes the server's statistics.
fn statistics(server: &Server) {
    emit(
        server,
        &format!("$SYS.SERVER.{}.STATSZ", server.id()),
        || json!({ "server": parts::server(server), "statsz": parts::statistics(server) }),
    );
}

/// The server is about to end.
pub fn shutdown(server: &Arc<Server>) {
    emit(server, &format!("$SYS.SERVER.{}.SHUTDOWN", server.id()), || parts::server(server));
}

/// The server has become a lame duck.
pub fn lame_duck(server: &Arc<Server>) {
    emit(server, &format!("$SYS.SERVER.{}.LAMEDUCK", server.id()), || parts::server(server));
}
