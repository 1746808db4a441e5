//! Neighbour discovery (RFC 4861) and stateless address configuration (RFC 4862): hardware addresses,
//! routers, prefixes, name servers (RFC 8106), and the check that an address is nobody else's.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use crate::config::{Cidr, Ipv6Config, Lease};
use crate::dhcp6::Mode;
use crate::icmp6;
use crate::iface::Interface;
use crate::ip::IpMeta;
use crate::query::{Change, RouteInfo};
use crate::stack::{Chore, Stack};

const ROUTER_SOLICIT: u8 = 133;
const ROUTER_ADVERT: u8 = 134;
const NEIGHBOUR_SOLICIT: u8 = 135;
const NEIGHBOUR_ADVERT: u8 = 136;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SECOND: u64 = 1_000_000_000;
/// Between router solicitations, and how many there are at most (RFC 4861 §10).
const SOLICIT_NS: u64 = 4 * SECOND;
const SOLICITS: u8 = 3;
/// How long an address is tentative (one probe, `RetransTimer`).
const TENTATIVE_NS: u64 = SECOND;
/// Addresses that advertisements can give an interface.
const MOST_ADDRESSES: usize = 16;
/// Name servers that are remembered.
const MOST_SERVERS: usize = 8;
/// `RTPROT_RA`.
const BY_ADVERT: u8 = 9;

/// What an interface with IPv6 has to do.
pub(crate) struct Discovery {
    index: u32,
    solicits: u8,
    solicit_at: u64,
    /// Addresses being checked, and until when.
    tentative: Vec<(Ipv6Addr, u64)>,
    /// Routers that advertise, and until when.
    routers: Vec<(Ipv6Addr, u64)>,
    automatic: bool,
}

impl Discovery {
    /// The interface it is about.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }
}

/// The address everybody looking for `addr` asks.
pub(crate) fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., x, y] = addr.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (x & 0xff), y)
}

/// The interface identifier of a hardware address (modified EUI-64).
fn identifier(mac: [u8; 6]) -> u64 {
    u64::from_be_bytes([
        mac[0] ^ 2,
        mac[1],
        mac[2],
        0xff,
        0xfe,
        mac[3],
        mac[4],
        mac[5],
    ])
}

/// Asks who has `target`: everybody, or the one who had it last.
pub(crate) fn solicit(stack: &Stack, iface: &Interface, target: Ipv6Addr, unicast: bool, now: u64) {
    let mut bytes = alloc::vec![NEIGHBOUR_SOLICIT, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&target.octets());
    bytes.extend_from_slice(&[1, 1]);
    bytes.extend_from_slice(&iface.mac);
    let to = if unicast {
        target
    } else {
        solicited_node(target)
    };
    icmp6::send(stack, None, to, bytes, 255, iface.index, now);
}

/// A received message; `icmp` begins with its type.
pub(crate) fn input(
    stack: &Stack,
    meta: &IpMeta,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    icmp: &[u8],
    now: u64,
) {
    // Only from this link (RFC 4861 §7.1): nothing that crossed a router has 255 left.
    if meta.ttl != 255 || icmp[1] != 0 || meta.iface.is_loopback() {
        return;
    }
    match icmp[0] {
        NEIGHBOUR_SOLICIT => neighbour_solicit(stack, &meta.iface, src, dst, icmp, now),
        NEIGHBOUR_ADVERT => neighbour_advert(stack, &meta.iface, dst, icmp, now),
        ROUTER_ADVERT => router_advert(stack, &meta.iface, src, icmp, now),
        _ => {}
    }
}

/// The options after `at`: kind and body. Empty when one of them is malformed.
fn options(icmp: &[u8], at: usize) -> Vec<(u8, &[u8])> {
    let mut all = Vec::new();
    let mut rest = icmp.get(at..).unwrap_or(&[]);
    while let [kind, units, ..] = rest {
        let len = usize::from(*units) * 8;
        if len == 0 || len > rest.len() || all.len() >= 32 {
            return Vec::new();
        }
        all.push((*kind, &rest[2..len]));
        rest = &rest[len..];
    }
    all
}

