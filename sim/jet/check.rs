//! Judges a record.
//!
//! | id | says |
//! |---|---|
//! | JS-1 | what was acknowledged is there with its sequence, unless a rule of its stream removed it |
//! | JS-2 | a message with an id is there once, unless the duplicate window was over by the servers' clocks, or those were further apart than it; else at most as often as it was sent |
//! | JS-3 | nothing is there that nobody sent |
//! | JS-4 | an answer "duplicate" names the message's own sequence |
//! | JS-5 | what one connection published one after another stands in that order |
//! | JS-6 | a write that expected a revision followed exactly that revision; a refusal had a reason |
//! | JS-7 | a read sees every write that was acknowledged before it began |
//! | JS-8 | no message comes more often than max_deliver, or again after a confirmed acknowledgement, or early |
//! | JS-9 | every message comes at least once |
//! | JS-10 | a work queue is empty in the end, and holds nothing whose acknowledgement was confirmed |
//! | JS-11 | a stream's last sequence never goes back, nor is it before what was acknowledged when it was asked for |
//! | JS-12 | limits hold |
//! | JS-16 | a stream in memory ends with the process of a server alone, and stays where there are several; as long as it is the same one its sequences rise and none is given twice |
//! | JS-18 | of several servers a consumer of the stream in memory whose making or change was acknowledged is there so, and one whose end was acknowledged is not |
//! | JS-19 | what an origin that keeps by interest or as a work queue acknowledged is in each of its copies, once and in the origin's order (in a mirror under its number), and nothing else is |
//!
//! Judged during the run: what is published to the stream in memory in the calm is acknowledged, there to be read, and delivered (JS-17); copies come to have everything, one that
//! was full too, and their origins let go of it then (JS-20).
//! Of several servers, judged during the run: one leader a term (CL-1), no replica gives up (CL-2), all replicas of a group become
//! equal (CL-3).

use std::collections::{BTreeMap, BTreeSet};

use crate::history::Violation;

use super::{
    copies, memory,
    plan::{Options, Stream},
    record::{Attempt, Outcome, Record},
    run::DUPLICATE_WINDOW_MS,
};

/// How long a delivery may lie on its way to a client that reads slowly, nanoseconds.
const QUEUED_NS: u64 = 3_000_000_000;
/// Through a window smaller than this it may lie there for any time: some take 25 KB a second, and a message may have 100.
const NARROW_WINDOW: usize = 16 << 10;
/// What a fetch may have asked for: 100 messages, the largest of 100,000 bytes. A window of it takes a round trip.
const QUEUED_BYTES: u64 = 10_000_000;

/// How long a write that is not answered may be on its way, nanoseconds.
const UNDERWAY_NS: u64 = 10_000_000_000;

/// All that is wrong.
pub fn all(r: &Record, o: &Options) -> Vec<Violation> {
    let mut out = Vec::new();
    if r.finals.is_empty() {
        // The calm failed and has said so.
        return out;
    }
    writes(r, o, &mut out);
    order(r, o, &mut out);
    keys(r, o, &mut out);
    deliveries(r, o, &mut out);
    streams(r, o, &mut out);
    memory::lives(r, o, &mut out);
    memory::consumers(r, &mut out);
    copies::check(r, &mut out);
    // One of each kind says enough.
    let mut seen = BTreeSet::new();
    out.retain(|v| seen.insert(v.id.clone()));
    out
}

pub(super) fn wrong(out: &mut Vec<Violation>, id: &str, text: String) {
    out.push(Violation::new(id, text));
}

pub(super) fn acked(a: &Attempt) -> Option<(u64, bool)> {
    match a.outcome {
        Outcome::Acked { seq, duplicate } => Some((seq, duplicate)),
        _ => None,
    }
}

