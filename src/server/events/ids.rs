//! Ids of events: 22 digits to the base of 62, of which 12 tell servers apart and 10 count.

use env::Rng;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PREFIX_LEN: usize = 12;
const COUNT_LEN: usize = 10;

/// A source of ids, none of which comes twice.
pub(super) struct Ids {
    prefix: [u8; PREFIX_LEN],
    count: u64,
    step: u64,
}

impl Ids {
    /// A source with a prefix, a first count and a step drawn from `rng`.
    pub fn new(rng: &mut Rng) -> Ids {
        let mut prefix = [0; PREFIX_LEN];
        prefix.fill_with(|| DIGITS[rng.below(62) as usize]);
        // Far enough below 62^10 that the count never wraps in a server's life.
        Ids { prefix, count: rng.below(1 << 58), step: rng.between(33, 333) }
    }
    /// The next id.
    pub fn next(&mut self) -> String {
        self.count += self.step;
        let mut out: String = self.prefix.iter().map(|&b| char::from(b)).collect();
        let mut n = self.count;
        let mut digits = [b'0'; COUNT_LEN];
        for d in digits.iter_mut().rev() {
            *d = DIGITS[(n % 62) as usize];
            n /= 62;
        }
        out.extend(digits.iter().map(|&b| char::from(b)));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_have_the_length_of_a_nuid() {
        let mut ids = Ids::new(&mut Rng::derived(1, "ids"));
        let all: std::collections::BTreeSet<String> = (0..1000).map(|_| ids.next()).collect();
        assert_eq!(all.len(), 1000);
        assert!(all.iter().all(|i| i.len() == 22 && i.bytes().all(|b| b.is_ascii_alphanumeric())));
    }
}
