//! The files behind [`crate::LogFile`].

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::{disk::fail, log_file::is_backup};

#[derive(Debug)]
pub enum Target {
    Stderr,
    File(fs::File),
}

impl Target {
    pub fn stderr() -> Target {
        Target::Stderr
    }
    pub fn open(path: &Path) -> io::Result<(Target, u64)> {
        let f = fs::OpenOptions::new().append(true).create(true).mode(0o640).open(path);
        let opened = f.and_then(|f| f.metadata().map(|m| (Target::File(f), m.len())));
        opened.map_err(|e| fail("open", path, e))
    }
    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Target::Stderr => io::stderr().lock().write_all(line),
            Target::File(f) => f.write_all(line),
        }
    }
    pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(|e| fail("rename", from, e))
    }
    pub fn remove(path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(|e| fail("remove", path, e))
    }
    pub fn backups(path: &Path) -> io::Result<Vec<PathBuf>> {
        let base = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let dir = crate::disk::parent(path);
        let mut out = Vec::new();
        for e in fs::read_dir(dir).map_err(|e| fail("list", dir, e))? {
            let name = e?.file_name();
            if name.to_str().is_some_and(|n| is_backup(base, n)) {
                out.push(path.with_file_name(name));
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogFile, Wall};

    #[test]
    fn appends_reopens_and_rotates() {
        let dir = std::env::temp_dir().join(format!("fulmar-log-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("server.log");
        let mut log = LogFile::open(&path).unwrap();
        log.write(b"one\n").unwrap();
        assert_eq!((log.len(), log.is_empty()), (4, false));
        fs::rename(&path, dir.join("moved")).unwrap();
        log.write(b"two\n").unwrap();
        log.reopen().unwrap();
        log.write(b"three\n").unwrap();
        assert_eq!(fs::read(dir.join("moved")).unwrap(), b"one\ntwo\n");
        fs::write(dir.join("server.log.other"), "not ours").unwrap();
        let names: Vec<_> = (1..=3)
            .map(|i| {
                log.write(format!("file {i}\n").as_bytes()).unwrap();
                log.rotate(Wall(i * 1_000_000_000), 3).unwrap().unwrap()
            })
            .collect();
        assert!(names[0].to_str().unwrap().ends_with("server.log.1970.01.01.00.00.01.000000000"));
        assert!(!names[0].exists() && names[1].exists() && names[2].exists());
        assert_eq!(fs::read(&names[2]).unwrap(), b"file 3\n");
        assert!(dir.join("server.log.other").exists());
        assert_eq!(fs::read(&path).unwrap(), b"");
        fs::remove_dir_all(&dir).unwrap();
    }
}
