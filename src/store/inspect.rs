//! What lies in a store's directory, told without changing anything: for people who look for what went wrong.
//!
//! Owns the report. Takes no lock, so the store may be running; then what is read may be of two moments.

use std::{fmt, path::PathBuf};

use crate::{
    crypt,
    io::Disk,
    manifest::{self, Choice, Manifest, Slot},
    options::Options,
    recover::Verdict,
    shard::{read_replay, read_slot, slot_path},
    types::{Error, GroupId, LogIndex, Result, Round, StreamSeq},
};

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inspection {
    /// By shard.
    pub shards: Vec<ShardReport>,
}

/// One shard.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ShardReport {
    /// Its directory.
    pub dir: PathBuf,
    /// What the manifest's two slots hold: a generation, or what is wrong.
    pub slots: [String; 2],
    /// The last round of the journal.
    pub journal_end: Round,
    /// Where the manifest has its replay begin.
    pub replay_from: Round,
    /// Rounds that were durable and are damaged or gone.
    pub damaged_rounds: Vec<Round>,
    /// Whether something stands behind the journal's end, as a write under way at a power failure leaves it.
    pub torn: bool,
    /// Rounds behind which somebody cut the journal, and how many bytes of it; `u64::MAX` if it is not known how many.
    pub cuts: Vec<(Round, u64)>,
    /// The groups of the manifest; what the journal adds is not in here.
    pub groups: Vec<GroupReport>,
    /// Segment files with their bytes, and whether the manifest or the journal needs them.
    pub segments: Vec<(String, u64, bool)>,
}

/// One group, as the manifest has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupReport {
    /// Its id.
    pub id: GroupId,
    /// Where its checkpoint is.
    pub checkpoint: LogIndex,
    /// How far its log lies in pieces.
    pub flushed: LogIndex,
    /// The first and the last sequence of the checkpoint's stream.
    pub sequences: (StreamSeq, StreamSeq),
    /// Live messages and their bytes at the checkpoint.
    pub messages: (u64, u64),
    /// Pieces, and messages in them, live or not.
    pub pieces: (usize, u64),
    /// Entries that were lost.
    pub lost: Vec<(LogIndex, LogIndex)>,
    /// False if the hard state is damaged.
    pub may_vote: bool,
}

fn slot_text(s: &Slot) -> String {
    match s {
        Slot::Absent => "absent".to_owned(),
        Slot::Valid(m) if m.key == 0 => format!("generation {}", m.generation),
        Slot::Valid(m) => format!("generation {}, sealed with the key {:08x}", m.generation, m.key),
        Slot::Damaged => "damaged".to_owned(),
        Slot::Foreign(v) => format!("written by format {v}"),
        Slot::Sealed { key, generation } => format!("generation {generation}, {}", crypt::absent(*key)),
    }
}

fn group_report(g: &manifest::GroupRecord) -> GroupReport {
    let t = g.checkpoint.totals;
    GroupReport {
        id: g.id,
        checkpoint: g.checkpoint.index,
        flushed: g.flushed,
        sequences: (t.first, t.last),
        messages: (t.msgs, t.bytes),
        pieces: (g.pieces.len(), g.pieces.iter().map(|p| u64::from(p.meta.msgs)).sum()),
        lost: g.lost.iter().map(|l| (l.first, l.last)).collect(),
        may_vote: g.hard_valid,
    }
}

