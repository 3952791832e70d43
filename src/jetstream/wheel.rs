//! One clock for everything of JetStream that waits: redeliveries, expiring pulls, heartbeats, messages that grow old.
//!
//! Owns the order of the deadlines and one task that sleeps until the first of them; without deadlines there is no task and no
//! timer. Does not know what is due: it calls whoever asked.
//!
//! Each holder has at most one deadline here, its earliest; setting another replaces it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use env::Instant;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Deadlines are rounded up to this, so that neighbours are served by one waking.
const GRAIN_NS: u64 = 1_000_000;

/// Something that wants to be called when a moment has come.
pub trait Timed: Send + Sync {
    /// The moment has come. Must be short and must not block; it may set the next deadline.
    fn due(self: Arc<Self>, now: Instant);
}

/// The clock.
pub struct Wheel {
    inner: Mutex<Inner>,
    /// The first deadline has changed.
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    order: BTreeSet<(u64, u64)>,
    holders: BTreeMap<u64, (u64, Weak<dyn Timed>)>,
    running: bool,
}

impl Wheel {
    /// A clock without deadlines.
    pub fn new() -> Arc<Wheel> {
        Arc::new(Wheel { inner: Mutex::default(), changed: Notify::new() })
    }

    /// Sets, replaces or (`None`) takes away the deadline of the holder that is called `id`.
    pub fn set<T: Timed + 'static>(self: &Arc<Wheel>, id: u64, holder: &Arc<T>, deadline: Option<Instant>) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let at = deadline.and_then(|d| d.0.checked_next_multiple_of(GRAIN_NS));
        match (inner.holders.get_mut(&id), at) {
            (None, None) => return,
            (Some(h), Some(at)) => {
                if h.0 == at {
                    return;
                }
                inner.order.remove(&(h.0, id));
                h.0 = at;
                inner.order.insert((at, id));
            }
            (Some(h), None) => {
                inner.order.remove(&(h.0, id));
                inner.holders.remove(&id);
                return;
            }
            (None, Some(at)) => {
                let weak: Weak<T> = Arc::downgrade(holder);
                inner.holders.insert(id, (at, weak));
                inner.order.insert((at, id));
            }
        }
        if !inner.running {
            inner.running = true;
            env::spawn(Wheel::run(self.clone()));
        } else if inner.order.first().is_some_and(|f| f.1 == id) {
            self.changed.notify_one();
        }
    }

    /// How many wait.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.inner.lock().holders.len()
    }

    /// Takes one that is due.
    fn take_due(&self, now: Instant) -> Next {
        let mut inner = self.inner.lock();
        let Some(&(at, id)) = inner.order.first() else {
            inner.running = false;
            return Next::Nothing;
        };
        if at > now.0 {
            return Next::At(Instant(at));
        }
        inner.order.pop_first();
        match inner.holders.remove(&id).and_then(|h| h.1.upgrade()) {
            Some(h) => Next::Due(h),
            None => Next::Gone,
        }
    }

    async fn run(self: Arc<Wheel>) {
        loop {
            match self.take_due(env::now()) {
                Next::Nothing => return,
                Next::Gone => {}
                Next::Due(holder) => {
                    holder.due(env::now());
                    // Whoever asks again and again must not keep the worker from what he waits for.
                    tokio::task::yield_now().await;
                }
                Next::At(at) => {
                    env::select! {
                        _ = self.changed.notified() => {}
                        _ = env::sleep_until(at) => {}
                    }
                }
            }
        }
    }
}

enum Next {
    Nothing,
    Gone,
    At(Instant),
    Due(Arc<dyn Timed>),
}

/// The moment on the monotonic clock at which the wall clock will show `wall`, as far as one can tell now. A wall clock may
/// jump: whoever waits for it looks again after an hour at the latest.
pub fn moment_of(wall: i64, now_wall: i64, now: Instant) -> Instant {
    let wait = u64::try_from(wall.saturating_sub(now_wall)).unwrap_or(0).min(3_600_000_000_000);
    now + Duration::from_nanos(wait)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    struct Holder(u64, mpsc::UnboundedSender<(u64, Instant)>);
    impl Timed for Holder {
        fn due(self: Arc<Self>, now: Instant) {
            self.1.send((self.0, now)).ok();
        }
    }

    #[test]
    fn deadlines_come_in_order_and_not_early() {
        env::run(async {
            let wheel = Wheel::new();
            let (tx, mut rx) = mpsc::unbounded_channel();
            let start = env::now();
            let holders: Vec<_> = (0..4).map(|i| Arc::new(Holder(i, tx.clone()))).collect();
            let at = |ms| Some(start + Duration::from_millis(ms));
            wheel.set(0, &holders[0], at(40));
            wheel.set(1, &holders[1], at(5));
            wheel.set(2, &holders[2], at(20));
            wheel.set(3, &holders[3], at(10));
            wheel.set(3, &holders[3], None);
            wheel.set(0, &holders[0], at(12));
            assert_eq!(wheel.len(), 3);
            for (id, ms) in [(1, 5), (0, 12), (2, 20)] {
                let (got, when) = rx.recv().await.expect("a holder is called");
                assert_eq!(got, id);
                assert!(when.since(start) >= Duration::from_millis(ms));
            }
            assert!(wheel.len() == 0);
            // The task has ended or is about to: a new deadline is kept all the same.
            wheel.set(1, &holders[1], at(25));
            assert_eq!(rx.recv().await.expect("called again").0, 1);
        })
        .expect("a runtime");
    }
}
