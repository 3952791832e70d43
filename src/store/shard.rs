//! A shard: one journal, one manifest, and the groups that live in them.
//!
//! Owns the way of an append from admission to its sync, and opening. What moves the log from the journal to pieces is
//! `flush`; what reads streams is `view`. Locks are held for short computations only, never across an await; a group's
//! lock may be held while the journal's is taken, never the other way round.
//!
//! - S-1: nobody hears that something is durable before the sync that covers it has completed.
//! - S-2: after a failed sync, or a failed write in reserved space, the shard takes no more writes, and nothing that
//!   waited is ever called durable.
//! - S-82: a shard serves and acknowledges only after recovery has synced what it will build on.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use env::{disk::OpenOptions, watch};
use parking_lot::Mutex;
use tokio::sync::{MutexGuard, Notify};

use crate::{
    cache::Cache,
    crypt,
    early::{Grown, Laying, Referred},
    group::Group,
    heal::{Healed, Healer},
    io::{Disk, File, Writer},
    journal::{Active, Admission, Full, Journal, JournalFile},
    keyring::Eras,
    manifest::{self, Choice, Lost, Manifest, Slot},
    mend::Hole,
    options::{Options, mutant},
    recover::{FileScan, Replay, Verdict, classify},
    round::{self, FileHead, Found, Frame, FrameKind, Line, RoundHead, Scanned},
    saved,
    types::{Damage, Epoch, Error, FileId, GroupId, LogIndex, Result, Round, StreamSeq},
};

/// How far the journal has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub written: Round,
    pub synced: Round,
    pub poisoned: Option<Arc<str>>,
}

/// How far the reading of the journals is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// Bytes that were read so far; more than `total` where something looked damaged and was read again.
    pub read: u64,
    /// Bytes of the journals that are known so far.
    pub total: u64,
}

/// Hears of it.
pub(crate) type Hears<'a> = &'a mut (dyn FnMut(&Reading) + Send);

/// See the module.
pub(crate) struct Shard {
    pub id: u32,
    pub disk: Disk,
    pub dir: PathBuf,
    pub opts: Options,
    writer: Writer,
    pub journal: Mutex<Journal>,
    pub groups: Mutex<BTreeMap<GroupId, Arc<Mutex<Group>>>>,
    pub tombs: Mutex<Vec<(GroupId, Round)>>,
    pub progress: watch::Sender<Progress>,
    /// Rounds, file preparation and flushes each run one at a time.
    pub round_lock: tokio::sync::Mutex<Laying>,
    prepare_lock: tokio::sync::Mutex<()>,
    pub flush_lock: tokio::sync::Mutex<()>,
    pub generation: AtomicU64,
    /// The first round that the last manifest in both slots needs; those before it may be gone.
    pub replay_from: AtomicU64,
    pub next_file: AtomicU64,
    /// Segment files of flushes that failed.
    pub leaked: Mutex<Vec<FileId>>,
    /// Which key sealed which segment files.
    pub eras: Mutex<Eras>,
    /// Files that somebody reads or receives outside of a flush, and how many do: they are not removed meanwhile.
    pub kept: Mutex<BTreeMap<FileId, u32>>,
    /// S-26: files that rounds name, and the last round that does.
    pub named: Mutex<BTreeMap<FileId, Round>>,
    pub cache: Cache,
    pub wake: Notify,
    pub wake_flush: Notify,
    pub wake_prepare: Notify,
    pub wake_scrub: Notify,
    /// A piece is to be opened before it is asked for.
    pub wake_coming: Notify,
    /// The clean end has begun: memory groups take nothing any more.
    pub closing: AtomicBool,
    /// Nobody holds the store any more: background work ends.
    pub closed: AtomicBool,
    pub syncs: AtomicU64,
    /// When the round that is being written began, on the monotonic clock; 0 if none is.
    pub round_began: AtomicU64,
    pub damage: Mutex<Vec<Damage>>,
    /// Something joined `damage`, or the end has come.
    pub damaged: Notify,
    /// Who brings messages that are damaged here, and what was brought.
    pub healer: OnceLock<Arc<dyn Healer>>,
    pub healed: Mutex<Healed>,
    /// Recovery gave up something behind the last good round.
    pub torn: bool,
    /// From where on rounds of the journal are gone altogether, and nobody knows what they held: it is kept from there on until that is noted (S-84).
    pub losses: Option<Round>,
    /// The last round that opening found, and the last that is gone, or behind which something is.
    pub found: (Round, Option<Round>),
    pub losses_noted: AtomicBool,
    /// The slot that the next manifest is written to first: the one that may not be whole, if there is such a one (S-70).
    pub first_slot: AtomicUsize,
    /// The slots were written by this process, or synced by it.
    pub slots_synced: AtomicBool,
}

pub(crate) fn slot_path(dir: &Path, slot: usize) -> PathBuf {
    dir.join(["manifest-a", "manifest-b"][slot])
}
pub(crate) fn segment_path(dir: &Path, id: FileId) -> PathBuf {
    dir.join(format!("segments/{:010}.fs", id.0))
}
fn journal_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal/{number:010}.fj"))
}

/// Random bytes for a file's key; all zero without encryption, so that runs without it draw nothing.
pub(crate) fn salt(opts: &Options) -> [u8; 16] {
    let mut s = [0; 16];
    if opts.keys.current().is_some() {
        #[cfg(any(test, feature = "l1"))]
        if let Some(of_plan) = crate::l1::salt() {
            return of_plan;
        }
        env::rng::rng("store file salt").fill(&mut s);
    }
    s
}

impl Shard {
    // ---- opening

