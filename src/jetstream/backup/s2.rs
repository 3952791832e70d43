//! The framing and compression of backups: S2 streams, of which Snappy's framing is a part.
//!
//! Owns the chunks with their checksums, the decoder of S2 blocks, and bounds on both. Writes blocks that any Snappy or S2 reader reads. What is
//! read is checked against its checksum before anybody sees it.

use bytes::BufMut;

/// What a stream begins with: a chunk of type 0xff.
const MAGIC: &[u8] = b"\xff\x06\x00\x00S2sTwO";
const MAGIC_SNAPPY: &[u8] = b"sNaPpY";
/// Bytes of a block that is written.
pub const BLOCK: usize = 64 << 10;
/// Bytes that a block that is read may hold, and a chunk around it.
const BLOCK_MAX: usize = 4 << 20;
const CHUNK_MAX: usize = BLOCK_MAX + (1 << 20);

const COMPRESSED: u8 = 0x00;
const PLAIN: u8 = 0x01;
const STREAM_ID: u8 = 0xff;

/// What nats-server says of all that is wrong inside.
pub const CORRUPT: &str = "s2: corrupt input";

fn checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Compresses what is put into it.
#[derive(Default)]
pub struct Writer {
    raw: Vec<u8>,
    out: Vec<u8>,
    begun: bool,
}

impl Writer {
    /// Adds bytes.
    pub fn put(&mut self, mut b: &[u8]) {
        while self.raw.len() + b.len() >= BLOCK {
            let (now, later) = b.split_at(BLOCK - self.raw.len());
            self.raw.extend_from_slice(now);
            self.seal();
            b = later;
        }
        self.raw.extend_from_slice(b);
    }
    /// All that was put in goes out.
    pub fn seal(&mut self) {
        if !self.begun {
            self.begun = true;
            self.out.extend_from_slice(MAGIC);
        }
        if self.raw.is_empty() {
            return;
        }
        let packed = snap::raw::Encoder::new().compress_vec(&self.raw).unwrap_or_default();
        // What does not become shorter by an eighth is not worth the reader's time.
        let (kind, body) = match !packed.is_empty() && packed.len() < self.raw.len() / 8 * 7 {
            true => (COMPRESSED, &packed),
            false => (PLAIN, &self.raw),
        };
        self.out.put_u8(kind);
        self.out.put_uint_le(body.len() as u64 + 4, 3);
        self.out.put_u32_le(checksum(&self.raw));
        self.out.extend_from_slice(body);
        self.raw.clear();
    }
    /// Bytes that can go.
    pub fn len(&self) -> usize {
        self.out.len()
    }
    /// Takes the first `n` of them, or all.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        let rest = self.out.split_off(n.min(self.out.len()));
        std::mem::replace(&mut self.out, rest)
    }
}

/// Reads what comes in pieces of any size.
#[derive(Default)]
pub struct Reader {
    held: Vec<u8>,
    begun: bool,
}

impl Reader {
    /// Takes a piece, and appends what is whole to `out`.
    ///
    /// # Errors
    /// Why it is no such stream.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        self.held.extend_from_slice(piece);
        let mut at = 0;
        while let Some(head) = self.held[at..].first_chunk::<4>() {
            let len = usize::from(head[1]) | usize::from(head[2]) << 8 | usize::from(head[3]) << 16;
            if len > CHUNK_MAX || !self.begun && head[0] != STREAM_ID {
                return Err(CORRUPT);
            }
            let Some(body) = self.held[at + 4..].get(..len) else { break };
            match head[0] {
                STREAM_ID if body == &MAGIC[4..] || body == MAGIC_SNAPPY => self.begun = true,
                COMPRESSED | PLAIN => {
                    let (sum, data) = body.split_first_chunk::<4>().ok_or(CORRUPT)?;
                    let from = out.len();
                    match head[0] {
                        PLAIN if data.len() <= BLOCK_MAX => out.extend_from_slice(data),
                        PLAIN => return Err(CORRUPT),
                        _ => block(data, out).ok_or(CORRUPT)?,
                    }
                    if checksum(&out[from..]) != u32::from_le_bytes(*sum) {
                        return Err("s2: crc mismatch");
                    }
                }
                // Padding, an index, and what a reader may pass over.
                0x80..=0xfe => {}
                _ => return Err(CORRUPT),
            }
            at += 4 + len;
        }
        self.held.drain(..at);
        Ok(())
    }
    /// Whether it ends where a chunk ends.
    pub fn is_whole(&self) -> bool {
        self.held.is_empty()
    }
}

fn length(b: &[u8]) -> Option<(usize, &[u8])> {
    let mut n = 0usize;
    for (i, x) in b.iter().enumerate().take(5) {
        n |= usize::from(x & 0x7f) << (7 * i);
        if *x < 0x80 {
            return Some((n, &b[i + 1..]));
        }
    }
    None
}

