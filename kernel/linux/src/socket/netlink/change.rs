//! `NETLINK_ROUTE` requests that change something (`rtnetlink(7)`): links, addresses, routes, neighbours; and the
//! question for one route.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use errno::{Errno, Result};
use net::query::{LinkInfo, NeighbourState, RouteInfo};
use net::{Cidr, Stack};

use super::message;
use crate::socket::addr::{AF_INET, AF_INET6};
use crate::socket::inet::ioctl::flag;

/// `NLM_F_REPLACE`, `NLM_F_EXCL`, `NLM_F_CREATE`.
const REPLACE: u16 = 0x100;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;

const TABLE_MAIN: u32 = 254;
const TABLE_DEFAULT: u32 = 253;

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes.get(at..at + 4).ok_or(Errno::EINVAL)?;
    Ok(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

fn attributes(payload: &[u8], fixed: usize) -> Result<&[u8]> {
    payload.get(fixed..).ok_or(Errno::EINVAL)
}

fn number(attributes: &[u8], kind: u16) -> Result<Option<u32>> {
    message::find(attributes, kind)?
        .map(|value| word(value, 0))
        .transpose()
}

fn address(family: u8, value: &[u8]) -> Result<IpAddr> {
    match u16::from(family) {
        AF_INET => {
            let octets: [u8; 4] = value.try_into().map_err(|_| Errno::EINVAL)?;
            Ok(Ipv4Addr::from(octets).into())
        }
        AF_INET6 => {
            let octets: [u8; 16] = value.try_into().map_err(|_| Errno::EINVAL)?;
            Ok(Ipv6Addr::from(octets).into())
        }
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

fn found(attributes: &[u8], kind: u16, family: u8) -> Result<Option<IpAddr>> {
    message::find(attributes, kind)?
        .map(|value| address(family, value))
        .transpose()
}

/// `RTM_NEWLINK` and `RTM_SETLINK` of a link that is there: `struct ifinfomsg` and attributes.
///
/// # Errors
/// `ENODEV`, `EOPNOTSUPP` for what no link here can be made to do, `EINVAL`.
pub fn set_link(stack: &Stack, payload: &[u8], wanted: &LinkInfo) -> Result<()> {
    let (flags, mut change) = (word(payload, 8)?, word(payload, 12)?);
    let all = attributes(payload, 16)?;
    // A new hardware address, name, master or namespace; none of it is here.
    for kind in [1, 10, 19, 28] {
        if message::find(all, kind)?.is_some() {
            return Err(Errno::EOPNOTSUPP);
        }
    }
    if let Some(name) = message::find(all, 3)? {
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        if wanted.name.as_bytes() != &name[..end] {
            return Err(Errno::EOPNOTSUPP);
        }
    }
    if change == 0 {
        change = if flags == 0 { 0 } else { u32::MAX };
    }
    let known = flag::UP | flag::PROMISC | flag::BROADCAST | flag::LOOPBACK | flag::RUNNING;
    if change != u32::MAX && change & !(known | flag::MULTICAST | flag::LOWER_UP) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if let Some(mtu) = number(all, 4)? {
        stack.set_mtu(wanted.index, mtu)?;
    }
    set_flags(stack, wanted, flags, change)
}

/// Makes the flags in `change` what they are in `flags`, as far as they can be changed.
///
/// # Errors
/// `ENODEV`.
pub fn set_flags(stack: &Stack, link: &LinkInfo, flags: u32, change: u32) -> Result<()> {
    if change & flag::PROMISC != 0 {
        stack.set_promiscuous_flag(link.index, flags & flag::PROMISC != 0)?;
    }
    if change & flag::UP != 0 {
        stack.set_up(link.index, flags & flag::UP != 0)?;
    }
    Ok(())
}

/// `RTM_NEWADDR`: `struct ifaddrmsg` and attributes.
///
/// # Errors
/// `EEXIST`, `ENODEV`, `EINVAL`.
pub fn new_address(stack: &Stack, payload: &[u8], how: u16) -> Result<()> {
    let (index, cidr, all) = interface_address(payload)?;
    let times = match message::find(all, 6)? {
        // struct ifa_cacheinfo: preferred, valid.
        Some(info) => (word(info, 4)?, word(info, 0)?),
        None => (u32::MAX, u32::MAX),
    };
    match stack.add_address_for(index, cidr, times.0, times.1) {
        Err(Errno::EEXIST) if how & REPLACE != 0 && how & EXCL == 0 => {
            stack.set_lifetimes(index, cidr, times.0, times.1)
        }
        other => other,
    }
}

/// `RTM_DELADDR`.
///
/// # Errors
/// `EADDRNOTAVAIL`, `ENODEV`, `EINVAL`.
pub fn del_address(stack: &Stack, payload: &[u8]) -> Result<()> {
    let (index, cidr, _) = interface_address(payload)?;
    stack.remove_address(index, cidr)
}

fn interface_address(payload: &[u8]) -> Result<(u32, Cidr, &[u8])> {
    let [family, prefix, ..] = *payload else {
        return Err(Errno::EINVAL);
    };
    let index = word(payload, 4)?;
    let all = attributes(payload, 8)?;
    // IFA_LOCAL is the own one where a peer has another.
    let local = match found(all, 2, family)? {
        Some(local) => Some(local),
        None => found(all, 1, family)?,
    };
    let local = local.ok_or(Errno::EINVAL)?;
    let cidr = Cidr::new(local, prefix).ok_or(Errno::EINVAL)?;
    Ok((index, cidr, all))
}

/// A route as a request has it; no interface is 0.
fn wanted_route(payload: &[u8]) -> Result<(RouteInfo, Option<u32>)> {
    let fixed = payload.first_chunk::<12>().ok_or(Errno::EINVAL)?;
    let [family, prefix, _, _, table, protocol, _, kind, ..] = *fixed;
    let all = attributes(payload, 12)?;
    let table = number(all, 15)?.unwrap_or(u32::from(table));
    if ![0, TABLE_MAIN, TABLE_DEFAULT].contains(&table) {
        return Err(Errno::EOPNOTSUPP);
    }
    // RTN_UNICAST only, one hop only.
    if kind > 1 || message::find(all, 9)?.is_some() {
        return Err(Errno::EOPNOTSUPP);
    }
    let any = match u16::from(family) {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    let dst = found(all, 1, family)?.unwrap_or(any);
    let dst = Cidr::new(dst, prefix).ok_or(Errno::EINVAL)?;
    if dst.network() != dst {
        return Err(Errno::EINVAL);
    }
    let metric = number(all, 6)?;
    let route = RouteInfo {
        dst,
        gateway: found(all, 5, family)?,
        index: number(all, 4)?.unwrap_or(0),
        source: found(all, 7, family)?,
        // IPv6's default is not the best.
        metric: metric.unwrap_or(if dst.addr.is_ipv6() { 1024 } else { 0 }),
        protocol: if protocol == 0 { 3 } else { protocol },
    };
    Ok((route, metric))
}

/// `RTM_NEWROUTE`: `struct rtmsg` and attributes.
///
/// # Errors
/// `EEXIST`, `ENOENT`, `ENETUNREACH`, `ENODEV`, `EINVAL`, `EOPNOTSUPP`.
pub fn new_route(stack: &Stack, payload: &[u8], how: u16) -> Result<()> {
    let (mut route, _) = wanted_route(payload)?;
    if route.index == 0 {
        let gateway = route.gateway.ok_or(Errno::ENODEV)?;
        route.index = stack.route_to(gateway, None, 0)?.index;
    }
    if route
        .source
        .is_some_and(|source| !stack.is_own_address(source))
    {
        return Err(Errno::EINVAL);
    }
    let same = |r: &&RouteInfo| r.dst == route.dst && r.metric == route.metric;
    let there: Vec<RouteInfo> = stack.routes().iter().filter(same).cloned().collect();
    if how & EXCL != 0 && !there.is_empty() {
        return Err(Errno::EEXIST);
    }
    if how & CREATE == 0 && there.is_empty() {
        return Err(Errno::ENOENT);
    }
    if how & REPLACE != 0 {
        for old in &there {
            // Another thread may have removed it.
            let _ = stack.remove_route(old);
        }
    }
    stack.add_route(route)
}

/// `RTM_DELROUTE`.
///
/// # Errors
/// `ESRCH`, `EINVAL`.
pub fn del_route(stack: &Stack, payload: &[u8]) -> Result<()> {
    let (wanted, metric) = wanted_route(payload)?;
    let fits = |r: &&RouteInfo| {
        r.dst == wanted.dst
            && (wanted.index == 0 || r.index == wanted.index)
            && (wanted.gateway.is_none() || r.gateway == wanted.gateway)
            && metric.is_none_or(|metric| r.metric == metric)
    };
    let all = stack.routes();
    let route = all.iter().find(fits).ok_or(Errno::ESRCH)?;
    stack.remove_route(route)
}

/// `RTM_GETROUTE` for one destination.
///
/// # Errors
/// `ENETUNREACH`, `EINVAL`.
pub fn get_route(stack: &Stack, payload: &[u8]) -> Result<RouteInfo> {
    let family = *payload.first().ok_or(Errno::EINVAL)?;
    let all = attributes(payload, 12)?;
    let dst = found(all, 1, family)?.ok_or(Errno::EINVAL)?;
    let index = number(all, 4)?.unwrap_or(0);
    stack.route_to(dst, found(all, 2, family)?, index)
}

/// `RTM_NEWNEIGH`: `struct ndmsg` and attributes.
///
/// # Errors
/// `EEXIST`, `ENOENT`, `ENODEV`, `EINVAL`.
pub fn new_neighbour(stack: &Stack, payload: &[u8], how: u16) -> Result<()> {
    let (index, addr, state, mac) = wanted_neighbour(payload)?;
    let there = stack
        .neighbours()
        .iter()
        .any(|n| n.index == index && n.addr == addr);
    if there && how & EXCL != 0 {
        return Err(Errno::EEXIST);
    }
    if !there && how & CREATE == 0 {
        return Err(Errno::ENOENT);
    }
    let ever = state & NeighbourState::Permanent as u16 != 0;
    stack.put_neighbour(index, addr, mac.ok_or(Errno::EINVAL)?, ever)
}

/// `RTM_DELNEIGH`.
///
/// # Errors
/// `ENOENT`, `EINVAL`.
pub fn del_neighbour(stack: &Stack, payload: &[u8]) -> Result<()> {
    let (index, addr, _, _) = wanted_neighbour(payload)?;
    stack.drop_neighbour(index, addr)
}

type Neighbour = (u32, IpAddr, u16, Option<[u8; 6]>);

fn wanted_neighbour(payload: &[u8]) -> Result<Neighbour> {
    let fixed = payload.first_chunk::<12>().ok_or(Errno::EINVAL)?;
    let all = attributes(payload, 12)?;
    let addr = found(all, 1, fixed[0])?.ok_or(Errno::EINVAL)?;
    let mac = match message::find(all, 2)? {
        Some(mac) => Some(mac.try_into().map_err(|_| Errno::EINVAL)?),
        None => None,
    };
    let state = u16::from_ne_bytes([fixed[8], fixed[9]]);
    Ok((word(payload, 4)?, addr, state, mac))
}
