//! Clients that misbehave: a clear error or a disconnect, no panic, nothing that grows without bound, and nobody else is
//! the worse for it.
//!
//! A task that panics leaves its connection in the registry for ever, so each test ends by looking that only the good
//! client is left there.
#![allow(clippy::unwrap_used, clippy::disallowed_macros)]

mod loopback;

use std::{sync::Arc, time::Duration};

use broker::Closed;
use loopback::{CONNECT, Wire, end_of, eventually, with_server};
use server::Server;

/// A sequence that depends on its seed only.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// Subscriptions of clients; the server has some of its own.
fn client_subscriptions(s: &Server) -> usize {
    s.broker.links().iter().map(|l| l.subscriptions()).sum()
}

/// Only `left` connections are left, with as many subscriptions; the good client still gets what it sends itself.
async fn all_is_well(s: &Arc<Server>, good: &mut Wire, left: usize) {
    eventually("the others are gone", || {
        s.links.clients.len() == left && s.broker.connections() == left && client_subscriptions(s) == left
    })
    .await;
    assert_eq!(good.ask("PUB good 2\r\nok\r\n").await, "MSG good 1 2\r\nok\r\n");
}

async fn good_client(s: &Arc<Server>) -> Wire {
    let mut good = Wire::connect(s, CONNECT).await;
    assert_eq!(good.ask("SUB good 1\r\n").await, "");
    good
}

const SCRIPT: &str = "CONNECT {\"verbose\":true,\"pedantic\":true,\"headers\":true,\"no_responders\":true}\r\nPING\r\n\
    SUB a.* q 1\r\nSUB b.> 2\r\nPUB a.b reply 5\r\nhello\r\nHPUB b.c 18 20\r\nNATS/1.0\r\nA: bc\r\n\r\nhi\r\n\
    UNSUB 1 5\r\nUNSUB 2\r\nPONG\r\nPUB nobody answer 0\r\n\r\nPING\r\n";

#[test]
fn random_bytes_and_damaged_scripts_end_the_connection_or_are_refused() {
    with_server("ping_interval: \"60s\"", async |s| {
        let mut good = good_client(&s).await;
        let mut random = Random(0x5eed);
        for round in 0..400 {
            let w = Wire::greeted(&s).await;
            let mut bytes = match round % 4 {
                0 => Vec::new(),
                _ => SCRIPT.as_bytes().to_vec(),
            };
            match round % 4 {
                // Nothing but noise.
                0 => {
                    bytes = {
                        let n = 1 + random.below(4000);
                        random.bytes(n)
                    }
                }
                // Some bytes are others.
                1 => {
                    for _ in 0..1 + random.below(6) {
                        let at = random.below(bytes.len());
                        bytes[at] = random.next() as u8;
                    }
                }
                // A piece is missing.
                2 => {
                    let at = random.below(bytes.len());
                    let n = 1 + random.below(20.min(bytes.len() - at));
                    bytes.drain(at..at + n);
                }
                // A piece is repeated, noise behind it.
                _ => {
                    let at = random.below(bytes.len());
                    let piece = bytes[at..].to_vec();
                    let to = random.below(bytes.len());
                    bytes.splice(to..to, piece);
                    bytes.extend(random.bytes(100));
                }
            }
            w.send(&bytes).await;
            // Whatever it has become: an end of lines makes it whole or wrong.
            w.send("\r\n\r\nnonsense\r\n").await;
            drop(w);
        }
        all_is_well(&s, &mut good, 1).await;
    });
}

#[test]
fn frames_cut_at_any_byte_leave_nothing_behind() {
    with_server("", async |s| {
        let mut good = good_client(&s).await;
        for cut in 0..=SCRIPT.len() {
            let w = Wire::silent(&s).await;
            assert!(w.send(&SCRIPT.as_bytes()[..cut]).await);
        }
        all_is_well(&s, &mut good, 1).await;
    });
}

