//! Reading in order on a simulated disk.

use super::*;
use crate::{
    Batch, GroupId as Id, Message as New, NewEntry, Options, Store, Sync, Term,
    feet::PINNED_MESSAGES_MAX,
    io::Disk,
    record::Kind,
    shard::segment_path,
    simio::{self, SimHandle},
    store::Group,
    types::Chain,
};

fn now<F: Future>(f: F) -> F::Output {
    simio::finish(f, 10_000, || {})
}

const SIZE: usize = 400 << 10;

/// A stream of `pieces` times `each` messages of [`SIZE`] bytes, of which nothing is in memory.
fn stored(pieces: usize, each: u64) -> (Store, Group) {
    stored_of(SIZE, pieces, each, Options::default())
}

fn stored_of(size: usize, pieces: usize, each: u64, opts: Options) -> (Store, Group) {
    let (store, g, _) = stored_as(|_| size, pieces, each, opts);
    (store, g)
}

fn stored_as(
    size: impl Fn(u64) -> usize,
    pieces: usize,
    each: u64,
    opts: Options,
) -> (Store, Group, SimHandle) {
    let disk = SimHandle::faultless(1);
    let handle = disk.clone();
    let opts = Options { threads: false, own_file_bytes: 1, ..opts };
    let store = now(Store::open(Disk::Sim(disk), "/s", opts)).expect("it opens");
    let (g, _) = store.create(Id(1), false, b"").expect("new");
    for _ in 0..pieces {
        for _ in 0..each {
            let (last, _, prev) = g.last();
            let (seq, mut batch) = (StreamSeq(last.0 + 1), Batch::new());
            let body = vec![seq.0 as u8; size(seq.0)];
            let (time, expires, redacted) = (seq.0 as i64, None, false);
            let (subject, headers) = (&b"a"[..], &b""[..]);
            batch.push(g.id(), &New { seq, time, expires, redacted, subject, headers, body: &body });
            let (payload, chain) = (batch.finish(b""), Chain(last.0 + 1));
            let (index, kind, term) = (last.next(), Kind::Messages, Term(1));
            let e = NewEntry { kind, index, term, prev, chain, payload, digest: None };
            g.append(vec![e], Sync::Always).expect("room");
            now(store.step()).expect("a round");
            let head = now(g.entries(index, 1)).expect("it was appended")[0].head;
            now(g.apply(&head)).expect("it is applied");
        }
        now(store.flush()).expect("a flush");
    }
    let all = g.state.lock().pieces.clone();
    assert_eq!(all.len(), pieces);
    all.iter().for_each(|p| store.shards()[0].cache.forget(p.meta.file));
    (store, g, handle)
}

/// Asks as a consumer does; how often something had to be read.
fn get(g: &Group, seq: u64) -> usize {
    let mut reads = 0;
    loop {
        let asked = g.view().get(StreamSeq(seq));
        match asked {
            Ok(Read::Valid(r)) => {
                assert!(r.message().body.iter().all(|b| *b == seq as u8));
                return reads;
            }
            Ok(other) => panic!("message {seq}: {other:?}"),
            Err(need) => now(g.fetch(need)).expect("a well disk"),
        }
        reads += 1;
    }
}

fn all(g: &Group, seqs: impl Iterator<Item = u64>) -> usize {
    seqs.map(|seq| get(g, seq)).sum()
}

/// Who came to the end of a piece waited while the next one's file was opened and its footers were read, one after another.
#[test]
fn the_next_piece_is_opened_for_who_comes_to_the_end_of_one() {
    let (store, g) = stored(2, 4);
    let (shard, next) = (&store.shards()[0], g.state.lock().pieces[1].key());
    // Two are read at once.
    assert_eq!((1..=4).map(|seq| get(&g, seq)).collect::<Vec<_>>(), [1, 0, 1, 0]);
    assert!(shard.cache.get_index(next).is_none());
    assert_eq!(shard.cache.first_coming().map(|(p, _)| p.key()), Some(next));
    now(shard.open_coming());
    assert!(shard.cache.get_index(next).is_some() && shard.cache.file(next.0).is_some());
    assert!(shard.cache.first_coming().is_none(), "once is enough");
    assert_eq!((5..=8).map(|seq| get(&g, seq)).sum::<usize>(), 2);
    assert!(shard.cache.first_coming().is_none(), "nothing comes after the last piece");

    // Who reads here and there is not at the end of anything.
    let (store, g) = stored(2, 4);
    [1, 4].iter().for_each(|seq| assert_eq!(get(&g, *seq), 1));
    assert!(store.shards()[0].cache.first_coming().is_none());
}

