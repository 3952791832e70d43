//! What the server is told: the configuration file's and the command line's options as plain data.
//!
//! Owns every key's name, type, default and meaning, the refusal by name of what is not supported yet, the rules that
//! hold between options, the command line and the difference between two configurations. It opens no socket, reads no
//! file but through a [`conf::Source`], and starts nothing.
//!
//! Invariants
//! - OPT-1: no key is ignored: each is implemented, refused by name ([`refused::REFUSED`]) or unknown, and the last two
//!   are errors with a position.
//! - OPT-2: flags win over the file, at the start and at every reload.
//! - OPT-3: a secret never shows in the `Debug` text of options.

pub mod auth;
pub mod check;
pub mod flags;
mod help;
mod load;
pub(crate) mod names;
mod parse;
pub mod refused;
pub mod reload;
pub mod secret;
#[cfg(test)]
mod tests;
pub mod types;
pub mod url;

pub use auth::*;
pub use flags::{Command, Flags, SignalTarget, SignalWord};
pub use load::{Loaded, load, load_text, unsupported};
pub(crate) use reload::span;
pub use reload::{Change, diff};
pub use secret::Secret;
pub use types::*;
pub use url::ServerUrl;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The NATS version whose behaviour is implemented; INFO and `--version` state it.
pub const NATS_VERSION: &str = "2.15.1";
/// Where listeners bind when nothing else was said.
pub const DEFAULT_HOST: &str = "0.0.0.0";
/// The client port.
pub const DEFAULT_PORT: i32 = 4222;

/// All options of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The configuration file, as it was named.
    pub config_file: Option<String>,
    /// `sha256:…` of the configuration's values.
    pub config_digest: Option<String>,
    /// Address of the client listener.
    pub host: String,
    /// -1 for a random port.
    pub port: i32,
    /// `None` for the server's id.
    pub server_name: Option<String>,
    /// `host:port` told to clients and other servers.
    pub client_advertise: Option<String>,
    /// For placement of streams and filters of requests.
    pub server_tags: BTreeSet<String>,
    /// Free text by key.
    pub server_metadata: BTreeMap<String, String>,
    /// Behaviour switches; unknown ones are kept and logged.
    pub feature_flags: BTreeMap<String, bool>,
    /// Logging.
    pub log: LogOptions,
    /// Where the process id is written.
    pub pid_file: Option<String>,
    /// Folder of the file that lists the bound ports.
    pub ports_file_dir: Option<String>,
    /// Monitoring without TLS.
    pub http: Option<HttpOptions>,
    /// Monitoring with TLS.
    pub https: Option<HttpOptions>,
    /// Prefix of monitoring paths.
    pub http_base_path: String,
    /// Profiling listener; `None` off.
    pub prof_port: Option<i32>,
    /// Sampling of blocking events.
    pub prof_block_rate: i64,
    /// Client connections; `None` unlimited.
    pub max_connections: Option<usize>,
    /// Of a connection; `None` unlimited.
    pub max_subscriptions: Option<usize>,
    /// Tokens of a subscription's subject; `None` unlimited.
    pub max_subscription_tokens: Option<usize>,
    /// Bytes of a protocol line.
    pub max_control_line: usize,
    /// Bytes of a message with headers.
    pub max_payload: usize,
    /// Bytes that may wait for a connection before it counts as a slow consumer.
    pub max_pending: usize,
    /// Closed connections that monitoring remembers.
    pub max_closed_clients: usize,
    /// Between pings of an idle connection.
    pub ping_interval: Duration,
    /// Unanswered pings before a connection is closed.
    pub ping_max: u32,
    /// Longest stall of one write.
    pub write_deadline: Duration,
    /// What follows a missed write deadline.
    pub write_timeout: WriteTimeout,
    /// Time to authenticate.
    pub auth_timeout: Duration,
    /// How long lame duck mode takes to close all connections.
    pub lame_duck_duration: Duration,
    /// How long it waits before the first.
    pub lame_duck_grace_period: Duration,
    /// Fast publishers are not slowed down.
    pub no_fast_producer_stall: bool,
    /// Routing results are not cached.
    pub disable_sublist_cache: bool,
    /// Headers are not offered to clients.
    pub no_header_support: bool,
    /// The client port expects a PROXY header.
    pub proxy_protocol: bool,
    /// Every how many failed attempts a first connection to another server is logged.
    pub connect_error_reports: i64,
    /// The same for a connection that was lost.
    pub reconnect_error_reports: i64,
    /// TLS of the client listener.
    pub tls: Option<TlsOptions>,
    /// Clients without TLS are served too.
    pub allow_non_tls: bool,
    /// Who may connect.
    pub authorization: Authorization,
    /// The user of clients that show no credentials.
    pub no_auth_user: Option<String>,
    /// Accounts in the order of the file.
    pub accounts: Vec<AccountOptions>,
    /// Mappings of the global account.
    pub mappings: Vec<Mapping>,
    /// `None` for `$SYS`.
    pub system_account: Option<String>,
    /// There is none.
    pub no_system_account: bool,
    /// Public keys of trusted proxies.
    pub trusted_proxies: BTreeSet<String>,
    /// WebSocket listener; `None` off.
    pub websocket: Option<WebSocketOptions>,
    /// Cluster; `None` off.
    pub cluster: Option<ClusterOptions>,
    /// JetStream; `None` off.
    pub jetstream: Option<JetStreamOptions>,
    /// The domain that an account's JetStream requests go to.
    pub default_js_domain: BTreeMap<String, String>,
}

impl Options {
    /// All users, those of accounts included.
    pub fn users(&self) -> impl Iterator<Item = &UserOptions> {
        self.authorization.users.iter().chain(self.accounts.iter().flat_map(|a| &a.users))
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            config_file: None,
            config_digest: None,
            host: DEFAULT_HOST.to_string(),
            port: DEFAULT_PORT,
            server_name: None,
            client_advertise: None,
            server_tags: BTreeSet::new(),
            server_metadata: BTreeMap::new(),
            feature_flags: BTreeMap::new(),
            log: LogOptions::default(),
            pid_file: None,
            ports_file_dir: None,
            http: None,
            https: None,
            http_base_path: String::new(),
            prof_port: None,
            prof_block_rate: 0,
            max_connections: Some(64 * 1024),
            max_subscriptions: None,
            max_subscription_tokens: None,
            max_control_line: 4096,
            max_payload: 1 << 20,
            max_pending: 64 << 20,
            max_closed_clients: 10_000,
            ping_interval: Duration::from_secs(120),
            ping_max: 2,
            write_deadline: Duration::from_secs(10),
            write_timeout: WriteTimeout::Default,
            auth_timeout: Duration::from_secs(2),
            lame_duck_duration: Duration::from_secs(120),
            lame_duck_grace_period: Duration::from_secs(10),
            no_fast_producer_stall: false,
            disable_sublist_cache: false,
            no_header_support: false,
            proxy_protocol: false,
            connect_error_reports: 3600,
            reconnect_error_reports: 1,
            tls: None,
            allow_non_tls: false,
            authorization: Authorization::default(),
            no_auth_user: None,
            accounts: Vec::new(),
            mappings: Vec::new(),
            system_account: None,
            no_system_account: false,
            trusted_proxies: BTreeSet::new(),
            websocket: None,
            cluster: None,
            jetstream: None,
            default_js_domain: BTreeMap::new(),
        }
    }
}
