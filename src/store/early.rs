//! Large entries, and those of large messages, are laid out in a segment when their round is written; the journal then only says where they are.
//!
//! Owns the pieces that grow this way: which entries go to them, what of them is in their files, and which files the journal names. A flush that
//! finds such a piece to be a part of the log as it is adds the footers; otherwise it lays the log out as always. That a round can be read again never
//! depends on this: a round in which a reference cannot be followed is a bad round, in the table of `recover` as any other.
//!
//! - S-24: what a round refers to is in its file, synced with its name, before anybody hears that the round is.
//! - S-25: a sector of a segment that was written for a round is never written again: what does not fill one stands in the round itself.
//! - S-26: a file that a round names which an opening may still read is not removed, and its id not given again.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use env::disk::OpenOptions;

use crate::{
    flush::Draft,
    io::{Disk, File},
    options::mutant,
    record::{Entry, Head, Kind},
    round::{Found, Frame, FrameKind, Line, Reference, Scanned},
    segment::{BlockCodec, Builder, FILE_HEADER, FileHead, PieceMeta, SubjectFoot, entry_of},
    shard::{Shard, segment_path},
    types::{Chain, FileId, GroupId, LogIndex, Result, Round},
};

/// Whether its messages have so many bytes, one with another.
fn has(h: &Head, bytes: u64) -> bool {
    u64::from(h.length) >= bytes.saturating_mul(u64::from(h.count).max(1))
}

/// Pieces that grow at once: each has an open file.
const OPEN_MAX: usize = 8;
/// Bytes that wait in memory for the next round that refers to the file.
const HELD_MAX: u64 = 1 << 20;
/// The round of a file that may yet be named by one.
const OPEN: Round = Round(u64::MAX);

/// The pieces that grow, for whoever writes rounds.
#[derive(Default)]
pub(crate) struct Laying {
    open: BTreeMap<GroupId, Early>,
    /// Those that grow no more and wait for a flush.
    closed: Vec<Early>,
    /// Files that written rounds refer to and that are not synced since, with the last of those rounds.
    unsynced: BTreeMap<FileId, (File, Round)>,
    /// The last round that began one whose name may not be durable.
    names: Option<Round>,
    /// A file could not be written: the next flush lets it be tried again.
    failed: bool,
}

/// A piece that grows as rounds are written.
pub(crate) struct Early {
    pub id: FileId,
    pub group: GroupId,
    file: File,
    builder: Builder<'static>,
    /// Bytes in the file: whole sectors.
    written: u64,
    /// Bytes that the file has room for: a write that makes it longer takes half as long again, and its sync many times as long.
    reserved: u64,
    /// What follows them.
    held: Vec<Bytes>,
    pub first: LogIndex,
    pub entries: usize,
    last: LogIndex,
    chain: Chain,
    /// Of the headers of its entries, one after another.
    heads: u32,
    /// The last round that names the file.
    named: Round,
    /// A flush has left it to the next one.
    pub left: bool,
}

fn bytes_of(all: &[Bytes]) -> u64 {
    all.iter().map(|b| b.len() as u64).sum()
}

/// Takes the first `n` bytes away.
fn split(all: &mut Vec<Bytes>, mut n: u64) -> Vec<Bytes> {
    let mut out = Vec::new();
    while n > 0 {
        let mut b = all.remove(0);
        if b.len() as u64 > n {
            all.insert(0, b.split_off(n as usize));
        }
        n -= b.len() as u64;
        out.push(b);
    }
    out
}

impl Early {
    /// Where what follows begins.
    fn end(&self) -> u64 {
        FILE_HEADER as u64 + self.builder.len() as u64
    }

    fn follows(&self, h: &Head) -> bool {
        h.index == self.last.next() && h.prev == self.chain
    }

    /// Adds an entry. With `apart` it gets blocks of its own: where they begin, and how long they are.
    fn push(&mut self, e: &Entry, apart: bool) -> (u64, u32) {
        if apart {
            self.builder.end_block();
            self.builder.take(&mut self.held);
        }
        let at = self.end();
        let mut part = self.builder.open(e);
        while self.builder.go_on(e, &mut part, usize::MAX) {
            self.builder.take(&mut self.held);
        }
        if apart {
            self.builder.end_block();
        }
        self.builder.take(&mut self.held);
        if self.entries == 0 {
            self.first = e.head.index;
        }
        (self.last, self.chain) = (e.head.index, e.head.chain);
        self.entries += 1;
        self.heads = checksum::append(self.heads, &e.head.encode());
        (at, (self.end() - at) as u32)
    }

