//! Giving memory back: which cached pages go when frames run out.
//!
//! A clock goes round all caches and, in each, round its pages: a page used since the last turn gets
//! a second chance. Pages that are dirty, under I/O or mapped stay.

use alloc::{
    collections::VecDeque,
    sync::{Arc, Weak},
};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use machine::sync::SpinLock;

use super::{
    PageCache,
    page::{DIRTY, LOADING, RECENT, VALID, WRITING},
    writeback,
};

static CACHES: SpinLock<VecDeque<Weak<PageCache>>> = SpinLock::new(VecDeque::new());
static RESIDENT: AtomicUsize = AtomicUsize::new(0);
static WANTED: AtomicBool = AtomicBool::new(false);

/// Pages looked at in one cache before the next has its turn.
const STRIDE: usize = 128;

pub(super) fn register(cache: &Arc<PageCache>) {
    let mut caches = CACHES.lock();
    caches.push_back(Arc::downgrade(cache));
    // Let go of some that have ended, so that the ring does not grow with every file ever opened.
    for _ in 0..2 {
        match caches.pop_front() {
            Some(front) if front.strong_count() > 0 => caches.push_back(front),
            _ => {}
        }
    }
}

pub(super) fn count(by: isize) {
    if by >= 0 {
        RESIDENT.fetch_add(by as usize, Ordering::Relaxed);
    } else {
        RESIDENT.fetch_sub(by.unsigned_abs(), Ordering::Relaxed);
    }
}

/// Pages of files on disk in memory.
pub fn resident_pages() -> usize {
    RESIDENT.load(Ordering::Relaxed)
}

/// Gives back up to `wanted` clean pages, and returns how many. Only tries locks, so that it may be
/// called from any allocation.
pub fn shrink(wanted: usize) -> usize {
    let rounds = match CACHES.try_lock() {
        // Twice: the first turn takes the second chances away.
        Some(caches) => caches.len() * 2,
        None => return 0,
    };
    let mut freed = 0;
    let mut left = rounds + RESIDENT.load(Ordering::Relaxed) * 2 / STRIDE;
    while freed < wanted && left > 0 {
        left -= 1;
        let cache = {
            let Some(mut caches) = CACHES.try_lock() else {
                break;
            };
            let Some(weak) = caches.pop_front() else {
                break;
            };
            let Some(cache) = weak.upgrade() else {
                continue;
            };
            caches.push_back(weak);
            cache
        };
        freed += cache.evict(wanted - freed);
        // The shrinker may turn out to be the last owner: the end of a cache takes no lock.
        drop(cache);
    }
    freed
}

/// Has the allocator call the shrinker. Once, at boot.
pub(super) fn install() {
    machine::mem::set_reclaim(|wanted| {
        WANTED.store(true, Ordering::Release);
        writeback::wake();
        shrink(wanted.max(64))
    });
}

pub(super) fn is_wanted() -> bool {
    WANTED.load(Ordering::Acquire)
}

/// In the write-back thread after the allocator ran short: has some memory ready, so that the next
/// allocations need not wait.
pub(super) fn balance() {
    if !WANTED.swap(false, Ordering::AcqRel) {
        return;
    }
    let stats = machine::mem::stats();
    let goal = stats.total / 64;
    if stats.free < goal {
        let freed = shrink(goal - stats.free);
        if stats.free + freed < goal {
            crate::dentry::shrink(256);
            writeback::write_some(goal);
            shrink(goal);
        }
    }
}

impl PageCache {
    /// Drops up to `wanted` pages that nobody uses, going on where it stopped last time.
    fn evict(&self, wanted: usize) -> usize {
        let Some(mut pages) = self.pages.try_lock() else {
            return 0;
        };
        let mut at = self.hand.load(Ordering::Relaxed);
        let mut freed = 0;
        for _ in 0..STRIDE {
            if freed >= wanted {
                break;
            }
            let Some((&index, page)) = pages.map.range(at..).next() else {
                at = 0;
                break;
            };
            at = index + 1;
            if page.clear(RECENT) != 0
                || !page.is(VALID)
                || page.is(DIRTY | WRITING | LOADING)
                || Arc::strong_count(page) > 1
                || page.frame().ref_count() > 1
            {
                continue;
            }
            pages.map.remove(&index);
            self.count_resident(-1);
            freed += 1;
        }
        self.hand.store(at, Ordering::Relaxed);
        freed
    }
}