fn hardware(options: &[(u8, &[u8])], kind: u8) -> Option<[u8; 6]> {
    let (_, body) = options.iter().find(|(k, _)| *k == kind)?;
    let mac: [u8; 6] = body.get(..6)?.try_into().ok()?;
    (mac[0] & 1 == 0).then_some(mac)
}

fn target(icmp: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = icmp.get(8..24)?.try_into().ok()?;
    let addr = Ipv6Addr::from(octets);
    (!addr.is_multicast()).then_some(addr)
}

fn neighbour_solicit(
    stack: &Stack,
    iface: &Arc<Interface>,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    icmp: &[u8],
    now: u64,
) {
    let Some(target) = target(icmp) else { return };
    if !stack.is_own(target.into(), iface.index) {
        return;
    }
    if is_tentative(iface, target) {
        // Somebody else checks the same address: neither gets it (RFC 4862 §5.4.3).
        if src.is_unspecified() {
            stack.address_taken(iface, target);
        }
        return;
    }
    let source = hardware(&options(icmp, 24), 1);
    if let Some(mac) = source.filter(|_| !src.is_unspecified()) {
        let entry = stack.neighbour_cache.entry(iface.index, src.into(), now);
        stack.learn(iface, &entry, mac, false, now);
    } else if src.is_unspecified() && !dst.is_multicast() {
        return;
    }
    let (to, flags) = if src.is_unspecified() {
        (ALL_NODES, 0x20)
    } else {
        (src, 0x60)
    };
    let mut bytes = alloc::vec![NEIGHBOUR_ADVERT, 0, 0, 0, flags, 0, 0, 0];
    bytes.extend_from_slice(&target.octets());
    bytes.extend_from_slice(&[2, 1]);
    bytes.extend_from_slice(&iface.mac);
    icmp6::send(stack, Some(target), to, bytes, 255, iface.index, now);
}

fn neighbour_advert(stack: &Stack, iface: &Arc<Interface>, dst: Ipv6Addr, icmp: &[u8], now: u64) {
    let Some(target) = target(icmp) else { return };
    let solicited = icmp[4] & 0x40 != 0;
    let overriding = icmp[4] & 0x20 != 0;
    if solicited && dst.is_multicast() {
        return;
    }
    if stack.is_own(target.into(), iface.index) {
        if is_tentative(iface, target) {
            stack.address_taken(iface, target);
        }
        return;
    }
    // Only what was asked for has an entry, and only an entry is changed.
    let Some(entry) = stack.neighbour_cache.find(iface.index, target.into()) else {
        return;
    };
    let known = entry.fast();
    let mac = match (hardware(&options(icmp, 24), 2), known) {
        (Some(mac), Some(old)) if mac != old && !overriding => return,
        (Some(mac), _) => mac,
        (None, Some(old)) => old,
        (None, None) => return,
    };
    stack.learn(iface, &entry, mac, solicited, now);
}

fn is_tentative(iface: &Interface, addr: Ipv6Addr) -> bool {
    let addrs = iface.addrs.read();
    addrs.iter().any(|a| a.tentative && a.cidr.addr == addr)
}

