//! Virtual memory areas: which addresses the program has, with which rights, backed by what.
//!
//! Pure bookkeeping without pages or locks; [`super::AddressSpace`] puts both around it.
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::pager::Pager;

/// Bytes in a page.
pub const PAGE: usize = 4096;

bitflags::bitflags! {
    /// Rights of an area (`PROT_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct VmProt: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXEC = 4;
    }
}

bitflags::bitflags! {
    /// Properties of an area.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct VmFlags: u32 {
        /// Stores reach the backing object and everyone else who maps it.
        const SHARED = 1;
        /// Grows towards lower addresses when the program touches what lies below (a stack).
        const GROWSDOWN = 2;
        /// `mlock(2)`: present, and stays so.
        const LOCKED = 4;
        /// Does not count against the memory the program may be promised.
        const NORESERVE = 8;
        /// `MADV_HUGEPAGE`.
        const HUGE = 16;
        /// `MADV_NOHUGEPAGE`, and stacks.
        const NOHUGE = 32;
        /// `MADV_DONTDUMP`.
        const DONTDUMP = 64;
        /// `MADV_DONTFORK`; nothing forks here, it is kept for `smaps`.
        const DONTFORK = 128;
        /// `MADV_RANDOM`.
        const RANDOM = 256;
        /// `MADV_SEQUENTIAL`.
        const SEQUENTIAL = 512;
        /// The kernel's own pages (vDSO): no `mremap`, no change of rights beyond `READ|EXEC`.
        const SPECIAL = 1024;
        /// `MADV_WIPEONFORK`.
        const WIPEONFORK = 2048;
    }
}

/// What stands behind the last column of `/proc/self/maps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum VmName {
    /// Nothing, or the backing file's path.
    #[default]
    None,
    /// `[heap]`.
    Heap,
    /// `[stack]`.
    Stack,
    /// `[vvar]`.
    Vvar,
    /// `[vdso]`.
    Vdso,
}

/// Where the pages come from.
#[derive(Clone)]
pub enum Backing {
    /// Zeroes.
    Anonymous,
    /// Page `offset / 4096` and following of an object: a file's page cache, shared memory, the vDSO.
    Object {
        /// The object.
        pager: Arc<dyn Pager>,
        /// Byte offset in it of the area's start.
        offset: u64,
    },
}

impl core::fmt::Debug for Backing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Backing::Anonymous => f.write_str("anonymous"),
            Backing::Object { pager, offset } => write!(f, "object {:#x}+{offset:#x}", pager.id()),
        }
    }
}

impl Backing {
    /// The same backing, `bytes` further in.
    pub fn advanced(&self, bytes: usize) -> Backing {
        match self {
            Backing::Anonymous => Backing::Anonymous,
            Backing::Object { pager, offset } => Backing::Object {
                pager: pager.clone(),
                offset: offset + bytes as u64,
            },
        }
    }

    /// Whether `next`, `len` bytes behind, goes on where this ends.
    fn continues(&self, len: usize, next: &Backing) -> bool {
        match (self, next) {
            (Backing::Anonymous, Backing::Anonymous) => true,
            (
                Backing::Object {
                    pager: a,
                    offset: x,
                },
                Backing::Object {
                    pager: b,
                    offset: y,
                },
            ) => a.id() == b.id() && x + len as u64 == *y,
            _ => false,
        }
    }
}

/// One area.
#[derive(Clone, Debug)]
pub struct Vma {
    /// First address.
    pub start: usize,
    /// First address behind it.
    pub end: usize,
    /// Rights.
    pub prot: VmProt,
    /// Rights that `mprotect(2)` may give.
    pub max_prot: VmProt,
    /// Properties.
    pub flags: VmFlags,
    /// Where its pages come from.
    pub backing: Backing,
    /// Its name where it is not the backing's.
    pub name: VmName,
}

impl Vma {
    /// The addresses.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether it has no bytes; one in a [`VmaSet`] always has some.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether stores stay the program's own.
    pub fn is_private(&self) -> bool {
        !self.flags.contains(VmFlags::SHARED)
    }

    /// The page of the backing object that `addr` shows.
    pub fn page_index(&self, addr: usize) -> Option<u64> {
        match &self.backing {
            Backing::Anonymous => None,
            Backing::Object { offset, .. } => {
                Some((offset + (addr - self.start) as u64) / PAGE as u64)
            }
        }
    }

    /// The part of it within `range`, which must meet it.
    fn part(&self, range: &Range<usize>) -> Vma {
        let (start, end) = (self.start.max(range.start), self.end.min(range.end));
        Vma {
            start,
            end,
            backing: self.backing.advanced(start - self.start),
            ..self.clone()
        }
    }

    fn joins(&self, next: &Vma) -> bool {
        self.end == next.start
            && self.prot == next.prot
            && self.max_prot == next.max_prot
            && self.flags == next.flags
            && self.name == next.name
            && self.backing.continues(self.len(), &next.backing)
    }
}

/// All areas, disjoint and in order.
#[derive(Debug, Default)]
pub struct VmaSet {
    areas: BTreeMap<usize, Vma>,
    bytes: usize,
}

