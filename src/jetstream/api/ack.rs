//! Acknowledgements of publishes.
//!
//! Owns their text, byte for byte, among it the blank in `"duplicate": true` that clients have seen for years. Written by hand:
//! one leaves for every message.

use stream::ApiError;

use super::text::{push_number, push_string, to_vec};

/// What stands in front of the sequence in all acknowledgements of a stream. Made once a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AckPrefix {
    /// `{"stream":"X","seq":` or `{"stream":"X","domain":"d","seq":`.
    text: Box<[u8]>,
    /// `"stream":"X","seq":0}`, which ends the answer to a refused publish.
    refused: Box<[u8]>,
}

/// What an acknowledgement says behind the sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extra<'a> {
    /// The message was there already, under that sequence.
    pub duplicate: bool,
    /// The counter's total.
    pub value: Option<&'a str>,
    /// The batch's id and how many messages it has.
    pub batch: Option<(&'a str, u64)>,
}

impl AckPrefix {
    /// For a stream; an empty domain is none.
    pub fn new(stream: &str, domain: &str) -> AckPrefix {
        let mut text = b"{\"stream\":".to_vec();
        push_string(&mut text, stream);
        if !domain.is_empty() {
            text.extend_from_slice(b",\"domain\":");
            push_string(&mut text, domain);
        }
        text.extend_from_slice(b",\"seq\":");
        let mut refused = b"\"stream\":".to_vec();
        push_string(&mut refused, stream);
        refused.extend_from_slice(b",\"seq\":0}");
        AckPrefix { text: text.into(), refused: refused.into() }
    }

    /// Appends the acknowledgement of a stored message. Allocates nothing if `out` has room for 64 bytes more than the names.
    #[inline]
    pub fn push(&self, out: &mut Vec<u8>, seq: u64) {
        out.extend_from_slice(&self.text);
        push_number(out, seq);
        out.push(b'}');
    }

    /// Appends the acknowledgement of a duplicate, a counter or a batch.
    pub fn push_extra(&self, out: &mut Vec<u8>, seq: u64, extra: Extra<'_>) {
        out.extend_from_slice(&self.text);
        push_number(out, seq);
        if extra.duplicate {
            out.extend_from_slice(b",\"duplicate\": true");
        }
        if let Some(value) = extra.value {
            out.extend_from_slice(b",\"val\":");
            push_string(out, value);
        }
        if let Some((id, count)) = extra.batch {
            out.extend_from_slice(b",\"batch\":");
            push_string(out, id);
            out.extend_from_slice(b",\"count\":");
            push_number(out, count);
        }
        out.push(b'}');
    }

    /// Appends the answer to a publish that was refused.
    pub fn push_error(&self, out: &mut Vec<u8>, error: &ApiError) {
        push_api_error(out, error);
        out.push(b',');
        out.extend_from_slice(&self.refused);
    }
}

/// `{"error":{…}` without the closing brace.
fn push_api_error(out: &mut Vec<u8>, error: &ApiError) {
    out.extend_from_slice(b"{\"error\":");
    out.extend_from_slice(&to_vec(error));
}

/// Appends a fast batch's interim acknowledgement: all up to `seq` are stored, and one such message comes every `messages`.
pub fn push_batch_ack(out: &mut Vec<u8>, seq: u64, messages: u64) {
    out.extend_from_slice(b"{\"type\":\"ack\",\"seq\":");
    push_number(out, seq);
    out.extend_from_slice(b",\"msgs\":");
    push_number(out, messages);
    out.push(b'}');
}

/// Appends a fast batch's notice that messages from `expected` up to and without `seq` did not arrive.
pub fn push_batch_gap(out: &mut Vec<u8>, expected: u64, seq: u64) {
    out.extend_from_slice(b"{\"type\":\"gap\",\"last_seq\":");
    push_number(out, expected);
    out.extend_from_slice(b",\"seq\":");
    push_number(out, seq);
    out.push(b'}');
}

/// Appends a fast batch's notice that message `seq` was refused.
pub fn push_batch_error(out: &mut Vec<u8>, seq: u64, error: &ApiError) {
    out.extend_from_slice(b"{\"type\":\"err\",\"seq\":");
    push_number(out, seq);
    out.extend_from_slice(b",\"error\":");
    out.extend_from_slice(&to_vec(error));
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use stream::errors;

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fast_batches() {
        assert_eq!(text(|o| push_batch_ack(o, 5, 10)), r#"{"type":"ack","seq":5,"msgs":10}"#);
        assert_eq!(text(|o| push_batch_gap(o, 2, 5)), r#"{"type":"gap","last_seq":2,"seq":5}"#);
        let error = errors::STREAM_SEALED.error();
        assert_eq!(
            text(|o| push_batch_error(o, 5, &error)),
            r#"{"type":"err","seq":5,"error":{"code":400,"err_code":10109,"description":"invalid operation on sealed stream"}}"#
        );
    }

    #[test]
    fn the_plain_acknowledgement_allocates_nothing() {
        let prefix = AckPrefix::new("ORDERS", "hub");
        let mut out = Vec::with_capacity(128);
        let before = out.as_ptr();
        prefix.push(&mut out, u64::MAX);
        assert_eq!(out.as_ptr(), before);
        assert_eq!(out, br#"{"stream":"ORDERS","domain":"hub","seq":18446744073709551615}"#);
    }
}
