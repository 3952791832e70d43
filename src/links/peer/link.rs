//! One link's life: reading, writing, signs of life, its end. One task owns its socket; anybody may put frames into its outbox.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::*},
    },
    time::Duration,
};

use broker::Transport;
use bytes::{Bytes, BytesMut};
use env::{Instant, Wall, watch};
use parking_lot::Mutex;
use tokio::sync::Notify;
use wire::peer::{HEADER_BYTES, Joiner, PIECE_BYTES_MAX, Parsed, Piece, header, parse};

use super::{
    Hub, Lane, Node, PeerStats,
    judge::Live,
    outbox::{Chunk, Outbox},
};
use crate::Socket;

/// The worker's read buffer for links, in bytes: more than a piece, whatever is kept of the one before.
const READ_BYTES: usize = 128 << 10;
/// Reads in a row before it is written and others get their turn.
const READS_MAX: usize = 4;
/// Bytes of a batch: what is on its way, and cannot be passed.
const BATCH_BYTES: usize = 64 << 10;
/// Batches in a row before it is read again.
const BATCHES_MAX: usize = 8;
/// Parts of a batch in one write.
const SLICES_MAX: usize = 64;
/// The round trip is measured that often, also while other things come.
const MEASURE: Duration = Duration::from_secs(5);

/// The link's own kinds, on lane 0. They are answered with one another's bodies.
const PING: u8 = 0;
const PONG: u8 = 1;
const BYE: u8 = 2;

const _: () = assert!(READ_BYTES >= 2 * (HEADER_BYTES + PIECE_BYTES_MAX));

thread_local!(static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice()));

/// What is known of a link, and what waits for it.
pub(super) struct Link {
    pub node: Node,
    pub name: String,
    pub address: SocketAddr,
    pub version: u32,
    pub live: Live,
    pub generation: u64,
    pub start: Wall,
    out: Mutex<Outbox>,
    wake: Notify,
    closed: AtomicBool,
    /// Why this end closed it.
    reason: Mutex<Option<String>>,
    /// True once nothing of it is handed on any more (N-2).
    pub ended: watch::Sender<bool>,
    rtt_ns: AtomicU64,
    in_frames: AtomicU64,
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
}

/// What a link begins with.
pub(super) struct Begin {
    pub node: Node,
    pub name: String,
    pub address: SocketAddr,
    pub version: u32,
    pub live: Live,
    pub generation: u64,
}

impl Link {
    pub(super) fn new(b: Begin, lane_bytes_max: [usize; 4]) -> Link {
        Link {
            node: b.node,
            name: b.name,
            address: b.address,
            version: b.version,
            live: b.live,
            generation: b.generation,
            start: env::wall(),
            out: Mutex::new(Outbox::new(lane_bytes_max)),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
            reason: Mutex::default(),
            ended: watch::channel(false).0,
            rtt_ns: AtomicU64::new(0),
            in_frames: AtomicU64::new(0),
            in_bytes: AtomicU64::new(0),
            out_bytes: AtomicU64::new(0),
        }
    }

    /// Puts a frame into its lane. False if there is no room, or no link any more.
    pub(super) fn send(&self, lane: Lane, kind: u8, body: Bytes) -> bool {
        let taken = self.out.lock().push(lane, kind, body);
        if taken {
            self.wake.notify_one();
        }
        taken
    }

    /// Ends it; the first reason counts.
    pub(super) fn close(&self, reason: impl Into<String>) {
        self.reason.lock().get_or_insert_with(|| reason.into());
        self.closed.store(true, Release);
        self.wake.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }

    pub(super) fn stats(&self) -> PeerStats {
        let out = self.out.lock();
        PeerStats {
            node: self.node,
            name: self.name.clone(),
            address: self.address,
            version: self.version,
            solicited: self.live.by_us,
            generation: self.generation,
            start: self.start,
            rtt: Duration::from_nanos(self.rtt_ns.load(Relaxed)),
            in_frames: self.in_frames.load(Relaxed),
            in_bytes: self.in_bytes.load(Relaxed),
            out_frames: out.frames,
            out_bytes: self.out_bytes.load(Relaxed),
            pending: out.pending(),
            refused: out.refused,
        }
    }
}

/// The task of a link.
pub(super) struct Task {
    pub hub: Arc<Hub>,
    pub link: Arc<Link>,
    pub socket: Arc<Socket>,
    /// The end of the link that was before this one.
    pub before: Option<watch::Receiver<bool>>,
    /// What was read behind the greeting.
    pub early: BytesMut,
    /// What is written before any frame: the answer to a hello.
    pub first: Vec<u8>,
}

