//! A group's state on its way from one store to another: what is read out of it, what it is received into, and how it takes the place of
//! what the group had.
//!
//! Owns the bytes of a state under way and both ends. Does not carry them: they are a stream of bytes that somebody moves in order. What lies at or below a
//! checkpoint is state and no log, so it is told as what is live: the checkpoint with its blob, then every entry that still has messages with these
//! and nothing else, then an end that names how many there were. Its bytes are counted as in files
//! wherever it comes from, as they always were: both ends count by their group's own rule again. Layout: docs/design/0012-on-disk-format.md.
//!
//! - S-100: what is read out is the state as of one durable checkpoint, whatever is deleted or rewritten meanwhile: the files that it reads are kept.
//! - S-101: what is received counts for nothing until one manifest names all of it; then it replaces the group's state whole. A crash leaves
//!   the one or the other.
//! - S-102: nothing of a state under way is believed before its own checksums, its order and its totals were right.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use roaring::RoaringBitmap;

use crate::{
    codec::{Get, Put, u32_at},
    flush::Draft,
    group::{Group as State, Plan},
    manifest::{Checkpoint, GroupRecord, PieceRecord},
    record::{ENTRY_HEADER, ENTRY_MAGIC, Entry, FORMAT, Head, Kind, Message},
    round::{Frame, FrameKind},
    segment::{Block, Joiner, PieceMeta, live_part},
    shard::Shard,
    types::{Chain, Damage, Error, FileId, GroupId, LogIndex, Result, StreamSeq, Term},
};

const HEAD_MAGIC: u32 = 0x8054_5546;
const END_MAGIC: u32 = 0x8145_5546;
/// Bytes of a frame's magic, version, length and checksum.
const FRAME: usize = 16;
/// Bytes that [`Outgoing::next`] gives at once, unless one entry is longer.
const STEP_BYTES: usize = 64 << 10;
/// Bytes of a checkpoint on its way at most.
const HEAD_MAX: usize = 1 << 30;
/// Bytes of entries that become one piece of a received state.
const PIECE_BYTES: u64 = 8 << 20;

/// Files that must stay on disk for as long as this lives.
pub(crate) struct Kept {
    shard: Arc<Shard>,
    files: Vec<FileId>,
}

impl Kept {
    fn new(shard: &Arc<Shard>) -> Kept {
        Kept { shard: shard.clone(), files: Vec::new() }
    }
    fn add(&mut self, file: FileId) {
        *self.shard.kept.lock().entry(file).or_default() += 1;
        self.files.push(file);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut kept = self.shard.kept.lock();
        for f in &self.files {
            if let Some(n) = kept.get_mut(f) {
                *n -= 1;
                if *n == 0 {
                    kept.remove(f);
                }
            }
        }
    }
}

fn frame(magic: u32, body: &[u8], out: &mut Vec<u8>) {
    out.u32(magic);
    out.u32(u32::from(FORMAT));
    out.u32(body.len() as u32);
    out.u32(checksum::crc32c(body));
    out.extend_from_slice(body);
}

fn encode_head(group: GroupId, c: &Checkpoint) -> Vec<u8> {
    let mut b = Vec::with_capacity(64 + c.blob.len());
    b.var(group.0);
    c.put(&mut b);
    let mut out = Vec::with_capacity(FRAME + b.len());
    frame(HEAD_MAGIC, &b, &mut out);
    out
}

fn decode_head(group: GroupId, b: &[u8]) -> Option<Checkpoint> {
    let mut g = Get(b);
    if g.var()? != group.0 {
        return None;
    }
    let c = Checkpoint::get(&mut g)?;
    g.0.is_empty().then_some(c)
}

/// Where a state is read from.
enum Source {
    /// Pieces, with what is deleted in each as of the checkpoint, and where the reading is: a piece and a block of it, which is the first of those that
    /// were read with it.
    Pieces(Vec<(PieceMeta, RoaringBitmap)>, usize, usize, VecDeque<Option<Block>>, Joiner),
    /// What is live of a memory group, in the order of its log.
    Memory(std::vec::IntoIter<Entry>),
}

/// A group's state being read out, as of one checkpoint (S-100). Reading takes memory for a mebibyte, or one entry.
pub struct Outgoing {
    shard: Arc<Shard>,
    group: GroupId,
    checkpoint: Checkpoint,
    source: Source,
    begun: bool,
    ended: bool,
    msgs: u64,
    _kept: Kept,
}

