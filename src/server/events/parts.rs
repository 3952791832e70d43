//! The objects of which events and answers are made.

use std::{net::IpAddr, time::Duration};

use broker::{Account, Stats};
use env::Wall;
use links::{Client, ClosedClient, Facts};
use serde_json::{Map, Value, json};

use crate::{Server, monitor, options::NATS_VERSION};

/// Switches that nats-server 2.15 shows, and how it has them.
const FEATURE_FLAGS: [(&str, bool); 4] = [
    ("js_ack_fc_v2", false),
    ("js_api_reply_v2", false),
    ("js_raft_delete_range", true),
    ("js_snapshot_sources", false),
];

/// What `flags` says of a server with JetStream: it is on, snapshots are binary, and groups may keep to an account.
const JETSTREAM_FLAGS: u64 = 1 | 2 | 4;

/// These switches as configured, or as nats-server has them.
pub(crate) fn feature_flags(o: &crate::options::Options) -> impl Iterator<Item = (&'static str, bool)> {
    FEATURE_FLAGS.iter().map(|&(name, on)| (name, o.feature_flags.get(name).copied().unwrap_or(on)))
}

/// Adds a field unless it is empty.
pub(super) fn add(to: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        to.insert(key.to_string(), Value::from(text));
    }
}

/// `server`: who speaks. Each has its own number and time.
pub(super) fn server(server: &Server) -> Value {
    let o = server.options();
    let seq = server.events.seq.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
    let mut m = Map::new();
    add(&mut m, "name", &server.name);
    add(&mut m, "host", &o.host);
    add(&mut m, "id", server.id());
    add(&mut m, "cluster", &server.cluster.name());
    add(&mut m, "domain", domain(&o));
    add(&mut m, "ver", NATS_VERSION);
    if !o.server_tags.is_empty() {
        m.insert("tags".into(), json!(o.server_tags));
    }
    if !o.server_metadata.is_empty() {
        m.insert("metadata".into(), json!(o.server_metadata));
    }
    let flags: Map<String, Value> =
        feature_flags(&o).map(|(name, on)| (name.to_string(), Value::Bool(on))).collect();
    m.insert("feature_flags".into(), Value::Object(flags));
    m.insert("jetstream".into(), Value::Bool(o.jetstream.is_some()));
    let flags = if o.jetstream.is_some() { JETSTREAM_FLAGS } else { 0 };
    m.insert("flags".into(), json!(flags));
    m.insert("seq".into(), json!(seq));
    m.insert("time".into(), json!(env::wall().rfc3339()));
    Value::Object(m)
}

/// The JetStream domain; empty without one.
pub(super) fn domain(o: &crate::options::Options) -> &str {
    o.jetstream.as_ref().and_then(|j| j.domain.as_deref()).unwrap_or_default()
}

/// `client`: somebody who is or was connected.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub id: u64,
    pub ip: IpAddr,
    pub start: Wall,
    pub stop: Option<Wall>,
    pub rtt: Option<Duration>,
    pub account: &'a str,
    pub facts: &'a Facts,
    /// The server that it is connected to, where that is said.
    pub server: &'a str,
    /// That server's cluster, if any.
    pub cluster: &'a str,
    /// Its account's name is given as a tag too.
    pub tagged: bool,
}

