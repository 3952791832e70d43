//! The journal's round: what one write and one sync make durable, for all groups of a shard together.
//!
//! Owns the bytes of a round and of a journal file's first sector, and finding rounds again in a file's bytes. Does no
//! I/O and decides nothing about what a bad round means: that is `recover`. Layout: docs/design/0012-on-disk-format.md.
//!
//! - S-20: a round is valid only at the offset, in the file and for the epoch that it names, so neither what an older use
//!   of the file left nor a misdirected write looks valid.
//! - S-21: a round's table of what it holds stands at its start and again at its end, apart from the data, so that what a
//!   damaged sector took can be named.

use bytes::{Bytes, BytesMut};

use crate::{
    codec::{Get, Put, align, u32_at, u64_at},
    crypt::FileKey,
    mend::Hole,
    record::{ENTRY_HEADER, Entry, FORMAT, Head, Kind},
    types::{Chain, Epoch, FileId, GroupId, LogIndex, Round, StreamSeq, Term},
};

const ROUND_MAGIC: u32 = 0x8152_5546;
const TRAIL_MAGIC: u32 = 0x8254_5546;
const FILE_MAGIC: u32 = 0x834a_5546;
/// The version of rounds with references, and of files that may hold some: a binary that does not know these refuses such a file by its version, and takes
/// such a round for none where the file's header is lost.
const REFERRING: u8 = 2;
/// Bytes of a round's header before its table.
pub(crate) const ROUND_HEADER: usize = 72;
/// Bytes of one line of a round's table.
pub(crate) const TABLE_LINE: usize = 56;
/// Bytes after the copy of header and table at a round's end: how long that copy is, and a magic.
const TRAIL_END: usize = 8;
/// Bytes of a journal file's header, which has the file's first sector for itself.
pub(crate) const FILE_HEADER: usize = 56;
/// Frames up to this size are copied into one buffer; longer ones are written from where they are.
const COPY_MAX: usize = 16 << 10;
/// Frames in one round at most, so that a damaged count asks for no memory.
pub(crate) const FRAMES_MAX: usize = 1 << 20;

/// What a frame of a round is. Numbers are on disk: append only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// An entry of a group's log.
    Entry = 1,
    /// A group's hard state: opaque bytes, the last one counts.
    HardState = 2,
    /// The group's log ends before `index` from here on.
    Truncate = 3,
    /// A group begins; the payload is its options.
    Create = 4,
    /// A group ends.
    Delete = 5,
    /// A memory group's sequences and indexes up to these may have been used.
    Floor = 6,
    /// An entry whose bytes lie in a segment file, and where ([`Reference`]).
    Reference = 7,
    /// An entry in the place of one that was damaged: nothing else of the log moves.
    Patch = 8,
    /// Entries that cannot be read, carried forward by their identity.
    Hole = 9,
}

impl FrameKind {
    fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Entry,
            2 => Self::HardState,
            3 => Self::Truncate,
            4 => Self::Create,
            5 => Self::Delete,
            6 => Self::Floor,
            7 => Self::Reference,
            8 => Self::Patch,
            9 => Self::Hole,
            _ => return None,
        })
    }
}

/// One frame as it waits for its round.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub line: Line,
    pub head: Option<Head>,
    pub payload: Bytes,
    /// Whether somebody waits for the sync.
    pub sync: bool,
}

/// A line of a round's table: the identity of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    pub kind: FrameKind,
    pub group: GroupId,
    pub index: LogIndex,
    pub first: StreamSeq,
    pub count: u32,
    /// Of an entry: with index and group its identity, which is kept although its bytes may be lost.
    pub term: Term,
    pub chain: Chain,
}

impl Line {
    /// Of a frame that is no entry.
    pub(crate) fn control(kind: FrameKind, group: GroupId, index: LogIndex) -> Line {
        Line { kind, group, index, first: StreamSeq(0), count: 0, term: Term(0), chain: Chain(0) }
    }
    /// Whether the frame is a header and a payload.
    fn is_entry(&self) -> bool {
        matches!(self.kind, FrameKind::Entry | FrameKind::Patch)
    }
}

