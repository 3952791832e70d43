//! From frames to bytes.

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};

use super::{op, push_frame, status};

/// Largest payload of a control frame, in bytes (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// What a compressed message's frames leave out at its end (RFC 7692, 7.2.2).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Inflaters kept by a worker for the next messages.
const INFLATERS_MAX: usize = 4;
/// Bytes unmasked at a time before they are inflated.
const UNMASK_BYTES: usize = 1 << 10;

thread_local!(static INFLATERS: RefCell<Vec<Decompress>> = const { RefCell::new(Vec::new()) });

/// The peer broke the protocol: the close code and what to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Close code.
    pub status: u16,
    /// The reason, for the close frame and the log.
    pub text: &'static str,
}

const fn violation(text: &'static str) -> Violation {
    Violation { status: status::PROTOCOL_ERROR, text }
}

/// Where in a frame the decoder is.
#[derive(Debug)]
enum At {
    /// In the header, of which `have` holds the first `n` bytes.
    Header { have: [u8; 14], n: usize },
    /// In a data frame's payload.
    Data { left: u64 },
    /// In a control frame's payload, which is gathered.
    Control { op: u8, left: usize },
    /// All bytes of a compressed message are read; its tail, and then what it still inflates to, is due.
    Tail { fed: usize },
    /// The peer has closed.
    Closed,
}

/// Reads one connection's frames.
#[derive(Debug)]
pub struct Decoder {
    /// Client frames must be masked; off if the client asked for that.
    masked: bool,
    /// permessage-deflate was agreed on.
    compress: bool,
    /// Bytes that one message may inflate to.
    inflated_max: usize,
    at: At,
    mask: Option<[u8; 4]>,
    /// Position in the mask.
    mask_at: usize,
    /// A message has begun and not ended.
    in_message: bool,
    /// The present data frame is its message's last.
    last: bool,
    /// The present message's inflater, if it is compressed.
    inflate: Option<Decompress>,
    /// What it has inflated to.
    inflated: usize,
    /// Its stream has ended, as a client may make it do; what follows in the message is padding.
    ended: bool,
    /// The inflater filled all the room it had; there may be more.
    more: bool,
    control: Vec<u8>,
}

impl Decoder {
    /// A decoder at the start of a connection. `masked` says whether frames must be masked (otherwise they must not be);
    /// `inflated_max` is the most, in bytes, that a compressed message may hold.
    pub fn new(masked: bool, compress: bool, inflated_max: usize) -> Decoder {
        Decoder {
            masked,
            compress,
            inflated_max,
            at: At::Header { have: [0; 14], n: 0 },
            mask: None,
            mask_at: 0,
            in_message: false,
            last: false,
            inflate: None,
            inflated: 0,
            ended: false,
            more: false,
            control: Vec::new(),
        }
    }
    /// Whether a close frame has come; nothing is read after it.
    pub fn is_closed(&self) -> bool {
        matches!(self.at, At::Closed)
    }
    /// Whether a call without new input may bring more.
    pub fn has_more(&self) -> bool {
        self.more || matches!(self.at, At::Tail { .. })
    }
    /// Decodes from `input` into `out`, until one of them is used up. Frames that answer the peer (pong, close) are appended
    /// to `replies`. Returns how many bytes were taken and how many were made; what was not taken must come again.
    ///
    /// # Errors
    /// The connection must end with the close code that the error names. Bytes made before it are lost.
    pub fn decode(
        &mut self,
        input: &[u8],
        out: &mut [u8],
        replies: &mut Vec<u8>,
    ) -> Result<(usize, usize), Violation> {
        let (mut used, mut made) = (0, 0);
        loop {
            match &mut self.at {
                At::Closed => return Ok((input.len(), made)),
                At::Header { have, n } => {
                    let need = header_len(&have[..*n]);
                    if *n < need {
                        let take = (need - *n).min(input.len() - used);
                        if take == 0 {
                            return Ok((used, made));
                        }
                        have[*n..*n + take].copy_from_slice(&input[used..used + take]);
                        *n += take;
                        used += take;
                        continue;
                    }
                    let (have, n) = (*have, *n);
                    self.header(&have[..n])?;
                }
                At::Data { left: 0 } if !self.more => self.data_ends(),
                At::Data { left } => {
                    let some = &input[used..];
                    let some = &some[..some.len().min(usize::try_from(*left).unwrap_or(usize::MAX))];
                    if out.len() == made || (some.is_empty() && !self.more) {
                        return Ok((used, made));
                    }
                    let (u, m) = self.data(some, &mut out[made..])?;
                    used += u;
                    made += m;
                    if let At::Data { left } = &mut self.at {
                        *left -= u as u64;
                    }
                }
                At::Tail { fed } => {
                    if out.len() == made {
                        return Ok((used, made));
                    }
                    let fed = *fed;
                    let (u, m) = self.inflate(&TAIL[fed..], &mut out[made..])?;
                    made += m;
                    let fed = fed + u;
                    self.at = At::Tail { fed };
                    if fed == TAIL.len() && !self.more {
                        self.message_ends();
                    }
                }
                At::Control { op, left: 0 } => {
                    let op = *op;
                    self.at = At::Header { have: [0; 14], n: 0 };
                    self.control_ends(op, replies)?;
                }
                At::Control { left, .. } => {
                    let take = (*left).min(input.len() - used);
                    if take == 0 {
                        return Ok((used, made));
                    }
                    *left -= take;
                    let from = self.control.len();
                    self.control.extend_from_slice(&input[used..used + take]);
                    if let Some(mask) = self.mask {
                        unmask_in_place(&mut self.control[from..], mask, self.mask_at);
                        self.mask_at += take;
                    }
                    used += take;
                }
            }
        }
    }

