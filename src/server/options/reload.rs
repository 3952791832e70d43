//! What differs between two configurations, and whether a running server can take the difference.
//!
//! A reload is taken whole or not at all: one difference that cannot be applied refuses everything, with a line for each
//! such difference. Both sides are options as they were loaded; ports that were chosen at random belong to the running
//! server and never appear here.

use super::types::{
    ClusterOptions, HttpOptions, JetStreamOptions, LogOptions, StoreCipher, SyncInterval, TlsOptions,
    WebSocketOptions, WriteTimeout,
};
use super::{Authorization, Options};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A difference that a running server can take. The values are in the new options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// `debug`.
    Debug,
    /// `trace`.
    Trace,
    /// `trace_verbose`.
    TraceVerbose,
    /// `trace_headers`.
    TraceHeaders,
    /// `logtime`.
    LogTime,
    /// `logtime_utc`.
    LogTimeUtc,
    /// `logfile`.
    LogFile,
    /// `syslog`.
    Syslog,
    /// `remote_syslog`.
    RemoteSyslog,
    /// `max_traced_msg_len`.
    MaxTracedMsgLen,
    /// The client listener's `tls`. Told whenever there is TLS, since a certificate may have been replaced in its file.
    Tls,
    /// `client_advertise`.
    ClientAdvertise,
    /// `max_connections`.
    MaxConnections,
    /// `max_control_line`.
    MaxControlLine,
    /// `max_payload`.
    MaxPayload,
    /// `ping_interval`.
    PingInterval,
    /// `ping_max`.
    PingMax,
    /// `write_deadline`.
    WriteDeadline,
    /// Time to authenticate.
    AuthTimeout,
    /// Users, passwords, tokens or permissions of the authorization block.
    Authorization,
    /// Accounts: their users, exports, imports, limits or mappings.
    Accounts,
    /// Mappings of the global account.
    Mappings,
    /// The keys of trusted proxies.
    TrustedProxies,
    /// Routes were added or removed.
    ClusterRoutes,
    /// Anything else of the cluster block that may change.
    Cluster,
    /// The cluster's `tls`; told as [`Change::Tls`] is.
    ClusterTls,
    /// The WebSocket listener's `tls`; told as [`Change::Tls`] is.
    WebSocketTls,
    /// JetStream was turned on.
    JetStreamOn,
    /// JetStream was turned off.
    JetStreamOff,
    /// `max_memory_store` grew.
    JetStreamMaxMemory,
    /// `max_file_store` grew.
    JetStreamMaxFile,
    /// `jetstream.limits`.
    JetStreamLimits,
    /// `meta_compact`, `meta_compact_size` or `meta_compact_sync`.
    JetStreamMetaCompact,
    /// `server_tags`.
    ServerTags,
    /// `server_metadata`.
    ServerMetadata,
    /// `pid_file`.
    PidFile,
    /// `ports_file_dir`.
    PortsFileDir,
    /// `no_fast_producer_stall`.
    FastProducerStall,
    /// `prof_block_rate`.
    ProfBlockRate,
    /// `connect_error_reports`.
    ConnectErrorReports,
    /// `reconnect_error_reports`.
    ReconnectErrorReports,
}

