//! The handles on a simulated disk, one thing at a time.

use bytes::Bytes;
use env::simdisk::SimDisk;

use super::*;
use crate::{
    Batch, Chain, Kind, Last, Term,
    simio::{self, SimHandle},
};

fn now<F: Future>(f: F) -> F::Output {
    simio::finish(f, 10_000, || {})
}

fn options() -> Options {
    Options {
        sector: 512,
        journal_file_min: 64 << 10,
        journal_file_max: 256 << 10,
        journal_budget: 1 << 20,
        own_file_bytes: 16 << 10,
        reserve: 4 << 10,
        threads: false,
        ..Options::default()
    }
}

fn open(disk: &SimHandle) -> Store {
    now(Store::open(Disk::Sim(disk.clone()), "/s", options())).expect("it opens")
}

/// An entry of messages on these subjects, with bodies of `size` bytes.
fn entry(g: &Group, subjects: &[&str], size: usize) -> NewEntry {
    let (last, _, prev) = g.last();
    let mut seq = g.state.lock().log_seq();
    let mut batch = Batch::new();
    for s in subjects {
        seq = seq.next();
        let body = vec![seq.0 as u8; size];
        let (subject, headers) = (s.as_bytes(), &b""[..]);
        let time = seq.0 as i64;
        batch.push(
            g.id(),
            &Message { seq, time, expires: None, redacted: false, subject, headers, body: &body },
        );
    }
    let chain = Chain(prev.0.wrapping_mul(31) + last.0 + 1);
    let payload = batch.finish(b"");
    NewEntry { kind: Kind::Messages, index: last.next(), term: Term(1), prev, chain, payload, digest: None }
}

fn add(g: &Group, subjects: &[&str], size: usize) -> Result<Ticket> {
    let t = g.append(vec![entry(g, subjects, size)], Sync::Always)?;
    let at = g.applied().0.next();
    let head = now(g.entries(at, 1)).expect("it was appended")[0].head;
    assert!(g.apply_now(&head).is_ok());
    Ok(t)
}

fn acked(t: &Ticket) -> bool {
    matches!(t.poll(), Some(Ok(_)))
}

/// Looked up side by side a subject is found by its hash, which another may have as well.
#[test]
fn last_messages_of_subjects_with_one_hash() {
    let mut seen = rustc_hash::FxHashMap::default();
    let alike = (0..1 << 20).map(|i| format!("s.{i}")).find_map(|s| {
        let before = seen.insert(keyed::tag(keyed::hash(s.as_bytes())), s.clone())?;
        Some((before, s))
    });
    let (a, b) = alike.expect("two of a million have one hash");
    let store = open(&SimHandle::faultless(1));
    let (g, _) = store.create(GroupId(1), false, b"").expect("new");
    add(&g, &[&b, &a, "x"], 10).expect("room");
    for round in 0..2 {
        if round == 1 {
            now(store.flush()).expect("a flush");
        }
        let asked = [a.as_bytes(), b.as_bytes(), b"x", b"none"];
        let mut found = Vec::new();
        g.view().last_each(&asked, |i, last| {
            found.push(match last {
                Last::Message(m) => {
                    assert_eq!(m.subject, asked[i]);
                    "found"
                }
                Last::Absent => "absent",
                Last::Unsure => "unsure",
            });
        });
        assert_eq!(found, ["unsure", "found", "found", "absent"], "round {round}");
        assert_eq!(
            now(g.last_by_subject(a.as_bytes(), StreamSeq(9))).expect("it is read"),
            Some(StreamSeq(2))
        );
    }
}

