//! A byte string of 24 bytes that keeps up to 22 bytes in itself: most subjects and all usual tokens need no heap.

/// Longest text that needs no allocation. Chosen so that [`Text`] is as large as its heap variant must be anyway.
pub(crate) const INLINE_MAX: usize = 22;

#[derive(Clone, Debug)]
pub(crate) enum Text {
    Inline { len: u8, bytes: [u8; INLINE_MAX] },
    Heap(Box<[u8]>),
}

const _: () = assert!(size_of::<Text>() == 24);

impl Text {
    pub(crate) fn new(s: &[u8]) -> Text {
        if s.len() > INLINE_MAX {
            return Text::Heap(s.into());
        }
        let mut bytes = [0; INLINE_MAX];
        bytes[..s.len()].copy_from_slice(s);
        Text::Inline { len: s.len() as u8, bytes }
    }

    #[inline(always)]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Text::Inline { len, bytes } => &bytes[..*len as usize],
            Text::Heap(b) => b,
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Text::Inline { .. } => 0,
            Text::Heap(b) => b.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_length() {
        for n in 0..60 {
            let s: Vec<u8> = (0..n).collect();
            let t = Text::new(&s);
            assert_eq!(t.as_bytes(), s);
            assert_eq!(t.heap_bytes(), if s.len() > INLINE_MAX { s.len() } else { 0 });
        }
    }
}
