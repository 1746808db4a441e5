//! The DHCPv4 client (RFC 2131, 2132, 3442, 3397): from discovery through renewal and rebinding to the
//! end of a lease. Packets are shaped by `smoltcp::wire`; what is learned goes into the engine and to
//! its observers.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress};

use crate::checksum::Sum;
use crate::config::{Cidr, Lease};
use crate::iface::{ETH, Interface};
use crate::ip::{DEFAULT_TTL, IpOut, proto};
use crate::nic::{Header, TxPacket, TxSegment};
use crate::query::{Change, RouteInfo};
use crate::stack::{Chore, Stack};

/// Where servers send to.
pub(crate) const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const SECOND: u64 = 1_000_000_000;
/// A lease that claims more is as good as endless.
const FOREVER_S: u32 = u32::MAX;
/// `RTPROT_DHCP`.
const BY_DHCP: u8 = 16;
const UNSPECIFIED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Subnet mask, router, DNS, host name, domain, MTU, NTP, lease, server, T1, T2, search, classless routes.
const WANTED: [u8; 13] = [1, 121, 3, 6, 12, 15, 26, 42, 51, 54, 58, 59, 119];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Selecting,
    Requesting { addr: Ipv4Addr, server: Ipv4Addr },
    Bound,
    Renewing,
    Rebinding,
}

struct Held {
    cidr: Cidr,
    server: Ipv4Addr,
    renew_at: u64,
    rebind_at: u64,
    expires_at: u64,
}

/// The client of one interface.
pub(crate) struct Dhcp {
    index: u32,
    mac: [u8; 6],
    host_name: Option<String>,
    state: State,
    xid: u32,
    started: u64,
    tries: u32,
    due: u64,
    held: Option<Held>,
    random: u64,
}

/// What the engine is to do after the client's turn.
enum Action {
    Send {
        bytes: Vec<u8>,
        to: Option<(Ipv4Addr, Ipv4Addr)>,
    },
    Bind {
        lease: Box<Lease>,
        routes: Vec<(Cidr, Ipv4Addr)>,
        cidr: Cidr,
        old: Option<Cidr>,
    },
    Lose(Cidr),
}

impl Dhcp {
    pub fn new(iface: &Interface, host_name: Option<&str>, random: u64, now: u64) -> Dhcp {
        Dhcp {
            index: iface.index,
            mac: iface.mac,
            host_name: host_name
                .filter(|n| !n.is_empty() && n.len() < 64)
                .map(String::from),
            state: State::Selecting,
            xid: random as u32,
            started: now,
            tries: 0,
            due: now,
            held: None,
            random,
        }
    }

    fn next_random(&mut self) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    /// The exponential wait of RFC 2131 §4.1, but quick at first: a machine waits for its address to boot.
    fn wait(&mut self) -> u64 {
        let base = match self.tries {
            0 => SECOND / 2,
            n => SECOND << (n - 1).min(6),
        };
        base + self.next_random() % (base / 4)
    }

    /// What is due now.
    fn turn(&mut self, now: u64, actions: &mut Vec<Action>) {
        if let Some(held) = &self.held {
            if now >= held.expires_at {
                actions.push(Action::Lose(held.cidr));
                self.restart(now);
            } else if now >= held.rebind_at && self.state != State::Rebinding {
                self.state = State::Rebinding;
                self.xid = self.next_random() as u32;
                self.due = now;
            } else if now >= held.renew_at && self.state == State::Bound {
                self.state = State::Renewing;
                self.xid = self.next_random() as u32;
                self.started = now;
                self.due = now;
            }
        }
        if now < self.due {
            return;
        }
        match self.state {
            State::Selecting => {
                self.due = now + self.wait();
                self.tries += 1;
                actions.push(self.message(DhcpMessageType::Discover, None, None, now));
            }
            State::Requesting { addr, server } => {
                if self.tries >= 4 {
                    self.restart(now);
                    self.turn(now, actions);
                    return;
                }
                self.due = now + self.wait();
                self.tries += 1;
                actions.push(self.message(DhcpMessageType::Request, Some(addr), Some(server), now));
            }
            State::Bound => {
                self.due = self.held.as_ref().map_or(u64::MAX, |h| h.renew_at);
            }
            State::Renewing | State::Rebinding => {
                let Some(held) = &self.held else {
                    self.restart(now);
                    return;
                };
                // Half of what is left, but not more often than every minute (RFC 2131 §4.4.5).
                let until = if self.state == State::Renewing {
                    held.rebind_at
                } else {
                    held.expires_at
                };
                let left = until.saturating_sub(now);
                self.due = (now + (left / 2).max(60 * SECOND)).min(until.max(now + SECOND));
                actions.push(self.message(DhcpMessageType::Request, None, None, now));
            }
        }
    }

