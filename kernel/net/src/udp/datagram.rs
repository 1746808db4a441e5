//! A datagram as it waits in a socket: what came with it, and merging with the next (`UDP_GRO`).

use core::net::IpAddr;

use crate::ip::IpMeta;
use crate::pkt::{Payload, payload_footprint, payload_len, payload_truncate};

/// A datagram that waits to be received.
pub(crate) struct Datagram {
    pub payload: Payload,
    pub from: (IpAddr, u16),
    pub to: (IpAddr, u16),
    pub index: u32,
    pub ttl: u8,
    pub tos: u8,
    pub at: u64,
    /// Datagrams dropped before it.
    pub dropped: u32,
    /// How many datagrams are merged here, and the length of all but the last (`UDP_GRO`).
    pub merged: (u16, u16),
    /// It was looked at: without bytes, it is passed over the next time (`SO_PEEK_OFF`).
    pub peeked: bool,
    /// Bytes charged for it.
    pub cost: usize,
}

/// The most datagrams merged into one: Linux's `UDP_GRO_CNT_MAX`.
const MERGED: u16 = 64;
/// The most bytes of them.
const MERGED_BYTES: usize = 65_507;

impl Datagram {
    /// Appends `next`, if it is one more of the same size in the same flow, or a shorter last one (`UDP_GRO`); gives it
    /// back if it is not.
    pub fn merge(&mut self, next: Datagram) -> Option<Datagram> {
        let (count, size) = self.merged;
        let (held, more) = (payload_len(&self.payload), payload_len(&next.payload));
        let full = held == usize::from(count) * usize::from(size);
        let alike = (self.from, self.to, self.index, self.ttl, self.tos)
            == (next.from, next.to, next.index, next.ttl, next.tos);
        let fits = count < MERGED && held + more <= MERGED_BYTES;
        if !alike || !full || !fits || more == 0 || more > usize::from(size) {
            return Some(next);
        }
        self.payload.extend(next.payload);
        self.cost += next.cost;
        self.merged.0 += 1;
        None
    }
}

/// Which datagram of a queue byte `off` of all that waits lies in, and where (Linux's `__skb_try_recv_from_queue`).
pub(super) fn at_offset<'a>(
    queue: impl Iterator<Item = &'a Datagram>,
    mut off: usize,
) -> Option<(usize, usize)> {
    for (index, datagram) in queue.enumerate() {
        let len = payload_len(&datagram.payload);
        if off < len || off == 0 && !datagram.peeked {
            return Some((index, off));
        }
        off -= len;
    }
    None
}

/// The datagram that a packet's payload is.
pub(super) fn datagram(
    meta: &IpMeta,
    mut payload: Payload,
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    now: u64,
) -> Datagram {
    let len = payload_len(&payload);
    payload_truncate(&mut payload, len);
    // Small datagrams do not keep a whole buffer of the card.
    if payload_footprint(&payload) > 1024 + 2 * len {
        let bytes = crate::pkt::payload_to_vec(&payload);
        payload = Payload::new();
        payload.push(crate::pkt::RxData::Dense(bytes, 0));
    }
    Datagram {
        cost: payload_footprint(&payload) + 192,
        payload,
        from,
        to,
        index: meta.iface.index,
        ttl: meta.ttl,
        tos: meta.tos,
        at: now,
        dropped: 0,
        merged: (1, len as u16),
        peeked: false,
    }
}
