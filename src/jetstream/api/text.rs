//! JSON as the API's peers write it: no spaces, and `<`, `>`, `&` and two line separators escaped.
//!
//! Owns the writer. Clients decode either form; a byte-equal answer is what lets recorded answers serve as tests.

use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Writes strings with the escapes of the API on top of serde_json's.
struct Escaping(CompactFormatter);

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, to: &mut W, fragment: &str) -> io::Result<()> {
        // The two separators are E2 80 A8 and E2 80 A9 in UTF-8; everything else special is one byte.
        let bytes = fragment.as_bytes();
        let (mut written, mut at) = (0, 0);
        while at < bytes.len() {
            let (code, len) = match bytes[at] {
                c @ (b'<' | b'>' | b'&') => (u32::from(c), 1),
                0xe2 if matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])) => {
                    (0x2000 | u32::from(bytes[at + 2] & 0x3f), 3)
                }
                _ => {
                    at += 1;
                    continue;
                }
            };
            to.write_all(&bytes[written..at])?;
            write!(to, "\\u{code:04x}")?;
            at += len;
            written = at;
        }
        to.write_all(&bytes[written..])
    }
}

/// The JSON of a value.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut writer = Serializer::with_formatter(&mut out, Escaping(CompactFormatter));
    value.serialize(&mut writer).expect("the API's types have string keys and a Vec takes all");
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
        let text = "a<b>&c \u{e9}\u{2028}\u{2029}\u{7f} \"q\" \\ \n\t\u{8}\u{c}\u{1}";
        let expected =
            "\"a\\u003cb\\u003e\\u0026c \u{e9}\\u2028\\u2029\u{7f} \\\"q\\\" \\\\ \\n\\t\\b\\f\\u0001\"";
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
