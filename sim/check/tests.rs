//! Each checker finds what it is there for, in histories made by hand.

use super::*;
use crate::history::{Conn, Msg, Session};

fn world() -> History {
    let mut h = History { settled_at: 1_000, ..History::default() };
    for user in [0, 2] {
        let confirms = vec![(100, 500)];
        h.conns.push(Conn { client: user as u64, boot: 1, confirms, barrier: 2, ..Conn::default() });
        let conn = h.conns.len() - 1;
        h.sessions.push(Session {
            conn,
            user,
            echo: true,
            headers: true,
            no_responders: true,
            op: 1,
            replaced: None,
            refused: false,
        });
    }
    // The SUBs were confirmed before anything was published.
    h.conns.iter_mut().for_each(|c| c.confirms.insert(0, (10, 50)));
    h
}
fn subscribe(h: &mut History, session: usize, filter: &str, queue: Option<&str>) -> usize {
    h.subs.push(Sub {
        session,
        sid: 1,
        filter: filter.into(),
        queue: queue.map(Into::into),
        sent_at: 10,
        op: 5,
        unsubs: Vec::new(),
        doubtful: false,
    });
    h.subs.len() - 1
}
fn publish(h: &mut History, session: usize, subject: &str, request: bool) -> usize {
    let n = h.pubs.len();
    h.pubs.push(Pub {
        session,
        sent_at: 100 + n as u64,
        op: 20 + n as u64,
        subject: subject.into(),
        reply: if request { format!("_INBOX.0.{n}") } else { String::new() },
        size: 10,
        answers: None,
        request,
    });
    n
}
fn deliver(h: &mut History, sub: usize, publish: usize, subject: &str) {
    h.msgs.push(Msg { sub, publish, subject: subject.into(), reply: String::new(), at: 400 });
}
fn ids(h: &History) -> Vec<String> {
    let mut ids: Vec<_> = all(h, &Options::draw(0)).into_iter().map(|v| v.id).collect();
    ids.dedup();
    ids
}

#[test]
fn a_right_history_passes() {
    let mut h = world();
    let s = subscribe(&mut h, 1, "fa.>", None);
    let p = publish(&mut h, 0, "ex.a", false);
    deliver(&mut h, s, p, "fa.ex.a");
    assert_eq!(ids(&h), [""; 0]);
}

#[test]
fn b1_order_and_repetition() {
    let mut h = world();
    let s = subscribe(&mut h, 0, "t.a", None);
    let (p, q) = (publish(&mut h, 0, "t.a", false), publish(&mut h, 0, "t.a", false));
    deliver(&mut h, s, q, "t.a");
    deliver(&mut h, s, p, "t.a");
    assert_eq!(ids(&h), ["B-1"]);
    h.msgs.swap(0, 1);
    assert_eq!(ids(&h), [""; 0]);
    deliver(&mut h, s, q, "t.a");
    assert_eq!(ids(&h), ["B-1"]);
}

#[test]
fn b2_one_member() {
    let mut h = world();
    let (s, t) = (subscribe(&mut h, 0, "t.a", Some("Aq1")), subscribe(&mut h, 0, "t.*", Some("Aq1")));
    let p = publish(&mut h, 0, "t.a", false);
    assert_eq!(ids(&h), ["B-2"]);
    deliver(&mut h, s, p, "t.a");
    assert_eq!(ids(&h), [""; 0]);
    deliver(&mut h, t, p, "t.a");
    assert_eq!(ids(&h), ["B-2"]);
}

#[test]
fn b3_crossing() {
    let mut h = world();
    let s = subscribe(&mut h, 1, ">", None);
    let p = publish(&mut h, 0, "t.a", false);
    deliver(&mut h, s, p, "t.a");
    assert_eq!(ids(&h), ["B-3"]);
}

#[test]
fn b3_ended_subscriptions() {
    let mut h = world();
    let s = subscribe(&mut h, 0, "t.a", None);
    h.subs[s].unsubs.push((20, 6, 0));
    let p = publish(&mut h, 0, "t.a", false);
    deliver(&mut h, s, p, "t.a");
    assert_eq!(ids(&h), ["B-3"]);
}

#[test]
fn b4_maximum() {
    let mut h = world();
    let s = subscribe(&mut h, 0, "t.a", None);
    h.subs[s].unsubs.push((20, 6, 1));
    let (p, q) = (publish(&mut h, 0, "t.a", false), publish(&mut h, 0, "t.a", false));
    deliver(&mut h, s, p, "t.a");
    assert_eq!(ids(&h), [""; 0]);
    deliver(&mut h, s, q, "t.a");
    assert_eq!(ids(&h), ["B-4"]);
}

#[test]
fn sim6_no_responders() {
    let mut h = world();
    subscribe(&mut h, 0, "_INBOX.0.*", None);
    let p = publish(&mut h, 0, "nobody", true);
    assert_eq!(ids(&h), ["SIM-6"]);
    h.unserved.insert(p, 1);
    assert_eq!(ids(&h), [""; 0]);
    let s = subscribe(&mut h, 0, "nobody", None);
    deliver(&mut h, s, p, "nobody");
    assert_eq!(ids(&h), ["SIM-6"]);
}

#[test]
fn sim7_completeness() {
    let mut h = world();
    subscribe(&mut h, 0, "t.a", None);
    publish(&mut h, 0, "t.a", false);
    assert_eq!(ids(&h), ["SIM-7"]);
    // Nobody knows whether it was handled: it need not come.
    h.conns[0].confirms.pop();
    assert_eq!(ids(&h), [""; 0]);
}
