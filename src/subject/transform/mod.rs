//! Subject transforms: rename what a source pattern matches into a destination built from its tokens.
//!
//! Owns the destination language of NATS (`$1`, `{{partition(3,1)}}` …), its validation with the texts nats-server
//! 2.15.1 gives, and the work per message: into a buffer that is used again, without allocation. Draws no random
//! number: whoever applies a transform passes a source of them. Weighted choice among transforms is [`Mapping`]'s.
//!
//! Invariants:
//! - T-1: a transform that was built never fails on a subject that its source matches.
//! - T-2: a source with `>` has a destination with `>`, and the other way round; no destination has `*`.
//!
//! What it puts out need not be a valid subject: `split` of a token made only of separators leaves an empty token, as
//! on nats-server. Such a message reaches nobody.

mod mapping;
mod parse;

pub use mapping::{Choice, Destination, Mapping, MappingError, Mappings};

use crate::valid::{has_wildcard, is_star, is_tail, is_valid, matches, tokens};
use parse::Function;

/// Why a transform was refused. The texts of `Display` are nats-server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransformError {
    /// Source or destination break the subject rules, or only one of them has `>`, or the destination has `*`.
    BadSubject,
    /// The destination cannot be understood.
    Destination {
        /// What is wrong.
        reason: Reason,
        /// The token that is wrong, or the whole destination; empty when the server names none.
        token: Vec<u8>,
        /// The wildcard index that is out of range, where the server names it.
        index: Option<i64>,
    },
}

/// What is wrong with a transform's destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Structure: an empty token, white space, or something after `>`.
    InvalidTransform,
    /// `{{…}}` that is no known function.
    UnknownFunction,
    /// A function argument names a wildcard that the source does not have.
    IndexOutOfRange,
    /// Too few arguments.
    NotEnoughArgs,
    /// An argument that is no number, too large a number, or an impossible separator.
    InvalidArg,
    /// Too many arguments.
    TooManyArgs,
    /// Strict form: some wildcard of the source is not used.
    NotUsingAllWildcards,
    /// Strict form: a function other than `wildcard`.
    NotForImport,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Reason::InvalidTransform => "invalid transform",
            Reason::UnknownFunction => "unknown function",
            Reason::IndexOutOfRange => "wildcard index out of range",
            Reason::NotEnoughArgs => "not enough arguments passed to the function",
            Reason::InvalidArg => "function argument is invalid or in the wrong format",
            Reason::TooManyArgs => "too many arguments passed to the function",
            Reason::NotUsingAllWildcards => "not using all of the token wildcard(s)",
            Reason::NotForImport => {
                "the only mapping function allowed for import transforms is {{Wildcard()}}"
            }
        }
    }
}

impl TransformError {
    fn at(reason: Reason, token: &[u8]) -> Self {
        TransformError::Destination { reason, token: token.into(), index: None }
    }
}

