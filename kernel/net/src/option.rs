//! Socket options as typed values: what `setsockopt(2)` and `getsockopt(2)` mean, without their
//! encoding. Decoding the program's bytes is `linux`'s work; what an option does is the socket's.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use crate::bpf::Program;
use crate::tcp::info::TcpInfo;
use crate::udp::TxStamps;

/// Which algorithm drives a connection's congestion window (`TCP_CONGESTION`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Congestion {
    /// RFC 5681 / 6582.
    Reno,
    /// RFC 9438, the default.
    #[default]
    Cubic,
}

impl Congestion {
    /// All that can be chosen, as `tcp_available_congestion_control` lists them.
    pub const ALL: [Congestion; 2] = [Congestion::Reno, Congestion::Cubic];

    /// The name programs use.
    pub const fn name(self) -> &'static str {
        match self {
            Congestion::Reno => "reno",
            Congestion::Cubic => "cubic",
        }
    }

    /// The algorithm of that name.
    pub fn by_name(name: &[u8]) -> Option<Congestion> {
        Self::ALL.into_iter().find(|c| c.name().as_bytes() == name)
    }
}

/// What `IP_MTU_DISCOVER` and `IPV6_MTU_DISCOVER` choose between (`ip(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum MtuDiscover {
    /// Never set the don't-fragment bit.
    Dont = 0,
    /// Set it on streams, fragment datagrams that are too large.
    #[default]
    Want = 1,
    /// Always set it; too large is `EMSGSIZE`.
    Do = 2,
    /// Set it, and ignore what path-MTU discovery learned.
    Probe = 3,
    /// Use the interface's MTU, accept no news of a smaller one, set no don't-fragment bit.
    Interface = 4,
    /// As `Interface`, and fragment what is too large.
    Omit = 5,
}

impl MtuDiscover {
    /// From the number the program gave.
    pub const fn from_raw(raw: u32) -> Option<MtuDiscover> {
        Some(match raw {
            0 => MtuDiscover::Dont,
            1 => MtuDiscover::Want,
            2 => MtuDiscover::Do,
            3 => MtuDiscover::Probe,
            4 => MtuDiscover::Interface,
            5 => MtuDiscover::Omit,
            _ => return None,
        })
    }
}

/// A multicast group and where it is joined (`struct ip_mreqn`, `struct ipv6_mreq`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: IpAddr,
    /// The interface's own address, or unspecified.
    pub interface: Ipv4Addr,
    /// The interface's index, or 0 to choose by `interface` or by route.
    pub index: u32,
}

/// A group joined for one sender, or a sender that is blocked (`struct ip_mreq_source`, `struct group_source_req`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceMembership {
    /// The group and where.
    pub membership: Membership,
    /// The sender.
    pub source: IpAddr,
}

/// The whole filter of a group (`struct ip_msfilter`, `struct group_filter`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFilter {
    /// The group and where.
    pub membership: Membership,
    /// All but `sources`; else only those.
    pub exclude: bool,
    /// Senders.
    pub sources: Vec<IpAddr>,
}

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident($type:ty),)*) => {
        /// An option with its value.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Opt { $($(#[$doc])* $name($type),)* }

        /// An option's name alone, for [`Socket::option`](crate::Socket::option).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum OptName { $($(#[$doc])* $name,)* }

        impl Opt {
            /// Which option this is a value of.
            pub const fn name(&self) -> OptName {
                match self { $(Opt::$name(_) => OptName::$name,)* }
            }
        }
    };
}

