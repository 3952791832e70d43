//! Monitoring of whole servers, over loopback.

// A test fails where it unwraps, its helpers included.
#![allow(clippy::unwrap_used, clippy::disallowed_macros)]

mod bad_input;
mod fields;
mod https;
mod support;
mod values;
