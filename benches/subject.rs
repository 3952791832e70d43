//! The costs that docs/design/0003-interest.md states, and their budgets: `cargo bench -p fulmar-bench --bench subject`.
//!
//! Bytes are what the trie itself allocated (its own count), per distinct subject.

#![allow(missing_docs, clippy::print_stdout, reason = "criterion's macros document nothing; a bench prints")]

use criterion::{Criterion, criterion_group, criterion_main};
use fulmar_bench::Draw;
use std::hint::black_box;
use subject::{Matched, Transform, Trie, collides, has_wildcard, is_subset, is_valid, matches};

const MILLION: usize = 1_000_000;
/// What stands under each subject where there is one value for each.
const ONE: u64 = 1;

/// `s.{0..99}.{0..99}.{0..99}`, in a random order without repetition (a full-period step through 10^6).
fn literal(i: usize) -> String {
    let i = (i * 700_001 + 12_345) % MILLION;
    format!("s.{}.{}.{}", i / 10_000, i / 100 % 100, i % 100)
}

/// The names again, in another random order and one behind the other in memory, so that reading them costs little.
fn shuffled(names: &[String]) -> Vec<String> {
    let mut draw = Draw(11);
    let mut order: Vec<usize> = (0..names.len()).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, draw.below(i as u64 + 1) as usize);
    }
    order.into_iter().map(|i| names[i].clone()).collect()
}

/// 100,000 subscriptions: 70 % literal of three or four tokens, 20 % with `*`, 10 % with `>`.
fn mixed(draw: &mut Draw) -> Trie<u64> {
    let mut trie = Trie::new(7);
    for i in 0..100_000 {
        let n = 3 + draw.below(2) as usize;
        let mut t: Vec<String> = topic(draw, n);
        match i % 10 {
            0..7 => {}
            7 | 8 => t[draw.below(n as u64) as usize] = "*".into(),
            _ => t[n - 1] = ">".into(),
        }
        trie.insert(t.join(".").as_bytes(), None, i).expect("a valid subject");
    }
    trie
}

fn topic(draw: &mut Draw, tokens: usize) -> Vec<String> {
    const WIDTHS: [u64; 4] = [20, 100, 100, 1000];
    const WORDS: [&str; 4] = ["svc", "region", "dev", "m"];
    (0..tokens).map(|i| format!("{}{}", WORDS[i], draw.below(WIDTHS[i]))).collect()
}

fn interest(c: &mut Criterion) {
    let mut draw = Draw(1);
    let trie = mixed(&mut draw);
    let subjects: Vec<Vec<u8>> = (0..200_000)
        .map(|_| {
            let n = 3 + draw.below(2) as usize;
            topic(&mut draw, n).join(".").into_bytes()
        })
        .collect();
    let reached: usize = subjects.iter().map(|s| trie.count(s)).sum();
    println!(
        "mixed 100k: {:.1} B/sub, {} nodes, {:.2} receivers a match",
        trie.heap_bytes() as f64 / 1e5,
        trie.num_nodes(),
        reached as f64 / subjects.len() as f64
    );
    let mut out = Matched::new();
    let mut at = 0;
    let mut next = || {
        at = (at + 1) % subjects.len();
        &subjects[at]
    };
    c.bench_function("match_into, 100k mixed", |b| {
        b.iter(|| {
            trie.match_into(black_box(next()), &mut out);
            out.plain().len()
        })
    });
    c.bench_function("visit, 100k mixed", |b| {
        b.iter(|| {
            let mut n = 0;
            trie.visit(black_box(next()), |_, v| n += v);
            n
        })
    });
    c.bench_function("has_interest, 100k mixed", |b| b.iter(|| trie.has_interest(black_box(next()))));
    c.bench_function("for_each_overlapping, 100k mixed", |b| {
        b.iter(|| {
            let mut n = 0u64;
            trie.for_each_overlapping(black_box(b"svc1.*.dev7.>"), |_, _, v| n += v);
            n
        })
    });
}

