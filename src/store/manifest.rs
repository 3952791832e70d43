//! The manifest of a shard: which pieces make up which group, what is deleted in them, hard states, checkpoints, and
//! where the journal's replay begins. It is the one point at which a flush, a checkpoint or a rewrite takes effect.
//!
//! Owns the bytes of both slots and the choice between them. Does no I/O.
//!
//! With a key the whole body is sealed. Its id and the generation stand in the header, so that a slot can be told from others without it.
//!
//! - S-70: a generation is written to slot A, synced, then to slot B, synced, and only then is anything that an older
//!   generation needs given up. A slot that is the only one that is whole is written last, so that one may be lost at any time;
//!   it is synced before, since who wrote it may have died first.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    codec::{Get, Put, u32_at, u64_at},
    crypt::{Key, Keys, TAG},
    keyring::{self, Eras},
    record::FORMAT,
    segment::PieceMeta,
    types::{Chain, Epoch, FileId, GroupId, LogIndex, Round, StreamSeq, Term},
};

const MAGIC: u32 = 0x864d_5546;
/// Bytes before a slot's body.
pub(crate) const SLOT_HEADER: usize = 40;

/// A piece as the manifest knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PieceRecord {
    pub meta: PieceMeta,
    /// Serialized bitmap of deleted sequences less the piece's first; empty if none is.
    pub deleted: Bytes,
}

/// A stream's totals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// The first live message; one more than `last` if there is none.
    pub first: StreamSeq,
    /// The last message that joined.
    pub last: StreamSeq,
    /// Live messages.
    pub msgs: u64,
    /// What they count for.
    pub bytes: u64,
    /// When the last one came, in nanoseconds since 1970.
    pub last_time: i64,
}

/// State of a group up to an applied entry.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// The entry.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The chain with it; 0 if it was lost.
    pub chain: Chain,
    /// The stream.
    pub totals: Totals,
    /// The layer above's own state.
    pub blob: Bytes,
}

/// Entries, and the messages in them, that were durable and are gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Lost {
    /// The first of them.
    pub first: LogIndex,
    /// The last of them.
    pub last: LogIndex,
    /// Both 0 if no message is among them, or none is known to be.
    pub first_seq: StreamSeq,
    /// The last message among them.
    pub last_seq: StreamSeq,
    /// False if it is not known whether these sequences were ever given: the end of the journal is gone that would say so.
    pub sure: bool,
}

/// One group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct GroupRecord {
    pub id: GroupId,
    pub options: Bytes,
    pub hard: Bytes,
    /// False if the newest hard state was damaged: the group must not vote with what is here.
    pub hard_valid: bool,
    /// The last entry in pieces.
    pub flushed: LogIndex,
    pub flushed_term: Term,
    pub flushed_chain: Chain,
    pub checkpoint: Checkpoint,
    pub floor_seq: StreamSeq,
    pub floor_index: LogIndex,
    pub pieces: Vec<PieceRecord>,
    pub lost: Vec<Lost>,
}

/// A generation of the manifest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Manifest {
    pub shard: u32,
    pub generation: u64,
    /// Rounds before this one are all in what follows.
    pub replay_from: Round,
    /// All rounds up to here were synced when this was written.
    pub synced: Round,
    pub epoch: Epoch,
    pub next_file: FileId,
    pub groups: Vec<GroupRecord>,
    /// Deleted groups whose entries the journal may still hold, and the round of the deletion.
    pub tombs: Vec<(GroupId, Round)>,
    /// Segment files that nothing needs any more.
    pub garbage: Vec<FileId>,
    /// Which key sealed which segment files.
    pub eras: Eras,
    /// Earlier keys that are still needed.
    pub ring: Vec<Key>,
    /// The key that sealed the slot that this was read from; 0 for none.
    pub key: u32,
}

/// What of a slot's header is sealed with its body.
fn names(shard: u32, generation: u64, key: u32) -> [u8; 16] {
    let mut b = [0; 16];
    b[..4].copy_from_slice(&shard.to_le_bytes());
    b[4..8].copy_from_slice(&key.to_le_bytes());
    b[8..].copy_from_slice(&generation.to_le_bytes());
    b
}

/// What a slot was found to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    /// There is none.
    Absent,
    /// It can be read.
    Valid(Box<Manifest>),
    /// There is something, and it is not what was written.
    Damaged,
    /// Another version wrote it.
    Foreign(u8),
    /// A generation that is whole and sealed with a key that is not there.
    Sealed {
        /// The key's id.
        key: u32,
        /// Which one it is.
        generation: u64,
    },
}

/// Bytes of the salt before a sealed body.
const SALT: usize = 16;

impl Manifest {
    /// The segment files that it needs.
    pub(crate) fn files(&self) -> BTreeSet<FileId> {
        self.groups.iter().flat_map(|g| g.pieces.iter().map(|p| p.meta.file)).collect()
    }

