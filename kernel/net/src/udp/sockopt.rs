//! The options of a UDP socket.

use core::net::Ipv4Addr;

use errno::{Errno, Result};

use super::UdpSocket;
use crate::option::{Opt, OptName};
use crate::socket::Family;

const MIN_BUF: usize = 2304;

impl UdpSocket {
    /// What tells it from other sockets in the multicast registry.
    pub(super) fn id(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    pub(crate) fn set_opt(&self, option: Opt) -> Result<()> {
        let stack = &self.stack;
        let limits = &stack.config().limits;
        let ipv6 = self.family == Family::Inet6;
        match option {
            Opt::Join(_)
            | Opt::Leave(_)
            | Opt::JoinSource(_)
            | Opt::LeaveSource(_)
            | Opt::BlockSource(_)
            | Opt::UnblockSource(_)
            | Opt::SourceFilter(_) => {
                let change = stack.resolve_membership(&option)?;
                let update = self.inner.lock().groups.apply(change)?;
                stack.update_group(self.id(), update);
                return Ok(());
            }
            Opt::Filter(program) => return self.filter.set(program),
            Opt::TxStamps(stamps) => {
                self.set_stamps(stamps);
                return Ok(());
            }
            Opt::BindToDevice(index) if index != 0 && stack.interface(index).is_none() => {
                return Err(Errno::ENODEV);
            }
            Opt::MulticastIf((addr, index)) => {
                if index != 0 && stack.interface(index).is_none() {
                    return Err(Errno::EADDRNOTAVAIL);
                }
                if index == 0 && !addr.is_unspecified() && !stack.is_local(addr.into()) {
                    return Err(Errno::EADDRNOTAVAIL);
                }
            }
            Opt::MulticastIf6(index) if index != 0 && stack.interface(index).is_none() => {
                return Err(Errno::ENODEV);
            }
            _ => {}
        }
        let mut inner = self.inner.lock();
        let bound = inner.bound.is_some();
        inner.dst = None;
        let opts = &mut inner.opts;
        match option {
            Opt::ReuseAddr(on) => opts.reuse_addr = on,
            Opt::ReusePort(on) => opts.reuse_port = on,
            Opt::Broadcast(on) => opts.broadcast = on,
            Opt::DontRoute(on) => opts.dont_route = on,
            Opt::Timestamp(on) => opts.timestamp = on,
            // Streams only, yet no error elsewhere.
            Opt::KeepAlive(_) | Opt::OobInline(_) | Opt::Linger(_) | Opt::RcvLowat(_) => {}
            Opt::RcvBuf(n) => {
                opts.rcvbuf = ((n as usize).min(limits.rmem_max) * 2).max(MIN_BUF);
            }
            Opt::RcvBufForce(n) => opts.rcvbuf = (n as usize * 2).max(MIN_BUF),
            Opt::SndBuf(n) => {
                opts.sndbuf = ((n as usize).min(limits.wmem_max) * 2).max(MIN_BUF * 2);
            }
            Opt::SndBufForce(n) => opts.sndbuf = (n as usize * 2).max(MIN_BUF * 2),
            Opt::BindToDevice(index) => opts.device = index,
            Opt::UdpCork(on) => {
                opts.cork = on;
                if !on {
                    drop(inner);
                    self.flush();
                }
                return Ok(());
            }
            Opt::UdpSegment(size) => opts.segment = size,
            Opt::UdpGro(on) => opts.gro = on,
            Opt::Tos(tos) => opts.tos = tos,
            Opt::Ttl(0) => return Err(Errno::EINVAL),
            Opt::Ttl(ttl) => opts.ttl = ttl,
            Opt::MinTtl(ttl) => opts.min_ttl = ttl,
            Opt::MinHops(hops) if ipv6 => opts.min_hops = hops,
            Opt::PktInfo(on) => opts.pktinfo = on,
            Opt::RecvTtl(on) => opts.recv_ttl = on,
            Opt::RecvTos(on) => opts.recv_tos = on,
            Opt::RecvErr(on) => opts.recv_err = on,
            Opt::RecvOrigDstAddr(on) => opts.orig_dst = on,
            Opt::MtuDiscover(how) => opts.mtu_discover = how,
            Opt::FreeBind(on) => opts.free_bind = on,
            Opt::Transparent(on) => opts.transparent = on,
            Opt::RxqOvfl(on) => opts.rxq_ovfl = on,
            Opt::MulticastTtl(ttl) => opts.multicast_ttl = ttl,
            Opt::MulticastLoop(on) | Opt::MulticastLoop6(on) => opts.multicast_loop = on,
            Opt::MulticastAll(on) => opts.multicast_all = on,
            Opt::MulticastIf(to) => opts.multicast_if = to,
            Opt::V6Only(on) if ipv6 => {
                if bound {
                    return Err(Errno::EINVAL);
                }
                opts.v6only = on;
            }
            Opt::UnicastHops(hops) if ipv6 => opts.hops = hops,
            Opt::MulticastHops(hops) if ipv6 => opts.multicast_hops = hops.unwrap_or(1),
            Opt::MulticastIf6(index) if ipv6 => {
                opts.multicast_if = (Ipv4Addr::UNSPECIFIED, index);
            }
            Opt::RecvPktInfo6(on) if ipv6 => opts.pktinfo6 = on,
            Opt::RecvHopLimit(on) if ipv6 => opts.recv_hops = on,
            Opt::RecvTClass(on) if ipv6 => opts.recv_tclass = on,
            Opt::TClass(class) if ipv6 => opts.tclass = class,
            Opt::DontFrag6(on) if ipv6 => opts.dont_frag6 = on,
            Opt::RecvOrigDstAddr6(on) if ipv6 => opts.orig_dst6 = on,
            Opt::RecvErr6(on) if ipv6 => opts.recv_err6 = on,
            Opt::MtuDiscover6(how) if ipv6 => opts.mtu_discover6 = how,
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    pub(crate) fn get_opt(&self, name: OptName) -> Result<Opt> {
        let inner = self.inner.lock();
        let opts = &inner.opts;
        let mtu = inner.dst.as_ref().map(|d| d.mtu);
        Ok(match name {
            OptName::Filter => Opt::Filter(self.filter.get()),
            OptName::ReuseAddr => Opt::ReuseAddr(opts.reuse_addr),
            OptName::ReusePort => Opt::ReusePort(opts.reuse_port),
            OptName::KeepAlive => Opt::KeepAlive(false),
            OptName::Broadcast => Opt::Broadcast(opts.broadcast),
            OptName::DontRoute => Opt::DontRoute(opts.dont_route),
            OptName::OobInline => Opt::OobInline(false),
            OptName::Linger => Opt::Linger(None),
            OptName::RcvBuf => Opt::RcvBuf(opts.rcvbuf as u32),
            OptName::SndBuf => Opt::SndBuf(opts.sndbuf as u32),
            OptName::RcvLowat => Opt::RcvLowat(1),
            OptName::BindToDevice => Opt::BindToDevice(opts.device),
            OptName::Timestamp => Opt::Timestamp(opts.timestamp),
            OptName::AcceptConn => Opt::AcceptConn(false),
            OptName::IncomingCpu => Opt::IncomingCpu(crate::sync::cpu_id() as u32),
            OptName::MaxPacingRate => Opt::MaxPacingRate(u64::MAX),
            OptName::UdpCork => Opt::UdpCork(opts.cork),
            OptName::RxqOvfl => Opt::RxqOvfl(opts.rxq_ovfl),
            OptName::DontFrag6 => Opt::DontFrag6(opts.dont_frag6),
            OptName::RecvOrigDstAddr6 => Opt::RecvOrigDstAddr6(opts.orig_dst6),
            OptName::UdpSegment => Opt::UdpSegment(opts.segment),
            OptName::UdpGro => Opt::UdpGro(opts.gro),
            OptName::Tos => Opt::Tos(opts.tos),
            OptName::Ttl => Opt::Ttl(opts.ttl),
            OptName::MinTtl => Opt::MinTtl(opts.min_ttl),
            OptName::MinHops => Opt::MinHops(opts.min_hops),
            OptName::PktInfo => Opt::PktInfo(opts.pktinfo),
            OptName::RecvTtl => Opt::RecvTtl(opts.recv_ttl),
            OptName::RecvTos => Opt::RecvTos(opts.recv_tos),
            OptName::RecvErr => Opt::RecvErr(opts.recv_err),
            OptName::RecvOrigDstAddr => Opt::RecvOrigDstAddr(opts.orig_dst),
            OptName::MtuDiscover => Opt::MtuDiscover(opts.mtu_discover),
            OptName::Mtu => Opt::Mtu(mtu.ok_or(Errno::ENOTCONN)?),
            OptName::FreeBind => Opt::FreeBind(opts.free_bind),
            OptName::Transparent => Opt::Transparent(opts.transparent),
            OptName::MulticastTtl => Opt::MulticastTtl(opts.multicast_ttl),
            OptName::MulticastLoop => Opt::MulticastLoop(opts.multicast_loop),
            OptName::MulticastLoop6 => Opt::MulticastLoop6(opts.multicast_loop),
            OptName::MulticastAll => Opt::MulticastAll(opts.multicast_all),
            OptName::MulticastIf => Opt::MulticastIf(opts.multicast_if),
            OptName::MulticastIf6 => Opt::MulticastIf6(opts.multicast_if.1),
            OptName::V6Only => Opt::V6Only(opts.v6only),
            OptName::UnicastHops => Opt::UnicastHops(opts.hops),
            OptName::MulticastHops => Opt::MulticastHops(Some(opts.multicast_hops)),
            OptName::RecvPktInfo6 => Opt::RecvPktInfo6(opts.pktinfo6),
            OptName::RecvHopLimit => Opt::RecvHopLimit(opts.recv_hops),
            OptName::RecvTClass => Opt::RecvTClass(opts.recv_tclass),
            OptName::TClass => Opt::TClass(opts.tclass),
            OptName::RecvErr6 => Opt::RecvErr6(opts.recv_err6),
            OptName::MtuDiscover6 => Opt::MtuDiscover6(opts.mtu_discover6),
            OptName::Mtu6 => Opt::Mtu6(mtu.ok_or(Errno::ENOTCONN)?),
            _ => return Err(Errno::ENOPROTOOPT),
        })
    }
}
