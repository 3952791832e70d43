//! A shell around the rules: a log, a store in memory, and a second stream that applies the same log.

use bytes::Bytes;

use crate::command::{Command, Control};
use crate::config::{NoStreams, ServerLimits, StreamConfig};
use crate::memory::Memory;
use crate::messages::{Messages, MessagesMut, Meta, Now, Stored, SubjectTotals, Totals};
use crate::publish::{Answer, Decision, Entry, Limits, Publish};
use crate::stream::{Interest, Outcome, Stream};
use crate::time::SECOND;

/// An entry of the log.
#[derive(Clone, Debug)]
pub enum Logged {
    Messages(Vec<Stored>),
    Control(Control),
}

/// A leader, its store, its log as far as it is not applied, and all that ever was in it.
pub struct Shell<I = Keep> {
    pub stream: Stream,
    pub msgs: Flaky,
    pub interest: I,
    pub open: Vec<Stored>,
    pub ahead: Vec<Logged>,
    pub log: Vec<Logged>,
    pub now: Now,
    /// What was answered at once or after application, in order.
    pub answers: Vec<Answer>,
    waiting: Vec<(u64, usize, Answer)>,
    /// To be set by those who ask which answer belongs to which publish.
    pub tag: usize,
    pub tagged: Vec<(usize, Answer)>,
}

/// Consumers that want everything and acknowledge nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep;

impl Interest for Keep {
    fn wanted(&self, _: &[u8]) -> bool {
        true
    }
    fn needed(&self, _: u64, _: &[u8]) -> bool {
        true
    }
}

/// Asks again until there is no miss.
pub fn again<T>(mut f: impl FnMut() -> Result<T, ()>) -> T {
    loop {
        if let Ok(t) = f() {
            return t;
        }
    }
}

/// Messages in memory that, if told to, often have to be asked twice.
#[derive(Clone, Debug, Default)]
pub struct Flaky {
    pub inner: Memory,
    /// Of 256 questions so many miss.
    pub misses: u8,
    pub state: std::cell::Cell<u64>,
}

impl Flaky {
    fn luck(&self) -> Result<(), ()> {
        let n =
            self.state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state.set(n);
        if (n >> 56) as u8 >= self.misses { Ok(()) } else { Err(()) }
    }
}

macro_rules! asked {
    ($self:ident, $e:expr) => {{
        $self.luck()?;
        let Ok(answer) = $e;
        Ok(answer)
    }};
}

impl Messages for Flaky {
    type Miss = ();

    fn totals(&self) -> Totals {
        self.inner.totals()
    }
    fn num_subjects(&self) -> Result<u64, ()> {
        asked!(self, self.inner.num_subjects())
    }
    fn subject(&self, subject: &[u8]) -> Result<Option<SubjectTotals>, ()> {
        asked!(self, self.inner.subject(subject))
    }
    fn subjects(&self, filter: &[u8], f: &mut dyn FnMut(&[u8], SubjectTotals) -> bool) -> Result<(), ()> {
        asked!(self, self.inner.subjects(filter, f))
    }
    fn last_of(&self, subject: &[u8], upto: u64) -> Result<Option<u64>, ()> {
        asked!(self, self.inner.last_of(subject, upto))
    }
    fn next(&self, filters: &[Bytes], from: u64) -> Result<Option<u64>, ()> {
        asked!(self, self.inner.next(filters, from))
    }
    fn pending(&self, filters: &[Bytes], from: u64) -> Result<u64, ()> {
        asked!(self, self.inner.pending(filters, from))
    }
    fn at_time(&self, time: i64) -> Result<u64, ()> {
        asked!(self, self.inner.at_time(time))
    }
    fn meta(&self, seq: u64) -> Result<Option<Meta>, ()> {
        asked!(self, self.inner.meta(seq))
    }
    fn get(&self, seq: u64) -> Result<Option<Stored>, ()> {
        asked!(self, self.inner.get(seq))
    }
}

impl MessagesMut for Flaky {
    fn remove(&mut self, seq: u64) -> Result<bool, ()> {
        asked!(self, self.inner.remove(seq))
    }
}

