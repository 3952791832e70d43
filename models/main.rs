//! `models`: explores worlds by name, larger ones than the tests do.
//!
//! `models list`; `models run NAME…|bounded|large [--threads N] [--seconds N] [--generated N] [--breadth] [--accusations] [--bug NAME]`.
#![allow(clippy::print_stdout, reason = "the report of this tool is its output")]
#![allow(clippy::disallowed_methods, reason = "a tool that reads its arguments; not part of the server")]

use std::process::ExitCode;
use std::time::Duration;

use models::configs::{BOUNDED, LARGE, by_name};
use models::quorum_write::{Bug, Config};
use models::run::{Limits, explore};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|at| args.get(at + 1)).cloned();
    let number = |name: &str, default: u64| value(name).and_then(|v| v.parse().ok()).unwrap_or(default);
    if args.first().map(String::as_str) != Some("run") {
        println!(
            "models run NAME... | bounded | large [--threads N] [--seconds N] [--generated N] [--breadth] [--accusations] [--bug NAME]\n"
        );
        for config in BOUNDED.iter().chain(LARGE) {
            println!("{:14} {:>10}  {}", config.name, states(config), config.why);
        }
        println!("\nbugs: AckBeforeQuorum, {:?}", raft::Mutant::ALL);
        return ExitCode::SUCCESS;
    }
    let bug = match value("--bug").as_deref() {
        None => None,
        Some("AckBeforeQuorum") => Some(Bug::AckBeforeQuorum),
        Some(name) => match raft::Mutant::ALL.into_iter().find(|m| format!("{m:?}") == name) {
            Some(mutant) => Some(Bug::Core(mutant)),
            None => {
                println!("there is no bug {name}");
                return ExitCode::FAILURE;
            }
        },
    };
    let limits = Limits {
        threads: number("--threads", 2) as usize,
        time: Duration::from_secs(number("--seconds", 24 * 3600)),
        generated: number("--generated", u64::MAX) as usize,
        breadth: args.iter().any(|a| a == "--breadth"),
    };
    let mut worlds: Vec<Config> = Vec::new();
    for name in args[1..].iter().take_while(|a| !a.starts_with("--")) {
        match name.as_str() {
            "bounded" => worlds.extend(BOUNDED),
            "large" => worlds.extend(LARGE),
            name => match by_name(name) {
                Some(config) => worlds.push(config),
                None => {
                    println!("there is no world {name}; see models list");
                    return ExitCode::FAILURE;
                }
            },
        }
    }
    let mut well = !worlds.is_empty();
    for mut config in worlds {
        config.accusations = args.iter().any(|a| a == "--accusations");
        well &= run(config, bug, limits);
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn states(config: &Config) -> String {
    config.states.map_or_else(|| "unknown".to_owned(), |n| n.to_string())
}

/// Prints what a run found. Whether it was complete, as large as known, and without a failure.
fn run(config: Config, bug: Option<Bug>, limits: Limits) -> bool {
    let outcome = explore(config, bug, limits);
    println!(
        "{}: {} unique states of {}, {} generated, longest way {}, {:.2} s, {}",
        config.name,
        outcome.unique,
        states(&config),
        outcome.generated,
        outcome.depth,
        outcome.took.as_secs_f64(),
        if outcome.complete { "complete" } else { "NOT complete" }
    );
    for trace in &outcome.failures {
        println!("FAILED after {} actions: {}\n{}", trace.steps, trace.property, trace.text);
    }
    if outcome.complete {
        for name in &outcome.missing {
            println!("NEVER: {name}");
        }
    }
    let as_known = config.states.is_none_or(|n| n == outcome.unique);
    if outcome.complete && !as_known {
        println!(
            "the number of states changed: if the core did, look at why, and record it in models/configs.rs"
        );
    }
    outcome.complete && outcome.missing.is_empty() && as_known
}
