//! What connections are told by the server, and what they tell it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::*},
    },
    time::Duration,
};

use broker::Broker;
use env::{Worker, rng::Rng};
use identity::Authenticator;
use parking_lot::{Mutex, RwLock};
use wire::info::Info;

use crate::{Client, ClosedClient, Cpu, Registry, TlsSettings, Tracing, WebSocketSettings};

/// What a reload may change. A connection looks at it when it is woken with a newer one.
#[derive(Clone)]
pub struct Settings {
    /// The INFO of this server, without what belongs to one connection.
    pub info: Info,
    /// Moves when clients are to be sent the INFO again.
    pub announced: u64,
    /// Who may log in.
    pub authenticator: Arc<Authenticator>,
    /// Account of clients that need not log in.
    pub default_account: String,
    /// The system account's name, if there is one.
    pub system_account: Option<String>,
    /// Longest line in bytes.
    pub control_line_bytes_max: usize,
    /// Largest message in bytes.
    pub payload_bytes_max: usize,
    /// Largest outbox in bytes.
    pub pending_bytes_max: usize,
    /// Clients at a time.
    pub connections_max: Option<usize>,
    /// Subscriptions of a client.
    pub subscriptions_max: Option<usize>,
    /// Tokens of a subscription's subject.
    pub subscription_tokens_max: Option<usize>,
    /// Idle time after which a PING is sent.
    pub ping_interval: Duration,
    /// Unanswered PINGs after which a connection is stale.
    pub pings_out_max: u32,
    /// How long a socket may take nothing.
    pub write_deadline: Duration,
    /// How long a client may take to log in.
    pub auth_timeout: Duration,
    /// Publishers are not held back for slow receivers.
    pub no_stall: bool,
    /// Headers are supported.
    pub headers: bool,
    /// Closed clients that are remembered.
    pub closed_clients_max: usize,
    /// TLS of the client port.
    pub tls: Option<Arc<TlsSettings>>,
    /// Connections to the client port may begin with a PROXY header, within that time (see [`crate::proxy::TIMEOUT`]); none
    /// expects no header.
    pub proxy_protocol: Option<Duration>,
    /// WebSocket clients.
    pub websocket: Option<Arc<WebSocketSettings>>,
}

/// What the server wants to hear. Calls are short and do not block.
pub trait Hooks: Send + Sync {
    /// A client has logged in.
    fn connected(&self, client: &Client);
    /// A client that had logged in is gone.
    fn disconnected(&self, client: &ClosedClient);
    /// A client was refused.
    fn auth_error(&self, client: &Client, reason: &str);
    /// Something to be noted in the log about a connection; `level` as in the log's marks (`INF`, `WRN`, `ERR`, `DBG`, `TRC`).
    fn log(&self, level: &'static str, client: &Client, text: &str);
    /// The same of what clients can cause as often as they like: a text that was written a moment ago may be left out.
    fn log_rarely(&self, level: &'static str, client: &Client, text: &str) {
        self.log(level, client, text);
    }
    /// The same of a connection that never became a client.
    fn log_unbound(&self, _level: &'static str, _text: &str) {}
    /// What connections are to report of the lines that they read and write, if anything (as `TRC` of [`Hooks::log`]).
    fn tracing(&self) -> Option<Tracing> {
        None
    }
}

/// What all connections of a server share.
pub struct Context {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Who is connected.
    pub clients: Registry,
    /// The server.
    pub hooks: Box<dyn Hooks>,
    /// Where connections live.
    pub workers: Vec<Worker>,
    /// Where logins that take long are decided.
    pub cpu: Cpu,
    next_worker: AtomicUsize,
    settings: RwLock<Arc<Settings>>,
    rng: Mutex<Rng>,
    /// No new connections are taken.
    pub lame_duck: AtomicBool,
}

impl Context {
    /// A context.
    pub fn new(
        broker: Arc<Broker>,
        hooks: Box<dyn Hooks>,
        workers: Vec<Worker>,
        settings: Settings,
    ) -> Arc<Context> {
        Arc::new(Context {
            broker,
            clients: Registry::default(),
            hooks,
            workers,
            cpu: Cpu::default(),
            next_worker: AtomicUsize::new(0),
            settings: RwLock::new(Arc::new(settings)),
            rng: Mutex::new(env::rng::rng("links")),
            lame_duck: AtomicBool::new(false),
        })
    }
    /// The settings of now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }
    /// Puts new settings in force; every connection is woken to look at them.
    pub fn set_settings(&self, s: Settings) {
        *self.settings.write() = Arc::new(s);
        for c in self.clients.open() {
            c.link.wake.notify_one();
        }
    }
    pub(crate) fn next_worker(&self) -> &Worker {
        let n = self.next_worker.fetch_add(1, Relaxed);
        &self.workers[n % self.workers.len()]
    }
    pub(crate) fn random(&self) -> u64 {
        self.rng.lock().next_u64()
    }
    pub(crate) fn fill_random(&self, buf: &mut [u8]) {
        self.rng.lock().fill(buf)
    }
}
