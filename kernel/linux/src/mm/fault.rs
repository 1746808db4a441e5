//! Page faults: bringing in the page that the program, or a copy of the kernel's, touched.
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use errno::Errno;
use machine::mem::{Frame, HUGE_PAGE_SIZE, HugeFrame};
use machine::user::{Access, Fault};
use machine::vm::MapError;

use super::pager::Pager;
use super::vma::{Backing, PAGE, VmFlags, VmProt, Vma, VmaSet};
use super::{AddressSpace, STACK_GUARD, ZERO_PAGE, hardware};
use crate::limits::Resource;

/// Why a page could not be brought in, as the signal tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// Nothing is mapped there (`SEGV_MAPERR`).
    NoMapping,
    /// The mapping does not allow the access (`SEGV_ACCERR`).
    Denied,
    /// Past the end of the object, or reading it failed (`BUS_ADRERR`).
    Bus,
    /// No memory is left.
    OutOfMemory,
}

/// Faults that needed no I/O, and those that waited for it.
pub static MINOR_FAULTS: AtomicU64 = AtomicU64::new(0);
/// See [`MINOR_FAULTS`].
pub static MAJOR_FAULTS: AtomicU64 = AtomicU64::new(0);

/// How many pages of a file are mapped around the one that faulted, if they are in memory.
const FAULT_AROUND: usize = 16;
/// How many pages of fresh memory are mapped at once when it is filled upwards.
const ANON_AROUND: usize = 4;

/// A page that was read in while no lock was held, to be used if the area still shows it.
struct Fetched {
    id: usize,
    index: u64,
    frame: Frame,
}

/// What the step under the lock asks for.
enum Step {
    Done,
    /// Fetch that page without the lock, and come back.
    Fetch(Arc<dyn Pager>, u64),
    /// Tell the object that the page will be written, without the lock, and come back.
    Dirty(Arc<dyn Pager>, u64),
    /// The stack may grow down to the address.
    Grow,
}

fn allowed(vma: &Vma, access: Access) -> bool {
    match access {
        Access::Read => !vma.prot.is_empty(),
        Access::Write => vma.prot.contains(VmProt::WRITE),
        Access::Exec => vma.prot.contains(VmProt::EXEC),
    }
}

impl AddressSpace {
    /// Makes the page of `addr` accessible as asked. May sleep for I/O.
    ///
    /// # Errors
    /// What the program is to be told.
    pub fn fault(&self, addr: usize, access: Access) -> Result<(), FaultError> {
        let page = addr / PAGE * PAGE;
        let mut fetched: Option<Fetched> = None;
        let mut marked = None;
        let mut writes: Option<(Arc<dyn Pager>, u64)> = None;
        let mut slept = false;
        // Each round either ends or makes progress (a page read, marked, or the stack grown);
        // the bound is for a file that another thread keeps changing.
        for _ in 0..64 {
            let step = {
                let areas = self.areas.read();
                match areas.find(page) {
                    Some(vma) if !allowed(vma, access) => return Err(FaultError::Denied),
                    Some(vma) => self.bring_in(vma, page, access, fetched.take(), marked.take())?,
                    None if can_grow(&areas, page, self.stack_limit()) => Step::Grow,
                    None => return Err(FaultError::NoMapping),
                }
            };
            match step {
                Step::Done => {
                    let counter = if slept { &MAJOR_FAULTS } else { &MINOR_FAULTS };
                    counter.fetch_add(1, Ordering::Relaxed);
                    // Once more: a write-back may have come between the mark and the mapping.
                    if let Some((pager, index)) = writes {
                        pager.mark_dirty(index).map_err(fault_of)?;
                    }
                    return Ok(());
                }
                Step::Fetch(pager, index) => {
                    slept = true;
                    let frame = pager.page(index).map_err(fault_of)?;
                    fetched = Some(Fetched {
                        id: pager.id(),
                        index,
                        frame,
                    });
                }
                Step::Dirty(pager, index) => {
                    pager.mark_dirty(index).map_err(fault_of)?;
                    marked = Some((pager.id(), index));
                    writes = Some((pager, index));
                }
                Step::Grow => self.grow(page)?,
            }
        }
        Err(FaultError::Bus)
    }

