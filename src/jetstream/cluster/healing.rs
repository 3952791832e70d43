//! Messages that are damaged on this node, read from other members of their stream.
//!
//! Owns whom the store asks. A message below a group's checkpoint is no log any more, so that no leader sends it again; its record can be had from any
//! member that has it whole.

use std::{sync::Weak, time::Duration};

use bytes::Bytes;
use replica::{BoxFuture, GroupId};
use store::StreamSeq;

use super::calls::{Call, Reply};
use crate::node::JetStream;

/// How long one member is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The other members, for the store.
pub(crate) struct OtherMembers(pub Weak<JetStream>);

impl store::Healer for OtherMembers {
    fn record(&self, group: store::GroupId, seq: StreamSeq) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async move { self.0.upgrade()?.record_elsewhere(group.0, seq.0).await })
    }
}

impl JetStream {
    /// A message's record from the first other member that has it.
    async fn record_elsewhere(&self, group: u64, seq: u64) -> Option<Bytes> {
        let c = self.cluster.as_ref()?;
        let (members, _) = self.replicas.get(GroupId(group))?.members();
        for n in members.iter().filter(|n| **n != self.me && c.is_up(**n)) {
            let said = c.calls.call(&*c.wires, *n, &Call::Record { group, seq }, PATIENCE).await;
            if let Some(Reply::Record(Some(r))) = said {
                let text = format!(
                    "JetStream: message {seq} of group {group}, damaged here, is read from {}",
                    self.name_of(*n)
                );
                self.host.log("WRN", &text);
                return Some(r);
            }
        }
        None
    }

    /// The same here, for another member.
    pub(super) async fn record_here(&self, group: u64, seq: u64) -> Option<Bytes> {
        self.replicas.get(GroupId(group))?.store().record(StreamSeq(seq)).await.ok()?
    }
}
