//! Signals: to this process, as a stream, and from it, for `--signal`.

pub use crate::imp::signal::{Signals, find, send};

/// A signal that the server knows, with its number on Linux in the comment of each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Signal {
    /// SIGHUP, 1.
    Hangup,
    /// SIGINT, 2.
    Interrupt,
    /// SIGKILL, 9: can be sent, is never received.
    Kill,
    /// SIGUSR1, 10.
    User1,
    /// SIGUSR2, 12.
    User2,
    /// SIGTERM, 15.
    Terminate,
}
