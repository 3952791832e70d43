//! What one seed does: sizes, options of the core, and which faults at which rates (swarm: each class is off in about half
//! of the seeds).

use std::sync::Arc;

use raft::Options;

use super::rng::Rng;

/// A millisecond in nanoseconds.
pub const MS: u64 = 1_000_000;

/// All that is drawn before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Machines; some begin outside the group.
    pub machines: u64,
    /// Voters at the start.
    pub voters: u64,
    /// Length of the storm, simulated nanoseconds.
    pub storm_ns: u64,
    /// Options of every core.
    pub options: Arc<Options>,
    /// Whether nodes give each other support, or groups rely on heartbeats of their own.
    pub table: bool,
    /// How long support is granted, nanoseconds.
    pub grant_ns: u64,
    /// Per mille of messages lost, and sent twice.
    pub loss: u64,
    /// Per mille of messages sent twice.
    pub duplicate: u64,
    /// Longest delay of a message, nanoseconds.
    pub delay_ns: u64,
    /// Longest time of a disk write, nanoseconds.
    pub write_ns: u64,
    /// Mean time between two of each kind of trouble, nanoseconds; 0 for never.
    pub crash_ns: u64,
    /// Partitions.
    pub partition_ns: u64,
    /// Pauses of a process.
    pub pause_ns: u64,
    /// Changes of membership.
    pub change_ns: u64,
    /// Transfers of leadership.
    pub transfer_ns: u64,
    /// Wiped disks.
    pub wipe_ns: u64,
    /// Damaged entries, found at a restart or by a scrub.
    pub damage_ns: u64,
    /// Groups that are ill on one node.
    pub ill_ns: u64,
    /// Attack on whoever leads: crash, pause or isolate.
    pub hunt_ns: u64,
    /// Mean time between proposals, and between reads.
    pub propose_ns: u64,
    /// Mean time between reads.
    pub read_ns: u64,
    /// Entries after which a node makes a checkpoint.
    pub checkpoint_every: u64,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut r = Rng::new(seed, 1);
        let voters = r.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5]);
        let machines = voters + r.pick(&[0, 0, 1, 2]);
        let grant_ns = 150 * MS;
        let tiny = r.chance(400);
        let options = Options {
            election_ns: 150 * MS,
            resend_ns: 40 * MS,
            message_bytes_max: if tiny { 150 } else { 4096 },
            inflight_count_max: if tiny { r.between(1, 3) as usize } else { 32 },
            inflight_bytes_max: if tiny { 300 } else { 1 << 20 },
            uncommitted_bytes_max: if tiny { 600 } else { 1 << 20 },
            unapplied_bytes_max: if tiny { 900 } else { 1 << 20 },
            apply_bytes_max: if tiny { 80 } else { 4096 },
            apply_entries_max: r.between(1, 20),
            cache_bytes_max: r.pick(&[0, 400, 1 << 20]),
            reads_max: r.pick(&[2, 100]),
            // Clocks run apart by up to 4 %, and grants last 150 ms.
            drift_ns: 8 * MS,
            promote_lag_max: r.pick(&[0, 3, 100]),
            transfer_ns: 150 * MS,
        };
        let off = |r: &mut Rng, mean: u64| if r.chance(500) { 0 } else { r.between(mean / 2, mean * 2) };
        Self {
            machines,
            voters,
            storm_ns: r.between(4_000, 12_000) * MS,
            options: Arc::new(options),
            table: r.chance(750),
            grant_ns,
            loss: if r.chance(500) { 0 } else { r.pick(&[10, 50, 200]) },
            duplicate: if r.chance(500) { 0 } else { r.pick(&[10, 100]) },
            delay_ns: r.pick(&[MS, 5 * MS, 30 * MS, 120 * MS]),
            write_ns: r.pick(&[MS, 5 * MS, 30 * MS]),
            crash_ns: off(&mut r, 700 * MS),
            partition_ns: off(&mut r, 700 * MS),
            pause_ns: off(&mut r, 900 * MS),
            change_ns: off(&mut r, 300 * MS),
            transfer_ns: off(&mut r, 500 * MS),
            wipe_ns: off(&mut r, 2500 * MS),
            damage_ns: off(&mut r, 900 * MS),
            ill_ns: off(&mut r, 1500 * MS),
            hunt_ns: if r.chance(300) { 0 } else { r.pick(&[60, 100, 200, 500]) * MS },
            propose_ns: r.pick(&[5, 20, 40, 100]) * MS,
            read_ns: r.pick(&[10, 50]) * MS,
            checkpoint_every: r.pick(&[3, 20, 1000]),
        }
    }
}
