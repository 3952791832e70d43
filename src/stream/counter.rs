//! Counters: messages that are increments of an integer of any size.
//!
//! Owns the arithmetic and the forms: the body `{"val":"…"}` and the header that says what came from which source. Does not look up
//! what a counter stands at.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use serde::Deserialize;

use crate::errors::{self, ApiError};
use crate::headers;

/// By stream and subject, what a source's counter stood at.
type Sources = BTreeMap<String, BTreeMap<String, String>>;

/// What a counter stands at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counter {
    pub total: BigInt,
    pub sources: Sources,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    val: String,
}

fn broken() -> ApiError {
    errors::MESSAGE_COUNTER_BROKEN.error()
}

/// A decimal integer with an optional sign, and nothing else.
pub(crate) fn integer(text: &[u8]) -> Option<BigInt> {
    let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    BigInt::parse_bytes(text, 10)
}

fn value(body: &[u8]) -> Result<BigInt, ApiError> {
    let body: Body = serde_json::from_slice(body).map_err(|_| broken())?;
    Ok(integer(body.val.as_bytes()).unwrap_or_default())
}

impl Counter {
    /// What a stored message says.
    pub fn read(block: &[u8], body: &[u8]) -> Result<Counter, ApiError> {
        let sources = match headers::get(block, headers::COUNTER_SOURCES) {
            Some(text) if !text.is_empty() => serde_json::from_slice(text).map_err(|_| broken())?,
            _ => Sources::default(),
        };
        Ok(Counter { total: value(body)?, sources })
    }

    /// Adds what a client asks for.
    pub fn add(&mut self, increment: &BigInt) {
        self.total += increment;
    }

    /// Adds what has changed at a source since this counter last heard of it: `from` is the value of its `Nats-Stream-Source`, `body` what
    /// its counter stands at. Returns that change.
    pub fn source(&mut self, from: &[u8], subject: &[u8], body: &[u8]) -> Result<BigInt, ApiError> {
        let now = value(body)?;
        let text = String::from_utf8_lossy(from);
        let mut fields = text.split(' ');
        let stream = fields.next().unwrap_or_default().to_owned();
        let subject = match fields.nth(3) {
            Some(origin) => origin.to_owned(),
            None => String::from_utf8_lossy(subject).into_owned(),
        };
        let stood = self.sources.entry(stream).or_default().insert(subject, now.to_string());
        let before = stood.and_then(|s| integer(s.as_bytes())).unwrap_or_default();
        let change = now - before;
        self.total += &change;
        Ok(change)
    }

    /// The body of the message that stores it.
    pub fn body(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(br#"{"val":""#);
        out.extend_from_slice(self.total.to_string().as_bytes());
        out.extend_from_slice(br#""}"#);
    }

    /// The header that says what came from where; `None` if nothing came from anywhere.
    pub fn sources_header(&self) -> Option<String> {
        if self.sources.is_empty() {
            return None;
        }
        serde_json::to_string(&self.sources).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        for (text, ok) in [
            ("5", true),
            ("-5", true),
            ("+5", true),
            ("", false),
            ("-", false),
            ("1_0", false),
            ("1.0", false),
            (" 1", false),
        ] {
            assert_eq!(integer(text.as_bytes()).is_some(), ok, "{text}");
        }
    }

    #[test]
    fn increments_add_up_and_sources_count_once() {
        let mut c = Counter::read(b"", br#"{"val":"99999999999999999999999999"}"#).unwrap();
        c.add(&integer(b"1").unwrap());
        let mut body = Vec::new();
        c.body(&mut body);
        assert_eq!(body, br#"{"val":"100000000000000000000000000"}"#);
        let mut c = Counter::default();
        assert_eq!(c.source(b"EU 7 > >", b"a", br#"{"val":"5"}"#).unwrap(), BigInt::from(5));
        assert_eq!(c.source(b"EU 8 > >", b"a", br#"{"val":"3"}"#).unwrap(), BigInt::from(-2));
        assert_eq!(c.source(b"US 1 > > a.us", b"a", br#"{"val":"10"}"#).unwrap(), BigInt::from(10));
        assert_eq!(c.total, BigInt::from(13));
        assert_eq!(c.sources_header().unwrap(), r#"{"EU":{"a":"3"},"US":{"a.us":"10"}}"#);
        let block = format!("NATS/1.0\r\nNats-Counter-Sources: {}\r\n\r\n", c.sources_header().unwrap());
        c.body(&mut body);
        assert_eq!(Counter::read(block.as_bytes(), &body), Ok(c));
        assert!(Counter::read(b"", b"no").is_err());
    }
}
