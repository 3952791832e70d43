//! A client that speaks the protocol over `env::net`, does the steps of its plan, and notes what it did and saw.
//!
//! It owns its socket, its two buffers and the numbers of its operations; it judges only what is wrong with the bytes
//! themselves. One task: it waits for the first of its next step, room to write, bytes to read, and a call of the harness.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use env::{Instant, net::TcpStream, sim::World, watch};

use crate::{
    history::{Conn, History, Msg, Pub, Session, Shared, Sub, Violation},
    options::Options,
    plan::{ClientPlan, Garbage, Op, Step},
    wire,
    world::USERS,
};

/// What the harness calls to all clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Do the steps.
    Storm,
    /// Read everything, and confirm what was sent.
    First,
    /// All is sent: receive what is still to come.
    Second,
    /// Leave.
    Leave,
}

/// Time to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A client and what it needs to know.
pub struct Client {
    /// What it does.
    pub plan: ClientPlan,
    /// The storm's options.
    pub options: Options,
    /// Where the server is.
    pub server: SocketAddr,
    /// What has happened so far.
    pub history: Shared,
    /// The world, for its time.
    pub world: World,
    /// The server's number of starts.
    pub boots: watch::Receiver<u64>,
    /// What to do.
    pub phase: watch::Receiver<Phase>,
}

struct Link {
    stream: TcpStream,
    /// Number in the history.
    number: usize,
    session: usize,
    user: usize,
    out: Vec<u8>,
    written: usize,
    inb: Vec<u8>,
    /// Operations sent.
    op: u64,
    /// Operations that were PINGs and wait for their PONGs, with the barrier that they are.
    pings: VecDeque<(u64, u64)>,
    next_sid: u64,
    /// Number in the history and whether it responds, by sid.
    subs: BTreeMap<u64, (usize, bool)>,
    /// Subscriptions that are open as far as the client is concerned.
    open: Vec<u64>,
    reads_from: Instant,
    sip: usize,
    deaf: bool,
    half_closed: bool,
    silent: bool,
    greeted: bool,
}

impl Client {
    /// Does all steps, then what the harness calls, then ends.
    pub async fn run(mut self) {
        let mut link: Option<Link> = None;
        let mut steps: VecDeque<Step> = std::mem::take(&mut self.plan.steps).into();
        let mut due = env::now();
        if let Some(s) = steps.front() {
            due += Duration::from_micros(s.wait_us);
        }
        let mut phase = Phase::Storm;
        loop {
            if steps.is_empty() {
                self.history.lock().done.insert(self.plan.id);
            }
            if phase == Phase::Leave {
                return;
            }
            let reading = link.as_ref().is_some_and(|l| !l.deaf);
            let reads_from = link.as_ref().map_or(Instant(0), |l| l.reads_from);
            let writing = link.as_ref().is_some_and(|l| l.written < l.out.len());
            env::select! {
                changed = self.phase.changed() => {
                    phase = *self.phase.borrow();
                    if changed.is_err() {
                        return;
                    }
                    steps.clear();
                    if let Some(l) = &mut link {
                        self.called(l, phase);
                    }
                }
                _ = env::sleep_until(due), if !steps.is_empty() => {
                    let Some(step) = steps.pop_front() else { continue };
                    self.step(&mut link, step.op).await;
                    due = env::now() + Duration::from_micros(steps.front().map_or(0, |s| s.wait_us));
                }
                _ = writable(&link), if writing => {}
                _ = readable(&link, reads_from), if reading => {
                    if let Some(l) = &mut link && !self.read(l) {
                        self.ended(&mut link);
                    }
                }
            }
            if let Some(l) = &mut link
                && !l.write()
                && l.deaf
            {
                // A client that does not read learns of its end by writing only.
                self.ended(&mut link);
            }
        }
    }

    fn now(&self) -> u64 {
        self.world.elapsed().as_nanos() as u64
    }

    fn called(&self, l: &mut Link, phase: Phase) {
        if l.deaf || l.half_closed || l.silent {
            return;
        }
        (l.sip, l.reads_from) = (0, env::now());
        let barrier = phase as u64;
        if phase < Phase::Leave {
            l.ping(barrier);
        }
    }

    /// Notes the connection's end and lets go of it.
    fn ended(&self, link: &mut Option<Link>) {
        let Some(l) = link.take() else { return };
        let now = self.now();
        self.history.lock().conns[l.number].closed_at.get_or_insert(now);
        env::trace::event("client-end", &[self.plan.id, l.number as u64]);
    }

