//! Entries by id, in chunks that never move: ids stay valid while their entry lives, and growth copies nothing large.
//!
//! Does not shrink while anything is in it; an emptied slab gives all memory back.

/// Entries per chunk. With entries of 40 bytes a chunk is 20 KiB: what one insert can have to allocate at most.
const CHUNK: usize = 512;

#[derive(Clone)]
pub(crate) struct Slab<E> {
    chunks: Vec<Vec<Option<E>>>,
    free: Vec<u32>,
    len: usize,
}

impl<E> Slab<E> {
    pub(crate) const fn new() -> Self {
        Slab { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// Entries in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The id that the next insert would give: one above all ids in use, or a reused one.
    pub(crate) fn next_id(&self) -> usize {
        match self.free.last() {
            Some(&id) => id as usize,
            None => self.chunks.len().saturating_sub(1) * CHUNK + self.chunks.last().map_or(0, Vec::len),
        }
    }

    /// Puts an entry in. The caller has checked `next_id()` against its own limit, which is below 2^32.
    pub(crate) fn insert(&mut self, entry: E) -> u32 {
        self.len += 1;
        if let Some(id) = self.free.pop() {
            self.chunks[id as usize / CHUNK][id as usize % CHUNK] = Some(entry);
            return id;
        }
        let id = self.next_id();
        if self.chunks.last().is_none_or(|c| c.len() == CHUNK) {
            // The first chunk grows by doubling, since most slabs stay small; later ones are allocated whole.
            self.chunks.push(Vec::with_capacity(if self.chunks.is_empty() { 4 } else { CHUNK }));
        }
        self.chunks.last_mut().expect("a chunk with room was just made sure of").push(Some(entry));
        id as u32
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<E> {
        let entry = self.chunks.get_mut(id as usize / CHUNK)?.get_mut(id as usize % CHUNK)?.take()?;
        self.len -= 1;
        if self.len == 0 {
            *self = Slab::new();
        } else {
            self.free.push(id);
        }
        Some(entry)
    }

    #[inline(always)]
    pub(crate) fn get(&self, id: u32) -> Option<&E> {
        self.chunks.get(id as usize / CHUNK)?.get(id as usize % CHUNK)?.as_ref()
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut E> {
        self.chunks.get_mut(id as usize / CHUNK)?.get_mut(id as usize % CHUNK)?.as_mut()
    }

    /// All entries, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &E)> {
        let slots = self.chunks.iter().flatten().enumerate();
        slots.filter_map(|(id, e)| e.as_ref().map(|e| (id as u32, e)))
    }

    /// Entries by id from `id` on, and those of freed ids as `None`, up to the end.
    pub(crate) fn from(&self, id: usize) -> impl Iterator<Item = Option<(u32, &E)>> {
        let (chunk, at) = (id / CHUNK, id % CHUNK);
        let first = self.chunks.get(chunk).and_then(|c| c.get(at..)).unwrap_or_default();
        let others = self.chunks.get(chunk + 1..).unwrap_or_default().iter().flatten();
        let slots = first.iter().chain(others).enumerate();
        slots.map(move |(i, e)| e.as_ref().map(|e| ((id + i) as u32, e)))
    }

    /// Bytes allocated by the slab itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<Vec<Option<E>>>()
            + self.chunks.iter().map(|c| c.capacity() * size_of::<Option<E>>()).sum::<usize>()
            + self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_reused_and_stay_valid() {
        let mut s = Slab::new();
        let ids: Vec<u32> = (0..3 * CHUNK as u32 + 7).map(|i| s.insert(i)).collect();
        assert_eq!(ids, (0..3 * CHUNK as u32 + 7).collect::<Vec<_>>());
        assert_eq!(s.remove(600), Some(600));
        assert!(s.remove(600).is_none() && s.get(600).is_none() && s.remove(1 << 30).is_none());
        assert_eq!(s.next_id(), 600);
        assert_eq!(s.insert(9), 600);
        *s.get_mut(5).unwrap() = 50;
        assert_eq!(s.get(5), Some(&50));
        assert_eq!(s.iter().count(), s.len());
        for at in [0, 1, CHUNK - 1, CHUNK, 600, 3 * CHUNK + 6, 3 * CHUNK + 7, 9 * CHUNK] {
            let listed: Vec<_> = s.from(at).flatten().map(|(id, _)| id as usize).collect();
            assert_eq!(listed, (at..3 * CHUNK + 7).collect::<Vec<_>>());
        }
        for id in ids {
            assert!(s.remove(id).is_some());
        }
        assert_eq!((s.len(), s.heap_bytes(), s.next_id()), (0, 0, 0));
    }
}
