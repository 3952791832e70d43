//! SIM-7: what was published and confirmed has come to every plain subscription that was in force all the time, on a
//! connection that lived to the end. A subscription with a maximum must have got that many, or all.

use std::collections::BTreeSet;

use super::{name, origin, reach, sub_name};
use crate::{
    history::{History, Violation},
    world::RESPONSE_SECS,
};

pub fn check(h: &History) -> Vec<Violation> {
    let got: BTreeSet<(usize, usize)> = h.msgs.iter().map(|m| (m.sub, m.publish)).collect();
    let mut found = Vec::new();
    for (i, s) in h.subs.iter().enumerate() {
        if s.queue.is_some() || !h.conn_of(s.session).survived() {
            continue;
        }
        // One UNSUB with a maximum, and no other: it ends by itself.
        let most = match s.unsubs[..] {
            [] => u64::MAX,
            [(_, _, max)] if max > 0 => max,
            _ => continue,
        };
        let answered = h.unserved_to.get(&i).copied().unwrap_or(0);
        let full = got.range((i, 0)..(i + 1, 0)).count() as u64 + answered >= most;
        let live = crate::history::Sub { unsubs: Vec::new(), ..s.clone() };
        for (j, p) in h.pubs.iter().enumerate() {
            let confirmed = h.pub_confirmed(p).filter(|t| *t <= h.settled_at);
            if full || confirmed.is_none() || got.contains(&(i, j)) || !h.surely_live(&live, p.sent_at) {
                continue;
            }
            // Of several answers of a service the first goes back.
            let rivals = origin(h, p).is_some()
                && h.pubs.iter().enumerate().any(|(k, q)| k != j && q.answers == p.answers);
            // It goes back only while the request waits for it.
            let in_time = (RESPONSE_SECS - 1) * 1_000_000_000;
            let late = origin(h, p).is_some_and(|r| confirmed > Some(r.sent_at + in_time));
            if !rivals && !late && reach(h, p, s).is_some() && origin_is_known(h, j) {
                let text = format!("{} never came to {}", name(h, j), sub_name(h, i));
                found.push(Violation::new("SIM-7", text));
            }
        }
    }
    found
}

/// A server that started anew knows no requests of the one before; neither does one whose requestor has left.
fn origin_is_known(h: &History, publish: usize) -> bool {
    let p = &h.pubs[publish];
    origin(h, p).is_none_or(|r| h.conn_of(r.session).boot == h.conn_of(p.session).boot)
}
