//! TCP. A stream is driven by readiness and `try_` calls, so an idle connection holds no buffer.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Shutdown, SocketAddr},
};

use bytes::BufMut;
use socket2::SockRef;
use tokio::io::Interest;

/// A listening socket.
#[derive(Debug)]
pub struct TcpListener(tokio::net::TcpListener);

/// A connection that was accepted but belongs to no worker yet; see [`Accepted::attach`].
#[derive(Debug)]
pub struct Accepted(std::net::TcpStream);

/// A connection that belongs to the worker that attached or opened it. Every method takes `&self`; the `try_` calls may
/// be made from any worker.
#[derive(Debug)]
pub struct TcpStream(tokio::net::TcpStream);

impl TcpListener {
    /// Listens on `addr`; port 0 chooses a free one.
    pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
        let domain = if addr.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
        let s = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        s.set_reuse_address(true)?;
        if addr.ip().is_unspecified() && addr.is_ipv6() {
            s.set_only_v6(false).ok();
        }
        s.set_nonblocking(true)?;
        s.bind(&addr.into())?;
        s.listen(4096)?;
        tokio::net::TcpListener::from_std(s.into()).map(TcpListener)
    }
    /// The bound address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
    /// The next connection.
    pub async fn accept(&self) -> io::Result<(Accepted, SocketAddr)> {
        let (s, peer) = self.0.accept().await?;
        Ok((Accepted(s.into_std()?), peer))
    }
}

impl Accepted {
    /// Makes the current worker the connection's own.
    pub fn attach(self) -> io::Result<TcpStream> {
        self.0.set_nodelay(true)?;
        tokio::net::TcpStream::from_std(self.0).map(TcpStream)
    }
}

impl TcpStream {
    /// Opens a connection.
    pub async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        let s = tokio::net::TcpStream::connect(addr).await?;
        s.set_nodelay(true)?;
        Ok(TcpStream(s))
    }
    /// Waits until a read would not block (also at the end of the stream and on errors).
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }
    /// Waits until a write would not block.
    pub async fn writable(&self) -> io::Result<()> {
        self.0.writable().await
    }
    /// Reads what is there, or `WouldBlock`; 0 is the end of the stream.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.try_read(buf)?;
        if 0 < n && n < buf.len() {
            self.drained();
        }
        Ok(n)
    }
    /// Notes that the socket is empty, which a short read has shown: the next wait goes to the poller at once instead of
    /// through a read that finds nothing. The poller is edge triggered, so what comes later is not missed.
    fn drained(&self) {
        self.0.try_io(Interest::READABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into())).ok();
    }
    /// As [`TcpStream::try_read`], into a buffer's spare room, which need not be initialised.
    pub fn try_read_buf<B: BufMut>(&self, buf: &mut B) -> io::Result<usize> {
        self.0.try_read_buf(buf)
    }
    /// Writes what fits, or `WouldBlock`.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }
    /// As [`TcpStream::try_write`], from several buffers.
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }
    /// The other side's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }
    /// This side's address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
    /// Sends a FIN after what was written; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(&self.0).shutdown(Shutdown::Write)
    }
    /// Ends both directions now: pending and later reads and writes on any worker return.
    pub fn shutdown(&self) -> io::Result<()> {
        SockRef::from(&self.0).shutdown(Shutdown::Both)
    }
    /// Asks the system to keep no more than about so many written bytes, so that what is written later is not far behind. A system
    /// that does not do so keeps more.
    pub fn limit_send_buffer(&self, bytes: usize) {
        SockRef::from(&self.0).set_send_buffer_size(bytes).ok();
    }
    /// Makes the close a reset: the peer sees an error rather than an end, and nothing unsent is kept.
    pub fn reset_on_close(&self) -> io::Result<()> {
        SockRef::from(&self.0).set_linger(Some(std::time::Duration::ZERO))
    }
}

/// The addresses of `host`, which may be a literal address or a name.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// The addresses of this machine's network interfaces, in the order of the interfaces, IPv4 before IPv6 on each.
pub fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let mut all = if_addrs::get_if_addrs()?;
    all.sort_by_key(|i| (i.index.unwrap_or(u32::MAX), i.ip().is_ipv6()));
    Ok(all.iter().map(|i| i.ip()).collect())
}

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
