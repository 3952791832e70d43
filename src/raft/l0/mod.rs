//! The level-0 simulator: cores only, no runtime. Messages are lost, delayed, doubled, reordered and cut off; disks have
//! synced and pending parts; processes crash, restart, pause and come back without their disk; members come and go.
//! After each step the invariants are checked; after the storm everything heals and progress is required.
//!
//! What it does not produce: torn writes inside a write, a disk that lies about a sync, more than one damaged replica at a time,
//! more than one group, chunks of a snapshot (an install succeeds or fails as a whole).

pub mod disk;
pub mod invariants;
pub mod nemesis;
pub mod node;
pub mod plan;
pub mod rng;
pub mod world;

pub use invariants::Violation;
pub use plan::Plan;
pub use world::{Stats, World};

/// A run that broke an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What broke.
    pub violation: Violation,
    /// When, in simulated nanoseconds.
    pub at_ns: u64,
    /// The last transitions, if they were recorded.
    pub trace: Vec<String>,
}

/// Runs one seed to its end. `plant` is called on every core that is made (to plant a bug).
pub fn run(seed: u64, traced: bool, plant: &dyn Fn(&mut raft::Core)) -> Result<Stats, Box<Failure>> {
    let mut world = World::new(seed, Plan::of(seed), traced, plant);
    // An assertion of the core is a finding like any other.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Violation::new("assertion", text.unwrap_or_default()))
    });
    match outcome {
        Ok(()) => Ok(world.stats),
        Err(violation) => {
            Err(Box::new(Failure { violation, at_ns: world.now, trace: world.trace.into_iter().collect() }))
        }
    }
}

#[cfg(test)]
mod tests;
