//! The header block of a message: `NATS/1.0[ status[ text]]` CRLF, `Key: Value` CRLF …, CRLF. A server passes blocks on
//! as they are; these functions look into one or change one where the server itself has a word to say.

/// What every block begins with.
pub const PREFIX: &[u8] = b"NATS/1.0";

/// The key and value lines of a block. Lines without a colon are left out; the status line is none of them.
pub fn lines(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let body = match memchr::memmem::find(block, b"\r\n") {
        Some(i) => &block[i + 2..],
        None => &[],
    };
    Lines(body).filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let (line, rest) = match memchr::memmem::find(self.0, b"\r\n") {
            Some(i) => (&self.0[..i], &self.0[i + 2..]),
            None => (self.0, &[][..]),
        };
        self.0 = rest;
        Some(line)
    }
}

/// Whether a line of the block begins with `key`, be it a whole key or not: a cheap first look.
#[inline]
pub fn holds(block: &[u8], key: &str) -> bool {
    memchr::memchr_iter(b'\n', block).any(|end| block[end + 1..].starts_with(key.as_bytes()))
}

/// The first value of `key` (exact case, as nats-server looks keys up).
pub fn get<'a>(block: &'a [u8], key: &str) -> Option<&'a [u8]> {
    // Most blocks do not hold the key at all: one search over the block settles that.
    memchr::memmem::find(block, key.as_bytes())?;
    lines(block).find(|(k, _)| *k == key.as_bytes()).map(|(_, v)| v)
}

/// Appends `block` with a line `key: value` added at its end; an empty `block` becomes a whole one.
pub fn push_with(out: &mut Vec<u8>, block: &[u8], key: &str, value: &[u8]) {
    match block.strip_suffix(b"\r\n") {
        Some(open) if !open.is_empty() => out.extend_from_slice(open),
        _ => {
            out.extend_from_slice(PREFIX);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends `block` without the lines of `key`. Nothing is appended if only the empty status line would be left.
pub fn push_without(out: &mut Vec<u8>, block: &[u8], key: &str) {
    let status_end = memchr::memmem::find(block, b"\r\n").map_or(block.len(), |i| i + 2);
    let start = out.len();
    out.extend_from_slice(&block[..status_end]);
    let mut kept = false;
    for line in Lines(&block[status_end..]) {
        let is_key = line.get(..key.len()) == Some(key.as_bytes()) && line.get(key.len()) == Some(&b':');
        if is_key || line.is_empty() {
            continue;
        }
        kept = true;
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    if !kept && block[..status_end].trim_ascii() == PREFIX {
        out.truncate(start);
        return;
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] = b"NATS/1.0\r\nFoo: a\r\nfoo:  b \r\nFoo:c\r\nFoobar: d\r\n\r\n";

    #[test]
    fn looks_up_by_exact_case() {
        assert_eq!(get(BLOCK, "Foo"), Some(&b"a"[..]));
        assert_eq!(get(BLOCK, "foo"), Some(&b"b"[..]));
        assert_eq!(get(BLOCK, "Foobar"), Some(&b"d"[..]));
        assert_eq!(get(BLOCK, "bar"), None);
        assert_eq!(get(b"NATS/1.0 503\r\n\r\n", "Foo"), None);
        assert_eq!(lines(BLOCK).count(), 4);
        assert_eq!(lines(b"garbage").count(), 0);
    }

    #[test]
    fn adds_and_removes() {
        let mut v = Vec::new();
        push_with(&mut v, b"", "A", b"1");
        assert_eq!(v, b"NATS/1.0\r\nA: 1\r\n\r\n");
        let mut w = Vec::new();
        push_with(&mut w, &v, "B", b"2");
        assert_eq!(w, b"NATS/1.0\r\nA: 1\r\nB: 2\r\n\r\n");
        let mut x = Vec::new();
        push_without(&mut x, &w, "A");
        assert_eq!(x, b"NATS/1.0\r\nB: 2\r\n\r\n");
        let mut y = Vec::new();
        push_without(&mut y, &x, "B");
        assert!(y.is_empty());
        push_without(&mut y, BLOCK, "Foo");
        assert_eq!(y, b"NATS/1.0\r\nfoo:  b \r\nFoobar: d\r\n\r\n");
    }
}
