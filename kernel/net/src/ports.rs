//! Who holds which local port: `bind(2)`'s rules of conflict and sharing, as Linux has them
//! (`SO_REUSEADDR`, `SO_REUSEPORT`, listening sockets, wildcard addresses), and the choice of free ports.

use alloc::vec::Vec;
use core::net::IpAddr;

use errno::{Errno, Result};
use hashbrown::HashMap;

use crate::flow::KeyedState;
use crate::sync::SpinLock;

/// How a socket holds its port. Sockets that hold it alike are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    /// `None` is the wildcard of the family, see `ipv6`.
    pub addr: Option<IpAddr>,
    /// The wildcard is IPv6's.
    pub ipv6: bool,
    /// That wildcard does not take IPv4.
    pub v6only: bool,
    pub reuse_addr: bool,
    pub reuse_port: bool,
    /// `SO_BINDTODEVICE`.
    pub device: u32,
    /// Chosen by `connect`: others may share the port for other peers.
    pub auto: bool,
}

impl Binding {
    /// To all addresses of IPv4, without options, for tests.
    #[cfg(test)]
    pub fn any() -> Binding {
        Binding {
            addr: None,
            ipv6: false,
            v6only: false,
            reuse_addr: false,
            reuse_port: false,
            device: 0,
            auto: false,
        }
    }

    fn takes(&self, ipv4: bool) -> bool {
        match self.addr {
            Some(addr) => addr.is_ipv4() == ipv4,
            None if self.ipv6 => !ipv4 || !self.v6only,
            None => ipv4,
        }
    }

    fn overlaps(&self, other: &Binding) -> bool {
        if self.device != 0 && other.device != 0 && self.device != other.device {
            return false;
        }
        match (self.addr, other.addr) {
            (Some(a), Some(b)) => a == b,
            (Some(a), None) => other.takes(a.is_ipv4()),
            (None, Some(b)) => self.takes(b.is_ipv4()),
            (None, None) => {
                self.takes(true) && other.takes(true) || self.takes(false) && other.takes(false)
            }
        }
    }
}

/// A value for `IP_LOCAL_PORT_RANGE`: the first port in the low half, the last in the high one, 0 for none.
///
/// # Errors
/// `EINVAL` when the last lies before the first.
pub(crate) fn checked(range: u32) -> Result<u32> {
    let (first, last) = (range & 0xffff, range >> 16);
    if first != 0 && last != 0 && first > last {
        return Err(Errno::EINVAL);
    }
    Ok(range)
}

/// The system's range as a socket's `IP_LOCAL_PORT_RANGE` narrows it; ends beyond it do not count.
pub(crate) fn narrowed((mut first, mut last): (u16, u16), own: u32) -> (u16, u16) {
    let (own_first, own_last) = (own as u16, (own >> 16) as u16);
    if (first..=last).contains(&own_first) {
        first = own_first;
    }
    if (first..=last).contains(&own_last) {
        last = own_last;
    }
    (first, last)
}

struct Group {
    binding: Binding,
    listening: usize,
    others: usize,
}

pub(crate) struct Ports {
    table: SpinLock<HashMap<u16, Vec<Group>, KeyedState>>,
}

impl Ports {
    pub fn new(hasher: KeyedState) -> Ports {
        Ports {
            table: SpinLock::new(HashMap::with_hasher(hasher)),
        }
    }

    /// Takes `port`.
    pub fn bind(&self, port: u16, binding: Binding) -> Result<()> {
        let mut table = self.table.lock();
        let groups = table.entry(port).or_default();
        let conflict = groups.iter().any(|g| {
            g.binding.overlaps(&binding)
                && !(g.binding.reuse_addr && binding.reuse_addr && g.listening == 0)
                && !(g.binding.reuse_port && binding.reuse_port)
        });
        if conflict {
            return Err(Errno::EADDRINUSE);
        }
        add(groups, binding);
        Ok(())
    }

    /// Takes a free port of `range`, the search beginning at a place that `seed` chooses.
    pub fn bind_any(&self, range: (u16, u16), seed: u64, binding: Binding) -> Result<u16> {
        for port in candidates(range, seed) {
            let free = self
                .table
                .lock()
                .get(&port)
                .is_none_or(|groups| groups.is_empty());
            if free && self.bind(port, binding).is_ok() {
                return Ok(port);
            }
        }
        Err(Errno::EADDRINUSE)
    }

    /// Takes a port of `range` for a connection: one that nobody bound by hand, and for which `claim`
    /// finds the 4-tuple free.
    pub fn bind_for_connect(
        &self,
        range: (u16, u16),
        seed: u64,
        binding: Binding,
        mut claim: impl FnMut(u16) -> bool,
    ) -> Result<u16> {
        for port in candidates(range, seed) {
            {
                let mut table = self.table.lock();
                let groups = table.entry(port).or_default();
                if groups.iter().any(|g| !g.binding.auto) {
                    continue;
                }
                add(groups, binding);
            }
            if claim(port) {
                return Ok(port);
            }
            self.release(port, &binding);
        }
        Err(Errno::EADDRNOTAVAIL)
    }

    /// One more socket holds `port`, with the right of its listener.
    pub fn share(&self, port: u16, binding: Binding) {
        add(self.table.lock().entry(port).or_default(), binding);
    }

