//! The way of a packet through the engine: in from a card or the loopback to a protocol, out from a
//! protocol by route and neighbour to a card. What it does when its time has come
//! is in `clock`, what it sends to itself in `loopback`.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::Ordering;

use errno::{Errno, Result};

use crate::gro::Gro;
use crate::iface::{ETH, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Interface};
use crate::ip::{self, IpMeta, IpOut, Parsed, proto};
use crate::neigh::Probe;
use crate::nic::{Header, TxPacket};
use crate::pkt::InPacket;
use crate::route::{Dst, Hop, group_mac};
use crate::stack::{Chore, Stack};
use crate::{arp, icmp, icmp6, multicast, ndisc, raw, tcp, udp};

/// How many packets of a queue are taken before others get a turn (`netdev_budget`).
pub(crate) const BUDGET: usize = 64;
impl Stack {
    /// Takes up to a budget of packets from one queue; returns how many there were.
    pub(crate) fn receive(&self, iface: &Arc<Interface>, queue: usize) -> usize {
        let Some(nic) = &iface.nic else {
            return 0;
        };
        let now = self.now();
        // Who looks at packets wants them as they came.
        let merge = !nic.caps().rx_gro && !iface.taps.active() && !self.raws.active();
        let mut deliver = |packet: InPacket| self.input(iface, packet, now);
        let count = if merge {
            let mut gro = Gro::default();
            let count = nic.receive(queue, BUDGET, &mut |packet| {
                gro.add(packet.into(), &mut deliver);
            });
            gro.flush(&mut deliver);
            count
        } else {
            nic.receive(queue, BUDGET, &mut |packet| deliver(packet.into()))
        };
        if count > 0 {
            iface.flush(queue);
            self.drain_loopback();
        }
        count
    }

    /// One received frame.
    pub(crate) fn input(&self, iface: &Arc<Interface>, packet: InPacket, now: u64) {
        let head = packet.head();
        let Some(eth) = head.get(..ETH) else {
            return;
        };
        if !iface.is_up() {
            return;
        }
        if iface.taps.active() {
            iface.tap_in(&packet);
        }
        // A frame for another station shows up when the card receives all.
        if !iface.is_loopback() && eth[..6] != iface.mac && eth[0] & 1 == 0 {
            return;
        }
        self.dispatch(iface, packet, now);
    }

    /// A frame for us, to its protocol.
    pub(crate) fn dispatch(&self, iface: &Arc<Interface>, packet: InPacket, now: u64) {
        let Some(eth) = packet.head().get(..ETH) else {
            return;
        };
        match u16::from_be_bytes([eth[12], eth[13]]) {
            ETHERTYPE_IPV4 => self.input_v4(iface, packet, now),
            ETHERTYPE_IPV6 => self.input_v6(iface, packet, now),
            ETHERTYPE_ARP if !iface.is_loopback() => arp::input(self, iface, packet, now),
            _ => {}
        }
    }

    fn input_v4(&self, iface: &Arc<Interface>, mut packet: InPacket, now: u64) {
        match ip::parse_v4(self, iface, &mut packet) {
            Parsed::Whole(meta) => self.deliver(meta, packet, now),
            Parsed::Fragment {
                meta,
                offset,
                more,
                ident,
            } => {
                // Only for us: nothing is kept for others.
                if !self.accepts(&meta) {
                    self.counters().ip_in_addr_errors.bump();
                    return;
                }
                self.input_fragment(meta, offset, more, ident, packet, now);
            }
            Parsed::Bad => {}
        }
    }

    fn input_v6(&self, iface: &Arc<Interface>, mut packet: InPacket, now: u64) {
        match ip::parse_v6(self, iface, &mut packet) {
            Parsed::Whole(meta) => self.deliver(meta, packet, now),
            Parsed::Fragment {
                meta,
                offset,
                more,
                ident,
            } => {
                if self.accepts(&meta) {
                    self.input_fragment(meta, offset, more, ident, packet, now);
                }
            }
            Parsed::Bad => {}
        }
    }

