//! What the parts below the server say by `tracing` (damage that was found and what became of it, groups that cannot go on) as lines of its log.
//!
//! A process has one listener: the server that serves it, not those of tests.

use std::{
    fmt::{Debug, Write},
    sync::Arc,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::Interest,
};

use crate::Log;

/// Writes events, knows no spans.
struct Heard(Arc<Log>);

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing into a string does not fail.
        match field.name() {
            "message" if self.0.is_empty() => write!(self.0, "{value:?}").ok(),
            "message" => {
                self.0 = format!("{value:?}{}", self.0);
                None
            }
            name => write!(self.0, ", {name} {value:?}").ok(),
        };
    }
}

impl Subscriber for Heard {
    fn enabled(&self, m: &Metadata<'_>) -> bool {
        *m.level() <= if self.0.debugs() { Level::DEBUG } else { Level::INFO }
    }
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // Whether debug lines are wanted changes with a reload.
        Interest::sometimes()
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, e: &Event<'_>) {
        let mut text = Text::default();
        e.record(&mut text);
        let text = format_args!("JetStream: {}", text.0);
        match *e.metadata().level() {
            Level::ERROR => self.0.error(text),
            Level::WARN => self.0.warn(text),
            Level::INFO => self.0.info(text),
            _ => self.0.debug(text),
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Writes it into this log from now on. The first listener of a process stays.
pub fn hear(log: &Arc<Log>) {
    tracing::subscriber::set_global_default(Heard(log.clone())).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::LogOptions;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the log is a file of the test")]
    fn what_is_said_below_stands_in_the_log() {
        let file = std::env::temp_dir().join(format!("fulmar-heard-{}", std::process::id()));
        let options = LogOptions { file: Some(file.to_string_lossy().into_owned()), ..LogOptions::default() };
        let log = Arc::new(Log::open(&options).unwrap());
        tracing::subscriber::with_default(Heard(log), || {
            tracing::error!(group = 7, "entries {}..={} are damaged", 3, 4);
            tracing::debug!("of no interest");
        });
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).ok();
        assert!(text.ends_with("[ERR] JetStream: entries 3..=4 are damaged, group 7\n"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
