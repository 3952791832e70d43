//! what is committed never changes, and when a leader commits it, a quorum has it on disk.

use raft::{LogIndex, Members, RoleName};

use super::{Oracle, Violation, ensure};
use crate::l0::node::Node;

/// `node` has raised its commit index from `from`.
pub fn check(nodes: &[Node], who: usize, from: LogIndex, oracle: &mut Oracle) -> Result<(), Violation> {
    let node = &nodes[who];
    let Some(core) = &node.core else { return Ok(()) };
    let status = core.status();
    let mut index = from;
    while index < status.commit {
        index = index.next();
        let have = node.shadow_at(index);
        match (oracle.at(index), have) {
            (Some(committed), Some(have)) => {
                ensure!(
                    committed == have,
                    "R-5",
                    "{} commits {have:?} at {}, it was {committed:?}",
                    node.id,
                    index.0
                );
            }
            (None, Some(have)) => {
                ensure!(
                    index == oracle.last().next(),
                    "R-5",
                    "commit of {} after {}",
                    index.0,
                    oracle.last().0
                );
                oracle.committed.push(have);
                let (at, members) = (index.0, core.members_at(index));
                if oracle.members_at(index) != Some(members) {
                    super::members_safe::check(oracle.members_at(index), members)?;
                    oracle.members.insert(at, members.clone());
                }
            }
            // What lies below the base came as a state; the state machine's checker looks at it.
            (_, None) => {}
        }
    }
    if status.role == RoleName::Leader && status.commit > from {
        on_disks(nodes, core.members().1, status.commit, oracle)?;
    }
    Ok(())
}

/// A quorum has the entry at `index` on disk.
pub fn on_disks(
    nodes: &[Node],
    members: &Members,
    index: LogIndex,
    oracle: &Oracle,
) -> Result<(), Violation> {
    let chain = oracle.at(index).map(|c| c.1);
    let has = |id| {
        // A disk that was wiped may have had it when it said so; a wiped node never counts again.
        nodes.iter().find(|n| n.id == id).is_none_or(|n| {
            n.disk.checkpoint.meta.index >= index || n.disk.chain(index) == chain && chain.is_some()
        })
    };
    for half in [&members.voters, &members.outgoing] {
        let have = half.iter().filter(|v| has(**v)).count();
        ensure!(
            half.is_empty() || have * 2 > half.len(),
            "R-7",
            "entry {} is committed and on {have} disks of {half:?}",
            index.0
        );
    }
    Ok(())
}
