//! A node that is about to go: others lead what it leads.
//!
//! Owns who takes over, and when. Does not own how a stream changes its leader (`moving`), nor how a group does (`replica`).
//!
//! A server that ends hands over once. One that is a lame duck does so before it says so to anybody, and stays as it is: it goes on serving its clients,
//! for which it forwards, votes and replicates, but what it comes to lead all the same it hands over again, and it gets no streams.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::*},
    time::Duration,
};

use parking_lot::Mutex;

use replica::{GroupId, LogIndex, NodeId};

use crate::{JetStream, shell::Stream};

/// How long handing over may take: at least that long, so much for each group, and never longer than that.
const HAND_OVER_LEAST: Duration = Duration::from_secs(1);
const HAND_OVER_EACH: Duration = Duration::from_millis(2);
const HAND_OVER_MAX: Duration = Duration::from_secs(10);
/// Groups that are handed over at a time. Too few: it takes long. Too many: all are without a leader for longer.
const HAND_OVER_AT_ONCE: usize = 64;
/// How often it is looked whether that has happened.
const HAND_OVER_LOOK: Duration = Duration::from_millis(5);
/// How often a node that is about to go looks whether it leads something again.
const AGAIN: Duration = Duration::from_millis(250);

/// Who could lead a group next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Heir {
    node: NodeId,
    /// What it has of the log.
    matched: Option<LogIndex>,
    /// It is about to go, too.
    leaves: bool,
}

/// Who of those that could is to lead: who has the most of the log. Who is about to go comes last, and not at all unless `any`.
fn choose(able: impl Iterator<Item = Heir>, any: bool) -> Option<NodeId> {
    able.filter(|h| any || !h.leaves).max_by_key(|h| (!h.leaves, h.matched)).map(|h| h.node)
}

impl JetStream {
    /// Whether a node has said that it is about to go.
    pub(crate) fn leaves(&self, node: NodeId) -> bool {
        if node == self.me {
            return self.leaving.load(Acquire);
        }
        let peer = self.cluster.as_ref().and_then(|c| c.peer(node));
        peer.and_then(|p| p.hello).is_some_and(|h| h.leaves)
    }

    /// Who can lead a group after this node: who is named, or who is best.
    pub(crate) fn heir(&self, handle: &replica::Handle, named: Option<NodeId>, any: bool) -> Option<NodeId> {
        let status = handle.status();
        let able = status.peers.iter().filter(|p| p.voter && p.active);
        let able = able.filter(|p| named.is_none_or(|n| n == p.node));
        let heirs = able.map(|p| Heir { node: p.node, matched: p.matched, leaves: self.leaves(p.node) });
        choose(heirs, any)
    }

    /// This node is about to go: returns when others lead what they can, which they then do until it has gone.
    pub async fn leave(self: &Arc<JetStream>) {
        let Some(c) = &self.cluster else { return };
        if self.leaving.swap(true, AcqRel) {
            return;
        }
        // The others place nothing here any more.
        c.touch();
        self.hand_over_to(false).await;
        let node = Arc::downgrade(self);
        env::spawn(async move {
            loop {
                env::sleep(AGAIN).await;
                let Some(node) = node.upgrade().filter(|n| !n.is_closed()) else { return };
                node.hand_over_to(false).await;
            }
        });
    }

    /// Hands over what this node leads to others that can lead it, so many groups at a time, and waits until they do, but not for long.
    pub async fn hand_over(self: &Arc<JetStream>) {
        self.hand_over_to(true).await;
    }

    async fn hand_over_to(self: &Arc<JetStream>, any: bool) {
        if !self.is_clustered() {
            return;
        }
        let led: Vec<GroupId> =
            self.replicas.all().iter().filter(|h| h.status().settled).map(replica::Handle::id).collect();
        let share = HAND_OVER_EACH * u32::try_from(led.len()).unwrap_or(u32::MAX);
        let until = env::now() + (HAND_OVER_LEAST + share).min(HAND_OVER_MAX);
        let streams: Vec<Arc<Stream>> = self.all_assets().iter().flat_map(|a| a.streams()).collect();
        let by_id: BTreeMap<u64, Arc<Stream>> = streams.iter().map(|s| (s.id, s.clone())).collect();
        // The meta group goes last: it is the first that there was.
        let queue = Mutex::new(led);
        let some = || async {
            loop {
                let Some(id) = queue.lock().pop() else { return };
                let Some(h) = self.replicas.get(id).filter(|h| h.status().settled) else { continue };
                let Some(to) = self.heir(&h, None, any) else { continue };
                if let Some(s) = by_id.get(&id.0) {
                    s.hand_over(&h, to).await;
                    continue;
                }
                h.transfer(to);
                while h.status().settled && env::now() < until {
                    env::sleep(HAND_OVER_LOOK).await;
                }
            }
        };
        let all = futures_util::future::join_all((0..HAND_OVER_AT_ONCE).map(|_| some()));
        env::timeout(until.since(env::now()), all).await.ok();
        while streams.iter().any(|s| s.has_waiting()) && env::now() < until {
            env::sleep(HAND_OVER_LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_about_to_go_leads_last() {
        let heir =
            |id, matched, leaves| Heir { node: NodeId::new(id, 0), matched: Some(LogIndex(matched)), leaves };
        let chosen = |all: &[Heir], any| choose(all.iter().copied(), any).map(|n| n.id);
        let all = [heir(1, 5, false), heir(2, 7, false), heir(3, 9, true)];
        assert_eq!(chosen(&all, true), Some(2));
        assert_eq!(chosen(&all, false), Some(2));
        assert_eq!(chosen(&all[2..], true), Some(3), "nobody else is there");
        assert_eq!(chosen(&all[2..], false), None, "it would hand it back");
        assert_eq!(chosen(&[], true), None);
    }
}
