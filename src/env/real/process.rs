//! The process, asked of the operating system. On systems other than Linux what is not known reads as zero.
#![allow(unsafe_code)]

use std::{fs, io, mem::MaybeUninit};

/// This process's number.
pub fn id() -> u32 {
    std::process::id()
}
/// The program's name as it was called, without its directories.
pub fn exe_name() -> String {
    let arg0 = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&arg0).file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}
/// The command line after the program's name. What is not UTF-8 is replaced.
pub fn args() -> Vec<String> {
    std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect()
}
/// A variable of the environment, if it is set and UTF-8.
pub fn var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
/// Seconds of processor time that this process has used, in user and kernel mode.
pub fn cpu_seconds() -> f64 {
    let mut u = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `u` is room for one rusage, for which all zeros are a valid value.
    let u = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, u.as_mut_ptr());
        u.assume_init()
    };
    let secs = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    secs(u.ru_utime) + secs(u.ru_stime)
}
/// Bytes of memory that this process holds.
pub fn rss_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|s| s.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    // SAFETY: a question without pointers.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    pages * page
}
/// Bytes of memory that the machine has, or that this process's control group may use if that is less.
pub fn memory_total() -> u64 {
    let read = |p: &str| fs::read_to_string(p).ok();
    let total = read("/proc/meminfo")
        .and_then(|s| {
            let line = s.lines().find_map(|l| l.strip_prefix("MemTotal:"))?.trim();
            line.strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1024);
    let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|p| read(p)?.trim().parse::<u64>().ok());
    limit.map_or(total, |l| if total == 0 { l } else { l.min(total) })
}
/// Allows as many open files as the system lets this process have; returns that number.
pub fn raise_open_file_limit() -> io::Result<u64> {
    let mut r = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `r` is a valid rlimit for both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut r) != 0 {
            return Err(io::Error::last_os_error());
        }
        if r.rlim_cur < r.rlim_max {
            r.rlim_cur = r.rlim_max;
            if libc::setrlimit(libc::RLIMIT_NOFILE, &r) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(r.rlim_cur)
}
/// The machine's name; empty if it has none.
pub fn hostname() -> String {
    let mut buf = [0u8; 256];
    // SAFETY: the call writes at most `buf.len()` bytes into `buf`.
    let r = unsafe { libc::gethostname(buf.as_mut_ptr().cast(), buf.len()) };
    let end = buf.iter().position(|b| *b == 0).unwrap_or(buf.len());
    if r == 0 { String::from_utf8_lossy(&buf[..end]).into_owned() } else { String::new() }
}
/// The local zone's offset from UTC at a time, in seconds.
pub fn utc_offset_secs(unix: i64) -> i32 {
    match jiff::Timestamp::from_second(unix) {
        Ok(t) => jiff::tz::TimeZone::system().to_offset(t).seconds(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_plausible() {
        assert!(id() > 0 && exe_name().starts_with("env-"));
        assert!(rss_bytes() > 1 << 16 && memory_total() > rss_bytes());
        let before = cpu_seconds();
        let mut x = 1u64;
        while cpu_seconds() - before < 0.002 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(raise_open_file_limit().unwrap() >= 256);
        assert!(!hostname().is_empty());
        assert!(var("PATH").is_some() && var("FULMAR_SURELY_NOT_SET").is_none());
        assert!(utc_offset_secs(1_700_000_000).abs() <= 26 * 3600);
    }
}
