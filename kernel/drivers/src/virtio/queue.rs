//! The split virtqueue (virtio 1.2, 2.7) as the driver sees it: descriptors, the two rings, the event indexes.
//!
//! What the device may write, the used ring, is believed only as far as it names a chain that is under way; a device
//! that names another is [`Broken`], and the queue gives nothing more. Ownership of the memory that descriptors
//! point to is the caller's.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU16, Ordering};

use machine::dma::{DmaBuffer, barrier};

use super::SetupError;

/// Bytes of a descriptor.
pub const DESCRIPTOR_LEN: usize = 16;

const FLAG_NEXT: u16 = 1;
const FLAG_WRITE: u16 = 2;
const FLAG_INDIRECT: u16 = 4;

const AVAIL_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;

/// A piece of memory that takes part in a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Physical address.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// The device writes it (else it reads it).
    pub device_writes: bool,
}

/// The device broke the protocol: nothing it says of this queue can be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Where the parts of a queue are, for the transport to tell the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Number of descriptors, a power of two.
    pub size: u16,
    /// Physical address of the descriptor table.
    pub descriptors: u64,
    /// Physical address of the available ring.
    pub available: u64,
    /// Physical address of the used ring.
    pub used: u64,
}

/// Byte offsets of the parts in the queue's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    available: usize,
    used: usize,
    total: usize,
}

impl Layout {
    const fn of(size: u16) -> Layout {
        let size = size as usize;
        let available = DESCRIPTOR_LEN * size;
        // The used ring on a cache line of its own: the two sides write different lines.
        let used = (available + 6 + 2 * size).next_multiple_of(64);
        Layout {
            available,
            used,
            total: used + 6 + 8 * size,
        }
    }
}

/// The driver's side of one split virtqueue.
pub struct Queue {
    memory: Arc<DmaBuffer>,
    layout: Layout,
    size: u16,
    event_idx: bool,
    /// Free descriptors, used last-in first-out so that the same few cache lines stay warm.
    free: Vec<u16>,
    /// The driver's own copy of the chain links: the table in shared memory is never read back.
    next: Vec<u16>,
    /// Descriptors of the chain that starts here and is under way; 0 for none.
    chain: Vec<u16>,
    /// Available index as of the last `add`, not yet visible.
    added: u16,
    /// Available index as the device sees it.
    published: u16,
    /// Used index up to which chains were taken back.
    taken: Arc<AtomicU16>,
    broken: bool,
}

/// Looks, without a lock, whether the device has used anything that was not taken back yet.
#[derive(Clone)]
pub struct UsedPeek {
    memory: Arc<DmaBuffer>,
    index_at: usize,
    taken: Arc<AtomicU16>,
}

impl UsedPeek {
    /// Whether there is something. May be out of date at once, in both directions.
    pub fn any(&self) -> bool {
        self.count() != 0
    }

    /// How many chains there are, if the device is to be believed.
    pub fn count(&self) -> u16 {
        let used = self.memory.atomic16(self.index_at).load(Ordering::Acquire);
        used.wrapping_sub(self.taken.load(Ordering::Relaxed))
    }
}

impl Queue {
    /// A queue of `size` descriptors (a power of two, at most 32768), with or without event indexes.
    ///
    /// # Errors
    /// [`SetupError::NoMemory`]; [`SetupError::BadConfig`] for a size that is none.
    pub fn new(size: u16, event_idx: bool) -> Result<Queue, SetupError> {
        if !size.is_power_of_two() || size > 1 << 15 {
            return Err(SetupError::BadConfig);
        }
        let layout = Layout::of(size);
        let memory = DmaBuffer::new(layout.total).map_err(|_| SetupError::NoMemory)?;
        Ok(Queue {
            memory: Arc::new(memory),
            layout,
            size,
            event_idx,
            free: (0..size).rev().collect(),
            next: alloc::vec![0; size.into()],
            chain: alloc::vec![0; size.into()],
            added: 0,
            published: 0,
            taken: Arc::new(AtomicU16::new(0)),
            broken: false,
        })
    }

