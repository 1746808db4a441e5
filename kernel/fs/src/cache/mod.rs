//! The page cache: the contents of regular files in memory, one [`PageCache`] for each file.
//! `read`, `write`, `mmap` and `sendfile` all see these pages.
//!
//! Here: finding and loading pages, reading. [`mod@write`]: writing and truncating; [`writeback`]:
//! dirty pages on their way to the store; [`readahead`]: what to read before it is asked for;
//! [`mod@shrink`]: giving memory back; [`store`]: what a file system implements.
//!
//! Locks, outer first: `writer` (one writer or truncation of a file at a time; may be held over
//! user copies), `flushing` (one write-back of a file at a time), the spin lock around `pages`.
//! A reader takes only the last, and never over a copy or I/O.

mod page;
mod readahead;
mod shrink;
mod store;
mod write;
mod writeback;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};

use errno::{Errno, Result};
use iobuf::Sink;
use machine::{
    mem::{Frame, PAGE_SIZE},
    sync::SpinLock,
};
use sched::{Mutex, WaitQueue};

pub use readahead::Readahead;
pub use shrink::{resident_pages, shrink};
pub use store::{Fill, PageStore};
pub use write::Writer;
pub(crate) use writeback::{Background, flush_group, register_background, tidy, want_ticks};
pub use writeback::{dirty_pages, set_dirty_limit, start_writeback, throttle, written_pages};

use page::{FAILED, LOADING, Page, VALID};

const PAGE: u64 = PAGE_SIZE as u64;

/// How many pages a reader looks up at a time.
const BATCH: usize = 16;

/// Takes a part of a frame, or zeros: where it begins, how many bytes; answers how many it took.
type TakePart<'a> = &'a mut dyn FnMut(Option<&Frame>, usize, usize) -> Result<usize>;

/// Told when pages of a file that are mapped change their state. `first..end` are page numbers.
/// Called without spin locks held; must not call back into the same cache.
pub trait MappingObserver: Send + Sync {
    /// The pages are gone (truncation, a hole, memory pressure): take them out of page tables. The
    /// next access faults and asks the cache again.
    fn unmap(&self, first: u64, end: u64);

    /// The pages are about to be written back: make them read-only in page tables, so that the next
    /// store faults and calls [`PageCache::page_for_write`].
    fn write_protect(&self, first: u64, end: u64);
}

#[derive(Default)]
struct Pages {
    map: BTreeMap<u64, Arc<Page>>,
    dirty: BTreeSet<u64>,
}

/// The cached contents of one file.
pub struct PageCache {
    me: Weak<PageCache>,
    store: Arc<dyn PageStore>,
    size: AtomicU64,
    pages: SpinLock<Pages>,
    loaded: WaitQueue,
    writer: Mutex<()>,
    flushing: Mutex<()>,
    observers: SpinLock<Vec<Weak<dyn MappingObserver>>>,
    /// The first failure of a write-back since `take_error`, as an errno number.
    error: AtomicU16,
    /// On the list of caches with dirty pages.
    listed: AtomicBool,
    /// When the oldest dirty page became so.
    dirty_since_ns: AtomicU64,
    /// Where the shrinker goes on.
    hand: AtomicU64,
    resident: AtomicUsize,
    writable_mappings: AtomicUsize,
    /// Stores through a mapping may have reached behind the end of the file.
    stored_to: AtomicBool,
}

