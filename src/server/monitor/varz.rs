//! `/varz`: what the server is set to and what it has seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;

use super::{
    json::{Time, age, is_default},
    jsz::{self, JetStreamVarz},
    options::VarzOptions,
};
use crate::{
    Server,
    options::{self, ClusterOptions, NATS_VERSION, ServerUrl, TlsOptions, WebSocketOptions, WriteTimeout},
    settings,
};

/// The answer. Field names, order and omission are nats-server's; times with `_ns` meaning are in nanoseconds.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Varz {
    pub server_id: String,
    pub server_name: String,
    pub version: &'static str,
    pub proto: i64,
    pub go: String,
    pub host: String,
    pub port: u16,
    #[serde(skip_serializing_if = "is_default")]
    pub auth_required: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_required: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_verify: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub connect_urls: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub ws_connect_urls: Vec<String>,
    pub max_connections: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub max_subscriptions: usize,
    pub ping_interval: u64,
    pub ping_max: u32,
    pub http_host: String,
    pub http_port: i32,
    pub http_base_path: String,
    pub https_port: i32,
    pub auth_timeout: f64,
    pub max_control_line: usize,
    pub max_payload: usize,
    pub max_pending: usize,
    pub cluster: ClusterVarz,
    pub gateway: Nothing,
    pub leaf: Nothing,
    pub mqtt: Nothing,
    pub websocket: WebSocketVarz,
    pub jetstream: JetStreamVarz,
    pub tls_timeout: f64,
    pub write_deadline: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub write_timeout: &'static str,
    pub start: Time,
    pub now: Time,
    pub uptime: String,
    pub mem: u64,
    pub cores: usize,
    pub gomaxprocs: usize,
    pub cpu: f64,
    pub connections: usize,
    pub total_connections: u64,
    pub routes: usize,
    pub remotes: usize,
    pub leafnodes: usize,
    pub in_msgs: u64,
    pub in_bytes: u64,
    pub in_client_msgs: u64,
    pub in_client_bytes: u64,
    pub out_msgs: u64,
    pub out_bytes: u64,
    pub out_client_msgs: u64,
    pub out_client_bytes: u64,
    pub slow_consumers: u64,
    pub stale_connections: u64,
    pub stalled_clients: u64,
    pub subscriptions: usize,
    pub http_req_stats: BTreeMap<&'static str, u64>,
    pub config_load_time: Time,
    pub config_digest: String,
    #[serde(skip_serializing_if = "is_default")]
    pub tags: BTreeSet<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub metadata: BTreeMap<String, String>,
    pub feature_flags: BTreeMap<&'static str, bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub system_account: String,
    pub slow_consumer_stats: ByKind,
    pub stale_connection_stats: ByKind,
    pub disk_io_wait_stats: DiskIoWaits,
}

/// A listener that is off.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Nothing {}

/// A count for each kind of connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct ByKind {
    pub clients: u64,
    pub routes: u64,
    pub gateways: u64,
    pub leafs: u64,
}

/// Disk operations that had to wait for their turn. None do as long as nothing is stored.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct DiskIoWaits {
    pub waiters: u64,
    pub waits: u64,
    pub wait_time: u64,
    pub max_wait_time: u64,
}

/// The `cluster` block.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct ClusterVarz {
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub addr: String,
    #[serde(skip_serializing_if = "is_default")]
    pub cluster_port: i32,
    #[serde(skip_serializing_if = "is_default")]
    pub auth_timeout: f64,
    #[serde(skip_serializing_if = "is_default")]
    pub urls: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_timeout: f64,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_required: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_verify: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub pool_size: i32,
    #[serde(skip_serializing_if = "is_default")]
    pub write_deadline: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub write_timeout: &'static str,
}

/// The `websocket` block.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct WebSocketVarz {
    #[serde(skip_serializing_if = "is_default")]
    pub host: String,
    #[serde(skip_serializing_if = "is_default")]
    pub port: i32,
    #[serde(skip_serializing_if = "is_default")]
    pub advertise: String,
    #[serde(skip_serializing_if = "is_default")]
    pub no_auth_user: String,
    #[serde(skip_serializing_if = "is_default")]
    pub jwt_cookie: String,
    #[serde(skip_serializing_if = "is_default")]
    pub handshake_timeout: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub auth_timeout: f64,
    #[serde(skip_serializing_if = "is_default")]
    pub no_tls: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_map: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_pinned_certs: BTreeSet<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub same_origin: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub allowed_origins: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub compression: bool,
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

