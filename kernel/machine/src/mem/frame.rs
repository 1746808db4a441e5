//! [`Frame`] and [`HugeFrame`]: owned, reference-counted physical pages, accessed by copy.

use core::fmt;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use super::{
    BUDDY, HUGE_ORDER, HUGE_PAGE_SIZE, OutOfMemory, PAGE_SIZE, alloc_block, alloc_block_reclaim,
    ensure_init, free_block, index_of, info, kind, phys_of,
};
use crate::arch;
use crate::cpu::{MAX_CPUS, PerCpu};
use crate::sync::IrqLock;
use crate::user::Fault;

/// Frames kept by each CPU, so that most allocations take no shared lock.
const CACHE: usize = 64;
const BATCH: usize = 16;

struct Cache {
    len: usize,
    frames: [u64; CACHE],
}

static CACHES: PerCpu<IrqLock<Cache>> = PerCpu::new(
    [const {
        IrqLock::new(Cache {
            len: 0,
            frames: [0; CACHE],
        })
    }; MAX_CPUS],
);
static CACHED: AtomicUsize = AtomicUsize::new(0);

/// Frames in the CPUs' caches.
pub(super) fn cached() -> usize {
    CACHED.load(Ordering::Relaxed)
}

/// Empties this CPU's cache, so that its frames can form larger blocks.
pub(super) fn drain_local() {
    let mut cache = CACHES.get().lock();
    let mut buddy = BUDDY.lock();
    while cache.len > 0 {
        cache.len -= 1;
        CACHED.fetch_sub(1, Ordering::Relaxed);
        let phys = cache.frames[cache.len];
        buddy.release(index_of(phys), 0);
    }
}

fn alloc_frame() -> Result<u64, OutOfMemory> {
    ensure_init();
    {
        let mut cache = CACHES.get().lock();
        if cache.len == 0 {
            let mut buddy = BUDDY.lock();
            while cache.len < BATCH {
                let Some(index) = buddy.alloc(0) else { break };
                let at = cache.len;
                cache.frames[at] = phys_of(index);
                cache.len += 1;
            }
            CACHED.fetch_add(cache.len, Ordering::Relaxed);
        }
        if cache.len > 0 {
            cache.len -= 1;
            CACHED.fetch_sub(1, Ordering::Relaxed);
            return Ok(cache.frames[cache.len]);
        }
    }
    alloc_block_reclaim(0)
}

fn free_frame(phys: u64) {
    let mut cache = CACHES.get().lock();
    if cache.len == CACHE {
        let mut buddy = BUDDY.lock();
        for _ in 0..BATCH {
            cache.len -= 1;
            let phys = cache.frames[cache.len];
            buddy.release(index_of(phys), 0);
        }
        CACHED.fetch_sub(BATCH, Ordering::Relaxed);
    }
    let at = cache.len;
    cache.frames[at] = phys;
    cache.len += 1;
    CACHED.fetch_add(1, Ordering::Relaxed);
}

/// An owner of one physical page. `clone` adds an owner; the page is freed with its last one.
pub struct Frame {
    phys: NonZeroU64,
}

impl Frame {
    /// A page with unspecified content: the caller overwrites all of it before anyone else can see it.
    pub fn alloc() -> Result<Self, OutOfMemory> {
        let phys = alloc_frame()?;
        info(phys).refs.store(1, Ordering::Relaxed);
        info(phys).kind.store(kind::USED, Ordering::Relaxed);
        // Frame 0 is never given to the allocator.
        Ok(Self {
            phys: NonZeroU64::new(phys).ok_or(OutOfMemory)?,
        })
    }

    /// A page of zeroes.
    pub fn alloc_zeroed() -> Result<Self, OutOfMemory> {
        let frame = Self::alloc()?;
        frame.zero();
        Ok(frame)
    }

    /// Physical address, a multiple of [`PAGE_SIZE`].
    #[inline]
    pub fn phys(&self) -> u64 {
        self.phys.get()
    }

