//! The store as the layers above see it: shards, groups, the log of a group and the stream that it is.
//!
//! Owns the handles. Decides nothing that a stream decides: what is deleted, evicted or expired is told from above, as
//! part of applying the log, and becomes durable with the group's next checkpoint.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use env::disk::Lock;
use parking_lot::Mutex;

use crate::{
    cache::Coming,
    feet::{Need, Pins, What},
    group::{Group as State, Piece},
    heal::Healer,
    io::Disk,
    manifest::{Checkpoint, Lost, Totals},
    options::Options,
    read::Fetched,
    record::{Entry, Head, Message, NewEntry},
    round::{self, Frame, FrameKind},
    scrub::{Cursor, ScrubReport},
    shard::{Progress, Reading, Shard, memory_option, options_bytes},
    transfer::{Incoming, Outgoing, Taken},
    types::{Damage, Durable, Error, GroupId, LogIndex, Result, Round, StreamSeq},
    view::View,
};

/// Pause before a flush is tried again that failed or has freed no room, and before a journal file is asked for again.
const AGAIN: Duration = Duration::from_millis(50);

/// How an append becomes acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sync {
    /// After the sync that covers it.
    #[default]
    Always,
    /// Once it is written; it is synced with the next round that somebody waits for, after
    /// [`Options::sync_interval`], or by [`Store::sync`]. The death of the process takes nothing back, a power failure may.
    Relaxed,
}

/// A store on one directory.
#[derive(Clone)]
pub struct Store {
    shards: Arc<Shards>,
}

/// The shards of a store; the end of the last handle ends the background work.
struct Shards {
    all: Vec<Arc<Shard>>,
    /// The directory is this process's. Handed to the background work, since without it nothing is written: a runtime that
    /// ends frees the directory, whoever still holds a handle.
    lock: Mutex<Option<Arc<Lock>>>,
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shards {
    fn close(&self) {
        for s in &self.all {
            s.closed.store(true, Ordering::Release);
            s.poison("the store was closed");
            s.wake.notify_one();
            s.wake_flush.notify_one();
            s.wake_prepare.notify_one();
            s.wake_scrub.notify_one();
            s.wake_coming.notify_one();
            s.damaged.notify_one();
        }
    }
}

/// One group of a store.
#[derive(Clone)]
pub struct Group {
    pub(crate) shard: Arc<Shard>,
    pub(crate) state: Arc<Mutex<State>>,
    id: GroupId,
}

/// Tells what is damaged, also what was found before.
pub struct DamageWatch {
    shard: Arc<Shard>,
    told: usize,
}

impl DamageWatch {
    /// The next damage; `None` once the store has ended.
    pub async fn next(&mut self) -> Option<Damage> {
        loop {
            if let Some(d) = self.shard.damage.lock().get(self.told) {
                self.told += 1;
                return Some(d.clone());
            }
            if self.shard.closed.load(Ordering::Acquire) {
                return None;
            }
            self.shard.damaged.notified().await;
        }
    }
}

/// A promise of the journal: redeem it for a [`Durable`].
#[derive(Clone, Debug)]
pub struct Ticket {
    round: Round,
    sync: Sync,
    progress: env::watch::Receiver<Progress>,
}

impl Ticket {
    /// The journal round that will make it durable.
    pub fn round(&self) -> Round {
        self.round
    }
    /// `Some` once the sync that covers it has completed (S-1), or once it never will (S-2).
    pub fn poll(&self) -> Option<Result<Durable<Round>>> {
        let p = self.progress.borrow();
        if p.synced >= self.round {
            return Some(Ok(Durable::covered(self.round)));
        }
        p.poisoned.as_ref().map(|s| Err(Error::Poisoned(s.to_string())))
    }
    /// Waits for the sync that covers it.
    pub async fn durable(mut self) -> Result<Durable<Round>> {
        loop {
            if let Some(r) = self.poll() {
                return r;
            }
            if self.progress.changed().await.is_err() {
                return Err(Error::Poisoned("the store was closed".to_owned()));
            }
        }
    }
    /// `Some` once what its append asked for has happened: the sync that covers it, or with [`Sync::Relaxed`] the write; or once it never will.
    pub fn poll_settled(&self) -> Option<Result<()>> {
        match self.sync {
            Sync::Always => self.poll().map(|r| r.map(drop)),
            Sync::Relaxed => self.poll_written(),
        }
    }
    /// Waits for what its append asked for: the sync, or with [`Sync::Relaxed`] the write.
    pub async fn settled(self) -> Result<()> {
        match self.sync {
            Sync::Always => self.durable().await.map(drop),
            Sync::Relaxed => self.written().await,
        }
    }
    fn poll_written(&self) -> Option<Result<()>> {
        let p = self.progress.borrow();
        if p.written >= self.round {
            return Some(Ok(()));
        }
        p.poisoned.as_ref().map(|s| Err(Error::Poisoned(s.to_string())))
    }
    /// Waits until it is written, which a power failure may take back.
    pub async fn written(mut self) -> Result<()> {
        loop {
            if let Some(done) = self.poll_written() {
                return done;
            }
            if self.progress.changed().await.is_err() {
                return Err(Error::Poisoned("the store was closed".to_owned()));
            }
        }
    }
}

/// What a read of a message found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// There is none, and that is right.
    Absent,
    /// The message, as its record; see [`Stored::message`].
    Valid(Stored),
    /// There was one, and it cannot be read.
    Damaged(Damage),
}

/// A message's record, checked when it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    group: GroupId,
    record: Bytes,
}

