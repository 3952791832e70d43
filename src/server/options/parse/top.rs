//! The top of the file, and the draft that the file and then the flags fill.

use super::reader::set;
use super::tls::TlsPlace;
use super::{Reader, accounts, auth, block, cluster, jetstream, tls, websocket};
use crate::options::types::{HttpOptions, JetStreamOptions};
use crate::options::{Options, names};
use conf::{Entry, Map, Value};
use std::collections::BTreeSet;
use std::time::Duration;

/// Most tokens that `max_sub_tokens` may ask for: the count travels in a byte.
const SUB_TOKENS_MAX: usize = 255;

/// Options on their way: what must be known of several keys and flags at once before it can become an option.
#[derive(Default)]
pub struct Draft {
    pub options: Options,
    pub jetstream: JetStreamOptions,
    pub jetstream_on: bool,
    pub store_dir: Option<String>,
    pub http_host: Option<String>,
    /// 0 for off.
    pub http_port: i32,
    /// 0 for off.
    pub https_port: i32,
    /// As configured; the default depends on TLS.
    pub auth_timeout: Option<Duration>,
}

impl Draft {
    /// Settles what depends on several keys.
    pub fn finish(self) -> Options {
        let mut o = self.options;
        if o.host.is_empty() {
            o.host = crate::options::DEFAULT_HOST.to_string();
        }
        if o.port == 0 {
            o.port = crate::options::DEFAULT_PORT;
        }
        let host = self.http_host.filter(|h| !h.is_empty()).unwrap_or_else(|| o.host.clone());
        let listener = |port: i32| (port != 0).then(|| HttpOptions { host: host.clone(), port });
        o.http = listener(self.http_port);
        o.https = listener(self.https_port);
        o.jetstream = self.jetstream_on.then(|| JetStreamOptions {
            store_dir: self.store_dir.filter(|d| !d.is_empty()),
            ..self.jetstream
        });
        o.log.trace |= o.log.trace_verbose;
        // A client gets the time of its TLS handshake on top.
        o.auth_timeout = self.auth_timeout.filter(|t| !t.is_zero()).unwrap_or_else(|| match &o.tls {
            Some(tls) => tls.timeout + Duration::from_secs(1),
            None => Options::default().auth_timeout,
        });
        o
    }
}

