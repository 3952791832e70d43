//! The simulated backend, under madsim.
