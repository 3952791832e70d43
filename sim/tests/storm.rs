//! Whole storms: they pass, they repeat, and what the harness does is what its plan says.
#![cfg(madsim)]

use sim::{
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

#[test]
fn e7_the_same_seed_gives_the_same_trace() {
    for seed in [3, 8, 21] {
        let (a, b) = (storm::run(&Plan::draw(seed)), storm::run(&Plan::draw(seed)));
        assert!(a.events > 100);
        assert_eq!((a.hash, a.events, a.counts, a.violations), (b.hash, b.events, b.counts, b.violations));
    }
    let (a, b) = (storm::run(&Plan::draw(3)), storm::run(&Plan::draw(8)));
    assert_ne!(a.hash, b.hash);
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