fn writes(r: &Record, o: &Options, out: &mut Vec<Violation>) {
    let mut sent: BTreeMap<usize, Vec<&Attempt>> = BTreeMap::new();
    for a in &r.attempts {
        sent.entry(a.value).or_default().push(a);
    }
    for (s, f) in &r.finals {
        let log = &f.before;
        let name = s.name();
        let mut at: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for (seq, k) in log {
            match k.value.and_then(|v| Some((v, sent.get(&v)?))) {
                Some((v, tries)) if tries.iter().any(|a| a.stream == *s && a.subject == k.subject) => {
                    at.entry(v).or_default().push(*seq);
                }
                _ => wrong(out, "JS-3", format!("{name} {seq} ({}) holds what nobody sent", k.subject)),
            }
        }
        for (v, seqs) in &at {
            let tries = &sent[v];
            // A window of time means nothing to leaders whose clocks are further apart than that.
            let may = if tries[0].id && !r.clocks_apart && within_window(r, tries) {
                1
            } else {
                tries.iter().filter(|a| !matches!(a.outcome, Outcome::Refused(_))).count()
            };
            if seqs.len() > may {
                let said: Vec<_> = tries.iter().map(|a| (a.sent_at, a.done_at, &a.outcome)).collect();
                wrong(
                    out,
                    "JS-2",
                    format!(
                        "{name} has value {v} at {seqs:?}, at most {may} times it may: sent and answered {said:?}"
                    ),
                );
            }
        }
        for a in r.attempts.iter().filter(|a| a.stream == *s) {
            let Some((seq, duplicate)) = acked(a) else { continue };
            let here = log.get(&seq);
            let right = here.is_some_and(|k| k.value == Some(a.value) && k.subject == a.subject);
            if here.is_some() && !right {
                let id = if duplicate { "JS-4" } else { "JS-1" };
                wrong(
                    out,
                    id,
                    format!("{name} {seq} was acknowledged for value {} and holds {here:?}", a.value),
                );
            }
            if here.is_none() && !may_be_gone(r, o, a, seq, f.last) {
                wrong(
                    out,
                    "JS-1",
                    format!(
                        "{name} {seq} (value {}, {}) was acknowledged at {} ns and is gone; the stream is {}..={}",
                        a.value,
                        a.subject,
                        a.done_at.unwrap_or(0),
                        f.first,
                        f.last
                    ),
                );
            }
        }
    }
}

/// Whether the duplicate window still held when the last of the attempts can have come, by clocks that may have been set on in between.
fn within_window(r: &Record, tries: &[&Attempt]) -> bool {
    let first = tries.iter().map(|a| a.sent_at).min().unwrap_or(0);
    let end = |a: &&Attempt| a.done_at.unwrap_or(a.sent_at + UNDERWAY_NS);
    let last = tries.iter().map(end).max().unwrap_or(0);
    let set_on: u64 = r.jumps.iter().filter(|(at, _)| (first..=last).contains(at)).map(|(_, by)| by).sum();
    last - first + set_on < DUPLICATE_WINDOW_MS * 1_000_000
}

/// Whether a rule of the stream can have removed it.
fn may_be_gone(r: &Record, o: &Options, a: &Attempt, seq: u64, last: u64) -> bool {
    match a.stream {
        Stream::Log => false,
        Stream::Short => seq + o.log_max_msgs <= last,
        Stream::Bucket => {
            let later = r.finals[&Stream::Bucket]
                .before
                .iter()
                .filter(|(s, k)| **s > seq && k.subject == a.subject)
                .count();
            later as u64 >= o.history
        }
        // Whoever consumed it may have said so.
        Stream::Queue => r.said.iter().any(|s| s.stream == Stream::Queue && s.seq == seq && s.ends),
        // Nobody reads it whole.
        Stream::Memory
        | Stream::Interest
        | Stream::Work
        | Stream::Copy
        | Stream::Sink
        | Stream::Filed
        | Stream::Mirror => true,
    }
}

fn order(r: &Record, o: &Options, out: &mut Vec<Violation>) {
    // Sequence, value, and when it was sent.
    let mut last: BTreeMap<(u64, Stream), (u64, usize, u64)> = BTreeMap::new();
    // Over several servers what is on its way to a leader that is none any more may come to it when it leads again. Not where it was told to step down (K-11).
    let moved = |from: u64, to: Option<u64>| {
        o.servers > 1 && r.outages.iter().any(|(a, b)| *a <= to.unwrap_or(u64::MAX) && *b >= from)
    };
    for a in &r.attempts {
        let Some((seq, false)) = acked(a) else { continue };
        // Sent again with an id: the first of the attempts may be the one that was stored.
        if a.id && r.attempts.iter().filter(|b| b.value == a.value).count() > 1 {
            continue;
        }
        let before = last.insert((a.conn, a.stream), (seq, a.value, a.sent_at));
        if let Some((b, v, since)) = before
            && b >= seq
            && !moved(since, a.done_at)
        {
            wrong(
                out,
                "JS-5",
                format!(
                    "{}: value {v} has sequence {b} and value {}, sent after it on the same connection, has {seq}",
                    a.stream.name(),
                    a.value
                ),
            );
        }
    }
}

