//! A connection's bytes, whatever layers lie between the socket and the protocol.
//!
//! A plain connection has no layers and pays one compare a call. Otherwise [`Layers`], behind a lock, hold the TLS session
//! and the WebSocket codec or the compression of a route, and what these have made that is on its way: bytes for the reader (`mid`), bytes for the socket
//! (`out`). Both are bounded and both are gone when the connection is idle (L-2). One task reads; any worker may write.
//!
//! Invariants:
//! * L-8: bytes reach the socket in the order in which the layers made them: what is written goes through `out`, under the
//!   lock, and `out` is never overtaken.
//! * L-9: a layer accepts no more than [`OUT_BYTES_MAX`] before the socket has taken what it made.

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind, IoSlice},
    sync::atomic::{AtomicU8, Ordering},
};

use broker::Closed;
use bytes::{BufMut, BytesMut};
use env::net::TcpStream;
use parking_lot::Mutex;
use wire::s2::{self, Level};

use crate::{
    tls::{PeerCert, Session},
    ws::{self, Decoder, Encoder},
};

/// Bytes read from the socket by one call, at most.
const READ_BYTES: usize = 32 << 10;
/// Reads that may bring nothing to the reader (handshakes, pings) before others get their turn.
const READS_MAX: usize = 8;
/// Bytes made for the socket from which on no more plaintext is accepted.
const OUT_BYTES_MAX: usize = 64 << 10;
/// Plaintext that is gathered into one frame or record.
const GATHER_BYTES: usize = 16 << 10;
/// Answers to pings are dropped while so much waits for the socket.
const REPLY_BYTES_MAX: usize = 2 * OUT_BYTES_MAX;

/// Nothing lies between.
const PLAIN: u8 = 0;
/// There are layers.
const LAYERED: u8 = 1;
/// A handshake is under way: nobody but it writes.
const HELD: u8 = 2;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
    static GATHER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A socket and its layers.
pub struct Socket {
    tcp: TcpStream,
    mode: AtomicU8,
    layers: Option<Box<Mutex<Layers>>>,
}

impl Socket {
    /// A socket without layers.
    pub fn plain(tcp: TcpStream) -> Socket {
        Socket { tcp, mode: AtomicU8::new(PLAIN), layers: None }
    }
    /// A socket that may get layers. Nothing is written by [`broker::Transport`] before [`Socket::open`].
    pub(crate) fn held(tcp: TcpStream) -> Socket {
        Socket { tcp, mode: AtomicU8::new(HELD), layers: Some(Box::default()) }
    }
    /// The handshakes are done (or not to come yet): writes go through.
    pub(crate) fn open(&self) {
        self.set_mode(LAYERED);
    }
    /// A handshake begins: writes wait.
    pub(crate) fn hold(&self) {
        self.set_mode(HELD);
    }
    fn set_mode(&self, mode: u8) {
        if self.layers.is_some() {
            self.mode.store(mode, Ordering::Release);
        }
    }
    /// It stays without layers. Returns what was read too early. The calls that follow are as those of a plain socket once
    /// nothing waits to be written.
    pub(crate) fn release(&self) -> Vec<u8> {
        let Some(layers) = &self.layers else { return Vec::new() };
        let mut l = layers.lock();
        // L-8: while bytes wait in `out`, writes must queue behind them; then the socket just stays layered.
        if l.tls.is_none() && l.ws.is_none() && !l.has_pending() {
            self.mode.store(PLAIN, Ordering::Release);
            return l.mid.take();
        }
        self.mode.store(LAYERED, Ordering::Release);
        Vec::new()
    }
    /// The layers, of a socket that was made for them.
    pub(crate) fn layers(&self) -> &Mutex<Layers> {
        self.layers.as_ref().expect("only sockets that are made with layers have handshakes")
    }
    /// The certificate of the other end, if there is TLS and it has shown one.
    pub(crate) fn peer_cert(&self) -> Option<PeerCert> {
        self.layers.as_ref()?.lock().tls()?.peer_certs().into_iter().next()
    }
    /// From now on what is written is compressed, and what is read is expected to be; `early` was read already. For a socket that
    /// was made with layers, while nobody but its owner writes to it.
    pub(crate) fn compress(&self, level: Level, early: &[u8]) {
        let mut l = self.layers().lock();
        l.start_s2(level, early);
        self.mode.store(LAYERED, Ordering::Release);
    }
    /// Compresses at another level, if at all.
    pub(crate) fn set_level(&self, level: Level) {
        if let Some(layers) = &self.layers
            && let Some(s2) = &mut layers.lock().s2
        {
            s2.encoder.level = level;
        }
    }
    /// How it compresses, if it does.
    pub(crate) fn level(&self) -> Option<Level> {
        self.layers.as_ref().and_then(|l| l.lock().s2.as_ref().map(|s2| s2.encoder.level))
    }
    #[inline]
    fn mode(&self) -> u8 {
        self.mode.load(Ordering::Acquire)
    }

