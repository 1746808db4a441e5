//! `madvise(2)`, `msync(2)`, `mincore(2)` and `mlock(2)`: what the program says of its memory, and asks.
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering};

use errno::{Errno, Result};

use super::AddressSpace;
use super::vma::{Backing, PAGE, VmFlags, VmProt, Vma};

/// When huge pages are used, as `/sys/kernel/mm/transparent_hugepage/enabled` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HugePages {
    /// Never.
    Never = 0,
    /// Where the program asked with `MADV_HUGEPAGE`.
    Madvise = 1,
    /// Wherever they fit.
    Always = 2,
}

static HUGE_PAGES: AtomicU8 = AtomicU8::new(HugePages::Always as u8);

/// Sets when huge pages are used (manifest key `transparent_hugepage`).
pub fn set_huge_pages(when: HugePages) {
    HUGE_PAGES.store(when as u8, Ordering::Relaxed);
}

pub(super) fn huge_pages_enabled(vma: &Vma) -> bool {
    if crate::syscalls::huge_pages_disabled() {
        return false;
    }
    match HUGE_PAGES.load(Ordering::Relaxed) {
        0 => false,
        1 => vma.flags.contains(VmFlags::HUGE),
        _ => true,
    }
}

impl AddressSpace {
    /// The areas of `range`, cut to it, and whether it has holes.
    fn parts(&self, range: Range<usize>) -> (Vec<Vma>, bool) {
        let areas = self.areas.read();
        let whole = areas.covers(range.clone());
        let parts = areas
            .overlapping(range.clone())
            .map(|vma| {
                let (start, end) = (vma.start.max(range.start), vma.end.min(range.end));
                Vma {
                    start,
                    end,
                    backing: vma.backing.advanced(start - vma.start),
                    ..vma.clone()
                }
            })
            .collect();
        (parts, !whole)
    }

    /// Throws pages away: anonymous memory reads as zero afterwards, files are read again
    /// (`MADV_DONTNEED`, and `MADV_FREE`, which may do it at any time and here does so at once).
    ///
    /// # Errors
    /// `ENOMEM` where nothing is mapped, `EINVAL` for locked memory.
    pub fn discard(&self, range: Range<usize>, anonymous_only: bool) -> Result<()> {
        let areas = self.areas.read();
        for vma in areas.overlapping(range.clone()) {
            if vma.flags.intersects(VmFlags::LOCKED | VmFlags::SPECIAL)
                || anonymous_only
                    && !(vma.is_private() && matches!(vma.backing, Backing::Anonymous))
            {
                return Err(Errno::EINVAL);
            }
            self.drop_pages(vma.start.max(range.start)..vma.end.min(range.end));
        }
        if areas.covers(range) {
            Ok(())
        } else {
            Err(Errno::ENOMEM)
        }
    }

