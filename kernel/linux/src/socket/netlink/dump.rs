//! What `NETLINK_ROUTE` requests are answered with (`rtnetlink(7)`).

use alloc::vec::Vec;
use core::net::IpAddr;

use errno::{Errno, Result};
use net::query::{AddrInfo, Change, LinkInfo, NeighbourInfo, RouteInfo};

use super::change;
use super::message::{self, ACK, DONE, DUMP, Header, MULTI, Message};
use crate::socket::addr::{AF_INET, AF_INET6};
use crate::socket::inet::ioctl::flags;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
/// `NLM_F_EXCL`, `NLM_F_CREATE`.
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_IFNAME: u16 = 3;

/// Bits of the multicast groups (`RTMGRP_*`).
const GROUP_LINK: u32 = 0x1;
const GROUP_NEIGH: u32 = 0x4;
const GROUP_IPV4_IFADDR: u32 = 0x10;
const GROUP_IPV4_ROUTE: u32 = 0x40;
const GROUP_IPV6_IFADDR: u32 = 0x100;
const GROUP_IPV6_ROUTE: u32 = 0x400;

/// The most bytes of one datagram of a dump: what the usual receivers have room for.
const CHUNK: usize = 8192;

/// All datagrams that answer the requests in `bytes`.
pub fn answer(mut bytes: &[u8], port: u32) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    while let Some((mut header, payload, raw)) = message::split(&mut bytes) {
        header.port = port;
        // Control messages (NOOP, DONE) and what is no request ask for nothing.
        if header.kind < 16 || header.flags & 1 == 0 {
            continue;
        }
        match one(header, payload) {
            Ok(found) => {
                answers.extend(found);
                if header.flags & ACK != 0 && header.flags & DUMP != DUMP {
                    answers.push(message::acknowledgement(header, raw, Ok(())));
                }
            }
            Err(error) => answers.push(message::acknowledgement(header, raw, Err(error))),
        }
    }
    answers
}

fn one(header: Header, payload: &[u8]) -> Result<Vec<Vec<u8>>> {
    let stack = crate::socket::stack()?;
    let family = payload.first().copied().unwrap_or(0);
    let is_dump = header.flags & DUMP == DUMP || !matches!(header.kind, RTM_GETLINK | RTM_GETROUTE);
    let reply = |kind| Header {
        kind,
        flags: if is_dump { MULTI } else { 0 },
        ..header
    };
    let messages: Vec<Vec<u8>> = match header.kind {
        RTM_GETLINK => {
            let links = stack.links();
            if !is_dump {
                let wanted = wanted_link(payload, &links)?;
                return Ok(alloc::vec![link(reply(RTM_NEWLINK), wanted)]);
            }
            links
                .iter()
                .map(|info| link(reply(RTM_NEWLINK), info))
                .collect()
        }
        RTM_GETADDR => {
            let links = stack.links();
            stack
                .addresses()
                .iter()
                .filter(|info| wants(family, info.addr.addr))
                .map(|info| address(reply(RTM_NEWADDR), info, &links))
                .collect()
        }
        RTM_GETROUTE if header.flags & DUMP == DUMP => stack
            .routes()
            .iter()
            .filter(|info| wants(family, info.dst.addr))
            .map(|info| route(reply(RTM_NEWROUTE), info))
            .collect(),
        RTM_GETNEIGH => stack
            .neighbours()
            .iter()
            .filter(|info| wants(family, info.addr))
            .map(|info| neighbour(reply(RTM_NEWNEIGH), info))
            .collect(),
        RTM_GETROUTE => {
            let found = change::get_route(stack, payload)?;
            let header = Header {
                kind: RTM_NEWROUTE,
                flags: 0,
                ..header
            };
            return Ok(alloc::vec![one_route(header, &found)]);
        }
        RTM_GETRULE => rules(reply(RTM_NEWRULE), family),
        _ => return change_one(stack, header, payload).map(|()| Vec::new()),
    };
    Ok(chunks(header, messages, Ok(())))
}