pub fn config(json: &str) -> StreamConfig {
    let mut config: StreamConfig = serde_json::from_str(json).unwrap();
    config.check(&ServerLimits { clustered: true, ..ServerLimits::default() }, &NoStreams, false).unwrap();
    config
}

pub fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut b = Vec::new();
    for (name, value) in headers {
        crate::headers::add(&mut b, name.as_bytes(), value.as_bytes());
    }
    b
}

impl Shell {
    pub fn new(json: &str) -> Shell {
        Shell::with(json, Keep)
    }
}

impl<I: Interest> Shell<I> {
    pub fn with(json: &str, interest: I) -> Shell<I> {
        let wall = 1_700_000_000 * SECOND;
        let config = config(json);
        let inner = Memory::counting_as(config.storage);
        Shell {
            stream: Stream::new(config, wall, Limits::default()),
            msgs: Flaky { inner, ..Flaky::default() },
            interest,
            open: Vec::new(),
            ahead: Vec::new(),
            log: Vec::new(),
            now: Now { wall, mono: 1 },
            answers: Vec::new(),
            waiting: Vec::new(),
            tag: 0,
            tagged: Vec::new(),
        }
    }

    pub fn pass(&mut self, ns: i64) {
        self.now.wall += ns;
        self.now.mono += ns as u64;
    }

    /// Publishes without applying.
    pub fn publish(&mut self, subject: &str, headers: &[(&str, &str)], payload: &str) {
        self.publish_to(subject, "reply", headers, payload);
    }

    pub fn publish_to(&mut self, subject: &str, reply: &str, headers: &[(&str, &str)], payload: &str) {
        let block = block(headers);
        let p = Publish {
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            headers: &block,
            payload: payload.as_bytes(),
            ..Publish::default()
        };
        self.decide(&p);
    }

    pub fn decide(&mut self, p: &Publish<'_>) {
        let tag = self.tag;
        let twin = self.stream.clone();
        let decision = loop {
            if let Ok(d) = self.stream.decide(p, &self.msgs, self.now) {
                break d;
            }
        };
        is_by_the_rules(twin, &self.msgs, self.now, p, &decision);
        match decision {
            Decision::Store { entry, now, applied } => {
                self.open.push(Stored {
                    seq: entry.seq,
                    time: entry.time,
                    expires: entry.expires,
                    subject: Bytes::copy_from_slice(entry.subject),
                    headers: Bytes::copy_from_slice(entry.headers),
                    payload: Bytes::copy_from_slice(entry.payload),
                });
                let seq = entry.seq;
                self.answers.extend(now.clone());
                self.tagged.extend(now.map(|a| (tag, a)));
                self.waiting.extend(applied.map(|a| (seq, tag, a)));
            }
            Decision::StoreAll { entries, applied } => {
                let last = entries.last().map_or(0, |e| e.seq);
                self.open.extend(entries);
                self.waiting.extend(applied.map(|a| (last, tag, a)));
            }
            Decision::Answer { answers, after } => {
                for a in answers.into_iter().flatten() {
                    if after > self.stream.applied_seq() {
                        self.waiting.push((after, tag, a));
                    } else {
                        self.tagged.push((tag, a.clone()));
                        self.answers.push(a);
                    }
                }
            }
            Decision::Wait => {
                assert!(
                    !self.open.is_empty() || !self.ahead.is_empty(),
                    "nothing is on its way that could be waited for"
                );
                self.apply();
                self.decide(p);
            }
        }
    }

