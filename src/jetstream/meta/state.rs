//! What the meta group's log says: nodes, assignments, and whose data may go.
//!
//! Owns the state, the commands that change it and the bytes of both. A pure function of the log (J-4): no clock, no randomness.
//!
//! - J-20: a group's id is given once; also the id of a stream that is gone is never given again.
//! - J-21: a stream's data is removed only on the word of a committed entry, never because something does not mention it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use replica::{Members, NodeId};
use serde::{Deserialize, Serialize};
use stream::config::StreamConfig;

use super::tally::{OfAccount, OfNode, Tally};
use crate::codec;

/// The group of the assignments themselves.
pub const META_GROUP: u64 = 1;
/// The version of the commands and of the checkpoint. A kind of command that is new keeps it: whoever proposes one sees to it that all nodes read it.
const FORMAT: u8 = 3;
/// The state's, when it tells of lives of replicas that are spent; without those it is written as before, so that nodes that do not know of them
/// read it.
const WITH_SPENT: u8 = 4;
/// The same with notes of consumers.
const WITH_NOTES: u8 = 5;
/// The same, some of them of streams in files. Written alike; who does not know of such notes must not read it.
const WITH_FILED: u8 = 6;

/// A stream and its log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The group (J-20).
    pub id: u64,
    /// Whose it is.
    pub account: Arc<str>,
    /// The stream's name.
    pub name: Arc<str>,
    /// When it was created, in nanoseconds since 1970.
    pub created: i64,
    /// Its messages are in memory only.
    pub memory: bool,
    /// The configuration that it is to have, as JSON.
    pub config: Bytes,
    /// The nodes on which the group was made.
    pub first: Vec<NodeId>,
    /// The nodes on which it is to be; who is to lead first stands first.
    pub members: Vec<NodeId>,
    /// Nodes that are to leave it and have not yet.
    pub leaving: Vec<NodeId>,
    /// Nodes that were in it and have left: one that comes back has nothing of it.
    pub left: Vec<NodeId>,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// The server's name.
    pub name: Arc<str>,
    /// The server's tags.
    pub tags: Vec<String>,
    /// Bytes for memory streams.
    pub memory_max: u64,
    /// Bytes for file streams.
    pub storage_max: u64,
    /// The newest format that it reads.
    pub format: u32,
}

/// A change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// A stream gets a log. Its id is above all given so far.
    Create(Assignment),
    /// What is wanted of a stream changes.
    Update {
        /// The group.
        id: u64,
        /// The configuration.
        config: Bytes,
        /// The nodes.
        members: Vec<NodeId>,
    },
    /// A stream ends.
    Delete(u64),
    /// These nodes are out of the group: what they have of it may go.
    Out {
        /// The group.
        id: u64,
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// A node has removed what it had.
    Gone {
        /// The group.
        id: u64,
        /// The node.
        node: NodeId,
    },
    /// There is this node, or it changed.
    Node(Node),
    /// This node will not come back.
    Remove(NodeId),
    /// A stream in memory, of which nothing is left, gets another log.
    Renew {
        /// The group that it had.
        id: u64,
        /// The one that it gets: above all given so far.
        new: u64,
    },
    /// The group has left this replica behind, by a committed membership, before its node was told to leave; and the node is wanted again. What it has of that
    /// life never counts any more and goes; the node comes anew.
    Spent {
        /// The group.
        id: u64,
        /// The node, and the life.
        replica: NodeId,
    },
    /// Consumers of a stream whose log is in memory were made or changed, and others have ended. Void if the stream's notes are not at this revision any
    /// more: each makes one more of it, so that none takes effect twice or behind a later one (K-14).
    Note {
        /// The group.
        id: u64,
        /// The revision of its notes that the leader of the stream knew.
        rev: u64,
        /// Those that are there.
        set: BTreeMap<Arc<str>, Noted>,
        /// Those that are not.
        gone: BTreeSet<Arc<str>>,
    },
    /// The same of a stream in files, from format 6 on: a kind of its own, since older nodes refuse it as a [`Command::Note`] and would have another state.
    NoteFiled {
        /// The group.
        id: u64,
        /// As above.
        rev: u64,
        /// Those that are there.
        set: BTreeMap<Arc<str>, Noted>,
        /// Those that are not.
        gone: BTreeSet<Arc<str>>,
    },
}

/// A consumer as it was made, or last changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Noted {
    /// When it was created, in nanoseconds since 1970.
    pub created: i64,
    /// Its configuration, as JSON; empty if the stream's log has it, on a disk: then only that it is there is noted.
    pub json: Bytes,
}

/// Which consumers of a stream are noted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Keeps {
    /// None: its log has them, and several servers have that.
    #[default]
    Nothing,
    /// Its log is on one server's disk: those that it has by their names, so that they are known while that server is away, and those that are in the
    /// memory of that server's process in full.
    Filed,
    /// Its log is in memory: all of them, in full.
    All,
}

/// What is noted of the consumers of a stream.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Notes {
    /// How many commands have changed it. It only rises as long as the stream lives.
    pub rev: u64,
    /// By their names.
    pub all: BTreeMap<Arc<str>, Noted>,
}

