//! Pieces: runs of one group's log in a segment file, cut into blocks, with the footers that index them.
//!
//! A segment file is written once, synced, published by the manifest and never changed; it holds one piece of a large
//! stream or many small pieces of many. Owns the bytes of files, blocks and footers, and finding a message in a block.
//! Does no I/O. Layout: docs/design/0012-on-disk-format.md.
//!
//! - S-40: a footer can be rebuilt from its piece's blocks, and says the same when it is.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::{Bytes, BytesMut};
use hashbrown::HashTable;

use crate::{
    codec::{Get, Put, u32_at, u64_at},
    crypt::FileKey,
    record::{
        ENTRY_HEADER, ENTRY_MAGIC, Entry, FORMAT, Head, Kind, Message, PREAMBLE, Records, Summed,
        append_record, record_len, record_seq,
    },
    types::{Chain, FileId, GroupId, LogIndex, StreamSeq, Term},
};

mod builder;

pub(crate) use builder::{Builder, Built};

const FILE_MAGIC: u32 = 0x8453_5546;
const FOOT_MAGIC: u32 = 0x8546_5546;
/// Bytes of a segment file's header.
pub(crate) const FILE_HEADER: usize = 64;
/// Bytes of a block's header.
pub(crate) const BLOCK_HEADER: usize = 20;
/// Raw bytes after which a block ends.
pub(crate) const BLOCK_TARGET: usize = 16 << 10;
/// The top bit of a block's stored length: it is compressed.
const COMPRESSED: u32 = 1 << 31;
/// Raw bytes of a block at most: one record, or one opaque payload, on top of a full block.
const BLOCK_MAX: usize = (1 << 30) + (1 << 20);

/// A segment file's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileHead {
    pub shard: u32,
    pub id: FileId,
    pub salt: [u8; 16],
    pub key: u32,
}

impl FileHead {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(FILE_HEADER);
        b.u32(FILE_MAGIC);
        b.u8(FORMAT);
        b.extend_from_slice(&[0; 3]);
        b.u32(self.shard);
        b.u32(self.key);
        b.u64(self.id.0);
        b.extend_from_slice(&self.salt);
        b.resize(FILE_HEADER - 4, 0);
        let crc = checksum::crc32c(&b);
        b.u32(crc);
        b
    }
    pub(crate) fn decode(b: &[u8]) -> Option<FileHead> {
        let b = b.get(..FILE_HEADER)?;
        if u32_at(b, 0) != FILE_MAGIC || checksum::crc32c(&b[..60]) != u32_at(b, 60) || b[4] != FORMAT {
            return None;
        }
        let mut salt = [0; 16];
        salt.copy_from_slice(&b[24..40]);
        Some(FileHead { shard: u32_at(b, 8), id: FileId(u64_at(b, 16)), salt, key: u32_at(b, 12) })
    }
}

/// What is known of a piece without reading it. Part of the manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PieceMeta {
    pub group: GroupId,
    pub file: FileId,
    /// Where its first block begins.
    pub off: u64,
    /// Bytes of blocks; the two footers follow.
    pub data: u32,
    pub index_foot: u32,
    pub subject_foot: u32,
    /// The entries that it covers, also those that compaction dropped.
    pub first_index: LogIndex,
    pub last_index: LogIndex,
    pub last_term: Term,
    pub last_chain: Chain,
    /// The first and last message in it; both 0 without any.
    pub first_seq: StreamSeq,
    pub last_seq: StreamSeq,
    pub msgs: u32,
    /// What the messages count for, by [`Counting`].
    pub bytes: u64,
    pub first_time: i64,
    pub last_time: i64,
    /// True once entries were dropped or changed: it is state and no longer log.
    pub compacted: bool,
}

impl PieceMeta {
    pub(crate) fn end(&self) -> u64 {
        self.off + u64::from(self.data) + u64::from(self.index_foot) + u64::from(self.subject_foot)
    }
    /// Bytes in its file.
    pub(crate) fn size(&self) -> u64 {
        self.end() - self.off
    }
    pub(crate) fn holds(&self, seq: StreamSeq) -> bool {
        self.msgs > 0 && self.first_seq <= seq && seq <= self.last_seq
    }
    /// True if every sequence between the first and the last is there.
    pub(crate) fn dense(&self) -> bool {
        self.msgs > 0 && self.last_seq.0 - self.first_seq.0 + 1 == u64::from(self.msgs)
    }

    pub(crate) fn put(&self, b: &mut Vec<u8>) {
        for v in [self.group.0, self.file.0, self.off] {
            b.var(v);
        }
        for v in [self.data, self.index_foot, self.subject_foot, self.msgs] {
            b.var(u64::from(v));
        }
        for v in [self.first_index.0, self.last_index.0 - self.first_index.0, self.last_term.0] {
            b.var(v);
        }
        b.u64(self.last_chain.0);
        for v in [self.first_seq.0, self.last_seq.0 - self.first_seq.0, self.bytes] {
            b.var(v);
        }
        b.ivar(self.first_time);
        b.ivar(self.last_time.wrapping_sub(self.first_time));
        b.u8(u8::from(self.compacted));
    }
    pub(crate) fn get(g: &mut Get<'_>) -> Option<PieceMeta> {
        let (group, file, off) = (GroupId(g.var()?), FileId(g.var()?), g.var()?);
        let mut small = || u32::try_from(g.var()?).ok();
        let (data, index_foot, subject_foot, msgs) = (small()?, small()?, small()?, small()?);
        let first_index = g.var()?;
        let last_index = first_index.checked_add(g.var()?)?;
        let last_term = Term(g.var()?);
        let last_chain = Chain(g.u64()?);
        let first_seq = g.var()?;
        let last_seq = first_seq.checked_add(g.var()?)?;
        let bytes = g.var()?;
        let first_time = g.ivar()?;
        let last_time = first_time.wrapping_add(g.ivar()?);
        Some(PieceMeta {
            group,
            file,
            off,
            data,
            index_foot,
            subject_foot,
            first_index: LogIndex(first_index),
            last_index: LogIndex(last_index),
            last_term,
            last_chain,
            first_seq: StreamSeq(first_seq),
            last_seq: StreamSeq(last_seq),
            msgs,
            bytes,
            first_time,
            last_time,
            compacted: g.u8()? != 0,
        })
    }
}

