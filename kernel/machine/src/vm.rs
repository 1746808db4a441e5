//! The program's address space as the processor sees it: a page table for the user half.
//!
//! What a mapping *means* (files, copy-on-write, growth) is `linux::mm`'s; here are only pages and rights.

use core::ops::Range;

pub use crate::arch::PageTable;
use crate::mem::Frame;

/// Rights of a mapping. Without `read` nothing else counts (a page no one may touch).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub struct Prot {
    /// Loads are allowed.
    pub read: bool,
    /// Stores are allowed.
    pub write: bool,
    /// Instruction fetches are allowed.
    pub exec: bool,
}

impl Prot {
    /// No access.
    pub const NONE: Self = Self {
        read: false,
        write: false,
        exec: false,
    };
    /// Read only.
    pub const R: Self = Self {
        read: true,
        write: false,
        exec: false,
    };
    /// Read and write.
    pub const RW: Self = Self {
        read: true,
        write: true,
        exec: false,
    };
    /// Read and execute.
    pub const RX: Self = Self {
        read: true,
        write: false,
        exec: true,
    };
    /// Everything.
    pub const RWX: Self = Self {
        read: true,
        write: true,
        exec: true,
    };
}

/// What is mapped at an address.
#[derive(Debug)]
pub struct Mapping {
    /// The page, one more owner of it.
    pub frame: Frame,
    /// The rights.
    pub prot: Prot,
    /// It has been used since it was mapped.
    pub accessed: bool,
    /// It has been written to since it was mapped or [`PageTable::clear_dirty`].
    pub dirty: bool,
    /// It is part of a huge page.
    pub huge: bool,
}

/// Why a mapping failed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No memory for the tables.
    OutOfMemory,
    /// The address is not aligned or not in the user half.
    BadAddress,
    /// Something is mapped there already.
    Occupied,
}

impl From<crate::mem::OutOfMemory> for MapError {
    fn from(_: crate::mem::OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// Whether `range` is page-aligned and in the user half.
pub(crate) fn valid_range(range: &Range<usize>) -> bool {
    range.start.is_multiple_of(crate::mem::PAGE_SIZE)
        && range.end.is_multiple_of(crate::mem::PAGE_SIZE)
        && range.start <= range.end
        && range.end <= crate::user::USER_END
}
