//! Numbers and bytes as the stream's own formats write them: commands, snapshots, consumers' deltas.
//!
//! Reading never panics: what does not fit is `None`.

/// Appends a number: seven bits a byte, the lowest first.
pub fn put_number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends bytes with their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, b: &[u8]) {
    put_number(out, b.len() as u64);
    out.extend_from_slice(b);
}

/// Reads what the `put` functions wrote; `None` is damage.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    pub fn i64(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub fn number(&mut self) -> Option<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let b = self.u8()?;
            let part = u64::from(b & 0x7f);
            // The tenth byte has room for one bit, and a number is written in its shortest form.
            if shift == 63 && part > 1 || shift > 0 && b == 0 {
                return None;
            }
            n |= part << shift;
            if b & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = usize::try_from(self.number()?).ok()?;
        self.take(n)
    }

    /// How many items follow, none shorter than `least` bytes: a length that cannot be true is refused before it is believed.
    pub fn count(&mut self, least: usize) -> Option<usize> {
        let n = usize::try_from(self.number()?).ok()?;
        (n.checked_mul(least)? <= self.0.len()).then_some(n)
    }

    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
