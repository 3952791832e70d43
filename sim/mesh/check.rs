//! Judges a record.
//!
//! | id | says |
//! |---|---|
//! | MS-2 | no message comes twice by one subscription |
//! | MS-3 | of a queue group, wherever its members are, one gets a message, and never two |
//! | MS-4 | what one connection published comes by any subscription in that order |
//! | MS-5 | only what was sent comes, unchanged, under its subject, and only to whom it matches |
//! | MS-6 | once all is calm, everything reaches everybody who subscribed, and one of each queue group |
//!
//! MS-1, MS-7 and MS-8 are judged during the run.

use std::collections::{BTreeMap, BTreeSet};

use crate::{history::Violation, world::matches};

use super::client::Record;

/// All that is wrong, one of each kind.
pub fn all(r: &Record) -> Vec<Violation> {
    let mut out = Vec::new();
    never(r, &mut out);
    last(r, &mut out);
    let mut seen = BTreeSet::new();
    out.retain(|v| seen.insert(v.id.clone()));
    out
}

fn wrong(out: &mut Vec<Violation>, id: &str, text: String) {
    out.push(Violation::new(id, text));
}

fn never(r: &Record, out: &mut Vec<Violation>) {
    let mut got: BTreeSet<(usize, usize)> = BTreeSet::new();
    // Group and publish: who got it. A name alone is a group, under whatever patterns its members have subscribed.
    let mut groups: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    let mut order: BTreeMap<(usize, u64), usize> = BTreeMap::new();
    for d in &r.deliveries {
        let (Some(s), Some(n)) = (r.subs.get(d.sub), d.publish) else {
            wrong(out, "MS-5", format!("{:?} came by subscription {}, and nobody sent it", d.subject, d.sub));
            continue;
        };
        let Some(p) = r.publishes.get(n) else {
            wrong(out, "MS-5", format!("publish {n} came, and nobody sent it"));
            continue;
        };
        if p.subject != d.subject || !matches(&s.filter, &d.subject) {
            let text = format!("publish {n} to {} came as {} to {}", p.subject, d.subject, s.filter);
            wrong(out, "MS-5", text);
        }
        if !got.insert((d.sub, n)) {
            wrong(out, "MS-2", format!("publish {n} came twice to client {} by {}", s.client, s.filter));
        }
        if !s.queue.is_empty()
            && let Some(other) = groups.insert((&s.queue, n), d.sub)
        {
            let (a, b) = (r.subs[other].client, s.client);
            let text = format!("publish {n} came to clients {a} and {b}, both of group {}", s.queue);
            wrong(out, "MS-3", text);
        }
        if let Some(before) = order.insert((d.sub, p.conn), n)
            && before > n
        {
            let text = format!("client {} got publish {before} before {n}, by {}", s.client, s.filter);
            wrong(out, "MS-4", text);
        }
    }
}

fn last(r: &Record, out: &mut Vec<Violation>) {
    let mut by: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for d in &r.deliveries {
        if let Some(n) = d.publish {
            by.entry(n).or_default().insert(d.sub);
        }
    }
    let none = BTreeSet::new();
    let in_force: Vec<(usize, &super::client::Sub)> =
        r.subs.iter().enumerate().filter(|(_, s)| s.until.is_none() && s.sure_from.is_some()).collect();
    for (n, p) in r.publishes.iter().enumerate().filter(|(_, p)| p.last) {
        let got = by.get(&n).unwrap_or(&none);
        let mut groups: BTreeMap<&str, bool> = BTreeMap::new();
        for (i, s) in in_force.iter().filter(|(_, s)| matches(&s.filter, &p.subject)) {
            if s.queue.is_empty() {
                if !got.contains(i) {
                    let text = format!(
                        "publish {n} of client {} to {} did not come to client {} by {}, long after all was mended",
                        p.client, p.subject, s.client, s.filter
                    );
                    wrong(out, "MS-6", text);
                }
            } else {
                *groups.entry(&s.queue).or_default() |= got.contains(i);
            }
        }
        for (queue, _) in groups.iter().filter(|g| !g.1) {
            let member = |s: &&super::client::Sub| s.queue == **queue && matches(&s.filter, &p.subject);
            let members: Vec<u64> =
                in_force.iter().map(|(_, s)| *s).filter(member).map(|s| s.client).collect();
            let text = format!(
                "publish {n} of client {} to {} came to nobody of group {queue}, which has members at clients {members:?}",
                p.client, p.subject
            );
            wrong(out, "MS-6", text);
        }
    }
}
