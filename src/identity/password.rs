//! Passwords: plain or bcrypt, and a small memory of checks already made.
//!
//! bcrypt is meant to be slow, and a thousand clients that reconnect at once would make it an outage. The memory maps
//! a keyed digest of (user, stored hash, password) to the outcome. The key is random and never leaves the process, so
//! a digest says nothing outside it; a changed password or a reload with another hash misses by construction.
//!
//! Invariant `I-2: the memory is bounded`: [`CACHE_GOOD`] successes and [`CACHE_BAD`] failures, the oldest forgotten
//! first. They are kept apart so that guessing cannot push out those who know their passwords.

use std::collections::BTreeMap;
use std::sync::Mutex;

use sha2::{Digest, Sha256};

/// Remembered successes.
pub const CACHE_GOOD: usize = 4096;
/// Remembered failures.
pub const CACHE_BAD: usize = 1024;

/// Whether a stored password is a bcrypt hash by the rule of nats-server: `$2a$`, `$2b$`, `$2x$` or `$2y$`, two digits
/// and a dollar. What looks so but is cut short matches no password.
pub fn is_bcrypt(stored: &str) -> bool {
    matches!(
        stored.as_bytes(),
        [b'$', b'2', b'a' | b'b' | b'x' | b'y', b'$', b'0'..=b'9', b'0'..=b'9', b'$', ..]
    )
}

/// The cost of a bcrypt hash: the work is 2^cost. `None` where it could match no password.
pub(crate) fn bcrypt_cost(stored: &str) -> Option<u32> {
    if !is_bcrypt(stored) || stored.len() != 60 || !stored.is_ascii() {
        return None;
    }
    stored[4..6].parse().ok().filter(|cost| (4..=31).contains(cost))
}

/// Whether `password` has the hash `stored`. Takes tens of milliseconds at usual costs. Malformed hashes match nothing.
pub(crate) fn bcrypt_matches(stored: &str, password: &str) -> bool {
    bcrypt::verify(password, stored).unwrap_or(false)
}

#[derive(Default)]
struct Side {
    stamps: BTreeMap<[u8; 32], u64>,
    by_age: BTreeMap<u64, [u8; 32]>,
}

impl Side {
    fn put(&mut self, key: [u8; 32], stamp: u64, max: usize) {
        if let Some(old) = self.stamps.insert(key, stamp) {
            self.by_age.remove(&old);
        }
        self.by_age.insert(stamp, key);
        if self.by_age.len() > max
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.stamps.remove(&oldest);
        }
        assert!(
            self.stamps.len() <= max && self.by_age.len() == self.stamps.len(),
            "I-2: the memory is bounded"
        );
    }
}

#[derive(Default)]
struct Sides {
    good: Side,
    bad: Side,
    next: u64,
}

/// The memory of bcrypt checks.
pub(crate) struct PasswordCache {
    key: [u8; 32],
    sides: Mutex<Sides>,
}

impl PasswordCache {
    pub(crate) fn new(key: [u8; 32]) -> PasswordCache {
        PasswordCache { key, sides: Mutex::default() }
    }

    /// The digest under which a check is remembered. Lengths go in so that no two triples read the same.
    pub(crate) fn digest(&self, user: &str, stored: &str, password: &str) -> [u8; 32] {
        let mut hash = Sha256::new().chain_update(self.key);
        for part in [user, stored, password] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }

    /// The outcome of an earlier check.
    pub(crate) fn get(&self, digest: &[u8; 32]) -> Option<bool> {
        let sides = self.lock();
        if sides.good.stamps.contains_key(digest) {
            return Some(true);
        }
        sides.bad.stamps.contains_key(digest).then_some(false)
    }

