//! Real servers under real faults, and what the histories of their clients show.
//!
//! A run is `scenario -> subject (a binary and its configuration) -> processes, clients, faults -> history -> verdict`.
//! [`history`] is the one format, [`check`] judges it: both are plain data and functions, without a clock or a socket, so
//! that a simulation can use them too. The rest stands on the real machine: [`subject`] says what is run, [`cluster`] runs
//! it, [`links`] stands between the nodes, [`image`] is the disk that can lose power, [`damage`] spoils files,
//! [`workload`] are the clients, [`scenario`] puts all together, [`report`] writes the table.
//!
//! It judges a server from outside only: it reads no log line and no file of the server, and a server that cannot do what
//! a scenario needs is reported as such, never as passed.
// It stands outside the product: real clocks, files, processes and sockets.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod check;
pub mod history;
#[cfg(not(madsim))]
mod real;
#[cfg(not(madsim))]
pub use real::*;
