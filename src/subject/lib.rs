//! Subjects: their rules, the structure that finds who is interested in one, and the transforms that rename them.
//!
//! Start reading at [`valid`] (what a subject is), then [`Trie`] (who listens), then [`Transform`] and [`Mapping`].
//! The design and its measured costs: docs/design/0003-interest.md.
//!
//! This crate knows no connection, no account and no protocol; it does no I/O, reads no clock and draws no random
//! number: seeds and random draws are passed in. Subjects are bytes: nothing here asks for UTF-8, as nats-server asks
//! for none. No input can make it panic.

mod bytes;
mod matched;
mod queues;
mod slab;
mod text;
pub mod transform;
mod trie;
pub mod valid;
mod values;

pub use matched::Matched;
pub use queues::QueueId;
pub use transform::{Choice, Destination, Mapping, MappingError, Mappings, Transform, TransformError};
pub use trie::{InsertError, SubjectId, Trie};
pub use valid::{
    collides, has_wildcard, is_literal, is_strict, is_subset, is_valid, matches, tokens, valid_queue,
};
pub use values::{Group, Member};
