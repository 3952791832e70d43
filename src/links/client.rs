//! A client's connection: its greeting, its login, its operations, its timers, its end.
//!
//! One task owns it. The task waits for the first of: something to read, room to write what an earlier write left, a
//! wake-up (closed, blocked, new settings), or its nearest deadline. What it reads it handles at once, a buffer at a time,
//! and then writes out what that has put into outboxes.

use std::{cell::RefCell, io, net::SocketAddr, sync::Arc, time::Duration};

use broker::{Closed, Kind, Link, LinkFlags, LinkOptions, Message, Outcome, Router, SubscribeError};
use bytes::{Bytes, BytesMut};
use env::{
    Instant,
    net::{Accepted, TcpListener},
};
use identity::{Attempt, Check, ConnectionType, Decision, Identity, Nonce, Verdict};
use wire::{
    client::{Error, Limits, Op, Parsed, Pub, parse},
    frame,
    info::{Connect, Info},
};

use crate::{Client, ClosedClient, Context, Facts, Settings, Socket};

/// The worker's read buffer, in bytes.
const READ_BYTES: usize = 64 << 10;
/// Frames from this size on are read into a buffer of their own, which receivers then share.
const OWN_FRAME_BYTES_MIN: usize = 16 << 10;
/// Reads in a row before other tasks get their turn.
const READS_MAX: usize = 4;
/// How long a publisher pauses for a receiver that is nearly full; nat-server waits 2 to 5 ms.
const STALL: Duration = Duration::from_millis(5);
/// When the first PING goes out, to measure the round trip.
const FIRST_PING: Duration = Duration::from_secs(2);

thread_local!(static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice()));

