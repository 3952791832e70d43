//! What the actors did and saw. Times are virtual nanoseconds of the world.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::history::Violation;

use super::plan::Stream;

/// What is known of a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// No answer came: it may have happened, or may still happen.
    Unknown,
    /// It is there.
    Acked {
        /// Its sequence.
        seq: u64,
        /// It was there before.
        duplicate: bool,
    },
    /// It was refused with this error code.
    Refused(u64),
}

/// One attempt to write one value.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Who.
    pub actor: u64,
    /// The connection, by number.
    pub conn: u64,
    /// The value; attempts with the same message id have the same.
    pub value: usize,
    /// Where to.
    pub stream: Stream,
    /// Its subject.
    pub subject: String,
    /// With a message id.
    pub id: bool,
    /// The last sequence of the subject that it expected.
    pub expected_subject: Option<u64>,
    /// The last sequence of the stream that it expected.
    pub expected: Option<u64>,
    /// When it was sent.
    pub sent_at: u64,
    /// When its answer came.
    pub done_at: Option<u64>,
    /// What came.
    pub outcome: Outcome,
}

/// One read of a key.
#[derive(Clone, Debug)]
pub struct Get {
    /// The subject.
    pub subject: String,
    /// When it was sent.
    pub sent_at: u64,
    /// When its answer came.
    pub done_at: u64,
    /// Sequence and value, if there is one.
    pub found: Option<(u64, Option<usize>)>,
    /// By a direct get, which any replica may answer from what it has.
    pub direct: bool,
}

/// One delivery to a consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The consumer's stream.
    pub stream: Stream,
    /// Sequence in the stream.
    pub seq: u64,
    /// Number of the delivery, as its ack subject says.
    pub count: u64,
    /// When it came.
    pub at: u64,
    /// When the request that it answers was sent.
    pub asked_at: u64,
    /// The server's number of starts when the request was sent.
    pub boot: u64,
    /// What it holds.
    pub value: Option<usize>,
}

/// What a consumer said of a message.
#[derive(Clone, Debug)]
pub struct Said {
    /// The consumer's stream.
    pub stream: Stream,
    /// Sequence in the stream.
    pub seq: u64,
    /// It may make the message come again early.
    pub refusal: bool,
    /// It ends the message's deliveries.
    pub ends: bool,
    /// When it was sent.
    pub sent_at: u64,
    /// When it was confirmed.
    pub confirmed_at: Option<u64>,
}

/// A stream's state as it was answered.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Which.
    pub stream: Stream,
    /// When it was asked for.
    pub sent_at: u64,
    /// When the answer came.
    pub done_at: u64,
    /// Its first sequence.
    pub first: u64,
    /// Its last sequence.
    pub last: u64,
    /// Its messages.
    pub msgs: u64,
}

/// A message of a stream at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Its subject.
    pub subject: String,
    /// What it holds, if that is a value of the storm's.
    pub value: Option<usize>,
}

/// A stream at the end.
#[derive(Clone, Debug, Default)]
pub struct Final {
    /// Its first sequence.
    pub first: u64,
    /// Its last sequence.
    pub last: u64,
    /// Its number of messages, as its info says.
    pub msgs: u64,
    /// All of them.
    pub kept: BTreeMap<u64, Kept>,
    /// Its state before the consumers emptied what they could.
    pub before: BTreeMap<u64, Kept>,
}

/// A life of the stream in memory, as it was met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Life {
    /// When it was made, as its configuration says.
    pub created: String,
    /// The connection on which it was met: it goes with the process, too.
    pub conn: u64,
    /// The server's number of starts, if that is sure.
    pub boot: Option<u64>,
}

/// A consumer of the stream in memory, by a name that is given once. It is made in version 1 and changed to higher ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// The last version that was acknowledged; 0 if its making was not.
    pub acked: u64,
    /// The last one that was asked for.
    pub asked: u64,
    /// Its end was asked for.
    pub ends: bool,
    /// And acknowledged.
    pub ended: bool,
}

/// What was found of a consumer of the stream in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    /// Its name.
    pub name: String,
    /// When.
    pub at: u64,
    /// What had been asked for and acknowledged by then.
    pub wish: Wish,
    /// Its version, if there was one.
    pub found: Option<u64>,
}

/// Everything.
#[derive(Default)]
pub struct Record {
    /// Values given so far.
    pub values: usize,
    /// Connections made so far.
    pub conns: u64,
    /// Writes.
    pub attempts: Vec<Attempt>,
    /// Reads.
    pub gets: Vec<Get>,
    /// Deliveries.
    pub deliveries: Vec<Delivery>,
    /// Answers to deliveries.
    pub said: Vec<Said>,
    /// States.
    pub seen: Vec<Seen>,
    /// Lives of the stream in memory.
    pub lives: Vec<Life>,
    /// Its consumers that come and go, where there are several servers.
    pub wishes: BTreeMap<String, Wish>,
    /// What was found of them.
    pub looks: Vec<Look>,
    /// What the copies that take everything have, by their sequences.
    pub copied: BTreeMap<Stream, BTreeMap<u64, Option<usize>>>,
    /// The end.
    pub finals: BTreeMap<Stream, Final>,
    /// Actors that are done.
    pub done: u64,
    /// When the server was not running or not itself: from, to.
    pub outages: Vec<(u64, u64)>,
    /// When leaders were told to change in peace.
    pub moves: Vec<(u64, u64)>,
    /// Clocks of servers were further apart than the duplicate window is long.
    pub clocks_apart: bool,
    /// When clocks of servers were set on, and by how much.
    pub jumps: Vec<(u64, u64)>,
    /// Counters.
    pub counts: BTreeMap<&'static str, u64>,
    /// What is wrong.
    pub violations: Vec<Violation>,
}

impl Record {
    /// Counts.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
    /// Something is wrong.
    pub fn wrong(&mut self, id: &str, text: String) {
        self.violations.push(Violation::new(id, text));
    }
}

/// A record that many write.
pub type Shared = Arc<Mutex<Record>>;