impl Change {
    /// What the log says after `Reloaded: `.
    pub fn describe(self, new: &Options) -> String {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let number = |n: Option<usize>| n.map_or_else(|| "0".to_string(), |n| n.to_string());
        let store = |of: fn(&JetStreamOptions) -> Option<u64>| {
            crate::jetstream::size(new.jetstream.as_ref().and_then(of).unwrap_or(0))
        };
        match self {
            Change::Debug => format!("debug = {}", new.log.debug),
            Change::Trace => format!("trace = {}", traces(&new.log)),
            Change::TraceVerbose => format!("trace_verbose = {}", new.log.trace_verbose),
            Change::TraceHeaders => format!("trace_headers = {}", new.log.trace_headers),
            Change::LogTime => format!("logtime = {}", new.log.logtime),
            Change::LogTimeUtc => format!("logtime_utc = {}", new.log.logtime_utc),
            Change::LogFile => format!("log_file = {}", text(&new.log.file)),
            Change::Syslog => format!("syslog = {}", new.log.syslog),
            Change::RemoteSyslog => format!("remote_syslog = {}", text(&new.log.remote_syslog)),
            Change::MaxTracedMsgLen => format!("max_traced_msg_len = {}", number(new.log.max_traced_msg_len)),
            Change::Tls => format!("tls = {}", if new.tls.is_some() { "enabled" } else { "disabled" }),
            Change::ClientAdvertise => format!("client_advertise = {}", text(&new.client_advertise)),
            Change::MaxConnections => {
                let max = new.max_connections.map_or_else(|| "-1".to_string(), |n| n.to_string());
                format!("max_connections = {max}")
            }
            Change::MaxControlLine => format!("max_control_line = {}", new.max_control_line),
            Change::MaxPayload => format!("max_payload = {}", new.max_payload),
            Change::PingInterval => format!("ping_interval = {}", span(new.ping_interval)),
            Change::PingMax => format!("ping_max = {}", new.ping_max),
            Change::WriteDeadline => format!("write_deadline = {}", span(new.write_deadline)),
            Change::AuthTimeout => format!("authorization timeout = {}", new.auth_timeout.as_secs_f64()),
            Change::Authorization => "authorization users".to_string(),
            Change::Accounts => "accounts".to_string(),
            Change::Mappings => "mappings".to_string(),
            Change::TrustedProxies => "proxies trusted keys".to_string(),
            Change::ClusterRoutes => "cluster routes".to_string(),
            Change::Cluster => "cluster".to_string(),
            Change::ClusterTls => "cluster tls".to_string(),
            Change::WebSocketTls => "websocket tls".to_string(),
            Change::JetStreamOn | Change::JetStreamOff => "JetStream".to_string(),
            Change::JetStreamMaxMemory => format!("JetStream max_mem_store = {}", store(|j| j.max_memory)),
            Change::JetStreamMaxFile => format!("JetStream max_file_store = {}", store(|j| j.max_file)),
            Change::JetStreamLimits => "JetStream limits".to_string(),
            Change::JetStreamMetaCompact => "JetStream meta_compact".to_string(),
            Change::ServerTags => "tags".to_string(),
            Change::ServerMetadata => "metadata".to_string(),
            Change::PidFile => format!("pid_file = {}", text(&new.pid_file)),
            Change::PortsFileDir => format!("ports_file_dir = {}", text(&new.ports_file_dir)),
            Change::FastProducerStall => {
                format!(
                    "fast producers will {}be stalled",
                    if new.no_fast_producer_stall { "not " } else { "" }
                )
            }
            Change::ProfBlockRate => format!("prof_block_rate = {}", new.prof_block_rate),
            Change::ConnectErrorReports => format!("connect_error_reports = {}", new.connect_error_reports),
            Change::ReconnectErrorReports => {
                format!("reconnect_error_reports = {}", new.reconnect_error_reports)
            }
        }
    }
}

/// Whether protocol lines are logged: each of the three asks for it.
fn traces(log: &LogOptions) -> bool {
    log.trace || log.trace_verbose || log.trace_headers
}