    fn input_fragment(
        &self,
        meta: IpMeta,
        offset: usize,
        more: bool,
        ident: u32,
        packet: InPacket,
        now: u64,
    ) {
        let counters = self.counters();
        let v6 = meta.dst.is_ipv6();
        let (reqds, oks, fails, overlaps) = if v6 {
            (
                &counters.ip6_reasm_reqds,
                &counters.ip6_reasm_oks,
                &counters.ip6_reasm_fails,
                &counters.ip6_reasm_overlaps,
            )
        } else {
            (
                &counters.ip_reasm_reqds,
                &counters.ip_reasm_oks,
                &counters.ip_reasm_fails,
                &counters.ip_reasm_overlaps,
            )
        };
        reqds.bump();
        let iface = meta.iface.clone();
        let added = self
            .fragments
            .lock()
            .add(&meta, offset, more, ident, packet, now);
        fails.add(added.failed as u64);
        overlaps.add(u64::from(added.overlap));
        self.arm_chore(Chore::Fragments, now + crate::frag::TIMEOUT_NS);
        if let Some(bytes) = added.whole {
            oks.bump();
            let mut packet = InPacket::assembled(bytes);
            let parsed = if v6 {
                ip::parse_v6(self, &iface, &mut packet)
            } else {
                ip::parse_v4(self, &iface, &mut packet)
            };
            if let Parsed::Whole(meta) = parsed {
                self.deliver(meta, packet, now);
            }
        }
    }

    /// Whether a packet is for this machine.
    fn accepts(&self, meta: &IpMeta) -> bool {
        match meta.dst {
            IpAddr::V4(dst) => {
                self.is_local(meta.dst)
                    || dst.is_multicast() && self.groups.listens(meta.dst, meta.iface.index)
                    || self.is_broadcast(meta, dst)
            }
            IpAddr::V6(dst) => {
                self.is_local(meta.dst)
                    || dst.is_multicast() && self.groups.listens(meta.dst, meta.iface.index)
            }
        }
    }

    fn is_broadcast(&self, meta: &IpMeta, dst: Ipv4Addr) -> bool {
        dst.is_broadcast()
            || meta
                .iface
                .addrs
                .read()
                .iter()
                .any(|a| a.cidr.broadcast() == Some(dst))
    }

    /// To the transport protocol.
    fn deliver(&self, mut meta: IpMeta, packet: InPacket, now: u64) {
        let counters = self.counters();
        if self.raws.active() && self.accepts(&meta) {
            meta.taken = raw::input(self, &meta, &packet, now);
        }
        if meta.proto == proto::TCP {
            // The flow table knows our addresses: they are looked at only when it has no answer.
            delivered(counters, &meta);
            tcp::input::input(self, &meta, packet, now);
            return;
        }
        if let IpAddr::V4(dst) = meta.dst {
            if !self.is_local(meta.dst) {
                // A group nobody here joined is somebody else's.
                if dst.is_multicast() && !self.groups.listens(meta.dst, meta.iface.index) {
                    return;
                }
                meta.many = dst.is_multicast() || self.is_broadcast(&meta, dst);
                // Without an address, DHCP's answers come to the address that is offered.
                let configuring = meta.proto == proto::UDP && meta.iface.first_addr(true).is_none();
                if !meta.many && !configuring {
                    counters.ip_in_addr_errors.bump();
                    return;
                }
                if meta.many && !dst.is_multicast() && !dst.is_broadcast() {
                    // A network's own broadcast address.
                    counters.in_bcast.bump();
                    counters
                        .in_bcast_octets
                        .add((meta.l4 + meta.len - ETH) as u64);
                }
            }
        } else if meta.many {
            if !self.groups.listens(meta.dst, meta.iface.index) {
                return;
            }
        } else if !self.is_local(meta.dst) {
            counters.ip6_in_addr_errors.bump();
            return;
        }
        match meta.proto {
            proto::UDP => {
                delivered(counters, &meta);
                udp::input(self, &meta, packet, now);
            }
            proto::ICMP if meta.dst.is_ipv4() => {
                counters.ip_in_delivers.bump();
                icmp::input(self, &meta, packet, now);
            }
            proto::ICMP6 if meta.dst.is_ipv6() => {
                counters.ip6_in_delivers.bump();
                icmp6::input(self, &meta, packet, now);
            }
            proto::IGMP if meta.dst.is_ipv4() => {
                counters.ip_in_delivers.bump();
                multicast::igmp_input(self, &meta, &packet, now);
            }
            _ if meta.taken => delivered(counters, &meta),
            _ if meta.dst.is_ipv6() => {
                counters.ip6_in_unknown_protos.bump();
                icmp6::unknown_header(self, &meta, &packet, now);
            }
            _ => {
                counters.ip_in_unknown_protos.bump();
                icmp::send_error(
                    self,
                    &meta,
                    &packet,
                    icmp::UNREACHABLE,
                    icmp::CODE_PROTO,
                    now,
                );
            }
        }
    }

