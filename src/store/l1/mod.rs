//! Level 1: the store against a simple model on the fault disk, without a runtime.
//!
//! Owns plans (data: printed, shrunk, replayed), their execution, and the checks after every restart. A plan's run is a
//! function of the plan alone.
//!
//! What is checked:
//! - nothing that was called durable is lost (S-1), unless the disk damaged it, and then it is named;
//! - what a restart finds is what some prefix of the operations left, no shorter than the last one called durable;
//! - a restart begins at a checkpoint whose stream is exactly the one that was checkpointed;
//! - every read returns the bytes that were written, or says "damaged", or is absent because it must be;
//! - the totals and all indexes equal a walk over everything (S-50), and every footer a rebuild from its blocks (S-40);
//! - caches and tails keep their budgets (S-90).

mod inside;
mod model;
mod plan;
mod run;
mod shrink;

pub use plan::{Class, Op, Plan};
pub(crate) use run::salt;
#[cfg(test)]
pub(crate) use run::salts_from;
pub use run::{DISK_OPS_MIN, FAULTS_MIN, Outcome, run};
pub use shrink::shrink;

#[cfg(test)]
mod tests;
