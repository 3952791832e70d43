//! One connection's TLS: records in, bytes out, and back.
//!
//! rustls' unbuffered interface is used, because it keeps no buffers: an idle connection holds the session's keys and
//! nothing else (L-2). What has come of a record that is not whole stays here.

use std::sync::Arc;

use rustls::{
    CommonState, Error, InvalidMessage, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};

/// Most bytes of plaintext in a record (RFC 8446, 5.1).
pub(crate) const RECORD_BYTES_MAX: usize = 16 << 10;
/// What encryption adds to a record at most: header, nonce, tag and content type, with room to spare.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// Unread bytes kept at most. The longest that can be of use is a handshake message of 64 KiB and the record around it.
const RAW_BYTES_MAX: usize = 128 << 10;

/// Either end.
enum Conn {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// A TLS connection without its socket.
pub struct Session {
    conn: Conn,
    /// Bytes from the peer that make no whole record yet.
    raw: Vec<u8>,
    /// How many of them are done with, while records are taken.
    at: usize,
    /// The peer has said that it sends no more.
    peer_closed: bool,
    /// It has failed; the engine is not called any more.
    dead: bool,
}

/// What one step of the engine left to do.
enum Step {
    /// Go on.
    More,
    /// The peer must send something first.
    Wait,
    /// Data may be encrypted.
    Ready,
    /// The peer has closed.
    Closed,
}

impl Session {
    /// The server's end.
    ///
    /// # Errors
    /// The configuration is contradictory.
    pub fn server(config: &Arc<ServerConfig>) -> Result<Session, Error> {
        Ok(Session::new(Conn::Server(UnbufferedServerConnection::new(config.clone())?)))
    }
    /// The client's end.
    ///
    /// # Errors
    /// The configuration is contradictory.
    pub fn client(config: &Arc<rustls::ClientConfig>, name: ServerName<'static>) -> Result<Session, Error> {
        Ok(Session::new(Conn::Client(UnbufferedClientConnection::new(config.clone(), name)?)))
    }
    fn new(conn: Conn) -> Session {
        Session { conn, raw: Vec::new(), at: 0, peer_closed: false, dead: false }
    }
    fn state(&self) -> &CommonState {
        match &self.conn {
            Conn::Server(c) => c,
            Conn::Client(c) => c,
        }
    }
    /// Memory of its buffer, in bytes.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.raw.capacity()
    }
    /// Whether no data can flow yet.
    pub fn is_handshaking(&self) -> bool {
        self.state().is_handshaking()
    }
    /// Whether the peer has ended its side.
    pub fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }
    /// Version and cipher suite as monitoring shows them, once they are agreed on.
    pub fn agreed(&self) -> Option<(String, String)> {
        let (v, c) = (self.state().protocol_version()?, self.state().negotiated_cipher_suite()?);
        Some((super::version_name(v), super::cipher_name(c.suite())))
    }
    /// What the peer's certificates say, its own first.
    pub fn peer_certs(&self) -> Vec<super::PeerCert> {
        self.state().peer_certificates().map(super::PeerCert::chain).unwrap_or_default()
    }

    /// Takes `bytes` from the peer. Plaintext goes to `sink`, what the handshake answers is appended to `out`.
    ///
    /// # Errors
    /// The connection is broken; `out` ends with an alert that says so to the peer.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        if self.peer_closed {
            return Ok(());
        }
        if self.raw.len() + bytes.len() > RAW_BYTES_MAX {
            return Err(Error::InvalidMessage(InvalidMessage::MessageTooLarge));
        }
        self.raw.extend_from_slice(bytes);
        let r = loop {
            match self.step(out, &mut sink) {
                Ok(Step::More) => {}
                Ok(Step::Wait | Step::Ready) => break Ok(()),
                Ok(Step::Closed) => {
                    self.peer_closed = true;
                    break Ok(());
                }
                Err(e) => {
                    // The alert, if there is one. What failed must not be looked at again, and what follows is no session.
                    self.step(out, &mut sink).ok();
                    (self.dead, self.peer_closed) = (true, true);
                    break Err(e);
                }
            }
        };
        self.raw.drain(..std::mem::take(&mut self.at));
        if self.raw.is_empty() || self.peer_closed {
            self.raw = Vec::new();
        }
        r
    }

    /// Appends `plain` as records. Before the end of the handshake that is an error.
    ///
    /// # Errors
    /// The handshake is not done, or the keys are used up.
    pub fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        for part in plain.chunks(RECORD_BYTES_MAX) {
            self.ready(out)?;
            let at = out.len();
            out.resize(at + part.len() + RECORD_OVERHEAD_BYTES, 0);
            let r = match &mut self.conn {
                Conn::Server(c) => {
                    encrypt(c.process_tls_records(&mut self.raw[self.at..]), part, &mut out[at..])
                }
                Conn::Client(c) => {
                    encrypt(c.process_tls_records(&mut self.raw[self.at..]), part, &mut out[at..])
                }
            };
            out.truncate(at + *r.as_ref().unwrap_or(&0));
            r?;
        }
        Ok(())
    }

    /// Appends the alert that ends this side. Nothing happens before the end of the handshake.
    pub fn send_close(&mut self, out: &mut Vec<u8>) {
        if self.is_handshaking() || self.ready(out).is_err() {
            return;
        }
        let at = out.len();
        out.resize(at + RECORD_OVERHEAD_BYTES, 0);
        let n = match &mut self.conn {
            Conn::Server(c) => close(c.process_tls_records(&mut self.raw[self.at..]), &mut out[at..]),
            Conn::Client(c) => close(c.process_tls_records(&mut self.raw[self.at..]), &mut out[at..]),
        };
        out.truncate(at + n);
    }

    /// Brings the engine to where data can be encrypted. Whole records of the peer were all taken by `receive`, so no
    /// plaintext can come up here.
    fn ready(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.dead {
            return Err(Error::General("the TLS session has failed".into()));
        }
        loop {
            match self.step(out, &mut |_| {})? {
                Step::More => {}
                Step::Ready => return Ok(()),
                Step::Wait | Step::Closed => return Err(Error::HandshakeNotComplete),
            }
        }
    }

    fn step(&mut self, out: &mut Vec<u8>, sink: &mut impl FnMut(&[u8])) -> Result<Step, Error> {
        let (used, step) = match &mut self.conn {
            Conn::Server(c) => handle(c.process_tls_records(&mut self.raw[self.at..]), out, sink),
            Conn::Client(c) => handle(c.process_tls_records(&mut self.raw[self.at..]), out, sink),
        };
        self.at += used;
        step
    }
}

