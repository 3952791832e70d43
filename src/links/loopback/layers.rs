//! The layers carry the protocol, whatever the sizes of the pieces.

use std::{collections::BTreeSet, io::IoSlice};

use broker::Transport;
use rustls::version::{TLS12, TLS13};

use super::{
    peer::{Peer, client_config},
    *,
};
use crate::{Socket, handshake::Handshake, tls::HandshakeFirst};

/// A way in.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    Plain,
    Tls12,
    Tls13,
    Ws,
    WsDeflate,
    Wss,
    WssDeflate,
}

const WAYS: [Way; 7] =
    [Way::Plain, Way::Tls12, Way::Tls13, Way::Ws, Way::WsDeflate, Way::Wss, Way::WssDeflate];

impl Way {
    async fn server(self, pki: &Pki) -> Server {
        Server::start(|s| match self {
            Way::Plain => {}
            Way::Tls12 | Way::Tls13 => s.tls = Some(Arc::new(pki.tls())),
            Way::Ws | Way::WsDeflate => s.websocket = Some(Arc::new(websocket(None))),
            Way::Wss | Way::WssDeflate => s.websocket = Some(Arc::new(websocket(Some(pki.tls())))),
        })
        .await
    }
    /// A client that has read INFO.
    async fn client(self, s: &Server, pki: &Pki, piece: usize) -> Peer {
        let ws = matches!(self, Way::Ws | Way::WsDeflate | Way::Wss | Way::WssDeflate);
        let mut p = Peer::connect(if ws { s.ws } else { s.client }).await;
        p.piece = piece;
        let config = |v| client_config(pki, None, &[v]);
        match self {
            Way::Plain => {}
            Way::Tls12 | Way::Tls13 => {
                let info = p.until("\r\n").await;
                assert!(info.contains("\"tls_required\":true"), "{info}");
                let v = if self == Way::Tls12 { &TLS12 } else { &TLS13 };
                assert!(p.start_tls(&config(v)).await);
                return p;
            }
            Way::Ws | Way::WsDeflate => p.start_ws(self == Way::WsDeflate).await,
            Way::Wss | Way::WssDeflate => {
                assert!(p.start_tls(&config(&TLS13)).await);
                p.start_ws(self == Way::WssDeflate).await;
            }
        }
        let info = p.until("\r\n").await;
        assert!(info.starts_with(if ws { "INFO {\"server_id\":\"W\"" } else { "INFO {\"server_id\":\"N\"" }));
        assert_eq!(info.contains("tls_required"), matches!(self, Way::Wss | Way::WssDeflate));
        p
    }
}

const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";

