//! What must hold after each step, one file an invariant. Each sees all nodes at once, which no replica does.

pub mod ack_durable;
pub mod bounded;
pub mod committed_kept;
pub mod damage_contained;
pub mod leader_completeness;
pub mod log_matching;
pub mod members_safe;
pub mod monotonic;
pub mod one_leader;
pub mod own_term_commit;
pub mod promise_kept;
pub mod reads_fresh;
pub mod snapshot_joins;
pub mod state_machine;
pub mod vote_once;

use std::collections::BTreeMap;

use raft::{Chain, LogIndex, Members, Term};

/// An invariant that does not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Its id.
    pub id: &'static str,
    /// The values on both sides.
    pub text: String,
}

impl Violation {
    /// A violation of `id`.
    #[must_use]
    pub fn new(id: &'static str, text: String) -> Self {
        Self { id, text }
    }
}

/// Returns a violation unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $id:literal, $($text:tt)*) => {
        if !$holds {
            return Err($crate::l0::Violation::new($id, format!($($text)*)));
        }
    };
}
pub(crate) use ensure;

/// What is known to be committed, from whoever said so first.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Term and chain by index less one.
    pub committed: Vec<(Term, Chain)>,
    /// Membership entries among them (and the first one).
    pub members: BTreeMap<u64, Members>,
    /// Highest index that a client was told of.
    pub acked: LogIndex,
}

impl Oracle {
    /// Identity of a committed entry.
    #[must_use]
    pub fn at(&self, index: LogIndex) -> Option<(Term, Chain)> {
        self.committed.get((index.0 as usize).checked_sub(1)?).copied()
    }

    /// End of what is committed.
    #[must_use]
    pub fn last(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    /// Membership in force at an index.
    #[must_use]
    pub fn members_at(&self, index: LogIndex) -> Option<&Members> {
        self.members.range(..=index.0).next_back().map(|(_, m)| m)
    }
}

/// All invariants with memory.
#[derive(Debug, Default)]
pub struct Checkers {
    ///
    pub one_leader: one_leader::OneLeader,
    ///
    pub log_matching: log_matching::LogMatching,
    ///
    pub vote_once: vote_once::VoteOnce,
    ///
    pub reads_fresh: reads_fresh::ReadsFresh,
}
