//! The subject dictionary of one stream: every subject that has messages, with how many and where the first and the
//! last may be.
//!
//! Owns the texts and the counts. Does not know messages: `first` and `last` are bounds that the view makes exact.
//! At most 64 bytes a subject beyond its text (S-52; `bytes_per_subject` in the tests and the bench).
//!
//! Ids are dense and stay for the dictionary's life. The order is a list of small sorted blocks of ids, so that a
//! wildcard's literal start can be sought; a hash table finds one subject.

use hashbrown::HashTable;
use std::hash::BuildHasher;

use crate::{filter, types::StreamSeq};

/// Ids in one block of the order at most; a full block splits in two.
const BLOCK: usize = 256;

/// What is known of a subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Info {
    /// Where its text begins, and how long it is in the top 16 bits.
    text: u64,
    /// Live messages.
    pub count: u64,
    /// No live message is before this.
    pub first: StreamSeq,
    /// No live message is after this.
    pub last: StreamSeq,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Dict {
    text: Vec<u8>,
    infos: Vec<Info>,
    table: HashTable<u32>,
    order: Vec<Vec<u32>>,
    live: usize,
}

fn hash(s: &[u8]) -> u64 {
    rustc_hash::FxBuildHasher.hash_one(s)
}

impl Dict {
    /// Subjects that have messages.
    pub(crate) fn live(&self) -> usize {
        self.live
    }
    pub(crate) fn info(&self, id: u32) -> &Info {
        &self.infos[id as usize]
    }
    pub(crate) fn subject(&self, id: u32) -> &[u8] {
        text_of(&self.text, &self.infos[id as usize])
    }
    /// Bytes of memory, texts included.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> usize {
        self.text.capacity()
            + self.infos.capacity() * size_of::<Info>()
            + self.table.capacity() * 5
            + self.order.iter().map(|b| b.capacity() * 4 + 24).sum::<usize>()
    }

    /// The id of a subject, if it was ever seen.
    pub(crate) fn find(&self, s: &[u8]) -> Option<u32> {
        self.table.find(hash(s), |id| self.subject(*id) == s).copied()
    }

    /// The id of a subject, new ones added.
    pub(crate) fn intern(&mut self, s: &[u8]) -> u32 {
        if let Some(id) = self.find(s) {
            return id;
        }
        let id = u32::try_from(self.infos.len()).expect("fewer than 2^32 subjects in a stream");
        let text = self.text.len() as u64 | (s.len() as u64) << 48;
        self.text.extend_from_slice(s);
        self.infos.push(Info { text, count: 0, first: StreamSeq(0), last: StreamSeq(0) });
        let (texts, infos) = (&self.text, &self.infos);
        self.table.insert_unique(hash(s), id, |id| hash(text_of(texts, &infos[*id as usize])));
        self.put_in_order(s, id);
        id
    }

    fn put_in_order(&mut self, s: &[u8], id: u32) {
        if self.order.is_empty() {
            self.order.push(Vec::new());
        }
        let b = self.block_of(s);
        let at = self.order[b].partition_point(|i| self.subject(*i) < s);
        self.order[b].insert(at, id);
        if self.order[b].len() > BLOCK {
            // Subjects that come in rising order leave full blocks behind.
            let at = if at == BLOCK { BLOCK } else { BLOCK / 2 };
            let mut right = self.order[b].split_off(at);
            right.reserve_exact(BLOCK / 4);
            self.order[b].shrink_to_fit();
            self.order.insert(b + 1, right);
        }
    }

    /// The last block whose first subject is not after `s`.
    fn block_of(&self, s: &[u8]) -> usize {
        self.order.partition_point(|b| b.first().is_some_and(|i| self.subject(*i) <= s)).saturating_sub(1)
    }

    /// Notes a live message.
    pub(crate) fn add(&mut self, id: u32, seq: StreamSeq) {
        let i = &mut self.infos[id as usize];
        if i.count == 0 {
            (i.first, i.last) = (seq, seq);
            self.live += 1;
        } else {
            i.first = i.first.min(seq);
            i.last = i.last.max(seq);
        }
        i.count += 1;
    }

    /// Notes that a live message is gone.
    pub(crate) fn remove(&mut self, id: u32, _seq: StreamSeq) {
        let i = &mut self.infos[id as usize];
        assert!(i.count > 0, "S-50: a subject without messages loses one");
        i.count -= 1;
        if i.count == 0 {
            self.live -= 1;
        }
    }

    /// Makes the bounds tighter, after a search found them.
    pub(crate) fn tighten(&mut self, id: u32, first: Option<StreamSeq>, last: Option<StreamSeq>) {
        let i = &mut self.infos[id as usize];
        if let Some(f) = first {
            i.first = f;
        }
        if let Some(l) = last {
            i.last = l;
        }
    }

    /// Calls `f` with each subject that has messages and matches, in order, until it says stop.
    pub(crate) fn matching(&self, filter: &[u8], mut f: impl FnMut(u32) -> bool) {
        if filter::is_literal(filter) && !filter.is_empty() {
            if let Some(id) = self.find(filter)
                && self.infos[id as usize].count > 0
            {
                f(id);
            }
            return;
        }
        let (prefix, all) = (filter::prefix(filter), filter::is_all(filter));
        let from = self.block_of(prefix);
        for b in self.order.iter().skip(from) {
            for &id in b {
                let s = self.subject(id);
                if s < prefix {
                    continue;
                }
                if !s.starts_with(prefix) {
                    return;
                }
                if self.infos[id as usize].count > 0 && (all || filter::matches(filter, s)) && !f(id) {
                    return;
                }
            }
        }
    }
}

