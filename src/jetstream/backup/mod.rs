//! Backups of streams, made and restored.
//!
//! Owns the conversation with whoever wants one: `snapshot` sends an archive in chunks, `restore` takes one. Both hold a few blocks at a time, however
//! large the stream. The format (`archive` over `s2`) is the one that nats-server 2.15 writes and reads, so that a backup can be restored on either.
//!
//! A restore makes a stream that takes nothing and removes nothing ([`stream::config::StreamConfig::while_restoring`]), puts the messages into its log
//! with their numbers and times, then the consumers, and in the end gives it its configuration. A stream that is still as in the beginning when nobody
//! restores into it any more, after a crash for example, is deleted.
//!
//! - J-26: a restore that is not answered with success leaves no stream.

mod archive;
mod import;
mod restore;
mod s2;
mod snapshot;

pub use import::Item;
pub use restore::{Restores, upload_subject};

use std::time::Duration;

/// How long the other end may be silent while it is its turn.
const PATIENCE: Duration = Duration::from_secs(5);
