//! The `SIOCGIF*` requests (`netdevice(7)`): what interfaces there are and what they have. What changes them is in
//! `ioctl_set`.

use core::net::{IpAddr, Ipv4Addr};

use errno::{Errno, Result};
use net::query::LinkInfo;

use super::ioctl_set::{
    self, SIOCADDRT, SIOCDARP, SIOCDELRT, SIOCGARP, SIOCSARP, SIOCSIFADDR, SIOCSIFFLAGS,
    SIOCSIFMTU, SIOCSIFNETMASK,
};
use crate::socket::addr::AF_INET;
use crate::uaccess::UserPtr;

const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCGIFADDR: u32 = 0x8915;
const SIOCGIFDSTADDR: u32 = 0x8917;
const SIOCGIFBRDADDR: u32 = 0x8919;
const SIOCGIFNETMASK: u32 = 0x891b;
const SIOCGIFMETRIC: u32 = 0x891d;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCGIFTXQLEN: u32 = 0x8942;
const SIOCGIFMAP: u32 = 0x8970;
const SIOCETHTOOL: u32 = 0x8946;

/// `IFNAMSIZ`.
const NAME: usize = 16;
/// `sizeof(struct ifreq)`.
const IFREQ: usize = 40;

/// `IFF_*`.
#[allow(missing_docs, reason = "the names of netdevice(7)")]
pub mod flag {
    pub const UP: u32 = 0x1;
    pub const BROADCAST: u32 = 0x2;
    pub const LOOPBACK: u32 = 0x8;
    pub const RUNNING: u32 = 0x40;
    pub const PROMISC: u32 = 0x100;
    pub const MULTICAST: u32 = 0x1000;
    pub const LOWER_UP: u32 = 0x1_0000;
}

/// The `IFF_*` of an interface.
pub fn flags(link: &LinkInfo) -> u32 {
    let mut flags = if link.loopback {
        flag::LOOPBACK
    } else {
        flag::BROADCAST | flag::MULTICAST
    };
    if link.up {
        flags |= flag::UP;
        if link.carrier {
            flags |= flag::RUNNING | flag::LOWER_UP;
        }
    }
    if link.promiscuous {
        flags |= flag::PROMISC;
    }
    flags
}

/// The first IPv4 address of an interface, with its prefix.
fn ipv4(index: u32) -> Result<net::Cidr> {
    crate::socket::stack()?
        .addresses()
        .iter()
        .find(|addr| addr.index == index && addr.addr.addr.is_ipv4())
        .map(|addr| addr.addr)
        .ok_or(Errno::EADDRNOTAVAIL)
}

fn sockaddr(addr: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    bytes[4..8].copy_from_slice(&addr.octets());
    bytes
}

