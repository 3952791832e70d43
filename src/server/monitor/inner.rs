//! `/raftz`, `/ipqueuesz` and `/debug/vars`: the machinery inside.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::options::{ExpvarzOptions, IpqueueszOptions, RaftzOptions};
use crate::Server;

/// Raft groups by account and name.
pub type Raftz = BTreeMap<String, Value>;

/// Raft groups; the system account's, which has the meta group, where no account is asked for. `None` outside of clusters.
pub fn raftz(s: &Server, o: &RaftzOptions) -> Option<Raftz> {
    let engine = s.jetstream.read().clone();
    let system = crate::settings::system_account(&s.options()).unwrap_or_default();
    let account = if o.account.is_empty() { &system } else { &o.account };
    match engine.and_then(|js| js.raftz(account, &o.group)) {
        Some(Value::Object(all)) => Some(all.into_iter().collect()),
        _ => None,
    }
}

/// A queue between parts of the server.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct IpQueue {
    pub pending: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_progress: Option<usize>,
}

/// Queues between parts of the server. Messages go from one connection's task straight into other connections'
/// outboxes, which `/connz` shows, so there are none.
pub fn ipqueuesz(_: &Server, _: &IpqueueszOptions) -> BTreeMap<String, IpQueue> {
    BTreeMap::new()
}

/// Facts of the process, in the layout of Go's expvar.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Expvarz {
    pub memstats: MemStats,
    pub cmdline: Vec<String>,
}

/// Memory. Of Go's many figures the one that exists here too.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct MemStats {
    /// Bytes that the process holds.
    #[serde(rename = "Sys")]
    pub sys: u64,
}

/// Facts of the process.
pub fn expvarz(_: &Server, _: &ExpvarzOptions) -> Expvarz {
    let args = std::iter::once(env::process::exe_name()).chain(env::process::args());
    Expvarz { memstats: MemStats { sys: env::process::rss_bytes() }, cmdline: without_secrets(args) }
}

/// Hides passwords, tokens and the credentials in URLs: monitoring asks nobody who they are.
fn without_secrets(args: impl Iterator<Item = String>) -> Vec<String> {
    let secret = |flag: &str| matches!(flag.trim_start_matches('-'), "pass" | "auth");
    let mut hide_next = false;
    args.map(|a| {
        if std::mem::replace(&mut hide_next, false) {
            return "***".to_string();
        }
        if a.starts_with('-') {
            match a.split_once('=') {
                Some((flag, _)) if secret(flag) => return format!("{flag}=***"),
                None if secret(&a) => hide_next = true,
                _ => {}
            }
        }
        let urls: Vec<String> = a.split(',').map(without_user).collect();
        urls.join(",")
    })
    .collect()
}

fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}"),
        None => url.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden() {
        let shown = |args: &[&str]| without_secrets(args.iter().map(|a| a.to_string())).join(" ");
        assert_eq!(shown(&["s", "--user", "u", "--pass", "p", "-auth=t"]), "s --user u --pass *** -auth=***");
        assert_eq!(shown(&["-routes", "nats://a:b@h:1,nats://h:2"]), "-routes nats://***@h:1,nats://h:2");
        assert_eq!(shown(&["--routes=nats://a:b@h:1"]), "--routes=nats://***@h:1");
    }
}
