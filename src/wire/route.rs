//! The protocol between the servers of a cluster, as of nats-server 2.15: interest (`RS+`, `RS-`), messages (`RMSG`,
//! `HMSG`), and the INFO and CONNECT that open a route ([`info`]).
//!
//! A route is shared by all accounts, and each line names the account, or belongs to one account alone, and then no line
//! names it ([`Limits::pinned`]).
//!
//! Invariants: W-1 and W-2 of the crate hold here too.

pub mod info;

use crate::{
    Parsed,
    client::{self, Error, Tokens, blank, line, number},
    frame::push_decimal,
};

/// What the parser must know of the route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest line in bytes without its end.
    pub max_control_line: usize,
    /// Largest header block and payload together, in bytes.
    pub max_payload: usize,
    /// The route belongs to one account, which its lines leave out.
    pub pinned: bool,
}

/// A message from another server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msg<'a> {
    /// The account; empty on a pinned route.
    pub account: &'a [u8],
    /// The subject.
    pub subject: &'a [u8],
    /// The reply subject; may be empty.
    pub reply: &'a [u8],
    /// Names of the queue groups of which one member each is to get it, with blanks between; may be empty.
    pub queues: &'a [u8],
    /// Bytes of header block at the front of the body.
    pub header_len: usize,
    /// Header block and payload, and CRLF after them.
    pub body_crlf: &'a [u8],
}

/// Interest of another server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest<'a> {
    /// The account; empty on a pinned route.
    pub account: &'a [u8],
    /// The subject; not validated.
    pub subject: &'a [u8],
    /// The queue name; empty for plain subscriptions.
    pub queue: &'a [u8],
    /// Members of the queue group there, at least 1; 1 for plain subscriptions and for RS-.
    pub weight: u32,
}

/// One operation of another server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op<'a> {
    /// RMSG or HMSG.
    Msg(Msg<'a>),
    /// RS+.
    Sub(Interest<'a>),
    /// RS-.
    Unsub(Interest<'a>),
    /// PING.
    Ping,
    /// PONG.
    Pong,
    /// CONNECT with its JSON text.
    Connect(&'a [u8]),
    /// INFO with its JSON text.
    Info(&'a [u8]),
    /// +OK.
    Ok,
    /// -ERR with its text.
    Err(&'a [u8]),
}

/// Looks at the front of `buf`.
#[inline]
pub fn parse<'a>(buf: &'a [u8], limits: &Limits) -> Result<Parsed<Op<'a>>, Error> {
    // Messages first: they are what routes carry most.
    if buf.len() >= 5
        && (buf[0] | 0x20 == b'r' || buf[0] | 0x20 == b'h')
        && buf[1..4].eq_ignore_ascii_case(b"msg")
        && blank(buf[4])
    {
        return if buf[0] | 0x20 == b'r' {
            message::<false>(buf, limits)
        } else {
            message::<true>(buf, limits)
        };
    }
    other(buf, limits)
}

fn lines(limits: &Limits) -> client::Limits {
    client::Limits {
        max_control_line: limits.max_control_line,
        max_payload: limits.max_payload,
        headers: true,
    }
}

#[inline]
fn message<'a, const HEADERS: bool>(buf: &'a [u8], limits: &Limits) -> Result<Parsed<Op<'a>>, Error> {
    let Some((args, line_used)) = line(buf, 5, &lines(limits))? else {
        return Ok(Parsed::Partial { need: 0 });
    };
    // [account] subject … [#header] #total: the sizes are at the end, so that end is taken off first.
    let (args, total) = last(args);
    let total = number(total).ok_or(Error::Arguments)?;
    let (args, header_len) = if HEADERS {
        let (args, n) = last(args);
        (args, number(n).ok_or(Error::Arguments)?)
    } else {
        (args, 0)
    };
    let mut t = Tokens(args);
    let account = if limits.pinned { &[][..] } else { t.next_token() };
    let subject = t.next_token();
    if subject.is_empty() || header_len > total {
        return Err(Error::Arguments);
    }
    let mut reply = t.next_token();
    let mut queues = t.0.trim_ascii();
    if !queues.is_empty() {
        match reply {
            b"+" => {
                reply = t.next_token();
                queues = t.0.trim_ascii();
                if queues.is_empty() {
                    return Err(Error::Arguments);
                }
            }
            b"|" => reply = b"",
            _ => return Err(Error::Arguments),
        }
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
    let op = Op::Msg(Msg { account, subject, reply, queues, header_len, body_crlf });
    Ok(Parsed::Op { op, used })
}

/// The last word of a line, and what is before it.
#[inline]
fn last(args: &[u8]) -> (&[u8], &[u8]) {
    let end = args.iter().rposition(|b| !blank(*b)).map_or(0, |i| i + 1);
    let start = args[..end].iter().rposition(|b| blank(*b)).map_or(0, |i| i + 1);
    (&args[..start], &args[start..end])
}

#[cold]
#[inline(never)]
fn other<'a>(buf: &'a [u8], limits: &Limits) -> Result<Parsed<Op<'a>>, Error> {
    let partial = Ok(Parsed::Partial { need: 0 });
    let Some(&first) = buf.first() else { return partial };
    let verbs: &[&[u8]] = match first | 0x20 {
        b'r' => &[b"rs+", b"rs-", b"rmsg"],
        b'h' => &[b"hmsg"],
        b'p' => &[b"ping", b"pong"],
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
    // Anything up to the line's end is skipped after these, as on the client protocol.
    let bare = matches!(*verb, b"ping" | b"pong" | b"+ok");
    if !bare && !blank(buf[n]) {
        return Err(if matches!(buf[n], b'\r' | b'\n') { Error::Arguments } else { Error::Unknown });
    }
    let Some((args, used)) = line(buf, n + usize::from(!bare), &lines(limits))? else { return partial };
    let op = match *verb {
        b"ping" => Op::Ping,
        b"pong" => Op::Pong,
        b"+ok" => Op::Ok,
        b"connect" => Op::Connect(args.trim_ascii()),
        b"info" => Op::Info(args.trim_ascii()),
        b"-err" => Op::Err(args.trim_ascii()),
        b"rs+" => Op::Sub(interest(args, limits, true)?),
        b"rs-" => Op::Unsub(interest(args, limits, false)?),
        // "rmsg" and "hmsg" with a blank were taken by the fast path.
        _ => return Err(Error::Unknown),
    };
    Ok(Parsed::Op { op, used })
}

/// `[account] subject [queue weight]`, or without the weight.
fn interest<'a>(args: &'a [u8], limits: &Limits, weighted: bool) -> Result<Interest<'a>, Error> {
    let mut t = Tokens(args);
    let account = if limits.pinned { &[][..] } else { t.next_token() };
    let (subject, queue) = (t.next_token(), t.next_token());
    if subject.is_empty() {
        return Err(Error::Arguments);
    }
    let mut weight = 1;
    if weighted && !queue.is_empty() {
        // A nats-server leaves it out where it tells of a group once more after our permissions have changed.
        let n = match t.next_token() {
            b"" => 1,
            text => number(text).ok_or(Error::Arguments)?,
        };
        weight = u32::try_from(n.max(1)).map_err(|_| Error::Arguments)?;
    }
    if !t.rest_is_blank() {
        return Err(Error::Arguments);
    }
    Ok(Interest { account, subject, queue, weight })
}

