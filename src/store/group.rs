//! One group in memory: the log's tail, the pieces below it, and the stream that the applied part of the log makes.
//!
//! Owns what is live, where it is, and the stream's totals. Does no I/O: what needs a footer that is not at hand answers
//! [`Need`], before it has changed anything, and is called again with it.
//!
//! - S-50: the totals equal what a walk over all live messages counts.
//! - S-53: entries leave memory only once a manifest that names their piece is durable.
//! - S-54: only applied entries are flushed, so a truncation never reaches a piece.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use roaring::RoaringBitmap;

use crate::{
    dict::Dict,
    filter,
    manifest::{Checkpoint, GroupRecord, Lost, PieceRecord, Totals},
    record::{Entry, Head, Kind, Message},
    segment::{Counting, IndexFoot, PieceMeta, SubjectFoot},
    types::{Chain, Error, FileId, GroupId, LogIndex, Result, Round, StreamSeq, Term},
};

/// No subject id yet.
const NONE: u32 = u32::MAX;

/// A footer that is needed and not at hand.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    pub piece: Arc<Piece>,
    pub index: bool,
}

/// The footers at hand during one call.
#[derive(Default)]
pub(crate) struct Feet {
    pub subjects: BTreeMap<(FileId, u64), Arc<SubjectFoot>>,
    pub index: BTreeMap<(FileId, u64), Arc<IndexFoot>>,
}

impl Feet {
    fn subjects(&self, p: &Arc<Piece>) -> std::result::Result<&SubjectFoot, Need> {
        match self.subjects.get(&p.key()) {
            Some(f) => Ok(f),
            None => Err(Need { piece: p.clone(), index: false }),
        }
    }
    fn index(&self, p: &Arc<Piece>) -> std::result::Result<&IndexFoot, Need> {
        match self.index.get(&p.key()) {
            Some(f) => Ok(f),
            None => Err(Need { piece: p.clone(), index: true }),
        }
    }
}

/// A piece of this group.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub meta: PieceMeta,
    /// Sequences that are deleted, less the piece's first.
    pub deleted: RoaringBitmap,
}

impl Piece {
    pub(crate) fn key(&self) -> (FileId, u64) {
        (self.meta.file, self.meta.off)
    }
    fn rel(&self, seq: StreamSeq) -> u32 {
        (seq.0 - self.meta.first_seq.0) as u32
    }
    pub(crate) fn live(&self) -> u64 {
        u64::from(self.meta.msgs) - self.deleted.len()
    }
}

/// An entry that is not in a piece yet.
#[derive(Clone, Debug)]
pub(crate) struct TailEntry {
    pub entry: Entry,
    pub round: Round,
}

/// A message in the tail.
#[derive(Clone, Copy, Debug)]
struct TailMsg {
    seq: StreamSeq,
    entry: LogIndex,
    off: u32,
    len: u32,
    size: u32,
    subject: u32,
    deleted: bool,
}

/// Where a message is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// There is none: never was, deleted, or not applied yet.
    Absent,
    /// Its record.
    Here(Bytes),
    /// In this piece.
    Piece(Arc<Piece>),
    /// It was there and was lost.
    Lost(Lost),
}

/// A checkpoint that waits for the manifest, with the deletions as they were when it was taken.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub checkpoint: Checkpoint,
    pub pieces: BTreeMap<(FileId, u64), RoaringBitmap>,
    pub tail: Vec<StreamSeq>,
}

/// See the module.
pub(crate) struct Group {
    pub id: GroupId,
    pub options: Bytes,
    pub memory: bool,
    pub hard: Bytes,
    pub hard_valid: bool,
    /// Hard states whose round may not be synced yet; a manifest must not run ahead of the log that they speak of.
    hard_queue: VecDeque<(Round, Bytes)>,
    hard_durable: (Bytes, bool),
    /// Truncations by round, and the oldest round of what each took back: until the truncation is synced a restart may
    /// still need those rounds, or it would find the later ones without them.
    pins: Vec<(Round, Round)>,
    counting: Counting,
    pub last_index: LogIndex,
    pub last_term: Term,
    pub last_chain: Chain,
    pub flushed: (LogIndex, Term, Chain),
    pub tail: VecDeque<TailEntry>,
    pub tail_bytes: u64,
    msgs: VecDeque<TailMsg>,
    pub pieces: Vec<Arc<Piece>>,
    pub lost: Vec<Lost>,
    pub applied: LogIndex,
    pub totals: Totals,
    pub floor: (StreamSeq, LogIndex),
    dict: Dict,
    /// Live messages up to here are in the dictionary.
    dict_upto: StreamSeq,
    pub checkpoint: Checkpoint,
    /// The deletions of the durable checkpoint, for pieces that have any.
    pub checkpoint_deleted: BTreeMap<(FileId, u64), Bytes>,
    pub pending: Option<Pending>,
    pub deleted: bool,
}