fn v4(addr: IpAddr) -> Ipv4Addr {
    match addr {
        IpAddr::V4(addr) => addr,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// Answers an interface request.
///
/// # Errors
/// `ENOTTY` for a request that is none, `ENODEV`, `EADDRNOTAVAIL`, `EFAULT`, and those of a change.
pub fn interface(request: u32, arg: usize) -> Result<usize> {
    match request {
        SIOCGIFCONF => return list(arg),
        SIOCADDRT | SIOCDELRT => {
            let stack = crate::socket::stack()?;
            return ioctl_set::route(stack, request == SIOCADDRT, arg).map(|()| 0);
        }
        SIOCGARP | SIOCSARP | SIOCDARP => {
            return ioctl_set::neighbour(crate::socket::stack()?, request, arg).map(|()| 0);
        }
        SIOCSIFFLAGS | SIOCSIFMTU | SIOCSIFADDR | SIOCSIFNETMASK => {}
        SIOCGIFNAME | SIOCGIFFLAGS | SIOCGIFADDR | SIOCGIFDSTADDR | SIOCGIFBRDADDR
        | SIOCGIFNETMASK | SIOCGIFMETRIC | SIOCGIFMTU | SIOCGIFHWADDR | SIOCGIFINDEX
        | SIOCGIFTXQLEN | SIOCGIFMAP | SIOCETHTOOL => {}
        // Other setters: destination, broadcast address, metric, name, hardware address, length of the queue.
        0x8918 | 0x891a | 0x891e | 0x8923 | 0x8924 | 0x8943 => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::ENOTTY),
    }
    let mut ifreq = [0u8; IFREQ];
    UserPtr::<u8>::new(arg).read_bytes(&mut ifreq)?;
    let links = crate::socket::stack()?.links();
    let (name, value) = ifreq.split_at_mut(NAME);
    let link = if request == SIOCGIFNAME {
        let index = u32::from_ne_bytes([value[0], value[1], value[2], value[3]]);
        links.iter().find(|link| link.index == index)
    } else {
        let end = name.iter().position(|b| *b == 0).unwrap_or(NAME - 1);
        // An alias such as `eth0:1` is the interface itself.
        let plain = name[..end].split(|b| *b == b':').next().unwrap_or_default();
        links.iter().find(|link| link.name.as_bytes() == plain)
    };
    let link = link.ok_or(Errno::ENODEV)?;
    if matches!(
        request,
        SIOCSIFFLAGS | SIOCSIFMTU | SIOCSIFADDR | SIOCSIFNETMASK
    ) {
        return ioctl_set::interface(crate::socket::stack()?, request, link, value).map(|()| 0);
    }
    if request == SIOCETHTOOL {
        let at = value.first_chunk::<8>().ok_or(Errno::EINVAL)?;
        return super::ethtool::answer(link, usize::from_ne_bytes(*at)).map(|()| 0);
    }
    let mut put = |bytes: &[u8]| value[..bytes.len()].copy_from_slice(bytes);
    match request {
        SIOCGIFNAME => put_name(name, link),
        SIOCGIFFLAGS => put(&(flags(link) as u16).to_ne_bytes()),
        SIOCGIFADDR | SIOCGIFDSTADDR => put(&sockaddr(v4(ipv4(link.index)?.addr))),
        SIOCGIFBRDADDR => put(&sockaddr(
            ipv4(link.index)?
                .broadcast()
                .filter(|_| !link.loopback)
                .unwrap_or(Ipv4Addr::UNSPECIFIED),
        )),
        SIOCGIFNETMASK => put(&sockaddr(
            ipv4(link.index)?.netmask().unwrap_or(Ipv4Addr::UNSPECIFIED),
        )),
        SIOCGIFMETRIC => put(&0u32.to_ne_bytes()),
        SIOCGIFMTU => put(&link.mtu.to_ne_bytes()),
        SIOCGIFHWADDR => {
            put(&net::tap::hardware_type(link.loopback).to_ne_bytes());
            value[2..8].copy_from_slice(&link.mac);
        }
        SIOCGIFINDEX => put(&link.index.to_ne_bytes()),
        SIOCGIFTXQLEN => put(&1000u32.to_ne_bytes()),
        _ => put(&[0; 24]),
    }
    UserPtr::<u8>::new(arg).write_bytes(&ifreq)?;
    Ok(0)
}

fn put_name(slot: &mut [u8], link: &LinkInfo) {
    slot.fill(0);
    let bytes = link.name.as_bytes();
    let len = bytes.len().min(NAME - 1);
    slot[..len].copy_from_slice(&bytes[..len]);
}

/// `SIOCGIFCONF`: all interfaces that have an IPv4 address.
fn list(arg: usize) -> Result<usize> {
    // struct ifconf: int, padding, pointer.
    let length = UserPtr::<i32>::new(arg);
    let room = usize::try_from(length.read()?).map_err(|_| Errno::EINVAL)?;
    let buffer = UserPtr::<u64>::new(arg.wrapping_add(8)).read()? as usize;
    let stack = crate::socket::stack()?;
    let links = stack.links();
    let mut used = 0;
    for addr in stack.addresses() {
        let IpAddr::V4(ip) = addr.addr.addr else {
            continue;
        };
        let Some(link) = links.iter().find(|link| link.index == addr.index) else {
            continue;
        };
        if buffer != 0 {
            if used + IFREQ > room {
                break;
            }
            let mut ifreq = [0u8; IFREQ];
            put_name(&mut ifreq[..NAME], link);
            ifreq[NAME..NAME + 16].copy_from_slice(&sockaddr(ip));
            UserPtr::<u8>::new(buffer.wrapping_add(used)).write_bytes(&ifreq)?;
        }
        used += IFREQ;
    }
    length.write(&(used as i32))?;
    Ok(0)
}
