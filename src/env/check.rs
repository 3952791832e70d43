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

/// True where the known bug of this name is planted: in a simulated world, if `FULMAR_MUTANT` in the harness's own environment
/// names it. Constantly false in production, so that the branch and the name are not in the binary. `scripts/mutants` lists all of
/// them by this macro's name and shows that storms find each.
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        $crate::check::is_planted($name)
    };
}

/// See [`planted!`].
#[inline(always)]
pub fn is_planted(name: &'static str) -> bool {
    #[cfg(madsim)]
    return plant::is(name);
    #[cfg(not(madsim))]
    {
        let _ = name;
        false
    }
}

#[cfg(madsim)]
mod plant {
    use std::sync::OnceLock;

    /// Read once: it is one bug a process.
    static NAME: OnceLock<Option<String>> = OnceLock::new();

    pub fn is(name: &str) -> bool {
        // The harness's environment, not a simulated process's: one bug for the whole world.
        #[allow(clippy::disallowed_methods)]
        let planted = NAME.get_or_init(|| std::env::var("FULMAR_MUTANT").ok());
        planted.as_deref() == Some(name)
    }
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
