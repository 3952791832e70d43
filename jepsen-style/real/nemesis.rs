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
    /// From its next start on the node runs the newer version.
    Upgrade(usize),
}

/// Faults of a storm: drawn from the seed, one after another and now and then two at a time, each undone before the end. About half of
/// the kinds are on in a storm, so that each is also met without the others.
///
/// Whatever takes something from a disk (an empty one, flipped bits, a loss of power) happens to one node only, the same in the
/// whole storm: what a majority has acknowledged stays on a majority's disks, and nothing excuses a loss.
pub fn draw(seed: u64, nodes: usize, load_ms: u64, power: bool) -> Vec<(u64, Fault)> {
    const KINDS: u64 = 9;
    let mut dice = Dice::new(seed ^ 0x5707_3357);
    let victim = dice.below(nodes as u64) as usize;
    let mut on: Vec<u64> = (0..KINDS).filter(|_| dice.below(2) == 0).collect();
    if on.is_empty() {
        on.push(dice.below(KINDS));
    }
    let mut all: Vec<(u64, Fault)> = Vec::new();
    let mut at = 1_000 + dice.below(1_000);
    // When each node is free again for something that happens to its process, and the links for another shape.
    let (mut busy, mut links_busy, mut spoiled) = (vec![0; nodes], 0, false);
    while at + 3_000 < load_ms {
        let kind = on[dice.below(on.len() as u64) as usize];
        let node = dice.below(nodes as u64) as usize;
        let other = (node + 1 + dice.below(nodes as u64 - 1) as usize) % nodes;
        let end = at + 200 + dice.below(2_000);
        let mut process = |node: usize, busy: &mut Vec<u64>, faults: Vec<(u64, Fault)>| {
            // Two of three may be away at once, since that must only cost time.
            if busy[node] < at {
                busy[node] = end + 200;
                all.extend(faults);
            }
        };
        match kind {
            0 => process(node, &mut busy, vec![(at, Fault::Kill(node)), (end, Fault::Start(node))]),
            1 => process(node, &mut busy, vec![(at, Fault::Stop(node)), (end, Fault::Start(node))]),
            2 => process(node, &mut busy, vec![(at, Fault::Pause(node)), (end, Fault::Resume(node))]),
            3..=5 if links_busy < at => {
                links_busy = end + 1;
                let way = match kind {
                    3 => Fault::Isolate(node),
                    4 => Fault::Cut(node, other),
                    _ => Fault::Slow { delay_ms: 5 + dice.below(60), loss: dice.below(80) as u32 },
                };
                all.extend([(at, way), (end, Fault::Heal)]);
            }
            // A node that has lost its disk needs time to get it back from the others before the next may go.
            6 if !spoiled => {
                spoiled = true;
                let wipe =
                    [(at, Fault::Stop(victim)), (at + 100, Fault::Wipe(victim)), (end, Fault::Start(victim))];
                process(victim, &mut busy, wipe.to_vec());
            }
            7 if !spoiled => {
                spoiled = true;
                let flip = Fault::Flip(victim, Target::Messages, 1 + dice.below(20));
                process(
                    victim,
                    &mut busy,
                    vec![(at, flip), (at + 50, Fault::Kill(victim)), (end, Fault::Start(victim))],
                );
            }
            8 if power => {
                // Links of a dead machine are healed when it is plugged in again.
                links_busy = links_busy.max(end + 1);
                process(
                    victim,
                    &mut busy,
                    vec![(at, Fault::Unplug(vec![victim])), (end, Fault::Start(victim))],
                );
            }
            _ => {}
        }
        at += if dice.below(4) == 0 { 100 } else { 500 + dice.below(2_500) };
    }
    all.sort_by_key(|f| f.0);
    all
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
        Fault::Upgrade(i) => c.nodes[*i].old = false,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storms_are_drawn_from_their_seed_and_undo_what_they_do() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let storm = draw(seed, 3, 20_000, true);
            assert_eq!(storm, draw(seed, 3, 20_000, true));
            assert!(storm.windows(2).all(|w| w[0].0 <= w[1].0) && storm.iter().all(|f| f.0 < 20_000));
            let (mut down, mut still) = ([false; 3], [false; 3]);
            let mut spoiled = std::collections::BTreeSet::new();
            for (_, f) in &storm {
                kinds.insert(format!("{f:?}").split(['(', ' ']).next().unwrap_or_default().to_owned());
                match f {
                    Fault::Kill(i) | Fault::Stop(i) => down[*i] = true,
                    Fault::Unplug(which) => {
                        which.iter().for_each(|i| down[*i] = true);
                        spoiled.extend(which.iter().copied());
                    }
                    Fault::Start(i) => assert!(std::mem::take(&mut down[*i]), "{storm:?}"),
                    Fault::Pause(i) => still[*i] = true,
                    Fault::Resume(i) => assert!(std::mem::take(&mut still[*i]), "{storm:?}"),
                    Fault::Wipe(i) => {
                        assert!(down[*i], "a disk is emptied under a node that stands still: {storm:?}");
                        spoiled.insert(*i);
                    }
                    Fault::Flip(i, ..) => {
                        spoiled.insert(*i);
                    }
                    _ => {}
                }
            }
            assert!(!down.contains(&true) && !still.contains(&true), "{storm:?}");
            assert!(spoiled.len() <= 1, "more than one disk is harmed: {storm:?}");
            assert!(draw(seed, 3, 20_000, false).iter().all(|f| !matches!(f.1, Fault::Unplug(_))));
        }
        let want = [
            "Cut", "Flip", "Heal", "Isolate", "Kill", "Pause", "Resume", "Slow", "Start", "Stop", "Unplug",
            "Wipe",
        ];
        assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), want);
    }
}
