//! Which consumers of a stream want a subject.
//!
//! Owns an index over the filters of many consumers, so that a message costs what those cost that want it. A few are asked one by one: the
//! index is built when there are more. Does not own the filters.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use subject::Trie;

/// Consumers that are asked one by one.
pub(crate) const FEW: usize = 8;

/// A consumer in the index.
struct Named {
    id: u64,
    name: Arc<str>,
}

impl subject::Member for Named {
    fn key(&self) -> u64 {
        self.id
    }
}

/// See the module.
pub(crate) struct Index {
    trie: Trie<Named>,
    /// Those without a filter.
    all: BTreeMap<Arc<str>, u64>,
    /// Where each stands.
    places: BTreeMap<Arc<str>, (u64, Vec<Bytes>)>,
    /// Those that may await acks of messages that their filters, as they are now, do not let pass.
    odd: BTreeSet<Arc<str>>,
    last_id: u64,
}

impl Index {
    pub(crate) fn new() -> Index {
        Index {
            trie: Trie::new(env::rng("consumer filters").next_u64()),
            all: BTreeMap::new(),
            places: BTreeMap::new(),
            odd: BTreeSet::new(),
            last_id: 0,
        }
    }
    /// Adds a consumer, or changes its filters. `odd` if it may await acks of other messages.
    pub(crate) fn set(&mut self, name: &Arc<str>, filters: &[Bytes], odd: bool) {
        if self.places.get(name).is_some_and(|p| p.1 == filters) {
            return;
        }
        let was_odd = self.odd.contains(name);
        self.remove(name);
        self.last_id += 1;
        let id = self.last_id;
        for f in filters {
            // Filters are checked subjects; one that the trie will not have is as none: then it is asked each time.
            if self.trie.insert(f, None, Named { id, name: name.clone() }).is_err() {
                self.all.insert(name.clone(), id);
            }
        }
        if filters.is_empty() {
            self.all.insert(name.clone(), id);
        }
        if odd || was_odd {
            self.odd.insert(name.clone());
        }
        self.places.insert(name.clone(), (id, filters.to_vec()));
    }
    pub(crate) fn remove(&mut self, name: &str) {
        let Some((id, filters)) = self.places.remove(name) else { return };
        for f in &filters {
            self.trie.remove(f, None, id);
        }
        self.all.remove(name);
        self.odd.remove(name);
    }
    /// Each consumer whose filters let the subject pass.
    #[inline]
    pub(crate) fn each(&self, subject: &[u8], mut f: impl FnMut(&Arc<str>)) {
        self.all.keys().for_each(&mut f);
        self.trie.visit(subject, |_, n| f(&n.name));
    }
    /// Each that may await an ack of a message of this subject.
    pub(crate) fn each_awaiting(&self, subject: &[u8], mut f: impl FnMut(&Arc<str>)) {
        self.odd.iter().for_each(&mut f);
        self.each(subject, |name| {
            if self.odd.is_empty() || !self.odd.contains(name) {
                f(name);
            }
        });
    }
    /// Whether there is any.
    pub(crate) fn any(&self, subject: &[u8]) -> bool {
        !self.all.is_empty() || self.trie.has_interest(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ix: &Index, subject: &str, awaiting: bool) -> Vec<String> {
        let mut out = Vec::new();
        let add = |n: &Arc<str>| out.push(n.to_string());
        if awaiting {
            ix.each_awaiting(subject.as_bytes(), add)
        } else {
            ix.each(subject.as_bytes(), add)
        }
        out.sort();
        out
    }

    #[test]
    fn each_is_found_by_its_filters_once() {
        let mut ix = Index::new();
        let of = |f: &[&'static str]| f.iter().map(|f| Bytes::from_static(f.as_bytes())).collect::<Vec<_>>();
        ix.set(&"lit".into(), &of(&["a.b"]), false);
        ix.set(&"wild".into(), &of(&["a.*", "c.>"]), false);
        ix.set(&"all".into(), &[], false);
        assert_eq!(names(&ix, "a.b", false), ["all", "lit", "wild"]);
        assert_eq!(names(&ix, "c.d.e", false), ["all", "wild"]);
        ix.remove("all");
        assert!(ix.any(b"a.x") && !ix.any(b"x"));
        // Another filter: what it was given under the old one is awaited still.
        ix.set(&"lit".into(), &of(&["x"]), true);
        assert_eq!(names(&ix, "a.b", false), ["wild"]);
        assert_eq!(names(&ix, "a.b", true), ["lit", "wild"]);
        assert_eq!(names(&ix, "x", true), ["lit"], "once");
        ix.remove("lit");
        ix.remove("wild");
        assert!(!ix.any(b"a.b") && !ix.any(b"x") && names(&ix, "x", true).is_empty());
    }
}
