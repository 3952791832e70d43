//! A place for work that keeps a processor busy for long (bcrypt: tens of milliseconds), so that no connection waits for it
//! but the one that needs it.
//!
//! Invariant L-10: at most [`JOBS_MAX`] jobs wait; further ones are refused. They run one after another, so that a storm of
//! logins takes one core and not all of them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use env::Workers;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Jobs that may wait or run.
const JOBS_MAX: usize = 1024;

/// The place. Its thread starts with the first job.
#[derive(Default)]
pub struct Cpu {
    workers: Mutex<Option<Workers>>,
    jobs: Arc<AtomicUsize>,
}

impl Cpu {
    /// Runs `f` elsewhere; await the result. Called on a worker. `None` if too many jobs wait, or there is no thread for
    /// them; then `f` has not run.
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Option<Job<T>> {
        let mut workers = self.workers.lock();
        if self.jobs.load(Relaxed) >= JOBS_MAX {
            return None;
        }
        if workers.is_none() {
            *workers = Workers::start(2).ok();
        }
        // The first worker is the one that called; the other is the thread.
        let place = workers.as_ref()?.all().get(1)?;
        self.jobs.fetch_add(1, Relaxed);
        let jobs = self.jobs.clone();
        let (done, end) = oneshot::channel();
        place.spawn(async move {
            // Nobody waits any more: the connection has gone.
            if !done.is_closed() {
                done.send(f()).ok();
            }
            jobs.fetch_sub(1, Relaxed);
        });
        Some(Job(end))
    }
}

/// A job's end. Dropped before it has begun, it never runs.
pub struct Job<T>(oneshot::Receiver<T>);

impl<T> Job<T> {
    /// Waits for it. `None` if its thread is gone.
    pub async fn wait(&mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l10_jobs_run_elsewhere_in_order_and_bounded() {
        env::run(async {
            let cpu = Cpu::default();
            let here = std::thread::current().id();
            let gate = Arc::new(Mutex::new(()));
            let held = gate.lock();
            let first = gate.clone();
            let mut blocker = cpu.run(move || drop(first.lock())).unwrap();
            let order = Arc::new(AtomicUsize::new(0));
            let mut later = Vec::new();
            for i in 0..JOBS_MAX - 1 {
                let order = order.clone();
                let job = cpu.run(move || {
                    assert_eq!(order.fetch_add(1, Relaxed), i);
                    std::thread::current().id()
                });
                later.push(job.unwrap());
            }
            assert!(cpu.run(|| ()).is_none());
            drop(held);
            for j in &mut later {
                assert_ne!(j.wait().await, Some(here));
            }
            blocker.wait().await.unwrap();
            let mut last = cpu.run(|| 7);
            while last.is_none() {
                last = cpu.run(|| 7);
            }
            assert_eq!(last.unwrap().wait().await, Some(7));
        })
        .unwrap();
    }
}
