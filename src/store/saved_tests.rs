//! Dictionaries over a clean end: those that fit are taken up, those that do not are not, and either way they are what the footers say.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use crate::{
    Batch, Chain, Disk, Group, GroupId, Kind, Message, NewEntry, Options, Store, StreamSeq, Sync, Term,
    saved,
    simio::{self, SimHandle},
};

const G: GroupId = GroupId(1);

fn now<F: Future>(f: F) -> F::Output {
    simio::finish(f, 100_000, || {})
}

fn open(disk: &SimHandle) -> Store {
    let options = Options { subjects_saved_min: 1, ..simio::small() };
    now(Store::open(Disk::Sim(disk.clone()), "/s", options)).expect("it opens")
}

/// Adds an entry of messages on these subjects and applies it.
fn add(store: &Store, g: &Group, subjects: &[u8]) {
    let (last, _, prev) = g.last();
    let mut seq = g.log_seq();
    let mut batch = Batch::new();
    for s in subjects {
        seq = seq.next();
        let subject = format!("s.{}.{}", s % 5, s % 23);
        let (subject, headers) = (subject.as_bytes(), &b""[..]);
        let time = seq.0 as i64;
        let body = &[*s; 60][..];
        batch.push(G, &Message { seq, time, expires: None, redacted: false, subject, headers, body });
    }
    let e = NewEntry {
        kind: Kind::Messages,
        index: last.next(),
        term: Term(1),
        prev,
        chain: Chain(prev.0.wrapping_mul(31) + last.0 + 1),
        payload: batch.finish(b""),
        digest: None,
    };
    g.append(vec![e], Sync::Always).expect("there is room");
    now(store.step()).expect("a round");
    apply_all(g);
}

/// What a restart does with its log above the checkpoint.
fn apply_all(g: &Group) {
    while g.applied().0 < g.last().0 {
        let head = now(g.entries(g.applied().0.next(), 1)).expect("it is there")[0].head;
        now(g.apply(&head)).expect("it is applied");
    }
}

fn is_ready(g: &Group) -> bool {
    g.state.lock().dict_ready()
}

/// Subjects with their totals.
fn subjects(g: &Group) -> BTreeMap<Vec<u8>, (u64, u64, u64)> {
    let mut all = BTreeMap::new();
    now(g.ask(|v| {
        all.clear();
        v.subjects(b">", |s, t| {
            all.insert(s.to_vec(), (t.msgs, t.first.0, t.last.0));
            true
        })
    }))
    .expect("it can be read");
    all
}

/// The same, of what messages say.
fn walked(g: &Group) -> BTreeMap<Vec<u8>, (u64, u64, u64)> {
    let mut all: BTreeMap<Vec<u8>, (u64, u64, u64)> = BTreeMap::new();
    for seq in 1..=g.state().last.0 {
        if let crate::Read::Valid(m) = now(g.get(StreamSeq(seq))).expect("it can be read") {
            let t = all.entry(m.message().subject.to_vec()).or_insert((0, seq, seq));
            (t.0, t.2) = (t.0 + 1, seq);
        }
    }
    all
}

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<u8>),
    Remove(u64),
    Flush {
        checkpoint: bool,
    },
    /// A clean end, or none, and a start.
    Restart {
        clean: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 1..20).prop_map(Step::Add),
        4 => any::<u64>().prop_map(Step::Remove),
        1 => any::<bool>().prop_map(|checkpoint| Step::Flush { checkpoint }),
        2 => any::<bool>().prop_map(|clean| Step::Restart { clean }),
    ];
    prop::collection::vec(one, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A removal here is no entry of the log, so what was removed behind the last checkpoint is back after a restart; the model is the walk over all messages.
    #[test]
    fn s_120_dictionaries_are_what_messages_say(all in steps(), cut in prop::option::of(0usize..4000)) {
        let disk = SimHandle::faultless(1);
        let mut store = open(&disk);
        let (mut g, _) = store.create(G, false, b"").expect("new");
        now(store.step()).expect("a round");
        for step in all {
            match step {
                Step::Add(s) => add(&store, &g, &s),
                Step::Remove(at) => {
                    let last = g.state().last.0;
                    if last > 0 {
                        now(g.delete(&[StreamSeq(at % last + 1)])).expect("it can be");
                    }
                }
                Step::Flush { checkpoint } => {
                    if checkpoint {
                        g.checkpoint(Bytes::new());
                    }
                    now(store.flush()).expect("a flush");
                }
                Step::Restart { clean } => {
                    let ready = is_ready(&g);
                    if clean {
                        g.checkpoint(Bytes::new());
                        now(store.close()).expect("a clean end");
                    } else {
                        drop(store);
                    }
                    drop(g);
                    disk.with(|d| d.power_failure());
                    if let Some(at) = cut {
                        damage(&disk, at);
                    }
                    store = open(&disk);
                    g = store.group(G).expect("it is there");
                    let empty = g.state().msgs == 0;
                    prop_assert!(!clean || empty || cut.is_some() || is_ready(&g) == ready, "saved in vain");
                    apply_all(&g);
                }
            }
            prop_assert_eq!(subjects(&g), walked(&g));
            searches_are_right(&g);
        }
    }
}

