//! ICMP (RFC 792): answering echoes, sending errors at a bounded rate, and telling sockets of errors that
//! concern them. ICMPv6 is `icmp6`.

use core::net::IpAddr;

use errno::Errno;

use crate::checksum::{Parts, Sum};
use crate::iface::ETH;
use crate::ip::{DEFAULT_TTL, IpMeta, IpOut, proto};
use crate::nic::{Header, RxChecksum, TxPacket, TxSegment};
use crate::pkt::InPacket;
use crate::route::MIN_PMTU;
use crate::stack::Stack;

/// What an ICMP error message means to the socket whose packet it quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IcmpError {
    pub errno: Errno,
    /// It ends a connection attempt (`icmp_err_convert`'s `fatal`).
    pub fatal: bool,
    pub kind: u8,
    pub code: u8,
    /// The next hop's MTU for "fragmentation needed".
    pub mtu: Option<u32>,
    pub offender: IpAddr,
}

const ECHO_REPLY: u8 = 0;
pub(crate) const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER: u8 = 12;
/// Codes of [`UNREACHABLE`].
pub(crate) const CODE_PROTO: u8 = 2;
/// See [`CODE_PROTO`].
pub(crate) const CODE_PORT: u8 = 3;

/// Linux's `icmp_err_convert`.
fn unreachable(code: u8) -> (Errno, bool) {
    match code {
        0 => (Errno::ENETUNREACH, false),
        1 | 11 => (Errno::EHOSTUNREACH, false),
        2 => (Errno::ENOPROTOOPT, true),
        3 => (Errno::ECONNREFUSED, true),
        4 => (Errno::EMSGSIZE, false),
        5 => (Errno::EOPNOTSUPP, false),
        6 | 9 => (Errno::ENETUNREACH, true),
        7 | 10 => (Errno::EHOSTDOWN, true),
        8 => (Errno::ENONET, true),
        12 => (Errno::EHOSTUNREACH, false),
        13..=15 => (Errno::EHOSTUNREACH, true),
        _ => (Errno::EHOSTUNREACH, false),
    }
}

/// A received ICMP packet.
pub(crate) fn input(stack: &Stack, meta: &IpMeta, mut packet: InPacket, now: u64) {
    let counters = stack.counters();
    counters.icmp_in_msgs.bump();
    if packet.csum != RxChecksum::Verified
        && packet.sum(meta.l4, Parts::default()).sum().folded() != 0xffff
    {
        counters.icmp_in_csum_errors.bump();
        counters.icmp_in_errors.bump();
        return;
    }
    packet.pull(meta.l4 + meta.len.min(8 + 60 + 8));
    let Some(icmp) = packet.head().get(meta.l4..).filter(|b| b.len() >= 8) else {
        counters.icmp_in_errors.bump();
        return;
    };
    let (kind, code) = (icmp[0], icmp[1]);
    stack.icmp_counts.bump(false, false, kind);
    match kind {
        ECHO => {
            counters.icmp_in_echos.bump();
            if !meta.many {
                echo_reply(stack, meta, packet, now);
            }
        }
        ECHO_REPLY => {
            counters.icmp_in_echo_reps.bump();
            if stack.raws.active() {
                crate::raw::echo_reply(stack, meta, &packet, now);
            }
        }
        UNREACHABLE | TIME_EXCEEDED | PARAMETER => {
            match kind {
                UNREACHABLE => counters.icmp_in_dest_unreachs.bump(),
                TIME_EXCEEDED => counters.icmp_in_time_excds.bump(),
                _ => counters.icmp_in_parm_probs.bump(),
            }
            let (errno, fatal) = match kind {
                UNREACHABLE => unreachable(code),
                TIME_EXCEEDED => (Errno::EHOSTUNREACH, false),
                _ => (Errno::EPROTO, true),
            };
            let mtu = (kind == UNREACHABLE && code == 4)
                .then(|| u32::from(u16::from_be_bytes([icmp[6], icmp[7]])));
            let error = IcmpError {
                errno,
                fatal,
                kind,
                code,
                mtu,
                offender: meta.src,
            };
            quoted(stack, error, &icmp[8..], now);
        }
        _ => {}
    }
}

