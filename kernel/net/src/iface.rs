//! An interface: a card or the loopback, its addresses, and the packets that wait for room in its queues.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::config::Cidr;
use crate::nic::{Nic, NicCaps, TxPacket};
use crate::query::LinkInfo;
use crate::stats::IfCounters;
use crate::sync::{RwSpinLock, SpinLock};
use crate::tap::TapList;

/// Bytes of an Ethernet header. The loopback has one too, so that offsets are the same everywhere.
pub(crate) const ETH: usize = 14;
/// `ETH_P_IP`.
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
/// `ETH_P_ARP`.
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
/// `ETH_P_IPV6`.
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Packets that wait when a card's queue is full (`txqueuelen`).
const BACKLOG: usize = 1000;

/// An address of an interface.
#[derive(Clone, Debug)]
pub(crate) struct IfAddr {
    pub cidr: Cidr,
    /// When it stops being valid; `u64::MAX` never.
    pub valid_ns: u64,
    /// When it stops being preferred as a source.
    pub preferred_ns: u64,
    /// Duplicate address detection is not done.
    pub tentative: bool,
}

#[derive(Default)]
struct Backlog {
    packets: SpinLock<VecDeque<TxPacket>>,
    len: AtomicUsize,
}

pub(crate) struct Interface {
    pub index: u32,
    pub name: String,
    pub nic: Option<Arc<dyn Nic>>,
    pub mac: [u8; 6],
    pub caps: NicCaps,
    pub mtu: AtomicU32,
    pub up: AtomicBool,
    pub promiscuous: AtomicUsize,
    pub promiscuous_flag: AtomicBool,
    /// Its queues have their threads.
    pub served: AtomicBool,
    pub addrs: RwSpinLock<Vec<IfAddr>>,
    /// Who sees its frames.
    pub taps: TapList,
    backlogs: Vec<Backlog>,
    dropped: AtomicU64,
    looped_packets: AtomicU64,
    looped_bytes: AtomicU64,
}

impl Interface {
    /// The loopback: no card.
    pub fn loopback(index: u32) -> Interface {
        Interface::make(
            index,
            "lo".into(),
            None,
            [0; 6],
            NicCaps {
                tx_csum: true,
                rx_csum: true,
                ..NicCaps::default()
            },
            65_535,
        )
    }

    pub fn ethernet(index: u32, name: &str, nic: Arc<dyn Nic>, mtu: Option<u16>) -> Interface {
        let most = nic.mtu();
        let mtu = mtu.map_or(most, |m| m.clamp(576, most.max(576)));
        let (mac, caps) = (nic.mac(), nic.caps());
        Interface::make(index, name.into(), Some(nic), mac, caps, u32::from(mtu))
    }

    fn make(
        index: u32,
        name: String,
        nic: Option<Arc<dyn Nic>>,
        mac: [u8; 6],
        caps: NicCaps,
        mtu: u32,
    ) -> Interface {
        let queues = nic.as_ref().map_or(0, |n| n.queue_count().max(1));
        Interface {
            index,
            name,
            nic,
            mac,
            caps,
            mtu: AtomicU32::new(mtu),
            up: AtomicBool::new(true),
            promiscuous: AtomicUsize::new(0),
            promiscuous_flag: AtomicBool::new(false),
            served: AtomicBool::new(false),
            addrs: RwSpinLock::new(Vec::new()),
            taps: TapList::default(),
            backlogs: (0..queues).map(|_| Backlog::default()).collect(),
            dropped: AtomicU64::new(0),
            looped_packets: AtomicU64::new(0),
            looped_bytes: AtomicU64::new(0),
        }
    }

    pub fn is_loopback(&self) -> bool {
        self.nic.is_none()
    }

