//! One receive queue: empty buffers out, packets in.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use machine::{
    dma::DmaIn,
    mem,
    sync::{Once, SpinLock},
};
use smallvec::SmallVec;

use super::header::{self, HEADER_LEN};
use crate::{
    nic::{BufferPool, Handler, RxBuffer, RxPacket},
    virtio::{
        queue::{Piece, Queue, UsedPeek},
        transport::Notifier,
    },
};

/// Bytes of a buffer: a packet of the usual MTU, its header, and a slab class of the kernel's heap.
pub(super) const BUFFER_LEN: usize = 2048;

/// Buffers that are out at first, without and with packets of 64 KiB. Twice as many as soon as half of them were used
/// by the time the queue is polled, up to the size of the ring: memory and start-up time follow the load.
const FIRST_FILL: usize = 16;
const FIRST_FILL_LARGE: usize = 2 * MAX_MERGED;

/// Packets taken in one go: the lock is not held while they are delivered.
const BATCH: usize = 16;

/// The most buffers of one packet: 64 KiB and its headers.
const MAX_MERGED: usize = 64 * 1024 / BUFFER_LEN + 2;

struct State {
    ring: Queue,
    /// The buffers that the device has, by their descriptor.
    out: Vec<Option<DmaIn>>,
    /// How many buffers are to be out.
    target: usize,
    /// A packet of which buffers are still to come, and how many.
    partial: Option<(RxPacket, u16)>,
    /// Buffers to pass over: the rest of a packet that was dropped.
    skip: u16,
}

/// One receive queue.
pub(super) struct RxQueue {
    state: SpinLock<State>,
    pool: Arc<BufferPool>,
    peek: UsedPeek,
    notifier: Notifier,
    merge: bool,
    /// Interrupts were asked for and none has come yet.
    armed: AtomicBool,
    handler: Once<Handler>,
    pub(super) packets: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) kicks: AtomicU64,
}

/// Unused buffers that are kept: what a receive queue of some MiB gives back in one go is wanted again at once, and to
/// allocate and clear it anew would be a quarter of all instructions. At most a 64th of the machine's memory, if that is
/// more than the ring holds twice.
fn unused_most(size: usize) -> usize {
    let share = mem::stats().total / 64 * (mem::PAGE_SIZE / BUFFER_LEN);
    share.clamp(2 * size, 8 * size)
}

impl RxQueue {
    pub(super) fn new(mut ring: Queue, notifier: Notifier, merge: bool, large: bool) -> RxQueue {
        ring.disable_interrupts();
        let size = usize::from(ring.size());
        let mut out = Vec::new();
        out.resize_with(size, || None);
        RxQueue {
            pool: BufferPool::new(BUFFER_LEN, unused_most(size)),
            peek: ring.peek(),
            state: SpinLock::new(State {
                out,
                target: size.min(if large { FIRST_FILL_LARGE } else { FIRST_FILL }),
                partial: None,
                skip: 0,
                ring,
            }),
            notifier,
            merge,
            armed: AtomicBool::new(false),
            handler: Once::new(),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            kicks: AtomicU64::new(0),
        }
    }

    pub(super) fn set_handler(&self, handler: Handler) {
        if self.handler.set(handler).is_err() {
            log::warn!("a receive queue has a handler already; the first stays");
        }
    }

    /// Hands out buffers until enough are out. Once the device runs, this notifies it.
    pub(super) fn fill(&self) {
        let kick = {
            let mut state = self.state.lock();
            self.refill(&mut state);
            state.ring.publish()
        };
        self.kick(kick);
    }

    fn kick(&self, wanted: bool) {
        if wanted {
            self.kicks.fetch_add(1, Ordering::Relaxed);
            self.notifier.notify();
        }
    }

    fn refill(&self, state: &mut State) {
        let size = usize::from(state.ring.size());
        while size - state.ring.free_count() < state.target {
            let Some(buffer) = self.pool.take() else {
                break;
            };
            let room = DmaIn::from_box(buffer);
            let piece = Piece {
                address: room.phys(),
                len: room.len() as u32,
                device_writes: true,
            };
            match state.ring.add(&[piece]) {
                Some(head) => state.out[usize::from(head)] = Some(room),
                None => {
                    if let Some(buffer) = room.into_box() {
                        self.pool.give(buffer);
                    }
                    break;
                }
            }
        }
    }

