//! Times and durations as the JSON API and the clients write them.
//!
//! Owns the text of RFC 3339 times and of durations such as `1m30s`; no clock.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const SECOND: i64 = 1_000_000_000;

/// A moment, in nanoseconds since 1970, written as RFC 3339 in UTC. What lies outside of the years 1678 to 2261 is held as the
/// nearest moment that does not; the year 1, which clients write for "no time", survives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub i64);

impl Time {
    /// What clients write for "no time": the first second of the year 1.
    pub const ZERO: Time = Time(i64::MIN);

    /// Reads RFC 3339; `None` if it is not.
    pub fn parse(text: &str) -> Option<Time> {
        let b = text.as_bytes();
        let num = |from: usize, to: usize| -> Option<i64> {
            let s = b.get(from..to)?;
            s.iter().all(u8::is_ascii_digit).then(|| s.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
        };
        let sep = |at: usize, c: &[u8]| b.get(at).is_some_and(|x| c.contains(x));
        let (year, month, day) = (num(0, 4)?, num(5, 7)?, num(8, 10)?);
        let (hour, minute, second) = (num(11, 13)?, num(14, 16)?, num(17, 19)?);
        if !(sep(4, b"-") && sep(7, b"-") && sep(10, b"Tt") && sep(13, b":") && sep(16, b":")) {
            return None;
        }
        if !(1..=12).contains(&month)
            || day < 1
            || day > days_in(year, month)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        let mut at = 19;
        let mut nanos = 0;
        if sep(at, b".,") {
            let digits = b[at + 1..].iter().take_while(|d| d.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            for i in 0..9 {
                nanos = nanos * 10 + if i < digits { i64::from(b[at + 1 + i] - b'0') } else { 0 };
            }
            at += 1 + digits;
        }
        let offset = match b.get(at)? {
            b'Z' | b'z' if b.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if b.len() == at + 6 && sep(at + 3, b":") => {
                let (h, m) = (num(at + 1, at + 3)?, num(at + 4, at + 6)?);
                if h > 23 || m > 59 {
                    return None;
                }
                (h * 60 + m) * 60 * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return None,
        };
        let seconds =
            days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
        let whole = i128::from(seconds) * i128::from(SECOND) + i128::from(nanos);
        Some(Time(i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })))
    }

    /// Whether it is the "no time" of clients.
    pub fn is_zero(self) -> bool {
        self == Time::ZERO
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0001-01-01T00:00:00Z");
        }
        let (seconds, nanos) = (self.0.div_euclid(SECOND), self.0.rem_euclid(SECOND));
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (y, m, d) = civil_from_days(days);
        write!(f, "{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)?;
        if nanos != 0 {
            let digits = format!("{nanos:09}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Time, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Time::parse(&text).ok_or_else(|| de::Error::custom(format_args!("{text:?} is not an RFC 3339 time")))
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date of the Gregorian calendar. Years begin in March here, so that the leap day is the last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (m * 153 + 2) / 5 + day - 1 - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * of_year + 2) / 153;
    let (month, wrap) = if m < 10 { (m + 3, 0) } else { (m - 9, 1) };
    (era * 400 + year_of_era + wrap, month, of_year - (153 * m + 2) / 5 + 1)
}

/// Units of duration texts with their nanoseconds; the longer spelling before its prefix.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];

/// Reads a duration such as `1h30m`, `1.5s`, `-2ms` or `0`, in nanoseconds; `None` if it is none or does not fit.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (_, unit) = *UNITS.iter().find(|(name, _)| *name == &tail[..end])?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()?.into() };
        let part = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse::<f64>().ok()? };
        total = total.checked_add(whole.checked_mul(unit as i128)?)?.checked_add((part * unit) as i128)?;
        rest = &tail[end..];
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Writes a duration as clients and servers show it: `1m0s`, `250ms`, `1.5s`, `0s`.
pub struct Duration(pub i64);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let with_fraction = |f: &mut fmt::Formatter<'_>, n: u64, unit: u64, name: &str| {
            write!(f, "{}", n / unit)?;
            if n % unit != 0 {
                let width = unit.ilog10() as usize;
                let digits = format!("{:0width$}", n % unit);
                write!(f, ".{}", digits.trim_end_matches('0'))?;
            }
            f.write_str(name)
        };
        match n {
            0 => f.write_str("0s"),
            1..=999 => write!(f, "{n}ns"),
            1_000..=999_999 => with_fraction(f, n, 1_000, "µs"),
            1_000_000..=999_999_999 => with_fraction(f, n, 1_000_000, "ms"),
            _ => {
                let (minutes, seconds) = (n / 60_000_000_000, n % 60_000_000_000);
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                with_fraction(f, seconds, 1_000_000_000, "s")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_as_rfc_3339() {
        for (text, nanos) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2024-02-29T23:59:59.000000001Z", 1_709_251_199_000_000_001),
            ("2000-03-01T00:00:00.5Z", 951_868_800_500_000_000),
            ("1969-12-31T23:59:59.9Z", -100_000_000),
        ] {
            assert_eq!(Time::parse(text), Some(Time(nanos)), "{text}");
            assert_eq!(Time(nanos).to_string(), text);
        }
        assert_eq!(Time::parse("1970-01-01T02:00:00+02:00"), Some(Time(0)));
        assert_eq!(Time::parse("0001-01-01T00:00:00Z"), Some(Time::ZERO));
        assert_eq!(Time::ZERO.to_string(), "0001-01-01T00:00:00Z");
        for bad in [
            "",
            "2024",
            "2023-02-29T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00:00",
        ] {
            assert_eq!(Time::parse(bad), None, "{bad}");
        }
        for bad in [
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+2:00",
            "2024-01-01T00:00:00ZZ",
            "2024-13-01T00:00:00Z",
            "äöü",
        ] {
            assert_eq!(Time::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_survives() {
        let mut day = days_from_civil(1678, 1, 1);
        while day < days_from_civil(2261, 12, 31) {
            let (y, m, d) = civil_from_days(day);
            assert_eq!(days_from_civil(y, m, d), day);
            assert!((1..=12).contains(&m) && d >= 1 && d <= days_in(y, m));
            day += 1;
        }
    }

    #[test]
    fn durations_are_read_and_written() {
        for (text, nanos) in [
            ("0s", 0),
            ("1ns", 1),
            ("1.5µs", 1_500),
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            ("1m0s", 60_000_000_000),
            ("1h0m0.1s", 3_600_100_000_000),
            ("-2m3s", -123_000_000_000),
        ] {
            assert_eq!(Duration(nanos).to_string(), text);
            assert_eq!(parse_duration(text), Some(nanos), "{text}");
        }
        assert_eq!(parse_duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(parse_duration(".5s"), Some(500_000_000));
        for bad in ["", "5", "s", "1x", "1.2.3s", "9999999999999h", "-", ".s", "1 s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
