//! A compiled, immutable set of subject patterns: a trie in five flat arrays.
//!
//! A lookup walks the subject's tokens once, with a binary search per level, and branches only where a pattern has
//! `*`. It allocates nothing and visits each trie node at most once, so its cost is bounded by the number of patterns
//! whatever subject a client sends. There is no hash table: the keys would need a keyed hash, and the tables of a
//! permission are small.
//!
//! Wildcards in the *looked-up* subject are plain tokens, as they are in nats-server: `*` and `>` are matched by a
//! pattern's `*`, never by a literal.

use std::collections::BTreeMap;

use super::pattern::{has_empty_token, has_wildcard, is_subset};

const NONE: u32 = u32::MAX;

/// One entry of a permission list: a subject and perhaps a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) subject: Box<[u8]>,
    pub(super) queue: Option<QueuePattern>,
}

/// The queue part of an entry. Patterns are valid queue names too, so a literal match is tried first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueuePattern {
    name: Box<[u8]>,
    wildcard: bool,
}

impl QueuePattern {
    pub(super) fn new(name: &[u8]) -> QueuePattern {
        QueuePattern { name: name.into(), wildcard: has_wildcard(name) }
    }

    pub(super) fn matches(&self, queue: &[u8]) -> bool {
        *self.name == *queue || (self.wildcard && is_subset(queue, &self.name))
    }
}

/// What a lookup found, in the terms of the subscription rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hits {
    /// An entry without a queue matches.
    pub(super) plain: bool,
    /// An entry with some queue matches the subject.
    pub(super) any_queue: bool,
    /// An entry with a queue matches the subject and the queue.
    pub(super) queue: bool,
}

#[derive(Debug)]
struct Node {
    edges: (u32, u32),
    star: u32,
    /// The terminal for a subject that ends here.
    end: u32,
    /// The terminal for `>` here: one token or more follow.
    tail: u32,
}

#[derive(Debug)]
struct Edge {
    token: (u32, u32),
    node: u32,
}

#[derive(Debug)]
struct Terminal {
    plain: bool,
    queues: (u32, u32),
}

/// The compiled set.
#[derive(Debug)]
pub(super) struct SubjectSet {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    tokens: Vec<u8>,
    terminals: Vec<Terminal>,
    queues: Vec<QueuePattern>,
}

#[derive(Default)]
struct Draft {
    children: BTreeMap<Vec<u8>, usize>,
    star: Option<usize>,
    end: Option<DraftTerminal>,
    tail: Option<DraftTerminal>,
}

#[derive(Default)]
struct DraftTerminal {
    plain: bool,
    queues: Vec<QueuePattern>,
}

impl SubjectSet {
    /// Compiles entries whose subjects are valid.
    pub(super) fn new(entries: &[Entry]) -> SubjectSet {
        // Drafts are addressed by index, not nested, so that a subject of very many tokens cannot exhaust the stack.
        let mut drafts = vec![Draft::default()];
        for entry in entries {
            let (mut at, mut open) = (0, false);
            for token in super::pattern::tokens(&entry.subject) {
                if token == b">" {
                    open = true;
                    break;
                }
                let next = drafts.len();
                let child = if token == b"*" {
                    *drafts[at].star.get_or_insert(next)
                } else {
                    *drafts[at].children.entry(token.to_vec()).or_insert(next)
                };
                if child == next {
                    drafts.push(Draft::default());
                }
                at = child;
            }
            let place = if open { &mut drafts[at].tail } else { &mut drafts[at].end };
            let terminal = place.get_or_insert_default();
            match &entry.queue {
                None => terminal.plain = true,
                Some(queue) => terminal.queues.push(queue.clone()),
            }
        }
        let mut set = SubjectSet {
            nodes: Vec::with_capacity(drafts.len()),
            edges: Vec::new(),
            tokens: Vec::new(),
            terminals: Vec::new(),
            queues: Vec::new(),
        };
        for draft in drafts {
            let first = set.edges.len();
            for (token, node) in draft.children {
                let start = set.tokens.len();
                set.tokens.extend_from_slice(&token);
                set.edges.push(Edge { token: (index(start), index(token.len())), node: index(node) });
            }
            let edges = (index(first), index(set.edges.len() - first));
            let end = set.add_terminal(draft.end);
            let tail = set.add_terminal(draft.tail);
            set.nodes.push(Node { edges, star: draft.star.map_or(NONE, index), end, tail });
        }
        set
    }

    fn add_terminal(&mut self, draft: Option<DraftTerminal>) -> u32 {
        let Some(draft) = draft else { return NONE };
        let queues = (index(self.queues.len()), index(draft.queues.len()));
        self.queues.extend(draft.queues);
        self.terminals.push(Terminal { plain: draft.plain, queues });
        index(self.terminals.len() - 1)
    }

    /// Whether an entry without a queue matches. A malformed subject matches nothing.
    pub(super) fn contains(&self, subject: &[u8]) -> bool {
        !has_empty_token(subject) && self.walk(0, subject, &mut |t| t.plain)
    }

    /// All that matches, for a subscription to `subject` in `queue` (empty: none).
    pub(super) fn hits(&self, subject: &[u8], queue: &[u8]) -> Hits {
        let mut hits = Hits::default();
        if has_empty_token(subject) {
            return hits;
        }
        self.walk(0, subject, &mut |t| {
            hits.plain |= t.plain;
            if !queue.is_empty() && t.queues.1 > 0 {
                hits.any_queue = true;
                let (start, len) = (t.queues.0 as usize, t.queues.1 as usize);
                hits.queue = hits.queue || self.queues[start..start + len].iter().any(|q| q.matches(queue));
            }
            false
        });
        hits
    }

    /// Visits every matching terminal until `found` says to stop; tells whether it did.
    fn walk<F: FnMut(&Terminal) -> bool>(&self, at: u32, rest: &[u8], found: &mut F) -> bool {
        let (mut at, mut rest) = (at, rest);
        loop {
            let node = &self.nodes[at as usize];
            if node.tail != NONE && found(&self.terminals[node.tail as usize]) {
                return true;
            }
            let dot = rest.iter().position(|b| *b == b'.');
            let token = &rest[..dot.unwrap_or(rest.len())];
            // Recursion is as deep as the subject has tokens that meet a `*`, which the control line's limit bounds.
            if node.star != NONE && self.step(node.star, dot.map(|d| &rest[d + 1..]), found) {
                return true;
            }
            let Some(next) = self.child(node, token) else { return false };
            match dot {
                Some(dot) => (at, rest) = (next, &rest[dot + 1..]),
                None => return self.step(next, None, found),
            }
        }
    }

    fn step<F: FnMut(&Terminal) -> bool>(&self, node: u32, rest: Option<&[u8]>, found: &mut F) -> bool {
        match rest {
            Some(rest) => self.walk(node, rest, found),
            None => {
                let end = self.nodes[node as usize].end;
                end != NONE && found(&self.terminals[end as usize])
            }
        }
    }

    fn child(&self, node: &Node, token: &[u8]) -> Option<u32> {
        let (start, len) = (node.edges.0 as usize, node.edges.1 as usize);
        let edges = &self.edges[start..start + len];
        let text = |e: &Edge| &self.tokens[e.token.0 as usize..(e.token.0 + e.token.1) as usize];
        let found = edges.binary_search_by(|e| text(e).cmp(token)).ok()?;
        Some(edges[found].node)
    }
}

/// Configuration is read into memory whole and is far below 4 GiB, so its indexes fit.
fn index(n: usize) -> u32 {
    u32::try_from(n).expect("a permission list has fewer than 2^32 tokens")
}
