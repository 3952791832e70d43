//! The stored messages of a stream as its rules ask for them.
//!
//! Owns the translation between the words of `store` and those of `stream`. What cannot be answered from memory is
//! [`store::Need`]: the caller lets go of all locks, awaits `store::Group::fetch`, and asks again.

use bytes::Bytes;
use store::{Need, Read, StreamSeq};
use stream::{Messages, MessagesMut, Meta, Stored, SubjectTotals, Totals};

/// A store's view with the rules' interface.
pub struct StoreView<'a>(pub store::View<'a>);

fn totals_of(t: store::SubjectTotals) -> SubjectTotals {
    SubjectTotals { msgs: t.msgs, first: t.first.0, last: t.last.0 }
}

/// A stored record in the rules' words.
pub fn stored(s: &store::Stored) -> Stored {
    let (m, record) = (s.message(), s.record());
    Stored {
        seq: m.seq.0,
        time: m.time,
        expires: m.expires,
        subject: record.slice_ref(m.subject),
        headers: record.slice_ref(m.headers),
        payload: record.slice_ref(m.body),
    }
}

impl Messages for StoreView<'_> {
    type Miss = Need;

    fn totals(&self) -> Totals {
        let t = self.0.totals();
        Totals { first: t.first.0, last: t.last.0, msgs: t.msgs, bytes: t.bytes, last_time: t.last_time }
    }
    fn num_subjects(&self) -> Result<u64, Need> {
        self.0.num_subjects()
    }
    fn subject(&self, subject: &[u8]) -> Result<Option<SubjectTotals>, Need> {
        Ok(self.0.subject(subject)?.map(totals_of))
    }
    fn subjects(&self, filter: &[u8], f: &mut dyn FnMut(&[u8], SubjectTotals) -> bool) -> Result<(), Need> {
        self.0.subjects(filter, |s, t| f(s, totals_of(t)))
    }
    fn last_of(&self, subject: &[u8], upto: u64) -> Result<Option<u64>, Need> {
        Ok(self.0.last_of(subject, StreamSeq(upto))?.map(|s| s.0))
    }
    fn next(&self, filters: &[Bytes], from: u64) -> Result<Option<u64>, Need> {
        Ok(self.0.next(filters, StreamSeq(from))?.map(|s| s.0))
    }
    fn pending(&self, filters: &[Bytes], from: u64) -> Result<u64, Need> {
        self.0.pending(filters, StreamSeq(from))
    }
    fn at_time(&self, time: i64) -> Result<u64, Need> {
        Ok(self.0.at_time(time)?.0)
    }
    fn meta(&self, seq: u64) -> Result<Option<Meta>, Need> {
        Ok(match self.0.get(StreamSeq(seq))? {
            Read::Valid(s) => {
                let m = s.message();
                let size = self.0.size(&m);
                Some(Meta { subject: s.record().slice_ref(m.subject), size, time: m.time, expires: m.expires })
            }
            // What cannot be read is not there for the rules; the store keeps the account of it.
            Read::Absent | Read::Damaged(_) => None,
        })
    }
    fn get(&self, seq: u64) -> Result<Option<Stored>, Need> {
        Ok(match self.0.get(StreamSeq(seq))? {
            Read::Valid(s) => Some(stored(&s)),
            Read::Absent | Read::Damaged(_) => None,
        })
    }
}

impl MessagesMut for StoreView<'_> {
    fn remove(&mut self, seq: u64) -> Result<bool, Need> {
        self.0.remove(StreamSeq(seq))
    }
}
