//! The user half of an address space, and making all CPUs forget translations (TLB shootdown).
//!
//! Each present entry owns one [`Frame`]; so does an entry with the `OWNED` bit that is not present: a page that may
//! not be accessed. A 2 MiB entry owns its 512 frames.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, Ordering::Relaxed,
};

use super::io::{invlpg, write_cr3};
use super::kernel_map::{self, phys_to_virt, pte};
use super::percpu::{block, block_of};
use crate::mem::{
    Frame, HUGE_PAGE_SIZE, HugeFrame, OutOfMemory, PAGE_SIZE, PAGE_TABLE_FRAMES, alloc_block,
    alloc_block_reclaim, free_block,
};
use crate::sync::SpinLock;
use crate::user::is_user_range;
use crate::vm::{MapError, Mapping, Prot, valid_range};

/// Software bit: an entry that is not present but owns a frame.
const OWNED: u64 = 1 << 9;
/// More single pages than this are flushed all at once.
const FLUSH_LIMIT: usize = 64;

struct Inner {
    root: u64,
    lock: SpinLock<()>,
    /// CPUs that have this root loaded.
    cpus: AtomicU32,
    resident: AtomicUsize,
}

/// The user half of an address space. Clones share it; it is torn down with the last one.
#[derive(Clone)]
pub struct PageTable(Arc<Inner>);

fn zeroed_page() -> Result<u64, OutOfMemory> {
    let page = alloc_block_reclaim(0)?;
    // SAFETY: a page just allocated.
    unsafe { super::fill(phys_to_virt(page), 0, PAGE_SIZE) };
    PAGE_TABLE_FRAMES.fetch_add(1, Relaxed);
    Ok(page)
}

/// Gives a page of a table back.
///
/// # Safety
/// The table is linked nowhere, and no CPU walks it any more.
unsafe fn free_table(table: u64) {
    PAGE_TABLE_FRAMES.fetch_sub(1, Relaxed);
    // SAFETY: as the caller says.
    unsafe { free_block(table, 0) };
}

/// Entry `index` of the table at `table`.
///
/// # Safety
/// `table` must be a page-table page that lives as long as the reference.
#[inline]
unsafe fn slot<'a>(table: u64, index: usize) -> &'a AtomicU64 {
    // SAFETY: a page of 512 entries in the direct map. The processor sets bits in them, so access is atomic.
    unsafe { &*phys_to_virt(table).cast::<AtomicU64>().add(index & 511) }
}

#[inline]
fn encode(phys: u64, prot: Prot) -> u64 {
    if !prot.read && !prot.write && !prot.exec {
        return phys | OWNED | pte::NO_EXEC;
    }
    phys | pte::PRESENT
        | pte::USER
        | if prot.write { pte::WRITE } else { 0 }
        | if prot.exec { 0 } else { pte::NO_EXEC }
}

#[inline]
fn decode(entry: u64) -> Prot {
    if entry & pte::PRESENT == 0 {
        return Prot::NONE;
    }
    Prot {
        read: true,
        write: entry & pte::WRITE != 0,
        exec: entry & pte::NO_EXEC == 0,
    }
}

/// Entries whose translations must be forgotten, gathered during one operation.
#[derive(Default)]
struct Flush {
    pages: Vec<usize>,
    all: bool,
    /// Tables are about to be freed: even an idle CPU must forget, since it may walk them by speculation.
    tables: bool,
}

impl Flush {
    fn page(&mut self, va: usize) {
        if !self.all {
            if self.pages.len() < FLUSH_LIMIT && self.pages.try_reserve(1).is_ok() {
                self.pages.push(va);
            } else {
                self.all = true;
            }
        }
    }

    fn is_empty(&self) -> bool {
        !self.all && self.pages.is_empty()
    }
}

impl PageTable {
    /// An empty one.
    pub fn new() -> Result<Self, OutOfMemory> {
        let root = zeroed_page()?;
        for index in 256..512 {
            // SAFETY: both are root tables; the kernel's half of the top level never changes after boot.
            unsafe {
                slot(root, index).store(slot(kernel_map::root(), index).load(Relaxed), Relaxed)
            };
        }
        Ok(Self(Arc::new(Inner {
            root,
            lock: SpinLock::new(()),
            cpus: AtomicU32::new(0),
            resident: AtomicUsize::new(0),
        })))
    }

