//! What waits to be written to a link. Any worker may append; one at a time writes.
//!
//! Small messages are copied into a tail buffer, large payloads are shared between receivers. Buffers come from a pool of
//! the worker and go back when they are written, so an idle link holds none.

use std::{cell::RefCell, collections::VecDeque, io::IoSlice, sync::Arc};

use bytes::Bytes;
use env::{Instant, ShortMutex};

use crate::Transport;

/// Size to which a tail buffer grows before it is sealed, in bytes.
const TAIL_BYTES_MAX: usize = 64 << 10;
/// Payloads from this size on are shared rather than copied, in bytes.
pub const SHARE_BYTES_MIN: usize = 4 << 10;
/// Buffers kept by a worker for the next writers.
const POOL_BUFFERS_MAX: usize = 128;
/// Chunks written by one system call.
const WRITE_CHUNKS_MAX: usize = 64;

thread_local!(static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) });

fn buffer() -> Vec<u8> {
    POOL.with_borrow_mut(|p| p.pop()).unwrap_or_default()
}

fn recycle(mut v: Vec<u8>) {
    if v.capacity() == 0 || v.capacity() > 2 * TAIL_BYTES_MAX {
        return;
    }
    v.clear();
    POOL.with_borrow_mut(|p| {
        if p.len() < POOL_BUFFERS_MAX {
            p.push(v)
        }
    })
}

/// A piece of output.
#[derive(Debug)]
pub enum Chunk {
    /// Copied in; its buffer goes back to the pool.
    Owned(Vec<u8>),
    /// Shared with other receivers.
    Shared(Bytes),
}

impl Chunk {
    /// Its bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Owned(v) => v,
            Chunk::Shared(b) => b,
        }
    }
}

/// An outbox. Lives inside the link's lock.
#[derive(Default)]
pub struct Out {
    /// Sealed pieces, oldest first.
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that are written already.
    head_written: usize,
    /// Where small messages are copied.
    tail: Vec<u8>,
    /// Unwritten bytes, those in a writer's hands included.
    pending: usize,
    /// Somebody has undertaken to flush (B-6).
    scheduled: bool,
    /// A writer has taken the chunks.
    writing: bool,
    /// The socket took no more: the link's owner flushes when it does, and watches the write deadline from here on.
    pub blocked_since: Option<Instant>,
    /// Nothing more is taken.
    pub closed: bool,
    /// Deliveries and their bytes, for monitoring.
    pub msgs: u64,
    /// See `msgs`.
    pub bytes: u64,
    /// Where it is written to; gone once the link is closed.
    pub transport: Option<Arc<dyn Transport>>,
}

