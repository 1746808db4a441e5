//! `struct sockaddr` in its kinds, between the program's bytes and typed values.
//!
//! Pure parsing of hostile bytes: every length is checked, nothing is trusted (`ip(7)`, `ipv6(7)`,
//! `unix(7)`, `netlink(7)`).

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use errno::{Errno, Result};

/// `AF_UNSPEC`.
pub const AF_UNSPEC: u16 = 0;
/// `AF_UNIX`.
pub const AF_UNIX: u16 = 1;
/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;
/// `AF_NETLINK`.
pub const AF_NETLINK: u16 = 16;
/// `AF_PACKET`.
pub const AF_PACKET: u16 = 17;

/// `AF_VSOCK`.
pub const AF_VSOCK: u16 = 40;

/// `sizeof(struct sockaddr_storage)`: the longest address a call takes.
pub const MAX_LEN: usize = 128;
/// `sizeof(struct sockaddr_un)`.
const UNIX_LEN: usize = 110;
const INET_LEN: usize = 16;
const INET6_LEN: usize = 28;
/// An IPv6 address without the scope id (RFC 2133) is still taken.
const INET6_MIN_LEN: usize = 24;
const NETLINK_LEN: usize = 12;
/// `sizeof(struct sockaddr_ll)`.
const PACKET_LEN: usize = 20;
const VSOCK_LEN: usize = 16;

/// The name of a UNIX socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnixAddr {
    /// No name.
    Unnamed,
    /// A name in the file system.
    Path(Vec<u8>),
    /// A name in the abstract space, without the leading zero byte.
    Abstract(Vec<u8>),
}

/// `struct sockaddr_ll`: an interface, and a hardware address on its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkAddr {
    /// EtherType.
    pub protocol: u16,
    /// Interface index.
    pub index: u32,
    /// `ARPHRD_*`.
    pub hardware: u16,
    /// `PACKET_HOST` and its siblings.
    pub kind: u8,
    /// Bytes of `addr` that count.
    pub len: u8,
    /// The hardware address.
    pub addr: [u8; 8],
    /// Told in the structure's full length, as the sender of a frame is.
    pub padded: bool,
}

