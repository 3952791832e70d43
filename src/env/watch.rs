//! A value that one side sets while others look at it and wait for a change of it.
//!
//! Owns the value and who waits. Does not keep earlier values: who looks late sees the last one only. What
//! `tokio::sync::watch` is, but for one thing: waiters wake in the order in which they began to wait, where tokio's are
//! spread by random draws from a counter of the whole process, so that a simulated run would depend on what ran before it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::*},
};

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// Set in the version when the sender is gone.
const CLOSED: u64 = 1;
/// What one change adds to the version.
const CHANGE: u64 = 2;

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    version: AtomicU64,
    changed: Notify,
}

/// The side that sets the value. When it is dropped, receivers see what was set last, and then [`Closed`].
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// A side that looks and waits.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// The value, locked while this lives: to be dropped before anything is awaited or set.
pub type Ref<'a, T> = RwLockReadGuard<'a, T>;

/// The sender is gone; the value will not change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A sender and its first receiver, which has seen `value`.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// A sender without receivers.
    pub fn new(value: T) -> Sender<T> {
        let shared = Shared { value: RwLock::new(value), version: AtomicU64::new(0), changed: Notify::new() };
        Sender(Arc::new(shared))
    }
    /// A receiver that has seen what is set now.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { seen: self.0.version.load(Acquire) & !CLOSED, shared: self.0.clone() }
    }
    /// What is set.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.0.value.read()
    }
    /// Sets the value; the one before.
    pub fn send_replace(&self, value: T) -> T {
        let mut before = value;
        self.send_modify(|v| std::mem::swap(v, &mut before));
        before
    }
    /// Changes the value in its place.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        {
            let mut value = self.0.value.write();
            change(&mut value);
            // Under the lock, so that who reads a value also reads its version or an earlier one.
            self.0.version.fetch_add(CHANGE, Release);
        }
        self.0.changed.notify_waiters();
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Sender<T> {
        Sender::new(T::default())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.version.fetch_or(CLOSED, Release);
        self.0.changed.notify_waiters();
    }
}

impl<T> Receiver<T> {
    /// What is set; a change that is seen by this still counts as one for [`Receiver::changed`].
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.value.read()
    }
    /// What is set, and that it has been seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.value.read();
        self.seen = self.shared.version.load(Acquire) & !CLOSED;
        value
    }
    /// Waits for a value that has not been seen, and counts it as seen.
    ///
    /// # Errors
    /// The sender is gone, and what it set last has been seen.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        changed(&self.shared, &mut self.seen).await
    }
    /// Waits for a value that fits, which may be the one that is set; it. One that was set last is found behind its
    /// sender's end too.
    ///
    /// # Errors
    /// The sender is gone, and what it set last does not fit.
    pub async fn wait_for(&mut self, fits: impl Fn(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        let Receiver { shared, seen } = self;
        loop {
            {
                let value = shared.value.read();
                *seen = shared.version.load(Acquire) & !CLOSED;
                if fits(&value) {
                    return Ok(value);
                }
            }
            changed(shared, seen).await?;
        }
    }
}

async fn changed<T>(shared: &Shared<T>, seen: &mut u64) -> Result<(), Closed> {
    loop {
        // Made before the look: it hears of every change after this line.
        let notified = shared.changed.notified();
        let version = shared.version.load(Acquire);
        if version & !CLOSED != *seen {
            *seen = version & !CLOSED;
            return Ok(());
        }
        if version & CLOSED != 0 {
            return Err(Closed);
        }
        notified.await;
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn poll<F: Future>(f: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
        f.poll(&mut Context::from_waker(waker))
    }

    /// What it comes to without waiting.
    trait Now: Future + Sized {
        fn now_or_never(self) -> Option<Self::Output> {
            match poll(pin!(self), Waker::noop()) {
                Poll::Ready(r) => Some(r),
                Poll::Pending => None,
            }
        }
    }
    impl<F: Future> Now for F {}

    #[test]
    fn a_change_is_seen_once_and_the_last_one_only() {
        let (tx, mut rx) = channel(1);
        assert!(rx.changed().now_or_never().is_none(), "it has seen the first");
        tx.send_modify(|n| *n += 1);
        assert_eq!(tx.send_replace(7), 2);
        assert_eq!(rx.changed().now_or_never(), Some(Ok(())));
        assert_eq!(*rx.borrow(), 7);
        assert!(rx.changed().now_or_never().is_none());
        tx.send_replace(8);
        assert_eq!(*rx.borrow_and_update(), 8);
        assert!(rx.changed().now_or_never().is_none(), "looking at it counts as seeing it");
        assert_eq!(*tx.borrow(), 8);
    }

    #[test]
    fn a_receiver_outlives_its_sender() {
        let (tx, mut rx) = channel(1);
        let mut other = rx.clone();
        tx.send_replace(2);
        let mut late = tx.subscribe();
        drop(tx);
        assert_eq!(rx.changed().now_or_never(), Some(Ok(())));
        assert_eq!(rx.changed().now_or_never(), Some(Err(Closed)));
        assert_eq!(late.changed().now_or_never(), Some(Err(Closed)));
        assert_eq!(other.wait_for(|n| *n == 2).now_or_never().map(|r| r.map(|n| *n)), Some(Ok(2)));
        assert_eq!(other.wait_for(|n| *n == 3).now_or_never().map(|r| r.map(|n| *n)), Some(Err(Closed)));
    }

    #[test]
    fn who_waits_is_woken_by_a_change_and_by_the_end() {
        let (tx, mut rx) = channel(0);
        let mut waiting = pin!(rx.wait_for(|n| *n == 2));
        assert!(poll(waiting.as_mut(), Waker::noop()).is_pending());
        tx.send_replace(1);
        assert!(poll(waiting.as_mut(), Waker::noop()).is_pending());
        tx.send_replace(2);
        assert!(poll(waiting.as_mut(), Waker::noop()).is_ready());
        let mut last = tx.subscribe();
        let mut ending = pin!(last.changed());
        assert!(poll(ending.as_mut(), Waker::noop()).is_pending());
        drop(tx);
        assert_eq!(poll(ending.as_mut(), Waker::noop()), Poll::Ready(Err(Closed)));
    }

    /// E-7: with the waiters of tokio's watch this order is another one in most runs of this test.
    #[test]
    fn e7_waiters_wake_in_the_order_in_which_they_began_to_wait() {
        struct Note(usize);
        static WOKEN: parking_lot::Mutex<Vec<usize>> = parking_lot::Mutex::new(Vec::new());
        impl std::task::Wake for Note {
            fn wake(self: Arc<Self>) {
                WOKEN.lock().push(self.0);
            }
        }
        let tx = Sender::new(0);
        let mut all: Vec<_> = (0..20).map(|_| tx.subscribe()).collect();
        let mut waiting: Vec<_> = all.iter_mut().map(|rx| Box::pin(rx.changed())).collect();
        for (i, w) in waiting.iter_mut().enumerate() {
            let waker = Waker::from(Arc::new(Note(i)));
            assert!(poll(w.as_mut(), &waker).is_pending());
        }
        tx.send_replace(1);
        assert_eq!(*WOKEN.lock(), (0..20).collect::<Vec<_>>());
    }
}
