//! A disk that forgets, lies and breaks, as a plain synchronous value: no clock, no async, randomness from a seed.
//!
//! Owns: a tree of directories and files with a durable and a volatile image, the faults of [`Fault`], the count of
//! operations with what is planned for them, and the record of what is damaged. Does not own: time (how long an operation
//! takes is returned as data by [`SimDisk::cost_ns`]), tasks, or the life of nodes. Invariants:
//!
//! - E-1: what a successful sync covered survives any power failure, unless a fault says otherwise, and then
//!   [`SimDisk::damage`] names it.
//! - E-3: a name is durable only once its directory was synced; directory operations survive a power failure in an
//!   order that respects what each depends on.
//! - E-6: without a fault and without a power failure the disk equals a plain file system.
//! - E-7: the same seed and the same calls give the same results.

mod crash;
mod faults;
mod file;
mod ranges;

pub use faults::{Error, Fault, Options, Planned, Strike};
pub use ranges::Ranges;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use crate::{Rng, disk::OpenOptions};
use file::FileNode;

/// The number of the root directory.
const ROOT: u64 = 0;
/// Strikes that are kept for a report; later ones are only counted.
const STRIKES_MAX: usize = 4096;

/// An open file of a [`SimDisk`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Handle(u64);

/// What a directory holds under a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stat {
    /// True for a directory.
    pub is_dir: bool,
    /// Bytes in the file; 0 for a directory.
    pub len: u64,
    /// The last argument of [`SimDisk::set_time`] when the file changed.
    pub modified_ns: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct SimDisk {
    options: Options,
    rng: Rng,
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    /// Directory operations that no directory sync has covered, in order.
    pending: Vec<NameOp>,
    handles: BTreeMap<u64, Open>,
    next_handle: u64,
    ops: u64,
    plan: BTreeMap<u64, Planned>,
    forced: Option<Fault>,
    crash_after: bool,
    crashed: bool,
    strikes: Vec<Strike>,
    counts: BTreeMap<Fault, u64>,
    cost_ns: u64,
    now_ns: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Dir { now: BTreeMap<String, u64>, durable: BTreeMap<String, u64> },
    File(FileNode),
}

/// Names that change together: (directory, name, what it names afterwards).
#[derive(Clone, Debug)]
struct NameOp(Vec<(u64, String, Option<u64>)>);

#[derive(Clone, Debug)]
struct Open {
    node: u64,
    path: String,
    write: bool,
    poisoned: bool,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(options: Options, rng: Rng) -> SimDisk {
        assert!(options.sector.is_power_of_two(), "a sector is a power of two");
        SimDisk {
            options,
            rng,
            nodes: BTreeMap::from([(ROOT, Node::Dir { now: BTreeMap::new(), durable: BTreeMap::new() })]),
            next_node: ROOT + 1,
            pending: Vec::new(),
            handles: BTreeMap::new(),
            next_handle: 0,
            ops: 0,
            plan: BTreeMap::new(),
            forced: None,
            crash_after: false,
            crashed: false,
            strikes: Vec::new(),
            counts: BTreeMap::new(),
            cost_ns: 0,
            now_ns: 0,
        }
    }

    // ---- what a harness asks and sets