/// One message of each part that was read stayed for whoever may ask for it again, and the memory that it was read into with it.
#[test]
fn what_was_asked_for_lets_go_of_the_memory_that_it_was_read_into() {
    let (_store, g) = stored(1, 20);
    for seq in 1..=20 {
        get(&g, seq);
        let kept = g.state.lock().pins.message_bytes();
        assert!(kept <= PINNED_MESSAGES_MAX + SIZE + 1000, "{kept} bytes after message {seq}");
    }
}

/// One here and one there: what stands around is read with it, as long as there is memory for it.
#[test]
fn what_stands_around_a_small_message_is_read_with_it() {
    let (_store, g) = stored_of(1000, 1, 1000, Options::default());
    assert_eq!([500, 420, 580, 900, 860, 999].map(|seq| get(&g, seq)), [1, 0, 0, 1, 0, 0]);
    let reads: usize = (1..=1000).map(|seq| get(&g, seq)).sum();
    assert!(reads <= 4, "{reads} readings for what is left");

    let (_store, g) = stored_of(1000, 1, 1000, Options { block_cache: 100 << 10, ..Options::default() });
    assert_eq!([500, 420, 580].map(|seq| get(&g, seq)), [1, 1, 1]);
}

/// A scan goes round in its part of the memory for blocks, also where there is more.
#[test]
fn who_reads_small_messages_in_order_leaves_little_behind() {
    let opts = Options { block_cache: 8 << 20, ..Options::default() };
    let (store, g) = stored_of(1000, 1, 3000, opts);
    let reads: usize = (1..=3000).map(|seq| get(&g, seq)).sum();
    assert!(reads <= 3000 / 200, "{reads} readings for 3 MiB");
    let kept = store.shards()[0].cache.block_bytes();
    assert!(kept <= (8 << 20) / 8 + (300 << 10), "{kept} bytes stayed");
}

/// A reading of many blocks that fails says nothing of the others: each is tried by itself.
#[test]
fn a_bad_place_takes_no_more_than_its_own_block() {
    for in_order in [true, false] {
        let (store, g, disk) = stored_as(|_| 1000, 1, 1000, Options::default());
        let (shard, meta) = (&store.shards()[0], g.state.lock().pieces[0].meta.clone());
        let f = now(shard.index_foot(&meta)).expect("a well disk");
        let (i, at) = f.block_of(&meta, StreamSeq(500)).expect("it is there");
        disk.bad_place(segment_path(&shard.dir, meta.file).display().to_string(), at + 100);
        let gone = (0..1000u64).map(|k| if in_order { k + 1 } else { 1 + k * 611 % 1000 }).filter(|seq| {
            // Nothing but the disk answers.
            shard.cache.forget(meta.file);
            g.state.lock().pins = Default::default();
            shard.cache.put_index((meta.file, meta.off), f.clone());
            let asked = g.view().get(StreamSeq(*seq));
            asked.is_err_and(|need| now(g.fetch(need)).is_err())
        });
        let (mut gone, of_block): (Vec<u64>, _) = (gone.collect(), f.range_of(&meta, i));
        gone.sort_unstable();
        assert_eq!(gone, of_block.collect::<Vec<_>>());
        assert!(!gone.is_empty() && gone.len() < 20);
    }
}

/// A block that is part of more holds on to all of it: only those that pass in order may, which are few, come together and go together.
#[test]
fn what_stays_in_the_cache_holds_its_own_bytes_only() {
    let opts = || Options { block_cache: 8 << 20, ..Options::default() };
    // Hot ones among many, and somebody who passes over all.
    let (store, g) = stored_of(1000, 1, 12_000, opts());
    for turn in 0..30 {
        all(&g, (0..40).map(|k| 1 + k * 300));
        all(&g, (0..40).map(|k| 1 + (turn * 997 + k * 613) % 12_000));
        if turn % 5 == 4 {
            all(&g, 1..=12_000);
        }
        // Nobody asks any more.
        g.state.lock().pins = Default::default();
        assert_eq!(store.shards()[0].cache.hoarders(), 0, "turn {turn}");
    }
    // Small ones among large ones.
    let (store, g, _) = stored_as(|n| if n % 5 == 0 { 300 } else { 128 << 10 }, 2, 40, opts());
    all(&g, 1..=80);
    g.state.lock().pins = Default::default();
    assert_eq!(store.shards()[0].cache.hoarders(), 0);
}

/// Many who pass in order at once find what was read for them.
#[test]
fn many_readers_in_order_read_nothing_twice() {
    let (_store, g) = stored_of(1000, 24, 400, Options::default());
    let mut reads = 0;
    for turn in 0..16 {
        for reader in 0..24 {
            reads += (1..=25).map(|k| get(&g, reader * 400 + turn * 25 + k)).sum::<usize>();
        }
    }
    // Two parts a piece, and what is not yet known to be in order.
    assert!(reads <= 24 * 3, "{reads} readings of 24 pieces of two parts");
}
