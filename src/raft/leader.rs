//! Leading: proposals, appends, commits, and the leader's timers.
//!
//! Owns what exists only while leading. R-8: only an entry of the own term is committed by counting. R-7: the leader
//! counts itself as far as it is durable, like any other. R-16: refusals name their reason.

use bytes::Bytes;

use crate::core::{Core, Cx, NEVER, Role, bug};
use crate::liveness::Liveness;
use crate::log::{Log, Slice};
use crate::members::Members;
use crate::message::{Append, Body, Message};
use crate::progress::{Feed, Progress};
use crate::quorum::quorum_value;
use crate::read::Reads;
use crate::ready::{Load, Loaded, Note, Proposal, Ready, Refusal};
use crate::transfer::Transfer;
use crate::types::{Entry, EntryKind, LogIndex, NodeId, Term};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leader {
    /// Everybody else in the membership, old or new, in order.
    pub peers: Vec<Progress>,
    /// Index of the first entry of this term.
    pub first: LogIndex,
    /// When a quorum has to have shown itself.
    pub quorum_at: u64,
    /// When what was not answered is sent again.
    pub resend_at: u64,
    pub transfer: Option<Box<Transfer>>,
    /// A transfer was begun in this term: votes may pass over promises, so there is no lease any more.
    pub lease_off: bool,
    pub reads: Reads,
    /// Peers that denied what they had proved, up to where, and the read round that tells an old answer from a loss. One each at most.
    // Boxed, since most leaders suspect nobody.
    #[allow(clippy::box_collection, reason = "an idle leader must be small")]
    pub suspects: Option<Box<Vec<(NodeId, LogIndex, u64)>>>,
}

impl Leader {
    pub fn peer(&self, node: NodeId) -> Option<usize> {
        self.peers.binary_search_by_key(&node, |p| p.node).ok()
    }

    pub fn deadline(&self) -> u64 {
        let transfer = self.transfer.as_ref().map_or(NEVER, |t| t.until);
        self.quorum_at.min(self.resend_at).min(transfer)
    }

    /// Whether a reachable peer still has to be told something. An unreachable one keeps no timer alive.
    pub fn outstanding(&self, log: &Log, live: &Liveness) -> bool {
        self.peers.iter().any(|p| live.reachable(p.node) && self.owes(p, log, live))
    }

    fn owes(&self, peer: &Progress, log: &Log, live: &Liveness) -> bool {
        peer.matched < log.last()
            || peer.commit < log.commit
            || peer.round < self.reads.round
            || live.got_until(peer.node, peer.epoch) <= live.now
    }

    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.peers.capacity() * size_of::<Progress>()
            + self.peers.iter().map(Progress::heap_bytes).sum::<usize>()
            + self.reads.heap_bytes()
            + self.suspects.as_ref().map_or(0, |s| {
                size_of::<Vec<(NodeId, LogIndex, u64)>>()
                    + s.capacity() * size_of::<(NodeId, LogIndex, u64)>()
            })
    }
}

impl Core {
    /// Takes up leadership of the present term.
    pub(crate) fn lead(&mut self, cx: &mut Cx<'_>) {
        assert!(self.eligible(), "R-14: only a whole voter leads");
        assert!(self.term > self.led, "R-1: a term is led once");
        assert_eq!(self.vote, Some(self.me), "R-6: a leader has its own vote");
        self.led = self.term;
        self.leader = Some(self.me);
        self.promise = None;
        self.election_at = NEVER;
        self.tries = 0;
        let first = self.log.last().next();
        self.role = Role::Leader(Box::new(Leader {
            peers: Vec::new(),
            first,
            quorum_at: cx.live.now + self.options.election_ns,
            resend_at: NEVER,
            transfer: None,
            lease_off: false,
            reads: Reads::default(),
            suspects: None,
        }));
        self.sync_peers();
        cx.out.notes.push((self.group, Note::Leads(self.term)));
        // what older terms left is committed together with this.
        self.append_own(EntryKind::Empty, 0, Bytes::new(), None, cx);
        self.broadcast(cx);
        self.maybe_commit(cx);
    }

