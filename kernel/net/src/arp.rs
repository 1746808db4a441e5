//! ARP (RFC 826): asking for and answering with hardware addresses on Ethernet.

use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use crate::iface::{ETH, ETHERTYPE_ARP, Interface};
use crate::nic::{Header, TxPacket};
use crate::pkt::InPacket;
use crate::stack::Stack;

const BROADCAST: [u8; 6] = [0xff; 6];

/// Sends one ARP packet.
fn send(iface: &Interface, to: [u8; 6], repr: ArpRepr) {
    let mut header = Header::new();
    header.extend_from_slice(&to);
    header.extend_from_slice(&iface.mac);
    header.extend_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    if let Some(room) = header.extend_zeroed(repr.buffer_len()) {
        repr.emit(&mut ArpPacket::new_unchecked(room));
        iface.transmit(TxPacket::from_header(header));
    }
}

/// Asks who has `target`, everybody or the one who had it last.
pub(crate) fn request(
    iface: &Interface,
    target: Ipv4Addr,
    last: Option<[u8; 6]>,
    source: Ipv4Addr,
) {
    send(
        iface,
        last.unwrap_or(BROADCAST),
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: EthernetAddress(iface.mac),
            source_protocol_addr: source,
            target_hardware_addr: EthernetAddress(last.unwrap_or([0; 6])),
            target_protocol_addr: target,
        },
    );
}

/// Tells everybody that `addr` is here (RFC 5227).
pub(crate) fn announce(iface: &Interface, addr: Ipv4Addr) {
    request(iface, addr, None, addr);
}

/// A received ARP packet.
pub(crate) fn input(stack: &Stack, iface: &Arc<Interface>, mut packet: InPacket, now: u64) {
    packet.pull(ETH + 28);
    let Some(bytes) = packet.head().get(ETH..) else {
        return;
    };
    let Ok(ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    }) = ArpPacket::new_checked(bytes).and_then(|p| ArpRepr::parse(&p))
    else {
        return;
    };
    if !source_hardware_addr.is_unicast() || source_hardware_addr.0 == iface.mac {
        return;
    }
    let ours = stack.is_own(IpAddr::V4(target_protocol_addr), iface.index);
    let answer = operation == ArpOperation::Reply;
    if !source_protocol_addr.is_unspecified()
        && !source_protocol_addr.is_multicast()
        && !source_protocol_addr.is_broadcast()
    {
        if stack.is_own(IpAddr::V4(source_protocol_addr), iface.index) {
            // Somebody else uses our address: defend it once (RFC 5227 §2.4).
            if operation == ArpOperation::Request || !ours {
                stack.conflict(iface, source_protocol_addr, now);
            }
            return;
        }
        // Only what we asked for, or who asks for us, makes or changes an entry.
        let known = stack
            .neighbour_cache
            .find(iface.index, IpAddr::V4(source_protocol_addr));
        let entry = match known {
            Some(entry) => Some(entry),
            None if ours && operation == ArpOperation::Request => Some(
                stack
                    .neighbour_cache
                    .entry(iface.index, IpAddr::V4(source_protocol_addr), now),
            ),
            None => None,
        };
        if let Some(entry) = entry {
            stack.learn(iface, &entry, source_hardware_addr.0, answer && ours, now);
        }
    }
    if ours && operation == ArpOperation::Request {
        send(
            iface,
            source_hardware_addr.0,
            ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: EthernetAddress(iface.mac),
                source_protocol_addr: target_protocol_addr,
                target_hardware_addr: source_hardware_addr,
                target_protocol_addr: source_protocol_addr,
            },
        );
    }
}
