//! The header before each packet (virtio 1.2, 5.1.6): what the receiver has yet to do with it.

use crate::nic::{Gso, GsoKind, RxChecksum, TxOffload};

/// Bytes of the header.
pub const HEADER_LEN: usize = 12;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Writes the header of a packet to send.
pub fn encode(offload: Option<&TxOffload>) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let Some(offload) = offload else {
        return header;
    };
    header[0] = NEEDS_CSUM;
    header[6..8].copy_from_slice(&offload.csum_start.to_le_bytes());
    header[8..10].copy_from_slice(&offload.csum_offset.to_le_bytes());
    if let Some(gso) = &offload.gso {
        header[1] = match gso.kind {
            GsoKind::Tcp4 => GSO_TCPV4,
            GsoKind::Tcp6 => GSO_TCPV6,
            GsoKind::Udp => GSO_UDP_L4,
        };
        if gso.ecn {
            header[1] |= GSO_ECN;
        }
        header[2..4].copy_from_slice(&gso.header_len.to_le_bytes());
        header[4..6].copy_from_slice(&gso.segment_size.to_le_bytes());
    }
    header
}

/// What the header of a received packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// What is known of the checksum.
    pub checksum: RxChecksum,
    /// Whether the packet stands for several.
    pub gso: Option<Gso>,
    /// In how many buffers it lies, if the device merges buffers.
    pub buffers: u16,
}

/// Reads the header of a received packet of `len` bytes without it. Offsets that do not lie inside the packet and unknown
/// kinds are a malformed header: `None`.
pub fn decode(header: &[u8; HEADER_LEN], len: usize) -> Option<Received> {
    let [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1, b0, b1] = *header;
    let start = u16::from_le_bytes([c0, c1]);
    let offset = u16::from_le_bytes([o0, o1]);
    let checksum = if flags & NEEDS_CSUM != 0 {
        let end = usize::from(start) + usize::from(offset) + 2;
        if end > len {
            return None;
        }
        RxChecksum::Partial { start, offset }
    } else if flags & DATA_VALID != 0 {
        RxChecksum::Verified
    } else {
        RxChecksum::Unknown
    };
    let kind = match gso_type & !GSO_ECN {
        GSO_NONE => None,
        GSO_TCPV4 => Some(GsoKind::Tcp4),
        GSO_TCPV6 => Some(GsoKind::Tcp6),
        GSO_UDP_L4 => Some(GsoKind::Udp),
        _ => return None,
    };
    let gso = match kind {
        None => None,
        Some(kind) => {
            let gso = Gso {
                kind,
                segment_size: u16::from_le_bytes([s0, s1]),
                header_len: u16::from_le_bytes([h0, h1]),
                ecn: gso_type & GSO_ECN != 0,
            };
            if gso.segment_size == 0 {
                return None;
            }
            Some(gso)
        }
    };
    Some(Received {
        checksum,
        gso,
        buffers: u16::from_le_bytes([b0, b1]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::Random;

    #[test]
    fn a_packet_to_be_cut() {
        let offload = TxOffload {
            csum_start: 34,
            csum_offset: 16,
            gso: Some(Gso {
                kind: GsoKind::Tcp6,
                segment_size: 1440,
                header_len: 74,
                ecn: true,
            }),
        };
        let header = encode(Some(&offload));
        assert_eq!(header, [1, 0x84, 74, 0, 0xa0, 5, 34, 0, 16, 0, 0, 0]);
        let back = decode(&header, 9000).unwrap();
        assert_eq!(back.gso, offload.gso);
        assert_eq!(
            back.checksum,
            RxChecksum::Partial {
                start: 34,
                offset: 16
            }
        );
        assert_eq!(encode(None), [0; HEADER_LEN]);
    }

    #[test]
    fn headers_that_make_no_sense() {
        let decode = |header, len| decode(&header, len);
        assert!(decode([1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 1, 0], 51).is_none());
        assert!(decode([1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 1, 0], 52).is_some());
        assert!(decode([1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0], 65536).is_none());
        assert!(decode([0, 7, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0], 100).is_none());
        assert!(decode([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], 100).is_none());
        let valid = decode([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0], 100).unwrap();
        assert_eq!((valid.checksum, valid.buffers), (RxChecksum::Verified, 3));
        for seed in 0..20_000 {
            let mut random = Random::new(seed);
            let mut header = [0; HEADER_LEN];
            header.fill_with(|| random.next() as u8 & random.next() as u8);
            let len = random.below(2000);
            if let Some(Received {
                checksum: RxChecksum::Partial { start, offset },
                ..
            }) = decode(header, len)
            {
                assert!(usize::from(start) + usize::from(offset) + 2 <= len);
            }
        }
    }
}
