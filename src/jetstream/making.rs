//! What is being made, by name: of an account its streams, of a stream its consumers.
//!
//! A change is decided under a lock. A making then waits for the disk without it, so that others are decided meanwhile and one sync serves
//! all; whoever decides looks here for what he cannot see yet.
//!
//! - J-27: two makings of one name never overlap.

use std::collections::BTreeMap;

use env::watch;
use parking_lot::Mutex;
use tokio::sync::MutexGuard;

/// See the module. `T` is what others need to know of what is being made.
#[derive(Debug)]
pub(crate) struct Making<T = ()> {
    /// Held while a change is decided, and until it is done unless it is a making.
    deciding: tokio::sync::Mutex<()>,
    names: Mutex<BTreeMap<String, Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    what: T,
    done: watch::Sender<()>,
}

impl<T> Default for Making<T> {
    fn default() -> Making<T> {
        Making { deciding: Default::default(), names: Mutex::default() }
    }
}

/// Something is being made as long as this lives.
#[derive(Debug)]
pub(crate) struct Made<'a, T> {
    all: &'a Making<T>,
    name: String,
}

impl<T> Making<T> {
    /// The right to decide on what has this name, once nobody makes it any more. No name is everybody's: what is made under others goes on.
    pub(crate) async fn turn(&self, name: &str) -> MutexGuard<'_, ()> {
        loop {
            let one = self.deciding.lock().await;
            let Some(done) = self.wait(name) else { return one };
            drop(one);
            done.await;
        }
    }
    /// Says that something of this name is being made. With the right that [`Making::turn`] gave.
    pub(crate) fn begin(&self, name: &str, what: T) -> Made<'_, T> {
        let before = self.names.lock().insert(name.to_owned(), Entry { what, done: watch::Sender::new(()) });
        assert!(before.is_none(), "J-27: two makings of one name never overlap");
        Made { all: self, name: name.to_owned() }
    }
    /// What returns when nobody makes something of this name any more; `None` if nobody does.
    pub(crate) fn wait(&self, name: &str) -> Option<impl Future<Output = ()> + Send + use<T>> {
        let mut done = self.names.lock().get(name)?.done.subscribe();
        // Its sender goes with the making.
        Some(async move { while done.changed().await.is_ok() {} })
    }
    /// Looks at all that is being made.
    pub(crate) fn each<R>(&self, f: impl FnOnce(&mut dyn Iterator<Item = &T>) -> R) -> R {
        f(&mut self.names.lock().values().map(|e| &e.what))
    }
}

impl<T> Drop for Made<'_, T> {
    fn drop(&mut self) {
        let mut names = self.all.names.lock();
        names.remove(&self.name);
        if names.is_empty() {
            // A tree keeps its last node, with room for eleven, and each stream has one of these.
            *names = BTreeMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[test]
    fn j_27_who_comes_second_waits_for_the_first() {
        let m: Making<u8> = Making::default();
        assert!(m.wait("a").is_none());
        let made = m.begin("a", 7);
        assert!(m.wait("b").is_none());
        assert_eq!(m.each(|all| all.copied().collect::<Vec<_>>()), [7]);
        let mut first = pin!(m.wait("a").expect("it is being made"));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(first.as_mut().poll(&mut cx), Poll::Pending);
        drop(made);
        assert_eq!(first.poll(&mut cx), Poll::Ready(()));
        assert!(m.wait("a").is_none() && m.each(|all| all.count()) == 0);
    }

    #[test]
    #[should_panic(expected = "J-27")]
    fn j_27_nobody_begins_what_is_begun() {
        let m: Making = Making::default();
        let _first = m.begin("a", ());
        let _second = m.begin("a", ());
    }
}
