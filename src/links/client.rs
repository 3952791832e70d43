//! A client's connection: its greeting, its login, its operations, its timers, its end.
//!
//! One task owns it. The task waits for the first of: something to read, room to write what an earlier write left, a
//! wake-up (closed, blocked, new settings), or its nearest deadline. What it reads it handles at once, a buffer at a time,
//! and then writes out what that has put into outboxes.

mod reload;
pub mod trace;

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use broker::{Closed, Kind, Link, LinkFlags, LinkOptions, Message, Outcome, Router, Run, SubscribeError};
use bytes::{Bytes, BytesMut};
use env::{
    Instant,
    net::{Accepted, TcpListener},
};
use identity::{Attempt, Authenticator, Check, ConnectionType, Decision, Identity, Nonce, Renewal, Verdict};
use wire::{
    Parsed,
    client::{Error, Limits, Op, Pub, parse},
    frame,
    info::{Connect, Info},
};

use crate::{
    Client, ClosedClient, Context, Facts, Job, Settings, Socket, TlsSettings, Tracing, WebSocketSettings,
    handshake::{Failure, Handshake},
    tls::HandshakeFirst,
    ws,
};

/// The worker's read buffer, in bytes.
const READ_BYTES: usize = 64 << 10;
/// Frames from this size on are read into a buffer of their own, which receivers then share.
const OWN_FRAME_BYTES_MIN: usize = 16 << 10;
/// Longest line whatever the settings say: a line must fit into the read buffer, and its parts into 16 bits of length.
const CONTROL_LINE_BYTES_MAX: usize = READ_BYTES - 1024;
/// Reads in a row before other tasks get their turn.
const READS_MAX: usize = 16;
/// What is read in one turn up to this size is little: whoever sent it waits for an answer, most likely.
const SMALL_BYTES_MAX: usize = 256;
/// How long a publisher pauses for a receiver that is nearly full; nat-server waits 2 to 5 ms.
const STALL: Duration = Duration::from_millis(5);
/// A compressed WebSocket message may hold that many of the largest protocol messages, and never more than the next constant.
const INFLATED_MESSAGES_MAX: usize = 8;
/// What a compressed WebSocket message may hold in any case, in bytes.
const INFLATED_BYTES_MAX: usize = 64 << 20;
/// When the first PING goes out, to measure the round trip.
const FIRST_PING: Duration = Duration::from_secs(2);

thread_local!(static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice()));

/// Accepts clients until the listener fails for good or `stop` resolves.
pub async fn listen(cx: Arc<Context>, listener: TcpListener, stop: impl Future<Output = ()>) {
    accept(cx, listener, stop, serve).await
}

