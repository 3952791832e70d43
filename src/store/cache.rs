//! What was read from segment files and may be needed again, within a budget of bytes.
//!
//! Owns the budget and the choice of what goes. New blocks enter on probation and are kept only if they are read again
//! before they leave it, so that one pass over a stream does not push out what others use.
//!
//! - S-90: the weight of what is kept never exceeds the budget by more than the one item being added.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    crypt::FileKey,
    io::File,
    segment::{Block, IndexFoot, SubjectFoot},
    types::FileId,
};

/// Segment files that are kept open.
const FILES_MAX: usize = 512;

/// An open segment file.
#[derive(Debug)]
pub(crate) struct Open {
    pub file: File,
    pub key: Option<FileKey>,
}

/// A place in a file.
pub(crate) type At = (FileId, u64);

/// A budgeted map with a probation queue and a kept queue.
pub(crate) struct Budgeted<V> {
    map: BTreeMap<At, (V, usize, bool)>,
    probation: VecDeque<At>,
    kept: VecDeque<At>,
    weight: usize,
    budget: usize,
}

impl<V: Clone> Budgeted<V> {
    fn new(budget: usize) -> Self {
        Budgeted {
            map: BTreeMap::new(),
            probation: VecDeque::new(),
            kept: VecDeque::new(),
            weight: 0,
            budget,
        }
    }
    fn get(&mut self, at: At) -> Option<V> {
        let (v, _, again) = self.map.get_mut(&at)?;
        *again = true;
        Some(v.clone())
    }
    fn put(&mut self, at: At, v: V, weight: usize) {
        if let Some(old) = self.map.insert(at, (v, weight, false)) {
            self.weight -= old.1;
        } else {
            self.probation.push_back(at);
        }
        self.weight += weight;
        while self.weight > self.budget && self.map.len() > 1 {
            self.drop_one();
        }
    }
    /// Probation goes first; what was read again there moves up, and what is kept gets a second chance too.
    fn drop_one(&mut self) {
        let (at, from_kept) = match self.probation.pop_front() {
            Some(at) => (at, false),
            None => match self.kept.pop_front() {
                Some(at) => (at, true),
                None => return,
            },
        };
        let Some((_, weight, again)) = self.map.get_mut(&at) else { return };
        if std::mem::take(again) {
            self.kept.push_back(at);
            return;
        }
        let _ = from_kept;
        self.weight -= *weight;
        self.map.remove(&at);
    }
    fn forget(&mut self, file: FileId) {
        let gone: Vec<At> = self.map.range((file, 0)..=(file, u64::MAX)).map(|(k, _)| *k).collect();
        for at in gone {
            if let Some((_, w, _)) = self.map.remove(&at) {
                self.weight -= w;
            }
        }
    }
    /// Bytes that are kept.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }
}

/// See the module.
pub(crate) struct Cache {
    files: Mutex<BTreeMap<FileId, Arc<Open>>>,
    pub subjects: Mutex<Budgeted<Arc<SubjectFoot>>>,
    pub index: Mutex<Budgeted<Arc<IndexFoot>>>,
    pub blocks: Mutex<Budgeted<Block>>,
}

impl Cache {
    pub(crate) fn new(footers: usize, blocks: usize) -> Cache {
        Cache {
            files: Mutex::default(),
            subjects: Mutex::new(Budgeted::new(footers / 4 * 3)),
            index: Mutex::new(Budgeted::new(footers / 4)),
            blocks: Mutex::new(Budgeted::new(blocks)),
        }
    }
    pub(crate) fn file(&self, id: FileId) -> Option<Arc<Open>> {
        self.files.lock().get(&id).cloned()
    }
    pub(crate) fn put_file(&self, id: FileId, f: Arc<Open>) {
        let mut all = self.files.lock();
        if all.len() >= FILES_MAX {
            all.pop_first();
        }
        all.insert(id, f);
    }
    pub(crate) fn get_subjects(&self, at: At) -> Option<Arc<SubjectFoot>> {
        self.subjects.lock().get(at)
    }
    pub(crate) fn put_subjects(&self, at: At, f: Arc<SubjectFoot>) {
        let w = f.weight();
        self.subjects.lock().put(at, f, w);
    }
    pub(crate) fn get_index(&self, at: At) -> Option<Arc<IndexFoot>> {
        self.index.lock().get(at)
    }
    pub(crate) fn put_index(&self, at: At, f: Arc<IndexFoot>) {
        let w = f.weight();
        self.index.lock().put(at, f, w);
    }
    pub(crate) fn get_block(&self, at: At) -> Option<Block> {
        self.blocks.lock().get(at)
    }
    pub(crate) fn put_block(&self, at: At, b: Block) {
        let w = b.raw.len() + 64;
        self.blocks.lock().put(at, b, w);
    }
    /// Drops one block, which was found to be bad.
    pub(crate) fn drop_block(&self, at: At) {
        let mut b = self.blocks.lock();
        if let Some((_, w, _)) = b.map.remove(&at) {
            b.weight -= w;
        }
    }
    /// Drops all that belongs to a file.
    pub(crate) fn forget(&self, id: FileId) {
        self.files.lock().remove(&id);
        self.subjects.lock().forget(id);
        self.index.lock().forget(id);
        self.blocks.lock().forget(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s90_the_budget_holds_and_a_scan_pushes_out_only_itself() {
        let mut c: Budgeted<u32> = Budgeted::new(1000);
        for i in 0..50 {
            c.put((FileId(1), i), i as u32, 10);
            assert_eq!(c.get((FileId(1), i)), Some(i as u32));
        }
        for i in 0..10_000 {
            c.put((FileId(2), i), 0, 10);
            assert!(c.weight() <= 1000);
        }
        let kept = (0..50).filter(|i| c.map.contains_key(&(FileId(1), *i))).count();
        assert_eq!(kept, 50, "blocks that were read twice outlive a scan");
        c.forget(FileId(1));
        assert!((0..50).all(|i| c.get((FileId(1), i)).is_none()));
        assert!(c.map.len() <= 100 && c.weight() == c.map.len() * 10);
    }
}
