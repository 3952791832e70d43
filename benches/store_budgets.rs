//! What the store must not exceed: `cargo bench -p fulmar-bench --bench store_budgets -- [--full | --scale X] [NAME…]`.
//!
//! Each row is measured, printed next to its budget, and fails the run if it is beyond. `--full` takes the sizes that the rows are
//! named for (100 million messages take about 10 GB in `$FULMAR_BENCH_DIR`, or the system's temporary directory); without it they are
//! scaled down (0.02), and with them the budgets of what grows with them; CI does that. A row whose name contains a NAME is measured; without one all are.
//!
//! Where a row depends on the device it is held against the device's own rate of fdatasync, measured in the same run right
//! before and after; the others have budgets a few times what an idle machine needs, since the machines that run this are not
//! idle: they catch what became slower by an order, or no longer scales. Sizes of memory are exact. Where the figures
//! come from: docs/design/0011-storage.md.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::print_stdout)]

#[path = "store_logs.rs"]
mod store_logs;

use std::{
    fmt::Write,
    hint::black_box,
    os::unix::fs::FileExt,
    process::ExitCode,
    time::{Duration, Instant},
};

use env::disk::Disk;
use fulmar_bench::Draw;
use store::{Batch, Error, Group, GroupId, Options, Read, Store, StreamSeq, Sync};
use store_logs::{Dir, Log, appends, block_on, log};

/// What was measured.
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    budget: Budget,
    note: String,
}

enum Budget {
    AtMost(f64),
    AtLeast(f64),
}

impl Row {
    fn holds(&self) -> bool {
        match self.budget {
            Budget::AtMost(b) => self.value <= b,
            Budget::AtLeast(b) => self.value >= b,
        }
    }
    fn print(&self) {
        let budget = match self.budget {
            Budget::AtMost(b) if b < 10.0 => format!("<= {b:.2}"),
            Budget::AtMost(b) => format!("<= {b:.0}"),
            Budget::AtLeast(b) => format!(">= {b:.2}"),
        };
        let verdict = if self.holds() { "ok" } else { "EXCEEDED" };
        println!(
            "{:<58} {:>12.3} {:<10} {budget:<10} {verdict:<9} {}",
            self.name, self.value, self.unit, self.note
        );
    }
}

struct Run {
    scale: f64,
    names: Vec<String>,
    rows: Vec<Row>,
}

impl Run {
    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|n| name.contains(n.as_str()))
    }
    /// A size of the named rows, scaled down to no less than `least`.
    fn size(&self, full: u64, least: u64) -> u64 {
        ((full as f64 * self.scale) as u64).clamp(least, full.max(least))
    }
    /// A budget that grows with the sizes: `full` at those that the rows are named for, `least` where they are next to nothing.
    fn most(&self, full: f64, least: f64) -> Budget {
        let share = self.scale.min(1.0);
        Budget::AtMost(least + (full - least) * share)
    }
    fn row(&mut self, name: impl Into<String>, value: f64, unit: &'static str, budget: Budget, note: String) {
        let row = Row { name: name.into(), value, unit, budget, note };
        row.print();
        self.rows.push(row);
    }
}

/// The device by itself.
struct Device {
    file: std::fs::File,
    n: u64,
    _dir: Dir,
}

impl Device {
    fn new() -> Device {
        let dir = Dir::named("device");
        std::fs::create_dir_all(&dir.0).expect("a temporary directory");
        let path = dir.0.join("raw");
        std::fs::write(&path, vec![0u8; 4 << 20]).expect("room");
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("just written");
        file.sync_all().expect("synced");
        Device { file, n: 0, _dir: dir }
    }

    /// Completed fdatasyncs a second of 4 KiB each, one after another, in a file that was written before.
    fn syncs(&mut self, how_long: Duration) -> f64 {
        let (began, before) = (Instant::now(), self.n);
        while began.elapsed() < how_long {
            self.file.write_all_at(&[self.n as u8; 4096], self.n % 1024 * 4096).expect("room");
            self.file.sync_data().expect("synced");
            self.n += 1;
        }
        (self.n - before) as f64 / began.elapsed().as_secs_f64()
    }
}

