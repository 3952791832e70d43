//! The subject dictionary of one stream: every subject that has messages, with how many and where the first and the
//! last may be.
//!
//! Owns the texts and the counts. Does not know messages: after a removal `first` and `last` may be bounds only, and say
//! so until a search has made them exact.
//!
//! - S-52: at most 64 bytes a subject beyond its text (`bytes_per_subject` in the tests and the bench).
//!
//! Ids are dense and stay until the owner renumbers, which it does when most subjects have no messages left. The order is
//! a list of small sorted blocks of ids, so that a wildcard's literal start can be sought; a hash table finds one subject.

use std::{cell::Cell, hint::black_box};

use keyed::{Table, tag};

use crate::{filter, types::StreamSeq};

/// Ids in one block of the order at most; a full block splits in two.
const BLOCK: usize = 256;
/// Bits of a count that say that a bound is a bound only.
const LOOSE_FIRST: u64 = 1 << 63;
const LOOSE_LAST: u64 = 1 << 62;
/// Elements from which on a vector no longer doubles.
const GROWS_SLOWLY: usize = 4096;
/// Subjects without messages that are kept before a renumbering is thought of.
const DEAD_KEPT: usize = 4096;

/// How many subjects are looked up side by side: about as many loads as a core has under way at once.
pub(crate) const ABREAST: usize = 16;

/// What is known of a subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Info {
    /// Where its text begins, and how long it is in the top 16 bits.
    text: u64,
    /// Live messages, and which bounds are not exact.
    count: u64,
    /// No live message is before this.
    pub first: StreamSeq,
    /// No live message is after this.
    pub last: StreamSeq,
}

/// What is known of a subject, apart from its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub count: u64,
    pub first: StreamSeq,
    pub last: StreamSeq,
    pub loose_first: bool,
    pub loose_last: bool,
}

