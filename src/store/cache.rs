//! What was read from segment files and may be needed again, within a budget of bytes.
//!
//! Owns the budget and the choice of what goes. New blocks enter on probation and are kept only if they are used again
//! before they leave it, and not just by who had them read, so that one pass over a stream does not push out what others use. A part of the budget is
//! probation's for good: what has just been read is about to be asked for, whatever else was worth keeping. What was read by somebody who goes through a piece
//! in order has such a part to itself and no more: memory that goes round in a few mebibytes costs less than memory that is used for the first time.
//!
//! - S-90: the weight of what is kept never exceeds the budget by more than the one item being added.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use env::{collections::HashMap, disk::Soon};
use parking_lot::Mutex;

use crate::{
    crypt::FileKey,
    group::Piece,
    io::File,
    segment::{Block, IndexFoot, SubjectFoot},
    types::{FileId, GroupId, StreamSeq},
};

/// Segment files that are kept open.
const FILES_MAX: usize = 512;

/// Readers that are remembered, so that one that reads in order is known.
const READERS_MAX: usize = 64;

/// Bytes of readings ahead that wait for their readers.
const AHEAD_BYTES_MAX: usize = 8 << 20;
/// What somebody who passes small messages in order takes of the cache: the part that he is in, with its tables.
const PASSING_EACH: usize = 300 << 10;

/// An open segment file.
#[derive(Debug)]
pub(crate) struct Open {
    pub file: File,
    pub key: Option<FileKey>,
}

/// A place in a file.
pub(crate) type At = (FileId, u64);

/// Bytes of a block from which on it is one of the large ones, which have a budget of their own: they are read in order as a rule, in memory that goes
/// round, and would go through all that there is for blocks. On most machines memory that is used for the first time costs more than reading into it.
pub(crate) const LARGE: usize = 64 << 10;
/// Their budget is this part of that for blocks, and besides it.
const LARGE_PART: usize = 4;

/// The part of a budget that new items may fill before they have to make room for each other.
const PROBATION_PART: usize = 8;
/// Of a budget, what has to come after an item before a use of it counts: uses right after it came are of who had it read.
const SETTLED_PART: usize = 16;

/// What a [`Budgeted`] map keeps.
pub(crate) trait Kept: Clone {
    /// It has shown that it is worth keeping: it lets go of what came with it.
    fn settle(&mut self) {}
}
impl<T> Kept for Arc<T> {}
impl Kept for Block {
    fn settle(&mut self) {
        self.stand_alone();
    }
}

/// Where an item stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Somebody goes past it in order and is likely to be done with it soon.
    Passing,
    /// It is to show whether it is worth keeping.
    Probation,
    Kept,
}

#[derive(Debug)]
struct Item<V> {
    value: V,
    weight: usize,
    /// What had come when it did.
    born: u64,
    /// Used since it entered its queue, or was last passed over.
    again: Cell<bool>,
    place: Place,
}

/// A budgeted map with a queue for each [`Place`].
pub(crate) struct Budgeted<V> {
    map: HashMap<At, Item<V>>,
    queues: [VecDeque<At>; 3],
    weights: [usize; 3],
    /// The weight of all that ever came.
    come: u64,
    budget: usize,
    /// What may pass at once.
    passing: usize,
}

