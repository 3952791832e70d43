//! A server from its options to its end: listeners, files for others, signals, reload, lame duck, shutdown.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    time::Duration,
};

use broker::{Broker, Closed};
use env::{
    Wall, Workers,
    net::TcpListener,
    signal::{Signal, Signals},
    watch,
};
use identity::{Authenticator, ServerKey};
use links::Context;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use wire::info::Info;

use crate::{
    cluster::{self, Cluster},
    files::{self, Ports},
    hooks::ServerHooks,
    log::Log,
    options::{self, Flags, NATS_VERSION, Options},
    quiet::{self, Quiet, Seen},
    settings,
    transports::{self, Transports},
};

/// Fulmar's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// JetStream API level of the NATS version that is implemented.
pub const API_LEVEL: u64 = 5;

/// Larger payloads are warned of.
const PAYLOAD_ADVISED_MAX: usize = 8 << 20;

/// How often a lame duck looks whether its last client has gone.
const LAME_DUCK_LOOK: Duration = Duration::from_millis(50);

/// How long a reload waits for connections to take the new settings.
const SETTLE_MAX: Duration = Duration::from_millis(250);

/// A running server.
pub struct Server {
    /// Its key; the public half is its id.
    pub key: ServerKey,
    /// Configured name, or the id.
    pub name: String,
    /// Since when it runs.
    pub start: Wall,
    /// Monotonic moment of the start.
    pub started: env::Instant,
    /// When its configuration was last read.
    pub config_time: Mutex<Wall>,
    options: RwLock<Arc<Options>>,
    transports: RwLock<Transports>,
    flags: Flags,
    /// Its log.
    pub log: Arc<Log>,
    /// Accounts and links.
    pub broker: Arc<Broker>,
    /// Clients.
    pub links: Arc<Context>,
    /// What it is as a member of a cluster.
    pub cluster: Cluster,
    /// Addresses that are bound.
    pub bound: Mutex<Bound>,
    /// What it says about itself.
    pub events: crate::events::Events,
    /// Streams and consumers, while JetStream is on.
    pub jetstream: RwLock<Option<Arc<jetstream::JetStream>>>,
    /// What monitoring remembers.
    pub monitor: crate::monitor::State,
    /// Worker threads.
    workers: Workers,
    lame_duck: AtomicBool,
    lame_duck_notice: Notify,
    stop: watch::Sender<bool>,
    reloads: tokio::sync::Mutex<()>,
}

/// Addresses that listeners have.
#[derive(Clone, Copy, Default, Debug)]
pub struct Bound {
    /// Client port.
    pub client: Option<SocketAddr>,
    /// WebSocket.
    pub websocket: Option<SocketAddr>,
    /// Other servers of the cluster.
    pub cluster: Option<SocketAddr>,
    /// Monitoring without TLS.
    pub http: Option<SocketAddr>,
    /// Monitoring with TLS.
    pub https: Option<SocketAddr>,
}

/// Why a server could not start: one sentence a line, ready for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartError(pub Vec<String>);

impl Server {
    /// Makes a server that listens nowhere yet.
    pub fn new(options: Options, flags: Flags) -> Result<Arc<Server>, StartError> {
        let one = |e: String| StartError(vec![e]);
        let log = Arc::new(
            Log::open(&options.log)
                .map_err(|e| one(format!("error opening log file: {}", files::plain(&e))))?,
        );
        let mut rng = env::rng("server key");
        let mut seed = [0; 32];
        rng.fill(&mut seed);
        let key = ServerKey::from_seed(seed);
        let name = options.server_name.clone().unwrap_or_else(|| key.public().to_string());
        let cores = Workers::cores();
        let workers =
            Workers::start(cores).map_err(|e| one(format!("worker threads cannot be started: {e}")))?;
        let broker = Arc::new(Broker::default());
        let mut cache_key = [0; 32];
        rng.fill(&mut cache_key);
        let authenticator =
            Authenticator::new(settings::logins(&options), cache_key).map_err(|e| one(e.to_string()))?;
        let rules = settings::account_rules(&options).map_err(StartError)?;
        let (hooks, hooks_slot) = ServerHooks::new(log.clone());
        broker.set_crossing(Box::new(hooks.clone()));
        let cluster = cluster::make(
            &options,
            cluster::Parts {
                broker: &broker,
                id: key.public(),
                name: &name,
                log: &log,
                workers: workers.all().to_vec(),
                hooks: hooks_slot.clone(),
            },
        )
        .map_err(one)?;
        broker.configure(&rules).map_err(StartError)?;
        let info = base_info(&options, &key, &name);
        let settings = settings::link_settings(&options, info, Arc::new(authenticator));
        let links = Context::new(broker.clone(), Box::new(hooks), workers.all().to_vec(), settings);
        let events = crate::events::Events::new(&broker);
        let server = Arc::new(Server {
            key,
            name,
            start: env::wall(),
            started: env::now(),
            config_time: Mutex::new(env::wall()),
            options: RwLock::new(Arc::new(options)),
            transports: RwLock::default(),
            flags,
            log,
            broker,
            links,
            cluster,
            bound: Mutex::default(),
            events,
            jetstream: RwLock::default(),
            monitor: crate::monitor::State::new(),
            workers,
            lame_duck: AtomicBool::new(false),
            lame_duck_notice: Notify::new(),
            stop: watch::channel(false).0,
            reloads: tokio::sync::Mutex::new(()),
        });
        hooks_slot.set(Arc::downgrade(&server)).ok();
        Ok(server)
    }

