//! The requests that change an interface, a route or a neighbour (`netdevice(7)`, `arp(7)`, `SIOCADDRT`): the older way
//! to what netlink does.

use core::net::{IpAddr, Ipv4Addr};

use errno::{Errno, Result};
use net::query::{LinkInfo, NeighbourState, RouteInfo};
use net::{Cidr, Stack};

use super::ioctl::{flag, flags};
use crate::socket::addr::AF_INET;
use crate::socket::netlink::set_flags;
use crate::uaccess::UserPtr;

pub(super) const SIOCADDRT: u32 = 0x890b;
pub(super) const SIOCDELRT: u32 = 0x890c;
pub(super) const SIOCSIFFLAGS: u32 = 0x8914;
pub(super) const SIOCSIFADDR: u32 = 0x8916;
pub(super) const SIOCSIFNETMASK: u32 = 0x891c;
pub(super) const SIOCSIFMTU: u32 = 0x8922;
pub(super) const SIOCDARP: u32 = 0x8953;
pub(super) const SIOCGARP: u32 = 0x8954;
pub(super) const SIOCSARP: u32 = 0x8955;

/// `sizeof(struct rtentry)` and `sizeof(struct arpreq)`.
const RTENTRY: usize = 120;
const ARPREQ: usize = 68;
const RTF_GATEWAY: u16 = 2;
const RTF_HOST: u16 = 4;
const ATF_COM: u32 = 2;
const ATF_PERM: u32 = 4;

fn ipv4(sockaddr: &[u8]) -> Result<Ipv4Addr> {
    let [f0, f1, _, _, a, b, c, d, ..] = *sockaddr else {
        return Err(Errno::EINVAL);
    };
    if u16::from_ne_bytes([f0, f1]) != AF_INET {
        return Err(Errno::EAFNOSUPPORT);
    }
    Ok(Ipv4Addr::new(a, b, c, d))
}

fn first(stack: &Stack, index: u32) -> Option<Cidr> {
    let all = stack.addresses();
    all.iter()
        .find(|a| a.index == index && a.addr.addr.is_ipv4())
        .map(|a| a.addr)
}

fn replace(stack: &Stack, index: u32, addr: Cidr) -> Result<()> {
    let old = first(stack, index);
    if old == Some(addr) {
        return Ok(());
    }
    if let Some(old) = old {
        stack.remove_address(index, old)?;
    }
    stack.add_address_for(index, addr, u32::MAX, u32::MAX)
}

