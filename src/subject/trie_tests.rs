//! The trie against a naive model, and what the module's head promises about memory.

use super::*;
use crate::{matches, valid};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Sub = (Vec<u8>, Option<Vec<u8>>, u64);

fn sorted<X: Ord>(mut v: Vec<X>) -> Vec<X> {
    v.sort();
    v
}

/// Everything that can be asked, against the list of what is in it.
fn agrees(trie: &Trie<u64>, model: &[Sub], subjects: &[&[u8]]) -> Result<(), TestCaseError> {
    prop_assert_eq!(trie.len(), model.len());
    let mut out = Matched::new();
    for &s in subjects {
        let hits: Vec<&Sub> = model.iter().filter(|(p, ..)| matches(s, p)).collect();
        trie.match_into(s, &mut out);
        let plain = hits.iter().filter(|h| h.1.is_none()).map(|h| h.2).collect();
        prop_assert_eq!(sorted(out.plain().to_vec()), sorted(plain));
        let mut groups: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
        for (_, q, v) in hits.iter() {
            if let Some(q) = q {
                groups.entry(q.clone()).or_default().push(*v);
            }
        }
        let mut got: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
        for g in out.groups() {
            let name = trie.queue_name(g.queue).expect("a queue in a match has a name").to_vec();
            prop_assert_eq!(trie.queue_id(&name), Some(g.queue));
            prop_assert!(!g.members.is_empty());
            prop_assert!(got.insert(name, sorted(g.members.clone())).is_none(), "a group twice");
        }
        prop_assert_eq!(got, groups.into_iter().map(|(q, v)| (q, sorted(v))).collect());
        prop_assert_eq!(trie.has_interest(s), !hits.is_empty());
        prop_assert_eq!(out.is_empty(), hits.is_empty());
        prop_assert_eq!(trie.count(s), hits.len());

        // What decides a match decides it for all of a family.
        let mut reached = vec![];
        if let Some(n) = trie.visit_wide(s, |_, v| reached.push(*v)) {
            prop_assert!(n < s.len() && !has_empty_token(s) && !trie.has_literal(s));
            let of_family = |o: &&&[u8]| {
                o.starts_with(&s[..n])
                    && !has_empty_token(o)
                    && !trie.has_literal(o)
                    && tokens(o).count() == tokens(s).count()
            };
            for o in subjects.iter().filter(of_family) {
                let mut other = vec![];
                trie.visit(o, |_, v| other.push(*v));
                prop_assert_eq!(sorted(other), sorted(reached.clone()));
            }
        }

        // The same subject as a filter and as a pattern.
        let list = |f: &dyn Fn(&[u8]) -> bool| -> Vec<Sub> {
            sorted(model.iter().filter(|m| f(&m.0)).cloned().collect())
        };
        let entry = |p: &[u8], q: Option<QueueId>, v: &u64| -> Sub {
            (p.to_vec(), q.map(|q| trie.queue_name(q).expect("live").to_vec()), *v)
        };
        let (mut within, mut over, mut all) = (vec![], vec![], vec![]);
        trie.for_each_within(s, |p, q, v| within.push(entry(p, q, v)));
        trie.for_each_overlapping(s, |p, q, v| over.push(entry(p, q, v)));
        trie.for_each(|p, q, v| all.push(entry(p, q, v)));
        for portion in [1, 3, 100] {
            let (mut some, mut at) = (Vec::new(), Some(0));
            while let Some(from) = at {
                at = trie.for_some(from, portion, |v| some.push(*v));
            }
            some.sort_unstable();
            let mut each = Vec::new();
            trie.for_each(|_, _, v| each.push(*v));
            each.sort_unstable();
            assert_eq!(some, each, "in portions of {portion}");
        }
        prop_assert_eq!(sorted(all), list(&|_| true));
        let ok = is_valid(s);
        prop_assert_eq!(sorted(within), list(&|p| ok && is_subset(p, s)));
        let overlapping = list(&|p| ok && collides(p, s));
        prop_assert_eq!(trie.overlaps(s), !overlapping.is_empty());
        prop_assert_eq!(sorted(over), overlapping);
    }
    Ok(())
}

