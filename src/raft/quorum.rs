//! Majorities, alone and joint.
//!
//! Owns counting. Does not know what is counted: indexes, times of support and votes all pass through here. An empty
//! half of a joint membership agrees with everything.

use crate::members::{Members, VOTERS_MAX};
use crate::types::NodeId;

/// Where a vote stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tally {
    /// A quorum agrees.
    Won,
    /// No quorum can agree any more.
    Lost,
    /// Not decided.
    Open,
}

/// The greatest value that a majority of `voters` has reached; `u64::MAX` without voters.
pub fn majority_value(voters: &[NodeId], mut of: impl FnMut(NodeId) -> u64) -> u64 {
    assert!(voters.len() <= VOTERS_MAX, "R-16: a membership is bounded");
    if voters.is_empty() {
        return u64::MAX;
    }
    let mut values = [0u64; VOTERS_MAX];
    for (slot, voter) in values.iter_mut().zip(voters) {
        *slot = of(*voter);
    }
    let values = &mut values[..voters.len()];
    values.sort_unstable();
    // With n sorted values the one at (n-1)/2 is reached by n - (n-1)/2 > n/2 voters.
    values[(voters.len() - 1) / 2]
}

/// The greatest value that a quorum of `members` has reached: both halves of a joint membership.
pub fn quorum_value(members: &Members, mut of: impl FnMut(NodeId) -> u64) -> u64 {
    majority_value(&members.voters, &mut of).min(majority_value(&members.outgoing, &mut of))
}

/// Where a vote among `voters` stands; `None` is a voter who has not answered.
pub fn majority_tally(voters: &[NodeId], mut of: impl FnMut(NodeId) -> Option<bool>) -> Tally {
    let (mut yes, mut no) = (0, 0);
    for voter in voters {
        match of(*voter) {
            Some(true) => yes += 1,
            Some(false) => no += 1,
            None => {}
        }
    }
    let need = voters.len() / 2 + 1;
    if voters.is_empty() || yes >= need {
        Tally::Won
    } else if voters.len() - no < need {
        Tally::Lost
    } else {
        Tally::Open
    }
}

/// Where a vote among `members` stands.
pub fn quorum_tally(members: &Members, mut of: impl FnMut(NodeId) -> Option<bool>) -> Tally {
    match (majority_tally(&members.voters, &mut of), majority_tally(&members.outgoing, &mut of)) {
        (Tally::Won, Tally::Won) => Tally::Won,
        (Tally::Lost, _) | (_, Tally::Lost) => Tally::Lost,
        _ => Tally::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(n: u64) -> Vec<NodeId> {
        (1..=n).map(|i| NodeId::new(i, 0)).collect()
    }

    #[test]
    fn majority_of_few() {
        let value = |v: &[u64]| majority_value(&nodes(v.len() as u64), |n| v[n.id as usize - 1]);
        assert_eq!(value(&[]), u64::MAX);
        assert_eq!(value(&[7]), 7);
        assert_eq!(value(&[7, 3]), 3);
        assert_eq!(value(&[7, 3, 5]), 5);
        assert_eq!(value(&[1, 2, 3, 4]), 2);
        assert_eq!(value(&[9, 9, 1, 1, 1]), 1);
    }

    #[test]
    fn both_halves_of_a_joint_membership_count() {
        let m = Members { voters: vec![NodeId::new(1, 0)], outgoing: nodes(3), ..Members::default() };
        assert_eq!(quorum_value(&m, |n| if n.id == 1 { 10 } else { 4 }), 4);
        assert_eq!(quorum_tally(&m, |n| (n.id == 1).then_some(true)), Tally::Open);
        assert_eq!(quorum_tally(&m, |n| Some(n.id != 1)), Tally::Lost);
        assert_eq!(quorum_tally(&m, |n| (n.id < 3).then_some(true)), Tally::Won);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// By the definition: a value is reached if more than half have it, and no greater one is.
        #[test]
        fn quorum_value_is_the_greatest_that_a_majority_has(values in proptest::collection::vec(0u64..20, 1..9)) {
            let voters = nodes(values.len() as u64);
            let got = majority_value(&voters, |n| values[n.id as usize - 1]);
            let have = |v: u64| values.iter().filter(|x| **x >= v).count() * 2 > values.len();
            prop_assert!(have(got));
            prop_assert!(!have(got + 1));
        }

        /// Two won votes share a voter, whatever the halves are.
        #[test]
        fn two_quorums_meet(size in 1u64..6, old in 0u64..6, a in 0u32..4096, b in 0u32..4096) {
            let m = Members { voters: nodes(size), outgoing: (3..3 + old).map(|i| NodeId::new(i, 0)).collect(), ..Members::default() };
            let won = |set: u32| quorum_tally(&m, |n| Some(set >> n.id & 1 == 1)) == Tally::Won;
            if won(a) && won(b) {
                prop_assert!(m.all().iter().any(|n| a & b & (1 << n.id) != 0));
            }
        }
    }
}
