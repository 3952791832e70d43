//! Which pending ack is overdue next.
//!
//! Owns the order of deadlines. Deliveries with the same wait come due in the order in which they were made, so each wait of the
//! configuration (ack wait, or each step of the backoff) has a plain queue; only what a client put off by a delay of its own is sorted.
//! An item counts only while its entry still waits with that very deadline; what does not count is dropped when it comes to the
//! front, and swept when it is the majority.

use std::collections::{BTreeSet, VecDeque};

use super::ledger::{Ledger, State};

/// Deadlines on the monotonic clock, with sequences.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    /// One a wait.
    steps: Vec<VecDeque<(u64, u64)>>,
    /// Those with a delay of their own.
    delayed: BTreeSet<(u64, u64)>,
}

fn counts(ledger: &Ledger, (due, seq): (u64, u64)) -> bool {
    ledger.get(seq).is_some_and(|e| e.due == due && e.state == State::Waiting)
}

impl Timers {
    /// For so many different waits.
    pub fn new(steps: usize) -> Timers {
        Timers { steps: vec![VecDeque::new(); steps.max(1)], delayed: BTreeSet::new() }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.steps.iter_mut().for_each(VecDeque::clear);
        self.delayed.clear();
    }

    /// Notes that an entry, whose `due` and state are set already, is due after the wait of a step. The last step stands for all beyond.
    #[inline]
    pub fn arm(&mut self, step: usize, due: u64, seq: u64) {
        let step = step.min(self.steps.len() - 1);
        let queue = &mut self.steps[step];
        // Only a change of the configuration makes a later delivery due earlier.
        if queue.back().is_some_and(|last| last.0 > due) {
            self.delayed.insert((due, seq));
        } else {
            queue.push_back((due, seq));
        }
    }

    /// Notes that an entry is due at a time of its own.
    pub fn arm_at(&mut self, due: u64, seq: u64) {
        self.delayed.insert((due, seq));
    }

    /// Drops what no longer counts from the fronts, after an entry has left or changed.
    #[inline]
    pub fn tidy(&mut self, ledger: &Ledger) {
        for queue in &mut self.steps {
            while queue.front().is_some_and(|item| !counts(ledger, *item)) {
                queue.pop_front();
            }
            if queue.len() > 1024 && queue.len() > 4 * ledger.len() {
                queue.retain(|item| counts(ledger, *item));
            }
        }
        while let Some(first) = self.delayed.first().copied().filter(|item| !counts(ledger, *item)) {
            self.delayed.remove(&first);
        }
    }

    /// The earliest deadline. Exact after [`Timers::tidy`].
    #[inline]
    pub fn due(&self) -> Option<u64> {
        let steps = self.steps.iter().filter_map(|q| q.front());
        steps.chain(self.delayed.first()).map(|item| item.0).min()
    }

    /// The latest deadline, or one that is later still.
    pub fn latest(&self) -> Option<u64> {
        let steps = self.steps.iter().filter_map(|q| q.back());
        steps.chain(self.delayed.last()).map(|item| item.0).max()
    }

    /// Takes all that is due at `now`, in the order of the sequences.
    pub fn expired(&mut self, ledger: &Ledger, now: u64, out: &mut Vec<u64>) {
        for queue in &mut self.steps {
            while let Some(item) = queue.front().copied().filter(|item| item.0 <= now) {
                queue.pop_front();
                if counts(ledger, item) {
                    out.push(item.1);
                }
            }
        }
        while let Some(item) = self.delayed.first().copied().filter(|item| item.0 <= now) {
            self.delayed.remove(&item);
            if counts(ledger, item) {
                out.push(item.1);
            }
        }
        out.sort_unstable();
        out.dedup();
        self.tidy(ledger);
    }
}
