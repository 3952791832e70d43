//! What a stream has decided and its log does not hold yet, with the answers that wait for it.
//!
//! Owns the open batch, the order of what is to be proposed, and the answers. Decides nothing.
//!
//! - J-1: an answer leaves only from an entry that was applied.
//! - J-22: what is decided later is proposed later, and is void when what came before it is refused.

use std::collections::VecDeque;

use replica::Proposal;
use store::{Batch, GroupId, Message};
use stream::{ApiError, command::Control};
use tokio::sync::oneshot;

/// A batch of messages is closed at that many bytes: what fits well into one journal round and is applied at once.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Proposals handed out at once.
const TAKE_BYTES_MAX: usize = 4 << 20;

/// Answers to publishers: where to, and what.
#[derive(Default, Debug)]
pub struct Answers {
    text: Vec<u8>,
    /// Ends of reply subject and body, with its line's end, in `text`.
    ends: Vec<(u32, u32)>,
}

impl Answers {
    /// Adds an answer; `body` appends it.
    #[inline]
    pub fn push(&mut self, reply: &[u8], body: impl FnOnce(&mut Vec<u8>)) {
        self.text.extend_from_slice(reply);
        let reply_end = self.text.len() as u32;
        body(&mut self.text);
        self.text.extend_from_slice(b"\r\n");
        self.ends.push((reply_end, self.text.len() as u32));
    }
    /// Each with where it goes before it, and the end of the line behind it.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut at = 0;
        self.ends.iter().map(move |&(a, b)| {
            let (reply, body) = (&self.text[at..a as usize], &self.text[a as usize..b as usize]);
            at = b as usize;
            (reply, body)
        })
    }
    /// Each reply subject.
    pub fn replies(&self) -> impl Iterator<Item = &[u8]> {
        self.iter().map(|(r, _)| r)
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }
}

/// What a command did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// Messages that it removed.
    pub removed: u64,
}

/// Who waits for a command.
pub type Waiter = oneshot::Sender<Result<Applied, ApiError>>;

/// What happens when an entry is applied.
#[derive(Debug)]
pub enum Outcome {
    /// These answers leave.
    Answers(Answers),
    /// A request goes on.
    Command(Option<Waiter>),
    /// What consumers have noted is state. Proposed again if it was refused: nobody else has it.
    Notes,
}

/// What is lost with a refusal or with leadership.
#[derive(Debug, Default)]
pub struct Lost {
    /// Handed out, perhaps in the log: what becomes of it is for somebody else to say.
    pub open: Vec<Outcome>,
    /// Not in the log, and never will be.
    pub void: Vec<Outcome>,
    /// What consumers had noted, in order, of what is void.
    pub notes: Vec<Proposal>,
}

/// See the module.
#[derive(Default, Debug)]
pub struct Log {
    batch: Batch,
    /// Messages are being added that must stand in one entry.
    whole: bool,
    answers: Answers,
    ready: VecDeque<(Proposal, Outcome)>,
    in_flight: VecDeque<Outcome>,
    /// Messages that wait: decided, and not applied.
    waiting: usize,
    waiting_bytes: usize,
    /// Messages and bytes of each batch on its way.
    sizes: VecDeque<(usize, usize)>,
    spare: Vec<Answers>,
}

