//! The system calls that std does not offer. The only unsafe code of the product's input and output.
#![allow(unsafe_code)]

use std::{
    fs, io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::Path,
};

use bytes::Bytes;

use crate::disk::Space;

/// Buffers of one `pwritev`; Linux takes up to 1024.
const IOV_MAX: usize = 1024;

fn check(r: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(r).map_err(|_| io::Error::last_os_error())
}

fn offset(off: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(off).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// One `pread` of up to `want` bytes to the end of `buf`.
pub fn read_at(f: &fs::File, buf: &mut Vec<u8>, want: usize, off: u64) -> io::Result<usize> {
    buf.reserve(want);
    let off = offset(off)?;
    // SAFETY: `reserve` made room for `want` bytes behind `len`; the kernel writes at most `want` bytes there, and
    // `set_len` covers only those that it says it wrote.
    unsafe {
        let n = check(libc::pread(f.as_raw_fd(), buf.as_mut_ptr().add(buf.len()).cast(), want, off))?;
        buf.set_len(buf.len() + n);
        Ok(n)
    }
}

/// As [`read_at`], only from the page cache.
pub fn read_cached(f: &fs::File, buf: &mut Vec<u8>, want: usize, off: u64) -> io::Result<usize> {
    buf.reserve(want);
    // SAFETY: as in `read_at`.
    unsafe {
        let n = preadv2_nowait(f, buf.as_mut_ptr().add(buf.len()), want, off)?;
        buf.set_len(buf.len() + n);
        Ok(n)
    }
}

/// Fills `buf` from the page cache as far as it goes.
pub fn read_cached_into(f: &fs::File, buf: &mut [u8], off: u64) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buf.len()` bytes into `buf`, which we hold exclusively.
    unsafe { preadv2_nowait(f, buf.as_mut_ptr(), buf.len(), off) }
}

/// Has the kernel read what is asked for and nothing ahead of it: who reads in order does that himself, past the page cache, and of random reads it would
/// fill the page cache with what nobody asked for (8 MiB at a time where a disk is set to that).
#[cfg(target_os = "linux")]
pub fn read_what_is_asked(f: &fs::File) {
    // SAFETY: numbers only. It is advice: nothing depends on its success.
    unsafe { libc::posix_fadvise(f.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
}
#[cfg(not(target_os = "linux"))]
pub fn read_what_is_asked(_: &fs::File) {}

/// Lets the page cache forget what of the file is on the disk.
#[cfg(all(test, target_os = "linux"))]
pub fn forget_cached(f: &fs::File) {
    // SAFETY: numbers only.
    unsafe { libc::posix_fadvise(f.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Whether the page cache holds all pages of a range; `false` where the kernel does not say (before Linux 6.5). Reads nothing, unlike an attempt to
/// read what is cached, which begins to read ahead what is not.
#[cfg(target_os = "linux")]
pub fn is_cached(f: &fs::File, off: u64, len: u64) -> bool {
    /// Its number on every architecture but alpha; not in the `libc` crate for all of them.
    const CACHESTAT: libc::c_long = 451;
    // As the kernel has it: the range, and pages that are cached, dirty, written back, evicted, evicted of late.
    let (range, mut pages) = ([off, len], [0u64; 5]);
    // SAFETY: the kernel reads the two numbers of `range` and writes the five of `pages`.
    let r = unsafe { libc::syscall(CACHESTAT, f.as_raw_fd(), range.as_ptr(), pages.as_mut_ptr(), 0) };
    // SAFETY: asks for a number only.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(1);
    r == 0 && len > 0 && pages[0] >= (off + len).div_ceil(page) - off / page
}
#[cfg(not(target_os = "linux"))]
pub fn is_cached(_: &fs::File, _: u64, _: u64) -> bool {
    false
}

/// # Safety
/// `at` must be valid for writes of `len` bytes.
#[cfg(target_os = "linux")]
unsafe fn preadv2_nowait(f: &fs::File, at: *mut u8, len: usize, off: u64) -> io::Result<usize> {
    let iov = libc::iovec { iov_base: at.cast(), iov_len: len };
    let off = offset(off)?;
    // SAFETY: `iov` is one valid entry that names memory the caller vouches for.
    check(unsafe { libc::preadv2(f.as_raw_fd(), &iov, 1, off, libc::RWF_NOWAIT) })
}

/// # Safety
/// None is needed: without the system call the answer is always "would block".
#[cfg(not(target_os = "linux"))]
unsafe fn preadv2_nowait(_: &fs::File, _: *mut u8, _: usize, _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}

/// Whether a cached read could not be answered without blocking, or the file system does not offer it.
pub fn would_block(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock
        || matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINTR))
}

/// Writes all buffers from `off` on.
pub fn write_all_vectored_at(f: &fs::File, bufs: &[Bytes], mut off: u64) -> io::Result<()> {
    let mut slices: Vec<io::IoSlice<'_>> =
        bufs.iter().filter(|b| !b.is_empty()).map(|b| io::IoSlice::new(b)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let count = rest.len().min(IOV_MAX) as libc::c_int;
        // SAFETY: IoSlice has the layout of iovec by its documentation; `count` entries of live slices are named.
        let n = check(unsafe { libc::pwritev(f.as_raw_fd(), rest.as_ptr().cast(), count, offset(off)?) });
        match n {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                off += n as u64;
                io::IoSlice::advance_slices(&mut rest, n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The room on the file system of `path`.
pub fn space(path: &Path) -> io::Result<Space> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut s = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends with a zero byte and `s` is room for one statvfs, for which all zeros are a valid value.
    let s = unsafe {
        if libc::statvfs(path.as_ptr(), s.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        s.assume_init()
    };
    let unit = s.f_frsize as u64;
    Ok(Space { free: unit.saturating_mul(s.f_bavail as u64), total: unit.saturating_mul(s.f_blocks as u64) })
}

/// Reserves a range, growing the file as needed.
pub fn allocate(f: &fs::File, off: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    {
        let (o, l) = (offset(off)?, offset(len)?);
        loop {
            // SAFETY: a call on an open descriptor with plain numbers.
            if unsafe { libc::fallocate(f.as_raw_fd(), 0, o, l) } == 0 {
                return Ok(());
            }
            let e = io::Error::last_os_error();
            match e.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EOPNOTSUPP) => break,
                _ => return Err(e),
            }
        }
    }
    let end = off.saturating_add(len);
    if f.metadata()?.len() < end { f.set_len(end) } else { Ok(()) }
}

/// Frees a range; it reads as zeros afterwards.
pub fn punch_hole(f: &fs::File, off: u64, len: u64) -> io::Result<()> {
    let end = off.saturating_add(len).min(f.metadata()?.len());
    if off >= end {
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let (o, l) = (offset(off)?, offset(end - off)?);
        loop {
            // SAFETY: a call on an open descriptor with plain numbers.
            if unsafe { libc::fallocate(f.as_raw_fd(), mode, o, l) } == 0 {
                return Ok(());
            }
            let e = io::Error::last_os_error();
            match e.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EOPNOTSUPP) => break,
                _ => return Err(e),
            }
        }
    }
    // The file system has no holes: zeros do as well, though they free nothing.
    let zeros = Bytes::from(vec![0u8; 1 << 16]);
    let mut at = off;
    while at < end {
        let n = (end - at).min(zeros.len() as u64);
        write_all_vectored_at(f, &[zeros.slice(..n as usize)], at)?;
        at += n;
    }
    Ok(())
}

/// Maps a whole file for reading; `None` for an empty one.
pub fn map(f: &fs::File) -> io::Result<Option<memmap2::Mmap>> {
    if f.metadata()?.len() == 0 {
        return Ok(None);
    }
    // SAFETY: the caller of `File::map` promises that nothing changes or cuts the file while the mapping lives.
    unsafe { memmap2::Mmap::map(f) }.map(Some)
}

/// A second handle on an open file, past the page cache; `None` where that cannot be.
#[cfg(target_os = "linux")]
pub fn reopen_direct(f: &fs::File) -> Option<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    // By its descriptor: another file may have its name by now.
    let path = format!("/proc/self/fd/{}", f.as_raw_fd());
    let open =
        |write: bool| fs::OpenOptions::new().read(true).write(write).custom_flags(libc::O_DIRECT).open(&path);
    open(true).or_else(|_| open(false)).ok()
}

#[cfg(not(target_os = "linux"))]
pub fn reopen_direct(_: &fs::File) -> Option<fs::File> {
    None
}

/// Tells the allocator to keep memory for what comes next. What was given back to the system costs more, when it is needed again, than all that is done
/// with it: the buffers of a busy server are taken and let go all the time.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Larger blocks are mapped by themselves: tables that grow, which can then grow without a copy.
        const MAPPED_MIN: libc::c_int = 4 << 20;
        /// Free bytes at an arena's end beyond which they go back.
        const KEPT: libc::c_int = 64 << 20;
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            // SAFETY: plain numbers; an allocator that does not know them answers 0 and goes on as before.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_MIN);
                libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
            }
        });
    }
}
