//! A bounded run of the simulator, and the proof that it finds what is planted.

use raft::Mutant;

use super::*;

fn first_failure(mutant: Mutant, seeds: u64) -> Option<(u64, Violation)> {
    (1..=seeds).find_map(|seed| {
        run(seed, false, &|core| core.plant(Some(mutant))).err().map(|failure| (seed, failure.violation))
    })
}

#[test]
fn seeds_pass_r1_to_r19() {
    let mut stats = Stats::default();
    for seed in 1..=120 {
        match run(seed, false, &|_| {}) {
            Ok(s) => stats.add(&s),
            Err(failure) => panic!("seed {seed} at {} ns: {:?}", failure.at_ns, failure.violation),
        }
    }
    println!("{stats:?}");
    // A run that was too calm proves nothing.
    assert!(stats.elections > 600, "{stats:?}");
    assert!(stats.faults > 5_000, "{stats:?}");
    assert!(stats.committed > 10_000, "{stats:?}");
    assert!(stats.reads.0 > 1_000 && stats.reads.1 > 1_000, "{stats:?}");
    assert!(stats.changes > 100 && stats.installs > 100 && stats.patches > 10, "{stats:?}");
}

#[test]
fn the_same_seed_runs_the_same() {
    for seed in [3, 17, 40] {
        let runs: Vec<String> = (0..2)
            .map(|_| match run(seed, true, &|_| {}) {
                Ok(stats) => format!("{stats:?}"),
                Err(failure) => format!("{failure:?}"),
            })
            .collect();
        assert_eq!(runs[0], runs[1]);
    }
}

/// How many seeds each planted bug may take, about ten times what it took when this was written.
const BUDGETS: [(Mutant, u64); 28] = [
    (Mutant::CommitPriorTerm, 10),
    (Mutant::AckBeforeDurable, 10),
    (Mutant::EmptyAppendClaimsReceived, 20),
    (Mutant::LeaderCountsUnsynced, 10),
    (Mutant::SingleVoterUnsynced, 10),
    (Mutant::StaleCompletion, 40),
    (Mutant::VoteBeforeDurable, 10),
    (Mutant::VoteNotPersisted, 10),
    (Mutant::TermNotPersisted, 10),
    (Mutant::MembersAtCommit, 40),
    (Mutant::ChangesOverlap, 10),
    (Mutant::ChangeWithoutOwnCommit, 10),
    (Mutant::RemovedStillCount, 30),
    (Mutant::JointCountsOneHalf, 40),
    (Mutant::IncarnationIgnored, 400),
    (Mutant::SnapshotNewestMembers, 10),
    (Mutant::SnapshotOffByOne, 20),
    (Mutant::LogDroppedForOffer, 20),
    (Mutant::AppendSkipsRest, 20),
    (Mutant::TruncateNotWritten, 20),
    (Mutant::ConflictNeverBacksUp, 60),
    (Mutant::DamagedLeads, 300),
    (Mutant::HoleAcknowledged, 40),
    (Mutant::LeaseWithOldClock, 90),
    (Mutant::PromiseIgnored, 220),
    (Mutant::VotesTwice, 20),
    (Mutant::VotesForShortLog, 2500),
    (Mutant::ReadWithoutQuorum, 90),
];

#[test]
fn every_planted_bug_is_found() {
    let missing: Vec<Mutant> =
        Mutant::ALL.into_iter().filter(|m| !BUDGETS.iter().any(|(b, _)| b == m)).collect();
    assert!(missing.is_empty(), "no budget for {missing:?}");
    let mut unfound = Vec::new();
    for (mutant, budget) in BUDGETS {
        match first_failure(mutant, budget) {
            Some((seed, violation)) => {
                println!("{mutant:?}: seed {seed}, {}: {}", violation.id, violation.text)
            }
            None => unfound.push((mutant, budget)),
        }
    }
    assert!(unfound.is_empty(), "not found within their budgets: {unfound:?}");
}