    /// Opens what is there. Without `writes` nothing on the disk is changed, and nothing can be appended.
    pub(crate) async fn open(
        disk: Disk,
        dir: PathBuf,
        id: u32,
        mut opts: Options,
        writes: bool,
        hears: Hears<'_>,
    ) -> Result<Arc<Shard>> {
        if writes {
            disk.create_dir_all(&dir.join("journal")).await?;
            disk.create_dir_all(&dir.join("segments")).await?;
            // S-82: a process that died between making a directory and making its name durable left one that is merely there.
            let above = dir.ancestors().take(3).filter(|a| !a.as_os_str().is_empty());
            for d in above.collect::<Vec<_>>() {
                match disk.sync_dir(d).await {
                    // Those above the store's own may be closed to us; then somebody else made them.
                    Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {}
                    r => r?,
                }
            }
        }
        let mut slots = Vec::new();
        for slot in 0..2 {
            slots.push(read_slot(&disk, &slot_path(&dir, slot), &opts).await?);
        }
        let b = slots.pop().expect("two slots were read");
        let a = slots.pop().expect("two slots were read");
        let first_slot = usize::from(matches!(a, Slot::Valid(_)) && !matches!(b, Slot::Valid(_)));
        let had_slots = a != Slot::Absent || b != Slot::Absent;
        let (manifest, rewrite) = match manifest::choose(a, b) {
            Choice::Fresh => (Manifest { shard: id, generation: 0, ..Manifest::default() }, had_slots),
            Choice::Use(m, again) => (*m, again),
            Choice::Foreign(v) => {
                return Err(Error::Format(format!("{} was written by format {v}, this is 1", dir.display())));
            }
            Choice::Sealed(key) => {
                return Err(Error::Format(format!("{} is {}", dir.display(), crypt::absent(key))));
            }
            Choice::BothDamaged => {
                let (a, b) = (slot_path(&dir, 0), slot_path(&dir, 1));
                let what = format!(
                    "{} and {} are both damaged: what the segments there belong to is not known. Put one of the two back \
                     from a backup, or move {} away to begin without its streams",
                    a.display(),
                    b.display(),
                    dir.display()
                );
                return Err(Error::Damaged(Damage { group: None, entries: None, messages: None, what }));
            }
        };
        opts.keys.learn(&manifest.ring);
        let mut eras = manifest.eras.clone();
        // S-31: all of it is known before anything is served.
        for key in eras.needed(&manifest.files()) {
            opts.keys
                .check(key)
                .map_err(|e| Error::Format(format!("segments in {} are {e}", dir.display())))?;
        }
        let from = Round(manifest.replay_from.0.max(1));
        let (JournalScan { files, scans, referred, saved }, replay) =
            read_replay(&disk, &dir, id, &opts, from, manifest.synced, hears).await?;
        // S-26: also above what rounds name that were given up.
        let next_file = manifest.next_file.max(referred.next).max(FileId(1));
        eras.begin(next_file, opts.keys.current_id());
        let of_manifest = manifest.files();
        let leaked = referred.files.keys().filter(|f| !of_manifest.contains(f)).copied().collect();
        // It holds subjects, so where files are sealed it is one of before.
        let sealed = opts.keys.current().is_some();
        if saved && sealed && writes {
            disk.remove_file(&saved::path(&dir)).await?;
        }
        let saved = if saved && !sealed { saved::read(&disk, &dir).await } else { None };
        // S-82: what is taken from the journal may so far lie in the page cache only.
        let mut last = BTreeMap::new();
        for (number, scan) in &scans {
            let here =
                scan.rounds.iter().map(|r| r.head.round).filter(|r| *r >= from && *r <= replay.end).max();
            if let Some(l) = here {
                let known = last.entry(*number).or_insert(l);
                *known = l.max(*known);
                if writes {
                    let file = &files[number].file;
                    if let Some(head) = scan.head_anew(id, files[number].len, &opts, &replay) {
                        file.write_vectored_at(0, vec![head.encode(opts.sector)]).await?;
                    }
                    file.sync_data().await?;
                }
            }
        }
        if writes {
            referred.sync(&disk, &dir).await?;
        }
        // Also where nothing is in them: files that wait are used again, and one of an attempt that failed may be merely there.
        if !files.is_empty() && writes {
            disk.sync_dir(&dir.join("journal")).await?;
        }
        let mut journal = Journal {
            next_number: files.keys().last().map_or(1, |n| n + 1),
            epoch: Epoch(replay.epoch.0.max(manifest.epoch.0)),
            next: replay.end.next(),
            sector: opts.sector,
            key: opts.keys.current_id(),
            file_min: opts.journal_file_min,
            behind_cut: replay.is_cut_before(replay.end.next()),
            ..Journal::default()
        };
        let read = referred.rounds.iter().filter(|r| *r.0 <= replay.end);
        read.for_each(|(round, bytes)| journal.refer(*round, *bytes));
        for (number, at) in files {
            match last.get(&number) {
                Some(l) => journal.full.push(Full { at, last: *l, unsynced: false }),
                // S-84: what was cut before all that is needed tells the next opening, too, and so does what was begun behind a cut.
                None if scans.iter().any(|(n, s)| *n == number && (s.cut > 0 || s.behind_cut)) => {
                    journal.full.push(Full { at, last: replay.end.max(from), unsynced: false })
                }
                // S-23: the slots differ, so the newer one may lie in the page cache only; then the other one still needs it.
                None if rewrite => journal.full.push(Full { at, last: Round(0), unsynced: false }),
                None => journal.give_back(at),
            }
        }
        let progress = Progress { written: replay.end, synced: replay.end, poisoned: None };
        let shard = Shard {
            id,
            writer: Writer::start(&disk, &format!("journal-{id}"), opts.threads)?,
            journal: Mutex::new(journal),
            groups: Mutex::default(),
            tombs: Mutex::new(manifest.tombs.clone()),
            progress: watch::Sender::new(progress),
            round_lock: Default::default(),
            prepare_lock: Default::default(),
            flush_lock: Default::default(),
            generation: AtomicU64::new(manifest.generation),
            first_slot: AtomicUsize::new(first_slot),
            slots_synced: AtomicBool::new(false),
            replay_from: AtomicU64::new(manifest.replay_from.0),
            next_file: AtomicU64::new(next_file.0),
            leaked: Mutex::new(leaked),
            eras: Mutex::new(eras),
            kept: Mutex::default(),
            named: Mutex::new(referred.files),
            cache: Cache::new(opts.footer_cache, opts.block_cache),
            wake: Notify::new(),
            wake_flush: Notify::new(),
            wake_prepare: Notify::new(),
            wake_scrub: Notify::new(),
            wake_coming: Notify::new(),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            round_began: AtomicU64::new(0),
            damage: Mutex::default(),
            damaged: Notify::new(),
            healer: OnceLock::new(),
            healed: Mutex::default(),
            torn: replay.torn,
            losses: replay.losses().next(),
            found: (replay.end, replay.losses().next_back()),
            losses_noted: AtomicBool::new(false),
            disk,
            dir,
            opts,
        };
        let garbage = manifest.garbage.clone();
        shard.restore(manifest, replay)?;
        if let Some(saved) = saved {
            shard.take_subjects(&saved);
        }
        if !writes {
            shard.poison("it was opened for reading only");
            return Ok(Arc::new(shard));
        }
        if rewrite {
            // S-70: nothing that the older slot needs is given up before both say the same again.
            shard.leaked.lock().extend(&garbage);
            match shard.flush().await {
                Ok(_) | Err(Error::NoSpace(_)) => {}
                Err(e) => return Err(e),
            }
        } else {
            // S-82: a process that died behind the last write of a manifest may have left it in the page cache.
            for slot in 0..if had_slots { 2 } else { 0 } {
                let file = shard.disk.open(&slot_path(&shard.dir, slot), OpenOptions::READ).await?;
                file.sync_data().await?;
            }
            shard.remove_files(&garbage).await;
            shard.remove_foreign().await;
        }
        match shard.prepare().await {
            // A full disk takes no appends and still serves reads.
            Ok(_) | Err(Error::NoSpace(_) | Error::Busy) => {}
            Err(e) => return Err(e),
        }
        Ok(Arc::new(shard))
    }