#[test]
fn names_of_a_family_are_found_or_assumed() {
    let mut trie = Trie::new(1);
    for (i, s) in ["a.b.c", "a.b.d", "x.y"].into_iter().enumerate() {
        trie.insert(s.as_bytes(), None, i as u64).unwrap();
    }
    trie.insert(b"q.>", None, 9).unwrap();
    assert!(trie.may_have_literal_in(b"a.b.", 3) && trie.may_have_literal_in(b"x.", 3));
    assert!(!trie.may_have_literal_in(b"a.c.", 3) && !trie.may_have_literal_in(b"q.", 3));
    assert!(trie.may_have_literal_in(b"a.c.", 2), "too many to look at");
}

/// I-1, I-2, I-3: nothing is left over in any structure.
fn is_tight(trie: &Trie<u64>, model: &[Sub]) -> Result<(), TestCaseError> {
    let mut names: Vec<&[u8]> = model.iter().filter_map(|m| m.1.as_deref()).collect();
    names.sort();
    names.dedup();
    prop_assert_eq!(trie.num_queues(), names.len(), "I-3");
    for (_, l) in trie.literals.iter() {
        prop_assert!(!has_wildcard(l.subject.as_bytes()), "I-2");
        prop_assert!(!l.values.is_none(), "I-1");
    }
    for (id, n) in trie.nodes.iter() {
        prop_assert!(!n.is_needless(), "I-1");
        if id != ROOT {
            let star = trie.nodes.get(n.parent).expect("I-1: a parent").star == id;
            prop_assert_eq!(star, n.token.as_bytes() == b"*");
        }
    }
    if model.is_empty() {
        prop_assert_eq!((trie.num_nodes(), trie.heap_bytes()), (0, 0), "I-1");
    }
    Ok(())
}

fn token() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just("a"), 4 => Just("b"), 3 => Just("*"), 1 => Just("x*"), 1 => Just(">>"),
        1 => Just("a-token-that-is-longer-than-the-inline-text")
    ]
}

fn subject() -> impl Strategy<Value = Vec<u8>> {
    (proptest::collection::vec(token(), 0..5), proptest::bool::weighted(0.25)).prop_map(|(mut t, tail)| {
        if tail {
            t.push(">");
        }
        if t.is_empty() {
            t.push("a");
        }
        t.join(".").into_bytes()
    })
}

fn queue() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::weighted(
        0.4,
        prop_oneof![Just(b"q1".to_vec()), Just(b"q2".to_vec()), Just(b"".to_vec())],
    )
}

#[derive(Clone, Debug)]
enum Op {
    Add(Vec<u8>, Option<Vec<u8>>, u64),
    /// Takes out the value that stands at this place of the model, modulo its length.
    Take(usize),
    TakeById(usize),
    /// Tries to take out what need not be there.
    Miss(Vec<u8>, Option<Vec<u8>>, u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (subject(), queue(), 0u64..50).prop_map(|(s, q, v)| Op::Add(s, q, v)),
        2 => any::<usize>().prop_map(Op::Take),
        2 => any::<usize>().prop_map(Op::TakeById),
        1 => (subject(), queue(), 0u64..50).prop_map(|(s, q, v)| Op::Miss(s, q, v)),
    ]
}