    /// How the disk behaves; may be changed at any time, except the sector's size.
    pub fn options(&mut self) -> &mut Options {
        &mut self.options
    }
    /// Operations so far; the next one has this number.
    pub fn ops(&self) -> u64 {
        self.ops
    }
    /// What shall happen at operation number `op`.
    pub fn plan(&mut self, op: u64, what: Planned) {
        self.plan.insert(op, what);
    }
    /// Whether the power failed at a planned operation, so that nothing works before [`SimDisk::power_failure`].
    pub fn crashed(&self) -> bool {
        self.crashed
    }
    /// How long the last operation takes, in nanoseconds.
    pub fn cost_ns(&self) -> u64 {
        self.cost_ns
    }
    /// The time that files changed from now on show.
    pub fn set_time(&mut self, ns: u64) {
        self.now_ns = ns;
    }
    /// How often each fault struck.
    pub fn counts(&self) -> &BTreeMap<Fault, u64> {
        &self.counts
    }
    /// The first 4096 strikes.
    pub fn strikes(&self) -> &[Strike] {
        &self.strikes
    }
    /// Bytes in use and on the disk.
    pub fn space(&self) -> (u64, u64) {
        let live = self.reachable(true);
        let used: u64 = live.iter().map(|n| self.file(*n).map_or(0, |f| f.allocated.total())).sum();
        ((used * self.options.sector).min(self.options.capacity), self.options.capacity)
    }
    /// All files by path, as the program sees them.
    pub fn files(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut todo = vec![(ROOT, String::new())];
        while let Some((dir, path)) = todo.pop() {
            if let Some(Node::Dir { now, .. }) = self.nodes.get(&dir) {
                for (name, n) in now {
                    let path = format!("{path}/{name}");
                    if matches!(self.nodes.get(n), Some(Node::File(_))) {
                        out.push(path)
                    } else {
                        todo.push((*n, path))
                    }
                }
            }
        }
        out.sort();
        out
    }
    /// The damaged parts of a byte range of a file's medium, by sector, each with the fault that did it.
    pub fn damage(&self, path: &str, range: Range<u64>) -> Result<Vec<(Range<u64>, Fault)>, Error> {
        let f = self.file_at(path)?;
        let sectors = f.sectors(range.clone());
        let size = f.size;
        let clip = |s: u64| (s * size).max(range.start)..((s + 1) * size).min(range.end);
        Ok(f.damage.range(sectors).map(|(s, d)| (clip(*s), d.fault)).collect())
    }
    /// What the file would hold if no fault had struck its medium, as far as it reaches.
    pub fn pristine(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let f = self.file_at(path)?;
        let range = range.start
            ..range.end.min(f.len.max(f.damage.last_key_value().map_or(0, |(s, _)| (s + 1) * f.size)));
        Ok(gather(f.size, range, |s| match f.view(s) {
            (_, true) | (None, false) if f.damage.contains_key(&s) => {
                f.damage.get(&s).map(|d| &d.pristine[..])
            }
            (v, _) => v.map(|v| &v[..]),
        }))
    }
    /// Flips one bit of the medium.
    pub fn rot(&mut self, path: &str, off: u64, bit: u8) -> Result<(), Error> {
        let n = self.resolve_file(path)?;
        let op = self.ops;
        let f = self.file_mut(n)?;
        let s = off / f.size;
        let mut data = f.media.get(&s).cloned().ok_or(Error::Invalid)?;
        data[(off % f.size) as usize] ^= 1 << (bit % 8);
        f.spoil(s, Some(data), Fault::BitRot, None);
        self.note(op, Fault::BitRot, path, off);
        Ok(())
    }
    /// Makes a file vanish (`None`) or cuts its medium to a length, as damage at rest, in every image.
    pub fn damage_file(&mut self, path: &str, keep: Option<u64>) -> Result<(), Error> {
        let (dir, name) = self.resolve_parent(path)?;
        let n = self.resolve_file(path)?;
        let op = self.ops;
        match keep {
            None => {
                self.settle_names(dir);
                if let Some(Node::Dir { now, durable }) = self.nodes.get_mut(&dir) {
                    now.remove(&name);
                    durable.remove(&name);
                }
                self.note(op, Fault::MissingFile, path, 0);
            }
            Some(len) => {
                let f = self.file_mut(n)?;
                let len = len.min(f.len);
                f.reset_to_media(len);
                self.note(op, Fault::TruncatedFile, path, len);
            }
        }
        Ok(())
    }

    // ---- files

