//! `/accountz` and `/accstatz`: accounts, how they are set, and what they have seen.

use std::{collections::BTreeMap, sync::Arc};

use broker::{Account, Counter};
use serde::{Serialize, Serializer};

use super::{
    json::{Time, is_default},
    options::{AccountStatzOptions, AccountzOptions},
    subsz::InterestStats,
};
use crate::{
    Server,
    options::{self, AccountOptions, ExportKind, LatencyOptions, Options, ResponseType},
    settings,
};

/// The answer of `/accountz`: a list of names, or one account.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Accountz {
    pub server_id: String,
    pub now: Time,
    #[serde(skip_serializing_if = "is_default")]
    pub system_account: String,
    #[serde(skip_serializing_if = "is_default")]
    pub accounts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_detail: Option<AccountInfo>,
}

/// An account, as its configuration and its interest are.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct AccountInfo {
    pub account_name: String,
    pub update_time: Time,
    #[serde(skip_serializing_if = "is_default")]
    pub is_system: bool,
    pub expired: bool,
    pub complete: bool,
    pub jetstream_enabled: bool,
    pub leafnode_connections: usize,
    pub client_connections: usize,
    pub subscriptions: usize,
    #[serde(skip_serializing_if = "is_default")]
    pub mappings: BTreeMap<String, Vec<MapDest>>,
    #[serde(skip_serializing_if = "is_default")]
    pub exports: Vec<ExportInfo>,
    #[serde(skip_serializing_if = "is_default")]
    pub imports: Vec<ImportInfo>,
    pub name_tag: String,
    pub sublist_stats: InterestStats,
}

/// A destination of a mapping. As in nats-server the weight is the sum up to and including this destination, in
/// ascending order of weights.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct MapDest {
    pub subject: String,
    pub weight: u8,
    #[serde(skip_serializing_if = "is_default")]
    pub cluster: String,
}

/// An export.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct ExportInfo {
    pub subject: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    pub response_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_latency: Option<LatencyInfo>,
    #[serde(skip_serializing_if = "is_default")]
    pub approved_accounts: Vec<String>,
}

/// An import.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct ImportInfo {
    pub subject: String,
    pub account: String,
    #[serde(skip_serializing_if = "is_default")]
    pub to: String,
    pub local_subject: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub invalid: bool,
    pub share: bool,
    pub tracking: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyInfo>,
}

/// A service whose latency is measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct LatencyInfo {
    pub sampling: Sampling,
    pub results: String,
}

/// Percent, or `"headers"`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampling(pub Option<u8>);

impl Serialize for Sampling {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(percent) => s.serialize_u8(percent),
            None => s.serialize_str("headers"),
        }
    }
}

impl LatencyInfo {
    fn new(l: &LatencyOptions) -> LatencyInfo {
        LatencyInfo { sampling: Sampling(l.sampling), results: l.subject.clone() }
    }
}

fn kind(k: ExportKind) -> &'static str {
    match k {
        ExportKind::Stream => "stream",
        ExportKind::Service => "service",
    }
}

fn export(e: &options::Export) -> ExportInfo {
    let service = e.kind == ExportKind::Service;
    ExportInfo {
        subject: e.subject.clone(),
        kind: kind(e.kind),
        response_type: match e.response {
            _ if !service => "",
            ResponseType::Singleton => "Singleton",
            ResponseType::Stream => "Streamed",
            ResponseType::Chunked => "Chunked",
        },
        service_latency: e.latency.as_ref().filter(|_| service).map(LatencyInfo::new),
        approved_accounts: e.accounts.clone().unwrap_or_default(),
    }
}

