//! A store with a bad message, and one that has it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::*;
use crate::{
    Batch, Kind, Message as New, NewEntry, Options, Read, Store, Sync, Term,
    io::Disk,
    simio::{self, SimHandle},
    types::Chain,
};

const G: GroupId = GroupId(1);

fn now<F: Future>(f: F) -> F::Output {
    simio::finish(f, 10_000, || {})
}

/// A store with these messages in one piece below its checkpoint, and its disk.
fn stored(bodies: &[&[u8]]) -> (Store, Group, SimHandle) {
    let disk = SimHandle::faultless(1);
    let opts = Options { threads: false, own_file_bytes: 1, ..Options::default() };
    let store = now(Store::open(Disk::Sim(disk.clone()), "/s", opts)).expect("it opens");
    let (g, _) = store.create(G, false, b"").expect("new");
    for body in bodies {
        let (last, _, prev) = g.last();
        let (seq, mut batch) = (StreamSeq(last.0 + 1), Batch::new());
        let (subject, headers) = (&b"a"[..], &b""[..]);
        batch.push(G, &New { seq, time: 1, expires: None, redacted: false, subject, headers, body });
        let (payload, chain) = (batch.finish(b""), Chain(last.0 + 1));
        let (index, kind, term) = (last.next(), Kind::Messages, Term(1));
        let e = NewEntry { kind, index, term, prev, chain, payload, digest: None };
        g.append(vec![e], Sync::Always).expect("room");
        now(store.step()).expect("a round");
        let head = now(g.entries(index, 1)).expect("it was appended")[0].head;
        now(g.apply(&head)).expect("it is applied");
    }
    g.checkpoint(Bytes::new());
    now(store.flush()).expect("a flush");
    (store, g, disk)
}

/// Turns a bit of a message's body where it lies in a segment.
fn damage(disk: &SimHandle, store: &Store, body: &[u8]) {
    let shard = &store.shards()[0];
    let p = shard.group(G).expect("it is there").lock().pieces[0].clone();
    let path = crate::shard::segment_path(&shard.dir, p.meta.file);
    let file = now(shard.disk.open(&path, env::disk::OpenOptions::READ)).expect("it is there");
    let raw = now(file.scan_at(p.meta.off, p.meta.data as usize)).expect("it is there");
    let at = raw.windows(body.len()).position(|w| w == body).expect("it is not sealed");
    disk.with(|d| d.rot(&path.to_string_lossy(), p.meta.off + at as u64, 0)).expect("it is there");
    shard.cache.forget(p.meta.file);
}

fn get(g: &Group, seq: u64) -> Option<Vec<u8>> {
    match now(g.ask(|v| v.get(StreamSeq(seq)))).expect("the disk answers") {
        Read::Valid(s) => Some(s.message().body.to_vec()),
        Read::Damaged(_) => None,
        Read::Absent => panic!("message {seq} is there"),
    }
}

fn record(g: &Group, seq: u64) -> Option<Bytes> {
    now(g.record(StreamSeq(seq))).expect("the disk answers")
}

/// Gives what it has, and counts how often it is asked.
struct Other {
    has: Option<Bytes>,
    asked: AtomicUsize,
}

impl Healer for Other {
    fn record(&self, _: GroupId, _: StreamSeq) -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send + '_>> {
        self.asked.fetch_add(1, Relaxed);
        Box::pin(async { self.has.clone() })
    }
}

#[test]
fn s113_a_damaged_message_is_answered_with_what_another_store_has() {
    env::run(async {
        let bodies = [&b"the first message"[..], b"the second message", b"the third message"];
        let (_whole, theirs, _) = stored(&bodies);
        for (given, right) in [(2, true), (3, false)] {
            let (store, g, disk) = stored(&bodies);
            let has = record(&theirs, given);
            assert!(has.is_some());
            damage(&disk, &store, bodies[1]);
            assert_eq!((get(&g, 1).as_deref(), get(&g, 2)), (Some(bodies[0]), None));
            assert!(record(&g, 2).is_none());
            let other = Arc::new(Other { has, asked: AtomicUsize::new(0) });
            let healer: Arc<dyn Healer> = other.clone();
            store.heal_with(&healer);
            for _ in 0..3 {
                assert_eq!(get(&g, 2).as_deref(), right.then_some(bodies[1]), "S-113");
            }
            // What it got it keeps; who had nothing that is right is not asked again at once.
            assert_eq!(other.asked.load(Relaxed), 1);
            assert_eq!(record(&g, 2).is_some(), right);
            assert_eq!(get(&g, 3).as_deref(), Some(bodies[2]));
            assert!(store.damage().iter().any(|d| d.messages == Some((StreamSeq(2), StreamSeq(2)))));
        }
    })
    .expect("a runtime starts");
}

#[test]
fn what_is_held_is_bounded() {
    let mut healed = Healed::default();
    for seq in 0..70 {
        healed.put(G, StreamSeq(seq), Bytes::from(vec![0; (1 << 20) - RECORD_COST]));
        assert!(healed.records.contains_key(&(G, StreamSeq(seq))));
    }
    let sum: usize = healed.records.values().map(cost).sum();
    assert_eq!((healed.bytes, sum), (HELD_BYTES, HELD_BYTES));
}