    fn restart(&mut self, now: u64) {
        self.state = State::Selecting;
        self.held = None;
        self.tries = 0;
        self.started = now;
        self.due = now;
        self.xid = self.next_random() as u32;
    }

    fn message(
        &mut self,
        kind: DhcpMessageType,
        requested: Option<Ipv4Addr>,
        server: Option<Ipv4Addr>,
        now: u64,
    ) -> Action {
        let held = self.held.as_ref().map(|h| (h.cidr.addr, h.server));
        let (client_ip, to) = match (self.state, held) {
            (State::Renewing, Some((IpAddr::V4(own), server))) => (own, Some((own, server))),
            (State::Rebinding, Some((IpAddr::V4(own), _))) => {
                (own, Some((own, Ipv4Addr::BROADCAST)))
            }
            _ => (Ipv4Addr::UNSPECIFIED, None),
        };
        let name = self.host_name.clone().unwrap_or_default();
        let extra = [DhcpOption {
            kind: 12,
            data: name.as_bytes(),
        }];
        let repr = DhcpRepr {
            message_type: kind,
            transaction_id: self.xid,
            secs: (now.saturating_sub(self.started) / SECOND).min(0xffff) as u16,
            client_hardware_address: EthernetAddress(self.mac),
            client_ip,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: requested,
            client_identifier: Some(EthernetAddress(self.mac)),
            server_identifier: server,
            parameter_request_list: Some(&WANTED),
            dns_servers: None,
            max_size: Some(1472),
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: if name.is_empty() { &[] } else { &extra },
        };
        // Some relays drop what is shorter than BOOTP's 300 bytes.
        let mut bytes = alloc::vec![0; repr.buffer_len().max(300)];
        let mut packet = DhcpPacket::new_unchecked(&mut bytes[..]);
        if repr.emit(&mut packet).is_err() {
            bytes.clear();
        }
        Action::Send { bytes, to }
    }

    /// An answer; false when it is not for us.
    fn input(&mut self, bytes: &[u8], now: u64, actions: &mut Vec<Action>) -> bool {
        let Ok(packet) = DhcpPacket::new_checked(bytes) else {
            return false;
        };
        let Ok(repr) = DhcpRepr::parse(&packet) else {
            return false;
        };
        if repr.transaction_id != self.xid || repr.client_hardware_address.0 != self.mac {
            return false;
        }
        let server = repr.server_identifier;
        match (self.state, repr.message_type) {
            (State::Selecting, DhcpMessageType::Offer) => {
                let (Some(server), true) = (server, usable(repr.your_ip)) else {
                    return true;
                };
                self.state = State::Requesting {
                    addr: repr.your_ip,
                    server,
                };
                self.tries = 0;
                self.due = now;
                self.turn(now, actions);
            }
            (State::Requesting { server: asked, .. }, DhcpMessageType::Ack)
                if server.is_none_or(|s| s == asked) =>
            {
                self.bind(&packet, &repr, server.unwrap_or(asked), now, actions);
            }
            (State::Renewing | State::Rebinding, DhcpMessageType::Ack) => {
                let known = self.held.as_ref().map(|h| h.server);
                if let Some(server) = server.or(known) {
                    self.bind(&packet, &repr, server, now, actions);
                }
            }
            (
                State::Requesting { .. } | State::Renewing | State::Rebinding,
                DhcpMessageType::Nak,
            ) => {
                if let Some(held) = &self.held {
                    actions.push(Action::Lose(held.cidr));
                }
                self.restart(now);
                // Not at once: a server that refuses everything is not to be flooded.
                self.due = now + SECOND;
            }
            _ => {}
        }
        true
    }

