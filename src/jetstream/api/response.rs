//! What the API answers: the types, in the order and with the omissions of nats-server.
//!
//! Owns the shapes. The engine fills them with plain numbers; nothing here looks anything up.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stream::ApiError;

use super::kind::Kind;
use super::text;
use super::time::Time;
use super::{ConsumerConfig, External, Placement, StreamConfig, SubjectTransform};

/// What every answer begins with, and what follows it.
#[derive(Serialize)]
struct Answer<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ApiError>,
    #[serde(flatten)]
    body: T,
}

/// The JSON of an answer that is no error.
pub fn success<T: Serialize>(kind: Kind, body: &T) -> Bytes {
    text::to_bytes(&Answer { kind: kind.type_name(), error: None, body })
}

/// The JSON of an error. Some kinds of answers carry their empty fields even then.
pub fn failure(kind: Kind, error: &ApiError) -> Bytes {
    fn write<T: Serialize>(kind: Kind, error: &ApiError, body: T) -> Bytes {
        text::to_bytes(&Answer { kind: kind.type_name(), error: Some(error), body })
    }
    let page = Page::default();
    match kind {
        Kind::StreamNames => write(kind, error, StreamNames { page, streams: None }),
        Kind::StreamList => write(kind, error, StreamList { page, ..StreamList::default() }),
        Kind::StreamInfo => write(kind, error, page),
        Kind::ConsumerNames => write(kind, error, ConsumerNames { page, consumers: Vec::new() }),
        Kind::ConsumerList => write(kind, error, ConsumerList { page, ..ConsumerList::default() }),
        Kind::StreamPurge => write(kind, error, Purged { success: false, purged: 0 }),
        Kind::StreamRestore => write(kind, error, Restore { deliver_subject: String::new() }),
        Kind::ConsumerPause => write(kind, error, Paused::default()),
        Kind::ConsumerReset => write(kind, error, ResetSeq { reset_seq: 0 }),
        _ => write(kind, error, Empty {}),
    }
}

/// What the system account is told, which has no JetStream of its own, for any request but INFO.
pub fn system_failure() -> Bytes {
    let error = stream::errors::NOT_ENABLED_FOR_ACCOUNT.error();
    text::to_bytes(&Answer {
        kind: "io.nats.jetstream.api.v1.system_response",
        error: Some(&error),
        body: Empty {},
    })
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A count, of which the API would take negative ones too.
fn count<'de, D: serde::Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    Ok(usize::try_from(i64::deserialize(from)?).unwrap_or(0))
}

/// An answer that has nothing but its type: an unpinned group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Empty {}

/// The answer of a deletion, a step-down and the like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// Whether it was done.
    #[serde(default, skip_serializing_if = "is_default")]
    pub success: bool,
}

impl Done {
    /// It was done.
    pub const YES: Done = Done { success: true };
}

/// Which part of a list an answer has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Page {
    /// How many there are in all.
    pub total: usize,
    /// How many were left out before the first.
    pub offset: usize,
    /// The most that an answer can have.
    pub limit: usize,
}

/// Most names in one answer.
pub const NAMES_LIMIT: usize = 1024;
/// Most infos in one answer.
pub const LIST_LIMIT: usize = 256;
/// Most subjects in one stream info.
pub const SUBJECTS_LIMIT: usize = 100_000;

impl Page {
    /// The page of `total` things that starts at `offset`, and which of them it has.
    pub fn cut(total: usize, offset: usize, limit: usize) -> (Page, std::ops::Range<usize>) {
        let offset = offset.min(total);
        (Page { total, offset, limit }, offset..total.min(offset + limit))
    }
}

/// The answer to the account's INFO.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AccountInfo {
    /// The sum over all tiers, or all there is without tiers.
    #[serde(flatten)]
    pub total: Tier,
    /// The JetStream domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Requests so far.
    pub api: ApiStats,
    /// By the tier's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tiers: BTreeMap<String, Tier>,
}

