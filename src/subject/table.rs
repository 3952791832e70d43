//! An open-addressed index from a 32-bit hash tag to an id: eight bytes a slot, linear probing, no tombstones.
//!
//! Knows neither keys nor entries: the caller says whether an id is the one it looks for. The position of a slot
//! follows from the top bits of its tag alone, so that growing and removing never touch an entry, and growing goes
//! through both tables in order. At most 3/4 of the slots are used.

/// What an empty slot holds; a used one holds the tag above the id plus one.
const EMPTY: u64 = 0;
const SLOTS_MIN: usize = 8;

#[derive(Clone)]
pub(crate) struct TagTable {
    slots: Box<[u64]>,
    len: usize,
    /// 32 minus the binary logarithm of the number of slots.
    shift: u32,
}

#[inline(always)]
fn pack(tag: u32, id: u32) -> u64 {
    u64::from(tag) << 32 | (u64::from(id) + 1)
}

impl TagTable {
    pub(crate) fn new() -> Self {
        TagTable { slots: Box::default(), len: 0, shift: 32 }
    }

    /// The id under `tag` for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, tag: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = self.home(tag);
        loop {
            let slot = self.slots[at & mask];
            if slot == EMPTY {
                return None;
            }
            if (slot >> 32) as u32 == tag {
                let id = (slot as u32) - 1;
                if is_it(id) {
                    return Some(id);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds `id` under `tag`. The caller knows that it is not in it; `id` is below 2^32 - 1.
    pub(crate) fn insert(&mut self, tag: u32, id: u32) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.resize((self.slots.len() * 2).max(SLOTS_MIN));
        }
        self.len += 1;
        self.place(pack(tag, id));
    }

    /// Takes `id` out from under `tag`; says whether it was there.
    pub(crate) fn remove(&mut self, tag: u32, id: u32) -> bool {
        if self.slots.is_empty() {
            return false;
        }
        let mask = self.slots.len() - 1;
        let wanted = pack(tag, id);
        let mut hole = self.home(tag);
        loop {
            match self.slots[hole] {
                EMPTY => return false,
                slot if slot == wanted => break,
                _ => hole = (hole + 1) & mask,
            }
        }
        // Move later slots of the chain back into the hole, unless their own home lies behind it.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot == EMPTY {
                break;
            }
            let home = self.home((slot >> 32) as u32);
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = EMPTY;
        self.len -= 1;
        if self.len == 0 {
            *self = TagTable::new();
        } else if self.len * 8 < self.slots.len() && self.slots.len() > SLOTS_MIN {
            self.resize(self.slots.len() / 2);
        }
        true
    }

    /// Bytes allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.slots.len() * size_of::<u64>()
    }

    #[inline(always)]
    fn home(&self, tag: u32) -> usize {
        (u64::from(tag) >> self.shift) as usize
    }

    fn place(&mut self, slot: u64) {
        let mask = self.slots.len() - 1;
        let mut at = self.home((slot >> 32) as u32);
        while self.slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slots].into_boxed_slice());
        self.shift = 32 - slots.trailing_zeros();
        for slot in old.into_iter().filter(|&s| s != EMPTY) {
            self.place(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Few distinct tags, at both ends of the range, so that chains are long and wrap around.
        #[test]
        fn behaves_like_a_set(ops in proptest::collection::vec((any::<bool>(), 0u32..12, 0u32..40), 0..400)) {
            let mut table = TagTable::new();
            let mut model = BTreeSet::new();
            for (add, t, id) in ops {
                let tag = if t % 2 == 0 { u32::MAX - t } else { t << 20 };
                if add {
                    if model.insert((tag, id)) {
                        table.insert(tag, id);
                    }
                } else {
                    prop_assert_eq!(table.remove(tag, id), model.remove(&(tag, id)));
                }
                prop_assert_eq!(table.len, model.len());
                prop_assert!(table.len * 4 <= table.slots.len() * 3);
                for &(tag, id) in &model {
                    prop_assert_eq!(table.find(tag, |i| i == id), Some(id));
                }
                prop_assert_eq!(table.find(tag, |i| i == id).is_some(), model.contains(&(tag, id)));
            }
        }
    }

    #[test]
    fn shrinks_and_gives_all_back() {
        let mut t = TagTable::new();
        for i in 0..10_000u32 {
            t.insert(i.wrapping_mul(0x9e37_79b9), i);
        }
        let full = t.heap_bytes();
        for i in 0..9_900u32 {
            assert!(t.remove(i.wrapping_mul(0x9e37_79b9), i));
        }
        assert!(t.heap_bytes() * 8 < full);
        for i in 9_900..10_000u32 {
            assert_eq!(t.find(i.wrapping_mul(0x9e37_79b9), |id| id == i), Some(i));
            assert!(t.remove(i.wrapping_mul(0x9e37_79b9), i));
        }
        assert_eq!(t.heap_bytes(), 0);
    }
}