struct Running {
    hub: Arc<Hub>,
    link: Arc<Link>,
    socket: Arc<Socket>,
    joiner: Joiner,
    /// The front of a piece that has not come whole.
    partial: BytesMut,
    /// What is on its way, and how much of its first part has gone.
    batch: VecDeque<Chunk>,
    head: usize,
    blocked_since: Option<Instant>,
    last_heard: Instant,
    ping_due: Instant,
    measured: Instant,
}

impl Task {
    /// Runs the link to its end.
    pub(super) async fn run(self) {
        let Task { hub, link, socket, before, early, first } = self;
        // N-2: the one before has handed on its last frame.
        if let Some(mut before) = before {
            before.wait_for(|ended| *ended).await.ok();
        }
        let now = env::now();
        let mut r = Running {
            joiner: Joiner::new(hub.limits.frame_bytes_max),
            partial: early,
            batch: VecDeque::new(),
            head: 0,
            blocked_since: None,
            last_heard: now,
            ping_due: now,
            measured: Instant(0),
            hub: hub.clone(),
            link: link.clone(),
            socket: socket.clone(),
        };
        let up = !link.is_closed();
        if up {
            let how = if link.live.by_us { "to" } else { "from" };
            let text =
                format!("Peer link with {} up ({how} {}, node {})", link.name, link.address, link.node);
            hub.log("INF", &text);
            hub.hooks.up(link.node, &link.name, link.version);
        }
        if !first.is_empty() {
            r.batch.push_back(first.into());
        }
        r.live().await;
        r.finish();
        hub.forget(&link);
        if up {
            let reason = link.reason.lock().clone().unwrap_or_default();
            hub.log("INF", &format!("Peer link with {} down: {reason}", link.name));
            hub.hooks.down(link.node);
        }
        link.ended.send_replace(true);
        hub.changed.notify_waiters();
    }
}

impl Running {
    async fn live(&mut self) {
        // What came with the greeting.
        let early = std::mem::take(&mut self.partial);
        self.handle(&early);
        self.write();
        let mut timer_at = self.next_deadline();
        let mut timer = std::pin::pin!(env::sleep_until(timer_at));
        while !self.link.is_closed() {
            let link = self.link.clone();
            let blocked = self.blocked_since.is_some();
            env::select! {
                r = self.socket.readable() => match r {
                    Ok(()) => self.read(),
                    Err(e) => self.link.close(e.to_string()),
                },
                r = self.socket.writable(), if blocked => match r {
                    Ok(()) => self.try_again(),
                    Err(e) => self.link.close(e.to_string()),
                },
                _ = link.wake.notified() => {}
                _ = &mut timer => self.tick(env::now()),
            }
            if self.blocked_since.is_none() {
                self.write();
            }
            let next = self.next_deadline();
            if next != timer_at {
                timer_at = next;
                timer.set(env::sleep_until(next));
            }
        }
    }

    fn next_deadline(&self) -> Instant {
        let limits = &self.hub.limits;
        let silence = self.last_heard + limits.silence_max;
        let write = self.blocked_since.map(|t| t + limits.write_deadline);
        write.into_iter().fold(silence.min(self.ping_due), Instant::min)
    }

    fn tick(&mut self, now: Instant) {
        let limits = self.hub.limits.clone();
        if self.last_heard + limits.silence_max <= now {
            return self.link.close(format!("nothing has come for {:?}", now.since(self.last_heard)));
        }
        if let Some(t) = self.blocked_since
            && t + limits.write_deadline <= now
        {
            return self.link.close(format!("nothing was taken for {:?}", now.since(t)));
        }
        if self.ping_due > now {
            return;
        }
        let quiet = now.since(self.last_heard) >= limits.ping_after;
        if quiet || now.since(self.measured) >= MEASURE {
            self.measured = now;
            let token = Bytes::copy_from_slice(&now.0.to_le_bytes());
            self.link.out.lock().push_control(PING, token);
        }
        self.ping_due = now + limits.ping_after;
    }

    fn read(&mut self) {
        READ.with_borrow_mut(|buf| {
            for _ in 0..READS_MAX {
                let kept = self.partial.len();
                buf[..kept].copy_from_slice(&self.partial);
                match self.socket.try_read(&mut buf[kept..]) {
                    Ok(0) => self.link.close("the other end has closed it"),
                    Ok(n) => {
                        self.partial.clear();
                        self.last_heard = env::now();
                        self.link.in_bytes.fetch_add(n as u64, Relaxed);
                        self.handle(&buf[..kept + n]);
                    }
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
                    Err(e) => self.link.close(e.to_string()),
                }
                if self.link.is_closed() {
                    break;
                }
            }
        });
        if self.partial.is_empty() && self.partial.capacity() > 0 {
            self.partial = BytesMut::new();
        }
    }