    /// The socket below all layers.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
    /// Reads what is there, or `WouldBlock`; 0 is the end.
    #[inline]
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if self.mode() == PLAIN { self.tcp.try_read(buf) } else { self.layers().lock().read(&self.tcp, buf) }
    }
    /// Reads up to `max` bytes more into `buf`.
    pub fn try_read_more(&self, buf: &mut BytesMut, max: usize) -> io::Result<usize> {
        buf.reserve(max);
        if self.mode() == PLAIN {
            return self.tcp.try_read_buf(&mut buf.limit(max));
        }
        let at = buf.len();
        buf.resize(at + max.min(READ_BYTES), 0);
        let r = self.layers().lock().read(&self.tcp, &mut buf[at..]);
        buf.truncate(at + *r.as_ref().unwrap_or(&0));
        r
    }
    /// Waits until a read would not block.
    pub async fn readable(&self) -> io::Result<()> {
        if self.mode() != PLAIN && self.layers().lock().has_input() {
            return Ok(());
        }
        self.tcp.readable().await
    }
    /// Waits until a write would not block.
    pub async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }
    /// TLS version and cipher suite, if there is TLS.
    pub(crate) fn tls_agreed(&self) -> Option<(String, String)> {
        self.layers.as_ref().and_then(|l| l.lock().tls().and_then(Session::agreed))
    }
    /// Whether layers hold bytes that the socket has yet to take (an answer to a ping, for one).
    #[inline]
    pub fn has_unwritten(&self) -> bool {
        self.mode() == LAYERED && self.layers().lock().has_pending()
    }
    /// Says goodbye in the layers' own words, as far as the socket takes them.
    pub(crate) fn farewell(&self, reason: Closed) {
        if self.mode() == LAYERED {
            let mut l = self.layers().lock();
            l.close(reason);
            l.drain(&self.tcp).ok();
        }
    }
    /// Ends the connection.
    pub fn shutdown(&self) {
        self.tcp.shutdown().ok();
    }
}

impl broker::Transport for Socket {
    #[inline]
    fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.mode() {
            // The plain call is a little cheaper than the one for many pieces.
            PLAIN => match bufs {
                [one] => self.tcp.try_write(one),
                _ => self.tcp.try_write_vectored(bufs),
            },
            LAYERED => self.layers().lock().write(&self.tcp, bufs),
            _ => Err(ErrorKind::WouldBlock.into()),
        }
    }
    fn has_pending(&self) -> bool {
        self.has_unwritten()
    }
}

/// Bytes that wait, and how many of them are done with. Holds no memory when empty.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    at: usize,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }
    fn len(&self) -> usize {
        self.bytes.len() - self.at
    }
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }
    /// Where more is appended. A queue that is never empty lets go of what is done with as well.
    fn more(&mut self) -> &mut Vec<u8> {
        if self.at >= GATHER_BYTES {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        &mut self.bytes
    }
    fn push(&mut self, b: &[u8]) {
        self.more().extend_from_slice(b);
    }
    fn advance(&mut self, n: usize) {
        self.at += n;
        if self.is_empty() {
            *self = Queue::default();
        }
    }
    fn take(&mut self) -> Vec<u8> {
        let mut q = std::mem::take(self);
        q.bytes.drain(..q.at);
        q.bytes
    }
}

/// The WebSocket layer.
struct WebSocket {
    decoder: Decoder,
    encoder: Encoder,
    /// A close frame is out; nothing may follow it.
    closed: bool,
}

/// The compression of a route.
struct S2 {
    decoder: s2::Decoder,
    encoder: s2::Encoder,
}

/// What lies between the socket and the protocol.
#[derive(Default)]
pub(crate) struct Layers {
    tls: Option<Box<Session>>,
    ws: Option<Box<WebSocket>>,
    /// Never together with a WebSocket.
    s2: Option<Box<S2>>,
    /// What came from below and is not taken yet: frames with a WebSocket, else the protocol (expanded, if it was compressed).
    mid: Queue,
    /// For the socket.
    out: Queue,
    /// Nothing more comes from the socket.
    ended: bool,
    /// What broke the connection, for the log.
    failure: Option<String>,
}

