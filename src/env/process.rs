//! Facts about this process and its machine.
//!
//! Owns no state. In simulation the facts are those that the harness gave the node.

pub use crate::imp::process::{
    args, cpu_seconds, exe_name, hostname, id, memory_total, raise_open_file_limit, rss_bytes, var,
};
