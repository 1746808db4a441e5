//! Objects that areas show: page caches of files, anonymous shared memory, the kernel's own pages.
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use errno::{Errno, Result};
use machine::mem::Frame;
use machine::sync::SpinLock;

/// What `/proc/self/maps` says of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Device number, major and minor.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
    /// Path, or a name such as `/dev/zero (deleted)`.
    pub path: Vec<u8>,
}

/// A source of pages that are shared by everyone who looks at the same index.
pub trait Pager: Send + Sync {
    /// A number that tells objects apart.
    fn id(&self) -> usize;

    /// Page `index`; reads it in and sleeps if need be.
    ///
    /// # Errors
    /// Any; the program gets `SIGBUS` (`EFAULT` is used for pages past the end).
    fn page(&self, index: u64) -> Result<Frame>;

    /// Page `index` if it is there at once.
    fn cached(&self, index: u64) -> Option<Frame>;

    /// Whether `frame` still is page `index`: asked after mapping it, since the object may have been
    /// cut short in between.
    fn holds(&self, _index: u64, _frame: &Frame) -> bool {
        true
    }

    /// Says that the program is about to write to page `index`. Nothing to do for memory alone.
    ///
    /// # Errors
    /// `ENOSPC` and the like where the object cannot take it.
    fn mark_dirty(&self, _index: u64) -> Result<()> {
        Ok(())
    }

    /// Writes back the pages of `pages`, and waits (`msync(2)` with `MS_SYNC`). Nothing to do for memory alone.
    ///
    /// # Errors
    /// What the device reports.
    fn sync(&self, _pages: Range<u64>) -> Result<()> {
        Ok(())
    }

    /// Reads ahead.
    fn will_need(&self, _pages: Range<u64>) {}

    /// For `/proc/self/maps`.
    fn describe(&self) -> Description;

    /// Whether its pages are files' (counted as such in `/proc/self/statm`).
    fn is_file(&self) -> bool {
        true
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A number for an object that is not a file's: odd, so that it is nobody's address.
fn next_id() -> usize {
    (NEXT_ID.fetch_add(1, Ordering::Relaxed) * 2 + 1) as usize
}

/// Shared memory without a file: `MAP_SHARED | MAP_ANONYMOUS`.
pub struct SharedMemory {
    id: usize,
    pages: u64,
    frames: SpinLock<BTreeMap<u64, Frame>>,
}

impl SharedMemory {
    /// `pages` pages of zeroes.
    pub fn new(pages: u64) -> Self {
        SharedMemory {
            id: next_id(),
            pages,
            frames: SpinLock::new(BTreeMap::new()),
        }
    }
}

impl Pager for SharedMemory {
    fn id(&self) -> usize {
        self.id
    }

    fn page(&self, index: u64) -> Result<Frame> {
        if index >= self.pages {
            return Err(Errno::EFAULT);
        }
        if let Some(frame) = self.cached(index) {
            return Ok(frame);
        }
        let fresh = Frame::alloc_zeroed().map_err(|_| Errno::ENOMEM)?;
        Ok(self.frames.lock().entry(index).or_insert(fresh).clone())
    }

    fn cached(&self, index: u64) -> Option<Frame> {
        self.frames.lock().get(&index).cloned()
    }

    fn describe(&self) -> Description {
        Description {
            device: (0, 1),
            inode: self.id as u64,
            path: b"/dev/zero (deleted)".to_vec(),
        }
    }

    fn is_file(&self) -> bool {
        false
    }
}

/// Pages of the kernel's own that the program may look at.
pub struct FixedPages {
    id: usize,
    frames: Vec<Frame>,
    name: &'static [u8],
}

impl FixedPages {
    /// Exactly `frames`.
    pub fn new(frames: Vec<Frame>, name: &'static [u8]) -> Self {
        FixedPages {
            id: next_id(),
            frames,
            name,
        }
    }
}

impl Pager for FixedPages {
    fn id(&self) -> usize {
        self.id
    }

    fn page(&self, index: u64) -> Result<Frame> {
        self.cached(index).ok_or(Errno::EFAULT)
    }

    fn cached(&self, index: u64) -> Option<Frame> {
        self.frames.get(usize::try_from(index).ok()?).cloned()
    }

    fn mark_dirty(&self, _index: u64) -> Result<()> {
        Err(Errno::EACCES)
    }

    fn describe(&self) -> Description {
        Description {
            device: (0, 0),
            inode: 0,
            path: self.name.to_vec(),
        }
    }

    fn is_file(&self) -> bool {
        false
    }
}