fn million(c: &mut Criterion) {
    let names: Vec<String> = (0..MILLION).map(literal).collect();
    c.benchmark_group("million").sample_size(10).bench_function("build, whole", |b| {
        b.iter(|| {
            let mut t = Trie::new(3);
            for n in &names {
                t.insert(n.as_bytes(), None, ONE).expect("a valid subject");
            }
            t.len()
        })
    });
    let mut trie = Trie::new(3);
    for n in &names {
        trie.insert(n.as_bytes(), None, ONE).expect("a valid subject");
    }
    let each = trie.heap_bytes() as f64 / MILLION as f64;
    println!("literal 1M: {each:.1} B/subject");
    assert!(each <= 90.0, "the budget is 90 bytes");
    let mut out = Matched::new();
    let asked = shuffled(&names);
    let mut turn = 0;
    let mut pick = || {
        turn = (turn + 1) % MILLION;
        &asked[turn]
    };
    c.bench_function("match_into, 1M literal", |b| {
        b.iter(|| {
            trie.match_into(black_box(pick().as_bytes()), &mut out);
            out.plain().len()
        })
    });
    c.bench_function("remove and insert, 1M literal", |b| {
        b.iter(|| {
            let s = pick().as_bytes();
            let v = trie.remove(s, None, ONE).expect("all are in it");
            trie.insert(s, None, v).expect("a valid subject")
        })
    });
    c.benchmark_group("million").sample_size(10).bench_function("clone", |b| b.iter(|| trie.clone().len()));
    c.bench_function("one of 100,000 under one subject leaves and comes", |b| {
        let mut wide = Trie::new(3);
        for v in 0..100_000u64 {
            wide.insert(b"news", None, v).expect("a valid subject");
        }
        let mut draw = Draw(5);
        b.iter(|| {
            let v = wide.remove(b"news", None, draw.below(100_000)).expect("all are in it");
            wide.insert(b"news", None, v).expect("a valid subject")
        })
    });
    let mut queues = Trie::new(3);
    for i in 0..1000u64 {
        queues.insert(b"work.*", Some(format!("q{}", i % 100).as_bytes()), i).expect("a valid subject");
    }
    c.bench_function("match_into, 100 queue groups of 10", |b| {
        b.iter(|| {
            queues.match_into(black_box(b"work.7"), &mut out);
            out.groups().len()
        })
    });
}

fn wild(c: &mut Criterion) {
    let names: Vec<String> = (0..MILLION).map(|i| literal(i).replacen("s.", "*.", 1)).collect();
    let mut trie = Trie::new(3);
    for n in &names {
        trie.insert(n.as_bytes(), None, ONE).expect("a valid subject");
    }
    println!("wild 1M: {:.1} B/subject", trie.heap_bytes() as f64 / MILLION as f64);
    let mut out = Matched::new();
    let asked = shuffled(&names);
    let mut turn = 0;
    let mut pick = || {
        turn = (turn + 1) % MILLION;
        &asked[turn]
    };
    c.bench_function("match_into, 1M of *.a.b.c", |b| {
        b.iter(|| {
            trie.match_into(black_box(pick().as_bytes()), &mut out);
            out.plain().len()
        })
    });
    c.bench_function("remove and insert, 1M of *.a.b.c", |b| {
        b.iter(|| {
            let s = pick().as_bytes();
            let v = trie.remove(s, None, ONE).expect("all are in it");
            trie.insert(s, None, v).expect("a valid subject")
        })
    });
}

fn rules(c: &mut Criterion) {
    let s: &[u8] = b"orders.europe.4711.created";
    let p: &[u8] = b"orders.*.4711.>";
    c.bench_function("is_valid, 26 bytes", |b| b.iter(|| is_valid(black_box(s))));
    c.bench_function("has_wildcard, 26 bytes", |b| b.iter(|| has_wildcard(black_box(s))));
    c.bench_function("matches, 26 bytes", |b| b.iter(|| matches(black_box(s), black_box(p))));
    c.bench_function("is_subset, 26 bytes", |b| b.iter(|| is_subset(black_box(s), black_box(p))));
    c.bench_function("collides, 26 bytes", |b| b.iter(|| collides(black_box(s), black_box(p))));
    let t = Transform::new(b"orders.*.*.>", b"shop.{{partition(16,2)}}.$1.$2.>").expect("a valid transform");
    let mut out = Vec::new();
    c.bench_function("transform, partition and two tokens", |b| {
        b.iter(|| {
            t.apply(black_box(s), |_| 0, &mut out);
            out.len()
        })
    });
}

criterion_group!(benches, interest, million, wild, rules);
criterion_main!(benches);
