//! The kernel's half of the address space: all RAM at [`DIRECT_MAP`], the image at -2 GiB with rights by section, and
//! an area for what is mapped page by page (kernel stacks, device registers).

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::boot::KERNEL_BASE;
use super::features;
use super::io::write_cr3;
use crate::boot::{MemoryRegion, RegionKind};
use crate::mem::{PAGE_SIZE, PAGE_TABLE_FRAMES, STACK_FRAMES, alloc_block};
use crate::sync::SpinLock;

/// Where physical address 0 appears.
pub(super) const DIRECT_MAP: usize = 0xffff_8000_0000_0000;
/// Start of the area mapped page by page.
const AREA: usize = 0xffff_c000_0000_0000;
/// Its length: one entry of the top table.
const AREA_LEN: usize = 1 << 39;

pub(super) mod pte {
    pub const PRESENT: u64 = 1;
    pub const WRITE: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    /// Write-through and not cached: strong uncached memory, for device registers.
    pub const UNCACHED: u64 = 1 << 3 | 1 << 4;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    /// In a directory: a large page.
    pub const LARGE: u64 = 1 << 7;
    pub const GLOBAL: u64 = 1 << 8;
    pub const NO_EXEC: u64 = 1 << 63;
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// Root of the kernel's page table, without a user half.
static ROOT: AtomicU64 = AtomicU64::new(0);
static LOCK: SpinLock<()> = SpinLock::new(());
static NEXT: AtomicUsize = AtomicUsize::new(AREA + PAGE_SIZE);
/// Top of RAM: `DIRECT_MAP` reaches to here.
static RAM_END: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static kernel_start: u8;
    static text_end: u8;
    static data_start: u8;
    static kernel_end: u8;
    static boot_guard: u8;
}

/// Physical address of a symbol of the image.
fn image_phys(symbol: *const u8) -> u64 {
    (symbol as usize - KERNEL_BASE) as u64
}

/// Physical end of the image.
pub(super) fn image_end() -> u64 {
    image_phys(&raw const kernel_end)
}

pub(super) fn root() -> u64 {
    ROOT.load(Relaxed)
}

#[inline]
pub(crate) fn phys_to_virt(phys: u64) -> *mut u8 {
    (DIRECT_MAP + phys as usize) as *mut u8
}

/// Physical address of heap memory, which is all in the direct map.
#[inline]
pub(crate) fn heap_phys(at: *const u8) -> u64 {
    let at = at as usize;
    if at >= KERNEL_BASE {
        (at - KERNEL_BASE) as u64
    } else {
        (at - DIRECT_MAP) as u64
    }
}

/// Takes zeroed pages for tables, one after the other, from memory set aside at boot.
pub(super) struct TablePages {
    pub next: u64,
    pub end: u64,
}

impl TablePages {
    /// A zeroed page, reachable through `virt`.
    fn take(&mut self, virt: impl Fn(u64) -> *mut u64) -> u64 {
        assert!(
            self.next < self.end,
            "out of memory for the first page tables"
        );
        let page = self.next;
        self.next += PAGE_SIZE as u64;
        // SAFETY: the page is set aside for this and mapped at `virt`.
        unsafe { virt(page).write_bytes(0, 512) };
        page
    }
}

/// Pages that [`build`] needs at most for this much RAM.
pub(super) fn table_pages_needed(memory: &[MemoryRegion]) -> u64 {
    let end = memory
        .iter()
        .filter(|r| r.kind != RegionKind::Reserved)
        .map(|r| r.start + r.len)
        .max()
        .unwrap_or(0);
    let gib = end.div_ceil(1 << 30);
    let image = (image_end() - image_phys(&raw const kernel_start)).div_ceil(2 << 20) + 2;
    4 + gib.div_ceil(512)
        + image
        + if features::has_gib_pages() {
            2 * memory.len() as u64 + 2
        } else {
            gib + 1
        }
}

