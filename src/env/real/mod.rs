//! The production backend: tokio and the operating system.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod clock;
pub mod net;
pub mod task;
