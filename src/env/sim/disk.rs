//! Files on the machine's simulated disk. How long an operation takes is the disk's say; the rest is [`crate::simdisk`].

use std::{
    io,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use madsim::task::NodeId;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{
    clock::Pause,
    world::{Death, World, elapsed},
};
use crate::{
    Rng,
    disk::{Cause, Entry, Metadata, Op, OpenOptions, Space, fail, parent, poisoned, refuse, temporary},
    simdisk::{Error, Handle, SimDisk},
    trace,
};

/// Rounds that may wait in a [`Thread`].
const ROUNDS_MAX: usize = 64;

/// The file system of the machine.
#[derive(Clone)]
pub struct Disk {
    world: World,
    node: NodeId,
    sim: Arc<Mutex<SimDisk>>,
    rng: Arc<Mutex<Rng>>,
}

/// An open file. Clones share it; it closes with the last of them.
#[derive(Clone, Debug)]
pub struct File(Arc<Inner>);

struct Inner {
    disk: Disk,
    handle: Handle,
    path: PathBuf,
}

/// A path that no other holder may lock until this is dropped.
#[derive(Debug)]
pub struct Lock {
    disk: Disk,
    path: String,
    boots: u64,
}

/// The content of a sealed file.
#[derive(Debug)]
pub struct Map(Vec<u8>);

impl Deref for Map {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disk({})", self.node)
    }
}
impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "File({})", self.path.display())
    }
}

/// The error that production would give.
fn error(op: &'static str, path: &Path, e: Error) -> io::Error {
    let os = |code| fail(op, path, io::Error::from_raw_os_error(code));
    match e {
        Error::NotFound => os(libc::ENOENT),
        Error::Exists => os(libc::EEXIST),
        Error::IsDir => os(libc::EISDIR),
        Error::NotDir => os(libc::ENOTDIR),
        Error::NotEmpty => os(libc::ENOTEMPTY),
        Error::Invalid => os(libc::EINVAL),
        Error::Io => os(libc::EIO),
        Error::NoSpace => os(libc::ENOSPC),
        Error::BadHandle => os(libc::EBADF),
        Error::Poisoned => poisoned(op, path),
        Error::NeverWritten(at) => {
            let text = format!("byte {at} was never written");
            refuse(op, path, Cause::NeverWritten, io::ErrorKind::InvalidInput, &text)
        }
        Error::Crashed => refuse(op, path, Cause::Crashed, io::ErrorKind::Other, "the power failed"),
    }
}

fn text(path: &Path) -> &str {
    // A name that is not UTF-8 is refused by the disk as a path that climbs.
    path.to_str().unwrap_or("..")
}

/// A reading that is under way: there is none.
#[derive(Debug)]
pub enum Soon {}

impl Soon {
    /// What was read.
    pub async fn read(self) -> Option<io::Result<Bytes>> {
        match self {}
    }
}

impl Disk {
    /// The disk of the machine that this code runs on. Panics outside a simulated task.
    pub fn os() -> Disk {
        let (world, node) = World::here().expect("the disk belongs to a machine of a run");
        let node = node.expect("the disk is opened by a task of a machine");
        let sim = world.with(node, |m, _| m.disk.clone());
        Disk { world, node, sim, rng: Arc::new(Mutex::new(crate::rng("disk-latency"))) }
    }

    /// Runs one operation: its effect comes at a random moment of the time that it takes.
    async fn op<T>(
        &self,
        op: &'static str,
        path: &Path,
        f: impl FnOnce(&mut SimDisk) -> Result<T, Error>,
    ) -> io::Result<T> {
        let usual = self.sim.lock().cost_ns();
        let before = self.rng.lock().below(usual.max(1));
        self.wait(before).await;
        let (r, cost, crashed, ops) = {
            let mut d = self.sim.lock();
            let now = crate::wall().0;
            d.set_time(u64::try_from(now).unwrap_or(0));
            let r = f(&mut d);
            (r, d.cost_ns(), d.crashed(), d.ops())
        };
        trace::event(op, &[ops, u64::from(r.is_ok()), cost]);
        if crashed {
            // The harness planned a power failure here: the machine goes, and this task with it.
            self.world.kill(self.node, Death::Power);
            return std::future::pending().await;
        }
        self.wait(cost.saturating_sub(before)).await;
        r.map_err(|e| error(op, path, e))
    }

