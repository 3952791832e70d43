//! From bytes to frames.

use std::cell::RefCell;

use flate2::{Compress, Compression, FlushCompress};

use super::op;

/// Payloads shorter than this are not worth compressing, in bytes.
const COMPRESS_BYTES_MIN: usize = 64;
/// What a message's compression ends with and the frame leaves out (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

thread_local!(static DEFLATE: RefCell<Option<Box<Compress>>> = const { RefCell::new(None) });

/// Makes frames for one connection. Holds no buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Encoder {
    /// permessage-deflate was agreed on.
    pub compress: bool,
}

impl Encoder {
    /// Appends one message of one frame with `payload`.
    pub fn push(&self, out: &mut Vec<u8>, payload: &[u8]) {
        if self.compress && payload.len() >= COMPRESS_BYTES_MIN {
            let deflated = deflate(payload);
            if deflated.len() < payload.len() {
                return push_frame(out, op::BINARY, true, &deflated);
            }
        }
        push_frame(out, op::BINARY, false, payload);
    }
}

/// Appends a whole frame, unmasked. `deflated` sets RSV1.
pub fn push_frame(out: &mut Vec<u8>, op: u8, deflated: bool, payload: &[u8]) {
    out.reserve(10 + payload.len());
    out.push(0x80 | if deflated { 0x40 } else { 0 } | op);
    match payload.len() {
        n @ 0..126 => out.push(n as u8),
        n @ 126..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// A message's payload as permessage-deflate sends it, without context from earlier ones.
fn deflate(payload: &[u8]) -> Vec<u8> {
    DEFLATE.with_borrow_mut(|kept| {
        let c = kept.get_or_insert_with(|| Box::new(Compress::new(Compression::fast(), false)));
        c.reset();
        let mut out = Vec::with_capacity(payload.len() / 2 + 64);
        loop {
            let at = c.total_in() as usize;
            let before = out.len();
            let r = c.compress_vec(&payload[at..], &mut out, FlushCompress::Sync);
            // A deflater refuses no bytes; if it ever does, the message goes out as it is.
            if r.is_err() {
                return payload.to_vec();
            }
            if c.total_in() as usize == payload.len() && out.len() < out.capacity() {
                break;
            }
            if out.len() == out.capacity() || out.len() == before {
                out.reserve(payload.len() / 2 + 64);
            }
        }
        if out.ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        }
        out
    })
}
