//! Who is interested in a subject: values under subscription subjects, found by a publish subject.
//!
//! Owns the subjects, the values under them and the queue names. Does not know what a value is, does not lock, and
//! does not count generations: whoever changes it knows that it did.
//!
//! Two structures, since two populations meet here (measured in docs/design/0003-interest.md):
//! - **Literal subjects** stand in one flat index over the whole subject: a match reads one index slot and one entry
//!   (two cache misses), however deep the subject. An entry with one value takes 40 bytes and its index slot 10 to
//!   21. A token tree would take a node, a child and a step for each token and win nothing, because nothing asks for
//!   literal subjects by prefix on the hot path.
//! - **Wildcard subjects** stand in a token tree whose edges are all in one index, keyed by (node, token). A node has
//!   its `*` child in itself and a 64-bit filter over its literal children, so that the usual "no such child" reads
//!   nothing beyond the node. The walk goes level by level and hashes each token once for all nodes of its level.
//!
//! Invariants:
//! - I-1: no entry without a value; no node, other than the root, without a value or a child.
//! - I-2: a wildcard subject is never in the flat index, a literal one never in the tree.
//! - I-3: `len` is the number of values, and queue names live exactly as long as values in their group.
//!
//! Listing by pattern ([`Trie::for_each_within`], [`Trie::for_each_overlapping`]) reads everything: about 20 ns a
//! value. It serves configuration changes and monitoring, never a message.

use keyed::{Key, Table, tag};

use crate::{
    bytes::{find_dot, has_empty_token, same},
    matched::Matched,
    queues::{QueueId, Queues},
    slab::Slab,
    text::Text,
    valid::{collides, has_wildcard, is_star, is_subset, is_tail, is_valid, tokens},
    values::{Member, Values},
};

/// Most subjects or nodes of one trie: ids have 30 bits, two tell where the id points.
const ID_MAX: usize = (1 << 30) - 1;
const ROOT: u32 = 0;

/// A subject in the trie, valid while it has a value. Lets a caller keep four bytes instead of the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectId(u32);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// An entry of the flat index.
    Literal(u32),
    /// Values of a pattern that ends at this node.
    Here(u32),
    /// Values of a pattern that goes on from this node with `>`.
    Tail(u32),
}

impl SubjectId {
    fn of(place: Place) -> SubjectId {
        SubjectId(match place {
            Place::Literal(id) => id << 2,
            Place::Here(id) => id << 2 | 1,
            Place::Tail(id) => id << 2 | 2,
        })
    }

    fn place(self) -> Place {
        match self.0 & 3 {
            0 => Place::Literal(self.0 >> 2),
            1 => Place::Here(self.0 >> 2),
            _ => Place::Tail(self.0 >> 2),
        }
    }
}

/// Why a value was not taken in. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The subject breaks the rules of [`crate::is_valid`].
    InvalidSubject,
    /// 2^30 subjects are in it already: memory should have ended long before.
    Full,
}

impl std::fmt::Display for InsertError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            InsertError::InvalidSubject => "invalid subject",
            InsertError::Full => "too many subjects",
        })
    }
}

impl std::error::Error for InsertError {}

#[derive(Clone)]
struct Literal<T> {
    subject: Text,
    values: Values<T>,
}

#[derive(Clone)]
struct Node<T> {
    token: Text,
    parent: u32,
    /// The child for `*`; [`ROOT`], which is nobody's child, stands for none.
    star: u32,
    /// How many literal children it has.
    literals: u32,
    /// One bit per literal child's token hash; may have bits of children that left, until the last one leaves.
    filter: u64,
    here: Values<T>,
    tail: Values<T>,
}

impl<T> Node<T> {
    fn new(parent: u32, token: &[u8]) -> Self {
        let (here, tail) = (Values::None, Values::None);
        Node { token: Text::new(token), parent, star: ROOT, literals: 0, filter: 0, here, tail }
    }

    fn is_needless(&self) -> bool {
        self.star == ROOT && self.literals == 0 && self.here.is_none() && self.tail.is_none()
    }
}

/// The filter's bit for a token hash. Uses bits that the edge's tag does not come from.
#[inline(always)]
fn filter_bit(token: u64) -> u64 {
    1 << (token & 63)
}

