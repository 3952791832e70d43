//! What another server of the cluster sends: any split gives the same, and what is written anew is read as the same.

use wire::{
    Parsed,
    client::Error,
    route::{Interest, Limits, Msg, Op, RouteHead, info, parse, push_interest, split_shown},
};

use super::{cuts, draws};
use crate::engine::{about, seen};

const LIMITS: [Limits; 3] = [
    Limits { max_control_line: 65536, max_payload: 1 << 20, pinned: false },
    Limits { max_control_line: 65536, max_payload: 1 << 20, pinned: true },
    Limits { max_control_line: 40, max_payload: 16, pinned: false },
];

/// Runs one input.
pub fn target(data: &[u8]) {
    let mut rng = draws(data);
    for (i, limits) in LIMITS.iter().enumerate() {
        let (whole, end) = all(data, limits);
        match end {
            Err(Error::Unknown) => seen("error unknown", i as u64),
            Err(Error::Arguments) => seen("error arguments", i as u64),
            Err(Error::LineTooLong) => seen("error line", i as u64),
            Err(Error::PayloadTooLarge(_)) => seen("error payload", i as u64),
            Err(Error::HeadersNotSupported) => panic!("routes have headers"),
            Ok(need) => seen(if need == 0 { "partial line" } else { "partial payload" }, about(need)),
        }
        let (split, split_end) = pieces(data, &cuts(&mut rng, data.len()), limits);
        assert_eq!(split, whole, "W-1: operations differ in pieces under {limits:?}");
        assert_eq!(split_end, end, "W-1: another end in pieces under {limits:?}");
    }
}

type Parts = (Vec<Vec<u8>>, Result<usize, Error>);

/// The operations of a whole input, each written anew, and what it ends with.
fn all(data: &[u8], limits: &Limits) -> Parts {
    let (mut rest, mut ops) = (data, Vec::new());
    loop {
        match parse(rest, limits) {
            Ok(Parsed::Op { op, used }) => {
                assert!(used > 0 && used <= rest.len());
                ops.push(check(&op, limits));
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
                    need = n;
                    break;
                }
                Err(e) => return (ops, Err(e)),
            }
        }
    }
    (ops, Ok(need))
}

/// Notes an operation, and holds it against itself after it was written and read.
fn check(op: &Op<'_>, limits: &Limits) -> Vec<u8> {
    match op {
        Op::Msg(m) => {
            let tag = match (m.header_len, m.queues.is_empty()) {
                (0, true) => "rmsg",
                (0, false) => "rmsg queues",
                (_, true) => "hmsg",
                (_, false) => "hmsg queues",
            };
            seen(tag, about(m.body_crlf.len()) * 2 + u64::from(!m.reply.is_empty()));
            assert!(m.body_crlf.ends_with(b"\r\n") && m.header_len + 2 <= m.body_crlf.len());
            assert!(!m.subject.is_empty() && m.account.is_empty() == limits.pinned);
            let (reply, shown) = split_shown(m.reply);
            assert!(m.reply.starts_with(reply) && shown.is_none_or(|s| m.reply.ends_with(s)));
        }
        Op::Sub(i) => seen(if i.queue.is_empty() { "sub" } else { "sub queue" }, about(i.weight as usize)),
        Op::Unsub(i) => seen("unsub", u64::from(!i.queue.is_empty())),
        Op::Info(json) => match info::RouteInfo::parse(json) {
            Ok(i) => {
                seen("info", u64::from(i.route_pool_size > 0));
                let mut out = Vec::new();
                i.push(&mut out);
                let again = info::RouteInfo::parse(&out[5..out.len() - 3]).expect("our own INFO is read");
                assert_eq!(again, i);
            }
            Err(_) => seen("info refused", 0),
        },
        Op::Connect(json) => seen("connect", u64::from(info::RouteConnect::parse(json).is_ok())),
        Op::Ping | Op::Pong | Op::Ok | Op::Err(_) => seen("small", 0),
    }
    let anew = write(op);
    let wide = Limits { max_control_line: limits.max_control_line + 16, ..*limits };
    match parse(&anew, &wide) {
        Ok(Parsed::Op { op: again, used }) => {
            assert_eq!(used, anew.len(), "written anew it is another operation");
            assert_eq!(write(&again), anew, "written anew it is another operation");
        }
        other => panic!("{op:?} is read as {other:?} once it is written anew"),
    }
    anew
}

/// An operation as this server writes it.
fn write(op: &Op<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut interest = |on: bool, i: &Interest<'_>| {
        let text = if i.queue.is_empty() { i.subject.to_vec() } else { [i.subject, b" ", i.queue].concat() };
        push_interest(&mut out, on, i.account, &text, (!i.queue.is_empty()).then_some(i.weight));
    };
    match op {
        Op::Sub(i) => interest(true, i),
        Op::Unsub(i) => interest(false, i),
        Op::Msg(m) => message(m, &mut out),
        Op::Ping => out.extend_from_slice(b"PING\r\n"),
        Op::Pong => out.extend_from_slice(b"PONG\r\n"),
        Op::Ok => out.extend_from_slice(b"+OK\r\n"),
        Op::Connect(json) => out.extend_from_slice(&[b"CONNECT ", *json, b"\r\n"].concat()),
        Op::Info(json) => out.extend_from_slice(&[b"INFO ", *json, b"\r\n"].concat()),
        Op::Err(text) => out.extend_from_slice(&[b"-ERR ", *text, b"\r\n"].concat()),
    }
    out
}

fn message(m: &Msg<'_>, out: &mut Vec<u8>) {
    let mut head = RouteHead::default();
    // An HMSG without a header block is an RMSG.
    head.set(m.subject, None, m.reply, (m.header_len > 0).then_some(m.header_len), m.body_crlf.len() - 2);
    let mut queues = Vec::new();
    for q in m.queues.split(|b| matches!(b, b' ' | b'\t')).filter(|q| !q.is_empty()) {
        queues.extend_from_slice(q);
        queues.push(b' ');
    }
    head.push(m.account, &queues, out);
    assert_eq!(out.len(), head.len(m.account, &queues));
    out.extend_from_slice(m.body_crlf);
}