    /// Whether it holds these entries and no others.
    pub(crate) fn is(&self, entries: &[Entry]) -> bool {
        let heads = entries.iter().fold(0, |c, e| checksum::append(c, &e.head.encode()));
        let last = entries.last().map(|e| (e.head.index, e.head.chain));
        entries.len() == self.entries && heads == self.heads && last == Some((self.last, self.chain))
    }

    /// The whole piece, for the manifest: its file has yet to be written to its end.
    pub(crate) fn finish(self) -> (PieceMeta, SubjectFoot, Draft) {
        let Early { builder, mut held, file, id, written, .. } = self;
        let built = builder.finish().expect("there is an entry in it");
        held.push(built.bytes);
        (built.meta, built.subjects, Draft::of_rest(id, file, written, held))
    }
}

/// An entry of a round that was laid out.
struct Laid {
    /// Which frame of the round it is.
    frame: usize,
    group: GroupId,
    file: FileId,
    off: u64,
    len: u32,
}

/// Pieces that grew, by group and in the order of the log.
pub(crate) type Grown = BTreeMap<GroupId, Vec<Early>>;

/// What has to be synced before rounds that refer to it are called durable.
pub(crate) struct Due {
    files: Vec<File>,
    /// Their names too.
    names: bool,
}

impl Laying {
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// No more entries join this piece.
    fn close(&mut self, group: GroupId) {
        self.closed.extend(self.open.remove(&group));
    }

    /// Ends all that grow, for a flush: by group, in the order of the log.
    pub(crate) fn take(&mut self) -> Grown {
        self.failed = false;
        self.closed.extend(std::mem::take(&mut self.open).into_values());
        let mut all = Grown::new();
        std::mem::take(&mut self.closed).into_iter().for_each(|e| all.entry(e.group).or_default().push(e));
        all
    }

    /// What written rounds refer to and no sync covers.
    pub(crate) fn due(&self) -> Due {
        Due { names: self.names.is_some(), files: self.unsynced.values().map(|(f, _)| f.clone()).collect() }
    }

    /// What was due when this round was the last is synced. Rounds since may have written more.
    pub(crate) fn synced(&mut self, upto: Round) {
        self.unsynced.retain(|_, (_, last)| *last > upto);
        self.names = self.names.filter(|last| *last > upto);
    }

    /// Leaves some to the next flush.
    pub(crate) fn put_back(&mut self, mut left: Vec<Early>) {
        left.append(&mut self.closed);
        self.closed = left;
    }
}

impl Shard {
    /// Whether the journal would rather refer to this entry than hold it.
    pub(crate) fn rather_refers(&self, f: &Frame) -> bool {
        let much = |h: &Head| {
            let bulk = u64::from(h.length) >= self.opts.refer_entry_min;
            h.kind == Kind::Messages
                && (has(h, self.opts.refer_min as u64) || bulk && has(h, self.opts.refer_message_min))
        };
        f.line.kind == FrameKind::Entry && f.head.as_ref().is_some_and(much) && self.may_lay()
    }

    /// What is sealed or compressed goes through the journal.
    fn may_lay(&self) -> bool {
        self.opts.refer_min < usize::MAX && self.opts.keys.current_id() == 0 && !self.opts.compress
    }

