//! The `cluster` block.

use super::reader::set;
use super::tls::{self, TlsPlace};
use super::{Reader, auth, block};
use crate::options::types::{ClusterOptions, Compression, WriteTimeout};
use crate::options::url::ServerUrl;
use conf::{Entry, Value};
use std::time::Duration;

/// The longest time between pings of a route.
const PING_INTERVAL_MAX: Duration = Duration::from_secs(30);
/// Limits of round trip times for `s2_auto`.
const RTT_THRESHOLDS: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(100)];

pub(crate) fn read(reader: &mut Reader, entry: &Entry) -> Option<ClusterOptions> {
    let Value::Map(map) = &entry.node.value else {
        reader.error(&entry.pos, format!("Expected map to define cluster, got {}", entry.node.value.kind()));
        return None;
    };
    let mut o = ClusterOptions::default();
    block!(reader, "cluster", map, |e| {
        "name" => if let Some(name) = reader.text(e) {
            if name.as_ref().is_some_and(|n| n.contains(' ')) {
                reader.error(&e.pos, "cluster name cannot contain spaces");
            }
            o.name = name;
        },
        "listen" => if let Some((host, port)) = reader.listen(e) {
            if let Some(host) = host {
                o.host = host;
            }
            o.port = port;
        },
        "port" => set!(o.port, reader.port(e)),
        "host" | "net" => set!(o.host, reader.string(e).map(str::to_string)),
        "authorization" => authorization(reader, e, &mut o),
        "routes" => routes(reader, e, &mut o),
        "tls" => o.tls = tls::read(reader, e, TlsPlace::Mesh),
        "cluster_advertise" | "advertise" => set!(o.advertise, reader.text(e)),
        "no_advertise" => set!(o.no_advertise, reader.boolean(e)),
        "connect_retries" => set!(o.connect_retries, reader.int(e)),
        "connect_backoff" => set!(o.connect_backoff, reader.boolean(e)),
        "permissions" => if let Some(p) = auth::permissions(reader, e) {
            o.permissions.import = p.publish;
            o.permissions.export = p.subscribe;
        },
        "pool_size" => set!(o.pool_size, reader.int(e).map(|n| pool_size(reader, e, n))),
        "accounts" => if let Some(items) = reader.strings(e) {
            o.accounts = items.into_iter().map(|(_, s)| s.to_string()).collect();
        },
        "compression" => set!(o.compression, compression(reader, e)),
        "ping_interval" => if let Some(interval) = reader.duration(e) {
            if interval > PING_INTERVAL_MAX {
                let text = "Cluster 'ping_interval' will reset to 30s which is the max for routes";
                reader.warnings.push(conf::Error::new(&e.pos, text));
            }
            o.ping_interval = Some(interval.min(PING_INTERVAL_MAX));
        },
        "ping_max" => set!(o.ping_max, reader.size(e).map(|n| u32::try_from(n).ok())),
        "write_deadline" => set!(o.write_deadline, reader.duration(e).map(Some)),
        "write_timeout" => set!(o.write_timeout, write_timeout(reader, e)),
    });
    Some(o)
}

fn pool_size(reader: &mut Reader, e: &Entry, n: i64) -> i32 {
    // Zero asks for the default, as an absent key does.
    match i32::try_from(n) {
        Ok(0) => ClusterOptions::default().pool_size,
        Ok(n) if n <= 1024 => n.max(-1),
        _ => {
            reader.error(&e.pos, format!("pool_size of {n} is too big: at most 1024"));
            ClusterOptions::default().pool_size
        }
    }
}

fn authorization(reader: &mut Reader, entry: &Entry, o: &mut ClusterOptions) {
    let Some(block) = auth::authorization(reader, entry) else { return };
    let a = block.authorization;
    if a.token.is_some() {
        reader.error(&entry.pos, "Cluster authorization does not support tokens");
    }
    if block.users_given {
        reader.error(&entry.pos, "Cluster authorization does not allow multiple users");
    }
    if let Some(permissions) = a.default_permissions {
        let text = "setting \"permissions\" within cluster authorization block is deprecated";
        reader.warn(&entry.pos, "authorization", text);
        o.permissions.import = permissions.publish;
        o.permissions.export = permissions.subscribe;
    }
    o.user = a.user;
    o.password = a.password;
    if let Some(timeout) = block.timeout {
        o.auth_timeout = timeout;
    }
}

