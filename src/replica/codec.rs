//! The bytes that the driver keeps in the store: hard states, and what stands before a group's options and checkpoints.
//!
//! Owns the layouts, little-endian, each with a version first. Golden bytes are in the tests. Does not own what the layer above puts
//! behind them, nor the encoding of a membership, which is raft's.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::{HardState, LogIndex, Members, NodeId, Term};

/// The version that this code writes and the only one it reads.
const VERSION: u8 = 1;

/// A hard state: version, flags (1: there is a vote, 2: the replica is distrusted), term, commit, the vote's id and incarnation.
pub(crate) fn hard_state(h: &HardState) -> Bytes {
    let mut b = BytesMut::with_capacity(30);
    b.put_u8(VERSION);
    b.put_u8(u8::from(h.vote.is_some()) | u8::from(h.doubt) << 1);
    b.put_u64_le(h.term.0);
    b.put_u64_le(h.commit.0);
    let vote = h.vote.unwrap_or_default();
    b.put_u64_le(vote.id);
    b.put_u32_le(vote.incarnation);
    b.freeze()
}

/// Bytes of a hard state.
pub(crate) const HARD_STATE: usize = 30;

/// What a group with its log in memory keeps on disk: a hard state, and behind it the newest membership.
pub(crate) fn memory_state(h: &HardState, members: &Members) -> Bytes {
    let mut b = BytesMut::from(&hard_state(h)[..]);
    b.extend_from_slice(&members.encode());
    b.freeze()
}

/// The membership in [`memory_state`]; `None` if there is none that can be read.
pub(crate) fn read_memory_members(b: &Bytes) -> Option<Members> {
    b.get(HARD_STATE..).and_then(Members::decode)
}

/// Reads a hard state; nothing at all is the one before the first.
pub(crate) fn read_hard_state(mut b: &[u8]) -> Option<HardState> {
    if b.is_empty() {
        return Some(HardState::default());
    }
    if b.len() != HARD_STATE || b.get_u8() != VERSION {
        return None;
    }
    let flags = b.get_u8();
    if flags > 3 {
        return None;
    }
    let (term, commit) = (Term(b.get_u64_le()), LogIndex(b.get_u64_le()));
    let vote = NodeId::new(b.get_u64_le(), b.get_u32_le());
    Some(HardState { term, vote: (flags & 1 > 0).then_some(vote), commit, doubt: flags & 2 > 0 })
}

/// Members, and behind them the bytes of the layer above: a group's options, and its checkpoints.
pub(crate) fn with_members(members: &Members, rest: &[u8]) -> Bytes {
    let m = members.encode();
    let mut b = BytesMut::with_capacity(5 + m.len() + rest.len());
    b.put_u8(VERSION);
    b.put_u32_le(u32::try_from(m.len()).expect("R-10: a membership is bounded"));
    b.extend_from_slice(&m);
    b.extend_from_slice(rest);
    b.freeze()
}

/// Takes [`with_members`] apart.
pub(crate) fn read_members(bytes: &Bytes) -> Option<(Members, Bytes)> {
    let mut b = &bytes[..];
    if b.len() < 5 || b.get_u8() != VERSION {
        return None;
    }
    let n = usize::try_from(b.get_u32_le()).ok()?;
    let members = Members::decode(b.get(..n)?)?;
    Some((members, bytes.slice(5 + n..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_hard_state() {
        let h = HardState {
            term: Term(7),
            vote: Some(NodeId::new(3, 2)),
            commit: LogIndex(0x0102),
            doubt: false,
        };
        let b = hard_state(&h);
        assert_eq!(
            b[..],
            [1, 1, 7, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]
        );
        assert_eq!(read_hard_state(&b), Some(h));
        assert_eq!(read_hard_state(&[]), Some(HardState::default()));
        assert!((1..b.len()).all(|n| read_hard_state(&b[..n]).is_none()));
        let none = HardState { vote: None, ..h };
        assert_eq!(read_hard_state(&hard_state(&none)), Some(none));
        let doubted = hard_state(&HardState { doubt: true, ..h });
        assert_eq!((doubted[1], &doubted[2..]), (3, &b[2..]));
        assert_eq!(read_hard_state(&doubted), Some(HardState { doubt: true, ..h }));
    }

    #[test]
    fn golden_memory_state() {
        let h = HardState { term: Term(7), vote: None, commit: LogIndex(3), doubt: false };
        let m = Members::of([NodeId::new(1, 4)]);
        let b = memory_state(&h, &m);
        assert_eq!(b[..], [&hard_state(&h)[..], &m.encode()].concat());
        assert_eq!((read_hard_state(&b[..HARD_STATE]), read_memory_members(&b)), (Some(h), Some(m)));
        assert!((0..b.len()).all(|n| read_memory_members(&b.slice(..n)).is_none()));
    }

    #[test]
    fn golden_members() {
        let m = Members::of([NodeId::new(1, 0)]);
        let b = with_members(&m, b"rest");
        assert_eq!(
            b[..],
            [&[1, 21, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], b"rest"]
                .concat()
        );
        assert_eq!(read_members(&b), Some((m, Bytes::from_static(b"rest"))));
        assert!((0..26).all(|n| read_members(&b.slice(..n)).is_none()));
    }
}
