//! Grants to answer: the dynamic half of `allow_responses`, one table per connection.
//!
//! Does not know permissions: the caller asks it only where [`crate::Permissions::can_publish`] says no.
//!
//! Invariants:
//! - `R-1: bounded`: at most [`MAX_GRANTS`] grants and [`MAX_BYTES`] bytes of subjects; beyond, the oldest goes first.
//!   (nats-server forgets only expired ones, so that a busy responder with a long expiry grows without limit.)
//! - `R-2: as many answers as requests allow`: each delivery adds its allowance. nats-server instead counts the second
//!   delivery with the same reply subject as an answer given, and then refuses a rightful one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::permissions::ResponsePermission;

/// Grants that a connection holds at most.
pub const MAX_GRANTS: usize = 65_536;
/// Bytes of reply subjects that a connection's grants hold at most.
pub const MAX_BYTES: usize = 4 << 20;

#[derive(Debug)]
struct Grant {
    /// Answers left; `None` is unlimited.
    left: Option<u64>,
    /// When it lapses, in Unix nanoseconds; `None` is never.
    expires_ns: Option<i64>,
    /// Which entry of `order` speaks for this grant; older ones are stale.
    stamp: u64,
}

/// The grants of one connection.
#[derive(Debug)]
pub struct ReplyGrants {
    rule: ResponsePermission,
    /// A tree, not a hash table: the keys are chosen by other clients.
    grants: BTreeMap<Arc<[u8]>, Grant>,
    /// Oldest first. All grants live equally long, so the front also lapses first.
    order: VecDeque<(u64, Arc<[u8]>)>,
    bytes: usize,
    next_stamp: u64,
}

impl ReplyGrants {
    /// An empty table under `rule`; zeros in it stand for the defaults.
    pub fn new(rule: ResponsePermission) -> ReplyGrants {
        let rule = ResponsePermission {
            max_messages: if rule.max_messages == 0 {
                ResponsePermission::DEFAULT_MAX_MESSAGES
            } else {
                rule.max_messages
            },
            expires_ns: if rule.expires_ns == 0 {
                ResponsePermission::DEFAULT_EXPIRES_NS
            } else {
                rule.expires_ns
            },
        };
        ReplyGrants { rule, grants: BTreeMap::new(), order: VecDeque::new(), bytes: 0, next_stamp: 0 }
    }

    /// Notes that a message with this reply subject is delivered at `now_ns`. Call it only for replies that the
    /// connection may not publish to anyway.
    pub fn grant(&mut self, reply: &[u8], now_ns: i64) {
        if reply.is_empty() || reply.len() > MAX_BYTES {
            return;
        }
        self.drop_expired(now_ns);
        let allowance = u64::try_from(self.rule.max_messages).ok();
        let expires_ns = (self.rule.expires_ns > 0).then(|| now_ns.saturating_add(self.rule.expires_ns));
        let stamp = self.next_stamp;
        self.next_stamp += 1;
        let key: Arc<[u8]> = match self.grants.get_key_value(reply) {
            Some((key, _)) => key.clone(),
            None => reply.into(),
        };
        match self.grants.get_mut(reply) {
            Some(grant) => {
                // A rule is the same for all grants of a table: both are limited or neither is.
                grant.left = grant.left.zip(allowance).map(|(a, b)| a.saturating_add(b));
                grant.expires_ns = expires_ns;
                grant.stamp = stamp;
            }
            None => {
                self.bytes += key.len();
                self.grants.insert(key.clone(), Grant { left: allowance, expires_ns, stamp });
            }
        }
        self.order.push_back((stamp, key));
        while self.grants.len() > MAX_GRANTS || self.bytes > MAX_BYTES {
            self.drop_oldest();
        }
        // Renewed and used-up grants leave stale entries behind; sweep when they outnumber the live ones.
        if self.order.len() > 2 * self.grants.len() + 64 {
            let grants = &self.grants;
            self.order.retain(|(stamp, key)| grants.get(key).is_some_and(|g| g.stamp == *stamp));
        }
        assert!(self.grants.len() <= MAX_GRANTS && self.bytes <= MAX_BYTES, "R-1: bounded");
    }

    /// Uses one answer up. True where the connection may publish to `subject` at `now_ns` on the strength of a grant.
    pub fn take(&mut self, subject: &[u8], now_ns: i64) -> bool {
        let Some(grant) = self.grants.get_mut(subject) else { return false };
        let live = grant.expires_ns.is_none_or(|at| now_ns <= at);
        let spent = match &mut grant.left {
            None => false,
            Some(left) => {
                *left = left.saturating_sub(u64::from(live));
                *left == 0
            }
        };
        if !live || spent {
            self.remove(subject);
        }
        live
    }

    /// Grants held now, lapsed ones included until they are swept.
    pub fn len(&self) -> usize {
        self.grants.len()
    }