    async fn connect(&self) -> Option<Link> {
        let opened_at = self.now();
        let boot = *self.boots.borrow();
        let stream = env::timeout(CONNECT_LIMIT, TcpStream::connect(self.server)).await.ok()?.ok()?;
        let mut h = self.history.lock();
        h.count("connections");
        let number = h.conns.len();
        // A server that started meanwhile is the one that answered.
        let boot = boot.max(*self.boots.borrow());
        h.conns.push(Conn { client: self.plan.id, boot, opened_at, ..Conn::default() });
        env::trace::event("client-open", &[self.plan.id, number as u64]);
        let mut l = Link {
            stream,
            number,
            session: 0,
            user: 0,
            out: Vec::new(),
            written: 0,
            inb: Vec::new(),
            op: 0,
            pings: VecDeque::new(),
            next_sid: 1,
            subs: BTreeMap::new(),
            open: Vec::new(),
            reads_from: env::now(),
            sip: 0,
            deaf: false,
            half_closed: false,
            silent: false,
            greeted: false,
        };
        self.log_in(&mut h, &mut l, self.plan.user, false);
        self.subscribe(&mut h, &mut l, &format!("_INBOX.{}.*", self.plan.id), None, false);
        Some(l)
    }

    fn log_in(&self, h: &mut History, l: &mut Link, user: usize, refused: bool) {
        let p = &self.plan;
        l.op += 1;
        l.user = user;
        let now = self.now();
        if l.op > 1 {
            h.sessions[l.session].replaced = Some((now, l.op));
        }
        l.session = h.sessions.len();
        h.sessions.push(Session {
            conn: l.number,
            user,
            echo: p.echo,
            headers: p.headers,
            no_responders: p.no_responders,
            op: l.op,
            replaced: None,
            refused,
        });
        let name = USERS[user].name;
        let pass = if refused { "wrong" } else { name };
        let text = format!(
            "CONNECT {{\"verbose\":{},\"pedantic\":false,\"echo\":{},\"headers\":{},\"no_responders\":{},\"protocol\":1,\"lang\":\"sim\",\"version\":\"1\",\"user\":\"{name}\",\"pass\":\"{pass}\"}}\r\n",
            p.verbose, p.echo, p.headers, p.no_responders
        );
        l.out.extend_from_slice(text.as_bytes());
    }

    fn subscribe(&self, h: &mut History, l: &mut Link, filter: &str, queue: Option<&str>, respond: bool) {
        let (sid, sent_at) = (l.next_sid, self.now());
        l.next_sid += 1;
        l.op += 1;
        let queue = queue.map(|q| format!("{}{q}", USERS[l.user].account));
        let line = match &queue {
            Some(q) => format!("SUB {filter} {q} {sid}\r\n"),
            None => format!("SUB {filter} {sid}\r\n"),
        };
        l.out.extend_from_slice(line.as_bytes());
        let limit = self.options.max_subscriptions;
        l.subs.insert(sid, (h.subs.len(), respond));
        // Those that ended may still be counted by the server, as this client cannot know: so all are counted here.
        let doubtful = limit > 0 && l.subs.len() > limit;
        l.open.push(sid);
        h.count("subscriptions");
        h.subs.push(Sub {
            session: l.session,
            sid,
            filter: filter.to_owned(),
            queue,
            sent_at,
            op: l.op,
            unsubs: Vec::new(),
            doubtful,
        });
    }

    /// Publishes one message; returns its number.
    fn publish(
        &self,
        h: &mut History,
        l: &mut Link,
        subject: &str,
        size: usize,
        header: bool,
        how: How,
    ) -> usize {
        let n = h.pubs.len();
        l.op += 1;
        // An empty payload has its number in the reply subject instead; services replace that, so they have a payload.
        let empty = size == 0 && how == How::Plain && !subject.starts_with("svc");
        let payload = if empty { Vec::new() } else { wire::payload(n, size) };
        let reply = match how {
            How::Request => format!("_INBOX.{}.{n}", self.plan.id),
            _ if empty => format!("_Z.{n}"),
            _ => String::new(),
        };
        let mut head = String::new();
        let block =
            if header && self.plan.headers { format!("NATS/1.0\r\nN: {n}\r\n\r\n") } else { String::new() };
        let word = if block.is_empty() { "PUB" } else { "HPUB" };
        for w in [word, subject, &reply].into_iter().filter(|w| !w.is_empty()) {
            head += w;
            head.push(' ');
        }
        if !block.is_empty() {
            head += &format!("{} ", block.len());
        }
        head += &format!("{}\r\n{block}", block.len() + payload.len());
        l.out.extend_from_slice(head.as_bytes());
        l.out.extend_from_slice(&payload);
        l.out.extend_from_slice(b"\r\n");
        h.count("publishes");
        h.pubs.push(Pub {
            session: l.session,
            sent_at: self.now(),
            op: l.op,
            subject: subject.to_owned(),
            reply,
            size: payload.len(),
            answers: if let How::Answer(to) = how { Some(to) } else { None },
            request: how == How::Request,
        });
        env::trace::event("publish", &[self.plan.id, n as u64]);
        n
    }