fn run(ops: Vec<Op>, asked: Vec<Vec<u8>>, seed: u64) -> Result<(), TestCaseError> {
    let mut trie = Trie::new(seed);
    let mut model: Vec<Sub> = vec![];
    let asked: Vec<&[u8]> = asked.iter().map(Vec::as_slice).collect();
    for op in ops {
        match op {
            Op::Add(s, q, v) => {
                let id = trie.insert(&s, q.as_deref(), v).expect("a valid subject");
                let mut text = vec![];
                prop_assert!(trie.subject_of(id, &mut text));
                prop_assert_eq!(&text, &s);
                prop_assert_eq!(trie.subject_id(&s), Some(id));
                model.push((s, q, v));
            }
            Op::Take(at) if !model.is_empty() => {
                let (s, q, v) = model.swap_remove(at % model.len());
                prop_assert_eq!(trie.remove(&s, q.as_deref(), v), Some(v));
            }
            Op::TakeById(at) if !model.is_empty() => {
                let (s, q, v) = model.swap_remove(at % model.len());
                let id = trie.subject_id(&s).expect("it is in the model");
                let queue = q.map(|q| trie.queue_id(&q).expect("it is in the model"));
                prop_assert_eq!(trie.remove_at(id, queue, v), Some(v));
                prop_assert_eq!(trie.subject_id(&s).is_some(), model.iter().any(|m| m.0 == s));
                prop_assert_eq!(trie.subject_of(id, &mut vec![]), model.iter().any(|m| m.0 == s));
            }
            Op::Take(_) | Op::TakeById(_) => {}
            Op::Miss(s, q, v) => {
                let is = model.iter().position(|m| *m == (s.clone(), q.clone(), v));
                let taken = trie.remove(&s, q.as_deref(), v);
                prop_assert_eq!(taken, is.map(|i| model.swap_remove(i).2));
            }
        }
        is_tight(&trie, &model)?;
    }
    agrees(&trie, &model, &asked)?;
    while let Some((s, q, v)) = model.pop() {
        prop_assert_eq!(trie.remove(&s, q.as_deref(), v), Some(v));
    }
    is_tight(&trie, &model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn behaves_like_a_list(ops in proptest::collection::vec(op(), 0..60),
                           asked in proptest::collection::vec(subject(), 1..12), seed: u64) {
        run(ops, asked, seed)?;
    }

    #[test]
    fn random_bytes_never_panic(subjects in proptest::collection::vec(proptest::collection::vec(
        prop_oneof![3 => Just(b'.'), 2 => Just(b'*'), 2 => Just(b'>'), 2 => Just(b'a'), 1 => any::<u8>()], 0..12), 0..40)) {
        let mut trie = Trie::new(3);
        let mut model: Vec<Sub> = vec![];
        for (i, s) in subjects.iter().enumerate() {
            match trie.insert(s, None, i as u64) {
                Ok(_) => model.push((s.clone(), None, i as u64)),
                Err(e) => {
                    prop_assert_eq!(e, InsertError::InvalidSubject);
                    prop_assert!(!valid::is_valid(s));
                    prop_assert_eq!(trie.remove(s, None, i as u64), None);
                }
            }
        }
        let asked: Vec<&[u8]> = subjects.iter().map(Vec::as_slice).collect();
        agrees(&trie, &model, &asked)?;
        is_tight(&trie, &model)?;
    }
}

#[test]
fn order_is_that_of_insertion_and_of_the_head_comment() {
    for seed in 0..5 {
        let mut t = Trie::new(seed);
        for (s, v) in [("a.b", 1u64), (">", 2), ("a.*", 3), ("*.b", 4), ("a.b", 5), ("a.>", 6), ("a.*", 7)] {
            t.insert(s.as_bytes(), None, v).unwrap();
        }
        let mut m = Matched::new();
        t.match_into(b"a.b", &mut m);
        assert_eq!(m.plain(), [1, 5, 2, 6, 4, 3, 7]);
    }
}

#[test]
fn a_tail_with_something_behind_it_is_no_subject() {
    let mut t = Trie::new(1);
    t.insert(b">", None, 1u64).unwrap();
    for s in [">.", ">.a", ">..", ">.>"] {
        assert_eq!(t.remove(s.as_bytes(), None, 1), None, "{s}");
        assert_eq!(t.subject_id(s.as_bytes()), None);
    }
    assert_eq!(t.remove(b">", None, 1), Some(1));
}

#[test]
fn a_clone_is_apart() {
    let mut t = Trie::new(1);
    let ids: Vec<SubjectId> =
        [&b"a.b"[..], b"a.*", b">"].iter().map(|s| t.insert(s, None, 1u64).unwrap()).collect();
    let old = t.clone();
    for &id in &ids {
        assert_eq!(t.remove_at(id, None, 1), Some(1));
        assert_eq!(t.remove_at(id, None, 1), None);
    }
    assert_eq!((t.count(b"a.b"), old.count(b"a.b")), (0, 3));
    let mut text = vec![];
    assert!(old.subject_of(ids[1], &mut text) && !t.subject_of(ids[1], &mut vec![]));
    assert_eq!(text, b"a.*");
}

#[test]
fn a_result_is_reused_without_growing() {
    let mut t = Trie::new(1);
    for i in 0..200u32 {
        t.insert(b"a.*", Some(format!("q{i}").as_bytes()), i).unwrap();
        t.insert(b"*.b", Some(format!("q{}", i / 2).as_bytes()), 1000 + i).unwrap();
    }
    let mut m = Matched::new();
    t.match_into(b"a.b", &mut m);
    assert_eq!(m.groups().len(), 200);
    assert_eq!(m.groups().iter().map(|g| g.members.len()).sum::<usize>(), 400);
    let first: Vec<_> = m.groups().to_vec();
    t.match_into(b"c.b", &mut m);
    assert_eq!((m.plain().len(), m.groups().len()), (0, 100));
    t.match_into(b"nothing", &mut m);
    assert!(m.is_empty() && m.groups().is_empty());
    t.match_into(b"a.b", &mut m);
    assert_eq!(m.groups(), first);
}

#[test]
fn deep_and_wide_subjects_spill_and_do_not_recurse() {
    let mut t = Trie::new(9);
    let deep = vec!["*"; 2000].join(".");
    t.insert(deep.as_bytes(), None, 1u64).unwrap();
    t.insert(vec!["a"; 2000].join(".").as_bytes(), None, 2).unwrap();
    t.insert(format!("{}.>", vec!["a"; 1999].join(".")).as_bytes(), None, 3).unwrap();
    // All 2^9 mixtures of `a` and `*`: 512 nodes on the last level of one walk, far above what stays on the stack.
    for i in 0..512u64 {
        let s: Vec<&str> = (0..9).map(|b| if i >> b & 1 == 0 { "a" } else { "*" }).collect();
        t.insert(s.join(".").as_bytes(), None, 100 + i).unwrap();
    }
    assert_eq!(t.count(vec!["a"; 2000].join(".").as_bytes()), 3);
    assert_eq!(t.count(vec!["b"; 2000].join(".").as_bytes()), 1);
    assert_eq!(t.count(b"a.a.a.a.a.a.a.a.a"), 512);
    assert_eq!(t.count(b"a.a.a.a.b.a.a.a.a"), 256);
    assert!(t.has_interest(b"b.b.b.b.b.b.b.b.b"));
    assert_eq!(t.remove(deep.as_bytes(), None, 1), Some(1));
}

/// The budget of the design: 90 bytes for each literal subject of this shape, all indexes included.
#[test]
fn memory_of_literal_subjects_stays_in_budget() {
    let mut t = Trie::new(4);
    // Just past a doubling of the index, where the share of each subject is largest.
    let most = 98_500;
    for i in 0..most {
        let s = format!("s.{}.{}.{}", i / 10_000, i / 100 % 100, i % 100);
        t.insert(s.as_bytes(), None, i as u64).unwrap();
    }
    let each = t.heap_bytes() as f64 / most as f64;
    assert!((40.0..64.0).contains(&each), "{each} bytes for each subject");
}