/// Everything that makes, changes or removes something.
fn change_one(stack: &net::Stack, header: Header, payload: &[u8]) -> Result<()> {
    let how = header.flags;
    let inet =
        matches!(payload.first(), Some(&family) if matches!(u16::from(family), AF_INET | AF_INET6));
    match header.kind {
        // No other family has addresses and routes.
        RTM_NEWADDR | RTM_DELADDR | RTM_NEWROUTE | RTM_DELROUTE if !inet => Err(Errno::EOPNOTSUPP),
        RTM_NEWLINK | RTM_SETLINK => {
            let links = stack.links();
            match wanted_link(payload, &links) {
                Ok(link) if how & NLM_F_EXCL != 0 && how & NLM_F_CREATE != 0 => {
                    let _ = link;
                    Err(Errno::EEXIST)
                }
                Ok(link) => change::set_link(stack, payload, link),
                // Links of software are not made here.
                Err(Errno::ENODEV) if how & NLM_F_CREATE != 0 => Err(Errno::EOPNOTSUPP),
                Err(error) => Err(error),
            }
        }
        RTM_NEWADDR => change::new_address(stack, payload, how),
        RTM_DELADDR => change::del_address(stack, payload),
        RTM_NEWROUTE => change::new_route(stack, payload, how),
        RTM_DELROUTE => change::del_route(stack, payload),
        RTM_NEWNEIGH => change::new_neighbour(stack, payload, how),
        RTM_DELNEIGH => change::del_neighbour(stack, payload),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// The rules that choose a routing table: the three that Linux starts with.
fn rules(header: Header, family: u8) -> Vec<Vec<u8>> {
    let families: &[u16] = match u16::from(family) {
        0 => &[AF_INET, AF_INET6],
        AF_INET => &[AF_INET],
        AF_INET6 => &[AF_INET6],
        _ => &[],
    };
    let mut all = Vec::new();
    for family in families {
        for (table, priority) in [(255u8, 0u32), (254, 32766), (253, 32767)] {
            if *family == AF_INET6 && table == 253 {
                continue;
            }
            // struct fib_rule_hdr: family, lengths, tos, table, reserved, action (to table), flags.
            let fixed = [*family as u8, 0, 0, 0, table, 0, 0, 1, 0, 0, 0, 0];
            let mut message = Message::new(header, &fixed);
            message.attribute(15, &u32::from(table).to_ne_bytes()); // FRA_TABLE
            message.attribute(14, &u32::MAX.to_ne_bytes()); // FRA_SUPPRESS_PREFIXLEN
            message.attribute(6, &priority.to_ne_bytes()); // FRA_PRIORITY
            all.push(message.finish());
        }
    }
    all
}

/// The answer to the question for one route.
fn one_route(header: Header, info: &RouteInfo) -> Vec<u8> {
    const CLONED: u32 = 0x200;
    let local = info.index == 1;
    let (kind, scope): (u8, u8) = if local { (2, 254) } else { (1, 0) };
    // The main table, whichever it was found in, unless the request asks for the truth (RTM_F_LOOKUP_TABLE).
    let table = 254u8;
    let mut fixed = alloc::vec![
        family_of(info.dst.addr),
        info.dst.prefix,
        0,
        0,
        table,
        0,
        scope,
        kind
    ];
    fixed.extend(CLONED.to_ne_bytes());
    let mut message = Message::new(header, &fixed);
    message.attribute(15, &u32::from(table).to_ne_bytes());
    message.attribute(1, &octets(info.dst.addr));
    message.attribute(4, &info.index.to_ne_bytes());
    if let Some(gateway) = info.gateway {
        message.attribute(5, &octets(gateway));
    }
    if let Some(source) = info.source {
        message.attribute(7, &octets(source));
    }
    message.finish()
}

/// Packs a dump into datagrams and ends it, with an error if it could not be made.
pub fn chunks(header: Header, messages: Vec<Vec<u8>>, ended: Result<()>) -> Vec<Vec<u8>> {
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    for message in messages {
        match datagrams.last_mut() {
            Some(last) if last.len() + message.len() <= CHUNK => last.extend(message),
            _ => datagrams.push(message),
        }
    }
    let done = Header {
        kind: DONE,
        flags: MULTI,
        ..header
    };
    let code = ended.map_or_else(|error| -i32::from(error.raw()), |()| 0);
    datagrams.push(Message::new(done, &code.to_ne_bytes()).finish());
    datagrams
}

fn wants(family: u8, addr: IpAddr) -> bool {
    match u16::from(family) {
        0 => true,
        AF_INET => addr.is_ipv4(),
        AF_INET6 => addr.is_ipv6(),
        _ => false,
    }
}

/// The link that a request for one names, by index or by name.
fn wanted_link<'a>(payload: &[u8], links: &'a [LinkInfo]) -> Result<&'a LinkInfo> {
    let fixed = payload.first_chunk::<16>().ok_or(Errno::EINVAL)?;
    let index = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let name = message::find(&payload[16..], IFLA_IFNAME)?;
    let found = links.iter().find(|link| match (index, name) {
        (0, Some(name)) => {
            let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
            link.name.as_bytes() == &name[..end]
        }
        (index, _) => link.index == index,
    });
    found.ok_or(Errno::ENODEV)
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

fn family_of(addr: IpAddr) -> u8 {
    (if addr.is_ipv4() { AF_INET } else { AF_INET6 }) as u8
}

fn link(header: Header, info: &LinkInfo) -> Vec<u8> {
    // struct ifinfomsg: family, pad, type, index, flags, change.
    let mut fixed = alloc::vec![0u8, 0];
    fixed.extend(net::tap::hardware_type(info.loopback).to_ne_bytes());
    fixed.extend(info.index.to_ne_bytes());
    fixed.extend(flags(info).to_ne_bytes());
    fixed.extend([0; 4]);
    let mut message = Message::new(header, &fixed);
    message.text(IFLA_IFNAME, &info.name);
    message.attribute(13, &1000u32.to_ne_bytes()); // IFLA_TXQLEN
    let state: u8 = match (info.loopback, info.up && info.carrier) {
        (true, _) => 0,      // IF_OPER_UNKNOWN
        (false, true) => 6,  // IF_OPER_UP
        (false, false) => 2, // IF_OPER_DOWN
    };
    message.attribute(16, &[state]); // IFLA_OPERSTATE
    message.attribute(17, &[0]); // IFLA_LINKMODE
    message.attribute(4, &info.mtu.to_ne_bytes()); // IFLA_MTU
    message.attribute(27, &0u32.to_ne_bytes()); // IFLA_GROUP
    message.attribute(30, &u32::from(info.promiscuous).to_ne_bytes()); // IFLA_PROMISCUITY
    message.attribute(33, &[u8::from(info.carrier)]); // IFLA_CARRIER
    message.text(6, if info.loopback { "noqueue" } else { "fq_codel" }); // IFLA_QDISC
    message.attribute(1, &info.mac); // IFLA_ADDRESS
    let broadcast: [u8; 6] = if info.loopback { [0; 6] } else { [0xff; 6] };
    message.attribute(2, &broadcast); // IFLA_BROADCAST
    let counters = &info.counters;
    let values = [
        counters.rx_packets,
        counters.tx_packets,
        counters.rx_bytes,
        counters.tx_bytes,
        counters.rx_errors,
        counters.tx_errors,
        counters.rx_dropped,
        counters.tx_dropped,
        counters.multicast,
    ];
    let mut wide = [0u64; 25];
    wide[..values.len()].copy_from_slice(&values);
    let wide_bytes: Vec<u8> = wide.iter().flat_map(|v| v.to_ne_bytes()).collect();
    message.attribute(23, &wide_bytes); // IFLA_STATS64
    let narrow: Vec<u8> = wide[..24]
        .iter()
        .flat_map(|v| (*v as u32).to_ne_bytes())
        .collect();
    message.attribute(7, &narrow); // IFLA_STATS
    message.finish()
}

fn address(header: Header, info: &AddrInfo, links: &[LinkInfo]) -> Vec<u8> {
    let link = links.iter().find(|link| link.index == info.index);
    let loopback = link.is_some_and(|link| link.loopback);
    let is_link_local = match info.addr.addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    // RT_SCOPE_HOST, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE
    let scope = match (loopback, is_link_local) {
        (true, _) => 254,
        (false, true) => 253,
        (false, false) => 0,
    };
    let mut state: u32 = if info.permanent { 0x80 } else { 0 };
    if info.preferred_s == 0 {
        state |= 0x20; // IFA_F_DEPRECATED
    }
    if info.tentative {
        state |= 0x40;
    }
    let mut fixed = alloc::vec![
        family_of(info.addr.addr),
        info.addr.prefix,
        state as u8,
        scope
    ];
    fixed.extend(info.index.to_ne_bytes());
    let mut message = Message::new(header, &fixed);
    let bytes = octets(info.addr.addr);
    message.attribute(1, &bytes); // IFA_ADDRESS
    if info.addr.addr.is_ipv4() {
        message.attribute(2, &bytes); // IFA_LOCAL
        if let Some(broadcast) = info.addr.broadcast().filter(|_| !loopback) {
            message.attribute(4, &broadcast.octets()); // IFA_BROADCAST
        }
        if let Some(link) = link {
            message.text(3, &link.name); // IFA_LABEL
        }
    }
    message.attribute(8, &state.to_ne_bytes()); // IFA_FLAGS
    // struct ifa_cacheinfo: preferred, valid, created, updated.
    let mut cache = [info.preferred_s.to_ne_bytes(), info.valid_s.to_ne_bytes()].concat();
    cache.extend([0; 8]);
    message.attribute(6, &cache); // IFA_CACHEINFO
    message.finish()
}

fn route(header: Header, info: &RouteInfo) -> Vec<u8> {
    const TABLE_MAIN: u8 = 254;
    const UNICAST: u8 = 1;
    let scope = if info.gateway.is_some() { 0 } else { 253 };
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
    let mut fixed = alloc::vec![
        family_of(info.dst.addr),
        info.dst.prefix,
        0,
        0,
        TABLE_MAIN,
        info.protocol,
        scope,
        UNICAST,
    ];
    fixed.extend([0; 4]);
    let mut message = Message::new(header, &fixed);
    message.attribute(15, &u32::from(TABLE_MAIN).to_ne_bytes()); // RTA_TABLE
    if info.dst.prefix > 0 {
        message.attribute(1, &octets(info.dst.addr)); // RTA_DST
    }
    if info.metric > 0 {
        message.attribute(6, &info.metric.to_ne_bytes()); // RTA_PRIORITY
    }
    if let Some(gateway) = info.gateway {
        message.attribute(5, &octets(gateway)); // RTA_GATEWAY
    }
    if let Some(source) = info.source {
        message.attribute(7, &octets(source)); // RTA_PREFSRC
    }
    message.attribute(4, &info.index.to_ne_bytes()); // RTA_OIF
    message.finish()
}

fn neighbour(header: Header, info: &NeighbourInfo) -> Vec<u8> {
    // struct ndmsg: family, pad, index, state, flags, type.
    let mut fixed = alloc::vec![family_of(info.addr), 0, 0, 0];
    fixed.extend(info.index.to_ne_bytes());
    fixed.extend((info.state as u16).to_ne_bytes());
    fixed.extend([0, 1]);
    let mut message = Message::new(header, &fixed);
    message.attribute(1, &octets(info.addr)); // NDA_DST
    if let Some(mac) = info.mac {
        message.attribute(2, &mac); // NDA_LLADDR
    }
    message.finish()
}

/// The message that tells of a change, and the group it is for.
pub fn news(change: &Change) -> Option<(Vec<u8>, u32)> {
    let header = |kind| Header {
        kind,
        flags: 0,
        seq: 0,
        port: 0,
    };
    let pick = |here: bool, new, gone| header(if here { new } else { gone });
    Some(match change {
        Change::Link(info) => (link(pick(true, RTM_NEWLINK, RTM_DELLINK), info), GROUP_LINK),
        Change::Addr(info, here) => {
            let links = crate::socket::stack()
                .map(|s| s.links())
                .unwrap_or_default();
            let group = if info.addr.addr.is_ipv4() {
                GROUP_IPV4_IFADDR
            } else {
                GROUP_IPV6_IFADDR
            };
            (
                address(pick(*here, RTM_NEWADDR, RTM_DELADDR), info, &links),
                group,
            )
        }
        Change::Route(info, here) => {
            let group = if info.dst.addr.is_ipv4() {
                GROUP_IPV4_ROUTE
            } else {
                GROUP_IPV6_ROUTE
            };
            (route(pick(*here, RTM_NEWROUTE, RTM_DELROUTE), info), group)
        }
        Change::Neighbour(info, here) => (
            neighbour(pick(*here, RTM_NEWNEIGH, RTM_DELNEIGH), info),
            GROUP_NEIGH,
        ),
        Change::Lease(_) => return None,
    })
}