impl<V: Kept> Budgeted<V> {
    fn new(budget: usize) -> Self {
        Budgeted {
            map: HashMap::default(),
            queues: Default::default(),
            weights: [0; 3],
            come: 0,
            budget,
            passing: budget / PROBATION_PART,
        }
    }
    fn get(&self, at: At) -> Option<V> {
        self.look(at).cloned()
    }
    pub(crate) fn look(&self, at: At) -> Option<&V> {
        let i = self.map.get(&at)?;
        if self.come - i.born >= (self.budget / SETTLED_PART) as u64 {
            i.again.set(true);
        }
        Some(&i.value)
    }
    fn holds(&self, at: At) -> bool {
        self.map.contains_key(&at)
    }
    fn weight(&self) -> usize {
        self.weights.iter().sum()
    }
    /// Adds an item at `place`; one that is there already stays where it is.
    fn put(&mut self, at: At, value: V, weight: usize, place: Place) {
        if let Some(i) = self.map.get_mut(&at) {
            let old = std::mem::replace(&mut i.weight, weight);
            i.value = value;
            if i.place == Place::Kept {
                i.value.settle();
            }
            let all = &mut self.weights[i.place as usize];
            *all = *all - old + weight;
        } else {
            self.come += weight as u64;
            self.map.insert(at, Item { value, weight, born: self.come, again: Cell::new(false), place });
            self.queues[place as usize].push_back(at);
            self.weights[place as usize] += weight;
        }
        while let Some(from) = self.to_drop(at) {
            self.drop_one(from);
        }
    }
    /// Where something has to go from, if it does. What passes has its part and no more, so that it goes round in little memory; others on probation go when
    /// the budget is used up, unless they are within their part. What has just come stays, also if it is more than a part: whoever had it read would have it
    /// read again for each question.
    fn to_drop(&self, new: At) -> Option<Place> {
        use Place::{Kept, Passing, Probation};
        let first = |p: Place| self.queues[p as usize].front();
        let has_other = |p: Place| first(p).is_some_and(|at| *at != new);
        let over = |p: Place, part: usize| self.weights[p as usize] > part && has_other(p);
        if over(Passing, self.passing) {
            return Some(Passing);
        }
        if self.weight() <= self.budget || self.map.len() <= 1 {
            return None;
        }
        let order = if over(Probation, self.budget / PROBATION_PART) {
            [Probation, Kept, Passing]
        } else {
            [Kept, Passing, Probation]
        };
        let other = order.into_iter().find(|p| has_other(*p));
        other.or_else(|| order.into_iter().find(|p| first(*p).is_some()))
    }
    /// What was used again moves up; what is kept gets a second chance too. Names in a queue whose item is gone, or stands in another, are dropped on the way.
    fn drop_one(&mut self, from: Place) {
        let Some(at) = self.queues[from as usize].pop_front() else { return };
        let Some(i) = self.map.get_mut(&at).filter(|i| i.place == from) else { return };
        if i.again.take() {
            if from != Place::Kept {
                i.place = Place::Kept;
                self.weights[from as usize] -= i.weight;
                self.weights[Place::Kept as usize] += i.weight;
                i.value.settle();
            }
            self.queues[Place::Kept as usize].push_back(at);
            return;
        }
        self.remove(at);
    }
    fn remove(&mut self, at: At) {
        if let Some(i) = self.map.remove(&at) {
            self.weights[i.place as usize] -= i.weight;
        }
    }
    fn forget(&mut self, file: FileId) {
        let gone: Vec<At> = self.map.keys().filter(|k| k.0 == file).copied().collect();
        for at in gone {
            self.remove(at);
        }
    }
    #[cfg(any(test, feature = "l1"))]
    fn is_within_budget(&self) -> bool {
        self.weight() <= self.budget || self.map.len() <= 1
    }
}

/// Readings that are under way, within a budget of bytes: those of many readers have to wait beside each other until they are asked for, or each is read twice.
struct Ahead<T> {
    all: VecDeque<(At, usize, T)>,
    bytes: usize,
}