impl Outgoing {
    pub(crate) fn new(shard: &Arc<Shard>, state: &State) -> Option<Outgoing> {
        let mut checkpoint = state.checkpoint.clone();
        if checkpoint.index == LogIndex(0) || state.deleted {
            return None;
        }
        let mut kept = Kept::new(shard);
        let source = if state.memory {
            let entries = state.live_entries(checkpoint.index);
            let records = entries.iter().flat_map(|e| e.records().flatten()).filter_map(Message::parse);
            checkpoint.totals.bytes = records.map(|m| u64::from(shard.opts.counting.of(&m))).sum();
            Source::Memory(entries.into_iter())
        } else {
            let mut pieces = Vec::new();
            for p in &state.pieces {
                if p.meta.msgs == 0 || p.meta.first_index > checkpoint.index {
                    continue;
                }
                let deleted = match state.checkpoint_deleted.get(&p.key()) {
                    Some(b) => RoaringBitmap::deserialize_from(&b[..]).ok()?,
                    None => RoaringBitmap::new(),
                };
                kept.add(p.meta.file);
                pieces.push((p.meta.clone(), deleted));
            }
            Source::Pieces(pieces, 0, 0, VecDeque::new(), Joiner::default())
        };
        Some(Outgoing {
            shard: shard.clone(),
            group: state.id,
            checkpoint,
            source,
            begun: false,
            ended: false,
            msgs: 0,
            _kept: kept,
        })
    }

    /// What it is the state of.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The next bytes; `None` when there are no more.
    ///
    /// # Errors
    /// What cannot be read. The state cannot be had from here then.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        if !self.begun {
            self.begun = true;
            return Ok(Some(encode_head(self.group, &self.checkpoint).into()));
        }
        let mut out = Vec::new();
        while out.len() < STEP_BYTES {
            if !self.step(&mut out).await? {
                let c = &self.checkpoint;
                if self.msgs != c.totals.msgs {
                    // What damage has taken is not in the pieces any more and counts: nobody is to take what is left for all of it.
                    let what = format!("{} of {} messages can be read out", self.msgs, c.totals.msgs);
                    let entries = Some((LogIndex(1), c.index));
                    return Err(Error::Damaged(Damage {
                        group: Some(self.group),
                        entries,
                        messages: None,
                        what,
                    }));
                }
                self.ended = true;
                let mut b = Vec::new();
                b.var(self.msgs);
                frame(END_MAGIC, &b, &mut out);
                break;
            }
        }
        Ok(Some(out.into()))
    }

    /// Adds the entries of one more block; false at the end.
    async fn step(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        let upto = self.checkpoint.index;
        let mut found: Vec<std::result::Result<Entry, Head>> = Vec::new();
        let (meta, deleted) = match &mut self.source {
            Source::Memory(left) => {
                let Some(e) = left.next() else { return Ok(false) };
                self.msgs += u64::from(e.head.count);
                put_entry(&e, out);
                return Ok(true);
            }
            Source::Pieces(pieces, piece, block, part, joiner) => {
                let Some((meta, deleted)) = pieces.get(*piece) else { return Ok(false) };
                let foot = self.shard.index_foot(meta).await?;
                if *block >= foot.blocks.len() {
                    found.extend(joiner.cut().map(Err));
                    (*piece, *block) = (*piece + 1, 0);
                } else {
                    if part.is_empty() {
                        part.extend(self.shard.part(meta, &foot, *block).await?);
                    }
                    let b = match part.pop_front().flatten().filter(|b| b.sure) {
                        Some(b) => Some(b),
                        None => self.shard.sure_block(meta, &foot, *block).await?.filter(|b| b.sure),
                    };
                    let sense = b.is_some_and(|b| joiner.push(&b, |e| found.push(e)));
                    if !sense {
                        return Err(damaged(self.group, meta.first_index, meta.last_index));
                    }
                    *block += 1;
                }
                (meta, deleted)
            }
        };
        for e in found {
            let e = e.map_err(|h| damaged(self.group, h.index, h.index))?;
            if e.head.index > upto || e.head.kind != Kind::Messages {
                continue;
            }
            let live = |s: StreamSeq| !deleted.contains((s.0 - meta.first_seq.0) as u32);
            if let Some(e) = live_part(&e, live) {
                self.msgs += u64::from(e.head.count);
                put_entry(&e, out);
            }
        }
        Ok(true)
    }
}

