//! A connection's bytes, whatever layers lie between the socket and the protocol.

use std::io::{self, IoSlice};

use bytes::{BufMut, BytesMut};
use env::net::TcpStream;

/// A socket and its layers.
pub struct Socket {
    tcp: TcpStream,
}

impl Socket {
    /// A socket without layers.
    pub fn plain(tcp: TcpStream) -> Socket {
        Socket { tcp }
    }
    /// The socket below all layers.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
    /// Reads what is there, or `WouldBlock`; 0 is the end.
    #[inline]
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.tcp.try_read(buf)
    }
    /// Reads up to `max` bytes more into `buf`.
    pub fn try_read_more(&self, buf: &mut BytesMut, max: usize) -> io::Result<usize> {
        buf.reserve(max);
        self.tcp.try_read_buf(&mut buf.limit(max))
    }
    /// Waits until a read would not block.
    pub async fn readable(&self) -> io::Result<()> {
        self.tcp.readable().await
    }
    /// Waits until a write would not block.
    pub async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }
    /// Ends the connection.
    pub fn shutdown(&self) {
        self.tcp.shutdown().ok();
    }
}

impl broker::Transport for Socket {
    #[inline]
    fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.tcp.try_write_vectored(bufs)
    }
}
