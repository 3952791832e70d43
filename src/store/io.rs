//! The few disk operations that the store uses, on `env::disk`, or, in tests and the level-1 simulation, directly on a
//! simulated disk without any runtime around it.
//!
//! Owns the choice between the two, made once per handle. Does no caching and no retry.

use std::{io, path::Path};

use bytes::Bytes;
use env::disk::{Entry, OpenOptions};

#[cfg(any(test, feature = "l1"))]
pub use crate::simio::SimHandle;

/// Where the store lives.
#[derive(Clone, Debug)]
pub enum Disk {
    /// The node's disk.
    Os(env::disk::Disk),
    /// A simulated disk of its own.
    #[cfg(any(test, feature = "l1"))]
    Sim(SimHandle),
}

/// An open file.
#[derive(Clone, Debug)]
pub(crate) enum File {
    Os(env::disk::File),
    #[cfg(any(test, feature = "l1"))]
    Sim(crate::simio::SimFile),
}

impl From<env::disk::Disk> for Disk {
    fn from(d: env::disk::Disk) -> Disk {
        Disk::Os(d)
    }
}

/// Calls the same method on either backend.
macro_rules! both {
    ($self:expr, $ty:ident, $d:ident => $e:expr) => {
        match $self {
            $ty::Os($d) => $e,
            #[cfg(any(test, feature = "l1"))]
            $ty::Sim($d) => $e,
        }
    };
}

impl Disk {
    pub(crate) async fn open(&self, path: &Path, how: OpenOptions) -> io::Result<File> {
        match self {
            Disk::Os(d) => d.open(path, how).await.map(File::Os),
            #[cfg(any(test, feature = "l1"))]
            Disk::Sim(d) => d.open(path, how).await.map(File::Sim),
        }
    }
    /// Nobody else may open this store while the lock lives. A simulated disk without a runtime has one user only.
    pub(crate) async fn lock(&self, path: &Path) -> io::Result<Option<env::disk::Lock>> {
        match self {
            Disk::Os(d) => d.lock(path).await.map(Some),
            #[cfg(any(test, feature = "l1"))]
            Disk::Sim(_) => Ok(None),
        }
    }
    pub(crate) async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        both!(self, Disk, d => d.create_dir_all(path).await)
    }
    pub(crate) async fn read_dir(&self, path: &Path) -> io::Result<Vec<Entry>> {
        both!(self, Disk, d => d.read_dir(path).await)
    }
    pub(crate) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        both!(self, Disk, d => d.rename(from, to).await)
    }
    pub(crate) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        both!(self, Disk, d => d.remove_file(path).await)
    }
    pub(crate) async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        both!(self, Disk, d => d.sync_dir(path).await)
    }
}

impl File {
    /// Up to `len` bytes; what was reserved and never written reads as zeros.
    pub(crate) async fn scan_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        both!(self, File, f => f.scan_at(off, len).await)
    }
    /// The same, what the disk itself holds.
    pub(crate) async fn disk_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        match self {
            File::Os(f) => f.disk_at(off, len).await,
            #[cfg(any(test, feature = "l1"))]
            File::Sim(f) => f.scan_at(off, len).await,
        }
    }
    /// The same for somebody who reads much in order.
    pub(crate) async fn stream_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        match self {
            File::Os(f) => f.stream_at(off, len).await,
            #[cfg(any(test, feature = "l1"))]
            File::Sim(f) => f.scan_at(off, len).await,
        }
    }
    /// Begins such a reading, where that is of use.
    pub(crate) fn stream_soon(&self, off: u64, len: usize) -> Option<env::disk::Soon> {
        match self {
            File::Os(f) => f.stream_soon(off, len),
            #[cfg(any(test, feature = "l1"))]
            File::Sim(_) => None,
        }
    }
    pub(crate) async fn write_vectored_at(&self, off: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        both!(self, File, f => f.write_vectored_at(off, bufs).await)
    }
    /// Begins to write the content of a new file from its start to its end.
    pub(crate) fn appender(&self, past_cache: bool) -> Appender {
        match self {
            File::Os(f) => Appender::Os(f.appender(past_cache)),
            #[cfg(any(test, feature = "l1"))]
            File::Sim(f) => Appender::Sim { file: f.clone(), at: 0, held: Vec::new() },
        }
    }
    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        both!(self, File, f => f.sync_data().await)
    }
    pub(crate) async fn allocate(&self, off: u64, len: u64) -> io::Result<()> {
        both!(self, File, f => f.allocate(off, len).await)
    }
    pub(crate) async fn set_len(&self, len: u64) -> io::Result<()> {
        both!(self, File, f => f.set_len(len).await)
    }
    /// The same, written with zeros where that makes later syncs cheaper.
    pub(crate) async fn allocate_written(&self, off: u64, len: u64) -> io::Result<()> {
        match self {
            File::Os(f) => f.allocate_written(off, len).await,
            #[cfg(any(test, feature = "l1"))]
            File::Sim(f) => f.allocate(off, len).await,
        }
    }
    pub(crate) async fn len(&self) -> io::Result<u64> {
        both!(self, File, f => f.len().await)
    }
}