    /// Opens a file.
    pub fn open(&mut self, path: &str, how: OpenOptions) -> Result<Handle, Error> {
        self.begin(path, 0, self.options.access_ns)?;
        let r = self.open_inner(path, how);
        self.end(r)
    }
    fn open_inner(&mut self, path: &str, how: OpenOptions) -> Result<Handle, Error> {
        self.name_error(path)?;
        let node = match self.resolve(path) {
            Ok(n) => {
                if matches!(self.nodes.get(&n), Some(Node::Dir { .. })) {
                    return Err(Error::IsDir);
                }
                if how.create_new {
                    return Err(Error::Exists);
                }
                if how.truncate {
                    let now = self.now_ns;
                    let f = self.file_mut(n)?;
                    f.set_len(0);
                    f.modified_ns = now;
                }
                n
            }
            Err(Error::NotFound) if how.create || how.create_new => {
                let (dir, name) = self.resolve_parent(path)?;
                let mut f = FileNode::new(self.options.sector);
                f.modified_ns = self.now_ns;
                let n = self.add(Node::File(f));
                self.rename_all(vec![(dir, name, Some(n))]);
                n
            }
            Err(e) => return Err(e),
        };
        let h = self.next_handle;
        self.next_handle += 1;
        self.handles.insert(h, Open { node, path: path.to_owned(), write: how.write, poisoned: false });
        Ok(Handle(h))
    }

    /// Closes a file. Not an operation: it cannot fail and is not counted.
    pub fn close(&mut self, h: Handle) {
        let Some(open) = self.handles.remove(&h.0) else { return };
        let named = self
            .nodes
            .values()
            .any(|n| matches!(n, Node::Dir { now, .. } if now.values().any(|named| *named == open.node)));
        // What has a name stays, whoever closes it.
        if !named && !self.handles.values().any(|o| o.node == open.node) {
            self.collect();
        }
    }

    /// Up to `len` bytes from `off` on. With `strict`, bytes inside the file that nothing ever wrote are an error.
    pub fn read(&mut self, h: Handle, off: u64, len: usize, strict: bool) -> Result<Vec<u8>, Error> {
        let (node, path) = self.handle(h, "", false)?;
        let moved = len as u64;
        self.begin(&path, moved, self.options.access_ns)?;
        let r = self.read_inner(node, &path, off, len, strict);
        self.end(r)
    }
    fn read_inner(
        &mut self,
        node: u64,
        path: &str,
        off: u64,
        len: usize,
        strict: bool,
    ) -> Result<Vec<u8>, Error> {
        if self.strikes_op(Fault::ReadError, path, off) {
            return Err(Error::Io);
        }
        self.rot_somewhere(node, path);
        let f = self.file_mut(node)?;
        let end = off.saturating_add(len as u64).min(f.len);
        if off >= end {
            return Ok(Vec::new());
        }
        if strict && let Some(at) = f.written.first_missing(off..end) {
            return Err(Error::NeverWritten(at));
        }
        let size = f.size;
        let mut out = gather(size, off..end, |s| f.view(s).0.map(|v| &v[..]));
        if !self.reads_can_fault() {
            return Ok(out);
        }
        for s in off / size..end.div_ceil(size) {
            let f = self.file_mut(node)?;
            if !f.view(s).1 {
                continue;
            }
            let (from, to) = (off.max(s * size), end.min((s + 1) * size));
            let part = (from - off) as usize..(to - off) as usize;
            let inside = (from - s * size) as usize..(to - s * size) as usize;
            if self.strikes_op(Fault::MisdirectedRead, path, from)
                && let Some((other, at)) = self.some_sector((node, s))
            {
                let data = self
                    .file(other)
                    .and_then(|f| f.media.get(&at))
                    .expect("some_sector names one on a medium");
                out[part.clone()].copy_from_slice(&data[inside.clone()]);
            }
            if self.file(node).is_some_and(|f| f.older.contains_key(&s))
                && self.strikes_op(Fault::StaleRead, path, from)
                && let Some(old) = self.file(node).and_then(|f| f.older.get(&s))
            {
                out[part.clone()].copy_from_slice(&old[inside]);
            }
            if self.strikes_op(Fault::TransientFlip, path, from) {
                let bit = self.rng.below((to - from) * 8);
                out[part][(bit / 8) as usize] ^= 1 << (bit % 8);
            }
        }
        Ok(out)
    }