    fn bring_in(
        &self,
        vma: &Vma,
        page: usize,
        access: Access,
        fetched: Option<Fetched>,
        marked: Option<(usize, u64)>,
    ) -> Result<Step, FaultError> {
        let Backing::Object { pager, .. } = &vma.backing else {
            return self.bring_in_anonymous(vma, page, access);
        };
        let index = vma.page_index(page).unwrap_or(0);
        if vma.is_private() && access == Access::Write {
            return self.copy_on_write(vma, page, Some((pager, index)), fetched);
        }
        let writing = access == Access::Write;
        if writing && marked != Some((pager.id(), index)) {
            // Before the page can be written the object must know; it may have to sleep for that.
            return Ok(match self.frame_of(pager, index, &fetched) {
                Some(_) => Step::Dirty(pager.clone(), index),
                None => Step::Fetch(pager.clone(), index),
            });
        }
        let Some(frame) = self.frame_of(pager, index, &fetched) else {
            return Ok(Step::Fetch(pager.clone(), index));
        };
        let mut prot = vma.prot;
        if !writing {
            prot = prot.difference(VmProt::WRITE);
        }
        let _install = self.install_lock(page).lock();
        match self.table.map(page, frame.clone(), hardware(prot)) {
            Ok(()) => {}
            Err(MapError::Occupied) => self.upgrade(vma, page, access, frame.clone(), prot)?,
            Err(MapError::OutOfMemory) => return Err(FaultError::OutOfMemory),
            Err(MapError::BadAddress) => return Err(FaultError::NoMapping),
        }
        if !pager.holds(index, &frame) {
            // It was cut off meanwhile: what is there now is asked again.
            self.drop_pages(page..page + PAGE);
            return Ok(Step::Done);
        }
        drop(_install);
        if !writing && pager.is_file() && !vma.flags.contains(VmFlags::RANDOM) {
            self.map_around(vma, page, pager, index);
        }
        Ok(Step::Done)
    }

    /// Something is mapped at `page` already, but not as `access` needs it.
    fn upgrade(
        &self,
        vma: &Vma,
        page: usize,
        access: Access,
        frame: Frame,
        prot: VmProt,
    ) -> Result<(), FaultError> {
        let Some(present) = self.table.get(page) else {
            return Ok(());
        };
        let enough = match access {
            Access::Read => present.prot.read,
            Access::Write => present.prot.write,
            Access::Exec => present.prot.exec,
        };
        if enough {
            // Another thread was quicker.
            return Ok(());
        }
        if vma.is_private() && present.frame != frame {
            // The program's own copy, whose rights were taken and given back.
            let mut own = vma.prot;
            if present.frame.ref_count() > 2 {
                own = own.difference(VmProt::WRITE);
            }
            self.table.protect(page..page + PAGE, hardware(own));
            return Ok(());
        }
        self.table
            .replace(page, frame, hardware(prot))
            .map(drop)
            .map_err(fault_of_map)
    }

    fn frame_of(
        &self,
        pager: &Arc<dyn Pager>,
        index: u64,
        fetched: &Option<Fetched>,
    ) -> Option<Frame> {
        match fetched {
            Some(page) if page.id == pager.id() && page.index == index => Some(page.frame.clone()),
            _ => pager.cached(index),
        }
    }

