//! Subject filters, as far as an index needs them.
//!
//! Owns matching one subject against one filter and the literal prefix that a sorted index can seek to. Does not
//! check that a filter is well formed; one that is not matches as its tokens say.

/// Whether `subject` (literal) matches `filter`, in which `*` stands for one token and a last `>` for one or more.
pub(crate) fn matches(filter: &[u8], subject: &[u8]) -> bool {
    let (mut f, mut s) = (filter, subject);
    loop {
        let (ft, fr) = token(f);
        if ft == b">" && fr.is_none() {
            return true;
        }
        let (st, sr) = token(s);
        if ft != b"*" && ft != st {
            return false;
        }
        match (fr, sr) {
            (None, None) => return true,
            (Some(a), Some(b)) => (f, s) = (a, b),
            _ => return false,
        }
    }
}

fn token(b: &[u8]) -> (&[u8], Option<&[u8]>) {
    match b.iter().position(|c| *c == b'.') {
        Some(i) => (&b[..i], Some(&b[i + 1..])),
        None => (b, None),
    }
}

/// Whether the filter is one subject.
pub(crate) fn is_literal(filter: &[u8]) -> bool {
    prefix(filter).len() == filter.len()
}

/// Whether the filter matches everything.
pub(crate) fn is_all(filter: &[u8]) -> bool {
    filter.is_empty() || filter == b">"
}

/// The longest literal start that all subjects of the filter share.
pub(crate) fn prefix(filter: &[u8]) -> &[u8] {
    let mut at = 0;
    loop {
        let (t, rest) = token(&filter[at..]);
        if t == b"*" || (t == b">" && rest.is_none()) {
            return &filter[..at];
        }
        match rest {
            Some(_) => at += t.len() + 1,
            None => return filter,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_wildcards() {
        for (f, s, want) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.*.c", "a.b.c", true),
            ("a.>", "a", false),
            ("a.>", "a.b.c", true),
            (">", "a", true),
            ("*", "a", true),
            ("*", "a.b", false),
            ("a.b", "a", false),
            ("a", "a.b", false),
        ] {
            assert_eq!(matches(f.as_bytes(), s.as_bytes()), want, "{f} {s}");
        }
        assert_eq!(prefix(b"a.b.*.c"), b"a.b.");
        assert_eq!(prefix(b"a.b"), b"a.b");
        assert_eq!(prefix(b">"), b"");
        assert!(is_literal(b"a.b") && !is_literal(b"a.>") && is_all(b">"));
        assert!(is_literal(b"a.*b"), "a star inside a token is an ordinary byte");
    }
}