impl Stored {
    pub(crate) fn new(group: GroupId, record: Bytes) -> Stored {
        Stored { group, record }
    }
    /// The message.
    pub fn message(&self) -> Message<'_> {
        Message::parse(&self.record).expect("S-10: a record is checked before it gets here")
    }
    /// The record's bytes, as they are replicated.
    pub fn record(&self) -> &Bytes {
        &self.record
    }
    /// The same to keep.
    pub fn into_record(self) -> Bytes {
        self.record
    }
}

/// What indexes the pieces of a group, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Footprint {
    /// Pieces.
    pub pieces: u64,
    /// Blocks on disk: the log itself.
    pub log: u64,
    /// Footers on disk.
    pub stored: u64,
    /// Memory that all sparse indexes take if all are kept, and what is known of each piece.
    pub sparse: u64,
    /// Memory that the marks of deleted messages take, about.
    pub deletions: u64,
}

/// A stream's totals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamState {
    /// The first live message; one more than `last` if there is none.
    pub first: StreamSeq,
    /// The last sequence given.
    pub last: StreamSeq,
    /// Live messages.
    pub msgs: u64,
    /// What they count for.
    pub bytes: u64,
    /// Sequences from `first` to `last` that are not live.
    pub deleted: u64,
    /// When the last message came, in nanoseconds since 1970; 0 if none ever did.
    pub last_time: i64,
}

impl Store {
    /// Opens the store in `dir`, recovering what is there.
    pub async fn open(disk: impl Into<Disk>, dir: impl Into<PathBuf>, opts: Options) -> Result<Store> {
        let (disk, dir) = (disk.into(), dir.into());
        disk.create_dir_all(&dir).await?;
        let lock = Self::lock(&disk, &dir.join("lock"), opts.lock_wait).await?.map(Arc::new);
        // The number of shards is what is there: a group never moves.
        let there = disk.read_dir(&dir).await?;
        let count = there.iter().filter(|e| e.is_dir && e.name.starts_with("shard-")).count() as u32;
        let count = if count == 0 { opts.shards.max(1) } else { count };
        let mut shards = Vec::new();
        for id in 0..count {
            let path = dir.join(format!("shard-{id:03}"));
            shards.push(Shard::open(disk.clone(), path, id, opts.clone(), true, &mut |_| {}).await?);
        }
        Ok(Store { shards: Arc::new(Shards { all: shards, lock: Mutex::new(lock) }) })
    }

    /// Opens the store in `dir` to look at it: nothing is changed but that the directory is locked meanwhile, nothing can be appended,
    /// and [`Store::spawn`] is not to be called.
    ///
    /// # Errors
    /// As for [`Store::open`]; also if there is no store.
    pub async fn open_to_read(
        disk: impl Into<Disk>,
        dir: impl Into<PathBuf>,
        opts: Options,
    ) -> Result<Store> {
        Self::open_to_read_with(disk, dir, opts, |_| {}).await
    }

    /// The same; tells after each file of a journal how far the reading of that journal is.
    pub async fn open_to_read_with(
        disk: impl Into<Disk>,
        dir: impl Into<PathBuf>,
        opts: Options,
        mut hears: impl FnMut(&Reading) + Send,
    ) -> Result<Store> {
        let (disk, dir) = (disk.into(), dir.into());
        let there = disk.read_dir(&dir).await?;
        let count = there.iter().filter(|e| e.is_dir && e.name.starts_with("shard-")).count() as u32;
        if count == 0 {
            return Err(Error::Format(format!("{} holds no store", dir.display())));
        }
        let lock = Self::lock(&disk, &dir.join("lock"), opts.lock_wait).await?.map(Arc::new);
        let mut shards = Vec::new();
        for id in 0..count {
            let path = dir.join(format!("shard-{id:03}"));
            shards.push(Shard::open(disk.clone(), path, id, opts.clone(), false, &mut hears).await?);
        }
        Ok(Store { shards: Arc::new(Shards { all: shards, lock: Mutex::new(lock) }) })
    }

    /// A process that is just ending has the directory for a moment still.
    async fn lock(disk: &Disk, path: &Path, wait: Duration) -> Result<Option<Lock>> {
        let until = env::now() + wait;
        loop {
            match disk.lock(path).await {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && env::now() < until => {
                    env::time::sleep(Duration::from_millis(10).min(wait)).await;
                }
                r => return Ok(r?),
            }
        }
    }

