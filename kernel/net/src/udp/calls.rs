//! The calls of a UDP socket.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use errno::{Errno, Result};
use iobuf::{Sink, Source};

use super::{HEADER, Inner, UdpOpts, UdpSocket};
use crate::checksum::Sum;
use crate::iface::ETH;
use crate::ip::{DEFAULT_TTL, IpOut, proto};
use crate::nic::{Header, TxOffload, TxPacket, TxSegment};
use crate::option::{MtuDiscover, Opt, OptName};
use crate::poll::{Events, Pollee};
use crate::ports::Binding;
use crate::route::Dst;
use crate::socket::{Control, Family, Kind, MsgFlags, RecvMeta, SendMeta, Shutdown, Socket};

/// The largest datagram's data.
const MOST: usize = 65_507;

impl UdpSocket {
    fn canonical(&self, addr: SocketAddr, v6only: bool) -> Result<(IpAddr, u16)> {
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
                reuse_addr: inner.opts.reuse_addr,
                reuse_port: inner.opts.reuse_port,
                device: inner.opts.device,
                auto: false,
            }
        };
        let table = &self.stack.udp;
        let port = if port == 0 {
            let range = self.stack.config().limits.port_range;
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
    fn ensure_port(&self) -> Result<u16> {
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

    /// The route to `remote`, from the cache of a connected socket if it still holds.
    fn route(
        &self,
        remote: IpAddr,
        source: Option<IpAddr>,
        device: u32,
        cached: bool,
    ) -> Result<Dst> {
        let generation = self.stack.routes.generation();
        if cached {
            let inner = self.inner.lock();
            if let Some(dst) = inner.dst.as_ref().filter(|d| d.generation == generation) {
                return Ok(dst.clone());
            }
        }
        let dst = self.stack.route(remote, source, device)?;
        if cached {
            self.inner.lock().dst = Some(dst.clone());
        }
        Ok(dst)
    }

    fn send_one(
        &self,
        opts: &UdpOpts,
        dst: &Dst,
        (remote, lport): ((IpAddr, u16), u16),
        data: Arc<[u8]>,
        range: core::ops::Range<usize>,
        now: u64,
    ) -> Result<()> {
        let stack = &self.stack;
        let counters = stack.counters();
        let v4 = remote.0.is_ipv4();
        let many = remote.0.is_multicast();
        let ttl = match (v4, many) {
            (true, true) => opts.multicast_ttl,
            (true, false) => opts.ttl,
            (false, true) => opts.multicast_hops,
            (false, false) => opts.hops.unwrap_or(DEFAULT_TTL),
        };
        let discover = if v4 {
            opts.mtu_discover
        } else {
            opts.mtu_discover6
        };
        let out = IpOut {
            src: dst.src,
            dst: remote.0,
            proto: proto::UDP,
            ttl,
            tos: if v4 { opts.tos } else { opts.tclass },
            df: matches!(
                discover,
                MtuDiscover::Do | MtuDiscover::Probe | MtuDiscover::Want
            ),
            ident: stack.next_ident(),
        };
        let len = range.len() + HEADER;
        let whole = out.header_len() + len;
        let mut udp = [0; HEADER];
        udp[0..2].copy_from_slice(&lport.to_be_bytes());
        udp[2..4].copy_from_slice(&remote.1.to_be_bytes());
        udp[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        let pseudo = Sum::pseudo(out.src, out.dst, proto::UDP, len);
        let bytes = data.get(range.clone()).ok_or(Errno::EINVAL)?;
        counters.udp_out_datagrams.bump();
        let full_sum = |udp: &[u8; HEADER]| match pseudo.bytes(udp).bytes(bytes).finish() {
            0 => 0xffff,
            sum => sum,
        };
        if whole > dst.mtu as usize && !dst.iface.is_loopback() {
            if matches!(discover, MtuDiscover::Do | MtuDiscover::Probe) {
                return Err(Errno::EMSGSIZE);
            }
            let sum = full_sum(&udp);
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
            let mut datagram = Vec::with_capacity(len);
            datagram.extend_from_slice(&udp);
            datagram.extend_from_slice(bytes);
            let out = IpOut { df: false, ..out };
            crate::frag::send(stack, dst, &out, &datagram, now);
            return Ok(());
        }
        let mut offload = None;
        if dst.iface.is_loopback() {
            // Nobody looks at it, but what a raw socket may see is right.
            udp[6..8].fill(0);
        } else if dst.iface.caps.tx_csum {
            udp[6..8].copy_from_slice(&pseudo.folded().to_be_bytes());
            offload = Some(TxOffload {
                csum_start: (ETH + out.header_len()) as u16,
                csum_offset: 6,
                gso: None,
            });
        } else {
            let sum = full_sum(&udp);
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        let mut header = Header::new();
        out.emit(&mut header, len);
        header.extend_from_slice(&udp);
        let mut packet = TxPacket {
            header,
            offload,
            ..TxPacket::default()
        };
        if bytes.len() <= packet.header.room() {
            packet.header.extend_from_slice(bytes);
        } else {
            packet.segments.push(TxSegment::Bytes(data, range));
        }
        // A multicast that members here want as well is looped back.
        if many && opts.multicast_loop && stack.udp.is_member(remote.0, dst.iface.index) {
            stack.loop_multicast(&dst.iface, &packet);
        }
        stack.output(dst, packet, now);
        Ok(())
    }

    fn controls(&self, inner: &Inner, d: &super::Datagram) -> Vec<Control> {
        let opts = &inner.opts;
        let mut all = Vec::new();
        if opts.timestamp {
            all.push(Control::Timestamp(d.at));
        }
        match d.to.0 {
            IpAddr::V4(dst) => {
                if opts.pktinfo {
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
                if opts.recv_ttl {
                    all.push(Control::Ttl(d.ttl));
                }
                if opts.recv_tos {
                    all.push(Control::Tos(d.tos));
                }
                if opts.orig_dst {
                    all.push(Control::OrigDst(SocketAddr::new(d.to.0, d.to.1)));
                }
            }
            IpAddr::V6(_) => {
                if opts.recv_hops {
                    all.push(Control::HopLimit(d.ttl));
                }
                if opts.recv_tclass {
                    all.push(Control::TClass(d.tos));
                }
            }
        }
        if opts.pktinfo6 && self.family == Family::Inet6 {
            all.push(Control::PktInfo6 {
                index: d.index,
                addr: crate::option::mapped(d.to.0),
            });
        }
        all
    }

    fn recv_error(&self, sink: &mut dyn Sink) -> Result<RecvMeta> {
        let (entry, more) = {
            let mut inner = self.inner.lock();
            let entry = inner.errors.pop_front().ok_or(Errno::EAGAIN)?;
            let next = inner.errors.front().map(|e| e.error.errno);
            inner.error = next;
            (entry, next.is_some())
        };
        let len = sink.put(&entry.data)?;
        if more {
            self.pollee.notify(Events::ERR);
        }
        Ok(RecvMeta {
            len,
            full_len: entry.data.len(),
            from: Some(self.show(entry.to.0, entry.to.1)),
            flags: MsgFlags::ERRQUEUE,
            control: alloc::vec![Control::RecvErr(entry.error)],
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
                inner.opts.free_bind || inner.opts.transparent,
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
                inner.opts.device,
                inner.bound.and_then(|(_, b)| b.addr),
                inner.opts.broadcast,
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
        let len = source.remaining();
        if meta.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let (mut opts, remote, bound_addr) = {
            let mut inner = self.inner.lock();
            if inner.shut_write {
                return Err(Errno::EPIPE);
            }
            if let Some(error) = inner.error.take() {
                return Err(error);
            }
            let own = inner.bound.and_then(|(_, b)| b.addr).or(inner.chosen);
            (inner.opts.clone(), inner.remote, own)
        };
        let (remote, connected) = match (meta.to, remote) {
            (Some(to), _) => {
                let (ip, port) = self.canonical(to, opts.v6only)?;
                if port == 0 {
                    return Err(Errno::EINVAL);
                }
                let ip = match ip {
                    IpAddr::V4(a) if a.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(a) if a.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                ((ip, port), false)
            }
            (None, Some(remote)) => (remote, true),
            (None, None) => return Err(Errno::EDESTADDRREQ),
        };
        let mut segment = usize::from(opts.segment);
        let mut from = bound_addr.filter(|a| !a.is_multicast());
        let mut device = opts.device;
        for control in meta.control {
            match *control {
                Control::UdpSegment(size) => segment = usize::from(size),
                Control::Ttl(ttl) => opts.ttl = ttl,
                Control::Tos(tos) => opts.tos = tos,
                Control::HopLimit(hops) => opts.hops = Some(hops),
                Control::TClass(class) => opts.tclass = class,
                Control::PktInfo { index, local, .. } => {
                    if index != 0 {
                        device = index;
                    }
                    if !local.is_unspecified() {
                        if !self.stack.is_local(local.into()) && !opts.free_bind {
                            return Err(Errno::EINVAL);
                        }
                        from = Some(local.into());
                    }
                }
                Control::PktInfo6 { index, addr } => {
                    if index != 0 {
                        device = index;
                    }
                    if !addr.is_unspecified() {
                        from = Some(IpAddr::V6(addr).to_canonical());
                    }
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        if len > MOST {
            return Err(Errno::EMSGSIZE);
        }
        if let IpAddr::V4(a) = remote.0 {
            if self.stack.is_broadcast_addr(a) && !opts.broadcast {
                return Err(Errno::EACCES);
            }
            if a.is_multicast() {
                if device == 0 {
                    device = opts.multicast_if.1;
                }
                if from.is_none() && !opts.multicast_if.0.is_unspecified() {
                    from = Some(opts.multicast_if.0.into());
                }
            }
        }
        let lport = self.ensure_port()?;
        let dst = self.route(remote.0, from, device, connected && meta.control.is_empty())?;
        let mut data: Arc<[u8]> = core::iter::repeat_n(0, len).collect();
        if len > 0 {
            let memory = Arc::get_mut(&mut data).ok_or(Errno::ENOMEM)?;
            let n = source.take(memory)?;
            if n < len {
                return Err(Errno::EFAULT);
            }
        }
        let now = self.stack.now();
        if segment > 0 && len > segment {
            let per_packet = segment + HEADER + if remote.0.is_ipv4() { 20 } else { 40 };
            if per_packet > dst.mtu as usize || len.div_ceil(segment) > 128 {
                return Err(Errno::EINVAL);
            }
            let mut at = 0;
            while at < len {
                let end = (at + segment).min(len);
                self.send_one(&opts, &dst, (remote, lport), data.clone(), at..end, now)?;
                at = end;
            }
        } else {
            self.send_one(&opts, &dst, (remote, lport), data, 0..len, now)?;
        }
        self.stack.drain_loopback();
        Ok(len)
    }

    fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<RecvMeta> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return self.recv_error(sink);
        }
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let _receiver = self.recv_lock.lock();
        let (datagram, control) = {
            let mut inner = self.inner.lock();
            if let Some(error) = inner.error.take() {
                return Err(error);
            }
            match self.take_front(&mut inner) {
                Some(datagram) => {
                    let control = self.controls(&inner, &datagram);
                    (datagram, control)
                }
                None if inner.shut_read => return Ok(RecvMeta::default()),
                None => return Err(Errno::EAGAIN),
            }
        };
        let full_len = crate::pkt::payload_len(&datagram.payload);
        let mut len = 0;
        let mut fault = None;
        for part in &datagram.payload {
            match part.copy_to(0, part.len(), sink) {
                Ok(n) => {
                    len += n;
                    if n < part.len() {
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
            self.put_front(datagram);
        }
        if let Some(error) = fault {
            return Err(error);
        }
        Ok(RecvMeta {
            len,
            full_len,
            from: Some(from),
            flags: if len < full_len {
                MsgFlags::TRUNC
            } else {
                MsgFlags::empty()
            },
            control,
        })
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
        let bound = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            while self.take_front(&mut inner).is_some() {}
            inner.groups.clear();
            inner.bound.take()
        };
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
        let mut events = Events::OUT | Events::WRNORM;
        if !inner.queue.is_empty() || inner.shut_read {
            events |= Events::IN | Events::RDNORM;
        }
        if inner.shut_read {
            events |= Events::RDHUP;
        }
        if inner.shut_read && inner.shut_write {
            events |= Events::HUP;
        }
        if inner.error.is_some() || !inner.errors.is_empty() {
            events |= Events::ERR;
        }
        events
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