    /// Builds the groups from the manifest and the journal.
    fn restore(&self, manifest: Manifest, replay: Replay) -> Result<()> {
        let mut groups: BTreeMap<GroupId, Group> = BTreeMap::new();
        for r in manifest.groups {
            let (id, memory) = (r.id, memory_option(&r.options));
            let Some(g) = Group::restore(r, memory, self.opts.counting_of(memory)) else {
                let what = format!("group {}: a deletion bitmap cannot be read", id.0);
                return Err(Error::Format(what));
            };
            groups.insert(id, g);
        }
        // An id may have begun again after its end: what comes later is the new one's.
        let mut tombs: BTreeMap<GroupId, Round> = BTreeMap::new();
        for (id, round) in &manifest.tombs {
            let last = tombs.entry(*id).or_default();
            *last = (*last).max(*round);
        }
        let mut orphans: BTreeSet<GroupId> = BTreeSet::new();
        // Rounds that are gone one after another say each how much room there is for all of them: that counts once.
        let doubt = |groups: &mut BTreeMap<GroupId, Group>, bytes: u64, goes_on: bool| {
            for g in groups.values_mut() {
                let bytes = bytes.min(self.opts.journal_file_max).max(1);
                g.doubt = if goes_on { g.doubt.max(bytes) } else { g.doubt.saturating_add(bytes) };
                // What a group voted for may have stood there too. One in memory with other members comes back as another life in any case.
                g.hard_valid &= g.memory;
            }
        };
        let mut gap = None;
        for (n, verdict) in replay.steps {
            let found = match verdict {
                Verdict::Take(f) => f,
                Verdict::Damaged(f) => {
                    self.note_damage(None, None, None, format!("round {} of the journal is damaged", n.0));
                    f
                }
                Verdict::Missing(bytes) => {
                    let what = format!("round {} of the journal is gone; what it held is not known", n.0);
                    self.note_damage(None, None, None, what);
                    // Any group may have had entries there; only what follows can tell.
                    doubt(&mut groups, bytes, gap == Some(n));
                    gap = Some(n.next());
                    continue;
                }
                Verdict::Cut(bytes) => {
                    let gone = match bytes {
                        u64::MAX => "an unknown part".to_owned(),
                        n => format!("{n} bytes"),
                    };
                    let what = format!(
                        "the journal was cut behind round {}: {gone} of it is gone; what was there is not known",
                        n.0
                    );
                    self.note_damage(None, None, None, what);
                    doubt(&mut groups, bytes, false);
                    continue;
                }
            };
            for f in found {
                self.replay(&mut groups, &tombs, &mut orphans, n, f);
            }
        }
        for id in orphans {
            let what = "the journal has entries of a group that was never created here".to_owned();
            self.note_damage(Some(id), None, None, what);
        }
        for (id, g) in &mut groups {
            if g.memory {
                g.restart_memory();
            }
            for l in &g.lost {
                self.note_lost(*id, l);
            }
            for o in &g.holes {
                self.note_hole(*id, &o.hole);
            }
        }
        *self.groups.lock() = groups.into_iter().map(|(id, g)| (id, Arc::new(Mutex::new(g)))).collect();
        Ok(())
    }

    fn replay(
        &self,
        groups: &mut BTreeMap<GroupId, Group>,
        tombs: &BTreeMap<GroupId, Round>,
        orphans: &mut BTreeSet<GroupId>,
        n: Round,
        f: Found,
    ) {
        let line = match &f {
            Found::Entry(e) | Found::Patch(e) => Frame::entry(e, true).line,
            Found::Control(l, _) | Found::Bad(l, _) | Found::Reference(l, _) => *l,
        };
        if tombs.get(&line.group).is_some_and(|end| n <= *end) {
            return;
        }
        if let (Found::Control(..), FrameKind::Create) = (&f, line.kind) {
            if let Found::Control(_, options) = f
                && !groups.contains_key(&line.group)
            {
                let memory = memory_option(&options);
                let g = Group::new(line.group, options.clone(), memory, self.opts.counting_of(memory));
                groups.insert(line.group, g);
            }
            return;
        }
        if line.kind == FrameKind::Delete {
            // Also a damaged one: its table names it, and it carries nothing else.
            if let Some(g) = groups.remove(&line.group) {
                // The manifest that was found still needs them; the next one does not.
                self.leaked.lock().extend(g.pieces.iter().map(|p| p.meta.file));
            }
            orphans.remove(&line.group);
            self.tombs.lock().push((line.group, n));
            return;
        }
        let g = groups.entry(line.group).or_insert_with(|| {
            // What it was created with is gone. Its log is kept all the same, for whoever knows what it was.
            orphans.insert(line.group);
            Group::new(line.group, Bytes::from_static(&[0]), false, self.opts.counting)
        });
        let is_log = matches!(line.kind, FrameKind::Entry | FrameKind::Patch | FrameKind::Hole);
        if is_log && (line.count > 0 || line.index <= g.last_index.next()) {
            // What is missing before it shows as a gap, in the log and in the sequences.
            g.doubt = 0;
        }
        match f {
            Found::Entry(e) => g.replay(e, n),
            Found::Patch(e) => g.replay_patch(e, n),
            Found::Reference(l, _) => g.replay_bad(l, Bytes::new(), n),
            Found::Bad(l @ Line { kind: FrameKind::Entry | FrameKind::Patch, .. }, left) => {
                g.replay_bad(l, left, n)
            }
            Found::Control(Line { kind: FrameKind::Hole, .. }, p) => {
                if let Some(h) = round::parse_hole(&p) {
                    g.replay_hole(h, n);
                }
            }
            Found::Bad(Line { kind: FrameKind::HardState, .. }, _) => g.replay_hard(None),
            Found::Control(Line { kind: FrameKind::HardState, .. }, p) => g.replay_hard(Some(p)),
            Found::Control(Line { kind: FrameKind::Truncate, index, .. }, _)
            | Found::Bad(Line { kind: FrameKind::Truncate, index, .. }, _) => {
                g.replay_truncate(index);
            }
            Found::Control(Line { kind: FrameKind::Floor, .. }, p) => {
                if let Some((s, i)) = round::parse_floor(&p) {
                    g.floor = (g.floor.0.max(s), g.floor.1.max(i));
                    // It says how far all before it went.
                    g.doubt = 0;
                }
            }
            // One that is known and cannot be read.
            Found::Bad(Line { kind: FrameKind::Floor, .. }, _) => g.doubt = g.doubt.saturating_add(1),
            Found::Control(..) | Found::Bad(..) => {}
        }
    }