/// Microseconds of a read of 16 KiB at a random place of a store's segments, by itself: from the page cache or not, as it comes.
fn random_read(dir: &Dir) -> f64 {
    let all = std::fs::read_dir(dir.0.join("shard-000/segments")).expect("a store");
    let files: Vec<_> = all
        .flatten()
        .filter_map(|e| Some((std::fs::File::open(e.path()).ok()?, e.metadata().ok()?.len() >> 14)))
        .filter(|(_, blocks)| *blocks > 0)
        .collect();
    let (mut draw, mut block, began) = (Draw(17), [0; 16 << 10], Instant::now());
    for _ in 0..2000 {
        let (file, blocks) = &files[draw.below(files.len() as u64) as usize];
        file.read_exact_at(&mut block, draw.below(*blocks) << 14).expect("within the file");
    }
    black_box(&block);
    began.elapsed().as_secs_f64() * 1e6 / 2000.0
}

async fn open(dir: &Dir, opts: Options) -> Store {
    let store = Store::open(Disk::os(), &dir.0, opts).await.expect("opens");
    store.spawn();
    store
}

/// Appends and applies `n` messages without waiting for their sync, with a checkpoint now and then.
async fn fill(l: &mut Log, n: u64, body: &[u8], subject_of: impl Fn(u64, &mut String) + Copy) {
    const EACH: u64 = 100;
    for i in 0..n / EACH {
        let e = l.entry_on(EACH, body, subject_of);
        loop {
            match l.group.append(vec![e.clone()], Sync::Relaxed) {
                Ok(_) => break,
                Err(Error::Busy) => env::sleep(Duration::from_micros(300)).await,
                Err(e) => panic!("{e}"),
            }
        }
        if i % 16 == 15 {
            apply_all(&l.group).await;
            // The background work runs on this thread too.
            env::give_way().await;
        }
        if i % 4096 == 4095 {
            l.group.checkpoint(bytes::Bytes::from_static(b"state"));
        }
    }
    apply_all(&l.group).await;
    l.group.checkpoint(bytes::Bytes::from_static(b"state"));
}

/// Applies all that was appended.
async fn apply_all(group: &Group) {
    while group.applied().0 < group.last().0 {
        for e in group.entries(group.applied().0.next(), 1 << 20).await.expect("it was appended") {
            group.apply(&e.head).await.expect("in order");
        }
    }
}

fn on_ten(seq: u64, s: &mut String) {
    let n = seq % 10;
    write!(s, "metrics.{n}.value").expect("memory");
}

/// Bytes of index a message: 16 for each 16 KiB of log is 25 MB for 100 million messages of 256 bytes.
async fn index_of_messages(run: &mut Run) {
    let name = "index/message";
    if !run.wants(name) {
        return;
    }
    let n = run.size(100_000_000, 1_000_000);
    let dir = Dir::new();
    let store = open(&dir, Options::default()).await;
    let mut l = log(&store, 1, false, 10).await;
    let began = Instant::now();
    fill(&mut l, n, &[7; 16], on_ten).await;
    store.sync().await.expect("synced");
    store.flush().await.expect("flushed");
    let took = began.elapsed().as_nanos() as f64 / n as f64;
    let f = l.group.footprint().await.expect("readable");
    let per_block = f.sparse as f64 / (f.log as f64 / 16384.0);
    let of_256 = per_block * 256.0 / 16384.0 * 100.0;
    let note = format!(
        "{n} messages in {} pieces: {} KiB for {} MiB of log; on disk {:.2} bytes a message",
        f.pieces,
        f.sparse >> 10,
        f.log >> 20,
        f.stored as f64 / n as f64
    );
    run.row(format!("{name}: memory for 100M of 256 bytes"), of_256, "MB", Budget::AtMost(25.0), note);
    let rest = l.group.index_bytes() as f64;
    run.row(
        format!("{name}: tail and subjects once all is flushed"),
        rest / 1024.0,
        "KiB",
        Budget::AtMost(1024.0),
        String::new(),
    );
    // 25 % of what a nats-server needs for the same, and that on an idle machine; noise doubles it.
    run.row(format!("{name}: append, apply and flush"), took, "ns", Budget::AtMost(4000.0), String::new());
}