    async fn wait(&self, ns: u64) {
        if ns > 0 {
            Pause::until(elapsed().unwrap_or(0) + ns).await;
        }
    }

    /// Opens a file. A new one is durable after [`Disk::sync_dir`] of its directory.
    pub async fn open(&self, path: impl AsRef<Path>, how: OpenOptions) -> io::Result<File> {
        let path = path.as_ref();
        let handle = self.op("open", path, |d| d.open(text(path), how)).await?;
        Ok(File(Arc::new(Inner { disk: self.clone(), handle, path: path.to_path_buf() })))
    }
    /// Gives `from` the name `to`, in place of what had it. Durable after [`Disk::sync_dir`] of both directories.
    pub async fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        self.op("rename", from, |d| d.rename(text(from), text(to))).await
    }
    /// Removes a file's name. Durable after [`Disk::sync_dir`].
    pub async fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        self.op("remove", path, |d| d.remove_file(text(path))).await
    }
    /// Removes an empty directory.
    pub async fn remove_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        self.op("remove", path, |d| d.remove_dir(text(path))).await
    }
    /// Removes a directory and all that is below it.
    pub async fn remove_dir_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        // Parents stand before what they hold, so the end of the list goes first.
        let mut dirs = vec![path.as_ref().to_path_buf()];
        let mut at = 0;
        while at < dirs.len() {
            let dir = dirs[at].clone();
            at += 1;
            for e in self.read_dir(&dir).await? {
                if e.is_dir {
                    dirs.push(dir.join(e.name))
                } else {
                    self.remove_file(dir.join(e.name)).await?
                }
            }
        }
        for dir in dirs.iter().rev() {
            self.remove_dir(dir).await?;
        }
        Ok(())
    }
    /// Makes a directory and those above it; each new name is durable before this returns.
    pub async fn create_dir_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let mut missing = Vec::new();
        for a in path.ancestors().filter(|a| a.file_name().is_some()) {
            match self.metadata(a).await {
                Ok(m) if m.is_dir => break,
                Ok(_) => return Err(error("create directory", a, Error::NotDir)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(a),
                Err(e) => return Err(e),
            }
        }
        for dir in missing.into_iter().rev() {
            match self.op("create directory", dir, |d| d.create_dir(text(dir))).await {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => self.sync_dir(parent(dir)).await?,
            }
        }
        Ok(())
    }
    /// The names in a directory, sorted.
    pub async fn read_dir(&self, path: impl AsRef<Path>) -> io::Result<Vec<Entry>> {
        let path = path.as_ref();
        let all = self.op("list", path, |d| d.list(text(path))).await?;
        Ok(all.into_iter().map(|(name, s)| Entry { name, is_dir: s.is_dir, len: s.len }).collect())
    }
    /// Makes the names in the directory `path` durable.
    pub async fn sync_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        self.op("sync directory", path, |d| d.sync_dir(text(path))).await
    }
    /// What is known of a path; `NotFound` if there is nothing.
    pub async fn metadata(&self, path: impl AsRef<Path>) -> io::Result<Metadata> {
        let path = path.as_ref();
        let s = self.op("stat", path, |d| d.stat(text(path))).await?;
        Ok(Metadata { is_dir: s.is_dir, len: s.len, modified: crate::Wall(s.modified_ns as i64) })
    }
    /// Whether the path is there. An error is not a no.
    pub async fn exists(&self, path: impl AsRef<Path>) -> io::Result<bool> {
        match self.metadata(path).await {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
    /// The whole content of a small file.
    pub async fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let f = self.open(path, OpenOptions::READ).await?;
        let len = f.len().await?;
        Ok(f.scan_at(0, len as usize).await?.into())
    }
    /// Replaces the content of a small file such that after a crash it is the old or the new one, and makes it durable. The
    /// name with `.tmp` added is used on the way.
    pub async fn write_atomic(&self, path: impl AsRef<Path>, bytes: impl Into<Bytes>) -> io::Result<()> {
        let path = path.as_ref();
        let tmp = temporary(path);
        let f = self.open(&tmp, OpenOptions::TRUNCATE).await?;
        f.write_at(0, bytes).await?;
        f.sync_all().await?;
        self.rename(&tmp, path).await?;
        self.sync_dir(parent(path)).await
    }
    /// The room on the file system of `path`.
    pub async fn space(&self, _path: impl AsRef<Path>) -> io::Result<Space> {
        let (used, total) = self.sim.lock().space();
        Ok(Space { free: total - used, total })
    }
    /// Locks the file `path`, which is made if missing, against every other holder. `WouldBlock` if one has it.
    pub async fn lock(&self, path: impl AsRef<Path>) -> io::Result<Lock> {
        let path = path.as_ref();
        self.open(path, OpenOptions::CREATE).await?;
        let (free, boots) =
            self.world.with(self.node, |m, _| (m.locks.insert(text(path).to_owned()), m.boots));
        if free {
            return Ok(Lock { disk: self.clone(), path: text(path).to_owned(), boots });
        }
        Err(refuse("lock", path, Cause::Other, io::ErrorKind::WouldBlock, "in use by another process"))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.disk.world.with(self.disk.node, |m, _| {
            if m.boots == self.boots {
                m.locks.remove(&self.path);
            }
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // After a death the handle is gone and its number is never used again.
        self.disk.sim.lock().close(self.handle);
    }
}

/// Bytes that an [`Appender`] writes at once.
const APPEND_CHUNK: usize = 64 << 10;

/// Writes a new file from its start to its end, part by part. Not durable before a sync of the file (E-1), and all of it there only after [`Appender::end`].
#[derive(Debug)]
pub struct Appender {
    file: File,
    at: u64,
    held: Vec<u8>,
}

impl Appender {
    /// Adds bytes.
    pub async fn push(&mut self, mut b: &[u8]) -> io::Result<()> {
        while !b.is_empty() {
            let n = b.len().min(APPEND_CHUNK - self.held.len());
            self.held.extend_from_slice(&b[..n]);
            b = &b[n..];
            if self.held.len() == APPEND_CHUNK {
                self.write_out().await?;
            }
        }
        Ok(())
    }
    async fn write_out(&mut self) -> io::Result<()> {
        let part = Bytes::from(std::mem::take(&mut self.held));
        let at = self.at;
        self.at += part.len() as u64;
        self.file.write_vectored_at(at, vec![part]).await
    }
    /// Writes what is left.
    pub async fn end(mut self) -> io::Result<()> {
        if self.held.is_empty() { Ok(()) } else { self.write_out().await }
    }
}

impl File {
    async fn op<T>(
        &self,
        op: &'static str,
        f: impl FnOnce(&mut SimDisk, Handle) -> Result<T, Error>,
    ) -> io::Result<T> {
        let h = self.0.handle;
        self.0.disk.op(op, &self.0.path, |d| f(d, h)).await
    }

    /// Nothing is read ahead: whoever reads has what stands on the disk then.
    pub fn stream_soon(&self, _off: u64, _len: usize) -> Option<Soon> {
        None
    }

    /// The path that it was opened with.
    pub fn path(&self) -> &Path {
        &self.0.path
    }
    /// Up to `len` bytes from `off` on; fewer only at the end of the file. Bytes that this program never wrote inside the
    /// file are an error of [`Cause::NeverWritten`].
    pub async fn read_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        self.op("read", |d, h| d.read(h, off, len, true)).await.map(Bytes::from)
    }
    /// As [`File::read_at`], for a recovery that may meet space that was reserved and never written: it reads as zeros.
    pub async fn scan_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        self.op("read", |d, h| d.read(h, off, len, false)).await.map(Bytes::from)
    }
    /// Exactly `len` bytes from `off` on, or `UnexpectedEof`.
    pub async fn read_exact_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        let b = self.read_at(off, len).await?;
        if b.len() == len {
            return Ok(b);
        }
        let text = format!("bytes {off}..+{len} asked for, the file ends after {} of them", b.len());
        Err(refuse("read", &self.0.path, Cause::Other, io::ErrorKind::UnexpectedEof, &text))
    }
    /// Reads into `buf` if the bytes are in the page cache, which is drawn; `None` if that would block.
    pub fn try_read_cached(&self, off: u64, buf: &mut [u8]) -> Option<io::Result<usize>> {
        if self.0.disk.rng.lock().bool(0.3) {
            return None;
        }
        let mut d = self.0.disk.sim.lock();
        match d.read(self.0.handle, off, buf.len(), true) {
            Ok(v) => {
                buf[..v.len()].copy_from_slice(&v);
                Some(Ok(v.len()))
            }
            Err(Error::Crashed) => None,
            Err(e) => Some(Err(error("read", &self.0.path, e))),
        }
    }
    /// Writes `bytes` at `off`; the file grows as needed. Not durable before a sync (E-1).
    pub async fn write_at(&self, off: u64, bytes: impl Into<Bytes>) -> io::Result<()> {
        let bytes = bytes.into();
        self.op("write", |d, h| d.write(h, off, &bytes)).await
    }
    /// Writes the buffers one after another from `off` on.
    pub async fn write_vectored_at(&self, off: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        self.write_at(off, bufs.concat()).await
    }
    /// As [`File::scan_at`], what the disk holds.
    pub async fn disk_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        self.scan_at(off, len).await
    }
    /// As [`File::scan_at`], for somebody who reads much in order.
    pub async fn stream_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        self.scan_at(off, len).await
    }
    /// Begins to write the content of a file that is empty, from its start to its end.
    pub fn appender(&self, _past_cache: bool) -> Appender {
        Appender { file: self.clone(), at: 0, held: Vec::new() }
    }
    /// As [`File::write_vectored_at`].
    pub async fn write_here(&self, off: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        self.write_vectored_at(off, bufs).await
    }
    /// Makes the content and the length durable (E-1). A failure is final (E-2).
    pub async fn sync_data(&self) -> io::Result<()> {
        self.op("sync", |d, h| d.sync(h)).await
    }
    /// As [`File::sync_data`], with the metadata.
    pub async fn sync_all(&self) -> io::Result<()> {
        self.sync_data().await
    }
    /// Cuts the file, or grows it with space that was never written.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        self.op("set length", |d, h| d.set_len(h, len)).await
    }
    /// The file's length in bytes.
    pub async fn len(&self) -> io::Result<u64> {
        self.0.disk.sim.lock().len(self.0.handle).map_err(|e| error("stat", &self.0.path, e))
    }
    /// Whether the file has no bytes.
    pub async fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len().await? == 0)
    }
    /// Reserves the space of a range; the file grows as needed.
    pub async fn allocate(&self, off: u64, len: u64) -> io::Result<()> {
        self.op("allocate", |d, h| d.allocate(h, off, len)).await
    }
    /// The same: here what was never written is told apart from zeros.
    pub async fn allocate_written(&self, off: u64, len: u64) -> io::Result<()> {
        self.allocate(off, len).await
    }
    /// Gives the space of a range back; it reads as zeros. The length stays.
    pub async fn punch_hole(&self, off: u64, len: u64) -> io::Result<()> {
        self.op("punch hole", |d, h| d.punch_hole(h, off, len)).await
    }
    /// The whole content of a sealed file.
    pub async fn map(&self) -> io::Result<Map> {
        let len = self.len().await?;
        Ok(Map(self.scan_at(0, len as usize).await?.into()))
    }
}

