//! The JSON API of JetStream: what requests say, and how answers, advisories and acknowledgements are written.
//!
//! Owns `$JS.API` subjects, request bodies with their errors, answers byte for byte as nats-server 2.15 writes them, publish
//! acknowledgements, direct gets' requests and headers, advisories and metrics. Does not own any stream: it is pure text in and
//! text out. No async, no clock, no lookups.
//!
//! Start reading at [`request`], then [`response`]. The recorded answers of a real server that the tests compare with are in
//! `src/jetstream/testdata`.
//!
//! Invariants:
//! * API-1: what passes the table of what a request may hold ([`schema`]) is what serde takes, field by field.
//! * API-2: no body, however hostile, panics or exhausts the stack.

pub mod ack;
pub mod direct;
pub mod event;
pub mod identity;
pub mod kind;
pub mod metadata;
pub mod request;
pub mod response;
pub mod schema;
pub mod strict;
pub mod text;
pub mod time;

#[cfg(test)]
mod tests;

pub use kind::Kind;
pub use request::{Parsed, Refusal, Request, Rules};
pub use response::{failure, success};
pub use stream::config::{External, Placement, StreamConfig, SubjectTransform};
pub use stream::consumer::config::ConsumerConfig;
pub use time::Time;

/// The API level that this server implements.
pub const LEVEL: u32 = 5;
/// The version of nats-server whose behaviour this is.
pub const VERSION: &str = "2.15.1";
