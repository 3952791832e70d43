//! Tests of options as a whole: tables of configurations with what must come of them.

mod commands;
mod keys;
mod properties;
mod reloads;
mod rules;

use super::{Flags, Loaded, Options, load_text};
use conf::Memory;

/// Loads text called `f.conf` without flags.
pub(super) fn load(text: &str) -> Result<Loaded, Vec<String>> {
    load_text("f.conf", text, &Flags::default(), &Memory::default())
}

/// The options of text that must be good.
pub(super) fn options(text: &str) -> Options {
    match load(text) {
        Ok(loaded) => loaded.options,
        Err(errors) => panic!("{text}: {errors:?}"),
    }
}

/// The errors of text that must be bad, joined by newlines.
pub(super) fn errors(text: &str) -> String {
    match load(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(errors) => errors.join("\n"),
    }
}
