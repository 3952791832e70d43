//! The stream format of S2, of which Snappy's framing is a part: routes speak it once both ends have agreed to compress, and backups of
//! streams are written in it. It frames blocks (chunks); the blocks themselves are the `minlz` crate's work.
//!
//! A stream begins with its name and may name itself again anywhere, as nats-server does with every write. Invariant:
//! * W-3: what a stream holds before it is decoded, and what one call decodes, is bounded by one block: nothing a peer sends makes
//!   either larger.

/// How hard a writer tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Framed and checked, but not compressed.
    Uncompressed,
    /// Little time.
    Fast,
    /// About twice the time, somewhat smaller.
    Better,
    /// Much time.
    Best,
}

impl Level {
    /// Its name in INFO and in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Level::Uncompressed => "s2_uncompressed",
            Level::Fast => "s2_fast",
            Level::Better => "s2_better",
            Level::Best => "s2_best",
        }
    }
}

/// The chunk that names the stream.
const NAME: &[u8; 10] = b"\xff\x06\x00\x00S2sTwO";
/// The name of a stream without what S2 adds to Snappy.
const OLD_NAME: &[u8] = b"sNaPpY";
const COMPRESSED: u8 = 0x00;
const UNCOMPRESSED: u8 = 0x01;
/// Chunk types from here on may be skipped; below it, unknown ones may not.
const SKIPPABLE_MIN: u8 = 0x80;
const STREAM_NAME: u8 = 0xff;
/// Type and length.
const HEAD_BYTES: usize = 4;
/// Before a block: what its plaintext's checksum must be.
const CHECKSUM_BYTES: usize = 4;
/// Largest plaintext of a block, in bytes, by the format.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;
/// Largest chunk that holds one: what cannot be compressed grows by a sixth at most.
const CHUNK_BYTES_MAX: usize = CHECKSUM_BYTES + 32 + BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / 6;
/// Largest plaintext of the blocks that are written, in bytes.
pub const WRITE_BYTES_MAX: usize = 64 << 10;
/// Below that a block is not worth the attempt.
const WORTH_BYTES_MIN: usize = 32;

/// What is wrong with a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// It does not begin with its name, or goes on with what has no meaning.
    NotS2,
    /// A chunk or a block is larger than the format allows.
    TooLarge,
    /// A block cannot be decoded.
    Damaged,
    /// A block does not hold what it held when it was written.
    Checksum,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Error::NotS2 => "not an S2 stream",
            Error::TooLarge => "a block of the S2 stream is too large",
            Error::Damaged => "a block of the S2 stream is damaged",
            Error::Checksum => "a block of the S2 stream does not have its checksum",
        })
    }
}

impl std::error::Error for Error {}

/// The checksum as the format wants it.
fn checksum(plain: &[u8]) -> u32 {
    checksum::crc32c(plain).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The writing side of a stream.
pub struct Encoder {
    /// How hard it tries.
    pub level: Level,
    begun: bool,
}

impl Encoder {
    /// A stream that has not begun.
    pub fn new(level: Level) -> Encoder {
        Encoder { level, begun: false }
    }
    /// Appends chunks that hold `plain`.
    pub fn push(&mut self, out: &mut Vec<u8>, plain: &[u8]) {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(NAME);
        }
        for block in plain.chunks(WRITE_BYTES_MAX) {
            let packed = match self.level {
                _ if block.len() < WORTH_BYTES_MIN => None,
                Level::Uncompressed => None,
                Level::Fast => Some(minlz::s2::encode(block)),
                Level::Better => Some(minlz::s2::encode_better(block)),
                Level::Best => Some(minlz::s2::encode_best(block)),
            };
            // Less than an eighth saved is not worth the reader's time.
            let packed = packed.as_deref().filter(|p| p.len() < block.len() - block.len() / 8);
            chunk(out, packed.map_or(UNCOMPRESSED, |_| COMPRESSED), block, packed.unwrap_or(block));
        }
    }
}

fn chunk(out: &mut Vec<u8>, kind: u8, plain: &[u8], body: &[u8]) {
    let len = (CHECKSUM_BYTES + body.len()) as u32;
    out.push(kind);
    out.extend_from_slice(&len.to_le_bytes()[..3]);
    out.extend_from_slice(&checksum(plain).to_le_bytes());
    out.extend_from_slice(body);
}

/// The reading side of a stream: bytes go in as they come, blocks come out.
#[derive(Default, Debug)]
pub struct Decoder {
    raw: Vec<u8>,
    at: usize,
    /// Bytes of a chunk without meaning that are still to come.
    skip: usize,
    named: bool,
}

