//! The stream that the applied part of a group's log makes: what is live, where it is, and what may be asked of it.
//!
//! Owns the totals, deletions, and the answers. Does no I/O: what needs something that is not at hand answers [`Need`],
//! before it has changed anything, and is called again with it. Does not decide what is deleted.
//!
//! - S-50: the totals equal what a walk over all live messages counts.

use std::{hint::black_box, sync::Arc};

use rustc_hash::FxHashMap;

use crate::{
    dict::{ABREAST, Dict},
    feet::{Feet, Need, What},
    filter,
    group::{Group, NONE, Piece, Place, TailMsg},
    manifest::Lost,
    record::{Entry, Head, Message, record_seq},
    segment::{Slot, SubjectFoot},
    store::{Read, Stored},
    types::{Damage, Error, Result, StreamSeq},
};

type Asked<T> = std::result::Result<T, Need>;

/// Subjects that a filter with wildcards may mean for a search to pass over pieces without them, and subjects that are looked at to find that
/// out: about as long as the footer of one piece takes.
const FEW: usize = 64;
const FEW_LOOKED_AT: usize = 10_000;
/// Subjects of a piece whose messages are merged instead of scanned for.
const MERGED: usize = 16;

/// Live messages of one subject: how many, the first, the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubjectTotals {
    /// Live messages; at least one.
    pub msgs: u64,
    /// The first of them.
    pub first: StreamSeq,
    /// The last of them.
    pub last: StreamSeq,
}

impl Piece {
    /// Where in the footer's slots the part from `from` to `upto` lies.
    fn slots(&self, f: &SubjectFoot, from: StreamSeq, upto: StreamSeq) -> std::ops::Range<usize> {
        let base = self.meta.first_seq.0;
        let start = f.slots.partition_point(|s| base + u64::from(s.seq) < from.0);
        let end = f.slots.partition_point(|s| base + u64::from(s.seq) <= upto.0);
        start..end.max(start)
    }

    /// Live messages from `from` to `upto`.
    fn live_in(self: &Arc<Self>, from: StreamSeq, upto: StreamSeq, feet: &Feet<'_>) -> Asked<u64> {
        let (from, upto) = (from.max(self.meta.first_seq), upto.min(self.meta.last_seq));
        if from > upto {
            return Ok(0);
        }
        if from == self.meta.first_seq && upto == self.meta.last_seq {
            return Ok(self.live());
        }
        let all = if self.meta.dense() {
            upto.0 - from.0 + 1
        } else {
            self.slots(&*feet.subjects(self)?, from, upto).len() as u64
        };
        Ok(all.saturating_sub(self.deleted.range_cardinality(self.rel(from)..=self.rel(upto))))
    }

    /// The first live message from `from` on.
    fn next_live(self: &Arc<Self>, from: StreamSeq, feet: &Feet<'_>) -> Asked<Option<StreamSeq>> {
        let from = from.max(self.meta.first_seq);
        if from > self.meta.last_seq || self.live() == 0 {
            return Ok(None);
        }
        let start = self.rel(from);
        // Deletions come in runs. A run that begins at `start` ends where the count of deletions falls behind.
        if self.meta.dense() {
            // As a rule the first of a queue goes, and the one behind it is there: no need to count.
            if !self.deleted.contains(start) {
                return Ok(Some(from));
            }
            let end = self.rel(self.meta.last_seq);
            let gone = |n: u32| self.deleted.range_cardinality(start..=start + n) == u64::from(n) + 1;
            return Ok(first_false(u64::from(end - start) + 1, |n| gone(n as u32))
                .map(|n| self.seq(start + n as u32)));
        }
        let f = feet.subjects(self)?;
        let slots = &f.slots[self.slots(&f, from, self.meta.last_seq)];
        if let Some(s) = slots.first().filter(|s| !self.deleted.contains(s.seq)) {
            return Ok(Some(self.seq(s.seq)));
        }
        let gone = |n: u64| self.deleted.range_cardinality(start..=slots[n as usize].seq) > n;
        // A purged piece has its gaps marked too, but then nothing is live; otherwise only messages are marked.
        Ok(first_false(slots.len() as u64, gone).map(|n| self.seq(slots[n as usize].seq)))
    }
}

/// The first of `0..n` for which `test` is false, if it is true for all before and false for all after.
fn first_false(n: u64, test: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut lo, mut step) = (0, 1);
    // The answer is near the start as a rule.
    while lo < n && test(lo) {
        if lo + step >= n || !test(lo + step) {
            break;
        }
        lo += step;
        step *= 2;
    }
    let (mut a, mut b) = (lo, n.min(lo + step + 1));
    while a < b {
        let mid = a + (b - a) / 2;
        if test(mid) { a = mid + 1 } else { b = mid }
    }
    (a < n).then_some(a)
}

/// Filters, and what is known of them before the search.
struct Wanted<'f, F> {
    filters: &'f [F],
    all: bool,
    /// The only filter, if it is a literal: its id.
    id: Option<u32>,
    literals: bool,
    from: StreamSeq,
    upto: StreamSeq,
}

impl<F: AsRef<[u8]>> Wanted<'_, F> {
    fn matches(&self, subject: &[u8]) -> bool {
        self.all || self.filters.iter().any(|f| filter::matches(f.as_ref(), subject))
    }
}

impl Group {
    // ---- applying

