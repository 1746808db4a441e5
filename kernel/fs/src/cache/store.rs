//! What is below the page cache: the [`PageStore`] a file system implements for each file, and the
//! [`Fill`] through which it delivers pages.

use alloc::{sync::Arc, vec::Vec};

use errno::{Errno, Result};
use machine::mem::{Frame, PAGE_SIZE};

use super::{
    PageCache,
    page::{FAILED, LOADING, Page, VALID},
};

/// Where the pages of one file come from and go to.
pub trait PageStore: Send + Sync + 'static {
    /// Whether the pages exist only in memory: then a page that is not cached is a hole, nothing is
    /// ever written back, and nothing may be dropped.
    fn in_memory(&self) -> bool {
        false
    }

    /// Starts to fill consecutive pages and returns; each is finished when its contents are there,
    /// or with an error.
    fn read(&self, pages: Vec<Fill>);

    /// Promises room for page `index`, which is about to be changed. Answers whether the promise
    /// was counted and has to be given back with [`PageStore::release`].
    ///
    /// # Errors
    /// `ENOSPC`, `EROFS`.
    fn reserve(&self, index: u64) -> Result<bool>;

    /// Gives back promises: the pages were written or will not be.
    fn release(&self, pages: u64);

    /// Writes consecutive pages, the first of which is `first`, and returns when the device has
    /// them. `size` is the size of the file: what lies behind is not written.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`.
    fn write(&self, first: u64, frames: &[Frame], size: u64) -> Result<()>;

    /// Tells the files of one file system: the address of something they share.
    fn group(&self) -> usize {
        0
    }

    /// Called after contents or size changed by a write through the cache: for the times.
    fn modified(&self) {}

    /// Whether the contents of a file of `size` bytes may be changed, which then ends at `end` if
    /// that is larger.
    ///
    /// # Errors
    /// `EPERM` for a sealed file.
    fn may_change(&self, size: u64, end: u64) -> Result<()> {
        let _ = (size, end);
        Ok(())
    }

    /// Whether the file may be mapped for shared stores.
    ///
    /// # Errors
    /// `EPERM` for a sealed file.
    fn may_map_writable(&self) -> Result<()> {
        Ok(())
    }

    /// Largest size a file can have.
    fn max_size(&self) -> u64 {
        crate::MAX_FILE_SIZE
    }

    /// The start of the next data (or hole) at or behind `offset`, by what the store knows; pages
    /// that were never written back count as data already. `None`: there is none before the end.
    ///
    /// # Errors
    /// `EIO`.
    fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>> {
        Ok(data.then_some(offset))
    }
}

/// A page to be filled. Dropping it unfinished is an error of the store and fails the page.
pub struct Fill {
    cache: Arc<PageCache>,
    index: u64,
    page: Arc<Page>,
    finished: bool,
}

impl Fill {
    pub(super) fn new(cache: Arc<PageCache>, index: u64, page: Arc<Page>) -> Fill {
        Fill {
            cache,
            index,
            page,
            finished: false,
        }
    }

    /// Which page of the file.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Where the contents go.
    pub fn frame(&self) -> &Frame {
        self.page.frame()
    }

    /// The contents are there, or will not come.
    pub fn finish(mut self, result: Result<()>) {
        self.end(result);
    }

    fn end(&mut self, result: Result<()>) {
        self.finished = true;
        if result.is_ok() {
            // What lies behind the end of the file must read as zeros if it grows.
            let start = self.index * PAGE_SIZE as u64;
            let valid = self.cache.size().saturating_sub(start);
            if valid < PAGE_SIZE as u64 {
                let valid = valid as usize;
                self.page.frame().fill(valid, PAGE_SIZE - valid, 0);
            }
            self.page.set(VALID);
        } else {
            self.page.set(FAILED);
        }
        self.page.clear(LOADING);
        self.cache.wake();
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if !self.finished {
            self.end(Err(Errno::EIO));
        }
    }
}