/// Nodes still to be visited, level behind level. Lives on the stack; spills to the heap only for a subject that more
/// than 64 nodes lead to.
struct Frontier {
    first: [u32; Frontier::INLINE],
    rest: Vec<u32>,
    len: usize,
}

impl Frontier {
    const INLINE: usize = 64;

    #[inline(always)]
    fn push(&mut self, node: u32) {
        match self.first.get_mut(self.len) {
            Some(slot) => *slot = node,
            None => self.rest.push(node),
        }
        self.len += 1;
    }

    #[inline(always)]
    fn at(&self, i: usize) -> u32 {
        match self.first.get(i) {
            Some(&node) => node,
            None => self.rest[i - Frontier::INLINE],
        }
    }
}

/// Where [`Trie::for_some`] begins with the nodes: above all ids of literals.
const FIRST_NODE: u64 = 1 << 40;

/// The interest structure; see the module's head. `T` is what stands for a subscriber, best some 8 bytes.
///
/// A clone is a full copy with the same ids: fit for a snapshot of some thousands of subjects, not for one after each
/// change of a million (docs/design/0003-interest.md).
#[derive(Clone)]
pub struct Trie<T> {
    key: Key,
    literals: Slab<Literal<T>>,
    literal_index: Table,
    nodes: Slab<Node<T>>,
    edges: Table,
    queues: Queues,
    len: usize,
}

impl<T> Trie<T> {
    /// An empty trie; allocates nothing. `seed` keys the hashes: draw it at random in production, since clients
    /// choose the subjects, and from the run's seed in a simulation. It has no influence on any result or order.
    pub fn new(seed: u64) -> Self {
        Trie {
            key: Key::new(seed),
            literals: Slab::new(),
            literal_index: Table::new(),
            nodes: Slab::new(),
            edges: Table::new(),
            queues: Queues::new(),
            len: 0,
        }
    }

    /// Values in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries and nodes: distinct literal subjects, plus nodes of the wildcard tree.
    pub fn num_nodes(&self) -> usize {
        self.literals.len() + self.nodes.len()
    }

    /// Distinct queue names.
    pub fn num_queues(&self) -> usize {
        self.queues.len()
    }

    /// The id of a subject that has a value. Compares text: wildcards stand for themselves.
    pub fn subject_id(&self, subject: &[u8]) -> Option<SubjectId> {
        self.find(subject).map(SubjectId::of)
    }

    /// Writes the subject of `id` into `out`, which is cleared first. False if the id is not in use.
    pub fn subject_of(&self, id: SubjectId, out: &mut Vec<u8>) -> bool {
        out.clear();
        match id.place() {
            Place::Literal(l) => match self.literals.get(l) {
                Some(l) => out.extend_from_slice(l.subject.as_bytes()),
                None => return false,
            },
            place @ (Place::Here(n) | Place::Tail(n)) => {
                if !self.has_values(place) {
                    return false;
                }
                self.path(n, matches!(place, Place::Tail(_)), out);
            }
        }
        true
    }

    /// The id of a queue name that some value is in.
    pub fn queue_id(&self, name: &[u8]) -> Option<QueueId> {
        self.queues.find(&self.key, name)
    }

    /// The name of a queue.
    pub fn queue_name(&self, queue: QueueId) -> Option<&[u8]> {
        self.queues.name(queue)
    }

    /// Calls `f` for every value that a publish to `subject` reaches, once for each subscription. Order: the literal
    /// subject first, then patterns by the token at which they end, those with `>` first; under one subject, plain
    /// values and then groups. An invalid subject reaches nobody; wildcards in it are literal tokens.
    #[inline]
    pub fn visit<'a>(&'a self, subject: &[u8], mut f: impl FnMut(Option<QueueId>, &'a T)) {
        self.walk(subject, &mut 0, |values| {
            values.for_each(&mut f);
            false
        });
    }

    /// As [`Trie::visit`], and how many bytes of the subject have decided it, if not all: as long as the trie stays as it is,
    /// every subject that begins with them, has as many tokens in all, none of them empty, and does not stand in the trie
    /// itself ([`Trie::has_literal`]), reaches the same values.
    #[inline]
    pub fn visit_wide<'a>(
        &'a self,
        subject: &[u8],
        mut f: impl FnMut(Option<QueueId>, &'a T),
    ) -> Option<usize> {
        let mut decided = 0;
        self.walk(subject, &mut decided, |values| {
            values.for_each(&mut f);
            false
        });
        // Without patterns the walk has not looked at the tokens.
        let sound = self.nodes.len() > 0 || !has_empty_token(subject);
        (decided < subject.len() && sound).then_some(decided)
    }

