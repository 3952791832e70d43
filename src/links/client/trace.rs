//! What a connection reports of its protocol lines while that is asked for (`trace`).
//!
//! Owns the texts. Who wants them is the server's to say ([`crate::Hooks::tracing`]): a connection asks when it begins, when it
//! comes to an account and when settings change, and not for each operation, so that what is off costs nothing. What is
//! delivered to it is reported by the broker, for links that are marked so.
//!
//! Invariant:
//! * L-12: no password, token, key, signature or JWT of a CONNECT is in a reported line.

use broker::Sub;
use bytes::Bytes;
use wire::{
    Parsed,
    client::{Op, parse},
};

use super::Connection;

/// How much is reported of protocol lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tracing {
    /// Connections to the system account are reported too.
    pub system: bool,
    /// Only the headers of messages are shown.
    pub headers_only: bool,
    /// Bytes of a message that are shown; none is all.
    pub bytes_max: Option<usize>,
}

impl Tracing {
    /// What is shown of a message, of which the first `header_len` bytes are headers; none if that is nothing.
    pub fn payload(&self, body: &[u8], header_len: usize) -> Option<String> {
        let shown = match self.headers_only {
            true => body[..header_len.min(body.len())].trim_ascii_end(),
            false => body,
        };
        if shown.is_empty() {
            return None;
        }
        let max = self.bytes_max.unwrap_or(usize::MAX);
        let (cut, more) = if shown.len() > max { (&shown[..max], "...") } else { (shown, "") };
        Some(format!("MSG_PAYLOAD: [\"{}{more}\"]", escaped(cut)))
    }
}

/// Bytes as a Go string literal has them.
fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
                c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => out.push(c),
            }
        }
        part.invalid().iter().for_each(|b| out.push_str(&format!("\\x{b:02x}")));
    }
    out
}

/// Fields of CONNECT whose values nobody may read in a log.
const SECRETS: [&str; 6] = ["pass", "auth_token", "jwt", "nkey", "sig", "proxy_sig"];

