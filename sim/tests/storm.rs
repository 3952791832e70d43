//! Whole storms: they pass, they repeat, and what the harness does is what its plan says.
#![cfg(madsim)]

use sim::{
    jet,
    options::{Fault, Options},
    plan::{Op, Plan},
    storm,
};

fn passes(p: &Plan) -> storm::Report {
    let r = storm::run(p);
    assert!(r.violations.is_empty(), "seed {}: {:?}", p.options.seed, r.violations);
    r
}

#[test]
fn storms_pass() {
    for seed in 1..=12 {
        passes(&Plan::draw(seed));
    }
}

/// What a child process of the test below does; in an ordinary run it has nothing to do.
#[test]
fn one_run_as_a_child() {
    if let Some(seed) = std::env::var("STORM_CHILD_SEED").ok().and_then(|s| s.parse().ok()) {
        let r = storm::run(&Plan::draw(seed));
        assert!(r.events > 100);
        println!("\ntrace {} {} {:?} {:?}", r.hash, r.events, r.counts, r.violations);
    }
}

/// In a process of its own.
fn trace_of(seed: u64) -> String {
    let out = std::process::Command::new(std::env::current_exe().expect("the test has a file"))
        .args(["--exact", "one_run_as_a_child", "--nocapture"])
        .env("STORM_CHILD_SEED", seed.to_string())
        .output()
        .expect("the child starts");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().find(|l| l.starts_with("trace ")).unwrap_or_else(|| panic!("no trace in {text}")).to_string()
}

#[test]
fn e7_the_same_seed_gives_the_same_trace_in_two_processes() {
    for seed in [3, 8, 21] {
        assert_eq!(trace_of(seed), trace_of(seed), "seed {seed}");
    }
    assert_ne!(trace_of(3), trace_of(8));
}

#[test]
fn e7_a_run_behind_another_is_the_run_that_it_is_alone() {
    let traces = |seeds: &[u64]| -> Vec<u64> {
        let core = seeds.iter().map(|s| storm::run(&Plan::draw(*s)).hash);
        let jet = seeds.iter().map(|s| jet::run::run(&jet::plan::Plan::draw(*s)).hash);
        core.chain(jet).collect()
    };
    let (first, second) = (traces(&[3, 8]), traces(&[8, 3]));
    assert_eq!((first[0], first[1], first[2], first[3]), (second[1], second[0], second[3], second[2]));
}

#[test]
fn a_plan_survives_its_text() {
    for seed in 1..=20 {
        let plan = Plan::draw(seed);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}

#[test]
fn switching_a_fault_off_leaves_the_rest() {
    let mut o = Options::draw(5);
    o.faults = [Fault::Cut, Fault::Churn].into();
    let with = Plan::of(o.clone());
    o.faults.remove(&Fault::Cut);
    let without = Plan::of(o);
    assert_eq!(with.clients, without.clients);
    assert!(with.events.len() > without.events.len() || with.options.clients < 3);
}

#[test]
fn calm_storms_deliver() {
    let mut o = Options::draw(4);
    o.faults.clear();
    (o.clients, o.steps, o.max_pending, o.window) = (8, 40, 64 << 20, 256 << 10);
    let plan = Plan::of(o);
    let ops = plan.clients.iter().flat_map(|c| &c.steps).filter(|s| matches!(s.op, Op::Pub { .. })).count();
    let r = passes(&plan);
    assert!(ops > 50 && r.counts["deliveries"] > 200, "{ops} {:?}", r.counts);
}
