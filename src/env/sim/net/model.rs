//! The state of the network, as plain data and transitions; the waiting is in `stream`.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::{Buf, Bytes, BytesMut};
use madsim::task::NodeId;
use tokio::sync::Notify;

use super::super::world::Death;
use crate::{Rng, always, trace};

/// An arrival that waits for a link to heal.
const HELD: u64 = u64::MAX;
/// The first retransmission comes after this, each later one after twice as long.
pub const RETRANSMIT_NS: u64 = 200_000_000;
const RETRANSMIT_MAX_NS: u64 = 10_000_000_000;

/// How one direction of a link behaves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Link {
    /// The shortest way, in nanoseconds.
    pub latency_min_ns: u64,
    /// The longest way.
    pub latency_max_ns: u64,
    /// Probability that a segment is lost, which delays it and all behind it.
    pub loss: f64,
    /// Bytes a second; 0 is without limit.
    pub bandwidth: u64,
}

/// How all links (unless set apart) and sockets behave.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// Links between machines. Within a machine the way takes 5 to 20 microseconds.
    pub link: Link,
    /// Bytes that a direction holds, on the way and unread.
    pub window: usize,
    /// Probability that a read or write handles only a random part of what it could.
    pub short: f64,
    /// Connections that wait for `accept`; more are not answered.
    pub backlog: usize,
    /// When a writer that gets no answer gives up, in nanoseconds.
    pub dead_after_ns: u64,
    /// When `connect` gives up; the SYN is repeated after 1, 2, 4 … seconds.
    pub connect_timeout_ns: u64,
    /// Probability that a process that is killed resets a connection whose bytes it had all read.
    pub rst_on_death: f64,
}

impl Default for NetOptions {
    fn default() -> NetOptions {
        NetOptions {
            link: Link { latency_min_ns: 50_000, latency_max_ns: 500_000, loss: 0.0, bandwidth: 0 },
            window: 256 << 10,
            short: 0.1,
            backlog: 128,
            dead_after_ns: 60_000_000_000,
            connect_timeout_ns: 63_000_000_000,
            rst_on_death: 0.25,
        }
    }
}

/// What happens at an exact byte of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// The link is cut in this direction.
    Cut,
    /// The connection that carries the byte is reset.
    Reset,
}

pub struct Net {
    pub options: NetOptions,
    rng: Rng,
    ips: BTreeMap<IpAddr, NodeId>,
    machines: BTreeMap<NodeId, Host>,
    names: BTreeMap<String, IpAddr>,
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// Cut directions, since when.
    cuts: BTreeMap<(NodeId, NodeId), u64>,
    /// When the link is free again, for those with a bandwidth.
    busy: BTreeMap<(NodeId, NodeId), u64>,
    triggers: BTreeMap<(NodeId, NodeId), (u64, Trigger)>,
    listeners: BTreeMap<(NodeId, u16), Listener>,
    conns: BTreeMap<u64, Conn>,
    next: u64,
}

struct Host {
    ip: IpAddr,
    up: bool,
    next_port: u16,
}

struct Listener {
    id: u64,
    waiting: VecDeque<u64>,
    notify: Arc<Notify>,
}

/// A connection; side 0 opened it.
pub struct Conn {
    ends: [End; 2],
}

enum Segment {
    Data(Bytes),
    Fin,
}

struct End {
    node: NodeId,
    addr: SocketAddr,
    /// A process holds this end.
    open: bool,
    /// The machine lost power: it answers nothing until it has power again, and then with a reset.
    silent: bool,
    /// On the way to this end, in order.
    inbox: VecDeque<(u64, Segment)>,
    /// Acknowledgements on the way to this end.
    credits: VecDeque<(u64, usize)>,
    last_arrival: u64,
    /// Arrived and unread.
    unread: BytesMut,
    fin_seen: bool,
    fin_sent: bool,
    /// Bytes sent and not yet acknowledged as read.
    unacked: usize,
    /// A reset on the way to this end.
    reset_at: Option<u64>,
    broken: Option<ErrorKind>,
    /// Since when what this end sent gets no answer.
    stalled: Option<u64>,
    linger_zero: bool,
    readers: Arc<Notify>,
    writers: Arc<Notify>,
}

