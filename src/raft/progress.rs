//! What a leader knows of one follower, and how much it may send.
//!
//! Owns the states of a follower and the window. Does not build messages and does not count quorums.
//!
//! Probe: one append at a time until the logs agree. Replicate: appends in a row, within the window. Snapshot: nothing
//! but beats until the follower has the state.

use std::collections::VecDeque;

use crate::config::Options;
use crate::types::{LogIndex, NodeId};

/// Most ticks without a move before what was sent is sent again.
const PATIENCE_MAX: u8 = 16;

/// How a follower is fed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Feed {
    /// One append at a time; it is not known where the logs agree.
    Probe,
    /// In a row.
    Replicate,
    /// It needs the state up to this index first.
    Snapshot(LogIndex),
}

/// A leader's view of one follower.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Progress {
    /// Which one.
    pub node: NodeId,
    /// Up to where its log is durable and equal to the leader's. Never goes back within a term.
    pub matched: LogIndex,
    /// First entry that it was not sent.
    pub next: LogIndex,
    /// How it is fed.
    pub feed: Feed,
    /// A probe, a snapshot or a load is under way: send no more appends.
    pub paused: bool,
    /// A load for it is under way.
    pub loading: bool,
    /// It has a hole: send from `next` though it agreed with more.
    pub repairing: bool,
    /// Up to where it knows commits.
    pub commit: LogIndex,
    /// Latest read round that it confirmed.
    pub round: u64,
    /// Epoch of the promise that it made in this term; 0 for none.
    pub epoch: u64,
    /// Heard of since the last look at the quorum.
    pub heard: bool,
    /// `matched` or `next` moved since the last tick.
    pub moved: bool,
    /// Ticks since something moved, and how many of them are borne before what was sent counts as lost.
    quiet: u8,
    patience: u8,
    /// Last index and cost of each append under way.
    // Boxed, since most followers of most groups have nothing under way.
    #[allow(clippy::box_collection, reason = "an idle peer must be small")]
    inflight: Option<Box<VecDeque<(LogIndex, u64)>>>,
    inflight_bytes: u64,
}

impl Progress {
    /// A follower of which nothing is known but that it is to be probed after `last`.
    #[must_use]
    pub fn new(node: NodeId, last: LogIndex) -> Self {
        Self {
            node,
            matched: LogIndex::ZERO,
            next: last.next(),
            feed: Feed::Probe,
            paused: false,
            loading: false,
            repairing: false,
            commit: LogIndex::ZERO,
            round: 0,
            epoch: 0,
            heard: false,
            moved: false,
            quiet: 0,
            patience: 0,
            inflight: None,
            inflight_bytes: 0,
        }
    }

    /// Whether an append may be sent.
    #[must_use]
    pub fn may_send(&self, options: &Options) -> bool {
        !self.paused
            && !self.loading
            && match self.feed {
                Feed::Probe => true,
                Feed::Replicate => {
                    self.inflight().0 < options.inflight_count_max
                        && self.inflight_bytes < options.inflight_bytes_max
                }
                Feed::Snapshot(_) => false,
            }
    }

    /// Notes an append up to `last` that costs `bytes`.
    pub fn sent(&mut self, last: LogIndex, bytes: u64) {
        match self.feed {
            Feed::Probe => self.paused = true,
            Feed::Replicate => {
                if last >= self.next {
                    self.inflight.get_or_insert_default().push_back((last, bytes));
                    self.inflight_bytes += bytes;
                    self.next = last.next();
                }
            }
            Feed::Snapshot(_) => {
                unreachable!("R-16: nothing is appended to a follower that waits for a snapshot")
            }
        }
        assert!(self.next > self.matched, "R-16: next stands behind what matched");
    }

    /// The follower agrees up to `accepted` and is durable up to `durable`. True if `matched` moved.
    pub fn accept(&mut self, accepted: LogIndex, durable: LogIndex) -> bool {
        assert!(durable <= accepted, "R-7: durable is part of what was accepted");
        match self.feed {
            Feed::Probe => {
                if accepted >= self.next.prev() && !self.repairing {
                    self.replicate(accepted.next().max(self.next));
                }
            }
            Feed::Replicate => {
                if let Some(inflight) = &mut self.inflight {
                    while let Some((_, bytes)) = inflight.pop_front_if(|(last, _)| *last <= accepted) {
                        self.inflight_bytes -= bytes;
                        self.moved = true;
                    }
                }
                self.next = self.next.max(accepted.next());
            }
            Feed::Snapshot(index) => {
                if durable >= index {
                    self.probe(durable.next());
                }
            }
        }
        if durable > self.matched {
            self.matched = durable;
            self.moved = true;
            if self.next <= durable {
                self.next = durable.next();
            }
            return true;
        }
        false
    }

    /// The follower does not have `prev`; the logs may agree at `hint`. False for an answer to an older question.
    pub fn reject(&mut self, prev: LogIndex, hint: LogIndex) -> bool {
        let asked = match self.feed {
            Feed::Replicate => prev > self.matched && prev < self.next,
            Feed::Probe => prev == self.next.prev() && prev > self.matched,
            Feed::Snapshot(_) => false,
        };
        if asked {
            let next = prev.min(hint.next()).max(self.matched.next());
            assert!(next < self.next || self.feed == Feed::Replicate, "R-19: a rejected probe steps back");
            self.probe(next);
        }
        asked
    }

    /// The follower has a hole from `first` on: what it proved ends before it, and it is fed from there. False if that is
    /// under way already.
    pub fn repair(&mut self, first: LogIndex) -> bool {
        if self.repairing && self.next == first && (self.paused || self.loading) {
            return false;
        }
        if let Feed::Snapshot(_) = self.feed {
            return false;
        }
        self.matched = self.matched.min(first.prev());
        self.probe(first);
        self.repairing = true;
        true
    }

