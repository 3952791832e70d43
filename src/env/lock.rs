//! A lock for a few instructions, taken once or more a message.
//!
//! Owns only how one waits for it. An ordinary mutex needs an atomic exchange to unlock too, since somebody may sleep on it; nobody
//! sleeps on this one, so that unlocking is a plain store: half the price where nobody else wants it, which is nearly always.

use spin::relax::RelaxStrategy;

/// How often it is looked at before the core is given to others.
const LOOKS: u32 = 4;

/// A mutex that is held for a moment: no system call and no waiting of any kind inside. Who finds it taken looks a few times and
/// then yields the core, so that a holder that the system has put aside gets on.
pub type ShortMutex<T> = spin::mutex::SpinMutex<T, Politely>;

/// Looks a few times, then yields the core.
#[derive(Debug)]
pub struct Politely;

impl RelaxStrategy for Politely {
    #[inline(never)]
    fn relax() {
        for _ in 0..LOOKS {
            std::hint::spin_loop();
        }
        crate::imp::task::yield_core();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn one_at_a_time() {
        let m = Arc::new(ShortMutex::<_>::new((0u64, 0u64)));
        let all: Vec<_> = (0..4)
            .map(|_| {
                let m = m.clone();
                std::thread::spawn(move || {
                    for _ in 0..50_000 {
                        let mut both = m.lock();
                        both.0 += 1;
                        assert_eq!(both.0, both.1 + 1, "somebody else was inside");
                        both.1 += 1;
                    }
                })
            })
            .collect();
        for t in all {
            t.join().unwrap();
        }
        assert_eq!(*m.lock(), (200_000, 200_000));
    }
}
