use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { max_control_line: 4096, max_payload: 1 << 20, headers: true };

fn one(buf: &[u8]) -> Result<Parsed<Op<'_>>, Error> {
    parse(buf, &LIMITS)
}

/// Everything in `buf`, printed, up to the first error or partial operation.
fn all(mut buf: &[u8]) -> Vec<String> {
    let mut out = Vec::new();
    loop {
        match one(buf) {
            Ok(Parsed::Op { op, used }) => {
                out.push(format!("{op:?}"));
                buf = &buf[used..];
            }
            Ok(Parsed::Partial { .. }) => return out,
            Err(e) => {
                out.push(format!("{e:?}"));
                return out;
            }
        }
    }
}

#[test]
fn publishes() {
    let Ok(Parsed::Op { op: Op::Pub(p), used }) = one(b"PUB foo 5\r\nhello\r\nPING\r\n") else { panic!() };
    assert_eq!(
        (p.subject, p.reply, p.header_len, p.payload(), used),
        (&b"foo"[..], &b""[..], 0, &b"hello"[..], 18)
    );
    let Ok(Parsed::Op { op: Op::Pub(p), .. }) = one(b"pUb\tfoo  bar \t 0  \n\r\n") else { panic!() };
    assert_eq!((p.subject, p.reply, p.payload()), (&b"foo"[..], &b"bar"[..], &b""[..]));
    let Ok(Parsed::Op { op: Op::Pub(p), .. }) = one(b"HPUB foo bar 12 14\r\nNATS/1.0\r\n\r\nxy\r\n") else {
        panic!()
    };
    assert_eq!((p.reply, p.header(), p.payload()), (&b"bar"[..], &b"NATS/1.0\r\n\r\n"[..], &b"xy"[..]));
}

#[test]
fn sizes_that_are_none() {
    for s in [
        "PUB foo\r\n",
        "PUB foo x\r\n",
        "PUB foo -1\r\n",
        "PUB a b c 1\r\n",
        "PUB a 99999999999\r\n",
        "PUB a 2147483648\r\n",
    ] {
        assert_eq!(one(s.as_bytes()), Err(Error::Arguments), "{s}");
    }
    for s in ["HPUB foo 5\r\n", "HPUB foo 5 4\r\n", "HPUB a b c 1 2\r\n", "HPUB foo x 4\r\n"] {
        assert_eq!(one(s.as_bytes()), Err(Error::Arguments), "{s}");
    }
    assert_eq!(one(b"PUB foo 1048577\r\n"), Err(Error::PayloadTooLarge(1_048_577)));
    assert_eq!(
        parse(b"HPUB foo 1 2\r\n", &Limits { headers: false, ..LIMITS }),
        Err(Error::HeadersNotSupported)
    );
}

#[test]
fn payloads_end_in_crlf() {
    assert_eq!(one(b"PUB foo 2\r\nhello\r\n"), Err(Error::Unknown));
    assert_eq!(one(b"PUB foo 2\r\nhi\rx"), Err(Error::Unknown));
    assert_eq!(one(b"PUB foo 2\r\nhix"), Err(Error::Unknown));
    assert_eq!(one(b"PUB foo 2\r\nhi\r"), Ok(Parsed::Partial { need: 15 }));
}

#[test]
fn other_operations() {
    assert_eq!(
        all(b"CONNECT {\"a\":1}\r\nping\r\nPoNg\r\nSUB foo 1\r\nsub foo.* q 22\r\nUNSUB 1\r\nunsub 22 5\r\n+OK\r\n-ERR 'x'\r\nINFO {}\r\n"),
        [
            "Connect([123, 34, 97, 34, 58, 49, 125])",
            "Ping",
            "Pong",
            "Sub(Sub { subject: [102, 111, 111], queue: [], sid: [49] })",
            "Sub(Sub { subject: [102, 111, 111, 46, 42], queue: [113], sid: [50, 50] })",
            "Unsub { sid: [49], max: 0 }",
            "Unsub { sid: [50, 50], max: 5 }",
            "Ok",
            "Err([39, 120, 39])",
            "Info([123, 125])",
        ]
    );
}

