//! What a subject is, and how two of them relate: the token rules, wildcards, subsets and overlaps.
//!
//! A subject is one or more tokens joined by `.`, none of them empty. In a subscription subject (a pattern) the token
//! `*` stands for exactly one token and a last token `>` for one or more; a wildcard byte beside other bytes of its
//! token is an ordinary byte. A publish subject has no wildcards: nats-server accepts `*` and `>` in one unless the
//! client is pedantic, and then they are ordinary tokens that only wildcards match.
//!
//! Facts observed on nats-server 2.15.1: SUB and mapping sources refuse only wrong structure and the space; tab, form
//! feed, NUL and bytes that are no UTF-8 pass. Stricter paths (stream configuration) use [`is_strict`]. A queue name
//! is any non-empty run of bytes that the protocol line can carry.

use crate::bytes::{find_dot, has_any, has_empty_token, same};

/// The tokens of a subject, without allocation; see [`tokens`].
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    subject: &'a [u8],
    /// Where the next token starts; beyond the end when there is none.
    at: usize,
}

/// The tokens of `subject`, as `split(b'.')` would give them: `a..b` has an empty one, and so has the empty subject.
#[inline]
pub fn tokens(subject: &[u8]) -> Tokens<'_> {
    Tokens { subject, at: 0 }
}

impl<'a> Tokens<'a> {
    /// What has not been taken yet, dots included.
    pub fn rest(&self) -> &'a [u8] {
        self.subject.get(self.at..).unwrap_or_default()
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.at > self.subject.len() {
            return None;
        }
        let end = find_dot(self.subject, self.at);
        let token = &self.subject[self.at..end];
        self.at = end + 1;
        Some(token)
    }
}

/// Whether a token is `*`.
#[inline(always)]
pub(crate) fn is_star(token: &[u8]) -> bool {
    matches!(token, b"*")
}

/// Whether a token is `>`.
#[inline(always)]
pub(crate) fn is_tail(token: &[u8]) -> bool {
    matches!(token, b">")
}

/// Whether `subject` may be subscribed to: tokens not empty, no space, `>` only as the last token.
pub fn is_valid(subject: &[u8]) -> bool {
    if has_empty_token(subject) {
        return false;
    }
    if !has_any(subject, b'>', b' ') {
        return true;
    }
    let mut open = true;
    for token in tokens(subject) {
        if !open || has_any(token, b' ', b' ') {
            return false;
        }
        open = !is_tail(token);
    }
    true
}

/// Whether `subject` is valid and has no wildcard token: what a pedantic client may publish to.
pub fn is_literal(subject: &[u8]) -> bool {
    is_valid(subject) && !has_wildcard(subject)
}

/// Whether `subject` is valid and also free of white space and NUL, and UTF-8: the rule for names that are stored.
pub fn is_strict(subject: &[u8]) -> bool {
    let forbidden = |b: &u8| matches!(b, 0 | b'\t' | b'\n' | 0x0c | b'\r' | b' ');
    is_valid(subject) && !subject.iter().any(forbidden) && std::str::from_utf8(subject).is_ok()
}

