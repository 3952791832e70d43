//! B-3: a message comes only where the accounts' rules, the permissions and the subscription's life let it come.

use super::{name, reach, sub_name};
use crate::history::{History, Violation};

pub fn check(h: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for m in &h.msgs {
        let (p, s) = (&h.pubs[m.publish], &h.subs[m.sub]);
        let allowed = reach(h, p, s);
        if allowed.as_deref() != Some(&m.subject) {
            let text = format!(
                "{} came to {} as {:?}, where {allowed:?} is right",
                name(h, m.publish),
                sub_name(h, m.sub),
                m.subject
            );
            found.push(Violation::new("B-3", text));
        }
        let session = &h.sessions[s.session];
        let conn = &h.conns[session.conn];
        let ended = s.unsubs.iter().filter(|u| u.2 == 0).find_map(|u| conn.confirmed(u.1));
        let replaced = session.replaced.and_then(|r| conn.confirmed(r.1));
        if let Some(t) = [ended, replaced].into_iter().flatten().find(|t| *t < p.sent_at) {
            let text =
                format!("{} came to {}, which had ended at {t} ns", name(h, m.publish), sub_name(h, m.sub));
            found.push(Violation::new("B-3", text));
        }
        if session.refused {
            found.push(Violation::new("B-3", format!("{} was served before its login", sub_name(h, m.sub))));
        }
    }
    found
}
