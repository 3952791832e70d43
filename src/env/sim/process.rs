//! The process, as the harness described it.

use std::io;

use super::world::World;

/// This process's number; a restart changes it.
pub fn id() -> u32 {
    World::with_here(|m, _| m.pid()).unwrap_or(1)
}
/// The program's name.
pub fn exe_name() -> String {
    "fulmar".into()
}
/// The command line after the program's name.
pub fn args() -> Vec<String> {
    World::with_here(|m, _| m.args.clone()).unwrap_or_default()
}
/// A variable of the environment.
pub fn var(name: &str) -> Option<String> {
    World::with_here(|m, _| m.vars.get(name).cloned()).flatten()
}
/// Computation takes no time here.
pub fn cpu_seconds() -> f64 {
    0.0
}
/// Memory is not modelled: always 16 MiB.
pub fn rss_bytes() -> u64 {
    16 << 20
}
/// Always 8 GiB.
pub fn memory_total() -> u64 {
    8 << 30
}
/// Handles are not limited.
pub fn raise_open_file_limit() -> io::Result<u64> {
    Ok(1 << 20)
}
/// The machine's name.
pub fn hostname() -> String {
    World::with_here(|m, _| m.name.clone()).unwrap_or_default()
}
/// Every machine is in UTC.
pub fn utc_offset_secs(_unix: i64) -> i32 {
    0
}