    /// Number of owners now. `1` means that the caller is the only one.
    #[inline]
    pub fn ref_count(&self) -> u32 {
        info(self.phys()).refs.load(Ordering::Acquire)
    }

    #[inline]
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset <= PAGE_SIZE && len <= PAGE_SIZE - offset,
            "access beyond a frame"
        );
        arch::phys_to_virt(self.phys() + offset as u64)
    }

    /// Copies from the page, starting at byte `offset`. Panics if that runs past its end.
    #[inline]
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: `at` checked the range; the page is owned, so it stays; `into` is a kernel slice, and kernel
        // slices never overlap frames. The program may write meanwhile: the copy is by volatile-like assembly.
        unsafe { arch::copy(from, into.as_mut_ptr(), into.len()) }
    }

    /// Copies into the page, starting at byte `offset`. Panics if that runs past its end.
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) {
        let into = self.at(offset, from.len());
        // SAFETY: as in `read`.
        unsafe { arch::copy(from.as_ptr(), into, from.len()) }
    }

    /// Fills the whole page with zeroes.
    #[inline]
    pub fn zero(&self) {
        self.fill(0, PAGE_SIZE, 0);
    }

    /// Fills `len` bytes at `offset` with `byte`. Panics if that runs past the end.
    #[inline]
    pub fn fill(&self, offset: usize, len: usize, byte: u8) {
        let at = self.at(offset, len);
        // SAFETY: `at` checked the range; the page is owned.
        unsafe { arch::fill(at, byte, len) }
    }

    /// Copies a whole page.
    pub fn copy_from(&self, source: &Frame) {
        if self.phys != source.phys {
            // SAFETY: two different pages, both owned.
            unsafe { arch::copy(source.at(0, PAGE_SIZE), self.at(0, PAGE_SIZE), PAGE_SIZE) }
        }
    }

    /// Copies `len` bytes at `offset` to the program's memory at `user`.
    pub fn copy_to_user(&self, offset: usize, len: usize, user: usize) -> Result<(), Fault> {
        let from = self.at(offset, len);
        // SAFETY: the source range was checked and is owned.
        unsafe { arch::copy_to_user(user, from, len) }
    }

    /// Copies `len` bytes of the program's memory at `user` into the page at `offset`.
    pub fn copy_from_user(&self, offset: usize, len: usize, user: usize) -> Result<(), Fault> {
        let into = self.at(offset, len);
        // SAFETY: the destination range was checked and is owned; nobody holds references into frames.
        unsafe { arch::copy_from_user(user, into, len) }
    }

    /// Reads a little-endian word at `offset`.
    pub fn read_u64(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Whether all bytes are zero.
    pub fn is_zero(&self) -> bool {
        let mut buffer = [0u8; 512];
        (0..PAGE_SIZE / 512).all(|i| {
            self.read(i * 512, &mut buffer);
            buffer.iter().all(|&b| b == 0)
        })
    }

    /// Gives the ownership up as a bare address, for a page table entry.
    #[inline]
    pub(crate) fn into_phys(self) -> u64 {
        let phys = self.phys();
        core::mem::forget(self);
        phys
    }

    /// Takes up an ownership given up by [`Frame::into_phys`].
    ///
    /// # Safety
    /// Each call must pair with one `into_phys` of the same address.
    #[inline]
    pub(crate) unsafe fn from_phys(phys: u64) -> Self {
        Self {
            // SAFETY: `into_phys` returns no zero.
            phys: unsafe { NonZeroU64::new_unchecked(phys) },
        }
    }
}

impl Clone for Frame {
    #[inline]
    fn clone(&self) -> Self {
        let before = info(self.phys()).refs.fetch_add(1, Ordering::Relaxed);
        // As `Arc` does: far fewer owners than this exist, unless they were leaked in a loop.
        assert!(before < i32::MAX as u32, "too many owners of a frame");
        Self { phys: self.phys }
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        if info(self.phys()).refs.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            free_frame(self.phys());
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:#x})", self.phys())
    }
}

impl PartialEq for Frame {
    /// Whether both own the same page.
    fn eq(&self, other: &Self) -> bool {
        self.phys == other.phys
    }
}

