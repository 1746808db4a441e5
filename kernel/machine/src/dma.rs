//! Memory that devices read and write.
//!
//! A [`DmaBuffer`] is shared with a device for its whole life (rings, descriptor tables). [`DmaOut`] and [`DmaIn`] own
//! data for the length of one transfer. If one of those is dropped while the device may still use it, the memory is
//! leaked, never freed: say `complete()` when the device has given it back.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use crate::arch;
use crate::mem::{DMA_FRAMES, Frame, OutOfMemory, PAGE_SIZE, alloc_block_reclaim, free_block};

/// Zeroed, physically contiguous, page-aligned memory shared with a device. Freed when dropped: reset the device, or
/// take the buffer out of its reach, before that; else keep the buffer or [`DmaBuffer::leak`] it.
pub struct DmaBuffer {
    phys: u64,
    order: usize,
    len: usize,
}

macro_rules! volatile {
    ($($read:ident $write:ident $type:ty),*) => {$(
        /// Reads one value at byte `offset`, once. Panics if it lies outside or is not aligned.
        #[inline]
        pub fn $read(&self, offset: usize) -> $type {
            let at = self.at(offset, size_of::<$type>(), size_of::<$type>());
            // SAFETY: `at` checked bounds and alignment; no references into the buffer exist.
            unsafe { at.cast::<$type>().read_volatile() }
        }

        /// Writes one value at byte `offset`, once. Panics if it lies outside or is not aligned.
        #[inline]
        pub fn $write(&self, offset: usize, value: $type) {
            let at = self.at(offset, size_of::<$type>(), size_of::<$type>());
            // SAFETY: `at` checked bounds and alignment; no references into the buffer exist.
            unsafe { at.cast::<$type>().write_volatile(value) }
        }
    )*};
}

impl DmaBuffer {
    /// At least `len` bytes; at most 4 MiB.
    pub fn new(len: usize) -> Result<Self, OutOfMemory> {
        let pages = len.div_ceil(PAGE_SIZE).max(1);
        let order = pages.next_power_of_two().ilog2() as usize;
        let phys = alloc_block_reclaim(order)?;
        // SAFETY: the block is ours and this long.
        unsafe { arch::fill(arch::phys_to_virt(phys), 0, PAGE_SIZE << order) };
        arch::dma_register(phys, PAGE_SIZE << order);
        DMA_FRAMES.fetch_add(1 << order, Ordering::Relaxed);
        Ok(Self { phys, order, len })
    }

    /// Physical address of the first byte.
    #[inline]
    pub fn phys(&self) -> u64 {
        self.phys
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a buffer is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never frees the memory: for a device that would not stop.
    pub fn leak(self) {
        core::mem::forget(self);
    }

    #[inline]
    fn at(&self, offset: usize, len: usize, align: usize) -> *mut u8 {
        assert!(
            offset <= self.len && len <= self.len - offset && offset.is_multiple_of(align),
            "bad access to a DMA buffer"
        );
        arch::phys_to_virt(self.phys + offset as u64)
    }

    volatile!(read8 write8 u8, read16 write16 u16, read32 write32 u32, read64 write64 u64);

    /// Copies out. Panics if the range runs past the end.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        // SAFETY: bounds checked; no references into the buffer exist.
        unsafe {
            arch::copy(
                self.at(offset, into.len(), 1),
                into.as_mut_ptr(),
                into.len(),
            )
        }
    }

    /// Copies in. Panics if the range runs past the end.
    pub fn write(&self, offset: usize, from: &[u8]) {
        // SAFETY: bounds checked; no references into the buffer exist.
        unsafe { arch::copy(from.as_ptr(), self.at(offset, from.len(), 1), from.len()) }
    }

    /// The two bytes at `offset` as an atomic, for ring indices. Panics if they lie outside or are not aligned.
    #[inline]
    pub fn atomic16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: bounds and alignment checked; the memory lives as long as `self`; all access is atomic or volatile.
        unsafe { AtomicU16::from_ptr(self.at(offset, 2, 2).cast()) }
    }

    /// The four bytes at `offset` as an atomic.
    #[inline]
    pub fn atomic32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `atomic16`.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4, 4).cast()) }
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        arch::dma_unregister(self.phys);
        DMA_FRAMES.fetch_sub(1 << self.order, Ordering::Relaxed);
        // SAFETY: the block is ours alone.
        unsafe { free_block(self.phys, self.order) }
    }
}

