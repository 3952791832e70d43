//! What a client sends: any split gives the same, each operation says what its line says, and written anew it is read
//! as the same.

use wire::{
    Parsed,
    client::{Error, Limits, Op, parse},
    frame::MsgHead,
};

use super::{cuts, draws};
use crate::engine::{about, seen};

const LIMITS: [Limits; 3] = [
    Limits { max_control_line: 4096, max_payload: 1 << 20, headers: true },
    Limits { max_control_line: 24, max_payload: 16, headers: true },
    Limits { max_control_line: 100, max_payload: 100, headers: false },
];

/// Runs one input.
pub fn target(data: &[u8]) {
    let mut rng = draws(data);
    for (i, limits) in LIMITS.iter().enumerate() {
        let (whole, end) = all(data, limits);
        for (n, op) in whole.iter().enumerate() {
            seen("pair", (n.min(1) * 16 + kind(op)) as u64);
        }
        match end {
            Err(e) => note(e, i),
            Ok(need) => seen(if need == 0 { "partial line" } else { "partial payload" }, about(need)),
        }
        let (split, split_end) = pieces(data, &cuts(&mut rng, data.len()), limits);
        assert_eq!(split, whole, "W-1: operations differ in pieces under {limits:?}");
        // A piece may end inside of what is wrong already, but not otherwise.
        match (end, split_end) {
            (Err(a), Err(b)) => assert_eq!(a, b, "W-1: another error in pieces under {limits:?}"),
            (Ok(a), Ok(b)) => assert_eq!(a, b, "W-1: another need in pieces under {limits:?}"),
            (a, b) => panic!("W-1: {a:?} as a whole, {b:?} in pieces under {limits:?}"),
        }
    }
}

fn note(e: Error, limits: usize) {
    let tag = match e {
        Error::Unknown => "error unknown",
        Error::Arguments => "error arguments",
        Error::LineTooLong => "error line",
        Error::PayloadTooLarge(_) => "error payload",
        Error::HeadersNotSupported => "error headers",
    };
    seen(tag, limits as u64);
    assert_eq!(e.text().is_none(), matches!(e, Error::Arguments | Error::HeadersNotSupported));
}

fn kind(op: &[u8]) -> usize {
    [&b"PUB"[..], b"HPU", b"SUB", b"UNS", b"PIN", b"PON", b"CON", b"INF", b"+OK", b"-ER"]
        .iter()
        .position(|k| op.starts_with(k))
        .expect("written by `write`")
}

type Parts = (Vec<Vec<u8>>, Result<usize, Error>);

/// The operations of a whole input, each written anew, and what it ends with: an error, or the need of what is left.
fn all(data: &[u8], limits: &Limits) -> Parts {
    let (mut rest, mut ops) = (data, Vec::new());
    loop {
        match parse(rest, limits) {
            Ok(Parsed::Op { op, used }) => {
                assert!(used > 0 && used <= rest.len());
                ops.push(check(&op, &rest[..used], limits));
                rest = &rest[used..];
            }
            Ok(Parsed::Partial { need }) => {
                assert!(need == 0 || need > rest.len(), "an operation of {need} bytes is there and not seen");
                return (ops, Ok(need));
            }
            Err(e) => return (ops, Err(e)),
        }
    }
}

/// The same from pieces, as a connection reads them.
fn pieces(data: &[u8], cuts: &[usize], limits: &Limits) -> Parts {
    let (mut buf, mut ops, mut fed, mut need) = (Vec::new(), Vec::new(), 0, 0);
    for &end in cuts {
        buf.extend_from_slice(&data[fed..end]);
        fed = end;
        loop {
            match parse(&buf, limits) {
                Ok(Parsed::Op { op, used }) => {
                    assert!(need == 0 || need == used, "{need} bytes were asked for, and {used} were used");
                    ops.push(write(&op));
                    buf.drain(..used);
                    need = 0;
                }
                Ok(Parsed::Partial { need: n }) => {
                    assert!(n == 0 || n > buf.len());
                    need = n;
                    break;
                }
                Err(e) => return (ops, Err(e)),
            }
        }
    }
    (ops, Ok(need))
}

