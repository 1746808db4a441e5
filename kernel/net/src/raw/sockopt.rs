//! The options of a raw or ping socket.

use core::net::Ipv4Addr;

use errno::{Errno, Result};

use super::RawSocket;
use crate::ip::proto;
use crate::option::{Opt, OptName};

const MIN_BUF: usize = 2304;

impl RawSocket {
    pub(super) fn set_opt(&self, option: Opt) -> Result<()> {
        let stack = &self.stack;
        let limits = &stack.config().limits;
        let ipv6 = self.is_v6();
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
            Opt::BindToDevice(index) if index != 0 && stack.interface(index).is_none() => {
                return Err(Errno::ENODEV);
            }
            Opt::MulticastIf((addr, index))
                if index != 0 && stack.interface(index).is_none()
                    || index == 0 && !addr.is_unspecified() && !stack.is_local(addr.into()) =>
            {
                return Err(Errno::EADDRNOTAVAIL);
            }
            Opt::MulticastIf6(index) if index != 0 && stack.interface(index).is_none() => {
                return Err(Errno::ENODEV);
            }
            _ => {}
        }
        let mut inner = self.inner.lock();
        inner.dst = None;
        let opts = &mut inner.opts;
        match option {
            Opt::ReuseAddr(on) => opts.reuse_addr = on,
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
            Opt::Tos(tos) => opts.tos = tos,
            Opt::Ttl(0) => return Err(Errno::EINVAL),
            Opt::Ttl(ttl) => opts.ttl = ttl,
            Opt::PktInfo(on) => opts.pktinfo = on,
            Opt::RecvTtl(on) => opts.recv_ttl = on,
            Opt::RecvTos(on) => opts.recv_tos = on,
            Opt::RecvErr(on) => opts.recv_err = on,
            Opt::MtuDiscover(how) => opts.mtu_discover = how,
            Opt::FreeBind(on) => opts.free_bind = on,
            Opt::Transparent(on) => opts.transparent = on,
            Opt::BindAddressNoPort(_) => {}
            Opt::HdrIncl(on) if !self.ping => opts.hdrincl = on,
            Opt::MulticastTtl(ttl) => opts.multicast_ttl = ttl,
            Opt::MulticastLoop(on) | Opt::MulticastLoop6(on) => opts.multicast_loop = on,
            Opt::MulticastAll(on) => opts.multicast_all = on,
            Opt::MulticastIf(to) => opts.multicast_if = to,
            Opt::IcmpFilter(filter) if self.protocol == proto::ICMP && !self.ping => {
                opts.icmp_filter = filter;
            }
            Opt::IcmpFilter(_) => return Err(Errno::EOPNOTSUPP),
            Opt::Icmp6Filter(filter) if self.protocol == proto::ICMP6 && !self.ping => {
                opts.icmp6_filter = filter;
            }
            Opt::Icmp6Filter(_) => return Err(Errno::EOPNOTSUPP),
            Opt::Checksum6(offset) if ipv6 && !self.ping => {
                // RFC 3542 §3.1: ICMPv6's is the kernel's.
                if self.protocol == proto::ICMP6 || offset > 0 && offset & 1 != 0 {
                    return Err(Errno::EINVAL);
                }
                opts.checksum = offset.max(-1);
            }
            Opt::UnicastHops(hops) if ipv6 => opts.hops = hops,
            Opt::MulticastHops(hops) if ipv6 => opts.multicast_hops = hops.unwrap_or(1),
            Opt::MulticastIf6(index) if ipv6 => {
                opts.multicast_if = (Ipv4Addr::UNSPECIFIED, index);
            }
            // A raw socket is of one family anyway.
            Opt::V6Only(_) if ipv6 => {}
            Opt::RecvPktInfo6(on) if ipv6 => opts.pktinfo6 = on,
            Opt::RecvHopLimit(on) if ipv6 => opts.recv_hops = on,
            Opt::RecvTClass(on) if ipv6 => opts.recv_tclass = on,
            Opt::TClass(class) if ipv6 => opts.tclass = class,
            Opt::RecvErr6(on) if ipv6 => opts.recv_err6 = on,
            Opt::MtuDiscover6(how) if ipv6 => opts.mtu_discover6 = how,
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    pub(super) fn get_opt(&self, name: OptName) -> Result<Opt> {
        let inner = self.inner.lock();
        let opts = &inner.opts;
        let mtu = inner.dst.as_ref().map(|d| d.mtu);
        Ok(match name {
            OptName::Filter => Opt::Filter(self.filter.get()),
            OptName::ReuseAddr => Opt::ReuseAddr(opts.reuse_addr),
            OptName::ReusePort => Opt::ReusePort(false),
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
            OptName::Tos => Opt::Tos(opts.tos),
            OptName::Ttl => Opt::Ttl(opts.ttl),
            OptName::PktInfo => Opt::PktInfo(opts.pktinfo),
            OptName::RecvTtl => Opt::RecvTtl(opts.recv_ttl),
            OptName::RecvTos => Opt::RecvTos(opts.recv_tos),
            OptName::RecvErr => Opt::RecvErr(opts.recv_err),
            OptName::MtuDiscover => Opt::MtuDiscover(opts.mtu_discover),
            OptName::Mtu => Opt::Mtu(mtu.ok_or(Errno::ENOTCONN)?),
            OptName::FreeBind => Opt::FreeBind(opts.free_bind),
            OptName::Transparent => Opt::Transparent(opts.transparent),
            OptName::HdrIncl if !self.ping => Opt::HdrIncl(opts.hdrincl),
            OptName::MulticastTtl => Opt::MulticastTtl(opts.multicast_ttl),
            OptName::MulticastLoop => Opt::MulticastLoop(opts.multicast_loop),
            OptName::MulticastLoop6 => Opt::MulticastLoop6(opts.multicast_loop),
            OptName::MulticastAll => Opt::MulticastAll(opts.multicast_all),
            OptName::MulticastIf => Opt::MulticastIf(opts.multicast_if),
            OptName::MulticastIf6 => Opt::MulticastIf6(opts.multicast_if.1),
            OptName::IcmpFilter if self.protocol == proto::ICMP && !self.ping => {
                Opt::IcmpFilter(opts.icmp_filter)
            }
            OptName::IcmpFilter => return Err(Errno::EOPNOTSUPP),
            OptName::Icmp6Filter if self.protocol == proto::ICMP6 && !self.ping => {
                Opt::Icmp6Filter(opts.icmp6_filter)
            }
            OptName::Icmp6Filter => return Err(Errno::EOPNOTSUPP),
            OptName::Checksum6 if !self.ping => Opt::Checksum6(opts.checksum),
            OptName::V6Only => Opt::V6Only(true),
            OptName::UnicastHops => {
                Opt::UnicastHops(Some(opts.hops.unwrap_or(crate::ip::DEFAULT_TTL)))
            }
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