fn router_advert(stack: &Stack, iface: &Arc<Interface>, src: Ipv6Addr, icmp: &[u8], now: u64) {
    if !src.is_unicast_link_local() || icmp.len() < 16 {
        return;
    }
    let index = iface.index;
    let automatic = {
        let mut all = stack.discovery.lock();
        let Some(me) = all.iter_mut().find(|d| d.index == index) else {
            return;
        };
        me.solicit_at = u64::MAX;
        me.automatic
    };
    if !automatic {
        return;
    }
    let options = options(icmp, 16);
    if let Some(mac) = hardware(&options, 1) {
        let entry = stack.neighbour_cache.entry(index, src.into(), now);
        stack.learn(iface, &entry, mac, false, now);
    }
    stack.take_router(iface, src, u16::from_be_bytes([icmp[6], icmp[7]]), now);
    let mut servers = Vec::new();
    for (kind, body) in options {
        match kind {
            3 if body.len() >= 30 => stack.take_prefix(iface, body, now),
            5 if body.len() >= 6 => {
                let mtu = u32::from_be_bytes([body[2], body[3], body[4], body[5]]);
                let most = iface.nic.as_ref().map_or(1500, |nic| u32::from(nic.mtu()));
                if (1280..=most).contains(&mtu) && mtu != iface.mtu() {
                    iface.mtu.store(mtu, core::sync::atomic::Ordering::Relaxed);
                    stack.routes.changed();
                }
            }
            25 if body.len() >= 22 => {
                for octets in body[6..].chunks_exact(16).take(8) {
                    let mut addr = [0; 16];
                    addr.copy_from_slice(octets);
                    servers.push(IpAddr::V6(addr.into()));
                }
            }
            _ => {}
        }
    }
    if !servers.is_empty() {
        stack.take_servers(index, servers);
    }
    // Managed addresses come with the other configuration.
    let mode = match icmp[5] {
        flags if flags & 0x80 != 0 => Mode::Managed,
        flags if flags & 0x40 != 0 => Mode::Other,
        _ => return,
    };
    stack.want_dhcp6(iface, mode, now);
}

impl Stack {
    /// Starts IPv6 on an interface: the link-local address, then what the configuration says.
    pub(crate) fn start_ipv6(&self, iface: &Arc<Interface>, config: &Ipv6Config, now: u64) {
        if matches!(config, Ipv6Config::None) {
            return;
        }
        let automatic = matches!(config, Ipv6Config::Auto);
        self.discovery.lock().push(Discovery {
            index: iface.index,
            solicits: 0,
            solicit_at: if automatic {
                now + TENTATIVE_NS
            } else {
                u64::MAX
            },
            tentative: Vec::new(),
            routers: Vec::new(),
            automatic,
        });
        let local = 0xfe80_u128 << 112 | u128::from(identifier(iface.mac));
        self.add_tentative(
            iface,
            Ipv6Addr::from_bits(local),
            64,
            u64::MAX,
            u64::MAX,
            now,
        );
        if let Ipv6Config::Static { addr, gateway } = config
            && let IpAddr::V6(own) = addr.addr
        {
            self.add_tentative(iface, own, addr.prefix, u64::MAX, u64::MAX, now);
            if let Some(gateway) = gateway {
                // A gateway outside the network is the manifest's mistake; it is then not used.
                let _ = self.add_route(default_route(iface.index, *gateway, 3, None));
            }
        }
    }

    /// Adds an address that is used once nobody has objected for a second (RFC 4862 §5.4).
    pub(crate) fn add_tentative(
        &self,
        iface: &Arc<Interface>,
        addr: Ipv6Addr,
        prefix: u8,
        valid_ns: u64,
        preferred_ns: u64,
        now: u64,
    ) {
        let cidr = Cidr {
            addr: addr.into(),
            prefix,
        };
        if self
            .add_address_until(iface.index, cidr, valid_ns, preferred_ns)
            .is_err()
        {
            return;
        }
        if let Some(known) = iface.addrs.write().iter_mut().find(|a| a.cidr == cidr) {
            known.tentative = true;
        }
        if let Some(me) = self
            .discovery
            .lock()
            .iter_mut()
            .find(|d| d.index == iface.index)
        {
            me.tentative.push((addr, now + TENTATIVE_NS));
        }
        self.listen_for(iface.index, addr, true);
        let mut bytes = alloc::vec![NEIGHBOUR_SOLICIT, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&addr.octets());
        let from = Some(Ipv6Addr::UNSPECIFIED);
        icmp6::send(
            self,
            from,
            solicited_node(addr),
            bytes,
            255,
            iface.index,
            now,
        );
        self.arm_chore(Chore::Discovery, now + TENTATIVE_NS);
    }

