//! Reads what the level-0 simulator of the consensus core prints for a failing seed (`l0 --seeds 1 --seed N`): what each
//! core took and what it answered. Elections, commits, faults and messages become a timeline.
//!
//! A message stands twice in that text, with the same words: where its sender hands it out and where its receiver takes it. A
//! reply that waits for a write leaves when the write is said to be durable.

use std::collections::BTreeMap;

use super::{Message, Point, Timeline, What};
use crate::history::Violation;

/// Nanoseconds of a time that is printed as `7187.123`, milliseconds.
fn nanos(s: &str) -> Option<u64> {
    let (ms, frac) = s.split_once('.')?;
    let us: u64 = format!("{frac:0<3}").get(..3)?.parse().ok()?;
    Some(ms.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(us)?.saturating_mul(1_000))
}

/// The lane of `n3` or `n3.1`.
fn lane(s: &str) -> Option<usize> {
    let n = s.strip_prefix('n')?.split('.').next()?;
    n.parse::<usize>().ok()?.checked_sub(1).filter(|l| *l < 64)
}

/// How long the bracketed text at the beginning of `s` is, with its brackets; text in quotes counts as nothing.
fn balanced(s: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (i, c) in s.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    s.len()
}

/// The list behind the first `name: [`, and what follows it.
fn list<'a>(s: &'a str, name: &str) -> (&'a str, &'a str) {
    let Some(at) = s.find(&format!("{name}: [")) else { return ("", s) };
    let rest = &s[at + name.len() + 2..];
    rest.split_at(balanced(rest))
}

/// The items `Name { … }` of a list.
fn items<'a>(mut s: &'a str, name: &str) -> Vec<&'a str> {
    let open = format!("{name} {{");
    let mut all = Vec::new();
    while let Some(at) = s.find(&open) {
        let n = balanced(&s[at..]);
        all.push(&s[at..at + n]);
        s = &s[at + n..];
    }
    all
}

fn node_after(s: &str, key: &str) -> Option<usize> {
    let at = s.find(key)? + key.len();
    s[at..].split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok()?.checked_sub(1)
}

/// `Vote, term 3`, with what makes it a yes or a no.
fn label(message: &str) -> String {
    let after = |key: &str| message.find(key).map(|at| &message[at + key.len()..]);
    let word = |s: &str| s.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
    let body = after("body: ").map(word).unwrap_or_default();
    let term = after("term: Term(").map(word).unwrap_or_default();
    let granted = match after("granted: ").map(word).as_deref() {
        Some("true") => " yes",
        Some(_) => " no",
        None => "",
    };
    format!("{body}{granted}, term {term}")
}

#[derive(Default)]
struct Reader {
    out: Timeline,
    now: u64,
    /// What each node was when it was last seen: role, term, commit.
    seen: BTreeMap<usize, (String, u64, u64)>,
    /// Replies that wait for a write, by node and token.
    waiting: Vec<(usize, String, Vec<String>)>,
    /// Messages on their way, by their words.
    open: BTreeMap<String, Vec<usize>>,
}

impl Reader {
    fn point(&mut self, t: u64, lane: usize, what: What, text: String) {
        self.out.points.push(Point { t, lane, other: None, what, text });
    }

    fn send(&mut self, text: &str) {
        let (Some(from), Some(to)) =
            (node_after(text, "from: NodeId { id: "), node_after(text, "to: NodeId { id: "))
        else {
            return;
        };
        self.open.entry(text.to_owned()).or_default().push(self.out.messages.len());
        let label = label(text);
        let sent = self.now;
        self.out.messages.push(Message { conn: 0, from, to, bytes: 0, sent, read: None, label });
    }

    /// `n2 Follower t1 d1 l1 c1 a1 <- event`.
    fn step(&mut self, at: usize, state: &str, event: &str) {
        if let Some(text) = event.strip_prefix("Message(") {
            let text = &text[..balanced(text)];
            // Copies of one message look alike; each arrival takes one, and a copy that was doubled on the way takes none.
            if let Some(sent) = self.open.get_mut(text).filter(|all| !all.is_empty()).map(|all| all.remove(0))
            {
                self.out.messages[sent].read = Some(self.now);
            }
        } else if let Some(token) = event.strip_prefix("Written(") {
            let token = &token[..balanced(token)];
            let ready: Vec<usize> = (0..self.waiting.len())
                .filter(|i| self.waiting[*i].0 == at && self.waiting[*i].1 == token)
                .collect();
            for i in ready.into_iter().rev() {
                let (.., replies) = self.waiting.remove(i);
                replies.iter().for_each(|r| self.send(r));
            }
        }
        let mut words = state.split(' ');
        let role = words.next().unwrap_or_default().to_owned();
        let number = |letter: char| {
            let mut found = state.split(' ').filter_map(|w| w.strip_prefix(letter)?.parse::<u64>().ok());
            found.next().unwrap_or(0)
        };
        let (term, commit) = (number('t'), number('c'));
        let before = self.seen.insert(at, (role.clone(), term, commit));
        let (was, old_term, old_commit) = before.unwrap_or_default();
        if was != role || (term != old_term && role != "Follower") {
            let what = if role == "Leader" { What::Elect } else { What::Role };
            let says = match role.as_str() {
                "Leader" => "leads",
                "Candidate" => "campaigns",
                "PreCandidate" => "asks who would vote for it",
                _ => "follows",
            };
            self.point(self.now, at, what, format!("{says}, term {term}"));
        }
        if commit > old_commit && !was.is_empty() {
            self.point(self.now, at, What::Commit, format!("commit {commit}"));
        }
    }

