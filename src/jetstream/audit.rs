//! What a check from outside may know of the groups on this node: storms compare it between nodes.
//!
//! Owns nothing and changes nothing. Cheap enough to be asked for often.

use std::collections::BTreeSet;

use replica::{NodeId, RoleName};

use crate::JetStream;

/// A group's replica on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Audit {
    /// The group.
    pub group: u64,
    /// Its term here.
    pub term: u64,
    /// This node leads it in that term.
    pub leads: bool,
    /// Committed here.
    pub commit: u64,
    /// Applied here.
    pub applied: u64,
    /// The end of the log, and what names it together with everything before it.
    pub last: (u64, u64),
    /// Who decides.
    pub voters: Vec<NodeId>,
    /// As this node knows the meta group, others are to decide than do.
    pub moving: bool,
    /// Why it does nothing any more, if so, and will not.
    pub stopped: Option<String>,
    /// A hole is in the log, or another node's state is being fetched.
    pub mending: bool,
    /// What is stored: first and last sequence, messages, bytes.
    pub stored: (u64, u64, u64, u64),
}

impl JetStream {
    /// All groups that are open here, in no order that means anything.
    pub fn audit(&self) -> Vec<Audit> {
        let one = |h: replica::Handle| {
            let (s, last, stored) = (h.status(), h.store().last(), h.store().state());
            let moving = self.meta.read(|m| {
                let a = m.get(h.id().0)?;
                let wanted: BTreeSet<_> = a.a.members.iter().collect();
                Some(!a.a.leaving.is_empty() || wanted != s.voters.iter().collect())
            });
            Audit {
                moving: moving.unwrap_or(false),
                group: h.id().0,
                term: s.term.0,
                leads: s.role == RoleName::Leader && s.stopped.is_none(),
                commit: s.commit.0,
                applied: s.applied.0,
                last: (last.0.0, last.2.0),
                voters: s.voters,
                // A replica that is contradicted comes back.
                stopped: s.stopped.filter(|_| !s.contradicted).map(|w| w.to_string()),
                mending: s.damaged || s.installing,
                stored: (stored.first.0, stored.last.0, stored.msgs, stored.bytes),
            }
        };
        self.replicas.all().into_iter().map(one).collect()
    }
}