    /// The slot's bytes; sealed, if there is a key, with what this salt makes of it. A salt is used for one generation only (S-30).
    pub(crate) fn encode(&self, sector: u64, seal: Option<(&Key, [u8; SALT])>) -> Vec<u8> {
        let mut b = vec![0; SLOT_HEADER];
        for v in [self.replay_from.0, self.synced.0, self.epoch.0, self.next_file.0] {
            b.var(v);
        }
        b.var(self.groups.len() as u64);
        for g in &self.groups {
            g.put(&mut b);
        }
        b.var(self.tombs.len() as u64);
        for (g, r) in &self.tombs {
            b.var(g.0);
            b.var(r.0);
        }
        b.var(self.garbage.len() as u64);
        self.garbage.iter().for_each(|f| b.var(f.0));
        keyring::put(&mut b, &self.eras, &self.ring);
        let key = seal.map_or(0, |s| s.0.id());
        if let Some((key, salt)) = seal {
            let names = names(self.shard, self.generation, key.id());
            let sealed = key.for_file(&salt).seal([0; 12], &names, &b[SLOT_HEADER..]);
            b.truncate(SLOT_HEADER);
            b.extend_from_slice(&salt);
            b.extend_from_slice(&sealed);
        }
        let crc = checksum::crc32c(&b[SLOT_HEADER..]);
        let mut h = Vec::with_capacity(SLOT_HEADER);
        h.u32(MAGIC);
        h.u8(FORMAT);
        h.extend_from_slice(&[0; 3]);
        h.u32(self.shard);
        h.u32(crc);
        h.u64(self.generation);
        h.u64((b.len() - SLOT_HEADER) as u64);
        h.u32(key);
        let own = checksum::crc32c(&h);
        h.u32(own);
        b[..SLOT_HEADER].copy_from_slice(&h);
        let len = crate::codec::align(b.len() as u64, sector) as usize;
        b.resize(len, 0);
        b
    }

    /// Reads a slot's bytes.
    pub(crate) fn decode(b: &[u8], keys: &Keys) -> Slot {
        if b.is_empty() {
            return Slot::Absent;
        }
        let Some(h) = b.get(..SLOT_HEADER) else { return Slot::Damaged };
        if u32_at(h, 0) != MAGIC || checksum::crc32c(&h[..SLOT_HEADER - 4]) != u32_at(h, SLOT_HEADER - 4) {
            return Slot::Damaged;
        }
        if h[4] != FORMAT {
            return Slot::Foreign(h[4]);
        }
        let body = usize::try_from(u64_at(h, 24)).ok().and_then(|n| b[SLOT_HEADER..].get(..n));
        let Some(body) = body.filter(|b| checksum::crc32c(b) == u32_at(h, 12)) else { return Slot::Damaged };
        let (shard, generation, key) = (u32_at(h, 8), u64_at(h, 16), u32_at(h, 32));
        let read = if key == 0 {
            Self::body(h, body)
        } else {
            let Some((salt, sealed)) = body.split_first_chunk::<SALT>() else { return Slot::Damaged };
            match keys.of_file(key, salt) {
                Ok(k) => k
                    .and_then(|k| k.open([0; 12], &names(shard, generation, key), sealed))
                    .and_then(|plain| Self::body(h, &plain)),
                Err(_) if sealed.len() < TAG => None,
                Err(_) => return Slot::Sealed { key, generation },
            }
        };
        read.map_or(Slot::Damaged, |m| Slot::Valid(Box::new(m)))
    }

    fn body(h: &[u8], b: &[u8]) -> Option<Manifest> {
        let mut g = Get(b);
        let mut m = Manifest {
            shard: u32_at(h, 8),
            generation: u64_at(h, 16),
            key: u32_at(h, 32),
            replay_from: Round(g.var()?),
            synced: Round(g.var()?),
            epoch: Epoch(g.var()?),
            next_file: FileId(g.var()?),
            ..Manifest::default()
        };
        for _ in 0..g.count(8)? {
            m.groups.push(GroupRecord::get(&mut g)?);
        }
        for _ in 0..g.count(2)? {
            m.tombs.push((GroupId(g.var()?), Round(g.var()?)));
        }
        for _ in 0..g.count(1)? {
            m.garbage.push(FileId(g.var()?));
        }
        (m.eras, m.ring) = keyring::get(&mut g)?;
        g.0.is_empty().then_some(m)
    }
}

