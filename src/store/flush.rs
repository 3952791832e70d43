//! The flush: moves the applied, durable part of every group's tail from the journal into pieces, rewrites what is mostly
//! dead, publishes both in one new manifest, and frees the journal behind it.
//!
//! Owns the order of those steps. A flush that fails has changed nothing: the journal still holds everything, and the next
//! one begins anew with new files.
//!
//! - S-71: a piece is published only after its file and the file's name are durable.
//! - S-72: entries at or below the durable checkpoint are state, those above are log: only pieces that lie wholly at or
//!   below it are rewritten or dropped, and only messages deleted as of that checkpoint leave them, or are not written at
//!   all if the checkpoint is published together with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use env::disk::OpenOptions;
use parking_lot::Mutex;

use crate::{
    early::Early,
    group::{Group, Piece, Plan, TailEntry, bitmap_bytes},
    io::{Appender, File},
    manifest::{GroupRecord, Manifest},
    options::mutant,
    record::Entry,
    segment::{BlockCodec, Builder, Built, FILE_HEADER, FileHead, PieceMeta, SubjectFoot},
    shard::{Shard, salt, segment_path, slot_path},
    types::{Error, FileId, GroupId, LogIndex, Result, Round, StreamSeq},
};

/// A segment file that is being laid out, and written on the way: what is whole of it leaves memory. Until a manifest names it, it is garbage.
pub(crate) struct Draft {
    pub id: FileId,
    head: Vec<u8>,
    /// Bytes of the header and of the pieces that are whole.
    len: u64,
    key: Option<Arc<crate::crypt::FileKey>>,
    /// The file, once there is something in it.
    out: Option<(File, Appender)>,
    /// Of a piece that grew with the rounds: its file, and what is not in there yet, with its place.
    rest: Option<(File, u64, Vec<Bytes>)>,
    failed: Option<Error>,
}

/// Bytes of a piece that are laid out before they go to its file.
const POUR: usize = 128 << 10;

impl Draft {
    pub(crate) fn new(shard: &Shard) -> Draft {
        let id = FileId(shard.next_file.fetch_add(1, Ordering::Relaxed));
        let salt = salt(&shard.opts);
        let current = shard.opts.keys.current();
        let head = FileHead { shard: shard.id, id, salt, key: current.map_or(0, |k| k.id()) };
        let key = current.map(|k| Arc::new(k.for_file(&salt)));
        Draft { id, head: head.encode(), len: FILE_HEADER as u64, key, out: None, rest: None, failed: None }
    }

    /// A file that is there, but for these last bytes.
    pub(crate) fn of_rest(id: FileId, file: File, at: u64, rest: Vec<Bytes>) -> Draft {
        let rest = Some((file, at, rest));
        Draft { id, head: Vec::new(), len: 0, key: None, out: None, rest, failed: None }
    }

    /// What seals the file.
    pub(crate) fn key(&self) -> Option<Arc<crate::crypt::FileKey>> {
        self.key.clone()
    }