/// Finds whose packet an error quotes: an IPv4 header and at least eight bytes of what followed.
fn quoted(stack: &Stack, mut error: IcmpError, inner: &[u8], now: u64) {
    let bad = || stack.counters().icmp_in_errors.bump();
    if inner.len() < 28 || inner[0] >> 4 != 4 {
        return bad();
    }
    let header = usize::from(inner[0] & 0xf) * 4;
    if header < 20 || inner.len() < header + 8 {
        return bad();
    }
    let address = |at: usize| -> IpAddr {
        IpAddr::from([inner[at], inner[at + 1], inner[at + 2], inner[at + 3]])
    };
    let (local, remote) = (address(12), address(16));
    // A later fragment has no ports.
    if u16::from_be_bytes([inner[6], inner[7]]) & 0x1fff != 0 || !stack.is_local(local) {
        return bad();
    }
    let l4 = &inner[header..];
    let ports = (
        u16::from_be_bytes([l4[0], l4[1]]),
        u16::from_be_bytes([l4[2], l4[3]]),
    );
    if let Some(mtu) = &mut error.mtu {
        // Routers before RFC 1191 do not say: take the next lower common size.
        if *mtu == 0 {
            let total = u32::from(u16::from_be_bytes([inner[2], inner[3]]));
            *mtu = [1492, 1006, 576]
                .into_iter()
                .find(|m| *m < total)
                .unwrap_or(MIN_PMTU);
        }
        *mtu = (*mtu).max(MIN_PMTU);
    }
    if stack.raws.active() {
        crate::raw::icmp_error(stack, inner[9], local, remote, l4, &error, now);
    }
    match inner[9] {
        proto::TCP => {
            let seq = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
            crate::tcp::input::icmp_error(
                stack,
                (local, ports.0),
                (remote, ports.1),
                seq,
                &error,
                now,
            );
        }
        proto::UDP => {
            let (local, remote) = ((local, ports.0), (remote, ports.1));
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
        code: 1,
        mtu: None,
        offender: IpAddr::from([0, 0, 0, 0]),
    };
    quoted(stack, error, inner, now);
}

fn echo_reply(stack: &Stack, meta: &IpMeta, packet: InPacket, now: u64) {
    if !stack.icmp_allowed(now) {
        return;
    }
    let mut bytes = packet.to_vec().split_off(meta.l4.min(packet.len()));
    bytes[0] = ECHO_REPLY;
    bytes[2..4].fill(0);
    let sum = Sum::default().bytes(&bytes).finish();
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    stack.counters().icmp_out_echo_reps.bump();
    stack.counters().icmp_out_msgs.bump();
    stack.icmp_counts.bump(false, true, ECHO_REPLY);
    let out = IpOut {
        src: meta.dst,
        dst: meta.src,
        proto: proto::ICMP,
        ttl: DEFAULT_TTL,
        tos: meta.tos & !3,
        df: false,
        ident: stack.next_ident(),
    };
    stack.send_datagram(&out, &bytes, meta.iface.index, now);
}

/// Tells the sender of `packet` of an error, if the rules allow it (RFC 1122 §3.2.2).
pub(crate) fn send_error(
    stack: &Stack,
    meta: &IpMeta,
    packet: &InPacket,
    kind: u8,
    code: u8,
    now: u64,
) {
    if meta.many || meta.src.is_unspecified() || !meta.dst.is_ipv4() {
        return;
    }
    if meta.proto == proto::ICMP {
        // Never an error about an error.
        match packet.head().get(meta.l4) {
            Some(&(ECHO | ECHO_REPLY)) => {}
            _ => return,
        }
    }
    if !stack.icmp_allowed(now) {
        return;
    }
    let quote = packet.to_vec();
    let quote = &quote[ETH.min(quote.len())..quote.len().min(ETH + 548)];
    let mut bytes = alloc::vec![0; 8];
    bytes[0] = kind;
    bytes[1] = code;
    bytes.extend_from_slice(quote);
    let sum = Sum::default().bytes(&bytes).finish();
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    let counters = stack.counters();
    counters.icmp_out_msgs.bump();
    stack.icmp_counts.bump(false, true, kind);
    if kind == UNREACHABLE {
        counters.icmp_out_dest_unreachs.bump();
    } else {
        counters.icmp_out_time_excds.bump();
    }
    let out = IpOut {
        src: meta.dst,
        dst: meta.src,
        proto: proto::ICMP,
        ttl: DEFAULT_TTL,
        tos: 0xc0,
        df: false,
        ident: stack.next_ident(),
    };
    stack.send_datagram(&out, &bytes, meta.iface.index, now);
}

/// A packet whose payload is a copy of `bytes`.
pub(crate) fn with_payload(mut header: Header, bytes: &[u8]) -> TxPacket {
    if bytes.len() <= header.room() {
        header.extend_from_slice(bytes);
        return TxPacket::from_header(header);
    }
    let mut packet = TxPacket::from_header(header);
    packet.segments.push(TxSegment::Bytes(
        alloc::sync::Arc::from(bytes),
        0..bytes.len(),
    ));
    packet
}
