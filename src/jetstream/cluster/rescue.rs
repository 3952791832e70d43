//! Going on with what is left: after most servers of a cluster are gone for good, and for a stream in memory whose replicas have forgotten it.
//!
//! Owns which replica of which group goes on (pure, from what the nodes that are left report), the operator's command, and the word that keeps the others out
//! if they come back all the same: the nodes that go on take another genesis, and nodes of different geneses do not speak of consensus. Does not own
//! the step itself (`raft::rescue`).
//!
//! - K-8: a group goes on without a majority only when all that is left of it has reported, under the replica that has the most of it; nothing that was
//!   committed and is on any of those nodes goes.
//! - K-9: a stream in memory begins anew only when each replica that it has says that it has forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use replica::{GroupId, NodeId, Term};
use serde::{Deserialize, Serialize};
use stream::{ApiError, errors};

use super::{
    calls::{Call, Reply},
    identity,
    shell::{Cluster, RENEWS},
};
use crate::{
    JetStream,
    leading::Standing,
    meta::{Assigned, Assignment, Command, META_GROUP},
};

/// How long each of the nodes that are left may take for a step of the rescue.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the meta group may take to have a leader again.
const LED_MAX: Duration = Duration::from_secs(8);
/// Pause before a group is made to go on again.
const AGAIN: Duration = Duration::from_millis(100);
/// Groups that are asked of a node, or made to go on, at a time.
const AT_ONCE: usize = 64;

/// A replica as its node reports it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Left {
    /// The group.
    pub group: u64,
    /// Its log was in memory and is gone.
    pub forgot: bool,
    /// Something of its log cannot be read.
    pub damaged: bool,
    /// The highest term that it has seen.
    pub term: u64,
    /// Term and index of its log's end.
    pub last: (u64, u64),
    /// The nodes that decide by the newest membership that it has.
    pub voters: BTreeSet<u64>,
    /// In the middle of a change: those that decided before.
    pub outgoing: BTreeSet<u64>,
}

/// A group that goes on without a majority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Forced {
    pub group: u64,
    /// Under this node.
    pub at: NodeId,
    /// The highest term that is known.
    pub term: u64,
    /// With these nodes.
    pub nodes: Vec<NodeId>,
}

fn has_majority(of: &BTreeSet<u64>, left: &BTreeSet<u64>) -> bool {
    of.intersection(left).count() * 2 > of.len()
}

/// Which groups need to be forced, and where, of those that these nodes report. They are all that is left.
pub(crate) fn plan(reports: &[(NodeId, Vec<Left>)]) -> Vec<Forced> {
    let mut groups: BTreeMap<u64, Vec<(NodeId, &Left)>> = BTreeMap::new();
    for (node, all) in reports {
        for l in all.iter().filter(|l| !l.forgot) {
            groups.entry(l.group).or_default().push((*node, l));
        }
    }
    let mut out = Vec::new();
    for (group, left) in groups {
        // Whoever has the most of it; of equals the one with the lesser id.
        let best =
            left.iter().filter(|(_, l)| !l.damaged).max_by_key(|(n, l)| (l.last, std::cmp::Reverse(*n)));
        let Some((at, best)) = best else { continue };
        let there: BTreeSet<u64> = left.iter().map(|(n, _)| n.id).collect();
        let joint = best.outgoing.is_empty() || has_majority(&best.outgoing, &there);
        let counts = best.voters.contains(&at.id) || best.outgoing.contains(&at.id);
        if !counts || (joint && has_majority(&best.voters, &there)) {
            continue;
        }
        let of = |n: &NodeId| best.voters.contains(&n.id) || best.outgoing.contains(&n.id);
        out.push(Forced {
            group,
            at: *at,
            term: left.iter().map(|(_, l)| l.term).max().unwrap_or(0),
            nodes: left.iter().map(|(n, _)| *n).filter(of).collect(),
        });
    }
    out
}

/// What becomes of a stream in memory of which these are all the replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It has what it needs, or somebody has not said yet.
    Wait,
    /// Nothing is left of it.
    Anew,
    /// Too few remember for a majority: they go on without the others.
    Forced(Forced),
}

/// See [`Fate`]; `said` is what its nodes report, nothing for one that does not have it open.
pub(crate) fn fate(a: &Assignment, said: &BTreeMap<NodeId, Option<Left>>) -> Fate {
    let mut all = Vec::new();
    for n in a.members.iter().chain(&a.leaving) {
        match said.get(n) {
            Some(Some(l)) => all.push((*n, vec![l.clone()])),
            _ => return Fate::Wait,
        }
    }
    if all.iter().all(|(_, l)| l.iter().all(|l| l.forgot)) {
        return if all.is_empty() { Fate::Wait } else { Fate::Anew };
    }
    plan(&all).pop().map_or(Fate::Wait, Fate::Forced)
}