/// Text that cannot be compressed much.
fn payload(len: usize) -> Vec<u8> {
    let mut x = 88_172_645_463_325_252u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        b'!' + ((x >> 32) % 90) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn every_way_in_pieces_of_every_size() {
    let pki = Pki::new();
    for way in WAYS {
        for (piece, len) in
            [(1, 40), (2, 300), (3, 1000), (7, 3000), (100, 20_000), (5000, 70_000), (usize::MAX, 3 << 20)]
        {
            test(async {
                let s = way.server(&pki).await;
                let mut p = way.client(&s, &pki, piece).await;
                let body = payload(len);
                let body = std::str::from_utf8(&body).unwrap();
                p.send(format!("{CONNECT}SUB a 1\r\nPING\r\n").as_bytes()).await;
                p.until("PONG\r\n").await;
                p.send(format!("PUB a {len}\r\n{body}\r\nPUB a 0\r\n\r\nPING\r\n").as_bytes()).await;
                let got = p.until("PONG\r\n").await;
                let expected = format!("MSG a 1 {len}\r\n{body}\r\nMSG a 1 0\r\n\r\nPONG\r\n");
                assert!(got == expected, "{way:?} in pieces of {piece}: {} bytes", got.len());
                let c = s.only_client();
                assert_eq!(
                    c.facts.lock().kind,
                    if s.cx.settings().websocket.is_some() { "websocket" } else { "nats" }
                );
                let tls = c.facts.lock().tls.clone();
                let expected = match way {
                    Way::Plain | Way::Ws | Way::WsDeflate => None,
                    Way::Tls12 => Some("1.2"),
                    _ => Some("1.3"),
                };
                assert_eq!(tls.as_ref().map(|t| &t.0[..]), expected);
                if let Some((_, suite)) = tls {
                    assert!(suite.starts_with("TLS_") && suite.contains("AES"), "{suite}");
                }
            });
        }
    }
}

#[test]
fn a_slow_reader_loses_nothing() {
    let pki = Pki::new();
    for way in WAYS {
        test(async {
            let s = way.server(&pki).await;
            let mut reader = way.client(&s, &pki, usize::MAX).await;
            reader.send(format!("{CONNECT}SUB a 1\r\nPING\r\n").as_bytes()).await;
            reader.until("PONG\r\n").await;
            let mut writer = way.client(&s, &pki, usize::MAX).await;
            let body = payload(100_000);
            let mut all = Vec::from(CONNECT);
            for n in 0..200 {
                all.extend_from_slice(format!("PUB a.{n} 2\r\nno\r\nPUB a {}\r\n", body.len()).as_bytes());
                all.extend_from_slice(&body);
                all.extend_from_slice(b"\r\n");
            }
            all.extend_from_slice(b"PING\r\n");
            writer.send(&all).await;
            writer.until("PONG\r\n").await;
            // Nothing was read so far: most of it waits in the server.
            let link = s.cx.clients.open()[0].link.clone();
            assert!(link.pending_bytes() > 1 << 20, "{way:?}: {}", link.pending_bytes());
            reader.send(b"PING\r\n").await;
            // On a slow machine the server measures the round trip meanwhile.
            let got = reader.until("PONG\r\n").await.replace("\r\nPING\r\n", "\r\n");
            let one = format!("MSG a 1 {}\r\n{}\r\n", body.len(), std::str::from_utf8(&body).unwrap());
            let expected = one.repeat(200) + "PONG\r\n";
            let same = got.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
            assert!(
                got == expected,
                "{way:?}: {} bytes of {}, the same up to {same}, then {:?}",
                got.len(),
                expected.len(),
                got.get(same..(same + 100).min(got.len()))
            );
            assert_eq!(link.pending_bytes(), 0);
        });
    }
}

#[test]
fn l2_idle_layers_hold_no_buffer() {
    let pki = Pki::new();
    test(async {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        for (tls, compress) in [(false, false), (true, false), (true, true)] {
            let mut p = Peer::connect(listener.local_addr().unwrap()).await;
            let socket = Arc::new(Socket::held(listener.accept().await.unwrap().0.attach().unwrap()));
            let settings = websocket(tls.then(|| pki.tls()));
            let theirs = socket.clone();
            let server = env::spawn(async move {
                let deadline = env::now() + Duration::from_secs(10);
                let h = Handshake { socket: &theirs, link: None, deadline };
                if let Some(t) = &settings.tls {
                    h.https(t).await.unwrap();
                }
                h.websocket(&settings, 1 << 20).await.map(|_| ()).unwrap();
            });
            if tls {
                assert!(p.start_tls(&client_config(&pki, None, &[&TLS13])).await);
            }
            p.start_ws(compress).await;
            server.await.unwrap();
            socket.open();
            assert_eq!(socket.layers().lock().held_bytes(), 0);
            let body = payload(50_000);
            p.send(&body).await;
            let mut got = Vec::new();
            while got.len() < body.len() {
                let mut buf = [0; 1000];
                match socket.try_read(&mut buf) {
                    Ok(n) => got.extend_from_slice(&buf[..n]),
                    Err(_) => socket.readable().await.unwrap(),
                }
            }
            assert!(got == body);
            assert_eq!(socket.layers().lock().held_bytes(), 0);
            // A write that the socket cannot take is held, up to the bound (L-9), and let go when it is out.
            let mut written = 0;
            while let Ok(n) = socket.try_write(&[IoSlice::new(&body)]) {
                written += n;
            }
            let held = socket.layers().lock().held_bytes();
            assert!(socket.has_unwritten() && (1..200_000).contains(&held), "{held}");
            // Also if there is always more to write than the other end reads.
            for _ in 0..200 {
                env::select! {
                    _ = socket.writable() => {}
                    _ = p.read(1 << 16) => {}
                }
                while let Ok(n) = socket.try_write(&[IoSlice::new(&body)]) {
                    written += n;
                }
                let held = socket.layers().lock().held_bytes();
                assert!(held < 200_000, "{held}");
            }
            while p.got.len() < written {
                let pending = socket.has_unwritten();
                env::select! {
                    _ = socket.writable(), if pending => drop(socket.try_write(&[])),
                    _ = p.read(1 << 16) => {}
                }
            }
            assert_eq!((p.got.len(), socket.has_unwritten()), (written, false));
            assert_eq!(socket.layers().lock().held_bytes(), 0);
        }
    });
}

#[test]
fn tls_first() {
    let pki = Pki::new();
    let start = |how| {
        let tls = TlsSettings { handshake_first: how, ..pki.tls() };
        Server::start(|s| s.tls = Some(Arc::new(tls)))
    };
    let config = client_config(&pki, None, &[&TLS13]);
    test(async {
        for how in [HandshakeFirst::On, HandshakeFirst::Auto(Duration::from_secs(20))] {
            let s = start(how).await;
            let mut p = Peer::connect(s.client).await;
            assert!(p.start_tls(&config).await);
            let info = p.until("\r\n").await;
            assert!(info.contains("tls_required"));
            p.send(b"PING\r\n").await;
            p.until("PONG\r\n").await;
            assert!(s.only_client().facts.lock().tls_first);
        }
        // Who waits gets INFO after a while.
        let s = start(HandshakeFirst::Auto(Duration::from_millis(20))).await;
        let mut p = Peer::connect(s.client).await;
        let info = p.until("\r\n").await;
        assert!(info.contains("tls_required"));
        assert!(p.start_tls(&config).await);
        p.send(b"PING\r\n").await;
        p.until("PONG\r\n").await;
        assert!(!s.only_client().facts.lock().tls_first);
    });
}

#[test]
fn tls_or_not() {
    let pki = Pki::new();
    test(async {
        let tls = TlsSettings { allow_non_tls: true, ..pki.tls() };
        let s = Server::start(|s| s.tls = Some(Arc::new(tls))).await;
        for piece in [1, usize::MAX] {
            let mut plain = Peer::connect(s.client).await;
            plain.piece = piece;
            let info = plain.until("\r\n").await;
            assert!(info.contains("tls_available") && !info.contains("tls_required"), "{info}");
            plain.send(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await;
            assert_eq!(plain.until("PONG\r\n").await, "PONG\r\n");
            assert!(s.only_client().facts.lock().tls.is_none());
            drop(plain);
            s.closed_for(Closed::ClientClosed).await;
            while !s.cx.clients.is_empty() {
                env::sleep(Duration::from_millis(1)).await;
            }
            let mut p = Peer::connect(s.client).await;
            p.piece = piece;
            p.until("\r\n").await;
            assert!(p.start_tls(&client_config(&pki, None, &[&TLS12])).await);
            p.send(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await;
            assert_eq!(p.until("PONG\r\n").await, "PONG\r\n");
            assert!(s.only_client().facts.lock().tls.is_some());
            drop(p);
            while !s.cx.clients.is_empty() {
                env::sleep(Duration::from_millis(1)).await;
            }
        }
    });
}

#[test]
fn client_certificates() {
    let pki = Pki::new();
    let (mine, other) = (pki.ca.client(), pki.ca.client());
    let stranger = Authority::new("another").client();
    test(async {
        let mut tls = pki.verified();
        let pin = crate::tls::PeerCert::parse(&mine.der).unwrap().spki_sha256;
        tls.pinned_spki_sha256 = BTreeSet::from([pin]);
        for version in [&TLS12, &TLS13] {
            let tls = tls.clone();
            let s = Server::start(|s| s.tls = Some(Arc::new(tls))).await;
            let mut p = Peer::connect(s.client).await;
            assert!(p.until("\r\n").await.contains("\"tls_verify\":true"));
            assert!(p.start_tls(&client_config(&pki, Some(&mine), &[version])).await);
            p.send(b"PING\r\n").await;
            p.until("PONG\r\n").await;
            let certs = s.only_client().facts.lock().tls_peer_certs.clone();
            assert_eq!(certs.len(), 1);
            assert_eq!((certs[0].spki_sha256, &certs[0].emails[..]), (pin, &["a@b.c".to_owned()][..]));
            for (cert, text) in [
                (None, "sent no certificates"),
                (Some(&other), "certificate not pinned"),
                (Some(&stranger), "UnknownIssuer"),
            ] {
                s.log.lock().clear();
                let mut p = Peer::connect(s.client).await;
                p.until("\r\n").await;
                p.start_tls(&client_config(&pki, cert, &[version])).await;
                assert_eq!(p.rest().await, b"");
                s.closed_for(Closed::TlsHandshakeFailure).await;
                let log = s.log.lock().clone();
                assert!(log[0].starts_with("ERR TLS handshake error: ") && log[0].contains(text), "{log:?}");
            }
        }
    });
}

#[test]
fn a_proxy_speaks_first() {
    let pki = Pki::new();
    test(async {
        let limit = Some(Duration::from_secs(10));
        let s = Server::start(|s| s.proxy_protocol = limit).await;
        for (header, ip) in [
            ("PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n", "1.2.3.4"),
            ("PROXY UNKNOWN\r\n", "127.0.0.1"),
            ("", "127.0.0.1"),
        ] {
            for piece in [1, usize::MAX] {
                let mut p = Peer::connect(s.client).await;
                p.piece = piece;
                // INFO comes first, and knows no address yet.
                assert!(!p.until("\r\n").await.contains("client_ip"));
                p.send(format!("{header}CONNECT {{\"verbose\":false}}\r\nPING\r\n").as_bytes()).await;
                assert_eq!(p.until("PONG\r\n").await, "PONG\r\n");
                assert_eq!(s.only_client().peer.ip().to_string(), ip);
                drop(p);
                while !s.cx.clients.is_empty() {
                    env::sleep(Duration::from_millis(1)).await;
                }
            }
        }
        let tls = TlsSettings { handshake_first: HandshakeFirst::On, ..pki.tls() };
        for first in [false, true] {
            let tls = if first { tls.clone() } else { pki.tls() };
            let s = Server::start(|s| (s.proxy_protocol, s.tls) = (limit, Some(Arc::new(tls)))).await;
            let mut p = Peer::connect(s.client).await;
            p.raw(b"PROXY TCP6 ::1 ::2 111 222\r\n").await;
            if !first {
                p.until("\r\n").await;
            }
            assert!(p.start_tls(&client_config(&pki, None, &[&TLS13])).await);
            p.send(b"PING\r\n").await;
            p.until("PONG\r\n").await;
            assert_eq!(s.only_client().peer.to_string(), "[::1]:111");
        }
    });
}
