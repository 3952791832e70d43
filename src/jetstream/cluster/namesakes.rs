//! A server that comes back with an empty store directory.
//!
//! Owns what becomes of the node that it was: another of its name is there, and two servers of one name are never in a cluster together, so that it is gone with
//! its disk. The leader of the meta group puts the newcomer in its place, and takes it out once no stream names it any more; else each lost disk would
//! leave a dead member in every group that it had. A stream that only it had stays: it may be that disk that comes back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use env::Instant;
use replica::NodeId;

use crate::{
    JetStream,
    meta::{Assigned, Command, Node},
};

/// How long another of its name is there, and it is not, before it is gone.
const GONE: Duration = Duration::from_secs(5);

/// Since when another is there in the place of a node, and whether that was logged.
pub(super) type Namesakes = BTreeMap<NodeId, (Instant, bool)>;

impl JetStream {
    /// On the leader of the meta group. Called again and again.
    pub(super) async fn replace_namesakes(self: &Arc<JetStream>, seen: &mut Namesakes) {
        let gone: BTreeMap<NodeId, Arc<str>> = match self.meta.leads() {
            false => BTreeMap::new(),
            true => self.meta.read(|s| {
                let all = || s.nodes().values();
                // Another life of the same node is not another one.
                let is_taken = |gone: &Node| {
                    all().any(|n| self.is_here(n.id) && n.name == gone.name && n.id.id != gone.id.id)
                };
                let gone = all().filter(|n| !self.is_here(n.id) && is_taken(n));
                gone.map(|n| (n.id, n.name.clone())).collect()
            }),
        };
        seen.retain(|n, _| gone.contains_key(n));
        for (n, name) in gone {
            let (since, told) = seen.entry(n).or_insert((env::now(), false));
            if since.elapsed() < GONE {
                continue;
            }
            if !std::mem::replace(told, true) {
                let text = format!(
                    "JetStream: server {name:?} is there with another store; it takes the place of what it was"
                );
                self.host.log("WRN", &text);
            }
            self.replace(n).await;
        }
    }

    /// Puts others in the place of a node that is gone, and takes it out if that leaves nothing of it.
    async fn replace(self: &Arc<JetStream>, n: NodeId) {
        let shared = |a: &&Arc<Assigned>| a.a.members.contains(&n) && a.a.members.len() > 1;
        let hit: Vec<Arc<Assigned>> = self.meta.read(|s| s.assignments().filter(shared).cloned().collect());
        for a in hit {
            let assets = self.assets(&self.broker.account_or_new(&a.a.account));
            let _one = assets.making.turn(&a.a.name).await;
            // It may have changed meanwhile.
            let Some(a) = self.meta.read(|s| s.get(a.a.id).filter(shared).cloned()) else { continue };
            if let Err(e) = self.without(&a, n).await {
                tracing::debug!(group = a.a.id, "no other server: {e}");
            }
        }
        let names = |a: &Arc<Assigned>| a.a.members.contains(&n) || a.a.leaving.contains(&n);
        if !self.meta.read(|s| s.assignments().any(names)) {
            // If it fails it is tried again.
            self.meta.begin(&Command::Remove(n)).done().await.ok();
        }
    }
}