    /// Writes bytes into the page cache.
    pub fn write(&mut self, h: Handle, off: u64, bytes: &[u8]) -> Result<(), Error> {
        let (node, path) = self.handle(h, "write", true)?;
        self.begin(&path, bytes.len() as u64, self.options.access_ns)?;
        let r = self.write_inner(node, &path, off, bytes);
        self.end(r)
    }
    fn write_inner(&mut self, node: u64, path: &str, off: u64, bytes: &[u8]) -> Result<(), Error> {
        let end = off.checked_add(bytes.len() as u64).ok_or(Error::Invalid)?;
        let fails = self.strikes_op(Fault::WriteError, path, off);
        let need = self.need(node, off..end)?;
        let full = !fails && need > 0 && (self.strikes_op(Fault::NoSpace, path, off) || !self.room(need));
        let part = if fails || full { self.rng.below(bytes.len() as u64 + 1) as usize } else { bytes.len() };
        // Of a write that finds no space only what was allocated before, or still fits, is done.
        let part = if full { self.fitting(node, off, part)? } else { part };
        let now = self.now_ns;
        let f = self.file_mut(node)?;
        f.write(off, &bytes[..part]);
        f.modified_ns = now;
        match (fails, full) {
            (true, _) => Err(Error::Io),
            (_, true) => Err(Error::NoSpace),
            _ => Ok(()),
        }
    }

    /// Makes the file's content and length durable.
    pub fn sync(&mut self, h: Handle) -> Result<(), Error> {
        let (node, path) = self.handle(h, "sync", true)?;
        let moved = self.file(node).map_or(0, |f| f.dirty.len() as u64 * f.size);
        self.begin(&path, moved, self.options.sync_ns)?;
        let r = self.sync_inner(node, &path);
        self.end(r)
    }
    fn sync_inner(&mut self, node: u64, path: &str) -> Result<(), Error> {
        self.rot_somewhere(node, path);
        if self.strikes_op(Fault::LostSync, path, 0) {
            let f = self.file_mut(node)?;
            let claim = |(s, d): (&u64, &file::Sector)| (*s, f.believed.get(s).unwrap_or(d).clone());
            let claims: Vec<_> = f.dirty.iter().map(claim).collect();
            f.claimed.extend(claims);
            return Ok(());
        }
        if self.strikes_op(Fault::SyncError, path, 0) {
            self.fail_sync(node)?;
            self.handles.values_mut().filter(|o| o.node == node).for_each(|o| o.poisoned = true);
            return Err(Error::Io);
        }
        let f = self.file_mut(node)?;
        f.apply_cut();
        let dirty = std::mem::take(&mut f.dirty);
        for (s, data) in dirty {
            self.flush(node, path, s, data)?;
        }
        self.file_mut(node)?.finish_sync();
        Ok(())
    }

    /// Puts one dirty sector on the medium, if nothing comes between.
    fn flush(&mut self, node: u64, path: &str, s: u64, data: file::Sector) -> Result<(), Error> {
        let size = self.options.sector;
        let at = s * size;
        if self.strikes_op(Fault::LostWrite, path, at) {
            self.file_mut(node)?.spoil(s, None, Fault::LostWrite, Some(data));
        } else if self.strikes_op(Fault::TornWrite, path, at) {
            let cut = self.rng.between(1, size - 1) as usize;
            let f = self.file_mut(node)?;
            let mut torn = f.media.get(&s).cloned().unwrap_or_else(|| vec![0; size as usize].into());
            torn[..cut].copy_from_slice(&data[..cut]);
            f.spoil(s, Some(torn), Fault::TornWrite, Some(data));
        } else if self.strikes_op(Fault::MisdirectedWrite, path, at)
            && let Some((other, to)) = self.some_sector((node, s))
        {
            self.file_mut(other)?.spoil(to, Some(data.clone()), Fault::MisdirectedWrite, None);
            self.file_mut(node)?.spoil(s, None, Fault::MisdirectedWrite, Some(data));
        } else {
            self.file_mut(node)?.settle(s, data);
        }
        Ok(())
    }