/// A line with where its frame lies and its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Placed {
    pub line: Line,
    /// Bytes of the frame in the file.
    pub len: u32,
    /// Of the entry's header, or of the whole frame for other kinds.
    pub crc: u32,
    /// From the round's start.
    pub off: u32,
    /// True for the second copy of a frame that is no entry.
    pub copy: bool,
}

impl Frame {
    pub(crate) fn entry(e: &Entry, sync: bool) -> Frame {
        // What is left of a damaged entry stays in its place also when it is written once more.
        let kind = if e.head.compacted { FrameKind::Patch } else { FrameKind::Entry };
        Frame { line: line_of(kind, &e.head), head: Some(e.head), payload: e.payload.clone(), sync }
    }
    /// An entry in the place of a damaged one.
    pub(crate) fn patch(e: &Entry) -> Frame {
        Frame {
            line: line_of(FrameKind::Patch, &e.head),
            head: Some(e.head),
            payload: e.payload.clone(),
            sync: true,
        }
    }
    pub(crate) fn control(kind: FrameKind, group: GroupId, index: LogIndex, payload: Bytes) -> Frame {
        Frame { line: Line::control(kind, group, index), head: None, payload, sync: true }
    }
    /// An entry that was laid out in a segment file.
    pub(crate) fn reference(r: &Reference, sync: bool) -> Frame {
        Frame { line: line_of(FrameKind::Reference, &r.head), head: None, payload: r.encode(), sync }
    }
    /// Memberships stand twice, as all that is no entry does: without them a damaged log cannot be mended. So do references, which stand for much.
    fn is_doubled(&self) -> bool {
        self.head.is_none_or(|h| h.kind == Kind::Config)
    }
    /// Bytes that it adds to a round at most, with its lines in both tables.
    pub(crate) fn cost(&self) -> u64 {
        let body = (ENTRY_HEADER + self.payload.len() + crate::crypt::TAG) as u64;
        let copies = if self.is_doubled() { 2 } else { 1 };
        copies * body + copies * 2 * TABLE_LINE as u64
    }
}

fn line_of(kind: FrameKind, h: &Head) -> Line {
    Line {
        kind,
        group: h.group,
        index: h.index,
        first: h.first,
        count: h.count,
        term: h.term,
        chain: h.chain,
    }
}

/// An entry as the journal names it when its bytes lie in a segment file, as blocks that hold it and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reference {
    pub head: Head,
    pub file: FileId,
    /// Where its first block begins in the file.
    pub off: u64,
    /// Bytes of its blocks.
    pub len: u32,
    /// Those of them that are not in the file yet: what does not fill a sector, so that nothing is written later to a sector that was synced.
    pub end: Bytes,
}

impl Reference {
    fn encode(&self) -> Bytes {
        let mut b = Vec::with_capacity(ENTRY_HEADER + 20 + self.end.len());
        b.extend_from_slice(&self.head.encode());
        b.u64(self.file.0);
        b.u64(self.off);
        b.u32(self.len);
        b.extend_from_slice(&self.end);
        b.into()
    }
    fn decode(line: &Line, b: &Bytes) -> Option<Reference> {
        let head = Head::decode(b)?;
        let mut g = Get(b.get(ENTRY_HEADER..)?);
        let (file, off, len) = (FileId(g.u64()?), g.u64()?, g.u32()?);
        let end = b.slice_ref(g.0);
        let same = line_of(FrameKind::Reference, &head) == *line && end.len() <= len as usize;
        (same && off.checked_add(u64::from(len)).is_some()).then_some(Reference { head, file, off, len, end })
    }
    /// Bytes that it says the file holds.
    pub(crate) fn stored(&self) -> usize {
        self.len as usize - self.end.len()
    }
}

/// Bytes that a round of no frame takes at most, padding included.
pub(crate) fn round_overhead(sector: u64) -> u64 {
    (2 * ROUND_HEADER + TRAIL_END) as u64 + sector
}

/// What a round's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RoundHead {
    pub shard: u32,
    pub epoch: Epoch,
    pub round: Round,
    /// The last round known to be synced when this one was written: it vouches for all up to there.
    pub synced: Round,
    /// Where in the file the round begins.
    pub off: u64,
    /// Bytes of the whole round, padding included.
    pub total: u32,
}