/// What a tier of an account uses and may use.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tier {
    /// Bytes in memory streams.
    pub memory: u64,
    /// Bytes in file streams.
    pub storage: u64,
    /// Bytes promised to memory streams.
    pub reserved_memory: u64,
    /// Bytes promised to file streams.
    pub reserved_storage: u64,
    /// Streams.
    pub streams: usize,
    /// Consumers.
    pub consumers: usize,
    /// Limits.
    pub limits: AccountLimits,
}

/// Limits of an account; -1 is none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccountLimits {
    /// Bytes in memory streams.
    pub max_memory: i64,
    /// Bytes in file streams.
    pub max_storage: i64,
    /// Streams.
    pub max_streams: i64,
    /// Consumers of a stream.
    pub max_consumers: i64,
    /// Unacknowledged messages of a consumer.
    pub max_ack_pending: i64,
    /// Bytes of one memory stream.
    pub memory_max_stream_bytes: i64,
    /// Bytes of one file stream.
    pub storage_max_stream_bytes: i64,
    /// Whether each stream has to say its `max_bytes`.
    pub max_bytes_required: bool,
}

impl Default for AccountLimits {
    fn default() -> AccountLimits {
        AccountLimits {
            max_memory: -1,
            max_storage: -1,
            max_streams: -1,
            max_consumers: -1,
            max_ack_pending: -1,
            memory_max_stream_bytes: -1,
            storage_max_stream_bytes: -1,
            max_bytes_required: false,
        }
    }
}

/// Counts of API requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ApiStats {
    /// The level that is implemented: [`super::LEVEL`].
    pub level: u32,
    /// Requests answered.
    pub total: u64,
    /// Those of them answered by an error.
    pub errors: u64,
    /// Requests under way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub inflight: u64,
}

/// A stream as the API shows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StreamInfo {
    /// With the version metadata of [`super::metadata`], except in lists.
    pub config: StreamConfig,
    /// When it was made.
    pub created: Time,
    /// What it holds.
    pub state: StreamState,
    /// The JetStream domain. The answer to CREATE leaves it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Its group, in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInfo>,
    /// Where it mirrors from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<SourceInfo>,
    /// Where it sources from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceInfo>,
    /// Mirrors that could be read instead, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternates: Vec<Alternate>,
    /// When this was gathered.
    pub ts: Time,
}

/// What a stream holds.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamState {
    /// Live messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first live message, or `last_seq + 1`; 0 before the first message.
    pub first_seq: u64,
    /// When the first live message came; [`Time::ZERO`] if there is none.
    pub first_ts: Time,
    /// The last sequence given.
    pub last_seq: u64,
    /// When the last message came; [`Time::ZERO`] if none ever did.
    pub last_ts: Time,
    /// Subjects with live messages.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "count")]
    pub num_subjects: usize,
    /// Live messages by subject, if asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subjects: BTreeMap<String, u64>,
    /// Sequences between first and last that are gone.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "count")]
    pub num_deleted: usize,
    /// Those sequences, if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<u64>,
    /// Messages found damaged and not repairable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// Consumers.
    #[serde(deserialize_with = "count")]
    pub consumer_count: usize,
}

/// Messages lost to damage.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Lost {
    /// Their sequences.
    pub msgs: Option<Vec<u64>>,
    /// Their bytes.
    pub bytes: u64,
}

/// A mirror of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alternate {
    /// The stream.
    pub name: String,
    /// Its domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Its cluster.
    pub cluster: String,
}

/// How a mirror or source gets on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SourceInfo {
    /// The stream it reads.
    pub name: String,
    /// How it is reached, if not in this account and domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Messages still to read.
    pub lag: u64,
    /// The last sequence of that stream that was read; 0 if none was.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seq: u64,
    /// Nanoseconds since it was last heard of; -1 if never.
    pub active: i64,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
    /// The filter, if it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    /// Filters with their transforms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_transforms: Vec<SubjectTransform>,
}