/// Steps that a [`Thread`] takes one after another; the first failure ends the round.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// The steps.
    pub ops: Vec<Op>,
}

/// A task of its own for one journal's writes.
#[derive(Debug)]
pub struct Thread {
    queue: mpsc::Sender<(Round, oneshot::Sender<io::Result<()>>)>,
}

impl Thread {
    /// Starts the task.
    pub fn start(_name: &str) -> io::Result<Thread> {
        let (queue, mut rx) = mpsc::channel::<(Round, oneshot::Sender<io::Result<()>>)>(ROUNDS_MAX);
        super::task::spawn(async move {
            while let Some((round, done)) = rx.recv().await {
                done.send(run(round).await).ok();
            }
        });
        Ok(Thread { queue })
    }
    /// Submits a round; await the result for its end. The round runs whether or not it is awaited. More than 64 waiting
    /// rounds are refused with `WouldBlock`.
    pub fn submit(&self, round: Round) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let (done, end) = oneshot::channel();
        let sent = self.queue.try_send((round, done)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => {
                io::Error::new(io::ErrorKind::WouldBlock, "too many rounds wait for the disk")
            }
            mpsc::error::TrySendError::Closed(_) => gone(),
        });
        async move {
            sent?;
            end.await.unwrap_or_else(|_| Err(gone()))
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the journal's thread has ended")
}

async fn run(round: Round) -> io::Result<()> {
    for op in round.ops {
        match op {
            Op::Write { file, off, bufs, cached: _ } => file.write_vectored_at(off, bufs).await?,
            Op::SyncData(file) => file.sync_data().await?,
            Op::SyncAll(file) => file.sync_all().await?,
        }
    }
    Ok(())
}
