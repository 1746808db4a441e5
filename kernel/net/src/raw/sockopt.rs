//! The options of a raw or ping socket.

use errno::{Errno, Result};

use super::RawSocket;
use crate::ip::proto;
use crate::option::{Opt, OptName};

impl RawSocket {
    pub(super) fn set_opt(&self, option: Opt) -> Result<()> {
        let stack = &self.stack;
        let limits = &stack.config().limits;
        let ipv6 = self.is_v6();
        if let Some(change) = stack.membership_change(&option)? {
            let update = self.inner.lock().groups.apply(change)?;
            stack.update_group(self.id(), update);
            return Ok(());
        }
        if let Opt::Filter(program) = option {
            return self.filter.set(program);
        }
        stack.check_option(&option)?;
        let mut inner = self.inner.lock();
        inner.dst = None;
        let opts = &mut inner.opts;
        match option {
            Opt::BindAddressNoPort(_) => {}
            Opt::HdrIncl(on) if !self.ping => opts.hdrincl = on,
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
            // A raw socket is of one family anyway.
            Opt::V6Only(_) if ipv6 => {}
            option => return opts.ip.set(option, ipv6, limits),
        }
        Ok(())
    }

    pub(super) fn get_opt(&self, name: OptName) -> Result<Opt> {
        let inner = self.inner.lock();
        let opts = &inner.opts;
        Ok(match name {
            OptName::Filter => Opt::Filter(self.filter.get()),
            OptName::ReusePort => Opt::ReusePort(false),
            OptName::HdrIncl if !self.ping => Opt::HdrIncl(opts.hdrincl),
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
                Opt::UnicastHops(Some(opts.ip.hops.unwrap_or(crate::ip::DEFAULT_TTL)))
            }
            name => return opts.ip.get(name, inner.dst.as_ref().map(|dst| dst.mtu)),
        })
    }
}
