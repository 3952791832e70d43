//! The client protocol as a server reads it. One call looks at the front of a buffer and yields one operation that
//! borrows from it, or says how many bytes it takes to go on.
//!
//! The choice of operation is a chain of compares rather than a table, and a line's end is found by memchr: one indirect
//! branch a byte is what a table-driven parser costs.

use std::fmt;

use memchr::memchr;

use crate::Parsed;

/// Arguments of SUB, kept apart so that their sizes are known to be sane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sub<'a> {
    /// The subject as sent; not validated.
    pub subject: &'a [u8],
    /// The queue name; empty for a plain subscription.
    pub queue: &'a [u8],
    /// The subscription's id, chosen by the client.
    pub sid: &'a [u8],
}

/// A whole PUB or HPUB with its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pub<'a> {
    /// The subject as sent; not validated.
    pub subject: &'a [u8],
    /// The reply subject; empty if there is none.
    pub reply: &'a [u8],
    /// Bytes of header block at the front of `body`; 0 for PUB.
    pub header_len: usize,
    /// Header block and payload, followed by CRLF (which is part of this slice).
    pub body_crlf: &'a [u8],
}

impl<'a> Pub<'a> {
    /// Header block and payload.
    pub fn body(&self) -> &'a [u8] {
        &self.body_crlf[..self.body_crlf.len() - 2]
    }
    /// The payload alone.
    pub fn payload(&self) -> &'a [u8] {
        &self.body()[self.header_len..]
    }
    /// The header block alone; empty for PUB.
    pub fn header(&self) -> &'a [u8] {
        &self.body_crlf[..self.header_len]
    }
}

/// One operation of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op<'a> {
    /// PUB or HPUB.
    Pub(Pub<'a>),
    /// SUB.
    Sub(Sub<'a>),
    /// UNSUB; `max` 0 means now.
    Unsub {
        /// The subscription's id.
        sid: &'a [u8],
        /// Deliveries since SUB after which the subscription ends.
        max: u64,
    },
    /// PING.
    Ping,
    /// PONG.
    Pong,
    /// CONNECT with its JSON text.
    Connect(&'a [u8]),
    /// INFO with its JSON text (servers do nothing with it from clients).
    Info(&'a [u8]),
    /// +OK (ignored).
    Ok,
    /// -ERR with its text; a client that sends it is closed.
    Err(&'a [u8]),
}

/// Why the stream cannot go on. All of them close the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Not an operation of this protocol, or a payload that does not end in CRLF.
    Unknown,
    /// Wrong number of arguments, or a size that is not a number: nats-server closes without a word.
    Arguments,
    /// A line longer than the limit.
    LineTooLong,
    /// The payload's size is over the limit; the size is given.
    PayloadTooLarge(usize),
    /// HPUB from a client without headers.
    HeadersNotSupported,
}

impl Error {
    /// The text for -ERR, if one is sent.
    pub fn text(self) -> Option<&'static str> {
        match self {
            Error::Unknown => Some("Unknown Protocol Operation"),
            Error::LineTooLong => Some("maximum control line exceeded"),
            Error::PayloadTooLarge(_) => Some("Maximum Payload Violation"),
            Error::Arguments | Error::HeadersNotSupported => None,
        }
    }
}
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unknown => f.write_str("unknown protocol operation"),
            Error::Arguments => f.write_str("bad arguments of a protocol operation"),
            Error::LineTooLong => f.write_str("maximum control line exceeded"),
            Error::PayloadTooLarge(n) => write!(f, "payload of {n} bytes is over the limit"),
            Error::HeadersNotSupported => f.write_str("message headers not supported"),
        }
    }
}
impl std::error::Error for Error {}

/// What the parser must know of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest line in bytes without its end.
    pub max_control_line: usize,
    /// Largest header block and payload together, in bytes.
    pub max_payload: usize,
    /// Whether HPUB is allowed.
    pub headers: bool,
}

