//! What the assignments add up to: what each account has and each node carries, and which subjects are taken.
//!
//! Owns sums that whoever makes a stream would otherwise count out of all assignments, each time. Pure and derived: a state that is read back has the
//! same. Does not know what is allowed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use replica::NodeId;
use stream::config::{Source, Storage, StreamConfig};
use subject::valid::tokens;

use super::state::Assigned;

/// What streams of an account have taken together.
#[derive(Default, Debug)]
pub struct OfAccount {
    /// Its streams, by name.
    pub names: BTreeMap<Arc<str>, u64>,
    /// Bytes set aside in memory, over all replicas.
    memory: u128,
    /// The same in files.
    file: u128,
    /// Bytes that are asked for, whatever the number of replicas: in memory, and in files.
    asked: (u128, u128),
    /// Their subjects.
    taken: Patterns,
    /// Those that mirror another stream of the account: its name, the group.
    mirrors: BTreeSet<(String, u64)>,
}

/// What a node carries.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct OfNode {
    /// Streams that it has, or is to have.
    pub assets: usize,
    /// Those of them that have several replicas.
    pub shared: usize,
    /// Streams that it is to lead first.
    pub leads: usize,
    /// Bytes set aside there in memory.
    memory: u128,
    /// The same in files.
    file: u128,
}

