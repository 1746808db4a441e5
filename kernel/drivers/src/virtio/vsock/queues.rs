//! The three queues of a virtio socket device: what is out, what comes back, and whose memory it is.

use alloc::{boxed::Box, vec::Vec};

use machine::dma::{DmaIn, DmaOut};

use crate::{
    virtio::{
        SetupError,
        queue::{Piece, Queue},
    },
    vsock::HEADER_LEN,
};

/// Data bytes of a receive buffer, as Linux's.
const RX_DATA: usize = 4096;
/// Packets up to this length are copied out, so that few bytes do not keep a whole buffer.
const COPIED: usize = 1024;
/// Bytes of an event (virtio 1.2, 5.10.6.7).
const EVENT_LEN: usize = 4;
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`.
const EVENT_RESET: u32 = 0;

fn piece(address: u64, len: usize, device_writes: bool) -> Piece {
    Piece {
        address,
        len: len as u32,
        device_writes,
    }
}

/// Empty buffers out, packets in.
pub(super) struct Rx {
    ring: Queue,
    /// By the head of their chain.
    out: Vec<Option<DmaIn>>,
    spare: Vec<Box<[u8]>>,
}

impl Rx {
    pub(super) fn new(mut ring: Queue) -> Rx {
        ring.enable_interrupts(1);
        let mut out = Vec::new();
        out.resize_with(ring.size().into(), || None);
        Rx {
            ring,
            out,
            spare: Vec::new(),
        }
    }

    /// Hands out buffers as long as there are descriptors; whether the device wants to be told.
    pub(super) fn refill(&mut self) -> bool {
        while self.ring.free_count() >= 2 {
            let buffer = self
                .spare
                .pop()
                .unwrap_or_else(|| alloc::vec![0; HEADER_LEN + RX_DATA].into());
            let room = DmaIn::from_box(buffer);
            let pieces = [
                piece(room.phys(), HEADER_LEN, true),
                piece(room.phys() + HEADER_LEN as u64, RX_DATA, true),
            ];
            let Some(head) = self.ring.add(&pieces) else {
                room.complete();
                break;
            };
            self.out[usize::from(head)] = Some(room);
        }
        self.ring.publish()
    }

    /// The next packet, and how many of the bytes it has. One shorter than its header is dropped.
    pub(super) fn take(&mut self) -> Option<(Box<[u8]>, usize)> {
        loop {
            let (head, len) = self.ring.take().ok()??;
            let buffer = self.out[usize::from(head)].take()?.into_box()?;
            let len = (len as usize).min(buffer.len());
            if len > HEADER_LEN + COPIED {
                return Some((buffer, len));
            }
            let packet = (len >= HEADER_LEN).then(|| (Box::from(&buffer[..len]), len));
            self.spare.push(buffer);
            if packet.is_some() {
                return packet;
            }
        }
    }

    /// Asks for an interrupt at the next packet; whether there is one already.
    pub(super) fn enable_interrupts(&mut self) -> bool {
        !self.ring.is_broken() && self.ring.enable_interrupts(1)
    }
}

/// Packets out.
pub(super) struct Tx {
    ring: Queue,
    /// By the head of their chain.
    out: Vec<Option<DmaOut>>,
}

impl Tx {
    pub(super) fn new(mut ring: Queue) -> Tx {
        ring.disable_interrupts();
        let mut out = Vec::new();
        out.resize_with(ring.size().into(), || None);
        Tx { ring, out }
    }

    fn reclaim(&mut self) {
        while let Ok(Some((head, _))) = self.ring.take() {
            if let Some(sent) = self.out[usize::from(head)].take() {
                sent.complete();
            }
        }
    }

    /// Adds a packet; gives it back when there is no room, and has the device interrupt when there is.
    pub(super) fn add(&mut self, packet: Box<[u8]>) -> Result<(), Box<[u8]>> {
        self.reclaim();
        if self.ring.is_broken() {
            // Nothing will ever be sent again: the packet is lost, as on a cut wire.
            return Ok(());
        }
        if self.ring.free_count() < 2 {
            let after = (self.ring.in_flight() / 2).max(1);
            if !self.ring.enable_interrupts(after) {
                return Err(packet);
            }
            self.reclaim();
            if self.ring.free_count() < 2 {
                return Err(packet);
            }
        }
        self.ring.disable_interrupts();
        let len = packet.len();
        let memory = DmaOut::from_box(packet);
        let header = piece(memory.phys(), len.min(HEADER_LEN), false);
        // The header has a descriptor of its own: there are devices that insist.
        let head = if len > HEADER_LEN {
            let data = piece(memory.phys() + HEADER_LEN as u64, len - HEADER_LEN, false);
            self.ring.add(&[header, data])
        } else {
            self.ring.add(&[header])
        };
        match head {
            Some(head) => self.out[usize::from(head)] = Some(memory),
            None => memory.complete(),
        }
        Ok(())
    }

    /// Shows the device what was added; whether it wants to be told.
    pub(super) fn publish(&mut self) -> bool {
        self.ring.publish()
    }
}

/// Rare news of the device.
pub(super) struct Events {
    ring: Queue,
    out: Vec<Option<DmaIn>>,
}

impl Events {
    pub(super) fn new(mut ring: Queue) -> Result<Events, SetupError> {
        ring.enable_interrupts(1);
        let mut out = Vec::new();
        out.resize_with(ring.size().into(), || None);
        Ok(Events { ring, out })
    }

    /// Hands out buffers; whether the device wants to be told.
    pub(super) fn refill(&mut self) -> bool {
        while self.ring.free_count() > 0 {
            let room = DmaIn::with_len(EVENT_LEN);
            let Some(head) = self.ring.add(&[piece(room.phys(), EVENT_LEN, true)]) else {
                room.complete();
                break;
            };
            self.out[usize::from(head)] = Some(room);
        }
        self.ring.enable_interrupts(1);
        self.ring.publish()
    }

    /// Takes all events; whether a reset was among them.
    pub(super) fn take(&mut self) -> bool {
        let mut reset = false;
        while let Ok(Some((head, len))) = self.ring.take() {
            let Some(bytes) = self.out[usize::from(head)].take().and_then(DmaIn::into_box) else {
                continue;
            };
            let id = bytes.first_chunk::<4>().map(|id| u32::from_le_bytes(*id));
            reset |= len as usize >= EVENT_LEN && id == Some(EVENT_RESET);
        }
        reset
    }
}
