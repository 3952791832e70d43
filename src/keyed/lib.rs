//! Hashes of what clients choose, such as subjects and message ids, and a table of numbers by them.
//!
//! Keyed, because clients choose: whoever does not know the key cannot aim at one place of a table, and so make everybody wait who is looked up there. Not
//! cryptographic, never stored and never sent: hashes may differ between processes and versions.

mod hash;
mod table;

pub use hash::{Key, hash, seed, tag};
pub use table::Table;