/// What a message counts for beyond its subject, headers and body, in the bytes of a stream's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counting {
    /// A message without headers.
    pub plain: u32,
    /// A message with headers.
    pub with_headers: u32,
}

impl Default for Counting {
    /// As a nats-server file store counts (2.15: 30 bytes a record, 4 more for the headers' length).
    fn default() -> Self {
        Self { plain: 30, with_headers: 34 }
    }
}

impl Counting {
    /// As a nats-server memory store counts (2.15: 16 bytes a message).
    pub const MEMORY: Counting = Counting { plain: 16, with_headers: 16 };

    /// What a message counts for.
    pub(crate) fn of(&self, m: &Message<'_>) -> u32 {
        let fixed = if m.headers.is_empty() { self.plain } else { self.with_headers };
        let n = m.subject.len() + m.headers.len() + m.body.len();
        fixed.saturating_add(u32::try_from(n).unwrap_or(u32::MAX))
    }
}

/// One line of a piece's sparse index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockLine {
    /// From the piece's start.
    pub off: u32,
    /// The first message in the block, or the next one after it, less the piece's first.
    pub seq: u32,
    /// The entry that the block begins in, less the piece's first.
    pub index: u32,
}

/// A message in a piece's subject footer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    /// Less the piece's first.
    pub seq: u32,
    /// Which of the footer's subjects.
    pub subject: u32,
    /// What it counts for.
    pub size: u32,
}

/// A piece's sparse index, with what expires by itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct IndexFoot {
    pub blocks: Vec<BlockLine>,
    /// Expiry and sequence of the messages that carry a time to live, by expiry.
    pub ttl: Vec<(i64, StreamSeq)>,
    pub filter: Filter,
    /// The first entry of each term, less the piece's first: with the chains around it, what an entry was that cannot be read.
    pub terms: Vec<(u32, Term)>,
}

/// A piece's subjects and messages. The subjects are sorted; the slots are in the order of their sequences.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct SubjectFoot {
    text: Vec<u8>,
    /// The end of each subject in `text`.
    ends: Vec<u32>,
    pub slots: Vec<Slot>,
    /// Slots by subject: those of subject `i` are `by_subject[starts[i]..starts[i + 1]]`.
    by_subject: Vec<u32>,
    starts: Vec<u32>,
}

impl SubjectFoot {
    pub(crate) fn subjects(&self) -> usize {
        self.ends.len()
    }
    pub(crate) fn subject(&self, i: u32) -> &[u8] {
        let i = i as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.text[start as usize..self.ends[i] as usize]
    }
    pub(crate) fn find(&self, subject: &[u8]) -> Option<u32> {
        let (mut lo, mut hi) = (0, self.subjects() as u32);
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            match self.subject(mid).cmp(subject) {
                std::cmp::Ordering::Less => lo = mid + 1,
                std::cmp::Ordering::Greater => hi = mid,
                std::cmp::Ordering::Equal => return Some(mid),
            }
        }
        None
    }
    /// The subjects that start with `prefix`.
    pub(crate) fn with_prefix(&self, prefix: &[u8]) -> Range<u32> {
        let below = |test: &dyn Fn(&[u8]) -> bool| {
            let (mut lo, mut hi) = (0, self.subjects() as u32);
            while lo < hi {
                let mid = lo + (hi - lo) / 2;
                if test(self.subject(mid)) { lo = mid + 1 } else { hi = mid }
            }
            lo
        };
        below(&|s| s < prefix)..below(&|s| s < prefix || s.starts_with(prefix))
    }
    /// The slots of one subject, rising.
    pub(crate) fn slots_of(&self, subject: u32) -> &[u32] {
        let s = subject as usize;
        &self.by_subject[self.starts[s] as usize..self.starts[s + 1] as usize]
    }
    /// The slot of a sequence, less the piece's first.
    pub(crate) fn slot_of(&self, seq: u32) -> Option<usize> {
        // Without gaps this is it.
        if self.slots.get(seq as usize).is_some_and(|s| s.seq == seq) {
            return Some(seq as usize);
        }
        self.slots.binary_search_by_key(&seq, |s| s.seq).ok()
    }
    /// Bytes of memory.
    pub(crate) fn weight(&self) -> usize {
        self.text.len() + 8 * self.ends.len() + 16 * self.slots.len() + 128
    }

    fn index(&mut self) {
        self.starts = vec![0; self.subjects() + 1];
        for s in &self.slots {
            self.starts[s.subject as usize + 1] += 1;
        }
        for i in 1..self.starts.len() {
            self.starts[i] += self.starts[i - 1];
        }
        let mut at = self.starts.clone();
        self.by_subject = vec![0; self.slots.len()];
        for (i, s) in self.slots.iter().enumerate() {
            let p = &mut at[s.subject as usize];
            self.by_subject[*p as usize] = i as u32;
            *p += 1;
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut b = Vec::new();
        b.u32(FOOT_MAGIC);
        b.u8(FORMAT);
        b.var(self.subjects() as u64);
        let mut before: &[u8] = &[];
        for i in 0..self.subjects() as u32 {
            let s = self.subject(i);
            let shared = s.iter().zip(before).take_while(|(a, b)| a == b).count();
            b.var(shared as u64);
            b.bytes(&s[shared..]);
            before = s;
        }
        b.var(self.slots.len() as u64);
        let mut last = 0;
        for s in &self.slots {
            b.var(u64::from(s.seq - last));
            b.var(u64::from(s.subject));
            b.var(u64::from(s.size));
            last = s.seq;
        }
        b
    }

    fn decode(b: &[u8]) -> Option<SubjectFoot> {
        let mut g = Get(b);
        if g.u32()? != FOOT_MAGIC || g.u8()? != FORMAT {
            return None;
        }
        let mut f = SubjectFoot::default();
        let n = g.count(2)?;
        let mut start = 0;
        for _ in 0..n {
            let shared = usize::try_from(g.var()?).ok()?;
            let suffix = g.bytes()?;
            if shared > f.text.len() - start {
                return None;
            }
            let at = f.text.len();
            f.text.extend_from_within(start..start + shared);
            f.text.extend_from_slice(suffix);
            start = at;
            f.ends.push(u32::try_from(f.text.len()).ok()?);
        }
        let slots = g.count(3)?;
        f.slots.reserve_exact(slots);
        let mut seq = 0u32;
        for i in 0..slots {
            let delta = u32::try_from(g.var()?).ok()?;
            if i > 0 && delta == 0 {
                return None;
            }
            seq = seq.checked_add(delta)?;
            let (subject, size) = (u32::try_from(g.var()?).ok()?, u32::try_from(g.var()?).ok()?);
            if subject as usize >= n {
                return None;
            }
            f.slots.push(Slot { seq, subject, size });
        }
        f.index();
        g.0.is_empty().then_some(f)
    }
}

