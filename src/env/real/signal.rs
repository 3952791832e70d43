//! Signals of the operating system.
#![allow(unsafe_code)]

use std::{fs, io};

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::signal::Signal;

/// The signals that this process receives from now on; without one of these, all but the hangup end the process.
#[derive(Debug)]
pub struct Signals {
    hangup: Stream,
    interrupt: Stream,
    terminate: Stream,
    user1: Stream,
    user2: Stream,
}

impl Signals {
    /// Begins to listen. From now on none of them ends the process by itself.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }
    /// The next signal. Equal ones that come close together may be told as one.
    pub async fn next(&mut self) -> Signal {
        crate::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.hangup.recv() => Signal::Hangup,
            _ = self.user1.recv() => Signal::User1,
            _ = self.user2.recv() => Signal::User2,
        }
    }
}

/// Sends a signal to a process.
pub fn send(pid: u32, what: Signal) -> io::Result<()> {
    let number = match what {
        Signal::Hangup => libc::SIGHUP,
        Signal::Interrupt => libc::SIGINT,
        Signal::Kill => libc::SIGKILL,
        Signal::User1 => libc::SIGUSR1,
        Signal::User2 => libc::SIGUSR2,
        Signal::Terminate => libc::SIGTERM,
    };
    // Numbers below one name groups of processes, which nobody may ask for.
    let pid = libc::pid_t::try_from(pid).ok().filter(|p| *p > 0);
    let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: a call with plain numbers.
    if unsafe { libc::kill(pid, number) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The processes whose program has the file name `name`, without this one, in order.
pub fn find(name: &str) -> io::Result<Vec<u32>> {
    let mut out = Vec::new();
    for e in fs::read_dir("/proc")? {
        let Some(pid) = e?.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // The first word of the command line, as the process was called; a process that ended meanwhile has none.
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let word = line.split(|b| *b == 0).next().unwrap_or_default();
        let base = word.rsplit(|b| *b == b'/').next().unwrap_or_default();
        if base == name.as_bytes() && pid != std::process::id() {
            out.push(pid);
        }
    }
    out.sort_unstable();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_arrive_and_processes_are_found() {
        crate::run(async {
            let mut s = Signals::listen().unwrap();
            for what in [Signal::Hangup, Signal::User1, Signal::User2, Signal::Terminate, Signal::Interrupt] {
                send(std::process::id(), what).unwrap();
                assert_eq!(s.next().await, what);
            }
        })
        .unwrap();
        assert_eq!(send(0, Signal::Kill).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert_eq!(send(u32::MAX, Signal::Kill).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        // The child is named sleep only once it has begun to run.
        while !find("sleep").unwrap().contains(&child.id()) {
            std::thread::yield_now();
        }
        send(child.id(), Signal::Terminate).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(find("fulmar-surely-no-such-program").unwrap().is_empty());
    }
}
