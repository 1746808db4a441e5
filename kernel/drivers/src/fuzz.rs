//! Seeded damage for parser tests: the same seed does the same damage, so a failure names its seed.

/// A small generator (SplitMix64), good enough to vary tests.
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Overwrites a few bytes with random or extreme values, and sometimes cuts the end off.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(6) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes[at] = 0,
                1 => bytes[at] = 0xff,
                2 => bytes[at] ^= 1 << self.below(8),
                3 => bytes[at] = self.next() as u8,
                _ => {
                    let end = (at + 1 + self.below(8)).min(bytes.len());
                    let value = self.next() as u8;
                    bytes[at..end].fill(value);
                }
            }
        }
        if self.below(8) == 0 {
            let len = self.below(bytes.len() + 1);
            bytes.truncate(len);
        }
    }
}