    /// The options of now.
    pub fn options(&self) -> Arc<Options> {
        self.options.read().clone()
    }
    /// The server's id: its public key.
    pub fn id(&self) -> &str {
        self.key.public()
    }
    /// Number of worker threads.
    pub fn workers(&self) -> usize {
        self.workers.all().len()
    }

    /// Listens, and serves until the server is told to stop. Returns the exit code.
    pub async fn run(self: &Arc<Server>) -> i32 {
        match self.listen().await {
            Ok(()) => {}
            Err(StartError(lines)) => {
                for l in lines {
                    self.log.fatal(format_args!("{l}"));
                }
                return 1;
            }
        }
        let mut stop = self.stop.subscribe();
        // The sender lives as long as the server: waiting cannot fail.
        stop.wait_for(|s| *s).await.ok();
        self.shut_down().await;
        0
    }

    /// Binds all listeners and says so.
    pub async fn listen(self: &Arc<Server>) -> Result<(), StartError> {
        let o = self.options();
        self.greet(&o);
        env::process::raise_open_file_limit().ok();
        if let Some(path) = &o.pid_file
            && let Err(e) = files::write_pid(path).await
        {
            return Err(StartError(vec![format!(
                "Could not write pidfile: open {path}: {}",
                files::plain(&e)
            )]));
        }
        crate::events::start(self);
        let one = |e: String| StartError(vec![e]);
        crate::jetstream::start(self, &o).await.map_err(one)?;
        let transports = transports::build(&o).await.map_err(one)?;
        for w in &transports.warnings {
            self.log.warn(format_args!("{w}"));
        }
        *self.transports.write() = transports;
        crate::monitor::listen(self, &o).await?;
        let mut websocket = None;
        if let Some(w) = &o.websocket {
            let (listener, bound) = bind(&w.host, w.port, "websocket port").await?;
            self.bound.lock().websocket = Some(bound);
            let scheme = if w.tls.is_some() { "wss" } else { "ws" };
            self.log.info(format_args!(
                "Listening for websocket clients on {scheme}://{}",
                shown(&w.host, bound)
            ));
            websocket = Some(listener);
        }
        let (client, bound) = bind(&o.host, o.port, "port").await?;
        self.bound.lock().client = Some(bound);
        let authenticator = self.links.settings().authenticator.clone();
        let transports = self.transports.read().clone();
        self.links.set_settings(self.link_settings(&o, authenticator, transports).map_err(one)?);
        self.log.info(format_args!("Listening for client connections on {}", shown(&o.host, bound)));
        if o.tls.is_some() {
            self.log.info(format_args!("TLS required for client connections"));
        }
        env::spawn(links::client::listen(self.links.clone(), client, self.clone().no_more_clients()));
        if let Some(l) = websocket {
            env::spawn(links::client::listen_websocket(
                self.links.clone(),
                l,
                self.clone().no_more_clients(),
            ));
        }
        cluster::listen(self, &o).await?;
        self.write_ports(&o).await;
        self.log.info(format_args!("Server is ready"));
        Ok(())
    }

