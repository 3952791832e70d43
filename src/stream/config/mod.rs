//! A stream's configuration as the JSON API has it.
//!
//! Owns the types with their JSON form (field order, omitted fields and units as nats-server prints them), the checks of a new
//! configuration and of an update. Does not reject unknown JSON fields: the API's strict parser does that first. Durations are
//! nanoseconds; limits are -1 where there is none.

mod check;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use check::{NoStreams, ServerLimits, Streams, subjects_overlap, valid_name};

use crate::time::Time;

/// When messages leave a stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// At the limits.
    #[default]
    Limits,
    /// When all consumers that are interested have acknowledged.
    Interest,
    /// When one consumer has acknowledged.
    WorkQueue,
}

/// Which message gives way at a limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// The oldest.
    #[default]
    #[serde(alias = "Old", alias = "OLD")]
    Old,
    /// The new one: it is refused.
    #[serde(alias = "New", alias = "NEW")]
    New,
}

/// Where messages are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory.
    Memory,
}

/// How stored messages are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// In blocks by S2.
    S2,
}

/// What an acknowledgement waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PersistMode {
    /// For the message to be as durable as the server promises.
    #[default]
    #[serde(alias = "")]
    Default,
    /// For nothing.
    Async,
}

/// Where replicas may be.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// The cluster's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// What servers must all be tagged with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The server that should lead; only for step-downs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub preferred: String,
}

/// A rule that renames subjects.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubjectTransform {
    /// What it applies to; empty stands for all.
    pub src: String,
    /// What becomes of it.
    pub dest: String,
}

/// Where stored messages are published again.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Republish {
    /// Which messages; empty stands for all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub src: String,
    /// Under which subject.
    pub dest: String,
    /// Without the payload.
    #[serde(skip_serializing_if = "is_false")]
    pub headers_only: bool,
}

/// How to reach a stream of another account or domain.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct External {
    /// The prefix of its API subjects.
    pub api: String,
    /// The prefix of the subjects that it delivers to.
    pub deliver: String,
}

/// A durable consumer that the user manages, to source by.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceConsumer {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it delivers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver_subject: String,
}

/// A stream that this one copies from.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Where to begin.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub opt_start_seq: u64,
    /// When to begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<Time>,
    /// Which subjects; empty for all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    /// Which subjects, and what becomes of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_transforms: Vec<SubjectTransform>,
    /// If it is of another account or domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// If the user manages the consumer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<SourceConsumer>,
}

/// What bounds the consumers of a stream.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerLimits {
    /// Nanoseconds; 0 for no bound.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub inactive_threshold: i64,
    /// 0 for no bound.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub max_ack_pending: i64,
}

/// A stream's configuration.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    /// The name, unique in its account.
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it captures.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub subjects: Vec<String>,
    /// When messages leave.
    pub retention: Retention,
    /// -1 for no limit.
    pub max_consumers: i64,
    /// -1 for no limit.
    pub max_msgs: i64,
    /// -1 for no limit.
    pub max_bytes: i64,
    /// Nanoseconds; 0 for no limit.
    pub max_age: i64,
    /// -1 for no limit.
    pub max_msgs_per_subject: i64,
    /// Headers and payload; -1 for no limit.
    #[serde(skip_serializing_if = "is_zero_i32")]
    pub max_msg_size: i32,
    /// Which message gives way.
    pub discard: Discard,
    /// Where messages are kept.
    pub storage: Storage,
    /// On how many servers.
    pub num_replicas: i64,
    /// No acknowledgements.
    #[serde(skip_serializing_if = "is_false")]
    pub no_ack: bool,
    /// For how long a message id is remembered, nanoseconds; 0 for never.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub duplicate_window: i64,
    /// Where replicas may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The stream that this one mirrors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Source>,
    /// The streams that this one gathers from.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub sources: Vec<Source>,
    /// How stored messages are compressed.
    pub compression: Compression,
    /// The first sequence of the empty stream; 0 stands for 1.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub first_seq: u64,
    /// What subjects become on their way in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_transform: Option<SubjectTransform>,
    /// Where stored messages are published again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub republish: Option<Republish>,
    /// Whether all replicas answer direct gets.
    pub allow_direct: bool,
    /// Whether this mirror answers direct gets for its origin.
    pub mirror_direct: bool,
    /// A subject's own limit refuses new messages too.
    #[serde(skip_serializing_if = "is_false")]
    pub discard_new_per_subject: bool,
    /// Nothing comes in or goes out any more.
    pub sealed: bool,
    /// No message can be deleted.
    pub deny_delete: bool,
    /// Nothing can be purged.
    pub deny_purge: bool,
    /// `Nats-Rollup` is honoured.
    pub allow_rollup_hdrs: bool,
    /// What bounds the consumers.
    pub consumer_limits: ConsumerLimits,
    /// `Nats-TTL` is honoured.
    pub allow_msg_ttl: bool,
    /// How long the marker of a subject that has expired stays, nanoseconds; 0 for no markers.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub subject_delete_marker_ttl: i64,
    /// Every message is a counter's increment.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_msg_counter: bool,
    /// Atomic batches are taken.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_atomic: bool,
    /// Schedules are taken.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_msg_schedules: bool,
    /// What an acknowledgement waits for.
    #[serde(skip_serializing_if = "is_default")]
    pub persist_mode: PersistMode,
    /// Fast batches are taken.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_batched: bool,
    /// For people and tools.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub metadata: BTreeMap<String, String>,
}

