//! Which key sealed what, over changes of keys: so that a store that needs a key which is not there is refused and not misread, and what an
//! earlier key sealed is known to be sealed anew.
//!
//! Owns the eras and the ring that the manifest carries. Seals nothing.
//!
//! Ids of segment files only rise, and a process seals all that it writes with one key: so an era is the first file that a key sealed.
//! The ring holds the earlier keys that files still need. It lies in the manifest, which is sealed with the newest key: once one such
//! manifest is durable, the earlier keys need not be configured any more.
//!
//! - S-31: nothing is taken from a store whose manifest, or whose journal as far as it is needed, is sealed with a key that is not there.
//! - S-32: a key leaves the ring only when no piece, and no round that an opening could still ask for, is sealed with it.

use std::collections::BTreeSet;

use crate::{
    codec::{Get, Put},
    crypt::{Key, Keys},
    types::FileId,
};

/// The first file of each era, with the id of the key that sealed it and those behind it; 0 for none. Files before the first era are not sealed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Eras(Vec<(FileId, u32)>);

impl Eras {
    /// The id of the key that sealed a file.
    pub(crate) fn key_of(&self, file: FileId) -> u32 {
        self.0.iter().rev().find(|e| e.0 <= file).map_or(0, |e| e.1)
    }

    /// Whether nothing was ever sealed.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.is_empty()
    }

    /// Files from `next` on are sealed with this key.
    pub(crate) fn begin(&mut self, next: FileId, key: u32) {
        // An era in which nothing was written.
        while self.0.last().is_some_and(|e| e.0 >= next) {
            self.0.pop();
        }
        if self.0.last().map_or(0, |e| e.1) != key {
            self.0.push((next, key));
        }
    }

    /// The same without eras of which no file is left, for a manifest that names these files.
    pub(crate) fn of_files(&self, files: &BTreeSet<FileId>) -> Eras {
        let mut out = Eras::default();
        for (i, (first, key)) in self.0.iter().enumerate() {
            let end = self.0.get(i + 1).map(|e| e.0);
            let used = end.is_none_or(|end| files.range(*first..end).next().is_some());
            let before = out.0.last().map_or(0, |e: &(FileId, u32)| e.1);
            // Files between two eras that are left belong to neither, so it does not matter whose they are taken for.
            if used && before != *key {
                out.0.push((*first, *key));
            }
        }
        out
    }

    /// The ids of keys that these files need; none for files that are not sealed.
    pub(crate) fn needed(&self, files: &BTreeSet<FileId>) -> BTreeSet<u32> {
        files.iter().map(|f| self.key_of(*f)).filter(|k| *k != 0).collect()
    }
}

/// Puts both at the end of a manifest; nothing at all where no key ever was.
pub(crate) fn put(b: &mut Vec<u8>, eras: &Eras, ring: &[Key]) {
    if eras.0.is_empty() && ring.is_empty() {
        return;
    }
    b.var(eras.0.len() as u64);
    for (first, key) in &eras.0 {
        b.var(first.0);
        b.u32(*key);
    }
    b.var(ring.len() as u64);
    ring.iter().for_each(|k| k.put(b));
}

/// What [`put`] wrote.
pub(crate) fn get(g: &mut Get<'_>) -> Option<(Eras, Vec<Key>)> {
    let (mut eras, mut ring) = (Eras::default(), Vec::new());
    if g.0.is_empty() {
        return Some((eras, ring));
    }
    for _ in 0..g.count(5)? {
        eras.0.push((FileId(g.var()?), g.u32()?));
    }
    for _ in 0..g.count(2)? {
        ring.push(Key::get(g)?);
    }
    Some((eras, ring))
}

impl Keys {
    /// Those of `ring` that are not configured join behind the configured ones.
    pub(crate) fn learn(&mut self, ring: &[Key]) {
        for k in ring {
            if !self.0.iter().any(|o| o.id() == k.id()) {
                self.0.push(k.clone());
            }
        }
    }

    /// The ring of the next manifest: earlier keys that are still needed. None where nothing seals the manifest itself.
    pub(crate) fn ring(&self, needed: &BTreeSet<u32>) -> Vec<Key> {
        self.0.iter().skip(1).filter(|k| needed.contains(&k.id())).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cipher;

    fn files(of: &[u64]) -> BTreeSet<FileId> {
        of.iter().copied().map(FileId).collect()
    }

    #[test]
    fn s32_files_keep_their_keys_while_they_are_there() {
        let mut e = Eras::default();
        e.begin(FileId(1), 0);
        assert_eq!(e, Eras::default(), "nothing was ever sealed");
        e.begin(FileId(5), 7);
        e.begin(FileId(9), 7);
        e.begin(FileId(12), 8);
        // A life in which no file was written.
        e.begin(FileId(12), 9);
        let of = |e: &Eras| [1, 4, 5, 11, 12, 90].map(|f| e.key_of(FileId(f)));
        assert_eq!(of(&e), [0, 0, 7, 7, 9, 9]);
        assert_eq!(e.needed(&files(&[1, 5, 12])), [7, 9].into());
        assert_eq!(of(&e.of_files(&files(&[1, 11, 12]))), [0, 0, 7, 7, 9, 9]);
        let left = e.of_files(&files(&[2, 13]));
        assert_eq!([2, 12, 13].map(|f| left.key_of(FileId(f))), [0, 9, 9]);
        e.begin(FileId(20), 0);
        assert_eq!([19, 20].map(|f| e.of_files(&files(&[12])).key_of(FileId(f))), [9, 0]);
    }

    #[test]
    fn s32_the_ring_holds_what_is_needed_and_comes_back() {
        let key = |s: &str| Key::new(Cipher::Aes, s.as_bytes());
        let (new, old, older) = (key("new"), key("old"), Key::new(Cipher::ChaCha, b"older"));
        let keys = Keys(vec![new.clone(), old.clone(), older.clone()]);
        assert_eq!(keys.ring(&[new.id(), older.id()].into()), std::slice::from_ref(&older));
        assert!(Keys(vec![]).ring(&[older.id()].into()).is_empty());
        let mut e = Eras::default();
        e.begin(FileId(3), older.id());
        e.begin(FileId(6), new.id());
        let mut b = Vec::new();
        put(&mut b, &e, &[old.clone(), older.clone()]);
        let mut g = Get(&b);
        assert_eq!(get(&mut g), Some((e, vec![old.clone(), older.clone()])));
        assert!(g.0.is_empty());
        for cut in 1..b.len() {
            let mut g = Get(&b[..cut]);
            assert!(get(&mut g).is_none(), "cut {cut}");
        }
        let mut learnt = Keys(vec![new.clone(), old.clone()]);
        learnt.learn(&[old.clone(), older.clone()]);
        assert_eq!(learnt, Keys(vec![new, old, older]));
        b.clear();
        put(&mut b, &Eras::default(), &[]);
        assert!(b.is_empty());
    }
}
