//! Whole groups on real and simulated disks.
