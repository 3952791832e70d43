//! Files and directories: asynchronous, positional, and the same in production and in simulation.
//!
//! Owns: the shared vocabulary ([`OpenOptions`], [`Entry`], [`Op`], [`DiskError`]) and the two backends behind it. Does not
//! own: any format, checksum, cache or retry. What a caller may rely on, on both backends:
//!
//! - E-1: a write is durable only after `sync_data` or `sync_all` of its file returned `Ok`.
//! - E-2: a sync that failed is never retried: the file and all its clones refuse further writes and syncs
//!   ([`Cause::Poisoned`]), because the kernel may have dropped the pages that it could not write.
//! - E-3: creating, renaming and removing a name is durable only after `sync_dir` of the directory that holds the name.
//! - E-4: every error says which operation on which path failed; its operating system code stays available through
//!   [`raw_os_error`].
//!
//! Dropping the future of an operation does not stop the operation: it may still happen, at any time until the file's
//! last handle is gone.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

pub use crate::imp::disk::{Appender, Disk, File, Lock, Map, Round, Soon, Thread};

/// How to open a file; see the constants. Reading is always allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenOptions {
    /// Writing is allowed.
    pub write: bool,
    /// Make the file if it is missing.
    pub create: bool,
    /// Fail with `AlreadyExists` if the file is there. Implies `create`.
    pub create_new: bool,
    /// Cut the file to length zero.
    pub truncate: bool,
    /// Permission bits of a new file, before the umask.
    pub mode: u32,
}

impl OpenOptions {
    /// An existing file, to read.
    pub const READ: OpenOptions =
        OpenOptions { write: false, create: false, create_new: false, truncate: false, mode: 0o640 };
    /// An existing file, to read and write.
    pub const EDIT: OpenOptions = OpenOptions { write: true, ..OpenOptions::READ };
    /// A file to read and write, made if missing.
    pub const CREATE: OpenOptions = OpenOptions { create: true, ..OpenOptions::EDIT };
    /// A file to read and write that must not exist yet.
    pub const CREATE_NEW: OpenOptions = OpenOptions { create_new: true, ..OpenOptions::CREATE };
    /// A file to read and write, made if missing, emptied if not.
    pub const TRUNCATE: OpenOptions = OpenOptions { truncate: true, ..OpenOptions::CREATE };

    /// The same with other permission bits for a new file, as `0o600` for secrets.
    pub const fn mode(self, mode: u32) -> OpenOptions {
        OpenOptions { mode, ..self }
    }
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// The name, without its directory. Names that are not UTF-8 are left out of listings.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
    /// Bytes in the file; 0 for a directory.
    pub len: u64,
}

/// What is known of a path without opening it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// True for a directory.
    pub is_dir: bool,
    /// Bytes in the file; 0 for a directory.
    pub len: u64,
    /// When the content last changed, on the wall clock.
    pub modified: crate::Wall,
}

/// The room on the file system of a path, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// What this process may still use.
    pub free: u64,
    /// The file system's size.
    pub total: u64,
}

/// One step of a [`Round`] on a [`Thread`].
#[derive(Clone, Debug)]
pub enum Op {
    /// Write the buffers one after another from `off` on.
    Write {
        /// The file, opened for writing.
        file: File,
        /// Where the first byte goes.
        off: u64,
        /// What to write.
        bufs: Vec<Bytes>,
        /// Through the page cache, however much it is: nobody waits for its sync, and it may be read soon.
        cached: bool,
    },
    /// `fdatasync` of the file.
    SyncData(File),
    /// `fsync` of the file.
    SyncAll(File),
}

/// Why a disk operation failed, beyond what [`io::ErrorKind`] can tell. Get it with [`cause`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The operating system (or its simulation) said so.
    Os(i32),
    /// An earlier sync of this file failed; see E-2.
    Poisoned,
    /// Simulation only: `read_at` met bytes that this program never wrote; see [`File::scan_at`].
    NeverWritten,
    /// Simulation only: the machine lost power or the process died while the operation was under way.
    Crashed,
    /// Something else; the text says what.
    Other,
}

/// The error inside every [`io::Error`] of this module.
#[derive(Debug)]
pub struct DiskError {
    /// What was tried, as "open" or "sync".
    pub op: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// Why it failed.
    pub cause: Cause,
    text: String,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.op, self.path.display(), self.text)
    }
}
impl std::error::Error for DiskError {}

/// Adds the operation and the path to an error (E-4).
pub(crate) fn fail(op: &'static str, path: &Path, e: io::Error) -> io::Error {
    if e.get_ref().is_some_and(|inner| inner.is::<DiskError>()) {
        return e;
    }
    let cause = e.raw_os_error().map_or(Cause::Other, Cause::Os);
    io::Error::new(e.kind(), DiskError { op, path: path.to_path_buf(), cause, text: e.to_string() })
}

/// An error that has no operating system code.
pub(crate) fn refuse(
    op: &'static str,
    path: &Path,
    cause: Cause,
    kind: io::ErrorKind,
    text: &str,
) -> io::Error {
    io::Error::new(kind, DiskError { op, path: path.to_path_buf(), cause, text: text.to_owned() })
}

/// The error of E-2.
pub(crate) fn poisoned(op: &'static str, path: &Path) -> io::Error {
    refuse(op, path, Cause::Poisoned, io::ErrorKind::Other, "an earlier sync of this file failed")
}

/// Why this error of the disk came about; `None` for an error of something else.
pub fn cause(e: &io::Error) -> Option<Cause> {
    e.get_ref()?.downcast_ref::<DiskError>().map(|d| d.cause)
}

/// The operating system's code of a disk error, as `libc::EIO`.
pub fn raw_os_error(e: &io::Error) -> Option<i32> {
    match cause(e) {
        Some(Cause::Os(code)) => Some(code),
        Some(_) => None,
        None => e.raw_os_error(),
    }
}

/// The directory that holds `path`'s name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Where [`Disk::write_atomic`] puts the new content before it renames it.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    path.with_file_name(name)
}
