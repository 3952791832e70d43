//! while a leader's lease lasts by its own clock, nobody else is elected.

use raft::{Liveness, RoleName};

use super::{Violation, ensure};
use crate::l0::node::Node;

/// `who` was elected; `live` gives each node's table as it would see it now, paused or not.
pub fn check(
    nodes: &[Node],
    who: usize,
    drift_ns: u64,
    live: impl Fn(&Node) -> Liveness,
) -> Result<(), Violation> {
    for (at, node) in nodes.iter().enumerate() {
        let Some(core) = &node.core else { continue };
        if at == who || core.status().role != RoleName::Leader {
            continue;
        }
        if core.status().term >= nodes[who].core.as_ref().map_or(core.status().term, |c| c.status().term) {
            // Votes of an older term that arrive late elect nobody who could commit.
            continue;
        }
        let live = live(node);
        let until = core.lease_until(&live);
        ensure!(
            until <= live.now + drift_ns,
            "R-15",
            "{} is elected while {} of term {} has a lease for {} us more",
            nodes[who].id,
            node.id,
            core.status().term.0,
            (until - live.now) / 1000
        );
    }
    Ok(())
}
