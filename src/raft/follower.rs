//! Following: appends, beats and snapshots from a leader.
//!
//! Owns the rules by which a log is changed by somebody else. Does not make anything
//! durable: an acknowledgement rides on the write that it is about.

use crate::core::{Core, Cx, NEVER, Promise, Role, bug};
use crate::members::Members;
use crate::message::{Append, Body};
use crate::ready::{Fault, Install, Note};
use crate::types::{Entry, EntryKind, LogIndex, NodeId, SnapshotMeta};

impl Core {
    /// The leader of the present term was heard of. False if that cannot be.
    fn contact(&mut self, from: NodeId, cx: &mut Cx<'_>) -> bool {
        if let Role::Leader(_) = self.role {
            self.halt(Fault::TwoLeaders(from), cx);
            return false;
        }
        if self.leader.is_some_and(|l| l != from) {
            self.halt(Fault::TwoLeaders(from), cx);
            return false;
        }
        if self.leader != Some(from) || !matches!(self.role, Role::Follower) {
            let term = self.term;
            self.follow(term, Some(from), cx);
        }
        self.tries = 0;
        self.contact_at = cx.live.now;
        // a quorum chose this leader, so whatever was promised to an older one is void.
        let epoch = cx.live.given(from);
        self.promise = (epoch != 0).then_some(Promise { node: from, epoch, term: self.term });
        self.election_at = if epoch != 0 { NEVER } else { self.election_time(cx.live.now) };
        true
    }

    fn epoch(&self) -> u64 {
        self.promise.map_or(0, |p| p.epoch)
    }

    fn first_hole(&self) -> Option<LogIndex> {
        self.damage.first().map(|(first, _)| *first)
    }

    fn ok(&self, accepted: LogIndex, durable: LogIndex, round: u64) -> Body {
        assert!(durable <= accepted, "R-7: durable is part of what was accepted");
        Body::AppendOk {
            accepted,
            durable,
            commit: self.log.commit,
            repair_from: self
                .first_hole()
                .filter(|first| *first <= accepted && !bug!(self, HoleAcknowledged)),
            round,
            epoch: self.epoch(),
        }
    }

    pub(crate) fn on_beat(&mut self, from: NodeId, commit: LogIndex, round: u64, cx: &mut Cx<'_>) {
        if !self.contact(from, cx) {
            return;
        }
        // The leader knows this much to be in our log; less is there only if our disk lost what it had synced.
        self.log.commit_to(commit.min(self.log.last()));
        self.send(from, Body::BeatOk { commit: self.log.commit, round, epoch: self.epoch() }, cx);
        if !self.damage.is_empty() && self.incoming.is_none() {
            // Of a leader that took it for whole, or whose entries were lost on the way, and has nothing else to send.
            self.ask_for_the_forgotten(from, round, cx);
        } else if commit > self.log.last() {
            // Also where the disk cannot tell that it lost something. In a group in which nothing happens the leader would never learn of it.
            self.ask_for_the_forgotten(from, round, cx);
        }
    }

    /// What was acknowledged is forgotten: to be fed from where the logs surely agree, as after a hole.
    pub(crate) fn ask_for_the_forgotten(&self, leader: NodeId, round: u64, cx: &mut Cx<'_>) {
        let commit = self.log.commit;
        let body = Body::AppendOk {
            accepted: commit,
            durable: commit.min(self.log.durable),
            commit,
            repair_from: Some(self.first_hole().unwrap_or(LogIndex(u64::MAX)).min(commit.next())),
            round,
            epoch: self.epoch(),
        };
        self.send(leader, body, cx);
    }