    /// Where packets to `dst` go: from `src` if the socket is bound, out of interface `index` if that is not 0.
    pub(crate) fn route(&self, dst: IpAddr, src: Option<IpAddr>, index: u32) -> Result<Dst> {
        let generation = self.routes.generation();
        if self.is_local(dst) {
            let iface = self.interface(1).ok_or(Errno::ENETUNREACH)?;
            return Ok(Dst {
                src: src.unwrap_or(dst),
                mtu: iface.mtu(),
                iface,
                hop: Hop::Local,
                generation,
            });
        }
        let everybody = matches!(dst, IpAddr::V4(a) if a.is_broadcast());
        let multicast = dst.is_multicast();
        let route = self.routes.lookup(dst, index);
        let (out, gateway, preferred) = match route {
            Some(route) => (route.index, route.gateway, route.source),
            // Broadcast and multicast need an interface, not a route.
            None if (everybody || multicast) && index != 0 => (index, None, None),
            None if everybody || multicast => {
                let first = self
                    .ifaces
                    .read()
                    .iter()
                    .find(|i| !i.is_loopback() && i.is_up())
                    .map(|i| i.index);
                (first.ok_or_else(|| self.no_route(dst))?, None, None)
            }
            None => return Err(self.no_route(dst)),
        };
        let iface = self.interface(out).ok_or(Errno::ENETUNREACH)?;
        if !iface.is_up() {
            return Err(Errno::ENETDOWN);
        }
        let preferred = preferred.filter(|addr| {
            let addrs = iface.addrs.read();
            !addrs.iter().any(|a| a.cidr.addr == *addr && a.tentative)
        });
        let src = src
            .or(preferred)
            .or_else(|| iface.source_near(gateway?))
            .or_else(|| iface.source_for(dst));
        let src = match src {
            Some(src) => src,
            None if everybody => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            // Before there is an address, solicitations go out without one.
            None if multicast && dst.is_ipv6() => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            None => return Err(Errno::EADDRNOTAVAIL),
        };
        let directed = match dst {
            IpAddr::V4(v4) => iface
                .addrs
                .read()
                .iter()
                .any(|a| a.cidr.broadcast() == Some(v4)),
            IpAddr::V6(_) => false,
        };
        let hop = match dst {
            _ if everybody || directed => Hop::Fixed([0xff; 6]),
            _ if multicast => Hop::Fixed(group_mac(dst)),
            _ => Hop::Neighbour(self.neighbour_cache.entry(
                iface.index,
                gateway.unwrap_or(dst),
                self.now(),
            )),
        };
        let mtu = match self.routes.pmtu(dst, self.now()) {
            Some(mtu) => mtu.min(iface.mtu()),
            None => iface.mtu(),
        };
        Ok(Dst {
            iface,
            src,
            hop,
            mtu,
            generation,
        })
    }

    /// Counts a packet that no route is for.
    #[cold]
    fn no_route(&self, dst: IpAddr) -> Errno {
        match dst {
            IpAddr::V4(_) => self.counters().ip_out_no_routes.bump(),
            IpAddr::V6(_) => self.counters().ip6_out_no_routes.bump(),
        }
        Errno::ENETUNREACH
    }