/// Accepts WebSocket clients until the listener fails for good or `stop` resolves. Without [`Settings::websocket`] each is
/// turned away.
pub async fn listen_websocket(cx: Arc<Context>, listener: TcpListener, stop: impl Future<Output = ()>) {
    accept(cx, listener, stop, serve_websocket).await
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    cx: Arc<Context>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
    serve: impl Fn(Arc<Context>, Accepted, SocketAddr) -> F,
) {
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = env::select! {
            _ = &mut stop => return,
            a = listener.accept() => a,
        };
        match accepted {
            Ok((socket, peer)) => {
                // IPv4 peers of a listener for both are shown as IPv4.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let cx2 = cx.clone();
                cx.next_worker().spawn(serve(cx2, socket, peer));
            }
            // Out of descriptors, most likely: those that are open must end first.
            Err(_) => env::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Serves one client to its end.
async fn serve(cx: Arc<Context>, accepted: Accepted, peer: SocketAddr) {
    let Ok(tcp) = accepted.attach() else { return };
    let settings = cx.settings();
    if settings.tls.is_some() || settings.proxy_protocol.is_some() {
        return serve_guarded(cx, settings, Arc::new(Socket::held(tcp)), peer).await;
    }
    let mut c = Start::new(cx, Arc::new(Socket::plain(tcp)), settings, None).connection(peer);
    c.greet();
    c.refuse_if_full().await;
    c.live().await;
}

/// Serves one client whose port asks for a PROXY header or TLS.
async fn serve_guarded(cx: Arc<Context>, settings: Arc<Settings>, socket: Arc<Socket>, peer: SocketAddr) {
    let start = Start::new(cx, socket.clone(), settings.clone(), None);
    let tls = settings.tls.clone();
    let first = tls.as_ref().map_or(HandshakeFirst::Off, |t| t.handshake_first);
    // Without a link nobody else can write, so INFO and the PROXY header may cross.
    let handshake = |limit| Handshake { socket: &socket, link: None, deadline: env::now() + limit };
    if first == HandshakeFirst::Off {
        let mut text = Vec::new();
        start.info(settings.proxy_protocol.is_none().then(|| peer.ip())).push(&mut text);
        if handshake(settings.write_deadline).send(&text).await.is_err() {
            return;
        }
    }
    let proxied = match settings.proxy_protocol {
        Some(limit) => handshake(limit).proxy().await,
        None => Ok(None),
    };
    // What stays in this frame lives as long as the connection, and a reload waits for the old settings to be let go.
    drop(settings);
    let client = proxied.as_ref().ok().and_then(|p| *p).unwrap_or(peer);
    let mut c = start.connection(client);
    if let Err(e) = proxied {
        let text = format!("Error reading PROXY protocol header from {peer}: {e}");
        c.cx.hooks.log("WRN", &c.client, &text);
        c.link.close(Closed::ProtocolViolation);
    } else if c.is_full() {
        socket.open();
        c.refuse_if_full().await;
    } else {
        match tls {
            None => c.stay_plain(),
            Some(t) if t.allow_non_tls && first == HandshakeFirst::Off => {
                c.undecided = true;
                socket.open();
            }
            Some(t) => c.secure(&t, first == HandshakeFirst::Off).await,
        }
    }
    c.live().await;
}

/// Serves one WebSocket client to its end.
async fn serve_websocket(cx: Arc<Context>, accepted: Accepted, peer: SocketAddr) {
    let Ok(tcp) = accepted.attach() else { return };
    let settings = cx.settings();
    let Some(ws) = settings.websocket.clone() else { return };
    let socket = Arc::new(Socket::held(tcp));
    let handshake = Handshake { socket: &socket, link: None, deadline: env::now() + ws.handshake_timeout };
    if let Some(tls) = &ws.tls
        && let Err(e) = handshake.https(tls).await
    {
        let text = format!("websocket: TLS handshake error from {peer}: {e}");
        cx.hooks.log_unbound("ERR", &text);
        return socket.shutdown();
    }
    let largest = settings.payload_bytes_max.saturating_add(settings.control_line_bytes_max);
    let inflated_max = largest.saturating_mul(INFLATED_MESSAGES_MAX).min(INFLATED_BYTES_MAX.max(largest));
    let accepted = match handshake.websocket(&ws, inflated_max).await {
        Ok(a) => a,
        Err(e) => {
            // Somebody who connects and says nothing is no news.
            if matches!(e, Failure::Refused(_)) {
                let text = format!("{peer} - websocket handshake error: {e}");
                cx.hooks.log_unbound("ERR", &text);
            }
            return socket.shutdown();
        }
    };
    let mut c = Start::new(cx, socket.clone(), settings, Some(ws)).connection(peer);
    c.cookies = accepted.cookies;
    c.client.facts.lock().forwarded_for = accepted.forwarded_for;
    c.secured(true);
    socket.open();
    c.greet();
    c.refuse_if_full().await;
    c.live().await;
}

/// What a connection begins with.
struct Start {
    cx: Arc<Context>,
    socket: Arc<Socket>,
    settings: Arc<Settings>,
    ws: Option<Arc<WebSocketSettings>>,
    id: u64,
    nonce: String,
}

impl Start {
    fn new(
        cx: Arc<Context>,
        socket: Arc<Socket>,
        settings: Arc<Settings>,
        ws: Option<Arc<WebSocketSettings>>,
    ) -> Start {
        let mut nonce = String::new();
        if authenticator(&settings, ws.as_deref()).needs_nonce() {
            let mut raw = [0; identity::NONCE_RAW_LEN];
            cx.fill_random(&mut raw);
            nonce = Nonce::from_random(raw).as_str().to_string();
        }
        let id = cx.broker.next_id();
        Start { cx, socket, settings, ws, id, nonce }
    }
    fn info(&self, ip: Option<IpAddr>) -> Info {
        info(&self.settings, self.ws.as_deref(), &self.socket, self.id, ip, &self.nonce)
    }
    /// Makes it known to the broker and to monitoring.
    fn connection(self, peer: SocketAddr) -> Connection {
        let link = Link::new(LinkOptions {
            id: self.id,
            kind: Kind::Client,
            worker: env::current_worker(),
            pending_bytes_max: self.settings.pending_bytes_max,
            transport: Some(self.socket.clone()),
            inbound: None,
        });
        let kind = if self.ws.is_some() { "websocket" } else { "nats" };
        let full = self.settings.connections_max.is_some_and(|max| self.cx.broker.connections() >= max);
        let client = Client::new(link.clone(), peer, Facts { kind, ..Facts::default() });
        self.cx.broker.add_link(&link);
        self.cx.clients.add(&client);
        Connection::new(self, client, full)
    }
}

/// Who decides logins on a port.
fn authenticator<'a>(s: &'a Settings, ws: Option<&'a WebSocketSettings>) -> &'a Arc<Authenticator> {
    ws.and_then(|w| w.authenticator.as_ref()).unwrap_or(&s.authenticator)
}

/// The INFO of one connection. The client's address is left out where it is not known yet.
fn info(
    s: &Settings,
    ws: Option<&WebSocketSettings>,
    socket: &Socket,
    id: u64,
    ip: Option<IpAddr>,
    nonce: &str,
) -> Info {
    let mut info = ws.map_or(&s.info, |w| &w.info).clone();
    let tls = match ws {
        Some(w) => w.tls.as_deref(),
        None => s.tls.as_deref(),
    };
    info.tls_required = tls.is_some_and(|t| !t.allow_non_tls);
    info.tls_available = tls.is_some_and(|t| t.allow_non_tls);
    info.tls_verify = tls.is_some_and(|t| t.verify);
    info.client_id = id;
    info.client_ip = ip.map(|ip| ip.to_canonical().to_string()).unwrap_or_default();
    info.nonce = nonce.to_owned();
    info.max_payload = s.payload_bytes_max as i64;
    if let Some(local) = info.host.is_empty().then(|| socket.tcp().local_addr().ok()).flatten() {
        info.host = local.ip().to_string();
    }
    info
}

/// Gateway replies are the servers' own, and what they replicate is the system account's.
#[inline]
fn is_reserved(subject: &[u8]) -> bool {
    matches!(subject.first(), Some(b'_' | b'$'))
        && (identity::is_reserved_subject(subject) || identity::is_system_subject(subject))
}

/// A publish as the broker knows it.
#[inline]
fn message<'a>(p: &Pub<'a>, shared: Option<&'a Bytes>) -> Message<'a> {
    let Pub { subject, reply, header_len, body_crlf } = *p;
    Message { subject, reply, header_len, body_crlf, shared, shown: None }
}

/// One client's connection, as its task holds it.
struct Connection {
    cx: Arc<Context>,
    client: Arc<Client>,
    link: Arc<Link>,
    socket: Arc<Socket>,
    settings: Arc<Settings>,
    limits: Limits,
    /// Set once the client may publish and subscribe.
    router: Option<Router>,
    /// A CONNECT has been accepted.
    connected: bool,
    verbose: bool,
    pedantic: bool,
    /// The user's largest payload.
    payload_bytes_max: usize,
    nonce: String,
    /// The front of an operation that has not come whole.
    partial: BytesMut,
    /// Its length in all, if known.
    need: usize,
    pings_out: u32,
    /// Messages that had come from it when its last ping was due.
    msgs_at_ping: u64,
    ping_sent: Option<Instant>,
    /// A PING has been sent to measure the round trip.
    measured: bool,
    /// The INFO after the first PONG is due.
    info_due: bool,
    last_read: Instant,
    deadlines: Deadlines,
    /// Reading pauses until then, for a slow receiver.
    stalled_until: Option<Instant>,
    /// The socket takes no more at present.
    blocked: bool,
    /// The port's own settings, on a WebSocket port.
    ws: Option<Arc<WebSocketSettings>>,
    /// Credentials from the WebSocket request.
    cookies: ws::Cookies,
    /// The server had all the clients that it may have.
    full: bool,
    /// Whether the client speaks TLS is to be seen from its first byte.
    undecided: bool,
    /// It has begun to.
    upgrade: bool,
    /// What is reported of its protocol lines.
    tracing: Option<Tracing>,
    /// A CONNECT whose login is decided elsewhere; what comes after it waits in `partial`.
    login: Option<Login>,
}

/// A login that takes long.
struct Login {
    connect: Connect,
    end: Job<Decision>,
    /// Who decides; a reload may put another in its place meanwhile.
    authenticator: Arc<Authenticator>,
}

/// Waits for a login to be decided, if there is one.
async fn decided(login: &mut Option<Login>) -> Decision {
    match login {
        Some(l) => l.end.wait().await.unwrap_or(Decision::Reject(identity::Reason::WrongPassword)),
        None => std::future::pending().await,
    }
}

/// Moments at which the task must wake by itself.
struct Deadlines {
    /// Login must be done by then.
    auth: Option<Instant>,
    /// A PING is due, unless the client has spoken in between.
    ping: Instant,
    /// Credentials end then.
    expiry: Option<Instant>,
}

impl Connection {
    fn new(start: Start, client: Arc<Client>, full: bool) -> Connection {
        let now = env::now();
        let Start { cx, socket, settings, ws, nonce, .. } = start;
        let auth_required = authenticator(&settings, ws.as_deref()).is_required();
        client.facts.lock().nonce.clone_from(&nonce);
        let mut c = Connection {
            link: client.link.clone(),
            limits: Limits {
                max_control_line: settings.control_line_bytes_max.min(CONTROL_LINE_BYTES_MAX),
                max_payload: settings.payload_bytes_max,
                headers: false,
            },
            router: None,
            connected: false,
            // Until CONNECT says otherwise.
            verbose: true,
            pedantic: true,
            payload_bytes_max: settings.payload_bytes_max,
            nonce,
            partial: BytesMut::new(),
            need: 0,
            pings_out: 0,
            msgs_at_ping: 0,
            ping_sent: None,
            measured: false,
            info_due: true,
            last_read: now,
            deadlines: Deadlines {
                auth: None,
                ping: now + FIRST_PING.min(settings.ping_interval),
                expiry: None,
            },
            stalled_until: None,
            blocked: false,
            ws,
            cookies: ws::Cookies::default(),
            full,
            undecided: false,
            upgrade: false,
            tracing: None,
            login: None,
            cx,
            client,
            socket,
            settings,
        };
        c.begin_login();
        if let Some(max) = c.settings.subscriptions_max {
            c.link.set_subscriptions_max(max);
        }
        if !auth_required {
            // What a client does before CONNECT, or without it, it does in the default account.
            let account = c.settings.default_account.clone();
            c.bind(&account);
        }
        c.set_tracing();
        c.cx.hooks.log("DBG", &c.client, "Client connection created");
        c
    }

    fn authenticator(&self) -> &Arc<Authenticator> {
        authenticator(&self.settings, self.ws.as_deref())
    }
    fn ping_interval(&self) -> Duration {
        self.ws.as_ref().and_then(|w| w.ping_interval).unwrap_or(self.settings.ping_interval)
    }
    /// The time to log in runs from now.
    fn begin_login(&mut self) {
        let limit = self.ws.as_ref().and_then(|w| w.auth_timeout).unwrap_or(self.settings.auth_timeout);
        self.deadlines.auth = self.authenticator().is_required().then(|| env::now() + limit);
    }

    /// The INFO of this connection.
    fn info(&self) -> Info {
        let ip = Some(self.client.peer.ip());
        let mut info = info(&self.settings, self.ws.as_deref(), &self.socket, self.link.id, ip, &self.nonce);
        info.max_payload = self.payload_bytes_max as i64;
        info
    }

    fn is_full(&self) -> bool {
        self.full
    }
    /// A socket that has just been accepted takes nothing before the poller has looked at it, and the refusal must reach the client.
    async fn refuse_if_full(&mut self) {
        if !self.full {
            return;
        }
        env::select! {
            _ = self.socket.writable() => {}
            _ = env::sleep(self.settings.write_deadline) => {}
        }
        let text = "maximum connections exceeded";
        self.cx.hooks.log_rarely("ERR", &self.client, text);
        self.refuse(text, Closed::MaximumConnectionsExceeded);
    }

    /// There will be no layers: what has come already is the protocol.
    fn stay_plain(&mut self) {
        self.undecided = false;
        let early = self.socket.release();
        if !early.is_empty() {
            self.batch(&early, None);
            self.settle();
        }
    }

    /// Does the TLS handshake. `greeted` says whether INFO is out.
    async fn secure(&mut self, t: &TlsSettings, mut greeted: bool) {
        if !t.rate.allow(env::now()) {
            self.socket.open();
            let text = "Connection throttling is active. Please try again later.";
            return self.refuse(text, Closed::MaximumConnectionsExceeded);
        }
        let (socket, link) = (self.socket.clone(), self.link.clone());
        let until = |limit| Handshake { socket: &socket, link: Some(&link), deadline: env::now() + limit };
        let mut done = Ok(());
        if let (HandshakeFirst::Auto(limit), false) = (t.handshake_first, greeted) {
            match until(limit).first_byte().await {
                Ok(_) => {}
                Err(Failure::Timeout) => {
                    greeted = true;
                    let mut text = Vec::new();
                    self.info().push(&mut text);
                    done = until(self.settings.write_deadline).send(&text).await;
                    if t.allow_non_tls && done.is_ok() {
                        self.undecided = true;
                        return self.socket.open();
                    }
                }
                Err(e) => done = Err(e),
            }
        }
        if done.is_ok() {
            done = until(t.timeout).tls(t).await;
        }
        match done {
            Ok(()) => {
                self.secured(!greeted);
                self.socket.open();
                self.begin_login();
                if !greeted {
                    self.greet();
                }
                self.woken();
            }
            Err(Failure::Closed) => {}
            Err(e) => {
                // Those who hang up or speak another protocol are no news; a handshake that went wrong may be.
                let level = if matches!(e, Failure::Refused(_)) { "ERR" } else { "DBG" };
                self.cx.hooks.log(level, &self.client, &format!("TLS handshake error: {e}"));
                self.link.close(Closed::TlsHandshakeFailure);
            }
        }
    }

    /// Notes what TLS has brought, if there is TLS.
    fn secured(&self, first: bool) {
        let l = self.socket.layers().lock();
        if let Some(session) = l.tls() {
            let mut f = self.client.facts.lock();
            f.tls = session.agreed();
            f.tls_peer_certs = session.peer_certs();
            f.tls_first = first && self.ws.is_none();
        }
    }

    /// Looks at the first byte of a client that may or may not speak TLS. True if it speaks the protocol.
    fn decide(&mut self) -> bool {
        let first = {
            let mut l = self.socket.layers().lock();
            if l.input().is_empty() {
                match l.read_more(self.socket.tcp()) {
                    Ok(0) => self.link.close(Closed::ClientClosed),
                    Ok(_) => {}
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    Err(_) => self.link.close(Closed::ReadError),
                }
            }
            l.input().first().copied()
        };
        match first {
            None => false,
            Some(0x16) => {
                self.socket.hold();
                self.upgrade = true;
                false
            }
            Some(_) => {
                self.stay_plain();
                self.link.closed().is_none() && self.login.is_none()
            }
        }
    }

    /// The connection's life after its handshakes, and its end.
    async fn live(mut self) {
        self.run().await;
        self.end();
        self.socket.shutdown();
    }

    fn greet(&mut self) {
        let info = self.info();
        self.link.push(|out| info.push(out));
        self.link.flush();
    }

    /// Runs until the link is closed.
    async fn run(&mut self) {
        // Settings that came between the connection's first look and its entry among those that are woken.
        self.woken();
        let mut timer = std::pin::pin!(env::sleep_until(self.next_deadline()));
        let mut timer_at = self.next_deadline();
        while self.link.closed().is_none() {
            if std::mem::take(&mut self.upgrade) {
                self.undecided = false;
                if let Some(t) = self.settings.tls.clone() {
                    self.secure(&t, true).await;
                }
                continue;
            }
            // A deadline that has moved later is noticed when the timer fires; one that has come nearer re-arms it.
            let next = self.next_deadline();
            if next < timer_at {
                timer.set(env::sleep_until(next));
                timer_at = next;
            }
            let link = self.link.clone();
            let waits = self.login.is_some();
            let (reads, writes) = (self.stalled_until.is_none() && !waits, self.blocked);
            env::select! {
                _ = link.wake.notified() => self.woken(),
                end = decided(&mut self.login), if waits => self.login_ends(end),
                r = self.socket.writable(), if writes => {
                    if r.is_err() {
                        self.link.close(Closed::WriteError);
                    }
                    self.link.flush();
                    self.woken();
                }
                r = self.socket.readable(), if reads => match r {
                    Ok(()) => {
                        self.read();
                        // Reading comes first, so a client that never pauses would keep the timer from firing.
                        if timer_at <= self.last_read {
                            self.tick(self.last_read);
                            timer_at = self.next_deadline();
                            timer.set(env::sleep_until(timer_at));
                        }
                    }
                    Err(_) => self.link.close(Closed::ReadError),
                },
                _ = &mut timer => {
                    self.tick(env::now());
                    timer_at = self.next_deadline();
                    timer.set(env::sleep_until(timer_at));
                }
            }
        }
    }

    /// The nearest deadline.
    fn next_deadline(&self) -> Instant {
        let d = &self.deadlines;
        let write = if self.blocked {
            self.link.blocked_since().map(|t| t + self.settings.write_deadline)
        } else {
            None
        };
        [d.auth, d.expiry, self.stalled_until, write].into_iter().flatten().fold(d.ping, Instant::min)
    }

    fn woken(&mut self) {
        self.blocked = self.link.blocked_since().is_some();
        let settings = self.cx.settings();
        if !Arc::ptr_eq(&settings, &self.settings) {
            let announced = settings.announced != self.settings.announced;
            let before = self.authenticator().clone();
            // The old settings live until the new ones are in force here: a reload waits for that (L-11).
            let old = std::mem::replace(&mut self.settings, settings);
            if self.ws.is_some() {
                self.ws = self.settings.websocket.clone().or(self.ws.take());
            }
            self.reloaded(&before);
            self.set_tracing();
            drop(old);
            if announced && self.connected && self.client.facts.lock().protocol >= 1 {
                let info = self.info();
                self.send(|out| info.push(out));
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.deadlines.auth.is_some_and(|t| t <= now) {
            let text = "Authentication Timeout";
            self.cx.hooks.log("DBG", &self.client, text);
            return self.refuse(text, Closed::AuthenticationTimeout);
        }
        if self.deadlines.expiry.is_some_and(|t| t <= now) {
            return self.refuse("User Authentication Expired", Closed::AuthenticationExpired);
        }
        if self.stalled_until.is_some_and(|t| t <= now) {
            self.stalled_until = None;
        }
        if self.link.blocked_since().is_some_and(|t| t + self.settings.write_deadline <= now) {
            env::reachable!("a write deadline passes");
            self.cx.broker.stats.slow_consumers.add(1);
            return self.link.close(Closed::SlowConsumerWriteDeadline);
        }
        if self.deadlines.ping <= now {
            self.ping(now);
        }
    }

    fn ping(&mut self, now: Instant) {
        let interval = self.ping_interval();
        // Somebody who speaks is there; but the round trip is measured once soon after the start.
        if self.measured && self.pings_out == 0 && now.since(self.last_read) < interval {
            self.deadlines.ping = self.last_read + interval;
            return;
        }
        // And whose PONG lies behind a long upload: whole messages come from it.
        let msgs = self.link.in_msgs.get();
        let speaks = std::mem::replace(&mut self.msgs_at_ping, msgs) != msgs;
        if speaks && self.pings_out > 0 {
            self.deadlines.ping = now + interval;
            return;
        }
        if self.pings_out >= self.settings.pings_out_max {
            self.cx.broker.stats.stale.add(1);
            return self.refuse("Stale Connection", Closed::StaleConnection);
        }
        self.deadlines.ping = now + interval;
        if !self.connected && self.authenticator().is_required() {
            return;
        }
        self.pings_out += 1;
        self.measured = true;
        self.ping_sent = Some(now);
        self.cx.hooks.log("DBG", &self.client, "Client Ping Timer");
        self.said("PING");
        self.send(|out| out.extend_from_slice(b"PING\r\n"));
    }

    /// Sends control bytes now.
    fn send(&self, f: impl FnOnce(&mut Vec<u8>)) {
        self.link.push(f);
        self.link.flush();
    }

    /// Sends -ERR and closes.
    fn refuse(&self, text: &str, reason: Closed) {
        self.said_error(text);
        self.link.push(|out| frame::push_err(out, text));
        self.link.close(reason);
    }

    fn error(&self, text: &str) {
        self.said_error(text);
        self.link.push(|out| frame::push_err(out, text));
    }
    fn said_error(&self, text: &str) {
        if self.tracing.is_some() {
            self.said(&format!("-ERR {text}"));
        }
    }

    /// Reads what is there and handles it.
    fn read(&mut self) {
        if self.undecided && !self.decide() {
            return;
        }
        let mut bytes = 0;
        READ.with_borrow_mut(|buf| {
            for _ in 0..READS_MAX {
                match self.read_once(buf) {
                    Ok(0) => self.link.close(Closed::ClientClosed),
                    Ok(n) => bytes += n,
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                        break;
                    }
                    Err(e) => {
                        if e.kind() == io::ErrorKind::InvalidData {
                            self.cx.hooks.log("ERR", &self.client, &format!("read error: {e}"));
                        }
                        self.link.close(Closed::ReadError);
                    }
                }
                if self.link.closed().is_some() || self.stalled_until.is_some() || self.login.is_some() {
                    break;
                }
            }
        });
        self.settle();
        if bytes > 0 {
            env::handled(self.last_read, bytes <= SMALL_BYTES_MAX);
        }
        // What the layers answered by themselves (a pong, a new key) and could not write.
        if self.socket.has_unwritten() {
            self.link.flush();
        }
        // L-2
        if self.partial.is_empty() && self.partial.capacity() > 0 {
            self.partial = BytesMut::new();
        }
    }

    /// One read and what it brings. 0 is the end.
    fn read_once(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.need >= OWN_FRAME_BYTES_MIN {
            // The rest of a large frame, straight into the buffer that its receivers share.
            let missing = self.need - self.partial.len();
            let n = self.socket.try_read_more(&mut self.partial, missing)?;
            if n > 0 && self.partial.len() == self.need {
                self.need = 0;
                let frame = std::mem::take(&mut self.partial).freeze();
                self.batch(&frame, Some(&frame));
            }
            return Ok(n);
        }
        let kept = self.partial.len();
        buf[..kept].copy_from_slice(&self.partial);
        let n = self.socket.try_read(&mut buf[kept..])?;
        if n > 0 {
            self.partial.clear();
            self.batch(&buf[..kept + n], None);
        }
        Ok(n)
    }

    /// Handles a buffer and keeps what is not whole. What it has caused is written out by [`Connection::settle`].
    fn batch(&mut self, buf: &[u8], owner: Option<&Bytes>) {
        self.last_read = env::now();
        let used = match self.tracing {
            None => self.operations(buf, owner),
            Some(_) => self.operations_traced(buf, owner),
        };
        if self.link.closed().is_none() {
            let rest = &buf[used..];
            if !rest.is_empty() {
                self.partial.reserve(self.need.max(rest.len()));
                self.partial.extend_from_slice(rest);
            }
        }
    }

    /// Writes out what the batches since the last time have put into outboxes, this connection's own included.
    fn settle(&mut self) {
        self.client.active(env::wall());
        if let Some(r) = &mut self.router {
            r.flush();
            if r.take_congestion() && !self.settings.no_stall {
                self.cx.broker.stats.stalled.add(1);
                self.client.stalled();
                let text = format!("Producer was stalled for a total of {STALL:?}");
                self.cx.hooks.log_rarely("WRN", &self.client, &text);
                self.stalled_until = Some(self.last_read + STALL);
            }
        }
        self.link.flush();
        let full = self.blocked && self.link.pending_bytes() > self.settings.pending_bytes_max;
        if full && !env::planted!("answers-unbounded") {
            // B-5, for answers: a client that asks and asks and does not read.
            self.cx.broker.stats.slow_consumers.add(1);
            self.link.close(Closed::SlowConsumerPendingBytes);
        }
    }

    /// Handles whole operations. Returns how many bytes they were.
    fn operations(&mut self, buf: &[u8], owner: Option<&Bytes>) -> usize {
        let (mut at, mut run) = (0, None);
        while at < buf.len() {
            if self.may_run() && owner.is_none() {
                at += self.publish_run(&buf[at..], run.get_or_insert_default());
                if at == buf.len() {
                    break;
                }
            }
            match parse(&buf[at..], &self.limits) {
                Ok(Parsed::Op { op: Op::Pub(p), used }) if self.router.is_some() => {
                    let shared = owner.map(|b| b.slice_ref(p.body_crlf));
                    self.publish(&p, shared.as_ref());
                    at += used;
                }
                Ok(Parsed::Op { op, used }) => {
                    self.operation(op);
                    at += used;
                    if self.link.closed().is_some() || self.login.is_some() {
                        self.need = 0;
                        return at;
                    }
                }
                Ok(Parsed::Partial { need }) => {
                    self.need = need;
                    return at;
                }
                Err(e) => {
                    self.parse_error(e, &buf[at..]);
                    return buf.len();
                }
            }
        }
        self.need = 0;
        at
    }

    #[cold]
    fn parse_error(&mut self, e: Error, at: &[u8]) {
        if self.router.is_none() && at.first().is_none_or(|b| b | 0x20 != b'c') {
            return self.not_logged_in();
        }
        let line = match e {
            Error::PayloadTooLarge(bytes) => {
                format!("maximum payload exceeded: {bytes} vs {}", self.limits.max_payload)
            }
            _ => format!("{e}: {:?}", trace::front(at)),
        };
        self.cx.hooks.log("ERR", &self.client, &line);
        let reason = match e {
            Error::LineTooLong => Closed::MaximumControlLineExceeded,
            Error::PayloadTooLarge(_) => Closed::MaximumMessagePayloadExceeded,
            Error::Unknown | Error::Arguments | Error::HeadersNotSupported => Closed::ProtocolViolation,
        };
        match e.text() {
            Some(text) => self.refuse(text, reason),
            None => self.link.close(reason),
        }
    }

    /// Whether the next publishes may go on their way together: nothing is said to the client of each.
    #[inline]
    fn may_run(&self) -> bool {
        self.router.as_ref().is_some_and(Router::runs) && !self.verbose && !self.pedantic
    }

    /// Publishes the messages at the front of `buf` that go where the last one went. Returns how many bytes they were; what follows is none of them.
    fn publish_run<'a>(&mut self, buf: &'a [u8], run: &mut Run<'a>) -> usize {
        let router = self.router.as_mut().expect("checked by the caller");
        let mut at = 0;
        loop {
            let next = match parse(&buf[at..], &self.limits) {
                Ok(Parsed::Op { op: Op::Pub(p), used }) => Some((message(&p, None), used)),
                _ => None,
            };
            let next = next.filter(|(m, _)| !is_reserved(m.subject) && !identity::is_reserved_reply(m.reply));
            let Some((m, used)) = next.filter(|(m, _)| router.joins(m)) else { break };
            run.push(m);
            at += used;
            if run.is_full() {
                router.publish_run(run);
            }
        }
        router.publish_run(run);
        at
    }

    #[inline]
    fn publish(&mut self, p: &Pub<'_>, shared: Option<&Bytes>) {
        if is_reserved(p.subject) && !self.may_despite(p.subject) {
            return self.denied(p.subject);
        }
        let router = self.router.as_mut().expect("checked by the caller");
        if !p.reply.is_empty() && identity::is_reserved_reply(p.reply) {
            return self.reserved_reply(p);
        }
        if self.verbose || self.pedantic {
            return self.publish_spoken(p, shared);
        }
        match router.publish(&message(p, shared)) {
            Outcome::Delivered(_) => {}
            Outcome::Denied => self.denied(p.subject),
            Outcome::DeniedAs(subject) => self.denied(&subject),
        }
    }

    #[cold]
    fn may_despite(&self, subject: &[u8]) -> bool {
        let system = self.settings.system_account.as_deref();
        identity::is_system_subject(subject) && self.link.account().is_some_and(|a| Some(&*a.name) == system)
    }

    /// The same for a client that is told of each: what is wrong with it first, then +OK, then what comes of it, if
    /// that is the client's own message.
    #[cold]
    fn publish_spoken(&mut self, p: &Pub<'_>, shared: Option<&Bytes>) {
        if self.pedantic && !subject::is_literal(p.subject) {
            self.error("Invalid Publish Subject");
        }
        // Without permissions nothing is denied. With them it shows afterwards.
        let early = self.link.permissions().is_none();
        if early {
            self.ok();
        }
        let router = self.router.as_mut().expect("checked by the caller");
        match router.publish(&message(p, shared)) {
            Outcome::Delivered(_) if early => {}
            Outcome::Delivered(_) => self.ok(),
            Outcome::Denied => self.denied(p.subject),
            Outcome::DeniedAs(subject) => self.denied(&subject),
        }
    }

    #[cold]
    fn denied(&mut self, subject: &[u8]) {
        let subject = String::from_utf8_lossy(subject);
        self.error(&format!("Permissions Violation for Publish to \"{subject}\""));
        self.cx.hooks.log("ERR", &self.client, &format!("Publish Violation - Subject {subject:?}"));
    }

    #[cold]
    fn reserved_reply(&mut self, p: &Pub<'_>) {
        let reply = String::from_utf8_lossy(p.reply);
        self.error(&format!("Permissions Violation for Publish with Reply of \"{reply}\""));
        self.cx.hooks.log("ERR", &self.client, &format!("Publish Violation - Reply {reply:?}"));
    }

    /// Handles an operation that is not a publish of a client that may publish.
    fn operation(&mut self, op: Op<'_>) {
        // L-1
        if self.router.is_none() && !matches!(op, Op::Connect(_)) {
            self.log_in_without_connect();
            if self.router.is_none() {
                return self.not_logged_in();
            }
        }
        match op {
            Op::Pub(p) => self.publish(&p, None),
            Op::Sub(s) => self.subscribe(s.subject, s.queue, s.sid),
            Op::Unsub { sid, max } => {
                let gone = self.link.account().and_then(|a| self.link.unsubscribe(&a, sid, max));
                self.ok();
                if let Some(sub) = gone {
                    self.ended(&sub);
                }
            }
            Op::Ping => self.on_ping(),
            Op::Pong => {
                self.pings_out = 0;
                if let Some(t) = self.ping_sent.take() {
                    self.client.set_rtt(self.last_read.since(t).max(Duration::from_nanos(1)));
                }
            }
            Op::Connect(json) => self.connect(json),
            Op::Info(json) => {
                // A client has nothing to say with it, but it must be what it claims to be.
                if serde_json::from_slice::<serde::de::IgnoredAny>(json).is_err() {
                    self.cx.hooks.log("ERR", &self.client, "INFO is not valid");
                    self.link.close(Closed::ProtocolViolation);
                }
            }
            Op::Ok => {}
            Op::Err(text) => {
                let text = format!("Client Error {}", String::from_utf8_lossy(text));
                self.cx.hooks.log("ERR", &self.client, &text);
                self.link.close(Closed::ParseError);
            }
        }
    }

    fn ok(&self) {
        if self.verbose {
            self.said("OK");
            self.link.push(|out| out.extend_from_slice(b"+OK\r\n"));
        }
    }

    fn on_ping(&mut self) {
        self.said("PONG");
        self.link.push(|out| out.extend_from_slice(b"PONG\r\n"));
        // The first PING after CONNECT is answered with what only a client that has logged in may know.
        if self.info_due && self.connected {
            self.info_due = false;
            let (protocol, account) = {
                let f = self.client.facts.lock();
                (f.protocol, f.account.clone())
            };
            if protocol >= 1 {
                let mut info = self.info();
                info.connect_info = true;
                info.acc_is_sys = self.settings.system_account.as_deref() == Some(&account);
                info.remote_account = account;
                self.link.push(|out| info.push(out));
            }
        }
    }

    fn subscribe(&mut self, subject: &[u8], queue: &[u8], sid: &[u8]) {
        let Some(account) = self.link.account() else { return };
        let queue_text = || String::from_utf8_lossy(queue);
        let subject_text = || String::from_utf8_lossy(subject);
        let verdict = match self.link.permissions() {
            _ if queue == b"_sys_" => Verdict::Deny,
            Some(p) => p.can_subscribe(subject, queue),
            None => Verdict::Allow,
        };
        if verdict == Verdict::Deny {
            let mut text = format!("Permissions Violation for Subscription to \"{}\"", subject_text());
            let mut line = format!("Subscription Violation - Subject {:?}", subject_text());
            if !queue.is_empty() {
                text += &format!(" using queue \"{}\"", queue_text());
                line += &format!(", Queue: {:?}", queue_text());
            }
            line += &format!(", SID {}", String::from_utf8_lossy(sid));
            self.error(&text);
            return self.cx.hooks.log("ERR", &self.client, &line);
        }
        if !subject::is_valid(subject) {
            return self.error("Invalid Subject");
        }
        let tokens = memchr_count(subject) + 1;
        if self.settings.subscription_tokens_max.is_some_and(|max| tokens > max) {
            let text =
                format!("Permissions Violation for Subscription to \"{}\", too many tokens", subject_text());
            return self.error(&text);
        }
        match self.link.subscribe(&account, sid, subject, queue, verdict == Verdict::AllowFiltered) {
            Ok(_) => self.ok(),
            Err(SubscribeError::TooMany) => {
                let text = "maximum subscriptions exceeded";
                self.cx.hooks.log_rarely("ERR", &self.client, text);
                self.error(text);
            }
            Err(SubscribeError::InvalidSubject) => self.error("Invalid Subject"),
            Err(SubscribeError::Closed) => {}
        }
    }

    /// Binds to an account and begins to route.
    fn bind(&mut self, account: &str) {
        let account = self.cx.broker.account_or_new(account);
        if let Some(old) = self.link.account() {
            if Arc::ptr_eq(&old, &account) {
                if let Some(r) = &mut self.router {
                    r.rebind(account);
                    return;
                }
            } else {
                old.unbind(&self.link);
            }
        }
        if !account.bind(&account, &self.link) {
            let text = "maximum account active connections exceeded";
            self.cx.hooks.log_rarely("ERR", &self.client, text);
            return self.refuse(text, Closed::MaximumAccountConnectionsExceeded);
        }
        self.client.facts.lock().account = account.name.to_string();
        match &mut self.router {
            Some(r) => r.rebind(account),
            None => {
                let seed = self.cx.random();
                self.router = Some(Router::new(self.cx.broker.clone(), self.link.clone(), account, seed));
            }
        }
        self.set_tracing();
    }

    fn connect(&mut self, json: &[u8]) {
        let before = self.connected.then(|| self.last_connect());
        let connect = match Connect::parse_over(json, before.as_ref()) {
            Ok(c) => c,
            Err(e) => {
                self.cx.hooks.log("ERR", &self.client, &format!("CONNECT is not valid: {e}"));
                return self.link.close(Closed::ProtocolViolation);
            }
        };
        let wrong = if !(0..=1).contains(&connect.protocol) {
            Some(("invalid client protocol", Closed::BadClientProtocolVersion))
        } else if connect.no_responders && !connect.headers {
            Some(("no responders requires headers support", Closed::NoRespondersRequiresHeaders))
        } else {
            None
        };
        if wrong.is_none() && self.connected && !env::planted!("second-connect-keeps-subs") {
            // A second CONNECT begins anew: its subscriptions go, and it logs in again.
            let account = self.link.account();
            self.link.unsubscribe_all(account.as_deref());
        }
        let cert = self.identity_cert();
        let c = &self.cookies;
        let or =
            |field: &str, cookie: &str| if field.is_empty() { cookie.to_owned() } else { field.to_owned() };
        let (user, pass) = (or(&connect.user, &c.user), or(&connect.pass, &c.pass));
        let (token, jwt) = (or(&connect.auth_token, &c.token), or(&connect.jwt, &c.jwt));
        // What else an attempt may carry (certificate, kind of connection) has its default.
        #[allow(clippy::needless_update)]
        let attempt = Attempt {
            user: &user,
            pass: &pass,
            token: &token,
            nkey: &connect.nkey,
            sig: &connect.sig,
            jwt: &jwt,
            proxy_sig: &connect.proxy_sig,
            legacy_account: !connect.account.is_empty() || connect.new_account,
            ..self.bare_attempt()
        };
        let attempt = Attempt { tls: cert.as_ref(), ..attempt };
        {
            // Who is refused is named in the event about it.
            let mut f = self.client.facts.lock();
            f.user = attempt.shown_name().to_string();
            f.name.clone_from(&connect.name);
            f.lang.clone_from(&connect.lang);
            f.version.clone_from(&connect.version);
        }
        if let Some((text, reason)) = wrong {
            self.cx.hooks.log("ERR", &self.client, text);
            return self.refuse(text, reason);
        }
        if self.client.rtt().is_zero() {
            // The time from INFO to CONNECT serves until the first PONG.
            let rtt = env::wall().since(self.client.start);
            self.client.set_rtt(rtt.max(Duration::from_nanos(1)));
        }
        match self.authenticator().check(&attempt) {
            Check::Done(Decision::Accept(i)) => self.logged_in(connect, i),
            Check::Done(Decision::Reject(reason)) => self.unauthorized(reason),
            Check::Pending(job) => match self.cx.cpu.run(move || job.run()) {
                Some(end) => {
                    let authenticator = self.authenticator().clone();
                    self.login = Some(Login { connect, end, authenticator });
                }
                None => {
                    self.cx.hooks.log("WRN", &self.client, "refused: too many logins wait to be decided");
                    self.unauthorized(identity::Reason::WrongPassword)
                }
            },
        }
    }

    /// A login has been decided elsewhere; what waited for it goes on.
    fn login_ends(&mut self, end: Decision) {
        let Some(Login { connect, authenticator, .. }) = self.login.take() else { return };
        match end {
            // L-11: what was decided under an older configuration is asked again under this one.
            Decision::Accept(identity) => match self.renewal(&authenticator, &identity) {
                Renewal::Keep(identity) => self.logged_in(connect, identity),
                Renewal::Removed => self.unauthorized(identity::Reason::UnknownUser),
                Renewal::Reject(reason) => self.unauthorized(reason),
            },
            Decision::Reject(reason) => self.unauthorized(reason),
        }
        if self.link.closed().is_none() {
            let rest = std::mem::take(&mut self.partial);
            self.batch(&rest, None);
            self.settle();
        }
    }

    /// What the CONNECT before said of the client's ways (not its credentials).
    fn last_connect(&self) -> Connect {
        let (f, flags) = (self.client.facts.lock(), self.link.flags());
        Connect {
            verbose: self.verbose,
            pedantic: self.pedantic,
            echo: flags.has(LinkFlags::ECHO),
            headers: flags.has(LinkFlags::HEADERS),
            no_responders: flags.has(LinkFlags::NO_RESPONDERS),
            name: f.name.clone(),
            lang: f.lang.clone(),
            version: f.version.clone(),
            protocol: f.protocol,
            ..Connect::default()
        }
    }

    /// What is known of this connection without CONNECT.
    fn bare_attempt(&self) -> Attempt<'_> {
        let connection_type = self.connection_type();
        Attempt { nonce: self.nonce.as_bytes(), connection_type, ..Attempt::default() }
    }
    fn connection_type(&self) -> ConnectionType {
        if self.ws.is_some() { ConnectionType::Websocket } else { ConnectionType::Standard }
    }

    /// The client's certificate as `identity` wants it.
    fn identity_cert(&self) -> Option<identity::PeerCert> {
        let f = self.client.facts.lock();
        f.tls_peer_certs.first().map(|c| c.identity())
    }

    /// Something else came where a CONNECT is due.
    #[cold]
    fn not_logged_in(&self) {
        self.cx.hooks.log("ERR", &self.client, "authentication error");
        self.refuse(identity::AUTHORIZATION_VIOLATION, Closed::AuthenticationFailure);
    }

    fn unauthorized(&self, reason: identity::Reason) {
        self.cx.hooks.auth_error(&self.client, reason.closed_reason());
        let closed = match reason {
            identity::Reason::ProxyNotTrusted => Closed::ProxyNotTrusted,
            identity::Reason::ProxyRequired => Closed::ProxyRequired,
            _ => Closed::AuthenticationFailure,
        };
        self.refuse(identity::AUTHORIZATION_VIOLATION, closed);
    }

    fn log_in_without_connect(&mut self) {
        let cert = self.identity_cert();
        let attempt = Attempt { tls: cert.as_ref(), ..self.bare_attempt() };
        if let Check::Done(Decision::Accept(identity)) = self.authenticator().check(&attempt) {
            let unsaid = Connect { verbose: true, pedantic: true, echo: true, ..Connect::default() };
            self.admitted(unsaid, identity);
        }
    }

    /// A CONNECT is accepted.
    fn logged_in(&mut self, connect: Connect, identity: Identity) {
        self.admitted(connect, identity);
        if self.link.closed().is_none() {
            self.ok();
        }
    }
    /// Somebody may publish and subscribe from now on.
    fn admitted(&mut self, connect: Connect, identity: Identity) {
        self.deadlines.auth = None;
        let headers = connect.headers && self.settings.headers;
        let flags = LinkFlags::default()
            .with_if(connect.echo, LinkFlags::ECHO)
            .with_if(headers, LinkFlags::HEADERS)
            .with_if(headers && connect.no_responders, LinkFlags::NO_RESPONDERS);
        self.link.set_flags(flags);
        self.link.set_permissions(identity.permissions.clone());
        self.verbose = connect.verbose;
        self.pedantic = connect.pedantic;
        self.limits.headers = headers;
        let first = !std::mem::replace(&mut self.connected, true);
        // Until a PING is answered, the time from the greeting to here is what is known of the round trip.
        if self.client.rtt().is_zero() {
            self.client.set_rtt(env::wall().since(self.client.start).max(Duration::from_nanos(1)));
        }
        {
            let mut f = self.client.facts.lock();
            f.name = connect.name;
            f.lang = connect.lang;
            f.version = connect.version;
            f.protocol = connect.protocol;
            f.user = identity.name.to_string();
            f.proxy = identity.proxy.as_deref().unwrap_or_default().to_string();
            f.identity = Some(identity.clone());
        }
        self.deadlines.expiry =
            identity.expires_at_ns.map(|at| env::now() + env::Wall(at).since(env::wall()));
        self.bind(&identity.account);
        self.limit(&identity);
        if self.link.closed().is_some() {
            return;
        }
        if first {
            self.cx.hooks.connected(&self.client);
        }
    }

    /// Limits of the user and of its account apply besides the server's.
    fn limit(&mut self, identity: &Identity) {
        let account = self.link.account().map(|a| a.limits()).unwrap_or_default();
        let least = |a: Option<usize>, b: Option<u64>, c: Option<usize>| {
            [a, b.map(|n| n as usize), c].into_iter().flatten().min()
        };
        let (s, user) = (&self.settings, identity.limits);
        let payload = least(Some(s.payload_bytes_max), user.max_payload, account.payload_bytes_max);
        self.payload_bytes_max = payload.unwrap_or(s.payload_bytes_max);
        self.limits.max_payload = self.payload_bytes_max;
        let subscriptions = least(s.subscriptions_max, user.max_subscriptions, account.subscriptions_max);
        self.link.set_subscriptions_max(subscriptions.unwrap_or(usize::MAX));
    }

    /// What the log says of a client that was closed because it does not read.
    fn slowness(&self, reason: Closed) -> Option<String> {
        let what = match reason {
            Closed::SlowConsumerPendingBytes => {
                format!("MaxPending of {} Exceeded", self.settings.pending_bytes_max)
            }
            Closed::SlowConsumerWriteDeadline => {
                let (limit, chunks) = (self.settings.write_deadline, self.link.pending_pieces());
                let bytes = self.link.pending_bytes();
                format!("WriteDeadline of {limit:?} exceeded with {chunks} chunks of {bytes} total bytes.")
            }
            _ => return None,
        };
        Some(format!("Slow Consumer Detected: {what}"))
    }

    /// The end: last words, then nothing is left of it.
    fn end(&mut self) {
        let reason = self.link.closed().unwrap_or(Closed::ClientClosed);
        if let Some(text) = self.slowness(reason) {
            self.cx.hooks.log("INF", &self.client, &text);
        }
        let text = format!("Client connection closed: {}", reason.text());
        self.cx.hooks.log("DBG", &self.client, &text);
        self.router = None;
        // L-4
        self.link.flush();
        self.socket.farewell(reason);
        let sent = self.link.out_traffic();
        let account = self.link.account();
        let subscriptions = self.link.unsubscribe_all(account.as_deref());
        subscriptions.iter().for_each(|s| self.ended(s));
        let closed = ClosedClient {
            id: self.link.id,
            peer: self.client.peer,
            start: self.client.start,
            stop: env::wall(),
            last_activity: self.client.last_activity(),
            reason,
            rtt: self.client.rtt(),
            received: broker::Traffic { msgs: self.link.in_msgs.get(), bytes: self.link.in_bytes.get() },
            sent,
            subscriptions: subscriptions
                .iter()
                .take(256)
                .map(|s| (s.subject().to_vec(), s.queue().to_vec(), s.sid().to_vec(), s.delivered(), s.max()))
                .collect(),
            facts: self.client.facts.lock().clone(),
        };
        self.link.dismantle();
        if let Some(a) = account {
            a.unbind(&self.link);
        }
        self.cx.broker.remove_link(self.link.id);
        if self.connected {
            self.cx.hooks.disconnected(&closed);
        }
        self.cx.clients.remove(closed, self.settings.closed_clients_max);
    }
}

fn memchr_count(subject: &[u8]) -> usize {
    subject.iter().filter(|&&b| b == b'.').count()
}
