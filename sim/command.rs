//! The command line of `storm`. With `jet` before them all commands are about storms of JetStream instead of core messaging, with `mesh`
//! about core messaging over several servers, with `cluster` about JetStream over several servers, with `rot` about the same with stored bytes that go bad on one of them.
//!
//! * `storm run SEED…` runs seeds in this process and prints a line of JSON for each; a panic is a verdict too.
//! * `storm text TEXT` prints the seed for a text.
//! * `storm plan SEED` prints the plan; `storm play FILE` runs one.
//! * `storm many FIRST COUNT JOBS SECONDS DIR` runs seeds in child processes, each a batch, shrinks what fails into
//!   `DIR/<seed>/`, and prints a summary. With `-` for the folder it ends with the first that fails, and shrinks nothing.
//! * `storm twice SEED…` runs each seed in two processes of its own and compares the traces.
//! * `storm shrink SEED|FILE DIR` makes the plan of one failing seed, or a stored plan, small.
//! * `storm timeline FILE OUT` runs a plan once more and draws it as a page, with its last transitions as text beside it.
//! * `storm raft-timeline FILE OUT` draws what the consensus core's own simulator said of a failing seed (`l0`).

#![allow(clippy::disallowed_methods)] // It stands outside the simulated world: real files, processes and clocks.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::{
    history::Violation,
    jet, mesh,
    plan::Plan,
    shrink,
    storm::{self, Report},
    timeline,
};

/// Which storms.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Core,
    Jet,
    Mesh,
    Cluster,
    /// The same, with disks on which stored bytes go bad, and disks that are wiped, among what may happen.
    Rot,
}

impl Kind {
    fn draw(self, seed: u64) -> Any {
        match self {
            Kind::Core => Any::Core(Plan::draw(seed)),
            Kind::Jet => Any::Jet(jet::plan::Plan::draw(seed)),
            Kind::Mesh => Any::Mesh(mesh::plan::Plan::draw(seed)),
            Kind::Cluster => Any::Jet(jet::plan::Plan::draw_cluster(seed)),
            Kind::Rot => Any::Jet(jet::plan::Plan::draw_cluster_with(seed, true)),
        }
    }
    /// What stands before the command.
    fn word(self) -> Option<&'static str> {
        match self {
            Kind::Core => None,
            Kind::Jet => Some("jet"),
            Kind::Mesh => Some("mesh"),
            Kind::Cluster => Some("cluster"),
            Kind::Rot => Some("rot"),
        }
    }
    /// The arguments of a child that does the same kind of storms.
    fn args(self, rest: impl IntoIterator<Item = String>) -> Vec<String> {
        self.word().map(str::to_owned).into_iter().chain(rest).collect()
    }
    /// What a thousand seeds must have brought at least.
    fn floors(self) -> &'static [(&'static str, u64)] {
        match self {
            Kind::Core => &FLOORS,
            Kind::Jet => &JET_FLOORS,
            Kind::Mesh => &MESH_FLOORS,
            Kind::Cluster | Kind::Rot => &CLUSTER_FLOORS,
        }
    }
}

/// A plan of either kind.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Any {
    Core(Plan),
    Jet(jet::plan::Plan),
    Mesh(mesh::plan::Plan),
}

impl Any {
    fn seed(&self) -> u64 {
        match self {
            Any::Core(p) => p.options.seed,
            Any::Jet(p) => p.options.seed,
            Any::Mesh(p) => p.options.seed,
        }
    }
    fn len(&self) -> usize {
        match self {
            Any::Core(p) => p.len(),
            Any::Jet(p) => p.len(),
            Any::Mesh(p) => p.len(),
        }
    }
    fn run(&self) -> Report {
        match self {
            Any::Core(p) => storm::run(p),
            Any::Jet(p) => jet::run::run(p),
            Any::Mesh(p) => mesh::run::run(p),
        }
    }
    fn options(&self) -> String {
        match self {
            Any::Core(p) => line(&p.options),
            Any::Jet(p) => line(&p.options),
            Any::Mesh(p) => line(&p.options),
        }
    }
    fn pretty(&self) -> String {
        match self {
            Any::Core(p) => pretty(p),
            Any::Jet(p) => lines(p),
            Any::Mesh(p) => lines(p),
        }
    }
    fn shrink(&self, fails: impl Fn(&Any) -> bool) -> Any {
        match self {
            Any::Core(p) => Any::Core(shrink::shrink(p, SHRINK_RUNS, |p| fails(&Any::Core(p.clone())))),
            Any::Jet(p) => Any::Jet(jet::shrink::shrink(p, SHRINK_RUNS, |p| fails(&Any::Jet(p.clone())))),
            Any::Mesh(p) => Any::Mesh(jet::shrink::shrink(p, SHRINK_RUNS, |p| fails(&Any::Mesh(p.clone())))),
        }
    }
}

