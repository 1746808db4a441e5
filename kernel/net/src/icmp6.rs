//! ICMPv6 (RFC 4443): echoes, errors both ways, and the door to neighbour discovery (`ndisc`).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use errno::Errno;

use crate::checksum::{Parts, Sum};
use crate::icmp::IcmpError;
use crate::iface::ETH;
use crate::ip::{DEFAULT_TTL, IpMeta, IpOut, proto};
use crate::ndisc;
use crate::nic::RxChecksum;
use crate::pkt::InPacket;
use crate::stack::Stack;

pub(crate) const UNREACHABLE: u8 = 1;
const TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER: u8 = 4;
const ECHO: u8 = 128;
const ECHO_REPLY: u8 = 129;
/// Code of [`UNREACHABLE`]: nobody has the port.
pub(crate) const CODE_PORT: u8 = 4;
/// The least MTU of IPv6.
const MIN_MTU: u32 = 1280;

/// A received ICMPv6 packet.
pub(crate) fn input(stack: &Stack, meta: &IpMeta, mut packet: InPacket, now: u64) {
    let counters = stack.counters();
    counters.icmp6_in_msgs.bump();
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (meta.src, meta.dst) else {
        return;
    };
    if packet.csum == RxChecksum::Unknown {
        let pseudo = Sum::pseudo(meta.src, meta.dst, proto::ICMP6, meta.len);
        if packet.sum(meta.l4, Parts::after(pseudo)).sum().folded() != 0xffff {
            counters.icmp6_in_csum_errors.bump();
            counters.icmp6_in_errors.bump();
            return;
        }
    }
    packet.pull(meta.l4 + meta.len.min(1500));
    let Some(icmp) = packet.head().get(meta.l4..).filter(|b| b.len() >= 8) else {
        counters.icmp6_in_errors.bump();
        return;
    };
    let word = u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]);
    stack.icmp_counts.bump(true, false, icmp[0]);
    match icmp[0] {
        ECHO if stack.icmp_allowed(now) => {
            let mut bytes = packet.to_vec().split_off(meta.l4.min(packet.len()));
            bytes[0] = ECHO_REPLY;
            let from = if meta.many { None } else { Some(dst) };
            send(stack, from, src, bytes, DEFAULT_TTL, meta.iface.index, now);
        }
        UNREACHABLE | TOO_BIG | TIME_EXCEEDED | PARAMETER => {
            let (errno, fatal) = match (icmp[0], icmp[1]) {
                (UNREACHABLE, 1 | 5 | 6) => (Errno::EACCES, true),
                (UNREACHABLE, CODE_PORT) => (Errno::ECONNREFUSED, true),
                (UNREACHABLE, 0) => (Errno::ENETUNREACH, false),
                (TOO_BIG, _) => (Errno::EMSGSIZE, false),
                (PARAMETER, _) => (Errno::EPROTO, true),
                _ => (Errno::EHOSTUNREACH, false),
            };
            let error = IcmpError {
                errno,
                fatal,
                kind: icmp[0],
                code: icmp[1],
                mtu: (icmp[0] == TOO_BIG).then_some(word.max(MIN_MTU)),
                offender: meta.src,
            };
            quoted(stack, error, &icmp[8..], now);
        }
        ECHO_REPLY if stack.raws.active() => crate::raw::echo_reply(stack, meta, &packet, now),
        130 | 131 => crate::multicast::mld_input(stack, meta, src, icmp, now),
        133..=137 => ndisc::input(stack, meta, src, dst, icmp, now),
        _ => {}
    }
}

/// Finds whose packet an error quotes.
fn quoted(stack: &Stack, error: IcmpError, inner: &[u8], now: u64) {
    if inner.len() < 48 || inner[0] >> 4 != 6 {
        stack.counters().icmp6_in_errors.bump();
        return;
    }
    let address = |at: usize| -> IpAddr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&inner[at..at + 16]);
        Ipv6Addr::from(octets).into()
    };
    let (local, remote) = (address(8), address(24));
    if !stack.is_local(local) {
        return;
    }
    let l4 = &inner[40..];
    let port = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    if stack.raws.active() {
        crate::raw::icmp_error(stack, inner[6], local, remote, l4, &error, now);
    }
    match inner[6] {
        proto::TCP => {
            let seq = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
            let (local, remote) = ((local, port(0)), (remote, port(2)));
            crate::tcp::input::icmp_error(stack, local, remote, seq, &error, now);
        }
        proto::UDP => {
            let (local, remote) = ((local, port(0)), (remote, port(2)));
            crate::udp::icmp_error(stack, local, remote, &error, &l4[8..], now);
        }
        _ => {}
    }
}

