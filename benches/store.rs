//! What the store costs on the real disk: `cargo bench -p fulmar-bench --bench store`. The directory is
//! `$FULMAR_BENCH_DIR`, or the system's temporary one: it must not be in memory for the figures of appends to mean anything.
//!
//! Appends: the time of one durable entry of one small message with a window of unacknowledged ones over a number of groups,
//! with the journal syncs that this took, over at least three turns of the journal. The rest: one message each, without
//! the disk. Figures: docs/design/0011-storage.md.

#![allow(missing_docs, reason = "criterion's macros document nothing")]
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

#[path = "store_logs.rs"]
mod store_logs;

use std::{
    cell::Cell,
    collections::VecDeque,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use env::disk::Disk;
use store::{Batch, Error, GroupId, Head, Options, Store, StreamSeq, Sync};
use store_logs::{Dir, Log, appends, apply, apply_all, block_on, log};

fn options() -> Options {
    Options { journal_file_max: 16 << 20, flush_bytes: 16 << 20, ..Options::default() }
}

fn durable_appends(c: &mut Criterion) {
    let mut g = c.benchmark_group("append");
    g.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for groups in [1u64, 100, 10_000] {
        for window in [1usize, 100, 1000] {
            let (syncs, entries) = (Cell::new(0), Cell::new(0));
            g.throughput(Throughput::Elements(1));
            g.bench_function(format!("{groups} groups, window {window}"), |b| {
                b.iter_custom(|n| {
                    let dir = Dir::new();
                    block_on(async {
                        let store = Store::open(Disk::os(), &dir.0, options()).await.expect("opens");
                        store.spawn();
                        let mut logs = Vec::new();
                        for id in 1..=groups {
                            let (group, _) = store.create(GroupId(id), false, b"").expect("a new group");
                            logs.push(Log { group, batch: Batch::new(), subjects: 100 });
                        }
                        store.sync().await.expect("created");
                        let began = Instant::now();
                        let s = appends(&store, &mut logs, window, n, &[7; 128]).await;
                        let took = began.elapsed();
                        syncs.set(syncs.get() + s);
                        entries.set(entries.get() + n);
                        took
                    })
                })
            });
            if entries.get() == 0 {
                continue;
            }
            println!(
                "  {} syncs for {} entries: {:.3} a sync",
                syncs.get(),
                entries.get(),
                entries.get() as f64 / syncs.get().max(1) as f64
            );
        }
    }
    g.finish();
}

fn in_memory(c: &mut Criterion) {
    let mut g = c.benchmark_group("message");
    g.throughput(Throughput::Elements(1));
    for (name, subjects, per) in
        [("1 subject", 1u64, 100u64), ("100k subjects", 100_000, 100), ("100k subjects, alone", 100_000, 1)]
    {
        let dir = Dir::new();
        block_on(async {
            let store = Store::open(Disk::os(), &dir.0, options()).await.expect("opens");
            store.spawn();
            let mut l = log(&store, 1, true, subjects).await;
            let mut heads: VecDeque<Head> = VecDeque::new();
            let (mut push, mut join) = (Duration::ZERO, Duration::ZERO);
            let n = 2_000_000 / per.max(4);
            for _ in 0..n {
                let e = l.entry(per, &[7; 128]);
                let sealed = e.clone().seal(l.group.id()).expect("it is good").head;
                let began = Instant::now();
                l.group.append(vec![e], Sync::Always).expect("memory");
                push += began.elapsed();
                heads.push_back(sealed);
            }
            for h in heads {
                let began = Instant::now();
                let mut v = l.group.view();
                assert!(v.apply(&h).is_ok());
                join += began.elapsed();
            }
            let each = |d: Duration| d.as_nanos() as f64 / (n * per) as f64;
            println!("message/{name}: append {:.0} ns, apply {:.0} ns a message", each(push), each(join));
            let last = n * per;
            let mut at = 0u64;
            g.bench_function(format!("{name}: get from the tail"), |b| {
                b.iter(|| {
                    at = at % last + 1;
                    assert!(l.group.view().get(StreamSeq(at)).is_ok());
                })
            });
            g.bench_function(format!("{name}: next without a filter"), |b| {
                b.iter(|| {
                    at = at % last + 1;
                    assert!(l.group.view().next::<&[u8]>(&[], StreamSeq(at)).is_ok());
                })
            });
            g.bench_function(format!("{name}: pending without a filter"), |b| {
                b.iter(|| {
                    at = at % last + 1;
                    assert!(l.group.view().pending::<&[u8]>(&[], StreamSeq(at)).is_ok());
                })
            });
            let subject = b"orders.0000000.created";
            g.bench_function(format!("{name}: last of a subject"), |b| {
                b.iter(|| assert!(l.group.view().last_of(subject, StreamSeq(u64::MAX)).is_ok()))
            });
            let mut at = 0;
            let began = Instant::now();
            while at < last {
                at += 1;
                assert!(l.group.view().remove(StreamSeq(at)).is_ok());
            }
            println!(
                "message/{name}: remove {:.0} ns a message",
                began.elapsed().as_nanos() as f64 / last as f64
            );
        });
    }
    g.finish();
}

/// What is not measured again and again: a million subjects, and a start with 10,000 groups.
fn large(_: &mut Criterion) {
    let dir = Dir::new();
    block_on(async {
        let store = Store::open(Disk::os(), &dir.0, options()).await.expect("opens");
        store.spawn();
        let mut l = log(&store, 1, false, 1_000_000).await;
        let before = l.group.index_bytes();
        for _ in 0..10_000 {
            loop {
                match l.append(100, &[7; 16], Sync::Relaxed) {
                    Ok(_) => break,
                    Err(Error::Busy) => env::sleep(Duration::from_millis(1)).await,
                    Err(e) => panic!("{e}"),
                }
            }
            apply(&l).await;
        }
        l.group.checkpoint(bytes::Bytes::new());
        store.sync().await.expect("synced");
        store.flush().await.expect("flushed");
        assert_eq!(l.group.subject_count().await.expect("in memory"), 1_000_000);
        let text = "orders.0000000.created".len() as f64;
        let each = (l.group.index_bytes() - before) as f64 / 1e6;
        println!("large/1M subjects of one message: {each:.0} bytes each, {text} of them text");
        let began = Instant::now();
        drop((l, store));
        let store = reopen(&dir).await;
        println!("large/1M messages: opened after {:?}", began.elapsed());
        let group = store.group(GroupId(1)).expect("it is there");
        let began = Instant::now();
        assert_eq!(group.subject_count().await.expect("whole"), 1_000_000);
        println!("large/1M messages: first question about subjects took {:?}", began.elapsed());
    });
    let dir = Dir::new();
    block_on(async {
        let store = Store::open(Disk::os(), &dir.0, options()).await.expect("opens");
        store.spawn();
        let mut logs = Vec::new();
        for id in 1..=10_000 {
            let (group, _) = store.create(GroupId(id), false, b"").expect("a new group");
            logs.push(Log { group, batch: Batch::new(), subjects: 10 });
        }
        appends(&store, &mut logs, 1000, 100_000, &[7; 128]).await;
        drop((logs, store));
        let began = Instant::now();
        let store = reopen(&dir).await;
        println!(
            "large/10,000 groups of 10 entries, nothing flushed or the last part: opened after {:?}",
            began.elapsed()
        );
        for id in 1..=10_000 {
            let group = store.group(GroupId(id)).expect("it is there");
            assert_eq!(group.last().0.0, 10);
            apply_all(&group).await;
            group.checkpoint(bytes::Bytes::from_static(b"state"));
        }
        let began = Instant::now();
        store.flush().await.expect("flushed");
        println!("large/10,000 groups: a flush of all took {:?}", began.elapsed());
        let began = Instant::now();
        store.flush().await.expect("flushed");
        println!("large/10,000 groups: a flush of none took {:?}", began.elapsed());
        drop(store);
        let began = Instant::now();
        let _store = reopen(&dir).await;
        println!("large/10,000 groups, flushed: opened after {:?}", began.elapsed());
    });
}

async fn reopen(dir: &Dir) -> Store {
    Store::open(Disk::os(), &dir.0, options()).await.expect("opens")
}

criterion_group!(benches, large, in_memory, durable_appends);
criterion_main!(benches);
