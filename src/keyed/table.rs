//! Numbers by the tags of hashes: open addressing in one array, linear probing, no tombstones.
//!
//! Owns which place is whose, and not what the numbers stand for: the caller compares. Tag and number stand together in eight bytes, so that a look costs one
//! miss of the processor's cache, growing and removing read nothing else, and what is looked for and what is added next wait for the same line; who knows what
//! comes next can begin that ahead ([`Table::touch`]). The place rises with the tag, so that growing goes through the old array and the new one once, in order.

/// A tag in the upper half, never `u32::MAX`, and a number in the lower one.
type Slot = u64;

/// What no slot is.
const EMPTY: Slot = u64::MAX;

/// Slots of the smallest table.
const MIN: usize = 8;
/// Slots from which on it grows by half and not to the double, whose empty half alone would be much.
const GROWS_SLOWLY: usize = 8192;

/// Numbers by tag; several may have one tag.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// At most three quarters of them are used.
    slots: Vec<Slot>,
    used: usize,
}

#[inline(always)]
fn slot(tag: u32, number: u32) -> Slot {
    u64::from(clamped(tag)) << 32 | u64::from(number)
}
#[inline(always)]
fn clamped(tag: u32) -> u32 {
    tag.min(u32::MAX - 1)
}

impl Table {
    /// An empty one, which has no memory.
    #[must_use]
    pub const fn new() -> Table {
        Table { slots: Vec::new(), used: 0 }
    }
    /// With room for `n` numbers.
    #[must_use]
    pub fn with_room(n: usize) -> Table {
        Table { slots: vec![EMPTY; (n + n / 2).max(MIN)], used: 0 }
    }
    /// Bytes of memory.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    /// Where a tag's numbers begin.
    #[inline(always)]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(clamped(tag)) * self.slots.len() as u64) >> 32) as usize
    }
    #[inline(always)]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// The place of the number under this tag that is the right one.
    #[inline]
    fn place(&self, tag: u32, mut is: impl FnMut(u32) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(tag);
        loop {
            let s = self.slots[at];
            if s == EMPTY {
                return None;
            }
            if (s >> 32) as u32 == clamped(tag) && is(s as u32) {
                return Some(at);
            }
            at = self.next(at);
        }
    }

    /// The number under this tag that is the right one.
    #[inline]
    #[must_use]
    pub fn find(&self, tag: u32, is: impl FnMut(u32) -> bool) -> Option<u32> {
        self.place(tag, is).map(|at| self.slots[at] as u32)
    }

    /// Reads where a tag's numbers begin, so that it is at hand when it is asked for. What it returns says nothing; it is there so that the reading is done.
    #[inline]
    #[must_use]
    pub fn touch(&self, tag: u32) -> u64 {
        self.slots.get(self.home(tag)).copied().unwrap_or(EMPTY)
    }

    /// Adds a number that is not there.
    #[inline]
    pub fn insert(&mut self, tag: u32, number: u32) {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            let len = self.slots.len();
            self.resize(if len < GROWS_SLOWLY { (2 * len).max(MIN) } else { len + len / 2 });
        }
        self.put(slot(tag, number));
        self.used += 1;
    }

    #[inline]
    fn put(&mut self, s: Slot) {
        let mut at = self.home((s >> 32) as u32);
        while self.slots[at] != EMPTY {
            at = self.next(at);
        }
        self.slots[at] = s;
    }

    #[cold]
    fn resize(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; len]);
        old.into_iter().filter(|s| *s != EMPTY).for_each(|s| self.put(s));
    }

    /// Gives the number that is the right one another; whether there was one.
    #[inline]
    pub fn replace(&mut self, tag: u32, number: u32, is: impl FnMut(u32) -> bool) -> bool {
        let found = self.place(tag, is);
        if let Some(at) = found {
            self.slots[at] = slot(tag, number);
        }
        found.is_some()
    }

    /// Takes a number out; whether it was there.
    pub fn remove(&mut self, tag: u32, number: u32) -> bool {
        let Some(mut hole) = self.place(tag, |n| n == number) else { return false };
        let len = self.slots.len();
        let behind = |at: usize, from: usize| if at >= from { at - from } else { at + len - from };
        let mut at = self.next(hole);
        // What stands behind moves up, unless it would stand before where it is looked for.
        while self.slots[at] != EMPTY {
            let home = self.home((self.slots[at] >> 32) as u32);
            if behind(at, home) >= behind(at, hole) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.slots[hole] = EMPTY;
        self.used -= 1;
        if self.used == 0 {
            *self = Table::new();
        } else if self.used * 8 < len && len > MIN {
            self.resize((len / 2).max(MIN));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few tags, at both ends of the range, so that many stand in each other's way, also round the end; with the highest, which no slot can say.
        #[test]
        fn holds_what_a_list_holds(steps in prop::collection::vec((0u8..4, 0u32..12, 0u32..40), 1..400)) {
            let mut t = Table::default();
            let mut model: BTreeMap<(u32, u32), ()> = BTreeMap::new();
            for (what, n, number) in steps {
                let tag = if n % 2 == 0 { u32::MAX - n / 2 } else { n << 20 };
                let key = (clamped(tag), number);
                match (what, model.contains_key(&key)) {
                    (0, there) => {
                        prop_assert_eq!(t.remove(tag, number), there);
                        model.remove(&key);
                    }
                    (1, true) if !model.contains_key(&(key.0, number + 1000)) => {
                        prop_assert!(t.replace(tag, number + 1000, |m| m == number));
                        model.remove(&key);
                        model.insert((key.0, number + 1000), ());
                    }
                    (_, false) => {
                        prop_assert!(!t.replace(tag, 7, |m| m == number));
                        let _ = t.touch(tag);
                        t.insert(tag, number);
                        model.insert(key, ());
                    }
                    _ => {}
                }
                prop_assert_eq!(t.used, model.len());
                prop_assert_eq!(t.slots.iter().filter(|s| **s != EMPTY).count(), model.len());
                prop_assert!(t.used * 4 <= t.slots.len() * 3);
                for (tag, number) in model.keys() {
                    prop_assert_eq!(t.find(*tag, |m| m == *number), Some(*number));
                }
                let under = model.keys().any(|k| k.0 == clamped(tag));
                prop_assert_eq!(t.find(tag, |_| true).is_some(), under);
            }
        }
    }

    #[test]
    fn all_numbers_can_be_held() {
        let mut t = Table::with_room(3);
        for n in [0, 1, u32::MAX - 1, u32::MAX] {
            t.insert(u32::MAX, n);
        }
        for n in [0, 1, u32::MAX - 1, u32::MAX] {
            assert!(t.find(u32::MAX, |m| m == n).is_some() && t.remove(u32::MAX, n), "{n}");
        }
        assert_eq!(t.heap_bytes(), 0);
    }

    #[test]
    fn shrinks_and_gives_all_back() {
        let mut t = Table::new();
        let tag = |i: u32| i.wrapping_mul(0x9e37_79b9);
        for i in 0..100_000u32 {
            t.insert(tag(i), i);
        }
        // A table that is large has at most half as much again as it needs.
        assert!(t.slots.len() * 2 <= 100_000 * 4, "{}", t.slots.len());
        let full = t.heap_bytes();
        for i in 0..99_900u32 {
            assert!(t.remove(tag(i), i));
        }
        assert!(t.heap_bytes() * 8 < full);
        for i in 99_900..100_000u32 {
            assert_eq!(t.find(tag(i), |n| n == i), Some(i));
            assert!(t.remove(tag(i), i));
        }
        assert_eq!(t.heap_bytes(), 0);
    }
}
