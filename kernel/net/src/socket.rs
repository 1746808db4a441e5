//! The face every socket shows to the room above: one trait, and the values that go through it.
//! What a kind of socket does with a call lies in `tcp::socket`, `udp`, `raw`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bitflags::bitflags;
use errno::{Errno, Result};
use iobuf::{Sink, Source};

use crate::option::{Opt, OptName};
use crate::poll::{Events, Pollee};

/// `AF_INET` or `AF_INET6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6, and IPv4 through mapped addresses unless `IPV6_V6ONLY`.
    Inet6,
}

/// `SOCK_STREAM` and its siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A byte stream: TCP.
    Stream,
    /// Datagrams: UDP, or ICMP echo ("ping sockets").
    Dgram,
    /// Whole IP packets.
    Raw,
}

bitflags! {
    /// `MSG_*` of `send(2)` and `recv(2)`, with Linux's values. Flags a call does not know are ignored, as there.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MsgFlags: u32 {
        /// Urgent data.
        const OOB = 0x1;
        /// Look without taking.
        const PEEK = 0x2;
        /// Send to a directly connected host only.
        const DONTROUTE = 0x4;
        /// Answer only: control data did not fit.
        const CTRUNC = 0x8;
        /// Return the datagram's real length; in an answer: it was cut.
        const TRUNC = 0x20;
        /// Do not wait. The engine never waits; the room above does.
        const DONTWAIT = 0x40;
        /// End of record.
        const EOR = 0x80;
        /// Wait for all of it. The room above loops.
        const WAITALL = 0x100;
        /// Confirm the neighbour.
        const CONFIRM = 0x800;
        /// From the error queue.
        const ERRQUEUE = 0x2000;
        /// No SIGPIPE. The room above raises the signal.
        const NOSIGNAL = 0x4000;
        /// More is coming: hold back a part-filled segment.
        const MORE = 0x8000;
        /// Completion is told through the error queue.
        const ZEROCOPY = 0x400_0000;
        /// Connect with data in the SYN.
        const FASTOPEN = 0x2000_0000;
    }
}

/// `how` of `shutdown(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// `SHUT_RD`.
    Read,
    /// `SHUT_WR`.
    Write,
    /// `SHUT_RDWR`.
    Both,
}

impl Shutdown {
    /// Whether the receiving side is closed by it.
    pub const fn read(self) -> bool {
        matches!(self, Shutdown::Read | Shutdown::Both)
    }

    /// Whether the sending side is closed by it.
    pub const fn write(self) -> bool {
        matches!(self, Shutdown::Write | Shutdown::Both)
    }
}

/// An entry of the error queue (`struct sock_extended_err`, `ip(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    /// The error.
    pub errno: Errno,
    /// Where from: 0 none, 1 local, 2 ICMP, 3 ICMPv6, 4 transmit status, 5 zero copy.
    pub origin: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// The path MTU for `EMSGSIZE`; the first notification's number for zero copy.
    pub info: u32,
    /// The last notification's number for zero copy.
    pub data: u32,
    /// Who sent the ICMP message.
    pub offender: Option<IpAddr>,
}

/// A control message (`cmsg(3)`), in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// `IP_PKTINFO`: interface, the local address used, the header's destination address.
    PktInfo {
        /// Interface index.
        index: u32,
        /// `ipi_spec_dst`.
        local: Ipv4Addr,
        /// `ipi_addr`.
        dst: Ipv4Addr,
    },
    /// `IPV6_PKTINFO`.
    PktInfo6 {
        /// Interface index.
        index: u32,
        /// The address.
        addr: Ipv6Addr,
    },
    /// `IP_TTL`.
    Ttl(u8),
    /// `IPV6_HOPLIMIT`.
    HopLimit(u8),
    /// `IP_TOS`.
    Tos(u8),
    /// `IPV6_TCLASS`.
    TClass(u8),
    /// When it arrived, in nanoseconds of the engine's clock (`SO_TIMESTAMP*`).
    Timestamp(u64),
    /// How many datagrams were dropped for want of room before this one (`SO_RXQ_OVFL`).
    Dropped(u32),
    /// `UDP_SEGMENT` when sending, `UDP_GRO` when receiving: bytes of each datagram.
    UdpSegment(u16),
    /// `IP_ORIGDSTADDR`.
    OrigDst(SocketAddr),
    /// `IP_RECVERR` or `IPV6_RECVERR`.
    RecvErr(ExtendedError),
}

/// What goes with a `sendmsg(2)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendMeta<'a> {
    /// The destination, when the call names one.
    pub to: Option<SocketAddr>,
    /// The call's flags.
    pub flags: MsgFlags,
    /// Control messages.
    pub control: &'a [Control],
}

/// What a `recvmsg(2)` brought.
#[derive(Clone, Debug, Default)]
pub struct RecvMeta {
    /// Bytes put into the sink.
    pub len: usize,
    /// The datagram's whole length (for `MSG_TRUNC`); equals `len` for streams.
    pub full_len: usize,
    /// Who sent it (datagrams; for the error queue, the original destination).
    pub from: Option<SocketAddr>,
    /// `TRUNC`, `ERRQUEUE`, `OOB` as they apply.
    pub flags: MsgFlags,
    /// Control messages the socket's options ask for.
    pub control: Vec<Control>,
}

