//! Small stretches of DMA memory, one for each request that can be under way, allocated a page at a time when first
//! used: most machines never have more than a few requests under way at once.

use alloc::vec::Vec;

use machine::{dma::DmaBuffer, mem::PAGE_SIZE};

/// Memory in slots of equal size.
pub(super) struct SlotMemory {
    slot_len: usize,
    pages: Vec<Option<DmaBuffer>>,
}

impl SlotMemory {
    /// Room for `slots` slots of `slot_len` bytes, a divisor of the page size.
    pub(super) fn new(slots: usize, slot_len: usize) -> SlotMemory {
        let per_page = PAGE_SIZE / slot_len;
        let mut pages = Vec::new();
        pages.resize_with(slots.div_ceil(per_page), || None);
        SlotMemory { slot_len, pages }
    }

    /// The memory that slot `slot` lies in, and its offset there. `None` when there is no such slot or no memory.
    pub(super) fn get(&mut self, slot: usize) -> Option<(&DmaBuffer, usize)> {
        let per_page = PAGE_SIZE / self.slot_len;
        let page = self.pages.get_mut(slot / per_page)?;
        if page.is_none() {
            *page = Some(DmaBuffer::new(PAGE_SIZE).ok()?);
        }
        Some((page.as_ref()?, slot % per_page * self.slot_len))
    }
}
