//! Listening: who listens where, half-open connections, the accept queue, and SYN cookies when there are
//! more half-open connections than a listener may have (RFC 4987).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use errno::{Errno, Result};
use hashbrown::HashMap;

use super::cookie::{accept_cookie, send_cookie};
use super::fastopen::{self, Pending, Verdict};
use super::header::{ACK, Emit, FIN, RST, SYN, Segment};
use super::input::refuse;
use super::opts::TcpOpts;
use super::output::send_header;
use super::socket::TcpSocket;
use super::tcb::FIRST_WINDOW;
use crate::flow::{Flow, FlowKey};
use crate::ip::{IpMeta, IpOut, proto};
use crate::pkt::Payload;
use crate::poll::Events;
use crate::ports::Binding;
use crate::query::SocketInfo;
use crate::route::Dst;
use crate::seq;
use crate::stack::{Chore, Stack, Timer};
use crate::sync::{RwSpinLock, SpinLock};

/// Times a SYN-ACK is sent again (`tcp_synack_retries`).
pub(super) const RETRIES: u32 = 5;
const SECOND: u64 = 1_000_000_000;

/// A listening socket, as the packet path sees it.
pub(crate) struct Listener {
    pub binding: Binding,
    pub port: u16,
    pub ipv6: bool,
    pub socket: Weak<TcpSocket>,
    backlog: AtomicUsize,
    queue: SpinLock<VecDeque<Arc<TcpSocket>>>,
    queued: AtomicUsize,
    half: AtomicUsize,
    closed: AtomicBool,
    /// Connections of Fast Open in their handshake.
    pub(super) early: Pending,
    /// When a cookie was last sent.
    pub(super) cookie_at: AtomicU64,
    /// What new connections inherit.
    pub opts: SpinLock<TcpOpts>,
}

impl Listener {
    pub fn new(
        socket: Weak<TcpSocket>,
        port: u16,
        binding: Binding,
        ipv6: bool,
        backlog: u32,
        opts: TcpOpts,
    ) -> Listener {
        Listener {
            binding,
            port,
            ipv6,
            socket,
            backlog: AtomicUsize::new(backlog as usize),
            queue: SpinLock::new(VecDeque::new()),
            queued: AtomicUsize::new(0),
            half: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            early: Pending::default(),
            cookie_at: AtomicU64::new(0),
            opts: SpinLock::new(opts),
        }
    }

    pub fn set_backlog(&self, backlog: u32) {
        self.backlog.store(backlog as usize, Ordering::Relaxed);
    }

    pub fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Connections ready to accept.
    pub fn ready(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// Linux's rule: full when more than the backlog wait, so a backlog of 0 still takes one.
    pub(super) fn full(&self) -> bool {
        self.ready() > self.backlog.load(Ordering::Relaxed)
    }

    pub fn pop(&self) -> Option<Arc<TcpSocket>> {
        let mut queue = self.queue.lock();
        let socket = queue.pop_front();
        self.queued.store(queue.len(), Ordering::Release);
        socket
    }

    fn push(&self, socket: Arc<TcpSocket>) -> core::result::Result<(), Arc<TcpSocket>> {
        let mut queue = self.queue.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(socket);
        }
        queue.push_back(socket);
        self.queued.store(queue.len(), Ordering::Release);
        Ok(())
    }

    /// Stops: what was not accepted is given back, to be reset.
    pub fn close(&self) -> VecDeque<Arc<TcpSocket>> {
        let mut queue = self.queue.lock();
        self.closed.store(true, Ordering::Release);
        self.queued.store(0, Ordering::Release);
        core::mem::take(&mut *queue)
    }

    /// How well it fits a connection to `addr`; `None` not at all.
    fn score(&self, addr: IpAddr, device: u32) -> Option<u32> {
        if self.binding.device != 0 && self.binding.device != device {
            return None;
        }
        let by_device = u32::from(self.binding.device != 0) * 4;
        match self.binding.addr {
            Some(own) if own == addr => Some(3 + by_device),
            Some(_) => None,
            None if self.ipv6 && addr.is_ipv4() => (!self.binding.v6only).then_some(1 + by_device),
            None if self.ipv6 != addr.is_ipv4() => Some(2 + by_device),
            None => None,
        }
    }