impl std::fmt::Display for TransformError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TransformError::BadSubject => f.write_str("invalid subject"),
            TransformError::Destination { reason, token, index } => {
                write!(f, "invalid mapping destination: {}", reason.text())?;
                if !token.is_empty() {
                    write!(f, " in {}", String::from_utf8_lossy(token))?;
                }
                match index {
                    Some(i) => write!(f, ": [{i}]"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for TransformError {}

/// One token, or a run of literal tokens, of the destination. Numbers are positions of tokens in the subject.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    Token(usize),
    Partition {
        of: u32,
        tokens: Box<[usize]>,
    },
    PartitionAll {
        of: u32,
    },
    Random {
        of: u32,
    },
    Split {
        token: usize,
        separator: Box<[u8]>,
    },
    SplitLeft {
        token: usize,
        at: usize,
    },
    SplitRight {
        token: usize,
        at: usize,
    },
    SliceLeft {
        token: usize,
        size: usize,
    },
    SliceRight {
        token: usize,
        size: usize,
    },
    Left {
        token: usize,
        size: usize,
    },
    Right {
        token: usize,
        size: usize,
    },
    /// All tokens from this one on: what `>` matched.
    Rest(usize),
}

/// A source pattern and what becomes of the subjects it matches; see the module's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    source: Vec<u8>,
    destination: Vec<u8>,
    parts: Vec<Part>,
}

impl Transform {
    /// A transform with all functions. An empty `source` stands for `>`. An empty destination is refused here:
    /// nats-server 2.15.1 takes one in its mappings and crashes on the first message.
    pub fn new(source: &[u8], destination: &[u8]) -> Result<Transform, TransformError> {
        Transform::build(source, destination, false)
    }

    /// The strict form, for imports: only the `wildcard` function, and at least as many uses as the source has
    /// wildcards (as nats-server counts; whether it can be turned round is for [`Transform::inverse`] to say).
    pub fn strict(source: &[u8], destination: &[u8]) -> Result<Transform, TransformError> {
        Transform::build(source, destination, true)
    }

    fn build(source: &[u8], destination: &[u8], strict: bool) -> Result<Transform, TransformError> {
        let source = if source.is_empty() { b">".as_slice() } else { source };
        let functions = parse::functions(destination)?;
        let stars: Vec<usize> =
            tokens(source).enumerate().filter(|(_, t)| is_star(t)).map(|(i, _)| i).collect();
        let wild = has_wildcard(source);
        let tail = |s: &[u8]| tokens(s).last().is_some_and(is_tail);
        let has_star = functions.iter().any(|(t, _)| is_star(t));
        if !is_valid(source) || destination.is_empty() || has_star || tail(source) != tail(destination) {
            return Err(TransformError::BadSubject);
        }
        let mut builder = Builder { stars: &stars, wild, parts: Vec::new() };
        let mut used = 0;
        for (token, function) in &functions {
            match function {
                Function::Wildcard(_) => used += 1,
                Function::Literal => {}
                _ if strict => return Err(TransformError::at(Reason::NotForImport, token)),
                _ => {}
            }
            builder.check(token, function)?;
        }
        if strict && used < stars.len() {
            return Err(TransformError::at(Reason::NotUsingAllWildcards, destination));
        }
        let rest = tokens(source).count() - 1;
        for (token, function) in functions {
            builder.push(token, function, rest);
        }
        let has_rest = matches!(builder.parts.last(), Some(Part::Rest(_)));
        assert!(has_rest == tail(source), "T-2: `>` stands at both ends or at none");
        Ok(Transform { source: source.into(), destination: destination.into(), parts: builder.parts })
    }

    /// What it applies to.
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// The destination as it was given.
    pub fn destination(&self) -> &[u8] {
        &self.destination
    }

    /// Whether its source matches a publish to `subject`.
    pub fn matches(&self, subject: &[u8]) -> bool {
        matches(subject, &self.source)
    }

    /// Writes what becomes of `subject` into `out`, which is cleared first; false, and `out` empty, if the source does
    /// not match. `random(n)` gives a number below `n`; it is only called by a destination that has `random`.
    pub fn apply(&self, subject: &[u8], random: impl FnMut(u32) -> u32, out: &mut Vec<u8>) -> bool {
        out.clear();
        let does = self.matches(subject);
        if does {
            let named = tokens(&self.source).count();
            debug_assert!(tokens(subject).count() >= named, "T-1: a match has every token that a part names");
            self.write(subject, random, out);
        }
        does
    }

    /// As [`Transform::apply`] for a subject that is known to match, also where it is itself a pattern that is a
    /// subset of the source (an import seen from a subscription): wildcards in it are carried over as they are.
    pub fn write(&self, subject: &[u8], mut random: impl FnMut(u32) -> u32, out: &mut Vec<u8>) {
        out.clear();
        let token = |n: usize| tokens(subject).nth(n).unwrap_or_default();
        for (i, part) in self.parts.iter().enumerate() {
            if i > 0 {
                out.push(b'.');
            }
            match part {
                Part::Literal(l) => out.extend_from_slice(l),
                Part::Token(n) => out.extend_from_slice(token(*n)),
                Part::Partition { of, tokens } => {
                    let hash = tokens.iter().fold(FNV_START, |h, n| fnv1a(h, token(*n)));
                    decimal(hash.checked_rem(*of).unwrap_or(0), out);
                }
                Part::PartitionAll { of } => {
                    decimal(fnv1a(FNV_START, subject).checked_rem(*of).unwrap_or(0), out)
                }
                Part::Random { of } => {
                    decimal(if *of == 0 { 0 } else { random(*of).checked_rem(*of).unwrap_or(0) }, out)
                }
                Part::Split { token: n, separator } => split(token(*n), separator, out),
                Part::SplitLeft { token: n, at } => cut(token(*n), *at, out),
                Part::SplitRight { token: n, at } => {
                    let t = token(*n);
                    cut(t, t.len().saturating_sub(*at), out)
                }
                Part::SliceLeft { token: n, size } => {
                    let t = token(*n);
                    slices(t, *size, if *size == 0 { t.len() } else { t.len().min(*size) }, out)
                }
                Part::SliceRight { token: n, size } => {
                    let t = token(*n);
                    let first = match t.len().checked_rem(*size) {
                        Some(0) => t.len().min(*size),
                        Some(short) => short,
                        None => t.len(),
                    };
                    slices(t, *size, first, out)
                }
                Part::Left { token: n, size } => {
                    let t = token(*n);
                    out.extend_from_slice(if *size == 0 { t } else { &t[..t.len().min(*size)] })
                }
                Part::Right { token: n, size } => {
                    let t = token(*n);
                    let from = if *size == 0 { 0 } else { t.len().saturating_sub(*size) };
                    out.extend_from_slice(&t[from..])
                }
                Part::Rest(n) => {
                    let mut it = tokens(subject);
                    it.by_ref().take(*n).for_each(drop);
                    out.extend_from_slice(it.rest());
                }
            }
        }
    }

    /// The transform that leads back: it matches what this one puts out. None where that is not possible: functions
    /// other than `wildcard`, a wildcard of the source that the destination does not use, or a literal token of the
    /// source that a destination cannot hold because it reads as a function there (`$1`).
    pub fn inverse(&self) -> Option<Transform> {
        let mut source = Vec::new();
        // The wildcard number in the new source, by token position in the old one.
        let mut numbers: Vec<(usize, usize)> = Vec::new();
        let mut stars = 0;
        for part in &self.parts {
            let piece: &[u8] = match part {
                Part::Literal(l) => l,
                Part::Token(n) => {
                    stars += 1;
                    numbers.push((*n, stars));
                    b"*"
                }
                Part::Rest(_) => b">",
                _ => return None,
            };
            append(&mut source, piece);
        }
        let mut destination = Vec::new();
        for (i, token) in tokens(&self.source).enumerate() {
            if is_star(token) {
                let (_, number) = numbers.iter().find(|(n, _)| *n == i)?;
                append(&mut destination, format!("{{{{wildcard({number})}}}}").as_bytes());
            } else if parse::function(token) != Ok(Function::Literal) {
                return None;
            } else {
                append(&mut destination, token);
            }
        }
        Transform::new(&source, &destination).ok()
    }
}

/// `subject` with its first `*` written as `$1`, the second as `$2` and so on: how an import's plain `to` subject
/// becomes a transform's destination.
pub fn numbered(subject: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut stars = 0;
    for token in tokens(subject) {
        if is_star(token) {
            stars += 1;
            append(&mut out, format!("${stars}").as_bytes());
        } else {
            append(&mut out, token);
        }
    }
    out
}

/// `subject` with every `$N` and `{{wildcard(N)}}` written as `*`: the pattern that a destination can become.
pub fn starred(subject: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for token in tokens(subject) {
        let wild = matches!(parse::function(token), Ok(Function::Wildcard(_)));
        append(&mut out, if wild { b"*" } else { token });
    }
    out
}

fn append(subject: &mut Vec<u8>, tokens: &[u8]) {
    if !subject.is_empty() {
        subject.push(b'.');
    }
    subject.extend_from_slice(tokens);
}

/// Turns parsed functions, whose arguments count wildcards, into parts, which count tokens.
struct Builder<'a> {
    /// Token positions of the source's `*`.
    stars: &'a [usize],
    /// Whether the source has any wildcard, `>` included.
    wild: bool,
    parts: Vec<Part>,
}

