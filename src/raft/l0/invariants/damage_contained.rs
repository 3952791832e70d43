//! a replica with a hole neither leads nor counts as durable beyond it.

use raft::{Core, RoleName};

use super::{Violation, ensure};
use crate::l0::disk::Disk;

/// After a step of a core that was told of all damage.
pub fn check(core: &Core, disk: &Disk) -> Result<(), Violation> {
    let Some(hole) = disk.damaged.range(core.base().index.0 + 1..).next() else { return Ok(()) };
    let status = core.status();
    ensure!(
        !(status.damaged && status.role == RoleName::Leader),
        "R-14",
        "{} leads with a hole at {hole}",
        core.me()
    );
    ensure!(
        status.durable.0 < *hole
            || disk.pending.iter().any(|w| w.truncate.is_some_and(|t| t.0 <= *hole))
            || !status.damaged,
        "R-14",
        "{} counts {} as durable with a hole at {hole}",
        core.me(),
        status.durable.0
    );
    Ok(())
}
