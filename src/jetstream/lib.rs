//! JetStream over `stream`, `store` and `replica`: assets of accounts, the JSON API, the publish path, deliveries.
//!
//! Start reading at [`JetStream`] (the engine of a server), then `shell` (a stream), `publish` (the way in), `apply` (what the log
//! does) and `deliver` (the way out). Requests come in at `account` and are answered in `handlers`.
//!
//! Owns: who is called when, and in which order; the locks; what is sent to whom. Does not own rules (`stream`), durability
//! (`replica`), messages (`store`), the text of requests and answers (`api`).

mod account;
mod advisory;
mod answer;
pub mod api;
mod apply;
pub mod audit;
mod backup;
pub mod cluster;
mod codec;
mod consumers;
mod deliver;
#[cfg(test)]
mod engine_tests;
mod filters;
mod handlers;
mod leading;
mod log;
mod making;
mod meta;
mod node;
mod noting;
mod options;
mod post;
mod publish;
mod quota;
mod remote;
mod shell;
mod sources;
mod view;
mod wheel;

pub use api::{Time, event::ClientInfo};
pub use node::{Absent, Detail, JetStream, Usage};
pub use options::{AccountLimits, AssetLimits, Durability, Host, Options, Tunable};
pub use store::{Cipher, KEY_ABSENT, Key, Keys};