fn text_of<'a>(text: &'a [u8], i: &Info) -> &'a [u8] {
    let (at, len) = ((i.text & 0xffff_ffff_ffff) as usize, (i.text >> 48) as usize);
    &text[at..at + len]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn equals_a_map(ops in prop::collection::vec((0u8..3, "[ab]\\.[a-d]{1,2}(\\.[xy])?"), 0..400)) {
            let (mut d, mut model, mut seq) = (Dict::default(), BTreeMap::<String, Vec<u64>>::new(), 0);
            for (op, s) in ops {
                if op > 0 {
                    seq += 1;
                    let id = d.intern(s.as_bytes());
                    d.add(id, StreamSeq(seq));
                    model.entry(s).or_default().push(seq);
                } else if let Some(v) = model.get_mut(&s) && let Some(x) = v.pop() {
                    let id = d.find(s.as_bytes()).expect("interned");
                    d.remove(id, StreamSeq(x));
                }
            }
            model.retain(|_, v| !v.is_empty());
            prop_assert_eq!(d.live(), model.len());
            for f in [">", "a.>", "a.*", "b.*.x", "a.a", "c.>", "*.b"] {
                let mut got = Vec::new();
                d.matching(f.as_bytes(), |id| {
                    got.push((String::from_utf8_lossy(d.subject(id)).into_owned(), d.info(id).count));
                    true
                });
                let want: Vec<_> = model.iter().filter(|(s, _)| filter::matches(f.as_bytes(), s.as_bytes()))
                    .map(|(s, v)| (s.clone(), v.len() as u64)).collect();
                prop_assert_eq!(got, want, "{}", f);
            }
            for (s, v) in &model {
                let i = *d.info(d.find(s.as_bytes()).expect("in it"));
                prop_assert!(i.first.0 <= v[0] && i.last.0 >= v[v.len() - 1]);
            }
        }
    }

    #[test]
    fn s52_bytes_per_subject() {
        for rising in [true, false] {
            let (mut d, mut texts, n) = (Dict::default(), 0, 100_000u64);
            for i in 0..n {
                let k = if rising { i } else { i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20 };
                let s = format!("orders.{k:012}.created");
                texts += s.len();
                let id = d.intern(s.as_bytes());
                d.add(id, StreamSeq(i + 1));
            }
            d.text.shrink_to_fit();
            d.infos.shrink_to_fit();
            let each = (d.weight() - texts) as f64 / n as f64;
            assert!(each <= 64.0, "S-52: {each:.1} bytes a subject");
        }
    }
}
