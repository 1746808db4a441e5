//! Generic receive offload: segments of one connection that come in one batch and follow each other become one before the
//! protocols see them, where the card does not do that. The rules are Linux's (`tcp_gro_receive`): all headers equal but
//! for lengths, identification and checksums, all segments as long as the first but for the last, no flag but ACK and PSH.
//!
//! Nothing is held beyond its batch, and whatever is not such a segment lets everything before it through first, so order
//! within a connection stays as it came.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use smallvec::SmallVec;

use crate::checksum::{Parts, Sum};
use crate::iface::{ETH, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::ip::proto;
use crate::nic::{Gso, GsoKind, RxChecksum};
use crate::pkt::InPacket;
use crate::tcp::header::{ACK, PSH};

/// Connections whose segments are gathered side by side.
const FLOWS: usize = 4;
/// The most bytes of an IP packet.
const LARGEST: usize = 65_535;

/// What is gathered of a batch.
#[derive(Default)]
pub(crate) struct Gro {
    /// In the order in which they came.
    held: SmallVec<[Held; FLOWS]>,
}

/// A segment, or several in one packet, that more may follow.
struct Held {
    packet: InPacket,
    at: Layout,
    /// Data bytes of the first segment.
    size: usize,
    /// Bytes of the packet with its Ethernet header.
    len: usize,
    next: u32,
    /// How many there are, and whether one of them has PSH.
    count: usize,
    push: bool,
}

/// Where things are in a segment that may be merged.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Layout {
    v4: bool,
    tcp: usize,
    data: usize,
}

impl Layout {
    /// Addresses, from the Ethernet header on.
    fn addresses(&self) -> Range<usize> {
        if self.v4 {
            ETH + 12..ETH + 20
        } else {
            ETH + 8..ETH + 40
        }
    }
}

impl Gro {
    /// Takes a packet of the batch; what is not to be held goes to `out`.
    pub fn add(&mut self, mut packet: InPacket, out: &mut impl FnMut(InPacket)) {
        let Some((at, len)) = candidate(&mut packet) else {
            self.flush(out);
            out(packet);
            return;
        };
        let head = packet.head();
        let size = len - at.data;
        let seq = word(head, at.tcp + 4);
        let push = head[at.tcp + 13] & PSH != 0;
        if let Some(index) = self.held.iter().position(|held| held.same_flow(head, at)) {
            let held = &mut self.held[index];
            if held.goes_on(head, at, seq, size) {
                held.len += size;
                held.next = seq.wrapping_add(size as u32);
                held.count += 1;
                held.push |= push;
                held.packet.append(packet, at.data);
                if push || size < held.size {
                    out(self.held.remove(index).finish());
                }
                return;
            }
            out(self.held.remove(index).finish());
        }
        if push {
            // The end of what its sender had: nothing follows.
            out(packet);
            return;
        }
        if self.held.len() == FLOWS {
            out(self.held.remove(0).finish());
        }
        self.held.push(Held {
            packet,
            at,
            size,
            len,
            next: seq.wrapping_add(size as u32),
            count: 1,
            push: false,
        });
    }

    /// Lets everything through.
    pub fn flush(&mut self, out: &mut impl FnMut(InPacket)) {
        for held in self.held.drain(..) {
            out(held.finish());
        }
    }
}

impl Held {
    fn same_flow(&self, head: &[u8], at: Layout) -> bool {
        let mine = self.packet.head();
        let ports = self.at.tcp..self.at.tcp + 4;
        self.at.v4 == at.v4
            && mine[ports] == head[at.tcp..at.tcp + 4]
            && mine[self.at.addresses()] == head[at.addresses()]
    }

    /// Whether a segment of the same flow is the next one.
    fn goes_on(&self, head: &[u8], at: Layout, seq: u32, size: usize) -> bool {
        let mine = self.packet.head();
        let equal = |range: Range<usize>| mine[range.clone()] == head[range];
        let ip = if at.v4 {
            // Version, length and TOS; fragment bits, time to live and protocol.
            equal(ETH..ETH + 2) && equal(ETH + 6..ETH + 10)
        } else {
            // Version, class and label; next header and hop limit.
            equal(ETH..ETH + 4) && equal(ETH + 6..ETH + 8)
        };
        self.at == at
            && seq == self.next
            && size <= self.size
            && self.len + size <= ETH + LARGEST
            && equal(0..ETH)
            && ip
            // What is acknowledged and the header's length; the window; options.
            && equal(at.tcp + 8..at.tcp + 13)
            && equal(at.tcp + 14..at.tcp + 16)
            && equal(at.tcp + 20..at.data)
    }

