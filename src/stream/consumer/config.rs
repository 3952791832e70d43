//! A consumer's configuration, exactly as the JSON API writes and reads it.
//!
//! Owns the fields, their order and what is left out. Does not own what is allowed: see [`super::check`].
//! Durations are nanoseconds, as on the wire.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};

use crate::time::Time;

/// `null` leaves a field at its default, as it does in the clients' and the original server's JSON.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Where a consumer starts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliverPolicy {
    /// The first message.
    #[default]
    All,
    /// The last message (that matches a filter).
    Last,
    /// What comes after the creation.
    New,
    /// `opt_start_seq`.
    ByStartSequence,
    /// The first message at or after `opt_start_time`.
    ByStartTime,
    /// The last message of each subject that matches, then what comes.
    LastPerSubject,
}

/// What an acknowledgement means, and whether it is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckPolicy {
    /// Delivered is done.
    #[default]
    None,
    /// An ack covers all before it too.
    All,
    /// Each message on its own.
    Explicit,
    /// The answer to a flow control request covers all that was delivered before it.
    FlowControl,
}

/// How fast old messages come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayPolicy {
    /// As fast as they can.
    #[default]
    Instant,
    /// With the pauses with which they came.
    Original,
}

/// How pull requests compete.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriorityPolicy {
    /// Each in turn.
    #[default]
    None,
    /// A request may ask to be served only when much is pending.
    Overflow,
    /// One client gets all until it falls silent.
    PinnedClient,
    /// The lowest priority number first.
    Prioritized,
}

/// What a create request means by itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Action {
    /// Create, or update what exists.
    #[default]
    #[serde(rename = "")]
    CreateOrUpdate,
    /// Only create; the same configuration again is no error.
    #[serde(rename = "create")]
    Create,
    /// Only update.
    #[serde(rename = "update")]
    Update,
}

/// A consumer's configuration. The order of the fields is that of the JSON API's answers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ConsumerConfig {
    /// The name that makes it durable.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub durable_name: String,
    /// Its name; equal to the durable name if both are given.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// A text for people, at most 4 KiB.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where it starts.
    #[serde(default, deserialize_with = "nullable")]
    pub deliver_policy: DeliverPolicy,
    /// The sequence for `by_start_sequence`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub opt_start_seq: u64,
    /// The time for `by_start_time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<Time>,
    /// How messages are acknowledged.
    #[serde(default, deserialize_with = "nullable")]
    pub ack_policy: AckPolicy,
    /// How long an ack is awaited before a redelivery, in nanoseconds.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub ack_wait: i64,
    /// How often a message is delivered at most; -1 for no limit.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub max_deliver: i64,
    /// Waits in the place of `ack_wait`, one a delivery, the last one for all further ones. Nanoseconds.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub backoff: Vec<i64>,
    /// The one filter.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    /// Several filters, none of which overlaps another.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub filter_subjects: Vec<String>,
    /// How fast old messages come.
    #[serde(default, deserialize_with = "nullable")]
    pub replay_policy: ReplayPolicy,
    /// Bits a second of a push consumer; 0 for no limit.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub rate_limit_bps: u64,
    /// The share of acks that is reported, in percent: `"30"` or `"30%"`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub sample_freq: String,
    /// How many pull requests may wait.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub max_waiting: i64,
    /// How many messages may wait for their ack; -1 for no limit.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub max_ack_pending: i64,
    /// Whether a push consumer asks its client to keep up.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub flow_control: bool,
    /// Whether bodies stay behind.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub headers_only: bool,
    /// The largest batch of a pull request; 0 for no limit.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub max_batch: i64,
    /// The longest life of a pull request, in nanoseconds; 0 for no limit.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub max_expires: i64,
    /// The largest `max_bytes` of a pull request; 0 for no limit.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub max_bytes: i64,
    /// Where messages are pushed to; empty for a pull consumer.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub deliver_subject: String,
    /// The queue group of the subscribers that a push consumer serves.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub deliver_group: String,
    /// The pause after which a push consumer says that it lives, in nanoseconds.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub idle_heartbeat: i64,
    /// The silence after which the consumer is deleted, in nanoseconds.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub inactive_threshold: i64,
    /// Replicas of its state; 0 for as many as the stream has.
    #[serde(default, deserialize_with = "nullable")]
    pub num_replicas: i64,
    /// Whether its state stays in memory.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub mem_storage: bool,
    /// Whether it serves a mirror or source by itself.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub direct: bool,
    /// Whether it is the durable consumer of a mirror or source.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub sourcing: bool,
    /// Free notes, at most 128 KiB together.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Until when nothing is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_until: Option<Time>,
    /// The groups that a pull request has to name one of.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub priority_groups: Vec<String>,
    /// How pull requests compete.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub priority_policy: PriorityPolicy,
    /// How long a pinned client may be silent, in nanoseconds.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub priority_timeout: i64,
}

impl ConsumerConfig {
    /// Whether messages are pulled and not pushed.
    pub fn is_pull(&self) -> bool {
        self.deliver_subject.is_empty()
    }

    /// Whether it stays when nobody uses it (unless `inactive_threshold` says otherwise).
    pub fn is_durable(&self) -> bool {
        !self.durable_name.is_empty()
    }

    /// The name that the request gives it; empty if the server has to choose one.
    pub fn given_name(&self) -> &str {
        if self.durable_name.is_empty() { &self.name } else { &self.durable_name }
    }

    /// All filters, those of `filter_subject` and `filter_subjects` alike.
    pub fn filters(&self) -> impl Iterator<Item = &str> + Clone {
        let one = (!self.filter_subject.is_empty()).then_some(self.filter_subject.as_str());
        one.into_iter().chain(self.filter_subjects.iter().map(String::as_str))
    }

    /// The filters as [`crate::Messages`] takes them.
    pub fn filter_bytes(&self) -> Vec<Bytes> {
        self.filters().map(|f| Bytes::copy_from_slice(f.as_bytes())).collect()
    }

    /// The share of acks to report, in percent; 0 if none or if the text is no number.
    pub fn sample_percent(&self) -> u32 {
        let text = self.sample_freq.strip_suffix('%').unwrap_or(&self.sample_freq);
        text.parse::<u32>().unwrap_or(0).min(100)
    }
}
