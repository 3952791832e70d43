//! A stream as its rules see it: synchronous questions, and the few effects that applying may have.
//!
//! Owns the handle and the way from a question to what is pinned for it. A question has no effect but on what is remembered
//! to answer the next one faster. What cannot be answered from memory says what is needed ([`Need`]); the caller drops the
//! view, awaits [`crate::Group::fetch`], and asks again.

use std::cell::{Cell, RefCell};

use parking_lot::MutexGuard;

use crate::{
    abreast::Last,
    feet::{Feet, Near, Need, Pins, What},
    group::Group as State,
    manifest::Totals,
    query::SubjectTotals,
    record::Head,
    shard::Shard,
    store::Read,
    types::StreamSeq,
};

type Asked<T> = std::result::Result<T, Need>;

/// A group's stream under its lock. See the module.
pub struct View<'a> {
    state: RefCell<MutexGuard<'a, State>>,
    shard: &'a Shard,
    pins: Pins,
    /// Where the pins go back to, if not to the group.
    home: Option<&'a mut Pins>,
    missed: Cell<bool>,
    near: Near,
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        self.pins.end(self.missed.get());
        let pins = std::mem::take(&mut self.pins);
        match &mut self.home {
            Some(h) => **h = pins,
            None => self.state.get_mut().pins = pins,
        }
    }
}

