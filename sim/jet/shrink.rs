//! Makes a failing plan small: actors, then steps, then events are left out in halves, quarters and one by one while the same
//! invariant fails.

use super::plan::Plan;

/// A part of a plan that can be left out.
#[derive(Clone, Copy)]
enum Part {
    Actors,
    Steps(usize),
    Events,
}

fn len(p: &Plan, part: Part) -> usize {
    match part {
        Part::Actors => p.actors.len(),
        Part::Steps(a) => p.actors.get(a).map_or(0, |a| a.steps.len()),
        Part::Events => p.events.len(),
    }
}

fn without(p: &Plan, part: Part, from: usize, n: usize) -> Plan {
    let mut p = p.clone();
    match part {
        Part::Actors => {
            // An actor's number names its machine in the events: its steps go, it stays.
            for a in p.actors.iter_mut().skip(from).take(n) {
                a.steps.clear();
            }
        }
        Part::Steps(a) => drop(p.actors[a].steps.drain(from..from + n)),
        Part::Events => drop(p.events.drain(from..from + n)),
    }
    p
}

/// The smallest plan found in at most `runs` runs for which `fails` is still true.
pub fn shrink(plan: &Plan, mut runs: usize, fails: impl Fn(&Plan) -> bool) -> Plan {
    let mut best = plan.clone();
    loop {
        let before = best.len();
        let mut parts = vec![Part::Actors, Part::Events];
        parts.extend((0..best.actors.len()).map(Part::Steps));
        for part in parts {
            let mut portion = len(&best, part);
            while portion > 0 {
                let mut from = 0;
                while from < len(&best, part) {
                    let n = portion.min(len(&best, part) - from);
                    let smaller = without(&best, part, from, n);
                    if smaller.len() == best.len() {
                        from += n;
                        continue;
                    }
                    if runs == 0 {
                        return best;
                    }
                    runs -= 1;
                    if fails(&smaller) {
                        best = smaller;
                        if matches!(part, Part::Actors) {
                            from += n;
                        }
                    } else {
                        from += n;
                    }
                }
                portion /= 2;
            }
        }
        if best.len() == before {
            return best;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jet::plan::Op;

    #[test]
    fn what_is_not_needed_goes() {
        let gets = |p: &Plan| {
            p.actors.iter().flat_map(|a| &a.steps).filter(|s| matches!(s.op, Op::Fetch { .. })).count() >= 2
        };
        let plan = (0..).map(Plan::draw).find(gets).expect("most plans fetch");
        let small = shrink(&plan, 10_000, gets);
        assert_eq!(small.len(), 2);
    }
}