fn capped(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl OfAccount {
    /// Bytes set aside by all of its streams on all of their nodes: in memory, and in files.
    pub fn reserved(&self) -> (u64, u64) {
        (capped(self.memory), capped(self.file))
    }
    /// Bytes that its streams ask for, as the account is shown them: each once, in memory and in files.
    pub fn asked_for(&self) -> (u64, u64) {
        (capped(self.asked.0), capped(self.asked.1))
    }
    /// Counts a stream, or not any more.
    fn count(&mut self, c: &StreamConfig, by: Change) {
        let memory = c.storage == Storage::Memory;
        by.bytes(if memory { &mut self.memory } else { &mut self.file }, u128::from(aside(c)));
        by.bytes(if memory { &mut self.asked.0 } else { &mut self.asked.1 }, u128::from(bytes_of(c)));
    }
    /// Whether a stream other than this group's has a subject that has something in common with one of these.
    pub fn overlaps(&self, subjects: &[String], but: u64) -> bool {
        subjects.iter().any(|s| self.taken.meets(s.as_bytes(), but))
    }
    /// The groups of streams that mirror `origin`.
    pub fn mirrors_of(&self, origin: &str) -> impl Iterator<Item = u64> {
        let from = (origin.to_owned(), 0);
        let range = self.mirrors.range(from.clone()..=(from.0, u64::MAX));
        range.map(|(_, id)| *id)
    }
}

impl OfNode {
    /// Bytes set aside there in a storage.
    pub fn reserved(&self, storage: Storage) -> u64 {
        capped(if storage == Storage::Memory { self.memory } else { self.file })
    }
    /// Adds a stream, or takes it away.
    fn count(&mut self, shared: bool, first: bool, config: Option<&StreamConfig>, by: Change) {
        by.one(&mut self.assets, 1);
        by.one(&mut self.shared, usize::from(shared));
        by.one(&mut self.leads, usize::from(first));
        if let Some(c) = config {
            let sum = if c.storage == Storage::Memory { &mut self.memory } else { &mut self.file };
            by.bytes(sum, u128::from(bytes_of(c)));
        }
    }
}

/// Which stream of its account a stream mirrors.
fn mirrored(c: &StreamConfig) -> Option<&str> {
    c.mirror.as_ref().filter(|m| m.external.is_none()).map(|m| &*m.name)
}
/// Whether a mirror answers direct gets in its origin's place: it has all of that one, under the same subjects.
pub fn stands_in(c: &StreamConfig) -> bool {
    let whole = |m: &Source| {
        let from_the_first = m.opt_start_seq == 0 && m.opt_start_time.is_none();
        from_the_first && m.filter_subject.is_empty() && m.subject_transforms.is_empty()
    };
    c.mirror_direct && c.mirror.as_ref().is_some_and(whole)
}
/// Bytes that one replica of a stream sets aside.
fn bytes_of(c: &StreamConfig) -> u64 {
    u64::try_from(c.max_bytes).unwrap_or(0)
}
/// Bytes that a stream sets aside, on all of its nodes.
pub fn aside(c: &StreamConfig) -> u64 {
    let copies = u64::try_from(c.num_replicas).unwrap_or(1).max(1);
    bytes_of(c).saturating_mul(copies)
}

#[derive(Clone, Copy)]
enum Change {
    More,
    Less,
}

impl Change {
    fn one(self, n: &mut usize, by: usize) {
        match self {
            Change::More => *n += by,
            Change::Less => *n -= by,
        }
    }
    fn bytes(self, n: &mut u128, by: u128) {
        match self {
            Change::More => *n += by,
            Change::Less => *n -= by,
        }
    }
}

/// All sums of a state.
#[derive(Default, Debug)]
pub struct Tally {
    accounts: BTreeMap<Arc<str>, OfAccount>,
    nodes: BTreeMap<NodeId, OfNode>,
    /// Groups of streams into which a backup is being restored.
    pub restoring: BTreeSet<u64>,
    /// Groups of streams that have several replicas and their log in memory.
    pub forgetful: BTreeSet<u64>,
}

/// Whether a stream was made with one replica in memory and has several by now: then so is its log.
fn is_forgetful(a: &Assigned) -> bool {
    a.a.is_in_memory() && a.a.members.len() + a.a.leaving.len() > 1
}

impl Tally {
    /// An account's.
    pub fn of(&self, account: &str) -> Option<&OfAccount> {
        self.accounts.get(account)
    }
    /// A node's.
    pub fn on(&self, node: NodeId) -> OfNode {
        self.nodes.get(&node).copied().unwrap_or_default()
    }

    /// There is this assignment.
    pub fn add(&mut self, a: &Assigned) {
        let of = self.accounts.entry(a.a.account.clone()).or_default();
        of.names.insert(a.a.name.clone(), a.a.id);
        if let Some(c) = &a.config {
            of.count(c, Change::More);
            for s in &c.subjects {
                of.taken.insert(s.as_bytes(), a.a.id);
            }
            of.mirrors.extend(mirrored(c).map(|origin| (origin.to_owned(), a.a.id)));
        }
        if a.config.as_ref().is_some_and(StreamConfig::is_restoring) {
            self.restoring.insert(a.a.id);
        }
        if is_forgetful(a) {
            self.forgetful.insert(a.a.id);
        }
        self.count(a, Change::More);
    }

    /// There is not any more.
    pub fn remove(&mut self, a: &Assigned) {
        if let Some(of) = self.accounts.get_mut(&a.a.account) {
            if of.names.get(&a.a.name) == Some(&a.a.id) {
                of.names.remove(&a.a.name);
            }
            if let Some(c) = &a.config {
                of.count(c, Change::Less);
                for s in &c.subjects {
                    of.taken.remove(s.as_bytes(), a.a.id);
                }
                if let Some(origin) = mirrored(c) {
                    of.mirrors.remove(&(origin.to_owned(), a.a.id));
                }
            }
            if of.names.is_empty() {
                self.accounts.remove(&a.a.account);
            }
        }
        self.restoring.remove(&a.a.id);
        self.forgetful.remove(&a.a.id);
        self.count(a, Change::Less);
    }

    fn count(&mut self, a: &Assigned, by: Change) {
        for (i, m) in a.a.members.iter().enumerate() {
            let n = self.nodes.entry(*m).or_default();
            n.count(a.a.members.len() > 1, i == 0, a.config.as_ref(), by);
            if *n == OfNode::default() {
                self.nodes.remove(m);
            }
        }
    }
}

/// Subjects with wildcards and who has them, by tokens: what overlaps with a subject is found along its tokens, not among all.
#[derive(Default, Debug)]
struct Patterns {
    /// Whose subjects end here.
    here: Vec<u64>,
    /// Whose go on with whatever follows.
    tail: Vec<u64>,
    next: BTreeMap<Box<[u8]>, Patterns>,
}

const STAR: &[u8] = b"*";
const TAIL: &[u8] = b">";

impl Patterns {
    fn insert(&mut self, pattern: &[u8], id: u64) {
        let mut at = self;
        for t in tokens(pattern) {
            if t == TAIL {
                return at.tail.push(id);
            }
            at = at.next.entry(t.into()).or_default();
        }
        at.here.push(id);
    }

    fn remove(&mut self, pattern: &[u8], id: u64) {
        let all: Vec<&[u8]> = tokens(pattern).collect();
        self.remove_from(&all, id);
    }
    fn remove_from(&mut self, rest: &[&[u8]], id: u64) {
        let from = match rest.split_first() {
            None => &mut self.here,
            Some((&TAIL, _)) => &mut self.tail,
            Some((t, rest)) => {
                if let Some(n) = self.next.get_mut(*t) {
                    n.remove_from(rest, id);
                    if n.is_empty() {
                        self.next.remove(*t);
                    }
                }
                return;
            }
        };
        if let Some(i) = from.iter().position(|n| *n == id) {
            from.swap_remove(i);
        }
    }
    fn is_empty(&self) -> bool {
        self.here.is_empty() && self.tail.is_empty() && self.next.is_empty()
    }

    /// Whether somebody but `but` has a pattern that matches something that this one matches.
    fn meets(&self, pattern: &[u8], but: u64) -> bool {
        let all: Vec<&[u8]> = tokens(pattern).collect();
        self.meets_from(&all, but)
    }
    fn meets_from(&self, rest: &[&[u8]], but: u64) -> bool {
        let other = |ids: &[u64]| ids.iter().any(|n| *n != but);
        let Some((t, rest)) = rest.split_first() else { return other(&self.here) };
        if other(&self.tail) {
            return true;
        }
        match *t {
            TAIL => self.next.values().any(|n| n.has_other(but)),
            STAR => self.next.values().any(|n| n.meets_from(rest, but)),
            t => [t, STAR].iter().any(|t| self.next.get(*t).is_some_and(|n| n.meets_from(rest, but))),
        }
    }
    fn has_other(&self, but: u64) -> bool {
        self.here.iter().chain(&self.tail).any(|n| *n != but) || self.next.values().any(|n| n.has_other(but))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stream::config::subjects_overlap;

    use super::*;

    #[test]
    fn a_subject_is_taken_until_its_stream_goes() {
        let mut p = Patterns::default();
        p.insert(b"a.*.c", 1);
        p.insert(b"b.>", 2);
        assert!(p.meets(b"a.b.c", 9) && p.meets(b">", 9) && p.meets(b"*.x.*", 1) && p.meets(b"b.x", 1));
        assert!(!p.meets(b"a.b.c", 1) && !p.meets(b"b", 9) && !p.meets(b"a.b", 9) && !p.meets(b"c.>", 9));
        p.remove(b"a.*.c", 1);
        p.remove(b"b.>", 2);
        assert!(p.is_empty());
    }

    #[test]
    fn what_is_counted_is_taken_back() {
        let assigned = |id: u64, config: serde_json::Value| {
            let name = config["name"].as_str().unwrap_or_default().into();
            let members = vec![NodeId::new(1, 0), NodeId::new(2, 0)];
            Assigned::new(super::super::Assignment {
                id,
                account: "A".into(),
                name,
                created: 0,
                memory: false,
                config: config.to_string().into(),
                first: members.clone(),
                members,
                leaving: Vec::new(),
                left: Vec::new(),
            })
        };
        let s = assigned(1, serde_json::json!({ "name": "S", "max_bytes": 100, "num_replicas": 2 }));
        let mirror = |part: &str| serde_json::json!({ "name": "S", "filter_subject": part });
        let m = |name: &str, mirror, direct: bool| serde_json::json!({ "name": name, "mirror": mirror, "mirror_direct": direct });
        let all = [
            s.clone(),
            assigned(2, m("M", mirror(""), true)),
            assigned(3, m("PART", mirror("a"), true)),
            assigned(4, m("SILENT", mirror(""), false)),
            assigned(5, m("OTHER", serde_json::json!({ "name": "T" }), true)),
        ];
        let mut t = Tally::default();
        all.iter().for_each(|a| t.add(a));
        let of = t.of("A").expect("it has streams");
        assert_eq!((of.reserved(), of.asked_for()), ((0, 200), (0, 100)));
        assert_eq!(of.mirrors_of("S").collect::<Vec<_>>(), [2, 3, 4]);
        let stand_in = |a: &&Arc<Assigned>| a.config.as_ref().is_some_and(stands_in);
        assert_eq!(all.iter().filter(stand_in).map(|a| a.a.id).collect::<Vec<_>>(), [2, 5]);
        assert_eq!(of.mirrors_of("NOPE").count(), 0);
        all[1..].iter().for_each(|a| t.remove(a));
        let of = t.of("A").expect("one is left");
        assert_eq!((of.mirrors_of("S").count(), of.mirrors_of("T").count()), (0, 0));
        t.remove(&s);
        assert!(t.of("A").is_none() && t.nodes.is_empty());
    }

    fn pattern() -> impl Strategy<Value = String> {
        let token = prop_oneof![3 => Just("a"), 3 => Just("b"), 2 => Just("*")];
        (proptest::collection::vec(token, 0..4), any::<bool>()).prop_map(|(mut t, tail)| {
            if tail || t.is_empty() {
                t.push(">");
            }
            t.join(".")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_overlaps_is_what_a_look_at_each_says(
            streams in proptest::collection::vec((proptest::collection::vec(pattern(), 0..3), any::<bool>()), 0..8),
            asked in proptest::collection::vec(pattern(), 1..3), but in 0u64..8,
        ) {
            let mut of = OfAccount::default();
            for (id, (subjects, _)) in streams.iter().enumerate() {
                subjects.iter().for_each(|s| of.taken.insert(s.as_bytes(), id as u64));
            }
            for (id, (subjects, goes)) in streams.iter().enumerate() {
                if *goes {
                    subjects.iter().for_each(|s| of.taken.remove(s.as_bytes(), id as u64));
                }
            }
            let left = || streams.iter().enumerate().filter(|(id, s)| !s.1 && *id as u64 != but);
            prop_assert_eq!(of.overlaps(&asked, but), left().any(|(_, s)| subjects_overlap(&s.0, &asked)));
            if streams.iter().all(|s| s.1 || s.0.is_empty()) {
                prop_assert!(of.taken.is_empty());
            }
        }
    }
}