pub(crate) fn bitmap_bytes(b: &RoaringBitmap) -> Bytes {
    if b.is_empty() {
        return Bytes::new();
    }
    let mut v = Vec::with_capacity(b.serialized_size());
    b.serialize_into(&mut v).expect("writing to memory does not fail");
    v.into()
}

impl Group {
    pub(crate) fn new(id: GroupId, options: Bytes, memory: bool, counting: Counting) -> Group {
        let record = GroupRecord { id, options, hard_valid: true, ..GroupRecord::default() };
        Group::restore(record, memory, counting).expect("an empty record is a valid one")
    }

    /// The group as a manifest has it; `None` if a bitmap is none.
    pub(crate) fn restore(r: GroupRecord, memory: bool, counting: Counting) -> Option<Group> {
        let mut pieces = Vec::with_capacity(r.pieces.len());
        let mut checkpoint_deleted = BTreeMap::new();
        for p in r.pieces {
            let deleted = if p.deleted.is_empty() {
                RoaringBitmap::new()
            } else {
                RoaringBitmap::deserialize_from(&p.deleted[..]).ok()?
            };
            let piece = Arc::new(Piece { meta: p.meta, deleted });
            if !p.deleted.is_empty() {
                checkpoint_deleted.insert(piece.key(), p.deleted);
            }
            pieces.push(piece);
        }
        let fresh = r.checkpoint.totals.msgs == 0 && pieces.is_empty();
        Some(Group {
            id: r.id,
            options: r.options,
            memory,
            hard_durable: (r.hard.clone(), r.hard_valid),
            hard_queue: VecDeque::new(),
            pins: Vec::new(),
            hard: r.hard,
            hard_valid: r.hard_valid,
            counting,
            last_index: r.flushed,
            last_term: r.flushed_term,
            last_chain: r.flushed_chain,
            flushed: (r.flushed, r.flushed_term, r.flushed_chain),
            tail: VecDeque::new(),
            tail_bytes: 0,
            msgs: VecDeque::new(),
            pieces,
            lost: r.lost,
            applied: r.checkpoint.index,
            totals: r.checkpoint.totals,
            floor: (r.floor_seq, r.floor_index),
            dict: Dict::default(),
            dict_upto: if fresh { r.checkpoint.totals.last } else { StreamSeq(0) },
            checkpoint: r.checkpoint,
            checkpoint_deleted,
            pending: None,
            deleted: false,
        })
    }

    // ---- the log

    /// Whether `e` may follow.
    pub(crate) fn check_next(&self, e: &Entry) -> Result<()> {
        let h = &e.head;
        if h.index != self.last_index.next() {
            return Err(Error::Invalid(format!("entry {} after entry {}", h.index.0, self.last_index.0)));
        }
        // After a lost entry the chain is not known; the consensus above compares it with its peers.
        let known = self.lost.last().is_none_or(|l| l.last != self.last_index);
        if known && h.prev != self.last_chain {
            return Err(Error::Invalid(format!("entry {} does not continue the chain", h.index.0)));
        }
        if h.term < self.last_term {
            return Err(Error::Invalid(format!("entry {} falls back to term {}", h.index.0, h.term.0)));
        }
        if h.count > 0 && h.first <= self.last_seq() {
            return Err(Error::Invalid(format!("message {} after message {}", h.first.0, self.last_seq().0)));
        }
        Ok(())
    }

    /// The last message in the log, applied or not.
    fn last_seq(&self) -> StreamSeq {
        let piece =
            self.pieces.iter().rev().find(|p| p.meta.msgs > 0).map_or(StreamSeq(0), |p| p.meta.last_seq);
        let lost = self.lost.iter().map(|l| l.last_seq).max().unwrap_or_default();
        self.msgs.back().map_or(StreamSeq(0), |m| m.seq).max(piece).max(lost).max(self.totals.last)
    }

    /// Adds an entry that was checked.
    pub(crate) fn push(&mut self, entry: Entry, round: Round) {
        let h = entry.head;
        if h.kind == Kind::Messages {
            let base = entry.payload.as_ptr() as usize;
            for r in entry.records().flatten() {
                let m = Message::decode(self.id, r).expect("S-10: entries are checked before they get here");
                self.msgs.push_back(TailMsg {
                    seq: m.seq,
                    entry: h.index,
                    off: (r.as_ptr() as usize - base) as u32,
                    len: r.len() as u32,
                    size: self.counting.of(&m),
                    subject: NONE,
                    deleted: false,
                });
            }
        }
        (self.last_index, self.last_term, self.last_chain) = (h.index, h.term, h.chain);
        self.tail_bytes += h.size();
        self.tail.push_back(TailEntry { entry, round });
    }

    /// Takes back all entries from `index` on.
    pub(crate) fn truncate(&mut self, index: LogIndex, round: Round) -> Result<()> {
        if index <= self.applied {
            return Err(Error::Invalid(format!("truncate at {}, applied {}", index.0, self.applied.0)));
        }
        if index <= self.flushed.0 {
            return Err(Error::Invalid(format!("truncate at {}, flushed {}", index.0, self.flushed.0.0)));
        }
        if let Some(pinned) = self.oldest_round() {
            self.pins.push((round, pinned));
        }
        self.cut(index);
        Ok(())
    }

