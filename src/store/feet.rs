//! What a question to a group may find missing in memory, and what was fetched for it.
//!
//! Owns [`Need`] (what has to be read before the question can be answered) and [`Pins`] (what was read for questions that
//! are not answered yet). Does no I/O: `Shard::need` reads. The shared caches come first in price but not in promise: what
//! they hold may go at any time.
//!
//! - S-91: what was fetched for a question stays until the question was answered, so that asking, fetching and asking
//!   again ends, however small the caches are.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    cache::{At, Cache},
    group::Piece,
    read::Fetched,
    segment::{Block, IndexFoot, SubjectFoot},
    store::Read,
    types::StreamSeq,
};

/// Answered views after which what nobody touched any more is let go.
const ANSWERS_KEPT: u32 = 64;
/// Bytes of messages among them beyond which the same goes for messages. A large one holds on to all of the mebibyte that was read with it, which is to go round.
pub(crate) const PINNED_MESSAGES_MAX: usize = 1 << 20;
/// Bytes of pins of one group beyond which those that the last unanswered question did not touch go.
const PINS_MAX: usize = 8 << 20;

/// Something on disk without which a question cannot be answered. Hand it to [`crate::Group::fetch`] and ask again.
#[derive(Clone, Debug)]
pub struct Need(pub(crate) What);

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A piece's sparse index.
    Index(Arc<Piece>),
    /// A piece's subjects.
    Subjects(Arc<Piece>),
    /// A message.
    Record(Arc<Piece>, StreamSeq),
    /// The first message of a piece that came at or after this time.
    Time(Arc<Piece>, i64),
    /// Nothing helps: the caller broke the contract, as this text says.
    Refused(String),
}

impl What {
    /// The piece that is to be read.
    pub(crate) fn piece(&self) -> Option<&Arc<Piece>> {
        match self {
            What::Index(p) | What::Subjects(p) | What::Record(p, _) | What::Time(p, _) => Some(p),
            What::Refused(_) => None,
        }
    }
}

/// What is kept for questions that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    subjects: BTreeMap<At, Pin<Arc<SubjectFoot>>>,
    index: BTreeMap<At, Pin<Arc<IndexFoot>>>,
    records: BTreeMap<(At, StreamSeq), Pin<Read>>,
    times: BTreeMap<(At, i64), Pin<Option<StreamSeq>>>,
    weight: usize,
    /// That of the messages alone.
    messages: usize,
    /// Counts views, so that a pin knows when it was last touched.
    tick: u64,
    /// The last view that met a need.
    missed: u64,
    /// Views since then that met none.
    answered: u32,
}

#[derive(Debug)]
struct Pin<T> {
    value: T,
    touched: Cell<u64>,
    weight: usize,
}

impl Pins {
    fn get<K: Ord, T: Clone>(&self, all: &BTreeMap<K, Pin<T>>, k: &K) -> Option<T> {
        let p = all.get(k)?;
        p.touched.set(self.tick);
        Some(p.value.clone())
    }
    pub(crate) fn record(&self, p: &Piece, seq: StreamSeq) -> Option<Read> {
        self.get(&self.records, &(p.key(), seq))
    }
    pub(crate) fn time(&self, p: &Piece, time: i64) -> Option<Option<StreamSeq>> {
        self.get(&self.times, &(p.key(), time))
    }

    fn pin<T>(&self, value: T, weight: usize) -> Pin<T> {
        Pin { value, touched: Cell::new(self.missed.max(self.tick)), weight }
    }
    /// Keeps what was read.
    pub(crate) fn put(&mut self, f: Fetched) {
        let (new, old) = match f {
            Fetched::Index(p, f) => {
                let pin = self.pin(f.clone(), f.weight());
                (pin.weight, self.index.insert(p.key(), pin).map_or(0, |o| o.weight))
            }
            Fetched::Subjects(p, f) => {
                let pin = self.pin(f.clone(), f.weight());
                (pin.weight, self.subjects.insert(p.key(), pin).map_or(0, |o| o.weight))
            }
            Fetched::Record(p, seq, r) => {
                let bytes = if let Read::Valid(s) = &r { s.record().len() } else { 0 };
                let pin = self.pin(r, bytes + 128);
                let (new, old) =
                    (pin.weight, self.records.insert((p.key(), seq), pin).map_or(0, |o| o.weight));
                self.messages = self.messages + new - old;
                (new, old)
            }
            Fetched::Time(p, time, found) => {
                let pin = self.pin(found, 64);
                (pin.weight, self.times.insert((p.key(), time), pin).map_or(0, |o| o.weight))
            }
        };
        self.weight = self.weight + new - old;
        self.shrink();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.weight == 0
    }
    #[cfg(test)]
    pub(crate) fn message_bytes(&self) -> usize {
        self.messages
    }

