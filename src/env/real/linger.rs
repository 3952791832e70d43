//! A worker that looks for more for a moment before it sleeps.
//!
//! Waking a sleeping thread costs the kernel more than a small message does, and the one who waits for an answer waits for that
//! too. Where small things have followed each other quickly, the next one is near: then a task that yields and yields keeps the
//! worker from sleeping, and the runtime asks its poller without waiting. It gives up after [`LINGER_MAX`], and is not begun where
//! it has not paid: neither when little happens nor when much comes at a time.

use std::{cell::Cell, sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::{clock, task};
use crate::time::Instant;

/// How long a worker looks for more, and how quickly things must follow each other for that.
const LINGER_MAX: Duration = Duration::from_micros(30);
/// Quick successions in a row from which on it is believed that it goes on.
const BELIEF_MIN: u32 = 4;
/// Belief beyond which it does not grow.
const BELIEF_MAX: u32 = 16;
/// What one slow succession takes away.
const DOUBT: u32 = 4;

/// What a worker knows of its recent past.
struct Past {
    last: Cell<u64>,
    belief: Cell<u32>,
    /// Events so far.
    events: Cell<u64>,
    /// The task that keeps the worker awake: how it is begun, and whether it runs.
    begin: Cell<Option<Arc<Notify>>>,
    lingers: Cell<bool>,
}

thread_local! {
    static PAST: Past = const {
        Past {
            last: Cell::new(0),
            belief: Cell::new(0),
            events: Cell::new(0),
            begin: Cell::new(None),
            lingers: Cell::new(false),
        }
    };
}

/// Notes that something has been handled that came at `at`. `is_small`: it was so little that the time to wake up counts.
#[inline]
pub fn handled(at: Instant, is_small: bool) {
    PAST.with(|p| {
        if !is_small {
            return p.belief.set(0);
        }
        let quick = at.0.saturating_sub(p.last.replace(at.0)) < LINGER_MAX.as_nanos() as u64;
        let belief =
            if quick { BELIEF_MAX.min(p.belief.get() + 1) } else { p.belief.get().saturating_sub(DOUBT) };
        p.belief.set(belief);
        p.events.set(p.events.get().wrapping_add(1));
        if belief >= BELIEF_MIN && !p.lingers.get() {
            linger(p);
        }
    })
}

/// Begins to keep this worker awake.
#[cold]
fn linger(p: &Past) {
    let begin = p.begin.take().unwrap_or_else(|| {
        let begin = Arc::new(Notify::new());
        tokio::spawn(keep_awake(begin.clone()));
        begin
    });
    p.lingers.set(true);
    begin.notify_one();
    p.begin.set(Some(begin));
}

/// Keeps its worker awake for as long as things follow each other quickly.
async fn keep_awake(begin: Arc<Notify>) {
    loop {
        begin.notified().await;
        let (mut since, mut seen) = (clock::now(), PAST.with(|p| p.events.get()));
        loop {
            // Whoever else wants this core goes first: the journal's thread, or a client on a machine of one core.
            task::yield_core();
            // The runtime asks its poller without waiting before it comes back here.
            tokio::task::yield_now().await;
            let (now, events) = (clock::now(), PAST.with(|p| p.events.get()));
            if events != seen {
                (since, seen) = (now, events);
            } else if now.since(since) > LINGER_MAX {
                break;
            }
        }
        PAST.with(|p| p.lingers.set(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn believes() -> bool {
        PAST.with(|p| p.lingers.get())
    }

    #[test]
    fn a_worker_lingers_only_while_small_things_follow_quickly() {
        crate::run(async {
            let mut t = clock::now();
            let mut step = |us, small| {
                t += Duration::from_micros(us);
                handled(t, small);
            };
            for _ in 0..100 {
                step(100, true);
            }
            assert!(!believes(), "slow");
            for i in 0..100 {
                step(5, i % 3 > 0);
            }
            assert!(!believes(), "large ones in between");
            for _ in 0..BELIEF_MIN {
                step(5, true);
            }
            assert!(believes(), "small and quick");
            while believes() {
                tokio::task::yield_now().await;
            }
            // It has ended by itself, and is begun again by the next.
            step(5, true);
            assert!(believes());
            for _ in 0..BELIEF_MAX {
                step(1000, true);
            }
            while believes() {
                tokio::task::yield_now().await;
            }
            step(5, true);
            assert!(!believes(), "belief has gone");
        })
        .unwrap();
    }
}