    /// Whether this replica leads and has applied everything from before its term.
    pub(crate) fn settled(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if self.log.applied >= leader.first)
    }

    /// Puts a batch into the log, or none of it. Returns the index of its first entry.
    ///
    /// # Errors
    /// The reason; the caller can try again, or elsewhere.
    pub fn propose(
        &mut self,
        batch: Vec<Proposal>,
        live: &Liveness,
        out: &mut Ready,
    ) -> Result<LogIndex, Refusal> {
        if self.halted.is_some() {
            return Err(Refusal::Halted);
        }
        self.within(live, out, |core, cx| core.take_proposals(batch, cx))
    }

    pub(crate) fn take_proposals(
        &mut self,
        batch: Vec<Proposal>,
        cx: &mut Cx<'_>,
    ) -> Result<LogIndex, Refusal> {
        let Role::Leader(leader) = &self.role else { return Err(Refusal::NotLeader(self.leader)) };
        if leader.transfer.is_some() {
            return Err(Refusal::Transferring);
        }
        if !self.settled() {
            return Err(Refusal::Settling);
        }
        if batch.is_empty() || batch.iter().any(|p| !matches!(p.kind, EntryKind::Normal | EntryKind::Control))
        {
            return Err(Refusal::BadProposal);
        }
        let bytes: u64 = batch.iter().map(|p| p.payload.len() as u64 + crate::types::ENTRY_OVERHEAD).sum();
        // A batch larger than a limit passes alone, or it could never pass.
        let over = |have: u64, max: u64| have > 0 && have + bytes > max;
        if over(self.log.uncommitted_bytes, self.options.uncommitted_bytes_max) {
            return Err(Refusal::Uncommitted);
        }
        if over(self.log.unapplied_bytes, self.options.unapplied_bytes_max) {
            return Err(Refusal::Unapplied);
        }
        let first = self.log.last().next();
        for p in batch {
            self.append_own(p.kind, p.digest, p.payload, None, cx);
        }
        self.broadcast(cx);
        if bug!(self, LeaderCountsUnsynced) || bug!(self, SingleVoterUnsynced) {
            self.maybe_commit(cx);
        }
        Ok(first)
    }

    pub(crate) fn append_own(
        &mut self,
        kind: EntryKind,
        digest: u32,
        payload: Bytes,
        members: Option<Members>,
        cx: &mut Cx<'_>,
    ) {
        let index = self.log.last().next();
        let entry = Entry::after(self.log.last_chain(), index, self.term, kind, digest, payload);
        let changed = members.is_some();
        self.log.push(entry, members);
        cx.append_from.get_or_insert(index);
        if changed {
            cx.out.notes.push((self.group, Note::Members(index)));
            self.sync_peers();
        }
    }

    /// Peers are the members of the newest membership and of the committed one: who leaves still hears that it left.
    pub(crate) fn sync_peers(&mut self) {
        let mut want = self.log.members().1.all();
        want.extend(self.log.members_at(self.log.commit).all());
        want.sort_unstable();
        want.dedup();
        let keep_all = bug!(self, RemovedStillCount);
        let Role::Leader(leader) = &mut self.role else { return };
        leader.peers.retain(|p| keep_all || want.binary_search(&p.node).is_ok());
        for node in want.into_iter().filter(|n| *n != self.me) {
            if let Err(at) = leader.peers.binary_search_by_key(&node, |p| p.node) {
                leader.peers.insert(at, Progress::new(node, self.log.last()));
            }
        }
    }

    pub(crate) fn broadcast(&mut self, cx: &mut Cx<'_>) {
        let Role::Leader(leader) = &self.role else { return };
        for at in 0..leader.peers.len() {
            self.feed(at, cx);
        }
    }

    /// Sends what one peer may be sent.
    pub(crate) fn feed(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Self { role: Role::Leader(leader), log, options, group, me, term, .. } = self else { return };
        let round = leader.reads.round;
        let peer = &mut leader.peers[at];
        while peer.may_send(options) {
            let message = |body| Message { group: *group, from: *me, to: peer.node, term: *term, body };
            let prev = peer.next.prev();
            if prev < log.base().index {
                // What follows is state by now.
                cx.out.messages.push(message(Body::Snapshot(Box::new(log.base().clone()))));
                peer.snapshot(log.base().index);
                return;
            }
            let (entries, cost) = if peer.next > log.last() {
                if peer.feed == Feed::Replicate {
                    return;
                }
                (Vec::new(), 0)
            } else {
                match log.slice(peer.next, log.last(), options.message_bytes_max) {
                    Slice::Here { entries, cost } => (entries, cost),
                    Slice::OnDisk { last } => {
                        peer.loading = true;
                        cx.out.loads.push(Load {
                            group: *group,
                            to: peer.node,
                            repair: false,
                            first: peer.next,
                            last,
                            bytes_max: options.message_bytes_max,
                        });
                        return;
                    }
                }
            };
            let last = entries.last().map_or(prev, |e| e.index);
            cx.out.messages.push(message(Body::Append(Append {
                prev,
                prev_term: log.term(prev).expect("R-12: the entry before lies in the log"),
                prev_chain: log.chain(prev),
                entries,
                commit: log.commit,
                round,
            })));
            peer.sent(last, cost);
        }
    }

    pub(crate) fn on_loaded(&mut self, loaded: Loaded, cx: &mut Cx<'_>) {
        if loaded.repair {
            return self.on_loaded_for_repair(loaded, cx);
        }
        let Self { role: Role::Leader(leader), log, group, me, term, .. } = self else { return };
        let Some(at) = leader.peer(loaded.to) else { return };
        let peer = &mut leader.peers[at];
        if !peer.loading || peer.next != loaded.first {
            return;
        }
        peer.loading = false;
        let prev = peer.next.prev();
        let sound = loaded
            .entries
            .iter()
            .enumerate()
            .all(|(n, e)| e.index.0 == loaded.first.0 + n as u64 && log.term(e.index) == Some(e.term));
        let (Some(prev_term), Some(last), true) =
            (log.term(prev), loaded.entries.last().map(|e| e.index), sound)
        else {
            // Nothing that could be sent; the next tick looks again, by then perhaps at a snapshot.
            peer.paused = true;
            return;
        };
        let cost = loaded.entries.iter().map(Entry::cost).sum();
        cx.out.messages.push(Message {
            group: *group,
            from: *me,
            to: peer.node,
            term: *term,
            body: Body::Append(Append {
                prev,
                prev_term,
                prev_chain: loaded.prev_chain,
                entries: loaded.entries,
                commit: log.commit,
                round: leader.reads.round,
            }),
        });
        peer.sent(last, cost);
        self.feed(at, cx);
    }

    pub(crate) fn send_beat(&self, to: NodeId, cx: &mut Cx<'_>) {
        let Role::Leader(leader) = &self.role else { return };
        let Some(at) = leader.peer(to) else { return };
        let commit = self.log.commit.min(leader.peers[at].matched);
        self.send(to, Body::Beat { commit, round: leader.reads.round }, cx);
    }

    /// Notes what any answer of a follower says.
    pub(crate) fn heard(&mut self, from: NodeId, commit: LogIndex, round: u64, epoch: u64) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(at) = leader.peer(from) else { return };
        let peer = &mut leader.peers[at];
        peer.heard = true;
        peer.commit = peer.commit.max(commit);
        peer.round = peer.round.max(round);
        peer.epoch = peer.epoch.max(epoch);
    }

    pub(crate) fn on_append_ok(
        &mut self,
        from: NodeId,
        accepted: LogIndex,
        durable: LogIndex,
        repair_from: Option<LogIndex>,
        cx: &mut Cx<'_>,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(at) = leader.peer(from) else { return };
        if accepted > self.log.last() || durable > accepted {
            cx.out.notes.push((self.group, Note::Malformed(from)));
            return;
        }
        let peer = &mut leader.peers[at];
        if repair_from.is_none() {
            peer.repairing = false;
        }
        let moved = peer.accept(accepted, durable);
        if let Some(first) = repair_from
            && first <= self.log.last()
        {
            peer.repair(first);
        }
        let before = self.log.commit;
        if moved {
            self.maybe_commit(cx);
        }
        let moved_commit = self.log.commit > before;
        // A commit may have ended the reign or changed the peers.
        let Role::Leader(leader) = &self.role else { return };
        if let Some(at) = leader.peer(from) {
            let peer = &leader.peers[at];
            let commit = self.log.commit;
            let tell = !moved_commit
                && peer.matched == self.log.last()
                && peer.matched == commit
                && peer.commit < commit;
            self.feed(at, cx);
            if tell {
                // It came after the quorum, so that nobody told it, and nothing follows that would.
                self.send_beat(from, cx);
            }
        }
        self.try_transfer(cx);
        self.evict();
    }

    pub(crate) fn on_append_reject(
        &mut self,
        from: NodeId,
        prev: LogIndex,
        (hint, hint_term): (LogIndex, Term),
        round: u64,
        cx: &mut Cx<'_>,
    ) {
        let stuck = bug!(self, ConflictNeverBacksUp);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(at) = leader.peer(from) else { return };
        let peer = &mut leader.peers[at];
        if peer.feed == Feed::Probe
            && prev == peer.matched
            && prev == peer.next.prev()
            && prev > self.log.base().index
        {
            // An answer from before it had proved this may still be under way. One to a message that left since then carries
            // a read round that began since then.
            let suspects = leader.suspects.get_or_insert_default();
            match suspects.iter().find(|s| s.0 == from && s.1 == prev) {
                Some((.., since)) if round >= *since => {
                    cx.out.notes.push((self.group, Note::PeerRegressed(from)));
                }
                Some(_) => {}
                None => {
                    leader.reads.round += 1;
                    suspects.retain(|s| s.0 != from);
                    suspects.push((from, prev, leader.reads.round));
                }
            }
        }
        // Terms above the follower's cannot agree: step over them at once.
        let (agree, _) = self.log.agree_hint(hint, hint_term);
        let before = peer.next;
        if peer.reject(prev, agree.min(hint)) {
            if stuck {
                peer.probe(before);
                peer.paused = true;
                return;
            }
            self.feed(at, cx);
        }
    }

    pub(crate) fn on_snapshot_failed(&mut self, from: NodeId, index: LogIndex) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(at) = leader.peer(from) else { return };
        let peer = &mut leader.peers[at];
        if peer.feed == Feed::Snapshot(index) {
            // Not at once again, or a full disk would keep the link busy: the next tick tries.
            let next = peer.next;
            peer.probe(next);
            peer.paused = true;
            peer.forget_pace();
        }
    }

    /// Commits what a quorum has durable, if it is of the own term.
    pub(crate) fn maybe_commit(&mut self, cx: &mut Cx<'_>) {
        let Role::Leader(leader) = &self.role else { return };
        let alone = self.counting().voters.len() == 1 && !self.counting().is_joint();
        let unsynced = bug!(self, LeaderCountsUnsynced) || alone && bug!(self, SingleVoterUnsynced);
        let own = if unsynced { self.log.last() } else { self.log.durable };
        let matched = |n: NodeId| {
            if n == self.me { own.0 } else { leader.peer(n).map_or(0, |at| leader.peers[at].matched.0) }
        };
        let mut reached = quorum_value(&self.counting(), matched);
        if bug!(self, RemovedStillCount) {
            let mut all: Vec<u64> = leader.peers.iter().map(|p| p.matched.0).chain([own.0]).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            reached = all[self.counting().voters.len() / 2];
        }
        let reached = LogIndex(reached.min(self.log.last().0));
        if reached <= self.log.commit {
            return;
        }
        let own_term = self.log.term(reached) == Some(self.term);
        if !own_term && !bug!(self, CommitPriorTerm) {
            return;
        }
        assert!(
            own_term || bug!(self, CommitPriorTerm),
            "R-8: only an entry of the own term is committed by counting"
        );
        self.log.commit_to(reached);
        self.after_commit(cx);
    }

    fn after_commit(&mut self, cx: &mut Cx<'_>) {
        self.advance_members(cx);
        let Role::Leader(leader) = &self.role else { return };
        if self.log.commit == self.log.last() {
            // With more under way the next append tells it anyway.
            for p in &leader.peers {
                if p.commit < self.log.commit && p.matched == self.log.commit && cx.live.reachable(p.node) {
                    self.send_beat(p.node, cx);
                }
            }
        }
        self.start_reads(cx);
    }

    /// Until when a quorum supports this leader, before drift; 0 if it does not. Both ends know of the promise: the epoch
    /// in the follower's answer and the one in the table are the same.
    #[must_use]
    pub fn lease_until(&self, live: &Liveness) -> u64 {
        match &self.role {
            Role::Leader(leader) if !leader.lease_off => self.support_until(live),
            _ => 0,
        }
    }

    /// Whether a lease counts at all: it leads, and has asked nobody to take over in this term.
    #[must_use]
    pub fn may_lease(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if !leader.lease_off)
    }

    /// Until when a quorum supports this leader. Enough to need no timer, not enough for a lease.
    fn support_until(&self, live: &Liveness) -> u64 {
        let Role::Leader(leader) = &self.role else { return 0 };
        quorum_value(&self.counting(), |n| {
            if n == self.me {
                return u64::MAX;
            }
            leader.peer(n).map_or(0, |at| live.got_until(n, leader.peers[at].epoch))
        })
    }

    /// Whether a quorum was heard of since the last look, or supports this leader.
    pub(crate) fn quorum_is_fresh(&self, live: &Liveness) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        quorum_value(&self.counting(), |n| {
            let fresh = n == self.me
                || leader.peer(n).is_some_and(|at| {
                    let p = &leader.peers[at];
                    p.heard || live.got_until(n, p.epoch) > live.now
                });
            u64::from(fresh)
        }) > 0
    }

    pub(crate) fn tick_leader(&mut self, cx: &mut Cx<'_>) {
        let now = cx.live.now;
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.transfer.as_ref().is_some_and(|t| now >= t.until) {
            leader.transfer = None;
        }
        if now >= leader.quorum_at {
            if !self.quorum_is_fresh(cx.live) {
                cx.out.notes.push((self.group, Note::QuorumLost(self.term)));
                return self.resign(cx);
            }
            let supported = self.support_until(cx.live) > now;
            let Role::Leader(leader) = &mut self.role else { return };
            leader.peers.iter_mut().for_each(|p| p.heard = false);
            leader.quorum_at = if supported { NEVER } else { now + self.options.election_ns };
        }
        let Role::Leader(leader) = &mut self.role else { return };
        if now < leader.resend_at {
            return;
        }
        leader.resend_at = NEVER;
        for at in 0..leader.peers.len() {
            self.resend(at, cx);
        }
        let unsupported = self.support_until(cx.live) <= now;
        let Role::Leader(leader) = &mut self.role else { return };
        if unsupported && leader.quorum_at == NEVER {
            leader.quorum_at = now + self.options.election_ns;
        }
    }

    /// Repeats to one peer what it has not answered.
    fn resend(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let node = leader.peers[at].node;
        if !cx.live.reachable(node) || !leader.owes(&leader.peers[at], &self.log, cx.live) {
            return;
        }
        let peer = &mut leader.peers[at];
        if peer.gives_up(self.log.last()) {
            match peer.feed {
                Feed::Snapshot(_) => {
                    // The offer may be lost; a follower that has it at work takes it for what it is. The base may be newer.
                    let next = peer.matched.next();
                    peer.probe(next);
                }
                Feed::Probe => {
                    peer.paused = false;
                    peer.loading = false;
                }
                Feed::Replicate => {
                    let next = peer.matched.next();
                    peer.probe(next);
                }
            }
            self.feed(at, cx);
        }
        self.send_beat(node, cx);
    }

    pub(crate) fn on_support_lost(&mut self, node: NodeId, cx: &mut Cx<'_>) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.peer(node).is_some() && leader.quorum_at == NEVER {
            leader.peers.iter_mut().for_each(|p| p.heard = false);
            leader.quorum_at = cx.live.now + self.options.election_ns;
        }
    }

    pub(crate) fn on_reachable(&mut self, node: NodeId, cx: &mut Cx<'_>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(at) = leader.peer(node) else { return };
        let peer = &mut leader.peers[at];
        peer.moved = false;
        peer.forget_pace();
        self.resend(at, cx);
    }

    pub(crate) fn on_unreachable(&mut self, node: NodeId, cx: &mut Cx<'_>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(at) = leader.peer(node) else { return };
        let peer = &mut leader.peers[at];
        if peer.feed == Feed::Replicate && peer.inflight().0 > 0 {
            let next = peer.matched.next();
            peer.probe(next);
            if !cx.live.reachable(node) {
                peer.paused = true;
            }
        }
    }

    pub(crate) fn on_ill(&mut self, ill: bool, cx: &mut Cx<'_>) {
        self.ill = ill;
        if ill {
            self.resign(cx);
            self.stop_campaign(cx);
        } else if self.leader.is_none() {
            self.election_at = self.election_at.min(self.election_time(cx.live.now));
        }
    }

    /// Stops to lead in this term and says so.
    pub(crate) fn resign(&mut self, cx: &mut Cx<'_>) {
        if let Role::Leader(_) = self.role {
            let term = self.term;
            self.broadcast_resign(cx);
            self.follow(term, None, cx);
        }
    }

    /// Tells everybody that this replica does not lead. False if there is nobody to tell.
    pub(crate) fn broadcast_resign(&mut self, cx: &mut Cx<'_>) -> bool {
        let peers = match &self.role {
            Role::Leader(leader) => leader.peers.iter().map(|p| p.node).collect(),
            _ => self.others(),
        };
        for to in &peers {
            self.send(*to, Body::Resign, cx);
        }
        !peers.is_empty()
    }
}
