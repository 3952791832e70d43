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
#[derive(Default, Debug)]
pub struct MsgHead {
    /// `MSG subject ` (or HMSG): what stands before the sid.
    before: Vec<u8>,
    /// ` reply size\r\n`: what stands after it.
    after: Vec<u8>,
}

impl MsgHead {
    /// Prepares the line of a message. With `header_len` the form is HMSG.
    #[inline]
    pub fn set(&mut self, subject: &[u8], reply: &[u8], header_len: Option<usize>, total: usize) {
        self.before.clear();
        self.before.extend_from_slice(if header_len.is_some() { b"HMSG " } else { b"MSG " });
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
    }
    /// The line's length for a receiver's `sid`.
    #[inline]
    pub fn len(&self, sid: &[u8]) -> usize {
        self.before.len() + sid.len() + self.after.len()
    }
    /// Never: a line has at least its verb.
    pub fn is_empty(&self) -> bool {
        false
    }
    /// Appends the line for a receiver's `sid`.
    #[inline]
    pub fn push(&self, sid: &[u8], out: &mut Vec<u8>) {
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
        let line = |h: &MsgHead, sid: &[u8]| {
            let mut v = Vec::new();
            h.push(sid, &mut v);
            assert_eq!(v.len(), h.len(sid));
            String::from_utf8(v).unwrap()
        };
        h.set(b"foo.bar", b"", None, 0);
        assert_eq!(line(&h, b"9"), "MSG foo.bar 9 0\r\n");
        h.set(b"foo", b"r", Some(12), 1234);
        assert_eq!(line(&h, b"ab"), "HMSG foo ab r 12 1234\r\n");
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
