//! The last messages of several subjects, found side by side.
//!
//! Owns the order in which memory is touched. A random key is half a dozen misses of the processor's cache, each of which names the place of the next:
//! subject, message, block, place in it, record. For one key after another they are waited for one by one; here each step is taken for all keys
//! before the next one, so that they are waited for together. Answers only what is at hand and beyond doubt; for all else it says so, and the
//! caller asks one by one.

use std::hint::black_box;

use crate::{
    cache::At, dict::ABREAST, feet::Feet, group::Group, record::Message, segment::Block, types::StreamSeq,
};

/// Bytes of a record that are touched before it is read: as a rule all of it.
const TOUCHED: usize = 256;
/// A line of the processor's cache.
const LINE: usize = 64;

/// What is found of a subject.
#[derive(Clone, Copy, Debug)]
pub enum Last<'a> {
    /// Its last message, checked.
    Message(Message<'a>),
    /// It has none.
    Absent,
    /// It takes a question of its own.
    Unsure,
}

/// Where a record is.
#[derive(Clone, Copy)]
enum Spot<'a> {
    Nowhere,
    Unsure,
    Here(&'a [u8]),
    Block(At, StreamSeq),
}

/// Reads a record's lines, so that they are there when it is read.
fn touch(record: &[u8]) -> u8 {
    record.iter().take(TOUCHED).step_by(LINE).fold(0, |all, b| all ^ b)
}

impl Group {
    /// The last messages of literal subjects, in their order. The dictionary must be ready.
    pub(crate) fn last_each(
        &self,
        subjects: &[&[u8]],
        feet: &Feet<'_>,
        mut found: impl FnMut(usize, Last<'_>),
    ) {
        for (n, some) in subjects.chunks(ABREAST).enumerate() {
            let mut spots = [Spot::Nowhere; ABREAST];
            self.spots_of(some, feet, &mut spots);
            let spots = &spots[..some.len()];
            let held = spots.iter().any(|s| matches!(s, Spot::Block(..))).then(|| feet.cache.blocks.lock());
            let mut blocks: [Option<&Block>; ABREAST] = [None; ABREAST];
            if let Some(held) = &held {
                for (s, b) in spots.iter().zip(&mut blocks) {
                    *b = if let Spot::Block(at, _) = s { held.look(*at) } else { None };
                }
            }
            let mut touched = 0;
            let guesses = |(s, b): (&Spot<'_>, &Option<&Block>)| match (s, b) {
                (Spot::Block(_, seq), Some(b)) => b.guess(*seq),
                _ => None,
            };
            // The tables first, then what they name.
            spots.iter().zip(&blocks).filter_map(guesses).for_each(|at| touched ^= at as u8);
            for (s, b) in spots.iter().zip(&blocks) {
                touched ^= match (s, b) {
                    (Spot::Here(r), _) => touch(r),
                    (Spot::Block(..), Some(b)) => guesses((s, &Some(b))).map_or(0, |at| touch(&b.raw[at..])),
                    _ => 0,
                };
            }
            black_box(touched);
            for (i, (s, b)) in spots.iter().zip(&blocks).enumerate() {
                // Another subject with the same hash may have been found.
                let own = |m: &Message<'_>| m.subject == some[i];
                let last = match (s, b) {
                    (Spot::Nowhere, _) => Last::Absent,
                    (Spot::Here(r), _) => Message::parse(r).filter(own).map_or(Last::Unsure, Last::Message),
                    (Spot::Block(_, seq), Some(b)) => {
                        let m = b.whole_at(self.id, *seq).and_then(|r| Message::parse(&b.raw[r]));
                        m.filter(own).map_or(Last::Unsure, Last::Message)
                    }
                    _ => Last::Unsure,
                };
                found(n * ABREAST + i, last);
            }
        }
    }

    /// Where the last messages of a few subjects are.
    fn spots_of<'a>(&'a self, subjects: &[&[u8]], feet: &Feet<'_>, spots: &mut [Spot<'a>; ABREAST]) {
        let mut seqs = [None; ABREAST];
        self.dict.guess_each(subjects, |i, id| {
            let Some(info) = id.map(|id| self.dict.info(id)) else { return };
            spots[i] = Spot::Unsure;
            seqs[i] = (info.count() > 0 && info.last_is_exact()).then_some(info.last);
        });
        // What is in the tail without gaps stands at its number.
        let front = self.msgs.front().map_or(StreamSeq(u64::MAX), |m| m.seq);
        let guess = |seq: &StreamSeq| usize::try_from(seq.0.checked_sub(front.0)?).ok();
        let places = seqs.iter().flatten().filter_map(guess).filter_map(|i| self.msgs.get(i));
        black_box(places.fold(0, |touched, m| touched ^ m.entry.0));
        let mut index = None;
        for (seq, spot) in seqs.iter().zip(spots).filter_map(|(seq, spot)| seq.map(|seq| (seq, spot))) {
            if let Some(slot) = self.tail_slot(seq) {
                let m = &self.msgs[slot];
                if !m.deleted
                    && let Some(e) = self.entry(m.entry)
                {
                    *spot = Spot::Here(&e.payload[m.off as usize..(m.off + m.len) as usize]);
                }
                continue;
            }
            // What was lost or mended is looked up with care.
            if !self.lost.is_empty() || !self.patched.is_empty() {
                continue;
            }
            let Some(p) = self.piece_of(seq).map(|i| &self.pieces[i]) else { continue };
            if !matches!(&index, Some((key, _)) if *key == p.key()) {
                index = feet.try_index(p).map(|f| (p.key(), f));
            }
            if let Some((_, f)) = &index
                && let Some((_, at)) = f.block_of(&p.meta, seq)
            {
                *spot = Spot::Block((p.meta.file, at), seq);
            }
        }
    }
}
