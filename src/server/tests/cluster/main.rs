//! Servers of a cluster: their routes, what flows over them, and a nats-server among them.

// These are tests: processes, files and the clock are what they are made of, and helpers fail like test functions.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used, clippy::print_stdout)]

mod copies;
mod flows;
mod jetstream;
mod leaders;
mod members;
mod mixed;
mod peers;
mod rescue;
mod support;
