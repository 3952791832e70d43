//! Lives of replicas: the numbers that tell a replica that forgot from the one that it was.
//!
//! Owns a counter of this node, durable before a number is used. A node is one machine with one store and has one id for good; a *replica* of a group on
//! it is named by that id and an incarnation. The first members of a group have incarnation 0. Whoever comes to a group later, or comes
//! back to it with nothing, gets the next number: it must not be taken for one that acknowledged what it does not have.
//!
//! - D-9: two lives of a replica that do not remember each other never have the same name.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::NodeId;

use crate::{options::Error, replicas::Shared};

/// The group under whose hard state the counter is kept. No group of the layer above has this id.
pub(crate) const COUNTER: store::GroupId = store::GroupId(0);
const VERSION: u8 = 1;
/// More numbers than rounds that are lost at once can hold: a number is a round, and a file of the journal has fewer of them.
const LOST_MAX: u32 = 1 << 20;

/// The machine that a replica is on: what the layers above and the links know.
pub(crate) fn node(replica: NodeId) -> NodeId {
    NodeId::new(replica.id, 0)
}

fn encode(n: u32) -> Bytes {
    let mut b = BytesMut::with_capacity(5);
    b.put_u8(VERSION);
    b.put_u32_le(n);
    b.freeze()
}

fn decode(mut b: &[u8]) -> Option<u32> {
    if b.is_empty() {
        return Some(0);
    }
    (b.len() == 5 && b.get_u8() == VERSION).then(|| b.get_u32_le())
}

impl Shared {
    /// A number that no replica of this node ever had (D-9). Returns when that is durable.
    ///
    /// # Errors
    /// The store's; or the counter is damaged, and with it the knowledge of what was given.
    pub(crate) async fn next_incarnation(&self) -> Result<u32, Error> {
        self.count(1).await
    }
    /// Writes the counter as it is, and returns when that is durable.
    ///
    /// # Errors
    /// As [`Shared::next_incarnation`].
    pub(crate) async fn probe(&self) -> Result<(), Error> {
        self.count(0).await.map(|_| ())
    }
    async fn count(&self, by: u32) -> Result<u32, Error> {
        let mut unsure = self.counting.lock().await;
        let (group, made) = match self.store.group(COUNTER) {
            Ok(g) => (g, None),
            Err(store::Error::NoGroup(_)) => {
                let (g, made) = self.store.create(COUNTER, false, &[])?;
                (g, Some(made))
            }
            Err(e) => return Err(e.into()),
        };
        let unfit = || Error::Unfit("the counter of this node's replicas is damaged".to_owned());
        let last = decode(&group.known_hard_state()).ok_or_else(unfit)?;
        // Numbers that were given may stand in what is damaged or gone of the journal.
        let leap = if group.hard_state().is_none() || *unsure { LOST_MAX } else { 0 };
        let next = last.checked_add(by + leap).ok_or_else(unfit)?;
        let written = group.set_hard_state(encode(next))?;
        if let Some(made) = made {
            made.durable().await?;
        }
        written.durable().await?;
        *unsure = false;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_counter() {
        assert_eq!(encode(0x0102)[..], [1, 2, 1, 0, 0]);
        assert_eq!((decode(&encode(7)), decode(&[])), (Some(7), Some(0)));
        assert!((1..5).all(|n| decode(&encode(7)[..n]).is_none()));
    }
}
