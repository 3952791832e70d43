//! What comes before the NATS protocol: the PROXY header, TLS, the WebSocket upgrade.
//!
//! Each handshake is a loop of "step, write, wait" over the socket's [`Layers`], with one deadline for all of it (L-3) and an
//! eye on the link, where there is one already. What is read too early stays in the layers for what comes next.

use std::{net::SocketAddr, sync::Arc};

use broker::Link;
use env::Instant;
use rustls::pki_types::ServerName;

use crate::{
    proxy,
    tls::{Session, TlsSettings},
    transport::{Layers, Socket},
    ws::{self, Decoder, Encoder, WebSocketSettings},
};

/// Why a handshake failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The deadline has passed.
    Timeout,
    /// The peer has gone, or the socket is broken.
    Gone(String),
    /// The link was closed meanwhile.
    Closed,
    /// The peer did something wrong.
    Refused(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Timeout => f.write_str("i/o timeout"),
            Failure::Gone(text) | Failure::Refused(text) => f.write_str(text),
            Failure::Closed => f.write_str("connection closed"),
        }
    }
}

/// One connection's handshakes.
pub(crate) struct Handshake<'a> {
    pub socket: &'a Socket,
    /// Once the connection is known to the broker.
    pub link: Option<&'a Link>,
    pub deadline: Instant,
}

/// What to wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Readable,
    Writable,
}

