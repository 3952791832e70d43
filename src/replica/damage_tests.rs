//! Damage to a node's files between two lives of it: alone it loses what was damaged and says so; among three it loses nothing.

use std::{collections::BTreeSet, time::Duration};

use env::{
    Rng,
    simdisk::{Options as DiskOptions, SimDisk},
};
use store::{Disk, Store, io::SimHandle};

use crate::{
    GroupId, NodeId, Options, Others, Replicas,
    cluster_tests::{Cluster, GROUP},
    tests::{List, ME, small_store, start},
};

/// Journal and segment files in which something stands, with where that ends.
fn files(disk: &SimHandle) -> Vec<(String, u64)> {
    disk.with(|d| {
        let all = d.files().into_iter().filter(|f| f.contains("/journal/") || f.contains("/segments/"));
        let end = |f: String| {
            let len = d.stat(&f).expect("it is there").len;
            let b = d.pristine(&f, 0..len).expect("it is there");
            b.iter().rposition(|b| *b != 0).map(|i| (f, i as u64 + 1))
        };
        all.filter_map(end).collect()
    })
}

fn flip(disk: &SimHandle, rng: &mut Rng, count: u64) {
    let all = files(disk);
    for _ in 0..count {
        let (path, end) = rng.pick(&all).expect("something was written").clone();
        let at = rng.below(end);
        disk.with(|d| d.rot(&path, at, (at % 8) as u8)).ok();
    }
}

/// Cuts the fullest journal file somewhere in its last part.
fn cut(disk: &SimHandle, rng: &mut Rng) {
    cut_off(disk, rng.between(1, 6000));
}

/// Cuts that many bytes of the fullest journal file off, at most all that is in it.
fn cut_off(disk: &SimHandle, bytes: u64) {
    let all = files(disk).into_iter().filter(|f| f.0.contains("/journal/"));
    let (path, end) = all.max_by_key(|f| f.1).expect("something was written");
    let keep = end.saturating_sub(bytes).max(600);
    disk.with(|d| d.damage_file(&path, Some(keep))).expect("it is there");
}

async fn open(disk: &SimHandle) -> Replicas {
    let store = Store::open(Disk::Sim(disk.clone()), "/s", small_store()).await.expect("it opens");
    let options = Options { checkpoint_bytes: 20 << 10, ..Options::default() };
    let replicas = Replicas::new(store, ME, options);
    replicas.spawn();
    replicas
}

/// A sole member: two lives with damage in between, and a third.
async fn alone(seed: u64) -> usize {
    let mut rng = Rng::derived(seed, "alone");
    let mut options = DiskOptions { sector: 512, ..DiskOptions::default() };
    options.rates.clear();
    let disk = SimHandle::new(SimDisk::new(options, Rng::derived(seed, "disk")), true);
    let replicas = open(&disk).await;
    let list = start(&replicas, 1).await.expect("new");
    list.until(List::leads).await;
    let mut next = 0;
    for _ in 0..rng.between(5, 60) {
        list.pad(rng.below(700) as usize);
        for _ in 0..rng.between(1, 9) {
            next += 1;
            list.publish(next);
        }
        let last = next;
        list.until(|l| l.acked().last() == Some(&last)).await;
    }
    // One more round vouches for all before it.
    next += 1;
    list.publish(next);
    let last = next;
    list.until(|l| l.acked().last() == Some(&last)).await;
    let before = list.handle().store().state().last;
    let acked: BTreeSet<u64> = list.acked().into_iter().collect();
    drop(list);
    replicas.abandon();
    disk.with(|d| d.process_death());
    // The old life must not write to the new one's files: a shard that failed to write does nothing more.
    replicas.store().create(store::GroupId(1 << 40), false, &[]).ok();
    assert!(replicas.store().step().await.is_err(), "its files are closed");
    drop(replicas);

    let cuts = rng.bool(0.3);
    if cuts {
        cut(&disk, &mut rng)
    } else {
        flip(&disk, &mut rng, 3)
    }
    let replicas = open(&disk).await;
    let torn = replicas.store().torn_tail();
    let list = start(&replicas, 1).await.expect("a sole member opens whatever is damaged");
    list.until(List::leads).await;
    let applied: BTreeSet<u64> = list.applied().into_iter().collect();
    let gone = acked.difference(&applied).count();
    let group = list.handle().store().clone();
    let named: u64 = group
        .lost()
        .iter()
        .map(|l| if l.first_seq.0 == 0 { l.last.0 - l.first.0 + 1 } else { l.last_seq.0 - l.first_seq.0 + 1 })
        .sum();
    assert!(
        gone as u64 <= named || torn,
        "D-13: seed {seed}: {gone} are gone, {named} are named: {:?}",
        group.lost()
    );
    assert!(cuts || torn || gone <= 3 * 10, "seed {seed}: three bits took {gone}");
    let state = group.state();
    assert!(
        state.last >= before || torn,
        "seed {seed}: sequences go on behind {}: {}",
        before.0,
        state.last.0
    );
    for _ in 0..20 {
        next += 1;
        list.publish(next);
    }
    let last = next;
    list.until(|l| l.acked().last() == Some(&last)).await;
    let applied = list.applied();
    replicas.close().await.expect("a healthy store flushes");
    replicas.store().clone().close().await.expect("a healthy store closes");
    drop((list, group, replicas));

    let replicas = open(&disk).await;
    let list = start(&replicas, 1).await.expect("it opens");
    list.until(List::leads).await;
    assert_eq!(list.applied(), applied, "seed {seed}: what was given up stays so, the rest is there");
    list.handle().store().verify().await.expect("a well disk");
    replicas.close().await.expect("a healthy store flushes");
    gone
}