#[test]
fn what_is_too_long_or_makes_no_sense_is_named() {
    with_server("max_payload: 1000", async |s| {
        let mut good = good_client(&s).await;
        let long = "x".repeat(5000);
        let none = "";
        for (bytes, answer, reason) in [
            (format!("PUB {long}"), "maximum control line exceeded", Closed::MaximumControlLineExceeded),
            (
                format!("SUB foo {long}\r\n"),
                "maximum control line exceeded",
                Closed::MaximumControlLineExceeded,
            ),
            (
                format!("SUB {long} 1\r\n"),
                "maximum control line exceeded",
                Closed::MaximumControlLineExceeded,
            ),
            (
                format!("UNSUB {long}\r\n"),
                "maximum control line exceeded",
                Closed::MaximumControlLineExceeded,
            ),
            ("PUB foo 1001\r\n".into(), "Maximum Payload Violation", Closed::MaximumMessagePayloadExceeded),
            ("PUB foo 99999999999999999999999\r\n".into(), none, Closed::ProtocolViolation),
            ("PUB foo -1\r\n".into(), none, Closed::ProtocolViolation),
            ("PUB foo 1e3\r\n".into(), none, Closed::ProtocolViolation),
            ("PUB foo\r\n".into(), none, Closed::ProtocolViolation),
            ("PUB foo 3\r\nhello\r\n".into(), none, Closed::ProtocolViolation),
            ("SUB foo\r\n".into(), none, Closed::ProtocolViolation),
            ("SUB a b c d\r\n".into(), none, Closed::ProtocolViolation),
            ("NONSENSE\r\n".into(), "Unknown Protocol Operation", Closed::ProtocolViolation),
            ("\u{0}\u{1}\u{2}\u{3}".into(), "Unknown Protocol Operation", Closed::ProtocolViolation),
            ("HPUB foo 20 10\r\n".into(), none, Closed::ProtocolViolation),
            ("HPUB foo -1 10\r\n".into(), none, Closed::ProtocolViolation),
            ("HPUB foo 10\r\n".into(), none, Closed::ProtocolViolation),
            ("PUB foo 2\r\nhello\r\n".into(), "Unknown Protocol Operation", Closed::ProtocolViolation),
            ("RMSG a b 1\r\n".into(), "Unknown Protocol Operation", Closed::ProtocolViolation),
            ("UNSUB\r\n".into(), "Unknown Protocol Operation", Closed::ProtocolViolation),
            ("-ERR\r\n".into(), "Unknown Protocol Operation", Closed::ProtocolViolation),
            ("-ERR 'x'\r\n".into(), none, Closed::ParseError),
            ("INFO x\r\n".into(), none, Closed::ProtocolViolation),
            ("INFO\r\n".into(), none, Closed::ProtocolViolation),
            ("CONNECT\r\n".into(), none, Closed::ProtocolViolation),
            ("CONNECT []\r\n".into(), none, Closed::ProtocolViolation),
            (
                "CONNECT {\"headers\":false,\"no_responders\":false}\r\nHPUB a 2 4\r\nabcd\r\n".into(),
                none,
                Closed::ProtocolViolation,
            ),
            ("CONNECT {\"verbose\":\r\n".into(), none, Closed::ProtocolViolation),
            (
                format!("CONNECT {{\"name\":\"{}\"}}\r\n", "[".repeat(3000)) + "CONNECT [[[[\r\n",
                none,
                Closed::ProtocolViolation,
            ),
            (format!("CONNECT {}\r\n", "[".repeat(4000)), none, Closed::ProtocolViolation),
            (
                "CONNECT {\"protocol\":77}\r\n".into(),
                "invalid client protocol",
                Closed::BadClientProtocolVersion,
            ),
        ] {
            let mut w = Wire::connect(&s, CONNECT).await;
            assert!(w.send(&bytes).await);
            let shown = &bytes[..bytes.len().min(40)];
            // A second CONNECT that is right says so, since it asks for it.
            let words = w.rest().await.replacen("+OK\r\n", "", 1);
            assert_eq!(end_of(&s, w.id).await, reason, "{shown}");
            assert!(words.is_empty() || words.starts_with("-ERR '"), "{shown}: {words:?}");
            assert!(words.contains(answer), "{shown}: {words:?}");
        }
        all_is_well(&s, &mut good, 1).await;
    });
}

#[test]
fn the_longest_line_fits_the_servers_buffers_whatever_is_configured() {
    with_server("max_control_line: 1000000", async |s| {
        let mut good = good_client(&s).await;
        // A sid of 60,000 bytes is a sid.
        let sid = "9".repeat(60_000);
        assert_eq!(
            good.ask(&format!("SUB other {sid}\r\nPUB other 0\r\n\r\n")).await,
            format!("MSG other {sid} 0\r\n\r\n")
        );
        assert_eq!(good.ask(&format!("UNSUB {sid}\r\n")).await, "");
        let mut w = Wire::connect(&s, CONNECT).await;
        w.send(format!("SUB foo {}\r\n", "9".repeat(500_000))).await;
        assert!(w.rest().await.contains("maximum control line exceeded"));
        all_is_well(&s, &mut good, 1).await;
    });
}

