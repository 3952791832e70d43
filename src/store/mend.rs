//! Entries of the log that were durable and cannot be read: what is known of them, what is left of them, and the two ways out.
//!
//! Owns holes and the store's calls about them. A hole keeps the identity of its entries (indexes, term, chain, sequences), which the
//! journal's tables hold apart from the data. Does not decide: the layer above has a hole filled from a peer ([`Group::patch`]), or,
//! where nobody else has the entries, gives them up ([`Group::give_up`]). Nothing is applied past a hole meanwhile, so nothing behind it
//! is renumbered or taken for something else.
//!
//! - S-110: a hole ends only by a patch frame that is in the journal: the very entry, or what is left of it.
//! - S-111: what is left of a damaged entry is the records whose own checksums are right; every other sequence that it gave is named as lost.
//! - S-112: where it is not known what the journal's end held (it was cut, also behind a damaged header), the sequences that it could have given are
//!   never given again.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    Group, NewEntry, Ticket,
    group::{Group as State, Piece},
    manifest::Lost,
    record::{Batch, Entry, Head, Kind, MESSAGE_HEADER, Message, record_len, record_seq},
    round::Frame,
    segment::{Joiner, PieceMeta},
    shard::Shard,
    types::{Chain, Damage, Error, GroupId, LogIndex, Result, Round, StreamSeq, Term},
};

/// Entries put into the journal by one call of [`Group::give_up`] at most, in bytes.
const GIVE_UP_BYTES: u64 = 256 << 10;
/// Bytes of the shortest message: its record with a subject of one byte.
const SHORTEST: u64 = MESSAGE_HEADER as u64 + 1;
/// Bytes of one range in what stands behind the messages of an entry that was damaged.
const RANGE: usize = 17;

/// Entries that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// The first of them.
    pub first: LogIndex,
    /// The last of them.
    pub last: LogIndex,
    /// The first message in them; 0 if there is none, or none is known.
    pub first_seq: StreamSeq,
    /// The last message in them.
    pub last_seq: StreamSeq,
    /// The chain before the first of them; 0 if it is not known.
    pub prev: Chain,
    /// The term of all of them if `known`; else the highest that they can have.
    pub term: Term,
    /// The chain with the last of them; 0 if nothing tells it.
    pub chain: Chain,
    /// Whether the term is sure, and the chain told.
    pub known: bool,
    /// It is not known whether messages are among them: none that stands behind them has said it yet.
    pub vague: bool,
}

/// A hole with what the store needs for it.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub hole: Hole,
    /// The round that names it, which a restart needs.
    pub round: Round,
    /// Bytes in which intact records may lie; of a hole of one entry only.
    pub left: Bytes,
}

/// Where in `b` records of this group stand whose checksums are right, with sequences from `from` on and below `below`, rising.
pub(crate) fn intact(
    group: GroupId,
    b: &[u8],
    from: StreamSeq,
    below: StreamSeq,
) -> Vec<(StreamSeq, Range<usize>)> {
    let (mut out, mut at, mut next) = (Vec::new(), 0, from);
    while at + MESSAGE_HEADER <= b.len() {
        let len = record_len(&b[at..]).filter(|n| at + n <= b.len());
        let seq = record_seq(&b[at..]).filter(|s| *s >= next && *s < below);
        match len.zip(seq).filter(|(n, _)| Message::decode(group, &b[at..at + n]).is_some()) {
            Some((n, seq)) => {
                out.push((seq, at..at + n));
                next = seq.next();
                at += n;
            }
            // The length of a damaged record may be wrong too: the next record is looked for at every place.
            None => at += 1,
        }
    }
    out
}

/// The payload of what is left of an entry: the intact records, and behind them which sequences are gone (S-111). `sure` is false where
/// it is not known whether they were ever given.
fn payload(records: &[Bytes], gone: &[(StreamSeq, StreamSeq)], sure: bool) -> Bytes {
    let mut rest = BytesMut::with_capacity(gone.len() * RANGE);
    for (first, last) in gone {
        rest.put_u64_le(first.0);
        rest.put_u64_le(last.0);
        rest.put_u8(u8::from(sure));
    }
    Batch::of_records(records).finish(&rest)
}