/// Seeds that a child runs before it ends; of the storms that take seconds each, so that a limit of time is kept.
const BATCH: u64 = 25;
/// See [`BATCH`].
const BATCH_OF_CLUSTERS: u64 = 4;
/// Runs that shrinking may take.
const SHRINK_RUNS: usize = 400;

/// Runs what the arguments ask for; returns the exit code.
#[allow(clippy::print_stderr)]
pub fn main() -> i32 {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut words: Vec<&str> = args.iter().map(String::as_str).collect();
    let kind = match words.first() {
        Some(&"jet") => Kind::Jet,
        Some(&"mesh") => Kind::Mesh,
        Some(&"cluster") => Kind::Cluster,
        Some(&"rot") => Kind::Rot,
        _ => Kind::Core,
    };
    if kind != Kind::Core {
        words.remove(0);
    }
    let done = match words[..] {
        ["run", ref seeds @ ..] if !seeds.is_empty() => numbers(seeds).map(|s| run(kind, &s)),
        ["text", text] => {
            // A seed for a text, such as the name of a commit.
            say(&(env::Rng::derived(0, text).next_u64() >> 24).to_string());
            Ok(0)
        }
        ["plan", seed] => number(seed).map(|s| {
            say(&kind.draw(s).pretty());
            0
        }),
        ["play", file] => read_plan(file).map(|p| play(&p)),
        ["many", first, count, jobs, seconds, dir] => {
            numbers(&[first, count, jobs, seconds]).map(|n| many(kind, &n, dir))
        }
        ["twice", ref seeds @ ..] if !seeds.is_empty() => numbers(seeds).map(|s| twice(kind, &s)),
        ["timeline", file, out] => draw(file, Path::new(out)).map(i32::from),
        ["raft-timeline", file, out] => draw_raft(file, Path::new(out)).map(i32::from),
        ["shrink", what, dir] => {
            let plan =
                if what.ends_with(".json") { read_plan(what) } else { number(what).map(|s| kind.draw(s)) };
            plan.and_then(|p| bug(kind, &p, dir))
        }
        _ => {
            Err("usage: storm run|plan|play|many|twice|shrink|timeline|raft-timeline … (see sim/command.rs)"
                .into())
        }
    };
    done.unwrap_or_else(|e| {
        eprintln!("storm: {e}");
        2
    })
}

fn number(s: &str) -> Result<u64, String> {
    s.parse().map_err(|_| format!("not a number: {s}"))
}
fn numbers(s: &[&str]) -> Result<Vec<u64>, String> {
    s.iter().map(|s| number(s)).collect()
}
fn line(v: &impl serde::Serialize) -> String {
    serde_json::to_string(v).expect("plain data is JSON")
}
/// The same for a plan whose steps and events can be told by their first fields.
fn lines(p: &impl serde::Serialize) -> String {
    line(p).replace("{\"wait_us\"", "\n  {\"wait_us\"").replace("{\"at_ms\"", "\n  {\"at_ms\"")
}
/// One step or event a line.
fn pretty(p: &Plan) -> String {
    let mut out = format!("{{\"options\":{},\n\"clients\":[", line(&p.options));
    for (i, c) in p.clients.iter().enumerate() {
        let head = line(&crate::plan::ClientPlan { steps: Vec::new(), ..c.clone() });
        let steps: Vec<String> = c.steps.iter().map(|s| format!("\n  {}", line(s))).collect();
        let comma = if i > 0 { "," } else { "" };
        out += &format!("{comma}\n {}{}]}}", head.trim_end_matches("]}"), steps.join(","));
    }
    let events: Vec<String> = p.events.iter().map(|e| format!("\n {}", line(e))).collect();
    out + &format!("],\n\"events\":[{}]}}", events.join(","))
}
fn read_plan(file: &str) -> Result<Any, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    serde_json::from_str(&text).map_err(|e| format!("{file}: {e}"))
}

/// A line on the standard output; whoever reads may have gone.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush()).ok();
}

