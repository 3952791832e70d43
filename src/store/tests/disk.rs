//! The store on the real disk, with its journal thread and background work.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use env::disk::Disk;
use store::{
    Batch, Chain, Cipher, Error, Group, GroupId, Key, Keys, Kind, LogIndex, Message, NewEntry, Options, Read,
    Store, StreamSeq, Sync, Term, Ticket,
};

struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static N: AtomicU64 = AtomicU64::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("fulmar-store-{}-{n}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        Dir(dir)
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn small() -> Options {
    Options {
        journal_file_min: 256 << 10,
        journal_file_max: 1 << 20,
        journal_budget: 8 << 20,
        flush_bytes: 1 << 20,
        ..Options::default()
    }
}

async fn open(dir: &Dir, opts: Options) -> Store {
    let store = Store::open(Disk::os(), &dir.0, opts).await.unwrap();
    store.spawn();
    store
}

/// Appends entries of one message each; the body says its sequence.
struct Log {
    group: Group,
    batch: Batch,
    body: usize,
}

impl Log {
    fn new(group: Group, body: usize) -> Log {
        Log { group, batch: Batch::new(), body }
    }
    fn entry(&mut self) -> NewEntry {
        let (last, term, prev) = self.group.last();
        let (index, seq) = (last.next(), StreamSeq(last.0 + 1));
        let mut body = seq.0.to_le_bytes().to_vec();
        body.resize(self.body.max(8), seq.0 as u8);
        let subject = format!("s.{}", seq.0 % 7);
        let m = Message {
            seq,
            time: seq.0 as i64,
            expires: None,
            redacted: false,
            subject: subject.as_bytes(),
            headers: b"",
            body: &body,
        };
        self.batch.push(self.group.id(), &m);
        let payload = self.batch.finish(b"");
        let chain = Chain(prev.0.wrapping_mul(31) + index.0);
        NewEntry { kind: Kind::Messages, index, term: term.max(Term(1)), prev, chain, payload, digest: None }
    }
    async fn append(&mut self, sync: Sync) -> Ticket {
        let e = self.entry();
        loop {
            match self.group.append(vec![e.clone()], sync) {
                Ok(t) => return t,
                Err(Error::Busy) => env::sleep(Duration::from_millis(1)).await,
                Err(e) => panic!("{e}"),
            }
        }
    }
    /// Applies everything.
    async fn apply(&self) {
        loop {
            let at = self.group.applied().0.next();
            if at > self.group.last().0 {
                return;
            }
            for e in self.group.entries(at, 1 << 20).await.unwrap() {
                self.group.apply(&e.head).await.unwrap();
            }
        }
    }
    async fn check(&self, upto: u64) {
        for seq in 1..=upto {
            let Read::Valid(r) = self.group.get(StreamSeq(seq)).await.unwrap() else {
                panic!("message {seq} is not there")
            };
            let m = r.message();
            assert_eq!(&m.body[..8], &seq.to_le_bytes());
            assert_eq!(m.subject, format!("s.{}", seq % 7).as_bytes());
        }
    }
}

#[test]
fn what_is_durable_is_there_after_a_kill_and_after_a_clean_end() {
    env::run(async {
        let dir = Dir::new();
        let store = open(&dir, small()).await;
        let (group, created) = store.create(GroupId(5), false, b"options").unwrap();
        created.durable().await.unwrap();
        let mut log = Log::new(group, 900);
        let mut tickets = Vec::new();
        // Many turns of the journal, each round with many entries.
        for i in 0..6000 {
            tickets.push(log.append(Sync::Always).await);
            if tickets.len() == 500 {
                for t in tickets.drain(..) {
                    t.durable().await.unwrap();
                }
                log.apply().await;
            }
            if i == 3000 {
                log.group.checkpoint(bytes::Bytes::from_static(b"half"));
            }
        }
        let syncs = store.syncs();
        assert!(syncs < 3000, "{syncs} syncs for 6000 entries");
        drop((log, store));

        let store = open(&dir, small()).await;
        assert!(!store.torn_tail() && store.damage().is_empty());
        let log = Log::new(store.group(GroupId(5)).unwrap(), 900);
        assert_eq!(log.group.options(), &b"options"[..]);
        assert_eq!(log.group.last().0, LogIndex(6000));
        let (applied, c) = log.group.applied();
        assert_eq!((applied, &c.blob[..]), (LogIndex(3000), &b"half"[..]));
        log.apply().await;
        log.check(6000).await;
        assert_eq!(log.group.pending(b"s.3", StreamSeq(0)).await.unwrap(), 857);
        log.group.checkpoint(bytes::Bytes::from_static(b"end"));
        drop(log);
        store.close().await.unwrap();

        let store = open(&dir, small()).await;
        let log = Log::new(store.group(GroupId(5)).unwrap(), 900);
        let (applied, c) = log.group.applied();
        assert_eq!((applied, &c.blob[..]), (LogIndex(6000), &b"end"[..]));
        log.check(6000).await;
        log.group.verify().await.unwrap();
    })
    .unwrap();
}

#[test]
fn the_directory_is_for_one() {
    env::run(async {
        let dir = Dir::new();
        let _store = open(&dir, small()).await;
        let opts = Options { lock_wait: Duration::ZERO, ..small() };
        let second = Store::open(Disk::os(), &dir.0, opts).await;
        let Err(Error::Io(e)) = second else { panic!("two stores in one directory") };
        assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock);
    })
    .unwrap();
}