fn damaged(group: GroupId, first: LogIndex, last: LogIndex) -> Error {
    let what = "the state cannot be read out".to_owned();
    Error::Damaged(Damage { group: Some(group), entries: Some((first, last)), messages: None, what })
}

fn put_entry(e: &Entry, out: &mut Vec<u8>) {
    out.extend_from_slice(&e.head.encode());
    out.extend_from_slice(&e.payload);
}

fn wrong(what: &str) -> Error {
    Error::Invalid(format!("a state under way: {what}"))
}

/// A state being received, in files of its own. Dropped before its end, or not taken over, it leaves nothing that counts: its files go with the next
/// manifest (S-101).
pub struct Incoming {
    shard: Arc<Shard>,
    group: GroupId,
    memory: bool,
    buf: BytesMut,
    head: Option<Checkpoint>,
    batch: Vec<Entry>,
    batch_bytes: u64,
    pieces: Vec<PieceMeta>,
    kept: Kept,
    /// The entries that pieces cover so far.
    covered: LogIndex,
    last: (LogIndex, StreamSeq),
    msgs: u64,
    /// What the messages count for in a state under way.
    bytes: u64,
    /// What they count for in this group.
    bytes_here: u64,
    ended: bool,
}

/// A state that is here whole, on disk where it belongs there, and waits for [`crate::Group::take_over`].
pub struct Taken {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) pieces: Vec<PieceMeta>,
    /// Of a memory group.
    pub(crate) entries: Vec<Entry>,
    kept: Kept,
}

impl Taken {
    /// What it is the state of.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

impl Incoming {
    pub(crate) fn new(shard: &Arc<Shard>, group: GroupId, memory: bool) -> Incoming {
        Incoming {
            shard: shard.clone(),
            group,
            memory,
            buf: BytesMut::new(),
            head: None,
            batch: Vec::new(),
            batch_bytes: 0,
            pieces: Vec::new(),
            kept: Kept::new(shard),
            covered: LogIndex(0),
            last: (LogIndex(0), StreamSeq(0)),
            msgs: 0,
            bytes: 0,
            bytes_here: 0,
            ended: false,
        }
    }

    /// What it will be the state of, once that is here.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.head.as_ref()
    }