/// What an operator says.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    /// As many nodes at least are to go on.
    quorum_needed: usize,
    /// Exactly the servers of these names are to go on.
    survivors: Vec<String>,
}

/// What he is told.
#[derive(Serialize)]
pub(crate) struct Rescued {
    server: String,
    server_id: String,
    prev_quorum: usize,
    new_quorum: usize,
    survivors: Vec<String>,
    forced: usize,
}

fn no(why: impl std::fmt::Display) -> ApiError {
    errors::CLUSTER_RESCUE.with(why)
}

impl JetStream {
    /// How far the replicas of these groups are here; of all groups with several members if none is named.
    pub(crate) fn left_here(&self, groups: &[u64]) -> Vec<Left> {
        let all = match groups.is_empty() {
            true => self.replicas.all(),
            false => groups.iter().filter_map(|g| self.replicas.get(GroupId(*g))).collect(),
        };
        let ids = |nodes: &[NodeId]| nodes.iter().map(|n| n.id).collect::<BTreeSet<u64>>();
        let report = |h: replica::Handle| {
            let s = h.status();
            let wanted = !groups.is_empty() || s.voters.len() > 1 || s.forgot;
            (wanted && s.stopped.is_none()).then(|| Left {
                group: h.id().0,
                forgot: s.forgot,
                damaged: s.damaged || s.installing,
                term: s.term.0,
                last: (s.last_term.0, s.last.0),
                voters: ids(&s.voters),
                outgoing: ids(&s.outgoing),
            })
        };
        all.into_iter().filter_map(report).collect()
    }

    pub(super) async fn left_at(
        self: &Arc<JetStream>,
        c: &Cluster,
        node: NodeId,
        groups: &[u64],
    ) -> Option<Vec<Left>> {
        if node == self.me {
            return Some(self.left_here(groups));
        }
        match c.calls.call(&*c.wires, node, &Call::Left(groups.to_vec()), PATIENCE).await? {
            Reply::Json(b) => serde_json::from_slice(&b).ok(),
            _ => None,
        }
    }

    /// Makes a group go on here, with these nodes.
    pub(crate) fn force_here(&self, group: u64, term: u64, nodes: &[NodeId]) -> Result<(), String> {
        let handle = self.replicas.get(GroupId(group)).ok_or("it is not here")?;
        handle.force(nodes, Term(term)).map_err(|e| e.to_string())
    }
    async fn force(self: &Arc<JetStream>, c: &Cluster, f: &Forced) -> Result<(), String> {
        if f.at == self.me {
            return self.force_here(f.group, f.term, &f.nodes);
        }
        let call = Call::Force { group: f.group, term: f.term, nodes: f.nodes.clone() };
        match c.calls.call(&*c.wires, f.at, &call, PATIENCE).await {
            Some(Reply::Done(_)) => Ok(()),
            Some(Reply::Refused(why)) => Err(why),
            _ => Err("it did not answer".into()),
        }
    }

    /// As [`JetStream::force`]; a replica that led the group when the others went needs a moment to see that it does not lead any more.
    async fn force_until(self: &Arc<JetStream>, c: &Cluster, f: &Forced) -> Result<(), String> {
        let until = env::now() + LED_MAX;
        loop {
            match self.force(c, f).await {
                Err(_) if env::now() < until => env::sleep(AGAIN).await,
                done => return done,
            }
        }
    }

    /// From now on this node belongs to a meta group of another name, durably.
    pub(crate) async fn adopt(&self, genesis: u64) -> Result<(), String> {
        let c = self.cluster.as_ref().ok_or("this server is no member of a cluster")?;
        identity::save_rescued(&env::disk::Disk::os(), &self.options.dir, genesis).await?;
        c.joined(genesis);
        self.host.log(
            "WRN",
            "JetStream: the cluster goes on without those that are gone; they are not let in again",
        );
        Ok(())
    }

