//! Small heap objects: pages of equal objects ("slabs"), with a cache of free objects on each CPU.
//!
//! A page's free objects are chained through themselves; the page's entry in the frame table holds the head of the
//! chain and the count of live objects, so a page that empties goes back to the frame allocator.

#[cfg(test)]
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::Relaxed;

use super::{
    FrameInfo, HEAP_FRAMES, HeapClass, PAGE_SIZE, alloc_block, free_block, index_of, info, kind,
    phys_of,
};
use crate::arch;
use crate::cpu::{MAX_CPUS, PerCpu};
use crate::sync::IrqLock;

/// Sizes of objects.
const SIZES: [usize; 16] = [
    16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 512, 672, 1024, 1360, 2048,
];
const CLASSES: usize = SIZES.len();
/// The largest object of a slab.
pub(super) const MAX: usize = SIZES[CLASSES - 1];

/// Class by size in units of 16 bytes.
static CLASS_OF: [u8; MAX / 16 + 1] = {
    let mut table = [0u8; MAX / 16 + 1];
    let mut units = 0;
    while units <= MAX / 16 {
        let mut class = 0;
        while SIZES[class] < units * 16 {
            class += 1;
        }
        table[units] = class as u8;
        units += 1;
    }
    table
};

/// The class for a layout. Alignments up to 16 hold for all sizes; larger ones go to the next power of two.
#[inline]
pub(super) fn class_of(size: usize, align: usize) -> Option<usize> {
    let size = if align > 16 {
        size.max(align).next_power_of_two()
    } else {
        size
    };
    (size <= MAX).then(|| CLASS_OF[size.div_ceil(16)] as usize)
}

/// A chain of free objects through their first words.
#[derive(Clone, Copy)]
struct Chain {
    head: *mut *mut u8,
    len: u32,
}

impl Chain {
    const EMPTY: Self = Self {
        head: null_mut(),
        len: 0,
    };

    /// # Safety
    /// `object` must be a free object of the chain's class, owned by the caller.
    #[inline]
    unsafe fn push(&mut self, object: *mut u8) {
        let object = object.cast::<*mut u8>();
        // SAFETY: owned memory of at least 16 bytes, aligned to 16.
        unsafe { object.write(self.head.cast()) };
        self.head = object;
        self.len += 1;
    }

    #[inline]
    fn pop(&mut self) -> *mut u8 {
        let object = self.head;
        if !object.is_null() {
            // SAFETY: chained objects hold the next one's address.
            self.head = unsafe { object.read() }.cast();
            self.len -= 1;
        }
        object.cast()
    }
}

/// Objects moved at once between a CPU's cache and the pages.
#[inline]
fn batch(class: usize) -> u32 {
    (2048 / SIZES[class]).clamp(4, 32) as u32
}

/// A CPU's free objects. Touched only by that CPU, and only when [`Busy`] says that nobody on it is at it already.
struct Local(UnsafeCell<[Chain; CLASSES]>);

// SAFETY: each is touched by one CPU only, under its busy flag.
unsafe impl Sync for Local {}

static LOCAL: PerCpu<Local> =
    PerCpu::new([const { Local(UnsafeCell::new([Chain::EMPTY; CLASSES])) }; MAX_CPUS]);

/// Marks this CPU's cache as being worked on, so that an interrupt that allocates meanwhile goes straight to the
/// pages: cheaper than turning interrupts off. Kernel code is not preempted, so it stays on its CPU.
struct Busy;

impl Busy {
    #[inline]
    fn take() -> Option<Self> {
        let flag = arch::heap_flag();
        if flag.load(Relaxed) != 0 {
            return None;
        }
        flag.store(1, Relaxed);
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
        Some(Self)
    }
}

impl Drop for Busy {
    #[inline]
    fn drop(&mut self) {
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
        arch::heap_flag().store(0, Relaxed);
    }
}

const NONE: u32 = u32::MAX;

/// Pages of one class that have free objects: a list through the frame table, by frame number.
struct Partial {
    first: u32,
    /// Pages of the class, with and without free objects.
    pages: usize,
    /// Objects that are not in pages: in use, or in a CPU's cache.
    objects: usize,
}

