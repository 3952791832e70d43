//! Users, permissions and accounts as the configuration states them. What they mean is the broker's and identity's.

use super::secret::Secret;
use std::collections::BTreeSet;
use std::time::Duration;

/// Which subjects are allowed and which denied; a denial wins. Entries of a subscribe list may be `subject queue`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectPermission {
    /// `None` allows everything, an empty list nothing.
    pub allow: Option<Vec<String>>,
    /// Exceptions.
    pub deny: Vec<String>,
}

/// Leave to answer: whoever receives a request may publish to its reply subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponsePermission {
    /// Answers per request; negative for no limit.
    pub max: i64,
    /// Time to answer, in nanoseconds; negative for no limit.
    pub expires_nanos: i64,
}

impl Default for ResponsePermission {
    fn default() -> ResponsePermission {
        ResponsePermission { max: 1, expires_nanos: 120_000_000_000 }
    }
}

/// What a user may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects to publish to; with `responses` and no allow list of its own it allows nothing else.
    pub publish: Option<SubjectPermission>,
    /// Subjects to subscribe to.
    pub subscribe: Option<SubjectPermission>,
    /// Leave to answer.
    pub responses: Option<ResponsePermission>,
}

/// A way to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionType {
    /// A client over TCP.
    Standard,
    /// A client over WebSocket.
    WebSocket,
    /// A leaf node.
    LeafNode,
    /// A leaf node over WebSocket.
    LeafNodeWs,
    /// An MQTT client.
    Mqtt,
    /// An MQTT client over WebSocket.
    MqttWs,
    /// A client within the process.
    InProcess,
}

impl ConnectionType {
    /// By its name in configurations and JWTs, without regard to case.
    pub fn from_name(name: &str) -> Option<ConnectionType> {
        Some(match name.to_ascii_uppercase().as_str() {
            "STANDARD" => ConnectionType::Standard,
            "WEBSOCKET" => ConnectionType::WebSocket,
            "LEAFNODE" => ConnectionType::LeafNode,
            "LEAFNODE_WS" => ConnectionType::LeafNodeWs,
            "MQTT" => ConnectionType::Mqtt,
            "MQTT_WS" => ConnectionType::MqttWs,
            "IN_PROCESS" => ConnectionType::InProcess,
            _ => return None,
        })
    }
}

/// How a user shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserIdentity {
    /// Name and password (plain or bcrypt). Without a password the user can only be mapped from a certificate or be
    /// the `no_auth_user`.
    Password {
        /// Unique in the server.
        user: String,
        /// Plain or bcrypt.
        password: Option<Secret>,
    },
    /// A public user key, unique in the server.
    Nkey(String),
}

impl UserIdentity {
    /// The user's name or public key.
    pub fn name(&self) -> &str {
        match self {
            UserIdentity::Password { user, .. } => user,
            UserIdentity::Nkey(key) => key,
        }
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserOptions {
    /// Who.
    pub identity: UserIdentity,
    /// Own permissions; `None` takes the defaults of the account or the authorization block.
    pub permissions: Option<Permissions>,
    /// Ways to connect; empty for any.
    pub connection_types: BTreeSet<ConnectionType>,
    /// Only through a trusted proxy.
    pub proxy_required: bool,
}

/// The `authorization` block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authorization {
    /// There is such a block, whatever it says.
    pub is_given: bool,
    /// The single user; excludes `token` and users.
    pub user: Option<String>,
    /// Its password, plain or bcrypt.
    pub password: Option<Secret>,
    /// The token, plain or bcrypt.
    pub token: Option<Secret>,
    /// Users of the global account.
    pub users: Vec<UserOptions>,
    /// For users of the global account without their own.
    pub default_permissions: Option<Permissions>,
    /// Only through a trusted proxy.
    pub proxy_required: bool,
}

/// One weighted destination of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingDestination {
    /// Subject or transform.
    pub subject: String,
    /// Percent, 0 to 100.
    pub weight: u8,
    /// Only in this cluster.
    pub cluster: Option<String>,
}