#[test]
fn invalid_subjects_are_refused_one_by_one() {
    with_server("", async |s| {
        let mut good = good_client(&s).await;
        let mut w = Wire::connect(&s, CONNECT).await;
        for subject in [".", "..", ".a", "a.", "a..b", ">.a", "a.>.b", "a.>."] {
            assert_eq!(
                w.ask(&format!("SUB {subject} 7\r\n")).await,
                "-ERR 'Invalid Subject'\r\n",
                "{subject}"
            );
        }
        assert_eq!(s.broker.link(w.id).unwrap().subscriptions(), 0);
        // As a subject to publish to they reach nobody; a client that does not ask for leniency is told.
        for subject in [".", "a..b", "*", ">", "a.*"] {
            let answer = w.ask(&format!("PUB {subject} 0\r\n\r\n")).await;
            assert_eq!(answer, "-ERR 'Invalid Publish Subject'\r\n", "{subject}");
        }
        for subject in ["\u{7f}", "ü", "a*b", "a>"] {
            assert_eq!(w.ask(&format!("PUB {subject} 0\r\n\r\n")).await, "", "{subject}");
        }
        drop(w);
        all_is_well(&s, &mut good, 1).await;
    });
}

#[test]
fn garbage_in_headers_is_passed_on_and_understood_by_nobody() {
    with_server("", async |s| {
        let mut good = good_client(&s).await;
        let mut random = Random(77);
        for round in 0..200 {
            let n = 1 + random.below(300);
            let header: String = random.bytes(n).iter().map(|b| char::from(b & 0x7f)).collect();
            let frame = format!("HPUB good {n} {}\r\n{header}hi\r\n", n + 2);
            let answer = good.ask(&frame).await;
            let got = answer.replace("PING\r\n", "");
            let want = format!("HMSG good 1 {n} {}\r\n{header}hi\r\n", n + 2).replace("PING\r\n", "");
            assert_eq!(got, want, "round {round}");
        }
        all_is_well(&s, &mut good, 1).await;
    });
}

#[test]
fn subscriptions_over_the_limit_are_refused_and_unsub_storms_cost_nothing() {
    with_server("max_subscriptions: 100", async |s| {
        let mut good = good_client(&s).await;
        let mut w = Wire::connect(&s, CONNECT).await;
        let storm: String = (0..5000).map(|n| format!("SUB s.{n} {n}\r\n")).collect();
        let answer = w.ask(&storm).await;
        assert_eq!(answer.matches("-ERR 'maximum subscriptions exceeded'\r\n").count(), 4900);
        let link = s.broker.link(w.id).unwrap();
        assert_eq!((link.subscriptions(), client_subscriptions(&s)), (100, 101));
        // The same sid again and again is one subscription, and refused like others where there is no room.
        let same: String = (0..5000).map(|_| "SUB s.0 0\r\n").collect();
        let answer = w.ask(&same).await;
        assert_eq!(answer.matches("-ERR 'maximum subscriptions exceeded'\r\n").count(), 5000);
        assert_eq!(link.subscriptions(), 100);
        let storm: String = (0..20_000).map(|n| format!("UNSUB {} {}\r\n", n % 7000, n % 3)).collect();
        assert_eq!(w.ask(&storm).await, "");
        assert_eq!(w.ask(&(0..100).map(|n| format!("UNSUB {n}\r\n")).collect::<String>()).await, "");
        assert_eq!((link.subscriptions(), client_subscriptions(&s)), (0, 1));
        drop(w);
        all_is_well(&s, &mut good, 1).await;
    });
}

#[test]
fn a_client_that_stops_reading_is_closed_and_others_get_everything() {
    const MAX: usize = 1 << 20;
    const MESSAGE: usize = 64 << 10;
    with_server("max_pending: 1048576\nwrite_deadline: \"60s\"", async |s| {
        let mut good = good_client(&s).await;
        let stuck = Wire::connect(&s, CONNECT).await;
        stuck.send("SUB good 1\r\nPING\r\n").await;
        let link = s.broker.link(stuck.id).unwrap();
        eventually("it subscribes", || link.subscriptions() == 1).await;
        let message = format!("PUB good {MESSAGE}\r\n{}\r\n", "x".repeat(MESSAGE));
        let mut rounds = 0;
        while link.closed().is_none() {
            // Each message arrives at the one who reads, while the other's outbox fills up to its limit and no further.
            assert_eq!(good.ask(&message).await.len(), message.len() + 2);
            assert!(link.pending_bytes() <= MAX + message.len(), "{}", link.pending_bytes());
            rounds += 1;
            assert!(rounds < 2000, "kernel buffers do not hold that much");
        }
        assert_eq!(end_of(&s, stuck.id).await, Closed::SlowConsumerPendingBytes);
        assert_eq!((link.pending_bytes(), s.broker.stats.slow_consumers.get()), (0, 1));
        all_is_well(&s, &mut good, 1).await;
    });
}