    /// A tentative address is somebody else's.
    fn address_taken(&self, iface: &Interface, addr: Ipv6Addr) {
        let cidr = iface
            .addrs
            .read()
            .iter()
            .find(|a| a.cidr.addr == addr)
            .map(|a| a.cidr);
        if let Some(cidr) = cidr {
            // Gone already is as good.
            let _ = self.remove_address(iface.index, cidr);
        }
        for me in self.discovery.lock().iter_mut() {
            if me.index == iface.index {
                me.tentative.retain(|(a, _)| *a != addr);
            }
        }
        self.dhcp6_decline(iface.index, addr, self.now());
    }

    fn take_router(&self, iface: &Interface, router: Ipv6Addr, lifetime_s: u16, now: u64) {
        let index = iface.index;
        let until = now + u64::from(lifetime_s) * SECOND;
        let mut gone = lifetime_s == 0;
        {
            let mut all = self.discovery.lock();
            let Some(me) = all.iter_mut().find(|d| d.index == index) else {
                return;
            };
            me.routers.retain(|(addr, _)| *addr != router);
            if !gone && me.routers.len() < 8 {
                me.routers.push((router, until));
            } else {
                gone = true;
            }
        }
        if gone {
            self.drop_router(index, router);
            return;
        }
        // Known already when it is only heard again.
        let _ = self.add_route(default_route(index, router, BY_ADVERT, None));
        self.arm_chore(Chore::Discovery, until);
    }

    fn drop_router(&self, index: u32, router: Ipv6Addr) {
        let gone = self.routes.remove(|r| {
            r.index == index && r.gateway == Some(router.into()) && r.protocol == BY_ADVERT
        });
        for route in gone {
            self.tell(&Change::Route(route, false));
        }
    }

    /// A prefix information option (RFC 4861 §4.6.2), after its type and length.
    fn take_prefix(&self, iface: &Arc<Interface>, body: &[u8], now: u64) {
        let (prefix, flags) = (body[0], body[1]);
        let lifetime = |at: usize| match u32::from_be_bytes([
            body[at],
            body[at + 1],
            body[at + 2],
            body[at + 3],
        ]) {
            u32::MAX => u64::MAX,
            s => now + u64::from(s) * SECOND,
        };
        let (valid, preferred) = (lifetime(2), lifetime(6));
        let mut octets = [0; 16];
        octets.copy_from_slice(&body[14..30]);
        let net = Ipv6Addr::from(octets);
        if net.is_unicast_link_local() || net.is_multicast() || preferred > valid {
            return;
        }
        // Autonomous, and of the one length whose other half is ours.
        if flags & 0x40 == 0 || prefix != 64 || valid <= now {
            return;
        }
        let high = net.to_bits() >> 64 << 64;
        let addr = Ipv6Addr::from_bits(high | u128::from(identifier(iface.mac)));
        let cidr = Cidr {
            addr: addr.into(),
            prefix,
        };
        if self.is_own(addr.into(), iface.index) {
            // RFC 4862 §5.5.3 e: a forged advertisement cannot end an address at once.
            let floor = now + 7200 * SECOND;
            let valid = valid.max(floor);
            // It exists: this only renews it.
            let _ = self.add_address_until(iface.index, cidr, valid, preferred);
        } else if iface.addrs.read().len() < MOST_ADDRESSES {
            self.add_tentative(iface, addr, prefix, valid, preferred, now);
        }
        if valid != u64::MAX {
            self.arm_chore(Chore::Discovery, valid);
        }
    }