fn keys(r: &Record, o: &Options, out: &mut Vec<Violation>) {
    let writes: Vec<&Attempt> = r.attempts.iter().filter(|a| a.stream == Stream::Bucket).collect();
    let log = &r.finals[&Stream::Bucket].before;
    // Every revision that is known for sure, by key.
    let mut known: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for a in &writes {
        if let Some((seq, _)) = acked(a) {
            known.entry(&a.subject).or_default().insert(seq);
        }
    }
    for (seq, k) in log {
        known.entry(&k.subject).or_default().insert(*seq);
    }
    let none = BTreeSet::new();
    for a in &writes {
        let Some(expected) = a.expected_subject else { continue };
        let of_key = known.get(a.subject.as_str()).unwrap_or(&none);
        match a.outcome {
            Outcome::Acked { seq, .. } => {
                if let Some(between) = of_key.range(expected + 1..seq).next() {
                    wrong(
                        out,
                        "JS-6",
                        format!(
                            "{} was written as {seq} expecting {expected}, and {between} lies between",
                            a.subject
                        ),
                    );
                }
            }
            Outcome::Refused(10071) => {
                let other = writes.iter().any(|b| {
                    b.subject == a.subject
                        && b.sent_at <= a.done_at.unwrap_or(u64::MAX)
                        && b.value != a.value
                        && !matches!(b.outcome, Outcome::Refused(_))
                        && acked(b).is_none_or(|(seq, _)| seq != expected)
                });
                if !other {
                    wrong(
                        out,
                        "JS-6",
                        format!(
                            "{} was refused expecting {expected}, and nothing else was written",
                            a.subject
                        ),
                    );
                }
            }
            _ => {}
        }
    }
    for g in &r.gets {
        let before = |a: &&&Attempt| a.subject == g.subject && a.done_at.is_some_and(|t| t < g.sent_at);
        let least = writes.iter().filter(before).filter_map(|a| acked(a)).map(|(s, _)| s).max().unwrap_or(0);
        let (seq, value) = g.found.unwrap_or((0, None));
        let may_be_old = g.direct && o.servers > 1;
        if seq < least && !may_be_old {
            wrong(
                out,
                "JS-7",
                format!(
                    "a read of {} found {seq} though {least} was acknowledged before it began",
                    g.subject
                ),
            );
        }
        if g.found.is_some()
            && !writes
                .iter()
                .any(|a| Some(a.value) == value && a.subject == g.subject && a.sent_at <= g.done_at)
        {
            wrong(out, "JS-3", format!("a read of {} found at {seq} what nobody wrote", g.subject));
        }
    }
}

fn deliveries(r: &Record, o: &Options, out: &mut Vec<Violation>) {
    for s in [Stream::Log, Stream::Queue] {
        let name = s.name();
        let max = if s == Stream::Queue { -1 } else { o.max_deliver };
        let mut by_seq: BTreeMap<u64, Vec<&super::record::Delivery>> = BTreeMap::new();
        for d in r.deliveries.iter().filter(|d| d.stream == s) {
            by_seq.entry(d.seq).or_default().push(d);
        }
        for (seq, all) in &by_seq {
            if max > 0
                && let Some(d) = all.iter().find(|d| d.count > max as u64)
            {
                wrong(out, "JS-8", format!("{name} {seq} came as delivery {} of at most {max}", d.count));
            }
            let said = || r.said.iter().filter(|x| x.stream == s && x.seq == *seq);
            for x in said().filter(|x| x.ends) {
                let Some(confirmed) = x.confirmed_at else { continue };
                if let Some(d) = all.iter().find(|d| d.asked_at > confirmed) {
                    wrong(
                        out,
                        "JS-8",
                        format!(
                            "{name} {seq} was asked for at {} ns and came again, though its acknowledgement was confirmed at {confirmed} ns",
                            d.asked_at
                        ),
                    );
                }
            }
            for w in all.windows(2) {
                let (a, b) = (w[0], w[1]);
                // The first left after it was asked for, and may have waited behind others on a slow link: when, nobody here knows.
                let through = QUEUED_BYTES / o.window as u64 * 2 * o.latency_max_us * 1000;
                let queued = if o.window < NARROW_WINDOW { a.at } else { QUEUED_NS.max(through) };
                let left = a.asked_at.max(a.at.saturating_sub(queued));
                let early = b.at.saturating_sub(left) < o.ack_wait_ms * 1_000_000;
                let excused = a.boot != b.boot
                    || b.asked_at == 0
                    || said().any(|x| x.refusal && x.sent_at <= b.at)
                    || r.outages
                        .iter()
                        .chain(&r.moves)
                        .any(|(from, to)| *from <= b.at && *to + 500_000_000 >= a.at);
                if early && !excused && b.count > a.count {
                    wrong(
                        out,
                        "JS-8",
                        format!(
                            "{name} {seq} came again after {} ms, ack_wait is {} ms",
                            (b.at - a.at) / 1_000_000,
                            o.ack_wait_ms
                        ),
                    );
                }
            }
        }
        // A delivery that was lost counts too: only without a maximum must each message be seen.
        if max < 0 {
            for (seq, k) in &r.finals[&s].before {
                if !by_seq.contains_key(seq) {
                    wrong(out, "JS-9", format!("{name} {seq} ({}) was never delivered", k.subject));
                }
            }
        }
        for d in r.deliveries.iter().filter(|d| d.stream == s) {
            if !r.attempts.iter().any(|a| Some(a.value) == d.value && a.stream == s) {
                wrong(out, "JS-3", format!("{name} {} was delivered with what nobody sent", d.seq));
            }
        }
    }
    let queue = &r.finals[&Stream::Queue];
    if let Some((seq, k)) = queue.kept.iter().next() {
        wrong(out, "JS-10", format!("the emptied work queue still holds {seq} ({})", k.subject));
    }
    for x in r.said.iter().filter(|x| x.stream == Stream::Queue && x.ends) {
        if x.confirmed_at.is_some() && queue.kept.contains_key(&x.seq) {
            wrong(out, "JS-10", format!("the work queue holds {}, which was acknowledged", x.seq));
        }
    }
}

