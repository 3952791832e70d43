//! B-4: a subscription with a maximum gets no more than that, counted from SUB.

use super::sub_name;
use crate::history::{History, Violation};

pub fn check(h: &History) -> Vec<Violation> {
    let mut got = vec![0u64; h.subs.len()];
    for m in &h.msgs {
        got[m.sub] += 1;
    }
    let mut found = Vec::new();
    for (i, s) in h.subs.iter().enumerate() {
        let conn = h.conn_of(s.session);
        // A later UNSUB may raise the maximum: the largest counts. What came before the UNSUB was handled may be more.
        let Some(most) = s.unsubs.iter().map(|u| u.2).max().filter(|m| *m > 0) else { continue };
        let first = s.unsubs.iter().find(|u| u.2 > 0).map(|u| u.1);
        let Some(handled) = first.and_then(|op| conn.confirmed(op)) else { continue };
        let before = h.msgs.iter().filter(|m| m.sub == i && m.at <= handled).count() as u64;
        if got[i] > most.max(before) {
            let text = format!("{} got {} messages, {most} is its maximum", sub_name(h, i), got[i]);
            found.push(Violation::new("B-4", text));
        }
    }
    found
}
