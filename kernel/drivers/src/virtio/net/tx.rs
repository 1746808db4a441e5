//! One transmit queue: packets into descriptors, their memory back when they are sent.

use alloc::{collections::VecDeque, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use machine::{
    dma::{DmaBuffer, DmaOut},
    mem::PAGE_SIZE,
    sync::{Once, SpinGuard, SpinLock},
};
use smallvec::SmallVec;

use super::header::{self, HEADER_LEN};
use crate::{
    nic::{GsoKind, Handler, Header, NicCaps, TxPacket, TxSegment},
    virtio::{
        queue::{DESCRIPTOR_LEN, Piece, Queue, UsedPeek},
        slots::SlotMemory,
        transport::Notifier,
    },
};

/// Bytes of DMA memory of a packet under way: the device's header and the packet's own, then an indirect table.
const SLOT_LEN: usize = 512;
const TABLE_AT: usize = HEADER_LEN + Header::CAPACITY;
/// Descriptors in the table, of which the headers take one.
const TABLE_LEN: usize = (SLOT_LEN - TABLE_AT) / DESCRIPTOR_LEN;

/// The most pieces of a packet: enough for 64 KiB in pages, with room for a few odd ends.
pub(super) const MAX_SEGMENTS: usize = TABLE_LEN - 1;

/// Up to so many descriptors go into the ring itself.
const DIRECT_MOST: usize = 3;

struct State {
    ring: Queue,
    memory: SlotMemory,
    /// Slots that are free.
    free: Vec<u16>,
    /// For each chain under way, by its head: its slot and the memory that the device reads.
    under_way: Vec<Option<(u16, SmallVec<[DmaOut; 2]>)>>,
}

/// One transmit queue.
pub(super) struct TxQueue {
    state: SpinLock<State>,
    peek: UsedPeek,
    notifier: Notifier,
    indirect: bool,
    /// Somebody wants to hear of room.
    wanted: AtomicBool,
    handler: Once<Handler>,
    pub(super) packets: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) kicks: AtomicU64,
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Added {
    /// It is in the ring, its segments with it.
    Yes,
    /// There is no room now; it is unchanged.
    Full,
    /// The device can never send it.
    Never,
}

impl TxQueue {
    pub(super) fn new(mut ring: Queue, notifier: Notifier, indirect: bool) -> TxQueue {
        ring.disable_interrupts();
        let size = usize::from(ring.size());
        let mut under_way = Vec::new();
        under_way.resize_with(size, || None);
        TxQueue {
            peek: ring.peek(),
            state: SpinLock::new(State {
                memory: SlotMemory::new(size, SLOT_LEN),
                free: Vec::with_capacity(size),
                under_way,
                ring,
            }),
            notifier,
            indirect,
            wanted: AtomicBool::new(false),
            handler: Once::new(),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            kicks: AtomicU64::new(0),
        }
    }

    /// The most packets under way.
    pub(super) fn depth(&self) -> usize {
        self.state.lock().under_way.len()
    }

    pub(super) fn set_handler(&self, handler: Handler) {
        if self.handler.set(handler).is_err() {
            log::warn!("a transmit queue has a handler already; the first stays");
        }
    }

    /// Queues one packet and tells the device. `false`: there is no room; the packet is unchanged.
    pub(super) fn transmit(&self, caps: &NicCaps, packet: &mut TxPacket) -> bool {
        let mut state = self.state.lock();
        state.reclaim();
        let taken = self.count(packet, caps, &mut state);
        self.tell(state);
        taken
    }

    /// Queues packets from the front as long as there is room, tells the device once, returns how many.
    pub(super) fn transmit_all(&self, caps: &NicCaps, packets: &mut VecDeque<TxPacket>) -> usize {
        let mut taken = 0;
        let mut state = self.state.lock();
        state.reclaim();
        while let Some(packet) = packets.front_mut() {
            if !self.count(packet, caps, &mut state) {
                break;
            }
            packets.pop_front();
            taken += 1;
        }
        self.tell(state);
        taken
    }

    /// Adds a packet and counts it. `false`: there is no room.
    fn count(&self, packet: &mut TxPacket, caps: &NicCaps, state: &mut State) -> bool {
        let len = packet.len();
        match self.add(state, packet, len, caps) {
            Added::Yes => {
                self.packets.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(len as u64, Ordering::Relaxed);
            }
            Added::Never => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Added::Full => return false,
        }
        true
    }

    /// Shows the device what was added, and tells it if it wants to be told.
    fn tell(&self, mut state: SpinGuard<'_, State>) {
        let wanted = state.ring.publish();
        drop(state);
        if wanted {
            self.kicks.fetch_add(1, Ordering::Relaxed);
            self.notifier.notify();
        }
    }

    /// Gives back the memory of sent packets; returns how many.
    pub(super) fn reclaim(&self) -> usize {
        if self.peek.any() {
            self.state.lock().reclaim()
        } else {
            0
        }
    }

    /// Runs in the interrupt: tells whoever waits for room.
    pub(super) fn interrupt(&self) -> bool {
        if !self.peek.any() || !self.wanted.swap(false, Ordering::AcqRel) {
            return false;
        }
        if let Some(handler) = self.handler.get() {
            handler();
        }
        true
    }

    fn add(&self, state: &mut State, packet: &mut TxPacket, len: usize, caps: &NicCaps) -> Added {
        if !sendable(packet, len, caps) || state.ring.is_broken() {
            return Added::Never;
        }
        // Allocated under the lock, which is a spin lock that no interrupt takes; at most once for eight packets of
        // the deepest queue so far.
        if state.free.is_empty() && state.memory.len() < state.under_way.len() {
            state.grow();
        }
        let count = packet.segments.len() + 1;
        let free = state.ring.free_count();
        let roomy = free > usize::from(state.ring.size()) / 4;
        let direct = !self.indirect || count <= DIRECT_MOST && roomy;
        if free < if direct { count } else { 1 } {
            return self.full(state);
        }
        let Some(slot) = state.free.pop() else {
            return self.full(state);
        };
        let Some((memory, at)) = state.memory.get(slot.into()) else {
            return Added::Never;
        };
        memory.write(at, &header::encode(packet.offload.as_ref()));
        memory.write(at + HEADER_LEN, &packet.header);
        let first = Piece {
            address: memory.phys() + at as u64,
            len: (HEADER_LEN + packet.header.len()) as u32,
            device_writes: false,
        };
        let mut held = SmallVec::new();
        let head = if packet.segments.is_empty() {
            state.ring.add(&[first])
        } else {
            let mut pieces: SmallVec<[Piece; 8]> = SmallVec::new();
            pieces.push(first);
            for segment in packet.segments.drain(..) {
                if segment.is_empty() {
                    continue;
                }
                let data = match segment {
                    TxSegment::Bytes(bytes, range) => DmaOut::from_bytes(bytes, range),
                    TxSegment::Frame { frame, offset, len } => {
                        DmaOut::from_frame(frame, offset as usize, len as usize)
                    }
                };
                pieces.push(Piece {
                    address: data.phys(),
                    len: data.len() as u32,
                    device_writes: false,
                });
                held.push(data);
            }
            if direct {
                state.ring.add(&pieces)
            } else {
                state.ring.add_indirect(memory, at + TABLE_AT, &pieces)
            }
        };
        match head {
            Some(head) => {
                state.under_way[usize::from(head)] = Some((slot, held));
                Added::Yes
            }
            None => {
                // Not reached: there was room. The packet is lost, its memory is not.
                held.into_iter().for_each(DmaOut::complete);
                state.free.push(slot);
                Added::Never
            }
        }
    }

    /// Asks for an interrupt when there is room for a good number of packets, and looks again whether there is.
    fn full(&self, state: &mut State) -> Added {
        if state.ring.free_count() == usize::from(state.ring.size()) {
            // Even the empty ring is too small, or there is no memory for a slot.
            return Added::Never;
        }
        self.wanted.store(true, Ordering::Release);
        // What was added and not published yet would never be used: the interrupt would never come.
        if state.ring.publish() {
            self.kicks.fetch_add(1, Ordering::Relaxed);
            self.notifier.notify();
        }
        let after = (state.ring.in_flight() / 2).max(1);
        if state.ring.enable_interrupts(after) {
            // That many came back in the meantime: no interrupt is sure to come, so the handler is told now.
            if self.wanted.swap(false, Ordering::AcqRel)
                && let Some(handler) = self.handler.get()
            {
                handler();
            }
        }
        Added::Full
    }
}

impl State {
    fn grow(&mut self) {
        if let Ok(page) = DmaBuffer::new(PAGE_SIZE) {
            let from = self.memory.len();
            self.memory.grow(page);
            let to = self.memory.len().min(self.under_way.len());
            self.free.extend((from as u16..to as u16).rev());
        }
    }

    fn reclaim(&mut self) -> usize {
        let mut count = 0;
        while let Ok(Some((head, _))) = self.ring.take() {
            if let Some((slot, held)) = self.under_way[usize::from(head)].take() {
                held.into_iter().for_each(DmaOut::complete);
                self.free.push(slot);
            }
            count += 1;
        }
        count
    }
}

/// Whether a card with these capabilities can send the packet.
fn sendable(packet: &TxPacket, len: usize, caps: &NicCaps) -> bool {
    let pieces = packet.segments.len() <= caps.max_segments
        && packet.segments.iter().all(|segment| match segment {
            TxSegment::Bytes(bytes, range) => range.start <= range.end && range.end <= bytes.len(),
            TxSegment::Frame { offset, len, .. } => {
                u64::from(*offset) + u64::from(*len) <= PAGE_SIZE as u64
            }
        });
    let offload = packet.offload.is_none_or(|offload| {
        let end = usize::from(offload.csum_start) + usize::from(offload.csum_offset) + 2;
        let cut = offload.gso.is_none_or(|gso| {
            let able = match gso.kind {
                GsoKind::Tcp4 => caps.tso4,
                GsoKind::Tcp6 => caps.tso6,
                GsoKind::Udp => caps.uso,
            };
            able && gso.segment_size > 0
                && (!gso.ecn || caps.tso_ecn)
                && usize::from(gso.header_len) <= len
        });
        caps.tx_csum && end <= len && cut
    });
    let limit = match packet.offload.and_then(|offload| offload.gso) {
        Some(_) => caps.max_gso_size as usize,
        None => MAX_PLAIN,
    };
    pieces && offload && (MIN_FRAME..=limit).contains(&len)
}

/// An Ethernet header.
const MIN_FRAME: usize = 14;
/// The largest packet that is not to be cut: the largest MTU and an Ethernet header with a VLAN tag.
const MAX_PLAIN: usize = 65535 + 18;
