//! One group in memory: the log's tail, the pieces below it, checkpoints and what a flush does to them.
//!
//! Owns the log. The stream that the applied part of it makes is in `query`. Does no I/O.
//!
//! - S-53: entries leave memory only once a manifest that names their piece is durable.
//! - S-55: a memory group never gives a sequence again, also after a restart: they are reserved ahead in the journal, and an
//!   append beyond what is reserved waits for the reservation's sync. Its log begins anew.
//! - S-54: only applied entries are flushed, so a truncation never reaches a piece.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use roaring::{RoaringBitmap, RoaringTreemap};

use crate::{
    dict::Dict,
    feet::Pins,
    manifest::{Checkpoint, GroupRecord, Lost, PieceRecord, Totals},
    mend::{Hole, Open},
    record::{Entry, Head, Kind, MESSAGE_HEADER, Message},
    round::{self, Frame, FrameKind, Line},
    segment::{Counting, PieceMeta},
    types::{Chain, Error, FileId, GroupId, LogIndex, Result, Round, StreamSeq, Term},
};

/// How many numbers of a memory group are reserved at once.
const FLOOR_STEP: u64 = 1 << 16;
/// Bytes that a reservation takes in a round at least: its payload twice, and four lines of tables.
const FLOOR_BYTES: u64 = 2 * 16 + 4 * 56;
/// Dead messages of a memory group that are kept before memory is given back.
const MEMORY_DEAD_KEPT: u64 = 1024;

