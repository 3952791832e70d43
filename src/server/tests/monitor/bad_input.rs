//! Peers that break the rules, by mistake or on purpose.

use std::time::Duration;

use crate::support::{Http, Wire, with_server};

const CONFIG: &str = "PORTS";

#[test]
fn garbage_is_refused_and_the_server_lives() {
    with_server(CONFIG, async |s| {
        let at = s.bound.lock().http.unwrap();
        let mut noise = 1u64;
        for (sent, status) in [
            ("GARBAGE\r\n\r\n".to_string(), "HTTP/1.1 400 "),
            ("\u{0}\u{1}\u{2}\r\n".to_string(), "HTTP/1.1 400 "),
            ("GET / HTTP/1.1\r\n\r\n".to_string(), "HTTP/1.1 400 Bad Request: missing required Host header"),
            ("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), "HTTP/1.1 400 "),
            (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20)), "HTTP/1.1 431 "),
            (format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(1000)), "HTTP/1.1 431 "),
            ("GET / HTTP/7.7\r\nHost: x\r\n\r\n".to_string(), "HTTP/1.1 505 "),
        ] {
            let mut w = Wire::connect(at).await;
            w.send(&sent).await;
            let answer = w.rest().await;
            assert!(answer.starts_with(status), "{:?}: {answer:?}", &sent[..sent.len().min(40)]);
        }
        for _ in 0..100 {
            let bytes: Vec<u8> = (0..200)
                .map(|_| {
                    noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (noise >> 33) as u8
                })
                .collect();
            let w = Wire::connect(at).await;
            w.send(bytes).await;
        }
        assert_eq!(Http::connect(&s).await.get("/healthz").await.status, 200);
    });
}

#[test]
fn methods_and_paths() {
    with_server(CONFIG, async |s| {
        let mut http = Http::connect(&s).await;
        http.0.send("HEAD /varz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let head = http.answer(false).await;
        assert_eq!(head.status, 200);
        assert!(head.headers["content-length"].parse::<usize>().unwrap() > 1000);
        // The connection stays in step: no body came with it.
        for path in ["/nothing", "/VARZ", "/varz/", "//varz", "/varz%00"] {
            let a = http.get(path).await;
            assert_eq!((a.status, &*a.body), (404, "404 page not found\n"), "{path}");
        }
        assert_eq!(http.get("http://other/%76arz").await.status, 200);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            http.0.send(format!("{method} /varz HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            let a = http.answer(true).await;
            assert_eq!((a.status, &*a.headers["allow"]), (405, "GET, HEAD"), "{method}");
        }
        // A body is not read: the connection ends, and what follows is not taken for a request.
        let body = "GET /varz HTTP/1.1\r\nHost: x\r\n\r\n";
        http.0
            .send(format!("GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
            .await;
        let rest = http.0.rest().await;
        assert!(rest.ends_with("Connection: close\r\n\r\n{\"status\":\"ok\"}"), "{rest}");
    });
}

#[test]
fn http_1_0_and_close() {
    with_server(CONFIG, async |s| {
        let at = s.bound.lock().http.unwrap();
        for (head, version, says_so) in [
            ("GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK", false),
            ("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK", true),
        ] {
            let mut w = Wire::connect(at).await;
            w.send(head).await;
            let rest = w.rest().await;
            assert!(rest.starts_with(version) && rest.contains("Connection: close\r\n") == says_so, "{rest}");
        }
        let mut http = Http(Wire::connect(at).await);
        for _ in 0..2 {
            http.0.send("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
            assert_eq!(http.answer(true).await.headers["connection"], "keep-alive");
        }
    });
}

#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    with_server(CONFIG, async |s| {
        let mut http = Http::connect(&s).await;
        let all: String = (0..1000)
            .map(|i| {
                format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", if i % 3 == 0 { "healthz" } else { "raftz" })
            })
            .collect();
        assert!(http.0.send(all).await);
        for i in 0..1000 {
            assert_eq!(http.answer(true).await.status, if i % 3 == 0 { 200 } else { 404 }, "{i}");
        }
    });
}

#[test]
fn m2_who_trickles_is_cut_off() {
    with_server(CONFIG, async |s| {
        let at = s.bound.lock().http.unwrap();
        let begun = env::now();
        let mut w = Wire::connect(at).await;
        w.send("GET /healthz HTTP/1.1\r\nHost: x\r\n").await;
        // A header line now and then does not move the deadline.
        let mut lines = 0;
        while w.send("A: b\r\n").await {
            assert!(begun.elapsed() < Duration::from_secs(15), "still there after {lines} lines");
            lines += 1;
            env::sleep(Duration::from_millis(100)).await;
        }
        assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
        assert!(!w.rest().await.contains("200 OK"));
        assert_eq!(Http::connect(&s).await.get("/healthz").await.status, 200);
    });
}

#[test]
fn m2_connections_are_bounded() {
    with_server(CONFIG, async |s| {
        let at = s.bound.lock().http.unwrap();
        let mut held = Vec::new();
        for _ in 0..256 {
            let mut http = Http::connect(&s).await;
            assert_eq!(http.get("/healthz").await.status, 200);
            held.push(http);
        }
        let mut one_more = Wire::connect(at).await;
        assert!(one_more.rest().await.starts_with("HTTP/1.1 503 "));
        held.clear();
        let mut again = false;
        let deadline = env::now() + Duration::from_secs(10);
        while !again && env::now() < deadline {
            let mut w = Wire::connect(at).await;
            w.send("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            again = w.rest().await.starts_with("HTTP/1.1 200 ");
        }
        assert!(again, "room is made when others leave");
    });
}

#[test]
fn listeners_end_with_the_server() {
    with_server(CONFIG, async |s| {
        let mut http = Http::connect(&s).await;
        assert_eq!(http.get("/healthz").await.status, 200);
        s.stop();
        assert_eq!(http.0.rest().await, "");
    });
}