    /// The entry is committed: its messages join the stream. Entries are applied in order.
    pub(crate) fn apply(&mut self, h: &Head, feet: &Feet<'_>) -> Asked<Result<()>> {
        if h.index != self.applied.next() || h.index > self.last_index {
            let (at, end) = (self.applied.0, self.last_index.0);
            let text = format!("apply {} after {at}, the log ends at {end}", h.index.0);
            return Ok(Err(Error::Invalid(text)));
        }
        if h.count > 0 {
            if h.index > self.flushed.0 {
                self.apply_tail(h);
            } else if let Some(t) = self.patched.get(&h.index) {
                for m in self.messages_of(&t.entry.clone()) {
                    self.join(m.seq, m.size);
                    self.totals.last_time = m.time;
                }
            } else {
                self.apply_flushed(h, feet)?;
            }
        }
        let lost = self.lost_upto(h.index);
        if lost > self.totals.last {
            // What was lost has had its sequences.
            let in_step = self.dict_ready();
            self.totals.last = lost;
            if in_step {
                self.dict_upto = lost;
            }
        }
        if self.totals.msgs == 0 {
            self.totals.first = self.totals.last.next();
        }
        self.applied = h.index;
        Ok(Ok(()))
    }

    fn apply_tail(&mut self, h: &Head) {
        let in_step = self.dict_ready();
        let at = self.tail_from(h.first);
        let payload = self.entry(h.index).map(|e| e.payload.clone()).unwrap_or_default();
        let mut upto = at;
        for i in at..self.msgs.len() {
            let m = self.msgs[i];
            if m.entry != h.index {
                break;
            }
            self.join(m.seq, m.size);
            self.totals.last_time = m.time;
            upto = i + 1;
        }
        if in_step {
            self.note_subjects(at..upto, &payload);
        }
        self.totals.last = self.totals.last.max(h.first);
        if in_step {
            self.dict_upto = self.totals.last;
        }
    }

    /// An entry above the checkpoint that is in a piece already: a restart applies it again.
    fn apply_flushed(&mut self, h: &Head, feet: &Feet<'_>) -> Asked<()> {
        let holds = |p: &&Arc<Piece>| p.meta.first_index <= h.index && h.index <= p.meta.last_index;
        let of_entry: Vec<Arc<Piece>> = self.pieces.iter().filter(holds).cloned().collect();
        let feet: Vec<_> = of_entry.iter().map(|p| feet.subjects(p)).collect::<Asked<_>>()?;
        for (p, f) in of_entry.iter().zip(feet) {
            let at = f.slots.partition_point(|s| p.seq(s.seq) < h.first);
            for s in f.slots.iter().skip(at).take(h.count as usize) {
                self.join(p.seq(s.seq), s.size);
                if p.seq(s.seq) == p.meta.last_seq {
                    self.totals.last_time = p.meta.last_time;
                }
            }
        }
        self.totals.last = self.totals.last.max(h.first);
        Ok(())
    }

    fn join(&mut self, seq: StreamSeq, size: u32) {
        if self.totals.msgs == 0 {
            self.totals.first = seq;
        }
        self.totals.msgs += 1;
        self.totals.bytes += u64::from(size);
        self.totals.last = seq;
    }

    fn tail_record(&self, m: &TailMsg) -> bytes::Bytes {
        let e = self.entry(m.entry).expect("S-53: a message in the tail has its entry there");
        e.payload.slice(m.off as usize..(m.off + m.len) as usize)
    }

    /// Puts a message of the tail into the dictionary. `payload` is its entry's.
    fn note_subject(&mut self, slot: usize, payload: &[u8]) {
        let m = self.msgs[slot];
        let record = &payload[m.off as usize..(m.off + m.len) as usize];
        let d = Message::parse(record).expect("S-10: entries are checked before they get here");
        let id = self.dict.intern(d.subject);
        self.note_id(slot, id);
    }
    fn note_id(&mut self, slot: usize, id: u32) {
        let m = &mut self.msgs[slot];
        m.subject = id;
        let seq = m.seq;
        if let Some(before) = self.dict.add(id, seq)
            && let Some(j) = self.tail_slot(before)
        {
            self.msgs[j].next = (slot - j) as u32;
        }
    }
    /// Puts messages of the tail that are of one entry into the dictionary: those that it knows are looked up side by side.
    fn note_subjects(&mut self, slots: std::ops::Range<usize>, payload: &[u8]) {
        let mut slot = slots.start;
        while slot < slots.end {
            let n = ABREAST.min(slots.end - slot);
            let mut subjects: [&[u8]; ABREAST] = [&[]; ABREAST];
            for (m, s) in self.msgs.range(slot..slot + n).zip(&mut subjects) {
                let record = &payload[m.off as usize..(m.off + m.len) as usize];
                *s = Message::parse(record).expect("S-10: entries are checked before they get here").subject;
            }
            // Who publishes to one subject again and again has it compared and not looked up.
            let mut ids = [None; ABREAST];
            ids[0] = self.dict.found_last(subjects[0]);
            let (mut asked, mut places, mut k): ([&[u8]; ABREAST], _, _) = ([&[]; ABREAST], [0; ABREAST], 0);
            for i in 0..n {
                let known = if i == 0 { ids[0].is_some() } else { subjects[i] == subjects[i - 1] };
                if !known {
                    (asked[k], places[k]) = (subjects[i], i);
                    k += 1;
                }
            }
            self.dict.find_each(&asked[..k], |i, id| ids[places[i]] = id);
            self.touch_lasts(&ids[..n]);
            let mut before = NONE;
            for (i, s) in subjects[..n].iter().enumerate() {
                // One that is new may be there by now: the batch may have it twice.
                let id = match ids[i] {
                    Some(id) => id,
                    None if i > 0 && *s == subjects[i - 1] => before,
                    None => self.dict.intern(s),
                };
                self.note_id(slot + i, id);
                before = id;
            }
            self.dict.asked_for(before);
            slot += n;
        }
    }

