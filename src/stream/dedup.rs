//! Message ids within the duplicate window, applied and in flight.
//!
//! Owns the table. In order of sequence and time, so the oldest leave first and a refused tail leaves last; one buffer holds all ids.

use std::{collections::VecDeque, hint::black_box};

use keyed::{Table, tag};

use crate::arena::Arena;

/// Bits of the length in [`Id::text`]; the rest is the place.
const LEN_BITS: u32 = 28;
/// An id that is longer is cut: it is far beyond what a header may hold.
const LEN_MAX: usize = (1 << LEN_BITS) - 1;

// Millions of them are held at a time.
#[derive(Clone, Copy, Debug)]
struct Id {
    seq: u64,
    time: i64,
    /// Where in the buffer its text stands, as far as the bits go, and how long it is.
    text: u64,
}

const _: () = assert!(size_of::<Id>() == 24);

/// What was found of an id. Good until the ids change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looked {
    tag: u32,
    /// The sequence and the time of its message.
    known: Option<(u64, i64)>,
}

impl Looked {
    /// The sequence of its message, if that came after `since`.
    pub fn after(&self, since: i64) -> Option<u64> {
        self.known.filter(|(_, time)| *time > since).map(|(seq, _)| seq)
    }
}

fn tag_of(id: &[u8]) -> u32 {
    tag(keyed::hash(id))
}

/// The ids that are remembered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dedup {
    ids: VecDeque<Id>,
    /// How many ids have left in front: the number of `ids[0]`.
    gone: u64,
    /// The lower halves of the numbers of ids: of several same ids, the latest.
    table: Table,
    text: Arena,
}

/// The id with a number of which the lower half is known.
fn nth(ids: &VecDeque<Id>, gone: u64, number: u32) -> &Id {
    &ids[number.wrapping_sub(gone as u32) as usize]
}

fn text_of<'a>(text: &'a Arena, id: &Id) -> &'a [u8] {
    let (place, len) = (id.text >> LEN_BITS, id.text as usize & LEN_MAX);
    text.get(text.whole(place, 64 - LEN_BITS), len)
}

impl Dedup {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn last_seq(&self) -> u64 {
        self.ids.back().map_or(0, |id| id.seq)
    }

    /// What is known of an id.
    pub fn look(&self, id: &[u8]) -> Looked {
        let (tag, id) = (tag_of(id), &id[..id.len().min(LEN_MAX)]);
        let of = |number| nth(&self.ids, self.gone, number);
        let same = |number| text_of(&self.text, of(number)) == id;
        Looked { tag, known: self.table.find(tag, same).map(of).map(|id| (id.seq, id.time)) }
    }
    /// Reads where an id is looked for first, so that it is there when it is: for ids that are looked for one after the other, whose places are
    /// waited for together.
    pub fn touch(&self, id: &[u8]) {
        black_box(self.table.touch(tag_of(id)));
    }
    /// The sequence of the message with this id, if it came after `since`.
    #[cfg(test)]
    pub fn get(&self, id: &[u8], since: i64) -> Option<u64> {
        self.look(id).after(since)
    }

    /// Notes an id. Sequences rise.
    pub fn push(&mut self, id: &[u8], seq: u64, time: i64) {
        self.push_looked(self.look(id), id, seq, time);
    }
    /// The same for one that was just looked for.
    pub fn push_looked(&mut self, looked: Looked, id: &[u8], seq: u64, time: i64) {
        let (h, id) = (looked.tag, &id[..id.len().min(LEN_MAX)]);
        let number = (self.gone + self.ids.len() as u64) as u32;
        let at = self.text.push(id);
        self.ids.push_back(Id { seq, time, text: (at << LEN_BITS) | id.len() as u64 });
        let Dedup { ids, gone, table, text } = self;
        let same = |number| text_of(text, nth(ids, *gone, number)) == id;
        // What is not there need not be searched for again.
        if looked.known.is_none() || !table.replace(h, number, same) {
            table.insert(h, number);
        }
    }

    fn unlink(&mut self, number: u32, id: &Id) {
        let h = tag_of(text_of(&self.text, id));
        self.table.remove(h, number);
    }

    /// Forgets all that came at `upto` or before.
    pub fn expire(&mut self, upto: i64) {
        let mut end = None;
        while let Some(id) = self.ids.front().filter(|id| id.time <= upto).copied() {
            self.unlink(self.gone as u32, &id);
            self.ids.pop_front();
            self.gone += 1;
            end = Some(self.text.whole(id.text >> LEN_BITS, 64 - LEN_BITS) + (id.text & LEN_MAX as u64));
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
            self.unlink((self.gone + self.ids.len() as u64 - 1) as u32, &id);
            self.text.truncate(self.text.whole(id.text >> LEN_BITS, 64 - LEN_BITS));
            self.ids.pop_back();
        }
    }

    /// When the latest came.
    pub fn newest(&self) -> Option<i64> {
        self.ids.back().map(|id| id.time)
    }

    /// All of them, from the oldest: id, sequence, time.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u64, i64)> {
        self.ids.iter().map(|id| (text_of(&self.text, id), id.seq, id.time))
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