    /// Hands on what is whole and keeps the rest.
    fn handle(&mut self, buf: &[u8]) {
        let mut at = 0;
        // N-2: nothing is handed on after the end, however much is here.
        while !self.link.is_closed() {
            match parse(&buf[at..]) {
                Ok(Parsed::Piece(p, used)) => {
                    if let Err(e) = self.piece(&p) {
                        return self.broken(e);
                    }
                    at += used;
                }
                Ok(Parsed::Partial(_)) => break,
                Err(e) => return self.broken(e),
            }
        }
        self.partial.extend_from_slice(&buf[at..]);
    }

    #[cold]
    fn broken(&self, e: wire::peer::Error) {
        let text = format!("Peer link with {}: {e}", self.link.name);
        self.hub.log("ERR", &text);
        self.link.close(format!("{e} came"));
    }

    fn piece(&mut self, p: &Piece<'_>) -> Result<(), wire::peer::Error> {
        if p.lane == 0 {
            self.control(p);
            return Ok(());
        }
        if let Some(body) = self.joiner.push(p)? {
            self.link.in_frames.fetch_add(1, Relaxed);
            self.hub.hooks.frame(self.link.node, p.kind, body);
        }
        Ok(())
    }

    fn control(&mut self, p: &Piece<'_>) {
        match p.kind {
            PING => self.link.out.lock().push_control(PONG, Bytes::copy_from_slice(p.body)),
            PONG => {
                let sent = p.body.try_into().map_or(0, u64::from_le_bytes);
                let now = env::now();
                if sent != 0 && sent <= now.0 {
                    self.link.rtt_ns.store((now.0 - sent).max(1), Relaxed);
                }
            }
            BYE => {
                let text = String::from_utf8_lossy(&p.body[..p.body.len().min(256)]).into_owned();
                self.link.close(format!("the other end says: {text}"));
            }
            // Of a later version, which sends nothing that must be understood without agreeing on it.
            _ => {}
        }
    }

    /// The socket takes more: the deadline goes on from here only if it really does.
    fn try_again(&mut self) {
        let since = self.blocked_since.take();
        let before = self.link.out_bytes.load(Relaxed);
        self.write();
        if self.blocked_since.is_some() && self.link.out_bytes.load(Relaxed) == before {
            self.blocked_since = since;
        }
    }

    /// Writes what waits, as far as the socket takes it.
    fn write(&mut self) {
        for _ in 0..BATCHES_MAX {
            if self.batch.is_empty() && !self.link.out.lock().fill(BATCH_BYTES, &mut self.batch) {
                match self.drain_layers() {
                    Ok(()) => return,
                    Err(e) => return self.failed(&e),
                }
            }
            while !self.batch.is_empty() {
                match self.write_once() {
                    Ok(0) => return self.link.close("the socket takes nothing"),
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => return self.failed(&e),
                }
            }
        }
        // There may be more; first it is read.
        self.link.wake.notify_one();
    }

    fn failed(&mut self, e: &io::Error) {
        if e.kind() == ErrorKind::WouldBlock {
            self.blocked_since.get_or_insert(env::now());
        } else {
            self.link.close(e.to_string());
        }
    }

    fn drain_layers(&self) -> io::Result<()> {
        if self.socket.has_unwritten() { self.socket.try_write(&[]).map(|_| ()) } else { Ok(()) }
    }

    fn write_once(&mut self) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.batch) {
            *slice = IoSlice::new(if used == 0 { &chunk[self.head..] } else { chunk });
            used += 1;
        }
        let n = self.socket.try_write(&slices[..used])?;
        self.link.out_bytes.fetch_add(n as u64, Relaxed);
        self.head += n;
        while let Some(first) = self.batch.front()
            && self.head >= first.len()
        {
            self.head -= first.len();
            self.batch.pop_front();
        }
        Ok(n)
    }

    /// Says goodbye as far as the socket takes it, and closes.
    fn finish(&mut self) {
        self.link.out.lock().close();
        let reason = self.link.reason.lock().clone().unwrap_or_default();
        let mut end = reason.len().min(256);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let body = Bytes::copy_from_slice(&reason.as_bytes()[..end]);
        let bye = header(&Piece { lane: 0, kind: BYE, more: false, body: &body });
        self.batch.push_back(Bytes::copy_from_slice(&bye));
        self.batch.push_back(body);
        while !self.batch.is_empty() && self.write_once().is_ok_and(|n| n > 0) {}
        self.drain_layers().ok();
        self.socket.farewell(broker::Closed::ClientClosed);
        self.socket.shutdown();
    }
}