    /// The packet for the protocols.
    fn finish(mut self) -> InPacket {
        if self.count == 1 {
            return self.packet;
        }
        let (at, len) = (self.at, self.len - ETH);
        if let Some(head) = self.packet.head_mut() {
            if at.v4 {
                head[ETH + 2..ETH + 4].copy_from_slice(&(len as u16).to_be_bytes());
                head[ETH + 10..ETH + 12].fill(0);
                let sum = Sum::default().bytes(&head[ETH..at.tcp]).finish();
                head[ETH + 10..ETH + 12].copy_from_slice(&sum.to_be_bytes());
            } else {
                head[ETH + 4..ETH + 6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            }
            if self.push {
                head[at.tcp + 13] |= PSH;
            }
        }
        self.packet.csum = RxChecksum::Verified;
        self.packet.gso = Some(Gso {
            kind: if at.v4 { GsoKind::Tcp4 } else { GsoKind::Tcp6 },
            segment_size: self.size as u16,
            header_len: at.data as u16,
            ecn: false,
        });
        self.packet
    }
}

/// Whether a packet is a segment that may be merged, with right checksums: where things are in it, and its length. It is
/// cut to that length.
fn candidate(packet: &mut InPacket) -> Option<(Layout, usize)> {
    if packet.gso.is_some() || !packet.is_one_buffer() {
        return None;
    }
    let head = packet.head();
    let ip = head.get(ETH..)?;
    let (v4, tcp, len) = match u16::from_be_bytes([head[12], head[13]]) {
        ETHERTYPE_IPV4 => {
            let ip = ip.get(..20)?;
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            // Whole, without options.
            let plain = ip[0] == 0x45 && ip[9] == proto::TCP && (ip[6] & 0x3f, ip[7]) == (0, 0);
            if !plain || Sum::default().bytes(ip).folded() != 0xffff {
                return None;
            }
            (true, ETH + 20, ETH + total)
        }
        ETHERTYPE_IPV6 => {
            let ip = ip.get(..40)?;
            if ip[0] >> 4 != 6 || ip[6] != proto::TCP {
                return None;
            }
            let total = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            (false, ETH + 40, ETH + total)
        }
        _ => return None,
    };
    let header = head.get(tcp..tcp + 20)?;
    let data = tcp + usize::from(header[12] >> 4) * 4;
    if header[13] & !PSH != ACK || data < tcp + 20 || data >= len || len > head.len() {
        return None;
    }
    let at = Layout { v4, tcp, data };
    packet.truncate(len);
    if packet.csum == RxChecksum::Unknown {
        let (src, dst) = addresses(packet.head(), at)?;
        let pseudo = Sum::pseudo(src, dst, proto::TCP, len - tcp);
        if packet.sum(tcp, Parts::after(pseudo)).sum().folded() != 0xffff {
            return None;
        }
        packet.csum = RxChecksum::Verified;
    }
    Some((at, len))
}

fn addresses(head: &[u8], at: Layout) -> Option<(IpAddr, IpAddr)> {
    let both = head.get(at.addresses())?;
    Some(if at.v4 {
        let (src, dst) = (both.first_chunk::<4>()?, both.last_chunk::<4>()?);
        (Ipv4Addr::from(*src).into(), Ipv4Addr::from(*dst).into())
    } else {
        let (src, dst) = (both.first_chunk::<16>()?, both.last_chunk::<16>()?);
        (Ipv6Addr::from(*src).into(), Ipv6Addr::from(*dst).into())
    })
}

/// A word in network order; 0 where there is none.
fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map_or(0, |word| u32::from_be_bytes(*word))
}

#[cfg(test)]
#[path = "gro_tests.rs"]
mod tests;