    /// Reads the last messages of subjects where they stand in the tail without gaps: they are told of what comes after them, and where only so many are
    /// kept they are removed.
    fn touch_lasts(&self, ids: &[Option<u32>]) {
        let front = self.msgs.front().map_or(u64::MAX, |m| m.seq.0);
        let slots = ids.iter().flatten().filter_map(|id| self.dict.info(*id).last.0.checked_sub(front));
        let lasts = slots.filter_map(|slot| self.msgs.get(usize::try_from(slot).ok()?));
        black_box(lasts.fold(0, |touched, m| touched ^ m.seq.0));
    }

    // ---- the dictionary

    /// Brings the dictionary up to date with one more piece, or with the tail; true when it is.
    fn step_dict(&mut self, feet: &Feet<'_>) -> Asked<bool> {
        if self.dict_upto >= self.totals.last {
            return Ok(true);
        }
        let at = self.data_from(self.dict_upto.next());
        let next = self.data.get(at).map(|i| self.pieces[*i as usize].clone());
        if let Some(p) = next.filter(|p| p.meta.first_seq <= self.totals.last) {
            let f = feet.subjects(&p)?;
            let (from, upto, whole) = (self.dict_upto, self.totals.last, p.deleted.is_empty());
            let counts = |s: &Slot| {
                let seq = p.seq(s.seq);
                seq > from && seq <= upto && (whole || !p.deleted.contains(s.seq))
            };
            // Subjects first, in their order: neighbours in a piece are neighbours in the dictionary.
            let mut ids = vec![NONE; f.subjects()];
            for s in f.slots.iter().filter(|s| counts(s)) {
                ids[s.subject as usize] = 0;
            }
            let mut before = None;
            for (i, id) in ids.iter_mut().enumerate().filter(|(_, id)| **id != NONE) {
                *id = self.dict.intern_next(f.subject(i as u32), before);
                before = Some(*id);
            }
            for s in f.slots.iter().filter(|s| counts(s)) {
                self.dict.add(ids[s.subject as usize], p.seq(s.seq));
            }
            self.dict_upto = p.meta.last_seq.min(self.totals.last);
            return Ok(false);
        }
        let at = self.msgs.partition_point(|m| m.seq <= self.dict_upto);
        for i in at..self.msgs.len() {
            let m = self.msgs[i];
            if m.seq > self.totals.last {
                break;
            }
            if !m.deleted {
                let e = self.entry(m.entry).expect("S-53: a message in the tail has its entry there");
                let payload = e.payload.clone();
                self.note_subject(i, &payload);
            }
        }
        self.dict_upto = self.totals.last;
        Ok(true)
    }

    /// Brings the dictionary up to date. Work that was done stays done if something is missing for the rest.
    pub(crate) fn ready(&mut self, feet: &Feet<'_>) -> Asked<()> {
        while !self.step_dict(feet)? {}
        Ok(())
    }

    /// Whether subject queries can be answered.
    pub(crate) fn dict_ready(&self) -> bool {
        self.dict_upto >= self.totals.last
    }

    // ---- where things are

    /// The first of `data` that has messages at or after `seq`.
    fn data_from(&self, seq: StreamSeq) -> usize {
        self.data.partition_point(|i| self.pieces[*i as usize].meta.last_seq < seq)
    }
    fn data(&self, range: std::ops::Range<usize>) -> impl DoubleEndedIterator<Item = &Arc<Piece>> {
        self.data[range].iter().map(|i| &self.pieces[*i as usize])
    }
    /// The pieces with messages at or after `from`.
    fn pieces_from(&self, from: StreamSeq) -> impl DoubleEndedIterator<Item = &Arc<Piece>> {
        self.data(self.data_from(from)..self.data.len())
    }

    /// The piece with the messages that follow those of `p`.
    pub(crate) fn piece_behind(&self, p: &Piece) -> Option<Arc<Piece>> {
        self.pieces_from(p.meta.last_seq.next()).find(|next| next.live() > 0).cloned()
    }

    /// Where in the tail the first message at or after `seq` stands.
    fn tail_from(&self, seq: StreamSeq) -> usize {
        match self.tail_slot(seq) {
            Some(i) => i,
            None => self.msgs.partition_point(|m| m.seq < seq),
        }
    }
    pub(crate) fn tail_slot(&self, seq: StreamSeq) -> Option<usize> {
        // Without gaps this is it; with gaps it is further to the front.
        let guess = usize::try_from(seq.0.checked_sub(self.msgs.front()?.seq.0)?).ok()?;
        if self.msgs.get(guess).is_some_and(|m| m.seq == seq) {
            return Some(guess);
        }
        let i = self.msgs.partition_point(|m| m.seq < seq);
        (self.msgs.get(i)?.seq == seq).then_some(i)
    }

    /// The subject of a message of the tail, which is asked for next as a rule. The dictionary must be ready.
    pub(crate) fn subject_of(&self, seq: StreamSeq) -> Option<u32> {
        let id = self.msgs[self.tail_slot(seq)?].subject;
        let known = (id as usize) < self.dict.ids();
        known.then(|| self.dict.asked_for(id));
        known.then_some(id)
    }