    async fn step(&self, link: &mut Option<Link>, op: Op) {
        if link.as_ref().is_some_and(|l| l.deaf || l.half_closed || l.silent) {
            // Only a new connection brings such a client back.
            match op {
                Op::Close | Op::Abort => {}
                _ => return,
            }
        }
        if link.is_none() {
            if matches!(op, Op::Close | Op::Abort) {
                return;
            }
            *link = self.connect().await;
        }
        let Some(l) = link else { return };
        let mut h = self.history.lock();
        h.count("steps");
        match op {
            Op::Sub { filter, queue, respond } => {
                self.subscribe(&mut h, l, &filter, queue.as_deref(), respond);
            }
            Op::Unsub { nth, max } => {
                // The first is the inbox.
                if l.open.len() > 1 {
                    let i = 1 + nth as usize % (l.open.len() - 1);
                    let sid = if max == 0 { l.open.remove(i) } else { l.open[i] };
                    self.unsubscribe(&mut h, l, sid, max);
                }
            }
            Op::Pub { subject, size, header, times } => {
                for _ in 0..times {
                    self.publish(&mut h, l, &subject, size, header, How::Plain);
                }
            }
            Op::Request { subject, times } => {
                for _ in 0..times {
                    self.publish(&mut h, l, &subject, 10, false, How::Request);
                }
            }
            Op::Ping { times } => (0..times).for_each(|_| l.ping(0)),
            Op::Drain => {
                for sid in l.open.split_off(1) {
                    self.unsubscribe(&mut h, l, sid, 0);
                }
                l.ping(0);
            }
            Op::Connect { user } => {
                self.log_in(&mut h, l, user, false);
                l.open.clear();
                self.subscribe(&mut h, l, &format!("_INBOX.{}.*", self.plan.id), None, false);
            }
            Op::Close => {
                // What fits is sent; the rest was never said.
                l.write();
                drop(h);
                self.ended(link);
            }
            Op::Abort => {
                l.stream.reset_on_close().ok();
                drop(h);
                self.ended(link);
            }
            Op::HalfClose => {
                l.write();
                l.half_closed = l.stream.shutdown_write().is_ok();
                l.discard();
                h.conns[l.number].tainted = true;
            }
            Op::Rest { ms } => l.reads_from = env::now() + Duration::from_millis(ms),
            Op::Sip { bytes } => l.sip = bytes,
            Op::Deaf => {
                l.deaf = true;
                let c = &mut h.conns[l.number];
                (c.deaf, c.tainted) = (true, true);
            }
            Op::Garbage { what } => self.garbage(&mut h, l, what),
        }
    }

    fn unsubscribe(&self, h: &mut History, l: &mut Link, sid: u64, max: u64) {
        l.op += 1;
        let line = if max == 0 { format!("UNSUB {sid}\r\n") } else { format!("UNSUB {sid} {max}\r\n") };
        l.out.extend_from_slice(line.as_bytes());
        if let Some((n, _)) = l.subs.get(&sid) {
            h.subs[*n].unsubs.push((self.now(), l.op, max));
        }
    }

    fn garbage(&self, h: &mut History, l: &mut Link, what: Garbage) {
        h.count("garbage");
        let o = &self.options;
        let (text, provoked) = match what {
            Garbage::Word => ("HELLO\r\n".to_owned(), Some("Unknown Protocol Operation")),
            Garbage::NoCrlf => ("PUB t.a 2\r\nxyzt\r\n".to_owned(), Some("Unknown Protocol Operation")),
            // nats-server closes without a word.
            Garbage::BadSize => ("PUB t.a -1\r\n".to_owned(), Some("")),
            Garbage::LongLine => {
                let long = "x".repeat(o.max_control_line + 10);
                (format!("SUB {long} 1\r\n"), Some("maximum control line exceeded"))
            }
            Garbage::TooLarge => {
                (format!("PUB t.a {}\r\n", o.max_payload + 1), Some("Maximum Payload Violation"))
            }
            Garbage::Half => ("PUB t.a 5\r\nab".to_owned(), None),
            Garbage::WrongPassword => {
                self.log_in(h, l, self.plan.user, true);
                (String::new(), Some("Authorization Violation"))
            }
        };
        l.out.extend_from_slice(text.as_bytes());
        l.silent = true;
        let c = &mut h.conns[l.number];
        c.tainted = true;
        c.provoked = provoked;
    }