/// No subject id yet.
pub(crate) const NONE: u32 = u32::MAX;

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
    pub(crate) fn rel(&self, seq: StreamSeq) -> u32 {
        (seq.0 - self.meta.first_seq.0) as u32
    }
    pub(crate) fn seq(&self, rel: u32) -> StreamSeq {
        StreamSeq(self.meta.first_seq.0 + u64::from(rel))
    }
    /// Live messages. A purge marks the gaps of a piece as well, hence no plain difference.
    pub(crate) fn live(&self) -> u64 {
        u64::from(self.meta.msgs).saturating_sub(self.deleted.len())
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
pub(crate) struct TailMsg {
    pub seq: StreamSeq,
    pub time: i64,
    pub entry: LogIndex,
    pub off: u32,
    pub len: u32,
    pub size: u32,
    pub subject: u32,
    /// How many places behind it the next message of its subject stands; 0 if none does or it is not known.
    pub next: u32,
    pub deleted: bool,
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

#[inline]
fn tail_msg(entry: LogIndex, r: &[u8], base: usize, counting: Counting) -> TailMsg {
    let m = Message::parse(r).expect("S-10: entries are checked before they get here");
    TailMsg {
        seq: m.seq,
        time: m.time,
        entry,
        off: (r.as_ptr() as usize - base) as u32,
        len: r.len() as u32,
        size: counting.of(&m),
        subject: NONE,
        next: 0,
        deleted: false,
    }
}

/// A checkpoint that waits for the manifest, with the deletions as they were when it was taken.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// Counts a group's checkpoints: two of the same entry may differ in what is deleted.
    pub number: u64,
    pub checkpoint: Checkpoint,
    pub pieces: BTreeMap<(FileId, u64), RoaringBitmap>,
    pub tail: Vec<StreamSeq>,
}

/// See the module.
pub(crate) struct Group {
    pub id: GroupId,
    pub options: Bytes,
    pub memory: bool,
    /// New pieces are compressed. Told from above, anew in each life.
    pub compress: bool,
    pub hard: Bytes,
    pub hard_valid: bool,
    /// Hard states whose round may not be synced yet; a manifest must not run ahead of the log that they speak of.
    hard_queue: VecDeque<(Round, Bytes)>,
    hard_durable: (Bytes, bool),
    /// Truncations by round, and the oldest round of what each took back: until the truncation is synced a restart may
    /// still need those rounds, or it would find the later ones without them.
    kept_rounds: Vec<(Round, Round)>,
    pub counting: Counting,
    pub last_index: LogIndex,
    pub last_term: Term,
    pub last_chain: Chain,
    pub flushed: (LogIndex, Term, Chain),
    pub tail: VecDeque<TailEntry>,
    pub tail_bytes: u64,
    pub msgs: VecDeque<TailMsg>,
    /// The deleted ones of `msgs`, for counting.
    pub tail_deleted: RoaringTreemap,
    pub pieces: Vec<Arc<Piece>>,
    /// Those of `pieces` that have messages; their sequences rise.
    pub data: Vec<u32>,
    /// What was given up, by the entries that it was in.
    pub lost: Vec<Lost>,
    /// Entries that cannot be read, in order.
    pub holes: Vec<Open>,
    /// Entries of pieces that were damaged there, until the next flush has written their pieces anew.
    pub patched: BTreeMap<LogIndex, TailEntry>,
    /// Bytes of the journal that are gone and may have held more of this log; 0 if none.
    pub doubt: u64,
    /// The round that ends the doubt of a sole member, once it is synced; 0 for none.
    pub leapt: Round,
    pub applied: LogIndex,
    pub totals: Totals,
    /// Of a memory group: numbers up to here may have been used (S-55).
    pub floor: (StreamSeq, LogIndex),
    /// Floors whose round may not be synced yet.
    floor_queue: VecDeque<(Round, StreamSeq, LogIndex)>,
    pub dict: Dict,
    /// Which of `data` was asked for a message last: who reads in order asks for its next one.
    pub near_piece: Cell<usize>,
    /// Live messages up to here are in the dictionary.
    pub dict_upto: StreamSeq,
    /// What was fetched for questions that are not answered yet.
    pub pins: Pins,
    /// Entries that took their place in a piece: what was known of its subjects before goes for nothing.
    pub fills: u64,
    /// Subjects of a piece were asked for: then those of new pieces are kept at hand. Where nothing is removed and nobody filters they would only
    /// take memory, 50 bytes a message.
    pub feet_wanted: bool,
    pub checkpoint: Checkpoint,
    /// The deletions of the durable checkpoint, for pieces that have any.
    pub checkpoint_deleted: BTreeMap<(FileId, u64), Bytes>,
    pub pending: Option<Pending>,
    /// Checkpoints that were taken in this life.
    checkpoints: u64,
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
        let mut g = Group {
            id: r.id,
            options: r.options,
            memory,
            compress: false,
            hard_durable: (r.hard.clone(), r.hard_valid),
            hard_queue: VecDeque::new(),
            kept_rounds: Vec::new(),
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
            tail_deleted: RoaringTreemap::new(),
            pieces,
            data: Vec::new(),
            pins: Pins::default(),
            fills: 0,
            feet_wanted: false,
            lost: r.lost,
            holes: Vec::new(),
            patched: BTreeMap::new(),
            doubt: 0,
            leapt: Round(0),
            applied: r.checkpoint.index,
            totals: r.checkpoint.totals,
            floor: (r.floor_seq, r.floor_index),
            floor_queue: VecDeque::new(),
            dict: Dict::default(),
            near_piece: Cell::new(0),
            dict_upto: if fresh { r.checkpoint.totals.last } else { StreamSeq(0) },
            checkpoint: r.checkpoint,
            checkpoint_deleted,
            pending: None,
            checkpoints: 0,
            deleted: false,
        };
        g.index_pieces();
        Some(g)
    }

    fn index_pieces(&mut self) {
        let with = self.pieces.iter().enumerate().filter(|(_, p)| p.meta.msgs > 0);
        self.data = with.map(|(i, _)| i as u32).collect();
    }

    /// Whether the next opening must be told of what is gone, if no round behind `synced` were there.
    pub(crate) fn is_doubtful(&self, synced: Round) -> bool {
        self.doubt > 0 || self.leapt > synced
    }

    // ---- memory groups

    /// A memory group after a restart: its log is empty, and its stream goes on behind all numbers that it may have given.
    pub(crate) fn restart_memory(&mut self) {
        // S-112: each reservation that may have stood in what is gone of the journal went a step further, and by the messages of an append.
        if self.doubt > 0 {
            let steps = 2 * (self.doubt / FLOOR_BYTES + 1);
            self.floor.0 = StreamSeq(self.floor.0.0.saturating_add(steps.saturating_mul(FLOOR_STEP)));
            self.doubt = 0;
        }
        let seq = self.floor.0;
        self.totals = Totals { first: seq.next(), last: seq, ..Totals::default() };
        self.dict_upto = seq;
        // Indexes are counted from the beginning again, and so is their reservation.
        self.floor.1 = LogIndex(0);
    }

    /// Begins as somebody who takes the numbers of others: the stream is empty and has given none.
    pub(crate) fn begin_anew(&mut self) {
        assert!(self.memory && self.tail.is_empty(), "S-55: only what was lost with its process begins anew");
        self.totals = Totals::default();
        self.dict_upto = StreamSeq(0);
        self.lost.clear();
        self.holes.clear();
        self.patched.clear();
        self.doubt = 0;
    }

    /// Nothing is given any more: what of the reservation was not used is free again.
    pub(crate) fn end_memory(&mut self) {
        self.floor.0 = self.log_seq();
    }

    /// The reservation that a memory group needs before it gives out numbers up to these, if it is time for one.
    pub(crate) fn next_floor(&self, seq: StreamSeq, index: LogIndex) -> Option<(StreamSeq, LogIndex)> {
        let near = seq.0 + FLOOR_STEP / 2 > self.floor.0.0 || index.0 + FLOOR_STEP / 2 > self.floor.1.0;
        // What was reserved once stays so, also where the numbers are another's now and lower.
        near.then_some((StreamSeq(seq.0 + FLOOR_STEP).max(self.floor.0), LogIndex(index.0 + FLOOR_STEP)))
    }
    /// The journal will hold this reservation in `round`.
    pub(crate) fn set_floor(&mut self, floor: (StreamSeq, LogIndex), round: Round) {
        self.floor = floor;
        self.floor_queue.push_back((round, floor.0, floor.1));
    }
    /// Whether numbers up to these are reserved, durably or not.
    pub(crate) fn is_reserved(&self, seq: StreamSeq, index: LogIndex) -> bool {
        seq <= self.floor.0 && index <= self.floor.1
    }
    /// The round that has to be synced before numbers up to these are given out.
    pub(crate) fn floor_round(&mut self, seq: StreamSeq, index: LogIndex, synced: Round) -> Round {
        // Those before the last synced one say nothing any more.
        while self.floor_queue.get(1).is_some_and(|f| f.0 <= synced) {
            self.floor_queue.pop_front();
        }
        let covers = |f: &&(Round, StreamSeq, LogIndex)| seq <= f.1 && index <= f.2;
        self.floor_queue.iter().find(covers).map_or(synced, |f| f.0)
    }

    /// Gives the memory of a memory group's dead messages and of what is no longer log back.
    fn trim_memory(&mut self, upto: LogIndex) {
        let dead = self.tail_deleted.len();
        if dead < MEMORY_DEAD_KEPT || dead < self.totals.msgs / 2 {
            // Entries without messages need no walk over messages.
            if self.tail.len() < 2 * self.msgs.len() + MEMORY_DEAD_KEPT as usize {
                return;
            }
        }
        self.msgs.retain(|m| !(m.deleted && m.entry <= upto));
        self.tail_deleted = self.msgs.iter().filter(|m| m.deleted).map(|m| m.seq.0).collect();
        // The links from a message to the next one of its subject count places.
        let mut last: Vec<u32> = vec![NONE; self.dict.ids()];
        for i in 0..self.msgs.len() {
            self.msgs[i].next = 0;
            let id = self.msgs[i].subject;
            if id != NONE && !self.msgs[i].deleted {
                let before = std::mem::replace(&mut last[id as usize], i as u32);
                if before != NONE {
                    self.msgs[before as usize].next = i as u32 - before;
                }
            }
        }
        let mut live = self.msgs.iter().map(|m| m.entry).peekable();
        let tail_bytes = &mut self.tail_bytes;
        self.tail.retain(|t| {
            let index = t.entry.head.index;
            while live.peek().is_some_and(|l| *l < index) {
                live.next();
            }
            let stays = index > upto || live.peek() == Some(&index);
            *tail_bytes -= if stays { 0 } else { t.entry.head.size() };
            stays
        });
    }

    // ---- the log

    /// Whether `e` may follow.
    pub(crate) fn check_next(&self, e: &Entry) -> Result<()> {
        let h = &e.head;
        if h.index != self.last_index.next() {
            return Err(Error::Invalid(format!("entry {} after entry {}", h.index.0, self.last_index.0)));
        }
        // After a lost entry the chain may not be known; the consensus above compares it with its peers.
        let known = self.holes.last().is_none_or(|o| o.hole.known || o.hole.last != self.last_index);
        if known && h.prev != self.last_chain {
            return Err(Error::Invalid(format!("entry {} does not continue the chain", h.index.0)));
        }
        if h.term < self.last_term {
            return Err(Error::Invalid(format!("entry {} falls back to term {}", h.index.0, h.term.0)));
        }
        if h.count > 0 && h.first <= self.log_seq() {
            return Err(Error::Invalid(format!("message {} after message {}", h.first.0, self.log_seq().0)));
        }
        Ok(())
    }

    /// The last message in the log, applied or not.
    pub(crate) fn log_seq(&self) -> StreamSeq {
        let piece = self.data.last().map_or(StreamSeq(0), |i| self.pieces[*i as usize].meta.last_seq);
        let lost = self.lost.iter().map(|l| l.last_seq).max().unwrap_or_default();
        let lost = lost.max(self.holes.iter().map(|o| o.hole.last_seq).max().unwrap_or_default());
        self.msgs.back().map_or(StreamSeq(0), |m| m.seq).max(piece).max(lost).max(self.totals.last)
    }

    /// Adds an entry that was checked.
    pub(crate) fn push(&mut self, entry: Entry, round: Round) {
        let h = entry.head;
        if h.kind == Kind::Messages {
            let (base, counting) = (entry.payload.as_ptr() as usize, self.counting);
            // Each where it stays, and room for all at once: going through an iterator of such records stalls on the copy of each.
            self.msgs.reserve((h.count as usize).min(entry.payload.len() / MESSAGE_HEADER));
            for r in entry.records().flatten() {
                self.msgs.push_back(tail_msg(h.index, r, base, counting));
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
        // A flush under way may have given the rounds of what is applied up already, and nobody takes that back.
        let open = self.tail.iter().filter(|t| t.entry.head.index > self.applied).map(|t| t.round);
        let holes = self.holes.iter().filter(|o| o.hole.last > self.applied).map(|o| o.round);
        if let Some(pinned) = open.chain(holes).min() {
            self.kept_rounds.push((round, pinned));
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
        let flushed = self.flushed.0;
        self.lost.retain(|l| l.last < index || l.last <= flushed);
        self.holes.retain_mut(|o| {
            if o.hole.last >= index && o.hole.last > flushed {
                // The chain was that of the last one.
                (o.hole.last, o.hole.known) = (LogIndex(index.0 - 1), false);
                o.hole.chain = Chain(0);
                (o.hole.first_seq, o.hole.last_seq) = (StreamSeq(0), StreamSeq(0));
                o.left = Bytes::new();
            }
            o.hole.first <= o.hole.last
        });
        let last = self.tail.back().map(|t| (t.entry.head.index, t.entry.head.term, t.entry.head.chain));
        // Of a memory group's state only some entries are left in the tail.
        let last = last.filter(|l| l.0 > self.flushed.0);
        (self.last_index, self.last_term, self.last_chain) = last.unwrap_or(self.flushed);
        if let Some(o) = self.holes.last().filter(|o| o.hole.last > self.last_index) {
            let h = o.hole;
            (self.last_index, self.last_chain) = (h.last, if h.known { h.chain } else { Chain(0) });
            if h.known {
                self.last_term = h.term;
            }
        }
    }

    /// The messages of an entry as the tail keeps them.
    pub(crate) fn messages_of(&self, e: &Entry) -> Vec<TailMsg> {
        let base = e.payload.as_ptr() as usize;
        e.records().flatten().map(|r| tail_msg(e.head.index, r, base, self.counting)).collect()
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
            if self.entry(h.index).is_some_and(|t| t.head.chain == h.chain || t.head.compacted) {
                return;
            }
            if let Some(i) = self.hole_at(h.index)
                && let o = self.holes[i].hole
                && o.known
                && (o.last > h.index || o.chain == h.chain)
                && o.term == h.term
            {
                // Its second copy, which was made because it had not been applied.
                return self.fill(e, round);
            }
            self.cut(h.index);
        }
        self.gap_before(&h, round);
        self.push(e, round);
    }

    /// Takes a truncation that recovery found. What is flushed was applied and so committed: a truncation that reaches
    /// below is older than the manifest, and voids only what stood behind.
    pub(crate) fn replay_truncate(&mut self, index: LogIndex) {
        self.cut(index.max(self.flushed.0.next()));
    }

    /// Notes entries that recovery knows of and cannot read.
    pub(crate) fn replay_bad(&mut self, l: Line, left: Bytes, round: Round) {
        let index = l.index;
        if index <= self.flushed.0 {
            return;
        }
        if index <= self.last_index {
            let same = self.entry(index).is_some_and(|t| t.head.chain == l.chain || t.head.compacted);
            // Another entry took this one's place, and cannot be read; a patch would have left what it was for as it is.
            if same || self.hole_at(index).is_some() || l.kind == FrameKind::Patch {
                return;
            }
            self.cut(index);
        }
        let head = Head {
            kind: Kind::Messages,
            compacted: true,
            group: self.id,
            index,
            term: l.term,
            prev: Chain(0),
            chain: l.chain,
            first: l.first,
            count: l.count,
            length: 0,
            digest: 0,
        };
        self.gap_before(&head, round);
        let (first_seq, last_seq) = match l.count {
            0 => (StreamSeq(0), StreamSeq(0)),
            n => (l.first, StreamSeq(l.first.0 + u64::from(n) - 1)),
        };
        // What was left of an entry and is damaged again is no log of anybody's.
        let known = l.kind == FrameKind::Entry;
        let hole = Hole {
            first: index,
            last: index,
            first_seq,
            last_seq,
            prev: self.last_chain,
            term: l.term,
            chain: l.chain,
            known,
            vague: false,
        };
        self.open_hole(hole, round, left);
    }

    /// Takes a hole that was carried forward.
    pub(crate) fn replay_hole(&mut self, mut hole: Hole, round: Round) {
        hole.first = hole.first.max(self.last_index.next());
        if hole.first <= hole.last {
            self.open_hole(hole, round, Bytes::new());
        }
    }

    /// Adds to what is lost, neighbours joined.
    pub(crate) fn lose(&mut self, l: Lost) {
        if let Some(before) = self.lost.last_mut()
            && (before.last.next() == l.first || before.last == l.first)
            && before.sure == l.sure
            && (before.first_seq.0 == 0) == (l.first_seq.0 == 0)
            && (l.first_seq == StreamSeq(0) || before.last_seq.next() == l.first_seq)
        {
            before.last = l.last;
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
        // The last that is known stays, for those to whom it is better than nothing.
        if let Some(hard) = hard {
            self.hard = hard;
        }
        self.hard_durable = (self.hard.clone(), self.hard_valid);
    }
    /// The hard state that a manifest may name.
    pub(crate) fn durable_hard(&self) -> (Bytes, bool) {
        self.hard_durable.clone()
    }
    /// Rounds up to here are synced.
    pub(crate) fn settle_hard(&mut self, synced: Round) {
        while let Some((_, h)) = self.hard_queue.pop_front_if(|q| q.0 <= synced) {
            self.hard_durable = (h, true);
        }
    }

    /// An entry in the tail.
    pub(crate) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        // Without lost entries the tail has no gaps.
        let first = self.tail.front()?.entry.head.index;
        let guess = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
        if let Some(t) = self.tail.get(guess).filter(|t| t.entry.head.index == index) {
            return Some(&t.entry);
        }
        let i = self.tail.partition_point(|t| t.entry.head.index < index);
        self.tail.get(i).map(|t| &t.entry).filter(|e| e.head.index == index)
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
        let tail = self.tail_deleted.iter().map(StreamSeq).collect();
        let checkpoint = Checkpoint { index: self.applied, term, chain, totals: self.totals, blob };
        if self.memory {
            // There is nothing to wait for: what is up to here is state from now on.
            self.flushed = (checkpoint.index, term, chain);
            self.checkpoint = checkpoint;
            return self.trim_memory(self.applied);
        }
        self.checkpoints += 1;
        self.pending = Some(Pending { number: self.checkpoints, checkpoint, pieces, tail });
    }

    /// The entries that a flush may move to a piece: applied, and durable in the journal.
    pub(crate) fn flushable(&self, synced: Round) -> Vec<Entry> {
        let ok = |t: &&TailEntry| t.round <= synced && t.entry.head.index <= self.applied;
        let all: Vec<Entry> = self.tail.iter().take_while(ok).map(|t| t.entry.clone()).collect();
        let last = all.last().map(|e| e.head.index);
        assert!(last.is_none_or(|l| l <= self.applied), "S-54: {last:?} is flushed before it is applied");
        all
    }

    /// The waiting checkpoint, if a flush up to `flushed` can publish it.
    pub(crate) fn publishable(&self, flushed: LogIndex) -> Option<Pending> {
        self.pending.as_ref().filter(|p| p.checkpoint.index <= flushed).cloned()
    }

    /// S-72: what of the tail needs not be written, because the checkpoint `c` that is published with it says that it is
    /// deleted: if that is most of it. What is left is state and no log any more, so a little is not worth it.
    pub(crate) fn droppable(&self, c: &Pending, keep_percent: u64) -> RoaringTreemap {
        let below = self.msgs.iter().take_while(|m| m.entry <= c.checkpoint.index).count() as u64;
        // Those before may have gone to pieces since the checkpoint was taken.
        let first = self.msgs.front().map_or(StreamSeq(u64::MAX), |m| m.seq);
        let dead: RoaringTreemap = c.tail.iter().filter(|s| **s >= first).map(|s| s.0).collect();
        if (below.saturating_sub(dead.len())) * 100 >= below * keep_percent {
            return RoaringTreemap::new();
        }
        dead
    }

    /// The group as the manifest shall have it, with `new` pieces in place of `old` ones.
    pub(crate) fn record(&self, plan: &Plan) -> GroupRecord {
        if let Some(t) = &plan.taken {
            return self.taken_record(&t.0, &t.1);
        }
        let nothing = (LogIndex(0), Term(0), Chain(0));
        let flushed = if self.memory { nothing } else { plan.flushed.unwrap_or(self.flushed) };
        let pending = plan.checkpoint.as_ref();
        let mut pieces: Vec<Arc<Piece>> =
            self.pieces.iter().filter(|p| !plan.old.contains(&p.key())).cloned().collect();
        pieces.extend(plan.new.iter().cloned());
        pieces.sort_by_key(|p| p.meta.first_index);
        let deleted = |p: &Piece| match pending {
            None => self.checkpoint_deleted.get(&p.key()).cloned().unwrap_or_default(),
            Some(c) => {
                let mut b = c.pieces.get(&p.key()).cloned().unwrap_or_default();
                let in_it = |s: &&StreamSeq| p.meta.holds(**s) && !plan.dropped_tail.contains(s.0);
                b.extend(c.tail.iter().filter(in_it).map(|s| p.rel(*s)));
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
            checkpoint: match pending {
                _ if self.memory => Checkpoint::default(),
                Some(p) => p.checkpoint.clone(),
                None => self.checkpoint.clone(),
            },
            floor_seq: self.floor.0,
            floor_index: self.floor.1,
            pieces: pieces
                .iter()
                .map(|p| {
                    let made = plan.carried.get(&p.key()).cloned();
                    PieceRecord { meta: p.meta.clone(), deleted: made.unwrap_or_else(|| deleted(p)) }
                })
                .collect(),
            lost: self.lost.iter().filter(|l| l.last <= flushed.0 && !self.is_past(l)).copied().collect(),
        }
    }

    /// Whether a loss is of no interest any more: the stream has left it behind.
    fn is_past(&self, l: &Lost) -> bool {
        let first = self.checkpoint.totals.first;
        l.last <= self.checkpoint.index && (l.last_seq.0 == 0 || l.last_seq < first)
    }

    /// The manifest that holds `record` is durable (S-53).
    pub(crate) fn installed(&mut self, plan: &Plan, record: &GroupRecord) {
        if plan.taken.is_some() {
            return self.replace(record.clone());
        }
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
        let before = self.msgs.len();
        if let Some((index, ..)) = plan.flushed {
            while self.tail.front().is_some_and(|t| t.entry.head.index <= index) {
                let t = self.tail.pop_front().expect("just seen");
                self.tail_bytes -= t.entry.head.size();
            }
            while self.msgs.front().is_some_and(|m| m.entry <= index) {
                let m = self.msgs.pop_front().expect("just seen");
                if m.deleted {
                    if !plan.dropped_tail.contains(m.seq.0) {
                        gone.push(m.seq);
                    }
                    self.tail_deleted.remove(m.seq.0);
                }
            }
        }
        // Memory that a burst needed is given back when it is over; who goes on writing would need it again at once.
        if self.msgs.is_empty() || self.msgs.capacity() > 4 * before + 4096 {
            self.msgs.shrink_to(2 * self.msgs.len());
        }
        for p in &plan.new {
            let mut p = (**p).clone();
            let rels: Vec<u32> = gone.iter().filter(|s| p.meta.holds(**s)).map(|s| p.rel(*s)).collect();
            p.deleted.extend(rels);
            self.pieces.push(Arc::new(p));
        }
        self.pieces.sort_by_key(|p| p.meta.first_index);
        debug_assert!(
            self.pieces.windows(2).all(|p| p[0].meta.last_index < p[1].meta.first_index),
            "S-41: two pieces lie over each other"
        );
        self.index_pieces();
        if self.memory {
            return;
        }
        self.flushed = (record.flushed, record.flushed_term, record.flushed_chain);
        plan.mended.iter().for_each(|i| {
            self.patched.remove(i);
        });
        if record.checkpoint.index >= self.checkpoint.index {
            self.checkpoint = record.checkpoint.clone();
            let state = self.checkpoint.index;
            self.holes.retain(|o| o.hole.last > state);
            self.patched.retain(|i, _| *i > state);
        }
        self.checkpoint_deleted = record
            .pieces
            .iter()
            .filter(|p| !p.deleted.is_empty())
            .map(|p| ((p.meta.file, p.meta.off), p.deleted.clone()))
            .collect();
        let published = plan.checkpoint.as_ref().map(|c| c.number);
        if self.pending.as_ref().is_some_and(|p| Some(p.number) == published) {
            self.pending = None;
        } else if let Some(p) = &mut self.pending {
            // What the waiting checkpoint knows of the tail and of rewritten pieces now lies in the new ones.
            for n in &plan.new {
                let in_it = |s: &&StreamSeq| n.meta.holds(**s) && !plan.dropped_tail.contains(s.0);
                let of_tail = p.tail.iter().chain(&waiting).filter(in_it).map(|s| n.rel(*s));
                p.pieces.entry(n.key()).or_default().extend(of_tail);
            }
            // And only there: what was not written at all has no place in them.
            let left = self.msgs.front().map_or(StreamSeq(u64::MAX), |m| m.seq);
            p.tail.retain(|s| *s >= left);
        }
    }

    /// Whether this piece is one of the group's: one that was rewritten meanwhile may be gone from the disk.
    pub(crate) fn has_piece(&self, m: &PieceMeta) -> bool {
        self.pieces.iter().any(|q| q.key() == (m.file, m.off))
    }

    /// Whether a restart needs rounds up to here for more than what is flushed.
    pub(crate) fn pins(&self, upto: Round) -> bool {
        let holes = self.holes.iter().map(|o| o.round);
        let mut all = self.tail.iter().chain(self.patched.values()).map(|t| t.round).chain(holes);
        all.any(|r| r <= upto)
    }

    /// All that the journal has to hold of the log, once more, in order.
    pub(crate) fn tail_frames(&self) -> Vec<Frame> {
        let mut frames: Vec<Frame> = self.patched.values().map(|t| Frame::patch(&t.entry)).collect();
        let mut holes = self.holes.iter().filter(|o| o.hole.first > self.flushed.0).peekable();
        let hole = |o: &Open| Frame::control(FrameKind::Hole, self.id, o.hole.first, round::hole(&o.hole));
        for t in &self.tail {
            while let Some(o) = holes.next_if(|o| o.hole.first < t.entry.head.index) {
                frames.push(hole(o));
            }
            frames.push(Frame::entry(&t.entry, true));
        }
        frames.extend(holes.map(hole));
        frames
    }

    /// What the journal has to hold up to here stands in this round now.
    pub(crate) fn moved(&mut self, last: LogIndex, round: Round) {
        let tail = self.tail.iter_mut().take_while(|t| t.entry.head.index <= last);
        tail.for_each(|t| t.round = t.round.max(round));
        self.patched.values_mut().for_each(|t| t.round = t.round.max(round));
        let holes = self.holes.iter_mut().filter(|o| o.hole.last <= last && o.hole.first > self.flushed.0);
        holes.for_each(|o| o.round = o.round.max(round));
    }

    /// The oldest round that a restart needs for what stays in the tail above `flushed`.
    pub(crate) fn pinned(&mut self, flushed: LogIndex, synced: Round) -> Option<Round> {
        if self.memory {
            return None;
        }
        self.kept_rounds.retain(|p| p.0 > synced);
        let tail = self.tail.iter().filter(|t| t.entry.head.index > flushed).map(|t| t.round);
        // S-110: a hole's name, and what was put into one, stand in the journal only.
        let holes = self.holes.iter().map(|o| o.round);
        let patched = self.patched.values().map(|t| t.round);
        tail.chain(self.kept_rounds.iter().map(|p| p.1)).chain(holes).chain(patched).min()
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
    /// The checkpoint that this flush publishes, with the deletions as of it.
    pub checkpoint: Option<Pending>,
    /// Messages of the tail that were deleted as of that checkpoint and are not written.
    pub dropped_tail: RoaringTreemap,
    /// What a rewrite left out of an old piece.
    pub dropped: BTreeMap<(FileId, u64), RoaringBitmap>,
    /// Pieces that are sealed otherwise than today and may be written anew for that.
    pub foreign: Vec<(FileId, u64)>,
    /// Patched entries that lie in their piece now.
    pub mended: Vec<LogIndex>,
    /// A received state that takes the place of all that the group has up to there.
    pub taken: Option<Box<(Checkpoint, Vec<PieceMeta>)>>,
}

impl Plan {
    /// The deletions in an old piece that its rewrite did not know of.
    fn since(&self, p: &Piece, deleted: &RoaringBitmap) -> Vec<StreamSeq> {
        let known = self.dropped.get(&p.key());
        let new = deleted.iter().filter(|r| known.is_none_or(|k| !k.contains(*r)));
        new.map(|r| StreamSeq(p.meta.first_seq.0 + u64::from(r))).collect()
    }
}
