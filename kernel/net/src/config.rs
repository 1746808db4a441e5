//! What an engine is made with: its clock, its secrets, its limits, and how an interface gets its addresses.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::option::Congestion;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address itself; for a route, its network.
    pub addr: IpAddr,
    /// 0–32 or 0–128.
    pub prefix: u8,
}

impl Cidr {
    /// An address and its prefix length; `None` when the length is too large for the family.
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Cidr> {
        let max = if addr.is_ipv4() { 32 } else { 128 };
        (prefix <= max).then_some(Cidr { addr, prefix })
    }

    /// IPv4 address and netmask; `None` when the mask has holes.
    pub fn from_netmask(addr: Ipv4Addr, mask: Ipv4Addr) -> Option<Cidr> {
        let bits = mask.to_bits();
        let prefix = bits.leading_ones() as u8;
        (bits.count_ones() == u32::from(prefix)).then_some(Cidr {
            addr: addr.into(),
            prefix,
        })
    }

    /// Whether `addr` is in this network.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mask = mask4(self.prefix);
                a.to_bits() & mask == b.to_bits() & mask
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = mask6(self.prefix);
                a.to_bits() & mask == b.to_bits() & mask
            }
            _ => false,
        }
    }

    /// The network, host bits cleared.
    pub fn network(&self) -> Cidr {
        let addr = match self.addr {
            IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() & mask4(self.prefix)).into(),
            IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() & mask6(self.prefix)).into(),
        };
        Cidr {
            addr,
            prefix: self.prefix,
        }
    }

    /// The directed broadcast address of an IPv4 network that has one.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.addr {
            IpAddr::V4(a) if self.prefix < 31 => {
                Some(Ipv4Addr::from_bits(a.to_bits() | !mask4(self.prefix)))
            }
            _ => None,
        }
    }

    /// The netmask of an IPv4 prefix.
    pub fn netmask(&self) -> Option<Ipv4Addr> {
        self.addr
            .is_ipv4()
            .then(|| Ipv4Addr::from_bits(mask4(self.prefix)))
    }
}

const fn mask4(prefix: u8) -> u32 {
    match prefix {
        0 => 0,
        32.. => u32::MAX,
        p => u32::MAX << (32 - p),
    }
}

const fn mask6(prefix: u8) -> u128 {
    match prefix {
        0 => 0,
        128.. => u128::MAX,
        p => u128::MAX << (128 - p),
    }
}

/// How an interface gets its addresses.
#[derive(Clone, Debug, Default)]
pub struct IfConfig {
    /// IPv4.
    pub ipv4: Ipv4Config,
    /// IPv6.
    pub ipv6: Ipv6Config,
    /// Overrides the device's MTU (never raises it).
    pub mtu: Option<u16>,
}

/// IPv4 configuration of an interface.
#[derive(Clone, Debug, Default)]
pub enum Ipv4Config {
    /// No address until one is added by hand.
    #[default]
    None,
    /// RFC 2131.
    Dhcp,
    /// Fixed.
    Static {
        /// Address and prefix.
        addr: Cidr,
        /// Default router.
        gateway: Option<Ipv4Addr>,
    },
}

/// IPv6 configuration of an interface.
#[derive(Clone, Debug, Default)]
pub enum Ipv6Config {
    /// No IPv6 on this interface.
    #[default]
    None,
    /// Link-local address, SLAAC from router advertisements, DHCPv6 when they say so.
    Auto,
    /// Fixed, besides the link-local address.
    Static {
        /// Address and prefix.
        addr: Cidr,
        /// Default router.
        gateway: Option<Ipv6Addr>,
    },
}

/// What automatic configuration learned (DHCP's lease, a router's DNS list).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Interface index.
    pub index: u32,
    /// The address, or `None` when the lease was lost.
    pub addr: Option<Cidr>,
    /// Routers, the first is the default route unless there are classless routes.
    pub routers: Vec<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Domain name.
    pub domain: Option<String>,
    /// Host name.
    pub host_name: Option<String>,
    /// Search list (option 119), as dotted names.
    pub search: Vec<String>,
    /// Time servers (option 42).
    pub ntp: Vec<Ipv4Addr>,
    /// Seconds the lease is valid.
    pub lifetime_s: u32,
}