/// What searches with filters find is what a walk finds, whether few subjects match or many, in one piece or over several.
fn searches_are_right(g: &Group) {
    let last = g.state().last.0;
    let mut all: Vec<(u64, Vec<u8>)> = Vec::new();
    for seq in 1..=last {
        if let crate::Read::Valid(m) = now(g.get(StreamSeq(seq))).expect("it can be read") {
            all.push((seq, m.message().subject.to_vec()));
        }
    }
    let sets: [&[&[u8]]; 7] = [
        &[b"s.1.*"],
        &[b"s.*.7"],
        &[b"s.*.*"],
        &[b"s.*.3", b"s.2.2"],
        &[b"*.4.4"],
        &[b"t.>"],
        &[b"s.3.>", b"*.*.20"],
    ];
    for filters in sets {
        let hit = |s: &Vec<u8>| filters.iter().any(|f| crate::filter::matches(f, s));
        for from in [1, last / 3, last / 2, last] {
            let want: Vec<u64> =
                all.iter().filter(|(q, s)| *q >= from && hit(s)).map(|(q, _)| *q).take(8).collect();
            let (mut got, mut at) = (Vec::new(), from);
            while got.len() < 8
                && let Some(q) = now(g.ask(|v| v.next(filters, StreamSeq(at)))).expect("it can be read")
            {
                got.push(q.0);
                at = q.0 + 1;
            }
            assert_eq!(got, want, "{filters:?} from {from} of {last}");
        }
    }
}

/// Changes a byte of the saved dictionaries.
fn damage(disk: &SimHandle, at: usize) {
    let file = now(Disk::Sim(disk.clone()).open(
        std::path::Path::new("/s/shard-000/journal").join(saved::NAME).as_path(),
        env::disk::OpenOptions::EDIT,
    ));
    let Ok(file) = file else { return };
    let len = now(file.len()).expect("its length") as usize;
    if len > 0 {
        let b = now(file.scan_at((at % len) as u64, 1)).expect("a byte");
        let flipped = Bytes::from(vec![b[0] ^ 0x10]);
        now(file.write_vectored_at((at % len) as u64, vec![flipped])).expect("it is written");
        now(file.sync_data()).expect("it is synced");
    }
}

#[test]
fn a_clean_end_leaves_one_journal_file() {
    let disk = SimHandle::faultless(1);
    let store = open(&disk);
    let (g, _) = store.create(G, false, b"").expect("new");
    for i in 0..400u64 {
        add(&store, &g, &[i as u8; 10]);
        if i % 50 == 49 {
            g.checkpoint(Bytes::new());
            now(store.flush()).expect("a flush");
        }
    }
    let before = journal_files(&disk);
    g.checkpoint(Bytes::new());
    now(store.close()).expect("a clean end");
    drop(g);
    assert!(before > 1 && journal_files(&disk) == 1, "{before} files");
    // The next start reads nothing of what was flushed: the file that was written last has gone too.
    let left = disk.with(|d| {
        let path = d.files().into_iter().find(|f| f.ends_with(".fj")).expect("one is there");
        let len = d.stat(&path).expect("its length").len;
        d.pristine(&path, 0..len).expect("its bytes")
    });
    assert!(left.iter().all(|b| *b == 0), "it was written");
    let store = open(&disk);
    let g = store.group(G).expect("it is there");
    assert!(is_ready(&g));
    add(&store, &g, &[1; 10]);
    assert_eq!(subjects(&g), walked(&g));
}

/// S-23: a round that was written while the last flush ran, or after it, is in no piece; the file that holds it stays.
#[test]
fn s23_a_clean_end_keeps_a_journal_file_that_is_needed() {
    let disk = SimHandle::faultless(1);
    let store = open(&disk);
    let (g, _) = store.create(G, false, b"").expect("new");
    add(&store, &g, &[1; 10]);
    g.checkpoint(Bytes::new());
    now(store.flush()).expect("a flush");
    add(&store, &g, &[2; 10]);
    let last = g.last();
    now(store.shards()[0].leave());
    drop((g, store));
    let store = open(&disk);
    let g = store.group(G).expect("it is there");
    assert_eq!(g.last(), last);
    apply_all(&g);
    assert_eq!(subjects(&g), walked(&g));
    assert!(store.damage().is_empty() && !store.torn_tail());
}

/// Background work that is asked for a file before it notices the end makes none: whoever removes or moves the directory then would meet it.
#[test]
fn a_clean_end_prepares_no_more_journal_files() {
    let disk = SimHandle::faultless(1);
    let store = open(&disk);
    let (g, _) = store.create(G, false, b"").expect("new");
    add(&store, &g, &[1; 10]);
    g.checkpoint(Bytes::new());
    let shard = store.shards()[0].clone();
    now(store.close()).expect("a clean end");
    assert_eq!(journal_files(&disk), 1);
    assert!(!now(shard.prepare()).expect("nothing to do"));
    assert_eq!(journal_files(&disk), 1);
}

fn journal_files(disk: &SimHandle) -> usize {
    let all = now(Disk::Sim(disk.clone()).read_dir(std::path::Path::new("/s/shard-000/journal")));
    all.expect("it is there").iter().filter(|e| e.name.ends_with(".fj")).count()
}