    /// Tells clients what they are to know of the cluster now.
    pub(crate) async fn refresh_info(&self) {
        let _with_no_reload = self.reloads.lock().await;
        let mut s = (*self.links.settings()).clone();
        let before = (s.info.connect_urls.clone(), s.info.ws_connect_urls.clone(), s.info.cluster.clone());
        cluster::describe(self, &mut s.info);
        if before == (s.info.connect_urls.clone(), s.info.ws_connect_urls.clone(), s.info.cluster.clone()) {
            return;
        }
        self.announce(s);
    }
    /// Has the clients of all listeners hear what they are told under `s`.
    fn announce(&self, mut s: links::Settings) {
        if let Some(w) = &s.websocket {
            let mut ws = (**w).clone();
            ws.info.connect_urls.clone_from(&s.info.ws_connect_urls);
            ws.info.cluster.clone_from(&s.info.cluster);
            ws.info.ldm = s.info.ldm;
            s.websocket = Some(Arc::new(ws));
        }
        s.announced += 1;
        self.links.set_settings(s);
    }
    /// TLS between the members of the cluster.
    pub(crate) fn cluster_tls(&self) -> Option<links::route::RouteTls> {
        self.transports.read().cluster_tls.clone()
    }

    /// Resolves when no new clients are to be taken.
    async fn no_more_clients(self: Arc<Server>) {
        let lame = self.lame_duck_notice.notified();
        env::select! {
            _ = self.stopped() => {}
            _ = lame => {}
        }
    }

    fn greet(&self, o: &Options) {
        let log = &self.log;
        log.info(format_args!("Starting nats-server"));
        log.info(format_args!("  Version:  {NATS_VERSION}"));
        log.info(format_args!("  Fulmar:   {VERSION}"));
        if self.cluster.mesh.is_some() {
            log.info(format_args!("  Cluster:  {}", self.cluster.name()));
        }
        log.info(format_args!("  Name:     {}", self.name));
        log.info(format_args!("  ID:       {}", self.id()));
        if let Some(file) = &o.config_file {
            let digest = o.config_digest.as_deref().unwrap_or_default();
            log.info(format_args!("Using configuration file: {file} ({digest})"));
        }
        let a = &o.authorization;
        // A password without a name lets nobody in; it stands there all the same.
        let lone = a.password.as_ref().filter(|p| a.user.is_none() && !p.reveal().starts_with("$2"));
        if lone.is_some() || self.links.settings().authenticator.has_plaintext_passwords() {
            log.warn(format_args!("Plaintext passwords detected, use nkeys or bcrypt"));
        }
        if o.max_payload > PAYLOAD_ADVISED_MAX {
            log.warn(format_args!(
                "Maximum payloads over 8.00 MB are generally discouraged and could lead to poor performance"
            ));
        }
        if o.websocket.as_ref().is_some_and(|w| w.tls.is_none()) {
            log.warn(format_args!("Websocket not configured with TLS. DO NOT USE IN PRODUCTION!"));
        }
        for flag in o.feature_flags.keys() {
            log.info(format_args!("Feature flag {flag:?} has no effect on this server"));
        }
    }

    /// Writes the file that lists the bound ports, if there is to be one.
    async fn write_ports(&self, o: &Options) {
        if let Some(dir) = &o.ports_file_dir
            && let Err(e) = files::write_ports(dir, &self.ports(o)).await
        {
            self.log.error(format_args!("Error writing ports file: {e}"));
        }
    }
    /// Removes it.
    async fn remove_ports(&self, o: &Options) {
        if let Some(dir) = &o.ports_file_dir {
            let name = format!("{}_{}.ports", env::process::exe_name(), env::process::id());
            files::remove(&format!("{}/{name}", dir.trim_end_matches('/'))).await;
        }
    }

    fn ports(&self, o: &Options) -> Ports {
        let b = *self.bound.lock();
        let urls = |scheme: &str, a: Option<SocketAddr>| a.map(|a| reachable(scheme, a)).unwrap_or_default();
        let ws = if o.websocket.as_ref().is_some_and(|w| w.tls.is_some()) { "wss" } else { "ws" };
        let mut monitoring = urls("http", b.http);
        monitoring.extend(urls("https", b.https));
        Ports {
            nats: urls(if o.tls.is_some() { "tls" } else { "nats" }, b.client),
            monitoring,
            cluster: urls("nats", b.cluster),
            websocket: urls(ws, b.websocket),
        }
    }

    /// TLS of the monitoring port, if it is to have one.
    pub(crate) fn https_tls(&self) -> Option<Arc<links::TlsSettings>> {
        self.transports.read().https_tls.clone()
    }