/// A subject mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// What is mapped.
    pub source: String,
    /// Where to.
    pub destinations: Vec<MappingDestination>,
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportKind {
    /// Messages flow to the importer.
    Stream,
    /// Requests flow to the exporter.
    Service,
}

/// How many answers a service gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseType {
    /// One.
    #[default]
    Singleton,
    /// Any number.
    Stream,
    /// One, in chunks that end with an empty message.
    Chunked,
}

/// Measured latencies of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyOptions {
    /// Percent of requests, 1 to 100; `None` for those with a trace header.
    pub sampling: Option<u8>,
    /// Where results go.
    pub subject: String,
}

/// An export of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Stream or service.
    pub kind: ExportKind,
    /// What is exported.
    pub subject: String,
    /// `None` public, else only for these accounts.
    pub accounts: Option<Vec<String>>,
    /// Token that holds the importer's account, from 1; 0 for none.
    pub account_token_position: u32,
    /// Services only.
    pub response: ResponseType,
    /// Services only; `None` for 2 minutes.
    pub response_threshold: Option<Duration>,
    /// Services only.
    pub latency: Option<LatencyOptions>,
    /// Message traces may pass; services only.
    pub allow_trace: bool,
}

/// An import of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Stream or service.
    pub kind: ExportKind,
    /// The exporter.
    pub account: String,
    /// What is imported.
    pub subject: String,
    /// The subject in this account; `None` keeps the exporter's.
    pub to: Option<String>,
    /// Put before the subject; streams only.
    pub prefix: Option<String>,
    /// The exporter learns who asks; services only.
    pub share: bool,
    /// Message traces may pass; streams only.
    pub allow_trace: bool,
}

/// Limits of an account; `None` or negative is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// Client connections.
    pub max_connections: Option<i64>,
    /// Subscriptions of a connection.
    pub max_subscriptions: Option<i64>,
    /// Bytes of a message.
    pub max_payload: Option<i64>,
    /// Leaf nodes.
    pub max_leafnodes: Option<i64>,
}

/// Which account pays for replication traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterTraffic {
    /// The system account.
    #[default]
    System,
    /// The account that owns the asset.
    Owner,
}

/// JetStream limits of an account; `None` is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountJetStream {
    /// Bytes.
    pub max_memory: Option<i64>,
    /// Bytes.
    pub max_store: Option<i64>,
    /// Streams.
    pub max_streams: Option<i64>,
    /// Consumers of a stream.
    pub max_consumers: Option<i64>,
    /// Streams must set max_bytes.
    pub max_bytes_required: bool,
    /// Bytes of one memory stream.
    pub memory_max_stream_bytes: Option<i64>,
    /// Bytes of one file stream.
    pub store_max_stream_bytes: Option<i64>,
    /// Of a consumer.
    pub max_ack_pending: Option<i64>,
    /// Who pays for replication.
    pub cluster_traffic: ClusterTraffic,
}

/// Where traces of messages go that ask for it by a foreign trace header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceDestination {
    /// A literal subject.
    pub subject: String,
    /// Percent, 1 to 100.
    pub sampling: u8,
}

/// An account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountOptions {
    /// Unique; `$G` is reserved.
    pub name: String,
    /// A public account key.
    pub nkey: Option<String>,
    /// Its users.
    pub users: Vec<UserOptions>,
    /// For users without their own permissions.
    pub default_permissions: Option<Permissions>,
    /// What others may import.
    pub exports: Vec<Export>,
    /// What it takes from others.
    pub imports: Vec<Import>,
    /// `None` when JetStream is off for it.
    pub jetstream: Option<AccountJetStream>,
    /// Mappings, in order.
    pub mappings: Vec<Mapping>,
    /// Limits.
    pub limits: AccountLimits,
    /// Message traces.
    pub trace: Option<TraceDestination>,
}