#[test]
fn d11_a_sole_member_loses_what_was_damaged_and_no_more() {
    env::run(async {
        let mut gone = 0;
        for seed in 0..40 {
            gone += env::timeout(Duration::from_secs(30), alone(seed)).await.expect("no seed hangs");
        }
        assert!(gone > 0, "no damage met anything");
    })
    .expect("a runtime starts");
}

/// Three nodes under load; one of them is killed, its files are damaged, and it comes back.
async fn minority(seed: u64, cuts: bool) {
    let mut c = Cluster::new(seed, 3, 0).await;
    c.settle().await;
    for turn in 0..2 {
        for _ in 0..40 {
            c.publish(5);
            env::sleep(Duration::from_millis(2)).await;
        }
        let ids: Vec<_> = c.ids();
        let id = *c.rng.pick(&ids).expect("there are three");
        c.crash(id).await;
        let disk = c.disk(id);
        if cuts && turn == 0 {
            cut(&disk, &mut c.rng);
        } else {
            flip(&disk, &mut c.rng, 3);
        }
        c.publish(10);
        c.start(id).await;
        for _ in 0..20 {
            c.publish(5);
            env::sleep(Duration::from_millis(5)).await;
        }
        c.settle().await;
        // It is whole again, and may lead.
        let handle = c.list(id).handle();
        let mut whole = false;
        for _ in 0..500 {
            whole = !handle.status().damaged && handle.store().holes().is_empty();
            if whole {
                break;
            }
            env::sleep(Duration::from_millis(20)).await;
        }
        assert!(whole, "seed {seed}: {:?} {:?}", handle.status(), handle.store().holes());
        let mut leads = false;
        for _ in 0..200 {
            if let Some(l) = c.leader().filter(|l| *l != id) {
                c.list(l).handle().transfer(id);
            }
            leads = env::timeout(Duration::from_millis(100), c.list(id).until(List::leads)).await.is_ok();
            if leads {
                break;
            }
        }
        assert!(leads, "seed {seed}: D-12: it may lead once it has caught up");
        c.settle().await;
        assert!(c.list(id).handle().store().lost().is_empty(), "a member of several gives nothing up");
    }
    assert_eq!(GROUP, GroupId(1));
    c.close().await;
}

#[test]
fn a_damaged_minority_is_mended_and_nothing_acknowledged_is_lost() {
    env::run(async {
        for seed in 0..3 {
            env::timeout(Duration::from_secs(60), minority(seed, false)).await.expect("no seed hangs");
        }
    })
    .expect("a runtime starts");
}

#[test]
fn d12_a_member_whose_journal_was_cut_votes_for_nobody_before_it_has_caught_up() {
    env::run(async {
        for seed in 10..12 {
            env::timeout(Duration::from_secs(60), minority(seed, true)).await.expect("no seed hangs");
        }
    })
    .expect("a runtime starts");
}

