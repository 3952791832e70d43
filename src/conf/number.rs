//! Bare words that begin like a number: integers with size suffixes, floats, datetimes, or just text.

use crate::value::{DateTime, Value};

/// What a size suffix multiplies by; matched without regard to case.
const SUFFIXES: [(&str, u64); 24] = [
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("p", 1_000_000_000_000_000),
    ("e", 1_000_000_000_000_000_000),
    ("kb", 1 << 10),
    ("ki", 1 << 10),
    ("kib", 1 << 10),
    ("mb", 1 << 20),
    ("mi", 1 << 20),
    ("mib", 1 << 20),
    ("gb", 1 << 30),
    ("gi", 1 << 30),
    ("gib", 1 << 30),
    ("tb", 1 << 40),
    ("ti", 1 << 40),
    ("tib", 1 << 40),
    ("pb", 1 << 50),
    ("pi", 1 << 50),
    ("pib", 1 << 50),
    ("eb", 1 << 60),
    ("ei", 1 << 60),
    ("eib", 1 << 60),
];

/// Why a word that begins like a number cannot stand.
#[derive(Debug, PartialEq)]
pub(crate) struct BadNumber(pub String);

/// Gives a bare word that begins with a digit, a minus or a dot its meaning. Words that are no number after all, such
/// as `127.0.0.1:4222` or `5s`, are text.
pub(crate) fn classify(word: &str) -> Result<Value, BadNumber> {
    let (negative, body) = match word.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, word),
    };
    let bad = |text: String| Err(BadNumber(text));
    if word.starts_with('.') {
        return bad("Floats must start with a digit".into());
    }
    let digits_len = body.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = body.split_at(digits_len);
    if digits.is_empty() {
        return bad(format!("Expected a digit but got '{}'.", first_char(rest)));
    }
    if rest.is_empty() || rest.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) {
        return integer(word, negative, digits, rest);
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        return float(word, fraction);
    }
    if rest.starts_with('-') && !negative {
        return datetime(word);
    }
    Ok(Value::String(word.to_string()))
}

fn first_char(text: &str) -> String {
    text.chars().next().map_or_else(|| "end of the value".to_string(), String::from)
}

fn integer(word: &str, negative: bool, digits: &str, suffix: &str) -> Result<Value, BadNumber> {
    let factor = if suffix.is_empty() {
        1
    } else {
        match factor_of(suffix) {
            Some(factor) => factor,
            // Negative numbers have no other reading; `5s` and `1h30m` are durations, read by whoever expects one.
            None if negative => return Err(BadNumber(format!("Expected a number but got '{word}'."))),
            None => return Ok(Value::String(word.to_string())),
        }
    };
    let value = digits
        .parse::<i128>()
        .ok()
        .map(|n| if negative { -n } else { n })
        .and_then(|n| n.checked_mul(i128::from(factor)))
        .and_then(|n| i64::try_from(n).ok());
    value.map(Value::Int).ok_or_else(|| BadNumber(format!("integer '{word}' is out of the range")))
}

fn float(word: &str, fraction: &str) -> Result<Value, BadNumber> {
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Err(BadNumber(format!(
            "Floats must have a digit after the '.', but got '{}' instead.",
            first_char(fraction)
        )));
    }
    let rest = &fraction[digits..];
    if rest.is_empty() {
        return word
            .parse::<f64>()
            .ok()
            .filter(|x| x.is_finite())
            .map(Value::Float)
            .ok_or_else(|| BadNumber(format!("float '{word}' is out of the range")));
    }
    // A letter right after the fraction is a mistake (1.5k); a further dot or a colon makes it an address.
    if rest.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) {
        return Err(BadNumber(format!("Expected a float to end, but got '{}' instead.", first_char(rest))));
    }
    Ok(Value::String(word.to_string()))
}

fn datetime(word: &str) -> Result<Value, BadNumber> {
    const FORM: &[u8; 20] = b"dddd-dd-ddTdd:dd:ddZ";
    let bytes = word.as_bytes();
    let in_form = bytes.len() == FORM.len()
        && bytes.iter().zip(FORM).all(|(b, f)| if *f == b'd' { b.is_ascii_digit() } else { b == f });
    if !in_form {
        return Err(BadNumber("All ISO8601 dates must be in full Zulu form.".into()));
    }
    let number = |from: usize, len: usize| {
        bytes[from..from + len].iter().fold(0u16, |n, b| n * 10 + u16::from(b - b'0'))
    };
    let small = |from: usize| u8::try_from(number(from, 2)).expect("two digits fit a byte");
    let date = DateTime {
        year: number(0, 4),
        month: small(5),
        day: small(8),
        hour: small(11),
        minute: small(14),
        second: small(17),
    };
    let days = match date.month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if date.year.is_multiple_of(4)
            && (!date.year.is_multiple_of(100) || date.year.is_multiple_of(400)) =>
        {
            29
        }
        2 => 28,
        _ => 0,
    };
    if date.day == 0 || date.day > days || date.hour > 23 || date.minute > 59 || date.second > 59 {
        return Err(BadNumber(format!("Expected Zulu formatted DateTime, but got '{word}'.")));
    }
    Ok(Value::DateTime(date))
}

