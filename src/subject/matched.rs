//! What a match gives: plain values, and values by queue group, in buffers that are used again.

use crate::{queues::QueueId, values::Group, values::Values};

/// The receivers of one subject. Groups of the same name under different patterns are one group here, as NATS
/// delivers to one member of all of them. Order: as [`crate::Trie::visit`] comes by them.
///
/// Keep one per worker and pass it to every match: once its buffers have grown, a match allocates nothing.
#[derive(Clone, Debug)]
pub struct Matched<T> {
    plain: Vec<T>,
    /// The first `live` are the result; those behind are kept for their buffers.
    groups: Vec<Group<T>>,
    live: usize,
    /// Where in `groups` a queue stands, by [`QueueId::index`]. Holds stale entries, so a hit is checked against the
    /// group's own id (a sparse set): clearing costs nothing.
    place: Vec<u32>,
}

impl<T> Default for Matched<T> {
    fn default() -> Self {
        Matched { plain: Vec::new(), groups: Vec::new(), live: 0, place: Vec::new() }
    }
}

impl<T> Matched<T> {
    /// An empty result; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Values that are in no queue group: each receives the message.
    #[inline]
    pub fn plain(&self) -> &[T] {
        &self.plain
    }

    /// Queue groups: one member of each receives the message.
    #[inline]
    pub fn groups(&self) -> &[Group<T>] {
        &self.groups[..self.live]
    }

    /// Whether nobody is interested.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.live == 0
    }

    /// Forgets the result, keeps the buffers.
    #[inline]
    pub fn clear(&mut self) {
        self.plain.clear();
        for g in &mut self.groups[..self.live] {
            g.members.clear();
        }
        self.live = 0;
    }

    /// The members so far of `queue`, to be added to.
    fn group(&mut self, queue: QueueId) -> &mut Vec<T> {
        let index = queue.index();
        if index >= self.place.len() {
            self.place.resize(index + 1, 0);
        }
        let mut at = self.place[index] as usize;
        if at >= self.live || self.groups[at].queue != queue {
            at = self.live;
            self.place[index] = at as u32;
            self.live += 1;
            match self.groups.get_mut(at) {
                Some(spare) => spare.queue = queue,
                None => self.groups.push(Group { queue, members: Vec::new() }),
            }
        }
        &mut self.groups[at].members
    }
}

impl<T: Clone> Matched<T> {
    #[inline]
    pub(crate) fn add(&mut self, values: &Values<T>) {
        match values {
            Values::None => {}
            Values::One(None, v) => self.plain.push(v.clone()),
            Values::One(Some(q), v) => self.group(*q).push(v.clone()),
            Values::Many(many) => {
                self.plain.extend_from_slice(&many.plain.items);
                for (queue, list) in &many.groups {
                    self.group(*queue).extend_from_slice(&list.items);
                }
            }
        }
    }
}
