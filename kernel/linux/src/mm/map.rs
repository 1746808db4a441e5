//! Making, moving, changing and removing areas: `mmap`, `munmap`, `mprotect`, `mremap`, `brk`.
use alloc::vec::Vec;
use core::ops::Range;

use errno::{Errno, Result};
use machine::mem::{Frame, HUGE_PAGE_SIZE};
use machine::user::Access;

use super::vma::{Backing, PAGE, VmFlags, VmName, VmProt, Vma, VmaSet};
use super::{AddressSpace, MAX_MAP_COUNT, STACK_GUARD, hardware, map_errno};
use crate::uaccess::USER_END;

/// Where a new area may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// At the hint if that is free (0 is no hint), else wherever there is room.
    Anywhere(usize),
    /// There, instead of what is there.
    Fixed(usize),
    /// There, and nowhere else; `EEXIST` if something is there.
    FixedNoReplace(usize),
    /// In the first 2 GiB (`MAP_32BIT`).
    Low,
}

/// A new area.
#[derive(Clone, Debug)]
pub struct MapRequest {
    /// Where.
    pub placement: Placement,
    /// Bytes; rounded up to pages.
    pub len: usize,
    /// Rights.
    pub prot: VmProt,
    /// Rights that may be given later.
    pub max_prot: VmProt,
    /// Properties.
    pub flags: VmFlags,
    /// What it shows.
    pub backing: Backing,
    /// Its name.
    pub name: VmName,
    /// Whether to bring all its pages in at once.
    pub populate: bool,
}

/// The guard that an area keeps below itself.
pub(super) fn guard_of(vma: &Vma) -> usize {
    if vma.flags.contains(VmFlags::GROWSDOWN) {
        STACK_GUARD
    } else {
        0
    }
}

/// `len` in whole pages.
pub(crate) fn page_len(len: usize) -> Result<usize> {
    len.checked_next_multiple_of(PAGE)
        .filter(|len| *len <= USER_END)
        .ok_or(Errno::ENOMEM)
}

/// The page range of `addr` and `len`.
///
/// # Errors
/// `EINVAL` for an address that is not a page's or a range that is not the program's.
pub(crate) fn page_range(addr: usize, len: usize) -> Result<Range<usize>> {
    if !addr.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let len = len.checked_next_multiple_of(PAGE).ok_or(Errno::EINVAL)?;
    let end = addr
        .checked_add(len)
        .filter(|end| *end <= USER_END)
        .ok_or(Errno::EINVAL)?;
    Ok(addr..end)
}

impl AddressSpace {
    /// Maps something; answers where.
    ///
    /// # Errors
    /// As `mmap(2)`: `EINVAL`, `ENOMEM`, `EEXIST`, `EPERM`.
    pub fn map(&self, request: MapRequest) -> Result<usize> {
        if request.len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_len(request.len)?;
        self.check_commit(len, &request)?;
        let (top, min_addr) = {
            let layout = self.layout.lock();
            (layout.mmap_top, layout.min_addr)
        };
        let mut areas = self.areas.write();
        if areas.count() >= MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let start = match request.placement {
            Placement::Fixed(addr) | Placement::FixedNoReplace(addr) => {
                let range = page_range(addr, len).map_err(|_| {
                    if addr.is_multiple_of(PAGE) {
                        Errno::ENOMEM
                    } else {
                        Errno::EINVAL
                    }
                })?;
                if addr < min_addr {
                    return Err(Errno::EPERM);
                }
                if matches!(request.placement, Placement::FixedNoReplace(_)) {
                    if !areas.is_free(range) {
                        return Err(Errno::EEXIST);
                    }
                } else {
                    areas.remove(range.clone());
                    self.drop_pages(range);
                }
                addr
            }
            Placement::Low => {
                let window = 0x4000_0000..0x8000_0000;
                areas
                    .find_gap_up(len, window, PAGE, guard_of)
                    .or_else(|| areas.find_gap_up(len, min_addr..0x8000_0000, PAGE, guard_of))
                    .ok_or(Errno::ENOMEM)?
            }
            Placement::Anywhere(hint) => {
                let align = if wants_huge(len, &request) {
                    HUGE_PAGE_SIZE
                } else {
                    PAGE
                };
                place(&areas, hint, len, align, min_addr..top).ok_or(Errno::ENOMEM)?
            }
        };
        areas.insert(Vma {
            start,
            end: start + len,
            prot: request.prot,
            max_prot: request.max_prot,
            flags: request.flags,
            backing: request.backing,
            name: request.name,
        });
        drop(areas);
        if request.populate {
            self.populate(start..start + len);
        }
        Ok(start)
    }

