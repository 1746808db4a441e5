//! The internet checksum (RFC 1071), eight bytes at a time.

use core::net::IpAddr;

/// A running one's-complement sum in network byte order. Parts must have even length, but for the last.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds bytes.
    #[inline]
    pub fn bytes(mut self, bytes: &[u8]) -> Sum {
        let mut words = bytes.chunks_exact(8);
        let mut sum = u128::from(self.0);
        for word in &mut words {
            sum += u128::from(u64::from_be_bytes([
                word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
            ]));
        }
        let mut rest = [0; 8];
        rest[..words.remainder().len()].copy_from_slice(words.remainder());
        sum += u128::from(u64::from_be_bytes(rest));
        self.0 = fold64(sum);
        self
    }

    /// Adds a 16-bit value.
    #[inline]
    pub fn value(mut self, value: u16) -> Sum {
        self.0 = fold64(u128::from(self.0) + u128::from(value));
        self
    }

    /// The pseudo header of TCP, UDP and ICMPv6.
    #[inline]
    pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Sum {
        let addresses = match (src, dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => u128::from(s.to_bits()) + u128::from(d.to_bits()),
            (s, d) => {
                let (s1, s2) = crate::hash::halves(s);
                let (d1, d2) = crate::hash::halves(d);
                u128::from(s1) + u128::from(s2) + u128::from(d1) + u128::from(d2)
            }
        };
        Sum(fold64(addresses + u128::from(protocol) + len as u128))
    }

    /// The sum as 16 bits, not inverted: what a device that fills checksums wants to find.
    #[inline]
    pub fn folded(self) -> u16 {
        let mut sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum as u16
    }

    /// The checksum to put into a header.
    #[inline]
    pub fn finish(self) -> u16 {
        !self.folded()
    }
}

#[inline]
fn fold64(sum: u128) -> u64 {
    let sum = (sum >> 64) + (sum & u128::from(u64::MAX));
    ((sum >> 64) + (sum & u128::from(u64::MAX))) as u64
}

/// Sums parts of any length one after the other.
#[derive(Default)]
pub(crate) struct Parts {
    sum: Sum,
    odd: bool,
}

impl Parts {
    /// Starts from a sum over an even number of bytes.
    pub fn after(sum: Sum) -> Parts {
        Parts { sum, odd: false }
    }

    /// Adds the next part.
    pub fn add(&mut self, bytes: &[u8]) {
        if self.odd {
            // The part is out of step by one byte: its own sum, with the bytes swapped, is in step.
            let part = Sum::default().bytes(bytes).folded();
            self.sum = self.sum.value(part.swap_bytes());
        } else {
            self.sum = self.sum.bytes(bytes);
        }
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The sum so far.
    pub fn sum(&self) -> Sum {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !(sum as u16)
    }

    #[test]
    fn it_agrees_with_the_definition_in_any_split() {
        let bytes: Vec<u8> = (0..999u32).map(|i| ((i * 7919) >> 3) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(
                Sum::default().bytes(&bytes[..len]).finish(),
                slow(&bytes[..len])
            );
            let mut parts = Parts::default();
            let (a, b) = bytes[..len].split_at(len / 3);
            parts.add(a);
            parts.add(b);
            assert_eq!(parts.sum().finish(), slow(&bytes[..len]), "{len}");
        }
    }
}