/// What a socket can do now, or when to look again.
pub enum Ready {
    Now,
    At(Option<u64>),
}

/// What became of a SYN.
pub enum Syn {
    NoMachine,
    Lost,
    Travels { there_ns: u64, back_ns: u64, to: NodeId },
}

impl End {
    fn new(node: NodeId, addr: SocketAddr) -> End {
        End {
            node,
            addr,
            open: true,
            silent: false,
            inbox: VecDeque::new(),
            credits: VecDeque::new(),
            last_arrival: 0,
            unread: BytesMut::new(),
            fin_seen: false,
            fin_sent: false,
            unacked: 0,
            reset_at: None,
            broken: None,
            stalled: None,
            linger_zero: false,
            readers: Arc::new(Notify::new()),
            writers: Arc::new(Notify::new()),
        }
    }
    fn wake(&self) {
        self.readers.notify_waiters();
        self.writers.notify_waiters();
    }
    fn fail(&mut self, kind: ErrorKind) {
        if self.broken.is_none() {
            self.broken = Some(kind);
            self.unread.clear();
            self.inbox.clear();
        }
        self.wake();
    }
    /// Takes in what has arrived.
    fn settle(&mut self, t: u64, dead_after: u64) {
        while self.inbox.front().is_some_and(|(at, _)| *at <= t) {
            match self.inbox.pop_front() {
                Some((_, Segment::Data(b))) => self.unread.extend_from_slice(&b),
                Some((_, Segment::Fin)) => self.fin_seen = true,
                None => {}
            }
        }
        while self.credits.front().is_some_and(|(at, _)| *at <= t) {
            if let Some((_, n)) = self.credits.pop_front() {
                self.unacked = self.unacked.saturating_sub(n);
            }
        }
        if self.reset_at.is_some_and(|at| at <= t) {
            self.reset_at = None;
            self.fail(ErrorKind::ConnectionReset);
        }
        if self.stalled.is_some_and(|since| since.saturating_add(dead_after) <= t) {
            self.stalled = None;
            self.fail(ErrorKind::TimedOut);
        }
    }
    /// When something will have changed for this end without anybody's doing.
    fn next_event(&self, dead_after: u64) -> Option<u64> {
        let firsts = [
            self.inbox.front().map(|s| s.0),
            self.credits.front().map(|c| c.0),
            self.reset_at,
            self.stalled.map(|s| s.saturating_add(dead_after)),
        ];
        firsts.into_iter().flatten().filter(|at| *at != HELD).min()
    }
}

fn not_connected() -> io::Error {
    ErrorKind::NotConnected.into()
}

impl Net {
    pub fn new(options: NetOptions, rng: Rng) -> Net {
        Net {
            options,
            rng,
            ips: BTreeMap::new(),
            machines: BTreeMap::new(),
            names: BTreeMap::new(),
            links: BTreeMap::new(),
            cuts: BTreeMap::new(),
            busy: BTreeMap::new(),
            triggers: BTreeMap::new(),
            listeners: BTreeMap::new(),
            conns: BTreeMap::new(),
            next: 1,
        }
    }
    pub fn add_machine(&mut self, id: NodeId, ip: IpAddr) {
        self.ips.insert(ip, id);
        self.machines.insert(id, Host { ip, up: true, next_port: 32_768 });
    }
    pub fn name(&mut self, name: &str, ip: IpAddr) {
        self.names.insert(name.to_owned(), ip);
    }
    pub fn lookup(&self, name: &str) -> Option<IpAddr> {
        self.names.get(name).copied()
    }

    // ---- links

