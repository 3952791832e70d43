//! Assertions that state intent: what must always hold, and what a storm must sometimes reach.

/// An invariant that stays on in release builds. Use it where the condition costs O(1); give the invariant's id in the
/// text, as in `always!(applied <= committed, "R-4: applied {applied} beyond committed {committed}")`.
#[macro_export]
macro_rules! always {
    ($cond:expr, $($arg:tt)+) => { if !$cond { panic!("invariant broken: {}", format_args!($($arg)+)) } };
}

/// Notes that a rare branch was reached. Counted by the simulator over an ensemble of runs; never fails by itself.
#[macro_export]
macro_rules! sometimes {
    ($cond:expr, $name:literal) => {
        if $cond {
            $crate::check::mark($name)
        }
    };
}

/// Notes that this line was reached; see [`sometimes!`].
#[macro_export]
macro_rules! reachable {
    ($name:literal) => {
        $crate::check::mark($name)
    };
}

/// Counts one hit of the mark `name`. Costs nothing outside the simulator.
#[inline(always)]
pub fn mark(name: &'static str) {
    #[cfg(madsim)]
    marks::hit(name);
    #[cfg(not(madsim))]
    let _ = name;
}

#[cfg(madsim)]
mod marks {
    use std::{cell::RefCell, collections::BTreeMap};
    thread_local!(static HITS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) });

    pub fn hit(name: &'static str) {
        HITS.with_borrow_mut(|h| *h.entry(name).or_default() += 1)
    }

    /// The marks hit on this thread since the last call, with their counts.
    pub fn take() -> BTreeMap<&'static str, u64> {
        HITS.with_borrow_mut(std::mem::take)
    }
}
#[cfg(madsim)]
pub use marks::take as take_marks;