    fn bind(
        &mut self,
        packet: &DhcpPacket<&[u8]>,
        repr: &DhcpRepr<'_>,
        server: Ipv4Addr,
        now: u64,
        actions: &mut Vec<Action>,
    ) {
        let mask = repr
            .subnet_mask
            .unwrap_or_else(|| classful_mask(repr.your_ip));
        let Some(cidr) = Cidr::from_netmask(repr.your_ip, mask).filter(|_| usable(repr.your_ip))
        else {
            self.restart(now);
            self.due = now + SECOND;
            return;
        };
        let lease_s = repr.lease_duration.unwrap_or(3600).max(10);
        let lease = u64::from(lease_s) * SECOND;
        let renew = repr
            .renew_duration
            .map_or(lease / 2, |s| u64::from(s) * SECOND)
            .min(lease);
        let rebind = repr
            .rebind_duration
            .map_or(lease / 8 * 7, |s| u64::from(s) * SECOND)
            .clamp(renew, lease);
        let endless = lease_s == FOREVER_S;
        let old = self.held.as_ref().map(|h| h.cidr).filter(|c| *c != cidr);
        self.held = Some(Held {
            cidr,
            server,
            renew_at: if endless { u64::MAX } else { now + renew },
            rebind_at: if endless { u64::MAX } else { now + rebind },
            expires_at: if endless { u64::MAX } else { now + lease },
        });
        self.state = State::Bound;
        self.tries = 0;
        self.due = self.held.as_ref().map_or(u64::MAX, |h| h.renew_at);
        let mut learned = Lease {
            index: self.index,
            addr: Some(cidr),
            lifetime_s: lease_s,
            ..Lease::default()
        };
        let mut classless = None;
        for option in packet.options() {
            let data = option.data;
            match option.kind {
                3 => learned.routers = addresses(data),
                6 => learned.dns = addresses(data).into_iter().map(IpAddr::V4).collect(),
                42 => learned.ntp = addresses(data),
                12 => learned.host_name = text(data),
                15 => learned.domain = text(data),
                119 => learned.search = domains(data),
                121 => classless = classless_routes(data),
                _ => {}
            }
        }
        // RFC 3442: with classless routes, the router option is not looked at.
        let routes = classless.unwrap_or_else(|| {
            let default = Cidr {
                addr: Ipv4Addr::UNSPECIFIED.into(),
                prefix: 0,
            };
            learned
                .routers
                .first()
                .map(|r| (default, *r))
                .into_iter()
                .collect()
        });
        actions.push(Action::Bind {
            lease: Box::new(learned),
            routes,
            cidr,
            old,
        });
    }

    /// When it wants its next turn.
    fn next(&self) -> u64 {
        let held = self.held.as_ref().map_or(u64::MAX, |h| match self.state {
            State::Bound => h.renew_at,
            State::Renewing => h.rebind_at,
            _ => h.expires_at,
        });
        self.due.min(held)
    }
}

fn usable(addr: Ipv4Addr) -> bool {
    !addr.is_unspecified() && !addr.is_multicast() && !addr.is_broadcast() && !addr.is_loopback()
}

fn classful_mask(addr: Ipv4Addr) -> Ipv4Addr {
    match addr.octets()[0] {
        0..=127 => Ipv4Addr::new(255, 0, 0, 0),
        128..=191 => Ipv4Addr::new(255, 255, 0, 0),
        _ => Ipv4Addr::new(255, 255, 255, 0),
    }
}

fn addresses(data: &[u8]) -> Vec<Ipv4Addr> {
    data.chunks_exact(4)
        .take(16)
        .map(|a| Ipv4Addr::new(a[0], a[1], a[2], a[3]))
        .collect()
}

/// A name that may go into a file: printable, no spaces.
fn text(data: &[u8]) -> Option<String> {
    let data = data.split(|b| *b == 0).next().unwrap_or(&[]);
    let clean = !data.is_empty() && data.iter().all(|b| b.is_ascii_graphic());
    clean.then(|| data.iter().map(|b| char::from(*b)).collect())
}

