//! What a found journal means: the truth table of recovery, as a pure function.
//!
//! Owns the verdict over each round. Reads no file, changes no group.
//!
//! - S-80: what a later round, a later file or the manifest vouches for is never taken for a torn tail: if it is bad it
//!   is damage, is named as far as its table reaches, and what follows it is still read.
//! - S-81: the log ends before the first round that is bad and not vouched for, and nothing after it is read: no sync
//!   that covered it ever completed.
//! - S-83: what an opening took of a file stays, also when a later one has another key: a header that is lost is made anew.
//! - S-84: that something of the journal is gone is found again by every opening, also behind rounds that an earlier one wrote there, until the layer above has noted it and no group is doubtful: what an
//!   opening writes may be all that is left of it, if the power fails before anybody has heard.

use std::collections::BTreeMap;

use crate::{
    options::Options,
    round::{FileHead, Found, Scanned},
    types::{Epoch, Round},
};

/// One journal file, scanned.
#[derive(Clone, Default, Debug)]
pub(crate) struct FileScan {
    pub epoch: Epoch,
    /// The newest epoch of which anything stands in the file: it must not be given again.
    pub newest: Epoch,
    /// The first round of this use of the file: rounds from here on in older epochs were given up. `None` if the file's
    /// header is bad.
    pub first: Option<Round>,
    /// The rounds before that one were not synced when the file was begun.
    pub loose: bool,
    pub rounds: Vec<Scanned>,
    /// It was begun by an opening that found the journal cut where its log ended.
    pub behind_cut: bool,
    /// Bytes that were reserved and are not there any more: somebody cut the file. `u64::MAX` if it is not known how many.
    pub cut: u64,
}

impl FileScan {
    /// A file that was cut, and of which nothing else is known.
    pub(crate) fn nameless() -> FileScan {
        FileScan { cut: u64::MAX, ..FileScan::default() }
    }

    /// The number of its first round, or of the first one that can be read where its header is lost.
    fn begins(&self) -> Option<Round> {
        self.first.or_else(|| self.rounds.iter().map(|r| r.head.round).min())
    }

    /// What is to stand at the beginning of a file whose header is lost, or is that of an older use, and from which rounds were taken: they were taken for plain, since
    /// no key is configured, and a life that has one could not tell any more (S-83). It vouches for nothing that did not vouch for itself.
    pub(crate) fn head_anew(
        &self,
        shard: u32,
        len: u64,
        opts: &Options,
        replay: &Replay,
    ) -> Option<FileHead> {
        if self.first.is_some() || self.cut > 0 || opts.keys.current().is_some() {
            return None;
        }
        let first = self.begins()?;
        let (epoch, behind_cut) = (self.epoch, replay.is_cut_before(first));
        Some(FileHead {
            shard,
            epoch,
            first,
            salt: [0; 16],
            key: 0,
            len,
            refers: true,
            loose: true,
            behind_cut,
        })
    }
}

/// What to do about a round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Everything in it is good.
    Take(Vec<Found>),
    /// It was durable; some of it is gone, and named.
    Damaged(Vec<Found>),
    /// It was durable and nothing of it is left, not even names; how many bytes it had at most.
    Missing(u64),
    /// Not a round, but what may have stood behind this one: the journal was cut there, and this many bytes of it are gone at most.
    Cut(u64),
}

/// The outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Replay {
    pub steps: Vec<(Round, Verdict)>,
    /// The last round of the log.
    pub end: Round,
    /// Whether something after the end was given up as a torn tail.
    pub torn: bool,
    /// The highest epoch met anywhere.
    pub epoch: Epoch,
}

impl Replay {
    /// Rounds of which something is gone, and places where the journal was cut.
    pub(crate) fn damaged(&self) -> usize {
        self.steps.iter().filter(|s| !matches!(s.1, Verdict::Take(_))).count()
    }
    /// The rounds that are gone altogether, and those behind which something is.
    pub(crate) fn losses(&self) -> impl DoubleEndedIterator<Item = Round> {
        self.steps.iter().filter(|s| matches!(s.1, Verdict::Missing(_) | Verdict::Cut(_))).map(|s| s.0)
    }
    /// Where the journal was cut, and how many bytes are gone there; `u64::MAX` if it is not known how many.
    pub(crate) fn cuts(&self) -> impl Iterator<Item = (Round, u64)> {
        self.steps
            .iter()
            .filter_map(|s| if let Verdict::Cut(bytes) = s.1 { Some((s.0, bytes)) } else { None })
    }
    pub(crate) fn is_cut_before(&self, first: Round) -> bool {
        self.cuts().any(|c| c.0.next() == first)
    }
}

