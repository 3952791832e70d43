//! The frames between nodes: raft messages, and the heartbeats of node pairs.
//!
//! Owns the layout: a version, a kind, then fields, little-endian; lists carry their count, byte strings their length. Golden bytes are
//! in the tests. Payloads are slices of the frame, not copies. Does not own links: how a frame finds its way is [`crate::Peers`]'.
//!
//! - D-6: a frame that cannot be read, or an entry whose payload is not what its proposer made, is dropped whole before anything hears of it.

use bytes::{BufMut, Bytes, BytesMut};
use raft::{
    Append, Body, Chain, Entry, EntryKind, GroupId, LogIndex, Members, Message, NodeId, SnapshotMeta, Term,
};

use crate::transfer::{Fetch, Part};

/// The version that this code writes and the only one it reads.
const VERSION: u8 = 1;
/// Bytes of a frame at most: the largest entry with room for its neighbours' headers.
pub const FRAME_MAX: usize = 80 << 20;
/// Bytes of an entry without its payload.
const ENTRY_MIN: usize = 33;
/// Groups that one heartbeat excepts at most; the others follow with the next ones.
pub(crate) const EXCEPTED_MAX: usize = 4096;

/// What nodes send to each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Frame {
    /// Between two replicas of a group.
    Raft(Message),
    /// Support me. Of this life of the sender, sent at this moment of its clock.
    Beat { boot: u64, sent_at: u64, excepted: Vec<(GroupId, Term)> },
    /// The answer: I do, in this epoch, for the heartbeat that left in that life at that moment.
    Support { epoch: u64, boot: u64, sent_at: u64 },
    /// Which replica of this group do you have?
    Ask { group: GroupId },
    /// The answer.
    Here { group: GroupId, replica: NodeId },
    /// Give me your state of this group, or more of it.
    Fetch(Fetch),
    /// A part of it.
    Part(Part),
    /// I do not have it.
    NoState { group: GroupId, id: u64 },
}

/// How urgent a frame is: what a link does not have to read further to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// A heartbeat of the node pair or its answer: leases hang on it.
    Beat,
    /// Consensus.
    Message,
    /// What may take its time: parts of logs and of states for those who lack them.
    Bulk,
}

/// How urgent an encoded frame is. Frames of one urgency are to stay in order.
#[must_use]
pub fn urgency(frame: &[u8]) -> Urgency {
    match frame.get(1) {
        Some(64 | 65) => Urgency::Beat,
        Some(18 | 69) => Urgency::Bulk,
        _ => Urgency::Message,
    }
}

struct Out(BytesMut);

impl Out {
    fn u8(&mut self, v: u8) -> &mut Self {
        self.0.put_u8(v);
        self
    }
    fn u64(&mut self, v: u64) -> &mut Self {
        self.0.put_u64_le(v);
        self
    }
    fn node(&mut self, n: NodeId) -> &mut Self {
        self.0.put_u64_le(n.id);
        self.0.put_u32_le(n.incarnation);
        self
    }
    fn maybe(&mut self, v: Option<u64>) -> &mut Self {
        self.u8(u8::from(v.is_some())).u64(v.unwrap_or(0))
    }
    fn bytes(&mut self, b: &[u8]) -> &mut Self {
        self.0.put_u32_le(u32::try_from(b.len()).expect("R-16: what is sent is bounded"));
        self.0.extend_from_slice(b);
        self
    }
    fn meta(&mut self, m: &SnapshotMeta) -> &mut Self {
        self.u64(m.index.0).u64(m.term.0).u64(m.chain.0).bytes(&m.members.encode())
    }
    fn entries(&mut self, entries: &[Entry]) -> &mut Self {
        self.0.put_u32_le(u32::try_from(entries.len()).expect("R-16: what is sent is bounded"));
        for e in entries {
            self.u64(e.index.0).u64(e.term.0).u64(e.chain.0).u8(e.kind as u8);
            self.0.put_u32_le(e.digest);
            self.bytes(&e.payload);
        }
        self
    }
}

struct In {
    all: Bytes,
    at: usize,
}

