//! What the server publishes about itself under $SYS, and what it answers there.

use std::sync::Arc;

use broker::{Account, Deliveries, Latency, Link};
use links::{Client, ClosedClient};

use crate::Server;

/// A client has logged in.
pub fn connected(_: &Arc<Server>, _: &Client) {}
/// A client is gone.
pub fn disconnected(_: &Arc<Server>, _: &ClosedClient) {}
/// A client was refused.
pub fn auth_error(_: &Arc<Server>, _: &Client, _: &str) {}
/// The server is about to end.
pub fn shutdown(_: &Arc<Server>) {}
/// The server has become a lame duck.
pub fn lame_duck(_: &Arc<Server>) {}
/// The JSON of `Nats-Request-Info`.
pub fn request_info(_: &Arc<Server>, _: &Link, importer: &Account, _: bool) -> String {
    format!("{{\"acc\":{:?}}}", importer.name)
}
/// A latency was measured.
pub fn latency(_: &Arc<Server>, _: &mut Deliveries, _: &Latency<'_>) {}
