//! The JSON objects that open a route. Unknown fields are ignored, absent ones have Go's zero values.

use serde::{Deserialize, Serialize};

fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

/// Subjects that are allowed and denied.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Subjects {
    /// If empty, all that are not denied.
    #[serde(skip_serializing_if = "is_default")]
    pub allow: Vec<String>,
    /// Never, whatever is allowed.
    #[serde(skip_serializing_if = "is_default")]
    pub deny: Vec<String>,
}

/// What a server says of itself to another of its cluster. Field order is that of nats-server's text.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteInfo {
    /// Public nkey of the server.
    pub server_id: String,
    /// Configured name, or the id.
    pub server_name: String,
    /// The NATS version whose behaviour is implemented.
    pub version: String,
    /// 3 in nats-server 2.11 and later.
    pub proto: u32,
    /// The language runtime.
    pub go: String,
    /// Listening host of the cluster port.
    pub host: String,
    /// Its port; wide, so that nonsense is read and then judged.
    pub port: i64,
    /// Whether headers are supported.
    pub headers: bool,
    /// Whether CONNECT must carry credentials.
    #[serde(skip_serializing_if = "is_default")]
    pub auth_required: bool,
    /// Whether the route speaks TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub tls_required: bool,
    /// Whether certificates of members are checked.
    #[serde(skip_serializing_if = "is_default")]
    pub tls_verify: bool,
    /// Largest message of its clients, in bytes.
    pub max_payload: i64,
    /// Whether its JetStream takes part in the cluster.
    #[serde(skip_serializing_if = "is_default")]
    pub jetstream: bool,
    /// Where members reach it: `nats-route://host:port/`. Set if advertised otherwise than it listens, and in gossip.
    #[serde(skip_serializing_if = "is_default")]
    pub ip: String,
    /// Random text.
    #[serde(skip_serializing_if = "is_default")]
    pub nonce: String,
    /// Cluster name.
    #[serde(skip_serializing_if = "is_default")]
    pub cluster: String,
    /// Whether that name was made up.
    #[serde(skip_serializing_if = "is_default")]
    pub cluster_dynamic: bool,
    /// JetStream domain.
    #[serde(skip_serializing_if = "is_default")]
    pub domain: String,
    /// Addresses for its clients.
    #[serde(skip_serializing_if = "is_default")]
    pub connect_urls: Vec<String>,
    /// The same for WebSocket.
    #[serde(skip_serializing_if = "is_default")]
    pub ws_connect_urls: Vec<String>,
    /// It is a lame duck.
    #[serde(skip_serializing_if = "is_default")]
    pub ldm: bool,
    /// How the route is compressed.
    #[serde(skip_serializing_if = "is_default")]
    pub compression: String,
    /// What it takes from routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import: Option<Subjects>,
    /// What it gives to routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<Subjects>,
    /// Name of a gateway that is gossiped about; such an INFO is not about a route.
    #[serde(skip_serializing_if = "is_default")]
    pub gateway: String,
    /// Connections that it wants with each other member; 0 or absent for one without a number.
    #[serde(skip_serializing_if = "is_default")]
    pub route_pool_size: i64,
    /// The number of this connection among them.
    #[serde(skip_serializing_if = "is_default")]
    pub route_pool_idx: i64,
    /// The account to which this connection belongs.
    #[serde(skip_serializing_if = "is_default")]
    pub route_account: String,
    /// 1: whoever learns of the server by this INFO need not tell others.
    #[serde(skip_serializing_if = "is_default")]
    pub gossip_mode: u32,
    /// Fulmar's own version; other servers leave it out.
    #[serde(skip_serializing_if = "is_default")]
    pub fulmar: String,
    /// Its node id, sixteen hexadecimal digits, if it takes links of other Fulmar nodes on this port ([`crate::peer`]).
    #[serde(skip_serializing_if = "is_default")]
    pub fulmar_node: String,
    /// The newest version of such links that it speaks.
    #[serde(skip_serializing_if = "is_default")]
    pub fulmar_peer: u32,
}

impl RouteInfo {
    /// Appends `INFO {…}\r\n`.
    pub fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"INFO ");
        serde_json::to_writer(&mut *out, self).expect("an INFO has no map with keys that are no strings");
        out.extend_from_slice(b" \r\n");
    }
    /// Reads the JSON text of an INFO; nulls are as good as absent.
    pub fn parse(json: &[u8]) -> Result<RouteInfo, serde_json::Error> {
        read(json)
    }
}

fn read<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    use serde_json::{Map, Value};
    let mut fields: Map<String, Value> = serde_json::from_slice(json)?;
    fields.retain(|_, v| !v.is_null());
    serde_json::from_value(Value::Object(fields))
}

/// What the server that opens a route says first.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteConnect {
    /// Always true.
    pub echo: bool,
    /// Always false.
    pub verbose: bool,
    /// Always false.
    pub pedantic: bool,
    /// User name of the cluster.
    #[serde(skip_serializing_if = "is_default")]
    pub user: String,
    /// Its password.
    #[serde(skip_serializing_if = "is_default")]
    pub pass: String,
    /// Whether the route speaks TLS.
    pub tls_required: bool,
    /// Whether it takes headers.
    pub headers: bool,
    /// The server's id.
    pub name: String,
    /// Cluster name.
    pub cluster: String,
    /// Whether that name was made up.
    #[serde(skip_serializing_if = "is_default")]
    pub cluster_dynamic: bool,
    /// Set by clients alone, who are on the wrong port then.
    #[serde(skip_serializing_if = "is_default")]
    pub lang: String,
    /// Set by gateways alone, who are on the wrong port then.
    #[serde(skip_serializing_if = "is_default")]
    pub gateway: String,
}

impl RouteConnect {
    /// Appends `CONNECT {…}\r\n`.
    pub fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"CONNECT ");
        serde_json::to_writer(&mut *out, self).expect("a CONNECT has no map with keys that are no strings");
        out.extend_from_slice(b"\r\n");
    }
    /// Reads the JSON text of a CONNECT; nulls are as good as absent.
    pub fn parse(json: &[u8]) -> Result<RouteConnect, serde_json::Error> {
        read(json)
    }
}

/// Secrets stay out of logs.
impl std::fmt::Debug for RouteConnect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteConnect")
            .field("user", &self.user)
            .field("name", &self.name)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// The number of the connection that carries an account, of `pool` connections: FNV-1a over its name.
pub fn pool_index(account: &[u8], pool: u32) -> u32 {
    let hash = account.iter().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    hash % pool.max(1)
}
