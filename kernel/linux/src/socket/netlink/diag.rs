//! `NETLINK_SOCK_DIAG` (`sock_diag(7)`): the sockets there are, by family, as `ss` asks for them. Filters in the
//! request's byte code are not run: `ss` filters what it gets once more.

use alloc::vec::Vec;
use core::net::IpAddr;

use errno::{Errno, Result};
use net::query::SocketInfo;

use super::message::{self, ACK, DUMP, Header, MULTI, Message};
use super::{NetlinkSocket, dump};
use crate::socket::addr::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, Address, UnixAddr};
use crate::socket::inventory::{self, Own};
use crate::socket::ops::SocketOps;
use crate::socket::option::{SO_RCVBUF, SO_SNDBUF, SOL_SOCKET, parse_int};
use crate::socket::packet;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
const SOL_TCP: i32 = 6;
const TCP_INFO: i32 = 11;
const TCP_CONGESTION: i32 = 13;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const RAW: u8 = 255;

/// All datagrams that answer the requests in `bytes`.
pub fn answer(mut bytes: &[u8], port: u32) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    while let Some((mut header, payload, raw)) = message::split(&mut bytes) {
        header.port = port;
        if header.kind < 16 || header.flags & 1 == 0 {
            continue;
        }
        match one(header, payload) {
            Ok((messages, ended)) => {
                answers.extend(dump::chunks(header, messages, ended));
                if header.flags & ACK != 0 {
                    answers.push(message::acknowledgement(header, raw, Ok(())));
                }
            }
            Err(error) => answers.push(message::acknowledgement(header, raw, Err(error))),
        }
    }
    answers
}

/// What a dump brings, and how it ends.
type Dump = (Vec<Vec<u8>>, Result<()>);

fn one(header: Header, payload: &[u8]) -> Result<Dump> {
    match header.kind {
        BY_FAMILY => {}
        // The older form of the request (TCPDIAG_GETSOCK, DCCPDIAG_GETSOCK): `ss` asks so for what it was just told is not here.
        18 | 19 => return Err(Errno::ENOENT),
        _ => return Err(Errno::EINVAL),
    }
    if header.flags & DUMP != DUMP {
        return Err(Errno::EOPNOTSUPP);
    }
    let family = *payload.first().ok_or(Errno::EINVAL)?;
    let reply = Header {
        kind: BY_FAMILY,
        flags: MULTI,
        ..header
    };
    let found = match u16::from(family) {
        // A protocol that is not there ends the dump; a family that is not there ends the request.
        AF_INET | AF_INET6 => match inet(reply, payload) {
            Err(Errno::ENOENT) => return Ok((Vec::new(), Err(Errno::ENOENT))),
            found => found?,
        },
        AF_UNIX => unix(reply, payload)?,
        AF_PACKET => packets(reply),
        AF_NETLINK => netlinks(reply),
        _ => return Err(Errno::ENOENT),
    };
    Ok((found, Ok(())))
}

/// A socket's attributes, if the program has it.
fn option(own: Option<&Own>, level: i32, name: i32, len: usize) -> Option<Vec<u8>> {
    own?.ops
        .option(level, name, len)
        .ok()
        .filter(|value| !value.is_empty())
}

fn inet(reply: Header, payload: &[u8]) -> Result<Vec<Vec<u8>>> {
    let [family, protocol, ext, _, s0, s1, s2, s3, ..] = *payload else {
        return Err(Errno::EINVAL);
    };
    let states = u32::from_ne_bytes([s0, s1, s2, s3]);
    let stack = crate::socket::stack()?;
    let (rows, kind) = match protocol {
        TCP => (stack.tcp_sockets(), 1),
        UDP => (stack.udp_sockets(), 2),
        ICMP | ICMP6 => (stack.ping_sockets(), 2),
        RAW => (stack.raw_sockets(), 3),
        _ => return Err(Errno::ENOENT),
    };
    let own = inventory::inet();
    let wanted = |row: &&SocketInfo| {
        row.ipv6 == (u16::from(family) == AF_INET6) && states >> row.state & 1 != 0
    };
    let mut messages = Vec::new();
    for row in rows.iter().filter(wanted) {
        let protocol = match protocol {
            RAW => row.local.port() as u8,
            protocol => protocol,
        };
        let remote = (row.remote.port() != 0).then_some(row.remote);
        let own = own.get(&(kind, i32::from(protocol), row.local, remote));
        messages.push(inet_socket(reply, family, ext, protocol == TCP, row, own));
    }
    Ok(messages)
}

