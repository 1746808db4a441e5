//! Moments as text (RFC 3339), in UTC with nanoseconds.

use alloc::string::String;
use core::fmt::Write;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

/// Appends a moment that is given in nanoseconds since 1970.
pub fn write(out: &mut String, ns: u64) {
    let (seconds, ns) = (ns / SECOND, ns % SECOND);
    let (year, month, day) = date((seconds / DAY) as i64);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ns:09}Z"
    );
}

/// The nanoseconds since 1970 of a moment from 1970 to 2554; `None` if `text` is none.
pub fn parse(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| -> Option<u64> {
        bytes.get(from..to)?.iter().try_fold(0, |number, digit| {
            digit
                .is_ascii_digit()
                .then(|| number * 10 + u64::from(digit - b'0'))
        })
    };
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark))
        || !matches!(bytes.get(10)?, b'T' | b't' | b' ')
    {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let days = days(year as i64, month, day);
    if date(days) != (year as i64, month, day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &bytes[19..];
    let mut ns = 0;
    if rest.first() == Some(&b'.') {
        let length = rest[1..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(1..=9).contains(&length) {
            return None;
        }
        ns = digits(20, 20 + length)? * 10u64.pow(9 - length as u32);
        rest = &rest[1 + length..];
    }
    let offset = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = bytes.len() - 5;
            let (hours, minutes) = (digits(at, at + 2)?, digits(at + 3, at + 5)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = (hours * 3600 + minutes * 60) as i64;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let seconds = days * DAY as i64 + (hour * 3600 + minute * 60 + second) as i64 - offset;
    u64::try_from(seconds)
        .ok()?
        .checked_mul(SECOND)?
        .checked_add(ns)
}

/// The days from 1970 to a date of the Gregorian calendar.
fn days(year: i64, month: u64, day: u64) -> i64 {
    // Years begin with March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month as i64 + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day as i64 - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
        - 719_468
}

/// The date so many days after 1970: year, month, day.
fn date(days: i64) -> (i64, u64, u64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u64, day as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ns: u64) -> String {
        let mut out = String::new();
        write(&mut out, ns);
        out
    }

    #[test]
    fn moments_come_back() {
        assert_eq!(shown(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(
            shown(951_782_399 * SECOND),
            "2000-02-28T23:59:59.000000000Z"
        );
        assert_eq!(
            shown(951_782_400 * SECOND),
            "2000-02-29T00:00:00.000000000Z"
        );
        assert_eq!(shown(u64::MAX), "2554-07-21T23:34:33.709551615Z");
        for step in 0..2000 {
            let ns = step * (u64::MAX / 2000);
            assert_eq!(parse(&shown(ns)), Some(ns));
        }
        assert_eq!(parse("1970-01-01T01:00:00.5+01:00"), Some(SECOND / 2));
        assert_eq!(parse("1969-12-31T23:00:00-01:30"), Some(1800 * SECOND));
    }

    #[test]
    fn what_is_no_moment() {
        for text in [
            "",
            "2026-11-28",
            "2026-11-28T10:00:00",
            "2026-02-29T10:00:00Z",
            "2026-13-01T10:00:00Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T10:00:00.Z",
            "2026-11-28T10:00:00.1234567890Z",
            "2026-11-28T10:00:00+1:00",
            "1969-12-31T23:59:59Z",
            "9999-01-01T00:00:00Z",
            "2026-11-28T10:00:00Zx",
            "２026-11-28T10:00:00Z",
            "2026-11-28T10:00:00é:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