    /// What connections are told under `o`.
    fn link_settings(
        &self,
        o: &Options,
        authenticator: Arc<Authenticator>,
        transports: Transports,
    ) -> Result<links::Settings, String> {
        let mut info = base_info(o, &self.key, &self.name);
        let bound = *self.bound.lock();
        if let Some(a) = bound.client {
            info.port = a.port();
        }
        info.auth_required = authenticator.info_auth_required();
        info.ldm = self.is_lame_duck();
        cluster::describe(self, &mut info);
        let port = bound.websocket.map(|a| a.port());
        let websocket = transports::websocket(o, &info, port, &authenticator, transports.websocket_tls)?;
        let mut s = settings::link_settings(o, info, authenticator);
        s.announced = self.links.settings().announced;
        s.tls = transports.tls;
        s.websocket = websocket;
        Ok(s)
    }

    /// Follows signals until the server stops.
    pub async fn follow_signals(self: Arc<Server>, mut signals: Signals) {
        loop {
            let signal = signals.next().await;
            self.on_signal(signal).await;
        }
    }

    async fn on_signal(self: &Arc<Server>, signal: Signal) {
        match signal {
            Signal::Hangup => {
                self.log.info(format_args!("Trapped \"hangup\" signal"));
                if let Err(e) = self.reload().await {
                    self.log.error(format_args!("Failed to reload server configuration: {e}"));
                }
            }
            Signal::Interrupt => {
                self.log.info(format_args!("Trapped \"interrupt\" signal"));
                self.stop();
            }
            Signal::Terminate => {
                self.log.info(format_args!("Trapped \"terminated\" signal"));
                // A lame duck ends by itself.
                if !self.lame_duck.load(Acquire) {
                    self.stop();
                }
            }
            Signal::User1 => {
                self.log.info(format_args!("Trapped \"user defined signal 1\" signal"));
                match self.log.reopen() {
                    Ok(true) => self.log.info(format_args!("File log re-opened")),
                    Ok(false) => self.log.info(format_args!("File log re-open ignored, not a file logger")),
                    Err(e) => self.log.error(format_args!("Unable to re-open the log file: {e}")),
                }
            }
            Signal::User2 => {
                self.log.info(format_args!("Trapped \"user defined signal 2\" signal"));
                let server = self.clone();
                env::spawn(async move { server.lame_duck().await });
            }
            Signal::Kill => {}
        }
    }

    /// Reads the configuration again and puts what may change in force; on an error nothing changes.
    pub async fn reload(self: &Arc<Server>) -> Result<(), String> {
        let _one_at_a_time = self.reloads.lock().await;
        if self.flags.config.is_none() {
            return Err("can only reload config when a file is provided using -c or --config".into());
        }
        let loaded = files::with_files(|source| options::load(&self.flags, source)).await;
        let mut new = loaded.map_err(|lines| lines.join("\n"))?.options;
        // As at the start.
        let missing = options::unsupported(&new);
        if !missing.is_empty() {
            return Err(missing.join("; "));
        }
        // A port that was chosen at random stays.
        let old = self.options();
        if new.server_name.is_none() {
            new.server_name.clone_from(&old.server_name);
        }
        let changes = options::diff(&old, &new).map_err(|refused| refused.join("; "))?;
        let mut cache_key = [0; 32];
        env::rng("login cache").fill(&mut cache_key);
        let authenticator =
            Authenticator::new(settings::logins(&new), cache_key).map_err(|e| e.to_string())?;
        let rules = settings::account_rules(&new).map_err(|w| w.join("; "))?;
        let wrong = broker::rules::check(&rules);
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        let transports = transports::build(&new).await?;
        let settings = self.link_settings(&new, Arc::new(authenticator), transports.clone())?;
        // Everything fits. What may still fail comes first.
        self.log.reload(&new.log).map_err(|e| format!("error opening log file: {}", files::plain(&e)))?;
        self.broker.configure(&rules).map_err(|w| w.join("; "))?;
        for w in &transports.warnings {
            self.log.warn(format_args!("{w}"));
        }
        *self.transports.write() = transports;
        cluster::apply(self, &new)?;
        let before = Arc::downgrade(&self.links.settings());
        self.links.set_settings(settings);
        self.shed(&new);
        // Who reads the line below may rely on it. A connection lets go of the old settings when it takes the new ones;
        // those in the midst of a handshake do so after it, before they may do anything, and are not waited for long.
        let deadline = env::now() + SETTLE_MAX;
        while before.strong_count() > 0 && env::now() < deadline {
            env::sleep(Duration::from_millis(1)).await;
        }
        if new.pid_file != old.pid_file
            && let Some(path) = &new.pid_file
            && let Err(e) = files::write_pid(path).await
        {
            self.log.error(format_args!("Could not write pidfile: {e}"));
        }
        if new.ports_file_dir != old.ports_file_dir {
            self.remove_ports(&old).await;
            self.write_ports(&new).await;
        }
        for change in &changes {
            self.log.info(format_args!("Reloaded: {}", change.describe(&new)));
        }
        let digest = new.config_digest.clone().unwrap_or_default();
        *self.options.write() = Arc::new(new);
        for account in self.broker.accounts() {
            crate::jetstream::account_made(self, &account);
        }
        crate::jetstream::reloaded(self, &changes).await;
        *self.config_time.lock() = env::wall();
        self.log.info(format_args!("Reloaded server configuration ({digest})"));
        Ok(())
    }

