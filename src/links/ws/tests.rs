use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::{upgrade::accept, *};

/// A frame as a client sends it.
pub(crate) fn client_frame(head: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_frame(&mut out, 0, false, payload);
    out[0] = head;
    if let Some(mask) = mask {
        out[1] |= 0x80;
        let at = out.len() - payload.len();
        out.splice(at..at, mask);
        for (i, b) in out[at + 4..].iter_mut().enumerate() {
            *b ^= mask[i % 4];
        }
    }
    out
}

pub(crate) fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 1024);
    let mut c = Compress::new(Compression::best(), false);
    loop {
        out.reserve(1024);
        c.compress_vec(&payload[c.total_in() as usize..], &mut out, FlushCompress::Sync).unwrap();
        if c.total_in() as usize == payload.len() && out.len() < out.capacity() {
            break;
        }
    }
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
    out.truncate(out.len() - 4);
    out
}

const MASK: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

/// Decodes in pieces of `splits` bytes (the last is repeated) with room for `room` bytes at a time.
fn decode(
    decoder: &mut Decoder,
    mut input: &[u8],
    splits: &[usize],
    room: usize,
) -> (Vec<u8>, Vec<u8>, Result<(), Violation>) {
    let (mut all, mut replies, mut splits) = (Vec::new(), Vec::new(), splits.iter().copied());
    let mut split = 1;
    loop {
        split = splits.next().unwrap_or(split).max(1);
        let mut piece = &input[..split.min(input.len())];
        input = &input[piece.len()..];
        loop {
            let mut out = vec![0; room];
            match decoder.decode(piece, &mut out, &mut replies) {
                Ok((used, made)) => {
                    all.extend_from_slice(&out[..made]);
                    piece = &piece[used..];
                    if made == 0 && !decoder.has_more() {
                        assert!(piece.is_empty(), "the decoder is stuck with {} bytes", piece.len());
                        break;
                    }
                }
                Err(v) => return (all, replies, Err(v)),
            }
        }
        if input.is_empty() {
            return (all, replies, Ok(()));
        }
    }
}

fn whole(compress: bool, input: &[u8]) -> (Vec<u8>, Vec<u8>, Result<(), Violation>) {
    decode(&mut Decoder::new(true, compress, 1 << 20), input, &[input.len()], 1 << 20)
}

#[test]
fn frames_become_bytes() {
    let f = |head, payload: &[u8]| client_frame(head, MASK, payload);
    let all = [
        f(0x82, b"PING\r\n"),
        f(0x81, b"text is as good"),
        f(0x02, b"PI"),
        f(0x89, b"in between"),
        f(0x00, b""),
        f(0x80, b"NG\r\n"),
        f(0x8a, b"unasked"),
        f(0x82, &[7; 200]),
        f(0x82, &[8; 70_000]),
    ]
    .concat();
    let (bytes, replies, end) = whole(false, &all);
    assert_eq!(end, Ok(()));
    assert_eq!(replies, b"\x8a\x0ain between");
    assert!(bytes == [b"PING\r\ntext is as goodPING\r\n".to_vec(), vec![7; 200], vec![8; 70_000]].concat());
}

#[test]
fn compressed_messages() {
    let f = |head, payload: &[u8]| client_frame(head, MASK, payload);
    let text: Vec<u8> = (0..9000u32).flat_map(|i| i.to_string().into_bytes()).collect();
    let z = deflated(&text);
    let (a, b) = z.split_at(z.len() / 3);
    let mut final_block = Vec::with_capacity(1000);
    Compress::new(Compression::fast(), false)
        .compress_vec(b"PING\r\n", &mut final_block, FlushCompress::Finish)
        .unwrap();
    let all = [
        f(0xc2, &deflated(b"PING\r\n")),
        f(0x42, a),
        f(0x89, b"x"),
        f(0x80, b),
        f(0x82, b"clear"),
        f(0xc2, &final_block),
        f(0xc2, &deflated(b"PONG\r\n")),
    ]
    .concat();
    let expected = [b"PING\r\n", &text[..], b"clearPING\r\nPONG\r\n"].concat();
    for (splits, room) in
        [(vec![all.len()], 1 << 20), (vec![1], 1), (vec![7, 1000], 33), (vec![all.len()], 1)]
    {
        let mut d = Decoder::new(true, true, 1 << 20);
        let (bytes, replies, end) = decode(&mut d, &all, &splits, room);
        assert_eq!(end, Ok(()));
        assert_eq!(replies, b"\x8a\x01x");
        assert!(bytes == expected);
        assert!(!d.has_more());
    }
}

