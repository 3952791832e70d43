//! What accounts and the server may store, as publishes are checked against it.
//!
//! Owns the counts of stored bytes, per account and over all, in files and in memory. They are kept by what is applied, so that a publish costs a look at
//! four numbers. Does not own what streams set aside: that is checked where streams are made.
//!
//! As in nats-server an account never goes beyond its limit, and the server is full when it has reached its own. In a cluster each node counts what it holds
//! itself, so that nothing is refused too early.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering::*},
};

use stream::{config::Storage, errors, publish::Publish};

use crate::AccountLimits;

/// Bytes stored and allowed, in one kind of storage.
#[derive(Debug)]
struct Room {
    used: AtomicU64,
    /// Negative is unlimited.
    max: AtomicI64,
}

impl Default for Room {
    fn default() -> Room {
        Room { used: AtomicU64::new(0), max: AtomicI64::new(-1) }
    }
}

impl Room {
    fn over(&self, more: u64) -> bool {
        let max = self.max.load(Relaxed);
        max >= 0 && self.used.load(Relaxed).saturating_add(more) > max.unsigned_abs()
    }
}

/// Of an account, or of the server.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    memory: Room,
    file: Room,
}

impl Quota {
    fn of(&self, memory: bool) -> &Room {
        if memory { &self.memory } else { &self.file }
    }
    /// Sets what an account may store.
    pub(crate) fn limit(&self, l: Option<&AccountLimits>) {
        self.set(l.map_or(-1, |l| l.max_memory), l.map_or(-1, |l| l.max_store));
    }
    /// Sets both; negative is unlimited.
    pub(crate) fn set(&self, memory: i64, file: i64) {
        self.memory.max.store(memory, Relaxed);
        self.file.max.store(file, Relaxed);
    }
}

/// A stream's part of both.
#[derive(Debug)]
pub(crate) struct Share {
    account: Arc<Quota>,
    server: Arc<Quota>,
    memory: bool,
    /// Bytes that were counted.
    noted: AtomicU64,
}

impl Share {
    pub(crate) fn new(account: Arc<Quota>, server: Arc<Quota>, memory: bool) -> Share {
        Share { account, server, memory, noted: AtomicU64::new(0) }
    }
    /// The stream has so many bytes now. Under its lock.
    #[inline]
    pub(crate) fn note(&self, bytes: u64) {
        let before = self.noted.swap(bytes, Relaxed);
        if before == bytes {
            return;
        }
        for quota in [&self.account, &self.server] {
            // Both are exact, so that what wraps here comes back.
            quota.of(self.memory).used.fetch_add(bytes.wrapping_sub(before), Relaxed);
        }
    }
    /// Why a message cannot be stored, if so; `waiting` bytes of the stream are on their way.
    #[inline]
    pub(crate) fn refuses(&self, p: &Publish<'_>, waiting: usize) -> Option<errors::Known> {
        let account = self.account.of(self.memory);
        if account.max.load(Relaxed) >= 0 {
            let storage = if self.memory { Storage::Memory } else { Storage::File };
            let size = stream::memory::size(storage, p.subject.len(), p.headers.len(), p.payload.len());
            if account.over(size.saturating_add(waiting as u64)) {
                return Some(errors::ACCOUNT_RESOURCES_EXCEEDED);
            }
        }
        self.server.of(self.memory).over(waiting as u64).then_some(errors::INSUFFICIENT_RESOURCES)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.note(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_and_given_back() {
        let (account, server) = (Arc::new(Quota::default()), Arc::new(Quota::default()));
        account.set(100, 1000);
        server.set(-1, 1500);
        let one = Share::new(account.clone(), server.clone(), false);
        let two = Share::new(Arc::default(), server.clone(), false);
        let p = Publish { subject: b"a", payload: &[0; 69], ..Publish::default() };
        one.note(900);
        assert_eq!(one.refuses(&p, 0), None, "100 more are the last");
        assert_eq!(one.refuses(&p, 1), Some(errors::ACCOUNT_RESOURCES_EXCEEDED));
        two.note(601);
        assert_eq!(two.refuses(&p, 0), Some(errors::INSUFFICIENT_RESOURCES));
        assert_eq!(one.refuses(&p, 0), Some(errors::INSUFFICIENT_RESOURCES));
        one.note(800);
        assert_eq!(two.refuses(&p, 0), None);
        drop(one);
        assert_eq!((account.file.used.load(Relaxed), server.file.used.load(Relaxed)), (0, 601));
        let memory = Share::new(account, server, true);
        memory.note(50);
        assert_eq!(memory.refuses(&p, 0), Some(errors::ACCOUNT_RESOURCES_EXCEEDED));
        let small = Publish { payload: &p.payload[..33], ..p };
        assert_eq!(memory.refuses(&small, 0), None);
    }
}
