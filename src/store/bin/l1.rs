//! Runs level-1 plans: `l1 [--seed S] [--seeds N] [--ops N] [--class crash|errors|reads|rot|lies|all] [--mutants]`.
//!
//! Prints what was done, or the first plan that fails, shrunk, with the command that replays it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use store::{
    Mutant,
    l1::{Class, DISK_OPS_MIN, FAULTS_MIN, Outcome, Plan, run, shrink},
};

struct Args {
    seed: u64,
    seeds: u64,
    ops: usize,
    class: Option<Class>,
    mutants: bool,
}

fn args() -> Result<Args, String> {
    let mut a = Args { seed: 0, seeds: 1000, ops: 60, class: None, mutants: false };
    let mut it = env::process::args().into_iter();
    while let Some(name) = it.next() {
        let mut value = || it.next().ok_or(format!("{name} needs a value"));
        let number = |v: String| v.parse::<u64>().map_err(|e| format!("{v}: {e}"));
        match name.as_str() {
            "--seed" => a.seed = number(value()?)?,
            "--seeds" => a.seeds = number(value()?)?,
            "--ops" => a.ops = number(value()?)? as usize,
            "--mutants" => a.mutants = true,
            "--class" => {
                a.class = match value()?.as_str() {
                    "crash" => Some(Class::Crash),
                    "errors" => Some(Class::Errors),
                    "reads" => Some(Class::Reads),
                    "rot" => Some(Class::Rot),
                    "lies" => Some(Class::Lies),
                    "all" => None,
                    other => return Err(format!("no class {other}")),
                }
            }
            other => return Err(format!("no option {other}")),
        }
    }
    Ok(a)
}

fn plan(a: &Args, seed: u64) -> Plan {
    match a.class {
        Some(class) => Plan::random(seed, a.ops, class),
        None => Plan::mixed(seed, a.ops),
    }
}

fn add(t: &mut Outcome, o: &Outcome) {
    t.disk_ops += o.disk_ops;
    t.restarts += o.restarts;
    t.acked += o.acked;
    t.reads += o.reads;
    t.damaged += o.damaged;
    t.refused += o.refused;
    t.flushes += o.flushes;
    t.faults += o.faults;
}

fn mutants(a: &Args) -> ExitCode {
    let mut missed = 0;
    for m in Mutant::ALL {
        let found = (a.seed..a.seed + a.seeds).find_map(|seed| {
            let plan = Plan { mutant: Some(m), ..plan(a, seed) };
            run(&plan).err().map(|e| (seed - a.seed + 1, e))
        });
        match found {
            Some((n, e)) => {
                println!("{m:?}: found after {n} plans: {}", e.lines().next().unwrap_or_default())
            }
            None => {
                println!("{m:?}: NOT FOUND in {} plans", a.seeds);
                missed += 1;
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let a = match args() {
        Ok(a) => a,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::FAILURE;
        }
    };
    std::panic::set_hook(Box::new(|_| {}));
    if a.mutants {
        return mutants(&a);
    }
    let (began, mut total) = (env::now(), Outcome::default());
    let (mut seed, mut counted) = (a.seed, 0);
    // A single plan is run again whatever it does; of many, those in which too little happens do not count.
    while counted < a.seeds {
        let plan = plan(&a, seed);
        match run(&plan) {
            Ok(o) => {
                add(&mut total, &o);
                counted += u64::from(a.seeds == 1 || o.counts());
                seed += 1;
            }
            Err(e) => {
                println!("seed {seed} fails: {e}");
                let (small, why) = shrink(&plan);
                println!("shrunk to {} steps: {why}\n{small:?}", small.ops.len());
                println!("replay: scripts/sim-store --seed {seed} --seeds 1 --ops {}", a.ops);
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{counted} plans of {} steps with at least {DISK_OPS_MIN} disk operations and {FAULTS_MIN} faults each, of {} drawn \
         (seeds {} to {}), in {:?}: {total:?}",
        a.ops,
        seed - a.seed,
        a.seed,
        seed - 1,
        began.elapsed()
    );
    ExitCode::SUCCESS
}