    /// `=> Ready { … }` of the step before.
    fn ready(&mut self, at: usize, text: &str) {
        let (messages, rest) = list(text, "messages");
        items(messages, "Message").into_iter().for_each(|m| self.send(m));
        let (writes, _) = list(rest, "writes");
        for write in items(writes, "Write") {
            let token = items(write, "Token").first().map(|t| (*t).to_owned()).unwrap_or_default();
            let Some(replies) = write.rfind("replies: [") else { continue };
            let replies = items(&write[replies..], "Message").into_iter().map(str::to_owned).collect();
            self.waiting.push((at, token, replies));
        }
    }

    /// What happened to the world.
    fn trouble(&mut self, text: &str) {
        let first = text.split(' ').next().unwrap_or_default();
        let t = self.now;
        match lane(first) {
            Some(at) if text.contains(" starts") => self.point(t, at, What::Start, "starts".into()),
            Some(at) if text.contains(" crashes") || text.contains(" is wiped") => {
                self.seen.remove(&at);
                self.waiting.retain(|w| w.0 != at);
                self.point(t, at, What::Death, text.to_owned());
            }
            Some(at) if text.contains(" is paused until ") => {
                self.point(t, at, What::Pause, "stands still".into());
                if let Some(until) = text.rsplit(' ').next().and_then(nanos) {
                    self.point(until, at, What::Resume, "goes on".into());
                }
            }
            Some(at) => self.point(t, at, What::Fault, text.to_owned()),
            None if text.starts_with("partition [") => {
                let sides = text["partition ".len()..].split(']').next().unwrap_or_default();
                let one = sides.trim_start_matches('[').split(", ").map(|s| s == "true").collect::<Vec<_>>();
                let way = if text.ends_with("one way true") { "one way" } else { "both ways" };
                for (at, _) in one.iter().enumerate().filter(|s| *s.1) {
                    let others: Vec<String> =
                        (0..one.len()).filter(|i| !one[*i]).map(|i| format!("n{}", i + 1)).collect();
                    self.point(t, at, What::Fault, format!("cut from {} ({way})", others.join(" ")));
                }
            }
            None if text == "mend" || text.contains("calm") => {
                self.point(
                    t,
                    0,
                    What::Heal,
                    if text == "mend" { "all cuts mend" } else { "the storm is over" }.into(),
                );
            }
            None => self.point(t, 0, What::Signal, text.to_owned()),
        }
    }
}

/// Reads the report of a failing seed. Lines of other kinds are passed over.
pub fn read(text: &str) -> Timeline {
    let mut r = Reader::default();
    let (mut said, mut stepped, mut seed) = (None, None, String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("seed ") {
            let mut parts = rest.splitn(3, ": ");
            seed = parts.next().unwrap_or_default().to_owned();
            let id = parts.next().and_then(|p| p.split(' ').next()).unwrap_or("?").to_owned();
            said = Some((id, parts.next().unwrap_or_default().to_owned()));
        } else if let Some(plan) = line.strip_prefix("Plan { machines: ") {
            let n = plan.split(',').next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0).min(64);
            r.out.lanes = (1..=n).map(|i| format!("n{i}")).collect();
        } else if let (Some(rest), Some(at)) = (line.trim_start().strip_prefix("=> "), stepped) {
            r.ready(at, rest);
        } else if let Some((time, rest)) = line.trim_start().split_once(' ')
            && let Some(t) = nanos(time)
        {
            r.now = t;
            let who = rest.split(' ').next().and_then(lane);
            let step = rest.split_once(" <- ").and_then(|(state, event)| {
                Some((who?, state.split_once(' ')?.1.to_owned(), event.to_owned()))
            });
            stepped = step.as_ref().map(|s| s.0);
            match step {
                Some((at, state, event)) => r.step(at, &state, &event),
                None => r.trouble(rest),
            }
        }
    }
    let end = r.now;
    let mut out = r.out;
    out.title = format!("Seed {seed} of the consensus core: the last transitions");
    let most = out.points.iter().map(|p| p.lane).chain(out.messages.iter().map(|m| m.from.max(m.to))).max();
    for n in out.lanes.len()..most.map_or(0, |m| m + 1) {
        out.lanes.push(format!("n{}", n + 1));
    }
    out.points.retain(|p| p.t <= end);
    out.points.sort_by_key(|p| p.t);
    if let Some((id, text)) = said {
        out.violations.push(Violation { id, text: format!("at {end} ns: {text}") });
    }
    out
}
