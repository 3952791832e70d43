//! What must hold of every history, one invariant a file.
//!
//! | id | says | where |
//! |---|---|---|
//! | SIM-1 | what the server sends is the protocol, and payloads come as they were sent | `client` |
//! | B-1 | one publisher's messages reach one subscription in order, each at most once | `order` |
//! | B-2 | of a queue group one member gets a message; exactly one if none of its members was in doubt | `queue` |
//! | B-3 | nothing crosses accounts, permissions, or a subscription's end | `crossing` |
//! | B-4 | a maximum is kept | `maximum` |
//! | B-5 | an outbox holds at most its limit and one message | `storm` |
//! | SIM-6 | 503 comes when nobody is there, and only then | `responders` |
//! | SIM-7 | what was confirmed reaches every subscription that was in force | `complete` |
//! | SIM-8 | nothing is left of clients that are gone | `storm` |
//! | SIM-9 | after the storm everybody is served | `storm` |
//! | SIM-10 | a server told to go ends in time and well | `storm` |
//! | SIM-11 | counters agree with what clients did and saw | `stats` |
//! | SIM-12 | the last configuration is in force | `storm` |
//! | SIM-13 | who did nothing wrong stays connected | `words` |
//! | SIM-14 | one answer of a service goes back | `answers` |
//! | L-3 | connections that do not answer are closed in time | `storm` |
//! | L-4 | who is closed for what it sent is told why | `words` |

mod answers;
mod complete;
mod crossing;
mod maximum;
mod order;
mod queue;
mod responders;
mod stats;
#[cfg(test)]
mod tests;
mod words;

pub use stats::stats;
pub use words::awaited;

use crate::{
    history::{History, Pub, Sub, Violation},
    options::Options,
    world::{self, USERS, User},
};

/// Everything that a history shows to be wrong.
pub fn all(h: &History, o: &Options) -> Vec<Violation> {
    let mut found = Vec::new();
    found.extend(order::check(h));
    found.extend(queue::check(h));
    found.extend(crossing::check(h));
    found.extend(maximum::check(h));
    found.extend(complete::check(h));
    found.extend(responders::check(h));
    found.extend(words::check(h, o));
    found.extend(answers::check(h));
    found
}

fn user(h: &History, session: usize) -> &'static User {
    &USERS[h.sessions[session].user]
}

/// The request whose answers come back under this reply subject of a service.
fn origin<'a>(h: &'a History, p: &Pub) -> Option<&'a Pub> {
    p.answers.filter(|_| p.subject.starts_with("_R_.")).and_then(|n| h.pubs.get(n))
}

/// Under which subject a publish reaches a subscription, if the rules let it.
fn reach(h: &History, p: &Pub, s: &Sub) -> Option<String> {
    let (from, to) = (&h.sessions[p.session], &h.sessions[s.session]);
    if p.session == s.session && !from.echo {
        return None;
    }
    let (publisher, subscriber) = (user(h, p.session), &USERS[to.user]);
    let direct = publisher.reaches(&p.subject, subscriber, &s.filter);
    // Only from the service's own account an answer goes back; its responder may have become somebody else meanwhile.
    let answers = publisher.account == world::EXPORTER && publisher.may_publish(&p.subject);
    let Some(request) = origin(h, p).filter(|_| answers) else { return direct };
    if !subscriber.may_subscribe(&s.filter) {
        return None;
    }
    // The answer of a service stands in the account of who asked, under the subject that was asked for.
    direct.or_else(|| world::through(user(h, request.session).account, &request.reply, subscriber, &s.filter))
}

fn name(h: &History, publish: usize) -> String {
    let p = &h.pubs[publish];
    let c = h.conn_of(p.session);
    format!("publish {publish} ({} by client {} at {} ns)", p.subject, c.client, p.sent_at)
}
fn sub_name(h: &History, sub: usize) -> String {
    let s = &h.subs[sub];
    let c = h.conn_of(s.session);
    let queue = s.queue.as_ref().map(|q| format!(" queue {q}")).unwrap_or_default();
    format!("subscription {sub} ({}{queue} of client {}, sid {})", s.filter, c.client, s.sid)
}
