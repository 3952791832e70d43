//! The simulated backend: madsim runs the tasks, keeps the virtual time and kills and starts nodes; the network, the
//! disks, the nodes' clocks, signals and process facts are our own.
//!
//! The harness begins with [`run`], makes machines with [`World::machine`] and does to them what storms do. One run a
//! thread at a time. A run needs a thread of its own where exact repetition counts.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod log;
pub mod net;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod recorder;
pub(crate) mod signal;
pub mod task;
pub(crate) mod world;

pub use net::{Link, NetOptions, RETRANSMIT_NS, Trigger};
pub use recorder::{Trace, trace};
pub use world::{Config, Death, Machine, World, run};
