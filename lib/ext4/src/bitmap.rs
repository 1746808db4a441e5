//! Bitmaps as ext4 keeps them: bit `n` is bit `n % 8` of byte `n / 8`. All work goes by words and ranges.

/// Sets `len` bits from `from`.
pub(crate) fn set(bits: &mut [u8], from: u32, len: u32) {
    apply(bits, from, len, |byte, mask| *byte |= mask);
}

/// Clears `len` bits from `from`.
pub(crate) fn clear(bits: &mut [u8], from: u32, len: u32) {
    apply(bits, from, len, |byte, mask| *byte &= !mask);
}

fn apply(bits: &mut [u8], from: u32, len: u32, mut each: impl FnMut(&mut u8, u8)) {
    let (mut at, end) = (from as usize, (from + len) as usize);
    while at < end {
        let (byte, bit) = (at / 8, at % 8);
        let n = (8 - bit).min(end - at);
        each(&mut bits[byte], (((1u16 << n) - 1) << bit) as u8);
        at += n;
    }
}

/// Whether all `len` bits from `from` are set.
pub(crate) fn all_set(bits: &[u8], from: u32, len: u32) -> bool {
    Bits { bits, busy: None }.next_zero(from, from + len) == from + len
}

/// Whether bit `at` is set.
pub(crate) fn get(bits: &[u8], at: u32) -> bool {
    bits[at as usize / 8] >> (at % 8) & 1 != 0
}

/// A bitmap together with further bits that count as set.
pub(crate) struct Bits<'a> {
    /// The bitmap.
    pub bits: &'a [u8],
    /// Bits that are set besides.
    pub busy: Option<&'a [u8]>,
}

impl Bits<'_> {
    fn word(&self, index: usize) -> u64 {
        let load = |bits: &[u8]| {
            let mut word = [0; 8];
            word.copy_from_slice(&bits[index * 8..index * 8 + 8]);
            u64::from_le_bytes(word)
        };
        load(self.bits) | self.busy.map_or(0, load)
    }

    /// First clear bit at or after `from`, or `end`.
    pub(crate) fn next_zero(&self, from: u32, end: u32) -> u32 {
        self.next(from, end, !0)
    }

    /// First set bit at or after `from`, or `end`.
    pub(crate) fn next_one(&self, from: u32, end: u32) -> u32 {
        self.next(from, end, 0)
    }

    /// First bit that is set in the words xored with `flip`.
    fn next(&self, from: u32, end: u32, flip: u64) -> u32 {
        let mut at = from;
        while at < end {
            let word = (self.word(at as usize / 64) ^ flip) >> (at % 64);
            if word != 0 {
                return (at + word.trailing_zeros()).min(end);
            }
            at = (at / 64 + 1) * 64;
        }
        end
    }

    /// The first run of at least `want` clear bits in `from..end`, cut to `want`; otherwise the longest run there is.
    pub(crate) fn find_run(&self, from: u32, end: u32, want: u32) -> Option<(u32, u32)> {
        let mut best: Option<(u32, u32)> = None;
        let mut at = from;
        loop {
            let start = self.next_zero(at, end);
            if start >= end {
                return best;
            }
            let stop = self.next_one(start, end.min(start.saturating_add(want)));
            let len = stop - start;
            if len >= want {
                return Some((start, want));
            }
            if best.is_none_or(|(_, most)| len > most) {
                best = Some((start, len));
            }
            at = stop;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_agree_with_single_bits() {
        for (from, len) in [
            (0, 0),
            (0, 1),
            (3, 4),
            (3, 5),
            (5, 20),
            (8, 8),
            (1, 126),
            (0, 128),
        ] {
            let mut bits = [0u8; 16];
            set(&mut bits, from, len);
            for at in 0..128 {
                assert_eq!(
                    get(&bits, at),
                    at >= from && at < from + len,
                    "bit {at} of {from}+{len}"
                );
            }
            assert!(all_set(&bits, from, len));
            clear(&mut bits, from, len);
            assert_eq!(bits, [0; 16]);
        }
    }

    #[test]
    fn runs() {
        let mut bits = [0xffu8; 32];
        clear(&mut bits, 10, 3);
        clear(&mut bits, 60, 10);
        clear(&mut bits, 200, 56);
        let plain = Bits {
            bits: &bits,
            busy: None,
        };
        assert_eq!(plain.find_run(0, 256, 2), Some((10, 2)));
        assert_eq!(plain.find_run(0, 256, 4), Some((60, 4)));
        assert_eq!(plain.find_run(62, 256, 20), Some((200, 20)));
        assert_eq!(plain.find_run(0, 256, 100), Some((200, 56)));
        assert_eq!(plain.find_run(0, 220, 100), Some((200, 20)));
        assert_eq!(plain.find_run(13, 60, 1), None);
        let mut busy = [0u8; 32];
        set(&mut busy, 64, 64);
        let both = Bits {
            bits: &bits,
            busy: Some(&busy),
        };
        assert_eq!(both.find_run(0, 256, 5), Some((200, 5)));
        assert_eq!(both.next_one(60, 256), 64);
    }
}
