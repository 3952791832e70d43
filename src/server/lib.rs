//! The server: options, assembly, reload, signals, monitoring. Holds no rule that a lower floor could hold.
//!
//! Start reading at [`main`], then [`Server`].

mod cluster;
mod command;
mod events;
mod files;
mod heard;
mod hooks;
mod jetstream;
mod log;
pub mod monitor;
pub mod options;
mod quiet;
mod settings;
mod start;
mod store_dir;
mod transports;

pub use cluster::peers;
pub use command::main;
pub use jetstream::store_keys;
pub use log::Log;
pub use start::{API_LEVEL, Bound, Server, StartError, VERSION};