#[test]
fn l7_a_bomb_is_bounded() {
    let bomb = client_frame(0xc2, MASK, &deflated(&vec![0; 10 << 20]));
    assert!(bomb.len() < 20_000);
    let mut d = Decoder::new(true, true, 50_000);
    let mut out = vec![0; 4096];
    let (mut at, mut made, mut replies) = (0, 0, Vec::new());
    let end = loop {
        match d.decode(&bomb[at..], &mut out, &mut replies) {
            Ok((u, m)) => (at, made) = (at + u, made + m),
            Err(v) => break v,
        }
    };
    assert_eq!(end.status, status::TOO_BIG);
    assert!(made <= 50_000, "{made}");
    let ok = client_frame(0xc2, MASK, &deflated(&[0; 50_000]));
    assert_eq!(decode(&mut Decoder::new(true, true, 50_000), &ok, &[ok.len()], 999).2, Ok(()));
}

#[test]
fn violations() {
    let f = |head, payload: &[u8]| client_frame(head, MASK, payload);
    let mut huge = f(0x82, b"");
    huge.splice(1..2, [0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    let mut long_ping = f(0x89, b"");
    long_ping.splice(1..2, [0xfe, 0, 5]);
    for (input, code) in [
        (client_frame(0x82, None, b"x"), 1002),
        (f(0xa2, b"x"), 1002),
        (f(0x92, b"x"), 1002),
        (f(0x83, b"x"), 1002),
        (f(0x8b, b"x"), 1002),
        (f(0x89, &[0; 126]), 1002),
        (long_ping, 1002),
        (f(0x09, b"x"), 1002),
        (f(0xc9, b"x"), 1002),
        (f(0x80, b"x"), 1002),
        ([f(0x02, b"x"), f(0x82, b"x")].concat(), 1002),
        ([f(0x02, b"x"), f(0xc0, b"x")].concat(), 1002),
        (f(0xc2, &[0xff; 9]), 1007),
        (f(0x88, b"x"), 1002),
        (f(0x88, &999u16.to_be_bytes()), 1002),
        (f(0x88, b"\x03\xe8\xff\xff"), 1007),
        (huge, 1002),
    ] {
        let (_, _, end) = whole(true, &input);
        assert_eq!(end.unwrap_err().status, code, "{input:02x?}");
        assert!(decode(&mut Decoder::new(true, true, 1 << 20), &input, &[1], 1).2.is_err());
    }
    // RSV1 belongs to compression only.
    assert!(whole(false, &f(0xc2, &deflated(b"x"))).2.is_err());
    // Without masking a masked frame is wrong.
    let mut d = Decoder::new(false, false, 1);
    assert_eq!(decode(&mut d, &client_frame(0x82, None, b"x"), &[3], 9).0, b"x");
    assert!(decode(&mut d, &f(0x82, b"x"), &[9], 9).2.is_err());
}

#[test]
fn a_close_ends_it() {
    for body in [&b""[..], b"\x03\xe8bye", b"\x0b\xb8"] {
        let input = [client_frame(0x88, MASK, body), client_frame(0x82, MASK, b"late")].concat();
        let (bytes, replies, end) = whole(false, &input);
        assert_eq!((bytes, end), (vec![], Ok(())));
        assert_eq!(replies, [&[0x88, body.len() as u8], body].concat());
    }
    let mut out = Vec::new();
    push_close(&mut out, close_status(Closed::StaleConnection), Closed::StaleConnection.text());
    assert_eq!(out, b"\x88\x12\x03\xe9Stale Connection");
    out.clear();
    push_close(&mut out, 1000, &"ä".repeat(100));
    assert_eq!(out[1], 124);
}

#[test]
fn the_encoder_is_understood() {
    for len in [0, 1, 63, 64, 125, 126, 1000, 65535, 65536, 200_000] {
        for noise in [false, true] {
            let payload: Vec<u8> = (0..len as u32)
                .map(|i| if noise { (i.wrapping_mul(2_654_435_761) >> 13) as u8 } else { b'a' })
                .collect();
            for compress in [false, true] {
                let mut out = Vec::new();
                Encoder { compress }.push(&mut out, &payload);
                let mut d = Decoder::new(false, compress, 1 << 20);
                let (bytes, _, end) = decode(&mut d, &out, &[out.len()], 1 << 20);
                assert_eq!(end, Ok(()));
                assert!(bytes == payload);
                assert!(out.len() <= payload.len() + 10);
                assert!(!(compress && !noise && len >= 126) || out.len() < payload.len() / 2);
            }
        }
    }
}

fn frames() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (any::<u8>(), 0..70_000usize).prop_map(|(b, n)| vec![b; n]),
        prop::collection::vec(any::<u8>(), 100..700),
    ];
    let message =
        (payload, any::<bool>(), prop::collection::vec(any::<prop::sample::Index>(), 0..4), any::<[u8; 4]>());
    prop::collection::vec(message, 1..5).prop_map(|messages| {
        let (mut wire, mut clear) = (Vec::new(), Vec::new());
        for (payload, compress, cuts, mask) in messages {
            clear.extend_from_slice(&payload);
            let body = if compress { deflated(&payload) } else { payload };
            let mut cuts: Vec<_> = cuts.iter().map(|c| c.index(body.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(body.len());
            let mut from = 0;
            for (i, &to) in cuts.iter().enumerate() {
                let fin = if i + 1 == cuts.len() { 0x80 } else { 0 };
                let head = if i == 0 { 2 | if compress { 0x40 } else { 0 } } else { 0 };
                wire.extend(client_frame(fin | head, Some(mask), &body[from..to]));
                if i % 2 == 1 {
                    wire.extend(client_frame(0x89, Some(mask), b"hi"));
                }
                from = to;
            }
        }
        (wire, clear)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn l6_any_split_decodes_alike(
        (wire, clear) in frames(), splits in prop::collection::vec(1..3000usize, 1..20), room in 1..5000usize
    ) {
        let mut d = Decoder::new(true, true, 1 << 20);
        let (bytes, _, end) = decode(&mut d, &wire, &splits, room);
        prop_assert_eq!(end, Ok(()));
        prop_assert!(bytes == clear);
    }

    #[test]
    fn l6_garbage_fails_alike(
        (mut wire, _) in frames(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        splits in prop::collection::vec(1..300usize, 1..20), room in 1..500usize
    ) {
        wire.truncate(20_000);
        for (at, b) in damage {
            let at = at.index(wire.len());
            wire[at] = b;
        }
        let (bytes, replies, end) = whole(true, &wire);
        let (bytes2, replies2, end2) = decode(&mut Decoder::new(true, true, 1 << 20), &wire, &splits, room);
        // A message's inflated size is checked a piece at a time, so which of two errors is met first may differ.
        prop_assert_eq!(end.is_ok(), end2.is_ok());
        if end.is_ok() {
            prop_assert!(bytes == bytes2 && replies == replies2);
        }
    }
}

fn request(change: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut lines = vec![
        ("Host", "h:80"),
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];
    for (name, value) in change {
        lines.retain(|(n, _)| n != name);
        if let Some(v) = value {
            lines.push((name, v));
        }
    }
    let lines: String = lines.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    format!("GET /any HTTP/1.1\r\n{lines}\r\n").into_bytes()
}

fn answer(request: &[u8], rules: &Rules) -> u16 {
    let response = match accept(request, rules) {
        Ok(Some(a)) => a.response,
        Ok(None) => return 0,
        Err(r) => r.response,
    };
    std::str::from_utf8(&response[9..12]).unwrap().parse().unwrap()
}

#[test]
fn an_upgrade() {
    let rules = Rules {
        compression: true,
        user_cookie: Some("u".into()),
        pass_cookie: Some("p".into()),
        token_cookie: Some("t".into()),
        jwt_cookie: Some("j".into()),
        headers: vec![("X-A".into(), "b".into())],
        ..Rules::default()
    };
    let r = request(&[]);
    for n in 0..r.len() {
        assert!(matches!(accept(&r[..n], &rules), Ok(None)));
    }
    let a = accept(&[&r[..], b"\x82"].concat(), &rules).ok().flatten().unwrap();
    assert_eq!(a.used, r.len());
    // The key and its answer are the example of RFC 6455.
    assert_eq!(
        String::from_utf8(a.response).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-A: b\r\n\r\n"
    );
    assert!(!a.compress && !a.no_masking && a.cookies.user.is_empty());
    let a = accept(
        &request(&[
            ("Sec-WebSocket-Extensions", Some("x, permessage-deflate; client_max_window_bits")),
            ("Nats-No-Masking", Some("true")),
            ("X-Forwarded-For", Some("1.2.3.4")),
            ("Cookie", Some("a=b; u=joe; p=se=cret; t=\"tok\"; j=ey.J")),
        ]),
        &rules,
    );
    let a = a.ok().flatten().unwrap();
    let text = String::from_utf8(a.response).unwrap();
    let agreed = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
                  client_no_context_takeover\r\nNats-No-Masking: true\r\n";
    assert!(text.contains(agreed), "{text}");
    assert!(a.compress && a.no_masking);
    assert_eq!(a.forwarded_for.unwrap().to_string(), "1.2.3.4");
    let c = a.cookies;
    assert_eq!(
        (c.user, c.pass, c.token, c.jwt),
        ("joe".into(), "se=cret".into(), "tok".into(), "ey.J".into())
    );
    // A list is no address; nats-server takes none from it either.
    let a = accept(&request(&[("X-Forwarded-For", Some("1.2.3.4, 5.6.7.8"))]), &Rules::default());
    let a = a.ok().flatten().unwrap();
    assert!(a.forwarded_for.is_none() && !a.compress);
}

#[test]
fn refused_upgrades() {
    let rules = Rules::default();
    for (name, value, status) in [
        ("Host", None, 400),
        ("Host", Some(""), 400),
        ("Upgrade", Some("h2c"), 400),
        ("Connection", Some("close"), 400),
        ("Sec-WebSocket-Key", None, 400),
        ("Sec-WebSocket-Key", Some("YWJj"), 400),
        ("Sec-WebSocket-Version", Some("12"), 400),
    ] {
        assert_eq!(answer(&request(&[(name, value)]), &rules), status, "{name}");
    }
    let with = |from, to| String::from_utf8(request(&[])).unwrap().replace(from, to).into_bytes();
    assert_eq!(answer(&with("GET", "POST"), &rules), 405);
    assert_eq!(answer(&with("/any", "/mqtt"), &rules), 404);
    assert_eq!(answer(&with("/any", "/x/leafnode?y"), &rules), 404);
    assert_eq!(answer(b"\x00\x01 garbage\r\n\r\n", &rules), 400);
    let long = "a".repeat(upgrade::REQUEST_BYTES_MAX);
    assert_eq!(answer(&request(&[("X", Some(&long))]), &rules), 431);
    assert_eq!(answer(format!("GET /{long}").as_bytes(), &rules), 431);
    let names: Vec<String> = (0..upgrade::HEADERS_MAX).map(|i| format!("X-{i}")).collect();
    let many: Vec<_> = names.iter().map(|n| (n.as_str(), Some("y"))).collect();
    assert_eq!(answer(&request(&many), &rules), 431);
}

#[test]
fn origins() {
    let check = |rules: &Rules, host: &str, origin: &str| {
        answer(&request(&[("Host", Some(host)), ("Origin", Some(origin))]), rules) == 101
    };
    let same = Rules { same_origin: true, secure: true, ..Rules::default() };
    for (host, origin, ok) in [
        ("h:8443", "https://h:8443", true),
        ("h", "https://h:443", true),
        ("H", "https://h", true),
        ("[::1]:5", "https://[::1]:5", true),
        ("h", "http://h:443", false),
        ("h:9", "http://h:9", false),
        ("h", "https://h:80", false),
        ("h", "null", false),
        ("h", "::bad::", false),
        ("h", "https://evil", false),
        ("h", "https://h:99999", false),
    ] {
        assert_eq!(check(&same, host, origin), ok, "{origin}");
    }
    assert_eq!(answer(&request(&[]), &same), 101);
    let list = Rules { allowed_origins: vec!["http://ok.com:80".into()], ..Rules::default() };
    assert!(check(&list, "h", "http://ok.com") && check(&list, "h", "HTTP://OK.com:80"));
    assert!(!check(&list, "h", "https://ok.com") && !check(&list, "h", "http://ok.com.evil"));
    assert!(check(&Rules::default(), "h", "null"));
}

proptest! {
    #[test]
    fn noise_is_no_request(noise in prop::collection::vec(any::<u8>(), 0..400), front in 0..60usize) {
        let r = request(&[]);
        let all = [&r[..front.min(r.len())], &noise].concat();
        prop_assert!(!matches!(accept(&all, &Rules::default()), Ok(Some(_))) || front >= r.len());
    }
}
