//! server.
pub mod options;
