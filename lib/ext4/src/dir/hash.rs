//! The hashes that order an indexed directory: legacy, half MD4 and TEA, each with signed or unsigned characters.

use crate::{Error, Result};

/// How a directory hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HashKind {
    algorithm: Algorithm,
    unsigned: bool,
    seed: [u32; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Legacy,
    HalfMd4,
    Tea,
}

/// The largest hash means the end of a directory, so no name may have it.
const END: u32 = 0x7fff_ffff << 1;

impl HashKind {
    /// From the version byte of a directory's root and the volume's settings.
    pub(crate) fn new(version: u8, unsigned: bool, seed: [u32; 4]) -> Result<HashKind> {
        let (algorithm, unsigned) = match version {
            0 => (Algorithm::Legacy, unsigned),
            1 => (Algorithm::HalfMd4, unsigned),
            2 => (Algorithm::Tea, unsigned),
            3 => (Algorithm::Legacy, true),
            4 => (Algorithm::HalfMd4, true),
            5 => (Algorithm::Tea, true),
            _ => {
                return Err(Error::Unsupported {
                    what: "an unknown directory hash",
                });
            }
        };
        Ok(HashKind {
            algorithm,
            unsigned,
            seed,
        })
    }

    /// Major and minor hash of a name. The lowest bit of the major hash is clear.
    pub(crate) fn hash(&self, name: &[u8]) -> (u32, u32) {
        let mut state = if self.seed == [0; 4] {
            [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476]
        } else {
            self.seed
        };
        let (major, minor) = match self.algorithm {
            Algorithm::Legacy => (self.legacy(name), 0),
            Algorithm::HalfMd4 => {
                let mut rest = name;
                while !rest.is_empty() {
                    half_md4(&mut state, &self.words::<8>(rest));
                    rest = &rest[rest.len().min(32)..];
                }
                (state[1], state[2])
            }
            Algorithm::Tea => {
                let mut rest = name;
                while !rest.is_empty() {
                    tea(&mut state, &self.words::<4>(rest));
                    rest = &rest[rest.len().min(16)..];
                }
                (state[0], state[1])
            }
        };
        let major = major & !1;
        (if major == END { END - 2 } else { major }, minor)
    }

    fn char(&self, byte: u8) -> u32 {
        if self.unsigned {
            u32::from(byte)
        } else {
            byte as i8 as u32
        }
    }

    fn legacy(&self, name: &[u8]) -> u32 {
        let (mut hash, mut before) = (0x12a3_fe2d_u32, 0x37ab_e8f9_u32);
        for &byte in name {
            let mut next = before.wrapping_add(hash ^ self.char(byte).wrapping_mul(7_152_373));
            if next & 0x8000_0000 != 0 {
                next = next.wrapping_sub(0x7fff_ffff);
            }
            before = hash;
            hash = next;
        }
        hash << 1
    }

    /// Packs the first `4 * N` characters into words; what is missing is padded with the length.
    fn words<const N: usize>(&self, name: &[u8]) -> [u32; N] {
        let pad = (name.len() as u32) | (name.len() as u32) << 8;
        let pad = pad | pad << 16;
        let part = &name[..name.len().min(N * 4)];
        let mut out = [pad; N];
        for (word, chunk) in out.iter_mut().zip(part.chunks(4)) {
            *word = chunk
                .iter()
                .fold(pad, |value, &byte| self.char(byte).wrapping_add(value << 8));
        }
        out
    }
}

fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    const K2: u32 = 0o13240474631;
    const K3: u32 = 0o15666365641;
    // The four variables take turns: a, d, c, b. Generic over the mixing function, so that it is inlined: a listing
    // hashes every name.
    #[inline(always)]
    fn round(
        mut v: [u32; 4],
        input: &[u32; 8],
        (order, shifts, constant): ([usize; 8], [u32; 4], u32),
        mix: impl Fn(u32, u32, u32) -> u32,
    ) -> [u32; 4] {
        for (step, &word) in order.iter().enumerate() {
            let [a, b, c, d] = v;
            let sum = a
                .wrapping_add(mix(b, c, d))
                .wrapping_add(input[word])
                .wrapping_add(constant);
            v = [d, sum.rotate_left(shifts[step % 4]), b, c];
        }
        v
    }
    let first = ([0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19], 0);
    let second = ([1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13], K2);
    let third = ([3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15], K3);
    let v = round(*state, input, first, |x, y, z| z ^ (x & (y ^ z)));
    let v = round(v, input, second, |x, y, z| {
        (x & y).wrapping_add((x ^ y) & z)
    });
    let v = round(v, input, third, |x, y, z| x ^ y ^ z);
    for (into, value) in state.iter_mut().zip(v) {
        *into = into.wrapping_add(value);
    }
}

fn tea(state: &mut [u32; 4], input: &[u32; 4]) {
    const DELTA: u32 = 0x9e37_79b9;
    let (mut x, mut y, mut sum) = (state[0], state[1], 0u32);
    for _ in 0..16 {
        sum = sum.wrapping_add(DELTA);
        let mix = |value: u32, k: u32, l: u32| {
            (value << 4).wrapping_add(k) ^ value.wrapping_add(sum) ^ (value >> 5).wrapping_add(l)
        };
        x = x.wrapping_add(mix(y, input[0], input[1]));
        y = y.wrapping_add(mix(x, input[2], input[3]));
    }
    state[0] = state[0].wrapping_add(x);
    state[1] = state[1].wrapping_add(y);
}
