//! IP fragments: putting them together within bounds of memory and time, and cutting datagrams that are
//! too large for the path. Fragments that overlap end their datagram (RFC 5722; Linux does so for IPv4 too).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::checksum::Sum;
use crate::flow::KeyedState;
use crate::iface::ETH;
use crate::ip::{IpMeta, IpOut, proto};
use crate::nic::Header;
use crate::pkt::InPacket;
use crate::route::Dst;
use crate::stack::Stack;

/// How long a datagram may take to arrive (`ipfrag_time`).
pub(crate) const TIMEOUT_NS: u64 = 30_000_000_000;
/// Fragments of one datagram; more than the smallest MTU would make.
const PARTS: usize = 128;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    ident: u32,
}

struct Partial {
    parts: Vec<(usize, Vec<u8>)>,
    /// The datagram's length, once its last fragment is here.
    total: Option<usize>,
    have: usize,
    cost: usize,
    expires: u64,
    number: u64,
    tos: u8,
    ttl: u8,
}

/// What became of a fragment.
#[derive(Default)]
pub(crate) struct Added {
    /// The whole datagram, from its Ethernet header on, when this completed it.
    pub whole: Option<Vec<u8>>,
    /// Datagrams given up.
    pub failed: usize,
    /// It overlapped another, for which its datagram was given up.
    pub overlap: bool,
}

/// Datagrams of which parts have arrived.
pub(crate) struct Fragments {
    table: HashMap<Key, Partial, KeyedState>,
    /// Datagrams in the order in which they began; some of them are gone already.
    order: VecDeque<(u64, Key)>,
    limit: usize,
    cost: usize,
    next: u64,
}

impl Fragments {
    pub fn new(limit: usize, hasher: KeyedState) -> Fragments {
        Fragments {
            table: HashMap::with_hasher(hasher),
            order: VecDeque::new(),
            limit,
            cost: 0,
            next: 0,
        }
    }

    /// Adds a fragment.
    pub fn add(
        &mut self,
        meta: &IpMeta,
        offset: usize,
        more: bool,
        ident: u32,
        packet: InPacket,
        now: u64,
    ) -> Added {
        let key = Key {
            src: meta.src,
            dst: meta.dst,
            proto: meta.proto,
            ident,
        };
        let bytes = packet.to_vec().split_off(meta.l4.min(packet.len()));
        let end = offset + bytes.len();
        // All but the last are multiples of eight bytes, none is empty, and the whole fits in a packet.
        if bytes.is_empty() || more && !bytes.len().is_multiple_of(8) || end > most(meta.dst) {
            let failed = usize::from(self.give_up(&key));
            return Added {
                failed,
                ..Added::default()
            };
        }
        let cost = bytes.len() + 128;
        let mut added = Added::default();
        while self.cost + cost > self.limit {
            let Some((number, oldest)) = self.order.pop_front() else {
                added.failed += 1;
                return added;
            };
            if self.table.get(&oldest).is_some_and(|p| p.number == number) {
                self.give_up(&oldest);
                added.failed += 1;
            }
        }
        let partial = match self.table.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let number = self.next;
                self.next += 1;
                self.order.push_back((number, key));
                entry.insert(Partial {
                    parts: Vec::new(),
                    total: None,
                    have: 0,
                    cost: 0,
                    expires: now + TIMEOUT_NS,
                    number,
                    tos: meta.tos,
                    ttl: meta.ttl,
                })
            }
        };
        let at = partial.parts.partition_point(|(o, _)| *o < offset);
        // The same fragment twice is the network's doing, an overlap is an attack.
        if partial
            .parts
            .get(at)
            .is_some_and(|(o, b)| *o == offset && *b == bytes)
        {
            return added;
        }
        let before = at.checked_sub(1).and_then(|i| partial.parts.get(i));
        added.overlap = before.is_some_and(|(o, b)| o + b.len() > offset)
            || partial.parts.get(at).is_some_and(|(o, _)| *o < end);
        let wrong_end = partial
            .total
            .is_some_and(|total| end > total || !more && end != total)
            || !more && partial.parts.last().is_some_and(|(o, b)| o + b.len() > end);
        if added.overlap || wrong_end || partial.parts.len() >= PARTS {
            self.give_up(&key);
            added.failed += 1;
            return added;
        }
        partial.have += bytes.len();
        partial.cost += cost;
        self.cost += cost;
        // Any fragment's congestion mark is the datagram's.
        if meta.tos & 3 == 3 {
            partial.tos |= 3;
        }
        partial.parts.insert(at, (offset, bytes));
        if !more {
            partial.total = Some(end);
        }
        if partial.total != Some(partial.have) {
            return added;
        }
        let Some(partial) = self.table.remove(&key) else {
            return added;
        };
        self.tidy();
        self.cost -= partial.cost;
        let out = IpOut {
            src: meta.src,
            dst: meta.dst,
            proto: meta.proto,
            ttl: partial.ttl,
            tos: partial.tos,
            df: false,
            ident: ident as u16,
        };
        let mut header = Header::new();
        out.emit(&mut header, partial.have);
        let mut whole = Vec::with_capacity(header.len() + partial.have);
        whole.extend_from_slice(&header);
        for (_, bytes) in &partial.parts {
            whole.extend_from_slice(bytes);
        }
        added.whole = Some(whole);
        added
    }

    /// Bytes held, overhead included.
    pub fn held(&self) -> usize {
        self.cost
    }

    /// Datagrams of which parts are here, and the memory they take.
    pub fn counts(&self) -> (usize, usize) {
        (self.table.len(), self.cost)
    }

    fn give_up(&mut self, key: &Key) -> bool {
        self.tidy();
        match self.table.remove(key) {
            Some(partial) => {
                self.cost -= partial.cost;
                true
            }
            None => false,
        }
    }

    /// Forgets the places of datagrams that are gone, once they are the greater part.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.table.len() + 16 {
            let table = &self.table;
            self.order
                .retain(|(number, key)| table.get(key).is_some_and(|p| p.number == *number));
        }
    }

    /// Gives up what took too long; returns how many of IPv4 and of IPv6, and when to look again.
    pub fn expire(&mut self, now: u64) -> ([usize; 2], Option<u64>) {
        let mut failed = [0; 2];
        let mut freed = 0;
        self.table.retain(|key, partial| {
            let keep = partial.expires > now;
            if !keep {
                failed[usize::from(key.dst.is_ipv6())] += 1;
                freed += partial.cost;
            }
            keep
        });
        self.cost -= freed;
        self.tidy();
        (failed, self.table.values().map(|p| p.expires).min())
    }
}

