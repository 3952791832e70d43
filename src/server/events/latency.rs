//! What crosses account borders with a service request: who asks, and how long the answer took.

use std::{sync::Arc, time::Duration};

use broker::{Account, Deliveries, Latency, Link};
use serde_json::{Map, Value, json};

use super::{encode, parts, parts::Who, publish_with};
use crate::Server;

/// The JSON of `Nats-Request-Info`. A request that has come to the importer by another import, which has put `before` there, is still its
/// first requestor's, and uses the importer's service (`svc`).
pub fn request_info(
    server: &Arc<Server>,
    requestor: &Link,
    importer: &Account,
    share: bool,
    before: Option<&[u8]>,
) -> String {
    let asks = match before.and_then(|b| serde_json::from_slice(b).ok()) {
        Some(before) => passed_on(server, before, &importer.name, share),
        None => person(server, requestor, &importer.name, share),
    };
    String::from_utf8(encode::json(&asks)).expect("JSON is UTF-8")
}

/// Who asked by an import of a service that is itself imported, by `account`.
fn passed_on(server: &Server, before: Map<String, Value>, account: &str, share: bool) -> Value {
    let mut m = Map::new();
    for (key, value) in before.into_iter().filter(|(key, _)| key != "svc") {
        let is_account = key == "acc";
        m.insert(key, value);
        if is_account {
            m.insert("svc".into(), json!(account));
        }
    }
    if share && !m.contains_key("server") {
        m.insert("server".into(), json!(server.name));
        parts::add(&mut m, "cluster", &server.cluster.name());
    }
    Value::Object(m)
}

/// Somebody in an account: with all that is known, or without what the account does not share.
fn person(server: &Server, link: &Link, account: &str, share: bool) -> Value {
    let mut anonymous = Map::new();
    anonymous.insert("acc".into(), json!(account));
    if share && let Some(c) = server.links.clients.get(link.id) {
        let (facts, cluster) = (c.facts.lock(), server.cluster.name());
        return Who { account, server: &server.name, cluster: &cluster, ..Who::of(&c, &facts) }.json();
    }
    let rtt = server.links.clients.rtt(link.id);
    if !rtt.is_zero() {
        anonymous.insert("rtt".into(), parts::nanos(rtt));
    }
    Value::Object(anonymous)
}

/// The key as Go's HTTP library writes it: each part begins with a capital.
fn canonical(key: &str) -> String {
    let part = |p: &str| {
        let p = p.to_ascii_lowercase();
        let mut chars = p.chars();
        chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
    };
    key.split('-').map(part).collect::<Vec<_>>().join("-")
}

/// A latency was measured.
pub fn latency(server: &Arc<Server>, d: &mut Deliveries, l: &Latency<'_>) {
    if !l.exporter.has_interest(l.subject) {
        return;
    }
    let begun = env::now();
    let rtt = |link: &Link| server.links.clients.rtt(link.id);
    let importer = l.importer.as_ref().map(|a| a.name.clone()).unwrap_or_default();
    let requestor_rtt = rtt(l.requestor);
    let mut m = Map::new();
    m.insert("type".into(), json!("io.nats.server.metric.v1.service_latency"));
    m.insert("id".into(), json!(server.events.id()));
    m.insert("timestamp".into(), json!(env::wall().rfc3339()));
    m.insert("status".into(), json!(l.status));
    let description = match l.status {
        400 => "Bad Request",
        408 => "Request Timeout",
        503 => "Service Unavailable",
        504 => "Service Timeout",
        _ => "",
    };
    if !description.is_empty() {
        m.insert("description".into(), json!(description));
    }
    m.insert("requestor".into(), person(server, l.requestor, &importer, l.share));
    let mut responder_rtt = Duration::ZERO;
    if let Some(link) = l.responder {
        responder_rtt = rtt(link);
        m.insert("responder".into(), person(server, link, &l.exporter.name, true));
    }
    if !l.trigger.is_empty() {
        let mut header = std::collections::BTreeMap::<String, Vec<&str>>::new();
        for (key, value) in l.trigger {
            header.entry(canonical(key)).or_default().push(value);
        }
        m.insert("header".into(), json!(header));
    }
    // The request left its client half a round trip before it came here, and its answer takes as long.
    let sent = env::Wall(l.start.0.saturating_sub(i64::try_from(requestor_rtt.as_nanos()).unwrap_or(0)));
    m.insert("start".into(), json!(sent.rfc3339()));
    let system = begun.elapsed();
    let (service, system, total) = match l.status {
        200 => (l.total.saturating_sub(responder_rtt), system, l.total + requestor_rtt + system),
        _ => (Duration::ZERO, Duration::ZERO, Duration::ZERO),
    };
    m.insert("service".into(), parts::nanos(service));
    m.insert("system".into(), parts::nanos(system));
    m.insert("total".into(), parts::nanos(total));
    publish_with(server, d, l.exporter, l.subject, b"", &encode::json(&Value::Object(m)));
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn keys_are_written_as_go_does() {
        for (key, want) in [
            ("traceparent", "Traceparent"),
            ("X-B3-TraceId", "X-B3-Traceid"),
            ("b3", "B3"),
            ("", ""),
            ("a--b", "A--B"),
        ] {
            assert_eq!(canonical(key), want);
        }
    }
}
