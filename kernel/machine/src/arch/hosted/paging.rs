//! The program's memory as a model: a map from page to frame. Copies go through it as the processor would.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::mem::{Frame, HUGE_PAGE_SIZE, HugeFrame, OutOfMemory, PAGE_SIZE};
use crate::user::{Access, Fault, is_user_range, resolve_fault};
use crate::vm::{MapError, Mapping, Prot, valid_range};

struct Entry {
    frame: Frame,
    prot: Prot,
    accessed: bool,
    dirty: bool,
}

/// The user half of an address space.
#[derive(Clone)]
pub struct PageTable(Arc<Mutex<BTreeMap<usize, Entry>>>);

thread_local! {
    static ACTIVE: RefCell<Option<PageTable>> = const { RefCell::new(None) };
}

impl PageTable {
    /// An empty one.
    pub fn new() -> Result<Self, OutOfMemory> {
        Ok(Self(Arc::default()))
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<usize, Entry>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Maps one page.
    pub fn map(&self, va: usize, frame: Frame, prot: Prot) -> Result<(), MapError> {
        if !va.is_multiple_of(PAGE_SIZE) || !is_user_range(va, PAGE_SIZE) {
            return Err(MapError::BadAddress);
        }
        let mut entries = self.entries();
        if entries.contains_key(&va) {
            return Err(MapError::Occupied);
        }
        entries.insert(
            va,
            Entry {
                frame,
                prot,
                accessed: false,
                dirty: false,
            },
        );
        Ok(())
    }

    /// Maps 2 MiB.
    pub fn map_huge(&self, va: usize, frame: HugeFrame, prot: Prot) -> Result<(), MapError> {
        if !va.is_multiple_of(HUGE_PAGE_SIZE) || !is_user_range(va, HUGE_PAGE_SIZE) {
            return Err(MapError::BadAddress);
        }
        if self
            .entries()
            .range(va..va + HUGE_PAGE_SIZE)
            .next()
            .is_some()
        {
            return Err(MapError::Occupied);
        }
        for (i, frame) in frame.split().enumerate() {
            self.map(va + i * PAGE_SIZE, frame, prot)?;
        }
        Ok(())
    }

    /// Maps a page in place of what is there; returns that.
    pub fn replace(&self, va: usize, frame: Frame, prot: Prot) -> Result<Option<Frame>, MapError> {
        if !va.is_multiple_of(PAGE_SIZE) || !is_user_range(va, PAGE_SIZE) {
            return Err(MapError::BadAddress);
        }
        let old = self.entries().insert(
            va,
            Entry {
                frame,
                prot,
                accessed: false,
                dirty: false,
            },
        );
        Ok(old.map(|e| e.frame))
    }

    /// The first page at or behind that of `va` and before `end` that is mapped.
    pub fn next_mapped(&self, va: usize, end: usize) -> Option<usize> {
        let first = va & !(PAGE_SIZE - 1);
        let entries = self.entries();
        let next = entries.range(first..end.max(first)).next();
        next.map(|(&va, _)| va)
    }

    /// Unmaps all pages of `range`, giving each to `taken` with its address and whether it was written to.
    pub fn unmap(&self, range: Range<usize>, taken: &mut dyn FnMut(usize, Frame, bool)) {
        if !valid_range(&range) {
            return;
        }
        let pages: Vec<usize> = self.entries().range(range).map(|(&va, _)| va).collect();
        for va in pages {
            if let Some(entry) = { self.entries().remove(&va) } {
                taken(va, entry.frame, entry.dirty);
            }
        }
    }

    /// Changes the rights of all mapped pages of `range`.
    pub fn protect(&self, range: Range<usize>, prot: Prot) {
        if valid_range(&range) {
            self.entries()
                .range_mut(range)
                .for_each(|(_, e)| e.prot = prot);
        }
    }

    /// What is mapped at the page of `va`.
    pub fn get(&self, va: usize) -> Option<Mapping> {
        self.entries()
            .get(&(va & !(PAGE_SIZE - 1)))
            .map(|e| Mapping {
                frame: e.frame.clone(),
                prot: e.prot,
                accessed: e.accessed,
                dirty: e.dirty,
                huge: false,
            })
    }

    /// Forgets that pages of `range` were written to, after telling `written` of each that was.
    pub fn clear_dirty(&self, range: Range<usize>, written: &mut dyn FnMut(usize, &Frame)) {
        if !valid_range(&range) {
            return;
        }
        for (&va, entry) in self.entries().range_mut(range) {
            if std::mem::take(&mut entry.dirty) {
                written(va, &entry.frame);
            }
        }
    }

    /// Forgets that pages of `range` were used; returns how many had been.
    pub fn clear_accessed(&self, range: Range<usize>) -> usize {
        if !valid_range(&range) {
            return 0;
        }
        self.entries()
            .range_mut(range)
            .filter_map(|(_, e)| std::mem::take(&mut e.accessed).then_some(()))
            .count()
    }

    /// Number of pages mapped.
    pub fn resident_pages(&self) -> usize {
        self.entries().len()
    }

    /// Makes it the address space of the current task, from now on and wherever it runs.
    pub fn activate(&self) {
        ACTIVE.set(Some(self.clone()));
    }
}

impl std::fmt::Debug for PageTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageTable({} pages)", self.resident_pages())
    }
}

