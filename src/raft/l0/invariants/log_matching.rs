//! entries of equal index and term have the same chain, so the same everything before them.

use std::collections::BTreeMap;

use raft::{Chain, Entry};

use super::{Violation, ensure};

/// Chain by index and term.
#[derive(Debug, Default)]
pub struct LogMatching(BTreeMap<(u64, u64), Chain>);

impl LogMatching {
    /// An entry came into somebody's log.
    pub fn check(&mut self, entry: &Entry, before: Option<Chain>) -> Result<(), Violation> {
        let first = *self.0.entry((entry.index.0, entry.term.0)).or_insert(entry.chain);
        ensure!(first == entry.chain, "R-2", "entry {} of term {} in two forms", entry.index.0, entry.term.0);
        if let Some(before) = before {
            ensure!(
                entry.follows(before),
                "R-2",
                "entry {} does not follow what is before it",
                entry.index.0
            );
        }
        Ok(())
    }
}
