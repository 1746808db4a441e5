//! The calls of a raw or ping socket.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use errno::{Errno, Result};
use iobuf::{Sink, Source};

use super::{ECHO, ECHO6, Inner, RawOpts, RawPacket, RawSocket};
use crate::checksum::Sum;
use crate::iface::{ETH, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::ip::{DEFAULT_TTL, IpOut, proto};
use crate::nic::{Header, TxPacket, TxSegment};
use crate::option::{MtuDiscover, Opt, OptName};
use crate::poll::{Events, Pollee};
use crate::route::Dst;
use crate::socket::{
    Control, Family, Kind, MsgFlags, RecvMeta, SendMeta, Shutdown, Socket, datagram_events,
};

/// The longest IP packet.
const MOST: usize = 65_535;

impl RawSocket {
    /// What tells it from other sockets in the multicast registry.
    pub(super) fn id(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// The address of a call: of our family, an unspecified one made the loopback's if asked, and its scope.
    fn target(&self, addr: SocketAddr) -> Result<(IpAddr, u32)> {
        let scope = match addr {
            SocketAddr::V6(a) => a.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        match (self.family, addr.ip()) {
            (Family::Inet, IpAddr::V4(a)) if a.is_unspecified() => {
                Ok((Ipv4Addr::LOCALHOST.into(), 0))
            }
            (Family::Inet6, IpAddr::V6(a)) if a.is_unspecified() => {
                Ok((Ipv6Addr::LOCALHOST.into(), 0))
            }
            (Family::Inet6, IpAddr::V6(a)) if a.to_ipv4_mapped().is_some() => {
                Err(Errno::ENETUNREACH)
            }
            (Family::Inet, IpAddr::V4(_)) | (Family::Inet6, IpAddr::V6(_)) => {
                Ok((addr.ip(), scope))
            }
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    fn show(&self, addr: IpAddr, port: u16, index: u32) -> SocketAddr {
        match addr {
            IpAddr::V6(a) if a.is_unicast_link_local() => {
                SocketAddrV6::new(a, port, 0, index).into()
            }
            addr => SocketAddr::new(addr, port),
        }
    }

    /// A ping socket gets its identifier with the first packet, unless `bind` gave one.
    fn ensure_ident(&self) -> Result<u16> {
        let start = self.stack.random() as u16;
        let known = self.inner.lock().ident;
        if known != 0 || !self.ping {
            return Ok(known);
        }
        let free = self
            .stack
            .raws
            .free_ident(self.family, start)
            .ok_or(Errno::EAGAIN)?;
        let mut inner = self.inner.lock();
        if inner.ident == 0 {
            inner.ident = free;
        }
        Ok(inner.ident)
    }

    /// Takes the message and makes of it what goes after the IP header.
    fn prepare(&self, opts: &RawOpts, bytes: &mut [u8], dst: &Dst, remote: IpAddr) -> Result<()> {
        let counters = self.stack.counters();
        if self.ping {
            let ident = self.ensure_ident()?;
            let echo = if self.is_v6() { ECHO6 } else { ECHO };
            if bytes.len() < 8 || bytes[0] != echo || bytes[1] != 0 {
                return Err(Errno::EINVAL);
            }
            bytes[2..4].fill(0);
            bytes[4..6].copy_from_slice(&ident.to_be_bytes());
        }
        let headers = if remote.is_ipv4() { 20 } else { 40 };
        if opts.ip.whole(remote) && headers + bytes.len() > dst.mtu as usize {
            if self.ping && self.is_v6() {
                counters.icmp6_out_errors.bump();
            }
            return Err(Errno::EMSGSIZE);
        }
        if self.protocol == proto::ICMP {
            counters.icmp_out_msgs.bump();
            self.stack
                .icmp_counts
                .bump(false, true, bytes.first().copied().unwrap_or(255));
            if bytes.first() == Some(&ECHO) {
                counters.icmp_out_echos.bump();
            }
        } else if self.protocol == proto::ICMP6 {
            counters.icmp6_out_msgs.bump();
            self.stack
                .icmp_counts
                .bump(true, true, bytes.first().copied().unwrap_or(255));
        }
        let (sum, at) = if !self.is_v6() {
            if !self.ping {
                return Ok(());
            }
            (Sum::default(), 2)
        } else {
            let Ok(at) = usize::try_from(opts.checksum) else {
                return Ok(());
            };
            (Sum::pseudo(dst.src, remote, self.protocol, bytes.len()), at)
        };
        let field = bytes.get_mut(at..at + 2).ok_or(Errno::EINVAL)?;
        field.fill(0);
        let sum = match sum.bytes(bytes).finish() {
            0 if self.is_v6() => 0xffff,
            sum => sum,
        };
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        Ok(())
    }

    fn send_payload(&self, opts: &RawOpts, dst: &Dst, remote: IpAddr, bytes: &[u8]) {
        let stack = &self.stack;
        let (v4, many) = (remote.is_ipv4(), remote.is_multicast());
        let out = IpOut {
            src: dst.src,
            dst: remote,
            proto: self.protocol,
            ttl: match (v4, many) {
                (true, true) => opts.ip.multicast_ttl,
                (true, false) => opts.ip.ttl,
                (false, true) => opts.ip.multicast_hops,
                (false, false) => opts.ip.hops.unwrap_or(DEFAULT_TTL),
            },
            tos: if v4 { opts.ip.tos } else { opts.ip.tclass },
            df: opts.ip.whole(remote) || opts.ip.discover(remote) == MtuDiscover::Want,
            ident: stack.next_ident(),
        };
        let now = stack.now();
        if out.header_len() + bytes.len() > dst.mtu as usize {
            crate::frag::send(stack, dst, &IpOut { df: false, ..out }, bytes, now);
            return;
        }
        let mut header = Header::new();
        out.emit(&mut header, bytes.len());
        self.transmit(
            opts,
            dst,
            remote,
            crate::icmp::with_payload(header, bytes),
            now,
        );
    }

    /// A packet whose IP header the program made (`IP_HDRINCL`): the kernel fills in what `raw(7)` lists.
    fn send_whole(
        &self,
        opts: &RawOpts,
        dst: &Dst,
        remote: IpAddr,
        bytes: &mut [u8],
    ) -> Result<()> {
        if bytes.len() > dst.mtu as usize {
            return Err(Errno::EMSGSIZE);
        }
        let len = bytes.len();
        let (ethertype, header_len) = match dst.src {
            IpAddr::V4(src) => {
                if len < 20 {
                    return Err(Errno::EINVAL);
                }
                let header_len = usize::from(bytes[0] & 0xf) * 4;
                if header_len < 20 || header_len > len {
                    return Err(Errno::EINVAL);
                }
                let ip = &mut bytes[..header_len];
                ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                if ip[12..16] == [0; 4] {
                    ip[12..16].copy_from_slice(&src.octets());
                }
                if ip[4..6] == [0; 2] {
                    ip[4..6].copy_from_slice(&self.stack.next_ident().to_be_bytes());
                }
                ip[10..12].fill(0);
                let sum = Sum::default().bytes(ip).finish();
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                (ETHERTYPE_IPV4, header_len)
            }
            IpAddr::V6(_) if len < 40 => return Err(Errno::EINVAL),
            IpAddr::V6(_) => (ETHERTYPE_IPV6, 40),
        };
        let mut header = Header::new();
        header.extend_from_slice(&[0; ETH - 2]);
        header.extend_from_slice(&ethertype.to_be_bytes());
        header.extend_from_slice(&bytes[..header_len]);
        let mut packet = TxPacket::from_header(header);
        let rest = &bytes[header_len..];
        if !rest.is_empty() {
            packet
                .segments
                .push(TxSegment::Bytes(Arc::from(rest), 0..rest.len()));
        }
        self.transmit(opts, dst, remote, packet, self.stack.now());
        Ok(())
    }

    fn transmit(&self, opts: &RawOpts, dst: &Dst, remote: IpAddr, packet: TxPacket, now: u64) {
        if remote.is_multicast() && opts.ip.multicast_loop {
            self.stack.loop_multicast(&dst.iface, remote, &packet);
        }
        self.stack.output_datagram(dst, packet, now);
    }

    fn controls(&self, inner: &Inner, p: &RawPacket) -> Vec<Control> {
        let opts = &inner.opts;
        let mut all = Vec::new();
        if opts.ip.timestamp {
            all.push(Control::Timestamp(p.at));
        }
        match p.to {
            IpAddr::V4(dst) => {
                if opts.ip.pktinfo {
                    let own = (self.stack.interface(p.index)).and_then(|i| i.first_addr(true));
                    let local = match own {
                        _ if self.stack.is_local(p.to) => dst,
                        Some(IpAddr::V4(own)) => own,
                        _ => Ipv4Addr::UNSPECIFIED,
                    };
                    all.push(Control::PktInfo {
                        index: p.index,
                        local,
                        dst,
                    });
                }
                if opts.ip.recv_ttl {
                    all.push(Control::Ttl(p.ttl));
                }
                if opts.ip.recv_tos {
                    all.push(Control::Tos(p.tos));
                }
            }
            IpAddr::V6(addr) => {
                if opts.ip.pktinfo6 {
                    all.push(Control::PktInfo6 {
                        index: p.index,
                        addr,
                    });
                }
                if opts.ip.recv_hops {
                    all.push(Control::HopLimit(p.ttl));
                }
                if opts.ip.recv_tclass {
                    all.push(Control::TClass(p.tos));
                }
            }
        }
        all
    }

    fn recv_error(&self, sink: &mut dyn Sink) -> Result<RecvMeta> {
        let (entry, more) = {
            let inner = &mut *self.inner.lock();
            let entry = inner.errors.take(&mut inner.error).ok_or(Errno::EAGAIN)?;
            (entry, !inner.errors.is_empty())
        };
        let from = self.show(entry.to.0, 0, 0);
        let told = entry.receive(sink, from)?;
        if more {
            self.pollee.notify(Events::ERR);
        }
        Ok(told)
    }

    /// The options for one send, with what its control messages say; the source address and interface they ask for.
    fn for_send(
        &self,
        mut opts: RawOpts,
        own: Option<IpAddr>,
        meta: &SendMeta,
    ) -> Result<(RawOpts, Option<IpAddr>, u32)> {
        let mut from = own.filter(|a| !a.is_multicast());
        let mut device = opts.ip.device;
        for control in meta.control {
            match *control {
                Control::Ttl(ttl) => opts.ip.ttl = ttl,
                Control::Tos(tos) => opts.ip.tos = tos,
                Control::HopLimit(hops) => {
                    opts.ip.hops = Some(hops);
                    opts.ip.multicast_hops = hops;
                }
                Control::TClass(class) => opts.ip.tclass = class,
                Control::PktInfo { index, local, .. } => {
                    device = if index != 0 { index } else { device };
                    if !local.is_unspecified() {
                        from = Some(local.into());
                    }
                }
                Control::PktInfo6 { index, addr } => {
                    device = if index != 0 { index } else { device };
                    if !addr.is_unspecified() {
                        from = Some(addr.into());
                    }
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        if from.is_some_and(|a| !self.stack.is_local(a))
            && !opts.ip.free_bind
            && !opts.ip.transparent
        {
            return Err(Errno::EINVAL);
        }
        Ok((opts, from, device))
    }
}

impl Socket for RawSocket {
    fn family(&self) -> Family {
        self.family
    }

    fn kind(&self) -> Kind {
        if self.ping { Kind::Dgram } else { Kind::Raw }
    }

    fn protocol(&self) -> u8 {
        self.protocol
    }

    fn bind(&self, addr: SocketAddr) -> Result<()> {
        let ip = match (self.family, addr.ip()) {
            (Family::Inet, ip @ IpAddr::V4(_)) | (Family::Inet6, ip @ IpAddr::V6(_)) => ip,
            _ => return Err(Errno::EAFNOSUPPORT),
        };
        let bound = (!ip.is_unspecified()).then_some(ip);
        let many =
            ip.is_multicast() || matches!(ip, IpAddr::V4(a) if self.stack.is_broadcast_addr(a));
        let reuse = {
            let inner = self.inner.lock();
            let free = inner.opts.ip.free_bind || inner.opts.ip.transparent;
            if bound.is_some() && !self.stack.is_local(ip) && !free && (!many || self.ping) {
                return Err(Errno::EADDRNOTAVAIL);
            }
            if self.ping && inner.ident != 0 {
                return Err(Errno::EINVAL);
            }
            inner.opts.ip.reuse_addr
        };
        let mut ident = addr.port();
        if self.ping {
            let free = self.stack.raws.free_ident(self.family, ident.max(1));
            if ident == 0 {
                ident = self.ensure_ident()?;
            } else if free != Some(ident) && !reuse {
                return Err(Errno::EADDRINUSE);
            }
        }
        let mut inner = self.inner.lock();
        inner.bound = bound;
        inner.ident = if self.ping { ident } else { 0 };
        inner.dst = None;
        Ok(())
    }

    fn connect(&self, addr: Option<SocketAddr>) -> Result<()> {
        let Some(addr) = addr else {
            let mut inner = self.inner.lock();
            inner.remote = None;
            inner.chosen = None;
            inner.dst = None;
            return Ok(());
        };
        let (ip, scope) = self.target(addr)?;
        let (device, source, broadcast) = {
            let inner = self.inner.lock();
            (inner.opts.ip.device, inner.bound, inner.opts.ip.broadcast)
        };
        if matches!(ip, IpAddr::V4(a) if self.stack.is_broadcast_addr(a)) && !broadcast {
            return Err(Errno::EACCES);
        }
        let index = if device != 0 { device } else { scope };
        let dst = self.stack.route(ip, source, index)?;
        self.ensure_ident()?;
        let mut inner = self.inner.lock();
        inner.chosen = Some(dst.src);
        inner.remote = Some((ip, addr.port()));
        inner.dst = Some(dst);
        Ok(())
    }

    fn send(&self, source: &mut dyn Source, meta: &SendMeta) -> Result<usize> {
        let len = source.remaining();
        if len > MOST {
            return Err(Errno::EMSGSIZE);
        }
        if meta.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let (opts, remote, own) = {
            let mut inner = self.inner.lock();
            if inner.shut_write {
                return Err(Errno::EPIPE);
            }
            if let Some(error) = inner.error.take() {
                return Err(error);
            }
            (
                inner.opts.clone(),
                inner.remote,
                inner.bound.or(inner.chosen),
            )
        };
        let (remote, scope) = match (meta.to, remote) {
            (Some(to), _) => {
                // Over IPv6 the port is the protocol, if it is there.
                let port = u16::from(self.protocol);
                if self.is_v6() && !self.ping && to.port() != 0 && to.port() != port {
                    return Err(Errno::EINVAL);
                }
                self.target(to)?
            }
            (None, Some((remote, _))) => (remote, 0),
            (None, None) => return Err(Errno::EDESTADDRREQ),
        };
        let (opts, mut from, mut device) = self.for_send(opts, own, meta)?;
        if matches!(remote, IpAddr::V4(a) if self.stack.is_broadcast_addr(a)) && !opts.ip.broadcast
        {
            return Err(Errno::EACCES);
        }
        if remote.is_multicast() {
            device = if device == 0 {
                opts.ip.multicast_if.1
            } else {
                device
            };
            if from.is_none() && !opts.ip.multicast_if.0.is_unspecified() {
                from = Some(opts.ip.multicast_if.0.into());
            }
        }
        device = if device == 0 { scope } else { device };
        let dst = self.stack.route(remote, from, device)?;
        let mut bytes = alloc::vec![0; len];
        if source.take(&mut bytes)? < len {
            return Err(Errno::EFAULT);
        }
        if opts.hdrincl {
            self.send_whole(&opts, &dst, remote, &mut bytes)?;
        } else {
            self.prepare(&opts, &mut bytes, &dst, remote)?;
            self.send_payload(&opts, &dst, remote, &bytes);
        }
        self.stack.drain_loopback();
        Ok(len)
    }

    fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<RecvMeta> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if flags.contains(MsgFlags::ERRQUEUE) {
            return self.recv_error(sink);
        }
        let _receiver = self.recv_lock.lock();
        let (packet, control) = {
            let mut inner = self.inner.lock();
            if let Some(error) = inner.error.take() {
                return Err(error);
            }
            match self.take_front(&mut inner) {
                Some(packet) => {
                    let control = self.controls(&inner, &packet);
                    (packet, control)
                }
                None if inner.shut_read => return Ok(RecvMeta::default()),
                None => return Err(Errno::EAGAIN),
            }
        };
        let full_len = packet.bytes.len();
        let put = sink.put(&packet.bytes);
        let from = self.show(packet.from, 0, packet.index);
        if flags.contains(MsgFlags::PEEK) {
            let mut inner = self.inner.lock();
            if !inner.closed {
                inner.queued += packet.cost();
                self.stack.charge_anyway(packet.cost());
                inner.queue.push_front(packet);
            }
        }
        let len = put?;
        let cut = if len < full_len {
            MsgFlags::TRUNC
        } else {
            MsgFlags::empty()
        };
        Ok(RecvMeta {
            len,
            full_len,
            from: Some(from),
            flags: cut,
            control,
        })
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let mut inner = self.inner.lock();
        let connected = inner.remote.is_some();
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
        let left = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            while self.take_front(&mut inner).is_some() {}
            inner.groups.take_all()
        };
        self.stack.leave_groups(self.id(), left);
        self.stack.raws.remove(self);
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        let inner = self.inner.lock();
        let port = if self.ping {
            inner.ident
        } else {
            u16::from(self.protocol)
        };
        let index = inner.dst.as_ref().map_or(0, |dst| dst.iface.index);
        let addr = inner.bound.or(inner.chosen).unwrap_or(self.any());
        // Over IPv6 a raw socket shows no protocol.
        Ok(self.show(
            addr,
            if self.is_v6() && !self.ping { 0 } else { port },
            index,
        ))
    }

    fn peer_addr(&self) -> Result<SocketAddr> {
        let inner = self.inner.lock();
        // A peer whose port was given as 0 is none to `getpeername(2)`, as on Linux.
        let (addr, port) = inner
            .remote
            .filter(|(_, port)| *port != 0)
            .ok_or(Errno::ENOTCONN)?;
        let index = inner.dst.as_ref().map_or(0, |dst| dst.iface.index);
        Ok(self.show(addr, port, index))
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
        self.inner.lock().queue.front().map_or(0, |p| p.bytes.len())
    }

    fn output_queued(&self) -> usize {
        0
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