async fn index_of_subjects(run: &mut Run) {
    for full in [1_000_000u64, 10_000_000] {
        let name = format!("index/subject, {}M subjects", full / 1_000_000);
        if !run.wants(&name) {
            continue;
        }
        let n = run.size(full, 100_000);
        let dir = Dir::new();
        let store = open(&dir, Options::default()).await;
        let mut l = log(&store, 1, false, n).await;
        let before = l.group.index_bytes();
        let of = move |seq: u64, s: &mut String| write!(s, "orders.{:08}.created", seq % n).expect("memory");
        fill(&mut l, n, &[7; 16], of).await;
        store.sync().await.expect("synced");
        store.flush().await.expect("flushed");
        assert_eq!(l.group.subject_count().await.expect("in memory"), n);
        let text = "orders.00000000.created".len() as f64;
        let each = (l.group.index_bytes() - before) as f64 / n as f64 - text;
        let note = format!("{n} subjects; S-52");
        run.row(format!("{name}: memory beyond the text, each"), each, "bytes", Budget::AtMost(64.0), note);
        let mut draw = Draw(9);
        let (tries, began) = (20_000, Instant::now());
        for _ in 0..tries {
            let subject = format!("orders.{:08}.created", draw.below(n));
            let last = l.group.last_by_subject(subject.as_bytes(), StreamSeq(u64::MAX)).await;
            assert!(last.expect("in memory").is_some());
        }
        let each = began.elapsed().as_nanos() as f64 / f64::from(tries);
        run.row(format!("{name}: last by subject"), each / 1000.0, "us", Budget::AtMost(20.0), String::new());
        // After a kill the dictionary is built from the footers, at the first question.
        drop((l, store));
        let store = open(&dir, Options::default()).await;
        let group = store.group(GroupId(1)).expect("it is there");
        let began = Instant::now();
        assert_eq!(group.subject_count().await.expect("whole"), n);
        let each = began.elapsed().as_nanos() as f64 / n as f64;
        let took = format!("{:.1} s in all", began.elapsed().as_secs_f64());
        run.row(
            format!("{name}: first question after a kill, each"),
            each / 1000.0,
            "us",
            Budget::AtMost(10.0),
            took,
        );
    }
}

/// Entries a second of one message each that a core makes and applies, on a machine that does other things.
const CORE_ENTRIES: f64 = 20_000.0;
/// The same where each is waited for: two threads wake each other for every one.
const CORE_TURNS: f64 = 1_500.0;

/// How often the rate of appends is measured until it is what it must be.
const APPEND_TRIES: u32 = 3;

/// What appends came to beside the device.
struct Appended {
    /// Messages for each sync that the device does by itself.
    ratio: f64,
    /// The least that `ratio` must be.
    least: f64,
    /// Messages a second.
    rate: f64,
    /// Syncs a second of the device.
    device: f64,
    /// Entries for each sync of the store.
    share: f64,
}

impl Appended {
    fn holds(&self) -> bool {
        self.ratio >= self.least
    }
}

/// In turns with the device: it is not the same from one moment to the next, and what counts is the middle one of several.
async fn append_rate(store: &Store, logs: &mut [Log], window: usize, device: &mut Device) -> Appended {
    let (mut n, mut syncs, mut parts) = (0, 0, Vec::new());
    let chunk = (window as u64 * 10).max(50);
    for _ in 0..7 {
        let device = device.syncs(Duration::from_millis(60));
        let (began, mut of_part) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_millis(120) {
            syncs += appends(store, logs, window, chunk, &[7; 128]).await;
            of_part += chunk;
        }
        n += of_part;
        let rate = of_part as f64 / began.elapsed().as_secs_f64();
        parts.push((rate / device, rate, device));
    }
    parts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, rate, device) = parts[parts.len() / 2];
    // One sync for what gathered while the last one ran: half of the window at least, less what noise takes. On a device that syncs
    // faster than a core makes entries, the core is the limit.
    let least: f64 = match window {
        1 => 0.3,
        100 => 10.0,
        _ => 60.0,
    };
    let core = if window == 1 { CORE_TURNS } else { CORE_ENTRIES };
    Appended { ratio, least: least.min(core / device), rate, device, share: n as f64 / syncs.max(1) as f64 }
}