/// L-12: the JSON text of a CONNECT without its secrets. It need not be valid: what cannot be told from a secret is left out.
fn redacted(json: &[u8]) -> String {
    let mut out = Vec::with_capacity(json.len());
    let mut at = 0;
    while at < json.len() {
        if json[at] != b'"' {
            out.push(json[at]);
            at += 1;
            continue;
        }
        let end = string_end(json, at);
        out.extend_from_slice(&json[at..end]);
        let is_secret = is_secret(&json[at..end]);
        at = end;
        if !is_secret {
            continue;
        }
        let colon = skip_blanks(json, at);
        if json.get(colon) != Some(&b':') {
            continue;
        }
        let value = skip_blanks(json, colon + 1);
        out.extend_from_slice(&json[at..value]);
        out.extend_from_slice(b"\"[REDACTED]\"");
        at = match json.get(value) {
            Some(b'"') => string_end(json, value),
            // No string is no secret that would be taken; it may be meant as one all the same.
            _ => {
                json[value..].iter().position(|b| matches!(b, b',' | b'}')).map_or(json.len(), |n| value + n)
            }
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Bytes of what cannot be parsed that are shown.
const FRONT_MAX: usize = 64;

/// The first bytes of what cannot be parsed, which may be a CONNECT.
pub(super) fn front(buf: &[u8]) -> String {
    redacted(&buf[..buf.len().min(FRONT_MAX)])
}

/// Whether a JSON string, with its quotes, names a secret.
fn is_secret(quoted: &[u8]) -> bool {
    let name = serde_json::from_slice::<String>(quoted);
    name.is_ok_and(|name| SECRETS.iter().any(|s| name.eq_ignore_ascii_case(s)))
}

/// Where the JSON string that begins at `at` has ended; the end of all if it does not end.
fn string_end(json: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while let Some(b) = json.get(i) {
        match b {
            b'"' => return i + 1,
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
    json.len()
}

fn skip_blanks(json: &[u8], at: usize) -> usize {
    at + json[at.min(json.len())..].iter().take_while(|b| b.is_ascii_whitespace()).count()
}

/// The line at the front of `buf` without its end, its verb in capitals; what follows a verb that takes nothing is left out.
fn line(buf: &[u8], op: &Op<'_>) -> String {
    let end = buf.iter().position(|b| *b == b'\n').unwrap_or(buf.len());
    let line = &buf[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let verb = match op {
        Op::Pub(_) if line.first().is_some_and(|b| b | 0x20 == b'h') => "HPUB",
        Op::Pub(_) => "PUB",
        Op::Sub(_) => "SUB",
        Op::Unsub { .. } => "UNSUB",
        Op::Ping => return "PING".into(),
        Op::Pong => return "PONG".into(),
        Op::Ok => return "+OK".into(),
        Op::Connect(_) => "CONNECT",
        Op::Info(_) => "INFO",
        Op::Err(_) => "-ERR",
    };
    let rest = line[verb.len().min(line.len())..].trim_ascii_start();
    match op {
        Op::Connect(_) => format!("{verb} {}", redacted(rest)),
        _ => format!("{verb} {}", String::from_utf8_lossy(rest)),
    }
}

impl Connection {
    /// Asks the server anew what it wants to be told of this connection.
    pub(super) fn set_tracing(&mut self) {
        let of_system = |a: &broker::Account| self.settings.system_account.as_deref() == Some(&*a.name);
        let is_system = self.link.account().is_some_and(|a| of_system(&a));
        self.tracing = self.cx.hooks.tracing().filter(|t| t.system || !is_system);
        self.link.set_traced(self.tracing.is_some());
    }

    /// As [`Connection::operations`], and reports each.
    #[cold]
    pub(super) fn operations_traced(&mut self, buf: &[u8], owner: Option<&Bytes>) -> usize {
        let mut at = 0;
        while let Ok(Parsed::Op { op, used }) = parse(&buf[at..], &self.limits) {
            self.heard(&buf[at..], &op);
            at += self.operations(&buf[at..at + used], owner);
            if self.link.closed().is_some() || self.login.is_some() || at == buf.len() {
                return at;
            }
        }
        at + self.operations(&buf[at..], owner)
    }

    /// Reports an operation of the client.
    fn heard(&self, buf: &[u8], op: &Op<'_>) {
        // INFO is not said to do anything.
        let Some(tracing) = self.tracing.filter(|_| !matches!(op, Op::Info(_))) else { return };
        self.trace(&format!("<<- [{}]", line(buf, op)));
        if let Op::Pub(p) = op
            && let Some(text) = tracing.payload(p.body(), p.header_len)
        {
            self.trace(&format!("<<- {text}"));
        }
    }

    /// Reports what the server says, if anybody asks for it.
    pub(super) fn said(&self, text: &str) {
        if self.tracing.is_some() {
            self.trace(&format!("->> [{text}]"));
        }
    }

    /// Reports that a subscription has ended.
    pub(super) fn ended(&self, sub: &Sub) {
        if self.tracing.is_some() {
            self.trace(&format!("<-> [DELSUB {}]", String::from_utf8_lossy(sub.sid())));
        }
    }

    #[cold]
    fn trace(&self, text: &str) {
        self.cx.hooks.log("TRC", &self.client, text);
    }
}

/// What is reported of a message that was delivered to a traced link: its line, without the line's end, and what is shown of
/// its body.
pub fn delivered(line: &[u8], body: &[u8], header_len: usize, tracing: &Tracing) -> (String, Option<String>) {
    let payload = tracing.payload(body, header_len).map(|text| format!("->> {text}"));
    (format!("->> [{}]", String::from_utf8_lossy(line.trim_ascii_end())), payload)
}

/// What is reported of a subscription that has had its maximum.
pub fn expired(sub: &Sub) -> String {
    format!("<-> [DELSUB {}]", String::from_utf8_lossy(sub.sid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l12_secrets_are_not_shown() {
        for (json, shown) in [
            (r#"{"user":"u","pass":"p\"w","lang":"go"}"#, r#"{"user":"u","pass":"[REDACTED]","lang":"go"}"#),
            (r#"{"AUTH_TOKEN" : "t"}"#, r#"{"AUTH_TOKEN" : "[REDACTED]"}"#),
            (
                r#"{"jwt":"j","nkey":"k","sig":"s"}"#,
                r#"{"jwt":"[REDACTED]","nkey":"[REDACTED]","sig":"[REDACTED]"}"#,
            ),
            (r#"{"p\u0061ss":"x"}"#, r#"{"p\u0061ss":"[REDACTED]"}"#),
            (r#"{"pass":123,"a":1}"#, r#"{"pass":"[REDACTED]","a":1}"#),
            (r#"{"pass":"unfinished"#, r#"{"pass":"[REDACTED]""#),
            (r#"{"name":"pass","user":"sig"}"#, r#"{"name":"pass","user":"sig"}"#),
            (r#"{"pass""#, r#"{"pass""#),
            (r#"{"pass":"#, r#"{"pass":"[REDACTED]""#),
            (r#"{bad"#, r#"{bad"#),
        ] {
            assert_eq!(redacted(json.as_bytes()), shown, "{json}");
        }
    }

    #[test]
    fn l12_what_cannot_be_parsed_shows_no_secret() {
        let line = format!(r#"CONNECT {{"user":"u","pass":"secret{}"}}"#, "x".repeat(5000));
        assert_eq!(front(line.as_bytes()), r#"CONNECT {"user":"u","pass":"[REDACTED]""#);
        assert_eq!(front(b"PUBB a 1"), "PUBB a 1");
        assert_eq!(front("y".repeat(100).as_bytes()), "y".repeat(64));
    }

    #[test]
    fn messages_are_shown_as_far_as_is_asked_for() {
        let all = Tracing::default();
        let text = |t: Tracing, body: &[u8], h| t.payload(body, h).unwrap_or_default();
        assert_eq!(text(all, b"\"\\\n\xff\x01a", 0), r#"MSG_PAYLOAD: ["\"\\\n\xff\x01a"]"#);
        assert_eq!(text(all, b"", 0), "");
        let five = Tracing { bytes_max: Some(5), ..all };
        assert_eq!(text(five, b"123456", 0), "MSG_PAYLOAD: [\"12345...\"]");
        assert_eq!(text(five, b"12345", 0), "MSG_PAYLOAD: [\"12345\"]");
        let headers = Tracing { headers_only: true, ..all };
        assert_eq!(text(headers, b"NATS/1.0\r\nA: b\r\n\r\nxyz", 18), r#"MSG_PAYLOAD: ["NATS/1.0\r\nA: b"]"#);
        assert_eq!(text(headers, b"xyz", 0), "");
    }
}