    pub fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Counts a packet that goes over the loopback.
    pub fn count_looped(&self, bytes: usize) {
        self.looped_packets.fetch_add(1, Ordering::Relaxed);
        self.looped_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Gives a packet to the card, or keeps it until the card has room; false when it was dropped for too many that wait.
    #[inline]
    pub fn transmit(&self, packet: TxPacket) -> bool {
        if self.taps.active() {
            self.tap_out(&packet, None);
        }
        self.transmit_unseen(packet)
    }

    /// The same for a packet that its taps have seen.
    pub fn transmit_unseen(&self, packet: TxPacket) -> bool {
        let Some(nic) = &self.nic else {
            return true;
        };
        let queue = crate::sync::cpu_id() % self.backlogs.len();
        let backlog = &self.backlogs[queue];
        let packet = if backlog.len.load(Ordering::Acquire) == 0 {
            match nic.transmit(queue, packet) {
                Ok(()) => return true,
                Err(packet) => packet,
            }
        } else {
            packet
        };
        let mut packets = backlog.packets.lock();
        if packets.len() >= BACKLOG {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        packets.push_back(packet);
        nic.transmit_all(queue, &mut packets);
        backlog.len.store(packets.len(), Ordering::Release);
        true
    }

    /// Sends what waited; true when some still does.
    pub fn flush(&self, queue: usize) -> bool {
        let (Some(nic), Some(backlog)) = (&self.nic, self.backlogs.get(queue)) else {
            return false;
        };
        if backlog.len.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut packets = backlog.packets.lock();
        nic.transmit_all(queue, &mut packets);
        backlog.len.store(packets.len(), Ordering::Release);
        !packets.is_empty()
    }

    /// The source for packets to `dst`: link-local to link-local, a preferred global one otherwise (RFC 6724's rules 2 and 3).
    pub fn source_for(&self, dst: IpAddr) -> Option<IpAddr> {
        let IpAddr::V6(to) = dst else {
            return self.first_addr(true);
        };
        let o = to.octets();
        let local = to.is_unicast_link_local() || to.is_multicast() && o[1] & 0xf <= 2;
        let addrs = self.addrs.read();
        let fits = |want_local: bool| {
            addrs
                .iter()
                .filter(|a| !a.tentative)
                .filter(|a| match a.cidr.addr {
                    IpAddr::V6(own) => own.is_unicast_link_local() == want_local,
                    IpAddr::V4(_) => false,
                })
                .max_by_key(|a| a.preferred_ns)
                .map(|a| a.cidr.addr)
        };
        fits(local).or_else(|| fits(!local))
    }

    /// The first IPv4 address whose network a router is in: of several, the source for what goes through it.
    pub fn source_near(&self, router: IpAddr) -> Option<IpAddr> {
        let addrs = self.addrs.read();
        addrs
            .iter()
            .find(|a| router.is_ipv4() && !a.tentative && a.cidr.contains(router))
            .map(|a| a.cidr.addr)
    }

    /// Its link-local IPv6 address, once it is nobody else's.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.addrs.read().iter().find_map(|a| match a.cidr.addr {
            IpAddr::V6(own) if own.is_unicast_link_local() && !a.tentative => Some(own),
            _ => None,
        })
    }

    /// The first address of the family of `like`, not tentative.
    pub fn first_addr(&self, ipv4: bool) -> Option<IpAddr> {
        self.addrs
            .read()
            .iter()
            .find(|a| a.cidr.addr.is_ipv4() == ipv4 && !a.tentative)
            .map(|a| a.cidr.addr)
    }

    pub fn info(&self) -> LinkInfo {
        let counters = match &self.nic {
            Some(nic) => {
                let stats = nic.stats();
                IfCounters {
                    rx_bytes: stats.rx_bytes,
                    rx_packets: stats.rx_packets,
                    rx_dropped: stats.rx_dropped,
                    tx_bytes: stats.tx_bytes,
                    tx_packets: stats.tx_packets,
                    tx_dropped: stats.tx_dropped + self.dropped.load(Ordering::Relaxed),
                    ..IfCounters::default()
                }
            }
            None => IfCounters {
                rx_bytes: self.looped_bytes.load(Ordering::Relaxed),
                rx_packets: self.looped_packets.load(Ordering::Relaxed),
                tx_bytes: self.looped_bytes.load(Ordering::Relaxed),
                tx_packets: self.looped_packets.load(Ordering::Relaxed),
                ..IfCounters::default()
            },
        };
        LinkInfo {
            index: self.index,
            name: self.name.clone(),
            mac: self.mac,
            // The loopback's at first is 64 KiB on Linux, one more than an IP packet can have.
            mtu: self.mtu() + u32::from(self.is_loopback() && self.mtu() == 65_535),
            up: self.is_up(),
            loopback: self.is_loopback(),
            carrier: self.nic.as_ref().is_none_or(|nic| nic.link_up()),
            promiscuous: self.promiscuous.load(Ordering::Relaxed) > 0,
            counters,
        }
    }
}