/// Where the journal was cut. Sees the files in the order of their epochs.
#[derive(Default)]
struct Cuts {
    /// Bytes that are gone behind a round.
    behind: BTreeMap<Round, u64>,
    /// Files that were cut, and the first round that stands in another file behind each; `None` if there is no such file.
    open: Vec<(u64, Option<Round>)>,
    /// Bytes of files of which nothing else is known.
    anywhere: u64,
}

impl Cuts {
    fn see(&mut self, f: &FileScan) {
        let Some(first) = f.begins() else {
            // Cut before anything that could be read it may be the newest as well as any other.
            self.anywhere = self.anywhere.saturating_add(f.cut);
            return;
        };
        let behind = Round(first.0.saturating_sub(1));
        // Where rounds are void, so are places behind them.
        let mut bytes = sum(self.behind.split_off(&first).into_values());
        if f.behind_cut || f.first.is_none() {
            // The log ended in those behind which nothing follows, or only later rounds.
            let ended = |o: &mut (u64, Option<Round>)| o.1.is_none_or(|next| next > first);
            bytes = bytes.saturating_add(sum(self.open.extract_if(.., ended).map(|o| o.0)));
            if f.behind_cut && bytes == 0 && !self.behind.contains_key(&behind) {
                // The one that was cut may be gone altogether.
                bytes = u64::MAX;
            }
            if bytes > 0 {
                let here = self.behind.entry(behind).or_default();
                *here = here.saturating_add(bytes);
            }
        } else {
            self.open.iter_mut().for_each(|o| o.1 = Some(o.1.map_or(first, |next| next.min(first))));
        }
        if f.cut > 0 {
            self.open.push((f.cut, None));
        }
    }
    /// What is gone behind the round before `next`, where the log ends, beside what is known to be gone there.
    fn at_end(self, next: Round) -> Option<u64> {
        let open = self.open.into_iter().filter(|o| o.1.is_none_or(|first| first > next));
        let later = self.behind.range(next..).map(|c| *c.1);
        Some(sum(open.map(|o| o.0).chain(later).chain([self.anywhere]))).filter(|bytes| *bytes > 0)
    }
}

fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