    /// A whole header has come.
    fn header(&mut self, h: &[u8]) -> Result<(), Violation> {
        let (fin, rsv1, op) = (h[0] & 0x80 != 0, h[0] & 0x40 != 0, h[0] & 0x0f);
        if h[0] & 0x30 != 0 || (rsv1 && !self.compress) {
            return Err(violation("reserved bits are set"));
        }
        if (h[1] & 0x80 != 0) != self.masked {
            return Err(violation(if self.masked { "mask bit missing" } else { "mask bit is set" }));
        }
        let (len, after) = match h[1] & 0x7f {
            126 => (u64::from(u16::from_be_bytes([h[2], h[3]])), 4),
            127 => (u64::from_be_bytes(h[2..10].try_into().expect("the header is whole")), 10),
            n => (u64::from(n), 2),
        };
        if len >> 63 != 0 {
            return Err(violation("invalid 64-bit payload length"));
        }
        self.mask = self.masked.then(|| h[after..after + 4].try_into().expect("the header is whole"));
        self.mask_at = 0;
        match op {
            op::CLOSE | op::PING | op::PONG => {
                if h[1] & 0x7f > CONTROL_BYTES_MAX as u8 {
                    return Err(violation("control frame length bigger than maximum allowed of 125 bytes"));
                }
                if !fin {
                    return Err(violation("control frame does not have final bit set"));
                }
                if rsv1 {
                    return Err(violation("reserved bits are set"));
                }
                self.control.clear();
                self.at = At::Control { op, left: len as usize };
                return Ok(());
            }
            op::CONTINUATION if !self.in_message => {
                return Err(violation("invalid continuation frame"));
            }
            op::CONTINUATION if rsv1 => return Err(violation("reserved bits are set")),
            op::CONTINUATION => {}
            op::TEXT | op::BINARY if self.in_message => {
                return Err(violation("new message started before final frame for previous message"));
            }
            op::TEXT | op::BINARY => {
                self.in_message = true;
                (self.inflated, self.ended) = (0, false);
                if rsv1 {
                    let mut d = INFLATERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Decompress::new(false));
                    d.reset(false);
                    self.inflate = Some(d);
                }
            }
            _ => return Err(violation("unknown opcode")),
        }
        self.last = fin;
        self.at = At::Data { left: len };
        Ok(())
    }

    /// Some of a data frame's payload; at least one byte of room, and input unless there may be more to inflate.
    fn data(&mut self, some: &[u8], out: &mut [u8]) -> Result<(usize, usize), Violation> {
        if self.inflate.is_none() {
            let n = some.len().min(out.len());
            match self.mask {
                Some(mask) => unmask(&some[..n], &mut out[..n], mask, self.mask_at),
                None => out[..n].copy_from_slice(&some[..n]),
            }
            self.mask_at += n;
            return Ok((n, n));
        }
        let mut clear = [0; UNMASK_BYTES];
        let n = some.len().min(UNMASK_BYTES);
        match self.mask {
            Some(mask) => unmask(&some[..n], &mut clear[..n], mask, self.mask_at),
            None => clear[..n].copy_from_slice(&some[..n]),
        }
        let (u, m) = self.inflate(&clear[..n], out)?;
        self.mask_at += u;
        Ok((u, m))
    }

    /// Inflates some bytes into at least one byte of room.
    fn inflate(&mut self, some: &[u8], out: &mut [u8]) -> Result<(usize, usize), Violation> {
        if self.ended {
            self.more = false;
            return Ok((some.len(), 0));
        }
        let d = self.inflate.as_mut().expect("only a compressed message is inflated");
        let (in0, out0) = (d.total_in(), d.total_out());
        let bad = Violation { status: status::INVALID_DATA, text: "corrupt compressed message" };
        let end = d.decompress(some, out, FlushDecompress::Sync).map_err(|_| bad)?;
        let (mut u, m) = ((d.total_in() - in0) as usize, (d.total_out() - out0) as usize);
        if end == Status::StreamEnd {
            u = some.len();
            (self.ended, self.more) = (true, false);
        } else {
            self.more = m == out.len();
            if u == 0 && m == 0 && !some.is_empty() {
                return Err(bad);
            }
        }
        self.inflated += m;
        // L-7
        if self.inflated > self.inflated_max {
            return Err(Violation { status: status::TOO_BIG, text: "maximum payload exceeded" });
        }
        Ok((u, m))
    }

    fn data_ends(&mut self) {
        match (&self.inflate, self.last) {
            (Some(_), true) => self.at = At::Tail { fed: 0 },
            (None, true) => self.message_ends(),
            (_, false) => self.at = At::Header { have: [0; 14], n: 0 },
        }
    }

    fn message_ends(&mut self) {
        self.in_message = false;
        self.more = false;
        self.at = At::Header { have: [0; 14], n: 0 };
        if let Some(d) = self.inflate.take() {
            INFLATERS.with_borrow_mut(|all| {
                if all.len() < INFLATERS_MAX {
                    all.push(d);
                }
            });
        }
    }

    fn control_ends(&mut self, op: u8, replies: &mut Vec<u8>) -> Result<(), Violation> {
        let body = std::mem::take(&mut self.control);
        match op {
            op::PING => push_frame(replies, op::PONG, false, &body),
            op::CLOSE => {
                self.at = At::Closed;
                if let Some((code, text)) = body.split_first_chunk() {
                    let code = u16::from_be_bytes(*code);
                    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                        return Err(violation("invalid close status"));
                    }
                    if std::str::from_utf8(text).is_err() {
                        let text = "invalid utf8 body in close frame";
                        return Err(Violation { status: status::INVALID_DATA, text });
                    }
                } else if !body.is_empty() {
                    return Err(violation("close frame with a body of one byte"));
                }
                push_frame(replies, op::CLOSE, false, &body);
            }
            _ => {}
        }
        Ok(())
    }
}