/// A list of domain names in DNS encoding with compression (RFC 3397).
pub(crate) fn domains(data: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < data.len() && names.len() < 8 {
        let mut name = String::new();
        let mut cursor = at;
        let mut jumped = false;
        let mut steps = 0;
        loop {
            steps += 1;
            let Some(&len) = data.get(cursor) else {
                return names;
            };
            if steps > 64 {
                return names;
            }
            match len {
                0 => {
                    if !jumped {
                        at = cursor + 1;
                    }
                    break;
                }
                1..=63 => {
                    let Some(label) = data.get(cursor + 1..cursor + 1 + usize::from(len)) else {
                        return names;
                    };
                    let Some(label) = text(label) else {
                        return names;
                    };
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(&label);
                    cursor += 1 + usize::from(len);
                }
                192.. => {
                    let Some(&low) = data.get(cursor + 1) else {
                        return names;
                    };
                    if !jumped {
                        at = cursor + 2;
                    }
                    jumped = true;
                    cursor = usize::from(len & 0x3f) << 8 | usize::from(low);
                }
                _ => return names,
            }
        }
        if !name.is_empty() {
            names.push(name);
        }
    }
    names
}

/// RFC 3442; `None` when malformed.
fn classless_routes(mut data: &[u8]) -> Option<Vec<(Cidr, Ipv4Addr)>> {
    let mut routes = Vec::new();
    while let [prefix, rest @ ..] = data {
        let bytes = usize::from(*prefix).div_ceil(8);
        if *prefix > 32 || rest.len() < bytes + 4 || routes.len() >= 64 {
            return None;
        }
        let mut net = [0; 4];
        net[..bytes].copy_from_slice(&rest[..bytes]);
        let g = &rest[bytes..bytes + 4];
        let cidr = Cidr::new(IpAddr::from(net), *prefix)?.network();
        routes.push((cidr, Ipv4Addr::new(g[0], g[1], g[2], g[3])));
        data = &rest[bytes + 4..];
    }
    Some(routes)
}

impl Stack {
    /// Gives every client its turn.
    pub(crate) fn run_dhcp(&self, now: u64) {
        self.dhcp_turn(now, |client, actions| {
            client.turn(now, actions);
            true
        });
    }

    /// A datagram to the client's port; false when no client wants it.
    pub(crate) fn dhcp_input(&self, index: u32, bytes: &[u8], now: u64) -> bool {
        self.dhcp_turn(now, |client, actions| {
            client.index == index && client.input(bytes, now, actions)
        })
    }

    fn dhcp_turn(&self, now: u64, mut f: impl FnMut(&mut Dhcp, &mut Vec<Action>) -> bool) -> bool {
        let mut all: Vec<(u32, Action)> = Vec::new();
        let mut any = false;
        let mut next = u64::MAX;
        for client in self.dhcp.lock().iter_mut() {
            let mut actions = Vec::new();
            any |= f(client, &mut actions);
            next = next.min(client.next());
            all.extend(actions.into_iter().map(|a| (client.index, a)));
        }
        for (index, action) in all {
            self.dhcp_action(index, action, now);
        }
        if next != u64::MAX {
            self.arm_chore(Chore::Dhcp, next);
        }
        any
    }

