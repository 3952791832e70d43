//! Stores whose keys come, change, are missing or wrong: nothing readable on the disk, nothing lost, nothing opened without its key.

use bytes::Bytes;

use crate::{
    Batch, Chain, Cipher, Disk, Error, Group, GroupId, Key, Keys, Kind, LogIndex, Message, NewEntry, Options,
    Read, Result, Store, StreamSeq, Sync, Term,
    simio::{self, SimHandle},
};

const G: GroupId = GroupId(1);

fn now<F: Future>(f: F) -> F::Output {
    simio::finish(f, 100_000, || {})
}

fn key(secret: &str) -> Key {
    Key::new(Cipher::ChaCha, secret.as_bytes())
}

fn open(disk: &SimHandle, keys: &[&Key]) -> Result<Store> {
    let options = Options {
        sector: 512,
        journal_file_min: 16 << 10,
        journal_file_max: 64 << 10,
        journal_budget: 1 << 20,
        own_file_bytes: 2 << 10,
        reserve: 4 << 10,
        block: 600,
        subjects_saved_min: 1,
        reseal_bytes: 1,
        keys: Keys(keys.iter().map(|k| (*k).clone()).collect()),
        threads: false,
        ..Options::default()
    };
    now(Store::open(Disk::Sim(disk.clone()), "/s", options))
}

fn body(seq: u64) -> Vec<u8> {
    format!("body of message {seq}; ").repeat(4).into_bytes()
}

/// Appends and applies `n` messages, one an entry.
fn add(store: &Store, g: &Group, n: u64) {
    for _ in 0..n {
        append(store, g);
        apply(g);
    }
}

/// Appends one message.
fn append(store: &Store, g: &Group) {
    let (last, _, prev) = g.last();
    let seq = g.log_seq().next();
    let (subject, body) = (format!("hidden.{}", seq.0 % 3), body(seq.0));
    let mut batch = Batch::new();
    batch.push(
        G,
        &Message {
            seq,
            time: 1,
            expires: None,
            redacted: false,
            subject: subject.as_bytes(),
            headers: b"",
            body: &body,
        },
    );
    let (kind, term, payload) = (Kind::Messages, Term(1), batch.finish(b""));
    let chain = Chain(prev.0.wrapping_mul(31) + last.0 + 1);
    let e = NewEntry { kind, index: last.next(), term, prev, chain, payload, digest: None };
    g.append(vec![e], Sync::Always).expect("room");
    now(store.step()).expect("a round");
}

fn apply(g: &Group) {
    while g.applied().0 < g.last().0 {
        let head = now(g.entries(g.applied().0.next(), 1)).expect("it was appended")[0].head;
        now(g.apply(&head)).expect("in order");
    }
}

/// Every message is there as it was written, but for those that are gone.
fn whole(store: &Store, last: u64, gone: &[u64]) {
    let g = store.group(G).expect("it is there");
    apply(&g);
    assert_eq!(g.state().last.0, last);
    for seq in 1..=last {
        match now(g.get(StreamSeq(seq))).expect("readable") {
            Read::Absent => assert!(gone.contains(&seq), "message {seq} is gone"),
            Read::Valid(r) => {
                assert!(!gone.contains(&seq), "message {seq} came back");
                assert_eq!(r.message().body, body(seq));
            }
            Read::Damaged(d) => panic!("{seq}: {d}"),
        }
    }
    now(g.verify()).expect("whole");
    assert!(store.damage().is_empty(), "{:?}", store.damage());
}

fn content(disk: &SimHandle) -> Vec<(String, Vec<u8>)> {
    disk.with(|d| {
        let of = |d: &mut env::simdisk::SimDisk, f: String| {
            let len = d.stat(&f).expect("it is there").len;
            let bytes = d.pristine(&f, 0..len).expect("it is there");
            (f, bytes)
        };
        let files = d.files();
        files.into_iter().map(|f| of(d, f)).collect()
    })
}

/// Whether these bytes stand in any file.
fn stands(disk: &SimHandle, text: &[u8]) -> Option<String> {
    let all = content(disk).into_iter();
    all.filter(|(_, b)| b.windows(text.len()).any(|w| w == text)).map(|f| f.0).next()
}