impl Checkpoint {
    /// Its bytes, in the manifest and at the head of a state on its way.
    pub(crate) fn put(&self, b: &mut Vec<u8>) {
        b.var(self.index.0);
        b.var(self.term.0);
        b.u64(self.chain.0);
        let t = &self.totals;
        for v in [t.first.0, t.last.0, t.msgs, t.bytes] {
            b.var(v);
        }
        b.ivar(t.last_time);
        b.bytes(&self.blob);
    }
    /// What [`Checkpoint::put`] wrote.
    pub(crate) fn get(g: &mut Get<'_>) -> Option<Checkpoint> {
        Some(Checkpoint {
            index: LogIndex(g.var()?),
            term: Term(g.var()?),
            chain: Chain(g.u64()?),
            totals: Totals {
                first: StreamSeq(g.var()?),
                last: StreamSeq(g.var()?),
                msgs: g.var()?,
                bytes: g.var()?,
                last_time: g.ivar()?,
            },
            blob: Bytes::copy_from_slice(g.bytes()?),
        })
    }
}

impl GroupRecord {
    fn put(&self, b: &mut Vec<u8>) {
        b.var(self.id.0);
        b.bytes(&self.options);
        b.bytes(&self.hard);
        b.u8(u8::from(self.hard_valid));
        b.var(self.flushed.0);
        b.var(self.flushed_term.0);
        b.u64(self.flushed_chain.0);
        self.checkpoint.put(b);
        b.var(self.floor_seq.0);
        b.var(self.floor_index.0);
        b.var(self.pieces.len() as u64);
        for p in &self.pieces {
            p.meta.put(b);
            b.bytes(&p.deleted);
        }
        b.var(self.lost.len() as u64);
        for l in &self.lost {
            for v in [l.first.0, l.last.0, l.first_seq.0, l.last_seq.0] {
                b.var(v);
            }
            b.u8(u8::from(l.sure));
        }
    }

    fn get(g: &mut Get<'_>) -> Option<GroupRecord> {
        let owned = |b: &[u8]| Bytes::copy_from_slice(b);
        let mut r = GroupRecord {
            id: GroupId(g.var()?),
            options: owned(g.bytes()?),
            hard: owned(g.bytes()?),
            hard_valid: g.u8()? != 0,
            flushed: LogIndex(g.var()?),
            flushed_term: Term(g.var()?),
            flushed_chain: Chain(g.u64()?),
            checkpoint: Checkpoint::get(g)?,
            floor_seq: StreamSeq(g.var()?),
            floor_index: LogIndex(g.var()?),
            ..GroupRecord::default()
        };
        for _ in 0..g.count(16)? {
            r.pieces.push(PieceRecord { meta: PieceMeta::get(g)?, deleted: owned(g.bytes()?) });
        }
        for _ in 0..g.count(5)? {
            r.lost.push(Lost {
                first: LogIndex(g.var()?),
                last: LogIndex(g.var()?),
                first_seq: StreamSeq(g.var()?),
                last_seq: StreamSeq(g.var()?),
                sure: g.u8()? != 0,
            });
        }
        Some(r)
    }
}

/// What the two slots together say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    /// A shard that never had a manifest.
    Fresh,
    /// Use this one; true if the other slot has to be written again.
    Use(Box<Manifest>, bool),
    /// Both are gone: what the pieces and the journal say must be pieced together, and deletions may be missing.
    BothDamaged,
    /// A version that this one does not know wrote it.
    Foreign(u8),
    /// S-31: the newest one that is there cannot be read without this key.
    Sealed(u32),
}

/// The truth table of the two slots (S-70).
pub(crate) fn choose(a: Slot, b: Slot) -> Choice {
    match (a, b) {
        (Slot::Foreign(v), _) | (_, Slot::Foreign(v)) => Choice::Foreign(v),
        (Slot::Absent, Slot::Absent) => Choice::Fresh,
        // The keys changed between the two, and what is there opens the newer one.
        (Slot::Valid(m), Slot::Sealed { generation, .. })
        | (Slot::Sealed { generation, .. }, Slot::Valid(m))
            if m.generation > generation =>
        {
            Choice::Use(m, true)
        }
        (Slot::Sealed { key, generation: a }, Slot::Sealed { key: other, generation: b }) => {
            Choice::Sealed(if a >= b { key } else { other })
        }
        (Slot::Sealed { key, .. }, _) | (_, Slot::Sealed { key, .. }) => Choice::Sealed(key),
        // B is written after A as a rule; an equal one is the usual case.
        (Slot::Valid(a), Slot::Valid(b)) if a.generation >= b.generation => {
            let again = a.generation != b.generation;
            Choice::Use(a, again)
        }
        (Slot::Valid(_), Slot::Valid(b)) => Choice::Use(b, true),
        (Slot::Valid(m), Slot::Absent | Slot::Damaged) | (Slot::Absent | Slot::Damaged, Slot::Valid(m)) => {
            Choice::Use(m, true)
        }
        // The first generation's first write was torn: nothing was ever acknowledged on the strength of a manifest, and
        // the whole history is in the journal.
        (Slot::Damaged, Slot::Absent) => Choice::Fresh,
        (Slot::Absent, Slot::Damaged) | (Slot::Damaged, Slot::Damaged) => Choice::BothDamaged,
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