/// The group of a stream or consumer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// The cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The group's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub raft_group: String,
    /// The leading server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub leader: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_since: Option<Time>,
    /// Whether its traffic goes through the system account.
    #[serde(default, skip_serializing_if = "is_default")]
    pub system_account: bool,
    /// Through which account its traffic goes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traffic_account: String,
    /// The other servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<PeerInfo>,
    /// Where it is going to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<Desired>,
}

/// A server of a group.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its name.
    pub name: String,
    /// Whether it has all and was seen lately.
    pub current: bool,
    /// Whether it was not seen lately.
    #[serde(default, skip_serializing_if = "is_default")]
    pub offline: bool,
    /// Nanoseconds since it was seen.
    pub active: i64,
    /// Entries it still needs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lag: u64,
    /// Its id.
    pub peer: String,
    /// Whether it has yet to join.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pending: bool,
}

/// Where a group is going to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Desired {
    /// The cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<PeerInfo>,
    /// What it was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<DesiredOrigin>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<DesiredStatus>,
}

/// What a group was before it began to change.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct DesiredOrigin {
    /// How many servers.
    pub replicas: usize,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The retention, as the configuration spells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
}

/// How far a change is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DesiredStatus {
    /// In words.
    pub description: String,
    /// What has to happen: meta, membership, snapshot, catchup, quorum, blocked or unavailable.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// A fault that does not go away by itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub err: String,
}

/// The answer to CREATE: a stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StreamCreated {
    /// The stream.
    #[serde(flatten)]
    pub info: StreamInfo,
    /// Whether this request made it (or found it as it was asked for).
    #[serde(default, skip_serializing_if = "is_default")]
    pub did_create: bool,
}

/// The answer to INFO: a stream and which part of its subjects is shown.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StreamInfoPage {
    /// All zero unless subjects were asked for and found.
    #[serde(flatten)]
    pub page: Page,
    /// The stream.
    #[serde(flatten)]
    pub info: StreamInfo,
}

/// Stream names.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StreamNames {
    /// Which.
    #[serde(flatten)]
    pub page: Page,
    /// In byte order; none (`null`) when there are none.
    pub streams: Option<Vec<String>>,
}

impl StreamNames {
    /// A page of all names, which are in order.
    pub fn page_of(all: Vec<String>, offset: usize, clustered: bool) -> StreamNames {
        let (page, range) = Page::cut(all.len(), offset, NAMES_LIMIT);
        // A page behind the last is `null` where nats-server is alone.
        let shown = clustered && !all.is_empty() || !range.is_empty();
        let streams = all.into_iter().skip(range.start).take(range.len()).collect();
        StreamNames { page, streams: shown.then_some(streams) }
    }
}

/// Streams.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StreamList {
    /// Which.
    #[serde(flatten)]
    pub page: Page,
    /// By name.
    pub streams: Vec<StreamInfo>,
    /// Those that did not answer or are offline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Why those that are offline are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub offline: BTreeMap<String, String>,
}

/// The answer to PURGE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Purged {
    /// Whether it was done.
    #[serde(default, skip_serializing_if = "is_default")]
    pub success: bool,
    /// How many messages are gone.
    pub purged: u64,
}

/// The answer to MSG.GET.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MsgGot {
    /// The message.
    pub message: StoredMessage,
}

/// A message in JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredMessage {
    /// Its subject.
    pub subject: String,
    /// Its number.
    pub seq: u64,
    /// Its header block in base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hdrs: String,
    /// Its payload in base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// When it came.
    pub time: Time,
}

impl StoredMessage {
    /// From what the stream stored; `no_headers` as the request says.
    pub fn new(message: &stream::Stored, no_headers: bool) -> StoredMessage {
        use base64::Engine as _;
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        StoredMessage {
            subject: String::from_utf8_lossy(&message.subject).into_owned(),
            seq: message.seq,
            hdrs: if no_headers { String::new() } else { encode(&message.headers) },
            data: encode(&message.payload),
            time: Time::from_nanos(message.time),
        }
    }
}

/// The answer to SNAPSHOT.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The stream's configuration.
    pub config: StreamConfig,
    /// What it holds.
    pub state: StreamState,
}