    fn bring_in_anonymous(
        &self,
        vma: &Vma,
        page: usize,
        access: Access,
    ) -> Result<Step, FaultError> {
        if access == Access::Write {
            return self.copy_on_write(vma, page, None, None);
        }
        let zero = ZERO_PAGE.get().ok_or(FaultError::OutOfMemory)?;
        let _install = self.install_lock(page).lock();
        match self.table.map(
            page,
            zero.clone(),
            hardware(vma.prot.difference(VmProt::WRITE)),
        ) {
            Ok(()) => Ok(Step::Done),
            Err(MapError::Occupied) => {
                let prot = vma.prot.difference(VmProt::WRITE);
                self.upgrade(vma, page, access, zero.clone(), prot)
                    .map(|()| Step::Done)
            }
            Err(error) => Err(fault_of_map(error)),
        }
    }

    /// A store to private memory: the program gets a page of its own.
    fn copy_on_write(
        &self,
        vma: &Vma,
        page: usize,
        object: Option<(&Arc<dyn Pager>, u64)>,
        fetched: Option<Fetched>,
    ) -> Result<Step, FaultError> {
        let prot = hardware(vma.prot);
        if let Some(present) = self.table.get(page) {
            if present.prot.write {
                return Ok(Step::Done);
            }
            let is_zero = ZERO_PAGE.get().is_some_and(|zero| *zero == present.frame);
            if !is_zero && present.frame.ref_count() == 2 {
                // Only the table and this look own it: nobody else sees it, so it needs no copy.
                let _install = self.install_lock(page).lock();
                if self
                    .table
                    .get(page)
                    .is_some_and(|now| now.frame == present.frame && now.frame.ref_count() <= 3)
                {
                    self.table.protect(page..page + PAGE, prot);
                }
                return Ok(Step::Done);
            }
            let copy = if is_zero {
                Frame::alloc_zeroed()
            } else {
                Frame::alloc().inspect(|copy| copy.copy_from(&present.frame))
            };
            let copy = copy.map_err(|_| FaultError::OutOfMemory)?;
            let _install = self.install_lock(page).lock();
            if self
                .table
                .get(page)
                .is_some_and(|now| now.frame == present.frame && !now.prot.write)
            {
                self.table.replace(page, copy, prot).map_err(fault_of_map)?;
            }
            return Ok(Step::Done);
        }
        let frame = match object {
            Some((pager, index)) => {
                let Some(source) = self.frame_of(pager, index, &fetched) else {
                    return Ok(Step::Fetch(pager.clone(), index));
                };
                let copy = Frame::alloc().map_err(|_| FaultError::OutOfMemory)?;
                copy.copy_from(&source);
                copy
            }
            None => {
                if self.map_huge(vma, page) {
                    return Ok(Step::Done);
                }
                Frame::alloc_zeroed().map_err(|_| FaultError::OutOfMemory)?
            }
        };
        {
            let _install = self.install_lock(page).lock();
            match self.table.map(page, frame, prot) {
                // Someone mapped it meanwhile: the program tries again and faults if that is not enough.
                Ok(()) | Err(MapError::Occupied) => {}
                Err(error) => return Err(fault_of_map(error)),
            }
        }
        if object.is_none() && page >= vma.start + PAGE && self.table.get(page - PAGE).is_some() {
            self.fill_ahead(vma, page);
        }
        Ok(Step::Done)
    }

    /// Memory that is filled upwards is brought in a few pages at a time.
    fn fill_ahead(&self, vma: &Vma, page: usize) {
        let end = (page / (ANON_AROUND * PAGE) + 1) * (ANON_AROUND * PAGE);
        for next in (page + PAGE..end.min(vma.end)).step_by(PAGE) {
            let Ok(frame) = Frame::alloc_zeroed() else {
                return;
            };
            let _install = self.install_lock(next).lock();
            if self.table.map(next, frame, hardware(vma.prot)).is_err() {
                return;
            }
        }
    }

