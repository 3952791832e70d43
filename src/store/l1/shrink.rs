//! Makes a failing plan smaller: drops halves, then single steps and crashes, while it still fails.

use super::{Plan, run};

/// A smaller plan that still fails, and how.
pub fn shrink(plan: &Plan) -> (Plan, String) {
    let mut best = plan.clone();
    let mut why = match run(&best) {
        Ok(_) => return (best, "does not fail".to_owned()),
        Err(e) => e,
    };
    let mut step = best.ops.len().div_ceil(2).max(1);
    loop {
        let (mut at, mut any) = (0, false);
        while at < best.ops.len() {
            let mut p = best.clone();
            p.ops.drain(at..(at + step).min(p.ops.len()));
            match run(&p) {
                Err(e) => (best, why, any) = (p, e, true),
                Ok(_) => at += step,
            }
        }
        for i in (0..best.crashes.len()).rev() {
            let mut p = best.clone();
            p.crashes.remove(i);
            if let Err(e) = run(&p) {
                (best, why, any) = (p, e, true);
            }
        }
        if step == 1 && !any {
            return (best, why);
        }
        step = (step / 2).max(1);
    }
}
