//! The store: journal, segments and indexes that survive a hostile disk.
//!
//! Start reading at [`store`] (the handles), then `shard` (the way of an append), `flush` (from the journal to pieces) and
//! `recover` (what a found journal means). The bytes are in `record`, `round`, `segment` and `manifest`. The design is in
//! docs/design/0011-storage.md, the format in 0012-on-disk-format.md.
//!
//! A shard has one journal for all of its groups: one write and one sync make a round of entries durable. The same entries
//! go lazily to pieces in immutable segment files; a manifest names them, and then the journal behind is free. What a
//! stream decides (deletions, limits, expiry) is told from above while it applies the log, and becomes durable with the
//! group's checkpoint; a restart begins there and applies the log again.
//!
//! This crate knows no JetStream rule and touches the disk through `env::disk` only.

mod abreast;
mod cache;
mod codec;
mod crypt;
mod dict;
mod early;
mod feet;
mod filter;
mod flush;
#[cfg(test)]
mod golden_tests;
mod group;
mod heal;
mod inspect;
pub mod io;
mod journal;
mod keyring;
#[cfg(test)]
mod keys_tests;
#[cfg(any(test, feature = "l1"))]
pub mod l1;
mod manifest;
mod mend;
mod options;
mod query;
mod read;
mod record;
mod recover;
mod round;
mod saved;
mod scrub;
mod segment;
mod shard;
#[cfg(any(test, feature = "l1"))]
pub mod simio;
pub mod store;
mod transfer;
mod types;
mod view;

pub use abreast::Last;
pub use crypt::{Cipher, KEY_ABSENT, Key, Keys};
pub use feet::Need;
pub use heal::Healer;
pub use inspect::{GroupReport, Inspection, ShardReport, inspect};
pub use io::Disk;
pub use manifest::{Checkpoint, Lost, Totals};
pub use mend::Hole;
#[cfg(any(test, feature = "l1"))]
pub use options::Mutant;
pub use options::Options;
pub use query::SubjectTotals;
pub use record::{Batch, ENTRY_HEADER, Entry, FORMAT, Head, Kind, Message, NewEntry, Records};
pub use scrub::ScrubReport;
pub use segment::Counting;
pub use shard::Reading;
pub use store::{DamageWatch, Footprint, Group, Read, Store, Stored, StreamState, Sync, Ticket};
pub use transfer::{Incoming, Outgoing, Taken};
pub use types::*;
pub use view::View;