impl VmaSet {
    /// None.
    pub const fn new() -> Self {
        VmaSet {
            areas: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// How many areas.
    pub fn count(&self) -> usize {
        self.areas.len()
    }

    /// The sum of their lengths.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// In order of address.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.areas.values()
    }

    /// The area that holds `addr`.
    pub fn find(&self, addr: usize) -> Option<&Vma> {
        self.areas
            .range(..=addr)
            .next_back()
            .map(|(_, vma)| vma)
            .filter(|vma| addr < vma.end)
    }

    /// The first area that ends above `addr`: it holds `addr` or lies above it.
    pub fn find_from(&self, addr: usize) -> Option<&Vma> {
        self.find(addr)
            .or_else(|| self.areas.range(addr..).next().map(|(_, vma)| vma))
    }

    /// The last area that ends at or below `addr`.
    pub fn below(&self, addr: usize) -> Option<&Vma> {
        self.areas
            .range(..addr)
            .next_back()
            .map(|(_, vma)| vma)
            .filter(|vma| vma.end <= addr)
    }

    /// Areas that meet `range`, in order.
    pub fn overlapping(&self, range: Range<usize>) -> impl Iterator<Item = &Vma> {
        let first = self.find(range.start).map_or(range.start, |vma| vma.start);
        self.areas
            .range(first..range.end.max(first))
            .map(|(_, vma)| vma)
    }

    /// Whether nothing lies in `range`.
    pub fn is_free(&self, range: Range<usize>) -> bool {
        self.overlapping(range).next().is_none()
    }

    /// Whether areas cover `range` without a hole.
    pub fn covers(&self, range: Range<usize>) -> bool {
        let mut at = range.start;
        for vma in self.overlapping(range.clone()) {
            if vma.start > at {
                return false;
            }
            at = vma.end;
        }
        at >= range.end
    }

    /// Adds an area where nothing is, and joins it with its neighbours when they are alike.
    pub fn insert(&mut self, mut vma: Vma) {
        debug_assert!(
            vma.start < vma.end && self.is_free(vma.range()),
            "areas are disjoint"
        );
        self.bytes += vma.len();
        if let Some((&start, before)) = self.areas.range(..vma.start).next_back()
            && before.joins(&vma)
        {
            vma = Vma {
                end: vma.end,
                ..before.clone()
            };
            self.areas.remove(&start);
        }
        if let Some((&start, after)) = self.areas.range(vma.end..).next()
            && vma.joins(after)
        {
            vma.end = after.end;
            self.areas.remove(&start);
        }
        self.areas.insert(vma.start, vma);
    }

    /// Takes out everything in `range`, splitting areas that reach beyond it.
    pub fn remove(&mut self, range: Range<usize>) -> Vec<Vma> {
        let hit: Vec<Vma> = self.overlapping(range.clone()).cloned().collect();
        let mut removed = Vec::with_capacity(hit.len());
        for vma in hit {
            self.areas.remove(&vma.start);
            let inner = vma.part(&range);
            self.bytes -= inner.len();
            if vma.start < inner.start {
                let left = vma.part(&(vma.start..inner.start));
                self.areas.insert(left.start, left);
            }
            if inner.end < vma.end {
                let right = vma.part(&(inner.end..vma.end));
                self.areas.insert(right.start, right);
            }
            removed.push(inner);
        }
        removed
    }

    /// Changes the areas in `range`, splitting and joining as needed.
    pub fn modify(&mut self, range: Range<usize>, change: impl Fn(&mut Vma)) {
        for mut vma in self.remove(range) {
            change(&mut vma);
            self.insert(vma);
        }
    }

    /// The highest free range of `len` bytes within `within`, its start a multiple of `align`, that
    /// keeps `guard(above)` bytes below the area above it.
    pub fn find_gap_down(
        &self,
        len: usize,
        within: Range<usize>,
        align: usize,
        guard: impl Fn(&Vma) -> usize,
    ) -> Option<usize> {
        let mut top = within.end;
        let fits = |bottom: usize, top: usize| {
            let start = top.checked_sub(len)? / align * align;
            (start >= bottom && start >= within.start).then_some(start)
        };
        // An area that reaches over the end of the window, or one whose guard does.
        if let Some(above) = self.find_from(within.end) {
            top = top.min(above.start.saturating_sub(guard(above)));
        }
        for vma in self.areas.range(..within.end).rev().map(|(_, vma)| vma) {
            if let Some(start) = fits(vma.end, top) {
                return Some(start);
            }
            top = top.min(vma.start.saturating_sub(guard(vma)));
            if top < within.start {
                return None;
            }
        }
        fits(0, top)
    }

    /// The lowest free range of `len` bytes within `within`.
    pub fn find_gap_up(
        &self,
        len: usize,
        within: Range<usize>,
        align: usize,
        guard: impl Fn(&Vma) -> usize,
    ) -> Option<usize> {
        let mut bottom = within.start;
        for vma in self.overlapping(within.clone()) {
            let start = bottom.next_multiple_of(align);
            if start.checked_add(len)? <= vma.start.saturating_sub(guard(vma)) {
                return Some(start);
            }
            bottom = bottom.max(vma.end);
        }
        let start = bottom.checked_next_multiple_of(align)?;
        (start.checked_add(len)? <= within.end).then_some(start)
    }
}

#[cfg(test)]
#[path = "vma_tests.rs"]
mod tests;
