//! SipHash (Aumasson and Bernstein) with two rounds of work: 1-3 for tables, 2-4 where a peer sees
//! something of the result (sequence numbers, ports, SYN cookies).

use core::net::{IpAddr, Ipv6Addr};

/// A 128-bit key.
#[derive(Clone, Copy)]
pub(crate) struct Key(pub u64, pub u64);

struct Sip {
    v: [u64; 4],
}

impl Sip {
    fn new(key: Key) -> Sip {
        Sip {
            v: [
                key.0 ^ 0x736f_6d65_7073_6575,
                key.1 ^ 0x646f_7261_6e64_6f6d,
                key.0 ^ 0x6c79_6765_6e65_7261,
                key.1 ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    #[inline(always)]
    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.v;
        *v0 = v0.wrapping_add(*v1);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v3);
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.wrapping_add(*v3);
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.wrapping_add(*v1);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v2 = v2.rotate_left(32);
    }

    #[inline(always)]
    fn word<const C: usize>(&mut self, word: u64) {
        self.v[3] ^= word;
        for _ in 0..C {
            self.round();
        }
        self.v[0] ^= word;
    }

    #[inline(always)]
    fn finish<const D: usize>(mut self) -> u64 {
        self.v[2] ^= 0xff;
        for _ in 0..D {
            self.round();
        }
        self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3]
    }
}

/// SipHash-1-3 of whole words (the length goes in as the last word's top byte).
#[inline]
pub(crate) fn sip13(key: Key, words: &[u64]) -> u64 {
    let mut sip = Sip::new(key);
    for &word in words {
        sip.word::<1>(word);
    }
    sip.word::<1>((words.len() as u64 * 8) << 56);
    sip.finish::<3>()
}

/// SipHash-2-4 of whole words.
pub(crate) fn sip24(key: Key, words: &[u64]) -> u64 {
    let mut sip = Sip::new(key);
    for &word in words {
        sip.word::<2>(word);
    }
    sip.word::<2>((words.len() as u64 * 8) << 56);
    sip.finish::<4>()
}

/// The two halves of an address, IPv4 in mapped form.
pub(crate) fn halves(addr: IpAddr) -> (u64, u64) {
    let bits = match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped().to_bits(),
        IpAddr::V6(a) => Ipv6Addr::to_bits(a),
    };
    ((bits >> 64) as u64, bits as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_function() {
        // The reference vectors: key 00..0f, message 00..07 (SipHash-2-4) gives 0x93f5f5799a932462.
        let key = Key(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(sip24(key, &[0x0706_0504_0302_0100]), 0x93f5_f579_9a93_2462);
        assert_ne!(sip13(key, &[1]), sip13(key, &[2]));
    }
}