/// The table. `from` is the first round that the manifest does not hold, `synced` what the manifest vouches for.
///
/// | round | frames | vouched for | verdict |
/// |---|---|---|---|
/// | found, both tables good | all good | either | take |
/// | found | all good, a table bad | yes | take |
/// | found | some bad | yes | damaged |
/// | found | anything bad | no | the log ends before it |
/// | not found | | yes | missing |
/// | not found | | no | the log ends before it |
///
/// No power failure makes a file shorter: what is bad in a file that was cut is damage, as if it were vouched for. Nobody knows what stood behind the last round
/// of such a file, if the log ended there; the next file says so where an opening met it first (S-84), and counts as one that does if its header is lost. Where `from` is the very first round of such a file nothing tells
/// whether it is known by now: it is told once more.
pub(crate) fn classify(mut files: Vec<FileScan>, from: Round, synced: Round) -> Replay {
    files.sort_by_key(|f| f.epoch);
    let mut epoch = Epoch(0);
    let mut vouched = synced.max(Round(from.0.saturating_sub(1)));
    let mut rounds: BTreeMap<Round, Scanned> = BTreeMap::new();
    let mut torn = false;
    let mut cuts = Cuts::default();
    for f in files {
        epoch = epoch.max(f.epoch).max(f.newest);
        cuts.see(&f);
        // A new use of a file begins where a recovery, or the file before it, ended: all before it is vouched for. Where the header is lost the first round
        // may be, too: those behind it say themselves what they vouch for. So they do where the rounds before were not synced.
        if let Some(first) = f.first.filter(|_| !f.loose) {
            vouched = vouched.max(Round(first.0.saturating_sub(1)));
        }
        // All from there on in older epochs is void.
        if let Some(first) = f.begins() {
            let before = rounds.len();
            rounds.retain(|n, r| *n < first || r.head.epoch >= f.epoch);
            torn |= rounds.len() < before;
        }
        for r in f.rounds {
            vouched = vouched.max(if f.cut > 0 { r.head.round } else { r.head.synced });
            // Twice in one epoch is a write that also landed elsewhere: either is the round, if it is whole.
            let known = rounds.get(&r.head.round).is_some_and(|o| o.head.epoch == r.head.epoch && o.whole());
            if !known {
                rounds.insert(r.head.round, r);
            }
        }
    }
    let mut steps = Vec::new();
    let mut next = from;
    // Where the round before ended: its file's epoch and the offset.
    let mut before: Option<(Epoch, u64)> = None;
    loop {
        let behind = Round(next.0 - 1);
        steps.extend(cuts.behind.remove(&behind).map(|bytes| (behind, Verdict::Cut(bytes))));
        let found = rounds.remove(&next);
        if let Some(s) = &found {
            before = Some((s.head.epoch, s.head.off + u64::from(s.head.total)));
        }
        let known = next <= vouched;
        let verdict = match found {
            Some(s) if s.whole() => Verdict::Take(s.found),
            Some(s) if known && s.found.iter().all(|f| !matches!(f, Found::Bad(..))) => {
                Verdict::Take(s.found)
            }
            Some(s) if known => Verdict::Damaged(s.found),
            None if known => {
                let behind = rounds.range(next..).next().map(|r| &r.1.head);
                let room = behind.zip(before).filter(|(h, b)| h.epoch == b.0);
                Verdict::Missing(room.map_or(u64::MAX, |(h, b)| h.off.saturating_sub(b.1)))
            }
            // S-81: bad, and nothing vouches for it.
            Some(_) => {
                torn = true;
                break;
            }
            None => break,
        };
        steps.push((next, verdict));
        next = next.next();
    }
    torn |= rounds.keys().any(|r| *r >= next);
    let end = Round(next.0 - 1);
    steps.extend(cuts.at_end(next).map(|bytes| (end, Verdict::Cut(bytes))));
    Replay { steps, end, torn, epoch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        round::{FrameKind, Line, RoundHead},
        types::{GroupId, LogIndex},
    };

    fn scanned(epoch: u64, round: u64, synced: u64, good: bool) -> Scanned {
        let line = Line::control(FrameKind::Delete, GroupId(1), LogIndex(0));
        let head = RoundHead {
            shard: 0,
            epoch: Epoch(epoch),
            round: Round(round),
            synced: Round(synced),
            off: 0,
            total: 512,
        };
        let found = if good {
            Found::Control(line, bytes::Bytes::new())
        } else {
            Found::Bad(line, bytes::Bytes::new())
        };
        Scanned { head, found: vec![found], by_header: true }
    }

    fn file(epoch: u64, first: u64, rounds: Vec<Scanned>) -> FileScan {
        FileScan {
            epoch: Epoch(epoch),
            newest: Epoch(epoch),
            first: Some(Round(first)),
            loose: false,
            rounds,
            behind_cut: false,
            cut: 0,
        }
    }

    fn shape(r: &Replay) -> String {
        let one = |(n, v): &(Round, Verdict)| {
            let c = match v {
                Verdict::Take(_) => 't',
                Verdict::Damaged(_) => 'd',
                Verdict::Missing(_) => 'm',
                Verdict::Cut(_) => 'c',
            };
            format!("{}{c}", n.0)
        };
        let steps: Vec<_> = r.steps.iter().map(one).collect();
        format!("{} end {}{}", steps.join(" "), r.end.0, if r.torn { " torn" } else { "" })
    }

    #[test]
    fn s80_s81_case_by_case() {
        let s = scanned;
        let run = |files, from, synced| shape(&classify(files, Round(from), Round(synced)));
        assert_eq!(run(vec![], 1, 0), " end 0");
        // All good; the last one is vouched for by nothing and whole.
        assert_eq!(run(vec![file(1, 1, vec![s(1, 1, 0, true), s(1, 2, 1, true)])], 1, 0), "1t 2t end 2");
        // A bad last round is a torn tail.
        assert_eq!(run(vec![file(1, 1, vec![s(1, 1, 0, true), s(1, 2, 1, false)])], 1, 0), "1t end 1 torn");
        // A bad round that a later one vouches for is damage, and the later one is read.
        assert_eq!(
            run(vec![file(1, 1, vec![s(1, 1, 0, true), s(1, 2, 1, false), s(1, 3, 2, true)])], 1, 0),
            "1t 2d 3t end 3"
        );
        // Relaxed rounds: 2 and 3 written after the sync of 1 only; 2 tore, so 3 goes too.
        assert_eq!(
            run(vec![file(1, 1, vec![s(1, 1, 0, true), s(1, 2, 1, false), s(1, 3, 1, true)])], 1, 0),
            "1t end 1 torn"
        );
        // A round that is gone without a trace.
        assert_eq!(run(vec![file(1, 1, vec![s(1, 1, 0, true), s(1, 3, 2, true)])], 1, 0), "1t 2m 3t end 3");
        // The manifest vouches as well.
        assert_eq!(run(vec![file(1, 1, vec![s(1, 1, 0, true), s(1, 2, 1, false)])], 1, 2), "1t 2d end 2");
        assert_eq!(run(vec![], 1, 2), "1m 2m end 2");
        // A recovery gave round 3 up and began a new file there: the old one stays void even if it looks whole.
        let old = file(1, 1, vec![s(1, 1, 0, true), s(1, 2, 1, true), s(1, 3, 2, true)]);
        assert_eq!(run(vec![old.clone(), file(2, 3, vec![s(2, 3, 2, true)])], 1, 0), "1t 2t 3t end 3 torn");
        let r = classify(vec![old, file(2, 3, vec![])], Round(1), Round(0));
        assert_eq!((shape(&r), r.epoch), ("1t 2t end 2 torn".to_owned(), Epoch(2)));
        // A file that was cut: its last round is damage, whatever vouches for it, and what came after is not known.
        let cut = FileScan { cut: 512, ..file(1, 1, vec![s(1, 1, 0, true), s(1, 2, 1, false)]) };
        assert_eq!(run(vec![cut], 1, 0), "1t 2d 2c end 2");
        // The opening that found it began a file, which says so whatever is written there (S-84), also when the one that was cut is gone.
        let cut = FileScan { cut: 512, ..file(1, 1, vec![s(1, 1, 0, true), s(1, 2, 1, true)]) };
        let begun = |rounds| FileScan { behind_cut: true, ..file(2, 3, rounds) };
        assert_eq!(run(vec![cut.clone(), begun(vec![])], 1, 0), "1t 2t 2c end 2");
        let after = begun(vec![s(2, 3, 2, true), s(2, 4, 3, true)]);
        assert_eq!(run(vec![cut.clone(), after.clone()], 1, 0), "1t 2t 2c 3t 4t end 4");
        assert_eq!(run(vec![cut.clone(), after.clone()], 3, 2), "2c 3t 4t end 4");
        assert_eq!(run(vec![after.clone()], 3, 2), "2c 3t 4t end 4");
        assert_eq!(run(vec![cut.clone(), after.clone()], 4, 2), "4t end 4");
        let r = classify(vec![cut.clone(), after], Round(1), Round(0));
        assert_eq!(
            (r.losses().next(), r.cuts().collect::<Vec<_>>()),
            (Some(Round(2)), vec![(Round(2), 512)])
        );
        // Without its header it counts as one that says so; where the file before is whole nothing is gone.
        let headless = FileScan { first: None, ..file(2, 3, vec![s(2, 3, 2, true)]) };
        assert_eq!(run(vec![cut.clone(), headless.clone()], 1, 0), "1t 2t 2c 3t end 3");
        assert_eq!(run(vec![FileScan { cut: 0, ..cut.clone() }, headless], 1, 0), "1t 2t 3t end 3");
        // One that was begun while the one before was whole says nothing: numbers tell what is missing.
        assert_eq!(run(vec![cut.clone(), file(2, 3, vec![s(2, 3, 2, true)])], 1, 0), "1t 2t 3t end 3");
        // Unless they need not have been synced: the log ends in the file that was cut.
        let loose = FileScan { loose: true, ..file(2, 4, vec![s(2, 4, 1, true)]) };
        assert_eq!(run(vec![cut, loose], 1, 0), "1t 2t 2c end 2 torn");
        // Behind a file that was cut one without a header, of which only a later round is left, and one that a third opening began.
        let cut = || FileScan { cut: 512, ..file(1, 1, vec![s(1, 1, 0, true), s(1, 2, 1, true)]) };
        let headless = FileScan { first: None, ..file(2, 3, vec![s(2, 4, 2, true)]) };
        let third = FileScan { behind_cut: true, ..file(3, 3, vec![s(3, 3, 2, true), s(3, 4, 3, true)]) };
        let r = classify(vec![cut(), headless, third.clone()], Round(1), Round(0));
        assert_eq!(
            (shape(&r), r.losses().next_back()),
            ("1t 2t 2c 3t 4t end 4 torn".to_owned(), Some(Round(2)))
        );
        assert_eq!(r.cuts().collect::<Vec<_>>(), [(Round(2), 512)]);
        // With a file between them that was begun behind unsynced rounds: whatever becomes of the header of the one that says so.
        let loose = || FileScan { loose: true, ..file(2, 5, vec![s(2, 5, 1, true)]) };
        assert_eq!(run(vec![cut(), loose(), third.clone()], 1, 0), "1t 2t 2c 3t 4t end 4 torn");
        let headless = FileScan { first: None, behind_cut: false, ..third.clone() };
        assert_eq!(run(vec![cut(), loose(), headless], 1, 0), "1t 2t 2c 3t 4t end 4 torn");
        // What was begun there was cut in turn, to nothing but its header: both are gone there, and the next opening says so of both.
        let empty = FileScan { behind_cut: true, cut: 64, ..file(2, 3, vec![]) };
        let all = [vec![cut(), empty.clone()], vec![cut(), empty, third]];
        for (files, more) in all.into_iter().zip(["", " 3t 4t"]) {
            let r = classify(files, Round(1), Round(0));
            assert!(shape(&r).ends_with(&format!("{more} end {}", r.end.0)), "{}", shape(&r));
            assert_eq!((r.cuts().map(|c| c.1).sum::<u64>(), r.losses().next_back()), (576, Some(Round(2))));
        }
        // How much a round that is gone can have held.
        let room = |r: Replay| {
            r.steps.iter().find_map(|s| if let Verdict::Missing(n) = s.1 { Some(n) } else { None })
        };
        let mut far = s(1, 3, 2, true);
        far.head.off = 2048;
        assert_eq!(
            room(classify(vec![file(1, 1, vec![s(1, 1, 0, true), far])], Round(1), Round(0))),
            Some(1536)
        );
        // A file whose header is that of an older use: what stands behind it is of the newer one, and counts.
        let stale = FileScan { first: None, ..file(2, 3, vec![s(2, 3, 2, true), s(2, 4, 3, true)]) };
        let older = file(1, 1, vec![s(1, 1, 0, true), s(1, 2, 1, true)]);
        assert_eq!(run(vec![stale, older], 1, 0), "1t 2t 3t 4t end 4");
        // Header and first round were lost with the power, and what was written behind them without a sync was not: nobody waited for them.
        let headless = FileScan { first: None, ..file(2, 3, vec![s(2, 4, 2, false)]) };
        let older = file(1, 1, vec![s(1, 1, 0, true), s(1, 2, 1, true)]);
        assert_eq!(run(vec![headless, older], 1, 0), "1t 2t end 2 torn");
        // A file that was begun when rounds before it were not synced, and what of it came to the disk by chance: nobody vouched for what did not.
        let loose = FileScan { loose: true, ..file(2, 3, vec![s(2, 3, 1, true)]) };
        let before = file(1, 1, vec![s(1, 1, 0, true)]);
        assert_eq!(run(vec![before.clone(), loose.clone()], 1, 0), "1t end 1 torn");
        let vouches = FileScan { loose: false, ..loose };
        assert_eq!(run(vec![before, vouches], 1, 0), "1t 2m 3t end 3");
        // A round that stands twice, once where it does not belong, voids nothing of its own epoch.
        let twice = FileScan { first: None, ..file(2, 3, vec![s(2, 2, 1, true)]) };
        let whole = file(2, 1, vec![s(2, 1, 0, true), s(2, 2, 1, true), s(2, 3, 2, true)]);
        assert_eq!(run(vec![whole, twice], 1, 0), "1t 2t 3t end 3");
        // Rounds that the manifest holds are not looked at.
        assert_eq!(run(vec![file(1, 1, vec![s(1, 1, 0, false), s(1, 2, 1, true)])], 2, 1), "2t end 2");
    }
}