    pub(crate) fn piece_of(&self, seq: StreamSeq) -> Option<usize> {
        let holds = |at: usize| {
            let i = *self.data.get(at)? as usize;
            self.pieces[i].meta.holds(seq).then_some(i)
        };
        if let Some(i) = holds(self.near_piece.get()) {
            return Some(i);
        }
        let at = self.data_from(seq);
        self.near_piece.set(at);
        holds(at)
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
        match self.piece_of(seq).map(|i| &self.pieces[i]) {
            Some(p) => match self.lost_at(seq) {
                Some(l) => Place::Lost(l),
                None if p.deleted.contains(p.rel(seq)) => Place::Absent,
                None => match self.patched_record(seq) {
                    Some(r) => Place::Here(r),
                    None => Place::Piece(p.clone()),
                },
            },
            None => self.lost_at(seq).map_or(Place::Absent, Place::Lost),
        }
    }

    fn lost_at(&self, seq: StreamSeq) -> Option<Lost> {
        let at = |l: &&Lost| l.sure && l.first_seq.0 > 0 && l.first_seq <= seq && seq <= l.last_seq;
        self.lost.iter().find(at).copied()
    }

    /// A message of an entry that is damaged in its piece and was patched since.
    fn patched_record(&self, seq: StreamSeq) -> Option<bytes::Bytes> {
        let holds = |e: &&Entry| e.head.count > 0 && e.head.first <= seq;
        let e = self.patched.values().map(|t| &t.entry).filter(holds).last()?;
        let r = e.records().flatten().find(|r| record_seq(r) == Some(seq))?;
        Some(e.payload.slice_ref(r))
    }

    /// A message.
    pub(crate) fn read(&self, seq: StreamSeq, feet: &Feet<'_>) -> Asked<Read> {
        let p = match self.place(seq) {
            Place::Absent => return Ok(Read::Absent),
            Place::Here(r) => return Ok(Read::Valid(Stored::new(self.id, r))),
            Place::Lost(l) => {
                let messages = Some((l.first_seq, l.last_seq));
                let (entries, what) = (Some((l.first, l.last)), "lost".to_owned());
                return Ok(Read::Damaged(Damage { group: Some(self.id), entries, messages, what }));
            }
            Place::Piece(p) => p,
        };
        if let Some(r) = feet.near.find(&p, seq) {
            return Ok(Read::Valid(Stored::new(self.id, r)));
        }
        if !feet.pins.is_empty()
            && let Some(r) = feet.pins.record(&p, seq)
        {
            return Ok(r);
        }
        if let Some(f) = feet.try_index(&p)
            && let Some((i, at)) = f.block_of(&p.meta, seq)
        {
            let at = (p.meta.file, at);
            if feet.near.is_first() {
                if let Some(r) = feet.cache.record_of(at, self.id, seq) {
                    return Ok(Read::Valid(Stored::new(self.id, r)));
                }
            } else if let Some(b) = feet.cache.get_block(at)
                && let Some(r) = b.whole(self.id, seq)
            {
                feet.near.put(&p, f.range_of(&p.meta, i), b);
                return Ok(Read::Valid(Stored::new(self.id, r)));
            }
        }
        Err(Need(What::Record(p, seq)))
    }

    // ---- taking messages out

    /// Takes a message out of the stream; whether it was live.
    pub(crate) fn remove(&mut self, seq: StreamSeq, feet: &Feet<'_>) -> Asked<bool> {
        if seq > self.totals.last || seq < self.totals.first || self.totals.msgs == 0 {
            return Ok(false);
        }
        let first = match (seq == self.totals.first, self.totals.msgs) {
            (false, _) => self.totals.first,
            (true, 1) => self.totals.last.next(),
            (true, _) => self.next_any(seq.next(), feet)?.unwrap_or(self.totals.last.next()),
        };
        let size = match self.tail_slot(seq) {
            Some(i) if self.msgs[i].deleted => return Ok(false),
            Some(i) => self.remove_in_tail(i),
            None => {
                let Some(i) = self.piece_of(seq) else { return Ok(false) };
                match self.remove_in_piece(i, seq, feet)? {
                    Some(size) => size,
                    None => return Ok(false),
                }
            }
        };
        self.totals.msgs -= 1;
        // What cannot be read of a damaged piece counts by guess, and by what it is once that is mended: the two may differ.
        let left = self.totals.bytes.saturating_sub(u64::from(size));
        self.totals.bytes = if self.totals.msgs == 0 { 0 } else { left };
        self.totals.first = if self.totals.msgs == 0 { self.totals.last.next() } else { first };
        if self.dict.is_mostly_dead() {
            let ids = self.dict.renumber();
            for m in self.msgs.iter_mut().filter(|m| m.subject != NONE) {
                m.subject = ids[m.subject as usize];
            }
        }
        Ok(true)
    }

    fn remove_in_tail(&mut self, i: usize) -> u32 {
        self.msgs[i].deleted = true;
        let m = self.msgs[i];
        self.tail_deleted.insert(m.seq.0);
        if m.subject != NONE && m.seq <= self.dict_upto {
            let was_first = self.dict.info(m.subject).first == m.seq;
            self.dict.remove(m.subject, m.seq);
            let info = self.dict.info(m.subject);
            if was_first && info.count() > 0 && !info.first_is_exact() {
                let mut at = i;
                while self.msgs[at].next > 0 {
                    at += self.msgs[at].next as usize;
                    if !self.msgs[at].deleted {
                        let first = self.msgs[at].seq;
                        self.dict.tighten(m.subject, Some(first), None);
                        break;
                    }
                }
            }
        }
        m.size
    }

