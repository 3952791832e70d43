//! Faults as data, and how each is done.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Wrong,
    cluster::Cluster,
    damage::{self, Dice, Target},
    links::Link,
    recorder::Recorder,
};
use crate::history::{HARNESS, Op};

/// What is done to the nodes; they are counted from 0.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// SIGKILL.
    Kill(usize),
    /// SIGTERM, and wait.
    Stop(usize),
    /// Start again.
    Start(usize),
    /// SIGSTOP.
    Pause(usize),
    /// SIGCONT.
    Resume(usize),
    /// These lose power together; starting one plugs it in again.
    Unplug(Vec<usize>),
    /// Nothing passes from one to the other.
    Cut(usize, usize),
    /// Nothing passes to or from one.
    Isolate(usize),
    /// All links are slow and lose.
    Slow {
        /// Milliseconds each way.
        delay_ms: u64,
        /// Lost in 1000.
        loss: u32,
    },
    /// All links are well again.
    Heal,
    /// Bits are flipped.
    Flip(usize, Target, u64),
    /// Bytes are cut from the ends of the largest files (how many files, how many bytes).
    Truncate(usize, Target, usize, u64),
    /// The disk is filled.
    Fill(usize),
    /// And has room again.
    Free(usize),
    /// The disk is emptied; the node must be down.
    Wipe(usize),
}

/// Does one thing, and notes it.
///
/// # Errors
/// It could not be done: then the run says nothing about it.
pub async fn apply(c: &mut Cluster, f: &Fault, dice: &mut Dice, rec: &Recorder) -> Result<(), Wrong> {
    rec.note(HARNESS, Op::Fault { what: format!("{f:?}") });
    let each = |c: &Cluster, link: Link| {
        let n = c.nodes.len();
        let pairs = (0..n).flat_map(|a| (0..n).map(move |b| (a, b)));
        pairs.filter(|(a, b)| a != b).for_each(|(a, b)| c.links.iter().for_each(|l| l.set(a, b, link)));
    };
    match f {
        Fault::Kill(i) => c.kill(*i),
        Fault::Stop(i) => c.stop(*i).await,
        Fault::Start(i) => c.start(*i)?,
        Fault::Pause(i) => c.pause(*i),
        Fault::Resume(i) => c.resume(*i),
        Fault::Unplug(which) => c.unplug(which)?,
        Fault::Cut(a, b) => {
            c.links.iter().for_each(|l| l.set(*a, *b, Link { cut: true, ..Link::default() }));
        }
        Fault::Isolate(i) => c.links.iter().for_each(|l| l.isolate(*i)),
        Fault::Slow { delay_ms, loss } => {
            let delay = Duration::from_millis(*delay_ms);
            each(c, Link { delay, loss: *loss, cut: false });
        }
        Fault::Heal => c.links.iter().for_each(|l| l.heal()),
        Fault::Flip(i, target, count) => {
            let n = damage::flip(&c.nodes[*i].disk.data(), *target, *count, dice)?;
            if n == 0 {
                return Err("no bit could be flipped".into());
            }
        }
        Fault::Truncate(i, target, count, bytes) => {
            damage::truncate(&c.nodes[*i].disk.data(), *target, *count, *bytes)?;
        }
        Fault::Fill(i) => c.nodes[*i].disk.fill()?,
        Fault::Free(i) => c.nodes[*i].disk.free()?,
        Fault::Wipe(i) => c.nodes[*i].disk.wipe()?,
    }
    Ok(())
}

/// Does each fault at its time (milliseconds from now), then waits until `end_ms`.
///
/// # Errors
/// The first that could not be done.
pub async fn storm(
    c: &mut Cluster,
    faults: &[(u64, Fault)],
    end_ms: u64,
    dice: &mut Dice,
    rec: &Recorder,
) -> Result<(), Wrong> {
    let begun = Instant::now();
    for (at, f) in faults {
        tokio::time::sleep_until(begun + Duration::from_millis(*at)).await;
        apply(c, f, dice, rec).await.map_err(|e| format!("{f:?}: {e}"))?;
    }
    tokio::time::sleep_until(begun + Duration::from_millis(end_ms)).await;
    Ok(())
}
