//! JSON as the API's peers write it: no spaces, and `<`, `>`, `&` and two line separators escaped.
//!
//! Owns the writer. Clients decode either form; a byte-equal answer is what lets recorded answers serve as tests.

use std::io::Write as _;

use bytes::Bytes;
use serde::Serialize;

/// Room for the answer about a stream or a consumer.
const USUAL: usize = 1024;

/// The JSON of a value.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL);
    serde_json::to_writer(&mut out, value).expect("the API's types have string keys and a Vec takes all");
    // What is escaped stands in strings only, so one look at all of it does for each of them; nearly always there is nothing.
    match next_special(&out, 0) {
        None => out,
        Some(first) => escaped(&out, first),
    }
}

/// The first byte from `at` on that begins something to be escaped, perhaps.
fn next_special(json: &[u8], at: usize) -> Option<usize> {
    let left = &json[at..];
    let one = memchr::memchr3(b'<', b'>', b'&', left);
    // The two separators are E2 80 A8 and E2 80 A9 in UTF-8.
    memchr::memchr(0xe2, &left[..one.unwrap_or(left.len())]).or(one).map(|n| at + n)
}

/// The same JSON with the escapes of the API on top of serde_json's; `first` is from where on there may be some.
fn escaped(json: &[u8], first: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + 64);
    let (mut written, mut at) = (0, Some(first));
    while let Some(special) = at {
        let (code, len) = match json[special] {
            0xe2 if matches!(json.get(special + 1..special + 3), Some([0x80, 0xa8 | 0xa9])) => {
                (0x2000 | u32::from(json[special + 2] & 0x3f), 3)
            }
            0xe2 => {
                at = next_special(json, special + 1);
                continue;
            }
            c => (u32::from(c), 1),
        };
        out.extend_from_slice(&json[written..special]);
        write!(out, "\\u{code:04x}").expect("a Vec takes all");
        written = special + len;
        at = next_special(json, written);
    }
    out.extend_from_slice(&json[written..]);
    out
}

/// As [`to_vec`].
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Bytes {
    to_vec(value).into()
}

/// Appends a JSON string with its quotes, escaped as [`to_vec`] does it, for writers that do without serde.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if text.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&')) {
        out.extend_from_slice(text.as_bytes());
    } else {
        let quoted = to_vec(text);
        out.extend_from_slice(&quoted[1..quoted.len() - 1]);
    }
    out.push(b'"');
}

/// Appends a number in decimal.
pub fn push_number(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(n % 10).expect("a digit");
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specials_are_escaped() {
        let text = "a<b>&c \u{e9}\u{20ac}\u{2028}\u{2029}\u{20ac}>\u{7f} \"q\" \\ \n\t\u{8}\u{c}\u{1}";
        let expected = "\"a\\u003cb\\u003e\\u0026c \u{e9}\u{20ac}\\u2028\\u2029\u{20ac}\\u003e\u{7f} \\\"q\\\" \\\\ \\n\\t\\b\\f\\u0001\"";
        assert_eq!(String::from_utf8(to_vec(text)).unwrap(), expected);
        let mut out = Vec::new();
        push_string(&mut out, text);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut out = Vec::new();
        push_string(&mut out, "s.*");
        assert_eq!(out, b"\"s.*\"");
    }

    #[test]
    fn numbers() {
        for n in [0, 1, 9, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, n);
            assert_eq!(out, n.to_string().as_bytes());
        }
    }
}
