//! References on a simulated disk, one thing at a time.

use env::simdisk::SimDisk;

use super::*;
use crate::{
    Batch, GroupId as Id, Message, NewEntry, Options, Store, StreamSeq, Sync, Term, Ticket,
    simio::{self, SimHandle},
    store::{Group, Read},
};

fn now<F: Future>(f: F) -> F::Output {
    simio::finish(f, 10_000, || {})
}

fn options() -> Options {
    Options {
        sector: 512,
        journal_file_min: 32 << 10,
        journal_file_max: 64 << 10,
        journal_budget: 1 << 20,
        own_file_bytes: 1,
        reserve: 4 << 10,
        block: 600,
        refer_min: 1000,
        refer_entry_min: 8000,
        refer_message_min: 100,
        refer_synced_min: 1,
        threads: false,
        ..Options::default()
    }
}

fn open(disk: &SimHandle) -> Store {
    now(Store::open(Disk::Sim(disk.clone()), "/s", options())).expect("it opens")
}

fn body(seq: u64, size: usize) -> Vec<u8> {
    (0..size).map(|i| (seq as usize * 31 + i / 7) as u8).collect()
}

/// Appends an entry of two messages, not applied.
fn append(g: &Group, size: usize) -> Ticket {
    append_with(g, size, Sync::Always)
}

fn append_with(g: &Group, size: usize, sync: Sync) -> Ticket {
    append_many(g, 2, size, b"more", sync)
}

/// Appends an entry of so many messages.
fn append_many(g: &Group, count: usize, size: usize, rest: &[u8], sync: Sync) -> Ticket {
    let (last, _, prev) = g.last();
    let (mut seq, mut batch) = (g.log_seq(), Batch::new());
    for subject in [b"a", b"b"].into_iter().cycle().take(count) {
        seq = seq.next();
        let body = body(seq.0, size);
        let (time, headers) = (seq.0 as i64, &b""[..]);
        let m = Message { seq, time, expires: None, redacted: false, subject, headers, body: &body };
        batch.push(g.id(), &m);
    }
    // Each history has chains of its own.
    let chain = Chain(prev.0.wrapping_mul(31) + last.0 + size as u64);
    let payload = batch.finish(rest);
    let e = NewEntry {
        kind: Kind::Messages,
        index: last.next(),
        term: Term(1),
        prev,
        chain,
        payload,
        digest: None,
    };
    g.append(vec![e], sync).expect("room")
}

fn apply(g: &Group) {
    while g.applied().0 < g.last().0 {
        let head = now(g.entries(g.applied().0.next(), 1)).expect("it was appended")[0].head;
        now(g.apply(&head)).expect("in order");
    }
}

fn step(store: &Store) {
    now(store.step()).expect("a round");
}

/// Whether rounds were written that no sync covers.
fn is_unsynced(shard: &Shard) -> bool {
    let p = shard.progress.borrow();
    p.written > p.synced
}

/// A store whose journal has begun to refer to segments, with all applied.
fn referring(disk: &SimHandle) -> (Store, Group) {
    let store = open(disk);
    let (g, _) = store.create(Id(1), false, b"").expect("new");
    while store.shards()[0].named.lock().is_empty() {
        append(&g, 2000);
        step(&store);
        assert!(g.last().0.0 < 40, "it never refers to anything");
    }
    apply(&g);
    (store, g)
}

fn all_there(g: &Group, size: impl Fn(u64) -> usize) {
    for seq in 1..=g.log_seq().0 {
        match now(g.get(StreamSeq(seq))).expect("it can be read") {
            Read::Valid(r) => assert!(r.message().body == body(seq, size(seq)), "message {seq}"),
            other => panic!("message {seq}: {other:?}"),
        }
    }
    now(g.verify()).expect("the totals are right");
}

fn segments(disk: &SimHandle) -> Vec<String> {
    disk.with(|d| d.files().into_iter().filter(|f| f.contains("/segments/")).collect())
}

