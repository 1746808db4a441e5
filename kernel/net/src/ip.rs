//! IPv4 and IPv6: reading headers of packets that arrive, writing those of packets that leave.
//! Fragments are `frag`'s, extension headers beyond fragment and options are skipped.

use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::Sum;
use crate::iface::{ETH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Interface};
use crate::nic::Header;
use crate::pkt::InPacket;
use crate::stack::Stack;

/// `IPPROTO_*`.
pub(crate) mod proto {
    pub const HOPOPTS: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const IGMP: u8 = 2;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ICMP6: u8 = 58;
    pub const NONE: u8 = 59;
    pub const DSTOPTS: u8 = 60;
    pub const RAW: u8 = 255;
}

/// Time to live of what we send (`ip_default_ttl`).
pub(crate) const DEFAULT_TTL: u8 = 64;

/// What the IP header of a received packet said.
#[derive(Clone)]
pub(crate) struct IpMeta {
    pub iface: Arc<Interface>,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    pub ttl: u8,
    /// TOS or traffic class, ECN bits included.
    pub tos: u8,
    /// Where the transport header starts, from the Ethernet header.
    pub l4: usize,
    /// Bytes from there to the packet's end.
    pub len: usize,
    /// It went to a broadcast or multicast address.
    pub many: bool,
    /// A raw socket has it.
    pub taken: bool,
}

/// What goes into the IP header of a packet to send.
#[derive(Clone, Copy)]
pub(crate) struct IpOut {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    pub ttl: u8,
    pub tos: u8,
    /// Don't fragment (IPv4).
    pub df: bool,
    pub ident: u16,
}

impl IpOut {
    /// Bytes of the IP header.
    pub fn header_len(&self) -> usize {
        if self.dst.is_ipv4() { 20 } else { 40 }
    }

    /// Appends room for the Ethernet header and the IP header of a packet with `len` bytes after it.
    /// Lengths over 65,535 (segmentation offload of large segments) are not made by this engine.
    pub fn emit(&self, header: &mut Header, len: usize) {
        let mut eth = [0; ETH + 20];
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let ethertype = ETHERTYPE_IPV4.to_be_bytes();
                eth[12] = ethertype[0];
                eth[13] = ethertype[1];
                let ip = &mut eth[ETH..];
                ip[0] = 0x45;
                ip[1] = self.tos;
                ip[2..4].copy_from_slice(&((len + 20) as u16).to_be_bytes());
                ip[4..6].copy_from_slice(&self.ident.to_be_bytes());
                ip[6] = if self.df { 0x40 } else { 0 };
                ip[8] = self.ttl;
                ip[9] = self.proto;
                ip[12..16].copy_from_slice(&src.octets());
                ip[16..20].copy_from_slice(&dst.octets());
                let sum = Sum::default().bytes(ip).finish();
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                header.extend_from_slice(&eth);
            }
            (src, dst) => {
                let ethertype = ETHERTYPE_IPV6.to_be_bytes();
                eth[12] = ethertype[0];
                eth[13] = ethertype[1];
                let ip = &mut eth[ETH..ETH + 8];
                ip[0] = 0x60 | self.tos >> 4;
                ip[1] = self.tos << 4;
                ip[4..6].copy_from_slice(&(len as u16).to_be_bytes());
                ip[6] = self.proto;
                ip[7] = self.ttl;
                header.extend_from_slice(&eth[..ETH + 8]);
                header.extend_from_slice(&crate::option::mapped(src).octets());
                header.extend_from_slice(&crate::option::mapped(dst).octets());
            }
        }
    }
}

/// What a header parse came to.
pub(crate) enum Parsed {
    /// A whole packet for the transport.
    Whole(IpMeta),
    /// A fragment: `offset` in bytes, whether more follow, the identification.
    Fragment {
        meta: IpMeta,
        offset: usize,
        more: bool,
        ident: u32,
    },
    /// Counted and dropped.
    Bad,
}

