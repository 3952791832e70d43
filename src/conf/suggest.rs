//! The known key that a mistyped one was probably meant to be.

/// The longest key worth comparing; a longer one is no typing mistake.
const LONGEST: usize = 64;

/// The entry of `known` nearest to `key`, when it is near enough to be meant: at most one edit for each three
/// characters, and at least one. Swapped neighbours count as one edit; case, `_` and `-` do not count.
pub fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |s: &str| -> Vec<char> {
        s.chars().filter(|c| *c != '_' && *c != '-').map(|c| c.to_ascii_lowercase()).collect()
    };
    if key.len() > LONGEST {
        return None;
    }
    let key = plain(key);
    let limit = (key.len() / 3).max(1);
    known
        .iter()
        .map(|k| (distance(&key, &plain(k)), *k))
        .filter(|(d, k)| *d <= limit && *d < k.len())
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = ["port", "host", "max_payload", "max_pending", "jetstream", "server_name"];
        for (typed, meant) in [
            ("prot", Some("port")),
            ("maxpayload", Some("max_payload")),
            ("MAX_PAYLOD", Some("max_payload")),
            ("jetsream", Some("jetstream")),
            ("servername", Some("server_name")),
            ("zzz", None),
            ("", None),
            ("an_entirely_different_key", None),
        ] {
            assert_eq!(nearest(typed, &known), meant, "{typed}");
        }
    }

    #[test]
    fn distance_counts_a_swap_as_one_edit() {
        let d = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(d("ab", "ba"), 1);
        assert_eq!(d("", "abc"), 3);
        assert_eq!(d("kitten", "sitting"), 3);
    }
}
