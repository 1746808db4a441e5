//! What a program or an operator changes at run time: links up and down, their MTU, addresses, neighbours; and the
//! question which way a packet would go.

use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::Ordering;

use errno::{Errno, Result};

use crate::config::Cidr;
use crate::iface::Interface;
use crate::neigh::Neighbour;
use crate::query::{Change, NeighbourState, RouteInfo};
use crate::route::Hop;
use crate::stack::{Chore, Stack};

const SECOND: u64 = 1_000_000_000;
/// The least MTU an interface may have (`ETH_MIN_MTU`).
const MIN_MTU: u32 = 68;

impl Stack {
    /// Brings an interface up or down. One that is down has no routes and no neighbours, and keeps its addresses.
    ///
    /// # Errors
    /// `ENODEV`.
    pub fn set_up(&self, index: u32, up: bool) -> Result<()> {
        let iface = self.interface(index).ok_or(Errno::ENODEV)?;
        if iface.up.swap(up, Ordering::AcqRel) == up {
            return Ok(());
        }
        self.routes.changed();
        if up {
            let addrs: Vec<Cidr> = iface.addrs.read().iter().map(|a| a.cidr).collect();
            for addr in addrs {
                self.add_link_route(&iface, addr);
            }
        } else {
            for route in self.routes.remove(|route| route.index == index) {
                self.tell(&Change::Route(route, false));
            }
            for gone in self.neighbours().into_iter().filter(|n| n.index == index) {
                if self.neighbour_cache.remove(index, gone.addr) {
                    self.tell(&Change::Neighbour(gone, false));
                }
            }
        }
        self.tell(&Change::Link(iface.info()));
        Ok(())
    }

    /// The route to the network of an address.
    pub(crate) fn add_link_route(&self, iface: &Interface, addr: Cidr) {
        if iface.is_loopback() {
            return;
        }
        let route = RouteInfo {
            dst: addr.network(),
            gateway: None,
            index: iface.index,
            source: Some(addr.addr),
            // As Linux has it, so that the routes of IPv6 can be outdone.
            metric: if addr.addr.is_ipv6() { 256 } else { 0 },
            protocol: 2,
        };
        if self.routes.add(route.clone()).is_ok() {
            self.tell(&Change::Route(route, true));
        }
    }

