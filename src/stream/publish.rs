//! What goes into a decision about a publish and what comes out.
//!
//! Owns the types between the rules and their shell. A decision borrows from the publish and from the stream's own scratch space, so
//! that the plain path copies and allocates nothing. What an answer looks like on the wire is the API's business.

use crate::errors::ApiError;
use crate::messages::Stored;

/// Who publishes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum From {
    /// A client: all rules apply.
    #[default]
    Client,
    /// A source: its origin has checked the message; the message carries `Nats-Stream-Source`.
    Source,
    /// The stream itself: a delete marker, or what a schedule produced.
    Stream,
}

/// A message on its way in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Publish<'a> {
    /// The subject that it was published to.
    pub subject: &'a [u8],
    /// Where an answer is expected; empty for nowhere. Fast batches speak through it.
    pub reply: &'a [u8],
    /// The header block; empty if there is none.
    pub headers: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// Who publishes.
    pub from: From,
    /// The server has no room for a batch more (its limits count over all streams). Only the first message of a batch asks.
    pub no_room_for_batches: bool,
    /// No consumer of an interest stream wants it (see [`crate::Stream::drops_unwanted`]): it gets a number and is gone when it is applied, so it needs no room.
    pub unwanted: bool,
}

/// What the server sets for all streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Headers and payload of a message, bytes: the protocol's limit, which counters must not outgrow.
    pub max_payload: usize,
    /// Subject, headers and payload together, bytes: what the store can hold.
    pub record_max: usize,
    /// Messages in an atomic batch.
    pub batch_msgs: u64,
    /// Open atomic batches.
    pub atomic_batches: usize,
    /// Open fast batches.
    pub fast_batches: usize,
    /// Bytes that open atomic batches may hold together.
    pub batch_bytes: usize,
    /// A batch that nothing is heard of for so long is given up, nanoseconds.
    pub batch_timeout: u64,
    /// The API level that is offered.
    pub api_level: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_payload: 1024 * 1024,
            record_max: 32 * 1024 * 1024 - 64,
            batch_msgs: 1000,
            atomic_batches: 50,
            fast_batches: 1000,
            batch_bytes: 64 * 1024 * 1024,
            batch_timeout: 10_000_000_000,
            api_level: 5,
        }
    }
}

/// A message as it joins the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Its number.
    pub seq: u64,
    /// The leader's time, nanoseconds since 1970. Never below that of the message before.
    pub time: i64,
    /// When it expires by its own time to live; `i64::MAX` for one that never expires, not even by `max_age`.
    pub expires: Option<i64>,
    /// Its subject, as it is stored.
    pub subject: &'a [u8],
    /// Its header block, as it is stored.
    pub headers: &'a [u8],
    /// Its payload, as it is stored.
    pub payload: &'a [u8],
}

impl<'a> Entry<'a> {
    /// A stored message as the entry that it was.
    pub fn of(m: &'a Stored) -> Entry<'a> {
        Entry {
            seq: m.seq,
            time: m.time,
            expires: m.expires,
            subject: &m.subject,
            headers: &m.headers,
            payload: &m.payload,
        }
    }
}

/// What is decided. An answer goes to the publish's reply subject, if it has one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision<'a> {
    /// The message joins the log.
    Store {
        /// The message.
        entry: Entry<'a>,
        /// To be sent at once.
        now: Option<Answer>,
        /// To be sent when the message has been applied (J-1); `None` if no answer is due.
        applied: Option<Answer>,
    },
    /// All these join the log in one entry, or none of them.
    StoreAll {
        /// The messages, in order.
        entries: Vec<Stored>,
        /// To be sent when the last one has been applied.
        applied: Option<Answer>,
    },
    /// Nothing joins the log.
    Answer {
        /// To be sent, in order.
        answers: Answers,
        /// When the message with this sequence has been applied, for the answers depend on it; 0 for at once.
        after: u64,
    },
    /// Not now: ask again, in order, when what is in the tail has been applied. Nothing was changed.
    Wait,
}

/// None, one or two answers.
pub type Answers = [Option<Answer>; 2];

/// An answer to a publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is stored.
    Ack(Ack),
    /// It is refused.
    Error(ApiError),
    /// A message of an atomic batch is noted: an empty message.
    Empty,
    /// A fast batch's flow: acknowledged up to `seq` of the batch; the next answer comes after `msgs` messages.
    Flow {
        /// In the batch.
        seq: u64,
        /// Messages.
        msgs: u16,
    },
    /// A fast batch has a gap.
    Gap {
        /// The first that is missing, in the batch.
        last_seq: u64,
        /// The one that came.
        seq: u64,
    },
    /// A message of a fast batch is refused.
    Failed {
        /// Which, in the batch.
        seq: u64,
        /// Why.
        error: ApiError,
    },
}

/// An acknowledgement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ack {
    /// The message's number.
    pub seq: u64,
    /// It was there already.
    pub duplicate: bool,
    /// What only few have.
    pub extra: Option<Box<Extra>>,
}

/// What only few acknowledgements have.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Extra {
    /// A counter's total.
    pub value: Option<String>,
    /// The batch's name and how many messages it has.
    pub batch: Option<(String, u64)>,
}

impl Answer {
    /// A plain acknowledgement.
    pub const fn ack(seq: u64) -> Answer {
        Answer::Ack(Ack { seq, duplicate: false, extra: None })
    }

    /// The acknowledgement of a batch.
    pub fn batch(seq: u64, duplicate: bool, id: &str, count: u64) -> Answer {
        let extra = Extra { value: None, batch: Some((id.to_owned(), count)) };
        Answer::Ack(Ack { seq, duplicate, extra: Some(Box::new(extra)) })
    }
}

/// Why a batch was given up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Abandoned {
    /// Nothing was heard of it.
    Timeout,
    /// It has too many messages.
    Large,
    /// A message is missing.
    Incomplete,
    /// It needs a higher API level.
    Unsupported,
}

impl Abandoned {
    /// As advisories say it.
    pub fn text(self) -> &'static str {
        match self {
            Abandoned::Timeout => "timeout",
            Abandoned::Large => "large",
            Abandoned::Incomplete => "incomplete",
            Abandoned::Unsupported => "unsupported",
        }
    }
}
