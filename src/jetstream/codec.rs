//! Bytes of the engine's own: what goes into the meta group's log and over the links to other nodes.
//!
//! Owns nothing but the writing and reading of numbers, texts and nodes. Reading never panics: what does not fit is `None`.

use std::sync::Arc;

use bytes::BufMut;
use replica::NodeId;

/// A count as the formats have it.
pub fn count(n: usize) -> u32 {
    u32::try_from(n).expect("there are fewer than 4 billion of anything here")
}
/// Bytes behind their length.
pub fn put(out: &mut Vec<u8>, b: &[u8]) {
    out.put_u32_le(u32::try_from(b.len()).expect("names and configurations are shorter than 4 GiB"));
    out.extend_from_slice(b);
}
/// A node.
pub fn put_node(out: &mut Vec<u8>, n: NodeId) {
    out.put_u64_le(n.id);
    out.put_u32_le(n.incarnation);
}
/// Nodes behind their count.
pub fn put_nodes<'a>(out: &mut Vec<u8>, all: impl ExactSizeIterator<Item = &'a NodeId>) {
    out.put_u32_le(count(all.len()));
    all.for_each(|n| put_node(out, *n));
}

/// Reads what [`put`] and its neighbours wrote.
pub struct Get<'a>(pub &'a [u8]);

impl<'a> Get<'a> {
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (a, b) = self.0.split_at_checked(n)?;
        self.0 = b;
        Some(a)
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()?;
        self.take(usize::try_from(n).ok()?)
    }
    pub fn text(&mut self) -> Option<Arc<str>> {
        Some(str::from_utf8(self.bytes()?).ok()?.into())
    }
    pub fn node(&mut self) -> Option<NodeId> {
        Some(NodeId::new(self.u64()?, self.u32()?))
    }
    pub fn nodes(&mut self) -> Option<Vec<NodeId>> {
        (0..self.u32()?).map(|_| self.node()).collect()
    }
}