/// Looks at the front of `buf`.
#[inline]
pub fn parse<'a>(buf: &'a [u8], limits: &Limits) -> Result<Parsed<Op<'a>>, Error> {
    // PUB first: it is what servers read most.
    if buf.len() >= 4
        && buf[0] | 0x20 == b'p'
        && buf[1] | 0x20 == b'u'
        && buf[2] | 0x20 == b'b'
        && blank(buf[3])
    {
        return publish::<false>(buf, 4, limits);
    }
    if buf.len() >= 5
        && buf[0] | 0x20 == b'h'
        && buf[1] | 0x20 == b'p'
        && buf[2] | 0x20 == b'u'
        && buf[3] | 0x20 == b'b'
    {
        if !blank(buf[4]) {
            return Err(Error::Unknown);
        }
        if !limits.headers {
            return Err(Error::HeadersNotSupported);
        }
        return publish::<true>(buf, 5, limits);
    }
    other(buf, limits)
}

fn publish<'a, const HEADERS: bool>(
    buf: &'a [u8],
    verb: usize,
    limits: &Limits,
) -> Result<Parsed<Op<'a>>, Error> {
    let Some((args, line_used)) = line(buf, verb, limits)? else { return Ok(Parsed::Partial { need: 0 }) };
    let mut t = Tokens(args);
    // subject [reply] [#header] #total
    let subject = t.next_token();
    let (mut reply, mut a, mut b) = (&[][..], t.next_token(), t.next_token());
    let mut header_len = 0;
    if HEADERS {
        let c = t.next_token();
        if !c.is_empty() {
            (reply, a, b) = (a, b, c);
        }
        header_len = number(a).ok_or(Error::Arguments)?;
        a = b;
        if b.is_empty() {
            return Err(Error::Arguments);
        }
    } else if !b.is_empty() {
        (reply, a) = (a, b);
    }
    if !t.rest_is_blank() {
        return Err(Error::Arguments);
    }
    let total = number(a).ok_or(Error::Arguments)?;
    if header_len > total {
        return Err(Error::Arguments);
    }
    if total > limits.max_payload {
        return Err(Error::PayloadTooLarge(total));
    }
    let used = line_used + total + 2;
    if buf.len() < used {
        // A wrong byte where CR should be is known before LF has come.
        if buf.len() == used - 1 && buf[used - 2] != b'\r' {
            return Err(Error::Unknown);
        }
        return Ok(Parsed::Partial { need: used });
    }
    let body_crlf = &buf[line_used..used];
    if body_crlf[total] != b'\r' || body_crlf[total + 1] != b'\n' {
        return Err(Error::Unknown);
    }
    Ok(Parsed::Op { op: Op::Pub(Pub { subject, reply, header_len, body_crlf }), used })
}

#[cold]
#[inline(never)]
fn other<'a>(buf: &'a [u8], limits: &Limits) -> Result<Parsed<Op<'a>>, Error> {
    let op = |op, used| Ok(Parsed::Op { op, used });
    let partial = Ok(Parsed::Partial { need: 0 });
    let Some(&first) = buf.first() else { return partial };
    let verbs: &[&[u8]] = match first | 0x20 {
        b'p' => &[b"pub", b"ping", b"pong"],
        b'h' => &[b"hpub"],
        b's' => &[b"sub"],
        b'u' => &[b"unsub"],
        b'c' => &[b"connect"],
        b'i' => &[b"info"],
        0x2b if first == b'+' => &[b"+ok"],
        0x2d if first == b'-' => &[b"-err"],
        _ => return Err(Error::Unknown),
    };
    let matches = |v: &[u8]| {
        let n = v.len().min(buf.len());
        buf[..n].eq_ignore_ascii_case(&v[..n])
    };
    let Some(verb) = verbs.iter().find(|v| matches(v)) else { return Err(Error::Unknown) };
    let n = verb.len();
    if buf.len() <= n {
        return partial;
    }
    let after = buf[n];
    match *verb {
        b"ping" | b"pong" | b"+ok" => {
            // Anything up to the line's end is skipped, as nats-server does.
            let Some((_, used)) = line(buf, n, limits)? else { return partial };
            op(
                match *verb {
                    b"ping" => Op::Ping,
                    b"pong" => Op::Pong,
                    _ => Op::Ok,
                },
                used,
            )
        }
        b"connect" | b"info" | b"-err" => {
            // JSON may follow its verb at once.
            if *verb == b"-err" && !blank(after) {
                return Err(Error::Unknown);
            }
            let from = if blank(after) { n + 1 } else { n };
            let Some((args, used)) = line(buf, from, limits)? else { return partial };
            let args = args.trim_ascii();
            op(
                match *verb {
                    b"connect" => Op::Connect(args),
                    b"info" => Op::Info(args),
                    _ => Op::Err(args),
                },
                used,
            )
        }
        b"sub" => {
            if !blank(after) {
                return Err(Error::Unknown);
            }
            let Some((args, used)) = line(buf, n + 1, limits)? else { return partial };
            let mut t = Tokens(args);
            let (subject, b, c) = (t.next_token(), t.next_token(), t.next_token());
            if b.is_empty() || !t.rest_is_blank() {
                return Err(Error::Arguments);
            }
            let (queue, sid) = if c.is_empty() { (c, b) } else { (b, c) };
            op(Op::Sub(Sub { subject, queue, sid }), used)
        }
        b"unsub" => {
            if !blank(after) {
                return Err(Error::Unknown);
            }
            let Some((args, used)) = line(buf, n + 1, limits)? else { return partial };
            let mut t = Tokens(args);
            let (sid, max) = (t.next_token(), t.next_token());
            if sid.is_empty() || !t.rest_is_blank() {
                return Err(Error::Arguments);
            }
            // A max that is no number means "now", as with nats-server.
            let max = number(max).unwrap_or(0) as u64;
            op(Op::Unsub { sid, max }, used)
        }
        // "pub" and "hpub" with enough bytes were taken by the fast path: here the blank is missing.
        _ => Err(Error::Unknown),
    }
}