    fn dhcp_action(&self, index: u32, action: Action, now: u64) {
        let Some(iface) = self.interface(index) else {
            return;
        };
        match action {
            Action::Send { bytes, to } => {
                if bytes.is_empty() {
                    return;
                }
                let (src, dst) = to.unwrap_or((Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
                self.dhcp_send(&iface, src, dst, &bytes, now);
            }
            Action::Bind {
                lease,
                routes,
                cidr,
                old,
            } => {
                if let Some(old) = old {
                    let _ = self.remove_address(index, old);
                }
                let valid = match lease.lifetime_s {
                    FOREVER_S => u64::MAX - 1,
                    s => now + u64::from(s) * SECOND,
                };
                let renewed = self.is_own(cidr.addr, index);
                let _ = self.add_address_until(index, cidr, valid, valid);
                // What the server no longer says ends: a lease's routes do not pile up over its renewals.
                let gone = self.routes.remove(|r| {
                    r.index == index
                        && r.protocol == BY_DHCP
                        && !routes.iter().any(|(dst, gateway)| {
                            r.dst == *dst && r.gateway.unwrap_or(UNSPECIFIED) == *gateway
                        })
                });
                for route in gone {
                    self.tell(&Change::Route(route, false));
                }
                for (dst, gateway) in routes {
                    let route = RouteInfo {
                        dst,
                        gateway: (!gateway.is_unspecified()).then_some(gateway.into()),
                        index,
                        source: Some(cidr.addr),
                        metric: 0,
                        protocol: BY_DHCP,
                    };
                    // A renewal brings what is there already.
                    let _ = self.add_route(route);
                }
                let mut lease = lease;
                let changed = {
                    let mut leases = self.leases.write();
                    // What IPv6 learned stays.
                    if let Some(old) = leases.iter().find(|l| l.index == index) {
                        lease.dns.extend(old.dns.iter().filter(|a| a.is_ipv6()));
                        if lease.search.is_empty() {
                            lease.search.clone_from(&old.search);
                        }
                    }
                    let same = leases.contains(&lease);
                    leases.retain(|l| l.index != index);
                    leases.push((*lease).clone());
                    !same
                };
                if changed || !renewed {
                    self.tell(&Change::Lease(*lease));
                }
            }
            Action::Lose(cidr) => {
                let _ = self.remove_address(index, cidr);
                {
                    let mut leases = self.leases.write();
                    for lease in leases.iter_mut().filter(|l| l.index == index) {
                        lease.addr = None;
                        lease.routers.clear();
                        lease.dns.retain(IpAddr::is_ipv6);
                    }
                    leases.retain(|l| l.index != index || !l.dns.is_empty());
                }
                self.tell(&Change::Lease(Lease {
                    index,
                    ..Lease::default()
                }));
            }
        }
    }

    fn dhcp_send(&self, iface: &Interface, src: Ipv4Addr, dst: Ipv4Addr, bytes: &[u8], now: u64) {
        let len = bytes.len() + 8;
        let mut udp = [0; 8];
        udp[0..2].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        udp[2..4].copy_from_slice(&SERVER_PORT.to_be_bytes());
        udp[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        let sum = Sum::pseudo(src.into(), dst.into(), proto::UDP, len)
            .bytes(&udp)
            .bytes(bytes)
            .finish();
        udp[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
        let out = IpOut {
            src: src.into(),
            dst: dst.into(),
            proto: proto::UDP,
            ttl: DEFAULT_TTL,
            tos: 0xc0,
            df: false,
            ident: self.next_ident(),
        };
        let mut header = Header::new();
        out.emit(&mut header, len);
        header.extend_from_slice(&udp);
        let mut packet = TxPacket::from_header(header);
        packet
            .segments
            .push(TxSegment::Bytes(bytes.into(), 0..bytes.len()));
        if dst.is_broadcast() {
            // Without an address there is no route; the packet goes to everybody on this link.
            if let Some(eth) = packet.header.get_mut(..ETH - 2) {
                eth[..6].fill(0xff);
                eth[6..].copy_from_slice(&iface.mac);
            }
            let octets = (packet.len() - ETH) as u64;
            self.counters().ip_out_requests.bump();
            self.counters().ip_out_transmits.bump();
            self.counters().out_octets.add(octets);
            self.counters().out_bcast.bump();
            self.counters().out_bcast_octets.add(octets);
            iface.transmit(packet);
        } else if let Ok(route) = self.route(dst.into(), Some(src.into()), iface.index) {
            self.output(&route, packet, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_lists() {
        let routes = classless_routes(&[0, 10, 0, 0, 1, 24, 192, 168, 7, 10, 0, 0, 9]).unwrap();
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[1].0.addr, IpAddr::from([192, 168, 7, 0]));
        assert!(classless_routes(&[33, 1]).is_none());
        let search = b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04";
        assert_eq!(domains(search), ["eng.apple.com", "marketing.apple.com"]);
        assert!(domains(b"\xc0\x00").is_empty());
        assert_eq!(text(b"host name"), None);
    }
}