    /// Where its parts are.
    pub fn placement(&self) -> Placement {
        let base = self.memory.phys();
        Placement {
            size: self.size,
            descriptors: base,
            available: base + self.layout.available as u64,
            used: base + self.layout.used as u64,
        }
    }

    /// A way to look at the used index from an interrupt handler.
    pub fn peek(&self) -> UsedPeek {
        UsedPeek {
            memory: self.memory.clone(),
            index_at: self.layout.used + 2,
            taken: self.taken.clone(),
        }
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// How many descriptors are free.
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Whether the device broke the protocol.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Adds a chain of one descriptor for each piece, first those that the device reads, then those it writes. Returns
    /// the chain's head, which names it until it is taken back, or `None` when there are too few free descriptors.
    /// The device sees it after the next [`Queue::publish`].
    pub fn add(&mut self, pieces: &[Piece]) -> Option<u16> {
        self.add_chain(pieces.len(), pieces.iter().copied())
    }

    /// As [`Queue::add`], of `count` pieces that are made as they are needed; there must be that many.
    pub fn add_chain(&mut self, count: usize, pieces: impl Iterator<Item = Piece>) -> Option<u16> {
        if count == 0 || count > self.free.len() || self.broken {
            return None;
        }
        let head = self.free[self.free.len() - 1];
        let mut index = head;
        for (i, piece) in pieces.take(count).enumerate() {
            self.free.pop();
            let mut flags = if piece.device_writes { FLAG_WRITE } else { 0 };
            let mut next = 0;
            if i + 1 < count {
                flags |= FLAG_NEXT;
                next = self.free[self.free.len() - 1];
            }
            write_descriptor(
                &self.memory,
                usize::from(index) * DESCRIPTOR_LEN,
                &piece,
                flags,
                next,
            );
            self.next[usize::from(index)] = next;
            index = next;
        }
        self.offer(head, count as u16);
        Some(head)
    }

    /// Adds a chain whose descriptors lie in `table` from byte `at` on, using one descriptor of the queue's own. The
    /// device must have accepted indirect descriptors, and nobody may change the table until the chain is taken back.
    pub fn add_indirect(&mut self, table: &DmaBuffer, at: usize, pieces: &[Piece]) -> Option<u16> {
        self.add_indirect_chain(table, at, pieces.len(), pieces.iter().copied())
    }

    /// As [`Queue::add_indirect`], of `count` pieces that are made as they are needed; there must be that many.
    pub fn add_indirect_chain(
        &mut self,
        table: &DmaBuffer,
        at: usize,
        count: usize,
        pieces: impl Iterator<Item = Piece>,
    ) -> Option<u16> {
        if count == 0 || self.broken {
            return None;
        }
        let head = self.free.pop()?;
        for (i, piece) in pieces.take(count).enumerate() {
            let last = i + 1 == count;
            let mut flags = if piece.device_writes { FLAG_WRITE } else { 0 };
            flags |= if last { 0 } else { FLAG_NEXT };
            let next = if last { 0 } else { (i + 1) as u16 };
            write_descriptor(table, at + i * DESCRIPTOR_LEN, &piece, flags, next);
        }
        let whole = Piece {
            address: table.phys() + at as u64,
            len: (count * DESCRIPTOR_LEN) as u32,
            device_writes: false,
        };
        write_descriptor(
            &self.memory,
            usize::from(head) * DESCRIPTOR_LEN,
            &whole,
            FLAG_INDIRECT,
            0,
        );
        self.offer(head, 1);
        Some(head)
    }

    fn offer(&mut self, head: u16, descriptors: u16) {
        self.chain[usize::from(head)] = descriptors;
        let slot = usize::from(self.added & (self.size - 1));
        self.memory
            .write16(self.layout.available + 4 + 2 * slot, head);
        self.added = self.added.wrapping_add(1);
    }

    /// Makes the added chains visible to the device and returns whether it wants to be notified of them.
    #[must_use = "a device that is not notified may never look"]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.added);
        if old == new {
            return false;
        }
        self.memory
            .atomic16(self.layout.available + 2)
            .store(new, Ordering::Release);
        self.published = new;
        // The device must see the index before its wish is read, as it reads in the opposite order.
        barrier();
        if self.event_idx {
            let event_at = self.layout.used + 4 + 8 * usize::from(self.size);
            let event = self.memory.atomic16(event_at).load(Ordering::Relaxed);
            passed(event, old, new)
        } else {
            let flags = self
                .memory
                .atomic16(self.layout.used)
                .load(Ordering::Relaxed);
            flags & USED_NO_NOTIFY == 0
        }
    }

