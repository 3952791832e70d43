//! Elections: who may campaign, who gets a vote, when one is won.
//!
//! Owns pre-vote, vote, and the promise that refuses them. Does not make anything
//! durable: `core.rs` holds requests and answers back until they are.

use crate::core::{Core, Cx, NEVER, Role, bug};
use crate::liveness::Liveness;
use crate::message::Body;
use crate::quorum::{Tally, quorum_tally};
use crate::ready::Note;
use crate::types::{LogIndex, NodeId, Term};

impl Core {
    /// Whether this replica could lead: it counts, is well, and has its whole log.
    pub(crate) fn eligible(&self) -> bool {
        let whole = self.damage.is_empty() || bug!(self, DamagedLeads);
        // One whom uncommitted memberships leave out may be the only one who has them: if it did not campaign, and the
        // others needed its vote, nobody could ever lead. It counts by the newest, without itself. What is committed may
        // be more than it knows, so any membership from the committed one on will do.
        let counts = self.log.may_vote(self.me);
        self.halted.is_none() && !self.ill && !self.doubt && whole && counts
    }

    /// Whether a log that ends so has all that this replica has ever acknowledged, as far as it can say.
    fn may_judge(&self, last: LogIndex, last_term: Term) -> bool {
        !self.doubt && self.log.not_newer_than(last, last_term) || bug!(self, VotesForShortLog)
    }

    /// Whether the promise that this replica made is still binding.
    pub(crate) fn promise_holds(&self, live: &Liveness) -> bool {
        !bug!(self, PromiseIgnored) && self.promise.is_some_and(|p| live.given(p.node) == p.epoch)
    }

    /// whether something binds this replica not to help `candidate`.
    fn bound_against(&self, candidate: NodeId, live: &Liveness) -> bool {
        if self.promise_holds(live) && self.promise.is_some_and(|p| p.node != candidate) {
            return true;
        }
        if live.now < live.no_vote_before && !bug!(self, PromiseIgnored) {
            return true;
        }
        match &self.role {
            Role::Leader(_) => self.quorum_is_fresh(live),
            // Without a table, the leader's last word binds for an election time.
            Role::Follower => {
                self.leader.is_some_and(|l| l != candidate)
                    && live.now < self.contact_at + self.options.election_ns
            }
            _ => false,
        }
    }

    /// Asks whether an election could be won, without raising a term.
    pub(crate) fn pre_campaign(&mut self, cx: &mut Cx<'_>) {
        assert!(self.eligible(), "R-14: only a whole voter campaigns");
        if self.promise_holds(cx.live) {
            // the own vote is a vote too, whoever asks for the campaign.
            return;
        }
        self.leader = None;
        self.tries = self.tries.saturating_add(1);
        self.election_at = self.election_time(cx.live.now);
        if cx.live.now < cx.live.no_vote_before && !bug!(self, PromiseIgnored) {
            // What was promised before a restart is not known any more, so the longest grant is waited out.
            self.election_at = self.election_at.max(cx.live.no_vote_before);
            return;
        }
        self.role = Role::PreCandidate(vec![(self.me, true)]);
        let (last, last_term) = (self.log.last(), self.log.last_term());
        for to in self.others() {
            self.send_in(self.term.next(), to, Body::PreVote { last, last_term }, cx);
        }
        self.tally_pre_votes(cx);
    }

    /// Members other than this one, in order; voters and, since they answer when asked, learners are not needed.
    pub(crate) fn others(&self) -> Vec<NodeId> {
        let members = self.counting();
        let mut all = members.all();
        all.retain(|n| *n != self.me && members.is_voter(*n));
        all
    }

    pub(crate) fn on_pre_vote(
        &mut self,
        from: NodeId,
        term: Term,
        last: LogIndex,
        last_term: Term,
        cx: &mut Cx<'_>,
    ) {
        if term <= self.term {
            // The asker may be stuck in an old term; it learns of ours.
            return self.send(from, Body::PreVoteReply { granted: false }, cx);
        }
        if self.leader == Some(from) || self.promise.is_some_and(|p| p.node == from) {
            // Who asks does not lead its term, perhaps since a restart, and never will.
            self.on_resign(from, Term(term.0 - 1), cx);
        }
        let fresh = self.may_judge(last, last_term);
        if self.bound_against(from, cx.live) || !fresh {
            if let Role::Leader(_) = self.role {
                // It has not heard of us: let it.
                self.send_beat(from, cx);
            }
            return self.send(from, Body::PreVoteReply { granted: false }, cx);
        }
        self.send_in(term, from, Body::PreVoteReply { granted: true }, cx);
    }

    pub(crate) fn on_pre_vote_reply(&mut self, from: NodeId, term: Term, granted: bool, cx: &mut Cx<'_>) {
        if granted {
            if term != self.term.next() {
                return;
            }
        } else if term > self.term {
            return self.follow(term, None, cx);
        } else if term < self.term {
            return;
        }
        if let Role::PreCandidate(votes) = &mut self.role {
            record(votes, from, granted);
            self.tally_pre_votes(cx);
        }
    }