/// D-16: a segment goes bad under a running server, and what stood in it is above the checkpoint and waited for a leader to be applied: the others have it.
#[test]
fn d16_what_cannot_be_applied_any_more_comes_from_the_others() {
    env::run(async {
        for seed in 50..53 {
            env::timeout(Duration::from_secs(60), bad_before_it_is_applied(seed))
                .await
                .expect("no seed hangs");
        }
    })
    .expect("a runtime starts");
}

async fn bad_before_it_is_applied(seed: u64) {
    let mut c = Cluster::new(seed, 3, 0).await;
    c.settle().await;
    for _ in 0..20 {
        c.publish(5);
        env::sleep(Duration::from_millis(2)).await;
    }
    c.settle().await;
    let ids = c.ids();
    let (id, others) = (ids[0], &ids[1..]);
    // Without a checkpoint.
    c.replicas(id).store().flush().await.expect("it flushes");
    for id in &ids {
        c.crash(*id).await;
    }
    c.start(id).await;
    let handle = c.list(id).handle();
    let (applied, last) = (handle.status().applied.0, handle.status().last.0);
    assert!(applied < last, "it knows of nobody who has them too");
    let disk = c.disk(id);
    let segments: Vec<_> = files(&disk).into_iter().filter(|f| f.0.contains("/segments/")).collect();
    assert!(!segments.is_empty());
    // Not read before: what was read stays in memory.
    for (path, end) in segments {
        for at in (0..end).step_by(64) {
            disk.with(|d| d.rot(&path, at + c.rng.below(64), 3)).ok();
        }
    }
    let read = handle.store().entries(store::LogIndex(applied + 1), u64::MAX).await;
    assert!(matches!(read, Err(store::Error::Damaged(_))), "seed {seed}: {read:?}");
    for id in others {
        c.start(*id).await;
    }
    c.settle().await;
    assert_eq!(handle.status().stopped, None);
    while handle.status().damaged || handle.status().applied < handle.status().last {
        env::sleep(Duration::from_millis(20)).await;
    }
    assert!(handle.store().holes().is_empty() && handle.store().lost().is_empty());
    drop(handle);
    c.close().await;
}

/// D-12: what was forgotten stays forgotten in the next life, which finds a log without a gap and a hard state that is newer than the loss.
#[test]
fn d12_doubt_outlives_a_restart() {
    env::run(async {
        let mut c = Cluster::new(31, 3, 0).await;
        c.settle().await;
        for _ in 0..40 {
            c.publish(5);
            env::sleep(Duration::from_millis(2)).await;
        }
        c.settle().await;
        let ids = c.ids();
        for id in &ids {
            c.crash(*id).await;
        }
        let (id, other) = (ids[0], ids[1]);
        cut(&c.disk(id), &mut c.rng);
        c.start(id).await;
        let handle = c.list(id).handle();
        assert!(handle.status().damaged, "the end of its journal is gone");
        // Somebody leads and gives it one entry; then it ends.
        let (index, term, chain) = handle.store().last();
        let (before, term) = (raft::Chain(chain.0), raft::Term(term.0 + 1));
        let entry = raft::Entry::after(
            before,
            raft::LogIndex(index.0 + 1),
            term,
            raft::EntryKind::Empty,
            0,
            Default::default(),
        );
        let append = raft::Append {
            prev: raft::LogIndex(index.0),
            prev_term: raft::Term(term.0 - 1),
            prev_chain: Some(before),
            entries: vec![entry],
            commit: raft::LogIndex(1),
            round: 0,
        };
        let (group, body) = (raft::GroupId(GROUP.0), raft::Body::Append(append));
        handle.0.post(raft::Event::Message(raft::Message { group, from: other, to: id, term, body }));
        while handle.status().durable.0 <= index.0 {
            env::sleep(Duration::from_millis(2)).await;
        }
        assert!(handle.status().damaged);
        drop(handle);
        c.crash(id).await;
        c.start(id).await;
        let status = c.list(id).handle().status();
        assert_eq!((status.term.0, status.last.0), (term.0, index.0 + 1), "it found what it was given");
        assert!(status.damaged, "and still does not know what it acknowledged before");
        for id in &ids[1..] {
            c.start(*id).await;
        }
        c.settle().await;
        let handle = c.list(id).handle();
        while handle.status().damaged {
            env::sleep(Duration::from_millis(20)).await;
        }
        c.close().await;
    })
    .expect("a runtime starts");
}