    pub(crate) fn on_append(&mut self, from: NodeId, mut append: Append, cx: &mut Cx<'_>) {
        if !self.contact(from, cx) {
            return;
        }
        let Some(members) = self.well_formed(&append) else {
            cx.out.notes.push((self.group, Note::Malformed(from)));
            return;
        };
        if !self.above_base(&mut append, cx) {
            return;
        }
        let (round, commit) = (append.round, append.commit);
        if self.log.term(append.prev) != Some(append.prev_term) {
            if self.doubt && append.prev > self.log.last() {
                return self.ask_for_the_forgotten(from, round, cx);
            }
            let (hint, hint_term) = self.log.agree_hint(append.prev.prev(), append.prev_term);
            let body = Body::AppendReject { prev: append.prev, hint, hint_term, round, epoch: self.epoch() };
            return self.send(from, body, cx);
        }
        if let (Some(ours), Some(theirs)) = (self.log.chain(append.prev), append.prev_chain)
            && ours != theirs
        {
            return self.halt(Fault::Diverged(append.prev), cx);
        }
        let accepted = LogIndex(append.prev.0 + append.entries.len() as u64);
        if bug!(self, AppendSkipsRest)
            && append.entries.first().is_some_and(|e| self.log.term(e.index) == Some(e.term))
            && accepted > self.log.last()
        {
            return self.send(from, self.ok(accepted, accepted, round), cx);
        }
        let Some(changed) = self.take_entries(append, members, cx) else { return };
        // Only what was compared with the leader's log may be taken for committed.
        self.log.commit_to(commit.min(accepted).max(self.log.commit));
        if changed {
            let body = self.ok(accepted, accepted.min(self.sound_last()), round);
            self.send_after(from, body, cx);
        } else {
            let durable = if bug!(self, EmptyAppendClaimsReceived) { accepted } else { self.log.durable };
            let body = self.ok(accepted, accepted.min(durable), round);
            self.send(from, body, cx);
        }
    }

    /// The memberships in an append, or `None` if no correct leader would send it.
    fn well_formed(&self, append: &Append) -> Option<Vec<(LogIndex, Members)>> {
        let (mut index, mut term, mut chain) = (append.prev, append.prev_term, append.prev_chain);
        let mut members = Vec::new();
        for entry in &append.entries {
            let linked = chain.is_none_or(|before| entry.follows(before));
            if entry.index.0 != index.0.checked_add(1)?
                || entry.term < term
                || entry.term > self.term
                || !linked
            {
                return None;
            }
            if entry.kind == EntryKind::Config {
                members.push((entry.index, Members::decode(&entry.payload)?));
            }
            (index, term, chain) = (entry.index, entry.term, Some(entry.chain));
        }
        Some(members)
    }

    /// Cuts off what is state on this node already. False if the group stopped.
    fn above_base(&mut self, append: &mut Append, cx: &mut Cx<'_>) -> bool {
        let base = self.log.base();
        if append.prev >= base.index {
            return true;
        }
        let below = (base.index.0 - append.prev.0) as usize;
        if let Some(at_base) = append.entries.get(below - 1)
            && (at_base.term != base.term || at_base.chain != base.chain)
        {
            let index = base.index;
            self.halt(Fault::CommittedConflict(index), cx);
            return false;
        }
        append.entries.drain(..below.min(append.entries.len()));
        append.prev = base.index;
        append.prev_term = base.term;
        append.prev_chain = Some(base.chain);
        true
    }

    /// Puts entries into the log: what is there stays, what conflicts goes with all that follows it, holes are filled in place.
    /// True if something has to be written; `None` if the group stopped.
    fn take_entries(
        &mut self,
        append: Append,
        members: Vec<(LogIndex, Members)>,
        cx: &mut Cx<'_>,
    ) -> Option<bool> {
        let mut members = members.into_iter().peekable();
        let mut changed = false;
        let mut before = append.prev_chain;
        for entry in append.entries {
            let index = entry.index;
            // Those of entries below the base were cut off with them.
            while members.next_if(|(at, _)| *at < index).is_some() {}
            let joined = members.next_if(|(at, _)| *at == index).map(|(_, m)| m);
            let chain = entry.chain;
            if index <= self.log.last() {
                if self.log.term(index) == Some(entry.term) {
                    if self.log.chain(index).is_some_and(|ours| ours != chain) {
                        self.halt(Fault::Diverged(index), cx);
                        return None;
                    }
                    changed |= self.patch(entry, cx);
                    before = Some(chain);
                    continue;
                }
                if index <= self.log.commit {
                    self.halt(Fault::CommittedConflict(index), cx);
                    return None;
                }
                self.cut_from(index, before, cx);
            }
            self.push_theirs(entry, joined, cx);
            changed = true;
            before = Some(chain);
        }
        Some(changed)
    }