/// Runs a plan; a panic becomes a violation, named by the invariant's id if its text has one.
fn judge(p: &Any) -> Report {
    let seed = p.seed();
    let said = std::sync::Arc::new(parking_lot::Mutex::new(String::new()));
    let hook = said.clone();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.to_string();
        let mut said = hook.lock();
        // The first panic is the cause; those that follow are its echo.
        if said.is_empty() {
            *said = text;
        }
    }));
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| p.run()));
    drop(std::panic::take_hook());
    done.unwrap_or_else(|_| {
        let text = said.lock().replace('\n', " ");
        let id = text.split("invariant broken: ").nth(1).and_then(|t| t.split(':').next());
        let violation = Violation::new(id.unwrap_or("panic"), text.clone());
        Report { seed, violations: vec![violation], ..Report::default() }
    })
}

fn run(kind: Kind, seeds: &[u64]) -> i32 {
    let mut code = 0;
    for seed in seeds {
        say(&format!("begin {seed}"));
        let report = judge(&kind.draw(*seed));
        code |= i32::from(!report.violations.is_empty());
        say(&line(&report));
    }
    code
}

fn play(p: &Any) -> i32 {
    let report = judge(p);
    say(&line(&report));
    i32::from(!report.violations.is_empty())
}

fn spawn(args: &[String]) -> Child {
    let me = std::env::current_exe().expect("a running program has a file");
    Command::new(me)
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program that runs can be started again")
}

/// Runs a child and takes its reports. A seed that it began and gave no verdict of is a verdict too: the process ended in it.
fn reports(args: &[String]) -> Vec<Report> {
    let mut child = spawn(args);
    let out = child.stdout.take().expect("it is a pipe");
    let (mut all, mut open) = (Vec::new(), None);
    // What else a child says may be no text at all; its verdicts come all the same.
    for l in BufReader::new(out).split(b'\n').map_while(Result::ok) {
        said(&String::from_utf8_lossy(&l), &mut all, &mut open);
    }
    let code = child.wait().ok().and_then(|s| s.code());
    if let Some(seed) = open {
        all.push(died(seed, code));
    }
    all
}

/// A line of a child.
fn said(l: &str, all: &mut Vec<Report>, open: &mut Option<u64>) {
    if let Some(seed) = l.strip_prefix("begin ") {
        *open = seed.parse().ok();
    } else if let Ok(r) = serde_json::from_str::<Report>(l) {
        all.push(r);
        *open = None;
    }
}

/// The verdict on a seed whose process ended without one.
fn died(seed: u64, code: Option<i32>) -> Report {
    let text = format!("the process ended with {code:?} (3: the run did not end in time)");
    Report { seed, violations: vec![Violation::new("process", text)], ..Report::default() }
}

/// The seed that is next after what a child that was asked for seeds from `from` on has given verdicts of: `n` seeds are `n` verdicts,
/// however and wherever children end.
fn next_seed(from: u64, all: &mut Vec<Report>) -> u64 {
    if all.is_empty() {
        all.push(died(from, None));
    }
    all.iter().map(|r| r.seed + 1).fold(from, u64::max)
}

fn twice(kind: Kind, seeds: &[u64]) -> i32 {
    let mut code = 0;
    for seed in seeds {
        let once = || reports(&kind.args(["run".into(), seed.to_string()])).pop();
        let (a, b) = (once(), once());
        let key = |r: &Option<Report>| {
            r.as_ref().map(|r| (r.hash, r.events, r.counts.clone(), r.violations.clone()))
        };
        if a.is_none() || key(&a) != key(&b) {
            say(&format!("seed {seed}: two processes differ (E-7): {:?} and {:?}", key(&a), key(&b)));
            code = 1;
        }
    }
    if code == 0 {
        say(&format!("{} seeds gave the same trace in two processes", seeds.len()));
    }
    code
}

/// Transitions that stand beside a page as text.
const TRANSITIONS: usize = 200;

