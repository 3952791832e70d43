//! The bytes of answers to publishers, without a serializer: they are written once a message.

use std::io::Write;

use stream::{
    ApiError,
    publish::{Ack, Answer},
};

/// What every acknowledgement of a stream begins with.
pub fn prefix(stream: &str, domain: Option<&str>) -> Box<[u8]> {
    // Names hold no character that JSON escapes, but for what is written below U+0020, which Rust's form shows differently.
    let quoted = |s: &str| serde_json::to_string(s).unwrap_or_default();
    let domain = domain.map(|d| format!(",\"domain\":{}", quoted(d))).unwrap_or_default();
    format!("{{\"stream\":{}{domain},\"seq\":", quoted(stream)).into_bytes().into()
}

/// Appends decimal digits.
#[inline]
pub fn number(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn ack(out: &mut Vec<u8>, prefix: &[u8], a: &Ack) {
    out.extend_from_slice(prefix);
    number(out, a.seq);
    if a.duplicate {
        out.extend_from_slice(b",\"duplicate\": true");
    }
    if let Some(extra) = &a.extra {
        let quoted = |s: &str| serde_json::to_string(s).unwrap_or_default();
        // Writing to a vector does not fail.
        if let Some(v) = &extra.value {
            write!(out, ",\"val\":{}", quoted(v)).ok();
        }
        if let Some((id, count)) = &extra.batch {
            write!(out, ",\"batch\":{},\"count\":{count}", quoted(id)).ok();
        }
    }
    out.push(b'}');
}

fn error_json(e: &ApiError) -> String {
    serde_json::to_string(e).unwrap_or_default()
}

/// Appends a refusal.
pub fn error(out: &mut Vec<u8>, stream: &str, e: &ApiError) {
    let name = serde_json::to_string(stream).unwrap_or_default();
    write!(out, "{{\"error\":{},\"stream\":{name},\"seq\":0}}", error_json(e)).ok();
}

/// Appends an answer.
pub fn write(out: &mut Vec<u8>, stream: &str, prefix: &[u8], a: &Answer) {
    match a {
        Answer::Ack(a) => ack(out, prefix, a),
        Answer::Error(e) => error(out, stream, e),
        Answer::Empty => {}
        Answer::Flow { seq, msgs } => {
            write!(out, "{{\"type\":\"ack\",\"seq\":{seq},\"msgs\":{msgs}}}").ok();
        }
        Answer::Gap { last_seq, seq } => {
            write!(out, "{{\"type\":\"gap\",\"last_seq\":{last_seq},\"seq\":{seq}}}").ok();
        }
        Answer::Failed { seq, error } => {
            write!(out, "{{\"type\":\"err\",\"seq\":{seq},\"error\":{}}}", error_json(error)).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use stream::{errors, publish::Extra};

    use super::*;

    fn text(a: &Answer, domain: Option<&str>) -> String {
        let mut out = Vec::new();
        write(&mut out, "S", &prefix("S", domain), a);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn answers_read_as_the_peers_do() {
        let extra = |value: Option<&str>, batch: Option<(&str, u64)>| {
            Some(Box::new(Extra {
                value: value.map(Into::into),
                batch: batch.map(|(id, n)| (id.to_string(), n)),
            }))
        };
        let ack = |seq, duplicate, extra| Answer::Ack(Ack { seq, duplicate, extra });
        assert_eq!(text(&ack(1, false, None), None), r#"{"stream":"S","seq":1}"#);
        assert_eq!(text(&ack(u64::MAX, false, None), None), r#"{"stream":"S","seq":18446744073709551615}"#);
        assert_eq!(
            text(&ack(2, true, None), Some("hub")),
            r#"{"stream":"S","domain":"hub","seq":2,"duplicate": true}"#
        );
        assert_eq!(text(&ack(1, false, extra(Some("3"), None)), None), r#"{"stream":"S","seq":1,"val":"3"}"#);
        assert_eq!(
            text(&ack(4, false, extra(None, Some(("x", 2)))), None),
            r#"{"stream":"S","seq":4,"batch":"x","count":2}"#
        );
        assert_eq!(
            text(&Answer::Error(errors::STREAM_STORE_FAILED.with("full")), None),
            r#"{"error":{"code":503,"err_code":10077,"description":"full"},"stream":"S","seq":0}"#
        );
        assert_eq!(text(&Answer::Flow { seq: 0, msgs: 10 }, None), r#"{"type":"ack","seq":0,"msgs":10}"#);
        assert_eq!(text(&Answer::Empty, None), "");
    }
}
