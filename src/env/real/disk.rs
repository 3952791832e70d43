//! Files on the operating system. Calls that can block run on tokio's blocking pool of the calling worker, except those
//! of a [`Thread`], which has its own.

use std::{
    fs, io,
    ops::{Deref, Range},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use bytes::Bytes;
use tokio::{sync::oneshot, task::spawn_blocking};

pub use super::direct::{Appender, Soon};
use super::{direct::Room, sys};
use crate::disk::{Entry, Metadata, Op, OpenOptions, Space, fail, parent, poisoned, refuse, temporary};

/// Reads up to this size are first tried in the page cache, on the calling thread.
const INLINE_READ_MAX: usize = 256 << 10;
/// A read that asks for more than this is first cut to what the file holds, so that a damaged length cannot ask for
/// memory without bound.
const UNCHECKED_READ_MAX: usize = 1 << 20;
/// Rounds that may wait in a [`Thread`]. A journal has one under way and at most a few behind it.
const ROUNDS_MAX: usize = 64;

/// The file system. A handle without state in production; in simulation, the disk of the node.
#[derive(Clone, Debug, Default)]
pub struct Disk(());

/// An open file. Clones share it; it closes with the last of them.
#[derive(Clone, Debug)]
pub struct File(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) file: fs::File,
    path: PathBuf,
    poisoned: AtomicBool,
    /// One sync at a time: the kernel tells of what it could not write once only, and whoever syncs beside the one who was told would hear that all is well.
    syncing: std::sync::Mutex<()>,
    /// The same file past the page cache, once that was wanted; `None` in it where that cannot be.
    pub(super) direct: OnceLock<Option<fs::File>>,
    /// Bytes that were read in order past the page cache, or through it after that.
    pub(super) streamed: AtomicU64,
}

/// A directory that no other process may lock until this is dropped.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] fs::File);

/// The content of a sealed file. Nobody may change or cut the file while it lives.
#[derive(Debug)]
pub struct Map(Option<memmap2::Mmap>);

impl Deref for Map {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

async fn blocking<T, F>(f: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    match spawn_blocking(f).await {
        Ok(r) => r,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(io::Error::other("the runtime is shutting down")),
        },
    }
}