#[test]
fn s55_a_memory_group_gives_no_number_twice() {
    let disk = SimHandle::faultless(1);
    let mut store = open(&disk);
    let (g, t) = store.create(GroupId(1), true, b"").expect("new");
    now(store.step()).expect("a round");
    assert!(acked(&t));
    drop(g);
    let mut seq = StreamSeq(0);
    for turn in 0..6 {
        let g = store.group(GroupId(1)).expect("it is there");
        assert!(g.is_memory());
        let s = g.state();
        assert!(s.last >= seq, "turn {turn}: {:?} after {seq:?}", s.last);
        // A clean end gives back what was not used.
        assert!(turn % 3 != 1 || s.last == seq, "turn {turn}: {:?} after {seq:?}", s.last);
        assert_eq!((s.msgs, s.first, g.applied().0), (0, s.last.next(), g.last().0));
        let mut waits = 0;
        for i in 0..1000 {
            let t = add(&g, &["a", "b"], 10).expect("memory");
            if !acked(&t) {
                waits += 1;
                // The first reservation is not durable before a round.
                now(store.step()).expect("a round");
            }
            assert!(acked(&t));
            if i > 1 {
                let before = disk.with(|d| d.ops());
                now(store.step()).expect("nothing to do");
                assert_eq!(disk.with(|d| d.ops()), before, "a memory append reaches the disk");
            }
        }
        assert!(waits <= 1);
        seq = g.state().last;
        assert_eq!(g.state().msgs, 2000);
        match turn % 3 {
            0 => now(store.close()).expect("a clean end"),
            1 => now(store.flush()).expect("a flush"),
            _ => {}
        }
        assert!(turn % 3 > 0 || g.append(vec![entry(&g, &["a"], 1)], Sync::Always).is_err());
        drop(g);
        disk.with(|d| d.power_failure());
        store = open(&disk);
    }
}

#[test]
fn a_memory_group_gives_memory_back_and_keeps_its_order() {
    let disk = SimHandle::faultless(1);
    let store = open(&disk);
    let (g, _) = store.create(GroupId(1), true, b"").expect("new");
    for i in 0..20_000u64 {
        add(&g, &[["a", "b", "c"][i as usize % 3]], 10).expect("memory");
        if i % 100 != 0 {
            assert!(g.view().remove(StreamSeq(i + 1)).expect("in memory"));
        }
        if i % 500 == 0 {
            g.checkpoint(Bytes::new());
        }
    }
    let s = g.state.lock();
    assert!(s.msgs.len() < 5000 && s.tail.len() < 5000, "{} {}", s.msgs.len(), s.tail.len());
    drop(s);
    now(g.verify()).expect("whole");
    assert_eq!((g.state().msgs, g.state().first), (200, StreamSeq(1)));
    for subject in ["a", "b", "c"] {
        let of: Vec<u64> =
            (0..200).map(|i| i * 100).filter(|i| ["a", "b", "c"][*i as usize % 3] == subject).collect();
        let mut left = &of[..];
        while let Some((first, rest)) = left.split_first() {
            let t = g.view().subject(subject.as_bytes()).expect("in memory").expect("it has messages");
            let want = (left.len() as u64, StreamSeq(first + 1), StreamSeq(left[left.len() - 1] + 1));
            assert_eq!((t.msgs, t.first, t.last), want);
            assert!(matches!(g.view().get(t.first), Ok(Read::Valid(_))));
            assert!(g.view().remove(t.first).expect("in memory"));
            left = rest;
        }
    }
    assert_eq!(g.state().msgs, 0);
    // A truncation after that takes back what was not applied, and no more.
    let last = g.last().0;
    g.append(vec![entry(&g, &["x"], 1)], Sync::Always).expect("memory");
    g.checkpoint(Bytes::new());
    g.truncate(last.next()).expect("not applied");
    assert_eq!(g.last().0, last);
    add(&g, &["x"], 1).expect("memory");
    assert_eq!(g.state().msgs, 1);
}

#[test]
fn s22_a_full_disk_refuses_appends_and_serves_the_rest() {
    let disk = SimHandle::faultless(1);
    let store = open(&disk);
    let (g, _) = store.create(GroupId(1), false, b"").expect("new");
    for _ in 0..20 {
        add(&g, &["a"], 1000).expect("room");
    }
    now(store.step()).expect("a round");
    disk.with(|d| {
        let used = d.space().0;
        d.options().capacity = used;
    });
    let mut refused = None;
    for _ in 0..1000 {
        match add(&g, &["a"], 1000) {
            Ok(_) => now(store.step()).expect("what was admitted has its room"),
            Err(e) => {
                refused = Some(e);
                break;
            }
        }
    }
    assert!(matches!(refused, Some(Error::NoSpace(_) | Error::Busy)), "{refused:?}");
    let last = g.state().last;
    // Reads, deletions and control records go on: they have room of their own.
    assert!(matches!(now(g.get(StreamSeq(1))), Ok(Read::Valid(_))));
    assert_eq!(now(g.delete(&[StreamSeq(1)])).expect("in memory"), [StreamSeq(1)]);
    let hard = g.set_hard_state(Bytes::from_static(b"hard")).expect("room for control records");
    now(store.step()).expect("a round");
    assert!(acked(&hard));
    // Nothing was lost, and with room it goes on.
    drop((g, store));
    disk.with(|d| {
        d.power_failure();
        d.options().capacity = 1 << 40;
    });
    let store = open(&disk);
    let g = store.group(GroupId(1)).expect("it is there");
    assert_eq!(g.state.lock().log_seq(), last);
    assert_eq!(g.hard_state().as_deref(), Some(&b"hard"[..]));
    let t = g.append(vec![entry(&g, &["a"], 1000)], Sync::Always).expect("room");
    now(store.step()).expect("a round");
    assert!(acked(&t));
}

