//! The TCP header and its options: reading those that arrive, writing those that leave. The shapes of
//! options come from `smoltcp::wire`; the one layout that nearly every segment has is read directly.

use smoltcp::wire::TcpOption;

use crate::nic::Header;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;
/// ECN-echo (RFC 3168).
pub(crate) const ECE: u8 = 0x40;
/// Congestion window reduced (RFC 3168).
pub(crate) const CWR: u8 = 0x80;

/// Bytes of the header without options.
pub(crate) const LEN: usize = 20;

/// A received segment's header.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segment {
    pub lport: u16,
    pub rport: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// As it stands in the header, not scaled.
    pub window: u16,
    pub urgent: u16,
    /// The IP header's ECN bits.
    pub ecn: u8,
    /// The IP header's TTL or hop limit.
    pub ttl: u8,
    /// Bytes of data.
    pub len: u32,
    /// Bytes of header and options.
    pub header_len: usize,
    pub mss: Option<u16>,
    pub wscale: Option<u8>,
    pub sack_permitted: bool,
    /// TSval, TSecr.
    pub ts: Option<(u32, u32)>,
    pub sacks: [(u32, u32); 4],
    pub sack_count: u8,
    /// Fast Open cookie: its length (0 = a request) and bytes.
    pub fast_open: Option<(u8, [u8; 16])>,
}

impl Segment {
    /// Reads a header from the start of `bytes`; `total` is the segment's whole length. `None` when malformed.
    #[inline]
    pub fn parse(bytes: &[u8], total: usize) -> Option<Segment> {
        let h: &[u8; LEN] = bytes.get(..LEN)?.try_into().ok()?;
        let header_len = usize::from(h[12] >> 4) * 4;
        if header_len < LEN || header_len > total || header_len > bytes.len() {
            return None;
        }
        let mut segment = Segment {
            rport: u16::from_be_bytes([h[0], h[1]]),
            lport: u16::from_be_bytes([h[2], h[3]]),
            seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            flags: h[13],
            window: u16::from_be_bytes([h[14], h[15]]),
            urgent: u16::from_be_bytes([h[18], h[19]]),
            len: (total - header_len) as u32,
            header_len,
            ..Segment::default()
        };
        let options = &bytes[LEN..header_len];
        if let [1, 1, 8, 10, a, b, c, d, e, f, g, i] = options {
            segment.ts = Some((
                u32::from_be_bytes([*a, *b, *c, *d]),
                u32::from_be_bytes([*e, *f, *g, *i]),
            ));
        } else if !options.is_empty() {
            segment.read_options(options);
        }
        Some(segment)
    }

    fn read_options(&mut self, mut options: &[u8]) {
        // A malformed option ends the list, as in Linux; what was read before holds.
        while !options.is_empty() {
            // smoltcp knows three SACK blocks; a segment without timestamps has room for four.
            if options[0] == 5 {
                let Some(len) = options.get(1).map(|l| usize::from(*l)) else {
                    return;
                };
                if len < 10 || (len - 2) % 8 != 0 || len > options.len() {
                    return;
                }
                for block in options[2..len].chunks_exact(8).take(4) {
                    let word = |at: usize| {
                        u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
                    };
                    self.sacks[usize::from(self.sack_count)] = (word(0), word(4));
                    self.sack_count += 1;
                    if self.sack_count == 4 {
                        break;
                    }
                }
                options = &options[len..];
                continue;
            }
            let Ok((rest, option)) = TcpOption::parse(options) else {
                return;
            };
            match option {
                TcpOption::EndOfList => return,
                TcpOption::NoOperation => {}
                TcpOption::MaxSegmentSize(mss) if self.flags & SYN != 0 => self.mss = Some(mss),
                TcpOption::WindowScale(shift) if self.flags & SYN != 0 => {
                    self.wscale = Some(shift.min(14));
                }
                TcpOption::SackPermitted if self.flags & SYN != 0 => self.sack_permitted = true,
                TcpOption::TimeStamp { tsval, tsecr } => self.ts = Some((tsval, tsecr)),
                TcpOption::Unknown { kind: 34, data } if self.flags & SYN != 0 => {
                    let fits = data.is_empty() || (4..=16).contains(&data.len());
                    if fits {
                        let mut cookie = [0; 16];
                        cookie[..data.len()].copy_from_slice(data);
                        self.fast_open = Some((data.len() as u8, cookie));
                    }
                }
                _ => {}
            }
            options = rest;
        }
    }

    /// Whether all of `flags` are set.
    #[inline]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// The sequence number after the segment: SYN and FIN count one each.
    #[inline]
    pub fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.len)
            .wrapping_add(u32::from(self.flags & SYN != 0))
            .wrapping_add(u32::from(self.flags & FIN != 0))
    }
}