fn import(i: &options::Import, o: &Options) -> ImportInfo {
    let local = match (&i.to, &i.prefix) {
        (Some(to), _) => to.clone(),
        (None, Some(prefix)) => format!("{}.{}", prefix.trim_end_matches('.'), i.subject),
        (None, None) => i.subject.clone(),
    };
    let service = i.kind == ExportKind::Service;
    let exporter = o.accounts.iter().find(|a| a.name == i.account);
    let latency = exporter.filter(|_| service).and_then(|a| {
        let export = a.exports.iter().find(|e| {
            e.kind == ExportKind::Service && subject::is_subset(i.subject.as_bytes(), e.subject.as_bytes())
        })?;
        export.latency.as_ref().map(LatencyInfo::new)
    });
    ImportInfo {
        subject: i.subject.clone(),
        account: i.account.clone(),
        to: if service { local.clone() } else { String::new() },
        local_subject: local,
        kind: kind(i.kind),
        invalid: false,
        share: i.share,
        tracking: false,
        latency,
    }
}

/// A mapping's destinations, each cluster's by itself. What the weights leave over goes to the source's own subject,
/// unless that is named among them.
fn destinations(m: &options::Mapping) -> Vec<MapDest> {
    let mut clusters: Vec<&str> = Vec::new();
    for d in &m.destinations {
        let c = d.cluster.as_deref().unwrap_or_default();
        if !clusters.contains(&c) {
            clusters.push(c);
        }
    }
    let own = String::from_utf8_lossy(&subject::transform::numbered(m.source.as_bytes())).into_owned();
    let mut out = Vec::new();
    for c in clusters {
        let mut some: Vec<_> =
            m.destinations.iter().filter(|d| d.cluster.as_deref().unwrap_or_default() == c).collect();
        some.sort_by_key(|d| d.weight);
        let mut sum = 0u8;
        let mut keeps = false;
        for d in some {
            sum = sum.saturating_add(d.weight);
            keeps |= d.subject == m.source;
            out.push(MapDest { subject: d.subject.clone(), weight: sum, cluster: c.to_string() });
        }
        if sum < 100 && !keeps {
            out.push(MapDest { subject: own.clone(), weight: 100, cluster: c.to_string() });
        }
    }
    out
}

/// The account of that name, if there is one.
pub fn account_info(s: &Server, name: &str) -> Option<AccountInfo> {
    let a = s.broker.account(name)?;
    let o = s.options();
    let none = AccountOptions::default();
    let configured = o.accounts.iter().find(|c| c.name == name).unwrap_or(&none);
    let mappings = if name == settings::GLOBAL_ACCOUNT { &o.mappings } else { &configured.mappings };
    Some(AccountInfo {
        account_name: name.to_string(),
        update_time: Time(*s.config_time.lock()),
        is_system: settings::system_account(&o).as_deref() == Some(name),
        expired: false,
        complete: true,
        jetstream_enabled: s.jetstream.read().as_ref().is_some_and(|js| js.is_enabled(name)),
        leafnode_connections: 0,
        client_connections: a.connections(),
        subscriptions: a.subscriptions(),
        mappings: mappings.iter().map(|m| (m.source.clone(), destinations(m))).collect(),
        exports: configured.exports.iter().map(export).collect(),
        imports: configured.imports.iter().map(|i| import(i, &o)).collect(),
        name_tag: name.to_string(),
        sublist_stats: InterestStats::of([&a]),
    })
}

/// Accounts' names, or one account. The error is a sentence: there is no such account.
pub fn accountz(s: &Server, o: &AccountzOptions) -> Result<Accountz, String> {
    let mut answer = Accountz {
        server_id: s.id().to_string(),
        now: Time(env::wall()),
        system_account: settings::system_account(&s.options()).unwrap_or_default(),
        accounts: Vec::new(),
        account_detail: None,
    };
    if o.account.is_empty() {
        answer.accounts = s.broker.accounts().iter().map(|a| a.name.to_string()).collect();
    } else {
        let none = || format!("Account {} does not exist", o.account);
        answer.account_detail = Some(account_info(s, &o.account).ok_or_else(none)?);
    }
    Ok(answer)
}

/// The answer of `/accstatz`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct AccountStatz {
    pub server_id: String,
    pub now: Time,
    pub account_statz: Vec<AccountStat>,
}

