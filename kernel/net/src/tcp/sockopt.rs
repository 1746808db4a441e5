//! The options of a TCP socket.

use alloc::boxed::Box;

use errno::{Errno, Result};

use super::info::TcpInfo;
use super::socket::{Phase, TcpSocket};
use super::tcb::{State, Tcb};
use crate::option::{Opt, OptName};
use crate::socket::Family;

/// `SOCK_MIN_RCVBUF` and `SOCK_MIN_SNDBUF`.
const MIN_RCVBUF: usize = 2304;
const MIN_SNDBUF: usize = 4608;
/// `MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPINTVL`, `MAX_TCP_KEEPCNT`, `MAX_TCP_SYNCNT`.
const MAX_KEEP_S: u32 = 32_767;
const MAX_CNT: u32 = 127;

/// `TCP_FIN_TIMEOUT_MAX`.
const MAX_FIN_TIMEOUT_S: i32 = 120;

/// `TCP_DEFER_ACCEPT` counts in retransmissions of the SYN-ACK, each twice as late as the one before: the first time
/// that is not below `seconds`.
fn defer_accept(seconds: u32) -> u32 {
    let (mut period, mut step, mut count) = (0u32, 1, 0);
    while period < seconds && count < 255 {
        period = period.saturating_add(step);
        step = (2 * step).min(120);
        count += 1;
    }
    period
}

fn in_range(value: u32, low: u32, high: u32) -> Result<u32> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(Errno::EINVAL)
    }
}

impl TcpSocket {
    pub(crate) fn set_opt(&self, option: Opt) -> Result<()> {
        let stack = &self.stack;
        let now = stack.now();
        let limits = &stack.config().limits;
        let ipv6 = self.family == Family::Inet6;
        let result = self.with_inner(now, |inner| -> Result<()> {
            let bound = inner.bound.is_some();
            let connected = match &inner.phase {
                Phase::Conn(tcb) => tcb.state != State::Closed,
                _ => false,
            };
            let busy = connected || matches!(inner.phase, Phase::Listening(_));
            let opts = inner.opts();
            match option {
                Opt::ReuseAddr(on) => opts.reuse_addr = on,
                Opt::ReusePort(on) => opts.reuse_port = on,
                Opt::LocalPortRange(range) => opts.port_range = crate::ports::checked(range)?,
                Opt::Broadcast(on) => opts.broadcast = on,
                Opt::DontRoute(on) => opts.dont_route = on,
                Opt::Timestamp(on) => opts.timestamp = on,
                Opt::OobInline(on) => opts.oob_inline = on,
                Opt::Linger(linger) => opts.linger = linger,
                Opt::RcvBuf(n) => {
                    opts.rcvbuf = ((n as usize).min(limits.rmem_max) * 2).max(MIN_RCVBUF);
                }
                Opt::RcvBufForce(n) => opts.rcvbuf = (n as usize * 2).max(MIN_RCVBUF),
                Opt::SndBuf(n) => {
                    opts.sndbuf = ((n as usize).min(limits.wmem_max) * 2).max(MIN_SNDBUF);
                }
                Opt::SndBufForce(n) => opts.sndbuf = (n as usize * 2).max(MIN_SNDBUF),
                Opt::RcvLowat(n) => opts.rcv_lowat = n.max(1),
                Opt::BindToDevice(index) => {
                    if index != 0 && stack.interface(index).is_none() {
                        return Err(Errno::ENODEV);
                    }
                    opts.device = index;
                }
                Opt::MaxPacingRate(_) => return Err(Errno::EOPNOTSUPP),
                Opt::KeepAlive(on) => {
                    opts.keepalive = on;
                }
                Opt::KeepIdle(s) => opts.keep_idle_s = in_range(s, 1, MAX_KEEP_S)?,
                Opt::KeepIntvl(s) => opts.keep_intvl_s = in_range(s, 1, MAX_KEEP_S)?,
                Opt::KeepCnt(n) => opts.keep_cnt = in_range(n, 1, MAX_CNT)?,
                Opt::SynCnt(n) => opts.syn_cnt = in_range(n, 1, MAX_CNT)?,
                Opt::Linger2(s) => {
                    opts.linger2 = s.clamp(-1, MAX_FIN_TIMEOUT_S);
                }
                Opt::DeferAccept(s) => opts.defer_accept_s = defer_accept(s),
                // Taken back only from a socket that is not in use.
                Opt::WindowClamp(0) if busy => return Err(Errno::EINVAL),
                Opt::WindowClamp(n) => {
                    opts.window_clamp = if n == 0 {
                        0
                    } else {
                        n.max(MIN_RCVBUF as u32 / 2)
                    };
                }
                Opt::NoDelay(on) => opts.nodelay = on,
                Opt::Cork(on) => opts.cork = on,
                Opt::QuickAck(on) => opts.quickack = on,
                Opt::MaxSeg(n) => {
                    opts.maxseg = if n == 0 { 0 } else { in_range(n, 88, 32_767)? };
                }
                Opt::Congestion(kind) => opts.congestion = kind,
                Opt::UserTimeout(ms) => opts.user_timeout_ms = ms,
                Opt::NotSentLowat(n) => opts.notsent_lowat = n,
                Opt::FastOpen(_) if connected => return Err(Errno::EINVAL),
                Opt::FastOpen(n) => opts.fast_open = n.min(limits.somaxconn),
                Opt::FastOpenConnect(_) if busy => return Err(Errno::EINVAL),
                Opt::FastOpenConnect(on) => opts.fast_open_connect = on,
                Opt::Tos(tos) => opts.tos = tos & !3,
                Opt::Ttl(0) => return Err(Errno::EINVAL),
                Opt::Ttl(ttl) => opts.ttl = ttl,
                Opt::MinTtl(ttl) => opts.min_ttl = ttl,
                Opt::MinHops(hops) if ipv6 => opts.min_hops = hops,
                Opt::MtuDiscover(how) => opts.mtu_discover = how,
                Opt::FreeBind(on) => opts.free_bind = on,
                Opt::Transparent(on) => opts.transparent = on,
                Opt::BindAddressNoPort(on) => opts.bind_no_port = on,
                // Control messages that streams never carry: kept off, as asked or not.
                Opt::PktInfo(_)
                | Opt::RecvTtl(_)
                | Opt::RecvTos(_)
                | Opt::RecvErr(_)
                | Opt::RecvOrigDstAddr(_) => {}
                Opt::V6Only(on) if ipv6 => {
                    if bound {
                        return Err(Errno::EINVAL);
                    }
                    opts.v6only = on;
                }
                Opt::UnicastHops(hops) if ipv6 => opts.hops = hops,
                Opt::TClass(class) if ipv6 => opts.tclass = class & !3,
                Opt::MtuDiscover6(how) if ipv6 => opts.mtu_discover6 = how,
                Opt::RecvPktInfo6(_)
                | Opt::RecvHopLimit(_)
                | Opt::RecvTClass(_)
                | Opt::RecvErr6(_)
                    if ipv6 => {}
                Opt::AcceptConn(_) | Opt::IncomingCpu(_) | Opt::Info(_) | Opt::Mtu(_) => {
                    return Err(Errno::ENOPROTOOPT);
                }
                _ => return Err(Errno::ENOPROTOOPT),
            }
            if let Phase::Conn(tcb) = &mut inner.phase {
                tcb.opts_changed(stack, &option, now);
            }
            if let Phase::Listening(listener) = &inner.phase {
                *listener.opts.lock() = inner.opts.clone();
            }
            Ok(())
        });
        stack.drain_loopback();
        result
    }

