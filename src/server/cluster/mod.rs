//! The server as a member of a cluster: from options to what `links::route` wants to be told, the listener, and what clients
//! are told of the other members.
//!
//! Owns no rule of the mesh: `links::route` does. Knows no interest: `broker::routes` does.

pub mod peers;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering::*},
    },
    time::Duration,
};

use identity::{AuthConfig, Authenticator, ListenerConfig, Permissions, PermissionsConfig, SingleUser};
use links::route::{Certificates, Mesh, MeshOptions, RouteHooks, RouteSettings, RouteTls, RouteUrl};
use tokio::sync::Notify;
use wire::{
    info::Info,
    route::info::{RouteInfo, Subjects},
};

use crate::{
    Server, StartError,
    log::Log,
    options::{self, ClusterOptions, Compression, NATS_VERSION, Options, ServerUrl, WriteTimeout},
    settings,
    start::VERSION,
};

/// The port of a route's URL that names none.
const DEFAULT_PORT: i32 = 6222;
/// A server's line may be that much longer than a client's.
const LINE_FACTOR: usize = 16;
/// A route's outbox may be that much larger than a client's: closing a route is dear, and publishers are held back first.
const PENDING_FACTOR: usize = 2;
/// The longest time between pings.
const PING_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// What routes tell the server. It is made after them, so it is filled in later.
struct Hooks {
    server: Arc<OnceLock<Weak<Server>>>,
    log: Arc<Log>,
}

impl RouteHooks for Hooks {
    fn log(&self, level: &'static str, text: &str) {
        let wanted = match level {
            "DBG" => self.log.debugs(),
            "TRC" => self.log.traces(),
            _ => true,
        };
        if wanted {
            self.log.line(level, format_args!("{text}"));
        }
    }
    fn changed(&self) {
        if let Some(s) = self.server.get().and_then(Weak::upgrade) {
            s.cluster.changed.notify_one();
        }
    }
}

/// Whether there has been another member that takes clients.
#[derive(Default)]
struct Met {
    clients: AtomicBool,
    websocket: AtomicBool,
}

/// What the server has as a member of a cluster.
#[derive(Default)]
pub struct Cluster {
    /// The mesh, if this server is a member of one.
    pub mesh: Option<Arc<Mesh>>,
    /// Links to the other Fulmar nodes.
    pub peers: Arc<peers::Port>,
    /// What clients are told of the members has changed.
    changed: Notify,
    /// There has been another member: from then on clients are told of this one too.
    met: Met,
}

impl Cluster {
    /// The cluster's name; empty outside of clusters.
    pub fn name(&self) -> String {
        self.mesh.as_ref().map(|m| m.name()).unwrap_or_default()
    }
}

/// Whether these options make the server a member of a cluster.
pub fn is_on(o: &Options) -> bool {
    o.cluster.as_ref().is_some_and(|c| c.port != 0)
}

/// What [`make`] needs of the server that is being made.
pub struct Parts<'a> {
    pub broker: &'a Arc<broker::Broker>,
    pub id: &'a str,
    pub name: &'a str,
    pub log: &'a Arc<Log>,
    pub workers: Vec<env::Worker>,
    pub hooks: Arc<OnceLock<Weak<Server>>>,
}

/// Makes the mesh, which has no connections yet. Before the broker has accounts.
///
/// # Errors
/// A sentence about the options.
pub fn make(o: &Options, p: Parts<'_>) -> Result<Cluster, String> {
    // Tokens of reply subjects must differ between members.
    let token: String = p.id.chars().rev().take(8).collect();
    p.broker.set_reply_token(&token);
    let Some(c) = o.cluster.as_ref().filter(|_| is_on(o)) else { return Ok(Cluster::default()) };
    p.broker.enable_routes();
    let settings = route_settings(o, c, p.id, p.name, None, None, None)?;
    let mesh = Mesh::new(MeshOptions {
        broker: p.broker.clone(),
        id: p.id.to_owned(),
        server_name: p.name.to_owned(),
        cluster: c.name.clone(),
        hooks: Box::new(Hooks { server: p.hooks, log: p.log.clone() }),
        workers: p.workers,
        settings,
    });
    Ok(Cluster { mesh: Some(mesh), ..Cluster::default() })
}

