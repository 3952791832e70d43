//! Reads what a run prints with `FULMAR_TRACE` and `FULMAR_LOGS`: lines `trace <ns> <event> [<numbers>]` and
//! `<machine>: <log line>`; a log line has the time of the trace line before it.

use std::collections::{BTreeMap, VecDeque};

use super::{Message, Point, Timeline, What};

/// Points that a page holds at most; the last ones are kept, since a violation is seen at the end.
pub const POINTS_MAX: usize = 4_000;
/// Messages that a page holds at most.
pub const MESSAGES_MAX: usize = 4_000;

/// A direction of a connection.
#[derive(Default)]
struct Flow {
    /// Messages that were not read in full: place in the list, and the offset of their end.
    open: VecDeque<(usize, u64)>,
    sent: u64,
    read: u64,
}

/// A connection: who made it, to whom, and both directions.
struct Conn {
    ends: [usize; 2],
    flows: [Flow; 2],
}

/// Reads a trace; lines of other kinds are passed over. Machines get their names from their log lines, or from `names`.
pub fn read(text: &str, names: &[String]) -> Timeline {
    let mut out = Timeline { lanes: names.to_vec(), ..Timeline::default() };
    let mut conns: BTreeMap<u64, Conn> = BTreeMap::new();
    let mut now = 0;
    for line in text.lines() {
        if let Some((t, what, args)) = event(line) {
            now = t;
            take(&mut out, &mut conns, t, what, &args);
        } else if let Some((name, said)) = line.split_once(": ")
            && let Some(lane) = out.lanes.iter().position(|l| l == name)
        {
            let text = said.to_owned();
            out.points.push(Point { t: now, lane, other: None, what: What::Log, text });
        }
    }
    let most = out.points.iter().map(|p| p.lane.max(p.other.unwrap_or(0)));
    let most = most.chain(out.messages.iter().map(|m| m.from.max(m.to))).max().unwrap_or(0);
    for n in out.lanes.len()..=most {
        out.lanes.push(format!("machine {n}"));
    }
    shorten(&mut out);
    out
}

fn event(line: &str) -> Option<(u64, &str, Vec<u64>)> {
    let rest = line.strip_prefix("trace ")?.trim_start();
    let (t, rest) = rest.split_once(' ')?;
    let (what, args) = rest.split_once('[')?;
    let args = args.trim_end().trim_end_matches(']').split(',').map(str::trim).filter(|s| !s.is_empty());
    Some((t.parse().ok()?, what.trim(), args.map(|s| s.parse().ok()).collect::<Option<_>>()?))
}

fn take(out: &mut Timeline, conns: &mut BTreeMap<u64, Conn>, t: u64, what: &str, args: &[u64]) {
    let mut point = |lane: u64, other: Option<u64>, what, text: String| {
        let other = other.map(|o| o as usize);
        out.points.push(Point { t, lane: lane as usize, other, what, text });
    };
    match (what, args) {
        ("start", [n, boots, ..]) => point(*n, None, What::Start, format!("start {boots}")),
        ("died", [n, power, ..]) => {
            let how = if *power == 1 { "lost power" } else { "killed" };
            point(*n, None, What::Death, how.into());
        }
        ("pause", [n, ..]) => point(*n, None, What::Pause, "stands still".into()),
        ("resume", [n, ..]) => point(*n, None, What::Resume, "goes on".into()),
        ("signal", [n, s, ..]) => point(*n, None, What::Signal, format!("signal {s}")),
        ("cut", [a, b, ..]) => point(*a, Some(*b), What::Fault, "cut".into()),
        ("reset", [a, b, ..]) => point(*a, Some(*b), What::Fault, "reset".into()),
        ("link", [a, b, 1, ..]) => point(*a, Some(*b), What::Fault, "slow or lossy".into()),
        ("link", [a, b, ..]) | ("heal", [a, b, ..]) => point(*a, Some(*b), What::Heal, "healed".into()),
        ("established", [id, _, port, a, b, ..]) => {
            point(*a, Some(*b), What::Open, format!("connection {id} to port {port}"));
            let ends = [*a as usize, *b as usize];
            conns.insert(*id, Conn { ends, flows: [Flow::default(), Flow::default()] });
        }
        ("closed", [id, side, reset, ..]) => {
            if let Some(c) = conns.get(id) {
                let how = if *reset == 1 { "resets" } else { "closes" };
                point(c.ends[side_of(*side)] as u64, None, What::Close, format!("{how} connection {id}"));
            }
        }
        ("sent", [id, side, bytes, ..]) => {
            let Some(c) = conns.get_mut(id) else { return };
            let side = side_of(*side);
            let flow = &mut c.flows[side];
            flow.sent += bytes;
            flow.open.push_back((out.messages.len(), flow.sent));
            out.messages.push(Message {
                conn: *id,
                from: c.ends[side],
                to: c.ends[1 - side],
                bytes: *bytes,
                sent: t,
                read: None,
                label: String::new(),
            });
        }
        ("read", [id, side, bytes, ..]) => {
            let Some(c) = conns.get_mut(id) else { return };
            let flow = &mut c.flows[1 - side_of(*side)];
            flow.read += bytes;
            while let Some((at, end)) = flow.open.front().copied()
                && end <= flow.read
            {
                flow.open.pop_front();
                out.messages[at].read = Some(t);
            }
        }
        _ => {}
    }
}

fn side_of(n: u64) -> usize {
    usize::from(n != 0)
}

/// Keeps the end. Faults are kept from the whole run: without them the end cannot be understood.
fn shorten(out: &mut Timeline) {
    let minor = |p: &Point| matches!(p.what, What::Open | What::Close | What::Log);
    let too_many = out.points.len().saturating_sub(POINTS_MAX);
    let mut dropped = 0;
    out.points.retain(|p| {
        let drop = dropped < too_many && minor(p);
        dropped += usize::from(drop);
        !drop
    });
    let messages = out.messages.len().saturating_sub(MESSAGES_MAX);
    out.messages.drain(..messages);
    out.left_out = dropped + messages;
}
