//! The options of a UDP socket.

use errno::{Errno, Result};

use super::UdpSocket;
use crate::option::{Opt, OptName};
use crate::socket::Family;

impl UdpSocket {
    /// What tells it from other sockets in the multicast registry.
    pub(super) fn id(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    pub(crate) fn set_opt(&self, option: Opt) -> Result<()> {
        let stack = &self.stack;
        let limits = &stack.config().limits;
        let ipv6 = self.family == Family::Inet6;
        if let Some(change) = stack.membership_change(&option)? {
            let update = self.inner.lock().groups.apply(change)?;
            stack.update_group(self.id(), update);
            return Ok(());
        }
        if let Opt::Filter(program) = option {
            return self.filter.set(program);
        }
        if let Opt::TxStamps(stamps) = option {
            self.set_stamps(stamps);
            return Ok(());
        }
        stack.check_option(&option)?;
        let mut inner = self.inner.lock();
        let bound = inner.bound.is_some();
        inner.dst = None;
        let opts = &mut inner.opts;
        match option {
            Opt::ReusePort(on) => opts.reuse_port = on,
            Opt::LocalPortRange(range) => opts.port_range = crate::ports::checked(range)?,
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
            Opt::MinTtl(ttl) => opts.min_ttl = ttl,
            Opt::MinHops(hops) if ipv6 => opts.min_hops = hops,
            Opt::RecvOrigDstAddr(on) => opts.orig_dst = on,
            Opt::RxqOvfl(on) => opts.rxq_ovfl = on,
            Opt::V6Only(on) if ipv6 => {
                if bound {
                    return Err(Errno::EINVAL);
                }
                opts.v6only = on;
            }
            Opt::DontFrag6(on) if ipv6 => opts.dont_frag6 = on,
            Opt::RecvOrigDstAddr6(on) if ipv6 => opts.orig_dst6 = on,
            option => return opts.ip.set(option, ipv6, limits),
        }
        Ok(())
    }

    pub(crate) fn get_opt(&self, name: OptName) -> Result<Opt> {
        let inner = self.inner.lock();
        let opts = &inner.opts;
        Ok(match name {
            OptName::Filter => Opt::Filter(self.filter.get()),
            OptName::ReusePort => Opt::ReusePort(opts.reuse_port),
            OptName::LocalPortRange => Opt::LocalPortRange(opts.port_range),
            OptName::UdpCork => Opt::UdpCork(opts.cork),
            OptName::RxqOvfl => Opt::RxqOvfl(opts.rxq_ovfl),
            OptName::DontFrag6 => Opt::DontFrag6(opts.dont_frag6),
            OptName::RecvOrigDstAddr6 => Opt::RecvOrigDstAddr6(opts.orig_dst6),
            OptName::UdpSegment => Opt::UdpSegment(opts.segment),
            OptName::UdpGro => Opt::UdpGro(opts.gro),
            OptName::MinTtl => Opt::MinTtl(opts.min_ttl),
            OptName::MinHops => Opt::MinHops(opts.min_hops),
            OptName::RecvOrigDstAddr => Opt::RecvOrigDstAddr(opts.orig_dst),
            OptName::V6Only => Opt::V6Only(opts.v6only),
            name => return opts.ip.get(name, inner.dst.as_ref().map(|dst| dst.mtu)),
        })
    }
}
