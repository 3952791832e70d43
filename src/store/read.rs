//! Reading segment files: footers, blocks, entries, messages, each checked at every read.
//!
//! Owns the three outcomes of a read: absent (the group's state says so, no disk involved), valid, damaged. A read that
//! finds damage is tried once more past every cache, since a flip on the way from the disk is not damage at rest.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use env::disk::OpenOptions;

use crate::{
    cache::{LARGE, Open},
    feet::{Need, What},
    group::Piece,
    mend::intact,
    record::{Entry, Head, Message, record_seq},
    segment::{
        Block, FILE_HEADER, FileHead, IndexFoot, Joiner, PieceMeta, SubjectFoot, read_index_foot,
        read_subject_foot, rebuild, rebuild_index,
    },
    shard::{Shard, segment_path},
    store::{Read, Stored},
    types::{Damage, Error, FileId, LogIndex, Result, StreamSeq},
};

/// What was read for a question.
pub(crate) enum Fetched {
    Index(Arc<Piece>, Arc<IndexFoot>),
    Subjects(Arc<Piece>, Arc<SubjectFoot>),
    Record(Arc<Piece>, StreamSeq, Read),
    Time(Arc<Piece>, i64, Option<StreamSeq>),
}

/// Bytes that are read at once by somebody who goes through a piece in order: of small messages, and of those that fill a block each.
const READ_AHEAD: u32 = 256 << 10;
const READ_AHEAD_LARGE: u32 = 1 << 20;
/// A part of small messages is at most this part of the cache of blocks.
const PASSING_PARTS: usize = 32;
/// Parts of a piece that are being read ahead of who goes through it in order.
const PARTS_AHEAD: usize = 2;
/// Bytes before the end of a piece of large messages at which who goes through it in order has the next piece opened: its file, its header and both footers are read
/// one after another, through the page cache, and take as long as some mebibytes of messages.
const NEXT_PIECE: u32 = 4 << 20;
/// How often a read that finds damage is tried.
pub(crate) const TRIES: usize = 3;

/// Whether a block is of large messages.
fn is_large(meta: &PieceMeta, f: &IndexFoot, i: usize) -> bool {
    (end_of_block(meta, f, i) - f.blocks[i].off) as usize >= LARGE
}

fn end_of_block(meta: &PieceMeta, f: &IndexFoot, i: usize) -> u32 {
    f.blocks.get(i + 1).map_or(meta.data, |b| b.off)
}

/// The bytes of block `k` in what was read from block `i` on; fewer if that was cut short.
fn raw_of(meta: &PieceMeta, f: &IndexFoot, i: usize, k: usize, read: &Bytes) -> Bytes {
    let at = |off: u32| (off.saturating_sub(f.blocks[i].off) as usize).min(read.len());
    let (from, to) = (at(f.blocks[k].off), at(end_of_block(meta, f, k)));
    read.slice(from.min(to)..to)
}

/// The last block that is read at once with block `i` by who goes through the piece in order, where a part has at most `ahead` bytes.
fn last_of_part(meta: &PieceMeta, f: &IndexFoot, i: usize, ahead: u32) -> usize {
    let start = f.blocks[i].off;
    let fits = |k: &usize| *k < f.blocks.len() && end_of_block(meta, f, *k) - start <= ahead;
    (i..).take_while(fits).last().unwrap_or(i)
}

/// The blocks around block `i` that are read with it by who asks for one here and one there, the last one too; at most `ahead` bytes.
fn part_around(meta: &PieceMeta, f: &IndexFoot, i: usize, ahead: u32) -> (usize, usize) {
    let mut first = i;
    while first > 0 && end_of_block(meta, f, i) - f.blocks[first - 1].off <= ahead / 2 {
        first -= 1;
    }
    (first, last_of_part(meta, f, first, ahead).max(i))
}

impl Shard {
    /// Bytes of a part. Several parts of small messages have to find room in the cache beside each other.
    fn ahead(&self, large: bool) -> u32 {
        let share = u32::try_from(self.opts.block_cache / PASSING_PARTS).unwrap_or(u32::MAX);
        if large { READ_AHEAD_LARGE } else { READ_AHEAD.min(share) }
    }

