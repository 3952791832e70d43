//! A client written for the tests: plain, TLS, WebSocket or both, writing in pieces of a chosen size.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    sync::Arc,
};

use env::net::TcpStream;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use super::Pki;
use crate::{
    tls::tests::Signed,
    ws::{Decoder, tests::client_frame, tests::deflated},
};

pub(super) struct Peer {
    pub tcp: TcpStream,
    pub tls: Option<ClientConnection>,
    ws: Option<(Decoder, bool)>,
    /// Bytes per write to the socket.
    pub piece: usize,
    /// Read, and not taken yet.
    pub got: Vec<u8>,
    /// The frames that answer control frames of the server; the server sends none that needs one.
    control: Vec<u8>,
    pub ended: bool,
}

pub(super) fn client_config(
    pki: &Pki,
    cert: Option<&Signed>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca.pem.as_bytes()).unwrap()).unwrap();
    let b = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match cert {
        None => b.with_no_client_auth(),
        Some(c) => b
            .with_client_auth_cert(
                vec![CertificateDer::from(c.der.clone())],
                PrivateKeyDer::from_pem_slice(c.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    })
}

impl Peer {
    pub async fn connect(addr: SocketAddr) -> Peer {
        let tcp = TcpStream::connect(addr).await.unwrap();
        Peer {
            tcp,
            tls: None,
            ws: None,
            piece: usize::MAX,
            got: Vec::new(),
            control: Vec::new(),
            ended: false,
        }
    }

    /// Writes bytes to the socket; false if it is broken.
    pub async fn raw(&mut self, bytes: &[u8]) -> bool {
        for mut piece in bytes.chunks(self.piece.min(bytes.len().max(1))) {
            while !piece.is_empty() {
                match self.tcp.try_write(piece) {
                    Ok(n) => piece = &piece[n..],
                    Err(e) if e.kind() == ErrorKind::WouldBlock => self.tcp.writable().await.unwrap(),
                    Err(_) => return false,
                }
            }
            if self.piece < 1 << 16 {
                // The server's task gets its turn, so that it sees the piece alone.
                env::sleep(std::time::Duration::ZERO).await;
            }
        }
        true
    }

    async fn flush_tls(&mut self) -> bool {
        let mut out = Vec::new();
        while let Some(t) = &mut self.tls
            && t.wants_write()
        {
            t.write_tls(&mut out).unwrap();
        }
        self.raw(&out).await
    }

    /// Sends protocol bytes through all layers.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let framed = match &self.ws {
            None => bytes.to_vec(),
            Some((_, compress)) => {
                let mask = Some([1, 2, 3, 250]);
                bytes
                    .chunks(100_000)
                    .flat_map(|b| match compress {
                        true => client_frame(0xc2, mask, &deflated(b)),
                        false => client_frame(0x82, mask, b),
                    })
                    .collect()
            }
        };
        self.below(&framed).await
    }

    /// Sends bytes through TLS only.
    pub async fn below(&mut self, bytes: &[u8]) -> bool {
        if self.tls.is_none() {
            return self.raw(bytes).await;
        }
        for part in bytes.chunks(16 << 10) {
            self.tls.as_mut().unwrap().writer().write_all(part).unwrap();
            if !self.flush_tls().await {
                return false;
            }
        }
        true
    }

    /// Reads once from the socket, at most `max` bytes.
    pub async fn read(&mut self, max: usize) {
        let mut buf = vec![0; max];
        let n = loop {
            match self.tcp.try_read(&mut buf) {
                Ok(n) => break n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.tcp.readable().await.unwrap(),
                Err(_) => break 0,
            }
        };
        self.ended |= n == 0;
        let mut clear = buf[..n].to_vec();
        if let Some(t) = &mut self.tls {
            let mut input = &buf[..n];
            clear.clear();
            while !input.is_empty() {
                if t.read_tls(&mut input).is_err() || t.process_new_packets().is_err() {
                    self.ended = true;
                    break;
                }
                let _ = t.reader().read_to_end(&mut clear);
            }
            self.flush_tls().await;
        }
        match &mut self.ws {
            None => self.got.extend_from_slice(&clear),
            Some((d, _)) => {
                let mut input = &clear[..];
                loop {
                    let mut out = vec![0; 1 << 16];
                    let (used, made) = d.decode(input, &mut out, &mut self.control).unwrap();
                    input = &input[used..];
                    self.got.extend_from_slice(&out[..made]);
                    if made == 0 && !d.has_more() {
                        break;
                    }
                }
                self.ended |= d.is_closed();
            }
        }
    }

    /// Reads until `end` has come, and takes all up to it.
    pub async fn until(&mut self, end: &str) -> String {
        let end = end.as_bytes();
        let mut seen = 0;
        loop {
            let found = self.got[seen..].windows(end.len()).position(|w| w == end);
            if let Some(at) = found.map(|at| seen + at) {
                let rest = self.got.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.got, rest)).unwrap();
            }
            assert!(!self.ended, "the server has closed after {:?}", String::from_utf8_lossy(&self.got));
            seen = self.got.len().saturating_sub(end.len() - 1);
            self.read(1 << 16).await;
        }
    }

    /// Reads to the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        while !self.ended {
            self.read(1 << 16).await;
        }
        std::mem::take(&mut self.got)
    }

    /// What the server said at its close, as frames that would answer it.
    pub fn close_frame(&self) -> &[u8] {
        &self.control
    }

    pub async fn start_tls(&mut self, config: &Arc<ClientConfig>) -> bool {
        assert!(self.got.is_empty());
        let name = ServerName::try_from("localhost").unwrap();
        self.tls = Some(ClientConnection::new(config.clone(), name).unwrap());
        self.flush_tls().await;
        while self.tls.as_ref().unwrap().is_handshaking() {
            if self.ended {
                return false;
            }
            self.read(1 << 16).await;
        }
        self.flush_tls().await
    }

    pub async fn start_ws(&mut self, compress: bool) {
        let extension = if compress { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
        self.below(upgrade(extension).as_bytes()).await;
        let answer = self.until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert_eq!(answer.contains("permessage-deflate"), compress);
        let early = std::mem::take(&mut self.got);
        let mut d = Decoder::new(false, compress, 1 << 30);
        let mut out = vec![0; 1 << 16];
        let (used, made) = d.decode(&early, &mut out, &mut self.control).unwrap();
        assert_eq!(used, early.len());
        self.got.extend_from_slice(&out[..made]);
        self.ws = Some((d, compress));
    }
}

pub(super) fn upgrade(more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}