    /// One append at a time from `next` on; what was under way is forgotten.
    pub fn probe(&mut self, next: LogIndex) {
        self.feed = Feed::Probe;
        self.next = next.max(self.matched.next());
        self.clear();
    }

    /// Appends in a row from `next` on.
    pub fn replicate(&mut self, next: LogIndex) {
        self.feed = Feed::Replicate;
        self.next = next.max(self.matched.next());
        self.clear();
        self.moved = true;
    }

    /// The follower needs the state up to `index`.
    pub fn snapshot(&mut self, index: LogIndex) {
        self.feed = Feed::Snapshot(index);
        self.clear();
    }

    fn clear(&mut self) {
        self.paused = false;
        self.loading = false;
        self.repairing = false;
        self.inflight = None;
        self.inflight_bytes = 0;
    }

    /// A tick at which answers are still owed, for entries if the leader's log ends at `end`: whether what was sent counts as lost.
    ///
    /// Links lose little and can be slow, and what is repeated too early has to pass through them as well, before all that
    /// follows: so a silence that ended is borne from then on, and in one that does not end each repetition waits twice as
    /// long as the one before. An offer of a snapshot is small, and taking it in may need long: it is repeated each time.
    pub fn gives_up(&mut self, end: LogIndex) -> bool {
        if std::mem::take(&mut self.moved) || self.matched >= end {
            self.patience = (self.quiet + 1).max(self.patience / 2).min(PATIENCE_MAX);
            self.quiet = 0;
            return false;
        }
        if let Feed::Snapshot(_) = self.feed {
            return true;
        }
        self.quiet += 1;
        if self.quiet < self.patience {
            return false;
        }
        self.quiet = self.quiet.min(PATIENCE_MAX);
        self.patience = self.quiet + (self.quiet + 1).min(PATIENCE_MAX);
        true
    }

    /// What was learned of the link's pace says nothing of a new one.
    pub fn forget_pace(&mut self) {
        (self.quiet, self.patience) = (0, 0);
    }

    /// Appends and bytes under way.
    #[must_use]
    pub fn inflight(&self) -> (usize, u64) {
        (self.inflight.as_ref().map_or(0, |i| i.len()), self.inflight_bytes)
    }

    /// Bytes of memory beyond the struct itself.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.inflight.as_ref().map_or(0, |i| {
            size_of::<VecDeque<(LogIndex, u64)>>() + i.capacity() * size_of::<(LogIndex, u64)>()
        })
    }

    /// Gives back the memory of an empty window.
    pub fn shrink(&mut self) {
        if self.inflight().0 == 0 {
            self.inflight = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn i(n: u64) -> LogIndex {
        LogIndex(n)
    }

    #[test]
    fn the_window_closes_by_count_and_by_bytes_and_opens_again_r16() {
        let options = Options { inflight_count_max: 2, inflight_bytes_max: 100, ..Options::default() };
        let mut p = Progress::new(NodeId::new(2, 0), i(0));
        p.replicate(i(1));
        p.sent(i(1), 10);
        assert!(p.may_send(&options));
        p.sent(i(2), 10);
        assert!(!p.may_send(&options), "two are under way");
        p.accept(i(2), i(0));
        assert!(p.may_send(&options));
        p.sent(i(3), 100);
        assert!(!p.may_send(&options), "the bytes are spent");
        assert!(p.accept(i(3), i(3)));
        assert_eq!(p.inflight(), (0, 0));
        assert_eq!((p.matched, p.next), (i(3), i(4)));
    }

    /// A slow link: an answer comes after five ticks each time. What was sent is repeated at first, then no more.
    #[test]
    fn who_answers_slowly_is_not_sent_everything_again() {
        let mut p = Progress::new(NodeId::new(2, 0), i(0));
        p.replicate(i(1));
        let mut repeated = Vec::new();
        for n in 1..=20 {
            p.sent(i(n), 10);
            repeated.push((0..5).filter(|_| p.gives_up(i(n))).count());
            p.accept(i(n), i(n));
            assert!(!p.gives_up(i(n + 1)), "it moved");
        }
        assert!(repeated[0] > 0, "{repeated:?}");
        assert_eq!(repeated[4..].iter().sum::<usize>(), 0, "{repeated:?}");
    }

    /// What is lost is repeated, more and more rarely, for ever, and at once over a new link.
    #[test]
    fn what_is_never_answered_is_repeated_ever_more_rarely() {
        let mut p = Progress::new(NodeId::new(2, 0), i(0));
        p.replicate(i(1));
        p.gives_up(i(1));
        p.sent(i(1), 10);
        let at: Vec<usize> = (0..100).filter(|_| p.gives_up(i(1))).collect();
        assert_eq!(at[..5], [0, 2, 6, 14, 30], "{at:?}");
        assert_eq!(at[5] - at[4], PATIENCE_MAX as usize);
        p.forget_pace();
        assert!(p.gives_up(i(1)));
    }

    #[test]
    fn an_answer_to_an_older_question_changes_nothing() {
        let mut p = Progress::new(NodeId::new(2, 0), i(10));
        p.sent(i(10), 0);
        assert!(!p.reject(i(7), i(6)));
        assert!(p.reject(i(10), i(6)));
        assert_eq!(p.next, i(7));
        assert!(!p.reject(i(10), i(6)));
        p.accept(i(6), i(6));
        assert_eq!(p.feed, Feed::Replicate);
        assert!(!p.reject(i(5), i(4)), "what matched stays matched");
    }
}
