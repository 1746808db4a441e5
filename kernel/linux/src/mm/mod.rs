//! The program's address space: areas, the pages in them, and what brings the one into the other.
//!
//! [`vma`] is the bookkeeping, [`pager`] what can be mapped, [`fault`] brings pages in, [`map`]
//! makes, moves and removes areas, [`advice`] is `madvise` and its kin, [`report`] what `/proc` shows, [`peek`] looks
//! without touching.
//! System calls and their flags are `syscalls::memory`'s.
//!
//! Locking: `areas` is a sleeping read-write lock. A page fault takes it for reading, so nobody may
//! touch the program's memory while holding it. Pages are put in under `install`, hashed by address,
//! while `areas` is held for reading; whoever holds `areas` for writing is alone.
pub mod advice;
pub mod fault;
pub mod file;
pub mod layout;
pub mod map;
pub mod pager;
pub mod peek;
pub mod report;
pub mod vma;

use alloc::sync::Arc;
use core::ops::Range;

use errno::Errno;
use machine::mem::Frame;
use machine::sync::{Once, SpinLock};
use machine::vm::{MapError, PageTable, Prot};

use self::layout::Layout;
use self::pager::Pager;
use self::vma::{Backing, PAGE, VmProt, Vma, VmaSet};

/// The most areas there may be (`vm.max_map_count`).
pub const MAX_MAP_COUNT: usize = 65530;

/// The distance kept below a growing stack (`stack_guard_gap`).
pub const STACK_GUARD: usize = 256 * PAGE;

const INSTALL_LOCKS: usize = 64;

/// The address space of the process.
pub struct AddressSpace {
    table: PageTable,
    areas: sched::RwLock<VmaSet>,
    install: [SpinLock<()>; INSTALL_LOCKS],
    lock_future: core::sync::atomic::AtomicBool,
    /// The most pages that were present at once, as far as somebody looked.
    peak: core::sync::atomic::AtomicUsize,
    /// Where things lie; set by `exec`.
    pub layout: SpinLock<Layout>,
}

/// The page of zeroes that untouched anonymous memory shows when it is only read.
static ZERO_PAGE: Once<Frame> = Once::new();

/// How an operation on the page table fails for the program.
pub(crate) fn map_errno(error: MapError) -> Errno {
    match error {
        MapError::OutOfMemory | MapError::Occupied => Errno::ENOMEM,
        MapError::BadAddress => Errno::EINVAL,
    }
}

impl AddressSpace {
    /// An empty address space.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(layout: Layout) -> errno::Result<Self> {
        if ZERO_PAGE.get().is_none() {
            let page = Frame::alloc_zeroed().map_err(|_| Errno::ENOMEM)?;
            ZERO_PAGE.call_once(|| page);
        }
        Ok(AddressSpace {
            table: PageTable::new().map_err(|_| Errno::ENOMEM)?,
            areas: sched::RwLock::new(VmaSet::new()),
            install: [const { SpinLock::new(()) }; INSTALL_LOCKS],
            lock_future: core::sync::atomic::AtomicBool::new(false),
            peak: core::sync::atomic::AtomicUsize::new(0),
            layout: SpinLock::new(layout),
        })
    }

    /// Makes the calling thread run in it.
    pub fn activate(&self) {
        self.table.activate();
    }

    fn install_lock(&self, page: usize) -> &SpinLock<()> {
        &self.install[page / PAGE % INSTALL_LOCKS]
    }

    /// Takes all pages of `range` out.
    fn drop_pages(&self, range: Range<usize>) {
        self.peak.fetch_max(
            self.table.resident_pages(),
            core::sync::atomic::Ordering::Relaxed,
        );
        self.table.unmap(range, &mut |_, _, _| {});
    }

    /// Calls `act` with every part of an area that shows pages `pages` of the object `id`.
    fn each_view(&self, id: usize, pages: Range<u64>, act: impl Fn(&Vma, Range<usize>)) {
        let areas = self.areas.read();
        for vma in areas.iter() {
            let Backing::Object { pager, offset } = &vma.backing else {
                continue;
            };
            if pager.id() != id {
                continue;
            }
            let first = offset / PAGE as u64;
            let last = first + (vma.len() / PAGE) as u64;
            let (from, to) = (pages.start.max(first), pages.end.min(last));
            if from < to {
                let start = vma.start + (from - first) as usize * PAGE;
                act(vma, start..start + (to - from) as usize * PAGE);
            }
        }
    }

    /// Takes pages of an object that are gone out of the program's view: the next access asks the object
    /// again. The program's private copies stay, unless the object was `cut` short: then they go too, and
    /// the next access is a `SIGBUS`.
    pub fn forget_pages(&self, id: usize, pages: Range<u64>, cut: bool) {
        self.each_view(id, pages, |vma, range| {
            if cut || !vma.is_private() {
                return self.drop_pages(range);
            }
            for page in range.step_by(PAGE) {
                // A private copy was written to when it was made.
                if self
                    .table
                    .get(page)
                    .is_some_and(|now| !now.dirty && !now.prot.write)
                {
                    self.drop_pages(page..page + PAGE);
                }
            }
        });
    }

    /// Makes the next store to each page tell the object again (`mark_dirty`): called before the
    /// object writes them back. Answers nothing: a page written since was marked at its first store.
    pub fn write_protect(&self, id: usize, pages: Range<u64>) {
        self.each_view(id, pages, |vma, range| {
            if !vma.is_private() && vma.prot.contains(VmProt::WRITE) {
                self.table
                    .protect(range, hardware(vma.prot.difference(VmProt::WRITE)));
            }
        });
    }

    /// The most bytes that were present at once (`VmHWM`), as of the changes that take pages away.
    pub fn peak_resident_bytes(&self) -> usize {
        let now = self.table.resident_pages();
        self.peak
            .fetch_max(now, core::sync::atomic::Ordering::Relaxed)
            .max(now)
            * PAGE
    }

    /// Where in a shared object `addr` lies: its id and the byte offset, or `None` for private memory.
    pub fn shared_place(&self, addr: usize) -> Option<(usize, u64)> {
        let areas = self.areas.read();
        let vma = areas.find(addr).filter(|vma| !vma.is_private())?;
        match &vma.backing {
            Backing::Anonymous => None,
            Backing::Object { pager, offset } => {
                Some((pager.id(), offset + (addr - vma.start) as u64))
            }
        }
    }

    /// The rights at `addr`, or `None` where nothing is mapped.
    pub fn prot_at(&self, addr: usize) -> Option<VmProt> {
        self.areas.read().find(addr).map(|vma| vma.prot)
    }

    /// The object that `addr` shows and the byte offset in it.
    pub fn object_at(&self, addr: usize) -> Option<(Arc<dyn Pager>, u64)> {
        let areas = self.areas.read();
        let vma = areas.find(addr)?;
        match &vma.backing {
            Backing::Anonymous => None,
            Backing::Object { pager, offset } => {
                Some((pager.clone(), offset + (addr - vma.start) as u64))
            }
        }
    }

    /// Whether pages of the object are in the program's view now, so that the page cache keeps them.
    pub fn shows(&self, pager: &dyn Pager) -> bool {
        let areas = self.areas.read();
        areas.iter().any(
            |vma| matches!(&vma.backing, Backing::Object { pager: p, .. } if p.id() == pager.id()),
        )
    }
}

/// The rights as the page table has them: on x86 a page that can be written or executed can be read.
pub(crate) fn hardware(prot: VmProt) -> Prot {
    Prot {
        read: !prot.is_empty(),
        write: prot.contains(VmProt::WRITE),
        exec: prot.contains(VmProt::EXEC),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
