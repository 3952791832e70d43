//! Routes: the connections between the servers of a cluster.
//!
//! Every member has a connection to every other: the mesh. A member is told of some others by its configuration and learns
//! of the rest from them (gossip). Between two members there are several connections, the pool: an account goes by the one
//! that its name falls on, or by one of its own. docs/design/0019-routes.md says why it is so.
//!
//! Start reading at [`Mesh`] (who is a member, which connection stays), then `conn` (one connection), then `dial` (who opens
//! connections). What is told over them is the broker's (`broker::routes`), how it is written is `wire::route`'s.
//!
//! Invariants:
//! * between two servers at most one connection has a place in the pool, or an account; both ends keep the same one.
//! * no server is a member that has our id, our name, or another cluster's name.
//! * nothing but CONNECT, INFO and pings is done for a connection that has no place yet.
//! * the first server that is named on a connection is the one at its end.

mod conn;
mod dial;
mod mesh;
mod terms;
mod url;

use std::{sync::Arc, time::Duration};

use identity::{Authenticator, Permissions};
use wire::route::info::{RouteInfo, Subjects};

use crate::TlsSettings;

pub use conn::listen;
pub use mesh::{Member, Mesh, MeshOptions, Route, Slot};
pub use terms::{Certificates, Compression, Level};
pub use url::RouteUrl;

/// TLS between members.
#[derive(Clone)]
pub struct RouteTls {
    /// Towards those who connect to us.
    pub server: Arc<TlsSettings>,
    /// Towards those whom we connect to.
    pub client: Arc<rustls::ClientConfig>,
}

/// What a reload may change.
#[derive(Clone)]
pub struct RouteSettings {
    /// The INFO of this server, without what belongs to one connection and without the cluster's name.
    pub info: RouteInfo,
    /// Servers to connect to.
    pub urls: Vec<RouteUrl>,
    /// Who may connect; if it asks for nothing, everybody.
    pub authenticator: Arc<Authenticator>,
    /// Who may connect by certificate; passwords do not count then.
    pub certificates: Option<Arc<Certificates>>,
    /// Whether connections are compressed. Connections that are open stay as they are.
    pub compression: Compression,
    /// User and password to show to servers that are known by gossip.
    pub credentials: Option<(String, identity::Secret)>,
    /// Time to authenticate.
    pub auth_timeout: Duration,
    /// TLS, if routes speak it.
    pub tls: Option<RouteTls>,
    /// Connections to each member that accounts share; 0 for a single one for everything, as before nats-server 2.10.
    pub pool_size: u32,
    /// Accounts with connections of their own.
    pub pinned: Arc<[Arc<str>]>,
    /// Publish: what is taken from routes. Subscribe: what is given to them.
    pub permissions: Option<Arc<Permissions>>,
    /// Idle time after which a PING is sent.
    pub ping_interval: Duration,
    /// Unanswered PINGs after which a connection is stale.
    pub pings_out_max: u32,
    /// How long a socket may take nothing.
    pub write_deadline: Duration,
    /// A missed write deadline closes the connection; otherwise it is only counted, and pings tell whether the other end lives.
    pub close_on_write_deadline: bool,
    /// Longest line in bytes.
    pub control_line_bytes_max: usize,
    /// Largest outbox in bytes.
    pub pending_bytes_max: usize,
    /// Attempts at a server that is known by gossip, at least.
    pub connect_retries: u32,
    /// The wait between attempts grows.
    pub connect_backoff: bool,
    /// Every so many failed attempts one is an error in the log, before the first success.
    pub connect_error_reports: u32,
    /// The same after it.
    pub reconnect_error_reports: u32,
    /// Clients are told of the other members.
    pub advertise: bool,
}

impl RouteSettings {
    /// What may pass from other servers, and to them.
    pub(crate) fn passes(&self) -> (&Option<Subjects>, &Option<Subjects>) {
        (&self.info.import, &self.info.export)
    }
    /// Whether whoever could come in under `before` can under these.
    pub(crate) fn admit_all_of(&self, before: &RouteSettings) -> bool {
        match (&self.certificates, &before.certificates) {
            (Some(now), Some(before)) => now.admit_all_of(before),
            (Some(_), None) => false,
            _ if !self.authenticator.is_required() => true,
            (None, Some(_)) => false,
            (None, None) => self.credentials == before.credentials,
        }
    }
}

/// What the server wants to hear. Calls are short and do not block.
pub trait RouteHooks: Send + Sync {
    /// Something to be noted in the log.
    fn log(&self, level: &'static str, text: &str);
    /// Members or their addresses for clients, or the cluster's name, have changed.
    fn changed(&self);
}
