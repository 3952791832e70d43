//! Makes a failing plan small: halves of the clients' steps and of the events, then single ones, then whole clients, as
//! long as the same invariant fails. The plan is data, so the result is a plan too.

use crate::plan::Plan;

/// Drops what is not needed. `fails` runs a plan and says whether the same invariant still fails; it is asked at most
/// `runs` times.
pub fn shrink(plan: &Plan, runs: usize, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut best = plan.clone();
    let mut left = runs;
    let mut try_it = |best: &mut Plan, candidate: Plan| {
        if left == 0 || candidate.len() >= best.len() && candidate.clients.len() >= best.clients.len() {
            return false;
        }
        left -= 1;
        let still = fails(&candidate);
        if still {
            *best = candidate;
        }
        still
    };
    loop {
        let before = (best.len(), best.clients.len());
        // Clients, from the last: numbers of the others stay.
        for i in (0..best.clients.len()).rev() {
            let mut c = best.clone();
            let gone = c.clients.remove(i).id;
            c.events.retain(|e| client_of(&e.event) != Some(gone));
            try_it(&mut best, c);
        }
        let mut portion = best.events.len();
        while portion > 0 {
            let mut at = 0;
            while at < best.events.len() {
                let mut c = best.clone();
                c.events.drain(at..(at + portion).min(best.events.len()));
                if !try_it(&mut best, c) {
                    at += portion;
                }
            }
            portion /= 2;
        }
        for i in 0..best.clients.len() {
            let mut portion = best.clients[i].steps.len();
            while portion > 0 {
                let mut at = 0;
                while at < best.clients[i].steps.len() {
                    let mut c = best.clone();
                    let steps = &mut c.clients[i].steps;
                    let to = (at + portion).min(steps.len());
                    // The time that the dropped steps took stays, so that what is left happens when it did.
                    let waited: u64 = steps.drain(at..to).map(|s| s.wait_us).sum();
                    if let Some(next) = steps.get_mut(at) {
                        next.wait_us += waited;
                    }
                    if !try_it(&mut best, c) {
                        at += portion;
                    }
                }
                portion /= 2;
            }
        }
        if (best.len(), best.clients.len()) == before {
            return best;
        }
    }
}

fn client_of(e: &crate::plan::Event) -> Option<u64> {
    use crate::plan::Event::*;
    match e {
        Cut { client, .. }
        | Reset { client }
        | Slow { client, .. }
        | AtByte { client, .. }
        | KillClient { client, .. } => Some(*client),
        KillServer { .. } | Pause { .. } | Reload { .. } | LameDuck => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Op;

    #[test]
    fn what_is_not_needed_goes() {
        let drains = |p: &Plan| {
            p.clients.iter().flat_map(|c| &c.steps).filter(|s| matches!(s.op, Op::Ping { .. })).count() >= 2
        };
        let plan = Plan::draw(7);
        assert!(drains(&plan));
        let small = shrink(&plan, 10_000, drains);
        assert!(drains(&small));
        assert_eq!(small.len(), 2);
    }
}