/// Reads a whole configuration.
pub fn read(reader: &mut Reader, root: &Map, draft: &mut Draft) {
    let defaults = Options::default();
    block!(reader, "", root, |e| {
        // Listeners and names.
        "listen" => if let Some((host, port)) = reader.listen(e) {
            if let Some(host) = host {
                draft.options.host = host;
            }
            draft.options.port = port;
        },
        "client_advertise" => set!(draft.options.client_advertise, reader.text(e)),
        "port" => set!(draft.options.port, reader.port(e)),
        "server_name" => if let Some(name) = reader.text(e) {
            if name.as_ref().is_some_and(|n| n.contains(' ')) {
                reader.error(&e.pos, "server name cannot contain spaces");
            }
            draft.options.server_name = name;
        },
        "host" | "net" => set!(draft.options.host, reader.string(e).map(str::to_string)),
        "server_tags" => draft.options.server_tags = tags(reader, e),
        "server_metadata" => match &e.node.value {
            Value::Map(_) => set!(draft.options.server_metadata, reader.string_map(e).map(|p| p.into_iter().collect())),
            other => reader.error(&e.pos, format!("error parsing metadata: unsupported type, it is {}", other.kind())),
        },
        "feature_flags" => feature_flags(reader, e, &mut draft.options),
        "proxy_protocol" => set!(draft.options.proxy_protocol, reader.boolean(e)),
        // Logging.
        "debug" => set!(draft.options.log.debug, reader.boolean(e)),
        "trace" => set!(draft.options.log.trace, reader.boolean(e)),
        "trace_verbose" => set!(draft.options.log.trace_verbose, reader.boolean(e)),
        "trace_headers" => set!(draft.options.log.trace_headers, reader.boolean(e)),
        "logtime" => set!(draft.options.log.logtime, reader.boolean(e)),
        "logtime_utc" => set!(draft.options.log.logtime_utc, reader.boolean(e)),
        "logfile" | "log_file" => set!(draft.options.log.file, reader.text(e)),
        "logfile_size_limit" | "log_size_limit" => set!(draft.options.log.file_size_limit, reader.int(e)),
        "logfile_max_num" | "log_max_num" => set!(draft.options.log.file_max_num, reader.int(e)),
        "syslog" => set!(draft.options.log.syslog, reader.boolean(e)),
        "remote_syslog" => set!(draft.options.log.remote_syslog, reader.text(e)),
        "max_traced_msg_len" => set!(draft.options.log.max_traced_msg_len, reader.limit(e)),
        "pidfile" | "pid_file" => set!(draft.options.pid_file, reader.text(e)),
        "ports_file_dir" => set!(draft.options.ports_file_dir, reader.text(e)),
        // Monitoring and profiling.
        "http" => if let Some((host, port)) = reader.listen(e) {
            draft.http_host = host.or(draft.http_host.take());
            draft.http_port = port;
        },
        "https" => if let Some((host, port)) = reader.listen(e) {
            draft.http_host = host.or(draft.http_host.take());
            draft.https_port = port;
        },
        "http_port" | "monitor_port" => set!(draft.http_port, reader.port(e)),
        "https_port" => set!(draft.https_port, reader.port(e)),
        "http_base_path" => set!(draft.options.http_base_path, reader.string(e).map(str::to_string)),
        "prof_port" => set!(draft.options.prof_port, reader.port(e).map(|p| (p != 0).then_some(p))),
        "prof_block_rate" => set!(draft.options.prof_block_rate, reader.int(e)),
        // Limits and timers.
        "max_connections" | "max_conn" => set!(draft.options.max_connections, reader.limit(e)),
        "max_subscriptions" | "max_subs" => set!(draft.options.max_subscriptions, reader.limit(e)),
        "max_sub_tokens" | "max_subscription_tokens" => if let Some(n) = reader.size(e) {
            if n > SUB_TOKENS_MAX {
                reader.error(&e.pos, "max_sub_tokens value is too big");
            }
            draft.options.max_subscription_tokens = (n > 0).then_some(n);
        },
        "max_control_line" => if let Some(n) = reader.size(e) {
            draft.options.max_control_line = if n == 0 { defaults.max_control_line } else { n };
        },
        "max_payload" => if let Some(n) = reader.size(e) {
            draft.options.max_payload = if n == 0 { defaults.max_payload } else { n };
        },
        "max_pending" => if let Some(n) = reader.int(e) {
            match usize::try_from(n) {
                Ok(0) => draft.options.max_pending = defaults.max_pending,
                Ok(n) => draft.options.max_pending = n,
                Err(_) => reader.error(&e.pos, "max_pending value can not be negative"),
            }
        },
        "max_closed_clients" => if let Some(n) = reader.int(e) {
            draft.options.max_closed_clients = match usize::try_from(n) {
                Ok(0) => defaults.max_closed_clients,
                Ok(n) => n,
                Err(_) => 0,
            };
        },
        "ping_interval" => if let Some(d) = reader.duration(e) {
            draft.options.ping_interval = if d.is_zero() { defaults.ping_interval } else { d };
        },
        "ping_max" => if let Some(n) = reader.size(e) {
            draft.options.ping_max = match u32::try_from(n) {
                Ok(0) | Err(_) => defaults.ping_max,
                Ok(n) => n,
            };
        },
        "write_deadline" => if let Some(d) = reader.duration(e) {
            draft.options.write_deadline = if d.is_zero() { defaults.write_deadline } else { d };
        },
        "write_timeout" => set!(draft.options.write_timeout, cluster::write_timeout(reader, e)),
        "lame_duck_duration" => if let Some(d) = reader.duration_string(e) {
            if d < Duration::from_secs(30) {
                let nanos = i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
                let shown = conf::duration::format(nanos);
                reader.error(&e.pos, format!("invalid lame_duck_duration of {shown}, minimum is 30 seconds"));
            }
            draft.options.lame_duck_duration = d;
        },
        "lame_duck_grace_period" => if let Some(d) = reader.duration_string(e) {
            let given = Some(d).filter(|d| !d.is_zero());
            draft.options.lame_duck_grace_period = given.unwrap_or(defaults.lame_duck_grace_period);
        },
        "no_fast_producer_stall" => set!(draft.options.no_fast_producer_stall, reader.boolean(e)),
        "disable_sublist_cache" | "no_sublist_cache" => set!(draft.options.disable_sublist_cache, reader.boolean(e)),
        "no_header_support" => set!(draft.options.no_header_support, reader.boolean(e)),
        "connect_error_reports" => set!(draft.options.connect_error_reports, reader.int(e)),
        "reconnect_error_reports" => set!(draft.options.reconnect_error_reports, reader.int(e)),
        // Security.
        "tls" => draft.options.tls = tls::read(reader, e, TlsPlace::Listener),
        "allow_non_tls" => set!(draft.options.allow_non_tls, reader.boolean(e)),
        "authorization" => if let Some(block) = auth::authorization(reader, e) {
            draft.options.authorization = block.authorization;
            draft.auth_timeout = block.timeout;
        },
        "accounts" => draft.options.accounts = accounts::read(reader, e),
        "mappings" | "maps" => draft.options.mappings = accounts::mappings(reader, e),
        "no_auth_user" => set!(draft.options.no_auth_user, reader.text(e)),
        "system_account" | "system" => set!(draft.options.system_account, reader.text(e)),
        "no_system_account" | "no_system" | "no_sys_acc" => {
            set!(draft.options.no_system_account, reader.boolean(e));
        },
        "proxies" => draft.options.trusted_proxies = proxies(reader, e),
        // Subsystems.
        "cluster" => draft.options.cluster = cluster::read(reader, e),
        "websocket" | "ws" => draft.options.websocket = websocket::read(reader, e),
        "jetstream" => jetstream::read(reader, e, draft),
        "store_dir" | "storedir" => if let Some(dir) = reader.string(e) {
            jetstream::set_store_dir(reader, e, dir, draft);
        },
        "default_js_domain" => match &e.node.value {
            Value::Map(_) => {
                set!(draft.options.default_js_domain, reader.string_map(e).map(|p| p.into_iter().collect()));
            }
            other => {
                reader.error(&e.pos, format!("error default_js_domain config: unsupported type, it is {}", other.kind()));
            }
        },
    });
}

