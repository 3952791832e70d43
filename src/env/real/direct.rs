//! Past the page cache: large writes and reads in order, through aligned memory that goes round.
//!
//! Memory that is used for the first time, of the page cache or of the heap, costs more than all else that is done with a byte: on a virtual machine the host has to find
//! each page. Owns the aligned buffers and the choice between the two ways; where a file system has no way past its cache, or an offset or a length does not fit, everything
//! goes through it. The kernel keeps the two ways coherent. Promises nothing about durability that `disk` does not (E-1).

use std::{
    fs, io,
    ops::Range,
    sync::{Mutex, atomic::Ordering},
};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    disk::{File, Inner},
    sys,
};

/// Where what goes past the page cache has to begin and end, in the file and in memory.
const ALIGN: usize = 4096;
/// What is written at once of a new file. Each write costs a wake-up of a thread and a word to the device, and on virtual machines that is a trip to the host: 15 us of CPU for
/// 128 KiB in writes of 512 KiB, 9 in writes of 1 or 2 MiB.
const CHUNK: usize = 1 << 20;
/// And of a round: one of a mebibyte is a little more than that.
const ROUND: usize = (1 << 20) + (128 << 10);
/// A round of writes below this goes through the page cache, which is quicker to take little.
const ROUND_MIN: usize = 64 << 10;
/// How often all of a file is read in order past the page cache before what is read of it is left there: what was read so often is popular. Memory of the page
/// cache that is used for the first time costs several times what a reading past it does.
const PASSES: u64 = 3;
/// Rooms for reading that are kept for the next reader, and how large the largest of them is.
const SPARE_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = (1 << 20) + 2 * ALIGN;

/// Aligned memory.
#[derive(Debug, Default)]
pub(super) struct Room {
    mem: Vec<u8>,
    from: usize,
}

impl Room {
    fn new(len: usize) -> Room {
        let mem = vec![0u8; len + ALIGN];
        let from = mem.as_ptr().align_offset(ALIGN);
        Room { mem, from }
    }
    fn len(&self) -> usize {
        self.mem.len().saturating_sub(ALIGN)
    }
    fn bytes(&mut self) -> &mut [u8] {
        let end = self.from + self.len();
        &mut self.mem[self.from..end]
    }
}

/// Rooms that were read into and wait for the next reader.
static SPARE: Mutex<Vec<Room>> = Mutex::new(Vec::new());

/// What was read, in a room that goes round.
struct Loan {
    room: Room,
    range: Range<usize>,
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        &self.room.mem[self.range.clone()]
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let room = std::mem::take(&mut self.room);
        if room.len() <= SPARE_BYTES_MAX
            && let Ok(mut spare) = SPARE.lock()
            && spare.len() < SPARE_MAX
        {
            spare.push(room);
        }
    }
}

/// Rooms for reading come in two sizes, so that one that was given back fits the next reader, whose place in the file has another remainder.
const READ_SIZES: [usize; 2] = [(256 << 10) + 2 * ALIGN, SPARE_BYTES_MAX];