/// The most bytes a datagram to `dst` can have after its IP header, or IPv6 after its fixed header.
fn most(dst: IpAddr) -> usize {
    if dst.is_ipv4() { 65_535 - 20 } else { 65_535 }
}

/// Sends a datagram (transport header and data in `bytes`) in fragments.
pub(crate) fn send(stack: &Stack, dst: &Dst, out: &IpOut, bytes: &[u8], now: u64) {
    let v4 = out.dst.is_ipv4();
    let ident = if v4 {
        u32::from(out.ident)
    } else {
        stack.random() as u32
    };
    let counters = stack.counters();
    let (requests, oks, fails, creates) = if v4 {
        (
            &counters.ip_out_requests,
            &counters.ip_frag_oks,
            &counters.ip_frag_fails,
            &counters.ip_frag_creates,
        )
    } else {
        (
            &counters.ip6_out_requests,
            &counters.ip6_frag_oks,
            &counters.ip6_frag_fails,
            &counters.ip6_frag_creates,
        )
    };
    requests.bump();
    let room = (dst.mtu as usize).saturating_sub(if v4 { 20 } else { 48 }) / 8 * 8;
    if room == 0 || bytes.len() > most(out.dst) {
        fails.bump();
        return;
    }
    let count = bytes.len().div_ceil(room);
    for (i, piece) in bytes.chunks(room).enumerate() {
        let more = i + 1 < count;
        let offset = i * room;
        let mut header = Header::new();
        if v4 {
            out.emit(&mut header, piece.len());
            let word = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
            if let Some(ip) = header.get_mut(ETH..ETH + 20) {
                ip[6..8].copy_from_slice(&word.to_be_bytes());
                ip[10..12].fill(0);
                let sum = Sum::default().bytes(ip).finish();
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
            }
        } else {
            let outer = IpOut {
                proto: proto::FRAGMENT,
                ..*out
            };
            outer.emit(&mut header, piece.len() + 8);
            let word = offset as u16 | u16::from(more);
            let mut extension = [out.proto, 0, 0, 0, 0, 0, 0, 0];
            extension[2..4].copy_from_slice(&word.to_be_bytes());
            extension[4..8].copy_from_slice(&ident.to_be_bytes());
            header.extend_from_slice(&extension);
        }
        creates.bump();
        if !stack.output_fragment(dst, crate::icmp::with_payload(header, piece), now) {
            // Without this one the others are of no use.
            fails.bump();
            return;
        }
    }
    oks.bump();
}