/// Whether `queue` may name a queue group. nats-server asks only that it is not empty.
pub fn valid_queue(queue: &[u8]) -> bool {
    !queue.is_empty() && !queue.iter().any(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
}

/// Whether any token of `subject` is `*` or `>`.
pub fn has_wildcard(subject: &[u8]) -> bool {
    // Most subjects hold neither byte at all, which a pass over words tells.
    has_any(subject, b'*', b'>') && tokens(subject).any(|t| is_star(t) || is_tail(t))
}

/// Whether a publish to `subject` reaches a subscription to `pattern`. Every token of `subject` is literal, also `*`.
pub fn matches(subject: &[u8], pattern: &[u8]) -> bool {
    if has_empty_token(subject) {
        return false;
    }
    let (mut s, mut p) = (tokens(subject), tokens(pattern));
    loop {
        match (s.next(), p.next()) {
            (None, None) => return true,
            (Some(_), Some(t)) if is_tail(t) => return true,
            (Some(a), Some(t)) if is_star(t) || same(a, t) && !is_tail(a) => {}
            _ => return false,
        }
    }
}

/// Whether all that the pattern `subject` matches is matched by the pattern `filter` too. Both are valid.
pub fn is_subset(subject: &[u8], filter: &[u8]) -> bool {
    let (mut s, mut f) = (tokens(subject), tokens(filter));
    loop {
        match (s.next(), f.next()) {
            (None, None) => return true,
            (Some(_), Some(t)) if is_tail(t) => return true,
            (Some(a), Some(_)) if is_tail(a) => return false,
            (Some(a), Some(t)) if is_star(t) || same(a, t) => {}
            _ => return false,
        }
    }
}

/// Whether some literal subject is matched by both patterns. Both are valid.
pub fn collides(a: &[u8], b: &[u8]) -> bool {
    let (mut a, mut b) = (tokens(a), tokens(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(x), Some(y)) if is_tail(x) || is_tail(y) => return true,
            (Some(x), Some(y)) if is_star(x) || is_star(y) || same(x, y) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn structure() {
        let ok: [&[u8]; 12] = [
            b"a",
            b"a.b",
            b"*",
            b">",
            b"a.*.>",
            b"foo.*x",
            b"f>o",
            b"$SYS.REQ",
            b"f\0o",
            b"f\xffo",
            b"a\tb",
            b"a.>x.b",
        ];
        for s in ok {
            assert!(is_valid(s), "{s:?}");
        }
        let bad: [&[u8]; 9] =
            [b"", b".", b"a.", b".a", b"a..b", b"a.>.b", b">.a", b"a b", b"aaaaaaaaaaaaaaa..b"];
        for s in bad {
            assert!(!is_valid(s) && !is_literal(s) && !is_strict(s), "{s:?}");
        }
        let wild: [&[u8]; 5] = [b"*", b">", b"a.*", b"*.a", b"a.b.>"];
        for s in wild {
            assert!(has_wildcard(s) && is_valid(s) && !is_literal(s), "{s:?}");
        }
        let plain: [&[u8]; 4] = [b"a*", b">>", b"a.>b", b"a.**"];
        for s in plain {
            assert!(!has_wildcard(s) && is_literal(s), "{s:?}");
        }
        let loose: [&[u8]; 4] = [b"f\0o", b"f\xffo", b"a\tb", b"a\x0cb"];
        for s in loose {
            assert!(is_valid(s) && !is_strict(s), "{s:?}");
        }
        assert!(is_strict(b"a.*.>") && is_strict("größe.>".as_bytes()));
        assert!(valid_queue(b"q..x") && valid_queue(b"*") && !valid_queue(b"") && !valid_queue(b"a b"));
    }

    /// (publish subject, pattern, reaches), as nats-server 2.15.1 answers.
    #[test]
    fn wildcards_in_a_publish_subject_are_literal() {
        let table: [(&[u8], &[u8], bool); 14] = [
            (b"foo.*", b">", true),
            (b"foo.*", b"foo.*", true),
            (b"foo.*", b"foo.>", true),
            (b"foo.*", b"foo.bar", false),
            (b"*", b"*", true),
            (b"*", b"foo", false),
            (b">", b"*", true),
            (b">", b">", true),
            (b"foo.*x", b"foo.*x", true),
            (b"foo.ax", b"foo.*x", false),
            (b"foo", b"foo.>", false),
            (b"foo..bar", b">", false),
            (b"foo.", b"foo.>", false),
            (b"", b">", false),
        ];
        for (s, p, want) in table {
            assert_eq!(matches(s, p), want, "{s:?} {p:?}");
        }
    }

    fn pattern() -> impl Strategy<Value = Vec<u8>> {
        (proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("*")], 0..4), any::<bool>())
            .prop_filter_map("empty", |(mut t, tail)| {
                if tail {
                    t.push(">");
                }
                (!t.is_empty()).then(|| t.join(".").into_bytes())
            })
    }

    /// All literal subjects of up to five tokens over a, b and a token that no pattern names.
    fn universe() -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = vec![];
        let mut last: Vec<Vec<u8>> = vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
        for _ in 0..5 {
            all.extend(last.iter().cloned());
            last = last
                .iter()
                .flat_map(|s| ["a", "b", "c"].map(|t| [s.as_slice(), b".", t.as_bytes()].concat()))
                .collect();
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn subset_and_overlap_by_brute_force(x in pattern(), y in pattern()) {
            let all = universe();
            let both = all.iter().any(|s| matches(s, &x) && matches(s, &y));
            let within = all.iter().all(|s| !matches(s, &x) || matches(s, &y));
            prop_assert_eq!(collides(&x, &y), both);
            prop_assert_eq!(collides(&y, &x), both);
            prop_assert_eq!(is_subset(&x, &y), within);
        }

        #[test]
        fn random_bytes_never_panic(a in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'*'), Just(b'>'), any::<u8>()], 0..40),
                                    b in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'*'), Just(b'>'), any::<u8>()], 0..40)) {
            prop_assert_eq!(tokens(&a).collect::<Vec<_>>(), a.split(|&c| c == b'.').collect::<Vec<_>>());
            if is_valid(&a) && is_valid(&b) {
                prop_assert_eq!(is_subset(&a, &b) && is_subset(&b, &a), a == b);
                if is_literal(&a) {
                    prop_assert_eq!(matches(&a, &b), is_subset(&a, &b));
                    prop_assert_eq!(matches(&a, &b), collides(&a, &b));
                }
            }
            let _ = (is_strict(&a), is_subset(&a, &b), collides(&a, &b), matches(&a, &b), has_wildcard(&a));
        }
    }
}