    /// Begins a piece with the draft's key. Hand its end to [`Draft::add`] before the next one begins.
    pub(crate) fn builder<'k>(
        &self,
        key: &'k Option<Arc<crate::crypt::FileKey>>,
        shard: &Shard,
        group: GroupId,
    ) -> Builder<'k> {
        let wanted = || shard.group(group).is_ok_and(|g| g.lock().compress);
        let codec = BlockCodec { key: key.as_deref(), compress: shard.opts.compress || wanted() };
        Builder::new(group, self.id, self.len, shard.opts.counting, codec).block_target(shard.opts.block)
    }

    /// Writes what is finished of the piece, if that is much.
    pub(crate) async fn pour(&mut self, shard: &Shard, b: &mut Builder<'_>) {
        let [laid, far] = b.finished();
        if !far.is_empty() || laid.len() >= POUR {
            self.append(shard, laid).await;
            self.append(shard, far).await;
            b.taken();
        }
    }

    pub(crate) async fn add(&mut self, shard: &Shard, built: Built) -> (PieceMeta, SubjectFoot) {
        self.append(shard, &built.bytes).await;
        self.len = built.meta.end();
        (built.meta, built.subjects)
    }

    async fn append(&mut self, shard: &Shard, bytes: &[u8]) {
        if self.failed.is_none()
            && let Err(e) = self.try_append(shard, bytes).await
        {
            self.failed = Some(e);
        }
    }

    async fn try_append(&mut self, shard: &Shard, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.out.is_none() {
            let file = shard.disk.open(&segment_path(&shard.dir, self.id), OpenOptions::TRUNCATE).await?;
            let mut appender = file.appender(true);
            appender.push(&self.head).await?;
            self.out = Some((file, appender));
        }
        let (_, appender) = self.out.as_mut().expect("just made");
        Ok(appender.push(bytes).await?)
    }

    /// Writes what is left and makes the content durable; false if there is none.
    ///
    /// # Errors
    /// The first that the disk gave.
    pub(crate) async fn finish(self, sync: bool) -> Result<bool> {
        if let Some(e) = self.failed {
            return Err(e);
        }
        let file = match (self.out, self.rest) {
            (Some((file, appender)), _) => {
                appender.end().await?;
                file
            }
            (None, Some((file, at, rest))) => {
                let end = at + rest.iter().map(|b| b.len() as u64).sum::<u64>();
                file.write_vectored_at(at, rest).await?;
                // What was reserved beyond it.
                file.set_len(end).await?;
                file
            }
            (None, None) => return Ok(false),
        };
        if sync {
            file.sync_data().await?;
        }
        Ok(true)
    }
}

/// Bytes that are laid out before other tasks get their turn.
const TURN: u64 = 256 << 10;
/// The same while much is published meanwhile: the turn grows by this part of what came since the flush began, up to the second figure. Publishers
/// who share the worker get up to a mebibyte a turn, so with turns that do not grow what waits in memory does, up to all that the journal may hold.
const TURN_GROWS: u64 = 8;
const TURN_MAX: u64 = 4 << 20;

/// What a group counts for in that, whatever it has.
const GROUP_TURN: u64 = 4 << 10;

/// Lets other tasks of this worker run once `done` has grown by a turn.
pub(crate) async fn pause(done: &mut u64, more: u64) {
    *done += more;
    if *done >= TURN {
        *done = 0;
        env::give_way().await;
    }
}

/// A group with what this flush does to it.
pub(crate) struct Work {
    pub group: Arc<Mutex<Group>>,
    pub id: GroupId,
    pub plan: Plan,
}

/// What a flush makes of all groups.
struct Made {
    drafts: Vec<Draft>,
    /// The file that small pieces share.
    shared: Option<Draft>,
    /// Bytes that may still be sealed anew.
    reseal: u64,
    /// Pieces that grew with the rounds and wait for the next flush.
    left: Vec<Early>,
    /// The files of those that are in this one.
    grown: BTreeSet<FileId>,
}

impl Shard {
    /// As [`pause`], with turns that grow where the flush would fall behind those who publish.
    async fn pause(&self, done: &mut u64, more: u64) {
        if *done + more >= TURN
            && *done + more < (TURN + self.journal.lock().unflushed / TURN_GROWS).min(TURN_MAX)
        {
            *done += more;
            return;
        }
        pause(done, more).await;
    }

    /// One flush. True if it published a new manifest.
    pub(crate) async fn flush(&self) -> Result<bool> {
        let _one = self.flush_lock.lock().await;
        // What only lies in the page cache so far would stay behind.
        let (synced, mut early) = self.sync_for_flush().await?;
        let groups: Vec<_> = self.groups.lock().iter().map(|(id, g)| (*id, g.clone())).collect();
        let mut work = Vec::new();
        let mut made = Made {
            drafts: Vec::new(),
            shared: None,
            reseal: self.opts.reseal_bytes.max(1),
            left: Vec::new(),
            grown: BTreeSet::new(),
        };
        let mut turn = 0;
        for (id, group) in groups {
            pause(&mut turn, GROUP_TURN).await;
            let grown = early.remove(&id).unwrap_or_default();
            let plan = self.plan(id, &group, synced, grown, &mut made).await;
            work.push(Work { group, id, plan });
        }
        // Their groups have ended.
        early.values().flatten().for_each(|e| self.end_early(e));
        self.round_lock.lock().await.put_back(made.left);
        let mut drafts = made.drafts;
        drafts.extend(made.shared);
        let files: Vec<FileId> = drafts.iter().map(|d| d.id).collect();
        let done = self.publish(drafts, &work, synced).await;
        match done {
            // They are pieces as others are.
            Ok(_) => self.leaked.lock().retain(|f| !made.grown.contains(f)),
            // One slot may name them already: they are garbage only once a later manifest says so.
            Err(_) => self.leaked.lock().extend(files),
        }
        done
    }

