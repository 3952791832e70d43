//! Requests about the members of groups: another leader, another server in the place of one.

use std::sync::Arc;

use replica::{GroupId, NodeId};
use stream::{
    ApiError,
    config::{Storage, StreamConfig},
    errors,
};

use super::{Desk, streams::not_assigned};
use crate::{
    JetStream,
    api::{Placement, response::Done},
    cluster::{
        place::{Candidate, Wish, place},
        status::peer_id,
    },
    leading::Standing,
    meta::{Assigned, Command, Node, Tally},
};

impl JetStream {
    /// The nodes that could take a stream of this storage; as if the stream `apart_from` were not there.
    fn candidates(&self, storage: Storage, apart_from: Option<&Assigned>) -> Vec<Candidate> {
        let Some(c) = &self.cluster else { return Vec::new() };
        let evacuated = c.evacuated.lock().clone();
        self.meta.with_coming(|s, coming| {
            // What is on its way is not in the sums yet.
            let mut more = Tally::default();
            coming.for_each(|a| more.add(a));
            let mut less = Tally::default();
            apart_from.and_then(|a| s.get(a.a.id)).into_iter().for_each(|a| less.add(a));
            let candidate = |n: &Node| {
                let (has, more, less) = (s.load_of(n.id), more.on(n.id), less.on(n.id));
                let room = if storage == Storage::Memory { n.memory_max } else { n.storage_max };
                let used = has.reserved(storage).saturating_add(more.reserved(storage));
                Candidate {
                    id: n.id,
                    cluster: c.name.clone(),
                    tags: n.tags.clone(),
                    up: self.is_here(n.id) && !self.leaves(n.id),
                    emptied: evacuated.contains(&n.id),
                    assets: has.assets + more.assets - less.assets,
                    shared: has.shared + more.shared - less.shared,
                    leads: has.leads + more.leads - less.leads,
                    room: room.saturating_sub(used.saturating_sub(less.reserved(storage))),
                }
            };
            s.nodes().values().map(candidate).collect()
        })
    }

    /// Streams with several replicas that a node may have, as configured here; `None` without limit.
    fn shared_max(&self) -> Option<usize> {
        self.tunable().limits.max_ha_assets.and_then(|n| usize::try_from(n).ok())
    }

    /// The nodes for a stream, of which it keeps those that it is on if it can.
    ///
    /// # Errors
    /// 10005 with the reason.
    pub(crate) fn place_stream(&self, c: &StreamConfig, keep: &[NodeId]) -> Result<Vec<NodeId>, ApiError> {
        let placement = c.placement.clone().unwrap_or_default();
        let wish = Wish {
            replicas: usize::try_from(c.num_replicas).unwrap_or(1).max(1),
            cluster: placement.cluster,
            tags: placement.tags,
            unique_tag: self.cluster.as_ref().map(|c| c.unique_tag.clone()).unwrap_or_default(),
            shared_max: self.shared_max(),
            bytes: u64::try_from(c.max_bytes).unwrap_or(0),
            keep: keep.to_vec(),
            absent_too: true,
        };
        place(&wish, &self.candidates(c.storage, None)).map_err(|why| {
            // A member of a group that has just formed is not listed yet: that is a matter of moments.
            let voters = self.meta.handle().map(|h| h.members().0).unwrap_or_default();
            match self.meta.read(|s| voters.iter().all(|n| s.nodes().contains_key(n))) {
                true => errors::CLUSTER_NO_PEERS.with(why),
                false => errors::CLUSTER_NOT_LEADER.error(),
            }
        })
    }

    /// The members of a stream, its leader first if that is known.
    pub(crate) fn leader_first(&self, a: &Assigned) -> Vec<NodeId> {
        let mut all = a.a.members.clone();
        let here = self.stream_of(a).and_then(|s| match s.standing() {
            Standing::Leads(_) => Some(self.me),
            Standing::Follows(n) => n,
            _ => None,
        });
        let leader = here.or_else(|| self.cluster.as_ref()?.hints.lock().get(&a.a.id).copied());
        if let Some(at) = leader.and_then(|l| all.iter().position(|m| *m == l)) {
            all[..=at].rotate_right(1);
        }
        all
    }