/// A round ready to be written.
#[derive(Debug)]
pub(crate) struct Built {
    pub bufs: Vec<Bytes>,
    pub total: u64,
}

/// Lays out a round of `frames`, padded to whole sectors. With a key, each payload is sealed by itself.
pub(crate) fn build(head: RoundHead, frames: &[Frame], sector: u64, key: Option<&FileKey>) -> Built {
    let doubled = frames.iter().filter(|f| f.is_doubled()).count();
    let lines = frames.len() + doubled;
    assert!(lines <= FRAMES_MAX, "S-22: a round of {lines} frames");
    let head_len = ROUND_HEADER + lines * TABLE_LINE;
    let (mut table, mut pieces) = (Vec::with_capacity(lines * TABLE_LINE), Pieces::default());
    let mut at = head_len as u64;
    let all = frames.iter().map(|f| (f, false));
    let copies = frames.iter().filter(|f| f.is_doubled()).map(|f| (f, true));
    for (ordinal, (f, copy)) in all.chain(copies).enumerate() {
        let header = f.head.map(|h| h.encode());
        let header = header.as_ref().map_or(&[][..], |h| &h[..]);
        let sealed = key.map(|k| k.seal(nonce(head.round, ordinal), header, &f.payload));
        let payload = sealed.unwrap_or_else(|| f.payload.clone());
        let crc = if f.head.is_some() { checksum::crc32c(header) } else { checksum::crc32c(&payload) };
        let len = (header.len() + payload.len()) as u32;
        put_line(&mut table, &Placed { line: f.line, len, crc, off: 0, copy });
        pieces.push(header);
        pieces.push_shared(&payload);
        at += u64::from(len);
    }
    let version = if frames.iter().any(|f| f.line.kind == FrameKind::Reference) { REFERRING } else { FORMAT };
    let total = align(at + (head_len + TRAIL_END) as u64, sector);
    let total32 =
        u32::try_from(total).expect("S-22: rounds are smaller than a journal file, which is below 4 GiB");
    let mut front = Vec::with_capacity(head_len);
    let head = RoundHead { total: total32, ..head };
    put_round_head(&mut front, &head, version, lines as u32, &table, ROUND_MAGIC);
    front.extend_from_slice(&table);
    let mut back = Vec::with_capacity(head_len + sector as usize);
    back.resize((total - at) as usize - head_len - TRAIL_END, 0);
    put_round_head(&mut back, &head, version, lines as u32, &table, TRAIL_MAGIC);
    back.extend_from_slice(&table);
    back.u32(head_len as u32);
    back.u32(TRAIL_MAGIC);
    let mut bufs = pieces.finish(Bytes::from(front));
    bufs.push(Bytes::from(back));
    debug_assert_eq!(bufs.iter().map(|b| b.len() as u64).sum::<u64>(), total);
    Built { bufs, total }
}

/// A frame's nonce under its file's key: rounds of a file never repeat.
fn nonce(round: Round, ordinal: usize) -> [u8; 12] {
    let mut n = [0; 12];
    n[..8].copy_from_slice(&round.0.to_le_bytes());
    n[8..].copy_from_slice(&(ordinal as u32).to_le_bytes());
    n
}

/// Gathers small parts into one buffer and keeps long ones apart.
#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    small: BytesMut,
}

impl Pieces {
    fn push(&mut self, b: &[u8]) {
        self.small.extend_from_slice(b);
    }
    fn push_shared(&mut self, b: &Bytes) {
        if b.len() <= COPY_MAX {
            self.small.extend_from_slice(b);
        } else {
            self.done.push(self.small.split().freeze());
            self.done.push(b.clone());
        }
    }
    fn finish(mut self, front: Bytes) -> Vec<Bytes> {
        self.done.push(self.small.freeze());
        self.done.retain(|b| !b.is_empty());
        self.done.insert(0, front);
        self.done
    }
}