    /// Whether a subject without wildcards stands in the trie.
    #[inline]
    pub fn has_literal(&self, subject: &[u8]) -> bool {
        self.find_literal(subject).is_some()
    }

    /// Whether a subject without wildcards that begins so stands in the trie. With more than `most` places to look at the answer is yes.
    pub fn may_have_literal_in(&self, prefix: &[u8], most: usize) -> bool {
        let mut places = self.literals.from(0);
        let hit = |(_, l): (u32, &Literal<T>)| l.subject.as_bytes().starts_with(prefix);
        places.by_ref().take(most).flatten().any(hit) || places.next().is_some()
    }

    /// Whether a publish to `subject` reaches anybody. Stops at the first one found.
    #[inline]
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        self.walk(subject, &mut 0, |_| true)
    }

    /// Whether a publish to `subject` reaches a value that `is_it` holds for. Stops at the first one found.
    #[inline]
    pub fn any(&self, subject: &[u8], mut is_it: impl FnMut(&T) -> bool) -> bool {
        self.walk(subject, &mut 0, |values| values.any(&mut is_it))
    }

    /// How many values a publish to `subject` reaches, counting every member of every group.
    pub fn count(&self, subject: &[u8]) -> usize {
        let mut n = 0;
        self.visit(subject, |_, _| n += 1);
        n
    }

    /// Every value with its subject and queue: literal subjects first, then patterns, each by id.
    pub fn for_each(&self, f: impl FnMut(&[u8], Option<QueueId>, &T)) {
        self.list(|_| true, f);
    }

    /// A portion of all values: from where `from` says on (0 at first), about `subjects_max` subjects. Returns where the next
    /// portion begins, or `None` after the last. What comes or goes between two portions may be seen or not; what stays is seen
    /// exactly once.
    pub fn for_some(&self, from: u64, subjects_max: usize, mut f: impl FnMut(&T)) -> Option<u64> {
        let mut left = subjects_max.max(1);
        let mut at = from;
        if at < FIRST_NODE {
            for entry in self.literals.from(at as usize) {
                if left == 0 {
                    return Some(at);
                }
                (left, at) = (left - 1, at + 1);
                if let Some((_, l)) = entry {
                    l.values.for_each(|_, v| f(v));
                }
            }
            at = FIRST_NODE;
        }
        for entry in self.nodes.from((at - FIRST_NODE) as usize) {
            if left == 0 {
                return Some(at);
            }
            (left, at) = (left - 1, at + 1);
            if let Some((_, n)) = entry {
                n.here.for_each(|_, v| f(v));
                n.tail.for_each(|_, v| f(v));
            }
        }
        None
    }

    /// Every value whose subject, taken as a pattern, is a subset of `filter`. Reads everything.
    pub fn for_each_within(&self, filter: &[u8], mut f: impl FnMut(&[u8], Option<QueueId>, &T)) {
        if !is_valid(filter) {
            return;
        }
        if has_wildcard(filter) {
            return self.list(|s| is_subset(s, filter), f);
        }
        if let Some(values) = self.find(filter).and_then(|p| self.values(p)) {
            values.for_each(|q, v| f(filter, q, v));
        }
    }

    /// The reverse match: every value whose subject has some literal subject in common with `pattern`. Reads
    /// everything.
    pub fn for_each_overlapping(&self, pattern: &[u8], f: impl FnMut(&[u8], Option<QueueId>, &T)) {
        if is_valid(pattern) {
            self.list(|s| collides(s, pattern), f);
        }
    }

    /// Whether any subject in it overlaps with `pattern`.
    pub fn overlaps(&self, pattern: &[u8]) -> bool {
        if !is_valid(pattern) {
            return false;
        }
        if !has_wildcard(pattern) {
            return self.has_interest(pattern);
        }
        let mut path = Vec::new();
        self.literals.iter().any(|(_, l)| collides(l.subject.as_bytes(), pattern))
            || self.nodes.iter().any(|(id, node)| {
                [(&node.here, false), (&node.tail, true)].into_iter().any(|(values, tail)| {
                    !values.is_none() && {
                        self.path(id, tail, &mut path);
                        collides(&path, pattern)
                    }
                })
            })
    }

    /// Bytes allocated, beside what `T` owns and what the allocator adds. Reads everything.
    pub fn heap_bytes(&self) -> usize {
        let literals: usize =
            self.literals.iter().map(|(_, l)| l.subject.heap_bytes() + l.values.heap_bytes()).sum();
        let nodes: usize = self
            .nodes
            .iter()
            .map(|(_, n)| n.token.heap_bytes() + n.here.heap_bytes() + n.tail.heap_bytes())
            .sum();
        let own = self.literals.heap_bytes() + self.literal_index.heap_bytes();
        own + self.nodes.heap_bytes() + self.edges.heap_bytes() + self.queues.heap_bytes() + literals + nodes
    }

    /// Gives `f` the values of every subject that matches, until it says stop; tells whether it did. `decided` becomes the
    /// number of bytes up to the last token that was compared with another, its dot included.
    #[inline]
    fn walk<'a>(
        &'a self,
        subject: &[u8],
        decided: &mut usize,
        mut f: impl FnMut(&'a Values<T>) -> bool,
    ) -> bool {
        if let Some(id) = self.find_literal(subject)
            && let Some(entry) = self.literals.get(id)
        {
            *decided = subject.len();
            if f(&entry.values) {
                return true;
            }
        }
        if self.nodes.len() == 0 {
            return false;
        }
        if has_empty_token(subject) {
            *decided = subject.len();
            return false;
        }
        let mut frontier = Frontier { first: [0; Frontier::INLINE], rest: Vec::new(), len: 0 };
        frontier.push(ROOT);
        let mut level = 0;
        let mut start = 0;
        while start <= subject.len() {
            let end = find_dot(subject, start);
            let token = &subject[start..end];
            start = end + 1;
            let hash = self.key.bytes(token);
            let bit = filter_bit(hash);
            let level_end = frontier.len;
            if level == level_end {
                return false;
            }
            while level < level_end {
                let id = frontier.at(level);
                level += 1;
                let Some(node) = self.nodes.get(id) else { continue };
                if !node.tail.is_none() && f(&node.tail) {
                    return true;
                }
                if node.star != ROOT {
                    frontier.push(node.star);
                }
                if node.literals > 0 {
                    *decided = start.max(*decided);
                }
                if node.filter & bit != 0
                    && let Some(child) = self.find_edge(id, hash, token)
                {
                    frontier.push(child);
                }
            }
        }
        while level < frontier.len {
            if let Some(node) = self.nodes.get(frontier.at(level))
                && !node.here.is_none()
                && f(&node.here)
            {
                return true;
            }
            level += 1;
        }
        false
    }

    #[inline]
    fn find_literal(&self, subject: &[u8]) -> Option<u32> {
        if self.literals.len() == 0 {
            return None;
        }
        self.literal_index.find(tag(self.key.bytes(subject)), |id| {
            self.literals.get(id).is_some_and(|l| same(l.subject.as_bytes(), subject))
        })
    }

    #[inline]
    fn find_edge(&self, parent: u32, token_hash: u64, token: &[u8]) -> Option<u32> {
        self.edges.find(tag(self.key.edge(parent, token_hash)), |id| {
            self.nodes.get(id).is_some_and(|n| n.parent == parent && same(n.token.as_bytes(), token))
        })
    }

    /// Where the values of exactly this subject stand, if it has any.
    fn find(&self, subject: &[u8]) -> Option<Place> {
        if !has_wildcard(subject) {
            return self.find_literal(subject).map(Place::Literal);
        }
        let mut at = ROOT;
        let mut place = Place::Here(ROOT);
        let mut all = tokens(subject);
        while let Some(token) = all.next() {
            if is_tail(token) {
                // Callers may ask for anything: `>` with something behind it is no subject.
                return all.next().is_none().then_some(Place::Tail(at)).filter(|p| self.has_values(*p));
            }
            let node = self.nodes.get(at)?;
            at = match is_star(token) {
                true if node.star == ROOT => return None,
                true => node.star,
                false => self.find_edge(at, self.key.bytes(token), token)?,
            };
            place = Place::Here(at);
        }
        Some(place).filter(|p| self.has_values(*p))
    }

    fn has_values(&self, place: Place) -> bool {
        self.values(place).is_some_and(|v| !v.is_none())
    }

    fn values(&self, place: Place) -> Option<&Values<T>> {
        match place {
            Place::Literal(id) => self.literals.get(id).map(|l| &l.values),
            Place::Here(id) => self.nodes.get(id).map(|n| &n.here),
            Place::Tail(id) => self.nodes.get(id).map(|n| &n.tail),
        }
    }

    fn values_mut(&mut self, place: Place) -> Option<&mut Values<T>> {
        match place {
            Place::Literal(id) => self.literals.get_mut(id).map(|l| &mut l.values),
            Place::Here(id) => self.nodes.get_mut(id).map(|n| &mut n.here),
            Place::Tail(id) => self.nodes.get_mut(id).map(|n| &mut n.tail),
        }
    }

    fn make_literal(&mut self, subject: &[u8]) -> u32 {
        if let Some(id) = self.find_literal(subject) {
            return id;
        }
        debug_assert!(!has_wildcard(subject), "I-2: only literal subjects stand in the flat index");
        let id = self.literals.insert(Literal { subject: Text::new(subject), values: Values::None });
        self.literal_index.insert(tag(self.key.bytes(subject)), id);
        id
    }

    /// Makes sure of all nodes of a wildcard subject.
    fn make_path(&mut self, subject: &[u8]) -> Place {
        if self.nodes.len() == 0 {
            let root = self.nodes.insert(Node::new(ROOT, b""));
            assert!(root == ROOT, "I-1: an empty slab gives its first id first");
        }
        debug_assert!(has_wildcard(subject), "I-2: only wildcard subjects stand in the tree");
        let mut at = ROOT;
        for token in tokens(subject) {
            if is_tail(token) {
                return Place::Tail(at);
            }
            at = if is_star(token) { self.make_star(at) } else { self.make_child(at, token) };
        }
        Place::Here(at)
    }

    fn make_star(&mut self, parent: u32) -> u32 {
        let star = self.nodes.get(parent).map_or(ROOT, |n| n.star);
        if star != ROOT {
            return star;
        }
        let id = self.nodes.insert(Node::new(parent, b"*"));
        if let Some(node) = self.nodes.get_mut(parent) {
            node.star = id;
        }
        id
    }

    fn make_child(&mut self, parent: u32, token: &[u8]) -> u32 {
        let hash = self.key.bytes(token);
        if let Some(id) = self.find_edge(parent, hash, token) {
            return id;
        }
        let id = self.nodes.insert(Node::new(parent, token));
        self.edges.insert(tag(self.key.edge(parent, hash)), id);
        if let Some(node) = self.nodes.get_mut(parent) {
            node.literals += 1;
            node.filter |= filter_bit(hash);
        }
        id
    }

    fn drop_literal(&mut self, id: u32) {
        if let Some(entry) = self.literals.remove(id) {
            let found = self.literal_index.remove(tag(self.key.bytes(entry.subject.as_bytes())), id);
            assert!(found, "I-1: every literal entry is in the index");
        }
    }

    /// Takes out a node and its ancestors as far as nothing needs them. The root goes with the last pattern.
    fn drop_path(&mut self, mut id: u32) {
        while self.nodes.get(id).is_some_and(Node::is_needless) {
            let Some(node) = self.nodes.remove(id) else { return };
            if id == ROOT {
                assert!(self.nodes.len() == 0, "I-1: a root without children is alone");
                return;
            }
            let Some(parent) = self.nodes.get_mut(node.parent) else { return };
            if parent.star == id {
                parent.star = ROOT;
            } else {
                parent.literals -= 1;
                if parent.literals == 0 {
                    parent.filter = 0;
                }
                let hash = self.key.bytes(node.token.as_bytes());
                let found = self.edges.remove(tag(self.key.edge(node.parent, hash)), id);
                assert!(found, "I-1: every literal child is in the index");
            }
            id = node.parent;
        }
    }

    /// Writes the pattern that ends at node `id`, or goes on from it with `>`.
    fn path(&self, id: u32, tail: bool, out: &mut Vec<u8>) {
        out.clear();
        // Written back to front, since nodes know only their parents, and turned round at the end.
        if tail {
            out.push(b'>');
        }
        let mut at = id;
        while at != ROOT
            && let Some(node) = self.nodes.get(at)
        {
            if !out.is_empty() {
                out.push(b'.');
            }
            out.extend(node.token.as_bytes().iter().rev());
            at = node.parent;
        }
        out.reverse();
    }

    fn list(&self, wanted: impl Fn(&[u8]) -> bool, mut f: impl FnMut(&[u8], Option<QueueId>, &T)) {
        for (_, entry) in self.literals.iter() {
            let subject = entry.subject.as_bytes();
            if wanted(subject) {
                entry.values.for_each(|q, v| f(subject, q, v));
            }
        }
        let mut path = Vec::new();
        for (id, node) in self.nodes.iter() {
            for (values, tail) in [(&node.here, false), (&node.tail, true)] {
                if !values.is_none() {
                    self.path(id, tail, &mut path);
                    if wanted(&path) {
                        values.for_each(|q, v| f(&path, q, v));
                    }
                }
            }
        }
    }
}

