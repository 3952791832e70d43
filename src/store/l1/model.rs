//! What the store must be: one group, kept in plain maps.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Chain, LogIndex, NewEntry, Round, StreamSeq, Term};

/// A message as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Msg {
    pub time: i64,
    pub subject: String,
    pub body: Vec<u8>,
}

/// The log's end and the hard state after some operation; the chain names everything before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    pub last: LogIndex,
    pub chain: Chain,
    pub hard: Bytes,
    /// The journal round that holds the operation.
    pub round: Round,
}

impl Version {
    pub fn is(&self, last: LogIndex, chain: Chain, hard: &Bytes) -> bool {
        (self.last, self.chain, &self.hard) == (last, chain, hard)
    }
}

/// A stream at some time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stream {
    pub applied: LogIndex,
    pub last: StreamSeq,
    pub live: BTreeMap<u64, Msg>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Model {
    pub log: BTreeMap<u64, NewEntry>,
    /// Every message ever appended, by the chain of its entry.
    pub messages: BTreeMap<u64, Vec<(u64, Msg)>>,
    /// All entries ever appended, by chain.
    pub by_chain: BTreeMap<u64, NewEntry>,
    /// What each operation left, oldest first.
    pub versions: Vec<Version>,
    /// Which of them is durable: a restart finds this one or a later one.
    pub durable: usize,
    pub stream: Stream,
    pub snapshots: Vec<Stream>,
    /// The snapshot that the last successful flush made durable at least.
    pub durable_snapshot: usize,
    pub hard: Bytes,
    pub term: Term,
    pub ids: u64,
}

impl Model {
    /// A group whose creation is in this round.
    pub fn new(created: Round) -> Model {
        let start = Version { last: LogIndex(0), chain: Chain(0), hard: Bytes::new(), round: created };
        Model {
            log: BTreeMap::new(),
            messages: BTreeMap::new(),
            by_chain: BTreeMap::new(),
            versions: vec![start],
            durable: 0,
            stream: Stream::default(),
            snapshots: vec![Stream::default()],
            durable_snapshot: 0,
            hard: Bytes::new(),
            term: Term(1),
            ids: 0,
        }
    }

    pub fn last(&self) -> (LogIndex, Chain) {
        self.log.values().next_back().map_or((LogIndex(0), Chain(0)), |e| (e.index, e.chain))
    }

    /// The last sequence in the log.
    pub fn last_seq(&self) -> StreamSeq {
        let in_log = self.log.values().rev().find_map(|e| self.messages[&e.chain.0].last().map(|m| m.0));
        StreamSeq(in_log.unwrap_or(0)).max(self.stream.last)
    }

    pub fn version(&mut self, round: Round) {
        let (last, chain) = self.last();
        self.versions.push(Version { last, chain, hard: self.hard.clone(), round });
    }

    /// How far the log must reach at least if all rounds after `upto` are lost. Later truncations make it shorter.
    pub fn bound(&self, upto: Round) -> LogIndex {
        let kept = self.versions[..=self.durable].iter().rposition(|v| v.round <= upto).unwrap_or(0);
        self.versions[kept..].iter().map(|v| v.last).min().unwrap_or(LogIndex(0))
    }

    /// Applies one more entry.
    pub fn apply(&mut self) {
        let index = self.stream.applied.next();
        let e = &self.log[&index.0];
        for (seq, m) in &self.messages[&e.chain.0] {
            self.stream.live.insert(*seq, m.clone());
            self.stream.last = StreamSeq(*seq);
        }
        self.stream.applied = index;
    }
}
