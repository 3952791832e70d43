//! The server's log: `[pid] YYYY/MM/DD HH:MM:SS.uuuuuu [INF] text`, to standard error or a file.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use env::LogFile;
use parking_lot::Mutex;

use crate::options::LogOptions;

/// Where lines go and which are wanted.
pub struct Log {
    out: Mutex<Out>,
    debug: AtomicBool,
    trace: AtomicBool,
    trace_system: AtomicBool,
    trace_headers: AtomicBool,
    /// Bytes of a traced message that are shown.
    traced_max: AtomicUsize,
    /// When texts that may be repeated at will were written last.
    said: Mutex<Vec<(String, env::Instant)>>,
}

/// A text that may be repeated at will is written once in this time.
const AGAIN: Duration = Duration::from_secs(1);
/// Of so many texts it is known when they were written.
const SAID_MAX: usize = 64;

struct Out {
    file: LogFile,
    path: Option<String>,
    time: bool,
    utc: bool,
    bytes_max: u64,
    keep: usize,
}

impl Out {
    fn line(&mut self, level: &str, text: fmt::Arguments<'_>) {
        let mut line = format!("[{}] ", env::process::id());
        if self.time {
            env::log_time::write(&mut line, env::wall(), self.utc);
            line.push(' ');
        }
        line += &format!("[{level}] {text}\n");
        self.file.write(line.as_bytes()).ok();
    }
}

impl Log {
    /// Opens the log that the options ask for.
    pub fn open(o: &LogOptions) -> std::io::Result<Log> {
        let file = match &o.file {
            Some(path) => LogFile::open(path)?,
            None => LogFile::stderr(),
        };
        let log = Log {
            out: Mutex::new(Out {
                file,
                path: o.file.clone(),
                time: true,
                utc: false,
                bytes_max: 0,
                keep: 0,
            }),
            debug: AtomicBool::new(false),
            trace: AtomicBool::new(false),
            trace_system: AtomicBool::new(false),
            trace_headers: AtomicBool::new(false),
            traced_max: AtomicUsize::new(usize::MAX),
            said: Mutex::default(),
        };
        log.set(o);
        Ok(log)
    }
    fn set(&self, o: &LogOptions) {
        self.debug.store(o.debug, Relaxed);
        self.trace.store(o.trace || o.trace_verbose || o.trace_headers, Relaxed);
        self.trace_system.store(o.trace_verbose, Relaxed);
        self.trace_headers.store(o.trace_headers, Relaxed);
        self.traced_max.store(o.max_traced_msg_len.unwrap_or(usize::MAX), Relaxed);
        let mut out = self.out.lock();
        out.time = o.logtime;
        out.utc = o.logtime_utc;
        out.bytes_max = u64::try_from(o.file_size_limit).unwrap_or(0);
        out.keep = usize::try_from(o.file_max_num).unwrap_or(0);
    }
    /// Follows new options; another file is opened before the old one is let go.
    pub fn reload(&self, o: &LogOptions) -> std::io::Result<()> {
        let other = self.out.lock().path != o.file;
        if other {
            let file = match &o.file {
                Some(path) => LogFile::open(path)?,
                None => LogFile::stderr(),
            };
            let mut out = self.out.lock();
            out.file = file;
            out.path.clone_from(&o.file);
        }
        self.set(o);
        Ok(())
    }
    /// Opens the file anew (after it was moved away). False if there is none.
    pub fn reopen(&self) -> std::io::Result<bool> {
        let mut out = self.out.lock();
        out.file.reopen()?;
        Ok(out.path.is_some())
    }
    /// Whether debug lines are wanted.
    pub fn debugs(&self) -> bool {
        self.debug.load(Relaxed)
    }
    /// Whether `text`, which may be repeated at will, has not been written for a while; it is taken to be written now.
    pub fn is_due(&self, text: &str) -> bool {
        let now = env::now();
        let mut said = self.said.lock();
        said.retain(|(_, at)| now.since(*at) < AGAIN);
        let due = said.len() < SAID_MAX && !said.iter().any(|(t, _)| t == text);
        if due {
            said.push((text.to_string(), now));
        }
        due
    }
    /// Whether protocol lines are wanted.
    pub fn traces(&self) -> bool {
        self.trace.load(Relaxed)
    }
    /// Which protocol lines are wanted, and how much of messages.
    pub fn tracing(&self) -> Option<links::Tracing> {
        let max = self.traced_max.load(Relaxed);
        self.traces().then(|| links::Tracing {
            system: self.trace_system.load(Relaxed),
            headers_only: self.trace_headers.load(Relaxed),
            bytes_max: (max != usize::MAX).then_some(max),
        })
    }

    /// Writes a line. A line that cannot be written is lost: there is nowhere to say so.
    pub fn line(&self, level: &str, text: fmt::Arguments<'_>) {
        let mut out = self.out.lock();
        out.line(level, text);
        if out.bytes_max > 0 && out.path.is_some() && out.file.len() > out.bytes_max {
            let keep = out.keep;
            if let Ok(Some(moved)) = out.file.rotate(env::wall(), keep) {
                out.line(
                    "INF",
                    format_args!("Rotated log, backup saved as {:?}", moved.display().to_string()),
                );
            }
        }
    }
    /// An ordinary line.
    pub fn info(&self, text: fmt::Arguments<'_>) {
        self.line("INF", text)
    }
    /// Something to look at.
    pub fn warn(&self, text: fmt::Arguments<'_>) {
        self.line("WRN", text)
    }
    /// Something that went wrong.
    pub fn error(&self, text: fmt::Arguments<'_>) {
        self.line("ERR", text)
    }
    /// Why the server ends.
    pub fn fatal(&self, text: fmt::Arguments<'_>) {
        self.line("FTL", text)
    }
    /// A line for those who look for a fault.
    pub fn debug(&self, text: fmt::Arguments<'_>) {
        if self.debugs() {
            self.line("DBG", text)
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the log is a file of the test")]
    fn says_that_it_moved_its_file_and_what_may_be_repeated_once_a_while() {
        let dir = std::env::temp_dir().join(format!("fulmar-log-lines-{}", env::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("log").to_str().unwrap().to_string();
        let file = LogOptions { file: Some(path.clone()), file_size_limit: 1, ..LogOptions::default() };
        let log = Log::open(&file).unwrap();
        log.info(format_args!("first"));
        let all = std::fs::read_to_string(&path).unwrap();
        let moved =
            all.trim_end().split_once("[INF] Rotated log, backup saved as ").unwrap().1.trim_matches('"');
        assert!(std::fs::read_to_string(moved).unwrap().ends_with("[INF] first\n"));
        assert!(log.reopen().unwrap());
        assert!(!Log::open(&LogOptions::default()).unwrap().reopen().unwrap());
        assert_eq!(["x", "y", "x"].map(|text| log.is_due(text)), [true, true, false]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
