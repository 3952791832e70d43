//! The `accounts` block, and mappings.

use super::reader::set;
use super::{Reader, auth, block};
use crate::options::auth::{
    AccountJetStream, AccountLimits, AccountOptions, ClusterTraffic, Export, ExportKind, Import,
    LatencyOptions, Mapping, MappingDestination, ResponseType, TraceDestination,
};
use crate::options::names;
use conf::{Entry, Map, Node, Pos, Value};

/// The account that exists without being configured.
pub(crate) const GLOBAL_ACCOUNT: &str = "$G";

pub(crate) fn read(reader: &mut Reader, entry: &Entry) -> Vec<AccountOptions> {
    match &entry.node.value {
        // A list of bare names.
        Value::Array(_) => {
            let names = reader.strings(entry).unwrap_or_default();
            let mut out: Vec<AccountOptions> = Vec::new();
            for (pos, name) in names {
                if reserved(reader, pos, name) {
                    continue;
                }
                if out.iter().any(|a| a.name == name) {
                    reader.error(pos, format!("Duplicate Account Entry: {name}"));
                    continue;
                }
                out.push(AccountOptions { name: name.to_string(), ..AccountOptions::default() });
            }
            out
        }
        Value::Map(map) => map.into_iter().filter_map(|e| account(reader, e)).collect(),
        other => {
            reader.error(
                &entry.pos,
                format!("Expected accounts to be a map or an array, got {}", other.kind()),
            );
            Vec::new()
        }
    }
}

fn reserved(reader: &mut Reader, pos: &Pos, name: &str) -> bool {
    if name == GLOBAL_ACCOUNT {
        reader.error(pos, format!("{name:?} is a Reserved Account"));
        return true;
    }
    false
}

fn account(reader: &mut Reader, entry: &Entry) -> Option<AccountOptions> {
    let map = match &entry.node.value {
        Value::Map(map) => map,
        _ if entry.used_as_variable => return None,
        _ => {
            reader.error(&entry.pos, "Expected map entries for accounts");
            return None;
        }
    };
    if reserved(reader, &entry.pos, &entry.key) {
        return None;
    }
    let mut a = AccountOptions { name: entry.key.clone(), ..AccountOptions::default() };
    block!(reader, "account", map, |e| {
        "nkey" => if let Some(key) = reader.string(e) {
            if names::is_public_nkey(key, 'A') {
                a.nkey = Some(key.to_string());
            } else {
                reader.error(&e.pos, format!("Not a valid public nkey for an account: {key:?}"));
            }
        },
        "users" => a.users = auth::users(reader, e),
        "exports" => a.exports = list(reader, e, "Exports", export),
        "imports" => a.imports = list(reader, e, "Imports", import),
        "jetstream" => set!(a.jetstream, jetstream(reader, e)),
        "default_permissions" => set!(a.default_permissions, auth::permissions(reader, e).map(Some)),
        "mappings" | "maps" => a.mappings = mappings(reader, e),
        "limits" => a.limits = limits(reader, e),
        "msg_trace" | "trace_dest" => a.trace = trace(reader, e),
    });
    Some(a)
}

fn list<T>(
    reader: &mut Reader,
    e: &Entry,
    what: &str,
    read: fn(&mut Reader, &Pos, &Map) -> Option<T>,
) -> Vec<T> {
    let Value::Array(items) = &e.node.value else {
        let text = format!("{what} should be an array, got {}", e.node.value.kind());
        reader.error(&e.pos, text);
        return Vec::new();
    };
    let mut out = Vec::new();
    for item in items {
        match &item.value {
            Value::Map(map) => out.extend(read(reader, &item.pos, map)),
            other => {
                let text = format!("{what} entries should be maps, got {}", other.kind());
                reader.error(&item.pos, text);
            }
        }
    }
    out
}