    /// The slot of level `level` (0: page, 1: 2 MiB) for `va`, with the tables above it made if `make`. A large page
    /// in the way of level 0 is split if `make`, else gives `None`... the caller looks at level 1 first.
    fn walk(&self, va: usize, level: u32, make: bool) -> Result<Option<&AtomicU64>, OutOfMemory> {
        let mut table = self.0.root;
        for at in (level + 1..4).rev() {
            // SAFETY: a live table: tables are freed only under the lock, which the caller holds.
            let entry = unsafe { slot(table, va >> (12 + 9 * at)) };
            let mut value = entry.load(Relaxed);
            if value == 0 {
                if !make {
                    return Ok(None);
                }
                value = zeroed_page()? | pte::PRESENT | pte::WRITE | pte::USER;
                entry.store(value, Ordering::Release);
            } else if at == 1 && is_large(value) {
                if !make {
                    return Ok(None);
                }
                value = split(entry, value)?;
            }
            table = value & pte::ADDRESS;
        }
        // SAFETY: as above.
        Ok(Some(unsafe { slot(table, va >> (12 + 9 * level)) }))
    }

    /// Maps one page.
    pub fn map(&self, va: usize, frame: Frame, prot: Prot) -> Result<(), MapError> {
        if !va.is_multiple_of(PAGE_SIZE) || !is_user_range(va, PAGE_SIZE) {
            return Err(MapError::BadAddress);
        }
        let _lock = self.0.lock.lock();
        let entry = self.walk(va, 0, true)?.ok_or(MapError::OutOfMemory)?;
        if entry.load(Relaxed) != 0 {
            return Err(MapError::Occupied);
        }
        entry.store(encode(frame.into_phys(), prot), Ordering::Release);
        self.0.resident.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Maps 2 MiB.
    pub fn map_huge(&self, va: usize, frame: HugeFrame, prot: Prot) -> Result<(), MapError> {
        if !va.is_multiple_of(HUGE_PAGE_SIZE) || !is_user_range(va, HUGE_PAGE_SIZE) {
            return Err(MapError::BadAddress);
        }
        let _lock = self.0.lock.lock();
        let entry = self.walk(va, 1, true)?.ok_or(MapError::OutOfMemory)?;
        let old = entry.load(Relaxed);
        if old != 0 {
            // An empty table may be left from earlier pages; its place is not worth keeping track of.
            return Err(MapError::Occupied);
        }
        let phys = frame.phys();
        for page in frame.split() {
            page.into_phys();
        }
        entry.store(encode(phys, prot) | pte::LARGE, Ordering::Release);
        self.0.resident.fetch_add(512, Relaxed);
        Ok(())
    }

    /// Maps a page in place of what is there; returns that. All CPUs have forgotten it by then.
    pub fn replace(&self, va: usize, frame: Frame, prot: Prot) -> Result<Option<Frame>, MapError> {
        if !va.is_multiple_of(PAGE_SIZE) || !is_user_range(va, PAGE_SIZE) {
            return Err(MapError::BadAddress);
        }
        let _lock = self.0.lock.lock();
        let was_large = self.large_at(va);
        let entry = self.walk(va, 0, true)?.ok_or(MapError::OutOfMemory)?;
        let old = entry.swap(encode(frame.into_phys(), prot), Ordering::AcqRel);
        if old == 0 {
            self.0.resident.fetch_add(1, Relaxed);
            return Ok(None);
        }
        if old & pte::PRESENT != 0 {
            self.flush(Flush {
                pages: alloc::vec![va],
                all: was_large,
                tables: false,
            });
        }
        // SAFETY: the entry owned it, and no longer does.
        Ok(Some(unsafe { Frame::from_phys(old & pte::ADDRESS) }))
    }

    fn large_at(&self, va: usize) -> bool {
        matches!(self.walk(va, 1, false), Ok(Some(entry)) if is_large(entry.load(Relaxed)))
    }

    /// Calls `visit` for each entry in use in `range` that lies wholly in it: address, entry, whether large. Large
    /// pages that stick out are split first; if there is no memory for that they are visited page by page never:
    /// the operation then leaves them alone.
    fn visit(&self, range: &Range<usize>, visit: &mut dyn FnMut(usize, &AtomicU64, bool) -> bool) {
        let mut va = range.start;
        while va < range.end {
            // Find the lowest table that exists for `va`.
            let mut table = self.0.root;
            let mut level = 3u32;
            loop {
                // SAFETY: a live table; the caller holds the lock.
                let entry = unsafe { slot(table, va >> (12 + 9 * level)) };
                let value = entry.load(Relaxed);
                let span = 1usize << (12 + 9 * level);
                if level == 0 {
                    // This table's remaining entries in one go.
                    let end = range.end.min((va | 0x1f_ffff) + 1);
                    while va < end {
                        // SAFETY: as above.
                        let entry = unsafe { slot(table, va >> 12) };
                        if entry.load(Relaxed) != 0 && !visit(va, entry, false) {
                            return;
                        }
                        va += PAGE_SIZE;
                    }
                    break;
                }
                if value == 0 {
                    va = (va & !(span - 1)).saturating_add(span);
                    break;
                }
                if level == 1 && is_large(value) {
                    if va.is_multiple_of(span) && range.end - va >= span {
                        if !visit(va, entry, true) {
                            return;
                        }
                        va += span;
                        break;
                    }
                    match split(entry, value) {
                        Ok(new) => table = new & pte::ADDRESS,
                        Err(OutOfMemory) => {
                            va = (va & !(span - 1)) + span;
                            break;
                        }
                    }
                } else {
                    table = value & pte::ADDRESS;
                }
                level -= 1;
            }
        }
    }

    /// Unmaps all pages of `range`, giving each to `taken` with its address and whether it was written to, after all
    /// CPUs have forgotten it.
    pub fn unmap(&self, range: Range<usize>, taken: &mut dyn FnMut(usize, Frame, bool)) {
        if !valid_range(&range) {
            return;
        }
        let mut start = range.start;
        while start < range.end {
            let mut gone: Vec<(usize, u64)> = Vec::new();
            let mut resume = range.end;
            {
                let _lock = self.0.lock.lock();
                let mut flush = Flush::default();
                let part = start..range.end;
                self.visit(&part, &mut |va, entry, large| {
                    if gone.len() >= 1024 || gone.try_reserve(1).is_err() {
                        resume = va;
                        return false;
                    }
                    let old = entry.swap(0, Ordering::AcqRel);
                    if old & pte::PRESENT != 0 {
                        if large {
                            flush.all = true
                        } else {
                            flush.page(va)
                        }
                    }
                    gone.push((va, old));
                    true
                });
                let tables = self.prune(start..resume);
                flush.tables = !tables.is_empty();
                flush.all |= flush.tables;
                if !flush.is_empty() {
                    self.flush(flush);
                }
                for table in tables {
                    // SAFETY: unlinked, and no CPU walks it any more after the flush.
                    unsafe { free_table(table) };
                }
                let pages: usize = gone
                    .iter()
                    .map(|(_, old)| if is_large(*old) { 512 } else { 1 })
                    .sum();
                self.0.resident.fetch_sub(pages, Relaxed);
            }
            for (va, old) in gone {
                let pages = if is_large(old) { 512 } else { 1 };
                for i in 0..pages {
                    let phys = (old & pte::ADDRESS & !if pages > 1 { 0x1f_f000 } else { 0 })
                        + i * PAGE_SIZE as u64;
                    // SAFETY: the entry owned these frames, and no longer does.
                    let frame = unsafe { Frame::from_phys(phys) };
                    taken(va + i as usize * PAGE_SIZE, frame, old & pte::DIRTY != 0);
                }
            }
            start = resume;
        }
    }

    /// Unlinks the lowest-level tables that lie wholly in `range` (whose entries are all empty) and returns them.
    fn prune(&self, range: Range<usize>) -> Vec<u64> {
        let mut tables = Vec::new();
        let mut va = range.start.next_multiple_of(HUGE_PAGE_SIZE);
        while va < range.end && range.end - va >= HUGE_PAGE_SIZE {
            match self.walk(va, 1, false) {
                Ok(Some(entry)) => {
                    let value = entry.load(Relaxed);
                    if value != 0 && !is_large(value) && tables.try_reserve(1).is_ok() {
                        entry.store(0, Relaxed);
                        tables.push(value & pte::ADDRESS);
                    }
                    va += HUGE_PAGE_SIZE;
                }
                // Nothing there: on to the next GiB.
                Ok(None) | Err(OutOfMemory) => va = (va | 0x3fff_ffff) + 1,
            }
        }
        tables
    }

    /// Changes the rights of all mapped pages of `range`.
    pub fn protect(&self, range: Range<usize>, prot: Prot) {
        if !valid_range(&range) {
            return;
        }
        let _lock = self.0.lock.lock();
        let mut flush = Flush::default();
        self.visit(&range, &mut |va, entry, large| {
            let kept = pte::ACCESSED | pte::DIRTY | if large { pte::LARGE } else { 0 };
            let mut old = entry.load(Relaxed);
            loop {
                let new = encode(old & pte::ADDRESS, prot) | old & kept;
                match entry.compare_exchange_weak(old, new, Ordering::AcqRel, Relaxed) {
                    Ok(_) => {
                        // Only rights taken away must be forgotten; new ones are found at the next fault.
                        let before = decode(old);
                        if old & pte::PRESENT != 0
                            && (before.read && !decode(new).read
                                || before.write && !prot.write
                                || before.exec && !prot.exec)
                        {
                            if large {
                                flush.all = true
                            } else {
                                flush.page(va)
                            }
                        }
                        return true;
                    }
                    Err(now) => old = now,
                }
            }
        });
        if !flush.is_empty() {
            self.flush(flush);
        }
    }

    /// What is mapped at the page of `va`.
    pub fn get(&self, va: usize) -> Option<Mapping> {
        if !is_user_range(va, 1) {
            return None;
        }
        let _lock = self.0.lock.lock();
        let middle = self.walk(va, 1, false).ok()??.load(Relaxed);
        let (entry, phys, huge) = if is_large(middle) {
            (
                middle,
                (middle & pte::ADDRESS & !0x1f_f000) + (va as u64 & 0x1f_f000),
                true,
            )
        } else {
            let entry = self.walk(va, 0, false).ok()??.load(Relaxed);
            (entry, entry & pte::ADDRESS, false)
        };
        if entry == 0 {
            return None;
        }
        // SAFETY: the entry owns the frame and cannot lose it under the lock; the borrowed owner is not dropped.
        let owner = core::mem::ManuallyDrop::new(unsafe { Frame::from_phys(phys) });
        Some(Mapping {
            frame: Frame::clone(&owner),
            prot: decode(entry),
            accessed: entry & pte::ACCESSED != 0,
            dirty: entry & pte::DIRTY != 0,
            huge,
        })
    }

    /// The first page at or behind that of `va` and before `end` that is mapped.
    pub fn next_mapped(&self, va: usize, end: usize) -> Option<usize> {
        let mut va = va & !(PAGE_SIZE - 1);
        let _lock = self.0.lock.lock();
        while va < end && is_user_range(va, PAGE_SIZE) {
            match self
                .walk(va, 1, false)
                .ok()
                .flatten()
                .map(|e| e.load(Relaxed))
            {
                None | Some(0) => va = (va | 0x1f_ffff) + 1,
                Some(large) if is_large(large) => return Some(va),
                Some(_) => {
                    let entry = self.walk(va, 0, false).ok().flatten();
                    if entry.is_some_and(|entry| entry.load(Relaxed) != 0) {
                        return Some(va);
                    }
                    va += PAGE_SIZE;
                }
            }
        }
        None
    }

    /// Forgets that pages of `range` were written to, after telling `written` of each that was. `written` must not
    /// use this page table.
    pub fn clear_dirty(&self, range: Range<usize>, written: &mut dyn FnMut(usize, &Frame)) {
        if !valid_range(&range) {
            return;
        }
        let _lock = self.0.lock.lock();
        let mut flush = Flush::default();
        self.visit(&range, &mut |va, entry, large| {
            let old = entry.fetch_and(!pte::DIRTY, Ordering::AcqRel);
            if old & pte::DIRTY != 0 {
                flush.page(va);
                let pages = if large { 512 } else { 1 };
                for i in 0..pages {
                    // SAFETY: the entry owns the frame; the borrowed owner is not dropped.
                    let frame = core::mem::ManuallyDrop::new(unsafe {
                        Frame::from_phys(
                            (old & pte::ADDRESS & !if large { 0x1f_f000 } else { 0 })
                                + i * PAGE_SIZE as u64,
                        )
                    });
                    written(va + i as usize * PAGE_SIZE, &frame);
                }
            }
            true
        });
        if !flush.is_empty() {
            self.flush(flush);
        }
    }

    /// Forgets that pages of `range` were used; returns how many had been. CPUs may miss some further uses.
    pub fn clear_accessed(&self, range: Range<usize>) -> usize {
        if !valid_range(&range) {
            return 0;
        }
        let _lock = self.0.lock.lock();
        let mut used = 0;
        self.visit(&range, &mut |_, entry, large| {
            if entry.fetch_and(!pte::ACCESSED, Relaxed) & pte::ACCESSED != 0 {
                used += if large { 512 } else { 1 };
            }
            true
        });
        used
    }

    /// Number of pages mapped.
    pub fn resident_pages(&self) -> usize {
        self.0.resident.load(Relaxed)
    }

    /// Makes it the address space of the current task, from now on and wherever it runs.
    pub fn activate(&self) {
        super::task::set_page_table(self);
    }

    /// Physical address of the root.
    #[inline]
    pub(super) fn root(&self) -> u64 {
        self.0.root
    }

    /// Loads it on this CPU in place of `old`. Interrupts off.
    pub(super) fn load(&self, old: Option<&PageTable>) {
        let block = block();
        let me = 1 << block.cpu.load(Relaxed);
        // Before the load: from then on, flushes must reach this CPU.
        self.0.cpus.fetch_or(me, Ordering::SeqCst);
        block.root.store(self.0.root, Relaxed);
        // SAFETY: its kernel half is everyone's.
        unsafe { write_cr3(self.0.root) };
        if let Some(old) = old {
            old.0.cpus.fetch_and(!me, Ordering::SeqCst);
        }
    }

    /// Makes all CPUs that use this table forget what `flush` names.
    fn flush(&self, flush: Flush) {
        shoot_down(&self.0, flush);
    }
}

impl core::fmt::Debug for PageTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "PageTable({:#x}, {} pages)",
            self.0.root,
            self.resident_pages()
        )
    }
}