    /// Spawns each shard's background work on the current worker: rounds, new journal files, and flushes when they are due.
    /// It ends when the last handle of the store is dropped, or with the runtime.
    pub fn spawn(&self) {
        let held = self.shards.lock.lock().take();
        for s in &self.shards.all {
            let (shard, lock) = (s.clone(), held.clone());
            env::spawn(async move {
                Self::journal(shard).await;
                drop(lock);
            });
            if let Some(interval) = s.opts.sync_interval {
                // A store that was closed has nothing that it would sync, so its lock is not held.
                env::spawn(Self::sync_late(s.clone(), interval));
            }
            let (shard, lock) = (s.clone(), held.clone());
            env::spawn(async move {
                while !shard.closed.load(Ordering::Acquire) {
                    shard.wake_prepare.notified().await;
                    // Whoever finds no room asks for a file again and again; a full disk is not asked as often.
                    if shard.prepare().await.is_err() {
                        env::time::sleep(AGAIN).await;
                    }
                }
                drop(lock);
            });
            let (shard, lock) = (s.clone(), held.clone());
            env::spawn(async move {
                while shard.progress.borrow().poisoned.is_none() {
                    shard.wake_flush.notified().await;
                    // A failed flush changed nothing; the next append that finds no room wakes it again, as does whoever misses a journal file
                    // below. Where it cannot help for now, as on a full disk, it is not tried without a pause.
                    let flushed = shard.flush_all().await.is_ok();
                    if shard.prepare().await.is_err() || !flushed {
                        env::time::sleep(AGAIN).await;
                    }
                }
                drop(lock);
            });
            let (shard, lock) = (s.clone(), held.clone());
            env::spawn(async move {
                while !shard.closed.load(Ordering::Acquire) {
                    shard.wake_coming.notified().await;
                    shard.open_coming().await;
                }
                drop(lock);
            });
            if s.foreign_bytes() > 0 {
                env::spawn(Self::reseal(s.clone()));
            }
            if s.opts.scrub_rate > 0 {
                let (rate, pause, shard) = (s.opts.scrub_rate, s.opts.scrub_pause, s.clone());
                env::spawn(async move {
                    // Not at once: a start has better things to do.
                    env::select! {
                        () = env::time::sleep(pause) => {}
                        () = shard.wake_scrub.notified() => {}
                    }
                    shard.scrub_forever(rate, pause).await;
                });
            }
        }
    }

    /// Flushes until nothing is left that is sealed otherwise than it would be today. What cannot be read cannot be sealed anew either, and
    /// is tried ever more seldom.
    async fn reseal(shard: Arc<Shard>) {
        let (mut left, mut pause) = (shard.foreign_bytes(), shard.opts.reseal_pause);
        while left > 0 && !shard.closed.load(Ordering::Acquire) {
            env::time::sleep(pause).await;
            shard.flush_all().await.ok();
            let now = shard.foreign_bytes();
            let longest = Duration::from_secs(3600);
            pause = if now < left { shard.opts.reseal_pause } else { (pause * 2).min(longest) };
            left = now;
        }
    }

    /// Bytes of segments that are sealed with an earlier key, or not sealed although there is a key now: they are sealed anew in the background.
    pub fn foreign_bytes(&self) -> u64 {
        self.shards.all.iter().map(|s| s.foreign_bytes()).sum()
    }

