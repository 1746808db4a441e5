//! How results look: tables, JSON, sizes, times. What is in them is up to the commands.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};
use serde::Serialize;

/// Whoever read standard output has read enough: `ops watch ... | head`.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output any more")]
pub struct ReaderGone;

/// Prints a line to standard output. A reader that has gone away is the error [`ReaderGone`], not a panic.
pub fn line(text: impl AsRef<str>) -> Result<()> {
    let line = format!("{}\n", text.as_ref());
    match io::stdout().lock().write_all(line.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => Ok(result?),
    }
}

/// Prints a remark to standard error.
pub fn note(text: impl AsRef<str>) {
    // Nobody is left to be told when standard error is gone.
    let _ = writeln!(io::stderr().lock(), "ops: {}", text.as_ref());
}

/// Prints a table: upper-cased bold cyan headers, a line between rows.
pub fn table(headers: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    let mut table = Table::new();
    table
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headers.iter().map(|h| {
            Cell::new(h.to_uppercase())
                .add_attribute(Attribute::Bold)
                .fg(Color::Cyan)
        }));
    for row in rows {
        table.add_row(row);
    }
    line(table.to_string())
}

/// Prints a value as JSON.
pub fn json<T: Serialize>(value: &T) -> Result<()> {
    line(serde_json::to_string(value)?)
}

/// A number of bytes as people read it, in powers of 1000.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 9.95 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A point in time relative to now: "3 weeks ago".
pub fn ago(time: SystemTime) -> String {
    const STEPS: [(u64, &str); 7] = [
        (365 * 86_400, "year"),
        (30 * 86_400, "month"),
        (7 * 86_400, "week"),
        (86_400, "day"),
        (3_600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    let seconds = SystemTime::now()
        .duration_since(time)
        .map_or(0, |d| d.as_secs());
    for (length, name) in STEPS {
        let count = seconds / length;
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            return format!("{count} {name}{plural} ago");
        }
    }
    "now".to_string()
}

/// A point in time as RFC 3339 writes it, in UTC.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let rest = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// The Gregorian date of a number of days since 1970-01-01.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut year = 1970;
    loop {
        let length = 365 + u64::from(leap(year));
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    for (index, length) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        .into_iter()
        .enumerate()
    {
        if days < length {
            return (year, index as u64 + 1, days + 1);
        }
        days -= length;
    }
    (year, 12, 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sizes() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_500), "1.5 kB");
        assert_eq!(size(29_400_000), "29 MB");
        assert_eq!(size(999_900), "1.0 MB");
    }

    #[test]
    fn times() {
        assert_eq!(rfc3339(UNIX_EPOCH), "1970-01-01T00:00:00Z");
        let at = |s| rfc3339(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_478_400), "2026-11-24T00:00:00Z");
        let back = |s| ago(SystemTime::now() - Duration::from_secs(s));
        assert_eq!(back(0), "now");
        assert_eq!(back(61), "1 minute ago");
        assert_eq!(back(22 * 86_400), "3 weeks ago");
    }
}