/// What a socket of messages is ready for: `waiting` ones can be read, `shut` says which directions are closed (reading,
/// writing), `failed` that there is an error to tell.
pub(crate) fn datagram_events(waiting: bool, shut: (bool, bool), failed: bool) -> Events {
    let mut events = Events::OUT | Events::WRNORM;
    events.set(Events::IN | Events::RDNORM, waiting || shut.0);
    events.set(Events::RDHUP, shut.0);
    events.set(Events::HUP, shut == (true, true));
    events.set(Events::ERR, failed);
    events
}

/// A socket of any kind.
///
/// No call here waits for the network: what cannot be done at once is `EAGAIN` (or `EINPROGRESS`), and
/// [`Socket::pollee`] tells when to try again. A call may sleep for another thread's copy on the same
/// socket to finish. Calls a kind does not have answer `EOPNOTSUPP`.
pub trait Socket: Send + Sync {
    /// The address family it was made with.
    fn family(&self) -> Family;

    /// The kind it was made with.
    fn kind(&self) -> Kind;

    /// The protocol number (`IPPROTO_TCP` and so on).
    fn protocol(&self) -> u8;

    /// `bind(2)`.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EADDRNOTAVAIL`, `EINVAL` (already bound, or the wrong family), `EAFNOSUPPORT`.
    fn bind(&self, addr: SocketAddr) -> Result<()>;

    /// `listen(2)`; the backlog is cut to `somaxconn`.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EINVAL`, `EOPNOTSUPP`.
    fn listen(&self, backlog: u32) -> Result<()> {
        let _ = backlog;
        Err(Errno::EOPNOTSUPP)
    }

    /// Takes a connection off the accept queue.
    ///
    /// # Errors
    /// `EAGAIN` when there is none, `EINVAL` when it does not listen.
    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Starts `connect(2)`. On a stream the first call answers `EINPROGRESS`; wait on the pollee for
    /// `OUT`, `ERR` or `HUP` and call [`Socket::connect_result`]. `None` is `AF_UNSPEC`: dissolve a datagram association.
    ///
    /// # Errors
    /// `EINPROGRESS`, `EALREADY`, `EISCONN`, `ENETUNREACH`, `EADDRNOTAVAIL`, ...
    fn connect(&self, addr: Option<SocketAddr>) -> Result<()>;

    /// How a connection attempt ended: `None` while it goes on. Takes the pending error, so that one failure is told once.
    fn connect_result(&self) -> Option<Result<()>> {
        Some(Ok(()))
    }

    /// Sends from `source`, as much as there is room for (streams), or one datagram.
    ///
    /// # Errors
    /// `EAGAIN`, `EPIPE` (the caller raises SIGPIPE), `ENOTCONN`, `EMSGSIZE`, `EDESTADDRREQ`, a pending socket error, ...
    fn send(&self, source: &mut dyn Source, meta: &SendMeta) -> Result<usize>;

    /// Receives into `sink`: what is there (streams; `len` 0 is end of file), or one datagram.
    ///
    /// # Errors
    /// `EAGAIN`, `ENOTCONN`, a pending socket error, ...
    fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<RecvMeta>;

    /// Peeks at a datagram from byte `off` of all that is queued: those that end before it are passed over
    /// (`SO_PEEK_OFF`).
    ///
    /// # Errors
    /// As [`Socket::recv`], and `EAGAIN` when nothing reaches that far; `EOPNOTSUPP` by default.
    fn peek_from(&self, off: usize, sink: &mut dyn Sink, flags: MsgFlags) -> Result<RecvMeta> {
        let _ = (off, sink, flags);
        Err(Errno::EOPNOTSUPP)
    }

    /// Whether [`Socket::peek_from`] has an answer other than `EAGAIN`.
    fn can_peek(&self, off: usize) -> bool {
        let _ = off;
        true
    }

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// `ENOTCONN`.
    fn shutdown(&self, how: Shutdown) -> Result<()>;

    /// The last descriptor is gone. Data not yet sent is still delivered in the background, except as
    /// `SO_LINGER` with zero time has it. Waiting for a positive linger time is the caller's: poll [`Socket::linger_pending`].
    fn close(&self);

    /// Whether a closed stream still has data or a FIN to be acknowledged.
    fn linger_pending(&self) -> bool {
        false
    }

    /// `getsockname(2)`.
    ///
    /// # Errors
    /// None for these families; unbound is the unspecified address.
    fn local_addr(&self) -> Result<SocketAddr>;

    /// `getpeername(2)`.
    ///
    /// # Errors
    /// `ENOTCONN`.
    fn peer_addr(&self) -> Result<SocketAddr>;

    /// `setsockopt(2)`.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for an option of another kind of socket, `EINVAL`, `EDOM`, `EADDRNOTAVAIL`, ...
    fn set_option(&self, option: Opt) -> Result<()>;

    /// `getsockopt(2)`.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `ENOTCONN`.
    fn option(&self, name: OptName) -> Result<Opt>;

    /// `SO_ERROR`: the pending error, which is cleared.
    fn take_error(&self) -> Option<Errno>;

    /// What the socket is ready for now.
    fn poll(&self) -> Events;

    /// Where to wait for a change of [`Socket::poll`].
    fn pollee(&self) -> &Pollee;

    /// `SIOCINQ`: bytes that can be read (datagrams: of the next one).
    fn input_queued(&self) -> usize;

    /// `SIOCOUTQ`: bytes not yet acknowledged (streams) or not yet sent.
    fn output_queued(&self) -> usize;

    /// `SIOCATMARK`: whether the next byte to read is where urgent data was.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for other kinds than streams.
    fn at_mark(&self) -> Result<bool> {
        Err(Errno::EOPNOTSUPP)
    }

    /// The socket as its own type.
    fn as_any(&self) -> &dyn Any;
}