impl<'a> Who<'a> {
    /// Somebody who is connected.
    pub fn of(c: &Client, facts: &'a Facts) -> Who<'a> {
        Who {
            id: c.link.id,
            ip: c.peer.ip(),
            start: c.start,
            stop: None,
            rtt: Some(c.rtt()),
            account: &facts.account,
            facts,
            server: "",
            cluster: "",
            tagged: false,
        }
    }
    /// Somebody who is gone.
    pub fn of_closed(c: &'a ClosedClient) -> Who<'a> {
        Who {
            id: c.id,
            ip: c.peer.ip(),
            start: c.start,
            stop: Some(c.stop),
            rtt: Some(c.rtt),
            account: &c.facts.account,
            facts: &c.facts,
            server: "",
            cluster: "",
            tagged: false,
        }
    }
    /// The object, with its fields in nats-server's order.
    pub fn json(&self) -> Value {
        let mut m = Map::new();
        m.insert("start".into(), json!(self.start.rfc3339()));
        add(&mut m, "host", &self.ip.to_canonical().to_string());
        m.insert("id".into(), json!(self.id));
        add(&mut m, "acc", self.account);
        add(&mut m, "user", &self.facts.user);
        add(&mut m, "name", &self.facts.name);
        add(&mut m, "lang", &self.facts.lang);
        add(&mut m, "ver", &self.facts.version);
        if let Some(rtt) = self.rtt.filter(|d| !d.is_zero()) {
            m.insert("rtt".into(), nanos(rtt));
        }
        add(&mut m, "server", self.server);
        add(&mut m, "cluster", self.cluster);
        if let Some(stop) = self.stop {
            m.insert("stop".into(), json!(stop.rfc3339()));
        }
        if self.tagged {
            add(&mut m, "name_tag", self.account);
        }
        add(&mut m, "kind", "Client");
        add(&mut m, "client_type", self.facts.kind);
        Value::Object(m)
    }
}

/// A duration as Go's JSON has it.
pub(super) fn nanos(d: Duration) -> Value {
    json!(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// What an account has: connections, subscriptions, traffic.
pub(super) fn account(a: &Account) -> Value {
    json!(monitor::AccountStat::of(a))
}

/// `statsz`: what the server has.
pub(super) fn statistics(server: &Server) -> Value {
    let b = &server.broker;
    let s: &Stats = &b.stats;
    let accounts = b.accounts();
    let sent = json!({ "msgs": s.out_msgs.get(), "bytes": s.out_bytes.get() });
    let received = json!({ "msgs": s.in_msgs.get(), "bytes": s.in_bytes.get() });
    // Counters are read one after another, and may move in between.
    let less = |all: &broker::Counter, part: &broker::Counter| all.get().saturating_sub(part.get());
    let mut v = json!({
        "start": server.start.rfc3339(),
        "mem": env::process::rss_bytes(),
        "cores": env::Workers::cores(),
        "cpu": cpu_percent(server),
        "connections": b.connections(),
        "total_connections": s.connections_total.get(),
        "active_accounts": accounts.iter().filter(|a| a.connections() > 0).count(),
        "subscriptions": b.subscriptions(),
        "sent": sent,
        "sent_to_clients": { "msgs": less(&s.out_msgs, &s.route_out_msgs), "bytes": less(&s.out_bytes, &s.route_out_bytes) },
        "received": received,
        "received_from_clients": { "msgs": less(&s.in_msgs, &s.route_in_msgs), "bytes": less(&s.in_bytes, &s.route_in_bytes) },
        "slow_consumers": s.slow_consumers.get(),
    });
    let [slow, stale] =
        monitor::by_kind(s).map(|(key, n)| (key, (n != monitor::ByKind::default()).then(|| json!(n))));
    let count = |n: &broker::Counter| (n.get() > 0).then(|| json!(n.get()));
    let rest = [slow, ("stale_connections", count(&s.stale)), stale, ("stalled_clients", count(&s.stalled))];
    for (key, value) in rest {
        if let Some(value) = value {
            v[key] = value;
        }
    }
    if let Some(mesh) = &server.cluster.mesh {
        let routes: Vec<Value> = mesh.routes().iter().map(|r| route(r)).collect();
        if !routes.is_empty() {
            v["routes"] = Value::Array(routes);
        }
    }
    v["active_servers"] = json!(1 + server.cluster.mesh.as_ref().map_or(0, |m| m.counts().1));
    if let Some(js) = monitor::jetstream_stats(server) {
        v["jetstream"] = json!(js);
    }
    v["gomaxprocs"] = json!(server.workers());
    v
}

fn route(r: &links::route::Route) -> Value {
    let traffic = |t: broker::Traffic| json!({ "msgs": t.msgs, "bytes": t.bytes });
    let received = broker::Traffic { msgs: r.link.in_msgs.get(), bytes: r.link.in_bytes.get() };
    json!({
        "rid": r.link.id,
        "name": r.remote_name,
        "sent": traffic(r.link.out_traffic()),
        "received": traffic(received),
        "pending": r.link.pending_bytes(),
    })
}

/// Percent of a core that the process has used since the last look, a second ago or longer.
fn cpu_percent(server: &Server) -> f64 {
    let mut last = server.events.cpu.lock();
    let (now, used) = (env::now(), env::process::cpu_seconds());
    let span = now.since(last.0);
    if span >= Duration::from_millis(500) {
        let percent = (used - last.1) / span.as_secs_f64() * 100.0;
        *last = (now, used, (percent * 10.0).round() / 10.0);
    }
    last.2
}
