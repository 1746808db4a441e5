//! The calls of a UDP socket.

use alloc::vec::Vec;
use core::any::Any;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use errno::{Errno, Result};
use iobuf::{Sink, Source};

use super::datagram::at_offset;
use super::{Inner, UdpSocket};
use crate::ip::proto;
use crate::option::{Opt, OptName};
use crate::poll::{Events, Pollee};
use crate::ports::Binding;
use crate::socket::{
    Control, Family, Kind, MsgFlags, RecvMeta, SendMeta, Shutdown, Socket, datagram_events,
};

impl UdpSocket {
    pub(super) fn canonical(&self, addr: SocketAddr, v6only: bool) -> Result<(IpAddr, u16)> {
        match (self.family, addr.ip()) {
            (Family::Inet, IpAddr::V6(_)) | (Family::Inet6, IpAddr::V4(_)) => {
                Err(Errno::EAFNOSUPPORT)
            }
            (_, ip) => {
                let canonical = ip.to_canonical();
                if v6only && ip.is_ipv6() && canonical.is_ipv4() {
                    return Err(Errno::ENETUNREACH);
                }
                Ok((canonical, addr.port()))
            }
        }
    }

    pub(crate) fn show(&self, addr: IpAddr, port: u16) -> SocketAddr {
        match self.family {
            Family::Inet => SocketAddr::new(addr, port),
            Family::Inet6 => SocketAddr::new(crate::option::mapped(addr).into(), port),
        }
    }