static PARTIAL: [IrqLock<Partial>; CLASSES] = [const {
    IrqLock::new(Partial {
        first: NONE,
        pages: 0,
        objects: 0,
    })
}; CLASSES];

/// What each class holds now.
pub(super) fn classes() -> impl Iterator<Item = HeapClass> {
    PARTIAL.iter().zip(SIZES).map(|(partial, size)| {
        let partial = partial.lock();
        HeapClass {
            size,
            objects: partial.objects,
            frames: partial.pages,
        }
    })
}

fn number(phys: u64) -> u32 {
    index_of(phys)
}

fn page_info(number: u32) -> &'static FrameInfo {
    info(phys_of(number))
}

/// In a page's entry: `free_slot` is the first free object's index plus one, 0 for none; `refs` counts live objects.
impl Partial {
    fn link(&mut self, page: u32) {
        let entry = page_info(page);
        entry.prev.store(NONE, Relaxed);
        entry.next.store(self.first, Relaxed);
        if self.first != NONE {
            page_info(self.first).prev.store(page, Relaxed);
        }
        self.first = page;
    }

    fn unlink(&mut self, page: u32) {
        let entry = page_info(page);
        let (prev, next) = (entry.prev.load(Relaxed), entry.next.load(Relaxed));
        if prev == NONE {
            self.first = next
        } else {
            page_info(prev).next.store(next, Relaxed)
        }
        if next != NONE {
            page_info(next).prev.store(prev, Relaxed);
        }
    }

    /// Makes a page of objects and links it.
    fn grow(&mut self, class: usize) -> bool {
        let Some(phys) = alloc_block(0) else {
            return false;
        };
        self.pages += 1;
        HEAP_FRAMES.fetch_add(1, Relaxed);
        let entry = info(phys);
        entry.kind.store(kind::SLAB, Relaxed);
        entry.order.store(class as u8, Relaxed);
        entry.refs.store(0, Relaxed);
        let (size, base) = (SIZES[class], arch::phys_to_virt(phys));
        let count = PAGE_SIZE / size;
        for i in 0..count {
            let next = if i + 1 < count { i + 2 } else { 0 };
            // SAFETY: within the page just allocated.
            unsafe { base.add(i * size).cast::<usize>().write(next) };
        }
        entry.free_slot.store(1, Relaxed);
        self.link(number(phys));
        true
    }

    fn take(&mut self, class: usize) -> *mut u8 {
        if self.first == NONE && !self.grow(class) {
            return null_mut();
        }
        let entry = page_info(self.first);
        let slot = usize::from(entry.free_slot.load(Relaxed)) - 1;
        let base = arch::phys_to_virt(phys_of(self.first));
        // SAFETY: a free object of the page; it holds the next one's index.
        let (object, next) = unsafe {
            let object = base.add(slot * SIZES[class]);
            (object, object.cast::<usize>().read())
        };
        entry.free_slot.store(next as u16, Relaxed);
        entry.refs.store(entry.refs.load(Relaxed) + 1, Relaxed);
        self.objects += 1;
        if next == 0 {
            let page = self.first;
            self.unlink(page);
        }
        object
    }

    /// # Safety
    /// `object` must be from [`Partial::take`] of this class, and free for good.
    unsafe fn give(&mut self, class: usize, object: *mut u8) {
        let phys = arch::heap_phys(object);
        let page = number(phys);
        let entry = page_info(page);
        let slot = phys as usize % PAGE_SIZE / SIZES[class];
        let head = entry.free_slot.load(Relaxed);
        // SAFETY: the object is the allocator's again.
        unsafe { object.cast::<usize>().write(head.into()) };
        entry.free_slot.store(slot as u16 + 1, Relaxed);
        let live = entry.refs.load(Relaxed) - 1;
        entry.refs.store(live, Relaxed);
        self.objects -= 1;
        if head == 0 {
            self.link(page);
        }
        // An empty page goes back, unless it is the only one with room.
        if live == 0 && (self.first != page || entry.next.load(Relaxed) != NONE) {
            self.unlink(page);
            self.pages -= 1;
            HEAP_FRAMES.fetch_sub(1, Relaxed);
            // SAFETY: no object of the page is in use or cached: all have been given back.
            unsafe { free_block(phys_of(page), 0) };
        }
    }
}