async fn on_path<T, F>(op: &'static str, path: &Path, f: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce(&Path) -> io::Result<T> + Send + 'static,
{
    let path = path.to_path_buf();
    blocking(move || f(&path).map_err(|e| fail(op, &path, e))).await
}

impl Disk {
    /// The operating system's files; in simulation, those of the calling node.
    pub fn os() -> Disk {
        Disk(())
    }

    /// Opens a file. A new one is durable after [`Disk::sync_dir`] of its directory.
    pub async fn open(&self, path: impl AsRef<Path>, how: OpenOptions) -> io::Result<File> {
        on_path("open", path.as_ref(), move |p| {
            let file = fs::OpenOptions::new()
                .read(true)
                .write(how.write)
                .create(how.create)
                .create_new(how.create_new)
                .truncate(how.truncate)
                .mode(how.mode)
                .open(p)?;
            if file.metadata()?.is_dir() {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            sys::read_what_is_asked(&file);
            Ok(File(Arc::new(Inner {
                file,
                path: p.to_path_buf(),
                poisoned: AtomicBool::new(false),
                syncing: Default::default(),
                direct: OnceLock::new(),
                streamed: AtomicU64::new(0),
            })))
        })
        .await
    }

    /// Gives `from` the name `to`, in place of what had it. Durable after [`Disk::sync_dir`] of both directories.
    pub async fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let to = to.as_ref().to_path_buf();
        on_path("rename", from.as_ref(), move |p| fs::rename(p, to)).await
    }

    /// Removes a file's name. Durable after [`Disk::sync_dir`].
    pub async fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        on_path("remove", path.as_ref(), |p| fs::remove_file(p)).await
    }

    /// Removes an empty directory.
    pub async fn remove_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        on_path("remove", path.as_ref(), |p| fs::remove_dir(p)).await
    }

    /// Removes a directory and all that is below it.
    pub async fn remove_dir_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        on_path("remove", path.as_ref(), |p| fs::remove_dir_all(p)).await
    }

    /// Makes a directory and those above it, with mode 0750; those that are there stay as they are. Each new name is made
    /// durable before this returns.
    pub async fn create_dir_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        on_path("create directory", path.as_ref(), |p| {
            let missing: Vec<&Path> =
                p.ancestors().take_while(|a| !a.as_os_str().is_empty() && !a.is_dir()).collect();
            let mut builder = fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o750);
            builder.recursive(true).create(p)?;
            missing.iter().rev().try_for_each(|d| fs::File::open(parent(d))?.sync_all())
        })
        .await
    }

    /// The names in a directory, sorted.
    pub async fn read_dir(&self, path: impl AsRef<Path>) -> io::Result<Vec<Entry>> {
        on_path("list", path.as_ref(), |p| {
            let mut all = Vec::new();
            for e in fs::read_dir(p)? {
                let e = e?;
                let Ok(name) = e.file_name().into_string() else { continue };
                // A name that vanished between the two calls is no longer there.
                let meta = match fs::metadata(e.path()) {
                    Ok(m) => m,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                };
                let len = if meta.is_dir() { 0 } else { meta.len() };
                all.push(Entry { name, is_dir: meta.is_dir(), len });
            }
            all.sort();
            Ok(all)
        })
        .await
    }

    /// Makes the names in the directory `path` durable.
    pub async fn sync_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        on_path("sync directory", path.as_ref(), |p| fs::File::open(p)?.sync_all()).await
    }

    /// What is known of a path; `NotFound` if there is nothing.
    pub async fn metadata(&self, path: impl AsRef<Path>) -> io::Result<Metadata> {
        on_path("stat", path.as_ref(), |p| fs::metadata(p).map(|m| metadata(&m))).await
    }

    /// Whether the path is there. An error is not a no.
    pub async fn exists(&self, path: impl AsRef<Path>) -> io::Result<bool> {
        on_path("stat", path.as_ref(), |p| p.try_exists()).await
    }

    /// The whole content of a small file.
    pub async fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        on_path("read", path.as_ref(), |p| fs::read(p)).await
    }

    /// Replaces the content of a small file such that after a crash it is the old or the new one, and makes it durable. The
    /// name with `.tmp` added is used on the way.
    pub async fn write_atomic(&self, path: impl AsRef<Path>, bytes: impl Into<Bytes>) -> io::Result<()> {
        let bytes = bytes.into();
        on_path("write", path.as_ref(), move |p| {
            let tmp = temporary(p);
            let mut how = fs::OpenOptions::new();
            let f = how.write(true).create(true).truncate(true).mode(0o640).open(&tmp)?;
            f.write_all_at(&bytes, 0)?;
            f.sync_all()?;
            fs::rename(&tmp, p)?;
            fs::File::open(parent(p))?.sync_all()
        })
        .await
    }

    /// The room on the file system of `path`.
    pub async fn space(&self, path: impl AsRef<Path>) -> io::Result<Space> {
        on_path("statvfs", path.as_ref(), sys::space).await
    }

    /// Locks the file `path`, which is made if missing, against every other process. `WouldBlock` if one has it.
    pub async fn lock(&self, path: impl AsRef<Path>) -> io::Result<Lock> {
        on_path("lock", path.as_ref(), |p| {
            let mut how = fs::OpenOptions::new();
            let f = how.read(true).write(true).create(true).truncate(false).mode(0o640).open(p)?;
            match f.try_lock() {
                Ok(()) => Ok(Lock(f)),
                Err(fs::TryLockError::WouldBlock) => {
                    Err(io::Error::new(io::ErrorKind::WouldBlock, "in use by another process"))
                }
                Err(fs::TryLockError::Error(e)) => Err(e),
            }
        })
        .await
    }
}

fn metadata(m: &fs::Metadata) -> Metadata {
    let modified = crate::Wall(m.mtime().saturating_mul(1_000_000_000).saturating_add(m.mtime_nsec()));
    Metadata { is_dir: m.is_dir(), len: if m.is_dir() { 0 } else { m.len() }, modified }
}

