//! The command line of `jepsen`.
//!
//! * `jepsen list` names the scenarios.
//! * `jepsen run [--scenarios A,B] [--subjects A,B] [--seed N] [--seeds N] [--scale F] [--clients N] [--dir D] [--table FILE]` runs
//!   them; binaries come from `FULMAR_BIN` and `NATS_SERVER_BIN`. A subject without a binary is "not yet".
//! * `jepsen check FILE` judges a history again.

use std::{fs, io::BufReader, path::PathBuf};

use super::{
    Wrong,
    report::{self, Row, State},
    scenario::{self, Options, Scenario},
    subject::{Kind, Subject},
    tell,
};
use crate::{check, history::History};

/// Runs what the arguments ask for; the exit code: 0, 1 if something that was acknowledged by ours is wrong, 2 for a
/// mistake in the arguments.
pub fn main() -> i32 {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => {
            scenario::all().iter().for_each(|s| say(&format!("{:<16} {}", s.name, s.title)));
            Ok(0)
        }
        ["check", file] => judge(file),
        ["run", ref rest @ ..] => Run::parse(rest).and_then(Run::run),
        _ => Err("usage: jepsen list | check FILE | run … (see scripts/jepsen)".into()),
    };
    done.unwrap_or_else(|e| {
        tell(&format!("jepsen: {e}"));
        2
    })
}

fn say(text: &str) {
    use std::io::Write;
    // Whoever reads may have gone.
    writeln!(std::io::stdout().lock(), "{text}").ok();
}

fn judge(file: &str) -> Result<i32, Wrong> {
    let f = fs::File::open(file).map_err(|e| format!("{file}: {e}"))?;
    let h = History::read(BufReader::new(f)).map_err(|e| format!("{file}: {e}"))?;
    let (l, r) = (check::log(&h), check::register(&h));
    say(&format!("{l:?}"));
    say(&format!("{r:?}"));
    Ok(i32::from(!(r.holds() && (l.read == 0 || l.holds()))))
}

struct Run {
    scenarios: Vec<Scenario>,
    subjects: Vec<Kind>,
    options: Options,
    table: Option<PathBuf>,
    keep: bool,
    seeds: u64,
}