/// Appends the contents of a block; `None` if it is damaged. S2 differs from Snappy in copies with the offset of the one before.
fn block(b: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (size, mut b) = length(b)?;
    if size > BLOCK_MAX {
        return None;
    }
    let start = out.len();
    let end = start + size;
    out.reserve(size);
    let mut offset = 0usize;
    fn number(b: &mut &[u8], n: usize) -> Option<usize> {
        let (head, rest) = b.split_at_checked(n)?;
        *b = rest;
        Some(head.iter().rev().fold(0, |v, x| v << 8 | usize::from(*x)))
    }
    while let Some((tag, rest)) = b.split_first() {
        b = rest;
        let high = usize::from(tag >> 2);
        let len = match tag & 3 {
            0 => {
                let len = if high < 60 { high } else { number(&mut b, high - 59)? } + 1;
                let (now, rest) = b.split_at_checked(len)?;
                if out.len() + len > end {
                    return None;
                }
                out.extend_from_slice(now);
                b = rest;
                continue;
            }
            1 => {
                let to = (high >> 3) << 8 | number(&mut b, 1)?;
                let mut len = high & 7;
                if to > 0 {
                    offset = to;
                } else {
                    len = match len {
                        5 => number(&mut b, 1)? + 4,
                        6 => number(&mut b, 2)? + (1 << 8),
                        7 => number(&mut b, 3)? + (1 << 16),
                        short => short,
                    };
                }
                len + 4
            }
            2 => {
                offset = number(&mut b, 2)?;
                high + 1
            }
            _ => {
                offset = number(&mut b, 4)?;
                high + 1
            }
        };
        let from = out.len().checked_sub(offset).filter(|from| *from >= start && offset > 0)?;
        if out.len() + len > end {
            return None;
        }
        // The copy may overlap what it makes.
        let mut done = 0;
        while done < len {
            let n = (out.len() - from - done).min(len - done);
            out.extend_from_within(from + done..from + done + n);
            done += n;
        }
    }
    (out.len() == end).then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(b: &[u8], piece: usize) -> Result<Vec<u8>, &'static str> {
        let (mut r, mut out) = (Reader::default(), Vec::new());
        for p in b.chunks(piece) {
            r.push(p, &mut out)?;
        }
        if r.is_whole() { Ok(out) } else { Err("short") }
    }

    #[test]
    fn what_is_written_is_read() {
        let text: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7 % 251).to_le_bytes()).collect();
        let mut w = Writer::default();
        text.chunks(999).for_each(|c| w.put(c));
        w.seal();
        let all = w.take(usize::MAX);
        assert!(all.len() < text.len() / 2);
        for piece in [1 << 20, 1000, 7] {
            assert_eq!(read(&all, piece).unwrap(), text);
        }
        // Any Snappy reader takes it but for the name.
        let mut snappy = all.clone();
        snappy[4..10].copy_from_slice(MAGIC_SNAPPY);
        let mut out = Vec::new();
        std::io::Read::read_to_end(&mut snap::read::FrameDecoder::new(&snappy[..]), &mut out).unwrap();
        assert_eq!(out, text);
        let mut bad = all.clone();
        bad[500] ^= 1;
        assert!(read(&bad, 4096).is_err());
        assert_eq!(read(b"garbage garbage", 100), Err(CORRUPT));
    }

    #[test]
    fn repeated_offsets_of_s2_are_understood() {
        // abcd, a copy of 4 from 4 back, a repeat of 5 + 4 from as far, and one of 300 + 256 + 4.
        let mut b = vec![0xb9, 0x04, 0x0c];
        b.extend(b"abcd");
        b.extend([1, 4]);
        b.extend([1 | 5 << 2, 0, 1]);
        b.extend([1 | 6 << 2, 0, 0x2c, 1]);
        let mut out = b"before".to_vec();
        let total = 4 + 4 + 9 + 560;
        b[0] = 0x80 | (total & 0x7f) as u8;
        b[1] = (total >> 7) as u8;
        block(&b, &mut out).unwrap();
        let want: Vec<u8> = b"abcd".iter().copied().cycle().take(total).collect();
        assert_eq!(&out[6..], want);
        assert_eq!(&out[..6], b"before");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn bytes_do_no_harm(b in proptest::collection::vec(any::<u8>(), 0..200)) {
            block(&b, &mut Vec::new());
            let mut all = MAGIC.to_vec();
            all.extend_from_slice(&b);
            read(&all, 50).ok();
        }
        #[test]
        fn snappy_blocks_are_blocks(b in proptest::collection::vec(0u8..4, 0..3000)) {
            let packed = snap::raw::Encoder::new().compress_vec(&b).unwrap();
            let mut out = Vec::new();
            prop_assert_eq!(block(&packed, &mut out), Some(()));
            prop_assert_eq!(out, b);
        }
    }
}
