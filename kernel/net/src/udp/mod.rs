//! UDP (RFC 768): the table of bound sockets and the way of a datagram in. The socket's calls are in
//! `calls`, what sends in `send`, its options in `sockopt`.

mod calls;
mod datagram;
mod errors;
mod send;
mod sockopt;
mod stamp;

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::sync::atomic::AtomicU32;

use errno::Errno;
use hashbrown::HashMap;

pub use self::stamp::TxStamps;

use self::datagram::{Datagram, datagram};
use crate::bpf::Attached;
use crate::checksum::{Parts, Sum};
use crate::errqueue::ErrorQueue;
use crate::flow::{FlowKey, KeyedState};
use crate::hash::Key;
use crate::icmp::{self, IcmpError};
use crate::icmp6;
use crate::ip::{IpMeta, proto};
use crate::ipopts::IpOpts;
use crate::multicast::Members;
use crate::nic::RxChecksum;
use crate::pkt::{InPacket, Payload};
use crate::poll::{Events, Pollee};
use crate::ports::{Binding, Ports};
use crate::query::SocketInfo;
use crate::route::Dst;
use crate::socket::Family;
use crate::stack::Stack;
use crate::sync::{RwSpinLock, SleepLock, SpinLock};

/// Bytes of a UDP header.
pub(crate) const HEADER: usize = 8;
const SHARDS: usize = 32;

/// An address and a port.
type Endpoint = (IpAddr, u16);

/// What the program set.
#[derive(Clone, Debug)]
pub(crate) struct UdpOpts {
    pub ip: IpOpts,
    pub reuse_port: bool,
    /// `IP_LOCAL_PORT_RANGE`.
    pub port_range: u32,
    pub min_ttl: u8,
    pub min_hops: u8,
    pub orig_dst: bool,
    pub rxq_ovfl: bool,
    pub dont_frag6: bool,
    pub orig_dst6: bool,
    pub cork: bool,
    pub v6only: bool,
    pub segment: u16,
    pub gro: bool,
    pub stamps: TxStamps,
}

pub(crate) struct Inner {
    pub opts: UdpOpts,
    pub bound: Option<(u16, Binding)>,
    pub remote: Option<(IpAddr, u16)>,
    /// The local address `connect` chose.
    pub chosen: Option<IpAddr>,
    pub dst: Option<Dst>,
    pub queue: VecDeque<Datagram>,
    pub queued: usize,
    pub errors: ErrorQueue,
    pub error: Option<Errno>,
    pub shut_read: bool,
    pub shut_write: bool,
    pub groups: Members,
    /// What `MSG_MORE` or `UDP_CORK` holds back.
    pub pending: Option<send::Pending>,
    pub drops: u64,
    pub closed: bool,
}

/// A UDP socket: see [`crate::Socket`] for its calls.
pub struct UdpSocket {
    pub(crate) stack: Arc<Stack>,
    pub(crate) family: Family,
    me: Weak<UdpSocket>,
    pub(crate) pollee: Pollee,
    recv_lock: SleepLock<()>,
    filter: Attached,
    /// Of the next datagram whose times are told by number.
    sent_number: AtomicU32,
    pub(crate) inner: SpinLock<Inner>,
}

type Shard = RwSpinLock<HashMap<u16, Vec<Arc<UdpSocket>>, KeyedState>>;

/// All bound sockets.
pub(crate) struct UdpTable {
    pub ports: Ports,
    shards: Vec<Shard>,
    key: Key,
}

impl UdpTable {
    pub fn new(key: Key) -> UdpTable {
        UdpTable {
            ports: Ports::new(KeyedState(key)),
            shards: (0..SHARDS)
                .map(|_| RwSpinLock::new(HashMap::with_hasher(KeyedState(key))))
                .collect(),
            key,
        }
    }

    fn shard(&self, port: u16) -> &Shard {
        &self.shards[usize::from(port) % SHARDS]
    }

    pub fn add(&self, port: u16, socket: Arc<UdpSocket>) {
        self.shard(port)
            .write()
            .entry(port)
            .or_default()
            .push(socket);
    }