/// The highest sequence of each stream that was acknowledged up to each time, in the order of the times.
fn acknowledged(r: &Record) -> BTreeMap<Stream, Vec<(u64, u64)>> {
    let mut all = BTreeMap::<Stream, Vec<(u64, u64)>>::new();
    for a in &r.attempts {
        if let (Outcome::Acked { seq, .. }, Some(at)) = (&a.outcome, a.done_at) {
            all.entry(a.stream).or_default().push((at, *seq));
        }
    }
    for list in all.values_mut() {
        list.sort_unstable();
        let mut most = 0;
        list.iter_mut().for_each(|a| {
            most = most.max(a.1);
            a.1 = most;
        });
    }
    all
}

fn streams(r: &Record, o: &Options, out: &mut Vec<Violation>) {
    let acked = acknowledged(r);
    for seen in &r.seen {
        let before = acked.get(&seen.stream).map_or(&[][..], Vec::as_slice);
        let before = &before[..before.partition_point(|a| a.0 < seen.sent_at)];
        if let Some((at, seq)) = before.last().filter(|a| a.1 > seen.last) {
            let (name, last) = (seen.stream.name(), seen.last);
            let text = format!(
                "{name} ended at {last}, and {seq} had been acknowledged before, at {at} ns or earlier"
            );
            wrong(out, "JS-11", text);
        }
        // Compared with what was answered before this was asked.
        for earlier in r.seen.iter().filter(|e| e.stream == seen.stream && e.done_at < seen.sent_at) {
            if earlier.last > seen.last {
                wrong(
                    out,
                    "JS-11",
                    format!("{} ended at {} and later at {}", seen.stream.name(), earlier.last, seen.last),
                );
            }
        }
        let most = match seen.stream {
            Stream::Short => o.log_max_msgs,
            _ => u64::MAX,
        };
        if seen.msgs > most {
            wrong(
                out,
                "JS-12",
                format!("{} has {} messages, at most {most} it may have", seen.stream.name(), seen.msgs),
            );
        }
    }
    for (s, f) in &r.finals {
        if f.msgs != f.kept.len() as u64 {
            wrong(
                out,
                "JS-12",
                format!("{} says that it has {} messages and has {}", s.name(), f.msgs, f.kept.len()),
            );
        }
        if *s == Stream::Bucket {
            let mut n: BTreeMap<&str, u64> = BTreeMap::new();
            for k in f.kept.values() {
                *n.entry(&k.subject).or_default() += 1;
            }
            if let Some((k, n)) = n.iter().find(|(_, n)| **n > o.history) {
                wrong(out, "JS-12", format!("{k} has {n} revisions, at most {} it may have", o.history));
            }
        }
    }
}
