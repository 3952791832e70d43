//! A plan: the store's settings, what is done to it, and when the power fails or the disk misbehaves.

use env::rng::Rng;

use crate::{Cipher, Key, Keys, Mutant, Options};

/// One step. Fields are small numbers that are reduced to what there is: a group's slot, a count, a pick.
#[allow(missing_docs)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Append an entry of `msgs` messages with bodies of `size` bytes.
    Append { group: u8, msgs: u8, size: u16 },
    /// Keep a new hard state.
    Hard { group: u8 },
    /// Take back up to `back` entries that were not applied.
    Truncate { group: u8, back: u8 },
    /// Apply up to `n` more entries.
    Apply { group: u8, n: u8 },
    /// Delete a live message, picked by number.
    Delete { group: u8, pick: u16 },
    /// Delete all messages of a subject.
    Purge { group: u8, subject: u8 },
    /// Keep a checkpoint.
    Checkpoint { group: u8 },
    /// One round of the journal, and the next file if one is due.
    Step,
    /// A flush.
    Flush,
    /// Read one message and check it.
    Read { group: u8, pick: u16 },
    /// Delete the group; a new one takes its place.
    Drop { group: u8 },
    /// The power fails.
    PowerFailure,
    /// The process dies.
    Death,
    /// The clean end.
    End,
    /// The disk has no more room than it uses.
    Fill,
    /// The disk has room again.
    Free,
    /// Delete all messages at once.
    Clear { group: u8 },
    /// A bit rots somewhere in a file of the journal (0), of the segments (1) or in a manifest slot (2).
    Rot { what: u8, file: u16, at: u32 },
    /// A file of the journal (0), of the segments (1) or a manifest slot (2) vanishes, or is cut to `keep` hundredths of its length.
    Lose { what: u8, file: u16, keep: Option<u8> },
}

/// Which disk the plan runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Power failures and process deaths.
    Crash,
    /// Also a full disk, and failing reads, writes, syncs and directory operations.
    Errors,
    /// Also flips on the way, misdirected and stale reads.
    Reads,
    /// Bits rot at rest; files vanish or are cut.
    Rot,
    /// One sync that says Ok loses, tears or misdirects a sector.
    Lies,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Feeds the disk's own draws.
    pub seed: u64,
    /// The disk.
    pub class: Class,
    /// A planted bug.
    pub mutant: Option<Mutant>,
    /// The steps.
    pub ops: Vec<Op>,
    /// Disk operations at which the power fails: before the operation, or after it.
    pub crashes: Vec<(u64, bool)>,
}

/// Groups of a plan.
pub const GROUPS: u8 = 3;

impl Plan {
    /// The plan of a seed, with `n` steps.
    pub fn random(seed: u64, n: usize, class: Class) -> Plan {
        let mut r = Rng::derived(seed, "l1 plan");
        // Swarm: what a plan does much of is drawn first.
        let weights: Vec<u64> = (0..14).map(|_| r.pick(&[0, 1, 1, 4]).copied().unwrap_or(1)).collect();
        let mut ops = Vec::with_capacity(n);
        while ops.len() < n {
            let group = r.below(u64::from(GROUPS)) as u8;
            let size = r.pick(&[0u16, 10, 100, 100, 900, 900, 2500]).copied().unwrap_or(0);
            let choices = [
                (6, Op::Append { group, msgs: r.below(5) as u8, size }),
                (8, Op::Step),
                (4 + weights[0], Op::Apply { group, n: r.between(1, 6) as u8 }),
                (1 + weights[1], Op::Flush),
                (weights[2], Op::Hard { group }),
                (weights[3], Op::Truncate { group, back: r.between(1, 3) as u8 }),
                (2 * weights[4], Op::Delete { group, pick: r.below(1 << 16) as u16 }),
                (weights[5], Op::Checkpoint { group }),
                (weights[6], Op::Read { group, pick: r.below(1 << 16) as u16 }),
                (u64::from(weights[7] > 1), Op::Purge { group, subject: r.below(4) as u8 }),
                (u64::from(weights[8] > 1), Op::Drop { group }),
                (u64::from(weights[9] > 0), Op::PowerFailure),
                (u64::from(weights[10] > 1), Op::Death),
                (if class == Class::Errors { weights[11] } else { 0 }, Op::Fill),
                (if class == Class::Errors { 1 + weights[11] } else { 0 }, Op::Free),
                (
                    if class == Class::Rot { 1 } else { 0 },
                    Op::Rot {
                        what: r.below(3) as u8,
                        file: r.below(1 << 16) as u16,
                        at: r.below(1 << 32) as u32,
                    },
                ),
                (
                    if class == Class::Rot { weights[12] } else { 0 },
                    Op::Lose {
                        what: r.below(3) as u8,
                        file: r.below(1 << 16) as u16,
                        keep: r.bool(0.7).then(|| r.below(100) as u8),
                    },
                ),
                (u64::from(weights[7] > 1), Op::Clear { group }),
                (u64::from(weights[13] > 1), Op::End),
            ];
            let mut at = r.below(choices.iter().map(|c| c.0).sum());
            for (w, op) in choices {
                if at < w {
                    ops.push(op);
                    break;
                }
                at -= w;
            }
        }
        let crashes = (0..r.below(4)).map(|_| (r.below(40 * n as u64 / 10), r.bool(0.5))).collect();
        Plan { seed, class, mutant: None, ops, crashes }
    }

