//! The bounded worlds, to their ends, and the proof that they find what is planted.

use std::time::Duration;

use raft::{Body, LogIndex, Message, Mutant, Term};

use crate::configs::{BOUNDED, LARGE, by_name};
use crate::net::Net;
use crate::node::{GROUP, name};
use crate::quorum_write::{Bug, Config};
use crate::run::{Limits, Outcome, explore};

/// Far beyond what these worlds take, so that a run that came to this is told from a complete one.
const LIMITS: Limits =
    Limits { threads: 2, time: Duration::from_secs(600), generated: 50_000_000, breadth: false };

fn whole(config: &Config) {
    let outcome = explore(*config, None, LIMITS);
    println!(
        "{}: {} unique, {} generated, longest way {}, {:.2} s",
        config.name,
        outcome.unique,
        outcome.generated,
        outcome.depth,
        outcome.took.as_secs_f64()
    );
    for trace in &outcome.failures {
        println!("{} after {} actions:\n{}", trace.property, trace.steps, trace.text);
    }
    assert!(outcome.failures.is_empty(), "{}: {:?}", config.name, outcome.failures[0].property);
    assert!(outcome.complete, "{}: a limit came before the end", config.name);
    assert_eq!(outcome.missing, Vec::<&str>::new(), "{}: too calm a world proves nothing", config.name);
    assert_eq!(
        Some(outcome.unique),
        config.states,
        "{}: the number of states changed. If the core did, and this is what the change should do, record it in configs.rs",
        config.name
    );
}

#[test]
fn bounded_worlds_keep_q1_to_q7() {
    assert!(BOUNDED.iter().all(|c| c.states.is_some()), "what is run to its end has a known size");
    BOUNDED.iter().for_each(whole);
}

#[test]
fn names_of_worlds_are_unique() {
    for config in BOUNDED.iter().chain(LARGE) {
        assert_eq!(by_name(config.name).map(|c| c.why), Some(config.why), "{}", config.name);
    }
    assert!(by_name("no such world").is_none());
}

fn with(bug: Bug, world: &str) -> Outcome {
    // One thread: the same order, so the same number of states, each time.
    let config = by_name(world).expect("the worlds of this file exist");
    explore(config, Some(bug), Limits { threads: 1, ..LIMITS })
}

/// Each planted bug, the world that finds it, and the first of the invariants that it breaks there.
const PLANTED: &[(Bug, &str, &str)] = &[
    (Bug::Core(Mutant::VoteNotPersisted), "election", "Q-1"),
    (Bug::Core(Mutant::VoteBeforeDurable), "election", "Q-3"),
    (Bug::Core(Mutant::VotesTwice), "short-log", "Q-1"),
    (Bug::Core(Mutant::VotesForShortLog), "short-log", "Q-3"),
    (Bug::Core(Mutant::CommitPriorTerm), "figure-8", "Q-3"),
    (Bug::AckBeforeQuorum, "write", "Q-4"),
    (Bug::Core(Mutant::AckBeforeDurable), "write", "Q-4"),
    (Bug::Core(Mutant::LeaderCountsUnsynced), "write", "Q-4"),
    (Bug::Core(Mutant::EmptyAppendClaimsReceived), "again", "Q-4"),
    (Bug::Core(Mutant::TruncateNotWritten), "write", "Q-7"),
];

#[test]
fn every_planted_bug_is_found() {
    let mut unfound = Vec::new();
    for (bug, world, id) in PLANTED {
        let outcome = with(*bug, world);
        let found: Vec<&str> = outcome.failures.iter().map(|f| f.property).collect();
        println!(
            "{bug:?} in {world}: {} unique states, {:.2} s: {found:?}",
            outcome.unique,
            outcome.took.as_secs_f64()
        );
        if !found.iter().any(|f| f.starts_with(id)) {
            unfound.push((*bug, *world, found));
        }
        assert!(!outcome.complete, "{bug:?}: a run that failed is not complete");
    }
    assert!(unfound.is_empty(), "not found: {unfound:?}");
}

#[test]
fn a_lost_write_is_seen_where_a_later_leader_lacks_it_q5() {
    let outcome = with(Bug::AckBeforeQuorum, "write");
    let q5 =
        outcome.failures.iter().find(|f| f.property.starts_with("Q-5")).expect("a later leader lacks it");
    assert!(q5.text.contains("a client writes") && q5.text.contains("election timeout"), "{}", q5.text);
}

#[test]
fn a_limit_is_not_taken_for_the_end() {
    let config = by_name("figure-8").expect("it exists");
    let outcome = explore(config, None, Limits { generated: 5_000, ..LIMITS });
    assert!(!outcome.complete);
    assert!(Some(outcome.unique) < config.states);
}

#[test]
fn a_set_of_messages_does_not_know_its_order() {
    let message = |from: usize, term: u64| Message {
        group: GROUP,
        from: name(from),
        to: name(2),
        term: Term(term),
        body: Body::Vote { last: LogIndex(1), last_term: Term(1), transfer: false },
    };
    let (mut a, mut b) = (Net::default(), Net::default());
    for at in 0..2 {
        for term in 0..8 {
            a.insert(message(at, term));
            b.insert(message(1 - at, 7 - term));
            b.insert(message(1 - at, 7 - term));
        }
    }
    assert_eq!(a, b);
    assert_eq!(a.iter().count(), 16);
    let first = a.iter().next().cloned().expect("it is not empty");
    a.remove(&first);
    assert_eq!(a.iter().count(), 15);
    assert_ne!(a, b);
}
