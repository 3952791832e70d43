//! The values that stand under one subject: none, one, or plain ones and queue groups.
//!
//! One value is by far the usual case and takes no allocation. Removing swaps the last value into the gap: the order
//! of what is left is deterministic, and it is the order of insertion as long as nothing was removed. A long list has
//! an index from a value's key to its place, so that ten thousand subscribers of one subject can all leave at once.

use keyed::{Table, tag};

use crate::queues::QueueId;
use std::sync::Arc;

/// What a trie can hold: anything with a number that tells it from the others under the same subject and queue.
pub trait Member {
    /// The number that [`crate::Trie::remove`] finds the value by. Never changes while the value is in a trie. It has
    /// no influence on any order, so an address will do.
    fn key(&self) -> u64;
}

impl Member for u32 {
    fn key(&self) -> u64 {
        u64::from(*self)
    }
}

impl Member for u64 {
    fn key(&self) -> u64 {
        *self
    }
}

impl Member for usize {
    fn key(&self) -> u64 {
        *self as u64
    }
}

/// The address: each shared value is its own.
impl<S> Member for Arc<S> {
    fn key(&self) -> u64 {
        Arc::as_ptr(self).addr() as u64
    }
}

/// The members of one queue group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<T> {
    /// The group's name, to be resolved by [`crate::Trie::queue_name`].
    pub queue: QueueId,
    /// Its members; never empty in what a match gives.
    pub members: Vec<T>,
}

#[derive(Clone)]
pub(crate) struct Many<T> {
    pub(crate) plain: List<T>,
    pub(crate) groups: Vec<(QueueId, List<T>)>,
}

#[derive(Clone)]
pub(crate) enum Values<T> {
    None,
    One(Option<QueueId>, T),
    Many(Box<Many<T>>),
}

const _: () = assert!(size_of::<Values<u64>>() == 16);

impl<T> Values<T> {
    #[inline(always)]
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Values::None)
    }

    /// Every value with its queue: plain ones first, then group by group.
    pub(crate) fn for_each<'a>(&'a self, mut f: impl FnMut(Option<QueueId>, &'a T)) {
        match self {
            Values::None => {}
            Values::One(q, v) => f(*q, v),
            Values::Many(many) => {
                many.plain.items.iter().for_each(|v| f(None, v));
                for (queue, list) in &many.groups {
                    list.items.iter().for_each(|v| f(Some(*queue), v));
                }
            }
        }
    }

    /// Whether `is_it` holds for one of them.
    pub(crate) fn any(&self, mut is_it: impl FnMut(&T) -> bool) -> bool {
        match self {
            Values::None => false,
            Values::One(_, v) => is_it(v),
            Values::Many(many) => {
                many.plain.items.iter().any(&mut is_it)
                    || many.groups.iter().any(|(_, list)| list.items.iter().any(&mut is_it))
            }
        }
    }

    /// Bytes allocated, beside what `T` owns.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Values::Many(m) => {
                size_of::<Many<T>>()
                    + m.plain.heap_bytes()
                    + m.groups.capacity() * size_of::<(QueueId, List<T>)>()
                    + m.groups.iter().map(|(_, l)| l.heap_bytes()).sum::<usize>()
            }
            _ => 0,
        }
    }
}

impl<T: Member> Values<T> {
    pub(crate) fn add(&mut self, queue: Option<QueueId>, value: T) {
        match std::mem::replace(self, Values::None) {
            Values::None => *self = Values::One(queue, value),
            Values::One(first_queue, first) => {
                let mut many = Box::new(Many { plain: List::new(), groups: Vec::new() });
                many.add(first_queue, first);
                many.add(queue, value);
                *self = Values::Many(many);
            }
            Values::Many(mut many) => {
                many.add(queue, value);
                *self = Values::Many(many);
            }
        }
    }

    /// Takes out a value under `queue` with this key.
    pub(crate) fn remove(&mut self, queue: Option<QueueId>, key: u64) -> Option<T> {
        match self {
            Values::None => None,
            Values::One(q, value) => {
                if *q != queue || value.key() != key {
                    return None;
                }
                match std::mem::replace(self, Values::None) {
                    Values::One(_, value) => Some(value),
                    _ => None,
                }
            }
            Values::Many(many) => {
                let taken = many.remove(queue, key)?;
                if let Some((queue, last)) = many.take_single() {
                    *self = Values::One(queue, last);
                }
                Some(taken)
            }
        }
    }
}

impl<T: Member> Many<T> {
    fn add(&mut self, queue: Option<QueueId>, value: T) {
        let Some(queue) = queue else { return self.plain.push(value) };
        match self.groups.iter_mut().find(|(q, _)| *q == queue) {
            Some((_, list)) => list.push(value),
            None => {
                let mut list = List::new();
                list.push(value);
                self.groups.push((queue, list));
            }
        }
    }