impl Info {
    /// All of it, to be kept.
    pub(crate) fn known(&self) -> Known {
        Known {
            count: self.count(),
            first: self.first,
            last: self.last,
            loose_first: !self.first_is_exact(),
            loose_last: !self.last_is_exact(),
        }
    }
    /// Live messages.
    pub(crate) fn count(&self) -> u64 {
        self.count & !(LOOSE_FIRST | LOOSE_LAST)
    }
    /// Whether `first` is a live message.
    pub(crate) fn first_is_exact(&self) -> bool {
        self.count & LOOSE_FIRST == 0
    }
    /// Whether `last` is a live message.
    pub(crate) fn last_is_exact(&self) -> bool {
        self.count & LOOSE_LAST == 0
    }
    /// With one message left, one exact bound is both.
    fn join(&mut self) {
        if self.count() == 1 {
            match (self.first_is_exact(), self.last_is_exact()) {
                (true, false) => self.last = self.first,
                (false, true) => self.first = self.last,
                _ => return,
            }
            self.count = 1;
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Dict {
    text: Vec<u8>,
    infos: Vec<Info>,
    table: Table,
    order: Vec<Vec<u32>>,
    live: usize,
    /// What was found last: who asks for a subject, then removes a message of it.
    found: Cell<u32>,
}

/// Makes room for `more`. A large vector grows by an eighth and not to the double, whose empty half alone would break S-52.
fn make_room<T>(v: &mut Vec<T>, more: usize) {
    if v.capacity() - v.len() < more && v.len() >= GROWS_SLOWLY {
        v.reserve_exact(more.max(v.len() / 8));
    }
}

impl Dict {
    /// An empty one with room for `n` subjects.
    pub(crate) fn with_room(n: usize) -> Dict {
        Dict { infos: Vec::with_capacity(n), table: Table::with_room(n), ..Dict::default() }
    }
    /// Adds a subject that comes after all that are there, with what is known of it. False if that cannot be.
    pub(crate) fn push(&mut self, s: &[u8], k: &Known) -> bool {
        let rises = self.infos.last().is_none_or(|l| text_of(&self.text, l) < s);
        if !rises
            || k.count == 0
            || k.count >= LOOSE_LAST
            || k.first > k.last
            || s.len() > usize::from(u16::MAX)
        {
            return false;
        }
        let Ok(id) = u32::try_from(self.infos.len()) else { return false };
        let loose = |l: bool, bit: u64| if l { bit } else { 0 };
        let count = k.count | loose(k.loose_first, LOOSE_FIRST) | loose(k.loose_last, LOOSE_LAST);
        let text = self.text.len() as u64 | (s.len() as u64) << 48;
        make_room(&mut self.text, s.len());
        make_room(&mut self.infos, 1);
        self.text.extend_from_slice(s);
        self.infos.push(Info { text, count, first: k.first, last: k.last });
        self.table.insert(tag(keyed::hash(s)), id);
        match self.order.last_mut() {
            Some(b) if b.len() < BLOCK => b.push(id),
            _ => {
                let mut b = Vec::with_capacity(BLOCK);
                b.push(id);
                self.order.push(b);
            }
        }
        self.live += 1;
        true
    }

    /// How many ids were given.
    pub(crate) fn ids(&self) -> usize {
        self.infos.len()
    }
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
    pub(crate) fn weight(&self) -> usize {
        self.text.capacity()
            + self.infos.capacity() * size_of::<Info>()
            + self.table.heap_bytes()
            + self.order.iter().map(|b| b.capacity() * 4 + 24).sum::<usize>()
    }

    /// Notes which subject is compared first when the next one is looked for.
    pub(crate) fn asked_for(&self, id: u32) {
        self.found.set(id);
    }
    /// The id of a subject, if it is the one that was found last.
    pub(crate) fn found_last(&self, s: &[u8]) -> Option<u32> {
        let last = self.found.get();
        self.infos.get(last as usize).is_some_and(|i| text_of(&self.text, i) == s).then_some(last)
    }
    /// The subject that was found last, if this is its first message.
    pub(crate) fn found_first(&self, seq: StreamSeq) -> Option<u32> {
        let last = self.found.get();
        let is_first = |i: &Info| i.count() > 0 && i.first_is_exact() && i.first == seq;
        self.infos.get(last as usize).is_some_and(is_first).then_some(last)
    }
    /// The id of a subject, if it was ever seen.
    pub(crate) fn find(&self, s: &[u8]) -> Option<u32> {
        if let Some(last) = self.found_last(s) {
            return Some(last);
        }
        let id = self.table.find(tag(keyed::hash(s)), |id| self.subject(id) == s)?;
        self.found.set(id);
        Some(id)
    }

    /// The ids of several subjects, in their order. A random subject is three misses of the processor's cache, one after another; side by side they are
    /// waited for together: each pass touches what the next one needs, for all of them.
    pub(crate) fn find_each(&self, subjects: &[&[u8]], mut found: impl FnMut(usize, Option<u32>)) {
        let (mut hashes, mut ids) = ([0; ABREAST], [None; ABREAST]);
        for (n, some) in subjects.chunks(ABREAST).enumerate() {
            self.guess(some, &mut hashes, &mut ids);
            let texts = ids[..some.len()].iter().flatten().map(|id| self.subject(*id));
            black_box(texts.fold(0, |touched, s| touched ^ s.first().copied().unwrap_or_default()));
            for (i, s) in some.iter().enumerate() {
                // Of two subjects with one hash the first was touched, and the search goes on behind it.
                let id = match ids[i] {
                    Some(id) if self.subject(id) != *s => {
                        self.table.find(hashes[i], |id| self.subject(id) == *s)
                    }
                    id => id,
                };
                found(n * ABREAST + i, id);
            }
        }
    }
    /// The same without a look at the texts, for who sees the subjects himself in what he finds: `None` is sure, an id is that of the subject or of
    /// another with its hash.
    pub(crate) fn guess_each(&self, subjects: &[&[u8]], mut found: impl FnMut(usize, Option<u32>)) {
        let (mut hashes, mut ids) = ([0; ABREAST], [None; ABREAST]);
        for (n, some) in subjects.chunks(ABREAST).enumerate() {
            self.guess(some, &mut hashes, &mut ids);
            ids[..some.len()].iter().enumerate().for_each(|(i, id)| found(n * ABREAST + i, *id));
        }
    }
    /// The hashes of a few subjects, the first id that has each, and what is known of it touched.
    fn guess(&self, some: &[&[u8]], hashes: &mut [u32; ABREAST], ids: &mut [Option<u32>; ABREAST]) {
        let mut touched = 0;
        for (s, h) in some.iter().zip(hashes.iter_mut()) {
            *h = tag(keyed::hash(s));
            touched ^= self.table.touch(*h);
        }
        for (h, id) in hashes[..some.len()].iter().zip(ids) {
            *id = self.table.find(*h, |_| true);
            touched ^= id.map_or(0, |id| self.infos[id as usize].text);
        }
        black_box(touched);
    }

    /// As [`Dict::intern`], for subjects that are asked for in order: `before` is the one that was asked for before. Where most of them are there
    /// already, the next id is the next subject's.
    pub(crate) fn intern_next(&mut self, s: &[u8], before: Option<u32>) -> u32 {
        let next = before.map_or(0, |b| b + 1);
        if let Some(i) = self.infos.get(next as usize)
            && text_of(&self.text, i) == s
        {
            return next;
        }
        self.intern(s)
    }

    /// The id of a subject, new ones added.
    pub(crate) fn intern(&mut self, s: &[u8]) -> u32 {
        if let Some(id) = self.find(s) {
            return id;
        }
        let id = u32::try_from(self.infos.len()).ok().filter(|id| *id < u32::MAX);
        let id = id.expect("fewer than 2^32 subjects in a stream");
        let text = self.text.len() as u64 | (s.len() as u64) << 48;
        make_room(&mut self.text, s.len());
        make_room(&mut self.infos, 1);
        self.text.extend_from_slice(s);
        self.infos.push(Info { text, count: 0, first: StreamSeq(0), last: StreamSeq(0) });
        self.table.insert(tag(keyed::hash(s)), id);
        self.put_in_order(s, id);
        id
    }

    fn put_in_order(&mut self, s: &[u8], id: u32) {
        if self.order.is_empty() {
            self.order.push(Vec::new());
        }
        // Many come in rising order: then nothing is searched.
        let last = self.order.len() - 1;
        let (b, at) = if self.order[last].last().is_some_and(|i| self.subject(*i) < s) {
            (last, self.order[last].len())
        } else {
            let b = self.block_of(s);
            (b, self.order[b].partition_point(|i| self.subject(*i) < s))
        };
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

    /// Notes a live message. Returns what was the last one of its subject, if that is known and before it.
    pub(crate) fn add(&mut self, id: u32, seq: StreamSeq) -> Option<StreamSeq> {
        let i = &mut self.infos[id as usize];
        let mut before = None;
        if i.count() == 0 {
            (i.first, i.last, i.count) = (seq, seq, 0);
            self.live += 1;
        } else {
            before = (i.last_is_exact() && i.last < seq).then_some(i.last);
            if seq < i.first {
                i.first = seq;
                i.count &= !LOOSE_FIRST;
            }
            if seq > i.last {
                i.last = seq;
                i.count &= !LOOSE_LAST;
            }
        }
        i.count += 1;
        before
    }

    /// Notes that a live message is gone.
    pub(crate) fn remove(&mut self, id: u32, seq: StreamSeq) {
        let i = &mut self.infos[id as usize];
        assert!(i.count() > 0, "S-50: a subject without messages loses one");
        i.count -= 1;
        if i.count() == 0 {
            i.count = 0;
            self.live -= 1;
            return;
        }
        if seq <= i.first {
            i.first = seq.next();
            i.count |= LOOSE_FIRST;
        }
        if seq >= i.last {
            i.last = StreamSeq(seq.0 - 1);
            i.count |= LOOSE_LAST;
        }
        i.join();
    }

    /// Makes the bounds exact, after a search found them.
    pub(crate) fn tighten(&mut self, id: u32, first: Option<StreamSeq>, last: Option<StreamSeq>) {
        let i = &mut self.infos[id as usize];
        if let Some(f) = first {
            i.first = f;
            i.count &= !LOOSE_FIRST;
        }
        if let Some(l) = last {
            i.last = l;
            i.count &= !LOOSE_LAST;
        }
        i.join();
    }

    /// Whether most subjects have no messages left.
    pub(crate) fn is_mostly_dead(&self) -> bool {
        self.infos.len() - self.live > self.live + DEAD_KEPT
    }

    /// Forgets the subjects without messages; the new number of each old one, `u32::MAX` for those that are gone.
    pub(crate) fn renumber(&mut self) -> Vec<u32> {
        let mut new = Dict::default();
        new.infos.reserve_exact(self.live);
        let mut ids = vec![u32::MAX; self.infos.len()];
        // In order, so that the blocks are filled one after another.
        for &old in self.order.iter().flatten() {
            let i = self.infos[old as usize];
            if i.count() > 0 {
                let id = new.intern(text_of(&self.text, &i));
                let text = new.infos[id as usize].text;
                new.infos[id as usize] = Info { text, ..i };
                ids[old as usize] = id;
            }
        }
        new.live = self.live;
        *self = new;
        ids
    }

    /// The subjects that have messages and match, if it is quickly seen that they are few.
    pub(crate) fn few(&self, filter: &[u8], most: usize, looked_at_max: usize) -> Option<Vec<u32>> {
        let (mut out, prefix) = (Vec::new(), filter::prefix(filter));
        if !filter::is_literal(filter) {
            let from = self.block_of(prefix);
            let at = |id: &&u32| self.subject(**id) < prefix;
            let behind = |id: &&u32| self.subject(**id).starts_with(prefix);
            let all = self.order.iter().skip(from).flatten().skip_while(at).take_while(behind);
            if all.take(looked_at_max + 1).count() > looked_at_max {
                return None;
            }
        }
        self.matching(filter, |id| {
            out.push(id);
            out.len() <= most
        });
        (out.len() <= most).then_some(out)
    }

    /// Calls `f` with each subject that has messages and matches, in order, until it says stop.
    pub(crate) fn matching(&self, filter: &[u8], mut f: impl FnMut(u32) -> bool) {
        if filter::is_literal(filter) && !filter.is_empty() {
            if let Some(id) = self.find(filter)
                && self.infos[id as usize].count() > 0
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
                if self.infos[id as usize].count() > 0 && (all || filter::matches(filter, s)) && !f(id) {
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
                    got.push((String::from_utf8_lossy(d.subject(id)).into_owned(), d.info(id).count()));
                    true
                });
                let want: Vec<_> = model.iter().filter(|(s, _)| filter::matches(f.as_bytes(), s.as_bytes()))
                    .map(|(s, v)| (s.clone(), v.len() as u64)).collect();
                prop_assert_eq!(got, want, "{}", f);
            }
            let all: Vec<String> = ["a", "b"].iter().flat_map(|a| ["a", "b", "c", "d"].map(|b| format!("{a}.{b}"))).collect();
            let asked: Vec<&[u8]> = all.iter().chain(model.keys()).map(|s| s.as_bytes()).collect();
            let mut each = Vec::new();
            d.find_each(&asked, |i, id| each.push((i, id)));
            let alone: Vec<_> = asked.iter().map(|s| d.find(s)).enumerate().collect();
            prop_assert_eq!(&each, &alone);
            each.clear();
            d.guess_each(&asked, |i, id| each.push((i, id)));
            prop_assert_eq!(each, alone, "so few have no hash in common");
            for (s, v) in &model {
                let i = *d.info(d.find(s.as_bytes()).expect("in it"));
                prop_assert!(i.first.0 <= v[0] && i.last.0 >= v[v.len() - 1]);
                prop_assert!(!i.first_is_exact() || i.first.0 == v[0]);
                prop_assert!(!i.last_is_exact() || i.last.0 == v[v.len() - 1]);
            }
        }
    }

    #[test]
    fn what_does_not_rise_is_no_dictionary() {
        let k = Known {
            count: 1,
            first: StreamSeq(1),
            last: StreamSeq(1),
            loose_first: false,
            loose_last: false,
        };
        let mut d = Dict::with_room(2);
        assert!(d.push(b"b", &k) && !d.push(b"b", &k) && !d.push(b"a", &k));
        assert!(!d.push(b"c", &Known { count: 0, ..k }) && !d.push(b"c", &Known { last: StreamSeq(0), ..k }));
        assert!(d.push(b"c", &k) && d.find(b"c") == Some(1) && d.intern_next(b"c", Some(0)) == 1);
        assert_eq!(d.intern_next(b"a", None), 2);
    }

    #[test]
    fn subjects_without_messages_are_forgotten() {
        let mut d = Dict::default();
        for i in 0..20_000u64 {
            let id = d.intern(format!("s.{i}").as_bytes());
            d.add(id, StreamSeq(i + 1));
            if i % 10 != 0 {
                d.remove(id, StreamSeq(i + 1));
            }
        }
        assert!(d.is_mostly_dead());
        let old = d.find(b"s.10").expect("it has a message");
        let ids = d.renumber();
        assert!(!d.is_mostly_dead() && d.live() == 2000 && d.infos.len() == 2000);
        assert_eq!(d.find(b"s.11"), None);
        let new = d.find(b"s.10").expect("it still has a message");
        assert_eq!((ids[old as usize], d.info(new).first), (new, StreamSeq(11)));
    }

    #[test]
    fn s52_bytes_per_subject() {
        // Also right behind a power of two, where what doubles is half empty.
        for (rising, n) in [(true, 100_000u64), (false, 100_000), (true, 70_000), (false, 70_000)] {
            let (mut d, mut texts) = (Dict::default(), 0);
            for i in 0..n {
                let k = if rising { i } else { i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20 };
                let s = format!("orders.{k:012}.created");
                texts += s.len();
                let id = d.intern(s.as_bytes());
                d.add(id, StreamSeq(i + 1));
            }
            let each = (d.weight() - texts) as f64 / n as f64;
            assert!(each <= 64.0, "S-52: {each:.1} bytes a subject");
        }
    }
}
