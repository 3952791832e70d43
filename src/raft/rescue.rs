//! A group whose majority is gone for good goes on with what is left of it.
//!
//! Owns the one step that no quorum agrees to. Whoever calls it has the word of an operator that the others will not come back, or knows that they have
//! forgotten all, and has chosen the replica whose log is not behind that of any other that is left: then whatever was committed and is still
//! anywhere is kept. What keeps the others out if they come back all the same is the caller's.
//!
//! - only a replica that does not lead, in a term that none of those left has seen, makes itself leader without votes, and only of members that
//!   the group has already.

use crate::core::{Core, Cx, Role};
use crate::liveness::Liveness;
use crate::members::{Change, ChangeError};
use crate::ready::{ChangeRefusal, Note, Ready};
use crate::types::{LogIndex, NodeId, Term};

impl Core {
    /// Makes `voters` all the members and leads them, in a term above `above` and above its own. Returns the index of the entry that says so; it is
    /// committed when a majority of `voters` has it.
    ///
    /// # Errors
    /// The reason; nothing was changed.
    pub fn force(
        &mut self,
        voters: &[NodeId],
        above: Term,
        live: &Liveness,
        out: &mut Ready,
    ) -> Result<LogIndex, ChangeRefusal> {
        if self.halted.is_some() {
            return Err(ChangeRefusal::Refused(crate::ready::Refusal::Halted));
        }
        self.within(live, out, |core, cx| core.take_force(voters, above, cx))
    }

    fn take_force(
        &mut self,
        voters: &[NodeId],
        above: Term,
        cx: &mut Cx<'_>,
    ) -> Result<LogIndex, ChangeRefusal> {
        if matches!(self.role, Role::Leader(_)) {
            return Err(ChangeRefusal::InProgress);
        }
        if !self.eligible() {
            return Err(ChangeRefusal::Settling);
        }
        let change = Change { voters: voters.to_vec(), learners: Vec::new() };
        let next = self.log.members().1.leave_joint().step_to(&change).map_err(ChangeRefusal::Bad)?;
        let next = next.leave_joint();
        if !next.is_voter(self.me) {
            return Err(ChangeRefusal::Bad(ChangeError::NotLearner(self.me)));
        }
        let term = self.term.max(above).next();
        self.follow(term, None, cx);
        assert!(self.vote.is_none() && self.term > above, "R-20: nobody who is left has been in its term");
        self.vote = Some(self.me);
        cx.out.notes.push((self.group, Note::Campaigns(term)));
        self.lead(cx);
        let index = self.append_members(next, cx);
        self.maybe_commit(cx);
        Ok(index)
    }
}