#[test]
fn a_client_that_asks_and_does_not_read_the_answers_is_closed() {
    const MAX: usize = 1 << 20;
    with_server("max_pending: 1048576\nwrite_deadline: \"60s\"", async |s| {
        let mut good = good_client(&s).await;
        let asker = Wire::connect(&s, CONNECT).await;
        let link = s.broker.link(asker.id).unwrap();
        let pings = "PING\r\n".repeat(10_000);
        let mut sent = 0;
        while link.closed().is_none() && asker.send(&pings).await {
            sent += pings.len();
            assert!(link.pending_bytes() <= 2 * MAX, "{}", link.pending_bytes());
            assert!(sent < 1 << 30, "kernel buffers do not hold that much");
        }
        assert_eq!(end_of(&s, asker.id).await, Closed::SlowConsumerPendingBytes);
        all_is_well(&s, &mut good, 1).await;
    });
}

#[test]
fn half_a_frame_is_waited_for_no_longer_than_an_idle_client() {
    with_server("ping_interval: \"100ms\"\nping_max: 2", async |s| {
        for half in [
            "PUB foo 100\r\nhello",
            "PUB fo",
            "PUB foo 1000000\r\nx",
            "HPUB foo 12 900000\r\nNATS",
            "C",
            "SUB a",
        ] {
            let mut w = Wire::connect(&s, CONNECT).await;
            assert!(w.send(half).await);
            let words = w.rest().await;
            assert!(words.ends_with("PING\r\n-ERR 'Stale Connection'\r\n"), "{half}: {words:?}");
            assert_eq!(end_of(&s, w.id).await, Closed::StaleConnection);
        }
        eventually("nothing is left", || s.broker.connections() == 0).await;
    });
}

/// A PONG may lie behind a long upload.
#[test]
fn who_sends_messages_is_not_stale_whenever_it_answers_pings() {
    with_server("ping_interval: \"100ms\"\nping_max: 1", async |s| {
        let mut w = Wire::connect(&s, CONNECT).await;
        for _ in 0..50 {
            assert!(w.send("PUB foo 2\r\nhi\r\n").await);
            env::sleep(Duration::from_millis(20)).await;
            assert!(s.broker.link(w.id).is_some_and(|l| l.closed().is_none()));
        }
        let words = w.rest().await;
        assert!(words.ends_with("PING\r\n-ERR 'Stale Connection'\r\n"), "{words:?}");
    });
}

#[test]
fn a_login_byte_by_byte_ends_at_the_timeout() {
    with_server("authorization { user: a, password: x, timeout: \"300ms\" }", async |s| {
        let mut w = Wire::greeted(&s).await;
        let start = env::now();
        let mut connect = loopback::with_user("a", "x").into_bytes().into_iter().cycle();
        // No line ever ends: each byte is progress, and does not count as a login.
        while s.broker.link(w.id).is_some() {
            w.send_some(&[connect.next().unwrap()]);
            env::sleep(Duration::from_millis(20)).await;
            assert!(start.elapsed() < loopback::PATIENCE, "it is never closed");
        }
        assert_eq!(end_of(&s, w.id).await, Closed::AuthenticationTimeout);
        assert!(w.rest().await.contains("-ERR 'Authentication Timeout'"));
        // In time, it is a login like any other.
        let mut w = Wire::greeted(&s).await;
        for byte in format!("{}\r\nPING\r\n", loopback::with_user("a", "x")).bytes() {
            assert!(w.send([byte]).await);
        }
        w.until("PONG\r\n").await;
    });
}