/// Builds the kernel's tables and switches to them.
///
/// # Safety
/// Once, at boot, on the boot tables; `pages` are free memory in the first GiB.
pub(super) unsafe fn build(memory: &[MemoryRegion], pages: &mut TablePages) {
    // The boot tables map the first GiB at 0.
    let virt = |phys: u64| phys as *mut u64;
    let root = pages.take(virt);
    let entry = |table: u64, index: usize| {
        // SAFETY: a table just taken, mapped at its physical address; one entry is borrowed at a time.
        unsafe { &mut *virt(table).add(index) }
    };
    let mut next_level = |table: u64, index: usize| {
        let slot = entry(table, index);
        if *slot == 0 {
            *slot = pages.take(virt) | pte::PRESENT | pte::WRITE;
        }
        *slot & pte::ADDRESS
    };
    let rw = pte::PRESENT | pte::WRITE | pte::GLOBAL | pte::NO_EXEC | pte::ACCESSED | pte::DIRTY;

    // All RAM and firmware tables, in the largest pages that fit; a page may reach beyond RAM's end by less than its
    // size only for the 2 MiB ones, and nothing accesses that part.
    let mut ram_end = 0;
    for region in memory.iter().filter(|r| r.kind != RegionKind::Reserved) {
        let mut at = region.start & !0x1f_ffff;
        let end = (region.start + region.len).next_multiple_of(2 << 20);
        ram_end = ram_end.max(end);
        while at < end {
            let va = DIRECT_MAP + at as usize;
            let top = next_level(root, va >> 39 & 511);
            let slot = entry(top, va >> 30 & 511);
            // A table is there already when an earlier region begins in the same GiB.
            let free = *slot == 0 || *slot & pte::LARGE != 0;
            if features::has_gib_pages() && free && at % (1 << 30) == 0 && end - at >= 1 << 30 {
                *slot = at | rw | pte::LARGE;
                at += 1 << 30;
            } else {
                if *entry(top, va >> 30 & 511) & pte::LARGE == 0 {
                    let middle = next_level(top, va >> 30 & 511);
                    *entry(middle, va >> 21 & 511) = at | rw | pte::LARGE;
                }
                at += 2 << 20;
            }
        }
    }
    RAM_END.store(ram_end, Relaxed);

    // The image, page by page with its sections' rights.
    let (start, text, data, end) = (
        (&raw const kernel_start) as usize,
        (&raw const text_end) as usize,
        (&raw const data_start) as usize,
        (&raw const kernel_end) as usize,
    );
    let image_top = next_level(root, 511);
    let image_middle = next_level(image_top, 510);
    let mut va = start;
    while va < end {
        let table = next_level(image_middle, va >> 21 & 511);
        let rights = if va < text {
            pte::PRESENT | pte::GLOBAL
        } else if va < data {
            pte::PRESENT | pte::GLOBAL | pte::NO_EXEC
        } else {
            rw
        };
        // The page below the boot stack: running over it must not go unnoticed.
        if va != (&raw const boot_guard) as usize {
            *entry(table, va >> 12 & 511) = (va - KERNEL_BASE) as u64 | rights;
        }
        va += PAGE_SIZE;
    }
    // The area's top entry must exist before any address space copies the kernel's half.
    next_level(root, AREA >> 39 & 511);
    ROOT.store(root, Relaxed);
    // SAFETY: the new tables map the running code, its data and its stack where they were.
    unsafe { write_cr3(root) };
}

/// Maps one page of the area.
///
/// # Safety
/// `va` is an unmapped page of the area that the caller owns.
unsafe fn map_page(va: usize, phys: u64, flags: u64) -> Option<()> {
    let _lock = LOCK.lock();
    let mut table = root();
    for shift in [39, 30, 21] {
        // SAFETY: tables are in the direct map and stay; the lock excludes other writers.
        let slot = unsafe { &mut *phys_to_virt(table).cast::<u64>().add(va >> shift & 511) };
        if *slot == 0 {
            let page = alloc_block(0)?;
            PAGE_TABLE_FRAMES.fetch_add(1, Relaxed);
            // SAFETY: a page just allocated.
            unsafe { phys_to_virt(page).write_bytes(0, PAGE_SIZE) };
            *slot = page | pte::PRESENT | pte::WRITE;
        }
        table = *slot & pte::ADDRESS;
    }
    // SAFETY: as above.
    unsafe {
        phys_to_virt(table)
            .cast::<u64>()
            .add(va >> 12 & 511)
            .write_volatile(phys | flags | pte::PRESENT)
    };
    Some(())
}

