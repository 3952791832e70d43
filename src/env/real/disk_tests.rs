use std::sync::atomic::AtomicU64;

use super::*;
use crate::disk::{Cause, cause, raw_os_error};

/// A directory of its own for one test, removed at its end.
struct Dir(PathBuf);
impl Dir {
    fn new() -> Dir {
        static N: AtomicU64 = AtomicU64::new(0);
        let name = format!("fulmar-env-{}-{}", std::process::id(), N.fetch_add(1, Ordering::Relaxed));
        let p = std::env::temp_dir().join(name);
        fs::create_dir_all(&p).unwrap();
        Dir(p)
    }
    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn test<F: Future>(f: F) -> F::Output {
    crate::run(f).unwrap()
}

#[test]
fn positional_reads_and_writes() {
    let dir = Dir::new();
    test(async {
        let disk = Disk::os();
        let f = disk.open(dir.at("f"), OpenOptions::CREATE_NEW).await.unwrap();
        f.write_at(5, Bytes::from_static(b"world")).await.unwrap();
        let parts = vec![Bytes::from_static(b"he"), Bytes::new(), Bytes::from_static(b"llo")];
        f.write_vectored_at(0, parts).await.unwrap();
        f.sync_data().await.unwrap();
        assert_eq!(&f.read_at(0, 100).await.unwrap()[..], b"helloworld");
        assert_eq!(&f.read_exact_at(3, 4).await.unwrap()[..], b"lowo");
        assert_eq!(f.read_at(10, 4).await.unwrap().len(), 0);
        let e = f.read_exact_at(8, 4).await.unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
        assert!(e.to_string().contains("/f: bytes 8..12"), "{e}");
        // A length out of a damaged header costs no memory.
        assert_eq!(f.read_at(2, usize::MAX / 2).await.unwrap().len(), 8);
        f.set_len(4).await.unwrap();
        assert_eq!((f.len().await.unwrap(), f.is_empty().await.unwrap()), (4, false));
        assert_eq!(&f.map().await.unwrap()[..], b"hell");
        assert_eq!(disk.open(dir.at("f"), OpenOptions::TRUNCATE).await.unwrap().len().await.unwrap(), 0);
        assert!(f.map().await.unwrap().is_empty());
    });
}

#[test]
fn a_new_file_past_the_page_cache_is_what_was_written() {
    let dir = Dir::new();
    // Where other tests have their files may be a memory file system, which has no way past the page cache.
    let here = std::env::current_dir().unwrap().join(format!("write-new-{}", std::process::id()));
    test(async {
        for (i, total) in
            [0, 1, 4095, 256 << 10, (256 << 10) + 1, 1 << 20, (1 << 20) + 1, (3 << 20) - 1, (2 << 20) + 4096]
                .into_iter()
                .enumerate()
        {
            for path in [dir.at(&format!("f{i}")), here.clone()] {
                let bytes: Vec<u8> = (0..total).map(|i: usize| (i * 7 + i / 4096) as u8).collect();
                let all = Bytes::from(bytes);
                let cut = [total / 3, total / 3 + 5, total].map(|c| c.min(total));
                let f = Disk::os().open(&path, OpenOptions::TRUNCATE).await.unwrap();
                let mut a = f.appender(i % 2 == 0 || path == here);
                for part in [&all[..cut[0]], &all[cut[0]..cut[1]], &all[cut[1]..]] {
                    a.push(part).await.unwrap();
                }
                a.end().await.unwrap();
                f.sync_data().await.unwrap();
                assert_eq!(f.len().await.unwrap(), total as u64);
                assert!(f.read_at(0, total + 1).await.unwrap() == all, "{total} bytes");
                fs::remove_file(&path).unwrap();
            }
        }
    });
}

/// What is read in order is the same from the page cache, past it and through it again.
#[cfg(target_os = "linux")]
#[test]
fn what_is_read_in_order_is_what_was_written() {
    // As above: a disk with a way past the page cache.
    let here = std::env::current_dir().unwrap().join(format!("read-ordered-{}", std::process::id()));
    test(async {
        let all: Vec<u8> = (0..(2 << 20) + 777).map(|i: usize| (i * 7 + i / 4096) as u8).collect();
        let f = Disk::os().open(&here, OpenOptions::TRUNCATE).await.unwrap();
        let t = Thread::start("t").unwrap();
        let bufs = vec![Bytes::from(all.clone())];
        t.submit(Round { ops: vec![Op::Write { file: f.clone(), off: 0, bufs, cached: true }] })
            .await
            .unwrap();
        let parts = [(0, 1 << 20), (1000, 1 << 20), (1 << 20, (1 << 20) + 777), (5, 100)];
        let kernel_says = sys::is_cached(&f.0.file, 0, 4096);
        let mut past = 0;
        for turn in 0..4 {
            for (off, len) in parts {
                if kernel_says && turn == 0 {
                    assert!(
                        f.stream_soon(off as u64, len).is_none(),
                        "the page cache has what was just written"
                    );
                }
                let soon = f.stream_soon(off as u64, len);
                assert!(
                    f.stream_at(off as u64, len).await.unwrap() == all[off..off + len],
                    "{off} {len} turn {turn}"
                );
                if let Some(soon) = soon {
                    past += 1;
                    if let Some(b) = soon.read().await {
                        assert!(b.unwrap() == all[off..off + len], "{off} {len} turn {turn}, ahead");
                    }
                }
            }
            // The end of the file is the end of what is read.
            assert!(f.stream_at(2 << 20, 4096).await.unwrap() == all[2 << 20..]);
            if turn == 0 {
                f.sync_data().await.unwrap();
                sys::forget_cached(&f.0.file);
            }
        }
        if kernel_says && !sys::is_cached(&f.0.file, 0, 4096) {
            panic!("what was read more than once is in the page cache");
        }
        assert!(past > 0 || !kernel_says, "some of it was read ahead");
    });
    fs::remove_file(&here).unwrap();
}

/// A file beside the tests, where there is a disk, that goes with its test.
struct Here(std::path::PathBuf);
impl Drop for Here {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// The kernel's reading ahead had brought files into the page cache that were to be read past it.
#[cfg(target_os = "linux")]
#[test]
fn what_is_not_asked_for_is_not_read() {
    let here = Here(std::env::current_dir().unwrap().join(format!("not-asked-for-{}", std::process::id())));
    test(async {
        let f = Disk::os().open(&here.0, OpenOptions::CREATE).await.unwrap();
        f.write_at(0, vec![7u8; 4 << 20]).await.unwrap();
        f.sync_data().await.unwrap();
        let says = sys::is_cached(&f.0.file, 0, 4096);
        sys::forget_cached(&f.0.file);
        let f = Disk::os().open(&here.0, OpenOptions::READ).await.unwrap();
        let is_cached = |off: u64| sys::is_cached(&f.0.file, off, 4096);
        // Not where the kernel does not say, nor where the page cache is all that there is.
        if says && !is_cached(3 << 20) {
            for off in [0, 4096, 8192] {
                assert_eq!(f.read_at(off, 4096).await.unwrap().len(), 4096);
            }
            assert!([12_288, 1 << 16, 1 << 20, 3 << 20].iter().all(|off| !is_cached(*off)));
        }
    });
}

#[test]
fn many_buffers_and_large_reads() {
    let dir = Dir::new();
    test(async {
        let f = Disk::os().open(dir.at("f"), OpenOptions::CREATE).await.unwrap();
        let bufs: Vec<Bytes> =
            (0..3000u32).map(|i| Bytes::from(vec![i as u8; 1 + (i % 700) as usize])).collect();
        let all: Vec<u8> = bufs.iter().flat_map(|b| b.to_vec()).collect();
        f.write_vectored_at(7, bufs).await.unwrap();
        assert!(f.read_at(7, all.len()).await.unwrap() == all);
        let mut buf = vec![0; 4096];
        // Just written, hence cached; a file system without RWF_NOWAIT says that it would block.
        if let Some(n) = f.try_read_cached(7, &mut buf) {
            assert_eq!(buf[..n.unwrap()], all[..4096]);
        }
    });
}

#[test]
fn reserved_space_and_holes_read_as_zeros() {
    let dir = Dir::new();
    test(async {
        let f = Disk::os().open(dir.at("f"), OpenOptions::CREATE).await.unwrap();
        f.allocate(0, 1 << 16).await.unwrap();
        assert_eq!(f.len().await.unwrap(), 1 << 16);
        f.write_at(0, vec![7u8; 1 << 16]).await.unwrap();
        f.punch_hole(4096, 8192).await.unwrap();
        let all = f.scan_at(0, 1 << 17).await.unwrap();
        assert_eq!(all.len(), 1 << 16);
        assert!(all.iter().enumerate().all(|(i, b)| *b == if (4096..12288).contains(&i) { 0 } else { 7 }));
    });
}

#[test]
fn directories() {
    let dir = Dir::new();
    test(async {
        let disk = Disk::os();
        disk.create_dir_all(dir.at("a/b/c")).await.unwrap();
        disk.create_dir_all(dir.at("a/b/c")).await.unwrap();
        disk.write_atomic(dir.at("a/z"), "1").await.unwrap();
        disk.write_atomic(dir.at("a/z"), "22").await.unwrap();
        assert_eq!(disk.read(dir.at("a/z")).await.unwrap(), b"22");
        disk.rename(dir.at("a/z"), dir.at("a/x")).await.unwrap();
        disk.sync_dir(dir.at("a")).await.unwrap();
        let names = disk.read_dir(dir.at("a")).await.unwrap();
        let entry = |name: &str, is_dir, len| Entry { name: name.into(), is_dir, len };
        assert_eq!(names, [entry("b", true, 0), entry("x", false, 2)]);
        assert_eq!(disk.metadata(dir.at("a/x")).await.unwrap().len, 2);
        assert!(disk.exists(dir.at("a/x")).await.unwrap() && !disk.exists(dir.at("a/z")).await.unwrap());
        assert!(disk.remove_dir(dir.at("a/b")).await.is_err());
        disk.remove_file(dir.at("a/x")).await.unwrap();
        disk.remove_dir_all(dir.at("a")).await.unwrap();
        assert!(!disk.exists(dir.at("a")).await.unwrap());
        let space = disk.space(&dir.0).await.unwrap();
        assert!(space.total > 0 && space.free <= space.total);
    });
}

#[test]
fn e4_errors_name_operation_path_and_code() {
    let dir = Dir::new();
    test(async {
        let e = Disk::os().open(dir.at("missing"), OpenOptions::READ).await.unwrap_err();
        assert_eq!((e.kind(), raw_os_error(&e)), (io::ErrorKind::NotFound, Some(libc::ENOENT)));
        assert!(e.to_string().starts_with("open ") && e.to_string().contains("/missing: "), "{e}");
        let e = Disk::os().open(&dir.0, OpenOptions::READ).await.unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::IsADirectory);
        fs::write(dir.at("f"), "").unwrap();
        let e = Disk::os().open(dir.at("f"), OpenOptions::CREATE_NEW).await.unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::AlreadyExists);
        let f = Disk::os().open(dir.at("f"), OpenOptions::READ).await.unwrap();
        assert_eq!(raw_os_error(&f.write_at(0, "x").await.unwrap_err()), Some(libc::EBADF));
    });
}

