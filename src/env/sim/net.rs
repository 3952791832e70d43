//! TCP between simulated machines: ordered byte streams over links that delay, lose and cut.
//!
//! Owns: listeners, connections, links and names. Does not own: duplicated or reordered messages, which TCP never shows.
//! Nothing here runs by itself: bytes lie in their receiver's inbox with the time of their arrival, and whoever waits for
//! them sleeps until that time. Invariants:
//!
//! - E-8: bytes arrive in order, once, and only while their sender's machine could have sent them.
//! - E-9: at most a window of bytes is on the way or unread per direction; a writer beyond it must wait.

mod model;
mod stream;

pub(crate) use model::Net;
pub use model::{Link, NetOptions, RETRANSMIT_NS, Trigger};
pub use stream::{Accepted, TcpListener, TcpStream, interface_addresses, resolve};

use super::world::{Machine, World, elapsed};
use crate::trace;

impl World {
    /// Changes how all links and sockets behave from now on.
    pub fn set_net(&self, f: impl FnOnce(&mut NetOptions)) {
        self.net(|n| f(&mut n.options))
    }
    /// How the link from `from` to `to` behaves; `None` puts the general options back.
    pub fn set_link(&self, from: &Machine, to: &Machine, link: Option<Link>) {
        trace::event("link", &[from.number(), to.number(), u64::from(link.is_some())]);
        self.net(|n| n.set_link(from.id, to.id, link))
    }
    /// When the link from `from` to `to` will have carried all that it was given while its speed was limited, in nanoseconds since the start: it is carried at
    /// that speed although the limit may be over, and although who sent it may be gone.
    pub fn carries_until(&self, from: &Machine, to: &Machine) -> u64 {
        self.net(|n| n.carries_until(from.id, to.id))
    }
    /// Cuts the link in one direction: what is on the way and what is sent arrives only after [`World::heal`].
    pub fn cut(&self, from: &Machine, to: &Machine) {
        trace::event("cut", &[from.number(), to.number()]);
        let t = elapsed().unwrap_or(0);
        self.net(|n| n.cut(from.id, to.id, t))
    }
    /// Heals one direction; what was held back arrives after a retransmission's delay.
    pub fn heal(&self, from: &Machine, to: &Machine) {
        trace::event("heal", &[from.number(), to.number()]);
        let t = elapsed().unwrap_or(0);
        self.net(|n| n.heal(from.id, to.id, t))
    }
    /// Cuts both directions.
    pub fn part(&self, a: &Machine, b: &Machine) {
        self.cut(a, b);
        self.cut(b, a);
    }
    /// Heals both directions.
    pub fn join(&self, a: &Machine, b: &Machine) {
        self.heal(a, b);
        self.heal(b, a);
    }
    /// Resets every connection between two machines: both sides see an error at once.
    pub fn reset(&self, a: &Machine, b: &Machine) {
        trace::event("reset", &[a.number(), b.number()]);
        self.net(|n| n.reset_between(a.id, b.id))
    }
    /// After exactly `bytes` more bytes from `from` to `to` the trigger fires, in the middle of a write if need be.
    pub fn after_bytes(&self, from: &Machine, to: &Machine, bytes: u64, what: Trigger) {
        self.net(|n| n.after_bytes(from.id, to.id, bytes, what))
    }
}
