//! a leader's commit index is an entry of its own term.

use raft::{Core, LogIndex, RoleName};

use super::{Violation, ensure};

/// The commit index rose above `from`.
pub fn check(core: &Core, from: LogIndex) -> Result<(), Violation> {
    let status = core.status();
    if status.role == RoleName::Leader && status.commit > from && status.commit > status.base {
        let term = core.term_at(status.commit);
        ensure!(
            term == Some(status.term),
            "R-8",
            "the leader of term {} commits {} of term {term:?}",
            status.term.0,
            status.commit.0
        );
    }
    Ok(())
}
