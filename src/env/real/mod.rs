//! The production backend: tokio and the operating system.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod clock;
pub mod disk;
pub mod net;
pub mod random;
mod sys;
pub mod task;