impl In {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let b = self.all.get(self.at..self.at.checked_add(N)?)?;
        self.at += N;
        b.try_into().ok()
    }
    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|b| b[0])
    }
    fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
    fn index(&mut self) -> Option<LogIndex> {
        self.u64().map(LogIndex)
    }
    fn term(&mut self) -> Option<Term> {
        self.u64().map(Term)
    }
    fn node(&mut self) -> Option<NodeId> {
        Some(NodeId::new(self.u64()?, self.u32()?))
    }
    fn maybe(&mut self) -> Option<Option<u64>> {
        let there = self.bool()?;
        let v = self.u64()?;
        Some(there.then_some(v))
    }
    fn bytes(&mut self) -> Option<Bytes> {
        let n = usize::try_from(self.u32()?).ok()?;
        let end = self.at.checked_add(n).filter(|e| *e <= self.all.len())?;
        let b = self.all.slice(self.at..end);
        self.at = end;
        Some(b)
    }
    fn count(&mut self, min: usize) -> Option<usize> {
        let n = usize::try_from(self.u32()?).ok()?;
        // So that a count alone reserves nothing.
        (n.checked_mul(min)? <= self.all.len() - self.at).then_some(n)
    }
    fn meta(&mut self) -> Option<Box<SnapshotMeta>> {
        let (index, term, chain) = (self.index()?, self.term()?, Chain(self.u64()?));
        let members = Members::decode(&self.bytes()?)?;
        Some(Box::new(SnapshotMeta { index, term, chain, members }))
    }
    fn entries(&mut self) -> Option<Vec<Entry>> {
        let n = self.count(ENTRY_MIN)?;
        let mut out = Vec::with_capacity(n);
        for _ in 0..n {
            let (index, term, chain) = (self.index()?, self.term()?, Chain(self.u64()?));
            let (kind, digest) = (EntryKind::from_u8(self.u8()?)?, self.u32()?);
            let payload = self.bytes()?;
            if checksum::crc32c(&payload) != digest {
                return None;
            }
            out.push(Entry { index, term, chain, kind, digest, payload });
        }
        Some(out)
    }
}

impl Frame {
    /// The frame's bytes.
    pub(crate) fn encode(&self) -> Bytes {
        let mut o = Out(BytesMut::with_capacity(self.size_hint()));
        o.u8(VERSION);
        match self {
            Frame::Raft(m) => message(m, &mut o),
            Frame::Beat { boot, sent_at, excepted } => {
                o.u8(64).u64(*boot).u64(*sent_at);
                o.0.put_u32_le(excepted.len() as u32);
                for (g, t) in excepted {
                    o.u64(g.0).u64(t.0);
                }
            }
            Frame::Support { epoch, boot, sent_at } => {
                o.u8(65).u64(*epoch).u64(*boot).u64(*sent_at);
            }
            Frame::Ask { group } => {
                o.u8(66).u64(group.0);
            }
            Frame::Here { group, replica } => {
                o.u8(67).u64(group.0).node(*replica);
            }
            Frame::Fetch(f) => {
                o.u8(68)
                    .u64(f.group.0)
                    .u64(f.id)
                    .u64(f.index.0)
                    .u64(f.offset)
                    .u64(f.credit)
                    .u8(u8::from(f.again));
            }
            Frame::Part(p) => {
                o.u8(69).u64(p.group.0).u64(p.id).u64(p.offset).u8(u8::from(p.last));
                o.0.put_u32_le(checksum::crc32c(&p.bytes));
                o.bytes(&p.bytes);
            }
            Frame::NoState { group, id } => {
                o.u8(70).u64(group.0).u64(*id);
            }
        }
        o.0.freeze()
    }

    fn size_hint(&self) -> usize {
        let entries = match self {
            Frame::Raft(Message { body: Body::Append(a), .. }) => &a.entries[..],
            Frame::Raft(Message { body: Body::RepairGive(e), .. }) => e,
            Frame::Part(p) => return 64 + p.bytes.len(),
            _ => &[],
        };
        128 + entries.iter().map(|e| ENTRY_MIN + e.payload.len()).sum::<usize>()
    }

