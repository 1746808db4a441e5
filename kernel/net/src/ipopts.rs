//! The options that UDP, raw and ping sockets have in common (`socket(7)`, `ip(7)`, `ipv6(7)`).

use core::net::{IpAddr, Ipv4Addr};

use errno::{Errno, Result};

use crate::config::Limits;
use crate::ip::DEFAULT_TTL;
use crate::option::{MtuDiscover, Opt, OptName};
use crate::stack::Stack;

/// `SOCK_MIN_RCVBUF`; a send buffer's least is twice that.
const MIN_BUF: usize = 2304;

/// What the program set of them.
#[derive(Clone, Debug)]
pub(crate) struct IpOpts {
    pub reuse_addr: bool,
    pub broadcast: bool,
    pub dont_route: bool,
    pub timestamp: bool,
    pub rcvbuf: usize,
    pub sndbuf: usize,
    pub device: u32,
    pub tos: u8,
    pub tclass: u8,
    pub ttl: u8,
    pub hops: Option<u8>,
    pub pktinfo: bool,
    pub pktinfo6: bool,
    pub recv_ttl: bool,
    pub recv_hops: bool,
    pub recv_tos: bool,
    pub recv_tclass: bool,
    pub recv_err: bool,
    pub recv_err6: bool,
    pub mtu_discover: MtuDiscover,
    pub mtu_discover6: MtuDiscover,
    pub free_bind: bool,
    pub transparent: bool,
    pub multicast_ttl: u8,
    pub multicast_hops: u8,
    pub multicast_loop: bool,
    pub multicast_all: bool,
    pub multicast_if: (Ipv4Addr, u32),
}

impl IpOpts {
    /// What a new socket has.
    pub fn new(limits: &Limits) -> IpOpts {
        IpOpts {
            reuse_addr: false,
            broadcast: false,
            dont_route: false,
            timestamp: false,
            rcvbuf: limits.rmem_default,
            sndbuf: limits.rmem_default,
            device: 0,
            tos: 0,
            tclass: 0,
            ttl: DEFAULT_TTL,
            hops: None,
            pktinfo: false,
            pktinfo6: false,
            recv_ttl: false,
            recv_hops: false,
            recv_tos: false,
            recv_tclass: false,
            recv_err: false,
            recv_err6: false,
            mtu_discover: MtuDiscover::Want,
            mtu_discover6: MtuDiscover::Want,
            free_bind: false,
            transparent: false,
            multicast_ttl: 1,
            multicast_hops: 1,
            multicast_loop: true,
            multicast_all: true,
            multicast_if: (Ipv4Addr::UNSPECIFIED, 0),
        }
    }

    /// `IP_MTU_DISCOVER`, or `IPV6_MTU_DISCOVER`.
    pub fn discover(&self, remote: IpAddr) -> MtuDiscover {
        match remote {
            IpAddr::V4(_) => self.mtu_discover,
            IpAddr::V6(_) => self.mtu_discover6,
        }
    }

    /// Whether packets are not to be fragmented.
    pub fn whole(&self, remote: IpAddr) -> bool {
        matches!(self.discover(remote), MtuDiscover::Do | MtuDiscover::Probe)
    }