/// Versions of the headers of journal files.
fn versions(disk: &SimHandle) -> Vec<u8> {
    disk.with(|d: &mut SimDisk| {
        let files: Vec<String> = d.files().into_iter().filter(|f| f.contains("/journal/")).collect();
        let heads = files.iter().map(|f| d.pristine(f, 0..512).expect("it is there"));
        heads.filter(|h| crate::round::FileHead::decode(h).is_some()).map(|h| h[4]).collect()
    })
}

/// What power failures and deaths leave of entries that the journal refers to is all of what was acknowledged.
#[test]
fn s24_what_is_referred_to_comes_back() {
    for power in [false, true] {
        let disk = SimHandle::faultless(1);
        let (mut store, mut g) = referring(&disk);
        for life in 0..4 {
            let before = store.shards()[0].journal.lock().active.as_ref().map_or(0, |a| a.used);
            for size in [3000, 3000, 40, 3000] {
                let t = append(&g, size);
                step(&store);
                assert!(matches!(t.poll(), Some(Ok(_))));
            }
            let (used, referred) = {
                let j = store.shards()[0].journal.lock();
                (j.active.as_ref().map_or(0, |a| a.used), j.referred_bytes)
            };
            // A new life begins with a file of its own, which refers to nothing.
            assert!(life > 0 || (used - before < 10_000 && referred > 18_000), "{before} {used} {referred}");
            let last = g.last();
            drop((store, g));
            disk.with(|d| if power { d.power_failure() } else { d.process_death() });
            store = open(&disk);
            assert!(store.damage().is_empty() && !store.torn_tail(), "{:?}", store.damage());
            g = store.group(Id(1)).expect("it is there");
            assert_eq!(g.last(), last, "life {life}");
            apply(&g);
            let first = 1 + 2 * (last.0.0 - 4 * (life + 1));
            all_there(&g, |seq| match seq.checked_sub(first) {
                None => 2000,
                Some(n) if n % 8 / 2 == 2 => 40,
                Some(_) => 3000,
            });
        }
    }
}

/// A process died before anything was synced; what the next one found in the page cache it served, so a power failure may not take it from it.
#[test]
fn s82_what_is_referred_to_is_durable_once_it_is_served() {
    // Some power failures take nothing.
    for seed in 0..24 {
        let disk = SimHandle::faultless(100 + seed);
        let (store, g) = referring(&disk);
        now(store.flush()).expect("a flush");
        for _ in 0..3 {
            append_with(&g, 3000, Sync::Relaxed);
            step(&store);
        }
        assert!(is_unsynced(&store.shards()[0]) && store.shards()[0].journal.lock().referred_bytes > 0);
        let last = g.last();
        drop((store, g));
        disk.with(|d| d.process_death());
        for _ in 0..2 {
            let store = open(&disk);
            assert_eq!((store.group(Id(1)).expect("it is there").last(), store.damage().len()), (last, 0));
            drop(store);
            disk.with(|d| d.power_failure());
        }
    }
}

/// A flush adds the footers: the piece is the file that the journal refers to, and small entries among the large ones are in it.
#[test]
fn a_flush_takes_what_was_laid_out() {
    let disk = SimHandle::faultless(2);
    let (store, g) = referring(&disk);
    for size in [3000, 50, 3000, 3000, 50] {
        append(&g, size);
        step(&store);
    }
    apply(&g);
    let named: Vec<FileId> = store.shards()[0].named.lock().keys().copied().collect();
    let pieces = || {
        let s = store.shards()[0].group(Id(1)).expect("it is there");
        let s = s.lock();
        s.pieces.iter().map(|p| (p.meta.file, p.meta.first_index.0, p.meta.last_index.0)).collect::<Vec<_>>()
    };
    g.checkpoint(Bytes::from_static(b"here"));
    now(store.flush()).expect("a flush");
    let of = pieces();
    assert!(
        of.iter().any(|p| named.contains(&p.0) && p.2 - p.1 >= 5 && p.2 == g.last().0.0),
        "{of:?}, {named:?}"
    );
    let shard = &store.shards()[0];
    for p in shard.group(Id(1)).expect("it is there").lock().pieces.clone() {
        assert!(now(shard.feet_are_right(&p.meta)).expect("readable"));
    }
    assert!(shard.leaked.lock().is_empty(), "it is a piece as others are");
    assert_eq!((shard.journal.lock().referred_bytes, shard.named.lock().len()), (0, 0));
    drop(g);
    disk.with(|d| d.power_failure());
    let store = open(&disk);
    let g = store.group(Id(1)).expect("it is there");
    assert_eq!(g.applied().0, g.last().0);
    let n = g.log_seq().0 - 10;
    all_there(&g, |seq| {
        if seq <= n {
            2000
        } else if [2, 3, 8, 9].contains(&(seq - n - 1)) {
            50
        } else {
            3000
        }
    });
}

