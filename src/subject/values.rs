//! The values that stand under one subject: none, one, or plain ones and queue groups.
//!
//! One value is by far the usual case and takes no allocation. Removing swaps the last value into the gap: the order
//! of what is left is deterministic, and it is the order of insertion as long as nothing was removed.

use crate::queues::QueueId;

/// The members of one queue group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<T> {
    /// The group's name, to be resolved by [`crate::Trie::queue_name`].
    pub queue: QueueId,
    /// Its members; never empty in what a match gives.
    pub members: Vec<T>,
}

#[derive(Debug)]
pub(crate) struct Many<T> {
    pub(crate) plain: Vec<T>,
    pub(crate) groups: Vec<Group<T>>,
}

#[derive(Debug)]
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

    pub(crate) fn add(&mut self, queue: Option<QueueId>, value: T) {
        match std::mem::replace(self, Values::None) {
            Values::None => *self = Values::One(queue, value),
            Values::One(first_queue, first) => {
                let mut many = Box::new(Many { plain: Vec::new(), groups: Vec::new() });
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

    /// Takes out the first value under `queue` for which `is_it` holds.
    pub(crate) fn remove(&mut self, queue: Option<QueueId>, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let mut is_it = is_it;
        match self {
            Values::None => None,
            Values::One(q, value) => {
                if *q != queue || !is_it(value) {
                    return None;
                }
                match std::mem::replace(self, Values::None) {
                    Values::One(_, value) => Some(value),
                    _ => None,
                }
            }
            Values::Many(many) => {
                let taken = many.remove(queue, is_it)?;
                if let Some((queue, last)) = many.take_single() {
                    *self = Values::One(queue, last);
                }
                Some(taken)
            }
        }
    }

    /// Every value with its queue: plain ones first, then group by group.
    pub(crate) fn for_each<'a>(&'a self, mut f: impl FnMut(Option<QueueId>, &'a T)) {
        match self {
            Values::None => {}
            Values::One(q, v) => f(*q, v),
            Values::Many(many) => {
                many.plain.iter().for_each(|v| f(None, v));
                for g in &many.groups {
                    g.members.iter().for_each(|v| f(Some(g.queue), v));
                }
            }
        }
    }

    /// Bytes allocated, beside what `T` owns.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Values::Many(m) => {
                size_of::<Many<T>>()
                    + m.plain.capacity() * size_of::<T>()
                    + m.groups.capacity() * size_of::<Group<T>>()
                    + m.groups.iter().map(|g| g.members.capacity() * size_of::<T>()).sum::<usize>()
            }
            _ => 0,
        }
    }
}

impl<T> Many<T> {
    fn add(&mut self, queue: Option<QueueId>, value: T) {
        let Some(queue) = queue else { return self.plain.push(value) };
        match self.groups.iter_mut().find(|g| g.queue == queue) {
            Some(g) => g.members.push(value),
            None => self.groups.push(Group { queue, members: vec![value] }),
        }
    }

    fn remove(&mut self, queue: Option<QueueId>, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let Some(queue) = queue else {
            let at = self.plain.iter().position(is_it)?;
            return Some(take_and_trim(&mut self.plain, at));
        };
        let g = self.groups.iter().position(|g| g.queue == queue)?;
        let at = self.groups[g].members.iter().position(is_it)?;
        let taken = take_and_trim(&mut self.groups[g].members, at);
        if self.groups[g].members.is_empty() {
            self.groups.swap_remove(g);
        }
        Some(taken)
    }

    /// The only value left, if it is the only one.
    fn take_single(&mut self) -> Option<(Option<QueueId>, T)> {
        match (self.plain.len(), self.groups.as_mut_slice()) {
            (1, []) => self.plain.pop().map(|v| (None, v)),
            (0, [g]) if g.members.len() == 1 => g.members.pop().map(|v| (Some(g.queue), v)),
            _ => None,
        }
    }
}

/// Swaps a value out and gives memory back once three quarters are unused.
fn take_and_trim<T>(list: &mut Vec<T>, at: usize) -> T {
    let taken = list.swap_remove(at);
    if list.capacity() > 16 && list.len() * 4 < list.capacity() {
        list.shrink_to(list.len() * 2);
    }
    taken
}