    /// S-84: once all know what is gone, a flush ends what the journal keeps for telling it, and the next opening finds no doubt again.
    pub(crate) fn told(&self) {
        let kept = self.losses.is_some_and(|gone| self.replay_from.load(Ordering::Relaxed) <= gone.0);
        if !kept || !self.losses_noted.load(Ordering::Acquire) {
            return;
        }
        let (groups, synced) =
            (self.groups.lock().values().cloned().collect::<Vec<_>>(), self.progress.borrow().synced);
        if !groups.iter().any(|g| g.lock().is_doubtful(synced)) {
            self.wake_flush.notify_one();
        }
    }

    pub(crate) fn note_damage(
        &self,
        group: Option<GroupId>,
        entries: Option<(LogIndex, LogIndex)>,
        messages: Option<(StreamSeq, StreamSeq)>,
        what: String,
    ) {
        let d = Damage { group, entries, messages, what };
        let mut all = self.damage.lock();
        if !all.contains(&d) {
            all.push(d);
            self.damaged.notify_one();
        }
    }

    pub(crate) fn note_lost(&self, id: GroupId, l: &Lost) {
        let messages = (l.first_seq.0 > 0).then_some((l.first_seq, l.last_seq));
        let what = if l.sure { "lost" } else { "perhaps given and lost with the end of the journal" };
        self.note_damage(Some(id), Some((l.first, l.last)), messages, what.to_owned());
    }

    pub(crate) fn note_hole(&self, id: GroupId, h: &Hole) {
        let messages = (h.first_seq.0 > 0).then_some((h.first_seq, h.last_seq));
        self.note_damage(Some(id), Some((h.first, h.last)), messages, "cannot be read".to_owned());
    }

    // ---- appending

    /// Queues frames for the next round, all or none; the round that will hold them.
    pub(crate) fn enqueue(&self, frames: Vec<Frame>, control: bool) -> Result<Round> {
        if let Some(p) = &self.progress.borrow().poisoned {
            return Err(Error::Poisoned(p.to_string()));
        }
        let cost = frames.iter().map(Frame::cost).sum();
        let mut j = self.journal.lock();
        let reserve = if control { 0 } else { self.opts.reserve };
        if cost + reserve + 2 * self.opts.sector > self.opts.journal_file_max {
            return Err(Error::Invalid(format!("{cost} bytes are more than a journal file holds")));
        }
        let over = !control && j.is_over(cost, self.opts.journal_budget);
        match j.admit(cost, reserve) {
            Admission::Yes if !over => {}
            _ => {
                self.wake.notify_one();
                self.wake_prepare.notify_one();
                self.wake_flush.notify_one();
                return Err(match &j.no_space {
                    Some(s) => Error::NoSpace(s.clone()),
                    None => Error::Busy,
                });
            }
        }
        let round = j.next;
        for f in frames {
            j.push(f);
        }
        drop(j);
        self.wake.notify_one();
        Ok(round)
    }

    /// Whether an entry with a payload of so many bytes would be let in now, as [`Shard::enqueue`] would answer.
    pub(crate) fn room(&self, bytes: u64) -> Result<()> {
        if let Some(p) = &self.progress.borrow().poisoned {
            return Err(Error::Poisoned(p.to_string()));
        }
        // More than a frame of it costs.
        let cost = bytes + 256;
        if cost + self.opts.reserve + 2 * self.opts.sector > self.opts.journal_file_max {
            return Err(Error::Invalid(format!("{cost} bytes are more than a journal file holds")));
        }
        let mut j = self.journal.lock();
        let over = j.is_over(cost, self.opts.journal_budget);
        if j.admit(cost, self.opts.reserve) == Admission::Yes && !over {
            return Ok(());
        }
        self.wake.notify_one();
        self.wake_flush.notify_one();
        Err(match &j.no_space {
            Some(s) => Error::NoSpace(s.clone()),
            None => Error::Busy,
        })
    }

    /// Whether a group begins in the next round.
    pub(crate) fn begins_group(&self) -> bool {
        self.journal.lock().queue.iter().any(|f| f.line.kind == FrameKind::Create)
    }

