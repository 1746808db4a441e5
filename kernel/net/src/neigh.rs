//! The neighbour cache: which hardware address has a next hop, with the states of RFC 4861 §7.3 for
//! ARP and neighbour discovery alike. A connection keeps a handle of its neighbour, so that a packet
//! finds its hardware address with one load. What asks on the link is `arp` and `ndisc`.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;

use crate::nic::TxPacket;
use crate::query::{NeighbourInfo, NeighbourState};
use crate::sync::{RwSpinLock, SpinLock};

const SECOND: u64 = 1_000_000_000;
/// How long a confirmation holds (`base_reachable_time`).
const REACHABLE_NS: u64 = 30 * SECOND;
/// From first use while stale to the first probe (`delay_first_probe_time`).
const DELAY_NS: u64 = 5 * SECOND;
/// Between probes (`retrans_time`).
pub(crate) const PROBE_NS: u64 = SECOND;
/// Probes before it counts as failed (`ucast_solicit`, `mcast_solicit`).
const PROBES: u32 = 3;
/// Memory of the packets that wait for one answer (`unres_qlen_bytes`).
const PENDING_BYTES: usize = 212_992;
/// What a packet takes besides its bytes.
const PACKET_COST: usize = size_of::<TxPacket>() + 64;
/// A failed or unused entry goes after this.
const FORGET_NS: u64 = 60 * SECOND;

/// A next hop on one interface.
pub(crate) struct Neighbour {
    pub addr: IpAddr,
    pub index: u32,
    /// Hardware address in the upper 48 bits, state in the lower 16: one load tells both.
    link: AtomicU64,
    slow: SpinLock<Slow>,
}

struct Slow {
    /// When the state was entered or last confirmed.
    since_ns: u64,
    used_ns: u64,
    probes: u32,
    next_probe_ns: u64,
    pending: VecDeque<TxPacket>,
    pending_bytes: usize,
}

impl Slow {
    /// Keeps a packet; the oldest make way.
    fn keep(&mut self, packet: TxPacket) {
        let cost = packet.len() + PACKET_COST;
        while self.pending_bytes + cost > PENDING_BYTES
            && let Some(oldest) = self.pending.pop_front()
        {
            self.pending_bytes -= oldest.len() + PACKET_COST;
        }
        self.pending_bytes += cost;
        self.pending.push_back(packet);
    }

    fn release(&mut self) -> VecDeque<TxPacket> {
        self.pending_bytes = 0;
        core::mem::take(&mut self.pending)
    }
}

/// What to do for a neighbour now.
pub(crate) enum Probe {
    /// Ask everybody on the link.
    Broadcast,
    /// Ask the one we believe it is.
    Unicast([u8; 6]),
}

impl Neighbour {
    fn new(addr: IpAddr, index: u32, now: u64) -> Neighbour {
        Neighbour {
            addr,
            index,
            link: AtomicU64::new(0),
            slow: SpinLock::new(Slow {
                since_ns: now,
                used_ns: now,
                probes: 0,
                next_probe_ns: u64::MAX,
                pending: VecDeque::new(),
                pending_bytes: 0,
            }),
        }
    }

    fn set(&self, mac: Option<[u8; 6]>, state: NeighbourState) {
        let mut word = state as u64;
        if let Some(m) = mac {
            word |= u64::from_be_bytes([m[0], m[1], m[2], m[3], m[4], m[5], 0, 0]);
        }
        self.link.store(word, Ordering::Release);
    }

    /// State and hardware address.
    pub fn get(&self) -> (u16, [u8; 6]) {
        let word = self.link.load(Ordering::Acquire);
        let b = word.to_be_bytes();
        (word as u16, [b[0], b[1], b[2], b[3], b[4], b[5]])
    }

    /// The hardware address if a packet can go there with no further ado.
    #[inline]
    pub fn fast(&self) -> Option<[u8; 6]> {
        let word = self.link.load(Ordering::Acquire);
        if word as u16
            & (NeighbourState::Reachable as u16
                | NeighbourState::Permanent as u16
                | NeighbourState::Delay as u16
                | NeighbourState::Probe as u16)
            == 0
        {
            return None;
        }
        let b = word.to_be_bytes();
        Some([b[0], b[1], b[2], b[3], b[4], b[5]])
    }