/// How long the header is that begins with `have`, as far as that can be told.
fn header_len(have: &[u8]) -> usize {
    let Some(&second) = have.get(1) else { return 2 };
    let len = match second & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    len + if second & 0x80 != 0 { 4 } else { 0 }
}

/// The mask, turned to begin at position `at`, eight bytes of it.
fn turned(mask: [u8; 4], at: usize) -> [u8; 8] {
    std::array::from_fn(|i| mask[(at + i) % 4])
}

fn unmask(from: &[u8], to: &mut [u8], mask: [u8; 4], at: usize) {
    let mask = turned(mask, at);
    let wide = u64::from_ne_bytes(mask);
    let (words, rest) = from.as_chunks::<8>();
    let (to_words, to_rest) = to.as_chunks_mut::<8>();
    for (t, f) in to_words.iter_mut().zip(words) {
        *t = (u64::from_ne_bytes(*f) ^ wide).to_ne_bytes();
    }
    for ((t, f), m) in to_rest.iter_mut().zip(rest).zip(mask) {
        *t = f ^ m;
    }
}

fn unmask_in_place(bytes: &mut [u8], mask: [u8; 4], at: usize) {
    for (b, m) in bytes.iter_mut().zip(turned(mask, at).into_iter().cycle()) {
        *b ^= m;
    }
}