/// Handles one state. Returns the bytes to discard.
fn handle<D>(
    status: UnbufferedStatus<'_, '_, D>,
    out: &mut Vec<u8>,
    sink: &mut impl FnMut(&[u8]),
) -> (usize, Result<Step, Error>) {
    let mut used = status.discard;
    let step = match status.state {
        Err(e) => Err(e),
        Ok(ConnectionState::ReadTraffic(mut t)) => {
            let mut r = Ok(Step::More);
            while let Some(record) = t.next_record() {
                match record {
                    Ok(record) => {
                        used += record.discard;
                        sink(record.payload);
                    }
                    Err(e) => {
                        r = Err(e);
                        break;
                    }
                }
            }
            r
        }
        Ok(ConnectionState::EncodeTlsData(mut e)) => {
            let at = out.len();
            let mut room = 512;
            loop {
                out.resize(at + room, 0);
                match e.encode(&mut out[at..]) {
                    Ok(n) => break out.truncate(at + n),
                    Err(EncodeError::InsufficientSize(s)) => room = s.required_size,
                    Err(EncodeError::AlreadyEncoded) => break out.truncate(at),
                }
            }
            Ok(Step::More)
        }
        Ok(ConnectionState::TransmitTlsData(t)) => {
            t.done();
            Ok(Step::More)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Wait),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Ready),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Closed),
        // Early data is never offered.
        Ok(_) => Err(Error::General("unexpected state of the TLS engine".into())),
    };
    (used, step)
}

fn encrypt<D>(status: UnbufferedStatus<'_, '_, D>, plain: &[u8], out: &mut [u8]) -> Result<usize, Error> {
    match status.state? {
        ConnectionState::WriteTraffic(mut w) => w.encrypt(plain, out).map_err(|e| match e {
            EncryptError::EncryptExhausted => Error::EncryptError,
            EncryptError::InsufficientSize(_) => {
                Error::General("a TLS record is larger than expected".into())
            }
        }),
        _ => Err(Error::HandshakeNotComplete),
    }
}

fn close<D>(status: UnbufferedStatus<'_, '_, D>, out: &mut [u8]) -> usize {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut w)) => w.queue_close_notify(out).unwrap_or(0),
        _ => 0,
    }
}
