//! Numbers by hash, in one array that is looked through from where the hash says.
//!
//! Owns which place is whose, and not what the numbers stand for: the caller compares. What is looked for and what is added next stand in the same
//! line of memory, so that one wait is enough for both, and who knows what comes next can begin it ahead ([`Table::touch`]).

use std::hint::black_box;

/// A hash in the upper half, never 0, and a number in the lower one; 0 where nothing is.
type Slot = u64;

/// Slots of the smallest table.
const MIN: usize = 16;

/// Several numbers may have one hash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// None, or a power of two of them; at most three quarters are used.
    slots: Vec<Slot>,
    used: usize,
}

fn slot(hash: u32, number: u32) -> Slot {
    u64::from(hash.max(1)) << 32 | u64::from(number)
}

impl Table {
    /// Where a hash's numbers begin. The highest bits say it, so that the slots of a table of twice the size are in the same order.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        let bits = self.slots.len().trailing_zeros();
        (u64::from(hash.max(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize
    }
    #[inline]
    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// The place of the number with this hash that is the right one.
    #[inline]
    fn place(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let s = self.slots[at];
            if s == 0 {
                return None;
            }
            if s >> 32 == u64::from(hash.max(1)) && is(s as u32) {
                return Some(at);
            }
            at = self.next(at);
        }
    }

    /// The number with this hash that is the right one.
    #[inline]
    pub fn find(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.place(hash, is).map(|at| self.slots[at] as u32)
    }

    /// Reads where a hash's numbers begin, so that it is at hand when it is asked for.
    #[inline]
    pub fn touch(&self, hash: u32) {
        if !self.slots.is_empty() {
            black_box(self.slots[self.home(hash)]);
        }
    }

    /// Adds a number.
    #[inline]
    pub fn insert(&mut self, hash: u32, number: u32) {
        if self.used * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        self.put(slot(hash, number));
        self.used += 1;
    }

    #[inline]
    fn put(&mut self, s: Slot) {
        let mut at = self.home((s >> 32) as u32);
        while self.slots[at] != 0 {
            at = self.next(at);
        }
        self.slots[at] = s;
    }

    #[cold]
    fn grow(&mut self) {
        let twice = (2 * self.slots.len()).max(MIN);
        let old = std::mem::replace(&mut self.slots, vec![0; twice]);
        old.into_iter().filter(|s| *s != 0).for_each(|s| self.put(s));
    }

    /// Gives the number that is the right one another; whether there was one.
    #[inline]
    pub fn replace(&mut self, hash: u32, number: u32, is: impl Fn(u32) -> bool) -> bool {
        let found = self.place(hash, is);
        if let Some(at) = found {
            self.slots[at] = slot(hash, number);
        }
        found.is_some()
    }

    /// Takes a number out, if it is there.
    pub fn remove(&mut self, hash: u32, number: u32) {
        let Some(mut hole) = self.place(hash, |n| n == number) else { return };
        let (mut at, mask) = (self.next(hole), self.slots.len() - 1);
        // What stands behind moves up, unless it would stand before where it is looked for.
        while self.slots[at] != 0 {
            let home = self.home((self.slots[at] >> 32) as u32);
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.slots[hole] = 0;
        self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // Few hashes, so that many stand in each other's way; with 0 among them, which no slot can say.
        #[test]
        fn holds_what_a_list_holds(steps in proptest::collection::vec((0u8..4, 0u32..12, 0u32..40), 1..400)) {
            let mut t = Table::default();
            let mut list: Vec<(u32, u32)> = Vec::new();
            let wide = |h: u32| h.wrapping_mul(0x1003_0f01);
            for (what, h, n) in steps {
                let hash = wide(h);
                let known = list.iter().position(|e| *e == (hash, n));
                match (what, known) {
                    (0, _) => {
                        t.remove(hash, n);
                        known.map(|i| list.remove(i));
                    }
                    (1, Some(i)) => {
                        let other = n + 1000;
                        prop_assert!(t.replace(hash, other, |m| m == n));
                        list[i].1 = other;
                    }
                    (_, None) => {
                        prop_assert!(!t.replace(hash, 7, |m| m == n));
                        t.touch(hash);
                        t.insert(hash, n);
                        list.push((hash, n));
                    }
                    _ => {}
                }
                prop_assert_eq!(t.used, list.len());
                prop_assert_eq!(t.slots.iter().filter(|s| **s != 0).count(), list.len());
                for (hash, n) in &list {
                    prop_assert_eq!(t.find(*hash, |m| m == *n), Some(*n));
                }
                for h in 0..12 {
                    let there = list.iter().any(|e| e.0.max(1) == wide(h).max(1));
                    prop_assert_eq!(t.find(wide(h), |_| true).is_some(), there);
                }
            }
        }
    }
}