/// A free object of the class, or null.
#[inline]
pub(super) fn alloc(class: usize) -> *mut u8 {
    let Some(_busy) = Busy::take() else {
        return PARTIAL[class].lock().take(class);
    };
    // SAFETY: this CPU's, and marked busy.
    let chain = unsafe { &mut (*LOCAL.get().0.get())[class] };
    let object = chain.pop();
    if !object.is_null() {
        object
    } else {
        refill(chain, class)
    }
}

#[cold]
fn refill(chain: &mut Chain, class: usize) -> *mut u8 {
    let mut partial = PARTIAL[class].lock();
    for _ in 1..batch(class) {
        let object = partial.take(class);
        if object.is_null() {
            break;
        }
        // SAFETY: a free object, just taken.
        unsafe { chain.push(object) };
    }
    let object = partial.take(class);
    if object.is_null() {
        chain.pop()
    } else {
        object
    }
}

/// # Safety
/// `object` must be from [`alloc`] of the same class, and not used any more.
#[inline]
pub(super) unsafe fn free(object: *mut u8, class: usize) {
    let Some(_busy) = Busy::take() else {
        // SAFETY: as required of the caller.
        unsafe { PARTIAL[class].lock().give(class, object) };
        return;
    };
    // SAFETY: this CPU's, and marked busy.
    let chain = unsafe { &mut (*LOCAL.get().0.get())[class] };
    // SAFETY: as required of the caller.
    unsafe { chain.push(object) };
    if chain.len > batch(class) * 2 {
        flush(chain, class);
    }
}

#[cold]
fn flush(chain: &mut Chain, class: usize) {
    let mut partial = PARTIAL[class].lock();
    for _ in 0..batch(class) {
        let object = chain.pop();
        // SAFETY: a cached object is a free one of this class; the chain is longer than the batch.
        unsafe { partial.give(class, object) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_fit() {
        for size in 0..=MAX {
            for align in [1, 8, 16, 32, 64, 512] {
                if let Some(class) = class_of(size, align) {
                    assert!(SIZES[class] >= size);
                    assert!(align <= 16 || SIZES[class].is_multiple_of(align));
                }
            }
        }
        assert_eq!(class_of(MAX + 1, 8), None);
    }

    #[test]
    fn objects_never_overlap_and_pages_go_back() {
        let frames = || HEAP_FRAMES.load(Relaxed);
        let threads: Vec<_> = (0..4usize)
            .map(|thread| {
                std::thread::spawn(move || {
                    let mut live: Vec<(*mut u8, usize, u8)> = Vec::new();
                    let mut seed = thread as u64 + 1;
                    for step in 0..20_000usize {
                        seed = seed
                            .wrapping_mul(6364136223846793005)
                            .wrapping_add(1442695040888963407);
                        let r = (seed >> 33) as usize;
                        if r % 5 < 3 {
                            let class = r / 5 % CLASSES;
                            let object = alloc(class);
                            assert!(!object.is_null() && object.addr().is_multiple_of(16));
                            let mark = (step ^ thread << 6) as u8;
                            // SAFETY: a new object of this size.
                            unsafe { object.write_bytes(mark, SIZES[class]) };
                            live.push((object, class, mark));
                        } else if !live.is_empty() {
                            let (object, class, mark) = live.swap_remove(r / 5 % live.len());
                            // SAFETY: a live object of this size, given back once.
                            unsafe {
                                let bytes = core::slice::from_raw_parts(object, SIZES[class]);
                                assert!(
                                    bytes.iter().all(|&b| b == mark),
                                    "an object was overwritten"
                                );
                                free(object, class);
                            }
                        }
                    }
                    for (object, class, _) in live {
                        // SAFETY: live objects, given back once.
                        unsafe { free(object, class) };
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        // What stays: the caches of four CPUs and a page of each class.
        assert!(frames() < CLASSES * 40, "{} frames stay", frames());
        let cached = |class: HeapClass| class.objects <= 4 * 3 * 32;
        assert!(classes().all(cached), "objects count as in use");
    }
}