impl IndexFoot {
    /// The block that a message would be in: its number, and where in the file it begins.
    pub(crate) fn block_of(&self, meta: &PieceMeta, seq: StreamSeq) -> Option<(usize, u64)> {
        let rel = u32::try_from(seq.0.checked_sub(meta.first_seq.0)?).ok()?;
        let i = self.blocks.partition_point(|b| b.seq <= rel).saturating_sub(1);
        Some((i, meta.off + u64::from(self.blocks.get(i)?.off)))
    }
    /// The block from which on all of an entry stands: the last that begins in an earlier one, or the one behind it.
    pub(crate) fn block_with(&self, meta: &PieceMeta, index: LogIndex) -> usize {
        let rel = index.0.saturating_sub(meta.first_index.0);
        self.blocks.partition_point(|b| u64::from(b.index) < rel).saturating_sub(1)
    }
    /// The messages that can be in a block: from the first to before the second.
    pub(crate) fn range_of(&self, meta: &PieceMeta, i: usize) -> Range<u64> {
        let seq = |b: &BlockLine| meta.first_seq.0 + u64::from(b.seq);
        let start = self.blocks.get(i).map_or(meta.first_seq.0, seq);
        start..self.blocks.get(i + 1).map_or(meta.last_seq.0 + 1, seq)
    }
    /// Bytes of memory.
    pub(crate) fn weight(&self) -> usize {
        12 * self.blocks.len() + 16 * (self.ttl.len() + self.terms.len()) + self.filter.0.len() + 64
    }
    fn encode(&self, meta: &PieceMeta) -> Vec<u8> {
        let mut b = Vec::new();
        b.u32(FOOT_MAGIC);
        b.u8(FORMAT);
        meta.put(&mut b);
        b.var(self.blocks.len() as u64);
        let mut last = BlockLine { off: 0, seq: 0, index: 0 };
        for l in &self.blocks {
            b.var(u64::from(l.off - last.off));
            b.var(u64::from(l.seq - last.seq));
            b.var(u64::from(l.index - last.index));
            last = *l;
        }
        b.var(self.ttl.len() as u64);
        for (at, seq) in &self.ttl {
            b.ivar(*at);
            b.var(seq.0);
        }
        b.bytes(&self.filter.0);
        b.var(self.terms.len() as u64);
        for (index, term) in &self.terms {
            b.var(u64::from(*index));
            b.var(term.0);
        }
        b
    }
    fn decode(b: &[u8]) -> Option<(PieceMeta, IndexFoot)> {
        let mut g = Get(b);
        if g.u32()? != FOOT_MAGIC || g.u8()? != FORMAT {
            return None;
        }
        let meta = PieceMeta::get(&mut g)?;
        let mut f = IndexFoot::default();
        let mut last = BlockLine { off: 0, seq: 0, index: 0 };
        for _ in 0..g.count(3)? {
            let mut step = |v: u32| v.checked_add(u32::try_from(g.var()?).ok()?);
            last = BlockLine { off: step(last.off)?, seq: step(last.seq)?, index: step(last.index)? };
            f.blocks.push(last);
        }
        for _ in 0..g.count(2)? {
            f.ttl.push((g.ivar()?, StreamSeq(g.var()?)));
        }
        f.filter = Filter(g.bytes()?.to_vec());
        for _ in 0..g.count(2)? {
            f.terms.push((u32::try_from(g.var()?).ok()?, Term(g.var()?)));
        }
        g.0.is_empty().then_some((meta, f))
    }
}

