//! Storms of JetStream on one node: publishers with ids and expectations, a key-value bucket with compare-and-set, pull consumers
//! that forget, refuse and give up; a server that is killed, loses power, stops and has its clock set; then calm, a
//! complete read-back, and the verdict.
//!
//! As in the core storms a plan is data. Each actor does its steps one after another over a connection of its own, and comes back
//! when it loses it; what it does not know it notes as unknown.

pub mod actor;
pub mod check;
pub mod copies;
pub mod memory;
pub mod nats;
pub mod plan;
pub mod record;
pub mod run;
pub mod shrink;
#[cfg(test)]
mod tests;