    /// Sets one, which [`Stack::check_option`] has let pass.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for one that is not among them, or one of IPv6's without `ipv6`; `EINVAL`.
    pub fn set(&mut self, option: Opt, ipv6: bool, limits: &Limits) -> Result<()> {
        match option {
            Opt::ReuseAddr(on) => self.reuse_addr = on,
            Opt::Broadcast(on) => self.broadcast = on,
            Opt::DontRoute(on) => self.dont_route = on,
            Opt::Timestamp(on) => self.timestamp = on,
            // Streams only, yet no error elsewhere.
            Opt::KeepAlive(_) | Opt::OobInline(_) | Opt::Linger(_) | Opt::RcvLowat(_) => {}
            Opt::RcvBuf(n) => {
                self.rcvbuf = ((n as usize).min(limits.rmem_max) * 2).max(MIN_BUF);
            }
            Opt::RcvBufForce(n) => self.rcvbuf = (n as usize * 2).max(MIN_BUF),
            Opt::SndBuf(n) => {
                self.sndbuf = ((n as usize).min(limits.wmem_max) * 2).max(MIN_BUF * 2);
            }
            Opt::SndBufForce(n) => self.sndbuf = (n as usize * 2).max(MIN_BUF * 2),
            Opt::BindToDevice(index) => self.device = index,
            Opt::Tos(tos) => self.tos = tos,
            Opt::Ttl(0) => return Err(Errno::EINVAL),
            Opt::Ttl(ttl) => self.ttl = ttl,
            Opt::PktInfo(on) => self.pktinfo = on,
            Opt::RecvTtl(on) => self.recv_ttl = on,
            Opt::RecvTos(on) => self.recv_tos = on,
            Opt::RecvErr(on) => self.recv_err = on,
            Opt::MtuDiscover(how) => self.mtu_discover = how,
            Opt::FreeBind(on) => self.free_bind = on,
            Opt::Transparent(on) => self.transparent = on,
            Opt::MulticastTtl(ttl) => self.multicast_ttl = ttl,
            Opt::MulticastLoop(on) | Opt::MulticastLoop6(on) => self.multicast_loop = on,
            Opt::MulticastAll(on) => self.multicast_all = on,
            Opt::MulticastIf(to) => self.multicast_if = to,
            Opt::UnicastHops(hops) if ipv6 => self.hops = hops,
            Opt::MulticastHops(hops) if ipv6 => self.multicast_hops = hops.unwrap_or(1),
            Opt::MulticastIf6(index) if ipv6 => {
                self.multicast_if = (Ipv4Addr::UNSPECIFIED, index);
            }
            Opt::RecvPktInfo6(on) if ipv6 => self.pktinfo6 = on,
            Opt::RecvHopLimit(on) if ipv6 => self.recv_hops = on,
            Opt::RecvTClass(on) if ipv6 => self.recv_tclass = on,
            Opt::TClass(class) if ipv6 => self.tclass = class,
            Opt::RecvErr6(on) if ipv6 => self.recv_err6 = on,
            Opt::MtuDiscover6(how) if ipv6 => self.mtu_discover6 = how,
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// The value of one; `mtu` is that of the way to the peer, if there is one.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for one that is not among them; `ENOTCONN`.
    pub fn get(&self, name: OptName, mtu: Option<u32>) -> Result<Opt> {
        Ok(match name {
            OptName::ReuseAddr => Opt::ReuseAddr(self.reuse_addr),
            OptName::KeepAlive => Opt::KeepAlive(false),
            OptName::Broadcast => Opt::Broadcast(self.broadcast),
            OptName::DontRoute => Opt::DontRoute(self.dont_route),
            OptName::OobInline => Opt::OobInline(false),
            OptName::Linger => Opt::Linger(None),
            OptName::RcvBuf => Opt::RcvBuf(self.rcvbuf as u32),
            OptName::SndBuf => Opt::SndBuf(self.sndbuf as u32),
            OptName::RcvLowat => Opt::RcvLowat(1),
            OptName::BindToDevice => Opt::BindToDevice(self.device),
            OptName::Timestamp => Opt::Timestamp(self.timestamp),
            OptName::AcceptConn => Opt::AcceptConn(false),
            OptName::IncomingCpu => Opt::IncomingCpu(crate::sync::cpu_id() as u32),
            OptName::MaxPacingRate => Opt::MaxPacingRate(u64::MAX),
            OptName::Tos => Opt::Tos(self.tos),
            OptName::Ttl => Opt::Ttl(self.ttl),
            OptName::PktInfo => Opt::PktInfo(self.pktinfo),
            OptName::RecvTtl => Opt::RecvTtl(self.recv_ttl),
            OptName::RecvTos => Opt::RecvTos(self.recv_tos),
            OptName::RecvErr => Opt::RecvErr(self.recv_err),
            OptName::MtuDiscover => Opt::MtuDiscover(self.mtu_discover),
            OptName::Mtu => Opt::Mtu(mtu.ok_or(Errno::ENOTCONN)?),
            OptName::FreeBind => Opt::FreeBind(self.free_bind),
            OptName::Transparent => Opt::Transparent(self.transparent),
            OptName::MulticastTtl => Opt::MulticastTtl(self.multicast_ttl),
            OptName::MulticastLoop => Opt::MulticastLoop(self.multicast_loop),
            OptName::MulticastLoop6 => Opt::MulticastLoop6(self.multicast_loop),
            OptName::MulticastAll => Opt::MulticastAll(self.multicast_all),
            OptName::MulticastIf => Opt::MulticastIf(self.multicast_if),
            OptName::MulticastIf6 => Opt::MulticastIf6(self.multicast_if.1),
            OptName::UnicastHops => Opt::UnicastHops(self.hops),
            OptName::MulticastHops => Opt::MulticastHops(Some(self.multicast_hops)),
            OptName::RecvPktInfo6 => Opt::RecvPktInfo6(self.pktinfo6),
            OptName::RecvHopLimit => Opt::RecvHopLimit(self.recv_hops),
            OptName::RecvTClass => Opt::RecvTClass(self.recv_tclass),
            OptName::TClass => Opt::TClass(self.tclass),
            OptName::RecvErr6 => Opt::RecvErr6(self.recv_err6),
            OptName::MtuDiscover6 => Opt::MtuDiscover6(self.mtu_discover6),
            OptName::Mtu6 => Opt::Mtu6(mtu.ok_or(Errno::ENOTCONN)?),
            _ => return Err(Errno::ENOPROTOOPT),
        })
    }
}

impl Stack {
    /// Whether the interface or address that an option names is there.
    ///
    /// # Errors
    /// `ENODEV`, `EADDRNOTAVAIL`.
    pub(crate) fn check_option(&self, option: &Opt) -> Result<()> {
        let missing = |index: u32| index != 0 && self.interface(index).is_none();
        match *option {
            Opt::BindToDevice(index) | Opt::MulticastIf6(index) if missing(index) => {
                Err(Errno::ENODEV)
            }
            Opt::MulticastIf((addr, index))
                if missing(index)
                    || index == 0 && !addr.is_unspecified() && !self.is_local(addr.into()) =>
            {
                Err(Errno::EADDRNOTAVAIL)
            }
            _ => Ok(()),
        }
    }
}
