//! One connection to another server: its greeting, its place in the mesh, its operations, its timers, its end.
//!
//! As with clients one task owns it, reads, and writes what it has caused others to receive.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::Duration,
};

use broker::{Carries, Closed, Kind, Link, LinkFlags, LinkOptions, Message, RouteInbox, RouteOut};
use bytes::{Bytes, BytesMut};
use env::{
    Instant,
    net::{Accepted, TcpListener, TcpStream},
};
use identity::{Attempt, Check, Decision, Permissions, PermissionsConfig, SubjectPermission, Verdict};
use wire::{
    Parsed,
    client::Error,
    frame,
    route::{
        Interest, Limits, Op,
        info::{RouteConnect, RouteInfo},
        parse,
    },
};

use super::{
    Compression, Level, Mesh, Route, RouteSettings, RouteUrl, Slot, dial,
    mesh::{Agreement, Pings, Refused},
};
use crate::{
    Job, Socket,
    handshake::{Failure, Handshake},
    peer,
};

/// The worker's read buffer for routes, in bytes.
const READ_BYTES: usize = 128 << 10;
/// Frames from this size on are read into a buffer of their own, which receivers then share.
const OWN_FRAME_BYTES_MIN: usize = 16 << 10;
/// Longest line whatever the settings say.
const CONTROL_LINE_BYTES_MAX: usize = 64 << 10;
/// Largest message that is taken from another server, whose own limit may be above ours.
const PAYLOAD_BYTES_MAX: usize = 128 << 20;
/// Reads in a row before other tasks get their turn.
const READS_MAX: usize = 4;
/// How long reading pauses for a receiver that is nearly full.
const STALL: Duration = Duration::from_millis(5);
/// When the first PING goes out, to measure the round trip.
const FIRST_PING: Duration = Duration::from_secs(1);
/// How long a connection may have no place, where no authentication has a shorter limit.
const GREETING: Duration = Duration::from_secs(10);
/// Connections of one pool, at most.
const POOL_MAX: i64 = 1024;

thread_local!(static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice()));

/// What a connection that this server has opened is for.
pub(super) struct Dialed {
    pub url: RouteUrl,
    pub configured: bool,
    pub slot: Slot,
}

/// How a connection that this server has opened ended.
pub(super) enum End {
    /// It had a place.
    Registered { id: String },
    /// The place was taken.
    Duplicate { id: String },
    /// It led to this server.
    Own,
    /// It came to nothing.
    Refused,
}

