//! Lays a piece out, entry by entry.
//!
//! Owns where blocks begin and end, and what of them stands elsewhere until it is written. Does no I/O.

use super::*;

/// Builds one piece.
pub(crate) struct Builder<'a> {
    codec: BlockCodec<'a>,
    /// Where in its file the piece begins.
    off: u64,
    /// Bytes of it that were taken away ([`Builder::taken`]).
    base: usize,
    out: Vec<u8>,
    /// The block being filled, unless it is stored as it is: then it stands at the end of `out`, behind the room of its header.
    block: Vec<u8>,
    /// Where in `out` the last block that was begun stands.
    start: usize,
    /// What follows `out`: the records that end the last block, where they stand. No block is open then.
    far: Option<Bytes>,
    lead: Lead,
    line: Option<BlockLine>,
    meta: PieceMeta,
    index: IndexFoot,
    names: Names,
    slots: Vec<Slot>,
    counting: Counting,
    entries: bool,
    block_target: usize,
    /// Records that fill most of a block stay where they stand, not only one that fills all of it.
    runs: bool,
}

/// What is yet to be added of an entry.
pub(crate) struct Opened<'e> {
    records: Records<'e>,
    /// Bytes of its records that are not there yet.
    left: u32,
    rest: Bytes,
}

/// A finished piece.
#[derive(Debug)]
pub(crate) struct Built {
    /// What was not taken away before.
    pub bytes: Bytes,
    pub meta: PieceMeta,
    #[cfg(test)]
    pub index: IndexFoot,
    pub subjects: SubjectFoot,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(
        group: GroupId,
        file: FileId,
        off: u64,
        counting: Counting,
        codec: BlockCodec<'a>,
    ) -> Builder<'a> {
        let meta = PieceMeta {
            group,
            file,
            off,
            data: 0,
            index_foot: 0,
            subject_foot: 0,
            first_index: LogIndex(0),
            last_index: LogIndex(0),
            last_term: Term(0),
            last_chain: Chain(0),
            first_seq: StreamSeq(0),
            last_seq: StreamSeq(0),
            msgs: 0,
            bytes: 0,
            first_time: 0,
            last_time: 0,
            compacted: false,
        };
        Builder {
            codec,
            off,
            base: 0,
            out: Vec::new(),
            block: Vec::new(),
            start: 0,
            far: None,
            lead: Lead::default(),
            line: None,
            meta,
            index: IndexFoot::default(),
            names: Default::default(),
            slots: Vec::new(),
            counting,
            entries: false,
            block_target: BLOCK_TARGET,
            runs: false,
        }
    }

    /// For whoever takes finished blocks away as they are, and of entries that were just made: a copy less. Where the entry has left the processor's caches, laying
    /// it out costs less than passing over it twice.
    pub(crate) fn leaves_runs(mut self) -> Self {
        self.runs = true;
        self
    }

    /// Smaller blocks, for the simulator.
    pub(crate) fn block_target(mut self, n: usize) -> Self {
        self.block_target = n;
        self
    }

    /// Bytes so far, footers left out.
    pub(crate) fn len(&self) -> usize {
        self.base + self.out.len() + self.far.as_ref().map_or(0, Bytes::len) + self.block.len()
    }

    /// Blocks that are finished, as bytes in two parts: they follow what was taken away before.
    pub(crate) fn finished(&self) -> [&[u8]; 2] {
        let open = self.line.is_some() && self.codec.is_plain();
        let laid = &self.out[..if open { self.start } else { self.out.len() }];
        [laid, self.far.as_deref().unwrap_or_default()]
    }
    /// What [`Builder::finished`] gives was written and is no longer needed here.
    pub(crate) fn taken(&mut self) {
        let [laid, far] = self.finished().map(<[u8]>::len);
        self.out.drain(..laid);
        self.far = None;
        self.base += laid + far;
        self.start = self.start.saturating_sub(laid);
    }
    /// Moves the blocks that are finished to `out`; records that stand elsewhere are not copied.
    pub(crate) fn take(&mut self, out: &mut Vec<Bytes>) {
        let [laid, _] = self.finished();
        let laid = Bytes::copy_from_slice(laid);
        out.extend([Some(laid), self.far.clone()].into_iter().flatten().filter(|b| !b.is_empty()));
        self.taken();
    }
    /// What follows begins a block of its own.
    pub(crate) fn end_block(&mut self) {
        self.end();
    }
    /// Nobody took it: more is about to follow.
    fn lay_far(&mut self) {
        if let Some(far) = self.far.take() {
            self.out.extend_from_slice(&far);
        }
    }

    /// The bytes of the open block.
    #[inline]
    fn raw(&mut self) -> &mut Vec<u8> {
        if self.codec.is_plain() { &mut self.out } else { &mut self.block }
    }

    /// The piece covers this entry, of which nothing is kept.
    pub(crate) fn skip(&mut self, index: LogIndex, term: Term, chain: Chain) {
        self.cover(index, term, chain);
        self.meta.compacted = true;
    }

    fn cover(&mut self, index: LogIndex, term: Term, chain: Chain) {
        if !self.entries {
            self.entries = true;
            self.meta.first_index = index;
        }
        assert!(index >= self.meta.last_index, "S-41: entries of a piece rise");
        if self.index.terms.last().is_none_or(|t| t.1 < term) {
            self.index.terms.push(((index.0 - self.meta.first_index.0) as u32, term));
        }
        self.meta.last_index = index;
        self.meta.last_term = term;
        self.meta.last_chain = chain;
    }

    /// Whether another entry with this last sequence still fits under the piece's 32-bit offsets.
    pub(crate) fn fits(&self, e: &Entry) -> bool {
        let far = self.entries
            && (e.head.index.0 - self.meta.first_index.0 >= u64::from(u32::MAX)
                || (self.meta.msgs > 0
                    && e.head.count > 0
                    && e.head.first.0.saturating_add(u64::from(u32::MAX >> 1)) - self.meta.first_seq.0
                        >= u64::from(u32::MAX)));
        !far && (self.len() as u64 + e.head.size()) < u64::from(u32::MAX >> 2)
    }

    /// Adds a whole entry.
    pub(crate) fn push(&mut self, e: &Entry) {
        let mut part = self.open(e);
        while self.go_on(e, &mut part, usize::MAX) {}
    }

    /// Begins an entry: [`Builder::go_on`] adds the rest of it.
    pub(crate) fn open<'e>(&mut self, e: &'e Entry) -> Opened<'e> {
        self.cover(e.head.index, e.head.term, e.head.chain);
        self.meta.compacted |= e.head.compacted;
        self.begin(e.head.first, e.head.index);
        self.raw().extend_from_slice(&e.head.encode());
        if e.head.kind != Kind::Messages {
            return Opened { records: Records::default(), left: 0, rest: e.payload.clone() };
        }
        self.raw().extend_from_slice(&e.payload[..PREAMBLE]);
        Opened { records: e.records(), left: u32_at(&e.payload, 4), rest: e.rest() }
    }

    /// Adds the entry's next messages, about `bytes` of them; false once all of it is there.
    pub(crate) fn go_on(&mut self, e: &Entry, part: &mut Opened<'_>, bytes: usize) -> bool {
        let mut added = 0;
        // Where those begin that are not laid out yet: they stand side by side in the entry, too.
        let mut run = None;
        while let Some(r) = part.records.next().flatten() {
            if self.line.is_none() {
                self.lead = Lead { records: part.left, rest: part.rest.len() as u32 };
            }
            let m = Message::parse(r).expect("S-10: entries are checked before they get here");
            self.begin(m.seq, e.head.index);
            self.note(&m);
            part.left -= r.len() as u32;
            added += r.len();
            let to = part.records.at;
            let from = *run.get_or_insert(to - r.len());
            if self.codec.is_plain() {
                let full = self.open_len() + (to - from) >= self.block_target;
                // Records that fill a block, or most of it, end it and are not laid out.
                let ends = part.left > 0 || part.rest.is_empty();
                let fill = if self.runs { 2 * (to - from) } else { to - from };
                if full && ends && fill >= self.block_target {
                    self.end_far(e.payload.slice(from..to), to - from == r.len());
                    run = None;
                    // Before more follows they can be written from where they are.
                    if part.left > 0 {
                        return true;
                    }
                    continue;
                }
                if self.runs && !full && part.left > 0 && added < bytes {
                    continue;
                }
            }
            self.raw().extend_from_slice(&e.payload[from..to]);
            run = None;
            // A block may only end where more records follow: what comes after the last one belongs to it.
            if part.left > 0 {
                self.end_if_full();
                if added >= bytes {
                    return true;
                }
            }
        }
        if let Some(from) = run {
            self.raw().extend_from_slice(&e.payload[from..part.records.at]);
        }
        if !part.rest.is_empty() {
            self.raw().extend_from_slice(&part.rest);
        }
        self.end_if_full();
        false
    }

    /// Ends the open block with records that stay where they are; `single` if it is one.
    fn end_far(&mut self, records: Bytes, single: bool) {
        let line = self.line.take().expect("a record stands in a block");
        self.index.blocks.push(line);
        let at = self.off + (self.base + self.start) as u64;
        let (head, raw) = self.out[self.start..].split_at_mut(BLOCK_HEADER);
        let len = (raw.len() + records.len()) as u32;
        let header = block_header(len, len, self.lead);
        let crc = block_crc(self.meta.file, at, &header, raw);
        let crc = match single {
            true => append_record(crc, self.meta.group, &records),
            false => checksum::append(crc, &records),
        };
        head[..BLOCK_HEADER - 4].copy_from_slice(&header);
        head[BLOCK_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        self.lead = Lead::default();
        self.far = Some(records);
    }

    /// Adds what is left of an entry that is state and no longer log: those of its messages that `keep` says.
    pub(crate) fn push_live(&mut self, e: &Entry, keep: impl FnMut(StreamSeq) -> bool) {
        match live_part(e, keep) {
            Some(e) => self.push(&e),
            None => self.skip(e.head.index, e.head.term, e.head.chain),
        }
    }

    fn begin(&mut self, seq: StreamSeq, index: LogIndex) {
        if self.line.is_none() {
            let known = if seq.0 > 0 { seq } else { StreamSeq(self.meta.last_seq.0 + 1) };
            let seq = if self.meta.msgs == 0 { 0 } else { (known.0 - self.meta.first_seq.0) as u32 };
            let index = (index.0 - self.meta.first_index.0) as u32;
            self.lay_far();
            self.start = self.out.len();
            self.line = Some(BlockLine { off: (self.base + self.start) as u32, seq, index });
            if self.codec.is_plain() {
                self.out.extend_from_slice(&[0; BLOCK_HEADER]);
            }
        }
    }

    fn note(&mut self, m: &Message<'_>) {
        let meta = &mut self.meta;
        if meta.msgs == 0 {
            (meta.first_seq, meta.first_time) = (m.seq, m.time);
        }
        assert!(meta.msgs == 0 || m.seq > meta.last_seq, "S-41: sequences of a piece rise");
        (meta.last_seq, meta.last_time) = (m.seq, m.time);
        meta.msgs += 1;
        let size = self.counting.of(m);
        meta.bytes += u64::from(size);
        if let Some(at) = m.expires {
            self.index.ttl.push((at, m.seq));
        }
        let subject = self.names.number(m.subject);
        self.slots.push(Slot { seq: (m.seq.0 - meta.first_seq.0) as u32, subject, size });
    }

    fn end_if_full(&mut self) {
        if self.open_len() >= self.block_target {
            self.end();
        }
    }

    /// Bytes that are laid out of the block being filled.
    fn open_len(&self) -> usize {
        match (self.codec.is_plain(), &self.line) {
            // Without an open block the end of `out` is none.
            (true, Some(_)) => self.out.len() - self.start - BLOCK_HEADER,
            (true, None) => 0,
            (false, _) => self.block.len(),
        }
    }

    fn end(&mut self) {
        if let Some(line) = self.line.take() {
            self.index.blocks.push(line);
            let at = self.off + (self.base + self.start) as u64;
            if self.codec.is_plain() {
                let (head, raw) = self.out[self.start..].split_at_mut(BLOCK_HEADER);
                let header = block_header(raw.len() as u32, raw.len() as u32, self.lead);
                let crc = block_crc(self.meta.file, at, &header, raw);
                head[..BLOCK_HEADER - 4].copy_from_slice(&header);
                head[BLOCK_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
            } else {
                self.codec.put(&mut self.out, self.meta.file, at, &self.block, self.lead);
                self.block.clear();
            }
        }
        self.lead = Lead::default();
    }

    /// The piece, or `None` if nothing was added.
    pub(crate) fn finish(mut self) -> Option<Built> {
        if !self.entries {
            return None;
        }
        self.end();
        self.lay_far();
        self.meta.data = (self.base + self.out.len()) as u32;
        let subjects = sorted(std::mem::take(&mut self.names), std::mem::take(&mut self.slots));
        self.index.ttl.sort_unstable();
        self.index.filter =
            Filter::new(subjects.subjects(), (0..subjects.subjects() as u32).map(|i| subjects.subject(i)));
        // The lengths of the footers stand in the manifest's copy of the metadata only, so that they need not know
        // themselves.
        let a = self.index.encode(&self.meta);
        let at = self.off + (self.base + self.out.len()) as u64;
        self.meta.index_foot = self.foot(&a, at);
        let b = subjects.encode();
        let at = self.off + (self.base + self.out.len()) as u64;
        self.meta.subject_foot = self.foot(&b, at);
        Some(Built {
            bytes: self.out.into(),
            meta: self.meta,
            #[cfg(test)]
            index: self.index,
            subjects,
        })
    }

    fn foot(&mut self, b: &[u8], at: u64) -> u32 {
        let stored = match self.codec.key {
            Some(k) => k.seal(block_nonce(at, 1), &[], b),
            None => Bytes::copy_from_slice(b),
        };
        self.out.u32(checksum::crc32c(&stored));
        self.out.extend_from_slice(&stored);
        stored.len() as u32 + 4
    }
}
