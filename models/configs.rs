//! The worlds that are explored.
//!
//! Owns their bounds and the number of states that each has. Small ones, each for a purpose, find more than a large one: what a large
//! one adds is mostly the same in another order.

use crate::quorum_write::{Budget, Config, Persist, Start};

const NOTHING: Budget = Budget { timeouts: 0, resends: 0, writes: 0, crashes: 0, duplicates: 0 };

const THREE: Config = Config {
    name: "",
    why: "",
    nodes: 3,
    start: Start::Fresh,
    budget: NOTHING,
    candidates: &[0, 1, 2],
    crashers: &[0, 1, 2],
    persist: Persist::WhileCrashesRemain,
    pre_votes: false,
    beats: false,
    answers_to_the_past: false,
    accusations: true,
    states: None,
};

/// Run by the tests, to their ends.
pub const BOUNDED: &[Config] = &[
    Config {
        name: "election",
        why: "two candidates and a crash: votes and terms on disk",
        budget: Budget { timeouts: 2, crashes: 1, ..NOTHING },
        candidates: &[0, 1],
        states: Some(102_156),
        ..THREE
    },
    Config {
        name: "write",
        why: "an elected leader, a write, a successor, a crash of either",
        start: Start::Elected,
        budget: Budget { timeouts: 1, writes: 1, crashes: 1, ..NOTHING },
        candidates: &[1],
        crashers: &[0, 1],
        states: Some(14_388),
        ..THREE
    },
    Config {
        name: "short-log",
        why: "an elected leader, a write, two elections, no crash: who may be elected, what is overwritten",
        start: Start::Elected,
        budget: Budget { timeouts: 2, writes: 1, ..NOTHING },
        candidates: &[1, 2],
        states: Some(19_174),
        ..THREE
    },
    Config {
        name: "figure-8",
        why: "four reigns of two leaders in turn: what an older term left is not committed by counting",
        budget: Budget { timeouts: 4, ..NOTHING },
        candidates: &[0, 2],
        states: Some(400_613),
        ..THREE
    },
    Config {
        name: "pre-vote",
        why: "pre-votes, beats and answers to the past, as they are sent",
        budget: Budget { timeouts: 2, ..NOTHING },
        candidates: &[0, 1],
        pre_votes: true,
        beats: true,
        answers_to_the_past: true,
        states: Some(40_517),
        ..THREE
    },
    Config {
        name: "slow-disk",
        why: "no crash, but disks that take as long as they like: completions that come late",
        start: Start::Elected,
        budget: Budget { timeouts: 1, writes: 1, ..NOTHING },
        candidates: &[1],
        persist: Persist::Explicit,
        states: Some(9_277),
        ..THREE
    },
    Config {
        name: "again",
        why: "repetitions and messages that come twice, around a crash of a follower",
        start: Start::Elected,
        budget: Budget { writes: 1, resends: 2, duplicates: 1, crashes: 1, ..NOTHING },
        crashers: &[1],
        persist: Persist::Explicit,
        states: Some(4_337),
        ..THREE
    },
    Config {
        name: "five",
        why: "five replicas, a write, a successor",
        nodes: 5,
        start: Start::Elected,
        budget: Budget { timeouts: 1, writes: 1, ..NOTHING },
        candidates: &[1],
        states: Some(253_739),
        ..THREE
    },
];

/// Run by hand.
pub const LARGE: &[Config] = &[
    Config {
        name: "large-again",
        why: "repetitions and messages that come twice, around an election and a crash",
        start: Start::Elected,
        budget: Budget { timeouts: 1, writes: 1, resends: 1, duplicates: 1, crashes: 1 },
        candidates: &[1],
        crashers: &[1],
        states: Some(1_977_864),
        ..THREE
    },
    Config {
        name: "large-write",
        why: "anybody may campaign and crash, from nothing, two writes",
        budget: Budget { timeouts: 2, writes: 2, crashes: 1, ..NOTHING },
        ..THREE
    },
    Config {
        name: "large-elected",
        why: "three elections after the first, two writes",
        start: Start::Elected,
        budget: Budget { timeouts: 3, writes: 2, ..NOTHING },
        ..THREE
    },
    Config {
        name: "large-crashes",
        why: "two crashes of anybody",
        start: Start::Elected,
        budget: Budget { timeouts: 2, writes: 1, crashes: 2, ..NOTHING },
        ..THREE
    },
    Config {
        name: "large-five",
        why: "five replicas, a write, a successor, a crash of the leader",
        nodes: 5,
        start: Start::Elected,
        budget: Budget { timeouts: 1, writes: 1, crashes: 1, ..NOTHING },
        candidates: &[1],
        crashers: &[0],
        ..THREE
    },
];

/// The world with a name.
#[must_use]
pub fn by_name(name: &str) -> Option<Config> {
    BOUNDED.iter().chain(LARGE).find(|c| c.name == name).copied()
}
