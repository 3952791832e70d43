//! SIM-6: a request that nobody can have got is answered with 503, once; one that somebody surely got is not.

use super::{name, reach, user};
use crate::{
    history::{History, Violation},
    world,
};

pub fn check(h: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut wrong = |text| found.push(Violation::new("SIM-6", text));
    for (i, p) in h.pubs.iter().enumerate() {
        let times = h.unserved.get(&i).copied().unwrap_or(0);
        let session = &h.sessions[p.session];
        // Whoever subscribes to everything sees what comes to the other reply subjects too.
        if times > 0 && (p.reply.is_empty() || !session.no_responders || times > 1) {
            wrong(format!(
                "{} was answered {times} times with 503 (asked for: {})",
                name(h, i),
                session.no_responders
            ));
        }
        if p.reply.is_empty() || !session.no_responders || session.refused {
            continue;
        }
        // The requestor's own inbox does not count as somebody who answers: requests do not go there. A member of a
        // queue group is no inbox.
        let until = h.pub_confirmed(p).unwrap_or(u64::MAX);
        let takers = || h.subs.iter().filter(|s| reach(h, p, s).is_some());
        if times > 0 {
            // A member of a queue group may have been refused in favour of nobody; plain ones take what comes.
            if let Some(s) = takers().find(|s| s.queue.is_none() && h.surely_live(s, p.sent_at)) {
                wrong(format!("{} was answered with 503, though {} was there", name(h, i), s.filter));
            }
            continue;
        }
        let confirmed = p.request && until <= h.settled_at;
        let replaced = session.replaced.is_some();
        let inbox = h.subs.iter().any(|s| {
            let own = s.session == p.session && s.queue.is_none() && world::matches(&s.filter, &p.reply);
            own && h.surely_live(s, p.sent_at)
        });
        let allowed = user(h, p.session).may_publish(&p.subject);
        if confirmed && inbox && allowed && !replaced && !takers().any(|s| h.maybe_live(s, p.sent_at, until))
        {
            wrong(format!("{} got no 503, though nobody was there", name(h, i)));
        }
    }
    found
}
