//! Writing into the page cache, truncating, and shared writable mappings.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::Ordering;

use errno::{Errno, Result};
use iobuf::Source;
use machine::mem::{Frame, PAGE_SIZE};
use sched::MutexGuard;

use super::{
    PAGE, PageCache, alloc_frame,
    page::{DIRTY, LOADING, Page, RECENT, RESERVED, VALID, WRITING},
    writeback,
};

/// The right to change the contents and the size of a file; one at a time.
pub struct Writer<'a> {
    cache: &'a PageCache,
    _guard: MutexGuard<'a, ()>,
}

impl PageCache {
    /// Waits for the right to change the file.
    pub fn writer(&self) -> Writer<'_> {
        Writer {
            cache: self,
            _guard: self.writer.lock(),
        }
    }

    /// Page `index` for a store through a shared mapping: room is promised and the page is dirty
    /// from now on.
    ///
    /// # Errors
    /// As [`PageCache::page`], and `ENOSPC`.
    pub fn page_for_write(&self, index: u64) -> Result<Frame> {
        loop {
            let frame = self.page(index)?;
            if self.store.in_memory() {
                return Ok(frame);
            }
            let Some(page) = self.cached(index) else {
                continue;
            };
            if *page.frame() != frame {
                continue;
            }
            let reserved = self.reserve(index, &page)?;
            self.stored_to.store(true, Ordering::Relaxed);
            if self.make_dirty(index, &page, reserved) {
                self.store.modified();
                return Ok(frame);
            }
        }
    }

    /// Counts a shared mapping through which the file can be stored to, until
    /// [`PageCache::unmap_writable`].
    ///
    /// # Errors
    /// `EPERM` when the file is sealed against writing.
    pub fn map_writable(&self) -> Result<()> {
        self.writable_mappings.fetch_add(1, Ordering::AcqRel);
        self.store.may_map_writable().inspect_err(|_| {
            self.unmap_writable();
        })
    }

    /// The mirror of [`PageCache::map_writable`].
    pub fn unmap_writable(&self) {
        self.writable_mappings.fetch_sub(1, Ordering::AcqRel);
    }

    /// Shared mappings through which the file can be stored to.
    pub fn writable_mappings(&self) -> usize {
        self.writable_mappings.load(Ordering::Acquire)
    }

    /// Marks pages `first..end` dirty that are in memory: for stores that page tables noted.
    pub fn mark_dirty(&self, first: u64, end: u64) {
        if self.store.in_memory() {
            return;
        }
        let found: Vec<(u64, Arc<Page>)> = {
            let pages = self.pages.lock();
            pages
                .map
                .range(first..end)
                .filter(|(_, page)| page.is(VALID) && !page.is(DIRTY))
                .map(|(&index, page)| (index, page.clone()))
                .collect()
        };
        for (index, page) in found {
            // The store cannot be undone: without room the error comes at the write-back.
            let reserved = self.reserve(index, &page).unwrap_or(false);
            self.make_dirty(index, &page, reserved);
        }
    }

    fn reserve(&self, index: u64, page: &Page) -> Result<bool> {
        if page.is(DIRTY | RESERVED) {
            return Ok(false);
        }
        self.store.reserve(index)
    }

    /// Records that `page` was changed; answers whether it still belongs to the file.
    fn make_dirty(&self, index: u64, page: &Arc<Page>, mut reserved: bool) -> bool {
        let mut first = false;
        let kept = {
            let mut pages = self.pages.lock();
            let kept = pages
                .map
                .get(&index)
                .is_some_and(|cached| Arc::ptr_eq(cached, page));
            if kept && !page.is(DIRTY) {
                page.set(DIRTY | RECENT);
                if reserved && !page.is(RESERVED) {
                    page.set(RESERVED);
                    reserved = false;
                }
                first = pages.dirty.is_empty();
                pages.dirty.insert(index);
                writeback::count_dirty(1);
            }
            kept
        };
        if reserved {
            self.store.release(1);
        }
        if first {
            self.dirty_since_ns
                .store(machine::time::now_ns(), Ordering::Relaxed);
        }
        if kept
            && !self.listed.swap(true, Ordering::AcqRel)
            && let Some(me) = self.me.upgrade()
        {
            writeback::list(me);
        }
        kept
    }

    /// Takes page `index` out, whatever its state; waits for a write of it that is under way, since
    /// its blocks may be given to another file next.
    fn take_out(&self, first: u64, end: u64) {
        loop {
            let mut released = 0;
            let mut out: Vec<Arc<Page>> = Vec::new();
            let mut busy = None;
            {
                let mut pages = self.pages.lock();
                let mut at = first;
                while out.len() < 64 {
                    let Some((&index, page)) = pages.map.range(at..end).next() else {
                        break;
                    };
                    if page.is(WRITING) {
                        busy = Some(page.clone());
                        at = index + 1;
                        continue;
                    }
                    if let Some(page) = pages.map.remove(&index) {
                        if page.clear(DIRTY) != 0 {
                            pages.dirty.remove(&index);
                            writeback::count_dirty(-1);
                        }
                        released += u64::from(page.clear(RESERVED) != 0);
                        out.push(page);
                    }
                    at = index + 1;
                }
                self.count_resident(-(out.len() as isize));
            }
            if released > 0 {
                self.store.release(released);
            }
            let progressed = !out.is_empty();
            drop(out);
            match busy {
                Some(page) => {
                    self.loaded.wait(|| (!page.is(WRITING)).then_some(()));
                }
                None if !progressed => return,
                None => {}
            }
        }
    }
}