    /// Lays out the new pieces of one group.
    async fn plan(
        &self,
        id: GroupId,
        group: &Arc<Mutex<Group>>,
        synced: Round,
        grown: Vec<Early>,
        made: &mut Made,
    ) -> Plan {
        let mut plan = Plan::default();
        let (mut entries, memory) = {
            let g = group.lock();
            (if g.memory { Vec::new() } else { g.flushable(synced) }, g.memory)
        };
        if memory {
            return plan;
        }
        let mut grown = self.choose_grown(&mut entries, grown, made);
        if let Some(last) = entries.last() {
            plan.flushed = Some((last.head.index, last.head.term, last.head.chain));
        }
        let below = {
            let g = group.lock();
            plan.checkpoint = g.publishable(plan.flushed.unwrap_or(g.flushed).0);
            if let Some(c) = &plan.checkpoint {
                plan.dropped_tail = g.droppable(c, self.opts.rewrite_below_percent);
            }
            plan.checkpoint.as_ref().map_or(LogIndex(0), |c| c.checkpoint.index)
        };
        // What is deleted is not to stand in a piece.
        if !plan.dropped_tail.is_empty() {
            grown.drain(..).for_each(|(_, e)| self.end_early(&e));
        }
        let laid = |at: usize| grown.iter().any(|(from, e)| (*from..from + e.entries).contains(&at));
        let bytes: u64 =
            entries.iter().enumerate().filter(|(i, _)| !laid(*i)).map(|(_, e)| e.head.size()).sum();
        let own = bytes >= self.opts.own_file_bytes && plan.dropped_tail.is_empty();
        let (mut at, mut turn) = (0, 0);
        let mut grown = grown.into_iter().peekable();
        while at < entries.len() {
            if let Some((_, e)) = grown.next_if(|(from, _)| *from == at) {
                at += e.entries;
                self.end_early(&e);
                let (meta, feet, draft) = e.finish();
                made.grown.insert(draft.id);
                made.drafts.push(draft);
                self.add_piece(group, &mut plan, meta, feet);
                continue;
            }
            let rest = &entries[at..grown.peek().map_or(entries.len(), |(from, _)| *from)];
            let mut fresh = own.then(|| Draft::new(self));
            let draft = fresh.as_mut().unwrap_or_else(|| made.shared.get_or_insert_with(|| Draft::new(self)));
            let mut n = 0;
            let key = draft.key();
            let mut b = draft.builder(&key, self, id);
            for e in rest {
                if n > 0 && !b.fits(e) {
                    break;
                }
                if !plan.dropped_tail.is_empty() && e.head.index <= below {
                    b.push_live(e, |s| !plan.dropped_tail.contains(s.0));
                } else {
                    // A large entry goes to the file while the processor's cache still holds what was laid out of it.
                    let mut part = b.open(e);
                    while b.go_on(e, &mut part, POUR) {
                        draft.pour(self, &mut b).await;
                    }
                }
                n += 1;
                draft.pour(self, &mut b).await;
                self.pause(&mut turn, e.head.size()).await;
            }
            if let Some(built) = b.finish() {
                let (meta, feet) = draft.add(self, built).await;
                self.add_piece(group, &mut plan, meta, feet);
            }
            made.drafts.extend(fresh);
            at += n;
        }
        let (record, patched) = {
            let g = group.lock();
            let durable = |t: &&TailEntry| t.round <= synced;
            (g.record(&plan), g.patched.values().filter(durable).map(|t| t.entry.clone()).collect::<Vec<_>>())
        };
        plan.foreign = self.foreign(&record, &mut made.reseal);
        let (shared, drafts) = (&mut made.shared, &mut made.drafts);
        if !patched.is_empty() || !plan.foreign.is_empty() {
            self.plan_mending(id, group, &record, patched, &mut plan, drafts).await;
        }
        self.plan_rewrites(id, &record, &mut plan, shared, drafts).await;
        plan
    }