impl core::fmt::Debug for DmaBuffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "DmaBuffer({:#x}, {})", self.phys, self.len)
    }
}

/// Orders all that this CPU wrote for a device before all that it reads from then on, as when an index is published and
/// then the device's wish to be told of it is looked at.
///
/// A fence of the language does not suffice: QEMU before 8.0 leaves out the fences and locks of a machine that has one
/// emulated CPU, although its devices run on threads of their own, and a queue then waits for ever for a notification.
#[inline]
pub fn barrier() {
    core::sync::atomic::fence(Ordering::SeqCst);
    arch::device_fence();
}

enum Out {
    Bytes(Arc<[u8]>, Range<usize>),
    Boxed(Box<[u8]>),
    Frame(Frame, usize, usize),
}

/// Data that a device reads.
pub struct DmaOut {
    source: ManuallyDrop<Out>,
    phys: u64,
    len: usize,
}

impl DmaOut {
    fn new(source: Out, phys: u64, len: usize) -> Self {
        arch::dma_register(phys, len);
        Self {
            source: ManuallyDrop::new(source),
            phys,
            len,
        }
    }

    /// A part of shared bytes. Panics if the range lies outside them.
    pub fn from_bytes(bytes: Arc<[u8]>, range: Range<usize>) -> Self {
        let part = &bytes[range.clone()];
        let (phys, len) = (arch::heap_phys(part.as_ptr()), part.len());
        Self::new(Out::Bytes(bytes, range), phys, len)
    }

    /// Bytes of one's own.
    pub fn from_box(bytes: Box<[u8]>) -> Self {
        let (phys, len) = (arch::heap_phys(bytes.as_ptr()), bytes.len());
        Self::new(Out::Boxed(bytes), phys, len)
    }

    /// A part of a page. Panics if the range lies outside it.
    pub fn from_frame(frame: Frame, offset: usize, len: usize) -> Self {
        assert!(
            offset <= PAGE_SIZE && len <= PAGE_SIZE - offset,
            "transfer beyond a frame"
        );
        let phys = frame.phys() + offset as u64;
        Self::new(Out::Frame(frame, offset, len), phys, len)
    }

    /// Physical address of the first byte; the data is physically contiguous.
    pub fn phys(&self) -> u64 {
        self.phys
    }

    /// Length in bytes.
    #[expect(
        clippy::len_without_is_empty,
        reason = "it is what is handed to the device"
    )]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The device has read the data and will not again: frees it.
    pub fn complete(self) {
        let _ = self.into_box();
    }

    /// Like [`DmaOut::complete`], but gives the bytes back if they were a box.
    pub fn into_box(self) -> Option<Box<[u8]>> {
        arch::dma_unregister(self.phys);
        match ManuallyDrop::into_inner(self.source) {
            Out::Boxed(bytes) => Some(bytes),
            Out::Bytes(..) | Out::Frame(..) => None,
        }
    }

    /// Like [`DmaOut::complete`], but gives the bytes back if they were shared ones.
    pub fn into_bytes(self) -> Option<(Arc<[u8]>, Range<usize>)> {
        arch::dma_unregister(self.phys);
        match ManuallyDrop::into_inner(self.source) {
            Out::Bytes(bytes, range) => Some((bytes, range)),
            Out::Boxed(_) | Out::Frame(..) => None,
        }
    }

    /// Like [`DmaOut::complete`], but gives the page back if it was one: with offset and length.
    pub fn into_frame(self) -> Option<(Frame, usize, usize)> {
        arch::dma_unregister(self.phys);
        match ManuallyDrop::into_inner(self.source) {
            Out::Frame(frame, offset, len) => Some((frame, offset, len)),
            Out::Boxed(_) | Out::Bytes(..) => None,
        }
    }
}

impl core::fmt::Debug for DmaOut {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "DmaOut({:#x}, {})", self.phys, self.len)
    }
}

enum In {
    /// As a raw pointer: while the device writes, no Rust reference to the bytes may exist.
    Boxed(*mut [u8]),
    Frame(Frame),
}

