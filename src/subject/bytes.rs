//! Short byte strings without calls into libc: search, comparison and reads, eight bytes at a time.
//!
//! Subjects are some tens of bytes and tokens fewer: calls into libc, which go through an indirect jump, cost as much
//! as the work itself (measured in docs/design/0003-interest.md). Does not own any rule about subjects.

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The 8 bytes at `at`, little endian. `at + 8 <= b.len()`.
#[inline(always)]
pub(crate) fn word(b: &[u8], at: usize) -> u64 {
    let mut w = [0; 8];
    w.copy_from_slice(&b[at..at + 8]);
    u64::from_le_bytes(w)
}

/// The 4 bytes at `at`, little endian. `at + 4 <= b.len()`.
#[inline(always)]
pub(crate) fn half(b: &[u8], at: usize) -> u64 {
    let mut w = [0; 4];
    w.copy_from_slice(&b[at..at + 4]);
    u64::from(u32::from_le_bytes(w))
}

/// Marks with 0x80 the zero bytes of `x`. The lowest mark is always right, marks above it may be false.
#[inline(always)]
fn zeros(x: u64) -> u64 {
    x.wrapping_sub(LOW) & !x & HIGH
}

/// Marks with 0x80 exactly those bytes of `w` that equal `byte`, without the false marks of the shorter formula.
#[inline(always)]
fn equal(w: u64, byte: u8) -> u64 {
    let x = w ^ (LOW * byte as u64);
    !(((x & !HIGH).wrapping_add(!HIGH)) | x) & HIGH
}

/// The position of the first `.` at or after `from`, or the length.
#[inline]
pub(crate) fn find_dot(b: &[u8], from: usize) -> usize {
    let mut i = from;
    while i + 8 <= b.len() {
        let hit = zeros(word(b, i) ^ (LOW * b'.' as u64));
        if hit != 0 {
            return i + (hit.trailing_zeros() / 8) as usize;
        }
        i += 8;
    }
    while i < b.len() && b[i] != b'.' {
        i += 1;
    }
    i
}

/// Whether a `.` stands first, last, or beside another one; an empty string counts as one empty token.
#[inline]
pub(crate) fn has_empty_token(b: &[u8]) -> bool {
    let n = b.len();
    if n == 0 || b[0] == b'.' || b[n - 1] == b'.' {
        return true;
    }
    let mut i = 0;
    // Words overlap by one byte, so that a pair of dots is always whole in some word.
    while i + 8 <= n {
        let dots = equal(word(b, i), b'.');
        if dots & (dots >> 8) != 0 {
            return true;
        }
        i += 7;
    }
    while i + 1 < n {
        if b[i] == b'.' && b[i + 1] == b'.' {
            return true;
        }
        i += 1;
    }
    false
}

/// Whether one of two bytes is in `b`.
#[inline]
pub(crate) fn has_any(b: &[u8], x: u8, y: u8) -> bool {
    let hits = |w: u64| zeros(w ^ (LOW * x as u64)) | zeros(w ^ (LOW * y as u64));
    let n = b.len();
    if n < 8 {
        return b.iter().any(|&c| c == x || c == y);
    }
    let mut i = 0;
    while i + 8 <= n {
        if hits(word(b, i)) != 0 {
            return true;
        }
        i += 8;
    }
    hits(word(b, n - 8)) != 0
}

/// Equality of two short strings.
#[inline]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let n = a.len();
    if n != b.len() {
        return false;
    }
    if n >= 8 {
        let mut i = 0;
        while i + 8 <= n {
            if word(a, i) != word(b, i) {
                return false;
            }
            i += 8;
        }
        return word(a, n - 8) == word(b, n - 8);
    }
    if n >= 4 {
        return half(a, 0) == half(b, 0) && half(a, n - 4) == half(b, n - 4);
    }
    (0..n).all(|i| a[i] == b[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_the_naive_forms_say(a in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'/'), Just(0xae), any::<u8>()], 0..40),
                                  b in proptest::collection::vec(prop_oneof![Just(b'.'), any::<u8>()], 0..40), from in 0usize..40) {
            let from = from.min(a.len());
            let naive = a[from..].iter().position(|&c| c == b'.').map_or(a.len(), |p| p + from);
            prop_assert_eq!(find_dot(&a, from), naive);
            prop_assert_eq!(has_empty_token(&a), a.split(|&c| c == b'.').any(<[u8]>::is_empty));
            prop_assert_eq!(has_any(&a, b'.', 0xae), a.contains(&b'.') || a.contains(&0xae));
            prop_assert_eq!(same(&a, &b), a == b);
            let mut c = a.clone();
            prop_assert!(same(&a, &c));
            if let Some(last) = c.get_mut(from.min(a.len().saturating_sub(1))) {
                *last ^= 1;
                prop_assert!(!same(&a, &c));
            }
        }
    }
}
