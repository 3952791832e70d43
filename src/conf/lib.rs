//! The configuration language: text in, a tree of values with positions out.
//!
//! Owns the grammar (maps, arrays, strings, numbers with size suffixes, datetimes, block strings, whole-file JSON),
//! includes, variables, the digest of a parsed configuration, Go-style durations and the search for the nearest known
//! key. It knows no option's meaning, and it touches no file and no environment: a [`Source`] brings both.
//!
//! Invariants
//! - CONF-1: no input panics, overflows the stack or grows without bound: nesting, include depth and the weight of the
//!   expanded tree are limited, and each limit has an error.
//! - CONF-2: every key and every value knows the file, line and column where it was written, also through an include.
//! - CONF-3: the digest depends on the parsed values only, not on layout, comments or the order of keys.

mod digest;
pub mod duration;
mod error;
mod number;
mod parse;
mod source;
mod suggest;
mod value;

#[cfg(test)]
mod tests;

pub use digest::{canonical_json, digest};
pub use error::Error;
pub use number::{SizeError, parse_size};
pub use parse::{Document, parse_file, parse_text};
pub use source::{Memory, Source};
pub use suggest::nearest;
pub use value::{DateTime, Entry, Map, Node, Pos, Value};
