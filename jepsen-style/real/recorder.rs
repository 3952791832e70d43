//! Keeps a run's history: one clock and one list for all processes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;

use crate::history::{Event, HARNESS, History, Op, Record};

/// The history under construction.
#[derive(Clone, Debug)]
pub struct Recorder {
    start: Instant,
    ids: Arc<AtomicU64>,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder { start: Instant::now(), ids: Arc::default(), records: Arc::default() }
    }
}

impl Recorder {
    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The time is read under the lock, so that the list is in the order of its times.
    fn push(&self, p: u64, id: u64, e: Event, op: Op) {
        let mut all = self.records.lock();
        let t = self.now();
        all.push(Record { t, p, id, e, op });
    }

    /// An operation begins; returns its number. Call it before anything of it leaves.
    pub fn invoke(&self, p: u64, op: Op) -> u64 {
        let id = self.ids.fetch_add(1, Ordering::Relaxed) + 1;
        self.push(p, id, Event::Invoke, op);
        id
    }

    /// An operation ends. Call it after its answer was read.
    pub fn end(&self, p: u64, id: u64, e: Event, op: Op) {
        self.push(p, id, e, op);
    }

    /// Something that is no operation.
    pub fn note(&self, p: u64, op: Op) {
        self.push(p, 0, Event::Note, op);
    }

    /// A phase begins.
    pub fn phase(&self, name: &str) {
        self.note(HARNESS, Op::Phase { name: name.to_owned() });
    }

    /// Operations that were completed with success.
    pub fn completed(&self) -> usize {
        self.records.lock().iter().filter(|r| r.e == Event::Ok).count()
    }

    /// What was recorded.
    pub fn history(&self) -> History {
        History { records: self.records.lock().clone() }
    }
}
