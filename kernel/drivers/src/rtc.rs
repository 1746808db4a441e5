//! The PC's real-time clock (MC146818 and its descendants, CMOS ports 0x70 and 0x71): seconds since 1970, read once at
//! boot. Setting it, alarms and periodic interrupts are not used.

use machine::port::Port8;

/// Register numbers.
mod reg {
    pub(super) const SECONDS: u8 = 0x00;
    pub(super) const MINUTES: u8 = 0x02;
    pub(super) const HOURS: u8 = 0x04;
    pub(super) const DAY: u8 = 0x07;
    pub(super) const MONTH: u8 = 0x08;
    pub(super) const YEAR: u8 = 0x09;
    pub(super) const STATUS_A: u8 = 0x0a;
    pub(super) const STATUS_B: u8 = 0x0b;
    /// Where the firmware's FADT puts the century; QEMU and all common machines use it.
    pub(super) const CENTURY: u8 = 0x32;
}

const UPDATE_IN_PROGRESS: u8 = 0x80;
const BINARY: u8 = 4;
const HOURS_24: u8 = 2;
const PM: u8 = 0x80;

/// The clock's registers as they were at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Snapshot {
    seconds: u8,
    minutes: u8,
    hours: u8,
    day: u8,
    month: u8,
    year: u8,
    century: u8,
    status_b: u8,
}

/// Seconds since 1970 (UTC, which hypervisors keep it in), or `None` when there is no clock or it makes no sense.
pub fn read() -> Option<u64> {
    let (index, data) = (Port8::new(0x70)?, Port8::new(0x71)?);
    // Bit 7 of the index masks NMIs; it is left clear, as at reset.
    read_with(|register| {
        index.write(register);
        data.read()
    })
}

fn read_with(mut register: impl FnMut(u8) -> u8) -> Option<u64> {
    for _ in 0..4 {
        // An update takes two milliseconds at most; a clock that is not there reads as all ones for ever.
        let mut tries = 0;
        while register(reg::STATUS_A) & UPDATE_IN_PROGRESS != 0 {
            tries += 1;
            if tries > 10_000 || register(reg::STATUS_B) == 0xff {
                return None;
            }
            core::hint::spin_loop();
        }
        let clock = Snapshot {
            status_b: register(reg::STATUS_B),
            seconds: register(reg::SECONDS),
            minutes: register(reg::MINUTES),
            hours: register(reg::HOURS),
            day: register(reg::DAY),
            month: register(reg::MONTH),
            year: register(reg::YEAR),
            century: register(reg::CENTURY),
        };
        // If the second is still the same, no update came in between.
        if register(reg::SECONDS) == clock.seconds {
            return decode(&clock);
        }
    }
    None
}

fn decode(clock: &Snapshot) -> Option<u64> {
    let number = |value: u8| {
        if clock.status_b & BINARY != 0 {
            Some(u64::from(value))
        } else if value & 0xf < 10 && value >> 4 < 10 {
            Some(u64::from(value >> 4) * 10 + u64::from(value & 0xf))
        } else {
            None
        }
    };
    let hours = if clock.status_b & HOURS_24 != 0 {
        number(clock.hours)?
    } else {
        let hour = number(clock.hours & !PM)?;
        if !(1..=12).contains(&hour) {
            return None;
        }
        hour % 12 + if clock.hours & PM != 0 { 12 } else { 0 }
    };
    let century = number(clock.century)
        .filter(|century| (19..30).contains(century))
        .unwrap_or(20);
    let year = century * 100 + number(clock.year)?;
    let (month, day) = (number(clock.month)?, number(clock.day)?);
    let (minutes, seconds) = (number(clock.minutes)?, number(clock.seconds)?);
    let sane = year >= 1970
        && number(clock.year)? < 100
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hours < 24
        && minutes < 60
        && seconds < 61;
    sane.then(|| ((days_since_1970(year, month, day) * 24 + hours) * 60 + minutes) * 60 + seconds)
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let before = year - 1;
    let leaps = |years: u64| years / 4 - years / 100 + years / 400;
    let years = (year - 1970) * 365 + leaps(before) - leaps(1969);
    let months: u64 = (1..month).map(|month| days_in(year, month)).sum();
    years + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::Random;

    fn clock(at: [u8; 7], status_b: u8) -> Snapshot {
        let [century, year, month, day, hours, minutes, seconds] = at;
        Snapshot {
            seconds,
            minutes,
            hours,
            day,
            month,
            year,
            century,
            status_b,
        }
    }

    #[test]
    fn encodings() {
        let bcd = clock([0x20, 0x26, 0x11, 0x23, 0x16, 0x05, 0x59], HOURS_24);
        assert_eq!(decode(&bcd), Some(1_795_449_959));
        let binary = clock([20, 26, 11, 23, 16, 5, 59], HOURS_24 | BINARY);
        assert_eq!(decode(&binary), decode(&bcd));
        let pm = clock([0x20, 0x26, 0x11, 0x23, 0x84, 0x05, 0x59], 0);
        assert_eq!(decode(&pm), decode(&bcd));
        let noon = clock([0x20, 0x26, 0x11, 0x23, 0x92, 0, 0], 0);
        let midnight = clock([0x20, 0x26, 0x11, 0x23, 0x12, 0, 0], 0);
        assert_eq!(
            decode(&noon).unwrap() - decode(&midnight).unwrap(),
            12 * 3600
        );
    }

    #[test]
    fn dates() {
        let at = |century, year, month, day| {
            decode(&clock(
                [century, year, month, day, 0, 0, 0],
                HOURS_24 | BINARY,
            ))
        };
        assert_eq!(at(19, 70, 1, 1), Some(0));
        assert_eq!(at(20, 0, 3, 1), Some(951_868_800));
        assert_eq!(at(20, 24, 2, 29), Some(1_709_164_800));
        assert_eq!(at(20, 23, 2, 29), None);
        assert_eq!(at(21, 0, 2, 29), None);
        assert_eq!(at(0, 26, 1, 1), at(20, 26, 1, 1));
        assert_eq!(at(20, 26, 13, 1), None);
        assert_eq!(at(20, 26, 0, 1), None);
    }

    #[test]
    fn a_missing_clock_ends_the_wait() {
        assert_eq!(read_with(|_| 0xff), None);
        assert_eq!(
            read_with(|register| if register == reg::STATUS_A { 0x80 } else { 0 }),
            None
        );
    }

    #[test]
    fn a_tick_in_between_is_noticed() {
        // The minute turns while the registers are read: the time must not be a minute off.
        let mut reads = 0;
        let seen = read_with(|register| {
            reads += 1;
            let turned = reads > 7;
            match register {
                reg::STATUS_A => 0,
                reg::STATUS_B => HOURS_24 | BINARY,
                reg::SECONDS => {
                    if turned {
                        0
                    } else {
                        59
                    }
                }
                reg::MINUTES => {
                    if turned {
                        6
                    } else {
                        5
                    }
                }
                reg::HOURS => 16,
                reg::DAY => 23,
                reg::MONTH => 11,
                reg::YEAR => 26,
                _ => 20,
            }
        });
        assert!(
            matches!(seen, Some(1_795_449_959 | 1_795_449_960)),
            "{seen:?}"
        );
    }

    #[test]
    fn garbage_does_not_panic() {
        for seed in 0..50_000 {
            let mut random = Random::new(seed);
            read_with(|register| match register {
                reg::STATUS_A => 0,
                _ => random.next() as u8,
            });
        }
    }
}