/// Bytes that are written at once on a simulated disk.
#[cfg(any(test, feature = "l1"))]
const SIM_CHUNK: usize = 16 << 10;

/// Writes a new file part by part.
#[derive(Debug)]
pub(crate) enum Appender {
    Os(env::disk::Appender),
    #[cfg(any(test, feature = "l1"))]
    Sim {
        file: crate::simio::SimFile,
        at: u64,
        held: Vec<u8>,
    },
}

impl Appender {
    pub(crate) async fn push(&mut self, b: &[u8]) -> io::Result<()> {
        match self {
            Appender::Os(a) => a.push(b).await,
            #[cfg(any(test, feature = "l1"))]
            Appender::Sim { file, at, held } => {
                held.extend_from_slice(b);
                while held.len() >= SIM_CHUNK {
                    let rest = held.split_off(SIM_CHUNK);
                    let part = Bytes::from(std::mem::replace(held, rest));
                    file.write_vectored_at(*at, vec![part]).await?;
                    *at += SIM_CHUNK as u64;
                }
                Ok(())
            }
        }
    }
    /// Writes what is left. Not durable before a sync of the file.
    pub(crate) async fn end(self) -> io::Result<()> {
        match self {
            Appender::Os(a) => a.end().await,
            #[cfg(any(test, feature = "l1"))]
            Appender::Sim { held, .. } if held.is_empty() => Ok(()),
            #[cfg(any(test, feature = "l1"))]
            Appender::Sim { file, at, held } => file.write_vectored_at(at, vec![held.into()]).await,
        }
    }
}

/// Bytes of a round without a sync that are written by whoever brings them: two wake-ups of threads and a trip to the host cost more than the copy to the page
/// cache, which has the journal's few files already. Beyond it costs the same.
const HERE_MAX: usize = 512 << 10;

/// What writes and syncs a journal: a thread of its own where there is one.
#[derive(Debug)]
pub(crate) enum Writer {
    /// A thread, for files of the operating system.
    Thread(env::disk::Thread),
    /// The calling task.
    Direct,
}

impl Writer {
    pub(crate) fn start(disk: &Disk, name: &str, threads: bool) -> io::Result<Writer> {
        match disk {
            Disk::Os(_) if threads => Ok(Writer::Thread(env::disk::Thread::start(name)?)),
            _ => Ok(Writer::Direct),
        }
    }

    /// Writes each where it belongs; the first that fails ends it. With `cached` through the page cache, however much it is.
    pub(crate) async fn write_all(
        &self,
        writes: Vec<(File, u64, Vec<Bytes>)>,
        cached: bool,
    ) -> io::Result<()> {
        let mut round = env::disk::Round::default();
        for (file, off, bufs) in writes {
            match (self, file) {
                (Writer::Thread(_), File::Os(file)) => {
                    round.ops.push(env::disk::Op::Write { file, off, bufs, cached });
                }
                (_, file) => file.write_vectored_at(off, bufs).await?,
            }
        }
        match self {
            Writer::Thread(t) if !round.ops.is_empty() => t.submit(round).await,
            _ => Ok(()),
        }
    }

    /// Writes at `off`, then syncs if asked to.
    pub(crate) async fn write(&self, file: &File, off: u64, bufs: Vec<Bytes>, sync: bool) -> io::Result<()> {
        if let (Writer::Thread(t), File::Os(f)) = (self, file) {
            if !sync && bufs.iter().map(Bytes::len).sum::<usize>() <= HERE_MAX {
                return f.write_here(off, bufs).await;
            }
            let mut round = env::disk::Round::default();
            round.ops.push(env::disk::Op::Write { file: f.clone(), off, bufs, cached: false });
            if sync {
                round.ops.push(env::disk::Op::SyncData(f.clone()));
            }
            return t.submit(round).await;
        }
        file.write_vectored_at(off, bufs).await?;
        if sync { file.sync_data().await } else { Ok(()) }
    }
}