impl Log {
    /// Adds a decided message to the open batch.
    #[inline(always)]
    pub fn message(&mut self, group: GroupId, m: &Message<'_>) {
        if self.batch.len() > BATCH_BYTES_MAX && !self.whole {
            self.seal();
        }
        self.batch.push(group, m);
        self.waiting += 1;
        self.waiting_bytes += m.record_size();
    }
    /// Makes room for messages of `bytes` together that must stand in one entry.
    pub fn whole(&mut self, bytes: usize) {
        if self.batch.len() + bytes > BATCH_BYTES_MAX {
            self.seal();
        }
        self.whole = true;
    }
    /// All of them are there.
    pub fn end_whole(&mut self) {
        self.whole = false;
    }
    /// Adds an answer that leaves when everything decided so far is applied.
    #[inline]
    pub fn answer(&mut self, reply: &[u8], body: impl FnOnce(&mut Vec<u8>)) {
        if self.batch.is_empty() {
            // It hangs on what is on its way.
            let last = self.ready.back_mut().map(|r| &mut r.1).or(self.in_flight.back_mut());
            if let Some(Outcome::Answers(a)) = last {
                return a.push(reply, body);
            }
        }
        self.answers.push(reply, body);
    }
    /// Adds a command behind everything decided so far.
    pub fn command(&mut self, c: &Control, outcome: Outcome) {
        self.seal();
        self.ready.push_back((replica::control(c.encode()), outcome));
    }
    fn seal(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let size = (self.batch.count() as usize, self.batch.len());
        let answers = std::mem::replace(&mut self.answers, self.spare.pop().unwrap_or_default());
        let batch = replica::messages_digested(self.batch.finish_digested(&[]));
        self.ready.push_back((batch, Outcome::Answers(answers)));
        self.sizes.push_back(size);
    }
    /// Messages that wait to be applied, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        (self.waiting, self.waiting_bytes)
    }
    /// Whether something is decided and not applied.
    pub fn has_tail(&self) -> bool {
        !self.batch.is_empty() || !self.ready.is_empty() || !self.in_flight.is_empty()
    }
    /// Whether there is something to hand out.
    pub fn has_work(&self) -> bool {
        !self.batch.is_empty() || !self.ready.is_empty()
    }
    /// Answers that hang on nothing any more: what they waited for was applied meanwhile.
    pub fn take_loose(&mut self) -> Option<Answers> {
        (!self.answers.is_empty() && !self.has_tail()).then(|| std::mem::take(&mut self.answers))
    }

    /// Hands out what is to be proposed now.
    pub fn take(&mut self, out: &mut Vec<Proposal>) {
        self.seal();
        let mut bytes = 0;
        while bytes < TAKE_BYTES_MAX
            && let Some((p, outcome)) = self.ready.pop_front()
        {
            bytes += p.payload.len();
            out.push(p);
            self.in_flight.push_back(outcome);
        }
    }
    /// The oldest proposal was applied.
    pub fn applied(&mut self, is_batch: bool) -> Option<Outcome> {
        if is_batch && let Some((n, bytes)) = self.sizes.pop_front() {
            self.waiting -= n;
            self.waiting_bytes -= bytes.min(self.waiting_bytes);
        }
        self.in_flight.pop_front()
    }
    /// Keeps the room of answers that were sent.
    pub fn recycle(&mut self, mut a: Answers) {
        if self.spare.len() < 2 && a.text.capacity() <= 1 << 20 {
            a.clear();
            self.spare.push(a);
        }
    }
    /// Puts a proposal back at the end of what is ready.
    pub fn again(&mut self, p: Proposal) {
        self.seal();
        self.ready.push_back((p, Outcome::Notes));
    }
    /// Whether something was handed out and is not applied.
    pub fn is_under_way(&self) -> bool {
        !self.in_flight.is_empty()
    }
    /// The proposals that were handed out last are not in the log, and so nothing of what was decided behind them will be (J-22). What was
    /// handed out before them is still on its way.
    pub fn refused(&mut self, batch: Vec<Proposal>) -> Lost {
        self.seal();
        let mut lost = Lost::default();
        let keep = self.in_flight.len().saturating_sub(batch.len());
        let back = batch.into_iter().zip(self.in_flight.split_off(keep)).chain(self.ready.drain(..));
        for (p, outcome) in back {
            match outcome {
                Outcome::Notes => lost.notes.push(p),
                Outcome::Answers(_) => {
                    let (n, bytes) = self.sizes.pop_back().unwrap_or_default();
                    self.waiting -= n;
                    self.waiting_bytes -= bytes.min(self.waiting_bytes);
                    lost.void.push(outcome);
                }
                Outcome::Command(_) => lost.void.push(outcome),
            }
        }
        if !self.answers.is_empty() {
            lost.void.push(Outcome::Answers(std::mem::take(&mut self.answers)));
        }
        lost
    }
    /// This node proposes no more: gives back all that waits.
    pub fn give_up(&mut self) -> Lost {
        let mut lost = self.refused(Vec::new());
        lost.notes.clear();
        lost.open = self.in_flight.drain(..).collect();
        self.sizes.clear();
        (self.waiting, self.waiting_bytes) = (0, 0);
        lost
    }
}

#[cfg(test)]
mod tests {
    use store::StreamSeq;

    use super::*;

    fn message(log: &mut Log, seq: u64) {
        let m = Message {
            seq: StreamSeq(seq),
            time: 1,
            expires: None,
            redacted: false,
            subject: b"a",
            headers: b"",
            body: b"x",
        };
        log.message(GroupId(2), &m);
        log.answer(b"r", |b| b.extend_from_slice(seq.to_string().as_bytes()));
    }
    fn texts(o: Option<Outcome>) -> Vec<String> {
        match o {
            Some(Outcome::Answers(a)) => {
                a.iter().map(|(_, b)| String::from_utf8_lossy(b.trim_ascii_end()).into_owned()).collect()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn answers_leave_with_their_batches() {
        let mut log = Log::default();
        message(&mut log, 1);
        message(&mut log, 2);
        let mut out = Vec::new();
        log.take(&mut out);
        assert_eq!(out.len(), 1);
        // A duplicate of what is on its way waits for it.
        log.answer(b"r", |b| b.extend_from_slice(b"dup"));
        message(&mut log, 3);
        log.take(&mut out);
        assert_eq!((out.len(), log.waiting().0), (2, 3));
        assert_eq!(texts(log.applied(true)), ["1", "2", "dup"]);
        assert!(log.has_tail());
        assert_eq!(texts(log.applied(true)), ["3"]);
        assert!(!log.has_tail() && log.waiting() == (0, 0));
    }

    fn all_texts(all: Vec<Outcome>) -> Vec<String> {
        all.into_iter().flat_map(|o| texts(Some(o))).collect()
    }

    #[test]
    fn what_is_given_up_is_given_back() {
        let mut log = Log::default();
        message(&mut log, 1);
        log.take(&mut Vec::new());
        message(&mut log, 2);
        let lost = log.give_up();
        assert_eq!(all_texts(lost.open), ["1"]);
        assert_eq!(all_texts(lost.void), ["2"]);
        assert!(!log.has_tail() && !log.has_work() && log.waiting() == (0, 0));
    }

    #[test]
    fn a_refusal_leaves_what_was_handed_out_before() {
        let mut log = Log::default();
        message(&mut log, 1);
        log.take(&mut Vec::new());
        message(&mut log, 2);
        log.again(replica::control(bytes::Bytes::from_static(b"n")));
        let mut out = Vec::new();
        log.take(&mut out);
        message(&mut log, 3);
        let lost = log.refused(out);
        assert_eq!(all_texts(lost.void), ["2", "3"]);
        assert_eq!((lost.open.len(), lost.notes.len()), (0, 1));
        assert_eq!(log.waiting().0, 1);
        assert!(log.is_under_way() && !log.has_work());
        // J-1: the answer of the first is its own, whatever was decided since.
        message(&mut log, 2);
        assert_eq!(texts(log.applied(true)), ["1"]);
        assert!(log.has_work() && !log.is_under_way() && log.waiting().0 == 1);
    }
}
