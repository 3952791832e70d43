//! Durations and sizes in option strings: what is read is written and read as the same, and agrees with wide arithmetic.

use conf::{SizeError, duration, parse_size};

use crate::engine::{about, seen};

/// Runs one input.
pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match duration::parse(text) {
        Ok(n) => {
            seen(if n < 0 { "negative duration" } else { "duration" }, about(n.unsigned_abs() as usize));
            let again = duration::format(n);
            assert_eq!(duration::parse(&again), Ok(n), "written as {again}");
            assert_eq!(duration::format(duration::parse(&again).unwrap()), again);
            if n > 0 && !text.starts_with('+') {
                assert_eq!(duration::parse(&format!("-{text}")), Ok(-n));
            }
        }
        Err(e) => {
            assert!(e.starts_with("time: "), "{e}");
            seen("no duration", e.as_bytes().get(6).copied().unwrap_or_default().into());
        }
    }
    // By the book: digits, then perhaps a unit.
    let trimmed = text.trim();
    let digits: String = trimmed.chars().take_while(char::is_ascii_digit).collect();
    let unit = trimmed[digits.len()..].to_ascii_lowercase();
    let power = ["", "k", "m", "g", "t", "p", "e"].iter().position(|p| {
        let long = !p.is_empty() && ["b", "i", "ib"].iter().any(|s| unit == format!("{p}{s}"));
        // A single letter counts for itself up to t.
        unit == *p && *p != "p" && *p != "e" || long
    });
    let expected = match (digits.is_empty(), power) {
        (true, _) => Err(SizeError::NoNumber),
        (_, None) => Err(SizeError::BadSuffix),
        (_, Some(p)) => digits
            .parse::<i128>()
            .ok()
            .and_then(|n| n.checked_mul(1 << (10 * p)))
            .and_then(|n| i64::try_from(n).ok())
            .ok_or(SizeError::OutOfRange),
    };
    assert_eq!(parse_size(text), expected);
    let tag = match expected {
        Ok(_) => "size",
        Err(SizeError::NoNumber) => "no number",
        Err(SizeError::BadSuffix) => "bad suffix",
        Err(SizeError::OutOfRange) => "out of range",
    };
    seen(tag, power.unwrap_or(7) as u64);
}