impl Layers {
    /// What was read and not taken.
    pub(crate) fn input(&self) -> &[u8] {
        self.mid.rest()
    }
    /// Takes bytes off the front of [`Layers::input`].
    pub(crate) fn consume(&mut self, n: usize) {
        self.mid.advance(n);
    }
    /// Whether the socket has come to its end.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }
    /// Begins TLS; what was read so far belongs to it.
    ///
    /// # Errors
    /// What rustls finds wrong with it.
    pub(crate) fn start_tls(&mut self, session: Session) -> Result<(), rustls::Error> {
        let early = self.mid.take();
        self.tls = Some(Box::new(session));
        self.receive(&early)
    }
    /// The TLS session.
    pub(crate) fn tls(&self) -> Option<&Session> {
        self.tls.as_deref()
    }
    /// Begins to speak WebSocket; what was read and not taken are frames.
    pub(crate) fn start_ws(&mut self, decoder: Decoder, encoder: Encoder) {
        self.ws = Some(Box::new(WebSocket { decoder, encoder, closed: false }));
    }
    /// Begins to compress and to expand; what was read and not taken is compressed.
    fn start_s2(&mut self, level: Level, early: &[u8]) {
        let mut decoder = s2::Decoder::default();
        decoder.push(early);
        decoder.push(&self.mid.take());
        self.s2 = Some(Box::new(S2 { decoder, encoder: s2::Encoder::new(level) }));
    }
    /// Puts bytes into `out`, through TLS, but not through the WebSocket.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.out.bytes.capacity() == 0 {
            self.out.bytes = OUT.take();
        }
        let out = self.out.more();
        match &mut self.tls {
            None => out.extend_from_slice(bytes),
            Some(tls) => {
                if let Err(e) = tls.send(bytes, out) {
                    self.fail(e.to_string());
                }
            }
        }
    }
    #[cold]
    fn fail(&mut self, text: String) {
        self.ended = true;
        self.failure.get_or_insert(text);
    }
    /// Memory of its buffers, in bytes.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        let tls = self.tls.as_ref().map_or(0, |t| t.held_bytes());
        self.mid.bytes.capacity() + self.out.bytes.capacity() + tls
    }
    fn has_pending(&self) -> bool {
        !self.out.is_empty()
    }
    fn has_input(&self) -> bool {
        let (ws, s2) = (&self.ws, &self.s2);
        let more = ws.as_ref().is_some_and(|w| w.decoder.has_more());
        !self.mid.is_empty() || self.ended || more || s2.as_ref().is_some_and(|s| s.decoder.has_more())
    }

    /// Writes `out` as far as the socket takes it. True if all is gone.
    pub(crate) fn drain(&mut self, tcp: &TcpStream) -> io::Result<bool> {
        while !self.out.is_empty() {
            match tcp.try_write(self.out.rest()) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => self.out.at += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        let mut q = std::mem::take(&mut self.out);
        if q.bytes.capacity() > 0 && q.bytes.capacity() <= 2 * OUT_BYTES_MAX {
            q.bytes.clear();
            OUT.set(q.bytes);
        }
        Ok(true)
    }

    /// Reads once from the socket into `mid`, through TLS, but not through the WebSocket. 0 is the end.
    pub(crate) fn read_more(&mut self, tcp: &TcpStream) -> io::Result<usize> {
        READ.with_borrow_mut(|scratch| {
            let n = tcp.try_read(scratch)?;
            if n == 0 {
                self.ended = true;
            }
            if let Err(e) = self.receive(&scratch[..n]) {
                self.fail(e.to_string());
                return Err(io::Error::new(ErrorKind::InvalidData, e));
            }
            Ok(n)
        })
    }

    /// Takes bytes of the socket into `mid`.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), rustls::Error> {
        let (mid, s2) = (&mut self.mid, &mut self.s2);
        let mut take = |bytes: &[u8]| match s2 {
            None => mid.push(bytes),
            Some(s2) => s2.decoder.push(bytes),
        };
        match &mut self.tls {
            None => take(bytes),
            Some(tls) => {
                let r = tls.receive(bytes, &mut self.out.bytes, take);
                self.ended |= tls.is_peer_closed();
                r?;
            }
        }
        Ok(())
    }

    fn read(&mut self, tcp: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        for _ in 0..READS_MAX {
            let n = self.take(buf)?;
            if n > 0 {
                return Ok(n);
            }
            if self.ended {
                return match &self.failure {
                    Some(text) => Err(io::Error::new(ErrorKind::InvalidData, text.clone())),
                    None => Ok(0),
                };
            }
            self.read_more(tcp)?;
            // What this read has made for the peer (a pong, a new key) goes out at once if it can.
            if self.has_pending() {
                self.drain(tcp)?;
            }
        }
        // Others first; the reader comes back at once, since the socket still counts as readable.
        Err(ErrorKind::WouldBlock.into())
    }

    /// Moves what `mid` holds for the protocol into `buf`.
    fn take(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(ws) = &mut self.ws else {
            if self.mid.is_empty()
                && let Err(e) = self.expand()
            {
                self.fail(e.to_string());
                return Err(io::Error::new(ErrorKind::InvalidData, e));
            }
            let n = self.mid.len().min(buf.len());
            buf[..n].copy_from_slice(&self.mid.rest()[..n]);
            self.mid.advance(n);
            return Ok(n);
        };
        let mut replies = Vec::new();
        let r = ws.decoder.decode(self.mid.rest(), buf, &mut replies);
        if !replies.is_empty() && !ws.closed && self.out.len() < REPLY_BYTES_MAX {
            ws.closed = ws.decoder.is_closed();
            self.push(&replies);
        }
        match r {
            Ok((used, made)) => {
                self.mid.advance(used);
                self.ended |= self.ws.as_ref().is_some_and(|w| w.decoder.is_closed());
                Ok(made)
            }
            Err(v) => {
                let mut frame = Vec::new();
                ws::push_close(&mut frame, v.status, v.text);
                if let Some(ws) = &mut self.ws
                    && !std::mem::replace(&mut ws.closed, true)
                {
                    self.push(&frame);
                }
                self.fail(v.text.to_owned());
                Err(io::Error::new(ErrorKind::InvalidData, v.text))
            }
        }
    }

    /// Expands a block into `mid`, if a whole one has come (W-3).
    fn expand(&mut self) -> Result<(), s2::Error> {
        let Some(s2) = &mut self.s2 else { return Ok(()) };
        while self.mid.is_empty() && s2.decoder.next(&mut self.mid.bytes)? {}
        Ok(())
    }

    fn write(&mut self, tcp: &TcpStream, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut accepted = 0;
        let mut bufs = bufs.iter().map(|b| &b[..]).filter(|b| !b.is_empty()).peekable();
        let mut piece: &[u8] = &[];
        loop {
            // L-9
            while self.out.len() < OUT_BYTES_MAX {
                if piece.is_empty() {
                    let Some(next) = bufs.next() else { break };
                    piece = next;
                }
                let n = piece.len().min(GATHER_BYTES);
                let (part, rest) = piece.split_at(n);
                piece = rest;
                accepted += n;
                if n == GATHER_BYTES || bufs.peek().is_none() {
                    self.seal(part);
                    continue;
                }
                GATHER.with_borrow_mut(|g| {
                    g.clear();
                    g.extend_from_slice(part);
                    while let Some(next) = bufs.next_if(|b| g.len() + b.len() <= GATHER_BYTES) {
                        g.extend_from_slice(next);
                        accepted += next.len();
                    }
                    self.seal(g);
                });
            }
            if !self.drain(tcp)? {
                return if accepted > 0 { Ok(accepted) } else { Err(ErrorKind::WouldBlock.into()) };
            }
            if piece.is_empty() && bufs.peek().is_none() {
                return Ok(accepted);
            }
        }
    }

    /// Puts plaintext into `out` through all layers.
    fn seal(&mut self, plain: &[u8]) {
        if let Some(s2) = &mut self.s2 {
            let mut packed = Vec::new();
            s2.encoder.push(&mut packed, plain);
            return self.push(&packed);
        }
        let Some(ws) = &self.ws else { return self.push(plain) };
        // After a close frame nothing may follow; the link is about to end, and what was written is lost with it.
        if ws.closed {
            return;
        }
        let encoder = ws.encoder;
        if self.tls.is_none() {
            if self.out.bytes.capacity() == 0 {
                self.out.bytes = OUT.take();
            }
            return encoder.push(self.out.more(), plain);
        }
        let mut frame = Vec::new();
        encoder.push(&mut frame, plain);
        self.push(&frame);
    }

    /// Ends the layers.
    fn close(&mut self, reason: Closed) {
        if let Some(ws) = &mut self.ws
            && !std::mem::replace(&mut ws.closed, true)
        {
            let mut frame = Vec::new();
            ws::push_close(&mut frame, ws::close_status(reason), reason.text());
            self.push(&frame);
        }
        if let Some(tls) = &mut self.tls {
            tls.send_close(&mut self.out.bytes);
        }
    }
}