async fn durable_appends(run: &mut Run) {
    let mut device = Device::new();
    for groups in [1u64, 100, 10_000] {
        for window in [1usize, 100, 1000] {
            let name = format!("append/{groups} groups, window {window}");
            if !run.wants(&name) {
                continue;
            }
            let dir = Dir::new();
            let store = open(&dir, Options::default()).await;
            let mut logs = Vec::new();
            for id in 1..=groups {
                let (group, _) = store.create(GroupId(id), false, b"").expect("a new group");
                logs.push(Log { group, batch: Batch::new(), subjects: 100 });
            }
            store.sync().await.expect("created");
            // A neighbour of this machine who takes it for a second passes, and what became slower stays so: what is missed is measured again.
            let mut best = append_rate(&store, &mut logs, window, &mut device).await;
            let mut tries = 1;
            while !best.holds() && tries < APPEND_TRIES {
                std::thread::sleep(Duration::from_secs(2));
                let again = append_rate(&store, &mut logs, window, &mut device).await;
                tries += 1;
                if again.ratio > best.ratio {
                    best = again;
                }
            }
            let Appended { ratio, least, rate, device: alone, share } = best;
            let mut note = format!("{rate:.0} msg/s; device {alone:.0} syncs/s; {share:.1} entries a sync");
            if tries > 1 {
                note += &format!("; the best of {tries} measurements");
            }
            run.row(format!("{name}: messages a device's sync"), ratio, "x", Budget::AtLeast(least), note);
            let least = if window == 1 { 0.99 } else { window as f64 / 5.0 };
            run.row(format!("{name}: entries a sync"), share, "", Budget::AtLeast(least), String::new());
        }
    }
}

/// The price of many streams: one sync a round, over at least three turns of the journal's files.
async fn syncs_a_round(run: &mut Run) {
    let name = "turnover/10,000 groups";
    if !run.wants(name) {
        return;
    }
    let dir = Dir::new();
    let opts = Options {
        journal_file_min: 4 << 20,
        journal_file_usual: 4 << 20,
        journal_file_max: 8 << 20,
        journal_budget: 32 << 20,
        flush_bytes: 8 << 20,
        ..Options::default()
    };
    let store = open(&dir, opts).await;
    let mut logs = Vec::new();
    for id in 1..=10_000 {
        let (group, _) = store.create(GroupId(id), false, b"").expect("a new group");
        logs.push(Log { group, batch: Batch::new(), subjects: 100 });
    }
    store.sync().await.expect("created");
    let (rounds, begun) = (store.rounds(), store.journal_files().0);
    let (mut syncs, mut n) = (0, 0);
    let turns = |store: &Store| {
        let (now, files) = store.journal_files();
        (now - begun) as f64 / files.max(1) as f64
    };
    while turns(&store) < 3.0 {
        syncs += appends(&store, &mut logs, 1000, 10_000, &[7; 128]).await;
        n += 10_000;
    }
    let rounds = store.rounds() - rounds;
    let note =
        format!("{n} entries, {rounds} rounds, {syncs} syncs, {:.1} turns of the journal", turns(&store));
    run.row(
        format!("{name}: journal syncs a round"),
        syncs as f64 / rounds as f64,
        "",
        Budget::AtMost(1.0),
        note,
    );
}

async fn get(group: &Group, seq: u64) -> usize {
    loop {
        let got = group.view().get(StreamSeq(seq));
        match got {
            Ok(Read::Valid(r)) => return r.message().body.len(),
            Ok(other) => panic!("message {seq}: {other:?}"),
            Err(need) => group.fetch(need).await.expect("readable"),
        }
    }
}

async fn next(group: &Group, filters: &[&str], from: u64) -> Option<StreamSeq> {
    loop {
        let got = group.view().next(filters, StreamSeq(from));
        match got {
            Ok(found) => return found,
            Err(need) => group.fetch(need).await.expect("readable"),
        }
    }
}