    /// Sets the largest IP packet of an interface, up to what its card takes.
    ///
    /// # Errors
    /// `ENODEV`, `EINVAL`.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        let iface = self.interface(index).ok_or(Errno::ENODEV)?;
        let most = iface
            .nic
            .as_ref()
            .map_or(65_535, |nic| u32::from(nic.mtu()));
        // Linux's loopback has one byte more than an IP packet can have.
        let wanted = if iface.is_loopback() {
            mtu.min(most)
        } else {
            mtu
        };
        if !(MIN_MTU..=most).contains(&wanted) {
            return Err(Errno::EINVAL);
        }
        if iface.mtu.swap(wanted, Ordering::AcqRel) != wanted {
            self.routes.changed();
            self.tell(&Change::Link(iface.info()));
        }
        Ok(())
    }

    /// Adds an address for a time, or for ever (`u32::MAX` seconds). IPv6 looks first whether somebody else has it.
    ///
    /// # Errors
    /// `EEXIST`, `ENODEV`, `EINVAL` for times that make no sense or an address that no interface can have.
    pub fn add_address_for(
        &self,
        index: u32,
        addr: Cidr,
        valid_s: u32,
        preferred_s: u32,
    ) -> Result<()> {
        let iface = self.interface(index).ok_or(Errno::ENODEV)?;
        if valid_s == 0 || preferred_s > valid_s || addr.addr.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let now = self.now();
        let end = |seconds: u32| match seconds {
            u32::MAX => u64::MAX,
            seconds => now + u64::from(seconds) * SECOND,
        };
        let (valid, preferred) = (end(valid_s), end(preferred_s));
        let checks = self.discovery.lock().iter().any(|d| d.index() == index);
        match addr.addr {
            IpAddr::V6(own) if checks && !self.is_own(addr.addr, index) => {
                self.add_tentative(&iface, own, addr.prefix, valid, preferred, now);
            }
            _ => self.add_address_until(index, addr, valid, preferred)?,
        }
        if valid != u64::MAX {
            self.arm_chore(Chore::Discovery, valid);
        }
        Ok(())
    }

    /// Gives an address of an interface other times.
    ///
    /// # Errors
    /// `ENODEV`, `EADDRNOTAVAIL`, `EINVAL`.
    pub fn set_lifetimes(
        &self,
        index: u32,
        addr: Cidr,
        valid_s: u32,
        preferred_s: u32,
    ) -> Result<()> {
        let iface = self.interface(index).ok_or(Errno::ENODEV)?;
        if valid_s == 0 || preferred_s > valid_s {
            return Err(Errno::EINVAL);
        }
        let now = self.now();
        let end = |seconds: u32| match seconds {
            u32::MAX => u64::MAX,
            seconds => now + u64::from(seconds) * SECOND,
        };
        {
            let mut addrs = iface.addrs.write();
            let known = addrs
                .iter_mut()
                .find(|a| a.cidr == addr)
                .ok_or(Errno::EADDRNOTAVAIL)?;
            known.valid_ns = end(valid_s);
            known.preferred_ns = end(preferred_s);
        }
        if valid_s != u32::MAX {
            self.arm_chore(Chore::Discovery, end(valid_s));
        }
        if let Some(info) = self.address(index, addr) {
            self.tell(&Change::Addr(info, true));
        }
        Ok(())
    }

    /// A neighbour told its hardware address: sends what waited for it, and tells who listens.
    pub(crate) fn learn(
        &self,
        iface: &Interface,
        entry: &Neighbour,
        mac: [u8; 6],
        confirmed: bool,
        now: u64,
    ) {
        let before = entry.get();
        let waiting = entry.learn(mac, confirmed, now);
        self.send_waiting(iface, mac, waiting);
        self.arm_neighbours(now);
        if entry.get() != before {
            self.tell(&Change::Neighbour(entry.info(), true));
        }
    }

    /// Sets a neighbour by hand, for ever or until it is known better.
    ///
    /// # Errors
    /// `ENODEV`, `EINVAL` for an interface without neighbours.
    pub fn put_neighbour(&self, index: u32, addr: IpAddr, mac: [u8; 6], ever: bool) -> Result<()> {
        let iface = self.interface(index).ok_or(Errno::ENODEV)?;
        if iface.is_loopback() {
            return Err(Errno::EINVAL);
        }
        if ever {
            self.set_neighbour(index, addr, mac)?;
        } else {
            let now = self.now();
            self.neighbour_cache.remove(index, addr);
            let entry = self.neighbour_cache.entry(index, addr, now);
            let waiting = entry.learn(mac, true, now);
            self.send_waiting(&iface, mac, waiting);
            self.arm_neighbours(now);
        }
        self.routes.changed();
        if let Some(entry) = self.neighbour_cache.find(index, addr) {
            self.tell(&Change::Neighbour(entry.info(), true));
        }
        Ok(())
    }

    /// Forgets a neighbour and tells who listens.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn drop_neighbour(&self, index: u32, addr: IpAddr) -> Result<()> {
        let entry = self
            .neighbour_cache
            .find(index, addr)
            .ok_or(Errno::ENOENT)?;
        let mut info = entry.info();
        self.remove_neighbour(index, addr)?;
        self.routes.changed();
        info.state = NeighbourState::Failed;
        self.tell(&Change::Neighbour(info, false));
        Ok(())
    }

    /// Which way a packet to `dst` would go: its route, as for that one address, with the source it would have.
    ///
    /// # Errors
    /// `ENETUNREACH` and the like, as for a packet.
    pub fn route_to(&self, dst: IpAddr, src: Option<IpAddr>, index: u32) -> Result<RouteInfo> {
        let way = self.route(dst, src, index)?;
        let gateway = match &way.hop {
            Hop::Neighbour(hop) if hop.addr != dst => Some(hop.addr),
            _ => None,
        };
        Ok(RouteInfo {
            dst: Cidr {
                addr: dst,
                prefix: if dst.is_ipv4() { 32 } else { 128 },
            },
            gateway,
            index: way.iface.index,
            source: Some(way.src),
            metric: 0,
            protocol: 0,
        })
    }

    /// Whether an address is this machine's.
    pub fn is_own_address(&self, addr: IpAddr) -> bool {
        self.is_local(addr)
    }
}
