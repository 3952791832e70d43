//! What happens to those who do not speak, speak nonsense or come too often.

use rustls::version::TLS13;

use super::{
    peer::{Peer, client_config, upgrade},
    *,
};
use crate::{tls::RateLimit, ws::push_frame, ws::tests::client_frame};

const SHORT: Duration = Duration::from_millis(150);

#[test]
fn l3_a_slow_loris_is_closed_in_time() {
    let pki = Pki::new();
    test(async {
        let quick = TlsSettings { timeout: SHORT, ..pki.tls() };
        let wss = |tls| WebSocketSettings { handshake_timeout: SHORT, ..websocket(tls) };
        // What is sent, a byte at a time and never whole.
        let hello = {
            let mut t = rustls::ClientConnection::new(
                client_config(&pki, None, &[&TLS13]),
                "localhost".try_into().unwrap(),
            )
            .unwrap();
            let mut out = Vec::new();
            t.write_tls(&mut out).unwrap();
            out
        };
        for (way, drip) in
            [(0, &hello[..]), (1, upgrade("").as_bytes()), (2, &hello[..]), (3, b"PROXY TCP4 1.2.3.4")]
        {
            for drips in [false, true] {
                let s = Server::start(|s| match way {
                    0 => s.tls = Some(Arc::new(quick.clone())),
                    1 => s.websocket = Some(Arc::new(wss(None))),
                    2 => s.websocket = Some(Arc::new(wss(Some(pki.tls())))),
                    _ => s.proxy_protocol = Some(SHORT),
                })
                .await;
                let mut p = Peer::connect(if matches!(way, 1 | 2) { s.ws } else { s.client }).await;
                let start = env::now();
                if way == 0 || way == 3 {
                    p.until("\r\n").await;
                }
                if drips {
                    for b in &drip[..drip.len().min(15)] {
                        p.raw(&[*b]).await;
                        env::sleep(Duration::from_millis(5)).await;
                    }
                }
                let rest = p.rest().await;
                let took = start.elapsed();
                assert!(SHORT <= took && took < SHORT * 12, "{way} {took:?}");
                let said = String::from_utf8_lossy(&rest).into_owned();
                assert_eq!(said.starts_with("HTTP/1.1 400 Bad Request"), way == 1 && drips, "{said}");
                match way {
                    0 => s.closed_for(Closed::TlsHandshakeFailure).await,
                    3 => s.closed_for(Closed::ProtocolViolation).await,
                    _ => assert!(s.cx.clients.is_empty()),
                }
            }
        }
    });
}

