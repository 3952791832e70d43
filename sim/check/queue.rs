//! B-2: of a queue group exactly one member gets a message; at most one where a member may have been gone.

use std::collections::BTreeMap;

use super::{name, reach};
use crate::history::{History, Sub, Violation};

pub fn check(h: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    // Queue names are an account's own, so a name is a group.
    let mut got: BTreeMap<(usize, &str), u64> = BTreeMap::new();
    for m in &h.msgs {
        if let Some(q) = &h.subs[m.sub].queue {
            *got.entry((m.publish, q)).or_default() += 1;
        }
    }
    for ((p, q), n) in &got {
        if *n > 1 {
            found.push(Violation::new("B-2", format!("{} went to {n} members of {q}", name(h, *p))));
        }
    }
    let mut groups: BTreeMap<&str, Vec<&Sub>> = BTreeMap::new();
    for s in &h.subs {
        if let Some(q) = &s.queue {
            groups.entry(q).or_default().push(s);
        }
    }
    for (i, p) in h.pubs.iter().enumerate() {
        let Some(until) = h.pub_confirmed(p).filter(|t| *t <= h.settled_at) else { continue };
        // The first answer of a service alone goes back; which one that is is not known here.
        if p.answers.is_some() {
            continue;
        }
        for (q, members) in &groups {
            let mut possible = members
                .iter()
                .filter(|s| reach(h, p, s).is_some() && h.maybe_live(s, p.sent_at, until))
                .peekable();
            if possible.peek().is_some()
                && possible.all(|s| h.surely_live(s, p.sent_at))
                && !got.contains_key(&(i, q))
            {
                found.push(Violation::new("B-2", format!("{} went to no member of {q}", name(h, i))));
            }
        }
    }
    found
}