    /// Maps pages around `page` that are in memory already, so that they need no fault of their own.
    fn map_around(&self, vma: &Vma, page: usize, pager: &Arc<dyn Pager>, index: u64) {
        let window = FAULT_AROUND * PAGE;
        let start = (page / window * window).max(vma.start);
        let end = (page / window * window + window).min(vma.end);
        let prot = hardware(vma.prot.difference(VmProt::WRITE));
        for other in (start..end).step_by(PAGE).filter(|other| *other != page) {
            let at = if other > page {
                index + ((other - page) / PAGE) as u64
            } else {
                index - ((page - other) / PAGE) as u64
            };
            let Some(frame) = pager.cached(at) else {
                continue;
            };
            let _install = self.install_lock(other).lock();
            if let Err(MapError::OutOfMemory) = self.table.map(other, frame, prot) {
                return;
            }
        }
    }

    /// Maps 2 MiB at once where the area allows it, memory is plentiful, and nothing is there yet.
    fn map_huge(&self, vma: &Vma, page: usize) -> bool {
        if vma.len() < HUGE_PAGE_SIZE
            || vma.flags.intersects(VmFlags::NOHUGE | VmFlags::GROWSDOWN)
            || !super::advice::huge_pages_enabled(vma)
        {
            return false;
        }
        let start = page / HUGE_PAGE_SIZE * HUGE_PAGE_SIZE;
        if start < vma.start || start + HUGE_PAGE_SIZE > vma.end {
            return false;
        }
        // A few probes spare the zeroing of a page that would not fit.
        let step = HUGE_PAGE_SIZE / 8;
        if (start..start + HUGE_PAGE_SIZE)
            .step_by(step)
            .any(|at| self.table.get(at).is_some())
        {
            return false;
        }
        let stats = machine::mem::stats();
        if !vma.flags.contains(VmFlags::HUGE) && stats.free < stats.total / 4 {
            return false;
        }
        match HugeFrame::alloc_zeroed() {
            Ok(frame) => self
                .table
                .map_huge(start, frame, hardware(vma.prot))
                .is_ok(),
            Err(_) => false,
        }
    }

    fn stack_limit(&self) -> usize {
        let soft =
            crate::process::get().map_or(8 << 20, |process| process.limits.soft(Resource::Stack));
        usize::try_from(soft).unwrap_or(usize::MAX)
    }

    /// Extends the stack above `page` down to it.
    fn grow(&self, page: usize) -> Result<(), FaultError> {
        let limit = self.stack_limit();
        let mut areas = self.areas.write();
        if !can_grow(&areas, page, limit) {
            // Someone was quicker, or took the place; the next round says which.
            return Ok(());
        }
        let Some(stack) = areas.find_from(page).cloned() else {
            return Err(FaultError::NoMapping);
        };
        areas.insert(Vma {
            end: stack.start,
            start: page,
            ..stack
        });
        Ok(())
    }
}

/// Whether the area above `page` is a stack that may grow to it.
fn can_grow(areas: &VmaSet, page: usize, limit: usize) -> bool {
    let Some(stack) = areas.find_from(page) else {
        return false;
    };
    if !stack.flags.contains(VmFlags::GROWSDOWN) || stack.start <= page || stack.end - page > limit
    {
        return false;
    }
    areas.below(stack.start).is_none_or(|below| {
        below.prot.is_empty() && below.end <= page || below.end.saturating_add(STACK_GUARD) <= page
    })
}

fn fault_of(errno: Errno) -> FaultError {
    match errno {
        Errno::ENOMEM => FaultError::OutOfMemory,
        _ => FaultError::Bus,
    }
}

fn fault_of_map(error: MapError) -> FaultError {
    match error {
        MapError::OutOfMemory => FaultError::OutOfMemory,
        MapError::BadAddress | MapError::Occupied => FaultError::NoMapping,
    }
}

/// The handler for faults of the kernel's own copies, for `machine::user::set_fault_handler`.
pub(crate) fn kernel_copy_fault(addr: usize, access: Access) -> Result<(), Fault> {
    let process = crate::process::get().ok_or(Fault)?;
    process.mm.fault(addr, access).map_err(|_| Fault)
}