/// Without a restart: what space there is again is used by the next append that asks.
#[test]
fn s22_space_that_returns_is_used_again() {
    let disk = SimHandle::faultless(1);
    let store = open(&disk);
    let (g, _) = store.create(GroupId(1), false, b"").expect("new");
    add(&g, &["a"], 1000).expect("room");
    now(store.step()).expect("a round");
    for turn in 0..3 {
        disk.with(|d| {
            let used = d.space().0;
            d.options().capacity = used;
        });
        let mut refused = None;
        for _ in 0..1000 {
            match add(&g, &["a"], 1000) {
                Err(Error::NoSpace(e)) => {
                    refused = Some(e);
                    break;
                }
                Ok(_) | Err(Error::Busy) => now(store.step()).expect("what was admitted has its room"),
                Err(e) => panic!("{e}"),
            }
        }
        let refused = refused.expect("a full disk refuses");
        assert!(refused.contains("NoSpace"), "turn {turn}: {refused}");
        assert!(now(store.flush()).is_err(), "there is no room for pieces");
        let last = g.state().last;
        for seq in 1..=last.0 {
            assert!(matches!(now(g.get(StreamSeq(seq))), Ok(Read::Valid(_))), "message {seq}");
        }
        disk.with(|d| d.options().capacity = 1 << 40);
        // The refusal asked for a file; nobody else has to do anything.
        now(store.step()).expect("a file is made");
        let t = add(&g, &["a"], 1000).expect("room again");
        now(store.step()).expect("a round");
        assert!(acked(&t) && g.state().last == last.next());
        now(store.flush()).expect("room for pieces");
    }
    now(g.verify()).expect("whole");
}

/// However many streams a round has entries of, it is one write and one sync, also when journal files are used again.
#[test]
fn ten_thousand_groups_cost_one_sync_a_round() {
    let disk = SimHandle::faultless(1);
    let opts = Options {
        journal_file_min: 4 << 20,
        journal_file_usual: 4 << 20,
        journal_file_max: 8 << 20,
        journal_budget: 24 << 20,
        flush_bytes: 1 << 30,
        ..options()
    };
    let store = now(Store::open(Disk::Sim(disk.clone()), "/s", opts)).expect("it opens");
    let mut groups = Vec::new();
    for id in 1..=10_000 {
        groups.push(store.create(GroupId(id), false, b"").expect("new").0);
    }
    now(store.step()).expect("a round");
    let begun = store.journal_files().0;
    let (mut tickets, mut rounds) = (Vec::new(), 0);
    loop {
        let (now_begun, files) = store.journal_files();
        if now_begun - begun >= 3 * files {
            break;
        }
        tickets.clear();
        for g in &groups {
            match add(g, &["a"], 100) {
                Ok(t) => tickets.push(t),
                Err(Error::Busy) => break,
                Err(e) => panic!("{e}"),
            }
        }
        let (ops, syncs, before) = (disk.with(|d| d.ops()), store.syncs(), store.rounds());
        while now(store.shards.all[0].run_round()).expect("a round") {}
        let (done, here) = (store.syncs() - syncs, store.rounds() - before);
        assert_eq!((done, disk.with(|d| d.ops()) - ops), (here, 2 * here), "a write and a sync each");
        assert!(here <= 1 && tickets.iter().all(acked), "{here} rounds");
        rounds += here;
        now(store.step()).ok();
        if rounds.is_multiple_of(3) || here == 0 {
            now(store.flush()).expect("a flush");
            now(store.step()).expect("a file");
        }
    }
    assert!(rounds > 10, "{rounds} rounds");
}