/// A segment's header to write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Emit {
    pub lport: u16,
    pub rport: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    /// For SYNs.
    pub mss: Option<u16>,
    /// For SYNs.
    pub wscale: Option<u8>,
    /// For SYNs.
    pub sack_permitted: bool,
    pub ts: Option<(u32, u32)>,
    pub sacks: [(u32, u32); 4],
    pub sack_count: u8,
    /// For SYNs: a Fast Open cookie, or none, which asks for one.
    pub fast_open: Option<super::fastopen_client::Shown>,
}

impl Emit {
    /// Bytes of header and options.
    #[inline]
    pub fn len(&self) -> usize {
        let mut len = LEN;
        if self.flags & SYN != 0 {
            len += if self.mss.is_some() { 4 } else { 0 };
            len += if self.wscale.is_some() { 4 } else { 0 };
            len += self.fast_open.map_or(0, |(len, _)| {
                (2 + usize::from(len.min(16))).next_multiple_of(4)
            });
            len += match (self.sack_permitted, self.ts.is_some()) {
                (_, true) => 12,
                (true, false) => 4,
                (false, false) => 0,
            };
        } else {
            len += if self.ts.is_some() { 12 } else { 0 };
            if self.sack_count > 0 {
                len += 4 + 8 * usize::from(self.sack_count);
            }
        }
        len
    }

    /// Appends the header with a zero checksum.
    #[inline]
    pub fn emit(&self, header: &mut Header) {
        let len = self.len();
        let mut bytes = [0; 60];
        bytes[0..2].copy_from_slice(&self.lport.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.rport.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.seq.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.ack.to_be_bytes());
        bytes[12] = (len as u8 / 4) << 4;
        bytes[13] = self.flags;
        bytes[14..16].copy_from_slice(&self.window.to_be_bytes());
        bytes[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        let mut at = LEN;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        let syn = self.flags & SYN != 0;
        if syn {
            if let Some(mss) = self.mss {
                put(&[2, 4]);
                put(&mss.to_be_bytes());
            }
            match (self.sack_permitted, self.ts) {
                (true, Some(_)) => put(&[4, 2]),
                (false, Some(_)) => put(&[1, 1]),
                (true, None) => put(&[1, 1, 4, 2]),
                (false, None) => {}
            }
        } else if self.ts.is_some() {
            put(&[1, 1]);
        }
        if let Some((value, echo)) = self.ts {
            put(&[8, 10]);
            put(&value.to_be_bytes());
            put(&echo.to_be_bytes());
        }
        if syn {
            if let Some(shift) = self.wscale {
                put(&[1, 3, 3, shift]);
            }
            if let Some((len, cookie)) = self.fast_open {
                let len = len.min(16);
                put(&[34, 2 + len]);
                put(&cookie[..usize::from(len)]);
                let padding = (2 + usize::from(len)).next_multiple_of(4) - 2 - usize::from(len);
                put(&[1; 3][..padding]);
            }
        } else if self.sack_count > 0 {
            put(&[1, 1, 5, 2 + 8 * self.sack_count]);
            for (left, right) in &self.sacks[..usize::from(self.sack_count)] {
                put(&left.to_be_bytes());
                put(&right.to_be_bytes());
            }
        }
        header.extend_from_slice(&bytes[..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let syn = Emit {
            lport: 1,
            rport: 2,
            seq: 3,
            ack: 4,
            flags: SYN | ACK,
            window: 5,
            mss: Some(1460),
            wscale: Some(7),
            sack_permitted: true,
            ts: Some((8, 9)),
            ..Emit::default()
        };
        let mut header = Header::new();
        syn.emit(&mut header);
        assert_eq!(header.len(), 40);
        let read = Segment::parse(&header, 45).unwrap();
        assert_eq!((read.rport, read.lport, read.len), (1, 2, 5));
        assert_eq!((read.mss, read.wscale), (Some(1460), Some(7)));
        assert!(read.sack_permitted && read.ts == Some((8, 9)));
        let ack = Emit {
            flags: ACK,
            ts: Some((1, 2)),
            sacks: [(1, 2), (3, 4), (5, 6), (0, 0)],
            sack_count: 3,
            ..Emit::default()
        };
        let mut header = Header::new();
        ack.emit(&mut header);
        assert_eq!(header.len(), 60);
        let read = Segment::parse(&header, 60).unwrap();
        assert_eq!(read.sack_count, 3);
        assert_eq!(read.sacks[2], (5, 6));
    }

    #[test]
    fn no_bytes_make_it_fail_badly() {
        let mut random = 7u64;
        for _ in 0..20_000 {
            let mut bytes = [0u8; 60];
            for byte in &mut bytes {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                *byte = (random >> 56) as u8;
            }
            bytes[12] |= 0x50;
            let _ = Segment::parse(&bytes, 60 + (random >> 60) as usize);
        }
        assert!(Segment::parse(&[0; 19], 19).is_none());
    }
}
