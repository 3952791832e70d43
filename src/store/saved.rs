//! The subject dictionaries of a clean end: a file beside the journal that spares the next start the walk through all pieces' footers.
//!
//! Owns its bytes, when it is written, and when it is believed. It is a copy of what the footers say and nothing else: a start without it, or
//! with one that does not fit, builds dictionaries when they are asked for. Not written where files are sealed, since it holds subjects.
//!
//! - S-120: a saved dictionary is used only for the very checkpoint that it was saved with: same manifest, same entry, same totals.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use bytes::Bytes;
use env::disk::OpenOptions;

use crate::{
    codec::{Get, Put, u32_at, u64_at},
    dict::{Dict, Known},
    group::Group,
    io::Disk,
    shard::Shard,
    types::{Chain, GroupId, LogIndex, StreamSeq},
};

const MAGIC: u32 = 0x8444_5546;
const VERSION: u32 = 1;
const HEADER: usize = 40;

/// Its name in the journal's directory, which a start lists anyway.
pub(crate) const NAME: &str = "subjects.fd";

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("journal").join(NAME)
}

/// Adds a group's dictionary, if it is what a restart from the durable checkpoint would build.
fn put(out: &mut Vec<u8>, g: &Group, min: u64) -> bool {
    let c = &g.checkpoint;
    let same = g.pending.is_none() && c.index == g.applied && c.totals == g.totals;
    if g.memory || g.deleted || !same || !g.dict_ready() || g.totals.msgs < min {
        return false;
    }
    out.var(g.id.0);
    out.var(c.index.0);
    out.u64(c.chain.0);
    out.var(c.totals.msgs);
    out.var(c.totals.last.0);
    out.var(g.dict.live() as u64);
    let mut before: Vec<u8> = Vec::new();
    g.dict.matching(b">", |id| {
        let (s, k) = (g.dict.subject(id), g.dict.info(id).known());
        let shared = s.iter().zip(&before).take_while(|(a, b)| a == b).count();
        out.var(shared as u64);
        out.bytes(&s[shared..]);
        out.var(k.count << 2 | u64::from(k.loose_first) << 1 | u64::from(k.loose_last));
        out.var(k.first.0);
        out.var(k.last.0 - k.first.0);
        before.clear();
        before.extend_from_slice(s);
        true
    });
    true
}

/// Takes one group's dictionary off; `None` if the bytes are none.
fn get(g: &mut Get<'_>) -> Option<(GroupId, LogIndex, Chain, u64, StreamSeq, Dict)> {
    let id = GroupId(g.var()?);
    let index = LogIndex(g.var()?);
    let chain = Chain(g.u64()?);
    let (msgs, last) = (g.var()?, StreamSeq(g.var()?));
    let n = g.count(5)?;
    let (mut dict, mut text, mut sum) = (Dict::with_room(n), Vec::new(), 0u64);
    for _ in 0..n {
        let shared = usize::try_from(g.var()?).ok().filter(|s| *s <= text.len())?;
        let rest = g.bytes()?;
        text.truncate(shared);
        text.extend_from_slice(rest);
        let count = g.var()?;
        let first = StreamSeq(g.var()?);
        let k = Known {
            count: count >> 2,
            first,
            last: StreamSeq(first.0.checked_add(g.var()?)?),
            loose_first: count & 2 != 0,
            loose_last: count & 1 != 0,
        };
        sum = sum.checked_add(k.count)?;
        if k.last > last || !dict.push(&text, &k) {
            return None;
        }
    }
    (sum == msgs).then_some((id, index, chain, msgs, last, dict))
}

impl Shard {
    /// After the last flush: keeps the dictionaries for the next start. That it could not be written costs the next start time and nothing else.
    pub(crate) async fn save_subjects(&self) {
        if self.opts.keys.current().is_some() {
            return;
        }
        let _one = self.flush_lock.lock().await;
        let groups: Vec<_> = self.groups.lock().values().cloned().collect();
        let (mut body, mut n) = (Vec::new(), 0u64);
        for g in groups {
            n += u64::from(put(&mut body, &g.lock(), self.opts.subjects_saved_min));
        }
        if n == 0 {
            return;
        }
        let mut head = Vec::with_capacity(HEADER);
        head.u32(MAGIC);
        head.u32(VERSION);
        head.u32(self.id);
        head.u32(checksum::crc32c(&body));
        head.u64(self.generation.load(Ordering::Relaxed));
        head.u64(body.len() as u64);
        head.u32(u32::try_from(n).unwrap_or(u32::MAX));
        head.u32(checksum::crc32c(&head));
        let write = async {
            let file = self.disk.open(&path(&self.dir), OpenOptions::TRUNCATE).await?;
            file.write_vectored_at(0, vec![head.into(), body.into()]).await?;
            file.sync_data().await?;
            self.disk.sync_dir(&self.dir.join("journal")).await
        };
        write.await.ok();
    }

    /// At the start, before anything of the log above the checkpoints is applied: takes up the dictionaries that fit.
    pub(crate) fn take_subjects(&self, bytes: &[u8]) {
        let Some((head, body)) = bytes.split_at_checked(HEADER) else { return };
        let known = u32_at(head, 0) == MAGIC && u32_at(head, 4) == VERSION && u32_at(head, 8) == self.id;
        let whole = checksum::crc32c(&head[..HEADER - 4]) == u32_at(head, HEADER - 4)
            && u64_at(head, 24) == body.len() as u64
            && checksum::crc32c(body) == u32_at(head, 12);
        let generation = self.generation.load(Ordering::Relaxed);
        if !known || !whole || u64_at(head, 16) != generation {
            return;
        }
        let (mut left, groups) = (Get(body), self.groups.lock());
        for _ in 0..u32_at(head, 32) {
            let Some((id, index, chain, msgs, last, dict)) = get(&mut left) else { return };
            let Some(g) = groups.get(&id) else { continue };
            let mut g = g.lock();
            let c = &g.checkpoint;
            // S-120
            let same = c.index == index && c.chain == chain && c.totals.msgs == msgs && c.totals.last == last;
            if same && !g.memory && g.applied == index && g.totals == c.totals {
                g.dict = dict;
                g.dict_upto = last;
            }
        }
    }
}

/// What a clean end left, if anything.
pub(crate) async fn read(disk: &Disk, dir: &Path) -> Option<Bytes> {
    let file = disk.open(&path(dir), OpenOptions::READ).await.ok()?;
    let len = usize::try_from(file.len().await.ok()?).ok()?;
    file.scan_at(0, len).await.ok()
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