/// Which sequences a damaged entry has lost, as [`payload`] wrote it.
pub(crate) fn losses(e: &Entry) -> Vec<Lost> {
    let rest = e.rest();
    let index = e.head.index;
    let ranges = rest.chunks_exact(RANGE).map(|c| Lost {
        first: index,
        last: index,
        first_seq: StreamSeq(crate::codec::u64_at(c, 0)),
        last_seq: StreamSeq(crate::codec::u64_at(c, 8)),
        sure: c[16] != 0,
    });
    let all: Vec<Lost> = ranges.collect();
    if all.is_empty() {
        // No message is among what was lost.
        return vec![Lost {
            first: index,
            last: index,
            first_seq: StreamSeq(0),
            last_seq: StreamSeq(0),
            sure: true,
        }];
    }
    all
}

/// What a damaged entry leaves behind.
fn remains(group: GroupId, hole: &Hole, prev: Chain, left: &Bytes, below: StreamSeq) -> Entry {
    let found = intact(group, left, hole.first_seq.max(StreamSeq(1)), below);
    let records: Vec<Bytes> = found.iter().map(|(_, r)| left.slice(r.clone())).collect();
    let mut gone = Vec::new();
    if hole.first_seq.0 > 0 {
        let mut next = hole.first_seq;
        for (seq, _) in &found {
            if *seq > next {
                gone.push((next, StreamSeq(seq.0 - 1)));
            }
            next = seq.next();
        }
        if next <= hole.last_seq {
            gone.push((next, hole.last_seq));
        }
    }
    compacted(group, hole, prev, payload(&records, &gone, true))
}

fn compacted(group: GroupId, hole: &Hole, prev: Chain, payload: Bytes) -> Entry {
    let new = NewEntry {
        kind: Kind::Messages,
        index: hole.last,
        term: hole.term,
        prev,
        chain: hole.chain,
        payload,
        digest: None,
    };
    let e = new.seal(group).expect("S-111: only records whose checksums are right were taken");
    Entry { head: Head { compacted: true, ..e.head }, ..e }
}

impl State {
    /// The hole that an entry is in.
    pub(crate) fn hole_at(&self, index: LogIndex) -> Option<usize> {
        let i = self.holes.partition_point(|o| o.hole.last < index);
        self.holes.get(i).filter(|o| o.hole.first <= index).map(|_| i)
    }

    /// Notes entries that cannot be read at the end of what is known of the log.
    pub(crate) fn open_hole(&mut self, hole: Hole, round: Round, left: Bytes) {
        assert!(
            hole.first <= hole.last && hole.first == self.last_index.next(),
            "S-110: a hole follows the log"
        );
        self.last_index = hole.last;
        self.last_chain = if hole.known { hole.chain } else { Chain(0) };
        if hole.known {
            self.last_term = hole.term;
        }
        self.holes.push(Open { hole, round, left });
    }

    /// What subjects messages of a piece have is known better from now on: whoever asks next builds the dictionary anew.
    fn forget_subjects(&mut self) {
        self.fills += 1;
        self.pins = Default::default();
        self.dict = Default::default();
        self.dict_upto = StreamSeq(0);
        for m in &mut self.msgs {
            (m.subject, m.next) = (crate::group::NONE, 0);
        }
    }

    /// The piece that an entry was written to.
    pub(crate) fn piece_with(&self, index: LogIndex) -> Option<&std::sync::Arc<Piece>> {
        self.pieces.iter().find(|p| p.meta.first_index <= index && index <= p.meta.last_index)
    }

    /// Takes an entry into its place in a hole.
    pub(crate) fn fill(&mut self, e: Entry, round: Round) {
        let index = e.head.index;
        let Some(i) = self.hole_at(index) else { return };
        let o = self.holes.remove(i);
        if index < o.hole.last {
            let hole = Hole { first: index.next(), prev: e.head.chain, ..o.hole };
            self.holes.insert(i, Open { hole, left: Bytes::new(), ..o });
        }
        if o.hole.first < index {
            // The chain up to here is what the entry follows.
            let (last, chain) = (LogIndex(index.0 - 1), e.head.prev);
            let hole = Hole { last, chain, known: o.hole.known && !e.head.compacted, ..o.hole };
            self.holes.insert(i, Open { hole, left: Bytes::new(), ..o });
        }
        if e.head.compacted {
            self.note_losses(&e);
        }
        if index == self.last_index {
            (self.last_term, self.last_chain) = (self.last_term.max(e.head.term), e.head.chain);
        }
        if index <= self.flushed.0 {
            if e.head.count > 0 {
                self.forget_subjects();
            }
            self.patched.insert(index, crate::group::TailEntry { entry: e, round });
            return;
        }
        let msgs = self.messages_of(&e);
        let at = self.msgs.partition_point(|m| m.entry < index);
        for (i, m) in msgs.into_iter().enumerate() {
            self.msgs.insert(at + i, m);
        }
        self.tail_bytes += e.head.size();
        let at = self.tail.partition_point(|t| t.entry.head.index < index);
        self.tail.insert(at, crate::group::TailEntry { entry: e, round });
    }

