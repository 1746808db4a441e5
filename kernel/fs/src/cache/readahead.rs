//! What to read before it is asked for.
//!
//! A reader that goes on where it stopped gets a window that doubles from 128 KiB to 1 MiB, the next
//! one being started when half of the last is left. Files of up to 256 KiB are read whole on the
//! first miss: at the start of a program nearly all of each is needed, and one request costs little
//! more than a small one. A page fault reads the aligned 256 KiB around it.

use core::sync::atomic::{AtomicU64, Ordering};

use machine::sync::SpinLock;

use super::PageCache;

const START: u64 = 32;
const MOST: u64 = 256;
const WHOLE: u64 = 64;
const AROUND: u64 = 64;

static READ: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
struct State {
    /// The page after the last one read.
    next: u64,
    /// Up to where reading has been started.
    end: u64,
    /// The last window.
    window: u64,
}

/// What one open file has read so far.
#[derive(Default)]
pub struct Readahead {
    state: SpinLock<State>,
}

impl Readahead {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Called for each read of the pages `first..end`: starts the I/O that is due.
    pub(super) fn on_read(&self, cache: &PageCache, first: u64, end: u64) {
        let missing = cache.resident() == 0 || cache.cached(first).is_none();
        let pages = cache.page_count();
        let (from, to) = {
            let mut state = self.state.lock();
            let sequential = first == state.next || first + 1 == state.next;
            state.next = end;
            if missing {
                if pages <= WHOLE {
                    (0, pages)
                } else {
                    state.window = if sequential {
                        (state.window * 2).clamp(START, MOST)
                    } else {
                        0
                    };
                    let to = first + state.window.max((end - first).min(MOST));
                    state.end = to;
                    (first, to)
                }
            } else if sequential && state.end > 0 && end + state.window / 2 >= state.end {
                if state.end >= pages {
                    return;
                }
                state.window = (state.window * 2).clamp(START, MOST);
                let from = state.end.max(end);
                state.end = from + state.window;
                (from, state.end)
            } else {
                return;
            }
        };
        if short_of_memory() {
            // What is asked for now will be read page by page.
            return;
        }
        cache.start_read(from, to);
    }
}

/// Whether pages read on suspicion would push out others that are in use.
fn short_of_memory() -> bool {
    let stats = machine::mem::stats();
    stats.free < stats.total / 32
}

/// Reads around a page fault.
pub(super) fn around(cache: &PageCache, index: u64) {
    if short_of_memory() {
        cache.start_read(index, index + 1);
        return;
    }
    if cache.page_count() <= WHOLE {
        cache.start_read(0, WHOLE);
        return;
    }
    let first = index / AROUND * AROUND;
    // The page itself first in line if there is not memory for all.
    cache.start_read(index, first + AROUND);
    cache.start_read(first, index);
}

pub(super) fn count_read(pages: u64) {
    READ.fetch_add(pages, Ordering::Relaxed);
}