impl Writer<'_> {
    /// Writes at `offset`, growing the file as needed. Returns how many bytes were taken.
    ///
    /// # Errors
    /// `EFBIG`, `ENOSPC`, `ENOMEM`, `EIO`, and what the source says, when nothing was written.
    pub fn write(&self, offset: u64, source: &mut dyn Source) -> Result<usize> {
        let cache = self.cache;
        let max = cache.store.max_size();
        if offset >= max {
            return Err(Errno::EFBIG);
        }
        let wanted = offset.saturating_add(source.remaining() as u64).min(max);
        cache.store.may_change(cache.size(), wanted)?;
        let mut done = 0usize;
        let result = loop {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let len = source.remaining().min(PAGE_SIZE - within);
            let len = len.min(usize::try_from(max - at).unwrap_or(usize::MAX));
            if len == 0 {
                break Ok(());
            }
            match self.write_page(at, len, source) {
                Ok(moved) => {
                    done += moved;
                    if moved < len {
                        break Ok(());
                    }
                }
                Err(error) => break Err(error),
            }
        };
        if done > 0 {
            cache.store.modified();
        }
        match result {
            Err(error) if done == 0 => Err(error),
            _ => Ok(done),
        }
    }

    fn write_page(&self, at: u64, len: usize, source: &mut dyn Source) -> Result<usize> {
        let cache = self.cache;
        let (index, within) = (at / PAGE, (at % PAGE) as usize);
        let size = cache.size();
        let page_start = index * PAGE;
        let page = match cache.cached(index) {
            Some(page) if page.is(VALID) => page,
            Some(page) if page.is(LOADING) => cache.wait_valid(page, index)?,
            _ => {
                let covered = within == 0 && (at + len as u64) >= size.min(page_start + PAGE);
                if page_start >= size || covered || cache.store.in_memory() {
                    return self.write_fresh(at, len, source);
                }
                cache.load(index, &mut |cache| cache.start_read(index, index + 1))?
            }
        };
        let reserved = if cache.store.in_memory() {
            false
        } else {
            cache.reserve(index, &page)?
        };
        if at > size && size > page_start {
            // A mapping may have stored behind the end.
            let from = (size - page_start) as usize;
            page.frame().fill(from, within - from, 0);
        }
        let moved = match take(source, page.frame(), within, len) {
            Ok(moved) if moved > 0 => moved,
            other => {
                if reserved {
                    cache.store.release(1);
                }
                return other;
            }
        };
        if !cache.store.in_memory() {
            cache.make_dirty(index, &page, reserved);
        }
        self.grow(at + moved as u64);
        Ok(moved)
    }

    /// Writes to a page that is not in memory and whose old contents are not needed: the data is
    /// copied before anyone can see the page.
    fn write_fresh(&self, at: u64, len: usize, source: &mut dyn Source) -> Result<usize> {
        let cache = self.cache;
        let (index, within) = (at / PAGE, (at % PAGE) as usize);
        let frame = alloc_frame()?;
        if len < PAGE_SIZE {
            frame.zero();
        }
        if cache.store.in_memory() {
            // Promised before the copy, so that a full file system says so.
            let page = cache.insert_memory_checked(index, frame, len == PAGE_SIZE)?;
            let moved = take(source, page.frame(), within, len)?;
            self.grow(at + moved as u64);
            return Ok(moved);
        }
        let reserved = cache.store.reserve(index)?;
        let give_back = || {
            if reserved {
                cache.store.release(1);
            }
        };
        let moved = match take(source, &frame, within, len) {
            Ok(0) => {
                give_back();
                return Ok(0);
            }
            Ok(moved) => moved,
            Err(error) => {
                give_back();
                return Err(error);
            }
        };
        let old_end = cache.size().saturating_sub(index * PAGE).min(PAGE) as usize;
        if moved < len && within + moved < old_end {
            // The source ended early over data that must stay: bring that in, and write into it.
            give_back();
            let page = cache.load(index, &mut |cache| cache.start_read(index, index + 1))?;
            let reserved = cache.reserve(index, &page)?;
            copy_between(&frame, page.frame(), within, moved);
            cache.make_dirty(index, &page, reserved);
            return Ok(moved);
        }
        if moved < len {
            frame.fill(within + moved, PAGE_SIZE - within - moved, 0);
        }
        let page = Arc::new(Page::new(frame, VALID | RECENT));
        if cache.insert_if_absent(index, &page) {
            cache.make_dirty(index, &page, reserved);
        } else if let Some(other) = cache.cached(index) {
            // A reader was faster: its page takes the data.
            let other = match cache.wait_valid(other, index) {
                Ok(other) => other,
                Err(error) => {
                    give_back();
                    return Err(error);
                }
            };
            copy_between(page.frame(), other.frame(), within, moved);
            cache.make_dirty(index, &other, reserved);
        } else {
            give_back();
            return Err(Errno::EIO);
        }
        self.grow(at + moved as u64);
        Ok(moved)
    }

    fn grow(&self, end: u64) {
        if end > self.cache.size() {
            self.cache.size.store(end, Ordering::Release);
        }
    }

    /// Sets the size in the cache: pages behind it go, in mappings, too, and what follows the end
    /// in its page becomes zero. The store is told by the file system afterwards.
    pub fn truncate(&self, size: u64) {
        let cache = self.cache;
        let old = cache.size.swap(size, Ordering::AcqRel);
        if size >= old {
            // Stores of a mapping behind the old end must not come to light.
            self.zero_in_page(old, size.min(old.next_multiple_of(PAGE)));
            return;
        }
        let first = size.div_ceil(PAGE);
        cache.for_observers(|observer| observer.unmap(first, u64::MAX));
        cache.take_out(first, u64::MAX);
        self.zero_in_page(size, size.next_multiple_of(PAGE));
    }

    /// Makes a byte range read as zeros: whole pages go from memory, parts of pages are zeroed. The
    /// store is told by the file system afterwards.
    pub fn punch(&self, offset: u64, len: u64) {
        let cache = self.cache;
        let end = offset.saturating_add(len);
        let (first, last) = (offset.div_ceil(PAGE), end / PAGE);
        if first > last {
            self.zero_in_page(offset, end);
            return;
        }
        self.zero_in_page(offset, first * PAGE);
        self.zero_in_page(last * PAGE, end);
        if first < last {
            cache.for_observers(|observer| observer.unmap(first, last));
            cache.take_out(first, last);
        }
    }

    /// Zeroes `from..to`, which lies in one page, if that is in memory. Such a page counts as
    /// changed only if it was: the store zeroes its own copy.
    fn zero_in_page(&self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let index = from / PAGE;
        let Some(page) = self.cache.cached(index) else {
            return;
        };
        let Ok(page) = self.cache.wait_valid(page, index) else {
            return;
        };
        page.frame()
            .fill((from % PAGE) as usize, (to - from) as usize, 0);
    }

    /// Makes sure that each page of a byte range exists in a store that is memory, and grows the
    /// file to `size`. On failure the pages made so far go again.
    ///
    /// # Errors
    /// `ENOSPC`, `ENOMEM`.
    pub fn allocate(&self, offset: u64, len: u64, size: u64) -> Result<()> {
        let cache = self.cache;
        let mut made: Vec<u64> = Vec::new();
        for index in offset / PAGE..offset.saturating_add(len).div_ceil(PAGE) {
            if cache.cached(index).is_some() {
                continue;
            }
            match cache.insert_zeroed(index) {
                Ok(_) => made.push(index),
                Err(error) => {
                    for index in made {
                        cache.take_out(index, index + 1);
                    }
                    return Err(error);
                }
            }
        }
        self.grow(size);
        Ok(())
    }

    /// The file to which it is the right.
    pub fn cache(&self) -> &PageCache {
        self.cache
    }
}