impl Run {
    fn parse(args: &[&str]) -> Result<Run, Wrong> {
        let mut run = Run {
            // Storms are for who looks for bugs: another seed is another scenario.
            scenarios: scenario::all().into_iter().filter(|s| !s.storm).collect(),
            subjects: Kind::ALL.to_vec(),
            options: Options { seed: 1, scale: 1.0, dir: std::env::temp_dir().join("jepsen"), clients: 4 },
            table: None,
            keep: false,
            seeds: 1,
        };
        let mut args = args.iter();
        while let Some(name) = args.next() {
            let v = *args.next().ok_or_else(|| format!("{name} wants a value"))?;
            let bad = |_| format!("{name}: not a number: {v}");
            match *name {
                "--scenarios" => {
                    for want in v.split(',') {
                        if !scenario::all().iter().any(|s| s.name == want) {
                            return Err(format!("no scenario {want:?}: see `jepsen list`"));
                        }
                    }
                    run.scenarios = scenario::all();
                    run.scenarios.retain(|s| v.split(',').any(|w| w == s.name));
                }
                "--subjects" => {
                    let kinds =
                        v.split(',').map(|w| Kind::parse(w).ok_or_else(|| format!("no subject {w:?}")));
                    run.subjects = kinds.collect::<Result<_, _>>()?;
                }
                "--seed" => {
                    run.options.seed = v.parse().map_err(|e: std::num::ParseIntError| bad(e.to_string()))?
                }
                "--seeds" => {
                    run.seeds = v.parse().map_err(|e: std::num::ParseIntError| bad(e.to_string()))?;
                }
                "--clients" => {
                    run.options.clients =
                        v.parse().map_err(|e: std::num::ParseIntError| bad(e.to_string()))?
                }
                "--scale" => {
                    run.options.scale =
                        v.parse().map_err(|e: std::num::ParseFloatError| bad(e.to_string()))?
                }
                "--dir" => run.options.dir = v.into(),
                "--keep" => run.keep = v == "yes",
                "--table" => run.table = Some(v.into()),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        Ok(run)
    }

    fn run(self) -> Result<i32, Wrong> {
        fs::create_dir_all(&self.options.dir).map_err(|e| e.to_string())?;
        let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let rt = rt.map_err(|e| e.to_string())?;
        let mut rows: Vec<Row> = Vec::new();
        let all = self.scenarios.iter().flat_map(|s| self.subjects.iter().map(move |k| (s, k)));
        for (s, kind) in all {
            for seed in self.options.seed..self.options.seed + self.seeds.max(1) {
                let options = Options { seed, ..self.options.clone() };
                let row = match binary(*kind) {
                    // The faults block this thread; clients and proxies have the runtime's own.
                    Some(bin) => rt.block_on(scenario::run(
                        s,
                        &Subject { kind: *kind, bin, old: older(*kind) },
                        &options,
                    )),
                    None => Row {
                        scenario: s.name.into(),
                        subject: kind.name().into(),
                        state: State::NotYet,
                        note: "no binary was named".into(),
                        ..Row::default()
                    },
                };
                tell(&format!(
                    "{:<14} {:<17} seed {seed} {:?} {:.0} s: {} acknowledged, {} lost, {} duplicated, {} out of order, {} not written, {} other, away {} ms; {}",
                    row.scenario,
                    row.subject,
                    row.state,
                    row.real_s,
                    row.acknowledged,
                    row.lost,
                    row.duplicated,
                    row.reordered,
                    row.phantom,
                    row.broken,
                    row.away_ms,
                    row.note
                ));
                // Of many seeds the last one counts, which is the first that fails: its files are still there.
                let over = !row.holds();
                rows.retain(|r| r.scenario != row.scenario || r.subject != row.subject);
                rows.push(row);
                if over {
                    break;
                }
            }
        }
        let ran = rows.len();
        // Beside the table, so that who measures elsewhere has the others' rows too.
        let path = match &self.table {
            Some(table) => table.with_extension("jsonl"),
            None => self.options.dir.join("rows.jsonl"),
        };
        if self.keep {
            let old = fs::read_to_string(&path).unwrap_or_default();
            let old = old.lines().filter_map(|l| serde_json::from_str::<Row>(l).ok());
            for r in old {
                if !rows[..ran].iter().any(|n| n.scenario == r.scenario && n.subject == r.subject) {
                    rows.push(r);
                }
            }
        }
        let lines: Vec<String> = rows.iter().filter_map(|r| serde_json::to_string(r).ok()).collect();
        fs::write(&path, lines.join("\n") + "\n").map_err(|e| e.to_string())?;
        let shown = if self.keep { scenario::all() } else { self.scenarios.clone() };
        let table = report::table(&shown, &rows);
        match &self.table {
            Some(file) => {
                fs::write(file, self.page(&table)).map_err(|e| format!("{}: {e}", file.display()))?
            }
            None => say(&table),
        }
        let ours =
            rows.iter().take(ran).filter(|r| r.subject == Kind::Fulmar.name() && r.state != State::NotYet);
        Ok(i32::from(ours.filter(|r| r.state != State::NotHere).any(|r| !r.holds())))
    }

    /// The table with what is needed to read and to repeat it.
    fn page(&self, table: &str) -> String {
        let version = |k: &Kind| {
            let said = binary(*k)
                .map_or_else(|| "no binary".into(), |bin| Subject { kind: *k, bin, old: None }.version());
            format!("* {}: {said}\n", k.name())
        };
        let versions: String = Kind::ALL.iter().map(version).collect();
        format!(
            include_str!("page.md"),
            versions = versions,
            table = table,
            seed = self.options.seed,
            scale = self.options.scale
        )
    }
}

/// An older version's binary, for rolling upgrades.
fn older(kind: Kind) -> Option<PathBuf> {
    let name = if kind == Kind::Fulmar { "FULMAR_OLD_BIN" } else { "NATS_SERVER_OLD_BIN" };
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

fn binary(kind: Kind) -> Option<PathBuf> {
    let name = if kind == Kind::Fulmar { "FULMAR_BIN" } else { "NATS_SERVER_BIN" };
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}
