//! When a connection that is to be closed is quiet: what it asked for last is answered, as far as can be seen.
//!
//! Owns the judgement alone, which is a guess from the connection's counters; who closes looks at them every millisecond, and closes anyway when
//! [`LOOKS_MAX`] are over. A request that is under way when its connection closes has an answer that nobody hears, and waits for its time-out.

/// Looks after which a connection is closed however it is.
pub const LOOKS_MAX: u32 = 250;
/// So many looks in a row must show nothing new after an answer; without one, so many.
const STILL: u32 = 2;
const STILL_UNANSWERED: u32 = 20;

/// What is seen of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Messages that came from it.
    pub received: u64,
    /// Messages that went to it.
    pub sent: u64,
    /// Bytes that wait to be written.
    pub waiting: usize,
}

/// The judgement over some looks.
#[derive(Default)]
pub struct Quiet {
    last: Option<Seen>,
    answered: bool,
    still: u32,
}

impl Quiet {
    /// One more look. Whether it is quiet now.
    pub fn look(&mut self, now: Seen) -> bool {
        let last = self.last.replace(now).unwrap_or(now);
        if now == last && now.waiting == 0 {
            self.still += 1;
        } else {
            self.still = 0;
        }
        if now.sent != last.sent {
            // What came in the same moment was asked before it, more likely than not.
            self.answered = true;
        } else if now.received != last.received {
            self.answered = false;
        }
        self.still >= if self.answered { STILL } else { STILL_UNANSWERED }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many looks it is quiet, if it is.
    fn quiet_after(looks: &[(u64, u64, usize)]) -> Option<usize> {
        let mut q = Quiet::default();
        looks.iter().position(|(received, sent, waiting)| {
            q.look(Seen { received: *received, sent: *sent, waiting: *waiting })
        })
    }

    #[test]
    fn an_answered_request_makes_it_quiet() {
        // A request that waits three looks for its answer.
        let asks = [(1, 0, 0), (2, 0, 0), (2, 0, 0), (2, 0, 0), (2, 1, 0), (2, 1, 0), (2, 1, 0)];
        assert_eq!(quiet_after(&asks), Some(6));
        assert_eq!(quiet_after(&asks[..6]), None);
        // Request and answer between two looks.
        assert_eq!(quiet_after(&[(1, 0, 0), (2, 1, 0), (2, 1, 0), (2, 1, 0)]), Some(3));
        // An answer that is not written yet.
        assert_eq!(quiet_after(&[(1, 0, 0), (2, 1, 9), (2, 1, 9), (2, 1, 9), (2, 1, 0), (2, 1, 0)]), None);
    }

    #[test]
    fn who_says_nothing_is_quiet_soon_and_who_always_sends_never() {
        assert_eq!(quiet_after(&[(0, 0, 0); 30]), Some(19));
        let sends: Vec<_> = (0..u64::from(LOOKS_MAX)).map(|i| (i, 0, 0)).collect();
        assert_eq!(quiet_after(&sends), None);
    }
}