impl Inner {
    pub(super) fn fail(&self, op: &'static str, e: io::Error) -> io::Error {
        fail(op, &self.path, e)
    }
    pub(super) fn writable(&self, op: &'static str) -> io::Result<()> {
        if self.poisoned.load(Ordering::Acquire) { Err(poisoned(op, &self.path)) } else { Ok(()) }
    }
    fn sync(&self, op: &'static str, all: bool) -> io::Result<()> {
        let _one = self.syncing.lock().unwrap_or_else(|e| e.into_inner());
        self.writable(op)?;
        let r = if all { self.file.sync_all() } else { self.file.sync_data() };
        r.map_err(|e| {
            // E-2: what the kernel could not write it may have dropped; a second sync would say Ok and lie.
            self.poisoned.store(true, Ordering::Release);
            self.fail(op, e)
        })
    }
    fn write(&self, off: u64, bufs: &[Bytes]) -> io::Result<()> {
        self.writable("write")?;
        sys::write_all_vectored_at(&self.file, bufs, off).map_err(|e| self.fail("write", e))
    }
    fn read(&self, off: u64, len: usize) -> io::Result<Bytes> {
        let mut len = len;
        if len > UNCHECKED_READ_MAX {
            let held = self.file.metadata().map_err(|e| self.fail("read", e))?.len().saturating_sub(off);
            len = len.min(usize::try_from(held).unwrap_or(usize::MAX));
        }
        let mut buf = Vec::with_capacity(len);
        while buf.len() < len {
            let (want, at) = (len - buf.len(), off.saturating_add(buf.len() as u64));
            match sys::read_at(&self.file, &mut buf, want, at) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.fail("read", e)),
            }
        }
        Ok(buf.into())
    }
}

impl File {
    pub(super) async fn blocking<T, F>(&self, f: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    {
        let inner = self.0.clone();
        blocking(move || f(&inner)).await
    }

    /// The path that it was opened with.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Up to `len` bytes from `off` on; fewer only at the end of the file. Bytes that this program never wrote inside the
    /// file (set_len, allocate, punch_hole) are an error in simulation; see [`File::scan_at`].
    pub async fn read_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        if len <= INLINE_READ_MAX {
            let mut buf = Vec::with_capacity(len);
            if let Ok(n) = sys::read_cached(&self.0.file, &mut buf, len, off)
                && n == len
            {
                return Ok(buf.into());
            }
        }
        self.blocking(move |f| f.read(off, len)).await
    }

    /// As [`File::read_at`], for a recovery that may meet space that was reserved and never written: it reads as zeros.
    pub async fn scan_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        self.read_at(off, len).await
    }

    /// Exactly `len` bytes from `off` on, or `UnexpectedEof`.
    pub async fn read_exact_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        let b = self.read_at(off, len).await?;
        if b.len() == len { Ok(b) } else { Err(short(&self.0.path, off, len, b.len())) }
    }

    /// Reads into `buf` if the bytes are in the page cache; `None` if that would block. Fewer bytes than asked for are the
    /// end of the file or of what is cached: go on with [`File::read_at`].
    pub fn try_read_cached(&self, off: u64, buf: &mut [u8]) -> Option<io::Result<usize>> {
        match sys::read_cached_into(&self.0.file, buf, off) {
            Ok(n) => Some(Ok(n)),
            Err(e) if sys::would_block(&e) => None,
            Err(e) => Some(Err(self.0.fail("read", e))),
        }
    }

    /// Writes `bytes` at `off`; the file grows as needed. Not durable before a sync (E-1).
    pub async fn write_at(&self, off: u64, bytes: impl Into<Bytes>) -> io::Result<()> {
        let bytes = bytes.into();
        self.blocking(move |f| f.write(off, &[bytes])).await
    }

    /// Writes the buffers one after another from `off` on.
    pub async fn write_vectored_at(&self, off: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        self.blocking(move |f| f.write(off, &bufs)).await
    }

    /// As [`File::write_vectored_at`], on the calling thread: for little that goes to the page cache. It may wait there where others write more than the disk takes.
    pub async fn write_here(&self, off: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        self.0.write(off, &bufs)
    }

    /// Makes the content and the length durable (E-1). A failure is final (E-2).
    pub async fn sync_data(&self) -> io::Result<()> {
        self.blocking(|f| f.sync("sync", false)).await
    }

    /// As [`File::sync_data`], with the metadata.
    pub async fn sync_all(&self) -> io::Result<()> {
        self.blocking(|f| f.sync("sync", true)).await
    }

    /// Cuts the file, or grows it with space that was never written.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        self.blocking(move |f| {
            f.writable("set length")?;
            f.file.set_len(len).map_err(|e| f.fail("set length", e))
        })
        .await
    }

    /// The file's length in bytes.
    pub async fn len(&self) -> io::Result<u64> {
        // fstat of an open file does not block.
        self.0.file.metadata().map(|m| m.len()).map_err(|e| self.0.fail("stat", e))
    }

    /// Whether the file has no bytes.
    pub async fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// Reserves the space of a range, so that writing there cannot meet a full disk; the file grows as needed. Where the
    /// file system cannot reserve, only the length is set.
    pub async fn allocate(&self, off: u64, len: u64) -> io::Result<()> {
        self.blocking(move |f| {
            f.writable("allocate")?;
            sys::allocate(&f.file, off, len).map_err(|e| f.fail("allocate", e))
        })
        .await
    }

    /// Gives the space of a range back; it reads as zeros. The length stays.
    pub async fn punch_hole(&self, off: u64, len: u64) -> io::Result<()> {
        self.blocking(move |f| {
            f.writable("punch hole")?;
            sys::punch_hole(&f.file, off, len).map_err(|e| f.fail("punch hole", e))
        })
        .await
    }

    /// Maps the whole file. Only for files that nothing changes or cuts any more (sealed segments) and whose content was
    /// verified: an I/O error under a mapping is a signal, not a value.
    pub async fn map(&self) -> io::Result<Map> {
        self.blocking(|f| sys::map(&f.file).map(Map).map_err(|e| f.fail("map", e))).await
    }
}