/// Many small messages that are appended at once are written once, too; fewer, or smaller ones, stand in the journal.
#[test]
fn s24_what_comes_in_bulk_is_referred_to() {
    for (rest, power) in [(&b"more"[..], false), (b"", true), (b"", false)] {
        let disk = SimHandle::faultless(9);
        let (store, g) = referring(&disk);
        now(store.flush()).expect("a flush");
        append_many(&g, 10, 2000, rest, Sync::Always);
        step(&store);
        let shard = store.shards()[0].clone();
        let refers = |count, size| {
            let before = shard.journal.lock().referred_bytes;
            append_many(&g, count, size, rest, Sync::Always);
            step(&store);
            shard.journal.lock().referred_bytes - before
        };
        // Their records fill blocks of 600 bytes in part only, mostly, and whole.
        assert!(refers(60, 130) > 9000 && refers(40, 310) > 13_000 && refers(30, 580) > 18_000);
        assert_eq!((refers(50, 80), refers(10, 310)), (0, 0), "too small, too few");
        assert!(refers(60, 150) > 9000);
        let last = g.last();
        let sizes = {
            let from = g.log_seq().0 - 60 - 10 - 50 - 30 - 40 - 60 - 10;
            let parts = [(10, 2000), (60, 130), (40, 310), (30, 580), (50, 80), (10, 310), (60, 150)];
            move |seq: u64| {
                let mut at = from;
                for (count, size) in parts {
                    at += count;
                    if seq > from && seq <= at {
                        return size;
                    }
                }
                2000
            }
        };
        drop((store, g, shard));
        disk.with(|d| if power { d.power_failure() } else { d.process_death() });
        let store = open(&disk);
        assert!(store.damage().is_empty() && !store.torn_tail(), "{:?}", store.damage());
        let g = store.group(Id(1)).expect("it is there");
        assert_eq!(g.last(), last);
        apply(&g);
        all_there(&g, sizes);
        append_many(&g, 60, 150, rest, Sync::Always);
        step(&store);
        apply(&g);
        g.checkpoint(Bytes::from_static(b"here"));
        now(store.flush()).expect("a flush");
        now(g.verify()).expect("the totals are right");
        let shard = &store.shards()[0];
        for p in shard.group(Id(1)).expect("it is there").lock().pieces.clone() {
            assert!(now(shard.feet_are_right(&p.meta)).expect("readable"));
        }
    }
}

/// What a truncation takes back is not in any piece, and the file goes once no round names it; also where the entry that took its place is in the same round.
#[test]
fn s26_what_was_taken_back_leaves_with_the_rounds_that_name_it() {
    let disk = SimHandle::faultless(3);
    let (store, g) = referring(&disk);
    now(store.flush()).expect("a flush");
    append(&g, 3000);
    append(&g, 3100);
    step(&store);
    let index = g.last().0;
    let of_both: Vec<FileId> = store.shards()[0].named.lock().keys().copied().collect();
    g.truncate(index).expect("not applied");
    append(&g, 2900);
    step(&store);
    append(&g, 3000);
    g.truncate(index.next()).expect("not applied");
    append(&g, 2900);
    step(&store);
    // Rounds name all of it.
    assert!(of_both.iter().all(|f| segments(&disk).iter().any(|s| s.contains(&format!("{:010}", f.0)))));
    drop((store, g));
    disk.with(|d| d.power_failure());
    let store = open(&disk);
    assert!(store.damage().is_empty(), "{:?}", store.damage());
    let g = store.group(Id(1)).expect("it is there");
    assert_eq!(g.last().0, index.next());
    apply(&g);
    let n = g.log_seq().0 - 6;
    let size = |seq: u64| {
        if seq <= n {
            2000
        } else if seq <= n + 2 {
            3000
        } else {
            2900
        }
    };
    all_there(&g, size);
    let given = store.shards()[0].next_file.load(std::sync::atomic::Ordering::Relaxed);
    assert!(of_both.iter().all(|f| f.0 < given), "no id is given twice");
    now(store.flush()).expect("a flush");
    now(store.flush()).expect("another one");
    assert!(store.shards()[0].named.lock().is_empty());
    let s = store.shards()[0].group(Id(1)).expect("it is there");
    let used: Vec<String> = s.lock().pieces.iter().map(|p| format!("{:010}", p.meta.file.0)).collect();
    let there = segments(&disk);
    assert!(there.iter().all(|f| used.iter().any(|u| f.contains(u))), "{there:?} {used:?}");
    all_there(&g, size);
}

