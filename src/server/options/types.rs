//! The options of the server's listeners and subsystems: plain data with nats-server's defaults.

use super::auth::SubjectPermission;
use super::secret::Secret;
use super::url::ServerUrl;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What happens to a connection whose write deadline passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteTimeout {
    /// Clients are closed, server links try again.
    #[default]
    Default,
    /// Closed.
    Close,
    /// Tried again.
    Retry,
}

/// An HTTP listener for monitoring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// The address to bind; the client listener's host when none was given.
    pub host: String,
    /// -1 for a random port.
    pub port: i32,
}

/// What is logged and where.
#[derive(Clone, Debug, PartialEq)]
pub struct LogOptions {
    /// Debug lines.
    pub debug: bool,
    /// Protocol lines.
    pub trace: bool,
    /// Protocol lines of the system account too; implies `trace`.
    pub trace_verbose: bool,
    /// Only headers of traced messages, not their payload.
    pub trace_headers: bool,
    /// Time stamps in lines.
    pub logtime: bool,
    /// Time stamps in UTC.
    pub logtime_utc: bool,
    /// The file to log to; standard error when absent.
    pub file: Option<String>,
    /// Bytes after which the file is rotated; 0 never.
    pub file_size_limit: i64,
    /// Rotated files to keep; 0 all.
    pub file_max_num: i64,
    /// Log to the local syslog.
    pub syslog: bool,
    /// Log to a syslog elsewhere, such as `udp://localhost:514`.
    pub remote_syslog: Option<String>,
    /// Bytes of a traced message that are shown; `None` all.
    pub max_traced_msg_len: Option<usize>,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            debug: false,
            trace: false,
            trace_verbose: false,
            trace_headers: false,
            logtime: true,
            logtime_utc: false,
            file: None,
            file_size_limit: 0,
            file_max_num: 0,
            syslog: false,
            remote_syslog: None,
            max_traced_msg_len: None,
        }
    }
}

/// The oldest TLS version that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    V12,
    /// 1.3.
    V13,
}

/// Whether a client must begin with a TLS handshake instead of waiting for INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HandshakeFirst {
    /// INFO comes first, then TLS.
    #[default]
    Off,
    /// TLS comes first, always.
    Always,
    /// The server waits this long for a TLS handshake and then sends INFO (`auto`: 50 ms).
    Fallback(Duration),
}

/// A certificate with its private key; both are paths of PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain.
    pub cert_file: String,
    /// The key.
    pub key_file: String,
}

/// A `tls` block.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsOptions {
    /// One or more certificates; several are chosen by SNI. Empty only on listeners that could still get one by flags.
    pub certificates: Vec<CertificateFiles>,
    /// Authorities for the other side's certificate.
    pub ca_file: Option<String>,
    /// The other side must show a certificate.
    pub verify: bool,
    /// The certificate's names choose the user; implies `verify`.
    pub verify_and_map: bool,
    /// The certificate's names must match a configured URL (cluster and gateway only); implies `verify`.
    pub verify_known_urls: bool,
    /// Solicited connections do not check the other side's certificate.
    pub insecure: bool,
    /// Time for the handshake.
    pub timeout: Duration,
    /// Names of cipher suites in order of preference; empty for the library's own choice.
    pub cipher_suites: Vec<String>,
    /// Names of key exchange groups; empty for the library's own choice.
    pub curve_preferences: Vec<String>,
    /// Suites with known weaknesses may be named.
    pub allow_insecure_cipher_suites: bool,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Lower-case hex SHA-256 of the public keys (SPKI) that are accepted; empty for any.
    pub pinned_certs: BTreeSet<String>,
    /// Handshakes per second; `None` unlimited.
    pub connection_rate_limit: Option<u32>,
    /// TLS before INFO.
    pub handshake_first: HandshakeFirst,
}

impl Default for TlsOptions {
    fn default() -> TlsOptions {
        TlsOptions {
            certificates: Vec::new(),
            ca_file: None,
            verify: false,
            verify_and_map: false,
            verify_known_urls: false,
            insecure: false,
            timeout: Duration::from_secs(2),
            cipher_suites: Vec::new(),
            curve_preferences: Vec::new(),
            allow_insecure_cipher_suites: false,
            min_version: TlsVersion::V12,
            pinned_certs: BTreeSet::new(),
            connection_rate_limit: None,
            handshake_first: HandshakeFirst::Off,
        }
    }
}