#[test]
fn both_manifests_damaged_is_refused_and_the_files_are_named() {
    let disk = SimHandle::faultless(1);
    let store = open(&disk);
    let (g, _) = store.create(GroupId(1), false, b"").expect("new");
    add(&g, &["a"], 1000).expect("room");
    now(store.step()).expect("a round");
    now(store.flush()).expect("a flush");
    drop((g, store));
    // What is there can be told without opening it.
    let content = |d: &mut SimDisk| -> Vec<Vec<u8>> {
        let files = d.files();
        let read = |f: &String| {
            let len = d.stat(f).expect("it is there").len;
            d.pristine(f, 0..len).expect("it is there")
        };
        files.iter().map(read).collect()
    };
    let before = disk.with(content);
    let report = now(crate::inspect(Disk::Sim(disk.clone()), "/s", &options())).expect("it can be read");
    assert!(disk.with(content) == before);
    let shard = &report.shards[0];
    assert_eq!(shard.slots, ["generation 1", "generation 1"]);
    assert_eq!((shard.groups[0].id, shard.groups[0].flushed), (GroupId(1), LogIndex(1)));
    assert!(shard.segments.len() == 1 && shard.segments[0].2 && shard.damaged_rounds.is_empty());
    assert!(report.to_string().contains("group 1: checkpoint 0, in pieces to 1"), "{report}");
    for slot in ["a", "b"] {
        disk.with(|d| {
            d.process_death();
            d.rot(&format!("/s/shard-000/manifest-{slot}"), 60, 3).expect("it is there");
        });
        let r = now(Store::open(Disk::Sim(disk.clone()), "/s", options()));
        match (slot, r) {
            ("a", Ok(s)) => {
                assert_eq!(s.groups(), [GroupId(1)]);
                drop(s);
                // Opening wrote both again.
                disk.with(|d| {
                    d.process_death();
                    d.rot("/s/shard-000/manifest-a", 60, 3).expect("it is there");
                });
            }
            ("b", Err(Error::Damaged(d))) => {
                assert!(d.what.contains("manifest-a") && d.what.contains("manifest-b"), "{d}");
            }
            (slot, r) => panic!("manifest {slot}: {:?}", r.err()),
        }
    }
}

#[test]
fn a_damaged_record_is_told_from_an_absent_one() {
    let disk = SimHandle::faultless(1);
    let store = open(&disk);
    let (g, _) = store.create(GroupId(1), false, b"").expect("new");
    for _ in 0..40 {
        add(&g, &["a", "b"], 1000).expect("room");
        now(store.step()).expect("a round");
    }
    now(store.flush()).expect("a flush");
    assert_eq!(now(g.delete(&[StreamSeq(7)])).expect("there"), [StreamSeq(7)]);
    drop((g, store));
    disk.with(|d| {
        d.process_death();
        let path = d.files().into_iter().find(|f| f.contains("/segments/")).expect("a segment");
        d.rot(&path, 5000, 3).expect("it is there");
    });
    let store = open(&disk);
    let g = store.group(GroupId(1)).expect("it is there");
    let heads: Vec<Head> = (1..=40)
        .map(|i| {
            let payload = now(g.entries(LogIndex(i), 1)).map(|e| e[0].head);
            payload.unwrap_or(Head { ..head_of(&g, i) })
        })
        .collect();
    for h in &heads {
        now(g.apply(h)).expect("the footers are whole");
    }
    // The scrub finds it without being asked for the message, in steps of its budget.
    let shard = &store.shards.all[0];
    let (mut cursor, mut found, mut steps) = (Cursor::default(), Vec::new(), 0);
    loop {
        let step = now(shard.scrub(&mut cursor, 4096)).expect("a well disk");
        assert!(step.bytes < 4096 + 40_000, "S-92: {} bytes", step.bytes);
        found.extend(step.damage);
        steps += 1;
        if step.done {
            break;
        }
    }
    assert!(steps > 2 && found.len() == 1, "{steps} steps: {found:?}");
    let range = found[0].messages.expect("it is a block of messages");
    assert_eq!(now(store.verify()).expect("a well disk").damage, found);

    let mut damaged = Vec::new();
    for seq in 1..=80 {
        // Asked as the engine asks: without an await first.
        let asked = g.view().get(StreamSeq(seq));
        let r = match asked {
            Ok(r) => r,
            Err(n) => {
                now(g.fetch(n)).expect("damage of a message is an answer");
                g.view().get(StreamSeq(seq)).expect("it was fetched")
            }
        };
        match r {
            Read::Valid(_) => {}
            Read::Damaged(d) => damaged.push((seq, d)),
            Read::Absent => panic!("{seq} is there"),
        }
    }
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert_eq!(damaged[0].1.messages, Some((StreamSeq(damaged[0].0), StreamSeq(damaged[0].0))));
    assert!(range.0.0 <= damaged[0].0 && damaged[0].0 <= range.1.0, "{range:?}");
    assert_eq!(store.damage().len(), 2);
    assert_eq!(g.view().get(StreamSeq(81)).ok(), Some(Read::Absent));
}