    /// Name servers of a router or a server: those not known yet are added.
    pub(crate) fn take_servers(&self, index: u32, servers: Vec<IpAddr>) {
        let told = {
            let mut leases = self.leases.write();
            if !leases.iter().any(|l| l.index == index) {
                leases.push(Lease {
                    index,
                    ..Lease::default()
                });
            }
            let Some(lease) = leases.iter_mut().find(|l| l.index == index) else {
                return;
            };
            let before = lease.dns.clone();
            for server in servers {
                if lease.dns.len() < MOST_SERVERS && !lease.dns.contains(&server) {
                    lease.dns.push(server);
                }
            }
            (lease.dns != before).then(|| lease.clone())
        };
        if let Some(lease) = told {
            self.tell(&Change::Lease(lease));
        }
    }

    /// What is due: addresses become usable or end, routers end, solicitations go out.
    pub(crate) fn run_discovery(&self, now: u64) {
        let mut next = u64::MAX;
        let mut ready = Vec::new();
        let mut solicit = Vec::new();
        let mut lost = Vec::new();
        for me in self.discovery.lock().iter_mut() {
            me.tentative.retain(|(addr, until)| {
                if *until <= now {
                    ready.push((me.index, *addr));
                }
                *until > now
            });
            me.routers.retain(|(addr, until)| {
                if *until <= now {
                    lost.push((me.index, *addr));
                }
                *until > now
            });
            if me.solicit_at <= now {
                solicit.push(me.index);
                me.solicits += 1;
                me.solicit_at = if me.solicits < SOLICITS {
                    now + SOLICIT_NS
                } else {
                    u64::MAX
                };
            }
            next = next.min(me.solicit_at);
            for (_, until) in me.tentative.iter().chain(&me.routers) {
                next = next.min(*until);
            }
        }
        for (index, router) in lost {
            self.drop_router(index, router);
        }
        for (index, addr) in ready {
            let Some(iface) = self.interface(index) else {
                continue;
            };
            let mut addrs = iface.addrs.write();
            if let Some(known) = addrs.iter_mut().find(|a| a.cidr.addr == addr) {
                known.tentative = false;
            }
            let cidr = addrs.iter().find(|a| a.cidr.addr == addr).map(|a| a.cidr);
            drop(addrs);
            self.routes.changed();
            if let Some(info) = cidr.and_then(|cidr| self.address(index, cidr)) {
                self.tell(&Change::Addr(info, true));
            }
        }
        for index in solicit {
            let Some(iface) = self.interface(index) else {
                continue;
            };
            let mut bytes = alloc::vec![ROUTER_SOLICIT, 0, 0, 0, 0, 0, 0, 0, 1, 1];
            bytes.extend_from_slice(&iface.mac);
            icmp6::send(self, None, ALL_ROUTERS, bytes, 255, index, now);
        }
        let ifaces: Vec<Arc<Interface>> = self.ifaces.read().clone();
        for iface in ifaces {
            let ended: Vec<Cidr> = {
                let addrs = iface.addrs.read();
                for addr in addrs.iter().filter(|a| a.valid_ns > now) {
                    next = next.min(addr.valid_ns);
                }
                addrs
                    .iter()
                    .filter(|a| a.valid_ns <= now)
                    .map(|a| a.cidr)
                    .collect()
            };
            for cidr in ended {
                // Gone already is as good.
                let _ = self.remove_address(iface.index, cidr);
            }
        }
        if next != u64::MAX {
            self.arm_chore(Chore::Discovery, next);
        }
    }
}

fn default_route(index: u32, gateway: Ipv6Addr, protocol: u8, source: Option<IpAddr>) -> RouteInfo {
    RouteInfo {
        dst: Cidr {
            addr: Ipv6Addr::UNSPECIFIED.into(),
            prefix: 0,
        },
        gateway: Some(gateway.into()),
        index,
        source,
        metric: 1024,
        protocol,
    }
}