    /// Reads a frame (D-6).
    pub(crate) fn decode(all: Bytes) -> Option<Frame> {
        if all.len() > FRAME_MAX {
            return None;
        }
        let mut i = In { all, at: 0 };
        if i.u8()? != VERSION {
            return None;
        }
        let frame = match i.u8()? {
            64 => {
                let (boot, sent_at) = (i.u64()?, i.u64()?);
                let n = i.count(16).filter(|n| *n <= EXCEPTED_MAX)?;
                let mut excepted = Vec::with_capacity(n);
                for _ in 0..n {
                    excepted.push((GroupId(i.u64()?), i.term()?));
                }
                Frame::Beat { boot, sent_at, excepted }
            }
            65 => Frame::Support { epoch: i.u64()?, boot: i.u64()?, sent_at: i.u64()? },
            66 => Frame::Ask { group: GroupId(i.u64()?) },
            67 => Frame::Here { group: GroupId(i.u64()?), replica: i.node()? },
            68 => Frame::Fetch(Fetch {
                group: GroupId(i.u64()?),
                id: i.u64()?,
                index: i.index()?,
                offset: i.u64()?,
                credit: i.u64()?,
                again: i.bool()?,
            }),
            69 => {
                let (group, id, offset, last) = (GroupId(i.u64()?), i.u64()?, i.u64()?, i.bool()?);
                let (crc, bytes) = (i.u32()?, i.bytes()?);
                if checksum::crc32c(&bytes) != crc {
                    return None;
                }
                Frame::Part(Part { group, id, offset, last, bytes })
            }
            70 => Frame::NoState { group: GroupId(i.u64()?), id: i.u64()? },
            kind => Frame::Raft(read_message(kind, &mut i)?),
        };
        (i.at == i.all.len()).then_some(frame)
    }
}

fn message(m: &Message, o: &mut Out) {
    let kind = match &m.body {
        Body::PreVote { .. } => 1,
        Body::PreVoteReply { .. } => 2,
        Body::Vote { .. } => 3,
        Body::VoteReply { .. } => 4,
        Body::Append(_) => 5,
        Body::AppendOk { .. } => 6,
        Body::AppendReject { .. } => 7,
        Body::Beat { .. } => 8,
        Body::BeatOk { .. } => 9,
        Body::Snapshot(_) => 10,
        Body::SnapshotFailed { .. } => 11,
        Body::TimeoutNow => 12,
        Body::Resign => 13,
        Body::Behind => 14,
        Body::ReadIndex { .. } => 15,
        Body::ReadIndexReply { .. } => 16,
        Body::RepairAsk { .. } => 17,
        Body::RepairGive(_) => 18,
    };
    o.u8(kind).u64(m.group.0).node(m.from).node(m.to).u64(m.term.0);
    match &m.body {
        Body::PreVote { last, last_term } => o.u64(last.0).u64(last_term.0),
        Body::PreVoteReply { granted } | Body::VoteReply { granted } => o.u8(u8::from(*granted)),
        Body::Vote { last, last_term, transfer } => o.u64(last.0).u64(last_term.0).u8(u8::from(*transfer)),
        Body::Append(a) => o
            .u64(a.prev.0)
            .u64(a.prev_term.0)
            .maybe(a.prev_chain.map(|c| c.0))
            .u64(a.commit.0)
            .u64(a.round)
            .entries(&a.entries),
        Body::AppendOk { accepted, durable, commit, repair_from, round, epoch } => o
            .u64(accepted.0)
            .u64(durable.0)
            .u64(commit.0)
            .maybe(repair_from.map(|i| i.0))
            .u64(*round)
            .u64(*epoch),
        Body::AppendReject { prev, hint, hint_term, round, epoch } => {
            o.u64(prev.0).u64(hint.0).u64(hint_term.0).u64(*round).u64(*epoch)
        }
        Body::Beat { commit, round } => o.u64(commit.0).u64(*round),
        Body::BeatOk { commit, round, epoch } => o.u64(commit.0).u64(*round).u64(*epoch),
        Body::Snapshot(meta) => o.meta(meta),
        Body::SnapshotFailed { index } => o.u64(index.0),
        Body::TimeoutNow | Body::Resign | Body::Behind => o,
        Body::ReadIndex { id } => o.u64(*id),
        Body::ReadIndexReply { id, index } => o.u64(*id).maybe(index.map(|i| i.0)),
        Body::RepairAsk { first, term, last } => o.u64(first.0).u64(term.0).u64(last.0),
        Body::RepairGive(entries) => o.entries(entries),
    };
}

