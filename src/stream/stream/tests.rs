//! Each rule by a table, then all of them against a model.

mod harness;
mod rules;