pub(crate) fn span(d: Duration) -> String {
    conf::duration::format(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

/// Values as refusals show them.
trait Shown {
    fn shown(&self) -> String;
}

impl Shown for Duration {
    fn shown(&self) -> String {
        span(*self)
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        self.clone()
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map(Shown::shown).unwrap_or_default()
    }
}

impl Shown for BTreeMap<String, bool> {
    fn shown(&self) -> String {
        let pairs: Vec<String> = self.iter().map(|(k, v)| format!("{k}:{v}")).collect();
        format!("map[{}]", pairs.join(" "))
    }
}

impl Shown for BTreeMap<String, String> {
    fn shown(&self) -> String {
        let pairs: Vec<String> = self.iter().map(|(k, v)| format!("{k}:{v}")).collect();
        format!("map[{}]", pairs.join(" "))
    }
}

impl Shown for HttpOptions {
    fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl Shown for WriteTimeout {
    fn shown(&self) -> String {
        match self {
            WriteTimeout::Default => "",
            WriteTimeout::Close => "close",
            WriteTimeout::Retry => "retry",
        }
        .to_string()
    }
}

impl Shown for SyncInterval {
    fn shown(&self) -> String {
        match self {
            SyncInterval::Always => "always".to_string(),
            SyncInterval::Every(d) => span(*d),
        }
    }
}

impl Shown for StoreCipher {
    fn shown(&self) -> String {
        match self {
            StoreCipher::ChaCha => "chacha",
            StoreCipher::Aes => "aes",
        }
        .to_string()
    }
}

macro_rules! shown_by_display {
    ($($type:ty),*) => { $(impl Shown for $type { fn shown(&self) -> String { self.to_string() } })* };
}
shown_by_display!(bool, i32, i64, u32, u64, usize);

/// What was found so far.
#[derive(Default)]
struct Found {
    changes: BTreeSet<Change>,
    refused: Vec<String>,
}

impl Found {
    fn change<T: PartialEq>(&mut self, change: Change, old: &T, new: &T) {
        if old != new {
            self.changes.insert(change);
        }
    }

    fn refuse<T: PartialEq + Shown>(&mut self, name: &str, old: &T, new: &T) {
        if old != new {
            let (old, new) = (old.shown(), new.shown());
            self.refused.push(format!("config reload not supported for {name}: old={old}, new={new}"));
        }
    }

    /// For what may not be shown, or takes too many words.
    fn refuse_unshown<T: PartialEq>(&mut self, name: &str, old: &T, new: &T) {
        if old != new {
            self.refused.push(format!("config reload not supported for {name}"));
        }
    }

    fn tls(&mut self, change: Change, old: Option<&TlsOptions>, new: Option<&TlsOptions>) {
        if new.is_some() || old.is_some() {
            self.changes.insert(change);
        }
    }
}

/// The differences from `old` to `new`, each once and in a fixed order.
///
/// # Errors
/// A line for each difference that needs a restart; none of the differences may be applied then.
pub fn diff(old: &Options, new: &Options) -> Result<Vec<Change>, Vec<String>> {
    let mut found = Found::default();
    // Taken apart without `..`, so that a new option does not compile before it has a place here.
    let Options {
        config_file: _,
        config_digest: _,
        host,
        port,
        server_name,
        client_advertise,
        server_tags,
        server_metadata,
        feature_flags,
        log,
        pid_file,
        ports_file_dir,
        http,
        https,
        http_base_path,
        prof_port,
        prof_block_rate,
        max_connections,
        max_subscriptions,
        max_subscription_tokens,
        max_control_line,
        max_payload,
        max_pending,
        max_closed_clients,
        ping_interval,
        ping_max,
        write_deadline,
        write_timeout,
        auth_timeout,
        lame_duck_duration,
        lame_duck_grace_period,
        no_fast_producer_stall,
        disable_sublist_cache,
        no_header_support,
        proxy_protocol,
        connect_error_reports,
        reconnect_error_reports,
        tls,
        allow_non_tls,
        authorization,
        no_auth_user,
        accounts,
        mappings,
        system_account,
        no_system_account,
        trusted_proxies,
        websocket,
        cluster,
        jetstream,
        default_js_domain,
    } = old;
    found.refuse("Host", host, &new.host);
    found.refuse("Port", port, &new.port);
    found.refuse("ServerName", server_name, &new.server_name);
    found.change(Change::ClientAdvertise, client_advertise, &new.client_advertise);
    found.change(Change::ServerTags, server_tags, &new.server_tags);
    found.change(Change::ServerMetadata, server_metadata, &new.server_metadata);
    found.refuse("FeatureFlags", feature_flags, &new.feature_flags);
    log_options(&mut found, log, &new.log);
    found.change(Change::PidFile, pid_file, &new.pid_file);
    found.change(Change::PortsFileDir, ports_file_dir, &new.ports_file_dir);
    found.refuse("HTTP", http, &new.http);
    found.refuse("HTTPS", https, &new.https);
    found.refuse("HTTPBasePath", http_base_path, &new.http_base_path);
    found.refuse("ProfPort", &prof_port.unwrap_or(0), &new.prof_port.unwrap_or(0));
    found.change(Change::ProfBlockRate, prof_block_rate, &new.prof_block_rate);
    found.change(Change::MaxConnections, max_connections, &new.max_connections);
    let or_0 = |n: &Option<usize>| n.unwrap_or(0);
    found.refuse("MaxSubs", &or_0(max_subscriptions), &or_0(&new.max_subscriptions));
    let (old_tokens, new_tokens) = (or_0(max_subscription_tokens), or_0(&new.max_subscription_tokens));
    found.refuse("MaxSubTokens", &old_tokens, &new_tokens);
    found.change(Change::MaxControlLine, max_control_line, &new.max_control_line);
    found.change(Change::MaxPayload, max_payload, &new.max_payload);
    found.refuse("MaxPending", max_pending, &new.max_pending);
    found.refuse("MaxClosedClients", max_closed_clients, &new.max_closed_clients);
    found.change(Change::PingInterval, ping_interval, &new.ping_interval);
    found.change(Change::PingMax, ping_max, &new.ping_max);
    found.change(Change::WriteDeadline, write_deadline, &new.write_deadline);
    found.refuse("WriteTimeout", write_timeout, &new.write_timeout);
    found.change(Change::AuthTimeout, auth_timeout, &new.auth_timeout);
    found.refuse("LameDuckDuration", lame_duck_duration, &new.lame_duck_duration);
    found.refuse("LameDuckGracePeriod", lame_duck_grace_period, &new.lame_duck_grace_period);
    found.change(Change::FastProducerStall, no_fast_producer_stall, &new.no_fast_producer_stall);
    found.refuse("NoSublistCache", disable_sublist_cache, &new.disable_sublist_cache);
    found.refuse("NoHeaderSupport", no_header_support, &new.no_header_support);
    found.refuse("ProxyProtocol", proxy_protocol, &new.proxy_protocol);
    found.change(Change::ConnectErrorReports, connect_error_reports, &new.connect_error_reports);
    found.change(Change::ReconnectErrorReports, reconnect_error_reports, &new.reconnect_error_reports);
    found.tls(Change::Tls, tls.as_ref(), new.tls.as_ref());
    found.refuse("AllowNonTLS", allow_non_tls, &new.allow_non_tls);
    auth(&mut found, authorization, &new.authorization);
    // It may go together with its user.
    let is_gone = |name: &String| !new.users().any(|u| u.identity.name() == name);
    if new.no_auth_user.is_some() || !no_auth_user.as_ref().is_none_or(is_gone) {
        found.refuse("NoAuthUser", no_auth_user, &new.no_auth_user);
    }
    found.change(Change::Accounts, accounts, &new.accounts);
    found.change(Change::Mappings, mappings, &new.mappings);
    let named = |name: &Option<String>| name.clone().filter(|n| n != "$SYS");
    found.refuse("SystemAccount", &named(system_account), &named(&new.system_account));
    found.refuse("NoSystemAccount", no_system_account, &new.no_system_account);
    found.change(Change::TrustedProxies, trusted_proxies, &new.trusted_proxies);
    websocket_options(&mut found, websocket.as_ref(), new.websocket.as_ref());
    cluster_options(&mut found, cluster.as_ref(), new.cluster.as_ref());
    jetstream_options(&mut found, jetstream.as_ref(), new.jetstream.as_ref());
    found.refuse("JsAccDefaultDomain", default_js_domain, &new.default_js_domain);
    if found.refused.is_empty() { Ok(found.changes.into_iter().collect()) } else { Err(found.refused) }
}

fn log_options(found: &mut Found, old: &LogOptions, new: &LogOptions) {
    let LogOptions {
        debug,
        trace,
        trace_verbose,
        trace_headers,
        logtime,
        logtime_utc,
        file,
        file_size_limit,
        file_max_num,
        syslog,
        remote_syslog,
        max_traced_msg_len,
    } = old;
    found.change(Change::Debug, debug, &new.debug);
    found.change(Change::Trace, &(*trace || *trace_verbose || *trace_headers), &traces(new));
    found.change(Change::TraceVerbose, trace_verbose, &new.trace_verbose);
    found.change(Change::TraceHeaders, trace_headers, &new.trace_headers);
    found.change(Change::LogTime, logtime, &new.logtime);
    found.change(Change::LogTimeUtc, logtime_utc, &new.logtime_utc);
    found.change(Change::LogFile, file, &new.file);
    found.refuse("LogSizeLimit", file_size_limit, &new.file_size_limit);
    found.refuse("LogMaxFiles", file_max_num, &new.file_max_num);
    found.change(Change::Syslog, syslog, &new.syslog);
    found.change(Change::RemoteSyslog, remote_syslog, &new.remote_syslog);
    found.change(Change::MaxTracedMsgLen, max_traced_msg_len, &new.max_traced_msg_len);
}

fn auth(found: &mut Found, old: &Authorization, new: &Authorization) {
    found.refuse("ProxyRequired", &old.proxy_required, &new.proxy_required);
    let rest = |a: &Authorization| Authorization { proxy_required: false, ..a.clone() };
    found.change(Change::Authorization, &rest(old), &rest(new));
}

fn websocket_options(found: &mut Found, old: Option<&WebSocketOptions>, new: Option<&WebSocketOptions>) {
    let listens = |w: Option<&WebSocketOptions>| w.map(|w| format!("{}:{}", w.host, w.port));
    found.refuse("Websocket", &listens(old), &listens(new));
    if let (Some(old), Some(new)) = (old, new) {
        // Taken apart without `..`, as above.
        let WebSocketOptions {
            host: _,
            port: _,
            advertise,
            no_tls,
            tls: _,
            same_origin,
            allowed_origins,
            handshake_timeout,
            compression,
            authorization,
            no_auth_user,
            jwt_cookie,
            user_cookie,
            pass_cookie,
            token_cookie,
            headers,
            ping_interval,
        } = old;
        found.refuse("Websocket advertise", advertise, &new.advertise);
        found.refuse("Websocket no_tls", no_tls, &new.no_tls);
        found.refuse("Websocket same_origin", same_origin, &new.same_origin);
        let list = |of: &[String]| format!("[{}]", of.join(" "));
        let (origins, new_origins) = (list(allowed_origins), list(&new.allowed_origins));
        found.refuse("Websocket allowed_origins", &origins, &new_origins);
        found.refuse("Websocket handshake_timeout", handshake_timeout, &new.handshake_timeout);
        found.refuse("Websocket compression", compression, &new.compression);
        found.refuse_unshown("Websocket authorization", authorization, &new.authorization);
        found.refuse("Websocket no_auth_user", no_auth_user, &new.no_auth_user);
        found.refuse("Websocket jwt_cookie", jwt_cookie, &new.jwt_cookie);
        found.refuse("Websocket user_cookie", user_cookie, &new.user_cookie);
        found.refuse("Websocket pass_cookie", pass_cookie, &new.pass_cookie);
        found.refuse("Websocket token_cookie", token_cookie, &new.token_cookie);
        found.refuse_unshown("Websocket headers", headers, &new.headers);
        found.refuse("Websocket ping_interval", ping_interval, &new.ping_interval);
    }
    found.tls(Change::WebSocketTls, old.and_then(|w| w.tls.as_ref()), new.and_then(|w| w.tls.as_ref()));
}

fn cluster_options(found: &mut Found, old: Option<&ClusterOptions>, new: Option<&ClusterOptions>) {
    let (old, new) = match (old, new) {
        (None, None) => return,
        (Some(old), Some(new)) => (old, new),
        (old, new) => {
            let host = |c: Option<&ClusterOptions>| c.map(|c| c.host.clone());
            found.refuse("cluster host", &host(old), &host(new));
            return;
        }
    };
    found.refuse("cluster host", &old.host, &new.host);
    found.refuse("cluster port", &old.port, &new.port);
    found.change(Change::ClusterRoutes, &old.routes, &new.routes);
    found.tls(Change::ClusterTls, old.tls.as_ref(), new.tls.as_ref());
    let rest = |c: &ClusterOptions| ClusterOptions { routes: Vec::new(), tls: None, ..c.clone() };
    found.change(Change::Cluster, &rest(old), &rest(new));
}

fn jetstream_options(found: &mut Found, old: Option<&JetStreamOptions>, new: Option<&JetStreamOptions>) {
    let (old, new) = match (old, new) {
        (None, None) => return,
        (Some(old), Some(new)) => (old, new),
        (None, Some(_)) => {
            found.changes.insert(Change::JetStreamOn);
            return;
        }
        (Some(_), None) => {
            found.changes.insert(Change::JetStreamOff);
            return;
        }
    };
    let JetStreamOptions {
        store_dir,
        strict,
        max_memory,
        max_file,
        sync_interval,
        domain,
        extension_hint,
        unique_tag,
        key,
        previous_key,
        cipher,
        limits,
        max_outstanding_catchup,
        max_buffered_msgs,
        max_buffered_size,
        request_queue_limit,
        info_queue_limit,
        meta_compact,
        meta_compact_size,
        meta_compact_sync,
        max_concurrent_io,
    } = old;
    found.refuse("StoreDir", store_dir, &new.store_dir);
    found.refuse("JetStreamStrict", strict, &new.strict);
    for (change, was, is) in [
        (Change::JetStreamMaxMemory, max_memory, &new.max_memory),
        (Change::JetStreamMaxFile, max_file, &new.max_file),
    ] {
        let reason = match (was, is) {
            (Some(was), Some(is)) if is < was => "decreasing jetstream max memory and store",
            (Some(_), None) => "jetstream max memory and max store",
            (None, Some(_)) => "jetstream dynamic max memory and store",
            _ => {
                found.change(change, was, is);
                continue;
            }
        };
        let text = format!("config reload not supported for {reason}");
        if !found.refused.contains(&text) {
            found.refused.push(text);
        }
    }
    found.refuse("SyncInterval", sync_interval, &new.sync_interval);
    found.refuse("JetStreamDomain", domain, &new.domain);
    found.refuse("JetStreamExtHint", extension_hint, &new.extension_hint);
    found.refuse("JetStreamUniqueTag", unique_tag, &new.unique_tag);
    found.refuse_unshown("JetStreamKey", key, &new.key);
    found.refuse_unshown("JetStreamOldKey", previous_key, &new.previous_key);
    found.refuse("JetStreamCipher", cipher, &new.cipher);
    found.change(Change::JetStreamLimits, limits, &new.limits);
    found.refuse("JetStreamMaxCatchup", max_outstanding_catchup, &new.max_outstanding_catchup);
    found.refuse("StreamMaxBufferedMsgs", max_buffered_msgs, &new.max_buffered_msgs);
    found.refuse("StreamMaxBufferedSize", max_buffered_size, &new.max_buffered_size);
    found.refuse("JetStreamRequestQueueLimit", request_queue_limit, &new.request_queue_limit);
    found.refuse("JetStreamInfoQueueLimit", info_queue_limit, &new.info_queue_limit);
    found.change(Change::JetStreamMetaCompact, meta_compact, &new.meta_compact);
    found.change(Change::JetStreamMetaCompact, meta_compact_size, &new.meta_compact_size);
    found.change(Change::JetStreamMetaCompact, meta_compact_sync, &new.meta_compact_sync);
    found.refuse("JetStreamConcurrentIOs", max_concurrent_io, &new.max_concurrent_io);
}