    fn remove_in_piece(&mut self, i: usize, seq: StreamSeq, feet: &Feet<'_>) -> Asked<Option<u32>> {
        let p = &self.pieces[i];
        let rel = p.rel(seq);
        if p.deleted.contains(rel) {
            return Ok(None);
        }
        let f = feet.subjects(p)?;
        let Some(at) = f.slot_of(rel) else { return Ok(None) };
        let slot = f.slots[at];
        Arc::make_mut(&mut self.pieces[i]).deleted.insert(rel);
        let p = &self.pieces[i];
        // Whose message it is does not have to be read where that was asked just now.
        let known = |d: &Dict| d.found_first(seq).or_else(|| d.find(f.subject(slot.subject)));
        if seq <= self.dict_upto
            && let Some(id) = known(&self.dict)
        {
            let was = *self.dict.info(id);
            self.dict.remove(id, seq);
            let left = *self.dict.info(id);
            if left.count() == 0 || (left.first_is_exact() && left.last_is_exact()) {
                return Ok(Some(slot.size));
            }
            // What follows or comes before in the same piece is at hand.
            let of_subject = f.slots_of(slot.subject);
            let here = of_subject.partition_point(|s| f.slots[*s as usize].seq < rel);
            let live = |s: &&u32| !p.deleted.contains(f.slots[**s as usize].seq);
            let seq_of = |s: &u32| p.seq(f.slots[*s as usize].seq);
            let upto = self.dict_upto;
            let (mut first, mut before) = (None, None);
            if was.first == seq {
                first = of_subject[here..].iter().find(live).map(seq_of).filter(|s| *s <= upto);
            }
            if was.last == seq {
                before = of_subject[..here].iter().rev().find(live).map(seq_of);
            }
            self.dict.tighten(id, first, before.filter(|b| *b >= was.first));
        }
        Ok(Some(slot.size))
    }

    /// Takes all messages out of the stream; how many there were.
    pub(crate) fn clear(&mut self, feet: &Feet<'_>) -> Asked<u64> {
        let last = self.totals.last;
        // Whole pieces are marked with their gaps, which needs no footer; at most one piece is applied in part only.
        let part = self.data(0..self.data.len()).find(|p| p.meta.first_seq <= last && last < p.meta.last_seq);
        let part = part.filter(|p| !p.meta.dense() && p.live() > 0).map(|p| feet.subjects(p)).transpose()?;
        for p in self.pieces.iter_mut().filter(|p| p.meta.first_seq <= last && p.live() > 0) {
            let whole = p.meta.last_seq <= last;
            let upto = p.rel(p.meta.last_seq.min(last));
            let p = Arc::make_mut(p);
            match &part {
                Some(f) if !whole => p.deleted.extend(f.slots.iter().map(|s| s.seq).filter(|s| *s <= upto)),
                _ => {
                    p.deleted.insert_range(0..=upto);
                }
            }
        }
        let upto = self.msgs.partition_point(|m| m.seq <= last);
        for m in self.msgs.range_mut(..upto).filter(|m| !m.deleted) {
            m.deleted = true;
            self.tail_deleted.insert(m.seq.0);
        }
        self.dict = crate::dict::Dict::default();
        self.msgs.iter_mut().for_each(|m| m.subject = NONE);
        self.dict_upto = last;
        let gone = std::mem::take(&mut self.totals.msgs);
        (self.totals.bytes, self.totals.first) = (0, last.next());
        Ok(gone)
    }

    // ---- questions

    /// The first live message from `from` on.
    pub(crate) fn next_any(&self, from: StreamSeq, feet: &Feet<'_>) -> Asked<Option<StreamSeq>> {
        self.next_any_upto(from, self.totals.last, feet)
    }

    fn next_any_upto(&self, from: StreamSeq, upto: StreamSeq, feet: &Feet<'_>) -> Asked<Option<StreamSeq>> {
        for p in self.pieces_from(from) {
            if p.meta.first_seq > upto {
                return Ok(None);
            }
            if let Some(seq) = p.next_live(from, feet)? {
                return Ok((seq <= upto).then_some(seq));
            }
        }
        let at = self.tail_from(from);
        Ok(self.msgs.range(at..).take_while(|m| m.seq <= upto).find(|m| !m.deleted).map(|m| m.seq))
    }

