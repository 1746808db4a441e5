//! Raw sockets (`raw(7)`) and ping sockets (`icmp(7)`): the table of them, and the way of a packet in. Their calls
//! are in `calls`, their options in `sockopt`.

mod calls;
mod sockopt;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicUsize, Ordering};

use errno::{Errno, Result};

use crate::bpf::Attached;
use crate::checksum::Sum;
use crate::errqueue::{ErrorEntry, ErrorQueue};
use crate::icmp::IcmpError;
use crate::iface::ETH;
use crate::ip::{IpMeta, proto};
use crate::ipopts::IpOpts;
use crate::multicast::Members;
use crate::pkt::InPacket;
use crate::poll::{Events, Pollee};
use crate::query::SocketInfo;
use crate::route::Dst;
use crate::socket::Family;
use crate::stack::Stack;
use crate::sync::{RwSpinLock, SleepLock, SpinLock};

/// ICMP and ICMPv6 types of an echo.
const ECHO: u8 = 8;
const ECHO6: u8 = 128;

/// A packet that waits to be received.
struct RawPacket {
    bytes: Vec<u8>,
    from: IpAddr,
    to: IpAddr,
    index: u32,
    ttl: u8,
    tos: u8,
    at: u64,
}

impl RawPacket {
    fn cost(&self) -> usize {
        self.bytes.capacity() + 192
    }
}

/// What the program set.
#[derive(Clone, Debug)]
struct RawOpts {
    ip: IpOpts,
    hdrincl: bool,
    /// A set bit blocks that type.
    icmp_filter: u32,
    icmp6_filter: [u32; 8],
    /// Where a checksum lies; negative is nowhere.
    checksum: i32,
}

struct Inner {
    opts: RawOpts,
    bound: Option<IpAddr>,
    /// A ping socket's identifier, which programs see as its port; 0 before it has one.
    ident: u16,
    /// Peer, and the port `connect` was given.
    remote: Option<(IpAddr, u16)>,
    /// The local address `connect` chose.
    chosen: Option<IpAddr>,
    dst: Option<Dst>,
    queue: VecDeque<RawPacket>,
    queued: usize,
    errors: ErrorQueue,
    error: Option<Errno>,
    shut_read: bool,
    shut_write: bool,
    groups: Members,
    drops: u64,
    closed: bool,
}

/// A raw socket, or a ping socket: see [`crate::Socket`] for its calls.
pub struct RawSocket {
    stack: Arc<Stack>,
    family: Family,
    /// Echoes only, without the IP header.
    ping: bool,
    protocol: u8,
    pollee: Pollee,
    recv_lock: SleepLock<()>,
    filter: Attached,
    inner: SpinLock<Inner>,
}

/// All raw and ping sockets. They are few: each packet is shown to each.
#[derive(Default)]
pub(crate) struct RawTable {
    count: AtomicUsize,
    sockets: RwSpinLock<Vec<Arc<RawSocket>>>,
}

impl RawTable {
    /// Whether there are any.
    #[inline]
    pub fn active(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }

    fn add(&self, socket: Arc<RawSocket>) {
        let mut sockets = self.sockets.write();
        sockets.push(socket);
        self.count.store(sockets.len(), Ordering::Release);
    }

    fn remove(&self, socket: &RawSocket) {
        let mut sockets = self.sockets.write();
        let at = sockets.iter().position(|s| core::ptr::eq(&**s, socket));
        let gone = at.map(|at| sockets.swap_remove(at));
        self.count.store(sockets.len(), Ordering::Release);
        drop(sockets);
        drop(gone);
    }

    fn all(&self) -> Vec<Arc<RawSocket>> {
        self.sockets.read().clone()
    }

    /// The sockets for `/proc/net/raw` or, with `ping`, `/proc/net/icmp`.
    pub fn list(&self, ping: bool) -> Vec<SocketInfo> {
        self.all()
            .iter()
            .filter(|s| s.ping == ping)
            .map(|s| s.describe())
            .collect()
    }

    /// An identifier that no ping socket of the family has.
    fn free_ident(&self, family: Family, start: u16) -> Option<u16> {
        let taken: Vec<u16> = (self.all().iter())
            .filter(|s| s.ping && s.family == family)
            .map(|s| s.inner.lock().ident)
            .collect();
        (0..=u16::MAX)
            .map(|n| start.wrapping_add(n))
            .find(|n| *n != 0 && !taken.contains(n))
    }
}

