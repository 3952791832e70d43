//! Groups as answers, `/jsz` and `/healthz` show them.
//!
//! Owns the shapes' filling. What is known of a replica is `replica`'s.

use std::time::Duration;

use replica::{GroupId, Handle, NodeId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    JetStream,
    api::{
        Time,
        response::{Alternate, ClusterInfo, PeerInfo, StreamInfo, StreamState},
    },
    leading::Standing,
    meta::{Assigned, Assignment},
    shell::Stream,
};

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A server's name as groups list it: eight digits, as nats-server derives them from the name.
pub fn peer_id(name: &str) -> String {
    hash_of(name)
}

/// What stands for a name where that is too long, or nobody's business: eight digits.
pub(crate) fn hash_of(name: &str) -> String {
    Sha256::digest(name.as_bytes()).iter().take(8).map(|b| char::from(DIGITS[usize::from(*b) % 62])).collect()
}

/// The group of a stream, or of one of its consumers, as tools show it.
fn group_name(kind: char, id: u64, replicas: usize, memory: bool) -> String {
    let mut rng = env::Rng::derived(id, "group name");
    let tail: String = (0..8).map(|_| char::from(DIGITS[rng.below(62) as usize])).collect();
    format!("{kind}-R{replicas}{}-{tail}", if memory { 'M' } else { 'F' })
}

/// As long as a leader may be silent before its group counts as without one.
const GRACE: Duration = Duration::from_secs(10);

