//! store.
#![allow(dead_code)]
mod codec;
mod crypt;
mod dict;
mod filter;
mod group;
pub mod io;
mod manifest;
mod record;
mod recover;
mod round;
mod segment;
#[cfg(any(test, feature = "l1"))]
pub mod simio;
mod types;
pub use types::*;
