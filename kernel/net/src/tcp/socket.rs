//! A TCP socket: its phases, its lock, and what has to happen once the lock is released. The calls a
//! program makes are in `calls`, its options in `sockopt`.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use errno::Errno;

use super::header::Segment;
use super::listen::{Listener, Seed};
use super::opts::TcpOpts;
use super::tcb::{State, Tcb};
use super::timewait::TimeWait;
use crate::flow::{Flow, FlowKey};
use crate::pkt::Payload;
use crate::poll::{Events, Pollee};
use crate::ports::Binding;
use crate::query::SocketInfo;
use crate::socket::Family;
use crate::stack::{Stack, Timer};
use crate::sync::{SleepLock, SpinLock};

/// What a socket is at.
pub(crate) enum Phase {
    /// New, perhaps bound.
    Idle,
    Listening(Arc<Listener>),
    /// A connection, being made, made, or over (its last data may still be read).
    Conn(Box<Tcb>),
}

pub(crate) struct Inner {
    pub phase: Phase,
    /// Until there is a connection, which has its own.
    pub opts: TcpOpts,
    pub error: Option<Errno>,
    /// The port held, and how.
    pub bound: Option<(u16, Binding)>,
    /// `connect` was called and its outcome not yet told.
    pub connecting: bool,
    pub closed: bool,
}

impl Inner {
    pub fn opts(&mut self) -> &mut TcpOpts {
        match &mut self.phase {
            Phase::Conn(tcb) => &mut tcb.opts,
            _ => &mut self.opts,
        }
    }
}

/// A TCP socket: see [`crate::Socket`] for its calls.
pub struct TcpSocket {
    pub(crate) stack: Arc<Stack>,
    pub(crate) family: Family,
    pub(crate) me: Weak<TcpSocket>,
    pub(crate) pollee: Pollee,
    /// One sender, one receiver at a time: they copy from and to the program without the inner lock.
    pub(crate) send_lock: SleepLock<()>,
    pub(crate) recv_lock: SleepLock<()>,
    pub(crate) inner: SpinLock<Inner>,
}

/// RFC 6528: a keyed hash of the flow plus a clock, 64 ns a step as Linux has it.
pub(crate) fn initial_seq(stack: &Stack, key: &FlowKey, now: u64) -> u32 {
    (key.secret(stack.secret, 1) as u32).wrapping_add((now >> 6) as u32)
}

/// The window scale to offer: for the largest buffer this socket can get.
pub(crate) fn rcv_wscale(stack: &Stack, opts: &TcpOpts) -> u8 {
    let limits = &stack.config().limits;
    super::tcb::wscale_for(match opts.rcvbuf {
        0 => stack.tcp_defaults.rmem_max(),
        n => n.max(limits.tcp_rmem),
    })
}

impl TcpSocket {
    /// A new, unbound socket.
    pub fn new(stack: &Arc<Stack>, family: Family) -> Arc<TcpSocket> {
        let opts = TcpOpts::new(&stack.tcp_defaults);
        TcpSocket::make(stack, family, opts, Phase::Idle, None)
    }

    fn make(
        stack: &Arc<Stack>,
        family: Family,
        opts: TcpOpts,
        phase: Phase,
        bound: Option<(u16, Binding)>,
    ) -> Arc<TcpSocket> {
        Arc::new_cyclic(|me| TcpSocket {
            stack: stack.clone(),
            family,
            me: me.clone(),
            pollee: Pollee::new(),
            send_lock: SleepLock::new(()),
            recv_lock: SleepLock::new(()),
            inner: SpinLock::new(Inner {
                phase,
                opts,
                error: None,
                bound,
                connecting: false,
                closed: false,
            }),
        })
    }

