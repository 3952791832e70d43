//! `/connz`: clients that are there and clients that are gone.
//!
//! A page is made in two steps, so that ten thousand connections hold nothing up: the registry's lock is held for as
//! long as it takes to copy references; what the order needs is then read from each connection by itself, and only
//! the entries of the page are described.

use std::{sync::Arc, time::Duration};

use env::Wall;
use links::{Client, ClosedClient, Facts};
use serde::Serialize;

use super::{
    json::{Time, age, duration, is_default, text},
    options::{ConnState, ConnzOptions, LIMIT_DEFAULT},
};
use crate::Server;

/// The answer. Field names, order and omission are nats-server's.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Connz {
    pub server_id: String,
    pub now: Time,
    /// In this page.
    pub num_connections: usize,
    /// In all, of the account if one was named.
    pub total: usize,
    pub offset: usize,
    pub limit: usize,
    /// `None` (null) where the account is not known.
    pub connections: Option<Vec<ConnInfo>>,
}

/// A connection.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct ConnInfo {
    pub cid: u64,
    pub kind: &'static str,
    #[serde(rename = "type")]
    pub transport: &'static str,
    pub ip: String,
    pub port: u16,
    pub start: Time,
    pub last_activity: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Time>,
    #[serde(skip_serializing_if = "is_default")]
    pub reason: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    pub rtt: String,
    pub uptime: String,
    pub idle: String,
    pub pending_bytes: usize,
    pub in_msgs: u64,
    pub out_msgs: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub stalls: u64,
    pub subscriptions: usize,
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub lang: String,
    #[serde(skip_serializing_if = "is_default")]
    pub version: String,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_version: String,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_cipher_suite: String,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_peer_certs: Vec<PeerCertInfo>,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_first: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub authorized_user: String,
    #[serde(skip_serializing_if = "is_default")]
    pub account: String,
    #[serde(skip_serializing_if = "is_default")]
    pub subscriptions_list: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub subscriptions_list_detail: Vec<SubDetail>,
    #[serde(skip_serializing_if = "is_default")]
    pub name_tag: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyInfo>,
}

/// A certificate that a client has shown.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PeerCertInfo {
    /// Its subject as RFC 2253 writes it.
    #[serde(skip_serializing_if = "is_default")]
    pub subject: String,
    /// Of its public key, in hexadecimal.
    pub spki_sha256: String,
    /// Of the whole, in hexadecimal.
    pub cert_sha256: String,
}

/// The proxy that a connection came through.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ProxyInfo {
    /// Its public key.
    pub key: String,
}

/// A subscription.
#[derive(Clone, Default, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct SubDetail {
    #[serde(skip_serializing_if = "is_default")]
    pub account: String,
    #[serde(skip_serializing_if = "is_default")]
    pub account_tag: String,
    pub subject: String,
    #[serde(skip_serializing_if = "is_default")]
    pub qgroup: String,
    pub sid: String,
    pub msgs: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    pub cid: u64,
}

/// What entries are sorted by. Ties are left in the order of ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sort {
    Cid,
    Start,
    Subs,
    Pending,
    OutMsgs,
    InMsgs,
    OutBytes,
    InBytes,
    Last,
    Idle,
    Uptime,
    Stop,
    Reason,
    Rtt,
}

impl Sort {
    fn parse(s: &str, state: ConnState) -> Result<Sort, String> {
        let sort = match s {
            "" | "cid" => Sort::Cid,
            "start" => Sort::Start,
            "subs" => Sort::Subs,
            "pending" => Sort::Pending,
            "msgs_to" => Sort::OutMsgs,
            "msgs_from" => Sort::InMsgs,
            "bytes_to" => Sort::OutBytes,
            "bytes_from" => Sort::InBytes,
            "last" => Sort::Last,
            "idle" => Sort::Idle,
            "uptime" => Sort::Uptime,
            "stop" => Sort::Stop,
            "reason" => Sort::Reason,
            "rtt" => Sort::Rtt,
            _ => return Err(format!("invalid sorting option: {s}")),
        };
        if matches!(sort, Sort::Stop | Sort::Reason) && state != ConnState::Closed {
            return Err(format!("sort by {s} only valid on closed connections"));
        }
        Ok(sort)
    }

