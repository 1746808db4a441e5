//! What control messages mean: between `cmsg(3)`'s bytes and typed values.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use errno::{Errno, Result};
use fs::OpenFile;
use net::{Control as NetControl, ExtendedError, MsgFlags};

use crate::files::{descriptor_limit, install};
use crate::process::Process;
use crate::socket::addr::{AF_INET, AF_INET6, AF_UNIX, Address};
use crate::socket::cmsg::{Cmsg, Messages, Packer};
use crate::socket::common::Stamps;
use crate::socket::file::SocketFile;
use crate::socket::ops::{Control, Credentials, Received};
use crate::socket::unix::MAX_RIGHTS;
use crate::uaccess::UserPtr;

const SOL_IP: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SOL_UDP: i32 = 17;
const SOL_IPV6: i32 = 41;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;
const SCM_TIMESTAMP: i32 = 29;
const SCM_TIMESTAMPNS: i32 = 35;
const SCM_TIMESTAMPING: i32 = 37;
const SO_RXQ_OVFL: i32 = 40;
const SO_MARK: i32 = 36;
const SOL_VSOCK: i32 = 287;
const VSOCK_RECVERR: i32 = 1;
/// `SO_EE_ORIGIN_ZEROCOPY`.
const ORIGIN_ZEROCOPY: u8 = 5;
/// `SO_EE_CODE_ZEROCOPY_COPIED`.
const CODE_COPIED: u8 = 1;
const IP_TOS: i32 = 1;
const IP_TTL: i32 = 2;
const IP_PKTINFO: i32 = 8;
const IP_RECVERR: i32 = 11;
const IP_ORIGDSTADDR: i32 = 20;
const IPV6_RECVERR: i32 = 25;
const IPV6_PKTINFO: i32 = 50;
const IPV6_HOPLIMIT: i32 = 52;
const IPV6_TCLASS: i32 = 67;
const IPV6_ORIGDSTADDR: i32 = 74;
const UDP_SEGMENT: i32 = 103;
const UDP_GRO: i32 = 104;

/// The most bytes of control messages one call takes (`net.core.optmem_max`).
const MAX_CONTROL: u64 = 20480;