/// Metadata of a stream that a backup is being restored into. No client can set it.
pub const RESTORING: &str = "_fulmar.restoring";

impl StreamConfig {
    /// Whether it copies another stream message by message.
    pub fn is_mirror(&self) -> bool {
        self.mirror.is_some()
    }

    /// Whether a backup is being restored into it.
    pub fn is_restoring(&self) -> bool {
        self.metadata.contains_key(RESTORING)
    }

    /// What the stream has while a backup is restored into it: nothing comes in and nothing is removed, while what messages ask for is noted as
    /// the configuration says. With the configuration itself all limits hold again.
    pub fn while_restoring(&self) -> StreamConfig {
        let mut c = self.clone();
        c.metadata.insert(RESTORING.to_owned(), "true".to_owned());
        c.subjects = Vec::new();
        (c.mirror, c.republish, c.subject_transform) = (None, None, None);
        (c.retention, c.discard) = (Retention::Limits, Discard::Old);
        (c.max_msgs, c.max_bytes, c.max_age, c.max_msgs_per_subject) = (-1, -1, 0, -1);
        (c.max_msg_size, c.max_consumers, c.first_seq) = (-1, -1, 0);
        (c.sealed, c.discard_new_per_subject, c.mirror_direct) = (false, false, false);
        (c.deny_delete, c.allow_rollup_hdrs) = (false, false);
        (c.allow_atomic, c.allow_batched, c.allow_msg_counter) = (false, false, false);
        (c.subject_delete_marker_ttl, c.persist_mode) = (0, PersistMode::Default);
        c
    }
}

impl Source {
    /// The name under which this source's position is kept: the stream (with a hash of where it is, and of the consumer), the
    /// filters and the destinations, with blanks between.
    pub fn index_name(&self) -> String {
        let mut name = self.name.clone();
        if let Some(e) = &self.external {
            name.push(':');
            name.push_str(&short_hash(&e.api));
        }
        if let Some(c) = &self.consumer {
            name.push_str(":C=");
            name.push_str(&short_hash(&c.name));
        }
        let or_all = |s: &str| if s.is_empty() { ">".to_owned() } else { s.to_owned() };
        if self.subject_transforms.is_empty() {
            return format!("{name} {} >", or_all(&self.filter_subject));
        }
        let join = |side: fn(&SubjectTransform) -> &String| {
            self.subject_transforms.iter().map(|t| or_all(side(t))).collect::<Vec<_>>().join("\x0c")
        };
        format!("{name} {} {}", join(|t| &t.src), join(|t| &t.dest))
    }
}

/// The short hash that names things in headers and consumer names: eight letters and digits out of SHA-256.
pub fn short_hash(text: &str) -> String {
    use sha2::{Digest, Sha256};
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    Sha256::digest(text.as_bytes()).iter().take(8).map(|b| char::from(DIGITS[usize::from(b % 62)])).collect()
}

pub(crate) fn is_false(b: &bool) -> bool {
    !*b
}
pub(crate) fn is_zero_i64(n: &i64) -> bool {
    *n == 0
}
pub(crate) fn is_zero_i32(n: &i32) -> bool {
    *n == 0
}
pub(crate) fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}
pub(crate) fn is_default<T: Default + PartialEq>(t: &T) -> bool {
    *t == T::default()
}

fn null_as_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}