    pub fn remove(&self, port: u16, socket: &UdpSocket) {
        let mut shard = self.shard(port).write();
        let mut gone = None;
        if let Some(all) = shard.get_mut(&port) {
            if let Some(at) = all.iter().position(|s| core::ptr::eq(&**s, socket)) {
                gone = Some(all.swap_remove(at));
            }
            if all.is_empty() {
                shard.remove(&port);
            }
        }
        drop(shard);
        drop(gone);
    }

    /// The socket that fits best.
    fn find(
        &self,
        local: (IpAddr, u16),
        remote: (IpAddr, u16),
        index: u32,
    ) -> Option<Arc<UdpSocket>> {
        let shard = self.shard(local.1).read();
        let all = shard.get(&local.1)?;
        if let [only] = &all[..] {
            return only.score(local.0, remote, index).map(|_| only.clone());
        }
        let mut best: Option<(u32, bool)> = None;
        let mut fitting: Vec<&Arc<UdpSocket>> = Vec::new();
        for socket in all {
            let Some((score, spread)) = socket.score(local.0, remote, index) else {
                continue;
            };
            match best {
                Some((top, _)) if score < top => {}
                Some((top, _)) if score == top => fitting.push(socket),
                _ => {
                    best = Some((score, spread));
                    fitting.clear();
                    fitting.push(socket);
                }
            }
        }
        let (_, spread) = best?;
        let pick = if spread && fitting.len() > 1 {
            let key = FlowKey {
                local: local.0,
                remote: remote.0,
                lport: local.1,
                rport: remote.1,
            };
            (key.hash(self.key) % fitting.len() as u64) as usize
        } else {
            // Without SO_REUSEPORT the one bound last gets it, as in Linux.
            fitting.len() - 1
        };
        Some(fitting[pick].clone())
    }

    /// All sockets that get a datagram to many.
    fn find_all(
        &self,
        local: (IpAddr, u16),
        remote: (IpAddr, u16),
        index: u32,
    ) -> Vec<Arc<UdpSocket>> {
        self.shard(local.1)
            .read()
            .get(&local.1)
            .map(|all| {
                all.iter()
                    .filter(|s| s.takes_many(local.0, remote, index))
                    .cloned()
                    .collect()
            })
            .unwrap_or_default()
    }

    pub fn list(&self) -> Vec<SocketInfo> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let sockets: Vec<Arc<UdpSocket>> = shard.read().values().flatten().cloned().collect();
            all.extend(sockets.iter().map(|s| s.describe()));
        }
        all
    }
}

impl UdpSocket {
    /// A new, unbound socket.
    pub fn new(stack: &Arc<Stack>, family: Family) -> Arc<UdpSocket> {
        let limits = &stack.config().limits;
        let opts = UdpOpts {
            ip: IpOpts::new(limits),
            reuse_port: false,
            port_range: 0,
            min_ttl: 0,
            min_hops: 0,
            orig_dst: false,
            rxq_ovfl: false,
            dont_frag6: false,
            orig_dst6: false,
            cork: false,
            v6only: false,
            segment: 0,
            gro: false,
            stamps: TxStamps::default(),
        };
        Arc::new_cyclic(|me| UdpSocket {
            stack: stack.clone(),
            family,
            me: me.clone(),
            pollee: Pollee::new(),
            recv_lock: SleepLock::new(()),
            filter: Attached::default(),
            sent_number: AtomicU32::new(0),
            inner: SpinLock::new(Inner {
                opts,
                bound: None,
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
                pending: None,
                drops: 0,
                closed: false,
            }),
        })
    }

    /// How well a unicast datagram fits, and whether the socket shares its port.
    fn score(&self, local: IpAddr, remote: (IpAddr, u16), index: u32) -> Option<(u32, bool)> {
        let inner = self.inner.lock();
        let (_, binding) = inner.bound?;
        let mut score = 1;
        match binding.addr.or(inner.chosen) {
            Some(own) if own == local => score += 2,
            Some(_) => return None,
            None if binding.ipv6 == local.is_ipv4() => {
                if !binding.ipv6 || binding.v6only {
                    return None;
                }
            }
            None => score += 1,
        }
        match inner.remote {
            Some(peer) if peer == remote => score += 8,
            Some(_) => return None,
            None => {}
        }
        if binding.device != 0 {
            if binding.device != index {
                return None;
            }
            score += 4;
        }
        Some((score, binding.reuse_port))
    }

