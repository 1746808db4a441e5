//! Dirty pages on their way to the store: which files have some, when they are written, and how
//! writers are slowed down when there are too many.

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use errno::{Errno, Result};
use machine::{mem::Frame, sync::SpinLock};
use sched::{MutexGuard, SpawnOptions, WaitQueue};

use super::{
    PAGE, PageCache,
    page::{DIRTY, Page, RESERVED, WRITING},
    shrink,
};

/// How long a page may stay dirty, as Linux's `dirty_expire_centisecs`.
const EXPIRE_NS: u64 = 30_000_000_000;
/// How often the thread looks, as Linux's `dirty_writeback_centisecs`.
const PERIOD_NS: u64 = 5_000_000_000;
/// Most pages in one write.
const RUN: usize = 256;

static DIRTY_PAGES: AtomicUsize = AtomicUsize::new(0);
static WRITTEN: AtomicU64 = AtomicU64::new(0);
/// Above this many dirty pages writers write themselves; 0: a fifth of memory.
static LIMIT: AtomicUsize = AtomicUsize::new(0);
static LIST: SpinLock<Vec<Arc<PageCache>>> = SpinLock::new(Vec::new());
static WAKE: WaitQueue = WaitQueue::new();
static WANTED: AtomicBool = AtomicBool::new(false);

pub(super) fn count_dirty(by: isize) {
    if by >= 0 {
        DIRTY_PAGES.fetch_add(by as usize, Ordering::Relaxed);
    } else {
        DIRTY_PAGES.fetch_sub(by.unsigned_abs(), Ordering::Relaxed);
    }
}

/// Pages that wait to be written back.
pub fn dirty_pages() -> usize {
    DIRTY_PAGES.load(Ordering::Relaxed)
}

/// Pages written back so far.
pub fn written_pages() -> u64 {
    WRITTEN.load(Ordering::Relaxed)
}

/// Sets above how many dirty pages writers are slowed down; 0 restores a fifth of memory.
pub fn set_dirty_limit(pages: usize) {
    LIMIT.store(pages, Ordering::Relaxed);
}

fn limit() -> usize {
    match LIMIT.load(Ordering::Relaxed) {
        0 => machine::mem::stats().total / 5,
        limit => limit,
    }
}

/// Takes a cache on the list of those with dirty pages. The list keeps it, and so its inode.
pub(super) fn list(cache: Arc<PageCache>) {
    let first = {
        let mut list = LIST.lock();
        list.push(cache);
        list.len() == 1
    };
    if first {
        WANTED.store(true, Ordering::Release);
        WAKE.wake_all();
    }
}

/// Called after a write: above half of the limit the thread is asked to begin, above it the caller
/// writes pages itself until there are fewer.
pub fn throttle() {
    let dirty = dirty_pages();
    // Far below any limit: spare the look at the allocator.
    if dirty < 256 {
        return;
    }
    let limit = limit();
    if dirty < limit / 2 {
        return;
    }
    if dirty < limit {
        WANTED.store(true, Ordering::Release);
        WAKE.wake_all();
        return;
    }
    write_some(dirty - limit / 2);
}

/// Writes back at least `pages` dirty pages, oldest file first, as far as there are any.
pub(crate) fn write_some(pages: usize) {
    let mut caches = LIST.lock().clone();
    caches.sort_by_key(|cache| cache.dirty_since_ns.load(Ordering::Relaxed));
    let goal = written_pages() + pages as u64;
    for cache in caches {
        // The error is kept and told to whoever syncs the file.
        let _ = cache.flush(0, u64::MAX);
        if written_pages() >= goal {
            break;
        }
    }
}

/// Writes back all pages that were dirty longer than they may be.
fn write_due() {
    let now = machine::time::now_ns();
    let caches = LIST.lock().clone();
    for cache in caches {
        let age = now.saturating_sub(cache.dirty_since_ns.load(Ordering::Relaxed));
        if age >= EXPIRE_NS {
            let _ = cache.flush(0, u64::MAX);
        }
    }
}

/// Writes back every dirty page of the files of one [`PageStore::group`](super::PageStore::group).
///
/// # Errors
/// The first that a store reported; all files are tried.
pub(crate) fn flush_group(group: usize) -> Result<()> {
    let caches = LIST.lock().clone();
    let mut result = Ok(());
    for cache in caches {
        if cache.store.group() == group {
            result = result.and(cache.flush(0, u64::MAX));
        }
    }
    result
}

/// What a file system does in the background.
pub(crate) trait Background: Send + Sync {
    /// Called every few seconds after [`want_ticks`] until it answers false: nothing is left to do.
    fn tick(&self) -> bool;
}

static BACKGROUND: SpinLock<Vec<Weak<dyn Background>>> = SpinLock::new(Vec::new());
static TICKING: AtomicBool = AtomicBool::new(false);

/// Has `work` called in the background when ticks are wanted, as long as it lives.
pub(crate) fn register_background(work: Weak<dyn Background>) {
    BACKGROUND.lock().push(work);
}

/// Says that some file system has work for the background.
pub(crate) fn want_ticks() {
    if !TICKING.load(Ordering::Relaxed) && !TICKING.swap(true, Ordering::AcqRel) {
        WANTED.store(true, Ordering::Release);
        WAKE.wake_all();
    }
}

fn tick() {
    if !TICKING.swap(false, Ordering::AcqRel) {
        return;
    }
    let all = BACKGROUND.lock().clone();
    let mut more = false;
    for work in all {
        if let Some(work) = work.upgrade() {
            more |= work.tick();
        }
    }
    if more {
        TICKING.store(true, Ordering::Release);
    }
}