fn put_round_head(out: &mut Vec<u8>, h: &RoundHead, version: u8, lines: u32, table: &[u8], magic: u32) {
    let at = out.len();
    out.u32(magic);
    out.u8(version);
    out.extend_from_slice(&[0; 3]);
    out.u32(h.shard);
    out.u32(lines);
    out.u64(h.epoch.0);
    out.u64(h.round.0);
    out.u64(h.synced.0);
    out.u64(h.off);
    out.u32(h.total);
    out.u32(checksum::crc32c(table));
    out.u64(0);
    out.u32(0);
    let crc = checksum::crc32c(&out[at..]);
    out.u32(crc);
    debug_assert_eq!(out.len() - at, ROUND_HEADER);
}

fn put_line(out: &mut Vec<u8>, p: &Placed) {
    out.u8(p.line.kind as u8);
    out.u8(u8::from(p.copy));
    out.u16(0);
    out.u32(p.len);
    out.u64(p.line.group.0);
    out.u64(p.line.index.0);
    out.u64(p.line.first.0);
    out.u32(p.line.count);
    out.u32(p.crc);
    out.u64(p.line.term.0);
    out.u64(p.line.chain.0);
}

/// A header and its table, from a round's start (`ROUND_MAGIC`) or end (`TRAIL_MAGIC`).
fn parse_head(b: &[u8], magic: u32) -> Option<(RoundHead, Vec<Placed>)> {
    let h = b.get(..ROUND_HEADER)?;
    if u32_at(h, 0) != magic
        || checksum::crc32c(&h[..ROUND_HEADER - 4]) != u32_at(h, ROUND_HEADER - 4)
        || !is_known(h[4])
    {
        return None;
    }
    let lines = u32_at(h, 12) as usize;
    if lines > FRAMES_MAX {
        return None;
    }
    let table = b.get(ROUND_HEADER..ROUND_HEADER + lines * TABLE_LINE)?;
    if checksum::crc32c(table) != u32_at(h, 52) {
        return None;
    }
    let head = RoundHead {
        shard: u32_at(h, 8),
        epoch: Epoch(u64_at(h, 16)),
        round: Round(u64_at(h, 24)),
        synced: Round(u64_at(h, 32)),
        off: u64_at(h, 40),
        total: u32_at(h, 48),
    };
    let (mut placed, mut off) = (Vec::with_capacity(lines), (ROUND_HEADER + table.len()) as u64);
    for l in table.chunks_exact(TABLE_LINE) {
        let len = u32_at(l, 4);
        let line = Line {
            kind: FrameKind::from_u8(l[0])?,
            group: GroupId(u64_at(l, 8)),
            index: LogIndex(u64_at(l, 16)),
            first: StreamSeq(u64_at(l, 24)),
            count: u32_at(l, 32),
            term: Term(u64_at(l, 40)),
            chain: Chain(u64_at(l, 48)),
        };
        placed.push(Placed {
            line,
            len,
            crc: u32_at(l, 36),
            off: u32::try_from(off).ok()?,
            copy: l[1] & 1 != 0,
        });
        off += u64::from(len);
    }
    (off <= u64::from(head.total)).then_some((head, placed))
}

fn is_known(version: u8) -> bool {
    matches!(version, FORMAT | REFERRING)
}

/// What a round was found to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// An entry, checked.
    Entry(Entry),
    /// An entry in the place of a damaged one, checked.
    Patch(Entry),
    /// Another frame's payload, checked.
    Control(Line, Bytes),
    /// An entry that lies in a segment file, which is yet to be read: the line is the entry's.
    Reference(Line, Reference),
    /// The frame is known and its content is bad; what was found of an entry's payload, unchecked.
    Bad(Line, Bytes),
}

/// A round found in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Scanned {
    pub head: RoundHead,
    pub found: Vec<Found>,
    /// False if the table at the start was bad and the one at the end was used.
    pub by_header: bool,
}

impl Scanned {
    /// Whether every frame can be read and both tables too.
    pub(crate) fn whole(&self) -> bool {
        self.by_header && self.found.iter().all(|f| !matches!(f, Found::Bad(..)))
    }
}

