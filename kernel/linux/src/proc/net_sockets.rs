//! The tables of sockets in `/proc/net`, in Linux's columns: `tcp`, `udp`, `raw`, `icmp` and their siblings for IPv6,
//! `unix`, `packet`, `netlink`; and what sums them up: `sockstat`, `sockstat6`, `protocols`.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use net::query::SocketInfo;

use crate::socket::addr::{AF_NETLINK, AF_PACKET, AF_UNIX, Address, UnixAddr};
use crate::socket::inventory::{self, Key, Own};
use crate::socket::netlink::NetlinkSocket;
use crate::socket::ops::Kind;
use crate::socket::{self, packet::PacketSocket};

/// A table of Internet sockets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `tcp`, `tcp6`.
    Tcp,
    /// `udp`, `udp6`.
    Udp,
    /// `raw`, `raw6`.
    Raw,
    /// `icmp`, `icmp6`.
    Icmp,
}

/// An end as the family of the socket shows it.
fn shown(addr: SocketAddr, ipv6: bool) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ipv6 => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        ip => SocketAddr::new(ip, addr.port()),
    }
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

fn rows(table: Table) -> Vec<SocketInfo> {
    match (socket::stack(), table) {
        (Err(_), _) => Vec::new(),
        (Ok(stack), Table::Tcp) => stack.tcp_sockets(),
        (Ok(stack), Table::Udp) => stack.udp_sockets(),
        (Ok(stack), Table::Raw) => stack.raw_sockets(),
        (Ok(stack), Table::Icmp) => stack.ping_sockets(),
    }
}

/// The inode of a row's socket, 0 if the program has no descriptor of it.
fn inode(own: &BTreeMap<Key, Own>, table: Table, row: &SocketInfo) -> u64 {
    let (local, remote) = (shown(row.local, row.ipv6), shown(row.remote, row.ipv6));
    let (kind, protocol) = match table {
        Table::Tcp => (Kind::Stream, 6),
        Table::Udp => (Kind::Dgram, 17),
        Table::Raw => (Kind::Raw, i32::from(row.local.port())),
        Table::Icmp => (Kind::Dgram, if row.ipv6 { 58 } else { 1 }),
    };
    // Over IPv6, `getsockname(2)` tells no protocol of a raw socket.
    let local = match table {
        Table::Raw if row.ipv6 => SocketAddr::new(local.ip(), 0),
        _ => local,
    };
    let key = (
        kind as i32,
        protocol,
        local,
        (remote.port() != 0).then_some(remote),
    );
    own.get(&key).map_or(0, |own| own.ino)
}

/// A table of Internet sockets of one family.
pub fn inet(table: Table, ipv6: bool) -> String {
    const COLUMNS: &str = "st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
    let counted = table != Table::Tcp;
    let tail = if counted { " ref pointer drops" } else { "" };
    let head = if ipv6 {
        let (local, remote) = ("local_address", "remote_address");
        format!("  sl  {local:<38}{remote:<38}{COLUMNS}{tail}")
    } else {
        let sl = if table == Table::Udp { "   sl" } else { "  sl" };
        format!("{sl}  local_address rem_address   {COLUMNS}{tail}")
    };
    // Linux pads the lines of some tables, so that they can be read at an offset.
    let width = match (table, ipv6) {
        (Table::Tcp, false) => 149,
        (Table::Udp | Table::Icmp, false) => 127,
        _ => 0,
    };
    let mut text = format!("{head:<width$}\n");
    let own = inventory::inet();
    for (n, row) in rows(table)
        .iter()
        .filter(|row| row.ipv6 == ipv6)
        .enumerate()
    {
        let start = match table {
            Table::Udp | Table::Icmp => format!("{n:5}"),
            Table::Tcp | Table::Raw => format!("{n:4}"),
        };
        let end = match table {
            Table::Tcp => String::from(" 1 0000000000000000 100 0 0 10 0"),
            _ => format!(" 2 0000000000000000 {}", row.drops),
        };
        let line = format!(
            "{start}: {} {} {:02X} {:08X}:{:08X} 00:00000000 {:08X}     0        0 {}{end}",
            endpoint(shown(row.local, ipv6)),
            endpoint(shown(row.remote, ipv6)),
            row.state,
            row.send_queue,
            row.recv_queue,
            row.retransmits,
            inode(&own, table, row),
        );
        text += &format!("{line:<width$}\n");
    }
    text
}