    /// Goes on with the nodes that are left. Nothing is changed before all of them have reported; after that it may be repeated until it succeeds.
    ///
    /// # Errors
    /// 10224 with the reason.
    pub(crate) async fn rescue(self: &Arc<JetStream>, body: &[u8]) -> Result<Rescued, ApiError> {
        let asked: Asked = serde_json::from_slice(body).map_err(|e| errors::INVALID_JSON.with(e))?;
        let c = self.cluster.clone().ok_or_else(|| no("this server is no member of a cluster"))?;
        let handle = self.meta.handle().ok_or_else(|| no("this server is in no meta group"))?;
        if let Some(n) = self.meta.leader(self.me).filter(|n| self.is_here(*n)) {
            return Err(no(format!("the meta group has a leader: {}", self.name_of(n))));
        }
        let (voters, _) = handle.members();
        let survivors: Vec<NodeId> = voters.iter().copied().filter(|n| self.is_here(*n)).collect();
        let names: BTreeSet<String> = survivors.iter().map(|n| self.name_of(*n)).collect();
        let there = || names.iter().cloned().collect::<Vec<_>>().join(", ");
        if asked.survivors.is_empty() {
            if asked.quorum_needed == 0 || survivors.len() < asked.quorum_needed {
                return Err(no(format!("{} are wanted, these are there: {}", asked.quorum_needed, there())));
            }
        } else if asked.survivors.iter().cloned().collect::<BTreeSet<_>>() != names {
            return Err(no(format!("not these are there, but: {}", there())));
        }
        let mut reports = Vec::new();
        for n in &survivors {
            let said = self.left_at(&c, *n, &[]).await;
            reports.push((*n, said.ok_or_else(|| no(format!("{} does not report", self.name_of(*n))))?));
        }
        let forced = plan(&reports);
        let genesis = env::rng("genesis").next_u64().max(1);
        for n in survivors.iter().filter(|n| **n != self.me) {
            let done = c.calls.call(&*c.wires, *n, &Call::Adopt(genesis), PATIENCE).await;
            if !matches!(done, Some(Reply::Done(_))) {
                return Err(no(format!("{} does not go along; say it again", self.name_of(*n))));
            }
        }
        self.adopt(genesis).await.map_err(no)?;
        // The meta group first: without it nobody is told what becomes of the others.
        let mut failed = Vec::new();
        for some in forced.chunks(AT_ONCE) {
            let done = some.iter().map(|f| {
                let (me, c) = (self.clone(), c.clone());
                async move { me.force_until(&c, f).await.map_err(|why| format!("group {}: {why}", f.group)) }
            });
            failed.extend(futures_util::future::join_all(done).await.into_iter().filter_map(Result::err));
        }
        if let Some(first) = failed.first() {
            return Err(no(format!("{} of {} groups do not go on: {first}", failed.len(), forced.len())));
        }
        self.forget_the_others(&c, &voters, &survivors).await?;
        Ok(Rescued {
            server: self.host.name(),
            server_id: self.host.id(),
            prev_quorum: voters.len() / 2 + 1,
            new_quorum: survivors.len() / 2 + 1,
            survivors: names.into_iter().collect(),
            forced: forced.len(),
        })
    }

    /// Once somebody leads, those that are gone are removed, so that streams get others in their place.
    async fn forget_the_others(
        self: &Arc<JetStream>,
        c: &Cluster,
        voters: &[NodeId],
        survivors: &[NodeId],
    ) -> Result<(), ApiError> {
        let until = env::now() + LED_MAX;
        let gone: Vec<NodeId> = voters.iter().copied().filter(|n| !survivors.contains(n)).collect();
        for n in gone {
            loop {
                let mut changes = c.changed.subscribe();
                let listed = self.meta.read(|s| s.nodes().contains_key(&n));
                if self.meta.leader(self.me).is_some()
                    && (!listed || self.change_meta(&Command::Remove(n)).await.is_ok())
                {
                    break;
                }
                if env::now() >= until {
                    return Err(no("nobody leads the meta group yet; say it again"));
                }
                env::timeout(Duration::from_millis(50), changes.changed()).await.ok();
            }
        }
        Ok(())
    }

    /// The leader of the meta group looks after streams in memory that have lost what they need. Whether something is to be looked at again.
    pub(super) async fn keep_forgotten(self: &Arc<JetStream>, c: &Arc<Cluster>) -> bool {
        if !self.meta.leads() {
            return false;
        }
        // Others have their log on the disk.
        let all: Vec<Arc<Assigned>> = self.meta.read(|s| {
            let renews = s.nodes().values().all(|n| n.format >= RENEWS);
            s.forgetful().filter(|_| renews).cloned().collect()
        });
        let mut left = false;
        for a in all {
            let standing = self.stream_of(&a).map(|s| s.standing());
            if matches!(standing, Some(Standing::Leads(_) | Standing::Follows(Some(_)))) {
                continue;
            }
            let mut said = BTreeMap::new();
            for n in a.a.members.iter().chain(&a.a.leaving) {
                let mut report = self.left_at(c, *n, &[a.a.id]).await.unwrap_or_default();
                said.insert(*n, report.pop());
            }
            match fate(&a.a, &said) {
                Fate::Wait => left |= standing.is_some(),
                Fate::Forced(f) => {
                    left = true;
                    if let Err(e) = self.force(c, &f).await {
                        tracing::debug!(group = f.group, "what remembers it does not go on: {e}");
                    }
                }
                Fate::Anew => {
                    let label = format!("{} > {}", a.a.account, a.a.name);
                    self.host.log(
                        "WRN",
                        &format!("JetStream stream '{label}' was in memory and is gone with all its servers: it begins anew, empty"),
                    );
                    left |= self.meta.renew(a.a.id, self.taken()).done().await.is_err();
                }
            }
        }
        left
    }
}

