//! Transforms and mappings: what was accepted can be applied to all that its source matches, within bounds, agrees with a
//! naive reading where that is simple, and leads back by its inverse. An input is lines: a source, a destination, and then
//! subjects. As a mapping, the second line and the last ones are its destinations.

use subject::{
    Choice, Destination, Mapping, MappingError, Transform, is_literal, is_valid, matches, tokens,
    transform::{numbered, starred},
};

use super::reaches;
use crate::engine::{about, seen};

/// Runs one input.
pub fn target(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|b| *b == b'\n').take(12).collect();
    let (source, destination) = (lines[0], lines.get(1).copied().unwrap_or_default());
    let subjects = lines.get(2..).unwrap_or_default();
    mapping(source, &lines[1..]);
    for pattern in &lines {
        // A `$` or a call in a pattern is a word like others; `starred` takes it for a wildcard.
        if is_valid(pattern) && !pattern.iter().any(|b| matches!(b, b'$' | b'{')) {
            assert!(tokens(&numbered(pattern)).count() == tokens(pattern).count());
            assert_eq!(starred(&numbered(pattern)), *pattern, "numbered and starred again");
        }
    }
    let transform = match Transform::new(source, destination) {
        Ok(t) => t,
        Err(e) => {
            let text = e.to_string();
            assert!(text.starts_with("invalid "), "{text}");
            return seen("refused", text.bytes().take(60).fold(7, |h, b| (h * 31 + u64::from(b)) % 257));
        }
    };
    if Transform::strict(source, destination).is_ok() {
        seen("strict", about(tokens(destination).count()));
    }
    assert_eq!(transform.destination(), destination);
    let inverse = transform.inverse();
    seen(if inverse.is_some() { "inverse" } else { "no inverse" }, about(tokens(destination).count()));
    for subject in subjects {
        apply(&transform, inverse.as_ref(), subject);
    }
}

fn apply(t: &Transform, inverse: Option<&Transform>, subject: &[u8]) {
    let mut out = b"left from before".to_vec();
    let does = t.apply(subject, |n| n - 1, &mut out);
    assert_eq!(does, reaches(subject, t.source()));
    assert_eq!(does, t.matches(subject));
    if !does {
        assert!(out.is_empty());
        return seen("not applied", 0);
    }
    let calls = tokens(t.destination()).count();
    seen("applied", about(out.len()) * 8 + calls.min(7) as u64);
    let most = t.destination().len() + calls * (2 * subject.len() + 11);
    assert!(out.len() <= most, "T-1: {} bytes from {}", out.len(), subject.len());
    if let Some(expected) = naive(t, subject) {
        assert_eq!(out, expected, "{} as {}", subject.escape_ascii(), t.destination().escape_ascii());
        seen("naive", calls.min(7) as u64);
    }
    one_call(t.destination(), subject, &out);
    if let Some(inverse) = inverse
        && is_literal(subject)
    {
        assert!(
            matches(&out, inverse.source()),
            "the inverse of {t:?} does not match {}",
            out.escape_ascii()
        );
        let mut back = Vec::new();
        assert!(inverse.apply(&out, |_| 0, &mut back));
        assert_eq!(back, subject, "{t:?} leads to {} and back to another", out.escape_ascii());
    }
}

/// What a destination of nothing but words, `$N` and `>` makes of a subject.
fn naive(t: &Transform, subject: &[u8]) -> Option<Vec<u8>> {
    let given: Vec<&[u8]> = tokens(subject).collect();
    let stars: Vec<usize> =
        tokens(t.source()).enumerate().filter(|(_, p)| *p == b"*").map(|(i, _)| i).collect();
    let mut out: Vec<&[u8]> = Vec::new();
    for token in tokens(t.destination()) {
        if token == b">" {
            out.extend(&given[tokens(t.source()).count() - 1..]);
        } else if let Some(n) = token.strip_prefix(b"$") {
            let n: usize = std::str::from_utf8(n).ok()?.parse().ok()?;
            out.push(given[*stars.get(n.checked_sub(1)?)?]);
        } else if token.contains(&b'{') {
            return None;
        } else {
            out.push(token);
        }
    }
    Some(out.join(&b'.'))
}