/// What a file's first sector says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileHead {
    pub shard: u32,
    pub epoch: Epoch,
    /// The number of the first round in this file; rounds from here on in older epochs were dropped by a recovery.
    pub first: Round,
    /// Makes the file's key, if there is one.
    pub salt: [u8; 16],
    /// Which of the configured keys; 0 for none.
    pub key: u32,
    /// Bytes of the file when it was reserved: one that is shorter was cut.
    pub len: u64,
    /// There may be references in it.
    pub refers: bool,
    /// Rounds before it were not synced when it was begun: it does not vouch for them. Written to what was zero before, so an older binary takes it for one that does.
    pub loose: bool,
    /// An opening that found the journal cut where the log ended began it: what was there is not known (S-84). To an older binary it is one like any other.
    pub behind_cut: bool,
}

impl FileHead {
    pub(crate) fn encode(&self, sector: u64) -> Bytes {
        let mut b = Vec::with_capacity(sector as usize);
        b.u32(FILE_MAGIC);
        b.u8(if self.refers { REFERRING } else { FORMAT });
        b.u8(u8::from(self.loose) | u8::from(self.behind_cut) << 1);
        b.extend_from_slice(&[0; 2]);
        b.u32(self.shard);
        b.u32(self.key);
        b.u64(self.epoch.0);
        b.u64(self.first.0);
        b.extend_from_slice(&self.salt);
        b.u32((self.len / 512) as u32);
        let crc = checksum::crc32c(&b);
        b.u32(crc);
        debug_assert_eq!(b.len(), FILE_HEADER);
        b.resize(sector as usize, 0);
        b.into()
    }

    pub(crate) fn decode(b: &[u8]) -> Option<FileHead> {
        let b = b.get(..FILE_HEADER)?;
        if checksum::crc32c(&b[..FILE_HEADER - 4]) != u32_at(b, FILE_HEADER - 4)
            || u32_at(b, 0) != FILE_MAGIC
            || !is_known(b[4])
        {
            return None;
        }
        let mut salt = [0; 16];
        salt.copy_from_slice(&b[32..48]);
        Some(FileHead {
            shard: u32_at(b, 8),
            epoch: Epoch(u64_at(b, 16)),
            first: Round(u64_at(b, 24)),
            salt,
            key: u32_at(b, 12),
            len: u64::from(u32_at(b, 48)) * 512,
            refers: b[4] == REFERRING,
            loose: b[5] & 1 != 0,
            behind_cut: b[5] & 2 != 0,
        })
    }

    /// The version that a file claims, if its checksum is right and the version is not ours.
    pub(crate) fn foreign_version(b: &[u8]) -> Option<u8> {
        let b = b.get(..FILE_HEADER)?;
        (checksum::crc32c(&b[..FILE_HEADER - 4]) == u32_at(b, FILE_HEADER - 4)
            && u32_at(b, 0) == FILE_MAGIC
            && !is_known(b[4]))
        .then(|| b[4])
    }
}

/// All rounds of `epoch` in a file's bytes, in file order, the file's first sector left out. Passes over bad places.
pub(crate) fn scan(
    file: &Bytes,
    shard: u32,
    epoch: Epoch,
    sector: u64,
    key: Option<&FileKey>,
) -> Vec<Scanned> {
    let (mut out, mut at) = (Vec::new(), sector as usize);
    // Where the last round ended: a table that claims to belong to something before is left over from an older write.
    let mut floor = at;
    while at + ROUND_HEADER <= file.len() {
        let here = parse_head(&file[at..], ROUND_MAGIC)
            .filter(|(h, _)| fits(h, shard, epoch, at, file.len(), sector))
            .map(|(h, t)| (h, t, true));
        let there = || {
            let found = trailer_from(file, at, shard, epoch, sector).map(|(h, t)| (h, t, false));
            found.filter(|(h, ..)| h.off >= floor as u64)
        };
        let Some((head, table, by_header)) = here.or_else(there) else {
            at += sector as usize;
            continue;
        };
        let (start, end) = (head.off as usize, head.off as usize + head.total as usize);
        let found = read_frames(&file.slice(start..end.min(file.len())), head.round, &table, key);
        // The last part of a round that was written whole holds the second table; without it the round is torn.
        let ended = end <= file.len() && {
            let len = ROUND_HEADER + table.len() * TABLE_LINE;
            parse_head(&file[end - TRAIL_END - len..end], TRAIL_MAGIC)
                .is_some_and(|(h, t)| h == head && t == table)
        };
        out.push(Scanned { head, found, by_header: by_header && ended });
        at = end.max(at + sector as usize);
        floor = at;
    }
    out
}