impl Out {
    /// An empty outbox before `transport`.
    pub fn new(transport: Option<Arc<dyn Transport>>) -> Out {
        Out { transport, ..Out::default() }
    }
    /// Unwritten bytes.
    pub fn pending(&self) -> usize {
        self.pending
    }
    /// The pieces that these are.
    pub fn pieces(&self) -> usize {
        self.chunks.len() + usize::from(!self.tail.is_empty())
    }
    /// Room to copy `n` bytes into. The caller appends exactly `n` bytes.
    #[inline]
    pub fn room(&mut self, n: usize) -> &mut Vec<u8> {
        if self.tail.len() + n > TAIL_BYTES_MAX || self.tail.capacity() == 0 {
            self.seal();
            self.tail = buffer();
        }
        self.pending += n;
        &mut self.tail
    }
    #[inline(never)]
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let full = std::mem::take(&mut self.tail);
            self.chunks.push_back(Chunk::Owned(full));
        }
    }
    /// Appends a shared piece.
    pub fn share(&mut self, b: Bytes) {
        self.seal();
        self.pending += b.len();
        self.chunks.push_back(Chunk::Shared(b));
    }
    /// True for the first append since the last flush: the caller is to flush (B-6).
    #[inline]
    pub fn schedule(&mut self) -> bool {
        let first = !self.scheduled && self.blocked_since.is_none();
        self.scheduled |= first;
        first
    }
    /// Begins a write: hands out all pieces. `None` if there is nothing to write or somebody else is at it.
    fn take(&mut self) -> Option<(VecDeque<Chunk>, usize, Arc<dyn Transport>)> {
        if self.writing {
            return None;
        }
        self.seal();
        let transport = self.transport.clone()?;
        if self.chunks.is_empty() && !transport.has_pending() {
            return None;
        }
        self.writing = true;
        Some((std::mem::take(&mut self.chunks), std::mem::take(&mut self.head_written), transport))
    }
    /// Ends a write that left `rest` unwritten.
    fn put_back(&mut self, mut rest: VecDeque<Chunk>, head_written: usize, written: usize) {
        self.writing = false;
        self.pending -= written;
        if rest.is_empty() {
            return;
        }
        self.head_written = if env::planted!("repeat-written-bytes") { 0 } else { head_written };
        if env::planted!("reorder-chunks") && rest.len() > 2 {
            rest.swap(1, 2);
        }
        rest.append(&mut self.chunks);
        self.chunks = rest;
    }
    /// Drops what is unwritten and takes no more.
    pub fn close(&mut self) {
        self.closed = true;
        self.chunks.clear();
        self.head_written = 0;
        self.pending = 0;
        self.blocked_since = None;
        recycle(std::mem::take(&mut self.tail));
        self.transport = None;
    }
}

/// How a flush ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flushed {
    /// All is written, or another writer is at it.
    Done,
    /// The socket takes no more now.
    Blocked,
    /// The connection is gone.
    Failed,
}

/// Writes what the outbox behind `lock` holds until it is empty or the socket takes no more. `again`: whoever has undertaken to flush it will still do so.
pub fn flush(lock: &ShortMutex<Out>, again: bool, now: impl Fn() -> Instant) -> Flushed {
    let mut out = lock.lock();
    loop {
        out.scheduled &= again;
        let Some((mut chunks, mut head, transport)) = out.take() else { return Flushed::Done };
        drop(out);
        let (mut written, mut end) = (0, Flushed::Done);
        while !chunks.is_empty() || transport.has_pending() {
            let n = {
                let mut slices = [IoSlice::new(&[]); WRITE_CHUNKS_MAX];
                let mut used = 0;
                for (i, c) in chunks.iter().take(WRITE_CHUNKS_MAX).enumerate() {
                    slices[i] = IoSlice::new(if i == 0 { &c.bytes()[head..] } else { c.bytes() });
                    used = i + 1;
                }
                transport.try_write(&slices[..used])
            };
            match n {
                Ok(n) => {
                    written += n;
                    advance(&mut chunks, &mut head, n);
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    end = Flushed::Blocked;
                    break;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => {
                    end = Flushed::Failed;
                    break;
                }
            }
        }
        out = lock.lock();
        if out.closed {
            out.writing = false;
            return Flushed::Failed;
        }
        out.put_back(chunks, head, written);
        match end {
            Flushed::Done => out.blocked_since = None,
            Flushed::Blocked => {
                // The deadline runs from the last progress.
                if out.blocked_since.is_none() || written > 0 {
                    out.blocked_since = Some(now());
                }
                return Flushed::Blocked;
            }
            Flushed::Failed => return Flushed::Failed,
        }
        // What was appended meanwhile is ours too: its appender may have met `writing`.
    }
}

fn advance(chunks: &mut VecDeque<Chunk>, head: &mut usize, mut n: usize) {
    while n > 0 {
        let Some(first) = chunks.front() else { return };
        let left = first.bytes().len() - *head;
        if n < left {
            *head += n;
            return;
        }
        n -= left;
        *head = 0;
        if let Some(Chunk::Owned(v)) = chunks.pop_front() {
            recycle(v)
        }
    }
    // Pieces without bytes are never queued, so nothing empty is left at the front.
}