/// Binds the listener, accepts members, and connects to those of the configuration. After the client port is bound.
pub async fn listen(server: &Arc<Server>, o: &Options) -> Result<(), StartError> {
    let (Some(mesh), Some(c)) = (server.cluster.mesh.clone(), &o.cluster) else { return Ok(()) };
    let (listener, bound) = crate::start::bind(&c.host, c.port, "cluster port").await?;
    server.bound.lock().cluster = Some(bound);
    apply(server, o).map_err(|e| StartError(vec![e]))?;
    server.log.info(format_args!("Cluster name is {}", mesh.name()));
    if c.name.is_none() {
        server.log.warn(format_args!("Cluster name was dynamically generated, consider setting one"));
    }
    let at = crate::start::shown(&c.host, bound);
    server.log.info(format_args!("Listening for route connections on {at}"));
    let stopped = server.stopped();
    env::spawn(links::route::listen(mesh.clone(), listener, stopped));
    env::spawn(follow(Arc::downgrade(server)));
    mesh.start();
    Ok(())
}

/// Puts options in force.
///
/// # Errors
/// A sentence about the options.
pub fn apply(server: &Server, o: &Options) -> Result<(), String> {
    let (Some(mesh), Some(c)) = (&server.cluster.mesh, &o.cluster) else { return Ok(()) };
    let bound = *server.bound.lock();
    let tls = server.cluster_tls();
    let mut s = route_settings(o, c, server.id(), &server.name, bound.cluster, bound.client, tls)?;
    if let Some(node) = server.cluster.peers.node() {
        (s.info.fulmar_node, s.info.fulmar_peer) = (node.to_string(), wire::peer::VERSION);
    }
    if let (Some(w), Some(a)) = (&o.websocket, bound.websocket)
        && !c.no_advertise
    {
        s.info.ws_connect_urls = reachable(w.advertise.as_deref(), &w.host, a.port());
    }
    mesh.set_settings(s);
    Ok(())
}

/// Host and port that others are told: what is advertised, or where is listened.
fn split(advertise: Option<&str>, host: &str, port: u16) -> (String, u16) {
    match advertise.and_then(|a| options::url::split_host_port(a).ok()) {
        Some((h, p)) => (h, p.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(port)),
        None => (host.to_owned(), port),
    }
}

/// Where clients reach a port: what is advertised, else the host, which stands for all global addresses of this machine where
/// it says only that the server listens everywhere.
fn reachable(advertise: Option<&str>, host: &str, port: u16) -> Vec<String> {
    let (host, port) = split(advertise, host, port);
    if advertise.is_some() || !is_everywhere(&host) {
        return vec![joined(&host, port)];
    }
    // A machine that cannot say its addresses advertises none: its clients know the one that they came by.
    let all = env::net::interface_addresses().unwrap_or_default();
    all.into_iter().filter(is_global_unicast).map(|ip| joined(&ip.to_string(), port)).collect()
}

