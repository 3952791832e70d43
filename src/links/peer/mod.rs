//! Links between Fulmar nodes: one connection a node pair, which carries consensus, calls of one engine to another, and bulk.
//!
//! Owns the connections, their order of life and their queues. Knows no frame's meaning: [`PeerHooks`] does. Whom to connect to is the
//! mesh's to say: a member whose route INFO carries a node id. docs/design/0021-clusters.md says why it is so.
//!
//! Start reading at [`Hub`] (which link there is with whom), then `judge` (which of two stays), then `link` (one link's life), `outbox`
//! (what is sent next) and `greet` (how a connection becomes a link).
//!
//! Invariants:
//! * N-1: with one node there is at most one link at a time, and both ends come to keep the same one.
//! * N-2: nothing of an older link with a node is handed on once a newer one is up, and a link's frames lie between its up and its down.
//! * N-3: what waits for a link is bounded, lane by lane; what finds no room is refused to its sender.
//! * N-4: a piece waits for no more than a batch that is on its way and, if others are more urgent, a fixed share of their pieces.
//! * N-5: no link is with ourselves, with another cluster, with somebody who has no right to it, or of a version that one end does not know.

mod greet;
mod hub;
mod judge;
mod link;
mod outbox;

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use env::Wall;

pub(crate) use greet::accept;
pub use hub::{Hub, HubOptions};

/// A node: the number that its store drew when it was made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Node(pub u64);

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&wire::peer::hex(self.0))
    }
}

/// How urgent a frame is. Numbers are on the wire, where 0 is the link's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Lane {
    /// Heartbeats: small, and worthless when late.
    Beat = 1,
    /// What consensus sends.
    Consensus = 2,
    /// Requests and answers.
    Call = 3,
    /// What may take its time: state for those who were away.
    Bulk = 4,
}

/// What the server wants to hear. Calls are short and do not block, and no lock is held during them; those of one link come in order, on
/// the link's worker.
pub trait PeerHooks: Send + Sync + 'static {
    /// There is a link with a node of this name, over which this version is spoken.
    fn up(&self, node: Node, name: &str, version: u32);
    /// It has ended; a newer one may be up already at the other end, but not here.
    fn down(&self, node: Node);
    /// A frame came.
    fn frame(&self, node: Node, kind: u8, body: Bytes);
}

/// Limits and times of links.
#[derive(Clone, Debug)]
pub struct PeerLimits {
    /// Bytes that may wait in each lane, from [`Lane::Beat`] on. A frame that finds its lane empty is always taken.
    pub lane_bytes_max: [usize; 4],
    /// Longest frame in bytes.
    pub frame_bytes_max: usize,
    /// Silence after which the other end is asked for a sign of life.
    pub ping_after: Duration,
    /// Silence after which a link is dead. Too short: links break when a process hiccups. Too long: a way that is open again is not used.
    pub silence_max: Duration,
    /// How long the socket may take nothing.
    pub write_deadline: Duration,
    /// First pause after a failed attempt; they double.
    pub retry_min: Duration,
    /// Longest pause.
    pub retry_max: Duration,
    /// How long the node with the greater id waits for the other's attempt before it makes its own.
    pub yield_for: Duration,
    /// How long opening a connection, and its greeting, may take each.
    pub greeting_max: Duration,
}

impl Default for PeerLimits {
    fn default() -> PeerLimits {
        PeerLimits {
            lane_bytes_max: [1 << 20, 64 << 20, 32 << 20, 32 << 20],
            frame_bytes_max: 96 << 20,
            ping_after: Duration::from_secs(1),
            silence_max: Duration::from_secs(5),
            write_deadline: Duration::from_secs(10),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(1),
            yield_for: Duration::from_millis(500),
            greeting_max: Duration::from_secs(2),
        }
    }
}

/// A link as monitoring shows it.
#[derive(Clone, Debug)]
pub struct PeerStats {
    /// The other node.
    pub node: Node,
    /// Its server's name.
    pub name: String,
    /// The other end's address.
    pub address: SocketAddr,
    /// The version that is spoken.
    pub version: u32,
    /// This server opened it.
    pub solicited: bool,
    /// Which of the links with this node it is, from 1.
    pub generation: u64,
    /// Since when.
    pub start: Wall,
    /// Last measured round trip; zero before the first.
    pub rtt: Duration,
    /// Frames that came.
    pub in_frames: u64,
    /// Bytes that came.
    pub in_bytes: u64,
    /// Frames that were handed to the socket.
    pub out_frames: u64,
    /// Bytes that the socket took.
    pub out_bytes: u64,
    /// Bytes that wait, by lane from [`Lane::Beat`] on.
    pub pending: [usize; 4],
    /// Frames that found no room.
    pub refused: u64,
}

#[cfg(test)]
mod tests;
