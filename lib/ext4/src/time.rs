//! Inode time stamps: signed 64-bit seconds and nanoseconds, and their 34+30-bit form on disk.

/// A point in time: seconds since 1970-01-01T00:00:00Z and nanoseconds (0 to 999,999,999).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since the epoch; negative before 1970.
    pub sec: i64,
    /// Nanoseconds within the second.
    pub nsec: u32,
}

/// Earliest second that an inode can hold.
const MIN_SEC: i64 = i32::MIN as i64;
/// Latest second that an inode with extra fields can hold (2446-05-10).
const MAX_SEC: i64 = i32::MAX as i64 + (3 << 32);

impl Timestamp {
    /// A time stamp of whole seconds.
    pub const fn from_secs(sec: i64) -> Timestamp {
        Timestamp { sec, nsec: 0 }
    }

    /// The base word and the extra word (epoch bits and nanoseconds) of an inode; times outside the range are clamped.
    pub(crate) fn encode(self) -> (u32, u32) {
        let sec = self.sec.clamp(MIN_SEC, MAX_SEC);
        let base = sec as u32;
        // The base is read back as signed, so the epoch counts how often 2^32 must be added to that.
        let epoch = ((sec - i64::from(base as i32)) >> 32) as u32 & 3;
        (base, self.nsec.min(999_999_999) << 2 | epoch)
    }

    /// The time that a base word and an extra word mean.
    pub(crate) fn decode(base: u32, extra: u32) -> Timestamp {
        let sec = i64::from(base as i32) + (i64::from(extra & 3) << 32);
        Timestamp {
            sec,
            nsec: (extra >> 2).min(999_999_999),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_over_the_whole_range() {
        let edges = [
            MIN_SEC,
            -1,
            0,
            1,
            i64::from(i32::MAX),
            1 << 31,
            (1 << 32) - 1,
            1 << 32,
            0x1_8000_0000,
            MAX_SEC,
        ];
        for sec in edges {
            for nsec in [0, 1, 999_999_999] {
                let time = Timestamp { sec, nsec };
                let (base, extra) = time.encode();
                assert_eq!(Timestamp::decode(base, extra), time);
            }
        }
    }

    #[test]
    fn known_encodings() {
        // The table in the kernel's description of inode time stamps: extra bits 01 with a negative base is 2038..2106.
        assert_eq!(Timestamp::from_secs(-1).encode(), (0xffff_ffff, 0));
        assert_eq!(Timestamp::from_secs(0x8000_0000).encode(), (0x8000_0000, 1));
        assert_eq!(Timestamp::from_secs(0x1_0000_0000).encode(), (0, 1));
        assert_eq!(Timestamp::from_secs(i64::MAX).encode(), (0x7fff_ffff, 3));
        assert_eq!(Timestamp::from_secs(i64::MIN).encode(), (0x8000_0000, 0));
    }
}
