//! a base is committed and applied, and carries the membership of its index.

use raft::SnapshotMeta;

use super::{Oracle, Violation, ensure};

/// A replica's log stands on `base`, its state machine's checkpoint is at `checkpoint`.
pub fn check(base: &SnapshotMeta, checkpoint: &SnapshotMeta, oracle: &Oracle) -> Result<(), Violation> {
    if base.index.0 == 0 {
        return Ok(());
    }
    ensure!(
        oracle.at(base.index) == Some((base.term, base.chain)),
        "R-12",
        "base {} of term {} is not what was committed: {:?}",
        base.index.0,
        base.term.0,
        oracle.at(base.index)
    );
    let members = oracle.members_at(base.index);
    ensure!(
        members == Some(&base.members),
        "R-12",
        "base {} carries {:?}, in force there is {members:?}",
        base.index.0,
        base.members
    );
    ensure!(
        base.index <= checkpoint.index,
        "R-13",
        "the log stands on {} and the state on disk is at {}",
        base.index.0,
        checkpoint.index.0
    );
    Ok(())
}
