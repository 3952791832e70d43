//! The way through a world.
//!
//! Owns the calls of the checker and the report. Does not judge: whether a run was complete is for the caller to see, by
//! [`Outcome::complete`] and by the recorded number of states.
#![allow(clippy::disallowed_methods, reason = "a tool that measures real time; not part of the server")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use stateright::{Checker, CheckerBuilder, Expectation, HasDiscoveries, Model};

use crate::quorum_write::{Action, Bug, Config, QuorumWrite, State};

/// When a run ends before it has seen everything.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads of the checker. With one the order of states is always the same.
    pub threads: usize,
    /// Real time. The checker looks at the clock only when its threads share work: with one thread it never does.
    pub time: Duration,
    /// States generated, seen before or not.
    pub generated: usize,
    /// Breadth first: the shortest way to a failure, for twenty times the memory.
    pub breadth: bool,
}

/// A way through the world.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Which property it is about.
    pub property: &'static str,
    /// Number of actions.
    pub steps: usize,
    /// The actions, one a line, and what went wrong.
    pub text: String,
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Different states seen.
    pub unique: usize,
    /// States generated, with those seen before.
    pub generated: usize,
    /// Longest way.
    pub depth: usize,
    /// Real time.
    pub took: Duration,
    /// Properties that do not hold.
    pub failures: Vec<Trace>,
    /// What should happen somewhere and does not.
    pub missing: Vec<&'static str>,
    /// Whether every state was seen.
    pub complete: bool,
}

/// Explores a world until it is known, or a property fails, or the time is over.
#[must_use]
pub fn explore(config: Config, bug: Option<Bug>, limits: Limits) -> Outcome {
    let begin = Instant::now();
    let builder = QuorumWrite::new(config, bug)
        .checker()
        .threads(limits.threads)
        .timeout(limits.time)
        .target_state_count(limits.generated)
        .finish_when(HasDiscoveries::AnyFailures);
    if limits.breadth {
        report(builder, CheckerBuilder::spawn_bfs, begin, limits)
    } else {
        report(builder, CheckerBuilder::spawn_dfs, begin, limits)
    }
}

fn report<C: Checker<QuorumWrite>>(
    builder: CheckerBuilder<QuorumWrite>,
    spawn: impl FnOnce(CheckerBuilder<QuorumWrite>) -> C,
    begin: Instant,
    limits: Limits,
) -> Outcome {
    let checker = spawn(builder).join();
    let took = begin.elapsed();
    let found = checker.discoveries();
    let mut failures = Vec::new();
    let mut missing = Vec::new();
    for property in checker.model().properties() {
        match (property.expectation, found.get(property.name)) {
            (Expectation::Always, Some(path)) => {
                let actions = path.clone().into_actions();
                let last = path.last_state();
                let mut text = String::new();
                for action in &actions {
                    let _ = writeln!(text, "{}", tell(action));
                }
                if let Some(broken) = &last.broken {
                    let _ = writeln!(text, "{}: {}", broken.id, broken.what);
                }
                text.push_str(&describe(last));
                failures.push(Trace { property: property.name, steps: actions.len(), text });
            }
            (Expectation::Sometimes, None) => missing.push(property.name),
            _ => {}
        }
    }
    Outcome {
        unique: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        took,
        complete: failures.is_empty() && took < limits.time && checker.state_count() < limits.generated,
        failures,
        missing,
    }
}

fn tell(action: &Action) -> String {
    let node = |at: &usize| crate::node::name(*at);
    match action {
        Action::Timeout(at) => format!("{}: election timeout", node(at)),
        Action::Resend(at) => format!("{}: repeats", node(at)),
        Action::Write(at) => format!("{}: a client writes", node(at)),
        Action::Persist(at) => format!("{}: a write is durable", node(at)),
        Action::Crash(at) => format!("{}: crash and restart", node(at)),
        Action::Deliver(envelope) | Action::Duplicate(envelope) => {
            let m = envelope.message();
            let again = if let Action::Duplicate(_) = action { " (and again)" } else { "" };
            let body = match &m.body {
                raft::Body::Append(a) => {
                    let entries: Vec<String> = a
                        .entries
                        .iter()
                        .map(|e| format!("{}@t{} {:?}", e.index.0, e.term.0, e.kind))
                        .collect();
                    let (prev, term, commit) = (a.prev.0, a.prev_term.0, a.commit.0);
                    format!("Append after {prev}@t{term}, commit {commit}: {entries:?}")
                }
                body => format!("{body:?}"),
            };
            format!("{} -> {} t{}{again}: {body}", m.from, m.to, m.term.0)
        }
    }
}

fn describe(state: &State) -> String {
    let mut text = String::new();
    for node in &state.nodes {
        let s = node.core.status();
        let terms =
            |ids: &mut dyn Iterator<Item = u64>| ids.map(|t| format!("t{t}")).collect::<Vec<_>>().join(" ");
        let _ = writeln!(
            text,
            "  {} {:?} t{} vote {:?} commit {} log from 2 [{}] on disk t{} [{}]",
            node.core.me(),
            s.role,
            s.term.0,
            s.vote.map(|v| v.id),
            s.commit.0,
            terms(&mut node.ahead.iter().map(|e| e.0.0)),
            node.hard.term.0,
            terms(&mut node.log.iter().map(|e| e.term.0)),
        );
    }
    let list = |p: &[crate::quorum_write::Promised]| -> Vec<String> {
        p.iter().map(|p| format!("{}@t{} by t{}", p.index.0, p.identity.0.0, p.by.0)).collect()
    };
    let _ = writeln!(text, "  committed {:?} acknowledged {:?}", list(&state.committed), list(&state.acked));
    text
}
