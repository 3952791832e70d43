//! What tells a stream from one of the same name that was made before it: `Nats-Stream-Identity`.
//!
//! Whoever mirrors or sources a stream is told it with his consumer, and says it when he asks for a consumer again. It is the same on all servers and after
//! restarts, since it follows from when the stream was made.

use sha2::{Digest, Sha256};

use super::{ConsumerConfig, Time};

/// The header's name.
pub const HEADER: &[u8] = b"Nats-Stream-Identity";

/// The identity of a stream that was made so many nanoseconds after 1970.
pub fn of(created: i64) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let hash = Sha256::digest(Time::from_nanos(created).to_string());
    hash.iter().take(8).map(|b| char::from(DIGITS[usize::from(b % 62)])).collect()
}

/// Whether who makes such a consumer is told, and may say which stream he means.
pub fn is_shown(c: &ConsumerConfig) -> bool {
    c.direct || c.sourcing
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nats-server 2.15.1 said of streams that it made then.
    #[test]
    fn identities_are_those_of_nats_server() {
        for (created, identity) in
            [("2026-11-23T07:24:59.680857675Z", "ra7xugYk"), ("2026-11-23T07:25:07.354295285Z", "6in9gmKs")]
        {
            assert_eq!(of(Time::parse(created).unwrap().nanos()), identity);
        }
    }
}
