//! Who takes part in a group, and which step from one membership to the next is allowed.
//!
//! Owns the membership, its bytes in a log entry and the rules of a change. Does not know the log: that a
//! change waits for the one before is `change.rs`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::types::NodeId;

/// Most voters of a group, in each half of a joint membership.
pub const VOTERS_MAX: usize = 15;
/// Most learners of a group.
pub const LEARNERS_MAX: usize = 15;
/// Most ids that a group remembers as spent.
pub const SPENT_MAX: usize = 4096;

/// A whole membership. Lists are sorted and without repetition.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Members {
    /// Those whose majority decides.
    pub voters: Vec<NodeId>,
    /// In a joint membership the voters before the change; their majority is needed too. Else empty.
    pub outgoing: Vec<NodeId>,
    /// Those who receive and do not count. In a joint membership one of `outgoing` may already be listed.
    pub learners: Vec<NodeId>,
    /// Highest incarnation of each id that once took part and left.
    pub spent: Vec<NodeId>,
}

/// The membership that is wanted.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Change {
    /// All voters afterwards. New ones must be learners now.
    pub voters: Vec<NodeId>,
    /// All learners afterwards.
    pub learners: Vec<NodeId>,
}

/// Why a membership is not allowed to follow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChangeError {
    /// Nobody would vote.
    NoVoters,
    /// More than [`VOTERS_MAX`], [`LEARNERS_MAX`] or [`SPENT_MAX`].
    TooMany,
    /// One id twice, as voter and learner or in two incarnations.
    Twice(NodeId),
    /// This id was here with this or a higher incarnation.
    Spent(NodeId),
    /// A voter has to be a learner first.
    NotLearner(NodeId),
    /// It is the membership already.
    Same,
}

fn sorted(mut list: Vec<NodeId>) -> Vec<NodeId> {
    list.sort_unstable();
    list.dedup();
    list
}

impl Members {
    /// Voters of a new group.
    #[must_use]
    pub fn of(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self { voters: sorted(voters.into_iter().collect()), ..Self::default() }
    }

