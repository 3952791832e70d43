//! Tests of the core as a whole: text scripts with whole traces, and the rules of the Raft paper one by one.

mod bench_world;
mod paper;
mod properties;
mod script;