/// A comma-separated string or an array of strings.
fn tags(reader: &mut Reader, e: &Entry) -> BTreeSet<String> {
    if !matches!(e.node.value, Value::String(_) | Value::Array(_)) {
        reader.error(&e.pos, format!("error parsing tags: unsupported type, it is {}", e.node.value.kind()));
        return BTreeSet::new();
    }
    let items = reader.strings(e).unwrap_or_default();
    items
        .iter()
        .flat_map(|(_, s)| s.split(','))
        .map(|tag| tag.trim().to_ascii_lowercase())
        .filter(|tag| !tag.is_empty())
        .collect()
}

fn feature_flags(reader: &mut Reader, entry: &Entry, o: &mut Options) {
    let Value::Map(map) = &entry.node.value else {
        let text =
            format!("error parsing feature flags: unsupported type, it is {}", entry.node.value.kind());
        reader.error(&entry.pos, text);
        return;
    };
    for e in map {
        match e.node.value {
            Value::Bool(on) => {
                o.feature_flags.insert(e.key.clone(), on);
            }
            ref other => {
                let text =
                    format!("error parsing feature flag {:?}: expected bool, got {}", e.key, other.kind());
                reader.error(&e.pos, text);
            }
        }
    }
}

fn proxies(reader: &mut Reader, entry: &Entry) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let Value::Map(map) = &entry.node.value else {
        let text = format!("expected proxies to be a map/struct, got {}", entry.node.value.kind());
        reader.error(&entry.pos, text);
        return out;
    };
    block!(reader, "proxies", map, |e| {
        "trusted" => {
            let Value::Array(items) = &e.node.value else {
                let kind = e.node.value.kind();
                reader.error(&e.pos, format!("expected proxies' trusted field to be an array, got {kind}"));
                return out;
            };
            for item in items {
                let Value::Map(map) = &item.value else {
                    reader.error(&item.pos, format!("expected a trusted proxy to be a map, got {}", item.value.kind()));
                    continue;
                };
                trusted_proxy(reader, map, &mut out);
            }
        },
    });
    out
}

fn trusted_proxy(reader: &mut Reader, map: &Map, out: &mut BTreeSet<String>) {
    block!(reader, "trusted proxy", map, |e| {
        "key" | "public_key" => if let Some(key) = reader.string(e) {
            // Any public key may sign for a proxy; operators usually make a user or account key.
            if "UANCOX".chars().any(|kind| names::is_public_nkey(key, kind)) {
                out.insert(key.to_string());
            } else {
                reader.error(&e.pos, format!("invalid proxy key {key:?}"));
            }
        },
    });
}
