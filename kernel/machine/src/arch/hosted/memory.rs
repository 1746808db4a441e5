//! "Physical" memory: an arena of the process, handed to the same allocator as on the real machine; and the devices'
//! view of it for fake devices in tests.

use std::alloc::{Layout, alloc_zeroed};
use std::collections::BTreeMap;
use std::sync::{Mutex, Once};

use crate::mem::{FrameInfo, FrameRange, PAGE_SIZE};

/// Size of the arena. Untouched parts cost nothing.
const ARENA: usize = 1 << 30;

pub(crate) fn memory_init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        let layout = Layout::from_size_align(ARENA, 4 << 20).expect("constant layout");
        // SAFETY: the layout has a size.
        let base = unsafe { alloc_zeroed(layout) };
        assert!(!base.is_null(), "no memory for the arena");
        let frames = ARENA / PAGE_SIZE;
        let table: Vec<FrameInfo> = (0..frames).map(|_| FrameInfo::reserved()).collect();
        let range = FrameRange {
            start: 0,
            end: frames as u32,
        };
        crate::mem::init(
            base.expose_provenance(),
            Vec::leak(table),
            std::iter::once(range),
        );
    });
}

#[inline]
pub(crate) fn phys_to_virt(phys: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(phys as usize)
}

#[inline]
pub(crate) fn heap_phys(at: *const u8) -> u64 {
    at.expose_provenance() as u64
}

/// # Safety
/// Both ranges must be valid for `len` bytes and not overlap.
#[inline]
pub(crate) unsafe fn copy(from: *const u8, into: *mut u8, len: usize) {
    // SAFETY: as required of the caller.
    unsafe { std::ptr::copy_nonoverlapping(from, into, len) }
}

/// # Safety
/// The range must be valid for `len` bytes.
#[inline]
pub(crate) unsafe fn fill(into: *mut u8, byte: u8, len: usize) {
    // SAFETY: as required of the caller.
    unsafe { std::ptr::write_bytes(into, byte, len) }
}

pub(crate) fn is_device_memory(_start: u64, _end: u64) -> bool {
    false
}

pub(crate) fn map_device(_page: u64, _len: usize) -> Option<*mut u8> {
    None
}

macro_rules! no_device {
    ($($read:ident $write:ident $type:ty),*) => {$(
        /// # Safety
        /// `at` must be mapped device memory, of which the host has none.
        pub(crate) unsafe fn $read(at: *mut $type) -> $type {
            // SAFETY: as required of the caller.
            unsafe { at.read_volatile() }
        }

        /// # Safety
        /// `at` must be mapped device memory, of which the host has none.
        pub(crate) unsafe fn $write(at: *mut $type, value: $type) {
            // SAFETY: as required of the caller.
            unsafe { at.write_volatile(value) }
        }
    )*};
}

no_device!(read8 write8 u8, read16 write16 u16, read32 write32 u32, read64 write64 u64);

macro_rules! no_port {
    ($($read:ident $write:ident $type:ty),*) => {$(
        /// An empty bus reads as ones.
        ///
        /// # Safety
        /// None needed on the host.
        pub(crate) unsafe fn $read(_port: u16) -> $type {
            <$type>::MAX
        }

        /// # Safety
        /// None needed on the host.
        pub(crate) unsafe fn $write(_port: u16, _value: $type) {}
    )*};
}

no_port!(in8 out8 u8, in16 out16 u16, in32 out32 u32);

/// Ranges that devices may access now: start to length, and how often registered.
static DMA: Mutex<BTreeMap<u64, (usize, usize)>> = Mutex::new(BTreeMap::new());

pub(crate) fn dma_register(phys: u64, len: usize) {
    let mut ranges = DMA.lock().unwrap_or_else(|e| e.into_inner());
    let entry = ranges.entry(phys).or_insert((0, 0));
    entry.0 = entry.0.max(len);
    entry.1 += 1;
}

pub(crate) fn dma_unregister(phys: u64) {
    let mut ranges = DMA.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(entry) = ranges.get_mut(&phys) {
        entry.1 -= 1;
        if entry.1 == 0 {
            ranges.remove(&phys);
        }
    }
}

fn dma_access(phys: u64, len: usize, access: impl FnOnce(*mut u8)) -> bool {
    let ranges = DMA.lock().unwrap_or_else(|e| e.into_inner());
    let inside = |(&start, &(size, _)): (&u64, &(usize, usize))| {
        phys >= start && (phys - start) as usize <= size && len <= size - (phys - start) as usize
    };
    if !ranges.range(..=phys).rev().take(64).any(inside) {
        return false;
    }
    access(phys_to_virt(phys));
    true
}

/// Reads memory as a device does. False if it was not handed to a device.
pub fn dma_device_read(phys: u64, into: &mut [u8]) -> bool {
    let (to, len) = (into.as_mut_ptr(), into.len());
    // SAFETY: the range is registered, and stays so while the table is locked.
    dma_access(phys, len, |from| unsafe { copy(from, to, len) })
}

/// Writes memory as a device does. False if it was not handed to a device.
pub fn dma_device_write(phys: u64, from: &[u8]) -> bool {
    // SAFETY: the range is registered, and stays so while the table is locked.
    dma_access(phys, from.len(), |into| unsafe {
        copy(from.as_ptr(), into, from.len())
    })
}