    /// Writes and syncs one round of what waits; false if nothing does.
    pub(crate) async fn run_round(&self) -> Result<bool> {
        let mut laying = self.round_lock.lock().await;
        if let Some(p) = &self.progress.borrow().poisoned {
            return Err(Error::Poisoned(p.to_string()));
        }
        let synced = self.progress.borrow().synced;
        // Taken first, and given its place once it is known what of it is laid out.
        let (mut frames, cost, number, much) = {
            let mut j = self.journal.lock();
            if j.queue.is_empty() {
                return Ok(false);
            }
            if j.need(0) > j.active_left() {
                let spare = j.spare.take().expect("S-22: what was admitted has its room");
                self.rotate(&mut j, spare)?;
            }
            let number = j.next;
            j.next = number.next();
            let frames = std::mem::take(&mut j.queue);
            // S-22: nobody is let in meanwhile to the room that it may need.
            let cost = j.need(0);
            j.queued = 0;
            // Of these so much is rather referred to.
            let much: u64 = frames.iter().filter(|f| self.rather_refers(f)).map(Frame::cost).sum();
            j.refers |= much > 0;
            let active = j.active.as_mut().expect("a file was just found or rotated in");
            active.used += cost;
            (frames, cost, number, if active.refers { much } else { 0 })
        };
        self.round_began.store(env::now().0.max(1), Ordering::Relaxed);
        let sync = frames.iter().any(|f| f.sync);
        let mut referred = 0;
        if much > 0 || !laying.is_idle() {
            let pays = much > 0 && (!sync || much >= self.opts.refer_synced_min);
            referred = self.lay(&mut laying, number, &mut frames, sync, pays).await;
        }
        let (file, off, bufs, others) = {
            let mut j = self.journal.lock();
            j.refer(number, referred);
            let others: Vec<File> = j.full.iter().filter(|f| f.unsynced).map(|f| f.at.file.clone()).collect();
            let (sector, shard) = (j.sector, self.id);
            let loose = !sync && !others.is_empty() && !mutant!(self.opts, UnsyncedVouched);
            let behind_cut = j.behind_cut;
            let active = j.active.as_mut().expect("only a round takes it away");
            active.used -= cost;
            let head =
                RoundHead { shard, epoch: active.epoch, round: number, synced, off: active.used, total: 0 };
            let built = round::build(head, &frames, sector, active.key.as_ref());
            let (mut off, mut bufs) = (active.used, built.bufs);
            if active.used == sector {
                let head = FileHead {
                    shard,
                    epoch: active.epoch,
                    first: number,
                    salt: active.salt,
                    key: if active.key.is_some() {
                        self.opts.keys.current().map_or(0, |k| k.id())
                    } else {
                        0
                    },
                    len: active.at.len,
                    refers: active.refers,
                    loose,
                    behind_cut,
                };
                bufs.insert(0, head.encode(sector));
                off = 0;
            }
            let total = if mutant!(self.opts, NoPadding) {
                built.total - sector.min(built.total - sector)
            } else {
                built.total
            };
            active.used += total;
            assert!(active.used <= active.at.len, "S-22: a round outgrew its file");
            active.last = number;
            active.unsynced = !sync;
            let file = active.at.file.clone();
            j.behind_cut = false;
            j.unflushed += total + referred;
            (file, off, bufs, others)
        };
        if mutant!(self.opts, ReplyBeforeSync) {
            self.progress.send_modify(|p| (p.written, p.synced) = (number, number));
        }
        let mut r = Ok(());
        if sync {
            for f in &others {
                r = f.sync_data().await;
                if r.is_err() {
                    break;
                }
            }
            if r.is_ok() {
                r = self.sync_early(&laying.due()).await;
            }
            if r.is_ok() {
                laying.synced(number);
            }
        }
        if r.is_ok() {
            r = self.writer.write(&file, off, bufs, sync).await;
        }
        self.round_began.store(0, Ordering::Relaxed);
        if let Err(e) = r {
            return Err(self.poison(&e.to_string()));
        }
        if sync {
            self.syncs.fetch_add(1, Ordering::Relaxed);
            self.journal.lock().full.iter_mut().for_each(|f| f.unsynced = false);
        }
        self.progress.send_modify(|p| {
            // S-2: a sync beside this round may have failed, and what it could not write may be what this round needs.
            if p.poisoned.is_none() {
                p.written = number;
                p.synced = if sync { number } else { p.synced };
            }
        });
        let j = self.journal.lock();
        if j.unflushed >= self.opts.flush_bytes {
            self.wake_flush.notify_one();
        }
        if j.wants_spare() {
            self.wake_prepare.notify_one();
        }
        Ok(true)
    }

    /// S-2: nothing is written after this, and nothing that waits is called durable.
    pub(crate) fn poison(&self, why: &str) -> Error {
        self.progress.send_modify(|p| {
            p.poisoned.get_or_insert_with(|| why.into());
        });
        Error::Poisoned(why.to_owned())
    }

    /// Syncs what was written without a sync until now. Rounds go on meanwhile: what they refer to may take the disk as long as what is synced did.
    pub(crate) async fn sync(&self) -> Result<()> {
        let laying = self.round_lock.lock().await;
        self.sync_upto_here(laying).await.map(|_| ())
    }

    /// The same for a flush, which takes what grew with these rounds: the last of them. What comes after grows anew.
    pub(crate) async fn sync_for_flush(&self) -> Result<(Round, Grown)> {
        let mut laying = self.round_lock.lock().await;
        let grown = laying.take();
        self.journal.lock().unflushed = 0;
        Ok((self.sync_upto_here(laying).await?, grown))
    }

    async fn sync_upto_here(&self, laying: MutexGuard<'_, Laying>) -> Result<Round> {
        let written = {
            let p = self.progress.borrow();
            if let Some(s) = &p.poisoned {
                return Err(Error::Poisoned(s.to_string()));
            }
            if p.written <= p.synced {
                return Ok(p.synced);
            }
            p.written
        };
        let files: Vec<File> = {
            let j = self.journal.lock();
            let full = j.full.iter().filter(|f| f.unsynced).map(|f| f.at.file.clone());
            full.chain(j.active.iter().filter(|a| a.unsynced).map(|a| a.at.file.clone())).collect()
        };
        let due = laying.due();
        drop(laying);
        if let Err(e) = self.sync_early(&due).await {
            return Err(self.poison(&e.to_string()));
        }
        for f in files {
            if let Err(e) = f.sync_data().await {
                return Err(self.poison(&e.to_string()));
            }
        }
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.round_lock.lock().await.synced(written);
        let mut j = self.journal.lock();
        // Where a later round was written the next sync is still due.
        j.full.iter_mut().filter(|f| f.last <= written).for_each(|f| f.unsynced = false);
        j.active.iter_mut().filter(|a| a.last <= written).for_each(|a| a.unsynced = false);
        drop(j);
        self.progress.send_modify(|p| {
            if p.poisoned.is_none() {
                p.synced = p.synced.max(written);
            }
        });
        Ok(written)
    }

