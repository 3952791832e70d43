//! store.
#![allow(dead_code)]
mod codec;
mod crypt;
mod filter;
mod record;
mod round;
mod segment;
mod types;
pub use types::*;
