//! The trace of a simulated run: a hash over (virtual time, event, arguments) that two runs of one seed must share.
//! In production every call compiles to nothing.

/// Notes an event. Arguments must be the same in every run of a seed: no pointers, no process ids.
#[inline(always)]
pub fn event(what: &'static str, args: &[u64]) {
    #[cfg(madsim)]
    crate::sim::recorder::event(what, args);
    #[cfg(not(madsim))]
    let _ = (what, args);
}