/// A request of `struct ifreq`, whose union is `value`.
///
/// # Errors
/// `EINVAL`, `EAFNOSUPPORT`, `EADDRNOTAVAIL`, and the engine's.
pub(super) fn interface(stack: &Stack, request: u32, link: &LinkInfo, value: &[u8]) -> Result<()> {
    let index = link.index;
    match request {
        SIOCSIFFLAGS => {
            let wanted = u32::from(u16::from_ne_bytes([value[0], value[1]]));
            let change = (flags(link) ^ wanted) & (flag::UP | flag::PROMISC);
            set_flags(stack, link, wanted, change)
        }
        SIOCSIFMTU => {
            let mtu = i32::from_ne_bytes([value[0], value[1], value[2], value[3]]);
            stack.set_mtu(index, u32::try_from(mtu).map_err(|_| Errno::EINVAL)?)
        }
        SIOCSIFADDR => {
            let addr = ipv4(value)?;
            // The class says how long the prefix is, as it did once.
            let prefix = match addr.octets()[0] {
                0 => {
                    return first(stack, index)
                        .map_or(Ok(()), |old| stack.remove_address(index, old));
                }
                1..128 => 8,
                128..192 => 16,
                192..224 => 24,
                _ => return Err(Errno::EINVAL),
            };
            replace(
                stack,
                index,
                Cidr {
                    addr: addr.into(),
                    prefix,
                },
            )
        }
        SIOCSIFNETMASK => {
            let mask = ipv4(value)?;
            let IpAddr::V4(own) = first(stack, index).ok_or(Errno::EADDRNOTAVAIL)?.addr else {
                return Err(Errno::EADDRNOTAVAIL);
            };
            replace(
                stack,
                index,
                Cidr::from_netmask(own, mask).ok_or(Errno::EINVAL)?,
            )
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// The interface whose name lies at `at`; 0 when there is no name.
fn named(stack: &Stack, at: usize) -> Result<u32> {
    if at == 0 {
        return Ok(0);
    }
    let mut name = [0u8; 16];
    UserPtr::<u8>::new(at).read_bytes(&mut name)?;
    let end = name.iter().position(|b| *b == 0).unwrap_or(15);
    let links = stack.links();
    let found = links
        .iter()
        .find(|link| link.name.as_bytes() == &name[..end]);
    Ok(found.ok_or(Errno::ENODEV)?.index)
}

/// `SIOCADDRT` and `SIOCDELRT`.
///
/// # Errors
/// `EINVAL`, `EAFNOSUPPORT`, `ENODEV`, `EEXIST`, `ESRCH`, `ENETUNREACH`, `EFAULT`.
pub(super) fn route(stack: &Stack, add: bool, arg: usize) -> Result<()> {
    let mut entry = [0u8; RTENTRY];
    UserPtr::<u8>::new(arg).read_bytes(&mut entry)?;
    let flags = u16::from_ne_bytes([entry[56], entry[57]]);
    let dst = ipv4(&entry[8..])?;
    let dst = if flags & RTF_HOST != 0 {
        Cidr {
            addr: dst.into(),
            prefix: 32,
        }
    } else {
        // A mask without a family is none.
        let mask = ipv4(&entry[40..]).unwrap_or(Ipv4Addr::UNSPECIFIED);
        Cidr::from_netmask(dst, mask).ok_or(Errno::EINVAL)?
    };
    if dst.network() != dst {
        return Err(Errno::EINVAL);
    }
    let gateway = match flags & RTF_GATEWAY {
        0 => None,
        _ => Some(IpAddr::V4(ipv4(&entry[24..])?)),
    };
    let mut pointer = [0; 8];
    pointer.copy_from_slice(&entry[88..96]);
    let mut index = named(stack, u64::from_ne_bytes(pointer) as usize)?;
    let metric = i16::from_ne_bytes([entry[80], entry[81]]);
    let metric = u32::try_from(i32::from(metric) - 1).unwrap_or(0);
    if !add {
        let all = stack.routes();
        let fits = |r: &&RouteInfo| {
            r.dst == dst
                && (index == 0 || r.index == index)
                && (gateway.is_none() || r.gateway == gateway)
        };
        return stack.remove_route(all.iter().find(fits).ok_or(Errno::ESRCH)?);
    }
    if index == 0 {
        index = stack
            .route_to(gateway.ok_or(Errno::ENODEV)?, None, 0)?
            .index;
    }
    if stack
        .routes()
        .iter()
        .any(|r| r.dst == dst && r.metric == metric)
    {
        return Err(Errno::EEXIST);
    }
    stack.add_route(RouteInfo {
        dst,
        gateway,
        index,
        source: None,
        metric,
        protocol: 3,
    })
}

/// `SIOCGARP`, `SIOCSARP` and `SIOCDARP`: `struct arpreq`.
///
/// # Errors
/// `ENXIO` for a neighbour that is not known, `EINVAL`, `ENODEV`, `EFAULT`.
pub(super) fn neighbour(stack: &Stack, request: u32, arg: usize) -> Result<()> {
    let mut entry = [0u8; ARPREQ];
    let at = UserPtr::<u8>::new(arg);
    at.read_bytes(&mut entry)?;
    let addr = IpAddr::V4(ipv4(&entry)?);
    let named = entry[52] != 0;
    let index = if named {
        self::named(stack, arg.wrapping_add(52))?
    } else {
        stack.route_to(addr, None, 0)?.index
    };
    let known = stack
        .neighbours()
        .into_iter()
        .find(|n| n.index == index && n.addr == addr);
    match request {
        SIOCSARP => {
            let flags = u32::from_ne_bytes([entry[32], entry[33], entry[34], entry[35]]);
            let mut mac = [0; 6];
            mac.copy_from_slice(&entry[18..24]);
            stack.put_neighbour(index, addr, mac, flags & ATF_PERM != 0)
        }
        SIOCDARP => known.map_or(Err(Errno::ENXIO), |n| stack.drop_neighbour(n.index, n.addr)),
        _ => {
            let known = known.ok_or(Errno::ENXIO)?;
            let mut flags = 0;
            entry[16..18].copy_from_slice(&net::tap::hardware_type(false).to_ne_bytes());
            if let Some(mac) = known.mac {
                entry[18..24].copy_from_slice(&mac);
                flags |= ATF_COM;
            }
            if known.state == NeighbourState::Permanent {
                flags |= ATF_PERM;
            }
            entry[32..36].copy_from_slice(&flags.to_ne_bytes());
            at.write_bytes(&entry)
        }
    }
}