    fn remove(&mut self, queue: Option<QueueId>, key: u64) -> Option<T> {
        let Some(queue) = queue else { return self.plain.remove(key) };
        let g = self.groups.iter().position(|(q, _)| *q == queue)?;
        let taken = self.groups[g].1.remove(key)?;
        if self.groups[g].1.items.is_empty() {
            self.groups.swap_remove(g);
        }
        Some(taken)
    }

    /// The only value left, if it is the only one.
    fn take_single(&mut self) -> Option<(Option<QueueId>, T)> {
        match (self.plain.items.len(), self.groups.as_mut_slice()) {
            (1, []) => self.plain.items.pop().map(|v| (None, v)),
            (0, [(queue, list)]) if list.items.len() == 1 => list.items.pop().map(|v| (Some(*queue), v)),
            _ => None,
        }
    }
}

/// Values in a row, with an index once there are many.
#[derive(Clone)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
    /// From a value's key to its place in `items`; complete whenever it is there.
    index: Option<Box<Table>>,
}

/// Lists shorter than this are searched: that is faster than any index.
const INDEXED_FROM: usize = 64;

/// Spreads keys, which may be addresses or counters. No secret in it: a server chooses these keys, not a client.
fn spread(key: u64) -> u32 {
    let p = u128::from(key ^ 0x9e37_79b9_7f4a_7c15) * u128::from(0xd6e8_feb8_6659_fd93_u64);
    tag((p as u64) ^ ((p >> 64) as u64))
}

impl<T> List<T> {
    fn new() -> Self {
        List { items: Vec::new(), index: None }
    }

    fn heap_bytes(&self) -> usize {
        let index = self.index.as_ref().map_or(0, |i| size_of::<Table>() + i.heap_bytes());
        self.items.capacity() * size_of::<T>() + index
    }
}

impl<T: Member> List<T> {
    fn push(&mut self, value: T) {
        if let Some(index) = &mut self.index {
            index.insert(spread(value.key()), self.items.len() as u32);
        }
        self.items.push(value);
        if self.index.is_none() && self.items.len() == INDEXED_FROM {
            let mut index = Table::new();
            for (at, v) in self.items.iter().enumerate() {
                index.insert(spread(v.key()), at as u32);
            }
            self.index = Some(Box::new(index));
        }
    }

    fn remove(&mut self, key: u64) -> Option<T> {
        let at = match &self.index {
            None => self.items.iter().position(|v| v.key() == key)?,
            Some(index) => index.find(spread(key), |at| self.items[at as usize].key() == key)? as usize,
        };
        let last = self.items.len() - 1;
        if let Some(index) = &mut self.index {
            index.remove(spread(key), at as u32);
            if at != last {
                let moved = spread(self.items[last].key());
                index.remove(moved, last as u32);
                index.insert(moved, at as u32);
            }
        }
        let taken = self.items.swap_remove(at);
        if self.items.len() < INDEXED_FROM / 2 {
            self.index = None;
        }
        if self.items.capacity() > 16 && self.items.len() * 4 < self.items.capacity() {
            self.items.shrink_to(self.items.len() * 2);
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Long lists, equal keys among them, cross the threshold of the index in both directions.
        #[test]
        fn a_list_finds_by_key(ops in proptest::collection::vec((0u32..100, proptest::bool::weighted(0.6)), 0..600)) {
            let mut list = List::new();
            let mut model: Vec<u32> = vec![];
            for (key, add) in ops {
                if add {
                    list.push(key);
                    model.push(key);
                } else {
                    let is = model.iter().position(|v| *v == key);
                    prop_assert_eq!(list.remove(u64::from(key)), is.map(|i| model.swap_remove(i)));
                }
                let mut got = list.items.clone();
                got.sort();
                model.sort();
                prop_assert_eq!(&got, &model);
                prop_assert!(list.index.is_some() || list.items.len() < INDEXED_FROM);
            }
        }
    }

    #[test]
    fn many_leave_one_subject_in_any_order() {
        let mut all = Values::None;
        let shared: Vec<Arc<u8>> = (0..50_000).map(|_| Arc::new(0)).collect();
        shared.iter().for_each(|v| all.add(None, v.clone()));
        for (i, v) in shared.iter().enumerate() {
            let key = if i % 2 == 0 { v.key() } else { shared[shared.len() - i].key() };
            assert!(all.remove(None, key).is_some());
            assert!(all.remove(None, key).is_none());
        }
        assert!(all.is_none());
        assert_eq!(all.heap_bytes(), 0);
    }
}
