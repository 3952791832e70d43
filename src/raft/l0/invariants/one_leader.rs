//! at most one leader a term.

use std::collections::BTreeMap;

use raft::{NodeId, Term};

use super::{Violation, ensure};

/// Who led each term.
#[derive(Debug, Default)]
pub struct OneLeader(BTreeMap<Term, NodeId>);

impl OneLeader {
    /// `node` leads `term`.
    pub fn check(&mut self, node: NodeId, term: Term) -> Result<(), Violation> {
        let first = *self.0.entry(term).or_insert(node);
        ensure!(first == node, "R-1", "term {} is led by {first} and by {node}", term.0);
        Ok(())
    }
}
