//! What this crate needs to know of subjects: tokens, validity, subset and overlap of patterns.

/// The tokens of a subject, empty ones included.
pub(super) fn tokens(subject: &[u8]) -> impl Iterator<Item = &[u8]> {
    subject.split(|b| *b == b'.')
}

/// Whether a token is missing: an empty subject, a dot at either end, or two in a row.
pub(super) fn has_empty_token(subject: &[u8]) -> bool {
    let mut previous = b'.';
    for &b in subject {
        if b == b'.' && previous == b'.' {
            return true;
        }
        previous = b;
    }
    previous == b'.'
}

/// Whether `subject` may stand in a permission: no empty token, no white space, `>` at the end only.
pub(super) fn is_valid(subject: &[u8]) -> bool {
    if has_empty_token(subject) || subject.iter().any(|b| b.is_ascii_whitespace()) {
        return false;
    }
    let mut rest = tokens(subject).skip_while(|t| *t != b">");
    rest.next().is_none() || rest.next().is_none()
}

/// Whether any token is `*` or the last one is `>`.
pub(super) fn has_wildcard(subject: &[u8]) -> bool {
    ends_open(subject) || tokens(subject).any(|t| t == b"*")
}

/// Whether the last token is `>`.
pub(super) fn ends_open(subject: &[u8]) -> bool {
    matches!(subject, [b'>'] | [.., b'.', b'>'])
}

/// Whether every subject that `narrow` matches is matched by `wide`. A queue name need not be a subject: an empty token of
/// it is matched by `>` behind another one only, as nats-server has it.
pub(super) fn is_subset(narrow: &[u8], wide: &[u8]) -> bool {
    let mut narrow = tokens(narrow);
    for w in tokens(wide) {
        let Some(n) = narrow.next() else { return false };
        match w {
            b">" => return true,
            b"*" if n != b">" && !n.is_empty() => {}
            _ if n == w && n != b"*" => {}
            _ => return false,
        }
    }
    narrow.next().is_none()
}

/// Whether some subject is matched by both patterns.
pub(super) fn collides(a: &[u8], b: &[u8]) -> bool {
    let (mut a, mut b) = (tokens(a), tokens(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(x), Some(y)) if x == b">" || y == b">" => return true,
            (Some(x), Some(y)) if x == y || x == b"*" || y == b"*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn validity() {
        for ok in ["a", "a.b", "*", ">", "a.*.>", "a.b>", "q>x", "$SYS.>", "a.>b"] {
            assert!(is_valid(ok.as_bytes()), "{ok}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a.>.b", ">.a", "a b", " a", "a\t", "a.>.>"] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
    }

    fn pattern() -> impl Strategy<Value = String> {
        let token = prop_oneof![3 => Just("a"), 3 => Just("b"), 2 => Just("*")];
        (proptest::collection::vec(token, 1..4), any::<bool>()).prop_map(|(mut t, open)| {
            if open {
                *t.last_mut().expect("one token at least") = ">";
            }
            t.join(".")
        })
    }

    /// Every subject of up to four tokens over {a, b, c}; `c` stands for all tokens that no pattern names.
    fn world() -> Vec<String> {
        let mut all: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let mut last = all.clone();
        for _ in 0..3 {
            last = last.iter().flat_map(|s| ["a", "b", "c"].map(|t| format!("{s}.{t}"))).collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    fn matches(subject: &str, pattern: &str) -> bool {
        let (s, p): (Vec<_>, Vec<_>) = (subject.split('.').collect(), pattern.split('.').collect());
        match p.last() {
            Some(&">") => {
                s.len() >= p.len() && p[..p.len() - 1].iter().zip(&s).all(|(p, s)| *p == "*" || p == s)
            }
            _ => s.len() == p.len() && p.iter().zip(&s).all(|(p, s)| *p == "*" || p == s),
        }
    }

    proptest! {
        #[test]
        fn subset_and_overlap_agree_with_enumeration(a in pattern(), b in pattern()) {
            let world = world();
            let both = world.iter().any(|s| matches(s, &a) && matches(s, &b));
            let within = world.iter().all(|s| !matches(s, &a) || matches(s, &b));
            prop_assert_eq!(collides(a.as_bytes(), b.as_bytes()), both);
            prop_assert_eq!(is_subset(a.as_bytes(), b.as_bytes()), within);
            prop_assert_eq!(has_wildcard(a.as_bytes()), a.contains(['*', '>']));
        }

        #[test]
        fn bytes_never_panic(a in proptest::collection::vec(any::<u8>(), 0..20), b in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'>'), Just(b'*'), any::<u8>()], 0..20)) {
            let _ = (is_valid(&a), is_valid(&b), is_subset(&a, &b), collides(&a, &b), has_wildcard(&b));
        }
    }
}