    /// Takes up to `budget` packets.
    pub(super) fn receive(&self, budget: usize, deliver: &mut dyn FnMut(RxPacket)) -> usize {
        let mut total = 0;
        let waiting = usize::from(self.peek.count());
        if waiting > 0 {
            let mut state = self.state.lock();
            if waiting >= state.target / 2 {
                state.target = state.out.len().min(2 * state.target);
            }
        }
        while total < budget && self.peek.any() {
            let mut batch: SmallVec<[RxPacket; BATCH]> = SmallVec::new();
            let most = BATCH.min(budget - total);
            let kick = {
                let mut state = self.state.lock();
                while batch.len() < most {
                    match self.next_packet(&mut state) {
                        Some(packet) => batch.push(packet),
                        None => break,
                    }
                }
                self.refill(&mut state);
                state.ring.publish()
            };
            self.kick(kick);
            if batch.is_empty() {
                // Nothing but dropped packets, or a broken device.
                break;
            }
            total += batch.len();
            let bytes: usize = batch.iter().map(RxPacket::len).sum();
            self.packets
                .fetch_add(batch.len() as u64, Ordering::Relaxed);
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            batch.into_iter().for_each(&mut *deliver);
        }
        total
    }

    /// Takes the next whole packet; malformed ones are counted and passed over.
    fn next_packet(&self, state: &mut State) -> Option<RxPacket> {
        loop {
            let (head, len) = state.ring.take().ok()??;
            let buffer = state.out[usize::from(head)].take()?.into_box()?;
            let len = len as usize;
            if state.skip > 0 {
                state.skip -= 1;
                self.pool.give(buffer);
                continue;
            }
            let finished = match state.partial.take() {
                None => self.first_buffer(state, buffer, len),
                Some((mut packet, missing)) => {
                    let rest = RxBuffer::pooled(buffer, 0..len, self.pool.clone());
                    packet.rest.push(rest);
                    if missing > 1 {
                        state.partial = Some((packet, missing - 1));
                        None
                    } else {
                        Some(packet)
                    }
                }
            };
            if finished.is_some() {
                return finished;
            }
        }
    }

    /// The first buffer of a packet: header, then data.
    fn first_buffer(&self, state: &mut State, buffer: Box<[u8]>, len: usize) -> Option<RxPacket> {
        let bytes = &buffer[..len.min(buffer.len())];
        let header = bytes.first_chunk::<HEADER_LEN>();
        // The packet's full length is known only when its last buffer is here: the header's offsets must lie in the
        // first, as a device puts them.
        let parsed = header.and_then(|header| header::decode(header, bytes.len() - HEADER_LEN));
        let announced = match (header, self.merge) {
            (Some(header), true) => u16::from_le_bytes([header[10], header[11]]).max(1),
            _ => 1,
        };
        let data = HEADER_LEN..bytes.len();
        let packet = match parsed {
            Some(received) if data.len() >= 14 && usize::from(announced) <= MAX_MERGED => {
                RxPacket {
                    checksum: received.checksum,
                    gso: received.gso,
                    rest: Vec::new(),
                    first: RxBuffer::pooled(buffer, data, self.pool.clone()),
                }
            }
            _ => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                state.skip = announced - 1;
                self.pool.give(buffer);
                return None;
            }
        };
        if announced == 1 {
            return Some(packet);
        }
        let mut packet = packet;
        packet.rest.reserve_exact(usize::from(announced) - 1);
        state.partial = Some((packet, announced - 1));
        None
    }

    /// See [`crate::nic::Nic::enable_interrupts`].
    pub(super) fn enable_interrupts(&self) -> bool {
        self.armed.store(true, Ordering::Release);
        let pending = self.state.lock().ring.enable_interrupts(1);
        if pending {
            self.armed.store(false, Ordering::Release);
        }
        pending
    }

    /// Runs in the interrupt: tells the poller, once for each time that interrupts were asked for.
    pub(super) fn interrupt(&self) -> bool {
        if !self.peek.any() {
            return false;
        }
        self.tell();
        true
    }

    fn tell(&self) {
        if self.armed.swap(false, Ordering::AcqRel)
            && let Some(handler) = self.handler.get()
        {
            handler();
        }
    }

    /// See [`crate::nic::Nic::begin_looking`].
    pub(super) fn begin_looking(&self) {
        // Not armed, the poller is at work, and interrupts are off anyway.
        if self.armed.load(Ordering::Acquire) {
            self.state.lock().ring.disable_interrupts();
        }
    }

    /// See [`crate::nic::Nic::look`].
    pub(super) fn look(&self) -> bool {
        let found = self.peek.any() && self.armed.load(Ordering::Acquire);
        if found {
            self.tell();
        }
        found
    }

    /// See [`crate::nic::Nic::end_looking`].
    pub(super) fn end_looking(&self) {
        // If the poller is told meanwhile, an interrupt too many comes, which tells nobody.
        if self.armed.load(Ordering::Acquire) && self.state.lock().ring.enable_interrupts(1) {
            self.tell();
        }
    }
}