/// The engine itself finds that the packet `inner` (from its IP header on) cannot be delivered.
pub(crate) fn own_unreachable(stack: &Stack, inner: &[u8], now: u64) {
    let error = IcmpError {
        errno: Errno::EHOSTUNREACH,
        fatal: true,
        kind: UNREACHABLE,
        code: 3,
        mtu: None,
        offender: Ipv6Addr::UNSPECIFIED.into(),
    };
    quoted(stack, error, inner, now);
}

/// Tells the sender of `packet` of an error (RFC 4443 §2.4).
pub(crate) fn send_error(
    stack: &Stack,
    meta: &IpMeta,
    packet: &InPacket,
    kind: u8,
    code: u8,
    now: u64,
) {
    send_error_with(stack, meta, packet, (kind, code), [0; 4], now);
}

/// The same with the four bytes after the checksum.
fn send_error_with(
    stack: &Stack,
    meta: &IpMeta,
    packet: &InPacket,
    (kind, code): (u8, u8),
    word: [u8; 4],
    now: u64,
) {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (meta.src, meta.dst) else {
        return;
    };
    let about_error = meta.proto == proto::ICMP6
        && packet
            .head()
            .get(meta.l4)
            .is_none_or(|kind| kind & 0x80 == 0);
    if meta.many || src.is_unspecified() || about_error || !stack.icmp_allowed(now) {
        return;
    }
    let quote = packet.to_vec();
    let mut bytes = alloc::vec![kind, code, 0, 0];
    bytes.extend_from_slice(&word);
    bytes.extend_from_slice(&quote[ETH.min(quote.len())..quote.len().min(ETH + 1232)]);
    send(
        stack,
        Some(dst),
        src,
        bytes,
        DEFAULT_TTL,
        meta.iface.index,
        now,
    );
}

/// Nobody takes the protocol after the headers: the sender is told where it stands (RFC 4443 §3.4).
pub(crate) fn unknown_header(stack: &Stack, meta: &IpMeta, packet: &InPacket, now: u64) {
    const CODE_NEXT_HEADER: u8 = 1;
    // The field is the IPv6 header's own, or that of the last extension header.
    let first = ETH + 40;
    let at = match meta.l4 {
        l4 if l4 == first => 6,
        _ => last_header(packet, first, meta.l4) - ETH,
    };
    let pointer = (at as u32).to_be_bytes();
    send_error_with(
        stack,
        meta,
        packet,
        (PARAMETER, CODE_NEXT_HEADER),
        pointer,
        now,
    );
}

/// Where the last extension header before `end` begins.
fn last_header(packet: &InPacket, mut at: usize, end: usize) -> usize {
    loop {
        let units = packet.head().get(at + 1).copied().unwrap_or(0);
        let next = at + (usize::from(units) + 1) * 8;
        if next >= end {
            return at;
        }
        at = next;
    }
}

/// Sends a message whose checksum is still to be filled.
pub(crate) fn send(
    stack: &Stack,
    src: Option<Ipv6Addr>,
    dst: Ipv6Addr,
    mut bytes: Vec<u8>,
    hops: u8,
    index: u32,
    now: u64,
) {
    let Ok(route) = stack.route(dst.into(), src.map(IpAddr::V6), index) else {
        return;
    };
    if bytes.len() < 4 {
        return;
    }
    bytes[2..4].fill(0);
    let sum = Sum::pseudo(route.src, dst.into(), proto::ICMP6, bytes.len())
        .bytes(&bytes)
        .finish();
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    stack.counters().icmp6_out_msgs.bump();
    stack.icmp_counts.bump(true, true, bytes[0]);
    let out = IpOut {
        src: route.src,
        dst: dst.into(),
        proto: proto::ICMP6,
        ttl: hops,
        tos: 0,
        df: false,
        ident: 0,
    };
    if out.header_len() + bytes.len() > route.mtu as usize {
        crate::frag::send(stack, &route, &out, &bytes, now);
        return;
    }
    let mut header = crate::nic::Header::new();
    out.emit(&mut header, bytes.len());
    stack.output_datagram(&route, crate::icmp::with_payload(header, &bytes), now);
}