fn is_large(entry: u64) -> bool {
    entry & pte::LARGE != 0
}

/// Replaces a 2 MiB entry by a table of 512 pages with the same rights. The translations stay the same, so nothing
/// needs to be forgotten.
fn split(entry: &AtomicU64, mut large: u64) -> Result<u64, OutOfMemory> {
    let table = alloc_block(0).ok_or(OutOfMemory)?;
    PAGE_TABLE_FRAMES.fetch_add(1, Relaxed);
    loop {
        let base = large & pte::ADDRESS & !0x1f_f000;
        let flags = large & !pte::ADDRESS & !pte::LARGE;
        for i in 0..512usize {
            // SAFETY: a page just allocated.
            unsafe { slot(table, i).store((base + (i * PAGE_SIZE) as u64) | flags, Relaxed) };
        }
        let new = table | pte::PRESENT | pte::WRITE | pte::USER;
        match entry.compare_exchange(large, new, Ordering::AcqRel, Relaxed) {
            Ok(_) => return Ok(new),
            // The processor has just set a bit.
            Err(now) => large = now,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // No CPU has it loaded: each holds a clone while it does.
        let table = PageTable(Arc::new(Inner {
            root: self.root,
            lock: SpinLock::new(()),
            cpus: AtomicU32::new(0),
            resident: AtomicUsize::new(self.resident.load(Relaxed)),
        }));
        table.unmap(0..crate::user::USER_END, &mut |_, frame, _| drop(frame));
        free_tables(self.root, 3);
        // SAFETY: the root is not in use anywhere.
        unsafe { free_table(self.root) };
        core::mem::forget(table);
    }
}

/// Frees the tables below `table`, which have no entries that own frames.
fn free_tables(table: u64, level: u32) {
    let used = if level == 3 { 256 } else { 512 };
    for index in 0..used {
        // SAFETY: a live table that no CPU uses.
        let value = unsafe { slot(table, index).load(Relaxed) };
        if value != 0 && level > 0 && !is_large(value) {
            if level > 1 {
                free_tables(value & pte::ADDRESS, level - 1);
            }
            // SAFETY: nothing refers to it any more.
            unsafe { free_table(value & pte::ADDRESS) };
        }
    }
}

/// One shootdown at a time; the fields are written under the lock and read by the CPUs asked.
struct Shootdown {
    busy: AtomicBool,
    all: AtomicBool,
    count: AtomicUsize,
    pages: [AtomicUsize; FLUSH_LIMIT],
    waiting_for: AtomicU32,
}

static SHOOTDOWN: Shootdown = Shootdown {
    busy: AtomicBool::new(false),
    all: AtomicBool::new(false),
    count: AtomicUsize::new(0),
    pages: [const { AtomicUsize::new(0) }; FLUSH_LIMIT],
    waiting_for: AtomicU32::new(0),
};

fn flush_local(all: bool, pages: impl Iterator<Item = usize>) {
    if all {
        // SAFETY: reloads the root that is loaded.
        unsafe { write_cr3(block().root.load(Relaxed)) };
    } else {
        pages.for_each(invlpg);
    }
}

/// Forgets all translations of the user half on this CPU. Interrupts off.
pub(super) fn flush_all() {
    flush_local(true, core::iter::empty());
}

fn shoot_down(inner: &Inner, flush: Flush) {
    let on = super::irq_disable();
    let me = block().cpu.load(Relaxed);
    let users = inner.cpus.load(Ordering::SeqCst);
    if users & 1 << me != 0 {
        flush_local(flush.all, flush.pages.iter().copied());
    }
    let mut others = users & !(1 << me);
    if !flush.tables {
        for cpu in (0..crate::cpu::MAX_CPUS).filter(|cpu| users & (1 << cpu) != 0) {
            let target = block_of(cpu);
            target.stale.store(true, Ordering::SeqCst);
            if target.lazy.load(Ordering::SeqCst) {
                others &= !(1 << cpu);
            }
        }
    }
    if others != 0 {
        // While waiting, serve others: two CPUs may want each other to flush.
        while SHOOTDOWN.busy.swap(true, Ordering::Acquire) {
            serve_shootdown();
            super::relax();
        }
        SHOOTDOWN.all.store(flush.all, Relaxed);
        SHOOTDOWN
            .count
            .store(flush.pages.len().min(FLUSH_LIMIT), Relaxed);
        for (cell, &va) in SHOOTDOWN.pages.iter().zip(&flush.pages) {
            cell.store(va, Relaxed);
        }
        SHOOTDOWN.waiting_for.store(others, Ordering::Release);
        for cpu in (0..crate::cpu::MAX_CPUS).filter(|cpu| others & 1 << cpu != 0) {
            block_of(cpu).flush_wanted.store(true, Ordering::Release);
            super::apic::send(cpu, super::apic::VECTOR_FLUSH);
        }
        while SHOOTDOWN.waiting_for.load(Ordering::Acquire) != 0 {
            super::relax();
        }
        SHOOTDOWN.busy.store(false, Ordering::Release);
    }
    super::irq_restore(on);
}

/// Does what another CPU asked this one to forget. Interrupts off.
pub(super) fn serve_shootdown() {
    let block = block();
    if block.flush_wanted.swap(false, Ordering::AcqRel) {
        let count = SHOOTDOWN.count.load(Relaxed);
        flush_local(
            SHOOTDOWN.all.load(Relaxed),
            SHOOTDOWN.pages[..count].iter().map(|va| va.load(Relaxed)),
        );
        SHOOTDOWN
            .waiting_for
            .fetch_and(!(1 << block.cpu.load(Relaxed)), Ordering::Release);
    }
}