    /// Cuts the file or grows it with space that was never written.
    pub fn set_len(&mut self, h: Handle, len: u64) -> Result<(), Error> {
        let (node, path) = self.handle(h, "set_len", true)?;
        self.begin(&path, 0, self.options.access_ns)?;
        let fails = self.strikes_op(Fault::WriteError, &path, len);
        let now = self.now_ns;
        let r = self.file_mut(node).and_then(|f| {
            if fails {
                return Err(Error::Io);
            }
            f.set_len(len);
            f.modified_ns = now;
            Ok(())
        });
        self.end(r)
    }

    /// The file's length. Not counted as an operation.
    pub fn len(&self, h: Handle) -> Result<u64, Error> {
        self.alive()?;
        let open = self.handles.get(&h.0).ok_or(Error::BadHandle)?;
        self.file(open.node).map(|f| f.len).ok_or(Error::BadHandle)
    }

    /// Reserves the space of a range; the file grows as needed.
    pub fn allocate(&mut self, h: Handle, off: u64, len: u64) -> Result<(), Error> {
        let (node, path) = self.handle(h, "allocate", true)?;
        self.begin(&path, 0, self.options.access_ns)?;
        let r = self.allocate_inner(node, &path, off, len);
        self.end(r)
    }
    fn allocate_inner(&mut self, node: u64, path: &str, off: u64, len: u64) -> Result<(), Error> {
        let end = off.checked_add(len).ok_or(Error::Invalid)?;
        let need = self.need(node, off..end)?;
        if need > 0 && (self.strikes_op(Fault::NoSpace, path, off) || !self.room(need)) {
            return Err(Error::NoSpace);
        }
        let f = self.file_mut(node)?;
        f.allocated.insert(f.sectors(off..end));
        f.len = f.len.max(end);
        Ok(())
    }

    /// Gives the space of a range back; it reads as zeros.
    pub fn punch_hole(&mut self, h: Handle, off: u64, len: u64) -> Result<(), Error> {
        let (node, path) = self.handle(h, "punch", true)?;
        self.begin(&path, 0, self.options.access_ns)?;
        let fails = self.strikes_op(Fault::WriteError, &path, off);
        let r = match self.file_mut(node) {
            _ if fails => Err(Error::Io),
            Ok(f) => {
                f.punch(off..off.saturating_add(len));
                Ok(())
            }
            Err(e) => Err(e),
        };
        self.end(r)
    }

    // ---- names