    /// A socket that holds `port` listens from now on; only those of `SO_REUSEPORT` may be several.
    pub fn listen(&self, port: u16, binding: &Binding) -> Result<()> {
        let mut table = self.table.lock();
        let groups = table.entry(port).or_default();
        let taken = groups.iter().any(|g| {
            let listeners = g.listening > 0;
            listeners
                && g.binding.overlaps(binding)
                && !(g.binding.reuse_port && binding.reuse_port)
        });
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        if let Some(group) = groups.iter_mut().find(|g| g.binding == *binding) {
            group.others = group.others.saturating_sub(1);
            group.listening += 1;
        }
        Ok(())
    }

    /// It listens no more, but still holds the port.
    pub fn unlisten(&self, port: u16, binding: &Binding) {
        let mut table = self.table.lock();
        if let Some(group) = table
            .get_mut(&port)
            .and_then(|groups| groups.iter_mut().find(|g| g.binding == *binding))
        {
            group.listening = group.listening.saturating_sub(1);
            group.others += 1;
        }
    }

    /// Gives `port` back.
    pub fn release(&self, port: u16, binding: &Binding) {
        let mut table = self.table.lock();
        let Some(groups) = table.get_mut(&port) else {
            return;
        };
        if let Some(at) = groups.iter().position(|g| g.binding == *binding) {
            groups[at].others = groups[at].others.saturating_sub(1);
            if groups[at].others + groups[at].listening == 0 {
                groups.swap_remove(at);
            }
        }
        if groups.is_empty() {
            table.remove(&port);
        }
    }
}

fn add(groups: &mut Vec<Group>, binding: Binding) {
    match groups.iter_mut().find(|g| g.binding == binding) {
        Some(group) => group.others += 1,
        None => groups.push(Group {
            binding,
            listening: 0,
            others: 1,
        }),
    }
}

fn candidates((low, high): (u16, u16), seed: u64) -> impl Iterator<Item = u16> {
    let count = u64::from(high.saturating_sub(low)) + 1;
    (0..count).map(move |i| low + ((seed % count + i) % count) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Key;

    #[test]
    fn a_socket_narrows_the_range_of_ports() {
        let of = |first: u32, last: u32| last << 16 | first;
        let system = (32_768, 60_999);
        for (own, range) in [
            (of(0, 0), system),
            (of(40_000, 40_003), (40_000, 40_003)),
            (of(40_000, 0), (40_000, 60_999)),
            (of(0, 40_000), (32_768, 40_000)),
            (of(100, 200), system),
            (of(100, 40_000), (32_768, 40_000)),
            (of(60_000, 65_535), (60_000, 60_999)),
        ] {
            assert_eq!(checked(own), Ok(own));
            assert_eq!(narrowed(system, own), range);
        }
        assert_eq!(checked(of(2, 1)), Err(Errno::EINVAL));
    }

    #[test]
    fn linux_rules_of_conflict() {
        let ports = Ports::new(KeyedState(Key(1, 2)));
        let reuse = Binding {
            reuse_addr: true,
            ..Binding::any()
        };
        let one = Binding {
            addr: Some([10, 0, 0, 1].into()),
            ..Binding::any()
        };
        let two = Binding {
            addr: Some([10, 0, 0, 2].into()),
            ..Binding::any()
        };
        let six = Binding {
            ipv6: true,
            ..Binding::any()
        };
        let six_only = Binding {
            ipv6: true,
            v6only: true,
            ..Binding::any()
        };
        ports.bind(1, one).unwrap();
        ports.bind(1, two).unwrap();
        assert_eq!(ports.bind(1, Binding::any()), Err(Errno::EADDRINUSE));
        assert_eq!(ports.bind(1, six), Err(Errno::EADDRINUSE));
        ports.bind(1, six_only).unwrap();
        // Both reuse the address: fine until one listens.
        ports.bind(2, reuse).unwrap();
        ports.bind(2, reuse).unwrap();
        ports.listen(2, &reuse).unwrap();
        assert_eq!(ports.bind(2, reuse), Err(Errno::EADDRINUSE));
        assert_eq!(ports.listen(2, &reuse), Err(Errno::EADDRINUSE));
        // A connection left over from a listener does not stop its successor.
        ports.share(
            3,
            Binding {
                addr: one.addr,
                ..reuse
            },
        );
        ports.bind(3, reuse).unwrap();
        assert_eq!(ports.bind(3, Binding::any()), Err(Errno::EADDRINUSE));
        let spread = Binding {
            reuse_port: true,
            ..Binding::any()
        };
        for _ in 0..3 {
            ports.bind(4, spread).unwrap();
            ports.listen(4, &spread).unwrap();
        }
        ports.unlisten(4, &spread);
        for _ in 0..3 {
            ports.release(4, &spread);
        }
    }

    #[test]
    fn connects_share_ports_for_other_peers() {
        let ports = Ports::new(KeyedState(Key(1, 2)));
        let auto = Binding {
            auto: true,
            ..Binding::any()
        };
        let range = (100, 101);
        let mut used = alloc::vec![];
        for _ in 0..2 {
            let port = ports
                .bind_for_connect(range, 7, auto, |p| !used.contains(&p))
                .unwrap();
            used.push(port);
        }
        assert_eq!(
            ports.bind_for_connect(range, 7, auto, |p| !used.contains(&p)),
            Err(Errno::EADDRNOTAVAIL)
        );
        // Another peer: the same ports again.
        assert!(ports.bind_for_connect(range, 7, auto, |_| true).is_ok());
        assert_eq!(
            ports.bind_any(range, 0, Binding::any()),
            Err(Errno::EADDRINUSE)
        );
    }
}