/// A Bloom filter over a piece's subjects: ten bits and three probes a subject, about 2 % false hits.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Filter(Vec<u8>);

impl Filter {
    fn new<'a>(n: usize, subjects: impl Iterator<Item = &'a [u8]>) -> Filter {
        let mut f = Filter(vec![0; (n * 10).div_ceil(8)]);
        for s in subjects {
            for p in f.probes(s) {
                f.0[p / 8] |= 1 << (p % 8);
            }
        }
        f
    }
    fn probes(&self, s: &[u8]) -> [usize; 3] {
        let bits = (self.0.len() * 8).max(1) as u64;
        let a = u64::from(checksum::crc32c(s));
        let b = u64::from(checksum::append(0x9e37_79b9, s)) | 1;
        [0u64, 1, 2]
            .map(|i| (((a << 32 | b).wrapping_mul(2 * i + 0x9e37_79b9_7f4a_7c15) >> 16) % bits) as usize)
    }
    /// False if the piece surely has no message of this subject.
    pub(crate) fn may_hold(&self, s: &[u8]) -> bool {
        !self.0.is_empty() && self.probes(s).iter().all(|&p| self.0[p / 8] & (1 << (p % 8)) != 0)
    }
}

/// How blocks are stored in a file.
#[derive(Debug, Default)]
pub(crate) struct BlockCodec<'a> {
    pub key: Option<&'a FileKey>,
    pub compress: bool,
}

impl BlockCodec<'_> {
    /// Whether a block is stored as it is.
    fn is_plain(&self) -> bool {
        self.key.is_none() && !self.compress
    }

    /// Appends a block. `at` is where in `file` it will stand, which makes its nonce and is part of its checksum.
    fn put(&self, out: &mut Vec<u8>, file: FileId, at: u64, raw: &[u8], lead: Lead) {
        let mut body = std::borrow::Cow::Borrowed(raw);
        let mut flag = 0;
        if self.compress
            && let Ok(c) = snap::raw::Encoder::new().compress_vec(raw)
            && c.len() < raw.len() - raw.len() / 8
        {
            (body, flag) = (c.into(), COMPRESSED);
        }
        let stored = body.len() + if self.key.is_some() { crate::crypt::TAG } else { 0 };
        let header = block_header(stored as u32 | flag, raw.len() as u32, lead);
        let sealed = self.key.map(|k| k.seal(block_nonce(at, 0), &header, &body));
        let stored = sealed.as_deref().unwrap_or(&body);
        let crc = block_crc(file, at, &header, stored);
        out.extend_from_slice(&header);
        out.u32(crc);
        out.extend_from_slice(stored);
    }

    /// Reads the block that `b` begins with; `None` if nothing in it can be read. A wrong checksum leaves the records that
    /// are right by their own, but says that some may not be.
    fn get(key: Option<&FileKey>, file: FileId, at: u64, b: &Bytes) -> Option<Block> {
        let h = b.get(..BLOCK_HEADER)?;
        let stored = (u32_at(h, 0) & !COMPRESSED) as usize;
        let raw_len = u32_at(h, 4) as usize;
        let lead = Lead { records: u32_at(h, 8), rest: u32_at(h, 12) };
        if raw_len > BLOCK_MAX || b.len() - BLOCK_HEADER < stored {
            return None;
        }
        let mut body = b.slice(BLOCK_HEADER..BLOCK_HEADER + stored);
        let before = block_crc(file, at, &h[..BLOCK_HEADER - 4], b"");
        let with = checksum::append(before, &body);
        let sure = with == u32_at(h, BLOCK_HEADER - 4);
        let plain = key.is_none() && u32_at(h, 0) & COMPRESSED == 0;
        let summed = (sure && plain).then_some(Summed { before, with });
        if let Some(k) = key {
            body = k.open(block_nonce(at, 0), &h[..BLOCK_HEADER - 4], &body)?;
        }
        if u32_at(h, 0) & COMPRESSED != 0 {
            if snap::raw::decompress_len(&body).ok()? != raw_len {
                return None;
            }
            body = snap::raw::Decoder::new().decompress_vec(&body).ok()?.into();
        }
        (body.len() == raw_len).then(|| Block {
            raw: body,
            lead,
            sure,
            summed,
            table: Arc::default(),
            lent: false,
        })
    }
}

/// A block's header without its checksum.
fn block_header(stored: u32, raw: u32, lead: Lead) -> [u8; BLOCK_HEADER - 4] {
    let mut h = [0; BLOCK_HEADER - 4];
    for (at, v) in [(0, stored), (4, raw), (8, lead.records), (12, lead.rest)] {
        h[at..at + 4].copy_from_slice(&v.to_le_bytes());
    }
    h
}

/// Covers where the block belongs too, so that another block read or written in its place is seen (S-11).
fn block_crc(file: FileId, at: u64, header: &[u8], stored: &[u8]) -> u32 {
    let c = checksum::crc32c(&file.0.to_le_bytes());
    let c = checksum::append(c, &at.to_le_bytes());
    checksum::append(checksum::append(c, header), stored)
}

fn block_nonce(at: u64, what: u32) -> [u8; 12] {
    let mut n = [0; 12];
    n[..8].copy_from_slice(&at.to_le_bytes());
    n[8..].copy_from_slice(&what.to_le_bytes());
    n
}