    /// Writes to segments, before their round.
    pub(crate) async fn write_all(
        &self,
        writes: Vec<(File, u64, Vec<Bytes>)>,
        cached: bool,
    ) -> std::io::Result<()> {
        self.writer.write_all(writes, cached).await
    }

    fn rotate(&self, j: &mut Journal, at: JournalFile) -> Result<()> {
        if let Some(a) = j.active.take() {
            j.full.push(Full { at: a.at, last: a.last, unsynced: a.unsynced });
        }
        let at = JournalFile { key: j.key, top: Round(0), ..at };
        j.epoch = Epoch(j.epoch.0 + 1);
        let salt = salt(&self.opts);
        let key = self.opts.keys.current().map(|k| k.for_file(&salt));
        let (epoch, used) = (j.epoch, j.sector);
        let last = Round(j.next.0 - 1);
        let began = env::now().0;
        let refers = j.refers;
        j.active = Some(Active { at, epoch, used, last, salt, key, refers, unsynced: false, began });
        Ok(())
    }

    /// Reserves the next journal file if one is due. `NoSpace` and `Busy` leave everything as it was.
    pub(crate) async fn prepare(&self) -> Result<bool> {
        let _one = self.prepare_lock.lock().await;
        let (number, len, reuse, too_small, calm) = {
            let mut j = self.journal.lock();
            if !j.wants_spare() {
                return Ok(false);
            }
            let grown = j.active.as_ref().map_or(self.opts.journal_file_min, |a| a.at.len * 2);
            let len = grown.min(self.opts.journal_file_usual).max(j.wanted).min(self.opts.journal_file_max);
            let len = len.max(self.opts.journal_file_min);
            let len = crate::codec::align(len, j.sector);
            // Without any file to write, nothing could ever be freed: one more than the budget is allowed then.
            let stuck = j.active.is_none() && j.spare.is_none();
            if j.in_use() + len > self.opts.journal_budget && !j.full.is_empty() && !stuck {
                self.wake_flush.notify_one();
                return Err(Error::Busy);
            }
            let at = j.free.iter().position(|f| f.len >= j.wanted.max(self.opts.journal_file_min));
            let reuse = at.map(|i| j.free.swap_remove(i));
            let too_small = j.spare.take();
            if reuse.is_none() {
                j.next_number += 1;
            }
            (j.next_number - 1, len, reuse, too_small, j.is_calm(env::now().0))
        };
        let made = match reuse {
            Some(f) => Ok(f),
            None => self.create_journal(number, len, calm).await,
        };
        let mut j = self.journal.lock();
        j.free.extend(too_small);
        match made {
            Ok(f) => {
                j.no_space = None;
                j.wanted = 0;
                j.spare = Some(f);
                Ok(true)
            }
            Err(e) => {
                if let Error::NoSpace(s) = &e {
                    j.no_space = Some(s.clone());
                }
                Err(e)
            }
        }
    }

    /// With `written` it is written with zeros, as one that is used again is: then a sync of what is written to it changes nothing else.
    async fn create_journal(&self, number: u64, len: u64, written: bool) -> Result<JournalFile> {
        let path = journal_path(&self.dir, number);
        // It gets its name when it is as long as it is to be: one of that name that is empty was cut (S-112).
        let unborn = path.with_extension("new");
        let file = self.disk.open(&unborn, OpenOptions::TRUNCATE).await?;
        let made = async {
            match written {
                true => file.allocate_written(0, len).await?,
                false => file.allocate(0, len).await?,
            }
            file.sync_data().await?;
            self.disk.rename(&unborn, &path).await?;
            self.disk.sync_dir(&self.dir.join("journal")).await
        };
        match made.await {
            Ok(()) => Ok(JournalFile { number, file, len, key: self.opts.keys.current_id(), top: Round(0) }),
            Err(e) => {
                drop(file);
                // It holds nothing yet: it would only be met again by the next recovery.
                self.disk.remove_file(&path).await.ok();
                self.disk.remove_file(&unborn).await.ok();
                Err(e.into())
            }
        }
    }

    /// Writes what pins old journal files, entries that are not applied yet, once more at the journal's head, if those files
    /// take more than half of the budget. Recovery skips the second copy of an entry that it has.
    ///
    /// True if something was moved: only the next manifest frees the old files.
    async fn unpin(&self) -> Result<bool> {
        let upto = {
            let j = self.journal.lock();
            let full = j.full.iter().map(|f| f.last).max();
            let upto = match self.opts.journal_budget / 2 {
                half if j.in_use() > half => full,
                // What the rounds of the file that is written refer to is in memory too.
                half if j.is_over(0, half) => full.max(j.referred.back().map(|r| r.0)),
                _ => None,
            };
            let Some(upto) = upto else { return Ok(false) };
            upto
        };
        let groups: Vec<_> = self.groups.lock().values().cloned().collect();
        let mut moved = Vec::new();
        for group in groups {
            let g = group.lock();
            if g.memory || !g.pins(upto) {
                continue;
            }
            // The whole tail in one round: a copy of its first part alone would come after the rest in replay.
            let last = g.last_index;
            let frames = g.tail_frames();
            match self.enqueue(frames, true) {
                Ok(round) => moved.push((group.clone(), last, round)),
                Err(Error::Busy | Error::NoSpace(_)) => break,
                // Longer than a journal file: it stays where it is until it is applied.
                Err(Error::Invalid(_)) => {}
                Err(e) => return Err(e),
            }
        }
        while self.run_round().await? {}
        let any = !moved.is_empty();
        for (group, last, round) in moved {
            // Only now: a manifest may give the old copy up once the new one is durable, not before.
            group.lock().moved(last, round);
        }
        Ok(any)
    }

    /// A flush, and another one if what it left behind had to be moved.
    pub(crate) async fn flush_all(&self) -> Result<()> {
        self.flush().await?;
        if self.unpin().await? {
            self.flush().await?;
        }
        Ok(())
    }

