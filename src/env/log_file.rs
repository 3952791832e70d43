//! Where log lines go: a file that is appended to, or the standard error. Synchronous, since lines are written from
//! synchronous code; never synced.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{Wall, imp::log::Target, time::civil_from_days};

/// An open log. One `write` is one system call, so lines of several writers do not mix.
#[derive(Debug)]
pub struct LogFile {
    target: Target,
    path: Option<PathBuf>,
    len: u64,
}

impl LogFile {
    /// The standard error of the process.
    pub fn stderr() -> LogFile {
        LogFile { target: Target::stderr(), path: None, len: 0 }
    }
    /// Appends to the file `path`, made if missing.
    pub fn open(path: impl AsRef<Path>) -> io::Result<LogFile> {
        let path = path.as_ref().to_path_buf();
        let (target, len) = Target::open(&path)?;
        Ok(LogFile { target, path: Some(path), len })
    }
    /// Appends a line, which brings its own line end.
    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.target.write(line)?;
        self.len += line.len() as u64;
        Ok(())
    }
    /// Bytes in the file now; for the standard error, bytes written.
    pub fn len(&self) -> u64 {
        self.len
    }
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Opens the path again, after something else moved the file away. On an error the old file stays in use.
    pub fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            (self.target, self.len) = Target::open(path)?;
        }
        Ok(())
    }
    /// Moves the file to its name with the UTC time `at` added, as `.2026.01.31.23.59.59.000000000`, begins a new one, and
    /// removes the oldest moved files until `keep` files exist, this one included (0: all are kept). Returns the new name.
    pub fn rotate(&mut self, at: Wall, keep: usize) -> io::Result<Option<PathBuf>> {
        let Some(path) = &self.path else { return Ok(None) };
        let mut moved = path.clone().into_os_string();
        moved.push(suffix(at));
        let moved = PathBuf::from(moved);
        Target::rename(path, &moved)?;
        (self.target, self.len) = Target::open(path)?;
        if keep > 0 {
            let mut old = Target::backups(path)?;
            old.sort();
            let excess = (old.len() + 1).saturating_sub(keep);
            old[..excess].iter().try_for_each(|p| Target::remove(p))?;
        }
        Ok(Some(moved))
    }
}

fn suffix(at: Wall) -> String {
    let (secs, nanos) = (at.0.div_euclid(1_000_000_000), at.0.rem_euclid(1_000_000_000));
    let (y, mo, d) = civil_from_days(secs.div_euclid(86_400));
    let s = secs.rem_euclid(86_400);
    format!(".{y:04}.{mo:02}.{d:02}.{:02}.{:02}.{:02}.{nanos:09}", s / 3600, s / 60 % 60, s % 60)
}

/// Whether `name` is `base` with a time added by [`LogFile::rotate`].
#[cfg(not(madsim))]
pub(crate) fn is_backup(base: &str, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(base) else { return false };
    rest.len() == suffix(Wall(0)).len()
        && rest
            .bytes()
            .zip(suffix(Wall(0)).bytes())
            .all(|(a, b)| if b == b'.' { a == b } else { a.is_ascii_digit() })
}
