//! Linearizability of versioned registers, one for each key.
//!
//! * P-4: every key is a linearizable register.
//!
//! A write that took effect has a revision, and revisions order the writes of a key, so that nothing is left to search but
//! where reads and refusals stand between them. Those change nothing: once one may stand somewhere, standing there can
//! harm no other, so the walk takes it at once. Only a write that nobody ever saw (unknown outcome, never read) is tried
//! both ways, and only where it would explain a refusal, with a memory of what was tried.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Done, Event, History, Op};

/// What the histories of all keys show.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Register {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Keys.
    pub keys: u64,
    /// Keys that were not linearizable, with the reason.
    pub broken: Vec<(u64, String)>,
    /// Keys whose search was given up after [`STEPS_MAX`].
    pub undecided: Vec<u64>,
    /// Acknowledged writes newer than what a reading in the end found.
    pub lost: u64,
}

impl Register {
    /// Nothing is wrong and nothing is left open.
    pub fn holds(&self) -> bool {
        self.broken.is_empty() && self.undecided.is_empty()
    }
}

/// Steps that the search of one key may take.
pub const STEPS_MAX: u64 = 2_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Saw this revision (0: nothing there).
    Read { rev: u64 },
    /// Made this revision, if `expect` is given from that one.
    Write { expect: Option<u64>, rev: u64 },
    /// Was refused because the revision was another.
    Refused { expect: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Item {
    id: u64,
    call: u64,
    ret: u64,
    kind: Kind,
}

/// A write that nobody saw.
#[derive(Clone, Copy, Debug)]
struct Hidden {
    call: u64,
    expect: Option<u64>,
}

/// Judges [`Op::Get`], [`Op::Put`] and [`Op::Cas`] key by key. Reads after the note of phase `read` are the last reading.
pub fn register(h: &History) -> Register {
    let mut keys: BTreeMap<u64, Vec<Done>> = BTreeMap::new();
    for done in h.ops() {
        let key = match done.op {
            Op::Get { key, .. } | Op::Put { key, .. } | Op::Cas { key, .. } => key,
            _ => continue,
        };
        keys.entry(key).or_default().push(done);
    }
    let read_at = h.phase("read").unwrap_or(u64::MAX);
    let mut found = Register { keys: keys.len() as u64, ..Register::default() };
    for (key, ops) in keys {
        let acked: Vec<u64> = ops.iter().filter_map(acked_revision).collect();
        found.acknowledged += acked.len() as u64;
        let last = ops.iter().rev().filter(|d| d.call >= read_at && d.outcome == Event::Ok);
        if let Some(Op::Get { rev, .. }) = last.map(|d| &d.op).next() {
            found.lost += acked.iter().filter(|r| *r > rev).count() as u64;
        }
        match linearizable(&ops) {
            Ok(true) => {}
            Ok(false) => found.undecided.push(key),
            Err(why) => found.broken.push((key, why)),
        }
    }
    found
}

fn acked_revision(d: &Done) -> Option<u64> {
    match d.op {
        Op::Put { rev, .. } | Op::Cas { rev, .. } if d.outcome == Event::Ok => rev,
        _ => None,
    }
}

/// Whether the operations of one key have an order; `Ok(false)` if the search was given up.
fn linearizable(ops: &[Done]) -> Result<bool, String> {
    let (items, hidden) = items(ops)?;
    search(&items, &hidden)
}

/// Gives each operation its place among the revisions, or says why it cannot have one.
fn items(ops: &[Done]) -> Result<(Vec<Item>, Vec<Hidden>), String> {
    // Which value a revision has, by whoever said so.
    let mut seen: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut read_by: BTreeMap<u64, u64> = BTreeMap::new();
    for d in ops.iter().filter(|d| d.outcome == Event::Ok) {
        let (rev, v) = match d.op {
            Op::Get { rev: 0, .. } => continue,
            Op::Get { rev, v: Some(v), .. } => (rev, v),
            Op::Get { rev, v: None, .. } => {
                return Err(format!("operation {} read at revision {rev} what nobody wrote", d.id));
            }
            Op::Put { v, rev: Some(rev), .. } | Op::Cas { v, rev: Some(rev), .. } => (rev, v),
            _ => continue,
        };
        let first = *seen.entry(rev).or_insert((v, d.id));
        if first.0 != v {
            return Err(format!(
                "revision {rev} is {:x} for operation {} and {v:x} for operation {}",
                first.0, first.1, d.id
            ));
        }
        if let (Op::Get { .. }, Some(ret)) = (&d.op, d.ret) {
            let earliest = read_by.entry(v).or_insert(u64::MAX);
            *earliest = ret.min(*earliest);
        }
    }
    let mut rev_of: BTreeMap<u64, u64> = BTreeMap::new();
    for (rev, (v, id)) in &seen {
        if let Some(other) = rev_of.insert(*v, *rev) {
            return Err(format!("{v:x} has revisions {other} and {rev} (operation {id})"));
        }
    }
    let (mut items, mut hidden, mut written) = (Vec::new(), Vec::new(), BTreeSet::new());
    for d in ops {
        let (id, call) = (d.id, d.call);
        let ret = d.ret.unwrap_or(u64::MAX);
        let mut item = |ret, kind| items.push(Item { id, call, ret, kind });
        match d.op {
            Op::Get { rev, .. } if d.outcome == Event::Ok => item(ret, Kind::Read { rev }),
            Op::Put { v, .. } | Op::Cas { v, .. } => {
                let expect = if let Op::Cas { expect, .. } = d.op { Some(expect) } else { None };
                match (d.outcome, rev_of.get(&v), expect) {
                    (Event::Fail, Some(rev), _) => {
                        return Err(format!("operation {id} was refused, yet revision {rev} is its {v:x}"));
                    }
                    (Event::Fail, None, Some(expect)) if matches!(d.op, Op::Cas { other: true, .. }) => {
                        item(ret, Kind::Refused { expect });
                    }
                    (Event::Fail, None, _) => {}
                    // Unknown, but somebody has read it: it took effect, and before that reading was over.
                    (_, Some(rev), _) => {
                        written.insert(v);
                        let by = read_by.get(&v).copied().unwrap_or(u64::MAX);
                        item(ret.min(by), Kind::Write { expect, rev: *rev });
                    }
                    (_, None, _) => hidden.push(Hidden { call, expect }),
                }
            }
            _ => {}
        }
    }
    if let Some((rev, (v, id))) = seen.iter().find(|(_, (v, _))| !written.contains(v)) {
        return Err(format!("operation {id} read {v:x} at revision {rev}, which nobody wrote"));
    }
    items.sort_by_key(|i| i.call);
    Ok((items, hidden))
}

/// A state of the walk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Walk {
    /// All items before this one have their place.
    first: usize,
    /// Items from `first` on that have theirs.
    done: BTreeSet<usize>,
    /// Revision of the last write that is known.
    rev: u64,
    /// Number of the hidden write that stands after it.
    over: Option<usize>,
    /// Hidden writes that were used.
    used: BTreeSet<usize>,
}

