//! What is fuzzed. Each target is a plain function of an input's bytes, which panics if a property does not hold, so that
//! any fuzzer can run it.

pub mod client;
pub mod conf;
pub mod connect;
pub mod connection;
pub mod headers;
pub mod numbers;
pub mod options;
pub mod peer;
pub mod permissions;
pub mod proxy;
pub mod route;
pub mod subjects;
pub mod transforms;
pub mod websocket;

use env::rng::{Fnv, Rng};

/// A stream of draws that belongs to the input: how it is cut follows from what it is, so that a file alone shows a bug.
fn draws(data: &[u8]) -> Rng {
    let mut hash = Fnv::new();
    hash.write(data);
    Rng::derived(hash.0, "fuzz: cuts")
}

/// Places at which an input is cut, in order, the end among them: every byte alone, two halves, or a few pieces.
fn cuts(rng: &mut Rng, len: usize) -> Vec<usize> {
    let mut at: Vec<usize> = match rng.below(4) {
        0 => (1..=len).collect(),
        1 => vec![rng.below(len as u64 + 1) as usize],
        _ => (0..rng.below(8)).map(|_| rng.below(len as u64 + 1) as usize).collect(),
    };
    at.push(len);
    at.sort_unstable();
    at
}

/// Whether a publish to `subject` reaches a subscription to the valid `pattern`, by the book.
fn reaches(subject: &[u8], pattern: &[u8]) -> bool {
    let s: Vec<&[u8]> = subject.split(|b| *b == b'.').collect();
    let p: Vec<&[u8]> = pattern.split(|b| *b == b'.').collect();
    let (fixed, open) = match p.split_last() {
        Some((&b">", fixed)) => (fixed, true),
        _ => (&p[..], false),
    };
    let long_enough = if open { s.len() > fixed.len() } else { s.len() == fixed.len() };
    !s.contains(&&b""[..]) && long_enough && fixed.iter().zip(&s).all(|(p, s)| *p == b"*" || p == s)
}

/// Whether bytes are a subject that may be subscribed to, by the book.
fn well_formed(subject: &[u8]) -> bool {
    let t: Vec<&[u8]> = subject.split(|b| *b == b'.').collect();
    let tail = t.iter().position(|t| *t == b">");
    !t.contains(&&b""[..]) && !subject.contains(&b' ') && tail.is_none_or(|i| i + 1 == t.len())
}
