//! Direct gets: what they ask, and the headers and status lines of what they are told. Also republished messages, whose headers
//! are of the same family.
//!
//! Owns the texts. Does not read messages.

use stream::headers;

use super::request::{MsgGet, level_is_met};
use super::schema;
use super::strict;
use super::text::push_number;
use super::time::Time;

/// A status line with its headers, ready to be sent without a payload.
pub type Status = &'static [u8];

/// The request needs a level that this server does not have.
pub const LEVEL_TOO_HIGH: Status = b"NATS/1.0 412 Required Api Level\r\n\r\n";
/// Nothing is asked for.
pub const EMPTY_REQUEST: Status = b"NATS/1.0 408 Empty Request\r\n\r\n";
/// The body is no JSON, or not of the right types.
pub const MALFORMED_REQUEST: Status = b"NATS/1.0 408 Malformed Request\r\n\r\n";
/// The fields contradict each other.
pub const BAD_REQUEST: Status = b"NATS/1.0 408 Bad Request\r\n\r\n";
/// No such message.
pub const NOT_FOUND: Status = b"NATS/1.0 404 Message Not Found\r\n\r\n";
/// No message of any of the subjects.
pub const NO_RESULTS: Status = b"NATS/1.0 404 No Results\r\n\r\n";
/// More than [`MULTI_MAX`] subjects match.
pub const TOO_MANY_RESULTS: Status = b"NATS/1.0 413 Too Many Results\r\n\r\n";

/// Most subjects that one request for the last messages of several can match.
pub const MULTI_MAX: usize = 1024;

/// What a direct get asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Direct {
    /// One message. Found: [`push_headers`]. Not found: [`NOT_FOUND`].
    One {
        /// Which.
        which: Which,
        /// Whether only the payload is wanted.
        no_headers: bool,
    },
    /// Several in a row, then [`push_end`]. If one is wanted and there is none: [`NOT_FOUND`].
    Batch {
        /// Which is the first, never [`Which::Last`]; the others follow it.
        first: Which,
        /// How many at most; 0 for the end alone.
        batch: usize,
        /// Stop behind the message with which subjects, headers and payloads come to this; 0 for the server's own limit.
        max_bytes: usize,
        /// Whether only the payload is wanted.
        no_headers: bool,
    },
    /// The last messages of several subjects, in the order of their sequences, then [`push_multi_end`].
    Multi {
        /// The subjects, wildcards among them.
        subjects: Vec<String>,
        /// Only messages from this sequence on.
        from: u64,
        /// As things were then.
        up_to: UpTo,
        /// How many at most; 0 for all.
        batch: usize,
        /// As for a batch.
        max_bytes: usize,
    },
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    /// That one; in a batch, the first one at or behind it.
    Seq(u64),
    /// The last of a subject, which may have wildcards.
    Last(String),
    /// The first of a subject, which may have wildcards, at or behind a start.
    Next(String, Start),
    /// The first that came at or after a time.
    Time(Time),
}

/// Where to start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// At a sequence.
    Seq(u64),
    /// At a time.
    Time(Time),
}

/// As of when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpTo {
    /// Now.
    Now,
    /// Up to and with a sequence.
    Seq(u64),
    /// Before a time. If no message is older: [`NO_RESULTS`].
    Time(Time),
}

/// Reads a request to `$JS.API.DIRECT.GET.<stream>`, or to `$JS.API.DIRECT.GET.<stream>.<subject>` with `subject` given.
///
/// # Errors
/// The status to answer.
pub fn parse(subject: Option<&str>, headers: &[u8], body: &[u8]) -> Result<Direct, Status> {
    if !headers.is_empty() {
        level_is_met(headers).map_err(|_| LEVEL_TOO_HIGH)?;
    }
    let asked = match (body, subject) {
        (b"", None) => return Err(EMPTY_REQUEST),
        (b"", Some(_)) => MsgGet::default(),
        _ => read(body).ok_or(MALFORMED_REQUEST)?,
    };
    if let Some(subject) = subject {
        let more = asked.seq != 0
            || asked.batch != 0
            || asked.up_to_seq != 0
            || !asked.last_by_subj.is_empty()
            || !asked.next_by_subj.is_empty()
            || !asked.multi_last.is_empty()
            || asked.start_time.is_some()
            || asked.up_to_time.is_some();
        if more || subject.is_empty() {
            return Err(BAD_REQUEST);
        }
        return Ok(Direct::One { which: Which::Last(subject.to_owned()), no_headers: asked.no_hdr });
    }
    of_body(asked)
}