    /// Sends a packet that begins with an Ethernet header whose addresses are still to be filled; false when the card's
    /// queue had no room for it.
    #[inline]
    pub(crate) fn output(&self, dst: &Dst, packet: TxPacket, now: u64) -> bool {
        match dst.src {
            IpAddr::V4(_) => self.counters().ip_out_requests.bump(),
            IpAddr::V6(_) => self.counters().ip6_out_requests.bump(),
        }
        self.output_counted(dst, packet, now)
    }

    /// [`Stack::output`] of what was asked of IP as a whole already.
    #[inline]
    fn output_counted(&self, dst: &Dst, mut packet: TxPacket, now: u64) -> bool {
        let counters = self.counters();
        let octets = (packet.len() - ETH) as u64;
        if dst.src.is_ipv4() {
            counters.ip_out_transmits.bump();
            counters.out_octets.add(octets);
        } else {
            counters.ip6_out_transmits.bump();
            counters.ip6_out_octets.add(octets);
        }
        let mac = match &dst.hop {
            Hop::Local => {
                self.loop_back(&dst.iface, packet);
                return true;
            }
            Hop::Fixed(mac) => {
                self.count_many(mac, dst.src.is_ipv4(), octets);
                *mac
            }
            Hop::Neighbour(neighbour) => match neighbour.fast() {
                Some(mac) => mac,
                None => {
                    self.output_slow(dst, neighbour.addr, packet, now);
                    return true;
                }
            },
        };
        fill_eth(&mut packet, mac, dst.iface.mac);
        dst.iface.transmit(packet)
    }

    /// [`Stack::output`] of a datagram. That one is not there to be sent again: to drop it is a discard, which TCP's is
    /// not (`ip_send_skb`).
    pub(crate) fn output_datagram(&self, dst: &Dst, packet: TxPacket, now: u64) -> bool {
        let sent = self.output(dst, packet, now);
        self.count_discard(dst, sent);
        sent
    }

    /// [`Stack::output_datagram`] of a fragment: its datagram was counted as a request.
    pub(crate) fn output_fragment(&self, dst: &Dst, packet: TxPacket, now: u64) -> bool {
        let sent = self.output_counted(dst, packet, now);
        self.count_discard(dst, sent);
        sent
    }

    fn count_discard(&self, dst: &Dst, sent: bool) {
        match dst.src {
            _ if sent => {}
            IpAddr::V4(_) => self.counters().ip_out_discards.bump(),
            IpAddr::V6(_) => self.counters().ip6_out_discards.bump(),
        }
    }

    /// Counts a packet to a broadcast or multicast address.
    fn count_many(&self, mac: &[u8; 6], v4: bool, octets: u64) {
        let counters = self.counters();
        if !v4 {
            counters.ip6_out_mcast.bump();
        } else if *mac == [0xff; 6] {
            counters.out_bcast.bump();
            counters.out_bcast_octets.add(octets);
        } else {
            counters.out_mcast.bump();
            counters.out_mcast_octets.add(octets);
        }
    }

    fn output_slow(&self, dst: &Dst, hop: IpAddr, packet: TxPacket, now: u64) {
        // The socket's handle may be of an entry that has been forgotten since.
        let neighbour = self.neighbour_cache.entry(dst.iface.index, hop, now);
        let (ready, ask) = neighbour.slow(now, packet);
        if let Some((mac, mut packet)) = ready {
            fill_eth(&mut packet, mac, dst.iface.mac);
            dst.iface.transmit(packet);
        }
        if ask {
            self.probe(&dst.iface, hop, Probe::Broadcast, now);
        }
        self.arm_neighbours(now);
        if let Hop::Neighbour(handle) = &dst.hop
            && !Arc::ptr_eq(handle, &neighbour)
        {
            self.routes.changed();
        }
    }

