//! The destination language: `$N`, `{{function(arguments)}}` and literal tokens. Knows no source: whether an index
//! exists there is checked later. Each rule was observed on nats-server 2.15.1.

use super::{Reason, TransformError};
use crate::valid::{is_tail, tokens};

/// Functions of a token and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    SplitLeft,
    SplitRight,
    SliceLeft,
    SliceRight,
    Left,
    Right,
}

/// One destination token. Indexes count wildcards of the source from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Literal,
    Wildcard(i64),
    /// Number of partitions, and the wildcards to hash; none for the whole subject.
    Partition(u32, Vec<i64>),
    Random(u32),
    Split(i64, Vec<u8>),
    /// The number is 0 where it was not positive: then the token stays whole.
    Positional(Kind, i64, u32),
}

/// All tokens of a destination with what they mean.
pub(super) fn functions(destination: &[u8]) -> Result<Vec<(&[u8], Function)>, TransformError> {
    let mut all = Vec::new();
    if destination.is_empty() {
        return Ok(all);
    }
    let mut open = true;
    for token in tokens(destination) {
        if token.is_empty() || !is_call(token) && token.iter().any(|b| b" \t\n\r\x0c".contains(b)) {
            return Err(TransformError::at(Reason::InvalidTransform, b""));
        }
        if !open {
            return Err(TransformError::at(Reason::InvalidTransform, token));
        }
        open = !is_tail(token);
        all.push((token, function(token).map_err(|reason| TransformError::at(reason, token))?));
    }
    Ok(all)
}

/// Whether a token has to be a function. `{{}}` and calls with anything before or behind them are literal.
fn is_call(token: &[u8]) -> bool {
    token.len() > 4 && token.starts_with(b"{{") && token.ends_with(b"}}")
}

/// What one token means.
pub(super) fn function(token: &[u8]) -> Result<Function, Reason> {
    if let Some(digits) = token.strip_prefix(b"$") {
        // A token with a space was refused before, so the trimming of `number` changes nothing here.
        return Ok(number(digits).map_or(Function::Literal, Function::Wildcard));
    }
    if !is_call(token) {
        return Ok(Function::Literal);
    }
    let (name, arguments) = call(token).ok_or(Reason::UnknownFunction)?;
    let is = |words: &[&str]| name_is(name, words);
    if is(&["wildcard"]) {
        return match arguments.as_slice() {
            [b""] => Err(Reason::NotEnoughArgs),
            [one] => Ok(Function::Wildcard(number(one).ok_or(Reason::InvalidArg)?)),
            _ => Err(Reason::TooManyArgs),
        };
    }
    if is(&["partition"]) {
        let of = number(arguments.first().copied().unwrap_or_default())
            .filter(|n| *n <= i64::from(i32::MAX))
            .ok_or(Reason::InvalidArg)?;
        let indexes: Option<Vec<i64>> = arguments.iter().skip(1).map(|a| number(a)).collect();
        // Negative counts wrap, as they do there; they are of no use, but their result can be observed.
        return Ok(Function::Partition(of as u32, indexes.ok_or(Reason::InvalidArg)?));
    }
    if is(&["random"]) {
        return match arguments.as_slice() {
            [of] => {
                let of = number(of).filter(|n| *n <= i64::from(i32::MAX)).ok_or(Reason::InvalidArg)?;
                Ok(Function::Random(of.max(0) as u32))
            }
            _ => Err(Reason::NotEnoughArgs),
        };
    }
    if is(&["split"]) {
        let [index, separator] = pair(&arguments)?;
        let index = number(index).ok_or(Reason::InvalidArg)?;
        if separator.iter().any(|b| matches!(b, b' ' | b'.')) {
            return Err(Reason::InvalidArg);
        }
        return Ok(Function::Split(index, separator.into()));
    }
    let kind = if is(&["split", "from", "left"]) {
        Kind::SplitLeft
    } else if is(&["split", "from", "right"]) {
        Kind::SplitRight
    } else if is(&["slice", "from", "left"]) {
        Kind::SliceLeft
    } else if is(&["slice", "from", "right"]) {
        Kind::SliceRight
    } else if is(&["left"]) {
        Kind::Left
    } else if is(&["right"]) {
        Kind::Right
    } else {
        return Err(Reason::UnknownFunction);
    };
    let [index, n] = pair(&arguments)?;
    let index = number(index).ok_or(Reason::InvalidArg)?;
    let n = number(n).filter(|n| *n <= i64::from(i32::MAX)).ok_or(Reason::InvalidArg)?;
    Ok(Function::Positional(kind, index, n.max(0) as u32))
}

fn pair<'a>(arguments: &[&'a [u8]]) -> Result<[&'a [u8]; 2], Reason> {
    match arguments {
        [a, b] => Ok([a, b]),
        [] | [_] => Err(Reason::NotEnoughArgs),
        _ => Err(Reason::TooManyArgs),
    }
}

/// Name and arguments of a call: `{{`, name, `(`, arguments up to the last `)` that closes before `}}`. What stands
/// before the last `{{` ahead of the name is ignored, as there.
fn call(token: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let open = token.iter().position(|b| *b == b'(')?;
    let start = token[..open].windows(2).rposition(|w| w == b"{{")? + 2;
    let name = token[start..open].trim_ascii();
    // White space goes at the start and behind each comma; spaces before a comma only where a number is read.
    let arguments = token.get(open + 1..closing(token, open)?)?.split(|b| *b == b',');
    Some((name, arguments.enumerate().map(|(i, a)| if i == 0 { a } else { a.trim_ascii_start() }).collect()))
}

/// Where the arguments end that begin behind `open`.
fn closing(token: &[u8], open: usize) -> Option<usize> {
    let closes = |at: &usize| token[*at] == b')' && token[at + 1..].trim_ascii_start().starts_with(b"}}");
    (open + 1..token.len()).rev().find(closes)
}

fn trim_spaces(mut s: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = s {
        s = rest;
    }
    s
}

/// Whether `name` is these words joined, the case of each first letter ignored.
fn name_is(name: &[u8], words: &[&str]) -> bool {
    let mut rest = name;
    for word in words {
        let word = word.as_bytes();
        let Some((head, tail)) = rest.split_at_checked(word.len()) else { return false };
        if !head[0].eq_ignore_ascii_case(&word[0]) || head[1..] != word[1..] {
            return false;
        }
        rest = tail;
    }
    rest.is_empty()
}

/// A decimal number of 64 bits with an optional sign, spaces around it ignored.
fn number(s: &[u8]) -> Option<i64> {
    std::str::from_utf8(trim_spaces(s)).ok()?.parse().ok()
}