    /// Takes back the next chain that the device is done with: its head, and how many bytes the device says it wrote.
    ///
    /// # Errors
    /// [`Broken`] when the device names a chain that is not under way, now and ever after.
    pub fn take(&mut self) -> Result<Option<(u16, u32)>, Broken> {
        if self.broken {
            return Err(Broken);
        }
        let taken = self.taken.load(Ordering::Relaxed);
        let used = self
            .memory
            .atomic16(self.layout.used + 2)
            .load(Ordering::Acquire);
        if used == taken {
            return Ok(None);
        }
        let at = self.layout.used + 4 + 8 * usize::from(taken & (self.size - 1));
        let id = self.memory.read32(at);
        let len = self.memory.read32(at + 4);
        let ahead = used.wrapping_sub(taken);
        let head = match u16::try_from(id) {
            Ok(head) if head < self.size && ahead <= self.size => head,
            _ => return Err(self.give_up()),
        };
        let count = core::mem::take(&mut self.chain[usize::from(head)]);
        if count == 0 {
            return Err(self.give_up());
        }
        // Freed in reverse, so that the head is the next to be used again.
        let from = self.free.len();
        let mut index = head;
        for _ in 0..count {
            self.free.push(index);
            index = self.next[usize::from(index)];
        }
        self.free[from..].reverse();
        self.taken.store(taken.wrapping_add(1), Ordering::Relaxed);
        Ok(Some((head, len)))
    }

    fn give_up(&mut self) -> Broken {
        self.broken = true;
        Broken
    }

    /// Asks for an interrupt when the device has used `after` further chains (at least one). Returns whether that many
    /// are there already: then no interrupt may come.
    pub fn enable_interrupts(&mut self, after: u16) -> bool {
        let taken = self.taken.load(Ordering::Relaxed);
        let event = taken.wrapping_add(after.saturating_sub(1));
        if self.event_idx {
            let at = self.layout.available + 4 + 2 * usize::from(self.size);
            self.memory.atomic16(at).store(event, Ordering::Relaxed);
        } else {
            self.memory
                .atomic16(self.layout.available)
                .store(0, Ordering::Relaxed);
        }
        barrier();
        let used = self
            .memory
            .atomic16(self.layout.used + 2)
            .load(Ordering::Acquire);
        used.wrapping_sub(taken) > event.wrapping_sub(taken)
    }

    /// Asks for no interrupts; some may come nevertheless.
    pub fn disable_interrupts(&mut self) {
        if self.event_idx {
            // An index that lies behind is passed only after 65535 further chains.
            let event = self.taken.load(Ordering::Relaxed).wrapping_sub(1);
            let at = self.layout.available + 4 + 2 * usize::from(self.size);
            self.memory.atomic16(at).store(event, Ordering::Relaxed);
        } else {
            self.memory
                .atomic16(self.layout.available)
                .store(AVAIL_NO_INTERRUPT, Ordering::Relaxed);
        }
    }

    /// Chains under way.
    pub fn in_flight(&self) -> u16 {
        self.published
            .wrapping_sub(self.taken.load(Ordering::Relaxed))
    }
}

/// Whether an index that moved from `old` to `new` passed `event` (virtio 1.2, 2.7.10).
fn passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

fn write_descriptor(memory: &DmaBuffer, at: usize, piece: &Piece, flags: u16, next: u16) {
    memory.write64(at, piece.address);
    memory.write64(
        at + 8,
        u64::from(piece.len) | u64::from(flags) << 32 | u64::from(next) << 48,
    );
}