/// Room that a device writes into.
pub struct DmaIn {
    target: ManuallyDrop<In>,
    phys: u64,
    len: usize,
}

// SAFETY: the raw pointer is an owned box.
unsafe impl Send for DmaIn {}
// SAFETY: `&DmaIn` gives no access to the bytes.
unsafe impl Sync for DmaIn {}

impl DmaIn {
    fn new(target: In, phys: u64, len: usize) -> Self {
        arch::dma_register(phys, len);
        Self {
            target: ManuallyDrop::new(target),
            phys,
            len,
        }
    }

    /// Bytes for the device to overwrite.
    pub fn from_box(bytes: Box<[u8]>) -> Self {
        let (phys, len) = (arch::heap_phys(bytes.as_ptr()), bytes.len());
        Self::new(In::Boxed(Box::into_raw(bytes)), phys, len)
    }

    /// New zeroed bytes for the device to overwrite.
    pub fn with_len(len: usize) -> Self {
        Self::from_box(vec![0; len].into_boxed_slice())
    }

    /// A part of a page. Panics if the range lies outside it.
    pub fn from_frame(frame: Frame, offset: usize, len: usize) -> Self {
        assert!(
            offset <= PAGE_SIZE && len <= PAGE_SIZE - offset,
            "transfer beyond a frame"
        );
        let phys = frame.phys() + offset as u64;
        Self::new(In::Frame(frame), phys, len)
    }

    /// Physical address of the first byte; the room is physically contiguous.
    pub fn phys(&self) -> u64 {
        self.phys
    }

    /// Length in bytes.
    #[expect(
        clippy::len_without_is_empty,
        reason = "it is what is handed to the device"
    )]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The device is done with it; pages stay with their owners.
    pub fn complete(self) {
        let _ = self.into_box();
    }

    /// The device is done with it: the page, if it was one.
    pub fn into_frame(self) -> Option<Frame> {
        arch::dma_unregister(self.phys);
        match ManuallyDrop::into_inner(self.target) {
            In::Frame(frame) => Some(frame),
            In::Boxed(bytes) => {
                // SAFETY: from `Box::into_raw` in `from_box`; the device no longer writes to it.
                drop(unsafe { Box::from_raw(bytes) });
                None
            }
        }
    }

    /// The device is done with it: the bytes, if it was a box.
    pub fn into_box(self) -> Option<Box<[u8]>> {
        arch::dma_unregister(self.phys);
        match ManuallyDrop::into_inner(self.target) {
            // SAFETY: from `Box::into_raw` in `from_box`; the device no longer writes to it.
            In::Boxed(bytes) => Some(unsafe { Box::from_raw(bytes) }),
            In::Frame(_) => None,
        }
    }
}

impl core::fmt::Debug for DmaIn {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "DmaIn({:#x}, {})", self.phys, self.len)
    }
}

/// For fake devices in hosted tests: access to registered DMA memory by physical address, as a device has it.
#[cfg(not(target_os = "none"))]
pub mod device_side {
    pub use crate::arch::{dma_device_read as read, dma_device_write as write};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_sees_what_was_written_and_only_that() {
        let buffer = DmaBuffer::new(5000).unwrap();
        buffer.write32(8, 0x1234_5678);
        assert_eq!(buffer.atomic32(8).load(Ordering::Relaxed), 0x1234_5678);
        let mut seen = [0; 4];
        assert!(device_side::read(buffer.phys() + 8, &mut seen));
        assert_eq!(u32::from_le_bytes(seen), 0x1234_5678);

        let out = DmaOut::from_bytes(Arc::from(&b"hello world"[..]), 6..11);
        let mut text = [0; 5];
        assert!(device_side::read(out.phys(), &mut text));
        assert_eq!(&text, b"world");
        let at = out.phys();
        out.complete();
        assert!(!device_side::read(at, &mut text));

        let room = DmaIn::with_len(16);
        assert!(device_side::write(room.phys() + 1, b"abc"));
        assert!(!device_side::write(room.phys() + 14, b"abc"));
        assert_eq!(&room.into_box().unwrap()[..5], b"\0abc\0");
    }
}
