//! The times in log lines: `YYYY/MM/DD HH:MM:SS.uuuuuu`, in UTC or the local zone.

use std::{cell::Cell, fmt::Write};

use crate::{Wall, time::civil_from_days};

/// Zones change their offset at most at each quarter of an hour.
const QUARTER_SECS: i64 = 900;

/// Appends the time to `out`.
pub fn write(out: &mut String, at: Wall, utc: bool) {
    let secs = at.0.div_euclid(1_000_000_000);
    let micros = at.0.rem_euclid(1_000_000_000) / 1000;
    let secs = secs + if utc { 0 } else { i64::from(offset_secs(secs)) };
    let (y, mo, d) = civil_from_days(secs.div_euclid(86_400));
    let s = secs.rem_euclid(86_400);
    let (h, mi, s) = (s / 3600, s / 60 % 60, s % 60);
    write!(out, "{y:04}/{mo:02}/{d:02} {h:02}:{mi:02}:{s:02}.{micros:06}").expect("a String takes all text");
}

/// The local zone's offset from UTC at a time, in seconds; looked up once a quarter of an hour and thread.
fn offset_secs(unix: i64) -> i32 {
    thread_local!(static CACHED: Cell<(i64, i32)> = const { Cell::new((i64::MIN, 0)) });
    let quarter = unix.div_euclid(QUARTER_SECS);
    let (known, offset) = CACHED.get();
    if known == quarter {
        return offset;
    }
    let offset = crate::imp::process::utc_offset_secs(unix);
    CACHED.set((quarter, offset));
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let mut s = String::new();
        write(&mut s, Wall(1_700_000_000_123_456_789), true);
        assert_eq!(s, "2023/11/14 22:13:20.123456");
        s.clear();
        write(&mut s, Wall(-1000), true);
        assert_eq!(s, "1969/12/31 23:59:59.999999");
        // Local time differs from UTC by whole minutes and by less than a day and a bit.
        let (mut local, mut utc) = (String::new(), String::new());
        write(&mut local, Wall(1_700_000_000_123_456_789), false);
        write(&mut utc, Wall(1_700_000_000_123_456_789), true);
        assert_eq!(local[17..], utc[17..]);
        assert_eq!(local.len(), utc.len());
    }
}
