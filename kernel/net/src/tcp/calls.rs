//! The calls of a TCP socket: bind to close.

use alloc::sync::Arc;
use core::any::Any;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use errno::{Errno, Result};
use iobuf::{Sink, Source};

use super::listen::{Listener, backlog_of};
use super::socket::{Phase, TcpSocket};
use super::tcb::State;
use super::urgent::Gate;
use crate::option::{Opt, OptName};
use crate::poll::{Events, Pollee};
use crate::socket::{Control, Family, Kind, MsgFlags, RecvMeta, SendMeta, Shutdown, Socket};

impl Socket for TcpSocket {
    fn family(&self) -> Family {
        self.family
    }

    fn kind(&self) -> Kind {
        Kind::Stream
    }

    fn protocol(&self) -> u8 {
        crate::ip::proto::TCP
    }

    fn bind(&self, addr: SocketAddr) -> Result<()> {
        let (ip, port) = {
            let mut inner = self.inner.lock();
            if inner.bound.is_some() || !matches!(inner.phase, Phase::Idle) {
                return Err(Errno::EINVAL);
            }
            let v6only = inner.opts().v6only;
            drop(inner);
            self.canonical(addr, v6only)?
        };
        let (free_bind, transparent) = {
            let mut inner = self.inner.lock();
            let opts = inner.opts();
            (opts.free_bind, opts.transparent)
        };
        let addr = (!ip.is_unspecified()).then_some(ip);
        if let Some(own) = addr {
            let usable = self.stack.is_local(own) && !own.is_multicast();
            if !usable && !free_bind && !transparent {
                return Err(Errno::EADDRNOTAVAIL);
            }
        }
        if port == 0 {
            return self.bind_any(addr);
        }
        let binding = self.binding(addr);
        self.stack.tcp_ports.bind(port, binding)?;
        let mut inner = self.inner.lock();
        if inner.bound.is_some() {
            drop(inner);
            self.stack.tcp_ports.release(port, &binding);
            return Err(Errno::EINVAL);
        }
        inner.bound = Some((port, binding));
        Ok(())
    }

    fn listen(&self, backlog: u32) -> Result<()> {
        let backlog = backlog_of(&self.stack, backlog)?;
        let bound = {
            let inner = self.inner.lock();
            match &inner.phase {
                Phase::Listening(listener) => {
                    listener.set_backlog(backlog);
                    return Ok(());
                }
                Phase::Conn(_) => return Err(Errno::EINVAL),
                Phase::Idle => inner.bound,
            }
        };
        if bound.is_none() {
            self.bind_any(None)?;
        }
        let mut inner = self.inner.lock();
        let (port, binding) = inner.bound.ok_or(Errno::EADDRINUSE)?;
        if !matches!(inner.phase, Phase::Idle) {
            return Err(Errno::EINVAL);
        }
        self.stack.tcp_ports.listen(port, &binding)?;
        let listener = Arc::new(Listener::new(
            self.me.clone(),
            port,
            binding,
            self.family == Family::Inet6,
            backlog,
            inner.opts.clone(),
        ));
        inner.phase = Phase::Listening(listener.clone());
        drop(inner);
        self.stack.listeners.add(listener);
        Ok(())
    }

    fn accept(&self) -> Result<Arc<dyn Socket>> {
        let listener = match &self.inner.lock().phase {
            Phase::Listening(listener) => listener.clone(),
            _ => return Err(Errno::EINVAL),
        };
        match listener.pop() {
            Some(socket) => Ok(socket),
            None => Err(Errno::EAGAIN),
        }
    }

    fn connect(&self, addr: Option<SocketAddr>) -> Result<()> {
        let fast = self.inner.lock().opts().fast_open_connect;
        self.connect_to(addr, fast)
    }

    fn connect_result(&self) -> Option<Result<()>> {
        let mut inner = self.inner.lock();
        let Phase::Conn(tcb) = &inner.phase else {
            return Some(Err(inner.error.take().unwrap_or(Errno::ENOTCONN)));
        };
        match tcb.state {
            // It is only begun when there is something to send.
            State::SynSent if tcb.is_deferred() => Some(Ok(())),
            State::SynSent | State::SynReceived => None,
            State::Closed => {
                let error = inner.error.take();
                Some(Err(error.unwrap_or(Errno::ECONNABORTED)))
            }
            _ => {
                inner.connecting = false;
                Some(Ok(()))
            }
        }
    }

