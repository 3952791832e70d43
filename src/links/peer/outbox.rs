//! What waits for a link, and what of it goes next.
//!
//! Owns the four lanes and the cutting of frames into pieces. Does not write. N-3 and N-4 are kept here.

use std::collections::VecDeque;

use bytes::Bytes;
use wire::peer::{HEADER_BYTES, PIECE_BYTES_MAX, Piece, header};

use super::Lane;

/// Lanes for frames; the link's own pieces stand before all of them.
pub(super) const LANES: usize = 4;
/// Pieces of more urgent lanes that may pass a piece which waits.
const PASSED_MAX: u32 = 8;
/// The link's own pieces that may wait. There are few kinds of them, and more are of no use.
const CONTROL_MAX: usize = 16;

struct Queued {
    kind: u8,
    body: Bytes,
    /// How much of it has gone.
    at: usize,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Queued>,
    bytes: usize,
    passed: u32,
}

/// Everything that waits.
pub(super) struct Outbox {
    control: VecDeque<(u8, Bytes)>,
    lanes: [Queue; LANES],
    bytes_max: [usize; LANES],
    closed: bool,
    pub(super) frames: u64,
    pub(super) refused: u64,
}

/// A part of a batch: a header or a body.
pub(super) type Chunk = Bytes;

impl Outbox {
    pub(super) fn new(bytes_max: [usize; LANES]) -> Outbox {
        Outbox {
            control: VecDeque::new(),
            lanes: Default::default(),
            bytes_max,
            closed: false,
            frames: 0,
            refused: 0,
        }
    }

    /// Takes a frame. False if there is no room for it, or no use any more (N-3).
    pub(super) fn push(&mut self, lane: Lane, kind: u8, body: Bytes) -> bool {
        let n = lane as usize - 1;
        let q = &mut self.lanes[n];
        let cost = body.len() + HEADER_BYTES;
        let full = q.bytes > 0 && q.bytes + cost > self.bytes_max[n];
        if full || self.closed {
            self.refused += 1;
            return false;
        }
        q.bytes += cost;
        q.frames.push_back(Queued { kind, body, at: 0 });
        true
    }

    /// Takes a piece of the link's own.
    pub(super) fn push_control(&mut self, kind: u8, body: Bytes) {
        debug_assert!(body.len() <= PIECE_BYTES_MAX);
        if self.control.len() < CONTROL_MAX && !self.closed {
            self.control.push_back((kind, body));
        }
    }

    /// Drops all that waits and takes no more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.control.clear();
        self.lanes = Default::default();
    }

    pub(super) fn pending(&self) -> [usize; LANES] {
        std::array::from_fn(|i| self.lanes[i].bytes)
    }

    /// Moves pieces of `bytes` or a little more into `batch`. True if there was anything.
    pub(super) fn fill(&mut self, bytes: usize, batch: &mut VecDeque<Chunk>) -> bool {
        let mut taken = 0;
        while taken < bytes {
            if let Some((kind, body)) = self.control.pop_front() {
                taken += put(batch, &Piece { lane: 0, kind, more: false, body: &body }, body.clone());
                continue;
            }
            let Some(n) = self.next() else { break };
            let q = &mut self.lanes[n];
            let Some(f) = q.frames.front_mut() else { break };
            let end = f.body.len().min(f.at + PIECE_BYTES_MAX);
            let body = f.body.slice(f.at..end);
            let more = end < f.body.len();
            let p = Piece { lane: n as u8 + 1, kind: f.kind, more, body: &body };
            taken += put(batch, &p, body.clone());
            q.bytes -= end - f.at;
            f.at = end;
            if !more {
                q.bytes -= HEADER_BYTES;
                q.frames.pop_front();
                self.frames += 1;
            }
        }
        taken > 0
    }

    /// The lane whose turn it is: the most urgent one, unless one has been passed too often (N-4).
    fn next(&mut self) -> Option<usize> {
        let waits = |q: &Queue| !q.frames.is_empty();
        let first = self.lanes.iter().position(waits)?;
        let patient =
            (first..LANES).rev().find(|n| waits(&self.lanes[*n]) && self.lanes[*n].passed >= PASSED_MAX);
        let n = patient.unwrap_or(first);
        for (i, q) in self.lanes.iter_mut().enumerate() {
            q.passed = if i == n || q.frames.is_empty() { 0 } else { q.passed + u32::from(i > n) };
        }
        Some(n)
    }
}

fn put(batch: &mut VecDeque<Chunk>, p: &Piece<'_>, body: Bytes) -> usize {
    let n = HEADER_BYTES + body.len();
    batch.push_back(Bytes::copy_from_slice(&header(p)));
    if !body.is_empty() {
        batch.push_back(body);
    }
    n
}

#[cfg(test)]
mod tests {
    use wire::peer::{Joiner, Parsed, parse};

    use super::*;

    fn bytes(n: usize, b: u8) -> Bytes {
        Bytes::from(vec![b; n])
    }

    /// The lanes of all pieces in order, and the frames.
    fn drain(o: &mut Outbox) -> (Vec<u8>, Vec<(u8, Bytes)>) {
        let (mut lanes, mut frames, mut joiner) = (Vec::new(), Vec::new(), Joiner::new(1 << 20));
        let mut batch = VecDeque::new();
        while o.fill(1, &mut batch) {
            let all: Vec<u8> = batch.drain(..).flatten().collect();
            let Ok(Parsed::Piece(p, used)) = parse(&all) else { panic!("a piece is a piece") };
            assert_eq!(used, all.len());
            lanes.push(p.lane);
            frames.extend(joiner.push(&p).unwrap().map(|b| (p.lane, b)));
        }
        (lanes, frames)
    }

    #[test]
    fn n4_bulk_lets_others_pass_and_is_not_starved() {
        let mut o = Outbox::new([1 << 20; LANES]);
        assert!(o.push(Lane::Bulk, 1, bytes(3 * PIECE_BYTES_MAX, 4)));
        for _ in 0..20 {
            assert!(o.push(Lane::Consensus, 2, bytes(10, 2)));
        }
        assert!(o.push(Lane::Beat, 3, bytes(10, 1)));
        o.push_control(9, bytes(1, 0));
        let (lanes, frames) = drain(&mut o);
        assert_eq!(lanes[..3], [0, 1, 2], "the most urgent first");
        let bulk: Vec<_> = lanes.iter().enumerate().filter(|l| *l.1 == 4).map(|l| l.0).collect();
        assert_eq!(bulk, [9, 18, 24], "N-4: one in nine");
        assert!(frames.iter().any(|f| f.0 == 4 && f.1.len() == 3 * PIECE_BYTES_MAX));
        assert_eq!((frames.len(), o.frames, o.pending()), (23, 22, [0; 4]));
    }

    #[test]
    fn n3_a_lane_is_bounded_and_says_so() {
        let mut o = Outbox::new([100, 100, 100, 100]);
        assert!(o.push(Lane::Call, 1, bytes(500, 1)), "an empty lane takes any frame");
        assert!(!o.push(Lane::Call, 1, bytes(1, 1)));
        assert!(o.push(Lane::Beat, 1, bytes(80, 1)), "lanes do not share their room");
        assert!(!o.push(Lane::Beat, 1, bytes(1, 1)));
        assert_eq!((o.pending(), o.refused), ([92, 0, 512, 0], 2));
        for _ in 0..100 {
            o.push_control(1, bytes(8, 1));
        }
        assert_eq!(drain(&mut o).0.len(), CONTROL_MAX + 2);
        o.close();
        assert!(!o.push(Lane::Beat, 1, bytes(1, 1)));
    }
}
