//! Small stretches of DMA memory, one for each request that can be under way, a page at a time as they are needed:
//! most machines never have more than a few requests under way at once.

use alloc::vec::Vec;

use machine::{dma::DmaBuffer, mem::PAGE_SIZE};

/// Memory in slots of equal size, numbered from 0.
pub(super) struct SlotMemory {
    slot_len: usize,
    pages: Vec<DmaBuffer>,
}

impl SlotMemory {
    /// No slots yet, room for the bookkeeping of `most`; each will have `slot_len` bytes, a divisor of the page size.
    pub(super) fn new(most: usize, slot_len: usize) -> SlotMemory {
        SlotMemory {
            slot_len,
            pages: Vec::with_capacity(most.div_ceil(PAGE_SIZE / slot_len)),
        }
    }

    /// How many slots there are.
    pub(super) fn len(&self) -> usize {
        self.pages.len() * (PAGE_SIZE / self.slot_len)
    }

    /// Adds the slots of one page, allocated by the caller before it took any lock. Does not allocate as long as there
    /// are no more than the number given to [`SlotMemory::new`].
    pub(super) fn grow(&mut self, page: DmaBuffer) {
        self.pages.push(page);
    }

    /// The memory that slot `slot` lies in, and its offset there; `None` when there is no such slot.
    pub(super) fn get(&self, slot: usize) -> Option<(&DmaBuffer, usize)> {
        let per_page = PAGE_SIZE / self.slot_len;
        let page = self.pages.get(slot / per_page)?;
        Some((page, slot % per_page * self.slot_len))
    }
}