    fn any(&self) -> IpAddr {
        match self.family {
            Family::Inet => Ipv4Addr::UNSPECIFIED.into(),
            Family::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    fn take_port(&self, addr: Option<IpAddr>, port: u16) -> Result<()> {
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        let binding = {
            let inner = self.inner.lock();
            if inner.bound.is_some() {
                return Err(Errno::EINVAL);
            }
            Binding {
                addr,
                ipv6: self.family == Family::Inet6,
                v6only: inner.opts.v6only,
                reuse_addr: inner.opts.ip.reuse_addr,
                reuse_port: inner.opts.reuse_port,
                device: inner.opts.ip.device,
                auto: false,
            }
        };
        let table = &self.stack.udp;
        let port = if port == 0 {
            let own = self.inner.lock().opts.port_range;
            let range = crate::ports::narrowed(self.stack.config().limits.port_range, own);
            table.ports.bind_any(range, self.stack.random(), binding)?
        } else {
            table.ports.bind(port, binding)?;
            port
        };
        let mut inner = self.inner.lock();
        if inner.bound.is_some() {
            drop(inner);
            table.ports.release(port, &binding);
            return Err(Errno::EINVAL);
        }
        inner.bound = Some((port, binding));
        drop(inner);
        table.add(port, me);
        Ok(())
    }

    /// Before the first send or connect: a port of the system's choice.
    pub(super) fn ensure_port(&self) -> Result<u16> {
        let bound = self.inner.lock().bound;
        if let Some((port, _)) = bound {
            return Ok(port);
        }
        self.take_port(None, 0).map_err(|error| match error {
            Errno::EADDRINUSE => Errno::EAGAIN,
            error => error,
        })?;
        self.inner
            .lock()
            .bound
            .map(|(port, _)| port)
            .ok_or(Errno::EAGAIN)
    }

    fn controls(&self, inner: &Inner, d: &super::Datagram) -> Vec<Control> {
        let opts = &inner.opts;
        let mut all = Vec::new();
        if opts.ip.timestamp {
            all.push(Control::Timestamp(d.at));
        }
        if opts.rxq_ovfl && d.dropped > 0 {
            all.push(Control::Dropped(d.dropped));
        }
        match d.to.0 {
            IpAddr::V4(dst) => {
                if opts.ip.pktinfo {
                    let local = if self.stack.is_local(d.to.0) {
                        dst
                    } else {
                        match self
                            .stack
                            .interface(d.index)
                            .and_then(|i| i.first_addr(true))
                        {
                            Some(IpAddr::V4(a)) => a,
                            _ => Ipv4Addr::UNSPECIFIED,
                        }
                    };
                    all.push(Control::PktInfo {
                        index: d.index,
                        local,
                        dst,
                    });
                }
                if opts.ip.recv_ttl {
                    all.push(Control::Ttl(d.ttl));
                }
                if opts.ip.recv_tos {
                    all.push(Control::Tos(d.tos));
                }
                if opts.orig_dst {
                    all.push(Control::OrigDst(SocketAddr::new(d.to.0, d.to.1)));
                }
            }
            IpAddr::V6(_) => {
                if opts.ip.recv_hops {
                    all.push(Control::HopLimit(d.ttl));
                }
                if opts.ip.recv_tclass {
                    all.push(Control::TClass(d.tos));
                }
                if opts.orig_dst6 {
                    all.push(Control::OrigDst(SocketAddr::new(d.to.0, d.to.1)));
                }
            }
        }
        if opts.ip.pktinfo6 && self.family == Family::Inet6 {
            all.push(Control::PktInfo6 {
                index: d.index,
                addr: crate::option::mapped(d.to.0),
            });
        }
        if opts.gro && d.merged.0 > 1 {
            all.push(Control::UdpSegment(d.merged.1));
        }
        all
    }

    /// Receives the datagram in which byte `off` of all that waits lies, from there on; the first without.
    fn receive(
        &self,
        sink: &mut dyn Sink,
        flags: MsgFlags,
        off: Option<usize>,
    ) -> Result<RecvMeta> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return self.recv_error(sink);
        }
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let _receiver = self.recv_lock.lock();
        let (mut datagram, control, index, mut skip) = {
            let mut inner = self.inner.lock();
            if let Some(error) = inner.error.take() {
                return Err(error);
            }
            let place = match off {
                Some(off) => at_offset(inner.queue.iter(), off),
                None => Some((0, 0)),
            };
            let found = place.and_then(|(index, skip)| {
                let datagram = self.take_at(&mut inner, index)?;
                Some((datagram, index, skip))
            });
            match found {
                Some((datagram, index, skip)) => {
                    let control = self.controls(&inner, &datagram);
                    (datagram, control, index, skip)
                }
                None if inner.shut_read => return Ok(RecvMeta::default()),
                None => return Err(Errno::EAGAIN),
            }
        };
        let full_len = crate::pkt::payload_len(&datagram.payload);
        let wanted = full_len - skip;
        let mut len = 0;
        let mut fault = None;
        for part in &datagram.payload {
            let passed = skip.min(part.len());
            skip -= passed;
            let want = part.len() - passed;
            match part.copy_to(passed, want, sink) {
                Ok(n) => {
                    len += n;
                    if n < want {
                        break;
                    }
                }
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            }
        }
        let from = self.show(datagram.from.0, datagram.from.1);
        if flags.contains(MsgFlags::PEEK) {
            datagram.peeked = true;
            self.put_at(index, datagram);
        }
        if let Some(error) = fault {
            return Err(error);
        }
        Ok(RecvMeta {
            len,
            full_len,
            from: Some(from),
            flags: if len < wanted {
                MsgFlags::TRUNC
            } else {
                MsgFlags::empty()
            },
            control,
        })
    }
}

impl Socket for UdpSocket {
    fn family(&self) -> Family {
        self.family
    }

    fn kind(&self) -> Kind {
        Kind::Dgram
    }

    fn protocol(&self) -> u8 {
        proto::UDP
    }

    fn bind(&self, addr: SocketAddr) -> Result<()> {
        let (v6only, free) = {
            let inner = self.inner.lock();
            (
                inner.opts.v6only,
                inner.opts.ip.free_bind || inner.opts.ip.transparent,
            )
        };
        let (ip, port) = self.canonical(addr, v6only)?;
        let addr = (!ip.is_unspecified()).then_some(ip);
        if let Some(own) = addr {
            let broadcast = matches!(own, IpAddr::V4(a) if self.stack.is_broadcast_addr(a));
            let usable = self.stack.is_local(own) || own.is_multicast() || broadcast;
            if !usable && !free {
                return Err(Errno::EADDRNOTAVAIL);
            }
        }
        self.take_port(addr, port)
    }