    /// Names what a damaged entry has lost. Where a piece's footer knows those messages, they do not count as live.
    pub(crate) fn note_losses(&mut self, e: &Entry) {
        for l in losses(e) {
            let known = |h: &Lost| {
                h.first <= l.first
                    && l.last <= h.last
                    && h.first_seq <= l.first_seq
                    && l.last_seq <= h.last_seq
            };
            if self.lost.iter().any(known) {
                continue;
            }
            if l.first_seq.0 > 0 && l.first <= self.flushed.0 {
                for p in self.pieces.iter_mut() {
                    let (a, b) = (l.first_seq.max(p.meta.first_seq), l.last_seq.min(p.meta.last_seq));
                    // One with gaps says only in its footer which of them it has; it is rewritten by the next flush.
                    if p.meta.dense() && a <= b {
                        let (a, b) = (p.rel(a), p.rel(b));
                        std::sync::Arc::make_mut(p).deleted.insert_range(a..=b);
                    }
                }
            }
            self.lose(l);
        }
    }

    /// The last sequence that entries up to here are known to have given and that are lost.
    pub(crate) fn lost_upto(&self, index: LogIndex) -> StreamSeq {
        self.lost.iter().filter(|l| l.last <= index).map(|l| l.last_seq).max().unwrap_or_default()
    }

    /// Takes an entry that recovery found as a patch.
    pub(crate) fn replay_patch(&mut self, e: Entry, round: Round) {
        let index = e.head.index;
        if index <= self.flushed.0 {
            // Below the checkpoint it is state: the piece that the manifest has was written with it.
            if index > self.checkpoint.index {
                if e.head.compacted {
                    self.note_losses(&e);
                }
                self.patched.insert(index, crate::group::TailEntry { entry: e, round });
            }
            return;
        }
        if self.hole_at(index).is_some() {
            return self.fill(e, round);
        }
        if index <= self.last_index {
            return;
        }
        if e.head.compacted {
            self.gap_before(&e.head, round);
            self.note_losses(&e);
            return self.push(e, round);
        }
        self.replay(e, round);
    }

    /// What an entry that was found leaves open behind the end of the log.
    pub(crate) fn gap_before(&mut self, h: &Head, round: Round) {
        if let Some(o) = self.holes.last_mut()
            && o.hole.last.next() == h.index
            && !o.hole.known
            && !h.compacted
            && h.prev.0 != 0
        {
            (o.hole.chain, o.hole.term) = (h.prev, h.term);
        }
        self.tell_seqs(h);
        let first = self.last_index.next();
        if h.index <= first {
            return;
        }
        let seqs = if h.count > 0 && h.first.0 > self.log_seq().0 + 1 {
            (self.log_seq().next(), StreamSeq(h.first.0 - 1))
        } else {
            (StreamSeq(0), StreamSeq(0))
        };
        let hole = Hole {
            first,
            last: LogIndex(h.index.0 - 1),
            first_seq: seqs.0,
            last_seq: seqs.1,
            prev: self.last_chain,
            term: h.term,
            chain: h.prev,
            // Terms only rise: between two equal ones there is no other.
            known: !h.compacted && self.last_term == h.term && h.prev.0 != 0,
            vague: h.count == 0,
        };
        self.open_hole(hole, round, Bytes::new());
    }

    /// The first message behind a hole says which the hole has had.
    fn tell_seqs(&mut self, h: &Head) {
        let next = self.log_seq().next();
        if h.count > 0
            && let Some(o) = self.holes.last_mut().filter(|o| o.hole.vague)
        {
            o.hole.vague = false;
            if h.first > next {
                (o.hole.first_seq, o.hole.last_seq) = (next, StreamSeq(h.first.0 - 1));
            }
        }
    }

