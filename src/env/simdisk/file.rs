//! One file: what the medium holds, what the page cache holds above it, and what the program believes.

use std::{collections::BTreeMap, ops::Range};

use super::{faults::Fault, ranges::Ranges};

pub type Sector = Box<[u8]>;

/// Why a sector of the medium is not what the program was told that it is, and what it should be.
#[derive(Clone, Debug)]
pub struct Damage {
    pub fault: Fault,
    pub pristine: Sector,
}

/// Sectors that are missing in `media` read as zeros.
#[derive(Clone, Debug)]
pub struct FileNode {
    pub size: u64,
    /// The medium, by sector number, and the length that it would have after a power failure that keeps nothing.
    pub media: BTreeMap<u64, Sector>,
    pub media_len: u64,
    /// The page cache: whole sectors that no sync has covered yet.
    pub dirty: BTreeMap<u64, Sector>,
    pub len: u64,
    /// Sectors of the medium from here on were cut off since the last sync and are seen no more.
    pub floor: u64,
    /// Bytes that the program wrote, ever, and did not cut or punch away.
    pub written: Ranges,
    /// Sectors that hold data or a reservation.
    pub allocated: Ranges,
    pub damage: BTreeMap<u64, Damage>,
    /// What sectors held before their last sync, for stale reads.
    pub older: BTreeMap<u64, Sector>,
    /// What a dirty sector would hold if the damage below it were not there; only where the two can differ.
    pub believed: BTreeMap<u64, Sector>,
    /// What a lost sync claimed to have made durable.
    pub claimed: BTreeMap<u64, Sector>,
    pub modified_ns: u64,
}

impl FileNode {
    pub fn new(size: u64) -> FileNode {
        FileNode {
            size,
            media: BTreeMap::new(),
            media_len: 0,
            dirty: BTreeMap::new(),
            len: 0,
            floor: u64::MAX,
            written: Ranges::default(),
            allocated: Ranges::default(),
            damage: BTreeMap::new(),
            older: BTreeMap::new(),
            believed: BTreeMap::new(),
            claimed: BTreeMap::new(),
            modified_ns: 0,
        }
    }

    fn zeros(&self) -> Sector {
        vec![0; self.size as usize].into()
    }

    /// The numbers of the sectors that a byte range touches.
    pub fn sectors(&self, r: Range<u64>) -> Range<u64> {
        r.start / self.size..r.end.div_ceil(self.size)
    }

    /// What the program sees in a sector, and whether that comes from the medium.
    pub fn view(&self, s: u64) -> (Option<&Sector>, bool) {
        match self.dirty.get(&s) {
            Some(d) => (Some(d), false),
            None if s < self.floor => (self.media.get(&s), true),
            None => (None, false),
        }
    }

    /// The sector in the page cache, to be changed.
    fn cached(&mut self, s: u64) -> &mut Sector {
        if !self.dirty.contains_key(&s) {
            let base = self.view(s).0.cloned().unwrap_or_else(|| self.zeros());
            self.dirty.insert(s, base);
            // Changing a part of a damaged sector carries the damage along with the rest.
            if s < self.floor
                && let Some(d) = self.damage.get(&s)
            {
                self.believed.insert(s, d.pristine.clone());
            }
        }
        self.dirty.get_mut(&s).expect("the sector was put there just now")
    }

    /// Puts bytes into the page cache, or zeros if `bytes` is `None`.
    fn put(&mut self, r: Range<u64>, bytes: Option<&[u8]>) {
        for s in self.sectors(r.clone()) {
            let base = s * self.size;
            let (from, to) = (r.start.max(base), r.end.min(base + self.size));
            let to_sector = (from - base) as usize..(to - base) as usize;
            let whole = to - from == self.size;
            if whole && !self.dirty.contains_key(&s) {
                let z = self.zeros();
                self.dirty.insert(s, z);
            }
            let src = bytes.map(|b| &b[(from - r.start) as usize..(to - r.start) as usize]);
            let fill = |dst: &mut [u8]| match src {
                Some(b) => dst.copy_from_slice(b),
                None => dst.fill(0),
            };
            fill(&mut self.cached(s)[to_sector.clone()]);
            if let Some(b) = self.believed.get_mut(&s) {
                fill(&mut b[to_sector]);
            }
        }
    }