    fn cut_from(&mut self, index: LogIndex, before: Option<crate::types::Chain>, cx: &mut Cx<'_>) {
        assert!(index > self.log.commit, "R-5: what is committed is never truncated");
        // An entry with its own chain follows at once, so that an unknown one here is not used.
        let before = before.or_else(|| self.log.chain(index.prev())).unwrap_or_default();
        if self.log.truncate(index, before) {
            cx.out.notes.push((self.group, Note::Members(self.log.members().0)));
        }
        self.unprove(index);
        self.trim_holes(LogIndex::ZERO, index.prev());
        cx.truncate = Some(index);
    }

    fn push_theirs(&mut self, entry: Entry, members: Option<Members>, cx: &mut Cx<'_>) {
        let index = entry.index;
        if members.is_some() {
            cx.out.notes.push((self.group, Note::Members(index)));
        }
        self.log.push(entry, members);
        cx.append_from.get_or_insert(index);
    }

    pub(crate) fn on_snapshot(&mut self, from: NodeId, meta: SnapshotMeta, cx: &mut Cx<'_>) {
        if !self.contact(from, cx) {
            return;
        }
        let holed = self.first_hole().is_some_and(|first| first <= meta.index);
        let have = meta.index <= self.log.commit || self.log.term(meta.index) == Some(meta.term);
        if have && !holed {
            // Nothing is missing up to there; equal index and term make it committed here too.
            self.log.commit_to(meta.index.max(self.log.commit));
            let accepted = self.log.commit;
            let body = self.ok(accepted, accepted.min(self.log.durable), 0);
            return self.send(from, body, cx);
        }
        if self.incoming == Some((meta.index, from)) {
            return;
        }
        if bug!(self, LogDroppedForOffer) {
            let nothing = SnapshotMeta::nothing(self.group);
            self.log = crate::log::Log::new(crate::log::Tail::new(nothing.clone()), LogIndex(0), LogIndex(0));
            self.unprove(LogIndex(1));
            cx.reset = Some(Box::new(nothing));
            cx.truncate = Some(LogIndex(1));
        }
        // the log stays as it is until the state is here and durable.
        self.incoming = Some((meta.index, from));
        cx.out.installs.push(Install { group: self.group, from, meta });
    }

    pub(crate) fn on_install_failed(&mut self, index: LogIndex, cx: &mut Cx<'_>) {
        if let Some((wanted, from)) = self.incoming
            && wanted == index
        {
            self.incoming = None;
            self.send(from, Body::SnapshotFailed { index }, cx);
        }
    }

    pub(crate) fn on_installed(&mut self, meta: SnapshotMeta, cx: &mut Cx<'_>) {
        self.incoming = None;
        let index = meta.index;
        // Whatever this replica has become since it asked: the state machine stands there now.
        self.stop_campaign(cx);
        if matches!(self.role, Role::Leader(_)) && index > self.log.last() {
            // a leader has every committed entry, and a snapshot holds nothing else.
            return self.halt(Fault::CommittedConflict(index), cx);
        }
        if index > self.log.base().index {
            if index <= self.log.applied {
                // The state machine is there already; what is new is that its state is durable.
                if self.log.term(index) != Some(meta.term) {
                    return self.halt(Fault::CommittedConflict(index), cx);
                }
                self.log.rebase(meta.clone());
                self.log.durable = self.log.durable.max(index);
            } else {
                self.reset_log(meta.clone(), cx);
            }
            self.trim_holes(index, LogIndex(u64::MAX));
            cx.reset = Some(Box::new(meta));
        }
        if let Some(leader) = self.leader.filter(|l| *l != self.me) {
            let durable = index.min(self.sound_last());
            let body = self.ok(index, durable, 0);
            self.send_after(leader, body, cx);
        }
    }

    fn reset_log(&mut self, meta: SnapshotMeta, cx: &mut Cx<'_>) {
        let index = meta.index;
        if self.log.commit > index && self.log.term(index) != Some(meta.term) {
            return self.halt(Fault::CommittedConflict(index), cx);
        }
        let mut base = meta;
        if bug!(self, SnapshotOffByOne) {
            base.index = base.index.prev();
        }
        if !self.log.reset(base) {
            // what follows the base is unknown; writes in flight prove nothing above it.
            cx.truncate = Some(index.next());
            self.unprove(index.next());
            self.damage.clear();
            cx.out.notes.push((self.group, Note::Members(index)));
        }
        self.evict();
    }
}