/// The newest epoch of which a file holds rounds, whatever its own header says: one that was torn may be older.
pub(crate) fn guess_epoch(file: &Bytes, shard: u32, sector: u64) -> Option<Epoch> {
    let starts = (sector as usize..file.len()).step_by(sector as usize);
    starts
        .filter_map(|at| {
            parse_head(&file[at..], ROUND_MAGIC).filter(|(h, _)| h.shard == shard && h.off == at as u64)
        })
        .map(|(h, _)| h.epoch)
        .max()
}

/// Whether a file was cut whose header is bad, and with it how long it was reserved. `epoch` is that of `rounds`, which were found in it; no file is
/// reserved with less than `least` bytes.
///
/// In a file that was not cut the last sector was never written, or is the end of a round: of this use, if that filled the file to its end, or of an
/// older one, and then no round of this use reached it.
pub(crate) fn is_cut(
    file: &Bytes,
    shard: u32,
    (epoch, rounds): (Option<Epoch>, &[Scanned]),
    sector: u64,
    least: u64,
) -> bool {
    let len = file.len() as u64;
    // None has its name before it has its length.
    if len == 0 || rounds.iter().any(|r| r.head.off + u64::from(r.head.total) > len) {
        return true;
    }
    let last = len.saturating_sub(sector) as usize;
    let older = || {
        let end = trailer_of(file, last, shard, sector).map(|(h, _)| h.epoch);
        end.is_some_and(|e| epoch.is_some_and(|this| e < this))
    };
    if file[last..].iter().all(|b| *b == 0) || older() {
        return false;
    }
    // A power failure leaves a header bad only as long as no sync covered the file, and leaves the file as long as it was reserved.
    let first = rounds.iter().map(|r| r.head.round).min();
    let synced = rounds.iter().any(|r| first.is_some_and(|f| r.head.synced >= f));
    synced || !len.is_multiple_of(sector) || len < least
}

fn fits(h: &RoundHead, shard: u32, epoch: Epoch, at: usize, len: usize, sector: u64) -> bool {
    // S-20. A length that leads out of the file is a file that was cut: what is left of the round is still read.
    h.shard == shard
        && h.epoch == epoch
        && h.off == at as u64
        && u64::from(h.total) % sector == 0
        && h.total as usize >= ROUND_HEADER
        && at < len
}

/// The table at the end of the sector at `at`, if a round of this epoch ends there whose start is bad.
fn trailer_from(
    file: &Bytes,
    at: usize,
    shard: u32,
    epoch: Epoch,
    sector: u64,
) -> Option<(RoundHead, Vec<Placed>)> {
    trailer_of(file, at, shard, sector).filter(|(h, _)| h.epoch == epoch)
}

/// The same, of any epoch.
fn trailer_of(file: &Bytes, at: usize, shard: u32, sector: u64) -> Option<(RoundHead, Vec<Placed>)> {
    let end = at + sector as usize;
    let tail = file.get(end - TRAIL_END..end)?;
    if u32_at(tail, 4) != TRAIL_MAGIC {
        return None;
    }
    let len = u32_at(tail, 0) as usize;
    let start = (end - TRAIL_END).checked_sub(len)?;
    let (h, t) = parse_head(&file[start..end - TRAIL_END], TRAIL_MAGIC)?;
    (h.shard == shard && h.off.checked_add(u64::from(h.total)) == Some(end as u64)).then_some((h, t))
}

fn read_frames(round: &Bytes, number: Round, table: &[Placed], key: Option<&FileKey>) -> Vec<Found> {
    let mut out: Vec<Found> = Vec::with_capacity(table.len());
    let mut copies = table.iter().enumerate().filter(|(_, p)| p.copy).peekable();
    for (ordinal, p) in table.iter().enumerate().filter(|(_, p)| !p.copy) {
        let mut f = read_frame(round, number, ordinal, p, key);
        // Copies come in the order of what they are copies of.
        if let Some((o, c)) = copies.next_if(|(_, c)| c.line == p.line && c.len == p.len)
            && matches!(f, Found::Bad(..))
        {
            f = read_frame(round, number, o, c, key);
        }
        out.push(f);
    }
    out
}