options! {
    /// `SO_REUSEADDR`.
    ReuseAddr(bool),
    /// `SO_REUSEPORT`.
    ReusePort(bool),
    /// `SO_KEEPALIVE`.
    KeepAlive(bool),
    /// `SO_BROADCAST`.
    Broadcast(bool),
    /// `SO_DONTROUTE`.
    DontRoute(bool),
    /// `SO_OOBINLINE`.
    OobInline(bool),
    /// `SO_LINGER`: `None` is off.
    Linger(Option<Duration>),
    /// `SO_RCVBUF` in bytes as the program asked for; the answer is the doubled value, as Linux's is.
    RcvBuf(u32),
    /// `SO_SNDBUF`, likewise.
    SndBuf(u32),
    /// `SO_RCVBUFFORCE`: as `RcvBuf` without the limit of `rmem_max`.
    RcvBufForce(u32),
    /// `SO_SNDBUFFORCE`.
    SndBufForce(u32),
    /// `SO_RCVLOWAT` in bytes.
    RcvLowat(u32),
    /// `SO_BINDTODEVICE`, as an interface index (0 = none).
    BindToDevice(u32),
    /// `SO_TIMESTAMP`/`SO_TIMESTAMPNS`: deliver [`Control::Timestamp`](crate::Control::Timestamp).
    Timestamp(bool),
    /// `SO_ACCEPTCONN`, read only.
    AcceptConn(bool),
    /// `SO_INCOMING_CPU`, read only.
    IncomingCpu(u32),
    /// `SO_RXQ_OVFL`: deliver [`Control::Dropped`](crate::Control::Dropped).
    RxqOvfl(bool),
    /// `SO_MAX_PACING_RATE` in bytes for each second.
    MaxPacingRate(u64),
    /// `SO_TIMESTAMPING` for what is sent, write only.
    TxStamps(TxStamps),
    /// `SO_ATTACH_FILTER` and, with none, `SO_DETACH_FILTER`.
    Filter(Option<Arc<Program>>),

    /// `TCP_NODELAY`.
    NoDelay(bool),
    /// `TCP_CORK`.
    Cork(bool),
    /// `TCP_MAXSEG`.
    MaxSeg(u32),
    /// `TCP_KEEPIDLE` in seconds.
    KeepIdle(u32),
    /// `TCP_KEEPINTVL` in seconds.
    KeepIntvl(u32),
    /// `TCP_KEEPCNT`.
    KeepCnt(u32),
    /// `TCP_SYNCNT`.
    SynCnt(u32),
    /// `TCP_LINGER2` in seconds; negative means never wait in FIN-WAIT-2.
    Linger2(i32),
    /// `TCP_DEFER_ACCEPT` in seconds.
    DeferAccept(u32),
    /// `TCP_WINDOW_CLAMP` in bytes.
    WindowClamp(u32),
    /// `TCP_QUICKACK`.
    QuickAck(bool),
    /// `TCP_CONGESTION`.
    Congestion(Congestion),
    /// `TCP_USER_TIMEOUT` in milliseconds.
    UserTimeout(u32),
    /// `TCP_FASTOPEN`: the queue's length on a listener.
    FastOpen(u32),
    /// `TCP_FASTOPEN_CONNECT`.
    FastOpenConnect(bool),
    /// `TCP_NOTSENT_LOWAT` in bytes.
    NotSentLowat(u32),
    /// `TCP_INFO`, read only.
    Info(Box<TcpInfo>),

    /// `UDP_CORK`.
    UdpCork(bool),
    /// `UDP_SEGMENT` in bytes.
    UdpSegment(u16),
    /// `UDP_GRO`.
    UdpGro(bool),

    /// `IP_TOS`.
    Tos(u8),
    /// `IP_TTL`.
    Ttl(u8),
    /// `IP_HDRINCL`.
    HdrIncl(bool),
    /// `IP_PKTINFO`.
    PktInfo(bool),
    /// `IP_RECVTTL`.
    RecvTtl(bool),
    /// `IP_RECVTOS`.
    RecvTos(bool),
    /// `IP_RECVERR`.
    RecvErr(bool),
    /// `IP_RECVORIGDSTADDR`.
    RecvOrigDstAddr(bool),
    /// `IP_MINTTL`: segments of a TCP connection with a smaller TTL are dropped. Datagram sockets keep it only, as on Linux.
    MinTtl(u8),
    /// `IPV6_MINHOPCOUNT`, likewise.
    MinHops(u8),
    /// `IP_MTU_DISCOVER`.
    MtuDiscover(MtuDiscover),
    /// `IP_MTU`, read only, of a connected socket.
    Mtu(u32),
    /// `IP_FREEBIND`.
    FreeBind(bool),
    /// `IP_TRANSPARENT`.
    Transparent(bool),
    /// `IP_BIND_ADDRESS_NO_PORT`.
    BindAddressNoPort(bool),
    /// `IP_LOCAL_PORT_RANGE`: of the ports that the system chooses from, the first (low half) and the last that it may; 0 leaves
    /// that end as it is.
    LocalPortRange(u32),
    /// `IP_MULTICAST_TTL`.
    MulticastTtl(u8),
    /// `IP_MULTICAST_LOOP`.
    MulticastLoop(bool),
    /// `IP_MULTICAST_IF`, as interface address and index (0 = by route).
    MulticastIf((Ipv4Addr, u32)),
    /// `IP_MULTICAST_ALL`.
    MulticastAll(bool),
    /// `IP_ADD_MEMBERSHIP` and `IPV6_JOIN_GROUP`, write only.
    Join(Membership),
    /// `IP_DROP_MEMBERSHIP` and `IPV6_LEAVE_GROUP`, write only.
    Leave(Membership),
    /// `IP_ADD_SOURCE_MEMBERSHIP` and `MCAST_JOIN_SOURCE_GROUP`, write only.
    JoinSource(SourceMembership),
    /// `IP_DROP_SOURCE_MEMBERSHIP` and `MCAST_LEAVE_SOURCE_GROUP`, write only.
    LeaveSource(SourceMembership),
    /// `IP_BLOCK_SOURCE` and `MCAST_BLOCK_SOURCE`, write only.
    BlockSource(SourceMembership),
    /// `IP_UNBLOCK_SOURCE` and `MCAST_UNBLOCK_SOURCE`, write only.
    UnblockSource(SourceMembership),
    /// `IP_MSFILTER` and `MCAST_MSFILTER`, write only.
    SourceFilter(GroupFilter),

    /// `IPV6_V6ONLY`.
    V6Only(bool),
    /// `IPV6_UNICAST_HOPS`; `None` is the default.
    UnicastHops(Option<u8>),
    /// `IPV6_MULTICAST_HOPS`.
    MulticastHops(Option<u8>),
    /// `IPV6_MULTICAST_IF`, an interface index.
    MulticastIf6(u32),
    /// `IPV6_MULTICAST_LOOP`.
    MulticastLoop6(bool),
    /// `IPV6_RECVPKTINFO`.
    RecvPktInfo6(bool),
    /// `IPV6_RECVHOPLIMIT`.
    RecvHopLimit(bool),
    /// `IPV6_RECVTCLASS`.
    RecvTClass(bool),
    /// `IPV6_TCLASS`.
    TClass(u8),
    /// `IPV6_RECVERR`.
    RecvErr6(bool),
    /// `IPV6_MTU_DISCOVER`.
    MtuDiscover6(MtuDiscover),
    /// `IPV6_DONTFRAG`: a datagram that is too large is `EMSGSIZE`.
    DontFrag6(bool),
    /// `IPV6_RECVORIGDSTADDR`.
    RecvOrigDstAddr6(bool),
    /// `IPV6_MTU`.
    Mtu6(u32),
    /// `ICMP_FILTER` of a raw ICMP socket: a set bit blocks that type.
    IcmpFilter(u32),
    /// `ICMPV6_FILTER`: a set bit blocks that type.
    Icmp6Filter([u32; 8]),
    /// `IPV6_CHECKSUM`: offset of a checksum the kernel fills on a raw socket; negative is off.
    Checksum6(i32),
}

/// An IPv4 address as the v4-mapped IPv6 address a dual-stack socket shows.
pub(crate) fn mapped(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped(),
        IpAddr::V6(a) => a,
    }
}