    /// Whether all of it is here.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Takes the next bytes, in any portions.
    ///
    /// # Errors
    /// What is wrong with them, or with the disk. What was received is of no use then.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.buf.extend_from_slice(bytes);
        while !self.ended && self.take_one()? {
            if !self.memory && self.batch_bytes >= PIECE_BYTES {
                self.write_piece(false).await?;
            }
        }
        if self.ended && !self.buf.is_empty() {
            return Err(wrong("something follows its end"));
        }
        Ok(())
    }

    /// Takes one thing from the front of what is here; false if it is not whole yet.
    fn take_one(&mut self) -> Result<bool> {
        if self.buf.len() < 4 {
            return Ok(false);
        }
        match (u32_at(&self.buf, 0), &self.head) {
            (HEAD_MAGIC, None) => {
                let Some(body) = self.take_frame()? else { return Ok(false) };
                let c = decode_head(self.group, &body).ok_or_else(|| wrong("its head cannot be read"))?;
                if c.index == LogIndex(0) {
                    return Err(wrong("it is of nothing"));
                }
                self.head = Some(c);
            }
            (END_MAGIC, Some(c)) => {
                let (msgs, bytes) = (c.totals.msgs, c.totals.bytes);
                let Some(body) = self.take_frame()? else { return Ok(false) };
                let mut g = Get(&body);
                let said =
                    g.var().filter(|_| g.0.is_empty()).ok_or_else(|| wrong("its end cannot be read"))?;
                // S-102: also what the other end counted has to be what is here.
                if said != self.msgs || msgs != self.msgs || bytes != self.bytes {
                    return Err(wrong(&format!(
                        "{} messages of {} bytes came, {said} were sent, {msgs} of {bytes} should be",
                        self.msgs, self.bytes
                    )));
                }
                if let Some(c) = &mut self.head {
                    c.totals.bytes = self.bytes_here;
                }
                self.ended = true;
            }
            (ENTRY_MAGIC, Some(_)) => {
                if self.buf.len() < ENTRY_HEADER {
                    return Ok(false);
                }
                let h = Head::decode(&self.buf).ok_or_else(|| wrong("an entry's header is damaged"))?;
                let size = ENTRY_HEADER + h.length as usize;
                if self.buf.len() < size {
                    self.buf.reserve(size - self.buf.len());
                    return Ok(false);
                }
                let mut raw = self.buf.split_to(size).freeze();
                raw.advance(ENTRY_HEADER);
                let e = Entry::with_payload(h, raw).ok_or_else(|| wrong("an entry's payload is damaged"))?;
                self.take_entry(e)?;
            }
            _ => return Err(wrong("it makes no sense")),
        }
        Ok(true)
    }

    fn take_frame(&mut self) -> Result<Option<Bytes>> {
        if self.buf.len() < FRAME {
            return Ok(None);
        }
        let (version, len, crc) =
            (u32_at(&self.buf, 4), u32_at(&self.buf, 8) as usize, u32_at(&self.buf, 12));
        if version != u32::from(FORMAT) {
            return Err(Error::Format(format!("a state was sent in format {version}, this is {FORMAT}")));
        }
        if len > HEAD_MAX {
            return Err(wrong("a frame is too long"));
        }
        if self.buf.len() < FRAME + len {
            return Ok(None);
        }
        let body = self.buf.split_to(FRAME + len).freeze().slice(FRAME..);
        if checksum::crc32c(&body) != crc {
            return Err(wrong("a frame is damaged"));
        }
        Ok(Some(body))
    }

    fn take_entry(&mut self, e: Entry) -> Result<()> {
        let h = e.head;
        let c = self.head.as_ref().ok_or_else(|| wrong("an entry before the head"))?;
        if h.group != self.group || h.kind != Kind::Messages || h.index <= self.last.0 || h.index > c.index {
            return Err(wrong(&format!("entry {} does not belong there", h.index.0)));
        }
        let (mut seq, mut count) = (self.last.1, 0u32);
        for r in e.records() {
            let m =
                r.and_then(|r| Message::decode(self.group, r)).ok_or_else(|| wrong("a record is damaged"))?;
            if m.seq <= seq || m.seq > c.totals.last {
                return Err(wrong(&format!("message {} does not belong there", m.seq.0)));
            }
            seq = m.seq;
            count += 1;
            let o = &self.shard.opts;
            self.bytes += u64::from(o.counting.of(&m));
            self.bytes_here += u64::from(o.counting_of(self.memory).of(&m));
        }
        if count == 0 || count != h.count {
            return Err(wrong("an entry has other messages than it says"));
        }
        self.msgs += u64::from(count);
        self.last = (h.index, seq);
        self.batch_bytes += h.size();
        self.batch.push(e);
        Ok(())
    }

    /// Makes a piece in a file of its own of what has gathered.
    async fn write_piece(&mut self, last: bool) -> Result<()> {
        let Some(c) = self.head.as_ref() else { return Ok(()) };
        let entries = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if entries.is_empty() {
            return Ok(());
        }
        let mut draft = Draft::new(&self.shard);
        // Garbage, unless a manifest names it: so a crash leaves nothing behind.
        self.kept.add(draft.id);
        self.shard.leaked.lock().push(draft.id);
        let key = draft.key();
        let mut b = draft.builder(&key, &self.shard, self.group);
        b.skip(self.covered.next(), Term(0), Chain(0));
        let mut turn = 0;
        for e in &entries {
            b.push(e);
            draft.pour(&self.shard, &mut b).await;
            crate::flush::pause(&mut turn, e.head.size()).await;
        }
        if last {
            b.skip(c.index, c.term, c.chain);
        }
        let Some(built) = b.finish() else { return Ok(()) };
        let (meta, _) = draft.add(&self.shard, built).await;
        draft.finish(true).await?;
        self.covered = meta.last_index;
        self.pieces.push(meta);
        Ok(())
    }

    /// All is here, and durable: it only has to be taken over.
    ///
    /// # Errors
    /// It is not all here, or the disk failed.
    pub async fn finish(mut self) -> Result<Taken> {
        if !self.ended {
            return Err(wrong("it has not ended"));
        }
        let entries = if self.memory { std::mem::take(&mut self.batch) } else { Vec::new() };
        self.write_piece(true).await?;
        if !self.pieces.is_empty() {
            self.shard.disk.sync_dir(&self.shard.dir.join("segments")).await?;
        }
        let checkpoint = self.head.take().ok_or_else(|| wrong("it has no head"))?;
        let kept = std::mem::replace(&mut self.kept, Kept::new(&self.shard));
        Ok(Taken { checkpoint, pieces: std::mem::take(&mut self.pieces), entries, kept })
    }
}