/// `unix`: those the program has descriptors of.
pub fn unix() -> String {
    let mut text = String::from("Num       RefCount Protocol Flags    Type St Inode Path\n");
    for own in inventory::all() {
        if own.ops.family() != AF_UNIX {
            continue;
        }
        let listening = own.ops.is_listening();
        // SS_UNCONNECTED, SS_CONNECTED.
        let state = if own.ops.peer_addr().is_ok() { 3 } else { 1 };
        let name = match own.ops.local_addr() {
            Ok(Address::Unix(UnixAddr::Path(path))) => {
                format!(" {}", String::from_utf8_lossy(&path))
            }
            Ok(Address::Unix(UnixAddr::Abstract(name))) => {
                let name: Vec<u8> = name
                    .iter()
                    .map(|b| if *b == 0 { b'@' } else { *b })
                    .collect();
                format!(" @{}", String::from_utf8_lossy(&name))
            }
            _ => String::new(),
        };
        text += &format!(
            "{:016x}: {:08X} 00000000 {:08X} {:04X} {state:02X} {:5}{name}\n",
            0,
            if state == 3 { 3 } else { 2 },
            // SO_ACCEPTCON
            if listening { 0x10000 } else { 0 },
            own.ops.kind() as i32,
            own.ino,
        );
    }
    text
}

/// `packet`.
pub fn packet() -> String {
    let mut text = format!(
        "{:<16} RefCnt Type Proto  Iface R Rmem   User   Inode\n",
        "sk"
    );
    for own in inventory::all() {
        if let Some(socket) = own.ops.as_any().downcast_ref::<PacketSocket>() {
            let row = socket.row();
            text += &format!(
                "{:016x} {:<6} {:<4} {:04x}   {:<5} 1 {:<6} {:<6} {:<6}\n",
                0, 3, row.kind, row.protocol, row.index, row.queued, 0, own.ino,
            );
        }
    }
    text
}

/// `netlink`.
pub fn netlink() -> String {
    let mut text = format!(
        "{:<16} Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n",
        "sk"
    );
    for own in inventory::all() {
        if let Some(socket) = own.ops.as_any().downcast_ref::<NetlinkSocket>() {
            let (port, groups) = socket.name();
            text += &format!(
                "{:016x} {:<3} {port:<10} {groups:08x} {:<8} {:<8} {:<5} {:<8} {:<8} {:<8}\n",
                0,
                own.ops.protocol(),
                own.ops.input_queued().unwrap_or(0),
                0,
                0,
                2,
                0,
                own.ino,
            );
        }
    }
    text
}

/// Pages that hold `bytes`.
fn pages(bytes: usize) -> usize {
    bytes.div_ceil(4096)
}

struct Sums {
    tcp: [usize; 2],
    waiting: usize,
    orphans: usize,
    udp: [usize; 2],
    raw: [usize; 2],
    tcp_pages: usize,
    udp_pages: usize,
}

fn sums() -> Sums {
    let tcp = rows(Table::Tcp);
    let udp = rows(Table::Udp);
    let own = inventory::inet();
    let of = |rows: &[SocketInfo], ipv6: bool| {
        rows.iter()
            .filter(|row| row.ipv6 == ipv6 && row.state != 6)
            .count()
    };
    let both = |rows: &[SocketInfo]| [of(rows, false), of(rows, true)];
    // What has no descriptor any more, or not yet is not an orphan: TIME_WAIT, SYN_RECV.
    let orphan = |row: &&SocketInfo| {
        !matches!(row.state, 3 | 6) && inode(&own, Table::Tcp, row) == 0 && row.state != 1
    };
    let held = udp.iter().map(|row| row.recv_queue).sum::<usize>();
    let all = socket::stack().map_or(0, |stack| stack.memory());
    Sums {
        waiting: tcp.iter().filter(|row| row.state == 6).count(),
        orphans: tcp.iter().filter(orphan).count(),
        tcp: both(&tcp),
        udp: both(&udp),
        raw: both(&rows(Table::Raw)),
        tcp_pages: pages(all.saturating_sub(held)),
        udp_pages: pages(held),
    }
}

/// `sockstat`.
pub fn sockstat() -> String {
    let sums = sums();
    let (fragments, memory) = socket::stack().map_or((0, 0), |stack| stack.fragments_held());
    format!(
        "sockets: used {}\nTCP: inuse {} orphan {} tw {} alloc {} mem {}\nUDP: inuse {} mem {}\nUDPLITE: inuse 0\nRAW: inuse {}\nFRAG: inuse {fragments} memory {memory}\n",
        inventory::all().len(),
        sums.tcp[0],
        sums.orphans,
        sums.waiting,
        sums.tcp[0] + sums.tcp[1],
        sums.tcp_pages,
        sums.udp[0],
        sums.udp_pages,
        sums.raw[0],
    )
}