impl RawSocket {
    /// A new socket.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` for a ping socket of a protocol without echoes, or a raw one without protocol.
    pub fn new(
        stack: &Arc<Stack>,
        family: Family,
        protocol: u8,
        ping: bool,
    ) -> Result<Arc<RawSocket>> {
        let echo = match family {
            Family::Inet => proto::ICMP,
            Family::Inet6 => proto::ICMP6,
        };
        if protocol == 0 || ping && protocol != echo {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let limits = &stack.config().limits;
        let opts = RawOpts {
            ip: IpOpts::new(limits),
            // IPPROTO_RAW implies it.
            hdrincl: protocol == proto::RAW,
            icmp_filter: 0,
            icmp6_filter: [0; 8],
            checksum: if protocol == proto::ICMP6 { 2 } else { -1 },
        };
        let socket = Arc::new(RawSocket {
            stack: stack.clone(),
            family,
            ping,
            protocol,
            pollee: Pollee::new(),
            recv_lock: SleepLock::new(()),
            filter: Attached::default(),
            inner: SpinLock::new(Inner {
                opts,
                bound: None,
                ident: 0,
                remote: None,
                chosen: None,
                dst: None,
                queue: VecDeque::new(),
                queued: 0,
                errors: ErrorQueue::default(),
                error: None,
                shut_read: false,
                shut_write: false,
                groups: Members::default(),
                drops: 0,
                closed: false,
            }),
        });
        stack.raws.add(socket.clone());
        Ok(socket)
    }

    fn is_v6(&self) -> bool {
        self.family == Family::Inet6
    }

    fn any(&self) -> IpAddr {
        match self.family {
            Family::Inet => Ipv4Addr::UNSPECIFIED.into(),
            Family::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Whether a packet between these ends concerns this socket.
    fn takes(&self, inner: &Inner, meta: &IpMeta) -> bool {
        let opts = &inner.opts;
        let own = inner.bound.or(inner.chosen);
        if inner.closed
            || meta.dst.is_ipv6() != self.is_v6()
            || opts.ip.device != 0 && opts.ip.device != meta.iface.index
            || inner.remote.is_some_and(|(peer, _)| peer != meta.src)
            || own.is_some_and(|own| own != meta.dst)
        {
            return false;
        }
        !meta.dst.is_multicast()
            || inner
                .groups
                .allows(meta.dst, meta.iface.index, meta.src, opts.ip.multicast_all)
    }

    fn push(&self, packet: RawPacket) {
        {
            let mut inner = self.inner.lock();
            if inner.closed || inner.shut_read {
                return;
            }
            let cost = packet.cost();
            let full = inner.queued + cost > inner.opts.ip.rcvbuf && !inner.queue.is_empty();
            if full || !self.stack.charge(cost, inner.queue.is_empty()) {
                inner.drops += 1;
                return;
            }
            inner.queued += cost;
            inner.queue.push_back(packet);
        }
        self.pollee.notify(Events::IN | Events::RDNORM);
    }

    fn take_front(&self, inner: &mut Inner) -> Option<RawPacket> {
        let packet = inner.queue.pop_front()?;
        inner.queued -= packet.cost();
        self.stack.discharge(packet.cost());
        Some(packet)
    }

    fn describe(&self) -> SocketInfo {
        let inner = self.inner.lock();
        let (peer, rport) = inner.remote.unwrap_or((self.any(), 0));
        SocketInfo {
            ipv6: self.is_v6(),
            local: SocketAddr::new(
                inner.bound.or(inner.chosen).unwrap_or(self.any()),
                if self.ping {
                    inner.ident
                } else {
                    u16::from(self.protocol)
                },
            ),
            remote: SocketAddr::new(peer, rport),
            state: if inner.remote.is_some() { 1 } else { 7 },
            send_queue: 0,
            recv_queue: inner.queued,
            drops: inner.drops,
            retransmits: 0,
        }
    }

    fn on_error(&self, error: &IcmpError, to: IpAddr, data: &[u8]) {
        {
            let mut inner = self.inner.lock();
            let wants = if self.is_v6() {
                inner.opts.ip.recv_err6
            } else {
                inner.opts.ip.recv_err
            };
            if !wants && inner.remote.is_none() {
                return;
            }
            if wants {
                inner.errors.push(|| ErrorEntry::icmp(error, (to, 0), data));
            }
            if wants || error.fatal {
                inner.error = Some(error.errno);
            }
        }
        self.pollee.notify(Events::ERR | Events::IN | Events::OUT);
    }
}

impl Drop for RawSocket {
    fn drop(&mut self) {
        let queued = self.inner.get_mut().queued;
        self.stack.discharge(queued);
    }
}

fn copy(meta: &IpMeta, bytes: Vec<u8>, now: u64) -> RawPacket {
    RawPacket {
        bytes,
        from: meta.src,
        to: meta.dst,
        index: meta.iface.index,
        ttl: meta.ttl,
        tos: meta.tos,
        at: now,
    }
}

/// Whether the type of an ICMP message is blocked by the socket's filter.
fn filtered(opts: &RawOpts, protocol: u8, kind: Option<&u8>) -> bool {
    match (protocol, kind) {
        (proto::ICMP, Some(kind)) if *kind < 32 => opts.icmp_filter >> kind & 1 != 0,
        (proto::ICMP6, Some(kind)) => {
            opts.icmp6_filter[usize::from(kind >> 5)] >> (kind & 31) & 1 != 0
        }
        _ => false,
    }
}

/// Shows a packet that is for this machine to the raw sockets of its protocol; whether there is one. Over IPv4 they
/// get it with its header, over IPv6 without.
pub(crate) fn input(stack: &Stack, meta: &IpMeta, packet: &InPacket, now: u64) -> bool {
    let mut any = false;
    for socket in stack.raws.all() {
        if socket.ping || socket.protocol != meta.proto {
            continue;
        }
        let (takes, blocked, offset) = {
            let inner = socket.inner.lock();
            let kind = packet.head().get(meta.l4);
            (
                socket.takes(&inner, meta),
                filtered(&inner.opts, meta.proto, kind),
                inner.opts.checksum,
            )
        };
        if !takes {
            continue;
        }
        any = true;
        if blocked {
            continue;
        }
        let whole = packet.front(meta.l4 + meta.len);
        let from = if socket.is_v6() { meta.l4 } else { ETH };
        let mut bytes = whole.get(from..).unwrap_or(&[]).to_vec();
        let unchecked = packet.csum == crate::nic::RxChecksum::Unknown;
        if socket.is_v6() && offset >= 0 && unchecked {
            let pseudo = Sum::pseudo(meta.src, meta.dst, meta.proto, bytes.len());
            if pseudo.bytes(&bytes).folded() != 0xffff {
                socket.inner.lock().drops += 1;
                continue;
            }
        }
        let Some(keep) = socket.filter.keeps(stack, meta, packet, from, 1) else {
            continue;
        };
        bytes.truncate(keep);
        socket.push(copy(meta, bytes, now));
    }
    any
}

/// An echo reply, for the ping socket whose identifier it has.
pub(crate) fn echo_reply(stack: &Stack, meta: &IpMeta, packet: &InPacket, now: u64) {
    let Some(ident) = packet.head().get(meta.l4 + 4..meta.l4 + 6) else {
        return;
    };
    let ident = u16::from_be_bytes([ident[0], ident[1]]);
    let socket = stack.raws.all().into_iter().find(|socket| {
        let inner = socket.inner.lock();
        let own = inner.bound.or(inner.chosen);
        socket.ping
            && inner.ident == ident
            && !inner.closed
            && socket.is_v6() == meta.dst.is_ipv6()
            && own.is_none_or(|own| own == meta.dst || own.is_multicast())
            && (inner.opts.ip.device == 0 || inner.opts.ip.device == meta.iface.index)
    });
    if let Some(socket) = socket {
        let whole = packet.front(meta.l4 + meta.len);
        let mut bytes = whole.get(meta.l4..).unwrap_or(&[]).to_vec();
        let Some(keep) = socket.filter.keeps(stack, meta, packet, meta.l4, 1) else {
            return;
        };
        bytes.truncate(keep);
        socket.push(copy(meta, bytes, now));
    }
}

/// An ICMP error quotes a packet of ours; `l4` is what it quotes after the IP header.
pub(crate) fn icmp_error(
    stack: &Stack,
    protocol: u8,
    local: IpAddr,
    remote: IpAddr,
    l4: &[u8],
    error: &IcmpError,
    now: u64,
) {
    if let (Some(mtu), false) = (error.mtu, matches!(protocol, proto::TCP | proto::UDP)) {
        stack.learn_pmtu(remote, mtu, now);
    }
    let echo = matches!(
        (protocol, l4.first()),
        (proto::ICMP, Some(&ECHO)) | (proto::ICMP6, Some(&ECHO6))
    );
    for socket in stack.raws.all() {
        let concerned = {
            let inner = socket.inner.lock();
            let own = inner.bound.or(inner.chosen);
            socket.protocol == protocol
                && own.is_none_or(|own| own == local)
                && inner.remote.is_none_or(|(peer, _)| peer == remote)
                && socket.is_v6() == remote.is_ipv6()
                && (!socket.ping || echo && l4.get(4..6) == Some(&inner.ident.to_be_bytes()))
        };
        if concerned {
            socket.on_error(error, remote, l4);
        }
    }
}