fn inet_socket(
    reply: Header,
    family: u8,
    ext: u8,
    tcp: bool,
    row: &SocketInfo,
    own: Option<&Own>,
) -> Vec<u8> {
    // struct inet_diag_msg.
    let mut fixed = alloc::vec![family, row.state, 0, row.retransmits.min(255) as u8];
    for end in [row.local, row.remote] {
        fixed.extend(end.port().to_be_bytes());
    }
    for end in [row.local, row.remote] {
        let mut octets = match end.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        octets.resize(16, 0);
        fixed.extend(octets);
    }
    let ino = own.map_or(0, |own| own.ino);
    // Interface, cookie, expiry.
    fixed.extend([0; 4]);
    fixed.extend(ino.to_ne_bytes());
    fixed.extend([0; 4]);
    fixed.extend((row.recv_queue as u32).to_ne_bytes());
    fixed.extend((row.send_queue as u32).to_ne_bytes());
    fixed.extend([0; 4]);
    fixed.extend((ino as u32).to_ne_bytes());
    let mut message = Message::new(reply, &fixed);
    let asks = |kind: u16| ext >> (kind - 1) & 1 != 0;
    let listens = row.state == 10;
    let (received, sent) = if listens {
        (0, 0)
    } else {
        (row.recv_queue, row.send_queue)
    };
    if asks(1) {
        // INET_DIAG_MEMINFO
        let memory = [received as u32, sent as u32, 0, 0];
        message.attribute(1, &memory.map(u32::to_ne_bytes).concat());
    }
    if asks(7) {
        // INET_DIAG_SKMEMINFO
        let buffer = |name| {
            let value = option(own, SOL_SOCKET, name, 4);
            value.and_then(|value| parse_int(&value).ok()).unwrap_or(0) as u32
        };
        let memory = [
            received as u32,
            buffer(SO_RCVBUF),
            sent as u32,
            buffer(SO_SNDBUF),
            0,
            0,
            0,
            0,
            row.drops as u32,
        ];
        message.attribute(7, &memory.map(u32::to_ne_bytes).concat());
    }
    if tcp
        && asks(2)
        && let Some(info) = option(own, SOL_TCP, TCP_INFO, 512)
    {
        message.attribute(2, &info);
    }
    if tcp
        && asks(4)
        && let Some(name) = option(own, SOL_TCP, TCP_CONGESTION, 16)
    {
        message.attribute(4, &name);
    }
    message.finish()
}

/// Linux's state numbers, which UNIX sockets share.
fn state(ops: &dyn SocketOps) -> u8 {
    if ops.is_listening() {
        10
    } else if ops.peer_addr().is_ok() {
        1
    } else {
        7
    }
}

fn unix(reply: Header, payload: &[u8]) -> Result<Vec<Vec<u8>>> {
    let states = payload.get(4..8).ok_or(Errno::EINVAL)?;
    let states = parse_int(states)? as u32;
    let mut messages = Vec::new();
    for own in inventory::all() {
        let state = state(own.ops.as_ref());
        if own.ops.family() != AF_UNIX || states >> state & 1 == 0 {
            continue;
        }
        // struct unix_diag_msg.
        let mut fixed = alloc::vec![AF_UNIX as u8, own.ops.kind() as u8, state, 0];
        fixed.extend((own.ino as u32).to_ne_bytes());
        fixed.extend(own.ino.to_ne_bytes());
        let mut message = Message::new(reply, &fixed);
        match own.ops.local_addr() {
            Ok(Address::Unix(UnixAddr::Path(path))) => message.attribute(0, &path),
            Ok(Address::Unix(UnixAddr::Abstract(name))) => {
                message.attribute(0, &[b"\0", &name[..]].concat());
            }
            _ => {}
        }
        let queues = [own.ops.input_queued(), own.ops.output_queued()];
        let queues = queues.map(|n| (n.unwrap_or(0) as u32).to_ne_bytes());
        message.attribute(4, &queues.concat()); // UNIX_DIAG_RQLEN
        messages.push(message.finish());
    }
    Ok(messages)
}

fn packets(reply: Header) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for own in inventory::all() {
        let Some(socket) = own.ops.as_any().downcast_ref::<packet::PacketSocket>() else {
            continue;
        };
        let row = socket.row();
        // struct packet_diag_msg.
        let mut fixed = alloc::vec![AF_PACKET as u8, row.kind as u8];
        fixed.extend(row.protocol.to_ne_bytes());
        fixed.extend((own.ino as u32).to_ne_bytes());
        fixed.extend(own.ino.to_ne_bytes());
        let mut message = Message::new(reply, &fixed);
        // PACKET_DIAG_INFO: index, version, reserve, copy threshold, time stamps, flags.
        let info = [row.index, 0, 0, 0, 0, 0];
        message.attribute(0, &info.map(u32::to_ne_bytes).concat());
        messages.push(message.finish());
    }
    messages
}

fn netlinks(reply: Header) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for own in inventory::all() {
        let Some(socket) = own.ops.as_any().downcast_ref::<NetlinkSocket>() else {
            continue;
        };
        let (port, _) = socket.name();
        // struct netlink_diag_msg: family, type, protocol, state, ports, group, inode, cookie.
        let protocol = socket.protocol() as u8;
        let mut fixed = alloc::vec![AF_NETLINK as u8, own.ops.kind() as u8, protocol, 0];
        fixed.extend(port.to_ne_bytes());
        fixed.extend([0; 8]);
        fixed.extend((own.ino as u32).to_ne_bytes());
        fixed.extend(own.ino.to_ne_bytes());
        messages.push(Message::new(reply, &fixed).finish());
    }
    messages
}
