//! Keeps the trace of the run on this thread.

use std::cell::RefCell;

use crate::rng::Fnv;

/// What a run's trace came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace {
    /// FNV-1a over all events.
    pub hash: u64,
    /// Events.
    pub events: u64,
}

struct Recorder {
    hash: Fnv,
    events: u64,
    print: bool,
}

thread_local!(static RECORDER: RefCell<Recorder> =
    const { RefCell::new(Recorder { hash: Fnv::new(), events: 0, print: false }) });

/// Begins a new trace; with `print` each event is a line on the standard output.
pub fn begin(print: bool) {
    RECORDER.set(Recorder { hash: Fnv::new(), events: 0, print });
}

/// The trace so far.
pub fn trace() -> Trace {
    RECORDER.with_borrow(|r| Trace { hash: r.hash.0, events: r.events })
}

pub fn event(what: &'static str, args: &[u64]) {
    let Some(t) = super::world::elapsed() else { return };
    RECORDER.with_borrow_mut(|r| {
        r.events += 1;
        r.hash.write(&t.to_le_bytes());
        r.hash.write(what.as_bytes());
        args.iter().for_each(|a| r.hash.write(&a.to_le_bytes()));
        if r.print {
            #[allow(clippy::print_stdout)]
            {
                println!("trace {t:>15} {what:<16} {args:?}");
            }
        }
    })
}
