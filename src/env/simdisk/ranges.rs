//! A set of byte offsets, kept as disjoint, non-touching ranges.

use std::{collections::BTreeMap, ops::Range};

/// A set of `u64`, and how many are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>, u64);

impl Ranges {
    /// Adds a range.
    pub fn insert(&mut self, r: Range<u64>) {
        if r.start >= r.end {
            return;
        }
        let (mut start, mut end) = (r.start, r.end);
        // Swallow all that overlap or touch, from the right.
        while let Some((&s, &e)) = self.0.range(..=end).next_back() {
            if e < start {
                break;
            }
            start = start.min(s);
            end = end.max(e);
            self.0.remove(&s);
            self.1 -= e - s;
        }
        self.0.insert(start, end);
        self.1 += end - start;
    }
    /// Takes a range out.
    pub fn remove(&mut self, r: Range<u64>) {
        if r.start >= r.end {
            return;
        }
        while let Some((&s, &e)) = self.0.range(..r.end).next_back() {
            if e <= r.start {
                break;
            }
            self.0.remove(&s);
            self.1 -= e.min(r.end) - s.max(r.start);
            if e > r.end {
                self.0.insert(r.end, e);
            }
            if s < r.start {
                self.0.insert(s, r.start);
            }
        }
    }
    /// The first offset of `r` that is not in the set.
    pub fn first_missing(&self, r: Range<u64>) -> Option<u64> {
        if r.start >= r.end {
            return None;
        }
        match self.0.range(..=r.start).next_back() {
            Some((_, &e)) if e >= r.end => None,
            Some((_, &e)) if e > r.start => Some(e),
            _ => Some(r.start),
        }
    }
    /// How many offsets of `r` are in the set.
    pub fn count_in(&self, r: Range<u64>) -> u64 {
        self.0.range(..r.end).map(|(&s, &e)| e.min(r.end).saturating_sub(s.max(r.start))).sum()
    }
    /// How many offsets are in the set.
    pub fn total(&self) -> u64 {
        self.1
    }
    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(&s, &e)| s..e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn equals_a_plain_set(ops in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..60)) {
            let (mut r, mut model) = (Ranges::default(), BTreeSet::new());
            for (add, at, n) in ops {
                if add { r.insert(at..at + n); model.extend(at..at + n) }
                else { r.remove(at..at + n); model.retain(|x| !(at..at + n).contains(x)) }
                prop_assert_eq!(r.iter().flatten().collect::<BTreeSet<_>>(), model.clone());
                prop_assert_eq!(r.total(), model.len() as u64);
                prop_assert_eq!(r.count_in(at..at + n), (at..at + n).filter(|x| model.contains(x)).count() as u64);
                prop_assert_eq!(r.first_missing(at..at + n), (at..at + n).find(|x| !model.contains(x)));
                let v: Vec<_> = r.iter().collect();
                prop_assert!(v.windows(2).all(|w| w[0].end < w[1].start), "ranges touch: {:?}", v);
            }
        }
    }
}
