//! A queue of byte strings in one buffer, so that remembering one costs a copy and no allocation.

/// Byte strings, added behind and freed in front. Places are absolute: they stay valid while their string lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
    /// The place of `bytes[0]`.
    base: u64,
    /// How many of the bytes in front are free.
    free: usize,
}

impl Arena {
    /// Adds a string; its place.
    pub fn push(&mut self, b: &[u8]) -> u64 {
        let at = self.end();
        self.bytes.extend_from_slice(b);
        at
    }

    /// Where the next string will be.
    pub fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    pub fn get(&self, at: u64, len: usize) -> &[u8] {
        let from = (at - self.base) as usize;
        &self.bytes[from..from + len]
    }

    /// The place of which the lowest `bits` bits are these: the first such that is not free. Less than that many bytes must be held.
    pub fn whole(&self, low: u64, bits: u32) -> u64 {
        self.base + (low.wrapping_sub(self.base) & ((1 << bits) - 1))
    }

    /// Frees all before a place.
    pub fn free_to(&mut self, at: u64) {
        self.free = (at - self.base) as usize;
        // Moving is paid for by at least as many bytes freed.
        if self.free == self.bytes.len() || self.free >= 4096 && self.free * 2 >= self.bytes.len() {
            self.bytes.drain(..self.free);
            self.base += self.free as u64;
            self.free = 0;
            if self.bytes.is_empty() && self.bytes.capacity() > 64 * 1024 {
                self.bytes = Vec::new();
            }
        }
    }

    /// Takes back all from a place on.
    pub fn truncate(&mut self, at: u64) {
        self.bytes.truncate((at - self.base) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_valid() {
        let mut a = Arena::default();
        let places: Vec<u64> = (0..10_000u32).map(|n| a.push(&n.to_le_bytes())).collect();
        for (n, at) in places.iter().enumerate() {
            assert_eq!(a.get(*at, 4), (n as u32).to_le_bytes());
            a.free_to(at + 4);
            if let Some(last) = places.last().filter(|last| *last > at) {
                assert_eq!(a.get(*last, 4), 9999u32.to_le_bytes());
            }
        }
        assert_eq!(a.end(), 40_000);
        let at = a.push(b"x");
        a.truncate(at);
        assert_eq!(a.push(b"y"), at);
        assert_eq!(a.get(at, 1), b"y");
        // The place of which only the lower bits are known, also where they have begun anew since.
        for bits in [1, 4, 16, 36] {
            assert_eq!(a.whole(at & ((1 << bits) - 1), bits), at);
        }
    }
}
