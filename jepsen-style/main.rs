//! `jepsen`: runs scenarios against real servers. `scripts/jepsen` and `scripts/scoreboard` call it; see there.
#![allow(clippy::print_stderr, clippy::disallowed_methods)]

#[cfg(madsim)]
fn main() {
    eprintln!("jepsen drives real processes: build it without --cfg madsim");
    std::process::exit(2);
}

#[cfg(not(madsim))]
fn main() {
    std::process::exit(jepsen_style::command::main());
}