/// What an account has seen.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct AccountStat {
    pub acc: String,
    pub name: String,
    pub conns: usize,
    pub leafnodes: usize,
    pub total_conns: usize,
    pub num_subscriptions: usize,
    pub sent: DataStats,
    pub received: DataStats,
    pub slow_consumers: u64,
}

/// Messages of an account, and those of them that went by other servers.
#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct DataStats {
    pub msgs: u64,
    pub bytes: u64,
    pub gateways: MsgBytes,
    pub routes: MsgBytes,
    pub leafs: MsgBytes,
}

/// Messages and their bytes.
#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct MsgBytes {
    pub msgs: u64,
    pub bytes: u64,
}

impl AccountStat {
    /// Of an account.
    pub fn of(a: &Account) -> AccountStat {
        let (n, s) = (a.connections(), &a.stats);
        let traffic = |m: &Counter, b: &Counter, routes: (&Counter, &Counter)| DataStats {
            msgs: m.get(),
            bytes: b.get(),
            routes: MsgBytes { msgs: routes.0.get(), bytes: routes.1.get() },
            ..DataStats::default()
        };
        AccountStat {
            acc: a.name.to_string(),
            name: a.name.to_string(),
            conns: n,
            leafnodes: 0,
            total_conns: n,
            num_subscriptions: a.subscriptions(),
            sent: traffic(&s.out_msgs, &s.out_bytes, (&s.route_out_msgs, &s.route_out_bytes)),
            received: traffic(&s.in_msgs, &s.in_bytes, (&s.route_in_msgs, &s.route_in_bytes)),
            slow_consumers: s.slow_consumers.get(),
        }
    }
}

/// What accounts have seen: those with connections, or all. Names that are not known are left out.
pub fn accstatz(s: &Server, o: &AccountStatzOptions) -> AccountStatz {
    let accounts: Vec<Arc<Account>> = if o.accounts.is_empty() {
        s.broker.accounts()
    } else {
        o.accounts.iter().filter_map(|n| s.broker.account(n)).collect()
    };
    AccountStatz {
        server_id: s.id().to_string(),
        now: Time(env::wall()),
        account_statz: accounts
            .iter()
            .filter(|a| o.include_unused || a.connections() > 0)
            .map(|a| AccountStat::of(a))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Mapping, MappingDestination};

    fn mapping(source: &str, list: &[(&str, u8, Option<&str>)]) -> Vec<(String, u8, String)> {
        let destinations_of = list
            .iter()
            .map(|(s, w, c)| MappingDestination {
                subject: s.to_string(),
                weight: *w,
                cluster: c.map(str::to_string),
            })
            .collect();
        let m = Mapping { source: source.into(), destinations: destinations_of };
        destinations(&m).into_iter().map(|d| (d.subject, d.weight, d.cluster)).collect()
    }

    #[test]
    fn weights_are_sums_in_ascending_order() {
        let want = |list: &[(&str, u8, &str)]| {
            list.iter().map(|(s, w, c)| (s.to_string(), *w, c.to_string())).collect::<Vec<_>>()
        };
        let m = mapping("m.*", &[("n.$1", 10, None), ("o.$1", 30, None), ("p.$1", 20, None)]);
        assert_eq!(m, want(&[("n.$1", 10, ""), ("p.$1", 30, ""), ("o.$1", 60, ""), ("m.$1", 100, "")]));
        assert_eq!(mapping("l", &[("l", 60, None)]), want(&[("l", 60, "")]));
        assert_eq!(mapping("k", &[("n", 60, None), ("o", 40, None)]), want(&[("o", 40, ""), ("n", 100, "")]));
        let m = mapping("m.*", &[("n", 40, None), ("o", 30, Some("c1"))]);
        assert_eq!(m, want(&[("n", 40, ""), ("m.$1", 100, ""), ("o", 30, "c1"), ("m.$1", 100, "c1")]));
    }
}
