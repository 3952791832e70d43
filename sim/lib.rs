//! Whole-server simulation. Empty unless built with `cfg(madsim)`, as `cargo sim` and `scripts/sim` do.
#![cfg(madsim)]

use env::sim::Config;

/// The seed and options of a run: `FULMAR_SEED` in the environment replaces `seed`, `FULMAR_TRACE` prints the trace,
/// `FULMAR_LOGS` the machines' log lines.
pub fn config(seed: u64) -> Config {
    let var = |name: &str| real_var(name);
    Config {
        seed: var("FULMAR_SEED").and_then(|s| s.parse().ok()).unwrap_or(seed),
        print_trace: var("FULMAR_TRACE").is_some(),
        print_logs: var("FULMAR_LOGS").is_some(),
        ..Config::default()
    }
}

/// A variable of the harness's own environment, which is not that of the simulated processes.
pub fn real_var(name: &str) -> Option<String> {
    #[allow(clippy::disallowed_methods)]
    std::env::var(name).ok()
}