    fn cut(&mut self, index: LogIndex) {
        while self.tail.back().is_some_and(|t| t.entry.head.index >= index) {
            let t = self.tail.pop_back().expect("just seen");
            self.tail_bytes -= t.entry.head.size();
        }
        while self.msgs.back().is_some_and(|m| m.entry >= index) {
            self.msgs.pop_back();
        }
        self.lost.retain_mut(|l| {
            l.last = l.last.min(LogIndex(index.0 - 1));
            l.first <= l.last
        });
        let last = self.tail.back().map(|t| (t.entry.head.index, t.entry.head.term, t.entry.head.chain));
        (self.last_index, self.last_term, self.last_chain) = last.unwrap_or(self.flushed);
        if let Some(l) = self.lost.last().filter(|l| l.last > self.last_index) {
            (self.last_index, self.last_chain) = (l.last, Chain(0));
        }
    }

    /// Takes an entry that recovery found: with what it contradicts or leaves open settled.
    pub(crate) fn replay(&mut self, e: Entry, round: Round) {
        let h = e.head;
        if h.index <= self.flushed.0 {
            // It is in a piece. What stands behind it in the tail is older, and was taken back before this one came.
            return self.cut(self.flushed.0.next());
        }
        if h.index <= self.last_index {
            // The truncation before it was damaged, or the entry is there twice.
            if self.entry(h.index).is_some_and(|t| t.head.chain == h.chain) {
                return;
            }
            self.cut(h.index);
        }
        if h.index > self.last_index.next() {
            let seqs = if h.count > 0 && h.first.0 > self.last_seq().0 + 1 {
                (self.last_seq().next(), StreamSeq(h.first.0 - 1))
            } else {
                (StreamSeq(0), StreamSeq(0))
            };
            let first = self.last_index.next();
            self.lose(Lost { first, last: LogIndex(h.index.0 - 1), first_seq: seqs.0, last_seq: seqs.1 });
        }
        self.push(e, round);
    }

    /// Takes a truncation that recovery found. What is flushed was applied and so committed: a truncation that reaches
    /// below is older than the manifest, and voids only what stood behind.
    pub(crate) fn replay_truncate(&mut self, index: LogIndex) {
        self.cut(index.max(self.flushed.0.next()));
    }

    /// Notes entries that recovery knows of and cannot read.
    pub(crate) fn replay_bad(&mut self, index: LogIndex, first: StreamSeq, count: u32) {
        if index <= self.last_index {
            return;
        }
        let last_seq = if count == 0 { StreamSeq(0) } else { StreamSeq(first.0 + u64::from(count) - 1) };
        let first_seq = if count == 0 { StreamSeq(0) } else { first };
        self.lose(Lost { first: self.last_index.next(), last: index, first_seq, last_seq });
        self.last_index = index;
        self.last_chain = Chain(0);
    }

    /// Adds to what is lost, neighbours joined.
    pub(crate) fn lose(&mut self, l: Lost) {
        if let Some(before) = self.lost.last_mut()
            && before.last.next() == l.first
            && (before.last_seq == StreamSeq(0)
                || l.first_seq == StreamSeq(0)
                || before.last_seq.next() == l.first_seq)
        {
            before.last = l.last;
            if before.first_seq == StreamSeq(0) {
                before.first_seq = l.first_seq;
            }
            before.last_seq = before.last_seq.max(l.last_seq);
            return;
        }
        self.lost.push(l);
    }

    /// Keeps a hard state that this round makes durable.
    pub(crate) fn set_hard(&mut self, hard: Bytes, round: Round) {
        self.hard_queue.push_back((round, hard.clone()));
        (self.hard, self.hard_valid) = (hard, true);
    }
    /// Takes what recovery found for durable.
    pub(crate) fn replay_hard(&mut self, hard: Option<Bytes>) {
        self.hard_valid = hard.is_some();
        self.hard = hard.unwrap_or_default();
        self.hard_durable = (self.hard.clone(), self.hard_valid);
    }
    /// Rounds up to here are synced.
    pub(crate) fn settle_hard(&mut self, synced: Round) {
        while let Some((_, h)) = self.hard_queue.pop_front_if(|q| q.0 <= synced) {
            self.hard_durable = (h, true);
        }
    }