    /// For a packet when [`Neighbour::fast`] has no answer: the address after all (it was stale), or the
    /// packet is kept until there is one. The second value asks the caller to probe now.
    pub fn slow(&self, now: u64, packet: TxPacket) -> (Option<([u8; 6], TxPacket)>, bool) {
        let mut slow = self.slow.lock();
        slow.used_ns = now;
        let (state, mac) = self.get();
        if state & NeighbourState::Stale as u16 != 0 {
            self.set(Some(mac), NeighbourState::Delay);
            slow.since_ns = now;
            slow.probes = 0;
            slow.next_probe_ns = now + DELAY_NS;
            return (Some((mac, packet)), false);
        }
        if let Some(mac) = self.fast() {
            return (Some((mac, packet)), false);
        }
        slow.keep(packet);
        if state == NeighbourState::Incomplete as u16 {
            return (None, false);
        }
        // New or failed: ask (again).
        self.set(None, NeighbourState::Incomplete);
        slow.since_ns = now;
        slow.probes = 1;
        slow.next_probe_ns = now + PROBE_NS;
        (None, true)
    }

    /// News from the link: `confirmed` when it answered us, else it only spoke of itself.
    /// Returns the packets that waited.
    pub fn learn(&self, mac: [u8; 6], confirmed: bool, now: u64) -> VecDeque<TxPacket> {
        let mut slow = self.slow.lock();
        let (state, old) = self.get();
        if state == NeighbourState::Permanent as u16 {
            return VecDeque::new();
        }
        let state = if confirmed {
            NeighbourState::Reachable
        } else if old == mac && state == NeighbourState::Reachable as u16 {
            return VecDeque::new();
        } else {
            NeighbourState::Stale
        };
        self.set(Some(mac), state);
        slow.since_ns = now;
        slow.probes = 0;
        slow.next_probe_ns = u64::MAX;
        slow.release()
    }

    /// A layer above heard from it (an acknowledgement that moved the window).
    pub fn confirm(&self, now: u64) {
        let (state, mac) = self.get();
        if state
            & (NeighbourState::Stale as u16
                | NeighbourState::Delay as u16
                | NeighbourState::Probe as u16)
            != 0
        {
            let mut slow = self.slow.lock();
            self.set(Some(mac), NeighbourState::Reachable);
            slow.since_ns = now;
            slow.next_probe_ns = u64::MAX;
        }
    }

    /// Moves the state on with time. Returns a probe to send, packets that are given up, and whether the entry can go.
    fn age(&self, now: u64) -> (Option<Probe>, VecDeque<TxPacket>, bool) {
        let mut slow = self.slow.lock();
        let (state, mac) = self.get();
        let none = VecDeque::new();
        if state == NeighbourState::Permanent as u16 {
            return (None, none, false);
        }
        if state == NeighbourState::Reachable as u16 {
            if now.saturating_sub(slow.since_ns) >= REACHABLE_NS {
                self.set(Some(mac), NeighbourState::Stale);
                slow.since_ns = now;
            }
            return (None, none, false);
        }
        if state == NeighbourState::Stale as u16 || state == NeighbourState::Failed as u16 {
            let gone = now.saturating_sub(slow.since_ns.max(slow.used_ns)) >= FORGET_NS;
            return (None, none, gone);
        }
        if now < slow.next_probe_ns {
            return (None, none, false);
        }
        let unicast = state != NeighbourState::Incomplete as u16;
        if slow.probes >= PROBES {
            self.set(None, NeighbourState::Failed);
            slow.since_ns = now;
            slow.next_probe_ns = u64::MAX;
            return (None, slow.release(), false);
        }
        slow.probes += 1;
        slow.next_probe_ns = now + PROBE_NS;
        if unicast {
            self.set(Some(mac), NeighbourState::Probe);
            (Some(Probe::Unicast(mac)), none, false)
        } else {
            (Some(Probe::Broadcast), none, false)
        }
    }

    fn wants_time(&self) -> bool {
        let (state, _) = self.get();
        state != NeighbourState::Permanent as u16
    }

    pub fn info(&self) -> NeighbourInfo {
        let (state, mac) = self.get();
        let state = match state {
            0x02 => NeighbourState::Reachable,
            0x04 => NeighbourState::Stale,
            0x08 => NeighbourState::Delay,
            0x10 => NeighbourState::Probe,
            0x20 => NeighbourState::Failed,
            0x80 => NeighbourState::Permanent,
            _ => NeighbourState::Incomplete,
        };
        let known = !matches!(state, NeighbourState::Incomplete | NeighbourState::Failed);
        NeighbourInfo {
            index: self.index,
            addr: self.addr,
            mac: known.then_some(mac),
            state,
        }
    }
}

