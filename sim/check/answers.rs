//! SIM-14: of the answers to one request of a service at most one goes back to the account that asked.

use std::collections::BTreeMap;

use super::{name, origin, sub_name};
use crate::history::{History, Violation};

pub fn check(h: &History) -> Vec<Violation> {
    // By request and subscription in the account that asked: the answer that came.
    let mut first: BTreeMap<(usize, usize, &str), usize> = BTreeMap::new();
    let mut found = Vec::new();
    for m in &h.msgs {
        let p = &h.pubs[m.publish];
        let (Some(request), Some(_)) = (p.answers, origin(h, p)) else { continue };
        // In the service's own account an answer still has the subject that the server gave it, and all may see all.
        if m.subject.starts_with("_R_.") {
            continue;
        }
        // Each delivery of a request has a reply subject of its own, and so its own answer.
        if let Some(other) = first.insert((request, m.sub, &p.subject), m.publish)
            && other != m.publish
        {
            let text =
                format!("{} came to {} besides number {other}", name(h, m.publish), sub_name(h, m.sub));
            found.push(Violation::new("SIM-14", text));
        }
    }
    found
}
