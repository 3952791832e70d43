//! an acknowledgement that leaves a node claims what is on its disk, whole, and equal to the leader's.

use raft::{Body, Message, RoleName};

use super::{Violation, ensure};
use crate::l0::node::Node;

/// A message leaves `node`.
pub fn check(nodes: &[Node], node: &Node, message: &Message) -> Result<(), Violation> {
    let Body::AppendOk { durable, .. } = message.body else { return Ok(()) };
    let sound = node.disk.sound_last();
    ensure!(durable <= sound, "R-7", "{} claims {} and has {} on disk", node.id, durable.0, sound.0);
    let leader = nodes.iter().find(|n| n.id == message.to);
    let Some((leader, core)) = leader.and_then(|n| n.core.as_ref().map(|c| (n, c))) else { return Ok(()) };
    let status = core.status();
    if status.role == RoleName::Leader && status.term == message.term {
        let theirs = leader.shadow_at(durable).map(|e| e.1);
        let ours = node.disk.chain(durable);
        ensure!(
            theirs.is_none() || ours.is_none() || theirs == ours,
            "R-7",
            "{} claims {} and has another entry there than its leader",
            node.id,
            durable.0
        );
    }
    Ok(())
}