fn export(reader: &mut Reader, pos: &Pos, map: &Map) -> Option<Export> {
    let errors_before = reader.errors.len();
    let mut kinds: Vec<(ExportKind, &Pos, &str)> = Vec::new();
    let (mut response_at, mut threshold_at, mut latency_at, mut trace_at) = (None, None, None, None);
    let mut out = Export {
        kind: ExportKind::Stream,
        subject: String::new(),
        accounts: None,
        account_token_position: 0,
        response: ResponseType::default(),
        response_threshold: None,
        latency: None,
        allow_trace: false,
    };
    block!(reader, "export", map, |e| {
        "stream" => if let Some(s) = reader.string(e) {
            kinds.push((ExportKind::Stream, &e.pos, s));
        },
        "service" => if let Some(s) = reader.string(e) {
            kinds.push((ExportKind::Service, &e.pos, s));
        },
        "accounts" => if reader.array(e).is_some() && let Some(names) = reader.strings(e) {
            out.accounts = Some(names.into_iter().map(|(_, s)| s.to_string()).collect());
        },
        "response" | "response_type" => {
            response_at = Some(&e.pos);
            set!(out.response, response_type(reader, e));
        },
        "threshold" | "response_threshold" | "response_max_time" | "response_time" => {
            threshold_at = Some(&e.pos);
            out.response_threshold = match &e.node.value {
                Value::String(text) => {
                    let nanos = conf::duration::parse(text).ok().and_then(|n| u64::try_from(n).ok());
                    if nanos.is_none() {
                        let text = format!("Expected response threshold to be a parseable time duration, got {text:?}");
                        reader.error(&e.pos, text);
                    }
                    nanos.map(std::time::Duration::from_nanos)
                }
                other => {
                    let kind = other.kind();
                    let text = format!("Expected response threshold to be a parseable time duration, got {kind}");
                    reader.error(&e.pos, text);
                    None
                }
            };
        },
        "latency" => {
            latency_at = Some(&e.pos);
            out.latency = latency(reader, e);
        },
        "account_token_position" => if let Some(n) = reader.int(e) {
            match u32::try_from(n) {
                Ok(n) => out.account_token_position = n,
                Err(_) => reader.error(&e.pos, format!("account_token_position of {n} is out of range")),
            }
        },
        "allow_trace" => {
            trace_at = Some(&e.pos);
            set!(out.allow_trace, reader.boolean(e));
        },
    });
    let (kind, _, subject) = one_kind(reader, pos, &kinds)?;
    out.kind = kind;
    out.subject = subject.to_string();
    if !names::is_subject(subject) {
        reader.error(kinds[0].1, format!("{subject:?} is not a valid subject to export"));
    }
    if kind == ExportKind::Stream {
        for (at, what) in [
            (response_at, "response"),
            (threshold_at, "threshold"),
            (latency_at, "latency"),
            (trace_at, "allow_trace"),
        ] {
            if let Some(at) = at {
                reader.error(at, format!("Detected {what} directive on non-service"));
            }
        }
    }
    if let (Some(at), Some(l)) = (latency_at, &out.latency)
        && out.response != ResponseType::Singleton
    {
        // What takes several answers has no one latency.
        let to = &l.subject;
        let text = format!(
            "Error adding service latency sampling for {subject:?} on subject {to:?}: bad service response type"
        );
        reader.error(at, text);
    }
    if out.account_token_position > 0 {
        let position = out.account_token_position as usize;
        if subject.split('.').nth(position - 1) != Some("*") {
            let text =
                format!("account_token_position {position} of export {subject:?} must name a '*' token");
            reader.error(kinds[0].1, text);
        }
    }
    (reader.errors.len() == errors_before).then_some(out)
}

