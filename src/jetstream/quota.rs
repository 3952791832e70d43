//! What accounts and the server may store, as publishes are checked against it.
//!
//! Owns the counts of stored bytes, per account and over all, in files and in memory. They are kept by what is applied, so that a publish costs a look at
//! four numbers. Does not own what streams set aside: that is checked where streams are made.
//!
//! As in nats-server an account never goes beyond its limit, and the server is full when it has reached its own. In a cluster an account's limit is one for
//! all nodes, each replica counts, and what the others hold is known as of some time ago (`cluster/usage.rs`): what comes meanwhile may go beyond it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::*},
};

use stream::{config::Storage, errors, publish::Publish};

use crate::AccountLimits;

/// Bytes stored and allowed, in one kind of storage.
#[derive(Debug)]
struct Room {
    used: AtomicU64,
    /// On other nodes, as far as is known.
    elsewhere: AtomicU64,
    /// Negative is unlimited.
    max: AtomicI64,
}

impl Default for Room {
    fn default() -> Room {
        Room { used: AtomicU64::new(0), elsewhere: AtomicU64::new(0), max: AtomicI64::new(-1) }
    }
}

impl Room {
    fn in_all(&self) -> u64 {
        self.used.load(Relaxed).saturating_add(self.elsewhere.load(Relaxed))
    }
    fn over(&self, more: u64) -> bool {
        let max = self.max.load(Relaxed);
        max >= 0 && self.in_all().saturating_add(more) > max.unsigned_abs()
    }
    fn is_limited(&self) -> bool {
        self.max.load(Relaxed) >= 0
    }
}

/// Of an account, or of the server.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    memory: Room,
    file: Room,
    /// Batches that are open, atomic and fast.
    batches: AtomicUsize,
    /// So many may be; 0 is unlimited.
    batches_max: AtomicUsize,
    /// Somebody has published since this was last taken back.
    looked: AtomicBool,
    /// Others are being asked what they hold.
    asking: AtomicBool,
}

impl Quota {
    /// Notes a publish. True if the others are to be asked what they hold, from now on and by whoever is told so.
    #[inline]
    pub(crate) fn looks(&self) -> bool {
        if !self.memory.is_limited() && !self.file.is_limited() {
            return false;
        }
        self.looked.store(true, Relaxed);
        !self.asking.load(Relaxed) && !self.asking.swap(true, AcqRel)
    }
    /// Whether somebody has published since this was asked before.
    pub(crate) fn takes_look(&self) -> bool {
        self.looked.swap(false, Relaxed)
    }
    /// What the others hold.
    pub(crate) fn heard(&self, memory: u64, file: u64) {
        self.memory.elsewhere.store(memory, Relaxed);
        self.file.elsewhere.store(file, Relaxed);
    }
    /// Nobody is asked any more, and what was heard is not held against anybody.
    pub(crate) fn forgets(&self) {
        self.heard(0, 0);
        self.asking.store(false, Release);
    }
    /// Whether half of what is allowed is used.
    pub(crate) fn is_filling(&self) -> bool {
        [&self.memory, &self.file].into_iter().any(|r| r.is_limited() && r.over(r.in_all()))
    }

