//! What a power failure, a failed sync and a directory sync leave behind.

use std::collections::{BTreeMap, BTreeSet};

use super::{Error, Fault, Node, SimDisk, file::FileNode};
use crate::Rng;

/// How a power failure treats what was not synced: (kept, torn) of 16 each; the rest is lost. One is drawn per failure, so
/// that "all lost" and "all kept" happen as well as mixtures.
const MOODS: [(u64, u64); 6] = [(0, 0), (16, 0), (8, 0), (8, 4), (2, 2), (14, 2)];

impl SimDisk {
    /// The power fails and comes back: what was not synced is kept, lost or torn, sector by sector; open handles are gone.
    pub fn power_failure(&mut self) {
        self.handles.clear();
        self.forced = None;
        self.crash_after = false;
        self.crashed = false;
        let mood = self.rng.pick(&MOODS).copied().unwrap_or((0, 0));
        let atomic = self.options.atomic_sectors;
        let rng = &mut self.rng;
        for node in self.nodes.values_mut() {
            if let Node::File(f) = node {
                crash_file(f, rng, mood, atomic);
            }
        }
        self.crash_names(mood.0);
        self.collect();
    }

    /// The process ends: its handles are gone, the page cache stays.
    pub fn process_death(&mut self) {
        self.handles.clear();
        self.collect();
    }

    /// Makes the names of a directory durable, with all that they depend on.
    pub(super) fn settle_names(&mut self, dir: u64) {
        // From the newest back: a kept operation drags the older ones of all its directories along.
        let mut dirs = BTreeSet::from([dir]);
        let (mut keep, mut rest) = (Vec::new(), Vec::new());
        for op in std::mem::take(&mut self.pending).into_iter().rev() {
            if op.0.iter().any(|e| dirs.contains(&e.0)) {
                dirs.extend(op.0.iter().map(|e| e.0));
                keep.push(op);
            } else {
                rest.push(op);
            }
        }
        rest.reverse();
        self.pending = rest;
        keep.into_iter().rev().for_each(|op| self.apply_durably(op.0));
        self.collect();
    }

    fn apply_durably(&mut self, edits: Vec<(u64, String, Option<u64>)>) {
        for (dir, name, to) in edits {
            if let Some(Node::Dir { durable, .. }) = self.nodes.get_mut(&dir) {
                match to {
                    Some(n) => durable.insert(name, n),
                    None => durable.remove(&name),
                };
            }
        }
    }

    /// Each directory keeps a prefix of its operations; one that touches two directories is kept in both or in none.
    fn crash_names(&mut self, kept_of_16: u64) {
        let mut cut = BTreeSet::new();
        for op in std::mem::take(&mut self.pending) {
            let dirs: Vec<u64> = op.0.iter().map(|e| e.0).collect();
            let lost = dirs.iter().any(|d| cut.contains(d)) || self.rng.below(16) >= kept_of_16;
            if lost {
                cut.extend(dirs);
            } else {
                self.apply_durably(op.0);
            }
        }
        for node in self.nodes.values_mut() {
            if let Node::Dir { now, durable } = node {
                *now = durable.clone();
            }
        }
    }

    /// A failed sync: each dirty sector was written or is forgotten, and nobody can tell which.
    pub(super) fn fail_sync(&mut self, node: u64) -> Result<(), Error> {
        let f = self.file_mut(node)?;
        f.apply_cut();
        f.floor = u64::MAX;
        let dirty = std::mem::take(&mut f.dirty);
        for (s, data) in dirty {
            let written = self.rng.bool(0.5);
            let f = self.file_mut(node)?;
            if written {
                f.settle(s, data);
            }
            f.believed.remove(&s);
        }
        let f = self.file_mut(node)?;
        f.media_len = f.media_len.max(f.len);
        Ok(())
    }
}

fn crash_file(f: &mut FileNode, rng: &mut Rng, mood: (u64, u64), atomic: bool) {
    // The size is metadata of its own: it may be durable before or after the data, or in between.
    let (lo, hi) = (f.media_len.min(f.len), f.media_len.max(f.len));
    let len = match rng.below(3) {
        _ if mood.0 == 16 => f.len,
        _ if mood == (0, 0) => f.media_len,
        0 => f.media_len,
        1 => f.len,
        _ => rng.between(lo, hi),
    };
    if mood.0 == 16 || (f.floor != u64::MAX && mood.0 > 0 && rng.bool(0.5)) {
        f.apply_cut();
    }
    let claimed = std::mem::take(&mut f.claimed);
    let mut lost: BTreeMap<u64, _> = claimed;
    for (s, data) in std::mem::take(&mut f.dirty) {
        let draw = rng.below(16);
        if draw < mood.0 {
            // It arrived, though the file's length may yet cut it.
            if let Some(claim) = lost.get_mut(&s) {
                *claim = f.believed.get(&s).unwrap_or(&data).clone();
            }
            f.settle(s, data);
        } else if draw < mood.0 + mood.1 && !atomic && f.size > 1 {
            let cut = rng.between(1, f.size - 1) as usize;
            f.settle_torn(s, &data, cut);
        }
    }
    f.reset_to_media(len);
    for (s, data) in lost {
        f.spoil(s, None, Fault::LostSync, Some(data));
    }
}
