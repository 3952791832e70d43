//! The compression of backups, around [`wire::s2`]: blocks of one size whatever the sizes of what is put in, and errors in nats-server's words.

use wire::s2::{Decoder, Encoder, Error, Level, WRITE_BYTES_MAX};

/// What nats-server says of all that is wrong inside.
pub const CORRUPT: &str = "s2: corrupt input";

/// Compresses what is put into it.
pub struct Writer {
    raw: Vec<u8>,
    out: Vec<u8>,
    to: Encoder,
}

impl Default for Writer {
    fn default() -> Self {
        Writer { raw: Vec::new(), out: Vec::new(), to: Encoder::new(Level::Fast) }
    }
}

impl Writer {
    /// Adds bytes.
    pub fn put(&mut self, mut b: &[u8]) {
        while self.raw.len() + b.len() >= WRITE_BYTES_MAX {
            let (now, later) = b.split_at(WRITE_BYTES_MAX - self.raw.len());
            self.raw.extend_from_slice(now);
            self.seal();
            b = later;
        }
        self.raw.extend_from_slice(b);
    }
    /// All that was put in goes out.
    pub fn seal(&mut self) {
        self.to.push(&mut self.out, &self.raw);
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
pub struct Reader(Decoder);

impl Reader {
    /// Takes a piece, and appends what is whole to `out`.
    ///
    /// # Errors
    /// Why it is no such stream.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        self.0.push(piece);
        while self.0.next(out).map_err(|e| if e == Error::Checksum { "s2: crc mismatch" } else { CORRUPT })? {
        }
        Ok(())
    }
    /// Whether it ends where a chunk ends.
    pub fn is_whole(&self) -> bool {
        self.0.is_whole()
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(read(&all[..all.len() - 1], 4096), Err("short"));
        let mut bad = all.clone();
        bad[500] ^= 1;
        assert!(read(&bad, 4096).is_err());
        // The checksum of the first block stands behind the name and the chunk's head.
        let mut bad = all.clone();
        bad[14] ^= 1;
        assert_eq!(read(&bad, 4096), Err("s2: crc mismatch"));
        assert_eq!(read(b"garbage garbage", 100), Err(CORRUPT));
    }

    #[test]
    fn nothing_is_a_stream_too() {
        let mut w = Writer::default();
        w.seal();
        assert_eq!(read(&w.take(usize::MAX), 100).unwrap(), b"");
    }
}