    fn of(&self, memory: bool) -> &Room {
        if memory { &self.memory } else { &self.file }
    }
    /// Sets what an account may store.
    pub(crate) fn limit(&self, l: Option<&AccountLimits>) {
        self.set(l.map_or(-1, |l| l.max_memory), l.map_or(-1, |l| l.max_store));
    }
    /// Sets how many batches may be open; 0 is unlimited.
    pub(crate) fn limit_batches(&self, max: usize) {
        self.batches_max.store(max, Relaxed);
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
    /// Open batches that were counted.
    open: AtomicUsize,
}

impl Share {
    pub(crate) fn new(account: Arc<Quota>, server: Arc<Quota>, memory: bool) -> Share {
        Share { account, server, memory, noted: AtomicU64::new(0), open: AtomicUsize::new(0) }
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
    /// The stream has so many open batches now. Under its lock.
    #[inline]
    pub(crate) fn note_batches(&self, open: usize) {
        let before = self.open.load(Relaxed);
        if before != open {
            self.open.store(open, Relaxed);
            self.server.batches.fetch_add(open.wrapping_sub(before), Relaxed);
        }
    }
    /// Whether the server has as many open batches as it may have.
    #[inline]
    pub(crate) fn no_room_for_batches(&self) -> bool {
        let max = self.server.batches_max.load(Relaxed);
        max > 0 && self.server.batches.load(Relaxed) >= max
    }
    /// See [`Quota::looks`], of the account.
    #[inline]
    pub(crate) fn looks(&self) -> bool {
        self.account.looks()
    }
    /// Why a message cannot be stored, if so; `waiting` bytes of the stream are on their way, and it has so many `copies`.
    #[inline]
    pub(crate) fn refuses(&self, p: &Publish<'_>, waiting: usize, copies: u64) -> Option<errors::Known> {
        let account = self.account.of(self.memory);
        if account.max.load(Relaxed) >= 0 {
            let storage = if self.memory { Storage::Memory } else { Storage::File };
            let size = stream::memory::size(storage, p.subject.len(), p.headers.len(), p.payload.len());
            if account.over(size.saturating_add(waiting as u64).saturating_mul(copies)) {
                return Some(errors::ACCOUNT_RESOURCES_EXCEEDED);
            }
        }
        self.server.of(self.memory).over(waiting as u64).then_some(errors::INSUFFICIENT_RESOURCES)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.note(0);
        self.note_batches(0);
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
        assert_eq!(one.refuses(&p, 0, 1), None, "100 more are the last");
        assert_eq!(one.refuses(&p, 1, 1), Some(errors::ACCOUNT_RESOURCES_EXCEEDED));
        two.note(601);
        assert_eq!(two.refuses(&p, 0, 1), Some(errors::INSUFFICIENT_RESOURCES));
        assert_eq!(one.refuses(&p, 0, 1), Some(errors::INSUFFICIENT_RESOURCES));
        one.note(800);
        assert_eq!(two.refuses(&p, 0, 1), None);
        drop(one);
        assert_eq!((account.file.used.load(Relaxed), server.file.used.load(Relaxed)), (0, 601));
        server.limit_batches(3);
        two.note_batches(2);
        let memory = Share::new(account, server, true);
        assert!(!memory.no_room_for_batches());
        memory.note_batches(1);
        assert!(two.no_room_for_batches());
        two.note_batches(0);
        assert!(!two.no_room_for_batches());
        memory.note(50);
        assert_eq!(memory.refuses(&p, 0, 1), Some(errors::ACCOUNT_RESOURCES_EXCEEDED));
        let small = Publish { payload: &p.payload[..33], ..p };
        assert_eq!(memory.refuses(&small, 0, 1), None);
    }
    #[test]
    fn what_others_hold_counts_for_the_account_and_so_does_each_copy() {
        let (account, server) = (Arc::new(Quota::default()), Arc::new(Quota::default()));
        let share = Share::new(account.clone(), server, false);
        let p = Publish { subject: b"a", payload: &[0; 69], ..Publish::default() };
        account.heard(0, 1000);
        assert!(!share.looks(), "without a limit nobody is asked");
        assert_eq!(share.refuses(&p, 0, 3), None);
        account.set(-1, 1400);
        assert!(share.looks() && !share.looks() && account.takes_look() && !account.takes_look());
        share.note(100);
        assert!(account.is_filling());
        assert_eq!(share.refuses(&p, 0, 3), None, "three times 100 are the last");
        assert_eq!(share.refuses(&p, 1, 3), Some(errors::ACCOUNT_RESOURCES_EXCEEDED));
        assert_eq!(share.refuses(&p, 0, 4), Some(errors::ACCOUNT_RESOURCES_EXCEEDED));
        account.forgets();
        assert_eq!((share.refuses(&p, 0, 13), account.is_filling(), share.looks()), (None, false, true));
    }
}
