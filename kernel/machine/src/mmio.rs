//! Device registers in memory.

use crate::arch;
use crate::mem::PAGE_SIZE;

/// Why device memory could not be mapped.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MmioError {
    /// The range touches RAM, or the interrupt controllers that this crate owns.
    NotDeviceMemory,
    /// No room for the mapping.
    OutOfMemory,
}

/// A mapped range of device registers. Not cached; never unmapped. `Clone` shares the mapping.
#[derive(Clone, Debug)]
pub struct Mmio {
    base: *mut u8,
    phys: u64,
    len: usize,
}

// SAFETY: registers may be accessed from any CPU; each access is one volatile instruction.
unsafe impl Send for Mmio {}
// SAFETY: as above.
unsafe impl Sync for Mmio {}

macro_rules! registers {
    ($($read:ident $write:ident $type:ty),*) => {$(
        /// Reads a register at byte `offset`. Panics if it lies outside or is not aligned.
        #[inline]
        pub fn $read(&self, offset: usize) -> $type {
            let at = self.at(offset, size_of::<$type>());
            // SAFETY: `at` checked bounds and alignment; device memory holds no Rust objects.
            unsafe { arch::$read(at.cast::<$type>()) }
        }

        /// Writes a register at byte `offset`. Panics if it lies outside or is not aligned.
        #[inline]
        pub fn $write(&self, offset: usize, value: $type) {
            let at = self.at(offset, size_of::<$type>());
            // SAFETY: `at` checked bounds and alignment; device memory holds no Rust objects.
            unsafe { arch::$write(at.cast::<$type>(), value) }
        }
    )*};
}

impl Mmio {
    /// Maps `len` bytes of device registers at physical address `phys`. Refuses RAM.
    pub fn map(phys: u64, len: usize) -> Result<Self, MmioError> {
        let end = phys
            .checked_add(len as u64)
            .filter(|&end| len > 0 && end < 1 << 52)
            .ok_or(MmioError::NotDeviceMemory)?;
        if !arch::is_device_memory(phys, end) {
            return Err(MmioError::NotDeviceMemory);
        }
        let page = phys & !(PAGE_SIZE as u64 - 1);
        let base = arch::map_device(page, (end - page) as usize).ok_or(MmioError::OutOfMemory)?;
        Ok(Self {
            base: base.wrapping_add((phys - page) as usize),
            phys,
            len,
        })
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Physical address of the first byte.
    pub fn phys(&self) -> u64 {
        self.phys
    }

    /// A part of it. Panics if that runs past the end.
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "part beyond device memory"
        );
        Self {
            base: self.base.wrapping_add(offset),
            phys: self.phys + offset as u64,
            len,
        }
    }

    #[inline]
    fn at(&self, offset: usize, size: usize) -> *mut u8 {
        assert!(
            offset <= self.len && size <= self.len - offset,
            "access beyond device memory"
        );
        let at = self.base.wrapping_add(offset);
        assert!(
            (at as usize).is_multiple_of(size),
            "unaligned access to device memory"
        );
        at
    }

    registers!(read8 write8 u8, read16 write16 u16, read32 write32 u32, read64 write64 u64);
}
