//! When a connection that is to be closed is quiet: what it asked for last is answered, as far as can be seen.
//!
//! Owns the judgement alone, which is a guess from the connection's counters; who closes looks at them every millisecond, and closes anyway when
//! [`LOOKS_MAX`] are over. A request that is under way when its connection closes has an answer that nobody hears, and waits for its time-out.

/// Looks after which a connection is closed however it is.
pub const LOOKS_MAX: u32 = 250;
/// Who is neither asked nor told anything for so many looks has nothing under way.
const STILL: u32 = 20;

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
    still: u32,
}

impl Quiet {
    /// One more look. Whether it is quiet now: it has just been sent something, which is likely to be the answer to what it asked last, and has not had the time to
    /// ask again; or nothing happens at all.
    pub fn look(&mut self, now: Seen) -> bool {
        let last = self.last.replace(now).unwrap_or(now);
        self.still = if now == last { self.still + 1 } else { 0 };
        now.waiting == 0 && (now.sent != last.sent || self.still >= STILL)
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
        // A request that waits three looks for its answer, which waits one to be written.
        let asks = [(1, 0, 0), (2, 0, 0), (2, 0, 0), (2, 0, 0), (2, 1, 9), (2, 1, 0), (3, 1, 0), (3, 2, 0)];
        assert_eq!(quiet_after(&asks), Some(7));
        // Request and answer between two looks.
        assert_eq!(quiet_after(&[(1, 0, 0), (2, 1, 0)]), Some(1));
    }

    #[test]
    fn who_says_nothing_is_quiet_soon_and_who_always_sends_never() {
        assert_eq!(quiet_after(&[(0, 0, 0); 30]), Some(19));
        let sends: Vec<_> = (0..u64::from(LOOKS_MAX)).map(|i| (i, 0, 0)).collect();
        assert_eq!(quiet_after(&sends), None);
    }
}