impl Handshake<'_> {
    fn layers<R>(&self, f: impl FnOnce(&mut Layers) -> R) -> R {
        f(&mut self.socket.layers().lock())
    }

    async fn closed(&self) {
        match self.link {
            // A wake-up for another reason is of no use to anybody yet: settings are looked at when the handshake is done.
            Some(link) => {
                while link.closed().is_none() {
                    link.wake.notified().await;
                }
            }
            None => std::future::pending().await,
        }
    }

    async fn wait(&self, what: Until) -> Result<(), Failure> {
        let ready = async {
            match what {
                Until::Readable => self.socket.tcp().readable().await,
                Until::Writable => self.socket.tcp().writable().await,
            }
        };
        env::select! {
            _ = self.closed() => Err(Failure::Closed),
            _ = env::sleep_until(self.deadline) => Err(Failure::Timeout),
            r = ready => r.map_err(|e| Failure::Gone(e.to_string())),
        }
    }

    /// Writes what the layers hold.
    pub(crate) async fn flush(&self) -> Result<(), Failure> {
        loop {
            let done = self.layers(|l| l.drain(self.socket.tcp()));
            if done.map_err(|e| Failure::Gone(e.to_string()))? {
                return Ok(());
            }
            self.wait(Until::Writable).await?;
        }
    }

    /// Writes bytes through the layers that there are.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.layers(|l| l.push(bytes));
        self.flush().await
    }

    /// Reads at least one byte more into the layers' input.
    async fn read(&self) -> Result<(), Failure> {
        loop {
            let (before, r, after, ended) = self.layers(|l| {
                let before = l.input().len();
                let r = l.read_more(self.socket.tcp());
                (before, r, l.input().len(), l.is_ended())
            });
            match r {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => self.wait(Until::Readable).await?,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.flush().await.ok();
                    return Err(Failure::Refused(e.to_string()));
                }
                Ok(_) if after > before => return Ok(()),
                Ok(_) if ended => return Err(Failure::Gone("EOF".into())),
                Ok(_) => self.flush().await?,
            }
        }
    }

    /// The first byte that the client sends. It stays where it is.
    pub(crate) async fn first_byte(&self) -> Result<u8, Failure> {
        loop {
            if let Some(b) = self.layers(|l| l.input().first().copied()) {
                return Ok(b);
            }
            self.read().await?;
        }
    }

    /// The client's address in the words of a proxy before us, if there is one that says it.
    pub(crate) async fn proxy(&self) -> Result<Option<SocketAddr>, Failure> {
        loop {
            match self.layers(|l| proxy::parse(l.input())).map_err(Failure::Refused)? {
                proxy::Parsed::Partial => self.read().await?,
                proxy::Parsed::Absent => return Ok(None),
                proxy::Parsed::Header { used, client } => {
                    self.layers(|l| l.consume(used));
                    return Ok(client);
                }
            }
        }
    }

    /// Does the TLS handshake as the server.
    pub(crate) async fn tls(&self, s: &TlsSettings) -> Result<(), Failure> {
        // What does not look like TLS is turned away before the engine sees it, and gets no alert that it could not read.
        match self.first_byte().await? {
            0x16 => {}
            b if b.is_ascii_uppercase() => {
                let text = "first record does not look like a TLS handshake".to_owned();
                return Err(Failure::Refused(text));
            }
            b => return Err(Failure::Refused(format!("first byte {b:#04x} is not that of a TLS handshake"))),
        }
        let session = Session::server(&s.server_config).map_err(|e| Failure::Refused(e.to_string()))?;
        self.shake_hands(session).await?;
        if !s.pinned_spki_sha256.is_empty() {
            let certs = self.layers(|l| l.tls().map(Session::peer_certs)).unwrap_or_default();
            if !certs.first().is_some_and(|c| s.pinned_spki_sha256.contains(&c.spki_sha256)) {
                return Err(Failure::Refused("certificate not pinned".into()));
            }
        }
        Ok(())
    }

    /// Does the TLS handshake as the client of `host`.
    pub(crate) async fn tls_client(
        &self,
        config: &Arc<rustls::ClientConfig>,
        host: &str,
    ) -> Result<(), Failure> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::Refused(format!("{host:?} is no name that a certificate could have")))?;
        let session = Session::client(config, name).map_err(|e| Failure::Refused(e.to_string()))?;
        self.shake_hands(session).await
    }

    async fn shake_hands(&self, session: Session) -> Result<(), Failure> {
        let started = self.layers(|l| l.start_tls(session));
        self.flush().await?;
        started.map_err(|e| Failure::Refused(e.to_string()))?;
        loop {
            if self.layers(|l| l.tls().is_none_or(|t| !t.is_handshaking())) {
                break;
            }
            let r = self.layers(|l| (l.read_more(self.socket.tcp()), l.is_ended()));
            match r {
                (Err(e), _) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    self.wait(Until::Readable).await?
                }
                (Err(e), _) if e.kind() == std::io::ErrorKind::Interrupted => {}
                (Err(e), _) => {
                    self.flush().await.ok();
                    return Err(Failure::Refused(e.to_string()));
                }
                (Ok(_), true) if self.layers(|l| l.tls().is_none_or(Session::is_handshaking)) => {
                    return Err(Failure::Gone("EOF".into()));
                }
                (Ok(_), _) => self.flush().await?,
            }
        }
        self.flush().await
    }

    /// Does the WebSocket upgrade. A request that is refused gets its answer.
    pub(crate) async fn websocket(
        &self,
        s: &WebSocketSettings,
        inflated_max: usize,
    ) -> Result<ws::Accepted, Failure> {
        loop {
            match self.layers(|l| ws::upgrade::accept(l.input(), &s.rules)) {
                Ok(None) => match self.read().await {
                    Ok(()) => {}
                    // Who has begun to speak HTTP gets an answer in it.
                    Err(Failure::Timeout) if self.layers(|l| !l.input().is_empty()) => {
                        self.layers(|l| {
                            l.push(&ws::upgrade::too_late().response);
                            l.drain(self.socket.tcp()).ok();
                        });
                        return Err(Failure::Timeout);
                    }
                    Err(e) => return Err(e),
                },
                Ok(Some(a)) => {
                    self.send(&a.response).await?;
                    self.layers(|l| {
                        l.consume(a.used);
                        let decoder = Decoder::new(!a.no_masking, a.compress, inflated_max);
                        l.start_ws(decoder, Encoder { compress: a.compress });
                    });
                    return Ok(a);
                }
                Err(refusal) => {
                    self.send(&refusal.response).await.ok();
                    return Err(Failure::Refused(refusal.reason));
                }
            }
        }
    }

    /// TLS of a listener that speaks nothing but HTTP over it.
    pub(crate) async fn https(&self, s: &TlsSettings) -> Result<(), Failure> {
        if self.first_byte().await?.is_ascii_uppercase() {
            let text = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
            self.send(text).await.ok();
            return Err(Failure::Refused("client sent an HTTP request to an HTTPS server".into()));
        }
        self.tls(s).await
    }
}
