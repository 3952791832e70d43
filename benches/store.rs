//! What the store costs on the real disk: `cargo bench -p fulmar-bench --bench store`. The directory is
//! `$FULMAR_BENCH_DIR`, or the system's temporary one: it must not be in memory for the figures of appends to mean anything.
//!
//! Appends: the time of one durable entry of one small message with a window of unacknowledged ones over a number of groups,
//! with the journal syncs that this took, over at least three turns of the journal. The rest: one message each, without
//! the disk. Figures: docs/design/0011-storage.md.

#![allow(missing_docs, reason = "criterion's macros document nothing")]
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::{
    cell::Cell,
    collections::VecDeque,
    hint::black_box,
    path::PathBuf,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use env::disk::Disk;
use store::{
    Batch, Chain, Error, Group, GroupId, Head, Kind, Message, NewEntry, Options, Store, StreamSeq, Sync,
    Term, Ticket,
};

struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let base = std::env::var_os("FULMAR_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = base.join(format!("fulmar-bench-{}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        Dir(dir)
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn block_on<T>(f: impl Future<Output = T>) -> T {
    env::run(f).expect("the runtime starts")
}

/// A group with what its next entry needs.
struct Log {
    group: Group,
    batch: Batch,
    subjects: u64,
}

impl Log {
    fn entry(&mut self, msgs: u64, body: &[u8]) -> NewEntry {
        let (last, _, prev) = self.group.last();
        let next = last.0 * msgs + 1;
        for seq in next..next + msgs {
            let subject = format!("orders.{:07}.created", seq % self.subjects);
            let m = Message {
                seq: StreamSeq(seq),
                time: seq as i64,
                expires: None,
                redacted: false,
                subject: subject.as_bytes(),
                headers: b"",
                body,
            };
            self.batch.push(self.group.id(), &m);
        }
        let (index, chain) = (last.next(), Chain(prev.0.wrapping_mul(31) + last.0 + 1));
        let payload = self.batch.finish(b"");
        NewEntry { kind: Kind::Messages, index, term: Term(1), prev, chain, payload, digest: None }
    }
    fn append(&mut self, msgs: u64, body: &[u8], sync: Sync) -> Result<Ticket, Error> {
        let e = self.entry(msgs, body);
        self.group.append(vec![e], sync)
    }
}

async fn log(store: &Store, id: u64, memory: bool, subjects: u64) -> Log {
    let (group, t) = store.create(GroupId(id), memory, b"").expect("a new group");
    t.durable().await.expect("created");
    Log { group, batch: Batch::new(), subjects }
}

fn options() -> Options {
    Options { journal_file_max: 16 << 20, flush_bytes: 16 << 20, ..Options::default() }
}

/// Appends `n` entries with `window` unacknowledged; the syncs that it took.
async fn appends(store: &Store, logs: &mut [Log], window: usize, n: u64, body: &[u8]) -> u64 {
    let before = store.syncs();
    let mut open: VecDeque<(usize, Ticket)> = VecDeque::with_capacity(window);
    let mut applied = 0u64;
    for i in 0..n {
        let at = (i % logs.len() as u64) as usize;
        loop {
            match logs[at].append(1, body, Sync::Always) {
                Ok(t) => break open.push_back((at, t)),
                Err(Error::Busy) => env::sleep(Duration::from_micros(200)).await,
                Err(e) => panic!("{e}"),
            }
        }
        if open.len() == window {
            let (at, t) = open.pop_front().expect("the window is full");
            t.durable().await.expect("durable");
            applied += apply(&logs[at]).await;
        }
    }
    while let Some((at, t)) = open.pop_front() {
        t.durable().await.expect("durable");
        applied += apply(&logs[at]).await;
    }
    black_box(applied);
    store.syncs() - before
}

async fn apply(log: &Log) -> u64 {
    let (at, _) = log.group.applied();
    if at == log.group.last().0 {
        return 0;
    }
    let all = log.group.entries(at.next(), 1).await.expect("it was appended");
    for e in &all {
        log.group.apply(&e.head).await.expect("in order");
    }
    all.len() as u64
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

async fn apply_all(group: &Group) {
    while group.applied().0 < group.last().0 {
        for e in group.entries(group.applied().0.next(), 1 << 20).await.expect("it was appended") {
            group.apply(&e.head).await.expect("in order");
        }
    }
}

async fn reopen(dir: &Dir) -> Store {
    Store::open(Disk::os(), &dir.0, options()).await.expect("opens")
}

criterion_group!(benches, large, in_memory, durable_appends);
criterion_main!(benches);
