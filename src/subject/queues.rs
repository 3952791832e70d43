//! Queue group names as small numbers, counted, so that a match groups by comparing integers.

use keyed::{Key, Table, tag};

use crate::{bytes::same, slab::Slab};
use std::num::NonZeroU32;

/// The name of a queue group within one [`crate::Trie`]. Valid while some value of the trie is in that group; after
/// that the number may come to mean another name, so whoever keeps one watches the trie's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(NonZeroU32);

impl QueueId {
    /// A dense index: small numbers, no two live names alike.
    #[inline(always)]
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

#[derive(Clone)]
struct Queue {
    name: Box<[u8]>,
    /// Values in the trie that are in this group; the name goes when the last one does.
    members: u64,
}

#[derive(Clone)]
pub(crate) struct Queues {
    names: Slab<Queue>,
    index: Table,
}

impl Queues {
    pub(crate) fn new() -> Self {
        Queues { names: Slab::new(), index: Table::new() }
    }

    /// The id of `name` if anything is in that group.
    pub(crate) fn find(&self, key: &Key, name: &[u8]) -> Option<QueueId> {
        let is_it = |id| self.names.get(id).is_some_and(|q| same(&q.name, name));
        self.index.find(tag(key.bytes(name)), is_it).and_then(to_queue)
    }

    /// One more value in the group `name`. None when there is no number left.
    pub(crate) fn join(&mut self, key: &Key, name: &[u8]) -> Option<QueueId> {
        if let Some(queue) = self.find(key, name) {
            if let Some(q) = self.names.get_mut(queue.index() as u32) {
                q.members += 1;
            }
            return Some(queue);
        }
        let queue = u32::try_from(self.names.next_id()).ok().and_then(to_queue)?;
        let id = self.names.insert(Queue { name: name.into(), members: 1 });
        self.index.insert(tag(key.bytes(name)), id);
        Some(queue)
    }

    /// One value less in the group.
    pub(crate) fn leave(&mut self, key: &Key, queue: QueueId) {
        let id = queue.index() as u32;
        let Some(q) = self.names.get_mut(id) else { return };
        q.members -= 1;
        if q.members == 0 {
            let tag = tag(key.bytes(&q.name));
            self.index.remove(tag, id);
            self.names.remove(id);
        }
    }

    pub(crate) fn name(&self, queue: QueueId) -> Option<&[u8]> {
        self.names.get(queue.index() as u32).map(|q| &*q.name)
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.names.heap_bytes()
            + self.index.heap_bytes()
            + self.names.iter().map(|(_, q)| q.name.len()).sum::<usize>()
    }
}

/// Slab ids count from zero, queue ids from one. The largest slab id has no queue id.
fn to_queue(id: u32) -> Option<QueueId> {
    NonZeroU32::new(id.wrapping_add(1)).map(QueueId)
}