    /// Packets that waited for a hardware address.
    pub(crate) fn send_waiting(
        &self,
        iface: &Interface,
        mac: [u8; 6],
        waiting: VecDeque<TxPacket>,
    ) {
        for mut packet in waiting {
            fill_eth(&mut packet, mac, iface.mac);
            iface.transmit(packet);
        }
    }

    pub(crate) fn probe(&self, iface: &Interface, target: IpAddr, probe: Probe, now: u64) {
        let last = match probe {
            Probe::Broadcast => None,
            Probe::Unicast(mac) => Some(mac),
        };
        match target {
            IpAddr::V4(target) => {
                let source = match iface.first_addr(true) {
                    Some(IpAddr::V4(a)) => a,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                arp::request(iface, target, last, source);
            }
            IpAddr::V6(target) => ndisc::solicit(self, iface, target, last.is_some(), now),
        }
    }

    /// Sends a small datagram of a protocol of the engine's own, in fragments if need be.
    pub(crate) fn send_datagram(&self, out: &IpOut, bytes: &[u8], index: u32, now: u64) {
        let src = (!out.src.is_unspecified()).then_some(out.src);
        let Ok(dst) = self.route(out.dst, src, index) else {
            return;
        };
        if out.header_len() + bytes.len() > dst.mtu as usize {
            crate::frag::send(self, &dst, out, bytes, now);
            return;
        }
        let mut header = Header::new();
        out.emit(&mut header, bytes.len());
        self.output_datagram(&dst, icmp::with_payload(header, bytes), now);
    }

    /// Whether `addr` is a broadcast address of a link of ours.
    pub(crate) fn is_broadcast_addr(&self, addr: Ipv4Addr) -> bool {
        addr.is_broadcast()
            || self.ifaces.read().iter().any(|iface| {
                iface
                    .addrs
                    .read()
                    .iter()
                    .any(|a| a.cidr.broadcast() == Some(addr))
            })
    }

    /// Packets to `addr` may have no more than `mtu` bytes.
    pub(crate) fn learn_pmtu(&self, addr: IpAddr, mtu: u32, now: u64) {
        if let Some(expires) = self.routes.learn_pmtu(addr, mtu, now) {
            self.arm_chore(Chore::PathMtu, expires);
        }
    }

    /// A neighbour does not answer: the sockets whose packets waited hear of it, as from a router.
    pub(crate) fn unreachable(&self, packets: VecDeque<TxPacket>, now: u64) {
        for packet in packets {
            let bytes = packet.to_vec();
            match bytes.get(ETH) {
                Some(first) if first >> 4 == 4 => icmp::own_unreachable(self, &bytes[ETH..], now),
                Some(_) => icmp6::own_unreachable(self, &bytes[ETH..], now),
                None => {}
            }
        }
    }

    /// Whether an ICMP message may be sent now: a thousand in a second, fifty at once.
    pub(crate) fn icmp_allowed(&self, now: u64) -> bool {
        const COST: u64 = 1_000_000;
        const BURST: u64 = 50 * COST;
        let spent = self
            .icmp_spent
            .load(Ordering::Relaxed)
            .max(now.saturating_sub(BURST));
        if spent + COST > now + 1 {
            self.counters().icmp_out_rate_limit.bump();
            return false;
        }
        self.icmp_spent.store(spent + COST, Ordering::Relaxed);
        true
    }

    /// Somebody else claims our address.
    pub(crate) fn conflict(&self, iface: &Interface, addr: Ipv4Addr, now: u64) {
        if self.icmp_allowed(now) {
            arp::announce(iface, addr);
        }
    }
}

/// Counts a packet that a protocol takes.
#[inline]
fn delivered(counters: &crate::stats::CounterSet, meta: &IpMeta) {
    if meta.dst.is_ipv4() {
        counters.ip_in_delivers.bump();
    } else {
        counters.ip6_in_delivers.bump();
    }
}

fn fill_eth(packet: &mut TxPacket, to: [u8; 6], from: [u8; 6]) {
    if let Some(eth) = packet.header.get_mut(..12) {
        eth[..6].copy_from_slice(&to);
        eth[6..].copy_from_slice(&from);
    }
}