/// Reads an IPv4 header, checks it, and cuts the packet to its length.
pub(crate) fn parse_v4(stack: &Stack, iface: &Arc<Interface>, packet: &mut InPacket) -> Parsed {
    let counters = stack.counters();
    counters.ip_in_receives.bump();
    packet.pull(ETH + 20);
    let whole = packet.len();
    let head = packet.head();
    let Some(ip) = head.get(ETH..ETH + 20) else {
        counters.ip_in_hdr_errors.bump();
        return Parsed::Bad;
    };
    let header_len = usize::from(ip[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if ip[0] >> 4 != 4 || header_len < 20 || total < header_len {
        counters.ip_in_hdr_errors.bump();
        return Parsed::Bad;
    }
    if ETH + total > whole {
        counters.in_truncated.bump();
        return Parsed::Bad;
    }
    let options = header_len > 20;
    let flags = u16::from_be_bytes([ip[6], ip[7]]);
    let ident = u32::from(u16::from_be_bytes([ip[4], ip[5]]));
    let src = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
    let dst = Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]);
    let (tos, ttl, proto) = (ip[1], ip[8], ip[9]);
    if options {
        packet.pull(ETH + header_len);
    }
    let header = &packet.head()[ETH..ETH + header_len];
    if Sum::default().bytes(header).folded() != 0xffff {
        counters.in_csum_errors.bump();
        counters.ip_in_hdr_errors.bump();
        return Parsed::Bad;
    }
    // A source route asks us to forward or answer along a path of the sender's choice: refused, as Linux does.
    if options && has_source_route(&header[20..]) {
        counters.ip_in_discards.bump();
        return Parsed::Bad;
    }
    if src.is_multicast() || src.is_broadcast() || (src.is_loopback() && !iface.is_loopback()) {
        counters.ip_in_addr_errors.bump();
        return Parsed::Bad;
    }
    counters.in_octets.add(total as u64);
    if dst.is_multicast() {
        counters.in_mcast.bump();
        counters.in_mcast_octets.add(total as u64);
    } else if dst.is_broadcast() {
        counters.in_bcast.bump();
        counters.in_bcast_octets.add(total as u64);
    }
    counters.in_ecn(tos).bump();
    if ETH + total < whole {
        packet.truncate(ETH + total);
    }
    let meta = IpMeta {
        iface: iface.clone(),
        src: src.into(),
        dst: dst.into(),
        proto,
        ttl,
        tos,
        l4: ETH + header_len,
        len: total - header_len,
        many: false,
        taken: false,
    };
    if flags & 0x3fff != 0 {
        return Parsed::Fragment {
            meta,
            offset: usize::from(flags & 0x1fff) * 8,
            more: flags & 0x2000 != 0,
            ident,
        };
    }
    Parsed::Whole(meta)
}

fn has_source_route(mut options: &[u8]) -> bool {
    loop {
        match options {
            [] | [0, ..] => return false,
            [1, rest @ ..] => options = rest,
            [131 | 137, ..] => return true,
            [_, len, ..] if usize::from(*len) >= 2 && usize::from(*len) <= options.len() => {
                options = &options[usize::from(*len)..];
            }
            _ => return false,
        }
    }
}

/// Reads an IPv6 header and the extension headers before the transport.
pub(crate) fn parse_v6(stack: &Stack, iface: &Arc<Interface>, packet: &mut InPacket) -> Parsed {
    let counters = stack.counters();
    counters.ip6_in_receives.bump();
    packet.pull(ETH + 40);
    let whole = packet.len();
    let Some(ip) = packet.head().get(ETH..ETH + 40) else {
        counters.ip6_in_hdr_errors.bump();
        return Parsed::Bad;
    };
    let len = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    if ip[0] >> 4 != 6 || ETH + 40 + len > whole {
        counters.ip6_in_hdr_errors.bump();
        return Parsed::Bad;
    }
    let tos = ip[0] << 4 | ip[1] >> 4;
    let (mut next, ttl) = (ip[6], ip[7]);
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&ip[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    let (src, dst) = (address(8), address(24));
    if src.is_multicast() || (src.is_loopback() || dst.is_loopback()) && !iface.is_loopback() {
        counters.ip6_in_addr_errors.bump();
        return Parsed::Bad;
    }
    counters.ip6_in_octets.add((len + 40) as u64);
    counters.ip6_in_ecn(tos).bump();
    if dst.is_multicast() {
        counters.ip6_in_mcast.bump();
    }
    if ETH + 40 + len < whole {
        packet.truncate(ETH + 40 + len);
    }
    let end = ETH + 40 + len;
    let mut at = ETH + 40;
    // A packet with more extension headers than this is an attack.
    for _ in 0..8 {
        match next {
            proto::HOPOPTS | proto::DSTOPTS | proto::ROUTING => {
                packet.pull((at + 8).min(end));
                let Some(&[n, units]) = packet.head().get(at..at + 2) else {
                    counters.ip6_in_hdr_errors.bump();
                    return Parsed::Bad;
                };
                if next == proto::ROUTING && packet.head().get(at + 3).copied() != Some(0) {
                    // Segments left: not for us to forward (RFC 5095).
                    counters.ip6_in_hdr_errors.bump();
                    return Parsed::Bad;
                }
                next = n;
                at += (usize::from(units) + 1) * 8;
                if at > end {
                    counters.ip6_in_hdr_errors.bump();
                    return Parsed::Bad;
                }
            }
            proto::FRAGMENT => {
                packet.pull((at + 8).min(end));
                let Some(f) = packet.head().get(at..at + 8) else {
                    counters.ip6_in_hdr_errors.bump();
                    return Parsed::Bad;
                };
                let word = u16::from_be_bytes([f[2], f[3]]);
                let ident = u32::from_be_bytes([f[4], f[5], f[6], f[7]]);
                let meta = IpMeta {
                    iface: iface.clone(),
                    src: src.into(),
                    dst: dst.into(),
                    proto: f[0],
                    ttl,
                    tos,
                    l4: at + 8,
                    len: end - at - 8,
                    many: dst.is_multicast(),
                    taken: false,
                };
                return Parsed::Fragment {
                    meta,
                    offset: usize::from(word & 0xfff8),
                    more: word & 1 != 0,
                    ident,
                };
            }
            proto::NONE => return Parsed::Bad,
            _ => break,
        }
    }
    packet.pull(at);
    Parsed::Whole(IpMeta {
        iface: iface.clone(),
        src: src.into(),
        dst: dst.into(),
        proto: next,
        ttl,
        tos,
        l4: at,
        len: end - at,
        many: dst.is_multicast(),
        taken: false,
    })
}
