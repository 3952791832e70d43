//! who becomes leader has every committed entry.

use super::{Oracle, Violation, ensure};
use crate::l0::node::Node;

/// `node` was elected.
pub fn check(node: &Node, oracle: &Oracle) -> Result<(), Violation> {
    let last = oracle.last();
    let Some(core) = &node.core else { return Ok(()) };
    let newest = oracle.at(last).map(|c| c.0);
    if core.base().index >= last || newest > Some(core.status().term) {
        // A late leader of an older term need not have what a newer one committed.
        return Ok(());
    }
    // Equal chains mean equal prefixes, so the last committed entry stands for all.
    let have = node.shadow_at(last);
    ensure!(
        have == oracle.at(last),
        "R-3",
        "{} leads with {have:?} at {}, committed is {:?}",
        node.id,
        last.0,
        oracle.at(last)
    );
    Ok(())
}
