//! committed memberships follow each other so that their quorums meet, and nobody comes back under an old id.

use raft::Members;

use super::{Violation, ensure};

/// `next` was committed after `before`.
pub fn check(before: Option<&Members>, next: &Members) -> Result<(), Violation> {
    let Some(before) = before else { return Ok(()) };
    if before.is_joint() {
        ensure!(*next == before.leave_joint(), "R-9", "{next:?} after the joint {before:?}");
    } else if next.is_joint() {
        ensure!(next.outgoing == before.voters, "R-9", "{next:?} does not count the voters of {before:?}");
    } else {
        ensure!(
            next.voters == before.voters,
            "R-9",
            "voters of {before:?} become {next:?} without a joint step"
        );
    }
    for node in next.all() {
        ensure!(
            !before.spent.iter().any(|s| s.id == node.id && s.incarnation >= node.incarnation),
            "R-10",
            "{node} is back in {next:?}"
        );
    }
    Ok(())
}