/// Credentials that one listener asks for instead of the server's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenerAuthorization {
    /// User name.
    pub user: Option<String>,
    /// Password, plain or bcrypt.
    pub password: Option<Secret>,
    /// Token, plain or bcrypt.
    pub token: Option<Secret>,
    /// Time to authenticate; `None` for the server's.
    pub timeout: Option<Duration>,
}

/// The `websocket` block.
#[derive(Clone, Debug, PartialEq)]
pub struct WebSocketOptions {
    /// Address to bind.
    pub host: String,
    /// -1 for a random port.
    pub port: i32,
    /// `host:port` told to clients.
    pub advertise: Option<String>,
    /// Plain HTTP is wanted; without it `tls` must be there.
    pub no_tls: bool,
    /// TLS of this listener.
    pub tls: Option<TlsOptions>,
    /// The Origin header must name this very host.
    pub same_origin: bool,
    /// Origins that are accepted; empty for any.
    pub allowed_origins: Vec<String>,
    /// Time for the upgrade.
    pub handshake_timeout: Duration,
    /// permessage-deflate may be negotiated.
    pub compression: bool,
    /// Own credentials.
    pub authorization: ListenerAuthorization,
    /// User of connections that show no credentials.
    pub no_auth_user: Option<String>,
    /// Cookie that carries a JWT.
    pub jwt_cookie: Option<String>,
    /// Cookie that carries a user name.
    pub user_cookie: Option<String>,
    /// Cookie that carries a password.
    pub pass_cookie: Option<String>,
    /// Cookie that carries a token.
    pub token_cookie: Option<String>,
    /// Further headers of the upgrade's answer.
    pub headers: BTreeMap<String, String>,
    /// Between pings; `None` for the server's.
    pub ping_interval: Option<Duration>,
}

impl Default for WebSocketOptions {
    fn default() -> WebSocketOptions {
        WebSocketOptions {
            host: super::DEFAULT_HOST.to_string(),
            port: 0,
            advertise: None,
            no_tls: false,
            tls: None,
            same_origin: false,
            allowed_origins: Vec::new(),
            handshake_timeout: Duration::from_secs(2),
            compression: false,
            authorization: ListenerAuthorization::default(),
            no_auth_user: None,
            jwt_cookie: None,
            user_cookie: None,
            pass_cookie: None,
            token_cookie: None,
            headers: BTreeMap::new(),
            ping_interval: None,
        }
    }
}

/// How a server link compresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Never.
    Off,
    /// When the other side asks for it.
    Accept,
    /// By the link's round trip time: below the first limit not, then fast, better, best. Zero skips a level.
    Auto(Vec<Duration>),
    /// Always fast.
    Fast,
    /// Always better.
    Better,
    /// Always best.
    Best,
}

/// What a server takes from and gives to its routes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutePermissions {
    /// Subjects that are taken.
    pub import: Option<SubjectPermission>,
    /// Subjects that are given.
    pub export: Option<SubjectPermission>,
}

/// The `cluster` block.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterOptions {
    /// The cluster's name; members agree on one when none was given.
    pub name: Option<String>,
    /// Address to bind.
    pub host: String,
    /// -1 for a random port, 0 for no listener.
    pub port: i32,
    /// Servers to connect to.
    pub routes: Vec<ServerUrl>,
    /// User that other members must name.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Time for a member to authenticate.
    pub auth_timeout: Duration,
    /// TLS between members.
    pub tls: Option<TlsOptions>,
    /// Subject filters.
    pub permissions: RoutePermissions,
    /// `host:port` told to other members.
    pub advertise: Option<String>,
    /// Clients are not told of the other members.
    pub no_advertise: bool,
    /// Attempts for routes learned by gossip; negative for no end.
    pub connect_retries: i64,
    /// The wait between attempts grows up to 30 s.
    pub connect_backoff: bool,
    /// Connections to each member; -1 for one shared by all accounts, as before nats-server 2.10.
    pub pool_size: i32,
    /// Accounts with an own connection.
    pub accounts: Vec<String>,
    /// Compression of links.
    pub compression: Compression,
    /// Between pings, at most 30 s; `None` for the default.
    pub ping_interval: Option<Duration>,
    /// Unanswered pings before a link is closed; `None` for the server's.
    pub ping_max: Option<u32>,
    /// `None` for the server's.
    pub write_deadline: Option<Duration>,
    /// What follows a missed write deadline.
    pub write_timeout: WriteTimeout,
}

