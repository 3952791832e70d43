//! `jepsen`: see `scripts/jepsen` and `scripts/scoreboard`.
fn main() {}