impl Shard {
    /// Puts a received state in the place of what a group has (S-101).
    pub(crate) async fn take_over(
        self: &Arc<Self>,
        id: GroupId,
        state: &Arc<Mutex<State>>,
        taken: Taken,
    ) -> Result<()> {
        let _one = self.flush_lock.lock().await;
        let index = taken.checkpoint.index;
        let cut = {
            let g = state.lock();
            if g.deleted {
                return Err(Error::NoGroup(id));
            }
            if g.applied >= index {
                return Err(Error::Invalid(format!("state of entry {}, applied {}", index.0, g.applied.0)));
            }
            // What follows it here stays if it continues it. Else it is a tail that never was nor can be committed, and it has to be gone
            // before the state is there, or a restart would put it on top.
            g.last_index > index && !g.continues(&taken.checkpoint)
        };
        if cut {
            let next = index.next();
            let round = {
                let mut g = state.lock();
                let round = if g.memory {
                    self.progress.borrow().synced
                } else {
                    let frame = Frame::control(FrameKind::Truncate, id, next, Bytes::new());
                    self.enqueue(vec![frame], true)?
                };
                g.truncate(next, round)?;
                round
            };
            while self.progress.borrow().written < round && self.run_round().await? {}
        }
        let memory = {
            let mut g = state.lock();
            // S-55: numbers that came from elsewhere were given too.
            let floor = g.next_floor(taken.checkpoint.totals.last, index).filter(|_| g.memory);
            if let Some(f) = floor {
                let bytes = crate::round::floor(f.0, f.1);
                let round =
                    self.enqueue(vec![Frame::control(FrameKind::Floor, id, LogIndex(0), bytes)], true)?;
                g.set_floor(f, round);
            }
            g.memory
        };
        if memory {
            while self.run_round().await? {}
            state.lock().replace_memory(taken.checkpoint, taken.entries);
            return Ok(());
        }
        self.sync().await?;
        let synced = self.progress.borrow().synced;
        let files: Vec<FileId> = taken.pieces.iter().map(|p| p.file).collect();
        let mut plans = BTreeMap::new();
        plans.insert(id, Plan { taken: Some(Box::new((taken.checkpoint, taken.pieces))), ..Plan::default() });
        self.publish_plans(plans, synced).await?;
        self.leaked.lock().retain(|f| !files.contains(f));
        drop(taken.kept);
        Ok(())
    }
}

impl State {
    /// The group as a manifest shall have it with a state that was received.
    pub(crate) fn taken_record(&self, checkpoint: &Checkpoint, pieces: &[PieceMeta]) -> GroupRecord {
        let hard = self.durable_hard();
        GroupRecord {
            id: self.id,
            options: self.options.clone(),
            hard: hard.0,
            hard_valid: hard.1,
            flushed: checkpoint.index,
            flushed_term: checkpoint.term,
            flushed_chain: checkpoint.chain,
            checkpoint: checkpoint.clone(),
            floor_seq: self.floor.0,
            floor_index: self.floor.1,
            pieces: pieces
                .iter()
                .map(|meta| PieceRecord { meta: meta.clone(), deleted: Bytes::new() })
                .collect(),
            lost: Vec::new(),
        }
    }

    /// Whether the log has the entry that this is the state of, as far as is known. Where that cannot be read its identity says it, as it does
    /// to the consensus; where even that is a guess what follows stays, for the consensus to replace: it may have been counted on.
    pub(crate) fn continues(&self, c: &Checkpoint) -> bool {
        if let Some(o) = self.hole_at(c.index).map(|i| &self.holes[i].hole) {
            return !o.known || (o.term == c.term && (c.index < o.last || o.chain == c.chain));
        }
        match self.entry(c.index) {
            Some(e) => e.head.chain == c.chain,
            None => self.entry(c.index.next()).is_some_and(|e| e.head.prev == c.chain),
        }
    }

    /// The manifest that has `record` for this group is durable: from here on it is that, and what follows it here.
    pub(crate) fn replace(&mut self, record: GroupRecord) {
        let end = (record.flushed, record.flushed_term, record.flushed_chain);
        let fresh = State::restore(record, self.memory, self.counting);
        let fresh =
            fresh.expect("S-101: a received state has no deletions, so there is none that cannot be read");
        self.keep_above(&fresh.checkpoint);
        self.pieces = fresh.pieces;
        self.data = fresh.data;
        self.checkpoint_deleted = fresh.checkpoint_deleted;
        self.begin_at(fresh.checkpoint, end);
    }