/// Calls `visit` with the frame, the offset in it, the offset in the whole and the length of each piece of a range.
fn walk(
    addr: usize,
    len: usize,
    access: Access,
    mut visit: impl FnMut(&Frame, usize, usize, usize),
) -> Result<(), Fault> {
    if !is_user_range(addr, len) {
        return Err(Fault);
    }
    let mut done = 0;
    while done < len {
        let at = addr + done;
        let offset = at % PAGE_SIZE;
        let piece = (len - done).min(PAGE_SIZE - offset);
        let active = ACTIVE.with_borrow(Clone::clone).ok_or(Fault)?;
        let mut tries = 0;
        loop {
            {
                let mut entries = active.entries();
                if let Some(entry) = entries.get_mut(&(at - offset)) {
                    let allowed = match access {
                        Access::Read => entry.prot.read,
                        Access::Write => entry.prot.write,
                        Access::Exec => entry.prot.exec,
                    };
                    if allowed {
                        entry.accessed = true;
                        entry.dirty |= access == Access::Write;
                        visit(&entry.frame, offset, done, piece);
                        break;
                    }
                }
            }
            tries += 1;
            if tries > 16 {
                return Err(Fault);
            }
            resolve_fault(at, access)?;
        }
        done += piece;
    }
    Ok(())
}

/// # Safety
/// `into` must be valid for writes of `len` bytes.
pub(crate) unsafe fn copy_from_user(from: usize, into: *mut u8, len: usize) -> Result<(), Fault> {
    walk(from, len, Access::Read, |frame, offset, done, n| {
        let src = super::phys_to_virt(frame.phys() + offset as u64);
        // SAFETY: `walk` stays within the frame and within `len`.
        unsafe { super::copy(src, into.add(done), n) }
    })
}

/// # Safety
/// `from` must be valid for reads of `len` bytes.
pub(crate) unsafe fn copy_to_user(into: usize, from: *const u8, len: usize) -> Result<(), Fault> {
    walk(into, len, Access::Write, |frame, offset, done, n| {
        let dst = super::phys_to_virt(frame.phys() + offset as u64);
        // SAFETY: `walk` stays within the frame and within `len`.
        unsafe { super::copy(from.add(done), dst, n) }
    })
}

fn with_word<R>(
    addr: usize,
    access: Access,
    act: impl FnOnce(&std::sync::atomic::AtomicU32) -> R,
) -> Result<R, Fault> {
    let mut act = Some(act);
    let mut result = None;
    walk(addr, 4, access, |frame, offset, _, _| {
        let at = super::phys_to_virt(frame.phys() + offset as u64);
        // SAFETY: the caller checked that `addr` is aligned; the frame is owned by the table, which is locked.
        let word = unsafe { std::sync::atomic::AtomicU32::from_ptr(at.cast()) };
        result = act.take().map(|act| act(word));
    })?;
    result.ok_or(Fault)
}

pub(crate) fn user_load_u32(addr: usize) -> Result<u32, Fault> {
    with_word(addr, Access::Read, |w| {
        w.load(std::sync::atomic::Ordering::SeqCst)
    })
}

pub(crate) fn user_cmpxchg_u32(addr: usize, old: u32, new: u32) -> Result<u32, Fault> {
    use std::sync::atomic::Ordering::SeqCst;
    with_word(addr, Access::Write, |w| {
        w.compare_exchange(old, new, SeqCst, SeqCst)
            .unwrap_or_else(|is| is)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user;

    #[test]
    fn copies_go_through_the_active_table() {
        let table = PageTable::new().unwrap();
        table
            .map(0x10000, Frame::alloc_zeroed().unwrap(), Prot::RW)
            .unwrap();
        table
            .map(0x11000, Frame::alloc_zeroed().unwrap(), Prot::RW)
            .unwrap();
        assert_eq!(user::copy_to_user(0x10ffe, b"abcd"), Err(Fault));
        table.activate();
        user::copy_to_user(0x10ffe, b"abcd").unwrap();
        let mut text = [0; 8];
        assert_eq!(user::strncpy_from_user(0x10ffe, &mut text), Ok(4));
        assert_eq!(&text[..4], b"abcd");
        assert!(table.get(0x10123).unwrap().dirty);
        table.protect(0x10000..0x11000, Prot::R);
        assert_eq!(user::write_u8(0x10000, 1), Err(Fault));
        assert_eq!(user::cmpxchg_u32(0x11004, 0, 7), Ok(Ok(0)));
        assert_eq!(user::cmpxchg_u32(0x11004, 0, 8), Ok(Err(7)));
        assert_eq!(user::cmpxchg_u32(0x11005, 0, 8), Err(Fault));
        let mut seen = Vec::new();
        table.unmap(0..user::USER_END, &mut |va, _, dirty| {
            seen.push((va, dirty))
        });
        assert_eq!(seen, [(0x10000, true), (0x11000, true)]);
        assert_eq!(
            table.map(user::USER_END, Frame::alloc().unwrap(), Prot::R),
            Err(MapError::BadAddress)
        );
    }
}