    fn add_piece(&self, group: &Mutex<Group>, plan: &mut Plan, meta: PieceMeta, feet: SubjectFoot) {
        if group.lock().feet_wanted {
            self.cache.put_subjects((meta.file, meta.off), Arc::new(feet));
        }
        plan.new.push(Arc::new(Piece { meta, deleted: Default::default() }));
    }

    /// The pieces that grew with the rounds and are what stands in the log: where each begins among the entries. One that is not applied to its end is left
    /// to the next flush, once, with what follows it.
    fn choose_grown(
        &self,
        entries: &mut Vec<Entry>,
        mut grown: Vec<Early>,
        made: &mut Made,
    ) -> Vec<(usize, Early)> {
        let hurry = self.closing.load(Ordering::Acquire)
            || self.journal.lock().is_over(0, self.opts.journal_budget / 2);
        grown.sort_by_key(|e| e.first);
        let (mut chosen, mut end) = (Vec::new(), 0);
        for mut e in grown {
            let at = entries.partition_point(|x| x.head.index < e.first);
            let begins = entries.get(at).is_none_or(|x| x.head.index == e.first);
            match entries.get(at..at + e.entries) {
                Some(same) if at >= end && e.is(same) => {
                    end = at + e.entries;
                    chosen.push((at, e));
                }
                None if begins && at >= end && !e.left && !hurry => {
                    entries.truncate(at);
                    e.left = true;
                    made.left.push(e);
                }
                _ => self.end_early(&e),
            }
        }
        chosen
    }

    /// Pieces that another key than the one of today has sealed, or none has, as far as this flush's budget goes.
    fn foreign(&self, record: &GroupRecord, budget: &mut u64) -> Vec<(FileId, u64)> {
        let (eras, key) = (self.eras.lock(), self.opts.keys.current_id());
        let mut out = Vec::new();
        if key == 0 && eras.is_plain() {
            return out;
        }
        for m in record.pieces.iter().map(|r| &r.meta) {
            if *budget == 0 {
                break;
            }
            if eras.key_of(m.file) != key {
                *budget = budget.saturating_sub(m.size());
                out.push((m.file, m.off));
            }
        }
        out
    }

