//! The stored messages of a stream as its rules ask for them.
//!
//! Owns the translation between the words of `store` and those of `stream`. What cannot be answered from memory is
//! [`store::Need`]: the caller lets go of all locks, awaits `store::Group::fetch`, and asks again.

use std::cell::OnceCell;

use bytes::Bytes;
use store::{Need, Read, StreamSeq};
use stream::{Carried, Ends, Messages, MessagesMut, Meta, Stored, SubjectTotals, Totals};

/// A store's view with the rules' interface. The group's lock is taken with the first question, so that a decision that asks
/// nothing costs nothing.
pub struct StoreView<'a> {
    group: &'a store::Group,
    view: OnceCell<store::View<'a>>,
}

impl<'a> StoreView<'a> {
    /// Of a group.
    #[inline]
    pub fn new(group: &'a store::Group) -> StoreView<'a> {
        StoreView { group, view: OnceCell::new() }
    }
    /// The store's own view.
    #[inline]
    pub fn store(&self) -> &store::View<'a> {
        self.view.get_or_init(|| self.group.view())
    }
    /// The store's own view, for effects.
    pub fn store_mut(&mut self) -> &mut store::View<'a> {
        self.store();
        self.view.get_mut().expect("just made")
    }
}

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
        let t = self.store().totals();
        Totals { first: t.first.0, last: t.last.0, msgs: t.msgs, bytes: t.bytes, last_time: t.last_time }
    }
    fn num_subjects(&self) -> Result<u64, Need> {
        self.store().num_subjects()
    }
    fn subject(&self, subject: &[u8]) -> Result<Option<SubjectTotals>, Need> {
        Ok(self.store().subject(subject)?.map(totals_of))
    }
    fn subject_of(&self, seq: u64, subject: &[u8]) -> Result<Option<SubjectTotals>, Need> {
        Ok(self.store().subject_of(StreamSeq(seq), subject)?.map(totals_of))
    }
    fn subjects(&self, filter: &[u8], f: &mut dyn FnMut(&[u8], SubjectTotals) -> bool) -> Result<(), Need> {
        self.store().subjects(filter, |s, t| f(s, totals_of(t)))
    }
    fn last_of(&self, subject: &[u8], upto: u64) -> Result<Option<u64>, Need> {
        Ok(self.store().last_of(subject, StreamSeq(upto))?.map(|s| s.0))
    }
    fn next(&self, filters: &[Bytes], from: u64) -> Result<Option<u64>, Need> {
        Ok(self.store().next(filters, StreamSeq(from))?.map(|s| s.0))
    }
    fn pending(&self, filters: &[Bytes], from: u64) -> Result<u64, Need> {
        self.store().pending(filters, StreamSeq(from))
    }
    fn at_time(&self, time: i64) -> Result<u64, Need> {
        Ok(self.store().at_time(time)?.0)
    }
    fn meta(&self, seq: u64) -> Result<Option<Meta>, Need> {
        Ok(match self.store().get(StreamSeq(seq))? {
            Read::Valid(s) => {
                let m = s.message();
                let size = self.store().size(&m);
                Some(Meta {
                    subject: s.record().slice_ref(m.subject),
                    size,
                    time: m.time,
                    expires: m.expires,
                })
            }
            // What cannot be read is not there for the rules; the store keeps the account of it.
            Read::Absent | Read::Damaged(_) => None,
        })
    }
    fn get(&self, seq: u64) -> Result<Option<Stored>, Need> {
        Ok(match self.store().get(StreamSeq(seq))? {
            Read::Valid(s) => Some(stored(&s)),
            Read::Absent | Read::Damaged(_) => None,
        })
    }
    fn carried(&self, seq: u64) -> Result<Option<Carried>, Need> {
        Ok(match self.store().get(StreamSeq(seq))? {
            Read::Valid(s) => {
                let m = s.message();
                let len = s.record().len();
                let headers = len - m.body.len();
                let subject = headers - m.headers.len();
                // A record ends with subject, headers and body, and is far below 4 GiB.
                let at = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                let ends =
                    Ends { start: at(subject - m.subject.len()), subject: at(subject), headers: at(headers) };
                let (seq, time) = (m.seq.0, m.time);
                Some(Carried::new(seq, time, s.into_record(), ends))
            }
            Read::Absent | Read::Damaged(_) => None,
        })
    }
}

impl MessagesMut for StoreView<'_> {
    fn remove(&mut self, seq: u64) -> Result<bool, Need> {
        self.store_mut().remove(StreamSeq(seq))
    }
}