/// Reads a body: at once if it is as clients write it, by the rules of the API if not.
fn read(body: &[u8]) -> Option<MsgGet> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct LastOf {
        last_by_subj: String,
    }
    if let Ok(last) = serde_json::from_slice::<LastOf>(body) {
        return Some(MsgGet { last_by_subj: last.last_by_subj, ..MsgGet::default() });
    }
    let fields = strict::read_lenient(body, &schema::MSG_GET).ok()?;
    serde_json::from_value(serde_json::Value::Object(fields)).ok()
}

fn of_body(asked: MsgGet) -> Result<Direct, Status> {
    let (seq, last, next) = (asked.seq > 0, !asked.last_by_subj.is_empty(), !asked.next_by_subj.is_empty());
    let (multi, time) = (!asked.multi_last.is_empty(), asked.start_time.is_some());
    if !(seq || last || next || multi || time) {
        return Err(EMPTY_REQUEST);
    }
    // A batch of less than none is one of none: nothing comes but its end.
    let none = asked.batch < 0;
    let conflict = (last && (seq || time || next || multi || asked.batch > 0))
        || (seq && time)
        || (next && multi)
        || (asked.up_to_seq > 0 && asked.up_to_time.is_some());
    if conflict {
        return Err(BAD_REQUEST);
    }
    let count = |n: i64| usize::try_from(n).unwrap_or(0);
    // Less than nothing is used up by the first message.
    let max_bytes = if asked.max_bytes < 0 { 1 } else { count(asked.max_bytes) };
    let (batch, no_headers) = (count(asked.batch), asked.no_hdr);
    if multi {
        let up_to = match (asked.up_to_seq, asked.up_to_time) {
            (0, None) => UpTo::Now,
            (0, Some(time)) => UpTo::Time(time),
            (seq, _) => UpTo::Seq(seq),
        };
        return Ok(Direct::Multi { subjects: asked.multi_last, from: asked.seq, up_to, batch, max_bytes });
    }
    let which = match asked.start_time {
        _ if last && none => Which::Seq(0),
        _ if last => Which::Last(asked.last_by_subj),
        Some(time) if next => Which::Next(asked.next_by_subj, Start::Time(time)),
        None if next => Which::Next(asked.next_by_subj, Start::Seq(asked.seq)),
        Some(time) => Which::Time(time),
        None => Which::Seq(asked.seq),
    };
    if asked.batch == 0 {
        return Ok(Direct::One { which, no_headers });
    }
    Ok(Direct::Batch { first: which, batch, max_bytes, no_headers })
}

/// A stored message, as the headers of an answer tell of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct About<'a> {
    /// The stream.
    pub stream: &'a [u8],
    /// The message's subject.
    pub subject: &'a [u8],
    /// Its sequence.
    pub seq: u64,
    /// When it came, in nanoseconds since 1970.
    pub time: i64,
    /// Its own header block; empty if it has none.
    pub headers: &'a [u8],
}

impl About<'_> {
    /// The block so far, without its blank line.
    fn push_open(&self, out: &mut Vec<u8>) {
        match self.headers.strip_suffix(b"\r\n") {
            Some(own) => out.extend_from_slice(own),
            None => out.extend_from_slice(headers::VERSION),
        }
        out.extend_from_slice(b"Nats-Stream: ");
        out.extend_from_slice(self.stream);
        out.extend_from_slice(b"\r\nNats-Subject: ");
        out.extend_from_slice(self.subject);
        out.extend_from_slice(b"\r\nNats-Sequence: ");
        push_number(out, self.seq);
        out.extend_from_slice(b"\r\nNats-Time-Stamp: ");
        Time::from_nanos(self.time).push(out);
        out.extend_from_slice(b"\r\n");
    }
}