/// All neighbours of an engine.
pub(crate) struct Neighbours {
    table: RwSpinLock<Table>,
    limit: usize,
}

type Table = HashMap<(u32, IpAddr), Arc<Neighbour>, crate::flow::KeyedState>;

/// Forgets an eighth of the entries at once, so that a flood of new ones costs each of them little: those
/// that nobody can miss, longest unused first.
fn make_room(table: &mut Table) {
    let mut all: Vec<_> = table
        .iter()
        .filter(|(_, n)| n.get().0 != NeighbourState::Permanent as u16)
        .map(|(key, n)| {
            let alive = NeighbourState::Reachable as u16 | NeighbourState::Delay as u16;
            ((n.get().0 & alive, n.slow.lock().used_ns), *key)
        })
        .collect();
    let count = table.len() / 8 + 1;
    if count < all.len() {
        all.select_nth_unstable_by_key(count, |(rank, _)| *rank);
    }
    for (_, key) in all.iter().take(count) {
        if let Some(entry) = table.remove(key) {
            // A connection may still hold the handle: it asks anew through it, so it must not look alive.
            entry.set(None, NeighbourState::Failed);
        }
    }
}

/// What a turn of the clock asks for.
#[derive(Default)]
pub(crate) struct Aged {
    pub probes: Vec<(Arc<Neighbour>, Probe)>,
    pub given_up: Vec<(Arc<Neighbour>, VecDeque<TxPacket>)>,
    pub again: bool,
}

impl Neighbours {
    pub fn new(limit: usize, hasher: crate::flow::KeyedState) -> Neighbours {
        Neighbours {
            table: RwSpinLock::new(HashMap::with_hasher(hasher)),
            limit,
        }
    }

    pub fn find(&self, index: u32, addr: IpAddr) -> Option<Arc<Neighbour>> {
        self.table.read().get(&(index, addr)).cloned()
    }

    /// The entry for a next hop, made if need be; at the limit, others make way.
    pub fn entry(&self, index: u32, addr: IpAddr, now: u64) -> Arc<Neighbour> {
        if let Some(found) = self.find(index, addr) {
            return found;
        }
        let mut table = self.table.write();
        if table.len() >= self.limit {
            make_room(&mut table);
        }
        table
            .entry((index, addr))
            .or_insert_with(|| Arc::new(Neighbour::new(addr, index, now)))
            .clone()
    }

    /// Sets an entry by hand.
    pub fn set_permanent(
        &self,
        index: u32,
        addr: IpAddr,
        mac: [u8; 6],
        now: u64,
    ) -> VecDeque<TxPacket> {
        let entry = self.entry(index, addr, now);
        let waiting = entry.learn(mac, true, now);
        entry.set(Some(mac), NeighbourState::Permanent);
        waiting
    }

    /// Removes an entry; handles of it fall back to asking again.
    pub fn remove(&self, index: u32, addr: IpAddr) -> bool {
        match self.table.write().remove(&(index, addr)) {
            Some(entry) => {
                entry.set(None, NeighbourState::Failed);
                true
            }
            None => false,
        }
    }

    /// Moves all entries on with time; the caller sends the probes and reports the packets given up.
    pub fn age(&self, now: u64) -> Aged {
        let entries: Vec<Arc<Neighbour>> = self.table.read().values().cloned().collect();
        let mut aged = Aged::default();
        for entry in entries {
            let (probe, dropped, gone) = entry.age(now);
            aged.again |= entry.wants_time();
            if let Some(probe) = probe {
                aged.probes.push((entry.clone(), probe));
            }
            if gone {
                self.table.write().remove(&(entry.index, entry.addr));
                // A connection may still hold the handle: it asks anew through it, so it must not look alive.
                entry.set(None, NeighbourState::Failed);
            }
            if !dropped.is_empty() {
                aged.given_up.push((entry, dropped));
            }
        }
        aged
    }

    pub fn list(&self) -> Vec<NeighbourInfo> {
        self.table.read().values().map(|n| n.info()).collect()
    }
}