    fn send(&self, source: &mut dyn Source, meta: &SendMeta) -> Result<usize> {
        if meta.flags.contains(MsgFlags::FASTOPEN) {
            self.connect_with_data(meta, source.remaining() == 0)?;
        }
        let now = self.stack.now();
        let mut done = 0;
        {
            let _sender = self.send_lock.lock();
            let more = meta.flags.contains(MsgFlags::MORE);
            let urgent = meta.flags.contains(MsgFlags::OOB);
            loop {
                let sent = if urgent {
                    self.send_urgent(source, more, now)
                } else {
                    self.send_some(source, more, now)
                };
                match sent {
                    Ok(n) => {
                        done += n;
                        if n == 0 || source.remaining() == 0 {
                            break;
                        }
                    }
                    Err(error) if done == 0 => {
                        drop(_sender);
                        self.stack.drain_loopback();
                        let idle =
                            matches!(self.inner.lock().phase, Phase::Idle | Phase::Listening(_));
                        return Err(if idle && error == Errno::EPIPE && meta.to.is_none() {
                            Errno::EPIPE
                        } else {
                            error
                        });
                    }
                    Err(_) => break,
                }
            }
        }
        self.stack.drain_loopback();
        Ok(done)
    }

    fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<RecvMeta> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        if flags.contains(MsgFlags::OOB) {
            return self.recv_urgent(sink, flags);
        }
        let now = self.stack.now();
        let peek = flags.contains(MsgFlags::PEEK);
        let discard = flags.contains(MsgFlags::TRUNC);
        let mut done = 0;
        let mut limit = sink.remaining();
        let mut arrived = None;
        let outcome = {
            let _receiver = self.recv_lock.lock();
            loop {
                if limit == 0 {
                    break Ok(());
                }
                let mut gate = Gate {
                    skip: 0,
                    most: limit,
                };
                let mut parts = match &mut self.inner.lock().phase {
                    Phase::Conn(tcb) => {
                        if tcb.has_mark() {
                            match tcb.urgent_gate(done, limit) {
                                Some(narrowed) => gate = narrowed,
                                // Up to the mark and no further.
                                None => break Ok(()),
                            }
                        }
                        // The urgent byte may be a part of its own: what is behind it has to come along.
                        tcb.recvq
                            .take(if gate.skip > 0 { usize::MAX } else { gate.most })
                    }
                    _ => return Err(Errno::ENOTCONN),
                };
                if parts.is_empty() {
                    if done > 0 {
                        break Ok(());
                    }
                    // Data and the end may have come since the queue was looked at: then it is not the end yet.
                    match self.empty(0, now) {
                        Ok(false) => continue,
                        Ok(true) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
                let skipped = gate.skip;
                let mut copied = 0;
                let mut fault = None;
                for part in &mut parts {
                    // The urgent byte, which is read apart.
                    let skip = core::mem::take(&mut gate.skip).min(part.len());
                    let want = (part.len() - skip).min(gate.most - copied);
                    let n = if discard {
                        want
                    } else {
                        match part.copy_to(skip, want, sink) {
                            Ok(n) => n,
                            Err(error) => {
                                fault = Some(error);
                                0
                            }
                        }
                    };
                    copied += n;
                    if !peek {
                        part.advance(skip + n);
                    }
                    if n < want || copied == gate.most {
                        break;
                    }
                }
                done += copied;
                limit -= copied;
                let more = self.with_tcb(now, |tcb| {
                    tcb.recvq.untake(parts);
                    if tcb.opts.timestamp && copied > 0 {
                        let last = if peek { (skipped + copied) as isize } else { 0 };
                        arrived = tcb.recvq.arrived(last - 1);
                    }
                    if !peek {
                        tcb.recvq.forget_times();
                        tcb.on_read(&self.stack, copied + skipped, now);
                        if tcb.ack_now && tcb.state != State::Closed {
                            tcb.output(&self.stack, now);
                        }
                        if tcb.recvq.len() == 0 {
                            tcb.recvq.relax();
                        }
                        tcb.settle(&self.stack);
                    }
                    tcb.recvq.len() > 0
                });
                if let Some(error) = fault {
                    break if done == 0 { Err(error) } else { Ok(()) };
                }
                if done > 0 && (peek || copied + skipped == 0 || more != Some(true)) {
                    break Ok(());
                }
                if copied + skipped == 0 {
                    break Err(Errno::EAGAIN);
                }
                // Only the urgent byte was passed over; one that is peeked at stays where it is.
                if done == 0 && peek {
                    match self.empty(skipped, now) {
                        Ok(false) => continue,
                        Ok(true) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
            }
        };
        self.stack.drain_loopback();
        outcome?;
        Ok(RecvMeta {
            len: done,
            full_len: done,
            control: arrived.map(Control::Timestamp).into_iter().collect(),
            ..RecvMeta::default()
        })
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let now = self.stack.now();
        let result = self.with_inner(now, |inner| {
            let listening = match &mut inner.phase {
                Phase::Idle => return Err(Errno::ENOTCONN),
                Phase::Listening(listener) => Some(listener.clone()),
                Phase::Conn(tcb) => {
                    if matches!(tcb.state, State::Closed | State::TimeWait) {
                        return Err(Errno::ENOTCONN);
                    }
                    if how.read() {
                        tcb.shutdown_rcv = true;
                        tcb.effects.events |= Events::IN | Events::RDHUP;
                    }
                    if how.write() {
                        tcb.shut_write(&self.stack, now);
                    }
                    None
                }
            };
            Ok(listening)
        })?;
        if let Some(listener) = result
            && how.read()
        {
            self.stop_listening(&listener, now);
            self.inner.lock().phase = Phase::Idle;
            self.pollee.notify(Events::IN | Events::HUP);
        }
        self.stack.drain_loopback();
        Ok(())
    }

    fn close(&self) {
        let now = self.stack.now();
        let listener = self.with_inner(now, |inner| {
            inner.closed = true;
            match &mut inner.phase {
                Phase::Idle => None,
                Phase::Listening(listener) => Some(listener.clone()),
                Phase::Conn(tcb) => {
                    tcb.close(&self.stack, now);
                    None
                }
            }
        });
        if let Some(listener) = listener {
            self.stop_listening(&listener, now);
        }
        let release = {
            let mut inner = self.inner.lock();
            match &inner.phase {
                Phase::Conn(tcb) if !matches!(tcb.state, State::Closed | State::TimeWait) => None,
                _ => {
                    if matches!(inner.phase, Phase::Listening(_)) {
                        inner.phase = Phase::Idle;
                    }
                    inner.bound.take()
                }
            }
        };
        if let Some((port, binding)) = release {
            self.stack.tcp_ports.release(port, &binding);
        }
        self.stack.drain_loopback();
    }

    fn linger_pending(&self) -> bool {
        match &self.inner.lock().phase {
            Phase::Conn(tcb) => {
                tcb.fin_wanted
                    && !matches!(tcb.state, State::Closed | State::TimeWait | State::FinWait2)
            }
            _ => false,
        }
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        let inner = self.inner.lock();
        Ok(match (&inner.phase, inner.bound) {
            (Phase::Conn(tcb), _) => self.show(tcb.key.local, tcb.key.lport),
            (_, Some((port, binding))) => match binding.addr {
                Some(addr) => self.show(addr, port),
                None => SocketAddr::new(self.any(), port),
            },
            _ => SocketAddr::new(self.any(), 0),
        })
    }

    fn peer_addr(&self) -> Result<SocketAddr> {
        match &self.inner.lock().phase {
            Phase::Conn(tcb)
                if !matches!(tcb.state, State::SynSent | State::Closed | State::TimeWait) =>
            {
                Ok(self.show(tcb.key.remote, tcb.key.rport))
            }
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn set_option(&self, option: Opt) -> Result<()> {
        self.set_opt(option)
    }

    fn option(&self, name: OptName) -> Result<Opt> {
        self.get_opt(name)
    }

    fn take_error(&self) -> Option<Errno> {
        self.inner.lock().error.take()
    }

    fn poll(&self) -> Events {
        let mut inner = self.inner.lock();
        let mut events = Events::empty();
        if inner.error.is_some() {
            events |= Events::ERR;
        }
        match &mut inner.phase {
            Phase::Idle => events |= Events::OUT | Events::WRNORM | Events::HUP,
            Phase::Listening(listener) => {
                if listener.ready() > 0 {
                    events |= Events::IN | Events::RDNORM;
                }
            }
            Phase::Conn(tcb) => {
                let read_closed = tcb.shutdown_rcv
                    || matches!(
                        tcb.state,
                        State::Closed
                            | State::TimeWait
                            | State::CloseWait
                            | State::LastAck
                            | State::Closing
                    );
                let over = matches!(tcb.state, State::Closed | State::TimeWait);
                if over || read_closed && tcb.fin_wanted {
                    events |= Events::HUP;
                }
                if read_closed {
                    events |= Events::IN | Events::RDNORM | Events::RDHUP;
                }
                if tcb.is_early() || !matches!(tcb.state, State::SynSent | State::SynReceived) {
                    let low = (tcb.opts.rcv_lowat as usize)
                        .min(tcb.rcv_limit as usize / 2)
                        .max(1);
                    if tcb.readable() >= low {
                        events |= Events::IN | Events::RDNORM;
                    }
                    if over || tcb.fin_wanted || tcb.writable(&self.stack) {
                        events |= Events::OUT | Events::WRNORM;
                    } else {
                        tcb.want_write = true;
                    }
                    if tcb.urgent_here() {
                        events |= Events::PRI;
                    }
                } else if tcb.is_deferred() {
                    events |= Events::OUT | Events::WRNORM;
                } else {
                    tcb.want_write = true;
                }
            }
        }
        events
    }

    fn pollee(&self) -> &Pollee {
        &self.pollee
    }

    fn input_queued(&self) -> usize {
        match &self.inner.lock().phase {
            Phase::Conn(tcb) => tcb.to_mark(),
            _ => 0,
        }
    }

    fn output_queued(&self) -> usize {
        match &self.inner.lock().phase {
            Phase::Conn(tcb) => {
                let fin = tcb.fin_wanted && tcb.synchronized();
                tcb.sendq.len() + usize::from(fin && tcb.sendq.len() == 0 && !tcb.all_acked())
            }
            _ => 0,
        }
    }

    fn at_mark(&self) -> Result<bool> {
        match &self.inner.lock().phase {
            Phase::Conn(tcb) => Ok(tcb.at_mark()),
            _ => Ok(false),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl TcpSocket {
    /// `connect`; `fast` tries to send data with the SYN, which then waits for it.
    fn connect_to(&self, addr: Option<SocketAddr>, fast: bool) -> Result<()> {
        let Some(addr) = addr else {
            // AF_UNSPEC: break the connection off, keep the socket.
            let now = self.stack.now();
            self.abort(now);
            let mut inner = self.inner.lock();
            if matches!(inner.phase, Phase::Conn(_)) {
                inner.phase = Phase::Idle;
            }
            inner.error = None;
            return Ok(());
        };
        let v6only = {
            let mut inner = self.inner.lock();
            match &inner.phase {
                Phase::Listening(_) => return Err(Errno::EISCONN),
                Phase::Conn(tcb) => match tcb.state {
                    State::SynSent if tcb.is_deferred() => return Err(Errno::EISCONN),
                    State::SynSent | State::SynReceived => return Err(Errno::EALREADY),
                    // A failed attempt leaves a socket that can try again.
                    State::Closed if inner.connecting => {
                        let error = inner.error.take();
                        inner.connecting = false;
                        let opts = inner.opts().clone();
                        inner.opts = opts;
                        inner.phase = Phase::Idle;
                        if let Some(error) = error {
                            return Err(error);
                        }
                    }
                    _ => return Err(Errno::EISCONN),
                },
                Phase::Idle => {}
            }
            inner.opts().v6only
        };
        let (ip, port) = self.canonical(addr, v6only)?;
        let ip = match ip {
            IpAddr::V4(a) if a.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(a) if a.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            IpAddr::V4(a) if a.is_broadcast() || a.is_multicast() => {
                return Err(Errno::ENETUNREACH);
            }
            IpAddr::V6(a) if a.is_multicast() => return Err(Errno::ENETUNREACH),
            ip => ip,
        };
        if port == 0 {
            return Err(Errno::ECONNREFUSED);
        }
        self.start_connect(ip, port, fast)?;
        // Over the loopback it may be done already.
        match self.connect_result() {
            Some(result) => result,
            None => Err(Errno::EINPROGRESS),
        }
    }

    /// `send` with `MSG_FASTOPEN`: starts a connection that takes the data along if it can.
    ///
    /// # Errors
    /// `EINPROGRESS` when it cannot: nothing was taken; else as `connect`.
    fn connect_with_data(&self, meta: &SendMeta, nothing: bool) -> Result<()> {
        self.connect_to(Some(meta.to.ok_or(Errno::EINVAL)?), true)?;
        let now = self.stack.now();
        let alone = self.with_tcb(now, |tcb| {
            let alone = nothing && tcb.is_deferred();
            if alone {
                tcb.send_deferred(&self.stack, now);
            }
            alone
        });
        if alone == Some(true) {
            return Err(Errno::EINPROGRESS);
        }
        Ok(())
    }

    fn stop_listening(&self, listener: &Arc<Listener>, now: u64) {
        self.stack.listeners.remove(listener);
        self.stack
            .tcp_ports
            .unlisten(listener.port, &listener.binding);
        for socket in listener.close() {
            socket.abort(now);
        }
    }
}