/// Reads the control messages of a send on a socket of `family`.
///
/// # Errors
/// `EINVAL` for malformed or unknown ones, `EBADF` for a descriptor that is not open, `ENOBUFS`
/// for too many bytes.
pub fn read(process: &Process, family: u16, at: UserPtr<u8>, len: u64) -> Result<Vec<Control>> {
    if len > MAX_CONTROL {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = alloc::vec![0; len as usize];
    at.read_bytes(&mut bytes)?;
    let mut controls = Vec::new();
    for message in Messages::new(&bytes) {
        let message = message?;
        match message.level {
            SOL_SOCKET => match (message.kind, family) {
                (SCM_RIGHTS, AF_UNIX) => controls.push(rights(process, &message)?),
                (SCM_CREDENTIALS, AF_UNIX) => controls.push(credentials(&message)?),
                (SCM_RIGHTS | SCM_CREDENTIALS, _) => {}
                _ => return Err(Errno::EINVAL),
            },
            // A UNIX socket passes over what is not its own.
            _ if family == AF_UNIX => {}
            _ => controls.push(Control::Net(inet(&message)?)),
        }
    }
    Ok(controls)
}

fn rights(process: &Process, message: &Cmsg<'_>) -> Result<Control> {
    if !message.data.len().is_multiple_of(4) || message.data.len() / 4 > MAX_RIGHTS {
        return Err(Errno::EINVAL);
    }
    let files: Result<Vec<Arc<OpenFile>>> = message
        .data
        .chunks_exact(4)
        .map(|fd| process.files.get(word(fd)))
        .collect();
    files.map(Control::Rights)
}

fn word(bytes: &[u8]) -> i32 {
    match bytes.first_chunk::<4>() {
        Some(bytes) => i32::from_ne_bytes(*bytes),
        None => 0,
    }
}

fn credentials(message: &Cmsg<'_>) -> Result<Control> {
    if message.data.len() != 12 {
        return Err(Errno::EINVAL);
    }
    Ok(Control::Credentials(Credentials {
        pid: word(message.data),
        uid: word(&message.data[4..]) as u32,
        gid: word(&message.data[8..]) as u32,
    }))
}

fn inet(message: &Cmsg<'_>) -> Result<NetControl> {
    let data = message.data;
    let int = || match data.len() {
        4.. => Ok(word(data)),
        _ => Err(Errno::EINVAL),
    };
    let byte = || match data.len() {
        1..4 => Ok(data[0]),
        _ => u8::try_from(int()?).map_err(|_| Errno::EINVAL),
    };
    let ipv4 = |at: usize| {
        data.get(at..at + 4)
            .map(|b| Ipv4Addr::new(b[0], b[1], b[2], b[3]))
            .ok_or(Errno::EINVAL)
    };
    Ok(match (message.level, message.kind) {
        (SOL_IP, IP_PKTINFO) => NetControl::PktInfo {
            index: int()? as u32,
            local: ipv4(4)?,
            dst: ipv4(8)?,
        },
        (SOL_IP, IP_TTL) => NetControl::Ttl(byte()?),
        (SOL_IP, IP_TOS) => NetControl::Tos(byte()?),
        (SOL_IPV6, IPV6_PKTINFO) => {
            let octets = data.first_chunk::<16>().ok_or(Errno::EINVAL)?;
            let index = data.get(16..20).ok_or(Errno::EINVAL)?;
            NetControl::PktInfo6 {
                index: word(index) as u32,
                addr: Ipv6Addr::from(*octets),
            }
        }
        (SOL_IPV6, IPV6_HOPLIMIT) => NetControl::HopLimit(byte()?),
        (SOL_IPV6, IPV6_TCLASS) => NetControl::TClass(byte()?),
        (SOL_UDP, UDP_SEGMENT) => match data {
            [a, b, ..] => NetControl::UdpSegment(u16::from_ne_bytes([*a, *b])),
            _ => return Err(Errno::EINVAL),
        },
        _ => return Err(Errno::EINVAL),
    })
}

/// Packs what a receive on `socket` brought into `room` bytes; the flag says whether something did not fit.
/// Descriptors that arrive are opened here.
pub fn write(
    process: &Process,
    received: Received,
    room: usize,
    socket: &SocketFile,
    close_on_exec: bool,
) -> (Vec<u8>, bool) {
    let mut packer = Packer::new(room.min(MAX_CONTROL as usize));
    let stamps = socket.stamps();
    // No packet is marked here; who asks is told 0, between the time stamp and what is IP's.
    let mut mark_due = socket.tells_mark() && !received.flags.contains(MsgFlags::ERRQUEUE);
    for control in received.control {
        let is_stamp = matches!(
            control,
            Control::Net(NetControl::Timestamp(_) | NetControl::Dropped(_)) | Control::Arrived(_)
        );
        if mark_due && !is_stamp {
            packer.push(SOL_SOCKET, SO_MARK, &[0; 4]);
            mark_due = false;
        }
        match control {
            Control::Rights(files) => {
                deliver_rights(process, files, &mut packer, close_on_exec);
            }
            Control::Credentials(credentials) => {
                packer.push(SOL_SOCKET, SCM_CREDENTIALS, &credentials.to_bytes());
            }
            Control::Net(NetControl::Timestamp(ns)) | Control::Arrived(ns) => {
                pack_arrival(ns, stamps, &mut packer);
            }
            Control::Net(NetControl::RecvErr(error)) => {
                pack_error(socket.ops().family(), &error, &mut packer);
            }
            Control::Net(control) => pack_inet(&control, &mut packer),
            Control::Sent { first, last } => {
                pack_sent(socket.ops().family(), first, last, &mut packer);
            }
            Control::Bytes(level, kind, data) => packer.push(level, kind, &data),
        }
    }
    if mark_due {
        packer.push(SOL_SOCKET, SO_MARK, &[0; 4]);
    }
    let truncated = packer.truncated;
    (packer.into_bytes(), truncated)
}

fn deliver_rights(
    process: &Process,
    files: Vec<Arc<OpenFile>>,
    packer: &mut Packer,
    close_on_exec: bool,
) {
    let fits = packer.data_room() / 4;
    let mut fds = Vec::new();
    let total = files.len();
    for file in files.into_iter().take(fits) {
        match install(process, file, close_on_exec) {
            Ok(fd) => fds.extend((fd as i32).to_ne_bytes()),
            // The table is full: the rest is lost, as Linux has it.
            Err(_) => break,
        }
    }
    debug_assert!(fds.len() / 4 <= descriptor_limit(process));
    if fds.len() / 4 < total {
        packer.truncated = true;
    }
    if !fds.is_empty() {
        packer.push(SOL_SOCKET, SCM_RIGHTS, &fds);
    }
}

/// When something arrived, in each form that was asked for. The engine's clock is the monotonic one; programs are told
/// the real time.
fn pack_arrival(ns: u64, stamps: Stamps, packer: &mut Packer) {
    let wall = ns.saturating_add(machine::time::wall_offset_ns());
    let pair = |[seconds, part]: [i64; 2]| [seconds.to_ne_bytes(), part.to_ne_bytes()].concat();
    let fine = pair(crate::time::to_timespec(wall));
    if stamps.micros {
        let coarse = pair(crate::time::to_timeval(wall));
        packer.push(SOL_SOCKET, SCM_TIMESTAMP, &coarse);
    }
    if stamps.nanos {
        packer.push(SOL_SOCKET, SCM_TIMESTAMPNS, &fine);
    }
    if stamps.detailed {
        // The system's time, one that is no longer used, the card's.
        let mut bytes = fine;
        bytes.resize(48, 0);
        packer.push(SOL_SOCKET, SCM_TIMESTAMPING, &bytes);
    }
}

/// The end of sends with `MSG_ZEROCOPY`: a `struct sock_extended_err` and room for an address that is none.
fn pack_sent(family: u16, first: u32, last: u32, packer: &mut Packer) {
    let mut bytes = alloc::vec![0; 16];
    bytes[4] = ORIGIN_ZEROCOPY;
    bytes[6] = CODE_COPIED;
    bytes[8..12].copy_from_slice(&first.to_ne_bytes());
    bytes[12..].copy_from_slice(&last.to_ne_bytes());
    let (level, kind, address_len) = match family {
        AF_INET => (SOL_IP, IP_RECVERR, 16),
        AF_INET6 => (SOL_IPV6, IPV6_RECVERR, 28),
        _ => (SOL_VSOCK, VSOCK_RECVERR, 0),
    };
    bytes.resize(bytes.len() + address_len, 0);
    packer.push(level, kind, &bytes);
}

fn pack_inet(control: &NetControl, packer: &mut Packer) {
    let mut int = |level, kind, value: i32| packer.push(level, kind, &value.to_ne_bytes());
    match *control {
        NetControl::Ttl(value) => int(SOL_IP, IP_TTL, i32::from(value)),
        NetControl::Dropped(count) => int(SOL_SOCKET, SO_RXQ_OVFL, count as i32),
        NetControl::HopLimit(value) => int(SOL_IPV6, IPV6_HOPLIMIT, i32::from(value)),
        NetControl::TClass(value) => int(SOL_IPV6, IPV6_TCLASS, i32::from(value)),
        NetControl::UdpSegment(value) => int(SOL_UDP, UDP_GRO, i32::from(value)),
        // A single byte on the way in.
        NetControl::Tos(value) => packer.push(SOL_IP, IP_TOS, &[value]),
        NetControl::PktInfo { index, local, dst } => {
            let mut bytes = index.to_ne_bytes().to_vec();
            bytes.extend(local.octets());
            bytes.extend(dst.octets());
            packer.push(SOL_IP, IP_PKTINFO, &bytes);
        }
        NetControl::PktInfo6 { index, addr } => {
            let mut bytes = addr.octets().to_vec();
            bytes.extend(index.to_ne_bytes());
            packer.push(SOL_IPV6, IPV6_PKTINFO, &bytes);
        }
        // Told in `pack_arrival`.
        NetControl::Timestamp(_) => {}
        NetControl::OrigDst(addr) => {
            let (level, kind) = match addr {
                SocketAddr::V4(_) => (SOL_IP, IP_ORIGDSTADDR),
                SocketAddr::V6(_) => (SOL_IPV6, IPV6_ORIGDSTADDR),
            };
            packer.push(level, kind, &Address::Inet(addr).to_bytes());
        }
        // Told in `pack_error`.
        NetControl::RecvErr(_) => {}
    }
}

/// An entry of the error queue: a `struct sock_extended_err`, then the offender's address.
fn pack_error(family: u16, error: &ExtendedError, packer: &mut Packer) {
    let mut bytes = u32::from(error.errno.raw()).to_ne_bytes().to_vec();
    bytes.extend([error.origin, error.icmp_type, error.icmp_code, 0]);
    bytes.extend(error.info.to_ne_bytes());
    bytes.extend(error.data.to_ne_bytes());
    let (level, kind, address_len) = match family {
        AF_INET6 => (SOL_IPV6, IPV6_RECVERR, 28),
        _ => (SOL_IP, IP_RECVERR, 16),
    };
    let offender = match (error.offender, family) {
        (Some(IpAddr::V4(addr)), AF_INET6) => Some(addr.to_ipv6_mapped().into()),
        (offender, _) => offender,
    };
    let mut address = offender
        .map(|addr| Address::Inet(SocketAddr::new(addr, 0)).to_bytes())
        .unwrap_or_default();
    address.resize(address_len, 0);
    bytes.extend(address);
    packer.push(level, kind, &bytes);
}