    /// The first message behind a hole, as far as the log knows one.
    fn seq_behind(&self, index: LogIndex) -> StreamSeq {
        let tail = self.msgs.iter().find(|m| m.entry > index).map(|m| m.seq);
        let piece = self.pieces.iter().find(|p| p.meta.first_index > index && p.meta.msgs > 0);
        let piece = piece.map(|p| p.meta.first_seq);
        [tail, piece].into_iter().flatten().min().unwrap_or(StreamSeq(u64::MAX))
    }

    /// What is left of the next entries that cannot be read, up to a budget.
    fn next_remains(&self, budget: u64) -> Vec<Entry> {
        let (mut out, mut bytes) = (Vec::new(), 0);
        for o in &self.holes {
            let mut prev = o.hole.prev;
            for i in o.hole.first.0..=o.hole.last.0 {
                let last = i == o.hole.last.0;
                let mut one = Hole { first: LogIndex(i), last: LogIndex(i), ..o.hole };
                if !last {
                    // What the range has lost is named with its last entry.
                    (one.first_seq, one.last_seq) = (StreamSeq(0), StreamSeq(0));
                    one.chain = Chain(0);
                }
                if !one.known {
                    one.term = self.last_term.max(one.term);
                }
                let left = if last { o.left.clone() } else { Bytes::new() };
                let e = remains(self.id, &one, prev, &left, self.seq_behind(o.hole.last));
                prev = e.head.chain;
                bytes += Frame::patch(&e).cost();
                if bytes > budget && !out.is_empty() {
                    return out;
                }
                out.push(e);
            }
        }
        out
    }

    /// The entry that stands for what the lost end of the journal may have held (S-112).
    fn leap(&self) -> Entry {
        let from = self.log_seq();
        let gone = (from.next(), StreamSeq(from.0 + self.doubt / SHORTEST + 1));
        let index = self.last_index.next();
        let hole = Hole {
            first: index,
            last: index,
            first_seq: gone.0,
            last_seq: gone.1,
            prev: self.last_chain,
            term: self.last_term.max(Term(1)),
            chain: Chain(self.last_chain.0.rotate_left(1) ^ index.0),
            known: true,
            vague: false,
        };
        compacted(self.id, &hole, self.last_chain, payload(&[], &[gone], false))
    }
}

impl Group {
    /// Entries that cannot be read, in order. Those in pieces are known once a reading met them; see [`Group::survey`].
    pub fn holes(&self) -> Vec<Hole> {
        self.state.lock().holes.iter().map(|o| o.hole).collect()
    }

    /// Whether more entries may have been durable here than the log shows, because the journal's end, or a round of it, is gone altogether.
    /// Who counted on them must not count on this log before it has them again.
    pub fn is_doubtful(&self) -> bool {
        self.state.lock().doubt > 0
    }

    /// The log of several members is whole again as far as any of them may have counted on it.
    pub fn trust(&self) {
        self.state.lock().doubt = 0;
        self.shard.told();
    }

    /// Reads the pieces that hold entries from `from` on, notes those that cannot be read as holes, and says whether there are any.
    pub async fn survey(&self, from: LogIndex) -> Result<bool> {
        // Where pieces were rewritten meanwhile, what was read may be what was just removed.
        loop {
            if let Some(any) = self.survey_once(from).await? {
                return Ok(any);
            }
        }
    }

    async fn survey_once(&self, from: LogIndex) -> Result<Option<bool>> {
        let (pieces, mut before) = {
            let s = self.state.lock();
            let pieces: Vec<_> = s.pieces.iter().filter(|p| p.meta.last_index >= from).cloned().collect();
            // Where the log begins, or the checkpoint, is the end of what comes before.
            let c = &s.checkpoint;
            (pieces, (c.index, c.term, c.chain))
        };
        let mut found: Vec<Open> = Vec::new();
        for p in &pieces {
            let (entries, bad, records) = self.shard.read_rest(&p.meta).await?;
            let terms = self.shard.sure_terms(&p.meta).await;
            let patched: Vec<LogIndex> = self.state.lock().patched.keys().copied().collect();
            let ends = before;
            before = (p.meta.last_index, p.meta.last_term, p.meta.last_chain);
            let rest = (entries, bad, records);
            found.extend(holes_of(p, from, &rest, &patched, (ends, &terms)));
        }
        let mut state = self.state.lock();
        if pieces.iter().any(|p| !state.has_piece(&p.meta)) {
            return Ok(None);
        }
        for o in found {
            if state.hole_at(o.hole.first).is_none() {
                let at = state.holes.partition_point(|h| h.hole.first < o.hole.first);
                state.holes.insert(at, o);
            }
        }
        Ok(Some(!state.holes.is_empty()))
    }

