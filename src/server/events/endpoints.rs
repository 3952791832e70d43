//! What monitoring shows, as answers to requests.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::{fields::Fields, requests::Answer};
use crate::{Server, monitor};

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
pub(super) async fn of_server(server: &Arc<Server>, e: Endpoint, f: &Fields) -> Answer {
    show(server, e, f, None).await.unwrap_or_else(Answer::Bad)
}

/// What an endpoint shows of one account, whatever the body says of others (Y-2).
pub(super) async fn of_account(server: &Arc<Server>, e: Endpoint, f: &Fields, account: &str) -> Answer {
    show(server, e, f, Some(account)).await.unwrap_or_else(Answer::Bad)
}

async fn show(server: &Arc<Server>, e: Endpoint, f: &Fields, of: Option<&str>) -> Result<Answer, String> {
    // Most options call an account `account`, some otherwise.
    let clamp = |key| of.map(|name| (key, Value::from(name)));
    let account = clamp("account");
    let account = account.as_slice();
    Ok(match e {
        Endpoint::Variables => data(&monitor::varz(server, &f.options(account)?)),
        Endpoint::Subscriptions => {
            // Those of one account are listed, whether that is asked for or not.
            let set = clamp("account").map(|account| [account, ("subscriptions", Value::Bool(true))]);
            result(monitor::subsz(server, &f.options(set.as_ref().map_or(&[], |s| &s[..]))?))
        }
        Endpoint::Connections => result(monitor::connz(server, &f.options(clamp("acc").as_slice())?)),
        Endpoint::Routes => data(&monitor::routez(server, &f.options(account)?)),
        Endpoint::Gateways => data(&monitor::gatewayz(server, &f.options(account)?)),
        Endpoint::Leafs => data(&monitor::leafz(server, &f.options(account)?)),
        Endpoint::Accounts => result(monitor::accountz(server, &f.options(account)?)),
        Endpoint::AccountStatistics => {
            let set = of.map(|name| ("accounts", Value::from(vec![name])));
            let o: monitor::AccountStatzOptions = f.options(set.as_slice())?;
            let statistics = monitor::accstatz(server, &o);
            // A server that has none of the accounts that were asked for leaves the answer to others.
            match statistics.account_statz.is_empty() && !o.include_unused {
                true => Answer::Silence,
                false => data(&statistics),
            }
        }
        Endpoint::JetStream if of.is_some() && server.options().jetstream.is_none() => {
            Answer::NoData("jetstream not enabled".to_string())
        }
        Endpoint::JetStream => {
            let o = f.options(account)?;
            match of {
                Some(name) => match monitor::jsz_account(server, &o).await {
                    Some(detail) => data(&detail),
                    None if server.broker.account(name).is_some() => {
                        Answer::NoData(format!("account {name:?} not jetstream enabled"))
                    }
                    None => Answer::NoData(format!("account {name:?} not found")),
                },
                None if !monitor::jsz_is_meant(server, &o) => Answer::Silence,
                None => {
                    let accounts = monitor::jsz_accounts(server, &o).await;
                    data(&monitor::jsz(server, &o, accounts))
                }
            }
        }
        Endpoint::Health => data(&monitor::healthz(server, &f.options(account)?)),
        Endpoint::Profile => profile(&f.text("name")?),
        Endpoint::Expvar => data(&monitor::expvarz(server, &f.options(account)?)),
        Endpoint::Queues => data(&monitor::ipqueuesz(server, &f.options(account)?)),
        Endpoint::Raft => data(&monitor::raftz(server, &f.options(account)?).unwrap_or_default()),
    })
}

/// An account as a whole.
pub(super) fn account_info(server: &Arc<Server>, account: &str) -> Answer {
    match monitor::account_info(server, account) {
        Some(info) => data(&info),
        None => Answer::NoData(format!("Account {account} does not exist")),
    }
}

fn data<T: Serialize>(v: &T) -> Answer {
    Answer::Data(monitor::compact(v))
}

fn result<T: Serialize>(r: Result<T, String>) -> Answer {
    match r {
        Ok(v) => data(&v),
        Err(e) => Answer::NoData(e),
    }
}

/// This server has no profiles in Go's format; it says so in the place where their errors stand.
fn profile(name: &str) -> Answer {
    let why = match name {
        "" => "Profile name not specified".to_string(),
        name => format!("Profile {name:?} not found"),
    };
    Answer::Data(json!({ "profile": null, "error": why }).to_string())
}