/// What the log said of an entry of two messages whose payload is damaged.
fn head_of(g: &Group, index: u64) -> Head {
    let (first, group) = (StreamSeq(index * 2 - 1), g.id());
    Head {
        kind: Kind::Messages,
        compacted: false,
        group,
        index: LogIndex(index),
        term: Term(1),
        prev: Chain(0),
        chain: Chain(0),
        first,
        count: 2,
        length: 0,
        digest: 0,
    }
}

/// A checkpoint that came while a flush was publishing one of the same entry went with it: what had been deleted in between came back.
#[test]
fn s72_a_checkpoint_of_the_same_entry_waits_for_the_next_flush() {
    let mut late = 0;
    for polls in 0.. {
        let disk = SimHandle::yielding(1);
        let store = open(&disk);
        let (g, _) = store.create(GroupId(1), false, b"").expect("new");
        add(&g, &["a", "b", "c", "d"], 10).expect("room");
        now(store.step()).expect("a round");
        now(g.delete(&[StreamSeq(1)])).expect("there");
        g.checkpoint(Bytes::from_static(b"one"));
        let mut flush = std::pin::pin!(store.flush());
        let ended = simio::some_polls(flush.as_mut(), polls);
        now(g.delete(&[StreamSeq(3)])).expect("there");
        g.checkpoint(Bytes::from_static(b"two"));
        if !ended {
            now(flush).expect("a flush");
        }
        now(store.flush()).expect("a flush");
        disk.with(|d| d.power_failure());
        let store = open(&disk);
        let g = store.group(GroupId(1)).expect("it is there");
        assert_eq!(g.applied().1.blob, b"two"[..], "{polls} polls");
        let there = |seq| matches!(now(g.get(StreamSeq(seq))), Ok(Read::Valid(_)));
        assert_eq!([1, 2, 3, 4].map(there), [false, true, false, true], "{polls} polls");
        if ended {
            break;
        }
        late += 1;
    }
    assert!(late > 5, "{late} late checkpoints");
}

/// A file that waits was given back for a larger one although rounds had been let in because of it.
#[test]
fn s22_the_file_that_waits_stays_while_something_was_let_in_because_of_it() {
    let disk = SimHandle::yielding(1);
    let store = open(&disk);
    let (g, _) = store.create(GroupId(1), false, b"").expect("new");
    now(store.step()).expect("a round");
    let shard = &store.shards()[0];
    // Until little is left of the first file, and the next one is there.
    while shard.journal.lock().active_left() > 20 << 10 {
        add(&g, &["a"], 4000).expect("room");
        now(store.step()).expect("a round");
    }
    assert!(shard.journal.lock().spare.is_some());
    let waits = add(&g, &["a"], 40 << 10).expect("the next file has room");
    assert!(matches!(add(&g, &["a"], 200 << 10), Err(Error::Busy)), "a larger file is wanted");
    // The round is written while the larger file is being made.
    let mut prepare = std::pin::pin!(shard.prepare());
    let ended = simio::some_polls(prepare.as_mut(), 2);
    assert!(now(shard.run_round()).expect("what was let in has its room"));
    assert!(acked(&waits));
    if !ended {
        now(prepare).expect("there is room for files");
    }
    now(store.step()).expect("a round");
    assert!(add(&g, &["a"], 200 << 10).is_ok(), "the larger file was made");
}