/// Reads and searches in 10 million messages that are all in pieces; recovery of them, clean and after a kill.
async fn reads_and_recovery(run: &mut Run) {
    if !["read/", "filter/", "recover/10M"].iter().any(|p| run.names.is_empty() || run.wants(p)) {
        return;
    }
    let n = run.size(10_000_000, 200_000);
    let rare = n / 50;
    let dir = Dir::new();
    let of = move |seq: u64, s: &mut String| {
        let r = if seq.is_multiple_of(rare) { "rare" } else { "often" };
        let (half, n) = (seq % 2, seq % 1000);
        write!(s, "{r}.{half}.{n}").expect("memory");
    };
    let store = open(&dir, Options::default()).await;
    let mut l = log(&store, 1, false, 1000).await;
    fill(&mut l, n, &[7; 100], of).await;
    // What a kill leaves: what the last flush did not take is in the journal.
    store.sync().await.expect("synced");
    drop((l, store));
    let began = Instant::now();
    let store = open(&dir, Options::default()).await;
    let group = store.group(GroupId(1)).expect("it is there");
    apply_all(&group).await;
    let took = began.elapsed().as_secs_f64();
    assert_eq!(group.state().last.0, n);
    let most = run.most(10.0, 2.0);
    run.row("recover/10M messages, after a kill", took, "s", most, format!("{n} messages"));
    group.checkpoint(bytes::Bytes::from_static(b"state"));
    drop(group);
    store.close().await.expect("a clean end");
    let began = Instant::now();
    let store = open(&dir, Options::default()).await;
    let group = store.group(GroupId(1)).expect("it is there");
    assert_eq!(group.state().msgs, n);
    let took = began.elapsed().as_secs_f64();
    let most = run.most(2.0, 1.0);
    run.row("recover/10M messages, after a clean end", took, "s", most, format!("{n} messages"));
    let began = Instant::now();
    let subjects = group.subject_count().await.expect("whole");
    assert!(subjects > 1000);
    let (took, most) = (began.elapsed().as_secs_f64(), run.most(10.0, 0.5));
    let note = format!("{n} messages, {subjects} subjects");
    run.row("recover/10M messages, first question about subjects", took, "s", most, note);

    let began = Instant::now();
    let mut bytes = 0;
    for seq in 1..=n {
        bytes += get(&group, seq).await;
    }
    let each = began.elapsed().as_nanos() as f64 / n as f64;
    assert_eq!(bytes as u64, n * 100);
    run.row(
        "read/sequential, 10M messages",
        each / 1000.0,
        "us",
        Budget::AtMost(6.0),
        format!("{n} messages of 100 bytes"),
    );
    let (mut draw, tries) = (Draw(5), 50_000);
    let device = random_read(&dir);
    let began = Instant::now();
    for _ in 0..tries {
        black_box(get(&group, 1 + draw.below(n)).await);
    }
    let each = began.elapsed().as_nanos() as f64 / f64::from(tries);
    // As cold as the page cache was, before and after.
    let device = device.max(random_read(&dir));
    let most = Budget::AtMost(10.0 + 4.0 * device);
    run.row(
        "read/random, 10M messages",
        each / 1000.0,
        "us",
        most,
        format!("{tries} of {n}; a read of a block by itself {device:.1} us"),
    );

    let (began, mut at, mut found) = (Instant::now(), 0, 0u64);
    while let Some(seq) = next(&group, &["rare.>"], at).await {
        (at, found) = (seq.0 + 1, found + 1);
    }
    assert_eq!(found, n / rare);
    let each = began.elapsed().as_nanos() as f64 / found as f64;
    let note = format!("{found} matches in {n} messages");
    let most = run.most(40_000.0, 100.0);
    run.row("filter/next, sparse, 10M messages", each / 1000.0, "us", most, note);
    let (began, mut at, mut found) = (Instant::now(), 0, 0u64);
    while let Some(seq) = next(&group, &["*.1.*"], at).await {
        (at, found) = (seq.0 + 1, found + 1);
    }
    assert!(found >= n / 2 - n / rare && found <= n / 2 + n / rare);
    let each = began.elapsed().as_nanos() as f64 / found as f64;
    run.row(
        "filter/next, dense, 10M messages",
        each / 1000.0,
        "us",
        Budget::AtMost(5.0),
        format!("{found} matches"),
    );
    let began = Instant::now();
    let half = loop {
        let got = group.view().pending(&["*.1.*"], StreamSeq(n / 3));
        match got {
            Ok(p) => break p,
            Err(need) => group.fetch(need).await.expect("readable"),
        }
    };
    black_box(half);
    let (took, most) = (began.elapsed().as_secs_f64() * 1e3, run.most(10_000.0, 20.0));
    run.row("filter/pending, dense, 10M messages", took, "ms", most, String::new());
}

