use super::*;
use crate::Mutant;

fn must_hold(plan: &Plan) -> Outcome {
    match run(plan) {
        Ok(o) => o,
        Err(e) => {
            let (small, why) = shrink(plan);
            panic!("{e}\nshrunk: {why}\n{small:?}");
        }
    }
}

/// Crashes before and after every single disk operation of small plans.
#[test]
fn a_crash_at_every_disk_operation() {
    let (mut runs, mut total) = (0, Outcome::default());
    for seed in 0..2 {
        let mut plan = Plan::random(seed, 16, Class::Crash);
        plan.crashes.clear();
        let n = must_hold(&plan).disk_ops;
        for op in 0..n {
            for after in [false, true] {
                plan.crashes = vec![(op, after)];
                let o = must_hold(&plan);
                runs += 1;
                total.acked += o.acked;
                total.flushes += o.flushes;
            }
        }
    }
    assert!(runs > 200 && total.acked > 200 && total.flushes > 80, "{runs} runs: {total:?}");
}

#[test]
fn random_plans() {
    let mut total = Outcome::default();
    for seed in 0..150 {
        let class = [Class::Crash, Class::Errors, Class::Reads, Class::Rot][seed as usize % 4];
        let o = must_hold(&Plan::random(seed, 60, class));
        total.acked += o.acked;
        total.restarts += o.restarts;
        total.damaged += o.damaged;
        total.refused += o.refused;
        total.flushes += o.flushes;
    }
    assert!(total.acked > 800 && total.restarts > 300 && total.flushes > 300, "{total:?}");
}

/// Every planted bug is found, by the first plan that does (`scripts/sim-store --mutants` finds new ones if plans change).
#[test]
fn planted_bugs_are_found() {
    for (mutant, seed) in [
        (Mutant::ReplyBeforeSync, 0),
        (Mutant::NoDirectorySync, 0),
        (Mutant::TruncateOnDamage, 223),
        (Mutant::StaleRecycledRound, 1297),
        (Mutant::IndexNotRebuilt, 91),
        (Mutant::FreeBeforeManifest, 18),
        (Mutant::NoSegmentSync, 0),
        (Mutant::NoPadding, 0),
    ] {
        let plan = Plan::mixed(seed, 60);
        must_hold(&plan);
        let planted = Plan { mutant: Some(mutant), ..plan };
        assert!(run(&planted).is_err(), "{mutant:?} is not found by plan {seed}");
    }
}

/// A dead piece between two that were merged left its deletions in the new one, so that the message behind was passed over.
#[test]
fn a_dead_piece_leaves_nothing_in_its_merged_neighbours() {
    let group = 2;
    let append = |msgs, size| Op::Append { group, msgs, size };
    let apply = |n| Op::Apply { group, n };
    let ops = vec![
        append(1, 10),
        Op::Step,
        append(1, 100),
        apply(4),
        Op::Flush,
        Op::Step,
        Op::Flush,
        append(1, 0),
        Op::Step,
        apply(5),
        append(3, 100),
        Op::Flush,
        Op::Delete { group, pick: 30_541 },
        Op::Step,
        apply(1),
        Op::Flush,
        Op::Checkpoint { group },
        Op::Flush,
    ];
    must_hold(&Plan { seed: 2_062_249, class: Class::Crash, mutant: None, ops, crashes: vec![] });
}
