//! Bytes in and out: fixed-width little-endian numbers, variable-length ones, and a reader that never panics.
//!
//! Owns no format. A reader that meets the end of its input answers `None`; lengths are checked against what is
//! left before anything is allocated, so damaged lengths cannot ask for memory.

/// The number of bytes of a varint at most.
pub(crate) const VARINT_MAX: usize = 10;

/// `n` rounded up to a multiple of `unit`, a power of two.
pub(crate) fn align(n: u64, unit: u64) -> u64 {
    debug_assert!(unit.is_power_of_two());
    (n + unit - 1) & !(unit - 1)
}

/// `N` bytes from `at` on. One look at the length for all of them: each message is read some ten times on its way.
#[inline(always)]
fn part<const N: usize>(b: &[u8], at: usize) -> [u8; N] {
    *b[at..].first_chunk().expect("the caller has looked at the length")
}
#[inline]
pub(crate) fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(part(b, at))
}
#[inline]
pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(part(b, at))
}
#[inline]
pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(part(b, at))
}

/// Appends to a byte vector.
pub(crate) trait Put {
    fn u8(&mut self, v: u8);
    fn u16(&mut self, v: u16);
    fn u32(&mut self, v: u32);
    fn u64(&mut self, v: u64);
    /// Seven bits a byte, the low ones first.
    fn var(&mut self, v: u64);
    /// A signed number, folded so that small ones stay short.
    fn ivar(&mut self, v: i64) {
        self.var(((v << 1) ^ (v >> 63)) as u64);
    }
    /// A length and the bytes.
    fn bytes(&mut self, v: &[u8]);
}

impl Put for Vec<u8> {
    fn u8(&mut self, v: u8) {
        self.push(v);
    }
    fn u16(&mut self, v: u16) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn u32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn var(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.push(v as u8);
    }
    fn bytes(&mut self, v: &[u8]) {
        self.var(v.len() as u64);
        self.extend_from_slice(v);
    }
}

/// Takes numbers off the front of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Get<'a>(pub &'a [u8]);

impl<'a> Get<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (a, b) = self.0.split_at_checked(n)?;
        self.0 = b;
        Some(a)
    }
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32_at(b, 0))
    }
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|b| u64_at(b, 0))
    }
    pub(crate) fn var(&mut self) -> Option<u64> {
        let mut v = 0u64;
        for i in 0..VARINT_MAX {
            let b = self.u8()?;
            // The tenth byte holds the top bit only.
            if i == VARINT_MAX - 1 && b > 1 {
                return None;
            }
            v |= u64::from(b & 0x7f) << (7 * i);
            if b < 0x80 {
                return Some(v);
            }
        }
        None
    }
    pub(crate) fn ivar(&mut self) -> Option<i64> {
        let v = self.var()?;
        Some((v >> 1) as i64 ^ -((v & 1) as i64))
    }
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = usize::try_from(self.var()?).ok()?;
        self.take(n)
    }
    /// A count of things of at least `each` bytes, refused if the input cannot hold them.
    pub(crate) fn count(&mut self, each: usize) -> Option<usize> {
        let n = usize::try_from(self.var()?).ok()?;
        (n <= self.0.len() / each.max(1)).then_some(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(v in any::<u64>(), i in any::<i64>(), b in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            out.var(v);
            out.ivar(i);
            out.bytes(&b);
            out.u64(v);
            let mut g = Get(&out);
            prop_assert_eq!(g.var(), Some(v));
            prop_assert_eq!(g.ivar(), Some(i));
            prop_assert_eq!(g.bytes(), Some(&b[..]));
            prop_assert_eq!(g.u64(), Some(v));
            prop_assert!(g.0.is_empty());
        }
        #[test]
        fn any_input_is_survived(b in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut g = Get(&b);
            while !g.0.is_empty() {
                if g.var().is_none() && g.u8().is_none() { break }
                g.bytes();
            }
        }
    }

    #[test]
    fn counts_are_bounded_by_the_input() {
        let mut out = Vec::new();
        out.var(1 << 40);
        assert_eq!(Get(&out).count(1), None);
        assert_eq!(align(1, 512), 512);
        assert_eq!(align(1024, 512), 1024);
        assert_eq!(Get(&[0xff; 10]).var(), None);
    }
}
