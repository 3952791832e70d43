//! Makes a failing plan small: actors, then steps, then events are left out in halves, quarters and one by one while the same
//! invariant fails. It works for every plan that can say what its parts are ([`Parts`]).

use crate::mesh;

use super::plan::Plan;

/// A part of a plan that can be left out.
#[derive(Clone, Copy)]
enum Part {
    Actors,
    Steps(usize),
    Events,
}

/// A plan that consists of actors with their steps, and of events.
pub trait Parts: Clone {
    /// Actors.
    fn actors(&self) -> usize;
    /// Steps of one.
    fn steps(&self, actor: usize) -> usize;
    /// Leaves out steps.
    fn drop_steps(&mut self, actor: usize, from: usize, n: usize);
    /// Events.
    fn events(&self) -> usize;
    /// Leaves out events.
    fn drop_events(&mut self, from: usize, n: usize);
    /// Steps and events.
    fn size(&self) -> usize {
        (0..self.actors()).map(|a| self.steps(a)).sum::<usize>() + self.events()
    }
}

impl Parts for Plan {
    fn actors(&self) -> usize {
        self.actors.len()
    }
    fn steps(&self, actor: usize) -> usize {
        self.actors.get(actor).map_or(0, |a| a.steps.len())
    }
    fn drop_steps(&mut self, actor: usize, from: usize, n: usize) {
        self.actors[actor].steps.drain(from..from + n);
    }
    fn events(&self) -> usize {
        self.events.len()
    }
    fn drop_events(&mut self, from: usize, n: usize) {
        self.events.drain(from..from + n);
    }
}

impl Parts for mesh::plan::Plan {
    fn actors(&self) -> usize {
        self.walks.len()
    }
    fn steps(&self, actor: usize) -> usize {
        self.walks.get(actor).map_or(0, Vec::len)
    }
    fn drop_steps(&mut self, actor: usize, from: usize, n: usize) {
        self.walks[actor].drain(from..from + n);
    }
    fn events(&self) -> usize {
        self.events.len()
    }
    fn drop_events(&mut self, from: usize, n: usize) {
        self.events.drain(from..from + n);
    }
}

fn len(p: &impl Parts, part: Part) -> usize {
    match part {
        Part::Actors => p.actors(),
        Part::Steps(a) => p.steps(a),
        Part::Events => p.events(),
    }
}

fn without<P: Parts>(p: &P, part: Part, from: usize, n: usize) -> P {
    let mut p = p.clone();
    match part {
        Part::Actors => {
            // An actor's number names its machine in the events: its steps go, it stays.
            for a in from..(from + n).min(p.actors()) {
                let all = p.steps(a);
                p.drop_steps(a, 0, all);
            }
        }
        Part::Steps(a) => p.drop_steps(a, from, n),
        Part::Events => p.drop_events(from, n),
    }
    p
}

/// The smallest plan found in at most `runs` runs for which `fails` is still true.
pub fn shrink<P: Parts>(plan: &P, mut runs: usize, fails: impl Fn(&P) -> bool) -> P {
    let mut best = plan.clone();
    loop {
        let before = best.size();
        let mut parts = vec![Part::Actors, Part::Events];
        parts.extend((0..best.actors()).map(Part::Steps));
        for part in parts {
            let mut portion = len(&best, part);
            while portion > 0 {
                let mut from = 0;
                while from < len(&best, part) {
                    let n = portion.min(len(&best, part) - from);
                    let smaller = without(&best, part, from, n);
                    if smaller.size() == best.size() {
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
        if best.size() == before {
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
