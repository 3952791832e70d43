//! Messages on their way to workers: a work queue, and a consumer that delivers again what is not confirmed.
//!
//! * P-5: every acknowledged message reaches a worker.
//! * P-6: a message belongs to one worker at a time: none comes again before its time.
//! * P-7: none comes again after its confirmation was confirmed.
//! * P-8: none comes more often than `max_deliver`.
//!
//! Times of delivery are those at which a client read them. So that a slow way back accuses nobody, a first delivery
//! counts from when its request was sent, a second one when it was read, and a confirmation from when its answer came to
//! when the next delivery's request was sent.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, History, Op};

/// What was asked of the consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Nanoseconds after which an unconfirmed message comes again.
    pub ack_wait: u64,
    /// Deliveries at most.
    pub max_deliver: Option<u64>,
    /// The workers went on until nothing came any more.
    pub drained: bool,
}

/// What the deliveries show. Lists hold values.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Delivered {
    /// Appends that were acknowledged.
    pub acknowledged: u64,
    /// Deliveries.
    pub deliveries: u64,
    /// Messages whose confirmation was confirmed.
    pub confirmed: u64,
    /// Deliveries beyond the first of a message.
    pub again: u64,
    /// Acknowledged, and never delivered.
    pub lost: Vec<u64>,
    /// Delivered again before the first holder's time was over.
    pub shared: Vec<u64>,
    /// Delivered again after their confirmation was confirmed.
    pub revived: Vec<u64>,
    /// Delivered too often.
    pub overdone: Vec<u64>,
    /// Sequences of deliveries of what nobody wrote, or was refused.
    pub phantom: Vec<u64>,
}

impl Delivered {
    /// Nothing is wrong.
    pub fn holds(&self) -> bool {
        self.lost.is_empty()
            && self.shared.is_empty()
            && self.revived.is_empty()
            && self.overdone.is_empty()
            && self.phantom.is_empty()
    }
}

/// Judges [`Op::Append`], [`Op::Deliver`] and [`Op::Ack`].
pub fn delivery(h: &History, rules: &Rules) -> Delivered {
    let mut found = Delivered::default();
    let mut wrote: BTreeMap<u64, Event> = BTreeMap::new();
    let mut confirmed: BTreeMap<u64, u64> = BTreeMap::new();
    for done in h.ops() {
        match done.op {
            Op::Append { v, .. } => {
                found.acknowledged += u64::from(done.outcome == Event::Ok);
                wrote.insert(v, done.outcome);
            }
            Op::Ack { v, .. } if done.outcome == Event::Ok => {
                let at = confirmed.entry(v).or_insert(u64::MAX);
                *at = done.ret.unwrap_or(u64::MAX).min(*at);
            }
            _ => {}
        }
    }
    found.confirmed = confirmed.len() as u64;
    // When each message was asked for the last time, and how often it came.
    let mut held: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut overdone = BTreeSet::new();
    for r in h.notes() {
        let Op::Deliver { v, seq, times, asked } = r.op else { continue };
        found.deliveries += 1;
        let known = v.filter(|v| wrote.get(v).is_some_and(|e| *e != Event::Fail));
        let Some(v) = known else {
            found.phantom.push(seq);
            continue;
        };
        if let Some((since, count)) = held.get_mut(&v) {
            found.again += 1;
            *count += 1;
            if r.t < since.saturating_add(rules.ack_wait) {
                found.shared.push(v);
            }
            if confirmed.get(&v).is_some_and(|at| *at < asked) {
                found.revived.push(v);
            }
            *since = asked;
        } else {
            held.insert(v, (asked, 1));
        }
        let count = held.get(&v).map_or(0, |h| h.1).max(times);
        if rules.max_deliver.is_some_and(|max| count > max) {
            overdone.insert(v);
        }
    }
    found.overdone = overdone.into_iter().collect();
    if rules.drained {
        let acked = wrote.iter().filter(|(_, e)| **e == Event::Ok).map(|(v, _)| *v);
        found.lost = acked.filter(|v| !held.contains_key(v)).collect();
    }
    found
}
