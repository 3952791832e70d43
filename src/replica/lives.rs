//! Lives of replicas: the numbers that tell a replica that forgot from the one that it was.
//!
//! Owns a counter of this node, durable before a number is used. A node is one machine with one store and has one id for good; a *replica* of a group on
//! it is named by that id and an incarnation. The first members of a group have incarnation 0. Whoever comes to a group later, or comes
//! back to it with nothing, gets the next number: it must not be taken for one that acknowledged what it does not have.
//!
//! The counter is in the store, and goes with its journal. What it had come to then is not known, so each time that rounds are lost it goes on above a floor that is
//! higher than the one before, and that the layer above keeps apart from the store: a second loss would find the counter where the first one had.
//!
//! - D-9: two lives of a replica that do not remember each other never have the same name.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::NodeId;

use crate::{BoxFuture, options::Error, replicas::Shared};

/// The group under whose hard state the counter is kept. No group of the layer above has this id.
pub(crate) const COUNTER: store::GroupId = store::GroupId(0);
const VERSION: u8 = 1;
/// More numbers than are given between two floors: a number is a round of the journal. There are 4095 floors.
const LOST_MAX: u32 = 1 << 20;

/// Makes a floor durable, apart from the store; the error says why it could not.
pub type KeepFloor = Box<dyn Fn(u32) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What is known of the numbers beside what the store says.
#[derive(Default)]
pub(crate) struct Numbers {
    /// Some may have been given that the store does not know any more.
    pub unsure: bool,
    /// The floor was raised for that in this life, and the counter not written since.
    pub raised: bool,
    /// All that were given before rounds were lost last are below.
    pub floor: u32,
    pub keep: Option<KeepFloor>,
}

/// The machine that a replica is on: what the layers above and the links know.
pub(crate) fn node(replica: NodeId) -> NodeId {
    NodeId::new(replica.id, 0)
}

fn encode(n: u32) -> Bytes {
    let mut b = BytesMut::with_capacity(5);
    b.put_u8(VERSION);
    b.put_u32_le(n);
    b.freeze()
}

fn decode(mut b: &[u8]) -> Option<u32> {
    if b.is_empty() {
        return Some(0);
    }
    (b.len() == 5 && b.get_u8() == VERSION).then(|| b.get_u32_le())
}

impl Shared {
    /// A number that no replica of this node ever had (D-9). Returns when that is durable.
    ///
    /// # Errors
    /// The store's; or the counter is damaged, and with it the knowledge of what was given.
    pub(crate) async fn next_incarnation(&self) -> Result<u32, Error> {
        self.count(1, true).await
    }
    /// Passes over the numbers that may be lost, and returns when that is durable.
    ///
    /// # Errors
    /// As [`Shared::next_incarnation`].
    pub(crate) async fn settle_numbers(&self) -> Result<(), Error> {
        self.count(0, true).await.map(|_| ())
    }
    /// Writes the counter as it is, and returns when that is durable.
    ///
    /// # Errors
    /// As [`Shared::next_incarnation`].
    pub(crate) async fn probe(&self) -> Result<(), Error> {
        self.count(0, false).await.map(|_| ())
    }
    async fn count(&self, by: u32, settle: bool) -> Result<u32, Error> {
        let mut numbers = self.counting.lock().await;
        let (group, made) = match self.store.group(COUNTER) {
            Ok(g) => (g, None),
            Err(store::Error::NoGroup(_)) => {
                let (g, made) = self.store.create(COUNTER, false, &[])?;
                (g, Some(made))
            }
            Err(e) => return Err(e.into()),
        };
        let unfit = |why: &str| Error::Unfit(format!("the counter of this node's replicas {why}"));
        let last = decode(&group.known_hard_state()).ok_or_else(|| unfit("is damaged"))?;
        let mut next = last.max(numbers.floor);
        // What is written hides from the next life that something is gone.
        let lost = (group.hard_state().is_none() || numbers.unsure && settle) && !numbers.raised;
        if lost {
            next = next.checked_add(LOST_MAX).ok_or_else(|| unfit("has come to its end"))?;
        }
        // Also when so many were given since.
        if lost || next >= numbers.floor.saturating_add(LOST_MAX) {
            if let Some(keep) = &numbers.keep {
                keep(next).await.map_err(|e| unfit(&format!("could not be raised: {e}")))?;
            }
            (numbers.floor, numbers.raised) = (next, lost);
        }
        next = next.checked_add(by).ok_or_else(|| unfit("has come to its end"))?;
        let written = group.set_hard_state(encode(next))?;
        if let Some(made) = made {
            made.durable().await?;
        }
        written.durable().await?;
        if settle || lost {
            group.trust();
        }
        numbers.unsure &= !settle;
        numbers.raised &= numbers.unsure;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    };

    use env::{
        Rng,
        simdisk::{Options as DiskOptions, SimDisk},
    };
    use store::{Disk, Options, Store, io::SimHandle};

    use super::*;
    use crate::Replicas;

    #[test]
    fn golden_counter() {
        assert_eq!(encode(0x0102)[..], [1, 2, 1, 0, 0]);
        assert_eq!((decode(&encode(7)), decode(&[])), (Some(7), Some(0)));
        assert!((1..5).all(|n| decode(&encode(7)[..n]).is_none()));
    }

    /// D-9: the store is as it was before any number was given, once and again.
    #[test]
    fn d9_a_second_loss_gives_no_number_of_the_first_again() {
        env::run(async {
            let kept = Arc::new(AtomicU32::new(0));
            let mut given = Vec::new();
            for life in 0..3 {
                let mut options = DiskOptions::default();
                options.rates.clear();
                let disk = SimHandle::new(SimDisk::new(options, Rng::derived(life, "disk")), true);
                let store = Store::open(Disk::Sim(disk), "/s", Options::default()).await.expect("it opens");
                let replicas = Replicas::new(store, NodeId::new(1, 0), crate::Options::default());
                replicas.spawn();
                let keeps = kept.clone();
                let keep: KeepFloor = Box::new(move |floor| {
                    keeps.store(floor, Relaxed);
                    Box::pin(async { Ok(()) })
                });
                replicas.keep_numbers(kept.load(Relaxed), life > 0, keep).await;
                // Somebody who looks whether the disk is well settles nothing.
                replicas.probe().await.expect("the disk is well");
                if life == 2 {
                    replicas.settle_numbers().await.expect("it is kept");
                }
                for _ in 0..3 {
                    given.push(replicas.0.next_incarnation().await.expect("a number"));
                }
                assert_eq!(kept.load(Relaxed), u32::try_from(life).expect("small") * LOST_MAX, "once a loss");
                replicas.close().await.expect("it closes");
            }
            assert!(given.is_sorted_by(|a, b| a < b), "{given:?}");
            assert_eq!((given[2], given[8]), (3, kept.load(Relaxed) + 3));
        })
        .expect("a runtime starts");
    }
}
