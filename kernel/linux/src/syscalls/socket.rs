//! Sockets: `socket(2)`, `bind(2)`, `listen(2)`, `accept(2)`, `connect(2)`, `shutdown(2)`, names and
//! options. Sending and receiving is in `socket_message`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::{OpenFile, OpenFlags};
use net::{Family, Shutdown};

use super::splice::install_pair;
use crate::ctx::Ctx;
use crate::files::install;
use crate::socket::addr::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, AF_VSOCK, Address, MAX_LEN,
};
use crate::socket::file::{SocketFile, of};
use crate::socket::filter;
use crate::socket::inet::InetSocket;
use crate::socket::netlink::NetlinkSocket;
use crate::socket::ops::{Kind, SocketOps};
use crate::socket::option::{SO_ATTACH_FILTER, SOL_SOCKET};
use crate::socket::packet::{HDRLEN, PacketSocket, SOL_PACKET};
use crate::socket::ring::header_len;
use crate::socket::unix::UnixSocket;
use crate::socket::vsock::VsockSocket;
use crate::uaccess::UserPtr;

const SOCK_TYPE: i32 = 0xf;
const SOCK_NONBLOCK: i32 = 0o4000;
const SOCK_CLOEXEC: i32 = 0o2000000;

/// The kind of a socket and the flags that ride on its number.
fn kind_and_flags(raw: i32) -> Result<(i32, OpenFlags, bool)> {
    if raw & !(SOCK_TYPE | SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut flags = OpenFlags::RDWR;
    if raw & SOCK_NONBLOCK != 0 {
        flags |= OpenFlags::NONBLOCK;
    }
    Ok((raw & SOCK_TYPE, flags, raw & SOCK_CLOEXEC != 0))
}

fn make(domain: i32, kind: i32, protocol: i32) -> Result<Arc<dyn SocketOps>> {
    match u16::try_from(domain).map_err(|_| Errno::EAFNOSUPPORT)? {
        AF_UNIX => {
            // SOCK_RAW is taken for SOCK_DGRAM, as in BSD.
            let kind = match kind {
                1 => Kind::Stream,
                2 | 3 => Kind::Dgram,
                5 => Kind::SeqPacket,
                _ => return Err(Errno::ESOCKTNOSUPPORT),
            };
            if protocol != 0 && protocol != i32::from(AF_UNIX) {
                return Err(Errno::EPROTONOSUPPORT);
            }
            Ok(UnixSocket::new(kind))
        }
        family @ (AF_INET | AF_INET6) => {
            let family = if family == AF_INET {
                Family::Inet
            } else {
                Family::Inet6
            };
            let kind = match kind {
                1 => net::Kind::Stream,
                2 => net::Kind::Dgram,
                3 => net::Kind::Raw,
                5 => return Err(Errno::ESOCKTNOSUPPORT),
                _ => return Err(Errno::EINVAL),
            };
            let protocol = u8::try_from(protocol).map_err(|_| Errno::EPROTONOSUPPORT)?;
            let socket = crate::socket::stack()?.socket(family, kind, protocol)?;
            Ok(InetSocket::new(socket))
        }
        AF_NETLINK => {
            let kind = match kind {
                2 => Kind::Dgram,
                3 => Kind::Raw,
                _ => return Err(Errno::ESOCKTNOSUPPORT),
            };
            Ok(NetlinkSocket::new(kind, protocol)?)
        }
        AF_PACKET => Ok(PacketSocket::new(kind, protocol)?),
        AF_VSOCK => Ok(VsockSocket::new(kind, protocol)?),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// `socket(2)`.
pub fn sys_socket(ctx: &mut Ctx<'_>, domain: i32, kind: i32, protocol: i32) -> Result<usize> {
    let (kind, flags, close_on_exec) = kind_and_flags(kind)?;
    let file = SocketFile::new(make(domain, kind, protocol)?);
    install(ctx.process, OpenFile::new(file, flags, None), close_on_exec)
}

/// `socketpair(2)`.
pub fn sys_socketpair(
    ctx: &mut Ctx<'_>,
    domain: i32,
    kind: i32,
    protocol: i32,
    out: UserPtr<[i32; 2]>,
) -> Result<usize> {
    let (kind, flags, close_on_exec) = kind_and_flags(kind)?;
    if domain != i32::from(AF_UNIX) {
        // What exists and cannot pair, and what does not exist.
        make(domain, kind, protocol)?;
        return Err(Errno::EOPNOTSUPP);
    }
    let kind = make(domain, kind, protocol)?.kind();
    let (a, b) = UnixSocket::pair(kind);
    let open = |socket: Arc<UnixSocket>| OpenFile::new(SocketFile::new(socket), flags, None);
    install_pair(ctx, [open(a), open(b)], out, close_on_exec)
}

/// Reads an address of `len` bytes.
pub(super) fn read_address(at: UserPtr<u8>, len: i32) -> Result<Address> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if len > MAX_LEN {
        return Err(Errno::EINVAL);
    }
    let mut bytes = [0; MAX_LEN];
    at.read_bytes(&mut bytes[..len])?;
    Address::parse(&bytes[..len])
}

/// Writes an address, cut to the room there is; the length answered is the whole one's.
pub(super) fn write_address(
    address: Option<&Address>,
    at: UserPtr<u8>,
    len: UserPtr<i32>,
) -> Result<()> {
    if at.is_null() {
        return Ok(());
    }
    let room = usize::try_from(len.read()?).map_err(|_| Errno::EINVAL)?;
    let bytes = address.map(Address::to_bytes).unwrap_or_default();
    at.write_bytes(&bytes[..bytes.len().min(room)])?;
    len.write(&(bytes.len() as i32))
}

/// `bind(2)`.
pub fn sys_bind(ctx: &mut Ctx<'_>, fd: i32, addr: UserPtr<u8>, len: i32) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let socket = of(&file)?;
    let addr = match read_address(addr, len)? {
        // An IPv4 socket takes the "any" address without a family, as old programs give it.
        Address::Unspecified if socket.ops().family() == AF_INET => unspecified_inet(addr, len)?,
        addr => addr,
    };
    socket.ops().bind(&addr)?;
    Ok(0)
}

fn unspecified_inet(addr: UserPtr<u8>, len: i32) -> Result<Address> {
    if len < 16 {
        return Err(Errno::EINVAL);
    }
    let mut bytes = [0; 16];
    addr.read_bytes(&mut bytes)?;
    if bytes[4..8] != [0; 4] {
        return Err(Errno::EAFNOSUPPORT);
    }
    bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    Address::parse(&bytes)
}

/// `listen(2)`.
pub fn sys_listen(ctx: &mut Ctx<'_>, fd: i32, backlog: i32) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    of(&file)?.ops().listen(backlog)?;
    Ok(0)
}

fn accept(
    ctx: &Ctx<'_>,
    fd: i32,
    addr: UserPtr<u8>,
    len: UserPtr<i32>,
    flags: i32,
) -> Result<usize> {
    if flags & !(SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = ctx.process.files.get(fd)?;
    let accepted = of(&file)?.accept(file.flags().contains(OpenFlags::NONBLOCK))?;
    if !addr.is_null() {
        // A peer that has gone meanwhile has no name to tell: Linux answers ECONNABORTED.
        let peer = accepted
            .ops()
            .peer_addr()
            .map_err(|_| Errno::ECONNABORTED)?;
        write_address(Some(&peer), addr, len)?;
    }
    let (_, open, close_on_exec) = kind_and_flags(flags)?;
    install(
        ctx.process,
        OpenFile::new(accepted, open, None),
        close_on_exec,
    )
}

/// `accept(2)`.
pub fn sys_accept(
    ctx: &mut Ctx<'_>,
    fd: i32,
    addr: UserPtr<u8>,
    len: UserPtr<i32>,
) -> Result<usize> {
    accept(ctx, fd, addr, len, 0)
}

/// `accept4(2)`.
pub fn sys_accept4(
    ctx: &mut Ctx<'_>,
    fd: i32,
    addr: UserPtr<u8>,
    len: UserPtr<i32>,
    flags: i32,
) -> Result<usize> {
    accept(ctx, fd, addr, len, flags)
}

/// `connect(2)`.
pub fn sys_connect(ctx: &mut Ctx<'_>, fd: i32, addr: UserPtr<u8>, len: i32) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let socket = of(&file)?;
    let addr = read_address(addr, len)?;
    socket.connect(&addr, file.flags().contains(OpenFlags::NONBLOCK))?;
    Ok(0)
}

/// `shutdown(2)`.
pub fn sys_shutdown(ctx: &mut Ctx<'_>, fd: i32, how: i32) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let how = match how {
        0 => Shutdown::Read,
        1 => Shutdown::Write,
        2 => Shutdown::Both,
        _ => return Err(Errno::EINVAL),
    };
    of(&file)?.shutdown(how)?;
    Ok(0)
}

/// `getsockname(2)`.
pub fn sys_getsockname(
    ctx: &mut Ctx<'_>,
    fd: i32,
    addr: UserPtr<u8>,
    len: UserPtr<i32>,
) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let local = of(&file)?.ops().local_addr()?;
    tell_address(&local, addr, len)
}

/// `getpeername(2)`.
pub fn sys_getpeername(
    ctx: &mut Ctx<'_>,
    fd: i32,
    addr: UserPtr<u8>,
    len: UserPtr<i32>,
) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let peer = of(&file)?.ops().peer_addr()?;
    tell_address(&peer, addr, len)
}