/// An address of any family this kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `AF_UNSPEC`: dissolves an association.
    Unspecified,
    /// `AF_INET` or `AF_INET6`.
    Inet(SocketAddr),
    /// `AF_UNIX`.
    Unix(UnixAddr),
    /// `AF_NETLINK`.
    Netlink {
        /// Port id.
        port: u32,
        /// Multicast groups.
        groups: u32,
    },
    /// `AF_PACKET`.
    Packet(LinkAddr),
    /// `AF_VSOCK`.
    Vsock {
        /// Which machine.
        cid: u32,
        /// The port.
        port: u32,
    },
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    let bytes = bytes.get(at..at + 2).ok_or(Errno::EINVAL)?;
    Ok(u16::from_ne_bytes([bytes[0], bytes[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..at + 4).ok_or(Errno::EINVAL)?;
    Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

impl Address {
    /// Reads an address from the bytes the program gave.
    ///
    /// # Errors
    /// `EINVAL` when it is too short or too long for its family, `EAFNOSUPPORT` for a family that
    /// is not here.
    pub fn parse(bytes: &[u8]) -> Result<Address> {
        if bytes.len() > MAX_LEN {
            return Err(Errno::EINVAL);
        }
        match u16_at(bytes, 0)? {
            AF_UNSPEC => Ok(Address::Unspecified),
            AF_UNIX => UnixAddr::parse(bytes).map(Address::Unix),
            AF_INET => parse_inet(bytes).map(Address::Inet),
            AF_INET6 => parse_inet6(bytes).map(Address::Inet),
            AF_NETLINK if bytes.len() >= NETLINK_LEN => Ok(Address::Netlink {
                port: u32_at(bytes, 4)?,
                groups: u32_at(bytes, 8)?,
            }),
            AF_NETLINK => Err(Errno::EINVAL),
            AF_PACKET => parse_packet(bytes).map(Address::Packet),
            // Linux's `vsock_addr_cast` and `vsock_addr_validate`.
            AF_VSOCK if bytes.len() < VSOCK_LEN || bytes[13..VSOCK_LEN] != [0; 3] => {
                Err(Errno::EINVAL)
            }
            AF_VSOCK => Ok(Address::Vsock {
                port: u32_at(bytes, 4)?,
                cid: u32_at(bytes, 8)?,
            }),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// The bytes a call answers with.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(INET6_LEN);
        match self {
            Address::Unspecified => out.extend(AF_UNSPEC.to_ne_bytes()),
            Address::Inet(SocketAddr::V4(addr)) => {
                out.extend(AF_INET.to_ne_bytes());
                out.extend(addr.port().to_be_bytes());
                out.extend(addr.ip().octets());
                out.resize(INET_LEN, 0);
            }
            Address::Inet(SocketAddr::V6(addr)) => {
                out.extend(AF_INET6.to_ne_bytes());
                out.extend(addr.port().to_be_bytes());
                out.extend(addr.flowinfo().to_be_bytes());
                out.extend(addr.ip().octets());
                out.extend(addr.scope_id().to_ne_bytes());
            }
            Address::Unix(addr) => addr.write(&mut out),
            Address::Netlink { port, groups } => {
                out.extend(AF_NETLINK.to_ne_bytes());
                out.extend([0, 0]);
                out.extend(port.to_ne_bytes());
                out.extend(groups.to_ne_bytes());
            }
            Address::Packet(addr) => {
                out.extend(AF_PACKET.to_ne_bytes());
                out.extend(addr.protocol.to_be_bytes());
                out.extend(addr.index.to_ne_bytes());
                out.extend(addr.hardware.to_ne_bytes());
                out.extend([addr.kind, addr.len]);
                let len = if addr.padded {
                    8
                } else {
                    usize::from(addr.len.min(8))
                };
                out.extend_from_slice(&addr.addr[..len]);
            }
            Address::Vsock { cid, port } => {
                out.extend(AF_VSOCK.to_ne_bytes());
                out.extend([0, 0]);
                out.extend(port.to_ne_bytes());
                out.extend(cid.to_ne_bytes());
                out.resize(VSOCK_LEN, 0);
            }
        }
        out
    }
}

fn parse_packet(bytes: &[u8]) -> Result<LinkAddr> {
    if bytes.len() < PACKET_LEN {
        return Err(Errno::EINVAL);
    }
    let mut addr = [0; 8];
    addr.copy_from_slice(&bytes[12..PACKET_LEN]);
    Ok(LinkAddr {
        protocol: u16::from_be_bytes([bytes[2], bytes[3]]),
        index: u32_at(bytes, 4)?,
        hardware: u16_at(bytes, 8)?,
        kind: bytes[10],
        len: bytes[11],
        addr,
        padded: false,
    })
}

fn parse_inet(bytes: &[u8]) -> Result<SocketAddr> {
    let [_, _, p0, p1, a, b, c, d, ..] = *bytes else {
        return Err(Errno::EINVAL);
    };
    if bytes.len() < INET_LEN {
        return Err(Errno::EINVAL);
    }
    let ip = Ipv4Addr::new(a, b, c, d);
    Ok(SocketAddrV4::new(ip, u16::from_be_bytes([p0, p1])).into())
}

fn parse_inet6(bytes: &[u8]) -> Result<SocketAddr> {
    if bytes.len() < INET6_MIN_LEN {
        return Err(Errno::EINVAL);
    }
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[8..24]);
    let scope = if bytes.len() >= INET6_LEN {
        u32_at(bytes, 24)?
    } else {
        0
    };
    Ok(SocketAddrV6::new(
        Ipv6Addr::from(octets),
        u16::from_be_bytes([bytes[2], bytes[3]]),
        u32::from_be(u32_at(bytes, 4)?),
        scope,
    )
    .into())
}

impl UnixAddr {
    /// Reads a `struct sockaddr_un` of `bytes.len()` bytes.
    ///
    /// # Errors
    /// `EINVAL` for a wrong length or family.
    pub fn parse(bytes: &[u8]) -> Result<UnixAddr> {
        if bytes.len() > UNIX_LEN || u16_at(bytes, 0)? != AF_UNIX {
            return Err(Errno::EINVAL);
        }
        let name = &bytes[2..];
        Ok(match name.first() {
            None => UnixAddr::Unnamed,
            Some(0) => UnixAddr::Abstract(name[1..].to_vec()),
            Some(_) => {
                let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
                UnixAddr::Path(name[..end].to_vec())
            }
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(AF_UNIX.to_ne_bytes());
        match self {
            UnixAddr::Unnamed => {}
            UnixAddr::Path(path) => {
                out.extend_from_slice(path);
                out.push(0);
            }
            UnixAddr::Abstract(name) => {
                out.push(0);
                out.extend_from_slice(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_a_round_trip() {
        for text in ["127.0.0.1:80", "[::1]:443", "[fe80::1%3]:9"] {
            let addr: SocketAddr = text.parse().unwrap();
            let address = Address::Inet(addr);
            assert_eq!(Address::parse(&address.to_bytes()), Ok(address));
        }
        let netlink = Address::Netlink { port: 7, groups: 3 };
        assert_eq!(Address::parse(&netlink.to_bytes()), Ok(netlink));
    }

    #[test]
    fn unix_names() {
        assert_eq!(UnixAddr::parse(&[1, 0]), Ok(UnixAddr::Unnamed));
        assert_eq!(
            UnixAddr::parse(b"\x01\0/a/b\0junk"),
            Ok(UnixAddr::Path(b"/a/b".to_vec()))
        );
        assert_eq!(
            UnixAddr::parse(b"\x01\0\0x\0y"),
            Ok(UnixAddr::Abstract(b"x\0y".to_vec()))
        );
        let mut longest = vec![b'x'; UNIX_LEN];
        longest[..2].copy_from_slice(&AF_UNIX.to_ne_bytes());
        assert_eq!(
            UnixAddr::parse(&longest),
            Ok(UnixAddr::Path(vec![b'x'; 108]))
        );
        longest.push(b'x');
        assert_eq!(UnixAddr::parse(&longest), Err(Errno::EINVAL));
        let name = UnixAddr::Abstract(b"n".to_vec());
        assert_eq!(Address::Unix(name).to_bytes(), b"\x01\0\0n");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for family in [0u16, 1, 2, 10, 16, 17, 0xffff] {
            for len in 0..=MAX_LEN + 2 {
                let mut bytes = vec![0xa5; len];
                for (to, from) in bytes.iter_mut().zip(family.to_ne_bytes()) {
                    *to = from;
                }
                let parsed = Address::parse(&bytes);
                if len < 2 {
                    assert_eq!(parsed, Err(Errno::EINVAL));
                }
                if family == AF_INET {
                    assert_eq!(parsed.is_ok(), (INET_LEN..=MAX_LEN).contains(&len));
                }
            }
        }
    }
}
