//! WebSocket frames: any split of the input and of the room for the output gives the same, which is what a naive reading
//! gives; a compressed message stays within its limit; what we encode, we decode.

use links::ws::{Decoder, Encoder, Violation};

use super::{cuts, draws};
use crate::engine::{about, seen};

/// What a compressed message may hold, in bytes.
const INFLATED_MAX: usize = 4096;
/// Room for output where it is not to be scarce. A compressed message cannot exceed it in one call.
const ROOM: usize = 64 << 10;

struct Read {
    bytes: Vec<u8>,
    replies: Vec<u8>,
    end: Result<bool, Violation>,
}

/// Runs one input.
pub fn target(data: &[u8]) {
    let mut rng = draws(data);
    for (masked, compress) in [(true, true), (true, false), (false, false)] {
        let whole = read(masked, compress, data, &[data.len()], ROOM);
        let room = [1, 2, 7, 64, 1000][rng.below(5) as usize];
        let split = read(masked, compress, data, &cuts(&mut rng, data.len()), room);
        match (whole.end, split.end) {
            (Ok(a), Ok(b)) => {
                assert_eq!(
                    (a, &whole.bytes, &whole.replies),
                    (b, &split.bytes, &split.replies),
                    "L-6, room {room}"
                );
            }
            // What is wrong in several ways may be found wrong in another one, where it is compressed.
            (Err(a), Err(b)) => assert!(compress || a == b, "L-6: {a:?}, in pieces {b:?}"),
            (a, b) => panic!("L-6: {a:?} as a whole, {b:?} in pieces with room {room}"),
        }
        match whole.end {
            Err(v) => {
                assert!(!v.text.is_empty() && (1002..=1009).contains(&v.status), "{v:?}");
                let tag = match v.status {
                    1009 => "too big",
                    1007 => "corrupt",
                    _ => "violation",
                };
                seen(tag, v.text.len() as u64);
            }
            Ok(closed) => {
                seen("bytes", about(whole.bytes.len()) * 2 + u64::from(closed));
                if !whole.replies.is_empty() {
                    seen(if closed { "close" } else { "pong" }, about(whole.replies.len()));
                }
            }
        }
        if !compress {
            match (whole.end, naive(masked, data)) {
                (Err(v), Err(status)) => assert_eq!(v.status, status, "{v:?}"),
                (Ok(closed), Ok(n)) => {
                    assert_eq!((whole.bytes, whole.replies, closed), (n.bytes, n.replies, n.closed));
                    if !masked && n.frames > 0 {
                        seen("unmasked", about(n.frames));
                    }
                }
                (end, naive) => panic!("{end:?}, but {:?} by the book", naive.map(|n| n.closed)),
            }
        } else if data.first().is_some_and(|b| b & 0x40 != 0) && whole.end.is_ok() {
            seen("compressed", about(whole.bytes.len()));
        }
    }
    round_trip(data);
}

fn read(masked: bool, compress: bool, data: &[u8], cuts: &[usize], room: usize) -> Read {
    let mut decoder = Decoder::new(masked, compress, INFLATED_MAX);
    let (mut bytes, mut replies, mut from) = (Vec::new(), Vec::new(), 0);
    let mut out = vec![0; room];
    for &to in cuts {
        let mut piece = &data[from..to];
        from = to;
        loop {
            match decoder.decode(piece, &mut out, &mut replies) {
                Ok((used, made)) => {
                    assert!(used <= piece.len() && made <= room);
                    bytes.extend_from_slice(&out[..made]);
                    piece = &piece[used..];
                    if used == 0 && made == 0 && !decoder.has_more() {
                        assert!(piece.is_empty(), "the decoder is stuck with {} bytes", piece.len());
                        break;
                    }
                }
                Err(v) => return Read { bytes, replies, end: Err(v) },
            }
        }
    }
    Read { bytes, replies, end: Ok(decoder.is_closed()) }
}

#[derive(Default)]
struct Naive {
    bytes: Vec<u8>,
    replies: Vec<u8>,
    closed: bool,
    frames: usize,
}

/// Frames of a connection without compression, as RFC 6455 has them; the close code if they break its rules.
fn naive(masked: bool, data: &[u8]) -> Result<Naive, u16> {
    let (mut n, mut at, mut in_message) = (Naive::default(), 0, false);
    loop {
        let rest = &data[at..];
        let [first, second, ..] = *rest else { return Ok(n) };
        let extra = [(126, 2), (127, 8)].iter().find(|(l, _)| *l == second & 0x7f).map_or(0, |(_, n)| *n);
        let head = 2 + extra + if second & 0x80 != 0 { 4 } else { 0 };
        if rest.len() < head {
            return Ok(n);
        }
        let len = match extra {
            0 => u64::from(second & 0x7f),
            _ => rest[2..2 + extra].iter().fold(0, |n, b| n << 8 | u64::from(*b)),
        };
        let (fin, op) = (first & 0x80 != 0, first & 0x0f);
        let control = op >= 8;
        let wrong = first & 0x70 != 0
            || (second & 0x80 != 0) != masked
            || len >> 63 != 0
            || !matches!(op, 0..=2 | 8..=10)
            || control && (!fin || second & 0x7f > 125)
            || op == 0 && !in_message
            || matches!(op, 1 | 2) && in_message;
        if wrong {
            return Err(1002);
        }
        seen(
            ["length 7", "length 16", "length 64"][usize::from(extra > 0) + usize::from(extra > 2)],
            u64::from(op),
        );
        let whole = rest.len() as u64 - head as u64 >= len;
        let body = &rest[head..];
        let body = &body[..body.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
        let mask = if masked { &rest[head - 4..head] } else { &[0; 4] };
        let clear: Vec<u8> = body.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
        if !control {
            if !fin {
                seen("fragments", u64::from(in_message));
            }
            in_message = !fin;
            n.bytes.extend_from_slice(&clear);
        }
        if !whole {
            return Ok(n);
        }
        at += head + len as usize;
        n.frames += 1;
        match op {
            9 => n.replies.extend([&[0x8a, clear.len() as u8], &clear[..]].concat()),
            8 => {
                if let [high, low, text @ ..] = &clear[..] {
                    let code = u16::from_be_bytes([*high, *low]);
                    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                        return Err(1002);
                    }
                    if std::str::from_utf8(text).is_err() {
                        return Err(1007);
                    }
                } else if !clear.is_empty() {
                    return Err(1002);
                }
                n.replies.extend([&[0x88, clear.len() as u8], &clear[..]].concat());
                n.closed = true;
                return Ok(n);
            }
            _ => {}
        }
    }
}

/// What our encoder makes of the input, our decoder reads.
fn round_trip(data: &[u8]) {
    for compress in [false, true] {
        let mut frames = Vec::new();
        let encoder = Encoder { compress };
        encoder.push(&mut frames, data);
        encoder.push(&mut frames, b"PING\r\n");
        let read = read(false, compress, &frames, &[frames.len() / 2, frames.len()], ROOM);
        assert_eq!(read.end, Ok(false));
        assert_eq!(read.bytes, [data, b"PING\r\n"].concat());
        let deflated = frames[0] & 0x40 != 0;
        assert!(compress || !deflated);
        seen(if deflated { "deflated" } else { "encoded" }, about(data.len()));
    }
}