    /// Syncs what relaxed rounds left, an interval after the first of them. Rounds go on meanwhile.
    async fn sync_late(shard: Arc<Shard>, interval: Duration) {
        let mut progress = shard.progress.subscribe();
        loop {
            let unsynced = {
                let p = progress.borrow_and_update();
                if p.poisoned.is_some() {
                    return;
                }
                p.written > p.synced
            };
            if unsynced {
                env::time::sleep(interval).await;
                if shard.sync().await.is_err() {
                    return;
                }
            } else if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Runs a shard's rounds.
    async fn journal(shard: Arc<Shard>) {
        loop {
            let more = match shard.run_round().await {
                Ok(more) => more,
                Err(_) => return,
            };
            if !more {
                shard.wake.notified().await;
            }
            if !more && shard.begins_group() {
                // What a group writes first comes from tasks that are ready on this worker by now: all of it goes into one round.
                env::give_way().await;
            }
        }
    }

    /// Begins a pass of the background scrub now.
    pub fn scrub_now(&self) {
        self.shards.all.iter().for_each(|s| s.wake_scrub.notify_one());
    }

    /// Reads all that lies in segments and compares every checksum.
    pub async fn verify(&self) -> Result<ScrubReport> {
        self.verify_with(|_| {}).await
    }

    /// The same; tells now and then how far it is.
    pub async fn verify_with(&self, mut progress: impl FnMut(&ScrubReport)) -> Result<ScrubReport> {
        let mut all = ScrubReport { done: true, ..ScrubReport::default() };
        for s in &self.shards.all {
            let mut cursor = Cursor::default();
            loop {
                let step = s.scrub(&mut cursor, 1 << 20).await?;
                all.bytes += step.bytes;
                all.pieces += step.pieces;
                all.damage.extend(step.damage);
                progress(&all);
                if step.done {
                    break;
                }
            }
        }
        Ok(all)
    }

    /// Makes all that was appended so far durable.
    pub async fn sync(&self) -> Result<()> {
        for s in &self.shards.all {
            while s.run_round().await? {}
            s.sync().await?;
        }
        Ok(())
    }

    /// The clean end: all that was appended is made durable and flushed, then nothing is taken any more. The directory is
    /// free once the background work has noticed.
    pub async fn close(self) -> Result<()> {
        for s in &self.shards.all {
            s.closing.store(true, Ordering::Release);
            let groups: Vec<_> = s.groups.lock().values().cloned().collect();
            groups.iter().map(|g| g.lock()).filter(|g| g.memory).for_each(|mut g| g.end_memory());
        }
        let done = match self.sync().await {
            Ok(()) => self.flush().await,
            Err(e) => Err(e),
        };
        // Nothing is taken from here on.
        self.shards.close();
        if done.is_ok() {
            for s in &self.shards.all {
                s.leave().await;
            }
        }
        done
    }

    /// One step of background work on every shard, for those that drive it themselves: a round of what waits, and the next
    /// journal file if one is due.
    pub async fn step(&self) -> Result<()> {
        for s in &self.shards.all {
            while s.run_round().await? {}
            match s.prepare().await {
                Ok(_) | Err(Error::NoSpace(_) | Error::Busy) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Makes every shard's checkpoints and applied entries durable in pieces and frees the journal behind them. Also the
    /// clean shutdown.
    pub async fn flush(&self) -> Result<()> {
        for s in &self.shards.all {
            s.flush_all().await?;
        }
        Ok(())
    }

    /// The shards, for those who look inside.
    #[cfg(any(test, feature = "l1"))]
    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards.all
    }

    fn shard(&self, id: GroupId) -> &Arc<Shard> {
        &self.shards.all[(id.0 % self.shards.all.len() as u64) as usize]
    }

    /// Begins a group. An id may be used again once its end is durable: nothing of what it was then comes back. With `memory`, only
    /// hard states and floors are durable.
    ///
    /// # Errors
    /// Among others: the group is there, or its end is not durable yet.
    pub fn create(&self, id: GroupId, memory: bool, options: &[u8]) -> Result<(Group, Ticket)> {
        self.create_with(id, memory, options, Sync::Always)
    }

    /// The same; with [`Sync::Relaxed`] no sync is made for it, and a later append's covers it. A memory group needs one, for its numbers (S-55).
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn create_with(
        &self,
        id: GroupId,
        memory: bool,
        options: &[u8],
        sync: Sync,
    ) -> Result<(Group, Ticket)> {
        let shard = self.shard(id);
        let options = options_bytes(memory, options);
        let synced = shard.progress.borrow().synced;
        // Replay tells the two by their rounds.
        if shard.tombs.lock().iter().any(|t| t.0 == id && t.1 > synced) {
            return Err(Error::Invalid(format!("group {} has not ended for good yet", id.0)));
        }
        let mut groups = shard.groups.lock();
        if groups.contains_key(&id) {
            return Err(Error::Invalid(format!("group {} exists", id.0)));
        }
        let mut state = State::new(id, options.clone(), memory, shard.opts.counting_of(memory));
        let mut frames = vec![Frame::control(FrameKind::Create, id, LogIndex(0), options)];
        // S-55: the first numbers are reserved together with the creation, so that nothing waits for them later.
        let floor = state.next_floor(StreamSeq(0), LogIndex(0)).filter(|_| memory);
        if let Some(f) = floor {
            frames.push(Frame::control(FrameKind::Floor, id, LogIndex(0), round::floor(f.0, f.1)));
        }
        frames.iter_mut().for_each(|f| f.sync = memory || sync == Sync::Always);
        let round = shard.enqueue(frames, true)?;
        if let Some(f) = floor {
            state.set_floor(f, round);
        }
        let state = Arc::new(Mutex::new(state));
        groups.insert(id, state.clone());
        drop(groups);
        let group = Group { shard: shard.clone(), state, id };
        let ticket = group.ticket(round);
        Ok((group, ticket))
    }

    /// A group that is there.
    pub fn group(&self, id: GroupId) -> Result<Group> {
        let shard = self.shard(id);
        Ok(Group { shard: shard.clone(), state: shard.group(id)?, id })
    }

    /// All groups, by id.
    pub fn groups(&self) -> Vec<GroupId> {
        let mut all: Vec<GroupId> = self
            .shards
            .all
            .iter()
            .flat_map(|s| s.groups.lock().keys().copied().collect::<Vec<_>>())
            .collect();
        all.sort_unstable();
        all
    }

    /// Ends a group, on the word of a committed deletion.
    pub fn delete(&self, id: GroupId) -> Result<Ticket> {
        let shard = self.shard(id);
        let group = self.group(id)?;
        // A flush that does not see the tomb here must meet the group's end in its replay.
        let mut tombs = shard.tombs.lock();
        let frame = Frame::control(FrameKind::Delete, id, LogIndex(0), Bytes::new());
        let round = shard.enqueue(vec![frame], true)?;
        tombs.push((id, round));
        shard.groups.lock().remove(&id);
        let files: Vec<_> = {
            let mut state = group.state.lock();
            state.deleted = true;
            state.pieces.iter().map(|p| p.meta.file).collect()
        };
        // Garbage with the first manifest in which no other group needs them.
        shard.leaked.lock().extend(files);
        drop(tombs);
        Ok(group.ticket(round))
    }

    /// What was found damaged or lost so far.
    pub fn damage(&self) -> Vec<Damage> {
        self.shards.all.iter().flat_map(|s| s.damage.lock().clone()).collect()
    }

    /// Tells of damage as it is found, one watch a shard. To be taken once.
    pub fn watch_damage(&self) -> Vec<DamageWatch> {
        self.shards.all.iter().map(|s| DamageWatch { shard: s.clone(), told: 0 }).collect()
    }

    /// Who is asked for messages that are damaged here. Only the first one counts.
    pub fn heal_with(&self, healer: &Arc<dyn Healer>) {
        for s in &self.shards.all {
            s.healer.set(healer.clone()).ok();
        }
    }

    /// Whether opening gave up a last round that nothing vouches for. After a power failure that is what a write under way
    /// leaves; after anything else it is a damaged last round, which cannot be told from it.
    pub fn torn_tail(&self) -> bool {
        self.shards.all.iter().any(|s| s.torn)
    }

    /// Whoever had to know that rounds are gone ([`Store::lost_rounds`]) has noted it durably: the next opening need not find it again, once no group is
    /// doubtful any more ([`Group::is_doubtful`]).
    pub fn losses_noted(&self) {
        for s in &self.shards.all {
            s.losses_noted.store(true, Ordering::Release);
            s.told();
        }
    }

    /// Whether opening met rounds of the journal that are gone altogether: what they held is not known, which may be whole groups.
    pub fn lost_rounds(&self) -> bool {
        self.shards.all.iter().any(|s| s.losses.is_some())
    }

    /// Of each shard's journal: the last round that opening found, and the last of those that [`Store::lost_rounds`] speaks of. See
    /// [`Store::synced_rounds`].
    pub fn found_rounds(&self) -> Vec<(u32, Round, Option<Round>)> {
        self.shards.all.iter().map(|s| (s.id, s.found.0, s.found.1)).collect()
    }

    /// Of each shard's journal the last round that is durable, if this life has written one. Who notes it when it has dealt with what is gone knows at the next
    /// opening whether more is: what is gone is later then, or the journal ends before the round.
    pub fn synced_rounds(&self) -> Vec<(u32, Round)> {
        let wrote = |s: &Arc<Shard>| {
            let synced = s.progress.borrow().synced;
            (synced > s.found.0).then_some((s.id, synced))
        };
        self.shards.all.iter().filter_map(wrote).collect()
    }

    /// Bytes that lie in segments: what [`Store::verify`] reads.
    pub fn segment_bytes(&self) -> u64 {
        let groups: Vec<_> = self
            .shards
            .all
            .iter()
            .flat_map(|s| s.groups.lock().values().cloned().collect::<Vec<_>>())
            .collect();
        groups.iter().map(|g| g.lock().pieces.iter().map(|p| p.meta.size()).sum::<u64>()).sum()
    }

    /// How long the oldest round that is being written or synced has been under way; zero if none is. Much more than a sync takes: the disk does not answer.
    pub fn stuck_for(&self) -> Duration {
        let now = env::now().0;
        let began = |s: &Arc<Shard>| s.round_began.load(Ordering::Relaxed);
        let oldest = self.shards.all.iter().map(began).filter(|b| *b > 0).min();
        Duration::from_nanos(oldest.map_or(0, |b| now.saturating_sub(b)))
    }

    /// Rounds of the journal that were written, over the life of all shards.
    pub fn rounds(&self) -> u64 {
        self.shards.all.iter().map(|s| s.progress.borrow().written.0).sum()
    }

    /// How often a journal file was begun, over the life of all shards, and how many files there are.
    pub fn journal_files(&self) -> (u64, u64) {
        let of = |s: &Arc<Shard>| {
            let j = s.journal.lock();
            let files = j.full.len()
                + j.free.len()
                + usize::from(j.active.is_some())
                + usize::from(j.spare.is_some());
            (j.epoch.0, files as u64)
        };
        self.shards.all.iter().map(of).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    /// Completed journal syncs so far.
    pub fn syncs(&self) -> u64 {
        self.shards.all.iter().map(|s| s.syncs.load(Ordering::Relaxed)).sum()
    }
}

impl Group {
    pub(crate) fn ticket(&self, round: Round) -> Ticket {
        Ticket { round, sync: Sync::Always, progress: self.shard.progress.subscribe() }
    }

    /// The group's id.
    pub fn id(&self) -> GroupId {
        self.id
    }
    /// What it was created with.
    pub fn options(&self) -> Bytes {
        self.state.lock().options.slice(1..)
    }
    /// Whether what is written of it to segments from now on is compressed, block by block; what lies there stays as it is until it is rewritten.
    /// Not kept over a restart.
    pub fn set_compress(&self, compress: bool) {
        self.state.lock().compress = compress;
    }
    /// Whether its bodies stay in memory.
    pub fn is_memory(&self) -> bool {
        memory_option(&self.state.lock().options)
    }

    // ---- the log

    /// Appends entries, all or none. Each is checked whole. They can be read at once and are durable when the ticket says
    /// so. A memory group's entries do not reach the disk; its ticket waits at most for a reservation of numbers.
    pub fn append(&self, entries: Vec<NewEntry>, sync: Sync) -> Result<Ticket> {
        self.append_with(entries, sync, NewEntry::seal)
    }

    /// The same for entries that were proposed on this node, with digests that were computed then: they are not computed once more.
    ///
    /// # Errors
    /// As [`Group::append`].
    pub fn append_own(&self, entries: Vec<NewEntry>, sync: Sync) -> Result<Ticket> {
        self.append_with(entries, sync, NewEntry::seal_own)
    }

    fn append_with(
        &self,
        entries: Vec<NewEntry>,
        sync: Sync,
        seal: fn(NewEntry, GroupId) -> std::result::Result<Entry, &'static str>,
    ) -> Result<Ticket> {
        let mut state = self.state.lock();
        if state.deleted {
            return Err(Error::NoGroup(self.id));
        }
        let mut sealed: Vec<Entry> = Vec::with_capacity(entries.len());
        for e in entries {
            let e = seal(e, self.id).map_err(|s| Error::Invalid(s.to_owned()))?;
            match sealed.last() {
                None => state.check_next(&e)?,
                Some(b) => {
                    let (b, h) = (&b.head, &e.head);
                    let seqs = h.count == 0 || b.count == 0 || h.first > b.first;
                    if h.index != b.index.next() || h.prev != b.chain || h.term < b.term || !seqs {
                        return Err(Error::Invalid(format!(
                            "entry {} does not follow its neighbour",
                            h.index.0
                        )));
                    }
                }
            }
            sealed.push(e);
        }
        let round = if state.memory {
            if self.shard.closing.load(Ordering::Acquire) {
                return Err(Error::Poisoned("the store was closed".to_owned()));
            }
            self.reserve(&mut state, &sealed)?
        } else {
            let frames = sealed.iter().map(|e| Frame::entry(e, sync == Sync::Always)).collect();
            self.shard.enqueue(frames, false)?
        };
        for e in sealed {
            state.push(e, round);
        }
        Ok(Ticket { sync, ..self.ticket(round) })
    }

    /// S-55: the round that has to be synced before these entries of a memory group count as kept.
    fn reserve(&self, state: &mut State, sealed: &[Entry]) -> Result<Round> {
        let last = sealed.last().map_or(state.last_index, |e| e.head.index);
        let seqs = sealed.iter().rev().find(|e| e.head.count > 0);
        let seq = seqs.and_then(|e| e.records().flatten().last().and_then(crate::record::record_seq));
        let seq = seq.unwrap_or(state.totals.last);
        if let Some(floor) = state.next_floor(seq, last) {
            let frame =
                Frame::control(FrameKind::Floor, self.id, LogIndex(0), round::floor(floor.0, floor.1));
            match self.shard.enqueue(vec![frame], true) {
                Ok(round) => state.set_floor(floor, round),
                // There is time: it is reserved ahead.
                Err(Error::Busy | Error::NoSpace(_)) if state.is_reserved(seq, last) => {}
                Err(e) => return Err(e),
            }
        }
        let synced = self.shard.progress.borrow().synced;
        Ok(state.floor_round(seq, last, synced))
    }

    /// Whether an append of one entry with a payload of so many bytes would be let in now. If not, room is asked for. Another group
    /// may take it first: the answer is good for telling a publisher early, not a promise.
    pub fn room(&self, bytes: u64) -> Result<()> {
        if self.state.lock().memory {
            return Ok(());
        }
        self.shard.room(bytes)
    }

    /// Takes back the entries from `index` on, which must not have been applied.
    pub fn truncate(&self, index: LogIndex) -> Result<Ticket> {
        let mut state = self.state.lock();
        if index <= state.applied || index <= state.flushed.0 {
            return Err(Error::Invalid(format!("entry {} is applied", index.0)));
        }
        if state.memory {
            let round = self.shard.progress.borrow().synced;
            state.truncate(index, round)?;
            return Ok(self.ticket(round));
        }
        let frame = Frame::control(FrameKind::Truncate, self.id, index, Bytes::new());
        let round = self.shard.enqueue(vec![frame], true)?;
        state.truncate(index, round)?;
        Ok(self.ticket(round))
    }

    /// Keeps a hard state: term, vote and commit, as opaque bytes.
    pub fn set_hard_state(&self, hard: Bytes) -> Result<Ticket> {
        self.set_hard_state_with(hard, Sync::Always)
    }

    /// The same; with [`Sync::Relaxed`] no sync is made for it.
    pub fn set_hard_state_with(&self, hard: Bytes, sync: Sync) -> Result<Ticket> {
        let mut state = self.state.lock();
        let mut frame = Frame::control(FrameKind::HardState, self.id, LogIndex(0), hard.clone());
        frame.sync = sync == Sync::Always;
        let round = self.shard.enqueue(vec![frame], true)?;
        state.set_hard(hard, round);
        Ok(self.ticket(round))
    }

    /// The last hard state; `None` if it was damaged, so that this node must not vote with what it has.
    pub fn hard_state(&self) -> Option<Bytes> {
        let s = self.state.lock();
        s.hard_valid.then(|| s.hard.clone())
    }

    /// The last hard state that is known, although a later one may be lost.
    pub fn known_hard_state(&self) -> Bytes {
        self.state.lock().hard.clone()
    }

    /// The last entry of the log.
    pub fn last(&self) -> (LogIndex, crate::Term, crate::Chain) {
        let s = self.state.lock();
        (s.last_index, s.last_term, s.last_chain)
    }

    /// Entries that were durable and are gone, and the messages in them; what can still be mended is in [`Group::holes`].
    pub fn lost(&self) -> Vec<Lost> {
        self.state.lock().lost.clone()
    }

    /// The last entry that was applied here, and the durable checkpoint from which a restart begins.
    pub fn applied(&self) -> (LogIndex, Checkpoint) {
        let s = self.state.lock();
        (s.applied, s.checkpoint.clone())
    }

    /// Entries from `from` on, up to `bytes` but at least one if there is any. Those at or below the checkpoint may be
    /// compacted: they are state and no longer log.
    pub async fn entries(&self, from: LogIndex, bytes: u64) -> Result<Vec<Entry>> {
        loop {
            let mut piece = None;
            match self.entries_of(from, bytes, &mut piece).await {
                // Its piece was rewritten while it was read, and is gone.
                Err(Error::Damaged(_)) if piece.is_some_and(|p| !self.state.lock().has_piece(&p.meta)) => {}
                r => return r,
            }
        }
    }

    async fn entries_of(
        &self,
        from: LogIndex,
        bytes: u64,
        piece_read: &mut Option<Arc<Piece>>,
    ) -> Result<Vec<Entry>> {
        let (mut out, mut size) = (Vec::new(), 0);
        let piece = {
            let s = self.state.lock();
            if from > s.flushed.0 || s.memory {
                let state = from <= s.flushed.0;
                let at = s.tail.partition_point(|t| t.entry.head.index < from);
                for t in s.tail.range(at..) {
                    let lost = out.last().is_some_and(|b: &Entry| b.head.index.next() != t.entry.head.index);
                    if (lost && !state) || (size >= bytes && !out.is_empty()) {
                        break;
                    }
                    size += t.entry.head.size();
                    out.push(t.entry.clone());
                }
                let wrong = out.first().is_some_and(|e| e.head.index != from)
                    || (out.is_empty() && from <= s.last_index);
                if wrong && !state {
                    return Err(Error::Damaged(self.damage_at(from)));
                }
                return Ok(out);
            }
            s.pieces.iter().find(|p| p.meta.first_index <= from && from <= p.meta.last_index).cloned()
        };
        let Some(p) = piece else { return Err(Error::Damaged(self.damage_at(from))) };
        *piece_read = Some(p.clone());
        let (patched, state) = {
            let s = self.state.lock();
            let of_piece = s.patched.range(p.meta.first_index..=p.meta.last_index);
            (of_piece.map(|(_, t)| t.entry.clone()).collect::<Vec<_>>(), s.checkpoint.index)
        };
        let part = match patched.is_empty() {
            true => self.shard.read_from(&p.meta, from, bytes).await.unwrap_or_default(),
            false => None,
        };
        let whole = match part {
            Some(entries) => Some(Ok((entries, Vec::new()))),
            // Something in it is damaged: then all of it is looked at.
            None if patched.is_empty() => Some(self.shard.read_piece(&p.meta).await),
            None => None,
        };
        let (entries, bad) = match whole {
            Some(Ok(all)) => all,
            // Above the checkpoint every entry is there, so that one that cannot be read shows; below it does not.
            Some(Err(Error::Damaged(_))) if from > state => self.shard.read_patched(&p.meta, patched).await?,
            Some(Err(e)) => return Err(e),
            None => self.shard.read_patched(&p.meta, patched).await?,
        };
        for e in entries.into_iter().filter(|e| e.head.index >= from) {
            let hole = bad.iter().any(|b| b.index >= from && b.index < e.head.index);
            // Above the checkpoint no entry may be missing: one whose header is damaged shows as a gap.
            let expected = out.last().map_or(from, |b: &Entry| b.head.index.next());
            let log = !p.meta.compacted || expected > state;
            if (size >= bytes && !out.is_empty()) || hole || (log && e.head.index != expected) {
                break;
            }
            size += e.head.size();
            out.push(e);
        }
        if out.is_empty() && (!bad.is_empty() || !p.meta.compacted || from > state) {
            return Err(Error::Damaged(self.damage_at(from)));
        }
        Ok(out)
    }

    fn damage_at(&self, index: LogIndex) -> Damage {
        let what = "the entry cannot be read".to_owned();
        Damage { group: Some(self.id), entries: Some((index, index)), messages: None, what }
    }

    // ---- the stream

    /// The stream, for synchronous questions. Holds the group's lock: drop it before anything is awaited. A view in the head of
    /// a `match` or an `if let` lives to the end of that: bind the answer first.
    pub fn view(&self) -> View<'_> {
        View::new(self.state.lock(), &self.shard, None)
    }

    /// Reads what a question to [`Group::view`] lacked, so that it can be asked again. Reading what is damaged is no error
    /// for a message (the answer then says so) and one for an index.
    pub async fn fetch(&self, need: Need) -> Result<()> {
        self.look_ahead(&need);
        if let Some(got) = self.read(&need).await? {
            self.state.lock().pins.put(got);
        }
        Ok(())
    }

    /// Has the next piece opened for who comes to the end of one: what stands at its beginning and its end would be waited for otherwise.
    fn look_ahead(&self, need: &Need) {
        let What::Record(p, seq) = &need.0 else { return };
        if !self.shard.nears_end(&p.meta, *seq) {
            return;
        }
        let Some(piece) = self.state.lock().piece_behind(p) else { return };
        let subjects = self.shard.cache.get_subjects(p.key()).is_some();
        if self.shard.cache.put_coming(Coming { piece, subjects }) {
            self.shard.wake_coming.notify_one();
        }
    }

    /// Reads what a question lacked; `None` if its piece was rewritten meanwhile: asked again, it lacks something else.
    async fn read(&self, need: &Need) -> Result<Option<Fetched>> {
        loop {
            // What was filled of a piece tells its subjects; more may come while they are read.
            let (patched, fills) = match &need.0 {
                What::Subjects(p) => {
                    let mut s = self.state.lock();
                    s.feet_wanted = true;
                    let of_piece = s.patched.range(p.meta.first_index..=p.meta.last_index);
                    (of_piece.map(|(_, t)| t.entry.clone()).collect(), s.fills)
                }
                _ => (Vec::new(), 0),
            };
            let found = self.shard.need(need, &patched).await;
            if let What::Subjects(p) = &need.0 {
                let s = self.state.lock();
                if s.fills != fills {
                    continue;
                }
                if let Ok(Fetched::Subjects(_, f)) = &found {
                    self.shard.cache.put_subjects(p.key(), f.clone());
                }
            }
            return match found {
                Err(Error::Damaged(_))
                    if need.0.piece().is_some_and(|p| !self.state.lock().has_piece(&p.meta)) =>
                {
                    Ok(None)
                }
                r => r.map(Some),
            };
        }
    }

    /// Asks, reads what is missing, and asks again until there is an answer. `f` begins anew each time.
    pub async fn ask<T>(
        &self,
        mut f: impl FnMut(&mut View<'_>) -> std::result::Result<T, Need>,
    ) -> Result<T> {
        let (mut pins, mut fills) = (Pins::default(), None);
        loop {
            let need = {
                let state = self.state.lock();
                if fills.replace(state.fills).is_some_and(|before| before != state.fills) {
                    pins = Pins::default();
                }
                match f(&mut View::new(state, &self.shard, Some(&mut pins))) {
                    Ok(v) => return Ok(v),
                    Err(n) => n,
                }
            };
            if let Some(got) = self.read(&need).await? {
                pins.put(got);
            }
        }
    }

    /// The entry is committed: its messages join the stream. In order, also those without messages.
    pub async fn apply(&self, head: &Head) -> Result<()> {
        self.ask(|v| v.apply(head)).await
    }

    /// The same, if nothing has to be read for it, as is the rule.
    pub fn apply_now(&self, head: &Head) -> std::result::Result<(), Need> {
        self.view().apply(head)
    }

    /// Deletes messages; those that were live, in the order given.
    pub async fn delete(&self, seqs: &[StreamSeq]) -> Result<Vec<StreamSeq>> {
        let mut gone = Vec::new();
        for seq in seqs {
            if self.ask(|v| v.remove(*seq)).await? {
                gone.push(*seq);
            }
        }
        Ok(gone)
    }

    /// Deletes the messages before `below` that match, but for the last `keep` of them; how many.
    pub async fn purge(&self, filter: &[u8], below: StreamSeq, keep: u64) -> Result<u64> {
        let mut at = self.state.lock().totals.first;
        let mut victims = Vec::new();
        while let Some(seq) = self.next_seq(filter, at).await? {
            if seq >= below {
                break;
            }
            victims.push(seq);
            at = seq.next();
        }
        victims.truncate(victims.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX)));
        Ok(self.delete(&victims).await?.len() as u64)
    }

    /// Keeps the stream as it is now, with the state of the layer above, for the next flush: a restart begins here.
    pub fn checkpoint(&self, blob: Bytes) {
        self.state.lock().take_checkpoint(blob);
    }

    /// The last sequence of the log, applied or not.
    #[cfg(test)]
    pub(crate) fn log_seq(&self) -> StreamSeq {
        self.state.lock().log_seq()
    }

    /// For a memory group after a restart whose numbers come from elsewhere: the stream begins with whatever comes. What was reserved before stays
    /// reserved.
    pub fn begin_anew(&self) {
        self.state.lock().begin_anew();
    }

    /// Reads the group's state out, as of its checkpoint: of the durable one, or of the last one that a memory group took. `None` if there is none.
    pub fn outgoing(&self) -> Option<Outgoing> {
        Outgoing::new(&self.shard, &self.state.lock())
    }

    /// A place to receive another node's state of this group in.
    pub fn incoming(&self) -> Incoming {
        Incoming::new(&self.shard, self.id, self.is_memory())
    }

    /// Puts a received state in the place of all that the group has up to there, log and stream; what of the log follows and continues it stays.
    /// It is durable when this returns. Nothing may be applied meanwhile.
    ///
    /// # Errors
    /// The group is there or further already; or the disk's answer, then a restart may find either state.
    pub async fn take_over(&self, taken: Taken) -> Result<()> {
        self.shard.take_over(self.id, &self.state, taken).await
    }

    /// The stream's totals.
    pub fn state(&self) -> StreamState {
        let Totals { first, last, msgs, bytes, last_time } = self.view().totals();
        let deleted = (last.0 + 1).saturating_sub(first.0).saturating_sub(msgs);
        StreamState { first, last, msgs, bytes, deleted, last_time }
    }

    /// One message.
    pub async fn get(&self, seq: StreamSeq) -> Result<Read> {
        self.ask(|v| v.get(seq)).await
    }

    /// The first live message from `from` on whose subject matches; `>` or nothing matches all.
    pub async fn next_seq(&self, filter: &[u8], from: StreamSeq) -> Result<Option<StreamSeq>> {
        self.ask(|v| v.next(&[filter], from)).await
    }

    /// The last live message of one subject, not after `upto`.
    pub async fn last_by_subject(&self, subject: &[u8], upto: StreamSeq) -> Result<Option<StreamSeq>> {
        self.ask(|v| v.last_of(subject, upto)).await
    }

    /// How many live messages from `from` on match.
    pub async fn pending(&self, filter: &[u8], from: StreamSeq) -> Result<u64> {
        self.ask(|v| v.pending(&[filter], from)).await
    }

    /// Subjects that match and have messages, with their counts, in order, at most `limit`.
    pub async fn subjects(&self, filter: &[u8], limit: usize) -> Result<Vec<(Bytes, u64)>> {
        self.ask(|v| {
            let mut out = Vec::new();
            v.subject_counts(filter, |s, n| {
                out.push((Bytes::copy_from_slice(s), n));
                out.len() < limit
            })?;
            Ok(out)
        })
        .await
    }

    /// How many subjects have messages.
    pub async fn subject_count(&self) -> Result<u64> {
        self.ask(|v| v.num_subjects()).await
    }

    /// Bytes of memory that the indexes of this group take: the subjects that were asked for so far, texts included, and where
    /// the messages of the tail are. The tail's own bytes are not counted.
    pub fn index_bytes(&self) -> u64 {
        let s = self.state.lock();
        (s.dict.weight() + s.msgs.capacity() * size_of::<crate::group::TailMsg>()) as u64
    }

    /// What indexes this group's pieces. Reads every index footer.
    pub async fn footprint(&self) -> Result<Footprint> {
        let pieces = self.state.lock().pieces.clone();
        let mut f = Footprint { pieces: pieces.len() as u64, ..Footprint::default() };
        for p in &pieces {
            f.log += u64::from(p.meta.data);
            f.stored += u64::from(p.meta.index_foot) + u64::from(p.meta.subject_foot);
            f.deletions += p.deleted.serialized_size() as u64;
            f.sparse += (self.shard.fresh_index_foot(&p.meta).await?.weight() + size_of_val(&**p)) as u64;
        }
        Ok(f)
    }

    /// Walks everything; an error says which totals are wrong (S-50). For tests and the simulation: it reads every footer.
    pub async fn verify(&self) -> Result<()> {
        self.ask(|v| v.verify()).await
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
