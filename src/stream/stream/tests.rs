//! Each rule by a table, then all of them against a model.

mod checkpoints;
mod harness;
mod model;
mod recorded;
mod rules;