/// A clock in nanoseconds that never goes back.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Bounds on what the engine holds, and Linux's `sysctl` values that programs can see.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes in all socket buffers together (`tcp_mem` + `udp_mem`).
    pub memory: usize,
    /// Largest receive buffer auto-tuning reaches (`tcp_rmem[2]`).
    pub tcp_rmem_max: usize,
    /// Receive buffer at the start (`tcp_rmem[1]`).
    pub tcp_rmem: usize,
    /// Largest send buffer auto-tuning reaches (`tcp_wmem[2]`).
    pub tcp_wmem_max: usize,
    /// Send buffer at the start (`tcp_wmem[1]`).
    pub tcp_wmem: usize,
    /// Most a program may ask for with `SO_RCVBUF` (`rmem_max`).
    pub rmem_max: usize,
    /// Most a program may ask for with `SO_SNDBUF` (`wmem_max`).
    pub wmem_max: usize,
    /// Default datagram buffers (`rmem_default`).
    pub rmem_default: usize,
    /// Largest `listen` backlog (`somaxconn`).
    pub somaxconn: u32,
    /// SYN queue length of a listener (`tcp_max_syn_backlog`).
    pub syn_backlog: u32,
    /// `tcp_syncookies`.
    pub syn_cookies: bool,
    /// First and last ephemeral port (`ip_local_port_range`).
    pub port_range: (u16, u16),
    /// TIME-WAIT records (`tcp_max_tw_buckets`).
    pub time_wait: usize,
    /// Connections and half-open ones together.
    pub connections: usize,
    /// Bytes held for reassembly of fragments (`ipfrag_high_thresh`).
    pub fragments: usize,
    /// Entries of the neighbour cache.
    pub neighbours: usize,
    /// Default congestion control.
    pub congestion: Congestion,
    /// `tcp_ecn`: 0 never, 1 ask for it and agree, 2 agree when asked.
    pub tcp_ecn: u8,
    /// `tcp_fin_timeout`, in nanoseconds.
    pub fin_timeout_ns: u64,
    /// TIME-WAIT's length in nanoseconds.
    pub time_wait_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: 64 << 20,
            tcp_rmem_max: 6 << 20,
            tcp_rmem: 131_072,
            tcp_wmem_max: 6 << 20,
            tcp_wmem: 16_384,
            rmem_max: 4 << 20,
            wmem_max: 4 << 20,
            rmem_default: 212_992,
            somaxconn: 4096,
            syn_backlog: 1024,
            syn_cookies: true,
            port_range: (32_768, 60_999),
            time_wait: 32_768,
            connections: 262_144,
            fragments: 4 << 20,
            neighbours: 1024,
            congestion: Congestion::Cubic,
            tcp_ecn: 2,
            fin_timeout_ns: 60_000_000_000,
            time_wait_ns: 60_000_000_000,
        }
    }
}

impl Limits {
    /// Bounds that fit a machine with `ram` bytes: a quarter of them for socket buffers at most.
    pub fn for_ram(ram: usize) -> Limits {
        let usual = Limits::default();
        Limits {
            memory: (ram / 4).clamp(2 << 20, 1 << 30),
            fragments: (ram / 64).clamp(256 << 10, usual.fragments),
            connections: (ram / 4096).clamp(1024, usual.connections),
            time_wait: (ram / 8192).clamp(1024, usual.time_wait),
            tcp_rmem_max: (ram / 16).clamp(256 << 10, usual.tcp_rmem_max),
            tcp_wmem_max: (ram / 16).clamp(256 << 10, usual.tcp_wmem_max),
            ..usual
        }
    }
}

/// What [`Stack::new`](crate::Stack::new) needs.
#[derive(Clone)]
pub struct Config {
    /// Time.
    pub clock: Clock,
    /// 256 secret random bits: keys of hashes, sequence numbers, ports and SYN cookies.
    pub secret: [u64; 4],
    /// Sent to the DHCP server.
    pub host_name: Option<String>,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// The usual bounds, with this clock and secret.
    pub fn new(clock: Clock, secret: [u64; 4]) -> Config {
        Config {
            clock,
            secret,
            host_name: None,
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("host_name", &self.host_name)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