/// Three voters and one that came later, which has all that they have and no checkpoint yet.
async fn with_newcomer(seed: u64) -> (Cluster, NodeId) {
    let mut c = Cluster::new(seed, 3, 1).await;
    let ids = c.ids();
    c.reach(&ids).await;
    for _ in 0..10 {
        c.publish(3);
        env::sleep(Duration::from_millis(2)).await;
    }
    c.settle().await;
    assert_eq!(c.list(ids[3]).handle().store().applied().1.index.0, 0, "it has no checkpoint yet");
    (c, ids[3])
}

/// What one that came later was made with names no voter: that does not make it the only member, which gives up what it cannot read.
#[test]
fn d12_a_newcomer_whose_journal_was_cut_is_not_alone() {
    env::run(async {
        let (mut c, id) = with_newcomer(37).await;
        c.crash(id).await;
        cut(&c.disk(id), &mut c.rng);
        c.start(id).await;
        let handle = c.list(id).handle();
        assert!(handle.status().damaged, "the end of its journal is gone, and it is no member alone");
        c.settle().await;
        while handle.status().damaged {
            env::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(handle.status().stopped, None);
        c.close().await;
    })
    .expect("a runtime starts");
}

/// Nothing says any more on what the log of one that came later stands: neither what it was made with, nor a checkpoint, nor its first entry. It comes back as
/// another life.
#[test]
fn d9_a_newcomer_without_its_first_entry_comes_as_another_life() {
    env::run(async {
        let (mut c, id) = with_newcomer(41).await;
        let handle = c.list(id).handle();
        let (life, group) = (handle.life(), handle.store().clone());
        let first = group.entries(store::LogIndex(1), 1).await.expect("it is there").remove(0);
        drop((handle, group));
        c.crash(id).await;
        assert!(!c.orphans.contains(&id));
        let disk = c.disk(id);
        let mut hits = 0;
        for (path, end) in files(&disk) {
            let bytes = disk.with(|d| d.pristine(&path, 0..end)).expect("it is there");
            let places =
                bytes.windows(first.payload.len()).enumerate().filter(|(_, b)| *b == &first.payload[..]);
            for (at, _) in places {
                hits += 1;
                disk.with(|d| d.rot(&path, at as u64, 3)).expect("something stands there");
            }
        }
        assert!(hits > 0);
        c.start(id).await;
        assert!(c.orphans.contains(&id));
        c.reach(&c.ids()).await;
        c.settle().await;
        let handle = c.list(id).handle();
        assert!(handle.life() > life);
        assert_eq!(handle.status().stopped, None);
        c.close().await;
    })
    .expect("a runtime starts");
}

/// A sole member took in others, and what says so is gone with the end of its journal: they lead each other, so it must not go on alone. Whoever is
/// told nothing is not opened.
#[test]
fn d15_who_forgot_that_there_are_others_does_not_go_on_alone() {
    env::run(async {
        for seed in 0..4 {
            let mut c = Cluster::new(140 + seed, 1, 2).await;
            let ids = c.ids();
            for _ in 0..10 {
                c.publish(3);
                env::sleep(Duration::from_millis(2)).await;
            }
            c.replicas(ids[0]).flush().await.expect("it flushes");
            c.reach(&ids).await;
            c.publish(3);
            env::sleep(Duration::from_millis(30)).await;
            c.crash(ids[0]).await;
            cut_off(&c.disk(ids[0]), u64::MAX);
            // The other two are enough.
            let others_lead = async {
                while c.leader().is_none() {
                    env::sleep(Duration::from_millis(10)).await;
                }
            };
            env::timeout(Duration::from_secs(10), others_lead).await.expect("two of three lead");
            c.publish(5);
            c.others = Others::Some;
            c.start(ids[0]).await;
            assert_eq!(c.asked(ids[0]), 1, "it knows of nobody else and has lost something");
            let handle = c.list(ids[0]).handle();
            assert!(handle.status().damaged && !c.list(ids[0]).leads(), "{:?}", handle.status());
            // Again, before it has heard anything: what it was told is not forgotten.
            c.crash(ids[0]).await;
            c.start(ids[0]).await;
            c.settle().await;
            let handle = c.list(ids[0]).handle();
            while handle.status().damaged {
                env::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(handle.members().0.len(), 3);
            c.close().await;
        }
    })
    .expect("a runtime starts");
}