impl PageCache {
    /// An empty cache over `store` of a file with `size` bytes.
    pub fn new(store: Arc<dyn PageStore>, size: u64) -> Arc<PageCache> {
        let in_memory = store.in_memory();
        let cache = Arc::new_cyclic(|me| PageCache {
            me: me.clone(),
            store,
            size: AtomicU64::new(size),
            pages: SpinLock::new(Pages::default()),
            loaded: WaitQueue::new(),
            writer: Mutex::new(()),
            flushing: Mutex::new(()),
            observers: SpinLock::new(Vec::new()),
            error: AtomicU16::new(0),
            listed: AtomicBool::new(false),
            dirty_since_ns: AtomicU64::new(0),
            hand: AtomicU64::new(0),
            resident: AtomicUsize::new(0),
            writable_mappings: AtomicUsize::new(0),
            stored_to: AtomicBool::new(false),
        });
        if !in_memory {
            shrink::register(&cache);
        }
        cache
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Pages in memory.
    pub fn resident(&self) -> usize {
        self.resident.load(Ordering::Relaxed)
    }

    /// What is below.
    pub fn store(&self) -> &Arc<dyn PageStore> {
        &self.store
    }

    /// Page `index` for reading, as a page fault needs it: from memory, or read together with its
    /// neighbours.
    ///
    /// # Errors
    /// `EFAULT` behind the end of the file (SIGBUS), `EIO`, `ENOMEM`, `ENOSPC` for a hole of a full
    /// tmpfs.
    pub fn page(&self, index: u64) -> Result<Frame> {
        let page = self.load(index, &mut |cache| readahead::around(cache, index))?;
        Ok(page.frame().clone())
    }

    /// Page `index` if it is in memory and valid, without waiting: for mapping neighbours of a
    /// fault.
    pub fn resident_page(&self, index: u64) -> Option<Frame> {
        if index >= self.page_count() {
            return None;
        }
        let pages = self.pages.lock();
        let page = pages.map.get(&index)?;
        if !page.is(VALID) {
            return None;
        }
        page.touch();
        Some(page.frame().clone())
    }

    /// Whether `frame` still is page `index`: to be asked after mapping it, since a truncation may
    /// have come in between.
    pub fn holds(&self, index: u64, frame: &Frame) -> bool {
        index < self.page_count()
            && self
                .pages
                .lock()
                .map
                .get(&index)
                .is_some_and(|page| page.frame() == frame)
    }

    /// Has `observer` told of changes that concern mappings, as long as it lives.
    pub fn observe(&self, observer: Weak<dyn MappingObserver>) {
        let mut observers = self.observers.lock();
        observers.retain(|known| known.strong_count() > 0);
        observers.push(observer);
    }

    /// Starts to read a byte range, without waiting.
    pub fn prefetch(&self, offset: u64, len: u64) {
        const MOST: u64 = 512;
        let first = offset / PAGE;
        let end = offset.saturating_add(len).div_ceil(PAGE);
        self.start_read(first, end.min(first.saturating_add(MOST)));
    }

    /// Reads from `offset` to the end of the file or of the sink.
    ///
    /// # Errors
    /// `EIO`, `ENOMEM`, and what the sink says, when nothing was read before.
    pub fn read(&self, offset: u64, sink: &mut dyn Sink, ahead: &Readahead) -> Result<usize> {
        let len = sink.remaining();
        self.read_parts(offset, len, ahead, &mut |part, within, len| match part {
            Some(frame) => put(sink, frame, within, len),
            // A hole costs no memory to read.
            None => sink.put_zeros(len),
        })
    }

    /// As [`PageCache::read`], but hands out the frames themselves: `take` gets a frame, where in it the bytes begin and
    /// how many they are, and answers how many it took; with fewer than all, that is the end. Who keeps a frame keeps
    /// its memory, and sees what is written to the file later.
    ///
    /// # Errors
    /// `EIO`, `ENOMEM`, and what `take` says, when nothing was taken before.
    pub fn read_frames(
        &self,
        offset: u64,
        len: usize,
        ahead: &Readahead,
        take: &mut dyn FnMut(Frame, usize, usize) -> Result<usize>,
    ) -> Result<usize> {
        self.read_parts(offset, len, ahead, &mut |part, within, len| match part {
            Some(frame) => take(frame.clone(), within, len),
            None => take(
                Frame::alloc_zeroed().map_err(|_| Errno::ENOMEM)?,
                within,
                len,
            ),
        })
    }

    /// Goes through the pages of `len` bytes from `offset` on, as far as the file reaches; a hole in memory is `None`.
    fn read_parts(
        &self,
        offset: u64,
        len: usize,
        ahead: &Readahead,
        take: TakePart<'_>,
    ) -> Result<usize> {
        let mut done = 0usize;
        let result = self.read_pages(offset, len, ahead, take, &mut done);
        match result {
            Err(error) if done == 0 => Err(error),
            _ => Ok(done),
        }
    }

    fn read_pages(
        &self,
        offset: u64,
        len: usize,
        ahead: &Readahead,
        take: TakePart<'_>,
        done: &mut usize,
    ) -> Result<()> {
        loop {
            let at = offset + *done as u64;
            let size = self.size();
            if at >= size || *done >= len {
                return Ok(());
            }
            let end = size.min(at.saturating_add((len - *done) as u64));
            let (first, last) = (at / PAGE, (end - 1) / PAGE);
            if !self.store.in_memory() {
                ahead.on_read(self, first, last + 1);
            }
            let mut batch = [const { None }; BATCH];
            self.collect(first, last, &mut batch);
            for (index, slot) in (first..=last).zip(&mut batch) {
                let at = offset + *done as u64;
                let within = (at % PAGE) as usize;
                let len = (PAGE_SIZE - within).min((end - at) as usize);
                let page = match slot.take() {
                    Some(page) => Some(self.wait_valid(page, index)?),
                    None if self.store.in_memory() => None,
                    None => Some(self.load(index, &mut |cache| {
                        cache.start_read(index, index + 1);
                    })?),
                };
                let moved = take(page.as_ref().map(|page| page.frame()), within, len)?;
                *done += moved;
                if moved < len {
                    return Ok(());
                }
            }
        }
    }

    /// Takes what is cached of `first ..= last` into the slots.
    fn collect(&self, first: u64, last: u64, batch: &mut [Option<Arc<Page>>; BATCH]) {
        let last = last.min(first + BATCH as u64 - 1);
        let pages = self.pages.lock();
        for (&index, page) in pages.map.range(first..=last) {
            page.touch();
            if let Some(slot) = batch.get_mut((index - first) as usize) {
                *slot = Some(page.clone());
            }
        }
    }

    fn page_count(&self) -> u64 {
        self.size().div_ceil(PAGE)
    }

    fn cached(&self, index: u64) -> Option<Arc<Page>> {
        let page = self.pages.lock().map.get(&index).cloned()?;
        page.touch();
        Some(page)
    }

    /// Page `index`, valid; `start` is asked to begin reading it when it is not there.
    fn load(&self, index: u64, start: &mut dyn FnMut(&PageCache)) -> Result<Arc<Page>> {
        loop {
            if index >= self.page_count() {
                return Err(Errno::EFAULT);
            }
            if let Some(page) = self.cached(index) {
                return self.wait_valid(page, index);
            }
            if self.store.in_memory() {
                let page = self.insert_zeroed(index)?;
                return Ok(page);
            }
            start(self);
            if self.cached(index).is_none() && index < self.page_count() {
                // Reading ahead found no memory: insist on this one page.
                self.start_one(index)?;
            }
        }
    }

    /// Waits until `page` has its contents.
    fn wait_valid(&self, page: Arc<Page>, index: u64) -> Result<Arc<Page>> {
        if page.is(VALID) {
            return Ok(page);
        }
        self.loaded.wait(|| (!page.is(LOADING)).then_some(()));
        if page.is(VALID) {
            return Ok(page);
        }
        // The next one to ask tries again.
        let mut pages = self.pages.lock();
        if page.is(FAILED)
            && pages
                .map
                .get(&index)
                .is_some_and(|cached| Arc::ptr_eq(cached, &page))
        {
            pages.map.remove(&index);
            self.count_resident(-1);
        }
        Err(Errno::EIO)
    }

    /// Starts to read what is missing of `first..end`, as far as there is file and memory.
    fn start_read(&self, first: u64, end: u64) {
        let end = end.min(self.page_count());
        if self.store.in_memory() || first >= end {
            return;
        }
        let mut missing: Vec<u64> = Vec::new();
        if missing.try_reserve((end - first) as usize).is_err() {
            return;
        }
        {
            let pages = self.pages.lock();
            let mut cached = pages
                .map
                .range(first..end)
                .map(|(&index, _)| index)
                .peekable();
            for index in first..end {
                if cached.peek() == Some(&index) {
                    cached.next();
                } else {
                    missing.push(index);
                }
            }
        }
        let Some(me) = self.me.upgrade() else { return };
        let mut run: Vec<Fill> = Vec::new();
        let mut added = 0;
        for index in missing {
            if run.last().is_some_and(|last| last.index() + 1 != index) {
                self.store.read(core::mem::take(&mut run));
            }
            let Ok(frame) = Frame::alloc() else { break };
            let page = Arc::new(Page::new(frame, LOADING));
            if self.insert_if_absent(index, &page) {
                run.push(Fill::new(me.clone(), index, page));
                added += 1;
            } else if !run.is_empty() {
                self.store.read(core::mem::take(&mut run));
            }
        }
        if !run.is_empty() {
            self.store.read(run);
        }
        readahead::count_read(added);
    }

    /// Starts to read one page and says when there is no memory for it.
    fn start_one(&self, index: u64) -> Result<()> {
        let frame = alloc_frame()?;
        let page = Arc::new(Page::new(frame, LOADING));
        if self.insert_if_absent(index, &page)
            && let Some(me) = self.me.upgrade()
        {
            self.store.read(alloc::vec![Fill::new(me, index, page)]);
        }
        Ok(())
    }

    fn insert_if_absent(&self, index: u64, page: &Arc<Page>) -> bool {
        let mut pages = self.pages.lock();
        if pages.map.contains_key(&index) {
            return false;
        }
        pages.map.insert(index, page.clone());
        self.count_resident(1);
        true
    }

    /// A page of zeros in a store that is memory.
    fn insert_zeroed(&self, index: u64) -> Result<Arc<Page>> {
        let frame = alloc_frame()?;
        frame.zero();
        self.insert_memory(index, frame)
    }

    /// Makes `frame` page `index` of a store that is memory, unless there is one, which is
    /// returned.
    fn insert_memory(&self, index: u64, frame: Frame) -> Result<Arc<Page>> {
        let reserved = self.store.reserve(index)?;
        let page = Arc::new(Page::new(
            frame,
            VALID | page::RECENT | if reserved { page::RESERVED } else { 0 },
        ));
        if self.insert_if_absent(index, &page) {
            return Ok(page);
        }
        if reserved {
            self.store.release(1);
        }
        self.cached(index).ok_or(Errno::EIO)
    }

    fn count_resident(&self, by: isize) {
        if by >= 0 {
            self.resident.fetch_add(by as usize, Ordering::Relaxed);
        } else {
            self.resident
                .fetch_sub(by.unsigned_abs(), Ordering::Relaxed);
        }
        if !self.store.in_memory() {
            shrink::count(by);
        }
    }

    fn wake(&self) {
        self.loaded.wake_all();
    }

    fn for_observers(&self, tell: impl Fn(&dyn MappingObserver)) {
        let observers = {
            let list = self.observers.lock();
            if list.is_empty() {
                return;
            }
            list.clone()
        };
        for observer in observers {
            if let Some(observer) = observer.upgrade() {
                tell(&*observer);
            }
        }
    }

    /// `SEEK_DATA` and `SEEK_HOLE` from `offset`, which lies before the end.
    ///
    /// # Errors
    /// `ENXIO` when there is no more data; `EIO`.
    pub fn seek_data(&self, offset: u64, data: bool) -> Result<u64> {
        let size = self.size();
        if self.store.in_memory() {
            return self.seek_resident(offset, size, data);
        }
        // Dirty pages may not have their blocks yet.
        self.flush(0, u64::MAX)?;
        match self.store.seek(offset, data)? {
            Some(at) if at < size => Ok(at.max(offset)),
            _ if data => Err(Errno::ENXIO),
            _ => Ok(size),
        }
    }

    fn seek_resident(&self, offset: u64, size: u64, data: bool) -> Result<u64> {
        let pages = self.pages.lock();
        let mut at = offset / PAGE;
        if data {
            return match pages.map.range(at..).next() {
                Some((&index, _)) if index * PAGE < size => Ok(offset.max(index * PAGE)),
                _ => Err(Errno::ENXIO),
            };
        }
        for (&index, _) in pages.map.range(at..) {
            if index != at {
                break;
            }
            at += 1;
        }
        Ok(offset.max(at * PAGE).min(size))
    }
}

impl Drop for PageCache {
    fn drop(&mut self) {
        let pages = core::mem::take(self.pages.get_mut());
        let count = pages.map.len();
        let reserved = pages
            .map
            .values()
            .filter(|page| page.is(page::RESERVED))
            .count();
        if reserved > 0 {
            self.store.release(reserved as u64);
        }
        writeback::count_dirty(-(pages.dirty.len() as isize));
        self.count_resident(-(count as isize));
    }
}

/// A frame, after giving back cached pages if need be.
pub(crate) fn alloc_frame() -> Result<Frame> {
    loop {
        match Frame::alloc() {
            Ok(frame) => return Ok(frame),
            Err(_) if shrink(32) > 0 => {}
            Err(_) => return Err(Errno::ENOMEM),
        }
    }
}

/// Copies a part of a frame to a sink, straight to the program where the sink is its memory.
fn put(sink: &mut dyn Sink, frame: &Frame, offset: usize, len: usize) -> Result<usize> {
    let mut done = 0;
    let direct = sink.put_with(len, &mut |user, part| {
        frame
            .copy_to_user(offset + done, part, user)
            .map_err(|_| Errno::EFAULT)?;
        done += part;
        Ok(part)
    });
    if let Some(result) = direct {
        return result;
    }
    sink.put_from(len, &mut |at, room| frame.read(offset + at, room))
}