    /// Fills holes with the entries that stood there, as a peer has them; `prev` of them is not looked at. What is no hole is left as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] if one is another than the one whose identity was kept: nothing was changed. [`Error::Busy`] and
    /// [`Error::NoSpace`] as for an append; a part of them may be filled then, and the call is repeated.
    pub fn patch(&self, entries: Vec<NewEntry>) -> Result<Ticket> {
        let mut state = self.state.lock();
        let mut sealed = Vec::with_capacity(entries.len());
        let mut before: Option<(LogIndex, Chain)> = None;
        for e in entries {
            let mut e = e.seal(self.id()).map_err(|s| Error::Invalid(s.to_owned()))?;
            let hole = state.hole_at(e.head.index).map(|i| state.holes[i].hole);
            e.head.prev = match (before, hole) {
                (Some((i, c)), _) if i.next() == e.head.index => c,
                (_, Some(o)) if o.first == e.head.index => o.prev,
                _ => Chain(0),
            };
            before = Some((e.head.index, e.head.chain));
            let h = e.head;
            let Some(o) = hole else { continue };
            let term = if o.known { h.term == o.term } else { h.term <= o.term };
            let same = term && (h.index != o.last || o.chain.0 == 0 || h.chain == o.chain);
            let seqs = h.count == 0 || o.first_seq.0 == 0 || h.first >= o.first_seq;
            if !same || !seqs {
                return Err(Error::Invalid(format!("entry {} is not the one that is missing", h.index.0)));
            }
            sealed.push(e);
        }
        // What filled the others may be on its way still.
        let mut round = self.shard.journal.lock().last_given();
        let mut part = Vec::new();
        let mut sealed = sealed.into_iter().peekable();
        while let Some(e) = sealed.next() {
            let bytes: u64 = part.iter().chain([&e]).map(|e| Frame::patch(e).cost()).sum();
            part.push(e);
            // All of it may be more than a journal file holds.
            let more = sealed.peek().map(|e| Frame::patch(e).cost());
            if more.is_some_and(|m| bytes + m <= GIVE_UP_BYTES.min(self.shard.opts.journal_file_max / 4)) {
                continue;
            }
            round = self.shard.enqueue(part.iter().map(Frame::patch).collect(), true)?;
            part.drain(..).for_each(|e| self.fill(&mut state, e, round));
        }
        Ok(self.ticket(round))
    }

    fn fill(&self, state: &mut State, e: Entry, round: Round) {
        if let Some(p) = state.piece_with(e.head.index) {
            self.shard.cache.remove_subjects(p.key());
        }
        state.fill(e, round);
    }

    /// Gives up entries that cannot be read and that nobody else has: what is left of each takes its place, and what is lost is named
    /// ([`Group::lost`]). Where the journal's end is not known, sequences that it may have given are passed over. Does a part of it;
    /// to be called again until the answer is `None`, which means that nothing is left to be given up. The decision counts once the
    /// ticket is durable.
    ///
    /// # Errors
    /// [`Error::Busy`] and [`Error::NoSpace`] as for an append.
    pub fn give_up(&self) -> Result<Option<Ticket>> {
        let mut state = self.state.lock();
        let mut entries = state.next_remains(GIVE_UP_BYTES.min(self.shard.opts.journal_file_max / 4));
        let leaps = entries.is_empty() && state.doubt > 0;
        if leaps {
            entries.push(state.leap());
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let round = self.shard.enqueue(entries.iter().map(Frame::patch).collect(), true)?;
        for e in entries {
            if leaps {
                state.note_losses(&e);
                state.push(e, round);
            } else {
                self.fill(&mut state, e, round);
            }
        }
        if leaps {
            (state.doubt, state.leapt) = (0, round);
        }
        for l in &state.lost {
            self.shard.note_lost(self.id(), l);
        }
        Ok(Some(self.ticket(round)))
    }
}

/// Where the piece before ends, and the terms in this one.
type Around<'a> = ((LogIndex, Term, Chain), &'a [(u32, Term)]);