    /// Where `e` stands: the smallest first.
    fn key(self, e: &Entry, now: Wall) -> (u128, &'static str) {
        let down = |n: u128| u128::MAX - n;
        let time = |w: Wall| u128::from(w.0.max(0) as u64);
        let n = match self {
            Sort::Cid => 0,
            Sort::Start => time(e.start()),
            Sort::Subs => down(e.subscriptions() as u128),
            Sort::Pending => down(e.pending() as u128),
            Sort::OutMsgs => down(u128::from(e.sent().msgs)),
            Sort::InMsgs => down(u128::from(e.received().msgs)),
            Sort::OutBytes => down(u128::from(e.sent().bytes)),
            Sort::InBytes => down(u128::from(e.received().bytes)),
            Sort::Last => down(time(e.last())),
            Sort::Idle => down(now.since(e.last()).as_nanos()),
            Sort::Uptime => e.end(now).since(e.start()).as_nanos(),
            Sort::Stop => down(time(e.end(now))),
            Sort::Reason => return (0, e.reason()),
            Sort::Rtt => down(e.rtt().as_nanos()),
        };
        (n, "")
    }
}

/// A connection of either state.
enum Entry {
    Open(Arc<Client>),
    Closed(Arc<ClosedClient>),
}

impl Entry {
    fn id(&self) -> u64 {
        match self {
            Entry::Open(c) => c.link.id,
            Entry::Closed(c) => c.id,
        }
    }
    fn start(&self) -> Wall {
        match self {
            Entry::Open(c) => c.start,
            Entry::Closed(c) => c.start,
        }
    }
    /// Until when it was there.
    fn end(&self, now: Wall) -> Wall {
        match self {
            Entry::Open(_) => now,
            Entry::Closed(c) => c.stop,
        }
    }
    fn last(&self) -> Wall {
        match self {
            Entry::Open(c) => c.last_activity(),
            Entry::Closed(c) => c.last_activity,
        }
    }
    fn reason(&self) -> &'static str {
        match self {
            Entry::Open(_) => "",
            Entry::Closed(c) => c.reason.text(),
        }
    }
    fn rtt(&self) -> Duration {
        match self {
            Entry::Open(c) => c.rtt(),
            Entry::Closed(c) => c.rtt,
        }
    }
    fn pending(&self) -> usize {
        match self {
            Entry::Open(c) => c.link.pending_bytes(),
            Entry::Closed(_) => 0,
        }
    }
    fn subscriptions(&self) -> usize {
        match self {
            Entry::Open(c) => c.link.subscriptions(),
            Entry::Closed(c) => c.subscriptions.len(),
        }
    }
    fn sent(&self) -> broker::Traffic {
        match self {
            Entry::Open(c) => c.link.out_traffic(),
            Entry::Closed(c) => c.sent,
        }
    }
    fn received(&self) -> broker::Traffic {
        match self {
            Entry::Open(c) => broker::Traffic { msgs: c.link.in_msgs.get(), bytes: c.link.in_bytes.get() },
            Entry::Closed(c) => c.received,
        }
    }
    fn facts<R>(&self, f: impl FnOnce(&Facts) -> R) -> R {
        match self {
            Entry::Open(c) => f(&c.facts.lock()),
            Entry::Closed(c) => f(&c.facts),
        }
    }
    /// Whether it has a subscription that shares subjects with `subject`.
    fn listens_to(&self, subject: &[u8]) -> bool {
        match self {
            Entry::Open(c) => {
                c.link.list_subscriptions().iter().any(|s| subject::collides(s.subject(), subject))
            }
            Entry::Closed(c) => c.subscriptions.iter().any(|s| subject::collides(&s.0, subject)),
        }
    }
    /// What is shown of its subscriptions.
    fn list(&self, account: &str) -> Vec<SubDetail> {
        match self {
            Entry::Open(c) => c.link.list_subscriptions().iter().map(|s| SubDetail::of(s, "")).collect(),
            Entry::Closed(c) => c
                .subscriptions
                .iter()
                .map(|(subject, queue, sid, delivered, max)| SubDetail {
                    account: account.to_string(),
                    account_tag: account.to_string(),
                    subject: text(subject),
                    qgroup: text(queue),
                    sid: text(sid),
                    msgs: *delivered,
                    max: *max,
                    cid: c.id,
                })
                .collect(),
        }
    }

    fn describe(&self, o: &ConnzOptions, now: Wall) -> ConnInfo {
        let (sent, received) = (self.sent(), self.received());
        let peer = match self {
            Entry::Open(c) => c.peer,
            Entry::Closed(c) => c.peer,
        };
        let f = self.facts(Facts::clone);
        let (tls_version, tls_cipher_suite) = f.tls.unwrap_or_default();
        let mut info = ConnInfo {
            cid: self.id(),
            kind: "Client",
            transport: f.kind,
            ip: peer.ip().to_canonical().to_string(),
            port: peer.port(),
            start: Time(self.start()),
            last_activity: Time(self.last()),
            stop: match self {
                Entry::Open(_) => None,
                Entry::Closed(c) => Some(Time(c.stop)),
            },
            reason: self.reason(),
            rtt: round_trip(self.rtt()),
            uptime: age(self.end(now).since(self.start())),
            idle: age(self.end(now).since(self.last())),
            pending_bytes: self.pending(),
            in_msgs: received.msgs,
            out_msgs: sent.msgs,
            in_bytes: received.bytes,
            out_bytes: sent.bytes,
            stalls: match self {
                Entry::Open(c) => c.stalls(),
                Entry::Closed(_) => 0,
            },
            subscriptions: self.subscriptions(),
            name: f.name,
            lang: f.lang,
            version: f.version,
            tls_version,
            tls_cipher_suite,
            tls_peer_certs: Vec::new(),
            tls_first: f.tls_first,
            authorized_user: String::new(),
            account: String::new(),
            subscriptions_list: Vec::new(),
            subscriptions_list_detail: Vec::new(),
            name_tag: String::new(),
            proxy: Some(f.proxy).filter(|p| !p.is_empty()).map(|key| ProxyInfo { key }),
        };
        if o.subscriptions_detail {
            info.subscriptions_list_detail = self.list(&f.account);
        } else if o.subscriptions {
            info.subscriptions_list = self.list("").into_iter().map(|s| s.subject).collect();
        }
        if o.auth {
            let hex = |d: &[u8]| d.iter().map(|b| format!("{b:02x}")).collect();
            info.tls_peer_certs = f
                .tls_peer_certs
                .iter()
                .map(|c| PeerCertInfo {
                    subject: c.subject_text(),
                    spki_sha256: hex(&c.spki_sha256),
                    cert_sha256: hex(&c.cert_sha256),
                })
                .collect();
            info.authorized_user = f.user;
            info.name_tag.clone_from(&f.account);
            info.account = f.account;
        }
        info
    }
}

