//! Framing of what a server sends. Every function appends to a buffer.

/// Appends `n` in decimal.
#[inline]
pub fn push_decimal(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut i = digits.len();
    loop {
        i -= 1;
        digits[i] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[i..]);
}

/// The parts of a delivery's first line that are the same for every receiver: computed once a message, copied once a
/// receiver. `MSG <subject> ` + sid + ` [<reply> ]<size>\r\n`.
///
/// Publishers mostly send the same subject and size again, to receivers that mostly have the same sid: then nothing is computed,
/// and the whole line is copied at once. A copy costs a call, whatever its length.
#[derive(Default, Debug)]
pub struct MsgHead {
    /// `MSG subject ` (or HMSG): what stands before the sid.
    before: Vec<u8>,
    /// ` reply size\r\n`: what stands after it.
    after: Vec<u8>,
    header_len: Option<usize>,
    total: usize,
    has_reply: bool,
    /// The sid of the last receiver of this line, packed; 0 for none.
    last: u64,
    /// The whole line for that sid, once it has been asked for twice; else empty.
    whole: Vec<u8>,
}

/// A short sid as a number that no other short sid has; 0 for a long one.
#[inline(always)]
fn packed(sid: &[u8]) -> u64 {
    if sid.len() > 7 { 0 } else { sid.iter().fold(1, |n, b| n << 8 | u64::from(*b)) }
}

impl MsgHead {
    /// Prepares the line of a message. With `header_len` the form is HMSG.
    #[inline]
    pub fn set(&mut self, subject: &[u8], reply: &[u8], header_len: Option<usize>, total: usize) {
        let verb: &[u8] = if header_len.is_some() { b"HMSG " } else { b"MSG " };
        let end = verb.len() + subject.len();
        let is_same = self.total == total
            && self.header_len == header_len
            && reply.is_empty()
            && !self.has_reply
            && self.before.len() == end + 1
            && self.before[verb.len()..end] == *subject;
        if is_same {
            return;
        }
        self.before.clear();
        self.before.extend_from_slice(verb);
        self.before.extend_from_slice(subject);
        self.before.push(b' ');
        self.after.clear();
        self.after.push(b' ');
        if !reply.is_empty() {
            self.after.extend_from_slice(reply);
            self.after.push(b' ');
        }
        if let Some(h) = header_len {
            push_decimal(&mut self.after, h as u64);
            self.after.push(b' ');
        }
        push_decimal(&mut self.after, total as u64);
        self.after.extend_from_slice(b"\r\n");
        (self.header_len, self.total, self.has_reply) = (header_len, total, !reply.is_empty());
        self.last = 0;
        self.whole.clear();
    }
    /// The line's length for a receiver's `sid`.
    #[inline]
    pub fn len(&self, sid: &[u8]) -> usize {
        self.before.len() + sid.len() + self.after.len()
    }
    /// Bytes of header block that the line announces.
    pub fn header_len(&self) -> usize {
        self.header_len.unwrap_or(0)
    }
    /// Never: a line has at least its verb.
    pub fn is_empty(&self) -> bool {
        false
    }
    /// Appends the line for a receiver's `sid`.
    #[inline]
    pub fn push(&mut self, sid: &[u8], out: &mut Vec<u8>) {
        let sid_packed = packed(sid);
        if sid_packed == self.last && sid_packed != 0 {
            if self.whole.is_empty() {
                for part in [&self.before[..], sid, &self.after] {
                    self.whole.extend_from_slice(part);
                }
            }
            return out.extend_from_slice(&self.whole);
        }
        if self.last != 0 {
            self.whole.clear();
        }
        self.last = sid_packed;
        out.extend_from_slice(&self.before);
        out.extend_from_slice(sid);
        out.extend_from_slice(&self.after);
    }
}

/// Appends `-ERR 'text'`.
pub fn push_err(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"-ERR '");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"'\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let mut h = MsgHead::default();
        let line = |h: &mut MsgHead, sid: &[u8]| {
            let mut v = Vec::new();
            h.push(sid, &mut v);
            assert_eq!(v.len(), h.len(sid));
            String::from_utf8(v).unwrap()
        };
        h.set(b"foo.bar", b"", None, 0);
        assert_eq!(line(&mut h, b"9"), "MSG foo.bar 9 0\r\n");
        h.set(b"foo", b"r", Some(12), 1234);
        assert_eq!(line(&mut h, b"ab"), "HMSG foo ab r 12 1234\r\n");
    }

    #[test]
    fn a_line_that_is_kept_is_the_line_that_would_be_made() {
        let mut kept = MsgHead::default();
        let subjects: [&[u8]; 3] = [b"a", b"a.b", b"b"];
        let sids: [&[u8]; 7] = [b"1", b"1", b"1", b"\x001", b"12345678", b"12345678", b"2"];
        let mut n = 7u64;
        for _ in 0..20_000 {
            let mut pick = |below: usize| {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (n >> 33) as usize % below
            };
            let (subject, reply) = (subjects[pick(3)], [&b""[..], b"", b"r"][pick(3)]);
            let (header_len, total) = ([None, None, Some(12)][pick(3)], [16, 16, 17][pick(3)]);
            let mut fresh = MsgHead::default();
            kept.set(subject, reply, header_len, total);
            fresh.set(subject, reply, header_len, total);
            for _ in 0..pick(4) {
                let sid = sids[pick(7)];
                let (mut a, mut b) = (Vec::new(), Vec::new());
                kept.push(sid, &mut a);
                fresh.before.iter().chain(sid).chain(&fresh.after).for_each(|c| b.push(*c));
                assert_eq!((&a, a.len()), (&b, kept.len(sid)));
            }
        }
    }

    #[test]
    fn decimals() {
        for n in [0, 7, 10, 99, 12345, u64::MAX] {
            let mut v = Vec::new();
            push_decimal(&mut v, n);
            assert_eq!(String::from_utf8(v).unwrap(), n.to_string());
        }
    }
}