/// The holes of a piece, from what could be read of it.
fn holes_of(
    p: &Piece,
    from: LogIndex,
    (entries, bad, records): &Rest,
    patched: &[LogIndex],
    (before, terms): Around<'_>,
) -> Vec<Open> {
    let (meta, mut out) = (&p.meta, Vec::new());
    // What is known of each entry: itself, or its header. What stands between two of them is not.
    let mut known: Vec<(Head, Option<&Entry>)> = entries.iter().map(|e| (e.head, Some(e))).collect();
    known.extend(bad.iter().filter(|h| entries.iter().all(|e| e.head.index != h.index)).map(|h| (*h, None)));
    known.sort_by_key(|k| k.0.index);
    known.dedup_by_key(|k| k.0.index);
    let first_behind = |i: usize| {
        let behind = known[i..].iter().find(|k| k.0.count > 0);
        behind.map_or(meta.last_seq.next(), |k| k.0.first)
    };
    let mut add = |hole: Hole, window: Range<StreamSeq>| {
        if hole.last < from || (hole.first.0..=hole.last.0).all(|i| patched.contains(&LogIndex(i))) {
            return;
        }
        let mut left = BytesMut::new();
        records.iter().filter(|(s, _)| window.contains(s)).for_each(|(_, r)| left.extend_from_slice(r));
        let hole = Hole { first: hole.first.max(from), ..hole };
        out.push(Open { hole, round: Round(u64::MAX), left: left.freeze() });
    };
    let mut next = meta.first_index;
    let mut seq = meta.first_seq;
    let (mut term, mut prev) = match before {
        (index, term, chain) if index.next() == meta.first_index && index.0 > 0 => (Some(term), chain),
        _ => (None, Chain(0)),
    };
    for i in 0..=known.len() {
        let here = known.get(i);
        let upto = here.map_or(meta.last_index.next(), |k| k.0.index);
        if upto > next {
            let behind = first_behind(i);
            let seqs = if meta.msgs > 0 && seq < behind {
                (seq, StreamSeq(behind.0 - 1))
            } else {
                (StreamSeq(0), StreamSeq(0))
            };
            let end = here.map_or((meta.last_term, meta.last_chain), |k| (k.0.term, k.0.prev));
            // The footer tells the terms, one hole each; without it, terms only rise: between two equal ones there is no other.
            let told = terms_of(meta, terms, next, LogIndex(upto.0 - 1));
            let sure = !told.is_empty() || term == Some(end.0);
            let runs = if told.is_empty() { vec![(next, LogIndex(upto.0 - 1), end.0)] } else { told };
            let chained = here.is_none_or(|k| !k.0.compacted && k.0.prev.0 != 0);
            for (i, (first, last, term)) in runs.iter().copied().enumerate() {
                let ends = i + 1 == runs.len();
                let hole = Hole {
                    first,
                    last,
                    // What the range has lost is named with its end.
                    first_seq: if ends { seqs.0 } else { StreamSeq(0) },
                    last_seq: if ends { seqs.1 } else { StreamSeq(0) },
                    prev: if i == 0 { prev } else { Chain(0) },
                    term,
                    chain: if ends { end.1 } else { Chain(0) },
                    known: sure && (chained || !ends),
                    vague: false,
                };
                add(hole, if ends { seq..behind } else { seq..seq });
            }
            seq = seq.max(behind);
        }
        let Some((h, e)) = here else { break };
        let behind = first_behind(i + 1);
        if h.count > 0 {
            seq = h.first;
        }
        match e {
            Some(e) => {
                if let Some(s) = e.records().flatten().last().and_then(record_seq) {
                    seq = s.next();
                }
            }
            None => {
                let last_seq = StreamSeq((h.first.0 + u64::from(h.count)).saturating_sub(1));
                let (first_seq, last_seq) =
                    if h.count > 0 { (h.first, last_seq) } else { (StreamSeq(0), StreamSeq(0)) };
                let hole = Hole {
                    first: h.index,
                    last: h.index,
                    first_seq,
                    last_seq,
                    prev: h.prev,
                    term: h.term,
                    chain: h.chain,
                    known: !h.compacted,
                    vague: false,
                };
                // Behind it may stand entries without any message: the next one that has some ends its records. Where entries are missing in
                // between what follows may be theirs.
                let mut end = h.index;
                let next_to = known[i + 1..].iter().find_map(|k| {
                    let adjoins = k.0.index == end.next();
                    end = k.0.index;
                    (!adjoins || k.0.count > 0).then_some(adjoins)
                });
                let upto = if next_to.unwrap_or(end == meta.last_index) { behind } else { last_seq.next() };
                add(hole, if h.count > 0 { h.first..upto.min(behind) } else { seq..seq });
                seq = seq.max(StreamSeq(last_seq.0 + 1));
            }
        }
        (next, term, prev) = (h.index.next(), Some(h.term), h.chain);
    }
    out
}

