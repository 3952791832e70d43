//! The part that stands on the real machine.
pub mod bulk;
pub mod client;
pub mod cluster;
pub mod command;
pub mod damage;
pub mod image;
pub mod links;
pub mod many;
pub mod nemesis;
pub mod recorder;
pub mod report;
pub mod scale;
pub mod scenario;
pub mod subject;
pub mod workload;

/// Why something could not be done; for a person.
pub type Wrong = String;

/// Says on the error output what happens now; a run takes long and is watched.
pub(crate) fn tell(text: &str) {
    use std::io::Write;
    let mut out = std::io::stderr().lock();
    // Whoever watched may have gone.
    out.write_all(format!("{text}\n").as_bytes()).ok();
}