/// An assignment with its configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Assigned {
    /// The assignment.
    pub a: Assignment,
    /// What is wanted; `None` if this version cannot read it.
    pub config: Option<StreamConfig>,
}

/// See the module.
#[derive(Default, Debug)]
pub struct State {
    /// The highest id given.
    pub last_id: u64,
    assignments: BTreeMap<u64, Arc<Assigned>>,
    /// What follows from the assignments.
    tally: Tally,
    outs: BTreeMap<u64, BTreeSet<NodeId>>,
    /// By group and node: the last life of its replica that was spent.
    spent: Spent,
    /// By group: consumers that its log forgets with the process, and this does not.
    notes: AllNotes,
    nodes: BTreeMap<NodeId, Node>,
    removed: BTreeSet<NodeId>,
}

type Spent = BTreeMap<u64, BTreeMap<u64, u32>>;
type AllNotes = BTreeMap<u64, Arc<Notes>>;

impl Assigned {
    /// With its configuration read.
    pub fn new(a: Assignment) -> Arc<Assigned> {
        let config = serde_json::from_slice(&a.config).ok();
        Arc::new(Assigned { a, config })
    }
}

impl State {
    /// [`State::apply_read`] of what nobody has read.
    #[cfg(test)]
    pub fn apply(&mut self, c: Command) -> Result<u64, &'static str> {
        self.apply_read(c, None)
    }
    /// Carries a command out; the group that it is about, or 0. An error is an answer, and the same on every node. `read` may be the assignment that the
    /// command makes, with its configuration.
    pub fn apply_read(&mut self, c: Command, read: Option<Arc<Assigned>>) -> Result<u64, &'static str> {
        match c {
            Command::Create(a) => {
                if self.find(&a.account, &a.name).is_some() {
                    return Err("there is a stream of that name");
                }
                // Its proposer may have led before others did.
                if a.id <= self.last_id {
                    return Err("its id is not new any more");
                }
                assert!(
                    !self.assignments.contains_key(&a.id) && !self.outs.contains_key(&a.id),
                    "J-20: group {} is given twice",
                    a.id
                );
                let id = a.id;
                self.last_id = id;
                self.put(read.filter(|r| r.a == a).unwrap_or_else(|| Assigned::new(a)));
                Ok(id)
            }
            Command::Update { id, config, members } => {
                let old = self.assignments.get(&id).ok_or("there is no such stream")?;
                let mut a = old.a.clone();
                for n in a.members.iter().filter(|n| !members.contains(n)) {
                    if !a.leaving.contains(n) {
                        a.leaving.push(*n);
                    }
                }
                a.leaving.retain(|n| !members.contains(n));
                (a.config, a.members) = (config, members);
                self.put(Assigned::new(a));
                Ok(id)
            }
            Command::Delete(id) => {
                let old = self.take(id).ok_or("there is no such stream")?;
                let holders =
                    old.a.members.iter().chain(&old.a.leaving).filter(|n| !self.removed.contains(n));
                self.outs.entry(id).or_default().extend(holders);
                self.outs.retain(|_, nodes| !nodes.is_empty());
                Ok(id)
            }
            Command::Out { id, nodes } => {
                let Some(old) = self.assignments.get(&id) else { return Ok(id) };
                let mut a = old.a.clone();
                let out: Vec<NodeId> = nodes.into_iter().filter(|n| a.leaving.contains(n)).collect();
                a.leaving.retain(|n| !out.contains(n));
                a.left.extend(out.iter().filter(|n| !old.a.left.contains(n)));
                self.put(Assigned::new(a));
                let out = out.into_iter().filter(|n| !self.removed.contains(n));
                self.outs.entry(id).or_default().extend(out);
                self.outs.retain(|_, nodes| !nodes.is_empty());
                Ok(id)
            }
            Command::Gone { id, node } => {
                if let Some(nodes) = self.outs.get_mut(&id) {
                    nodes.remove(&node);
                    if nodes.is_empty() {
                        self.outs.remove(&id);
                    }
                }
                Ok(id)
            }
            Command::Node(n) => {
                if self.removed.contains(&n.id) {
                    return Err("the server was removed");
                }
                self.nodes.insert(n.id, n);
                Ok(0)
            }
            Command::Remove(id) => {
                self.nodes.remove(&id).ok_or("there is no such server")?;
                self.removed.insert(id);
                self.outs.retain(|_, nodes| {
                    nodes.remove(&id);
                    !nodes.is_empty()
                });
                Ok(0)
            }
            Command::Renew { id, new } => {
                let old = self.assignments.get(&id).ok_or("there is no such stream")?;
                if !old.a.memory {
                    return Err("its messages are not in memory only");
                }
                if new <= self.last_id {
                    return Err("its id is not new any more");
                }
                // What is noted of its consumers is all that is left of them: the new log takes them over.
                let notes = self.notes.remove(&id);
                let old = self.take(id).expect("just seen");
                let holders =
                    old.a.members.iter().chain(&old.a.leaving).filter(|n| !self.removed.contains(n));
                self.outs.entry(id).or_default().extend(holders);
                self.outs.retain(|_, nodes| !nodes.is_empty());
                let mut a = old.a.clone();
                (a.id, a.first) = (new, a.members.clone());
                (a.leaving, a.left) = (Vec::new(), Vec::new());
                self.last_id = new;
                self.put(Assigned::new(a));
                self.notes.extend(notes.filter(|n| !n.all.is_empty()).map(|n| (new, n)));
                Ok(new)
            }
            Command::Spent { id, replica } => {
                let old = self.assignments.get(&id).ok_or("there is no such stream")?;
                let node = NodeId::new(replica.id, 0);
                if !old.a.left.contains(&node) {
                    let mut a = old.a.clone();
                    a.left.push(node);
                    self.put(Assigned::new(a));
                }
                let last = self.spent.entry(id).or_default().entry(node.id).or_default();
                *last = replica.incarnation.max(*last);
                Ok(id)
            }
            Command::Note { id, rev, set, gone } => {
                let in_memory = self.assignments.get(&id).ok_or("there is no such stream")?.a.is_in_memory();
                if !in_memory && !set.is_empty() {
                    return Err("its log keeps its consumers");
                }
                self.note(id, rev, set, &gone)?;
                if !in_memory && self.notes.get(&id).is_some_and(|n| n.all.is_empty()) {
                    // They are in the log by now, and nothing more is noted.
                    self.notes.remove(&id);
                }
                Ok(id)
            }
            Command::NoteFiled { id, rev, set, gone } => {
                if self.assignments.get(&id).ok_or("there is no such stream")?.a.memory {
                    return Err("its messages are not in files");
                }
                // Also when all are gone: the number only rises.
                self.note(id, rev, set, &gone)?;
                Ok(id)
            }
        }
    }
    /// Changes what is noted of a stream's consumers, if that is at the revision that its author knew.
    fn note(
        &mut self,
        id: u64,
        rev: u64,
        set: BTreeMap<Arc<str>, Noted>,
        gone: &BTreeSet<Arc<str>>,
    ) -> Result<(), &'static str> {
        if self.notes.get(&id).map_or(0, |n| n.rev) != rev {
            return Err("its notes are others by now");
        }
        let notes = Arc::make_mut(self.notes.entry(id).or_default());
        notes.rev += 1;
        notes.all.retain(|name, _| !gone.contains(name));
        notes.all.extend(set);
        Ok(())
    }

    /// An assignment comes, or another one takes its place.
    fn put(&mut self, a: Arc<Assigned>) {
        if let Some(old) = self.assignments.insert(a.a.id, a.clone()) {
            self.tally.remove(&old);
        }
        self.tally.add(&a);
    }
    /// An assignment goes.
    fn take(&mut self, id: u64) -> Option<Arc<Assigned>> {
        let old = self.assignments.remove(&id)?;
        self.tally.remove(&old);
        self.spent.remove(&id);
        self.notes.remove(&id);
        Some(old)
    }

    /// An assignment.
    pub fn get(&self, id: u64) -> Option<&Arc<Assigned>> {
        self.assignments.get(&id)
    }
    /// A stream's.
    pub fn find(&self, account: &str, name: &str) -> Option<&Arc<Assigned>> {
        let id = self.tally.of(account)?.names.get(name)?;
        self.assignments.get(id)
    }
    /// All, by id.
    pub fn assignments(&self) -> impl Iterator<Item = &Arc<Assigned>> {
        self.assignments.values()
    }
    /// An account's, by the stream's name.
    pub fn of_account(&self, account: &str) -> impl Iterator<Item = &Arc<Assigned>> {
        let names = self.tally.of(account).into_iter().flat_map(|of| of.names.values());
        names.filter_map(|id| self.get(*id))
    }
    /// What an account's streams add up to, if it has any.
    pub fn sum_of(&self, account: &str) -> Option<&OfAccount> {
        self.tally.of(account)
    }
    /// The streams of an account that mirror another one of it.
    pub fn mirrors_of(&self, account: &str, origin: &str) -> impl Iterator<Item = &Arc<Assigned>> {
        let of = self.sum_of(account).into_iter().flat_map(|of| of.mirrors_of(origin));
        of.filter_map(|id| self.get(id))
    }
    /// Streams into which a backup is being restored.
    pub fn restoring(&self) -> impl Iterator<Item = &Arc<Assigned>> {
        self.tally.restoring.iter().filter_map(|id| self.get(*id))
    }
    /// Streams that have several replicas and their log in memory.
    pub fn forgetful(&self) -> impl Iterator<Item = &Arc<Assigned>> {
        self.tally.forgetful.iter().filter_map(|id| self.get(*id))
    }
    /// What a node carries.
    pub fn load_of(&self, node: NodeId) -> OfNode {
        self.tally.on(node)
    }
    /// Whose data of which group may go.
    pub fn outs(&self) -> &BTreeMap<u64, BTreeSet<NodeId>> {
        &self.outs
    }
    /// Whether what a node has of a group may go.
    pub fn is_out(&self, group: u64, node: NodeId) -> bool {
        self.outs.get(&group).is_some_and(|nodes| nodes.contains(&node))
    }
    /// The last life of a node's replica that was spent, if any.
    pub fn spent(&self, group: u64, node: NodeId) -> Option<u32> {
        self.spent.get(&group)?.get(&node.id).copied()
    }
    /// What is noted of a stream's consumers.
    pub fn notes(&self, group: u64) -> Option<&Arc<Notes>> {
        self.notes.get(&group)
    }
    /// The nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }
    /// Whether streams are to be on a node that was removed.
    pub fn is_any_on_removed(&self) -> bool {
        self.removed.iter().any(|n| self.tally.on(*n).assets > 0)
    }
    /// Whether a node was removed for good.
    pub fn is_removed(&self, node: NodeId) -> bool {
        self.removed.contains(&node)
    }

    /// The state as bytes.
    pub fn encode(&self) -> Bytes {
        let assignments: Vec<&Assignment> = self.assignments.values().map(|a| &a.a).collect();
        let nodes: Vec<&Node> = self.nodes.values().collect();
        let saved = (self.last_id, assignments, &self.outs, nodes, &self.removed);
        match (self.notes.is_empty(), self.spent.is_empty()) {
            (true, true) => codec::encode(FORMAT, &saved),
            (true, false) => codec::encode(WITH_SPENT, &(saved, &self.spent)),
            (false, _) => {
                let filed = |id| self.assignments.get(id).is_some_and(|a| !a.a.memory);
                let format = if self.notes.keys().any(filed) { WITH_FILED } else { WITH_NOTES };
                codec::encode(format, &(saved, &self.spent, &self.notes))
            }
        }
    }
    /// Reads what [`State::encode`] wrote.
    pub fn decode(b: &[u8]) -> Option<State> {
        type Saved = (u64, Vec<Assignment>, BTreeMap<u64, BTreeSet<NodeId>>, Vec<Node>, BTreeSet<NodeId>);
        let (saved, spent, notes): (Saved, Spent, AllNotes) = match b.first() {
            Some(&with @ (WITH_NOTES | WITH_FILED)) => codec::decode(with, b)?,
            Some(&WITH_SPENT) => {
                let (saved, spent) = codec::decode(WITH_SPENT, b)?;
                (saved, spent, AllNotes::new())
            }
            _ => (codec::decode(FORMAT, b)?, Spent::new(), AllNotes::new()),
        };
        let (last_id, assignments, outs, nodes, removed) = saved;
        let nodes = nodes.into_iter().map(|n| (n.id, n)).collect();
        let mut s = State { last_id, outs, spent, notes, nodes, removed, ..State::default() };
        assignments.into_iter().for_each(|a| s.put(Assigned::new(a)));
        Some(s)
    }
}

