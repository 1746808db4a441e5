//! Physical memory: frames with owners, huge frames, statistics, and the kernel heap.
//!
//! Kernel code never holds a Rust reference into a [`Frame`]: the program may have it mapped and write to it at any
//! time. Access is by copy.

mod buddy;
mod frame;
#[cfg(target_os = "none")]
pub(crate) mod heap;
#[cfg(any(target_os = "none", test))]
mod slab;

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::sync::{IrqLock, Once};
pub(crate) use buddy::{FrameInfo, FrameRange, kind};
pub use frame::{Frame, HugeFrame};

/// Bytes in a page and in a frame.
pub const PAGE_SIZE: usize = 4096;
/// Bytes in a huge page and in a [`HugeFrame`].
pub const HUGE_PAGE_SIZE: usize = 512 * PAGE_SIZE;
/// Order of the block behind a [`HugeFrame`].
pub(crate) const HUGE_ORDER: usize = 9;

/// No physical memory is left.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")
    }
}

impl core::error::Error for OutOfMemory {}

/// Counts of frames (of [`PAGE_SIZE`] bytes each).
#[derive(Copy, Clone, Debug, Default)]
pub struct Stats {
    /// Usable frames, used or not.
    pub total: usize,
    /// Frames that are free now.
    pub free: usize,
    /// Frames that back the kernel heap.
    pub heap: usize,
    /// Frames that hold page tables, the program's and the kernel's.
    pub page_tables: usize,
    /// Frames that back the stacks of kernel threads.
    pub stacks: usize,
    /// Frames of buffers that devices read and write.
    pub dma: usize,
}

static BUDDY: IrqLock<buddy::Buddy> = IrqLock::new(buddy::Buddy::empty());
/// The frame table; entry 0 describes physical address [`TABLE_BASE`].
static TABLE: Once<&'static [FrameInfo]> = Once::new();
static TABLE_BASE: AtomicUsize = AtomicUsize::new(0);
static HEAP_FRAMES: AtomicUsize = AtomicUsize::new(0);
/// Frames by other uses: see [`Stats`].
pub(crate) static PAGE_TABLE_FRAMES: AtomicUsize = AtomicUsize::new(0);
pub(crate) static STACK_FRAMES: AtomicUsize = AtomicUsize::new(0);
pub(crate) static DMA_FRAMES: AtomicUsize = AtomicUsize::new(0);

/// The kernel heap's objects of one size.
#[derive(Copy, Clone, Debug)]
pub struct HeapClass {
    /// Bytes of an object.
    pub size: usize,
    /// Objects in use; those that the CPUs keep for their next use count too, 96 for each CPU at most.
    pub objects: usize,
    /// Frames that back them. One goes back when its last object does: frames of which a part is in use stay.
    pub frames: usize,
}

/// The kernel heap by size of objects, smallest first. Empty on the host, whose heap is its own.
pub fn heap_classes() -> Vec<HeapClass> {
    #[cfg(target_os = "none")]
    return slab::classes().chain(heap::blocks()).collect();
    #[cfg(not(target_os = "none"))]
    Vec::new()
}

/// Called with the number of frames wanted; frees what it can and says how many frames it freed.
pub type Reclaim = fn(wanted: usize) -> usize;
static RECLAIM: Once<Reclaim> = Once::new();

/// Sets the function that is called when frames run out, before an allocation fails. It is called from the thread
/// that allocates, which may hold any sleeping lock: it must only try locks. The first caller wins.
pub fn set_reclaim(reclaim: Reclaim) {
    let _ = RECLAIM.set(reclaim);
}

/// Current counts.
pub fn stats() -> Stats {
    ensure_init();
    let buddy = BUDDY.lock();
    Stats {
        total: buddy.total_frames(),
        free: buddy.free_frames() + frame::cached(),
        heap: HEAP_FRAMES.load(Relaxed),
        page_tables: PAGE_TABLE_FRAMES.load(Relaxed),
        stacks: STACK_FRAMES.load(Relaxed),
        dma: DMA_FRAMES.load(Relaxed),
    }
}

/// Number of free blocks of each order, smallest first (as in `/proc/buddyinfo`).
pub fn free_blocks() -> Vec<usize> {
    ensure_init();
    BUDDY.lock().free_blocks()
}

/// Hands the memory over to the allocator, once, at boot.
pub(crate) fn init(
    base: usize,
    table: &'static [FrameInfo],
    ranges: impl Iterator<Item = FrameRange>,
) {
    TABLE_BASE.store(base, Relaxed);
    BUDDY.lock().init(table, ranges);
    let _ = TABLE.set(table);
}

#[inline]
fn ensure_init() {
    #[cfg(not(target_os = "none"))]
    crate::arch::memory_init();
}

#[inline]
fn phys_of(index: u32) -> u64 {
    (TABLE_BASE.load(Relaxed) + index as usize * PAGE_SIZE) as u64
}

#[inline]
fn index_of(phys: u64) -> u32 {
    ((phys as usize - TABLE_BASE.load(Relaxed)) / PAGE_SIZE) as u32
}

/// The table entry of the frame at `phys`, which must be memory that the allocator owns.
#[inline]
pub(crate) fn info(phys: u64) -> &'static FrameInfo {
    match TABLE.get() {
        Some(table) => &table[index_of(phys) as usize],
        None => panic!("frame table used before boot set it up"),
    }
}

/// A block of `2^order` frames with one owner.
pub(crate) fn alloc_block(order: usize) -> Option<u64> {
    ensure_init();
    BUDDY.lock().alloc(order).map(phys_of)
}

/// Like [`alloc_block`], but asks the reclaim hook for memory before it gives up.
pub(crate) fn alloc_block_reclaim(order: usize) -> Result<u64, OutOfMemory> {
    if let Some(phys) = alloc_block(order) {
        return Ok(phys);
    }
    frame::drain_local();
    for _ in 0..4 {
        if let Some(phys) = alloc_block(order) {
            return Ok(phys);
        }
        let freed = RECLAIM
            .get()
            .map_or(0, |reclaim| reclaim(64 << order.min(4)));
        if freed == 0 {
            break;
        }
        frame::drain_local();
    }
    alloc_block(order).ok_or(OutOfMemory)
}

/// Gives a block back.
///
/// # Safety
/// The block (or the larger block it is an aligned part of) must come from [`alloc_block`], and nothing may use it
/// any more.
pub(crate) unsafe fn free_block(phys: u64, order: usize) {
    BUDDY.lock().release(index_of(phys), order);
}