    /// Closes the connections that came last where new limits allow fewer than there are.
    fn shed(&self, o: &Options) {
        let close = |link: &broker::Link, text: &str, reason: Closed| {
            link.push(|out| wire::frame::push_err(out, text));
            link.close(reason);
        };
        let clients = self.links.clients.open();
        let over = clients.iter().skip(o.max_connections.unwrap_or(usize::MAX));
        let mut closed = 0;
        for client in over {
            close(&client.link, "maximum connections exceeded", Closed::MaximumConnectionsExceeded);
            closed += 1;
        }
        if closed > 0 {
            self.log.info(format_args!("Closed {closed} connections to fall within max_connections"));
        }
        for account in self.broker.accounts() {
            let Some(max) = account.limits().connections_max else { continue };
            for link in account.links().iter().skip(max) {
                let text = "maximum account active connections exceeded";
                close(link, text, Closed::MaximumAccountConnectionsExceeded);
            }
        }
    }

    /// Takes no new clients, lets others lead, tells those that are here to go elsewhere, closes them one after another, and stops.
    pub async fn lame_duck(self: &Arc<Server>) {
        if self.lame_duck.swap(true, AcqRel) {
            return;
        }
        let o = self.options();
        self.log.info(format_args!("Entering lame duck mode, stop accepting new clients"));
        self.lame_duck_notice.notify_waiters();
        self.links.lame_duck.store(true, Release);
        crate::events::lame_duck(self);
        // Who is told to go elsewhere shall find others that lead, and nobody shall wait for them while all go.
        crate::jetstream::leave(self).await;
        {
            let _with_no_reload = self.reloads.lock().await;
            let mut s = (*self.links.settings()).clone();
            s.info.ldm = true;
            // Who is told to go elsewhere is not told that this server is one of the places to go to.
            cluster::describe(self, &mut s.info);
            self.announce(s);
        }
        if let Some(mesh) = &self.cluster.mesh {
            mesh.lame_duck();
        }
        // The grace period lets clients go by themselves; the rest of the time is spread over those that stay. With nobody
        // there, there is nothing to wait for.
        let grace_ends = env::now() + o.lame_duck_grace_period.min(o.lame_duck_duration);
        while !self.links.clients.is_empty() && env::now() < grace_ends {
            env::sleep(LAME_DUCK_LOOK.min(grace_ends.since(env::now()))).await;
        }
        let left = self.links.clients.open();
        let spread = o.lame_duck_duration.saturating_sub(o.lame_duck_grace_period);
        let pause =
            spread.checked_div(left.len().max(1) as u32).unwrap_or_default().min(Duration::from_secs(1));
        self.log.info(format_args!("Closing existing clients"));
        let mut closing = Vec::new();
        for (i, client) in left.into_iter().enumerate() {
            if i > 0 {
                env::sleep(pause).await;
            }
            // Beside the others: none of them takes longer for it.
            closing.push(env::spawn(close_quietly(client)));
        }
        for task in closing {
            task.await.ok();
        }
        self.stop();
    }

    /// Whether the server is a lame duck.
    pub fn is_lame_duck(&self) -> bool {
        self.lame_duck.load(Acquire)
    }