/// What of an entry begun in the block before stands at a block's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Lead {
    /// Bytes of message records.
    records: u32,
    /// Bytes of the layer above after them.
    rest: u32,
}

/// An entry as state and no longer log: those of its messages that `keep` says, or `None` if that is none.
pub(crate) fn live_part(e: &Entry, mut keep: impl FnMut(StreamSeq) -> bool) -> Option<Entry> {
    let mut payload = BytesMut::new();
    let (mut first, mut count, mut all) = (StreamSeq(0), 0u32, true);
    for r in e.records().flatten() {
        let Some(seq) = record_seq(r) else { continue };
        if !keep(seq) {
            all = false;
            continue;
        }
        if count == 0 {
            payload.extend_from_slice(&[0; PREAMBLE]);
            first = seq;
        }
        payload.extend_from_slice(r);
        count += 1;
    }
    if count == 0 {
        return None;
    }
    if all && e.rest().is_empty() {
        return Some(e.clone());
    }
    let len = (payload.len() - PREAMBLE) as u32;
    payload[0..4].copy_from_slice(&count.to_le_bytes());
    payload[4..8].copy_from_slice(&len.to_le_bytes());
    let payload = payload.freeze();
    let head = Head {
        compacted: true,
        first,
        count,
        length: payload.len() as u32,
        digest: checksum::crc32c(&payload),
        ..e.head
    };
    Some(Entry { head, payload })
}

/// Subjects, numbered in the order in which they came.
#[derive(Default)]
struct Names {
    text: Vec<u8>,
    /// Where each ends in `text`.
    ends: Vec<usize>,
    table: HashTable<u32>,
    last: u32,
}

impl Names {
    fn name(&self, i: u32) -> &[u8] {
        name_at(&self.text, &self.ends, i)
    }
    /// The number of a subject, given if it has none.
    fn number(&mut self, subject: &[u8]) -> u32 {
        // Neighbours are often of one subject.
        if !self.ends.is_empty() && self.name(self.last) == subject {
            return self.last;
        }
        let found = self.table.find(keyed::hash(subject), |i| self.name(*i) == subject).copied();
        self.last = found.unwrap_or_else(|| {
            let i = u32::try_from(self.ends.len()).expect("a piece has fewer than 2^32 messages");
            self.text.extend_from_slice(subject);
            self.ends.push(self.text.len());
            let (text, ends) = (&self.text, &self.ends);
            self.table.insert_unique(keyed::hash(subject), i, |i| keyed::hash(name_at(text, ends, *i)));
            i
        });
        self.last
    }
}

fn name_at<'a>(text: &'a [u8], ends: &[usize], i: u32) -> &'a [u8] {
    let i = i as usize;
    &text[if i == 0 { 0 } else { ends[i - 1] }..ends[i]]
}

/// The first bytes as a number that sorts as they do; what is not there counts as zeros.
fn key_of(b: &[u8]) -> u128 {
    let mut k = [0; 16];
    let n = b.len().min(16);
    k[..n].copy_from_slice(&b[..n]);
    u128::from_be_bytes(k)
}

/// Numbers the subjects in their sorted order.
fn sorted(names: Names, mut slots: Vec<Slot>) -> SubjectFoot {
    let mut f = SubjectFoot::default();
    let all = 0..names.ends.len() as u32;
    // What follows the common beginning decides as a rule, and stands here side by side; comparing texts all over memory costs ten times as much.
    let common = all.clone().fold(None, |common: Option<&[u8]>, i| {
        let name = names.name(i);
        let common = common.unwrap_or(name);
        Some(&common[..common.iter().zip(name).take_while(|(a, b)| a == b).count()])
    });
    let common = common.map_or(0, <[u8]>::len);
    let mut order: Vec<(u128, u32)> = all.map(|i| (key_of(&names.name(i)[common..]), i)).collect();
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| names.name(a.1).cmp(names.name(b.1))));
    let mut renamed = vec![0; order.len()];
    f.text.reserve_exact(names.text.len());
    f.ends.reserve_exact(order.len());
    for (new, (_, old)) in order.into_iter().enumerate() {
        renamed[old as usize] = new as u32;
        f.text.extend_from_slice(names.name(old));
        f.ends.push(f.text.len() as u32);
    }
    slots.iter_mut().for_each(|s| s.subject = renamed[s.subject as usize]);
    f.slots = slots;
    f.index();
    f
}

fn open_foot(key: Option<&FileKey>, at: u64, b: &[u8]) -> Option<Bytes> {
    let (crc, stored) = b.split_at_checked(4)?;
    if checksum::crc32c(stored) != u32_at(crc, 0) {
        return None;
    }
    match key {
        Some(k) => k.open(block_nonce(at, 1), &[], stored),
        None => Some(Bytes::copy_from_slice(stored)),
    }
}

/// Reads an index footer's bytes; `None` if they are damaged or another piece's.
pub(crate) fn read_index_foot(meta: &PieceMeta, key: Option<&FileKey>, b: &[u8]) -> Option<IndexFoot> {
    let at = meta.off + u64::from(meta.data);
    let (m, f) = IndexFoot::decode(&open_foot(key, at, b)?)?;
    // The footer cannot know its own length or its neighbour's.
    (PieceMeta { index_foot: meta.index_foot, subject_foot: meta.subject_foot, ..m } == *meta).then_some(f)
}