    /// The nodes of a server, by its name or id: those that are there first. A server that came back with an empty store directory is another node.
    pub(crate) fn nodes_called(&self, peer: &str) -> Vec<NodeId> {
        let mut all: Vec<NodeId> = self.meta.read(|s| {
            s.nodes()
                .values()
                .filter(|n| *n.name == *peer || peer_id(&n.name) == peer)
                .map(|n| n.id)
                .collect()
        });
        all.sort_by_key(|n| !self.is_here(*n));
        all
    }
    /// A node by its server's name or id.
    pub(crate) fn node_called(&self, peer: &str) -> Option<NodeId> {
        self.nodes_called(peer).first().copied()
    }

    /// Hands the meta group to another node. False if this one does not lead it, or there is nobody.
    pub(crate) fn hand_over_meta(&self, to: Option<NodeId>) -> bool {
        let Some(handle) = self.meta.handle().filter(|_| self.meta.leads()) else { return false };
        match self.heir(&handle, to, true) {
            Some(n) => {
                handle.transfer(n);
                true
            }
            None => false,
        }
    }
}

impl Desk<'_> {
    pub(super) fn known_consumer(&self, stream: &str, consumer: &str) -> Result<(), ApiError> {
        let s = self.stream(stream)?;
        let known = s.core.lock().consumers.get(consumer).is_some();
        if known { Ok(()) } else { Err(errors::CONSUMER_NOT_FOUND.error()) }
    }

    /// Why a consumer stays on a server: it is where its stream is, and goes with that only.
    pub(super) fn keeps_consumer(&self, stream: &str, consumer: &str, peer: &str) -> ApiError {
        if let Err(e) = self.known_consumer(stream, consumer) {
            return e;
        }
        let nodes = self.node.nodes_called(peer);
        let a = self.node.meta.find(&self.assets.account.name, stream);
        match a.is_some_and(|a| nodes.iter().any(|n| a.a.members.contains(n))) {
            true => errors::PEER_REMAP.error(),
            false => errors::CLUSTER_PEER_NOT_MEMBER.error(),
        }
    }

    /// The node that a placement asks to lead, if it asks for any.
    pub(crate) fn wanted_leader(
        &self,
        placement: Option<Placement>,
        members: &[NodeId],
        me: NodeId,
    ) -> Result<Option<NodeId>, ApiError> {
        let Some(p) = placement else { return Ok(None) };
        let no = |why: &str| errors::CLUSTER_NO_PEERS.with(why);
        let c = self.node.cluster.as_ref().ok_or_else(|| errors::CLUSTER_REQUIRED.error())?;
        if !p.preferred.is_empty() {
            let node = self.node.nodes_called(&p.preferred).into_iter().find(|n| members.contains(n));
            return match node {
                Some(n) if n == me => {
                    Err(no(&format!("preferred server {:?} is already leader", p.preferred)))
                }
                Some(n) => Ok(Some(n)),
                None => Err(no(&format!("preferred server {:?} not known", p.preferred))),
            };
        }
        if !p.cluster.is_empty() && p.cluster != c.name {
            return Err(no("no replacement peer connected"));
        }
        if p.tags.is_empty() {
            return Ok(None);
        }
        let fits = |n: &&NodeId| {
            **n != me
                && self.node.meta.read(|s| {
                    let tags = s.nodes().get(*n).map(|n| n.tags.clone()).unwrap_or_default();
                    p.tags.iter().all(|t| tags.iter().any(|own| own.eq_ignore_ascii_case(t)))
                })
        };
        match members.iter().find(fits) {
            Some(n) => Ok(Some(*n)),
            None => Err(no("no replacement peer connected")),
        }
    }

    pub(super) async fn step_down(
        &self,
        stream: &str,
        placement: Result<Option<Placement>, ApiError>,
    ) -> Result<Done, ApiError> {
        let s = self.stream(stream)?;
        let placement = placement?;
        let Some(handle) = self.node.replicas.get(GroupId(s.id)) else {
            return Err(errors::CLUSTER_NOT_LEADER.error());
        };
        let (voters, _) = handle.members();
        let wanted = self.wanted_leader(placement, &voters, self.node.me)?;
        let Some(to) = self.node.heir(&handle, wanted, true) else {
            // One that is alone has nobody to step down for.
            return Ok(Done::YES);
        };
        s.hand_over(&handle, to).await;
        Ok(Done::YES)
    }

    /// Puts another server in the place of one. On the meta group's leader.
    pub(super) async fn replace_peer(&self, stream: &str, peer: &str) -> Result<Done, ApiError> {
        let _one = self.assets.making.turn(stream).await;
        let a = self.node.meta.find(&self.assets.account.name, stream);
        let a = a.ok_or_else(|| errors::STREAM_NOT_FOUND.error())?;
        let known = self.node.nodes_called(peer).into_iter().find(|n| a.a.members.contains(n));
        let out = known.ok_or_else(|| errors::CLUSTER_PEER_NOT_MEMBER.error())?;
        self.node.without(&a, out).await
    }

    /// What is wanted becomes what is. On the meta group's leader.
    pub(super) async fn cancel_move(&self, stream: &str) -> Result<Done, ApiError> {
        let _one = self.assets.making.turn(stream).await;
        self.node.stay(&self.assets.account.name, stream).await?;
        Ok(Done::YES)
    }
}