/// Takes caches without dirty pages off the list. Returns whether any are left.
pub(crate) fn tidy() -> bool {
    let mut clean = Vec::new();
    let mut list = LIST.lock();
    let mut at = 0;
    while at < list.len() {
        let is_clean = list[at].pages.lock().dirty.is_empty();
        if is_clean {
            let cache = list.swap_remove(at);
            cache.listed.store(false, Ordering::Release);
            clean.push(cache);
        } else {
            at += 1;
        }
    }
    let left = !list.is_empty();
    drop(list);
    // A page may have become dirty before `listed` was cleared: look again.
    for cache in clean {
        let dirty = !cache.pages.lock().dirty.is_empty();
        if dirty && !cache.listed.swap(true, Ordering::AcqRel) {
            self::list(cache);
        }
    }
    left
}

/// Starts the thread that writes dirty pages back and keeps some memory free. Once, at boot.
///
/// # Errors
/// `EAGAIN` when the thread cannot be made.
pub fn start_writeback() -> Result<()> {
    shrink::install();
    // A dentry with its inode takes some 600 bytes: at most about 2 % of memory.
    crate::dentry::set_limit((machine::mem::stats().total / 8).clamp(512, 65_536));
    sched::spawn(SpawnOptions::named("writeback"), || {
        let mut next_ns = 0;
        loop {
            let busy = tidy() | TICKING.load(Ordering::Acquire);
            if busy && next_ns == 0 {
                next_ns = machine::time::now_ns() + PERIOD_NS;
            }
            let _ = WAKE.wait_until(busy.then_some(next_ns), || {
                (WANTED.swap(false, Ordering::AcqRel) || shrink::is_wanted()).then_some(())
            });
            shrink::balance();
            if next_ns != 0 && machine::time::now_ns() >= next_ns {
                next_ns = 0;
                write_due();
                tick();
            }
            let (dirty, limit) = (dirty_pages(), limit());
            if dirty >= limit / 2 {
                write_some(dirty - limit / 4);
            }
        }
    })
    .map(|_| ())
    .map_err(|_| Errno::EAGAIN)
}

/// Wakes the write-back thread.
pub(super) fn wake() {
    WAKE.wake_all();
}

impl PageCache {
    /// Writes back the dirty pages of `first..end` and waits until the store has them.
    ///
    /// # Errors
    /// What the store said; the pages then count as clean, and [`PageCache::take_error`] repeats it.
    pub fn flush(&self, first: u64, end: u64) -> Result<()> {
        if self.store.in_memory() {
            return Ok(());
        }
        let _one = self.flushing.lock();
        let mut at = first;
        let mut result = Ok(());
        while let Some((start, run)) = self.next_run(at, end) {
            at = start + run.len() as u64;
            // From here a store through a mapping makes the page dirty again.
            self.for_observers(|observer| observer.write_protect(start, at));
            self.clear_behind_end(start, &run);
            let frames: Vec<Frame> = run.iter().map(|page| page.frame().clone()).collect();
            let written = self.store.write(start, &frames, self.size());
            drop(frames);
            self.end_write(&run);
            WRITTEN.fetch_add(run.len() as u64, Ordering::Relaxed);
            if let Err(error) = written {
                let _ = self.error.compare_exchange(
                    0,
                    error.raw(),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                result = Err(error);
            }
        }
        result
    }

    /// Zeroes what a mapping has stored behind the end of the file, so that it does not reach the
    /// disk, where it would come to light when the file grows. Not while somebody writes, whose data
    /// may be there before the size says so.
    fn clear_behind_end(&self, start: u64, run: &[Arc<Page>]) {
        if !self.stored_to.load(Ordering::Relaxed) {
            return;
        }
        let Some(_writer) = self.writer.try_lock() else {
            return;
        };
        let size = self.size();
        let place = (size / PAGE).checked_sub(start);
        if let Some(page) = place.and_then(|place| run.get(place as usize)) {
            let valid = (size % PAGE) as usize;
            page.frame().fill(valid, PAGE as usize - valid, 0);
        }
    }

    /// Takes the next run of consecutive dirty pages out of the dirty set.
    fn next_run(&self, first: u64, end: u64) -> Option<(u64, Vec<Arc<Page>>)> {
        let mut run: Vec<Arc<Page>> = Vec::new();
        let mut pages = self.pages.lock();
        let start = *pages.dirty.range(first..end).next()?;
        while run.len() < RUN {
            let index = start + run.len() as u64;
            if index >= end || !pages.dirty.remove(&index) {
                break;
            }
            match pages.map.get(&index) {
                Some(page) => {
                    page.set(WRITING);
                    page.clear(DIRTY);
                    count_dirty(-1);
                    run.push(page.clone());
                }
                None => break,
            }
        }
        if pages.dirty.is_empty() {
            self.dirty_since_ns.store(u64::MAX, Ordering::Relaxed);
        }
        Some((start, run))
    }

    fn end_write(&self, run: &[Arc<Page>]) {
        let mut released = 0;
        for page in run {
            released += u64::from(page.clear(WRITING | RESERVED) & RESERVED != 0);
        }
        if released > 0 {
            self.store.release(released);
        }
        self.wake();
    }

    /// Keeps write-back of this file from starting, after waiting for one under way.
    pub fn hold_writeback(&self) -> MutexGuard<'_, ()> {
        self.flushing.lock()
    }

    /// Whether there are dirty pages.
    pub fn is_dirty(&self) -> bool {
        !self.pages.lock().dirty.is_empty()
    }

    /// The error of a write-back that nobody was told of yet.
    ///
    /// # Errors
    /// That error.
    pub fn take_error(&self) -> Result<()> {
        match Errno::from_raw(self.error.swap(0, Ordering::AcqRel)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
