//! How a UDP socket sends: where to and from, in one datagram or cut into several (`UDP_SEGMENT`), now or when all
//! of it is there (`UDP_CORK`, `MSG_MORE`).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use errno::{Errno, Result};
use iobuf::Source;

use super::{HEADER, UdpOpts, UdpSocket};
use crate::checksum::Sum;
use crate::errqueue::ErrorEntry;
use crate::iface::ETH;
use crate::ip::{DEFAULT_TTL, IpOut, proto};
use crate::nic::{Header, TxOffload, TxPacket, TxSegment};
use crate::option::MtuDiscover;
use crate::poll::Events;
use crate::route::Dst;
use crate::socket::{Control, ExtendedError, MsgFlags, SendMeta};

/// The largest datagram's data.
const MOST: usize = 65_507;

/// How and where a datagram is sent.
pub(crate) struct Way {
    opts: UdpOpts,
    dst: Dst,
    remote: (IpAddr, u16),
    port: u16,
    /// Bytes of each datagram; 0 for all in one.
    segment: usize,
}

/// A datagram that is not complete yet.
pub(crate) struct Pending {
    way: Way,
    data: Vec<u8>,
}

impl UdpSocket {
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
        way: &Way,
        data: Arc<[u8]>,
        range: core::ops::Range<usize>,
        now: u64,
    ) -> Result<()> {
        // Of a send that is cut into several, the first is told of.
        let stamps = Some(way.opts.stamps).filter(|stamps| stamps.any() && range.start == 0);
        let stack = &self.stack;
        let Way {
            opts, dst, remote, ..
        } = way;
        let counters = stack.counters();
        let v4 = remote.0.is_ipv4();
        let many = remote.0.is_multicast();
        let ttl = match (v4, many) {
            (true, true) => opts.ip.multicast_ttl,
            (true, false) => opts.ip.ttl,
            (false, true) => opts.ip.multicast_hops,
            (false, false) => opts.ip.hops.unwrap_or(DEFAULT_TTL),
        };
        let out = IpOut {
            src: dst.src,
            dst: remote.0,
            proto: proto::UDP,
            ttl,
            tos: if v4 { opts.ip.tos } else { opts.ip.tclass },
            df: opts.ip.whole(remote.0) || opts.ip.discover(remote.0) == MtuDiscover::Want,
            ident: stack.next_ident(),
        };
        let len = range.len() + HEADER;
        let whole = out.header_len() + len;
        let mut udp = [0; HEADER];
        udp[0..2].copy_from_slice(&way.port.to_be_bytes());
        udp[2..4].copy_from_slice(&remote.1.to_be_bytes());
        udp[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        let pseudo = Sum::pseudo(out.src, out.dst, proto::UDP, len);
        let bytes = data.get(range.clone()).ok_or(Errno::EINVAL)?;
        let full_sum = |udp: &[u8; HEADER]| match pseudo.bytes(udp).bytes(bytes).finish() {
            0 => 0xffff,
            sum => sum,
        };
        if whole > dst.mtu as usize && !dst.iface.is_loopback() {
            if opts.ip.whole(remote.0) || !v4 && opts.dont_frag6 {
                return Err(self.too_large(way));
            }
            let sum = full_sum(&udp);
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
            let mut datagram = Vec::with_capacity(len);
            datagram.extend_from_slice(&udp);
            datagram.extend_from_slice(bytes);
            let out = IpOut { df: false, ..out };
            if let Some(stamps) = stamps {
                let mut packet = TxPacket::default();
                out.emit(&mut packet.header, len);
                let all = 0..datagram.len();
                let whole = TxSegment::Bytes(Arc::from(&datagram[..]), all);
                packet.segments.push(whole);
                self.stamp(stamps, *remote, &packet, now);
            }
            counters.udp(remote.0).out_datagrams.bump();
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
        if many && opts.ip.multicast_loop {
            stack.loop_multicast(&dst.iface, remote.0, &packet);
        }
        if let Some(stamps) = stamps {
            self.stamp(stamps, *remote, &packet, now);
        }
        if stack.output_datagram(dst, packet, now) {
            counters.udp(remote.0).out_datagrams.bump();
        } else {
            // The card's queue is full, which Linux counts as one of the socket's.
            counters.udp(remote.0).sndbuf_errors.bump();
        }
        Ok(())
    }

    /// `sendmsg(2)`.
    pub(super) fn send_message(&self, source: &mut dyn Source, meta: &SendMeta) -> Result<usize> {
        let len = source.remaining();
        if meta.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let (mut opts, remote, bound_addr, pending) = {
            let mut inner = self.inner.lock();
            if inner.shut_write {
                return Err(Errno::EPIPE);
            }
            if let Some(error) = inner.error.take() {
                return Err(error);
            }
            let pending = inner.pending.is_some();
            let own = inner.bound.and_then(|(_, b)| b.addr).or(inner.chosen);
            (inner.opts.clone(), inner.remote, own, pending)
        };
        if pending && let Some(len) = self.append(source, meta.flags.contains(MsgFlags::MORE))? {
            return Ok(len);
        }
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
        let mut device = opts.ip.device;
        for control in meta.control {
            match *control {
                Control::UdpSegment(size) => segment = usize::from(size),
                Control::Ttl(ttl) => opts.ip.ttl = ttl,
                Control::Tos(tos) => opts.ip.tos = tos,
                Control::HopLimit(hops) => opts.ip.hops = Some(hops),
                Control::TClass(class) => opts.ip.tclass = class,
                Control::PktInfo { index, local, .. } => {
                    if index != 0 {
                        device = index;
                    }
                    if !local.is_unspecified() {
                        if !self.stack.is_local(local.into()) && !opts.ip.free_bind {
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
            if self.stack.is_broadcast_addr(a) && !opts.ip.broadcast {
                return Err(Errno::EACCES);
            }
            if a.is_multicast() {
                if device == 0 {
                    device = opts.ip.multicast_if.1;
                }
                if from.is_none() && !opts.ip.multicast_if.0.is_unspecified() {
                    from = Some(opts.ip.multicast_if.0.into());
                }
            }
        }
        let port = self.ensure_port()?;
        let dst = self.route(remote.0, from, device, connected && meta.control.is_empty())?;
        let more = opts.cork || meta.flags.contains(MsgFlags::MORE);
        let way = Way {
            opts,
            dst,
            remote,
            port,
            segment,
        };
        if more {
            let data = gather(source, len)?;
            self.inner.lock().pending = Some(Pending { way, data });
            return Ok(len);
        }
        let mut data: Arc<[u8]> = core::iter::repeat_n(0, len).collect();
        if len > 0 {
            let memory = Arc::get_mut(&mut data).ok_or(Errno::ENOMEM)?;
            let n = source.take(memory)?;
            if n < len {
                return Err(Errno::EFAULT);
            }
        }
        self.send_way(&way, data)?;
        self.stack.drain_loopback();
        Ok(len)
    }

    /// Adds to a datagram that is not complete yet; its destination stays the first one. `None` if there is none.
    fn append(&self, source: &mut dyn Source, more: bool) -> Result<Option<usize>> {
        let len = source.remaining();
        {
            let mut inner = self.inner.lock();
            let Some(pending) = &inner.pending else {
                return Ok(None);
            };
            if pending.data.len() + len > MOST {
                inner.pending = None;
                return Err(Errno::EMSGSIZE);
            }
        }
        let bytes = gather(source, len)?;
        let complete = {
            let mut inner = self.inner.lock();
            match &mut inner.pending {
                Some(pending) if pending.data.len() + len <= MOST => pending.data.extend(bytes),
                _ => return Err(Errno::EMSGSIZE),
            }
            !more && !inner.opts.cork
        };
        if complete {
            self.send_pending()?;
        }
        Ok(Some(len))
    }

    /// Sends what was held back, as it is: its errors are nobody's to hear.
    pub(super) fn flush(&self) {
        let _ = self.send_pending();
    }

    fn send_pending(&self) -> Result<()> {
        let pending = self.inner.lock().pending.take();
        if let Some(Pending { way, data }) = pending {
            self.send_way(&way, data.into())?;
            self.stack.drain_loopback();
        }
        Ok(())
    }

    /// Sends data in one datagram or in several of equal size.
    fn send_way(&self, way: &Way, data: Arc<[u8]>) -> Result<()> {
        let now = self.stack.now();
        let (len, segment) = (data.len(), way.segment);
        if segment == 0 || len <= segment {
            return self.send_one(way, data, 0..len, now);
        }
        let headers = HEADER + if way.remote.0.is_ipv4() { 20 } else { 40 };
        if segment + headers > way.dst.mtu as usize || len.div_ceil(segment) > 128 {
            return Err(Errno::EINVAL);
        }
        let mut at = 0;
        while at < len {
            let end = (at + segment).min(len);
            self.send_one(way, data.clone(), at..end, now)?;
            at = end;
        }
        Ok(())
    }

    /// A datagram is larger than its way takes whole: told through the error queue to who asked for it.
    fn too_large(&self, way: &Way) -> Errno {
        let v4 = way.remote.0.is_ipv4();
        let wanted = if v4 {
            way.opts.ip.recv_err
        } else {
            way.opts.ip.recv_err6
        };
        if wanted {
            let mut inner = self.inner.lock();
            inner.errors.push(|| ErrorEntry {
                error: ExtendedError {
                    errno: Errno::EMSGSIZE,
                    // SO_EE_ORIGIN_LOCAL
                    origin: 1,
                    icmp_type: 0,
                    icmp_code: 0,
                    info: way.dst.mtu,
                    data: 0,
                    offender: None,
                },
                to: way.remote,
                data: Vec::new(),
                at: None,
            });
            drop(inner);
            self.pollee.notify(Events::ERR);
        }
        Errno::EMSGSIZE
    }
}

fn gather(source: &mut dyn Source, len: usize) -> Result<Vec<u8>> {
    let mut bytes = alloc::vec![0; len];
    if source.take(&mut bytes)? < len {
        return Err(Errno::EFAULT);
    }
    Ok(bytes)
}
