//! Permissions as configured or claimed, and as printed by `$SYS.REQ.USER.INFO`.

use std::fmt;

use serde::Serialize;

use super::pattern;
use super::set::{Entry, QueuePattern};

/// Lists of subjects. Empty lists are the same as absent ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SubjectPermission {
    /// What is allowed; empty: everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// What is denied, whatever `allow` says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// Leave to publish to the reply subject of a delivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ResponsePermission {
    /// Responses per delivered message; 0 means the default of 1, negative means no limit.
    #[serde(rename = "max")]
    pub max_messages: i64,
    /// Nanoseconds from delivery; 0 means the default of two minutes, negative means no limit.
    #[serde(rename = "ttl")]
    pub expires_ns: i64,
}

impl ResponsePermission {
    /// Responses allowed when nothing else is said.
    pub const DEFAULT_MAX_MESSAGES: i64 = 1;
    /// Time allowed when nothing else is said: two minutes.
    pub const DEFAULT_EXPIRES_NS: i64 = 120_000_000_000;

    pub(super) fn with_defaults(self) -> ResponsePermission {
        ResponsePermission {
            max_messages: match self.max_messages {
                0 => Self::DEFAULT_MAX_MESSAGES,
                n => n,
            },
            expires_ns: match self.expires_ns {
                0 => Self::DEFAULT_EXPIRES_NS,
                n => n,
            },
        }
    }
}

impl Default for ResponsePermission {
    fn default() -> Self {
        Self { max_messages: Self::DEFAULT_MAX_MESSAGES, expires_ns: Self::DEFAULT_EXPIRES_NS }
    }
}

/// What a user may publish and subscribe to. Serialises to the shape that USER.INFO shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PermissionsConfig {
    /// Subjects to publish to.
    pub publish: SubjectPermission,
    /// Subjects to subscribe to, each perhaps followed by a space and a queue.
    pub subscribe: SubjectPermission,
    /// `allow_responses`. Where it is set, an empty `publish.allow` means nothing instead of everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub responses: Option<ResponsePermission>,
}

/// Why a permission list was refused. The texts are those of nats-server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermissionError {
    /// Not a subject, or not a subject and a queue.
    Subject(String),
    /// The part after the subject is not a queue.
    Queue(String),
}

impl fmt::Display for PermissionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PermissionError::Subject(s) => write!(f, "subject {s:?} is not a valid subject"),
            PermissionError::Queue(q) => write!(f, "queue {q:?} is not a valid queue"),
        }
    }
}

impl std::error::Error for PermissionError {}

/// Reads a publish entry: a subject and nothing else.
pub(super) fn publish_entry(text: &str) -> Result<Entry, PermissionError> {
    if !pattern::is_valid(text.as_bytes()) {
        return Err(PermissionError::Subject(text.to_owned()));
    }
    Ok(Entry { subject: text.as_bytes().into(), queue: None })
}

/// Reads a subscribe entry, `subject` or `subject queue`; white space around them does not count.
pub(super) fn subscribe_entry(text: &str) -> Result<(Entry, String), PermissionError> {
    let mut fields = text.split_whitespace();
    let (subject, queue, more) = (fields.next().unwrap_or_default(), fields.next(), fields.next());
    if more.is_some() || !pattern::is_valid(subject.as_bytes()) {
        return Err(PermissionError::Subject(text.to_owned()));
    }
    let Some(queue) = queue else {
        return Ok((Entry { subject: subject.as_bytes().into(), queue: None }, subject.to_owned()));
    };
    if !pattern::is_valid(queue.as_bytes()) {
        return Err(PermissionError::Queue(queue.to_owned()));
    }
    let entry =
        Entry { subject: subject.as_bytes().into(), queue: Some(QueuePattern::new(queue.as_bytes())) };
    Ok((entry, format!("{subject} {queue}")))
}