    /// A view begins.
    pub(crate) fn begin(&mut self) {
        self.tick += 1;
    }
    /// A view ends.
    pub(crate) fn end(&mut self, missed: bool) {
        if missed {
            (self.missed, self.answered) = (self.tick, 0);
        } else if !self.is_empty() {
            self.answered += 1;
            if self.answered > ANSWERS_KEPT {
                let (tick, missed) = (self.tick, self.missed);
                *self = Pins { tick, missed, ..Pins::default() };
            }
        }
    }

    /// S-91: only what the last unanswered question did not touch may go.
    fn shrink(&mut self) {
        let missed = self.missed;
        let mut gone = 0;
        let mut keep = |touched: &Cell<u64>, w: usize| {
            let stays = touched.get() >= missed;
            gone += if stays { 0 } else { w };
            stays
        };
        let all = self.weight > PINS_MAX;
        if all {
            self.subjects.retain(|_, p| keep(&p.touched, p.weight));
            self.index.retain(|_, p| keep(&p.touched, p.weight));
            self.times.retain(|_, p| keep(&p.touched, p.weight));
        }
        let mut messages = self.messages;
        if all || messages > PINNED_MESSAGES_MAX {
            self.records.retain(|_, p| {
                let stays = keep(&p.touched, p.weight);
                messages -= if stays { 0 } else { p.weight };
                stays
            });
        }
        (self.weight, self.messages) = (self.weight - gone, messages);
    }
}

/// The block that a view last read from: as a rule the next message is in it too. It lives no longer than the view.
#[derive(Debug, Default)]
pub(crate) struct Near {
    block: RefCell<Option<(At, Range<u64>, Block)>>,
    /// Something was read from a block already.
    read: Cell<bool>,
}

impl Near {
    /// The record of a message, checked, if it is there.
    #[inline]
    pub(crate) fn find(&self, p: &Piece, seq: StreamSeq) -> Option<Bytes> {
        let near = self.block.borrow();
        let (at, range, block) = near.as_ref()?;
        if *at == p.key() && range.contains(&seq.0) { block.whole(p.meta.group, seq) } else { None }
    }
    pub(crate) fn put(&self, p: &Piece, range: Range<u64>, block: Block) {
        *self.block.borrow_mut() = Some((p.key(), range, block));
    }
    /// Whether this is the first reading of a block: most views read one message, and keep nothing.
    pub(crate) fn is_first(&self) -> bool {
        !self.read.replace(true)
    }
}

/// The footers at hand during one call.
pub(crate) struct Feet<'a> {
    pub pins: &'a Pins,
    pub cache: &'a Cache,
    pub near: &'a Near,
}

impl Feet<'_> {
    pub(crate) fn subjects(&self, p: &Arc<Piece>) -> Result<Arc<SubjectFoot>, Need> {
        let pinned = if self.pins.is_empty() { None } else { self.pins.get(&self.pins.subjects, &p.key()) };
        pinned.or_else(|| self.cache.get_subjects(p.key())).ok_or_else(|| Need(What::Subjects(p.clone())))
    }
    pub(crate) fn index(&self, p: &Arc<Piece>) -> Result<Arc<IndexFoot>, Need> {
        self.try_index(p).ok_or_else(|| Need(What::Index(p.clone())))
    }
    pub(crate) fn try_index(&self, p: &Arc<Piece>) -> Option<Arc<IndexFoot>> {
        let pinned = if self.pins.is_empty() { None } else { self.pins.get(&self.pins.index, &p.key()) };
        pinned.or_else(|| self.cache.get_index(p.key()))
    }
}