    /// Linux's heuristic overcommit: only what can obviously never be there is refused.
    fn check_commit(&self, len: usize, request: &MapRequest) -> Result<()> {
        let private_writable =
            request.prot.contains(VmProt::WRITE) && !request.flags.contains(VmFlags::SHARED);
        if private_writable
            && !request.flags.contains(VmFlags::NORESERVE)
            && len / PAGE > machine::mem::stats().total
        {
            return Err(Errno::ENOMEM);
        }
        let limit = crate::process::get().map_or(u64::MAX, |process| {
            process.limits.soft(crate::limits::Resource::As)
        });
        if limit != u64::MAX && (self.areas.read().bytes() + len) as u64 > limit {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Brings in the pages of `range` as far as the rights and the memory allow; what does not
    /// work now will be tried again when the program touches it.
    pub fn populate(&self, range: Range<usize>) {
        for page in range.step_by(PAGE) {
            if self.table.get(page).is_some() {
                continue;
            }
            let access = match self.areas.read().find(page) {
                Some(vma) if vma.prot.contains(VmProt::WRITE) => Access::Write,
                Some(vma) if !vma.prot.is_empty() => Access::Read,
                _ => continue,
            };
            if self.fault(page, access).is_err() {
                return;
            }
        }
    }

    /// Unmaps everything in the range.
    ///
    /// # Errors
    /// `EINVAL` for a bad range, `ENOMEM` when splitting makes too many areas.
    pub fn unmap(&self, addr: usize, len: usize) -> Result<()> {
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let range = page_range(addr, len)?;
        let mut areas = self.areas.write();
        if areas.count() >= MAX_MAP_COUNT
            && areas
                .find(range.start)
                .is_some_and(|vma| vma.start < range.start && range.end < vma.end)
        {
            return Err(Errno::ENOMEM);
        }
        let removed = areas.remove(range);
        for vma in &removed {
            self.drop_pages(vma.range());
        }
        drop(areas);
        // Dropping the last use of an object may write it back: not under the lock.
        drop(removed);
        Ok(())
    }

    /// Changes the rights of a range.
    ///
    /// # Errors
    /// `ENOMEM` where nothing is mapped, `EACCES` where the rights cannot be had.
    pub fn protect(&self, range: Range<usize>, prot: VmProt, grows_down: bool) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let mut areas = self.areas.write();
        let mut range = range;
        if grows_down {
            let stack = areas.find(range.start).ok_or(Errno::ENOMEM)?;
            if !stack.flags.contains(VmFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
            range.start = stack.start;
        }
        // Linux changes what lies before a hole or a refusal, and then fails.
        let mut end = range.start;
        let mut result = Ok(());
        for vma in areas.overlapping(range.clone()) {
            if vma.start > end {
                result = Err(Errno::ENOMEM);
                break;
            }
            if !vma.max_prot.contains(prot) {
                result = Err(Errno::EACCES);
                break;
            }
            end = vma.end;
        }
        if result.is_ok() && end < range.end {
            result = Err(Errno::ENOMEM);
        }
        let range = range.start..end.min(range.end);
        if range.is_empty() {
            return result;
        }
        // Private pages that may be shared with the page cache, and shared pages that must tell of
        // their first store, become writable by a fault.
        self.table
            .protect(range.clone(), hardware(prot.difference(VmProt::WRITE)));
        areas.modify(range, |vma| vma.prot = prot);
        result
    }

    /// `mremap(2)`: resizes or moves one area.
    ///
    /// # Errors
    /// As the manual.
    pub fn remap(&self, old: usize, old_len: usize, new_len: usize, how: Remap) -> Result<usize> {
        if !old.is_multiple_of(PAGE) || new_len == 0 {
            return Err(Errno::EINVAL);
        }
        let (old_len, new_len) = (
            page_len(old_len).map_err(|_| Errno::EINVAL)?,
            page_len(new_len)?,
        );
        let (top, min_addr) = {
            let layout = self.layout.lock();
            (layout.mmap_top, layout.min_addr)
        };
        let mut areas = self.areas.write();
        let vma = areas.find(old).cloned().ok_or(Errno::EFAULT)?;
        if old_len == 0 {
            return self.duplicate(&mut areas, &vma, old, new_len, how, min_addr..top);
        }
        if old + old_len > vma.end {
            return Err(Errno::EFAULT);
        }
        if vma.flags.contains(VmFlags::SPECIAL) {
            return Err(Errno::EINVAL);
        }
        if new_len > old_len && vma.is_private() && new_len / PAGE > machine::mem::stats().total {
            return Err(Errno::ENOMEM);
        }
        let moving = match how {
            Remap::Fixed { to, .. } => {
                let target = page_range(to, new_len)?;
                if target.start < old + old_len && old < target.end {
                    return Err(Errno::EINVAL);
                }
                if to < min_addr {
                    return Err(Errno::EPERM);
                }
                let gone = areas.remove(target.clone());
                self.drop_pages(target);
                drop(gone);
                to
            }
            Remap::InPlace | Remap::MayMove { keep_old: false } => {
                if new_len <= old_len {
                    if new_len < old_len {
                        let tail = old + new_len..old + old_len;
                        areas.remove(tail.clone());
                        self.drop_pages(tail);
                    }
                    return Ok(old);
                }
                let more = old + old_len..old + new_len;
                if old + old_len == vma.end && more.end <= USER_END && areas.is_free(more.clone()) {
                    areas.insert(Vma {
                        start: more.start,
                        end: more.end,
                        backing: vma.backing.advanced(more.start - vma.start),
                        ..vma
                    });
                    return Ok(old);
                }
                if how == Remap::InPlace {
                    return Err(Errno::ENOMEM);
                }
                self.gap_for(&areas, &vma, new_len, min_addr..top)?
            }
            Remap::MayMove { keep_old: true } => {
                self.gap_for(&areas, &vma, new_len, min_addr..top)?
            }
        };
        let keep_old = matches!(
            how,
            Remap::MayMove { keep_old: true } | Remap::Fixed { keep_old: true, .. }
        );
        if keep_old
            && (old_len != new_len
                || !vma.is_private()
                || !matches!(vma.backing, Backing::Anonymous))
        {
            return Err(Errno::EINVAL);
        }
        self.move_area(
            &mut areas,
            &vma,
            old..old + old_len,
            moving,
            new_len,
            keep_old,
        )?;
        Ok(moving)
    }

    fn gap_for(
        &self,
        areas: &VmaSet,
        vma: &Vma,
        len: usize,
        window: Range<usize>,
    ) -> Result<usize> {
        let align = if vma.len() >= HUGE_PAGE_SIZE && len >= HUGE_PAGE_SIZE {
            HUGE_PAGE_SIZE
        } else {
            PAGE
        };
        place(areas, 0, len, align, window).ok_or(Errno::ENOMEM)
    }

    /// `mremap` with an old length of 0: a second view of a shared object.
    fn duplicate(
        &self,
        areas: &mut VmaSet,
        vma: &Vma,
        old: usize,
        len: usize,
        how: Remap,
        window: Range<usize>,
    ) -> Result<usize> {
        if vma.is_private() || vma.flags.contains(VmFlags::SPECIAL) {
            return Err(Errno::EINVAL);
        }
        let start = match how {
            Remap::MayMove { keep_old: false } => self.gap_for(areas, vma, len, window)?,
            Remap::Fixed {
                to,
                keep_old: false,
            } => {
                let target = page_range(to, len)?;
                areas.remove(target.clone());
                self.drop_pages(target);
                to
            }
            _ => return Err(Errno::EINVAL),
        };
        areas.insert(Vma {
            start,
            end: start + len,
            backing: vma.backing.advanced(old - vma.start),
            ..vma.clone()
        });
        Ok(start)
    }

    fn move_area(
        &self,
        areas: &mut VmaSet,
        vma: &Vma,
        from: Range<usize>,
        to: usize,
        new_len: usize,
        keep_old: bool,
    ) -> Result<()> {
        let carried = from.start..from.start + from.len().min(new_len);
        let mut pages: Vec<(usize, Frame)> = Vec::new();
        pages
            .try_reserve(self.table.resident_pages().min(carried.len() / PAGE))
            .map_err(|_| Errno::ENOMEM)?;
        self.table
            .unmap(carried.clone(), &mut |va, frame, _| pages.push((va, frame)));
        let writable = vma.is_private() && matches!(vma.backing, Backing::Anonymous);
        // What may be shared with someone becomes writable by a fault again.
        let prot_of = |frame: &Frame| {
            let own = writable && frame.ref_count() == 1;
            hardware(if own {
                vma.prot
            } else {
                vma.prot.difference(VmProt::WRITE)
            })
        };
        let mut failed = None;
        for (n, (va, frame)) in pages.iter().enumerate() {
            let prot = prot_of(frame);
            if let Err(error) = self.table.map(to + (va - from.start), frame.clone(), prot) {
                failed = Some((n, error));
                break;
            }
        }
        if let Some((_, error)) = failed {
            // Back to where they were; the tables for that are still there.
            self.drop_pages(to..to + new_len);
            for (va, frame) in pages {
                let prot = hardware(vma.prot.difference(VmProt::WRITE));
                self.table.map(va, frame, prot).map_err(map_errno)?;
            }
            return Err(map_errno(error));
        }
        drop(pages);
        self.drop_pages(from.clone());
        let backing = vma.backing.advanced(from.start - vma.start);
        if !keep_old {
            areas.remove(from);
        }
        areas.insert(Vma {
            start: to,
            end: to + new_len,
            backing,
            ..vma.clone()
        });
        Ok(())
    }

    /// `brk(2)`: sets the heap's end and answers what it is now, which is the old one if it cannot be.
    pub fn set_brk(&self, wanted: usize) -> usize {
        let (start, now) = {
            let layout = self.layout.lock();
            (layout.brk_start, layout.brk)
        };
        if wanted < start || start == 0 {
            return now;
        }
        let limit = crate::process::get().map_or(u64::MAX, |process| {
            process.limits.soft(crate::limits::Resource::Data)
        });
        if (wanted - start) as u64 > limit {
            return now;
        }
        let Some(new_end) = wanted
            .checked_next_multiple_of(PAGE)
            .filter(|end| *end <= USER_END)
        else {
            return now;
        };
        let mut areas = self.areas.write();
        // Another thread may have moved it since.
        let mut layout = self.layout.lock();
        let old_end = layout.brk.next_multiple_of(PAGE);
        if new_end < old_end {
            layout.brk = wanted;
            drop(layout);
            areas.remove(new_end..old_end);
            self.drop_pages(new_end..old_end);
            return wanted;
        }
        if new_end > old_end {
            let with_guard = old_end..new_end + PAGE;
            if !areas.is_free(with_guard)
                || areas
                    .find_from(new_end)
                    .is_some_and(|above| above.start.saturating_sub(guard_of(above)) < new_end)
                || (new_end - old_end) / PAGE > machine::mem::stats().total
            {
                return layout.brk;
            }
            areas.insert(Vma {
                start: old_end,
                end: new_end,
                prot: VmProt::READ | VmProt::WRITE,
                max_prot: VmProt::all(),
                flags: VmFlags::empty(),
                backing: Backing::Anonymous,
                name: VmName::Heap,
            });
        }
        layout.brk = wanted;
        wanted
    }
}

/// What `mremap(2)` may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remap {
    /// Only resize.
    InPlace,
    /// Move if need be; with `keep_old` move in any case and leave an empty area behind (`MREMAP_DONTUNMAP`).
    MayMove {
        /// `MREMAP_DONTUNMAP`.
        keep_old: bool,
    },
    /// Move there.
    Fixed {
        /// Where.
        to: usize,
        /// `MREMAP_DONTUNMAP`.
        keep_old: bool,
    },
}

/// Whether an unplaced area is worth starting at a multiple of 2 MiB.
fn wants_huge(len: usize, request: &MapRequest) -> bool {
    len >= HUGE_PAGE_SIZE
        && matches!(request.backing, Backing::Anonymous)
        && !request
            .flags
            .intersects(VmFlags::NOHUGE | VmFlags::GROWSDOWN)
        && request.prot.contains(VmProt::WRITE)
}

fn place(
    areas: &VmaSet,
    hint: usize,
    len: usize,
    align: usize,
    window: Range<usize>,
) -> Option<usize> {
    let hint = hint / PAGE * PAGE;
    if hint >= window.start
        && let Some(end) = hint.checked_add(len).filter(|end| *end <= USER_END)
        && areas.is_free(hint..end)
        && areas
            .find_from(end)
            .is_none_or(|above| above.start.saturating_sub(guard_of(above)) >= end)
    {
        return Some(hint);
    }
    areas
        .find_gap_down(len, window.clone(), align, guard_of)
        .or_else(|| areas.find_gap_down(len, window.clone(), PAGE, guard_of))
        // Full below: what lies above the mapping area up to the stack.
        .or_else(|| areas.find_gap_up(len, window.end..USER_END, PAGE, guard_of))
}
