//! From the tree of a configuration to options: one file a block, all through one [`Reader`].

pub(super) mod accounts;
pub(super) mod auth;
pub(super) mod cluster;
pub(super) mod jetstream;
mod reader;
pub(super) mod tls;
pub(super) mod top;
pub(super) mod websocket;

pub(super) use reader::Reader;
pub(super) use top::Draft;

/// Walks the entries of a block. Each arm names a key with its aliases; the names of all arms are what a mistyped key is
/// compared with, so that they cannot fall out of step. Keys match without regard to case.
macro_rules! block {
    ($reader:expr, $block:expr, $map:expr, |$entry:ident| { $($($key:literal)|+ => $body:expr),+ $(,)? }) => {{
        const KNOWN: &[&str] = &[$($($key),+),+];
        for $entry in $map {
            match $entry.key.to_ascii_lowercase().as_str() {
                $($($key)|+ => { $body; })+
                _ => $reader.unknown($block, $entry, KNOWN),
            }
        }
    }};
}
pub(super) use block;