impl Builder<'_> {
    /// The position of wildcard `n`. Numbers below one stand for the first token, as on nats-server; those above the
    /// range were refused by `check`.
    fn position(&self, n: i64) -> usize {
        usize::try_from(n - 1).ok().and_then(|i| self.stars.get(i)).copied().unwrap_or(0)
    }

    fn check(&self, token: &[u8], function: &Function) -> Result<(), TransformError> {
        let out_of_range = |index| TransformError::Destination {
            reason: Reason::IndexOutOfRange,
            token: token.into(),
            index,
        };
        let indexes: &[i64] = match function {
            Function::Literal | Function::Random(_) => return Ok(()),
            Function::Partition(_, indexes) => indexes,
            Function::Wildcard(i) | Function::Split(i, _) | Function::Positional(_, i, _) => {
                std::slice::from_ref(i)
            }
        };
        match (self.wild, function) {
            // Without wildcards a partition hashes the whole subject, whatever its indexes say.
            (false, Function::Partition(..)) => Ok(()),
            (false, _) => Err(out_of_range(None)),
            (true, _) => match indexes.iter().find(|i| **i > self.stars.len() as i64) {
                Some(i) => Err(out_of_range(Some(*i))),
                None => Ok(()),
            },
        }
    }

    fn push(&mut self, token: &[u8], function: Function, rest: usize) {
        let part = match function {
            Function::Literal if is_tail(token) => Part::Rest(rest),
            Function::Literal => match self.parts.last_mut() {
                Some(Part::Literal(run)) => {
                    let mut longer = std::mem::take(run).into_vec();
                    append(&mut longer, token);
                    *run = longer.into_boxed_slice();
                    return;
                }
                _ => Part::Literal(token.into()),
            },
            Function::Wildcard(i) => Part::Token(self.position(i)),
            Function::Partition(of, indexes) if indexes.is_empty() || !self.wild => Part::PartitionAll { of },
            Function::Partition(of, indexes) => {
                Part::Partition { of, tokens: indexes.iter().map(|i| self.position(*i)).collect() }
            }
            Function::Random(of) => Part::Random { of },
            Function::Split(i, separator) => {
                Part::Split { token: self.position(i), separator: separator.into() }
            }
            Function::Positional(kind, i, n) => {
                let (token, n) = (self.position(i), n as usize);
                match kind {
                    parse::Kind::SplitLeft => Part::SplitLeft { token, at: n },
                    parse::Kind::SplitRight => Part::SplitRight { token, at: n },
                    parse::Kind::SliceLeft => Part::SliceLeft { token, size: n },
                    parse::Kind::SliceRight => Part::SliceRight { token, size: n },
                    parse::Kind::Left => Part::Left { token, size: n },
                    parse::Kind::Right => Part::Right { token, size: n },
                }
            }
        };
        self.parts.push(part);
    }
}