fn read_frame(round: &Bytes, number: Round, ordinal: usize, p: &Placed, key: Option<&FileKey>) -> Found {
    let (start, end) = (p.off as usize, p.off as usize + p.len as usize);
    // Sealed payloads are whole or nothing.
    let left = match (p.line.is_entry(), key) {
        (true, None) => round.slice((start + ENTRY_HEADER).min(end).min(round.len())..end.min(round.len())),
        _ => Bytes::new(),
    };
    // What is referred to is an entry like any other.
    let line = match p.line.kind {
        FrameKind::Reference => Line { kind: FrameKind::Entry, ..p.line },
        _ => p.line,
    };
    let bad = Found::Bad(line, left);
    if end > round.len() {
        return bad;
    }
    let bytes = round.slice(start..end);
    let open = |header: &[u8], stored: Bytes| match key {
        Some(k) => k.open(nonce(number, ordinal), header, &stored),
        None => Some(stored),
    };
    if !p.line.is_entry() {
        if checksum::crc32c(&bytes) != p.crc {
            return bad;
        }
        return match open(&[], bytes) {
            Some(b) if p.line.kind == FrameKind::Reference => {
                Reference::decode(&p.line, &b).map_or(bad, |r| Found::Reference(line, r))
            }
            Some(b) => Found::Control(p.line, b),
            None => bad,
        };
    }
    if bytes.len() < ENTRY_HEADER || checksum::crc32c(&bytes[..ENTRY_HEADER]) != p.crc {
        return bad;
    }
    let entry = Head::decode(&bytes)
        .filter(|h| h.group == p.line.group && h.index == p.line.index)
        .and_then(|h| Some((h, open(&bytes[..ENTRY_HEADER], bytes.slice(ENTRY_HEADER..))?)))
        .and_then(|(h, payload)| Entry::with_payload(h, payload));
    match entry {
        Some(e) if p.line.kind == FrameKind::Patch => Found::Patch(e),
        Some(e) => Found::Entry(e),
        None => bad,
    }
}

/// The payload of [`FrameKind::Floor`].
pub(crate) fn floor(seq: StreamSeq, index: LogIndex) -> Bytes {
    let mut b = Vec::with_capacity(16);
    b.u64(seq.0);
    b.u64(index.0);
    b.into()
}

/// The payload of [`FrameKind::Hole`]; its line has the first index.
pub(crate) fn hole(h: &Hole) -> Bytes {
    let mut b = Vec::with_capacity(57);
    for v in [h.first.0, h.last.0, h.first_seq.0, h.last_seq.0, h.prev.0, h.term.0, h.chain.0] {
        b.u64(v);
    }
    b.u8(u8::from(h.known) | u8::from(h.vague) << 1);
    b.into()
}

/// Reads [`hole`].
pub(crate) fn parse_hole(b: &[u8]) -> Option<Hole> {
    let mut g = Get(b);
    let mut h = Hole {
        first: LogIndex(g.u64()?),
        last: LogIndex(g.u64()?),
        first_seq: StreamSeq(g.u64()?),
        last_seq: StreamSeq(g.u64()?),
        prev: Chain(g.u64()?),
        term: Term(g.u64()?),
        chain: Chain(g.u64()?),
        known: false,
        vague: false,
    };
    let flags = g.u8()?;
    (h.known, h.vague) = (flags & 1 != 0, flags & 2 != 0);
    Some(h)
}

/// The payload of [`FrameKind::Floor`]: sequence and index.
pub(crate) fn parse_floor(b: &[u8]) -> Option<(StreamSeq, LogIndex)> {
    let mut g = Get(b);
    Some((StreamSeq(g.u64()?), LogIndex(g.u64()?)))
}

#[cfg(test)]
#[path = "round_tests.rs"]
mod tests;
