//! Long runs of the level-0 simulator: `l0 --seeds N --seed S` runs N seeds from S on; with `--seeds 1` the last
//! transitions are printed. With the feature `mutants`, `--mutant Name` plants a bug.
#![allow(clippy::print_stdout, reason = "the report of this tool is its output")]
#![allow(
    clippy::disallowed_methods,
    reason = "a tool that measures real time and reads its arguments; not part of the server"
)]

use std::time::Instant;

#[path = "../l0/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod l0;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|at| args.get(at + 1)).cloned();
    let number = |name: &str, default: u64| value(name).and_then(|v| v.parse().ok()).unwrap_or(default);
    let (first, count) = (number("--seed", 1), number("--seeds", 1000));
    let quiet = args.iter().any(|a| a == "--quiet");
    #[cfg(feature = "mutants")]
    let mutant =
        value("--mutant").and_then(|name| raft::Mutant::ALL.into_iter().find(|m| format!("{m:?}") == name));
    let plant = |_core: &mut raft::Core| {
        #[cfg(feature = "mutants")]
        _core.plant(mutant);
    };
    let begin = Instant::now();
    let mut stats = l0::Stats::default();
    for seed in first..first + count {
        #[cfg(feature = "mutants")]
        std::panic::set_hook(Box::new(|_| {}));
        match l0::run(seed, false, &plant) {
            Ok(run) => stats.add(&run),
            Err(failure) => {
                println!(
                    "seed {seed}: {} at {} ms: {}",
                    failure.violation.id,
                    failure.at_ns / 1_000_000,
                    failure.violation.text
                );
                println!("{:?}", l0::Plan::of(seed));
                if quiet {
                    return std::process::ExitCode::FAILURE;
                }
                if let Err(again) = l0::run(seed, true, &plant) {
                    for line in &again.trace {
                        println!("{line}");
                    }
                }
                println!("replay: cargo run --release -p raft --bin l0 -- --seeds 1 --seed {seed}");
                return std::process::ExitCode::FAILURE;
            }
        }
    }
    let real = begin.elapsed().as_secs_f64();
    println!("seeds {first}..{}: all invariants held", first + count);
    println!(
        "elections {} ({:.0} a minute), steps {} ({:.0} a second), simulated {:.0} s ({:.0} per real second)",
        stats.elections,
        stats.elections as f64 * 60.0 / real,
        stats.steps,
        stats.steps as f64 / real,
        stats.sim_ns as f64 / 1e9,
        stats.sim_ns as f64 / 1e9 / real
    );
    println!(
        "committed {}, reads by lease {} by round {}, faults {}, memberships {}, installs {}, patches {}",
        stats.committed,
        stats.reads.0,
        stats.reads.1,
        stats.faults,
        stats.changes,
        stats.installs,
        stats.patches
    );
    std::process::ExitCode::SUCCESS
}
