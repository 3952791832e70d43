//! Connections: clients over TCP, TLS and WebSocket, routes to the other servers of a cluster, links to the other Fulmar nodes
//! among them (gateways and leaf nodes come to stand here too).
//!
//! Owns: accepting, the handshakes, reading and cutting into operations, the order of a connection's life, its timers and
//! its end. Matches no subject itself: it asks the broker. Decides no login: it asks `identity`. Knows no option's name:
//! `server` hands it [`Settings`].
//!
//! Start reading at [`client`]: one task a connection, which reads, and writes what it has caused others to receive. What
//! lies between its socket and the protocol is in `transport`, and how it comes to lie there in `handshake`.
//!
//! Invariants:
//! * L-1: nothing but CONNECT is done for a client that has yet to log in.
//! * L-2: an idle connection holds no read buffer and no write buffer.
//! * L-3: a connection that does not read, does not speak or does not answer is closed within its deadline.
//! * L-4: every end of a connection has one reason, and its last words are written before the socket closes if it takes them.
//! * L-5 to L-11 stand in the modules that keep them: `proxy`, `ws`, `transport`, `cpu`, `client::reload`; L-12 in
//!   `client::trace`.

// The ban of tokio::select! strikes env::select! too, which wraps it.
#![allow(clippy::disallowed_macros)]

pub mod client;
mod context;
mod cpu;
mod handshake;
pub mod peer;
pub mod proxy;
mod registry;
pub mod route;
pub mod tls;
mod transport;
pub mod ws;

pub use client::trace::{self, Tracing};
pub use context::{Context, Hooks, Settings};
pub use cpu::{Cpu, Job};
pub use registry::{Client, ClosedClient, ClosedSubscription, Facts, Registry};
pub use tls::TlsSettings;
pub use transport::Socket;
pub use ws::WebSocketSettings;

#[cfg(test)]
mod loopback;