impl<T: Member> Trie<T> {
    /// Adds `value` under `subject`, in the queue group `queue` if there is one. The same value may be added again;
    /// each is delivered to. An empty queue name is a name here: the caller maps its protocol's "none".
    pub fn insert(
        &mut self,
        subject: &[u8],
        queue: Option<&[u8]>,
        value: T,
    ) -> Result<SubjectId, InsertError> {
        if !is_valid(subject) {
            return Err(InsertError::InvalidSubject);
        }
        let wild = has_wildcard(subject);
        // A subject adds at most one node more than it has bytes. Ids are dense, so counts bound them.
        let count = if wild { self.nodes.len() + subject.len() + 1 } else { self.literals.len() + 1 };
        if count > ID_MAX {
            return Err(InsertError::Full);
        }
        let queue = match queue {
            Some(name) => Some(self.queues.join(&self.key, name).ok_or(InsertError::Full)?),
            None => None,
        };
        let place = if wild { self.make_path(subject) } else { Place::Literal(self.make_literal(subject)) };
        self.values_mut(place).expect("I-1: the place was just made").add(queue, value);
        self.len += 1;
        Ok(SubjectId::of(place))
    }

    /// Takes out the first value under `subject` and `queue` for which `is_it` holds. O(1) but for the values under
    /// that very subject and queue, which are gone through in order.
    pub fn remove(&mut self, subject: &[u8], queue: Option<&[u8]>, key: u64) -> Option<T> {
        let place = self.find(subject)?;
        let queue = match queue {
            Some(name) => Some(self.queues.find(&self.key, name)?),
            None => None,
        };
        self.remove_from(place, queue, key)
    }

