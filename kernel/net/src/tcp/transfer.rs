//! What the calls of a TCP socket share: addresses, ports, the start of a connection, moving bytes between
//! the program and the queues, and closing. The calls themselves are in `calls`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use errno::{Errno, Result};
use iobuf::Source;

use super::sendq::{CHUNK, SMALL};
use super::socket::{Phase, TcpSocket, initial_seq};
use super::tcb::{State, Tcb};
use crate::flow::{Flow, FlowKey};
use crate::nic::TxSegment;
use crate::poll::Events;
use crate::ports::Binding;
use crate::socket::Family;

impl TcpSocket {
    /// The address a program gave, as the engine uses it: mapped ones are IPv4.
    pub(super) fn canonical(&self, addr: SocketAddr, v6only: bool) -> Result<(IpAddr, u16)> {
        match (self.family, addr.ip()) {
            (Family::Inet, IpAddr::V6(_)) => Err(Errno::EAFNOSUPPORT),
            (Family::Inet6, IpAddr::V4(_)) => Err(Errno::EAFNOSUPPORT),
            (_, ip) => {
                let canonical = ip.to_canonical();
                if v6only && ip.is_ipv6() && canonical.is_ipv4() {
                    return Err(Errno::ENETUNREACH);
                }
                Ok((canonical, addr.port()))
            }
        }
    }

    pub(super) fn binding(&self, addr: Option<IpAddr>) -> Binding {
        let mut inner = self.inner.lock();
        let opts = inner.opts();
        Binding {
            addr,
            ipv6: self.family == Family::Inet6,
            v6only: opts.v6only,
            reuse_addr: opts.reuse_addr,
            reuse_port: opts.reuse_port,
            device: opts.device,
            auto: false,
        }
    }

    /// Binds to a port of the system's choice, for `listen` on a socket that is not bound.
    pub(super) fn bind_any(&self, addr: Option<IpAddr>) -> Result<()> {
        let binding = self.binding(addr);
        let own = self.inner.lock().opts().port_range;
        let range = crate::ports::narrowed(self.stack.config().limits.port_range, own);
        let port = self
            .stack
            .tcp_ports
            .bind_any(range, self.stack.random(), binding)?;
        self.inner.lock().bound = Some((port, binding));
        Ok(())
    }

    pub(super) fn start_connect(&self, remote: IpAddr, rport: u16, fast: bool) -> Result<()> {
        let stack = &self.stack;
        let now = stack.now();
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        let (bound, opts) = {
            let mut inner = self.inner.lock();
            (inner.bound, inner.opts().clone())
        };
        let bound_addr = bound.and_then(|(_, b)| b.addr);
        let dst = stack.route(remote, bound_addr, opts.device)?;
        let local = dst.src;
        let mut key = FlowKey {
            local,
            remote,
            lport: 0,
            rport,
        };
        let mut made = None;
        let mut claim = |port: u16| {
            key.lport = port;
            let iss = initial_seq(stack, &key, now);
            let mut tcb = Box::new(Tcb::new(stack, key, dst.clone(), opts.clone(), iss, now));
            tcb.state = State::SynSent;
            if stack.flows.insert(key, Flow::Conn(me.clone())).is_err() {
                return false;
            }
            made = Some(tcb);
            true
        };
        let auto = match bound {
            Some((port, _)) => {
                if !claim(port) {
                    return Err(Errno::EADDRNOTAVAIL);
                }
                None
            }
            None => {
                let binding = Binding {
                    addr: Some(local),
                    ipv6: self.family == Family::Inet6,
                    v6only: opts.v6only,
                    reuse_addr: opts.reuse_addr,
                    reuse_port: opts.reuse_port,
                    device: opts.device,
                    auto: true,
                };
                // RFC 6056 algorithm 3: apart for each peer, unforeseeable for others.
                let peer = FlowKey {
                    local,
                    remote,
                    lport: 0,
                    rport,
                };
                let seed = peer
                    .secret(stack.secret, 2)
                    .wrapping_add(stack.random() % 64);
                let port = stack.tcp_ports.bind_for_connect(
                    crate::ports::narrowed(stack.config().limits.port_range, opts.port_range),
                    seed,
                    binding,
                    &mut claim,
                )?;
                Some((port, binding))
            }
        };
        let Some(mut tcb) = made else {
            return Err(Errno::EADDRNOTAVAIL);
        };
        stack.counters().tcp_active_opens.bump();
        self.with_inner(now, |inner| {
            if !fast || !tcb.open_fast(stack, now) {
                tcb.send_syn(stack, now);
                tcb.stalled_since = now;
                tcb.arm_rto(now);
            }
            inner.error = None;
            inner.connecting = true;
            if auto.is_some() {
                inner.bound = auto;
            }
            inner.phase = Phase::Conn(tcb);
        });
        stack.drain_loopback();
        Ok(())
    }

    /// Takes a small write into a buffer on the stack, a large one into a chunk, without the inner lock.
    pub(super) fn send_some(&self, source: &mut dyn Source, more: bool, now: u64) -> Result<usize> {
        let room = self.room(now)?;
        let want = source.remaining().min(room);
        if want == 0 {
            return Ok(0);
        }
        self.take_some(source, want, room, more, now)
    }

    /// Room in the send queue, or why nothing can be sent.
    pub(super) fn room(&self, now: u64) -> Result<usize> {
        self.with_inner(now, |inner| -> Result<usize> {
            if let Some(error) = inner.error.take() {
                return Err(error);
            }
            let Phase::Conn(tcb) = &mut inner.phase else {
                return Err(Errno::EPIPE);
            };
            match tcb.state {
                State::SynSent if tcb.is_deferred() => {
                    return Ok(tcb.send_room(&self.stack).min(tcb.syn_room()));
                }
                State::SynSent | State::SynReceived if !tcb.is_early() => {
                    tcb.want_write = true;
                    return Err(Errno::EAGAIN);
                }
                _ if !tcb.can_send() || tcb.fin_wanted => return Err(Errno::EPIPE),
                _ => {}
            }
            let room = tcb.send_room(&self.stack);
            if room == 0 {
                tcb.want_write = true;
                tcb.keep_time(now);
                return Err(Errno::EAGAIN);
            }
            Ok(room)
        })
    }