/// Reads a subject footer's bytes; `None` if they are damaged or cannot be this piece's.
pub(crate) fn read_subject_foot(meta: &PieceMeta, key: Option<&FileKey>, b: &[u8]) -> Option<SubjectFoot> {
    let at = meta.off + u64::from(meta.data) + u64::from(meta.index_foot);
    let f = SubjectFoot::decode(&open_foot(key, at, b)?)?;
    let last = f.slots.last().map_or(0, |s| u64::from(s.seq));
    (f.slots.len() == meta.msgs as usize && meta.first_seq.0 + last == meta.last_seq.0).then_some(f)
}

/// A block read back: its raw bytes and what it begins with.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub raw: Bytes,
    lead: Lead,
    /// The block's own checksum was right: it is this one and all of it.
    pub sure: bool,
    /// What was checked when it was read, if it is stored as it is and was whole.
    summed: Option<Summed>,
    /// Where its records stand, by sequence; made when first asked for.
    table: Arc<OnceLock<Table>>,
    /// Its bytes are part of more that was read with it, which lives as long as they do.
    pub lent: bool,
}

/// Where the records of a block stand.
#[derive(Debug)]
struct Table {
    /// The first one's sequence.
    first: StreamSeq,
    places: Box<[u32]>,
}

/// What stands in a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// The first part of an entry of messages: its header, and its preamble's count and length.
    Head(Head),
    /// A message record's bytes, to be decoded by the group that they are of.
    Record(Bytes),
    /// The payload of an entry that holds no messages, or what follows the messages.
    Rest(Bytes),
    /// From here on the block makes no sense.
    Bad,
}

impl Block {
    /// Reads the block at `at` in its file.
    pub(crate) fn read(key: Option<&FileKey>, file: FileId, at: u64, b: &Bytes) -> Option<Block> {
        BlockCodec::get(key, file, at, b)
    }

    /// All parts, in order.
    pub(crate) fn parts(&self) -> Parts<'_> {
        let mode = if self.lead.records > 0 {
            Mode::Records(self.lead.records as usize, self.lead.rest as usize)
        } else {
            Mode::Entry
        };
        Parts { raw: &self.raw, at: 0, mode }
    }

    fn table(&self) -> &Table {
        self.table.get_or_init(|| {
            let start = self.raw.as_ptr().addr();
            let first = self.records().next().and_then(record_seq).unwrap_or_default();
            Table { first, places: self.records().map(|r| (r.as_ptr().addr() - start) as u32).collect() }
        })
    }
    /// Where the record of a message begins if the block has no gaps.
    pub(crate) fn guess(&self, seq: StreamSeq) -> Option<usize> {
        let table = self.table();
        let i = usize::try_from(seq.0.wrapping_sub(table.first.0)).ok()?;
        table.places.get(i).map(|at| *at as usize)
    }

    /// The record of a message, checked, if the block's structure leads to it.
    pub(crate) fn whole(&self, group: GroupId, seq: StreamSeq) -> Option<Bytes> {
        self.whole_at(group, seq).map(|r| self.raw.slice(r))
    }
    /// Where it stands.
    pub(crate) fn whole_at(&self, group: GroupId, seq: StreamSeq) -> Option<Range<usize>> {
        self.place_of(seq).filter(|r| match &self.summed {
            Some(s) => s.vouches(group, &self.raw, r),
            None => Message::decode(group, &self.raw[r.clone()]).is_some(),
        })
    }
    /// The same unchecked.
    fn place_of(&self, seq: StreamSeq) -> Option<Range<usize>> {
        let Table { first, places: table } = self.table();
        let seq_at = |at: u32| record_seq(&self.raw[at as usize..]);
        // Without gaps it stands as far behind the first as its number says, and no other record has to be looked at.
        let guess = usize::try_from(seq.0.wrapping_sub(first.0)).unwrap_or(usize::MAX);
        let there = table.get(guess).is_some_and(|at| seq_at(*at) == Some(seq));
        let i = if there { guess } else { table.partition_point(|at| seq_at(*at) < Some(seq)) };
        if let Some(at) = table.get(i).map(|at| *at as usize)
            && seq_at(at as u32) == Some(seq)
        {
            // The table holds what the walk found to fit.
            let len = record_len(&self.raw[at..])?;
            return (len <= self.raw.len() - at).then(|| at..at + len);
        }
        // In a block with a wrong checksum sequences need not rise.
        if self.sure {
            return None;
        }
        let r = self.records().find(|r| record_seq(r) == Some(seq))?;
        let at = r.as_ptr().addr() - self.raw.as_ptr().addr();
        Some(at..at + r.len())
    }

    /// Its bytes are where they were read, with others: not if they were opened or unpacked from there.
    pub(crate) fn lend(&mut self) {
        self.lent = self.summed.is_some();
    }
    /// Holds on to nothing but its own bytes from now on.
    pub(crate) fn stand_alone(&mut self) {
        if std::mem::take(&mut self.lent) {
            self.raw = Bytes::copy_from_slice(&self.raw);
        }
    }

    /// Bytes of memory.
    pub(crate) fn weight(&self) -> usize {
        // A table is rarely more than a sixteenth of what it describes.
        self.raw.len() + self.raw.len() / 16 + 128
    }

    /// All message records, unchecked, as far as the block's structure leads.
    pub(crate) fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut parts = self.parts();
        std::iter::from_fn(move || {
            loop {
                match parts.step()? {
                    Step::Record(r) => return Some(&self.raw[r]),
                    Step::Head(_) | Step::Rest(_) => {}
                    Step::Bad => return None,
                }
            }
        })
    }
}