    pub fn write(&mut self, off: u64, bytes: &[u8]) {
        let r = off..off + bytes.len() as u64;
        if r.is_empty() {
            return;
        }
        self.put(r.clone(), Some(bytes));
        self.allocated.insert(self.sectors(r.clone()));
        self.len = self.len.max(r.end);
        self.written.insert(r);
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.cut(len);
        }
        self.len = len;
    }

    /// Forgets all from `len` on, in what the program sees.
    fn cut(&mut self, len: u64) {
        let whole = len.div_ceil(self.size);
        if !len.is_multiple_of(self.size) && self.view(len / self.size).0.is_some() {
            self.put(len..whole * self.size, None);
        }
        self.dirty.split_off(&whole);
        self.believed.split_off(&whole);
        self.floor = self.floor.min(whole);
        self.written.remove(len..u64::MAX);
        self.allocated.remove(whole..u64::MAX);
    }

    pub fn punch(&mut self, r: Range<u64>) {
        let r = r.start..r.end.min(self.len);
        if r.start >= r.end {
            return;
        }
        // Only sectors that hold something need a zero written over it.
        let touched: Vec<u64> = self.sectors(r.clone()).filter(|s| self.view(*s).0.is_some()).collect();
        for s in touched {
            let base = s * self.size;
            self.put(r.start.max(base)..r.end.min(base + self.size), None);
        }
        self.written.remove(r.clone());
        self.allocated.remove(r.start.div_ceil(self.size)..r.end / self.size);
    }

    /// Puts a sector on the medium, as the program was told.
    pub fn settle(&mut self, s: u64, data: Sector) {
        self.claimed.remove(&s);
        let damage = self.damage.remove(&s);
        if let (Some(d), Some(b)) = (damage, self.believed.remove(&s))
            && b != data
        {
            self.damage.insert(s, Damage { fault: d.fault, pristine: b });
        }
        self.place(s, data);
    }

    /// Puts the first `cut` bytes of a dirty sector on the medium, because the power failed.
    pub fn settle_torn(&mut self, s: u64, data: &Sector, cut: usize) {
        let mut torn = self.media.get(&s).cloned().unwrap_or_else(|| self.zeros());
        torn[..cut].copy_from_slice(&data[..cut]);
        if let Some(d) = self.damage.get(&s) {
            let mut b = d.pristine.clone();
            b[..cut].copy_from_slice(&self.believed.get(&s).unwrap_or(data)[..cut]);
            self.believed.insert(s, b);
        }
        self.settle(s, torn);
    }

    /// Changes the medium only.
    fn place(&mut self, s: u64, data: Sector) {
        let old = self.media.insert(s, data).unwrap_or_else(|| self.zeros());
        self.older.insert(s, old);
    }

    /// Puts a sector on the medium that is not what the program believes to be there.
    pub fn spoil(&mut self, s: u64, now: Option<Sector>, fault: Fault, pristine: Option<Sector>) {
        let before = self.media.get(&s).cloned().unwrap_or_else(|| self.zeros());
        if pristine.is_some() {
            self.claimed.remove(&s);
        }
        let settled = pristine.map(|p| self.believed.remove(&s).unwrap_or(p));
        let believed = settled.or_else(|| self.damage.remove(&s).map(|d| d.pristine)).unwrap_or(before);
        if let Some(now) = now {
            self.place(s, now);
        }
        let same = match self.media.get(&s) {
            Some(m) => *m == believed,
            None => believed.iter().all(|b| *b == 0),
        };
        // A write that was lost onto equal bytes damaged nothing.
        if same {
            self.damage.remove(&s);
        } else {
            self.damage.insert(s, Damage { fault, pristine: believed });
        }
    }

    /// Ends a sync: the medium has the file's length, and what was cut off is gone.
    pub fn finish_sync(&mut self) {
        self.floor = u64::MAX;
        self.media_len = self.len;
    }

    /// Takes off the medium what was cut since the last sync.
    pub fn apply_cut(&mut self) {
        if self.floor != u64::MAX {
            self.drop_media(self.floor);
        }
    }

    fn drop_media(&mut self, from: u64) {
        self.media.split_off(&from);
        self.damage.split_off(&from);
        self.older.split_off(&from);
        self.claimed.split_off(&from);
    }

    /// Makes the medium the truth, with the given length: the end of a power failure.
    pub fn reset_to_media(&mut self, len: u64) {
        self.dirty.clear();
        self.believed.clear();
        self.claimed.clear();
        self.floor = u64::MAX;
        self.media_len = len;
        self.len = len;
        let whole = len.div_ceil(self.size);
        self.drop_media(whole);
        if !len.is_multiple_of(self.size)
            && let Some(last) = self.media.get_mut(&(len / self.size))
        {
            last[(len % self.size) as usize..].fill(0);
        }
        self.written.remove(len..u64::MAX);
        self.allocated.remove(whole..u64::MAX);
        for s in self.media.keys() {
            self.allocated.insert(*s..*s + 1);
        }
    }
}