    /// Reads the files behind the range ahead (`MADV_WILLNEED`).
    ///
    /// # Errors
    /// `ENOMEM` where nothing is mapped.
    pub fn will_need(&self, range: Range<usize>) -> Result<()> {
        let (parts, holes) = self.parts(range);
        for vma in &parts {
            if let Backing::Object { pager, offset } = &vma.backing {
                let first = offset / PAGE as u64;
                pager.will_need(first..first + (vma.len() / PAGE) as u64);
            }
        }
        if holes { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Sets and clears properties of the range.
    ///
    /// # Errors
    /// `ENOMEM` where nothing is mapped.
    pub fn change_flags(&self, range: Range<usize>, set: VmFlags, clear: VmFlags) -> Result<()> {
        let mut areas = self.areas.write();
        let whole = areas.covers(range.clone());
        areas.modify(range, |vma| {
            vma.flags = vma.flags.difference(clear).union(set)
        });
        if whole { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// `mlock(2)`: marks the range and brings it in. Nothing is ever swapped out, so this is all there is to it.
    ///
    /// # Errors
    /// `ENOMEM` where nothing is mapped or a page cannot be had.
    pub fn lock(&self, range: Range<usize>, now: bool) -> Result<()> {
        self.change_flags(range.clone(), VmFlags::LOCKED, VmFlags::empty())?;
        if now {
            self.populate(range);
        }
        Ok(())
    }

    /// Bytes of locked areas.
    pub fn locked_bytes(&self) -> usize {
        self.areas
            .read()
            .iter()
            .filter(|vma| vma.flags.contains(VmFlags::LOCKED))
            .map(Vma::len)
            .sum()
    }

    /// Sets or clears [`VmFlags::LOCKED`] on everything (`mlockall(2)`, `munlockall(2)`).
    pub fn lock_all(&self, lock: bool, now: bool) {
        let ranges: Vec<Range<usize>> = self.areas.read().iter().map(Vma::range).collect();
        let (set, clear) = if lock {
            (VmFlags::LOCKED, VmFlags::empty())
        } else {
            (VmFlags::empty(), VmFlags::LOCKED)
        };
        for range in ranges {
            // A range that another thread unmapped meanwhile needs nothing.
            let _ = self.change_flags(range.clone(), set, clear);
            if lock && now {
                self.populate(range);
            }
        }
    }

    /// Whether new areas are locked (`mlockall(MCL_FUTURE)`).
    pub fn locks_future(&self) -> bool {
        self.lock_future.load(Ordering::Relaxed)
    }

    /// Says whether new areas are locked.
    pub fn set_locks_future(&self, lock: bool) {
        self.lock_future.store(lock, Ordering::Relaxed);
    }

    /// Whether the range has no holes.
    ///
    /// # Errors
    /// `ENOMEM` where nothing is mapped.
    pub fn covered(&self, range: Range<usize>) -> Result<()> {
        if self.areas.read().covers(range) {
            Ok(())
        } else {
            Err(Errno::ENOMEM)
        }
    }

    /// `msync(2)`: writes the files behind shared areas back.
    ///
    /// # Errors
    /// `ENOMEM` where nothing is mapped, `EBUSY` for `MS_INVALIDATE` of locked memory, `EIO`.
    pub fn sync(&self, range: Range<usize>, wait: bool, invalidate: bool) -> Result<()> {
        let (parts, holes) = self.parts(range);
        for vma in &parts {
            if invalidate && vma.flags.contains(VmFlags::LOCKED) {
                return Err(Errno::EBUSY);
            }
            if let Backing::Object { pager, offset } = &vma.backing
                && wait
                && !vma.is_private()
            {
                let first = offset / PAGE as u64;
                pager.sync(first..first + (vma.len() / PAGE) as u64)?;
            }
        }
        if holes { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// `mincore(2)`: for each page, whether it is in memory.
    ///
    /// # Errors
    /// `ENOMEM` where nothing is mapped.
    pub fn in_core(&self, range: Range<usize>) -> Result<Vec<u8>> {
        let (parts, holes) = self.parts(range.clone());
        if holes {
            return Err(Errno::ENOMEM);
        }
        let mut answer = Vec::new();
        answer
            .try_reserve_exact(range.len() / PAGE)
            .map_err(|_| Errno::EAGAIN)?;
        for vma in &parts {
            for page in vma.range().step_by(PAGE) {
                let cached = || match (&vma.backing, vma.page_index(page)) {
                    (Backing::Object { pager, .. }, Some(index)) => pager.cached(index).is_some(),
                    _ => false,
                };
                answer.push(u8::from(self.table.get(page).is_some() || cached()));
            }
        }
        Ok(answer)
    }

    /// Whether the range is mapped with at least these rights (`MADV_POPULATE_READ` and `_WRITE`).
    ///
    /// # Errors
    /// `ENOMEM` where nothing is mapped, `EFAULT` or `EHWPOISON` never, `EINVAL` for missing rights.
    pub fn populate_checked(&self, range: Range<usize>, write: bool) -> Result<()> {
        let access = if write {
            machine::user::Access::Write
        } else {
            machine::user::Access::Read
        };
        for page in range.step_by(PAGE) {
            self.fault(page, access).map_err(|error| match error {
                super::fault::FaultError::NoMapping | super::fault::FaultError::OutOfMemory => {
                    Errno::ENOMEM
                }
                super::fault::FaultError::Denied => Errno::EINVAL,
                super::fault::FaultError::Bus => Errno::EFAULT,
            })?;
        }
        Ok(())
    }

    /// Bytes that the program may write privately, for the sum that `CommitLimit` bounds.
    pub fn committed_bytes(&self) -> usize {
        let areas = self.areas.read();
        areas
            .iter()
            .filter(|vma| {
                vma.is_private()
                    && vma.prot.contains(VmProt::WRITE)
                    && !vma.flags.contains(VmFlags::NORESERVE)
            })
            .map(Vma::len)
            .sum()
    }
}
