//! windows stay within their limits.

use raft::{Core, Options};

use super::{Violation, ensure};

/// After a step of a leader.
pub fn check(core: &Core, options: &Options) -> Result<(), Violation> {
    for peer in core.peers() {
        let (count, bytes) = peer.inflight();
        ensure!(count <= options.inflight_count_max, "R-16", "{count} appends under way to {}", peer.node);
        // The one that reaches the limit may pass it by its own size: a message, or one entry that is larger.
        let most = options.inflight_bytes_max + options.message_bytes_max.max(1024);
        ensure!(bytes <= most, "R-16", "{bytes} bytes under way to {}", peer.node);
    }
    Ok(())
}