    /// Lays out what of a round's entries is rather referred to, or follows what was, and makes references of the former if that `pays`. Where a file cannot be
    /// written the round's entries stay as they are. The bytes that are referred to.
    pub(crate) async fn lay(
        &self,
        laying: &mut Laying,
        round: Round,
        frames: &mut [Frame],
        sync: bool,
        pays: bool,
    ) -> u64 {
        let (mut laid, mut large) = (Vec::new(), false);
        for (i, f) in frames.iter().enumerate() {
            let group = f.line.group;
            let head = match (f.line.kind, f.head) {
                (FrameKind::Entry, Some(h)) => h,
                (FrameKind::HardState | FrameKind::Floor, _) => continue,
                _ => {
                    laying.close(group);
                    continue;
                }
            };
            let refers = pays && self.rather_refers(f);
            let entry = Entry { head, payload: f.payload.clone() };
            let full = |e: &Early| e.end() + head.size() > self.opts.early_max || !e.builder.fits(&entry);
            if laying.open.get(&group).is_some_and(|e| !e.follows(&head) || full(e)) {
                laying.close(group);
            }
            if !laying.open.contains_key(&group) {
                if !refers || !self.may_begin(laying, group) {
                    continue;
                }
                match self.begin_early(group).await {
                    Ok(e) => drop(laying.open.insert(group, e)),
                    Err(_) => {
                        laying.failed = true;
                        continue;
                    }
                }
                laying.names = Some(round);
            }
            let e = laying.open.get_mut(&group).expect("it is there, or was just begun");
            let (off, len) = e.push(&entry, refers);
            if refers {
                large |= has(&head, self.opts.refer_min as u64);
                laid.push(Laid { frame: i, group, file: e.id, off, len });
            }
        }
        // Large messages that nobody waits for are left to the page cache, which has them when they are read soon after.
        self.write_early(laying, &laid, large && !sync).await;
        let mut bytes = 0;
        for l in laid {
            let mut all = laying.open.values_mut().chain(&mut laying.closed);
            // One whose file could not be written is gone.
            let Some(e) = all.find(|e| e.id == l.file && e.group == l.group) else { continue };
            let end = (l.off + u64::from(l.len)).saturating_sub(e.written).min(u64::from(l.len));
            let held = e.held.first().cloned().unwrap_or_default();
            let upto = (l.off + u64::from(l.len)).saturating_sub(e.written) as usize;
            let f = &mut frames[l.frame];
            let Some(head) = f.head else { continue };
            let end = held.slice(upto - end as usize..upto);
            let r = Reference { head, file: l.file, off: l.off, len: l.len, end };
            let refers = Frame::reference(&r, f.sync);
            // S-22: the round has room for what was let in, and for no more.
            if refers.cost() > f.cost() {
                continue;
            }
            *f = refers;
            bytes += u64::from(l.len);
            e.named = round;
            laying.unsynced.insert(l.file, (e.file.clone(), round));
        }
        bytes
    }

    fn may_begin(&self, laying: &Laying, group: GroupId) -> bool {
        let much = || {
            let group = self.group(group).ok()?;
            let g = group.lock();
            Some(!g.memory && !g.compress && g.tail_bytes >= self.opts.own_file_bytes)
        };
        !laying.failed && laying.open.len() < OPEN_MAX && much().unwrap_or(false)
    }

