use proptest::prelude::*;

use super::{info::*, *};

const SHARED: Limits = Limits { max_control_line: 65536, max_payload: 1 << 20, pinned: false };
const PINNED: Limits = Limits { pinned: true, ..SHARED };

fn msg<'a>(text: &'a str, limits: &Limits) -> Msg<'a> {
    match parse(text.as_bytes(), limits) {
        Ok(Parsed::Op { op: Op::Msg(m), used }) if used == text.len() => m,
        other => panic!("{text:?}: {other:?}"),
    }
}

/// account, subject, reply, queues, header, payload
fn parts<'a>(m: &Msg<'a>) -> [&'a str; 6] {
    let body = &m.body_crlf[..m.body_crlf.len() - 2];
    [m.account, m.subject, m.reply, m.queues, &body[..m.header_len], &body[m.header_len..]]
        .map(|p| str::from_utf8(p).unwrap())
}

// The lines are those that two nats-servers 2.15.1 exchanged.
#[test]
fn messages() {
    for (text, expected) in [
        ("RMSG A foo 2\r\nhi\r\n", ["A", "foo", "", "", "", "hi"]),
        ("RMSG A foo r 2\r\nhi\r\n", ["A", "foo", "r", "", "", "hi"]),
        ("RMSG A bar | q 2\r\nhi\r\n", ["A", "bar", "", "q", "", "hi"]),
        ("RMSG A bar + rp q1 q2 2\r\nhi\r\n", ["A", "bar", "rp", "q1 q2", "", "hi"]),
        ("RMSG A bar + 2\r\nhi\r\n", ["A", "bar", "+", "", "", "hi"]),
        ("HMSG A foo rr 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", ["A", "foo", "rr", "", "NATS/1.0\r\n\r\n", "hi"]),
        ("HMSG A bar | q 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", ["A", "bar", "", "q", "NATS/1.0\r\n\r\n", "hi"]),
        ("rmsg\tA  foo \t0\n\r\n", ["A", "foo", "", "", "", ""]),
    ] {
        assert_eq!(parts(&msg(text, &SHARED)), expected, "{text:?}");
    }
    assert_eq!(parts(&msg("RMSG foo 2\r\nhi\r\n", &PINNED)), ["", "foo", "", "", "", "hi"]);
    assert_eq!(parts(&msg("RMSG foo + r q 2\r\nhi\r\n", &PINNED)), ["", "foo", "r", "q", "", "hi"]);
}

#[test]
fn interest_of_others() {
    let sub = |text: &str, limits: &Limits| match parse(text.as_bytes(), limits) {
        Ok(Parsed::Op { op: Op::Sub(i) | Op::Unsub(i), .. }) => format!(
            "{} {} {} {}",
            String::from_utf8_lossy(i.account),
            String::from_utf8_lossy(i.subject),
            String::from_utf8_lossy(i.queue),
            i.weight
        ),
        other => format!("{other:?}"),
    };
    assert_eq!(sub("RS+ A foo\r\n", &SHARED), "A foo  1");
    assert_eq!(sub("RS+ A bar q 7\r\n", &SHARED), "A bar q 7");
    assert_eq!(sub("RS+ A bar q 0\r\n", &SHARED), "A bar q 1");
    assert_eq!(sub("RS- A bar q\r\n", &SHARED), "A bar q 1");
    assert_eq!(sub("RS+ bar q 7\r\n", &PINNED), " bar q 7");
    // As a nats-server repeats it when our permissions have changed.
    assert_eq!(sub("RS+ A bar q \r\n", &SHARED), "A bar q 1");
    for bad in ["RS+ A\r\n", "RS+ A b q x\r\n", "RS+ A b q 1 2\r\n", "RS- A b q 1\r\n"] {
        assert_eq!(parse(bad.as_bytes(), &SHARED), Err(Error::Arguments), "{bad:?}");
    }
}

#[test]
fn what_is_no_protocol() {
    for (bad, e) in [
        ("PUB x 1\r\nx\r\n", Error::Unknown),
        ("FOO\r\n", Error::Unknown),
        ("RMSGX A b 1\r\n", Error::Unknown),
        ("RMSG A 1\r\n", Error::Arguments),
        ("RMSG A b x\r\n", Error::Arguments),
        ("RMSG A b c d 1\r\n", Error::Arguments),
        ("HMSG A b 5 4\r\n", Error::Arguments),
        ("HMSG A b 5\r\n", Error::Arguments),
        ("RMSG A b + c 1\r\nx\r\n", Error::Arguments),
        ("RMSG A b 1048577\r\n", Error::PayloadTooLarge(1_048_577)),
        ("RMSG A b 1\r\nxyz", Error::Unknown),
    ] {
        assert_eq!(parse(bad.as_bytes(), &SHARED), Err(e), "{bad:?}");
    }
}