/// Whether a host says only that a server listens everywhere.
fn is_everywhere(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// Whether others may reach the address: neither of this machine nor of its link alone, nor of a group.
fn is_global_unicast(ip: &IpAddr) -> bool {
    let narrow = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !narrow && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn route_url(u: &ServerUrl) -> Option<RouteUrl> {
    let port = u.port.filter(|p| *p > 0).unwrap_or(DEFAULT_PORT);
    let credentials = u.user.as_ref().map(|user| {
        let password = u.password.as_ref().map(|p| p.reveal().to_owned()).unwrap_or_default();
        (user.clone(), identity::Secret::new(password))
    });
    let host = if u.host.is_empty() { "localhost".to_owned() } else { u.host.clone() };
    u16::try_from(port).ok().map(|port| RouteUrl { host, port, credentials })
}

fn subjects(p: &Option<options::SubjectPermission>) -> Option<Subjects> {
    p.as_ref().map(|p| Subjects { allow: p.allow.clone().unwrap_or_default(), deny: p.deny.clone() })
}

fn permission(p: &Option<options::SubjectPermission>) -> identity::SubjectPermission {
    let Subjects { allow, deny } = subjects(p).unwrap_or_default();
    identity::SubjectPermission { allow, deny }
}

/// What the mesh is told.
fn route_settings(
    o: &Options,
    c: &ClusterOptions,
    id: &str,
    name: &str,
    bound: Option<SocketAddr>,
    client: Option<SocketAddr>,
    tls: Option<RouteTls>,
) -> Result<RouteSettings, String> {
    let single = match (&c.user, &c.password) {
        (Some(name), Some(p)) => {
            Some(SingleUser { name: name.clone(), password: identity::Secret::new(p.reveal()) })
        }
        _ => None,
    };
    let credentials = single.as_ref().map(|s| (s.name.clone(), s.password.clone()));
    let mut cache_key = [0; 32];
    env::rng("route login cache").fill(&mut cache_key);
    let listener = ListenerConfig { single, ..ListenerConfig::default() };
    let config = AuthConfig { listener, ..AuthConfig::default() };
    let authenticator = Authenticator::new(config, cache_key).map_err(|e| e.to_string())?;
    let restricted = c.permissions.import.is_some() || c.permissions.export.is_some();
    let permissions = match restricted {
        true => Some(Arc::new(
            Permissions::compile(&PermissionsConfig {
                publish: permission(&c.permissions.import),
                subscribe: permission(&c.permissions.export),
                responses: None,
            })
            .map_err(|e| format!("cluster permissions: {e}"))?,
        )),
        false => None,
    };
    let pool_size = u32::try_from(c.pool_size).unwrap_or(0);
    let mut pinned: Vec<Arc<str>> = Vec::new();
    if pool_size > 0 {
        pinned.extend(settings::system_account(o).map(Arc::from));
        pinned.extend(c.accounts.iter().map(|a| Arc::from(a.as_str())));
        pinned.dedup();
    }
    let listens = bound.map_or(0, |a| a.port());
    let (host, port) = split(c.advertise.as_deref(), &c.host, listens);
    let mut info = RouteInfo {
        server_id: id.to_owned(),
        server_name: name.to_owned(),
        version: NATS_VERSION.to_owned(),
        proto: 3,
        go: "rust".to_owned(),
        port: i64::from(port),
        headers: !o.no_header_support,
        auth_required: authenticator.is_required(),
        tls_required: tls.is_some(),
        tls_verify: tls.as_ref().is_some_and(|t| t.server.verify),
        max_payload: i64::try_from(o.max_payload).unwrap_or(i64::MAX),
        compression: compression(c).name().to_owned(),
        import: subjects(&c.permissions.import),
        export: subjects(&c.permissions.export),
        route_pool_size: i64::from(c.pool_size),
        fulmar: VERSION.to_owned(),
        ..RouteInfo::default()
    };
    if c.advertise.is_some() {
        info.ip = format!("nats-route://{}/", joined(&host, port));
    }
    info.host = host;
    if let Some(a) = client
        && !c.no_advertise
    {
        info.connect_urls = reachable(o.client_advertise.as_deref(), &o.host, a.port());
    }
    let reports = |n: i64| u32::try_from(n).unwrap_or(1).max(1);
    Ok(RouteSettings {
        info,
        urls: c.routes.iter().filter_map(route_url).collect(),
        authenticator: Arc::new(authenticator),
        certificates: certificates(c)?.map(Arc::new),
        compression: compression(c),
        credentials,
        auth_timeout: c.auth_timeout,
        tls,
        pool_size,
        pinned: pinned.into(),
        permissions,
        ping_interval: c.ping_interval.unwrap_or(o.ping_interval).min(PING_INTERVAL_MAX),
        pings_out_max: c.ping_max.unwrap_or(o.ping_max),
        write_deadline: c.write_deadline.unwrap_or(o.write_deadline),
        close_on_write_deadline: c.write_timeout == WriteTimeout::Close,
        control_line_bytes_max: o.max_control_line.saturating_mul(LINE_FACTOR),
        pending_bytes_max: o.max_pending.saturating_mul(PENDING_FACTOR),
        connect_retries: u32::try_from(c.connect_retries).unwrap_or(u32::MAX),
        connect_backoff: c.connect_backoff,
        connect_error_reports: reports(o.connect_error_reports),
        reconnect_error_reports: reports(o.reconnect_error_reports),
        advertise: !c.no_advertise,
    })
}

fn compression(c: &ClusterOptions) -> links::route::Compression {
    use links::route::{Compression as Mode, Level};
    match &c.compression {
        Compression::Off => Mode::Off,
        Compression::Accept => Mode::Accept,
        Compression::Auto(limits) => Mode::Auto(limits.clone()),
        Compression::Fast => Mode::Fixed(Level::Fast),
        Compression::Better => Mode::Fixed(Level::Better),
        Compression::Best => Mode::Fixed(Level::Best),
    }
}

/// Which certificates speak for a member, if they are asked.
fn certificates(c: &ClusterOptions) -> Result<Option<Certificates>, String> {
    let Some(tls) = c.tls.as_ref().filter(|t| t.verify_and_map || t.verify_known_urls) else {
        return Ok(None);
    };
    let mut out = Certificates { by_user: None, user: None, hosts: Vec::new() };
    if let Some(name) = c.user.clone().filter(|_| tls.verify_and_map) {
        out.user = Some(name.clone());
        let user = identity::UserConfig { name, ..identity::UserConfig::default() };
        let listener = ListenerConfig { tls_map: true, ..ListenerConfig::default() };
        let config = AuthConfig { users: vec![user], listener, ..AuthConfig::default() };
        let users = Authenticator::new(config, [0; 32]).map_err(|e| format!("cluster: {e}"))?;
        out.by_user = Some(users);
    }
    if tls.verify_known_urls {
        out.hosts.extend(c.routes.iter().map(|u| u.host.clone()));
    }
    Ok(Some(out))
}

/// Adds to a client's INFO what it is told of the cluster.
pub fn describe(server: &Server, info: &mut Info) {
    let Some(mesh) = &server.cluster.mesh else { return };
    info.cluster = mesh.name();
    let s = mesh.settings();
    if !s.advertise {
        return;
    }
    let (others, ws_others) = mesh.connect_urls();
    let met = &server.cluster.met;
    let with = |own: &[String], others: Vec<String>, met: &AtomicBool| -> Vec<String> {
        if !others.is_empty() {
            met.store(true, Relaxed);
        }
        let mut all = Vec::new();
        if !met.load(Relaxed) {
            return all;
        }
        let own = own.iter().filter(|_| !info.ldm).cloned();
        for url in own.chain(others) {
            if !all.contains(&url) {
                all.push(url);
            }
        }
        all
    };
    let urls = with(&s.info.connect_urls, others, &met.clients);
    let ws_urls = with(&s.info.ws_connect_urls, ws_others, &met.websocket);
    (info.connect_urls, info.ws_connect_urls) = (urls, ws_urls);
}

/// Tells clients of members that come and go.
async fn follow(server: Weak<Server>) {
    let Some(stopped) = server.upgrade().map(|s| s.stopped()) else { return };
    let mut stopped = std::pin::pin!(stopped);
    loop {
        let Some(s) = server.upgrade() else { return };
        let changed = s.cluster.changed.notified();
        env::select! {
            _ = &mut stopped => return,
            _ = changed => {}
        }
        s.refresh_info().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_may_reach_are_told() {
        let global = |ip: &str| is_global_unicast(&ip.parse().unwrap());
        for ip in ["192.0.2.2", "10.0.0.1", "fd00::2", "2001:db8::1"] {
            assert!(global(ip), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!global(ip), "{ip}");
        }
    }

    #[test]
    fn a_host_or_what_is_advertised_is_told_as_it_stands() {
        assert_eq!(reachable(None, "127.0.0.1", 4222), ["127.0.0.1:4222"]);
        assert_eq!(reachable(None, "a.example", 4222), ["a.example:4222"]);
        assert_eq!(reachable(None, "fd00::2", 4222), ["[fd00::2]:4222"]);
        assert_eq!(reachable(Some("b.example:7"), "0.0.0.0", 4222), ["b.example:7"]);
        let all = reachable(None, "::", 4222);
        assert!(all.iter().all(|url| url.ends_with(":4222") && !url.starts_with("127.")), "{all:?}");
        assert_eq!(all, reachable(None, "0.0.0.0", 4222));
    }
}
