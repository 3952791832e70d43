//! term, commit and applied of a running replica never go back.

use raft::{NodeId, Status};

use super::{Violation, ensure};

/// A step of `node` led from `before` to `after`.
pub fn check(node: NodeId, before: &Status, after: &Status) -> Result<(), Violation> {
    ensure!(before.term <= after.term, "R-18", "{node}: term {} after {}", after.term.0, before.term.0);
    ensure!(
        before.commit <= after.commit,
        "R-18",
        "{node}: commit {} after {}",
        after.commit.0,
        before.commit.0
    );
    ensure!(
        before.applied <= after.applied,
        "R-18",
        "{node}: applied {} after {}",
        after.applied.0,
        before.applied.0
    );
    ensure!(
        before.term < after.term || before.vote.is_none() || before.vote == after.vote,
        "R-18",
        "{node}: vote {:?} after {:?} in term {}",
        after.vote,
        before.vote,
        after.term.0
    );
    Ok(())
}
