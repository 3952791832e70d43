//! The rows of the scoreboard and their table.

use serde::{Deserialize, Serialize};

use super::{scenario::Scenario, subject::Kind};

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It came to its verdict.
    Done,
    /// The server did not serve, or could not be read, within the limits: a result, and a bad one.
    Broken,
    /// The server cannot do what the scenario needs.
    NotYet,
    /// This machine does not permit it.
    #[default]
    NotHere,
}

/// A cell's content: one scenario with one subject.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the subject.
    pub subject: String,
    /// How it ended.
    pub state: State,
    /// Operations that were acknowledged.
    pub acknowledged: u64,
    /// Operations whose outcome nobody knows.
    pub unknown: u64,
    /// Acknowledged and gone.
    pub lost: u64,
    /// There, or delivered, once more than they may be.
    pub duplicated: u64,
    /// Out of order.
    pub reordered: u64,
    /// There without having been written.
    pub phantom: u64,
    /// Broken otherwise: keys that are not linearizable, deliveries that break a rule.
    pub broken: u64,
    /// Milliseconds without service.
    pub away_ms: u64,
    /// What else there is to say.
    pub note: String,
    /// Real time of the whole run.
    pub real_s: f64,
}

impl Row {
    /// Came to its verdict, and nothing that was acknowledged is wrong.
    pub fn holds(&self) -> bool {
        self.state == State::Done
            && self.lost + self.duplicated + self.reordered + self.phantom + self.broken == 0
    }
}

/// The table: each scenario with a line for each subject.
pub fn table(scenarios: &[Scenario], rows: &[Row]) -> String {
    let mut out = String::from(
        "| # | scenario | server | acknowledged | lost | duplicated | out of order | not written | other | away s | remarks |\n|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|\n",
    );
    for s in scenarios {
        let mut first = true;
        for kind in Kind::ALL {
            let Some(r) = rows.iter().find(|r| r.scenario == s.name && r.subject == kind.name()) else {
                continue;
            };
            let (number, title) = if std::mem::take(&mut first) {
                (number(s.number), format!("`{}`: {}", s.name, s.title))
            } else {
                (String::new(), String::new())
            };
            out += &format!("| {number} | {title} | {} {}\n", r.subject, cells(r));
        }
    }
    out
}

fn number(n: u32) -> String {
    if n == 0 { "–".into() } else { n.to_string() }
}

fn cells(r: &Row) -> String {
    let note = r.note.replace(['|', '\n'], " ");
    let note = note.trim().trim_end_matches(';');
    match r.state {
        State::NotYet => format!("| not yet | | | | | | | {note} |"),
        State::NotHere => format!("| not on this machine | | | | | | | {note} |"),
        State::Done | State::Broken => {
            let mark = if r.state == State::Broken { "**did not finish**: " } else { "" };
            let n = |n: u64| if n == 0 { "0".into() } else { format!("**{n}**") };
            format!(
                "| {} | {} | {} | {} | {} | {} | {:.1} | {mark}{note} |",
                r.acknowledged,
                n(r.lost),
                n(r.duplicated),
                n(r.reordered),
                n(r.phantom),
                n(r.broken),
                r.away_ms as f64 / 1000.0
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn a_table_shows_what_was_lost_and_what_is_not_there() {
        let all = scenario::all();
        let row = |subject: &str, state, lost| Row {
            scenario: "power".into(),
            subject: subject.into(),
            state,
            acknowledged: 900,
            lost,
            note: "a | b; ".into(),
            ..Row::default()
        };
        let rows = [row("fulmar", State::NotYet, 0), row("nats-server", State::Done, 7)];
        let t = table(&all, &rows);
        assert!(t.contains("| fulmar | not yet |"), "{t}");
        assert!(t.contains("| nats-server | 900 | **7** | 0 |") && t.contains("a   b |"), "{t}");
        let columns: Vec<usize> = t.lines().map(|l| l.matches('|').count()).collect();
        assert!(columns.iter().all(|c| *c == columns[0]), "{t}");
        assert!(!rows[0].holds() && !rows[1].holds() && row("fulmar", State::Done, 0).holds());
    }
}