    /// A connection that a listener has made.
    pub(crate) fn passive(parent: &Arc<TcpSocket>, seed: Seed<'_>, now: u64) -> Arc<TcpSocket> {
        let stack = &parent.stack;
        let opts = seed.listener.opts.lock().clone();
        let mut tcb = Box::new(Tcb::new(
            stack,
            seed.key,
            seed.dst,
            opts.clone(),
            seed.iss,
            now,
        ));
        tcb.take_options(&seed.syn);
        tcb.ecn.ok = super::ecn::agreed(stack, &seed.syn);
        if !tcb.wscale_ok {
            tcb.rcv_wscale = 0;
        }
        tcb.rcv_wnd = tcb.rcv_limit.min(super::tcb::FIRST_WINDOW);
        tcb.snd_una = seed.iss.wrapping_add(1);
        tcb.snd_nxt = tcb.snd_una;
        tcb.snd_max = tcb.snd_una;
        // From its last segment we know the window the peer gives; the SYN's is not scaled.
        tcb.snd_wnd = u32::from(seed.syn.window);
        tcb.max_wnd = tcb.snd_wnd;
        if let Some(rtt) = seed.rtt {
            tcb.rtt.sample(rtt, now);
        } else {
            tcb.cc.cwnd = tcb.mss;
        }
        tcb.enter_established(stack, now);
        tcb.effects = super::tcb::Effects::default();
        // The SYN.
        tcb.segs_in = 1;
        let binding = Binding {
            addr: Some(seed.key.local),
            ..seed.listener.binding
        };
        stack.tcp_ports.share(seed.key.lport, binding);
        TcpSocket::make(
            stack,
            parent.family,
            opts,
            Phase::Conn(tcb),
            Some((seed.key.lport, binding)),
        )
    }

    /// Undoes [`TcpSocket::passive`] when another was faster.
    pub(crate) fn forget(&self) {
        let mut inner = self.inner.lock();
        if let Phase::Conn(tcb) = &mut inner.phase {
            tcb.set_state(&self.stack, State::Closed);
        }
        inner.phase = Phase::Idle;
        let bound = inner.bound.take();
        drop(inner);
        if let Some((port, binding)) = bound {
            self.stack.tcp_ports.release(port, &binding);
        }
    }

    /// The handshake was done with a SYN cookie, whose timestamps have no offset.
    pub(crate) fn without_ts_offset(&self) {
        if let Phase::Conn(tcb) = &mut self.inner.lock().phase {
            tcb.ts_offset = 0;
        }
    }

    /// Tells who waits.
    pub(crate) fn notify(&self, events: Events) {
        self.pollee.notify(events);
    }

    /// A received segment of this connection.
    pub(crate) fn segment(
        &self,
        segment: &Segment,
        payload: Payload,
        merged: Option<u16>,
        now: u64,
    ) {
        self.with_tcb(now, |tcb| {
            tcb.segment(&self.stack, segment, payload, merged, now);
        });
    }

    /// The wheel says that it may be time.
    pub(crate) fn on_timer(&self, now: u64) {
        self.with_tcb(now, |tcb| {
            while tcb.wheel_len > 0 && tcb.wheel[tcb.wheel_len - 1] <= now {
                tcb.wheel_len -= 1;
            }
            if tcb.next_deadline() <= now {
                tcb.on_timers(&self.stack, now);
                tcb.settle(&self.stack);
            }
        });
    }

    /// Breaks the connection off.
    pub(crate) fn abort(&self, now: u64) {
        self.with_tcb(now, |tcb| {
            tcb.orphan = true;
            if tcb.synchronized() || tcb.state == State::SynReceived {
                tcb.send_reset(&self.stack, now);
            }
            if tcb.state != State::Closed && tcb.state != State::TimeWait {
                tcb.finish(&self.stack, Some(Errno::ECONNABORTED));
            }
        });
    }

    /// Runs `f` on the connection, if there is one, and then does what it asked for.
    pub(crate) fn with_tcb<R>(&self, now: u64, f: impl FnOnce(&mut Tcb) -> R) -> Option<R> {
        self.with_inner(now, |inner| match &mut inner.phase {
            Phase::Conn(tcb) => Some(f(tcb)),
            _ => None,
        })
    }

