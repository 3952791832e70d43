//! `storm`: runs storms. `scripts/sim` and `scripts/repro` call it; see there.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

#[cfg(not(madsim))]
fn main() {
    eprintln!("storm is built with --cfg madsim: use scripts/sim");
    std::process::exit(2);
}

#[cfg(madsim)]
fn main() {
    std::process::exit(sim::command::main());
}
