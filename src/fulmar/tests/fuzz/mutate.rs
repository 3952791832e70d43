//! How inputs are changed. Knows no format but what most have in common: lines, decimal numbers, lengths of what follows.

use env::rng::Rng;

/// What there is to make an input from.
pub struct Mutator<'a> {
    /// Inputs that have shown something; not empty.
    pub inputs: &'a [Vec<u8>],
    /// Words of the format.
    pub words: &'a [&'a [u8]],
    /// Longest input in bytes.
    pub bytes_max: usize,
}

/// Numbers at which something tends to change.
const NUMBERS: [u64; 22] = [
    0,
    1,
    2,
    9,
    10,
    63,
    64,
    65,
    125,
    126,
    127,
    128,
    255,
    256,
    1024,
    4096,
    65_535,
    65_536,
    i32::MAX as u64,
    i32::MAX as u64 + 1,
    i64::MAX as u64,
    u64::MAX,
];

/// An input that was not there before, most often.
pub fn mutate(rng: &mut Rng, m: &Mutator<'_>) -> Vec<u8> {
    // Half of the time one of the inputs that came last: they lead into what is new.
    let from = if rng.bool(0.5) { m.inputs.len() - m.inputs.len().div_ceil(4) } else { 0 };
    let mut input = rng.pick(&m.inputs[from..]).cloned().unwrap_or_default();
    // Few changes as a rule, many now and then.
    let changes = 1 + rng.below(3) + if rng.bool(0.1) { rng.below(12) } else { 0 };
    for _ in 0..changes {
        change(rng, m, &mut input);
    }
    input.truncate(m.bytes_max);
    input
}

fn change(rng: &mut Rng, m: &Mutator<'_>, input: &mut Vec<u8>) {
    let place = |rng: &mut Rng, input: &[u8]| rng.below(input.len() as u64 + 1) as usize;
    let range = |rng: &mut Rng, input: &[u8]| {
        let from = rng.below(input.len() as u64 + 1) as usize;
        let most = (input.len() - from).min(1 << rng.below(8));
        from..from + rng.below(most as u64 + 1) as usize
    };
    match rng.below(15) {
        0 if !input.is_empty() => {
            let at = rng.below(input.len() as u64) as usize;
            input[at] ^= 1 << rng.below(8);
        }
        1 if !input.is_empty() => {
            let at = rng.below(input.len() as u64) as usize;
            input[at] = rng.next_u64() as u8;
        }
        2 => {
            let r = range(rng, input);
            input.drain(r);
        }
        3 => {
            let at = place(rng, input);
            input.truncate(at);
        }
        4 | 5 => {
            let at = place(rng, input);
            let word = rng.pick(m.words).copied().unwrap_or_default();
            input.splice(at..at, word.iter().copied());
        }
        6 => {
            // A word in the place of what stood there.
            let word = rng.pick(m.words).copied().unwrap_or_default();
            let at = place(rng, input);
            let end = (at + word.len()).min(input.len());
            input.splice(at..end, word.iter().copied());
        }
        7 => {
            let r = range(rng, input);
            let piece = input[r.clone()].to_vec();
            let times = if rng.bool(0.2) { 1 + rng.below(60) } else { 1 + rng.below(3) } as usize;
            let times = times.min(m.bytes_max / piece.len().max(1));
            input.splice(r.end..r.end, piece.repeat(times));
        }
        8 => {
            // The front of this one and the back of another.
            let other = rng.pick(m.inputs).cloned().unwrap_or_default();
            let (end, from) = (place(rng, input), place(rng, &other));
            input.truncate(end);
            input.extend_from_slice(&other[from..]);
        }
        9 => {
            // A piece of another one in the midst.
            let other = rng.pick(m.inputs).cloned().unwrap_or_default();
            let r = range(rng, &other);
            let at = place(rng, input);
            input.splice(at..at, other[r].iter().copied());
        }
        10 => {
            // Whole lines change places or are said twice.
            let mut lines: Vec<Vec<u8>> =
                input.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            if let Some(line) = rng.pick(&lines).cloned() {
                let n = lines.len() as u64;
                match rng.below(2) {
                    0 => lines.swap(rng.below(n) as usize, rng.below(n) as usize),
                    _ => lines.insert(rng.below(n + 1) as usize, line),
                }
            }
            *input = lines.concat();
        }
        11 => decimal(rng, input),
        12 => fit_decimal(rng, input),
        13 => fit_binary(rng, input),
        _ => {
            let at = place(rng, input);
            let mut bytes = vec![0; 1 + rng.below(8) as usize];
            rng.fill(&mut bytes);
            input.splice(at..at, bytes);
        }
    }
}

/// The runs of decimal digits.
fn decimals(input: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut all = Vec::new();
    let mut at = 0;
    for run in input.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()) {
        if run[0].is_ascii_digit() {
            all.push(at..at + run.len());
        }
        at += run.len();
    }
    all
}

/// Another number where one stands.
fn decimal(rng: &mut Rng, input: &mut Vec<u8>) {
    let Some(r) = rng.pick(&decimals(input)).cloned() else { return };
    let now = input[r.clone()].iter().fold(0u64, |n, b| n.wrapping_mul(10).wrapping_add(u64::from(b - b'0')));
    let new = match rng.below(5) {
        0 => now.wrapping_add(1),
        1 => now.wrapping_sub(1),
        2 => now.wrapping_mul(10),
        3 => rng.below(100),
        _ => rng.pick(&NUMBERS).copied().unwrap_or_default(),
    };
    input.splice(r, new.to_string().into_bytes());
}

/// A number at the end of a line becomes the length of what follows up to some later line's end.
fn fit_decimal(rng: &mut Rng, input: &mut Vec<u8>) {
    let ends: Vec<usize> =
        input.windows(2).enumerate().filter(|(_, w)| w == b"\r\n").map(|(i, _)| i).collect();
    let Some(i) = (!ends.is_empty()).then(|| rng.below(ends.len() as u64) as usize) else { return };
    let end = ends[i];
    let Some(to) = ends[i..].get(1 + rng.below(3) as usize) else { return };
    let digits = input[..end].iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let len = (to - (end + 2)).to_string();
    input.splice(end - digits..end, len.into_bytes());
}

/// Some bytes become the length of what follows, as one, two or eight bytes, the highest first.
fn fit_binary(rng: &mut Rng, input: &mut [u8]) {
    let width = [1, 1, 2, 8][rng.below(4) as usize];
    let Some(last) = input.len().checked_sub(width) else { return };
    let at = rng.below(last as u64 + 1) as usize;
    // Behind a length there may be a mask or the like, and this need not be the last piece.
    let left = (last - at).saturating_sub([0, 0, 4, rng.below(32) as usize][rng.below(4) as usize]);
    let length = if rng.bool(0.2) { NUMBERS[rng.below(NUMBERS.len() as u64) as usize] } else { left as u64 };
    let high = if width == 1 && rng.bool(0.5) { 0x80 } else { 0 };
    input[at..at + width].copy_from_slice(&length.to_be_bytes()[8 - width..]);
    input[at] |= high;
}