/// Reads what lies in a store's directory.
pub async fn inspect(disk: impl Into<Disk>, dir: impl Into<PathBuf>, opts: &Options) -> Result<Inspection> {
    let (disk, dir) = (disk.into(), dir.into());
    let mut all = Inspection::default();
    for e in disk.read_dir(&dir).await?.into_iter().filter(|e| e.is_dir) {
        let Some(id) = e.name.strip_prefix("shard-").and_then(|n| n.parse().ok()) else { continue };
        let dir = dir.join(&e.name);
        let a = read_slot(&disk, &slot_path(&dir, 0), opts).await?;
        let b = read_slot(&disk, &slot_path(&dir, 1), opts).await?;
        let slots = [slot_text(&a), slot_text(&b)];
        let mut opts = opts.clone();
        let manifest = match manifest::choose(a, b) {
            Choice::Use(m, _) => *m,
            Choice::Sealed(key) => {
                return Err(Error::Format(format!("{} is {}", dir.display(), crypt::absent(key))));
            }
            Choice::Fresh | Choice::BothDamaged | Choice::Foreign(_) => Manifest::default(),
        };
        opts.keys.learn(&manifest.ring);
        let from = Round(manifest.replay_from.0.max(1));
        let (scan, replay) = read_replay(&disk, &dir, id, &opts, from, manifest.synced, &mut |_| {}).await?;
        let pieces = manifest.groups.iter().flat_map(|g| g.pieces.iter().map(|p| p.meta.file));
        let needed: Vec<String> =
            pieces.chain(scan.referred.files.into_keys()).map(|f| format!("{:010}.fs", f.0)).collect();
        let files = disk.read_dir(&dir.join("segments")).await?;
        let bad = replay.steps.iter().filter(|s| !matches!(s.1, Verdict::Take(_) | Verdict::Cut(_)));
        all.shards.push(ShardReport {
            slots,
            journal_end: replay.end,
            replay_from: from,
            damaged_rounds: bad.map(|s| s.0).collect(),
            torn: replay.torn,
            cuts: replay.cuts().collect(),
            groups: manifest.groups.iter().map(group_report).collect(),
            segments: files.into_iter().map(|f| (f.name.clone(), f.len, needed.contains(&f.name))).collect(),
            dir,
        });
    }
    Ok(all)
}

impl Inspection {
    /// Whether nothing that was read is damaged or lost. A torn end is what a power failure leaves.
    pub fn is_well(&self) -> bool {
        let slot = |s: &String| s == "absent" || s.starts_with("generation");
        let well = |g: &GroupReport| g.lost.is_empty() && g.may_vote;
        self.shards.iter().all(|s| {
            s.slots.iter().all(slot)
                && s.damaged_rounds.is_empty()
                && s.cuts.is_empty()
                && s.groups.iter().all(well)
        })
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for s in &self.shards {
            let [a, b] = &s.slots;
            writeln!(f, "{}: manifest a {a}, b {b}", s.dir.display())?;
            let torn = if s.torn { ", with a torn tail" } else { "" };
            writeln!(f, "  journal: rounds {} to {}{torn}", s.replay_from.0, s.journal_end.0)?;
            for r in &s.damaged_rounds {
                writeln!(f, "  journal: round {} is damaged", r.0)?;
            }
            for &(round, bytes) in &s.cuts {
                match bytes {
                    u64::MAX => writeln!(f, "  journal: cut off behind round {}", round.0)?,
                    n => writeln!(f, "  journal: {n} bytes were cut off behind round {}", round.0)?,
                }
            }
            for (name, len, needed) in &s.segments {
                let needed = if *needed { "" } else { ", not needed" };
                writeln!(f, "  segment {name}: {len} bytes{needed}")?;
            }
            for g in &s.groups {
                let ((a, b), (msgs, bytes), (pieces, held)) = (g.sequences, g.messages, g.pieces);
                writeln!(
                    f,
                    "  group {}: checkpoint {}, in pieces to {}, sequences {} to {}, {msgs} messages of {bytes} bytes live, \
                     {pieces} pieces with {held}",
                    g.id.0, g.checkpoint.0, g.flushed.0, a.0, b.0
                )?;
                for (a, b) in &g.lost {
                    writeln!(f, "  group {}: entries {} to {} are lost", g.id.0, a.0, b.0)?;
                }
                if !g.may_vote {
                    writeln!(f, "  group {}: its hard state is damaged", g.id.0)?;
                }
            }
        }
        Ok(())
    }
}