    /// The plan of a seed on one of the disks, most often one that only loses power.
    pub fn mixed(seed: u64, n: usize) -> Plan {
        let class = match seed % 10 {
            0..=4 => Class::Crash,
            5 | 6 => Class::Errors,
            7 => Class::Reads,
            8 => Class::Rot,
            _ => Class::Lies,
        };
        Plan::random(seed, n, class)
    }

    /// Whether flushes run next to other operations instead of at once.
    pub fn interleaves(&self) -> bool {
        Rng::derived(self.seed, "l1 interleaving").bool(0.5)
    }

    /// Whether most appends wait for no sync of their own. Not where the disk loses what it said was synced: which rounds nothing vouches for yet, so that they
    /// cannot be told from torn ones, is known to the model for rounds with a sync each.
    pub fn relaxes(&self) -> bool {
        let honest = !matches!(self.class, Class::Rot | Class::Lies);
        honest && Rng::derived(self.seed, "l1 relaxed").bool(0.3)
    }

    /// Which key the store's nth life seals with; `None` for none. None ever in most plans, replaced now and then in the others, which may
    /// begin without one.
    pub fn turn(&self, life: u64) -> Option<u64> {
        let mut r = Rng::derived(self.seed, "l1 keys");
        if !r.bool(0.25) {
            return None;
        }
        let turn = life / r.between(2, 5);
        let plain_first = r.bool(0.3);
        if plain_first { turn.checked_sub(1) } else { Some(turn) }
    }

    /// The keys of the store's nth life: the newest first, down to the one of the last life that published a manifest.
    fn keys(&self, life: u64, since: u64) -> Keys {
        let ciphers = [Cipher::ChaCha, Cipher::Aes];
        let key = |n: u64| Key::new(ciphers[n as usize % 2], format!("key {n}").as_bytes());
        Keys(self.turn(life).map_or(vec![], |turn| (since.min(turn)..=turn).rev().map(key).collect()))
    }

    /// The store's settings in its nth life: small, so that files turn over within a plan. Earlier keys than `since` are not configured any more.
    pub fn options(&self, life: u64, since: u64) -> Options {
        let mut r = Rng::derived(self.seed, "l1 options");
        let mut bulk = Rng::derived(self.seed, "l1 bulk");
        let in_bulk = bulk.bool(0.3);
        let pick = |r: &mut Rng, v: &[u64]| r.pick(v).copied().unwrap_or(v[0]);
        Options {
            shards: 1,
            sector: 512,
            journal_file_min: pick(&mut r, &[8 << 10, 16 << 10]),
            journal_file_max: pick(&mut r, &[32 << 10]),
            journal_budget: pick(&mut r, &[128 << 10, 256 << 10]),
            flush_bytes: 1 << 30,
            reserve: 2048,
            own_file_bytes: pick(&mut r, &[1, 2048, 1 << 20]),
            small_piece: pick(&mut r, &[256, 4096]),
            merge_at: pick(&mut r, &[2, 3]) as usize,
            rewrite_below_percent: pick(&mut r, &[45, 90]),
            block: pick(&mut r, &[200, 1000]) as usize,
            footer_cache: pick(&mut r, &[1, 1 << 20]) as usize,
            block_cache: pick(&mut r, &[1, 1 << 20]) as usize,
            compress: r.bool(0.3),
            subjects_saved_min: 1,
            keys: self.keys(life, since),
            reseal_bytes: pick(&mut r, &[1, 1 << 20]),
            refer_min: pick(&mut r, &[500, 500, 1 << 20]) as usize,
            refer_synced_min: pick(&mut r, &[1, 4000]),
            early_max: pick(&mut r, &[3000, 20_000]),
            refer_entry_min: if in_bulk { pick(&mut bulk, &[300, 2000]) } else { u64::MAX },
            refer_message_min: pick(&mut bulk, &[1, 100]),
            threads: false,
            mutant: self.mutant,
            ..Options::default()
        }
    }
}