#[test]
fn what_is_no_protocol() {
    for s in [
        "X",
        "PUBX",
        "RS+ a b\r\n",
        "LS+ a\r\n",
        "A+ x\r\n",
        "\r\n",
        "PUQ",
        "SUBx",
        "GET / HTTP/1.1\r\n",
        "RMSG a b 0\r\n",
    ] {
        assert_eq!(one(s.as_bytes()), Err(Error::Unknown), "{s}");
    }
    for s in ["SUB a\r\n", "SUB\t\r\n", "SUB a b c d\r\n", "UNSUB \r\n", "UNSUB 1 2 3\r\n"] {
        assert_eq!(one(s.as_bytes()), Err(Error::Arguments), "{s}");
    }
}

#[test]
fn lines_are_bounded() {
    let long = [b"PUB ".as_slice(), &[b'a'; 5000]].concat();
    assert_eq!(one(&long), Err(Error::LineTooLong));
    let sub = [b"SUB ".as_slice(), &[b'a'; 5000], b" 1\r\n"].concat();
    assert_eq!(one(&sub), Err(Error::LineTooLong));
    let ping = [b"PING".as_slice(), &[b' '; 5000]].concat();
    assert_eq!(one(&ping), Err(Error::LineTooLong));
}

/// As nats-server 2.15.1 counts: the arguments of a line that is just long enough are taken, in one piece or with its end
/// coming by and by, and one byte more is not.
#[test]
fn w1_a_line_at_its_limit_in_pieces() {
    for (n, fits) in [(4095, true), (4096, true), (4097, false)] {
        for end in ["\n", "\r\n"] {
            let line = format!("SUB {} 1{end}", "a".repeat(n - 2));
            assert_eq!(one(line.as_bytes()).is_ok(), fits, "{n} and {end:?}");
            for cut in line.len() - end.len()..line.len() {
                assert_eq!(one(&line.as_bytes()[..cut]).is_ok(), fits, "{n} and {end:?}, cut at {cut}");
            }
        }
    }
}

fn op() -> impl Strategy<Value = Vec<u8>> {
    let word = "[a-z.*>]{1,12}";
    prop_oneof![
        (word, proptest::option::of(word), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
            |(s, r, p)| {
                let mut v = format!("PUB {s} {} {}\r\n", r.unwrap_or_default(), p.len()).into_bytes();
                v.extend_from_slice(&p);
                v.extend_from_slice(b"\r\n");
                v
            }
        ),
        (word, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(s, p)| {
            let mut v = format!("HPUB {s} 12 {}\r\nNATS/1.0\r\n\r\n", p.len() + 12).into_bytes();
            v.extend_from_slice(&p);
            v.extend_from_slice(b"\r\n");
            v
        }),
        (word, 0u32..99).prop_map(|(s, n)| format!("SUB {s} {n}\r\n").into_bytes()),
        Just(b"PING\r\n".to_vec()),
        Just(b"CONNECT {}\r\n".to_vec()),
        (0u32..99, 0u32..5).prop_map(|(s, n)| format!("UNSUB {s} {n}\n").into_bytes()),
    ]
}

proptest! {
    // W-1
    #[test]
    fn any_split_gives_the_same(ops in proptest::collection::vec(op(), 1..8), cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6)) {
        let stream = ops.concat();
        let whole = all(&stream);
        prop_assert_eq!(whole.len(), ops.len());
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(stream.len())).chain([stream.len()]).collect();
        at.sort();
        let (mut buf, mut fed, mut got) = (Vec::new(), 0, Vec::new());
        for end in at {
            buf.extend_from_slice(&stream[fed..end]);
            fed = end;
            while let Parsed::Op { op, used } = one(&buf).unwrap() {
                got.push(format!("{op:?}"));
                buf.drain(..used);
            }
            if let Parsed::Partial { need } = one(&buf).unwrap() {
                prop_assert!(need == 0 || need > buf.len());
            }
        }
        prop_assert_eq!(got, whole);
    }

    // W-2
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        all(&bytes);
    }

    #[test]
    fn near_protocol_never_panics(mut bytes in op(), at in any::<proptest::sample::Index>(), b in any::<u8>()) {
        let i = at.index(bytes.len());
        bytes[i] = b;
        all(&bytes);
        all(&bytes[..i]);
    }
}