/// A destination of one call of the first wildcard, of which some law is known.
fn one_call(destination: &[u8], subject: &[u8], out: &[u8]) {
    let Some(call) = destination.strip_prefix(b"{{").and_then(|d| d.strip_suffix(b")}}")) else { return };
    if call.contains(&b'.') || call.contains(&b'{') {
        return;
    }
    let name: Vec<u8> =
        call.split(|b| *b == b'(').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let number = || std::str::from_utf8(out).ok().and_then(|s| s.parse::<u32>().ok());
    match &name[..] {
        b"partition" | b"random" => {
            let arguments = &call[call.iter().position(|b| *b == b'(').map_or(0, |i| i + 1)..];
            let of = arguments.split(|b| *b == b',').next().unwrap_or_default().trim_ascii();
            let of = std::str::from_utf8(of).ok().and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
            let n = number().expect("a partition is a number");
            // Negative counts wrap, as they do on nats-server.
            assert!(of < 0 || i64::from(n) < of.max(1), "{n} of {of}");
            seen("partition", about(of.max(0) as usize));
        }
        b"splitfromleft" | b"splitfromright" | b"slicefromleft" | b"slicefromright" => {
            let joined: Vec<u8> = out.iter().copied().filter(|b| *b != b'.').collect();
            assert!(tokens(subject).any(|t| t == joined), "the pieces make a token");
            seen("pieces", about(tokens(out).count()) * 4 + name.len() as u64 % 4);
        }
        b"left" | b"right" => {
            let is = |t: &[u8]| if name == b"left" { t.starts_with(out) } else { t.ends_with(out) };
            assert!(tokens(subject).any(is), "a part of a token");
            seen("part", about(out.len()));
        }
        _ => {}
    }
}

/// The lines as weighted destinations: each gets the lots of its weight, and nobody gets the rest twice.
fn mapping(source: &[u8], lines: &[&[u8]]) {
    let destinations: Vec<Destination> = lines
        .iter()
        .take(4)
        .filter(|l| !l.is_empty())
        .map(|l| {
            let sum = l.iter().fold(0u8, |n, b| n.wrapping_add(*b));
            // Odd ones for a cluster of their own.
            let cluster = (sum % 5 == 1).then(|| b"c".to_vec());
            Destination { subject: l.to_vec(), weight: if sum % 32 == 0 { 101 } else { sum % 51 }, cluster }
        })
        .collect();
    let mapping = match Mapping::new(source, &destinations) {
        Ok(m) => m,
        Err(e) => {
            let why = match e {
                MappingError::Duplicate(_) => 0,
                MappingError::Weight => 1,
                MappingError::TotalWeight => 2,
                MappingError::Transform(_) => 3,
            };
            let twice = |d: &Destination| destinations.iter().filter(|e| e.subject == d.subject).count() > 1;
            let wrong =
                |d: &Destination| d.weight > 100 || twice(d) || Transform::new(source, &d.subject).is_err();
            let sum = |of: bool| {
                let mine = destinations.iter().filter(|d| d.cluster.is_some() == of);
                mine.map(|d| u32::from(d.weight)).sum::<u32>()
            };
            assert!(
                destinations.iter().any(wrong) || sum(true) > 100 || sum(false) > 100,
                "{e} of {destinations:?}"
            );
            return seen("mapping refused", why);
        }
    };
    let listed = destinations.iter().any(|d| d.subject == source);
    let has_own = destinations.iter().any(|d| d.cluster.is_some());
    for cluster in [&b""[..], b"c", b"d"] {
        let own = cluster == b"c" && has_own;
        let mine = || destinations.iter().filter(move |d| d.cluster.is_some() == own);
        let mut lots = vec![0u8; destinations.len()];
        let mut rest = 0;
        for lot in 0..100 {
            match mapping.choose(cluster, lot) {
                Choice::To(t) => {
                    let at =
                        mine().position(|d| d.subject == t.destination()).expect("one of this cluster's");
                    lots[at] += 1;
                }
                Choice::Keep => {
                    assert!(!listed);
                    seen("kept", 0);
                    rest += 1;
                }
                Choice::Drop => {
                    assert!(listed);
                    seen("dropped", 0);
                    rest += 1;
                }
            }
        }
        for (d, n) in mine().zip(&lots) {
            assert_eq!(d.weight, *n, "T-3: {d:?}");
        }
        assert_eq!(lots.iter().map(|n| u32::from(*n)).sum::<u32>() + rest, 100);
        seen("mapping", about(destinations.len()) * 2 + u64::from(own));
    }
}