impl Decoder {
    /// Takes bytes. The caller decodes what is whole before it reads more (W-3).
    pub fn push(&mut self, mut bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        bytes = &bytes[skipped..];
        if self.at > 0 {
            self.raw.drain(..self.at);
            self.at = 0;
        }
        self.raw.extend_from_slice(bytes);
    }
    /// The chunk at the front: its type and length, if these have come.
    fn head(&self) -> Option<(u8, usize)> {
        let (head, _) = self.raw[self.at..].split_first_chunk::<HEAD_BYTES>()?;
        Some((head[0], usize::from(head[1]) | usize::from(head[2]) << 8 | usize::from(head[3]) << 16))
    }
    /// What is wrong with a chunk by its head alone.
    fn wrong(&self, kind: u8, len: usize) -> Option<Error> {
        match kind {
            STREAM_NAME => (len != OLD_NAME.len()).then_some(Error::NotS2),
            _ if !self.named => Some(Error::NotS2),
            // W-3
            COMPRESSED | UNCOMPRESSED => (len > CHUNK_BYTES_MAX).then_some(Error::TooLarge),
            _ => (!is_skipped(kind)).then_some(Error::NotS2),
        }
    }
    /// Whether [`Decoder::next`] would get on without more bytes.
    pub fn has_more(&self) -> bool {
        self.head().is_some_and(|(kind, len)| {
            is_skipped(kind)
                || self.wrong(kind, len).is_some()
                || self.raw.len() - self.at >= HEAD_BYTES + len
        })
    }
    /// Whether the stream ends with the end of a chunk.
    pub fn is_whole(&self) -> bool {
        self.skip == 0 && self.at == self.raw.len()
    }
    /// Decodes the next chunk to the end of `out`. False if it has not come whole.
    ///
    /// # Errors
    /// What is wrong with the stream; it cannot be read any further.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, Error> {
        let Some((kind, len)) = self.head() else { return Ok(self.rest()) };
        if let Some(e) = self.wrong(kind, len) {
            return Err(e);
        }
        let have = self.raw.len() - self.at - HEAD_BYTES;
        if is_skipped(kind) {
            let here = len.min(have);
            self.skip = len - here;
            self.at += HEAD_BYTES + here;
            return Ok(true);
        }
        if have < len {
            return Ok(self.rest());
        }
        let body = &self.raw[self.at + HEAD_BYTES..][..len];
        match kind {
            STREAM_NAME if body == &NAME[HEAD_BYTES..] || body == OLD_NAME => self.named = true,
            STREAM_NAME => return Err(Error::NotS2),
            _ => block(kind == COMPRESSED, body, out)?,
        }
        self.at += HEAD_BYTES + len;
        Ok(true)
    }
    /// Nothing whole is left: an empty decoder holds no memory.
    fn rest(&mut self) -> bool {
        if self.at == self.raw.len() {
            (self.raw, self.at) = (Vec::new(), 0);
        }
        false
    }
    /// Memory held, in bytes.
    #[cfg(test)]
    fn held_bytes(&self) -> usize {
        self.raw.capacity()
    }
}

fn is_skipped(kind: u8) -> bool {
    (SKIPPABLE_MIN..STREAM_NAME).contains(&kind)
}

