//! Everything that is not computation: time, randomness, tasks, sockets, files, signals and the process itself.
//!
//! Two backends, chosen at compile time by `cfg(madsim)` so that the hot path pays nothing: `real` (tokio and the
//! operating system) and `sim` (a madsim world with our own network and disk). Both export the same names; the rest
//! of the product has no `cfg` at all and touches nothing of `std::{time,fs,net,thread}` (clippy.toml keeps it so).
//!
//! `tokio::sync` and the `tokio::io` traits are used directly by everybody: they work under both backends, but for
//! `tokio::sync::watch`, in whose place stands [`watch`].

// The ban of tokio::select! would strike every use of our own select!, which wraps it.
#![allow(clippy::disallowed_macros)]

pub mod check;
pub mod collections;
pub mod disk;
mod lock;
mod log_file;
pub mod log_time;
pub mod process;
pub mod rng;
pub mod signal;
pub mod simdisk;
pub mod time;
pub mod trace;
mod turn;
pub mod watch;

#[cfg(not(madsim))]
#[path = "real/mod.rs"]
mod imp;
#[cfg(madsim)]
pub mod sim;
#[cfg(madsim)]
use sim as imp;

pub use imp::{net, task};
pub use lock::{Politely, ShortMutex};
pub use log_file::LogFile;
pub use rng::{Rng, rng};
pub use task::{Worker, Workers, current_worker, handled, run, spawn};
pub use time::{Elapsed, Instant, Wall, now, sleep, sleep_until, timeout, wall};
pub use turn::give_way;

/// `tokio::select!` with a fixed order of branches. The unbiased form draws from a process-global counter, which
/// would make a simulated run depend on what ran before it.
#[macro_export]
macro_rules! select {
    ($($t:tt)*) => {{
        #[allow(clippy::disallowed_macros)]
        { $crate::__tokio::select! { biased; $($t)* } }
    }};
}

#[doc(hidden)]
pub use tokio as __tokio;