    /// Makes a directory; the one above it must be there.
    pub fn create_dir(&mut self, path: &str) -> Result<(), Error> {
        self.named(path, |d| {
            let (dir, name) = d.resolve_parent(path)?;
            if d.resolve(path).is_ok() {
                return Err(Error::Exists);
            }
            let n = d.add(Node::Dir { now: BTreeMap::new(), durable: BTreeMap::new() });
            d.rename_all(vec![(dir, name, Some(n))]);
            Ok(())
        })
    }
    /// Gives a file or directory another name, in place of what had that.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), Error> {
        self.named(from, |d| {
            let node = d.resolve(from)?;
            let ((a, old), (b, new)) = (d.resolve_parent(from)?, d.resolve_parent(to)?);
            if from == to || (a, &old) == (b, &new) {
                return Ok(());
            }
            let is_dir = matches!(d.nodes.get(&node), Some(Node::Dir { .. }));
            if is_dir && format!("{}/", clean(to)?).starts_with(&format!("{}/", clean(from)?)) {
                return Err(Error::Invalid);
            }
            match d.resolve(to).ok().and_then(|n| d.nodes.get(&n)) {
                Some(Node::Dir { .. }) if !is_dir => return Err(Error::IsDir),
                Some(Node::Dir { now, .. }) if !now.is_empty() => return Err(Error::NotEmpty),
                Some(Node::File(_)) if is_dir => return Err(Error::NotDir),
                _ => {}
            }
            d.rename_all(vec![(a, old, None), (b, new, Some(node))]);
            Ok(())
        })
    }
    /// Removes a file's name. Open handles go on working.
    pub fn remove_file(&mut self, path: &str) -> Result<(), Error> {
        self.named(path, |d| {
            d.resolve_file(path)?;
            let (dir, name) = d.resolve_parent(path)?;
            d.rename_all(vec![(dir, name, None)]);
            Ok(())
        })
    }
    /// Removes an empty directory.
    pub fn remove_dir(&mut self, path: &str) -> Result<(), Error> {
        self.named(path, |d| {
            match d.nodes.get(&d.resolve(path)?) {
                Some(Node::Dir { now, .. }) if now.is_empty() => {}
                Some(Node::Dir { .. }) => return Err(Error::NotEmpty),
                _ => return Err(Error::NotDir),
            }
            let (dir, name) = d.resolve_parent(path)?;
            d.rename_all(vec![(dir, name, None)]);
            Ok(())
        })
    }
    /// The names in a directory, sorted, with what they name.
    pub fn list(&mut self, path: &str) -> Result<Vec<(String, Stat)>, Error> {
        self.named(path, |d| match d.nodes.get(&d.resolve(path)?) {
            Some(Node::Dir { now, .. }) => {
                Ok(now.iter().filter_map(|(name, n)| Some((name.clone(), d.stat_node(*n)?))).collect())
            }
            _ => Err(Error::NotDir),
        })
    }
    /// Makes the names in a directory durable.
    pub fn sync_dir(&mut self, path: &str) -> Result<(), Error> {
        let r = self.named(path, |d| {
            let dir = d.resolve(path)?;
            if !matches!(d.nodes.get(&dir), Some(Node::Dir { .. })) {
                return Err(Error::NotDir);
            }
            if d.strikes_op(Fault::LostSync, path, 0) {
                return Ok(());
            }
            d.settle_names(dir);
            Ok(())
        });
        self.cost_ns = self.cost_ns.max(self.options.sync_ns);
        r
    }
    /// What a path names.
    pub fn stat(&mut self, path: &str) -> Result<Stat, Error> {
        self.named(path, |d| d.stat_node(d.resolve(path)?).ok_or(Error::NotFound))
    }

    // ---- inside

    fn named<T>(&mut self, path: &str, f: impl FnOnce(&mut SimDisk) -> Result<T, Error>) -> Result<T, Error> {
        self.begin(path, 0, self.options.access_ns)?;
        let r = self.name_error(path).and_then(|()| f(self));
        self.end(r)
    }

    fn name_error(&mut self, path: &str) -> Result<(), Error> {
        if self.strikes_op(Fault::NameError, path, 0) { Err(Error::Io) } else { Ok(()) }
    }

    fn alive(&self) -> Result<(), Error> {
        if self.crashed { Err(Error::Crashed) } else { Ok(()) }
    }

    fn handle(&self, h: Handle, what: &str, write: bool) -> Result<(u64, String), Error> {
        self.alive()?;
        let o = self.handles.get(&h.0).ok_or(Error::BadHandle)?;
        if o.poisoned && write {
            return Err(Error::Poisoned);
        }
        // A file that was opened for reading can be synced, though there is nothing of its own to sync.
        if write && !o.write && what != "sync" {
            return Err(Error::BadHandle);
        }
        Ok((o.node, o.path.clone()))
    }

    /// Counts an operation and looks up what is planned for it.
    fn begin(&mut self, path: &str, moved: u64, base_ns: u64) -> Result<(), Error> {
        self.alive()?;
        let op = self.ops;
        self.ops += 1;
        self.cost_ns = base_ns + moved.div_ceil(1024) * self.options.kib_ns;
        self.forced = None;
        match self.plan.remove(&op) {
            None => {}
            Some(Planned::CrashBefore) => {
                self.crashed = true;
                return Err(Error::Crashed);
            }
            Some(Planned::CrashAfter) => self.crash_after = true,
            Some(Planned::Fault(f)) => self.forced = Some(f),
        }
        if self.strikes_op(Fault::Slow, path, 0) {
            self.cost_ns *= self.options.slow_factor;
        }
        Ok(())
    }

    fn end<T>(&mut self, r: Result<T, Error>) -> Result<T, Error> {
        self.forced = None;
        if std::mem::take(&mut self.crash_after) {
            self.crashed = true;
            return Err(Error::Crashed);
        }
        r
    }

    /// Whether a fault strikes here and now.
    fn strikes_op(&mut self, fault: Fault, path: &str, off: u64) -> bool {
        let hit = if self.forced == Some(fault) {
            self.forced = None;
            true
        } else {
            let rate = self.options.rates.get(&fault).copied().unwrap_or(0.0);
            self.rng.bool(rate)
        };
        if hit {
            self.note(self.ops - 1, fault, path, off);
        }
        hit
    }

    fn note(&mut self, op: u64, fault: Fault, path: &str, off: u64) {
        *self.counts.entry(fault).or_default() += 1;
        if self.strikes.len() < STRIKES_MAX {
            self.strikes.push(Strike { op, fault, path: path.to_owned(), off });
        }
    }

    fn reads_can_fault(&self) -> bool {
        let some = [Fault::MisdirectedRead, Fault::StaleRead, Fault::TransientFlip];
        some.iter().any(|f| self.forced == Some(*f) || self.options.rates.contains_key(f))
    }

    /// Bit rot in a random sector of this file, if it strikes.
    fn rot_somewhere(&mut self, node: u64, path: &str) {
        let Some(n) = self.file(node).map(|f| f.media.len() as u64).filter(|n| *n > 0) else { return };
        if !self.strikes_op(Fault::BitRot, path, 0) {
            return;
        }
        let (nth, bit) = (self.rng.below(n) as usize, self.rng.below(self.options.sector * 8));
        if let Ok(f) = self.file_mut(node)
            && let Some((s, mut data)) = f.media.iter().nth(nth).map(|(s, d)| (*s, d.clone()))
        {
            data[(bit / 8) as usize] ^= 1 << (bit % 8);
            f.spoil(s, Some(data), Fault::BitRot, None);
        }
    }

    /// A random sector on some file's medium, other than the given one.
    fn some_sector(&mut self, not: (u64, u64)) -> Option<(u64, u64)> {
        let files: Vec<u64> = self
            .reachable(true)
            .into_iter()
            .filter(|n| self.file(*n).is_some_and(|f| !f.media.is_empty()))
            .collect();
        let node = *self.rng.pick(&files)?;
        let n = self.file(node)?.media.len() as u64;
        let nth = self.rng.below(n) as usize;
        let s = *self.file(node)?.media.keys().nth(nth)?;
        ((node, s) != not).then_some((node, s))
    }

    /// Sectors that a write to the range would have to allocate.
    fn need(&self, node: u64, r: Range<u64>) -> Result<u64, Error> {
        let f = self.file(node).ok_or(Error::BadHandle)?;
        let s = f.sectors(r);
        Ok((s.end - s.start).saturating_sub(f.allocated.count_in(s)))
    }
    fn room(&self, sectors: u64) -> bool {
        if sectors == 0 {
            // What lies in space that is allocated is most of what is written; to count a disk takes its time.
            return true;
        }
        let (used, total) = self.space();
        used + sectors * self.options.sector <= total
    }
    /// How many of the first `part` bytes can be written without new space beyond what is free.
    fn fitting(&self, node: u64, off: u64, part: usize) -> Result<usize, Error> {
        let mut part = part as u64;
        while part > 0 && !self.room(self.need(node, off..off + part)?) {
            let end = off + part;
            part = ((end - 1) / self.options.sector * self.options.sector).saturating_sub(off);
        }
        Ok(part as usize)
    }

    fn file(&self, n: u64) -> Option<&FileNode> {
        match self.nodes.get(&n) {
            Some(Node::File(f)) => Some(f),
            _ => None,
        }
    }
    fn file_mut(&mut self, n: u64) -> Result<&mut FileNode, Error> {
        match self.nodes.get_mut(&n) {
            Some(Node::File(f)) => Ok(f),
            _ => Err(Error::BadHandle),
        }
    }
    fn file_at(&self, path: &str) -> Result<&FileNode, Error> {
        self.file(self.resolve_file(path)?).ok_or(Error::NotFound)
    }
    fn add(&mut self, node: Node) -> u64 {
        let n = self.next_node;
        self.next_node += 1;
        self.nodes.insert(n, node);
        n
    }
    fn stat_node(&self, n: u64) -> Option<Stat> {
        Some(match self.nodes.get(&n)? {
            Node::Dir { .. } => Stat { is_dir: true, len: 0, modified_ns: 0 },
            Node::File(f) => Stat { is_dir: false, len: f.len, modified_ns: f.modified_ns },
        })
    }

    fn resolve(&self, path: &str) -> Result<u64, Error> {
        parts(path)?.into_iter().try_fold(ROOT, |dir, name| match self.nodes.get(&dir) {
            Some(Node::Dir { now, .. }) => now.get(name).copied().ok_or(Error::NotFound),
            _ => Err(Error::NotDir),
        })
    }
    fn resolve_file(&self, path: &str) -> Result<u64, Error> {
        let n = self.resolve(path)?;
        if self.file(n).is_some() { Ok(n) } else { Err(Error::IsDir) }
    }
    fn resolve_parent(&self, path: &str) -> Result<(u64, String), Error> {
        let mut p = parts(path)?;
        let name = p.pop().ok_or(Error::Invalid)?.to_owned();
        let dir = self.resolve(&p.join("/"))?;
        match self.nodes.get(&dir) {
            Some(Node::Dir { .. }) => Ok((dir, name)),
            _ => Err(Error::NotDir),
        }
    }

    /// Changes names now, and durably once their directories are synced.
    fn rename_all(&mut self, edits: Vec<(u64, String, Option<u64>)>) {
        let mut unnamed = false;
        for (dir, name, to) in &edits {
            if let Some(Node::Dir { now, .. }) = self.nodes.get_mut(dir) {
                let before = match to {
                    Some(n) => now.insert(name.clone(), *n),
                    None => now.remove(name),
                };
                unnamed |= before.is_some();
            }
        }
        self.pending.push(NameOp(edits));
        // A new name makes nothing unreachable, and to look takes its time.
        if unnamed {
            self.collect();
        }
    }

    /// Nodes that the program can still reach; without `now_only` also those that a power failure could bring back.
    fn reachable(&self, now_only: bool) -> BTreeSet<u64> {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<u64> = vec![ROOT];
        todo.extend(self.handles.values().map(|o| o.node));
        if !now_only {
            todo.extend(self.pending.iter().flat_map(|op| op.0.iter().filter_map(|e| e.2)));
        }
        while let Some(n) = todo.pop() {
            if seen.insert(n)
                && let Some(Node::Dir { now, durable }) = self.nodes.get(&n)
            {
                todo.extend(now.values());
                if !now_only {
                    todo.extend(durable.values());
                }
            }
        }
        seen
    }
    fn collect(&mut self) {
        let live = self.reachable(false);
        self.nodes.retain(|n, _| live.contains(n));
    }
}

/// The names along a path.
fn parts(path: &str) -> Result<Vec<&str>, Error> {
    let p: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if p.contains(&"..") { Err(Error::Invalid) } else { Ok(p) }
}
fn clean(path: &str) -> Result<String, Error> {
    Ok(parts(path)?.join("/"))
}

/// The bytes of a range, sector by sector; what is missing is zeros.
fn gather<'a>(size: u64, r: Range<u64>, sector: impl Fn(u64) -> Option<&'a [u8]>) -> Vec<u8> {
    let mut out = vec![0; r.end.saturating_sub(r.start) as usize];
    for s in r.start / size..r.end.div_ceil(size) {
        if let Some(data) = sector(s) {
            let (from, to) = (r.start.max(s * size), r.end.min((s + 1) * size));
            if from < to {
                let src = &data[(from - s * size) as usize..(to - s * size) as usize];
                out[(from - r.start) as usize..(to - r.start) as usize].copy_from_slice(src);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