/// The runs of one term from an entry to another, as a piece's footer has them; nothing if it does not reach there.
fn terms_of(
    meta: &PieceMeta,
    terms: &[(u32, Term)],
    first: LogIndex,
    last: LogIndex,
) -> Vec<(LogIndex, LogIndex, Term)> {
    let mut out: Vec<(LogIndex, LogIndex, Term)> = Vec::new();
    for (i, (rel, term)) in terms.iter().enumerate() {
        let from = LogIndex(meta.first_index.0 + u64::from(*rel));
        let to =
            terms.get(i + 1).map_or(meta.last_index, |t| LogIndex(meta.first_index.0 + u64::from(t.0) - 1));
        let (a, b) = (from.max(first), to.min(last));
        if a <= b {
            out.push((a, b, *term));
        }
    }
    out
}

/// What could be read of a piece: whole entries, headers of others, and all intact records with their sequences.
pub(crate) type Rest = (Vec<Entry>, Vec<Head>, Vec<(StreamSeq, Bytes)>);

impl Shard {
    /// The terms in a piece, from its own footer; nothing if that is damaged.
    async fn sure_terms(&self, meta: &PieceMeta) -> Vec<(u32, Term)> {
        match self.stored_index_foot(meta).await {
            Ok(Some(f)) => f.terms,
            Ok(None) | Err(_) => Vec::new(),
        }
    }

    /// The entries of a piece with those that took the place of damaged ones.
    pub(crate) async fn read_patched(
        &self,
        meta: &PieceMeta,
        patched: Vec<Entry>,
    ) -> Result<(Vec<Entry>, Vec<Head>)> {
        let (mut entries, mut bad, _) = self.read_rest(meta).await?;
        let is_patched = |h: &Head| patched.iter().any(|p| p.head.index == h.index);
        entries.retain(|e| !is_patched(&e.head));
        bad.retain(|h| !is_patched(h));
        entries.extend(patched);
        entries.sort_by_key(|e| e.head.index);
        Ok((entries, bad))
    }

    /// Reads what can be read of a piece.
    pub(crate) async fn read_rest(&self, meta: &PieceMeta) -> Result<Rest> {
        let mut best: Option<Rest> = None;
        for _ in 0..crate::read::TRIES {
            let (mut entries, mut bad, mut records) = (Vec::new(), Vec::new(), Vec::new());
            let mut joiner = Joiner::default();
            let f = match self.index_foot(meta).await {
                Ok(f) => f,
                Err(Error::Damaged(_)) => Default::default(),
                Err(e) => return Err(e),
            };
            let mut next = meta.first_seq;
            for i in 0..f.blocks.len() {
                let mut take = |e: std::result::Result<Entry, Head>| match e {
                    Ok(e) if e.head.group == meta.group => entries.push(e),
                    Ok(_) => {}
                    Err(h) => bad.push(h),
                };
                let (block, raw) = self.block_bytes(meta, &f, i).await?;
                match &block {
                    Some(b) => {
                        joiner.push(b, &mut take);
                    }
                    None => bad.extend(joiner.cut()),
                }
                // Where the block makes no sense its plain bytes may still hold records.
                let raw = block.map_or(raw, |b| b.raw);
                for (seq, r) in intact(meta.group, &raw, next, meta.last_seq.next()) {
                    records.push((seq, raw.slice(r)));
                    next = seq.next();
                }
            }
            bad.extend(joiner.cut());
            bad.retain(|h| h.group == meta.group);
            // A block that could not be read can leave an entry behind in the wrong order only by damage.
            entries.sort_by_key(|e| e.head.index);
            entries.dedup_by_key(|e| e.head.index);
            let better = best.as_ref().is_none_or(|b| entries.len() > b.0.len() || records.len() > b.2.len());
            if better {
                best = Some((entries, bad, records));
            }
        }
        best.ok_or_else(|| {
            Error::Damaged(Damage {
                group: Some(meta.group),
                entries: Some((meta.first_index, meta.last_index)),
                messages: None,
                what: "the piece cannot be read".to_owned(),
            })
        })
    }
}

#[cfg(test)]
#[path = "mend_tests.rs"]
mod tests;