#[test]
fn heads() {
    let line = |h: &RouteHead, account: &str, queues: &str| {
        let mut v = Vec::new();
        h.push(account.as_bytes(), queues.as_bytes(), &mut v);
        assert_eq!(v.len(), h.len(account.as_bytes(), queues.as_bytes()));
        String::from_utf8(v).unwrap()
    };
    let mut h = RouteHead::default();
    h.set(b"foo", None, b"", None, 2);
    assert_eq!(line(&h, "A", ""), "RMSG A foo 2\r\n");
    assert_eq!(line(&h, "", "q "), "RMSG foo | q 2\r\n");
    h.set(b"foo", None, b"r", Some(12), 14);
    assert_eq!(line(&h, "A", ""), "HMSG A foo r 12 14\r\n");
    assert_eq!(line(&h, "A", "q p "), "HMSG A foo + r q p 12 14\r\n");
    h.set(b"inbox", Some(b"orders.1"), b"$JS.ACK.x", None, 0);
    assert_eq!(line(&h, "A", ""), "RMSG A inbox $JS.ACK.x@orders.1 0\r\n");
    assert_eq!(split_shown(b"$JS.ACK.x@orders.1"), (&b"$JS.ACK.x"[..], Some(&b"orders.1"[..])));
    assert_eq!(split_shown(b"me@home"), (&b"me@home"[..], None));
    assert_eq!(split_shown(b"@orders"), (&b"@orders"[..], None));
    let mut out = Vec::new();
    push_interest(&mut out, true, b"A", b"foo q", Some(3));
    push_interest(&mut out, false, b"A", b"foo q", Some(3));
    push_interest(&mut out, true, b"", b"foo", None);
    assert_eq!(out, b"RS+ A foo q 3\r\nRS- A foo q\r\nRS+ foo\r\n");
}

#[test]
fn objects() {
    let info = RouteInfo {
        server_id: "N".into(),
        port: 6222,
        route_pool_size: 3,
        route_pool_idx: 1,
        import: Some(Subjects { allow: vec![], deny: vec!["no.>".into()] }),
        ..RouteInfo::default()
    };
    let mut out = Vec::new();
    info.push(&mut out);
    let Ok(Parsed::Op { op: Op::Info(json), .. }) = parse(&out, &SHARED) else { panic!("{out:?}") };
    assert_eq!(RouteInfo::parse(json).unwrap(), info);
    let odd = br#"{"server_id":"X","connect_urls":null,"lnoc":true,"port":99999999}"#;
    assert_eq!(RouteInfo::parse(odd).unwrap().port, 99_999_999);
    assert!(RouteInfo::parse(b"[]").is_err() && RouteInfo::parse(br#"{"port":"x"}"#).is_err());
    let c = RouteConnect { user: "u".into(), pass: "secret".into(), ..RouteConnect::default() };
    let mut out = Vec::new();
    c.push(&mut out);
    let Ok(Parsed::Op { op: Op::Connect(json), .. }) = parse(&out, &SHARED) else { panic!("{out:?}") };
    assert_eq!(RouteConnect::parse(json).unwrap(), c);
    assert!(!format!("{c:?}").contains("secret"));
    // Where nats-server 2.15.1 put these accounts.
    assert_eq!((pool_index(b"A", 3), pool_index(b"$G", 3), pool_index(b"$G", 5)), (0, 2, 3));
}

proptest! {
    #[test]
    fn w1_any_split_gives_the_same(
        ops in prop::collection::vec(
            prop::sample::select(vec![
                "RMSG A foo 2\r\nhi\r\n", "RMSG A bar + rp q1 q2 2\r\nhi\r\n", "RS+ A b q 3\r\n", "RS- A b\r\n",
                "HMSG A foo rr 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", "PING\r\n", "INFO {}\r\n", "+OK\r\n", "RMSG A x 0\r\n\r\n",
            ]), 0..8),
        cut in 0usize..200,
    ) {
        let text = ops.concat();
        let read = |pieces: &[&[u8]]| {
            let (mut buf, mut seen) = (Vec::new(), Vec::new());
            for p in pieces {
                buf.extend_from_slice(p);
                while let Ok(Parsed::Op { op, used }) = parse(&buf, &SHARED) {
                    seen.push(format!("{op:?}"));
                    buf.drain(..used);
                }
            }
            (seen, buf)
        };
        let (a, b) = text.as_bytes().split_at(cut.min(text.len()));
        let (whole, rest) = read(&[text.as_bytes()]);
        prop_assert_eq!(whole.len(), ops.len());
        prop_assert!(rest.is_empty());
        prop_assert_eq!(read(&[a, b]).0, whole);
    }

    #[test]
    fn w2_no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..64), verb in 0usize..5, pinned: bool) {
        let mut text = [&b"RMSG "[..], b"HMSG ", b"RS+ ", b"RS- ", b""][verb].to_vec();
        text.extend(bytes);
        let limits = Limits { pinned, ..SHARED };
        if let Ok(Parsed::Op { used, .. }) = parse(&text, &limits) {
            prop_assert!(used > 0 && used <= text.len());
        }
    }
}
