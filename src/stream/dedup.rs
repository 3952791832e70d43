//! Message ids within the duplicate window, applied and in flight.
//!
//! Owns the table. In order of sequence and time, so the oldest leave first and a refused tail leaves last; one buffer holds all ids.

use std::collections::VecDeque;

use hashbrown::HashTable;

use crate::arena::{Arena, hash};

#[derive(Clone, Copy, Debug)]
struct Id {
    hash: u64,
    seq: u64,
    time: i64,
    at: u64,
    len: u32,
}

/// The ids that are remembered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dedup {
    ids: VecDeque<Id>,
    /// How many ids have left in front: the number of `ids[0]`.
    gone: u64,
    /// Numbers of ids, by hash: of several same ids, the latest.
    table: HashTable<u64>,
    text: Arena,
}

impl Dedup {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn last_seq(&self) -> u64 {
        self.ids.back().map_or(0, |id| id.seq)
    }

    /// The sequence of the message with this id, if it came after `since`.
    pub fn get(&self, id: &[u8], since: i64) -> Option<u64> {
        let number = self.table.find(hash(id), |n| self.text_of(*n) == id)?;
        let found = &self.ids[(number - self.gone) as usize];
        (found.time > since).then_some(found.seq)
    }

    fn text_of(&self, number: u64) -> &[u8] {
        let id = &self.ids[(number - self.gone) as usize];
        self.text.get(id.at, id.len as usize)
    }

    /// Notes an id. Sequences rise.
    pub fn push(&mut self, id: &[u8], seq: u64, time: i64) {
        let h = hash(id);
        let number = self.gone + self.ids.len() as u64;
        let at = self.text.push(id);
        self.ids.push_back(Id { hash: h, seq, time, at, len: id.len() as u32 });
        let Dedup { ids, gone, table, text } = self;
        let same = |n: &u64| {
            let other = &ids[(n - *gone) as usize];
            text.get(other.at, other.len as usize) == id
        };
        match table.find_mut(h, same) {
            Some(n) => *n = number,
            None => {
                table.insert_unique(h, number, |n| ids[(n - *gone) as usize].hash);
            }
        }
    }

    fn unlink(&mut self, number: u64, h: u64) {
        if let Ok(slot) = self.table.find_entry(h, |n| *n == number) {
            slot.remove();
        }
    }

    /// Forgets all that came at `upto` or before.
    pub fn expire(&mut self, upto: i64) {
        let mut end = None;
        while let Some(id) = self.ids.front().filter(|id| id.time <= upto).copied() {
            self.unlink(self.gone, id.hash);
            self.ids.pop_front();
            self.gone += 1;
            end = Some(id.at + u64::from(id.len));
        }
        if let Some(end) = end {
            self.text.free_to(end);
            if self.ids.is_empty() {
                *self = Dedup { gone: self.gone, ..Dedup::default() };
            }
        }
    }

    /// Forgets all with a sequence above `seq`.
    pub fn truncate(&mut self, seq: u64) {
        while let Some(id) = self.ids.back().filter(|id| id.seq > seq).copied() {
            self.unlink(self.gone + self.ids.len() as u64 - 1, id.hash);
            self.text.truncate(id.at);
            self.ids.pop_back();
        }
    }

    /// When the latest came.
    pub fn newest(&self) -> Option<i64> {
        self.ids.back().map(|id| id.time)
    }

    /// All of them, from the oldest: id, sequence, time.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u64, i64)> {
        self.ids.iter().map(|id| (self.text.get(id.at, id.len as usize), id.seq, id.time))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn knows_what_a_list_knows(steps in proptest::collection::vec((0u8..10, 0u8..20), 1..300)) {
            let mut d = Dedup::default();
            let mut list: Vec<(String, u64, i64)> = Vec::new();
            let mut seq = 0u64;
            for (what, n) in steps {
                match what {
                    0 => {
                        let upto = seq as i64 * 10 - i64::from(n) * 10;
                        d.expire(upto);
                        list.retain(|e| e.2 > upto);
                    }
                    1 => {
                        let keep = seq.saturating_sub(u64::from(n / 4));
                        d.truncate(keep);
                        // As the rules use it: an id comes again only when it is not in the window.
                        list.retain(|e| e.1 <= keep);
                    }
                    _ => {
                        let id = format!("id-{n}");
                        let known = list.iter().rev().find(|e| e.0 == id).map(|e| e.1);
                        prop_assert_eq!(d.get(id.as_bytes(), i64::MIN), known);
                        if known.is_none() {
                            seq += 1;
                            d.push(id.as_bytes(), seq, seq as i64 * 10);
                            list.push((id, seq, seq as i64 * 10));
                        }
                    }
                }
                prop_assert_eq!(d.len(), list.len());
                let all: Vec<_> = d.iter().map(|(id, s, t)| (String::from_utf8(id.to_vec()).unwrap(), s, t)).collect();
                prop_assert_eq!(&all, &list);
            }
        }

        #[test]
        fn the_latest_of_several_counts(gap in 1i64..5) {
            let mut d = Dedup::default();
            d.push(b"a", 1, 10);
            d.push(b"a", 2, 10 + gap);
            prop_assert_eq!(d.get(b"a", 0), Some(2));
            d.expire(10);
            prop_assert_eq!(d.get(b"a", 0), Some(2));
            d.expire(10 + gap);
            prop_assert_eq!(d.get(b"a", 0), None);
        }
    }
}