fn search(items: &[Item], hidden: &[Hidden]) -> Result<bool, String> {
    let mut order: Vec<usize> =
        (0..items.len()).filter(|i| matches!(items[*i].kind, Kind::Write { .. })).collect();
    let rev = |i: usize| if let Kind::Write { rev, .. } = items[i].kind { rev } else { 0 };
    order.sort_by_key(|i| rev(*i));
    let start = Walk { first: 0, done: BTreeSet::new(), rev: 0, over: None, used: BTreeSet::new() };
    let (mut stack, mut tried, mut steps) = (vec![start], BTreeSet::new(), 0);
    let mut stuck: Option<Walk> = None;
    while let Some(mut w) = stack.pop() {
        let bound = settle(items, &mut w);
        if w.first == items.len() {
            return Ok(true);
        }
        steps += 1;
        if steps > STEPS_MAX {
            return Ok(false);
        }
        if !tried.insert(w.clone()) {
            continue;
        }
        if stuck.as_ref().is_none_or(|s| w.first > s.first) {
            stuck = Some(w.clone());
        }
        // First on the stack, so that it is tried last. A write that nobody saw is of use only to explain a refusal, and
        // among those that may stand here one bound to this revision is the cheapest: it can be of use nowhere else.
        let refusal = (w.first..items.len()).take_while(|i| items[*i].call <= bound).any(|i| {
            !w.done.contains(&i) && items[i].kind == Kind::Refused { expect: w.rev } && w.over.is_none()
        });
        let usable = |n: &usize| !w.used.contains(n) && hidden[*n].call <= bound;
        let of = |expect| (0..hidden.len()).filter(usable).find(|n| hidden[*n].expect == expect);
        if refusal && let Some(n) = of(Some(w.rev)).or_else(|| of(None)) {
            let mut next = w.clone();
            next.used.insert(n);
            next.over = Some(n);
            stack.push(next);
        }
        // Of the writes with a known place only the lowest that is left can come next.
        let at = order.partition_point(|i| rev(*i) <= w.rev);
        if let Some(&i) = order.get(at)
            && items[i].call <= bound
            && let Kind::Write { expect, rev } = items[i].kind
            && expect.is_none_or(|e| w.over.is_none() && e == w.rev)
        {
            place(&mut w, i, items.len());
            (w.rev, w.over) = (rev, None);
            stack.push(w);
        }
    }
    Err(stuck.map(|w| complaint(items, &w)).unwrap_or_default())
}

fn place(w: &mut Walk, i: usize, len: usize) {
    w.done.insert(i);
    while w.first < len && w.done.remove(&w.first) {
        w.first += 1;
    }
}

/// Places everything that changes nothing and may stand here; returns the earliest end of what is left.
fn settle(items: &[Item], w: &mut Walk) -> u64 {
    loop {
        let mut bound = u64::MAX;
        let mut here = Vec::new();
        for (i, x) in items.iter().enumerate().skip(w.first) {
            if x.call > bound {
                break;
            }
            if w.done.contains(&i) {
                continue;
            }
            bound = bound.min(x.ret);
            let fits = match x.kind {
                Kind::Read { rev } => w.over.is_none() && rev == w.rev,
                Kind::Refused { expect } => w.over.is_some() || expect != w.rev,
                Kind::Write { .. } => false,
            };
            if fits {
                here.push(i);
            }
        }
        // Behind something that ended before they began they cannot stand.
        here.retain(|i| items[*i].call <= bound);
        if here.is_empty() {
            return bound;
        }
        here.into_iter().for_each(|i| place(w, i, items.len()));
    }
}

/// Who stands in the way: what is left and ended first.
fn complaint(items: &[Item], w: &Walk) -> String {
    let left = (w.first..items.len()).filter(|i| !w.done.contains(i));
    let Some(i) = left.min_by_key(|i| items[*i].ret) else { return String::new() };
    let x = &items[i];
    let did = match x.kind {
        Kind::Read { rev } => format!("read revision {rev}"),
        Kind::Write { expect: None, rev } => format!("wrote revision {rev}"),
        Kind::Write { expect: Some(e), rev } => format!("wrote revision {rev} upon {e}"),
        Kind::Refused { expect } => format!("was refused upon revision {expect}"),
    };
    format!(
        "operation {} ({} to {} ns) {did}, which fits nowhere: revision {} stands",
        x.id, x.call, x.ret, w.rev
    )
}