fn read_message(kind: u8, i: &mut In) -> Option<Message> {
    let (group, from, to, term) = (GroupId(i.u64()?), i.node()?, i.node()?, i.term()?);
    let body = match kind {
        1 => Body::PreVote { last: i.index()?, last_term: i.term()? },
        2 => Body::PreVoteReply { granted: i.bool()? },
        3 => Body::Vote { last: i.index()?, last_term: i.term()?, transfer: i.bool()? },
        4 => Body::VoteReply { granted: i.bool()? },
        5 => {
            let (prev, prev_term) = (i.index()?, i.term()?);
            let prev_chain = i.maybe()?.map(Chain);
            let (commit, round) = (i.index()?, i.u64()?);
            Body::Append(Append { prev, prev_term, prev_chain, entries: i.entries()?, commit, round })
        }
        6 => Body::AppendOk {
            accepted: i.index()?,
            durable: i.index()?,
            commit: i.index()?,
            repair_from: i.maybe()?.map(LogIndex),
            round: i.u64()?,
            epoch: i.u64()?,
        },
        7 => Body::AppendReject {
            prev: i.index()?,
            hint: i.index()?,
            hint_term: i.term()?,
            round: i.u64()?,
            epoch: i.u64()?,
        },
        8 => Body::Beat { commit: i.index()?, round: i.u64()? },
        9 => Body::BeatOk { commit: i.index()?, round: i.u64()?, epoch: i.u64()? },
        10 => Body::Snapshot(i.meta()?),
        11 => Body::SnapshotFailed { index: i.index()? },
        12 => Body::TimeoutNow,
        13 => Body::Resign,
        14 => Body::Behind,
        15 => Body::ReadIndex { id: i.u64()? },
        16 => Body::ReadIndexReply { id: i.u64()?, index: i.maybe()?.map(LogIndex) },
        17 => Body::RepairAsk { first: i.index()?, term: i.term()?, last: i.index()? },
        18 => Body::RepairGive(i.entries()?),
        _ => return None,
    };
    Some(Message { group, from, to, term, body })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> Entry {
        let payload = Bytes::from_static(b"hello");
        let digest = checksum::crc32c(&payload);
        Entry {
            index: LogIndex(9),
            term: Term(3),
            chain: Chain(77),
            kind: EntryKind::Normal,
            digest,
            payload,
        }
    }

    fn bodies() -> Vec<Body> {
        let (i, t) = (LogIndex(5), Term(4));
        let meta = SnapshotMeta {
            index: i,
            term: t,
            chain: Chain(8),
            members: Members::of([NodeId::new(1, 0), NodeId::new(2, 1)]),
        };
        vec![
            Body::PreVote { last: i, last_term: t },
            Body::PreVoteReply { granted: true },
            Body::Vote { last: i, last_term: t, transfer: true },
            Body::VoteReply { granted: false },
            Body::Append(Append {
                prev: i,
                prev_term: t,
                prev_chain: Some(Chain(6)),
                entries: vec![entry(), entry()],
                commit: i,
                round: 2,
            }),
            Body::AppendOk { accepted: i, durable: i, commit: i, repair_from: Some(i), round: 1, epoch: 2 },
            Body::AppendReject { prev: i, hint: i, hint_term: t, round: 1, epoch: 2 },
            Body::Beat { commit: i, round: 3 },
            Body::BeatOk { commit: i, round: 3, epoch: 4 },
            Body::Snapshot(Box::new(meta)),
            Body::SnapshotFailed { index: i },
            Body::TimeoutNow,
            Body::Resign,
            Body::Behind,
            Body::ReadIndex { id: 7 },
            Body::ReadIndexReply { id: 7, index: None },
            Body::RepairAsk { first: i, term: t, last: i },
            Body::RepairGive(vec![Entry {
                kind: EntryKind::Empty,
                digest: 0,
                payload: Bytes::new(),
                ..entry()
            }]),
        ]
    }

    fn frames() -> Vec<Frame> {
        let raft = bodies().into_iter().map(|body| {
            let (from, to) = (NodeId::new(1, 2), NodeId::new(3, 4));
            Frame::Raft(Message { group: GroupId(10), from, to, term: Term(11), body })
        });
        let pairs = [
            Frame::Beat { boot: 1, sent_at: 2, excepted: vec![(GroupId(3), Term(4))] },
            Frame::Support { epoch: 1, boot: 2, sent_at: 3 },
            Frame::Ask { group: GroupId(3) },
            Frame::Here { group: GroupId(3), replica: NodeId::new(1, 2) },
            Frame::Fetch(Fetch {
                group: GroupId(3),
                id: 4,
                index: LogIndex(5),
                offset: 6,
                credit: 7,
                again: true,
            }),
            Frame::Part(Part {
                group: GroupId(3),
                id: 4,
                offset: 5,
                last: true,
                bytes: Bytes::from_static(b"hello"),
            }),
            Frame::NoState { group: GroupId(3), id: 4 },
        ];
        raft.chain(pairs).collect()
    }

    #[test]
    fn urgency_is_seen_without_reading() {
        let beat = Frame::Beat { boot: 1, sent_at: 2, excepted: Vec::new() };
        let support = Frame::Support { epoch: 1, boot: 2, sent_at: 3 };
        assert_eq!((urgency(&beat.encode()), urgency(&support.encode())), (Urgency::Beat, Urgency::Beat));
        for body in bodies() {
            let bulk = matches!(body, Body::RepairGive(_));
            let m = Message {
                group: GroupId(1),
                from: NodeId::new(1, 0),
                to: NodeId::new(2, 0),
                term: Term(1),
                body,
            };
            let expected = if bulk { Urgency::Bulk } else { Urgency::Message };
            assert_eq!(urgency(&Frame::Raft(m).encode()), expected);
        }
        let part =
            Part { group: GroupId(1), id: 2, offset: 3, last: false, bytes: Bytes::from_static(b"part") };
        assert_eq!(urgency(&Frame::Part(part).encode()), Urgency::Bulk);
        assert_eq!(urgency(b""), Urgency::Message);
    }

    #[test]
    fn every_frame_comes_back_and_no_part_of_one_does() {
        for f in frames() {
            let b = f.encode();
            assert_eq!(Frame::decode(b.clone()), Some(f.clone()));
            for n in 0..b.len() {
                assert_eq!(Frame::decode(b.slice(..n)), None, "{f:?} cut at {n}");
            }
            let more = [&b[..], b"x"].concat();
            assert_eq!(Frame::decode(more.into()), None);
        }
    }

    #[test]
    fn golden_bytes() {
        let f = Frame::Support { epoch: 1, boot: 2, sent_at: 3 };
        assert_eq!(
            f.encode()[..],
            [1, 65, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]
        );
        let all: Vec<u8> = frames().iter().flat_map(|f| f.encode()).collect();
        assert_eq!((all.len(), checksum::crc32c(&all)), GOLDEN, "a change here does not talk to older nodes");
    }
    const GOLDEN: (usize, u32) = (1393, 4_062_309_011);

    #[test]
    fn d6_a_payload_that_changed_on_the_way_is_dropped() {
        for f in frames() {
            let whole = f.encode();
            let Some(at) = whole.windows(5).position(|w| w == b"hello") else { continue };
            let mut b = whole.to_vec();
            b[at] ^= 1;
            assert_eq!(Frame::decode(b.into()), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_bytes_do_no_harm(mut b in proptest::collection::vec(any::<u8>(), 0..300), kind in 0u8..75) {
            Frame::decode(b.clone().into());
            b.splice(0..0, [VERSION, kind]);
            if let Some(f) = Frame::decode(b.clone().into()) {
                prop_assert_eq!(f.encode(), Bytes::from(b));
            }
        }
    }
}
