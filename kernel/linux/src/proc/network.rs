//! `/proc/net`: sockets, interfaces, routes, counters, from what the `net` room tells.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use fs::pseudo::Dir;
use net::query::{NeighbourState, SocketInfo};

use crate::process::Process;
use crate::socket::{self, file::SocketFile, inet::InetSocket, unix};

/// Fills `/proc/self/net`.
pub fn add(process: &'static Process, dir: &Arc<Dir>) {
    dir.text("tcp", move || sockets(process, Table::Tcp, false))
        .text("tcp6", move || sockets(process, Table::Tcp, true))
        .text("udp", move || sockets(process, Table::Udp, false))
        .text("udp6", move || sockets(process, Table::Udp, true))
        .text("unix", unix_sockets)
        .text("dev", dev)
        .text("route", route)
        .text("ipv6_route", ipv6_route)
        .text("if_inet6", if_inet6)
        .text("arp", arp)
        .text("snmp", || counters(&["Ip", "Icmp", "Tcp", "Udp"]))
        .text("netstat", || counters(&["TcpExt", "IpExt"]))
        .text("sockstat", sockstat)
        .text("packet", || {
            "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n".into()
        });
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Tcp,
    Udp,
}

/// `0100007F:1F90`: the address as Linux prints its words, the port in hexadecimal.
fn endpoint(addr: SocketAddr) -> String {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => format!("{:08X}", u32::from_ne_bytes(ip.octets())),
        IpAddr::V6(ip) => {
            let mut text = String::new();
            for word in ip.octets().chunks_exact(4) {
                text += &format!(
                    "{:08X}",
                    u32::from_ne_bytes([word[0], word[1], word[2], word[3]])
                );
            }
            text
        }
    };
    format!("{ip}:{:04X}", addr.port())
}

/// The inode numbers of the program's own sockets by their local and remote ends.
fn inodes(process: &Process) -> BTreeMap<(SocketAddr, Option<SocketAddr>), u64> {
    let mut found = BTreeMap::new();
    for (_, file) in process.files.all() {
        let Some(socket) = file.file().as_any().downcast_ref::<SocketFile>() else {
            continue;
        };
        let Some(inet) = socket.ops().as_any().downcast_ref::<InetSocket>() else {
            continue;
        };
        if let Ok(local) = inet.socket().local_addr() {
            found.insert((local, inet.socket().peer_addr().ok()), socket.ino());
        }
    }
    found
}

fn sockets(process: &Process, table: Table, ipv6: bool) -> String {
    let width = if ipv6 { 38 } else { 13 };
    let mut text = match (table, ipv6) {
        (Table::Tcp, false) => String::from(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n",
        ),
        (Table::Tcp, true) | (Table::Udp, true) => format!(
            "  sl  {:<width$} {:<width$} st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode{}\n",
            "local_address",
            "remote_address",
            if table == Table::Udp {
                " ref pointer drops"
            } else {
                ""
            },
        ),
        (Table::Udp, false) => String::from(
            "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n",
        ),
    };
    let Ok(stack) = socket::stack() else {
        return text;
    };
    let rows = match table {
        Table::Tcp => stack.tcp_sockets(),
        Table::Udp => stack.udp_sockets(),
    };
    let inodes = inodes(process);
    for (n, row) in rows.iter().filter(|row| row.ipv6 == ipv6).enumerate() {
        text += &socket_row(n, row, &inodes, table);
    }
    text
}

fn socket_row(
    n: usize,
    row: &SocketInfo,
    inodes: &BTreeMap<(SocketAddr, Option<SocketAddr>), u64>,
    table: Table,
) -> String {
    let connected = row.remote.port() != 0;
    let key = (row.local, connected.then_some(row.remote));
    let inode = inodes.get(&key).copied().unwrap_or(0);
    let head = format!(
        "{n:4}: {} {} {:02X} {:08X}:{:08X} 00:00000000 {:08X}     0        0 {inode}",
        endpoint(row.local),
        endpoint(row.remote),
        row.state,
        row.send_queue,
        row.recv_queue,
        row.retransmits,
    );
    match table {
        Table::Tcp => {
            let line = format!("{head} 1 0000000000000000 100 0 0 10 0");
            format!("{line:<149}\n")
        }
        Table::Udp => format!(" {head} 2 0000000000000000 {}\n", row.drops),
    }
}

fn unix_sockets() -> String {
    let mut text = String::from("Num       RefCount Protocol Flags    Type St Inode Path\n");
    for (n, row) in unix::names::all().iter().enumerate() {
        text += &format!(
            "{n:016x}: 00000002 00000000 {:08X} {:04X} {:02X} {:5} {}\n",
            if row.listening { 0x10000 } else { 0 },
            row.kind,
            1,
            n + 1,
            row.name,
        );
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
        text += &format!(
            "{:032x} {:02x} {:02x} {scope:02x} 80 {:>8}\n",
            addr.to_bits(),
            info.index,
            info.addr.prefix,
            name_of(stack, info.index),
        );
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

/// Two lines for each group, names and values, as `/proc/net/snmp` has them.
fn counters(groups: &[&str]) -> String {
    let mut text = String::new();
    let Ok(stack) = socket::stack() else {
        return text;
    };
    for wanted in groups {
        let (mut names, mut values) = (format!("{wanted}:"), format!("{wanted}:"));
        stack.counters().for_each(|group, name, value| {
            if group == *wanted {
                names += &format!(" {name}");
                values += &format!(" {value}");
            }
        });
        text += &format!("{names}\n{values}\n");
    }
    text
}

fn sockstat() -> String {
    let (tcp, udp) = match socket::stack() {
        Ok(stack) => (stack.tcp_sockets(), stack.udp_sockets()),
        Err(_) => (Vec::new(), Vec::new()),
    };
    // TIME_WAIT
    let waiting = tcp.iter().filter(|row| row.state == 6).count();
    format!(
        "sockets: used {}\nTCP: inuse {} orphan 0 tw {waiting} alloc {} mem 0\nUDP: inuse {} mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n",
        tcp.len() + udp.len(),
        tcp.len() - waiting,
        tcp.len(),
        udp.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn addresses_read_as_in_linux() {
        assert_eq!(endpoint("127.0.0.1:8080".parse().unwrap()), "0100007F:1F90");
        assert_eq!(
            endpoint("[::1]:80".parse().unwrap()),
            "00000000000000000000000001000000:0050"
        );
    }
}