impl Assignment {
    /// The members with which a node makes the group: those of its beginning, or none for one that comes later.
    pub fn members_for(&self, node: NodeId) -> Members {
        let from_the_start = self.first.contains(&node) && !self.left.contains(&node);
        if from_the_start { Members::of(self.first.iter().copied()) } else { Members::default() }
    }
    /// Whether the group's log is in memory: a stream that was made with several replicas has it on their disks.
    pub fn is_in_memory(&self) -> bool {
        self.memory && self.first.len() == 1
    }
    /// Whether one server has it, always had, and nobody else is to.
    pub fn is_alone(&self) -> bool {
        self.members.len() == 1 && self.first.len() == 1 && self.leaving.is_empty()
    }
    /// Which of its consumers are to be noted.
    pub fn keeps(&self) -> Keeps {
        match (self.is_in_memory(), self.members.len()) {
            (true, _) => Keeps::All,
            (false, 1) if !self.memory => Keeps::Filed,
            (false, _) => Keeps::Nothing,
        }
    }
    /// Whether a node has, or is to have, the group open.
    pub fn concerns(&self, node: NodeId) -> bool {
        self.members.contains(&node) || self.leaving.contains(&node)
    }
}

impl Command {
    /// What changes the notes of a stream, in files or not.
    pub fn note(
        filed: bool,
        id: u64,
        rev: u64,
        (set, gone): (BTreeMap<Arc<str>, Noted>, BTreeSet<Arc<str>>),
    ) -> Command {
        match filed {
            true => Command::NoteFiled { id, rev, set, gone },
            false => Command::Note { id, rev, set, gone },
        }
    }
    /// As it stands in the log.
    pub fn encode(&self) -> Bytes {
        codec::encode(FORMAT, self)
    }
    /// Reads what [`Command::encode`] wrote.
    pub fn decode(b: &[u8]) -> Option<Command> {
        codec::decode(FORMAT, b)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn n(id: u64) -> NodeId {
        NodeId::new(id, 0)
    }
    fn stream(id: u64, name: &str, members: &[u64]) -> Assignment {
        let members: Vec<NodeId> = members.iter().map(|m| n(*m)).collect();
        Assignment {
            id,
            account: "A".into(),
            name: name.into(),
            created: 7,
            memory: false,
            config: Bytes::from(format!(r#"{{"name":"{name}"}}"#)),
            first: members.clone(),
            members,
            leaving: Vec::new(),
            left: Vec::new(),
        }
    }
    fn outs(s: &State, id: u64) -> Vec<NodeId> {
        s.outs().get(&id).into_iter().flatten().copied().collect()
    }

    #[test]
    fn golden_commands() {
        let c = Command::Update { id: 300, config: Bytes::from_static(b"{}"), members: vec![n(4)] };
        assert_eq!(&c.encode()[..], [FORMAT, 1, 251, 44, 1, 2, b'{', b'}', 1, 4, 0]);
        let c = Command::Create(stream(2, "S", &[9]));
        let mut wanted = vec![FORMAT, 0, 2, 1, b'A', 1, b'S', 14, 0, 12];
        wanted.extend(br#"{"name":"S"}"#);
        wanted.extend([1, 9, 0, 1, 9, 0, 0, 0]);
        assert_eq!(c.encode(), wanted);
        let c = note(300, 2, &[("c", 3)], &["d"]);
        let mut wanted = [FORMAT, 9, 251, 44, 1, 2, 1, 1, b'c', 6, 2, b'{', b'}', 1, 1, b'd'];
        assert_eq!(&c.encode()[..], wanted);
        wanted[1] = 10;
        assert_eq!(&filed(c).encode()[..], wanted);
    }

    #[test]
    fn golden_states() {
        let mut s = State::default();
        s.apply(Command::Create(in_memory(2, "M", &[9]))).unwrap();
        let mut plain = vec![2, 1, 2, 1, b'A', 1, b'M', 14, 1, 12];
        plain.extend(br#"{"name":"M"}"#);
        plain.extend([1, 9, 0, 1, 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!(s.encode()[..], [&[FORMAT], &plain[..]].concat());
        s.apply(Command::Spent { id: 2, replica: NodeId::new(9, 4) }).unwrap();
        let at = plain.len() - 4;
        plain.splice(at..=at, [1, 9, 0]);
        let spent = [1, 2, 1, 9, 4];
        assert_eq!(s.encode()[..], [&[WITH_SPENT], &plain[..], &spent].concat());
        s.apply(note(2, 0, &[("c", 3)], &[])).unwrap();
        let notes = [1, 2, 1, 1, 1, b'c', 6, 2, b'{', b'}'];
        let all = [&[WITH_NOTES], &plain[..], &spent, &notes].concat();
        assert_eq!(s.encode()[..], all);
        assert_eq!(State::decode(&all).map(|s| s.encode()[..] == all), Some(true));
        // With those of a stream in files it is not for whoever does not know of them.
        s.apply(Command::Create(stream(3, "F", &[9]))).unwrap();
        assert_eq!(s.encode()[0], WITH_NOTES);
        s.apply(filed(note(3, 0, &[("c", 3)], &[]))).unwrap();
        let all = s.encode();
        assert_eq!(all[0], WITH_FILED);
        assert_eq!(State::decode(&all).map(|s| s.encode() == all), Some(true));
    }

    fn in_memory(id: u64, name: &str, members: &[u64]) -> Assignment {
        Assignment { memory: true, ..stream(id, name, members) }
    }
    fn note(id: u64, rev: u64, set: &[(&str, i64)], gone: &[&str]) -> Command {
        let json = Bytes::from_static(b"{}");
        let set =
            set.iter().map(|(n, created)| ((*n).into(), Noted { created: *created, json: json.clone() }));
        Command::Note { id, rev, set: set.collect(), gone: gone.iter().map(|n| (*n).into()).collect() }
    }
    /// A note as one of a stream in files.
    fn filed(c: Command) -> Command {
        let Command::Note { id, rev, set, gone } = c else { panic!("{c:?} is no note") };
        Command::note(true, id, rev, (set, gone))
    }
    fn noted(s: &State, id: u64) -> Vec<(String, i64)> {
        let all = s.notes(id).into_iter().flat_map(|n| &n.all);
        all.map(|(name, n)| (name.to_string(), n.created)).collect()
    }

    #[test]
    fn k14_a_note_that_comes_late_or_twice_is_void() {
        let mut s = State::default();
        s.apply(Command::Create(in_memory(2, "M", &[1]))).unwrap();
        s.apply(note(2, 0, &[("a", 1), ("b", 2)], &[])).unwrap();
        assert!(s.apply(note(2, 0, &[("a", 1)], &[])).is_err(), "again");
        s.apply(note(2, 1, &[("b", 5)], &["a"])).unwrap();
        assert!(s.apply(note(2, 1, &[("a", 1)], &[])).is_err(), "what was deleted does not come back");
        assert!(s.apply(note(2, 3, &[], &["b"])).is_err(), "of a future that never was");
        assert_eq!((noted(&s, 2), s.notes(2).unwrap().rev), (vec![("b".into(), 5)], 2));
        // Also when nothing is left: the number only rises.
        s.apply(note(2, 2, &[], &["b"])).unwrap();
        assert!(s.apply(note(2, 0, &[("a", 1)], &[])).is_err());
        let read = State::decode(&s.encode()).unwrap();
        assert_eq!(read.notes(2).unwrap().rev, 3);
    }

    #[test]
    fn notes_go_with_their_stream_and_are_of_logs_in_memory_only() {
        let mut s = State::default();
        let before = s.encode();
        assert!(s.apply(note(2, 0, &[("a", 1)], &[])).is_err());
        s.apply(Command::Create(in_memory(2, "M", &[1]))).unwrap();
        s.apply(Command::Create(stream(3, "F", &[1]))).unwrap();
        s.apply(Command::Create(in_memory(4, "R", &[1, 2]))).unwrap();
        assert_eq!(s.encode()[0], before[0], "nothing is written of what is not there");
        for of in [3, 4] {
            assert!(s.apply(note(of, 0, &[("a", 1)], &[])).is_err(), "{of}");
        }
        s.apply(note(2, 0, &[("a", 1)], &[])).unwrap();
        s.apply(Command::Delete(2)).unwrap();
        assert!(s.notes(2).is_none() && s.encode()[0] == FORMAT);
        // One of the same name is another stream.
        s.apply(Command::Create(in_memory(5, "M", &[1]))).unwrap();
        assert_eq!(noted(&s, 5), []);
        assert!(s.apply(note(2, 1, &[("a", 1)], &[])).is_err(), "a word for the one before");
    }

    #[test]
    fn k14_notes_of_a_stream_in_files_are_a_kind_of_their_own() {
        let mut s = State::default();
        s.apply(Command::Create(stream(2, "F", &[1]))).unwrap();
        s.apply(Command::Create(in_memory(3, "M", &[1]))).unwrap();
        s.apply(Command::Create(in_memory(4, "R", &[1, 2]))).unwrap();
        s.apply(Command::Create(stream(5, "G", &[1, 2]))).unwrap();
        let keeps = [2, 3, 4, 5].map(|id| s.get(id).unwrap().a.keeps());
        assert_eq!(keeps, [Keeps::Filed, Keeps::All, Keeps::Nothing, Keeps::Nothing]);
        for of in [3, 4, 9] {
            assert!(s.apply(filed(note(of, 0, &[("a", 1)], &[]))).is_err(), "{of}");
        }
        s.apply(filed(note(2, 0, &[("a", 1), ("b", 2)], &[]))).unwrap();
        assert!(s.apply(filed(note(2, 0, &[("c", 1)], &[]))).is_err(), "again");
        s.apply(filed(note(2, 1, &[], &["a", "b"]))).unwrap();
        assert!(s.apply(filed(note(2, 0, &[("a", 1)], &[]))).is_err(), "what was deleted does not come back");
        assert_eq!(State::decode(&s.encode()).unwrap().notes(2).map(|n| n.rev), Some(2), "it only rises");
        // What is to be on several servers by now may have some from before.
        let config = s.get(2).unwrap().a.config.clone();
        s.apply(Command::Update { id: 2, config, members: vec![n(1), n(2)] }).unwrap();
        assert_eq!(s.get(2).unwrap().a.keeps(), Keeps::Nothing);
        s.apply(filed(note(2, 2, &[("a", 1)], &[]))).unwrap();
        s.apply(Command::Delete(2)).unwrap();
        assert!(s.notes(2).is_none() && s.encode()[0] == FORMAT);
    }

    #[test]
    fn k14_a_log_that_is_renewed_finds_the_notes_of_the_one_before() {
        let mut s = State::default();
        s.apply(Command::Create(in_memory(2, "M", &[1]))).unwrap();
        s.apply(note(2, 0, &[("a", 1), ("b", 2)], &[])).unwrap();
        let config = s.get(2).unwrap().a.config.clone();
        s.apply(Command::Update { id: 2, config, members: vec![n(1), n(2)] }).unwrap();
        s.apply(Command::Renew { id: 2, new: 3 }).unwrap();
        assert_eq!((s.notes(2).is_none(), noted(&s, 3).len()), (true, 2));
        // That log is on disks. When it has them they are noted no more.
        assert!(s.apply(note(3, 1, &[("c", 1)], &[])).is_err());
        s.apply(note(3, 1, &[], &["a"])).unwrap();
        assert_eq!(noted(&s, 3), [("b".into(), 2)]);
        s.apply(note(3, 2, &[], &["b"])).unwrap();
        assert!(s.notes(3).is_none() && s.encode()[0] == FORMAT);
    }

    #[test]
    fn a_name_is_taken_once_and_an_id_never_comes_back_j20() {
        let mut s = State::default();
        assert_eq!(s.apply(Command::Create(stream(2, "S", &[1]))), Ok(2));
        assert!(s.apply(Command::Create(stream(3, "S", &[1]))).is_err());
        assert_eq!(s.apply(Command::Delete(2)), Ok(2));
        assert_eq!(s.last_id, 2);
        assert_eq!(outs(&s, 2), [n(1)]);
        assert_eq!(s.apply(Command::Create(stream(3, "S", &[1]))), Ok(3));
        s.apply(Command::Gone { id: 2, node: n(1) }).unwrap();
        assert!(s.outs().is_empty());
    }

    #[test]
    fn an_assignment_that_was_read_is_not_read_again() {
        let mut s = State::default();
        let a = stream(2, "S", &[1]);
        let read = Assigned::new(a.clone());
        s.apply_read(Command::Create(a), Some(read.clone())).unwrap();
        assert!(Arc::ptr_eq(s.get(2).unwrap(), &read));
        // J-4: what counts is the command.
        s.apply_read(Command::Create(stream(3, "T", &[1])), Some(read)).unwrap();
        assert_eq!(*s.get(3).unwrap(), Assigned::new(stream(3, "T", &[1])));
    }

    #[test]
    fn subjects_are_taken_by_streams_of_their_account_as_long_as_they_have_them() {
        let of = |id, name: &str, subjects: &str| Assignment {
            config: Bytes::from(format!(r#"{{"name":"{name}","subjects":{subjects}}}"#)),
            ..stream(id, name, &[1])
        };
        let mut s = State::default();
        s.apply(Command::Create(of(2, "S", r#"["a.b","c.>"]"#))).unwrap();
        s.apply(Command::Create(of(3, "T", r#"["*.x"]"#))).unwrap();
        s.apply(Command::Create(of(4, "U", r#"["d"]"#))).unwrap();
        let taken = |s: &State, account: &str, subject: &str, but: u64| {
            s.sum_of(account).is_some_and(|of| of.overlaps(&[subject.to_owned()], but))
        };
        let read = State::decode(&s.encode()).unwrap();
        for s in [&s, &read] {
            assert!(taken(s, "A", "a.>", 2) && taken(s, "A", "a.b", 9) && taken(s, "A", "d", 9));
            assert!(!taken(s, "A", "a.b", 2) && !taken(s, "A", "e", 9) && !taken(s, "B", "d", 9));
        }
        let config = Bytes::from_static(br#"{"name":"S","subjects":["e"]}"#);
        s.apply(Command::Update { id: 2, config, members: vec![n(1)] }).unwrap();
        s.apply(Command::Delete(3)).unwrap();
        assert!(!taken(&s, "A", "a.>", 9) && taken(&s, "A", "e", 9) && !taken(&s, "A", "e", 2));
    }

    #[test]
    fn an_old_id_is_refused_j20() {
        let mut s = State::default();
        s.apply(Command::Create(stream(5, "S", &[1]))).unwrap();
        assert!(s.apply(Command::Create(stream(5, "T", &[1]))).is_err());
        assert!(s.apply(Command::Create(stream(4, "T", &[1]))).is_err());
        assert!(s.find("A", "T").is_none());
    }

    #[test]
    fn data_goes_only_when_the_node_is_out_j21() {
        let mut s = State::default();
        s.apply(Command::Create(stream(2, "S", &[1, 2, 3]))).unwrap();
        let config = s.get(2).unwrap().a.config.clone();
        s.apply(Command::Update { id: 2, config: config.clone(), members: vec![n(2), n(3), n(4)] }).unwrap();
        assert_eq!(s.get(2).unwrap().a.leaving, [n(1)]);
        assert!(s.outs().is_empty(), "J-21: it is to leave, and has not left");
        assert!(s.get(2).unwrap().a.concerns(n(1)));
        s.apply(Command::Out { id: 2, nodes: vec![n(1), n(2)] }).unwrap();
        assert_eq!(outs(&s, 2), [n(1)], "J-21: who is a member keeps its data");
        // It comes back before its data is gone: that goes first.
        s.apply(Command::Update { id: 2, config, members: vec![n(1), n(2), n(3)] }).unwrap();
        assert_eq!((outs(&s, 2), s.get(2).unwrap().a.leaving.clone()), (vec![n(1)], vec![n(4)]));
        s.apply(Command::Delete(2)).unwrap();
        assert_eq!(outs(&s, 2), [n(1), n(2), n(3), n(4)]);
    }

    #[test]
    fn a_life_that_its_group_left_behind_is_spent_for_good() {
        let mut s = State::default();
        s.apply(Command::Create(stream(2, "S", &[1, 2, 3]))).unwrap();
        let before = s.encode();
        assert_eq!((before[0], s.spent(2, n(1))), (FORMAT, None));
        s.apply(Command::Spent { id: 2, replica: n(1) }).unwrap();
        assert_eq!((s.spent(2, n(1)), s.spent(2, n(2)), s.spent(3, n(1))), (Some(0), None, None));
        assert_eq!(outs(&s, 2), [], "it stays wanted");
        let a = s.get(2).unwrap().a.clone();
        assert!(a.concerns(n(1)) && a.members_for(n(1)) == Members::default(), "K-2: it comes as a newcomer");
        // Words that come late and again change nothing.
        s.apply(Command::Spent { id: 2, replica: NodeId::new(1, 7) }).unwrap();
        s.apply(Command::Spent { id: 2, replica: n(1) }).unwrap();
        assert_eq!((s.spent(2, n(1)), s.get(2).unwrap().a.left.len()), (Some(7), 1));
        let read = State::decode(&s.encode()).expect("it is ours");
        assert_eq!((read.spent(2, n(1)), s.encode()[0]), (Some(7), WITH_SPENT));
        s.apply(Command::Delete(2)).unwrap();
        assert_eq!((s.spent(2, n(1)), s.encode()[0]), (None, FORMAT));
        assert!(s.apply(Command::Spent { id: 2, replica: n(1) }).is_err());
    }

    #[test]
    fn a_removed_node_is_waited_for_no_more() {
        let mut s = State::default();
        let node = |id| Node {
            id: n(id),
            name: "x".into(),
            tags: vec!["t".into()],
            memory_max: 1,
            storage_max: 2,
            format: 1,
        };
        s.apply(Command::Node(node(1))).unwrap();
        s.apply(Command::Node(node(2))).unwrap();
        s.apply(Command::Create(stream(2, "S", &[1, 2]))).unwrap();
        s.apply(Command::Delete(2)).unwrap();
        s.apply(Command::Remove(n(2))).unwrap();
        assert_eq!(outs(&s, 2), [n(1)]);
        assert!(s.apply(Command::Node(node(2))).is_err());
        assert!(s.is_removed(n(2)));
    }

    #[test]
    fn a_stream_in_memory_begins_anew_under_another_id_j20() {
        let mut s = State::default();
        s.apply(Command::Create(stream(2, "F", &[1]))).unwrap();
        s.apply(Command::Create(Assignment { memory: true, ..stream(3, "M", &[1]) })).unwrap();
        let config = s.get(3).unwrap().a.config.clone();
        s.apply(Command::Update { id: 3, config, members: vec![n(2), n(3)] }).unwrap();
        assert!(s.apply(Command::Renew { id: 2, new: 4 }).is_err(), "J-21: what is on disks stays");
        assert!(s.apply(Command::Renew { id: 3, new: 3 }).is_err());
        assert_eq!(s.apply(Command::Renew { id: 3, new: 4 }), Ok(4));
        let a = s.find("A", "M").unwrap().a.clone();
        assert_eq!((a.id, a.first, a.members, a.leaving), (4, vec![n(2), n(3)], vec![n(2), n(3)], vec![]));
        assert_eq!((outs(&s, 3), s.get(3).is_none(), s.last_id), (vec![n(1), n(2), n(3)], true, 4));
    }

    fn command() -> impl Strategy<Value = Command> {
        let nodes = || proptest::collection::vec((1u64..5).prop_map(n), 1..4);
        prop_oneof![
            (0u64..4, nodes()).prop_map(|(name, m)| {
                let mut a = stream(0, &format!("S{name}"), &[]);
                a.memory = name % 2 == 1;
                (a.first, a.members) = (m.clone(), m);
                Command::Create(a)
            }),
            (2u64..9, nodes()).prop_map(|(id, members)| Command::Update {
                id,
                config: Bytes::from_static(b"{}"),
                members
            }),
            (2u64..9).prop_map(Command::Delete),
            (2u64..9, nodes()).prop_map(|(id, nodes)| Command::Out { id, nodes }),
            (2u64..9, 1u64..5).prop_map(|(id, node)| Command::Gone { id, node: n(node) }),
            (1u64..5).prop_map(|id| Command::Node(Node {
                id: n(id),
                name: "x".into(),
                tags: Vec::new(),
                memory_max: 0,
                storage_max: 0,
                format: 1
            })),
            (1u64..5).prop_map(|id| Command::Remove(n(id))),
            (2u64..9, 2u64..12).prop_map(|(id, new)| Command::Renew { id, new }),
            (2u64..9, 1u64..5, 0u32..3)
                .prop_map(|(id, node, life)| Command::Spent { id, replica: NodeId::new(node, life) }),
            (2u64..9, 0u64..3, 0i64..3).prop_map(|(id, rev, c)| note(id, rev, &[("c", c)], &["d"])),
            (2u64..9, 0u64..3, 0i64..3).prop_map(|(id, rev, c)| filed(note(id, rev, &[("c", c)], &["d"]))),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn bytes_there_and_back_and_nobody_who_is_wanted_loses_data_j21(all in proptest::collection::vec(command(), 0..60)) {
            let mut s = State::default();
            for mut c in all {
                if let Command::Create(a) = &mut c {
                    a.id = s.last_id.max(META_GROUP) + 1;
                }
                let decoded = Command::decode(&c.encode());
                prop_assert_eq!(decoded.as_ref(), Some(&c));
                let before: BTreeMap<u64, BTreeSet<NodeId>> = s.outs().clone();
                s.apply(c.clone()).ok();
                for (id, nodes) in s.outs() {
                    let new = nodes.iter().filter(|n| !before.get(id).is_some_and(|b| b.contains(n)));
                    for node in new {
                        let wanted = s.get(*id).is_some_and(|a| a.a.members.contains(node));
                        prop_assert!(!wanted, "J-21: {:?}", c);
                    }
                }
                let again = State::decode(&s.encode()).expect("it is ours");
                prop_assert_eq!(again.encode(), s.encode());
                // What is added up on the way is what a count of all says.
                for node in (1..5).map(n) {
                    prop_assert_eq!(again.load_of(node), s.load_of(node));
                    let has = |a: &&Arc<Assigned>| a.a.members.contains(&node);
                    let twice = s.assignments().any(|a| a.a.members.iter().filter(|m| **m == node).count() > 1);
                    prop_assert!(twice || s.load_of(node).assets == s.assignments().filter(has).count());
                }
                prop_assert_eq!(s.sum_of("A").map_or(0, |of| of.names.len()), s.assignments().count());
                prop_assert!((0..20).all(|id| s.notes(id).is_none() || s.get(id).is_some()), "they go with their stream");
                for a in s.assignments() {
                    prop_assert_eq!(s.find(&a.a.account, &a.a.name).map(|f| f.a.id), Some(a.a.id));
                }
            }
        }
        #[test]
        fn bytes_do_no_harm(mut b in proptest::collection::vec(any::<u8>(), 0..100)) {
            State::decode(&b);
            Command::decode(&b);
            b.splice(0..0, [FORMAT]);
            State::decode(&b);
            Command::decode(&b);
            for format in [WITH_SPENT, WITH_NOTES, WITH_FILED] {
                b[0] = format;
                State::decode(&b);
            }
        }
    }
}