    fn damaged(meta: &PieceMeta, what: &str) -> Error {
        Error::Damaged(Damage {
            group: Some(meta.group),
            entries: Some((meta.first_index, meta.last_index)),
            messages: (meta.msgs > 0).then_some((meta.first_seq, meta.last_seq)),
            what: format!("segment {} at {}: {what}", meta.file.0, meta.off),
        })
    }

    async fn segment(&self, id: FileId) -> Result<Arc<Open>> {
        if let Some(f) = self.cache.file(id) {
            return Ok(f);
        }
        let file = self.disk.open(&segment_path(&self.dir, id), OpenOptions::READ).await?;
        let mut absent = None;
        for _ in 0..TRIES {
            let head = FileHead::decode(&file.scan_at(0, FILE_HEADER).await?);
            let Some(h) = head.filter(|h| h.id == id && h.shard == self.id) else { continue };
            let key = match self.opts.keys.of_file(h.key, &h.salt) {
                Ok(key) => key,
                // The id may have been given before, to a file that no manifest came to name, and this be a stale reading of it.
                Err(e) => {
                    absent = Some(e);
                    continue;
                }
            };
            let open = Arc::new(Open { file, key });
            self.cache.put_file(id, open.clone());
            return Ok(open);
        }
        if let Some(e) = absent {
            return Err(Error::Format(format!("segment {} is {e}", id.0)));
        }
        // Without keys a damaged header takes nothing with it: every block and footer has its own checks.
        if self.opts.keys.0.is_empty() {
            let open = Arc::new(Open { file, key: None });
            self.cache.put_file(id, open.clone());
            return Ok(open);
        }
        let what = format!("segment {}: its header is damaged", id.0);
        Err(Error::Damaged(Damage { group: None, entries: None, messages: None, what }))
    }