impl<'a> View<'a> {
    pub(crate) fn new(
        mut state: MutexGuard<'a, State>,
        shard: &'a Shard,
        mut home: Option<&'a mut Pins>,
    ) -> View<'a> {
        let pins = home.as_deref_mut().unwrap_or(&mut state.pins);
        let mut pins = std::mem::take(pins);
        pins.begin();
        View {
            state: RefCell::new(state),
            shard,
            pins,
            home,
            missed: Cell::new(false),
            near: Near::default(),
        }
    }

    fn feet(&self) -> Feet<'_> {
        Feet { pins: &self.pins, cache: &self.shard.cache, near: &self.near }
    }

    fn note<T>(&self, r: Asked<T>) -> Asked<T> {
        if r.is_err() {
            self.missed.set(true);
        }
        r
    }

    fn ask<T>(&self, f: impl FnOnce(&State, &Feet<'_>) -> Asked<T>) -> Asked<T> {
        self.note(f(&self.state.borrow(), &self.feet()))
    }

    /// The same with the dictionary up to date.
    fn ask_ready<T>(&self, f: impl FnOnce(&State, &Feet<'_>) -> Asked<T>) -> Asked<T> {
        // Not within a callback of `subjects`, where it is ready: nothing can be applied while the view lives.
        if !self.state.borrow().dict_ready() {
            let r = self.state.borrow_mut().ready(&self.feet());
            self.note(r)?;
        }
        self.ask(f)
    }

    // ---- questions

    /// The totals.
    pub fn totals(&self) -> Totals {
        let t = self.state.borrow().totals;
        Totals { first: if t.msgs == 0 { t.last.next() } else { t.first }, ..t }
    }

    /// How many subjects have messages.
    pub fn num_subjects(&self) -> Asked<u64> {
        self.ask_ready(|s, _| Ok(s.dict.live() as u64))
    }

    /// The totals of one literal subject; `None` if it has no message.
    pub fn subject(&self, subject: &[u8]) -> Asked<Option<SubjectTotals>> {
        let id = self.ask_ready(|s, _| Ok(s.dict.find(subject)))?;
        id.map_or(Ok(None), |id| self.totals_of(id))
    }

    /// The totals of `subject`, which the message with this number has or had: while it is in the tail it names its subject, and nothing is searched.
    pub fn subject_of(&self, seq: StreamSeq, subject: &[u8]) -> Asked<Option<SubjectTotals>> {
        match self.ask_ready(|s, _| Ok(s.subject_of(seq)))? {
            Some(id) => self.totals_of(id),
            None => self.subject(subject),
        }
    }

    fn totals_of(&self, id: u32) -> Asked<Option<SubjectTotals>> {
        let t = self.ask(|s, feet| s.subject_totals(id, feet))?;
        if let Some(t) = t
            && let Ok(mut s) = self.state.try_borrow_mut()
        {
            let i = *s.dict.info(id);
            if !i.first_is_exact() || !i.last_is_exact() {
                s.dict.tighten(id, Some(t.first), Some(t.last));
            }
        }
        Ok(t)
    }

    /// Calls `f` for each subject with messages that matches `filter`, in byte order, until `f` returns false. If it
    /// answers with a need, `f` may have been called; asked again, it begins anew. `f` may ask the view.
    pub fn subjects(&self, filter: &[u8], mut f: impl FnMut(&[u8], SubjectTotals) -> bool) -> Asked<()> {
        let mut need = None;
        let mut found: Vec<(u32, SubjectTotals)> = Vec::new();
        self.ask_ready(|s, feet| {
            s.dict.matching(filter, |id| match s.subject_totals(id, feet) {
                Ok(Some(t)) => {
                    let i = s.dict.info(id);
                    if !i.first_is_exact() || !i.last_is_exact() {
                        found.push((id, t));
                    }
                    f(s.dict.subject(id), t)
                }
                Ok(None) => true,
                Err(n) => {
                    need = Some(n);
                    false
                }
            });
            Ok(())
        })?;
        if let Ok(mut s) = self.state.try_borrow_mut() {
            for (id, t) in found {
                s.dict.tighten(id, Some(t.first), Some(t.last));
            }
        }
        self.note(need.map_or(Ok(()), Err))
    }

    /// The same with counts only, which needs no more than the dictionary.
    pub fn subject_counts(&self, filter: &[u8], mut f: impl FnMut(&[u8], u64) -> bool) -> Asked<()> {
        self.ask_ready(|s, _| {
            s.dict.matching(filter, |id| f(s.dict.subject(id), s.dict.info(id).count()));
            Ok(())
        })
    }

    /// The last message of a literal subject at or before `upto`.
    pub fn last_of(&self, subject: &[u8], upto: StreamSeq) -> Asked<Option<StreamSeq>> {
        let (hit, exact) = self.ask_ready(|s, feet| s.last_of(subject, upto, feet))?;
        if !exact
            && let Some(seq) = hit
            && let Ok(mut s) = self.state.try_borrow_mut()
            && let Some(id) = s.dict.find(subject)
            && let i = *s.dict.info(id)
            && !i.last_is_exact()
            && upto >= i.last
        {
            s.dict.tighten(id, None, Some(seq));
        }
        Ok(hit)
    }

    /// The last messages of literal subjects, in their order, as far as they are at hand; a few at a time, so that memory is waited for once for all of
    /// them. `found` must not ask the view.
    pub fn last_each(&self, subjects: &[&[u8]], mut found: impl FnMut(usize, Last<'_>)) {
        if self.ask_ready(|_, _| Ok(())).is_err() {
            return (0..subjects.len()).for_each(|i| found(i, Last::Unsure));
        }
        self.state.borrow().last_each(subjects, &self.feet(), found);
    }

    /// The first message from `from` on whose subject matches any of `filters`; no filter matches all.
    pub fn next<F: AsRef<[u8]>>(&self, filters: &[F], from: StreamSeq) -> Asked<Option<StreamSeq>> {
        if all(filters) {
            return self.ask(|s, feet| s.next(filters, from, feet));
        }
        self.ask_ready(|s, feet| s.next(filters, from, feet))
    }

    /// How many messages from `from` on match any of `filters`; no filter matches all.
    pub fn pending<F: AsRef<[u8]>>(&self, filters: &[F], from: StreamSeq) -> Asked<u64> {
        if all(filters) {
            return self.ask(|s, feet| s.pending(filters, from, feet));
        }
        self.ask_ready(|s, feet| s.pending(filters, from, feet))
    }

    /// The first sequence whose message came at or after `time`, nanoseconds since 1970; one more than the last if there
    /// is none. Times are taken to rise.
    pub fn at_time(&self, time: i64) -> Asked<StreamSeq> {
        self.ask(|s, feet| s.at_time(time, feet))
    }

    /// A message, checked at this reading. What was there and cannot be read is [`Read::Damaged`], not absent.
    pub fn get(&self, seq: StreamSeq) -> Asked<Read> {
        self.ask(|s, feet| s.read(seq, feet))
    }

    /// What a message counts for in the stream's bytes.
    pub fn size(&self, m: &crate::Message<'_>) -> u64 {
        u64::from(self.state.borrow().counting.of(m))
    }

    // ---- effects

    /// The entry is committed: its messages join the stream. In order, also those without messages.
    pub fn apply(&mut self, head: &Head) -> Asked<()> {
        let feet = Feet { pins: &self.pins, cache: &self.shard.cache, near: &self.near };
        let r = self.state.get_mut().apply(head, &feet);
        match self.note(r)? {
            Ok(()) => Ok(()),
            Err(e) => Err(Need(What::Refused(e.to_string()))),
        }
    }

    /// Takes a message out of the stream; whether it was live.
    pub fn remove(&mut self, seq: StreamSeq) -> Asked<bool> {
        let feet = Feet { pins: &self.pins, cache: &self.shard.cache, near: &self.near };
        let r = self.state.get_mut().remove(seq, &feet);
        self.note(r)
    }

    /// Takes all messages out of the stream at the price of one mark a piece; how many there were.
    pub fn clear(&mut self) -> Asked<u64> {
        let feet = Feet { pins: &self.pins, cache: &self.shard.cache, near: &self.near };
        let r = self.state.get_mut().clear(&feet);
        self.note(r)
    }

    /// Checks S-50 against a walk over everything. For tests and the simulation.
    pub(crate) fn verify(&self) -> Asked<()> {
        self.ask(|s, feet| s.verify(feet))
    }
}

fn all<F: AsRef<[u8]>>(filters: &[F]) -> bool {
    filters.is_empty() || filters.iter().any(|f| crate::filter::is_all(f.as_ref()))
}