/// What the headers of journal and segment files say sealed them.
fn keys_in_use(disk: &SimHandle) -> Vec<u32> {
    let of = |(path, b): (String, Vec<u8>)| {
        if path.ends_with(".fs") {
            return crate::segment::FileHead::decode(&b).map(|h| h.key);
        }
        // A file that waits has no header yet.
        crate::round::FileHead::decode(&b).filter(|_| path.ends_with(".fj")).map(|h| h.key)
    };
    let mut all: Vec<u32> = content(disk).into_iter().filter_map(of).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A store of 40 messages, a few of them deleted, in pieces below and above the checkpoint and in the journal.
fn filled(disk: &SimHandle, keys: &[&Key]) -> Vec<u64> {
    let store = open(disk, keys).expect("opens");
    let (g, _) = store.create(G, false, b"options of the stream").expect("new");
    add(&store, &g, 15);
    now(g.delete(&[StreamSeq(3), StreamSeq(7)])).expect("there");
    g.checkpoint(Bytes::from_static(b"what the layer above keeps"));
    now(store.flush()).expect("a flush");
    add(&store, &g, 15);
    now(store.flush()).expect("a flush");
    add(&store, &g, 10);
    vec![3, 7]
}

#[test]
fn s31_nothing_is_opened_without_its_key_and_nothing_is_lost() {
    let (right, wrong) = (key("right"), key("wrong"));
    for flushed in [false, true] {
        let disk = SimHandle::faultless(1);
        let gone = if flushed {
            filled(&disk, &[&right])
        } else {
            let store = open(&disk, &[&right]).expect("opens");
            let (g, _) = store.create(G, false, b"").expect("new");
            add(&store, &g, 40);
            vec![]
        };
        for text in [&b"body of message"[..], b"hidden.", b"what the layer above", b"options of the"] {
            assert_eq!(stands(&disk, text), None, "{}", String::from_utf8_lossy(text));
        }
        disk.with(|d| d.process_death());
        let before = content(&disk);
        for keys in [&[][..], &[&wrong]] {
            match open(&disk, keys) {
                Err(Error::Format(e)) => {
                    let named = format!("sealed with the key {:08x}, which is not configured", right.id());
                    assert!(e.contains(&named), "{e}");
                }
                other => panic!("{:?}", other.map(|s| s.groups())),
            }
            assert!(content(&disk) == before, "a refusal changes nothing");
        }
        whole(&open(&disk, &[&right]).expect("opens"), 40, &gone);
        whole(&open(&disk, &[&wrong, &right]).expect("opens"), 40, &gone);
    }
}

#[test]
fn s32_an_earlier_key_is_needed_until_the_next_manifest_and_gone_when_all_is_sealed_anew() {
    let (first, second) = (key("first"), key("second"));
    let disk = SimHandle::faultless(1);
    let gone = filled(&disk, &[&first]);
    disk.with(|d| d.process_death());
    // A life that dies before its first flush leaves all as it was.
    drop(open(&disk, &[&second, &first]).expect("opens"));
    disk.with(|d| d.process_death());
    assert!(open(&disk, &[&second]).is_err());
    let store = open(&disk, &[&second, &first]).expect("opens");
    whole(&store, 40, &gone);
    assert!(store.foreign_bytes() > 0);
    now(store.flush()).expect("a flush");
    drop(store);
    disk.with(|d| d.power_failure());
    assert!(keys_in_use(&disk).contains(&first.id()), "one flush does not seal all anew");
    // From now on the manifest brings the first key.
    let store = open(&disk, &[&second]).expect("opens");
    whole(&store, 40, &gone);
    let g = store.group(G).expect("it is there");
    add(&store, &g, 5);
    let mut flushes = 0;
    while store.foreign_bytes() > 0 {
        now(store.flush()).expect("a flush");
        flushes += 1;
        assert!(flushes < 20, "{} bytes are never sealed anew", store.foreign_bytes());
    }
    whole(&store, 45, &gone);
    now(store.close()).expect("a clean end");
    // A power failure could bring files back whose removal was not synced: no manifest needs them, and the next opening removes them.
    disk.with(|d| d.process_death());
    assert_eq!(keys_in_use(&disk), [second.id()]);
    let store = open(&disk, &[&second]).expect("opens");
    whole(&store, 45, &gone);
    assert!(store.shards().iter().all(|s| s.opts.keys.0.len() == 1), "the ring is empty again");
    assert!(open(&disk, &[&first]).is_err());
}

#[test]
fn s32_what_was_plain_is_sealed_once_there_is_a_key() {
    let first = key("first");
    let disk = SimHandle::faultless(1);
    let gone = filled(&disk, &[]);
    disk.with(|d| d.process_death());
    let store = open(&disk, &[]).expect("opens");
    whole(&store, 40, &gone);
    now(store.close()).expect("a clean end");
    disk.with(|d| d.process_death());
    assert!(stands(&disk, b"body of message").is_some());
    let store = open(&disk, &[&first]).expect("opens");
    whole(&store, 40, &gone);
    while store.foreign_bytes() > 0 {
        now(store.flush()).expect("a flush");
    }
    let g = store.group(G).expect("it is there");
    // Slot B of the manifest is written last.
    add(&store, &g, 1);
    now(store.flush()).expect("a flush");
    for text in [&b"body of message"[..], b"hidden.", b"what the layer above", b"options of the"] {
        assert_eq!(stands(&disk, text), None, "{}", String::from_utf8_lossy(text));
    }
    drop((g, store));
    disk.with(|d| d.power_failure());
    assert!(open(&disk, &[]).is_err());
    whole(&open(&disk, &[&first]).expect("opens"), 41, &gone);
}

/// Where the last round of the journal begins: its file, and the place in it.
fn last_round(disk: &SimHandle) -> (String, u64) {
    let of = |(path, b): (String, Vec<u8>)| {
        let head = crate::round::FileHead::decode(&b).filter(|_| path.ends_with(".fj"))?;
        let rounds = crate::round::scan(&b.into(), head.shard, head.epoch, 512, None);
        let last = rounds.into_iter().map(|r| (r.head.round, r.head.off)).max()?;
        Some((last, path))
    };
    let ((_, off), path) = content(disk).into_iter().filter_map(of).max().expect("there are rounds");
    (path, off)
}

/// A round that a recovery gave up as torn, sealed with the earlier key, is met again by whoever opens the store before its file is gone for
/// good. Its key left the ring with the manifest before: the store was refused (level 1, seed 50,817).
#[test]
fn s32_a_round_that_was_given_up_asks_for_no_key_that_is_gone() {
    let (first, second) = (key("first"), key("second"));
    let mut crashes = 0;
    for after in 0.. {
        let disk = SimHandle::faultless(1);
        let store = open(&disk, &[&first]).expect("opens");
        let (g, _) = store.create(G, false, b"").expect("new");
        add(&store, &g, 5);
        drop((g, store));
        disk.with(|d| d.process_death());
        // Nothing vouches for the last round of all: once it is bad it is a torn tail.
        let (path, off) = last_round(&disk);
        disk.with(|d| d.rot(&path, off, 0)).expect("it was written");
        let store = open(&disk, &[&second, &first]).expect("opens");
        assert!(store.torn_tail(), "the last round was given up");
        // All that is needed is then sealed with the second key.
        apply(&store.group(G).expect("it is there"));
        let begin = disk.with(|d| d.ops());
        disk.with(|d| d.plan(begin + after, env::simdisk::Planned::CrashBefore));
        let flushed = now(store.flush()).is_ok();
        drop(store);
        let crashed = disk.with(|d| d.crashed());
        if !crashed {
            break;
        }
        disk.with(|d| d.power_failure());
        // A flush that ended has made the earlier key needless.
        let keys = if flushed { &[&second][..] } else { &[&second, &first] };
        open(&disk, keys).unwrap_or_else(|e| panic!("a crash {after} operations later: {e}"));
        crashes += 1;
    }
    assert!(crashes > 10, "{crashes} crashes in a flush");
}

/// The process dies at each operation of a flush that drops most of a piece, with and without a new key in the next life, and the power fails at
/// each operation of the opening that follows: what the newer slot makes needless may go only once it is durable in both (S-23, S-70).
#[test]
fn s70_a_power_failure_while_a_manifest_from_the_page_cache_is_opened() {
    let (first, second) = (key("first"), key("second"));
    let mut opened = 0;
    // What the power failure keeps is drawn.
    for seed in 0..10 {
        let keys = if seed % 4 == 0 { &[&first][..] } else { &[&second, &first] };
        for died in (0..).step_by(2) {
            let disk = SimHandle::yielding(seed);
            let store = open(&disk, &[&first]).expect("opens");
            let (g, _) = store.create(G, false, b"").expect("new");
            add(&store, &g, 12);
            now(store.flush()).expect("a flush");
            let gone: Vec<u64> = (1..10).collect();
            now(g.delete(&gone.iter().copied().map(StreamSeq).collect::<Vec<_>>())).expect("there");
            g.checkpoint(Bytes::from_static(b"state"));
            let ended = simio::some_polls(store.flush(), died);
            drop((g, store));
            disk.with(|d| d.process_death());
            // However long the opening takes, it is met at each of its operations.
            for after in 0.. {
                let disk = disk.copy();
                let at = disk.with(|d| d.ops()) + after;
                disk.with(|d| d.plan(at, env::simdisk::Planned::CrashBefore));
                open(&disk, keys).ok();
                if !disk.with(|d| d.crashed()) {
                    break;
                }
                disk.with(|d| d.power_failure());
                let store = open(&disk, keys).unwrap_or_else(|e| panic!("died {died}, crash {after}: {e}"));
                let g = store.group(G).expect("it is there");
                apply(&g);
                let left = g.state();
                assert!([(12, 1), (3, 10)].contains(&(left.msgs, left.first.0)), "{died}, {after}: {left:?}");
                whole(&store, 12, if left.msgs == 3 { &gone } else { &[] });
                opened += 1;
            }
            if ended {
                break;
            }
        }
    }
    assert!(opened > 200, "{opened} openings");
}

/// A truncation that came while a flush was writing its manifest pinned the round of an entry that the flush had just moved: the next manifest
/// began its replay in a file that was gone (level 1, seed 52,552).
#[test]
fn s23_a_truncation_during_a_flush_needs_nothing_that_was_given_up() {
    let (first, second) = (key("first"), key("second"));
    let mut cut = 0;
    for polls in 0.. {
        let disk = SimHandle::yielding(1);
        let store = open(&disk, &[&first]).expect("opens");
        let (g, _) = store.create(G, false, b"").expect("new");
        add(&store, &g, 3);
        drop((g, store));
        disk.with(|d| d.process_death());
        let store = open(&disk, &[&second, &first]).expect("opens");
        let g = store.group(G).expect("it is there");
        apply(&g);
        append(&store, &g);
        let mut flush = std::pin::pin!(store.flush());
        let ended = simio::some_polls(flush.as_mut(), polls);
        g.truncate(LogIndex(4)).expect("it is not applied");
        if !ended {
            now(flush).expect("a flush");
        }
        now(store.flush()).expect("a flush");
        disk.with(|d| d.power_failure());
        let store = open(&disk, &[&second, &first]).expect("opens");
        let g = store.group(G).expect("it is there");
        // Nobody was told that the truncation is durable.
        whole(&store, g.last().0.0, &[]);
        assert!((3..=4).contains(&g.last().0.0), "{:?}", g.last());
        if ended {
            break;
        }
        cut += 1;
    }
    assert!(cut > 10, "{cut} truncations");
}

/// A sync that failed lost a journal file's header and left the round behind it. Whoever opened the store without a key took what stands there for plain and
/// served it; the next life had a key, could not tell any more what is plain, and gave the last round up (level 1, seed 2,017,676).
#[test]
fn s83_what_was_taken_from_a_file_without_a_header_stays_when_a_key_comes() {
    let disk = SimHandle::faultless(3);
    let store = open(&disk, &[]).expect("opens");
    // The round of a group's beginning is a frame that shows by nothing of its own whether it is sealed.
    store.create(G, false, b"options of the stream").expect("new");
    now(store.step()).expect("a round");
    drop(store);
    let (path, _) = last_round(&disk);
    disk.with(|d| {
        d.process_death();
        let h = d.open(&path, env::disk::OpenOptions::EDIT).expect("it is there");
        d.write(h, 0, &[0; 512]).and_then(|()| d.sync(h)).expect("a healthy disk");
        d.close(h);
    });
    let store = open(&disk, &[]).expect("opens");
    assert!(store.group(G).is_ok() && !store.torn_tail());
    drop(store);
    disk.with(|d| d.power_failure());
    let store = open(&disk, &[&key("new")]).expect("opens");
    assert!(store.group(G).is_ok() && !store.torn_tail(), "it was served before");
    assert!(store.damage().is_empty());
}