    fn link(&self, from: NodeId, to: NodeId) -> Link {
        if from == to {
            return Link { latency_min_ns: 5_000, latency_max_ns: 20_000, loss: 0.0, bandwidth: 0 };
        }
        self.links.get(&(from, to)).copied().unwrap_or(self.options.link)
    }
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.contains_key(&(from, to))
    }
    /// How long a segment takes, losses included.
    fn way(&mut self, from: NodeId, to: NodeId) -> u64 {
        let l = self.link(from, to);
        let mut ns = self.rng.between(l.latency_min_ns, l.latency_max_ns);
        let mut again = RETRANSMIT_NS;
        while self.rng.bool(l.loss.min(0.9)) {
            ns += again;
            again = (again * 2).min(RETRANSMIT_MAX_NS);
        }
        ns
    }
    fn carried(&mut self, from: NodeId, to: NodeId, bytes: usize, t: u64) -> u64 {
        let speed = self.link(from, to).bandwidth;
        if speed == 0 {
            return t;
        }
        let busy = self.busy.entry((from, to)).or_default();
        *busy = (*busy).max(t) + (bytes as u64).saturating_mul(1_000_000_000) / speed;
        *busy
    }
    /// When a link of limited speed will have carried all that it was given, in nanoseconds since the start.
    pub fn carries_until(&self, from: NodeId, to: NodeId) -> u64 {
        self.busy.get(&(from, to)).copied().unwrap_or(0)
    }
    pub fn set_link(&mut self, from: NodeId, to: NodeId, link: Option<Link>) {
        match link {
            Some(l) => self.links.insert((from, to), l),
            None => self.links.remove(&(from, to)),
        };
    }
    pub fn after_bytes(&mut self, from: NodeId, to: NodeId, bytes: u64, what: Trigger) {
        self.triggers.insert((from, to), (bytes, what));
    }
    pub fn cut(&mut self, from: NodeId, to: NodeId, t: u64) {
        self.cuts.entry((from, to)).or_insert(t);
        self.each_between(from, to, |c, side| {
            // Side `side` receives over the cut link; acknowledgements to it travel there too.
            let (me, peer) = pair(&mut c.ends, side);
            me.settle(t, u64::MAX);
            let mut held = false;
            for (at, _) in &mut me.inbox {
                *at = HELD;
                held = true;
            }
            me.credits.iter_mut().for_each(|c| c.0 = HELD);
            me.reset_at = me.reset_at.map(|_| HELD);
            if held {
                peer.stalled.get_or_insert(t);
            }
            me.wake();
            peer.wake();
        });
    }
    pub fn heal(&mut self, from: NodeId, to: NodeId, t: u64) {
        let Some(since) = self.cuts.remove(&(from, to)) else { return };
        // The sender's timer has backed off meanwhile; where in its period the heal falls is chance.
        let backed_off = (t - since).clamp(RETRANSMIT_NS, RETRANSMIT_MAX_NS);
        let wait = self.rng.below(backed_off) + self.way(from, to);
        let gone: Vec<NodeId> = self.machines.iter().filter(|m| !m.1.up).map(|m| *m.0).collect();
        self.each_between(from, to, |c, side| {
            let (me, peer) = pair(&mut c.ends, side);
            let at = (t + wait).max(me.last_arrival);
            me.inbox.iter_mut().filter(|s| s.0 == HELD).for_each(|s| s.0 = at);
            me.credits.iter_mut().filter(|s| s.0 == HELD).for_each(|s| s.0 = at);
            if me.reset_at == Some(HELD) {
                me.reset_at = Some(at);
            }
            me.last_arrival = at;
            if !gone.contains(&me.node) {
                peer.stalled = None;
                // What was sent to an end that is gone is answered once it gets there.
                if (me.silent || !me.open) && peer.open && peer.unacked > 0 {
                    peer.reset_at.get_or_insert(at);
                }
            }
            me.wake();
            peer.wake();
        });
    }
    pub fn reset_between(&mut self, a: NodeId, b: NodeId) {
        for c in self.conns.values_mut() {
            if (c.ends[0].node, c.ends[1].node) == (a, b) || (c.ends[0].node, c.ends[1].node) == (b, a) {
                c.ends.iter_mut().for_each(|e| e.fail(ErrorKind::ConnectionReset));
            }
        }
    }
    /// Visits the connections over a directed link, with the side that receives over it.
    fn each_between(&mut self, from: NodeId, to: NodeId, mut f: impl FnMut(&mut Conn, usize)) {
        for c in self.conns.values_mut() {
            for side in 0..2 {
                if c.ends[side].node == to && c.ends[1 - side].node == from {
                    f(c, side);
                }
            }
        }
    }

    // ---- the life of machines

    pub fn died(&mut self, id: NodeId, how: Death, t: u64) {
        self.listeners.retain(|(n, _), _| *n != id);
        let mine: Vec<(u64, usize)> = self
            .conns
            .iter()
            .flat_map(|(n, c)| (0..2).filter(|s| c.ends[*s].node == id && c.ends[*s].open).map(|s| (*n, s)))
            .collect();
        if how == Death::Power
            && let Some(h) = self.machines.get_mut(&id)
        {
            h.up = false;
        }
        for (conn, side) in mine {
            match how {
                Death::Process => {
                    let rate = self.options.rst_on_death;
                    let abrupt = self.rng.bool(rate);
                    self.close(conn, side, t, abrupt);
                }
                Death::Power => {
                    if let Some(c) = self.conns.get_mut(&conn) {
                        let (me, peer) = pair(&mut c.ends, side);
                        me.open = false;
                        me.silent = true;
                        me.unread.clear();
                        me.inbox.clear();
                        me.wake();
                        if peer.unacked > 0 {
                            peer.stalled.get_or_insert(t);
                        }
                        peer.wake();
                    }
                }
            }
        }
        self.sweep();
    }
    /// The machine has power: who sent to it in vain gets a reset at its next attempt.
    pub fn powered(&mut self, id: NodeId, t: u64) {
        match self.machines.get_mut(&id) {
            Some(h) if !h.up => h.up = true,
            _ => return,
        }
        let wait = self.rng.below(RETRANSMIT_MAX_NS);
        for c in self.conns.values_mut() {
            for side in 0..2 {
                let (me, peer) = pair(&mut c.ends, side);
                if me.node == id && me.silent && peer.open && peer.stalled.take().is_some() {
                    let back = if self.cuts.contains_key(&(id, peer.node)) { HELD } else { t + wait };
                    peer.reset_at.get_or_insert(back);
                    peer.wake();
                }
            }
        }
    }
    /// Forgets connections that nobody holds.
    fn sweep(&mut self) {
        self.conns.retain(|_, c| c.ends.iter().any(|e| e.open));
    }

    // ---- listeners and connections

    pub fn bind(&mut self, node: NodeId, addr: SocketAddr) -> io::Result<(u64, SocketAddr, Arc<Notify>)> {
        let host = self.machines.get_mut(&node).ok_or_else(not_connected)?;
        let ip = addr.ip().to_canonical();
        if !ip.is_unspecified() && !ip.is_loopback() && ip != host.ip {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        let port = if addr.port() == 0 { self.free_port(node)? } else { addr.port() };
        if self.listeners.contains_key(&(node, port)) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let (id, notify) = (self.next, Arc::new(Notify::new()));
        self.next += 1;
        self.listeners
            .insert((node, port), Listener { id, waiting: VecDeque::new(), notify: notify.clone() });
        Ok((id, SocketAddr::new(addr.ip(), port), notify))
    }
    fn free_port(&mut self, node: NodeId) -> io::Result<u16> {
        for _ in 0..32_768 {
            let host = self.machines.get_mut(&node).ok_or_else(not_connected)?;
            let port = host.next_port;
            host.next_port = if port == u16::MAX { 32_768 } else { port + 1 };
            let used = |e: &End| e.node == node && e.addr.port() == port;
            if !self.listeners.contains_key(&(node, port))
                && !self.conns.values().any(|c| c.ends.iter().any(used))
            {
                return Ok(port);
            }
        }
        Err(ErrorKind::AddrInUse.into())
    }
    pub fn unbind(&mut self, node: NodeId, port: u16, id: u64, t: u64) {
        if self.listeners.get(&(node, port)).is_some_and(|l| l.id == id)
            && let Some(l) = self.listeners.remove(&(node, port))
        {
            l.waiting.into_iter().for_each(|c| self.close(c, 1, t, true));
        }
    }
    pub fn accept(&mut self, node: NodeId, port: u16, id: u64) -> io::Result<Option<u64>> {
        match self.listeners.get_mut(&(node, port)) {
            Some(l) if l.id == id => Ok(l.waiting.pop_front()),
            _ => Err(not_connected()),
        }
    }
    pub fn syn(&mut self, from: NodeId, ip: IpAddr) -> Syn {
        let ip = ip.to_canonical();
        let to = if ip.is_loopback() || ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
            Some(from)
        } else {
            self.ips.get(&ip).copied()
        };
        let Some(to) = to else { return Syn::NoMachine };
        if !self.reaches(from, to) {
            return Syn::Lost;
        }
        Syn::Travels { there_ns: self.way(from, to), back_ns: self.way(to, from), to }
    }
    /// Whether a question from `from` to `to` gets an answer.
    pub fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        self.machines.get(&to).is_some_and(|h| h.up) && !self.is_cut(from, to) && !self.is_cut(to, from)
    }
    /// The SYN is there: a connection, a refusal, or (`None`) no answer because too many wait.
    pub fn establish(&mut self, from: NodeId, to: NodeId, addr: SocketAddr) -> Option<io::Result<u64>> {
        let backlog = self.options.backlog;
        match self.listeners.get(&(to, addr.port())) {
            None => return Some(Err(ErrorKind::ConnectionRefused.into())),
            Some(l) if l.waiting.len() >= backlog => return None,
            Some(_) => {}
        }
        let port = match self.free_port(from) {
            Ok(p) => p,
            Err(e) => return Some(Err(e)),
        };
        let ip = if addr.ip().is_loopback() { addr.ip() } else { self.machines.get(&from)?.ip };
        let id = self.next;
        self.next += 1;
        let ends = [End::new(from, SocketAddr::new(ip, port)), End::new(to, addr)];
        self.conns.insert(id, Conn { ends });
        let l = self.listeners.get_mut(&(to, addr.port()))?;
        l.waiting.push_back(id);
        l.notify.notify_waiters();
        let (a, b) = (self.number(from), self.number(to));
        trace::event("established", &[id, u64::from(port), u64::from(addr.port()), a, b]);
        Some(Ok(id))
    }
    /// A machine's number, as its address has it (10.0.0.1 is number 0).
    fn number(&self, of: NodeId) -> u64 {
        match self.machines.get(&of).map(|m| m.ip) {
            Some(IpAddr::V4(ip)) => u64::from(ip.to_bits().wrapping_sub(0x0a00_0001)),
            _ => 0,
        }
    }
    pub fn notifies(&self, conn: u64, side: usize) -> Option<(Arc<Notify>, Arc<Notify>)> {
        let e = &self.conns.get(&conn)?.ends[side];
        Some((e.readers.clone(), e.writers.clone()))
    }
    pub fn addrs(&self, conn: u64, side: usize) -> io::Result<(SocketAddr, SocketAddr)> {
        let c = self.conns.get(&conn).ok_or_else(not_connected)?;
        Ok((c.ends[side].addr, c.ends[1 - side].addr))
    }

    // ---- bytes

    /// Puts a segment on the way to the other side of `side`.
    fn send(&mut self, conn: u64, side: usize, what: Segment, t: u64) {
        let Some(c) = self.conns.get(&conn) else { return };
        let (from, to) = (c.ends[side].node, c.ends[1 - side].node);
        let len = if let Segment::Data(b) = &what { b.len() } else { 0 };
        let cut = self.is_cut(from, to);
        let up = self.machines.get(&to).is_some_and(|h| h.up);
        let at = if cut { HELD } else { self.carried(from, to, len, t) + self.way(from, to) };
        let back = if self.is_cut(to, from) || at == HELD { HELD } else { at + self.way(to, from) };
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let (me, peer) = pair(&mut c.ends, side);
        if cut || !up {
            me.stalled.get_or_insert(t);
            me.writers.notify_waiters();
            me.readers.notify_waiters();
        }
        if peer.open {
            let at = if at == HELD { HELD } else { at.max(peer.last_arrival) };
            if at != HELD {
                peer.last_arrival = at;
            }
            always!(
                peer.inbox.back().is_none_or(|b| b.0 <= at),
                "E-8: a segment would overtake the one before it on connection {conn}"
            );
            peer.inbox.push_back((at, what));
            peer.readers.notify_waiters();
        } else if up && !cut && len > 0 {
            // Nobody holds that end: the machine answers with a reset.
            me.reset_at.get_or_insert(back);
            me.wake();
        }
    }

    pub fn try_write(
        &mut self,
        conn: u64,
        side: usize,
        bufs: &mut dyn Iterator<Item = &[u8]>,
        t: u64,
    ) -> io::Result<usize> {
        let (dead, window) = (self.options.dead_after_ns, self.options.window);
        let c = self.conns.get_mut(&conn).ok_or_else(not_connected)?;
        let (from, to) = (c.ends[side].node, c.ends[1 - side].node);
        let me = &mut c.ends[side];
        me.settle(t, dead);
        if let Some(kind) = me.broken {
            // As on Linux: the first write learns the cause, later ones find a broken pipe.
            return Err(if me.fin_sent { ErrorKind::BrokenPipe } else { kind }.into());
        }
        if me.fin_sent || !me.open {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let room = window.max(1).saturating_sub(me.unacked);
        if room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut data = BytesMut::new();
        for b in bufs {
            data.extend_from_slice(&b[..b.len().min(room - data.len())]);
            if data.len() == room {
                break;
            }
        }
        if data.is_empty() {
            return Ok(0);
        }
        if self.rng.bool(self.options.short) {
            data.truncate(self.rng.between(1, data.len() as u64) as usize);
        }
        let fired = match self.triggers.get_mut(&(from, to)) {
            Some((left, what)) if *left <= data.len() as u64 => {
                data.truncate(*left as usize);
                Some(*what)
            }
            Some((left, _)) => {
                *left -= data.len() as u64;
                None
            }
            None => None,
        };
        let n = data.len();
        always!(n <= room, "E-9: {n} bytes written into a window with room for {room}");
        if n > 0 {
            self.conns.get_mut(&conn).ok_or_else(not_connected)?.ends[side].unacked += n;
            self.send(conn, side, Segment::Data(data.freeze()), t);
        }
        trace::event("sent", &[conn, side as u64, n as u64]);
        if let Some(what) = fired {
            self.triggers.remove(&(from, to));
            match what {
                Trigger::Cut => self.cut(from, to, t),
                Trigger::Reset => {
                    if let Some(c) = self.conns.get_mut(&conn) {
                        c.ends.iter_mut().for_each(|e| e.fail(ErrorKind::ConnectionReset));
                    }
                }
            }
            if n == 0 {
                // The byte after which it fires was sent before: this write meets the new state.
                return if what == Trigger::Cut {
                    Err(ErrorKind::WouldBlock.into())
                } else {
                    Err(ErrorKind::ConnectionReset.into())
                };
            }
        }
        Ok(n)
    }

    pub fn try_read(&mut self, conn: u64, side: usize, buf: &mut [u8], t: u64) -> io::Result<usize> {
        let dead = self.options.dead_after_ns;
        let c = self.conns.get_mut(&conn).ok_or_else(not_connected)?;
        let me = &mut c.ends[side];
        me.settle(t, dead);
        if let Some(kind) = me.broken {
            return Err(kind.into());
        }
        if buf.is_empty() {
            return Ok(0);
        }
        if me.unread.is_empty() {
            return if me.fin_seen || !me.open { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let mut n = me.unread.len().min(buf.len());
        if self.rng.bool(self.options.short) {
            n = self.rng.between(1, n as u64) as usize;
        }
        buf[..n].copy_from_slice(&me.unread[..n]);
        me.unread.advance(n);
        let (from, to) = (me.node, c.ends[1 - side].node);
        let at = if self.is_cut(from, to) { HELD } else { t + self.way(from, to) };
        if let Some(c) = self.conns.get_mut(&conn) {
            let peer = &mut c.ends[1 - side];
            // Acknowledgements keep their order, like everything on a connection.
            let at = at.max(peer.credits.back().map_or(0, |c| c.0));
            peer.credits.push_back((at, n));
            peer.writers.notify_waiters();
        }
        trace::event("read", &[conn, side as u64, n as u64]);
        Ok(n)
    }

    pub fn readable(&mut self, conn: u64, side: usize, t: u64) -> Ready {
        let dead = self.options.dead_after_ns;
        let Some(c) = self.conns.get_mut(&conn) else { return Ready::Now };
        let me = &mut c.ends[side];
        me.settle(t, dead);
        if me.broken.is_some() || !me.unread.is_empty() || me.fin_seen || !me.open {
            return Ready::Now;
        }
        Ready::At(me.next_event(dead))
    }

    pub fn writable(&mut self, conn: u64, side: usize, t: u64) -> Ready {
        let (dead, window) = (self.options.dead_after_ns, self.options.window.max(1));
        let Some(c) = self.conns.get_mut(&conn) else { return Ready::Now };
        let me = &mut c.ends[side];
        me.settle(t, dead);
        if me.broken.is_some() || me.fin_sent || !me.open || me.unacked < window {
            return Ready::Now;
        }
        Ready::At(me.next_event(dead))
    }

    pub fn shutdown_write(&mut self, conn: u64, side: usize, t: u64) -> io::Result<()> {
        let c = self.conns.get_mut(&conn).ok_or_else(not_connected)?;
        let me = &mut c.ends[side];
        if me.broken.is_some() || !me.open {
            return Err(not_connected());
        }
        if !me.fin_sent {
            me.fin_sent = true;
            me.writers.notify_waiters();
            self.send(conn, side, Segment::Fin, t);
        }
        Ok(())
    }
    pub fn shutdown(&mut self, conn: u64, side: usize, t: u64) -> io::Result<()> {
        self.shutdown_write(conn, side, t)?;
        if let Some(c) = self.conns.get_mut(&conn) {
            let me = &mut c.ends[side];
            me.fin_seen = true;
            me.unread.clear();
            me.inbox.clear();
            me.wake();
        }
        Ok(())
    }
    pub fn linger_zero(&mut self, conn: u64, side: usize) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.ends[side].linger_zero = true;
        }
    }

    /// The process gives its end up: a FIN behind what was sent, or a reset if it left bytes unread or wants one.
    pub fn close(&mut self, conn: u64, side: usize, t: u64, abrupt: bool) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let (me, peer) = pair(&mut c.ends, side);
        if !me.open {
            return;
        }
        me.settle(t, u64::MAX);
        let unread = !me.unread.is_empty() || me.inbox.iter().any(|s| matches!(s.1, Segment::Data(_)));
        let reset = abrupt || unread || me.linger_zero;
        let (from, to, broken, fin_sent) = (me.node, peer.node, me.broken.is_some(), me.fin_sent);
        me.open = false;
        me.unread.clear();
        me.inbox.clear();
        me.wake();
        trace::event("closed", &[conn, side as u64, u64::from(reset)]);
        if !broken && reset {
            let at = if self.is_cut(from, to) { HELD } else { t + self.way(from, to) };
            if let Some(c) = self.conns.get_mut(&conn) {
                c.ends[1 - side].reset_at.get_or_insert(at);
                c.ends[1 - side].wake();
            }
        } else if !broken && !fin_sent {
            self.send(conn, side, Segment::Fin, t);
        }
        self.sweep();
    }
}

fn pair(ends: &mut [End; 2], side: usize) -> (&mut End, &mut End) {
    let [a, b] = ends;
    if side == 0 { (a, b) } else { (b, a) }
}