    /// As [`Trie::remove`], by the id that the insert gave. None when nothing fits, or the id is no longer in use.
    pub fn remove_at(&mut self, id: SubjectId, queue: Option<QueueId>, key: u64) -> Option<T> {
        self.remove_from(id.place(), queue, key)
    }

    fn remove_from(&mut self, place: Place, queue: Option<QueueId>, key: u64) -> Option<T> {
        let values = self.values_mut(place)?;
        let value = values.remove(queue, key)?;
        let last = values.is_none();
        self.len -= 1;
        if let Some(queue) = queue {
            self.queues.leave(&self.key, queue);
        }
        if last {
            match place {
                Place::Literal(id) => self.drop_literal(id),
                Place::Here(id) | Place::Tail(id) => self.drop_path(id),
            }
        }
        let bare = self.num_nodes() + self.queues.len() == 0;
        assert!(bare == (self.len == 0), "I-3: subjects and queue names live as long as their values");
        Some(value)
    }
}

impl<T: Clone> Trie<T> {
    /// All that a publish to `subject` reaches, into `out`, which is cleared first. Order as [`Trie::visit`].
    #[inline]
    pub fn match_into(&self, subject: &[u8], out: &mut Matched<T>) {
        out.clear();
        self.walk(subject, &mut 0, |values| {
            out.add(values);
            false
        });
    }
}

#[cfg(test)]
#[path = "trie_tests.rs"]
mod tests;