fn routes(reader: &mut Reader, entry: &Entry, o: &mut ClusterOptions) {
    if reader.array(entry).is_none() {
        return;
    }
    for (pos, text) in reader.strings(entry).unwrap_or_default() {
        match ServerUrl::parse(text) {
            Ok(url) if o.routes.contains(&url) => {
                let shown = url.without_credentials();
                let text = format!("invalid use of field \"routes\": duplicate route {shown:?} is left out");
                reader.warnings.push(conf::Error::new(pos, text));
            }
            Ok(url) => o.routes.push(url),
            // The text may hold a password, so only what stands behind it is shown.
            Err(reason) => {
                let shown = text.rsplit_once('@').map_or(text, |(_, tail)| tail);
                reader.error(pos, format!("error parsing route url [{shown:?}]: {reason}"));
            }
        }
    }
}

pub(crate) fn write_timeout(reader: &mut Reader, e: &Entry) -> Option<WriteTimeout> {
    match reader.string(e)? {
        "default" => Some(WriteTimeout::Default),
        "close" => Some(WriteTimeout::Close),
        "retry" => Some(WriteTimeout::Retry),
        _ => {
            reader.error(&e.pos, "write_timeout must be 'default', 'close' or 'retry'");
            None
        }
    }
}

fn compression(reader: &mut Reader, entry: &Entry) -> Option<Compression> {
    match &entry.node.value {
        Value::Bool(true) => Some(Compression::Auto(RTT_THRESHOLDS.to_vec())),
        Value::Bool(false) => Some(Compression::Off),
        Value::String(mode) => compression_mode(reader, entry, mode, &[]),
        Value::Map(map) => {
            let mut mode = None;
            let mut thresholds: Vec<Duration> = Vec::new();
            block!(reader, "compression", map, |e| {
                "mode" => set!(mode, reader.text(e)),
                "rtt_thresholds" | "thresholds" | "rtts" | "rtt" => {
                    if reader.array(e).is_some() {
                        for (pos, text) in reader.strings(e).unwrap_or_default() {
                            match conf::duration::parse(text).ok().and_then(|n| u64::try_from(n).ok()) {
                                Some(nanos) => thresholds.push(Duration::from_nanos(nanos)),
                                None => reader.error(pos, format!("time: invalid duration {text:?}")),
                            }
                        }
                    }
                },
            });
            match mode {
                Some(mode) => compression_mode(reader, entry, &mode, &thresholds),
                None => compression_mode(reader, entry, "s2_auto", &thresholds),
            }
        }
        other => {
            let text =
                format!("field {:?} should be a boolean or a structure, got {}", entry.key, other.kind());
            reader.error(&entry.pos, text);
            None
        }
    }
}

fn compression_mode(
    reader: &mut Reader,
    entry: &Entry,
    mode: &str,
    rtts: &[Duration],
) -> Option<Compression> {
    Some(match mode.to_ascii_lowercase().as_str() {
        "off" | "disabled" => Compression::Off,
        "accept" => Compression::Accept,
        "s2_fast" | "fast" => Compression::Fast,
        "s2_better" | "better" => Compression::Better,
        "s2_best" | "best" => Compression::Best,
        "on" | "enabled" | "true" | "s2_auto" | "auto" => {
            let given: Vec<Duration> = if rtts.is_empty() { RTT_THRESHOLDS.to_vec() } else { rtts.to_vec() };
            let shown = || {
                let nanos = |d: &Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
                given.iter().map(|d| conf::duration::format(nanos(d))).collect::<Vec<_>>().join(" ")
            };
            if given.len() > 4 {
                let text = format!(
                    "compression mode \"s2_auto\" should have no more than 4 RTT thresholds: [{}]",
                    shown()
                );
                reader.error(&entry.pos, text);
                return None;
            }
            let set: Vec<_> = given.iter().filter(|d| !d.is_zero()).collect();
            if set.windows(2).any(|w| w[0] >= w[1]) {
                reader.error(
                    &entry.pos,
                    format!("RTT threshold values [{}] should be in ascending order", shown()),
                );
                return None;
            }
            if set.is_empty() {
                reader.error(&entry.pos, "compression mode \"s2_auto\" requires at least one RTT threshold");
                return None;
            }
            Compression::Auto(given)
        }
        _ => {
            reader.error(&entry.pos, format!("unsupported compression mode {mode:?}"));
            return None;
        }
    })
}
