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
use store::{Batch, GroupId, Head, Options, Store, StreamSeq, Sync};
use store_logs::{Dir, Log, appends, block_on, log};

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

criterion_group!(benches, in_memory, durable_appends);
criterion_main!(benches);
