//! Worker threads, each with a current-thread runtime. A task stays on the worker that it was spawned on.

use std::{cell::Cell, future::Future, io, thread};

use tokio::{runtime, sync::oneshot};

use super::{linger, sys};
use crate::time::Instant;

/// A task's end, as a future. Dropping it does not stop the task; [`JoinHandle::abort`] does.
pub use tokio::task::JoinHandle;

thread_local!(static INDEX: Cell<usize> = const { Cell::new(0) });

/// One worker thread, as a place to spawn on from anywhere.
#[derive(Clone, Debug)]
pub struct Worker {
    index: usize,
    handle: runtime::Handle,
}

impl Worker {
    /// Its number, from 0 (the main thread).
    pub fn index(&self) -> usize {
        self.index
    }
    /// Runs `f` on this worker.
    pub fn spawn<F>(&self, f: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(f)
    }
}

/// The workers of this process. Dropping it stops all but the main one.
#[derive(Debug)]
pub struct Workers {
    all: Vec<Worker>,
    stop: Vec<oneshot::Sender<()>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Workers {
    /// The main worker and `n - 1` more threads. Call it on the main worker.
    pub fn start(n: usize) -> io::Result<Workers> {
        let mut w = Workers {
            all: vec![Worker { index: 0, handle: runtime::Handle::current() }],
            stop: Vec::new(),
            threads: Vec::new(),
        };
        for index in 1..n.max(1) {
            let rt = runtime()?;
            let (tx, rx) = oneshot::channel();
            w.all.push(Worker { index, handle: rt.handle().clone() });
            w.stop.push(tx);
            w.threads.push(thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                INDEX.set(index);
                rt.block_on(async { rx.await.ok() });
                rt.shutdown_background();
            })?);
        }
        Ok(w)
    }
    /// How many cores this process may use.
    pub fn cores() -> usize {
        thread::available_parallelism().map_or(1, |n| n.get())
    }
    /// All workers, the main one first.
    pub fn all(&self) -> &[Worker] {
        &self.all
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.clear();
        for t in self.threads.drain(..) {
            // A worker that lets go of the last handle cannot wait for itself; it ends when this task does.
            if t.thread().id() != thread::current().id() {
                t.join().ok();
            }
        }
    }
}

/// The index of the worker that this code runs on.
#[inline]
pub fn current_worker() -> usize {
    INDEX.get()
}

/// Spawns on the current worker.
pub fn spawn<F>(f: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(f)
}

/// Tells the worker that what came at `at` has been handled, and whether that was little (see [`linger`]).
#[inline]
pub fn handled(at: Instant, is_small: bool) {
    linger::handled(at, is_small);
}

/// Lets others have the core.
pub(crate) fn yield_core() {
    thread::yield_now();
}

/// Runs `main` on this thread, as worker 0, to its end.
pub fn run<F: Future>(main: F) -> io::Result<F::Output> {
    let rt = runtime()?;
    let out = rt.block_on(main);
    rt.shutdown_background();
    Ok(out)
}

fn runtime() -> io::Result<runtime::Runtime> {
    sys::keep_memory();
    // The disk's blocking calls run on this pool; it grows only when they do.
    runtime::Builder::new_current_thread().enable_all().max_blocking_threads(32).build()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn the_last_handle_may_be_dropped_on_a_worker() {
        let (tx, rx) = mpsc::channel();
        run(async move {
            let workers = Arc::new(Workers::start(2).unwrap());
            let second = workers.all()[1].clone();
            let (send, ready) = oneshot::channel::<()>();
            second.spawn(async move {
                ready.await.ok();
                drop(workers);
                tx.send(()).ok();
            });
            // The task now holds the only handle.
            send.send(()).ok();
        })
        .unwrap();
        rx.recv_timeout(std::time::Duration::from_secs(10)).expect("the drop returns");
    }
}
