//! a node votes once a term, and no message tells of a term or a vote that a crash could undo.

use std::collections::BTreeMap;

use raft::{Body, Message, NodeId};

use super::{Violation, ensure};
use crate::l0::node::Node;

/// Candidate by term and voter.
#[derive(Debug, Default)]
pub struct VoteOnce(BTreeMap<(u64, NodeId), NodeId>);

impl VoteOnce {
    /// A message leaves `node`.
    pub fn check(&mut self, node: &Node, message: &Message) -> Result<(), Violation> {
        let disk = &node.disk;
        let free = matches!(message.body, Body::PreVote { .. } | Body::PreVoteReply { .. });
        let log_term = disk.entries.values().next_back().map_or(disk.checkpoint.meta.term, |e| e.term);
        let known = disk.hard.term.max(log_term).max(disk.checkpoint.meta.term);
        ensure!(
            free || known >= message.term,
            "R-6",
            "{} tells of term {} and its disk knows {}",
            node.id,
            message.term.0,
            known.0
        );
        let vote = match message.body {
            Body::VoteReply { granted: true } => message.to,
            Body::Vote { .. } => message.from,
            _ => return Ok(()),
        };
        ensure!(
            disk.hard.term > message.term || disk.hard.term == message.term && disk.hard.vote == Some(vote),
            "R-6",
            "{} votes for {vote} in term {} and its disk says {:?}",
            node.id,
            message.term.0,
            disk.hard
        );
        let first = *self.0.entry((message.term.0, node.id)).or_insert(vote);
        ensure!(
            first == vote,
            "R-6",
            "{} votes for {first} and for {vote} in term {}",
            node.id,
            message.term.0
        );
        Ok(())
    }
}
