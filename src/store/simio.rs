//! A simulated disk as the store's disk, without a runtime: every operation is done when it is first polled, or, where
//! the harness wants tasks to interleave, after yielding once.
//!
//! Compiled for tests and with the feature `l1` only.

use std::{
    io,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use env::{
    disk::{Entry, OpenOptions},
    simdisk::{Error, Handle, SimDisk},
};
use parking_lot::Mutex;

/// Polls a future to its end, at most so often; `between` runs after each poll that did not end it. What simulated disks do ends at once or
/// after yielding once, so what is not done then waits for something that never comes.
pub(crate) fn finish<F: Future>(f: F, polls_max: usize, mut between: impl FnMut()) -> F::Output {
    let mut f = pin!(f);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..polls_max {
        if let Poll::Ready(v) = f.as_mut().poll(&mut cx) {
            return v;
        }
        between();
    }
    panic!("a future waits for something that never comes");
}

/// Polls a future so often and drops it then, as a process does that dies; whether it ended before.
#[cfg(test)]
pub(crate) fn some_polls<F: Future>(f: F, polls: usize) -> bool {
    let mut f = pin!(f);
    let mut cx = Context::from_waker(Waker::noop());
    (0..polls).any(|_| f.as_mut().poll(&mut cx).is_ready())
}

/// Options under which a few messages already make several files.
#[cfg(test)]
pub(crate) fn small() -> crate::Options {
    crate::Options {
        sector: 512,
        journal_file_min: 32 << 10,
        journal_file_max: 128 << 10,
        journal_budget: 1 << 20,
        own_file_bytes: 8 << 10,
        reserve: 4 << 10,
        block: 600,
        refer_min: 700,
        refer_entry_min: 1500,
        refer_message_min: 1,
        refer_synced_min: 1,
        early_max: 20 << 10,
        threads: false,
        ..crate::Options::default()
    }
}

/// An operation that takes longer is late by a turn of the others for each such time, up to so many.
const SLOW_NS: u64 = 500_000;
const TURNS_MAX: u64 = 40;

/// A simulated disk that many handles share.
#[derive(Clone)]
pub struct SimHandle {
    disk: Arc<Mutex<SimDisk>>,
    yields: bool,
    frozen: Arc<AtomicBool>,
    /// A place that cannot be read.
    bad: Arc<Mutex<Option<(String, u64)>>>,
}

impl std::fmt::Debug for SimHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimHandle")
    }
}

/// An open file of a simulated disk.
#[derive(Clone, Debug)]
pub struct SimFile(Arc<Open>);

#[derive(Debug)]
struct Open {
    disk: SimHandle,
    handle: Handle,
    path: String,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.disk.disk.lock().close(self.handle);
    }
}

