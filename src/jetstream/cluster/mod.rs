//! The engine as one of several: what it is told of the others, and what it sends them.
//!
//! Owns the seam to the network ([`Wires`], [`Kind`]), and in its parts the making of the meta group, the placement of assets, and the way of a
//! request to the node that answers it. Does not own links: the server gives them.

mod alone;
pub(crate) mod ask;
pub(crate) mod calls;
mod formation;
pub(crate) mod healing;
pub(crate) mod identity;
pub(crate) mod keeper;
mod leaving;
pub(crate) mod moving;
mod namesakes;
mod notes;
pub(crate) mod place;
pub(crate) mod rescue;
mod shell;
pub(crate) mod status;
pub(crate) mod system;
#[cfg(test)]
mod tests;
mod told;
mod usage;

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use replica::NodeId;

pub(crate) use shell::{Cluster, Port};

/// A node's id as texts have it: 16 hexadecimal digits, and its incarnation if it has one.
#[must_use]
pub fn text_of(n: NodeId) -> String {
    if n.incarnation == 0 { format!("{:016x}", n.id) } else { format!("{:016x}.{}", n.id, n.incarnation) }
}

/// Reads what [`text_of`] wrote.
#[must_use]
pub fn node_of(text: &str) -> Option<NodeId> {
    let (id, incarnation) = match text.split_once('.') {
        Some((id, i)) => (id, i.parse().ok()?),
        None => (text, 0),
    };
    let id = u64::from_str_radix(id, 16).ok().filter(|id| *id != 0 && text.len() >= 16)?;
    Some(NodeId::new(id, incarnation))
}

/// What a body between two engines is. The numbers are what goes over the wire; new ones are added at the end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A frame of consensus. May be lost; never behind anything else.
    Raft = 1,
    /// A request that is answered with [`Kind::Answer`]. If it is lost the caller's deadline passes.
    Call = 2,
    /// The answer to a call.
    Answer = 3,
    /// A message of a client for a stream that another node leads. Lost as on the wire to a client.
    Forward = 4,
    /// What a node says of itself. Sent again when something changes, so that one that is lost does little harm.
    Hello = 5,
}

/// Which of a link's lanes carries a body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Never waits behind the others.
    Consensus,
    /// Requests between engines.
    Calls,
    /// What clients send in numbers.
    Bulk,
}

impl Kind {
    /// The kind of a number from the wire.
    #[must_use]
    pub const fn of(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Raft,
            2 => Kind::Call,
            3 => Kind::Answer,
            4 => Kind::Forward,
            5 => Kind::Hello,
            _ => return None,
        })
    }
    /// Its lane.
    #[must_use]
    pub const fn lane(self) -> Lane {
        match self {
            Kind::Raft => Lane::Consensus,
            Kind::Call | Kind::Answer | Kind::Hello => Lane::Calls,
            Kind::Forward => Lane::Bulk,
        }
    }
}

/// Links to the other nodes, one each, as the server keeps them. Bodies of one lane to one node arrive in order or not at all; what was sent over
/// a link that broke never arrives behind what was sent over the next (D-7).
pub trait Wires: Send + Sync + 'static {
    /// Sends a body, or drops it and says so if there is no link or too much waits in its lane. Never waits, and is called under locks: it must not
    /// call the engine.
    fn send(&self, to: NodeId, kind: Kind, body: Bytes) -> bool;
    /// Ends when all servers have heard of the interest of this one as it is now, and what they had sent to it before is here. As slow as the
    /// slowest connection.
    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// What makes an engine one of several.
pub struct Setup {
    /// The links.
    pub wires: Arc<dyn Wires>,
    /// The cluster's name.
    pub name: String,
    /// How many servers besides this one are configured.
    pub others: usize,
    /// The server's tags.
    pub tags: Vec<String>,
    /// Of tags that begin so no two members of a stream may have the same; empty for no such rule.
    pub unique_tag: String,
}

#[cfg(test)]
mod kinds {
    use super::*;

    #[test]
    fn numbers_of_kinds_stay() {
        for n in 0..=255 {
            if let Some(kind) = Kind::of(n) {
                assert_eq!(kind as u8, n);
            }
        }
        assert_eq!(Kind::of(6), None);
        assert_eq!((Kind::Raft.lane(), Kind::Forward.lane()), (Lane::Consensus, Lane::Bulk));
    }
}