    /// Whether two majorities are needed.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether this node's vote counts, in either half.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.binary_search(&node).is_ok() || self.outgoing.binary_search(&node).is_ok()
    }

    /// Whether this node takes part at all.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.binary_search(&node).is_ok()
    }

    /// All who take part, each once, in order.
    #[must_use]
    pub fn all(&self) -> Vec<NodeId> {
        sorted(self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect())
    }

    /// The next membership on the way to `change`: final if only learners differ, else joint.
    ///
    /// # Errors
    /// Names the rule that forbids it. Must not be called on a joint membership.
    pub fn step_to(&self, change: &Change) -> Result<Self, ChangeError> {
        assert!(!self.is_joint(), "R-9: a change begins from a membership that is not joint");
        let voters = sorted(change.voters.clone());
        let learners = sorted(change.learners.clone());
        if voters.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        if voters.len() > VOTERS_MAX || learners.len() > LEARNERS_MAX {
            return Err(ChangeError::TooMany);
        }
        let all = {
            let mut all: Vec<NodeId> = voters.iter().chain(&learners).copied().collect();
            all.sort_unstable();
            all
        };
        if let Some(pair) = all.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(ChangeError::Twice(pair[1]));
        }
        for node in &all {
            let spent = self.spent.iter().any(|s| s.id == node.id && s.incarnation >= node.incarnation);
            // While it still takes part an id may only be followed by a higher incarnation of itself.
            let older = self.all().iter().any(|m| m.id == node.id && m.incarnation > node.incarnation);
            if spent || older {
                return Err(ChangeError::Spent(*node));
            }
        }
        for voter in &voters {
            if !self.contains(*voter) {
                return Err(ChangeError::NotLearner(*voter));
            }
        }
        if voters == self.voters && learners == self.learners {
            return Err(ChangeError::Same);
        }
        let mut spent = self.spent.clone();
        for gone in self.all().into_iter().filter(|m| all.binary_search(m).is_err()) {
            match spent.iter_mut().find(|s| s.id == gone.id) {
                Some(s) => s.incarnation = s.incarnation.max(gone.incarnation),
                None => spent.push(gone),
            }
        }
        spent.sort_unstable();
        if spent.len() > SPENT_MAX {
            return Err(ChangeError::TooMany);
        }
        let outgoing = if voters == self.voters { Vec::new() } else { self.voters.clone() };
        Ok(Self { voters, outgoing, learners, spent })
    }

    /// The membership after a joint one.
    #[must_use]
    pub fn leave_joint(&self) -> Self {
        Self { outgoing: Vec::new(), ..self.clone() }
    }

    /// The bytes of a [`crate::EntryKind::Config`] entry: a version, four counts, then ids and incarnations, little-endian.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let lists = [&self.voters, &self.outgoing, &self.learners, &self.spent];
        let mut out = BytesMut::with_capacity(9 + lists.iter().map(|l| l.len() * 12).sum::<usize>());
        out.put_u8(1);
        for list in lists {
            out.put_u16_le(u16::try_from(list.len()).expect("R-10: lists are bounded by their maxima"));
        }
        for node in lists.into_iter().flatten() {
            out.put_u64_le(node.id);
            out.put_u32_le(node.incarnation);
        }
        out.freeze()
    }

    /// Reads what [`Members::encode`] wrote. `None` for anything else.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.remaining() < 9 || bytes.get_u8() != 1 {
            return None;
        }
        let counts: [usize; 4] = std::array::from_fn(|_| usize::from(bytes.get_u16_le()));
        let limits = [VOTERS_MAX, VOTERS_MAX, LEARNERS_MAX, SPENT_MAX];
        if counts.iter().zip(limits).any(|(n, max)| *n > max)
            || bytes.remaining() != counts.iter().sum::<usize>() * 12
        {
            return None;
        }
        let mut lists = counts
            .map(|n| (0..n).map(|_| NodeId::new(bytes.get_u64_le(), bytes.get_u32_le())).collect::<Vec<_>>());
        if lists.iter().any(|l| !l.windows(2).all(|p| p[0] < p[1])) {
            return None;
        }
        let [voters, outgoing, learners, spent] = &mut lists;
        Some(Self {
            voters: std::mem::take(voters),
            outgoing: std::mem::take(outgoing),
            learners: std::mem::take(learners),
            spent: std::mem::take(spent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(id: u64) -> NodeId {
        NodeId::new(id, 0)
    }

    fn change(voters: &[u64], learners: &[u64]) -> Change {
        Change {
            voters: voters.iter().map(|i| n(*i)).collect(),
            learners: learners.iter().map(|i| n(*i)).collect(),
        }
    }

    #[test]
    fn a_change_of_voters_is_joint_and_of_learners_is_not() {
        let old = Members::of([n(1), n(2), n(3)]);
        let with_learner = old.step_to(&change(&[1, 2, 3], &[4])).expect("a learner may join");
        assert!(!with_learner.is_joint());
        let joint = with_learner.step_to(&change(&[1, 2, 4], &[])).expect("a learner may vote");
        assert!(joint.is_joint());
        assert_eq!(joint.outgoing, old.voters);
        let last = joint.leave_joint();
        assert_eq!(last.voters, vec![n(1), n(2), n(4)]);
        assert_eq!(last.spent, vec![n(3)]);
    }

    #[test]
    fn rules_of_a_change_r9_r10() {
        let old = Members::of([n(1), n(2), n(3)]);
        assert_eq!(old.step_to(&change(&[], &[])), Err(ChangeError::NoVoters));
        assert_eq!(old.step_to(&change(&[1, 2, 3], &[])), Err(ChangeError::Same));
        assert_eq!(old.step_to(&change(&[1, 2, 4], &[])), Err(ChangeError::NotLearner(n(4))));
        assert_eq!(old.step_to(&change(&[1, 2], &[2])), Err(ChangeError::Twice(n(2))));
        let without = old.step_to(&change(&[1, 2], &[])).expect("a voter may go").leave_joint();
        assert_eq!(without.step_to(&change(&[1, 2], &[3])), Err(ChangeError::Spent(n(3))));
        let again = Change { voters: vec![n(1), n(2)], learners: vec![NodeId::new(3, 1)] };
        assert!(without.step_to(&again).is_ok(), "a higher incarnation is another node");
        let wiped = Change { voters: vec![n(1), n(2)], learners: vec![NodeId::new(3, 1)] };
        let next = old.step_to(&wiped).expect("the new incarnation may replace the old one");
        assert!(next.is_joint());
    }

    #[test]
    fn bytes_there_and_back() {
        let m = Members {
            voters: vec![n(1), NodeId::new(2, 7)],
            outgoing: vec![n(9)],
            learners: vec![n(3)],
            spent: vec![n(4), NodeId::new(5, 1)],
        };
        assert_eq!(Members::decode(&m.encode()), Some(m.clone()));
        for cut in 0..m.encode().len() {
            assert_eq!(Members::decode(&m.encode()[..cut]), None);
        }
        let mut unsorted = m;
        unsorted.voters.reverse();
        assert_eq!(Members::decode(&unsorted.encode()), None);
    }
}
