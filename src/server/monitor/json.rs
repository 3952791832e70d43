//! JSON as nats-server writes it: `<`, `>`, `&` and the line separators escaped, whole floats without a fraction, times
//! in RFC 3339 and durations in Go's notation. Tools compare such text, so it is kept to the letter.

use std::{
    io::{self, Write},
    time::Duration,
};

use env::Wall;
use serde::{Serialize, Serializer};
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

/// Indented by two spaces.
pub fn pretty<T: Serialize>(v: &T) -> String {
    write(v, PrettyFormatter::with_indent(b"  "))
}
/// Indented by three spaces, as only `/ipqueuesz` and few others are.
pub fn pretty3<T: Serialize>(v: &T) -> String {
    write(v, PrettyFormatter::with_indent(b"   "))
}
/// On one line.
pub fn compact<T: Serialize>(v: &T) -> String {
    write(v, CompactFormatter)
}

fn write<T: Serialize, F: Formatter>(v: &T, f: F) -> String {
    let mut out = Vec::with_capacity(1024);
    let mut s = serde_json::Serializer::with_formatter(&mut out, Go(f));
    v.serialize(&mut s).expect("monitoring's structs have string keys, and a Vec takes all bytes");
    String::from_utf8(out).expect("the serializer writes UTF-8")
}

/// Go's escapes and numbers over another formatter's layout.
struct Go<F>(F);

/// Passes a method on to the formatter below.
macro_rules! pass {
    ($($name:ident($($a:ident: $t:ty),*));* $(;)?) => {
        $(fn $name<W: ?Sized + Write>(&mut self, w: &mut W $(, $a: $t)*) -> io::Result<()> {
            self.0.$name(w $(, $a)*)
        })*
    };
}

impl<F: Formatter> Formatter for Go<F> {
    pass! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }
    fn write_string_fragment<W: ?Sized + Write>(&mut self, w: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(i) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, from) = rest.split_at(i);
            let c = from.chars().next().expect("a match was found here");
            write!(w, "{plain}\\u{:04x}", u32::from(c))?;
            rest = &from[c.len_utf8()..];
        }
        w.write_all(rest.as_bytes())
    }
    fn write_f64<W: ?Sized + Write>(&mut self, w: &mut W, v: f64) -> io::Result<()> {
        let a = v.abs();
        if a != 0.0 && !(1e-6..1e21).contains(&a) {
            let text = format!("{v:e}");
            return w.write_all(if a < 1.0 { text } else { text.replace('e', "e+") }.as_bytes());
        }
        write!(w, "{v}")
    }
}

/// A moment, in UTC with as many digits as it needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Time(pub Wall);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.rfc3339())
    }
}

/// A duration in Go's notation: `1h2m3.5s`, `1.5ms`, `414µs`, `0s`.
pub fn duration(d: Duration) -> String {
    let n = d.as_nanos();
    let fraction = |n: u128, unit: u128, name: &str| {
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", n / unit, n % unit);
        format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match n {
        0 => "0s".to_string(),
        1..1_000 => format!("{n}ns"),
        1_000..1_000_000 => fraction(n, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(n, 1_000_000, "ms"),
        _ => {
            const MINUTE: u128 = 60_000_000_000;
            let minutes = n / MINUTE;
            let mut out = String::new();
            if minutes >= 60 {
                out += &format!("{}h", minutes / 60);
            }
            if minutes > 0 {
                out += &format!("{}m", minutes % 60);
            }
            out + &fraction(n % MINUTE, 1_000_000_000, "s")
        }
    }
}

/// An age as monitoring shows it, in whole seconds: `1y2d3h4m5s`, without leading units that are zero.
pub fn age(d: Duration) -> String {
    let s = d.as_secs();
    let (y, days, h, m) = (s / 31_536_000, s / 86_400 % 365, s / 3_600 % 24, s / 60 % 60);
    let mut out = String::new();
    for (n, unit) in [(y, 'y'), (days, 'd'), (h, 'h'), (m, 'm')] {
        if n > 0 || !out.is_empty() {
            out += &format!("{n}{unit}");
        }
    }
    out + &format!("{}s", s % 60)
}

/// Bytes that a client chose, as text.
pub fn text(b: &[u8]) -> String {
    String::from_utf8_lossy(b).into_owned()
}

/// For `skip_serializing_if`.
pub fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn escapes_and_numbers_are_go_s() {
        let v = ["a.>", "<&>", "q\"\\\n\u{8}", "\u{2028}é"];
        assert_eq!(compact(&v), "[\"a.\\u003e\",\"\\u003c\\u0026\\u003e\",\"q\\\"\\\\\\n\\b\",\"\\u2028é\"]");
        let v = [0.0, 2.0, 0.25, 0.0000001, 1e21, 12345678.5, -3.0];
        assert_eq!(compact(&v), "[0,2,0.25,1e-7,1e+21,12345678.5,-3]");
    }

    #[test]
    fn layouts() {
        let v = BTreeMap::from([("a", vec![1]), ("b", vec![])]);
        assert_eq!(pretty(&v), "{\n  \"a\": [\n    1\n  ],\n  \"b\": []\n}");
        assert_eq!(pretty3(&v), "{\n   \"a\": [\n      1\n   ],\n   \"b\": []\n}");
        assert_eq!(pretty(&BTreeMap::<String, u8>::new()), "{}");
    }

    #[test]
    fn durations_are_go_s() {
        for (n, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_000, "1µs"),
            (414_500, "414.5µs"),
            (1_234_000, "1.234ms"),
            (20_000_000, "20ms"),
            (1_000_000_000, "1s"),
            (61_500_000_000, "1m1.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(n)), text);
        }
    }

    #[test]
    fn ages() {
        for (s, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (3_661, "1h1m1s"),
            (86_400, "1d0h0m0s"),
            (31_536_000 + 5, "1y0d0h0m5s"),
        ] {
            assert_eq!(age(Duration::from_secs(s)), text);
        }
    }
}
