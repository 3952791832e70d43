//! Counters that several workers add to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter. It only grows; reading it is never exact while others add.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        if n != 0 {
            self.0.fetch_add(n, Relaxed);
        }
    }
    /// Takes `n` away (for gauges).
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }
    /// The value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Messages and bytes (header block and payload, as nats-server counts them).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Messages.
    pub msgs: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Deliveries that are not told to the counters yet.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Dealt {
    pub(crate) msgs: u64,
    pub(crate) bytes: u64,
    /// Of these, those to routes.
    pub(crate) route_msgs: u64,
    pub(crate) route_bytes: u64,
}

impl Dealt {
    /// Counts one delivery of `size` bytes.
    #[inline]
    pub(crate) fn add(&mut self, size: u64) {
        self.msgs += 1;
        self.bytes += size;
    }
    /// What came after `before`.
    #[inline]
    pub(crate) fn since(self, before: Dealt) -> Dealt {
        Dealt {
            msgs: self.msgs - before.msgs,
            bytes: self.bytes - before.bytes,
            route_msgs: self.route_msgs - before.route_msgs,
            route_bytes: self.route_bytes - before.route_bytes,
        }
    }
    /// Tells the counters.
    pub(crate) fn count(self, stats: &Stats) {
        stats.out_msgs.add(self.msgs);
        stats.out_bytes.add(self.bytes);
        stats.route_out_msgs.add(self.route_msgs);
        stats.route_out_bytes.add(self.route_bytes);
    }
}

impl std::ops::AddAssign for Dealt {
    #[inline]
    fn add_assign(&mut self, more: Dealt) {
        self.msgs += more.msgs;
        self.bytes += more.bytes;
        self.route_msgs += more.route_msgs;
        self.route_bytes += more.route_bytes;
    }
}

/// What a server or an account has seen.
#[derive(Default, Debug)]
pub struct Stats {
    /// Messages that came in.
    pub in_msgs: Counter,
    /// Their bytes.
    pub in_bytes: Counter,
    /// Deliveries.
    pub out_msgs: Counter,
    /// Their bytes.
    pub out_bytes: Counter,
    /// Of the messages that came in, those of routes.
    pub route_in_msgs: Counter,
    /// Their bytes.
    pub route_in_bytes: Counter,
    /// Of the deliveries, those to routes.
    pub route_out_msgs: Counter,
    /// Their bytes.
    pub route_out_bytes: Counter,
    /// Connections closed because they did not read.
    pub slow_consumers: Counter,
    /// Times a route did not take what was written to it within the deadline.
    pub slow_routes: Counter,
    /// Routes closed because they did not answer pings.
    pub stale_routes: Counter,
    /// Connections closed because they did not answer pings.
    pub stale: Counter,
    /// Times a publisher was held back for a receiver.
    pub stalled: Counter,
    /// Connections that were opened, ever.
    pub connections_total: Counter,
    /// Subscriptions that were added to an account's interest, ever.
    pub inserts: Counter,
    /// Subscriptions that were taken out of it, ever.
    pub removes: Counter,
    /// Subjects that were looked up in it.
    pub matches: Counter,
}