    async fn begin_early(&self, group: GroupId) -> Result<Early> {
        let id = FileId(self.next_file.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        // Whatever comes of it: it is garbage until a manifest says otherwise, and stays while a round may name it.
        self.named.lock().insert(id, OPEN);
        self.leaked.lock().push(id);
        let file = match self.disk.open(&segment_path(&self.dir, id), OpenOptions::TRUNCATE).await {
            Ok(file) => file,
            Err(e) => {
                self.forget_early(id, Round(0));
                return Err(e.into());
            }
        };
        let head = FileHead { shard: self.id, id, salt: [0; 16], key: 0 };
        let builder = Builder::new(group, id, FILE_HEADER as u64, self.opts.counting, BlockCodec::default())
            .leaves_runs();
        Ok(Early {
            id,
            group,
            file,
            builder: builder.block_target(self.opts.block),
            written: 0,
            reserved: 0,
            held: vec![head.encode().into()],
            first: LogIndex(0),
            entries: 0,
            last: LogIndex(0),
            chain: Chain(0),
            heads: 0,
            named: Round(0),
            left: false,
        })
    }

    /// Writes whole sectors of what this round refers to, and of what waits for long (S-25). Drops what cannot be written.
    async fn write_early(&self, laying: &mut Laying, laid: &[Laid], cached: bool) {
        let (mut reserve, mut writes, mut of) = (Vec::new(), Vec::new(), Vec::new());
        for e in laying.open.values_mut().chain(&mut laying.closed) {
            let held = bytes_of(&e.held);
            if !laid.iter().any(|l| l.file == e.id) && held < HELD_MAX {
                continue;
            }
            let unit = self.opts.sector;
            let whole = (e.written + held) / unit * unit;
            let bufs = split(&mut e.held, whole - e.written);
            // What is left keeps no entry alive.
            e.held = vec![Bytes::from(e.held.concat())];
            if whole > e.reserved {
                // The first part is all that it is to have as a rule.
                let more = (whole - e.reserved).max(self.opts.early_max) / unit * unit;
                reserve.push((e.file.clone(), e.reserved, more));
                e.reserved += more;
            }
            if !bufs.is_empty() {
                writes.push((e.file.clone(), e.written, bufs));
            }
            e.written = whole;
            of.push(e.id);
        }
        let done = async {
            for (file, from, more) in reserve {
                file.allocate(from, more).await?;
            }
            self.write_all(writes, cached).await
        };
        if done.await.is_ok() {
            return;
        }
        laying.failed = true;
        let gone = |e: &Early| of.contains(&e.id);
        let open = std::mem::take(&mut laying.open);
        let (lost, open): (BTreeMap<_, _>, BTreeMap<_, _>) = open.into_iter().partition(|(_, e)| gone(e));
        laying.open = open;
        let (also, closed): (Vec<_>, Vec<_>) = std::mem::take(&mut laying.closed).into_iter().partition(gone);
        laying.closed = closed;
        lost.into_values().chain(also).for_each(|e| self.end_early(&e));
    }

    /// S-24: syncs what written rounds refer to, and the names of those files.
    pub(crate) async fn sync_early(&self, due: &Due) -> std::io::Result<()> {
        if !mutant!(self.opts, ReferenceUnsynced) {
            for f in &due.files {
                f.sync_data().await?;
            }
        }
        if due.names {
            self.disk.sync_dir(&self.dir.join("segments")).await?;
        }
        Ok(())
    }

    /// A piece that grew is no more: its file belongs to a manifest, or is garbage.
    pub(crate) fn end_early(&self, e: &Early) {
        self.forget_early(e.id, e.named);
    }
    fn forget_early(&self, id: FileId, named: Round) {
        let mut all = self.named.lock();
        match named {
            Round(0) => all.remove(&id),
            last => all.insert(id, last),
        };
    }
}

/// How often a reference is followed that leads to nothing whole: a flip on the way from the disk is no damage.
const TRIES: usize = 3;

/// What the references of a journal lead to.
#[derive(Default)]
pub(crate) struct Referred {
    /// The last round that names each file, of those that an opening may read.
    pub files: BTreeMap<FileId, Round>,
    /// Bytes that each round refers to.
    pub rounds: BTreeMap<Round, u64>,
    /// An id that no file has that was ever named here.
    pub next: FileId,
}

impl Referred {
    /// Puts entries in the place of references, in rounds from `from` on; what cannot be read is bad.
    pub(crate) async fn follow(
        &mut self,
        disk: &Disk,
        dir: &Path,
        from: Round,
        rounds: &mut [Scanned],
    ) -> Result<()> {
        for round in rounds {
            let n = round.head.round;
            for f in &mut round.found {
                let Found::Reference(line, r) = f else { continue };
                self.next = self.next.max(FileId(r.file.0.saturating_add(1)));
                if n < from {
                    continue;
                }
                let last = self.files.entry(r.file).or_default();
                *last = n.max(*last);
                *self.rounds.entry(n).or_default() += u64::from(r.len);
                *f = read(disk, dir, *line, r).await?;
            }
        }
        Ok(())
    }
}

impl Referred {
    /// S-82: makes durable what is referred to, which may so far lie in the page cache only.
    pub(crate) async fn sync(&self, disk: &Disk, dir: &Path) -> Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        for id in self.files.keys() {
            match disk.open(&segment_path(dir, *id), OpenOptions::EDIT).await {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                file => file?.sync_data().await?,
            }
        }
        Ok(disk.sync_dir(&dir.join("segments")).await?)
    }
}

async fn read(disk: &Disk, dir: &Path, line: Line, r: &Reference) -> Result<Found> {
    let mut left = Bytes::new();
    for _ in 0..TRIES {
        let file = match disk.open(&segment_path(dir, r.file), OpenOptions::READ).await {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => break,
            f => f?,
        };
        // A file that was cut has less.
        let there = file.len().await?.saturating_sub(r.off).min(r.stored() as u64);
        let stored = file.disk_at(r.off, there as usize).await?;
        let blocks = Bytes::from([&stored[..], &r.end[..]].concat());
        match entry_of(r.file, r.off, &blocks).filter(|e| e.head == r.head) {
            Some(e) if blocks.len() == r.len as usize => return Ok(Found::Entry(e)),
            _ => left = blocks,
        }
    }
    Ok(Found::Bad(line, left))
}

#[cfg(test)]
#[path = "early_tests.rs"]
mod tests;