impl<T> Default for Ahead<T> {
    fn default() -> Self {
        Ahead { all: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Ahead<T> {
    fn put(&mut self, at: At, len: usize, reading: T) {
        while self.bytes + len > AHEAD_BYTES_MAX
            && let Some((_, gone, _)) = self.all.pop_front()
        {
            self.bytes -= gone;
        }
        self.bytes += len;
        self.all.push_back((at, len, reading));
    }
    fn take(&mut self, at: At) -> Option<T> {
        let i = self.all.iter().position(|(a, ..)| *a == at)?;
        let (_, len, reading) = self.all.remove(i)?;
        self.bytes -= len;
        Some(reading)
    }
    fn forget(&mut self, file: FileId) {
        self.all.retain(|((of, _), ..)| *of != file);
        self.bytes = self.all.iter().map(|(_, len, _)| len).sum();
    }
}

/// See the module.
pub(crate) struct Cache {
    files: Mutex<BTreeMap<FileId, Arc<Open>>>,
    pub subjects: Mutex<Budgeted<Arc<SubjectFoot>>>,
    pub index: Mutex<Budgeted<Arc<IndexFoot>>>,
    pub blocks: Mutex<Budgeted<Block>>,
    large: Mutex<Budgeted<Block>>,
    /// The last blocks that were read, each by another reader as far as one can tell, and whether he read in order.
    recent: Mutex<VecDeque<(At, bool)>>,
    /// What those who read in order are about to ask for.
    ahead: Mutex<Ahead<Soon>>,
    /// Pieces that somebody who reads in order comes to next, until they were opened.
    coming: Mutex<VecDeque<Coming>>,
}

/// A piece that is about to be read from its beginning.
#[derive(Debug)]
pub(crate) struct Coming {
    pub piece: Arc<Piece>,
    /// Its subjects are asked for too.
    pub subjects: bool,
}

impl Cache {
    pub(crate) fn new(footers: usize, blocks: usize) -> Cache {
        Cache {
            files: Mutex::default(),
            subjects: Mutex::new(Budgeted::new(footers / 4 * 3)),
            index: Mutex::new(Budgeted::new(footers / 4)),
            blocks: Mutex::new(Budgeted::new(blocks)),
            large: Mutex::new(Budgeted::new(blocks / LARGE_PART)),
            recent: Mutex::default(),
            ahead: Mutex::default(),
            coming: Mutex::default(),
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
        self.subjects.lock().put(at, f, w, Place::Probation);
    }
    pub(crate) fn remove_subjects(&self, at: At) {
        self.subjects.lock().remove(at);
    }
    pub(crate) fn get_index(&self, at: At) -> Option<Arc<IndexFoot>> {
        self.index.lock().get(at)
    }
    pub(crate) fn put_index(&self, at: At, f: Arc<IndexFoot>) {
        let w = f.weight();
        self.index.lock().put(at, f, w, Place::Probation);
    }
    pub(crate) fn get_block(&self, at: At) -> Option<Block> {
        let small = self.blocks.lock().get(at);
        small.or_else(|| self.large.lock().get(at))
    }
    /// A record of a block, checked, if it is there: for one that is read alone, since two counts less are touched than with the block.
    pub(crate) fn record_of(&self, at: At, group: GroupId, seq: StreamSeq) -> Option<Bytes> {
        if let Some(b) = self.blocks.lock().look(at) {
            return b.whole(group, seq);
        }
        self.large.lock().look(at)?.whole(group, seq)
    }
    pub(crate) fn put_block(&self, at: At, b: Block) {
        self.put_block_as(at, b, Place::Probation);
    }
    /// Adds a block that somebody passes in order.
    pub(crate) fn put_passing(&self, at: At, b: Block) {
        self.put_block_as(at, b, Place::Passing);
    }
    fn put_block_as(&self, at: At, b: Block, place: Place) {
        let w = b.weight();
        if w >= LARGE {
            self.large.lock().put(at, b, w, Place::Probation);
        } else {
            self.blocks.lock().put(at, b, w, place);
        }
    }
    /// Whether there is memory for so many more bytes of small blocks, so that nothing has to go for them.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let blocks = self.blocks.lock();
        blocks.weight() + bytes <= blocks.budget
    }
    /// Whether a block is there, without counting as a use of it.
    pub(crate) fn holds_block(&self, at: At) -> bool {
        self.blocks.lock().holds(at) || self.large.lock().holds(at)
    }
    /// Notes that a block is asked for, and the one at `last` with it; whether the one at `before` was among the last ones, so that
    /// somebody goes through a piece in order. Many who do find room for what they pass beside each other, in up to half of the budget.
    pub(crate) fn follows(&self, before: At, last: impl FnOnce(bool) -> At) -> bool {
        let mut recent = self.recent.lock();
        let follows = match recent.iter().position(|(at, _)| *at == before) {
            Some(i) => recent.remove(i).is_some(),
            None => false,
        };
        if recent.len() >= READERS_MAX {
            recent.pop_front();
        }
        let last = last(follows);
        recent.push_back((last, follows));
        let readers = recent.iter().filter(|(_, in_order)| *in_order).count();
        drop(recent);
        let mut blocks = self.blocks.lock();
        let budget = blocks.budget;
        blocks.passing = (budget / PROBATION_PART).max((readers * PASSING_EACH).min(budget / 2));
        follows
    }
    /// Keeps a reading of `len` bytes that is under way for who asks for what stands there. One that nobody asks for goes when others come.
    pub(crate) fn put_ahead(&self, at: At, len: usize, soon: Soon) {
        self.ahead.lock().put(at, len, soon);
    }
    /// Whether a reading begins there.
    pub(crate) fn holds_ahead(&self, at: At) -> bool {
        self.ahead.lock().all.iter().any(|(a, ..)| *a == at)
    }
    /// Takes the reading that begins there.
    pub(crate) fn take_ahead(&self, at: At) -> Option<Soon> {
        self.ahead.lock().take(at)
    }
    /// Whether the block at `before` was among the last that were asked for, without noting anything.
    pub(crate) fn is_recent(&self, before: At) -> bool {
        self.recent.lock().iter().any(|(at, _)| *at == before)
    }
    /// Notes a piece that is to be opened before it is asked for; whether that is new. One that nobody opened goes when others come.
    pub(crate) fn put_coming(&self, new: Coming) -> bool {
        let mut coming = self.coming.lock();
        if coming.iter().any(|c| c.piece.key() == new.piece.key()) {
            return false;
        }
        if coming.len() >= READERS_MAX {
            coming.pop_front();
        }
        coming.push_back(new);
        true
    }
    /// The piece that is to be opened first. It stays noted until [`Cache::came`], so that it is not opened twice.
    pub(crate) fn first_coming(&self) -> Option<(Arc<Piece>, bool)> {
        self.coming.lock().front().map(|c| (c.piece.clone(), c.subjects))
    }
    /// It was opened, or cannot be.
    pub(crate) fn came(&self, at: At) {
        self.coming.lock().retain(|c| c.piece.key() != at);
    }
    /// Small blocks that hold on to more than their own bytes and are not known to, or stay all the same.
    #[cfg(test)]
    pub(crate) fn hoarders(&self) -> usize {
        let blocks = self.blocks.lock();
        let hoards = |i: &&Item<Block>| {
            if i.value.lent { i.place == Place::Kept } else { !i.value.raw.is_unique() }
        };
        blocks.map.values().filter(hoards).count()
    }
    /// Bytes of small blocks that are kept.
    #[cfg(test)]
    pub(crate) fn block_bytes(&self) -> usize {
        self.blocks.lock().weight()
    }
    /// Whether S-90 holds.
    #[cfg(any(test, feature = "l1"))]
    pub(crate) fn is_within_budget(&self) -> bool {
        self.subjects.lock().is_within_budget()
            && self.index.lock().is_within_budget()
            && self.blocks.lock().is_within_budget()
            && self.large.lock().is_within_budget()
            && self.files.lock().len() <= FILES_MAX
    }
    /// Drops one block, which was found to be bad.
    pub(crate) fn drop_block(&self, at: At) {
        self.blocks.lock().remove(at);
        self.large.lock().remove(at);
    }
    /// Drops all that belongs to a file.
    pub(crate) fn forget(&self, id: FileId) {
        self.files.lock().remove(&id);
        self.ahead.lock().forget(id);
        self.coming.lock().retain(|c| c.piece.meta.file != id);
        self.subjects.lock().forget(id);
        self.index.lock().forget(id);
        self.blocks.lock().forget(id);
        self.large.lock().forget(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says whether it has settled.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Thing(u32, bool);
    impl Kept for Thing {
        fn settle(&mut self) {
            self.1 = true;
        }
    }

    #[test]
    fn s90_what_passes_takes_its_part_and_no_more() {
        let mut c: Budgeted<Thing> = Budgeted::new(1000);
        for i in 0..500 {
            c.put((FileId(1), i), Thing(i as u32, false), 10, Place::Passing);
            // The one that goes past it in order, and another a little behind.
            for back in [0, 1, 8] {
                let at = (FileId(1), i - back.min(i));
                assert!(c.get(at).is_some(), "{at:?} passes and is gone already");
            }
            assert!(c.weights[Place::Passing as usize] <= 1000 / PROBATION_PART + 10);
        }
        // All were used again, by who came a little behind: they are worth keeping.
        assert!(c.weight() <= 1000 && c.weights[Place::Kept as usize] > 800);
        assert!(c.map.values().all(|i| (i.place == Place::Kept) == i.value.1));
        let mut c: Budgeted<Thing> = Budgeted::new(1000);
        for i in 0..500 {
            c.put((FileId(1), i), Thing(0, false), 10, Place::Passing);
            assert!(c.get((FileId(1), i)).is_some());
            assert!(
                c.weight() <= 1000 / PROBATION_PART + 10,
                "nobody else uses it, and there is room for more"
            );
        }
        // An item that is all of the budget makes room for itself.
        c.put((FileId(2), 0), Thing(1, false), 1000, Place::Probation);
        assert!(c.get((FileId(2), 0)).is_some() && c.weight() == 1000);
    }

    #[test]
    fn readings_of_many_readers_wait_beside_each_other() {
        let mut a = Ahead::default();
        for reader in 0..16 {
            for part in [0, 1] {
                a.put((FileId(reader), part), 256 << 10, (reader, part));
            }
        }
        assert!((0..16).all(|reader| a.take((FileId(reader), 0)) == Some((reader, 0))));
        a.forget(FileId(3));
        assert_eq!((a.take((FileId(3), 1)), a.bytes), (None, 15 * (256 << 10)));
        for part in 0..9 {
            a.put((FileId(99), part), 1 << 20, (99, part));
        }
        assert_eq!((a.all.len(), a.bytes), (8, AHEAD_BYTES_MAX));
        assert!(a.take((FileId(99), 0)).is_none() && a.take((FileId(99), 8)).is_some());
    }

    #[test]
    fn s90_the_budget_holds_and_a_scan_pushes_out_only_itself() {
        let mut c: Budgeted<Thing> = Budgeted::new(1000);
        let new = |n| Thing(n, false);
        for i in 0..50 {
            c.put((FileId(1), i), new(i as u32), 10, Place::Probation);
        }
        for i in 0..10 {
            c.put((FileId(9), i), new(0), 10, Place::Probation);
        }
        for i in 0..50 {
            assert_eq!(c.get((FileId(1), i)), Some(new(i as u32)));
        }
        for i in 0..10_000 {
            c.put((FileId(2), i), new(0), 10, Place::Probation);
            // Who had it read uses it more than once, and then no more.
            for _ in 0..3 {
                assert_eq!(c.get((FileId(2), i)), Some(new(0)));
            }
            assert!(c.weight() <= 1000);
        }
        assert!(
            c.map.values().all(|i| (i.place == Place::Kept) == i.value.1),
            "what is kept has settled, and nothing else"
        );
        let kept = (0..50).filter(|i| c.map.contains_key(&(FileId(1), *i))).count();
        assert_eq!(kept, 50, "blocks that were read twice outlive a scan");
        // What is kept fills the budget by now; what has just been read stays all the same until it is asked for.
        for i in 0..50 {
            c.put((FileId(3), i), new(0), 10, Place::Probation);
            assert_eq!(c.get((FileId(3), i)), Some(new(0)));
        }
        for i in 0..1000 {
            c.put((FileId(4), i), new(7), 10, Place::Probation);
            assert_eq!(c.get((FileId(4), i)), Some(new(7)), "a new block outlives its own arrival");
        }
        // So does one that is more than the part for new ones.
        for i in 0..10 {
            c.put((FileId(5), i), new(9), 300, Place::Probation);
            assert!(c.weight() <= 1000);
            for _ in 0..3 {
                assert_eq!(c.get((FileId(5), i)), Some(new(9)), "a large item outlives its own arrival");
            }
        }
        c.forget(FileId(5));
        c.forget(FileId(1));
        assert!((0..50).all(|i| c.get((FileId(1), i)).is_none()));
        assert!(c.map.len() <= 100 && c.weight() == c.map.len() * 10);
    }
}