    /// A piece's file. One that is not there is damage; or the piece was rewritten while it was read.
    async fn file_of(&self, meta: &PieceMeta) -> Result<Arc<Open>> {
        match self.segment(meta.file).await {
            Err(Error::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Self::damaged(meta, "the file is missing"))
            }
            found => found,
        }
    }

    /// Bytes of a piece, and the file that they are from.
    async fn bytes(&self, meta: &PieceMeta, off: u64, len: usize) -> Result<(Bytes, Arc<Open>)> {
        let open = self.file_of(meta).await?;
        Ok((open.file.scan_at(off, len).await?, open))
    }

    /// A piece's sparse index.
    pub(crate) async fn index_foot(&self, meta: &PieceMeta) -> Result<Arc<IndexFoot>> {
        let at = (meta.file, meta.off);
        if let Some(f) = self.cache.get_index(at) {
            return Ok(f);
        }
        let f = Arc::new(self.fresh_index_foot(meta).await?);
        self.cache.put_index(at, f.clone());
        Ok(f)
    }

    /// The footer as it stands in the file; `None` if it is damaged.
    pub(crate) async fn stored_index_foot(&self, meta: &PieceMeta) -> Result<Option<IndexFoot>> {
        for _ in 0..TRIES {
            let (b, open) =
                self.bytes(meta, meta.off + u64::from(meta.data), meta.index_foot as usize).await?;
            let f = read_index_foot(meta, open.key.as_ref(), &b);
            if f.is_some() {
                return Ok(f);
            }
        }
        Ok(None)
    }

    /// The same past the cache.
    pub(crate) async fn fresh_index_foot(&self, meta: &PieceMeta) -> Result<IndexFoot> {
        if let Some(f) = self.stored_index_foot(meta).await? {
            return Ok(f);
        }
        // S-40: the blocks tell where they are, as far as they can be read. One that was cut off with its file cannot.
        for _ in 0..TRIES {
            let (b, open) = self.bytes(meta, meta.off, meta.data as usize).await?;
            if let Some(f) = rebuild_index(meta, open.key.as_ref(), &b) {
                return Ok(f);
            }
        }
        Err(Self::damaged(meta, "its index is damaged"))
    }

    /// A piece's subjects.
    pub(crate) async fn subject_foot(&self, meta: &PieceMeta) -> Result<Arc<SubjectFoot>> {
        let at = (meta.file, meta.off);
        if let Some(f) = self.cache.get_subjects(at) {
            return Ok(f);
        }
        let (f, whole) = self.patched_subject_foot(meta, &[]).await?;
        let f = Arc::new(f);
        // What is missing of others may be filled at any moment: who knows of that keeps them.
        if whole {
            self.cache.put_subjects(at, f.clone());
        }
        Ok(f)
    }

    /// The same past the cache.
    pub(crate) async fn fresh_subject_foot(&self, meta: &PieceMeta) -> Result<SubjectFoot> {
        Ok(self.patched_subject_foot(meta, &[]).await?.0)
    }

    /// A piece's subjects as they are stored; rebuilt from its blocks, and from the entries that were filled since, if the footer is damaged (S-40). And whether
    /// all of them are known.
    pub(crate) async fn patched_subject_foot(
        &self,
        meta: &PieceMeta,
        patched: &[Entry],
    ) -> Result<(SubjectFoot, bool)> {
        let off = meta.off + u64::from(meta.data) + u64::from(meta.index_foot);
        for _ in 0..TRIES {
            let (b, open) = self.bytes(meta, off, meta.subject_foot as usize).await?;
            if let Some(f) = read_subject_foot(meta, open.key.as_ref(), &b) {
                return Ok((f, true));
            }
        }
        let what = "its subjects are damaged, and so are messages that would tell them";
        let (_, _, records) = self.read_rest(meta).await?;
        let mut records: BTreeMap<StreamSeq, Bytes> = records.into_iter().collect();
        for e in patched {
            let of_entry = e.records().flatten();
            records.extend(of_entry.filter_map(|r| Some((record_seq(r)?, e.payload.slice_ref(r)))));
        }
        let f = rebuild(meta, self.opts.counting, records.values());
        if f.slots.len() < meta.msgs as usize && self.is_current(meta) {
            self.note_damage(
                Some(meta.group),
                None,
                Some((meta.first_seq, meta.last_seq)),
                format!("segment {} at {}: {what}", meta.file.0, meta.off),
            );
        }
        // Sequences of a piece without gaps are known, though not their subjects.
        let whole = f.slots.len() == meta.msgs as usize;
        if whole || meta.dense() {
            return Ok((f.filled(meta), whole));
        }
        Err(Self::damaged(meta, what))
    }

    /// S-40: whether a piece's footers, as they are kept and as they are stored, say what its blocks say. Reads all of the piece.
    #[cfg(any(test, feature = "l1"))]
    pub(crate) async fn feet_are_right(&self, meta: &PieceMeta) -> Result<bool> {
        let (b, open) = self.bytes(meta, meta.off, meta.data as usize).await?;
        let again = rebuild_index(meta, open.key.as_ref(), &b).unwrap_or_default();
        let (_, _, records) = self.read_rest(meta).await?;
        let subjects = rebuild(meta, self.opts.counting, records.iter().map(|(_, r)| r));
        let index = self.stored_index_foot(meta).await?.unwrap_or_default();
        // What compaction left of entries without messages is not in the blocks.
        let terms = meta.compacted || index.terms == again.terms;
        // One that is kept may have been rebuilt, when the stored one could not be read.
        let kept = self.index_foot(meta).await?;
        // Where a block begins with entries that lost their messages, either sequence before its first message will do.
        let all: Vec<StreamSeq> =
            subjects.slots.iter().map(|s| StreamSeq(meta.first_seq.0 + u64::from(s.seq))).collect();
        let same = |f: &IndexFoot| {
            let offs = |f: &IndexFoot| f.blocks.iter().map(|b| (b.off, b.index)).collect::<Vec<_>>();
            let found = |f: &IndexFoot| all.iter().map(|s| f.block_of(meta, *s)).collect::<Vec<_>>();
            offs(f) == offs(&again) && found(f) == found(&again) && f.ttl == again.ttl
        };
        let of_subjects = *self.subject_foot(meta).await? == subjects;
        Ok(same(&index)
            && same(&kept)
            && terms
            && of_subjects
            && self.fresh_subject_foot(meta).await? == subjects)
    }

    /// Reads what a question lacks; the answer is for [`crate::feet::Pins`]. `patched` are entries of its piece that were filled since that was written.
    pub(crate) async fn need(&self, n: &Need, patched: &[Entry]) -> Result<Fetched> {
        Ok(match &n.0 {
            What::Index(p) => Fetched::Index(p.clone(), self.index_foot(&p.meta).await?),
            What::Subjects(p) => {
                let (f, _) = self.patched_subject_foot(&p.meta, patched).await?;
                Fetched::Subjects(p.clone(), Arc::new(f))
            }
            What::Record(p, seq) => Fetched::Record(p.clone(), *seq, self.read(p, *seq).await?),
            What::Time(p, time) => Fetched::Time(p.clone(), *time, self.at_time(&p.meta, *time).await?),
            What::Refused(s) => return Err(Error::Invalid(s.clone())),
        })
    }

    /// A message of a piece, in the three outcomes.
    async fn read(&self, p: &Piece, seq: StreamSeq) -> Result<Read> {
        match self.message(&p.meta, seq).await {
            Ok(r) => Ok(Read::Valid(Stored::new(p.meta.group, r))),
            Err(Error::Damaged(d)) => {
                // A piece with gaps says by its footer whether this is one.
                let mut is_there = p.meta.dense();
                if !is_there && let Ok(f) = self.subject_foot(&p.meta).await {
                    if f.slot_of(p.rel(seq)).is_none() {
                        return Ok(Read::Absent);
                    }
                    is_there = true;
                }
                // Rewritten while it was read: then it is found in another piece.
                if !self.is_current(&p.meta) {
                    return Err(Error::Damaged(d));
                }
                self.note_damage(d.group, None, d.messages, d.what.clone());
                // Of what may have been deleted here others may not have heard.
                let healed = if is_there { self.heal(p.meta.group, seq).await } else { None };
                Ok(healed.map_or(Read::Damaged(d), |r| Read::Valid(Stored::new(p.meta.group, r))))
            }
            Err(e) => Err(e),
        }
    }

    /// The first message of a piece that came at or after `time`. Blocks that cannot be read are passed over.
    async fn at_time(&self, meta: &PieceMeta, time: i64) -> Result<Option<StreamSeq>> {
        let f = self.index_foot(meta).await?;
        let in_block = |b: &Block| {
            let messages = b.records().filter_map(|r| Message::decode(meta.group, r));
            messages.map(|m| (m.time, m.seq)).collect::<Vec<_>>()
        };
        // The last block whose first message came before.
        let (mut lo, mut hi) = (0, f.blocks.len());
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            // Blocks of other entries, and bad ones, say nothing: the next one that does speaks for them.
            let (mut at, mut first) = (mid, None);
            while at < hi && first.is_none() {
                first = self.sure_block(meta, &f, at).await?.and_then(|b| in_block(&b).first().copied());
                at += 1;
            }
            if first.is_some_and(|(t, _)| t < time) { lo = at } else { hi = mid }
        }
        for i in lo.saturating_sub(1)..f.blocks.len() {
            let Some(b) = self.sure_block(meta, &f, i).await? else { continue };
            if let Some((_, seq)) = in_block(&b).into_iter().find(|(t, _)| *t >= time) {
                return Ok(Some(seq));
            }
        }
        Ok(None)
    }

    pub(crate) async fn block(
        &self,
        meta: &PieceMeta,
        f: &IndexFoot,
        i: usize,
        fresh: bool,
    ) -> Result<Option<Block>> {
        let (start, end) = (f.blocks[i].off, end_of_block(meta, f, i));
        let at = meta.off + u64::from(start);
        if !fresh && let Some(b) = self.cache.get_block((meta.file, at)) {
            return Ok(Some(b));
        }
        let (b, open) = self.bytes(meta, at, (end - start) as usize).await?;
        Ok(Block::read(open.key.as_ref(), meta.file, at, &b))
    }

    /// Whoever asks for a block after the one before it goes through the piece in order: the next ones are read with it,
    /// in one go. Who does not is given those around it, as long as there is memory that nobody uses. Damage is not looked for here: only what is whole is kept.
    async fn read_ahead(&self, meta: &PieceMeta, f: &IndexFoot, i: usize) -> Result<()> {
        let start = f.blocks[i].off;
        let place = |off: u32| (meta.file, meta.off + u64::from(off));
        if self.cache.holds_block(place(start)) {
            return Ok(());
        }
        let end_of = |k: usize| end_of_block(meta, f, k);
        let large = is_large(meta, f, i);
        let ahead = self.ahead(large);
        let last_from = |i: usize| last_of_part(meta, f, i, ahead);
        let last = last_from(i);
        let before = place(f.blocks[i.saturating_sub(1)].off);
        // Whoever begins a piece of large messages goes on as a rule.
        let begins = large && i == 0;
        let around = !large && self.cache.has_room(ahead as usize);
        let alone = if around { part_around(meta, f, i, ahead) } else { (i, i) };
        let follows = |known: bool| place(f.blocks[if known || begins { last } else { alone.1 }].off);
        let in_order = self.cache.follows(before, follows) || begins;
        let (i, last) = if in_order { (i, last) } else { alone };
        let start = f.blocks[i].off;
        // One that is alone is read by who asks for it, if it is not being read already.
        if last == i && !(in_order && self.cache.holds_ahead(place(start))) {
            return Ok(());
        }
        let open = match self.segment(meta.file).await {
            Ok(open) => open,
            // Whoever reads the block itself says so.
            Err(_) => return Ok(()),
        };
        let (here, len) = (place(start), (end_of(last) - start) as usize);
        let begun = match self.cache.take_ahead(here) {
            Some(soon) => soon.read().await,
            None => None,
        };
        let bytes = match begun {
            Some(Ok(b)) => b,
            _ => match open.file.stream_at(here.1, len).await {
                Ok(b) => b,
                // One bad sector takes no more than its own block.
                Err(_) => return Ok(()),
            },
        };
        // What comes after is read while this is being sent.
        let mut next = last + 1;
        for _ in 0..PARTS_AHEAD {
            if !in_order || next >= f.blocks.len() {
                break;
            }
            let (from, upto) = (f.blocks[next].off, last_from(next));
            let at = place(from);
            let len = (end_of(upto) - from) as usize;
            if !self.cache.holds_ahead(at)
                && let Some(soon) = open.file.stream_soon(at.1, len)
            {
                self.cache.put_ahead(at, len, soon);
            }
            next = upto + 1;
        }
        // Small blocks of a part come and go together as a rule, and stand where they were read; one that stays longer gets a copy of its own. Where the memory that
        // was read into is more than what stands there, each has a copy.
        let lends = !large && bytes.len() * 2 >= READ_AHEAD as usize;
        for k in i..=last {
            let (file, at) = place(f.blocks[k].off);
            if self.cache.holds_block((file, at)) {
                continue;
            }
            let mut raw = raw_of(meta, f, i, k, &bytes);
            let small = raw.len() < LARGE;
            if small && !lends {
                raw = Bytes::copy_from_slice(&raw);
            }
            let b = Block::read(open.key.as_ref(), file, at, &raw);
            if let Some(mut b) = b.filter(|b| b.sure) {
                if small && lends {
                    b.lend();
                }
                if in_order {
                    self.cache.put_passing((file, at), b);
                } else {
                    self.cache.put_block((file, at), b);
                }
            }
        }
        Ok(())
    }

    /// Whether who asks for this message goes through a piece of large ones in order and is near its end, so that the next piece is to be opened.
    pub(crate) fn nears_end(&self, meta: &PieceMeta, seq: StreamSeq) -> bool {
        let Some(f) = self.cache.get_index((meta.file, meta.off)) else { return false };
        let Some((i, _)) = f.block_of(meta, seq) else { return false };
        let place = |i: usize| (meta.file, meta.off + u64::from(f.blocks[i].off));
        is_large(meta, &f, i)
            && meta.data - f.blocks[i].off <= NEXT_PIECE
            && (i == 0 || self.cache.is_recent(place(i - 1)))
    }

    /// Opens a piece that is about to be read from its beginning, reads what a question would ask for one after another, and begins to read its first part. What cannot
    /// be read is left to who asks for it.
    pub(crate) async fn open_early(&self, meta: &PieceMeta, subjects: bool) -> Result<()> {
        let f = self.index_foot(meta).await?;
        if subjects {
            self.subject_foot(meta).await?;
        }
        if f.blocks.is_empty() || !is_large(meta, &f, 0) {
            return Ok(());
        }
        let at = (meta.file, meta.off + u64::from(f.blocks[0].off));
        if self.cache.holds_ahead(at) || self.cache.holds_block(at) {
            return Ok(());
        }
        let upto = end_of_block(meta, &f, last_of_part(meta, &f, 0, READ_AHEAD_LARGE));
        let open = self.file_of(meta).await?;
        let len = (upto - f.blocks[0].off) as usize;
        if let Some(soon) = open.file.stream_soon(at.1, len) {
            self.cache.put_ahead(at, len, soon);
        }
        Ok(())
    }

    /// Opens the pieces that readers come to, one after another, until none is left.
    pub(crate) async fn open_coming(&self) {
        while let Some((p, subjects)) = self.cache.first_coming() {
            self.open_early(&p.meta, subjects).await.ok();
            self.cache.came(p.key());
        }
    }

    /// A block past the cache, as far as it makes sense, and the bytes that it was read from.
    pub(crate) async fn block_bytes(
        &self,
        meta: &PieceMeta,
        f: &IndexFoot,
        i: usize,
    ) -> Result<(Option<Block>, Bytes)> {
        let (start, end) = (f.blocks[i].off, end_of_block(meta, f, i));
        let at = meta.off + u64::from(start);
        let (b, open) = match self.bytes(meta, at, end.saturating_sub(start) as usize).await {
            Ok(found) => found,
            Err(Error::Damaged(_)) => return Ok((None, Bytes::new())),
            Err(e) => return Err(e),
        };
        Ok((Block::read(open.key.as_ref(), meta.file, at, &b), b))
    }

    /// A block that is whole, or what the last of several readings gave.
    pub(crate) async fn sure_block(
        &self,
        meta: &PieceMeta,
        f: &IndexFoot,
        i: usize,
    ) -> Result<Option<Block>> {
        let mut last = None;
        for try_no in 0..TRIES {
            last = self.block(meta, f, i, try_no > 0).await?;
            if last.as_ref().is_some_and(|b| b.sure) {
                break;
            }
        }
        Ok(last)
    }

    /// All blocks of a piece; `None` for those that are damaged.
    pub(crate) async fn blocks(&self, meta: &PieceMeta) -> Result<Vec<Option<Block>>> {
        let f = self.index_foot(meta).await?;
        let mut all = Vec::with_capacity(f.blocks.len());
        while all.len() < f.blocks.len() {
            all.extend(self.part(meta, &f, all.len()).await?);
        }
        Ok(all)
    }

    /// Block `i` and those after it that are read with it, past the cache; `None` for those that are damaged.
    pub(crate) async fn part(&self, meta: &PieceMeta, f: &IndexFoot, i: usize) -> Result<Vec<Option<Block>>> {
        let open = self.file_of(meta).await?;
        let last = last_of_part(meta, f, i, READ_AHEAD_LARGE);
        let (start, end) = (f.blocks[i].off, end_of_block(meta, f, last));
        let at = meta.off + u64::from(start);
        let mut part = Vec::with_capacity(last - i + 1);
        let Ok(bytes) = open.file.stream_at(at, end.saturating_sub(start) as usize).await else {
            // What of it can be read, or what is the matter.
            for k in i..=last {
                part.push(self.block(meta, f, k, true).await?);
            }
            return Ok(part);
        };
        for k in i..=last {
            let place = meta.off + u64::from(f.blocks[k].off);
            part.push(Block::read(open.key.as_ref(), meta.file, place, &raw_of(meta, f, i, k, &bytes)));
        }
        Ok(part)
    }

    /// A message's record, checked.
    pub(crate) async fn message(&self, meta: &PieceMeta, seq: StreamSeq) -> Result<Bytes> {
        let f = self.index_foot(meta).await?;
        let Some((i, at)) = f.block_of(meta, seq) else {
            return Err(Self::damaged(meta, "it has no blocks"));
        };
        self.read_ahead(meta, &f, i).await?;
        for try_no in 0..TRIES {
            let Some(b) = self.block(meta, &f, i, try_no > 0).await? else { continue };
            // S-10: found by its number and checked.
            if let Some(mut r) = b.whole(meta.group, seq) {
                // It may be pinned for a question.
                if b.lent {
                    r = Bytes::copy_from_slice(&r);
                }
                self.cache.put_block((meta.file, at), b);
                return Ok(r);
            }
        }
        self.cache.drop_block((meta.file, at));
        // Where the block makes no sense, its plain bytes may still hold the record.
        let (_, raw) = self.block_bytes(meta, &f, i).await?;
        if let Some((_, r)) = intact(meta.group, &raw, seq, seq.next()).into_iter().next() {
            return Ok(Bytes::copy_from_slice(&raw[r]));
        }
        let what = format!("segment {} at {}: a record is damaged", meta.file.0, meta.off);
        Err(Error::Damaged(Damage {
            group: Some(meta.group),
            entries: None,
            messages: Some((seq, seq)),
            what,
        }))
    }

    /// The entries of a piece from `from` on, up to `bytes` of them but at least one if there is any; `None` if not all that was read for
    /// them is whole. Reads those blocks only.
    pub(crate) async fn read_from(
        &self,
        meta: &PieceMeta,
        from: LogIndex,
        bytes: u64,
    ) -> Result<Option<Vec<Entry>>> {
        let f = self.index_foot(meta).await?;
        let mut at = f.block_with(meta, from);
        let (mut out, mut joiner, mut size) = (Vec::new(), Joiner::default(), 0);
        while at < f.blocks.len() && (size < bytes || out.is_empty()) {
            let start = f.blocks[at].off;
            let wanted = (bytes - size.min(bytes)).clamp(1, u64::from(READ_AHEAD)) as u32;
            let fits = |k: &usize| *k < f.blocks.len() && f.blocks[*k].off - start < wanted;
            let last = (at..).take_while(fits).last().unwrap_or(at);
            let len = end_of_block(meta, &f, last).saturating_sub(start) as usize;
            let open = self.file_of(meta).await?;
            let raw = open.file.stream_at(meta.off + u64::from(start), len).await?;
            for k in at..=last {
                let place = meta.off + u64::from(f.blocks[k].off);
                let own = Bytes::copy_from_slice(&raw_of(meta, &f, at, k, &raw));
                let b = Block::read(open.key.as_ref(), meta.file, place, &own);
                let Some(b) = b.filter(|b| b.sure) else { return Ok(None) };
                let mut whole = true;
                let sound = joiner.push(&b, |e| match e {
                    Ok(e) if e.head.group != meta.group => whole = false,
                    Ok(e) if e.head.index < from => {}
                    Ok(e) => {
                        size += e.head.size();
                        out.push(e);
                    }
                    Err(_) => whole = false,
                });
                if !sound || !whole {
                    return Ok(None);
                }
            }
            at = last + 1;
        }
        let cut = at == f.blocks.len() && joiner.cut().is_some();
        Ok((!cut).then_some(out))
    }

    /// All entries of a piece that can be read, and the headers of those whose content is damaged. An entry whose
    /// header is damaged shows as a gap.
    pub(crate) async fn read_piece(&self, meta: &PieceMeta) -> Result<(Vec<Entry>, Vec<Head>)> {
        let mut last = Err(Self::damaged(meta, "a block is damaged"));
        for _ in 0..TRIES {
            let (mut entries, mut bad, mut joiner, mut whole) =
                (Vec::new(), Vec::new(), Joiner::default(), true);
            let mut take = |e: std::result::Result<Entry, Head>| match e {
                Ok(e) if e.head.group == meta.group => entries.push(e),
                Ok(e) => bad.push(e.head),
                Err(h) => bad.push(h),
            };
            for b in self.blocks(meta).await? {
                whole &= b.is_some_and(|b| joiner.push(&b, &mut take) && b.sure);
            }
            bad.extend(joiner.cut());
            match (whole, bad.is_empty()) {
                (true, true) => return Ok((entries, bad)),
                (false, true) => last = Err(Self::damaged(meta, "a block is damaged")),
                (_, false) => last = Ok((entries, bad)),
            }
        }
        last
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
