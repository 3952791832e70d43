//! Requests of one engine to another, their answers, and messages of clients that go on to another node.
//!
//! Owns the bytes of all three and which answer belongs to which request. A call ends with its answer, with the link, or with its caller's patience.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use replica::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Kind, Wires};
use crate::codec::{self, Get, put};

/// The version of the bytes.
const FORMAT: u8 = 2;

/// What one engine asks of another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Call {
    /// Answer this request of `$JS.API`, if you are responsible.
    Ask {
        /// The account.
        account: Arc<str>,
        /// The whole subject.
        subject: Bytes,
        /// The header block.
        headers: Bytes,
        /// The payload.
        body: Bytes,
    },
    /// Put this into the meta group's log: a [`crate::meta::Command`].
    Propose(Bytes),
    /// Answer when you have this configuration of the group that you lead: with the stream's info.
    Settle {
        /// The group.
        group: u64,
        /// The configuration.
        config: Bytes,
    },
    /// Answer when you have applied the meta group's log up to here.
    Sync(u64),
    /// What an account uses on this node.
    Usage(Arc<str>),
    /// Infos of these streams of an account, of those that you lead.
    Infos {
        /// The account.
        account: Arc<str>,
        /// The streams.
        names: Vec<Arc<str>>,
    },
    /// Hand over the meta group, to this node if one is named.
    MetaStepDown(Option<NodeId>),
    /// How far your replicas of these groups are; of all groups with several members if none is named.
    Left(Vec<u64>),
    /// An operator's word: the cluster goes on under this name, without those that do not hear it.
    Adopt(u64),
    /// Make this group go on with these nodes, in a term above this one.
    Force {
        /// The group.
        group: u64,
        /// The highest term that is known.
        term: u64,
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// Answer this request of an operator, if you lead the meta group.
    Operate {
        /// The subject behind `$JS.API.`.
        subject: Bytes,
        /// The payload.
        body: Bytes,
    },
    /// Put this part of a backup into the log of a group that you lead.
    Import {
        /// The group.
        group: u64,
        /// The part.
        items: Vec<crate::backup::Item>,
    },
    /// A message of a group's stream as you have it: it is damaged here.
    Record {
        /// The group.
        group: u64,
        /// The message.
        seq: u64,
    },
}

/// What the other engine says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The answer to the client's request.
    Answer {
        /// It is an error.
        failed: bool,
        /// The body.
        body: Bytes,
    },
    /// The request is not answered.
    Silence,
    /// Another node is responsible, this one if known.
    Elsewhere(Option<NodeId>),
    /// It is done; the number depends on what was asked.
    Done(u64),
    /// It cannot be done, and why.
    Refused(String),
    /// Whether it was done is not known.
    Open,
    /// JSON.
    Json(Bytes),
    /// The message's record, if it is there and whole.
    Record(Option<Bytes>),
}

/// What a message that goes on is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Way {
    /// A pull.
    Pull = 1,
    /// An acknowledgement.
    Ack = 2,
    /// An answer to flow control.
    Flow = 3,
    /// A direct get.
    Direct = 4,
    /// A message for the stream itself.
    Publish = 5,
    /// You are to take over this stream from me: wait for what I give you.
    Heir = 6,
    /// I know.
    Ready = 7,
    /// I have taken over, and every server knows my door.
    Opened = 8,
    /// You have got all that came to me.
    Handed = 9,
}

impl Way {
    const ALL: [Way; 9] = [
        Way::Pull,
        Way::Ack,
        Way::Flow,
        Way::Direct,
        Way::Publish,
        Way::Heir,
        Way::Ready,
        Way::Opened,
        Way::Handed,
    ];
    /// Whether it is for a stream that its subject does not name, and keeps its place among others of those.
    pub fn is_in_order(self) -> bool {
        self as u8 >= Way::Publish as u8
    }
}

/// A message of a client for a stream that is led elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forward<'a> {
    /// What it is for.
    pub way: Way,
    /// How many nodes it came through.
    pub hops: u8,
    /// The account.
    pub account: &'a [u8],
    /// The stream, where the subject does not name it; else empty.
    pub stream: &'a [u8],
    /// The whole subject.
    pub subject: &'a [u8],
    /// Where an answer goes.
    pub reply: &'a [u8],
    /// The header block.
    pub headers: &'a [u8],
    /// The payload.
    pub body: &'a [u8],
}

impl Forward<'_> {
    /// As it goes over the link.
    pub fn encode(&self) -> Bytes {
        let parts = [self.account, self.subject, self.reply, self.headers, self.body];
        let mut out =
            Vec::with_capacity(7 + self.stream.len() + parts.iter().map(|p| p.len() + 4).sum::<usize>());
        out.extend([FORMAT, self.way as u8, self.hops]);
        if self.way.is_in_order() {
            put(&mut out, self.stream);
        }
        parts.iter().for_each(|p| put(&mut out, p));
        out.into()
    }
    /// Reads what [`Forward::encode`] wrote.
    pub fn decode(b: &[u8]) -> Option<Forward<'_>> {
        let mut g = Get(b);
        if g.u8()? != FORMAT {
            return None;
        }
        let way = g.u8()?;
        let way = Way::ALL.into_iter().find(|w| *w as u8 == way)?;
        let hops = g.u8()?;
        let stream = if way.is_in_order() { g.bytes()? } else { b"" };
        let f = Forward {
            way,
            hops,
            stream,
            account: g.bytes()?,
            subject: g.bytes()?,
            reply: g.bytes()?,
            headers: g.bytes()?,
            body: g.bytes()?,
        };
        g.0.is_empty().then_some(f)
    }
}