    /// The clean end, after its flush, when nothing is taken any more: journal files without a round that is needed go, also the one that was written last,
    /// so that the next start does not read through them; a small one that was never written waits for it in their place. Dictionaries are kept for it.
    pub(crate) async fn leave(&self) {
        self.save_subjects().await;
        // A round that began before the end may still want the file that waits.
        let _round = self.round_lock.lock().await;
        let _one = self.prepare_lock.lock().await;
        let needed = Round(self.replay_from.load(Ordering::Relaxed));
        let (free, next) = {
            let mut j = self.journal.lock();
            j.left = true;
            let (spare, done) = (j.spare.take(), j.active.take_if(|a| a.last < needed));
            let next = (j.active.is_none() && j.full.is_empty()).then_some(j.next_number);
            j.next_number += u64::from(next.is_some());
            (j.free.drain(..).chain(spare).chain(done.map(|a| a.at)).collect::<Vec<_>>(), next)
        };
        for f in free {
            // S-23: no round in it is needed, also if the removal does not reach the disk.
            self.disk.remove_file(&journal_path(&self.dir, f.number)).await.ok();
        }
        if let Some(number) = next {
            // Without it the next start makes one.
            self.create_journal(number, self.opts.journal_file_min, false).await.ok();
        }
    }

    /// Bytes of pieces that another key than the one of today has sealed, or none has.
    pub(crate) fn foreign_bytes(&self) -> u64 {
        let (eras, key) = (self.eras.lock().clone(), self.opts.keys.current_id());
        let groups: Vec<_> = self.groups.lock().values().cloned().collect();
        let of = |g: &Arc<Mutex<Group>>| {
            let g = g.lock();
            let all = g.pieces.iter().filter(|p| eras.key_of(p.meta.file) != key);
            all.map(|p| p.meta.size()).sum::<u64>()
        };
        groups.iter().map(of).sum()
    }

    /// Removes journal files that are not used again. What fails is tried again by the next flush, or opening.
    pub(crate) async fn remove_foreign(&self) {
        let gone: Vec<u64> = self.journal.lock().foreign.iter().map(|f| f.number).collect();
        if gone.is_empty() {
            return;
        }
        let mut removed = BTreeSet::new();
        for number in gone {
            // S-23: no round in it is needed.
            match self.disk.remove_file(&journal_path(&self.dir, number)).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {}
                _ => drop(removed.insert(number)),
            }
        }
        // S-32: until that is durable a crash may bring them back, and with them rounds that were given up: their keys stay in the ring.
        if self.disk.sync_dir(&self.dir.join("journal")).await.is_ok() {
            self.journal.lock().foreign.retain(|f| !removed.contains(&f.number));
        }
    }

    /// Removes segment files that a durable manifest has declared garbage. What fails is left for the next opening.
    pub(crate) async fn remove_files(&self, ids: &[FileId]) {
        for id in ids {
            let named = self.named.lock().contains_key(id) && !mutant!(self.opts, ReferenceRemoved);
            if named || self.kept.lock().contains_key(id) {
                // Later then, and also after a crash.
                self.leaked.lock().push(*id);
                continue;
            }
            self.cache.forget(*id);
            self.disk.remove_file(&segment_path(&self.dir, *id)).await.ok();
        }
    }

    pub(crate) fn group(&self, id: GroupId) -> Result<Arc<Mutex<Group>>> {
        self.groups.lock().get(&id).cloned().ok_or(Error::NoGroup(id))
    }
}

/// Whether a group's options say that its bodies stay in memory: the first byte is 1.
pub(crate) fn memory_option(options: &[u8]) -> bool {
    options.first() == Some(&1)
}

fn forget_vouchers(mut f: FileScan) -> FileScan {
    f.rounds.iter_mut().for_each(|r| r.head.synced = Round(0));
    f
}

pub(crate) async fn read_slot(disk: &Disk, path: &Path, opts: &Options) -> Result<Slot> {
    let file = match disk.open(path, OpenOptions::READ).await {
        Ok(f) => f,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Slot::Absent),
        Err(e) => return Err(e.into()),
    };
    let mut slot = Slot::Absent;
    // A transient fault must not look like damage.
    for _ in 0..3 {
        let len = usize::try_from(file.len().await?).unwrap_or(usize::MAX);
        slot = Manifest::decode(&file.scan_at(0, len).await?, &opts.keys);
        if !matches!(slot, Slot::Damaged) {
            break;
        }
    }
    Ok(slot)
}

/// Reads the journal and says what it means. Before anything in it is called bad it is read again: what one reading gave
/// wrong another one gives right, and no reading makes a good round of a bad one.
pub(crate) async fn read_replay(
    disk: &Disk,
    dir: &Path,
    id: u32,
    opts: &Options,
    from: Round,
    synced: Round,
    hears: Hears<'_>,
) -> Result<(JournalScan, Replay)> {
    let mut best: Option<(JournalScan, Replay)> = None;
    let mut progress = Reading::default();
    for _ in 0..3 {
        let scan = read_journal(disk, dir, id, opts, from, &mut |n, of| {
            progress = Reading { read: progress.read + n, total: progress.total.max(of) };
            hears(&progress);
        })
        .await?;
        let found: Vec<FileScan> = scan.scans.iter().map(|s| s.1.clone()).collect();
        let replay = if mutant!(opts, TruncateOnDamage) {
            classify(found.into_iter().map(forget_vouchers).collect(), from, Round(0))
        } else {
            classify(found, from, synced)
        };
        let whole = !replay.torn && replay.damaged() == 0;
        let merit = |r: &Replay| (r.end, Reverse((r.damaged(), r.cuts().map(|c| c.1).max())));
        let better = best.as_ref().is_none_or(|(_, b)| merit(&replay) > merit(b));
        if better {
            best = Some((scan, replay));
        }
        if whole {
            break;
        }
    }
    Ok(best.expect("it was read at least once"))
}

/// What is in the journal's directory.
pub(crate) struct JournalScan {
    pub files: BTreeMap<u64, JournalFile>,
    pub scans: Vec<(u64, FileScan)>,
    pub referred: Referred,
    /// The dictionaries of a clean end are there.
    pub saved: bool,
}