    /// Filters as a search uses them; `None` if nothing can match. The dictionary must be ready.
    fn wanted<'f, F: AsRef<[u8]>>(&self, filters: &'f [F], from: StreamSeq) -> Option<Wanted<'f, F>> {
        let from = from.max(self.totals.first);
        let mut w = Wanted { filters, all: true, id: None, literals: false, from, upto: self.totals.last };
        if filters.is_empty() || filters.iter().any(|f| filter::is_all(f.as_ref())) {
            return Some(w);
        }
        (w.all, w.literals) = (false, filters.iter().all(|f| filter::is_literal(f.as_ref())));
        if w.literals {
            let (mut lo, mut hi, mut some) = (StreamSeq(u64::MAX), StreamSeq(0), None);
            for f in filters {
                let Some(id) = self.dict.find(f.as_ref()) else { continue };
                let i = self.dict.info(id);
                if i.count() > 0 && i.last >= from {
                    (lo, hi, some) = (lo.min(i.first), hi.max(i.last), Some(id));
                }
            }
            some?;
            (w.from, w.upto) = (w.from.max(lo), w.upto.min(hi));
            w.id = some.filter(|_| filters.len() == 1);
        }
        Some(w)
    }

    /// The first live message from `from` on whose subject matches any of `filters`; none of them matches all. The
    /// dictionary must be ready unless everything matches.
    pub(crate) fn next<F: AsRef<[u8]>>(
        &self,
        filters: &[F],
        from: StreamSeq,
        feet: &Feet<'_>,
    ) -> Asked<Option<StreamSeq>> {
        let Some(w) = self.wanted(filters, from) else { return Ok(None) };
        if w.all {
            return self.next_any(w.from, feet);
        }
        if let Some(id) = w.id
            && let i = self.dict.info(id)
            && i.first_is_exact()
            && i.first >= w.from
        {
            return Ok(Some(i.first));
        }
        // Asked for once the first piece had nothing: then it may be worth to know which pieces are to be passed over.
        let mut few: Option<Vec<u32>> = None;
        for (i, p) in self.pieces_from(w.from).filter(|p| p.live() > 0).enumerate() {
            if p.meta.first_seq > w.upto {
                break;
            }
            if i == 1 && !w.literals {
                few = self.few(filters);
            }
            if let Some(ids) = &few
                && !self.may_hold(p, ids, w.from, feet)?
            {
                continue;
            }
            if let Some(hit) = self.next_in_piece(p, &w, feet)? {
                return Ok(Some(hit));
            }
        }
        let at = self.tail_from(w.from);
        let in_tail = |ids: &Vec<u32>| {
            let first = self.msgs.get(at).map_or(StreamSeq(u64::MAX), |m| m.seq);
            ids.iter().any(|id| self.dict.info(*id).last >= first)
        };
        if few.is_some_and(|ids| !in_tail(&ids)) {
            return Ok(None);
        }
        let hit = self.msgs.range(at..).take_while(|m| m.seq <= w.upto).find(|m| {
            !m.deleted
                && match w.id {
                    Some(id) => m.subject == id,
                    None => w.matches(self.dict.subject(m.subject)),
                }
        });
        Ok(hit.map(|m| m.seq))
    }

    /// The subjects that filters with wildcards mean, if they are few.
    fn few<F: AsRef<[u8]>>(&self, filters: &[F]) -> Option<Vec<u32>> {
        let mut all = Vec::new();
        for f in filters {
            all.extend(self.dict.few(f.as_ref(), FEW, FEW_LOOKED_AT)?);
        }
        (all.len() <= FEW).then_some(all)
    }

    /// Whether a piece may have live messages of these subjects at or after `from`.
    fn may_hold(&self, p: &Arc<Piece>, ids: &[u32], from: StreamSeq, feet: &Feet<'_>) -> Asked<bool> {
        let from = from.max(p.meta.first_seq);
        let near = |id: &&u32| {
            let i = self.dict.info(**id);
            i.first <= p.meta.last_seq && i.last >= from
        };
        if !ids.iter().any(|id| near(&id)) {
            return Ok(false);
        }
        let index = feet.index(p)?;
        Ok(ids.iter().filter(near).any(|id| index.filter.may_hold(self.dict.subject(*id))))
    }

    fn next_in_piece<F: AsRef<[u8]>>(
        &self,
        p: &Arc<Piece>,
        w: &Wanted<'_, F>,
        feet: &Feet<'_>,
    ) -> Asked<Option<StreamSeq>> {
        if w.literals {
            let index = feet.index(p)?;
            if !w.filters.iter().any(|f| index.filter.may_hold(f.as_ref())) {
                return Ok(None);
            }
        }
        let f = feet.subjects(p)?;
        let range = p.slots(&f, w.from, w.upto);
        let mut best: Option<u32> = None;
        for one in w.filters {
            let one = one.as_ref();
            let end = best.unwrap_or(range.end as u32);
            let hit = if filter::is_literal(one) {
                let slots = f.find(one).map_or(&[][..], |s| f.slots_of(s));
                let at = slots.partition_point(|s| (*s as usize) < range.start);
                slots[at..]
                    .iter()
                    .take_while(|s| **s < end)
                    .find(|s| !p.deleted.contains(f.slots[**s as usize].seq))
                    .copied()
            } else {
                let with = f.with_prefix(filter::prefix(one));
                if with.len() <= MERGED {
                    with.filter(|s| filter::matches(one, f.subject(*s)))
                        .filter_map(|s| {
                            let slots = f.slots_of(s);
                            let at = slots.partition_point(|s| (*s as usize) < range.start);
                            let mut here = slots[at..].iter().copied().take_while(|s| *s < end);
                            here.find(|s| !p.deleted.contains(f.slots[*s as usize].seq))
                        })
                        .min()
                } else {
                    // Where the next one is near, it is found before it is worth to remember anything.
                    let (mut known, mut tried): (Vec<Option<bool>>, usize) = (Vec::new(), 0);
                    (range.start as u32..end).find(|i| {
                        let s = f.slots[*i as usize];
                        if !with.contains(&s.subject) || p.deleted.contains(s.seq) {
                            return false;
                        }
                        tried += 1;
                        let matches = || filter::matches(one, f.subject(s.subject));
                        if tried <= MERGED {
                            return matches();
                        }
                        if known.is_empty() {
                            known = vec![None; with.len()];
                        }
                        *known[(s.subject - with.start) as usize].get_or_insert_with(matches)
                    })
                }
            };
            best = hit.or(best);
        }
        Ok(best.map(|i| p.seq(f.slots[i as usize].seq)))
    }

    /// The last live message of one subject, up to `upto`, and whether the dictionary knew it. The dictionary must be ready.
    pub(crate) fn last_of(
        &self,
        subject: &[u8],
        upto: StreamSeq,
        feet: &Feet<'_>,
    ) -> Asked<(Option<StreamSeq>, bool)> {
        let Some(id) = self.dict.find(subject) else { return Ok((None, true)) };
        let info = *self.dict.info(id);
        if info.count() == 0 || upto < info.first {
            return Ok((None, true));
        }
        if upto >= info.last && info.last_is_exact() {
            return Ok((Some(info.last), true));
        }
        if info.count() == 1 && info.first_is_exact() {
            return Ok(((info.first <= upto).then_some(info.first), false));
        }
        let upto = upto.min(info.last);
        let at = self.msgs.partition_point(|m| m.seq <= upto);
        let tail = self.msgs.range(..at).rev().take_while(|m| m.seq >= info.first);
        if let Some(m) = tail.into_iter().find(|m| m.subject == id && !m.deleted) {
            return Ok((Some(m.seq), false));
        }
        let end = self.data.partition_point(|i| self.pieces[*i as usize].meta.first_seq <= upto);
        for p in self.data(0..end).rev() {
            if p.meta.last_seq < info.first {
                break;
            }
            if p.live() == 0 || !feet.index(p)?.filter.may_hold(subject) {
                continue;
            }
            let f = feet.subjects(p)?;
            let slots = f.find(subject).map_or(&[][..], |s| f.slots_of(s));
            let at = slots.partition_point(|s| p.seq(f.slots[*s as usize].seq) <= upto);
            let mut seqs = slots[..at].iter().rev().map(|s| f.slots[*s as usize].seq);
            if let Some(r) = seqs.find(|r| !p.deleted.contains(*r)) {
                return Ok((Some(p.seq(r)), false));
            }
        }
        Ok((None, false))
    }

    /// The totals of one subject, bounds made exact. The dictionary must be ready.
    pub(crate) fn subject_totals(&self, id: u32, feet: &Feet<'_>) -> Asked<Option<SubjectTotals>> {
        let i = *self.dict.info(id);
        if i.count() == 0 {
            return Ok(None);
        }
        let subject = self.dict.subject(id);
        let first = match i.first_is_exact() {
            true => Some(i.first),
            false => match self.first_near_last(id) {
                Some(first) => Some(first),
                None => self.next(&[subject], i.first, feet)?,
            },
        };
        let last = if i.last_is_exact() { Some(i.last) } else { self.last_of(subject, i.last, feet)?.0 };
        // With damage in the way a bound stays a bound.
        let (first, last) = (first.unwrap_or(i.first), last.unwrap_or(i.last));
        Ok(Some(SubjectTotals { msgs: i.count(), first, last }))
    }

    /// The first message of a subject that has few, if all of them are near each other at the end: what is published twice in a moment and kept once
    /// loses what it had before, and a search from there would go through the whole tail.
    fn first_near_last(&self, id: u32) -> Option<StreamSeq> {
        const COUNT_MAX: u64 = 16;
        const STEPS_MAX: usize = 4096;
        let i = self.dict.info(id);
        if !i.last_is_exact() || i.count() > COUNT_MAX {
            return None;
        }
        let at = self.tail_slot(i.last)?;
        let near = self.msgs.range(..=at).rev().take(STEPS_MAX);
        let mut live = near.filter(|m| m.subject == id && !m.deleted);
        live.nth(usize::try_from(i.count()).ok()?.checked_sub(1)?).map(|m| m.seq)
    }

    /// Live messages from `from` to the end, of any subject.
    fn live_from(&self, from: StreamSeq, feet: &Feet<'_>) -> Asked<u64> {
        let upto = self.totals.last;
        if from <= self.totals.first {
            return Ok(self.totals.msgs);
        }
        if from > upto {
            return Ok(0);
        }
        let at = self.data_from(from);
        if at < self.data.len() && at * 2 < self.data.len() {
            let mut before = 0;
            for p in self.data(0..at + 1) {
                before += p.live_in(StreamSeq(0), StreamSeq(from.0 - 1), feet)?;
            }
            return Ok(self.totals.msgs.saturating_sub(before));
        }
        let mut n = 0;
        for p in self.data(at..self.data.len()) {
            n += p.live_in(from, upto, feet)?;
        }
        let (lo, hi) = (self.tail_from(from), self.msgs.partition_point(|m| m.seq <= upto));
        let gone = self.tail_deleted.range_cardinality(from.0..=upto.0);
        Ok(n + (hi.saturating_sub(lo) as u64).saturating_sub(gone))
    }

    /// How many live messages from `from` on match any of `filters`; none of them matches all. The dictionary must be ready
    /// unless everything matches.
    pub(crate) fn pending<F: AsRef<[u8]>>(
        &self,
        filters: &[F],
        from: StreamSeq,
        feet: &Feet<'_>,
    ) -> Asked<u64> {
        let Some(w) = self.wanted(filters, from) else { return Ok(0) };
        if w.all {
            return self.live_from(w.from, feet);
        }
        if from <= self.totals.first {
            return Ok(self.matching_msgs(filters));
        }
        // The subjects of literals that lie wholly behind `from` need no search.
        if let Some(id) = w.id
            && self.dict.info(id).first >= from
        {
            return Ok(self.dict.info(id).count());
        }
        let at = self.data_from(w.from);
        if at < self.data.len() && at * 2 < self.data.len() {
            let (mut before, to) = (0, StreamSeq(w.from.0 - 1));
            for p in self.data(0..at + 1) {
                before += self.count_in_piece(p, &w, StreamSeq(0), to, feet)?;
            }
            return Ok(self.matching_msgs(filters).saturating_sub(before));
        }
        let mut n = 0;
        for p in self.data(at..self.data.len()) {
            if p.meta.first_seq > w.upto {
                break;
            }
            n += self.count_in_piece(p, &w, w.from, w.upto, feet)?;
        }
        let at = self.tail_from(w.from);
        let mut known: FxHashMap<u32, bool> = FxHashMap::default();
        let tail = self.msgs.range(at..).take_while(|m| m.seq <= w.upto).filter(|m| !m.deleted);
        n += tail
            .filter(|m| match w.id {
                Some(id) => m.subject == id,
                None => *known.entry(m.subject).or_insert_with(|| w.matches(self.dict.subject(m.subject))),
            })
            .count() as u64;
        Ok(n)
    }

    /// All live messages of matching subjects, each counted once.
    fn matching_msgs<F: AsRef<[u8]>>(&self, filters: &[F]) -> u64 {
        let mut n = 0;
        for (i, f) in filters.iter().enumerate() {
            self.dict.matching(f.as_ref(), |id| {
                let subject = self.dict.subject(id);
                if !filters[..i].iter().any(|b| filter::matches(b.as_ref(), subject)) {
                    n += self.dict.info(id).count();
                }
                true
            });
        }
        n
    }

    fn count_in_piece<F: AsRef<[u8]>>(
        &self,
        p: &Arc<Piece>,
        w: &Wanted<'_, F>,
        from: StreamSeq,
        upto: StreamSeq,
        feet: &Feet<'_>,
    ) -> Asked<u64> {
        if p.live() == 0 {
            return Ok(0);
        }
        if w.literals {
            let index = feet.index(p)?;
            if !w.filters.iter().any(|f| index.filter.may_hold(f.as_ref())) {
                return Ok(0);
            }
        }
        let f = feet.subjects(p)?;
        let range = p.slots(&f, from, upto);
        if w.literals && w.filters.len() == 1 {
            let slots = f.find(w.filters[0].as_ref()).map_or(&[][..], |s| f.slots_of(s));
            let (a, b) = (
                slots.partition_point(|s| (*s as usize) < range.start),
                slots.partition_point(|s| (*s as usize) < range.end),
            );
            let live = slots[a..b].iter().filter(|s| !p.deleted.contains(f.slots[**s as usize].seq));
            return Ok(live.count() as u64);
        }
        let mut known: Vec<Option<bool>> = vec![None; f.subjects()];
        let live = f.slots[range].iter().filter(|s| !p.deleted.contains(s.seq));
        Ok(live
            .filter(|s| *known[s.subject as usize].get_or_insert_with(|| w.matches(f.subject(s.subject))))
            .count() as u64)
    }

    /// The first live message that came at or after `time`; one more than the last if there is none.
    pub(crate) fn at_time(&self, time: i64, feet: &Feet<'_>) -> Asked<StreamSeq> {
        let none = self.totals.last.next();
        let at = self.data.partition_point(|i| self.pieces[*i as usize].meta.last_time < time);
        let from = if let Some(p) = self.data(at..self.data.len()).next() {
            if p.meta.first_time >= time {
                p.meta.first_seq
            } else {
                let found = feet.pins.time(p, time).ok_or_else(|| Need(What::Time(p.clone(), time)))?;
                found.unwrap_or(p.meta.last_seq.next())
            }
        } else {
            let at = self.msgs.partition_point(|m| m.time < time);
            match self.msgs.get(at) {
                Some(m) => m.seq,
                None => return Ok(none),
            }
        };
        Ok(self.next_any(from.max(self.totals.first), feet)?.unwrap_or(none))
    }

    /// Checks S-50 against a walk over everything. For tests and the simulation.
    pub(crate) fn verify(&self, feet: &Feet<'_>) -> Asked<()> {
        let same = |what: &str, a: u64, b: u64| match a == b {
            true => Ok(()),
            false => Err(Need(What::Refused(format!("{what} of group {}: {a} and {b}", self.id.0)))),
        };
        let (mut msgs, mut bytes) = (0u64, 0u64);
        for p in self.data(0..self.data.len()) {
            let slots = &feet.subjects(p)?.slots;
            let here = slots.iter().filter(|s| !p.deleted.contains(s.seq)).count() as u64;
            same("S-50: live messages of a piece", here, p.live())?;
            for s in slots {
                if !p.deleted.contains(s.seq) && p.seq(s.seq) <= self.totals.last {
                    msgs += 1;
                    bytes += u64::from(s.size);
                }
            }
        }
        for m in self.msgs.iter().filter(|m| !m.deleted && m.seq <= self.totals.last) {
            msgs += 1;
            bytes += u64::from(m.size);
        }
        same("S-50: messages", self.totals.msgs, msgs)?;
        same("S-50: bytes", self.totals.bytes, bytes)?;
        if self.dict_ready() {
            let mut of_subjects = 0;
            self.dict.matching(b">", |id| {
                of_subjects += self.dict.info(id).count();
                true
            });
            same("S-50: messages of all subjects", of_subjects, msgs)?;
        }
        Ok(())
    }
}
