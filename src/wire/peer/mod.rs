//! What two Fulmar nodes say to each other on their own connection: the line that opens it, and the frames after it.
//!
//! Owns the layout and the joining of pieces. Knows no kind: a frame's body belongs to whoever sent it. Does no I/O.
//!
//! A connection to the cluster port is a peer link if its first line is `PEER {json}` ([`Hello`]); the answer is such a line too, or
//! `-ERR 'reason'`. From there on both ends send pieces: twelve bytes of header and a body.
//!
//! | bytes | |
//! |---|---|
//! | 0 | lane |
//! | 1 | kind |
//! | 2 | 1: more pieces of this frame follow on this lane; other bits are zero |
//! | 3 | zero |
//! | 4 to 7 | length of the body, little-endian |
//! | 8 to 11 | CRC-32C of the eight bytes before and of the body, little-endian |
//!
//! Invariants: W-1 and W-2 of the crate hold here too.

use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// The newest version that this code speaks.
pub const VERSION: u32 = 1;
/// The oldest.
pub const VERSION_MIN: u32 = 1;
/// Bytes before a piece's body.
pub const HEADER_BYTES: usize = 12;
/// Longest body of one piece: what is sent in between waits for no more than that.
pub const PIECE_BYTES_MAX: usize = 32 << 10;
/// Lanes that a piece may be on.
pub const LANES: usize = 5;
/// What stands before the JSON text of the first line.
pub const OPENING: &[u8] = b"PEER ";
/// Longest first line, in bytes.
pub const LINE_BYTES_MAX: usize = 16 << 10;

const MORE: u8 = 1;

/// A part of a frame, or a whole one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece<'a> {
    /// Its lane, below [`LANES`].
    pub lane: u8,
    /// Its frame's kind.
    pub kind: u8,
    /// More of this frame follows on this lane.
    pub more: bool,
    /// The bytes.
    pub body: &'a [u8],
}

/// What stands at the front of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed<'a> {
    /// A piece, and how many bytes it takes.
    Piece(Piece<'a>, usize),
    /// Not all of one: it takes at least so many bytes.
    Partial(usize),
}

/// Why a link cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// A header that this version does not write.
    Header,
    /// A piece that is too long.
    Length(u32),
    /// The bytes are not those that were sent.
    Checksum,
    /// A piece of another frame stands where one goes on.
    Order,
    /// A frame that is too long.
    TooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Header => f.write_str("a header that is none"),
            Error::Length(n) => write!(f, "a piece of {n} bytes"),
            Error::Checksum => f.write_str("a wrong checksum"),
            Error::Order => f.write_str("pieces of different frames in one"),
            Error::TooLong => f.write_str("a frame that is too long"),
        }
    }
}
impl std::error::Error for Error {}

/// The header of a piece whose body is at most [`PIECE_BYTES_MAX`] long.
#[must_use]
pub fn header(p: &Piece<'_>) -> [u8; HEADER_BYTES] {
    debug_assert!(p.body.len() <= PIECE_BYTES_MAX && usize::from(p.lane) < LANES);
    let mut h = [0; HEADER_BYTES];
    (h[0], h[1], h[2]) = (p.lane, p.kind, if p.more { MORE } else { 0 });
    h[4..8].copy_from_slice(&(p.body.len() as u32).to_le_bytes());
    let sum = checksum::append(checksum::crc32c(&h[..8]), p.body);
    h[8..].copy_from_slice(&sum.to_le_bytes());
    h
}

fn word(b: &[u8], at: usize) -> u32 {
    b[at..at + 4].iter().rev().fold(0, |n, b| (n << 8) | u32::from(*b))
}

/// Reads the piece at the front of a buffer.
///
/// # Errors
/// The link is of no more use.
pub fn parse(b: &[u8]) -> Result<Parsed<'_>, Error> {
    let Some(h) = b.get(..HEADER_BYTES) else { return Ok(Parsed::Partial(HEADER_BYTES)) };
    if usize::from(h[0]) >= LANES || h[2] & !MORE != 0 || h[3] != 0 {
        return Err(Error::Header);
    }
    let len = word(h, 4);
    if len as usize > PIECE_BYTES_MAX {
        return Err(Error::Length(len));
    }
    let all = HEADER_BYTES + len as usize;
    let Some(body) = b.get(HEADER_BYTES..all) else { return Ok(Parsed::Partial(all)) };
    if checksum::append(checksum::crc32c(&h[..8]), body) != word(h, 8) {
        return Err(Error::Checksum);
    }
    Ok(Parsed::Piece(Piece { lane: h[0], kind: h[1], more: h[2] == MORE, body }, all))
}

