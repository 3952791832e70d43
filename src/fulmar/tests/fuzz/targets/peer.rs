//! What another node sends over its link: any split gives the same, what is written anew is read as the same, and no more is held than
//! one frame a lane.

use wire::peer::{Error, Hello, Joiner, OPENING, PIECE_BYTES_MAX, Parsed, Piece, header, parse};

use super::{cuts, draws};
use crate::engine::{about, seen};

const FRAME_BYTES_MAX: usize = 256;

/// Runs one input: the opening line if it begins with one, and pieces. Checksums of pieces are made right by the first byte of
/// the rest, or nothing would ever get past them.
pub fn target(data: &[u8]) {
    let mut rest = data;
    if let Some(json) = data.strip_prefix(OPENING) {
        let end = json.iter().position(|b| *b == b'\n').unwrap_or(json.len());
        hello(&json[..end]);
        rest = &json[(end + 1).min(json.len())..];
    }
    let mended = mend(rest);
    let mut rng = draws(data);
    let (whole, end) = all(&mended);
    match end {
        Ok(need) => seen("partial", about(need)),
        Err(Error::Header) => seen("error header", 0),
        Err(Error::Length(_)) => seen("error length", 0),
        Err(Error::Checksum) => seen("error checksum", 0),
        Err(Error::Order) => seen("error order", 0),
        Err(Error::TooLong) => seen("error long", 0),
    }
    let (split, split_end) = pieces(&mended, &cuts(&mut rng, mended.len()));
    assert_eq!(split, whole, "W-1: frames differ in pieces");
    assert_eq!(
        split_end.map_err(|e| e.to_string()),
        end.map_err(|e| e.to_string()),
        "W-1: another end in pieces"
    );
}

fn hello(json: &[u8]) {
    let Ok(h) = Hello::parse(json) else { return seen("hello bad", 0) };
    seen("hello", u64::from(h.agree().unwrap_or(0)));
    let mut line = Vec::new();
    h.push(&mut line);
    assert!(line.ends_with(b"\r\n") && line.iter().filter(|b| **b == b'\n').count() == 1, "it is one line");
    assert_eq!(Hello::parse(&line[OPENING.len()..]).expect("it is what was written"), h);
}

/// Puts right checksums into all pieces but those whose kind is odd.
fn mend(data: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (data.to_vec(), 0);
    while let Some(h) = data.get(at..at + 12) {
        let len = u32::from_le_bytes([h[4], h[5], h[6], h[7]]) as usize;
        let Some(body) = data.get(at + 12..at + 12 + len).filter(|_| len <= PIECE_BYTES_MAX) else { break };
        if h[1] % 2 == 0 {
            let sum = crc(&h[..8], body);
            out[at + 8..at + 12].copy_from_slice(&sum.to_le_bytes());
        }
        at += 12 + len;
    }
    out
}

/// CRC-32C bit by bit, as its definition has it.
fn crc(head: &[u8], body: &[u8]) -> u32 {
    let step = |c: u32, b: &u8| {
        (0..8).fold(c ^ u32::from(*b), |c, _| (c >> 1) ^ if c & 1 == 1 { 0x82f6_3b78 } else { 0 })
    };
    !head.iter().chain(body).fold(!0, step)
}

type Frames = (Vec<(u8, u8, Vec<u8>)>, Result<usize, Error>);

fn take(p: &Piece<'_>, joiner: &mut Joiner, out: &mut Vec<(u8, u8, Vec<u8>)>) -> Result<(), Error> {
    seen(if p.more { "piece" } else { "last" }, u64::from(p.lane));
    if let Some(body) = joiner.push(p)? {
        out.push((p.lane, p.kind, body.to_vec()));
    }
    assert!(joiner.held() <= 5 * FRAME_BYTES_MAX, "what is held is bounded");
    Ok(())
}

/// The frames of a whole input, each piece written anew, and what it ends with.
fn all(data: &[u8]) -> Frames {
    let (mut rest, mut out, mut joiner) = (data, Vec::new(), Joiner::new(FRAME_BYTES_MAX));
    loop {
        match parse(rest) {
            Ok(Parsed::Piece(p, used)) => {
                assert_eq!([&header(&p)[..], p.body].concat(), &rest[..used], "it is what was written");
                if let Err(e) = take(&p, &mut joiner, &mut out) {
                    return (out, Err(e));
                }
                rest = &rest[used..];
            }
            Ok(Parsed::Partial(need)) => {
                assert!(need > rest.len(), "a piece of {need} bytes is there and not seen");
                return (out, Ok(need));
            }
            Err(e) => return (out, Err(e)),
        }
    }
}

/// The same from pieces, as a connection reads them.
fn pieces(data: &[u8], cuts: &[usize]) -> Frames {
    let (mut buf, mut out, mut joiner) = (Vec::new(), Vec::new(), Joiner::new(FRAME_BYTES_MAX));
    let (mut fed, mut need) = (0, 12);
    for &end in cuts {
        buf.extend_from_slice(&data[fed..end]);
        fed = end;
        let mut at = 0;
        loop {
            match parse(&buf[at..]) {
                Ok(Parsed::Piece(p, used)) => {
                    if let Err(e) = take(&p, &mut joiner, &mut out) {
                        return (out, Err(e));
                    }
                    at += used;
                }
                Ok(Parsed::Partial(n)) => {
                    need = n;
                    break;
                }
                Err(e) => return (out, Err(e)),
            }
        }
        buf.drain(..at);
    }
    (out, Ok(need))
}
