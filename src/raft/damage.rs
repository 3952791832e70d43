//! Holes in the log: payloads that cannot be read although the entries are known.
//!
//! Owns the list of holes and their repair. R-14: what is durable ends before the first hole, so that every acknowledgement does;
//! a replica with a hole does not lead. The identity of the entries in a hole stays, so that votes are compared with the whole
//! log and a hole is never taken for the end of the log.

use crate::core::{Core, Cx, Role, bug};
use crate::log::Slice;
use crate::message::Body;
use crate::ready::{Load, Loaded, Note};
use crate::types::{Entry, LogIndex, NodeId, Term};

/// How far the term jumps when a replica that has forgotten its votes is trusted again.
const TERMS_PASSED: u64 = 1 << 20;

impl Core {
    /// Whether this replica is distrusted: see [`HardState::doubt`](crate::HardState).
    #[must_use]
    pub fn is_distrusted(&self) -> bool {
        self.doubt
    }

    pub(crate) fn on_trusted(&mut self, cx: &mut Cx<'_>) {
        if !std::mem::take(&mut self.doubt) {
            return;
        }
        // whom it voted for in the terms around is not known, so none of them is voted in again. A candidate of a later one would
        // have had to be elected that often while this replica was away.
        let term = Term(self.term.0.saturating_add(TERMS_PASSED));
        self.follow(term, None, cx);
    }

    /// Notes a hole; the part at or below the base is state and not this module's.
    pub(crate) fn add_hole(&mut self, first: LogIndex, last: LogIndex) {
        let first = first.max(self.log.base().index.next());
        let last = last.min(self.log.last());
        if first > last {
            return;
        }
        self.damage.push((first, last));
        self.damage.sort_unstable();
        // Merge what touches.
        let mut merged: Vec<(LogIndex, LogIndex)> = Vec::with_capacity(self.damage.len());
        for (first, last) in self.damage.drain(..) {
            match merged.last_mut() {
                Some(before) if first <= before.1.next() => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        self.damage = merged;
        if !bug!(self, HoleAcknowledged) {
            self.unprove(first);
        }
    }

    /// Forgets the parts of holes at or below `base` and above `last`.
    pub(crate) fn trim_holes(&mut self, base: LogIndex, last: LogIndex) {
        if self.damage.is_empty() {
            return;
        }
        self.damage = self
            .damage
            .iter()
            .map(|(f, l)| ((*f).max(base.next()), (*l).min(last)))
            .filter(|(f, l)| f <= l)
            .collect();
    }

    pub(crate) fn on_damaged(&mut self, first: LogIndex, last: LogIndex, cx: &mut Cx<'_>) {
        self.add_hole(first, last);
        let Some(hole) = self.damage.first().copied() else { return };
        cx.out.notes.push((self.group, Note::Hole(hole.0, hole.1)));
        match self.role {
            Role::Leader(_) => self.resign(cx),
            Role::PreCandidate(_) | Role::Candidate(_) => self.stop_campaign(cx),
            Role::Follower => {
                if let Some(leader) = self.leader {
                    // It thinks that we have all of it; let it send again from the hole.
                    let body = Body::AppendOk {
                        accepted: self.log.commit,
                        durable: self.log.commit.min(self.log.durable),
                        commit: self.log.commit,
                        repair_from: Some(hole.0),
                        round: 0,
                        epoch: self.promise.map_or(0, |p| p.epoch),
                    };
                    self.send(leader, body, cx);
                }
            }
        }
        self.election_at = self.election_at.min(self.election_time(cx.live.now));
    }

    /// Fills the place of one entry, if it is in a hole. The caller has compared its term with the log's.
    pub(crate) fn patch(&mut self, entry: Entry, cx: &mut Cx<'_>) -> bool {
        let index = entry.index;
        let Some(at) = self.damage.iter().position(|(f, l)| *f <= index && index <= *l) else { return false };
        assert_eq!(self.log.term(index), Some(entry.term), "R-14: a patch is the very entry");
        let (first, last) = self.damage.remove(at);
        if index < last {
            self.damage.insert(at, (index.next(), last));
        }
        if first < index {
            self.damage.insert(at, (first, index.prev()));
        }
        cx.out.notes.push((self.group, Note::Patched(index)));
        cx.patch.push(entry);
        true
    }

    /// Without a leader, any peer may have what is missing.
    pub(crate) fn ask_repair(&mut self, cx: &mut Cx<'_>) {
        let Some((first, last)) = self.damage.first().copied() else { return };
        let term = self.log.term(first).expect("R-14: a hole lies in the log");
        for to in self.others() {
            self.send(to, Body::RepairAsk { first, term, last }, cx);
        }
    }

    pub(crate) fn on_repair_ask(
        &mut self,
        from: NodeId,
        first: LogIndex,
        term: Term,
        last: LogIndex,
        cx: &mut Cx<'_>,
    ) {
        let last = last.min(self.log.durable);
        if first <= self.log.base().index || first > last || self.log.term(first) != Some(term) {
            return;
        }
        match self.log.slice(first, last, self.options.message_bytes_max) {
            Slice::Here { entries, .. } => self.send(from, Body::RepairGive(entries), cx),
            Slice::OnDisk { last } => cx.out.loads.push(Load {
                group: self.group,
                to: from,
                repair: true,
                first,
                last,
                bytes_max: self.options.message_bytes_max,
            }),
        }
    }

    pub(crate) fn on_loaded_for_repair(&mut self, loaded: Loaded, cx: &mut Cx<'_>) {
        // The log may have changed since; what is sent must still be ours.
        let ours = loaded
            .entries
            .iter()
            .all(|e| self.log.term(e.index) == Some(e.term) && e.index <= self.log.durable);
        if ours && !loaded.entries.is_empty() {
            self.send(loaded.to, Body::RepairGive(loaded.entries), cx);
        }
    }

    pub(crate) fn on_repair_give(&mut self, entries: Vec<Entry>, cx: &mut Cx<'_>) {
        let linked = entries.windows(2).all(|w| w[1].index == w[0].index.next() && w[1].follows(w[0].chain));
        if !linked {
            return;
        }
        let mut patched = false;
        for entry in entries {
            // Equal index and term are the same entry; the store compares the chain that it kept.
            if self.log.term(entry.index) == Some(entry.term)
                && self.log.chain(entry.index).is_none_or(|ours| ours == entry.chain)
            {
                patched |= self.patch(entry, cx);
            }
        }
        if patched && self.damage.is_empty() && self.leader.is_none() {
            self.election_at = self.election_at.min(self.election_time(cx.live.now));
        }
    }
}