/// Exactly one `stream` or `service`.
fn one_kind<'a, T: Copy>(
    reader: &mut Reader,
    pos: &Pos,
    kinds: &[(ExportKind, &'a Pos, T)],
) -> Option<(ExportKind, &'a Pos, T)> {
    match kinds {
        [one] => Some(*one),
        [] => {
            reader.error(pos, "an export or import must name a stream or a service");
            None
        }
        [(first, ..), (_, second, _), ..] => {
            let (now, before) = match first {
                ExportKind::Service => ("stream", "service"),
                ExportKind::Stream => ("service", "stream"),
            };
            reader.error(second, format!("Detected {now} but already saw a {before}"));
            None
        }
    }
}

fn response_type(reader: &mut Reader, e: &Entry) -> Option<ResponseType> {
    let name = reader.string(e)?;
    Some(match name.to_ascii_lowercase().as_str() {
        "single" | "singleton" => ResponseType::Singleton,
        "stream" => ResponseType::Stream,
        "chunk" | "chunked" => ResponseType::Chunked,
        _ => {
            reader.error(&e.pos, format!("Unknown response type: {name:?}"));
            return None;
        }
    })
}

fn latency(reader: &mut Reader, entry: &Entry) -> Option<LatencyOptions> {
    let mut out = LatencyOptions { sampling: Some(100), subject: String::new() };
    match &entry.node.value {
        Value::String(subject) => out.subject = subject.clone(),
        Value::Map(map) => {
            block!(reader, "latency", map, |e| {
                "sampling" => out.sampling = sampling(reader, e)?,
                "subject" => out.subject = reader.string(e)?.to_string(),
            });
        }
        other => {
            reader.error(
                &entry.pos,
                format!("Expected latency entry to be a map/struct or string, got {}", other.kind()),
            );
            return None;
        }
    }
    if out.subject.is_empty() {
        reader.error(&entry.pos, "Latency subject required, but missing");
        return None;
    }
    if !names::is_literal_subject(&out.subject) {
        reader.error(&entry.pos, format!("latency subject {:?}: invalid publish subject", out.subject));
        return None;
    }
    Some(out)
}

/// 1 to 100, "N%" or "headers" (`None`).
fn sampling(reader: &mut Reader, e: &Entry) -> Option<Option<u8>> {
    let percent = match &e.node.value {
        Value::Int(n) => *n,
        Value::String(text) if text.trim().eq_ignore_ascii_case("headers") => return Some(None),
        Value::String(text) => match text.trim().trim_end_matches('%').parse::<i64>() {
            Ok(n) => n,
            Err(_) => {
                reader.error(&e.pos, format!("Failed to parse latency sample: {text:?} is no percentage"));
                return None;
            }
        },
        other => {
            reader.error(
                &e.pos,
                format!("Expected latency sample to be a string or integer, got {}", other.kind()),
            );
            return None;
        }
    };
    match u8::try_from(percent).ok().filter(|p| (1..=100).contains(p)) {
        Some(p) => Some(Some(p)),
        None => {
            reader.error(&e.pos, "bad sampling percentage, should be 1-100");
            None
        }
    }
}

fn import(reader: &mut Reader, pos: &Pos, map: &Map) -> Option<Import> {
    let errors_before = reader.errors.len();
    let mut kinds: Vec<(ExportKind, &Pos, &Entry)> = Vec::new();
    let (mut to, mut prefix, mut share, mut allow_trace) = (None, None, false, false);
    let mut trace_at = None;
    block!(reader, "import", map, |e| {
        "stream" => kinds.push((ExportKind::Stream, &e.pos, e)),
        "service" => kinds.push((ExportKind::Service, &e.pos, e)),
        "to" => set!(to, reader.text(e)),
        "prefix" => set!(prefix, reader.text(e)),
        "share" => set!(share, reader.boolean(e)),
        "allow_trace" => {
            trace_at = Some(&e.pos);
            set!(allow_trace, reader.boolean(e));
        },
    });
    let (kind, at, source) = one_kind(reader, pos, &kinds)?;
    let what = if kind == ExportKind::Stream { "Stream" } else { "Service" };
    let Value::Map(map) = &source.node.value else {
        let text = format!("{what} entry should be an account map, got {}", source.node.value.kind());
        reader.error(at, text);
        return None;
    };
    let (mut account, mut subject) = (None, None);
    block!(reader, "import source", map, |e| {
        "account" => set!(account, reader.text(e)),
        "subject" => set!(subject, reader.text(e)),
    });
    let (Some(account), Some(subject)) = (account, subject) else {
        reader.error(at, "Expect an account name and a subject");
        return None;
    };
    if !names::is_subject(&subject) {
        reader.error(at, format!("{subject:?} is not a valid subject to import"));
    }
    if let Some(trace_at) = trace_at.filter(|_| kind == ExportKind::Service) {
        reader.error(trace_at, "Detected allow_trace directive on a non-stream");
    }
    if kind == ExportKind::Stream && to.is_some() && prefix.is_some() {
        // nats-server lets the later key win; which one is meant cannot be known.
        reader.error(at, "a stream import takes 'to' or 'prefix', not both");
    }
    let out = Import { kind, account, subject, to, prefix, share, allow_trace };
    (reader.errors.len() == errors_before).then_some(out)
}

fn jetstream(reader: &mut Reader, entry: &Entry) -> Option<Option<AccountJetStream>> {
    let map = match &entry.node.value {
        Value::Bool(on) => return Some(on.then(AccountJetStream::default)),
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "enabled" | "enable" => return Some(Some(AccountJetStream::default())),
            "disabled" | "disable" => return Some(None),
            _ => {
                let text = format!("Expected 'enabled' or 'disabled' for string value, got '{word}'");
                reader.error(&entry.pos, text);
                return None;
            }
        },
        Value::Map(map) => map,
        other => {
            let text = format!("Expected map, bool or string to define JetStream, got {}", other.kind());
            reader.error(&entry.pos, text);
            return None;
        }
    };
    let mut o = AccountJetStream::default();
    let mut enabled = true;
    block!(reader, "account jetstream", map, |e| {
        "enabled" | "enable" => set!(enabled, reader.boolean(e)),
        "max_memory" | "max_mem" | "mem" | "memory" => o.max_memory = limit(reader, e),
        "max_store" | "max_file" | "max_disk" | "store" | "disk" => o.max_store = limit(reader, e),
        "max_streams" | "streams" => o.max_streams = limit(reader, e),
        "max_consumers" | "consumers" => o.max_consumers = limit(reader, e),
        "max_bytes_required" | "max_stream_bytes" | "max_bytes" => match &e.node.value {
            Value::Bool(b) => o.max_bytes_required = *b,
            other => {
                let text = format!("Expected a parseable bool for {:?}, but it is {}", e.key, other.kind());
                reader.error(&e.pos, text);
            }
        },
        "mem_max_stream_bytes" | "memory_max_stream_bytes" => o.memory_max_stream_bytes = limit(reader, e),
        "disk_max_stream_bytes" | "store_max_stream_bytes" => o.store_max_stream_bytes = limit(reader, e),
        "max_ack_pending" => o.max_ack_pending = limit(reader, e),
        "cluster_traffic" => match &e.node.value {
            Value::String(s) if s == "system" => o.cluster_traffic = ClusterTraffic::System,
            Value::String(s) if s == "owner" => o.cluster_traffic = ClusterTraffic::Owner,
            _ => reader.error(&e.pos, "Expected 'system' or 'owner' string value for \"cluster_traffic\""),
        },
    });
    Some(enabled.then_some(o))
}