    fn tally_pre_votes(&mut self, cx: &mut Cx<'_>) {
        if let Role::PreCandidate(votes) = &self.role {
            match quorum_tally(&self.counting(), |n| answer(votes, n)) {
                Tally::Won => self.campaign(false, cx),
                Tally::Lost => self.role = Role::Follower,
                Tally::Open => {}
            }
        }
    }

    /// Raises the term and asks for votes; the requests leave with the write of the own vote.
    pub(crate) fn campaign(&mut self, transfer: bool, cx: &mut Cx<'_>) {
        assert!(self.eligible(), "R-14: only a whole voter campaigns");
        self.term = self.term.next();
        self.vote = Some(self.me);
        self.role = Role::Candidate(Vec::new());
        self.leader = None;
        self.election_at = self.election_time(cx.live.now);
        cx.out.notes.push((self.group, Note::Campaigns(self.term)));
        let (last, last_term) = (self.log.last(), self.log.last_term());
        for to in self.others() {
            self.send(to, Body::Vote { last, last_term, transfer }, cx);
        }
    }

    pub(crate) fn on_vote(
        &mut self,
        from: NodeId,
        term: Term,
        last: LogIndex,
        last_term: Term,
        transfer: bool,
        cx: &mut Cx<'_>,
    ) {
        if term < self.term {
            return self.send(from, Body::VoteReply { granted: false }, cx);
        }
        let bound = !transfer && self.bound_against(from, cx.live);
        if term > self.term {
            if bound {
                // not even the term is taken, or a node that cannot win would unseat a leader.
                return;
            }
            self.follow(term, None, cx);
        }
        // A term that was learned otherwise does not end a promise.
        let free = self.vote.is_none() && self.leader.is_none() && !bound || bug!(self, VotesTwice);
        let same = self.vote == Some(from);
        let fresh = self.may_judge(last, last_term);
        let granted = (free || same) && fresh;
        if granted {
            self.vote = Some(from);
            self.election_at = self.election_time(cx.live.now);
        }
        self.send(from, Body::VoteReply { granted }, cx);
    }

    pub(crate) fn count_vote(&mut self, from: NodeId, granted: bool, cx: &mut Cx<'_>) {
        let Role::Candidate(votes) = &mut self.role else { return };
        record(votes, from, granted);
        let Role::Candidate(votes) = &self.role else { return };
        match quorum_tally(&self.counting(), |n| answer(votes, n)) {
            Tally::Won if answer(votes, self.me) == Some(true) || !self.counting().is_voter(self.me) => {
                self.lead(cx)
            }
            Tally::Won | Tally::Open => {}
            Tally::Lost => {
                // Wait for the next time; the term is used up.
                self.role = Role::Follower;
            }
        }
    }

    pub(crate) fn on_withdrawn(&mut self, node: NodeId, cx: &mut Cx<'_>) {
        if self.promise_holds(cx.live) {
            // The news is late: since then support was given in a new epoch and promised to.
            return;
        }
        if matches!(self.role, Role::Follower)
            && (self.leader == Some(node) || self.leader.is_none() && self.election_at == NEVER)
        {
            self.contact_at = 0;
            self.leave_leader(cx);
            if self.eligible() {
                self.pre_campaign(cx);
            }
        }
    }

    /// The heartbeat of a node says that it does not lead this group in `term`.
    pub(crate) fn on_excepted(&mut self, node: NodeId, term: Term, cx: &mut Cx<'_>) {
        self.on_resign(node, term, cx);
    }

    /// `from` does not lead `term`, and never will. Since a node is in one term at a time and terms only rise, it does not lead an
    /// older one either, so promises made to it for such a term bind no more.
    pub(crate) fn on_resign(&mut self, from: NodeId, term: Term, cx: &mut Cx<'_>) {
        if term > self.term {
            self.follow(term, None, cx);
        }
        if self.promise.is_some_and(|p| p.node == from && p.term <= term) {
            self.promise = None;
        }
        if term < self.term {
            self.send(from, Body::Behind, cx);
        }
        let led = self.leader == Some(from) && term == self.term;
        if matches!(self.role, Role::Follower)
            && (led || self.leader.is_none())
            && !self.promise_holds(cx.live)
        {
            self.contact_at = 0;
            self.leave_leader(cx);
            // Whoever draws the shortest time goes first, sooner than after a silence.
            let soon = cx.live.now + self.random() % self.options.election_ns;
            self.election_at = self.election_at.min(soon);
        }
    }

    /// What made this replica eligible may not hold any more.
    pub(crate) fn stop_campaign(&mut self, cx: &mut Cx<'_>) {
        if let Role::PreCandidate(_) | Role::Candidate(_) = self.role {
            let term = self.term;
            self.follow(term, None, cx);
        }
    }

    fn leave_leader(&mut self, cx: &mut Cx<'_>) {
        self.tries = 0;
        let term = self.term;
        self.follow(term, None, cx);
    }
}

fn record(votes: &mut Vec<(NodeId, bool)>, from: NodeId, granted: bool) {
    if !votes.iter().any(|(n, _)| *n == from) {
        votes.push((from, granted));
    }
}

fn answer(votes: &[(NodeId, bool)], node: NodeId) -> Option<bool> {
    votes.iter().find(|(n, _)| *n == node).map(|(_, granted)| *granted)
}