#[test]
fn ten_thousand_silent_connections_are_bounded_and_end_at_the_timeout() {
    with_server("authorization { user: a, password: x, timeout: 3 }", async |s| {
        // Both ends are in this process: two descriptors each, and some for everybody else.
        let descriptors = env::process::raise_open_file_limit().unwrap();
        let n = 10_000.min((descriptors.saturating_sub(500) / 2) as usize);
        if n < 10_000 {
            eprintln!("{n} connections: this system allows {descriptors} open files");
        }
        let before = env::process::rss_bytes();
        let mut all = Vec::with_capacity(n);
        let mut most = 0;
        for _ in 0..n {
            all.push(Wire::silent(&s).await);
            most = most.max(s.broker.connections());
        }
        let bytes = env::process::rss_bytes().saturating_sub(before) / n as u64;
        // Tasks are larger without optimisation, and the clients' ends are counted as well.
        assert!(bytes < 24 << 10, "{bytes} bytes for each connection");
        // Silence is no reason to make others wait.
        let mut good = Wire::connect(&s, &loopback::with_user("a", "x")).await;
        assert_eq!(good.ask("SUB good 1\r\n").await, "");
        let timed_out =
            || s.links.clients.closed().iter().filter(|c| c.reason == Closed::AuthenticationTimeout).count();
        eventually("all are closed", || s.broker.connections() == 1).await;
        assert_eq!(timed_out(), n, "at most {most} at a time");
        let mut last = all.pop().unwrap();
        assert!(last.rest().await.ends_with("-ERR 'Authentication Timeout'\r\n"));
        all_is_well(&s, &mut good, 1).await;
    });
}

#[test]
fn what_go_takes_is_taken() {
    with_server("", async |s| {
        for (connect, name) in [
            (&b"CONNECT {\"name\":\"caf\xe9\"}"[..], "caf\u{fffd}"),
            (&br#"CONNECT {"name":"\ud800"}"#[..], "\u{fffd}"),
            (&b"CONNECT null"[..], ""),
            (&b"CONNECT{}"[..], ""),
            (&b"INFO {}\r\nCONNECT {}"[..], ""),
        ] {
            let mut w = Wire::greeted(&s).await;
            assert!(w.send([connect, b"\r\n"].concat()).await);
            assert_eq!(w.until("\r\n").await, "+OK\r\n");
            assert_eq!(s.links.clients.get(w.id).unwrap().facts.lock().name, name);
        }
    });
    with_server("authorization { user: a, password: x }", async |s| {
        let mut w = Wire::greeted(&s).await;
        assert!(w.send("INFO {}\r\n").await);
        assert_eq!(w.rest().await, "-ERR 'Authorization Violation'\r\n");
    });
}

#[test]
fn who_is_refused_by_its_connect_is_named() {
    with_server("", async |s| {
        for (connect, reason) in [
            (r#"{"protocol":3,"name":"P","user":"u"}"#, Closed::BadClientProtocolVersion),
            (r#"{"no_responders":true,"name":"P","user":"u"}"#, Closed::NoRespondersRequiresHeaders),
        ] {
            let mut w = Wire::greeted(&s).await;
            assert!(w.send(format!("CONNECT {connect}\r\n")).await);
            w.rest().await;
            assert_eq!(end_of(&s, w.id).await, reason);
            let closed = s.links.clients.closed();
            let facts = &closed.iter().find(|c| c.id == w.id).unwrap().facts;
            assert_eq!((&*facts.name, &*facts.user), ("P", "u"));
        }
    });
}

#[test]
fn the_verbose_are_told_of_a_publish_before_what_it_causes() {
    with_server("", async |s| {
        let mut w = Wire::greeted(&s).await;
        // Nothing was said yet: verbose and pedantic.
        let mut ask = async |bytes: &str| {
            assert!(w.send(format!("{bytes}PING\r\n")).await);
            w.until("PONG\r\n").await
        };
        assert_eq!(ask("SUB a 1\r\nPUB a 1\r\nx\r\n").await, "+OK\r\n+OK\r\nMSG a 1 1\r\nx\r\nPONG\r\n");
        assert_eq!(ask("PUB a..b 1\r\nx\r\n").await, "-ERR 'Invalid Publish Subject'\r\n+OK\r\nPONG\r\n");
    });
}

#[test]
fn a_member_of_a_queue_group_hears_nothing_of_absent_responders() {
    with_server("", async |s| {
        let mut w = Wire::connect(&s, CONNECT).await;
        assert_eq!(w.ask("SUB rep q 9\r\nPUB nobody rep 1\r\nx\r\n").await, "");
        let answer = w.ask("SUB rep 8\r\nPUB nobody rep 1\r\nx\r\n").await;
        assert_eq!(answer, "HMSG rep 8 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n");
    });
}