/// Sets aside `pages` pages of the area's addresses, with one unmapped page before them.
fn reserve(pages: usize) -> Option<usize> {
    let len = (pages + 1) * PAGE_SIZE;
    let at = NEXT.fetch_add(len, Relaxed);
    (at + len < AREA + AREA_LEN).then_some(at + PAGE_SIZE)
}

/// Maps device memory, uncached.
pub(crate) fn map_device(page: u64, len: usize) -> Option<*mut u8> {
    let pages = len.div_ceil(PAGE_SIZE);
    let base = reserve(pages)?;
    for i in 0..pages {
        let flags = pte::WRITE | pte::NO_EXEC | pte::GLOBAL | pte::UNCACHED;
        // SAFETY: just reserved.
        unsafe { map_page(base + i * PAGE_SIZE, page + (i * PAGE_SIZE) as u64, flags)? };
    }
    Some(base as *mut u8)
}

/// Maps fresh memory with an unmapped guard page below: a kernel stack. Returns its bottom. Never freed; see
/// [`super::task`], which reuses stacks.
pub(super) fn map_stack(len: usize) -> Option<usize> {
    let pages = len / PAGE_SIZE;
    let base = reserve(pages)?;
    for i in 0..pages {
        let frame = alloc_block(0)?;
        STACK_FRAMES.fetch_add(1, Relaxed);
        // SAFETY: just reserved; the frame is ours.
        unsafe {
            map_page(
                base + i * PAGE_SIZE,
                frame,
                pte::WRITE | pte::NO_EXEC | pte::GLOBAL,
            )?
        };
    }
    Some(base)
}

/// Whether `start..end` holds no memory that the kernel or the processor owns: the memory map names no RAM there, and
/// the interrupt controllers are not in it.
pub(crate) fn is_device_memory(start: u64, end: u64) -> bool {
    let Some(info) = crate::boot::info() else {
        return false;
    };
    let overlaps = |s: u64, len: u64| start < s + len && s < end;
    !info.memory.iter().any(|r| r.kind != RegionKind::Reserved && overlaps(r.start, r.len))
        && !overlaps(0xfee0_0000, 0x1000)
        && !super::irq::io_apic_pages().any(|page| overlaps(page, 0x1000))
        // The first MiB may hold the AP start page and firmware data whatever the map says.
        && start >= 0x10_0000
}

/// Whether the direct map has `len` bytes at `phys` as RAM or firmware tables.
pub(super) fn in_direct_map(memory: &[MemoryRegion], phys: u64, len: u64) -> bool {
    phys.checked_add(len).is_some_and(|end| {
        memory
            .iter()
            .any(|r| r.kind != RegionKind::Reserved && r.start <= phys && end <= r.start + r.len)
    })
}

/// Registering DMA memory matters only to the hosted backend's fake devices.
#[inline]
pub(crate) fn dma_register(_phys: u64, _len: usize) {}

#[inline]
pub(crate) fn dma_unregister(_phys: u64) {}

/// Looks an address of the kernel's half up in its tables: the physical address, if it is mapped.
fn translate(va: usize) -> Option<u64> {
    if va < DIRECT_MAP || root() == 0 {
        return None;
    }
    let mut table = root();
    for shift in [39, 30, 21, 12] {
        // SAFETY: live tables in the direct map.
        let entry = unsafe {
            phys_to_virt(table)
                .cast::<u64>()
                .add(va >> shift & 511)
                .read_volatile()
        };
        if entry & pte::PRESENT == 0 {
            return None;
        }
        let span = (1u64 << shift) - 1;
        if shift == 12 || entry & pte::LARGE != 0 && shift < 39 {
            return Some((entry & pte::ADDRESS & !span) + (va as u64 & span));
        }
        table = entry & pte::ADDRESS;
    }
    None
}

/// Whether `va` is mapped memory of the kernel.
pub(super) fn is_mapped(va: usize) -> bool {
    translate(va).is_some()
}

/// The physical address of any mapped kernel memory, stacks included; 0 if it is not mapped.
pub(super) fn phys_of(at: *const u8) -> u64 {
    translate(at as usize).unwrap_or(0)
}