/// Runs a plan in a process of its own with its trace and its logs, and draws what came; true if it fails.
fn draw(file: &str, out: &Path) -> Result<bool, String> {
    let plan = read_plan(file)?;
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let run = Command::new(me).args(["play", file]).env("FULMAR_TRACE", "1").env("FULMAR_LOGS", "1").output();
    let text = run.map_err(|e| e.to_string())?.stdout;
    let text = String::from_utf8_lossy(&text);
    // Machines get their numbers in the order in which they are made.
    let server = || vec!["server".to_owned()];
    let several = |n: usize| (0..n).map(|i| format!("s{i}")).collect();
    let (servers, ids): (Vec<String>, Vec<String>) = match &plan {
        Any::Core(p) => (server(), p.clients.iter().map(|c| format!("c{}", c.id)).collect()),
        Any::Jet(p) if p.options.servers > 1 => {
            (several(p.options.servers), p.actors.iter().map(|a| format!("a{}", a.id)).collect())
        }
        Any::Jet(p) => (server(), p.actors.iter().map(|a| format!("a{}", a.id)).collect()),
        Any::Mesh(p) => (several(p.options.servers), (0..p.walks.len()).map(|i| format!("c{i}")).collect()),
    };
    let names: Vec<String> = ["harness".to_owned()].into_iter().chain(servers).chain(ids).collect();
    let mut t = timeline::read(&text, &names);
    t.title = format!("Seed {} of {}", plan.seed(), file);
    let report = text.lines().rev().find_map(|l| serde_json::from_str::<Report>(l).ok());
    let died = || Violation::new("process", "the process ended without a verdict".into());
    t.violations = report.map_or_else(|| vec![died()], |r| r.violations);
    leave(&t, out)
}

fn draw_raft(file: &str, out: &Path) -> Result<bool, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    leave(&timeline::raft::read(&text), out)
}

/// Writes a page and its text; true if something was violated.
fn leave(t: &timeline::Timeline, out: &Path) -> Result<bool, String> {
    let e = |e: std::io::Error| format!("{}: {e}", out.display());
    write(out, &timeline::html(t)).map_err(e)?;
    write(&out.with_extension("txt"), &timeline::table(t, TRANSITIONS)).map_err(e)?;
    t.violations.iter().for_each(|v| say(&format!("{}: {}", v.id, v.text)));
    say(&format!("timeline: {}", out.display()));
    Ok(!t.violations.is_empty())
}

/// Shrinks a failing plan and leaves its folder.
fn bug(kind: Kind, plan: &Any, dir: &str) -> Result<i32, String> {
    let seed = plan.seed();
    let run = |p: &Any| -> Report {
        let file = std::env::temp_dir().join(format!("storm-{}-{seed}.json", std::process::id()));
        write(&file, &line(p)).ok();
        let all = reports(&["play".into(), file.to_string_lossy().into_owned()]);
        std::fs::remove_file(&file).ok();
        let crashed = || Violation::new("process", "the process ended without a verdict".into());
        all.into_iter().next().unwrap_or_else(|| Report {
            seed,
            violations: vec![crashed()],
            ..Report::default()
        })
    };
    let first = run(plan);
    let Some(id) = first.violations.first().map(|v| v.id.clone()) else {
        say(&format!("seed {seed} passes"));
        return Ok(0);
    };
    let small = plan.shrink(|p| run(p).violations.iter().any(|v| v.id == id));
    let last = run(&small);
    let dir = Path::new(dir).join(seed.to_string());
    let e = |e: std::io::Error| format!("{}: {e}", dir.display());
    std::fs::create_dir_all(&dir).map_err(e)?;
    write(&dir.join("options.json"), &plan.options()).map_err(e)?;
    write(&dir.join("plan.json"), &plan.pretty()).map_err(e)?;
    write(&dir.join("shrunk.json"), &small.pretty()).map_err(e)?;
    let list =
        |r: &Report| r.violations.iter().map(|v| format!("{}: {}\n", v.id, v.text)).collect::<String>();
    let text = format!(
        "seed {seed} breaks {id}\n\nIt, its shrunk plan and its timeline again: scripts/repro {}--shrink {seed}\nThe shrunk plan again: scripts/repro {}/shrunk.json\nplan.json, shrunk.json, timeline.html and timeline.txt (the last transitions) are beside this file.\n\n## As drawn ({} steps and events)\n{}\n## Shrunk ({})\n{}",
        kind.word().map(|w| format!("--{w} ")).unwrap_or_default(),
        dir.display(),
        plan.len(),
        list(&first),
        small.len(),
        list(&last)
    );
    write(&dir.join("README.md"), &text).map_err(e)?;
    let shrunk = dir.join("shrunk.json");
    if let Err(e) = draw(&shrunk.to_string_lossy(), &dir.join("timeline.html")) {
        say(&format!("no timeline: {e}"));
    }
    say(&text);
    Ok(1)
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text)
}

