//! Whether others have a group of which this node takes itself for the only member, after it has lost a part of its log.
//!
//! Owns the question to the nodes that are assigned to the group, and what their answers mean (pure). Does not own what the replica does then
//! (`replica`, D-15).
//!
//! The entry that took in others may have been in the part that is gone. Who goes on alone then acknowledges what the others do not have.
//!
//! - K-12: it goes on alone only when everybody who is assigned to the group, or has yet to leave it, says that he has no say in it; and that is asked
//!   of a view of the meta group that is not older than the node's own life.

use std::{collections::BTreeMap, sync::Arc};

use replica::{NodeId, Others};

use super::rescue::Left;
use crate::JetStream;

/// What the reports of all other nodes of a group mean for `me`, who knows that it was alone at this term and index; nothing for one that does not
/// answer, or does not have it open. Who has no more than that was left behind.
fn others(me: NodeId, known: (u64, u64), said: &BTreeMap<NodeId, Option<Left>>) -> Others {
    let has_say = |l: &Left| l.last > known && l.voters.union(&l.outgoing).any(|n| *n != me.id);
    if said.values().flatten().any(has_say) {
        return Others::Some;
    }
    if said.values().all(Option::is_some) { Others::None } else { Others::Unknown }
}

impl JetStream {
    /// Whether others than this node have a say in a group, of which it knows that it was alone at this term and index.
    ///
    /// # Errors
    /// It cannot be said yet, and why; to be asked again.
    pub(crate) async fn who_else_has(
        self: &Arc<JetStream>,
        group: u64,
        known: (u64, u64),
    ) -> Result<Others, String> {
        let Some(c) = &self.cluster else { return Ok(Others::None) };
        let lost = "a part of its log is lost here";
        let Some(assigned) = self.still_assigned(group).await else {
            return Err(format!(
                "{lost}, and nobody who leads the meta group says yet whether other servers have it"
            ));
        };
        let mut said = BTreeMap::new();
        for n in assigned.a.members.iter().chain(&assigned.a.leaving).filter(|n| **n != self.me) {
            let reports = if c.is_up(*n) { self.left_at(c, *n, &[group]).await } else { None };
            said.insert(*n, reports.unwrap_or_default().pop());
        }
        let found = others(self.me, known, &said);
        if found == Others::Unknown {
            let silent = said.iter().filter(|s| s.1.is_none()).map(|s| self.name_of(*s.0));
            let silent = silent.collect::<Vec<_>>().join(", ");
            return Err(format!("{lost}; whether others have it is known when these have said so: {silent}"));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(voters: &[u64], outgoing: &[u64]) -> Option<Left> {
        let set = |ids: &[u64]| ids.iter().copied().collect();
        Some(Left {
            group: 7,
            forgot: false,
            damaged: false,
            term: 3,
            last: (3, 9),
            voters: set(voters),
            outgoing: set(outgoing),
        })
    }

    #[test]
    fn k12_who_is_alone_has_heard_so_from_everybody() {
        let me = NodeId::new(1, 0);
        let of = |known, all: [Option<Left>; 2]| {
            others(me, known, &(2..).map(|id| NodeId::new(id, 0)).zip(all).collect())
        };
        let known = (3, 5);
        assert_eq!(others(me, known, &BTreeMap::new()), Others::None, "nobody else is assigned");
        assert_eq!(
            of(known, [left(&[], &[]), left(&[1], &[])]),
            Others::None,
            "a newcomer, and one who only learns"
        );
        assert_eq!(of(known, [left(&[1], &[]), None]), Others::Unknown, "K-12: one has not said");
        assert_eq!(of(known, [left(&[1, 2, 3], &[1]), None]), Others::Some);
        assert_eq!(
            of(known, [None, left(&[1], &[1, 3])]),
            Others::Some,
            "until a change is through both sides decide"
        );
        assert_eq!(
            of(known, [left(&[1, 3], &[]), left(&[1], &[])]),
            Others::Some,
            "one is known to have one"
        );
        assert_eq!(
            of((3, 9), [left(&[1, 2], &[]), left(&[], &[])]),
            Others::None,
            "this one was left behind"
        );
    }
}
