//! B-1: messages of one publisher reach one subscription in the order of publishing, each at most once.

use std::collections::BTreeMap;

use super::{name, sub_name};
use crate::history::{History, Violation};

pub fn check(h: &History) -> Vec<Violation> {
    let mut last: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let mut found = Vec::new();
    for m in &h.msgs {
        // A publisher is a connection: what several of them send has no order. Numbers of publishes rise with time.
        let conn = h.sessions[h.pubs[m.publish].session].conn;
        if let Some(before) = last.insert((conn, m.sub), m.publish)
            && before >= m.publish
        {
            let what = if before == m.publish { "twice" } else { "out of order" };
            let (p, s) = (name(h, m.publish), sub_name(h, m.sub));
            found.push(Violation::new("B-1", format!("{p} came {what} to {s}, after number {before}")));
        }
    }
    found
}
