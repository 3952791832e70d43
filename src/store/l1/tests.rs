use super::*;

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
    for seed in 0..3 {
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
    assert!(runs > 300 && total.acked > 300 && total.flushes > 100, "{runs} runs: {total:?}");
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
