//! What a stream and its consumers decide: limits, duplicates, expectations, retention, delivery, acks, redelivery, time to live.
//!
//! Does not own: storage (asked through [`Messages`]), time (passed in as [`Now`]), the JSON API's routing, any async.

pub mod consumer;
pub mod errors;
pub mod messages;

pub use errors::ApiError;
pub use messages::{Messages, MessagesMut, Meta, Now, Stored, SubjectTotals, Totals};
