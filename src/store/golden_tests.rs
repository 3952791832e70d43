//! A store's directory as format 1 has it, and format 2 for a journal that refers to segments, byte by byte: what is written today is what was written then, and what was written
//! then is read today. `REWRITE=1` writes the files anew, for a new format. In `format-1-sealed` it is sealed: begun with one key, gone on with
//! another one, which alone opens it.

#![allow(clippy::disallowed_methods, reason = "the files are a checkout's own")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use env::disk::OpenOptions;

use crate::{
    Batch, Chain, Cipher, Disk, Group, GroupId, Key, Keys, Kind, LogIndex, Message, NewEntry, Options, Read,
    Store, StreamSeq, Sync, Term,
    simio::{self, SimHandle},
};

fn now<F: Future>(f: F) -> F::Output {
    simio::finish(f, 10_000, || {})
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

fn older() -> Key {
    Key::new(Cipher::ChaCha, b"the older key")
}
fn newer() -> Key {
    Key::new(Cipher::Aes, b"the newer key")
}

fn open(disk: &SimHandle, keys: &[Key]) -> Store {
    open_with(disk, options(keys))
}

fn open_with(disk: &SimHandle, options: Options) -> Store {
    now(Store::open(Disk::Sim(disk.clone()), "/s", options)).expect("it opens")
}

fn options(keys: &[Key]) -> Options {
    Options {
        sector: 512,
        journal_file_min: 8 << 10,
        journal_file_max: 16 << 10,
        journal_budget: 64 << 10,
        reserve: 1024,
        block: 200,
        keys: Keys(keys.to_vec()),
        threads: false,
        ..Options::default()
    }
}

/// Message `seq` of the stream, as it is told to a batch and asked for later.
fn message(seq: u64, f: impl FnOnce(&Message<'_>)) {
    let subject = ["orders.new", "orders.paid", "audit"][seq as usize % 3];
    let body = vec![seq as u8; seq as usize * 7];
    f(&Message {
        seq: StreamSeq(seq),
        time: 1_700_000_000_000_000_000 + seq as i64,
        expires: seq.is_multiple_of(4).then_some(1_800_000_000_000_000_000),
        redacted: false,
        subject: subject.as_bytes(),
        headers: if seq.is_multiple_of(5) { b"NATS/1.0\r\nA: b\r\n\r\n" } else { b"" },
        body: &body,
    });
}

fn append(g: &Group, first: u64, last_seq: u64, rest: &[u8]) {
    let (last, _, prev) = g.last();
    let mut batch = Batch::new();
    let (kind, payload) = if first > last_seq {
        (Kind::Control, Bytes::copy_from_slice(rest))
    } else {
        (first..=last_seq).for_each(|seq| message(seq, |m| batch.push(g.id(), m)));
        (Kind::Messages, batch.finish(rest))
    };
    let chain = Chain(prev.0.wrapping_mul(31) + last.0 + 1);
    let e = NewEntry { kind, index: last.next(), term: Term(3), prev, chain, payload, digest: None };
    g.append(vec![e], Sync::Always).expect("room");
}

fn apply(g: &Group) {
    while g.applied().0 < g.last().0 {
        let all = now(g.entries(g.applied().0.next(), 1)).expect("it was appended");
        now(g.apply(&all[0].head)).expect("in order");
    }
}

/// Does a little of everything that reaches the disk.
fn write(disk: &SimHandle, keys: &[Key]) {
    let store = open(disk, keys);
    let (g, _) = store.create(GroupId(7), false, b"options").expect("new");
    store.create(GroupId(8), true, b"in memory").expect("new");
    g.set_hard_state(Bytes::from_static(b"term and vote")).expect("room");
    append(&g, 1, 5, b"what else");
    append(&g, 1, 0, b"control");
    append(&g, 6, 9, b"");
    now(store.step()).expect("a round");
    apply(&g);
    assert_eq!(now(g.delete(&[StreamSeq(2)])).expect("there"), [StreamSeq(2)]);
    g.checkpoint(Bytes::from_static(b"checkpoint"));
    now(store.step()).expect("a round");
    now(store.flush()).expect("a flush");
    append(&g, 10, 10, b"");
    append(&g, 11, 11, b"");
    now(store.step()).expect("a round");
    g.truncate(LogIndex(5)).expect("not applied");
    append(&g, 11, 12, b"another");
    now(store.step()).expect("a round");
}

fn files(disk: &SimHandle) -> Vec<(String, Vec<u8>)> {
    disk.with(|d| {
        let all = d.files();
        let read = |path: String| {
            let len = d.stat(&path).expect("it is there").len;
            let mut bytes = d.pristine(&path, 0..len).expect("it is there");
            // What was reserved in a journal file and never written.
            while path.ends_with(".fj") && bytes.last() == Some(&0) {
                bytes.pop();
            }
            (path.replace('/', "_"), bytes)
        };
        all.into_iter().map(read).collect()
    })
}

#[test]
fn format_1_is_what_it_was() {
    let disk = SimHandle::faultless(1);
    write(&disk, &[]);
    is_golden("format-1", &disk);
}

#[test]
fn format_1_sealed_is_what_it_was() {
    let disk = SimHandle::faultless(1);
    crate::l1::salts_from(1);
    write(&disk, &[older()]);
    disk.with(|d| d.process_death());
    let store = open(&disk, &[newer(), older()]);
    // What is not applied stays in the journal as the older key has sealed it.
    now(store.flush()).expect("a flush");
    is_golden("format-1-sealed", &disk);
}

fn is_golden(name: &str, disk: &SimHandle) {
    let golden = || golden(name);
    let written = files(disk);
    if std::env::var_os("REWRITE").is_some() {
        std::fs::remove_dir_all(golden()).ok();
        std::fs::create_dir_all(golden()).expect("a checkout can be written");
        for (name, bytes) in &written {
            std::fs::write(golden().join(name), bytes).expect("a checkout can be written");
        }
    }
    let mut names: Vec<_> = std::fs::read_dir(golden())
        .expect("the golden files are there")
        .map(|e| e.expect("readable").file_name().into_string().expect("an own name"))
        .collect();
    names.sort();
    assert_eq!(names, written.iter().map(|f| f.0.clone()).collect::<Vec<_>>());
    for (name, bytes) in &written {
        let then = std::fs::read(golden().join(name)).expect("it is there");
        let differs = bytes.iter().zip(&then).position(|(a, b)| a != b);
        assert!(
            *bytes == then,
            "{name} is another from byte {differs:?} on ({} bytes, were {})",
            bytes.len(),
            then.len()
        );
    }
}

/// Message `seq` of a stream of large ones.
fn large(seq: u64, f: impl FnOnce(&Message<'_>)) {
    let body = vec![seq as u8; if seq.is_multiple_of(5) { 100 } else { 1500 }];
    message(seq, |m| f(&Message { body: &body, ..*m }));
}

fn append_large(g: &Group, seq: u64) {
    let (last, _, prev) = g.last();
    let mut batch = Batch::new();
    large(seq, |m| batch.push(g.id(), m));
    let chain = Chain(prev.0.wrapping_mul(31) + last.0 + 1);
    let payload = batch.finish(b"");
    let e = NewEntry {
        kind: Kind::Messages,
        index: last.next(),
        term: Term(3),
        prev,
        chain,
        payload,
        digest: None,
    };
    g.append(vec![e], Sync::Always).expect("room");
}

/// Rounds that refer to a segment, before and after a flush that takes what was laid out.
#[test]
fn format_2_is_what_it_was() {
    let disk = SimHandle::faultless(1);
    let referring = Options {
        refer_min: 1000,
        refer_synced_min: 1,
        own_file_bytes: 1,
        early_max: 8 << 10,
        ..options(&[])
    };
    let store = open_with(&disk, referring.clone());
    let (g, _) = store.create(GroupId(7), false, b"options").expect("new");
    for seq in 1..=12 {
        append_large(&g, seq);
        now(store.step()).expect("a round");
    }
    apply(&g);
    g.checkpoint(Bytes::from_static(b"checkpoint"));
    now(store.flush()).expect("a flush");
    for seq in 13..=16 {
        append_large(&g, seq);
        now(store.step()).expect("a round");
    }
    assert!(!store.shards()[0].named.lock().is_empty(), "rounds refer to a segment");
    drop((g, store));
    is_golden("format-2", &disk);
    let disk = restored("format-2");
    let store = open_with(&disk, referring);
    assert!(store.damage().is_empty() && !store.torn_tail(), "{:?}", store.damage());
    let g = store.group(GroupId(7)).expect("it is there");
    assert_eq!((g.last().0, g.applied().0), (LogIndex(16), LogIndex(12)));
    apply(&g);
    now(g.verify()).expect("whole");
    for seq in 1..=16 {
        match now(g.get(StreamSeq(seq))).expect("readable") {
            Read::Valid(r) => large(seq, |m| assert_eq!(r.message(), *m)),
            other => panic!("{seq}: {other:?}"),
        }
    }
}

#[test]
fn a_store_of_format_1_is_read() {
    is_read("format-1", &[]);
    is_read("format-1-sealed", &[newer()]);
}

/// A disk with these files on it.
fn restored(name: &str) -> SimHandle {
    let golden = || golden(name);
    let disk = SimHandle::faultless(1);
    disk.with(|d| {
        for dir in ["/s", "/s/shard-000", "/s/shard-000/journal", "/s/shard-000/segments"] {
            d.create_dir(dir).expect("new");
        }
        for e in std::fs::read_dir(golden()).expect("the golden files are there") {
            let e = e.expect("readable");
            let name = e.file_name().into_string().expect("an own name");
            let path = name.replace('_', "/");
            let bytes = std::fs::read(e.path()).expect("readable");
            let h = d.open(&path, OpenOptions::CREATE_NEW).expect("new");
            // A journal file has its length from the start.
            if path.ends_with(".fj") {
                let len = crate::round::FileHead::decode(&bytes).map_or(8 << 10, |h| h.len);
                d.allocate(h, 0, len).expect("room");
            }
            d.write(h, 0, &bytes).expect("room");
            d.sync(h).expect("synced");
        }
    });
    disk
}

fn is_read(name: &str, keys: &[Key]) {
    let sealed = !keys.is_empty();
    let disk = restored(name);
    let store = open(&disk, keys);
    assert!(store.damage().is_empty() && !store.torn_tail(), "{:?}", store.damage());
    assert_eq!(store.groups(), [GroupId(7), GroupId(8)]);
    let g = store.group(GroupId(7)).expect("it is there");
    assert_eq!((&g.options()[..], g.hard_state().as_deref()), (&b"options"[..], Some(&b"term and vote"[..])));
    assert_eq!((g.last().0, g.applied().0), (LogIndex(5), LogIndex(3)));
    let known = store.shards()[0].opts.keys.0.len();
    assert_eq!(
        known,
        if sealed { 2 } else { 0 },
        "the journal needs the older key, which the manifest brings"
    );
    assert_eq!(&g.applied().1.blob[..], b"checkpoint");
    apply(&g);
    now(g.verify()).expect("whole");
    for seq in 1..=12 {
        let got = now(g.get(StreamSeq(seq))).expect("readable");
        match got {
            Read::Absent => assert_eq!(seq, 2),
            Read::Valid(r) => message(seq, |m| assert_eq!(r.message(), *m)),
            Read::Damaged(d) => panic!("{seq}: {d}"),
        }
    }
    assert!(store.group(GroupId(8)).expect("it is there").is_memory());
}
