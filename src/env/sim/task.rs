//! Tasks. The workers of a machine are numbers only: all tasks of a run share one thread.

use std::{
    cell::Cell,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use super::world::World;
use crate::time::Instant;

/// A task's end, as a future. Dropping it does not stop the task; `abort` does.
pub use madsim::task::JoinHandle;

thread_local!(static INDEX: Cell<usize> = const { Cell::new(0) });

/// A future that runs as a task of one worker.
struct OnWorker<F> {
    index: usize,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for OnWorker<F> {
    type Output = F::Output;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let before = INDEX.replace(self.index);
        let r = self.future.as_mut().poll(cx);
        INDEX.set(before);
        r
    }
}

/// One worker, as a place to spawn on.
#[derive(Clone, Debug)]
pub struct Worker {
    index: usize,
}

impl Worker {
    /// Its number, from 0 (the main one).
    pub fn index(&self) -> usize {
        self.index
    }
    /// Runs `f` on this worker.
    pub fn spawn<F>(&self, f: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        madsim::task::spawn(OnWorker { index: self.index, future: Box::pin(f) })
    }
}

/// The workers of this machine.
#[derive(Debug)]
pub struct Workers {
    all: Vec<Worker>,
}

impl Workers {
    /// The main worker and `n - 1` more.
    pub fn start(n: usize) -> io::Result<Workers> {
        Ok(Workers { all: (0..n.max(1)).map(|index| Worker { index }).collect() })
    }
    /// How many cores this machine has.
    pub fn cores() -> usize {
        World::with_here(|m, _| m.cores).unwrap_or(1)
    }
    /// All workers, the main one first.
    pub fn all(&self) -> &[Worker] {
        &self.all
    }
}

/// The index of the worker that this code runs on.
pub fn current_worker() -> usize {
    INDEX.get()
}

/// Spawns on the current worker.
pub fn spawn<F>(f: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Worker { index: INDEX.get() }.spawn(f)
}

/// Workers neither sleep nor wake here.
pub fn handled(_at: Instant, _is_small: bool) {}

/// Whoever holds a lock here cannot get on while somebody else waits for it: all tasks share one thread.
pub(crate) fn yield_core() {
    unreachable!("a lock was held across an await, or taken twice")
}

/// Runs `main` in a world of its own with seed 0 and one machine, to its end.
pub fn run<F: Future>(main: F) -> io::Result<F::Output> {
    Ok(super::world::run(super::Config::default(), |_| main))
}
