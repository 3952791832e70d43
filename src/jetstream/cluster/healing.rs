//! Messages that are damaged on this node, read from other members of their stream.
//!
//! Owns whom the store asks. A message below a group's checkpoint is no log any more, so that no leader sends it again; its record can be had from any
//! member that has it whole. Only members of the same meta group are asked and answered: two that a rescue has parted give the same numbers to other messages.

use std::{sync::Weak, time::Duration};

use bytes::Bytes;
use env::time::Instant;
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use replica::{BoxFuture, GroupId, NodeId};
use store::StreamSeq;

use super::{
    calls::{Call, Reply},
    shell::HEALS,
};
use crate::node::JetStream;

/// How long the members are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// When nobody has answered, nobody is asked for this long: whoever reads on through what is damaged would wait for each message.
const QUIET: Duration = Duration::from_secs(5);
/// Between two lines in the log.
const SAID: Duration = Duration::from_secs(10);

/// What the other members say.
enum Said {
    Record(NodeId, Bytes),
    NotHere,
    Nothing,
}

/// The other members, for the store.
pub(crate) struct OtherMembers {
    node: Weak<JetStream>,
    /// Until when nobody is asked, and no line is written; how many messages came since the last one.
    mind: Mutex<(Option<Instant>, Option<Instant>, u64)>,
}

impl OtherMembers {
    pub(crate) fn new(node: Weak<JetStream>) -> OtherMembers {
        OtherMembers { node, mind: Mutex::default() }
    }
    async fn ask(&self, group: u64, seq: u64) -> Option<Bytes> {
        let node = self.node.upgrade()?;
        if self.mind.lock().0.is_some_and(|t| t > env::now()) {
            return None;
        }
        let said = node.record_elsewhere(group, seq).await;
        let (mut mind, now) = (self.mind.lock(), env::now());
        match said {
            Said::Record(from, r) => {
                mind.2 += 1;
                if mind.1.is_none_or(|t| t <= now) {
                    let (n, from) = (mind.2, node.name_of(from));
                    let text = format!(
                        "JetStream: message {seq} of group {group}, damaged here, is read from {from}; {n} since the last line"
                    );
                    node.host.log("WRN", &text);
                    (mind.1, mind.2) = (Some(now + SAID), 0);
                }
                return Some(r);
            }
            Said::NotHere => {}
            Said::Nothing => mind.0 = Some(now + QUIET),
        }
        None
    }
}

impl store::Healer for OtherMembers {
    fn record(&self, group: store::GroupId, seq: StreamSeq) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(self.ask(group.0, seq.0))
    }
}

impl JetStream {
    /// A message's record from the first other member that says it has it.
    async fn record_elsewhere(&self, group: u64, seq: u64) -> Said {
        let (Some(c), Some(handle)) = (&self.cluster, self.replicas.get(GroupId(group))) else {
            return Said::NotHere;
        };
        let call = &Call::Record { group, seq };
        let gives = |n: &NodeId| {
            let hello = c.peer(*n).filter(|p| p.up).and_then(|p| p.hello);
            *n != self.me && c.is_kin(*n) && hello.is_some_and(|h| h.format >= HEALS)
        };
        let members = handle.members().0;
        let ask = |n: NodeId| async move { (n, c.calls.call(&*c.wires, n, call, PATIENCE).await) };
        let mut asked: FuturesUnordered<_> = members.into_iter().filter(gives).map(ask).collect();
        let mut said = if asked.is_empty() { Said::NotHere } else { Said::Nothing };
        while let Some((n, reply)) = asked.next().await {
            match reply {
                Some(Reply::Record(Some(r))) => return Said::Record(n, r),
                Some(_) => said = Said::NotHere,
                None => {}
            }
        }
        said
    }

    /// The same here, for another member.
    pub(super) async fn record_here(&self, from: NodeId, group: u64, seq: u64) -> Option<Bytes> {
        self.cluster.as_ref().filter(|c| c.is_kin(from))?;
        self.replicas.get(GroupId(group))?.store().record(StreamSeq(seq)).await.ok()?
    }
}