fn block(compressed: bool, body: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let (sum, body) = body.split_first_chunk::<CHECKSUM_BYTES>().ok_or(Error::Damaged)?;
    let before = out.len();
    if compressed {
        let (len, _) = minlz::s2::decode_len(body).map_err(|_| Error::Damaged)?;
        if len > BLOCK_BYTES_MAX {
            return Err(Error::TooLarge);
        }
        out.resize(before + len, 0);
        minlz::s2::decode_into(&mut out[before..], body).map_err(|_| Error::Damaged)?;
    } else if body.len() > BLOCK_BYTES_MAX {
        return Err(Error::TooLarge);
    } else {
        out.extend_from_slice(body);
    }
    if checksum(&out[before..]) != u32::from_le_bytes(*sum) {
        return Err(Error::Checksum);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEVELS: [Level; 4] = [Level::Uncompressed, Level::Fast, Level::Better, Level::Best];

    fn decode(pieces: &[&[u8]]) -> Result<Vec<u8>, Error> {
        let (mut d, mut out) = (Decoder::default(), Vec::new());
        for p in pieces {
            d.push(p);
            while d.has_more() {
                d.next(&mut out)?;
            }
            assert!(!d.next(&mut out)?);
        }
        Ok(out)
    }

    #[test]
    fn what_nats_server_writes_is_read() {
        let ping = b"\xff\x06\x00\x00S2sTwO\x01\n\x00\x00\xab\x90\xcc$PING\r\n";
        let pong = b"\xff\x06\x00\x00S2sTwO\x01\n\x00\x00\xf5o\x1b\xe4PONG\r\n";
        assert_eq!(decode(&[ping, pong]).unwrap(), b"PING\r\nPONG\r\n");
        let mut out = Vec::new();
        Encoder::new(Level::Fast).push(&mut out, b"PING\r\n");
        assert_eq!(out, ping);
    }

    #[test]
    fn repeated_offsets_are_understood() {
        // abcd, a copy of 4 from 4 back, a repeat of 5 + 4 from as far, and one of 300 + 256 + 4.
        let total = 4 + 4 + 9 + 560;
        let mut b = vec![0x80 | (total & 0x7f) as u8, (total >> 7) as u8, 0x0c];
        b.extend(b"abcd");
        b.extend([1, 4]);
        b.extend([1 | 5 << 2, 0, 1]);
        b.extend([1 | 6 << 2, 0, 0x2c, 1]);
        let want: Vec<u8> = b"abcd".iter().copied().cycle().take(total).collect();
        let mut wire = NAME.to_vec();
        chunk(&mut wire, COMPRESSED, &want, &b);
        assert_eq!(decode(&[&wire]).unwrap(), want);
    }

    #[test]
    fn what_cannot_be_right_is_refused_at_once() {
        for wrong in [&b"garb"[..], b"\xfe\xff\xff\x00", b"\xff\xff\xff\x00"] {
            let mut d = Decoder::default();
            d.push(wrong);
            assert!(d.has_more());
            assert_eq!(d.next(&mut Vec::new()), Err(Error::NotS2), "{wrong:?}");
        }
    }

    #[test]
    fn w3_what_is_wrong_or_too_large_is_refused_and_nothing_grows() {
        assert!(decode(&[b"INFO {}\r\n"]).is_err());
        assert!(decode(&[b"\x01\x05\x00\x00abcde"]).is_err(), "without a name");
        let with = |more: &[u8]| [NAME, more].concat();
        for wrong in [
            &with(b"\x01\x0a\x00\x00\xab\x90\xcc$PONG\r\n")[..],
            &with(b"\x00\xff\xff\xff"),
            &with(b"\x02\x01\x00\x00x"),
            &with(b"\x01\x01\x00\x00x"),
            // A block that says that it holds 4 GiB.
            &with(b"\x00\x0a\x00\x00abcd\xff\xff\xff\xff\x0fx"),
            b"\xff\x06\x00\x00S2sTwo",
        ] {
            assert!(decode(&[wrong]).is_err(), "W-3 {wrong:?}");
        }
        // What may be skipped is skipped, however it comes, and not kept.
        let mut d = Decoder::default();
        let mut out = Vec::new();
        d.push(&with(b"\xfe\x00\x00\x10"));
        while d.has_more() {
            d.next(&mut out).unwrap();
        }
        for _ in 0..16 {
            d.push(&[0; 64 << 10]);
            assert!(!d.next(&mut out).unwrap() && d.held_bytes() <= 64 << 10, "W-3");
        }
        d.push(b"\x01\n\x00\x00\xab\x90\xcc$PING\r\n");
        assert!(d.next(&mut out).unwrap());
        assert_eq!(out, b"PING\r\n");
    }

    #[test]
    fn blocks_that_repeat_come_back() {
        for level in LEVELS {
            for n in [0, 1, 31, 32, 1000, WRITE_BYTES_MAX, WRITE_BYTES_MAX + 1, 300_000] {
                let plain: Vec<u8> =
                    b"RMSG $G a.subject 5\r\nhello\r\n".iter().copied().cycle().take(n).collect();
                let mut out = Vec::new();
                Encoder::new(level).push(&mut out, &plain);
                assert_eq!(decode(&[&out]).unwrap(), plain, "{level:?} {n}");
                let packs = level != Level::Uncompressed && n >= 1000;
                assert!(!packs || out.len() < n / 4, "{level:?} {n}: {}", out.len());
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back_in_any_pieces(
            parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), 1usize..200), 0..20),
            level in 0usize..4,
            cut in any::<prop::sample::Index>(),
        ) {
            let (mut wire, mut all, mut e) = (Vec::new(), Vec::new(), Encoder::new(LEVELS[level]));
            for (text, times) in &parts {
                let plain = text.repeat(*times);
                e.push(&mut wire, &plain);
                all.extend_from_slice(&plain);
            }
            let cut = cut.index(wire.len() + 1);
            prop_assert_eq!(decode(&[&wire[..cut], &wire[cut..]]).unwrap(), all);
        }

        #[test]
        fn blocks_of_snappy_are_read(b in prop::collection::vec(0u8..4, 0..3000)) {
            let packed = snap::raw::Encoder::new().compress_vec(&b).unwrap();
            let mut wire = [&NAME[..HEAD_BYTES], OLD_NAME].concat();
            chunk(&mut wire, COMPRESSED, &b, &packed);
            prop_assert_eq!(decode(&[&wire]).unwrap(), b);
        }

        #[test]
        fn nonsense_is_refused_or_read_and_never_more(mut wire in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..2) {
            let mut stream = NAME.to_vec();
            let len = (wire.len() as u32).to_le_bytes();
            stream.push(kind);
            stream.extend_from_slice(&len[..3]);
            stream.append(&mut wire);
            if let Ok(out) = decode(&[&stream]) {
                prop_assert!(out.len() <= BLOCK_BYTES_MAX);
            }
        }

        #[test]
        fn a_changed_byte_shows(text in prop::collection::vec(0u8..4, 40..400), at in any::<prop::sample::Index>(), by in 1u8..) {
            let mut wire = Vec::new();
            Encoder::new(Level::Fast).push(&mut wire, &text);
            let i = at.index(wire.len());
            wire[i] ^= by;
            // A type that may be skipped takes the block with it; anything else is found or changes nothing.
            let read = decode(&[&wire]);
            prop_assert!(read.is_err() || read.as_ref().is_ok_and(|r| r.is_empty() || *r == text), "{:?}", read);
        }
    }
}
