//! Reading everything once in a while, so that damage is found while there is still something to repair it from.
//!
//! Owns the walk over pieces, a budget of bytes at a time, and what it reports. Repairs nothing. Reads past the caches, and
//! leaves them as they are.
//!
//! - S-92: a step of the scrub reads at most its budget and one more block or footer.

use std::{sync::Arc, time::Duration};

use crate::{
    group::Piece,
    record::Message,
    segment::{IndexFoot, PieceMeta},
    shard::Shard,
    types::{Damage, Error, GroupId, LogIndex, Result, StreamSeq},
};

/// What a scrub, or a step of one, has read and found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScrubReport {
    /// Bytes that were read and compared.
    pub bytes: u64,
    /// Pieces that were read to their end.
    pub pieces: u64,
    /// What was found damaged now, also if it was known before.
    pub damage: Vec<Damage>,
    /// True if this step ended a pass over everything.
    pub done: bool,
}

/// Where the walk stands: the piece, by its group and first entry, and what of it comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cursor {
    group: GroupId,
    index: LogIndex,
    block: usize,
}

impl Shard {
    /// The first piece at or after the cursor.
    fn piece_at(&self, at: Cursor) -> Option<(Cursor, Arc<Piece>)> {
        let groups: Vec<_> = self.groups.lock().range(at.group..).map(|(id, g)| (*id, g.clone())).collect();
        groups.into_iter().find_map(|(id, g)| {
            let g = g.lock();
            let from = if id == at.group { at.index } else { LogIndex(0) };
            let p = g.pieces.iter().find(|p| p.meta.first_index >= from)?;
            let index = p.meta.first_index;
            let same = id == at.group && index == at.index;
            Some((Cursor { group: id, index, block: if same { at.block } else { 0 } }, p.clone()))
        })
    }

    /// Whether the piece is still one of its group's: one that was rewritten meanwhile may be gone from the disk.
    pub(crate) fn is_current(&self, m: &PieceMeta) -> bool {
        self.group(m.group).is_ok_and(|g| g.lock().has_piece(m))
    }

    /// Reads on from the cursor until the budget is used or the pass is over.
    pub(crate) async fn scrub(&self, cursor: &mut Cursor, budget: u64) -> Result<ScrubReport> {
        let mut report = ScrubReport::default();
        while report.bytes < budget {
            let Some((at, p)) = self.piece_at(*cursor) else {
                (*cursor, report.done) = (Cursor::default(), true);
                return Ok(report);
            };
            *cursor = at;
            match self.scrub_piece(&p, cursor, budget, &mut report).await {
                Ok(()) => {}
                Err(Error::Damaged(_)) if !self.is_current(&p.meta) => {}
                Err(Error::Damaged(d)) => self.found(&mut report, d),
                Err(e) => return Err(e),
            }
            if cursor.block == usize::MAX {
                report.pieces += 1;
                *cursor = Cursor { group: at.group, index: at.index.next(), block: 0 };
            }
        }
        Ok(report)
    }

    fn found(&self, report: &mut ScrubReport, d: Damage) {
        self.note_damage(d.group, d.entries, d.messages, d.what.clone());
        report.damage.push(d);
    }

    /// Leaves `cursor.block` at the next block, or at the maximum if nothing of the piece is left to be read.
    async fn scrub_piece(
        &self,
        p: &Arc<Piece>,
        cursor: &mut Cursor,
        budget: u64,
        report: &mut ScrubReport,
    ) -> Result<()> {
        let (meta, from) = (&p.meta, cursor.block);
        cursor.block = usize::MAX;
        let f = self.fresh_index_foot(meta).await?;
        report.bytes += u64::from(meta.index_foot);
        if from == 0 {
            report.bytes += u64::from(meta.subject_foot);
            // One that is damaged is no loss as long as the blocks are whole.
            self.fresh_subject_foot(meta).await?;
        }
        for i in from..f.blocks.len() {
            if report.bytes >= budget {
                cursor.block = i;
                return Ok(());
            }
            let end = f.blocks.get(i + 1).map_or(meta.data, |b| b.off);
            report.bytes += u64::from(end - f.blocks[i].off);
            if !self.block_is_whole(p, &f, i).await? && self.is_current(&p.meta) {
                self.found(report, block_damage(p, &f, i));
            }
        }
        Ok(())
    }

    async fn block_is_whole(&self, p: &Piece, f: &IndexFoot, i: usize) -> Result<bool> {
        for _ in 0..crate::read::TRIES {
            let Some(b) = self.block(&p.meta, f, i, true).await? else { continue };
            let good = |r: &[u8]| Message::decode(p.meta.group, r).is_some();
            if b.sure && b.records().all(good) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes through everything again and again, at a rate, with a pause between the passes.
    pub(crate) async fn scrub_forever(self: Arc<Self>, rate: u64, pause: Duration) {
        let mut cursor = Cursor::default();
        while !self.closed.load(std::sync::atomic::Ordering::Acquire) {
            let wait = match self.scrub(&mut cursor, rate).await {
                Ok(r) if !r.done => Duration::from_secs(1),
                // After an error of the disk the next pass tries again.
                Ok(_) | Err(_) => pause,
            };
            env::select! {
                () = env::time::sleep(wait) => {}
                () = self.wake_scrub.notified() => {}
            }
        }
    }
}

fn block_damage(p: &Piece, f: &IndexFoot, i: usize) -> Damage {
    let meta = &p.meta;
    let seq = |b: usize| StreamSeq(meta.first_seq.0 + u64::from(f.blocks[b].seq));
    let index = |b: usize| LogIndex(meta.first_index.0 + u64::from(f.blocks[b].index));
    let next = i + 1 < f.blocks.len();
    let last = if next { StreamSeq(seq(i + 1).0.saturating_sub(1)) } else { meta.last_seq };
    let last_index = if next { index(i + 1) } else { meta.last_index };
    Damage {
        group: Some(meta.group),
        entries: Some((index(i), last_index)),
        messages: (meta.msgs > 0 && last >= seq(i)).then(|| (seq(i), last)),
        what: format!(
            "segment {}: the block at {} is damaged",
            meta.file.0,
            meta.off + u64::from(f.blocks[i].off)
        ),
    }
}
