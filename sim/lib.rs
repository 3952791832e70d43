//! Whole-server simulation. Empty unless built with `cfg(madsim)`, as `cargo sim` and `scripts/sim` do.
//!
//! A storm is `seed -> options -> plan -> run -> verdict`. [`options`] draws sizes, limits and fault classes, [`plan`]
//! makes them a list of steps and faults (data: printable, shrinkable, replayable), [`storm`] runs it against the real
//! server on simulated machines, [`history`] keeps what the clients did and saw, [`check`] judges it, [`shrink`] makes a
//! failing plan small, [`timeline`] draws a run. [`jet`] and [`mesh`] are storms of JetStream and of several servers, on a [`fleet`].
//! [`world`] is the configuration that all storms share and the reference model of who may see what.
#![cfg(madsim)]

pub mod check;
pub mod client;
pub mod command;
pub mod fleet;
pub mod history;
pub mod jet;
pub mod mesh;
pub mod options;
pub mod plan;
pub mod said;
pub mod shrink;
pub mod storm;
pub mod timeline;
pub mod wire;
pub mod world;

use env::sim::Config;

/// The seed and options of a run: `FULMAR_SEED` in the environment replaces `seed`, `FULMAR_TRACE` prints the trace,
/// `FULMAR_LOGS` the machines' log lines, with `FULMAR_LOGS=debug` those for debugging too.
pub fn config(seed: u64) -> Config {
    let var = |name: &str| real_var(name);
    Config {
        seed: var("FULMAR_SEED").and_then(|s| s.parse().ok()).unwrap_or(seed),
        print_trace: var("FULMAR_TRACE").is_some(),
        print_logs: var("FULMAR_LOGS").is_some(),
        // A busy loop is one after five minutes too, and a run on a machine that others work on is none after two.
        wall_limit: std::time::Duration::from_secs(300),
        ..Config::default()
    }
}

/// The line of a configuration that asks for the log's debug lines, if whoever runs it wants to see them.
pub fn debug_line() -> &'static str {
    if real_var("FULMAR_LOGS").as_deref() == Some("debug") { "debug: true\n" } else { "" }
}

/// A variable of the harness's own environment, which is not that of the simulated processes.
pub fn real_var(name: &str) -> Option<String> {
    #[allow(clippy::disallowed_methods)]
    std::env::var(name).ok()
}
