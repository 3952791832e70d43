//! What the rules may ask of stored messages, and the one thing that they may do to them.
//!
//! Owns the interface only. The server implements it over the store, tests and models over a map. A question has no effect,
//! so a caller that is told of a miss fetches what is missing and asks the same again.

use bytes::Bytes;

/// Now, in both clocks, as the shell read them for this step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Now {
    /// Nanoseconds since 1970. For what is stored and shown.
    pub wall: i64,
    /// Nanoseconds of the monotonic clock. For whatever waits; never stored.
    pub mono: u64,
}

/// A stream's totals.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Totals {
    /// The first live message; `last + 1` if there is none.
    pub first: u64,
    /// The last message that ever joined; 0 if none did.
    pub last: u64,
    /// Live messages.
    pub msgs: u64,
    /// What they count for in `max_bytes`.
    pub bytes: u64,
    /// When the last one came, in nanoseconds since 1970; 0 if none did.
    pub last_time: i64,
}

/// The live messages of one subject. There is at least one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SubjectTotals {
    /// How many.
    pub msgs: u64,
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
}

/// A message without its body.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Meta {
    /// Its subject.
    pub subject: Bytes,
    /// What it counts for in `max_bytes`.
    pub size: u64,
    /// When the leader took it, in nanoseconds since 1970.
    pub time: i64,
    /// When it expires by its own time to live, in nanoseconds since 1970.
    pub expires: Option<i64>,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Stored {
    /// Its number.
    pub seq: u64,
    /// When the leader took it, in nanoseconds since 1970.
    pub time: i64,
    /// When it expires by its own time to live, in nanoseconds since 1970.
    pub expires: Option<i64>,
    /// Its subject.
    pub subject: Bytes,
    /// The NATS header block with its version line and its blank line; empty if it has none.
    pub headers: Bytes,
    /// The payload.
    pub payload: Bytes,
}

/// A message on its way to a consumer: one piece of memory, and where its parts stand in it. It costs one reference where a
/// [`Stored`] costs three, which counts where it is made for each delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Carried {
    /// Its number.
    pub seq: u64,
    /// When the leader took it, in nanoseconds since 1970.
    pub time: i64,
    raw: Bytes,
    ends: Ends,
}

/// Where the parts of a message end in a piece of memory in which subject, headers and payload follow each other, the payload
/// to the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// Where the subject begins.
    pub start: u32,
    /// Where the headers begin.
    pub subject: u32,
    /// Where the payload begins.
    pub headers: u32,
}

impl Carried {
    /// A message in `raw`.
    ///
    /// # Panics
    /// If the parts do not stand in `raw` in their order.
    #[inline]
    pub fn new(seq: u64, time: i64, raw: Bytes, ends: Ends) -> Carried {
        let in_order = ends.start <= ends.subject && ends.subject <= ends.headers;
        assert!(in_order && ends.headers as usize <= raw.len(), "the parts of a message follow each other");
        Carried { seq, time, raw, ends }
    }
    /// Its subject.
    #[inline]
    pub fn subject(&self) -> &[u8] {
        &self.raw[self.ends.start as usize..self.ends.subject as usize]
    }
    /// The NATS header block; empty if it has none.
    #[inline]
    pub fn headers(&self) -> &[u8] {
        &self.raw[self.ends.subject as usize..self.ends.headers as usize]
    }
    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.raw[self.ends.headers as usize..]
    }
    /// Header block and payload, as they stand in memory.
    pub fn body(&self) -> Bytes {
        self.raw.slice(self.ends.subject as usize..)
    }
}

impl From<Stored> for Carried {
    fn from(m: Stored) -> Carried {
        let raw = Bytes::from([&m.subject[..], &m.headers, &m.payload].concat());
        let size = |b: &Bytes| u32::try_from(b.len()).expect("a message is far below 4 GiB");
        let subject = size(&m.subject);
        Carried::new(m.seq, m.time, raw, Ends { start: 0, subject, headers: subject + size(&m.headers) })
    }
}

/// Questions to the live messages of a stream. Only applied messages are there: the tail is the rules' own.
pub trait Messages {
    /// What has to be fetched before the question can be answered. The shell fetches it and asks again.
    type Miss;

    /// The totals.
    fn totals(&self) -> Totals;
    /// How many subjects have messages.
    fn num_subjects(&self) -> Result<u64, Self::Miss>;
    /// The totals of one literal subject; `None` if it has no message.
    fn subject(&self, subject: &[u8]) -> Result<Option<SubjectTotals>, Self::Miss>;
    /// The totals of `subject`, which the message with this number has, or had before it was removed: who knows messages by number need not search.
    fn subject_of(&self, _seq: u64, subject: &[u8]) -> Result<Option<SubjectTotals>, Self::Miss> {
        self.subject(subject)
    }
    /// Calls `f` for each subject with messages that matches `filter`, in byte order, until `f` returns false.
    fn subjects(
        &self,
        filter: &[u8],
        f: &mut dyn FnMut(&[u8], SubjectTotals) -> bool,
    ) -> Result<(), Self::Miss>;
    /// The last message of a literal subject at or before `upto`.
    fn last_of(&self, subject: &[u8], upto: u64) -> Result<Option<u64>, Self::Miss>;
    /// The first message from `from` on whose subject matches any of `filters`; no filter matches all.
    fn next(&self, filters: &[Bytes], from: u64) -> Result<Option<u64>, Self::Miss>;
    /// How many messages from `from` on match any of `filters`; no filter matches all. Filters do not overlap.
    fn pending(&self, filters: &[Bytes], from: u64) -> Result<u64, Self::Miss>;
    /// The first sequence whose message came at or after `time`; `last + 1` if there is none.
    fn at_time(&self, time: i64) -> Result<u64, Self::Miss>;
    /// A message without its body; `None` if it is not live.
    fn meta(&self, seq: u64) -> Result<Option<Meta>, Self::Miss>;
    /// A message; `None` if it is not live.
    fn get(&self, seq: u64) -> Result<Option<Stored>, Self::Miss>;
    /// The same for a delivery.
    fn carried(&self, seq: u64) -> Result<Option<Carried>, Self::Miss> {
        Ok(self.get(seq)?.map(Carried::from))
    }
}

/// The effect that applying may have on stored messages.
pub trait MessagesMut: Messages {
    /// Removes a message; whether it was live.
    fn remove(&mut self, seq: u64) -> Result<bool, Self::Miss>;

    /// Removes all messages before a sequence. A miss may come after some are gone: then the call is repeated. A store that can do it at
    /// once should; whoever wants to know what was removed learns it from the totals.
    fn remove_below(&mut self, seq: u64) -> Result<(), Self::Miss> {
        loop {
            let t = self.totals();
            if t.msgs == 0 || t.first >= seq {
                return Ok(());
            }
            self.remove(t.first)?;
        }
    }
}
