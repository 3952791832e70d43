//! `fulmar store inspect|verify` on a directory that is whole, damaged, cut, in use, or none.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use env::disk::Disk;
use store::{
    Batch, Chain, GroupId, Kind, LogIndex, Message, NewEntry, Options, Store, StreamSeq, Sync, Term,
};

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("fulmar-store-{name}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
    fn tool(&self, what: &str, path: &Path) -> (i32, String, String) {
        let out =
            Command::new(env!("CARGO_BIN_EXE_fulmar")).args(["store", what]).arg(path).output().unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (out.status.code().expect("it ends by itself"), text(&out.stdout), text(&out.stderr))
    }
    fn file(&self, folder: &str) -> PathBuf {
        let dir = self.0.join("jetstream/shard-000").join(folder);
        fs::read_dir(dir).unwrap().next().expect("there is a file").unwrap().path()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

async fn open(dir: &Path) -> Store {
    let store = Store::open(Disk::os(), dir.join("jetstream"), Options::default()).await.unwrap();
    store.spawn();
    store
}

/// A group of 100 messages; those of the first half in a segment.
async fn fill(store: &Store) {
    let (g, _) = store.create(GroupId(7), false, b"options").unwrap();
    for i in 1..=100u64 {
        let mut b = Batch::new();
        let body = vec![i as u8; 300];
        b.push(
            g.id(),
            &Message {
                seq: StreamSeq(i),
                time: 1,
                expires: None,
                redacted: false,
                subject: b"a.b",
                headers: b"",
                body: &body,
            },
        );
        let (index, prev, chain) = (LogIndex(i), g.last().2, Chain(i));
        let (kind, term, payload) = (Kind::Messages, Term(1), b.finish(b""));
        let e = NewEntry { kind, index, term, prev, chain, payload, digest: None };
        g.append(vec![e], Sync::Always).unwrap().durable().await.unwrap();
        if i <= 50 {
            let head = g.entries(index, 1).await.unwrap()[0].head;
            g.apply(&head).await.unwrap();
        }
        if i == 50 {
            g.checkpoint("state".into());
            store.flush().await.unwrap();
        }
    }
}

#[test]
fn a_directory_is_told_whole_damaged_cut_and_none() {
    let dir = Dir::new("tool");
    let path = dir.0.clone();
    env::run({
        let path = path.clone();
        async move {
            let store = open(&path).await;
            fill(&store).await;
            store.close().await.unwrap();
        }
    })
    .unwrap();

    let (code, out, err) = dir.tool("verify", &path);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("1 groups") && out.ends_with(": whole\n"), "{out}");
    let (code, out, _) = dir.tool("inspect", &path.join("jetstream"));
    assert!(code == 0 && out.contains("group 7: checkpoint 50") && out.contains("50 messages"), "{out}");

    // A bit of a message in the segment.
    let segment = dir.file("segments");
    let whole = fs::read(&segment).unwrap();
    let mut bad = whole.clone();
    bad[2000] ^= 4;
    fs::write(&segment, &bad).unwrap();
    let (code, out, _) = dir.tool("verify", &path);
    assert!(
        code == 1 && out.contains("group 7") && out.contains("messages ") && out.ends_with(": damaged\n"),
        "{out}"
    );
    assert_eq!(dir.tool("verify", &path).1, out, "looking changes nothing");
    fs::write(&segment, &whole).unwrap();
    assert_eq!(dir.tool("verify", &path).0, 0);

    // The journal's end is cut off.
    let journal = dir.file("journal");
    let bytes = fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).unwrap();
    fs::OpenOptions::new().write(true).open(&journal).unwrap().set_len(used as u64 - 2000).unwrap();
    let (code, out, _) = dir.tool("verify", &path);
    assert!(code == 1 && out.contains("the journal was cut"), "{out}");
    let (code, out, _) = dir.tool("inspect", &path);
    assert!(code == 1 && out.contains("were cut off"), "{out}");

    let (code, _, err) = dir.tool("verify", &path.join("nothing"));
    assert!(code == 2 && err.contains("holds no data"), "{err}");
    assert_eq!(dir.tool("repair", &path).0, 2);
    let help = Command::new(env!("CARGO_BIN_EXE_fulmar")).args(["store", "--help"]).output().unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("fulmar store verify"));
}

#[test]
fn a_directory_in_use_is_not_verified() {
    let dir = Dir::new("used");
    let path = dir.0.clone();
    env::run(async move {
        let store = open(&path).await;
        fill(&store).await;
        // The other process waits for the directory for a moment, and then says so.
        let (code, _, err) = dir.tool("verify", &path);
        assert!(code == 2 && !err.is_empty(), "{err}");
        store.close().await.unwrap();
    })
    .unwrap();
}