/// A piece that is not applied to its end is left to the next flush, once.
#[test]
fn what_is_not_applied_waits_for_one_flush() {
    let disk = SimHandle::faultless(4);
    let (store, g) = referring(&disk);
    now(store.flush()).expect("a flush");
    append(&g, 3000);
    step(&store);
    apply(&g);
    append(&g, 3000);
    step(&store);
    let flushed = || store.shards()[0].group(Id(1)).expect("it is there").lock().flushed.0;
    let before = flushed();
    now(store.flush()).expect("a flush");
    assert_eq!(flushed(), before);
    now(store.flush()).expect("another one");
    assert_eq!(flushed(), before.next(), "what is applied is laid out without the rest");
    apply(&g);
    now(store.flush()).expect("a third one");
    assert_eq!(flushed(), g.last().0);
}

/// Where segments cannot be written the journal, whose room is reserved, takes the entries whole.
#[test]
fn s22_a_full_disk_has_the_journal_hold_it_all() {
    let disk = SimHandle::faultless(5);
    let (store, g) = referring(&disk);
    append(&g, 3000);
    step(&store);
    let named = store.shards()[0].named.lock().clone();
    disk.with(|d| {
        let used = d.space().0;
        d.options().capacity = used;
    });
    let t = append(&g, 3500);
    now(store.step()).ok();
    assert!(matches!(t.poll(), Some(Ok(_))), "it was let in");
    let after = store.shards()[0].named.lock().clone();
    assert_eq!(after.keys().collect::<Vec<_>>(), named.keys().collect::<Vec<_>>());
    let last = g.last();
    drop((store, g));
    disk.with(|d| {
        d.options().capacity = 1 << 40;
        d.power_failure();
    });
    let store = open(&disk);
    let g = store.group(Id(1)).expect("it is there");
    assert_eq!((g.last(), store.damage().len()), (last, 0));
}

/// Bytes that rot in a segment before its flush: in the last round nobody can tell them from a torn write, before that they are damage, and what is left of the
/// entry is found.
#[test]
fn s80_a_reference_that_leads_to_damage_is_a_bad_round() {
    for vouched in [false, true] {
        let disk = SimHandle::faultless(6);
        let (store, g) = referring(&disk);
        append(&g, 3000);
        step(&store);
        let index = g.last().0;
        let path = segments(&disk).pop().expect("there is one");
        let end = now(store.shards()[0].round_lock.lock()).open[&Id(1)].written;
        if vouched {
            append(&g, 10);
            step(&store);
        }
        drop((store, g));
        disk.with(|d| d.process_death());
        // In the second message of the entry.
        disk.with(|d| d.rot(&path, end - 1000, 3)).expect("it is there");
        let store = open(&disk);
        let g = store.group(Id(1)).expect("it is there");
        assert_eq!(store.torn_tail(), !vouched);
        if !vouched {
            assert_eq!(g.last().0.next(), index);
            continue;
        }
        assert_eq!(g.last().0, index.next());
        assert!(store.damage().iter().any(|d| d.entries == Some((index, index))), "{:?}", store.damage());
        assert!(matches!(now(g.entries(index, 1)), Err(crate::Error::Damaged(_))));
        while g.give_up().expect("room").is_some() {}
        step(&store);
        apply(&g);
        let first = g.log_seq().0 - 3;
        assert!(matches!(now(g.get(StreamSeq(first))), Ok(Read::Valid(_))), "its first message is whole");
        assert!(matches!(now(g.get(StreamSeq(first + 1))), Ok(Read::Damaged(_))));
    }
}