    /// Writes pieces anew in which entries were damaged, with what took their places, in files of their own, and those above the checkpoint
    /// that are sealed otherwise than today. The old ones stay until all of it can be read.
    async fn plan_mending(
        &self,
        id: GroupId,
        group: &Arc<Mutex<Group>>,
        record: &GroupRecord,
        patched: Vec<Entry>,
        plan: &mut Plan,
        drafts: &mut Vec<Draft>,
    ) {
        for r in &record.pieces {
            let m = &r.meta;
            let here = |e: &&Entry| m.first_index <= e.head.index && e.head.index <= m.last_index;
            let patches: Vec<Entry> = patched.iter().filter(here).cloned().collect();
            // What is state already is sealed anew by a rewrite.
            let log = m.last_index > record.checkpoint.index;
            if patches.is_empty() && !(log && plan.foreign.contains(&(m.file, m.off))) {
                continue;
            }
            let indexes: Vec<LogIndex> = patches.iter().map(|e| e.head.index).collect();
            let Ok((entries, bad)) = self.read_patched(m, patches).await else { continue };
            let consecutive = entries.windows(2).all(|w| w[1].head.index == w[0].head.index.next());
            let ends = entries.first().is_some_and(|e| e.head.index == m.first_index)
                && entries.last().is_some_and(|e| e.head.index == m.last_index);
            if !bad.is_empty() || !consecutive || !ends {
                continue;
            }
            let mut draft = Draft::new(self);
            let key = draft.key();
            let mut b = draft.builder(&key, self, id);
            let mut turn = 0;
            for e in &entries {
                b.push(e);
                draft.pour(self, &mut b).await;
                pause(&mut turn, e.head.size()).await;
            }
            let Some(built) = b.finish() else { continue };
            let (meta, feet) = draft.add(self, built).await;
            let (key, old) = ((meta.file, meta.off), (m.file, m.off));
            // What is lost has no place in the new piece, and no mark of its deletion either.
            let there =
                |seq: StreamSeq| meta.holds(seq) && feet.slot_of((seq.0 - meta.first_seq.0) as u32).is_some();
            let seq_of = |rel: u32| StreamSeq(m.first_seq.0 + u64::from(rel));
            let deleted = group.lock().pieces.iter().find(|p| p.key() == old).map(|p| p.deleted.clone());
            let deleted = deleted.unwrap_or_default();
            plan.dropped.insert(old, deleted.iter().filter(|r| !there(seq_of(*r))).collect());
            let of_record = roaring::RoaringBitmap::deserialize_from(&r.deleted[..]).unwrap_or_default();
            let kept: roaring::RoaringBitmap = of_record
                .iter()
                .map(seq_of)
                .filter(|s| there(*s))
                .map(|s| (s.0 - meta.first_seq.0) as u32)
                .collect();
            plan.carried.insert(key, bitmap_bytes(&kept));
            self.cache.put_subjects(key, Arc::new(feet));
            plan.old.push(old);
            plan.new.push(Arc::new(Piece { meta, deleted: Default::default() }));
            plan.mended.extend(indexes);
            drafts.push(draft);
        }
    }

    /// S-72: drops what is dead below the checkpoint, rewrites what is mostly dead, merges small neighbours.
    async fn plan_rewrites(
        &self,
        id: GroupId,
        record: &GroupRecord,
        plan: &mut Plan,
        shared: &mut Option<Draft>,
        drafts: &mut Vec<Draft>,
    ) {
        let below = record.checkpoint.index;
        let mut small: Vec<Piece> = Vec::new();
        let mut runs: Vec<Vec<Piece>> = Vec::new();
        let fresh: Vec<_> = plan.new.iter().map(|p| p.key()).collect();
        for r in &record.pieces {
            let key = (r.meta.file, r.meta.off);
            let deleted = roaring::RoaringBitmap::deserialize_from(&r.deleted[..]).unwrap_or_default();
            let piece = Piece { meta: r.meta.clone(), deleted };
            if plan.old.contains(&key) {
                // It is being mended, and the new one stands where it stood: its neighbours may not become one piece around it.
                if small.len() >= self.opts.merge_at {
                    runs.push(std::mem::take(&mut small));
                }
                small.clear();
                continue;
            }
            let state = r.meta.last_index <= below && !fresh.contains(&key);
            if state && piece.live() == 0 {
                // Its neighbours may become one piece around it, which must not take its deletions for its own.
                plan.old.push(key);
                plan.dropped.insert(key, piece.deleted);
                continue;
            }
            let total = u64::from(piece.meta.msgs).max(1);
            let dead = piece.live() * 100 < total * self.opts.rewrite_below_percent;
            if state && (dead || plan.foreign.contains(&key)) {
                runs.push(vec![piece]);
            } else if state && piece.meta.size() < self.opts.small_piece {
                small.push(piece);
                continue;
            }
            if small.len() >= self.opts.merge_at {
                runs.push(std::mem::take(&mut small));
            }
            small.clear();
        }
        if small.len() >= self.opts.merge_at {
            runs.push(small);
        }
        for run in runs {
            let mut parts: Vec<(Piece, Vec<Entry>)> = Vec::new();
            for p in run {
                match self.read_piece(&p.meta).await {
                    Ok((entries, bad)) if bad.is_empty() => parts.push((p, entries)),
                    // Damaged, or not readable now: it stays as it is, for repair.
                    _ => {
                        parts.clear();
                        break;
                    }
                }
            }
            let Some(first) = parts.first() else { continue };
            let (start, own) = (first.0.meta.clone(), parts.iter().map(|p| p.0.meta.size()).sum::<u64>());
            let mut fresh = (own >= self.opts.own_file_bytes).then(|| Draft::new(self));
            let draft = fresh.as_mut().unwrap_or_else(|| shared.get_or_insert_with(|| Draft::new(self)));
            let sealed = draft.key();
            let mut b = draft.builder(&sealed, self, id);
            b.skip(start.first_index, start.last_term, start.last_chain);
            let mut turn = 0;
            for (p, entries) in &parts {
                for e in entries {
                    b.push_live(e, |s| !p.deleted.contains((s.0 - p.meta.first_seq.0) as u32));
                    draft.pour(self, &mut b).await;
                    pause(&mut turn, e.head.size()).await;
                }
                b.skip(p.meta.last_index, p.meta.last_term, p.meta.last_chain);
            }
            let built = b.finish();
            if let Some(built) = built {
                let (meta, feet) = draft.add(self, built).await;
                let feet = if mutant!(self.opts, IndexNotRebuilt) { Default::default() } else { feet };
                let key = (meta.file, meta.off);
                self.cache.put_subjects(key, Arc::new(feet));
                plan.old.extend(parts.iter().map(|p| p.0.key()));
                plan.dropped.extend(parts.iter().map(|p| (p.0.key(), p.0.deleted.clone())));
                // Deleted messages that went since are carried by `installed`; those of the checkpoint are gone.
                plan.carried.insert(key, Bytes::new());
                plan.new.push(Arc::new(Piece { meta, deleted: Default::default() }));
            }
            drafts.extend(fresh);
        }
    }