impl JetStream {
    /// The replicas of a group besides `shown`, as this node sees them.
    pub(super) fn peers_of(
        &self,
        handle: &Handle,
        members: &[NodeId],
        shown: Option<NodeId>,
    ) -> Vec<PeerInfo> {
        let status = handle.status();
        let Some(c) = &self.cluster else { return Vec::new() };
        let mut all: Vec<PeerInfo> = members
            .iter()
            .filter(|n| Some(**n) != shown)
            .map(|n| {
                let name = self.name_of(*n);
                let peer = peer_id(&name);
                if *n == self.me {
                    let current = status.applied >= status.commit && status.stopped.is_none();
                    return PeerInfo { name, current, peer, ..PeerInfo::default() };
                }
                let known = status.peers.iter().find(|p| p.node == *n);
                let up = c.is_up(*n);
                let heard = known.and_then(|p| p.heard_ns_ago).and_then(|ns| i64::try_from(ns).ok());
                PeerInfo {
                    name,
                    // Only a leader knows how far the others are.
                    current: up && known.is_some_and(|p| p.matched.is_none() || p.current(status.commit)),
                    offline: !up,
                    active: heard.unwrap_or(0),
                    lag: known.map_or(0, |p| p.lag),
                    peer,
                    pending: known.is_none_or(|p| !p.voter),
                }
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The cluster block of a stream; `None` on a server alone.
    pub(crate) fn cluster_of(&self, s: &Stream) -> Option<ClusterInfo> {
        self.block(s, 'S')
    }
    /// That of one of its consumers, which is where its stream is.
    pub(crate) fn cluster_of_consumer(&self, s: &Stream) -> Option<ClusterInfo> {
        self.block(s, 'C')
    }
    fn block(&self, s: &Stream, kind: char) -> Option<ClusterInfo> {
        let c = self.cluster.as_ref()?;
        let a = self.meta.read(|m| m.get(s.id).cloned())?;
        let handle = self.replicas.get(GroupId(s.id))?;
        let leader = match s.standing() {
            Standing::Leads(_) => Some(self.me),
            Standing::Follows(n) => n,
            _ => None,
        };
        let name = leader.map(|n| self.name_of(n)).unwrap_or_default();
        if a.a.is_alone() {
            return Some(ClusterInfo { name: c.name.clone(), leader: name, ..ClusterInfo::default() });
        }
        let mut shown = a.a.members.clone();
        shown.extend(&a.a.leaving);
        let replicas = self.peers_of(&handle, &shown, leader);
        Some(ClusterInfo {
            name: c.name.clone(),
            raft_group: group_name(kind, s.id, a.a.first.len(), s.memory),
            leader: name,
            leader_since: leader.map(|_| Time::from_nanos(s.stands_since())),
            system_account: true,
            traffic_account: self.host.system_account(),
            replicas,
            desired: None,
        })
    }

    /// A stream of which nobody tells anything, as lists show it: what is wanted, and who is to have it.
    pub(crate) fn info_of_away(&self, a: &Assigned) -> Option<StreamInfo> {
        let c = self.cluster.as_ref()?;
        let peer = |n: &NodeId| {
            let name = self.name_of(*n);
            let peer = peer_id(&name);
            PeerInfo { name, peer, offline: !self.is_here(*n), ..PeerInfo::default() }
        };
        Some(StreamInfo {
            config: a.config.clone()?,
            created: Time::from_nanos(a.a.created),
            state: StreamState::default(),
            domain: self.options.domain.clone().unwrap_or_default(),
            cluster: Some(ClusterInfo {
                name: c.name.clone(),
                raft_group: group_name('S', a.a.id, a.a.first.len(), a.a.memory),
                replicas: a.a.members.iter().map(peer).collect(),
                ..ClusterInfo::default()
            }),
            mirror: None,
            sources: Vec::new(),
            alternates: Vec::new(),
            ts: Time::from_nanos(crate::shell::now().wall),
        })
    }
    /// The streams that could be read instead of one, and it: those that mirror it. None if nobody does, or on a server alone.
    pub(crate) fn alternates(&self, account: &str, name: &str) -> Vec<Alternate> {
        let Some(c) = &self.cluster else { return Vec::new() };
        let domain = self.options.domain.clone().unwrap_or_default();
        let one =
            |name: &str| Alternate { name: name.to_owned(), domain: domain.clone(), cluster: c.name.clone() };
        self.meta.read(|s| {
            let mirrors: Vec<Alternate> = s.mirrors_of(account, name).map(|a| one(&a.a.name)).collect();
            let own = (!mirrors.is_empty()).then(|| one(name));
            own.into_iter().chain(mirrors).collect()
        })
    }

    /// The meta group as `/jsz` shows it; `None` on a server alone.
    pub fn meta_cluster(&self) -> Option<Value> {
        let c = self.cluster.as_ref()?;
        let leader = self.meta.leader(self.me);
        let nodes: Vec<NodeId> = self.meta.read(|s| s.nodes().keys().copied().collect());
        let mut v = json!({ "name": c.name });
        if let Some(n) = leader {
            let name = self.name_of(n);
            v["leader"] = json!(name);
            v["peer"] = json!(peer_id(&name));
        }
        if let Some(handle) = self.meta.handle() {
            let replicas = self.peers_of(&handle, &nodes, leader);
            v["replicas"] = serde_json::to_value(replicas).unwrap_or_default();
        }
        // Who is listed and away with its disk does not vote.
        let voters = self.meta.handle().map_or(0, |h| h.members().0.len()).max(1);
        v["cluster_size"] = json!(voters);
        v["quorum_needed"] = json!(voters / 2 + 1);
        for none in ["pending", "pending_requests", "pending_infos"] {
            v[none] = json!(0);
        }
        if let Some(s) = self.meta.handle().map(|h| h.status()) {
            v["snapshot"] = json!({ "pending_entries": s.applied.0.saturating_sub(s.base.0) });
        }
        Some(v)
    }

    /// Streams that this node leads, and their consumers; `None` on a server alone.
    pub fn led(&self) -> Option<(usize, usize)> {
        self.cluster.as_ref()?;
        let all = self.all_assets();
        let led = all.iter().flat_map(|a| a.streams()).filter(|s| s.leads());
        Some(led.fold((0, 0), |(n, c), s| (n + 1, c + s.seen().consumers)))
    }
    /// Groups of several members that this node belongs to: its replicated streams, and the meta group. 0 without a cluster.
    pub fn shared(&self) -> usize {
        self.cluster.as_ref().map_or(0, |_| 1 + self.meta.read(|s| s.load_of(self.me).shared))
    }
    /// Whether this node leads the meta group.
    pub fn leads_meta(&self) -> bool {
        self.meta.leads()
    }
    /// The name of the server that leads the meta group, if known.
    pub fn meta_leader(&self) -> Option<String> {
        self.meta.leader(self.me).map(|n| self.name_of(n))
    }
    /// Since when it is so.
    fn meta_age(&self) -> Duration {
        let age = env::wall().0.saturating_sub(self.meta.since());
        Duration::from_nanos(u64::try_from(age).unwrap_or(0))
    }

    /// Whether this server was removed from its cluster.
    pub(crate) fn is_expelled(&self) -> bool {
        self.cluster.as_ref().is_some_and(|c| c.expelled.load(std::sync::atomic::Ordering::Acquire))
    }
    /// What keeps a member of a cluster from changing or finding anything, if so.
    pub fn unhealthy_meta(&self) -> Option<String> {
        let c = self.cluster.as_ref()?;
        if c.genesis().is_none() {
            return Some("JetStream has not established contact with a meta leader".into());
        }
        if self.is_expelled() {
            return Some("JetStream: this server was removed from the cluster".into());
        }
        if let Some(why) = self.meta.fault() {
            return Some(format!("JetStream meta group is stopped: {why}"));
        }
        if self.meta.leader(self.me).is_none() {
            let why = if self.meta_age() < GRACE {
                "has not established contact with"
            } else {
                "has lost contact with"
            };
            return Some(format!("JetStream {why} a meta leader"));
        }
        None
    }
    /// Whether so many of a stream's servers are away that those that are left elect nobody.
    fn is_outnumbered(&self, a: &Assignment) -> bool {
        let here = a.members.iter().filter(|n| self.is_here(**n)).count();
        here <= a.members.len() / 2
    }
    /// Streams on this node that have no leader because of those that are away, a sentence each: to start this one anew would mend nothing.
    pub(crate) fn outnumbered(&self) -> Vec<String> {
        let is_mine = |a: &Assignment| a.members.contains(&self.me) && self.is_outnumbered(a);
        let mine = self.meta.read(|s| s.assignments().filter(|a| is_mine(&a.a)).cloned().collect::<Vec<_>>());
        let leaderless =
            |a: &Assigned| self.stream_of(a).is_some_and(|s| s.standing() == Standing::Follows(None));
        let told = |a: &Assigned| {
            let (account, name) = (&a.a.account, &a.a.name);
            format!("JetStream stream '{account} > {name}' has no leader: most of its servers are away")
        };
        mine.iter().filter(|a| leaderless(a)).map(|a| told(a)).collect()
    }
    /// What keeps a member of a cluster from serving what it has, if anything. That a stream has no leader because others are away is held against
    /// this one only `strict`ly.
    pub(crate) fn unhealthy_member(
        &self,
        strict: bool,
        asked: impl Fn(&Assignment) -> bool,
    ) -> Option<String> {
        self.cluster.as_ref()?;
        let is_mine = |a: &Assignment| a.members.contains(&self.me) && asked(a);
        let mine = self.meta.read(|s| s.assignments().filter(|a| is_mine(&a.a)).cloned().collect::<Vec<_>>());
        for a in mine {
            let label = format!("JetStream stream '{} > {}'", a.a.account, a.a.name);
            let Some(s) = self.stream_of(&a) else {
                return Some(format!("{label} is not current: not open yet"));
            };
            match s.standing() {
                Standing::Leads(_) | Standing::Follows(Some(_)) => {}
                Standing::Stopped(why) => return Some(format!("{label} is stopped: {why}")),
                Standing::Follows(None) if !strict && self.is_outnumbered(&a.a) => {}
                _ => return Some(format!("{label} is not current: no leader")),
            }
            let Some(handle) = self.replicas.get(GroupId(a.a.id)) else { continue };
            let status = handle.status();
            if status.installing || status.damaged {
                return Some(format!("{label} is not current: its data is being repaired"));
            }
        }
        None
    }

    /// A group as `/raftz` shows it.
    fn raft_detail(&self, handle: &Handle, since: i64) -> Value {
        let s = handle.status();
        let state = match s.role {
            _ if s.stopped.is_some() => "CLOSED",
            replica::RoleName::Leader => "LEADER",
            replica::RoleName::Follower => "FOLLOWER",
            _ => "CANDIDATE",
        };
        let mut v = json!({
            "id": peer_id(&self.host.name()),
            "state": state,
            "size": s.voters.len(),
            "quorum_needed": s.voters.len() / 2 + 1,
            "committed": s.commit.0,
            "applied": s.applied.0,
        });
        if s.installing {
            v["catching_up"] = json!(true);
        }
        if let Some(n) = s.leader {
            v["leader"] = json!(peer_id(&self.name_of(n)));
        }
        if state == "LEADER" {
            v["leader_since"] = json!(Time::from_nanos(since));
        }
        if s.leader.is_some() {
            v["ever_had_leader"] = json!(true);
        }
        v["term"] = json!(s.term.0);
        if state == "LEADER" {
            v["voted_for"] = v["id"].clone();
        }
        v["pterm"] = json!(s.last_term.0);
        v["pindex"] = json!(s.last.0);
        v["system_account"] = json!(true);
        v["traffic_account"] = json!(self.host.system_account());
        // There are no such queues, and entries are not counted in bytes a group.
        for none in ["ipq_proposal_len", "ipq_entry_len", "ipq_resp_len", "ipq_apply_len"] {
            v[none] = json!(0);
        }
        let first = s.base.0 + 1;
        v["wal"] = json!({ "messages": (s.last.0 + 1).saturating_sub(first), "first_seq": first, "last_seq": s.last.0 });
        if let Some(why) = &s.stopped {
            v["wal_error"] = json!(**why);
        }
        let peers: serde_json::Map<String, Value> = s
            .peers
            .iter()
            .map(|p| {
                let name = self.name_of(p.node);
                let mut one = json!({ "name": name, "known": true });
                if let Some(m) = p.matched {
                    one["last_replicated_index"] = json!(m.0);
                }
                if let Some(ns) = p.heard_ns_ago {
                    one["last_seen"] = json!(format!("{:?}", Duration::from_nanos(ns)));
                }
                (peer_id(&name), one)
            })
            .collect();
        v["peers"] = Value::Object(peers);
        v
    }

    /// All groups as `/raftz` shows them: those of an account, or of all; the meta group is the system account's. `None` on a server alone.
    pub fn raftz(&self, account: &str, group: &str) -> Option<Value> {
        self.cluster.as_ref()?;
        let mut out = serde_json::Map::new();
        let mut add = |acc: &str, name: String, handle: &Handle, since: i64| {
            if (account.is_empty() || account == acc) && (group.is_empty() || group == name) {
                let detail = self.raft_detail(handle, since);
                let of = out.entry(acc.to_owned()).or_insert_with(|| json!({}));
                of[&name] = detail;
            }
        };
        if let Some(h) = self.meta.handle() {
            add(&self.host.system_account(), "_meta_".into(), &h, self.meta.since());
        }
        for a in self.all_assets() {
            for s in a.streams() {
                // What one server alone has is no group to others.
                let alone = self.meta.read(|m| m.get(s.id).is_some_and(|a| a.a.is_alone()));
                if let Some(h) = self.replicas.get(GroupId(s.id)).filter(|_| !alone) {
                    add(&a.account.name, self.group_label(&s), &h, s.stands_since());
                }
            }
        }
        Some(Value::Object(out))
    }
    /// The name of a stream's group.
    pub(crate) fn group_label(&self, s: &Stream) -> String {
        let members = self.meta.read(|m| m.get(s.id).map_or(1, |a| a.a.first.len()));
        group_name('S', s.id, members, s.memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_listed_under_the_names_of_the_original() {
        // As a nats-server of these names lists itself.
        assert_eq!([peer_id("n1"), peer_id("n2"), peer_id("n3")], ["fjFyEjc1", "44jzkV9D", "BXScrY9i"]);
    }

    #[test]
    fn a_groups_name_stays() {
        assert_eq!(group_name('S', 5, 3, false), group_name('S', 5, 3, false));
        assert_ne!(group_name('S', 5, 3, false), group_name('S', 6, 3, false));
        assert!(group_name('C', 5, 1, true).starts_with("C-R1M-"));
    }
}