impl SubDetail {
    /// A subscription; `account` is shown if it is not empty.
    pub fn of(s: &broker::Sub, account: &str) -> SubDetail {
        SubDetail {
            account: account.to_string(),
            account_tag: account.to_string(),
            subject: text(s.subject()),
            qgroup: text(s.queue()),
            sid: text(s.sid()),
            msgs: s.delivered(),
            max: s.max(),
            cid: s.link.id,
        }
    }
}

/// A round trip: below a millisecond in whole microseconds.
fn round_trip(d: Duration) -> String {
    if d.is_zero() {
        return String::new();
    }
    duration(if d < Duration::from_millis(1) {
        Duration::from_micros((d.as_micros() as u64).max(1))
    } else {
        d
    })
}

/// The entries of a page, and the offset and limit that were taken.
pub(super) fn page(offset: i64, limit: i64) -> (usize, usize) {
    let limit = if limit <= 0 { LIMIT_DEFAULT } else { limit };
    (usize::try_from(offset).unwrap_or(0), usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Clients. Errors are sentences for the caller: the order or the filter makes no sense.
pub fn connz(s: &Server, o: &ConnzOptions) -> Result<Connz, String> {
    let sort = Sort::parse(&o.sort, o.state)?;
    let (offset, mut limit) = page(o.offset, o.limit);
    if o.cid > 0 {
        limit = 1;
    }
    let now = env::wall();
    let none = |connections| Connz {
        server_id: s.id().to_string(),
        now: Time(now),
        num_connections: 0,
        total: 0,
        offset,
        limit,
        connections,
    };
    if !o.account.is_empty() && s.broker.account(&o.account).is_none() {
        return Ok(none(None));
    }
    let filter = Some(o.filter_subject.as_bytes()).filter(|f| !f.is_empty());
    if filter.is_some() && o.account.is_empty() {
        return Err("filter by subject only valid with account filtering".to_string());
    }
    let registry = &s.links.clients;
    let mut entries: Vec<Entry> = Vec::new();
    if matches!(o.state, ConnState::Open | ConnState::All) {
        entries.extend(registry.open().into_iter().map(Entry::Open));
    }
    if matches!(o.state, ConnState::Closed | ConnState::All) {
        let mut closed: Vec<_> = registry.closed().into_iter().map(Entry::Closed).collect();
        // Who leaves in this moment may be on both lists.
        if !entries.is_empty() {
            closed.retain(|c| entries.binary_search_by_key(&c.id(), Entry::id).is_err());
        }
        entries.extend(closed);
    }
    if !o.account.is_empty() {
        entries.retain(|e| e.facts(|f| f.account == o.account));
    }
    let total = entries.len();
    entries.retain(|e| {
        (o.cid == 0 || e.id() == o.cid)
            && (o.user.is_empty() || e.facts(|f| f.user == o.user))
            // No client speaks MQTT yet.
            && o.mqtt_client.is_empty()
            && filter.is_none_or(|f| e.listens_to(f))
    });
    entries.sort_by_cached_key(|e| (sort.key(e, now), e.id()));
    let connections: Vec<_> = entries.iter().skip(offset).take(limit).map(|e| e.describe(o, now)).collect();
    Ok(Connz { num_connections: connections.len(), total, connections: Some(connections), ..none(None) })
}