impl Call {
    fn encode(&self, id: u64) -> Bytes {
        codec::encode(FORMAT, &(id, self))
    }
    /// The call's id, and the call.
    pub fn decode(b: &[u8]) -> Option<(u64, Call)> {
        codec::decode(FORMAT, b)
    }
}

impl Reply {
    /// As the answer to call `id`.
    pub fn encode(&self, id: u64) -> Bytes {
        codec::encode(FORMAT, &(id, self))
    }
    fn decode(b: &[u8]) -> Option<(u64, Reply)> {
        codec::decode(FORMAT, b)
    }
}

/// Calls that wait for their answer.
#[derive(Default)]
pub struct Calls(Mutex<Open>);

#[derive(Default)]
struct Open {
    last: u64,
    waiting: BTreeMap<u64, (NodeId, oneshot::Sender<Reply>)>,
}

/// Forgets a call whose caller has gone.
struct Forget<'a>(&'a Calls, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.0.lock().waiting.remove(&self.1);
    }
}

impl Calls {
    /// Asks a node. `None` if it cannot be reached, or the link breaks, or nothing comes in time.
    pub async fn call(
        &self,
        wires: &dyn Wires,
        to: NodeId,
        call: &Call,
        patience: Duration,
    ) -> Option<Reply> {
        let (tx, rx) = oneshot::channel();
        let id = {
            let mut open = self.0.lock();
            open.last += 1;
            let id = open.last;
            open.waiting.insert(id, (to, tx));
            id
        };
        let _forget = Forget(self, id);
        if !wires.send(to, Kind::Call, call.encode(id)) {
            return None;
        }
        env::timeout(patience, rx).await.ok()?.ok()
    }
    /// An answer came. What is not waited for is dropped.
    pub fn answered(&self, from: NodeId, b: &[u8]) {
        let Some((id, reply)) = Reply::decode(b) else { return };
        let mut open = self.0.lock();
        if open.waiting.get(&id).is_some_and(|w| w.0 == from)
            && let Some((_, tx)) = open.waiting.remove(&id)
        {
            tx.send(reply).ok();
        }
    }
    /// The link to a node broke: what it was asked is not answered any more.
    pub fn lost(&self, node: NodeId) {
        self.0.lock().waiting.retain(|_, w| w.0 != node);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_there_and_back() {
        let b = Bytes::from_static;
        let calls = [
            Call::Ask { account: "A".into(), subject: b(b"s"), headers: b(b""), body: b(b"{}") },
            Call::Propose(b(b"x")),
            Call::Settle { group: 7, config: b(b"c") },
            Call::Sync(9),
            Call::Usage("A".into()),
            Call::Infos { account: "A".into(), names: vec!["S".into(), "T".into()] },
            Call::MetaStepDown(None),
            Call::MetaStepDown(Some(NodeId::new(4, 0))),
            Call::Left(vec![3, 4]),
            Call::Adopt(5),
            Call::Force { group: 3, term: 4, nodes: vec![NodeId::new(4, 0)] },
            Call::Operate { subject: b(b"SERVER.EVACUATE"), body: b(b"{}") },
            Call::Import {
                group: 3,
                items: vec![crate::backup::Item::Complete { messages: 1, last: 2, time: -3 }],
            },
            Call::Record { group: 3, seq: 4 },
        ];
        for c in calls {
            assert_eq!(Call::decode(&c.encode(5)), Some((5, c)));
        }
        let replies = [
            Reply::Answer { failed: true, body: b(b"e") },
            Reply::Silence,
            Reply::Elsewhere(None),
            Reply::Elsewhere(Some(NodeId::new(3, 0))),
            Reply::Done(8),
            Reply::Refused("no".into()),
            Reply::Open,
            Reply::Json(b(b"[]")),
            Reply::Record(Some(b(b"r"))),
            Reply::Record(None),
        ];
        for r in replies {
            assert_eq!(Reply::decode(&r.encode(6)), Some((6, r)));
        }
        let f = Forward {
            way: Way::Ack,
            hops: 1,
            account: b"A",
            stream: b"",
            subject: b"$JS.ACK.x",
            reply: b"",
            headers: b"",
            body: b"+ACK",
        };
        assert_eq!(Forward::decode(&f.encode()), Some(f.clone()));
        let f = Forward { way: Way::Publish, stream: b"S", subject: b"a.x", ..f };
        assert_eq!(Forward::decode(&f.encode()), Some(f.clone()));
        for way in Way::ALL.into_iter().filter(|w| w.is_in_order()) {
            let f = Forward { way, ..f.clone() };
            assert_eq!(Forward::decode(&f.encode()), Some(f));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn bytes_do_no_harm(mut b in proptest::collection::vec(any::<u8>(), 0..60)) {
            Call::decode(&b);
            Reply::decode(&b);
            Forward::decode(&b);
            b.splice(0..0, [FORMAT]);
            Call::decode(&b);
            Reply::decode(&b);
            Forward::decode(&b);
        }
    }
}