    /// The same for a memory group, whose state is what is live.
    pub(crate) fn replace_memory(&mut self, checkpoint: Checkpoint, entries: Vec<Entry>) {
        let end = (checkpoint.index, checkpoint.term, checkpoint.chain);
        self.keep_above(&checkpoint);
        let (tail, msgs) = (std::mem::take(&mut self.tail), std::mem::take(&mut self.msgs));
        let round = crate::types::Round(0);
        for e in entries {
            self.push(e, round);
        }
        self.tail.extend(tail);
        self.msgs.extend(msgs);
        self.begin_at(checkpoint, end);
    }

    /// Drops what of the log a state covers, with its holes, what was put into them, and its losses: the state has what its sender has.
    fn keep_above(&mut self, c: &Checkpoint) {
        let (upto, seq) = (c.index, c.totals.last);
        self.tail.retain(|t| t.entry.head.index > upto);
        self.tail_bytes = self.tail.iter().map(|t| t.entry.head.size()).sum();
        self.msgs.retain(|m| m.entry > upto);
        self.patched.retain(|i, _| *i > upto);
        self.holes.retain_mut(|o| {
            if o.hole.first <= upto {
                (o.hole.first, o.hole.prev) = (upto.next(), c.chain);
                let none = o.hole.last_seq <= seq;
                let rest = (o.hole.first_seq.max(seq.next()), o.hole.last_seq);
                (o.hole.first_seq, o.hole.last_seq) = if none { (StreamSeq(0), StreamSeq(0)) } else { rest };
            }
            o.hole.first <= o.hole.last
        });
        self.lost.retain_mut(|l| {
            if l.first <= upto && l.first_seq.0 > 0 {
                l.first_seq = l.first_seq.max(seq.next());
            }
            l.first = l.first.max(upto.next());
            l.first <= l.last && l.first_seq <= l.last_seq
        });
    }

    fn begin_at(&mut self, checkpoint: Checkpoint, end: (LogIndex, Term, Chain)) {
        self.tail_deleted.clear();
        self.dict = Default::default();
        self.dict_upto = if checkpoint.totals.msgs == 0 { checkpoint.totals.last } else { StreamSeq(0) };
        self.pins = Default::default();
        self.pending = None;
        self.applied = checkpoint.index;
        self.totals = checkpoint.totals;
        self.flushed = end;
        self.checkpoint = checkpoint;
        let last = self.tail.back().map(|t| (t.entry.head.index, t.entry.head.term, t.entry.head.chain));
        let last = last.filter(|l| l.0 > end.0);
        (self.last_index, self.last_term, self.last_chain) = last.unwrap_or(end);
        if let Some(o) = self.holes.last().filter(|o| o.hole.last > self.last_index) {
            let term = if o.hole.known { o.hole.term } else { self.last_term };
            (self.last_index, self.last_term, self.last_chain) = (o.hole.last, term, o.hole.chain);
        }
    }

    /// What is live at or below an entry that is applied, for a memory group.
    fn live_entries(&self, upto: LogIndex) -> Vec<Entry> {
        let gone = &self.tail_deleted;
        let state = self.tail.iter().map(|t| &t.entry).filter(|e| e.head.index <= upto);
        state
            .filter(|e| e.head.kind == Kind::Messages)
            .filter_map(|e| live_part(e, |s| !gone.contains(s.0)))
            .collect()
    }
}

impl Shard {
    /// Publishes a manifest in which every group is as it is but for these plans. The flush lock is held.
    async fn publish_plans(
        self: &Arc<Self>,
        mut plans: BTreeMap<GroupId, Plan>,
        synced: crate::types::Round,
    ) -> Result<()> {
        let groups: Vec<_> = self.groups.lock().iter().map(|(id, g)| (*id, g.clone())).collect();
        let work = groups
            .into_iter()
            .map(|(id, group)| crate::flush::Work { group, id, plan: plans.remove(&id).unwrap_or_default() })
            .collect::<Vec<_>>();
        if let Some(id) = plans.keys().next() {
            return Err(Error::NoGroup(*id));
        }
        self.publish(Vec::new(), &work, synced).await.map(drop)
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