impl Default for ClusterOptions {
    fn default() -> ClusterOptions {
        ClusterOptions {
            name: None,
            host: super::DEFAULT_HOST.to_string(),
            port: 0,
            routes: Vec::new(),
            user: None,
            password: None,
            auth_timeout: Duration::from_secs(2),
            tls: None,
            permissions: RoutePermissions::default(),
            advertise: None,
            no_advertise: false,
            connect_retries: 0,
            connect_backoff: false,
            pool_size: 3,
            accounts: Vec::new(),
            compression: Compression::Accept,
            ping_interval: None,
            ping_max: None,
            write_deadline: None,
            write_timeout: WriteTimeout::Default,
        }
    }
}

/// When file storage is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncInterval {
    /// Before every acknowledgement.
    Always,
    /// At this interval; acknowledgements do not wait for it.
    Every(Duration),
}

/// The cipher of stores at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreCipher {
    /// ChaCha20-Poly1305.
    #[default]
    ChaCha,
    /// AES-GCM.
    Aes,
}

/// `jetstream.limits`: server-wide limits of JetStream assets. `None` is nats-server's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JetStreamLimits {
    /// Of a consumer.
    pub max_ack_pending: Option<i64>,
    /// Replicated assets on this server.
    pub max_ha_assets: Option<i64>,
    /// Messages of one pull.
    pub max_request_batch: Option<i64>,
    /// Longest duplicate window of a stream.
    pub duplicate_window: Option<Duration>,
    /// Consumers of a stream that sets no limit (1000 in nats-server 2.15.1).
    pub default_max_consumers: Option<i64>,
    /// Atomic batches in flight on one stream.
    pub batch_max_inflight_per_stream: Option<i64>,
    /// Atomic batches in flight on this server.
    pub batch_max_inflight_total: Option<i64>,
    /// Messages of one atomic batch.
    pub batch_max_messages: Option<i64>,
    /// Idle time after which an atomic batch is abandoned.
    pub batch_timeout: Option<Duration>,
}

/// The `jetstream` block of a server on which JetStream is on.
#[derive(Clone, Debug, PartialEq)]
pub struct JetStreamOptions {
    /// Where data lives, in its subfolder `jetstream`; a temporary folder when absent.
    pub store_dir: Option<String>,
    /// API requests with unknown fields are refused.
    pub strict: bool,
    /// Bytes of memory storage; `None` for three quarters of the machine's.
    pub max_memory: Option<u64>,
    /// Bytes of file storage; `None` for three quarters of what is free.
    pub max_file: Option<u64>,
    /// `None` when not configured: acknowledgements are then durable (nats-server: 2 minutes).
    pub sync_interval: Option<SyncInterval>,
    /// The JetStream domain.
    pub domain: Option<String>,
    /// `will_extend` or `no_extend`.
    pub extension_hint: Option<String>,
    /// Prefix of server tags of which replicas must differ.
    pub unique_tag: Option<String>,
    /// Key of the encryption at rest.
    pub key: Option<Secret>,
    /// The key before it was changed.
    pub previous_key: Option<Secret>,
    /// Cipher of the encryption at rest.
    pub cipher: StoreCipher,
    /// Limits.
    pub limits: JetStreamLimits,
    /// Bytes that this server sends at once to replicas that catch up.
    pub max_outstanding_catchup: i64,
    /// Messages of a stream that may wait to be stored; 0 for the default.
    pub max_buffered_msgs: i64,
    /// Bytes of a stream that may wait to be stored; 0 for the default.
    pub max_buffered_size: i64,
    /// API requests that may wait.
    pub request_queue_limit: i64,
    /// API info requests that may wait.
    pub info_queue_limit: i64,
    /// Log entries of the meta group before a snapshot; 0 for the default.
    pub meta_compact: u64,
    /// Log bytes of the meta group before a snapshot; 0 for the default.
    pub meta_compact_size: u64,
    /// Snapshots of the meta group block it.
    pub meta_compact_sync: bool,
    /// Disk operations at once, 4 to 8192.
    pub max_concurrent_io: u32,
}

impl Default for JetStreamOptions {
    fn default() -> JetStreamOptions {
        JetStreamOptions {
            store_dir: None,
            strict: true,
            max_memory: None,
            max_file: None,
            sync_interval: None,
            domain: None,
            extension_hint: None,
            unique_tag: None,
            key: None,
            previous_key: None,
            cipher: StoreCipher::ChaCha,
            limits: JetStreamLimits::default(),
            max_outstanding_catchup: 64 << 20,
            max_buffered_msgs: 100_000,
            max_buffered_size: 128 << 20,
            request_queue_limit: 10_000,
            info_queue_limit: 10_000,
            meta_compact: 0,
            meta_compact_size: 0,
            meta_compact_sync: false,
            max_concurrent_io: 4096,
        }
    }
}
