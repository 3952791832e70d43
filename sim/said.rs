//! Shows what the server's parts say by `tracing`, between the machines' log lines. Only with `FULMAR_LOGS`: a run that shows nothing listens to nothing.

#![allow(clippy::print_stdout)] // As the log lines of machines.

use std::fmt::{Debug, Write};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// Prints events, knows no spans.
struct Said;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing into a string does not fail.
        match field.name() {
            "message" => write!(self.0, " {value:?}").ok(),
            name => write!(self.0, " {name}={value:?}").ok(),
        };
    }
}

impl Subscriber for Said {
    fn enabled(&self, m: &Metadata<'_>) -> bool {
        *m.level() <= Level::DEBUG && !m.target().starts_with("madsim")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, e: &Event<'_>) {
        let mut text = Text(String::new());
        e.record(&mut text);
        println!("{} {}{}", e.metadata().level(), e.metadata().target(), text.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Shows it from now on, if the environment asks for logs.
pub fn show() {
    if crate::real_var("FULMAR_LOGS").is_some() {
        // A second time in one process: it is shown already.
        tracing::subscriber::set_global_default(Said).ok();
    }
}