fn host_port(u: &ServerUrl) -> String {
    let host = if u.host.contains(':') { format!("[{}]", u.host) } else { u.host.clone() };
    u.port.map_or_else(|| host.clone(), |p| format!("{host}:{p}"))
}

fn write_timeout(w: WriteTimeout) -> &'static str {
    match w {
        WriteTimeout::Default => "",
        WriteTimeout::Close => "close",
        WriteTimeout::Retry => "retry",
    }
}

fn tls_timeout(t: &Option<TlsOptions>) -> f64 {
    t.as_ref().map(|t| t.timeout).unwrap_or(Duration::from_secs(2)).as_secs_f64()
}

impl ClusterVarz {
    fn new(c: &ClusterOptions, s: &Server) -> ClusterVarz {
        ClusterVarz {
            name: match s.cluster.name() {
                name if name.is_empty() => c.name.clone().unwrap_or_default(),
                name => name,
            },
            addr: c.host.clone(),
            cluster_port: s.bound.lock().cluster.map_or(c.port, |a| i32::from(a.port())),
            auth_timeout: c.auth_timeout.as_secs_f64(),
            urls: c.routes.iter().map(host_port).collect(),
            tls_timeout: tls_timeout(&c.tls),
            tls_required: c.tls.is_some(),
            tls_verify: c.tls.as_ref().is_some_and(|t| t.verify),
            pool_size: c.pool_size,
            write_deadline: c.write_deadline.map_or(0, nanos),
            write_timeout: write_timeout(c.write_timeout),
        }
    }
}

impl WebSocketVarz {
    fn new(w: &WebSocketOptions, bound: Option<u16>) -> WebSocketVarz {
        WebSocketVarz {
            host: w.host.clone(),
            port: bound.map_or(w.port, i32::from),
            advertise: w.advertise.clone().unwrap_or_default(),
            no_auth_user: w.no_auth_user.clone().unwrap_or_default(),
            jwt_cookie: w.jwt_cookie.clone().unwrap_or_default(),
            handshake_timeout: nanos(w.handshake_timeout),
            auth_timeout: w.authorization.timeout.unwrap_or_default().as_secs_f64(),
            no_tls: w.no_tls,
            tls_map: w.tls.as_ref().is_some_and(|t| t.verify_and_map),
            tls_pinned_certs: w.tls.as_ref().map(|t| t.pinned_certs.clone()).unwrap_or_default(),
            same_origin: w.same_origin,
            allowed_origins: w.allowed_origins.clone(),
            compression: w.compression,
        }
    }
}

/// Host and port that clients are told, if they are others than those of the listener.
fn advertised(o: &options::Options) -> Option<(String, u16)> {
    let text = o.client_advertise.as_ref()?;
    let (host, port) = match text.rsplit_once(':') {
        Some((h, p)) if !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) => (h, p.parse().ok()),
        _ => (&**text, None),
    };
    let port = port.filter(|&p| p != 0).or_else(|| u16::try_from(o.port).ok())?;
    Some((host.trim_matches(['[', ']']).to_string(), port))
}

