//! The keyed hash: folded 64x64 to 128 bit multiplications, eight bytes at a time.

use std::sync::OnceLock;

/// The process's key.
static KEY: OnceLock<Key> = OnceLock::new();

/// Draws the process's key from `seed`, before anything is hashed; false if it was too late. Without it the key is the same in every process, as a
/// simulation wants it.
pub fn seed(seed: u64) -> bool {
    KEY.set(Key::new(seed)).is_ok()
}

/// The hash of a byte string under the process's key.
#[inline]
#[must_use]
pub fn hash(b: &[u8]) -> u64 {
    KEY.get_or_init(|| Key::new(0)).bytes(b)
}

#[inline(always)]
fn word(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*b[at..].first_chunk().expect("the caller has looked at the length"))
}
#[inline(always)]
fn half(b: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(*b[at..].first_chunk().expect("the caller has looked at the length")))
}

/// The key of one table, spread out of one seed.
#[derive(Clone, Copy)]
pub struct Key {
    a: u64,
    b: u64,
    c: u64,
}

#[inline(always)]
fn fold(x: u64, y: u64) -> u64 {
    let p = u128::from(x) * u128::from(y);
    (p as u64) ^ ((p >> 64) as u64)
}

impl Key {
    /// A key from a seed, spread with splitmix64 so that near seeds give unlike keys.
    #[must_use]
    pub fn new(seed: u64) -> Key {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Key { a: next(), b: next(), c: next() }
    }

    /// The hash of a byte string.
    #[inline]
    #[must_use]
    pub fn bytes(&self, s: &[u8]) -> u64 {
        let n = s.len();
        let (x, y, mut acc) = if n >= 16 {
            let mut acc = self.a;
            let mut i = 0;
            while i + 16 < n {
                acc = fold(word(s, i) ^ self.b, word(s, i + 8) ^ acc);
                i += 16;
            }
            (word(s, n - 16), word(s, n - 8), acc)
        } else if n >= 8 {
            (word(s, 0), word(s, n - 8), self.a)
        } else if n >= 4 {
            (half(s, 0), half(s, n - 4), self.a)
        } else if n > 0 {
            (u64::from(s[0]) | u64::from(s[n / 2]) << 8 | u64::from(s[n - 1]) << 16, 0, self.a)
        } else {
            (0, 0, self.a)
        };
        acc = fold(x ^ self.b, y ^ acc);
        fold(acc ^ self.c, self.b ^ n as u64)
    }

    /// The hash of the edge that leaves node `parent` by a token whose own hash is `token`.
    #[inline(always)]
    #[must_use]
    pub fn edge(&self, parent: u32, token: u64) -> u64 {
        fold(token ^ self.a, self.c ^ u64::from(parent))
    }
}

/// The 32 bits of a hash that a table keeps beside an entry's id, and from whose top it derives the position.
#[inline(always)]
#[must_use]
pub fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn spreads_near_strings_and_depends_on_the_seed() {
        let (k, other) = (Key::new(1), Key::new(2));
        let mut tops = BTreeSet::new();
        for i in 0..4096 {
            let s = format!("s.{}.{}", i / 64, i % 64);
            assert_ne!(k.bytes(s.as_bytes()), other.bytes(s.as_bytes()));
            tops.insert(k.bytes(s.as_bytes()) >> 52);
        }
        // 4096 draws of 4096 places leave about 1 - 1/e of them taken: 2589, with a deviation of 31.
        assert!((2400..2780).contains(&tops.len()), "{}", tops.len());
    }

    #[test]
    fn every_byte_and_the_length_count() {
        let k = Key::new(7);
        for n in 0..70 {
            let s = vec![b'a'; n];
            let mut seen = BTreeSet::from([k.bytes(&s), k.bytes(&vec![b'a'; n + 1])]);
            for i in 0..n {
                let mut t = s.clone();
                t[i] = b'b';
                seen.insert(k.bytes(&t));
            }
            assert_eq!(seen.len(), n + 2, "length {n}");
        }
        assert_ne!(k.edge(1, 5), k.edge(2, 5));
    }
}