/// Makes frames of pieces, lane by lane.
#[derive(Debug)]
pub struct Joiner {
    open: [Option<(u8, BytesMut)>; LANES],
    /// Bytes of the frame before of each lane that came in pieces: room for the next one, so that growing copies nothing.
    before: [usize; LANES],
    frame_bytes_max: usize,
}

/// Room that is made for a frame at its first piece at most: who sends one large frame does not make us keep room for many.
const ROOM_MAX: usize = 1 << 20;

impl Joiner {
    /// A joiner that takes frames of up to `frame_bytes_max` bytes. It holds at most one of them a lane.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Joiner {
        Joiner { open: Default::default(), before: [0; LANES], frame_bytes_max }
    }

    /// Takes a piece that [`parse`] gave; the frame's body if it is the last one. Bodies are copies: a small frame must not keep a large
    /// buffer.
    ///
    /// # Errors
    /// The link is of no more use.
    pub fn push(&mut self, p: &Piece<'_>) -> Result<Option<Bytes>, Error> {
        let open = self.open.get_mut(usize::from(p.lane)).ok_or(Error::Header)?;
        let begun = open.as_ref().map_or(0, |o| o.1.len());
        if begun + p.body.len() > self.frame_bytes_max {
            return Err(Error::TooLong);
        }
        match open {
            None if !p.more => return Ok(Some(Bytes::copy_from_slice(p.body))),
            None => {
                let room = self.before[usize::from(p.lane)].min(ROOM_MAX).max(p.body.len());
                let mut bytes = BytesMut::with_capacity(room);
                bytes.extend_from_slice(p.body);
                *open = Some((p.kind, bytes));
            }
            Some((kind, _)) if *kind != p.kind => return Err(Error::Order),
            Some((_, bytes)) => bytes.extend_from_slice(p.body),
        }
        if p.more {
            return Ok(None);
        }
        let whole = open.take().map(|o| o.1.freeze());
        self.before[usize::from(p.lane)] = whole.as_ref().map_or(0, Bytes::len);
        Ok(whole)
    }

    /// Bytes of frames that have begun.
    #[must_use]
    pub fn held(&self) -> usize {
        self.open.iter().flatten().map(|o| o.1.len()).sum()
    }
}

/// The line that opens a link, in both directions.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// The newest version that its sender speaks.
    pub version: u32,
    /// The oldest.
    pub version_min: u32,
    /// The sender's node id, sixteen hexadecimal digits.
    pub node: String,
    /// The node id that the sender means to reach; empty in an answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// Its server's name.
    pub name: String,
    /// Its server's public key.
    pub server_id: String,
    /// Its cluster.
    pub cluster: String,
    /// A random number, sixteen hexadecimal digits, which is another one in each life of the sender's process.
    pub life: String,
    /// Links with this receiver that the sender has had in this life; in an answer this one is among them.
    pub links: u64,
    /// User name of the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Its password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pass: String,
}

impl Hello {
    /// Appends `PEER {…}\r\n`.
    pub fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(OPENING);
        serde_json::to_writer(&mut *out, self).expect("a hello has no map with keys that are no strings");
        out.extend_from_slice(b"\r\n");
    }
    /// Reads the JSON text.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(json: &[u8]) -> Result<Hello, serde_json::Error> {
        serde_json::from_slice(json)
    }
    /// The version that both ends speak, if there is one.
    #[must_use]
    pub fn agree(&self) -> Option<u32> {
        let version = self.version.min(VERSION);
        (version >= self.version_min.max(VERSION_MIN)).then_some(version)
    }
}

/// Secrets stay out of logs.
impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("version", &self.version)
            .field("node", &self.node)
            .field("name", &self.name)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// Sixteen hexadecimal digits.
#[must_use]
pub fn hex(n: u64) -> String {
    format!("{n:016x}")
}

/// Reads what [`hex`] wrote, and nothing else.
#[must_use]
pub fn unhex(text: &str) -> Option<u64> {
    let plain = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests;
