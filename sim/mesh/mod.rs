//! Storms of core messaging over several servers: routes that are cut, slow, reset and made anew while clients of all servers subscribe,
//! leave and publish.
//!
//! The line is that of the other storms: options, plan, run, verdict. What holds across servers is less than on one: interest travels, so a
//! message may find it late. So during a storm only what must never happen is judged, and what must happen once all is calm.

pub mod check;
pub mod client;
pub mod plan;
pub mod run;

#[cfg(test)]
mod tests;