/// A size or count; negative is no limit.
fn limit(reader: &mut Reader, e: &Entry) -> Option<i64> {
    if let Value::Int(n) = e.node.value {
        return (n >= 0).then_some(n);
    }
    let text = format!("Expected a parseable size for {:?}, but it is {}", e.key, e.node.value.kind());
    reader.error(&e.pos, text);
    None
}

fn limits(reader: &mut Reader, entry: &Entry) -> AccountLimits {
    let mut out = AccountLimits::default();
    let Value::Map(map) = &entry.node.value else {
        let text = format!("Expected account limits to be a map/struct, got {}", entry.node.value.kind());
        reader.error(&entry.pos, text);
        return out;
    };
    let unlimited = |n: i64| Some(n).filter(|n| *n >= 0);
    block!(reader, "account limits", map, |e| {
        "max_connections" | "max_conn" => set!(out.max_connections, reader.int(e).map(unlimited)),
        "max_subscriptions" | "max_subs" => set!(out.max_subscriptions, reader.int(e).map(unlimited)),
        "max_payload" | "max_pay" => set!(out.max_payload, reader.int(e).map(unlimited)),
        "max_leafnodes" | "max_leafs" => set!(out.max_leafnodes, reader.int(e).map(unlimited)),
    });
    out
}