impl PageCache {
    /// As `insert_memory`; when `whole` the page is to be overwritten entirely and is zeroed only
    /// if the copy might be seen or end early.
    fn insert_memory_checked(&self, index: u64, frame: Frame, whole: bool) -> Result<Arc<Page>> {
        if whole {
            frame.zero();
        }
        self.insert_memory(index, frame)
    }
}

/// Copies from a source into a part of a frame, straight from the program where it is its memory.
fn take(source: &mut dyn Source, frame: &Frame, offset: usize, len: usize) -> Result<usize> {
    let mut done = 0;
    let direct = source.take_with(len, &mut |user, part| {
        frame
            .copy_from_user(offset + done, part, user)
            .map_err(|_| Errno::EFAULT)?;
        done += part;
        Ok(part)
    });
    if let Some(result) = direct {
        return result;
    }
    let mut bounce = [0; 1024];
    let mut done = 0;
    while done < len {
        let part = (len - done).min(bounce.len());
        match source.take(&mut bounce[..part]) {
            Ok(0) => break,
            Ok(moved) => {
                frame.write(offset + done, &bounce[..moved]);
                done += moved;
            }
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

fn copy_between(from: &Frame, to: &Frame, offset: usize, len: usize) {
    let mut bounce = [0; 1024];
    let mut done = 0;
    while done < len {
        let part = (len - done).min(bounce.len());
        from.read(offset + done, &mut bounce[..part]);
        to.write(offset + done, &bounce[..part]);
        done += part;
    }
}