    fn connect(&self, addr: Option<SocketAddr>) -> Result<()> {
        let Some(addr) = addr else {
            let mut inner = self.inner.lock();
            inner.remote = None;
            inner.chosen = None;
            inner.dst = None;
            return Ok(());
        };
        let (v6only, device, source, broadcast) = {
            let inner = self.inner.lock();
            (
                inner.opts.v6only,
                inner.opts.ip.device,
                inner.bound.and_then(|(_, b)| b.addr),
                inner.opts.ip.broadcast,
            )
        };
        let (ip, port) = self.canonical(addr, v6only)?;
        let ip = match ip {
            IpAddr::V4(a) if a.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(a) if a.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            IpAddr::V4(a) if self.stack.is_broadcast_addr(a) && !broadcast => {
                return Err(Errno::EACCES);
            }
            ip => ip,
        };
        let dst = self.stack.route(ip, source, device)?;
        self.ensure_port()?;
        let mut inner = self.inner.lock();
        inner.chosen = Some(dst.src);
        inner.remote = Some((ip, port));
        inner.dst = Some(dst);
        Ok(())
    }

    fn send(&self, source: &mut dyn Source, meta: &SendMeta) -> Result<usize> {
        self.send_message(source, meta)
    }

    fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<RecvMeta> {
        self.receive(sink, flags, None)
    }

    fn peek_from(&self, off: usize, sink: &mut dyn Sink, flags: MsgFlags) -> Result<RecvMeta> {
        self.receive(sink, flags | MsgFlags::PEEK, Some(off))
    }

    fn can_peek(&self, off: usize) -> bool {
        let inner = self.inner.lock();
        inner.error.is_some() || inner.shut_read || at_offset(inner.queue.iter(), off).is_some()
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let mut inner = self.inner.lock();
        let connected = inner.remote.is_some();
        // As in Linux, it takes effect even where the answer is an error.
        inner.shut_read |= how.read();
        inner.shut_write |= how.write();
        drop(inner);
        self.pollee
            .notify(Events::IN | Events::OUT | Events::HUP | Events::RDHUP);
        if connected {
            Ok(())
        } else {
            Err(Errno::ENOTCONN)
        }
    }

    fn close(&self) {
        let (bound, left) = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            inner.pending = None;
            while self.take_front(&mut inner).is_some() {}
            let left = inner.groups.take_all();
            (inner.bound.take(), left)
        };
        self.stack.leave_groups(self.id(), left);
        if let Some((port, binding)) = bound {
            self.stack.udp.remove(port, self);
            self.stack.udp.ports.release(port, &binding);
        }
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        let inner = self.inner.lock();
        Ok(match inner.bound {
            Some((port, binding)) => match binding.addr.or(inner.chosen) {
                Some(addr) => self.show(addr, port),
                None => SocketAddr::new(self.any(), port),
            },
            None => SocketAddr::new(self.any(), 0),
        })
    }

    fn peer_addr(&self) -> Result<SocketAddr> {
        let (addr, port) = self.inner.lock().remote.ok_or(Errno::ENOTCONN)?;
        Ok(self.show(addr, port))
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
        let inner = self.inner.lock();
        let shut = (inner.shut_read, inner.shut_write);
        let failed = inner.error.is_some() || !inner.errors.is_empty();
        datagram_events(!inner.queue.is_empty(), shut, failed)
    }

    fn pollee(&self) -> &Pollee {
        &self.pollee
    }

    fn input_queued(&self) -> usize {
        self.inner
            .lock()
            .queue
            .front()
            .map_or(0, |d| crate::pkt::payload_len(&d.payload))
    }

    fn output_queued(&self) -> usize {
        0
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