/// The first answer to RESTORE; the last one is a [`StreamCreated`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Restore {
    /// Where the chunks go.
    pub deliver_subject: String,
}

/// A consumer as the API shows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConsumerInfo {
    /// Its stream.
    pub stream_name: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Time,
    /// With the version metadata of [`super::metadata`], except in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConsumerConfig>,
    /// The last delivery.
    pub delivered: SequenceInfo,
    /// Up to where all is acknowledged.
    pub ack_floor: SequenceInfo,
    /// Delivered and not acknowledged.
    pub num_ack_pending: usize,
    /// Of them, delivered more than once.
    pub num_redelivered: usize,
    /// Pull requests that wait.
    pub num_waiting: usize,
    /// Messages not yet delivered.
    pub num_pending: u64,
    /// Its group, in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInfo>,
    /// Whether somebody listens on its deliver subject.
    #[serde(default, skip_serializing_if = "is_default")]
    pub push_bound: bool,
    /// Whether it is paused.
    #[serde(default, skip_serializing_if = "is_default")]
    pub paused: bool,
    /// Nanoseconds until it is not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pause_remaining: i64,
    /// When this was gathered.
    pub ts: Time,
    /// Its priority groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub priority_groups: Vec<PriorityGroup>,
}

/// A pair of sequences.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SequenceInfo {
    /// The consumer's count of deliveries.
    pub consumer_seq: u64,
    /// The stream's sequence.
    pub stream_seq: u64,
    /// When it last moved; none if it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_active: Option<Time>,
}

/// A priority group.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PriorityGroup {
    /// Its name.
    pub group: String,
    /// The pinned client.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pinned_client_id: String,
    /// Since when it is pinned; [`Time::ZERO`] if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_ts: Option<Time>,
}

/// Consumer names.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ConsumerNames {
    /// Which.
    #[serde(flatten)]
    pub page: Page,
    /// In byte order.
    pub consumers: Vec<String>,
}

impl ConsumerNames {
    /// A page of all names, which are in order.
    pub fn page_of(all: Vec<String>, offset: usize) -> ConsumerNames {
        let (page, range) = Page::cut(all.len(), offset, NAMES_LIMIT);
        ConsumerNames { page, consumers: all.into_iter().skip(range.start).take(range.len()).collect() }
    }
}

/// Consumers.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ConsumerList {
    /// Which.
    #[serde(flatten)]
    pub page: Page,
    /// By name.
    pub consumers: Vec<ConsumerInfo>,
    /// Those that did not answer or are offline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Why those that are offline are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub offline: BTreeMap<String, String>,
}

impl ConsumerList {
    /// A page of the names of consumers of which nothing else can be said; they are in order.
    pub fn missing(all: Vec<String>, offset: usize) -> ConsumerList {
        let (page, range) = Page::cut(all.len(), offset, LIST_LIMIT);
        let missing = all.into_iter().skip(range.start).take(range.len()).collect();
        ConsumerList { page, missing, ..ConsumerList::default() }
    }
}

/// The answer to PAUSE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Paused {
    /// Whether it is paused now.
    pub paused: bool,
    /// Until when, as the request had it; [`Time::ZERO`] for a resume.
    pub pause_until: Time,
    /// Nanoseconds until it is not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pause_remaining: i64,
}

impl Paused {
    /// The answer to a request to pause until `until`, at `now` (nanoseconds since 1970).
    pub fn new(until: Time, now: i64) -> Paused {
        let left = if until.is_zero() { 0 } else { until.nanos().saturating_sub(now).max(0) };
        Paused { paused: left > 0, pause_until: until, pause_remaining: left }
    }
}

/// The answer to RESET: the consumer and where it starts again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConsumerResetDone {
    /// The consumer.
    #[serde(flatten)]
    pub info: ConsumerInfo,
    /// The next sequence to deliver.
    #[serde(flatten)]
    pub seq: ResetSeq,
}

/// Where a consumer starts again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResetSeq {
    /// The sequence.
    pub reset_seq: u64,
}