    pub(crate) fn put(&self, digest: [u8; 32], matched: bool) {
        let sides = &mut *self.lock();
        sides.next += 1;
        let (side, max) = if matched { (&mut sides.good, CACHE_GOOD) } else { (&mut sides.bad, CACHE_BAD) };
        side.put(digest, sides.next, max);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sides> {
        // A memory may lose an entry when a thread dies in between, but it cannot become wrong.
        self.sides.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pair was accepted by nats-server 2.15.1, whose bcrypt is another implementation.
    const VECTORS: [(&str, &str); 6] = [
        ("", "$2a$04$KBCwKxOzLha2MUDgW0PjXeg/oaNzVlQFb3jg.67P.r1snBL8ZffHa"),
        ("a", "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
        ("abc", "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"),
        ("abcdefghijklmnopqrstuvwxyz", "$2a$06$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC"),
        ("päss wörd", "$2a$04$XkTiW0HfMRe1LhSyKxGvK.jE0.eU68iIi8rVB/qZoPr7AEHdWO8Eu"),
        (LONG, "$2a$04$KBCwKxOzLha2MUDgW0PjXe2EbuGeU17K17Rx1Pb2UnKJd/.iteNSW"),
    ];
    const LONG: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

    #[test]
    fn known_vectors_in_all_spellings() {
        for (password, hash) in VECTORS {
            for version in ["2a", "2b", "2y", "2x"] {
                let hash = hash.replacen("2a", version, 1);
                assert!(bcrypt_matches(&hash, password), "{hash}");
                // bcrypt reads 72 bytes; nats-server accepts what follows them too.
                assert_eq!(bcrypt_matches(&hash, &format!("{password}x")), password == LONG, "{hash}");
                assert!(
                    !bcrypt_matches(&hash, &format!("x{}", &password[1.min(password.len())..]))
                        || password == LONG
                );
                assert!(matches!(bcrypt_cost(&hash), Some(4 | 6)), "{hash}");
            }
        }
    }

    #[test]
    fn what_looks_like_bcrypt() {
        for yes in ["$2a$11$aaaa", "$2a$04$", "$2b$99$x", VECTORS[1].1] {
            assert!(is_bcrypt(yes), "{yes}");
        }
        for no in ["", "$2z$11$aaaa", "$2b$xx$", "$2$11$", "2a$11$", "$2a$1$", "p"] {
            assert!(!is_bcrypt(no), "{no}");
        }
        for broken in [
            "$2a$11$aaaa",
            &VECTORS[1].1.replace("$06$", "$03$"),
            &VECTORS[1].1.replace("$06$", "$32$"),
            &format!("$2a$06${}", "é".repeat(26)),
            &format!("{}x", VECTORS[1].1),
        ] {
            assert_eq!(bcrypt_cost(broken), None, "{broken}");
            assert!(!bcrypt_matches(broken, "a"), "{broken}");
        }
    }

    #[test]
    fn i_2_the_memory_is_bounded_and_sides_are_apart() {
        let cache = PasswordCache::new([7; 32]);
        let digest = |n: usize| cache.digest("u", "h", &n.to_string());
        cache.put(digest(0), true);
        for n in 1..CACHE_BAD + 10 {
            cache.put(digest(n), false);
        }
        assert_eq!(cache.get(&digest(0)), Some(true), "failures do not push out a success");
        assert_eq!(cache.get(&digest(1)), None, "the oldest failure is forgotten");
        assert_eq!(cache.get(&digest(CACHE_BAD + 9)), Some(false));
        for n in 0..CACHE_GOOD + 1 {
            cache.put(digest(100_000 + n), true);
        }
        assert_eq!(cache.get(&digest(0)), None);
        assert_eq!(cache.lock().good.stamps.len(), CACHE_GOOD);
    }

    #[test]
    fn digests_tell_the_parts_apart_and_need_the_key() {
        let cache = PasswordCache::new([7; 32]);
        assert_ne!(cache.digest("ab", "c", "d"), cache.digest("a", "bc", "d"));
        assert_ne!(cache.digest("a", "b", "c"), PasswordCache::new([8; 32]).digest("a", "b", "c"));
    }
}