fn error(path: &str, e: Error) -> io::Error {
    let kind = match e {
        Error::NotFound => io::ErrorKind::NotFound,
        Error::Exists => io::ErrorKind::AlreadyExists,
        Error::NoSpace => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    // Never having written what is read is a bug of the store and not of the disk.
    assert!(!matches!(e, Error::NeverWritten(_)), "S-60: {path}: {e:?}");
    io::Error::new(kind, format!("{path}: {e:?}"))
}

fn text(p: &Path) -> &str {
    p.to_str().unwrap_or("..")
}

impl SimHandle {
    /// A handle of a disk. With `yields`, every operation lets other tasks run first.
    pub fn new(disk: SimDisk, yields: bool) -> SimHandle {
        SimHandle { disk: Arc::new(Mutex::new(disk)), yields, frozen: Arc::default(), bad: Arc::default() }
    }

    /// A disk of sectors of 512 bytes that does what it is told, for tests.
    #[cfg(test)]
    pub(crate) fn faultless(seed: u64) -> SimHandle {
        let mut options = env::simdisk::Options { sector: 512, ..env::simdisk::Options::default() };
        options.rates.clear();
        SimHandle::new(SimDisk::new(options, env::rng::Rng::derived(seed, "a disk of tests")), false)
    }

    /// The same, where every operation lets others run first.
    #[cfg(test)]
    pub(crate) fn yielding(seed: u64) -> SimHandle {
        SimHandle { yields: true, ..SimHandle::faultless(seed) }
    }

    /// Another disk of the same content.
    #[cfg(test)]
    pub(crate) fn copy(&self) -> SimHandle {
        SimHandle::new(self.with(|d| d.clone()), self.yields)
    }

    /// From now on a file cannot be read where this place is in what is read.
    #[cfg(test)]
    pub(crate) fn bad_place(&self, path: String, off: u64) {
        *self.bad.lock() = Some((path, off));
    }

    /// Whether every operation waits, as on a disk that does not answer. Needs a runtime while it is.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Release);
    }

    /// The disk itself, for the harness.
    pub fn with<T>(&self, f: impl FnOnce(&mut SimDisk) -> T) -> T {
        f(&mut self.disk.lock())
    }

    async fn op<T>(&self, path: &str, f: impl FnOnce(&mut SimDisk) -> Result<T, Error>) -> io::Result<T> {
        while self.frozen.load(Ordering::Acquire) {
            env::sleep(std::time::Duration::from_millis(1)).await;
        }
        if self.yields {
            let mut first = true;
            std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
        }
        let (r, cost) = {
            let mut d = self.disk.lock();
            (f(&mut d), d.cost_ns())
        };
        // A slow one is done late: meanwhile others do more than one operation.
        let mut late = if self.yields { (cost / SLOW_NS).min(TURNS_MAX) } else { 0 };
        std::future::poll_fn(|cx| {
            if late == 0 {
                return Poll::Ready(());
            }
            late -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        r.map_err(|e| error(path, e))
    }

    pub(crate) async fn open(&self, path: &Path, how: OpenOptions) -> io::Result<SimFile> {
        let path = text(path);
        let handle = self.op(path, |d| d.open(path, how)).await?;
        Ok(SimFile(Arc::new(Open { disk: self.clone(), handle, path: path.to_owned() })))
    }
    pub(crate) async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut all: Vec<&Path> = path.ancestors().filter(|a| a.file_name().is_some()).collect();
        all.reverse();
        for dir in all {
            let dir_text = text(dir);
            match self.op(dir_text, |d| d.create_dir(dir_text)).await {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
                Ok(()) => self.sync_dir(dir.parent().unwrap_or(Path::new("/"))).await?,
            }
        }
        Ok(())
    }
    pub(crate) async fn read_dir(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let path = text(path);
        let all = self.op(path, |d| d.list(path)).await?;
        Ok(all.into_iter().map(|(name, s)| Entry { name, is_dir: s.is_dir, len: s.len }).collect())
    }
    pub(crate) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (text(from), text(to));
        self.op(from, |d| d.rename(from, to)).await
    }
    pub(crate) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = text(path);
        self.op(path, |d| d.remove_file(path)).await
    }
    pub(crate) async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = text(path);
        self.op(path, |d| d.sync_dir(path)).await
    }
}

impl SimFile {
    async fn op<T>(&self, f: impl FnOnce(&mut SimDisk, Handle) -> Result<T, Error>) -> io::Result<T> {
        let h = self.0.handle;
        self.0.disk.op(&self.0.path, |d| f(d, h)).await
    }
    pub(crate) async fn scan_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        if let Some((path, bad)) = &*self.0.disk.bad.lock()
            && *path == self.0.path
            && (off..off + len as u64).contains(bad)
        {
            return Err(io::Error::other(format!("{path}: a bad place at {bad}")));
        }
        self.op(|d, h| d.read(h, off, len, false)).await.map(Bytes::from)
    }
    pub(crate) async fn write_vectored_at(&self, off: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        let all = bufs.concat();
        self.op(|d, h| d.write(h, off, &all)).await
    }
    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        self.op(|d, h| d.sync(h)).await
    }
    pub(crate) async fn allocate(&self, off: u64, len: u64) -> io::Result<()> {
        self.op(|d, h| d.allocate(h, off, len)).await
    }
    pub(crate) async fn set_len(&self, len: u64) -> io::Result<()> {
        self.op(|d, h| d.set_len(h, len)).await
    }
    pub(crate) async fn len(&self) -> io::Result<u64> {
        self.0.disk.disk.lock().len(self.0.handle).map_err(|e| error(&self.0.path, e))
    }
}