    /// Whether no grant is held.
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    fn remove(&mut self, subject: &[u8]) {
        if let Some((key, _)) = self.grants.remove_entry(subject) {
            self.bytes -= key.len();
        }
        if self.grants.is_empty() {
            self.order.clear();
        }
    }

    fn drop_expired(&mut self, now_ns: i64) {
        while let Some((stamp, key)) = self.order.front() {
            match self.grants.get(key) {
                Some(g) if g.stamp == *stamp && g.expires_ns.is_none_or(|at| now_ns <= at) => return,
                _ => self.drop_oldest(),
            }
        }
    }

    /// Drops the front of the order and, unless it is stale, its grant.
    fn drop_oldest(&mut self) {
        let (stamp, key) = self.order.pop_front().expect("every grant has its entry in the order");
        if self.grants.get(&key).is_some_and(|g| g.stamp == stamp) {
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: i64 = 1_000_000;

    fn table(max: i64, ttl_ms: i64) -> ReplyGrants {
        ReplyGrants::new(ResponsePermission { max_messages: max, expires_ns: ttl_ms * MS })
    }

    #[test]
    fn default_is_one_answer_within_two_minutes() {
        let mut g = table(0, 0);
        assert!(!g.take(b"r.1", 0), "nothing granted yet");
        g.grant(b"r.1", 0);
        assert!(!g.take(b"r.2", 1), "another subject is another matter");
        assert!(g.take(b"r.1", 120_000 * MS));
        assert!(!g.take(b"r.1", 120_000 * MS), "one answer only");
        g.grant(b"r.1", 0);
        assert!(!g.take(b"r.1", 120_000 * MS + 1), "too late");
        assert!(g.is_empty());
    }

    #[test]
    fn limits_and_unlimited() {
        let mut g = table(2, 60_000);
        g.grant(b"r", 0);
        assert_eq!([g.take(b"r", 1), g.take(b"r", 1), g.take(b"r", 1)], [true, true, false]);
        let mut g = table(-1, -1);
        g.grant(b"r", 0);
        assert!((0..1000).all(|_| g.take(b"r", i64::MAX)));
        // Reply subjects are not patterns.
        g.grant(b"r.*", 0);
        assert!(!g.take(b"r.x", 0) && g.take(b"r.*", 0));
    }

    #[test]
    fn r_2_as_many_answers_as_requests_allow() {
        let mut g = table(1, 60_000);
        for _ in 0..3 {
            g.grant(b"r", 0);
        }
        assert_eq!((0..5).filter(|_| g.take(b"r", 1)).count(), 3);
    }

    #[test]
    fn r_1_bounded_in_count_and_bytes() {
        let mut g = table(1, -1);
        for i in 0..MAX_GRANTS + 10 {
            g.grant(format!("r.{i}").as_bytes(), 0);
        }
        assert_eq!(g.len(), MAX_GRANTS);
        assert!(!g.take(b"r.9", 0), "the oldest went first");
        assert!(g.take(b"r.10", 0));
        let mut g = table(1, -1);
        for i in 0..100u8 {
            let mut long = vec![b'x'; MAX_BYTES / 10];
            long.push(i);
            g.grant(&long, 0);
        }
        assert_eq!(g.len(), 9);
        g.grant(&vec![b'x'; MAX_BYTES + 1], 0);
        assert_eq!(g.len(), 9, "one that could never fit changes nothing");
    }

    #[test]
    fn expired_grants_are_swept_and_renewals_leave_nothing_behind() {
        let mut g = table(1, 10);
        for i in 0..100 {
            g.grant(format!("r.{i}").as_bytes(), 0);
        }
        g.grant(b"late", 11 * MS);
        assert_eq!(g.len(), 1);
        for _ in 0..10_000 {
            g.grant(b"same", 11 * MS);
        }
        assert!(g.order.len() < 100, "{}", g.order.len());
    }

    proptest! {
        /// Against a plain list of (subject, answers left, expiry).
        #[test]
        fn agrees_with_a_naive_model(max in -1i64..4, ops in proptest::collection::vec((any::<bool>(), 0u8..4, 0i64..30), 1..120)) {
            let mut g = table(max, 40);
            let allowance = match max { -1 => u64::MAX, 0 => 1, n => n as u64 };
            let mut model: BTreeMap<u8, (u64, i64)> = BTreeMap::new();
            let mut now = 0;
            for (grant, who, dt) in ops {
                now += dt * MS;
                if grant {
                    g.grant(&[b'r', who], now);
                    let live = model.get(&who).filter(|m| now <= m.1).map_or(0, |m| m.0);
                    model.insert(who, (live.saturating_add(allowance), now + 40 * MS));
                } else {
                    let expect = model.get_mut(&who).is_some_and(|m| {
                        let ok = m.0 > 0 && now <= m.1;
                        if ok && m.0 != u64::MAX { m.0 -= 1; }
                        ok
                    });
                    prop_assert_eq!(g.take(&[b'r', who], now), expect);
                }
            }
        }
    }
}