/// Messages come, are worked on in order, and go.
async fn work_queue(run: &mut Run) {
    let name = "work queue/50M deletes";
    if !run.wants(name) {
        return;
    }
    let n = run.size(50_000_000, 1_000_000);
    let dir = Dir::new();
    let store = open(&dir, Options::default()).await;
    let mut l = log(&store, 1, false, 10).await;
    // A backlog that lies in pieces, so that most deletions are of what was flushed.
    let (ahead, step) = (n / 10, 10_000);
    let (mut written, mut gone, mut spent) = (0, 0u64, Duration::ZERO);
    while gone < n {
        if written < n && written - gone < ahead {
            fill(&mut l, step, &[7; 64], on_ten).await;
            written += step;
            continue;
        }
        let began = Instant::now();
        for _ in 0..step.min(written - gone) {
            gone += 1;
            loop {
                let r = l.group.view().remove(StreamSeq(gone));
                match r {
                    Ok(was) => break assert!(was),
                    Err(need) => l.group.fetch(need).await.expect("readable"),
                }
            }
        }
        spent += began.elapsed();
        l.group.checkpoint(bytes::Bytes::from_static(b"state"));
    }
    store.sync().await.expect("synced");
    store.flush().await.expect("flushed");
    store.flush().await.expect("flushed");
    assert_eq!(l.group.state().msgs, 0);
    let each = spent.as_nanos() as f64 / n as f64;
    run.row(
        format!("{name}: each"),
        each,
        "ns",
        Budget::AtMost(2000.0),
        format!("{n} messages, {ahead} of them in front"),
    );
    let left = store.segment_bytes() as f64 / 1024.0;
    run.row(format!("{name}: segments left"), left, "KiB", Budget::AtMost(1024.0), String::new());
    let memory = l.group.index_bytes() as f64 / 1024.0;
    run.row(format!("{name}: index left in memory"), memory, "KiB", Budget::AtMost(16_384.0), String::new());
}

async fn many_groups(run: &mut Run) {
    if !run.wants("recover/10,000 groups") {
        return;
    }
    let dir = Dir::new();
    let store = open(&dir, Options::default()).await;
    let mut logs = Vec::new();
    for id in 1..=10_000 {
        let (group, _) = store.create(GroupId(id), false, b"").expect("a new group");
        logs.push(Log { group, batch: Batch::new(), subjects: 10 });
    }
    appends(&store, &mut logs, 1000, 100_000, &[7; 128]).await;
    drop((logs, store));
    let began = Instant::now();
    let store = open(&dir, Options::default()).await;
    let took = began.elapsed().as_secs_f64();
    run.row(
        "recover/10,000 groups of 10 messages, after a kill",
        took,
        "s",
        Budget::AtMost(10.0),
        String::new(),
    );
    for id in store.groups() {
        let group = store.group(id).expect("it is there");
        assert_eq!(group.last().0.0, 10);
        apply_all(&group).await;
        group.checkpoint(bytes::Bytes::from_static(b"state"));
    }
    for (what, most) in [("all", 5000.0), ("none", 3000.0)] {
        let began = Instant::now();
        store.flush().await.expect("flushed");
        let took = began.elapsed().as_secs_f64() * 1e3;
        run.row(
            format!("recover/10,000 groups: a flush of {what} of them"),
            took,
            "ms",
            Budget::AtMost(most),
            String::new(),
        );
    }
    store.close().await.expect("a clean end");
    let began = Instant::now();
    let store = open(&dir, Options::default()).await;
    let took = began.elapsed().as_secs_f64();
    assert_eq!(store.groups().len(), 10_000);
    run.row(
        "recover/10,000 groups of 10 messages, after a clean end",
        took,
        "s",
        Budget::AtMost(2.0),
        String::new(),
    );
}

fn main() -> ExitCode {
    let mut run = Run { scale: 0.02, names: Vec::new(), rows: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(a) = args.next() {
        match a.as_str() {
            "--full" => run.scale = 1.0,
            "--scale" => {
                let Some(s) = args.next().and_then(|s| s.parse().ok()).filter(|s| *s > 0.0) else {
                    println!("--scale needs a number above 0");
                    return ExitCode::FAILURE;
                };
                run.scale = s;
            }
            // What cargo adds.
            "--bench" => {}
            name => run.names.push(name.to_owned()),
        }
    }
    let began = Instant::now();
    let syncs = Device::new().syncs(Duration::from_millis(500));
    println!("the device: {syncs:.0} fdatasyncs a second; sizes times {}", run.scale);
    block_on(async {
        index_of_messages(&mut run).await;
        index_of_subjects(&mut run).await;
        durable_appends(&mut run).await;
        syncs_a_round(&mut run).await;
        reads_and_recovery(&mut run).await;
        many_groups(&mut run).await;
        work_queue(&mut run).await;
    });
    std::fs::remove_dir_all(Dir::all()).ok();
    let beyond = run.rows.iter().filter(|r| !r.holds()).count();
    println!(
        "{} rows, {beyond} beyond their budget, in {:.0} s",
        run.rows.len(),
        began.elapsed().as_secs_f64()
    );
    if beyond == 0 && !run.rows.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
