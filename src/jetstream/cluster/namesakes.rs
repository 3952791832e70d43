//! A server that comes back with an empty store directory.
//!
//! Owns what becomes of the node that it was: another of its name is there, and two servers of one name are never in a cluster together, so that it is gone with
//! its disk. The leader of the meta group puts the newcomer in its place, and takes it out once no stream names it any more; else each lost disk would
//! leave a dead member in every group that it had. A stream that only it had stays: it may be that disk that comes back. The node is listed as long, and the stream
//! assigned to it, but in the meta group it votes no more; if it comes back it is taken in again, as another life.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use env::Instant;
use replica::NodeId;
use stream::{ApiError, errors};

use super::shell::PARTS;
use crate::{
    JetStream,
    meta::{Assigned, Command, Node, State},
};

/// How long another of its name is there, and it is not, before it is gone.
const GONE: Duration = Duration::from_secs(5);

/// Whether a node is away, and another of its name is there. Another life of the same node is not another one.
fn is_taken<'a>(
    gone: &Node,
    mut all: impl Iterator<Item = &'a Node>,
    is_here: impl Fn(NodeId) -> bool,
) -> bool {
    !is_here(gone.id) && all.any(|n| is_here(n.id) && n.name == gone.name && n.id.id != gone.id.id)
}

/// Since when another is there in the place of a node, and whether that was logged.
pub(super) type Namesakes = BTreeMap<NodeId, (Instant, bool)>;

/// A server that has another store than it had, and what only that one had: kept, since it may come back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    /// What the server was.
    node: NodeId,
    server: Arc<str>,
    /// One of the streams, and how many others there are.
    first: String,
    more: usize,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kept { server, first, more, .. } = self;
        let what = match more {
            0 => format!("stream '{first}' was"),
            _ => format!("stream '{first}' and {more} more were"),
        };
        write!(
            f,
            "JetStream: server '{server}' has another store now; {what} only in the one before. That one is waited for: bring \
             it back, delete what was in it, or give it up with SERVER.REMOVE"
        )
    }
}

impl JetStream {
    /// On the leader of the meta group. Called again and again.
    pub(super) async fn replace_namesakes(self: &Arc<JetStream>, seen: &mut Namesakes) {
        let gone: BTreeMap<NodeId, Arc<str>> = match self.meta.leads() {
            false => BTreeMap::new(),
            true => self.meta.read(|s| {
                let all = || s.nodes().values();
                let gone = all().filter(|n| is_taken(n, all(), |n| self.is_here(n)));
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
                for text in self.kept().into_iter().filter(|k| k.node == n).map(|k| k.to_string()) {
                    self.host.log("WRN", &text);
                }
            }
            self.replace(n).await;
        }
    }

    /// Whether a node has no place among the voters of the meta group: another has been in its place for a while, and it knows what to do when it comes back.
    pub(super) fn is_parted(&self, s: &State, seen: &Namesakes, n: NodeId) -> bool {
        let taken = seen.get(&n).is_some_and(|(since, _)| since.elapsed() >= GONE) && !self.is_here(n);
        taken && s.nodes().get(&n).is_some_and(|n| n.format >= PARTS)
    }

    /// The servers that came back with another store while streams were in the one before and nowhere else.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        if !self.is_clustered() {
            return Vec::new();
        }
        self.meta.read(|s| {
            let all = || s.nodes().values();
            let gone =
                all().filter(|n| s.load_of(n.id).assets > 0 && is_taken(n, all(), |n| self.is_here(n)));
            let of = |n: &Node| {
                let only = s.assignments().filter(|a| a.a.members == [n.id]);
                let mut streams = only.map(|a| format!("{} > {}", a.a.account, a.a.name));
                let first = streams.next()?;
                Some(Kept { node: n.id, server: n.name.clone(), first, more: streams.count() })
            };
            gone.filter_map(of).collect()
        })
    }
    /// Why a stream is away for longer than its server, if so.
    fn lost_store(&self, a: &Assigned) -> Option<String> {
        let server = self.meta.read(|s| {
            let [only] = *a.a.members else { return None };
            let gone = s.nodes().get(&only)?;
            is_taken(gone, s.nodes().values(), |n| self.is_here(n)).then(|| gone.name.clone())
        })?;
        Some(format!("server '{server}' has another store now, and it was only in the one before"))
    }
    /// What is said of a stream, or of a consumer of it, if it is away.
    pub(crate) fn offline(&self, a: &Assigned, consumer: bool) -> ApiError {
        match (self.lost_store(a), consumer) {
            (None, false) => errors::STREAM_OFFLINE.error(),
            (None, true) => errors::CONSUMER_OFFLINE.error(),
            (Some(why), false) => errors::STREAM_OFFLINE_REASON.with(why),
            (Some(why), true) => errors::CONSUMER_OFFLINE_REASON.with(why),
        }
    }
    /// Of these streams, which are away, the names of those that are so for a reason, with it.
    pub(crate) fn offline_of(&self, all: &[Arc<Assigned>]) -> BTreeMap<String, String> {
        all.iter().filter_map(|a| Some((a.a.name.to_string(), self.lost_store(a)?))).collect()
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
