//! What a stream and its consumers decide: limits, duplicates, expectations, retention, delivery, acks, redelivery, time to live.
//!
//! Does not own: storage (asked through [`Messages`]), time (passed in as [`Now`]), the JSON API's routing, any async.
//!
//! Start reading at [`config`] (what a stream is), then [`publish`] (what a publish is told), then [`stream`] (how it is decided and
//! applied). The design: docs/design/0015-jetstream.md and 0017-stream-rules.md.

mod arena;
pub mod codec;
pub mod command;
pub mod config;
pub mod consumer;
mod counter;
mod dedup;
pub mod errors;
pub mod headers;
pub mod memory;
pub mod messages;
pub mod publish;
pub mod schedule;
pub mod source;
pub mod stream;
mod tail;
pub mod time;

pub use command::{Command, Control};
pub use config::StreamConfig;
pub use errors::ApiError;
pub use memory::Memory;
pub use messages::{Carried, Ends, Messages, MessagesMut, Meta, Now, Stored, SubjectTotals, Totals};
pub use publish::{Abandoned, Ack, Answer, Answers, Decision, Entry, Extra, From, Limits, Publish};
pub use stream::{Deadlines, Due, Interest, NoConsumers, Outcome, SourceAt, Stream};
pub use time::Time;
