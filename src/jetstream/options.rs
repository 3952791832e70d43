//! What the engine is told by the server. Knows no configuration file.

use std::{path::PathBuf, time::Duration};

use broker::Link;
use store::Keys;

use crate::api::event::ClientInfo;

/// When the answer to a publish may leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// After the sync that covers it: nothing that was acknowledged is lost in a power failure.
    #[default]
    Durable,
    /// Once it is written; the disk is synced at this interval. Somebody has asked for it explicitly.
    Relaxed(Duration),
}

/// Limits of the whole server on single assets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AssetLimits {
    /// Of a consumer; `None` without limit.
    pub max_ack_pending: Option<i64>,
    /// Messages of one pull; `None` without limit.
    pub max_request_batch: Option<i64>,
    /// Assets with several replicas on this server; `None` without limit.
    pub max_ha_assets: Option<i64>,
    /// Longest duplicate window; `None` without limit.
    pub duplicate_window: Option<Duration>,
    /// Consumers of a stream that sets no limit.
    pub default_max_consumers: Option<i64>,
    /// Atomic batches in flight on one stream.
    pub batch_inflight_per_stream: usize,
    /// Atomic batches in flight on this server.
    pub batch_inflight: usize,
    /// Messages of one atomic batch.
    pub batch_messages: usize,
    /// Idle time after which a batch is abandoned.
    pub batch_timeout: Duration,
}

impl Default for AssetLimits {
    fn default() -> AssetLimits {
        AssetLimits {
            max_ack_pending: None,
            max_request_batch: None,
            max_ha_assets: None,
            duplicate_window: None,
            default_max_consumers: Some(1000),
            batch_inflight_per_stream: 50,
            batch_inflight: 1000,
            batch_messages: 1000,
            batch_timeout: Duration::from_secs(10),
        }
    }
}

/// What may change while it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tunable {
    /// Bytes of memory streams.
    pub memory_max: u64,
    /// Bytes of file streams.
    pub storage_max: u64,
    /// Limits on single assets.
    pub limits: AssetLimits,
}

/// How the engine runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The directory of its data. Made if it is missing.
    pub dir: PathBuf,
    /// Requests with unknown fields are refused rather than logged.
    pub strict: bool,
    /// The domain, if it has one.
    pub domain: Option<String>,
    /// When answers leave.
    pub durability: Durability,
    /// Keys of the encryption at rest: the first one seals, all open. None for none.
    pub keys: Keys,
    /// What it begins with of what may change. See [`crate::JetStream::tunable`].
    pub tunable: Tunable,
    /// Publishes to one stream that may wait to be stored.
    pub waiting_msgs_max: usize,
    /// Their bytes.
    pub waiting_bytes_max: usize,
    /// API requests that are worked on at a time; beyond it they are dropped and told in an advisory.
    pub requests_max: usize,
    /// Largest payload that a client may send, in bytes.
    pub payload_max: usize,
}

#[cfg(test)]
impl Options {
    /// What the engine's own tests run with.
    pub(crate) fn for_tests(dir: PathBuf) -> Options {
        Options {
            dir,
            strict: true,
            domain: None,
            durability: Durability::Durable,
            keys: Keys::default(),
            tunable: Tunable { memory_max: 1 << 30, storage_max: 1 << 40, limits: AssetLimits::default() },
            waiting_msgs_max: 10_000,
            waiting_bytes_max: 128 << 20,
            requests_max: 1000,
            payload_max: 1 << 20,
        }
    }
}

/// JetStream limits of an account. Negative is unlimited, as in the API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccountLimits {
    /// Bytes.
    pub max_memory: i64,
    /// Bytes.
    pub max_store: i64,
    /// Streams.
    pub max_streams: i64,
    /// Consumers of a stream.
    pub max_consumers: i64,
    /// Of a consumer.
    pub max_ack_pending: i64,
    /// Bytes of one memory stream.
    pub memory_max_stream_bytes: i64,
    /// Bytes of one file stream.
    pub store_max_stream_bytes: i64,
    /// Streams must set max_bytes.
    pub max_bytes_required: bool,
}

impl Default for AccountLimits {
    fn default() -> AccountLimits {
        AccountLimits {
            max_memory: -1,
            max_store: -1,
            max_streams: -1,
            max_consumers: -1,
            max_ack_pending: -1,
            memory_max_stream_bytes: -1,
            store_max_stream_bytes: -1,
            max_bytes_required: false,
        }
    }
}

/// The server around the engine.
pub trait Host: Send + Sync + 'static {
    /// The server's name.
    fn name(&self) -> String;
    /// The server's id.
    fn id(&self) -> String;
    /// The cluster's name; empty without one.
    fn cluster(&self) -> String;
    /// What advisories in `account` say of a client whose request, with this header block, has come there.
    fn client(&self, link: &Link, account: &str, headers: &[u8]) -> ClientInfo;
    /// The system account's name; empty without one.
    fn system_account(&self) -> String;
    /// A line for the log at level `INF`, `WRN` or `ERR`.
    fn log(&self, level: &'static str, text: &str);
}
