//! The kernel's global allocator: slabs for small objects, blocks of frames for larger ones (up to 128 MiB).

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{HEAP_FRAMES, HeapClass, PAGE_SIZE, alloc_block, buddy, free_block, slab};
use crate::arch;

struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

/// Blocks in use, by order.
static BLOCKS: [AtomicUsize; buddy::MAX_ORDER + 1] =
    [const { AtomicUsize::new(0) }; buddy::MAX_ORDER + 1];

/// What each size of blocks holds now.
pub(super) fn blocks() -> impl Iterator<Item = HeapClass> {
    BLOCKS.iter().enumerate().map(|(order, count)| {
        let objects = count.load(Relaxed);
        HeapClass {
            size: PAGE_SIZE << order,
            objects,
            frames: objects << order,
        }
    })
}

/// Order of the block for a layout too large for a slab.
fn order_of(layout: Layout) -> usize {
    let size = layout.size().max(layout.align()).max(PAGE_SIZE);
    size.div_ceil(PAGE_SIZE).next_power_of_two().ilog2() as usize
}

// SAFETY: slabs and blocks are disjoint memory of at least the size and alignment asked for: blocks are aligned to
// their size, slab objects to 16 or, for larger alignments, to their power-of-two size within a page.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(class) = slab::class_of(layout.size(), layout.align()) {
            return slab::alloc(class);
        }
        let order = order_of(layout);
        match alloc_block(order) {
            Some(phys) => {
                HEAP_FRAMES.fetch_add(1 << order, Relaxed);
                BLOCKS[order].fetch_add(1, Relaxed);
                arch::phys_to_virt(phys)
            }
            None => null_mut(),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if let Some(class) = slab::class_of(layout.size(), layout.align()) {
            // SAFETY: from `alloc` with the same layout, so of the same class.
            unsafe { slab::free(at, class) };
            return;
        }
        let order = order_of(layout);
        HEAP_FRAMES.fetch_sub(1 << order, Relaxed);
        BLOCKS[order].fetch_sub(1, Relaxed);
        // SAFETY: from `alloc` with the same layout, so of the same order.
        unsafe { free_block(arch::heap_phys(at), order) };
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else {
            return null_mut();
        };
        let old_class = slab::class_of(layout.size(), layout.align());
        let new_class = slab::class_of(new_size, layout.align());
        let same = match (old_class, new_class) {
            (Some(old), Some(new)) => old == new,
            (None, None) => order_of(layout) == order_of(new),
            _ => false,
        };
        if same {
            return at;
        }
        // SAFETY: a new allocation, then the old one given back, as the trait asks.
        unsafe {
            let to = self.alloc(new);
            if !to.is_null() {
                core::ptr::copy_nonoverlapping(at, to, layout.size().min(new_size));
                self.dealloc(at, layout);
            }
            to
        }
    }
}
