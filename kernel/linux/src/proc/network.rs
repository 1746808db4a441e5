//! `/proc/net`: interfaces, their groups, routes and neighbours, from what the `net` room tells. Sockets are in
//! `net_sockets`, counters in `net_counters`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fs::pseudo::Dir;
use net::query::{GroupInfo, NeighbourState};

use super::net_counters as counters;
use super::net_sockets::{self as sockets, Table};
use crate::process::Process;
use crate::socket;

/// Fills `/proc/self/net`.
pub fn add(_process: &'static Process, dir: &Arc<Dir>) {
    dir.text("tcp", || sockets::inet(Table::Tcp, false))
        .text("tcp6", || sockets::inet(Table::Tcp, true))
        .text("udp", || sockets::inet(Table::Udp, false))
        .text("udp6", || sockets::inet(Table::Udp, true))
        .text("raw", || sockets::inet(Table::Raw, false))
        .text("raw6", || sockets::inet(Table::Raw, true))
        .text("icmp", || sockets::inet(Table::Icmp, false))
        .text("icmp6", || sockets::inet(Table::Icmp, true))
        .text("unix", sockets::unix)
        .text("packet", sockets::packet)
        .text("netlink", sockets::netlink)
        .text("protocols", sockets::protocols)
        .text("sockstat", sockets::sockstat)
        .text("sockstat6", sockets::sockstat6)
        .text("snmp", counters::snmp)
        .text("snmp6", counters::snmp6)
        .text("netstat", counters::netstat)
        .text("dev", dev)
        .text("dev_mcast", dev_mcast)
        .text("igmp", igmp)
        .text("igmp6", igmp6)
        .text("route", route)
        .text("ipv6_route", ipv6_route)
        .text("if_inet6", if_inet6)
        .text("arp", arp)
        .text("pnp", pnp);
}

/// The groups an interface listens to, in the order they are told, those that every one is in first.
fn groups(index: u32, ipv6: bool) -> Vec<GroupInfo> {
    let always: &[IpAddr] = if ipv6 {
        &[ALL_NODES, ALL_NODES_HERE]
    } else {
        &[ALL_HOSTS]
    };
    let mut all: Vec<GroupInfo> = match socket::stack() {
        Ok(stack) => stack.groups(),
        Err(_) => Vec::new(),
    };
    all.retain(|g| g.index == index && g.group.is_ipv6() == ipv6 && !always.contains(&g.group));
    for group in always {
        all.push(GroupInfo {
            index,
            group: *group,
            users: 1,
            exclude: true,
            sources: Vec::new(),
            reporter: false,
        });
    }
    all
}

const ALL_HOSTS: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1));
const ALL_NODES: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
const ALL_NODES_HERE: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1));

/// `igmp`: the groups of IPv4.
fn igmp() -> String {
    let mut text = String::from("Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n");
    let Ok(stack) = socket::stack() else {
        return text;
    };
    for link in stack.links() {
        let groups = groups(link.index, false);
        let version = stack.igmp_version(link.index);
        text += &format!(
            "{}\t{:<10}: {:5}      V{version}\n",
            link.index,
            link.name,
            groups.len()
        );
        for group in groups {
            let IpAddr::V4(addr) = group.group else {
                continue;
            };
            let word = u32::from_ne_bytes(addr.octets());
            let reporter = u8::from(group.reporter);
            text += &format!(
                "\t\t\t\t{word:08X} {:5} 0:00000000\t\t{reporter}\n",
                group.users
            );
        }
    }
    text
}

/// `igmp6`: the groups of IPv6.
fn igmp6() -> String {
    let mut text = String::new();
    let Ok(stack) = socket::stack() else {
        return text;
    };
    for link in stack.links() {
        for group in groups(link.index, true) {
            if let IpAddr::V6(addr) = group.group {
                // MAF_LOADED, and whether the link is told nothing of it (MAF_NOREPORT).
                let flags = if matches!(group.group, ALL_NODES | ALL_NODES_HERE) {
                    0xc
                } else {
                    0x4
                };
                text += &format!(
                    "{:<4} {:<15} {:032x} {:5} {flags:08X} 0\n",
                    link.index,
                    link.name,
                    addr.to_bits(),
                    group.users,
                );
            }
        }
    }
    text
}

/// `dev_mcast`: the hardware addresses of groups that a card is to let through.
fn dev_mcast() -> String {
    let mut text = String::new();
    let Ok(stack) = socket::stack() else {
        return text;
    };
    for link in stack.links().iter().filter(|link| !link.loopback) {
        for group in groups(link.index, true)
            .iter()
            .chain(&groups(link.index, false))
        {
            if group.group == ALL_NODES_HERE {
                continue;
            }
            let mac: String = net::query::group_mac(group.group)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            text += &format!(
                "{:<4} {:<15} {:<5} {:<5} {mac}\n",
                link.index, link.name, group.users, 0
            );
        }
    }
    text
}