#[test]
fn nonsense_before_tls() {
    let pki = Pki::new();
    test(async {
        let s = Server::start(|s| {
            s.tls = Some(Arc::new(pki.tls()));
            s.websocket = Some(Arc::new(websocket(Some(pki.tls()))));
        })
        .await;
        for (bytes, answer) in [
            // As nats-server 2.15.1: nothing is said to those who do not speak TLS.
            (&b"CONNECT {}\r\nPING\r\n"[..], &b""[..]),
            (b"\x00\x01\x02", b""),
            (b"\x16\x03\x01\xff\xffgarbage", b"\x15\x03"),
            (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"\x15\x03"),
            (b"\x16GET / HTTP/1.1\r\n\r\n", b"\x15\x03"),
        ] {
            let mut p = Peer::connect(s.client).await;
            p.until("\r\n").await;
            p.raw(bytes).await;
            let got = p.rest().await;
            assert!(
                got.starts_with(answer) && got.is_empty() == answer.is_empty(),
                "{bytes:02x?}: {got:02x?}"
            );
            s.closed_for(Closed::TlsHandshakeFailure).await;
        }
        let mut p = Peer::connect(s.ws).await;
        p.raw(upgrade("").as_bytes()).await;
        let said = String::from_utf8(p.rest().await).unwrap();
        assert!(
            said.starts_with("HTTP/1.0 400 Bad Request") && said.contains("to an HTTPS server"),
            "{said}"
        );
        // Records that are not of this session end it.
        let mut p = Peer::connect(s.client).await;
        p.until("\r\n").await;
        assert!(p.start_tls(&client_config(&pki, None, &[&TLS13])).await);
        p.send(b"PING\r\n").await;
        p.until("PONG\r\n").await;
        p.raw(b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").await;
        p.rest().await;
        s.closed_for(Closed::ReadError).await;
    });
}

#[test]
fn too_many() {
    let pki = Pki::new();
    test(async {
        let tls = TlsSettings { rate: Arc::new(RateLimit::new(Some(0))), ..pki.tls() };
        let s = Server::start(|s| s.tls = Some(Arc::new(tls))).await;
        let mut p = Peer::connect(s.client).await;
        let said = String::from_utf8(p.rest().await).unwrap();
        assert!(
            said.ends_with("-ERR 'Connection throttling is active. Please try again later.'\r\n"),
            "{said}"
        );
        s.closed_for(Closed::MaximumConnectionsExceeded).await;
        // One that nothing has been read from yet hears it too.
        let s = Server::start(|s| s.connections_max = Some(0)).await;
        let mut p = Peer::connect(s.client).await;
        let said = String::from_utf8(p.rest().await).unwrap();
        assert!(said.ends_with("\r\n-ERR 'maximum connections exceeded'\r\n"), "{said}");
        s.closed_for(Closed::MaximumConnectionsExceeded).await;
        assert_eq!(*s.log.lock(), ["ERR maximum connections exceeded"]);
        let s = Server::start(|s| {
            s.tls = Some(Arc::new(pki.tls()));
            s.websocket = Some(Arc::new(websocket(None)));
            s.connections_max = Some(0);
        })
        .await;
        let mut p = Peer::connect(s.client).await;
        let said = String::from_utf8(p.rest().await).unwrap();
        assert!(
            said.starts_with("INFO ") && said.ends_with("-ERR 'maximum connections exceeded'\r\n"),
            "{said}"
        );
        let mut p = Peer::connect(s.ws).await;
        p.start_ws(false).await;
        let said = String::from_utf8(p.rest().await).unwrap();
        assert!(
            said.starts_with("INFO ") && said.ends_with("-ERR 'maximum connections exceeded'\r\n"),
            "{said}"
        );
        assert_eq!(p.close_frame()[..4], [0x88, 30, 0x03, 0xf0]);
    });
}

/// Sends frames on a WebSocket and returns what comes until the end: protocol bytes, and the close frame.
async fn websocket_ends(s: &Server, frames: &[u8], compress: bool) -> (String, Vec<u8>, Closed) {
    let mut p = Peer::connect(s.ws).await;
    p.start_ws(compress).await;
    p.until("\r\n").await;
    p.below(frames).await;
    let said = String::from_utf8(p.rest().await).unwrap();
    let reason = s.closed().await.reason;
    (said, p.close_frame().to_vec(), reason)
}

#[test]
fn bad_frames() {
    let mask = Some([9, 8, 7, 6]);
    let close = |status: u16, text: &str| {
        let mut out = Vec::new();
        push_frame(&mut out, 8, false, &[&status.to_be_bytes()[..], text.as_bytes()].concat());
        out
    };
    test(async {
        let ws = websocket(None);
        for (frames, said, closing, reason) in [
            (client_frame(0x82, None, b"PING\r\n"), "", close(1002, "mask bit missing"), Closed::ReadError),
            (
                client_frame(0xb2, mask, b"PING\r\n"),
                "",
                close(1002, "reserved bits are set"),
                Closed::ReadError,
            ),
            (client_frame(0x88, mask, b"\x03\xe8bye"), "", close(1000, "bye"), Closed::ClientClosed),
            (
                client_frame(0x82, mask, &b"X".repeat(5000)),
                "-ERR 'Unknown Protocol Operation'\r\n",
                close(1002, "Protocol Violation"),
                Closed::ProtocolViolation,
            ),
            (
                client_frame(0x82, mask, b"PUB a 99999999\r\n"),
                "-ERR 'Maximum Payload Violation'\r\n",
                close(1009, "Maximum Message Payload Exceeded"),
                Closed::MaximumMessagePayloadExceeded,
            ),
        ] {
            let ws = ws.clone();
            let s = Server::start(|s| s.websocket = Some(Arc::new(ws))).await;
            let (text, frame, why) = websocket_ends(&s, &frames, false).await;
            assert_eq!((text.as_str(), frame, why), (said, closing, reason));
        }
        // A bomb of pings ends before it has gone off.
        let s = Server::start(|s| {
            s.websocket = Some(Arc::new(websocket(None)));
            s.payload_bytes_max = 10_000;
        })
        .await;
        let bomb = crate::ws::tests::deflated(&b"PING\r\n".repeat(1 << 20));
        let (text, frame, why) = websocket_ends(&s, &client_frame(0xc2, mask, &bomb), true).await;
        assert_eq!((frame, why), (close(1009, "maximum payload exceeded"), Closed::ReadError));
        assert!(text.len() < 200_000, "{}", text.len());
    });
}

#[test]
fn a_flood_of_pings_is_answered_within_bounds() {
    test(async {
        let s = Server::start(|s| s.websocket = Some(Arc::new(websocket(None)))).await;
        let mut p = Peer::connect(s.ws).await;
        p.start_ws(false).await;
        p.until("\r\n").await;
        let ping = client_frame(0x89, Some([1, 2, 3, 4]), &[7; 125]);
        let flood = ping.repeat(1000);
        // Nobody reads the answers; the server goes on reading all the same, and keeps few of them.
        for _ in 0..100 {
            p.below(&flood).await;
        }
        p.send(b"SUB a 1\r\n").await;
        let link = s.only_client().link.clone();
        while s.cx.broker.subscriptions() == 0 {
            env::sleep(Duration::from_millis(1)).await;
        }
        assert!(link.closed().is_none());
        p.send(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await;
        p.until("PONG\r\n").await;
    });
}

#[test]
fn http_refusals() {
    test(async {
        let s = Server::start(|s| s.websocket = Some(Arc::new(websocket(None)))).await;
        for (from, to, status) in [
            ("GET / ", "GET /leafnode ", "404 Not Found"),
            ("GET / ", "POST / ", "405 Method Not Allowed"),
            ("Version: 13", "Version: 8", "400 Bad Request"),
            ("GET / ", "\u{1} / ", "400 Bad Request"),
        ] {
            for piece in [1, usize::MAX] {
                let mut p = Peer::connect(s.ws).await;
                p.piece = piece;
                p.raw(upgrade("").replace(from, to).as_bytes()).await;
                let said = String::from_utf8(p.rest().await).unwrap();
                assert!(said.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{said}");
            }
        }
        assert!(s.cx.clients.closed().is_empty());
        // No WebSocket, no service.
        let s = Server::start(|_| {}).await;
        let mut p = Peer::connect(s.ws).await;
        assert_eq!(p.rest().await, b"");
    });
}
