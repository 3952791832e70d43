//! Whole-server simulation.