/// The rest of the line from `from` on without its end, and the length of the line with it. `None` if it has not ended.
#[inline]
pub(crate) fn line<'a>(
    buf: &'a [u8],
    from: usize,
    limits: &Limits,
) -> Result<Option<(&'a [u8], usize)>, Error> {
    // The line's end does not count, nor does a CR that may turn out to be its first half (W-1).
    let Some(i) = newline(&buf[from..]) else {
        let n = buf.len() - from;
        let is_long =
            n > limits.max_control_line && (n > limits.max_control_line + 1 || !buf.ends_with(b"\r"));
        return if is_long { Err(Error::LineTooLong) } else { Ok(None) };
    };
    let end = if i > 0 && buf[from + i - 1] == b'\r' { from + i - 1 } else { from + i };
    if end - from > limits.max_control_line {
        return Err(Error::LineTooLong);
    }
    Ok(Some((&buf[from..end], from + i + 1)))
}

/// Where the first LF is. Lines are short: eight bytes at a time in line beat a call, and memchr takes over from 64 on.
#[inline(always)]
fn newline(buf: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (mut at, mut rest) = (0, buf);
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        // A byte of `x` is zero where LF stands; the lowest high bit that is left marks the first.
        let x = u64::from_le_bytes(*word) ^ (ONES * u64::from(b'\n'));
        let hit = x.wrapping_sub(ONES) & !x & (ONES << 7);
        if hit != 0 {
            return Some(at + hit.trailing_zeros() as usize / 8);
        }
        (at, rest) = (at + 8, tail);
        if at >= 64 {
            break;
        }
    }
    memchr(b'\n', rest).map(|i| at + i)
}

#[inline(always)]
pub(crate) fn blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

/// Tokens between blanks.
pub(crate) struct Tokens<'a>(pub(crate) &'a [u8]);

impl<'a> Tokens<'a> {
    /// The next one; empty at the end.
    #[inline(always)]
    pub(crate) fn next_token(&mut self) -> &'a [u8] {
        let mut s = self.0;
        while let [b, rest @ ..] = s
            && blank(*b)
        {
            s = rest;
        }
        let end = s.iter().position(|&b| blank(b)).unwrap_or(s.len());
        let (token, rest) = s.split_at(end);
        self.0 = rest;
        token
    }
    #[inline(always)]
    pub(crate) fn rest_is_blank(&self) -> bool {
        self.0.iter().all(|&b| blank(b))
    }
}

/// A decimal number that fits a message size (31 bits).
#[inline(always)]
pub(crate) fn number(s: &[u8]) -> Option<usize> {
    if s.is_empty() || s.len() > 10 {
        return None;
    }
    let mut n = 0u64;
    for &b in s {
        let d = b.wrapping_sub(b'0');
        if d > 9 {
            return None;
        }
        n = n * 10 + u64::from(d);
    }
    if n > i32::MAX as u64 { None } else { Some(n as usize) }
}

#[cfg(test)]
mod tests;