/// Accepts clients until the listener fails for good or `stop` resolves.
pub async fn listen(cx: Arc<Context>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = env::select! {
            _ = &mut stop => return,
            a = listener.accept() => a,
        };
        match accepted {
            Ok((socket, peer)) => {
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
    let socket = Arc::new(Socket::plain(tcp));
    let settings = cx.settings();
    let link = Link::new(LinkOptions {
        id: cx.broker.next_id(),
        kind: Kind::Client,
        worker: env::current_worker(),
        pending_bytes_max: settings.pending_bytes_max,
        transport: Some(socket.clone()),
        inbound: None,
    });
    let full = settings.connections_max.is_some_and(|max| cx.broker.connections() >= max);
    let client = Client::new(link.clone(), peer, Facts { kind: "nats", ..Facts::default() });
    cx.broker.add_link(&link);
    cx.clients.add(&client);
    let mut c = Connection::new(cx.clone(), client, socket.clone(), settings);
    c.greet();
    if full {
        c.refuse("maximum connections exceeded", Closed::MaximumConnectionsExceeded);
    }
    c.run().await;
    c.end();
    socket.shutdown();
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
    ping_sent: Option<Instant>,
    /// The INFO after the first PONG is due.
    info_due: bool,
    last_read: Instant,
    deadlines: Deadlines,
    /// Reading pauses until then, for a slow receiver.
    stalled_until: Option<Instant>,
    /// The socket takes no more at present.
    blocked: bool,
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
    fn new(
        cx: Arc<Context>,
        client: Arc<Client>,
        socket: Arc<Socket>,
        settings: Arc<Settings>,
    ) -> Connection {
        let now = env::now();
        let auth_required = settings.authenticator.is_required();
        let mut nonce = String::new();
        if settings.authenticator.needs_nonce() {
            let mut raw = [0; identity::NONCE_RAW_LEN];
            cx.fill_random(&mut raw);
            nonce = Nonce::from_random(raw).as_str().to_string();
        }
        client.facts.lock().nonce.clone_from(&nonce);
        let mut c = Connection {
            link: client.link.clone(),
            limits: Limits {
                max_control_line: settings.control_line_bytes_max,
                max_payload: settings.payload_bytes_max,
                headers: false,
            },
            router: None,
            connected: false,
            verbose: true,
            pedantic: false,
            payload_bytes_max: settings.payload_bytes_max,
            nonce,
            partial: BytesMut::new(),
            need: 0,
            pings_out: 0,
            ping_sent: None,
            info_due: true,
            last_read: now,
            deadlines: Deadlines {
                auth: auth_required.then(|| now + settings.auth_timeout),
                ping: now + FIRST_PING.min(settings.ping_interval),
                expiry: None,
            },
            stalled_until: None,
            blocked: false,
            cx,
            client,
            socket,
            settings,
        };
        if let Some(max) = c.settings.subscriptions_max {
            c.link.set_subscriptions_max(max);
        }
        if !auth_required {
            // What a client does before CONNECT, or without it, it does in the default account.
            let account = c.settings.default_account.clone();
            c.bind(&account);
        }
        c
    }

    /// The INFO of this connection.
    fn info(&self) -> Info {
        let mut info = self.settings.info.clone();
        info.client_id = self.link.id;
        info.client_ip = self.client.peer.ip().to_canonical().to_string();
        info.nonce.clone_from(&self.nonce);
        info.max_payload = self.payload_bytes_max as i64;
        if let Some(local) = info.host.is_empty().then(|| self.socket.tcp().local_addr().ok()).flatten() {
            info.host = local.ip().to_string();
        }
        info
    }

    fn greet(&mut self) {
        let info = self.info();
        self.link.push(|out| info.push(out));
        self.link.flush();
    }

    /// Runs until the link is closed.
    async fn run(&mut self) {
        let mut timer = std::pin::pin!(env::sleep_until(self.next_deadline()));
        let mut timer_at = self.next_deadline();
        while self.link.closed().is_none() {
            // A deadline that has moved later is noticed when the timer fires; one that has come nearer re-arms it.
            let next = self.next_deadline();
            if next < timer_at {
                timer.set(env::sleep_until(next));
                timer_at = next;
            }
            let link = self.link.clone();
            let (reads, writes) = (self.stalled_until.is_none(), self.blocked);
            env::select! {
                _ = link.wake.notified() => self.woken(),
                r = self.socket.writable(), if writes => {
                    if r.is_err() {
                        self.link.close(Closed::WriteError);
                    }
                    self.link.flush();
                    self.woken();
                }
                r = self.socket.readable(), if reads => match r {
                    Ok(()) => self.read(),
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
            self.settings = settings;
            self.reloaded();
            if announced && self.connected && self.client.facts.lock().protocol >= 1 {
                let info = self.info();
                self.send(|out| info.push(out));
            }
        }
    }

    /// New settings are in force.
    fn reloaded(&mut self) {
        let s = &self.settings;
        self.limits.max_control_line = s.control_line_bytes_max;
        self.link.set_pending_bytes_max(s.pending_bytes_max);
        self.deadlines.ping = self.deadlines.ping.min(env::now() + s.ping_interval);
        let identity = self.client.facts.lock().identity.clone();
        match identity {
            Some(identity) => self.limit(&identity),
            None => {
                self.payload_bytes_max = s.payload_bytes_max;
                self.limits.max_payload = s.payload_bytes_max;
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.deadlines.auth.is_some_and(|t| t <= now) {
            return self.refuse("Authentication Timeout", Closed::AuthenticationTimeout);
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
        let s = &self.settings;
        // Somebody who speaks is there; but the round trip is measured once soon after the start.
        let measured = !self.client.rtt().is_zero();
        if measured && self.pings_out == 0 && now.since(self.last_read) < s.ping_interval {
            self.deadlines.ping = self.last_read + s.ping_interval;
            return;
        }
        if self.pings_out >= s.pings_out_max {
            self.cx.broker.stats.stale.add(1);
            return self.refuse("Stale Connection", Closed::StaleConnection);
        }
        self.deadlines.ping = now + s.ping_interval;
        if !self.connected && s.authenticator.is_required() {
            return;
        }
        self.pings_out += 1;
        self.ping_sent = Some(now);
        self.send(|out| out.extend_from_slice(b"PING\r\n"));
    }

    /// Sends control bytes now.
    fn send(&self, f: impl FnOnce(&mut Vec<u8>)) {
        self.link.push(f);
        self.link.flush();
    }

    /// Sends -ERR and closes.
    fn refuse(&self, text: &str, reason: Closed) {
        self.link.push(|out| frame::push_err(out, text));
        self.link.close(reason);
    }

    fn error(&self, text: &str) {
        self.link.push(|out| frame::push_err(out, text));
    }

    /// Reads what is there and handles it.
    fn read(&mut self) {
        READ.with_borrow_mut(|buf| {
            for _ in 0..READS_MAX {
                match self.read_once(buf) {
                    Ok(0) => return self.link.close(Closed::ClientClosed),
                    Ok(_) => {}
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                        break;
                    }
                    Err(_) => return self.link.close(Closed::ReadError),
                }
                if self.link.closed().is_some() || self.stalled_until.is_some() {
                    break;
                }
            }
        });
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

    /// Handles a buffer, keeps what is not whole, and writes out what was caused.
    fn batch(&mut self, buf: &[u8], owner: Option<&Bytes>) {
        self.last_read = env::now();
        self.client.active(env::wall());
        let used = self.operations(buf, owner);
        if let Some(r) = &mut self.router {
            r.flush();
            if r.take_congestion() && !self.settings.no_stall {
                self.cx.broker.stats.stalled.add(1);
                self.client.stalled();
                self.stalled_until = Some(self.last_read + STALL);
            }
        }
        self.link.flush();
        if self.link.closed().is_none() {
            let rest = &buf[used..];
            if !rest.is_empty() {
                self.partial.reserve(self.need.max(rest.len()));
                self.partial.extend_from_slice(rest);
            }
        }
    }

    /// Handles whole operations. Returns how many bytes they were.
    fn operations(&mut self, buf: &[u8], owner: Option<&Bytes>) -> usize {
        let mut at = 0;
        while at < buf.len() {
            match parse(&buf[at..], &self.limits) {
                Ok(Parsed::Op { op: Op::Pub(p), used }) if self.router.is_some() => {
                    let shared = owner.map(|b| b.slice_ref(p.body_crlf));
                    self.publish(&p, shared.as_ref());
                    at += used;
                }
                Ok(Parsed::Op { op, used }) => {
                    self.operation(op);
                    at += used;
                    if self.link.closed().is_some() {
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
        if self.router.is_none() && !at.first().is_some_and(|b| b | 0x20 == b'c') {
            return self.refuse("Authorization Violation", Closed::AuthenticationFailure);
        }
        let shown = String::from_utf8_lossy(&at[..at.len().min(64)]);
        self.cx.hooks.log("ERR", &self.client, &format!("{e}: {shown:?}"));
        let reason = match e {
            Error::LineTooLong => Closed::MaximumControlLineExceeded,
            Error::PayloadTooLarge(_) => Closed::MaximumMessagePayloadExceeded,
            Error::HeadersNotSupported => Closed::MessageHeaderViolation,
            Error::Unknown | Error::Arguments => Closed::ParseError,
        };
        match e.text() {
            Some(text) => self.refuse(text, reason),
            None => self.link.close(reason),
        }
    }

    #[inline]
    fn publish(&mut self, p: &Pub<'_>, shared: Option<&Bytes>) {
        let router = self.router.as_mut().expect("checked by the caller");
        if p.subject.first() == Some(&b'_') || p.subject.first() == Some(&b'$') {
            // Gateway replies are the servers' own.
            if identity::is_reserved_subject(p.subject) {
                return self.denied(p.subject);
            }
        }
        if !p.reply.is_empty() && identity::is_reserved_reply(p.reply) {
            return self.reserved_reply(p);
        }
        let m = Message {
            subject: p.subject,
            reply: p.reply,
            header_len: p.header_len,
            body_crlf: p.body_crlf,
            shared,
        };
        match router.publish(&m) {
            Outcome::Delivered(_) => {}
            Outcome::Denied => return self.denied(p.subject),
            Outcome::DeniedAs(subject) => return self.denied(&subject),
        }
        if self.verbose || self.pedantic {
            self.published(p);
        }
    }

    #[cold]
    fn published(&mut self, p: &Pub<'_>) {
        if self.verbose {
            self.link.push(|out| out.extend_from_slice(b"+OK\r\n"));
        }
        if self.pedantic && !subject::is_literal(p.subject) {
            self.error("Invalid Publish Subject");
        }
    }

    #[cold]
    fn denied(&mut self, subject: &[u8]) {
        let text = format!("Permissions Violation for Publish to \"{}\"", String::from_utf8_lossy(subject));
        self.cx.hooks.log("ERR", &self.client, &text);
        self.error(&text);
    }

    #[cold]
    fn reserved_reply(&mut self, p: &Pub<'_>) {
        let reply = String::from_utf8_lossy(p.reply);
        let text = format!("Permissions Violation for Publish with Reply of \"{reply}\"");
        self.cx.hooks.log("ERR", &self.client, &text);
        self.error(&text);
    }

    /// Handles an operation that is not a publish of a client that may publish.
    fn operation(&mut self, op: Op<'_>) {
        // L-1
        if self.router.is_none() && !matches!(op, Op::Connect(_) | Op::Info(_)) {
            self.log_in_without_connect();
            if self.router.is_none() {
                return self.refuse("Authorization Violation", Closed::AuthenticationFailure);
            }
        }
        match op {
            Op::Pub(p) => self.publish(&p, None),
            Op::Sub(s) => self.subscribe(s.subject, s.queue, s.sid),
            Op::Unsub { sid, max } => {
                if let Some(a) = self.link.account() {
                    self.link.unsubscribe(&a, sid, max);
                }
                self.ok();
            }
            Op::Ping => self.on_ping(),
            Op::Pong => {
                self.pings_out = 0;
                if let Some(t) = self.ping_sent.take() {
                    self.client.set_rtt(self.last_read.since(t).max(Duration::from_nanos(1)));
                }
            }
            Op::Connect(json) => self.connect(json),
            Op::Info(_) | Op::Ok => {}
            Op::Err(_) => self.link.close(Closed::ClientClosed),
        }
    }

    fn ok(&self) {
        if self.verbose {
            self.link.push(|out| out.extend_from_slice(b"+OK\r\n"));
        }
    }

    fn on_ping(&mut self) {
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
        if !subject::is_valid(subject) {
            return self.error("Invalid Subject");
        }
        let tokens = memchr_count(subject) + 1;
        if self.settings.subscription_tokens_max.is_some_and(|max| tokens > max) {
            let text =
                format!("Permissions Violation for Subscription to \"{}\", too many tokens", subject_text());
            return self.error(&text);
        }
        let verdict = match self.link.permissions() {
            _ if queue == b"_sys_" => Verdict::Deny,
            Some(p) => p.can_subscribe(subject, queue),
            None => Verdict::Allow,
        };
        if verdict == Verdict::Deny {
            let mut text = format!("Permissions Violation for Subscription to \"{}\"", subject_text());
            if !queue.is_empty() {
                text += &format!(" using queue \"{}\"", queue_text());
            }
            self.cx.hooks.log("ERR", &self.client, &text);
            return self.error(&text);
        }
        match self.link.subscribe(&account, sid, subject, queue, verdict == Verdict::AllowFiltered) {
            Ok(_) => self.ok(),
            Err(SubscribeError::TooMany) => self.error("maximum subscriptions exceeded"),
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
    }

    fn connect(&mut self, json: &[u8]) {
        let connect = match Connect::parse(json) {
            Ok(c) => c,
            Err(e) => {
                self.cx.hooks.log("ERR", &self.client, &format!("CONNECT is not valid: {e}"));
                return self.link.close(Closed::ParseError);
            }
        };
        if !(0..=1).contains(&connect.protocol) {
            return self.refuse("invalid client protocol", Closed::BadClientProtocolVersion);
        }
        if connect.no_responders && !connect.headers {
            return self
                .refuse("no responders requires headers support", Closed::NoRespondersRequiresHeaders);
        }
        if self.connected && !cfg!(mutant = "second-connect-keeps-subs") {
            // A second CONNECT begins anew: its subscriptions go, and it logs in again.
            let account = self.link.account();
            self.link.unsubscribe_all(account.as_deref());
        }
        let attempt = Attempt {
            user: &connect.user,
            pass: &connect.pass,
            token: &connect.auth_token,
            nkey: &connect.nkey,
            sig: &connect.sig,
            jwt: &connect.jwt,
            proxy_sig: &connect.proxy_sig,
            legacy_account: !connect.account.is_empty() || connect.new_account,
            ..self.bare_attempt()
        };
        let decision = match self.settings.authenticator.check(&attempt) {
            Check::Done(d) => d,
            Check::Pending(job) => job.run(),
        };
        match decision {
            Decision::Accept(identity) => self.logged_in(connect, identity),
            Decision::Reject(reason) => self.unauthorized(reason),
        }
    }

    /// What is known of this connection without CONNECT.
    fn bare_attempt(&self) -> Attempt<'_> {
        Attempt { nonce: self.nonce.as_bytes(), connection_type: ConnectionType::Standard, ..Attempt::default() }
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
        let check = self.settings.authenticator.check(&self.bare_attempt());
        if let Check::Done(Decision::Accept(identity)) = check {
            self.logged_in(Connect { verbose: true, echo: true, ..Connect::default() }, identity);
        }
    }

    fn logged_in(&mut self, connect: Connect, identity: Identity) {
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
        self.deadlines.expiry = identity.expires_at_ns.map(|at| env::now() + env::Wall(at).since(env::wall()));
        self.bind(&identity.account);
        self.limit(&identity);
        if self.link.closed().is_some() {
            return;
        }
        if first {
            self.cx.hooks.connected(&self.client);
        }
        self.ok();
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

    /// The end: last words, then nothing is left of it.
    fn end(&mut self) {
        let reason = self.link.closed().unwrap_or(Closed::ClientClosed);
        self.router = None;
        // L-4
        self.link.flush();
        let sent = self.link.out_traffic();
        let account = self.link.account();
        let subscriptions = self.link.unsubscribe_all(account.as_deref());
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