#[test]
fn e2_a_failed_sync_poisons_the_file() {
    // /dev/null takes writes and refuses fsync, like a disk that fails under the cache.
    test(async {
        let f = Disk::os().open("/dev/null", OpenOptions::EDIT).await.unwrap();
        let clone = f.clone();
        f.write_at(0, "x").await.unwrap();
        assert_eq!(raw_os_error(&f.sync_data().await.unwrap_err()), Some(libc::EINVAL));
        assert_eq!(cause(&clone.sync_all().await.unwrap_err()), Some(Cause::Poisoned));
        assert_eq!(cause(&clone.write_at(0, "x").await.unwrap_err()), Some(Cause::Poisoned));
    });
}

#[test]
fn a_lock_excludes() {
    let dir = Dir::new();
    test(async {
        let disk = Disk::os();
        let held = disk.lock(dir.at("LOCK")).await.unwrap();
        assert_eq!(disk.lock(dir.at("LOCK")).await.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        disk.lock(dir.at("LOCK")).await.unwrap();
    });
}

#[test]
fn a_thread_runs_rounds_in_order() {
    let dir = Dir::new();
    test(async {
        let f = Disk::os().open(dir.at("f"), OpenOptions::CREATE).await.unwrap();
        let t = Thread::start("journal-test").unwrap();
        let round = |b: &'static [u8]| Round {
            ops: vec![
                Op::Write { file: f.clone(), off: 0, bufs: vec![Bytes::from_static(b)], cached: false },
                Op::SyncData(f.clone()),
            ],
        };
        let (a, b) = (t.submit(round(b"one")), t.submit(round(b"two")));
        b.await.unwrap();
        a.await.unwrap();
        assert_eq!(&f.read_at(0, 9).await.unwrap()[..], b"two");
        // A round that nobody awaits runs all the same, before the thread ends.
        drop(t.submit(round(b"six")));
        drop(t);
        assert_eq!(&f.read_at(0, 9).await.unwrap()[..], b"six");
    });
}

#[test]
fn a_thread_stops_a_round_at_the_first_failure() {
    let dir = Dir::new();
    test(async {
        let bad = Disk::os().open("/dev/null", OpenOptions::EDIT).await.unwrap();
        let f = Disk::os().open(dir.at("f"), OpenOptions::CREATE).await.unwrap();
        let t = Thread::start("journal-test").unwrap();
        let write =
            Op::Write { file: f.clone(), off: 0, bufs: vec![Bytes::from_static(b"x")], cached: false };
        let r = t.submit(Round { ops: vec![Op::SyncData(bad), write] }).await;
        assert!(r.is_err());
        assert_eq!(f.len().await.unwrap(), 0);
    });
}