    /// Runs `f` under the lock; then timers are armed, and without the lock, the flow is removed and
    /// waiters are told.
    pub(crate) fn with_inner<R>(&self, now: u64, f: impl FnOnce(&mut Inner) -> R) -> R {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let result = f(inner);
        let Phase::Conn(tcb) = &mut inner.phase else {
            return result;
        };
        self.arm(tcb);
        if tcb.effects.events.is_empty() && !tcb.effects.gone && !tcb.effects.time_wait {
            return result;
        }
        let effects = core::mem::take(&mut tcb.effects);
        if effects.error.is_some() && !tcb.orphan {
            inner.error = effects.error;
        }
        let key = tcb.key;
        let over = effects.gone || effects.time_wait;
        let wait = (effects.time_wait && !effects.gone)
            .then(|| {
                let length = self.stack.config().limits.time_wait_ns;
                inner
                    .bound
                    .map(|(_, binding)| TimeWait::of(tcb, binding, length, now))
            })
            .flatten();
        // A port that the program bound stays its own until it closes the socket.
        let release = if over && (tcb.orphan || inner.bound.is_some_and(|(_, b)| b.auto)) {
            inner.bound.take()
        } else {
            None
        };
        drop(guard);
        if over {
            let is_me = |flow: &Flow| matches!(flow, Flow::Conn(c) if core::ptr::eq(&**c, self));
            match wait {
                Some(wait) => {
                    self.stack.tcp_ports.share(key.lport, wait.binding);
                    super::listen::to_time_wait(&self.stack, &key, wait, is_me);
                }
                None => {
                    self.stack.flows.remove(&key, is_me);
                }
            }
        }
        if let Some((port, binding)) = release {
            self.stack.tcp_ports.release(port, &binding);
        }
        self.pollee.notify(effects.events);
        result
    }

    /// Puts the nearest deadline into the wheel unless an entry there is early enough.
    fn arm(&self, tcb: &mut Tcb) {
        let deadline = tcb.next_deadline();
        if deadline == u64::MAX {
            return;
        }
        if tcb.wheel_len > 0 && tcb.wheel[tcb.wheel_len - 1] <= deadline {
            return;
        }
        if tcb.wheel_len < tcb.wheel.len() {
            tcb.wheel_len += 1;
        }
        tcb.wheel[tcb.wheel_len - 1] = deadline;
        self.stack
            .schedule(tcb.spread, deadline, Timer::Conn(self.me.clone()));
    }

    /// An address as the socket's family shows it.
    pub(crate) fn show(&self, addr: IpAddr, port: u16) -> SocketAddr {
        match self.family {
            Family::Inet => SocketAddr::new(addr, port),
            Family::Inet6 => SocketAddr::new(crate::option::mapped(addr).into(), port),
        }
    }

    /// The wildcard of the socket's family.
    pub(crate) fn any(&self) -> IpAddr {
        match self.family {
            Family::Inet => Ipv4Addr::UNSPECIFIED.into(),
            Family::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// For listings.
    pub(crate) fn describe(&self, info: &mut SocketInfo) {
        let inner = self.inner.lock();
        info.ipv6 = self.family == Family::Inet6;
        if let Phase::Conn(tcb) = &inner.phase {
            info.state = tcb.state as u8;
            info.send_queue = tcb.sendq.len();
            info.recv_queue = tcb.recvq.len();
            info.retransmits = tcb.retransmits;
        }
    }
}

impl Drop for TcpSocket {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        if let Phase::Conn(tcb) = &mut inner.phase {
            self.stack.discharge(tcb.charged);
            tcb.charged = 0;
        }
        if let Some((port, binding)) = inner.bound.take() {
            self.stack.tcp_ports.release(port, &binding);
        }
    }
}