    pub(crate) fn get_opt(&self, name: OptName) -> Result<Opt> {
        let stack = &self.stack;
        let now = stack.now();
        let limits = &stack.config().limits;
        let mut inner = self.inner.lock();
        let listening = matches!(inner.phase, Phase::Listening(_));
        let (rcvbuf, sndbuf, mss, mtu) = match &inner.phase {
            Phase::Conn(tcb) => (
                tcb.rcv_limit as usize * 2,
                tcb.sndbuf,
                tcb.mss,
                Some(tcb.dst.mtu),
            ),
            _ => (limits.tcp_rmem, limits.tcp_wmem, 536, None),
        };
        let opts = inner.opts();
        Ok(match name {
            OptName::ReuseAddr => Opt::ReuseAddr(opts.reuse_addr),
            OptName::ReusePort => Opt::ReusePort(opts.reuse_port),
            OptName::LocalPortRange => Opt::LocalPortRange(opts.port_range),
            OptName::KeepAlive => Opt::KeepAlive(opts.keepalive),
            OptName::Broadcast => Opt::Broadcast(opts.broadcast),
            OptName::DontRoute => Opt::DontRoute(opts.dont_route),
            OptName::OobInline => Opt::OobInline(opts.oob_inline),
            OptName::Linger => Opt::Linger(opts.linger),
            OptName::RcvBuf => Opt::RcvBuf(match opts.rcvbuf {
                0 => rcvbuf as u32,
                n => n as u32,
            }),
            OptName::SndBuf => Opt::SndBuf(match opts.sndbuf {
                0 => sndbuf as u32,
                n => n as u32,
            }),
            OptName::RcvLowat => Opt::RcvLowat(opts.rcv_lowat),
            OptName::BindToDevice => Opt::BindToDevice(opts.device),
            OptName::Timestamp => Opt::Timestamp(opts.timestamp),
            OptName::AcceptConn => Opt::AcceptConn(listening),
            OptName::IncomingCpu => Opt::IncomingCpu(crate::sync::cpu_id() as u32),
            OptName::MaxPacingRate => Opt::MaxPacingRate(opts.pacing),
            OptName::NoDelay => Opt::NoDelay(opts.nodelay),
            OptName::Cork => Opt::Cork(opts.cork),
            // What is in force; before there is a connection, what was asked for.
            OptName::MaxSeg => Opt::MaxSeg(match opts.maxseg {
                0 => mss,
                _ if mtu.is_some() => mss,
                asked => asked,
            }),
            OptName::KeepIdle => Opt::KeepIdle(opts.keep_idle_s),
            OptName::KeepIntvl => Opt::KeepIntvl(opts.keep_intvl_s),
            OptName::KeepCnt => Opt::KeepCnt(opts.keep_cnt),
            OptName::SynCnt => Opt::SynCnt(opts.syn_cnt),
            OptName::Linger2 => Opt::Linger2(match opts.linger2 {
                0 => (limits.fin_timeout_ns / 1_000_000_000) as i32,
                n => n,
            }),
            OptName::DeferAccept => Opt::DeferAccept(opts.defer_accept_s),
            OptName::WindowClamp => Opt::WindowClamp(opts.window_clamp),
            OptName::QuickAck => Opt::QuickAck(opts.quickack),
            OptName::Congestion => Opt::Congestion(opts.congestion),
            OptName::UserTimeout => Opt::UserTimeout(opts.user_timeout_ms),
            OptName::FastOpen => Opt::FastOpen(opts.fast_open),
            OptName::FastOpenConnect => Opt::FastOpenConnect(opts.fast_open_connect),
            OptName::NotSentLowat => Opt::NotSentLowat(opts.notsent_lowat),
            OptName::Info => Opt::Info(Box::new(match &inner.phase {
                Phase::Conn(tcb) => tcb.info(now),
                Phase::Listening(listener) => TcpInfo {
                    state: 10,
                    unacked: listener.ready() as u32,
                    sacked: listener.backlog() as u32,
                    ..TcpInfo::default()
                },
                Phase::Idle => TcpInfo {
                    state: State::Closed as u8,
                    ..TcpInfo::default()
                },
            })),
            OptName::Tos => Opt::Tos(opts.tos),
            OptName::Ttl => Opt::Ttl(opts.ttl),
            OptName::MinTtl => Opt::MinTtl(opts.min_ttl),
            OptName::MinHops => Opt::MinHops(opts.min_hops),
            OptName::MtuDiscover => Opt::MtuDiscover(opts.mtu_discover),
            OptName::Mtu => Opt::Mtu(mtu.ok_or(Errno::ENOTCONN)?),
            OptName::Mtu6 => Opt::Mtu6(mtu.ok_or(Errno::ENOTCONN)?),
            OptName::FreeBind => Opt::FreeBind(opts.free_bind),
            OptName::Transparent => Opt::Transparent(opts.transparent),
            OptName::BindAddressNoPort => Opt::BindAddressNoPort(opts.bind_no_port),
            OptName::V6Only => Opt::V6Only(opts.v6only),
            OptName::UnicastHops => Opt::UnicastHops(opts.hops),
            OptName::TClass => Opt::TClass(opts.tclass),
            OptName::MtuDiscover6 => Opt::MtuDiscover6(opts.mtu_discover6),
            OptName::PktInfo => Opt::PktInfo(false),
            OptName::RecvTtl => Opt::RecvTtl(false),
            OptName::RecvTos => Opt::RecvTos(false),
            OptName::RecvErr => Opt::RecvErr(false),
            OptName::RecvErr6 => Opt::RecvErr6(false),
            OptName::RecvPktInfo6 => Opt::RecvPktInfo6(false),
            OptName::RecvHopLimit => Opt::RecvHopLimit(false),
            OptName::RecvTClass => Opt::RecvTClass(false),
            OptName::RecvOrigDstAddr => Opt::RecvOrigDstAddr(false),
            _ => return Err(Errno::ENOPROTOOPT),
        })
    }
}

impl Tcb {
    /// What a changed option changes at once.
    fn opts_changed(&mut self, stack: &crate::stack::Stack, option: &Opt, now: u64) {
        match option {
            Opt::KeepAlive(_) | Opt::KeepIdle(_) => {
                self.keep_probes = 0;
                self.arm_keepalive(now);
            }
            Opt::RcvBuf(_) | Opt::RcvBufForce(_) => self.rcv_limit = (self.opts.rcvbuf / 2) as u32,
            Opt::SndBuf(_) | Opt::SndBufForce(_) => self.sndbuf = self.opts.sndbuf,
            Opt::Congestion(kind) => self.cc.kind = *kind,
            Opt::Timestamp(on) => self.recvq.keep_times(*on),
            Opt::MaxSeg(_) => self.update_mss(),
            // Both push out what was held back (tcp(7)).
            Opt::NoDelay(true) | Opt::Cork(false) => {
                self.corked_until = u64::MAX;
                if self.synchronized() {
                    self.send_new(stack, now, true);
                }
            }
            Opt::QuickAck(true) => {
                self.quick = 16;
                if self.delack_at != u64::MAX {
                    self.ack_now = true;
                    self.output(stack, now);
                }
            }
            _ => {}
        }
    }
}