async fn read_journal(
    disk: &Disk,
    dir: &Path,
    id: u32,
    opts: &Options,
    from: Round,
    read: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<JournalScan> {
    let (mut files, mut scans, mut saved) = (BTreeMap::new(), Vec::new(), false);
    let mut referred = Referred::default();
    let there = disk.read_dir(&dir.join("journal")).await?;
    let total = there.iter().map(|e| e.len).sum();
    for e in there {
        saved |= e.name == saved::NAME;
        let Some(number) = e.name.strip_suffix(".fj").and_then(|n| n.parse().ok()) else { continue };
        let file = disk.open(&journal_path(dir, number), OpenOptions::EDIT).await?;
        let len = file.len().await?;
        let bytes = read_twice(&file, usize::try_from(len).unwrap_or(usize::MAX)).await?;
        read(len, total);
        if let Some(v) = FileHead::foreign_version(&bytes) {
            return Err(Error::Format(format!(
                "journal file {} was written by format {v}, this knows 1 and 2",
                e.name
            )));
        }
        let head = FileHead::decode(&bytes).filter(|h| h.shard == id);
        let newest = round::guess_epoch(&bytes, id, opts.sector);
        let mut top = Round(0);
        let epoch = head.map(|h| h.epoch).or(newest);
        let is_cut = |epoch, rounds: &[Scanned]| {
            round::is_cut(&bytes, id, (epoch, rounds), opts.sector, opts.journal_file_min)
        };
        // Of a file that nothing is known of, not even how long it was, and where it belongs: the log may have ended in it.
        if epoch.is_none() && is_cut(None, &[]) {
            scans.push((number, FileScan::nameless()));
        }
        if let Some(epoch) = epoch {
            let (key, absent) = match head.map(|h| opts.keys.of_file(h.key, &h.salt)) {
                Some(Ok(key)) => (key, None),
                Some(Err(e)) => (None, Some(e)),
                None => (None, None),
            };
            let mut rounds = round::scan(&bytes, id, epoch, opts.sector, key.as_ref());
            top = rounds.iter().map(|r| r.head.round).max().unwrap_or(top);
            // S-31: without its key a file still says which rounds are in it. One that is not needed is passed over.
            if let Some(e) = absent
                && top >= from
            {
                return Err(Error::Format(format!("the journal in {} is {e}", dir.display())));
            }
            if head.is_none() {
                without_key(&mut rounds, opts);
            }
            if mutant!(opts, StaleRecycledRound) {
                for e in (1..epoch.0).rev() {
                    rounds.extend(round::scan(&bytes, id, Epoch(e), opts.sector, key.as_ref()));
                }
            }
            // A header that is older than what stands behind it was never replaced, though a sync said so: what it says of its own use
            // goes for nothing, and the rounds are those of the newer one. Without its salt what was sealed there stays so.
            if let (Some(h), Some(newer)) = (head, newest.filter(|n| head.is_some_and(|h| h.epoch < *n))) {
                let mut rounds = round::scan(&bytes, id, newer, opts.sector, None);
                without_key(&mut rounds, opts);
                let cut = h.len.saturating_sub(len);
                let scan = FileScan { epoch: newer, newest: newer, rounds, cut, ..FileScan::default() };
                scans.push((number, scan));
            }
            let cut = match head {
                Some(_) if newest > Some(epoch) => 0,
                Some(h) => h.len.saturating_sub(len),
                None if is_cut(Some(epoch), &rounds) => u64::MAX,
                None => 0,
            };
            scans.push((
                number,
                FileScan {
                    epoch,
                    newest: newest.unwrap_or(epoch),
                    first: head.map(|h| h.first),
                    loose: head.is_some_and(|h| h.loose),
                    behind_cut: head.is_some_and(|h| h.behind_cut),
                    rounds,
                    cut,
                },
            ));
        }
        // One without a header is used again: what stands in it is not known.
        let sealed = head.map_or(opts.keys.current_id(), |h| h.key);
        files.insert(number, JournalFile { number, file, len, key: sealed, top });
    }
    for (_, scan) in &mut scans {
        referred.follow(disk, dir, from, &mut scan.rounds).await?;
    }
    Ok(JournalScan { files, scans, referred, saved })
}

/// What may be sealed in a file whose header is gone cannot be told from what is plain: entries show it by their own checksums, frames that
/// are opaque here do not.
fn without_key(rounds: &mut [Scanned], opts: &Options) {
    if opts.keys.current().is_none() {
        return;
    }
    for f in rounds.iter_mut().flat_map(|r| &mut r.found) {
        if let Found::Control(line, payload) = f
            && !payload.is_empty()
        {
            *f = Found::Bad(*line, Bytes::new());
        }
    }
}

/// Bytes of a journal file that are read at once, in memory that goes round.
const SCAN_CHUNK: usize = 1 << 20;

/// Reads until two readings agree: a flip on the way from the disk must not look like a torn tail.
async fn read_twice(file: &File, len: usize) -> Result<Bytes> {
    let mut last = read_whole(file, len).await?;
    for _ in 0..4 {
        if reads_as(file, &last, len).await? {
            break;
        }
        last = read_whole(file, len).await?;
    }
    Ok(last)
}

async fn read_whole(file: &File, len: usize) -> Result<Bytes> {
    let mut all = Vec::with_capacity(len);
    while all.len() < len {
        let part = file.disk_at(all.len() as u64, SCAN_CHUNK.min(len - all.len())).await?;
        if part.is_empty() {
            break;
        }
        all.extend_from_slice(&part);
    }
    Ok(all.into())
}

/// Whether another reading gives the same.
async fn reads_as(file: &File, bytes: &Bytes, len: usize) -> Result<bool> {
    let mut at = 0;
    while at < len {
        let part = file.disk_at(at as u64, SCAN_CHUNK.min(len - at)).await?;
        if part.is_empty() {
            break;
        }
        if bytes.get(at..at + part.len()) != Some(&part[..]) {
            return Ok(false);
        }
        at += part.len();
    }
    Ok(at == bytes.len())
}

/// What the layer above gets when it asks for a group's options.
pub(crate) fn options_bytes(memory: bool, rest: &[u8]) -> Bytes {
    let mut v = vec![u8::from(memory)];
    v.extend_from_slice(rest);
    v.into()
}
