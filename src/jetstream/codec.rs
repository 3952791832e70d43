//! Bytes of the engine's own: what goes into the meta group's log and over the links to other nodes.
//!
//! Owns how they are written. What is small and not hot (commands, calls, the meta group's state) is written by bincode, behind a byte with the format's
//! version; what goes with each forwarded message by hand. Both stand in the envelope of whoever carries them (an entry, a frame, a checkpoint), which has the
//! length and the checksum. Reading never panics: what does not fit, is too long or has something behind it is `None`.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// A value is never longer than this, in bytes: nothing claims more memory than that when it is read.
const MAX: usize = 256 << 20;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX>()
}

/// A value behind its format's version.
pub fn encode<T: Serialize>(format: u8, value: &T) -> Bytes {
    let mut out = vec![format];
    bincode::serde::encode_into_std_write(value, &mut out, config()).expect("plain data goes into memory");
    out.into()
}
/// Reads what [`encode`] wrote with the same version.
pub fn decode<T: DeserializeOwned>(format: u8, b: &[u8]) -> Option<T> {
    let (first, rest) = b.split_first()?;
    let (value, len) = (*first == format).then(|| bincode::serde::decode_from_slice(rest, config()))?.ok()?;
    (len == rest.len()).then_some(value)
}

/// Bytes behind their length.
pub fn put(out: &mut Vec<u8>, b: &[u8]) {
    let len = u32::try_from(b.len()).expect("names and messages are shorter than 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(b);
}

/// Reads what [`put`] wrote.
pub struct Get<'a>(pub &'a [u8]);

impl<'a> Get<'a> {
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (a, b) = self.0.split_at_checked(n)?;
        self.0 = b;
        Some(a)
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()?;
        self.take(usize::try_from(n).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_what_is_refused() {
        let b = encode(3, &(7u64, "ab", vec![300u64], None::<u8>));
        assert_eq!(&b[..], [3, 7, 2, b'a', b'b', 1, 251, 44, 1, 0]);
        type T = (u64, String, Vec<u64>, Option<u8>);
        assert_eq!(decode::<T>(3, &b), Some((7, "ab".into(), vec![300], None)));
        assert_eq!(decode::<T>(2, &b), None, "another version");
        for cut in 0..b.len() {
            assert_eq!(decode::<T>(3, &b[..cut]), None, "cut at {cut}");
        }
        assert_eq!(decode::<T>(3, &[&b[..], &[0]].concat()), None, "something behind it");
        // A list that says that it has 2^60 items.
        let long = [&[3, 253][..], &(1u64 << 60).to_le_bytes(), &[1; 40]].concat();
        assert_eq!(decode::<Vec<u64>>(3, &long), None);
    }
}