/// Reads into memory that goes round; less than asked for at the end of the file.
fn fill(
    off: u64,
    len: usize,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<Bytes> {
    let mut room = room_for(len);
    let mut got = 0;
    while got < len {
        match read(&mut room.bytes()[got..len], off + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let range = room.from..room.from + got;
    Ok(Bytes::from_owner(Loan { room, range }))
}

fn room_for(len: usize) -> Room {
    let len = READ_SIZES.into_iter().find(|size| *size >= len).unwrap_or(len);
    let found = SPARE.lock().ok().and_then(|mut spare| {
        // The smallest that fits: one of the large ones for a short part would hold on to much for little.
        let fits = spare.iter().enumerate().filter(|(_, r)| r.len() >= len);
        let (i, _) = fits.min_by_key(|(_, r)| r.len())?;
        Some(spare.swap_remove(i))
    });
    found.unwrap_or_else(|| Room::new(len))
}

/// Rooms for writing that wait for the next file: a busy store writes one after another.
static SPARE_WRITE: Mutex<Vec<Room>> = Mutex::new(Vec::new());
/// How many.
const SPARE_WRITE_MAX: usize = 2;

fn write_room() -> Room {
    let found = SPARE_WRITE.lock().ok().and_then(|mut spare| spare.pop());
    found.unwrap_or_else(|| Room::new(CHUNK))
}

impl Drop for Appender {
    fn drop(&mut self) {
        let rooms = [std::mem::take(&mut self.room), self.spare.take().unwrap_or_default()];
        // Of a file that is all in its first room only a part of that may have been used.
        if self.at > 0
            && let Ok(mut spare) = SPARE_WRITE.lock()
        {
            let wanted = SPARE_WRITE_MAX.saturating_sub(spare.len());
            spare.extend(rooms.into_iter().filter(|r| r.len() == CHUNK).take(wanted));
        }
    }
}

impl Inner {
    fn direct(&self) -> Option<&fs::File> {
        self.direct.get_or_init(|| sys::reopen_direct(&self.file)).as_ref()
    }

    /// Writes the buffers one after another past the page cache, if they and the place fit; `None` if nothing was done.
    pub(super) fn write_aligned(&self, off: u64, bufs: &[Bytes], room: &mut Room) -> Option<io::Result<()>> {
        let total: usize = bufs.iter().map(Bytes::len).sum();
        if total < ROUND_MIN || !total.is_multiple_of(ALIGN) || !off.is_multiple_of(ALIGN as u64) {
            return None;
        }
        let direct = self.direct()?;
        if room.mem.is_empty() {
            *room = Room::new(ROUND);
        }
        Some(self.writable("write").and_then(|()| {
            let done = self.gather(direct, off, bufs, room);
            done.map_err(|e| self.fail("write", e))
        }))
    }

    fn gather(&self, direct: &fs::File, mut off: u64, bufs: &[Bytes], room: &mut Room) -> io::Result<()> {
        let (room, mut held) = (room.bytes(), 0);
        for b in bufs {
            let mut left = &b[..];
            while !left.is_empty() {
                let n = left.len().min(room.len() - held);
                room[held..held + n].copy_from_slice(&left[..n]);
                (left, held) = (&left[n..], held + n);
                if held == room.len() {
                    self.put(Some(direct), room, off)?;
                    (off, held) = (off + held as u64, 0);
                }
            }
        }
        self.put(Some(direct), &room[..held], off)
    }

    /// Writes one part, aligned if it goes past the page cache.
    fn put(&self, direct: Option<&fs::File>, b: &[u8], at: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        if b.is_empty() {
            return Ok(());
        }
        match direct.map(|d| d.write_all_at(b, at)) {
            // The file system took the flag and not the write.
            Some(Err(e)) if e.kind() == io::ErrorKind::InvalidInput => self.file.write_all_at(b, at),
            Some(done) => done,
            None => self.file.write_all_at(b, at),
        }
    }

    fn append(&self, direct: Option<&fs::File>, b: &[u8], at: u64) -> io::Result<()> {
        self.writable("write")?;
        self.put(direct, b, at).map_err(|e| self.fail("write", e))
    }

    /// Reads from the page cache if all of it is there.
    fn read_there(&self, off: u64, len: usize) -> Option<Bytes> {
        if !sys::is_cached(&self.file, off, len as u64) {
            return None;
        }
        // If some of it left the cache just now, or cannot be read, whoever reads it the other way meets that too.
        let b = fill(off, len, |buf, at| sys::read_cached_into(&self.file, buf, at)).ok()?;
        (b.len() == len).then_some(b)
    }

    /// Reads what somebody reads in order: past the page cache, until [`PASSES`] times as much as the file holds was read that way. Who reads all of it pushes
    /// nothing out of the cache that others use, and what is read again and again is there from then on.
    fn read_ordered(&self, off: u64, len: usize) -> Option<io::Result<Bytes>> {
        use std::os::unix::fs::FileExt;
        let before = self.streamed.fetch_add(len as u64, Ordering::Relaxed);
        if self.file.metadata().is_ok_and(|m| before < m.len().saturating_mul(PASSES)) {
            return self.read_past(off, len);
        }
        let r = fill(off, len, |buf, at| self.file.read_at(buf, at));
        Some(r.map_err(|e| self.fail("read", e)))
    }

    /// Reads past the page cache, in one go but for signals; `None` where that cannot be.
    fn read_past(&self, off: u64, len: usize) -> Option<io::Result<Bytes>> {
        use std::os::unix::fs::FileExt;
        let direct = self.direct()?;
        let start = off / ALIGN as u64 * ALIGN as u64;
        let lead = (off - start) as usize;
        let want = (lead + len).div_ceil(ALIGN) * ALIGN;
        // Only the end of the file is not a whole block.
        let read = |buf: &mut [u8], at: u64| {
            if at.is_multiple_of(ALIGN as u64) { direct.read_at(buf, at) } else { Ok(0) }
        };
        match fill(start, want, read) {
            Ok(b) => Some(Ok(b.slice(lead.min(b.len())..(lead + len).min(b.len())))),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => None,
            Err(e) => Some(Err(self.fail("read", e))),
        }
    }
}

impl File {
    /// Begins to write the content of a file that is empty, from its start to its end. With `past_cache` it is written past the page cache where that can
    /// be and there is enough of it: for what is not about to be read through the cache.
    pub fn appender(&self, past_cache: bool) -> Appender {
        Appender {
            file: self.clone(),
            past_cache,
            room: Room::default(),
            held: 0,
            at: 0,
            spare: None,
            under_way: None,
        }
    }

    /// As [`File::allocate`], and writes zeros there: what is reserved and was never written costs each sync of what is written to it a change of the file
    /// system's own data, which is a third of the time of a small one.
    pub async fn allocate_written(&self, off: u64, len: u64) -> io::Result<()> {
        self.blocking(move |f| {
            f.writable("allocate")?;
            sys::allocate(&f.file, off, len).map_err(|e| f.fail("allocate", e))?;
            let (mut room, mut at) = (Room::new(CHUNK), 0);
            while at < len {
                let n = (len - at).min(CHUNK as u64);
                f.append(f.direct(), &room.bytes()[..n as usize], off + at)?;
                at += n;
            }
            Ok(())
        })
        .await
    }

    /// As [`File::scan_at`], what the disk holds and not what the page cache does, where the file system has a way past that: for a recovery. What a sync could not
    /// write may stand in the page cache as if it had been written, for the process that comes after the one that was told so.
    pub async fn disk_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        self.or_scan(off, len, Inner::read_past).await
    }

    /// Reads one way, or where that cannot be through the page cache.
    async fn or_scan(
        &self,
        off: u64,
        len: usize,
        read: fn(&Inner, u64, usize) -> Option<io::Result<Bytes>>,
    ) -> io::Result<Bytes> {
        match self.blocking(move |f| read(f, off, len).transpose()).await? {
            Some(b) => Ok(b),
            None => self.scan_at(off, len).await,
        }
    }

    /// As [`File::scan_at`], for somebody who reads much in order: from the page cache if that holds all of this, past it the first times that the file is
    /// read, and through it from then on. What it gives stays in memory that goes round.
    pub async fn stream_at(&self, off: u64, len: usize) -> io::Result<Bytes> {
        match self.0.read_there(off, len) {
            Some(b) => Ok(b),
            None => self.or_scan(off, len, Inner::read_ordered).await,
        }
    }
}

/// A reading that is under way. Dropping it lets it end by itself.
#[derive(Debug)]
pub struct Soon(JoinHandle<Option<io::Result<Bytes>>>);

impl Soon {
    /// What was read; `None` where it could not be read this way.
    pub async fn read(self) -> Option<io::Result<Bytes>> {
        self.0.await.ok().flatten()
    }
}

impl File {
    /// Begins to read what is about to be asked for, as [`File::stream_at`] does. `None` where the page cache has it.
    pub fn stream_soon(&self, off: u64, len: usize) -> Option<Soon> {
        if sys::is_cached(&self.0.file, off, len as u64) {
            return None;
        }
        let inner = self.0.clone();
        Some(Soon(spawn_blocking(move || inner.read_ordered(off, len))))
    }
}

/// Writes a new file from its start to its end through two buffers that go round: one is filled while the other is being written. Not durable before a
/// sync of the file (E-1), and all of it there only after [`Appender::end`].
#[derive(Debug)]
pub struct Appender {
    file: File,
    past_cache: bool,
    room: Room,
    held: usize,
    at: u64,
    spare: Option<Room>,
    under_way: Option<JoinHandle<(Room, io::Result<()>)>>,
}

impl Appender {
    /// Adds bytes. Waits for the disk when both buffers are full.
    ///
    /// # Errors
    /// That of this or of an earlier write; the file is of no use then.
    pub async fn push(&mut self, mut b: &[u8]) -> io::Result<()> {
        while !b.is_empty() {
            if self.room.mem.is_empty() {
                self.room = self.spare.take().unwrap_or_else(write_room);
            }
            let n = b.len().min(CHUNK - self.held);
            self.room.bytes()[self.held..self.held + n].copy_from_slice(&b[..n]);
            (self.held, b) = (self.held + n, &b[n..]);
            if self.held == CHUNK {
                self.write_out().await?;
            }
        }
        Ok(())
    }

    /// Begins to write the full buffer, once the other one is written.
    async fn write_out(&mut self) -> io::Result<()> {
        self.settle().await?;
        let (mut room, at, past_cache) = (std::mem::take(&mut self.room), self.at, self.past_cache);
        (self.held, self.at) = (0, at + CHUNK as u64);
        let inner = self.file.0.clone();
        self.under_way = Some(spawn_blocking(move || {
            let direct = if past_cache { inner.direct() } else { None };
            let done = inner.append(direct, room.bytes(), at);
            (room, done)
        }));
        Ok(())
    }

    /// Waits for the write that is under way.
    async fn settle(&mut self) -> io::Result<()> {
        let Some(task) = self.under_way.take() else { return Ok(()) };
        match task.await {
            Ok((room, done)) => {
                self.spare = Some(room);
                done
            }
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(io::Error::other("the runtime is shutting down")),
            },
        }
    }

    /// Writes what is left. All of it is in the file now, and nothing is durable yet.
    ///
    /// # Errors
    /// As [`Appender::push`].
    pub async fn end(mut self) -> io::Result<()> {
        self.settle().await?;
        if self.held == 0 {
            return Ok(());
        }
        let (mut room, held, at) = (std::mem::take(&mut self.room), self.held, self.at);
        // A file that is all here is small.
        let past_cache = self.past_cache && at > 0;
        let (room, done) = self
            .file
            .blocking(move |f| {
                let direct = if past_cache { f.direct() } else { None };
                let whole = if direct.is_some() { held / ALIGN * ALIGN } else { 0 };
                let done = f
                    .append(direct, &room.bytes()[..whole], at)
                    .and_then(|()| f.append(None, &room.bytes()[whole..held], at + whole as u64));
                Ok((room, done))
            })
            .await?;
        self.room = room;
        done
    }
}