/// The meta group is always among what is asked for.
const _: () = assert!(META_GROUP == 1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn n(id: u64) -> NodeId {
        NodeId::new(id, 0)
    }
    fn left(group: u64, last: (u64, u64), voters: &[u64]) -> Left {
        let voters = voters.iter().copied().collect();
        Left { group, forgot: false, damaged: false, term: last.0, last, voters, outgoing: BTreeSet::new() }
    }

    #[test]
    fn k8_who_has_the_most_goes_on_with_those_that_are_left() {
        let five = [1, 2, 3, 4, 5];
        let reports = [
            (n(1), vec![left(1, (3, 9), &five), left(7, (2, 5), &[1, 2, 3]), left(8, (2, 2), &[1, 4, 5])]),
            (n(2), vec![left(1, (4, 8), &five), left(7, (2, 5), &[1, 2, 3]), left(9, (5, 5), &[3, 4])]),
        ];
        let found = plan(&reports);
        let want = |group, at, term, nodes: &[u64]| Forced {
            group,
            at: n(at),
            term,
            nodes: nodes.iter().map(|i| n(*i)).collect(),
        };
        // Two of three are a majority; who is no voter does not go on.
        assert_eq!(found, [want(1, 2, 4, &[1, 2]), want(8, 1, 2, &[1])]);
    }

    #[test]
    fn k9_a_stream_in_memory_begins_anew_only_when_all_have_forgotten() {
        let a = Assignment {
            id: 7,
            account: "A".into(),
            name: "S".into(),
            created: 0,
            memory: true,
            config: bytes::Bytes::new(),
            first: vec![n(1)],
            members: vec![n(1), n(2), n(3)],
            leaving: vec![n(4)],
            left: Vec::new(),
        };
        let forgot = Some(Left { forgot: true, ..left(7, (0, 0), &[]) });
        let knows = Some(left(7, (3, 4), &[1, 2, 3, 4]));
        let mut said: BTreeMap<NodeId, Option<Left>> = (1..=3).map(|i| (n(i), forgot.clone())).collect();
        assert_eq!(fate(&a, &said), Fate::Wait, "K-9: one that is to leave counts too");
        said.insert(n(4), None);
        assert_eq!(fate(&a, &said), Fate::Wait, "K-9: one that is not open has not said");
        said.insert(n(4), forgot.clone());
        assert_eq!(fate(&a, &said), Fate::Anew);
        said.insert(n(4), knows.clone());
        let alone = Forced { group: 7, at: n(4), term: 3, nodes: vec![n(4)] };
        assert_eq!(fate(&a, &said), Fate::Forced(alone), "K-9: who remembers goes on");
        said.insert(n(1), knows.clone());
        said.insert(n(2), knows);
        assert_eq!(fate(&a, &said), Fate::Wait, "a majority needs nobody's help");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn k8_nothing_that_any_of_them_has_committed_goes(
            logs in proptest::collection::vec((1u64..4, 0u64..5, any::<bool>(), any::<bool>()), 1..5), voters in 1u64..8,
        ) {
            let all: Vec<u64> = (1..=voters).collect();
            let reports: Vec<(NodeId, Vec<Left>)> = logs.iter().zip(1..).map(|((term, last, forgot, damaged), id)| {
                (n(id), vec![Left { forgot: *forgot, damaged: *damaged, ..left(5, (*term, *last), &all) }])
            }).collect();
            for f in plan(&reports) {
                let of = |id: NodeId| &reports[id.id as usize - 1].1[0];
                prop_assert!(f.nodes.contains(&f.at) && f.nodes.iter().all(|m| m.id <= voters));
                prop_assert!(!of(f.at).forgot && !of(f.at).damaged);
                prop_assert!((f.nodes.len() as u64) * 2 <= voters, "a majority needs no help");
                for (_, l) in reports.iter().filter(|(_, l)| !l[0].forgot && !l[0].damaged) {
                    prop_assert!(l[0].last <= of(f.at).last, "K-8: nobody has more");
                    prop_assert!(l[0].term <= f.term);
                }
            }
        }
    }
}