    /// Reads and handles what has come. False at the end of the connection.
    fn read(&self, l: &mut Link) -> bool {
        let mut buf = vec![0; if l.sip > 0 { l.sip } else { 64 << 10 }];
        match l.stream.try_read(&mut buf) {
            Ok(0) => return false,
            Ok(n) => l.inb.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
        if l.sip > 0 {
            l.reads_from = env::now() + Duration::from_millis(1);
        }
        let mut at = 0;
        let mut h = self.history.lock();
        loop {
            match wire::cut(&l.inb[at..]) {
                Ok(Some((op, n))) => {
                    at += n;
                    self.seen(&mut h, l, op);
                }
                Ok(None) => break,
                Err(e) => {
                    h.violations.push(Violation::new("SIM-1", format!("client {}: {e}", self.plan.id)));
                    return false;
                }
            }
        }
        l.inb.drain(..at);
        true
    }

    fn seen(&self, h: &mut History, l: &mut Link, op: wire::Op) {
        let now = self.now();
        let mut wrong = |text: String| {
            h.violations
                .push(Violation::new("SIM-1", format!("client {} conn {}: {text}", self.plan.id, l.number)));
        };
        match op {
            wire::Op::Info(json) => match serde_json::from_str::<serde_json::Value>(&json) {
                Ok(v) => {
                    let c = &mut h.conns[l.number];
                    l.greeted = true;
                    c.cid = c.cid.or(v["client_id"].as_u64());
                    c.lame_duck |= v["ldm"].as_bool() == Some(true);
                }
                Err(e) => wrong(format!("INFO is not JSON: {e}")),
            },
            wire::Op::Ping => {
                if !l.half_closed && !l.silent {
                    l.out.extend_from_slice(b"PONG\r\n");
                }
            }
            wire::Op::Pong => match l.pings.pop_front() {
                Some((op, barrier)) => {
                    let c = &mut h.conns[l.number];
                    c.confirms.push((op, now));
                    if barrier > 0 {
                        c.barrier = barrier;
                    }
                }
                None => wrong("a PONG without PING".into()),
            },
            wire::Op::Ok => {}
            wire::Op::Err(text) => h.conns[l.number].errors.push(text),
            wire::Op::Msg { subject, sid, reply, header, payload } => {
                let Some((sub, respond)) = sid.parse::<u64>().ok().and_then(|sid| l.subs.get(&sid)).copied()
                else {
                    return wrong(format!("a message for sid {sid}, which was never used"));
                };
                if !header.is_empty() && !self.plan.headers {
                    wrong(format!("headers on {subject} for a client without"));
                }
                if header.starts_with(b"NATS/1.0 503") {
                    match subject.rsplit('.').next().and_then(|t| t.parse().ok()) {
                        Some(n) if payload.is_empty() => {
                            *h.unserved.entry(n).or_default() += 1;
                            *h.unserved_to.entry(sub).or_default() += 1;
                        }
                        _ => wrong(format!("503 on {subject}")),
                    }
                    return;
                }
                let publish = if payload.is_empty() {
                    reply.strip_prefix("_Z.").and_then(|n| n.parse().ok())
                } else {
                    wire::publish_of(&payload)
                };
                let Some(publish) =
                    publish.filter(|n| h.pubs.get(*n).is_some_and(|p| p.size == payload.len()))
                else {
                    let shown = String::from_utf8_lossy(&payload[..payload.len().min(40)]).into_owned();
                    return wrong(format!(
                        "a payload on {subject} that nobody sent ({} bytes): {shown:?}",
                        payload.len()
                    ));
                };
                env::trace::event("deliver", &[self.plan.id, publish as u64, sub as u64]);
                h.count("deliveries");
                let answer = respond && !reply.is_empty() && !reply.starts_with("_Z.");
                h.msgs.push(Msg { sub, publish, subject, reply: reply.clone(), at: now });
                if answer && !l.half_closed && !l.silent {
                    self.publish(h, l, &reply, 10, false, How::Answer(publish));
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Plain,
    Request,
    Answer(usize),
}

impl Link {
    fn discard(&mut self) {
        self.out.clear();
        self.written = 0;
    }
    fn ping(&mut self, barrier: u64) {
        self.op += 1;
        self.pings.push_back((self.op, barrier));
        self.out.extend_from_slice(b"PING\r\n");
    }
    /// Writes what the socket takes. False once it takes nothing any more; reading then learns why.
    fn write(&mut self) -> bool {
        while self.written < self.out.len() {
            match self.stream.try_write(&self.out[self.written..]) {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return true,
                Err(_) => {
                    self.discard();
                    return false;
                }
            }
        }
        self.discard();
        true
    }
}

async fn writable(link: &Option<Link>) {
    match link {
        Some(l) => {
            l.stream.writable().await.ok();
        }
        None => std::future::pending().await,
    }
}

async fn readable(link: &Option<Link>, from: Instant) {
    match link {
        Some(l) => {
            if env::now() < from {
                env::sleep_until(from).await;
            }
            l.stream.readable().await.ok();
        }
        None => std::future::pending().await,
    }
}