fn short(path: &Path, off: u64, len: usize, got: usize) -> io::Error {
    let Range { start, end } = off..off.saturating_add(len as u64);
    let text = format!("bytes {start}..{end} asked for, the file ends after {got} of them");
    refuse("read", path, crate::disk::Cause::Other, io::ErrorKind::UnexpectedEof, &text)
}

/// Steps that a [`Thread`] takes one after another; the first failure ends the round.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// The steps.
    pub ops: Vec<Op>,
}

/// A thread of its own for one journal's writes: a round costs one wake-up of the thread and one of the waiting task,
/// whatever number of writes and syncs it holds. Rounds run in the order of their submission. Dropping it ends the thread
/// after the rounds that were submitted, and waits for it.
#[derive(Debug)]
pub struct Thread {
    queue: Option<mpsc::SyncSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    round: Round,
    done: oneshot::Sender<io::Result<()>>,
}

impl Thread {
    /// Starts the thread. `name` is shown by the system's tools, of which the first 15 bytes.
    pub fn start(name: &str) -> io::Result<Thread> {
        let (tx, rx) = mpsc::sync_channel::<Job>(ROUNDS_MAX);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut room = Room::default();
            while let Ok(job) = rx.recv() {
                job.done.send(run(&job.round, &mut room)).ok();
            }
        })?;
        Ok(Thread { queue: Some(tx), thread: Some(thread) })
    }

    /// Submits a round; await the result for its end. The round runs whether or not it is awaited. More than 64 waiting
    /// rounds are refused with `WouldBlock`.
    pub fn submit(&self, round: Round) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let (done, end) = oneshot::channel();
        let sent = match &self.queue {
            Some(q) => q.try_send(Job { round, done }).map_err(|e| match e {
                mpsc::TrySendError::Full(_) => {
                    io::Error::new(io::ErrorKind::WouldBlock, "too many rounds wait for the disk")
                }
                mpsc::TrySendError::Disconnected(_) => gone(),
            }),
            None => Err(gone()),
        };
        async move {
            sent?;
            end.await.unwrap_or_else(|_| Err(gone()))
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the journal's thread has ended")
}

fn run(round: &Round, room: &mut Room) -> io::Result<()> {
    round.ops.iter().try_for_each(|op| match op {
        Op::Write { file, off, bufs, cached } => {
            let past = if *cached { None } else { file.0.write_aligned(*off, bufs, room) };
            past.unwrap_or_else(|| file.0.write(*off, bufs))
        }
        Op::SyncData(file) => file.0.sync("sync", false),
        Op::SyncAll(file) => file.0.sync("sync", true),
    })
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(t) = self.thread.take() {
            t.join().ok();
        }
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