    pub(crate) async fn publish(&self, drafts: Vec<Draft>, work: &[Work], synced: Round) -> Result<bool> {
        let mut durable = BTreeSet::new();
        for d in drafts {
            let id = d.id;
            if d.finish(!mutant!(self.opts, NoSegmentSync)).await? {
                durable.insert(id);
            }
        }
        if !durable.is_empty() && !mutant!(self.opts, NoDirectorySync) {
            self.disk.sync_dir(&self.dir.join("segments")).await?;
        }
        let whole = |p: &Arc<Piece>| durable.contains(&p.meta.file);
        assert!(
            work.iter().all(|w| w.plan.new.iter().all(whole)),
            "S-71: a piece in a file that was not synced"
        );
        // A generation that failed half-way is never written again with another content.
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        // From here on the state of every group is read once, and the manifest says exactly that.
        let mut records: BTreeMap<GroupId, GroupRecord> = BTreeMap::new();
        let mut replay_from = synced.next();
        let (mut before, mut turn, mut doubtful) = (BTreeSet::new(), 0, false);
        for w in work {
            pause(&mut turn, GROUP_TURN).await;
            let mut g = w.group.lock();
            g.settle_hard(synced);
            doubtful |= g.is_doubtful(synced);
            before.extend(g.pieces.iter().map(|p| p.meta.file));
            before.extend(w.plan.new.iter().map(|p| p.meta.file));
            let r = g.record(&w.plan);
            // The oldest round of what stays in the tail pins the journal.
            let left = g.pinned(r.flushed, synced);
            replay_from = left.map_or(replay_from, |l| l.min(replay_from));
            records.insert(w.id, r);
        }
        if let Some(gone) = self.losses.filter(|_| doubtful || !self.losses_noted.load(Ordering::Acquire)) {
            // S-84. Not at any price: groups that nobody opens stay doubtful.
            if self.journal.lock().in_use() <= self.opts.journal_budget / 2 {
                replay_from = replay_from.min(gone).max(Round(self.replay_from.load(Ordering::Relaxed)));
            }
        }
        // Groups that were created since this flush began are in the journal only. One that ended while the others were read
        // must not be written: the replay of its end may be over, or is skipped for its tomb.
        let tombs: Vec<_> = {
            let mut t = self.tombs.lock();
            let groups = self.groups.lock();
            let here = |w: &&Work| groups.get(&w.id).is_some_and(|g| Arc::ptr_eq(g, &w.group));
            let here: BTreeSet<GroupId> = work.iter().filter(here).map(|w| w.id).collect();
            records.retain(|id, _| here.contains(id));
            t.retain(|(_, round)| *round >= replay_from);
            t.clone()
        };
        let given_up = self.replay_from.load(Ordering::Relaxed);
        debug_assert!(replay_from.0 >= given_up, "S-23: round {} was given up and is needed", replay_from.0);
        let after: BTreeSet<FileId> =
            records.values().flat_map(|r| r.pieces.iter().map(|p| p.meta.file)).collect();
        let leaked = self.leaked.lock().clone();
        let mut garbage: Vec<FileId> = before.difference(&after).copied().collect();
        garbage.extend(leaked.iter().filter(|f| !after.contains(f)));
        garbage.sort_unstable();
        garbage.dedup();
        let eras = self.eras.lock().of_files(&after);
        let mut needed = eras.needed(&after);
        // What stays of the journal needs its keys too, and so do files that the next opening may still meet (S-32).
        needed.extend(self.journal.lock().keys_needed(replay_from));
        if mutant!(self.opts, KeysForgotten) {
            needed.clear();
        }
        let manifest = Manifest {
            ring: self.opts.keys.ring(&needed),
            key: self.opts.keys.current_id(),
            eras,
            shard: self.id,
            generation,
            replay_from,
            synced: self.progress.borrow().synced,
            epoch: self.journal.lock().epoch,
            next_file: FileId(self.next_file.load(Ordering::Relaxed)),
            groups: records.values().cloned().collect(),
            tombs,
            garbage: garbage.clone(),
        };
        let seal = self.opts.keys.current().map(|k| (k, salt(&self.opts)));
        let bytes: Bytes = manifest.encode(self.opts.sector, seal).into();
        if mutant!(self.opts, FreeBeforeManifest) {
            let free = {
                let mut j = self.journal.lock();
                j.release(replay_from);
                std::mem::take(&mut j.free)
            };
            for f in free {
                f.file.write_vectored_at(0, vec![Bytes::from(vec![0; f.len as usize])]).await?;
                f.file.sync_data().await?;
            }
        }
        // S-70: slot A whole and synced, then slot B; the other way round where A is all that there is.
        let first = self.first_slot.load(Ordering::Relaxed);
        if !self.slots_synced.load(Ordering::Relaxed) {
            // What is to stand while the first one is written may be of a process that died before it had synced it.
            match self.disk.open(&slot_path(&self.dir, 1 - first), OpenOptions::EDIT).await {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                file => file?.sync_data().await?,
            }
            self.disk.sync_dir(&self.dir).await?;
            self.slots_synced.store(true, Ordering::Relaxed);
        }
        for slot in [first, 1 - first] {
            self.first_slot.store(slot, Ordering::Relaxed);
            let path = slot_path(&self.dir, slot);
            let file = self.disk.open(&path, OpenOptions::CREATE).await?;
            file.write_vectored_at(0, vec![bytes.clone()]).await?;
            file.sync_data().await?;
            self.disk.sync_dir(&self.dir).await?;
        }
        self.first_slot.store(0, Ordering::Relaxed);
        // What another group still needs stays noted until that one gives it up too.
        self.leaked.lock().retain(|f| !leaked.contains(f) || after.contains(f));
        for w in work {
            if let Some(r) = records.get(&w.id) {
                w.group.lock().installed(&w.plan, r);
            }
        }
        // S-26: what only rounds before it name is named no more.
        self.named.lock().retain(|_, last| *last >= replay_from);
        self.remove_files(&garbage).await;
        self.replay_from.store(replay_from.0, Ordering::Relaxed);
        self.journal.lock().release(replay_from);
        self.remove_foreign().await;
        self.wake.notify_one();
        Ok(true)
    }
}
