//! every replica applies the same entry at an index, in order, and only what is committed.

use raft::{Entry, LogIndex};

use super::{Oracle, Violation, ensure};

/// An entry goes to a state machine that has applied up to `applied`.
pub fn check(entry: &Entry, applied: LogIndex, oracle: &Oracle) -> Result<(), Violation> {
    ensure!(entry.index == applied.next(), "R-4", "entry {} is applied after {}", entry.index.0, applied.0);
    let committed = oracle.at(entry.index);
    ensure!(
        committed == Some((entry.term, entry.chain)),
        "R-4",
        "entry {} of term {} is applied, committed is {committed:?}",
        entry.index.0,
        entry.term.0
    );
    Ok(())
}