impl JetStream {
    /// A stream that is on its way stays where it was. With the account's lock of changes.
    pub(crate) async fn stay(&self, account: &str, stream: &str) -> Result<Arc<Assigned>, ApiError> {
        let a = self.meta.find(account, stream).ok_or_else(|| errors::STREAM_NOT_FOUND.error())?;
        if a.a.leaving.is_empty() {
            return Err(errors::STREAM_RECONFIGURE_NOT_IN_PROGRESS.error());
        }
        let mut members = a.a.leaving.clone();
        members.extend(a.a.members.iter().filter(|n| !a.a.leaving.contains(n)));
        members.truncate(a.a.members.len());
        let update = Command::Update { id: a.a.id, config: a.a.config.clone(), members };
        self.meta.begin(&update).done().await.map_err(|e| not_assigned(e, errors::STREAM_UPDATE))?;
        Ok(a)
    }

    /// Assigns a stream anew without a node.
    pub(crate) async fn without(&self, a: &Assigned, out: NodeId) -> Result<Done, ApiError> {
        let done = self.place_anew(a, &[out], &Placement::default()).await;
        done.map_err(|e| if errors::CLUSTER_NO_PEERS.is(&e) { errors::PEER_REMAP.error() } else { e })
    }
    /// Assigns a stream anew: without some nodes, or with more wishes than its configuration has. It stays where it is as far as that fits.
    pub(crate) async fn place_anew(
        &self,
        a: &Assigned,
        out: &[NodeId],
        wanted: &Placement,
    ) -> Result<Done, ApiError> {
        let config = a.config.as_ref().ok_or_else(|| errors::PEER_REMAP.error())?;
        let keep: Vec<NodeId> = self.leader_first(a).into_iter().filter(|n| !out.contains(n)).collect();
        let mut placement = config.placement.clone().unwrap_or_default();
        placement.tags.extend_from_slice(&wanted.tags);
        let wish = Wish {
            replicas: a.a.members.len(),
            cluster: if wanted.cluster.is_empty() { placement.cluster } else { wanted.cluster.clone() },
            tags: placement.tags,
            unique_tag: self.cluster.as_ref().map(|c| c.unique_tag.clone()).unwrap_or_default(),
            shared_max: self.shared_max(),
            bytes: u64::try_from(config.max_bytes).unwrap_or(0),
            keep,
            absent_too: false,
        };
        let mut all = self.candidates(config.storage, Some(a));
        all.retain(|c| !out.contains(&c.id));
        let members = place(&wish, &all).map_err(|why| errors::CLUSTER_NO_PEERS.with(why))?;
        let update = Command::Update { id: a.a.id, config: a.a.config.clone(), members };
        let done = self.meta.begin(&update).done().await;
        done.map_err(|e| not_assigned(e, errors::PEER_REMAP))?;
        Ok(Done::YES)
    }
}