/// A [`Part`] by where it stands.
enum Step {
    Head(Head),
    Record(Range<usize>),
    Rest(Range<usize>),
    Bad,
}

enum Mode {
    Entry,
    /// Bytes of records left, then bytes of rest.
    Records(usize, usize),
    Rest(usize),
    Done,
}

/// Walks a block.
pub(crate) struct Parts<'a> {
    raw: &'a Bytes,
    at: usize,
    mode: Mode,
}

impl Iterator for Parts<'_> {
    type Item = Part;
    fn next(&mut self) -> Option<Part> {
        Some(match self.step()? {
            Step::Head(h) => Part::Head(h),
            Step::Record(r) => Part::Record(self.raw.slice(r)),
            Step::Rest(r) => Part::Rest(self.raw.slice(r)),
            Step::Bad => Part::Bad,
        })
    }
}

impl Parts<'_> {
    fn step(&mut self) -> Option<Step> {
        loop {
            let left = &self.raw[self.at..];
            match self.mode {
                Mode::Done => return None,
                _ if left.is_empty() => return None,
                Mode::Entry => {
                    if left.len() < 4 || u32_at(left, 0) != ENTRY_MAGIC {
                        return self.bad();
                    }
                    let Some(h) = Head::decode(left) else { return self.bad() };
                    self.at += ENTRY_HEADER;
                    if h.kind != Kind::Messages {
                        self.mode = Mode::Rest(h.length as usize);
                        return Some(Step::Head(h));
                    }
                    let Some(p) = self.raw.get(self.at..self.at + PREAMBLE) else { return self.bad() };
                    let records = u32_at(p, 4) as usize;
                    let Some(rest) = (h.length as usize).checked_sub(PREAMBLE + records) else {
                        return self.bad();
                    };
                    self.at += PREAMBLE;
                    self.mode = Mode::Records(records, rest);
                    return Some(Step::Head(h));
                }
                Mode::Records(0, rest) => self.mode = Mode::Rest(rest),
                Mode::Records(n, rest) => {
                    let Some(len) = record_len(left).filter(|l| *l <= n && *l <= left.len()) else {
                        return self.bad();
                    };
                    let r = self.at..self.at + len;
                    self.at += len;
                    self.mode = Mode::Records(n - len, rest);
                    return Some(Step::Record(r));
                }
                Mode::Rest(0) => self.mode = Mode::Entry,
                Mode::Rest(n) => {
                    if left.len() < n {
                        return self.bad();
                    }
                    let r = self.at..self.at + n;
                    self.at += n;
                    self.mode = Mode::Entry;
                    return Some(Step::Rest(r));
                }
            }
        }
    }

    fn bad(&mut self) -> Option<Step> {
        self.mode = Mode::Done;
        Some(Step::Bad)
    }
}

/// Puts entries together again from blocks in order, each whole and checked.
#[derive(Default)]
pub(crate) struct Joiner {
    open: Option<(Head, BytesMut)>,
}

impl Joiner {
    /// Takes a block's parts; calls `out` with each entry that is whole, or with the header of one whose payload is bad.
    /// True if the block made sense to its end.
    pub(crate) fn push(
        &mut self,
        block: &Block,
        mut out: impl FnMut(std::result::Result<Entry, Head>),
    ) -> bool {
        for p in block.parts() {
            match p {
                Part::Head(h) => {
                    if let Some((h, _)) = self.open.take() {
                        out(Err(h));
                    }
                    self.open = Some((h, BytesMut::with_capacity(h.length as usize)));
                    if let (Kind::Messages, Some((_, b))) = (h.kind, &mut self.open) {
                        b.extend_from_slice(&[0; PREAMBLE]);
                    }
                }
                Part::Record(r) | Part::Rest(r) => {
                    if let Some((_, b)) = &mut self.open {
                        b.extend_from_slice(&r);
                    }
                }
                Part::Bad => {
                    if let Some((h, _)) = self.open.take() {
                        out(Err(h));
                    }
                    return false;
                }
            }
            if self.open.as_ref().is_some_and(|(h, b)| b.len() >= h.length as usize) {
                let (h, mut b) = self.open.take().expect("just seen");
                if h.kind == Kind::Messages {
                    preamble(&mut b, h.count);
                }
                out(Entry::with_payload(h, b.freeze()).ok_or(h));
            }
        }
        true
    }

    /// An entry that was begun and not ended: its header.
    pub(crate) fn cut(&mut self) -> Option<Head> {
        self.open.take().map(|(h, _)| h)
    }
}

/// The one entry that the blocks at `at` of a file that is not sealed hold; `None` if they hold anything else, or are not whole.
pub(crate) fn entry_of(file: FileId, at: u64, blocks: &Bytes) -> Option<Entry> {
    let (mut joiner, mut off, mut all) = (Joiner::default(), 0, Vec::new());
    while off < blocks.len() {
        let block = Block::read(None, file, at + off as u64, &blocks.slice(off..)).filter(|b| b.sure)?;
        if !joiner.push(&block, |e| all.push(e.ok())) {
            return None;
        }
        off += BLOCK_HEADER + (u32_at(blocks, off) & !COMPRESSED) as usize;
    }
    match (joiner.cut(), all.len()) {
        (None, 1) => all.pop().flatten(),
        _ => None,
    }
}