/// A journal of small messages is what format 1 says; one with references is refused by whoever does not know them, and so is what is newer here.
#[test]
fn only_files_with_references_are_of_version_2() {
    let disk = SimHandle::faultless(7);
    let store = open(&disk);
    let (g, _) = store.create(Id(1), false, b"").expect("new");
    for _ in 0..100 {
        append(&g, 300);
        step(&store);
    }
    assert!(versions(&disk).len() > 1 && versions(&disk).iter().all(|v| *v == 1));
    drop((store, g));
    let disk = SimHandle::faultless(8);
    let (store, g) = referring(&disk);
    assert!(versions(&disk).contains(&2));
    // After a clean end nothing is left that refers.
    drop(g);
    now(store.close()).expect("a clean end");
    assert!(!versions(&disk).contains(&2), "{:?}", versions(&disk));
    let newer = crate::round::FileHead {
        shard: 0,
        epoch: crate::types::Epoch(1),
        first: Round(1),
        salt: [0; 16],
        key: 0,
        len: 0,
        refers: true,
        loose: false,
        behind_cut: false,
    };
    let mut b = newer.encode(512).to_vec();
    assert_eq!(crate::round::FileHead::foreign_version(&b), None);
    b[4] = 3;
    let crc = checksum::crc32c(&b[..crate::round::FILE_HEADER - 4]);
    b[crate::round::FILE_HEADER - 4..crate::round::FILE_HEADER].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(crate::round::FileHead::foreign_version(&b), Some(3));
    assert_eq!(crate::round::FileHead::decode(&b), None);
}

/// Rounds go on while others are synced. What they refer to is not called durable by that sync, and not taken by the flush that asked for it.
#[test]
fn s24_rounds_beside_a_sync_wait_for_the_next_one() {
    // What a power failure takes of what no sync covers differs by seed.
    for (flushes, seed) in [false, true].into_iter().flat_map(|f| (0..16).map(move |seed| (f, seed))) {
        let disk = SimHandle::yielding(seed);
        // It says so later than it is, so that rounds come after what it covers.
        disk.with(|d| d.options().sync_ns = 1_500_000);
        let (store, g) = referring(&disk);
        let shard = &store.shards()[0];
        append_with(&g, 2000, Sync::Relaxed);
        step(&store);
        apply(&g);
        let upto = shard.progress.borrow().written;
        assert!(is_unsynced(shard));
        let mut beside = 0;
        let between = || {
            // The sync has let go of the rounds when one can be written.
            if beside < 24 && shard.round_lock.try_lock().is_ok() && shard.progress.borrow().synced < upto {
                append_with(&g, 2000, Sync::Relaxed);
                now(shard.run_round()).expect("a round");
                beside += 1;
            }
        };
        if flushes {
            simio::finish(shard.flush(), 10_000, between).expect("it flushes");
        } else {
            simio::finish(shard.sync(), 10_000, between).expect("it syncs");
        }
        assert!(beside > 0, "rounds wait for the sync");
        let p = (shard.progress.borrow().written, shard.progress.borrow().synced);
        assert!(p.0 > upto, "they were written");
        if !flushes {
            assert_eq!(p.1, upto, "and are not durable");
        }
        assert!(is_unsynced(shard));
        // The next sync covers them, also where their file and its name are older.
        apply(&g);
        now(shard.sync()).expect("it syncs");
        assert!(!is_unsynced(shard));
        let last = g.last().0;
        drop((store, g));
        disk.with(|d| d.power_failure());
        let store = open(&disk);
        let g = store.group(Id(1)).expect("it is there");
        assert_eq!(g.last().0, last);
        apply(&g);
        all_there(&g, |seq| if seq <= 2 * last.0 { 2000 } else { 0 });
    }
}