    /// Whether a broadcast or multicast datagram goes here.
    fn takes_many(&self, group: IpAddr, remote: (IpAddr, u16), index: u32) -> bool {
        let inner = self.inner.lock();
        let Some((_, binding)) = inner.bound else {
            return false;
        };
        let family_fits = match binding.addr {
            Some(own) => own == group,
            None => binding.ipv6 != group.is_ipv4() || binding.ipv6 && !binding.v6only,
        };
        if !family_fits || binding.device != 0 && binding.device != index {
            return false;
        }
        if inner.remote.is_some_and(|peer| peer != remote) {
            return false;
        }
        if group.is_multicast() {
            let all = inner.opts.ip.multicast_all;
            return inner.groups.allows(group, index, remote.0, all);
        }
        true
    }

    fn describe(&self) -> SocketInfo {
        let inner = self.inner.lock();
        let any: IpAddr = match self.family {
            Family::Inet => Ipv4Addr::UNSPECIFIED.into(),
            Family::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let (port, addr) = match inner.bound {
            Some((port, b)) => (port, b.addr.or(inner.chosen).unwrap_or(any)),
            None => (0, any),
        };
        let (peer, rport) = inner.remote.unwrap_or((any, 0));
        SocketInfo {
            ipv6: self.family == Family::Inet6,
            local: SocketAddr::new(addr, port),
            remote: SocketAddr::new(peer, rport),
            state: if inner.remote.is_some() { 1 } else { 7 },
            send_queue: 0,
            recv_queue: inner.queued,
            drops: inner.drops,
            retransmits: 0,
        }
    }

    /// How many bytes of a datagram's data the filter keeps; `None`: it was dropped and is counted.
    #[inline]
    fn keeps(&self, meta: &IpMeta, packet: &InPacket) -> Option<usize> {
        let keep = self
            .filter
            .keeps(&self.stack, meta, packet, meta.l4, HEADER);
        match keep {
            Some(usize::MAX) => Some(usize::MAX),
            Some(keep) => Some(keep - HEADER),
            None => {
                self.inner.lock().drops += 1;
                self.stack.counters().udp(meta.dst).in_errors.bump();
                None
            }
        }
    }

    /// A datagram arrives.
    fn push(&self, mut datagram: Datagram) {
        let counters = self.stack.counters();
        let family = datagram.to.0;
        {
            let mut inner = self.inner.lock();
            if inner.closed || inner.shut_read {
                return;
            }
            let full =
                inner.queued + datagram.cost > inner.opts.ip.rcvbuf && !inner.queue.is_empty();
            // However little memory there is, one datagram can wait for each socket.
            let charged = !full && self.stack.charge(datagram.cost, inner.queue.is_empty());
            if !charged {
                inner.drops += 1;
                counters.udp(family).rcvbuf_errors.add(u64::from(full));
                counters.udp(family).mem_errors.add(u64::from(!full));
                counters.udp(family).in_errors.bump();
                return;
            }
            inner.queued += datagram.cost;
            datagram.dropped = inner.drops as u32;
            let gro = inner.opts.gro;
            let alone = match inner.queue.back_mut() {
                Some(last) if gro => last.merge(datagram),
                _ => Some(datagram),
            };
            inner.queue.extend(alone);
        }
        counters.udp(family).in_datagrams.bump();
        self.pollee.notify(Events::IN | Events::RDNORM);
    }

    fn take_front(&self, inner: &mut Inner) -> Option<Datagram> {
        self.take_at(inner, 0)
    }

    fn take_at(&self, inner: &mut Inner, index: usize) -> Option<Datagram> {
        let datagram = inner.queue.remove(index)?;
        inner.queued -= datagram.cost;
        self.stack.discharge(datagram.cost);
        Some(datagram)
    }

    /// Puts back what was only looked at.
    fn put_at(&self, index: usize, datagram: Datagram) {
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        inner.queued += datagram.cost;
        self.stack.charge_anyway(datagram.cost);
        let index = index.min(inner.queue.len());
        inner.queue.insert(index, datagram);
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        self.stack.discharge(inner.queued);
        if let Some((port, binding)) = inner.bound.take() {
            self.stack.udp.ports.release(port, &binding);
        }
    }
}

/// A received UDP packet.
pub(crate) fn input(stack: &Stack, meta: &IpMeta, mut packet: InPacket, now: u64) {
    let counters = stack.counters();
    packet.pull(meta.l4 + HEADER);
    let Some(h) = packet.head().get(meta.l4..meta.l4 + HEADER) else {
        counters.udp(meta.dst).in_errors.bump();
        return;
    };
    let word = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
    let (rport, lport, len, sum) = (word(0), word(2), usize::from(word(4)), word(6));
    if len < HEADER || len > meta.len {
        counters.udp(meta.dst).in_errors.bump();
        return;
    }
    if meta.len > len {
        packet.truncate(meta.l4 + len);
    }
    if packet.csum == RxChecksum::Unknown && (sum != 0 || !meta.dst.is_ipv4()) {
        let pseudo = Sum::pseudo(meta.src, meta.dst, proto::UDP, len);
        if packet.sum(meta.l4, Parts::after(pseudo)).sum().folded() != 0xffff {
            counters.udp(meta.dst).in_csum_errors.bump();
            counters.udp(meta.dst).in_errors.bump();
            return;
        }
    }
    if lport == crate::dhcp::CLIENT_PORT && meta.dst.is_ipv4() {
        let bytes = packet.to_vec();
        let dhcp = bytes.get(meta.l4 + HEADER..).unwrap_or(&[]);
        if stack.dhcp_input(meta.iface.index, dhcp, now) {
            return;
        }
    }
    if lport == crate::dhcp6::CLIENT_PORT && meta.dst.is_ipv6() {
        let bytes = packet.to_vec();
        let dhcp = bytes.get(meta.l4 + HEADER..).unwrap_or(&[]);
        if stack.dhcp6_input(meta.iface.index, dhcp, now) {
            return;
        }
    }
    let remote = (meta.src, rport);
    let local = (meta.dst, lport);
    let index = meta.iface.index;
    if meta.many {
        let sockets = stack.udp.find_all(local, remote, index);
        if sockets.is_empty() {
            counters.udp(meta.dst).ignored_multi.bump();
            return;
        }
        let whole = packet.to_vec();
        let bytes = whole.get(meta.l4 + HEADER..).unwrap_or(&[]);
        for socket in sockets {
            let Some(keep) = socket.keeps(meta, &packet) else {
                continue;
            };
            let mut copy = Payload::new();
            let bytes = &bytes[..bytes.len().min(keep)];
            copy.push(crate::pkt::RxData::Dense(bytes.to_vec(), 0));
            socket.push(datagram(meta, copy, remote, local, now));
        }
        return;
    }
    let Some(socket) = stack.udp.find(local, remote, index) else {
        counters.udp(meta.dst).no_ports.bump();
        if meta.dst.is_ipv4() {
            icmp::send_error(
                stack,
                meta,
                &packet,
                icmp::UNREACHABLE,
                icmp::CODE_PORT,
                now,
            );
        } else {
            icmp6::send_error(
                stack,
                meta,
                &packet,
                icmp6::UNREACHABLE,
                icmp6::CODE_PORT,
                now,
            );
        }
        return;
    };
    match socket.keeps(meta, &packet) {
        None => return,
        Some(usize::MAX) => {}
        Some(keep) => packet.truncate((meta.l4 + HEADER).saturating_add(keep)),
    }
    let payload = packet.into_payload(meta.l4 + HEADER);
    socket.push(datagram(meta, payload, remote, local, now));
}

/// An ICMP error quotes one of our datagrams, with some of its data.
pub(crate) fn icmp_error(
    stack: &Stack,
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    error: &IcmpError,
    data: &[u8],
    now: u64,
) {
    if let Some(mtu) = error.mtu {
        stack.learn_pmtu(remote.0, mtu, now);
    }
    if let Some(socket) = stack.udp.find(local, remote, 0) {
        socket.on_error(error, remote, data);
    }
}