/// Fills in a preamble from the records that follow it.
fn preamble(b: &mut BytesMut, count: u32) {
    let (mut at, mut left) = (PREAMBLE, count);
    while left > 0 {
        let Some(n) = b.get(at..).and_then(record_len) else { break };
        at = (at + n).min(b.len());
        left -= 1;
    }
    b[0..4].copy_from_slice(&count.to_le_bytes());
    b[4..8].copy_from_slice(&((at - PREAMBLE) as u32).to_le_bytes());
}

/// Rebuilds a subject footer from a piece's records (S-40): all of it if they all are there.
pub(crate) fn rebuild<'a>(
    meta: &PieceMeta,
    counting: Counting,
    records: impl Iterator<Item = &'a Bytes>,
) -> SubjectFoot {
    let (mut names, mut slots) = (Names::default(), Vec::new());
    for r in records {
        let Some(m) = Message::decode(meta.group, r).filter(|m| meta.holds(m.seq)) else { continue };
        let subject = names.number(m.subject);
        let seq = (m.seq.0 - meta.first_seq.0) as u32;
        slots.push(Slot { seq, subject, size: counting.of(&m) });
    }
    sorted(names, slots)
}

impl SubjectFoot {
    /// The same with a place for every sequence of a piece without gaps: a subject of no bytes for those whose own is lost, and of the bytes that the piece
    /// counts for (S-50) what the others leave, so that nothing of it stays counted when all of them are gone.
    pub(crate) fn filled(self, meta: &PieceMeta) -> SubjectFoot {
        let missing = (meta.msgs as usize).saturating_sub(self.slots.len());
        if missing == 0 {
            return self;
        }
        // No subject stands twice, so that each keeps its number.
        let mut names = Names::default();
        for i in 0..self.subjects() as u32 {
            names.number(self.subject(i));
        }
        let nameless = names.number(b"");
        let left = meta.bytes.saturating_sub(self.slots.iter().map(|s| u64::from(s.size)).sum());
        let (each, mut odd) = (left / missing as u64, left % missing as u64);
        let mut guess = |seq| {
            let size = each + u64::from(odd > 0);
            odd = odd.saturating_sub(1);
            Slot { seq, subject: nameless, size: u32::try_from(size).unwrap_or(u32::MAX) }
        };
        let mut known = self.slots.into_iter().peekable();
        let slots = (0..meta.msgs).map(|seq| known.next_if(|s| s.seq == seq).unwrap_or_else(|| guess(seq)));
        sorted(names, slots.collect())
    }
}

/// Rebuilds a sparse index from the bytes of a piece's blocks, which may end early (S-40). What lies between blocks that are whole
/// counts as one. `None` if none is whole.
pub(crate) fn rebuild_index(meta: &PieceMeta, key: Option<&FileKey>, b: &Bytes) -> Option<IndexFoot> {
    let mut f = IndexFoot { filter: Filter(vec![0xff; 8]), ..IndexFoot::default() };
    let (mut at, mut gap, mut any) = (0, None, false);
    let (mut seq, mut index) = (meta.first_seq, meta.first_index);
    // Lines behind a gap, whose entry has begun in it: of that is known only that it comes before the next one.
    let mut unsure = None;
    let rel = |index: LogIndex| index.0.saturating_sub(meta.first_index.0) as u32;
    let line = |off: usize, seq: StreamSeq, index: LogIndex| BlockLine {
        off: off as u32,
        seq: seq.0.saturating_sub(meta.first_seq.0) as u32,
        index: rel(index),
    };
    let begin_by = |unsure: &mut Option<usize>, blocks: &mut [BlockLine], index| {
        let lines = unsure.take().map_or(&mut [][..], |from| &mut blocks[from..]);
        lines.iter_mut().for_each(|l| l.index = rel(index));
    };
    while at + BLOCK_HEADER <= b.len() {
        let block = BlockCodec::get(key, meta.file, meta.off + at as u64, &b.slice(at..)).filter(|b| b.sure);
        let Some(block) = block else {
            gap.get_or_insert(at);
            at += 1;
            continue;
        };
        any = true;
        if let Some(off) = gap.take() {
            f.blocks.push(line(off, seq, index));
            unsure.get_or_insert(f.blocks.len());
        }
        let (mut first, mut begins) = (None, (block.lead.records == 0).then_some(None));
        for p in block.parts() {
            match p {
                Part::Head(h) => {
                    if f.terms.last().is_none_or(|t| t.1 < h.term) {
                        f.terms.push((rel(h.index), h.term));
                    }
                    begins = Some(begins.flatten().or(Some(h.index)));
                    index = h.index;
                    begin_by(&mut unsure, &mut f.blocks, index);
                }
                Part::Record(r) => {
                    if let Some(m) = Message::decode(meta.group, &r) {
                        first = first.or(Some(m.seq));
                        seq = m.seq.next();
                        f.ttl.extend(m.expires.map(|at| (at, m.seq)));
                    }
                    // Where it is not known, the next head tells it.
                    begins = begins.or(Some(unsure.is_none().then_some(index)));
                }
                Part::Rest(_) | Part::Bad => {}
            }
        }
        f.blocks.push(line(at, first.unwrap_or(seq), begins.flatten().unwrap_or(index)));
        at += BLOCK_HEADER + (u32_at(b, at) & !COMPRESSED) as usize;
    }
    if let Some(off) = gap.filter(|off| *off < meta.data as usize) {
        f.blocks.push(line(off, seq, index));
    }
    begin_by(&mut unsure, &mut f.blocks, meta.last_index);
    f.ttl.sort_unstable();
    any.then_some(f)
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