/// `sockstat6`.
pub fn sockstat6() -> String {
    let sums = sums();
    format!(
        "TCP6: inuse {}\nUDP6: inuse {}\nUDPLITE6: inuse 0\nRAW6: inuse {}\nFRAG6: inuse 0 memory 0\n",
        sums.tcp[1], sums.udp[1], sums.raw[1]
    )
}

/// `protocols`: of each its sockets and memory; the last columns say which calls it has, as on Linux.
pub fn protocols() -> String {
    let mut text = String::from(
        "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re bi br ha uh gp em\n",
    );
    let sums = sums();
    let ping = rows(Table::Icmp);
    let pings = |ipv6| ping.iter().filter(|row| row.ipv6 == ipv6).count();
    let own = inventory::all();
    let family = |family: u16| own.iter().filter(|own| own.ops.family() == family).count();
    let (tcp, udp, raw) = (
        size_of::<net::TcpSocket>(),
        size_of::<net::UdpSocket>(),
        size_of::<net::RawSocket>(),
    );
    let pressed = "no";
    let [tcp_pages, udp_pages] = [sums.tcp_pages, sums.udp_pages].map(|pages| pages as i64);
    let none = "y  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n";
    let nothing = "n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n";
    let all = [
        (
            "PACKET",
            size_of::<PacketSocket>(),
            family(AF_PACKET),
            -1,
            "NI",
            0,
            nothing,
        ),
        (
            "PINGv6",
            raw,
            pings(true),
            -1,
            "NI",
            0,
            "y  y  y  n  n  y  n  n  y  y  y  y  y  y  n  y  y  n  n",
        ),
        (
            "RAWv6",
            raw,
            sums.raw[1],
            -1,
            "NI",
            0,
            "y  y  y  n  y  y  y  n  y  y  y  y  y  y  y  y  n  n  n",
        ),
        (
            "UDPv6",
            udp,
            sums.udp[1],
            udp_pages,
            "NI",
            0,
            "y  y  y  n  y  y  y  n  y  y  y  y  n  n  y  y  y  n  n",
        ),
        (
            "TCPv6",
            tcp,
            sums.tcp[1],
            tcp_pages,
            pressed,
            192,
            "y  y  y  y  y  y  y  y  y  y  y  y  n  y  y  y  y  y  n",
        ),
        (
            "UNIX",
            size_of::<socket::unix::UnixSocket>(),
            family(AF_UNIX),
            -1,
            "NI",
            0,
            none,
        ),
        (
            "PING",
            raw,
            pings(false),
            -1,
            "NI",
            0,
            "y  y  y  n  n  y  n  n  y  y  y  y  y  y  n  y  y  n  n",
        ),
        (
            "RAW",
            raw,
            sums.raw[0],
            -1,
            "NI",
            0,
            "y  y  y  n  y  y  y  n  y  y  y  y  y  y  y  y  n  n  n",
        ),
        (
            "UDP",
            udp,
            sums.udp[0],
            udp_pages,
            "NI",
            0,
            "y  y  y  n  y  y  y  n  y  y  y  y  n  n  y  y  y  n  n",
        ),
        (
            "TCP",
            tcp,
            sums.tcp[0],
            tcp_pages,
            pressed,
            192,
            "y  y  y  y  y  y  y  y  y  y  y  y  n  y  y  y  y  y  n",
        ),
        (
            "NETLINK",
            size_of::<NetlinkSocket>(),
            family(AF_NETLINK),
            -1,
            "NI",
            0,
            nothing,
        ),
    ];
    for (name, size, count, memory, press, header, calls) in all {
        // Eighteen columns of calls.
        let calls = &calls[..52];
        text += &format!(
            "{name:<9} {size:4} {count:6}  {memory:6}   {press:<3} {header:6}   {:<3}  {:<10} {calls}\n",
            "no", "kernel",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_in_linux() {
        assert_eq!(endpoint("127.0.0.1:8080".parse().unwrap()), "0100007F:1F90");
        assert_eq!(
            endpoint("[::1]:80".parse().unwrap()),
            "00000000000000000000000001000000:0050"
        );
        let mapped = shown("10.0.0.1:80".parse().unwrap(), true);
        assert_eq!(endpoint(mapped), "0000000000000000FFFF00000100000A:0050");
    }

    #[test]
    fn heads_are_linux_own() {
        assert_eq!(inet(Table::Tcp, false).len(), 150);
        assert_eq!(inet(Table::Udp, false).len(), 128);
        assert_eq!(
            inet(Table::Raw, true),
            "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
        );
    }
}
