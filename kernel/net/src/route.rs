//! The routing table, path-MTU cache and the choice of a source address.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};

use errno::{Errno, Result};
use hashbrown::HashMap;

use crate::flow::KeyedState;
use crate::iface::Interface;
use crate::neigh::Neighbour;
use crate::query::RouteInfo;
use crate::sync::RwSpinLock;

/// How long a learned path MTU holds (`mtu_expires`).
const PMTU_NS: u64 = 600_000_000_000;
/// Path MTUs remembered.
const PMTU_ENTRIES: usize = 4096;
/// `min_pmtu`: a router that claims less is not believed.
pub(crate) const MIN_PMTU: u32 = 552;

/// Where packets to a destination go. Sockets keep one and ask again when its generation is over.
#[derive(Clone)]
pub(crate) struct Dst {
    pub iface: Arc<Interface>,
    pub src: IpAddr,
    pub hop: Hop,
    pub mtu: u32,
    pub generation: u64,
}

/// How the hardware address of the next hop is found.
#[derive(Clone)]
pub(crate) enum Hop {
    /// It is this machine.
    Local,
    /// Broadcast and multicast have fixed ones.
    Fixed([u8; 6]),
    /// By the neighbour cache.
    Neighbour(Arc<Neighbour>),
}

/// The hardware address of a multicast group (RFC 1112 §6.4, RFC 2464 §7).
pub fn group_mac(group: IpAddr) -> [u8; 6] {
    match group {
        IpAddr::V4(a) => {
            let [_, b, c, d] = a.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(a) => {
            let o = a.octets();
            [0x33, 0x33, o[12], o[13], o[14], o[15]]
        }
    }
}

pub(crate) struct Routes {
    /// Longest prefix first, then lowest metric.
    table: RwSpinLock<Vec<RouteInfo>>,
    pmtu: RwSpinLock<HashMap<IpAddr, (u32, u64), KeyedState>>,
    generation: AtomicU64,
}

impl Routes {
    pub fn new(hasher: KeyedState) -> Routes {
        Routes {
            table: RwSpinLock::new(Vec::new()),
            pmtu: RwSpinLock::new(HashMap::with_hasher(hasher)),
            generation: AtomicU64::new(1),
        }
    }

    /// Changes whenever a cached [`Dst`] may be wrong.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub fn add(&self, route: RouteInfo) -> Result<()> {
        let mut table = self.table.write();
        if table.iter().any(|r| {
            r.dst == route.dst
                && r.metric == route.metric
                && r.gateway == route.gateway
                && r.index == route.index
        }) {
            return Err(Errno::EEXIST);
        }
        let at = table.partition_point(|r| {
            (r.dst.prefix, u32::MAX - r.metric) >= (route.dst.prefix, u32::MAX - route.metric)
        });
        table.insert(at, route);
        drop(table);
        self.changed();
        Ok(())
    }

    pub fn remove(&self, matches: impl Fn(&RouteInfo) -> bool) -> Vec<RouteInfo> {
        let mut gone = Vec::new();
        self.table.write().retain(|route| {
            let hit = matches(route);
            if hit {
                gone.push(route.clone());
            }
            !hit
        });
        if !gone.is_empty() {
            self.changed();
        }
        gone
    }

    /// The best route to `addr`, on interface `index` if that is not 0.
    pub fn lookup(&self, addr: IpAddr, index: u32) -> Option<RouteInfo> {
        self.table
            .read()
            .iter()
            .find(|r| {
                r.dst.addr.is_ipv4() == addr.is_ipv4()
                    && (index == 0 || r.index == index)
                    && r.dst.contains(addr)
            })
            .cloned()
    }

    pub fn list(&self) -> Vec<RouteInfo> {
        self.table.read().clone()
    }

    /// What is known of the path's MTU.
    pub fn pmtu(&self, addr: IpAddr, now: u64) -> Option<u32> {
        let known = self.pmtu.read();
        if known.is_empty() {
            return None;
        }
        known
            .get(&addr)
            .filter(|(_, expires)| *expires > now)
            .map(|(mtu, _)| *mtu)
    }

    /// A router said that packets to `addr` may have only `mtu` bytes: believed for a while, and never as a reason to
    /// send more. Returns when it is forgotten.
    pub fn learn_pmtu(&self, addr: IpAddr, mtu: u32, now: u64) -> Option<u64> {
        let mut known = self.pmtu.write();
        if known
            .get(&addr)
            .is_some_and(|(old, expires)| *old < mtu && *expires > now)
        {
            return None;
        }
        if known.len() >= PMTU_ENTRIES {
            known.retain(|_, (_, expires)| *expires > now);
            if known.len() >= PMTU_ENTRIES {
                return None;
            }
        }
        known.insert(addr, (mtu, now + PMTU_NS));
        drop(known);
        self.changed();
        Some(now + PMTU_NS)
    }

    /// Forgets what was learned long ago: who has a connection there tries larger packets again (RFC 8201 §4, RFC 1191
    /// §6.3). Returns when to look again.
    pub fn expire_pmtu(&self, now: u64) -> Option<u64> {
        let mut known = self.pmtu.write();
        let before = known.len();
        known.retain(|_, (_, expires)| *expires > now);
        let next = known.values().map(|(_, expires)| *expires).min();
        let gone = known.len() < before;
        drop(known);
        if gone {
            self.changed();
        }
        next
    }
}
