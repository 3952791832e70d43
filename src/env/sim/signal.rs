//! Signals that the harness sends.

use std::io;

use tokio::sync::mpsc;

use super::world::{Death, World};
use crate::signal::Signal;

/// The signals that this process receives from now on.
#[derive(Debug)]
pub struct Signals(mpsc::Receiver<Signal>);

impl Signals {
    /// Begins to listen.
    pub fn listen() -> io::Result<Signals> {
        let (tx, rx) = mpsc::channel(16);
        World::with_here(|m, _| m.signals.push(tx));
        Ok(Signals(rx))
    }
    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(s) => s,
            // The sender lives as long as the process.
            None => std::future::pending().await,
        }
    }
}

/// Sends a signal to a process of this machine.
pub fn send(pid: u32, what: Signal) -> io::Result<()> {
    let here = World::here()
        .filter(|(_, n)| World::with_here(|m, _| m.pid() == pid).unwrap_or(false) && n.is_some());
    match here.and_then(|(w, n)| Some((w, n?))) {
        Some((w, n)) => {
            deliver(&w, n, what);
            Ok(())
        }
        None => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

/// Gives the signal to those who listen; where nobody does it ends the process, as the system would.
pub fn deliver(world: &World, node: madsim::task::NodeId, what: Signal) {
    let heard = what != Signal::Kill
        && world.with(node, |m, _| {
            m.signals.retain(|s| !s.is_closed());
            m.signals.iter().filter(|s| s.try_send(what).is_ok()).count() > 0
        });
    if !heard {
        world.kill(node, Death::Process);
    }
}

/// There is nobody else on this machine.
pub fn find(_name: &str) -> io::Result<Vec<u32>> {
    Ok(Vec::new())
}
