//! Header blocks: looking into one and changing one agree with a naive reading. An input is a key, a value and a block,
//! a line each; the block goes on to the end.

use wire::headers::{PREFIX, get, holds, lines, push_with, push_without};

use crate::engine::{about, seen};

/// Runs one input.
pub fn target(data: &[u8]) {
    let mut parts = data.splitn(3, |b| *b == b'\n');
    let (key, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let block = parts.next().unwrap_or_default();
    let Ok(key) = std::str::from_utf8(key) else { return seen("key", 0) };
    let naive = naive_lines(block);
    assert_eq!(lines(block).map(|(k, v)| (k.to_vec(), v.to_vec())).collect::<Vec<_>>(), naive);
    let first = naive.iter().find(|(k, _)| k == key.as_bytes()).map(|(_, v)| v.as_slice());
    assert_eq!(get(block, key), first);
    let begun = block.split(|b| *b == b'\n').skip(1).any(|line| line.starts_with(key.as_bytes()));
    assert_eq!(holds(block, key), begun);
    seen(if first.is_some() { "found" } else { "not found" }, about(naive.len()));

    // What the server changes is a block that it has let in, and keys and values of its own.
    let well_formed = block.is_empty() || block.starts_with(PREFIX) && ends_at_its_end(block);
    let own = !key.is_empty() && !key.contains([':', '\r', '\n']);
    if !well_formed || !own || value.contains(&b'\r') {
        let mut out = Vec::new();
        push_with(&mut out, block, key, value);
        assert!(out.ends_with(b"\r\n\r\n"));
        push_without(&mut out, block, key);
        return seen("malformed", u64::from(well_formed) * 2 + u64::from(own));
    }
    seen("well formed", about(naive.len()));
    let mut with = b"before".to_vec();
    push_with(&mut with, block, key, value);
    let with = with.strip_prefix(b"before").expect("it appends");
    let mut expected = naive.clone();
    expected.push((key.as_bytes().to_vec(), value.trim_ascii().to_vec()));
    assert_eq!(naive_lines(with), expected, "the added line comes last and the others stay");
    assert!(with.starts_with(PREFIX) && ends_at_its_end(with));
    if !block.is_empty() {
        assert!(with.starts_with(&block[..block.len() - 2]), "the block itself is not changed");
    }
    seen("added", about(value.len()));

    let mut without = b"before".to_vec();
    push_without(&mut without, with, key);
    let without = without.strip_prefix(b"before").expect("it appends");
    expected.retain(|(k, _)| k != key.as_bytes());
    assert_eq!(naive_lines(without), expected, "no line of the key is left and the others stay");
    if without.is_empty() {
        assert!(expected.is_empty());
        seen("emptied", 0);
    } else {
        assert!(ends_at_its_end(without));
        assert_eq!(status(without), status(with), "the status line stays");
        assert_eq!(get(without, key), None);
        seen("removed", about(expected.len()));
    }
}

fn status(block: &[u8]) -> &[u8] {
    &block[..block.windows(2).position(|w| w == b"\r\n").unwrap_or(block.len())]
}

/// Whether the first empty line is the end, and there is one.
fn ends_at_its_end(block: &[u8]) -> bool {
    block.windows(4).position(|w| w == b"\r\n\r\n").is_some_and(|i| i + 4 == block.len())
}

fn naive_lines(block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut line, mut all) = (Vec::new(), Vec::new());
    let mut i = 0;
    while i < block.len() {
        if block[i..].starts_with(b"\r\n") {
            all.push(std::mem::take(&mut line));
            i += 2;
        } else {
            line.push(block[i]);
            i += 1;
        }
    }
    // The status line ends, or there are no lines at all.
    let ended = !all.is_empty();
    all.push(line);
    all.into_iter()
        .skip(1)
        .filter(|_| ended)
        .filter_map(|l| {
            let colon = l.iter().position(|b| *b == b':')?;
            Some((l[..colon].to_vec(), l[colon + 1..].trim_ascii().to_vec()))
        })
        .collect()
}