/// The parts of a message's line that are the same for every route, computed once a message.
/// `RMSG ` + account + ` subject ` + `[reply ]` or `+ reply ` or `| `, queues + sizes.
#[derive(Default, Debug)]
pub struct RouteHead {
    headers: bool,
    subject: Vec<u8>,
    reply: Vec<u8>,
    sizes: Vec<u8>,
}

impl RouteHead {
    /// Prepares the line of a message. With `header_len` the form is HMSG. `shown` is the subject that receivers are to
    /// be shown, if that is another one: it rides behind a reply subject of JetStream, as with nats-server.
    pub fn set(
        &mut self,
        subject: &[u8],
        shown: Option<&[u8]>,
        reply: &[u8],
        header_len: Option<usize>,
        total: usize,
    ) {
        self.headers = header_len.is_some();
        self.subject.clear();
        self.subject.extend_from_slice(subject);
        self.subject.push(b' ');
        self.reply.clear();
        self.reply.extend_from_slice(reply);
        if let Some(shown) = shown.filter(|s| *s != subject && reply.starts_with(ACK_PREFIX)) {
            self.reply.push(SHOWN_MARK);
            self.reply.extend_from_slice(shown);
        }
        if !self.reply.is_empty() {
            self.reply.push(b' ');
        }
        self.sizes.clear();
        if let Some(n) = header_len {
            push_decimal(&mut self.sizes, n as u64);
            self.sizes.push(b' ');
        }
        push_decimal(&mut self.sizes, total as u64);
        self.sizes.extend_from_slice(b"\r\n");
    }
    /// The line's length for a route.
    #[inline]
    pub fn len(&self, account: &[u8], queues: &[u8]) -> usize {
        let account = if account.is_empty() { 0 } else { account.len() + 1 };
        let mark = if queues.is_empty() { 0 } else { 2 };
        5 + account + self.subject.len() + mark + self.reply.len() + queues.len() + self.sizes.len()
    }
    /// Never: a line has at least its verb.
    pub fn is_empty(&self) -> bool {
        false
    }
    /// Appends the line. `account` is empty on a pinned route; each name in `queues` ends in a blank.
    #[inline]
    pub fn push(&self, account: &[u8], queues: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(if self.headers { b"HMSG " } else { b"RMSG " });
        if !account.is_empty() {
            out.extend_from_slice(account);
            out.push(b' ');
        }
        out.extend_from_slice(&self.subject);
        if !queues.is_empty() {
            out.extend_from_slice(if self.reply.is_empty() { b"| " } else { b"+ " });
        }
        out.extend_from_slice(&self.reply);
        out.extend_from_slice(queues);
        out.extend_from_slice(&self.sizes);
    }
}

/// Reply subjects of JetStream's deliveries, which no client may use as its own.
const ACK_PREFIX: &[u8] = b"$JS.ACK.";
/// Stands between a reply subject and the subject that receivers are to be shown.
const SHOWN_MARK: u8 = b'@';

/// Takes a reply subject apart into itself and the subject that receivers are to be shown. Only replies that JetStream
/// makes carry one: a client's own reply subject may hold the mark.
pub fn split_shown(reply: &[u8]) -> (&[u8], Option<&[u8]>) {
    if !reply.starts_with(ACK_PREFIX) {
        return (reply, None);
    }
    match reply.iter().position(|b| *b == SHOWN_MARK) {
        Some(i) if i + 1 < reply.len() => (&reply[..i], Some(&reply[i + 1..])),
        _ => (reply, None),
    }
}

/// Appends the line that tells of interest, or of its end. `text` is a subject, or a subject and a queue name with a blank
/// between; `weight` is told with `RS+` of queues alone.
pub fn push_interest(out: &mut Vec<u8>, on: bool, account: &[u8], text: &[u8], weight: Option<u32>) {
    out.extend_from_slice(if on { b"RS+ " } else { b"RS- " });
    if !account.is_empty() {
        out.extend_from_slice(account);
        out.push(b' ');
    }
    out.extend_from_slice(text);
    if let (Some(n), true) = (weight, on) {
        out.push(b' ');
        push_decimal(out, u64::from(n));
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