fn tell_address(address: &Address, at: UserPtr<u8>, len: UserPtr<i32>) -> Result<usize> {
    if at.is_null() {
        return Err(Errno::EFAULT);
    }
    write_address(Some(address), at, len)?;
    Ok(0)
}

/// The longest value of an option.
const MAX_OPTION: usize = 4096;

/// `setsockopt(2)`.
pub fn sys_setsockopt(
    ctx: &mut Ctx<'_>,
    fd: i32,
    level: i32,
    name: i32,
    value: UserPtr<u8>,
    len: i32,
) -> Result<usize> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    let file = ctx.process.files.get(fd)?;
    let socket = of(&file)?;
    let mut bytes: Vec<u8> = alloc::vec![0; len.min(MAX_OPTION)];
    value.read_bytes(&mut bytes)?;
    if (level, name) == (SOL_SOCKET, SO_ATTACH_FILTER) {
        bytes = socket.read_filter(&bytes)?;
    }
    socket.set_option(level, name, &bytes)?;
    Ok(0)
}

/// `getsockopt(2)`.
pub fn sys_getsockopt(
    ctx: &mut Ctx<'_>,
    fd: i32,
    level: i32,
    name: i32,
    value: UserPtr<u8>,
    len: UserPtr<i32>,
) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let socket = of(&file)?;
    let room = usize::try_from(len.read()?).map_err(|_| Errno::EINVAL)?;
    if (level, name) == (SOL_PACKET, HDRLEN) && socket.ops().family() == AF_PACKET {
        if room < 4 {
            return Err(Errno::EINVAL);
        }
        let value = UserPtr::<i32>::new(value.addr());
        value.write(&header_len(value.read()?)?)?;
        len.write(&4)?;
        return Ok(0);
    }
    let bytes = socket.option(level, name, room)?;
    if (level, name) == (SOL_SOCKET, SO_ATTACH_FILTER) {
        return filter::tell(&bytes, value, len).map(|()| 0);
    }
    let fits = bytes.len().min(room);
    value.write_bytes(&bytes[..fits])?;
    len.write(&(fits as i32))?;
    Ok(0)
}