impl Eq for Frame {}

/// The only owner of 2 MiB of physically contiguous, aligned memory.
pub struct HugeFrame {
    phys: NonZeroU64,
}

impl HugeFrame {
    /// Zeroed memory. Fails when no such block is free: fall back to single frames.
    pub fn alloc_zeroed() -> Result<Self, OutOfMemory> {
        let phys = alloc_block(HUGE_ORDER).ok_or(OutOfMemory)?;
        // SAFETY: the block is ours, and this long.
        unsafe { arch::fill(arch::phys_to_virt(phys), 0, HUGE_PAGE_SIZE) };
        Ok(Self {
            phys: NonZeroU64::new(phys).ok_or(OutOfMemory)?,
        })
    }

    /// Physical address, a multiple of [`HUGE_PAGE_SIZE`].
    pub fn phys(&self) -> u64 {
        self.phys.get()
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset <= HUGE_PAGE_SIZE && len <= HUGE_PAGE_SIZE - offset,
            "access beyond a huge frame"
        );
        arch::phys_to_virt(self.phys() + offset as u64)
    }

    /// Copies out. Panics if the range runs past the end.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        // SAFETY: checked by `at`; owned.
        unsafe { arch::copy(self.at(offset, into.len()), into.as_mut_ptr(), into.len()) }
    }

    /// Copies in. Panics if the range runs past the end.
    pub fn write(&self, offset: usize, from: &[u8]) {
        // SAFETY: checked by `at`; owned.
        unsafe { arch::copy(from.as_ptr(), self.at(offset, from.len()), from.len()) }
    }

    /// Splits it into its 512 frames, in order of address. The huge frame goes on to exist only as these.
    pub fn split(self) -> impl ExactSizeIterator<Item = Frame> {
        let phys = self.into_phys();
        (0..512u16).map(move |i| {
            let phys = phys + u64::from(i) * PAGE_SIZE as u64;
            let info = info(phys);
            info.refs.store(1, Ordering::Relaxed);
            info.order.store(0, Ordering::Relaxed);
            info.kind.store(kind::USED, Ordering::Relaxed);
            // SAFETY: each of the 512 frames gets its one owner here.
            unsafe { Frame::from_phys(phys) }
        })
    }

    pub(crate) fn into_phys(self) -> u64 {
        let phys = self.phys();
        core::mem::forget(self);
        phys
    }
}

impl Drop for HugeFrame {
    fn drop(&mut self) {
        // SAFETY: the only owner is going away.
        unsafe { free_block(self.phys(), HUGE_ORDER) }
    }
}

impl fmt::Debug for HugeFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HugeFrame({:#x})", self.phys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_counted_and_content_is_kept() {
        let frame = Frame::alloc_zeroed().unwrap();
        assert!(frame.is_zero());
        frame.write(100, b"hello");
        let second = frame.clone();
        assert_eq!(frame.ref_count(), 2);
        drop(frame);
        let mut text = [0; 5];
        second.read(100, &mut text);
        assert_eq!(&text, b"hello");
        assert_eq!(second.ref_count(), 1);
        let copy = Frame::alloc().unwrap();
        copy.copy_from(&second);
        copy.read(100, &mut text);
        assert_eq!(&text, b"hello");
    }

    #[test]
    fn huge_frames_split() {
        let huge = HugeFrame::alloc_zeroed().unwrap();
        huge.write(PAGE_SIZE * 3 + 5, b"x");
        let frames: Vec<_> = huge.split().collect();
        assert_eq!(frames.len(), 512);
        let mut byte = [0];
        frames[3].read(5, &mut byte);
        assert_eq!(&byte, b"x");
        assert!(
            frames
                .iter()
                .enumerate()
                .all(|(i, f)| i == 3 || f.is_zero())
        );
    }

    #[test]
    #[should_panic(expected = "access beyond a frame")]
    fn reads_are_bounded() {
        Frame::alloc_zeroed().unwrap().read(4095, &mut [0; 2]);
    }
}