/// Sums over an ensemble.
#[derive(Default)]
struct Sum {
    seeds: u64,
    virtual_ms: u64,
    counts: BTreeMap<String, u64>,
    marks: BTreeMap<String, u64>,
    failed: Vec<(u64, Violation)>,
}

impl Sum {
    fn add(&mut self, r: Report) {
        self.seeds += 1;
        self.virtual_ms += r.virtual_ms;
        r.counts.into_iter().for_each(|(k, n)| *self.counts.entry(k).or_default() += n);
        r.marks.into_iter().for_each(|(k, n)| *self.marks.entry(k).or_default() += n);
        if let Some(v) = r.violations.into_iter().next() {
            say(&format!("seed {}: {}: {}", r.seed, v.id, v.text));
            self.failed.push((r.seed, v));
        }
    }
}

fn many(kind: Kind, n: &[u64], dir: &str) -> i32 {
    let [first, count, jobs, seconds] = n[..] else { return 2 };
    let begun = Instant::now();
    let limit = Duration::from_secs(if seconds == 0 { u64::MAX / 4 } else { seconds });
    let (tx, rx) = mpsc::channel::<(u64, Report)>();
    let next = std::sync::Arc::new(parking_lot::Mutex::new(first));
    let enough = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let end = first.saturating_add(count);
    let batch = if matches!(kind, Kind::Cluster | Kind::Rot) { BATCH_OF_CLUSTERS } else { BATCH };
    let workers: Vec<_> = (0..jobs.max(1))
        .map(|job| {
            let (tx, next, enough) = (tx.clone(), next.clone(), enough.clone());
            std::thread::spawn(move || {
                while begun.elapsed() < limit && !enough.load(std::sync::atomic::Ordering::Relaxed) {
                    let from = {
                        let mut n = next.lock();
                        let from = *n;
                        *n = (from + batch).min(end);
                        from
                    };
                    if from >= end {
                        return;
                    }
                    let mut from = from;
                    let to = (from + batch).min(end);
                    while from < to && !enough.load(std::sync::atomic::Ordering::Relaxed) {
                        let seeds = (from..to).map(|s| s.to_string());
                        let args = kind.args(std::iter::once("run".to_owned()).chain(seeds));
                        let mut all = reports(&args);
                        from = next_seed(from, &mut all);
                        for r in all {
                            if tx.send((job, r)).is_err() {
                                return;
                            }
                        }
                    }
                }
            })
        })
        .collect();
    drop(tx);
    let mut sum = Sum::default();
    for (_, r) in rx {
        sum.add(r);
        if dir == "-" && !sum.failed.is_empty() {
            enough.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    workers.into_iter().for_each(|w| drop(w.join()));
    let real = begun.elapsed().as_secs_f64();
    let table =
        |m: &BTreeMap<String, u64>| m.iter().map(|(k, v)| format!("  {k:<44} {v}\n")).collect::<String>();
    say(&format!(
        "{} seeds in {real:.1} s: {:.0} virtual seconds, {:.0} a second; {} failed",
        sum.seeds,
        sum.virtual_ms as f64 / 1000.0,
        sum.virtual_ms as f64 / 1000.0 / real,
        sum.failed.len()
    ));
    say(&format!("counts\n{}probes\n{}", table(&sum.counts), table(&sum.marks)));
    let mut missed = floors(kind, &sum);
    if sum.seeds < count && dir != "-" && begun.elapsed() < limit {
        missed.push(format!("{count} seeds were asked for, and {} got a verdict", sum.seeds));
    }
    missed.iter().for_each(|m| say(m));
    sum.failed.sort_by_key(|f| f.0);
    if let Some((seed, _)) = sum.failed.first().filter(|_| dir != "-") {
        let jet = kind.word().map(|w| format!("--{w} ")).unwrap_or_default();
        say(&format!("FAILED. To make it small, see it and replay it: scripts/repro {jet}--shrink {seed}"));
    }
    // One of each kind is enough to look at.
    let mut seen = Vec::new();
    for (seed, v) in &sum.failed {
        if !seen.contains(&v.id) && dir != "-" {
            seen.push(v.id.clone());
            if let Err(e) = bug(kind, &kind.draw(*seed), dir) {
                say(&format!("seed {seed} could not be shrunk: {e}"));
            }
        }
    }
    i32::from(!sum.failed.is_empty() || !missed.is_empty())
}

/// Seeds from which on the probes must have been hit.
const FLOOR_SEEDS: u64 = 1_000;
/// What a thousand seeds must have brought at least; a probe that is missed says that the storms have become tame.
const FLOORS: [(&str, u64); 16] = [
    ("publishes", 100_000),
    ("deliveries", 50_000),
    ("subscriptions", 10_000),
    ("connections", 3_000),
    ("garbage", 300),
    ("fault cut", 300),
    ("fault reset", 300),
    ("fault at byte", 300),
    ("fault client death", 100),
    ("fault server death", 30),
    ("fault lame duck", 30),
    ("fault pause", 50),
    ("fault reload", 100),
    ("a slow consumer is closed", 100),
    ("a write deadline passes", 50),
    ("an outbox overflows with answers", 5),
];

/// The same for storms of JetStream.
const JET_FLOORS: [(&str, u64); 16] = [
    ("publishes", 50_000),
    ("answers: stored", 30_000),
    ("answers: duplicate", 100),
    ("answers: refused", 100),
    ("key writes: stored", 2_000),
    ("key writes: wrong revision", 200),
    ("key reads", 2_000),
    ("deliveries", 20_000),
    ("redeliveries", 500),
    ("confirmed acknowledgements", 5_000),
    ("fault kill", 300),
    ("fault power", 300),
    ("fault restart", 100),
    ("memory: stored", 10_000),
    ("memory: streams made anew", 200),
    ("copies: stored", 10_000),
];

/// The same for storms over several servers.
const MESH_FLOORS: [(&str, u64); 9] = [
    ("publishes", 100_000),
    ("deliveries", 100_000),
    ("subscriptions", 10_000),
    ("fault cut between servers", 300),
    ("fault partition", 300),
    ("fault reset between servers", 300),
    ("fault at byte between servers", 300),
    ("fault kill", 300),
    ("fault pause", 100),
];

/// The same for JetStream over several servers.
const CLUSTER_FLOORS: [(&str, u64); 20] = [
    ("publishes", 50_000),
    ("answers: stored", 20_000),
    ("answers: duplicate", 100),
    ("key writes: stored", 1_000),
    ("deliveries", 20_000),
    ("confirmed acknowledgements", 3_000),
    ("fault partition", 150),
    ("fault cut between servers", 150),
    ("fault kill", 150),
    ("fault power", 150),
    ("change step-down", 150),
    ("changes: done", 100),
    ("fault full disk", 150),
    ("fault slow disk", 100),
    ("change join", 10),
    ("change peer remove", 10),
    ("memory: stored", 10_000),
    ("memory: consumers ended", 500),
    ("memory: looks", 6_000),
    ("copies: stored", 10_000),
];

/// Probes that were hit less often than they must.
fn floors(kind: Kind, sum: &Sum) -> Vec<String> {
    if sum.seeds < FLOOR_SEEDS {
        return Vec::new();
    }
    let hits = |name: &str| sum.counts.get(name).or_else(|| sum.marks.get(name)).copied().unwrap_or(0);
    let least = |floor: u64| floor * (sum.seeds / FLOOR_SEEDS);
    kind.floors()
        .iter()
        .filter(|(name, floor)| hits(name) < least(*floor))
        .map(|(name, floor)| {
            format!("probe {name:?} was hit {} times, {} is its floor", hits(name), least(*floor))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_gets_a_verdict_wherever_its_process_ends() {
        let report = |seed| line(&Report { seed, ..Report::default() });
        let heard = |lines: &[String]| {
            let (mut all, mut open) = (Vec::new(), None);
            lines.iter().for_each(|l| said(l, &mut all, &mut open));
            all.extend(open.map(|s| died(s, Some(3))));
            all
        };
        // In the middle of a seed.
        let mut all = heard(&["begin 7".into(), report(7), "begin 8".into()]);
        assert_eq!((next_seed(7, &mut all), all.len(), all[1].violations.len()), (9, 2, 1));
        // Between two seeds: the rest is still to be done.
        let mut all = heard(&["begin 7".into(), report(7)]);
        assert_eq!((next_seed(7, &mut all), all.len(), all[0].violations.len()), (8, 1, 0));
        // Before the first.
        let mut all = heard(&["no text \u{fffd}".into()]);
        assert_eq!((next_seed(7, &mut all), all.len(), all[0].violations.len()), (8, 1, 1));
    }
}
