//! Subjects and patterns: the relations agree with their definitions and, where that is feasible, with going through all
//! subjects; the trie finds what the definitions say. An input is lines: two patterns, and then subjects and patterns.

use subject::{
    Matched, Trie, collides, has_wildcard, is_literal, is_strict, is_subset, is_valid, matches, tokens,
};

use super::{reaches, well_formed};
use crate::engine::{about, seen};

/// Lines of an input that are looked at.
const LINES_MAX: usize = 10;
/// Subjects that are gone through.
const UNIVERSE_MAX: usize = 1500;

/// Runs one input.
pub fn target(data: &[u8]) {
    let all: Vec<&[u8]> = data.split(|b| *b == b'\n').take(LINES_MAX).collect();
    for s in &all {
        alone(s);
    }
    let valid: Vec<&[u8]> = all.iter().copied().filter(|s| is_valid(s)).collect();
    for p in &valid {
        for s in &all {
            let does = reaches(s, p);
            assert_eq!(matches(s, p), does, "matches({}, {})", s.escape_ascii(), p.escape_ascii());
            seen(if does { "matches" } else { "no match" }, shape(p));
        }
        for q in &valid {
            pair(p, q);
        }
    }
    if let [a, b, ..] = valid[..] {
        brute_force(a, b);
    }
    trie(&all, &valid);
}

/// The kinds of a pattern's first tokens, as a number.
fn shape(p: &[u8]) -> u64 {
    let kind = |t: &[u8]| match t {
        b"*" => 1,
        b">" => 2,
        _ => 3,
    };
    tokens(p).take(4).fold(0, |n, t| n * 4 + kind(t))
}

fn alone(s: &[u8]) {
    let split: Vec<&[u8]> = s.split(|b| *b == b'.').collect();
    assert!(tokens(s).eq(split.iter().copied()));
    assert_eq!(is_valid(s), well_formed(s), "{}", s.escape_ascii());
    let wild = split.iter().any(|t| matches!(*t, b"*" | b">"));
    assert_eq!(has_wildcard(s), wild);
    assert_eq!(is_literal(s), well_formed(s) && !wild);
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0c | 0);
    assert_eq!(is_strict(s), well_formed(s) && !s.iter().any(blank) && std::str::from_utf8(s).is_ok());
    seen(if is_valid(s) { "valid" } else { "invalid" }, about(split.len()));
}

/// The relations of two valid patterns, against their definitions by tokens.
fn pair(a: &[u8], b: &[u8]) {
    fn within(a: &[&[u8]], b: &[&[u8]]) -> bool {
        match (a, b) {
            ([], []) => true,
            ([_, ..], [b">"]) => true,
            ([b">", ..], _) | ([], _) | (_, []) => false,
            ([x, a @ ..], [y, b @ ..]) => (*y == b"*" || x == y) && within(a, b),
        }
    }
    fn meet(a: &[&[u8]], b: &[&[u8]]) -> bool {
        match (a, b) {
            ([], []) => true,
            ([_, ..], [b">"]) | ([b">"], [_, ..]) => true,
            ([], _) | (_, []) => false,
            ([x, a @ ..], [y, b @ ..]) => (*x == b"*" || *y == b"*" || x == y) && meet(a, b),
        }
    }
    let split = |s| tokens(s).collect::<Vec<_>>();
    let (subset, both) = (within(&split(a), &split(b)), meet(&split(a), &split(b)));
    assert_eq!(is_subset(a, b), subset, "is_subset({}, {})", a.escape_ascii(), b.escape_ascii());
    assert_eq!(collides(a, b), both, "collides({}, {})", a.escape_ascii(), b.escape_ascii());
    assert!(both || !subset, "what is part of another meets it");
    seen(if subset { "subset" } else { "no subset" }, shape(b));
    seen(if both { "collides" } else { "apart" }, shape(a));
}

/// The relations of two patterns by the subjects that they match.
fn brute_force(a: &[u8], b: &[u8]) {
    let mut words: Vec<&[u8]> = tokens(a).chain(tokens(b)).filter(|t| !matches!(*t, b"*" | b">")).collect();
    // One that neither names. A tail needs two tokens more than the other pattern has.
    words.push(b"\x01no such token");
    words.sort_unstable();
    words.dedup();
    let depth = tokens(a).count().max(tokens(b).count()) + 1;
    let (mut all, mut last): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (Vec::new(), vec![Vec::new()]);
    for _ in 0..depth {
        if last.len() * words.len() + all.len() > UNIVERSE_MAX {
            return;
        }
        let longer = |s: &Vec<u8>| -> Vec<Vec<u8>> {
            let join = |w: &&[u8]| if s.is_empty() { w.to_vec() } else { [s, &b"."[..], w].concat() };
            words.iter().map(join).collect()
        };
        last = last.iter().flat_map(longer).collect();
        all.extend(last.iter().cloned());
    }
    let of = |p: &[u8]| all.iter().map(|s| reaches(s, p)).collect::<Vec<_>>();
    let (in_a, in_b) = (of(a), of(b));
    let both = in_a.iter().zip(&in_b).any(|(a, b)| *a && *b);
    let within = in_a.iter().zip(&in_b).all(|(a, b)| !a || *b);
    assert_eq!(collides(a, b), both, "{} and {}", a.escape_ascii(), b.escape_ascii());
    assert_eq!(is_subset(a, b), within, "{} in {}", a.escape_ascii(), b.escape_ascii());
    seen("brute force", about(all.len()));
}

/// Every second pattern in a queue group, and one of them taken out again.
fn trie(all: &[&[u8]], valid: &[&[u8]]) {
    let mut trie: Trie<u64> = Trie::new(7);
    let queue = |i: usize| (i % 2 == 1).then_some(&b"workers"[..]);
    for (i, s) in all.iter().enumerate() {
        assert_eq!(trie.insert(s, queue(i), i as u64).is_ok(), is_valid(s), "{}", s.escape_ascii());
    }
    assert_eq!(trie.len(), valid.len());
    let mut there: Vec<(usize, &[u8])> =
        all.iter().copied().enumerate().filter(|(_, s)| is_valid(s)).collect();
    for round in 0..2 {
        for s in all {
            let expected: Vec<u64> =
                there.iter().filter(|(_, p)| reaches(s, p)).map(|(i, _)| *i as u64).collect();
            let mut found = Vec::new();
            trie.visit(s, |q, v| {
                assert_eq!(q.is_some(), v % 2 == 1);
                found.push(*v);
            });
            found.sort_unstable();
            assert_eq!(found, expected, "who gets {}", s.escape_ascii());
            assert_eq!((trie.has_interest(s), trie.count(s)), (!expected.is_empty(), expected.len()));
            let mut matched = Matched::new();
            trie.match_into(s, &mut matched);
            assert_eq!(matched.plain().len(), expected.iter().filter(|v| *v % 2 == 0).count());
            seen(
                if expected.is_empty() { "trie miss" } else { "trie hit" },
                about(expected.len()) * 2 + round,
            );
        }
        for p in valid {
            let mut overlapping = 0;
            trie.for_each_overlapping(p, |_, _, _| overlapping += 1);
            assert_eq!(overlapping, there.iter().filter(|(_, s)| collides(s, p)).count());
            assert_eq!(trie.overlaps(p), overlapping > 0);
        }
        if !there.is_empty() {
            let (i, s) = there.remove(there.len() / 2);
            assert_eq!(trie.remove(s, queue(i), i as u64), Some(i as u64));
        }
    }
}
