//! The server: options, assembly, reload, signals, monitoring. Holds no rule that a lower floor could hold.
//!
//! Start reading at [`main`], then [`Server`].

mod events;
mod files;
mod hooks;
mod log;
mod command;
pub mod monitor;
pub mod options;
mod settings;
mod start;

pub use log::Log;
pub use command::main;
pub use start::{API_LEVEL, Bound, Server, StartError, VERSION};
