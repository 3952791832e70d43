//! Logs that the store's benches write: a directory of their own, a group with what its next entry needs, durable appends with a
//! window.
//!
//! Not a bench by itself.

#![allow(clippy::disallowed_methods, missing_docs)]

use std::{
    collections::VecDeque,
    fmt::Write,
    hint::black_box,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use store::{
    Batch, Chain, Error, Group, GroupId, Kind, Message, NewEntry, Store, StreamSeq, Sync, Term, Ticket,
};

/// A directory that goes with its value.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Dir {
        Dir::named("store")
    }
    /// Another one beside it. No name is given twice: what a store does in the background may end after its directory, and leave something.
    pub fn named(name: &str) -> Dir {
        static GIVEN: AtomicU64 = AtomicU64::new(0);
        let number = GIVEN.fetch_add(1, Ordering::Relaxed);
        let dir = Dir::all().join(format!("{number}-{name}"));
        std::fs::remove_dir_all(&dir).ok();
        Dir(dir)
    }
    /// What holds all of this process.
    pub fn all() -> PathBuf {
        let base = std::env::var_os("FULMAR_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        base.join(format!("fulmar-bench-{}", std::process::id()))
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub fn block_on<T>(f: impl Future<Output = T>) -> T {
    env::run(f).expect("the runtime starts")
}

/// A group with what its next entry needs.
pub struct Log {
    pub group: Group,
    pub batch: Batch,
    pub subjects: u64,
}

impl Log {
    /// The next entry, of as many messages as all others.
    pub fn entry(&mut self, msgs: u64, body: &[u8]) -> NewEntry {
        let subjects = self.subjects;
        self.entry_on(msgs, body, |seq, s| {
            let n = seq % subjects;
            write!(s, "orders.{n:07}.created").expect("memory");
        })
    }
    /// The same with subjects by sequence.
    pub fn entry_on(&mut self, msgs: u64, body: &[u8], subject_of: impl Fn(u64, &mut String)) -> NewEntry {
        let (last, _, prev) = self.group.last();
        let next = last.0 * msgs + 1;
        let mut subject = String::new();
        for seq in next..next + msgs {
            subject.clear();
            subject_of(seq, &mut subject);
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
    pub fn append(&mut self, msgs: u64, body: &[u8], sync: Sync) -> Result<Ticket, Error> {
        let e = self.entry(msgs, body);
        self.group.append(vec![e], sync)
    }
}

pub async fn log(store: &Store, id: u64, memory: bool, subjects: u64) -> Log {
    let (group, t) = store.create(GroupId(id), memory, b"").expect("a new group");
    t.durable().await.expect("created");
    Log { group, batch: Batch::new(), subjects }
}

/// Appends `n` entries with `window` unacknowledged; the syncs that it took.
pub async fn appends(store: &Store, logs: &mut [Log], window: usize, n: u64, body: &[u8]) -> u64 {
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

pub async fn apply(log: &Log) -> u64 {
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