    /// An entry in the tail.
    pub(crate) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let i = self.tail.partition_point(|t| t.entry.head.index < index);
        self.tail.get(i).map(|t| &t.entry).filter(|e| e.head.index == index)
    }

    // ---- the stream

    /// The entry is committed: its messages join the stream. Entries are applied in order.
    pub(crate) fn apply(&mut self, h: &Head, feet: &Feet) -> std::result::Result<Result<()>, Need> {
        if h.index != self.applied.next() || h.index > self.last_index {
            let text = format!(
                "apply {} after {}, the log ends at {}",
                h.index.0, self.applied.0, self.last_index.0
            );
            return Ok(Err(Error::Invalid(text)));
        }
        if h.count > 0 {
            let mut added: Vec<(StreamSeq, u32, Option<usize>)> = Vec::with_capacity(h.count as usize);
            if h.index <= self.flushed.0 {
                for p in self
                    .pieces
                    .iter()
                    .filter(|p| p.meta.first_index <= h.index && h.index <= p.meta.last_index)
                {
                    let f = feet.subjects(p)?;
                    let at = f.slots.partition_point(|s| u64::from(s.seq) + p.meta.first_seq.0 < h.first.0);
                    for s in f.slots.iter().skip(at).take(h.count as usize) {
                        added.push((StreamSeq(p.meta.first_seq.0 + u64::from(s.seq)), s.size, None));
                    }
                }
            } else {
                let at = self.msgs.partition_point(|m| m.seq < h.first);
                for (i, m) in self.msgs.range(at..).take_while(|m| m.entry == h.index).enumerate() {
                    added.push((m.seq, m.size, Some(at + i)));
                }
            }
            let in_step = self.dict_upto == self.totals.last;
            for &(seq, size, slot) in &added {
                if self.totals.msgs == 0 {
                    self.totals.first = seq;
                }
                self.totals.msgs += 1;
                self.totals.bytes += u64::from(size);
                if let (true, Some(slot)) = (in_step, slot) {
                    self.note_subject(slot);
                }
            }
            if let Some(m) = self.msgs.back().filter(|m| m.entry == h.index)
                && let Some(t) = self.message_time(m)
            {
                self.totals.last_time = t;
            }
            let last = added.last().map_or(h.first, |a| a.0);
            if in_step && added.iter().all(|a| a.2.is_some()) {
                self.dict_upto = last;
            }
            self.totals.last = last;
            if self.totals.msgs == 0 {
                self.totals.first = last.next();
            }
        }
        self.applied = h.index;
        Ok(Ok(()))
    }

    fn message_time(&self, m: &TailMsg) -> Option<i64> {
        Message::decode(self.id, &self.tail_record(m)).map(|m| m.time)
    }

    fn tail_record(&self, m: &TailMsg) -> Bytes {
        let e = self.entry(m.entry).expect("S-53: a message in the tail has its entry there");
        e.payload.slice(m.off as usize..(m.off + m.len) as usize)
    }

    fn note_subject(&mut self, slot: usize) {
        let m = self.msgs[slot];
        let r = self.tail_record(&m);
        let d = Message::decode(self.id, &r).expect("S-10: entries are checked before they get here");
        let id = self.dict.intern(d.subject);
        self.dict.add(id, m.seq);
        self.msgs[slot].subject = id;
    }

    /// Brings the dictionary up to date with one more piece, or with the tail; true when it is.
    pub(crate) fn step_dict(&mut self, feet: &Feet) -> std::result::Result<bool, Need> {
        if self.dict_upto >= self.totals.last {
            return Ok(true);
        }
        let next = self.pieces.iter().find(|p| p.meta.msgs > 0 && p.meta.last_seq > self.dict_upto).cloned();
        if let Some(p) = next.filter(|p| p.meta.first_seq <= self.totals.last) {
            let f = feet.subjects(&p)?;
            let mut ids = vec![NONE; f.subjects()];
            for s in &f.slots {
                let seq = StreamSeq(p.meta.first_seq.0 + u64::from(s.seq));
                if seq <= self.dict_upto || seq > self.totals.last || p.deleted.contains(s.seq) {
                    continue;
                }
                let id = &mut ids[s.subject as usize];
                if *id == NONE {
                    *id = self.dict.intern(f.subject(s.subject));
                }
                self.dict.add(*id, seq);
            }
            self.dict_upto = p.meta.last_seq.min(self.totals.last);
            return Ok(false);
        }
        let at = self.msgs.partition_point(|m| m.seq <= self.dict_upto);
        for i in at..self.msgs.len() {
            if self.msgs[i].seq > self.totals.last {
                break;
            }
            if !self.msgs[i].deleted {
                self.note_subject(i);
            }
        }
        self.dict_upto = self.totals.last;
        Ok(true)
    }

    /// Whether subject queries can be answered.
    pub(crate) fn dict_ready(&self) -> bool {
        self.dict_upto >= self.totals.last
    }
    /// The dictionary.
    pub(crate) fn dict(&self) -> &Dict {
        &self.dict
    }

    fn tail_slot(&self, seq: StreamSeq) -> Option<usize> {
        let i = self.msgs.partition_point(|m| m.seq < seq);
        (self.msgs.get(i)?.seq == seq).then_some(i)
    }

    fn piece_of(&self, seq: StreamSeq) -> Option<&Arc<Piece>> {
        let i = self.pieces.partition_point(|p| p.meta.msgs == 0 || p.meta.last_seq < seq);
        // Pieces without messages stand anywhere; the partition is only a start.
        self.pieces[i.min(self.pieces.len())..]
            .iter()
            .find(|p| p.meta.holds(seq))
            .or_else(|| self.pieces.iter().find(|p| p.meta.holds(seq)))
    }

    /// Where a message is.
    pub(crate) fn place(&self, seq: StreamSeq) -> Place {
        if seq > self.totals.last || seq < self.totals.first {
            return self.lost_at(seq).map_or(Place::Absent, Place::Lost);
        }
        if let Some(i) = self.tail_slot(seq) {
            let m = &self.msgs[i];
            return if m.deleted { Place::Absent } else { Place::Here(self.tail_record(m)) };
        }
        match self.piece_of(seq) {
            Some(p) if p.deleted.contains(p.rel(seq)) => Place::Absent,
            Some(p) => match self.lost_at(seq) {
                Some(l) => Place::Lost(l),
                None => Place::Piece(p.clone()),
            },
            None => self.lost_at(seq).map_or(Place::Absent, Place::Lost),
        }
    }

    fn lost_at(&self, seq: StreamSeq) -> Option<Lost> {
        self.lost.iter().find(|l| l.first_seq.0 > 0 && l.first_seq <= seq && seq <= l.last_seq).copied()
    }

    /// Takes live messages out of the stream. Those that are not live are left out of the answer.
    pub(crate) fn delete(
        &mut self,
        seqs: &[StreamSeq],
        feet: &Feet,
    ) -> std::result::Result<Vec<StreamSeq>, Need> {
        enum At {
            Tail(usize),
            Piece(usize, u32, u32, u32),
        }
        let mut found = Vec::with_capacity(seqs.len());
        for &seq in seqs.iter().filter(|s| **s <= self.totals.last) {
            if let Some(i) = self.tail_slot(seq) {
                if !self.msgs[i].deleted {
                    found.push((seq, At::Tail(i)));
                }
                continue;
            }
            let Some(i) = self.pieces.iter().position(|p| p.meta.holds(seq)) else { continue };
            let p = &self.pieces[i];
            if p.deleted.contains(p.rel(seq)) {
                continue;
            }
            let f = feet.subjects(p)?;
            if let Some(s) = f.slot_of(p.rel(seq)) {
                let s = f.slots[s];
                found.push((seq, At::Piece(i, s.seq, s.size, s.subject)));
            }
        }
        found.dedup_by_key(|f| f.0);
        for (seq, at) in &found {
            let (size, id) = match *at {
                At::Tail(i) => {
                    self.msgs[i].deleted = true;
                    (self.msgs[i].size, self.msgs[i].subject)
                }
                At::Piece(i, rel, size, subject) => {
                    Arc::make_mut(&mut self.pieces[i]).deleted.insert(rel);
                    let f = &feet.subjects[&self.pieces[i].key()];
                    let id = if *seq <= self.dict_upto { self.dict.find(f.subject(subject)) } else { None };
                    (size, id.unwrap_or(NONE))
                }
            };
            if *seq <= self.dict_upto && id != NONE {
                self.dict.remove(id, *seq);
            }
            assert!(self.totals.msgs > 0, "S-50: a stream without messages loses one");
            self.totals.msgs -= 1;
            self.totals.bytes -= u64::from(size);
        }
        Ok(found.into_iter().map(|f| f.0).collect())
    }

    /// Moves the stream's first sequence up to its first live message.
    pub(crate) fn fix_first(&mut self, feet: &Feet) -> std::result::Result<(), Need> {
        let first = match self.totals.msgs {
            0 => self.totals.last.next(),
            _ => self.next_any(self.totals.first, feet)?.unwrap_or(self.totals.last.next()),
        };
        self.totals.first = first;
        Ok(())
    }

    /// The first live message from `from` on.
    pub(crate) fn next_any(
        &self,
        from: StreamSeq,
        feet: &Feet,
    ) -> std::result::Result<Option<StreamSeq>, Need> {
        let upto = self.totals.last;
        for p in self.pieces.iter().filter(|p| p.meta.msgs > 0 && p.meta.last_seq >= from && p.live() > 0) {
            let base = p.meta.first_seq.0;
            let start = from.0.saturating_sub(base) as u32;
            let hit = if p.meta.dense() {
                (start..=(p.meta.last_seq.0 - base) as u32).find(|r| !p.deleted.contains(*r))
            } else {
                let f = feet.subjects(p)?;
                let at = f.slots.partition_point(|s| s.seq < start);
                f.slots[at..].iter().map(|s| s.seq).find(|r| !p.deleted.contains(*r))
            };
            if let Some(r) = hit {
                let seq = StreamSeq(base + u64::from(r));
                return Ok((seq <= upto).then_some(seq));
            }
        }
        let at = self.msgs.partition_point(|m| m.seq < from);
        Ok(self.msgs.range(at..).take_while(|m| m.seq <= upto).find(|m| !m.deleted).map(|m| m.seq))
    }

    /// The first live message from `from` on whose subject matches. The dictionary must be ready.
    pub(crate) fn next(
        &self,
        filter: &[u8],
        from: StreamSeq,
        feet: &Feet,
    ) -> std::result::Result<Option<StreamSeq>, Need> {
        let from = from.max(self.totals.first);
        if filter::is_all(filter) {
            return self.next_any(from, feet);
        }
        let literal = filter::is_literal(filter);
        let (mut from, mut upto) = (from, self.totals.last);
        if literal {
            let Some(i) = self.dict.find(filter).map(|id| *self.dict.info(id)).filter(|i| i.count > 0) else {
                return Ok(None);
            };
            (from, upto) = (from.max(i.first), upto.min(i.last));
        }
        for p in self.pieces.iter().filter(|p| p.meta.msgs > 0 && p.meta.last_seq >= from && p.live() > 0) {
            if p.meta.first_seq > upto {
                break;
            }
            if literal && !feet.index(p)?.filter.may_hold(filter) {
                continue;
            }
            let f = feet.subjects(p)?;
            let range = f.with_prefix(filter::prefix(filter));
            if range.is_empty() {
                continue;
            }
            let base = p.meta.first_seq.0;
            let start = from.0.saturating_sub(base) as u32;
            let live = |r: u32| !p.deleted.contains(r) && base + u64::from(r) <= upto.0;
            let hit = if literal {
                let slots = f.find(filter).map_or(&[][..], |s| f.slots_of(s));
                let at = slots.partition_point(|s| f.slots[*s as usize].seq < start);
                slots[at..].iter().map(|s| f.slots[*s as usize].seq).find(|r| live(*r))
            } else {
                let mut known: Vec<Option<bool>> = vec![None; range.len()];
                let at = f.slots.partition_point(|s| s.seq < start);
                f.slots[at..].iter().filter(|s| range.contains(&s.subject) && live(s.seq)).find_map(|s| {
                    let k = &mut known[(s.subject - range.start) as usize];
                    k.get_or_insert_with(|| filter::matches(filter, f.subject(s.subject))).then_some(s.seq)
                })
            };
            if let Some(r) = hit {
                return Ok(Some(StreamSeq(base + u64::from(r))));
            }
        }
        let at = self.msgs.partition_point(|m| m.seq < from);
        let id = if literal { self.dict.find(filter) } else { None };
        let hit = self.msgs.range(at..).take_while(|m| m.seq <= upto).find(|m| {
            !m.deleted
                && match id {
                    Some(id) => m.subject == id,
                    None => filter::matches(filter, self.dict.subject(m.subject)),
                }
        });
        Ok(hit.map(|m| m.seq))
    }

    /// The last live message of one subject, up to `upto`.
    pub(crate) fn last_of(
        &mut self,
        subject: &[u8],
        upto: StreamSeq,
        feet: &Feet,
    ) -> std::result::Result<Option<StreamSeq>, Need> {
        let Some(id) = self.dict.find(subject) else { return Ok(None) };
        let info = *self.dict.info(id);
        if info.count == 0 || upto < info.first {
            return Ok(None);
        }
        let upto = upto.min(info.last);
        let exact = upto == info.last;
        let at = self.msgs.partition_point(|m| m.seq <= upto);
        let mut hit = self.msgs.range(..at).rev().find(|m| m.subject == id && !m.deleted).map(|m| m.seq);
        if hit.is_none() {
            for p in self
                .pieces
                .iter()
                .rev()
                .filter(|p| p.meta.msgs > 0 && p.meta.first_seq <= upto && p.live() > 0)
            {
                if p.meta.last_seq < info.first || !feet.index(p)?.filter.may_hold(subject) {
                    continue;
                }
                let f = feet.subjects(p)?;
                let (slots, base) = (f.find(subject).map_or(&[][..], |s| f.slots_of(s)), p.meta.first_seq.0);
                let at = slots.partition_point(|s| base + u64::from(f.slots[*s as usize].seq) <= upto.0);
                let live = slots[..at]
                    .iter()
                    .rev()
                    .map(|s| f.slots[*s as usize].seq)
                    .find(|r| !p.deleted.contains(*r));
                if let Some(r) = live {
                    hit = Some(StreamSeq(base + u64::from(r)));
                    break;
                }
            }
        }
        if exact && hit.is_some() {
            self.dict.tighten(id, None, hit);
        }
        Ok(hit)
    }

    /// How many live messages from `from` on match. The dictionary must be ready.
    pub(crate) fn pending(
        &self,
        filter: &[u8],
        from: StreamSeq,
        feet: &Feet,
    ) -> std::result::Result<u64, Need> {
        if from <= self.totals.first {
            let mut n = 0;
            if filter::is_all(filter) {
                return Ok(self.totals.msgs);
            }
            self.dict.matching(filter, |id| {
                n += self.dict.info(id).count;
                true
            });
            return Ok(n);
        }
        let (all, upto, mut n) = (filter::is_all(filter), self.totals.last, 0u64);
        for p in self.pieces.iter().filter(|p| p.meta.msgs > 0 && p.meta.last_seq >= from) {
            let base = p.meta.first_seq.0;
            if all && base >= from.0 && p.meta.last_seq <= upto {
                n += p.live();
                continue;
            }
            let f = feet.subjects(p)?;
            let start = f.slots.partition_point(|s| base + u64::from(s.seq) < from.0);
            let mut known: Vec<Option<bool>> = vec![None; f.subjects()];
            n += f.slots[start..]
                .iter()
                .filter(|s| base + u64::from(s.seq) <= upto.0 && !p.deleted.contains(s.seq))
                .filter(|s| {
                    all || *known[s.subject as usize]
                        .get_or_insert_with(|| filter::matches(filter, f.subject(s.subject)))
                })
                .count() as u64;
        }
        let at = self.msgs.partition_point(|m| m.seq < from);
        n += self
            .msgs
            .range(at..)
            .take_while(|m| m.seq <= upto)
            .filter(|m| !m.deleted && (all || filter::matches(filter, self.dict.subject(m.subject))))
            .count() as u64;
        Ok(n)
    }

    // ---- flush and checkpoint

    /// Keeps the state as of the last applied entry for the next manifest.
    pub(crate) fn take_checkpoint(&mut self, blob: Bytes) {
        let head = self.entry(self.applied).map(|e| (e.head.term, e.head.chain));
        let (term, chain) = head.unwrap_or((self.flushed.1, self.flushed.2));
        let pieces = self
            .pieces
            .iter()
            .filter(|p| !p.deleted.is_empty())
            .map(|p| (p.key(), p.deleted.clone()))
            .collect();
        let tail = self.msgs.iter().filter(|m| m.deleted).map(|m| m.seq).collect();
        let checkpoint = Checkpoint { index: self.applied, term, chain, totals: self.totals, blob };
        self.pending = Some(Pending { checkpoint, pieces, tail });
    }

    /// The entries that a flush may move to a piece: applied, and durable in the journal.
    pub(crate) fn flushable(&self, synced: Round) -> Vec<Entry> {
        let ok = |t: &&TailEntry| t.round <= synced && t.entry.head.index <= self.applied;
        self.tail.iter().take_while(ok).map(|t| t.entry.clone()).collect()
    }

    /// Where the flushed part ends if `upto` was the last entry of a piece: lost entries that follow belong to it, so that
    /// their loss outlives the journal that named them.
    pub(crate) fn with_lost(&self, mut upto: (LogIndex, Term, Chain)) -> (LogIndex, Term, Chain) {
        for l in &self.lost {
            if l.first <= upto.0.next() && l.last > upto.0 {
                upto = (l.last, upto.1, Chain(0));
            }
        }
        upto
    }

    /// The group as the manifest shall have it, with `new` pieces in place of `old` ones.
    pub(crate) fn record(&self, plan: &Plan) -> GroupRecord {
        let flushed = plan.flushed.unwrap_or(self.flushed);
        let pending = self.pending.as_ref().filter(|p| p.checkpoint.index <= flushed.0);
        let mut pieces: Vec<Arc<Piece>> =
            self.pieces.iter().filter(|p| !plan.old.contains(&p.key())).cloned().collect();
        pieces.extend(plan.new.iter().cloned());
        pieces.sort_by_key(|p| p.meta.first_index);
        let deleted = |p: &Piece| match pending {
            None => self.checkpoint_deleted.get(&p.key()).cloned().unwrap_or_default(),
            Some(c) => {
                let mut b = c.pieces.get(&p.key()).cloned().unwrap_or_default();
                b.extend(c.tail.iter().filter(|s| p.meta.holds(**s)).map(|s| p.rel(*s)));
                bitmap_bytes(&b)
            }
        };
        GroupRecord {
            id: self.id,
            options: self.options.clone(),
            hard: self.hard_durable.0.clone(),
            hard_valid: self.hard_durable.1,
            flushed: flushed.0,
            flushed_term: flushed.1,
            flushed_chain: flushed.2,
            checkpoint: pending.map_or_else(|| self.checkpoint.clone(), |p| p.checkpoint.clone()),
            floor_seq: self.floor.0,
            floor_index: self.floor.1,
            pieces: pieces
                .iter()
                .map(|p| {
                    let made = plan.carried.get(&p.key()).cloned();
                    PieceRecord { meta: p.meta.clone(), deleted: made.unwrap_or_else(|| deleted(p)) }
                })
                .collect(),
            lost: self.lost.iter().filter(|l| l.last <= flushed.0).copied().collect(),
        }
    }

    /// The manifest that holds `record` is durable (S-53).
    pub(crate) fn installed(&mut self, plan: &Plan, record: &GroupRecord) {
        // Deletions since the record was made, by sequence, so that they also find their way into rewritten pieces.
        let mut gone: Vec<StreamSeq> = Vec::new();
        for p in self.pieces.iter().filter(|p| plan.old.contains(&p.key())) {
            gone.extend(plan.since(p, &p.deleted));
        }
        // The same for a checkpoint that still waits.
        let mut waiting: Vec<StreamSeq> = Vec::new();
        if let Some(c) = &self.pending {
            for p in self.pieces.iter().filter(|p| plan.old.contains(&p.key())) {
                waiting.extend(c.pieces.get(&p.key()).into_iter().flat_map(|b| plan.since(p, b)));
            }
        }
        self.pieces.retain(|p| !plan.old.contains(&p.key()));
        if let Some((index, ..)) = plan.flushed {
            while self.tail.front().is_some_and(|t| t.entry.head.index <= index) {
                let t = self.tail.pop_front().expect("just seen");
                self.tail_bytes -= t.entry.head.size();
            }
            while self.msgs.front().is_some_and(|m| m.entry <= index) {
                let m = self.msgs.pop_front().expect("just seen");
                if m.deleted {
                    gone.push(m.seq);
                }
            }
        }
        for p in &plan.new {
            let mut p = (**p).clone();
            let rels: Vec<u32> = gone.iter().filter(|s| p.meta.holds(**s)).map(|s| p.rel(*s)).collect();
            p.deleted.extend(rels);
            self.pieces.push(Arc::new(p));
        }
        self.pieces.sort_by_key(|p| p.meta.first_index);
        self.flushed = (record.flushed, record.flushed_term, record.flushed_chain);
        if record.checkpoint.index >= self.checkpoint.index {
            self.checkpoint = record.checkpoint.clone();
        }
        self.checkpoint_deleted = record
            .pieces
            .iter()
            .filter(|p| !p.deleted.is_empty())
            .map(|p| ((p.meta.file, p.meta.off), p.deleted.clone()))
            .collect();
        if self.pending.as_ref().is_some_and(|p| p.checkpoint.index <= record.checkpoint.index) {
            self.pending = None;
        } else if let Some(p) = &mut self.pending {
            // What the waiting checkpoint knows of the tail and of rewritten pieces now lies in the new ones.
            for n in &plan.new {
                let of_tail = p.tail.iter().chain(&waiting).filter(|s| n.meta.holds(**s)).map(|s| n.rel(*s));
                p.pieces.entry(n.key()).or_default().extend(of_tail);
            }
        }
    }

    fn oldest_round(&self) -> Option<Round> {
        self.tail.iter().map(|t| t.round).min()
    }

    /// The oldest round that a restart needs for what stays in the tail above `flushed`.
    pub(crate) fn pinned(&mut self, flushed: LogIndex, synced: Round) -> Option<Round> {
        self.pins.retain(|p| p.0 > synced);
        let tail = self.tail.iter().filter(|t| t.entry.head.index > flushed).map(|t| t.round);
        tail.chain(self.pins.iter().map(|p| p.1)).min()
    }

    /// Checks S-50 against a walk over everything. For tests and the simulation.
    pub(crate) fn verify(&self, feet: &Feet) -> std::result::Result<(), Need> {
        let (mut msgs, mut bytes) = (0u64, 0u64);
        for p in self.pieces.iter().filter(|p| p.meta.msgs > 0) {
            for s in &feet.subjects(p)?.slots {
                if !p.deleted.contains(s.seq) && p.meta.first_seq.0 + u64::from(s.seq) <= self.totals.last.0 {
                    msgs += 1;
                    bytes += u64::from(s.size);
                }
            }
        }
        for m in self.msgs.iter().filter(|m| !m.deleted && m.seq <= self.totals.last) {
            msgs += 1;
            bytes += u64::from(m.size);
        }
        assert_eq!(
            (msgs, bytes),
            (self.totals.msgs, self.totals.bytes),
            "S-50: totals of group {}",
            self.id.0
        );
        Ok(())
    }
}

/// What a flush does to one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Up to which entry the tail moves to a piece.
    pub flushed: Option<(LogIndex, Term, Chain)>,
    pub new: Vec<Arc<Piece>>,
    /// Pieces that are replaced or dropped.
    pub old: Vec<(FileId, u64)>,
    /// Deletions that rewritten pieces still carry.
    pub carried: BTreeMap<(FileId, u64), Bytes>,
    /// What a rewrite left out of an old piece.
    pub dropped: BTreeMap<(FileId, u64), RoaringBitmap>,
}

impl Plan {
    /// The deletions in an old piece that its rewrite did not know of.
    fn since(&self, p: &Piece, deleted: &RoaringBitmap) -> Vec<StreamSeq> {
        let known = self.dropped.get(&p.key());
        let new = deleted.iter().filter(|r| known.is_none_or(|k| !k.contains(*r)));
        new.map(|r| StreamSeq(p.meta.first_seq.0 + u64::from(r))).collect()
    }
}