    fn max_half(&self, stack: &Stack) -> usize {
        let backlog = self.backlog.load(Ordering::Relaxed);
        backlog.clamp(1, stack.config().limits.syn_backlog as usize)
    }
}

/// Listeners by port.
#[derive(Default)]
pub(crate) struct Listeners {
    table: RwSpinLock<HashMap<u16, Vec<Arc<Listener>>, PortState>>,
}

/// Ports need no keyed hash: programs choose them.
#[derive(Default, Clone, Copy)]
pub(crate) struct PortState;

/// See [`PortState`].
#[derive(Default)]
pub(crate) struct PortHasher(u64);

impl core::hash::Hasher for PortHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u16(u16::from(*byte));
        }
    }

    fn write_u16(&mut self, port: u16) {
        self.0 = (self.0 ^ u64::from(port)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl core::hash::BuildHasher for PortState {
    type Hasher = PortHasher;

    fn build_hasher(&self) -> PortHasher {
        PortHasher::default()
    }
}

impl Listeners {
    pub fn add(&self, listener: Arc<Listener>) {
        self.table
            .write()
            .entry(listener.port)
            .or_default()
            .push(listener);
    }

    pub fn remove(&self, listener: &Arc<Listener>) {
        let mut table = self.table.write();
        if let Some(all) = table.get_mut(&listener.port) {
            all.retain(|l| !Arc::ptr_eq(l, listener));
            if all.is_empty() {
                table.remove(&listener.port);
            }
        }
    }

    /// The best listener; several of `SO_REUSEPORT` share by flow.
    fn find(&self, stack: &Stack, key: &FlowKey, device: u32) -> Option<Arc<Listener>> {
        let table = self.table.read();
        let all = table.get(&key.lport)?;
        let mut best = 0;
        let mut ties = 0u64;
        for listener in all {
            match listener.score(key.local, device) {
                Some(score) if score > best => (best, ties) = (score, 1),
                Some(score) if score == best => ties += 1,
                _ => {}
            }
        }
        if ties == 0 {
            return None;
        }
        let pick = if ties == 1 {
            0
        } else {
            key.hash(stack.secret) % ties
        };
        all.iter()
            .filter(|l| l.score(key.local, device) == Some(best))
            .nth(pick as usize)
            .cloned()
    }

    pub fn list(&self) -> Vec<SocketInfo> {
        let table = self.table.read();
        table
            .values()
            .flatten()
            .map(|l| {
                let any: IpAddr = if l.ipv6 {
                    Ipv6Addr::UNSPECIFIED.into()
                } else {
                    Ipv4Addr::UNSPECIFIED.into()
                };
                SocketInfo {
                    ipv6: l.ipv6,
                    local: SocketAddr::new(l.binding.addr.unwrap_or(any), l.port),
                    remote: SocketAddr::new(any, 0),
                    state: 10,
                    send_queue: l.backlog.load(Ordering::Relaxed),
                    recv_queue: l.ready(),
                    drops: 0,
                    retransmits: 0,
                }
            })
            .collect()
    }
}

/// A connection whose handshake is not done: as small as can be.
pub(crate) struct HalfOpen {
    pub key: FlowKey,
    pub listener: Arc<Listener>,
    pub syn: Segment,
    pub iss: u32,
    dst: Dst,
    retries: AtomicU32,
    due: AtomicU64,
    started: u64,
    /// `TCP_DEFER_ACCEPT`: the handshake is done, data is awaited.
    acked: AtomicBool,
    ts_offset: u32,
    /// What to show for Fast Open the next time.
    cookie: Option<fastopen::Cookie>,
}

/// A segment for which there is no flow; a new connection starts after sequence number `after`.
pub(crate) fn syn_input(
    stack: &Stack,
    meta: &IpMeta,
    key: &FlowKey,
    segment: &Segment,
    payload: Payload,
    after: Option<u32>,
    now: u64,
) {
    if stack.guarded.refuses(key) {
        return;
    }
    let Some(listener) = stack.listeners.find(stack, key, meta.iface.index) else {
        return refuse(stack, meta, segment, now);
    };
    if segment.has(RST) {
        return;
    }
    let too_far = |opts: &TcpOpts| opts.too_far(key.remote.is_ipv4(), segment.ttl);
    if too_far(&listener.opts.lock()) {
        stack.counters().min_ttl_drop.bump();
        return;
    }
    if segment.has(ACK) {
        if segment.has(SYN) || !accept_cookie(stack, meta, key, &listener, segment, payload, now) {
            refuse(stack, meta, segment, now);
        }
        return;
    }
    if !segment.has(SYN) || segment.has(FIN) || !stack.is_local(key.local) || meta.many {
        return;
    }
    let counters = stack.counters();
    if listener.full() {
        counters.listen_overflows.bump();
        counters.listen_drops.bump();
        return;
    }
    let Ok(dst) = stack.route(key.remote, Some(key.local), listener.binding.device) else {
        counters.listen_drops.bump();
        return;
    };
    let crowded = listener.half.load(Ordering::Relaxed) >= listener.max_half(stack)
        || stack.flows.len() >= stack.config().limits.connections;
    if crowded {
        if stack.config().limits.syn_cookies {
            counters.req_q_full_docookies.bump();
            send_cookie(stack, key, &listener, segment, &dst, now);
        } else {
            counters.req_q_full_drop.bump();
            counters.listen_drops.bump();
        }
        return;
    }
    let iss = super::socket::initial_seq(stack, key, now);
    let iss = match after {
        // The clock may not have come as far as a fast connection did.
        Some(last) if !seq::gt(iss, last) => last.wrapping_add(65_537),
        _ => iss,
    };
    let cookie = match fastopen::judge(stack, &listener, key, segment, now) {
        Verdict::Ordinary(cookie) => cookie,
        Verdict::Open(cookie) => {
            let seed = Seed {
                key: *key,
                listener: &listener,
                syn: *segment,
                iss,
                dst,
                rtt: None,
            };
            fastopen::open(stack, seed, payload, cookie, now);
            return;
        }
    };
    let half = Arc::new(HalfOpen {
        key: *key,
        listener: listener.clone(),
        syn: *segment,
        iss,
        dst,
        retries: AtomicU32::new(0),
        due: AtomicU64::new(now + SECOND),
        started: now,
        acked: AtomicBool::new(false),
        ts_offset: (key.secret(stack.secret, 3) >> 32) as u32,
        cookie,
    });
    if stack.flows.insert(*key, Flow::Half(half.clone())).is_err() {
        return;
    }
    listener.half.fetch_add(1, Ordering::Relaxed);
    send_syn_ack(stack, &half, now);
    stack.schedule(
        u64::from(half.iss),
        now + SECOND,
        Timer::Half(Arc::downgrade(&half)),
    );
}

fn is(half: &Arc<HalfOpen>) -> impl FnOnce(&Flow) -> bool {
    move |flow| matches!(flow, Flow::Half(h) if Arc::ptr_eq(h, half))
}

fn drop_half(stack: &Stack, half: &Arc<HalfOpen>) {
    if stack.flows.remove(&half.key, is(half)) {
        half.listener.half.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn syn_ack(
    stack: &Stack,
    key: &FlowKey,
    opts: &TcpOpts,
    syn: &Segment,
    dst: &Dst,
    iss: u32,
) -> Emit {
    let limits = &stack.config().limits;
    let ip = if key.local.is_ipv4() { 20 } else { 40 };
    let mut mss = (dst.iface.mtu() as usize)
        .saturating_sub(ip + 20)
        .min(65_535) as u16;
    if opts.maxseg != 0 {
        mss = mss.min(opts.maxseg as u16);
    }
    let buffer = if opts.rcvbuf == 0 {
        limits.tcp_rmem / 2
    } else {
        opts.rcvbuf / 2
    };
    Emit {
        lport: key.lport,
        rport: key.rport,
        seq: iss,
        ack: syn.seq.wrapping_add(1),
        flags: if super::ecn::agreed(stack, syn) {
            SYN | ACK | super::header::ECE
        } else {
            SYN | ACK
        },
        window: (buffer as u32).min(FIRST_WINDOW) as u16,
        mss: Some(mss),
        wscale: syn.wscale.map(|_| super::socket::rcv_wscale(stack, opts)),
        sack_permitted: syn.sack_permitted,
        ..Emit::default()
    }
}

pub(super) fn ip_out(key: &FlowKey, opts: &TcpOpts) -> IpOut {
    IpOut {
        src: key.local,
        dst: key.remote,
        proto: proto::TCP,
        ttl: opts.ttl,
        tos: opts.tos,
        df: opts.df(),
        ident: 0,
    }
}

fn send_syn_ack(stack: &Stack, half: &HalfOpen, now: u64) {
    let (mut emit, out) = {
        let opts = half.listener.opts.lock();
        (
            syn_ack(stack, &half.key, &opts, &half.syn, &half.dst, half.iss),
            ip_out(&half.key, &opts),
        )
    };
    emit.fast_open = half.cookie.map(fastopen::shown);
    emit.ts = half.syn.ts.map(|(value, _)| {
        (
            ((now / 1_000_000) as u32).wrapping_add(half.ts_offset),
            value,
        )
    });
    send_header(stack, &half.dst, &out, &emit, now);
}

/// The SYN-ACK was not answered in time.
pub(crate) fn on_timer(stack: &Stack, half: &Arc<HalfOpen>, now: u64) {
    if now < half.due.load(Ordering::Relaxed) {
        return;
    }
    let retries = half.retries.fetch_add(1, Ordering::Relaxed) + 1;
    let deferred = half.acked.load(Ordering::Relaxed);
    let most = if deferred {
        let seconds = half.listener.opts.lock().defer_accept_s.max(1);
        (32 - seconds.leading_zeros()).max(RETRIES)
    } else {
        RETRIES
    };
    if retries > most || half.listener.closed.load(Ordering::Acquire) {
        stack.counters().tcp_attempt_fails.bump();
        drop_half(stack, half);
        return;
    }
    if !deferred
        || now.saturating_sub(half.started)
            >= u64::from(half.listener.opts.lock().defer_accept_s) * SECOND
    {
        stack.counters().syn_retrans.bump();
        stack.counters().tcp_retrans_segs.bump();
        // Once the time is over, a bare acknowledgement is enough.
        half.acked.store(false, Ordering::Relaxed);
        send_syn_ack(stack, half, now);
    }
    let wait = SECOND << retries.min(6);
    half.due.store(now + wait, Ordering::Relaxed);
    stack.schedule(
        u64::from(half.iss),
        now + wait,
        Timer::Half(Arc::downgrade(half)),
    );
}

/// A segment for a half-open connection.
pub(crate) fn half_input(
    stack: &Stack,
    meta: &IpMeta,
    half: &Arc<HalfOpen>,
    segment: &Segment,
    payload: Payload,
    now: u64,
) {
    let rcv_nxt = half.syn.seq.wrapping_add(1);
    if segment.has(RST) {
        if segment.seq == rcv_nxt {
            stack.counters().tcp_attempt_fails.bump();
            drop_half(stack, half);
        }
        return;
    }
    if segment.has(SYN) {
        if segment.seq == half.syn.seq && !segment.has(ACK) {
            send_syn_ack(stack, half, now);
        }
        return;
    }
    if !segment.has(ACK) {
        return;
    }
    if segment.ack != half.iss.wrapping_add(1) {
        return refuse(stack, meta, segment, now);
    }
    if let (Some((value, _)), Some((first, _))) = (segment.ts, half.syn.ts)
        && seq::lt(value, first)
    {
        stack.counters().paws_estab.bump();
        return;
    }
    if !seq::within(segment.seq, rcv_nxt, rcv_nxt.wrapping_add(FIRST_WINDOW)) {
        send_syn_ack(stack, half, now);
        return;
    }
    let defer_s = half.listener.opts.lock().defer_accept_s;
    let waited = now.saturating_sub(half.started) >= u64::from(defer_s) * SECOND;
    if defer_s != 0 && segment.len == 0 && !segment.has(FIN) && !waited {
        half.acked.store(true, Ordering::Relaxed);
        stack.counters().deferaccept_drop.bump();
        return;
    }
    if half.listener.full() {
        // The peer believes it is connected: its data will be sent again, and find room then.
        stack.counters().listen_overflows.bump();
        stack.counters().listen_drops.bump();
        return;
    }
    let rtt = (half.retries.load(Ordering::Relaxed) == 0).then(|| now.saturating_sub(half.started));
    let seed = Seed {
        key: half.key,
        listener: &half.listener,
        syn: half.syn,
        iss: half.iss,
        dst: half.dst.clone(),
        rtt,
    };
    let Some(socket) = seed.make(now) else {
        return;
    };
    if !stack
        .flows
        .replace(&half.key, Flow::Conn(socket.clone()), is(half))
    {
        // Another copy of this segment was faster on another CPU; the peer sends again what was in it.
        socket.forget();
        return;
    }
    half.listener.half.fetch_sub(1, Ordering::Relaxed);
    open(stack, &half.listener, socket, segment, payload, now);
}

/// What a passive connection is made from.
pub(crate) struct Seed<'a> {
    pub key: FlowKey,
    pub listener: &'a Arc<Listener>,
    pub syn: Segment,
    pub iss: u32,
    pub dst: Dst,
    pub rtt: Option<u64>,
}

impl Seed<'_> {
    pub(super) fn make(self, now: u64) -> Option<Arc<TcpSocket>> {
        let parent = self.listener.socket.upgrade()?;
        Some(TcpSocket::passive(&parent, self, now))
    }
}

/// A new connection: its first segment, then the accept queue.
pub(super) fn open(
    stack: &Stack,
    listener: &Arc<Listener>,
    socket: Arc<TcpSocket>,
    segment: &Segment,
    payload: Payload,
    now: u64,
) {
    socket.segment(segment, payload, None, now);
    publish(stack, listener, socket, now);
}

/// Puts a connection into the accept queue.
pub(super) fn publish(stack: &Stack, listener: &Listener, socket: Arc<TcpSocket>, now: u64) {
    stack.counters().tcp_passive_opens.bump();
    if let Err(socket) = listener.push(socket) {
        socket.abort(now);
        return;
    }
    if let Some(parent) = listener.socket.upgrade() {
        parent.notify(Events::IN);
    }
}

/// The backlog a listener gets (`somaxconn` is the most).
pub(crate) fn backlog_of(stack: &Stack, backlog: u32) -> Result<u32> {
    if stack.config().limits.somaxconn == 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(backlog.min(stack.config().limits.somaxconn))
}

/// Keeps the record of a connection that has ended in order.
pub(crate) fn to_time_wait(
    stack: &Stack,
    key: &FlowKey,
    wait: super::timewait::TimeWait,
    is_old: impl FnOnce(&Flow) -> bool,
) {
    let binding = wait.binding;
    let due = wait.expires_ns;
    if stack.flows.waits() >= stack.config().limits.time_wait {
        stack.counters().time_wait_overflow.bump();
        stack.flows.remove(key, is_old);
        stack.tcp_ports.release(key.lport, &binding);
        return;
    }
    if stack.flows.replace(key, Flow::Wait(Box::new(wait)), is_old) {
        stack.counters().tw.bump();
        stack.arm_chore(Chore::TimeWait, due);
    } else {
        stack.tcp_ports.release(key.lport, &binding);
    }
}