/// Holds an operation against its line, and against itself after it was written and read.
fn check(op: &Op<'_>, bytes: &[u8], limits: &Limits) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == b'\n').expect("an operation has a line");
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let mut words = line.split(|b| matches!(b, b' ' | b'\t')).filter(|w| !w.is_empty());
    let verb = words.next().unwrap_or_default().to_ascii_uppercase();
    let words: Vec<&[u8]> = words.collect();
    let size = |w: &[u8]| std::str::from_utf8(w).ok().and_then(|w| w.parse::<usize>().ok());
    if line.len() == limits.max_control_line + verb.len() + 1 {
        seen("exact line", kind(&write(op)) as u64);
    }
    match op {
        Op::Pub(p) => {
            let headers = verb == b"HPUB";
            seen(
                if headers { "hpub" } else { "pub" },
                about(p.body().len()) * 2 + u64::from(!p.reply.is_empty()),
            );
            let (names, sizes) = words.split_at(words.len() - 1 - usize::from(headers));
            assert_eq!(names.first(), Some(&p.subject));
            assert_eq!(names.get(1).copied().unwrap_or_default(), p.reply);
            assert!(names.len() <= 2 && (headers || verb == b"PUB"));
            let total = sizes.last().and_then(|w| size(w)).expect("a PUB has a size");
            assert_eq!(p.body().len(), total);
            assert!(total <= limits.max_payload);
            assert_eq!(p.header().len(), if headers { size(sizes[0]).unwrap() } else { 0 });
            assert_eq!([p.header(), p.payload(), b"\r\n"].concat(), &bytes[end + 1..]);
            deliver(p.subject, p.reply, headers.then_some(p.header_len), total);
        }
        Op::Sub(s) => {
            seen(if s.queue.is_empty() { "sub" } else { "sub queue" }, about(s.subject.len()));
            let all: Vec<&[u8]> = [s.subject, s.queue, s.sid].into_iter().filter(|w| !w.is_empty()).collect();
            assert_eq!((verb.as_slice(), all), (&b"SUB"[..], words));
        }
        Op::Unsub { sid, max } => {
            seen(if *max == 0 { "unsub" } else { "unsub max" }, about(*max as usize));
            assert_eq!((verb.as_slice(), words[0]), (&b"UNSUB"[..], *sid));
            let said = words.get(1).and_then(|w| size(w)).filter(|n| *n <= i32::MAX as usize);
            // Signs are no part of a number, though Rust takes a plus.
            if words.get(1).is_none_or(|w| w.len() <= 10 && !w.starts_with(b"+")) {
                assert_eq!(said.unwrap_or(0) as u64, *max);
            }
        }
        Op::Connect(json) | Op::Info(json) | Op::Err(json) => {
            let (said, tag) = match op {
                Op::Connect(_) => (&b"CONNECT"[..], "connect"),
                Op::Info(_) => (&b"INFO"[..], "info or err"),
                _ => (&b"-ERR"[..], "info or err"),
            };
            seen(tag, about(json.len()));
            // The JSON may follow at once.
            let (verb, rest) = line.split_at(said.len());
            assert_eq!((&*verb.to_ascii_uppercase(), rest.trim_ascii()), (said, *json));
        }
        Op::Ping | Op::Pong | Op::Ok => {
            seen("ping", about(line.len()));
            assert!(line.to_ascii_uppercase().starts_with(&write(op)[..3]));
        }
    }
    let anew = write(op);
    let wide = Limits { max_control_line: limits.max_control_line + 2, ..*limits };
    match parse(&anew, &wide) {
        Ok(Parsed::Op { op: again, used }) => {
            assert_eq!((&again, used), (op, anew.len()), "written anew it is another operation");
        }
        other => panic!("{op:?} is read as {other:?} once it is written anew"),
    }
    anew
}

/// An operation in its plainest form.
fn write(op: &Op<'_>) -> Vec<u8> {
    let join = |words: &[&[u8]]| {
        let words: Vec<&[u8]> = words.iter().copied().filter(|w| !w.is_empty()).collect();
        [&words.join(&b' '), &b"\r\n"[..]].concat()
    };
    match op {
        Op::Pub(p) => {
            let (header, total) = (p.header_len.to_string(), p.body().len().to_string());
            // An HPUB without a header block is a PUB.
            let line = match p.header_len {
                0 => join(&[b"PUB", p.subject, p.reply, total.as_bytes()]),
                _ => join(&[b"HPUB", p.subject, p.reply, header.as_bytes(), total.as_bytes()]),
            };
            [&line, p.body_crlf].concat()
        }
        Op::Sub(s) => join(&[b"SUB", s.subject, s.queue, s.sid]),
        Op::Unsub { sid, max: 0 } => join(&[b"UNSUB", sid]),
        Op::Unsub { sid, max } => join(&[b"UNSUB", sid, max.to_string().as_bytes()]),
        Op::Ping => join(&[b"PING"]),
        Op::Pong => join(&[b"PONG"]),
        Op::Ok => join(&[b"+OK"]),
        Op::Connect(json) => [b"CONNECT ", *json, b"\r\n"].concat(),
        Op::Info(json) => [b"INFO ", *json, b"\r\n"].concat(),
        Op::Err(text) => [b"-ERR ", *text, b"\r\n"].concat(),
    }
}

/// The line that a receiver gets, against its definition.
fn deliver(subject: &[u8], reply: &[u8], header_len: Option<usize>, total: usize) {
    let mut head = MsgHead::default();
    head.set(subject, reply, header_len, total);
    let (header, size) = (header_len.map(|h| h.to_string()), total.to_string());
    for sid in [&b"1"[..], b"18446744073709551615"] {
        let verb = if header.is_some() { &b"HMSG"[..] } else { b"MSG" };
        let words = [verb, subject, sid, reply, header.as_deref().unwrap_or("").as_bytes(), size.as_bytes()];
        let words: Vec<&[u8]> = words.into_iter().filter(|w| !w.is_empty()).collect();
        let mut line = Vec::new();
        head.push(sid, &mut line);
        assert_eq!(line, [&words.join(&b' '), &b"\r\n"[..]].concat());
        assert_eq!(line.len(), head.len(sid));
    }
}
