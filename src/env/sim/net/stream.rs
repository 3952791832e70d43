//! The sockets as the product sees them: the same methods as in production.

use std::{
    io::{self, ErrorKind, IoSlice},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::BufMut;
use madsim::task::NodeId;
use tokio::sync::Notify;

use super::model::{Ready, Syn};
use crate::{
    sim::{
        clock::Pause,
        world::{World, elapsed},
    },
    trace,
};

fn t() -> u64 {
    elapsed().unwrap_or(0)
}
fn here() -> io::Result<(World, NodeId)> {
    match World::here() {
        Some((w, Some(n))) => Ok((w, n)),
        _ => Err(io::Error::other("sockets belong to a task of a machine")),
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct TcpListener {
    world: World,
    node: NodeId,
    id: u64,
    addr: SocketAddr,
    notify: Arc<Notify>,
}

/// A connection that was accepted but belongs to no worker yet; see [`Accepted::attach`].
#[derive(Debug)]
pub struct Accepted(TcpStream);

/// A connection. Every method takes `&self`.
#[derive(Debug)]
pub struct TcpStream {
    world: World,
    conn: u64,
    side: usize,
    readers: Arc<Notify>,
    writers: Arc<Notify>,
}

impl TcpListener {
    /// Listens on `addr`; port 0 chooses a free one.
    pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
        let (world, node) = here()?;
        let (id, addr, notify) = world.net(|n| n.bind(node, addr))?;
        trace::event("bound", &[u64::from(addr.port())]);
        Ok(TcpListener { world, node, id, addr, notify })
    }
    /// The bound address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
    /// The next connection.
    pub async fn accept(&self) -> io::Result<(Accepted, SocketAddr)> {
        loop {
            if let Some(conn) = self.world.net(|n| n.accept(self.node, self.addr.port(), self.id))? {
                let stream = TcpStream::of(self.world.clone(), conn, 1)?;
                let peer = stream.peer_addr()?;
                return Ok((Accepted(stream), peer));
            }
            self.notify.notified().await;
        }
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.world.net(|n| n.unbind(self.node, self.addr.port(), self.id, t()))
    }
}

impl Accepted {
    /// Makes the current worker the connection's own.
    pub fn attach(self) -> io::Result<TcpStream> {
        Ok(self.0)
    }
}

impl TcpStream {
    fn of(world: World, conn: u64, side: usize) -> io::Result<TcpStream> {
        let found = world.net(|n| n.notifies(conn, side));
        let (readers, writers) = found.ok_or_else(|| io::Error::from(ErrorKind::ConnectionReset))?;
        Ok(TcpStream { world, conn, side, readers, writers })
    }
    /// Opens a connection. Refused by a machine without a listener, unreachable where there is no machine, and silent
    /// until the time-out where the machine has no power or the way is cut.
    pub async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        let (world, node) = here()?;
        let begun = t();
        let limit = world.net(|n| n.options.connect_timeout_ns);
        let mut wait = 1_000_000_000;
        loop {
            let sent = t();
            match world.net(|n| n.syn(node, addr.ip())) {
                Syn::NoMachine => {
                    // Nobody answers the question for the machine's link address.
                    Pause::until(sent + 3_000_000_000).await;
                    return Err(ErrorKind::HostUnreachable.into());
                }
                Syn::Lost => {}
                Syn::Travels { there_ns, back_ns, to } => {
                    Pause::until(sent + there_ns).await;
                    let answer =
                        world.net(|n| if n.reaches(node, to) { n.establish(node, to, addr) } else { None });
                    // Made before the wait, so that giving up closes it.
                    let answer = answer.map(|a| a.and_then(|c| TcpStream::of(world.clone(), c, 0)));
                    if let Some(answer) = answer {
                        Pause::until(t() + back_ns).await;
                        return answer;
                    }
                }
            }
            let next = sent + wait;
            wait *= 2;
            Pause::until(next.min(begun + limit)).await;
            if next >= begun + limit {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }
    /// Waits until a read would not block (also at the end of the stream and on errors).
    pub async fn readable(&self) -> io::Result<()> {
        loop {
            match self.world.net(|n| n.readable(self.conn, self.side, t())) {
                Ready::Now => return Ok(()),
                Ready::At(at) => wait(&self.readers, at).await,
            }
        }
    }
    /// Waits until a write would not block.
    pub async fn writable(&self) -> io::Result<()> {
        loop {
            match self.world.net(|n| n.writable(self.conn, self.side, t())) {
                Ready::Now => return Ok(()),
                Ready::At(at) => wait(&self.writers, at).await,
            }
        }
    }
    /// Reads what is there, or `WouldBlock`; 0 is the end of the stream.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.world.net(|n| n.try_read(self.conn, self.side, buf, t()))
    }
    /// As [`TcpStream::try_read`], into a buffer's spare room, which need not be initialised.
    pub fn try_read_buf<B: BufMut>(&self, buf: &mut B) -> io::Result<usize> {
        let mut room = vec![0; buf.chunk_mut().len()];
        let n = self.try_read(&mut room)?;
        buf.put_slice(&room[..n]);
        Ok(n)
    }
    /// Writes what fits, or `WouldBlock`.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.world.net(|n| n.try_write(self.conn, self.side, &mut std::iter::once(buf), t()))
    }
    /// As [`TcpStream::try_write`], from several buffers.
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.world.net(|n| n.try_write(self.conn, self.side, &mut bufs.iter().map(|b| &b[..]), t()))
    }
    /// The other side's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.world.net(|n| n.addrs(self.conn, self.side)).map(|a| a.1)
    }
    /// This side's address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.world.net(|n| n.addrs(self.conn, self.side)).map(|a| a.0)
    }
    /// Sends a FIN after what was written; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.world.net(|n| n.shutdown_write(self.conn, self.side, t()))
    }
    /// Ends both directions now: pending and later reads and writes on any worker return.
    pub fn shutdown(&self) -> io::Result<()> {
        self.world.net(|n| n.shutdown(self.conn, self.side, t()))
    }
    /// Windows are the network's options here.
    pub fn limit_send_buffer(&self, _bytes: usize) {}
    /// Makes the close a reset: the peer sees an error rather than an end, and nothing unsent is kept.
    pub fn reset_on_close(&self) -> io::Result<()> {
        self.world.net(|n| n.linger_zero(self.conn, self.side));
        Ok(())
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.world.net(|n| n.close(self.conn, self.side, t(), false))
    }
}

/// Waits until somebody changed this side, or until a change is due.
async fn wait(notify: &Notify, at: Option<u64>) {
    match at {
        Some(at) => crate::select! {
            _ = notify.notified() => {}
            _ = Pause::until(at) => {}
        },
        None => notify.notified().await,
    }
}

/// The address of this machine: it has one interface.
pub fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    World::with_here(|m, _| vec![m.ip]).ok_or_else(|| io::Error::other("interfaces belong to a machine"))
}

/// The addresses of `host`: a literal address, `localhost`, or a machine's name.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let (world, _) = here()?;
    let ip = match host.parse::<IpAddr>() {
        Ok(ip) => Some(ip),
        Err(_) if host == "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Err(_) => world.net(|n| n.lookup(host)),
    };
    let ip = ip.ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("no such host: {host}")))?;
    Ok(vec![SocketAddr::new(ip, port)])
}