/// Connections that were closed for not reading and for not answering, with the names that `/varz` and the statistics have for them.
pub fn by_kind(stats: &broker::Stats) -> [(&'static str, ByKind); 2] {
    let kinds = |clients: &broker::Counter, routes: &broker::Counter| ByKind {
        clients: clients.get(),
        routes: routes.get(),
        ..ByKind::default()
    };
    [
        ("slow_consumer_stats", kinds(&stats.slow_consumers, &stats.slow_routes)),
        ("stale_connection_stats", kinds(&stats.stale, &stats.stale_routes)),
    ]
}

/// What the server is set to and what it has seen.
pub fn varz(s: &Server, _: &VarzOptions) -> Varz {
    let o = s.options();
    let info = &s.links.settings().info;
    let bound = *s.bound.lock();
    let (host, port) = advertised(&o).unwrap_or_else(|| (info.host.clone(), info.port));
    let http = o.http.as_ref().or(o.https.as_ref());
    let stats = &s.broker.stats;
    let now = env::wall();
    let [slow, stale] = by_kind(stats).map(|(_, n)| n);
    let (routes, remotes) = s.cluster.mesh.as_ref().map(|m| m.counts()).unwrap_or_default();
    // Counters are read one after another, and may move in between.
    let less = |all: u64, part: &broker::Counter| all.saturating_sub(part.get());
    let (in_msgs, in_bytes) = (stats.in_msgs.get(), stats.in_bytes.get());
    let (out_msgs, out_bytes) = (stats.out_msgs.get(), stats.out_bytes.get());
    Varz {
        server_id: s.id().to_string(),
        server_name: s.name.clone(),
        version: NATS_VERSION,
        proto: 1,
        go: info.go.clone(),
        host,
        port,
        auth_required: s.links.settings().authenticator.is_required(),
        tls_required: o.tls.is_some(),
        tls_verify: o.tls.as_ref().is_some_and(|t| t.verify),
        connect_urls: info.connect_urls.clone(),
        ws_connect_urls: info.ws_connect_urls.clone(),
        max_connections: o.max_connections.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)),
        max_subscriptions: o.max_subscriptions.unwrap_or(0),
        ping_interval: nanos(o.ping_interval),
        ping_max: o.ping_max,
        http_host: http.map(|h| h.host.clone()).unwrap_or_else(|| o.host.clone()),
        http_port: bound.http.map_or(0, |a| i32::from(a.port())),
        http_base_path: o.http_base_path.clone(),
        https_port: bound.https.map_or(0, |a| i32::from(a.port())),
        auth_timeout: o.auth_timeout.as_secs_f64(),
        max_control_line: o.max_control_line,
        max_payload: o.max_payload,
        max_pending: o.max_pending,
        cluster: o.cluster.as_ref().map(|c| ClusterVarz::new(c, s)).unwrap_or_default(),
        gateway: Nothing {},
        leaf: Nothing {},
        mqtt: Nothing {},
        websocket: o
            .websocket
            .as_ref()
            .map(|w| WebSocketVarz::new(w, bound.websocket.map(|a| a.port())))
            .unwrap_or_default(),
        jetstream: jsz::in_varz(s),
        tls_timeout: tls_timeout(&o.tls),
        write_deadline: nanos(o.write_deadline),
        write_timeout: write_timeout(o.write_timeout),
        start: Time(s.start),
        now: Time(now),
        uptime: age(s.started.elapsed()),
        mem: env::process::rss_bytes(),
        cores: env::Workers::cores(),
        gomaxprocs: s.workers(),
        cpu: s.monitor.cpu_percent(),
        connections: s.links.clients.len(),
        total_connections: stats.connections_total.get(),
        routes,
        remotes,
        leafnodes: 0,
        in_msgs,
        in_bytes,
        in_client_msgs: less(in_msgs, &stats.route_in_msgs),
        in_client_bytes: less(in_bytes, &stats.route_in_bytes),
        out_msgs,
        out_bytes,
        out_client_msgs: less(out_msgs, &stats.route_out_msgs),
        out_client_bytes: less(out_bytes, &stats.route_out_bytes),
        slow_consumers: stats.slow_consumers.get(),
        stale_connections: stats.stale.get(),
        stalled_clients: stats.stalled.get(),
        subscriptions: s.broker.subscriptions(),
        http_req_stats: s.monitor.requests(),
        config_load_time: Time(*s.config_time.lock()),
        config_digest: o.config_digest.clone().unwrap_or_default(),
        tags: o.server_tags.clone(),
        metadata: o.server_metadata.clone(),
        feature_flags: crate::events::feature_flags(&o).collect(),
        system_account: settings::system_account(&o).unwrap_or_default(),
        slow_consumer_stats: slow,
        stale_connection_stats: stale,
        disk_io_wait_stats: DiskIoWaits::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn advertised_addresses() {
        let at = |text: &str| {
            advertised(&Options { client_advertise: Some(text.into()), port: 4222, ..Options::default() })
        };
        assert_eq!(at("1.2.3.4:55"), Some(("1.2.3.4".into(), 55)));
        assert_eq!(at("host"), Some(("host".into(), 4222)));
        assert_eq!(at("[::1]:7"), Some(("::1".into(), 7)));
        assert_eq!(advertised(&Options::default()), None);
    }
}