fn factor_of(suffix: &str) -> Option<u64> {
    SUFFIXES.iter().find(|(s, _)| s.eq_ignore_ascii_case(suffix)).map(|(_, f)| *f)
}

/// Why a string is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeError {
    /// It is empty, or does not begin with digits.
    NoNumber,
    /// The letters after the digits are no known unit.
    BadSuffix,
    /// It does not fit an i64.
    OutOfRange,
}

/// The bytes of a size in a string, as options and flags take it: `1024`, `64K`, `1GB`, `10GiB`. In a string a single
/// letter counts by 1024, unlike in a bare number of the language; nats-server does so, and store sizes depend on it.
pub fn parse_size(text: &str) -> Result<i64, SizeError> {
    let text = text.trim();
    let digits_len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, suffix) = text.split_at(digits_len);
    if digits.is_empty() {
        return Err(SizeError::NoNumber);
    }
    let factor = match suffix {
        "" => 1,
        s if s.len() == 1 => match s.to_ascii_lowercase().as_str() {
            "k" => 1 << 10,
            "m" => 1 << 20,
            "g" => 1 << 30,
            "t" => 1 << 40,
            _ => return Err(SizeError::BadSuffix),
        },
        s => factor_of(s).ok_or(SizeError::BadSuffix)?,
    };
    let n: i64 = digits.parse().map_err(|_| SizeError::OutOfRange)?;
    i64::try_from(factor).ok().and_then(|f| n.checked_mul(f)).ok_or(SizeError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> Result<Value, BadNumber> {
        Ok(Value::String(s.to_string()))
    }

    #[test]
    fn integers_and_their_suffixes() {
        for (word, n) in [
            ("0", 0),
            ("007", 7),
            ("-5", -5),
            ("1k", 1000),
            ("-1k", -1000),
            ("1KB", 1024),
            ("1Ki", 1024),
            ("2MiB", 2 << 20),
            ("1g", 1_000_000_000),
            ("1GiB", 1 << 30),
            ("1E", 1_000_000_000_000_000_000),
            ("1eb", 1 << 60),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(classify(word), Ok(Value::Int(n)), "{word}");
        }
        for word in ["9223372036854775808", "9223372036854775807k", "99eb"] {
            assert!(classify(word).unwrap_err().0.contains("out of the range"), "{word}");
        }
    }

    #[test]
    fn words_that_only_begin_like_numbers() {
        for word in [
            "127.0.0.1",
            "127.0.0.1:4222",
            "1.2.3",
            "10.0.0.0/8",
            "5s",
            "1h30m",
            "1b",
            "1kk",
            "12abc",
            "1_000",
            "0x10",
            "5:6",
            "1e5",
        ] {
            assert_eq!(classify(word), text(word), "{word}");
        }
    }

    #[test]
    fn floats_and_mistaken_floats() {
        assert_eq!(classify("1.5"), Ok(Value::Float(1.5)));
        assert_eq!(classify("-0.25"), Ok(Value::Float(-0.25)));
        for word in ["1.", "1.x", ".5", "1.5k", "-x", "-", "-5s"] {
            assert!(classify(word).is_err(), "{word}");
        }
    }

    #[test]
    fn datetimes_are_whole_or_refused() {
        let date = DateTime { year: 2024, month: 2, day: 29, hour: 3, minute: 4, second: 5 };
        assert_eq!(classify("2024-02-29T03:04:05Z"), Ok(Value::DateTime(date)));
        assert_eq!(date.to_string(), "2024-02-29T03:04:05Z");
        for word in ["20251107-n1", "2025-11-07", "2025-11-07T00:00:00", "12-34"] {
            assert_eq!(
                classify(word).unwrap_err().0,
                "All ISO8601 dates must be in full Zulu form.",
                "{word}"
            );
        }
        for word in ["2023-02-29T00:00:00Z", "2023-13-01T00:00:00Z", "2023-01-01T24:00:00Z"] {
            assert!(classify(word).is_err(), "{word}");
        }
    }

    #[test]
    fn sizes_in_strings() {
        assert_eq!(parse_size("10"), Ok(10));
        assert_eq!(parse_size("1K"), Ok(1024));
        assert_eq!(parse_size("2m"), Ok(2 << 20));
        assert_eq!(parse_size("3GB"), Ok(3 << 30));
        assert_eq!(parse_size("3GiB"), Ok(3 << 30));
        assert_eq!(parse_size("abc"), Err(SizeError::NoNumber));
        assert_eq!(parse_size("-1"), Err(SizeError::NoNumber));
        assert_eq!(parse_size("5x"), Err(SizeError::BadSuffix));
        assert_eq!(parse_size("99999999T"), Err(SizeError::OutOfRange));
    }
}
