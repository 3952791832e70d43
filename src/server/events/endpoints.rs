//! What monitoring shows, as answers to requests.

use std::sync::Arc;

use super::{encode, fields::Fields, parts, requests::Answer};
use crate::Server;
use serde_json::json;

/// An endpoint of monitoring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    Variables,
    Subscriptions,
    Connections,
    Routes,
    Gateways,
    Leafs,
    Accounts,
    AccountStatistics,
    JetStream,
    Health,
    Profile,
    Expvar,
    Queues,
    Raft,
}

impl Endpoint {
    /// Those that can be asked of a server.
    pub const OF_SERVER: [Endpoint; 13] = [
        Endpoint::Variables,
        Endpoint::Subscriptions,
        Endpoint::Connections,
        Endpoint::Routes,
        Endpoint::Gateways,
        Endpoint::Leafs,
        Endpoint::Accounts,
        Endpoint::JetStream,
        Endpoint::Health,
        Endpoint::Profile,
        Endpoint::Expvar,
        Endpoint::Queues,
        Endpoint::Raft,
    ];
    /// Those that can be asked of an account.
    pub const OF_ACCOUNT: [Endpoint; 5] = [
        Endpoint::Subscriptions,
        Endpoint::Connections,
        Endpoint::Leafs,
        Endpoint::JetStream,
        Endpoint::AccountStatistics,
    ];
    /// Its name in subjects.
    pub fn name(self) -> &'static str {
        match self {
            Endpoint::Variables => "VARZ",
            Endpoint::Subscriptions => "SUBSZ",
            Endpoint::Connections => "CONNZ",
            Endpoint::Routes => "ROUTEZ",
            Endpoint::Gateways => "GATEWAYZ",
            Endpoint::Leafs => "LEAFZ",
            Endpoint::Accounts => "ACCOUNTZ",
            Endpoint::AccountStatistics => "STATZ",
            Endpoint::JetStream => "JSZ",
            Endpoint::Health => "HEALTHZ",
            Endpoint::Profile => "PROFILEZ",
            Endpoint::Expvar => "EXPVARZ",
            Endpoint::Queues => "IPQUEUESZ",
            Endpoint::Raft => "RAFTZ",
        }
    }
    /// The name of its options in errors.
    pub fn options_name(self) -> &'static str {
        match self {
            Endpoint::Variables => "VarzEventOptions",
            Endpoint::Subscriptions => "SubszEventOptions",
            Endpoint::Connections => "ConnzEventOptions",
            Endpoint::Routes => "RoutezEventOptions",
            Endpoint::Gateways => "GatewayzEventOptions",
            Endpoint::Leafs => "LeafzEventOptions",
            Endpoint::Accounts => "AccountzEventOptions",
            Endpoint::AccountStatistics => "AccountStatzEventOptions",
            Endpoint::JetStream => "JszEventOptions",
            Endpoint::Health => "HealthzEventOptions",
            Endpoint::Profile => "ProfilezEventOptions",
            Endpoint::Expvar => "ExpvarzEventOptions",
            Endpoint::Queues => "IpqueueszEventOptions",
            Endpoint::Raft => "RaftzEventOptions",
        }
    }
}

/// What an endpoint shows of the server.
pub(super) fn of_server(server: &Arc<Server>, e: Endpoint, f: Fields) -> Answer {
    match e {
        Endpoint::AccountStatistics => account_statistics(server, &f, None),
        Endpoint::Profile => profile(&f),
        _ => Answer::Silence,
    }
}

/// What an endpoint shows of one account.
pub(super) fn of_account(server: &Arc<Server>, e: Endpoint, f: Fields, account: &str) -> Answer {
    match e {
        Endpoint::AccountStatistics => account_statistics(server, &f, Some(account)),
        _ => Answer::Silence,
    }
}

/// An account as a whole.
pub(super) fn account_info(_: &Arc<Server>, account: &str) -> Answer {
    Answer::NoData(format!("Account {account} does not exist"))
}

/// Statistics of one account, of those that are named, or of all that have connections.
fn account_statistics(server: &Server, f: &Fields, of: Option<&str>) -> Answer {
    let (names, unused) = match (f.texts("accounts"), f.flag("include_unused")) {
        (Ok(names), Ok(unused)) => (names, unused),
        (Err(e), _) | (_, Err(e)) => return Answer::Bad(e),
    };
    let names = of.map_or(names, |name| vec![name.to_string()]);
    let all = server.broker.accounts();
    let list: Vec<_> = match &names[..] {
        [] => all.iter().filter(|a| unused || a.connections() > 0).map(|a| parts::account(a)).collect(),
        some => some
            .iter()
            .filter_map(|n| all.iter().find(|a| *a.name == **n))
            .filter(|a| unused || a.connections() > 0)
            .map(|a| parts::account(a))
            .collect(),
    };
    if of.is_some() && list.is_empty() {
        return Answer::Silence;
    }
    let data = json!({ "server_id": server.id(), "now": env::wall().rfc3339(), "account_statz": list });
    Answer::Data(String::from_utf8_lossy(&encode::json(&data)).into_owned())
}

/// This server has no profiles in Go's format; it says so in the place where their errors stand.
fn profile(f: &Fields) -> Answer {
    match f.text("name") {
        Err(e) => Answer::Bad(e),
        Ok(name) => {
            let why = match name.as_str() {
                "" => "Profile name not specified".to_string(),
                name => format!("Profile {name:?} not found"),
            };
            Answer::Data(json!({ "profile": null, "error": why }).to_string())
        }
    }
}