    /// What is decided and not applied is lost.
    pub fn lose_tail(&mut self) {
        self.open.clear();
        self.ahead.clear();
        self.waiting.clear();
        self.stream.reset_tail();
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.ahead.push(Logged::Messages(std::mem::take(&mut self.open)));
        }
    }

    /// Proposes without applying.
    pub fn propose(&mut self, command: Command) {
        self.close();
        self.stream.proposed(&command);
        self.ahead.push(Logged::Control(Control { time: self.now.wall, command }));
    }

    pub fn apply(&mut self) -> Outcome {
        self.close();
        let mut outcome = Outcome::default();
        for entry in std::mem::take(&mut self.ahead) {
            outcome = apply_one(&mut self.stream, &mut self.msgs, &self.interest, &entry);
            self.log.push(entry);
        }
        let applied = self.stream.applied_seq();
        for (seq, tag, a) in std::mem::take(&mut self.waiting) {
            if seq <= applied {
                self.answers.push(a.clone());
                self.tagged.push((tag, a));
            } else {
                self.waiting.push((seq, tag, a));
            }
        }
        outcome
    }

    pub fn run(&mut self, command: Command) -> Outcome {
        self.propose(command);
        self.apply()
    }

    /// Publishes, applies and gives the answer.
    pub fn ask(&mut self, subject: &str, headers: &[(&str, &str)], payload: &str) -> Answer {
        self.answers.clear();
        self.publish(subject, headers, payload);
        self.apply();
        assert_eq!(self.answers.len(), 1, "one answer: {:?}", self.answers);
        self.answers.remove(0)
    }

    /// Stores a message; its sequence.
    pub fn store(&mut self, subject: &str) -> u64 {
        match self.ask(subject, &[], "x") {
            Answer::Ack(a) if !a.duplicate => a.seq,
            other => panic!("stored: {other:?}"),
        }
    }

    /// The number of the error that a publish is refused with, and its text.
    pub fn refused(&mut self, subject: &str, headers: &[(&str, &str)], payload: &str) -> (u16, String) {
        let last = self.stream.given_seq();
        match self.ask(subject, headers, payload) {
            Answer::Error(e) => {
                assert_eq!(self.stream.given_seq(), last, "a refusal takes no sequence");
                (e.err_code, e.description.into_owned())
            }
            other => panic!("refused: {other:?}"),
        }
    }

    /// Does what is due, until nothing is.
    pub fn time(&mut self) {
        for _ in 0..1000 {
            let due = again(|| self.stream.due(self.now, &self.msgs));
            if due.entries.is_empty() && due.command.is_none() {
                return;
            }
            self.open.extend(due.entries);
            if let Some(command) = due.command {
                self.close();
                self.ahead.push(Logged::Control(Control { time: self.now.wall, command }));
            }
            self.apply();
        }
        panic!("something is due for ever");
    }

    pub fn seqs(&self) -> Vec<u64> {
        self.msgs.inner.iter().map(|m| m.seq).collect()
    }

    pub fn message(&self, seq: u64) -> Stored {
        self.msgs.inner.get(seq).unwrap().unwrap()
    }
}

/// Holds a decision against what the rules say one after another, whichever way it was found, and against where they stand then.
fn is_by_the_rules(mut twin: Stream, msgs: &Flaky, now: Now, p: &Publish<'_>, decision: &Decision<'_>) {
    if twin.holding > 0 || twin.unfinished {
        return assert_eq!(decision, &Decision::Wait);
    }
    let (mut quick, msgs) = (twin.clone(), Flaky { misses: 0, ..msgs.clone() });
    assert_eq!(twin.decide_by_rules(p, &msgs, now).as_ref(), Ok(decision));
    quick.decide(p, &msgs, now).expect("nothing misses");
    let state = |s: Stream| {
        let ids: Vec<_> = s.dedup.iter().map(|(id, seq, time)| (id.to_vec(), seq, time)).collect();
        let given = (s.given, s.given_time, s.given_id, s.tail.len(), s.tail.bytes());
        (given, ids, format!("{:?}", s.batches))
    };
    assert_eq!(state(quick), state(twin), "{p:?}");
}

pub fn apply_one<I: Interest>(
    stream: &mut Stream,
    msgs: &mut Flaky,
    interest: &I,
    entry: &Logged,
) -> Outcome {
    match entry {
        Logged::Messages(all) => {
            for m in all {
                msgs.inner.push(m.clone());
                stream.applied(&Entry::of(m));
            }
            again(|| stream.enforce(msgs, interest));
            Outcome::default()
        }
        Logged::Control(c) => {
            // Over the codec, as in a log.
            let c = Control::decode(&c.encode()).unwrap();
            again(|| stream.apply_command(&c, msgs, interest))
        }
    }
}