    pub(super) fn take_some(
        &self,
        source: &mut dyn Source,
        want: usize,
        room: usize,
        more: bool,
        now: u64,
    ) -> Result<usize> {
        if want <= SMALL {
            let mut small = [0; SMALL];
            let n = source.take(&mut small[..want])?;
            return self.append(more, now, |tcb| {
                tcb.sendq.append_small(&small[..n], &self.stack.chunks);
                n
            });
        }
        let mut chunk = self.stack.chunks.take();
        let n = match Arc::get_mut(&mut chunk) {
            Some(memory) => source.take(&mut memory[..want.min(CHUNK)])?,
            None => return Err(Errno::ENOMEM),
        };
        // The rest of this call follows at once: only its last part may leave a segment part-filled.
        let more = more || source.remaining() > 0 && room > n;
        self.append(more, now, |tcb| {
            tcb.sendq.append_chunk(chunk, n);
            n
        })
    }

    pub(super) fn append(
        &self,
        more: bool,
        now: u64,
        add: impl FnOnce(&mut Tcb) -> usize,
    ) -> Result<usize> {
        self.with_inner(now, |inner| {
            let Phase::Conn(tcb) = &mut inner.phase else {
                return Err(Errno::EPIPE);
            };
            if !tcb.can_send() && !tcb.is_deferred() || tcb.fin_wanted {
                return Err(inner.error.take().unwrap_or(Errno::EPIPE));
            }
            tcb.note_app_limited();
            let n = add(tcb);
            if tcb.sending_urgent {
                tcb.snd_urgent = Some(tcb.data_end());
            }
            if tcb.is_deferred() {
                tcb.send_deferred(&self.stack, now);
            }
            let corked = tcb.opts.cork;
            tcb.opts.cork |= more;
            tcb.output(&self.stack, now);
            tcb.opts.cork = corked;
            tcb.settle(&self.stack);
            Ok(n)
        })
    }

    /// Sends bytes where they lie, such as pages of the page cache, from the front of `segments` as long as there is room,
    /// and returns how many: nothing is copied. What is written there until the peer has acknowledged it may go out
    /// instead, as on Linux.
    ///
    /// # Errors
    /// As [`crate::Socket::send`].
    pub fn send_segments(&self, segments: &mut Vec<TxSegment>, more: bool) -> Result<usize> {
        let now = self.stack.now();
        let done = {
            let _sender = self.send_lock.lock();
            self.room(now).and_then(|room| {
                self.append(more, now, |tcb| {
                    let mut taken = 0;
                    // The last one may go over what was room: it is one page.
                    let count = segments
                        .iter()
                        .take_while(|segment| {
                            let fits = taken < room;
                            taken += if fits { segment.len() } else { 0 };
                            fits
                        })
                        .count();
                    for segment in segments.drain(..count) {
                        tcb.sendq.append_segment(segment);
                    }
                    taken
                })
            })
        };
        self.stack.drain_loopback();
        done
    }

    /// Why there is nothing to read behind the first `passed` bytes: an error, the end (true), or not yet.
    /// False when there is something.
    pub(super) fn empty(&self, passed: usize, now: u64) -> Result<bool> {
        self.with_inner(now, |inner| {
            if matches!(&inner.phase, Phase::Conn(tcb) if tcb.recvq.len() > passed) {
                return Ok(false);
            }
            if let Some(error) = inner.error.take() {
                return Err(error);
            }
            match &mut inner.phase {
                Phase::Conn(tcb) => {
                    let over = tcb.shutdown_rcv
                        || matches!(
                            tcb.state,
                            State::Closed
                                | State::TimeWait
                                | State::CloseWait
                                | State::LastAck
                                | State::Closing
                        );
                    if over { Ok(true) } else { Err(Errno::EAGAIN) }
                }
                _ => Err(Errno::ENOTCONN),
            }
        })
    }
}

impl Tcb {
    /// No more data from the program: a FIN follows what is queued.
    pub fn shut_write(&mut self, stack: &crate::stack::Stack, now: u64) {
        let next = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            // The FIN waits for the handshake's end.
            State::SynReceived if self.is_early() => State::SynReceived,
            _ => return,
        };
        self.set_state(stack, next);
        self.fin_wanted = true;
        self.opts.cork = false;
        self.effects.events |= Events::OUT;
        self.output(stack, now);
    }

    /// The program is gone.
    pub fn close(&mut self, stack: &crate::stack::Stack, now: u64) {
        self.orphan = true;
        let hard = self.opts.linger.is_some_and(|l| l.is_zero());
        let unread = self.recvq.len() > 0;
        match self.state {
            State::Closed | State::TimeWait => {}
            State::SynSent => self.finish(stack, None),
            State::SynReceived if !self.is_early() => self.finish(stack, None),
            _ if hard || unread => {
                // What was not read is lost: the peer has to know (RFC 2525 §2.17).
                if hard {
                    stack.counters().abort_on_linger.bump();
                } else {
                    stack.counters().abort_on_close.bump();
                }
                self.send_reset(stack, now);
                self.finish(stack, None);
            }
            State::FinWait2 => self.arm_fin_wait(stack, now),
            _ => self.shut_write(stack, now),
        }
        self.recvq.clear();
        self.settle(stack);
    }
}