fn dev() -> String {
    let mut text = String::from(
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    let Ok(stack) = socket::stack() else {
        return text;
    };
    for link in stack.links() {
        let c = link.counters;
        text += &format!(
            "{:>6}: {:7} {:7} {:4} {:4} {:4} {:5} {:10} {:9} {:8} {:7} {:4} {:4} {:4} {:5} {:7} {:10}\n",
            link.name,
            c.rx_bytes,
            c.rx_packets,
            c.rx_errors,
            c.rx_dropped,
            0,
            0,
            0,
            c.multicast,
            c.tx_bytes,
            c.tx_packets,
            c.tx_errors,
            c.tx_dropped,
            0,
            0,
            0,
            0,
        );
    }
    text
}

fn name_of(stack: &net::Stack, index: u32) -> String {
    stack
        .links()
        .into_iter()
        .find(|link| link.index == index)
        .map_or_else(|| String::from("*"), |link| link.name)
}

fn route() -> String {
    let mut text = format!(
        "{:<127}\n",
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
    );
    let Ok(stack) = socket::stack() else {
        return text;
    };
    for route in stack.routes() {
        let (IpAddr::V4(dst), Some(mask)) = (route.dst.addr, route.dst.netmask()) else {
            continue;
        };
        let gateway = match route.gateway {
            Some(IpAddr::V4(gateway)) => u32::from_ne_bytes(gateway.octets()),
            _ => 0,
        };
        // RTF_UP, RTF_GATEWAY, RTF_HOST.
        let mut flags = 1;
        if gateway != 0 {
            flags |= 2;
        }
        if route.dst.prefix == 32 {
            flags |= 4;
        }
        let line = format!(
            "{}\t{:08X}\t{gateway:08X}\t{flags:04X}\t0\t0\t{}\t{:08X}\t0\t0\t0",
            name_of(stack, route.index),
            u32::from_ne_bytes(dst.octets()),
            route.metric,
            u32::from_ne_bytes(mask.octets()),
        );
        text += &format!("{line:<127}\n");
    }
    text
}

fn ipv6_route() -> String {
    let mut text = String::new();
    let Ok(stack) = socket::stack() else {
        return text;
    };
    for route in stack.routes() {
        let IpAddr::V6(dst) = route.dst.addr else {
            continue;
        };
        let gateway = match route.gateway {
            Some(IpAddr::V6(gateway)) => gateway.to_bits(),
            _ => 0,
        };
        // RTF_UP, RTF_GATEWAY.
        let flags = if gateway == 0 { 1 } else { 3 };
        text += &format!(
            "{:032x} {:02x} {:032x} 00 {gateway:032x} {:08x} 00000001 00000000 {flags:08x} {:>8}\n",
            dst.to_bits(),
            route.dst.prefix,
            0,
            route.metric,
            name_of(stack, route.index),
        );
    }
    text
}

fn if_inet6() -> String {
    let mut text = String::new();
    let Ok(stack) = socket::stack() else {
        return text;
    };
    for info in stack.addresses() {
        let IpAddr::V6(addr) = info.addr.addr else {
            continue;
        };
        let scope = if addr.is_loopback() {
            0x10
        } else if addr.is_unicast_link_local() {
            0x20
        } else {
            0
        };
        // IFA_F_PERMANENT, IFA_F_TENTATIVE, IFA_F_DEPRECATED.
        let flags = u8::from(info.permanent) << 7
            | u8::from(info.tentative) << 6
            | u8::from(info.preferred_s == 0) << 5;
        text += &format!(
            "{:032x} {:02x} {:02x} {scope:02x} {flags:02x} {:>8}\n",
            addr.to_bits(),
            info.index,
            info.addr.prefix,
            name_of(stack, info.index),
        );
    }
    text
}

/// `pnp`: what automatic configuration learned, in the form of `resolv.conf(5)`, so that `/etc/resolv.conf` may be a link
/// to it.
fn pnp() -> String {
    let leases = match socket::stack() {
        Ok(stack) => stack.leases(),
        Err(_) => Vec::new(),
    };
    if leases.is_empty() {
        return String::from("#MANUAL\n");
    }
    let mut text = String::from("#PROTO: DHCP\n");
    if let Some(domain) = leases.iter().find_map(|lease| lease.domain.as_ref()) {
        text += &format!("domain {domain}\n");
    }
    let search: Vec<String> = leases
        .iter()
        .flat_map(|lease| lease.search.clone())
        .collect();
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    for server in leases.iter().flat_map(|lease| &lease.dns) {
        text += &format!("nameserver {server}\n");
    }
    text
}

fn arp() -> String {
    let mut text = String::from(
        "IP address       HW type     Flags       HW address            Mask     Device\n",
    );
    let Ok(stack) = socket::stack() else {
        return text;
    };
    for entry in stack.neighbours() {
        if !entry.addr.is_ipv4() {
            continue;
        }
        let mac = entry.mac.unwrap_or_default();
        let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let flags = match (entry.mac, entry.state) {
            (None, _) => 0,
            (Some(_), NeighbourState::Permanent) => 6,
            _ => 2,
        };
        text += &format!(
            "{:<16} 0x{:<10x}0x{flags:<10x}{}     *        {}\n",
            format!("{}", entry.addr),
            1,
            mac.join(":"),
            name_of(stack, entry.index),
        );
    }
    text
}