/// Accepts other servers until the listener fails for good or `stop` resolves.
pub async fn listen(mesh: Arc<Mesh>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = env::select! {
            _ = &mut stop => return,
            a = listener.accept() => a,
        };
        match accepted {
            Ok((socket, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let m = mesh.clone();
                mesh.next_worker().spawn(serve(m, socket, peer));
            }
            // Out of descriptors, most likely: those that are open must end first.
            Err(_) => env::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Serves a server that has connected to us.
async fn serve(mesh: Arc<Mesh>, accepted: Accepted, peer: SocketAddr) {
    let Ok(tcp) = accepted.attach() else { return };
    let settings = mesh.settings();
    let Some(c) = Conn::new(mesh, tcp, peer, settings, None).await else { return };
    let mut info = c.mesh.info();
    info.nonce = c.mesh.nonce();
    c.send(|out| info.push(out));
    c.live().await;
}

/// Serves a server that we have connected to, to its end.
pub(super) async fn dialed(mesh: Arc<Mesh>, tcp: TcpStream, peer: SocketAddr, d: Dialed) -> End {
    let settings = mesh.settings();
    let Some(c) = Conn::new(mesh, tcp, peer, settings, Some(d)).await else { return End::Refused };
    let connect = c.connect_object();
    c.send(|out| connect.push(out));
    c.live().await
}

struct Conn {
    mesh: Arc<Mesh>,
    link: Arc<Link>,
    socket: Arc<Socket>,
    settings: Arc<RouteSettings>,
    peer: SocketAddr,
    /// What we have opened it for, if we have.
    dialed: Option<Dialed>,
    limits: Limits,
    /// A CONNECT has been accepted, or we are the ones who sent it.
    connected: bool,
    /// Its place, and its messages, once it has one.
    route: Option<Arc<Route>>,
    inbox: Option<RouteInbox>,
    /// What the other server gives, once the connection has its place.
    gives: Option<Arc<Permissions>>,
    end: End,
    /// Connections of the pool, as both servers together want it.
    pool: u32,
    /// Both ends have agreed to compress: the INFO that comes next comes compressed, and asks for the place.
    compresses: bool,
    /// What follows is compressed, from the next byte on.
    switch: Option<Level>,
    /// A PONG to our first PING will let the other connections be opened.
    goes_on: bool,
    /// The front of an operation that has not come whole.
    partial: BytesMut,
    /// Its length in all, if known.
    need: usize,
    pings_out: u32,
    pings: Arc<Pings>,
    ping_sent: Option<Instant>,
    measured: bool,
    last_read: Instant,
    /// It must have its place by then.
    greeting: Option<Instant>,
    ping_due: Instant,
    stalled_until: Option<Instant>,
    /// The socket takes no more at present.
    blocked: bool,
    /// The write deadline that has passed was counted.
    slow_counted: bool,
    /// A CONNECT whose password takes long to check; what comes after it waits in `partial`.
    login: Option<(RouteConnect, Job<Decision>)>,
    /// It is no route but a peer link; what was read of it.
    upgrade: Option<BytesMut>,
}

/// Waits for a password to be checked, if one is.
async fn decided(login: &mut Option<(RouteConnect, Job<Decision>)>) -> bool {
    match login {
        Some((_, job)) => matches!(job.wait().await, Some(Decision::Accept(_))),
        None => std::future::pending().await,
    }
}

/// What another server gives, as its INFO says it; all, if that is not to be understood.
fn gives(info: &RouteInfo) -> Arc<Permissions> {
    let given = info.export.clone().unwrap_or_default();
    let subscribe = SubjectPermission { allow: given.allow, deny: given.deny };
    let config = PermissionsConfig { subscribe, ..PermissionsConfig::default() };
    let all = || Permissions::compile(&PermissionsConfig::default()).expect("nothing is restricted");
    Arc::new(Permissions::compile(&config).unwrap_or_else(|_| all()))
}
fn passes(p: &Permissions, subject: &[u8], queue: &[u8]) -> bool {
    p.can_subscribe(subject, queue) != Verdict::Deny
}

impl Conn {
    /// A connection, after its TLS handshake if there is one.
    async fn new(
        mesh: Arc<Mesh>,
        tcp: TcpStream,
        peer: SocketAddr,
        settings: Arc<RouteSettings>,
        dialed: Option<Dialed>,
    ) -> Option<Conn> {
        let socket = match &settings.tls {
            None if settings.compression == Compression::Off => Arc::new(Socket::plain(tcp)),
            None => {
                // It may get a layer.
                let socket = Socket::held(tcp);
                socket.release();
                Arc::new(socket)
            }
            Some(tls) => {
                // Unlike with clients, TLS comes before INFO.
                let socket = Arc::new(Socket::held(tcp));
                let deadline = env::now() + tls.server.timeout;
                let h = Handshake { socket: &socket, link: None, deadline };
                let done = match &dialed {
                    None => h.tls(&tls.server).await,
                    Some(d) => h.tls_client(&tls.client, &d.url.host).await,
                };
                if let Err(e) = done {
                    let level = if matches!(e, Failure::Refused(_)) { "ERR" } else { "DBG" };
                    mesh.hooks.log(level, &format!("{peer} - TLS route handshake error: {e}"));
                    socket.shutdown();
                    return None;
                }
                socket.open();
                socket
            }
        };
        let link = Link::new(LinkOptions {
            id: mesh.broker.next_id(),
            kind: Kind::Route,
            worker: env::current_worker(),
            pending_bytes_max: settings.pending_bytes_max,
            transport: Some(socket.clone()),
            inbound: None,
        });
        link.set_flags(LinkFlags::ECHO.with(LinkFlags::HEADERS));
        mesh.opened(&link);
        let now = env::now();
        let limit = if dialed.is_none() && settings.authenticator.is_required() {
            settings.auth_timeout
        } else {
            GREETING
        };
        let c = Conn {
            limits: Limits {
                max_control_line: settings.control_line_bytes_max.min(CONTROL_LINE_BYTES_MAX),
                max_payload: PAYLOAD_BYTES_MAX,
                pinned: false,
            },
            connected: dialed.is_some(),
            route: None,
            inbox: None,
            gives: None,
            end: End::Refused,
            pool: 0,
            compresses: false,
            switch: None,
            goes_on: false,
            partial: BytesMut::new(),
            need: 0,
            pings_out: 0,
            pings: Arc::default(),
            ping_sent: None,
            measured: false,
            last_read: now,
            greeting: Some(now + limit),
            ping_due: now + FIRST_PING.min(settings.ping_interval),
            stalled_until: None,
            blocked: false,
            slow_counted: false,
            login: None,
            upgrade: None,
            mesh,
            link,
            socket,
            settings,
            peer,
            dialed,
        };
        c.log("INF", "Route connection created");
        Some(c)
    }

    fn log(&self, level: &'static str, text: &str) {
        self.mesh.hooks.log(level, &format!("{} - rid:{} - {text}", self.peer, self.link.id));
    }
    fn connect_object(&self) -> RouteConnect {
        let info = self.mesh.info();
        let url = self.dialed.as_ref().and_then(|d| d.url.credentials.as_ref());
        let (user, pass) = url.map(|(u, p)| (u.clone(), p.expose().to_owned())).unwrap_or_default();
        RouteConnect {
            echo: true,
            user,
            pass,
            tls_required: self.settings.tls.is_some(),
            headers: info.headers,
            name: info.server_id,
            cluster: info.cluster,
            cluster_dynamic: info.cluster_dynamic,
            ..RouteConnect::default()
        }
    }

    /// Sends control bytes now.
    fn send(&self, f: impl FnOnce(&mut Vec<u8>)) {
        self.link.push(f);
        self.link.flush();
    }
    /// Sends -ERR and closes.
    fn refuse(&self, text: &str, reason: Closed) {
        self.log("ERR", text);
        self.link.push(|out| frame::push_err(out, text));
        self.link.close(reason);
    }

    async fn live(mut self) -> End {
        self.run().await;
        if let Some(early) = self.upgrade.take() {
            self.become_peer(early).await;
            return End::Refused;
        }
        self.finish();
        self.socket.shutdown();
        self.end
    }

    /// Runs until the link is closed.
    async fn run(&mut self) {
        self.woken();
        let mut timer_at = self.next_deadline();
        let mut timer = std::pin::pin!(env::sleep_until(timer_at));
        while self.link.closed().is_none() && self.upgrade.is_none() {
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
                ok = decided(&mut self.login), if waits => self.login_ends(ok),
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

    /// Somebody has put something into the outbox, or the socket takes more, or settings have changed.
    fn woken(&mut self) {
        // A blocked outbox is written when the socket takes more, and not before.
        if self.link.blocked_since().is_none() {
            self.link.flush();
        }
        self.blocked = self.link.blocked_since().is_some();
        if !self.blocked {
            self.slow_counted = false;
        }
        let settings = self.mesh.settings();
        if !Arc::ptr_eq(&settings, &self.settings) {
            self.link.set_pending_bytes_max(settings.pending_bytes_max);
            let before = std::mem::replace(&mut self.settings, settings);
            self.reloaded(&before);
        }
    }

    /// New settings are in force. Who has come in and might not any more has to ask again, unless the configuration has that server, so that passwords can be
    /// changed on one server after another. And what the two ends tell each other is agreed on anew when something else may pass.
    fn reloaded(&mut self, before: &RouteSettings) {
        let configured = self.route.as_ref().is_some_and(|r| self.mesh.is_configured(&r.remote_id));
        let came_in = self.dialed.is_none() && (self.connected || self.login.is_some());
        if came_in && !configured && !self.settings.admit_all_of(before) {
            return self.unauthorized("");
        }
        if before.passes() == self.settings.passes() {
            return;
        }
        let Some(inbox) = &mut self.inbox else {
            // It has said what holds no more.
            self.log("INF", "Permissions have changed, connecting anew");
            return self.link.close(Closed::ClientClosed);
        };
        // First they hold, then they are told: the other end tells at once of what it may have from now on.
        inbox.permit(self.settings.permissions.clone());
        self.mesh.broker.permit_route(&self.link, &self.settings.permissions);
        let info = self.mesh.info();
        self.link.push(|out| info.push(out));
        self.link.wake.notify_one();
    }

    /// The other server says something new of itself. What it gives from now on and did not before, it has not taken note of.
    fn news(&mut self, info: RouteInfo) {
        let now = gives(&info);
        if let Some(before) = self.gives.replace(now.clone()) {
            let newly = |s: &[u8], q: &[u8]| !passes(&before, s, q) && passes(&now, s, q);
            if before.config() != now.config() {
                self.mesh.broker.repeat_to_route(&self.link, &newly);
            }
        }
        self.mesh.update(info);
    }

    fn next_deadline(&self) -> Instant {
        let write = match self.link.blocked_since() {
            Some(t) if self.blocked && !self.slow_counted => Some(t + self.settings.write_deadline),
            _ => None,
        };
        [self.greeting, self.stalled_until, write].into_iter().flatten().fold(self.ping_due, Instant::min)
    }

    fn tick(&mut self, now: Instant) {
        if self.greeting.is_some_and(|t| t <= now) {
            return self.refuse("Authentication Timeout", Closed::AuthenticationTimeout);
        }
        if self.stalled_until.is_some_and(|t| t <= now) {
            self.stalled_until = None;
        }
        if let Some(t) = self.link.blocked_since()
            && t + self.settings.write_deadline <= now
            && !self.slow_counted
        {
            self.slow_counted = true;
            self.mesh.broker.stats.slow_routes.add(1);
            self.log("WRN", "Slow route: the write deadline has passed");
            if self.settings.close_on_write_deadline {
                return self.link.close(Closed::SlowConsumerWriteDeadline);
            }
        }
        if self.ping_due <= now {
            self.ping(now);
        }
    }

    fn ping(&mut self, now: Instant) {
        let interval = self.settings.ping_interval;
        if self.measured && self.pings_out == 0 && now.since(self.last_read) < interval {
            self.ping_due = self.last_read + interval;
            return;
        }
        if self.pings_out >= self.settings.pings_out_max {
            self.mesh.broker.stats.stale_routes.add(1);
            return self.refuse("Stale Connection", Closed::StaleConnection);
        }
        self.ping_due = now + interval;
        if self.route.is_none() {
            return;
        }
        self.measured = true;
        self.send_ping(now);
    }
    fn send_ping(&mut self, now: Instant) {
        self.pings_out += 1;
        self.ping_sent = Some(now);
        self.pings.send(&self.link);
        self.link.flush();
    }

    /// Reads what is there and handles it.
    fn read(&mut self) {
        READ.with_borrow_mut(|buf| {
            for _ in 0..READS_MAX {
                match self.read_once(buf) {
                    Ok(0) => self.link.close(Closed::ClientClosed),
                    Ok(_) => {}
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                        break;
                    }
                    Err(_) => self.link.close(Closed::ReadError),
                }
                let waits = self.stalled_until.is_some() || self.login.is_some() || self.upgrade.is_some();
                if self.link.closed().is_some() || waits {
                    break;
                }
            }
        });
        self.settle();
        if self.partial.is_empty() && self.partial.capacity() > 0 {
            self.partial = BytesMut::new();
        }
    }

    /// One read and what it brings. 0 is the end.
    fn read_once(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.need >= OWN_FRAME_BYTES_MIN {
            let missing = self.need - self.partial.len();
            let n = self.socket.try_read_more(&mut self.partial, missing)?;
            self.last_read = env::now();
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

    /// Handles a buffer and keeps what is not whole.
    fn batch(&mut self, buf: &[u8], owner: Option<&Bytes>) {
        self.last_read = env::now();
        if !self.connected && self.route.is_none() && self.login.is_none() && self.opens_peer(buf) {
            return;
        }
        let used = self.operations(buf, owner);
        if self.link.closed().is_none() {
            let rest = &buf[used..];
            if !rest.is_empty() {
                self.partial.reserve(self.need.min(PAYLOAD_BYTES_MAX).max(rest.len()));
                self.partial.extend_from_slice(rest);
            }
        }
    }

    /// Whether what came first is the opening of a peer link, or its front; then it is kept.
    fn opens_peer(&mut self, buf: &[u8]) -> bool {
        use wire::peer::OPENING;
        if buf.starts_with(OPENING) {
            self.upgrade = Some(BytesMut::from(buf));
            return true;
        }
        let front = OPENING.starts_with(buf);
        if front {
            self.partial.extend_from_slice(buf);
        }
        front
    }

    /// Hands the connection over. What was written so far, which is INFO, goes out before.
    async fn become_peer(self, early: BytesMut) {
        let deadline = self.greeting.unwrap_or(env::now());
        while self.link.pending_bytes() > 0 || self.socket.has_unwritten() {
            env::select! {
                r = self.socket.writable() => if r.is_err() { break },
                _ = env::sleep_until(deadline) => break,
            }
            self.link.flush();
        }
        let sent = self.link.pending_bytes() == 0;
        self.link.dismantle();
        self.mesh.closed(&self.link);
        if sent && self.link.closed().is_none() {
            peer::accept(&self.mesh, self.socket.clone(), self.peer, early).await;
        }
        self.socket.shutdown();
    }

    /// Writes out what the batches since the last time have put into outboxes, this connection's own included.
    fn settle(&mut self) {
        if let Some(r) = &self.route {
            r.last_activity.store(env::wall().0 as u64, Relaxed);
        }
        if let Some(inbox) = &mut self.inbox {
            inbox.flush();
            if inbox.take_congestion() {
                self.mesh.broker.stats.stalled.add(1);
                self.stalled_until = Some(self.last_read + STALL);
            }
        }
        self.woken();
    }

    /// Handles whole operations. Returns how many bytes they were.
    fn operations(&mut self, buf: &[u8], owner: Option<&Bytes>) -> usize {
        let mut at = 0;
        while at < buf.len() {
            match parse(&buf[at..], &self.limits) {
                Ok(Parsed::Op { op: Op::Msg(m), used }) if self.inbox.is_some() => {
                    let shared = owner.map(|b| b.slice_ref(m.body_crlf));
                    let inbox = self.inbox.as_mut().expect("checked by the guard");
                    let message = Message {
                        subject: m.subject,
                        reply: m.reply,
                        header_len: m.header_len,
                        body_crlf: m.body_crlf,
                        shared: shared.as_ref(),
                        shown: None,
                    };
                    inbox.publish(m.account, &message, m.queues);
                    at += used;
                }
                Ok(Parsed::Op { op, used }) => {
                    self.operation(op);
                    at += used;
                    if let Some(level) = self.switch.take() {
                        self.socket.compress(level, &buf[at..]);
                        self.switched(level);
                        self.need = 0;
                        return buf.len();
                    }
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
        if self.dialed.is_none() && !self.connected && self.asks_who() {
            return self.unauthorized("");
        }
        let shown = String::from_utf8_lossy(&at[..at.len().min(64)]).into_owned();
        self.log("ERR", &format!("Router parser ERROR: {e}: {shown:?}"));
        let reason = match e {
            Error::LineTooLong => Closed::MaximumControlLineExceeded,
            Error::PayloadTooLarge(_) => Closed::MaximumMessagePayloadExceeded,
            _ => Closed::ProtocolViolation,
        };
        if let Some(text) = e.text() {
            self.link.push(|out| frame::push_err(out, text));
        }
        self.link.close(reason);
    }

    /// Handles what is not a message of a connection that has its place.
    #[cold]
    fn operation(&mut self, op: Op<'_>) {
        match op {
            Op::Ping => self.link.push(|out| out.extend_from_slice(b"PONG\r\n")),
            Op::Pong => self.pong(),
            Op::Ok => {}
            Op::Err(text) => {
                self.log("ERR", &format!("Route Error {}", String::from_utf8_lossy(text)));
                self.link.close(Closed::ParseError);
            }
            Op::Connect(json) => self.connect(json),
            Op::Info(json) => self.info(json),
            //
            Op::Msg(_) | Op::Sub(_) | Op::Unsub(_) if self.inbox.is_none() => self.unauthorized(""),
            Op::Sub(i) => self.interest(&i),
            Op::Unsub(i) => {
                if let Some(account) = self.inbox.as_ref().and_then(|b| b.account(i.account)) {
                    self.link.unsubscribe_route(&account, i.account, i.subject, i.queue);
                }
            }
            Op::Msg(_) => {}
        }
    }

    fn interest(&mut self, i: &Interest<'_>) {
        let Some(inbox) = &self.inbox else { return };
        if !inbox.gives(i.subject, i.queue) {
            return;
        }
        let Some(account) = inbox.account(i.account) else { return };
        let done = self.link.subscribe_route(&account, i.account, i.subject, i.queue, i.weight);
        if done == Err(broker::SubscribeError::InvalidSubject) {
            self.log("ERR", &format!("Invalid subject {:?}", String::from_utf8_lossy(i.subject)));
        }
    }

    fn pong(&mut self) {
        self.pings_out = 0;
        self.pings.answered();
        let Some(route) = self.route.clone() else { return };
        if let Some(t) = self.ping_sent.take() {
            let rtt = self.last_read.since(t).max(Duration::from_nanos(1));
            route.rtt_ns.store(rtt.as_nanos() as u64, Relaxed);
            if let Some(level) = self.settings.compression.by_round_trip(rtt) {
                self.socket.set_level(level);
            }
        }
        if std::mem::take(&mut self.goes_on)
            && let Some(d) = &self.dialed
        {
            dial::go_on(&self.mesh, d, &route.remote_id, self.pool);
        }
    }

    /// The other server says who it is, because it has connected to us.
    fn connect(&mut self, json: &[u8]) {
        if self.dialed.is_some() || self.connected {
            return;
        }
        let c = match RouteConnect::parse(json) {
            Ok(c) => c,
            Err(e) => {
                self.log("ERR", &format!("CONNECT is not valid: {e}"));
                return self.link.close(Closed::ParseError);
            }
        };
        let s = self.settings.clone();
        if let Some(certificates) = &s.certificates {
            return match certificates.admit_peer(&self.socket) {
                true => self.accepted(c),
                false => self.unauthorized(&c.user),
            };
        }
        if !s.authenticator.is_required() {
            return self.accepted(c);
        }
        let attempt = Attempt { user: &c.user, pass: &c.pass, ..Attempt::default() };
        match s.authenticator.check(&attempt) {
            Check::Done(Decision::Accept(_)) => self.accepted(c),
            Check::Done(Decision::Reject(_)) => self.unauthorized(&c.user),
            Check::Pending(job) => match self.mesh.cpu.run(move || job.run()) {
                Some(end) => self.login = Some((c, end)),
                None => self.unauthorized(&c.user),
            },
        }
    }
    /// Whether who connects has to say who he is.
    fn asks_who(&self) -> bool {
        self.settings.authenticator.is_required() || self.settings.certificates.is_some()
    }
    fn unauthorized(&self, user: &str) {
        let who = if user.is_empty() { String::new() } else { format!(" - User {user:?}") };
        self.log("ERR", &format!("authentication error{who}"));
        self.link.push(|out| frame::push_err(out, identity::AUTHORIZATION_VIOLATION));
        self.link.close(Closed::AuthenticationFailure);
    }
    fn login_ends(&mut self, ok: bool) {
        let Some((c, _)) = self.login.take() else { return };
        if !ok {
            return self.unauthorized(&c.user);
        }
        self.accepted(c);
        if self.link.closed().is_none() {
            let rest = std::mem::take(&mut self.partial);
            self.batch(&rest, None);
            self.settle();
        }
    }
    fn accepted(&mut self, c: RouteConnect) {
        if !c.lang.is_empty() {
            return self.refuse("attempted to connect to route port", Closed::IncorrectPort);
        }
        if !c.gateway.is_empty() {
            let text = format!("Rejecting connection from gateway {:?} on the Route port", c.gateway);
            return self.refuse(&text, Closed::WrongGateway);
        }
        match self.mesh.agree_on_name(&c.cluster, c.cluster_dynamic, true) {
            Agreement::Same => {}
            Agreement::Adopted => self.mesh.part_from_all_but(&self.link),
            Agreement::Conflict(ours) => {
                let theirs = c.cluster;
                let text = format!("Rejecting connection, cluster name {theirs:?} does not match {ours:?}");
                return self.refuse(&text, Closed::ClusterNameConflict);
            }
        }
        self.connected = true;
        self.link.set_flags(LinkFlags::ECHO.with_if(c.headers, LinkFlags::HEADERS));
    }

    /// The other server says what it is, or what another is.
    fn info(&mut self, json: &[u8]) {
        let info = match RouteInfo::parse(json) {
            Ok(i) => i,
            Err(e) => {
                self.log("ERR", &format!("INFO is not valid: {e}"));
                return self.link.close(Closed::ParseError);
            }
        };
        if !info.gateway.is_empty() {
            // About gateways, which this server has none of.
            return;
        }
        match &self.route {
            None if !self.connected => {
                if self.asks_who() {
                    return self.unauthorized("");
                }
                self.connected = true;
                match self.settings.compression.agreed(&info.compression) {
                    Some(_) if !self.compresses => self.begin_to_compress(&info),
                    _ => self.take_place(info),
                }
            }
            None if !self.compresses && self.settings.compression.agreed(&info.compression).is_some() => {
                self.begin_to_compress(&info);
            }
            None => self.take_place(info),
            Some(r) if r.remote_id == info.server_id => self.news(info),
            Some(_) => self.mesh.learn(&info),
        }
    }

    /// Both ends want to compress. Who has connected says so by INFO, and both write compressed from then on: first an INFO each,
    /// by which the place is asked for and given.
    fn begin_to_compress(&mut self, theirs: &RouteInfo) {
        self.compresses = true;
        self.switch = self.settings.compression.agreed(&theirs.compression);
        if self.dialed.is_some() {
            let info = self.info_for_place();
            self.send(|out| info.push(out));
            if self.link.pending_bytes() > 0 || self.socket.has_unwritten() {
                // A new connection has room for that, if it is one.
                self.link.close(Closed::WriteError);
            }
        }
    }
    /// The first that is compressed.
    fn switched(&mut self, level: Level) {
        if self.dialed.is_none() {
            let mut info = self.mesh.info();
            info.nonce = self.mesh.nonce();
            info.compression = level.name().to_owned();
            self.link.push(|out| info.push(out));
        }
    }
    /// The INFO by which we ask for a place at a server that we have connected to.
    fn info_for_place(&self) -> RouteInfo {
        let mut info = self.mesh.info();
        info.nonce = self.mesh.nonce();
        match self.dialed.as_ref().map(|d| &d.slot) {
            Some(Slot::Pool(n)) => info.route_pool_idx = i64::from(*n),
            Some(Slot::Account(a)) => info.route_account = a.to_string(),
            None => {}
        }
        info
    }

    /// Takes the connection's place in the mesh, and begins to exchange interest.
    fn take_place(&mut self, info: RouteInfo) {
        let id = info.server_id.clone();
        if id.is_empty() || (self.dialed.is_some() && !info.nonce.is_empty() && info.proto == 1) {
            self.log("ERR", "The other end is no route port");
            return self.link.close(Closed::WrongGateway);
        }
        let agreement = self.mesh.agree_on_name(&info.cluster, info.cluster_dynamic, self.dialed.is_none());
        if agreement != Agreement::Same && id != self.mesh.id {
            // With a new name of ours the CONNECT that is out is wrong: we come again.
            if let Agreement::Conflict(ours) = &agreement {
                let text = format!("Cluster name {:?} does not match {ours:?}", info.cluster);
                self.log("ERR", &text);
            }
            return self.link.close(Closed::ClusterNameConflict);
        }
        if self.dialed.is_some() {
            self.link.set_flags(LinkFlags::ECHO.with_if(info.headers, LinkFlags::HEADERS));
        }
        let ours = self.settings.pool_size;
        let theirs = info.route_pool_size.clamp(0, POOL_MAX) as u32;
        let pooled = ours > 0 && theirs > 0;
        let slot = match &self.dialed {
            Some(d) => d.slot.clone(),
            None if !info.route_account.is_empty() => Slot::Account(info.route_account.as_str().into()),
            None if !(0..POOL_MAX).contains(&info.route_pool_idx) => {
                return self.link.close(Closed::ProtocolViolation);
            }
            None => Slot::Pool(info.route_pool_idx as u32),
        };
        let route = Arc::new(Route {
            link: self.link.clone(),
            peer: self.peer,
            remote_id: id.clone(),
            remote_name: info.server_name.clone(),
            solicited: self.dialed.is_some(),
            configured: self.dialed.as_ref().is_some_and(|d| d.configured),
            slot: slot.clone(),
            url: self.dialed.as_ref().map(|d| d.url.clone()),
            start: env::wall(),
            tls: self.socket.tls_agreed(),
            socket: self.socket.clone(),
            since: env::now(),
            rtt_ns: AtomicU64::new(0),
            last_activity: AtomicU64::new(env::wall().0 as u64),
            pings: self.pings.clone(),
        });
        let first = self.dialed.is_some().then(|| self.info_for_place());
        if let Some(d) = self.dialed.as_ref().filter(|d| d.configured) {
            self.mesh.found(&d.url, &id);
        }
        let is_new = match self.mesh.register(&route, &info, first) {
            Ok(is_new) => is_new,
            Err(why) => return self.no_place(why, id),
        };
        self.end = End::Registered { id: id.clone() };
        self.greeting = None;
        self.pool = if pooled { ours.max(theirs) } else { 0 };
        if self.dialed.is_some() && slot == Slot::Pool(0) {
            // The PONG says that the other end has given the connection its place: the others may follow.
            self.goes_on = true;
            self.send_ping(env::now());
        }
        let carries = match &slot {
            Slot::Account(a) => Carries::One(a.clone()),
            Slot::Pool(_) if !pooled => Carries::All,
            Slot::Pool(n) => Carries::Share { index: *n, size: ours, but: self.settings.pinned.clone() },
        };
        if let Carries::One(name) = &carries {
            self.limits.pinned = true;
            self.link.carry_for(&self.mesh.broker.account_or_new(name));
            // Another connection may have told of the account so far.
            for other in self.mesh.routes() {
                if other.remote_id == id && other.link.id != self.link.id {
                    self.mesh.broker.withdraw_from_route(&other.link, name);
                }
            }
        }
        let (broker, permissions) = (self.mesh.broker.clone(), self.settings.permissions.clone());
        self.route = Some(route);
        self.gives = Some(gives(&info));
        self.inbox =
            Some(RouteInbox::new(broker, self.link.clone(), permissions.clone(), self.mesh.random(u64::MAX)));
        self.mesh.broker.attach_route(RouteOut { link: self.link.clone(), carries, permissions });
        // The first connection that gets its place need not be the first of the pool.
        if is_new {
            self.mesh.hooks.changed();
        }
        if matches!(slot, Slot::Account(_) | Slot::Pool(0)) {
            self.mesh.gossip(&info, self.peer, &slot);
        }
    }

    fn no_place(&mut self, why: Refused, id: String) {
        let reason = match why {
            Refused::Own => {
                self.end = End::Own;
                Closed::DuplicateRoute
            }
            Refused::Duplicate => {
                self.end = End::Duplicate { id };
                Closed::DuplicateRoute
            }
            Refused::NameTaken => {
                self.refuse("Duplicate Server Name", Closed::DuplicateServerName);
                return;
            }
            Refused::Stopping => Closed::ServerShutdown,
        };
        self.link.close(reason);
    }

    /// The end: nothing is left of it.
    fn finish(&mut self) {
        let reason = self.link.closed().unwrap_or(Closed::ClientClosed);
        self.inbox = None;
        self.link.flush();
        self.socket.farewell(reason);
        if let Some(r) = &self.route {
            // First the place is free, then the interest goes: whoever takes the place brings its own.
            self.mesh.unregister(r);
            self.mesh.broker.detach_route(&self.link);
        }
        self.link.dismantle();
        self.mesh.closed(&self.link);
        let remote = match &self.route {
            Some(r) => format!(" - Remote: {}", r.remote_name),
            None => String::new(),
        };
        self.log("INF", &format!("Router connection closed: {}{remote}", reason.text()));
    }
}
