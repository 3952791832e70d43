//! The production backend: tokio and the operating system.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod clock;
mod direct;
pub mod disk;
pub mod linger;
pub mod log;
pub mod net;
pub mod process;
pub mod random;
pub mod signal;
mod sys;
pub mod task;