const FNV_START: u32 = 0x811c_9dc5;

/// FNV-1a with 32 bits, continued from `hash`.
fn fnv1a(hash: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(hash, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

fn decimal(n: u32, out: &mut Vec<u8>) {
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut n = n;
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The token in two at `at`, or whole when one half would be empty.
fn cut(token: &[u8], at: usize, out: &mut Vec<u8>) {
    if at == 0 || at >= token.len() {
        return out.extend_from_slice(token);
    }
    out.extend_from_slice(&token[..at]);
    out.push(b'.');
    out.extend_from_slice(&token[at..]);
}

/// A first piece of `first` bytes, then pieces of `size`.
fn slices(token: &[u8], size: usize, first: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&token[..first]);
    for piece in token[first..].chunks(size.max(1)) {
        out.push(b'.');
        out.extend_from_slice(piece);
    }
}

/// The pieces between separators as tokens. Empty pieces are left out; but a dot is put before every non-empty piece
/// other than the first two when only the very first was empty, which is nats-server's rule and shows on `--a`: it
/// becomes `.a`, an invalid subject.
fn split(token: &[u8], separator: &[u8], out: &mut Vec<u8>) {
    if separator.is_empty() {
        return characters(token, out);
    }
    let mut at = 0;
    // Which piece this is, and whether the one before was both the first and empty.
    let mut first = true;
    let mut after_empty_first = false;
    loop {
        let end = find(token, separator, at);
        let piece = &token[at..end.unwrap_or(token.len())];
        if !piece.is_empty() {
            if !first && !after_empty_first {
                out.push(b'.');
            }
            out.extend_from_slice(piece);
        }
        after_empty_first = first && piece.is_empty();
        first = false;
        match end {
            Some(end) => at = end + separator.len(),
            None => return,
        }
    }
}

/// One token for each UTF-8 character; a byte that begins none stands alone.
fn characters(token: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while at < token.len() {
        let most = (token.len() - at).min(4);
        let size = (1..=most).find(|n| std::str::from_utf8(&token[at..at + n]).is_ok()).unwrap_or(1);
        if at > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(&token[at..at + size]);
        at += size;
    }
}

fn find(token: &[u8], separator: &[u8], from: usize) -> Option<usize> {
    token.get(from..)?.windows(separator.len()).position(|w| w == separator).map(|p| p + from)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