fn push_line(out: &mut Vec<u8>, name: &[u8], n: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    push_number(out, n);
    out.extend_from_slice(b"\r\n");
}

/// Appends the header block of a single answer.
pub fn push_headers(out: &mut Vec<u8>, about: &About<'_>) {
    about.push_open(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the header block of one of several answers: how many are still to come, and the sequence of the one before (0 if it is
/// the first).
pub fn push_batch_headers(out: &mut Vec<u8>, about: &About<'_>, pending: u64, last: u64) {
    about.push_open(out);
    push_line(out, b"Nats-Num-Pending", pending);
    push_line(out, b"Nats-Last-Sequence", last);
    out.extend_from_slice(b"\r\n");
}

/// Appends the status behind the last message of a batch.
pub fn push_end(out: &mut Vec<u8>, pending: u64, last: u64) {
    out.extend_from_slice(b"NATS/1.0 204 EOB\r\n");
    push_line(out, b"Nats-Num-Pending", pending);
    push_line(out, b"Nats-Last-Sequence", last);
    out.extend_from_slice(b"\r\n");
}

/// Appends the status behind the last messages of several subjects.
pub fn push_multi_end(out: &mut Vec<u8>, pending: u64, last: u64, up_to: u64) {
    out.extend_from_slice(b"NATS/1.0 204 EOB\r\n");
    push_line(out, b"Nats-Num-Pending", pending);
    push_line(out, b"Nats-Last-Sequence", last);
    push_line(out, b"Nats-UpTo-Sequence", up_to);
    out.extend_from_slice(b"\r\n");
}

/// Appends the header block of a republished message: `last` is the sequence of the message before it on its subject (0 if there
/// is none), `size` the length of the payload if that stays behind.
pub fn push_republish_headers(out: &mut Vec<u8>, about: &About<'_>, last: u64, size: Option<u64>) {
    about.push_open(out);
    push_line(out, b"Nats-Last-Sequence", last);
    if let Some(size) = size {
        push_line(out, b"Nats-Msg-Size", size);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let get = |body: &str| parse(None, b"", body.as_bytes());
        let one = |which| Ok(Direct::One { which, no_headers: false });
        assert_eq!(get(r#"{"last_by_subj":"a.b"}"#), one(Which::Last("a.b".into())));
        assert_eq!(get(r#"{"LAST_BY_SUBJ":"a.b","x":null}"#), one(Which::Last("a.b".into())));
        assert_eq!(get(r#"{"seq":7}"#), one(Which::Seq(7)));
        assert_eq!(get(r#"{"next_by_subj":"a.*","seq":7}"#), one(Which::Next("a.*".into(), Start::Seq(7))));
        assert_eq!(
            get(r#"{"batch":5,"next_by_subj":"a","max_bytes":9,"no_hdr":true}"#),
            Ok(Direct::Batch {
                first: Which::Next("a".into(), Start::Seq(0)),
                batch: 5,
                max_bytes: 9,
                no_headers: true
            })
        );
        assert_eq!(
            get(r#"{"multi_last":["a","b.>"],"up_to_seq":9,"batch":2}"#),
            Ok(Direct::Multi {
                subjects: vec!["a".into(), "b.>".into()],
                from: 0,
                up_to: UpTo::Seq(9),
                batch: 2,
                max_bytes: 0
            })
        );
        assert_eq!(parse(Some("a.b"), b"", b""), one(Which::Last("a.b".into())));
        // Fewer than none, of whatever it is.
        let end = |first| Ok(Direct::Batch { first, batch: 0, max_bytes: 0, no_headers: false });
        assert_eq!(get(r#"{"batch":-1,"seq":7}"#), end(Which::Seq(7)));
        assert_eq!(get(r#"{"batch":-1,"last_by_subj":"a"}"#), end(Which::Seq(0)));
        assert_eq!(get(r#"{"batch":1,"last_by_subj":"a"}"#), Err(BAD_REQUEST));
    }
}
