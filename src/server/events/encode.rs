//! Bodies of answers and traces: JSON as Go writes it, compressed if the asker takes that.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

/// How a body is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    /// Not, and nothing is said about it.
    Unasked,
    /// Not, though it was asked for.
    Identity,
    /// gzip.
    Gzip,
    /// The framed format of Snappy, which readers of S2 take too.
    Snappy,
}

impl Coding {
    /// What `Accept-Encoding` asks for; Snappy before gzip.
    pub fn wanted(header: &[u8]) -> Coding {
        let Some(value) = wire::headers::get(header, "Accept-Encoding").filter(|v| !v.is_empty()) else {
            return Coding::Unasked;
        };
        let value = value.to_ascii_lowercase();
        let names = || value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
        if names().any(|n| n == b"snappy" || n == b"s2") {
            Coding::Snappy
        } else if names().any(|n| n == b"gzip") {
            Coding::Gzip
        } else {
            Coding::Identity
        }
    }
    /// A header block that asks for it; empty if it is not asked for.
    pub fn ask(self) -> Vec<u8> {
        self.header("Accept-Encoding")
    }
    /// Header block and body of a message with this content.
    pub fn message(self, json: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
        let packed = match self {
            Coding::Unasked | Coding::Identity => return (self.header("Content-Encoding"), json),
            Coding::Gzip => gzip(&json),
            Coding::Snappy => snappy(&json),
        };
        match packed {
            Some(body) => (self.header("Content-Encoding"), body),
            None => (Coding::Identity.header("Content-Encoding"), json),
        }
    }
    /// A header block that names it; empty if nothing is said about it.
    fn header(self, key: &str) -> Vec<u8> {
        let name = match self {
            Coding::Unasked => return Vec::new(),
            Coding::Identity => "identity",
            Coding::Gzip => "gzip",
            Coding::Snappy => "snappy",
        };
        let mut header = Vec::new();
        wire::headers::push_with(&mut header, b"", key, name.as_bytes());
        header
    }
}

fn gzip(json: &[u8]) -> Option<Vec<u8>> {
    let mut w = GzEncoder::new(Vec::new(), Compression::default());
    w.write_all(json).ok()?;
    w.finish().ok()
}

fn snappy(json: &[u8]) -> Option<Vec<u8>> {
    let mut w = snap::write::FrameEncoder::new(Vec::new());
    w.write_all(json).ok()?;
    w.into_inner().ok()
}

/// The text of a value; `<`, `>` and `&` are escaped within strings, as Go does.
pub(super) fn json(v: &Value) -> Vec<u8> {
    let plain = v.to_string().into_bytes();
    if !plain.iter().any(|b| matches!(b, b'<' | b'>' | b'&')) {
        return plain;
    }
    // Outside of strings JSON has none of them.
    let mut out = Vec::with_capacity(plain.len() + 32);
    for b in plain {
        match b {
            b'<' => out.extend_from_slice(b"\\u003c"),
            b'>' => out.extend_from_slice(b"\\u003e"),
            b'&' => out.extend_from_slice(b"\\u0026"),
            b => out.push(b),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn encodings_are_chosen_and_can_be_read() {
        for (asks, coding) in [
            ("", Coding::Unasked),
            ("Accept-Encoding: gzip", Coding::Gzip),
            ("Accept-Encoding: GZIP", Coding::Gzip),
            ("Accept-Encoding: gzip, snappy", Coding::Snappy),
            ("Accept-Encoding: S2", Coding::Snappy),
            ("Accept-Encoding: br", Coding::Identity),
            ("Accept-Encoding:", Coding::Unasked),
        ] {
            let block = format!("NATS/1.0\r\n{asks}\r\n\r\n");
            assert_eq!(Coding::wanted(block.as_bytes()), coding, "{asks}");
            assert_eq!(Coding::wanted(&coding.ask()), coding);
        }
        let body = b"{\"a\":1}".repeat(1000);
        let (h, packed) = Coding::Gzip.message(body.clone());
        assert_eq!(h, b"NATS/1.0\r\nContent-Encoding: gzip\r\n\r\n");
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
        assert!(back == body && packed.len() < body.len());
        let (h, packed) = Coding::Snappy.message(body.clone());
        assert_eq!(h, b"NATS/1.0\r\nContent-Encoding: snappy\r\n\r\n");
        assert!(packed.starts_with(b"\xff\x06\x00\x00sNaPpY"));
        back.clear();
        snap::read::FrameDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
        assert!(back == body && packed.len() < body.len());
        assert_eq!(Coding::Identity.message(body.clone()).1, body);
        assert_eq!(Coding::Unasked.message(body.clone()), (Vec::new(), body));
    }

    #[test]
    fn text_is_escaped_as_go_does() {
        let v = serde_json::json!({"a": "<b>&c", "d": [1, null]});
        assert_eq!(json(&v), br#"{"a":"\u003cb\u003e\u0026c","d":[1,null]}"#);
        assert_eq!(serde_json::from_slice::<Value>(&json(&v)).unwrap(), v);
    }
}