fn trace(reader: &mut Reader, entry: &Entry) -> Option<TraceDestination> {
    let mut out = TraceDestination { subject: String::new(), sampling: 100 };
    match &entry.node.value {
        Value::String(subject) => out.subject = subject.clone(),
        Value::Map(map) => {
            block!(reader, "msg_trace", map, |e| {
                "dest" => set!(out.subject, reader.string(e).map(str::to_string)),
                "sampling" => {
                    let percent = match &e.node.value {
                        Value::Int(n) => Some(*n),
                        Value::String(text) => text.trim().trim_end_matches('%').parse().ok(),
                        _ => None,
                    };
                    match percent.and_then(|p| u8::try_from(p).ok()).filter(|p| (1..=100).contains(p)) {
                        Some(p) => out.sampling = p,
                        None => reader.error(
                            &e.pos,
                            "Trace destination sampling value is invalid, needs to be a percentage of 1 to 100",
                        ),
                    }
                },
            });
            if out.subject.is_empty() {
                reader.warn(
                    &entry.pos,
                    &entry.key,
                    "Trace destination sampling ignored since no destination was set",
                );
                return None;
            }
        }
        other => {
            let text = format!(
                "Expected account message trace {:?} to be a string or a map/struct, got {}",
                entry.key,
                other.kind()
            );
            reader.error(&entry.pos, text);
            return None;
        }
    }
    if out.subject.is_empty() {
        return None;
    }
    if !names::is_literal_subject(&out.subject) {
        reader.error(&entry.pos, format!("Trace destination {:?} is not valid", out.subject));
        return None;
    }
    Some(out)
}

/// A mappings block, of an account or at the top.
pub(crate) fn mappings(reader: &mut Reader, entry: &Entry) -> Vec<Mapping> {
    let mut out = Vec::new();
    let Some(map) = reader.map(entry) else { return out };
    for e in map {
        if !names::is_subject(&e.key) {
            reader.error(&e.pos, format!("Subject {:?} is not a valid subject", e.key));
            continue;
        }
        let destinations = match &e.node.value {
            Value::String(subject) => {
                vec![MappingDestination { subject: subject.clone(), weight: 100, cluster: None }]
            }
            Value::Map(_) => destination(reader, &e.node).into_iter().collect(),
            Value::Array(items) => items.iter().filter_map(|item| destination(reader, item)).collect(),
            _ => {
                reader.error(&e.pos, "Expected an entry for the mapping destination");
                continue;
            }
        };
        check_weights(reader, e, &destinations);
        out.push(Mapping { source: e.key.clone(), destinations });
    }
    out
}

/// The weights of each cluster, and those of no cluster, must leave at most 100 %.
fn check_weights(reader: &mut Reader, e: &Entry, destinations: &[MappingDestination]) {
    for d in destinations {
        let total: u32 =
            destinations.iter().filter(|o| o.cluster == d.cluster).map(|o| u32::from(o.weight)).sum();
        if total > 100 {
            reader.error(
                &e.pos,
                format!("Error adding mapping for {:?} : total weight needs to be <= 100", e.key),
            );
            return;
        }
    }
}

fn destination(reader: &mut Reader, item: &Node) -> Option<MappingDestination> {
    let Value::Map(map) = &item.value else {
        reader.error(&item.pos, "Expected an entry for the mapping destination");
        return None;
    };
    let (mut subject, mut weight, mut cluster) = (String::new(), None, None);
    block!(reader, "mapping destination", map, |e| {
        "dest" | "destination" => set!(subject, reader.string(e).map(str::to_string)),
        "weight" => weight = Some(read_weight(reader, e)?),
        "cluster" => set!(cluster, reader.text(e)),
    });
    if subject.is_empty() {
        reader.error(&item.pos, "Missing destination of a mapping");
        return None;
    }
    let Some(weight) = weight else {
        reader.error(&item.pos, format!("Missing weight for mapping destination {subject:?}"));
        return None;
    };
    Some(MappingDestination { subject, weight, cluster })
}

fn read_weight(reader: &mut Reader, e: &Entry) -> Option<u8> {
    let (percent, shown) = match &e.node.value {
        Value::Int(n) => (Some(*n), n.to_string()),
        Value::String(text) => (text.trim().trim_end_matches('%').parse().ok(), format!("{text:?}")),
        other => {
            reader.error(&e.pos, format!("Unknown entry type for weight: {}", other.kind()));
            return None;
        }
    };
    let weight = percent.and_then(|n| u8::try_from(n).ok()).filter(|n| *n <= 100);
    if weight.is_none() {
        reader.error(&e.pos, format!("Invalid weight {shown} for mapping destination"));
    }
    weight
}