    /// Makes [`Server::run`] return.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
    /// Resolves when the server is told to stop.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stop = self.stop.subscribe();
        async move {
            stop.wait_for(|s| *s).await.ok();
        }
    }

    async fn shut_down(self: &Arc<Server>) {
        self.log.info(format_args!("Initiating Shutdown..."));
        crate::events::shutdown(self);
        crate::jetstream::hand_over(self).await;
        crate::jetstream::farewell(self);
        crate::jetstream::stop(self).await;
        let o = self.options();
        self.remove_ports(&o).await;
        // Connections end last, as with nats-server: who sees its connection end may rely on the process ending at once.
        for client in self.links.clients.open() {
            client.link.close(Closed::ServerShutdown);
        }
        if let Some(mesh) = &self.cluster.mesh {
            mesh.stop();
        }
        self.cluster.peers.stop();
        let left = || self.cluster.mesh.as_ref().map_or(0, |m| m.open()) + self.links.clients.len();
        // Last words are written before the sockets close; who does not take them is not waited for.
        let deadline = env::now() + Duration::from_secs(2);
        while left() > 0 && env::now() < deadline {
            env::sleep(Duration::from_millis(1)).await;
        }
        self.log.info(format_args!("Server Exiting.."));
    }
}

/// Closes a connection in a moment in which no answer is under way to it, if there is one soon.
async fn close_quietly(client: Arc<links::Client>) {
    let (link, mut quiet) = (&client.link, Quiet::default());
    for _ in 0..quiet::LOOKS_MAX {
        let (received, sent) = (link.in_msgs.get(), link.out_traffic().msgs);
        if link.closed().is_some() || quiet.look(Seen { received, sent, waiting: link.pending_bytes() }) {
            break;
        }
        env::sleep(Duration::from_millis(1)).await;
    }
    link.close(Closed::ServerShutdown);
}

/// The INFO without what only a listener or a connection knows.
fn base_info(o: &Options, key: &ServerKey, name: &str) -> Info {
    Info {
        server_id: key.public().to_string(),
        server_name: name.to_string(),
        version: NATS_VERSION.to_string(),
        proto: 1,
        go: "rust".to_string(),
        host: o.host.clone(),
        port: u16::try_from(o.port).unwrap_or(0),
        headers: !o.no_header_support,
        jetstream: o.jetstream.is_some(),
        domain: o.jetstream.as_ref().and_then(|j| j.domain.clone()).unwrap_or_default(),
        max_payload: o.max_payload as i64,
        api_lvl: API_LEVEL,
        xkey: key.xkey_public().to_string(),
        fulmar: VERSION.to_string(),
        ..Info::default()
    }
}

/// Binds a listener; `what` names it in the error.
pub(crate) async fn bind(host: &str, port: i32, what: &str) -> Result<(TcpListener, SocketAddr), StartError> {
    let port = u16::try_from(port).unwrap_or(0);
    let wrong = |e: String| StartError(vec![format!("Error listening on {what}: {host}:{port}, {e:?}")]);
    let mut addresses = env::net::resolve(host, port).await.map_err(|e| wrong(e.to_string()))?;
    if addresses.first().is_some_and(|a| a.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
        // As in Go, all of IPv4 means all of IPv6 too, where there is any.
        addresses.insert(0, SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
    }
    let mut failed = "the host has no address".to_string();
    for a in addresses {
        match TcpListener::bind(a).await {
            Ok(l) => match l.local_addr() {
                Ok(bound) => return Ok((l, bound)),
                Err(e) => failed = e.to_string(),
            },
            Err(e) => failed = format!("listen tcp {a}: bind: {}", files::plain(&e)),
        }
    }
    Err(wrong(failed))
}

/// Host as configured and port as bound.
pub(crate) fn shown(host: &str, bound: SocketAddr) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", bound.port()),
        _ => format!("{host}:{}", bound.port()),
    }
}

/// URLs under which a bound address can be reached from this machine.
fn reachable(scheme: &str, a: SocketAddr) -> Vec<String> {
    let hosts = match a.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec!["127.0.0.1".to_string()],
        IpAddr::V6(ip) if ip.is_unspecified() => vec!["127.0.0.1".to_string(), "[::1]".to_string()],
        IpAddr::V4(ip) => vec![ip.to_string()],
        IpAddr::V6(ip) => vec![format!("[{ip}]")],
    };
    hosts.iter().map(|host| format!("{scheme}://{host}:{}", a.port())).collect()
}
