//! What the engine tells about itself: links, addresses, routes, neighbours, sockets. The room above
//! makes netlink answers, `ioctl` answers and `/proc/net` of it.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

pub use crate::route::group_mac;

use crate::config::Cidr;
use crate::stats::IfCounters;

/// An interface.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// Index, from 1 (`lo`).
    pub index: u32,
    /// Name: `lo`, `en1`, ...
    pub name: String,
    /// Hardware address; zeros for `lo`.
    pub mac: [u8; 6],
    /// Largest IP packet.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is the loopback.
    pub loopback: bool,
    /// Whether the device has a carrier.
    pub carrier: bool,
    /// Whether all packets are received.
    pub promiscuous: bool,
    /// Counters.
    pub counters: IfCounters,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddrInfo {
    /// Interface index.
    pub index: u32,
    /// Address and prefix.
    pub addr: Cidr,
    /// Seconds left, `u32::MAX` for ever.
    pub valid_s: u32,
    /// Seconds left as a source that is preferred, `u32::MAX` for ever.
    pub preferred_s: u32,
    /// Nothing automatic made it.
    pub permanent: bool,
    /// Whether duplicate address detection still runs.
    pub tentative: bool,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// Destination network.
    pub dst: Cidr,
    /// Next hop, if not on the link.
    pub gateway: Option<IpAddr>,
    /// Interface index.
    pub index: u32,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Lower is better.
    pub metric: u32,
    /// Who made it (`RTPROT_*`): 2 kernel, 3 boot, 4 static, 9 router advertisement, 16 DHCP.
    pub protocol: u8,
}

/// States of RFC 4861 §7.3.2, used for IPv4 as well (`NUD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum NeighbourState {
    /// Asked, no answer yet.
    Incomplete = 0x01,
    /// Confirmed lately.
    Reachable = 0x02,
    /// Known, not confirmed lately.
    Stale = 0x04,
    /// Used while stale: a probe follows soon.
    Delay = 0x08,
    /// Probing.
    Probe = 0x10,
    /// No answer.
    Failed = 0x20,
    /// Set by hand.
    Permanent = 0x80,
}

/// A neighbour cache entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourInfo {
    /// Interface index.
    pub index: u32,
    /// Address.
    pub addr: IpAddr,
    /// Hardware address if known.
    pub mac: Option<[u8; 6]>,
    /// State.
    pub state: NeighbourState,
}

/// A row of `/proc/net/{tcp,tcp6,udp,udp6,raw,...}`.
#[derive(Clone, Debug)]
pub struct SocketInfo {
    /// Made as `AF_INET6`.
    pub ipv6: bool,
    /// Local end.
    pub local: SocketAddr,
    /// Peer, unspecified if none.
    pub remote: SocketAddr,
    /// Linux's state number (`TCP_ESTABLISHED` = 1, ...; 7 for an unconnected datagram socket).
    pub state: u8,
    /// Bytes not yet acknowledged; for a listener the backlog's limit.
    pub send_queue: usize,
    /// Bytes to read; for a listener the connections to accept.
    pub recv_queue: usize,
    /// Datagrams dropped for want of room.
    pub drops: u64,
    /// Retransmissions of the oldest segment so far.
    pub retransmits: u32,
}

/// A multicast group that an interface listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Interface index.
    pub index: u32,
    /// The group.
    pub group: IpAddr,
    /// Listeners.
    pub users: usize,
    /// All senders but `sources`; else only those.
    pub exclude: bool,
    /// Senders.
    pub sources: Vec<IpAddr>,
    /// We were the last to report it to a router of an older version.
    pub reporter: bool,
}

/// A change someone may listen for (netlink groups).
#[derive(Clone, Debug)]
pub enum Change {
    /// A link came, went or changed.
    Link(LinkInfo),
    /// An address came (`true`) or went.
    Addr(AddrInfo, bool),
    /// A route came (`true`) or went.
    Route(RouteInfo, bool),
    /// A neighbour changed, or went (`false`).
    Neighbour(NeighbourInfo, bool),
    /// Automatic configuration succeeded or was lost.
    Lease(crate::config::Lease),
}