#[test]
fn s1_relaxed_appends_settle_without_a_sync_and_are_synced_after_the_interval() {
    env::run(async {
        let dir = Dir::new();
        let opts = Options { sync_interval: Some(Duration::from_millis(50)), ..small() };
        let store = open(&dir, opts).await;
        let (group, created) = store.create(GroupId(1), false, b"").unwrap();
        created.durable().await.unwrap();
        let mut log = Log::new(group, 100);
        let before = store.syncs();
        let t = log.append(Sync::Relaxed).await;
        t.clone().settled().await.unwrap();
        assert!(t.poll().is_none() || store.syncs() > before, "durable without a sync");
        // Nobody else appends: only the timer can make this one durable.
        t.durable().await.unwrap();
        assert_eq!(store.syncs(), before + 1);

        // Without an interval the caller decides.
        drop((log, store));
        let store = open(&dir, Options { sync_interval: None, ..small() }).await;
        let mut log = Log::new(store.group(GroupId(1)).unwrap(), 100);
        let t = log.append(Sync::Relaxed).await;
        t.clone().settled().await.unwrap();
        assert!(t.poll().is_none());
        store.sync().await.unwrap();
        assert!(t.poll().is_some_and(|r| r.is_ok()));
    })
    .unwrap();
}

#[test]
fn a_key_is_replaced_and_the_old_one_still_opens_what_it_sealed() {
    env::run(async {
        let dir = Dir::new();
        let (old, new) = (Key::new(Cipher::ChaCha, b"old"), Key::new(Cipher::Aes, b"new"));
        let with = |keys: Vec<Key>| Options { keys: Keys(keys), ..small() };
        let store = open(&dir, with(vec![old.clone()])).await;
        let (group, _) = store.create(GroupId(1), false, b"").unwrap();
        let mut log = Log::new(group, 300);
        for _ in 0..50 {
            log.append(Sync::Always).await.durable().await.unwrap();
        }
        log.apply().await;
        log.group.checkpoint(bytes::Bytes::from_static(b"1"));
        drop(log);
        store.close().await.unwrap();

        let store = open(&dir, with(vec![new.clone(), old.clone()])).await;
        let mut log = Log::new(store.group(GroupId(1)).unwrap(), 300);
        for _ in 0..50 {
            log.append(Sync::Always).await.durable().await.unwrap();
        }
        log.apply().await;
        log.check(100).await;
        log.group.checkpoint(bytes::Bytes::from_static(b"2"));
        drop(log);
        store.close().await.unwrap();
        let plain = std::fs::read_dir(dir.0.join("shard-000/segments")).unwrap().any(|f| {
            let bytes = std::fs::read(f.unwrap().path()).unwrap();
            bytes.windows(4).any(|w| w == b"s.1\0" || w == b"s.1\x01")
        });
        assert!(!plain, "a subject stands in a sealed file");

        // The manifest brings the old key to whoever has the new one, and the new one to nobody.
        match Store::open(Disk::os(), &dir.0, with(vec![old])).await {
            Err(Error::Format(s)) => assert!(s.contains(&format!("{:08x}", new.id())), "{s}"),
            Ok(_) => panic!("it was opened"),
            Err(e) => panic!("{e}"),
        }
        let store = open(&dir, with(vec![new])).await;
        Log::new(store.group(GroupId(1)).unwrap(), 300).check(100).await;
    })
    .unwrap();
}
