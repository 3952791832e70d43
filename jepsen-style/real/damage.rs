//! Spoils a node's files while it runs or stands: flipped bits, cut ends, and the same in what a node would recover its
//! own state from.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::Wrong;

/// Which files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Where messages lie: message blocks, segments, journals.
    Messages,
    /// What says which streams there are and what they hold: manifests, snapshots, the metadata group, indexes.
    Snapshots,
}

/// Whether a file is of this kind, by its path below the store. The names are those of both subjects.
fn is_of(path: &str, target: Target) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let meta = path.contains("_meta_") || path.contains("/snapshots/") || name.starts_with("manifest");
    let derived = name == "index.db" || name.ends_with(".inf") || name.ends_with(".sum");
    let messages = [".blk", ".fs", ".fj"].iter().any(|e| name.ends_with(e));
    match target {
        Target::Messages => messages && !meta,
        Target::Snapshots => meta || derived,
    }
}

/// The files of this kind with their sizes, in the order of their names.
fn files(dir: &Path, target: Target) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(d) = open.pop() {
        for e in fs::read_dir(&d).into_iter().flatten().flatten() {
            // A file may go while the node runs.
            let Ok(m) = e.metadata() else { continue };
            if m.is_dir() {
                open.push(e.path());
            } else if m.len() > 0 && e.path().to_str().is_some_and(|p| is_of(p, target)) {
                found.push((e.path(), m.len()));
            }
        }
    }
    found.sort();
    found
}

/// A generator of places, from a seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    /// A number below `n` (0 for 0).
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33).checked_rem(n).unwrap_or(0)
    }
}

/// Flips `count` bits, each in a file drawn by size and at a place where it holds something other than zeros, as far as
/// one is found; returns how many were flipped.
///
/// # Errors
/// There is no such file, or it cannot be written.
pub fn flip(dir: &Path, target: Target, count: u64, dice: &mut Dice) -> Result<u64, Wrong> {
    let all = files(dir, target);
    let total: u64 = all.iter().map(|f| f.1).sum();
    if total == 0 {
        return Err(format!("the node has no file of {target:?} yet"));
    }
    let mut flipped = 0;
    for _ in 0..count * 20 {
        if flipped == count {
            break;
        }
        let mut at = dice.below(total);
        let Some((path, _)) = all.iter().find(|f| {
            at < f.1 || {
                at -= f.1;
                false
            }
        }) else {
            continue;
        };
        let mut byte = [0];
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| e.to_string())?;
        // A place that is reserved and empty would be no damage.
        if file.read_exact_at(&mut byte, at).is_ok() && byte[0] != 0 {
            byte[0] ^= 1 << dice.below(8);
            file.write_all_at(&byte, at).map_err(|e| e.to_string())?;
            flipped += 1;
        }
    }
    Ok(flipped)
}

/// Cuts `bytes` from the end of the content of each of the `count` files with the most of it; returns how many were cut.
///
/// # Errors
/// There is no such file, or it cannot be written.
pub fn truncate(dir: &Path, target: Target, count: usize, bytes: u64) -> Result<u64, Wrong> {
    let all = files(dir, target).into_iter().map(|(path, _)| Ok((last_byte(&path)?, path)));
    let mut all: Vec<(u64, PathBuf)> = all.collect::<Result<_, Wrong>>()?;
    all.sort();
    if all.is_empty() {
        return Err(format!("the node has no file of {target:?} yet"));
    }
    let mut cut = 0;
    for (end, path) in all.iter().rev().take(count) {
        let file = OpenOptions::new().write(true).open(path).map_err(|e| e.to_string())?;
        file.set_len(end.saturating_sub(bytes)).map_err(|e| e.to_string())?;
        cut += 1;
    }
    Ok(cut)
}

/// Where a file's content ends: space that was reserved behind it holds zeros.
fn last_byte(path: &Path) -> Result<u64, Wrong> {
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    Ok(bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_subjects_are_told_apart() {
        let messages = [
            "jetstream/$G/streams/s/msgs/1.blk",
            "shard-000/segments/0000000001.fs",
            "shard-000/journal/0000000001.fj",
        ];
        let snapshots = [
            "jetstream/$SYS/_js_/_meta_/msgs/1.blk",
            "jetstream/$SYS/_js_/S-R3F-abc/snapshots/snap.1.2",
            "shard-000/manifest-a",
            "jetstream/$G/streams/s/meta.inf",
        ];
        for p in messages {
            assert!(is_of(p, Target::Messages) && !is_of(p, Target::Snapshots), "{p}");
        }
        for p in snapshots {
            assert!(!is_of(p, Target::Messages) && is_of(p, Target::Snapshots), "{p}");
        }
        assert!(!is_of("lock", Target::Messages) && !is_of("lock", Target::Snapshots));
    }

    #[test]
    fn damage_is_done_where_something_is() {
        let dir = std::env::temp_dir().join(format!("jepsen-damage-{}", std::process::id()));
        fs::create_dir_all(dir.join("msgs")).unwrap();
        let path = dir.join("msgs/1.blk");
        let mut bytes = vec![0u8; 5000];
        bytes[100..1100].fill(0x55);
        fs::write(&path, &bytes).unwrap();
        assert!(flip(&dir, Target::Snapshots, 1, &mut Dice::new(1)).is_err());
        let n = flip(&dir, Target::Messages, 10, &mut Dice::new(1)).unwrap();
        let now = fs::read(&path).unwrap();
        let changed: Vec<usize> = (0..5000).filter(|i| now[*i] != bytes[*i]).collect();
        assert!(
            n == 10 && !changed.is_empty() && changed.iter().all(|i| (100..1100).contains(i)),
            "{changed:?}"
        );
        assert_eq!(truncate(&dir, Target::Messages, 3, 100).unwrap(), 1);
        assert_eq!(fs::metadata(&path).unwrap().len(), 1000);
        fs::remove_dir_all(&dir).unwrap();
    }
}
